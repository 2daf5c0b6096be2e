"""Records: what `measure` puts in, what `merge` makes of two, what is derived."""

import itertools

import numpy as np
import pytest

from activation_monitor.analysis import records

SCALES = [1e-30, 1e-12, 1.0, 1e12, 1e30]

# Sums of some ten float64 numbers, twice rounded: a few times 2^-53 = 1.1e-16.
ROUNDING = 1e-13

# Fields that know nothing of the batches the elements came in.
POOLED = [n for n in records.FIELD_NAMES if n not in ("within_variance", "dead_units")]

# What the record of nothing measured ends with, after the counts.
NOTHING = [0, 0, 0, 0, 0, np.inf, -np.inf, 0]


def numbers(scale=1.0, mean=0.0, broken=False, shape=(12, 5)):
    """Gaussian float64 numbers, some of them exactly zero, some not finite."""
    x = np.random.default_rng(7).standard_normal(shape)
    x = scale * (x + mean)
    x[2, 3] = x[5, 0] = 0.0
    if broken:
        x[1, 1], x[7, 4], x[7, 2], x[11, 0] = np.nan, np.inf, -np.inf, np.nan
        x[4:6] = np.nan  # a whole batch of two, in the finest of the splits
    return x


def dead_channels(x):
    """How many channels, along the last axis, are zero throughout."""
    channels = np.moveaxis(x, -1, 0) if x.ndim > 1 else [x]
    return sum(not np.any(channel) for channel in channels)  # NaN is true


def by_definition(x, low=-np.inf, high=np.inf):
    """The fields of one batch, each from its textbook formula; saturated: at or beyond
    the two limits."""
    x = np.asarray(x, np.float64)
    units = np.where(np.isfinite(x), x, np.nan).reshape(len(x), -1)
    finite = units[np.isfinite(units)]
    about_unit_means = [
        (unit[np.isfinite(unit)] - np.mean(unit[np.isfinite(unit)])) ** 2
        for unit in units.T
        if np.isfinite(unit).any()
    ]
    return {
        "count": x.size,
        "samples": len(x),
        "nonfinite": x.size - finite.size,
        "zeros": np.count_nonzero(finite == 0),
        "mean": np.mean(finite),
        "variance": np.var(finite),
        "second_moment": np.mean(np.square(finite)),
        "within_variance": np.mean(np.concatenate(about_unit_means)),
        "minimum": np.min(finite),
        "maximum": np.max(finite),
        "saturated": sum(value <= low or value >= high for value in finite),
        "dead_units": dead_channels(x),
        "counted": x.size,
    }


def fields(record):
    """A record as a dictionary of floats."""
    return dict(zip(records.FIELD_NAMES, record.tolist(), strict=True))


def merge_all(found):
    """Merge a sequence of records from the left."""
    merged = records.empty()
    for record in found:
        merged = records.merge(merged, record)
    return merged


# -- measure


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("scale", SCALES)
def test_measure_gives_every_field_by_its_definition(scale, broken):
    """Each field is the textbook formula on the finite elements, at any scale."""
    x = numbers(scale, broken=broken)
    measured, expected = fields(records.measure(x)), by_definition(x)
    for name in records.FIELD_NAMES:
        np.testing.assert_allclose(
            measured[name], expected[name], rtol=ROUNDING, err_msg=name
        )


@pytest.mark.parametrize("shape", [(6,), (6, 4), (6, 2, 3), (2, 3, 2, 5)])
def test_measure_takes_the_first_axis_as_the_batch_and_all_others_as_units(shape):
    """Whatever the rank, a unit is a position along the axes after the first."""
    x = np.random.default_rng(3).standard_normal(shape)
    record = records.measure(x)
    assert records.field(record, "samples") == shape[0]
    assert records.field(record, "count") == np.prod(shape)
    within = np.mean(np.var(x, axis=0))
    np.testing.assert_allclose(
        records.field(record, "within_variance"), within, rtol=ROUNDING
    )


@pytest.mark.parametrize("x", [2.5, [2.5], [[2.5]], np.float16(2.5), [[[2.5]]]])
def test_measure_of_one_element_has_no_spread(x):
    """A scalar and a tensor of one element are one sample of one unit."""
    assert fields(records.measure(x)) == {
        "count": 1.0,
        "samples": 1.0,
        "nonfinite": 0.0,
        "zeros": 0.0,
        "mean": 2.5,
        "variance": 0.0,
        "second_moment": 6.25,
        "within_variance": 0.0,
        "minimum": 2.5,
        "maximum": 2.5,
        "saturated": 0.0,
        "dead_units": 0.0,
        "counted": 1.0,
    }


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (2, 0, 3)])
def test_measure_of_no_elements_is_the_empty_record(shape):
    """A tensor without elements gives an empty record, not NaN."""
    np.testing.assert_array_equal(
        records.measure(np.zeros(shape)), [0, 0, 0, *NOTHING, np.inf, 0]
    )


@pytest.mark.parametrize("value", [1.0, -0.1, 1e-38, 3.4e38, 1e7])
def test_measure_of_a_constant_has_its_size_and_no_spread(value):
    """The variance of a constant is zero up to the rounding of its mean."""
    measured = fields(records.measure(np.full((33, 7), value)))
    np.testing.assert_allclose(measured["mean"], value, rtol=ROUNDING)
    np.testing.assert_allclose(measured["second_moment"], value**2, rtol=ROUNDING)
    # The mean is wrong by at most `ROUNDING`, a deviation squared by its square.
    assert 0 <= measured["variance"] <= (ROUNDING * value) ** 2
    assert 0 <= measured["within_variance"] <= (ROUNDING * value) ** 2


def test_measure_of_zeros_counts_them_all():
    """Zeros of either sign are zeros; all else of the record is zero too."""
    measured = fields(records.measure([[0.0, -0.0], [0.0, 0.0]]))
    assert measured["zeros"] == measured["count"] == 4
    assert measured["dead_units"] == 2
    assert measured["second_moment"] == measured["variance"] == measured["maximum"] == 0


@pytest.mark.parametrize("extreme", [2.0**-149, 2.0**-126 - 2.0**-149, 2.0**128 - 2.0**104])
def test_measure_reaches_both_ends_of_float32(extreme):
    """The smallest and largest subnormal and the largest finite value are measured."""
    x = np.array([[extreme, -extreme, 0.0, extreme]], np.float32)
    measured = fields(records.measure(x))
    # Powers of two, or float64 rounding: 3/4, and 3/4 - 1/16 = 11/16 of the square.
    np.testing.assert_allclose(measured["second_moment"], 0.75 * extreme**2, rtol=1e-15)
    np.testing.assert_allclose(measured["variance"], 0.6875 * extreme**2, rtol=1e-15)
    assert (measured["minimum"], measured["maximum"]) == (-extreme, extreme)
    assert measured["zeros"] == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_measure_of_nothing_finite_counts_and_measures_nothing(value):
    """If no element is finite, the elements are counted and the rest stays empty; no
    channel is zero."""
    record = records.measure(np.full((3, 2), value), "tanh")
    np.testing.assert_array_equal(record, [6, 3, 6, *NOTHING, 0, 6])


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("activation", records.SATURATED)
def test_measure_counts_what_is_saturated_by_its_definition(activation, broken):
    """The finite elements at or beyond the limits of the activation function."""
    x = numbers(0.7, mean=0.5, broken=broken)
    low, high = records.SATURATED[activation]
    x[0] = low, high, np.nextafter(low, 0.5), np.nextafter(high, 0.5), 1.0
    saturated = records.field(records.measure(x, activation), "saturated")
    assert saturated == by_definition(x, low, high)["saturated"]
    assert 3 <= saturated < np.isfinite(x).sum()


@pytest.mark.parametrize("activation", ["linear", "relu", "softmax", "an unknown one"])
def test_nothing_is_saturated_where_an_activation_has_no_limits(activation):
    """However large, and whatever the function is called."""
    record = records.measure([[-3e38, 0.0, 1.0, 3e38]], activation)
    assert records.field(record, "saturated") == 0


@pytest.mark.parametrize("shape", [(6,), (6, 4), (6, 2, 4), (6, 2, 3, 4), (6, 2, 1, 3, 4)])
def test_measure_counts_the_channels_that_are_zero_throughout(shape):
    """Whatever the rank, a channel is a place along the last axis; a vector is one."""
    x = np.random.default_rng(3).standard_normal(shape)
    assert records.field(records.measure(x), "dead_units") == 0
    if len(shape) == 1:
        x[:] = 0.0
        assert records.field(records.measure(x), "dead_units") == 1
        return
    x[..., 0], x[..., 2] = 0.0, -0.0
    assert records.field(records.measure(x), "dead_units") == 2
    for alive in (np.nan, np.inf, 5e-324):  # in one sample, at one position
        x[(-1,) * (x.ndim - 1)][2] = alive
        assert records.field(records.measure(x), "dead_units") == 1


# -- merge


@pytest.mark.parametrize("cuts", [(), (1,), (6,), (2, 4, 6, 8, 10), tuple(range(1, 12))])
@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("scale", SCALES)
def test_merging_the_parts_of_a_batch_gives_the_record_of_the_whole(scale, broken, cuts):
    """However a batch is split, the merged record is that of the whole batch."""
    x = numbers(scale, broken=broken)
    parts = [records.measure(part, "tanh") for part in np.split(x, cuts)]
    merged = fields(merge_all(parts))
    expected = by_definition(x, -0.98, 0.98)
    for name in POOLED:
        # The mean may cancel: its error is relative to the elements.
        atol = ROUNDING * scale if name == "mean" else 0.0
        np.testing.assert_allclose(
            merged[name], expected[name], rtol=ROUNDING, atol=atol, err_msg=name
        )


@pytest.mark.parametrize("mean", [1e3, -1e6, 1e8])
def test_merging_keeps_the_variance_of_numbers_far_from_zero(mean):
    """A mean 1e8 times the standard deviation costs digits only as rounding it does."""
    x = numbers(mean=mean)[[0, 1, 3, 4, 6, 7, 8, 9]]  # without the zeros
    merged = merge_all(records.measure(part) for part in np.split(x, 4))
    # Means rounded to 2^-53 |mean| change their differences, of size 1, by so much.
    rtol = 10 * 2.0**-53 * abs(mean) + ROUNDING
    variance = records.field(merged, "variance")
    np.testing.assert_allclose(variance, np.var(x - mean), rtol=rtol)
    np.testing.assert_allclose(variance, 1.0, rtol=0.5)  # the numbers are what they seem


def test_merging_does_not_depend_on_the_order():
    """All orders and groupings of four records agree up to rounding."""
    parts = [records.measure(p) for p in np.split(numbers(broken=True), [2, 3, 9])]
    reference = merge_all(parts)
    for order in itertools.permutations(parts):
        np.testing.assert_allclose(merge_all(order), reference, rtol=ROUNDING)
    a, b, c, d = parts
    in_pairs = records.merge(records.merge(a, b), records.merge(c, d))
    np.testing.assert_allclose(in_pairs, reference, rtol=ROUNDING)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("broken", [False, True])
def test_merging_with_an_empty_record_changes_no_bit(scale, broken):
    """The empty record is neutral from either side, and with itself."""
    record = records.measure(numbers(scale, broken=broken))
    for other in (record, records.empty()):
        np.testing.assert_array_equal(records.merge(records.empty(), other), other)
        np.testing.assert_array_equal(records.merge(other, records.empty()), other)


def test_a_batch_without_finite_elements_adds_to_the_counts_only():
    """What is not finite moves neither mean nor spread of what is."""
    whole = fields(records.measure([[1.0, 4.0]]))
    broken = records.measure([[np.nan, np.inf], [np.nan, np.nan]])
    for merged in (
        records.merge(records.measure([[1.0, 4.0]]), broken),
        records.merge(broken, records.measure([[1.0, 4.0]])),
    ):
        counts = {"count": 6.0, "samples": 3.0, "nonfinite": 4.0, "counted": 6.0}
        assert fields(merged) == {**whole, **counts}


@pytest.mark.parametrize("first", [True, False])
def test_what_a_quick_look_left_unmeasured_stays_unmeasured(first):
    """Merged with a record whose measurements are NaN, the counts add, the rest is NaN."""
    seen = records.measure([[1.0, 4.0]])
    unmeasured = np.full(len(records.FIELDS), np.nan)
    unmeasured[:4] = [2, 1, 1, 0]
    pair = (unmeasured, seen) if first else (seen, unmeasured)
    merged = records.merge(*pair)
    np.testing.assert_array_equal(merged, [4, 2, 1, 0, *[np.nan] * 9])
    for name in records.STATISTICS:
        if name not in ("zero_fraction", "nonfinite_fraction"):
            np.testing.assert_equal(float(records.STATISTICS[name](merged)), np.nan)
    assert records.STATISTICS["nonfinite_fraction"](merged) == 0.25


@pytest.mark.parametrize("sizes", [(1, 1), (2, 10), (7, 3)])
def test_the_variance_within_two_batches_is_their_average_weighted_by_elements(sizes):
    """`within_variance` is that of one batch: a shift between batches is not in it."""
    rng = np.random.default_rng(11)
    a, b = rng.standard_normal((sizes[0], 4)), 5.0 * rng.standard_normal((sizes[1], 4))
    merged = records.merge(records.measure(a), records.measure(b + 100.0))
    expected = np.average(
        [np.mean(np.var(a, axis=0)), np.mean(np.var(b, axis=0))], weights=sizes
    )
    within = records.field(merged, "within_variance")
    # The shift by 100 rounds the elements by 1e-14.
    np.testing.assert_allclose(within, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "merged", "whole"),
    [
        ([0, 1, 2], [0, 1, 2], 3, 3),  # the same units: exact
        ([0, 1, 2], [1], 1, 1),
        ([0, 1, 2], [2, 3], 2, 1),  # others: at most so many
        ([0, 1], [2, 3], 2, 0),
        ([0, 1, 2, 3, 4], [], 0, 0),
    ],
)
def test_the_dead_units_of_two_batches_are_the_fewer_and_bound_those_of_the_whole(
    first, second, merged, whole
):
    """Which units are dead is not in a record: the smaller number, from either side,
    which is never less than the number that are dead in both."""
    batches = np.random.default_rng(5).standard_normal((2, 4, 3, 5))
    for batch, dead in zip(batches, (first, second), strict=True):
        batch[..., dead] = 0.0
    pair = [records.measure(batch) for batch in batches]
    for a, b in (pair, pair[::-1]):
        assert records.field(records.merge(a, b), "dead_units") == merged
    record = records.measure(np.concatenate(batches))
    assert records.field(record, "dead_units") == whole <= merged


@pytest.mark.parametrize("cuts", [(1,), (6,), (2, 4, 6, 8, 10), tuple(range(1, 12))])
@pytest.mark.parametrize("broken", [False, True])
def test_the_dead_units_of_many_batches_are_those_of_the_batch_with_fewest(broken, cuts):
    """Of batches with none, one and more of them, NaN among the elements or not."""
    x = np.maximum(numbers(broken=broken), 0.0)
    if not broken:
        x[:, 4] = 0.0
    parts = np.split(x, cuts)
    merged = merge_all(records.measure(part) for part in parts)
    fewest = min(dead_channels(part) for part in parts)
    assert records.field(merged, "dead_units") == fewest >= dead_channels(x)


def test_merging_broadcasts_over_leading_axes():
    """Stacks of records merge as each pair of them does."""
    x, y = np.random.default_rng(5).standard_normal((2, 2, 3, 8, 4))
    stacks = [
        np.stack([[records.measure(batch) for batch in row] for row in batches])
        for batches in (x, y)
    ]
    merged = records.merge(*stacks, xp=np)
    assert merged.shape == (2, 3, len(records.FIELDS))
    for i, j in np.ndindex(2, 3):
        both = by_definition(np.concatenate([x[i, j], y[i, j]]))
        for name in POOLED:
            value = records.field(merged, name)[i, j]
            np.testing.assert_allclose(value, both[name], rtol=1e-12, err_msg=name)
    one_for_all = records.merge(stacks[0], records.empty())
    np.testing.assert_array_equal(one_for_all, stacks[0])


# -- statistics


FORMULAS = {
    "mean": np.mean,
    "std": np.std,
    "rms": lambda x: np.sqrt(np.mean(x**2)),
    "within_std": lambda x: np.sqrt(np.mean(np.var(x, axis=0))),
    "between_std": lambda x: np.std(np.mean(x, axis=0)),
    "minimum": np.min,
    "maximum": np.max,
    "zero_fraction": lambda x: np.mean(x == 0),
    "nonfinite_fraction": lambda x: np.mean(~np.isfinite(x)),
    "saturated_fraction": lambda x: np.mean(np.abs(x) >= 0.98),
    "dead_units": dead_channels,
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("scale", SCALES)
def test_every_statistic_is_what_numpy_says(name, scale):
    """Each statistic of a whole batch equals its formula on the elements."""
    x = numbers(scale, mean=0.5)
    x[:, 3] = 0.0
    value = records.STATISTICS[name](records.measure(x, "tanh"))
    # `between_std` is the root of a difference of two variances of like size.
    np.testing.assert_allclose(value, FORMULAS[name](x), rtol=1e-12)


def test_no_statistic_goes_untested():
    """The table above has a formula for every statistic there is."""
    assert [*FORMULAS] == [*records.STATISTICS]


def test_the_fractions_count_among_all_elements():
    """Zeros, saturated and non-finite elements are shares of all, finite or not."""
    x = [[0.0, np.nan, np.inf, 1.0], [0.0, 0.0, -np.inf, np.nan]]
    record = records.measure(x, "tanh")
    assert records.STATISTICS["zero_fraction"](record) == 3 / 8
    assert records.STATISTICS["saturated_fraction"](record) == 1 / 8
    assert records.STATISTICS["nonfinite_fraction"](record) == 4 / 8


def test_of_a_sample_the_fractions_are_shares_of_the_counted_elements():
    """Two samples of different density together are the share among both."""
    record = records.measure(np.zeros((10, 10)))
    for name, value in {"counted": 20, "zeros": 5, "saturated": 2, "nonfinite": 10}.items():
        records.field(record, name)[...] = value
    assert records.STATISTICS["zero_fraction"](record) == 5 / 20
    assert records.STATISTICS["saturated_fraction"](record) == 2 / 20
    assert records.STATISTICS["nonfinite_fraction"](record) == 10 / 100
    both = records.merge(record, records.measure(np.ones((5, 4))))
    assert records.STATISTICS["zero_fraction"](both) == 5 / 40


@pytest.mark.parametrize(
    "name",
    [name for name in records.STATISTICS if not name.endswith("_fraction")],
)
@pytest.mark.parametrize("x", [np.zeros((0, 3)), np.full((2, 3), np.nan)])
def test_a_statistic_of_nothing_finite_is_nan(name, x):
    """Where nothing finite was measured there is not a number, and no warning either."""
    np.testing.assert_equal(
        float(records.STATISTICS[name](records.measure(x))), float("nan")
    )


@pytest.mark.parametrize(
    ("name", "of_nan"),
    [("nonfinite_fraction", 1.0), ("zero_fraction", 0.0), ("saturated_fraction", 0.0)],
)
def test_the_fractions_of_nothing_are_nan_and_nan_is_counted_as_non_finite(name, of_nan):
    """An empty record has no fractions; one of NaN is all non-finite."""
    for x, expected in ((np.zeros((0, 3)), np.nan), (np.full((2, 3), np.nan), of_nan)):
        value = records.STATISTICS[name](records.measure(x, "tanh"))
        np.testing.assert_equal(float(value), expected)


def test_a_statistic_of_a_stack_is_that_of_each_record():
    """Statistics keep the leading axes, NaN only where nothing was measured."""
    stack = np.stack([records.measure([[3.0], [-3.0]]), records.empty()])[None]
    np.testing.assert_array_equal(records.STATISTICS["rms"](stack), [[3.0, np.nan]])
    np.testing.assert_array_equal(
        records.STATISTICS["zero_fraction"](stack), [[0.0, np.nan]]
    )


# -- fields


def test_field_is_a_view_by_name():
    """Writing to a field writes to the records."""
    found = records.empty(2)
    records.field(found, "mean")[:] = [1.0, 2.0]
    np.testing.assert_array_equal(found[:, records.FIELD_NAMES.index("mean")], [1, 2])


def test_an_unknown_field_is_a_key_error():
    """There is no field but those of `FIELDS`."""
    with pytest.raises(KeyError, match="'norm'"):
        records.field(records.empty(), "norm")


def test_empty_records_have_the_shape_asked_for_and_their_own_memory():
    """Each call makes new records: changing one changes no later one."""
    found = records.empty(4, 3)
    assert found.shape == (4, 3, len(records.FIELDS))
    found[:] = 7.0
    np.testing.assert_array_equal(records.empty(), [0, 0, 0, *NOTHING, np.inf, 0])

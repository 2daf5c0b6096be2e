"""The measuring kernel against float64 numpy: eager, in a graph and under XLA."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from activation_monitor.analysis import histogram, raw, records
from activation_monitor.recording import measure
from activation_monitor.recording.backends import backend
from activation_monitor.recording.backends.tensorflow import stores

MODES = ("eager", "graph", "xla")


@functools.cache
def compiled(dtype, rank, mode, exact, histograms=True, channel_axis=-1, activation=""):
    look = stores._measuring(
        dtype,
        rank,
        exact=exact,
        fused=mode == "xla",
        histograms=histograms,
        channel_axis=channel_axis,
        unsaturated=records.SATURATED.get(activation),
    )
    if mode == "eager":
        return look
    return tf.function(
        look,
        jit_compile=mode == "xla",
        autograph=False,
        input_signature=[tf.TensorSpec([None] * rank, dtype)],
    )


def look(x, mode="graph", exact=False):
    """The record and the histogram of an array, as a training step measures them."""
    x = tf.constant(x)
    found = compiled(x.dtype.name, len(x.shape), mode, exact)(x).numpy()
    np.testing.assert_equal(found.dtype, np.float32)
    record, counted = np.split(found, [len(raw.COLUMNS)])
    return raw.finish(record), raw.finish_histograms(counted)


def record_of(x, mode="graph", exact=False, **about):
    """The record alone, where the axis of the channels or the activation function is
    known."""
    x = tf.constant(x)
    run = compiled(x.dtype.name, len(x.shape), mode, exact, histograms=False, **about)
    return raw.finish(run(x).numpy())


def merged(batches, mode, merges=True, **about):
    """What a store holds after each batch."""
    store = backend.Store(histograms=False, merges=merges)

    def put(x):
        store.put(x, exact=False, fused=mode == "xla", **about)

    if mode != "eager":
        put = tf.function(put, jit_compile=mode == "xla", autograph=False)
    for batch in batches:
        put(tf.constant(batch))
        yield store.read()


def numpy_record(x, channel_axis=-1, activation="", stride=1):
    """The same in plain float64 numpy, finite elements only; zeros and saturated ones among
    one element in `stride`."""
    x = np.asarray(x).astype(np.float64)
    rows = x.reshape(len(x), -1) if x.ndim else x.reshape(1, 1)
    finite = np.ma.masked_invalid(rows)
    kept = finite.compressed()
    per_unit = finite.var(axis=0) * finite.count(axis=0)
    low, high = records.SATURATED.get(activation, (-np.inf, np.inf))
    counted = x.ravel()[::stride]
    sample = counted[np.isfinite(counted)]
    channels = np.moveaxis(x, channel_axis, 0) if x.ndim > 1 else [x]
    return {
        "count": rows.size,
        "samples": rows.shape[0],
        "nonfinite": rows.size - kept.size,
        "zeros": np.sum(sample == 0),
        "mean": kept.mean(),
        "variance": kept.var(),
        "second_moment": np.mean(kept * kept),
        "within_variance": per_unit.sum() / kept.size,
        "minimum": kept.min(),
        "maximum": kept.max(),
        "saturated": np.sum((sample <= low) | (sample >= high)),
        "dead_units": sum(not np.any(channel) for channel in channels),  # NaN is true
        "counted": counted.size,
    }


def assert_right(record, x, rtol=1e-6, **about):
    """All fields to `rtol`; the mean relative to the rms, since it may cancel to zero."""
    expected = numpy_record(x, **about)
    rms = np.sqrt(expected["second_moment"])
    for name, value in expected.items():
        measured = records.field(record, name)
        if name == "mean":
            np.testing.assert_allclose(measured, value, rtol=0, atol=rtol * rms)
        else:
            np.testing.assert_allclose(measured, value, rtol=rtol, err_msg=name)


def normal(shape, std=1.0, mean=0.0, seed=0):
    return mean + std * np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("exponent", range(-33, 38, 5))
def test_the_quick_record_is_right_over_the_range_of_float32(mode, exponent):
    """Where the plain float32 std is zero below 1e-19 and infinite above 1e19."""
    x = normal((64, 33), 10.0**exponent).astype(np.float32)
    assert_right(look(x, mode)[0], x)


@pytest.mark.smoke
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("exponent", (-44, -41, -38, -30, 0, 30, 37))
def test_the_exact_record_is_right_down_to_the_subnormals(mode, exponent):
    """TensorFlow flushes numbers below 1.18e-38 to zero; they are measured all the same."""
    x = normal((64, 33), 10.0**exponent).astype(np.float32)
    assert_right(look(x, mode, exact=True)[0], x)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("dtype", "stds"),
    [
        ("float16", (1e-3, 1.0, 1e4)),
        ("bfloat16", (1e-30, 1.0, 1e37)),
        ("float64", (1e-100, 1.0, 1e100)),
    ],
)
def test_other_dtypes_are_right(mode, dtype, stds):
    """Half precision is widened without loss; float64 is measured as it is."""
    for std in stds:
        x = tf.cast(normal((32, 5, 7), std), dtype)
        assert_right(look(x, mode)[0], tf.cast(x, tf.float64).numpy())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("share", (1.0, 0.5, 0.2, 0.07, 0.06, 0.01, 1e-4))
@pytest.mark.parametrize("common", (False, True))
def test_a_variance_far_below_the_mean_square_is_right(mode, share, common):
    """Where squares about zero cancel, squares about the first row are taken. The variance
    within the units is `share` of the mean square; units have one mean, or each its own. A
    standard deviation is right to 1e-6."""
    rng = np.random.default_rng(int(1e4 * share))
    for shape in ((8, 16), (64, 50), (550, 29)):
        means = 1.0 if common else rng.standard_normal(shape[1])
        x = rng.standard_normal(shape) + means * np.sqrt(1.0 / share - 1.0)
        x = x.astype(np.float32)
        assert_right(look(x, mode)[0], x, rtol=2e-6)


CASES = {
    "a scalar": np.float32(3.5),
    "a vector": normal(1000).astype(np.float32),
    "one element": np.full((1, 1), -2.0, np.float32),
    "one row": normal((1, 500)).astype(np.float32),
    "one row of one value": np.full((1, 50), 0.1, np.float32),
    "a constant": np.full((64, 10), 1 / 3, np.float32),
    "zeros": np.zeros((8, 8), np.float32),
    "a constant per unit": np.tile(normal(40).astype(np.float32), (16, 1)),
    "relu": np.maximum(normal((32, 8, 8, 4)), 0).astype(np.float32),
    "a large mean": normal((64, 50), 1.0, 1e6).astype(np.float32),
    "a very large mean": normal((64, 50), 1e30, 1e36).astype(np.float32),
    "large means of either sign": (
        normal((64, 50)) + 1e6 * np.where(np.arange(50) % 2, 1, -1)
    ).astype(np.float32),
    "an outlier": np.where(
        np.arange(6400).reshape(64, 100) == 7, 1e6, normal((64, 100))
    ).astype(np.float32),
    "an outlier in the first row": np.where(
        np.arange(6400).reshape(64, 100) == 0, 1e9, normal((64, 100))
    ).astype(np.float32),
    "many rows": normal((100_003, 2), 1.0, 5.0).astype(np.float32),
    "many equal rows": np.full(100_003, 1 / 3, np.float32),
    "many units": normal((3, 100_003), 1.0, 1.0).astype(np.float32),
    "the largest numbers": np.array([[3.4e38, -3.4e38], [3.4e38, 3.4e38]], np.float32),
}


@pytest.mark.smoke
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_special_tensors_are_right(mode, case):
    """Already in the quick record. Zeros are counted in a sample of a large tensor."""
    stride = {100_003: 7, 200_006: 13, 300_009: 19}.get(CASES[case].size, 1)
    assert_right(look(CASES[case], mode)[0], CASES[case], stride=stride)
    assert_right(look(CASES[case], mode, exact=True)[0], CASES[case])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("exact", (False, True))
@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0), (0, 3, 0), (0, 4, 3), (2, 0, 3)])
def test_an_empty_tensor_gives_an_empty_record(mode, exact, shape):
    """Not NaN, and no bucket is counted."""
    record, counted = look(np.zeros(shape, np.float32), mode, exact)
    np.testing.assert_array_equal(record, records.empty())
    np.testing.assert_array_equal(counted, histogram.none())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3), (2, 3, 0)])
def test_an_empty_tensor_with_channels_first_gives_an_empty_record(mode, shape):
    """As in a step without samples, or with samples of no length."""
    record = record_of(np.zeros(shape, np.float32), mode, channel_axis=1)
    np.testing.assert_array_equal(record, records.empty())


NONFINITE = {
    "mixed": [[1.0, np.nan, 2.0], [np.inf, -np.inf, -3.0]],
    "one nan": [[np.nan, 1.0], [2.0, 3.0]],
    "one inf": [[0.0, np.inf], [2.0, 3.0]],
    "both infinities in a unit": [[np.inf, 1.0], [-np.inf, 3.0]],
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", NONFINITE)
def test_non_finite_elements_are_counted_at_once_the_rest_in_the_exact_record(mode, case):
    """The quick record says that there are some, and that it is not complete."""
    x = np.array(NONFINITE[case], np.float32)
    quick, counted = look(x, mode)
    expected = numpy_record(x)
    for name in ("count", "samples", "nonfinite"):
        assert records.field(quick, name) == expected[name]
    assert np.isnan(records.field(quick, "variance"))
    assert measure.needs_exact(quick[None]).tolist() == [True]
    assert counted[3:].sum() == expected["count"] - expected["nonfinite"]
    assert_right(look(x, mode, exact=True)[0], x)


def test_a_tensor_without_finite_elements_is_counted():
    """Its record has a count and nothing else."""
    x = np.full((4, 3), np.nan, np.float32)
    expected = records.empty()
    expected[:3] = 12, 4, 12
    records.field(expected, "dead_units")[...] = 0  # NaN is not zero
    records.field(expected, "counted")[...] = 12
    np.testing.assert_array_equal(look(x, exact=True)[0], expected)


# -- saturated elements, dead units

LAYOUTS = [
    ((12,), -1),
    ((6, 5), -1),
    ((6, 4, 5), -1),
    ((6, 4, 5), 1),
    ((6, 4, 2, 5), -1),
    ((6, 4, 2, 5), 1),
]


def half_dead(shape, channel_axis, dtype=np.float32):
    """Outputs of tanh: many are saturated, some are zero. The first and third channels are
    zero, of either sign; the second is zero but in one place. A vector is one channel of
    zeros."""
    x = np.tanh(normal(shape, 3.0)).astype(dtype)
    x[np.random.default_rng(1).random(shape) < 0.2] = 0.0
    if len(shape) == 1:
        return np.zeros_like(x)
    channels = np.moveaxis(x, channel_axis, 0)
    channels[0], channels[1], channels[2] = 0.0, 0.0, -0.0
    channels[1].flat[-1] = channels[1][(-1,) * (x.ndim - 1)] = 1e-3
    return x


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("exact", (False, True))
@pytest.mark.parametrize(("shape", "channel_axis"), LAYOUTS)
def test_saturated_elements_and_dead_units_are_counted(mode, exact, shape, channel_axis):
    """As in numpy, whatever the rank and wherever the channels are."""
    x = half_dead(shape, channel_axis)
    about = {"channel_axis": channel_axis, "activation": "tanh"}
    record = record_of(x, mode, exact, **about)
    assert_right(record, x, **about)
    assert records.field(record, "dead_units") == (2 if len(shape) > 1 else 1)
    assert 0 < records.field(record, "saturated") < x.size or len(shape) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "channel_axis"), LAYOUTS[1:])
def test_beside_nan_dead_units_are_counted_in_the_exact_record(mode, shape, channel_axis):
    """NaN is not zero: its channel is not dead. The quick record leaves it open."""
    x = half_dead(shape, channel_axis)
    np.moveaxis(x, channel_axis, 0)[(0,) * x.ndim] = np.nan
    about = {"channel_axis": channel_axis, "activation": "tanh"}
    quick = record_of(x, mode, **about)
    np.testing.assert_equal(float(records.field(quick, "dead_units")), np.nan)
    record = record_of(x, mode, exact=True, **about)
    assert_right(record, x, **about)
    assert records.field(record, "dead_units") == 1


@pytest.mark.parametrize("mode", MODES)
def test_infinity_is_neither_saturated_nor_dead(mode):
    """Only a finite element is within the margin of a limit; on the host as in the
    graph."""
    x = np.array([[0.0, np.inf, -1.0], [0.0, 0.0, 0.5]], np.float32)
    record = record_of(x, mode, exact=True, activation="tanh")
    assert_right(record, x, activation="tanh")
    assert records.field(record, "saturated") == records.field(record, "dead_units") == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_channel_of_subnormals_is_not_dead(mode):
    """The exact record counts it; it is required where all elements are so small."""
    x = half_dead((6, 4, 5), -1) * np.float32(1e-40)
    about = {"channel_axis": -1, "activation": "tanh"}
    assert measure.needs_exact(record_of(x, mode, **about)[None]).tolist() == [True]
    record = record_of(x, mode, exact=True, **about)
    assert_right(record, x, **about)
    assert records.field(record, "dead_units") == 2


EPSILON = {
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
    "float32": 2.0**-23,
    "float64": 2.0**-52,
}


@pytest.mark.parametrize("dtype", EPSILON)
@pytest.mark.parametrize("activation", records.SATURATED)
def test_an_element_at_the_limit_is_saturated_and_the_next_is_not(activation, dtype):
    """As numpy compares in float64, also where the dtype rounds the limits."""
    limits = np.array(records.SATURATED[activation])
    x = tf.cast(limits * (1 + EPSILON[dtype] * np.arange(-4, 5)[:, None]), dtype)
    as_float64 = tf.cast(x, "float64").numpy()
    expected = numpy_record(as_float64, activation=activation)["saturated"]
    assert 8 <= expected <= 10  # of 18, 9 at each limit
    for record in (
        record_of(x, exact=False, activation=activation),
        record_of(x, exact=True, activation=activation),
        records.measure(as_float64, activation),
    ):
        assert records.field(record, "saturated") == expected


@pytest.mark.parametrize("activation", records.SATURATED)
def test_the_limits_of_saturation_are_a_hundredth_of_the_range_from_its_ends(activation):
    """Those of the function of that name in Keras."""
    function = keras.activations.get(activation)
    assert function.__name__ == activation
    ends = np.asarray(function(tf.constant([-1e8, 1e8])))
    margin = 0.01 * (ends[1] - ends[0])
    np.testing.assert_allclose(
        records.SATURATED[activation], ends + [margin, -margin], rtol=1e-6
    )


@pytest.mark.parametrize("mode", MODES)
def test_saturated_elements_of_batches_add_up_and_the_fewest_dead_units_stay(mode):
    """In the graph, step by step."""
    batches = [half_dead((n, 5, 4), 1) for n in (5, 8, 3)]
    batches[1][:, 4] = 0.0  # a third one
    batches[2][:, 0] = 1.0  # one less
    about = {"channel_axis": 1, "unsaturated": records.SATURATED["tanh"]}
    dead = [records.field(r, "dead_units") for r in merged(batches, mode, **about)]
    np.testing.assert_array_equal(dead, [2, 2, 1])
    *_, record = merged(batches, mode, **about)
    saturated = sum(np.sum(np.abs(batch) >= 0.98) for batch in batches)
    assert records.field(record, "saturated") == saturated > 0


@pytest.mark.parametrize("merges", (False, True))
def test_a_store_is_told_where_the_channels_are_and_what_is_saturated(merges):
    """Both reach the measuring function."""
    x = half_dead((6, 5, 4), 1)
    store = backend.Store(histograms=False, merges=merges)
    store.put(
        tf.constant(x), exact=False, fused=False, channel_axis=1, unsaturated=(-0.5, 0.25)
    )
    record = store.read()
    assert records.field(record, "dead_units") == 2
    assert records.field(record, "saturated") == np.sum((x <= -0.5) | (x >= 0.25))


@pytest.mark.parametrize(
    ("std", "needed"), [(1.0, False), (1e-28, False), (1e-33, True), (1e-41, True)]
)
def test_an_exact_look_is_asked_for_where_subnormals_matter(std, needed):
    """And for no ordinary record."""
    record, _ = look(normal((64, 33), std).astype(np.float32))
    assert measure.needs_exact(record[None]).tolist() == [needed]


@pytest.mark.parametrize("mode", MODES)
def test_records_of_batches_merge_into_the_record_of_all(mode):
    """In the graph, step by step, in float64. Without merging the last one is kept."""
    sizes = enumerate((5, 8, 1))
    batches = [normal((n, 9), 3.0, i, seed=i).astype(np.float32) for i, n in sizes]
    *_, record = merged(batches, mode)
    *_, last = merged(batches, mode, merges=False)
    assert_right(last, batches[-1])
    together = np.concatenate(batches)
    expected = numpy_record(together)
    # By definition the variance within units is that of one batch, averaged.
    expected["within_variance"] = np.average(
        [b.astype(np.float64).var(axis=0).mean() for b in batches],
        weights=[len(b) for b in batches],
    )
    for name, value in expected.items():
        np.testing.assert_allclose(records.field(record, name), value, rtol=1e-6)


HISTOGRAMS = {
    "normal": normal((128, 128)).astype(np.float32),
    "relu": np.maximum(normal((64, 200)), 0).astype(np.float32),
    "float16": normal((64, 100)).astype(np.float16),
    "far from zero": normal((64, 100), 1.0, 1e4).astype(np.float32),
    "integers": np.random.default_rng(0).integers(0, 31, (50, 50)).astype(np.float32),
    "one value": np.full((10, 10), 0.7, np.float32),
    "one element": np.full((1, 1), -0.7, np.float32),
    "huge": normal((10, 10), 1e37).astype(np.float32),
}


def written_by_tensorflow(x):
    """The histogram that `tf.summary.histogram` makes of an array."""
    from tensorboard.plugins.histogram import summary_v2

    return summary_v2._buckets(tf.constant(x)).numpy()


def assert_is_histogram_of(rows, x):
    """The buckets are those of `tf.summary.histogram`, and as many elements are below each
    edge as numpy counts. Which bucket holds an element within 1e-6 of the range from an
    edge is a matter of rounding."""
    expected = written_by_tensorflow(x)
    x = np.asarray(x, np.float64).ravel()
    near = 1e-6 * (x.max() - x.min())
    np.testing.assert_allclose(rows[:, :2], expected[:, :2], rtol=1e-6, atol=near)
    np.testing.assert_array_equal(rows[[0, -1], [0, 1]], [x.min(), x.max()])
    assert rows[:, 2].sum() == x.size
    for below, edge in zip(np.cumsum(rows[:-1, 2]), expected[1:, 0], strict=True):
        assert np.sum(x < edge - near) <= below <= np.sum(x < edge + near), edge


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", HISTOGRAMS)
def test_the_histogram_is_that_of_tf_summary(mode, case):
    """Bucket by bucket, of up to 2^14 elements."""
    x = HISTOGRAMS[case]
    stride, rows = histogram.unpack(look(x, mode)[1])
    assert stride == 1
    if case in ("one value", "one element", "relu", "normal", "integers"):
        np.testing.assert_array_equal(rows[:, 2], written_by_tensorflow(x)[:, 2])
    assert_is_histogram_of(rows, x) if x.max() > x.min() else None


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "shape", [(8, 8, 8, 64), (32, 768), (7, 9973), (1, 40_000), (65_537,)]
)
def test_the_histogram_of_a_larger_tensor_counts_an_evenly_strided_sample(mode, shape):
    """The sample that numpy takes at the stored stride; nearly every unit is in it."""
    x = normal(shape).astype(np.float32)
    stride, rows = histogram.unpack(look(x, mode)[1])
    assert stride > 1
    sample = x.reshape(-1)[::stride]
    assert sample.size <= histogram.EXACT_UP_TO
    # Not thinner than needed: 2 and 3 may divide the number of units, 5 is the next.
    assert sample.size > histogram.EXACT_UP_TO / 4
    assert_is_histogram_of(rows, sample)
    units = x[0].size if x.ndim > 1 else 1
    visited = np.unique(np.arange(0, x.size, stride) % units)
    assert visited.size >= min(units, sample.size) * 0.99


def test_no_gradient_is_taken_of_a_measurement():
    """The tape does not record it."""
    store = backend.Store(histograms=True)
    x = tf.Variable(normal((4, 3)))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            y = x * 2.0
            store.put(y, exact=False, fused=False)
            loss = tf.reduce_sum(y)
        return tape.gradient(loss, x)

    np.testing.assert_array_equal(step(), np.full((4, 3), 2.0))
    assert_right(store.read(), 2.0 * x.numpy())

"""The matmul-chain study and the calibration, against exact laws; numpy only.

Golden numbers are from facts/theory.md section 1, "Numbers to assert".
"""

import functools
import math

import numpy as np
import pytest
from scipy import special, stats

from activation_monitor.analysis import chain, records

SEEDS = range(4)


@functools.cache
def study_of(direction, seed):
    """512 x 512 matrices of std 1; or of std 0.01 and a vector of std 0.01."""
    stds = {"growing": (1.0, 1.0), "shrinking": (0.01, 0.01)}[direction]
    return chain.chain_study(*stds, seed=seed)


@pytest.fixture(params=SEEDS)
def growing(request):
    return study_of("growing", request.param)


@pytest.fixture(params=SEEDS)
def shrinking(request):
    return study_of("shrinking", request.param)


@pytest.fixture(params=[(d, seed) for d in ("growing", "shrinking") for seed in SEEDS])
def study(request):
    return study_of(*request.param)


# -- the study


def test_the_naive_std_of_a_growing_chain_is_infinite_after_14_products(growing):
    """Exactly 14: that it comes earlier has probability 8e-10."""
    assert growing.naive_ends == 14
    naive = np.array([row.naive_std for row in growing.rows])
    assert np.isfinite(naive[:13]).all() and not np.isfinite(naive[13:]).any()


def test_the_values_of_a_growing_chain_outlive_the_naive_std_by_half_the_way(growing):
    """They end with product 28 or 29, the last row."""
    assert growing.values_end in (28, 29)
    assert len(growing.rows) == growing.values_end


def test_the_naive_std_of_a_shrinking_chain_is_zero_after_32_products(shrinking):
    """With numpy's gradual underflow, in 32 products; by chance (1 in 10) in 33."""
    assert shrinking.naive_ends in (32, 33)
    naive = np.array([row.naive_std for row in shrinking.rows])
    assert (naive[:31] > 0).all() and (naive[33:] == 0).all()


def test_the_values_of_a_shrinking_chain_are_zero_after_66_or_67_products(shrinking):
    """They fall below the smallest subnormal, 1.4e-45; that row is the last."""
    assert shrinking.values_end in (66, 67)
    assert len(shrinking.rows) == shrinking.values_end


def test_the_measured_std_stays_in_its_interval_where_the_naive_one_fails(study):
    """From the failure on, as long as float32 keeps the values whole."""
    # The last product loses elements; below 1e-38 float32 has ever fewer digits.
    rows = [row for row in study.rows[study.naive_ends - 1 : -1] if row.std > 1e-38]
    assert len(rows) > 10
    for row in rows:  # 1 in 1000 is outside by chance, with its neighbours
        assert row.low <= row.std <= row.high, row


def test_where_float32_suffices_both_ways_to_the_std_agree(study):
    """Measured and naive std of the same values differ by float32's rounding only."""
    measured, naive = np.array([(r.std, r.naive_std) for r in study.rows[:10]]).T
    np.testing.assert_allclose(measured, naive, rtol=2e-6)  # 512 roundings of 6e-8


def test_the_law_of_the_study_grows_as_the_golden_one(growing):
    """Its median grows by 22.6053 a product, its interval as the root of their number."""
    expected = np.array([row.expected for row in growing.rows])
    np.testing.assert_allclose(expected[1:] / expected[:-1], 22.6053, rtol=3e-6)
    z = stats.norm.ppf(0.9995)
    for row in growing.rows:
        reach = z * 0.0312805 * math.sqrt(row.product)
        # The sd of a std is that of an rms with one unit less: 1 in 1000 of it.
        np.testing.assert_allclose(math.log(row.high / row.expected), reach, rtol=2e-3)
        np.testing.assert_allclose(math.log(row.expected / row.low), reach, rtol=2e-3)


def test_over_many_chains_the_log_of_the_std_has_the_mean_and_sd_of_the_law():
    """1 500 chains 4 wide, where chance is large: the logs within 4 sd of both."""
    z = stats.norm.ppf(0.5 + chain.CONFIDENCE / 2)
    studies = [chain.chain_study(1e10, width=4, seed=seed) for seed in range(1500)]
    for product in (1, 3):
        rows = [study.rows[product - 1] for study in studies]
        sd = math.log(rows[0].high / rows[0].expected) / z
        logs = np.array([math.log(row.std / row.expected) for row in rows])
        # So it is for independent steps of chi-square laws, 4 degrees and then 3.
        exact = special.polygamma(1, [1.5, *[2.0] * (product - 1)]).sum() / 4
        np.testing.assert_allclose(sd**2, exact, rtol=1e-9)
        squares = logs**2
        assert abs(logs.mean()) <= 4 * sd / math.sqrt(1500)
        assert abs(squares.mean() - sd**2) <= 4 * squares.std() / math.sqrt(1500)


def test_the_interval_holds_as_many_chains_as_it_says():
    """Of 400 chains 64 wide 99.9 % are inside, up to a binomial chance of 1e-4."""
    studies = [chain.chain_study(1e10, width=64, seed=seed) for seed in range(400)]
    assert {study.values_end for study in studies} == {4}  # 8e10 to the fourth
    for product in (1, 3):
        rows = [study.rows[product - 1] for study in studies]
        inside = sum(row.low <= row.std <= row.high for row in rows)
        assert inside >= stats.binom.ppf(1e-4, 400, 0.999)


def test_the_study_says_in_words_what_came_to_an_end():
    """Title and notes of a growing and of a shrinking chain, literally."""
    study = chain.chain_study(1e10, width=8, seed=0)
    assert study.title == "A vector of std 1 times 8 x 8 matrices of std 1e+10"
    assert study.notes == (
        "The naive float32 std is inf after product 2.",
        "The values themselves are no longer finite after product 4.",
    )
    study = chain.chain_study(1e-10, 0.5, width=8, seed=0)
    assert study.title == "A vector of std 0.5 times 8 x 8 matrices of std 1e-10"
    assert study.notes == (
        "The naive float32 std is 0 after product 3.",
        "The values themselves are all zero after product 5.",
    )


def test_a_chain_that_does_not_end_has_a_hundred_rows_and_no_notes():
    """At the critical scale nothing over- or underflows in 100 products."""
    study = chain.chain_study(1 / 8, width=64, seed=0)
    assert [row.product for row in study.rows] == [*range(1, 101)]
    assert (study.naive_ends, study.values_end, study.notes) == (None, None, ())


@pytest.mark.parametrize(("factor", "inside"), [(1.0, 28), (4.0, 0), (0.25, 0)])
def test_a_monitor_that_is_off_by_four_is_outside_of_every_interval(factor, inside):
    """What `measure` returns is what is held against the law."""

    def measure(x):
        return records.measure(factor * x.astype(np.float64))

    rows = chain.chain_study(1.0, seed=0, measure=measure).rows[:28]
    assert sum(row.low <= row.std <= row.high for row in rows) == inside


# -- the single product


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("weight_std", "low", "high", "digits"),
    [(1.0, 22.69, 27.49, 0.006), (1 / 25, 0.908, 1.100, 0.0006)],
)
def test_625_to_10000_weights_give_the_golden_interval(weight_std, low, high, digits, seed):
    """99.9 % over the draw of weights and vector; the measured std lies within."""
    study = chain.single_product_study(weight_std, seed=seed)
    (row,) = study.rows
    np.testing.assert_allclose([row.low, row.high], [low, high], rtol=0, atol=digits)
    # Bias of log rms and log std: -1/(2 * 625) and -1/10000, to first order.
    median = 25 * weight_std * math.exp(-1 / 1250 - 1 / 10_000)
    np.testing.assert_allclose(row.expected, median, rtol=1e-5)
    assert row.low <= row.std <= row.high
    np.testing.assert_allclose(row.std, row.naive_std, rtol=1e-5)  # float32
    assert abs(row.mean) < 5 * row.std / math.sqrt(10_000)


def test_the_single_product_ends_nowhere():
    """Its study has one row, a title and no notes."""
    study = chain.single_product_study(0.5, fan_in=4, fan_out=9)
    assert study.title == "4 -> 9 weights of std 0.5"
    assert (study.notes, study.naive_ends, study.values_end) == ((), None, None)
    assert [row.product for row in study.rows] == [1]


# -- the calibration


def sizes(width, layers, weight_std, seed=0, chains=None):
    """The rms along chains of linear layers, drawn from their exact law.

    Shape `(layers + 1,)`, or `(chains, layers + 1)`. The squared gains are
    `weight_std^2` times chi-square.
    """
    rng = np.random.default_rng(seed)
    shape = (layers,) if chains is None else (chains, layers)
    gains = weight_std * np.sqrt(rng.chisquare(width, shape))
    start = np.ones((*shape[:-1], 1))
    return np.concatenate([start, np.cumprod(gains, axis=-1)], axis=-1)


def calibrate(rms, weight_std=1.0, width=512, reference=None):
    """`chain.calibrate` with names made up."""
    names = tuple(f"product_{i + 1}" for i in range(len(rms) - 1))
    reference = rms if reference is None else reference
    return chain.calibrate("chain", names, rms, reference, weight_std, width)


@pytest.mark.parametrize("weight_std", [1.0, 0.01, 1 / math.sqrt(512)])
@pytest.mark.parametrize("layers", [1, 20, 100])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_right_monitor_passes(weight_std, layers, seed):
    """Sizes that obey the law pass, whether they grow, shrink or stay."""
    calibration = calibrate(sizes(512, layers, weight_std, seed), weight_std)
    assert calibration.passed
    assert all(row.passed for row in calibration.rows)


def test_a_chain_too_narrow_for_the_stated_rate_is_refused():
    """With 2 units 7 of 1000 right chains would fail."""
    with pytest.raises(ValueError, match="at least 64, below which .* Received: width=63"):
        calibrate(sizes(63, 3, 0.1, 0), 0.1, 63)


@pytest.mark.parametrize(("width", "layers"), [(512, 20), (64, 50), (64, 20)])
def test_a_right_monitor_fails_as_rarely_as_is_stated(width, layers):
    """Of 300 000 right chains 1 in 1000 fail, half by a gain, half by the growth.

    All of them within 4 sd of a binomial.
    """
    chains = 300_000
    rms = sizes(width, layers, 0.1, seed=width, chains=chains)
    limits = calibrate(rms[0], 0.1, width)
    row, law = limits.rows[0], limits.law
    gains = rms[:, 1:] / rms[:, :-1]
    growth = (rms[:, -1] / rms[:, 0]) ** (1 / layers)
    by_gain = ((gains < row.low) | (gains > row.high)).any(axis=1)
    by_growth = (growth < law.low) | (growth > law.high)
    for failed, share in ((by_gain, 5e-4), (by_growth, 5e-4), (by_gain | by_growth, 1e-3)):
        low, high = stats.binom.ppf(stats.norm.cdf([-4, 4]), chains, share)
        assert low <= np.count_nonzero(failed) <= high
    # What is counted here is what `calibrate` says, of failures and of successes.
    failed = by_gain | by_growth
    some = [*np.flatnonzero(failed)[:40], *np.flatnonzero(~failed)[:40]]
    assert [calibrate(rms[i], 0.1, width).passed for i in some] == [*~failed[some]]


def naive(rms):
    """The rms as plain float32 makes it: squares that over- or underflow."""
    with np.errstate(over="ignore", under="ignore"):
        return np.sqrt(np.square(rms.astype(np.float32))).astype(np.float64)


def drifting(percent):
    """An error that grows with every layer."""
    return lambda rms: rms * (1 + percent / 100) ** np.arange(len(rms))


def test_a_monitor_that_doubles_everything_fails():
    """Its gains obey the law; its sizes are not those of the weights."""
    rms = sizes(512, 20, 0.1, 0)
    assert calibrate(rms, 0.1).passed
    assert not calibrate(2.0 * rms, 0.1, reference=rms).passed


def off(index, factor):
    """A single layer that is wrong."""
    return lambda rms: np.concatenate([rms[:index], [rms[index] * factor], rms[index:][1:]])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("wrong", "weight_std", "layers"),
    [
        # Over 20 layers chance moves the growth by 0.7 %, over 100 layers by 0.3 %.
        (drifting(5), 1.0, 20),
        (drifting(-5), 0.01, 20),
        (drifting(2), 1.0, 100),
        (drifting(-2), 0.01, 100),
        # A single gain is moved by 3.1 %.
        (off(10, 1.3), 1.0, 20),
        (off(20, 1.3), 1.0, 20),
        (off(0, 0.7), 0.01, 20),
        (off(10, math.nan), 1.0, 20),
        (off(20, math.inf), 1.0, 20),
        (off(20, 0.0), 0.01, 20),
        (naive, 1.0, 20),
        (naive, 0.01, 40),
        (lambda rms: np.zeros_like(rms), 1.0, 20),
        (lambda rms: np.ones_like(rms), 1.0, 20),
    ],
)
def test_a_wrong_monitor_fails(wrong, weight_std, layers, seed):
    """Drift, one wrong layer, and sizes that overflowed or were flushed all fail."""
    rms = sizes(512, layers, weight_std, seed)
    calibration = calibrate(wrong(rms), weight_std, reference=rms)
    assert not calibration.passed
    assert calibration.verdict.startswith("FAIL: ")


def test_a_calibration_with_the_weights_of_another_std_fails():
    """The law is that of the weights that were stated."""
    rms = sizes(512, 20, 1.0)
    assert calibrate(rms, 1.0).passed
    assert not calibrate(rms, 1.1).passed


def test_the_rows_of_a_calibration_are_plain_ratios():
    """Gain, growth and error by hand; the median by Wilson and Hilferty."""
    rms = np.array([2.0, 3.0, 2.5, 2.5])
    reference = np.array([2.0, 3.0, 2.0, 2.5000025])
    calibration = calibrate(rms, 1 / math.sqrt(512), reference=reference)
    assert [row.name for row in calibration.rows] == ["product_1", "product_2", "product_3"]
    np.testing.assert_array_equal([row.rms for row in calibration.rows], rms[1:])
    gains = [row.gain for row in calibration.rows]
    np.testing.assert_allclose(gains, [1.5, 2.5 / 3, 1.0], rtol=1e-15)
    errors = [row.error for row in calibration.rows]
    np.testing.assert_allclose(errors, [0.0, 0.25, 1e-6], rtol=2e-6)
    np.testing.assert_allclose(calibration.growth, 1.25 ** (1 / 3), rtol=1e-14)
    median = (1 - 2 / (9 * 512)) ** 1.5
    np.testing.assert_allclose([r.expected for r in calibration.rows], median, rtol=1e-5)
    assert [row.passed for row in calibration.rows] == [False, False, True]


def test_the_verdict_gives_the_figures():
    """PASS and FAIL, growth and its interval, layers inside, largest error: literally."""
    # 99.95 % of the growth: z = 3.4808 times 0.0312805 / sqrt(2) about 22.6053.
    low, high = (22.6053 * math.exp(d * 3.4808 * 0.0312805 / 2**0.5) for d in (-1, 1))
    assert (f"{low:.5g}", f"{high:.5g}") == ("20.93", "24.414")
    rms = np.array([1.0, 23.0, 23.0 * 22.0])
    assert calibrate(rms, reference=rms * [1, 1.01, 1]).verdict == (
        "PASS: growth 22.494 per layer, expected 20.93 to 24.414; 2 of 2 layers correct; "
        "largest difference from float64 9.9e-03."
    )
    assert calibrate(rms * [1, 2, 1], reference=rms).verdict == (
        "FAIL: growth 22.494 per layer, expected 20.93 to 24.414; 0 of 2 layers correct; "
        "largest difference from float64 1.0e+00."
    )


def test_the_verdict_does_not_hide_an_error_that_is_nan():
    """A layer whose rms is NaN has no error of 0 in the verdict."""
    rms = np.array([1.0, 22.0, math.nan, 22.0**3])
    verdict = calibrate(rms, reference=22.0 ** np.arange(4)).verdict
    assert verdict.endswith("largest difference from float64 nan.")


def test_a_calibration_needs_a_name_for_every_layer():
    """Names that do not match the sizes are an error."""
    with pytest.raises(ValueError, match="shorter"):
        chain.calibrate("chain", ("a", "b"), np.ones(2), np.ones(2), 1.0, 64)

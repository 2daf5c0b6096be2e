"""Moving statistics that stay away from those of the batches, and what is said of them."""

import numpy as np
import pytest

from activation_monitor.analysis import moving
from activation_monitor.analysis.diagnosis import diagnose
from activation_monitor.analysis.snapshot import Snapshot
from networks import network, norm, tap

EPSILON = 1e-3


def updated(statistics, batches, momentum):
    """Moving mean and variance after these batches `(samples, channels)`, as in Keras."""
    kept = np.array(statistics, np.float64)
    for batch in batches:
        now = np.array([batch.mean(axis=0), batch.var(axis=0)])
        kept = momentum * kept + (1 - momentum) * now
    return kept


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99, 0.999])
def test_the_deviation_is_that_of_the_output_in_evaluation(momentum):
    """Against the output of both in float64: mean and std of each channel."""
    rng = np.random.default_rng(0)
    batch = 3 * rng.standard_normal((64, 5)) * np.arange(1, 6) + np.arange(5)
    before = np.array([rng.standard_normal(5), rng.uniform(0.1, 9, 5)])
    after = updated(before, [batch], momentum)
    found = moving.deviation(7, before, after, momentum, 1, EPSILON)
    evaluated = (batch - before[0]) / np.sqrt(before[1] + EPSILON)
    trained = (batch - batch.mean(axis=0)) / np.sqrt(batch.var(axis=0) + EPSILON)
    np.testing.assert_allclose(found.shift, evaluated.mean(axis=0), rtol=1e-5)
    # `epsilon` counts in both, so the ratio differs by 1e-3 / variance.
    ratio = np.log10(evaluated.std(axis=0) / trained.std(axis=0))
    np.testing.assert_allclose(found.scale, ratio, atol=1e-4)
    assert found.step == 7 and np.isnan(found.misfit)


def test_several_updates_give_a_weighted_mean_of_their_batches():
    """For equal batches it is that batch, whatever their number."""
    rng = np.random.default_rng(1)
    batch, before = 5 + rng.standard_normal((32, 4)), np.array([np.zeros(4), np.ones(4)])
    one = moving.deviation(0, before, updated(before, [batch], 0.9), 0.9, 1, EPSILON)
    ten = moving.deviation(0, before, updated(before, [batch] * 10, 0.9), 0.9, 10, EPSILON)
    np.testing.assert_allclose(ten.shift, one.shift, rtol=1e-5)
    np.testing.assert_allclose(ten.scale, one.scale, rtol=1e-5)
    np.testing.assert_allclose(one.shift, batch.mean(axis=0) / np.sqrt(1.001), rtol=1e-5)


@pytest.mark.parametrize("factor", [0.1, 1.0, 30.0])
def test_fixed_statistics_promise_the_size_of_the_output(factor):
    """Inputs that are `factor` times as large as the statistics say."""
    rng = np.random.default_rng(2)
    fixed = np.array([rng.standard_normal(6), rng.uniform(1, 4, 6)])
    gamma, beta = rng.uniform(0.5, 2, 6), 0.01 * rng.standard_normal(6)
    x = fixed[0] + factor * np.sqrt(fixed[1]) * rng.standard_normal((20_000, 6))
    out = gamma * (x - fixed[0]) / np.sqrt(fixed[1] + EPSILON) + beta
    rms = np.sqrt(np.mean(out**2))
    found = moving.of_fixed(3, fixed, gamma, beta, EPSILON, rms)
    np.testing.assert_allclose(found.misfit, np.log10(factor), atol=0.02)
    assert found.shift.size == 0


def test_nothing_is_known_of_an_output_of_zeros():
    """For example of a `gamma` of zeros at the end of a residual branch."""
    zeros = np.zeros(3)
    for args in ((zeros, zeros, EPSILON, 0.0), (zeros + 1, zeros, EPSILON, np.nan)):
        found = moving.of_fixed(0, np.ones((2, 3)), *args)
        assert np.isnan(found.misfit)


def deviating(step, *shift):
    return moving.Deviation(step, np.array(shift), np.array(shift) / 10, np.nan)


def test_what_counts_is_common_to_all_steps_of_the_window():
    """The smallest, per channel; zero where the sign changes. One odd batch is nothing."""
    window = [deviating(0, 3.0, -4.0, 1.0), deviating(100, 2.0, -5.0, -1.0)]
    last = deviating(200, 9.0, -2.0, 8.0)
    row = moving.row(0.99, window, last)
    np.testing.assert_allclose(row, [0.99, 2, 2.0, 0.0, np.nan])
    np.testing.assert_allclose(moving.row(0.99, window[:1], last)[2:4], [2.0, 0.1])
    odd = [deviating(step, *[0.01] * 3) for step in (0, 100, 200)]
    row = moving.row(0.99, odd, deviating(300, *[50.0] * 3))
    np.testing.assert_allclose(row[2:4], [0.01, 0.001])


def test_the_steps_of_a_window_are_far_enough_apart():
    """100 steps for the default momentum, 10 for 0.9; three of them."""

    def kept(momentum, steps):
        window = ()
        for step in steps:
            window = moving.window_after(window, deviating(step, 1.0), momentum)
        return [one.step for one in window]

    assert kept(0.99, range(401)) == [200, 300, 400]
    assert kept(0.9, range(46)) == [20, 30, 40]
    assert kept(0.9999, range(250)) == [0, 100, 200]
    assert kept(0.99, [0, 1, 2, 5, 10, 20, 50, 100, 200]) == [0, 100, 200]
    assert kept(0.99, [500, 600, 0, 50]) == [0]  # counted from 0 again
    fixed = moving.of_fixed(150, np.ones((2, 1)), np.ones(1), np.zeros(1), 1e-3, 2.0)
    assert moving.window_after([deviating(100, 1.0)], fixed, 0.99) == (fixed,)


# -- the rule


def normalized(
    shift=0.0,
    scale=0.0,
    misfit=np.nan,
    step=600,
    momentum=0.99,
    steps=3,
    samples=32,
    rms=1.0,
):
    """A network with two batch normalizations, of which the second is as described."""
    taps = [
        tap("d1"),
        norm("n1", samples=32),
        tap("d2"),
        norm("n2", rms=rms, samples=samples),
        tap("head"),
    ]
    made = network(*taps, step=step)
    found = np.full((5, len(moving.FIELDS)), np.nan)
    found[1] = [0.99, 3, 0.1, 0.02, np.nan]
    found[3] = [momentum, steps, shift, scale, misfit]
    return Snapshot(made.step, made.layers, made.quantities, moving=found)


AWAY = {
    "the mean": (normalized(shift=1.01), "off by 1 standard deviations"),
    "the std, larger": (normalized(scale=0.31), "2 times the std"),
    "the std, smaller": (normalized(scale=-0.7), "0.2 times the std"),
    "a momentum of 0.9999": (
        normalized(shift=5.0, momentum=0.9999, step=5000),
        "momentum=0.9999 the moving statistics follow in about 1e+04 steps",
    ),
    "a momentum of 0.9, early": (
        normalized(shift=5.0, momentum=0.9, step=50),
        "shuffle=True",
    ),
}


@pytest.mark.parametrize("name", AWAY)
def test_statistics_that_stay_away_are_found(name):
    """With the numbers, and a momentum that follows faster."""
    snapshot, words = AWAY[name]
    (finding,) = diagnose([snapshot]).findings
    assert (finding.code, finding.layers) == ("moving-statistics", ("n2",))
    assert words in str(finding)
    assert finding.fix.cause == "normalization"
    assert [change.code for change in finding.fix.changes][0] == "momentum=0.9"
    np.testing.assert_allclose(
        finding.evidence["scale"], 10 ** snapshot.of_moving("scale")[3]
    )


def test_fixed_statistics_of_other_data_are_found():
    """At the third sampled step; what to change is not the momentum."""
    (finding,) = diagnose([normalized(np.nan, np.nan, 0.6, rms=4.0)]).findings
    assert (finding.code, finding.layers) == ("moving-statistics", ("n2",))
    assert "rms of the output of n2 is 4, 4 times what it is" in finding.message
    assert [change.code for change in finding.fix.changes] == ["trainable=True"]


HEALTHY = {
    "settled": normalized(),
    "the noise of batches of 32": normalized(shift=0.2, scale=0.06),
    "a little below": normalized(shift=0.99, scale=0.299),
    "at the beginning": normalized(shift=9.0, scale=2.0, step=499),
    "at the beginning, with a large momentum": normalized(
        shift=9.0, momentum=0.999, step=4999
    ),
    "a window that is not full": normalized(shift=9.0, steps=2),
    "batches of seven": normalized(shift=9.0, samples=7),
    "fixed statistics of similar data": normalized(np.nan, np.nan, -0.49),
    "fixed statistics, two steps": normalized(np.nan, np.nan, 2.0, steps=2),
    "unknown": normalized(np.nan, np.nan, np.nan, steps=0),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_statistics_that_may_settle_are_healthy(name):
    """Moving statistics are always far at the beginning."""
    assert diagnose([HEALTHY[name]]).findings == ()

"""Units that were never active over a window of sampled steps, and what is said of them."""

import math

import numpy as np
import pytest

from activation_monitor.analysis import activity
from activation_monitor.analysis.diagnosis import diagnose
from activation_monitor.analysis.health import Health, judge
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit
from networks import network, tap

STEPS, SAMPLES = int(limit("dead-steps")), int(limit("dead-window"))


def counted(batches):
    """The rows after each of these batches `(samples, units)`, as a monitor counts them."""
    known, rows = None, []
    for batch in batches:
        active = (batch != 0).any(axis=0).astype(np.float32)
        known = activity.after(known, active, len(batch))
        rows.append(activity.row(known))
    return np.array(rows)


def by_definition(batches):
    """The same, from all that was seen: the shortest window at the end that is full."""
    rows = []
    for last in range(1, len(batches) + 1):
        window = batches[:last]
        for first in range(last - STEPS, -1, -1):
            if sum(map(len, batches[first:last])) >= SAMPLES:
                window = batches[first:last]
                break
        together = np.concatenate(window)
        inactive = np.sum(~(together != 0).any(axis=0))
        rows.append((inactive, len(window), len(together)))
    return np.array(rows, np.float64)


@pytest.mark.parametrize("rows", [1, 16, 32, 60, 500])
def test_the_units_of_a_window_are_those_without_any_activity_in_it(rows):
    """For batches of all sizes, against a count over all samples of the window."""
    rng = np.random.default_rng(rows)
    sizes = rng.integers(1, 2 * rows, 30)
    chance = rng.uniform(0, 4 / rows, 40) * (rng.random(40) < 0.8)
    batches = [rng.random((size, 40)) < chance for size in sizes]
    found = counted(batches)
    np.testing.assert_array_equal(found, by_definition(batches))
    assert len({*found[:, 0]}) > 1  # it changes, so the test can fail


def test_sparse_units_are_inactive_as_often_as_chance_has_it():
    """Active for 2 % of the samples, a unit is inactive for 32 of them with probability
    0.98^32 = 0.52 and for 128 with 0.98^128 = 0.08; of a window of 1,600 none is."""
    rng = np.random.default_rng(0)
    units = 20_000
    for size, steps in ((32, 4), (64, 3), (600, 3)):
        found = counted([rng.random((size, units)) < 0.02 for _ in range(steps)])
        for seen, row in enumerate(found, 1):
            share = 0.98 ** (size * seen)
            chance = 4 * math.sqrt(share / units) + 1e-9
            np.testing.assert_allclose(row[0] / units, share, atol=chance)
        assert found[-1, 1] == steps
    np.testing.assert_allclose(0.98**32, 0.52, atol=5e-3)


def test_a_unit_that_comes_back_counts_no_more():
    """Not for a whole window after it was active once."""
    on, off = np.ones((SAMPLES, 1)), np.zeros((SAMPLES, 1))
    found = counted([on, *[off] * STEPS, on, *[off] * STEPS])
    np.testing.assert_array_equal(found[:, 0], [0, *[0] * (STEPS - 1), 1] * 2)


def test_a_batch_without_samples_changes_nothing_and_an_unknown_one_starts_again():
    """A replica without a share; a trace with another number of channels."""
    off = np.zeros(3, np.float32)
    assert np.isnan(activity.row(activity.after(None, off, 0))).all()
    known = activity.after(activity.after(None, off, 8), off, 0)
    np.testing.assert_array_equal(activity.row(known), [3, 1, 8])
    unknown = activity.after(known, off + np.nan, 8)
    assert np.isnan(activity.row(unknown)).all()
    np.testing.assert_array_equal(activity.row(activity.after(unknown, off, 5)), [3, 1, 5])
    np.testing.assert_array_equal(
        activity.row(activity.after(known, np.zeros(4), 5)), [4, 1, 5]
    )


# -- the rule


def layer(inactive, dead=100, steps=STEPS, samples=SAMPLES, step=500, **options):
    """A ReLU layer of 100 units between others, with so many inactive ones in a window, and
    in the batch of the step."""
    one = tap(
        "d2",
        *(0.0,) if dead == 100 else (),
        activation="relu",
        width=100,
        samples=32,
        dead=dead,
        inactive=(inactive, steps, samples),
        **options,
    )
    return network(tap("d1"), one, tap("head"), step=step)


def test_units_that_were_inactive_over_a_window_are_found():
    """With the window in the words and the evidence."""
    (finding,) = diagnose([layer(95, dead=96)]).findings
    assert (finding.code, finding.layers) == ("dead-units", ("d2",))
    assert (
        "95 of 100 units of d2 are zero for all 128 samples of the last 3 sampled steps"
        in (finding.message)
    )
    expected = {"dead_fraction": 0.95, "samples": 128, "sampled_steps": 3}
    for name, value in expected.items():
        np.testing.assert_allclose(finding.evidence[name], value)
    assert not finding.initial


def test_all_units_of_a_layer_are_critical():
    """The layer passes nothing on."""
    (finding,) = diagnose([layer(100)]).findings
    assert finding.severity == "critical"


def test_at_initialization_one_batch_is_enough():
    """What is dead when it is drawn needs no patience; the step says so."""
    (finding,) = diagnose([layer(95, dead=95, steps=1, samples=32, step=0)]).findings
    assert finding.initial and "for all 32 samples." in finding.message


HEALTHY = {
    "sparse units: half of them are zero in the batch, few in the window": layer(8, 52),
    "sparser still: nearly all are zero in the batch": layer(60, 95),
    "one odd batch: a whole layer is zero": layer(0),
    "a window of too few steps": layer(100, steps=2, samples=512),
    "a window of too few samples": layer(100, steps=9, samples=127),
    "nine of ten": layer(90),
    "at initialization, a layer that one batch showed to be alive": layer(
        40, dead=95, steps=2, samples=64, step=1
    ),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_units_that_may_be_active_yet_are_not_found(name):
    """Each would be found if the batch alone counted, or the window were full."""
    assert diagnose([HEALTHY[name]]).findings == ()


def test_without_a_count_over_steps_the_batch_counts():
    """As in a log of an earlier version."""
    known = layer(0)
    old = Snapshot(known.step, known.layers, known.quantities)
    assert [finding.code for finding in diagnose([old]).findings] == ["dead-units"]
    assert np.isnan(old.of_units("inactive_units")).all()


def test_a_run_that_is_resumed_waits_until_its_window_is_full():
    """Its first batches show no unit; the finding comes with the third sampled step."""
    told = []
    health = Health()
    for seen in range(1, 5):
        health, news = judge(
            health, layer(100, steps=seen, samples=64 * seen, step=1000 + 100 * seen)
        )
        told.append([finding.code for finding in news])
    assert told == [[], [], ["dead-units"], []]


def test_an_array_of_another_shape_is_refused():
    """And a name that does not exist."""
    known = layer(0)
    with pytest.raises(
        ValueError, match="shape \\(3, 3\\) for `activity`. Received: \\(2,"
    ):
        Snapshot(0, known.layers, known.quantities, activity=np.zeros((2, 3)))
    with pytest.raises(KeyError, match="no field named 'inactive'"):
        known.of_units("inactive")

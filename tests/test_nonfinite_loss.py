"""The rule on a loss that is NaN or infinite, and what it says of the snapshots before."""

import dataclasses
import math

import numpy as np
import pytest

from activation_monitor.analysis import records
from activation_monitor.analysis.diagnosis import diagnose
from activation_monitor.analysis.thresholds import limit
from networks import network, tap, weights

CODE = "nonfinite-loss"
NAN, INF = math.nan, math.inf


def healthy(step, loss=2.0, gradient=0.1):
    """A chain of three layers in which everything is finite."""
    return network(
        tap("x", kind="input"),
        tap("d1", gradient=gradient, **weights(1.0)),
        tap("d2", gradient=gradient, **weights(1.0)),
        tap("head", gradient=gradient, **weights(1.0)),
        step=step,
        loss=loss,
    )


def weights_only(step, loss, *broken):
    """What a step that was not measured has left: kernels, some of which are NaN."""
    snapshot = healthy(step, loss)
    kernels = snapshot.records(records.WEIGHT).copy()
    for name in broken:
        records.field(kernels, "nonfinite")[snapshot.names.index(name)] = 3
    quantities = {records.OUTPUT: records.empty(4), records.WEIGHT: kernels}
    return dataclasses.replace(snapshot, quantities=quantities)


def with_nan(snapshot, of, *names):
    """A snapshot in which a quantity of some layers has a NaN."""
    array = snapshot.records(of).copy()
    for name in names:
        records.field(array, "nonfinite")[snapshot.names.index(name)] = 1
    return dataclasses.replace(snapshot, quantities={**snapshot.quantities, of: array})


BEFORE = (healthy(0), healthy(50, 1.9), healthy(100, 1.5))
RISEN = (healthy(0), healthy(50), healthy(100, 2.0 * limit("diverging") * 1.01))
AT_LIMIT = (healthy(0), healthy(50), healthy(100, 2.0 * limit("diverging") * 0.99))

UNHEALTHY = {
    "a step that was not measured": (*BEFORE, weights_only(137, NAN, "d1", "d2")),
    "an infinite loss there": (*BEFORE, weights_only(137, INF, "head")),
    "weights that are finite": (*BEFORE, weights_only(137, INF)),
    "a step that was measured": (*BEFORE, healthy(137, NAN)),
    "an infinite loss of a first step": (healthy(0, INF),),
    "after the loss has risen": (*RISEN, weights_only(137, NAN, "d1")),
    "after it has hardly risen": (*AT_LIMIT, weights_only(137, NAN, "d1")),
    "gradients of the same step": (
        *BEFORE,
        with_nan(healthy(137, NAN), records.OUTPUT_GRADIENT, "d1", "d2", "head"),
    ),
}

HEALTHY = {
    "a run": BEFORE,
    "a loss that was never measured": tuple(healthy(n, NAN) for n in (0, 50, 100)),
    "one of 1e30": (*BEFORE, healthy(137, 1e30)),
    "one of zero": (*BEFORE, healthy(137, 0.0)),
    "a negative one": (*BEFORE, healthy(137, -5.0)),
    "NaN activations say more": (
        *BEFORE,
        with_nan(healthy(137, NAN), records.OUTPUT, "d2", "head"),
    ),
    "gradients of a step before": (
        *BEFORE,
        with_nan(healthy(120, 1.4), records.OUTPUT_GRADIENT, "d1"),
        weights_only(137, NAN, "d1"),
    ),
    "activations of a step before": (
        *BEFORE,
        with_nan(healthy(120, NAN), records.OUTPUT, "head"),
        weights_only(137, NAN, "d1"),
    ),
}


@pytest.mark.parametrize("name", UNHEALTHY)
def test_it_is_found_and_is_the_only_finding(name):
    *_, last = UNHEALTHY[name]
    (finding,) = diagnose(UNHEALTHY[name]).findings
    assert (finding.code, finding.step, finding.severity) == (CODE, last.step, "critical")
    value = "NaN" if math.isnan(last.loss) else "infinite"
    assert finding.message.startswith(f"The loss is {value} at step {last.step}.")


@pytest.mark.parametrize("name", HEALTHY)
def test_it_is_not_found(name):
    assert CODE not in [finding.code for finding in diagnose(HEALTHY[name]).findings]


def only(name):
    (finding,) = diagnose(UNHEALTHY[name]).findings
    return finding


def test_it_names_the_kernels_that_are_broken_in_the_order_of_the_data():
    finding = only("a step that was not measured")
    assert finding.layers == ("d1", "d2")
    assert "the kernels of d1 and d2 contain NaN" in finding.message.replace(
        ", d2", " and d2"
    )
    assert only("weights that are finite").layers == ("head",)
    np.testing.assert_equal(only("weights that are finite").evidence["broken_kernels"], 0)


def test_it_says_what_the_last_snapshot_before_has_shown():
    finding = only("a step that was not measured")
    assert "At step 100, the last one measured before, the loss was 1.5" in finding.message
    evidence = finding.evidence
    np.testing.assert_allclose(
        [evidence["last_step"], evidence["last_loss"], evidence["largest_gradient"]],
        [100, 1.5, 0.1],
    )


def test_the_cause_is_the_learning_rate_only_after_a_divergence():
    causes = {name: only(name).fix.cause for name in UNHEALTHY}
    assert causes == {
        "a step that was not measured": "data or loss",
        "an infinite loss there": "data or loss",
        "weights that are finite": "data or loss",
        "a step that was measured": "loss or targets",
        "an infinite loss of a first step": "loss or targets",
        "after the loss has risen": "learning rate",
        "after it has hardly risen": "data or loss",
        "gradients of the same step": "loss or targets",
    }


def test_the_step_to_keep_is_the_one_before():
    """A recorder is recommended only where the step was not measured."""
    for name in UNHEALTHY:
        asked = "flight_recorder" in str(only(name).fix)
        assert asked == (only(name).fix.cause == "data or loss"), name


def test_the_snapshot_before_counts_although_it_is_too_close_to_be_remembered():
    near = (*BEFORE, healthy(101, 1.4), healthy(102, 1.3), healthy(103, NAN))
    (finding,) = diagnose(near).findings
    assert "At step 102, the last one measured before, the loss was 1.3" in finding.message

"""Training and evaluation that part: the layer is named, and healthy ones are not."""

import dataclasses

import numpy as np
import pytest

from activation_monitor.analysis import moving
from activation_monitor.analysis.depth_profile import depth_profile
from activation_monitor.analysis.fixes import fix_for
from activation_monitor.analysis.rules.evaluation import differs
from networks import network, norm, tap

NORM = {"class_name": "BatchNormalization"}
DROP = {"class_name": "Dropout"}


def snapshot(x=1.0, d1=1.0, n=1.0, drop=1.0, d2=1.0, step=600, momentum=0.99):
    """Input, Dense, BatchNormalization, Dropout, Dense, with these rms values."""
    made = network(
        tap("x", x, "input", samples=32),
        tap("d1", d1, samples=32),
        norm("n", rms=n, samples=32, **NORM),
        tap("drop", drop, "other", samples=32, **DROP),
        tap("d2", d2, samples=32),
        step=step,
    )
    known = np.full((5, len(moving.FIELDS)), np.nan)
    known[2] = [momentum, 3, 0, 0, np.nan]
    return dataclasses.replace(made, moving=known)


def found(evaluation, *training):
    """What is found, with its fix."""
    training = training or (snapshot(),) * 3
    for finding, cause in differs(training, evaluation):
        assert finding.code == "evaluation-differs"
        yield finding, fix_for(cause, evaluation, depth_profile(evaluation))


SICK = {
    "moving statistics": (snapshot(n=4.0, drop=4.0, d2=4.0), "n", "normalization"),
    "moving statistics, far too small": (
        snapshot(n=0.1, drop=0.1, d2=0.1),
        "n",
        "normalization",
    ),
    "another preparation of the data": (
        snapshot(*[255.0] * 2, d2=9.0),
        "x",
        "input scale",
    ),
    "a layer that does something else": (snapshot(d2=0.1), "d2", "not known"),
    "a momentum of 0.9999": (
        snapshot(n=5.0, drop=5.0, d2=5.0, step=500, momentum=0.9999),
        "n",
        "normalization",
    ),
}

HEALTHY = {
    "the same": snapshot(),
    "three times": snapshot(n=3.0, drop=3.0, d2=0.34),
    "moving statistics at the beginning": snapshot(n=9.0, drop=9.0, d2=9.0, step=499),
    "the same with a small momentum": snapshot(n=9.0, drop=9.0, step=49, momentum=0.9),
}


@pytest.mark.parametrize("name", SICK)
def test_the_layer_in_which_they_part_is_named(name):
    """And its cause; no layer after it."""
    evaluation, layer, cause = SICK[name]
    ((finding, fix),) = found(evaluation)
    assert finding.layers == (layer,) and fix.cause == cause
    row = evaluation.names.index(layer)
    np.testing.assert_allclose(finding.evidence["ratio"], evaluation.statistic("rms")[row])


@pytest.mark.parametrize("name", HEALTHY)
def test_evaluation_as_in_training_is_healthy(name):
    """Or not far from it, or too early to say."""
    assert [*found(HEALTHY[name])] == []


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9, 0.95])
def test_dropout_is_healthy(rate):
    """In training its output is larger by 1 / sqrt(1 - rate), as float64 numpy has it, and
    so is what follows."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((512, 64))
    kept = x * (rng.random(x.shape) >= rate) / (1 - rate)
    kernel = rng.standard_normal((64, 64)) / 8
    rms = [np.sqrt(np.mean(one**2)) for one in (kept, kept @ kernel)]
    np.testing.assert_allclose(rms, 1 / np.sqrt(1 - rate), rtol=0.1)
    training = snapshot(drop=rms[0], d2=rms[1])
    assert [*found(snapshot(), training, training, training)] == []


def test_one_odd_batch_and_a_short_training_raise_nothing():
    """Evaluation must differ from all of the last three sampled steps."""
    odd = snapshot(*[0.1] * 5)
    assert [*found(snapshot(), snapshot(), odd, snapshot())] == []
    assert [*found(snapshot(), odd, odd)] == []
    assert [one.layers for one, _ in found(snapshot(), odd, odd, odd)] == [("x",)]


def test_a_layer_that_training_did_not_have_is_left_out():
    """For example one that is called in evaluation only."""
    training = network(tap("x", 1.0, "input", samples=32))
    assert [*found(snapshot(n=9.0), training, training, training)] == []

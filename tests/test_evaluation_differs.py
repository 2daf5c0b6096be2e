"""Training and evaluation that part: the layer is named, and healthy ones are not."""

import dataclasses

import numpy as np
import pytest

from activation_monitor.analysis import moving
from activation_monitor.analysis.depth_profile import depth_profile
from activation_monitor.analysis.diagnosis import diagnose
from activation_monitor.analysis.fixes import fix_for
from activation_monitor.analysis.health import Health, judge, judged
from activation_monitor.analysis.rules.evaluation import differs
from activation_monitor.analysis.snapshot import Recording
from networks import chain, network, norm, tap

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
    last = evaluation.step - 1
    before = [dataclasses.replace(snapshot(), step=last - n) for n in (200, 100, 0)]
    training = training or before
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
    steps = (400, 500, 599)
    window = [dataclasses.replace(training, step=step) for step in steps]
    assert [*found(snapshot(), *window)] == []


def test_one_odd_batch_and_a_short_training_raise_nothing():
    """Evaluation must differ from all of the last three sampled steps."""
    odd = [snapshot(*[0.1] * 5, step=step) for step in (400, 500, 599)]
    assert [*found(snapshot(), snapshot(step=400), odd[1], snapshot(step=599))] == []
    assert [*found(snapshot(), *odd[1:])] == []
    assert [one.layers for one, _ in found(snapshot(), *odd)] == [("x",)]


def test_a_layer_that_training_did_not_have_is_left_out():
    """For example one that is called in evaluation only."""
    training = network(tap("x", 1.0, "input", samples=32))
    window = [dataclasses.replace(training, step=step) for step in (400, 500, 599)]
    assert [*found(snapshot(n=9.0), *window)] == []


# -- what changes from step to step


def at_steps(steps, growth, **rms):
    """Snapshots whose layers grow by so many decades in 100 steps."""
    base = dict.fromkeys(("x", "d1", "n", "drop", "d2"), 1.0) | rms
    for step in steps:
        factor = 10 ** (growth * step / 100)
        scaled = {name: one * factor if name != "x" else one for name, one in base.items()}
        yield snapshot(**scaled, step=step)


@pytest.mark.parametrize("growth", [0.3, -0.3, 1.0])
def test_a_signal_that_grows_during_training_is_healthy(growth):
    """The evaluation comes some steps after the last sampled one."""
    training = at_steps([600, 700, 800], growth)
    (evaluation,) = at_steps([900], growth)
    assert [*found(evaluation, *training)] == []


def test_what_parts_more_than_training_changes_is_found():
    """The layers grow by 0.4 decades within the window; the evaluation is 1.5 off."""
    training = at_steps([600, 700, 800], 0.2)
    (evaluation,) = at_steps([850], 0.2, d2=10**1.5)
    assert [one.layers for one, _ in found(evaluation, *training)] == [("d2",)]


def test_an_evaluation_long_after_the_last_sampled_step_is_not_judged():
    """As far from it as all of the window is, it still is."""
    training = [*at_steps([600, 610, 650], 0.0)]
    near, far = (snapshot(d2=9.0, step=step) for step in (700, 701))
    assert len([*found(near, *training)]) == 1
    assert [*found(far, *training)] == []


def test_what_follows_a_normalization_waits_until_it_has_settled():
    """Its moving statistics are still those of the beginning, and a ReLU behind it may pass
    far less for that reason."""
    early, later = (snapshot(n=4.0, drop=4.0, d2=0.1, step=step) for step in (499, 650))
    assert [*found(early)] == []
    assert [one.layers for one, _ in found(later)] == [("n",)]


# -- the fold


EVALUATION = {"evaluation": True}


def evaluated(step, **rms):
    return dataclasses.replace(snapshot(**rms, step=step), **EVALUATION)


def codes(health):
    return [finding.code for finding in health.findings]


def test_an_evaluation_is_judged_by_the_training_before_it():
    """Whether live, from a `Recording` with its evaluations, or from a list of both."""
    training = [snapshot(step=step) for step in (0, 600, 700, 800)]
    evaluation = evaluated(801, d2=9.0)
    recording = Recording(training, evaluations=Recording([evaluation]))
    health = judged([*training, evaluation])
    assert codes(health) == ["evaluation-differs"]
    (finding,) = health.findings
    assert (finding.step, finding.initial, finding.layers) == (801, False, ("d2",))
    for what in (recording, [*training, evaluation]):
        diagnosis = diagnose(what)
        assert diagnosis.findings == health.findings
        assert diagnosis.steps == (0, 600, 700, 800)
    alone = [evaluation, *training]
    assert codes(judged(alone)) == []


def test_an_evaluation_has_the_number_of_the_step_after_it():
    """So it comes before that step."""
    steps, evaluations = (0, 5, 10), (5, 11)
    recording = Recording(
        [snapshot(step=step) for step in steps],
        evaluations=Recording([evaluated(step) for step in evaluations]),
    )
    kinds = [(one.step, one.evaluation) for one in recording.in_order]
    assert kinds == [(0, False), (5, True), (5, False), (10, False), (11, True)]


def test_evaluations_before_training_leave_the_first_snapshot_first():
    """Rules on the initialization are applied to the first snapshot of training."""
    growing = chain(*10.0 ** np.arange(12))
    evaluation = dataclasses.replace(growing, **EVALUATION)
    expected = judged([growing])
    assert judged([evaluation, growing]).findings == expected.findings
    assert codes(expected) == ["exploding-activations"]


def test_it_ends_after_some_evaluations_without_it():
    """`patience` = 3 of them, over more than 20 steps."""
    training = [snapshot(step=step) for step in range(500, 1500, 50)]
    wrong = [evaluated(step, d2=9.0) for step in (801, 901)]
    right = [evaluated(step) for step in (1001, 1101, 1201)]
    in_order = sorted([*training, *wrong, *right], key=lambda one: one.step)
    health = Health()
    reported = []
    for one in in_order:
        health, news = judge(health, one)
        reported += [(one.step, finding.code) for finding in news]
    assert reported == [(801, "evaluation-differs")]
    (finding,) = health.findings
    assert (finding.last_step, finding.recovered) == (901, 1001)


def test_what_is_wrong_in_training_explains_it():
    """A finding of training is reported alone."""
    bad = chain(*10.0 ** np.arange(12))
    training = [dataclasses.replace(bad, step=step) for step in (0, 600, 700, 800)]
    other = chain(*[1.0] * 12)
    evaluation = dataclasses.replace(other, step=801, **EVALUATION)
    assert codes(judged([*training, evaluation])) == ["exploding-activations"]

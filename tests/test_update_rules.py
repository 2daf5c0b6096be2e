"""The rules on updates, on hand-made steps on either side of each limit."""

import math

import numpy as np
import pytest

from activation_monitor.analysis.diagnosis import diagnose
from activation_monitor.analysis.optimizer_law import expected
from activation_monitor.analysis.thresholds import THRESHOLDS
from activation_monitor.analysis.updating import NAMES, OptimizerInfo, Updating, unknown
from networks import updated

NAN = math.nan
NOT_GIVEN = {"optimizer": -1, "times": 0, "source": NAN, "factor": NAN}
CHANGED = {"source": NAN}
NORMS = {"clipnorm": 1e-9}


def limit(name):
    return THRESHOLDS[name].value


def of_one(name, value, usual):
    """Something that holds for the second of three kernels."""
    return {name: [usual, value, usual]}


# By name: a step, the layers that a finding names, and words of its message.
NOT_UPDATED = {
    "no optimizer": (
        updated(update=0.0, known=NOT_GIVEN, optimizers=0),
        "d1 d2 d3",
        "calls no optimizer",
    ),
    "one is not given": (
        updated(
            update=[0.05, 0.0, 0.05],
            known={**of_one("optimizer", -1, 0), **of_one("times", 0, 1)},
        ),
        "d2",
        "gives the optimizer other weights",
    ),
    "multiplied by zero": (
        updated(gradient=0.0, update=0.0, known={**CHANGED, "factor": 0.0}),
        "d1 d2 d3",
        "by zero",
    ),
    "multiplied by nearly zero": (
        updated(gradient=1e-9, known={**CHANGED, "factor": 0.99 * limit("cut-off")}),
        "d1 d2 d3",
        "by zero",
    ),
    "clipped to nothing": (updated(update=0.0, settings=NORMS), "d1 d2 d3", "clipping"),
    "clipped to a millionth": (
        updated(update=0.99 * limit("hardly-updated") * 0.05, settings=NORMS),
        "d1 d2 d3",
        "clipping",
    ),
    "a constraint": (
        updated(update=[0.05, 0.0, 0.05], known=of_one("constrained", 1, 0)),
        "d2",
        "constraint",
    ),
    "assigned back": (updated(update=[0.05, 0.05, 0.0]), "d3", "takes it back"),
    "assigned back, first step of Adam": (
        updated(update=0.0, optimizer="Adam", taken=0, settings={"beta_2": 0.999}),
        "d1 d2 d3",
        "takes it back",
    ),
    "a little above rounding": (
        updated(update=0.0, rate=2 * 1.01 * limit("above-rounding") * 2.0**-24),
        "d1 d2 d3",
        "takes it back",
    ),
}

UPDATED = {
    "plain SGD": updated(),
    "not given, but another optimizer may": updated(
        update=[0.05, 0.0, 0.05], known=of_one("optimizer", -1, 0), optimizers=2
    ),
    "not given, and trained before": updated(
        update=[0.05, 0.0, 0.05], known=of_one("optimizer", -1, 0), changed=True
    ),
    "not given, no gradient": updated(
        update=0.0, known=NOT_GIVEN, optimizers=0, reaches=0.0
    ),
    "not given, moved by hand": updated(known=NOT_GIVEN, optimizers=0),
    "some not given, others moved by hand": updated(
        update=[0.0, 0.1, 0.0], known=NOT_GIVEN, optimizers=0
    ),
    "no optimizer, in a loop of one's own": updated(
        update=0.0, known=NOT_GIVEN, optimizers=0, whole=False
    ),
    "no optimizer, not one loss": updated(
        update=0.0, known=NOT_GIVEN, optimizers=0, loss=NAN
    ),
    "frozen": updated(update=0.0, known=NOT_GIVEN, optimizers=0, trainable=False),
    "not a variable": updated(update=0.0, known={"optimizer": NAN}),
    "a loss scale divided out by hand": updated(
        gradient=1e-8, known={**CHANGED, "factor": 1.01 * limit("cut-off")}
    ),
    "a factor does not explain it": updated(
        gradient=1e-9, known={**CHANGED, "factor": 0.0, "remainder": 1.0}
    ),
    "no gradient": updated(gradient=0.0, update=0.0),
    "a gradient of NaN": updated(gradient=NAN, update=0.0),
    "a learning rate of zero": updated(update=0.0, rate=0.0),
    "a step that is skipped": updated(update=0.0, took=0.0),
    "an optimizer of the user's own": updated(update=0.0, optimizer=""),
    "Adam, later": updated(
        update=0.0, optimizer="Adam", taken=5, settings={"beta_2": 0.999}
    ),
    "momentum, later": updated(update=0.02, settings={"momentum": 0.9}),
    "accumulation": updated(update=0.0, settings={"gradient_accumulation_steps": 4}),
    "several steps": updated(update=0.0, steps=2),
    "lost in rounding": updated(
        update=0.0, rate=2 * 0.99 * limit("above-rounding") * 2.0**-24
    ),
    "lost in rounding of bfloat16": updated(update=0.0, rate=0.01, dtype="bfloat16"),
    "clipped to little": updated(
        update=1.01 * limit("hardly-updated") * 0.05, settings=NORMS
    ),
}

WRONG = {
    "the gradient of another layer": (
        updated(known={"source": [1, 3, 2]}),
        "d2 d3",
        "gradient of the weights of d3",
    ),
    "twice": (updated(update=0.1, known={"times": 2, "repeats": 1}), "d1 d2 d3", "2 times"),
    "not divided by the loss scale": (
        updated(scale=1024.0, kept_scale=1),
        "d1 d2 d3",
        "multiplied by the loss scale 1024",
    ),
    "divided by the loss scale only": (
        updated(scale=1024.0, kept_scale=-1),
        "d1 d2 d3",
        "divides the gradients by the loss scale 1024",
    ),
    "the other sign": (
        updated(known={**CHANGED, "factor": -1.0}),
        "d1 d2 d3",
        "makes the loss larger",
    ),
    "larger than the law": (
        updated(update=[0.05, 0.05 * (1 + 1.01 * limit("update-law")), 0.05]),
        "d2",
        "1.01 times that of SGD",
    ),
    "smaller than the law": (
        updated(update=[0.05, 0.05 * (1 - 1.01 * limit("update-law")), 0.05]),
        "d2",
        "0.99 times that of SGD",
    ),
    "larger than a clipped one": (
        updated(update=0.06, settings={"clipnorm": 1.0}),
        "d1 d2 d3",
        "1.2 times",
    ),
    "larger than weight decay makes it": (
        updated(update=0.07, settings={"weight_decay": 0.1}),
        "d1 d2 d3",
        "1.4 times",
    ),
}

RIGHT = {
    "plain SGD": updated(),
    "two gradients in a step": updated(update=0.3, known={"times": 2}),
    "a factor": updated(known={**CHANGED, "factor": 0.1}),
    "the other sign, of an objective": updated(known={**CHANGED, "factor": -1.0}, loss=NAN),
    "the other sign, in a loop of one's own": updated(
        known={**CHANGED, "factor": -1.0}, whole=False
    ),
    "the other sign does not explain it": updated(
        known={**CHANGED, "factor": -1.0, "remainder": 0.5}
    ),
    "within the law": updated(update=0.05 * (1 + 0.99 * limit("update-law"))),
    "just so small": updated(update=0.05 * (1 - 0.99 * limit("update-law"))),
    "clipped": updated(update=0.01, settings={"clipnorm": 1.0}),
    "clipped by value": updated(update=0.01, settings={"clipvalue": 0.1}),
    "weight decay": updated(update=0.059, settings={"weight_decay": 0.1}),
    "a constraint": updated(update=0.3, known={"constrained": 1}),
    "an average that overwrites": updated(
        update=0.01, settings={"use_ema": 1.0, "ema_overwrite_frequency": 1}
    ),
    "several steps": updated(update=0.1, steps=2),
    "the loss scale is 1": updated(scale=1.0, kept_scale=1),
    "an optimizer of the user's own": updated(update=0.3, optimizer=""),
    "a learning rate that is not known": updated(update=0.3, rate=NAN),
    "applied in a loop within the step": updated(update=0.3, took=3.0),
}

PARTED = {
    "one layer": (
        updated(known=of_one("replicas", 1.01 * limit("replicas"), 0.0)),
        "d2",
        "different weights in d2",
    ),
}
TOGETHER = {
    "equal": updated(known={"replicas": 0.0}),
    "one replica": updated(),
    "rounding": updated(known=of_one("replicas", 0.99 * limit("replicas"), 0.0)),
}

STUCK = {
    "below one": (
        updated(gradient=NAN, update=0.0, took=0.0, scale=0.5, known={"factor": NAN}),
        "d1 d2 d3",
        "fallen to 0.5",
    ),
    "zero": (updated(gradient=0.0, update=0.0, scale=0.0), "d1 d2 d3", "fallen to 0"),
}
NOT_STUCK = {
    "one step is skipped": updated(gradient=NAN, update=0.0, took=0.0, scale=2.0**15),
    "at one": updated(gradient=NAN, update=0.0, took=0.0, scale=1.0),
    "it works": updated(scale=0.5),
}

DECAYS = {
    "a tenth": (
        updated(settings={"weight_decay": 1.01 * limit("weight-decay") / 0.1}),
        "d1 d2 d3",
        "takes 10% of the weights",
    ),
}
NO_DECAY = {
    "a little": updated(settings={"weight_decay": 0.99 * limit("weight-decay") / 0.1}),
    "none": updated(),
}

TABLES = {
    "weights-not-updated": (NOT_UPDATED, UPDATED),
    "wrong-update": (WRONG, RIGHT),
    "weight-decay": (DECAYS, NO_DECAY),
    "replicas-differ": (PARTED, TOGETHER),
    "stuck-loss-scale": (STUCK, NOT_STUCK),
}


@pytest.mark.parametrize(
    ("code", "name"), [(code, name) for code, (sick, _) in TABLES.items() for name in sick]
)
def test_a_wrong_update_is_found_in_one_step(code, name):
    """At any step, with the layers, and in words."""
    snapshot, layers, words = TABLES[code][0][name]
    (finding,) = diagnose([snapshot]).findings
    assert finding.code == code
    assert finding.layers == tuple(layers.split())
    assert words in finding.message
    assert finding.fix is not None and finding.fix.reason


@pytest.mark.parametrize(
    ("code", "name"), [(code, name) for code, (_, well) in TABLES.items() for name in well]
)
def test_an_update_that_may_be_right_is_healthy(code, name):
    """Nothing is said where there is no law, or a reason to differ from it."""
    assert diagnose([TABLES[code][1][name]]).findings == ()


# -- from snapshot to snapshot


def codes(*snapshots):
    return [finding.code for finding in diagnose(snapshots).findings]


def at(step, weight, update=None, **options):
    return updated(step=step, weight=weight, update=update, **options)


def test_weights_that_are_put_back_are_found_at_the_third_snapshot():
    """Each step moves them, and then they are as before."""
    run = [at(step, 1.0) for step in (0, 1, 2)]
    assert codes(*run[:2]) == []
    assert codes(*run) == ["weights-not-updated"]
    (finding,) = diagnose(run).findings
    assert "3 times in a row" in finding.message and finding.fix.cause == "callback"


@pytest.mark.parametrize(
    "run",
    [
        [at(0, 1.0), at(1, 0.95), at(2, 0.9)],
        [at(0, 1.0), at(1, 1.0), at(2, 0.9), at(5, 0.9), at(10, 0.8)],
        [at(step, 1.0, 0.0, took=0.0) for step in (0, 1, 2, 5)],
        [at(step, 1.0, update=0.0, rate=0.0, taken=0.0) for step in (0, 1, 2)],
        [at(step, 1.0, gradient=9e-6) for step in (0, 1, 2, 5, 10)],
    ],
    ids=[
        *("move", "are put back once", "steps are skipped", "zero at the first step"),
        "by less than a record shows",
    ],
)
def test_weights_that_move_or_wait_are_healthy(run):
    """Or that a search for a learning rate has put back."""
    assert codes(*run) == []


def test_a_learning_rate_that_becomes_zero_is_found_at_the_second_snapshot():
    """Of those with a rate of zero."""
    run = [at(0, 1.0), *(at(step, 0.9, 0.0, rate=0.0) for step in (1, 2))]
    assert codes(*run[:2]) == []
    (finding,) = diagnose(run).findings
    assert finding.code == "weights-not-updated"
    assert "since step 1, at 2 sampled steps" in finding.message
    # A cyclic schedule touches zero; a rate of zero may be meant.
    cyclic = [at(0, 1.0), at(1, 0.9, 0.0, rate=0.0), at(2, 0.9), at(5, 0.8, 0.0, rate=0.0)]
    assert codes(*cyclic) == []
    assert codes(*(at(step, 1.0, 0.0, rate=0.0) for step in range(5))) == []


FROZEN = {"optimizer": NAN, "stale": 1}


def test_a_frozen_layer_that_moves_between_steps_is_found():
    """The optimizer knows its weights: it was frozen after `compile`."""
    options = {"update": 0.0, "trainable": False, "known": FROZEN}
    run = [updated(step=i, weight=1.0 - 0.1 * i, **options) for i in range(2)]
    (finding,) = diagnose(run).findings
    assert (finding.code, finding.layers) == ("wrong-update", ("d1", "d2", "d3"))
    assert "frozen" in finding.message and "model.compile(" in str(finding.fix)


@pytest.mark.parametrize(
    "options",
    [
        {"known": {**FROZEN, "stale": 0}},  # a teacher that a callback moves
        {"known": FROZEN, "update": 0.1},  # moved within the step
    ],
    ids=["not of the optimizer", "by the step"],
)
def test_a_frozen_layer_that_others_move_is_healthy(options):
    """A callback may, and so may the step."""
    options = {"update": 0.0, "trainable": False} | options
    run = [updated(step=i, weight=1.0 - 0.1 * i, **options) for i in range(3)]
    assert codes(*run) == []


# -- the data


def test_an_array_of_other_columns_is_an_error():
    """In both classes."""
    with pytest.raises(ValueError, match="columns"):
        Updating((), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="5 layers"):
        snapshot = updated()
        type(snapshot)(**{**vars(snapshot), "updating": Updating((), unknown(4))})


def test_the_optimizer_of_a_kernel_is_that_it_was_given_to():
    """By its index, or none."""
    first, second = OptimizerInfo("SGD"), OptimizerInfo("Adam")
    kernels = unknown(3)
    kernels[:, NAMES.index("optimizer")] = [1, -1, NAN]
    how = Updating((first, second), kernels)
    assert [how.optimizer(row) for row in range(3)] == [second, None, None]


def test_there_is_a_law_only_where_earlier_steps_do_not_matter():
    """SGD at each step; what has a state at the first one."""

    def law(name, **known):
        one = {"learning_rate": 0.1, "taken": 3.0, "took": 1.0, **known}
        return expected(OptimizerInfo(name, **one), 2.0, 1.0, 0.0)

    assert law("SGD").exact == pytest.approx(0.2)
    assert law("SGD", settings={"momentum": 0.9}) is None
    assert law("SGD", settings={"momentum": 0.9}, taken=0).exact == pytest.approx(0.2)
    assert law("Adam", settings={"beta_2": 0.999}) is None
    assert law("Adam", settings={"beta_2": 0.999}, taken=0).exact == pytest.approx(0.1)
    assert law("Ftrl", taken=0) is None
    assert law("SGD", took=2.0) is None and law("SGD", taken=NAN) is not None

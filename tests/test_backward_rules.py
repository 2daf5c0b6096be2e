"""The rules on gradients that end, on data and on targets: either side of each limit."""

import math

import numpy as np
import pytest

from activation_monitor.analysis.diagnosis import diagnose
from activation_monitor.analysis.health import Health, judge
from networks import chain, network, norm, tap, weights
from test_rules import (
    BIG,
    DRAWN,
    LITTLE,
    NAN,
    PASSED,
    Unhealthy,
    above,
    below,
    between,
    check,
    codes,
    constant,
    named,
    passing,
)

# -- no-gradient


def zeros(samples=64, width=1):
    return np.zeros((samples, width))


def ones(samples=64):
    return np.ones((samples, 1))


def varied(*shape):
    return np.random.default_rng(0).standard_normal(shape or (64, 8))


def ends(*last, hidden=0.0, **options):
    """An input, two hidden layers with this gradient, and the last layers."""
    return network(
        tap("x", kind="input"),
        *(tap(f"d{i}", gradient=hidden, **DRAWN) for i in (1, 2)),
        *last,
        **options,
    )


def rectified_branch(width, kernel, samples=64, stem=1.0):
    """A residual branch whose last layer is a ReLU of zeros."""
    return network(
        *(tap("x", kind="input"), tap("stem", varied(), gradient=stem)),
        tap("up", varied(), gradient=0.0, **DRAWN),
        tap(
            "down", zeros(samples, width), gradient=1.0, **RELU | {"width": width} | kernel
        ),
        tap("sum", varied(), "merge", "stem down", gradient=1.0),
        tap("head", gradient=1.0),
    )


RELU = {"activation": "relu", "width": 1, "dead": 1}
SOFTMAX = {"activation": "softmax", "width": 1}
ALL = {"layers": 3, "samples": 64}

NO_GRADIENT = {
    "a rectified output": Unhealthy(
        ends(tap("head", zeros(), gradient=1.0, **RELU)), "head", ALL, critical=True
    ),
    "a rectified output of a few samples": Unhealthy(
        ends(tap("head", zeros(7), gradient=1.0, **RELU)),
        "head",
        ALL | {"samples": 7},
        critical=True,
    ),
    "a rectified output whose weights are zero as well": Unhealthy(
        ends(tap("head", zeros(), gradient=1.0, **RELU, **constant(0.0))),
        "head",
        ALL,
        critical=True,
    ),
    "a rectifier after the last layer": Unhealthy(
        ends(
            tap("last", gradient=0.0, **DRAWN),
            tap("relu", zeros(), "activation", gradient=1.0, **RELU),
        ),
        "relu",
        ALL,
        critical=True,
    ),
    "a softmax over one unit": Unhealthy(
        ends(tap("head", ones(), gradient=1.0, **SOFTMAX)), "head", ALL, critical=True
    ),
    "a softmax over one unit, by a loss that clips it": Unhealthy(
        ends(tap("head", ones(), gradient=0.0, **SOFTMAX)), "head", ALL, critical=True
    ),
    "a softmax over one unit, by a loss of its input": Unhealthy(
        ends(tap("head", ones(), **SOFTMAX)), "head", ALL, critical=True
    ),
    "a softmax over one unit, without gradients": Unhealthy(
        ends(tap("head", ones(), **SOFTMAX), hidden=None), "head", ALL, critical=True
    ),
    "a softmax over one unit, of one sample": Unhealthy(
        ends(tap("head", ones(1), gradient=1.0, **SOFTMAX)),
        "head",
        ALL | {"samples": 1},
        critical=True,
    ),
    "a softmax layer of its own": Unhealthy(
        ends(
            tap("last", gradient=0.0, **DRAWN),
            tap("softmax", ones(), "activation", gradient=1.0, **SOFTMAX),
        ),
        "softmax",
        ALL,
        critical=True,
    ),
    "a softmax layer of its own, by a loss of its input": Unhealthy(
        ends(
            *(tap("last", gradient=1.0, **DRAWN),),
            tap("softmax", ones(), "activation", **SOFTMAX),
            hidden=1.0,
        ),
        "softmax",
        {"layers": 0},
        critical=True,
    ),
    "one of two outputs": Unhealthy(
        ends(
            tap("a", gradient=0.0, **DRAWN),
            tap("head", ones(), gradient=1.0, **SOFTMAX),
            tap("other", gradient=1.0, after="d2", **DRAWN),
            hidden=1.0,
        ),
        "head",
        {"layers": 2},
    ),
    "one of two outputs, without gradients": Unhealthy(
        ends(
            *(tap("a", **DRAWN), tap("head", ones(), **SOFTMAX)),
            tap("other", after="d2", **DRAWN),
            hidden=None,
        ),
        "head",
        {"layers": 2},
    ),
    "a sigmoid that rounds to its limits": Unhealthy(
        ends(tap("head", ones(), gradient=1.0, activation="sigmoid", width=1, **DRAWN)),
        "head",
        ALL,
        critical=True,
    ),
    "a rectified output, without gradients": Unhealthy(
        ends(tap("head", zeros(16), **RELU), hidden=None),
        "head",
        ALL | {"samples": 16},
        critical=True,
    ),
    "a rectified branch that is zero": Unhealthy(
        rectified_branch(16, DRAWN), "down", {"layers": 2, "samples": 64}
    ),
    "a sign between two layers": Unhealthy(
        network(
            *(tap("x", kind="input"), tap("d1", varied(), gradient=0.0, **DRAWN)),
            tap("sign", np.sign(varied()), "other", gradient=1.0),
            tap("head", gradient=1.0, **DRAWN),
        ),
        "sign",
        {"layers": 1},
    ),
    "a layer that computes steps": Unhealthy(
        network(
            *(tap("x", kind="input"), tap("d1", varied(), gradient=0.0, **DRAWN)),
            *(tap("d2", varied(), gradient=1e-30, **DRAWN), tap("head", gradient=1.0)),
        ),
        "d2",
        {"layers": 2},
    ),
    "a layer that was cut off": Unhealthy(
        ends(
            *(tap("d3", gradient=1.0, **DRAWN), tap("head", gradient=1.0)),
            hidden=None,
            loss=1.0,
        ),
        "d3",
        {"layers": 2},
    ),
    "a branch that was cut off": Unhealthy(
        network(
            *(tap("x", kind="input"), tap("d1", gradient=1.0)),
            *(tap("y", kind="input", after=""), tap("e1"), tap("e2", gradient=1.0)),
            tap("cat", kind="merge", after="d1 e2", gradient=1.0),
            tap("head", gradient=1.0),
            loss=1.0,
        ),
        "e2",
        {"layers": 1},
    ),
}


def begun_at_zero(**options):
    """A residual block whose last layer begins at zero."""
    return network(
        *(tap("x", kind="input"), tap("stem", varied(), gradient=1.0)),
        *(tap("up", varied(), gradient=0.0, **DRAWN), tap("down", **options)),
        tap("sum", varied(), "merge", "stem down", gradient=1.0),
        tap("head", gradient=1.0),
    )


GRADIENT = {
    "everywhere": ends(tap("head", gradient=1.0), hidden=1.0),
    "nothing was measured": ends(tap("head"), hidden=None),
    "a rectified output that is not zero": ends(
        tap("head", np.eye(64)[:, :1], gradient=1.0, activation="relu"), hidden=1.0
    ),
    "a rectified output of too few samples": ends(
        tap("head", zeros(3), gradient=1.0, **RELU | {"dead": 0})
    ),
    "a rectified output with a gradient": ends(
        tap("head", zeros(8), gradient=1.0, **RELU | {"dead": 0}), hidden=1.0
    ),
    "a rectified output of a few samples, without gradients": ends(
        tap("head", zeros(15), **RELU), hidden=None
    ),
    "a rectified branch that begins at zero": rectified_branch(16, constant(0.0)),
    "a narrow rectified branch": rectified_branch(8, DRAWN),
    "a rectified branch, for a few samples": rectified_branch(16, DRAWN, samples=15),
    "a softmax over two units": ends(
        tap("head", 0.5 * ones(), gradient=1.0, **SOFTMAX | {"width": 2}), hidden=1.0
    ),
    "a softmax over one unit in the middle": ends(
        tap("gate", ones(), gradient=1.0, **SOFTMAX),
        tap("mix", kind="merge", after="d2 gate", gradient=1.0),
        tap("head", gradient=1.0),
        hidden=1.0,
    ),
    "a softmax over one of many positions": ends(
        tap("head", np.full((64, 4), 0.25), gradient=1.0, **SOFTMAX), hidden=1.0
    ),
    "an output that is not trained": ends(
        *(tap("a"), tap("unused", ones(), **SOFTMAX)),
        tap("head", after="d2", gradient=1.0),
        hidden=1.0,
    ),
    "a head of zeros": ends(tap("head", zeros(), gradient=1.0, **constant(0.0))),
    "a sigmoid head of zeros": ends(
        tap("head", 0.5 * ones(), gradient=1.0, activation="sigmoid", **constant(0.0))
    ),
    "targets that are met already": ends(tap("head", gradient=0.0)),
    "a branch that begins at zero": begun_at_zero(
        rms=zeros(64, 8), gradient=1.0, **constant(0.0)
    ),
    "a branch that a normalization begins at zero": network(
        *(tap("x", kind="input"), tap("stem", varied(), gradient=1.0)),
        *(tap("up", varied(), gradient=0.0), norm("n", rms=zeros(64, 8), gradient=1.0)),
        tap("sum", varied(), "merge", "stem n", gradient=1.0),
        tap("head", gradient=1.0),
    ),
    "a branch that a factor begins at zero": network(
        *(tap("x", kind="input"), tap("stem", varied(), gradient=1.0)),
        tap("up", varied(), gradient=0.0),
        tap("scale", zeros(64, 8), "other", gradient=1.0),
        tap("sum", varied(), "merge", "stem scale", gradient=1.0),
        tap("head", gradient=1.0),
    ),
    "a gate that begins at zero": network(
        *(tap("x", kind="input"), tap("stem", varied(), gradient=1.0)),
        tap("gate", varied(), "activation", gradient=0.0, activation="sigmoid"),
        tap("up", zeros(64, 8), after="stem", gradient=1.0, **constant(0.0)),
        tap("mix", zeros(64, 8), "merge", "gate up", gradient=1.0),
        tap("sum", varied(), "merge", "stem mix", gradient=1.0),
        tap("head", gradient=1.0),
    ),
    "dropout that drops everything": network(
        *(tap("x", kind="input"), tap("stem", varied(), gradient=1.0)),
        tap("up", varied(), gradient=0.0, **DRAWN),
        tap("drop", zeros(64, 8), "other", gradient=1.0),
        tap("sum", varied(), "merge", "stem drop", gradient=1.0),
        tap("head", gradient=1.0),
    ),
    "frozen layers that are cut off": network(
        *(tap("x", kind="input"), tap("d1", trainable=False)),
        *(tap("d2", gradient=1.0), tap("head", gradient=1.0)),
        loss=1.0,
    ),
    "trained layers that are cut off": network(
        *(tap("x", kind="input"), tap("d1", changed=True)),
        *(tap("d2", gradient=1.0), tap("head", gradient=1.0)),
        loss=1.0,
    ),
    "layers that another step trains": network(
        *(tap("x", kind="input"), tap("generator/out")),
        *(tap("discriminator/in", gradient=1.0), tap("discriminator/out", gradient=1.0)),
    ),
    "layers that another call trains": network(
        *(tap("x", kind="input"), tap("generator/0"), tap("discriminator/0", gradient=1.0)),
        *(tap("y", kind="input", after="", gradient=1.0), tap("generator/1", gradient=1.0)),
        tap("discriminator/1", gradient=1.0),
        loss=1.0,
    ),
    "an input that has no gradient": network(
        tap("x", kind="input"), tap("d1", gradient=1.0), tap("head", gradient=1.0), loss=1.0
    ),
    **{
        f"which underflows in {dtype}": network(
            tap("x", kind="input"),
            tap("d1", varied(), gradient=0.0, dtype=dtype, **DRAWN),
            tap("d2", varied(), gradient=tiny, dtype=dtype, **DRAWN),
            tap("head", gradient=tiny, dtype=dtype, **DRAWN),
        )
        for dtype, tiny in (("float16", 1e-3), ("float32", 1e-36), ("bfloat16", 1e-36))
    },
    "an order that was not traced": network(
        *(tap("x", kind="input", traced=False), tap("d1", traced=False)),
        *(tap("d2", traced=False, gradient=1.0), tap("h", traced=False, gradient=1.0)),
        loss=1.0,
    ),
}


@pytest.mark.parametrize("name", NO_GRADIENT)
def test_a_layer_that_passes_no_gradient_is_found(name):
    """The one nearest to the output, how many layers get none, and what to do."""
    check("no-gradient", NO_GRADIENT[name])
    (finding,) = diagnose([NO_GRADIENT[name].snapshot]).findings
    assert "initializer" not in finding.fix.cause and finding.fix.reason
    stay = "stay as they were drawn" in finding.message
    assert stay == (finding.evidence["layers"] > 0)


@pytest.mark.parametrize(("stem", "without"), [(None, "up, down"), (0.0, "stem, up, down")])
def test_a_layer_whose_gradient_is_not_measured_may_learn(stem, without):
    """As one of several terms that are added up. The shortcut leads around the branch. A
    gradient of zeros is one."""
    (finding,) = diagnose([rectified_branch(16, DRAWN, stem=stem)]).findings
    assert finding.code == "no-gradient"
    assert f"No gradient reaches {without}:" in finding.message


@pytest.mark.parametrize("name", GRADIENT)
def test_a_gradient_that_is_zero_for_a_good_reason_is_healthy(name):
    """Zeros at initialization, frozen layers, outputs without a loss."""
    assert codes(GRADIENT[name]) == []


# -- constant-input


def alike(**options):
    return {"mean": 1.0, "within": 0.0, "samples": 64} | options


def equal(samples=64, value=1.0):
    return np.tile([[value, 0.0, -0.5]], (samples, 1))


SAME = {"samples": 64, "inputs": 1}

CONSTANT = {
    "all samples": Unhealthy(
        network(tap("x", equal(), "input"), tap("d", **alike()), tap("head", **alike())),
        "x",
        SAME,
        critical=True,
    ),
    "all zeros": Unhealthy(
        network(tap("x", 0 * equal(), "input"), tap("d", **alike()), tap("head")),
        "x",
        SAME,
        critical=True,
    ),
    "up to rounding": Unhealthy(
        network(
            tap("x", 1.0, "input", mean=0.8, within=1e-7, samples=64),
            *(tap("d", **alike()), tap("head")),
        ),
        "x",
        SAME,
        critical=True,
    ),
    "an embedding of integers": Unhealthy(
        network(tap("e", equal(), "embedding", ""), tap("d", **alike()), tap("head")),
        "e",
        SAME,
        critical=True,
    ),
    "both inputs": Unhealthy(
        network(
            *(tap("x", equal(), "input"), tap("d", **alike())),
            *(tap("y", equal(), "input", ""), tap("e", **alike())),
            *(tap("cat", kind="merge", after="d e"), tap("head")),
        ),
        "x y",
        SAME | {"inputs": 2},
        critical=True,
    ),
    "before dropout": Unhealthy(
        network(
            tap("x", equal(), "input"),
            tap("drop", samples=64, class_name="SpatialDropout1D", kind="other"),
            tap("head"),
        ),
        "x",
        SAME,
        critical=True,
    ),
    "which a normalization leaves rounding of": Unhealthy(
        network(tap("x", equal(), "input"), norm("n", rms=1e-6, samples=64), tap("head")),
        "x",
        SAME,
        critical=True,
    ),
    "just enough samples": Unhealthy(
        network(tap("x", equal(8), "input"), tap("d", **alike()), tap("head")),
        "x",
        {"samples": 8},
        critical=True,
    ),
    "which explains samples that collapse": Unhealthy(
        network(
            *(tap("x", equal(), "input"), tap("d", **alike()), norm("n", samples=64)),
            *(tap("f", within=1e-4, samples=64), tap("head")),
        ),
        "x",
        SAME,
        critical=True,
    ),
}

DIFFERENT = {
    "samples that differ": chain(1, 1, samples=64),
    "samples that differ a little": network(
        tap("x", 1.0, "input", mean=0.8, within=1e-5, samples=64),
        *(tap("d", mean=0.5, within=1e-5, samples=64), tap("head")),
    ),
    "one sample": network(tap("x", equal(1), "input"), tap("d"), tap("head")),
    "too few samples": network(tap("x", equal(7), "input"), tap("d"), tap("head")),
    "a mask next to an input": network(
        *(tap("x", varied(), "input"), tap("mask", equal(), "input", "")),
        *(tap("mix", varied(), "merge", "x mask"), tap("d", varied()), tap("head")),
    ),
    "a mask next to integers": network(
        tap("mask", equal(), "input"),
        *(tap("e", varied(), "embedding", "mask"), tap("d", varied()), tap("head")),
    ),
    "a learned token next to an input": network(
        *(tap("x", varied(), "input"), tap("token", equal(), "other", "")),
        *(tap("cat", varied(), "merge", "x token"), tap("d", varied()), tap("head")),
    ),
    "positions next to tokens": network(
        *(tap("tokens", varied(), "embedding", ""), tap("p", equal(8), "embedding", "")),
        *(tap("sum", varied(), "merge", "tokens p"), tap("d", varied()), tap("head")),
    ),
    "the smallest numbers": network(
        tap("x", 1e-200 * varied(), "input"), tap("n", kind="normalization"), tap("d")
    ),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_an_input_that_is_the_same_for_all_samples_is_found(name):
    """One finding on the data, which explains all others."""
    check("constant-input", CONSTANT[name])
    (finding,) = diagnose([CONSTANT[name].snapshot]).findings
    assert finding.fix.cause == "data"


@pytest.mark.parametrize("name", DIFFERENT)
def test_an_input_that_differs_from_sample_to_sample_is_healthy(name):
    """Or next to one that does: a mask, a token, positions."""
    assert codes(DIFFERENT[name]) == []


# -- target-scale


def regression(distance, outputs=1.0, samples=64, units=1, loss=None, **options):
    """A network with mean squared error whose output is so far from its targets."""
    error = distance * np.where(varied(samples, units) > 0, 1.0, -1.0)
    gradient = 2 * error / error.size
    squared = distance**2 if loss is None else loss
    return network(
        *(tap("x", kind="input"), tap("d", gradient=1.0)),
        tap("head", outputs, gradient=gradient, width=units),
        loss=squared,
        **options,
    )


FAR = above("targets")

TARGETS = {
    "just above": Unhealthy(
        regression(FAR), "head", {"distance": FAR, "output_rms": 1.0, "times": FAR}
    ),
    "critical": Unhealthy(
        regression(2.01 * FAR), "head", {"times": 2.01 * FAR}, critical=True
    ),
    "of small outputs": Unhealthy(
        regression(FAR, outputs=0.01), "head", {"output_rms": 0.01, "times": FAR}
    ),
    "of large outputs": Unhealthy(
        regression(3 * FAR, outputs=3.0), "head", {"output_rms": 3.0, "times": FAR}
    ),
    "of several units": Unhealthy(regression(FAR, units=5), "head", {"times": FAR}),
    "with a small penalty": Unhealthy(
        regression(FAR, loss=1.02 * FAR**2), "head", {"times": FAR}
    ),
    "of the mean absolute error": Unhealthy(
        network(
            *(tap("x", kind="input"), tap("d", gradient=1.0)),
            *(tap("head", gradient=np.full((64, 2), 1 / 128)),),
            loss=FAR,
        ),
        "head",
        {"distance": FAR},
    ),
    "of one of two outputs": Unhealthy(
        network(
            *(tap("x", kind="input"), tap("d", gradient=1.0)),
            tap("a", gradient=np.full((64, 1), 2 / 64)),
            tap("b", gradient=np.full((64, 1), 2 * FAR / 64), after="d"),
            loss=1 + FAR**2,
        ),
        "b",
        {"distance": FAR},
    ),
}

IN_SCALE = {
    "just below": regression(below("targets")),
    "of large outputs": regression(2.9 * FAR, outputs=3.0),
    "another loss": regression(FAR, loss=1.2 * FAR**2),
    "a loss that was not measured": regression(FAR, loss=NAN),
    "no gradients": network(tap("x", kind="input"), tap("d"), tap("head"), loss=1e9),
    "no loss at all": regression(0.0),
    "the mean absolute error": network(
        *(tap("x", kind="input"), tap("d", gradient=1.0)),
        tap("head", gradient=np.full((64, 2), 1 / 128)),
        loss=below("targets"),
    ),
    "in training": regression(FAR, step=500),
}


@pytest.mark.parametrize("name", TARGETS)
def test_targets_far_larger_than_the_output_are_found(name):
    """From the gradient at the output and the loss alone."""
    check("target-scale", TARGETS[name])
    (finding,) = diagnose([TARGETS[name].snapshot]).findings
    assert finding.fix.cause == "target scale"


@pytest.mark.parametrize("name", IN_SCALE)
def test_targets_of_the_size_of_the_output_or_of_other_losses_are_healthy(name):
    """Where the law of the loss does not hold, nothing is known of the targets."""
    assert codes(IN_SCALE[name]) == []


# -- nonfinite-gradients

BAD = np.array([[NAN], [1.0], [math.inf], [1.0]])
TWO_BAD = {"nonfinite": 2, "count": 4}

NONFINITE_GRADIENTS = {
    "after a layer": Unhealthy(
        ends(tap("d3", gradient=BAD), tap("sqrt", kind="other", gradient=1.0), hidden=BAD),
        "d3 sqrt",
        TWO_BAD,
        critical=True,
    ),
    "by the loss": Unhealthy(
        ends(tap("head", gradient=BAD), hidden=BAD), "head", TWO_BAD, critical=True
    ),
    "in a branch": Unhealthy(
        network(
            *(tap("x", kind="input"), tap("d1", gradient=BAD), tap("d2", gradient=BAD)),
            tap("sum", kind="merge", after="d1 d2", gradient=1.0),
            tap("head", gradient=1.0),
        ),
        "d2 sum",
        TWO_BAD,
        critical=True,
    ),
    "in training": Unhealthy(
        ends(tap("head", gradient=BAD), hidden=BAD, step=500),
        "head",
        TWO_BAD,
        critical=True,
    ),
    "in bfloat16": Unhealthy(
        ends(tap("head", gradient=BAD, dtype="bfloat16"), hidden=BAD),
        "head",
        TWO_BAD,
        critical=True,
    ),
    "at the first layer only": Unhealthy(
        network(
            tap("x", kind="input"),
            *(tap("d1", gradient=BAD), tap("d2", gradient=1.0), tap("head", gradient=1.0)),
        ),
        "d1 d2",
        TWO_BAD,
        critical=True,
    ),
}

FINITE_GRADIENTS = {
    "finite": ends(tap("head", gradient=1.0), hidden=1.0),
    "the largest numbers": ends(tap("head", gradient=3e38), hidden=3e38),
    "none": ends(tap("head"), hidden=None),
    "float16 with a loss scale": ends(
        tap("head", gradient=BAD, dtype="float16"), hidden=BAD
    ),
    "float16 in some layers": ends(
        tap("d3", gradient=BAD, dtype="float16"), tap("head", gradient=BAD), hidden=BAD
    ),
    "zeros": ends(tap("head", gradient=0.0), hidden=0.0),
}


@pytest.mark.parametrize("name", NONFINITE_GRADIENTS)
def test_gradients_that_are_not_finite_are_found_where_they_begin(name):
    """The last bad layer and the next good one: the operation is between them."""
    check("nonfinite-gradients", NONFINITE_GRADIENTS[name])


@pytest.mark.parametrize("name", FINITE_GRADIENTS)
def test_finite_gradients_and_those_of_a_loss_scale_are_healthy(name):
    """A loss scale overflows now and then, and the step is skipped."""
    assert codes(FINITE_GRADIENTS[name]) == []


def test_activations_that_are_not_finite_explain_such_gradients():
    """One cause gives one finding."""
    snapshot = ends(tap("head", NAN, gradient=NAN), hidden=NAN)
    assert codes(snapshot) == ["nonfinite-activations"]


# -- growth of measured gradients


def with_gradients(taps, decades):
    """The same taps with gradients that grow so much from the last to the first."""
    rms = np.logspace(decades, 0, len(taps))
    return [one._replace(gradient=float(g)) for one, g in zip(taps, rms, strict=True)]


def test_what_was_measured_counts_and_not_what_the_weights_predict():
    """A gradient that keeps its size is healthy, whatever the weights predict."""
    for predicted in (BIG, LITTLE):
        assert codes(between(*passing(predicted))) != []
        assert codes(between(*with_gradients(passing(predicted), 0.0))) == []


@pytest.mark.parametrize("decades", [BIG, LITTLE])
def test_where_weights_predict_the_gradient_the_limits_of_the_prediction_hold(decades):
    """The same numbers, measured."""
    (finding,) = diagnose([between(*with_gradients(passing(decades), decades))]).findings
    assert finding.code == f"{'exploding' if decades > 0 else 'vanishing'}-gradients"
    assert finding.layers == tuple(named(PASSED + 1, 2).split())
    np.testing.assert_allclose(finding.evidence["decades"], decades, rtol=1e-9)
    assert finding.fix.cause == "initializer"
    inside = 0.98 * decades
    assert codes(between(*with_gradients(passing(inside), inside))) == []


def narrowing(decades):
    """Layers of 40000, 400 and 4 units; the norm of the gradient grows so much by layer."""
    rng = np.random.default_rng(0)
    return [
        tap(
            f"d{i}",
            gradient=10.0 ** (decades * (2 - i))
            * rng.standard_normal((8, units))
            / math.sqrt(units),
        )
        for i, units in enumerate((40_000, 400, 4))
    ]


def test_a_gradient_is_compared_by_its_norm_per_sample():
    """Which keeps its size where the width changes, unlike its rms."""
    taps = narrowing(3.0)
    (finding,) = diagnose([between(*taps)]).findings
    size = {one.name: np.sqrt((one.gradient**2).sum(axis=1).mean()) for one in taps}
    np.testing.assert_allclose(finding.evidence["first_norm"], size["d0"], rtol=1e-9)
    np.testing.assert_allclose(finding.evidence["last_norm"], size["d2"], rtol=1e-9)
    assert codes(between(*narrowing(0.0))) == []


def test_a_gradient_must_grow_by_its_norm_and_by_its_rms():
    """At either end of a change of the width, only one of them has changed."""
    assert codes(between(*narrowing(1.75))) == []  # 3.5 decades by norm, 1.5 by rms
    assert codes(between(*narrowing(-0.75))) == []  # -1.5 decades by norm, -3.5 by rms
    assert codes(between(*narrowing(-1.75))) == ["vanishing-gradients"]


def test_layers_of_an_unknown_kind_get_no_initializer():
    """They are named, with what each does to the gradient, and nothing else is blamed."""
    taps = [tap(f"s{i}", 0.7, gradient=30.0 ** (4 - i), **weights(1e-3)) for i in range(5)]
    (finding,) = diagnose([between(*taps)]).findings
    assert finding.code == "exploding-gradients" and finding.severity == "warning"
    assert finding.layers == ("s1", "s2", "s3", "s4")
    np.testing.assert_allclose(finding.evidence["growth"], 30.0, rtol=1e-9)
    assert finding.fix.cause == "scale of a layer" and finding.fix.changes == ()
    assert "multiplies the gradient by 30" in finding.fix.reason


def test_one_layer_of_small_weights_does_no_harm():
    """Several do, and one of more than five decades; and so does a step that grows."""

    def steps(*decades):
        back = 10.0 ** -np.cumsum([0.0, *decades])[::-1]
        return between(*(tap(f"d{i}", gradient=float(g)) for i, g in enumerate(back)))

    assert codes(steps(0, 0, 4, 0, 0)) == []
    assert codes(steps(0, 0, 5.1, 0, 0)) == ["vanishing-gradients"]
    assert codes(steps(0, 2, 2, 0, 0)) == ["vanishing-gradients"]
    assert codes(steps(0, 0, -4, 0, 0)) == ["exploding-gradients"]


def test_pooling_changes_a_gradient_for_reasons_of_its_own():
    """A mean over many positions divides it. No layer is the cause."""
    taps = [
        *(tap("d1", gradient=1e-4), tap("d2", gradient=1e-4)),
        *(tap("pool", kind="pooling", gradient=1.0), tap("d3", gradient=1.0)),
    ]
    assert codes(between(*taps)) == []
    other = [one._replace(kind="other") if one.name == "pool" else one for one in taps]
    more = [one._replace(gradient=one.gradient**2) for one in other]
    assert codes(between(*more)) == ["vanishing-gradients"]


@pytest.mark.parametrize(("size", "cause"), [(1e30, "learning rate"), (1e3, "operation")])
def test_gradients_that_have_grown_beyond_all_bounds_overflow(size, cause):
    """Infinity after ordinary gradients comes from an operation instead."""
    large = size * np.ones((4, 1))
    snapshot = ends(
        tap("d3", gradient=BAD), tap("head", gradient=large), hidden=BAD, step=4
    )
    _, (finding,) = judge(Health(snapshots=3), snapshot)
    assert finding.code == "nonfinite-gradients"
    assert finding.fix.cause.startswith(cause)
    assert ("the training diverges" in finding.message) == (cause == "learning rate")

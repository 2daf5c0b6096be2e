"""The diagnosis: healthy and unhealthy networks, and what explains what, and when."""

import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from activation_monitor.analysis import moving, records, rules
from activation_monitor.analysis.depth_profile import depth_profile
from activation_monitor.analysis.diagnosis import diagnose, summary
from activation_monitor.analysis.findings import (
    CODES,
    SHOWN_BY,
    Finding,
    check_ignored,
    shown_by,
)
from activation_monitor.analysis.health import Health, judge
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.analysis.update_ratio import UPDATE_RATIO
from networks import Drawn, chain, network, norm, straight, tap, weights
from test_update_rules import TABLES as UPDATES

SYMMETRIC = "symmetric-initialization"
OUTLIER = "outlier-gain"
EXPLODING = "exploding-activations"
VANISHING = "vanishing-activations"
ZERO = "zero-activations"
UNSCALED = "unscaled-input"
MEAN_SHIFT = "mean-shift"
SATURATED = "saturated-activations"
DEAD = "dead-units"
COLLAPSED = "collapsed-activations"
NONFINITE_GRADIENTS = "nonfinite-gradients"
GRADIENTS_UP = "exploding-gradients"
GRADIENTS_DOWN = "vanishing-gradients"
NONFINITE = "nonfinite-activations"

NAN, INF = math.nan, math.inf


def codes(*snapshots, **options):
    """Codes of all findings of a run."""
    return tuple(finding.code for finding in diagnose(snapshots, **options).findings)


# -- networks drawn by numpy


def normalized(drawn, std):
    """Ten times Dense, BatchNormalization, ReLU, whatever the size of the kernels."""
    for i in range(10):
        drawn.weight(f"dense{i}", activation="linear", variance=64 * std**2)
        drawn.normalization(f"norm{i}")
        drawn.activation(f"relu{i}", "relu")
    return drawn


def residual(drawn, count, last, normalized=True):
    """A residual stream with branches of two layers, the last of this weight variance."""
    stream = drawn.weight("stem", activation="linear")
    for i in range(count):
        if normalized:
            drawn.normalization(f"norm{i}", stream)
        drawn.weight(f"up{i}", after=drawn.last if normalized else stream)
        drawn.weight(f"down{i}", activation="linear", variance=last)
        stream = drawn.merge(f"sum{i}", f"{stream} down{i}")
    if normalized:
        drawn.normalization("last_norm")
    return drawn


def gated(drawn):
    """Eight times a value times a sigmoid gate that is mostly open or shut."""
    stream = drawn.weight("stem")
    for i in range(8):
        drawn.weight(f"value{i}", after=stream, variance=4.0)
        drawn.weight(f"gate{i}", activation="sigmoid", variance=900.0, after=stream)
        stream = drawn.merge(f"mix{i}", f"value{i} gate{i}", np.multiply)
    return drawn


def headed(drawn, variance):
    """A healthy chain whose head is drawn like that."""
    drawn.chain(5).weight("head", 10, "linear", variance=variance)
    return drawn


def bottleneck(drawn):
    """An encoder and a decoder, four units wide in the middle."""
    for width in (32, 16, 8, 4, 8, 16, 32):
        drawn.weight(f"d{len(drawn.taps)}", width, "tanh")
    return drawn


def shared(drawn):
    """One block of two layers that the signal passes eight times."""
    for i in range(8):
        drawn.weight(f"block/up/{i}", 64)
        drawn.weight(f"block/down/{i}", 64)
    return drawn


HEALTHY = {
    "He, ReLU": lambda seed: Drawn(seed).chain(20),
    "Glorot, ReLU, 10 layers": lambda seed: Drawn(seed).chain(10, variance=1.0),
    "Glorot, tanh, 50 layers": lambda seed: Drawn(seed).chain(50, activation="tanh"),
    "tanh a little chaotic": lambda seed: Drawn(seed).chain(
        30, activation="tanh", variance=1.5
    ),
    "LeCun, SELU, 30 layers": lambda seed: Drawn(seed).chain(30, activation="selu"),
    "LeCun, linear": lambda seed: Drawn(seed).chain(20, activation="linear"),
    "sigmoid, 3 layers": lambda seed: Drawn(seed).chain(3, activation="sigmoid"),
    "BN, kernels of 0.001": lambda seed: normalized(Drawn(seed), 1e-3),
    "BN, kernels of 1": lambda seed: normalized(Drawn(seed), 1.0),
    "BN, kernels of 100": lambda seed: normalized(Drawn(seed), 100.0),
    "pre-norm": lambda seed: residual(Drawn(seed), 15, 1.0),
    "pre-norm, growing fast": lambda seed: residual(Drawn(seed), 15, 30.0),
    "residual, zeros last": lambda seed: residual(Drawn(seed), 15, 0.0, normalized=False),
    "residual, Fixup": lambda seed: residual(Drawn(seed), 15, 1 / 15, normalized=False),
    "gates": lambda seed: gated(Drawn(seed)),
    "a tiny head": lambda seed: headed(Drawn(seed), 1e-10),
    "a huge head": lambda seed: headed(Drawn(seed), 1e10),
    "one sample": lambda seed: Drawn(seed, samples=1).chain(15),
    "one sample, tanh": lambda seed: Drawn(seed, samples=1).chain(15, activation="tanh"),
    "an input of 0.05": lambda seed: Drawn(seed, scale=0.05).chain(10),
    "an input of 20": lambda seed: Drawn(seed, scale=20.0).chain(10),
    "0..255 into tanh, normalized": lambda seed: _normalized_input(seed),
    "bottleneck": lambda seed: bottleneck(Drawn(seed)),
    "a block called again and again": lambda seed: shared(Drawn(seed)),
    **{
        f"{width} wide": lambda seed, width=width: Drawn(seed, inputs=8).chain(
            5, width, activation="tanh"
        )
        for width in range(1, 9)
    },
    "8 wide, ReLU": lambda seed: Drawn(seed, inputs=8).chain(5, 8),
}


def _normalized_input(seed):
    drawn = Drawn(seed, scale=150.0)
    drawn.normalization("norm")
    return drawn.chain(5, activation="tanh")


UNHEALTHY = {
    "He, ReLU, once N(0, 1)": (
        lambda seed: (
            Drawn(seed).chain(5).chain(1, variance=64**2, name="odd").chain(5, name="e")
        ),
        (OUTLIER,),
    ),
    "Glorot, ReLU, 20 layers": (
        lambda seed: Drawn(seed).chain(20, variance=1.0),
        (VANISHING,),
    ),
    "N(0, 1), ReLU": (lambda seed: Drawn(seed).chain(5, variance=64.0), (EXPLODING,)),
    "N(0, 0.01), ReLU": (
        lambda seed: Drawn(seed).chain(5, variance=64 * 1e-4),
        (VANISHING,),
    ),
    "N(0, 0.01), linear": (
        lambda seed: Drawn(seed).chain(5, activation="linear", variance=64 * 1e-4),
        (VANISHING,),
    ),
    "tanh, quarter of the variance": (
        lambda seed: Drawn(seed).chain(12, activation="tanh", variance=0.25),
        (VANISHING,),
    ),
    "N(0, 1), tanh": (
        lambda seed: Drawn(seed).chain(15, activation="tanh", variance=64.0),
        (GRADIENTS_UP,),
    ),
    "N(0, 5), tanh": (
        lambda seed: Drawn(seed).chain(15, activation="tanh", variance=64 * 25.0),
        (SATURATED,),
    ),
    "sigmoid, 6 layers": (
        lambda seed: Drawn(seed).chain(6, activation="sigmoid"),
        (COLLAPSED,),
    ),
    "U(0, 2 / fan_in), ReLU": (
        lambda seed: Drawn(seed).chain(10, variance=1 / 192, mean=1 / 64),
        (MEAN_SHIFT,),
    ),
    "ones, ReLU": (
        lambda seed: Drawn(seed).chain(5, variance=0.0, mean=1.0),
        (SYMMETRIC,),
    ),
    "ones / fan_in, tanh": (
        lambda seed: Drawn(seed).chain(5, activation="tanh", variance=0.0, mean=1 / 64),
        (SYMMETRIC,),
    ),
    "zeros": (lambda seed: Drawn(seed).chain(5, variance=0.0), (ZERO,)),
    "0..255": (lambda seed: Drawn(seed, scale=150.0).chain(5), (UNSCALED,)),
    "digits / 1000": (lambda seed: Drawn(seed, scale=0.003).chain(5), (UNSCALED,)),
    "an input of 1e-200": (lambda seed: Drawn(seed, scale=1e-200).chain(5), (ZERO,)),
    "residual, never normalized": (
        lambda seed: residual(Drawn(seed), 15, 1.0, normalized=False),
        (EXPLODING,),
    ),
    "BN, and large kernels after": (
        lambda seed: normalized(Drawn(seed), 1.0).chain(4, variance=64.0),
        (EXPLODING,),
    ),
    "8 wide, N(0, 3)": (
        lambda seed: Drawn(seed, inputs=8).chain(5, 8, variance=72.0),
        (EXPLODING,),
    ),
    "one sample, exploding": (
        lambda seed: Drawn(seed, samples=1).chain(5, variance=64.0),
        (EXPLODING,),
    ),
    "a block of N(0, 1) called again and again": (
        lambda seed: Drawn(seed).chain(8, name="block/dense/", variance=64.0),
        (EXPLODING,),
    ),
}

NOT_ASSESSED = {"sigmoid, 3 layers"}
"""Of the healthy ones those whose activation function sets the size at every layer."""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_network_gets_no_finding(name, seed):
    """Weights drawn as people draw them, whatever architecture holds them."""
    diagnosis = diagnose([HEALTHY[name](seed).snapshot()])
    assert [str(finding) for finding in diagnosis.findings] == []
    expected = "not assessed" if name in NOT_ASSESSED else "healthy"
    assert diagnosis.verdict == expected
    assert diagnosis.healthy == (diagnosis.not_assessed == "") == (expected == "healthy")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", UNHEALTHY)
def test_an_unhealthy_network_gets_one_finding(name, seed):
    """That of the cause, none of what follows from it."""
    make, expected = UNHEALTHY[name]
    diagnosis = diagnose([make(seed).snapshot()])
    assert tuple(finding.code for finding in diagnosis.findings) == expected
    assert not diagnosis.healthy


def test_weights_with_a_mean_that_saturate_tanh_are_one_cause():
    """U(0, 0.1): drawn about zero they would saturate nothing."""
    drawn = Drawn(0).chain(10, activation="tanh", variance=1 / 3, mean=0.05)
    assert codes(drawn.snapshot()) == (MEAN_SHIFT,)
    assert codes(Drawn(0).chain(10, activation="tanh", variance=1 / 3).snapshot()) == ()


def test_drawn_growth_is_that_of_the_products_of_the_gains():
    """The evidence against the tensors themselves."""
    drawn = Drawn(4).chain(5, variance=64.0)
    (finding,) = diagnose([drawn.snapshot()]).findings
    first, last = (np.sqrt(np.mean(drawn.tensors[n] ** 2)) for n in ("d1", "d5"))
    np.testing.assert_allclose(
        [finding.evidence[n] for n in ("first_rms", "last_rms", "growth", "decades")],
        [first, last, (last / first) ** 0.25, np.log10(last / first)],
        rtol=1e-12,
    )


# -- one cause gives one finding

DRAWN = weights(1.0)


def constant(value):
    return {"kernel": np.full((4, 4), value), "fan_in": 4}


def dead(name, rms=1.0, **options):
    return tap(name, rms, activation="relu", dead=512, samples=64, **options)


ONE_CAUSE = {
    "equal weights that explode": (chain(1, 32, 1024, **constant(8.0)), SYMMETRIC),
    "equal weights that vanish": (chain(1, 0.01, 1e-4, **constant(0.01)), SYMMETRIC),
    "equal weights that end in zeros": (chain(1, 0, 0, **constant(1e-9)), SYMMETRIC),
    "equal weights and a common mean": (
        chain(1, 1, mean=0.95, within=0.1, **constant(0.25)),
        SYMMETRIC,
    ),
    "equal weights that collapse": (
        network(
            tap("x", kind="input"),
            *(tap(f"d{i}", within=10.0 ** (-2 * i), **constant(0.25)) for i in range(3)),
            tap("head"),
        ),
        SYMMETRIC,
    ),
    "a step that is carried on": (chain(1, 1, 1, 1e3, 1e3, 1e3), OUTLIER),
    "a step that ends in zeros": (chain(1, 1, 1, 1e-6, 1e-6, 0), VANISHING),
    "exploding to infinity": (chain(1, 1e10, 1e20, INF, NAN), EXPLODING),
    "exploding to zeros": (chain(1, 1e2, 1e4, 0, 0), EXPLODING),
    "exploding from a large input": (chain(1e3, 1e5, 1e7, x=1e3), EXPLODING),
    "exploding with a common mean": (
        chain(1, 1e2, 1e4, mean=0.95, within=0.1),
        EXPLODING,
    ),
    "exploding, backward as well": (chain(1, 1e2, 1e4, **weights(1e4)), EXPLODING),
    "vanishing to zeros": (chain(1, 1e-10, 1e-20, 0, 0, head=0.0), VANISHING),
    "vanishing from a small input": (chain(1e-3, 1e-5, 1e-7, x=1e-3), VANISHING),
    "vanishing, backward as well": (chain(1, 1e-2, 1e-4, **weights(1e-4)), VANISHING),
    "vanishing to dead units": (
        network(
            *(tap("x", kind="input"), tap("a"), tap("b", 1e-2), tap("c", 1e-4)),
            *(dead("d", 0.0), tap("head")),
        ),
        VANISHING,
    ),
    "zeros of dead units": (network(tap("a"), dead("b", 0.0), tap("head")), ZERO),
    "zeros, for lack of weights": (
        network(
            *(tap("x", kind="input"), tap("a", **DRAWN), tap("b", **DRAWN)),
            *(tap("c", 0.0, **weights(1e-12)), tap("head", 0.0)),
        ),
        ZERO,
    ),
    "saturated, so that gradients vanish": (
        network(
            tap("x", kind="input"),
            *(
                tap(f"d{i}", 0.99, saturated=0.9, activation="tanh", **weights(1e-2))
                for i in range(4)
            ),
            tap("head"),
        ),
        SATURATED,
    ),
    "saturated, so that gradients explode": (
        network(
            tap("x", kind="input"),
            *(
                tap(f"d{i}", 0.99, saturated=0.9, activation="tanh", **weights(1e4))
                for i in range(4)
            ),
            tap("head"),
        ),
        SATURATED,
    ),
    "collapsed, so that gradients vanish": (
        network(
            tap("x", kind="input"),
            *(tap(f"d{i}", within=10.0 ** (-i), **weights(1e-2)) for i in range(4)),
            tap("head"),
        ),
        COLLAPSED,
    ),
    "a common mean that kills units": (
        network(
            *(tap("x", kind="input"), tap("a", mean=-0.95, within=0.1), dead("b")),
            tap("head"),
        ),
        MEAN_SHIFT,
    ),
    "a common mean that all samples share": (
        network(
            *(tap("x", kind="input"), tap("a", mean=0.6, within=0.8)),
            *(tap("b", mean=0.95, within=1e-3), tap("head")),
        ),
        MEAN_SHIFT,
    ),
    "a common mean, backward as well": (
        chain(1, 1, 1, 1, **weights(1e-2, mean=0.01)),
        MEAN_SHIFT,
    ),
}

TWO_CAUSES = {
    "exploding to one end, vanishing to the other": (
        network(
            *(tap("a"), tap("up", 50.0), tap("aux")),
            *(tap("down", 1e-3, after="a"), tap("head")),
        ),
        (EXPLODING, VANISHING),
    ),
    "vanishing, and then NaN": (chain(1, 1e-5, NAN, NAN), (VANISHING, NONFINITE)),
    "zeros, and NaN where they are divided by": (chain(1, 0, NAN), (ZERO, NONFINITE)),
    "exploding, and NaN in the input": (
        network(
            *(
                tap("x", NAN, "input"),
                tap("clean", kind="other"),
                tap("y", NAN, "input", ""),
            ),
            *(
                tap("a", after="clean"),
                tap("b", 100.0),
                tap("c", 1e4),
                tap("side", NAN, after="y"),
            ),
            *(tap("mix", 1e4, "merge", "c side"), tap("head", NAN)),
        ),
        (NONFINITE, EXPLODING),
    ),
    "an unscaled input and dead units": (
        network(tap("x", 99.0, "input"), tap("a", 99.0), dead("b", 99.0), tap("head")),
        (UNSCALED, DEAD),
    ),
    "an unscaled input and weights with a mean": (
        chain(99.0, 99.0, x=99.0, **weights(1.0, mean=0.1)),
        (UNSCALED, MEAN_SHIFT),
    ),
    "equal weights in one tower, NaN in the other": (
        network(
            *(tap("x", kind="input"), tap("a", **constant(0.5))),
            *(tap("y", kind="input", after=""), tap("b", NAN, **DRAWN)),
            *(tap("cat", NAN, "merge", "a b"), tap("head", NAN)),
        ),
        (SYMMETRIC, NONFINITE),
    ),
    "saturated in one tower, dead in the other": (
        network(
            *(tap("x", kind="input"), tap("a", saturated=1.0, activation="tanh")),
            *(tap("y", kind="input", after=""), tap("b"), dead("c")),
            *(tap("cat", kind="merge", after="a c"), tap("head")),
        ),
        (SATURATED, DEAD),
    ),
}


@pytest.mark.parametrize("name", ONE_CAUSE)
def test_one_cause_gives_one_finding(name):
    """Its consequences are not reported as well."""
    snapshot, code = ONE_CAUSE[name]
    assert codes(snapshot) == (code,)


def test_nan_in_what_the_model_is_given_explains_the_zeros_that_relu_makes_of_it():
    """On a CPU ReLU makes zeros of NaN, and all that follows looks dead."""
    zeros = {"activation": "relu", "dead": 512}
    snapshot = network(
        tap("x", NAN, "input"),
        *(tap(f"d{i}", 0.0, samples=64, **zeros) for i in range(1, 4)),
        tap("head", 0.0),
    )
    (finding,) = diagnose([snapshot]).findings
    assert finding.code == NONFINITE
    assert finding.layers == ("x",)
    assert finding.fix.cause == "data"


def test_in_training_an_input_out_of_scale_explains_what_comes_of_it():
    """One cause, one finding, though it takes some steps until units die."""
    large = network(tap("x", 99.0, "input"), tap("a", 99.0), tap("b", 99.0), tap("head"))
    died = network(
        *(tap("x", 99.0, "input"), tap("a", 99.0), dead("b", 99.0), tap("head")), step=50
    )
    assert codes(large, died) == (UNSCALED,)


@pytest.mark.parametrize("name", TWO_CAUSES)
def test_two_causes_give_two_findings(name):
    """Neither of which explains the other."""
    snapshot, expected = TWO_CAUSES[name]
    assert codes(snapshot) == expected


CHAINS_OF_CAUSES = {
    "equal weights that explode to NaN": (
        chain(1, 32, 1024, INF, **constant(8.0)),
        (SYMMETRIC,),
    ),
    "all layers too large, one of them more": (
        chain(*10.0 ** np.array([0, 0.5, 1, 1.5, 2, 3.8, 4.3, 4.8, 5.3, 5.8])),
        (OUTLIER, EXPLODING),
    ),
}


@pytest.mark.parametrize("name", CHAINS_OF_CAUSES)
def test_what_follows_from_a_consequence_follows_from_the_cause(name):
    """And what remains without the odd layer is a cause of its own."""
    snapshot, expected = CHAINS_OF_CAUSES[name]
    assert codes(snapshot) == expected


# -- over a run


@pytest.mark.parametrize(
    ("snapshots", "expected"),
    [
        # The same again is no news.
        ([straight(0.0, step=s) for s in range(5)], ()),
        ([straight(3.0, step=s) for s in range(5)], ((EXPLODING, 0),)),
        ([straight(-3.0, step=s) for s in range(5)], ((VANISHING, 0),)),
        ([chain(1, 0, step=s) for s in range(5)], ((ZERO, 0),)),
        ([chain(1, NAN, step=s) for s in range(100, 105)], ((NONFINITE, 100),)),
        # Growth is judged where the initialization still shows: at the first snapshot.
        ([straight(0.0), straight(3.0, step=1)], ()),
        ([straight(0.0), straight(-6.0, step=5)], ()),
        ([straight(0.0), chain(1, 1, 0, step=5)], ()),
        ([straight(0.0), straight(3.0, step=500)], ()),
        ([straight(3.0, step=10)], ((EXPLODING, 10),)),
        ([straight(3.0, step=11)], ()),
        ([straight(3.0, steps=11)], ((EXPLODING, 0),)),
        ([straight(3.0, steps=12)], ()),
        # NaN and dead units may come at any time.
        ([straight(0.0), chain(1, NAN, step=5000)], ((NONFINITE, 5000),)),
        ([straight(-3.0), chain(1, NAN, step=1)], ((VANISHING, 0), (NONFINITE, 1))),
        ([chain(1, 0, 0), chain(1, NAN, step=1)], ((ZERO, 0), (NONFINITE, 1))),
        ([straight(0.0), network(dead("a"), tap("head"), step=9)], ((DEAD, 9),)),
        # Where an explosion ends, or what the first update makes of it.
        ([straight(3.0), chain(1, NAN, NAN, step=1)], ((EXPLODING, 0),)),
        ([straight(3.0), chain(1, INF, step=20)], ((EXPLODING, 0),)),
        ([straight(3.0), chain(1, 0, 0, step=1)], ((EXPLODING, 0),)),
        ([straight(3.0), network(dead("a"), tap("head"), step=9)], ((EXPLODING, 0),)),
        # Another layer of the same kind is no news either.
        ([chain(1, 1, NAN), chain(1, NAN, NAN, step=1)], ((NONFINITE, 0),)),
    ],
)
@pytest.mark.parametrize("made_as", [list, iter, Recording])
def test_over_a_run_every_cause_is_found_once_where_it_is_first_seen(
    made_as, snapshots, expected
):
    """From a list, an iterator or a recording: codes and steps, in order."""
    diagnosis = diagnose(made_as(snapshots))
    assert tuple((f.code, f.step) for f in diagnosis.findings) == expected
    assert diagnosis.steps == tuple(snapshot.step for snapshot in snapshots)


ALWAYS = (
    DEAD,
    NONFINITE,
    NONFINITE_GRADIENTS,
    "nonfinite-loss",
    "moving-statistics",
    *UPDATES,
)
OF_ONE_SNAPSHOT = [
    code
    for code in CODES
    if code not in {row.code for row in rules.OVER_TIME} - rules.ENDING_IN_TRAINING
    and code != rules.EVALUATION
]
"""Those that take several snapshots are tested in `test_over_time`."""


def one_of_each():
    """For each code a network with that finding only."""
    found = {code: snapshot for snapshot, code in ONE_CAUSE.values()}
    found[OUTLIER] = chain(1, 1, 1, 1e3, 1e3)
    found[VANISHING] = straight(-3.0)
    found[DEAD] = network(tap("a"), dead("b"), tap("head"))
    found[NONFINITE] = chain(1, 1, NAN)
    found[UNSCALED] = chain(99.0, 99.0, x=99.0)
    found[GRADIENTS_UP] = chain(*[1] * 6, **weights(10**0.8))
    found[GRADIENTS_DOWN] = chain(*[1] * 11, **weights(10**-0.8))
    found["constant-input"] = chain(1, 1, x=np.ones((64, 4)), within=0.0, mean=1.0)
    found[NONFINITE_GRADIENTS] = network(
        *(tap("x", kind="input"), tap("d1", gradient=NAN), tap("head", gradient=1.0))
    )
    found["no-gradient"] = network(
        *(tap("x", kind="input"), tap("d1", gradient=0.0)),
        tap("head", np.zeros((64, 1)), activation="relu", gradient=1.0, width=1),
    )
    found["target-scale"] = network(
        *(tap("x", kind="input"), tap("d1", gradient=1.0), tap("head", gradient=1e4)),
        loss=1e8,
    )
    found["moving-statistics"] = fixed()
    found["nonfinite-loss"] = network(tap("x", kind="input"), tap("head"), loss=math.inf)
    for code, (wrong, _) in UPDATES.items():
        found[code], *_ = next(iter(wrong.values()))
    return found


def fixed():
    """A network whose frozen normalization has statistics of other data."""
    made = network(tap("a"), norm("n", rms=5.0, samples=32), tap("head"))
    known = np.full((3, len(moving.FIELDS)), np.nan)
    known[1] = [0.99, 3, np.nan, np.nan, 0.7]
    return dataclasses.replace(made, moving=known)


def moved(snapshot, step):
    """The same at another step."""
    return type(snapshot)(**{**vars(snapshot), "step": step})


@pytest.mark.parametrize("code", OF_ONE_SNAPSHOT)
def test_a_finding_of_the_first_snapshot_is_of_the_initialization(code):
    """Up to step 10; later only what is judged at any step, as of training."""
    snapshot = one_of_each()[code]
    for step, before, initial in [
        (0, [], True),
        (10, [], True),
        (11, [], False),
        (1, [straight(0.0)], False),
        (500, [straight(0.0), straight(0.0, step=9)], False),
    ]:
        found = diagnose([*before, moved(snapshot, step)]).findings
        expected = [(code, step, initial)] if initial or code in ALWAYS else []
        assert [(f.code, f.step, f.initial) for f in found] == expected
        when = "at initialization" if initial else f"in training, step {step}"
        assert all(f", {when}): " in str(f) for f in found)


def test_findings_made_one_snapshot_at_a_time_are_those_of_the_whole_run():
    """What the callback does while training is what `diagnose` does after it."""
    snapshots = [straight(-3.0), straight(-3.0, step=1), chain(1, NAN, step=2)]
    health, reported = Health(), []
    for snapshot in snapshots:
        health, news = judge(health, snapshot)
        reported.append([finding.code for finding in news])
    assert reported == [[VANISHING], [], [NONFINITE]]
    assert health.findings == diagnose(snapshots).findings
    assert summary(snapshots, health.findings).findings == health.findings


def test_an_explosion_does_not_explain_nan_in_the_input():
    """A batch with NaN is a cause of its own, whatever the network is like."""
    run = [straight(3.0), chain(NAN, NAN, x=NAN, step=700)]
    assert codes(*run) == (EXPLODING, NONFINITE)


# -- ignore


@pytest.mark.parametrize("code", OF_ONE_SNAPSHOT)
def test_a_ignored_code_is_not_reported_nor_what_it_explains(code):
    """The cause is ignored: its consequences are not reported in its place."""
    for snapshot in [
        one_of_each()[code],
        *(snapshot for snapshot, cause in ONE_CAUSE.values() if cause == code),
    ]:
        assert codes(snapshot) == (code,)
        assert codes(snapshot, ignore=frozenset([code])) == ()
        assert codes(snapshot, ignore=frozenset(CODES) - {code}) == (code,)
        assert diagnose([snapshot], ignore=frozenset([code])).verdict != "findings"


def test_one_of_two_findings_can_be_ignored():
    """The other is reported as before."""
    snapshot, (first, second) = TWO_CAUSES["vanishing, and then NaN"]
    assert codes(snapshot, ignore=frozenset([first])) == (second,)
    assert codes(snapshot, ignore=frozenset([second])) == (first,)
    assert codes(snapshot, ignore=frozenset([first, second])) == ()


def test_what_a_ignored_finding_explains_stays_explained_later():
    """Exploding, and NaN a step later."""
    run = [straight(3.0), chain(1, NAN, NAN, step=1)]
    assert codes(*run, ignore=frozenset([EXPLODING])) == ()


@pytest.mark.parametrize(
    ("ignore", "expected"),
    [
        ((), set()),
        (EXPLODING, {EXPLODING}),
        ([EXPLODING, ZERO], {EXPLODING, ZERO}),
        ({DEAD}, {DEAD}),
        (frozenset(CODES), set(CODES)),
        (iter([DEAD, DEAD]), {DEAD}),
    ],
)
def test_codes_to_ignore_are_given_as_one_or_many(ignore, expected):
    """A string is one code, not its letters."""
    found = check_ignored(ignore, "audit")
    assert found == expected and isinstance(found, frozenset)


@pytest.mark.parametrize(
    ("ignore", "named"),
    [
        ("exploding", "exploding"),
        ([EXPLODING, "nan", "all"], "all, nan"),
        ([EXPLODING.upper()], EXPLODING.upper()),
        ([3], "3"),
    ],
)
def test_a_code_that_does_not_exist_is_refused(ignore, named):
    """With those that do."""
    message = (
        f"audit: `ignore` must hold codes of findings. Received: {named}. There are: "
        f"{', '.join(CODES)}."
    )
    with pytest.raises(ValueError) as raised:
        check_ignored(ignore, "audit")
    assert str(raised.value) == message


def test_the_public_diagnose_ignores_and_refuses():
    """`activation_monitor.diagnose`, whose result prints as a table."""
    assert diagnose([straight(3.0)], ignore=EXPLODING).healthy
    with pytest.raises(ValueError, match="diagnose: `ignore` must hold codes"):
        diagnose([straight(3.0)], ignore=["growth"])


# -- the diagnosis


def test_a_diagnosis_holds_the_first_snapshot_and_its_profile():
    """Figures of the initialization, whatever was seen later."""
    snapshots = [straight(0.5, 5), straight(0.1, 5, step=9)]
    diagnosis = diagnose(snapshots)
    assert diagnosis.first is snapshots[0]
    assert diagnosis.profile.step == 0
    np.testing.assert_allclose(diagnosis.profile.main.decades, 0.5, rtol=1e-12)
    assert diagnosis.steps == (0, 9)


def test_without_measurements_nobody_is_healthy():
    """A diagnosis of nothing has no findings, no profile, and no clean bill of health."""
    diagnosis = diagnose([])
    assert (diagnosis.findings, diagnosis.steps, diagnosis.draws) == ((), (), ())
    assert diagnosis.first is None and diagnosis.profile is None
    assert not diagnosis.healthy


def test_a_diagnosis_is_shown_by_the_registered_views():
    """`print` and a notebook show it, whichever function made it."""
    console = pytest.importorskip("activation_monitor.views.console")
    diagnosis = diagnose([straight(0.0)])
    assert str(diagnosis) == console.diagnosis_text(diagnosis)
    assert diagnosis._repr_html_() == console.diagnosis_html(diagnosis)


ALONE = """
from activation_monitor.analysis.diagnosis import diagnose
from activation_monitor.analysis.rescaling import Rescaling
for result in (diagnose([]), Rescaling(())):
    assert str(result) == repr(result), str(result)
    assert result._repr_html_() is None
try:
    diagnose([]).figure()
except TypeError as error:
    print(error)
"""


def test_analysis_alone_shows_one_line():
    """No view is registered where only the analysis is imported."""
    run = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, check=True
    )
    assert run.stdout == (
        "Diagnosis.figure: expected a view that draws it. Received: none, because only "
        "`activation_monitor.analysis` is imported. Import "
        "`activation_monitor.views.console` first.\n"
    )


# -- the words

# Width 512: mean -0.00097720 and sd 0.0312805 a step (facts/theory.md section 1), so that
# over 1, 2, 3 and 4 layers exp(mean -+ 3 sd / sqrt(layers)) is, to three digits:
INTERVALS = {
    1: "0.91 and 1.1",
    2: "0.935 and 1.07",
    3: "0.946 and 1.05",
    4: "0.953 and 1.05",
}
RANDOM = (
    "Weights are random, so growth varies even with a correct initializer, here between"
)


@pytest.mark.parametrize(
    ("snapshot", "message"),
    [
        (
            chain(2, 20, 200, 2000, 20000, dtype="float16"),
            "The signal explodes with depth: from d1 to d5 the rms of the activations "
            f"grows from 2 to 2e+04, 10 times per weight layer over 4 weight layers. "
            f"{RANDOM} {INTERVALS[4]} times per layer. "
            "At this rate float16 overflows at depth 6.",
        ),
        (
            chain(1, 30, dtype="float64"),
            "The signal explodes with depth: from d1 to d2 the rms of the activations "
            f"grows from 1 to 30, 30 times per weight layer over 1 weight layer. "
            f"{RANDOM} {INTERVALS[1]} times per layer.",
        ),
        (
            chain(1, 1e10, 1e20, INF, NAN),
            "The signal explodes with depth: from d1 to d3 the rms of the activations "
            f"grows from 1 to 1e+20, 1e+10 times per weight layer over 2 weight layers. "
            f"{RANDOM} {INTERVALS[2]} times per layer. At d4, values are no longer finite.",
        ),
        (
            chain(0.5, 0.05, 0.005, 5e-4),
            "The signal vanishes with depth: from d1 to d4 the rms of the activations "
            f"falls from 0.5 to 0.0005, 0.1 times per weight layer over 3 weight layers. "
            f"{RANDOM} {INTERVALS[3]} times per layer. "
            "At this rate float32 underflows at depth 39.",
        ),
        (
            chain(1, 1e-10, 1e-20, 0, 0),
            "The signal vanishes with depth: from d1 to d3 the rms of the activations "
            f"falls from 1 to 1e-20, 1e-10 times per weight layer over 2 weight layers. "
            f"{RANDOM} {INTERVALS[2]} times per layer. At d4, only zeros are left.",
        ),
        (
            chain(1, 0, 0),
            "All outputs of d2 are zero for every input. No layer after it receives the "
            "data, and no layer before it learns.",
        ),
        (
            chain(1, 1, NAN, NAN, dtype="float16"),
            "2 of 4 elements of the output (d3, float16) are NaN or infinite. Its "
            "inputs are finite; everything that is computed from it inherits them.",
        ),
        (
            chain(NAN, x=NAN),
            "2 of 4 elements of the input of the model (x, float32) are NaN or infinite. "
            "The batch itself contains them; everything that is computed from it inherits "
            "them.",
        ),
        (
            network(
                *(tap("a"), tap("b"), tap("c:input", INF, "input", "a b")),
                *(tap("c", NAN), tap("head", NAN)),
            ),
            "2 of 4 elements of a sum in the model (c:input, float32) are NaN or infinite. "
            "Its inputs are finite; everything that is computed from it inherits them.",
        ),
    ],
)
def test_a_message_says_what_was_seen_and_what_it_comes_from(snapshot, message):
    """Literally, for what every network may have."""
    (finding,) = diagnose([snapshot]).findings
    assert finding.message == message


def test_the_intervals_of_the_messages_are_those_of_the_golden_step_law():
    """-0.00097720 and 0.0312805 are from facts/theory.md section 1, for 512 units."""
    for layers, words in INTERVALS.items():
        reach = 3 * 0.0312805 / math.sqrt(layers)
        low, high = (math.exp(-0.00097720 + side * reach) for side in (-1, 1))
        assert words == f"{low:.3g} and {high:.3g}"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (SYMMETRIC, "(Goodfellow et al. 2016"),
        (MEAN_SHIFT, "fan_in times the mean"),
        (SATURATED, "(Glorot & Bengio 2010)"),
        (DEAD, "512 of 512 units of b are zero for all 64 samples"),
        (COLLAPSED, "(Schoenholz et al. 2017"),
        (
            GRADIENTS_UP,
            "from d6 back to d1, gradients grow to 2.51 times their size per layer, 1e+02 "
            "times in all",
        ),
        (
            GRADIENTS_DOWN,
            "from d11 back to d1, gradients shrink to 0.398 of their size per layer, to "
            "0.0001 in all",
        ),
        (
            UNSCALED,
            "the rms is 99 at the input of d1 and still 99 at the input of the last layer",
        ),
        (
            OUTLIER,
            "d4 stands out: it multiplies the rms of its input by 1e+03, but its peers "
            "multiply it by 1.",
        ),
    ],
)
def test_the_messages_of_the_other_rules_say_numbers_and_mechanism(code, words):
    """The numbers it turned on, or the reference."""
    (finding,) = diagnose([one_of_each()[code]]).findings
    assert words in finding.message


def test_a_finding_prints_its_code_severity_and_time_before_its_message():
    """One line for people and for logs, and the fix below; findings can be in a set."""
    snapshot = chain(1, 1, NAN, step=70)
    (finding,) = diagnose([snapshot]).findings
    more = "More: activation-monitor explain nonfinite-activations"
    assert str(finding).removesuffix(f"\n{finding.fix}\n{more}") == (
        "nonfinite-activations (critical, in training, step 70): 2 of 4 elements of the "
        "output (d3, float32) are NaN or infinite. Its inputs are finite; "
        "everything that is computed from it inherits them."
    )
    assert len({finding, *diagnose([snapshot]).findings}) == 1
    given = Finding("code", "warning", 0, ("a",), {}, "Words.", fix="Do this.")
    assert str(given) == (
        "code (warning, at initialization): Words.\nDo this.\n"
        "More: activation-monitor explain code"
    )


def test_a_finding_as_plain_data():
    """JSON takes it; it holds all that the report, the JSON output and the tab show."""
    (finding,) = diagnose([chain(1, 30, 900, x=1 / 30, **weights(900.0))]).findings
    data = json.loads(json.dumps(finding.to_dict(), allow_nan=False))
    (change,) = finding.fix.changes
    assert data == {
        "code": EXPLODING,
        "meaning": CODES[EXPLODING],
        "severity": finding.severity,
        "step": 0,
        "last_step": 0,
        "recovered": None,
        "initial": True,
        "when": "at initialization",
        "title": finding.title,
        "layers": ["d1", "d2", "d3"],
        "evidence": finding.evidence,
        "message": finding.message,
        "cause": "initializer",
        "reason": finding.fix.reason,
        "changes": [{"place": change.place, "line": change.line}],
        "docs": EXPLODING,
    }


def test_plain_data_has_none_for_what_is_not_finite_or_not_known():
    """JSON has no number for infinity."""
    finding = Finding(DEAD, "warning", 3, ("a",), {"growth": INF}, "Words.", last_step=9)
    data = finding.to_dict()
    assert data["evidence"] == {"growth": None}
    assert (data["cause"], data["reason"], data["changes"]) == (None, None, [])
    assert (data["step"], data["last_step"]) == (3, 9)


def test_a_finding_at_initialization_brings_the_fix():
    """That of its code and layers."""
    (finding,) = diagnose([chain(1, 30, 900, x=1 / 30, **weights(900.0))]).findings
    assert finding.code == EXPLODING
    assert finding.fix.cause == "initializer"
    assert finding.fix.changes[0].layers == ("d1", "d2", "d3")
    assert f"\n{finding.fix}\n" in str(finding)


def _rows_of_findings(rule, seed):
    """What a rule finds in a snapshot with a few odd layers, and what its screen says."""
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(0.5, 2, 6)
    options = {"activation": "relu", "samples": 64, "gradient": 1.0}
    snapshot = chain(*sizes, step=500, **options)
    for name, odd, of in (
        *(("dead_units", 1e4, "output"), ("nonfinite", 3.0, "output")),
        ("nonfinite", 2.0, "output_gradient"),
    ):
        chosen = rng.random(len(snapshot.layers)) < 0.15
        snapshot.field(name, of=of)[chosen] = odd
    known = np.tile([0.99, 3, 0.0, 0.0, np.nan], (len(snapshot.layers), 1))
    known[rng.random(len(known)) < 0.15, 2] = 9.0
    snapshot = dataclasses.replace(snapshot, moving=known)
    if rng.random() < 0.5:
        wrong, _ = [*UPDATES.values()][rng.integers(len(UPDATES))]
        snapshot, *_ = [*wrong.values()][rng.integers(len(wrong))]
    return list(rule.rule(snapshot, depth_profile(snapshot))), rule.may_find(snapshot)


@pytest.mark.parametrize("rule", rules.ALWAYS, ids=lambda row: row.rule.__name__)
def test_a_screen_never_passes_over_what_its_rule_would_find(rule):
    """The screens of later snapshots save the reading along depth, and hide nothing."""
    seen = [_rows_of_findings(rule, seed) for seed in range(130)]
    assert any(found for found, _ in seen)
    assert not all(may for _, may in seen)
    assert all(may for found, may in seen if found)


def test_many_layers_with_a_wrong_initializer_get_one_line_for_all():
    """An application of Keras takes no initializer; a few layers are written by hand."""
    (finding,) = diagnose([Drawn(0).chain(20, variance=0.5).snapshot()]).findings
    assert finding.fix.changes[-1].code == "activation_monitor.rescale(model, x)"
    (finding,) = diagnose([Drawn(0).chain(6, variance=0.02).snapshot()]).findings
    assert finding.fix.cause == "initializer"
    assert "rescale" not in str(finding.fix)


# -- what shows a finding


def test_every_code_has_a_quantity_and_a_statistic_that_show_it():
    """In the order of the codes. Only updates have a ratio to the weights."""
    assert [*SHOWN_BY] == [*CODES]
    for code, (quantity, statistic) in SHOWN_BY.items():
        assert quantity in records.QUANTITIES, code
        if statistic == UPDATE_RATIO:
            assert quantity == records.WEIGHT_UPDATE, code
        else:
            assert statistic in records.STATISTICS, code


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (GRADIENTS_UP, ("output_gradient", "rms")),
        (DEAD, ("output", "dead_units")),
        (SATURATED, ("output", "saturated_fraction")),
        ("large-updates", ("weight_update", "update_ratio")),
        ("growing-weights", ("weight", "rms")),
    ],
)
def test_a_finding_is_shown_by_what_its_rule_measures(code, expected):
    """Where that was not measured, by the rms of the outputs."""
    assert shown_by(code, records.QUANTITIES) == expected
    without = shown_by(code, [records.OUTPUT])
    assert without == (expected if expected[0] == "output" else ("output", "rms"))


def test_the_worst_finding_is_the_most_severe_and_of_those_the_first_seen():
    """None without findings."""
    snapshots = [network(tap("x"), tap("a"))]
    found = [
        Finding("mean-shift", "warning", 0, ("a",), {}, "."),
        Finding("loss-jump", "critical", 5, ("a",), {}, "."),
        Finding("scale-jump", "critical", 9, ("a",), {}, "."),
    ]
    assert summary(snapshots, found).worst_finding is found[1]
    assert summary(snapshots, found[:1]).worst_finding is found[0]
    assert summary(snapshots, []).worst_finding is None

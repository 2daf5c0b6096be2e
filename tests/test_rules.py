"""Each rule on hand-made networks just above and just below its threshold."""

import math
import random
from typing import NamedTuple

import numpy as np
import pytest
from scipy import integrate, special, stats

from activation_monitor.analysis.diagnosis import diagnose
from activation_monitor.analysis.findings import CODES
from activation_monitor.analysis.snapshot import KINDS, Snapshot
from activation_monitor.analysis.thresholds import THRESHOLDS
from networks import blocks, chain, network, norm, straight, tap, weights

NAN, INF = math.nan, math.inf
LN10 = math.log(10.0)


def above(name):
    """A number a little above a threshold."""
    return 1.01 * THRESHOLDS[name].value


def below(name):
    """A number a little below a threshold."""
    return 0.99 * THRESHOLDS[name].value


class Unhealthy(NamedTuple):
    """A network with one finding: its layers, its evidence, whether it is critical."""

    snapshot: Snapshot
    layers: str
    evidence: dict = {}
    critical: bool = False


def check(code, unhealthy):
    """The network has one finding: this."""
    (finding,) = diagnose([unhealthy.snapshot]).findings
    assert finding.code == code
    assert finding.layers == tuple(unhealthy.layers.split())
    assert finding.severity == ("critical" if unhealthy.critical else "warning")
    assert finding.step == unhealthy.snapshot.step
    assert unhealthy.evidence.keys() <= finding.evidence.keys()
    for name, value in unhealthy.evidence.items():
        np.testing.assert_allclose(finding.evidence[name], value, rtol=1e-9, err_msg=name)
        assert isinstance(finding.evidence[name], float)
    # The words name the layer that stands first.
    assert unhealthy.layers.split()[0] in finding.message or "batch norm" in finding.message


def codes(snapshot):
    return [finding.code for finding in diagnose([snapshot]).findings]


def row(*sizes, **each):
    """Weight layers d1, d2, ..., with a list of values for each if there is one."""
    taps = []
    for i, rms in enumerate(sizes):
        options = {k: v[i] if isinstance(v, list) else v for k, v in each.items()}
        taps.append(tap(f"d{i + 1}", rms, **options))
    return taps


def between(*taps, x=1.0, head=1.0, step=0):
    """These taps, between an input and a head."""
    return network(tap("x", x, "input"), *taps, tap("head", head), step=step)


def named(last, first=1):
    return " ".join(f"d{i}" for i in range(first, last + 1))


# -- symmetric-initialization


def constant(value, units=4):
    return {"kernel": np.full((units, units), value), "fan_in": units}


DRAWN = weights(1.0)
BRANCH = "defect: no units with equal inputs and equal gradients"

SYMMETRIC = {
    "one layer of ones": Unhealthy(
        between(tap("d1", **DRAWN), tap("d2", **constant(1.0)), tap("d3", **DRAWN)),
        "d2",
        {"weight": 1.0, "layers": 1},
        critical=True,
    ),
    "all layers, each with its own number": Unhealthy(
        between(tap("d1", **constant(0.5)), tap("d2", **constant(-0.25))),
        "d1 d2",
        {"weight": 0.5, "layers": 2},
        critical=True,
    ),
    "the smallest number there is": Unhealthy(
        between(tap("d1", **constant(5e-324)), tap("d2", **DRAWN)),
        "d1",
        {"weight": 5e-324, "layers": 1},
        critical=True,
    ),
    "the inner layer of a branch": Unhealthy(
        between(
            *(tap("stem", **DRAWN), tap("up", **constant(0.1)), tap("down", **DRAWN)),
            tap("sum", kind="merge", after="stem down"),
        ),
        "up",
        {"weight": 0.1, "layers": 1},
        critical=True,
    ),
    "one of two towers": Unhealthy(
        between(
            *(tap("a", **DRAWN), tap("y", kind="input", after="")),
            *(tap("b", **constant(3.0)), tap("cat", kind="merge", after="a b")),
        ),
        "b",
        {"weight": 3.0},
        critical=True,
    ),
}

NOT_SYMMETRIC = {
    "drawn": between(*row(1, 1, **DRAWN)),
    "zeros at the end of a branch": between(
        *(tap("stem", **DRAWN), tap("up", **DRAWN), tap("down", 0.0, **constant(0.0))),
        tap("sum", kind="merge", after="stem down"),
    ),
    "one weight": between(tap("d1", kernel=np.array([[0.5]]), fan_in=1), tap("d2")),
    "the head": network(tap("d1", **DRAWN), tap("head", **constant(1.0))),
    "an embedding of ones": between(
        tap("d1", kind="embedding", **constant(1.0)), tap("d2")
    ),
    "a kernel of nothing": between(tap("d1", kernel=np.zeros((0, 4))), tap("d2", **DRAWN)),
    "not measured": chain(1, 1),
    "in training": network(
        *(tap("d1", **constant(1.0)), tap("d2", **DRAWN), tap("head")), step=11
    ),
}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_equal_weights_are_found(name):
    """Any number but 0, wherever the layer stands."""
    check("symmetric-initialization", SYMMETRIC[name])


@pytest.mark.parametrize("name", NOT_SYMMETRIC)
def test_weights_that_differ_or_do_no_harm_are_healthy(name):
    """And a head, whose units differ by their targets."""
    assert codes(NOT_SYMMETRIC[name]) == []


@pytest.mark.parametrize(
    "snapshot",
    [
        # The softmax is a layer of its own: still the head.
        network(
            *(tap("d1", **DRAWN), tap("head", **constant(1.0))),
            tap("softmax", kind="activation", activation="softmax"),
        ),
        # A blur: every unit has an input of its own.
        between(
            tap("d1", **DRAWN),
            tap(
                *("blur", 0.9),
                class_name="DepthwiseConv2D",
                kernel=np.full((3, 3, 8, 1), 1 / 9),
                fan_in=9,
            ),
            tap("d2", **DRAWN),
        ),
        # A sum: there is one unit.
        between(tap("d1", **DRAWN), tap("d2", width=1, **constant(1.0)), tap("d3")),
    ],
    ids=["head with a softmax layer", "depthwise", "one unit"],
)
def test_equal_weights_of_units_that_are_no_copies_are_healthy(snapshot):
    """Copies need equal weights, equal inputs and equal gradients."""
    assert codes(snapshot) == []


# -- outlier-gain


def odd(decades, layers=6, at=4, **options):
    """A flat chain but for one layer's step, which the layers after carry on."""
    sizes = [10.0 ** (decades * (i >= at)) for i in range(1, layers + 1)]
    return chain(*sizes, **options)


def branches(sizes, stream, count=5):
    """A residual stream with two layers in each branch; those not named have rms 1."""
    taps, last = [tap("stem", stream(0))], "stem"
    for i in range(1, count + 1):
        up, down = f"up{i}", f"down{i}"
        taps += [
            tap(up, stream(i - 1) * sizes.get(up, 1.0), after=last),
            tap(down, stream(i - 1) * sizes.get(down, 1.0)),
            tap(f"sum{i}", stream(i), "merge", f"{last} {down}"),
        ]
        last = f"sum{i}"
    return between(*taps)


def step(decades, peers=1.0):
    return {"gain": 10**decades, "peers": peers, "decades": decades - math.log10(peers)}


UP, DOWN = THRESHOLDS["exploding"].value, THRESHOLDS["outlier-down"].value

OUTLIER = {
    "a step up": Unhealthy(odd(above("exploding")), "d4", step(1.01 * UP)),
    "a step up among the fewest peers": Unhealthy(
        odd(above("exploding"), layers=4), "d4", step(1.01 * UP)
    ),
    "the first layer's step": Unhealthy(
        odd(above("exploding"), at=1), "d1", step(1.01 * UP)
    ),
    # Growth is read from the first layer's output on, so nothing else would show it.
    "the first of only two layers": Unhealthy(
        odd(above("exploding"), layers=2, at=1), "d1", step(1.01 * UP)
    ),
    "a layer in a residual branch": Unhealthy(
        branches({"up3": 100.0, "down3": 100.0}, stream=lambda i: 100.0 if i >= 3 else 1.0),
        "up3",
        {"gain": 100.0, "peers": 1.0, "decades": 2.0},
    ),
    "a step just below twice the threshold": Unhealthy(
        odd(1.99 * UP), "d4", step(1.99 * UP)
    ),
    "a step above twice the threshold": Unhealthy(
        odd(2.01 * UP), "d4", step(2.01 * UP), critical=True
    ),
    "a step down": Unhealthy(odd(-above("outlier-down")), "d4", step(-1.01 * DOWN)),
    "He-ReLU peers": Unhealthy(odd(1.5, activation="relu"), "d4", step(1.5)),
    # Glorot before ReLU leaves 0.7 a layer: that is the peers' gain.
    "Glorot-ReLU peers": Unhealthy(
        between(
            *row(
                *(0.7**i * (60.0 / 0.7 if i >= 3 else 1.0) for i in range(1, 7)),
                activation="relu",
            )
        ),
        "d3",
        {"gain": 60.0, "peers": 0.7, "decades": math.log10(60.0 / 0.7)},
    ),
}

NO_OUTLIER = {
    "a step just below": odd(below("exploding")),
    "a step down just above": odd(-below("outlier-down")),
    "peers that differ a little": between(*row(1, 2, 1, 2, 1, 2, 1)),
    "two steps, up and back": chain(1, 1, 100, 1, 1, 1),
    "a small signal that is set right": chain(*(0.01, 0.01, 0.01, 0.3, 0.3, 0.3), x=0.01),
    "a large signal that is set right": chain(1e6, 1e6, 1e6, 1, 1, 1, x=1e6),
    "before a normalization": between(*row(1, 1, 1, 1e3, 1e3), norm("n"), tap("d6")),
    "the first of only two layers, just below": odd(below("exploding"), layers=2, at=1),
    "a single hidden layer": chain(10 ** above("exploding")),
    "a residual branch that begins at zero": branches({"down3": 0.0}, lambda i: 1.0),
    "a residual branch that begins small": branches({"down3": 1e-6}, lambda i: 1.0),
    "a pooling in between": between(
        *row(1, 1, 1), tap("pool", 1e-4, "pooling"), *(tap(f"e{i}", 1e-4) for i in range(3))
    ),
    "tanh of its own size": between(
        *row(*[0.628, 0.486, 0.408, 0.361], activation="tanh", **DRAWN)
    ),
}


@pytest.mark.parametrize("name", OUTLIER)
def test_one_layer_whose_gain_stands_out_is_found(name):
    """It alone, for what it does to its input."""
    check("outlier-gain", OUTLIER[name])


@pytest.mark.parametrize("name", NO_OUTLIER)
def test_layers_that_do_as_their_peers_do_are_healthy(name):
    """Nor does it matter where something else sets the size."""
    assert codes(NO_OUTLIER[name]) == []


@pytest.mark.parametrize(
    "sizes",
    [
        # Three layers: nobody can tell which is odd.
        (1, 1, 10 ** above("exploding")),
        # The step of one is less than twice that of another.
        (1, 1, 10, 10, 10, 10, 300),
    ],
)
def test_without_peers_to_stand_out_from_it_is_growth(sizes):
    """Found all the same, as that of the chain."""
    assert codes(chain(*sizes)) == ["exploding-activations"]


def test_all_layers_that_multiply_alike_are_each_others_peers():
    """What grows as a whole has no outlier."""
    assert codes(straight(10.0)) == ["exploding-activations"]


# -- exploding-activations, vanishing-activations


def growing(decades, layers=10, first=1.0, width=512, mean=-0.00097720, sd=0.0312805):
    """Evidence of even growth. The law of one linear step: facts/theory.md section 1."""
    reach = 3 * sd * math.sqrt(layers)
    low, high = (math.exp((layers * mean + side * reach) / layers) for side in (-1, 1))
    rate = decades / layers
    start = math.log10(first)
    verb, ends = ("over", (65504.0, 3.38953e38, 3.40282e38))
    if decades < 0:
        verb, ends = ("under", (2.0**-14, 2.0**-126, 2.0**-126))
    depths = [1 + (math.log10(end) - start) / rate for end in ends]
    dtypes = ("float16", "bfloat16", "float32")
    return {
        "growth": 10**rate,
        "decades": decades,
        "layers": layers,
        "first_rms": first,
        "last_rms": first * 10**decades,
    }, {
        "expected_low": low,
        "expected_high": high,
        **{f"{verb}flow_{d}": at for d, at in zip(dtypes, depths, strict=True)},
    }


@pytest.mark.parametrize("layers", [1, 3, 40])
@pytest.mark.parametrize(
    ("decades", "critical"),
    [
        (1.01, False),
        (1.99, False),
        (2.01, True),
        (-1.01, False),
        (-1.99, False),
        (-2.01, True),
    ],
)
def test_growth_above_the_threshold_is_found(decades, critical, layers):
    """With the numbers of the straight line it is; critical from twice the threshold on."""
    direction = "exploding" if decades > 0 else "vanishing"
    decades *= THRESHOLDS[direction].value
    snapshot = straight(decades, layers)
    exact, rounded = growing(decades, layers)
    check(
        f"{direction}-activations", Unhealthy(snapshot, named(layers + 1), exact, critical)
    )
    (finding,) = diagnose([snapshot]).findings
    assert finding.evidence.keys() == exact.keys() | rounded.keys()
    for name, value in rounded.items():  # the golden numbers have so many digits
        np.testing.assert_allclose(finding.evidence[name], value, rtol=2e-5, err_msg=name)


@pytest.mark.parametrize("layers", [1, 3, 40])
@pytest.mark.parametrize("direction", ["exploding", "vanishing"])
def test_growth_below_the_threshold_is_healthy(direction, layers):
    """However many layers it takes."""
    sign = 1 if direction == "exploding" else -1
    assert codes(straight(sign * below(direction), layers)) == []


# Chance over 49 steps of a few ReLU units, from the law of facts/theory.md section 1: mean
# and variance of one step, by the number K of units that are positive.
def relu_chance(width, steps):
    """Decades between which 3 sd of chance leave the rms."""
    k = np.arange(1, width + 1)
    p = stats.binom.pmf(k, width, 0.5)
    p /= p.sum()
    log_size = special.digamma(k / 2) + math.log(2)
    mean = (p @ log_size - math.log(width / 2)) / 2
    spread = p @ special.polygamma(1, k / 2) + p @ log_size**2 - (p @ log_size) ** 2
    reach = 3 * math.sqrt(steps * spread / 4)
    return (steps * mean - reach) / LN10, (steps * mean + reach) / LN10


@pytest.mark.parametrize(("width", "steps"), [(4, 13), (8, 18), (32, 60)])
def test_growth_that_chance_explains_is_healthy_and_more_is_not(width, steps):
    """Narrow and deep networks drift: found is what 3 sd do not cover."""
    low, high = relu_chance(width, steps)
    narrow = {"width": width, "activation": "relu"}
    assert low < -above("vanishing")
    assert codes(straight(low + 0.01, steps, **narrow)) == []
    assert codes(straight(low - 0.01, steps, **narrow)) == ["vanishing-activations"]
    # As wide as usual, it is not chance.
    assert codes(straight(low + 0.01, steps, activation="relu")) == [
        "vanishing-activations"
    ]
    if high > above("exploding"):
        assert codes(straight(high - 0.01, steps, **narrow)) == []
        assert codes(straight(high + 0.01, steps, **narrow)) == ["exploding-activations"]


def test_some_of_the_narrow_networks_above_explode_within_chance():
    """So that the last lines of the test above are not idle."""
    assert relu_chance(4, 13)[1] > above("exploding")
    assert relu_chance(8, 18)[1] > above("exploding")


GROWING = {
    "Glorot before ReLU": (straight(19 * math.log10(0.7), 19), "vanishing", named(20)),
    "N(0, 1) weights, 512 wide": (
        straight(20 * math.log10(22.6), 20),
        *("exploding", named(21)),
    ),
    "a residual stream": (
        blocks(10, lambda i: 1.5**i),
        *("exploding", "stem " + " ".join(f"sum{i}" for i in range(1, 11))),
    ),
    "after a normalization": (
        between(tap("a", 9.0), norm("n"), *row(2, 20)),
        *("exploding", "n d1 d2"),
    ),
    "after a sigmoid": (
        between(tap("a"), tap("s", 0.5, activation="sigmoid", **DRAWN), *row(5, 25)),
        *("exploding", "s d1 d2"),
    ),
    "after unused states": (
        between(
            *(tap(f"lstm:{i}", after="x") for i in range(3)),
            *(tap("d1", 10.0, after="lstm:0"), tap("d2", 100.0)),
        ),
        *("exploding", "lstm:0 d1 d2"),
    ),
    "on the way to an auxiliary head only": (
        between(
            *(tap("a"), tap("aux1", 50.0), tap("aux2")),
            *(tap("b", after="a"), tap("c")),
        ),
        *("exploding", "a aux1"),
    ),
    "in one of two towers": (
        between(
            *(tap("a1", after="x"), tap("a2"), tap("y", kind="input", after="")),
            *(tap("b1"), tap("b2", 5.0), tap("b3", 25.0)),
            tap("cat", 18.0, "merge", "a2 b3"),
        ),
        *("exploding", "b1 b2 b3"),
    ),
    "a layer that is called again and again": (
        between(*(tap(f"cell/dense/{i}", 0.1**i) for i in range(4))),
        *("vanishing", " ".join(f"cell/dense/{i}" for i in range(4))),
    ),
    "up to where it is infinite": (
        chain(1, 1e10, 1e20, 1e30, INF, NAN),
        *("exploding", named(6)),
    ),
    "down to where it is zero": (chain(1, 1e-10, 1e-20, 0, 0), "vanishing", named(5)),
    "the last step at which it is judged": (
        straight(3.0, step=10),
        *("exploding", named(11)),
    ),
    "a large input, past 1": (
        straight(-2 - above("vanishing"), first=100.0, x=100.0, head=0.0),
        *("vanishing", named(11)),
    ),
}

NOT_GROWING = {
    "flat": straight(0.0),
    "flat for 100 layers": straight(0.0, 100),
    "two layers": chain(1.0),
    "one layer": chain(),
    "there and back again": chain(1, 1e3, 1e6, 1e3, 1),
    "a large input that shrinks to 1": chain(1e4, 1e3, 1e2, 10, 1, x=1e4),
    "a small input that grows to 1": chain(1e-4, 1e-3, 1e-2, 0.1, 1, x=1e-4),
    "a large input, past 1 by less": straight(
        -2 - below("vanishing"), first=100.0, x=100.0
    ),
    "a small input, past 1 by less": straight(2 + below("exploding"), first=0.01, x=0.01),
    "an input of another size than all else": chain(1, 1, 1, x=1e4),
    "tanh on its way to 0": chain(0.628, 0.486, 0.408, 0.361, 0.327, activation="tanh"),
    "two inputs of other sizes": between(
        *(tap("a", 1e6), tap("b", 1e-6, after="")),
        *(tap("sum", kind="merge", after="a b"), tap("c")),
    ),
    "batch normalization after N(0, 1) kernels": between(
        *(tap("a", 30.0), norm("n"), tap("b", 1e3), norm("m"))
    ),
    "normalized after it grew": between(*row(1, 1e3, 1e6), norm("n")),
    "a normalization that was not measured": between(
        *(tap("a"), tap("b", 1e3), tap("c", normalized=True), tap("d"))
    ),
    "a head of any size": straight(0.0, head=1e9),
    "a head of zeros": straight(0.0, head=0.0),
    "a softmax after the head": network(
        *(tap("a"), tap("b"), tap("head", 1e9)),
        tap("softmax", 0.1, "activation", activation="softmax"),
    ),
    "pooled to a thousandth": between(
        *(tap("a"), tap("b"), tap("pool", 1e-3, "pooling"), tap("c", 1e-3))
    ),
    "summed over an axis": between(*row(1, 1), tap("sum", 20.0, "other"), tap("c", 20.0)),
    "summed, and divided again": between(
        *(tap("a"), tap("sum", 1e3, "other"), tap("b", 1e3), tap("mean", 1.0, "other")),
        *(tap("c"), tap("d")),
    ),
    "weights that are small because a sum is large": between(
        *(tap("a"), tap("s1", 1e3, "other"), tap("b"), tap("s2", 1e3, "other")),
        *(tap("c"), tap("s3", 1e3, "other"), tap("d")),
    ),
    "pre-norm residual stream": blocks(10, lambda i: 3.0**i, normalized=True),
    "residual stream, 4 blocks": blocks(4, lambda i: 1.5 ** (i / 2)),
    "ReLU from a small input, then sigmoid": between(
        *row(*[0.01] * 5, activation="relu"),
        *(tap(f"s{i}", 0.5, activation="sigmoid") for i in range(2)),
        x=0.01,
    ),
    "first seen late": straight(3.0, step=11),
    "12 steps at once": straight(3.0, steps=12),
}


@pytest.mark.parametrize("name", GROWING)
def test_growth_is_found_wherever_it_reaches_the_head(name):
    """The layers of the growth range, in order."""
    snapshot, direction, layers = GROWING[name]
    (finding,) = diagnose([snapshot]).findings
    assert finding.code == f"{direction}-activations"
    assert finding.layers == tuple(layers.split())


@pytest.mark.parametrize("name", NOT_GROWING)
def test_what_is_set_right_on_the_way_is_healthy(name):
    """By a fixed point, a normalization, an operation, or because it is a head."""
    assert codes(NOT_GROWING[name]) == []


@pytest.mark.parametrize(
    ("activation", "factor", "variances", "blamed"),
    [
        ("linear", 10.0, (20.0, 1.0, 20.0, 0.9, 1.2), "d1 d3"),
        # Off by 0.11 and by 0.09 decades; Glorot's before ReLU are by 0.15.
        ("linear", 0.1, (1.0, 10**-0.22, 10**-0.18, 1.2, 9.0), "d2"),
        ("relu", 0.1, (2.0, 1.0, 2.1, 1.0, 20.0), "d2 d4"),
        # None is: all are named.
        ("linear", 10.0, (1.0, 1.2, 0.9, 1.0, 1.0), named(5)),
    ],
)
def test_the_layers_whose_weights_push_that_way_are_named(
    activation, factor, variances, blamed
):
    """Not those that are right, nor those that push the other way."""
    off = [weights(variance) for variance in variances]
    taps = [
        tap(f"d{i}", factor ** (i - 1), activation=activation, **w)
        for i, w in enumerate(off, 1)
    ]
    finding, *_ = diagnose([between(*taps)]).findings
    assert finding.code in ("exploding-activations", "vanishing-activations")
    assert finding.layers == tuple(blamed.split())


TWO_SIGNS = "defect: growth less the odd layer's step has another sign than growth"


@pytest.mark.parametrize(
    "snapshot",
    [
        # A step of -3 in one layer, which is allowed, and slow growth before and after.
        chain(*10.0 ** np.array([0, 0.3, 0.6, 0.9, 1.2, -1.5, -1.2, -0.9, -0.6])),
        # The same step taken off twice, for each of two heads.
        between(
            *row(1, 1, 1, 1e-3, 1e-3, 1e-3),
            *(tap("aux"), tap("e", 1e-3, after="d6")),
        ),
    ],
)
def test_a_step_that_is_allowed_leaves_no_growth_of_the_other_sign(snapshot):
    """Neither is -0.6 decades vanishing, nor the step alone."""
    assert codes(snapshot) == []


# -- zero-activations

ZERO = {
    "from one layer on": Unhealthy(chain(1, 1, 0, 0, head=0.0), "d3"),
    "at one layer": Unhealthy(chain(1, 0, 1, 1), "d2"),
    "from the first layer on": Unhealthy(chain(0, 0, head=0.0), "d1"),
    "an input of zeros": Unhealthy(chain(0, 0, x=0.0, head=0.0), "d1"),
    "before a normalization": Unhealthy(
        between(tap("d1"), tap("d2", 0.0), tap("d3", 0.0), norm("n", rms=0.0)), "d2"
    ),
    "the sum of two branches": Unhealthy(
        between(tap("d1"), tap("d2"), tap("sum", 0.0, "merge", "d1 d2")), "sum"
    ),
    "in one of two towers": Unhealthy(
        between(
            *(tap("a"), tap("y", kind="input", after=""), tap("b"), tap("c", 0.0)),
            tap("cat", kind="merge", after="a c"),
        ),
        "c",
    ),
    "an activation layer": Unhealthy(
        between(tap("d1"), tap("relu", 0.0, "activation", activation="relu"), tap("d2")),
        "relu",
    ),
    # The output of a normalization of zeros is compared, its input is not.
    "a layer that is normalized": Unhealthy(
        between(tap("d1", 0.0), norm("n", rms=0.0), tap("d2", 0.0)), "d1"
    ),
}
NOT_ZERO = {
    "a branch of zeros": between(
        tap("d1"), tap("d2", 0.0), tap("sum", kind="merge", after="d1 d2")
    ),
    "a head of zeros": chain(1, 1, head=0.0),
    "half zeros": between(
        *(tap(f"d{i}", np.array([[0.0, 1.4], [1.4, 0.0]]), activation="relu") for i in "12")
    ),
    "an input of zeros that is not used": between(
        tap("d1"), tap("unused", 0.0, "input", ""), tap("d2", after="d1")
    ),
    "never called": between(
        tap("d1"), tap("d2"), tap("d3", None, after="d2"), tap("d4", after="d2")
    ),
    "in a gate": between(
        *(tap("d1"), tap("gate", 0.0, after="d1"), tap("d2", after="d1")),
        tap("mix", kind="merge", after="gate d2"),
    ),
    "in training": chain(1, 1, 0, step=11),
}


@pytest.mark.parametrize("name", ZERO)
def test_zeros_on_every_path_are_found_where_they_begin(name):
    """One finding, critical."""
    check("zero-activations", ZERO[name]._replace(evidence={"rms": 0.0}, critical=True))


@pytest.mark.parametrize("name", NOT_ZERO)
def test_zeros_that_the_signal_passes_by_are_healthy(name):
    """A branch, a gate, a head, or not all of a tensor."""
    assert codes(NOT_ZERO[name]) == []


def test_a_signal_of_almost_nothing_is_no_zero():
    """It is the doing of the layer that made it so."""
    almost = chain(1e-45, 1e-45, 1e-45, x=1.0 / 29, head=0.0)
    assert codes(almost) == ["outlier-gain"]


FINITE_REST = "defect: the finite rest of a tensor is taken for all of it"


@pytest.mark.parametrize("rest", [0.0, 1.0])
def test_what_is_left_beside_nan_is_no_finding_of_its_own(rest):
    """NaN and zeros are not "nothing but zeros"; NaN and ones no common mean."""
    half = np.full((16, 32), rest)
    half[:, :16] = NAN
    assert codes(between(*row(1.0, half, NAN), head=NAN)) == ["nonfinite-activations"]


# -- unscaled-input

LARGE, SMALL = above("input"), 1 / above("input")
FAR, NEAR = above("head"), 1 / above("head")

UNSCALED = {
    "large all along": Unhealthy(
        chain(LARGE, LARGE, x=LARGE), "d1", {"input_rms": LARGE, "last_rms": LARGE}
    ),
    "small all along": Unhealthy(
        chain(SMALL, SMALL, x=SMALL), "d1", {"input_rms": SMALL, "last_rms": SMALL}
    ),
    "0..255": Unhealthy(chain(147.0, 147.0, x=147.0), "d1", {"input_rms": 147.0}),
    "still too large at the head": Unhealthy(
        chain(LARGE, 20.0, FAR, x=LARGE), "d1", {"last_rms": FAR}
    ),
    "still too small at the head": Unhealthy(
        chain(SMALL, 0.05, NEAR, x=SMALL), "d1", {"last_rms": NEAR}
    ),
    "one of two inputs": Unhealthy(
        between(
            *(tap("a"), tap("y", 100.0, "input", ""), tap("b", 100.0)),
            tap("cat", 70.0, "merge", "a b"),
        ),
        "b",
        {"input_rms": 100.0, "last_rms": 100.0},
    ),
    "a residual network": Unhealthy(
        between(
            *(tap("stem", 100.0), tap("f", 1.0)),
            *(tap("sum", 100.0, "merge", "stem f"), tap("c", 100.0)),
            x=100.0,
        ),
        "stem",
        {"input_rms": 100.0, "last_rms": 100.0},
    ),
}

SCALED = {
    "almost too large": chain(*[below("input")] * 2, x=below("input")),
    "almost too small": chain(*[1 / below("input")] * 2, x=1 / below("input")),
    "large, but not at the head": chain(LARGE, 20.0, below("head"), x=LARGE),
    "small, but not at the head": chain(SMALL, 0.05, 1 / below("head"), x=SMALL),
    "normalized first": network(
        *(tap("x", 1e4, "input"), norm("n"), tap("d1"), tap("d2"), tap("head"))
    ),
    "rescaled first": network(
        *(tap("x", 255.0, "input"), tap("scale", 0.6, "other"), tap("d1"), tap("head"))
    ),
    "a network of two layers whose first shrinks it": chain(1.0, x=147.0),
    "first seen late": chain(100.0, 100.0, x=100.0, step=11),
}


@pytest.mark.parametrize("name", UNSCALED)
def test_an_input_whose_size_is_carried_to_the_head_is_found(name):
    """At the layer with this input."""
    check("unscaled-input", UNSCALED[name])


@pytest.mark.parametrize("name", SCALED)
def test_an_input_whose_size_does_not_reach_the_head_is_healthy(name):
    """Nor one within a factor of thirty of 1."""
    assert codes(SCALED[name]) == []


@pytest.mark.parametrize(("x", "last"), [(255.0, 12.0), (0.01, 0.08)])
def test_an_input_that_is_normalized_after_the_first_layer_is_healthy(x, last):
    """Whatever size the head sees, it is not the input's."""
    assert codes(between(tap("d1", x), norm("n"), tap("d2", last), x=x)) == []


def test_a_small_embedding_is_no_unscaled_input():
    """Embedding, average, Dense, Dense: the text classifier of Keras' own examples."""
    taps = [tap("embed", 0.0289, "embedding"), tap("average", 0.002, "pooling")]
    assert codes(between(*taps, tap("d1", 0.002, activation="relu"), x=5.0)) == []


# -- mean-shift


def shifted(common, fan_in=64, **options):
    """Weights that multiply what their inputs have in common so many times more."""
    return weights(1.0, fan_in, mean=common / fan_in) | options


COMMON = above("common-gain")


def before_norms(class_name, *commons):
    """Weight layers, each before a normalization and an activation layer."""
    taps = []
    for i, common in enumerate(commons, start=1):
        taps += [
            tap(f"d{i}", **shifted(common)),
            norm(f"n{i}", class_name=class_name),
            tap(f"a{i}", 0.7, "activation", activation="relu"),
        ]
    return between(*taps)


MEAN_SHIFT = {
    "most layers before batch normalization": Unhealthy(
        before_norms("BatchNormalization", 0.1, COMMON, COMMON), "d2 d3"
    ),
    "weights with a mean": Unhealthy(
        between(*row(1, 1, **shifted(COMMON))),
        "d1 d2",
        {"common_gain": COMMON, "own_gain": 1.0, "kernel_mean": COMMON / 64},
    ),
    "weights with a negative mean": Unhealthy(
        between(tap("d1", **DRAWN), tap("d2", **shifted(-COMMON))),
        "d2",
        {"common_gain": COMMON, "own_gain": 1.0, "kernel_mean": -COMMON / 64},
    ),
    "weights that are all but the same": Unhealthy(
        between(tap("d1", kernel=np.array([[1.0, 1.0 + 1e-9]]), fan_in=4), tap("d2")),
        "d1",
        {"common_gain": 4.0, "kernel_mean": 1.0},
    ),
    "before a normalization": Unhealthy(
        between(tap("d1", **shifted(COMMON)), tap("d2", **DRAWN), norm("n")),
        "d1",
        {"common_gain": COMMON},
    ),
    "activations of one sign": Unhealthy(
        between(tap("d1"), tap("d2", 2.0, mean=0.91, within=0.1)),
        "d2",
        {"mean": 1.82, "rms": 2.0, "shift": 0.91},
    ),
    "negative activations": Unhealthy(
        between(tap("d1", 2.0, mean=-0.91, within=0.1), tap("d2")),
        "d1",
        {"mean": -1.82, "rms": 2.0, "shift": 0.91},
    ),
    "an activation layer, as narrow as is judged": Unhealthy(
        between(
            tap("d1"),
            *(tap("relu", 1.0, "activation", mean=0.95, within=0.1, width=16), tap("d2")),
        ),
        "relu",
        {"mean": 0.95, "rms": 1.0, "shift": 0.95},
    ),
}

NO_MEAN_SHIFT = {
    "half of the layers before batch normalization": before_norms(
        "BatchNormalization", 0.1, 0.1, COMMON, COMMON
    ),
    "before a normalization over the units": before_norms(
        "LayerNormalization", COMMON, COMMON, COMMON
    ),
    "weights with a small mean": between(*row(1, 1, **shifted(below("common-gain")))),
    "one sample": between(*row(1, 1, **shifted(0.0), samples=1)),
    "in a branch": between(
        *(tap("d1", **DRAWN), tap("d2", **shifted(COMMON))),
        tap("sum", kind="merge", after="d1 d2"),
    ),
    "in the head": network(tap("d1", **DRAWN), tap("head", **shifted(COMMON))),
    "no fan-in known": between(*row(1, 1, **shifted(COMMON, fan_in=64) | {"fan_in": 0.0})),
    "activations just below": between(*row(1, 1, mean=0.89, within=0.1)),
    "ReLU": between(*row(1, 1, mean=0.564, within=0.8, activation="relu")),
    "a few units": between(*row(1, 1, mean=0.99, within=0.1, width=15)),
    "a function with a mean of its own": between(
        *row(0.5, 0.5, mean=0.99, within=0.1, activation="sigmoid")
    ),
    "activations before a normalization": between(
        *row(1, 1, mean=0.99, within=0.1), norm("n")
    ),
    "a pooling, an embedding": between(
        tap("e", 1.0, "embedding", mean=0.99, within=0.1),
        *(tap("d1"), tap("p", 1.0, "pooling", mean=0.99, within=0.1), tap("d2")),
    ),
}


@pytest.mark.parametrize("name", MEAN_SHIFT)
def test_a_common_mean_is_found_in_weights_and_activations(name):
    """Of either sign; all layers whose weights make it, or the first that shows it."""
    check("mean-shift", MEAN_SHIFT[name])


@pytest.mark.parametrize("name", NO_MEAN_SHIFT)
def test_a_mean_that_chance_or_the_function_makes_is_healthy(name):
    """Or that does not concern the trunk."""
    assert codes(NO_MEAN_SHIFT[name]) == []


def test_a_layer_before_two_heads_is_named_once():
    """The trunks to both share it."""
    snapshot = between(
        *(tap("d1", **DRAWN), tap("d2", **shifted(COMMON)), tap("aux")),
        tap("d3", after="d2", **DRAWN),
    )
    assert diagnose([snapshot]).findings[0].layers == ("d2",)


def test_the_mean_of_four_weights_is_chance():
    """A 2 x 2 kernel about zero has such a mean once in a hundred draws."""
    kernel = np.array([[0.9, 1.0], [1.1, 0.5]])
    assert (
        codes(between(tap("d1", width=2), tap("d2", width=2, kernel=kernel, fan_in=2)))
        == []
    )


# -- saturated-activations

FULL, HALF = above("saturated"), 0.51 * THRESHOLDS["saturated"].value


def bounded(*shares, activation="tanh", **options):
    """A chain of bounded layers with these shares of saturated outputs."""
    return row(
        *([0.9] * len(shares)), saturated=list(shares), activation=activation, **options
    )


SATURATED = {
    "one layer": Unhealthy(
        between(*bounded(FULL)), "d1", {"saturated_fraction": FULL, "layers": 1}
    ),
    "two of three": Unhealthy(
        between(*bounded(FULL, FULL, 0.1)),
        "d1 d2",
        {"saturated_fraction": FULL, "layers": 2},
    ),
    "those that are half full as well": Unhealthy(
        between(*bounded(FULL, HALF, 1.0, 1.0, 0.96 * HALF)),
        "d1 d2 d3 d4",
        {"saturated_fraction": (FULL + HALF + 2) / 4, "layers": 4},
    ),
    "among ReLUs": Unhealthy(
        between(
            *row(1, 1, 1, activation="relu"), tap("t", saturated=FULL, activation="tanh")
        ),
        "t",
        {"saturated_fraction": FULL, "layers": 1},
    ),
    "an activation layer": Unhealthy(
        between(
            tap("d1"), tap("t", 0.9, "activation", saturated=1.0, activation="softsign")
        ),
        "t",
        {"saturated_fraction": 1.0, "layers": 1},
    ),
}

NOT_SATURATED = {
    "just below": between(*bounded(*[below("saturated")] * 3)),
    "just half of the layers": between(*bounded(FULL, FULL, 0.0, 0.79)),
    "before a normalization": between(*bounded(1.0, 1.0), norm("n")),
    "sigmoid gates beside the trunk": between(
        *(
            tap("d1"),
            tap("d2"),
            tap("gate", 0.9, after="d1", saturated=1.0, activation="sigmoid"),
        ),
        *(tap("mix", kind="merge", after="d2 gate"), tap("d3")),
    ),
    "the head": network(tap("d1"), tap("head", saturated=1.0, activation="sigmoid")),
    "a function without limits": between(*bounded(1.0, 1.0, activation="relu")),
    "in training": network(
        tap("x", kind="input"), *bounded(1.0, 1.0), tap("head"), step=11
    ),
}


@pytest.mark.parametrize("name", SATURATED)
def test_bounded_functions_at_their_limits_are_found(name):
    """In more than half of the bounded layers."""
    check("saturated-activations", SATURATED[name])


@pytest.mark.parametrize("name", NOT_SATURATED)
def test_what_is_not_saturated_or_no_matter_of_the_trunk_is_healthy(name):
    """A gate may well be open or shut."""
    assert codes(NOT_SATURATED[name]) == []


@pytest.mark.parametrize(
    "activation", ["tanh", "softsign", "hard_tanh", "sigmoid", "hard_sigmoid"]
)
def test_all_bounded_functions_are_judged(activation):
    """And named."""
    snapshot = between(*bounded(1.0, activation=activation, **DRAWN))
    (finding,) = diagnose([snapshot]).findings
    assert finding.code == "saturated-activations"
    assert f"the limits of {activation}." in finding.message


# -- dead-units


def relu(dead, width=100, samples=16, **options):
    return tap("d2", dead=dead, width=width, samples=samples, activation="relu", **options)


DEAD = {
    "more than nine of ten": Unhealthy(
        between(tap("d1"), relu(91)),
        "d2",
        {"dead_fraction": 0.91, "layers": 1, "samples": 16},
    ),
    "relu6": Unhealthy(
        between(tap("d1"), tap("d2", dead=60, width=64, samples=99, activation="relu6")),
        "d2",
        {"dead_fraction": 0.9375, "samples": 99},
    ),
    "two layers": Unhealthy(
        between(tap("d1", dead=95, width=100, samples=16, activation="relu"), relu(98)),
        "d1 d2",
        {"dead_fraction": 0.98, "layers": 2, "relu_layers": 2},
        critical=True,
    ),
    "one of three layers": Unhealthy(
        between(*(tap(f"d{i}", activation="relu") for i in (1, 3)), relu(98)),
        "d2",
        {"dead_fraction": 0.98, "layers": 1, "relu_layers": 3},
    ),
    "an activation layer": Unhealthy(
        between(tap("d1"), relu(91, kind="activation"), tap("d3")),
        "d2",
        {"dead_fraction": 0.91},
    ),
    "in training": Unhealthy(
        network(tap("d1"), relu(91), tap("head"), step=500), "d2", {"dead_fraction": 0.91}
    ),
    "all units, in training": Unhealthy(
        network(tap("d1"), relu(100, rms=0.0), tap("head", 0.0), step=500),
        "d2",
        {"dead_fraction": 1.0},
        critical=True,
    ),
}

ALIVE = {
    "nine of ten": between(tap("d1"), relu(90)),
    "60 %": between(tap("d1"), relu(60), tap("d3", dead=60, width=100, samples=64)),
    "half, by chance": between(tap("d1"), relu(50)),
    "too few samples to tell": between(tap("d1"), relu(100, samples=15)),
    "no ReLU": between(tap("d1"), tap("d2", dead=100, width=100, samples=64)),
    "leaky": between(
        tap("d1"), tap("d2", dead=100, width=100, samples=64, activation="elu")
    ),
    "a branch": between(
        tap("d1"), relu(100), tap("sum", kind="merge", after="d1 d2"), tap("d3")
    ),
    "the head": network(tap("d1"), relu(99)),
}


@pytest.mark.parametrize("name", DEAD)
def test_units_that_never_fire_are_found_at_any_step(name):
    """On the trunk, where nothing goes round them."""
    check("dead-units", DEAD[name])


@pytest.mark.parametrize("name", ALIVE)
def test_units_that_may_fire_yet_are_healthy(name):
    """Or what is not a ReLU's."""
    assert codes(ALIVE[name]) == []


# -- collapsed-activations


def losing(decades, layers=5, **options):
    """A chain along which the share that differs between samples falls evenly."""
    return row(*([1.0] * layers), within=list(np.logspace(0, -decades, layers)), **options)


LOST = above("collapse")

COLLAPSED = {
    "evenly": Unhealthy(
        between(*losing(LOST)),
        named(5),
        {"decades": -LOST, "share_first": 1.0, "share_last": 10**-LOST},
    ),
    "from a small share on": Unhealthy(
        between(*row(1, 1, within=[0.1, 0.1 * 10**-LOST])),
        named(2),
        {"decades": -LOST, "share_first": 0.1, "share_last": 0.1 * 10**-LOST},
    ),
    "twice the threshold": Unhealthy(
        between(*losing(4.04)), named(5), {"decades": -4.04}, critical=True
    ),
    "all of it": Unhealthy(
        between(*row(1, 1, 1, within=[1.0, 0.0, 0.0])),
        named(3),
        {"decades": -INF, "share_first": 1.0, "share_last": 0.0},
        critical=True,
    ),
    "in an activation layer": Unhealthy(
        between(
            tap("d1"), tap("t", 0.9, "activation", within=10**-LOST), tap("d2", within=1e-3)
        ),
        "d1 t d2",
        {"decades": -3.0},
    ),
}

NOT_COLLAPSED = {
    "just below": between(*losing(below("collapse"))),
    "no two samples": between(*losing(6.0, samples=1)),
    "equal samples": between(*row(1, 1, 1, within=[0.0, 0.0, 0.0])),
    "rounding below float32": between(*row(1, 1, 1, within=[1e-7, 1e-9, 1e-12])),
    "an average over positions": between(
        *(tap("d1"), tap("pool", 0.9, "pooling", within=1e-3), tap("d2", within=1e-3))
    ),
    "before a normalization": between(*losing(6.0), norm("n")),
    "it comes back": between(*row(1, 1, 1, within=[1.0, 1e-3, 0.1])),
}


@pytest.mark.parametrize("name", COLLAPSED)
def test_what_makes_all_samples_alike_is_found(name):
    """All layers of the segment, with the share at both ends."""
    check("collapsed-activations", COLLAPSED[name])


@pytest.mark.parametrize("name", NOT_COLLAPSED)
def test_samples_that_stay_apart_or_cannot_be_compared_are_healthy(name):
    """Pooling, one sample, and what rounding leaves."""
    assert codes(NOT_COLLAPSED[name]) == []


# -- exploding-gradients, vanishing-gradients: predicted


def rate(decades, layers):
    """Linear weights that change a gradient by so many decades over so many layers."""
    return weights(10 ** (2 * decades / layers))


PASSED = 16
"""Layers between which a gradient is followed: so many that the flat signal does not
contradict the weights of any one of them."""


def passing(decades, layers=PASSED, **options):
    """A flat signal, and weights that predict what becomes of a gradient."""
    return row(*([1.0] * (layers + 1)), **rate(decades, layers), **options)


def tanh_chain(variance, layers):
    """Tanh layers whose input is 0.9 everywhere, and the decades of their gradient."""
    q = variance * 0.81
    chi, _ = integrate.quad(
        lambda h: (1 - np.tanh(h) ** 2) ** 2 * stats.norm.pdf(h, scale=math.sqrt(q)),
        *(-15.0, 15.0),
        epsabs=1e-13,
    )
    taps = row(*[0.9] * (layers + 1), activation="tanh", **weights(variance))
    return taps, layers * 0.5 * math.log10(variance * chi)


def slow(decades, layers=PASSED):
    return {"decades": decades, "growth": 10 ** (decades / layers), "layers": layers}


BIG, LITTLE = above("exploding-gradients"), -above("vanishing-gradients")
TANH_UP, TANH_DOWN = tanh_chain(12.0, 20), tanh_chain(0.2, 9)

GRADIENTS = {
    "exploding": Unhealthy(between(*passing(BIG)), named(PASSED + 1), slow(BIG)),
    "vanishing": Unhealthy(between(*passing(LITTLE)), named(PASSED + 1), slow(LITTLE)),
    "in few layers": Unhealthy(between(*passing(BIG, 4)), named(5), slow(BIG, 4)),
    "critical": Unhealthy(
        between(*passing(2 * BIG)), named(PASSED + 1), slow(2 * BIG), critical=True
    ),
    "vanishing, critical": Unhealthy(
        between(*passing(2 * LITTLE)), named(PASSED + 1), slow(2 * LITTLE), critical=True
    ),
    "not yet critical": Unhealthy(
        between(*passing(1.9 * BIG)), named(PASSED + 1), slow(1.9 * BIG)
    ),
    "narrow, above chance": Unhealthy(
        between(*passing(4.8, 10, width=1)), named(11), slow(4.8, 10), critical=True
    ),
    "tanh, too large": Unhealthy(between(*TANH_UP[0]), named(21), slow(TANH_UP[1], 20)),
    "tanh, too small": Unhealthy(between(*TANH_DOWN[0]), named(10), slow(TANH_DOWN[1], 9)),
    # What a kernel gets is the gradient times its input: 10 makes up for a decade.
    "vanishing, with an input above 1": Unhealthy(
        between(*row(*[1.5] * (PASSED + 1), **rate(LITTLE - math.log10(1.5), PASSED))),
        named(PASSED + 1),
        {"decades": LITTLE},
    ),
    "vanishing, with a large input": Unhealthy(
        between(*row(*[9.0] * (PASSED + 1), **rate(LITTLE - math.log10(9.0), PASSED))),
        named(PASSED + 1),
        {"decades": LITTLE},
    ),
}

GOOD_GRADIENTS = {
    "just below": between(*passing(below("exploding-gradients"))),
    "just above": between(*passing(-below("vanishing-gradients"))),
    # Each layer multiplies by 1, and by its weights should by 8: of an unknown kind.
    "a flat signal that contradicts the weights": between(*passing(9.0, 10)),
    "in one layer that contradicts its weights": between(*passing(BIG, 1)),
    "through an operation": between(
        *passing(2 * BIG)[:9], tap("sum", 10.0, "other"), *passing(2 * BIG)[9:]
    ),
    "the first layer's weights": between(*row(1, 1, 1, kernel=None), tap("e", **DRAWN)),
    "the first layer's own weights": between(
        tap("d1", **weights(1e12)), *(tap(f"e{i}", **DRAWN) for i in range(4))
    ),
    "a kernel that is not known": between(*passing(9.0)[:-1], tap("e")),
    "an activation function that is not known": between(
        *passing(9.0, activation="mystery")
    ),
    "before a normalization": between(*passing(9.0), norm("n")),
    "chance, one unit wide": between(*passing(below("exploding-gradients"), width=1)),
    "chance, one unit wide, above the threshold": between(*passing(2.8, width=1)),
    "a head of huge weights": network(*passing(0.0), tap("head", 1e9, **weights(1e18))),
    "an input above 1 makes up for it": between(
        *row(*[1.5] * 5, **rate(-below("vanishing-gradients") - math.log10(1.5), 4))
    ),
    "a large input makes up for it": between(
        *row(*[9.0] * 5, **rate(-below("vanishing-gradients") - math.log10(9.0), 4))
    ),
    "in training": network(tap("x", kind="input"), *passing(9.0), tap("head"), step=11),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_that_must_grow_or_decay_are_found(name):
    """From the weights and the slopes at this signal alone, without a backward pass."""
    unhealthy = GRADIENTS[name]
    direction = "exploding" if unhealthy.evidence["decades"] > 0 else "vanishing"
    check(f"{direction}-gradients", unhealthy)


@pytest.mark.parametrize("name", GOOD_GRADIENTS)
def test_gradients_that_pass_or_are_not_known_are_healthy(name):
    """By chance, or because something is missing."""
    assert codes(GOOD_GRADIENTS[name]) == []


# -- the same, measured


def returned(decades, layers=5, **options):
    """A flat chain whose gradients were measured, growing towards the input."""
    rms = np.logspace(decades - 6, -6, layers)
    return row(*([1.0] * layers), gradient=[float(g) for g in rms], **options)


BACK = above("measured-gradients")


def measured(decades, layers=4, last=1e-6):
    return slow(decades, layers) | {"first_norm": last * 10**decades, "last_norm": last}


MEASURED = {
    "exploding": Unhealthy(between(*returned(BACK)), named(5, 2), measured(BACK)),
    "vanishing": Unhealthy(between(*returned(-BACK)), named(5, 2), measured(-BACK)),
    "critical": Unhealthy(
        between(*returned(6.06)), named(5, 2), measured(6.06), critical=True
    ),
    "across normalizations": Unhealthy(
        between(
            *(tap("d1", gradient=3e-2), tap("d2", gradient=1.0), norm("n", gradient=1e-3)),
            tap("d3", gradient=1e-5),
        ),
        "n d3",
        {"decades": math.log10(3e3), "layers": 2, "first_norm": 3e-2, "last_norm": 1e-5},
    ),
    "between the first and last that are not zero": Unhealthy(
        between(*row(1, 1, 1, 1, gradient=[0.0, 1.0, 1e-2, 1e-4])),
        "d3 d4",
        {"decades": 4.0, "layers": 2},
    ),
}

RETURNED_WELL = {
    "just below": between(*returned(below("measured-gradients"))),
    "just above": between(*returned(-below("measured-gradients"))),
    "all zero": between(*row(1, 1, 1, gradient=[0.0, 0.0, 0.0])),
    "one layer": between(tap("d1", gradient=1.0)),
    "none at all": chain(1, 1, 1),
    "a branch": between(
        *(tap("d1", gradient=1.0), tap("d2", gradient=1e9)),
        *(tap("sum", 1.0, "merge", "d1 d2", gradient=1.0), tap("d3", gradient=1.0)),
    ),
}


@pytest.mark.parametrize("name", MEASURED)
def test_gradients_that_did_grow_or_decay_are_found(name):
    """From the first layer of the trunk to its last, normalizations or not."""
    unhealthy = MEASURED[name]
    direction = "exploding" if unhealthy.evidence["decades"] > 0 else "vanishing"
    check(f"{direction}-gradients", unhealthy)


@pytest.mark.parametrize("name", RETURNED_WELL)
def test_gradients_that_came_back_are_healthy(name):
    """Or none did, as from a head of zeros."""
    assert codes(RETURNED_WELL[name]) == []


# -- the same, of batch normalization


def normalized(layers, activation="relu", name="d", after=None, **options):
    """Dense, BatchNormalization, activation, so many times."""
    taps = []
    for i in range(1, layers + 1):
        taps += [
            tap(f"{name}{i}", after=after if i == 1 else None, **options),
            norm(f"{name}n{i}", class_name="BatchNormalization", **options),
            tap(f"{name}r{i}", 0.7, "activation", activation=activation, **options),
        ]
    return taps


# ReLU: sqrt(pi / (pi - 1)) a layer, 0.0832 decades; linear: nothing.
PER_LAYER = 0.5 * math.log10(math.pi / (math.pi - 1))
DEEPEST = math.floor(THRESHOLDS["measured-gradients"].value / PER_LAYER)


def test_batch_normalization_makes_gradients_of_deep_chains_explode():
    """In front of ReLU, from 37 layers on."""
    layers = DEEPEST + 1
    names = " ".join(f"dn{i}" for i in range(1, layers + 1))
    evidence = {
        "decades": layers * PER_LAYER,
        "growth": math.sqrt(math.pi / (math.pi - 1)),
        "layers": layers,
    }
    unhealthy = Unhealthy(between(*normalized(layers)), names, evidence)
    check("exploding-gradients", unhealthy)


@pytest.mark.parametrize(
    "snapshot",
    [
        between(*normalized(DEEPEST)),
        between(*normalized(100, activation="linear")),
        between(*normalized(100, activation="mystery")),
        # What comes after a linear one, at other depths, is not what it feeds.
        between(
            *(
                t
                for i in range(50)
                for t in (
                    *normalized(1, activation="linear", name=f"d{i}-"),
                    tap(f"e{i}", 0.7, activation="relu"),
                )
            )
        ),
        # Measured gradients say that it does not.
        between(*normalized(100, gradient=1.0)),
        # A shortcut round each.
        blocks(60, lambda i: 1.0, normalized=True),
    ],
    ids=["fewer", "linear", "unknown", "linear, then ReLU", "measured", "residual"],
)
def test_batch_normalization_of_fewer_layers_or_with_shortcuts_is_healthy(snapshot):
    """ResNets have normalizations by the hundred."""
    assert codes(snapshot) == []


def test_batch_normalization_in_two_towers_does_not_add_up():
    """20 layers in each: a gradient passes 20."""
    towers = normalized(20), normalized(20, name="e", after="y")
    both = tap("cat", 0.7, "merge", "dr20 er20")
    snapshot = between(*towers[0], tap("y", kind="input", after=""), *towers[1], both)
    assert codes(snapshot) == []


# -- nonfinite-activations

NONFINITE = {
    "infinite at one layer": Unhealthy(chain(1, 1, INF, NAN), "d3"),
    "from one layer on": Unhealthy(chain(1, 1, NAN, NAN), "d3"),
    "the outputs": Unhealthy(chain(1, 1, head=NAN), "head"),
    "the input": Unhealthy(chain(NAN, NAN, x=NAN), "x"),
    "the input, at step 500": Unhealthy(chain(NAN, x=NAN, step=500), "x"),
    "beside the trunk": Unhealthy(
        between(tap("a"), tap("b", NAN), tap("sum", NAN, "merge", "a b"), head=NAN), "b"
    ),
    "one of two outputs": Unhealthy(
        between(tap("a"), tap("b", NAN), tap("aux", NAN), tap("c", after="a")), "b"
    ),
    "too large at once": Unhealthy(chain(1, INF), "d2"),
    "a sum in the model": Unhealthy(
        between(*row(1, 1), tap("c:input", INF, "input", "d1 d2"), tap("c", NAN), head=NAN),
        "c:input",
    ),
    # The first that a kernel multiplies, though a later layer makes it finite.
    "what ReLU makes zero of": Unhealthy(chain(1, INF, 1, NAN, NAN), "d2"),
    "the input and a layer, not between": Unhealthy(chain(1, 1, NAN, x=NAN), "x"),
    "weights, though what they make is finite": Unhealthy(
        between(tap("a"), tap("b", 0.0, kernel=np.array([[NAN, NAN, 1.0, 1.0]])), step=50),
        "b",
    ),
    "what is normalized": Unhealthy(
        between(tap("a"), tap("b", NAN), norm("n"), tap("c")), "b"
    ),
}

FINITE = {
    "a mask before a softmax": between(
        *(tap("a"), tap("b"), tap("mask", -INF, "other")),
        *(tap("soft", 0.1, "activation", activation="softmax"), tap("c", 0.1)),
    ),
    "NaN in operations, replaced": between(
        *(tap("a"), tap("log", NAN, "other"), tap("sum", NAN, "other")),
        *(tap("replaced", kind="other"), tap("b")),
    ),
    "NaN in the input, replaced": network(
        *(tap("x", NAN, "input"), tap("replaced", kind="other"), tap("a"), tap("head"))
    ),
    "NaN in the input, replaced, at step 500": network(
        *(tap("x", NAN, "input"), tap("replaced", kind="other"), tap("a"), tap("head")),
        step=500,
    ),
    "NaN in a branch that is left out": between(
        tap("a"), tap("b", NAN), tap("sum", kind="merge", after="a b")
    ),
    "the largest numbers": chain(3e38, 3e38, 1.0, x=3e38),
}


@pytest.mark.parametrize("name", NONFINITE)
def test_nan_and_infinities_are_found_where_they_begin(name):
    """At any step, of any tensor whose NaN reach a kernel or an output."""
    evidence = {"nonfinite": 2, "count": 4}
    unhealthy = NONFINITE[name]._replace(evidence=evidence, critical=True)
    check("nonfinite-activations", unhealthy)


@pytest.mark.parametrize("name", FINITE)
def test_nan_and_infinities_that_the_model_takes_care_of_are_healthy(name):
    """None reaches a kernel or an output."""
    assert codes(FINITE[name]) == []


# -- all rules


def test_every_code_has_unhealthy_and_healthy_networks_here():
    """No rule stands without a test."""
    import test_backward_rules as backward
    import test_evaluation_differs as evaluation
    import test_moving as normalization
    import test_nonfinite_loss as of_loss
    import test_over_time as over_time
    import test_update_rules as updates

    tables = {
        "symmetric-initialization": (SYMMETRIC, NOT_SYMMETRIC),
        "nonfinite-activations": (NONFINITE, FINITE),
        "outlier-gain": (OUTLIER, NO_OUTLIER),
        "exploding-activations": (GROWING, NOT_GROWING),
        "vanishing-activations": (GROWING, NOT_GROWING),
        "zero-activations": (ZERO, NOT_ZERO),
        "unscaled-input": (UNSCALED, SCALED),
        "mean-shift": (MEAN_SHIFT, NO_MEAN_SHIFT),
        "saturated-activations": (SATURATED, NOT_SATURATED),
        "dead-units": (DEAD, ALIVE),
        "collapsed-activations": (COLLAPSED, NOT_COLLAPSED),
        "moving-statistics": (normalization.AWAY, normalization.HEALTHY),
        "evaluation-differs": (evaluation.SICK, evaluation.HEALTHY),
        "exploding-gradients": (GRADIENTS, GOOD_GRADIENTS),
        "vanishing-gradients": (GRADIENTS, GOOD_GRADIENTS),
        "no-gradient": (backward.NO_GRADIENT, backward.GRADIENT),
        "constant-input": (backward.CONSTANT, backward.DIFFERENT),
        "target-scale": (backward.TARGETS, backward.IN_SCALE),
        "nonfinite-loss": (of_loss.UNHEALTHY, of_loss.HEALTHY),
        **over_time.TABLES,
        "nonfinite-gradients": (backward.NONFINITE_GRADIENTS, backward.FINITE_GRADIENTS),
        **updates.TABLES,
    }
    assert tables.keys() == CODES.keys()
    unhealthy, healthy = zip(*tables.values(), strict=True)
    assert sum(map(len, healthy)) >= sum(map(len, unhealthy))


@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_threshold_says_its_unit_and_where_it_comes_from(name):
    """The numbers themselves are those the tables above stand either side of."""
    assert THRESHOLDS[name].value > 0
    assert len(THRESHOLDS[name].unit) > 10 and len(THRESHOLDS[name].source) > 10


def anything(seed):
    """A network of any layers with any measurements."""
    rng = random.Random(seed)
    activations = "linear relu tanh sigmoid gelu softmax exponential mystery relu6".split()
    kernels = [
        *(weights(2.0), weights(1e3), weights(1e-3), weights(1.0, mean=0.5)),
        *(constant(0.5), constant(0.0), {"kernel": np.ones((1, 1)), "fan_in": 1}),
        *({"kernel": np.array([[NAN, 1.0]]), "fan_in": 4}, {}),
    ]
    recurrent = [
        {"input_gain": one, "recurrent_gain": other, "gates": gates}
        for one in (0.0, 0.5, 1e-200, 1e200)
        for other in (0.0, 0.5, 50.0, 1e-200, 1e200)
        for gates in ("", "sigmoid", "mystery")
    ]
    classes = "Dense Conv2D DepthwiseConv2D BatchNormalization".split()
    sizes = [*(None, 0.0, NAN, INF), *[1.0] * 6, 1e-100, 1e100, *np.logspace(-3, 3, 7)]
    has_kernels, has_gradients = rng.random() < 0.7, rng.random() < 0.3
    has_recurrent = random.Random(-seed - 1).random() < 0.3
    taps = []
    for i in range(rng.randint(1, 12)):
        kind = rng.choice(["weight"] * 8 + list(KINDS))
        after = rng.sample(range(i), min(i, rng.choice([0, 1, 1, 1, 2])))
        if rng.random() < 0.6:
            after = [i - 1] if i else []
        mean, within = rng.choice([(0, 1), (0, 1), (0, 0), (0.5, 0.2), (0.95, 0.01)])
        width = rng.choice([1, 16, 64])
        taps.append(
            tap(
                *(f"t{i}", float(s) if (s := rng.choice(sizes)) is not None else None),
                *(kind, " ".join(f"t{p}" for p in sorted(after))),
                mean=mean,
                within=within,
                samples=rng.choice([1, 2, 16, 64]),
                dead=rng.choice([0, 0, width]),
                saturated=rng.choice([0.0, 0.0, 1.0]),
                gradient=rng.choice([0.0, 1.0, 1e-9, 1e9]) if has_gradients else None,
                width=width,
                activation=rng.choice(activations),
                dtype=rng.choice(["float16", "float32", "float64"]),
                traced=rng.random() < 0.9,
                normalized=rng.random() < 0.1,
                class_name=rng.choice(classes),
                **(rng.choice(kernels) if has_kernels and kind == "weight" else {}),
                **(rng.choice(recurrent) if has_recurrent and kind == "weight" else {}),
            )
        )
    return network(*taps, step=rng.choice([0, 0, 0, 50]))


NO_FAN_IN = "defect: the advice for sigmoid divides by a fan-in that is not known"


@pytest.mark.parametrize("start", range(0, 400, 100))
def test_whatever_was_measured_gives_a_diagnosis(start):
    """A hundred networks of anything: no error, no warning, and findings that hold up."""
    for seed in range(start, start + 100):
        snapshot = anything(seed)
        found = diagnose([snapshot]).findings
        assert len({finding.code for finding in found}) == len(found)
        for finding in found:
            assert finding.code in CODES and finding.severity in ("warning", "critical")
            assert finding.layers and set(finding.layers) <= set(snapshot.names)
            assert not any(math.isnan(value) for value in finding.evidence.values())
            assert "nan" not in finding.message.lower().replace("are nan", "")
            assert str(finding).startswith(f"{finding.code} ({finding.severity}, ")


def test_a_sigmoid_layer_of_unknown_fan_in_is_diagnosed():
    """A separable layer, or a log without kernels."""
    assert codes(between(*bounded(1.0, activation="sigmoid"))) == ["saturated-activations"]


# -- operations between the weight layers


def summed(*factors, first=1.0):
    """Layers that keep the size, and between them operations by these factors."""
    taps, size = [tap("d0", first)], first
    for i, factor in enumerate(factors, 1):
        size *= factor
        taps += [tap(f"op{i}", size, "other"), tap(f"d{i}", size)]
    return between(*taps, x=first)


OPERATIONS = {
    "six sums over 100 neighbours": (summed(*[50.0] * 6), 6 * math.log10(50), True),
    "one sum over 1000": (summed(1000.0), 3.0, True),
    "two sums over 10": (summed(7.0, 7.0), 2 * math.log10(7), False),
    "sums, some divided again": (
        summed(100.0, 0.01, 100.0, 100.0),
        math.log10(1e4),
        True,
    ),
    "means over 100, three times": (summed(0.1, 0.1, 0.1), -3.0, False),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_growth_through_operations_is_found_and_no_initializer_is_blamed(name):
    """With the places, and how much all of them do."""
    snapshot, decades, critical = OPERATIONS[name]
    (finding,) = diagnose([snapshot]).findings
    direction = "exploding" if decades > 0 else "vanishing"
    assert finding.code == f"{direction}-activations"
    assert finding.severity == ("critical" if critical else "warning")
    assert all(layer.startswith("op") for layer in finding.layers)
    np.testing.assert_allclose(finding.evidence["decades"], decades, rtol=1e-6)
    assert finding.fix.cause == "operation between layers"
    assert "initializer" not in "".join(change.code for change in finding.fix.changes)


@pytest.mark.parametrize(
    "snapshot",
    [
        summed(20.0),  # one global sum, as a readout
        summed(0.1, 0.1),
        summed(100.0, 0.01, 100.0, 0.01),
        summed(1000.0, first=1e-3),  # towards the size that a signal should have
        between(tap("d1"), tap("op", 1e4, "other"), tap("d2", 1e4), norm("n"), tap("d3")),
    ],
)
def test_operations_that_do_no_harm_are_healthy(snapshot):
    """Below the limits, undone, towards size 1, or before a normalization."""
    assert codes(snapshot) == []


def test_growth_of_the_weights_is_reported_before_that_of_operations():
    """Both at once: the initializer is named, and what it does."""
    sizes = [tap(f"d{i}", 10.0 ** (i - 1), **weights(100.0)) for i in range(1, 4)]
    taps = [*sizes, tap("sum", 1e4, "other"), tap("e", 1e5, **weights(100.0))]
    (finding,) = diagnose([between(*taps, x=0.1)]).findings
    assert finding.fix.cause == "initializer"
    np.testing.assert_allclose(finding.evidence["decades"], 3.0, rtol=1e-6)

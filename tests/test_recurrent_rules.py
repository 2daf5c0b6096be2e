"""The rules on recurrent layers and embeddings, on either side of each limit."""

import math

import numpy as np
import pytest
from scipy import integrate, special, stats

from activation_monitor.analysis import activations, records, recurrent
from activation_monitor.analysis.diagnosis import diagnose
from activation_monitor.analysis.snapshot import Snapshot
from networks import network, norm, tap
from test_rules import INF, NAN, Unhealthy, above, below, check, codes

RNG = np.random.default_rng(0)


def varied(*shape, size=1.0):
    return size * np.random.default_rng(0).standard_normal(shape or (64, 8))


# -- the laws


@pytest.mark.parametrize("std", [0.1, 1.0, 5.0, 100.0])
@pytest.mark.parametrize(
    ("activation", "end"),
    [
        ("sigmoid", math.log(99.0)),
        ("hard_sigmoid", 2.94),
        ("tanh", 0.5 * math.log(1.98 / 0.02)),
        ("hard_tanh", 0.98),
        ("softsign", 49.0),
    ],
)
def test_the_share_of_saturated_outputs_is_that_of_normal_numbers(activation, end, std):
    """The pre-activation at which the range ends, inverted by hand."""
    expected = 2 * stats.norm.sf(end, scale=std)
    found = recurrent.saturated_share(activation, std)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    phi, _ = activations.ACTIVATIONS[activation]
    _, high = records.SATURATED[activation]
    np.testing.assert_allclose(phi(np.array(end)), high)


def test_without_pre_activations_nothing_is_saturated():
    """And what is not known stays so."""
    assert recurrent.saturated_share("sigmoid", 0.0) == 0.0
    assert math.isnan(recurrent.saturated_share("sigmoid", NAN))


@pytest.mark.parametrize("std", [0.3, 3.0, 30.0])
def test_the_rms_of_a_gated_layer_is_at_least_its_bound(std):
    """One and five steps of an LSTM and of a GRU, with independent pre-activations."""
    z = std * np.random.default_rng(0).standard_normal((5, 4, 100_000))
    bound = recurrent.gated_rms("sigmoid", std)
    c = h = np.zeros(100_000)
    after = {}
    for step, (i, f, o, g) in enumerate(z):
        c = special.expit(f) * c + special.expit(i) * np.tanh(g)
        update = special.expit(i)
        h = update * h + (1 - update) * np.tanh(g)
        after[step] = special.expit(o) * np.tanh(c), h
    for out in (*after[0], *after[4]):
        assert np.sqrt(np.mean(out**2)) > 0.995 * bound
    # Where gates are 0 or 1 it is reached by the first step of an LSTM.
    lstm = np.sqrt(np.mean(after[0][0] ** 2))
    assert lstm < (1.02 if std == 30.0 else 1.4) * bound


def test_the_bound_of_a_gated_layer_by_quadrature():
    """A second way to the three averages."""

    def average(f):
        return integrate.quad(lambda h: f(h) ** 2 * stats.norm.pdf(h, scale=2.0), -30, 30)[
            0
        ]

    expected = math.tanh(1) * average(special.expit) * math.sqrt(average(np.tanh))
    np.testing.assert_allclose(recurrent.gated_rms("sigmoid", 2.0), expected, rtol=1e-6)


# -- saturated gates and states


GATES = {"class_name": "LSTM", "activation": "tanh", "gates": "sigmoid"}
PLAIN = {"class_name": "SimpleRNN", "activation": "tanh", "gates": ""}
KERNELS = {"input_gain": 0.5, "recurrent_gain": 0.5}

# The standard deviation at which a share of gates is saturated.
BY_INPUT, BY_STATE = (math.log(99.0) / stats.norm.isf(share / 2) for share in (0.8, 0.5))


def layer(name="r", rms=0.5, after=None, **info):
    return tap(name, rms, after=after, **(GATES | KERNELS | info))


def sequence(x, *recurrent, **options):
    """An input of this rms, recurrent layers, a head."""
    return network(tap("x", x, "input"), *recurrent, tap("head"), **options)


def at(std, state=0.25):
    """The rms of the input for this standard deviation, by a gain of 1/2."""
    return 2 * math.sqrt(std**2 - state**2)


SATURATED = {
    "gates by a large input": Unhealthy(
        sequence(at(1.001 * BY_INPUT), layer()),
        "r",
        {"layers": 1, "by_state": 0.25},
    ),
    "gates by a large kernel": Unhealthy(
        sequence(1.0, layer(input_gain=1.001 * BY_INPUT)), "r", {"layers": 1}
    ),
    "gates by a large recurrent kernel": Unhealthy(
        sequence(1.0, layer(recurrent_gain=2 * BY_STATE)),
        "r",
        {"by_state": BY_STATE, "by_input": 0.5},
    ),
    "hard gates": Unhealthy(sequence(30.0, layer(gates="hard_sigmoid")), "r"),
    "both directions": Unhealthy(
        network(
            tap("x", 100.0, "input"),
            *(layer("f", after="x"), layer("b", after="x")),
            *(tap("cat", kind="merge", after="f b"), tap("head")),
        ),
        "f b",
        {"layers": 2},
    ),
    "the first of two layers": Unhealthy(
        sequence(100.0, layer(), layer("second")), "r", {"layers": 1}
    ),
    "gates after a large embedding": Unhealthy(
        network(tap("e", 100.0, "embedding", ""), layer(), tap("head")), "r"
    ),
    "states by a large recurrent kernel": Unhealthy(
        sequence(
            1.0,
            layer(**PLAIN, rms=0.98, recurrent_gain=20.0, saturated=0.81),
        ),
        "r",
        {"saturated_fraction": 0.81, "by_state": 19.6},
    ),
    "states by a large input, off the trunk": Unhealthy(
        network(
            tap("x", 100.0, "input"),
            layer("f", 0.99, "x", **PLAIN, saturated=0.9),
            layer("b", 0.5, "x"),
            *(tap("cat", kind="merge", after="f b"), tap("head")),
        ),
        "f b",
        {"saturated_fraction": 0.9, "layers": 2},
    ),
}

SOUND = {
    "as Keras draws an LSTM": sequence(1.0, layer(rms=0.1)),
    "as Keras draws a GRU": sequence(1.0, layer(rms=0.3, class_name="GRU")),
    "as Keras draws a SimpleRNN": sequence(
        1.0, layer(**PLAIN, rms=0.6, recurrent_gain=1.0)
    ),
    "an input not quite large enough": sequence(at(0.999 * BY_INPUT), layer()),
    "a kernel not quite large enough": sequence(1.0, layer(input_gain=0.99 * BY_INPUT)),
    "a recurrent kernel not quite large enough": sequence(
        1.0, layer(recurrent_gain=1.97 * BY_STATE)
    ),
    "a few large samples, which leave the output small": sequence(100.0, layer(rms=0.1)),
    "gates of an unknown function": sequence(100.0, layer(gates="mystery")),
    "an output of an unknown function": sequence(100.0, layer(activation="mystery")),
    "a large input that a normalization takes": network(
        *(tap("x", 100.0, "input"), norm("n"), layer(rms=0.2)), tap("head")
    ),
    "an input of unknown size, after two tensors": network(
        *(tap("x", 100.0, "input"), tap("s", 100.0, "input", "")),
        *(layer(after="x s"), tap("head")),
    ),
    "states not quite saturated enough": sequence(
        1.0, layer(**PLAIN, rms=0.98, recurrent_gain=20.0, saturated=0.79)
    ),
    "kernels that are not known": sequence(
        100.0, layer(rms=0.4, input_gain=0.0, recurrent_gain=0.0)
    ),
    "a small recurrent kernel": sequence(1.0, layer(rms=0.2, recurrent_gain=0.001)),
}


@pytest.mark.parametrize("name", SATURATED)
def test_saturated_recurrent_layers_are_found(name):
    """By the law for gates, as measured for states."""
    check("saturated-activations", SATURATED[name])


@pytest.mark.parametrize("name", SOUND)
def test_other_recurrent_layers_are_healthy(name):
    """The twins."""
    assert codes(SOUND[name]) == []


@pytest.mark.parametrize(
    ("name", "cause", "code"),
    [
        ("gates by a large input", "input scale", "Rescaling"),
        ("gates by a large kernel", "initializer", 'kernel_initializer="glorot_uniform"'),
        (
            "gates by a large recurrent kernel",
            "initializer",
            'recurrent_initializer="orthogonal"',
        ),
        (
            "states by a large recurrent kernel",
            "initializer",
            'recurrent_initializer="orthogonal"',
        ),
        (
            "gates after a large embedding",
            "initializer",
            'embeddings_initializer="uniform"',
        ),
    ],
)
def test_the_part_that_is_too_large_is_named(name, cause, code):
    """Input, kernel, recurrent kernel, embedding."""
    (finding,) = diagnose([SATURATED[name].snapshot]).findings
    assert finding.fix.cause == cause
    assert code in finding.fix.changes[0].code


# -- states that explode


RELU = {"class_name": "SimpleRNN", "activation": "relu", "gates": ""}


def growing(rms, gain, x=1.0, **info):
    """A SimpleRNN with relu, whose first step outputs 1 for an input of rms 1."""
    return sequence(x, layer(rms=rms, recurrent_gain=gain, **RELU | INPUT | info))


INPUT = {"input_gain": math.sqrt(2.0)}
GROWTH = 10 ** above("exploding")

EXPLODING = {
    "a large recurrent kernel": Unhealthy(
        growing(GROWTH, 4.0),
        "r",
        {"rate": 4 / math.sqrt(2), "first_rms": 1.0, "last_rms": GROWTH},
    ),
    "a linear one": Unhealthy(
        growing(GROWTH, 2.0, activation="linear", input_gain=1.0), "r", {"rate": 2.0}
    ),
    "more than twice the decades": Unhealthy(growing(GROWTH**2, 4.0), "r", critical=True),
    "a large input as well": Unhealthy(
        growing(5 * GROWTH, 4.0, x=5.0), "r", {"first_rms": 5.0}
    ),
    "until numbers are not finite": Unhealthy(growing(INF, 4.0), "r", critical=True),
}

BOUNDED = {
    "an orthogonal kernel": growing(0.8, 1.0),
    "He's kernel": growing(3.0, math.sqrt(2.0)),
    "the identity, as Le et al. draw it": growing(5.0, 1.0),
    "not quite as much": growing(10 ** below("exploding"), 4.0),
    "growth up to the size 1": growing(1.0, 4.0, x=0.01),
    "an input that is large": growing(10.0, 1.0, x=10.0),
    "tanh": sequence(1.0, layer(**PLAIN, rms=0.9, recurrent_gain=4.0)),
}


@pytest.mark.parametrize("name", EXPLODING)
def test_states_that_explode_are_found(name):
    """The recurrent kernel, and nothing else."""
    check("exploding-activations", EXPLODING[name])
    (finding,) = diagnose([EXPLODING[name].snapshot]).findings
    assert finding.fix.changes[0].code == 'recurrent_initializer="orthogonal"'


@pytest.mark.parametrize("name", BOUNDED)
def test_states_that_keep_their_size_are_healthy(name):
    """The twins."""
    assert codes(BOUNDED[name]) == []


def test_numbers_that_another_kernel_makes_infinite_are_another_finding():
    """With an orthogonal kernel the state does not overflow."""
    assert codes(growing(INF, 1.0)) == ["nonfinite-activations"]


def test_an_exploding_state_is_one_finding_among_other_layers():
    """It stands out from its peers, which is the same."""
    peers = [tap(f"d{i}", 2 * GROWTH**2) for i in range(5)]
    given = tap("x", 1.0, "input"), layer(rms=2 * GROWTH**2, recurrent_gain=9.0, **RELU)
    assert codes(network(*given, *peers, tap("head"))) == ["exploding-activations"]


# -- embeddings


def embedded(vectors, *after, **options):
    """An embedding, whose integers are not measured, and layers after it."""
    vectors = tap("e", vectors, "embedding", "", width=8, **options)
    return network(vectors, *after, tap("head"))


LINEAR = tap("d1", 0.0, samples=64)
DEAD = tap("d1", np.zeros((64, 8)), activation="relu", width=8)
ZEROS, ONES = np.zeros((64, 8)), np.ones((64, 8))

EMBEDDINGS: dict[str, tuple[str, Unhealthy]] = {
    "ones": (
        "symmetric-initialization",
        Unhealthy(
            embedded(ONES, tap("d1", np.ones((64, 8)))), "e", {"weight": 1}, critical=True
        ),
    ),
    "zeros before a rectifier, without gradients": (
        "zero-activations",
        Unhealthy(embedded(ZEROS, DEAD), "e", {"rms": 0}, critical=True),
    ),
    "zeros before a rectifier": (
        "zero-activations",
        Unhealthy(embedded(ZEROS, DEAD, gradient=0.0), "e", critical=True),
    ),
    "zeros before a layer of any kind, which get no gradient": (
        "zero-activations",
        Unhealthy(embedded(ZEROS, LINEAR, gradient=0.0), "e", critical=True),
    ),
    "large vectors": (
        "unscaled-input",
        Unhealthy(
            embedded(100.0, *(tap(f"d{i}", 100.0) for i in (1, 2))),
            "d1",
            {"input_rms": 100.0, "last_rms": 100.0},
        ),
    ),
    "large vectors right before the head": (
        "unscaled-input",
        Unhealthy(embedded(100.0, tap("mean", 30.0, "pooling")), "e", {"last_rms": 30.0}),
    ),
    "infinite vectors": (
        "nonfinite-activations",
        Unhealthy(
            network(tap("e", INF, "embedding", ""), tap("head", NAN)), "e", critical=True
        ),
    ),
}

SMALL = {
    "as Keras draws them": embedded(0.029, tap("d1", 0.03), tap("d2", 0.03)),
    "of any small size": embedded(1e-6, tap("d1", 1e-6), tap("d2", 1e-6)),
    "of size 1": embedded(1.0, tap("d1")),
    "large, but not enough": embedded(below("input"), tap("d1", 9.0), tap("d2", 30.0)),
    "large before a normalization": embedded(1e3, norm("n"), tap("d1")),
    "large, right before the head after a normalization": embedded(1e3, norm("n")),
    "zeros that get a gradient": embedded(ZEROS, LINEAR, gradient=1.0),
    "zeros before a layer that passes gradients": embedded(ZEROS, LINEAR),
    "zeros before the head": embedded(ZEROS),
    "zeros next to others": network(
        *(tap("e", varied(), "embedding", ""), tap("p", ZEROS, "embedding", "", width=8)),
        *(tap("sum", varied(), "merge", "e p"), tap("d1", varied()), tap("head")),
    ),
    "factors of one next to an input": network(
        *(tap("x", varied(), "input"), tap("e", ONES, "embedding", "", width=8)),
        *(tap("times", varied(), "merge", "x e"), tap("d1", varied()), tap("head")),
    ),
    "ones of too few samples": embedded(np.ones((4, 8)), tap("d1")),
}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embeddings_are_found(name):
    """With the initializer as the cause."""
    code, unhealthy = EMBEDDINGS[name]
    check(code, unhealthy)
    (finding,) = diagnose([unhealthy.snapshot]).findings
    assert finding.fix.cause == "initializer"


@pytest.mark.parametrize("name", SMALL)
def test_embeddings_that_train_are_healthy(name):
    """The twins."""
    assert codes(SMALL[name]) == []


def test_equal_tokens_are_a_fault_of_the_data():
    """Their vectors are equal, the numbers in a vector are not."""
    vectors = np.tile(RNG.standard_normal(8), (64, 1))
    equal: Snapshot = embedded(vectors, tap("d1", np.tile(vectors[:1], (64, 1))))
    assert codes(equal) == ["constant-input"]

"""Recurrent layers and embeddings through `audit` and in training, and healthy twins."""

import keras
import numpy as np
import pytest
from keras import layers

from activation_monitor import ActivationMonitor, audit, diagnose
from cases import cases

RNG = np.random.default_rng(0)
SERIES = RNG.standard_normal((64, 8, 6)).astype("float32")
TOKENS = RNG.integers(1, 50, (64, 8)).astype("int32")
PADDED = np.where(np.arange(8) < RNG.integers(3, 8, (64, 1)), TOKENS, 0)
MOVIES = RNG.standard_normal((16, 4, 6, 6, 2)).astype("float32")
LABELS = RNG.integers(0, 3, 64)
CLASSES = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
TANH = {"return_sequences": True}


def series(*hidden):
    head = layers.Dense(3, name="head")
    return keras.Sequential([keras.Input((8, 6)), *hidden, head], name="net")


def tokens(*hidden, padded=False, **options):
    table = layers.Embedding(50, 16, mask_zero=padded, name="table", **options)
    inputs = keras.Input((8,), dtype="int32")
    head = layers.Dense(3, name="head")
    return keras.Sequential([inputs, table, *hidden, head], name="net")


def movies(scale=1.0):
    return keras.Sequential(
        [
            keras.Input((4, 6, 6, 2)),
            *(layers.ConvLSTM2D(4, 3, name="r"), layers.GlobalAveragePooling2D()),
            layers.Dense(3),
        ],
        name="net",
    ), scale * MOVIES


def normal(gain, inputs):
    """An initializer of this `sqrt(fan_in) std`."""
    return keras.initializers.RandomNormal(stddev=gain / np.sqrt(inputs))


def large(kind, gain, **options):
    return kind(32, recurrent_initializer=normal(gain, 32), name="r", **options)


def found(model, x, gradients=True):
    y = LABELS[: len(x)] if gradients else None
    model.compile("adam", CLASSES)
    return audit(model, x, y).findings


RELU = {"activation": "relu"}
SIMPLE = layers.SimpleRNN

FAULTS = {
    "pixels into an LSTM": (
        lambda: (series(layers.LSTM(32, name="r")), 100 * SERIES),
        ("saturated-activations", "net/r", "Rescaling"),
    ),
    "pixels into a GRU": (
        lambda: (series(layers.GRU(32, name="r")), 100 * SERIES),
        ("saturated-activations", "net/r", "Rescaling"),
    ),
    "pixels into both directions": (
        lambda: (
            series(layers.Bidirectional(layers.LSTM(32, name="r"), name="b")),
            100 * SERIES,
        ),
        ("saturated-activations", "net/b/forward_r net/b/backward_r", "Rescaling"),
    ),
    "pixels into an RNN of one cell": (
        lambda: (series(layers.RNN(layers.LSTMCell(32), name="r")), 100 * SERIES),
        ("saturated-activations", "net/r", "Rescaling"),
    ),
    "pixels into a convolutional LSTM": (
        lambda: movies(100.0),
        ("saturated-activations", "net/r", "Rescaling"),
    ),
    "a large kernel": (
        lambda: (
            series(layers.LSTM(32, kernel_initializer=normal(50, 6), name="r")),
            SERIES,
        ),
        ("saturated-activations", "net/r", 'kernel_initializer="glorot_uniform"'),
    ),
    "a large recurrent kernel with tanh": (
        lambda: (series(large(SIMPLE, 30.0)), SERIES),
        ("saturated-activations", "net/r", 'recurrent_initializer="orthogonal"'),
    ),
    "a large recurrent kernel of a GRU": (
        lambda: (series(large(layers.GRU, 30.0)), SERIES),
        ("saturated-activations", "net/r", 'recurrent_initializer="orthogonal"'),
    ),
    "a large recurrent kernel with relu": (
        lambda: (series(large(SIMPLE, 6.0, **RELU)), SERIES),
        ("exploding-activations", "net/r", 'recurrent_initializer="orthogonal"'),
    ),
    "the same until it overflows": (
        lambda: (series(large(SIMPLE, 1e8, **RELU)), SERIES),
        ("exploding-activations", "net/r", 'recurrent_initializer="orthogonal"'),
    ),
    "large vectors": (
        lambda: (tokens(layers.LSTM(32, name="r"), embeddings_initializer=N1000), TOKENS),
        ("saturated-activations", "net/r", 'embeddings_initializer="uniform"'),
    ),
    "large vectors before dense layers": (
        lambda: (
            tokens(layers.Flatten(), layers.Dense(8, name="d"), **{TABLE: N1000}),
            TOKENS,
        ),
        ("unscaled-input", "net/d", 'embeddings_initializer="uniform"'),
    ),
    "large vectors before the head": (
        lambda: (tokens(layers.GlobalAveragePooling1D(), **{TABLE: N1000}), TOKENS),
        ("unscaled-input", "net/table", 'embeddings_initializer="uniform"'),
    ),
    "vectors of ones": (
        lambda: (tokens(layers.LSTM(32), **{TABLE: "ones"}), TOKENS),
        ("symmetric-initialization", "net/table", 'embeddings_initializer="uniform"'),
    ),
    "vectors of zeros before relu": (
        lambda: (
            tokens(layers.Flatten(), layers.Dense(8, "relu"), **{TABLE: "zeros"}),
            TOKENS,
        ),
        ("zero-activations", "net/table", 'embeddings_initializer="uniform"'),
    ),
}
TABLE = "embeddings_initializer"
N1000 = keras.initializers.RandomNormal(stddev=1000.0)

HEALTHY = {
    "LSTM": lambda: (series(layers.LSTM(32)), SERIES),
    "GRU": lambda: (series(layers.GRU(32)), SERIES),
    "GRU, reset before": lambda: (series(layers.GRU(32, reset_after=False)), SERIES),
    "SimpleRNN": lambda: (series(SIMPLE(32)), SERIES),
    "SimpleRNN with relu": lambda: (series(SIMPLE(32, "relu")), SERIES),
    "SimpleRNN with relu and the identity": lambda: (
        series(SIMPLE(32, "relu", recurrent_initializer="identity")),
        SERIES,
    ),
    "SimpleRNN with relu and He's kernel": lambda: (
        series(SIMPLE(32, "relu", recurrent_initializer="he_normal")),
        SERIES,
    ),
    "a linear one": lambda: (series(SIMPLE(32, None)), SERIES),
    "an echo state": lambda: (series(large(SIMPLE, 1.5)), SERIES),
    "a recurrent kernel of zeros": lambda: (
        series(layers.LSTM(32, recurrent_initializer="zeros")),
        SERIES,
    ),
    "both directions": lambda: (series(layers.Bidirectional(layers.LSTM(32))), SERIES),
    "a stack": lambda: (
        series(layers.LSTM(32, **TANH), layers.LSTM(32, **TANH), layers.LSTM(32)),
        SERIES,
    ),
    "a stack of cells": lambda: (
        series(layers.RNN([layers.LSTMCell(32), layers.GRUCell(32)])),
        SERIES,
    ),
    "a convolutional LSTM": movies,
    "an input ten times too large": lambda: (series(layers.LSTM(32)), 10 * SERIES),
    "pixels after a normalization": lambda: (
        series(layers.LayerNormalization(), layers.LSTM(32)),
        100 * SERIES,
    ),
    "one large value": lambda: (series(layers.LSTM(32)), WITH_ONE_LARGE),
    "tokens": lambda: (tokens(layers.LSTM(32)), TOKENS),
    "padded tokens": lambda: (
        tokens(layers.Bidirectional(layers.GRU(32)), padded=True),
        PADDED,
    ),
    "tiny vectors": lambda: (
        tokens(layers.Flatten(), layers.Dense(8, "relu"), **{TABLE: normal(1e-6, 1)}),
        TOKENS,
    ),
    "vectors of size 1": lambda: (
        tokens(layers.LSTM(32), **{TABLE: normal(1, 1)}),
        TOKENS,
    ),
    "vectors of zeros": lambda: (tokens(layers.LSTM(32), **{TABLE: "zeros"}), TOKENS),
    "vectors of zeros before the head": lambda: (
        tokens(layers.GlobalAveragePooling1D(), **{TABLE: "zeros"}),
        TOKENS,
    ),
}
WITH_ONE_LARGE = SERIES.copy()
WITH_ONE_LARGE[3] *= 2000.0


def check(name, gradients):
    make, (code, where, line) = FAULTS[name]
    (finding,) = found(*make(), gradients)
    assert finding.code == code
    assert finding.layers == tuple(where.split())
    assert line in finding.fix.changes[0].code


@pytest.mark.parametrize(
    "name",
    cases(
        FAULTS,
        {
            *("pixels into both directions", "pixels into a convolutional LSTM"),
            *("pixels into an RNN of one cell", "a large recurrent kernel with tanh"),
            *(
                "the same until it overflows",
                "large vectors",
                "vectors of zeros before relu",
            ),
        },
    ),
)
def test_a_recurrent_layer_or_embedding_that_does_not_train_is_found(name):
    """One finding, with the line that fixes it."""
    check(name, gradients=True)


@pytest.mark.parametrize("name", cases(FAULTS, {"vectors of zeros before relu"}))
def test_it_is_found_if_gradients_are_not_measured(name):
    """Which matters only where a gradient decides."""
    check(name, gradients=False)


@pytest.mark.parametrize(
    "name",
    cases(
        HEALTHY,
        {
            *("LSTM", "GRU", "SimpleRNN", "SimpleRNN with relu and the identity"),
            *("a stack", "a stack of cells", "a convolutional LSTM", "padded tokens"),
            *("one large value", "vectors of zeros"),
        },
    ),
)
def test_recurrent_layers_and_embeddings_that_train_are_healthy(name):
    """As Keras draws them, and as others recommend."""
    assert found(*HEALTHY[name]()) == ()


@pytest.mark.parametrize("name", cases(HEALTHY, {"vectors of zeros"}))
def test_they_are_healthy_if_gradients_are_not_measured(name):
    """The same networks."""
    assert found(*HEALTHY[name](), gradients=False) == ()


@pytest.mark.parametrize(
    "name", ["pixels into an LSTM", "a large recurrent kernel with relu", "tokens"]
)
def test_training_and_its_log_say_what_an_audit_says(name, tmp_path):
    """The kernels are those before the first step, whatever that makes of them."""
    make = HEALTHY[name] if name in HEALTHY else FAULTS[name][0]
    model, x = make()
    expected = found(model, x)
    monitor = ActivationMonitor(tmp_path, on_finding=lambda finding: None)
    options = {"batch_size": len(x), "shuffle": False, "verbose": 0}
    model.optimizer.learning_rate = 10.0
    model.fit(x, LABELS, callbacks=[monitor], **options)
    for said in (monitor.diagnosis.findings, diagnose(str(tmp_path)).findings):
        assert [one.code for one in said] == [one.code for one in expected]
        assert [one.fix for one in said] == [one.fix for one in expected]
        for one, other in zip(said, expected, strict=True):
            for key, value in other.evidence.items():
                np.testing.assert_allclose(one.evidence[key], value, rtol=1e-5)

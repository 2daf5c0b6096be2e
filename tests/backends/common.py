"""Models, and trainings of them, that the tests of JAX and PyTorch share."""

import importlib

import keras
import numpy as np
from keras import layers

from activation_monitor import ActivationMonitor
from activation_monitor.analysis import records

BACKEND = keras.backend.backend()
Guide = importlib.import_module(f"backends.guide_{BACKEND}").Guide

RATE = 0.01
_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(96, 12)).astype("float32")
Y = X[:, :1] * X[:, 1:2]
SEQUENCES = _RNG.normal(size=(48, 6, 5)).astype("float32")


def perceptron(kind=keras.Model, **dtype):
    given = keras.Input((12,))
    hidden = layers.Dense(16, "relu", **dtype)(given)
    hidden = layers.Dense(8, "tanh", **dtype)(hidden)
    return kind(given, layers.Dense(1, **dtype)(hidden))


def residual():
    given = keras.Input((12,))
    x = layers.Dense(16, "relu", name="first")(given)
    y = layers.Dense(16, "relu", name="inside")(x)
    y = layers.BatchNormalization(name="norm")(y)
    x = layers.Add(name="add")([x, y])
    x = layers.Dropout(0.2, name="drop")(x)
    return keras.Model(given, layers.Dense(1, name="last")(x))


def of_sequences(*inner):
    return keras.Sequential([keras.Input((6, 5)), *inner, layers.Dense(1)])


def trained(make, x=X, y=Y, monitor=None, epochs=2, batch_size=32, fit=None, **options):
    """Weights, history and the model after a short training."""
    keras.utils.set_random_seed(1)
    model = make()
    model.compile(**{"optimizer": keras.optimizers.SGD(RATE), "loss": "mse"} | options)
    callbacks = [monitor] if monitor else []
    fit = {"epochs": epochs, "batch_size": batch_size, "shuffle": False} | (fit or {})
    history = model.fit(x, y, verbose=0, callbacks=callbacks, **fit)
    return model.get_weights(), history.history, model


def silent(**options):
    """A monitor that measures often. A finding fails the test, as every warning does."""
    return ActivationMonitor(**{"sample_every": 2} | options)


def assert_same_training(make, x=X, y=Y, monitor=None, fit=None, **options):
    """With and without a monitor: the same bits. Returns the monitor."""
    monitor = monitor or silent()
    weights, history, _ = trained(make, x, y, fit=fit, **options)
    found, measured_history, _ = trained(make, x, y, monitor, fit=fit, **options)
    for expected, one in zip(weights, found, strict=True):
        np.testing.assert_array_equal(one, expected)
    assert measured_history == history
    assert len(monitor.recording)
    return monitor


def expected_records(weights, x, y):
    """By quantity, the tensors of the first step of `perceptron`, in float64."""
    w1, b1, w2, b2, w3, b3 = (one.astype(np.float64) for one in weights)
    x, y = x.astype(np.float64), y.astype(np.float64)
    before = x @ w1 + b1
    first = np.maximum(before, 0)
    second = np.tanh(first @ w2 + b2)
    out = second @ w3 + b3
    d_out = 2 * (out - y) / out.size
    d_second = d_out @ w3.T
    d_inner = d_second * (1 - second**2)
    d_first = d_inner @ w2.T
    gradients = [x.T @ (d_first * (before > 0)), first.T @ d_inner, second.T @ d_out]
    return float(np.mean((out - y) ** 2)), {
        records.OUTPUT: [x, first, second, out],
        records.OUTPUT_GRADIENT: [None, d_first, d_second, d_out],
        records.WEIGHT: [None, w1, w2, w3],
        records.WEIGHT_GRADIENT: [None, *gradients],
        records.WEIGHT_UPDATE: [None, *(-RATE * one for one in gradients)],
    }


def assert_records(snapshot, expected, rtol=1e-5, quantities=None):
    loss, tensors = expected
    np.testing.assert_allclose(snapshot.loss, loss, rtol=rtol)
    for quantity in quantities or tensors:
        for record, tensor in zip(
            snapshot.quantities[quantity], tensors[quantity], strict=True
        ):
            if tensor is None:
                assert records.field(record, "count") == 0
                continue
            rms = np.sqrt(np.mean(tensor**2))
            found = {
                name: records.field(record, name)
                for name in ("count", "mean", "variance", "minimum", "maximum")
            }
            assert found["count"] == tensor.size
            # An update is a difference of float32 weights.
            slack = 40 * rtol if quantity == records.WEIGHT_UPDATE else rtol
            for name, value in (
                ("mean", tensor.mean()),
                ("minimum", tensor.min()),
                ("maximum", tensor.max()),
            ):
                np.testing.assert_allclose(
                    found[name], value, rtol=slack, atol=slack * rms, err_msg=quantity
                )
            np.testing.assert_allclose(found["variance"], tensor.var(), rtol=slack)

"""Small models and data for several tests, and a monitored `fit`."""

import warnings

import keras
import numpy as np
from keras import layers

from activation_monitor import ActivationMonitor

IMAGES = np.random.default_rng(1).standard_normal((50, 8, 8, 3)).astype(np.float32)
LABELS = np.random.default_rng(2).integers(0, 4, 50)


def image_network(dtype=None):
    """A network with convolution, normalization, dropout and a residual sum."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="conv", dtype=dtype)(inputs)
    x = layers.BatchNormalization(name="norm", dtype=dtype)(x)
    x = layers.Dropout(0.3, name="dropout", dtype=dtype)(x)
    x = x + layers.Conv2D(8, 3, padding="same", name="branch", dtype=dtype)(x)
    x = layers.Flatten(name="flatten", dtype=dtype)(x)
    x = layers.Dense(16, activation="tanh", name="hidden", dtype=dtype)(x)
    outputs = layers.Dense(4, activation="softmax", name="head", dtype="float32")(x)
    return keras.Model(inputs, outputs, name="net")


def perceptron(depth=3, width=16, activation="relu", initializer="he_normal", inputs=8):
    """A chain of equal layers and a linear head."""
    # One initializer object draws the same numbers at each use, so each layer has its own.
    draw = keras.initializers.get(initializer)
    hidden = [
        layers.Dense(width, activation, kernel_initializer=draw.clone(), name=f"hidden_{i}")
        for i in range(depth)
    ]
    head = layers.Dense(1, name="head")
    return keras.Sequential([keras.Input((inputs,)), *hidden, head], name="net")


def data(samples=40, inputs=8, outputs=1):
    """Gaussian inputs and targets."""
    rng = np.random.default_rng(3)
    shapes = (samples, inputs), (samples, outputs)
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)


def watch(model, x, y, batch_size=8, compile=None, monitor=None, **options):
    """Fit one epoch with a monitor; returns the monitor and its warnings."""
    if not model.compiled:
        model.compile("sgd", "mse", **(compile or {}))
    monitor = monitor or ActivationMonitor(**options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, y, batch_size=batch_size, verbose=0, callbacks=[monitor])
    ours = [str(w.message) for w in caught if "ActivationMonitor" in str(w.message)]
    return monitor, ours


def fit_in_order(model, x, y, batch_size, epochs=1, **options):
    """Fit in the order of the data with a monitor of each step that does not warn."""
    options = {"sample_every": 1, "on_finding": lambda finding: None} | options
    monitor = ActivationMonitor(**options)
    model.fit(
        *(x, y),
        batch_size=batch_size,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[monitor],
    )
    return monitor

"""Trains small models with a monitor, on the backend of this process, and saves what it
measured and found: `python same_runs.py FILE "MODEL, FAULT" ...`.

Weights and batches are drawn with numpy, so they are the same on every backend.
"""

import pickle
import sys
import warnings

import keras
import numpy as np
from keras import layers

from activation_monitor import ActivationMonitor

SAMPLES = 16


def perceptron(bias):
    given = keras.Input((24,))
    x = given
    for i in range(8):
        x = layers.Dense(32, "relu", bias_initializer=bias, name=f"hidden_{i}")(x)
    return keras.Model(given, layers.Dense(1, name="head")(x), name="net")


def residual(bias):
    given = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(given)
    for i in range(3):
        y = layers.Conv2D(8, 3, padding="same", use_bias=False, name=f"conv_{i}")(x)
        y = layers.BatchNormalization(beta_initializer=bias, name=f"norm_{i}")(y)
        x = layers.Add(name=f"add_{i}")([x, layers.ReLU(name=f"relu_{i}")(y)])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(given, layers.Dense(1, name="head")(x), name="net")


def transformer(bias):
    given = keras.Input((6, 16))
    x = given
    for i in range(2):
        y = layers.LayerNormalization(name=f"norm_{i}")(x)
        y = layers.MultiHeadAttention(2, 8, name=f"attention_{i}")(y, y)
        x = layers.Add(name=f"add_{i}")([x, y])
        y = layers.LayerNormalization(name=f"inner_norm_{i}")(x)
        y = layers.Dense(32, "relu", bias_initializer=bias, name=f"inner_{i}")(y)
        y = layers.Dense(16, name=f"outer_{i}")(y)
        x = layers.Add(name=f"outer_add_{i}")([x, y])
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(given, layers.Dense(1, name="head")(x), name="net")


def lstm(bias):
    given = keras.Input((6, 8))
    x = layers.LSTM(16, return_sequences=True, name="lstm")(given)
    x = layers.LSTM(16, name="last_lstm")(x)
    x = layers.Dense(16, "relu", bias_initializer=bias, name="dense")(x)
    return keras.Model(given, layers.Dense(1, name="head")(x), name="net")


MODELS = {
    "perceptron": perceptron,
    "residual": residual,
    "transformer": transformer,
    "lstm": lstm,
}

# By fault: the factor of all kernels but the last one, the bias of the ReLU layers,
# and whether a value of the batch is NaN.
FAULTS = {
    "healthy": (1.0, 0.0, False),
    "too large": (4.0, 0.0, False),
    "too small": (0.1, 0.0, False),
    "dead": (1.0, -100.0, False),
    "NaN": (1.0, 0.0, True),
}


def _drawn(model, factor):
    """Weights for this model: kernels of variance 2 / fan_in before ReLU, else 1 / fan_in,
    times the square of the factor; and all other weights as they are."""
    rng, found = np.random.default_rng(0), []
    for variable in model.weights:
        value = keras.ops.convert_to_numpy(variable)
        if variable.name in ("kernel", "recurrent_kernel"):
            heads = "attention" in variable.path  # (features, heads, size) and back
            fan_in = 16 if heads else value[..., 0].size
            he = any(part in variable.path for part in ("hidden", "conv", "inner", "dense"))
            std = np.sqrt((1 + he) / fan_in) * (1 if "head/" in variable.path else factor)
            value = (rng.standard_normal(value.shape) * std).astype("float32")
        found.append(value)
    return found


def run(name, fault):
    """Snapshots, findings and warnings of three steps on one batch."""
    factor, bias, with_nan = FAULTS[fault]
    keras.backend.clear_session()
    model = MODELS[name](keras.initializers.Constant(bias))
    model.set_weights(_drawn(model, factor))
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    rng = np.random.default_rng(1)
    x = rng.standard_normal((SAMPLES, *model.input_shape[1:])).astype("float32")
    if with_nan:
        x[3, 0] = np.nan
    y = rng.standard_normal((SAMPLES, 1)).astype("float32")
    monitor = ActivationMonitor(sample_every=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, y, SAMPLES, 3, shuffle=False, verbose=0, callbacks=[monitor])
    ours = [str(one.message) for one in caught if "ActivationMonitor" in str(one.message)]
    return [*monitor.recording], monitor.findings, ours


if __name__ == "__main__":
    path, *cases = sys.argv[1:]
    with open(path, "wb") as file:
        pickle.dump({case: run(*case.split(", ")) for case in cases}, file)

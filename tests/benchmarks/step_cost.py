"""What a sampled step costs: tapped steps against plain steps of the same fit.

    python tests/benchmarks/step_cost.py [--model resnet50|transformer|mlp] [--jit]

Plain and sampled steps alternate in one `fit`, so that both see the same noise of the
machine; the ratio is that of the medians. "First" is trace, compilation and run of the
first step of each kind: the plain one in a `fit` of its own before.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from activation_monitor import ActivationMonitor


def resnet50():
    model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=10)
    return model, (64, 64, 3), 32


def transformer():
    inputs = x = keras.Input((64, 128))
    for _ in range(4):
        y = keras.layers.LayerNormalization()(x)
        x = x + keras.layers.MultiHeadAttention(4, 32)(y, y)
        y = keras.layers.LayerNormalization()(x)
        y = keras.layers.Dense(512, activation="gelu")(y)
        x = x + keras.layers.Dense(128)(y)
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.LayerNormalization()(x))
    outputs = keras.layers.Dense(10, activation="softmax")(x)
    return keras.Model(inputs, outputs), (64, 128), 32


def mlp():
    hidden = [
        keras.layers.Dense(512, "relu", kernel_initializer="he_normal") for _ in range(20)
    ]
    head = keras.layers.Dense(10, activation="softmax")
    return keras.Sequential([keras.Input((512,)), *hidden, head]), (512,), 128


MODELS = {"resnet50": resnet50, "transformer": transformer, "mlp": mlp}


class Clock(keras.callbacks.Callback):
    """Times each step; before the monitor in the list, so that its work is timed too."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_train_batch_begin(self, batch, logs=None):
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self._start)


def measure(name, jit_compile, histograms, steps):
    keras.utils.set_random_seed(0)
    model, shape, batch = MODELS[name]()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch * steps, *shape)).astype("float32")
    y = rng.integers(0, 10, len(x))
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=jit_compile)
    fit = {"batch_size": batch, "verbose": 0}
    before, clock = Clock(), Clock()
    model.fit(x[:batch], y[:batch], callbacks=[before], **fit)
    monitor = ActivationMonitor(
        sample_every=lambda step: step % 2 == 1, histograms=histograms
    )
    model.fit(x, y, callbacks=[clock, monitor], **fit)
    tapped = statistics.median(clock.seconds[2::2])
    plain = statistics.median(clock.seconds[1::2])
    print(
        f"{name}, {'XLA' if jit_compile else 'graph'}, "
        f"{'with' if histograms else 'without'} histograms, "
        f"{len(monitor.recording[0].layers)} tensors: "
        f"step {tapped / plain:.2f} ({tapped:.3f} s / {plain:.3f} s), "
        f"first step {clock.seconds[0] / before.seconds[0]:.2f} "
        f"({clock.seconds[0]:.1f} s / {before.seconds[0]:.1f} s)",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    for name in arguments.model or MODELS:
        for histograms in (False, True):
            measure(name, arguments.jit, histograms, arguments.steps)


if __name__ == "__main__":
    main()

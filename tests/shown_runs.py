"""Trainings to show: real runs of small networks, healthy ones and faulty ones.

python tests/shown_runs.py FOLDER          # 1, 3 and 10 runs of 2, 12 and 150 layers
python tests/shown_runs.py FOLDER --six    # six runs, each with another fault
"""

import argparse
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from activation_monitor import ActivationMonitor

RUNS = (1, 3, 10)
LAYERS = (2, 12, 150)
WIDTH = 32
BATCH = 64


class Run(NamedTuple):
    """What one run does differently. The defaults make a healthy one.

    Attributes:
        initializer: Name of an initializer of Keras, or the std of a normal one.
        activation: Of the hidden layers.
        optimizer, rate: Its name, and the learning rate or a schedule of it.
        scale: Factor on the inputs, which have a standard deviation of 1.
    """

    initializer: str | float = "he_normal"
    activation: str = "relu"
    optimizer: str = "SGD"
    rate: float | Any = 0.02
    scale: float = 1.0


GRID = {
    "he": Run(),
    "small-init": Run(initializer=0.02),
    "large-steps": Run(optimizer="Adam", rate=0.1),
    "adam": Run(optimizer="Adam", rate=1e-3),
    "large-init": Run(initializer=0.6),
    "tanh": Run("glorot_normal", "tanh"),
    "tanh-saturated": Run(0.8, "tanh"),
    "tiny-steps": Run(rate=1e-7),
    "unscaled": Run(scale=100.0, rate=1e-6),
    "selu": Run("lecun_normal", "selu", "Adam", 1e-3),
}
"""Name of each run and what it does. The first is healthy, the first three differ."""


def digits(scale=1.0):
    """The handwritten digits of scikit-learn, standardized, times a factor."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean()) / images.std() * scale
    return images.astype(np.float32), labels


# -- networks


def initializer(name):
    if isinstance(name, str):
        return keras.initializers.get(name).clone()
    return keras.initializers.RandomNormal(stddev=name)


def dense(run, name, activation=None):
    return keras.layers.Dense(
        WIDTH,
        activation or run.activation,
        kernel_initializer=initializer(run.initializer),
        name=name,
    )


class Block(keras.layers.Layer):
    """A residual block of four layers: a normalization and three Dense."""

    def __init__(self, run, name):
        super().__init__(name=name)
        self.inner = [
            keras.layers.LayerNormalization(name="norm"),
            dense(run, "dense_1"),
            dense(run, "dense_2"),
            dense(run, "project", "linear"),
        ]

    def call(self, x):
        y = x
        for layer in self.inner:
            y = layer(y)
        return x + y


class Blocks(keras.layers.Layer):
    """Blocks in a row."""

    def __init__(self, run, count, name):
        super().__init__(name=name)
        self.blocks = [Block(run, f"block_{i}") for i in range(count)]

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def network(run, layers):
    """A network with so many layers; from 40 on, residual and in modules."""
    if layers < 40:
        hidden = [dense(run, f"dense_{i}") for i in range(1, layers)]
    else:
        encoder, rest = divmod(layers - 2, 8)
        decoder, rest = encoder + rest // 4, rest % 4
        hidden = [
            dense(run, "stem"),
            Blocks(run, encoder, "encoder"),
            Blocks(run, decoder, "decoder"),
            *[dense(run, f"neck_{i}") for i in range(rest)],
        ]
    head = keras.layers.Dense(10, "softmax", name="digit")
    return keras.Sequential([keras.Input((64,)), *hidden, head], name="net")


def fit(folder, model, run, x, y, sample_every=10, **options):
    """Compile and fit a model, and write its log."""
    optimizer = getattr(keras.optimizers, run.optimizer)(run.rate)
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    monitor = ActivationMonitor(
        folder, sample_every=sample_every, on_finding=lambda finding: None
    )
    model.fit(x, y, BATCH, verbose=0, callbacks=[monitor], **options)


def train(folder, runs=3, layers=12, epochs=8):
    """Train runs of `GRID`.

    Args:
        folder: Where their logs go, each to a folder with the name of the run.
        runs: How many of them, from the first on.
        layers: Of each network.
        epochs: Of 29 steps each.
    """
    for name, run in list(GRID.items())[:runs]:
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        fit(
            Path(folder, name), network(run, layers), run, *digits(run.scale), epochs=epochs
        )


def train_all(folder):
    """Train `RUNS` times `LAYERS`, in folders such as `3x12`, and the runs of `SIX`."""
    for layers in LAYERS:
        most = Path(folder, f"{max(RUNS)}x{layers}")
        train(most, max(RUNS), layers)
        for runs in RUNS[:-1]:
            for name in list(GRID)[:runs]:
                to = Path(folder, f"{runs}x{layers}", name)
                shutil.copytree(most / name, to, dirs_exist_ok=True)
    train_six(Path(folder, "six"))


# -- six faults


def chaotic():
    """Large weights in a tanh network: the limits of tanh keep the signal at one size, and
    nothing keeps the gradient (Poole et al. 2016, Schoenholz et al. 2017)."""
    run = Run(2.5 / WIDTH**0.5, "tanh", rate=1e-4)
    return run, network(run, 30), {}


def dying():
    """Steps that double every 40 steps, until units of ReLU stay below 0."""
    growing = keras.optimizers.schedules.ExponentialDecay(1e-3, 40, 2.0)
    run = Run(optimizer="Adam", rate=growing)
    return run, network(run, 10), {}


def bad_sample(step=200):
    """One missing pixel in one image of the batch of a step."""
    run = Run("lecun_normal", "selu")
    x, y = digits()
    x, y = np.tile(x, (12, 1)), np.tile(y, 12)
    x[step * BATCH + 5, 30] = np.nan
    return run, network(run, 10), {"x": x, "y": y, "epochs": 1, "shuffle": False}


def vanishing():
    """Kernels of the standard deviation that suits layers of 2,000 inputs."""
    run = Run(initializer=0.03, rate=0.05)
    return run, network(run, 12), {}


def tiny_steps():
    """A learning rate a million times too small."""
    run = Run(rate=2e-8)
    return run, network(run, 10), {}


def saturated():
    """Kernels so large that tanh is at its limits for nearly every input."""
    run = Run(3.0, "tanh", rate=0.01)
    return run, network(run, 6), {}


def healthy():
    """Nothing wrong."""
    run = Run(rate=0.02)
    return run, network(run, 12), {}


SIX = {
    "run-1": dying,
    "run-2": tiny_steps,
    "run-3": bad_sample,
    "run-4": saturated,
    "run-5": chaotic,
    "run-6": vanishing,
}
"""Names that do not tell what is wrong, for who tries to see it."""


def train_six(folder, with_healthy=False):
    """Train six runs, each with another fault."""
    for name, make in (SIX | ({"run-7": healthy} if with_healthy else {})).items():
        keras.utils.clear_session()
        keras.utils.set_random_seed(1)
        run, model, options = make()
        x, y = digits(run.scale)
        options = {"x": x, "y": y, "epochs": 12} | options
        fit(Path(folder, name), model, run, sample_every=5, **options)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--six", action="store_true", help="six runs, six faults")
    parser.add_argument("--runs", type=int, help="only so many runs ...")
    parser.add_argument("--layers", type=int, default=12, help="... of so many layers [12]")
    arguments = parser.parse_args()
    if arguments.six:
        train_six(Path(arguments.folder, "six"))
        train_six(Path(arguments.folder, "six-with-healthy"), with_healthy=True)
    elif arguments.runs:
        train(arguments.folder, arguments.runs, arguments.layers)
    else:
        train_all(arguments.folder)


if __name__ == "__main__":
    main()

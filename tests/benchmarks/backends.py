"""What a sampled step costs on TensorFlow, JAX and PyTorch.

    python tests/benchmarks/backends.py --backends torch --models mlp

Each backend runs in a process of its own. Within one `fit` of each model, four sampled
steps follow four plain ones and so on, so that both kinds meet the same machine. The ratio
is that of the medians of neighbouring groups, from the begin of a step to the begin of the
next one; the first step of a group does not count. Medians with 95 % intervals.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "overhead"))

GROUP = 4
WAYS = {
    "outputs, weights": {"gradients": False, "histograms": False},
    "and gradients": {"histograms": False},
    "and histograms": {},
}
"""The options of the monitor, each with what the one before it measures."""


def measured(name, options, groups):
    """Times of steps in ms: of the first plain and the first sampled one; and of the plain
    and sampled ones after them, by group."""
    import keras

    import models
    from activation_monitor import ActivationMonitor

    begins = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            begins.append(time.perf_counter())

    keras.utils.set_random_seed(0)
    build, batch = models.BUILDERS[name]
    model = build()
    model.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    steps = 2 * GROUP * groups
    shape = (models.BATCHES * batch, *model.input_shape[1:])
    x = rng.standard_normal(shape, dtype="float32")
    y = rng.integers(0, 10, shape[0])
    epochs = -(-(steps + 1) // models.BATCHES)
    monitor = ActivationMonitor(
        sample_every=lambda step: step // GROUP % 2 == 1,
        on_finding=lambda finding: None,
        **options,
    )
    model.fit(
        *(x, y, batch),
        epochs=epochs,
        verbose=0,
        shuffle=False,
        callbacks=[Clock(), monitor],
    )
    times = 1e3 * np.diff(begins)[:steps]
    by_group = np.median(times.reshape(groups, 2, GROUP)[:, :, 1:], axis=-1)
    return times[0], times[GROUP], by_group[1:]  # the first group compiles


def here(names, groups):
    """Measure on the backend of this process; prints a row of JSON for each figure."""
    import keras
    from intervals import median

    warnings.simplefilter("ignore")
    for name in names:
        for way, options in WAYS.items():
            first, sampled, times = measured(name, options, groups)
            ratio = median(times[:, 1] / times[:, 0])._asdict()
            row = {
                "backend": keras.backend.backend(),
                "model": name,
                "way": way,
                "first plain": first,
                "first sampled": sampled,
                "plain": float(np.median(times[:, 0])),
                "ratio": ratio,
            }
            print(json.dumps(row), flush=True)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backends", nargs="+", default=("tensorflow", "jax", "torch"))
    parser.add_argument("--models", nargs="+", default=("mlp", "transformer", "resnet50"))
    parser.add_argument("--groups", type=int, default=12)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        return here(arguments.models, arguments.groups)
    again = [sys.executable, *sys.argv, "--here"]
    for backend in arguments.backends:
        quiet = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run(again, env=os.environ | quiet, check=True)
    return None


if __name__ == "__main__":
    main()

"""What the host does with a sampled step, and what the log takes.

    python tests/benchmarks/log_cost.py [--json FILE]

Four tables: bytes of log for each layer and snapshot; milliseconds for each sampled step,
in the training thread and in all threads, files included; seconds to read a log; seconds to
import the package and to begin a `fit`. The snapshots are made of random arrays, in a chain
of layers that all have a kernel, with all quantities, which is the most that a snapshot can
hold. "Forward" is without gradients and updates.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np

from activation_monitor.analysis import histogram, records
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot
from activation_monitor.storage.log_format import RUN
from activation_monitor.storage.reader import read_run
from activation_monitor.storage.writer import EventLog

DIFFERENT = 5
"""Snapshots that are made; a longer log repeats them."""

BUDGET = "2 ms + 20 us a layer"


COUNTED = ("output", "output_gradient", "weight", "weight_gradient")
"""The quantities that have histograms."""


def counts_of(tensor):
    """The vector of a histogram."""
    counts, _ = np.histogram(tensor, histogram.BUCKETS)
    return [1, tensor.min(), tensor.max(), *counts]


def layers(many):
    """A chain of Dense layers with ReLU."""
    names = [f"functional/stage_{i // 8}/dense_{i}" for i in range(many)]
    return tuple(
        LayerInfo(
            *(name, "Dense", "weight", "relu", 256, "float32", (i - 1,) if i else ()),
            fan_in=256.0,
            initializer="HeNormal()",
        )
        for i, name in enumerate(names)
    )


def snapshots(many, backward=True):
    """Snapshots of a healthy network with so many layers."""
    rng, made = np.random.default_rng(0), []
    named = layers(many)
    sizes = {"weight": np.sqrt(2 / 256), "weight_gradient": 1e-2, "weight_update": 1e-4}
    for _ in range(DIFFERENT):
        quantities = {name: records.empty(many) for name in records.QUANTITIES}
        counted = {name: histogram.none(many) for name in COUNTED}
        for i in range(many):
            x = rng.standard_normal((64, 256), np.float32)
            tensors = {
                "output": np.maximum(x, 0) * np.float32(np.sqrt(2)),
                "output_gradient": rng.standard_normal(x.shape, np.float32)
                * np.float32(1e-4),
            }
            for name, tensor in tensors.items():
                of = "relu" if name == "output" else "linear"
                quantities[name][i] = records.measure(tensor, of)
                counted[name][i] = counts_of(tensor)
            for name, size in sizes.items():
                kernel = rng.standard_normal((32, 256), np.float32) * np.float32(size)
                quantities[name][i] = records.measure(kernel)
                if name in counted:
                    counted[name][i] = counts_of(kernel.ravel()[:4096])
        if not backward:
            quantities = {name: quantities[name] for name in ("output", "weight")}
            counted = {name: counted[name] for name in quantities}
        made.append(Snapshot(0, named, quantities, counted, loss=0.5))
    return made


def at_step(made, step, histograms=True):
    """The snapshot of a step."""
    one = made[step % len(made)]
    return Snapshot(
        step, one.layers, one.quantities, one.histograms if histograms else {}, 1, one.loss
    )


def written(folder, made, steps, histograms=True, scalars=True):
    log = EventLog(folder, scalars=scalars)
    for step in range(steps):
        log.write(at_step(made, step, histograms))
    log.close()
    return sum(path.stat().st_size for path in (Path(folder) / RUN).iterdir())


def bytes_per_layer(many=200):
    """Bytes for each layer and snapshot after so many snapshots.

    Without the first one, which has the table of the layers.
    """
    made = {True: snapshots(many), False: snapshots(many, backward=False)}
    found = {}
    for backward, histograms, scalars in product([False, True], repeat=3):
        made_of = made[backward]
        written_too = " + histograms" * histograms + " + scalars" * scalars
        which = "forward and backward" if backward else "forward"
        row = found[f"{which}: statistics{written_too}"] = {}
        with tempfile.TemporaryDirectory() as folder:
            first = written(f"{folder}/1", made_of, 1, histograms, scalars)
            for steps in (65, 1001):
                size = written(f"{folder}/{steps}", made_of, steps, histograms, scalars)
                row[f"{steps - 1} snapshots"] = (size - first) / many / (steps - 1)
    return found


def host_work(many, steps=60):
    """Milliseconds of `Run.add` in the training thread, and of all threads, a step."""
    from activation_monitor.run import Attempts, Run

    made, waits = snapshots(many), []
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Attempts(), folder, RUN)
        run.open()
        start = time.process_time()
        for step in range(steps):
            snapshot = at_step(made, step)
            before = time.perf_counter()
            run.add(snapshot)
            waits.append(time.perf_counter() - before)
            if step == 0:
                run.flush()
                first, start = time.process_time() - start, time.process_time()
            time.sleep(0.002 + 40e-6 * many)  # the training step
        run.flush()
        worked = (time.process_time() - start) / (steps - 1)
        run.close()
    return {
        "budget": 2 + 0.02 * many,
        "in the training thread": 1e3 * statistics.median(waits[1:]),
        "the longest": 1e3 * max(waits[1:]),
        "all threads": 1e3 * worked,
        "first step, all threads": 1e3 * first,
    }


def reading(many=200, steps=1000):
    """Seconds to read a log, the best of three."""
    made, taken = snapshots(many), []
    with tempfile.TemporaryDirectory() as folder:
        size = written(folder, made, steps)
        for _ in range(3):
            start = time.perf_counter()
            read = read_run(folder)
            taken.append(time.perf_counter() - start)
        assert len(read) == steps
    return {"seconds": min(taken), "MB": size / 1e6}


BEGINS = """
import os, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, tensorflow
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(1)])
model.compile("sgd", "mse")
start = time.perf_counter()
from activation_monitor import ActivationMonitor
imported = time.perf_counter() - start
monitor = ActivationMonitor({folder!r})
monitor.set_model(model)
monitor.on_train_begin()
print(imported, time.perf_counter() - start)
"""


def seconds(code):
    """Seconds that a new Python takes for a code, and what it prints."""
    start = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return time.perf_counter() - start, run.stdout


def importing(times=5):
    """Seconds to import the package; and, where Keras is loaded, to begin a `fit`."""
    plain, ours, begins = [], [], []
    for _ in range(times):
        plain.append(seconds("pass")[0])
        ours.append(seconds("import activation_monitor")[0])
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            _, printed = seconds(BEGINS.format(folder=folder))
            begins.append([float(word) for word in printed.split()[-2:]])
    imported, begun = np.median(begins, axis=0)
    return {
        "import activation_monitor": statistics.median(ours) - statistics.median(plain),
        "import ActivationMonitor after Keras": imported,
        "the same, and until tracing begins": begun,
    }


def show(title, rows):
    print(f"\n{title}")
    for name, row in rows.items():
        print(f"  {name}: " + ", ".join(f"{key} {value:.3g}" for key, value in row.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="a file for the numbers")
    arguments = parser.parse_args()
    found = {
        "bytes of log for each layer and snapshot, 200 layers": bytes_per_layer(),
        f"host work of a sampled step in ms (budget {BUDGET})": {
            f"{many} layers": host_work(many) for many in (20, 200, 1000)
        },
        "reading 1,000 snapshots of 200 layers": {"read_run": reading()},
        "imports in s": {"seconds": importing()},
    }
    for title, rows in found.items():
        show(title, rows)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

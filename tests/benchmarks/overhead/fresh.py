"""What a process can measure only once: each figure comes from processes of its own.

With a JSON argument this file is such a process: it measures and prints JSON. Without a
monitor or with one, processes alternate.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent


def measured(kind: str, **arguments) -> dict:
    """What a new process measures.

    Args:
        kind: A key of `KINDS`.
        **arguments: Those of its function.

    Returns:
        What the function returned.
    """
    done = subprocess.run(
        [sys.executable, __file__, json.dumps({"kind": kind} | arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    if done.returncode:
        raise RuntimeError(f"{kind} {arguments} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def alternating(kind: str, variants: dict[str, dict], repeats: int, say, **same) -> dict:
    """Measure variants in alternation, every second time in the opposite order.

    Args:
        kind: A key of `KINDS`.
        variants: Name to the arguments in which they differ.
        repeats: Processes of each.
        say: Called with what happens.
        **same: The arguments that they share.

    Returns:
        Name to what the processes returned, a list.
    """
    found = {name: [] for name in variants}
    for repeat in range(repeats):
        for name in list(variants)[:: -1 if repeat % 2 else 1]:
            say(f"{kind}, {same.get('way', '')}: {name}, {repeat + 1} of {repeats}")
            found[name].append(measured(kind, **same | variants[name]))
    return found


# -- in the process


def first(way, monitor=None):
    """Seconds of the first step of a `fit`: trace, compilation and run.

    Of the first model of the process and of a second one, which finds what is made once
    for a process.
    """
    import turns

    import models

    found = []
    for compiled in (warmed_up(way), models.compiled(models.Way(*way))):
        clock = turns.Clock()
        fit(compiled, 2, [clock, *monitors(monitor)])
        found.append(clock.seconds[0])
    return {"first model": found[0], "second model": found[1]}


def training(way, steps, monitor=None):
    """Seconds of a whole `fit`, compilation and log included."""
    import tensorflow as tf

    compiled = warmed_up(way)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        fit(compiled, steps, monitors(monitor, folder))
        tf.test.experimental.sync_devices()
        return {"whole": time.perf_counter() - began}


def memory(way, monitor=None, batch=None):
    """Bytes that training takes at its peak, above what the process held before.

    On a GPU what TensorFlow has allocated in a step after the first ones. On a CPU the
    resident memory, which includes that of tracing and compilation.
    """
    import tensorflow as tf

    import models

    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    warmed_up(way)
    compiled = models.compiled(models.Way(*way), batch)
    callbacks = monitors(monitor)
    before = status("VmRSS")
    fit(compiled, 3, callbacks)
    if not on_gpu:
        return {"bytes": status("VmHWM") - before}
    tf.config.experimental.reset_memory_stats("GPU:0")
    fit(compiled, 1, callbacks)
    return {"bytes": tf.config.experimental.get_memory_info("GPU:0")["peak"]}


def log(way, monitor, few=10, many=60):
    """Bytes of the log per layer and snapshot, without what is written once."""
    import models

    sizes = []
    for steps in (few, many):
        callbacks = []
        with tempfile.TemporaryDirectory() as folder:
            callbacks = monitors({"sample_every": 1} | monitor, folder)
            fit(models.compiled(models.Way(*way)), steps, callbacks)
            sizes.append(size(folder))
    layers = len(callbacks[0].recording[0].layers)
    return {"bytes": (sizes[1] - sizes[0]) / (many - few) / layers, "layers": layers}


def board(layers, steps, scalars, loader="fast"):
    """Bytes that TensorBoard takes with the tab open, and seconds to read the log back.

    A synthetic log without histograms. The fast loader has a process of its own, which
    counts.
    """
    sys.path += [str(HERE.parent), str(HERE.parent.parent)]
    import numpy as np
    import tab_speed

    import board as tensorboard
    from activation_monitor import read_recording
    from activation_monitor.storage import writer

    rng, chain = np.random.default_rng(0), tab_speed.layers(layers)
    with tempfile.TemporaryDirectory() as folder:
        written = writer.EventLog(Path(folder) / "run", scalars=scalars)
        for step in range(steps):
            written.write(tab_speed.snapshot(step, chain, rng))
        written.close()
        written = size(folder)
        before = status("VmRSS")
        client = tensorboard.Client(folder, loader)
        client.wait_for(tab_speed.RUN, step=steps - 1)
        client.get("figure", kind="heat_map", run=tab_speed.RUN)
        found = {
            "log": written,
            "bytes": status("VmRSS")
            - before
            + sum(status("VmRSS", process) for process in children()),
        }
        began = time.perf_counter()
        read = read_recording(Path(folder) / "run")
        return found | {"read": time.perf_counter() - began, "snapshots": len(read)}


KINDS = {function.__name__: function for function in (first, training, memory, log, board)}


def warmed_up(way):
    """The model, after a step of another one: the start of Keras is nobody's cost."""
    import models

    fit(models.compiled(models.Way("chain-2", *way[1:])), 1, [])
    return models.compiled(models.Way(*way))


def fit(compiled, steps, callbacks):
    compiled.model.fit(compiled.data, steps_per_epoch=steps, callbacks=callbacks, verbose=0)


def monitors(arguments, folder=None):
    """A list with a monitor, or without one."""
    if arguments is None:
        return []
    from activation_monitor import ActivationMonitor

    quiet = {"on_finding": lambda finding: None}
    return [ActivationMonitor(folder, **arguments | quiet)]


def size(folder):
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def status(field, process="self"):
    """A field of Linux' /proc/PID/status, in bytes; 0 if the process is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return 1024 * int(found[0]) if found else 0


def children():
    """The processes that this one started, as text."""
    each = Path("/proc/self/task").glob("*/children")
    return [process for path in each for process in path.read_text().split()]


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(KINDS[given.pop("kind")](**given)))

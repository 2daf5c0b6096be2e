"""What one update of a monitor in a notebook costs.

    python tests/benchmarks/notebook_cost.py

Prints the time to make what a cell shows, and its size, for networks of several depths with
gradients, after 30 sampled steps. The time is the median of 9.
"""

import base64
import dataclasses
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from activation_monitor.analysis.diagnosis import diagnose
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views import notebook
from networks import Drawn

LAYERS = (2, 12, 150)
STEPS, TIMES = 30, 9


def measure(layers):
    """Seconds, and bytes, of one update."""
    net = Drawn(0).chain(layers)
    drawn = net.snapshot(0)
    outputs = drawn.quantities["output"]
    quantities = {**drawn.quantities, "output_gradient": outputs}  # of the same size
    drawn = dataclasses.replace(drawn, quantities=quantities)
    recording = Recording(dataclasses.replace(drawn, step=10 * i) for i in range(STEPS))
    diagnosis, times = diagnose(recording), []
    for _ in range(TIMES):
        start = time.perf_counter()
        made = notebook.bundle(diagnosis, recording, "")
        times.append(time.perf_counter() - start)
    size = len(made["text/html"]) + len(base64.b64decode(made["image/png"]))
    return statistics.median(times), size


if __name__ == "__main__":
    for layers in LAYERS:
        seconds, size = measure(layers)
        print(f"{layers} layers: {1000 * seconds:.0f} ms, {size / 1000:.0f} kB")

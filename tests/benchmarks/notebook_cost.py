"""What one update of a monitor in a notebook costs.

    python tests/benchmarks/notebook_cost.py

Prints the time to make what a cell shows, and its size, for networks of several depths with
gradients, after 30 sampled steps: healthy ones, and ones in which every second layer has
dead units. The time is the median of 9.
"""

import base64
import dataclasses
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from activation_monitor.analysis import records
from activation_monitor.analysis.diagnosis import diagnose
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views import notebook
from networks import Drawn

LAYERS = (2, 12, 150)
STEPS, TIMES = 30, 9


def measure(layers, dead=False):
    """Seconds, and bytes, of one update, and the codes of the findings in it."""
    net = Drawn(0).chain(layers)
    drawn = net.snapshot(0)
    outputs = drawn.quantities["output"].copy()
    if dead:
        for row in range(1, len(outputs), 2):
            width = drawn.layers[row].width
            records.field(outputs, "dead_units")[row] = width - 1
            zeros = records.field(outputs, "counted")[row] * (width - 1) / width
            records.field(outputs, "zeros")[row] = zeros
    # The gradients are of the same size.
    quantities = {**drawn.quantities, "output": outputs, "output_gradient": outputs}
    drawn = dataclasses.replace(drawn, quantities=quantities)
    recording = Recording(dataclasses.replace(drawn, step=10 * i) for i in range(STEPS))
    diagnosis, times = diagnose(recording), []
    for _ in range(TIMES):
        start = time.perf_counter()
        made = notebook.bundle(diagnosis, recording, "")
        times.append(time.perf_counter() - start)
    size = len(made["text/html"]) + len(base64.b64decode(made["image/png"]))
    return statistics.median(times), size, [one.code for one in diagnosis.findings]


if __name__ == "__main__":
    for layers in LAYERS:
        for dead in (False, True):
            seconds, size, codes = measure(layers, dead)
            print(
                f"{layers} layers, {', '.join(codes) or 'no findings'}: "
                f"{1000 * seconds:.0f} ms, {size / 1000:.0f} kB"
            )

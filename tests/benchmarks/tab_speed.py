"""How long TensorBoard's tab takes for a long training of a deep network.

    python tests/benchmarks/tab_speed.py [LAYERS STEPS]

Writes a log of 200 layers x 5000 steps (about two minutes, 190 MB, in a temporary
folder), loads it with each of TensorBoard's loaders and prints the seconds that each of
the tab's questions takes.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

import board
from activation_monitor.analysis import records
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot
from activation_monitor.storage import writer

VIEWS = ("depth_profile", "heat_map", "layer_over_time", "histogram_over_time")
RUN = "run/activations"


def layers(count):
    """A chain of Dense layers."""
    first = LayerInfo("given", "InputLayer", "input", "linear", 512, "float32", ())
    hidden = (
        LayerInfo(
            *(f"net/dense_{i}", "Dense", "weight", "relu", 512, "float32", (i,)),
            fan_in=512,
            initializer="HeNormal()",
        )
        for i in range(count - 1)
    )
    return first, *hidden


def snapshot(step, chain, rng):
    """A healthy network, drifting a little."""
    found = records.empty(len(chain))
    scale = 10 ** (0.002 * rng.normal(size=len(chain)).cumsum() + 1e-6 * step)
    fields = {
        "count": 65536,
        "samples": 128,
        "zeros": 30000,
        "minimum": 0,
        "dead_units": 0,
        "mean": 0.5 * scale,
        "variance": 0.7 * scale**2,
        "maximum": 4 * scale,
        "second_moment": 0.95 * scale**2,
        "within_variance": 0.6 * scale**2,
    }
    for name, value in fields.items():
        found[:, records.FIELD_NAMES.index(name)] = value
    return Snapshot(step, chain, {"output": found})


def main(count=200, steps=5000):
    rng, chain = np.random.default_rng(0), layers(count)
    with tempfile.TemporaryDirectory() as folder:
        log = writer.EventLog(Path(folder) / "run")
        for i in range(steps):
            log.write(snapshot(100 * i, chain, rng))
        log.close()
        for loader in board.LOADERS:
            client, clock = board.Client(folder, loader), Clock()
            client.wait_for(RUN, step=100 * (steps - 1))
            print(f"{loader} loader: TensorBoard had it after {clock.lap():.1f} s")
            assert len(client.json("run", run=RUN)["steps"]) == steps
            print(f"  read and judged, once      {clock.lap():.2f} s")
            for view in VIEWS:
                asked = {"kind": view, "run": RUN, "layer": chain[-1].name}
                client.get("figure", **asked)
                clock.lap()
                size = len(client.get("figure", **asked).data)
                print(f"  {view:26} {clock.lap():.2f} s, {size / 1e3:.0f} kB")


class Clock:
    """Seconds since the lap before."""

    def __init__(self):
        self._at = time.perf_counter()

    def lap(self):
        before, self._at = self._at, time.perf_counter()
        return self._at - before


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))

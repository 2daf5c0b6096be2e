"""The rule on weights that grow without bound."""

from collections.abc import Iterator

import numpy as np

from activation_monitor.analysis import records, trend
from activation_monitor.analysis.causes import Steps
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found
from activation_monitor.analysis.rules.over_time.lasting import found_since, mean_ratio
from activation_monitor.analysis.shown import listed
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit
from activation_monitor.analysis.window import Window


def may_be_growing(window: Window) -> bool:
    """Whether `growing` could find anything."""
    return window.first is not None and bool(_far(window.newest, window.first).any())


def growing(window: Window, profile: DepthProfile) -> Iterator[Found]:
    """Weights that are many times as large as at first, large, and still growing."""
    del profile
    if window.first is None:
        return
    first = window.first
    far = np.logical_and.reduce([_far(one, first) for one in window.lasting])
    rms = window.statistic("rms", records.WEIGHT)
    still = (trend.rising(rms) > limit("rising")) & (
        rms[-1] > limit("growing-weights-still") * rms[0]
    )
    rows = np.flatnonzero(far & still).tolist()
    if not rows:
        return
    was = first.statistic("rms", records.WEIGHT)
    names = [window.newest.layers[row].name for row in rows]
    row = max(rows, key=lambda row: rms[-1, row] / was[row])
    factor = rms[-1, row] / was[row]
    fan_in = window.newest.layers[row].fan_in
    yield found_since(
        window.lasting[0],
        window,
        "growing-weights",
        names,
        {"factor": factor, "gain": rms[-1, row] * np.sqrt(fan_in), "layers": len(names)},
        f"The weights of {listed(names)} grow without bound: those of "
        f"{window.newest.layers[row].name} have {factor:.3g} times the rms of step "
        f"{first.step} at step {window.newest.last_step}, {rms[-1, row]:.3g} with a fan-in "
        f"of {fan_in:.0f}, and keep growing. The loss does not fall with it.",
        Steps(mean_ratio(window.newest), "growth"),
    )


def _far(snapshot: Snapshot, first: Snapshot) -> np.ndarray:
    """Whether the weights of a layer have grown far beyond their size at first: a factor,
    and far beyond the size that keeps a signal, which is `1 / sqrt(fan_in)`."""
    new, old = (one.statistic("rms", records.WEIGHT) for one in (snapshot, first))
    with np.errstate(invalid="ignore"):
        grown = (new > limit("growing-weights") * old) & (old > 0)
    for row in np.flatnonzero(grown).tolist():
        gain = new[row] * np.sqrt(snapshot.layers[row].fan_in)
        grown[row] = gain > limit("growing-weights-gain")
    return grown

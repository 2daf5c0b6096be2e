"""Rules on jumps: of the loss, of the size of activations and weights. Only upwards."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from activation_monitor.analysis import records, trend
from activation_monitor.analysis.causes import Steps
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found
from activation_monitor.analysis.rules.over_time.lasting import found_since, mean_ratio
from activation_monitor.analysis.shown import listed
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit
from activation_monitor.analysis.window import Window, log10

_MEASURED = {records.OUTPUT: "outputs", records.WEIGHT: "weights"}


def may_be_of_loss(window: Window) -> bool:
    """Whether `of_loss` could find anything."""
    return _lost(window, window.newest.loss)


def _lost(window: Window, loss: float) -> bool:
    """Whether a loss is so high that the network has lost most of what it had learned."""
    return window.first is not None and (
        loss >= limit("loss-jump-to") * window.first.loss > 0
    )


def of_loss(window: Window, profile: DepthProfile) -> Iterator[Found]:
    """The loss has jumped up, and stays there."""
    ends = [profile.graph.layers[row].name for row in profile.graph.ends]
    known = window.open.get("loss-jump")
    if known is not None:
        if window.newest.loss > known.evidence["before"] * _half("loss-jump"):
            yield _still(window, "loss-jump", ends)
        return
    rows, first = _after_the_start(window), window.first
    at = _jump(log10(window.losses[rows]), limit("loss-jump"), sudden=0.0)
    if at is None or first is None or not _lost(window, 10**at.after):
        return
    since, before, after = window.snapshots[rows[at.row]], 10**at.before, 10**at.after
    yield found_since(
        since,
        window,
        "loss-jump",
        ends,
        {"before": before, "after": after, "first": first.loss},
        f"The loss has jumped to {after / before:.3g} times its size between the steps "
        f"{window.snapshots[rows[at.row - 1]].step} and {since.step}, from {before:.3g} to "
        f"{after:.3g}, and stays there. At the first step it was {first.loss:.3g}: "
        "most of what had been learned is lost.",
        Steps(mean_ratio(since), "jump"),
        critical=after >= first.loss,
    )


def may_be_of_scale(window: Window) -> bool:
    """Whether `of_scale` could find anything."""
    return "scale-jump" in window.open or any(
        len(_screened(window, of)) for of in _MEASURED
    )


class _Layer(NamedTuple):
    """A layer whose size has jumped."""

    row: int
    of: str
    at: trend.Jump


def of_scale(window: Window, profile: DepthProfile) -> Iterator[Found]:
    """The size of a layer's output, or of its weights, has jumped up and stays there."""
    known = window.open.get("scale-jump")
    if known is not None:
        of = records.WEIGHT if "weight_before" in known.evidence else records.OUTPUT
        names = window.newest.names
        rms = window.newest.statistic("rms", of)[names.index(known.layers[0])]
        before = known.evidence[f"{of}_before"]
        if rms > before * _half("scale-jump"):
            yield _still(window, "scale-jump", known.layers)
        return
    rows = _after_the_start(window)
    jumped: dict[int, _Layer] = {}
    for of in (records.WEIGHT, records.OUTPUT):
        logs = log10(window.statistic("rms", of)[rows])
        for row in _screened(window, of):
            at = _jump(logs[:, row], limit("scale-jump"), limit("jump-sudden"))
            if at is not None:
                jumped.setdefault(row, _Layer(row, of, at))
    if not jumped:
        return
    first = jumped[min(jumped)]  # in the order of the calls
    names = [window.newest.layers[row].name for row in sorted(jumped)]
    layer = window.newest.layers[first.row]
    given = layer.kind == "input" and not layer.parents
    since = window.snapshots[rows[first.at.row]]
    last = window.snapshots[rows[first.at.row - 1]].step
    before, after = 10**first.at.before, 10**first.at.after
    what = "input of the model" if given else f"{_MEASURED[first.of]} of {layer.name}"
    also = f" So did {listed(names[1:])}." if len(names) > 1 else ""
    yield found_since(
        since,
        window,
        "scale-jump",
        names,
        {
            f"{first.of}_before": before,
            f"{first.of}_after": after,
            "factor": after / before,
            "layers": len(names),
        },
        f"The rms of the {what} has jumped to {after / before:.3g} times its size between "
        f"the steps {last} and {since.step}, from {before:.3g} to {after:.3g}, and stays "
        f"there.{also} The loss is as high as at the beginning.",
        Steps(mean_ratio(since), "input" if given else "jump"),
    )


def _screened(window: Window, of: str) -> list[int]:
    """The rows of which the newest value is far above one before the last ones."""
    back = int(limit("patience")) + 1
    if len(window.snapshots) < back:
        return []
    # Each snapshot is judged once as the last one of the patience after the jump.
    new, old = (window.snapshots[-n].statistic("rms", of) for n in (1, back))
    with np.errstate(invalid="ignore"):
        return np.flatnonzero((new > old * _half("scale-jump")) & (old > 0)).tolist()


def _after_the_start(window: Window) -> list[int]:
    """The rows of a window in which training no longer moves as fast as at its start."""
    first = window.first
    begin = (first.step if first else math.inf) + limit("settled-steps")
    return [row for row, one in enumerate(window.snapshots) if one.step >= begin]


def _jump(logs: np.ndarray, factor: float, sudden: float) -> trend.Jump | None:
    return trend.jump(
        logs,
        math.log10(factor),
        limit("jump-spread"),
        (int(limit("jump-before")), int(limit("jump-before-most"))),
        int(limit("patience")),
        sudden,
    )


def _half(jump: str) -> float:
    """The factor below which a jump has gone back: half of the least one, in logarithms."""
    return math.sqrt(limit(jump))


def _still(window: Window, code: str, layers: list[str] | tuple[str, ...]) -> Found:
    """A known jump whose level has not come down. The first finding has the words."""
    newest: Snapshot = window.newest
    return found_since(newest, window, code, layers, {}, "", Steps(math.nan, "jump"))

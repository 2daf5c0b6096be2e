"""The rule on a loss that is NaN or infinite, and what the snapshots before it show."""

import math
from collections.abc import Iterator

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.analysis.causes import NonFiniteLoss
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found, found
from activation_monitor.analysis.rules.over_time.lasting import mean_ratio
from activation_monitor.analysis.shown import listed
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit
from activation_monitor.analysis.window import Window


def may_be_nonfinite(window: Window) -> bool:
    """Whether `nonfinite` could find anything."""
    return math.isinf(window.newest.loss) or (
        math.isnan(window.newest.loss) and _is_known(window)
    )


def _is_known(window: Window) -> bool:
    """Whether a loss of NaN was measured: otherwise NaN means that there is none."""
    return any(math.isfinite(one.loss) for one in (*window.snapshots, *_first(window)))


def _first(window: Window) -> tuple[Snapshot, ...]:
    return () if window.first is None else (window.first,)


def nonfinite(window: Window, profile: DepthProfile) -> Iterator[Found]:
    """The loss is NaN or infinite, and no layer has output such a value before it.

    Where a layer has, `nonfinite-activations` says more.
    """
    newest = window.newest
    if (newest.field("nonfinite") > 0).any():
        return
    measured = newest.has()
    value = "NaN" if math.isnan(newest.loss) else "infinite"
    before = _before(window)
    bad = newest.field("nonfinite", of=records.WEIGHT) > 0
    broken = [
        layer.name for layer, is_bad in zip(newest.layers, bad, strict=True) if is_bad
    ]
    ends = [newest.layers[row].name for row in profile.graph.ends]
    evidence = {"step": float(newest.step), "broken_kernels": float(len(broken))}
    sentences = [f"The loss is {value} at step {newest.step}."]
    if measured:
        sizes = newest.statistic("rms")[profile.graph.ends]
        evidence["output"] = float(np.max(sizes))
        sentences.append(
            "All activations of this step are finite, so the loss makes it from the output "
            f"of {listed(ends)} (rms {np.max(sizes):.2g}) and the targets."
        )
    if before is not None:
        largest, name = _largest_gradient(before)
        ratio = mean_ratio(before)
        evidence |= {"last_step": float(before.step), "last_loss": before.loss}
        at = f"At step {before.step}, the last one measured before, the loss was "
        at += f"{before.loss:.3g}"
        if name:
            evidence["largest_gradient"] = largest
            at += f", the largest gradient of an output {largest:.2g} ({name})"
        if math.isfinite(ratio):
            evidence["update_ratio"] = ratio
            at += f", an update {ratio:.1e} times the size of the weights"
        sentences.append(f"{at}.")
    if broken:
        sentences.append(
            f"After the step the kernels of {listed(broken)} contain NaN or infinity."
        )
    yield found(
        "nonfinite-loss",
        newest,
        broken or ends or newest.names[-1:],
        evidence,
        " ".join(sentences),
        NonFiniteLoss(measured),
        critical=True,
    )


def _before(window: Window) -> Snapshot | None:
    """The last snapshot before the newest one in which everything was finite."""
    earlier = [*window.snapshots[:-1], window.previous]
    return next((one for one in reversed(earlier) if one and not one.nonfinite), None)


def diverges(window: Window) -> bool:
    """Whether training diverged before the newest snapshot: the loss had risen far above
    the first one, or the updates were far too large."""
    before = _before(window)
    if before is None or window.first is None:
        return False
    risen = before.loss > limit("diverging") * abs(window.first.loss)
    return bool(risen) or mean_ratio(before) > limit("large-updates")


def _largest_gradient(snapshot: Snapshot) -> tuple[float, str]:
    """The largest element of the gradients of outputs, and its layer; `""` if unknown."""
    size = snapshot.largest(records.OUTPUT_GRADIENT)
    if np.isnan(size).all():
        return math.nan, ""
    row = int(np.nanargmax(size))
    return float(size[row]), snapshot.layers[row].name

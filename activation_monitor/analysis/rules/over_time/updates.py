"""Rules on the size of updates: steps that are far too large, or far too small."""

from collections.abc import Iterator

import numpy as np

from activation_monitor.analysis import records, trend
from activation_monitor.analysis.causes import Steps
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found
from activation_monitor.analysis.rules.over_time.lasting import (
    during,
    found_since,
    mean_ratio,
    ratios,
)
from activation_monitor.analysis.shown import listed
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit
from activation_monitor.analysis.window import Window, log10

_USUAL = (
    "(update-to-weight ratio, the geometric mean over {} layers, {}); a usual ratio is "
    "about {:.0e} (Karpathy 2015)"
)


def may_be_too_large(window: Window) -> bool:
    """Whether `too_large` could find anything."""
    return mean_ratio(window.newest) > limit("large-updates") or _burst(window)


def too_large(window: Window, profile: DepthProfile) -> Iterator[Found]:
    """Steps that change the weights by a large part of their size.

    Either they still do; or the first one did, and the weights have grown with it. Updates
    of a fixed size, as those of Adam, become small next to weights that have grown.
    """
    del profile
    first = window.first
    means = [mean_ratio(one) for one in window.lasting]
    if all(mean > limit("large-updates") for mean in means):
        since, when, shown = window.lasting[0], during(window), window.lasting
        more = "The next step undoes what this one has learned"
    elif first is not None and _burst(window):
        since, when, shown = first, f"step {first.step}", (first,)
        more = (
            f"Since then the weights have grown to {_grown(window.newest, first):.3g} "
            "times their size"
        )
    else:
        return
    names, mean, usual = _beyond(shown, when, limit("large-updates"))
    yield found_since(
        since,
        window,
        "large-updates",
        names,
        {"update_ratio": mean, "layers": len(names)},
        f"A step changes the weights of {listed(names)} by a large part of their size: on "
        f"average an update has {mean:.2g} times the rms of the weights {usual}. {more}, "
        "and the loss does not fall.",
        Steps(mean, "size"),
        critical=True,
    )


def _burst(window: Window) -> bool:
    """Whether the first step was huge and the weights have grown since."""
    first = window.first
    return (
        first is not None
        and mean_ratio(first) > limit("large-first-update")
        and _grown(window.newest, first) > limit("large-updates-growth")
    )


def _grown(snapshot: Snapshot, first: Snapshot) -> float:
    """By which factor the weights have grown, the geometric mean over the layers."""
    new, old = (log10(s.statistic("rms", records.WEIGHT)) for s in (snapshot, first))
    by = (new - old)[np.isfinite(new - old)]
    return float(10 ** by.mean()) if len(by) else 1.0


def may_be_too_small(window: Window) -> bool:
    """Whether `too_small` could find anything."""
    known = "small-updates" in window.open
    return (known or _from_the_beginning(window)) and (
        mean_ratio(window.newest) < limit("small-updates")
    )


def too_small(window: Window, profile: DepthProfile) -> Iterator[Found]:
    """Steps that hardly change the weights, from the beginning on.

    A learning rate that decays to zero at the end of a schedule is no fault, and neither
    is one that rises from zero at the beginning.
    """
    del profile
    means = np.array([mean_ratio(one) for one in window.snapshots])
    updated = means[np.isfinite(means)]
    gradients = window.newest.statistic("rms", records.WEIGHT_GRADIENT)
    gradients = gradients[np.isfinite(gradients)]
    if (
        len(updated) < limit("patience")
        or not (updated < limit("small-updates")).all()
        or np.nanmax(ratios(window.newest)) > np.log10(limit("update-ratio-low"))
        or trend.rising(updated) > limit("rising")
        or (len(gradients) and not (gradients > 0).any())
    ):
        return
    shown, when = window.lasting, during(window)
    names, mean, usual = _beyond(shown, when, limit("small-updates"), below=True)
    yield found_since(
        window.snapshots[0],
        window,
        "small-updates",
        names,
        {"update_ratio": mean, "layers": len(names)},
        f"The steps hardly change the weights of {listed(names)}. On average an update has "
        f"{mean:.2g} times the rms of the weights {usual}. It was as small from the "
        f"beginning on: at this rate the weights change by a tenth in {0.1 / mean:.0e} "
        "steps.",
        Steps(mean, "size"),
        critical=True,
    )


def _from_the_beginning(window: Window) -> bool:
    """Whether the window still reaches back to the first snapshot, over enough steps."""
    first = window.snapshots[0]
    span = window.newest.last_step - first.step
    return first is window.first and span >= limit("small-updates-steps")


def _beyond(
    snapshots: tuple[Snapshot, ...], when: str, bound: float, below: bool = False
) -> tuple[list[str], float, str]:
    """The names of the layers whose ratio is beyond a bound, the mean over all layers, and
    what it is in words.

    Args:
        snapshots: With the same layers.
        when: The steps of the snapshots, in words.
        bound: The bound.
        below: Whether ratios below it are beyond it. Defaults to `False`.
    """
    logs = np.array([ratios(one) for one in snapshots])
    rows = np.flatnonzero(np.isfinite(logs).all(axis=0))
    means = logs[:, rows].mean(axis=0)
    off = means < np.log10(bound) if below else means > np.log10(bound)
    names = [snapshots[-1].layers[int(row)].name for row in rows[off]]
    usual = _USUAL.format(len(rows), when, limit("update-ratio"))
    return names, float(10 ** means.mean()), usual

"""Rules on what layers come to output in training: their limits, one value, a few peaks."""

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
)
from activation_monitor.analysis.shown import listed
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit
from activation_monitor.analysis.window import Window


def may_be_saturated(window: Window) -> bool:
    """Whether `saturated` could find anything."""
    share = window.newest.statistic("saturated_fraction")
    return bool((share > limit("saturated")).any())


def saturated(window: Window, profile: DepthProfile) -> Iterator[Found]:
    """Bounded layers inside the network have reached their limits in training.

    Outputs of the network are left out: a classifier that has learned is at its limits.
    """
    layers = window.newest.layers
    bounded = [r for r in _hidden(profile) if layers[r].activation in records.SATURATED]
    if not bounded or window.first is None:
        return
    first = window.first.statistic("saturated_fraction")
    lasting = np.array([one.statistic("saturated_fraction") for one in window.lasting])
    full = [
        row
        for row in bounded
        if (lasting[:, row] > limit("saturated")).all()
        and first[row] < limit("saturated-too") * limit("saturated")
    ]
    if 2 * len(full) <= len(bounded):
        return
    names = [layers[row].name for row in full]
    before, now = first[full].mean(), lasting[-1, full].mean()
    yield found_since(
        window.lasting[0],
        window,
        "saturated-activations",
        names,
        {"saturated_fraction": now, "at_first": before, "layers": len(full)},
        f"The outputs of {listed(names)} have become saturated in training: {now:.0%} of "
        f"them are within 1 % of the limits of {layers[full[0]].activation} "
        f"({during(window)}), after {before:.0%} at step {window.first.step}. There its "
        "slope is near zero, so these elements pass almost no gradient on (Glorot & Bengio "
        "2010).",
        Steps(mean_ratio(window.newest), "signal"),
    )


def may_be_collapsed(window: Window) -> bool:
    """Whether `collapsed` could find anything."""
    if window.first is None:
        return False
    with np.errstate(invalid="ignore"):
        lost = _differing(window.newest) - _differing(window.first)
        return bool((lost < -limit("collapse")).any())


def collapsed(window: Window, profile: DepthProfile) -> Iterator[Found]:
    """The network has come to compute the same for all inputs.

    It must show in the last tensor that a weight layer reads. Outputs of the network are
    left out: those of a regression may differ by a small part of their mean.
    """
    if window.first is None:
        return
    first = _differing(window.first)
    lasting = np.array([_differing(one) for one in window.lasting])
    lost = (lasting - first).max(axis=0)
    hidden = set(_hidden(profile))
    for segment in profile.segments:
        rows = [row for row in segment.rows if row in hidden]
        if not segment.open or not rows or not lost[rows[-1]] < -limit("collapse"):
            continue
        last = rows[-1]
        names = [
            window.newest.layers[row].name for row in rows if lost[row] < -limit("collapse")
        ]
        before, now = 10 ** first[last], 10 ** lasting[-1, last]
        yield found_since(
            window.lasting[0],
            window,
            "collapsed-activations",
            names,
            {"share_first": before, "share_last": now, "layers": len(names)},
            "All inputs have come to lead to nearly the same activations: the share of the "
            f"rms of {names[-1]} that differs from sample to sample is {now:.2g} "
            f"({during(window)}), after {before:.2g} at step {window.first.step}. What "
            "follows cannot tell the samples apart.",
            Steps(mean_ratio(window.newest), "signal"),
            critical=True,
        )
        return


def may_be_heavy_tailed(window: Window) -> bool:
    """Whether `heavy_tail` could find anything."""
    return any(
        bool((_in_one(window.newest, of) > limit("heavy-tail")).any())
        for of in (records.OUTPUT, records.OUTPUT_GRADIENT)
    )


def heavy_tail(window: Window, profile: DepthProfile) -> Iterator[Found]:
    """One element comes to carry the signal, or the gradient, of a whole layer."""
    if window.first is None:
        return
    layers, hidden = window.newest.layers, set(_hidden(profile))
    for of, what in (
        (records.OUTPUT, "the output of"),
        (records.OUTPUT_GRADIENT, "the gradient by the output of"),
    ):
        first = _in_one(window.first, of)
        lasting = np.array([_in_one(one, of) for one in window.lasting])
        samples = np.maximum(window.newest.field("samples"), 1)
        bound = np.maximum(limit("heavy-tail"), limit("heavy-tail-samples") / samples)
        with np.errstate(invalid="ignore"):
            heavy = (lasting > bound).all(axis=0) & (first < limit("heavy-tail-before"))
        rows = [
            row
            for row in np.flatnonzero(heavy).tolist()
            if row in hidden and layers[row].activation != "softmax"
        ]
        rows = [row for row in rows if _grows(window, of, row)]
        if rows:
            row, names = rows[0], [layers[row].name for row in rows]
            now, elements = lasting[-1, row], window.newest.field("count", of)[row]
            yield found_since(
                window.lasting[0],
                window,
                "heavy-tail",
                names,
                {"share": now, "at_first": first[row], "elements": elements},
                f"One of {elements:.0f} elements of {what} {names[0]} has {now:.0%} of "
                f"their sum of squares ({during(window)}), after {first[row]:.2g} at step "
                f"{window.first.step}, and the share keeps growing. A few samples, or a "
                "few units, decide what the step does.",
                Steps(mean_ratio(window.newest), "tail"),
            )
            return


def _hidden(profile: DepthProfile) -> list[int]:
    """The rows that every path passes and that a weight layer reads, in order."""
    feeds = profile.graph.feeds_weight()
    rows = {row for s in profile.segments if s.open for row in s.rows if feeds[row]}
    return [row for row in profile.graph.order if row in rows]


def _differing(snapshot: Snapshot) -> np.ndarray:
    """`log10` of the share of the rms that differs from sample to sample, by layer.

    NaN for a tensor of zeros and for too few samples; not below the rounding of float32.
    """
    within, squares, samples = (
        snapshot.field(name) for name in ("within_variance", "second_moment", "samples")
    )
    enough = (samples >= limit("constant-samples")) & (squares > 0)
    share = np.divide(within, squares, out=np.full_like(squares, np.nan), where=enough)
    return 0.5 * np.log10(np.maximum(share, 10 ** (-2 * limit("collapse-rounding"))))


def _in_one(snapshot: Snapshot, of: str) -> np.ndarray:
    """The share of the sum of squares that the largest element of a tensor has, by layer.

    NaN for a tensor of zeros, or of too few elements.
    """
    low, high, squares, count, bad = (
        snapshot.field(name, of)
        for name in ("minimum", "maximum", "second_moment", "count", "nonfinite")
    )
    known = (count >= limit("heavy-tail-elements")) & (bad == 0) & (squares > 0)
    largest = np.maximum(np.abs(low, where=known, out=np.zeros_like(low)), np.abs(high))
    sums = squares * count
    return np.divide(largest**2, sums, out=np.full_like(sums, np.nan), where=known)


def _grows(window: Window, of: str, row: int) -> bool:
    shares = np.array([_in_one(one, of)[row] for one in window.snapshots])
    return bool(trend.rising(shares) > limit("rising"))

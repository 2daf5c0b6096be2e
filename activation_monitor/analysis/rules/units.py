"""Rules on what the units of a layer output: all the same, their limits, only zeros."""

from collections.abc import Iterator

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.analysis.activity import RECTIFIED
from activation_monitor.analysis.causes import EqualWeights, InputScale, Weights, Zeros
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found, found
from activation_monitor.analysis.links import Link
from activation_monitor.analysis.shown import listed
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit


def symmetric(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """Kernels in which all weights are equal."""
    low, high, count = (
        snapshot.field(name, of=records.WEIGHT) for name in ("minimum", "maximum", "count")
    )
    hidden = profile.graph.feeds_weight()
    # A kernel of zeros at the end of a residual branch is good practice, and one in a
    # chain shows in the activations. Each unit of a depthwise kernel has its own input.
    rows = [
        row
        for row in sorted(profile.links)
        if low[row] == high[row] != 0
        and count[row] > 1
        and hidden[row]
        and snapshot.layers[row].width > 1
        and "depthwise" not in snapshot.layers[row].class_name.lower()
    ]
    if rows:
        names = [snapshot.layers[row].name for row in rows]
        yield found(
            "symmetric-initialization",
            snapshot,
            names,
            {"weight": low[rows[0]], "layers": len(rows)},
            f"All weights of {listed(names)} are equal ({low[rows[0]]:.3g} in {names[0]}). "
            "Units with equal weights compute the same output and get the same gradient, "
            "so they stay copies of one unit (Goodfellow et al. 2016, section 8.4).",
            EqualWeights(tuple(profile.links[row] for row in rows)),
            critical=True,
        )


def saturated(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """Most of the bounded layers on the trunk are at their limits."""
    share = snapshot.statistic("saturated_fraction")
    segments = [s for s in profile.segments if s.open and s.links]
    rows = sorted({row for segment in segments for row in segment.rows})
    bounded = [r for r in rows if snapshot.layers[r].activation in records.SATURATED]
    large = {row: link for row in bounded for link in _of_large_input(row, profile)}
    full = [
        row
        for row in bounded
        if share[row] > limit("saturated-by-input" if row in large else "saturated")
    ]
    if 2 * len(full) > len(bounded):
        if not large.keys() >= set(full):
            at_least = limit("saturated-too") * limit("saturated")
            full = [row for row in bounded if share[row] > at_least]
        names = [snapshot.layers[row].name for row in full]
        why, cause = "", _saturating_weights(full, profile)
        if large.keys() >= set(full):
            first = large[full[0]]
            why = f", because the rms of the input of {first.name} is {first.rms_in:.3g}"
            cause = InputScale(first)
        yield found(
            "saturated-activations",
            snapshot,
            names,
            {"saturated_fraction": share[full].mean(), "layers": len(full)},
            f"The outputs of {listed(names)} are saturated{why}: {share[full].mean():.0%} "
            f"of them are within 1 % of the limits of {snapshot.layers[full[0]].activation}"
            ". There its slope is near zero, so these elements pass almost no gradient on "
            "(Glorot & Bengio 2010).",
            cause,
        )


def _of_large_input(row: int, profile: DepthProfile) -> list[Link]:
    """The first weight layer, if it computes this row from an input that is too large."""
    links = profile.links_before([row])
    return [
        link
        for link in links
        if profile.depths[link.row] == 1 and link.rms_in > limit("input")
    ]


def _saturating_weights(rows: list[int], profile: DepthProfile) -> Weights:
    return Weights(
        rows=tuple(rows),
        links=profile.links_before(rows),
        grows=True,
        effect="limits",
        stream=profile.stream_through(rows),
    )


def dead(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """Layers on the trunk in which most ReLU units are zero for all samples of a window."""
    units, steps, samples = _inactive(snapshot)
    on_trunk = profile.on_trunk
    rectified = [r for r in on_trunk if snapshot.layers[r].activation in RECTIFIED]
    mostly = [row for row in _mostly_dead(snapshot) if row in on_trunk]
    if not mostly:
        return
    share = {row: units[row] / snapshot.layers[row].width for row in mostly}
    counts = [
        f"{units[row]:.0f} of {snapshot.layers[row].width} units of "
        f"{snapshot.layers[row].name}"
        for row in mostly
    ]
    window = f"all {samples[mostly[0]]:.0f} samples"
    if steps[mostly[0]] > 1:
        window += f" of the last {steps[mostly[0]]:.0f} sampled steps"
    if len(mostly) == 1:
        what = f"{counts[0]} are zero for {window}."
    else:
        what = (
            f"In {len(mostly)} of {len(rectified)} ReLU layers more than "
            f"{limit('dead'):.0%} of the units are zero for {window}: {listed(counts)}."
        )
    yield found(
        "dead-units",
        snapshot,
        [snapshot.layers[row].name for row in mostly],
        {
            "dead_fraction": max(share.values()),
            "layers": len(mostly),
            "relu_layers": len(rectified),
            "samples": samples[mostly[0]],
            "sampled_steps": steps[mostly[0]],
        },
        f"{what} A ReLU unit that is zero for every input gets no gradient and does not "
        "recover (Lu et al. 2019, Dying ReLU).",
        Zeros(tuple(mostly), profile.links_before(mostly), dead=True),
        critical=max(share.values()) == 1.0
        or (len(mostly) > 1 and len(mostly) >= limit("dead-layers") * len(rectified)),
    )


def may_be_dead(snapshot: Snapshot) -> bool:
    """Whether `dead` could find anything, wherever the trunk is."""
    return bool(_mostly_dead(snapshot))


def _inactive(snapshot: Snapshot) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Units of each layer that were not active, in so many sampled steps and samples.

    Where it is not known over steps (an old log, a single pass, an unknown number of
    channels), it is that of the batch. NaN where a window is not full: a unit that dies in
    training must have been inactive for a while. At initialization it need not.
    """
    steps, samples = snapshot.of_units("steps"), snapshot.of_units("samples")
    full = (steps >= limit("dead-steps")) & (samples >= limit("dead-window"))
    if snapshot.last_step <= limit("initialization-ends"):
        full[:] = True
    of_window = np.where(full, snapshot.of_units("inactive_units"), np.nan)
    of_batch = ~(steps > 0)
    return (
        np.where(of_batch, snapshot.statistic("dead_units"), of_window),
        np.where(of_batch, 1.0, steps),
        np.where(of_batch, snapshot.field("samples"), samples),
    )


def _mostly_dead(snapshot: Snapshot) -> list[int]:
    units, _, samples = _inactive(snapshot)
    # Most rows have no dead unit: the layers of the others need not be read.
    some = np.flatnonzero((units > 0) & (samples >= limit("dead-samples"))).tolist()
    layers = snapshot.layers
    return [
        row
        for row in some
        if layers[row].activation in RECTIFIED
        and units[row] / layers[row].width > limit("dead")
    ]


def collapsed(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """The differences between samples get lost on the way."""
    for segment in profile.segments:
        if not segment.open:
            continue
        measured = np.flatnonzero(np.isfinite(segment.independence))
        if not len(measured):
            continue
        begin = int(measured[0])
        lost, end_row = 0.0, segment.rows[begin]
        steps = zip(
            segment.rows[1:], segment.independence, segment.independence[1:], strict=False
        )
        for row, before, after in steps:
            # Pooling averages over positions, which differ: the layers lose nothing there.
            counts = snapshot.layers[row].kind in ("weight", "activation")
            if counts and before > -limit("collapse-rounding"):
                lost += after - before
                end_row = row
        if lost < -limit("collapse"):
            first, last = (snapshot.layers[r].name for r in (segment.rows[begin], end_row))
            start, end = segment.independence[begin], segment.independence[begin] + lost
            yield found(
                "collapsed-activations",
                snapshot,
                [snapshot.layers[row].name for row in segment.rows],
                {"share_first": 10**start, "share_last": 10**end, "decades": lost},
                "All inputs lead to nearly the same activations: the share of the rms that "
                f"differs from sample to sample is {min(10**start, 1):.2g} at {first} and "
                f"{10**end:.2g} at {last}. Gradients decay at the same rate (Schoenholz et "
                "al. 2017, Deep Information Propagation).",
                Weights(
                    rows=tuple(sorted(segment.rows)),
                    links=profile.links_before(sorted(segment.rows)),
                    grows=True,
                    effect="differences",
                    stream=profile.stream_through(segment.rows),
                ),
                critical=lost < -limit("critical") * limit("collapse"),
            )

"""Rules on what the units of a layer say: the same, their limits, nothing, NaN."""

from collections.abc import Iterator

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.analysis.change import listed
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Finding, found, limit
from activation_monitor.analysis.snapshot import Snapshot

_RECTIFIED = ("relu", "relu6")


def symmetric(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """Kernels whose weights are all the same."""
    low, high, count = (
        snapshot.field(name, of=records.WEIGHT) for name in ("minimum", "maximum", "count")
    )
    hidden = profile.graph.feeds_weight()
    # A kernel of zeros at the end of a residual branch is good practice, and one in a
    # chain shows in the activations. Units of a depthwise kernel have inputs of their own.
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
            f"all weights of {listed(names)} are {low[rows[0]]:.3g}. Units with equal "
            "weights compute the same and get the same gradient, so they stay copies of "
            "one unit (Goodfellow et al. 2016, section 8.4).",
            critical=True,
        )


def saturated(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """Most of the bounded layers on the trunk at their limits."""
    share = snapshot.statistic("saturated_fraction")
    segments = [s for s in profile.segments if s.open and s.links]
    rows = sorted({row for segment in segments for row in segment.rows})
    bounded = [r for r in rows if snapshot.layers[r].activation in records.SATURATED]
    full = [row for row in bounded if share[row] > limit("saturated")]
    if 2 * len(full) > len(bounded):
        full = [row for row in bounded if share[row] > 0.5 * limit("saturated")]
        names = [snapshot.layers[row].name for row in full]
        yield found(
            "saturated-activations",
            snapshot,
            names,
            {"saturated_fraction": share[full].mean(), "layers": len(full)},
            f"{share[full].mean():.0%} of the outputs of {listed(names)} are within 1 % of "
            f"the limits of {snapshot.layers[full[0]].activation}. There its slope is near "
            "zero, and so is the gradient (Glorot & Bengio 2010).",
        )


def dead(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """Layers on the trunk most of whose ReLU units never fire."""
    units, samples = snapshot.statistic("dead_units"), snapshot.field("samples")
    on_trunk = {row for segment in profile.segments for row in segment.rows}
    rectified = [r for r in on_trunk if snapshot.layers[r].activation in _RECTIFIED]
    mostly = [row for row in _mostly_dead(snapshot) if row in on_trunk]
    if not mostly:
        return
    share = {row: units[row] / snapshot.layers[row].width for row in mostly}
    counts = [
        f"{units[row]:.0f} of {snapshot.layers[row].width} units of "
        f"{snapshot.layers[row].name}"
        for row in mostly
    ]
    if len(mostly) == 1:
        what = f"{counts[0]} are zero for all {samples[mostly[0]]:.0f} samples."
    else:
        what = (
            f"in {len(mostly)} of {len(rectified)} ReLU layers more than "
            f"{limit('dead'):.0%} of the units are zero for all "
            f"{samples[mostly[0]]:.0f} samples: {listed(counts)}."
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
        },
        f"{what} A ReLU unit that never fires gets no gradient and does not come back "
        "(Lu et al. 2019, Dying ReLU).",
        critical=max(share.values()) == 1.0
        or (len(mostly) > 1 and len(mostly) >= limit("dead-layers") * len(rectified)),
    )


def may_be_dead(snapshot: Snapshot) -> bool:
    """Whether `dead` could find anything, wherever the trunk runs."""
    return bool(_mostly_dead(snapshot))


def _mostly_dead(snapshot):
    units, samples = snapshot.statistic("dead_units"), snapshot.field("samples")
    return [
        row
        for row, layer in enumerate(snapshot.layers)
        if layer.activation in _RECTIFIED
        and samples[row] >= limit("dead_samples")
        and units[row] / layer.width > limit("dead")
    ]


def collapsed(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """What differs from sample to sample gets lost on the way."""
    for segment in profile.segments:
        if not segment.open:
            continue
        lost, last = 0.0, segment.rows[0]
        steps = zip(
            segment.rows[1:], segment.independence, segment.independence[1:], strict=False
        )
        for row, before, after in steps:
            # Pooling averages over positions, which differ: no loss of the layers' doing.
            if snapshot.layers[row].kind in ("weight", "activation") and before > -6.5:
                lost += after - before
                last = row
        if lost < -limit("collapse"):
            first, last = (snapshot.layers[r].name for r in (segment.rows[0], last))
            start, end = segment.independence[0], segment.independence[0] + lost
            yield found(
                "collapsed-activations",
                snapshot,
                [snapshot.layers[row].name for row in segment.rows],
                {"share_first": 10**start, "share_last": 10**end, "decades": lost},
                f"at {first} {min(10**start, 1):.2g} of the rms tells one sample from "
                f"another, at {last} only {10**end:.2g}: all inputs end in nearly the same "
                "activations, and gradients decay at the same rate (Schoenholz et al. "
                "2017, Deep Information Propagation).",
                critical=lost < -limit("critical") * limit("collapse"),
            )


def any_nonfinite(snapshot: Snapshot) -> bool:
    """Whether `nonfinite` could find anything, wherever it is."""
    weights = _bad_weights(snapshot)
    return bool((snapshot.field("nonfinite") > 0).any() or (weights > 0).any())


def _bad_weights(snapshot):
    """How many weights of each layer are NaN or infinite, as far as they were measured."""
    return snapshot.field("nonfinite", of=records.WEIGHT)


def _nonfinite_kernels(snapshot):
    """Weights that are NaN while activations look finite: ReLU may make zeros of NaN."""
    bad = np.flatnonzero(_bad_weights(snapshot) > 0)
    if not len(bad):
        return
    name, weights = snapshot.layers[bad[0]].name, _bad_weights(snapshot)[bad[0]]
    count = snapshot.field("count", of=records.WEIGHT)[bad[0]]
    yield found(
        "nonfinite-activations",
        snapshot,
        [name],
        {"nonfinite": weights, "count": count},
        f"{weights:.0f} of {count:.0f} weights of {name} are NaN or infinite. That its "
        "outputs are not is the activation function's doing: on some devices ReLU makes "
        "zeros of them.",
        critical=True,
    )


def nonfinite(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """The first layer with NaN or infinities that matter."""
    bad_count = snapshot.field("nonfinite")
    used = {parent for layer in snapshot.layers for parent in layer.parents}
    multiplied = {
        parent
        for layer in snapshot.layers
        if layer.kind in ("weight", "normalization")
        for parent in layer.parents
    }
    # Infinities that the model takes care of (a mask before a softmax) are no fault. They
    # are where they reach an end of the network; a kernel, whose gradient is NaN then, even
    # if a ReLU makes zeros of NaN on the way forward; or a normalization, whose statistics
    # are.
    todo = [
        int(row)
        for row in np.flatnonzero(bad_count > 0)
        if row not in used or row in multiplied
    ]
    bad = set()
    while todo:
        row = todo.pop()
        if row not in bad:
            bad.add(row)
            todo.extend(p for p in snapshot.layers[row].parents if bad_count[p] > 0)
    if not bad:
        yield from _nonfinite_kernels(snapshot)
        return
    row = min(bad)  # layers stand in the order of the calls: the first one
    layer, count = snapshot.layers[row], snapshot.field("count")[row]
    where, follows = "the output", "Its own inputs have none"
    if layer.kind == "input" and layer.parents:
        where = "a sum in the model"
    elif layer.kind == "input":
        where, follows = "the input of the model", "The batch itself has them"
    elif not layer.parents:
        follows = "No tensor that was measured comes before it"
    yield found(
        "nonfinite-activations",
        snapshot,
        [layer.name],
        {"nonfinite": bad_count[row], "count": count},
        f"{bad_count[row]:.0f} of {count:.0f} elements of {where} ({layer.name}, "
        f"{layer.dtype}) are NaN or infinite. {follows}; what is computed from it "
        "inherits them.",
        critical=True,
    )

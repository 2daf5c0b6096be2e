"""The rule on gradients that end: layers that no gradient reaches, and why.

A gradient that is exactly zero is a proof, not a chance, but many healthy networks begin
with some: a head or a branch of zeros passes nothing back until its first update. So a
finding needs a cause: an output that does not depend on what the layer computes.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.analysis.causes import Blocked, Reason
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found, found
from activation_monitor.analysis.growth import DTYPE_LIMITS
from activation_monitor.analysis.shown import listed
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot
from activation_monitor.analysis.thresholds import limit

RECTIFIED = ("relu", "relu6")


class _Gradients(NamedTuple):
    """What reached each row, `(layers,)` each: nothing, only zeros, or a gradient."""

    none: np.ndarray
    zero: np.ndarray
    some: np.ndarray


def no_gradient(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """A layer at which gradients end."""
    gradients = _gradients(snapshot)
    blocks = dict.fromkeys(_one_class(gradients, snapshot, profile), Reason.ONE_CLASS)
    for row in profile.graph.order:
        reason = _blocks(row, gradients, snapshot, profile)
        if reason is not None:
            blocks.setdefault(row, reason)
    if not blocks:
        return
    row = max(blocks, key=lambda row: (profile.depths[row], row))  # nearest to the head
    reason, layers = blocks[row], snapshot.layers
    without = _without(row, reason, gradients, profile)
    if not without and reason is not Reason.ONE_CLASS:
        return  # nothing there has weights to learn
    weights = {one for one in profile.graph.order if layers[one].kind == "weight"}
    every = set(without) >= weights
    names = [layers[one].name for one in without]
    if every:
        what = "No layer gets a gradient, so all weights stay as they were drawn."
    elif reason is Reason.ONE_CLASS and without in ([], [row]):
        what = (
            "This loss is computed from the input of the softmax, so weights may change, "
            "but the output does not."
        )
    else:
        what = (
            f"No gradient reaches {listed(names)}: weights there stay as they were drawn."
        )
    yield found(
        "no-gradient",
        snapshot,
        [layers[row].name],
        {"layers": len(without), "samples": snapshot.field("samples")[row]},
        f"{_observation(row, reason, snapshot, profile)} {what}",
        Blocked(row, reason, tuple(profile.graph.parents[row])),
        critical=every or (reason is Reason.ONE_CLASS and profile.graph.ends == [row]),
    )


def _gradients(snapshot: Snapshot) -> _Gradients:
    of = records.OUTPUT_GRADIENT
    count, bad = (snapshot.field(name, of=of) for name in ("count", "nonfinite"))
    low, high = (snapshot.field(name, of=of) for name in ("minimum", "maximum"))
    zero = (count > 0) & (bad == 0) & (low == 0) & (high == 0)
    return _Gradients(count == 0, zero, (count > 0) & ~zero)


def _without(
    row: int, reason: Reason, gradients: _Gradients, profile: DepthProfile
) -> list[int]:
    """The weight layers that get no gradient because of a row, in order."""
    graph, measured = profile.graph, not gradients.none.all()
    elsewhere: set[int] = set()
    if not measured:  # other outputs may pass a gradient
        others = [end for end in graph.ends if end != row]
        elsewhere = set(others).union(*(graph.before(end) for end in others))
    learning, around = _learning(gradients, graph.layers), _around(row, profile)
    before = [
        one
        for one in graph.before(row) - elsewhere
        if _layer_of(graph.layers[one]) not in learning
        # It may get a gradient, which is not measured where several are added up.
        and not (gradients.none[one] and one in around)
    ]
    # The gradient ends before a layer that is cut off, or within one with an activation.
    own = [] if reason is Reason.CUT else [row]
    return sorted(one for one in [*before, *own] if graph.layers[one].kind == "weight")


def _around(row: int, profile: DepthProfile) -> set[int]:
    """The rows that lead to an output of the network without passing this one."""
    found, ahead = {row}, [*profile.graph.ends]
    while ahead:
        one = ahead.pop()
        if one not in found:
            found.add(one)
            ahead += profile.graph.parents[one]
    return found - {row}


def _learning(gradients: _Gradients, layers: Sequence[LayerInfo]) -> set[str]:
    """The layers of which one call at least gets a gradient."""
    return {_layer_of(layers[int(row)]) for row in np.flatnonzero(gradients.some)}


def _layer_of(layer: LayerInfo) -> str:
    """The name of a layer without the number of the call."""
    name, _, call = layer.name.rpartition("/")
    return name if name and call.isdigit() else layer.name


def _one_class(
    gradients: _Gradients, snapshot: Snapshot, profile: DepthProfile
) -> list[int]:
    """Outputs of the network that are a softmax over one unit, whatever their input."""
    low, high = snapshot.field("minimum"), snapshot.field("maximum")
    measured, graph = not gradients.none.all(), profile.graph
    found_there: list[int] = []
    for row in graph.ends:
        # A loss may be computed from the input of the softmax, and not from its output.
        unused = measured and all(gradients.none[one] for one in [row, *graph.parents[row]])
        layer = snapshot.layers[row]
        one_unit = layer.activation == "softmax" and layer.width == 1
        if one_unit and low[row] == high[row] == 1 and not unused:
            found_there.append(row)
    return found_there


def _blocks(
    row: int, gradients: _Gradients, snapshot: Snapshot, profile: DepthProfile
) -> Reason | None:
    """Why a row that gets a gradient passes none back; None if it does, or may later."""
    layer, parents = snapshot.layers[row], profile.graph.parents[row]
    if gradients.none.all():
        enough = snapshot.field("samples")[row] >= limit("dead-samples")
        return _rectified(row, snapshot, profile) if enough else None
    passes = any(gradients.some[parent] for parent in parents)
    if not gradients.some[row] or passes or not parents:
        return None
    if all(gradients.none[parent] for parent in parents):
        return _cut(row, gradients, snapshot, profile)
    if snapshot.field("samples")[row] < limit("no-gradient-samples"):
        return None
    if layer.activation in RECTIFIED:
        return _rectified(row, snapshot, profile)
    if _may_underflow(row, snapshot):
        return None
    if layer.activation in records.SATURATED:
        full = snapshot.statistic("saturated_fraction")[row] == 1
        at_the_end = _leads_to_the_output(row, profile) and _has_weights(row, snapshot)
        return Reason.SATURATED if at_the_end and full else None
    return Reason.STEPS if _computes_steps(row, snapshot, profile) else None


def _may_underflow(row: int, snapshot: Snapshot) -> bool:
    """Whether a gradient is so small that the one before it may be zero by rounding."""
    smallest, _ = DTYPE_LIMITS.get(snapshot.layers[row].dtype, (0.0, math.inf))
    gradient = snapshot.statistic("rms", of=records.OUTPUT_GRADIENT)[row]
    return not gradient > 10.0 ** limit("above-underflow") * smallest


def _rectified(row: int, snapshot: Snapshot, profile: DepthProfile) -> Reason | None:
    """Whether a rectifier makes an output zero, or all that a branch adds.

    On the trunk that is another finding. A branch may begin at zero on purpose, and one of
    a few units by chance.
    """
    low, high = snapshot.field("minimum")[row], snapshot.field("maximum")[row]
    if snapshot.layers[row].activation not in RECTIFIED or not low == high == 0:
        return None
    if _leads_to_the_output(row, profile):
        return Reason.RECTIFIED
    drawn = _has_weights(row, snapshot) and row not in profile.on_trunk
    enough = snapshot.field("samples")[row] >= limit("dead-samples")
    wide = snapshot.layers[row].width >= limit("narrowest")
    measured = (snapshot.field("count", of=records.OUTPUT_GRADIENT) > 0).any()
    return Reason.BRANCH if drawn and enough and wide and measured else None


def _leads_to_the_output(row: int, profile: DepthProfile) -> bool:
    """Whether nothing but an output of the network is computed from a row, and from it
    alone. Hidden layers of zeros, and saturated ones, are other findings."""
    graph = profile.graph
    while graph.children[row]:
        if len(graph.children[row]) > 1:
            return False
        (row,) = graph.children[row]
        if graph.layers[row].kind == "weight" or len(graph.parents[row]) > 1:
            return False
    return True


def _computes_steps(row: int, snapshot: Snapshot, profile: DepthProfile) -> bool:
    """Whether a row varies with its one input, but its derivative is zero.

    A kernel or a factor of zeros passes no gradient either, but its output does not vary.
    """
    layer, parents = snapshot.layers[row], profile.graph.parents[row]
    if len(parents) != 1 or layer.activation != "linear":
        return False
    within = snapshot.statistic("within_std")
    varies = within[row] > 0 and within[parents[0]] > 0
    plain = layer.kind in ("other", "input") or (
        layer.kind == "weight" and _has_weights(row, snapshot)
    )
    return bool(varies) and plain


def _has_weights(row: int, snapshot: Snapshot) -> bool:
    """Whether the kernel, if the row has one, is known not to be all zeros."""
    if snapshot.layers[row].kind != "weight":
        return True
    return bool(snapshot.statistic("rms", of=records.WEIGHT)[row] > 0)


def _cut(
    row: int, gradients: _Gradients, snapshot: Snapshot, profile: DepthProfile
) -> Reason | None:
    """No way leads back from a row although it is computed from others.

    That is meant where the layers before it are frozen, or trained already. A step without
    one loss (of a GAN, for example) may train some layers only, and others in their turn.
    """
    layers, learning = snapshot.layers, _learning(gradients, snapshot.layers)
    learn = [
        layers[other].trainable
        and not layers[other].changed
        and _layer_of(layers[other]) not in learning
        for other in profile.graph.before(row)
        if layers[other].kind == "weight"
    ]
    one_loss = math.isfinite(snapshot.loss)
    return Reason.CUT if learn and all(learn) and layers[row].traced and one_loss else None


def _observation(
    row: int, reason: Reason, snapshot: Snapshot, profile: DepthProfile
) -> str:
    layer = snapshot.layers[row]
    samples = f"all {snapshot.field('samples')[row]:.0f} samples of this batch"
    match reason:
        case Reason.ONE_CLASS:
            return (
                f"The output of {layer.name} is 1 whatever its input is: a softmax over "
                "one unit divides a number by the same number."
            )
        case Reason.RECTIFIED:
            return (
                f"The output of {layer.name} is zero for {samples}, where the slope of "
                f"{layer.activation} is 0."
            )
        case Reason.BRANCH:
            return (
                f"All outputs of {layer.name} are zero for {samples}, and there the slope "
                f"of {layer.activation} is 0: this branch adds nothing and cannot recover."
            )
        case Reason.SATURATED:
            return (
                f"Every output of {layer.name} is at a limit of {layer.activation} for "
                f"{samples}, where its slope is 0 in {layer.dtype}."
            )
        case Reason.STEPS | Reason.CUT:
            before = [snapshot.layers[one].name for one in profile.graph.parents[row]]
            zero = "is zero" if reason is Reason.STEPS else "does not exist"
            return (
                f"The gradient ends at {layer.name}: the derivative of its output by that "
                f"of {listed(before)} {zero}, although the output varies."
            )

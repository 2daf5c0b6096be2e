"""Rules on updates: weights that are not updated as their optimizer and gradient imply.

These faults raise no error and need no other run to compare with. Most are certain from
what the step's code did (`updating`). The others follow from laws of optimizers
(`optimizer_law`); where there is no law, nothing is said.
"""

import math
from collections.abc import Iterator

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.analysis.causes import (
    Decay,
    Misapplied,
    NotApplied,
    Replicas,
    StuckScale,
    Unmoved,
    WrongUpdate,
)
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found, found
from activation_monitor.analysis.kernels import (
    Kernels,
    clipping,
    kernels,
    misapplied,
    unmoved,
)
from activation_monitor.analysis.shown import listed
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit


def are_wrong(snapshot: Snapshot) -> bool:
    """Whether `updates` finds anything."""
    return next(_updates(snapshot), None) is not None


def updates(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """Weights that are not updated as their optimizer and gradient imply."""
    del profile  # it is all in one layer
    yield from _updates(snapshot)


def _updates(snapshot: Snapshot) -> Iterator[Found]:
    known = kernels(snapshot)
    if known is not None:
        yield from _not_updated(known)
        yield from _wrong_update(known)
        yield from _weight_decay(known)
        yield from _replicas_differ(known)
        yield from _stuck_loss_scale(known)


def _named(known: Kernels, rows: list[int]) -> list[str]:
    return [known.snapshot.layers[row].name for row in rows]


def _not_updated(known: Kernels) -> Iterator[Found]:
    """Weights that get a gradient, and do not move."""
    for reason, rows in unmoved(known).items():
        names = _named(known, rows)
        gradient = float(np.nanmax([0.0, *known.gradient[rows]]))
        moved = float(np.max(known.update[rows]))
        clips = clipping(known.updating.optimizer(rows[0]))
        yield found(
            "weights-not-updated",
            known.snapshot,
            names,
            {"layers": len(rows), "gradient": gradient, "update": moved},
            f"The step does not update the weights of {listed(names)}, although they are "
            f"trainable and get a gradient. {_how_unmoved(reason, gradient, moved)}",
            NotApplied(tuple(rows), reason, clips),
            critical=len(rows) == len(known.rows),
        )
        return


def _how_unmoved(reason: Unmoved, gradient: float, moved: float) -> str:
    sizes = f"The largest gradient is {gradient:.3g}, the largest update {moved:.3g}"
    match reason:
        case Unmoved.NO_OPTIMIZER:
            return "It computes a loss and calls no optimizer."
        case Unmoved.NOT_GIVEN:
            return "It gives the optimizer other weights, and not these."
        case Unmoved.CUT_OFF:
            return (
                "Between the gradient tape and the optimizer, it multiplies the gradient "
                "by zero, or nearly."
            )
        case Unmoved.CLIPPED:
            return f"{sizes}: clipping leaves nothing."
        case Unmoved.CONSTRAINED:
            return f"{sizes}: the constraint of the kernel takes it back."
        case Unmoved.UNDONE:
            return f"{sizes}: something takes it back within the step."
        case Unmoved.PUT_BACK | Unmoved.NO_RATE:
            return ""


def _wrong_update(known: Kernels) -> Iterator[Found]:
    """Weights whose update is not what their optimizer and gradient imply."""
    for reason, (rows, number) in misapplied(known).items():
        names = _named(known, rows)
        yield found(
            "wrong-update",
            known.snapshot,
            names,
            {"layers": len(rows), "times": number},
            f"The update of the weights of {listed(names)} is not what the optimizer "
            f"and the gradient imply. {_in_words(reason, number, rows[0], known)}",
            WrongUpdate(tuple(rows), reason, number),
            critical=reason is not Misapplied.LAW,
        )
        return


def _in_words(reason: Misapplied, number: float, row: int, known: Kernels) -> str:
    layers = known.snapshot.layers
    match reason:
        case Misapplied.OF_ANOTHER:
            return (
                f"{layers[row].name} gets the gradient of the weights of "
                f"{layers[int(number)].name}, which have the same shape: the "
                "gradients and the weights are in different orders."
            )
        case Misapplied.REPEATED:
            return f"One step applies the same gradient {number:.0f} times."
        case Misapplied.NOT_UNSCALED:
            return (
                f"The loss is multiplied by the loss scale {number:.5g}, and the gradients "
                "are not divided by it: the inner optimizer is applied, and not the "
                "LossScaleOptimizer."
            )
        case Misapplied.NOT_SCALED:
            return (
                f"The LossScaleOptimizer divides the gradients by the loss scale "
                f"{number:.5g}, and the loss was not multiplied by it."
            )
        case Misapplied.ASCENT:
            return (
                f"The step multiplies the gradient by {number:.3g} before it applies it, "
                "so it makes the loss larger."
            )
        case Misapplied.FROZEN:
            return ""
        case Misapplied.LAW:
            optimizer = known.updating.optimizer(row)
            if optimizer is None:
                return ""
            return (
                f"In {layers[row].name} it is {number:.3g} times that of "
                f"{optimizer.class_name} with learning rate {optimizer.learning_rate:.3g}."
            )


def _weight_decay(known: Kernels) -> Iterator[Found]:
    """A weight decay that takes a large share of the weights at each step."""
    shares = [
        one.settings.get("weight_decay", 0.0) * one.learning_rate if one.class_name else 0.0
        for one in known.updating.optimizers
    ]
    for index, share in enumerate(shares):
        if not limit("weight-decay") <= share < math.inf:
            continue
        mine = known.trained & (known.updating.of("optimizer") == index)
        rows = [int(row) for row in np.flatnonzero(mine)]
        if not rows:
            continue
        names = _named(known, rows)
        yield found(
            "weight-decay",
            known.snapshot,
            names,
            {"layers": len(rows), "share": share},
            f"Weight decay takes {share:.0%} of the weights of {listed(names)} at each "
            "step: weight_decay times the learning rate. They vanish in a few steps, "
            "whatever the gradients are.",
            Decay(tuple(rows), share),
        )
        return


def _replicas_differ(known: Kernels) -> Iterator[Found]:
    """Replicas of a kernel that are not equal any more."""
    apart = known.updating.of("replicas")
    size = np.where(known.weight > 0, known.weight, 1.0)
    rows = [int(row) for row in np.flatnonzero(apart > limit("replicas") * size)]
    if rows:
        names, difference = _named(known, rows), float(np.max(apart[rows]))
        yield found(
            "replicas-differ",
            known.snapshot,
            names,
            {"layers": len(rows), "difference": difference},
            f"The replicas have different weights in {listed(names)}: they differ by up to "
            f"{difference:.3g}. Each replica computes its gradients with weights of its "
            "own, and only the first one's are saved.",
            Replicas(tuple(rows)),
            critical=True,
        )


def _stuck_loss_scale(known: Kernels) -> Iterator[Found]:
    """A loss scale that has fallen so far that it can only fall further."""
    scales = [one.scale for one in known.updating.optimizers]
    scale = min((one for one in scales if one >= 0), default=1.0)
    if not scale < limit("loss-scale"):
        return
    bad = known.snapshot.field("nonfinite", of=records.WEIGHT_GRADIENT)
    rows = [int(row) for row in np.flatnonzero(bad > 0)]
    if not rows and scale > 0:
        return  # this step is not skipped
    names = _named(known, rows or known.rows)
    if names:
        yield found(
            "stuck-loss-scale",
            known.snapshot,
            names,
            {"scale": scale, "layers": len(rows)},
            f"The loss scale has fallen to {scale:.3g}. It is halved, and no weights are "
            "updated, at each step whose gradients are not finite. They are not finite "
            f"although the scale is below 1, first in {names[0]}: a smaller one does not "
            "help.",
            StuckScale(tuple(rows)),
            critical=True,
        )

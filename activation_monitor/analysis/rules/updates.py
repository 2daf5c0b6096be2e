"""Rules on updates: weights that are not updated as their optimizer and gradient imply.

These faults raise no error and need no other run to compare with. Most are certain from
what the step's code did (`updating`). The others follow from laws of optimizers
(`optimizer_law`); where there is no law, nothing is said.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

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
from activation_monitor.analysis.motion import Motion
from activation_monitor.analysis.optimizer_law import Expected, expected
from activation_monitor.analysis.shown import listed
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit
from activation_monitor.analysis.updating import Updating

# By dtype, the largest relative error of rounding (IEEE 754: half of the last bit).
_ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float64": 2.0**-53}
_ROUNDING_32 = 2.0**-24


class _Kernels(NamedTuple):
    """What is known of the kernels of a snapshot.

    Attributes:
        snapshot, updating: The snapshot, and how it updates them.
        rows: Rows of layers with a kernel that can be trained and was measured.
        weight, gradient, update: The largest absolute value of each kernel before the step,
            of its gradient and of its update, `(layers,)`; NaN if some are not finite.
    """

    snapshot: Snapshot
    updating: Updating
    rows: list[int]
    weight: np.ndarray
    gradient: np.ndarray
    update: np.ndarray


def _kernels(snapshot: Snapshot) -> _Kernels | None:
    """What is known of the kernels; None if that is nothing."""
    updating = snapshot.updating
    if updating is None:
        return None
    sizes = [
        _largest(snapshot, of)
        for of in (records.WEIGHT, records.WEIGHT_GRADIENT, records.WEIGHT_UPDATE)
    ]
    known = ~np.isnan(updating.of("optimizer")) & ~np.isnan(sizes[-1])
    rows = [
        row
        for row in map(int, np.flatnonzero(known))
        if snapshot.layers[row].kind == "weight" and snapshot.layers[row].trainable
    ]
    return _Kernels(snapshot, updating, rows, *sizes)


def finds(rule: Callable[[Snapshot, None], Iterator[Found]]) -> Callable[[Snapshot], bool]:
    """The screen of a rule of this module: they are quick, and do not read along depth.

    Args:
        rule: The rule.
    """

    def may_find(snapshot: Snapshot) -> bool:
        return next(rule(snapshot, None), None) is not None

    return may_find


def not_updated(snapshot: Snapshot, profile: DepthProfile | None) -> Iterator[Found]:
    """Weights that get a gradient, and do not move."""
    del profile
    known = _kernels(snapshot)
    if known is None:
        return
    reasons = {row: _why_unmoved(row, known) for row in known.rows}
    for reason in Unmoved:
        named = [row for row in known.rows if reasons[row] is reason]
        if not named:
            continue
        names = [snapshot.layers[row].name for row in named]
        gradient = float(np.nanmax([0.0, *known.gradient[named]]))
        moved = float(np.max(known.update[named]))
        yield found(
            "weights-not-updated",
            snapshot,
            names,
            {"layers": len(named), "gradient": gradient, "update": moved},
            f"The step does not update the weights of {listed(names)}, although they are "
            f"trainable and get a gradient. {_how_unmoved(reason, gradient, moved)}",
            NotApplied(tuple(named), reason, _clipping(known.updating, named[0])),
            critical=len(named) == len(known.rows),
        )
        return


def _largest(snapshot: Snapshot, of: str) -> np.ndarray:
    """The largest absolute value of each kernel; NaN if some are not finite."""
    count, bad = (snapshot.field(name, of=of) for name in ("count", "nonfinite"))
    ends = [np.abs(snapshot.field(name, of=of)) for name in ("minimum", "maximum")]
    return np.where((count > 0) & (bad == 0), np.maximum(*ends), np.nan)


def _why_unmoved(row: int, known: _Kernels) -> Unmoved | None:
    """Why the kernel of a row is not updated; None if it is, or may be later."""
    snapshot, updating = known.snapshot, known.updating
    moved = known.update[row]
    index = updating.of("optimizer")[row]
    if index < 0:
        reaches = snapshot.statistic("rms", of=records.OUTPUT_GRADIENT)[row] > 0
        # A step without one loss may train some layers only, and others in their turn.
        one_loss = updating.whole and math.isfinite(snapshot.loss)
        if moved > 0 or not one_loss or not reaches:
            return None
        if not updating.optimizers:
            by_hand = (known.update[known.rows] > 0).any()
            return None if by_hand else Unmoved.NO_OPTIMIZER
        alone = len(updating.optimizers) == 1 and not snapshot.layers[row].changed
        return Unmoved.NOT_GIVEN if alone else None
    optimizer = updating.optimizers[int(index)]
    factor, remainder = (updating.of(name)[row] for name in ("factor", "remainder"))
    if abs(factor) <= limit("cut-off") and remainder <= limit("same-gradient"):
        return Unmoved.CUT_OFF
    if not optimizer.learning_rate > 0 or snapshot.steps > 1:
        return None
    law = _expected(row, known)
    if law is None or law.exact <= limit("above-rounding") * _rounding(row, known):
        return None
    if moved > limit("hardly-updated") * law.exact:
        return None
    if _clipping(updating, row):
        return Unmoved.CLIPPED
    return Unmoved.CONSTRAINED if updating.of("constrained")[row] else Unmoved.UNDONE


def _rounding(row: int, known: _Kernels) -> float:
    """By how much rounding may change the update of the largest weight of a kernel."""
    # The dtype of the output is at most as precise as that of the kernel.
    relative = _ROUNDING.get(known.snapshot.layers[row].dtype, _ROUNDING_32)
    return float(relative * known.weight[row])


def _expected(row: int, known: _Kernels) -> Expected | None:
    """The update that the law of the optimizer gives; None if there is no law."""
    optimizer = known.updating.optimizer(row)
    gradient, weight = float(known.gradient[row]), float(known.weight[row])
    if optimizer is None or not gradient > 0 or math.isnan(weight):
        return None
    return expected(optimizer, gradient, weight, _rounding(row, known))


def _clipping(updating: Updating, row: int) -> str:
    """The argument by which the optimizer clips gradients; empty if it does not."""
    optimizer = updating.optimizer(row)
    names = "clipvalue", "clipnorm", "global_clipnorm"
    if optimizer is None:
        return ""
    return next((name for name in names if optimizer.settings.get(name)), "")


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


def not_moved(
    motion: Motion, snapshot: Snapshot, profile: DepthProfile | None
) -> Iterator[Found]:
    """Weights that are the same at several sampled steps although each step moves them, or
    that do not move because the learning rate is zero."""
    del profile
    known = _kernels(snapshot)
    rows = known.rows if known else []
    names = [snapshot.layers[row].name for row in rows]
    times = [
        motion.kernels[name].put_back if name in motion.kernels else 0 for name in names
    ]
    again = limit("put-back")
    named = [row for row, count in zip(rows, times, strict=True) if count >= again]
    if named:
        names = [snapshot.layers[row].name for row in named]
        yield found(
            "weights-not-updated",
            snapshot,
            names,
            {"layers": len(named), "snapshots": max(times) + 1},
            f"Each sampled step changes the weights of {listed(names)}, and at the next "
            f"one they are as before, to the last bit: {max(times) + 1} times in a row. "
            "Something puts them back between the steps.",
            NotApplied(tuple(named), Unmoved.PUT_BACK, ""),
            critical=len(named) == len(rows),
        )
    elif motion.without_rate >= limit("zero-rate") and rows:
        yield found(
            "weights-not-updated",
            snapshot,
            names,
            {"layers": len(rows), "snapshots": motion.without_rate},
            f"The learning rate has been 0 since step {motion.without_rate_since}, at "
            f"{motion.without_rate} sampled steps in a row. The weights of {listed(names)} "
            "are not updated.",
            NotApplied(tuple(rows), Unmoved.NO_RATE, ""),
        )


def frozen_and_moved(
    motion: Motion, snapshot: Snapshot, profile: DepthProfile | None
) -> Iterator[Found]:
    """Weights that were frozen after `compile`, and are updated nevertheless."""
    del profile
    updating = snapshot.updating
    if updating is None:
        return
    named = [
        row
        for row in np.flatnonzero(updating.of("stale") == 1)
        if snapshot.layers[row].name in motion.kernels
        and motion.kernels[snapshot.layers[row].name].moved_by_others
    ]
    if named:
        names = [snapshot.layers[row].name for row in named]
        yield found(
            "wrong-update",
            snapshot,
            names,
            {"layers": len(named), "times": math.nan},
            f"The weights of {listed(names)} are frozen, and change between the sampled "
            "steps: the compiled step was made when they were trainable, and still "
            "updates them.",
            WrongUpdate(tuple(map(int, named)), Misapplied.FROZEN, math.nan),
        )


def weight_decay(snapshot: Snapshot, profile: DepthProfile | None) -> Iterator[Found]:
    """A weight decay that takes a large share of the weights at each step."""
    del profile
    known = _kernels(snapshot)
    if known is None:
        return
    shares = {row: _decay(known.updating, row) for row in known.rows}
    named = [row for row in known.rows if shares[row] >= limit("weight-decay")]
    if named:
        names, share = [snapshot.layers[row].name for row in named], shares[named[0]]
        yield found(
            "weight-decay",
            snapshot,
            names,
            {"layers": len(named), "share": share},
            f"Weight decay takes {share:.0%} of the weights of {listed(names)} at each "
            "step: weight_decay times the learning rate. They vanish in a few steps, "
            "whatever the gradients are.",
            Decay(tuple(named), share),
        )


def _decay(updating: Updating, row: int) -> float:
    """The share of the weights that weight decay takes at each step."""
    optimizer = updating.optimizer(row)
    if optimizer is None or not optimizer.class_name:
        return 0.0
    share = optimizer.settings.get("weight_decay", 0.0) * optimizer.learning_rate
    return share if math.isfinite(share) else 0.0


class _Wrong(NamedTuple):
    """How an update is wrong, and a number that says by how much."""

    reason: Misapplied
    number: float


def wrong_update(snapshot: Snapshot, profile: DepthProfile | None) -> Iterator[Found]:
    """Weights whose update is not what their optimizer and gradient imply."""
    del profile
    known = _kernels(snapshot)
    if known is None:
        return
    wrong = {row: _how_wrong(row, known) for row in known.rows}
    for reason in Misapplied:
        named = [row for row, one in wrong.items() if one and one.reason is reason]
        if not named:
            continue
        first = wrong[named[0]]
        number = first.number if first else math.nan
        names = [snapshot.layers[row].name for row in named]
        yield found(
            "wrong-update",
            snapshot,
            names,
            {"layers": len(named), "times": number},
            f"The update of the weights of {listed(names)} is not what the optimizer "
            f"and the gradient imply. {_in_words(reason, number, named[0], snapshot)}",
            WrongUpdate(tuple(named), reason, number),
            critical=reason is not Misapplied.LAW,
        )
        return


def _how_wrong(row: int, known: _Kernels) -> _Wrong | None:
    """How the update of a row is wrong; None if it is right, or there is no law."""
    snapshot, updating = known.snapshot, known.updating
    optimizer = updating.optimizer(row)
    if optimizer is None:
        return None
    source, repeats, times = (
        updating.of(name)[row] for name in ("source", "repeats", "times")
    )
    if not math.isnan(source) and source != row:
        return _Wrong(Misapplied.OF_ANOTHER, source)
    if repeats > 0:
        return _Wrong(Misapplied.REPEATED, times)
    if optimizer.kept_scale and optimizer.scale != 1:
        kept = optimizer.kept_scale > 0
        reason = Misapplied.NOT_UNSCALED if kept else Misapplied.NOT_SCALED
        return _Wrong(reason, optimizer.scale)
    factor, remainder = (updating.of(name)[row] for name in ("factor", "remainder"))
    explains = remainder <= limit("same-gradient")
    minimizes = updating.whole and math.isfinite(snapshot.loss)
    if factor < -limit("cut-off") and explains and minimizes:
        return _Wrong(Misapplied.ASCENT, factor)
    if times != 1 or snapshot.steps > 1 or updating.of("constrained")[row]:
        return None
    law = _expected(row, known)
    if law is None or not optimizer.learning_rate > 0:
        return None
    moved = float(known.update[row])
    within = limit("update-law")
    if law.low * (1 - within) <= moved <= law.high * (1 + within):
        return None
    if moved <= limit("hardly-updated") * law.exact:
        return None  # it is not updated at all
    return _Wrong(Misapplied.LAW, moved / law.exact)


def _in_words(reason: Misapplied, number: float, row: int, snapshot: Snapshot) -> str:
    match reason:
        case Misapplied.OF_ANOTHER:
            return (
                f"{snapshot.layers[row].name} gets the gradient of the weights of "
                f"{snapshot.layers[int(number)].name}, which have the same shape: the "
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
            updating = snapshot.updating
            optimizer = updating.optimizer(row) if updating else None
            if optimizer is None:
                return ""
            return (
                f"In {snapshot.layers[row].name} it is {number:.3g} times that of "
                f"{optimizer.class_name} with learning rate {optimizer.learning_rate:.3g}."
            )


def replicas_differ(snapshot: Snapshot, profile: DepthProfile | None) -> Iterator[Found]:
    """Replicas of a kernel that are not equal any more."""
    del profile
    updating = snapshot.updating
    if updating is None:
        return
    apart = updating.of("replicas")
    largest = _largest(snapshot, records.WEIGHT)
    far = apart > limit("replicas") * np.where(largest > 0, largest, 1.0)
    rows = [int(row) for row in np.flatnonzero(far)]
    if rows:
        names = [snapshot.layers[row].name for row in rows]
        yield found(
            "replicas-differ",
            snapshot,
            names,
            {"layers": len(rows), "difference": float(np.max(apart[rows]))},
            f"The replicas have different weights in {listed(names)}: they differ by up to "
            f"{np.max(apart[rows]):.3g}. Each replica computes its gradients with weights "
            "of its own, and only the first one's are saved.",
            Replicas(tuple(rows)),
            critical=True,
        )


def stuck_loss_scale(snapshot: Snapshot, profile: DepthProfile | None) -> Iterator[Found]:
    """A loss scale that has fallen so far that it can only fall further."""
    del profile
    updating = snapshot.updating
    scales = [one.scale for one in updating.optimizers] if updating else []
    scale = min((one for one in scales if one >= 0), default=1.0)
    if updating is None or not scale < limit("loss-scale"):
        return
    of = records.WEIGHT_GRADIENT
    bad = snapshot.field("nonfinite", of=of)
    rows = [int(row) for row in np.flatnonzero(bad > 0)]
    if not rows and scale > 0:
        return  # this step is not skipped
    names = [snapshot.layers[row].name for row in rows]
    known = _kernels(snapshot)
    names = names or [snapshot.layers[row].name for row in (known.rows if known else [])]
    if names:
        yield found(
            "stuck-loss-scale",
            snapshot,
            names,
            {"scale": scale, "layers": len(rows)},
            f"The loss scale has fallen to {scale:.3g}. It is halved, and no weights are "
            "updated, at each step whose gradients are not finite. They are not finite "
            f"although the scale is below 1, first in {names[0]}: a smaller one does not "
            "help.",
            StuckScale(tuple(rows)),
            critical=True,
        )

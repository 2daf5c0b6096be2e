"""What a step did to the kernels of a snapshot, compared with what it should have done.

All kernels are compared at once, because it is done at every sampled step.
"""

import math
from typing import NamedTuple

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.analysis.causes import Misapplied, Unmoved
from activation_monitor.analysis.optimizer_law import Expected, expected
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit
from activation_monitor.analysis.updating import OptimizerInfo, Updating

# By dtype, the largest relative error of rounding (IEEE 754: half of the last bit).
_ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float64": 2.0**-53}
_ROUNDING_32 = 2.0**-24

_CLIPPING = ("clipvalue", "clipnorm", "global_clipnorm")


class Kernels(NamedTuple):
    """What is known of the kernels of a snapshot. All arrays have the shape `(layers,)`.

    Attributes:
        snapshot, updating: The snapshot, and how it updates them.
        trained: Whether a layer has a kernel that can be trained and was measured.
        weight, gradient, update: The largest absolute value of each kernel before the step,
            of its gradient and of its update; NaN if some are not finite.
        rounding: By how much rounding may change the update of the largest weight.
        law: The update that the law of its optimizer gives; NaN where there is no law.
    """

    snapshot: Snapshot
    updating: Updating
    trained: np.ndarray
    weight: np.ndarray
    gradient: np.ndarray
    update: np.ndarray
    rounding: np.ndarray
    law: Expected

    @property
    def rows(self) -> list[int]:
        """Rows of the layers with a kernel that can be trained."""
        return _rows(self.trained)


def kernels(snapshot: Snapshot) -> Kernels | None:
    """What is known of the kernels; None if that is nothing.

    Args:
        snapshot: The snapshot.
    """
    updating, layers = snapshot.updating, snapshot.layers
    if updating is None:
        return None
    weight, gradient, update = (
        snapshot.largest(of)
        for of in (records.WEIGHT, records.WEIGHT_GRADIENT, records.WEIGHT_UPDATE)
    )
    trained = ~np.isnan(updating.of("optimizer")) & ~np.isnan(update)
    for row in np.flatnonzero(trained):
        trained[row] = layers[row].kind == "weight" and layers[row].trainable
    # The dtype of the output is at most as precise as that of the kernel.
    relative = [_ROUNDING.get(layer.dtype, _ROUNDING_32) for layer in layers]
    rounding = np.array(relative) * weight
    law = Expected(*(np.full(len(layers), np.nan) for _ in Expected._fields))
    follows = trained & (gradient > 0) & ~np.isnan(weight)
    for index, optimizer in enumerate(updating.optimizers):
        rows = follows & (updating.of("optimizer") == index)
        if rows.any():
            found = expected(optimizer, gradient[rows], weight[rows], rounding[rows])
            for part, values in zip(law, found or (), strict=False):
                part[rows] = values
    return Kernels(snapshot, updating, trained, weight, gradient, update, rounding, law)


def clipping(optimizer: OptimizerInfo | None) -> str:
    """The argument by which an optimizer clips gradients; empty if it does not."""
    if optimizer is None:
        return ""
    return next((name for name in _CLIPPING if optimizer.settings.get(name)), "")


def _of_optimizers(known: Kernels, value: list[float]) -> np.ndarray:
    """A number of each optimizer, for the kernels that were given to it; NaN for others."""
    index = known.updating.of("optimizer")
    return np.array([*value, np.nan])[np.where(index >= 0, index, len(value)).astype(int)]


def unmoved(known: Kernels) -> dict[Unmoved, list[int]]:
    """Rows of the kernels that a step should have updated and has not, by the reason.

    Args:
        known: What is known of the kernels.
    """
    snapshot, updating = known.snapshot, known.updating
    of, found = updating.of, dict[Unmoved, np.ndarray]()
    index = of("optimizer")
    not_given = known.trained & (index < 0)
    # A step without one loss may train some layers only, and others in their turn.
    if not_given.any() and updating.whole and math.isfinite(snapshot.loss):
        reaches = snapshot.statistic("rms", of=records.OUTPUT_GRADIENT) > 0
        still = not_given & (known.update == 0) & reaches
        if not updating.optimizers and not (known.update[known.trained] > 0).any():
            found[Unmoved.NO_OPTIMIZER] = still
        if len(updating.optimizers) == 1:
            drawn = np.array([not layer.changed for layer in snapshot.layers])
            found[Unmoved.NOT_GIVEN] = still & drawn
    given = known.trained & (index >= 0)
    cut = given & (np.abs(of("factor")) <= limit("cut-off"))
    cut &= of("remainder") <= limit("same-gradient")
    found[Unmoved.CUT_OFF] = cut
    if snapshot.steps == 1:
        rates = _of_optimizers(known, [one.learning_rate for one in updating.optimizers])
        clipped = _of_optimizers(
            known, [float(bool(clipping(one))) for one in updating.optimizers]
        )
        still = given & ~cut & (rates > 0)
        still &= known.law.exact > limit("above-rounding") * known.rounding
        still &= known.update <= limit("hardly-updated") * known.law.exact
        found[Unmoved.CLIPPED] = still & (clipped == 1)
        found[Unmoved.CONSTRAINED] = still & (clipped != 1) & (of("constrained") == 1)
        found[Unmoved.UNDONE] = still & (clipped != 1) & (of("constrained") != 1)
    return {reason: _rows(found[reason]) for reason in found if found[reason].any()}


class Wrong(NamedTuple):
    """Kernels with a wrong update.

    Attributes:
        rows: Their rows.
        number: For the first of them, how many times, or the row of the other weights.
    """

    rows: list[int]
    number: float


def misapplied(known: Kernels) -> dict[Misapplied, Wrong]:
    """The kernels whose update is not what optimizer and gradient imply, by the reason.

    Args:
        known: What is known of the kernels.
    """
    snapshot, updating = known.snapshot, known.updating
    of = updating.of
    given = known.trained & (of("optimizer") >= 0)
    found, number = dict[Misapplied, np.ndarray](), dict[Misapplied, np.ndarray]()

    def note(reason: Misapplied, rows: np.ndarray, numbers: np.ndarray) -> None:
        nonlocal given
        found[reason], number[reason] = given & rows, numbers
        given = given & ~rows

    source = of("source")
    others = ~np.isnan(source) & (source != np.arange(len(source)))
    note(Misapplied.OF_ANOTHER, others, source)
    note(Misapplied.REPEATED, of("repeats") > 0, of("times"))
    scale = _of_optimizers(known, [one.scale for one in updating.optimizers])
    kept = _of_optimizers(known, [one.kept_scale for one in updating.optimizers])
    note(Misapplied.NOT_UNSCALED, (kept > 0) & (scale != 1), scale)
    note(Misapplied.NOT_SCALED, (kept < 0) & (scale != 1), scale)
    if updating.whole and math.isfinite(snapshot.loss):
        turned = of("factor") < -limit("cut-off")
        turned &= of("remainder") <= limit("same-gradient")
        note(Misapplied.ASCENT, turned, of("factor"))
    if snapshot.steps == 1:
        law, within = known.law, limit("update-law")
        rates = _of_optimizers(known, [one.learning_rate for one in updating.optimizers])
        off = (known.update < law.low * (1 - within)) | (
            known.update > law.high * (1 + within)
        )
        # Otherwise it is not updated at all.
        off &= known.update > limit("hardly-updated") * law.exact
        off &= (rates > 0) & (of("times") == 1) & (of("constrained") != 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            note(Misapplied.LAW, off, known.update / law.exact)
    return {
        reason: Wrong(_rows(rows), float(number[reason][rows][0]))
        for reason, rows in found.items()
        if rows.any()
    }


def _rows(mask: np.ndarray) -> list[int]:
    return [int(row) for row in np.flatnonzero(mask)]

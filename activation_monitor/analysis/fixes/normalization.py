"""Fixes for moving statistics that are not those of the data."""

from activation_monitor.analysis.causes import (
    EvaluationDiffers,
    FixedStatistics,
    MovingStatistics,
)
from activation_monitor.analysis.fix import Change, Fix
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit


def moving(cause: MovingStatistics, snapshot: Snapshot) -> Fix:
    """The fix for moving statistics that do not follow the batches."""
    names = tuple(snapshot.layers[row].name for row in cause.rows)
    steps = 1.0 / (1.0 - cause.momentum) if cause.momentum < 1 else float("inf")
    lower = Change("in", "momentum=0.9", names, "follows in 10 steps")
    if steps > limit("moving-apart") * limit("moving-slower"):
        return Fix(
            "normalization",
            f"With momentum={cause.momentum:.6g} the moving statistics follow in about "
            f"{steps:.3g} steps, and this is step {snapshot.last_step}.",
            (lower,),
        )
    return Fix(
        "normalization",
        f"The moving statistics follow in about {steps:.3g} steps, and the statistics of "
        "the batches change faster, or each batch has its own: because the data are not "
        "shuffled, because batches are small, or because steps are too large.",
        (
            lower,
            Change("in", "shuffle=True", ("model.fit",), "if the data are sorted"),
            Change(
                "in",
                "learning_rate=...",
                ("the optimizer",),
                "a tenth of the present one, if they are shuffled",
            ),
        ),
    )


def fixed(cause: FixedStatistics, snapshot: Snapshot) -> Fix:
    """The fix for a frozen layer whose statistics are those of other data."""
    names = tuple(snapshot.layers[row].name for row in cause.rows)
    return Fix(
        "normalization",
        "The layers are frozen, or are called with `training=False`, with statistics of "
        "other data. Prepare the inputs as for the data that the weights were trained on, "
        "or let the statistics follow.",
        (Change("in", "trainable=True", names, "and no `training=False` in its call"),),
    )


def evaluation(cause: EvaluationDiffers, snapshot: Snapshot) -> Fix:
    """The fix for a tensor that is another one in evaluation."""
    layer = snapshot.layers[cause.row]
    if layer.class_name == "BatchNormalization":
        return Fix(
            "normalization",
            "Its input has the same size as in training, so the moving statistics do not "
            "fit: they follow too slowly, batches are too small, or the layer is called "
            "with `training=True` or frozen in one of the two only.",
            (Change("in", "momentum=0.9", (layer.name,), "follows in 10 steps"),),
        )
    if layer.kind == "input" and not layer.parents:
        return Fix(
            "input scale",
            "The data of evaluation have another size than those of training when they "
            "enter the network. Prepare both in the same way.",
            (
                Change(
                    "before",
                    "keras.layers.Normalization()",
                    (layer.name.partition(":input")[0],),
                    "adapted to the training data, as a part of the model",
                ),
            ),
        )
    return Fix(
        "not known",
        f"The inputs of {layer.name} have the same size as in training. Look for what its "
        "call does with `training`.",
    )

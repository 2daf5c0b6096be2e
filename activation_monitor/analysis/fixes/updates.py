"""Fixes for weights that are not updated as their optimizer and gradient imply."""

from activation_monitor.analysis.causes import (
    Decay,
    Misapplied,
    NotApplied,
    StuckScale,
    Unmoved,
    WrongUpdate,
)
from activation_monitor.analysis.fix import Change, Fix
from activation_monitor.analysis.snapshot import Snapshot

_STEP = ("train_step",)


def not_applied(cause: NotApplied, snapshot: Snapshot) -> Fix:
    """The fix for weights that get a gradient and are not updated."""
    names = tuple(snapshot.layers[row].name for row in cause.rows)
    apply = Change(
        "in",
        "self.optimizer.apply(gradients, self.trainable_variables)",
        _STEP,
        "with the gradients by the same list",
    )
    match cause.reason:
        case Unmoved.NO_OPTIMIZER:
            return Fix(
                "training step",
                "The code of the step ran from its beginning to its end, and no optimizer "
                "of Keras was applied.",
                (apply,),
            )
        case Unmoved.NOT_GIVEN:
            return Fix(
                "training step",
                "The list of weights in the training step does not have these, or the "
                "optimizer was built with the weights of another model. If that is meant, "
                "freeze the layers: `layer.trainable = False` before `compile`.",
                (apply,),
            )
        case Unmoved.CUT_OFF:
            return Fix(
                "training step",
                "The gradient that the tape returned is not zero, and the one that the "
                "optimizer gets is zero, or nearly: a mask, a limit or a factor.",
                (apply,),
            )
        case Unmoved.CLIPPED:
            return Fix(
                "clipping",
                f"The limit `{cause.clipping}` of the optimizer is far below gradients.",
                (
                    Change(
                        "in",
                        f"{cause.clipping}=1.0",
                        ("the optimizer",),
                        "about the size of a usual gradient, or more",
                    ),
                ),
            )
        case Unmoved.CONSTRAINED:
            return Fix(
                "constraint",
                "The constraint of the kernel is applied after the update, and returns the "
                "weights as they were before it.",
                (Change("in", "kernel_constraint=None", names, ""),),
            )
        case Unmoved.UNDONE:
            return Fix(
                "training step",
                "The optimizer was applied with a gradient and a learning rate that move "
                "the weights, and after the step they are as before. Look for an `assign` "
                "or `set_weights` after the optimizer.",
            )
        case Unmoved.PUT_BACK:
            return Fix(
                "callback",
                "Look for `set_weights`, `load_weights` or `assign` in a callback, or in "
                "the loop around the step.",
            )
        case Unmoved.NO_RATE:
            return Fix(
                "learning rate",
                "The schedule has ended: `decay_steps` counts steps (batches), not epochs. "
                "Or something has set the learning rate to 0.",
                (
                    Change(
                        "in",
                        "decay_steps=epochs * steps_per_epoch",
                        ("the learning rate schedule",),
                        "or alpha=0.01, which is then the smallest rate",
                    ),
                ),
            )


def wrong(cause: WrongUpdate) -> Fix:
    """The fix for an update that is not what optimizer and gradient imply."""
    scaled = Change(
        "in", "loss = self.optimizer.scale_loss(loss)", _STEP, "before the gradient"
    )
    apply = Change(
        "in",
        "self.optimizer.apply(gradients, self.trainable_variables)",
        _STEP,
        "the LossScaleOptimizer, which divides by the scale, not its inner_optimizer",
    )
    match cause.reason:
        case Misapplied.OF_ANOTHER:
            return Fix(
                "training step",
                "Take the gradients by one list of weights and apply them with the same "
                "list.",
                (
                    Change(
                        "in",
                        "gradients = tape.gradient(loss, weights); "
                        "self.optimizer.apply(gradients, weights)",
                        _STEP,
                        "",
                    ),
                ),
            )
        case Misapplied.REPEATED:
            return Fix(
                "training step",
                "Apply each gradient once: for a larger step, choose a larger learning "
                "rate. Look for a second `apply` or `apply_gradients`.",
            )
        case Misapplied.NOT_UNSCALED:
            return Fix(
                "loss scale",
                "Only `apply` of the LossScaleOptimizer divides gradients by the scale.",
                (apply,),
            )
        case Misapplied.NOT_SCALED:
            return Fix(
                "loss scale",
                "`compile` wraps the optimizer for mixed_float16. A training step of your "
                "own must scale the loss: otherwise gradients are too small by the scale, "
                "and those of Adam may be below its epsilon.",
                (scaled,),
            )
        case Misapplied.ASCENT:
            return Fix(
                "training step",
                "The optimizer subtracts the gradient. Pass the gradient of the loss as "
                "the tape returns it.",
            )
        case Misapplied.FROZEN:
            return Fix(
                "training step",
                "A change of `trainable` takes effect when the model is compiled again.",
                (Change("after", "model.compile(...)", ("layer.trainable = False",), ""),),
            )
        case Misapplied.LAW:
            return Fix(
                "training step",
                "Something besides the optimizer changes these weights in the step: an "
                "`assign`, or another optimizer. Or the learning rate is changed within "
                "the step.",
            )


def decay(cause: Decay) -> Fix:
    """The fix for weight decay that takes a large share of the weights."""
    return Fix(
        "weight decay",
        f"Keras multiplies `weight_decay` by the learning rate, and the weights by one "
        f"minus that: they lose {cause.share:.0%} at each step.",
        (
            Change(
                "in",
                "weight_decay=0.004",
                ("the optimizer",),
                "the default of keras.optimizers.AdamW",
            ),
        ),
    )


def replicas() -> Fix:
    """The fix for replicas with different weights."""
    return Fix(
        "training step",
        "Each replica changes its own copy: gradients are not summed over the replicas, "
        "or weights are assigned to one replica only. Update weights with an optimizer of "
        "Keras, and load them with `model.set_weights` or `model.load_weights`.",
    )


def stuck_scale(cause: StuckScale, snapshot: Snapshot) -> Fix:
    """The fix for a loss scale that has fallen to nothing."""
    del cause
    half = any(layer.dtype == "float16" for layer in snapshot.layers)
    reason = (
        "A scale helps against gradients that underflow. These are NaN, or overflow, "
        "without it: the loss or its derivative is not finite"
    )
    if not half:
        return Fix(
            "operation without a finite derivative",
            f"{reason}, and nothing here is float16. Remove the LossScaleOptimizer to see "
            "where NaN begins.",
        )
    return Fix(
        "range of float16",
        f"{reason}, or a sum exceeds 65504, the end of float16. bfloat16 has the range of "
        "float32, and needs no loss scale.",
        (
            Change(
                "before",
                'keras.mixed_precision.set_global_policy("mixed_bfloat16")',
                ("building the model",),
                "or compute the loss and what is before it in float32",
            ),
        ),
    )

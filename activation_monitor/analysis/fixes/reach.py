"""Fixes for gradients that end on the way, or are not finite."""

from activation_monitor.analysis.causes import Blocked, NonFiniteGradient, Reason
from activation_monitor.analysis.fix import SMALLER_STEPS, Change, Fix
from activation_monitor.analysis.shown import listed
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot


def blocked(cause: Blocked, snapshot: Snapshot) -> Fix:
    """The fix for a layer that passes no gradient back."""
    layer = snapshot.layers[cause.row]
    match cause.reason:
        case Reason.ONE_CLASS:
            return Fix(
                "activation function",
                "A softmax needs one unit for each class. For two classes use one unit "
                "with sigmoid, or two units with softmax; for a regression no activation.",
                _activation(layer, "sigmoid", 'with loss="binary_crossentropy"'),
            )
        case Reason.RECTIFIED:
            return Fix(
                "activation function",
                "Use no activation function on the output of a regression. Whether an "
                f"output with {layer.activation} is zero for all samples is a matter of "
                "the random draw of the weights, and then no step changes it.",
                _activation(layer, "linear", '"softplus" for targets that are positive'),
            )
        case Reason.BRANCH:
            return Fix(
                "not known",
                f"The sums in {layer.name} are negative for all samples: because of a bias "
                "far below zero, or of weights whose mean has the opposite sign of their "
                "inputs.",
                _activation(layer, "leaky_relu", "draw the weights around zero"),
            )
        case Reason.SATURATED:
            return Fix(
                "input of the activation function",
                f"The sums in {layer.name} are so large that {layer.activation} rounds to "
                "its limits. Scale the input of the model to standard deviation 1, and "
                "draw the weights of this layer with its default initializer.",
            )
        case Reason.STEPS:
            return Fix(
                "operation without a derivative",
                f"{layer.name} computes steps: a comparison, a sign, a rounding or values "
                "clipped at their limits. Replace it by a smooth function, or pass the "
                "gradient around it: `x + keras.ops.stop_gradient(step(x) - x)`.",
            )
        case Reason.CUT:
            before = [snapshot.layers[row].name for row in cause.parents]
            return Fix(
                "operation without a derivative",
                f"On the way from {listed(before)} to {layer.name} there is a "
                "`stop_gradient`, a rounding or a comparison, an `argmax`, a conversion to "
                "integers, or code outside of Keras. Replace it by an operation that has a "
                "derivative, or pass the gradient around it: "
                "`x + keras.ops.stop_gradient(step(x) - x)`. If it is meant, freeze the "
                "layers before it: `layer.trainable = False`.",
            )


def _activation(layer: LayerInfo, name: str, why: str) -> tuple[Change, ...]:
    return (Change("in", f'activation="{name}"', (layer.name,), f"or {why}"),)


_DIVERGES = Fix(
    "learning rate",
    "Each step makes the weights, and so the gradients, larger than the one before, until "
    "they exceed the range of the numbers. The steps are too large. If this is the first "
    "step, the weights or the data are.",
    SMALLER_STEPS,
)


def nonfinite(cause: NonFiniteGradient, snapshot: Snapshot) -> Fix:
    """The fix for gradients that are not finite although the activations are."""
    if cause.overflows:
        return _DIVERGES
    where = f"after {snapshot.layers[cause.row].name}"
    if cause.after is None:
        where = "in the loss"
    return Fix(
        "operation without a finite derivative",
        f"An operation {where} has a finite value, but its derivative is not: the square "
        "root, a norm or a standard deviation at 0, a logarithm or a division near 0, a "
        "power below 1, or `keras.ops.where` around one of them, which computes both "
        "sides. Add a small number inside of it, `keras.ops.sqrt(x + 1e-12)`, or change "
        "its input before the operation instead of its output after it.",
    )

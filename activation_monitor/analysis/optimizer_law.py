"""What an optimizer does to a weight whose gradient is known: laws of Keras' optimizers.

The update of a weight depends on gradients of earlier steps as well. Only where it does
not, there is a law: for SGD without momentum at every step, for others at the first one.
There the update is `-h(g)` with an odd function h that never falls. So the largest update
is that of the largest gradient, and a record of both is enough to compare them.
"""

import math
from typing import NamedTuple

from activation_monitor.analysis.updating import OptimizerInfo


class Expected(NamedTuple):
    """The largest update of a kernel, in absolute value, that its optimizer makes.

    Attributes:
        exact: From the gradient alone, without clipping.
        low, high: Between these it is, whatever clipping and weight decay do.
    """

    exact: float
    low: float
    high: float


def expected(
    optimizer: OptimizerInfo, gradient: float, weight: float, rounding: float
) -> Expected | None:
    """The largest update that follows from the largest gradient of a kernel.

    Args:
        optimizer: The optimizer, with a learning rate that is known.
        gradient: The largest gradient, in absolute value, positive.
        weight: The largest weight, in absolute value.
        rounding: By how much rounding may change an update.

    Returns:
        The update; None if it does not follow, because earlier steps are part of it, the
        optimizer or its state is not known, or a step adds up gradients or averages
        weights.
    """
    known = optimizer.settings
    overwrites = known.get("use_ema") and known.get("ema_overwrite_frequency")
    if overwrites or known.get("gradient_accumulation_steps"):
        return None
    exact = _largest(optimizer, gradient)
    if optimizer.took != 1 or exact is None or not math.isfinite(exact):
        return None
    limited = min(gradient, known.get("clipvalue") or math.inf)
    clipped = _largest(optimizer, limited) or 0.0
    low = clipped
    if known.get("clipnorm") or known.get("global_clipnorm"):
        low = 0.0  # the norm of all weights is not known
    decay = known.get("weight_decay", 0.0) * optimizer.learning_rate * weight
    return Expected(exact, max(low - decay - rounding, 0.0), clipped + decay + rounding)


def _largest(optimizer: OptimizerInfo, gradient: float) -> float | None:
    """h of the module's docstring, from `update_step` of the optimizers of Keras 3.

    At the first step all averages are zero, and Adam corrects them for that: its m is g and
    its v is g^2, up to epsilon.
    """
    rate, is_first = optimizer.learning_rate, optimizer.taken == 0
    known = optimizer.settings
    epsilon = known.get("epsilon", 0.0)
    momentum = known.get("momentum", 0.0)
    match optimizer.class_name:
        case "SGD" if is_first or not momentum:
            ahead = momentum if known.get("nesterov") else 0.0
            return rate * gradient * (1.0 + ahead)
        case "Adam" | "AdamW" if is_first and "beta_2" in known:
            scale = math.sqrt(1.0 - known["beta_2"])
            return rate * scale * gradient / (scale * gradient + epsilon)
        case "Adamax" if is_first:
            return rate * gradient / (gradient + epsilon)
        case "RMSprop" if is_first and "rho" in known and not known.get("centered"):
            squares = (1.0 - known["rho"]) * gradient * gradient
            return rate * gradient / math.sqrt(squares + epsilon)
        case "Adagrad" if is_first and "initial_accumulator_value" in known:
            squares = known["initial_accumulator_value"] + gradient * gradient
            return rate * gradient / math.sqrt(squares + epsilon)
        case "Lion" if is_first:
            return rate
        case _:
            return None

"""What an optimizer does to a weight whose gradient is known: laws of Keras' optimizers.

The update of a weight depends on gradients of earlier steps as well. Only where it does
not, there is a law: for SGD without momentum at every step, for others at the first one.
There the update is `-h(g)` with an odd function h that never falls. So the largest update
is that of the largest gradient, and a record of both is enough to compare them.
"""

from typing import NamedTuple

import numpy as np

from activation_monitor.analysis.updating import OptimizerInfo


class Expected(NamedTuple):
    """The largest updates of some kernels, in absolute value, that their optimizer makes.

    Attributes:
        exact: From the gradient alone, without clipping.
        low, high: Between these it is, whatever clipping and weight decay do.
    """

    exact: np.ndarray
    low: np.ndarray
    high: np.ndarray


def expected(
    optimizer: OptimizerInfo,
    gradient: np.ndarray,
    weight: np.ndarray,
    rounding: np.ndarray,
) -> Expected | None:
    """The largest updates that follow from the largest gradients of some kernels.

    Args:
        optimizer: The optimizer.
        gradient: The largest gradient of each kernel, in absolute value, positive.
        weight: The largest weight of each kernel, in absolute value.
        rounding: By how much rounding may change an update.

    Returns:
        The updates, NaN if the learning rate is not known. None if they do not follow,
        because earlier steps are part of them, the optimizer or its state is not known, or
        a step adds up gradients or averages weights.
    """
    known = optimizer.settings
    overwrites = known.get("use_ema") and known.get("ema_overwrite_frequency")
    if overwrites or known.get("gradient_accumulation_steps") or optimizer.took != 1:
        return None
    exact = _largest(optimizer, gradient)
    limited = np.minimum(gradient, known.get("clipvalue") or np.inf)
    clipped = _largest(optimizer, limited)
    if exact is None or clipped is None:
        return None
    # The norm of all weights, which is clipped, is not known.
    norm = known.get("clipnorm") or known.get("global_clipnorm")
    low = np.zeros_like(clipped) if norm else clipped
    decay = known.get("weight_decay", 0.0) * optimizer.learning_rate * weight
    around = decay + rounding
    return Expected(exact, np.maximum(low - around, 0.0), clipped + around)


def _largest(optimizer: OptimizerInfo, gradient: np.ndarray) -> np.ndarray | None:
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
            scale = np.sqrt(1.0 - known["beta_2"])
            return rate * scale * gradient / (scale * gradient + epsilon)
        case "Adamax" if is_first:
            return rate * gradient / (gradient + epsilon)
        case "RMSprop" if is_first and "rho" in known and not known.get("centered"):
            squares = (1.0 - known["rho"]) * gradient * gradient
            return rate * gradient / np.sqrt(squares + epsilon)
        case "Adagrad" if is_first and "initial_accumulator_value" in known:
            squares = known["initial_accumulator_value"] + gradient * gradient
            return rate * gradient / np.sqrt(squares + epsilon)
        case "Lion" if is_first:
            return np.full_like(gradient, rate)
        case _:
            return None

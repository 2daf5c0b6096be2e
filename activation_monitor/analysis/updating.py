"""How a step updates kernels: the optimizers, and what the step's code gave them.

Most of it is not measured: it is noted while the step's code runs, once for a compiled
step. So it costs nothing, and says for certain what a measurement could only suggest: that
a kernel was given to no optimizer, or was given the gradient of another one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from activation_monitor.analysis.shown import count, listed, one_line

NAMES = (
    *("optimizer", "times", "repeats", "source"),
    *("factor", "remainder", "replicas", "constrained", "stale"),
)
"""What is known of the kernel of each layer, NaN where it is not known:

* `optimizer`: the index of the optimizer that it was given to; -1 if to none. NaN for a
  kernel that is not a trainable variable.
* `times`: in how many calls of `apply` an optimizer was given a gradient for it.
* `repeats`: in how many of these it was the very tensor of a call before.
* `source`: the row of the layer whose gradient that is: its own, or that of another one.
  NaN if the step computed another tensor from it.
* `factor`: the number by which the step multiplied the gradient before it gave it to the
  optimizer; 1 if it did not change it.
* `remainder`: the rms of what such a factor does not explain, over the rms of what was
  given.
* `replicas`: the largest difference between two replicas of the kernel before the step.
* `constrained`: 1 if it has a constraint, else 0.
* `stale`: 1 if it is frozen, but the optimizer was built when it was trainable.
"""

SETTINGS = (
    *("momentum", "nesterov", "beta_1", "beta_2", "epsilon", "rho", "centered", "amsgrad"),
    *("weight_decay", "clipnorm", "clipvalue", "global_clipnorm"),
    *("use_ema", "ema_overwrite_frequency", "gradient_accumulation_steps"),
    "initial_accumulator_value",
)
"""Arguments of optimizers that are read, where they are numbers."""


@dataclass(frozen=True)
class OptimizerInfo:
    """An optimizer at a step.

    Attributes:
        class_name: Its class, that of the inner optimizer for a loss scale; empty for one
            that is not an optimizer of Keras.
        learning_rate: At this step; NaN if not known. Defaults to NaN.
        taken: How many batches it had seen before the step; NaN if not known.
        took: How many of them in the step: 0 if it was not applied, or skipped the step.
        scale: The dynamic loss scale before the step; 1 without one. Defaults to `1.0`.
        kept_scale: The power of that scale that the gradients keep: 1 if the step scaled
            the loss, but applied the gradients without dividing them; -1 if it divided
            them, but had not scaled the loss. Defaults to `0`.
        settings: Arguments of the optimizer, by names from `SETTINGS`.
    """

    class_name: str
    learning_rate: float = math.nan
    taken: float = math.nan
    took: float = math.nan
    scale: float = 1.0
    kept_scale: int = 0
    settings: Mapping[str, float] = field(default_factory=dict[str, float])

    @one_line
    def __repr__(self) -> str:
        name = self.class_name or "an optimizer of another kind"
        return f"{name}, learning rate {self.learning_rate:.3g}"


@dataclass(frozen=True)
class Updating:
    """How a step updates the kernels.

    Attributes:
        optimizers: Those that the step applied, in the order of the calls.
        kernels: Array `(layers, len(NAMES))`.
        whole: Whether all that a step does was followed, as in `fit`. In a loop of the
            user's own, other code may apply gradients. Defaults to `False`.

    Raises:
        ValueError: If the array does not have one column for each of `NAMES`.
    """

    optimizers: tuple[OptimizerInfo, ...]
    kernels: np.ndarray
    whole: bool = False

    def __post_init__(self) -> None:
        if self.kernels.ndim != 2 or self.kernels.shape[1] != len(NAMES):
            raise ValueError(
                f"Updating: expected an array of {len(NAMES)} columns. Received: shape "
                f"{self.kernels.shape}."
            )

    @one_line
    def __repr__(self) -> str:
        names = listed([one.class_name or "another" for one in self.optimizers])
        return f"of {count(len(self.kernels), 'layer')} by {names or 'no optimizer'}"

    def of(self, name: str) -> np.ndarray:
        """What is known of all kernels, `(layers,)`.

        Args:
            name: One of `NAMES`.

        Raises:
            ValueError: If there is no such name.
        """
        return self.kernels[:, NAMES.index(name)]

    def optimizer(self, row: int) -> OptimizerInfo | None:
        """The optimizer that the kernel of a layer was given to; None if to none.

        Args:
            row: The row of the layer.
        """
        index = self.of("optimizer")[row]
        return self.optimizers[int(index)] if index >= 0 else None


def unknown(layers: int) -> np.ndarray:
    """The array of kernels of which nothing is known, `(layers, len(NAMES))`."""
    return np.full((layers, len(NAMES)), np.nan)

"""What `rescale` did to a model."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RescaledLayer:
    """What became of one weight layer.

    Attributes:
        name: Its Keras path.
        std_before: Standard deviation of its pre-activations, over batch and units, in
            the model as it was given. NaN if they were not finite, or not measured.
        std_after: The same in the finished model.
        factor: What its kernel was multiplied by; 1 if it was left alone.
        reason: Why it was left alone; empty if it was rescaled.
    """

    name: str
    std_before: float
    std_after: float
    factor: float = 1.0
    reason: str = ""


@dataclass(frozen=True)
class Rescaling:
    """What `rescale` did, layer by layer in the order of the data; prints as a table."""

    layers: tuple[RescaledLayer, ...]
    shown_by: Callable[["Rescaling"], str] | None = field(
        default=None, repr=False, compare=False
    )

    def __str__(self) -> str:
        return self.shown_by(self) if self.shown_by else repr(self)

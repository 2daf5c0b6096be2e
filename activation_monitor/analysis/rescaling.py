"""What `rescale` did to a model."""

from dataclasses import dataclass

from activation_monitor.analysis import shown
from activation_monitor.analysis.shown import one_line


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

    @one_line
    def __repr__(self) -> str:
        done = f"left alone: {self.reason}" if self.reason else f"factor {self.factor:.3g}"
        return f"{self.name}: std {self.std_before:.3g} to {self.std_after:.3g}, {done}"


@dataclass(frozen=True)
class Rescaling:
    """What `rescale` did, layer by layer in the order of the data; prints as a table."""

    layers: tuple[RescaledLayer, ...]

    @property
    def summary(self) -> str:
        """How many layers were rescaled."""
        done = sum(not layer.reason for layer in self.layers)
        return f"{done} of {len(self.layers)} weight layers rescaled"

    def __str__(self) -> str:
        return shown.text(self)

    @one_line
    def __repr__(self) -> str:
        return f"with {self.summary}"

    def _repr_html_(self) -> str | None:
        return shown.in_notebook(self)

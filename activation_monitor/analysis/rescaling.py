"""The result of `rescale`."""

from dataclasses import dataclass

from activation_monitor.analysis import shown
from activation_monitor.analysis.shown import one_line


@dataclass(frozen=True)
class RescaledLayer:
    """One weight layer before and after rescaling.

    Attributes:
        name: Its Keras path.
        std_before: Standard deviation of its pre-activations, over batch and units, before
            rescaling. NaN if they were not finite, or not measured.
        std_after: The same after rescaling.
        factor: The factor of its kernel. Defaults to `1.0`, for a layer left unchanged.
        reason: Why it was left unchanged; empty if it was rescaled.
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
    """The layers that `rescale` changed, and the others; prints as a table.

    Attributes:
        layers: In the order of the data path.
    """

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

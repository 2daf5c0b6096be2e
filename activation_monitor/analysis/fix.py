"""What a fix is: a cause, a reason, and code to change. Plain data."""

from dataclasses import dataclass
from typing import NamedTuple

from activation_monitor.analysis.shown import listed, one_line


class Change(NamedTuple):
    """One thing to change.

    Attributes:
        where: "in" the call that creates each layer; "before" or "after" each layer.
        code: Keras code: arguments for "in", a new layer for "before" and "after".
        layers: Names of the layers.
        why: The number that supports the change.
    """

    where: str
    code: str
    layers: tuple[str, ...]
    why: str = ""

    @property
    def line(self) -> str:
        """The code and, as a comment, the number that supports it."""
        return f"{self.code}  # {self.why}" if self.why else self.code

    @property
    def place(self) -> str:
        """Where the code belongs, in words."""
        return f"{self.where} {listed(self.layers)}"

    def to_dict(self) -> dict[str, str]:
        """The change as plain data: `place` and `line`."""
        return {"place": self.place, "line": self.line}

    @one_line
    def __repr__(self) -> str:
        return f"{self.place}: {self.line}"


SMALLER_STEPS = (
    Change("in", "learning_rate=...", ("the optimizer",), "a tenth of the present one"),
    Change("in", "clipnorm=1.0", ("the optimizer",), "in addition, if needed"),
)
"""What to change where the steps of training are too large."""


@dataclass(frozen=True)
class Fix:
    """The cause of a finding, and what to change.

    Attributes:
        cause: "initializer", "input scale", "missing normalization", "unscaled residual
            branch", "activation function", "depth without shortcuts", "learning rate",
            "range of float16", "data", "data or learning rate", "changed weights",
            "operation between layers", "normalization", "scale of a layer", "target
            scale", "input of the activation function", "operation without a derivative",
            "operation without a finite derivative", "loss or learning rate", "loss or
            targets", "data or loss", "training step", "clipping", "constraint",
            "callback", "loss scale", "weight decay" or "not known".
        reason: How the numbers show it.
        changes: What to change.
    """

    cause: str
    reason: str
    changes: tuple[Change, ...] = ()

    def __str__(self) -> str:
        lines = [f"Cause: {self.cause}. {self.reason}"]
        if self.changes:
            lines.append("Change:")
        for change in self.changes:
            lines += [f"  {change.place}:", f"      {change.line}"]
        return "\n".join(lines)

    @one_line
    def __repr__(self) -> str:
        changes = "; ".join(f"{change.place}: {change.code}" for change in self.changes)
        return f"for cause {self.cause!r}: {changes or 'no code to change'}"

"""What a finding is, and the codes there are."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from activation_monitor.analysis import records
from activation_monitor.analysis.causes import Cause
from activation_monitor.analysis.fix import Fix
from activation_monitor.analysis.shown import listed, one_line
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.update_ratio import UPDATE_RATIO

CODES = {
    "constant-input": "the input is the same for every sample",
    "symmetric-initialization": "all weights of a layer are equal, so its units are copies",
    "nonfinite-activations": "activations are NaN or infinite",
    "outlier-gain": "one layer's signal gain stands out from its peers",
    "exploding-activations": "the signal grows exponentially with depth",
    "vanishing-activations": "the signal decays exponentially with depth",
    "zero-activations": "a layer that every path passes outputs only zeros",
    "unscaled-input": "the input is too large or too small, up to the last layer",
    "mean-shift": "the mean of the activations outweighs their variation",
    "saturated-activations": "bounded activation functions are at their limits",
    "dead-units": "ReLU units are zero for every sample",
    "collapsed-activations": "all inputs lead to the same activations",
    "moving-statistics": "a batch normalization will behave differently in evaluation",
    "evaluation-differs": "the signal in evaluation is not that of training",
    "nonfinite-gradients": "gradients are NaN or infinite, activations are finite",
    "nonfinite-loss": "the loss is NaN or infinite",
    "no-gradient": "no gradient reaches some layers, or any",
    "exploding-gradients": "gradients grow exponentially towards the input",
    "vanishing-gradients": "gradients decay exponentially towards the input",
    "large-updates": "each step changes the weights by a large part of their size",
    "small-updates": "the steps hardly change the weights",
    "scale-jump": "activations or weights have suddenly become far larger",
    "growing-weights": "weights grow without bound, and the loss does not fall",
    "heavy-tail": "a single value comes to carry the signal of a layer, or its gradient",
    "loss-jump": "the loss has jumped up and stays there",
    "target-scale": "the targets are far larger than the output",
    "weights-not-updated": "weights get a gradient, and the step does not change them",
    "wrong-update": "an update is not what optimizer and gradient imply",
    "weight-decay": "weight decay takes a large share of the weights at each step",
    "replicas-differ": "the replicas of a model have different weights",
    "stuck-loss-scale": "the loss scale has fallen to nothing, so no step updates weights",
}
"""Stable names of the findings, for `ignore` and for programs, and their meaning."""


SHOWN_BY = {
    "constant-input": (records.OUTPUT, "within_std"),
    "symmetric-initialization": (records.WEIGHT, "std"),
    "nonfinite-activations": (records.OUTPUT, "rms"),
    "outlier-gain": (records.OUTPUT, "rms"),
    "exploding-activations": (records.OUTPUT, "rms"),
    "vanishing-activations": (records.OUTPUT, "rms"),
    "zero-activations": (records.OUTPUT, "zero_fraction"),
    "unscaled-input": (records.OUTPUT, "rms"),
    "mean-shift": (records.OUTPUT, "mean"),
    "saturated-activations": (records.OUTPUT, "saturated_fraction"),
    "dead-units": (records.OUTPUT, "dead_units"),
    "collapsed-activations": (records.OUTPUT, "within_std"),
    "moving-statistics": (records.OUTPUT, "std"),
    "evaluation-differs": (records.OUTPUT, "rms"),
    "nonfinite-gradients": (records.OUTPUT_GRADIENT, "rms"),
    "nonfinite-loss": (records.OUTPUT, "rms"),
    "no-gradient": (records.OUTPUT_GRADIENT, "rms"),
    "exploding-gradients": (records.OUTPUT_GRADIENT, "rms"),
    "vanishing-gradients": (records.OUTPUT_GRADIENT, "rms"),
    "large-updates": (records.WEIGHT_UPDATE, UPDATE_RATIO),
    "small-updates": (records.WEIGHT_UPDATE, UPDATE_RATIO),
    "scale-jump": (records.OUTPUT, "rms"),
    "growing-weights": (records.WEIGHT, "rms"),
    "heavy-tail": (records.OUTPUT, "maximum"),
    "loss-jump": (records.WEIGHT_UPDATE, UPDATE_RATIO),
    "target-scale": (records.OUTPUT, "rms"),
    "weights-not-updated": (records.WEIGHT_UPDATE, "rms"),
    "wrong-update": (records.WEIGHT_UPDATE, "rms"),
    "weight-decay": (records.WEIGHT_UPDATE, UPDATE_RATIO),
    "replicas-differ": (records.WEIGHT, "rms"),
    "stuck-loss-scale": (records.WEIGHT_UPDATE, "rms"),
}
"""Code of a finding to the quantity and the statistic in which it is seen best: a key of
`records.QUANTITIES`, and one of `records.STATISTICS` or `UPDATE_RATIO`. NaN, infinity and
zero are marked in every figure of a size, and the size before them shows how they came."""


SEVERITIES = ("warning", "critical")
"""From the least to the most severe."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with the network.

    Attributes:
        code: Stable name of the finding, a key of `CODES`.
        severity: "warning" or "critical".
        step: The step at which it was first seen.
        layers: Names of the layers concerned, in the order of the data path.
        evidence: The numbers on which the rule turned, by name.
        message: The observation and the mechanism in words.
        initial: Whether it was seen at initialization, else in training.
        fix: The cause and what to change; None if the measurements do not show a cause.
        last_step: The last step at which it was seen; None if that is the first.
        recovered: The first sampled step of those at which it was no longer seen; None if
            it was not seen in the last few snapshots, or its rule is not judged again.
    """

    code: str
    severity: str
    step: int
    layers: tuple[str, ...]
    evidence: dict[str, float] = field(hash=False)
    message: str
    initial: bool = True
    fix: Fix | None = None
    last_step: int | None = None
    recovered: int | None = None

    @property
    def worst_layer(self) -> str | None:
        """The name of the layer to check first; None if no layer is concerned.

        It is the last one in the direction of the signal: a finding on gradients is worst
        at its first layer, because gradients flow towards the input.
        """
        backward = SHOWN_BY[self.code][0] == records.OUTPUT_GRADIENT
        return next(iter(self.layers if backward else self.layers[::-1]), None)

    @property
    def when(self) -> str:
        """When it was seen, and when it was over, in words."""
        over = "" if self.recovered is None else f", recovered at step {self.recovered}"
        return f"{self._seen}{over}"

    @property
    def _seen(self) -> str:
        last = self.step if self.last_step is None else max(self.last_step, self.step)
        if self.initial:
            until = "" if last == self.step else f" and up to step {last}"
            return f"at initialization{until}"
        if last > self.step:
            return f"in training, steps {self.step} to {last}"
        return f"in training, step {self.step}" if self.step else "at step 0"

    @property
    def title(self) -> str:
        """Code, severity and when it was seen."""
        return f"{self.code} ({self.severity}, {self.when})"

    @property
    def more(self) -> str:
        """The command that prints the section of the documentation on this finding."""
        return f"activation-monitor explain {self.code}"

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain data, which `json.dumps` takes.

        The report, the JSON output and the TensorBoard tab all show this rendering.

        Returns:
            A dictionary with the keys:

            * `code`, `meaning` (of the code), `severity`, `title`, `message`: strings.
            * `step`, `last_step`: integers; equal if the finding was seen once.
            * `recovered`: the first sampled step at which it was over; None if it is not.
            * `initial`: whether it was seen at initialization; `when`: the same in words.
            * `layers`: a list of names, in the order of the data path.
            * `evidence`: name to number, None for a number that is not finite.
            * `cause`, `reason`: strings, None if the cause is not known.
            * `changes`: a list of `{"place": ..., "line": ...}`, empty if there are none.
            * `docs`: the name of the documentation section.
        """
        fix = self.fix
        return {
            "code": self.code,
            "meaning": CODES[self.code],
            "severity": self.severity,
            "step": self.step,
            "last_step": self.step if self.last_step is None else self.last_step,
            "recovered": self.recovered,
            "initial": self.initial,
            "when": self.when,
            "title": self.title,
            "layers": [*self.layers],
            "evidence": {
                name: float(value) if math.isfinite(value) else None
                for name, value in self.evidence.items()
            },
            "message": self.message,
            "cause": fix.cause if fix else None,
            "reason": fix.reason if fix else None,
            "changes": [change.to_dict() for change in fix.changes] if fix else [],
            "docs": self.code,
        }

    def __str__(self) -> str:
        lines = [f"{self.title}: {self.message}"]
        lines += [str(self.fix)] if self.fix else []
        return "\n".join([*lines, f"More: {self.more}"])

    @one_line
    def __repr__(self) -> str:
        return f"{self.title} in {listed(self.layers)}"


class Found(NamedTuple):
    """What a rule yields: a finding, and what the rule knows about its cause."""

    finding: Finding
    cause: Cause


def found(
    code: str,
    snapshot: Snapshot,
    layers: Iterable[str],
    evidence: Mapping[str, float],
    message: str,
    cause: Cause,
    critical: bool = False,
) -> Found:
    """What a rule has found in a snapshot.

    Args:
        code: A key of `CODES`.
        snapshot: The snapshot.
        layers: Names of the layers concerned, in the order of the data path.
        evidence: The numbers on which the rule turned.
        message: The observation and the mechanism in words.
        cause: What the rule knows about the cause.
        critical: Whether it is critical, else a warning. Defaults to `False`.
    """
    finding = Finding(
        code=code,
        severity="critical" if critical else "warning",
        step=snapshot.step,
        layers=tuple(layers),
        evidence={name: float(value) for name, value in evidence.items()},
        message=message,
    )
    return Found(finding, cause)


def check_ignored(ignore: str | Collection[str], where: str) -> frozenset[str]:
    """The codes of findings that are not to be reported.

    Args:
        ignore: A code or a collection of codes.
        where: The name of the calling function, for the message.

    Raises:
        ValueError: If there is no such code.
    """
    codes = {ignore} if isinstance(ignore, str) else set(ignore)
    unknown = sorted(str(code) for code in codes - CODES.keys())
    if unknown:
        raise ValueError(
            f"{where}: `ignore` must hold codes of findings. Received: "
            f"{', '.join(unknown)}. There are: {', '.join(CODES)}."
        )
    return frozenset(codes)


def shown_by(code: str, measured: Collection[str]) -> tuple[str, str]:
    """The quantity and the statistic that show a finding of a run.

    Args:
        code: A key of `CODES`.
        measured: The quantities that were measured in the run. If that of `SHOWN_BY` is not
            among them, the rms of the outputs is shown.
    """
    quantity, statistic = SHOWN_BY[code]
    return (quantity, statistic) if quantity in measured else (records.OUTPUT, "rms")

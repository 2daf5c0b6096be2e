"""What a finding is, the codes there are, and the thresholds on which the rules turn."""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from activation_monitor.analysis.change import listed
from activation_monitor.analysis.fixes import Fix
from activation_monitor.analysis.shown import one_line


class Threshold(NamedTuple):
    """A number on which a rule turns, and where it comes from."""

    value: float
    unit: str
    source: str


_CALIBRATED = (
    "10 % beyond the largest of the networks that train in the calibration halves of "
    "data/calibration.npz ({} of 166) and tests/benchmarks/trainability.csv ({} of 158)"
)

THRESHOLDS = {
    "exploding": Threshold(
        1.2,
        "decades of growth of the rms along the open segment",
        _CALIBRATED.format("1.09", "below"),
    ),
    "exploding-operations": Threshold(
        1.4,
        "decades of growth of the rms through operations between weight layers",
        "10 % beyond the largest of 52 networks that train in the calibration half of "
        "tests/benchmarks/operations.csv (1.29)",
    ),
    "vanishing": Threshold(2.75, "decades of decay", _CALIBRATED.format("2.25", "2.50")),
    "exploding-gradients": Threshold(
        1.6,
        "decades by which a gradient grows towards the input, predicted from the weights",
        _CALIBRATED.format("1.46", "below"),
    ),
    "vanishing-gradients": Threshold(
        3.0, "decades by which it falls", _CALIBRATED.format("2.20", "2.71")
    ),
    "outlier-down": Threshold(
        5.0,
        "decades by which one layer's gain may fall short of its peers'",
        "networks with one layer of 0.001 times its weights train, 5 of 9 with SGD as well",
    ),
    "measured-gradients": Threshold(
        3.0,
        "decades between the gradients at the first and the last layer of the trunk, where "
        "they were measured",
        "30 healthy keras.applications lie between -2.0 and 2.5, perceptrons of 51 "
        "BN-ReLU layers at 4.1 and do not train",
    ),
    "critical": Threshold(
        2.0,
        "times the threshold above which a finding is critical, not a warning",
        "plain SGD fails from about there, Adam trains through some decay",
    ),
    "significance": Threshold(
        3.0,
        "standard deviations of chance beyond which growth is not put down to it",
        "without it 4 % of well scaled networks 32 wide and 50 deep would be flagged",
    ),
    "input": Threshold(
        30.0,
        "times above or below 1 that the rms of the input may be",
        "digits times 100, times 0.01 or 0..255: plain SGD fails unless an activation "
        "function forgets the scale; unit rms is what every initializer assumes",
    ),
    "head": Threshold(
        10.0,
        "times above or below 1 that the rms may be at the head, if the input is unscaled",
        "as for input: networks that forgot the input's scale lie within",
    ),
    "collapse": Threshold(
        2.0,
        "decades by which the share that differs from sample to sample falls",
        "the largest of a network that trains is 1.25 (sigmoid), of others 0.7",
    ),
    "saturated": Threshold(
        0.8,
        "share of saturated outputs in more than half of the bounded layers",
        "networks that train have up to 0.73, tanh with N(0, 1) weights 0.85",
    ),
    "dead": Threshold(
        0.9,
        "share of ReLU units that are zero for all samples",
        "half of them are by chance once all samples look alike (deep networks, "
        "initializers of mean 0); networks that train have up to 0.62 zeros",
    ),
    "dead-layers": Threshold(
        0.5,
        "share of the trunk's ReLU layers from which mostly dead units in several of them "
        "are critical",
        "each passes less than a tenth of its units on, where a healthy one passes half: "
        "four such layers in a row leave 4 % of a gradient's rms",
    ),
    "dead_samples": Threshold(
        16, "samples below which no unit is called dead", "2^-16 by chance for each unit"
    ),
    "mean-shift": Threshold(
        0.9,
        "absolute mean of the activations over their rms",
        "ReLU of independent inputs 0.56, networks that train up to 0.62",
    ),
    "common-gain": Threshold(
        5.0,
        "times by which weights multiply what their inputs have in common more than what "
        "tells them apart",
        "of weights drawn about 0 it is |z| / sqrt(units), below 3; U(0, a) has "
        "sqrt(3 fan_in): 5 at 8 inputs",
    ),
    "narrowest": Threshold(
        16,
        "units below which the mean of a layer says nothing about its initializer",
        "a mean over fewer units is large by chance",
    ),
    "peers": Threshold(
        3,
        "other layers at least from which one may stand out",
        "the median of fewer is no common gain",
    ),
    "initialization_ends": Threshold(
        10,
        "steps up to which the first snapshot still shows the initialization",
        "of 167 healthy networks 1 crossed the thresholds at step 10 and 5 at step 300; "
        "a convolutional one here did so at step 40: by learning",
    ),
}

CODES = {
    "symmetric-initialization": "all weights of a layer are the same, its units copies",
    "nonfinite-activations": "activations are NaN or infinite",
    "outlier-gain": "one layer's signal gain stands out from its peers",
    "exploding-activations": "the signal grows exponentially with depth",
    "vanishing-activations": "the signal decays exponentially with depth",
    "zero-activations": "a layer that every path passes puts out nothing but zeros",
    "unscaled-input": "the size of the input is carried through to the output",
    "mean-shift": "the mean of the activations outweighs all that varies in them",
    "saturated-activations": "bounded activation functions are at their limits",
    "dead-units": "ReLU units are zero for every sample",
    "collapsed-activations": "all inputs lead to the same activations",
    "exploding-gradients": "gradients grow exponentially towards the input",
    "vanishing-gradients": "gradients decay exponentially towards the input",
}
"""Stable names of the rules, for `ignore` and for programs."""


SEVERITIES = ("warning", "critical")
"""From the least to the worst."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        code: Stable name of the rule, a key of `CODES`.
        severity: "warning" or "critical".
        step: Where it was first seen.
        last_step: The last step at which it was seen; None if that is the first.
        layers: Names of the layers concerned, in the order of the data path.
        evidence: The numbers the rule turned on.
        message: The observation and the mechanism in words.
        initial: Whether it was seen at initialization; else it came up in training.
        fix: What to change; None if the cause does not show.
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

    @property
    def when(self) -> str:
        """When it was seen, in words."""
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


def limit(name: str) -> float:
    """The value of a threshold, by its name in `THRESHOLDS`."""
    return THRESHOLDS[name].value


def found(code, snapshot, layers, evidence, message, critical=False, fix=None) -> Finding:
    """A finding of a rule at a snapshot; `fix` where the rule has found the cause."""
    return Finding(
        code=code,
        severity="critical" if critical else "warning",
        step=snapshot.step,
        layers=tuple(layers),
        evidence={name: float(value) for name, value in evidence.items()},
        message=message,
        fix=fix,
    )


def check_ignored(ignore, where: str) -> frozenset[str]:
    """The codes that a user does not want to hear of.

    Args:
        ignore: A code or a collection of codes.
        where: Who asks, for the message.

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

"""The rules: from snapshots to findings.

A finding says the observation with its numbers and the mechanism. All thresholds stand
in one table, each with its source. A healthy network gets no finding.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from activation_monitor.analysis.depth_profile import (
    DepthProfile,
    Segment,
    depth_profile,
)
from activation_monitor.analysis.snapshot import Snapshot


class Threshold(NamedTuple):
    """A number on which a rule turns, and where it comes from."""

    value: float
    unit: str
    source: str


THRESHOLDS = {
    "exploding": Threshold(
        1.0,
        "decades of growth of the rms along the open segment",
        "calibrated on 157 networks that train on the digits, with 0 to 7 false alarms "
        "in each of five sets checked later; an infinitely wide critical network has 0",
    ),
    "vanishing": Threshold(
        2.0,
        "decades of decay",
        "as for exploding; wider because Adam trains through moderate decay",
    ),
    "critical": Threshold(
        2.0,
        "times the threshold above which a finding is critical, not a warning",
        "plain SGD fails from about twice either threshold",
    ),
    "significance": Threshold(
        3.0,
        "standard deviations of chance beyond which growth is not put down to it",
        "without it 4 % of well scaled networks 32 wide and 50 deep would be flagged",
    ),
    "initialization_ends": Threshold(
        10,
        "steps up to which the first snapshot still shows the initialization",
        "of 167 healthy networks 1 crossed the thresholds at step 10 and 5 at step 300; "
        "a convolutional one here did so at step 40: by learning",
    ),
}

CODES = {
    "exploding-activations": "the signal grows exponentially with depth",
    "vanishing-activations": "the signal decays exponentially with depth",
    "zero-activations": "a layer that every path passes puts out nothing but zeros",
    "nonfinite-activations": "activations are NaN or infinite",
}


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        code: Stable name of the rule, a key of `CODES`.
        severity: "warning" or "critical".
        step: Where it was first seen.
        layers: Names of the layers concerned, in the order of the data path.
        evidence: The numbers the rule turned on.
        message: All of it in words.
    """

    code: str
    severity: str
    step: int
    layers: tuple[str, ...]
    evidence: dict[str, float] = field(hash=False)
    message: str

    def __str__(self) -> str:
        return f"{self.code} ({self.severity}, step {self.step}): {self.message}"


@dataclass(frozen=True)
class Diagnosis:
    """What the snapshots say about the network.

    Attributes:
        findings: The first of each kind, in the order in which they were seen.
        first: The first snapshot; None if nothing was measured.
        profile: The first snapshot along depth; None if nothing was measured.
        steps: Steps that were looked at.
    """

    findings: tuple[Finding, ...]
    first: Snapshot | None
    profile: DepthProfile | None
    steps: tuple[int, ...]
    shown_by: Callable[["Diagnosis"], str] | None = field(
        default=None, repr=False, compare=False
    )

    @property
    def healthy(self) -> bool:
        """Whether something was measured and nothing found."""
        return self.first is not None and not self.findings

    def __str__(self) -> str:
        return self.shown_by(self) if self.shown_by else repr(self)


def diagnose(
    snapshots: Iterable[Snapshot],
    shown_by: Callable[[Diagnosis], str] | None = None,
) -> Diagnosis:
    """Diagnose a run from its snapshots.

    Args:
        snapshots: In the order of the steps, a `History` for example.
        shown_by: Turns the diagnosis into the text that `print` shows.
    """
    snapshots = list(snapshots)
    findings = ()
    for snapshot in snapshots:
        findings += new_findings(snapshot, findings, first=snapshot is snapshots[0])
    return summary(snapshots, findings, shown_by)


def summary(snapshots, findings, shown_by=None) -> Diagnosis:
    """A diagnosis of snapshots whose findings are known."""
    first = snapshots[0] if len(snapshots) else None
    return Diagnosis(
        findings=tuple(findings),
        first=first,
        profile=depth_profile(first) if first else None,
        steps=tuple(snapshot.step for snapshot in snapshots),
        shown_by=shown_by,
    )


def new_findings(
    snapshot: Snapshot, known: Iterable[Finding] = (), first: bool = True
) -> tuple[Finding, ...]:
    """What a snapshot shows that is not known yet. One cause gives one finding.

    Args:
        snapshot: The newest measurements.
        known: Findings of the snapshots before.
        first: Whether there were none before. Growth with depth is judged there only:
            later it may come from learning.
    """
    initial = first and snapshot.last_step <= THRESHOLDS["initialization_ends"].value
    codes = {finding.code for finding in known}
    given = {
        layer.name
        for layer in snapshot.layers
        if layer.kind == "input" and not layer.parents
    }
    found = ()
    for rule in (*INITIAL_RULES, *RULES) if initial else RULES:
        for finding in rule(snapshot):
            explained = codes & set(_EXPLAINED_BY.get(finding.code, ()))
            if explained and given.isdisjoint(finding.layers):
                continue
            if finding.code not in codes:
                found += (finding,)
                codes.add(finding.code)
    return found


# What stands on the right explains the finding on the left, unless that shows in what the
# model is given: a signal that vanishes ends in zeros, one that explodes in infinities.
_EXPLAINED_BY = {
    "zero-activations": ("vanishing-activations", "exploding-activations"),
    "nonfinite-activations": ("exploding-activations",),
}


def _growth(snapshot):
    for segment in depth_profile(snapshot).segments:
        if not segment.open or segment.layers < 1:
            continue
        decades, z = segment.decades, THRESHOLDS["significance"].value
        if abs(decades - segment.chance_mean) <= z * segment.chance_sd:
            continue
        for code, size in (("exploding", decades), ("vanishing", -decades)):
            threshold = THRESHOLDS[code].value
            if size > threshold:
                critical = size > threshold * THRESHOLDS["critical"].value
                yield _growth_finding(f"{code}-activations", snapshot, segment, critical)


def _growth_finding(code, snapshot, segment: Segment, critical):
    first, last = segment.measured[0], segment.measured[-1]
    low, high = segment.interval(THRESHOLDS["significance"].value)
    evidence = {
        "growth": segment.growth,
        "expected_low": low,
        "expected_high": high,
        "decades": segment.decades,
        "layers": segment.layers,
        "first_rms": first.rms,
        "last_rms": last.rms,
    }
    verb = "grows" if segment.decades > 0 else "falls"
    message = (
        f"from {first.name} to {last.name} the rms of the activations {verb} from "
        f"{first.rms:.3g} to {last.rms:.3g}: {segment.growth:.4g} times per weight layer "
        f"over {segment.layers} layer{'s' if segment.layers > 1 else ''}, where chance "
        f"leaves a well scaled network between {low:.3g} and {high:.3g}."
    )
    beyond = segment.points[len(segment.measured) :]
    if beyond:
        left = (
            "nothing but zeros is left"
            if beyond[0].rms == 0
            else "the values are no longer finite"
        )
        message += f" At {beyond[0].name} {left}."
    message += (
        " Each layer multiplies the size of the signal by about sqrt(fan_in) times the "
        "standard deviation of its weights (He et al. 2015): look at the kernel "
        f"initializer of these layers, whose weights are too "
        f"{'large' if segment.decades > 0 else 'small'}."
    )
    return Finding(
        code=code,
        severity="critical" if critical else "warning",
        step=snapshot.step,
        layers=tuple(point.name for point in segment.points),
        evidence=evidence,
        message=message,
    )


def _zeros(snapshot):
    for segment in depth_profile(snapshot).segments:
        for point in segment.points:
            if point.rms == 0:
                yield Finding(
                    code="zero-activations",
                    severity="critical",
                    step=snapshot.step,
                    layers=(point.name,),
                    evidence={"rms": 0.0},
                    message=(
                        f"all outputs of {point.name} are zero for every input, so no "
                        "layer after it sees the data and no layer before it learns. "
                        "Look at its kernel initializer, or at what it is given."
                    ),
                )
                return


def _nonfinite(snapshot):
    nonfinite = snapshot.field("nonfinite") > 0
    used = {parent for layer in snapshot.layers for parent in layer.parents}
    multiplied = {
        parent
        for layer in snapshot.layers
        if layer.kind == "weight"
        for parent in layer.parents
    }
    # Infinities that the model takes care of (a mask before a softmax) are no fault. They
    # are where they reach an end of the network, or a kernel: its gradient is NaN then,
    # even if a ReLU makes zeros of NaN on the way forward.
    todo = [
        int(row)
        for row in np.flatnonzero(nonfinite)
        if row not in used or row in multiplied
    ]
    bad = set()
    while todo:
        row = todo.pop()
        if row not in bad:
            bad.add(row)
            todo.extend(p for p in snapshot.layers[row].parents if nonfinite[p])
    if not bad:
        return
    row = min(bad)  # layers stand in the order of the calls: the first one
    layer = snapshot.layers[row]
    count, nonfinite = (snapshot.field(n)[row] for n in ("count", "nonfinite"))
    where = "the output"
    if layer.kind == "input":
        where = "a sum in the model" if layer.parents else "what the model is given"
    yield Finding(
        code="nonfinite-activations",
        severity="critical",
        step=snapshot.step,
        layers=(layer.name,),
        evidence={"nonfinite": float(nonfinite), "count": float(count)},
        message=(
            f"{nonfinite:.0f} of {count:.0f} elements of {where} ({layer.name}, "
            f"{layer.dtype}) are NaN or infinite. What it is computed from has none; "
            "what is computed from it inherits them."
        ),
    )


INITIAL_RULES = (_growth, _zeros)
"""Functions of a snapshot that yield findings, for the initialization. Causes stand
before what they explain."""

RULES = (_nonfinite,)
"""The same for every snapshot."""

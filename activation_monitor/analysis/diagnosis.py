"""What the snapshots of a run show: the findings, and what could be assessed."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from activation_monitor.analysis import shown
from activation_monitor.analysis.depth_profile import DepthProfile, depth_profile
from activation_monitor.analysis.findings import (
    SEVERITIES,
    Finding,
    check_ignored,
)
from activation_monitor.analysis.flat_loss import flat_since
from activation_monitor.analysis.health import changed_up_to, judged, shows_initialization
from activation_monitor.analysis.records import OUTPUT_GRADIENT, WEIGHT_UPDATE
from activation_monitor.analysis.shown import listed, one_line
from activation_monitor.analysis.snapshot import Recording, Snapshot
from activation_monitor.analysis.thresholds import limit

VERDICTS = ("healthy", "not assessed", "findings")
"""From the best to the worst."""


@dataclass(frozen=True)
class Diagnosis:
    """What the snapshots of a run show about the network.

    Attributes:
        findings: One for each code, in the order in which they were first seen.
        first: The first snapshot; None if nothing was measured.
        profile: The first snapshot along depth; None if nothing was measured.
        steps: The sampled steps.
        last: The last snapshot with outputs; None if nothing was measured.
        draws: The diagnosis of each initialization, for an audit with several seeds.
        flat_since: The step from which on the loss has not fallen; None if it has, or that
            is not known.
    """

    findings: tuple[Finding, ...]
    first: Snapshot | None
    profile: DepthProfile | None
    steps: tuple[int, ...]
    last: Snapshot | None = None
    draws: tuple["Diagnosis", ...] = ()
    flat_since: int | None = None

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`. "not assessed" means that nothing was found, but that growth
        with depth could not be judged, for the reason in `not_assessed`."""
        if self.findings:
            return "findings"
        return "not assessed" if self.not_assessed else "healthy"

    @property
    def not_assessed(self) -> str:
        """Why growth with depth could not be judged, as a sentence; empty if it was.

        With several initializations, empty if growth could be judged in half of them."""
        if not self.draws:
            return _why_not_assessed(self.first, self.profile)
        reasons = [reason for draw in self.draws if (reason := draw.not_assessed)]
        return reasons[0] if 2 * len(reasons) > len(self.draws) else ""

    @property
    def note(self) -> str:
        """A sentence on a loss that does not fall although nothing was found; else empty.

        This is not a finding: labels, loss and data are not measured."""
        if self.flat_since is None or self.findings or self.last is None:
            return ""
        signal = "activations"
        of = {OUTPUT_GRADIENT: "gradients", WEIGHT_UPDATE: "updates"}
        also = [name for quantity, name in of.items() if quantity in self.last.quantities]
        if also:
            signal = f"{', '.join([signal, *also[:-1]])} and {also[-1]}"
        return (
            f"The loss has not fallen since step {self.flat_since}, and no fault was found "
            f"in the signal ({signal}). If it should fall, check the labels, the loss "
            "function, the data and the learning rate."
        )

    @property
    def healthy(self) -> bool:
        """Whether nothing was found and growth with depth could be judged."""
        return self.verdict == "healthy"

    @property
    def worst_by_layer(self) -> dict[str, Finding]:
        """The most severe finding that concerns a layer, by the name of the layer."""
        worst_last = sorted(self.findings, key=lambda f: SEVERITIES.index(f.severity))
        return {name: found for found in worst_last for name in found.layers}

    @property
    def worst_finding(self) -> Finding | None:
        """The most severe finding, of several the one that was seen first; one that is over
        only if all are. None without findings."""
        rank = {severity: i for i, severity in enumerate(SEVERITIES)}
        return max(
            self.findings,
            key=lambda found: (found.recovered is None, rank[found.severity]),
            default=None,
        )

    @property
    def worst_layer(self) -> str | None:
        """The name of the layer to check first; None if nothing was measured.

        This is the worst layer of the worst finding; without findings, the deepest layer up
        to which growth was read; else the last layer.
        """
        if self.first is None or self.profile is None:
            return None
        names = self.first.names
        worst = self.worst_finding
        found = [worst.worst_layer, *worst.layers[::-1]] if worst else []
        main = self.profile.main
        judged = [point.name for point in main.measured] if main else []
        return next((n for n in (*found, *judged[::-1]) if n in names), names[-1])

    def figure(self, kind: str = "depth_profile", **options: Any) -> Any:
        """A figure of the first snapshot, which a notebook shows.

        Args:
            kind: `"depth_profile"` with the gradients, if they were measured,
                `"layer_graph"` with the findings marked, or another kind of
                `ActivationMonitor.figure`. Defaults to `"depth_profile"`.
            **options: `dark=True` for a dark page, `statistic`, and those of the kind.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ValueError: If nothing was measured, or there is no such figure.
            TypeError: If the views are not imported, see `analysis.shown`.
        """
        return shown.figure(self, kind, **options)

    def __str__(self) -> str:
        return shown.text(self)

    @one_line
    def __repr__(self) -> str:
        if not self.steps:
            return "of no steps: nothing has been measured yet"
        first, last = self.steps[0], self.steps[-1]
        when = f"step {first}" if first == last else f"steps {first} to {last}"
        if self.draws:
            when += f", {len(self.draws)} initializations"
        found = self.verdict
        if self.findings:
            codes = ", ".join(finding.code for finding in self.findings)
            found = f"{shown.count(len(self.findings), 'finding')}: {codes}"
        return f"of {when}: {found}; print() shows all"

    def _repr_html_(self) -> str | None:
        return shown.in_notebook(self)

    def _repr_png_(self) -> bytes | None:
        return shown.as_image(self)


def diagnose(
    snapshots: Iterable[Snapshot], ignore: str | Collection[str] = ()
) -> Diagnosis:
    """Diagnose a run from its snapshots.

    Args:
        snapshots: In the order of the steps, a `Recording` for example.
        ignore: Code, or codes, of findings not to report. Defaults to `()`.

    Raises:
        ValueError: If `ignore` holds an unknown code.
    """
    ignore = check_ignored(ignore, "diagnose")
    if not isinstance(snapshots, Recording):
        snapshots = list(snapshots)
    health = judged(snapshots)
    # A finding that is not reported still explains others.
    reported = [finding for finding in health.findings if finding.code not in ignore]
    return summary(snapshots, reported)


def summary(
    snapshots: Recording | Sequence[Snapshot], findings: Iterable[Finding]
) -> Diagnosis:
    """A diagnosis of snapshots whose findings are known.

    Args:
        snapshots: In the order of the steps.
        findings: What `judge` found in them.
    """
    of_training = [one for one in snapshots if not one.evaluation]
    snapshots = of_training or [*snapshots]
    first = snapshots[0] if snapshots else None
    # The last one may show weights only, see `Session.execution_ended`.
    measured = (one for one in reversed(snapshots) if one.has())
    last = next(measured, first)
    findings = tuple(findings)
    return Diagnosis(
        findings=findings,
        first=first,
        profile=depth_profile(first) if first else None,
        steps=tuple(snapshot.step for snapshot in snapshots),
        last=last,
        flat_since=None if findings else flat_since(snapshots),
    )


def _why_not_assessed(first: Snapshot | None, profile: DepthProfile | None) -> str:
    """Why growth with depth could not be judged, as a sentence; empty if it was."""
    if first is None or profile is None:
        return "Nothing has been measured yet."
    if first.evaluation:
        return (
            "These are forward passes of evaluation. They are only compared with those of "
            "training before them."
        )
    if not shows_initialization(first):
        merged = first.steps > 1 and f"merges steps {first.step} to {first.last_step}"
        begins = merged or f"is from step {first.step}"
        return (
            f"The first snapshot {begins}. Growth with depth shows a bad initialization up "
            f"to step {limit('initialization-ends'):.0f}; later it may come from learning."
        )
    main = profile.main
    judged_to = [main.measured[-1].name] if main else first.names
    changed = changed_up_to(profile, judged_to)
    if changed:
        return (
            f"The weights of {listed(changed)} have changed since they were drawn "
            "(trained, loaded or assigned), so growth with depth shows nothing about the "
            "initialization."
        )
    if main is None and not _held_by_normalization(profile):
        return (
            "Growth with depth was not judged: this needs two weight layers in a row "
            "before the last one, and nothing between them that sets the size of the "
            "signal (normalization, sigmoid, saturated tanh, zeros or NaN)."
        )
    return ""


def _held_by_normalization(profile: DepthProfile) -> bool:
    """Whether normalization sets the size, before it falls so far that the epsilon of a
    normalization matters. Growth between normalizations, as in a pre-norm stream, does no
    harm."""
    ranges = [one for one in profile.growth_ranges if one.layers]
    return any(segment.normalized for segment in profile.segments) and all(
        one.decades >= -limit("vanishing") for one in ranges
    )

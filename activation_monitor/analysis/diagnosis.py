"""What the snapshots of a run say: the findings, and what could be assessed."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from activation_monitor.analysis import shown
from activation_monitor.analysis.change import listed
from activation_monitor.analysis.depth_profile import DepthProfile, depth_profile
from activation_monitor.analysis.findings import (
    SEVERITIES,
    Finding,
    check_ignored,
    limit,
)
from activation_monitor.analysis.health import changed_up_to, judged, shows_initialization
from activation_monitor.analysis.shown import one_line
from activation_monitor.analysis.snapshot import Recording, Snapshot

VERDICTS = ("healthy", "not assessed", "findings")
"""From the best to the worst."""


@dataclass(frozen=True)
class Diagnosis:
    """What the snapshots say about the network.

    Attributes:
        findings: One for each code, in the order in which they were first seen.
        first: The first snapshot; None if nothing was measured.
        profile: The first snapshot along depth; None if nothing was measured.
        steps: Steps that were sampled.
        last: The last snapshot; None if nothing was measured.
        draws: From an audit with several seeds, the diagnosis of each initialization.
    """

    findings: tuple[Finding, ...]
    first: Snapshot | None
    profile: DepthProfile | None
    steps: tuple[int, ...]
    last: Snapshot | None = None
    draws: tuple["Diagnosis", ...] = ()

    @property
    def verdict(self) -> str:
        """ "findings", "healthy", or "not assessed": nothing was found, but growth with
        depth could not be judged, for the reason in `not_assessed`."""
        if self.findings:
            return "findings"
        return "not assessed" if self.not_assessed else "healthy"

    @property
    def not_assessed(self) -> str:
        """Why growth with depth could not be judged, as a sentence; empty if it was.

        Of several initializations, where it could not in most of them."""
        if not self.draws:
            return _why_not_assessed(self.first, self.profile)
        reasons = [reason for draw in self.draws if (reason := draw.not_assessed)]
        return reasons[0] if 2 * len(reasons) > len(self.draws) else ""

    @property
    def healthy(self) -> bool:
        """Whether nothing was found and growth with depth could be judged."""
        return self.verdict == "healthy"

    @property
    def worst_by_layer(self) -> dict[str, Finding]:
        """By name of layer, the worst finding that concerns it."""
        worst_last = sorted(self.findings, key=lambda f: SEVERITIES.index(f.severity))
        return {name: found for found in worst_last for name in found.layers}

    @property
    def worst_layer(self) -> str | None:
        """Name of the layer to look at first: where the first finding ends; else the
        deepest that growth was read to; else the last. None if nothing was measured."""
        if self.first is None:
            return None
        names = self.first.names
        worst_by_layer = [name for found in self.findings[:1] for name in found.layers]
        main = self.profile.main
        judged = [point.name for point in main.measured] if main else []
        return next(
            (n for n in (*worst_by_layer[::-1], *judged[::-1]) if n in names), names[-1]
        )

    def figure(self, kind: str = "depth_profile", **options: Any) -> Any:
        """A figure of the first snapshot, which a notebook shows.

        Args:
            kind: `"depth_profile"` with the gradients, if they were measured, or
                `"layer_graph"` with the findings marked. Defaults to `"depth_profile"`.
            **options: `dark=True` for a dark page, and `statistic`.

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
    snapshots = list(snapshots)
    health = judged(snapshots)
    # What is not to be reported explains others all the same.
    told = [finding for finding in health.findings if finding.code not in ignore]
    return summary(snapshots, told)


def summary(
    snapshots: Recording | Sequence[Snapshot], findings: Iterable[Finding]
) -> Diagnosis:
    """A diagnosis of snapshots whose findings are known.

    Args:
        snapshots: In the order of the steps.
        findings: What `judge` found in them.
    """
    first, last = (snapshots[0], snapshots[-1]) if len(snapshots) else (None, None)
    return Diagnosis(
        findings=tuple(findings),
        first=first,
        profile=depth_profile(first) if first else None,
        steps=tuple(snapshot.step for snapshot in snapshots),
        last=last,
    )


def _why_not_assessed(first, profile):
    """Why growth with depth could not be judged, as a sentence; empty if it was."""
    if first is None:
        return "Nothing has been measured yet."
    if first.evaluation:
        return "These are forward passes of evaluation: they are measured and not judged."
    if not shows_initialization(first):
        merged = first.steps > 1 and f"merges steps {first.step} to {first.last_step}"
        begins = merged or f"is that of step {first.step}"
        return (
            f"The first snapshot {begins}. Growth with depth shows a bad initialization up "
            f"to step {limit('initialization_ends'):.0f}; later it may come from learning."
        )
    main = profile.main
    judged_to = [main.measured[-1].name] if main else first.names
    changed = changed_up_to(profile, judged_to)
    if changed:
        return (
            f"The weights of {listed(changed)} have changed since they were drawn "
            "(trained, loaded or assigned), so growth with depth tells nothing of an "
            "initialization."
        )
    if main is None and not _held_by_normalization(profile):
        return (
            "Growth with depth was not judged: it needs two weight layers in a row before "
            "the last one, with nothing between them that sets the size (normalization, "
            "sigmoid, saturated tanh, zeros or NaN)."
        )
    return ""


def _held_by_normalization(profile):
    """Whether normalization sets the size, before it falls so far that the epsilon of a
    normalization would matter. What grows in between, a pre-norm stream, does no harm."""
    growth_ranges = [
        growth_range for growth_range in profile.growth_ranges if growth_range.layers
    ]
    return any(segment.normalized for segment in profile.segments) and all(
        growth_range.decades >= -limit("vanishing") for growth_range in growth_ranges
    )

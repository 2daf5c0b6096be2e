"""From snapshots to a diagnosis: which rules are asked when, and what explains what."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field

from activation_monitor.analysis import rules, shown
from activation_monitor.analysis.depth_profile import DepthProfile, depth_profile
from activation_monitor.analysis.findings import THRESHOLDS, Finding
from activation_monitor.analysis.remedy import remedy
from activation_monitor.analysis.shown import Views, one_line
from activation_monitor.analysis.snapshot import Snapshot


@dataclass(frozen=True)
class Diagnosis:
    """What the snapshots say about the network.

    Attributes:
        findings: The first of each kind, in the order in which they were seen.
        first: The first snapshot; None if nothing was measured.
        profile: The first snapshot along depth; None if nothing was measured.
        steps: Steps that were looked at.
        draws: From an audit with several seeds, the diagnosis of each initialization.
        views: What shows it in full; None if it was made without.
    """

    findings: tuple[Finding, ...]
    first: Snapshot | None
    profile: DepthProfile | None
    steps: tuple[int, ...]
    draws: tuple["Diagnosis", ...] = ()
    views: Views | None = field(default=None, compare=False)

    @property
    def healthy(self) -> bool:
        """Whether something was measured and nothing found."""
        return self.first is not None and not self.findings

    @property
    def accused(self) -> dict[str, Finding]:
        """By name of layer, the worst finding that concerns it."""
        # "critical" before "warning"; the last one holds.
        worst_last = sorted(self.findings, key=lambda f: f.severity, reverse=True)
        return {name: found for found in worst_last for name in found.layers}

    @property
    def worst_layer(self) -> str | None:
        """Name of the layer to look at first: where the first finding ends; else the
        deepest that growth was read to; else the last. None if nothing was measured."""
        if self.first is None:
            return None
        names = self.first.names
        accused = [name for found in self.findings[:1] for name in found.layers]
        main = self.profile.main
        judged = [point.name for point in main.measured] if main else []
        return next((n for n in (*accused[::-1], *judged[::-1]) if n in names), names[-1])

    def figure(self, kind: str = "layer_graph", **options):
        """A figure of the first snapshot, which a notebook shows.

        Args:
            kind: "layer_graph" with the findings marked, or "depth_profile" with the
                gradients, where they were measured.
            **options: `dark=True` for a dark page; for the profile a `statistic` as well.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ValueError: If nothing was measured, or there is no such figure.
            TypeError: If the diagnosis was made without views.
        """
        if self.views is None or self.views.figure is None:
            raise TypeError(
                "Diagnosis.figure: expected a diagnosis that knows how it is drawn. "
                "Received: one made by `analysis.diagnosis`. Make it by "
                "`activation_monitor.diagnose`."
            )
        return self.views.figure(self, kind, **options)

    def __str__(self) -> str:
        return self.views.text(self) if self.views else repr(self)

    @one_line
    def __repr__(self) -> str:
        if not self.steps:
            return "of no steps: nothing has been measured yet"
        first, last = self.steps[0], self.steps[-1]
        when = f"step {first}" if first == last else f"steps {first} to {last}"
        if self.draws:
            when += f", {len(self.draws)} initializations"
        found = "no findings"
        if self.findings:
            codes = ", ".join(finding.code for finding in self.findings)
            found = f"{shown.count(len(self.findings), 'finding')}: {codes}"
        return f"of {when}: {found}; print() shows all"

    def _repr_html_(self) -> str | None:
        return shown.html(self)


def diagnose(
    snapshots: Iterable[Snapshot],
    silence: frozenset[str] = frozenset(),
    views: Views | None = None,
) -> Diagnosis:
    """Diagnose a run from its snapshots.

    Args:
        snapshots: In the order of the steps, a `History` for example.
        silence: Codes of findings not to report.
        views: What shows the diagnosis in full.
    """
    snapshots = list(snapshots)
    findings = ()
    for snapshot in snapshots:
        findings += new_findings(snapshot, findings, first=snapshot is snapshots[0])
    # What is not to be reported explains others all the same.
    told = [finding for finding in findings if finding.code not in silence]
    return summary(snapshots, told, views)


def summary(snapshots, findings, views=None) -> Diagnosis:
    """A diagnosis of snapshots whose findings are known."""
    first = snapshots[0] if len(snapshots) else None
    return Diagnosis(
        findings=tuple(findings),
        first=first,
        profile=depth_profile(first) if first else None,
        steps=tuple(snapshot.step for snapshot in snapshots),
        views=views,
    )


def new_findings(
    snapshot: Snapshot,
    known: Iterable[Finding] = (),
    first: bool = True,
) -> tuple[Finding, ...]:
    """What a snapshot shows that is not known yet. One cause gives one finding.

    Args:
        snapshot: The newest measurements.
        known: Findings of the snapshots before.
        first: Whether there were none before. Growth with depth is judged there only:
            later it may come from learning.
    """
    if snapshot.evaluation:  # measured, never judged
        return ()
    initial = first and snapshot.last_step <= THRESHOLDS["initialization_ends"].value
    codes = {finding.code for finding in known}
    asked = (*rules.INITIAL, *rules.ALWAYS) if initial else _asked_later(snapshot, codes)
    if not asked:
        return ()
    given = {
        layer.name
        for layer in snapshot.layers
        if layer.kind == "input" and not layer.parents
    }
    profile = depth_profile(snapshot)
    if any(not given.isdisjoint(f.layers) for f in rules.nonfinite(snapshot, profile)):
        asked = (rules.nonfinite, *asked)  # whatever else shows may come of it
    found = ()
    for rule in asked:
        for finding in rule(snapshot, profile):
            causes = _EXPLAINED_BY.get(finding.code, ())
            if not initial:
                causes += _EXPLAINED_IN_TRAINING_BY.get(finding.code, ())
            explained = codes & set(causes)
            told = finding.code in codes
            codes.add(finding.code)  # what is explained explains others
            if told or (explained and given.isdisjoint(finding.layers)):
                continue
            what_to_do = remedy(finding.code, finding.layers, snapshot, profile)
            found += (dataclasses.replace(finding, initial=initial, remedy=what_to_do),)
    return found


def _asked_later(snapshot, codes):
    """The rules that may find something which is not known yet."""
    screened = ((rule, *rules.SCREENS[rule]) for rule in rules.ALWAYS)
    return [rule for rule, code, may in screened if code not in codes and may(snapshot)]


_SIZE = ("exploding-activations", "vanishing-activations", "outlier-gain")
_CAUSES = ("symmetric-initialization", *_SIZE)

# What stands on the right explains the finding on the left, unless that shows in what the
# model is given: a signal that vanishes ends in zeros, one that explodes in infinities.
_EXPLAINED_BY = {
    "outlier-gain": ("symmetric-initialization",),
    "exploding-activations": ("symmetric-initialization",),  # less the odd layer's step
    "vanishing-activations": ("symmetric-initialization",),
    "zero-activations": (*_CAUSES, "nonfinite-activations"),
    "unscaled-input": _CAUSES,
    "mean-shift": _CAUSES,
    "saturated-activations": (*_CAUSES, "unscaled-input", "mean-shift"),
    "dead-units": (
        *_CAUSES,
        "zero-activations",
        "mean-shift",
        "nonfinite-activations",
    ),
    "collapsed-activations": (
        *_CAUSES,
        "zero-activations",
        "mean-shift",
        "nonfinite-activations",
    ),
    "exploding-gradients": (*_CAUSES, "saturated-activations", "mean-shift"),
    "vanishing-gradients": (
        *_CAUSES,
        "zero-activations",
        "saturated-activations",
        "collapsed-activations",
        "mean-shift",
    ),
    "nonfinite-activations": ("exploding-activations", "outlier-gain"),
}

# What an input out of scale does to a training that was not mended.
_EXPLAINED_IN_TRAINING_BY = {
    "dead-units": ("unscaled-input",),
    "nonfinite-activations": ("unscaled-input",),
}

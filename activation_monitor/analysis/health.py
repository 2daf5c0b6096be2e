"""What is remembered of a run while it is judged, and the fold that judges it.

The callback, `diagnose` and the TensorBoard tab all fold `judge` over the snapshots of a
run, so they have the same findings. This module decides when a rule is applied, which
finding explains which, and how a finding grows. What a rule looks for is defined in
`rules`.
"""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from activation_monitor.analysis import rules
from activation_monitor.analysis.depth_profile import DepthProfile, depth_profile
from activation_monitor.analysis.findings import SEVERITIES, Finding
from activation_monitor.analysis.fixes import fix_for
from activation_monitor.analysis.motion import Motion, after
from activation_monitor.analysis.rules.motion import moved
from activation_monitor.analysis.shown import count, one_line
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit


@dataclass(frozen=True)
class Health:
    """What is known of a run after the snapshots that were judged so far.

    Attributes:
        findings: One for each code, in the order in which they were first seen. A finding
            grows: layers join, its severity rises, its last step advances.
        snapshots: How many snapshots were judged.
        reported: By code, the finding as `judge` last returned it.
        motion: Whether kernels move.
    """

    findings: tuple[Finding, ...] = ()
    snapshots: int = 0
    reported: Mapping[str, Finding] = field(default_factory=dict[str, Finding])
    motion: Motion = field(default_factory=Motion, compare=False)

    @one_line
    def __repr__(self) -> str:
        codes = ", ".join(finding.code for finding in self.findings) or "no findings"
        return f"after {count(self.snapshots, 'snapshot')}: {codes}"


def judge(health: Health, snapshot: Snapshot) -> tuple[Health, tuple[Finding, ...]]:
    """Judge the next snapshot of a run. One cause gives one finding.

    Growth with depth is judged only at the first snapshot, if it still shows the
    initialization: later it may come from learning. Snapshots of evaluation are never
    judged.

    Args:
        health: What is known of the snapshots before; `Health()` before the first one.
        snapshot: The next snapshot.

    Returns:
        What is known now; and the findings to report: those that are new, whose severity
        has risen, or whose layers are at least twice as many as when last reported.
    """
    is_first = health.snapshots == 0
    health = dataclasses.replace(health, snapshots=health.snapshots + 1)
    if snapshot.evaluation:
        return health, ()
    health = dataclasses.replace(health, motion=after(health.motion, snapshot))
    found = {finding.code: finding for finding in health.findings}
    for seen, cause in _seen(snapshot, is_first, [*found], health.motion):
        if cause is not None:
            found[cause] = _led_to(found[cause], seen, snapshot)
        elif seen.code in found:
            found[seen.code] = _grown(found[seen.code], seen, snapshot)
        else:
            found[seen.code] = seen
    news = tuple(f for f in found.values() if _is_news(f, health.reported.get(f.code)))
    reported = {**health.reported, **{finding.code: finding for finding in news}}
    health = dataclasses.replace(health, findings=tuple(found.values()), reported=reported)
    return health, news


def judged(snapshots: Iterable[Snapshot]) -> Health:
    """What is known after all these snapshots.

    Args:
        snapshots: In the order of the steps.
    """
    health = Health()
    for snapshot in snapshots:
        health, _ = judge(health, snapshot)
    return health


def shows_initialization(snapshot: Snapshot) -> bool:
    """Whether a first snapshot is early enough to show how the weights were drawn."""
    return snapshot.last_step <= limit("initialization-ends")


def _seen(
    snapshot: Snapshot, is_first: bool, known: list[str], motion: Motion
) -> Iterator[tuple[Finding, str | None]]:
    """What the rules find in a snapshot, and the known finding that explains it, if any.

    What another finding of the same snapshot explains is left out.
    """
    initial = is_first and shows_initialization(snapshot)
    always = [row.rule for row in rules.ALWAYS if row.may_find(snapshot)]
    in_motion = [*moved(snapshot, motion)]
    if in_motion:
        always.append(lambda snapshot, profile: iter(in_motion))
    apply = [*rules.INITIAL, *always] if initial else always
    if not apply:
        return
    given = {
        layer.name
        for layer in snapshot.layers
        if layer.kind == "input" and not layer.parents
    }
    changed = any(layer.changed for layer in snapshot.layers)
    profile = depth_profile(snapshot)
    nonfinite = [finding for finding, _ in rules.nonfinite(snapshot, profile)]
    if any(not given.isdisjoint(finding.layers) for finding in nonfinite):
        apply = [rules.nonfinite, *apply]  # everything else may come from it
    codes, here = set(known), set[str]()
    for rule in apply:
        for finding, cause in rule(snapshot, profile):
            if rule in rules.OF_DRAWN_WEIGHTS and changed_up_to(profile, finding.layers):
                continue  # these weights do not show how they were drawn
            causes = _EXPLAINED_BY.get(finding.code, ())
            if not initial:
                causes += _EXPLAINED_IN_TRAINING_BY.get(finding.code, ())
            explained = codes & set(causes) and given.isdisjoint(finding.layers)
            codes.add(finding.code)  # what is explained explains others
            if finding.code in here:
                continue
            if explained and finding.code not in known:
                before = next((code for code in known if code in causes), None)
                if before is not None:
                    yield finding, before
                continue
            here.add(finding.code)
            fix = fix_for(cause, snapshot, profile, came_up=not is_first)
            finding = dataclasses.replace(finding, initial=initial and not changed, fix=fix)
            yield finding, None


def changed_up_to(profile: DepthProfile, names: Collection[str]) -> list[str]:
    """The layers whose weights have changed since they were drawn.

    Args:
        profile: The snapshot along depth.
        names: Names of layers. These and all layers that lead to them are checked.

    Returns:
        Names, in the order of the calls.
    """
    layers = profile.graph.layers
    rows = {row for row, layer in enumerate(layers) if layer.name in names}
    above = rows.union(*(profile.graph.before(row) for row in rows))
    return [layers[row].name for row in sorted(above) if layers[row].changed]


def _grown(known: Finding, seen: Finding, snapshot: Snapshot) -> Finding:
    """A known finding, with what a later snapshot shows of it."""
    known = dataclasses.replace(known, last_step=snapshot.last_step)
    if seen.code not in rules.LAYERS_JOIN:
        return known
    layers = set(known.layers) | set(seen.layers)
    severity = max(known.severity, seen.severity, key=SEVERITIES.index)
    if layers == set(known.layers) and severity == known.severity:
        return known
    in_order = [name for name in snapshot.names if name in layers]
    gone = [name for name in known.layers if name not in in_order]
    more = len(layers) > len(seen.layers)
    so_far = f" {len(layers)} layers have shown it so far." if more else ""
    return dataclasses.replace(
        known,
        severity=severity,
        layers=(*gone, *in_order),
        evidence=seen.evidence | {"layers": float(len(layers))},
        message=f"{seen.message} This is its state at step {snapshot.step}, when it last "
        f"spread.{so_far}",
        fix=seen.fix if _same_cause(known, seen) else known.fix,
    )


def _led_to(known: Finding, seen: Finding, snapshot: Snapshot) -> Finding:
    """A known finding, with what it has led to in training."""
    known = dataclasses.replace(known, last_step=snapshot.last_step)
    consequence = f"it has led to {seen.code}"
    if consequence in known.message:
        return known
    return dataclasses.replace(
        known,
        severity=max(known.severity, seen.severity, key=SEVERITIES.index),
        message=f"{known.message} At step {snapshot.step} {consequence}, first in "
        f"{seen.layers[0]}.",
    )


def _same_cause(known: Finding, seen: Finding) -> bool:
    """Whether both have the same cause: training is not the cause of an old finding."""
    return (known.fix and known.fix.cause) == (seen.fix and seen.fix.cause)


def _is_news(finding: Finding, reported: Finding | None) -> bool:
    return (
        reported is None
        or finding.severity != reported.severity
        or len(finding.layers) >= 2 * len(reported.layers)
    )


_SIZE = ("exploding-activations", "vanishing-activations", "outlier-gain")
_CAUSES = ("symmetric-initialization", *_SIZE)
_SAME = "constant-input"

# The findings on the right explain the one on the left, unless it appears in the input of
# the model: a signal that vanishes ends in zeros, one that explodes in infinities.
_EXPLAINED_BY: dict[str, tuple[str, ...]] = {
    "outlier-gain": ("symmetric-initialization",),
    "exploding-activations": ("symmetric-initialization",),  # without the outlier
    "vanishing-activations": ("symmetric-initialization",),
    "zero-activations": (*_CAUSES, "nonfinite-activations", _SAME),
    "unscaled-input": (*_CAUSES, _SAME),
    "mean-shift": (*_CAUSES, _SAME),
    "saturated-activations": (*_CAUSES, "unscaled-input", "mean-shift", _SAME),
    "dead-units": (
        *_CAUSES,
        "zero-activations",
        "mean-shift",
        "nonfinite-activations",
        _SAME,
    ),
    "collapsed-activations": (
        *_CAUSES,
        "zero-activations",
        "mean-shift",
        "nonfinite-activations",
        _SAME,
    ),
    "no-gradient": (
        *_CAUSES,
        "nonfinite-activations",
        "saturated-activations",
        _SAME,
    ),
    "exploding-gradients": (*_CAUSES, "saturated-activations", "mean-shift", _SAME),
    "vanishing-gradients": (
        *_CAUSES,
        "zero-activations",
        "saturated-activations",
        "collapsed-activations",
        "mean-shift",
        "no-gradient",
        _SAME,
    ),
    "nonfinite-activations": (
        "exploding-activations",
        "outlier-gain",
        "nonfinite-gradients",
    ),
    "nonfinite-gradients": ("exploding-activations", "outlier-gain"),
    "stuck-loss-scale": (
        *("exploding-activations", "outlier-gain"),
        *("nonfinite-activations", "nonfinite-gradients", "wrong-update"),
    ),
}

# What an unscaled input leads to in training, if it is not fixed.
_EXPLAINED_IN_TRAINING_BY: dict[str, tuple[str, ...]] = {
    "dead-units": ("unscaled-input", "wrong-update"),
    "nonfinite-activations": ("unscaled-input", "wrong-update"),
    "nonfinite-gradients": ("wrong-update",),
}

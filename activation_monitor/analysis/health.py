"""What is remembered of a run while it is judged, and the one way from snapshots to
findings.

The callback, `diagnose` and the tab all fold `judge` over the snapshots of a run, so they
come to the same findings. It owns which rules are asked when, which finding explains
which, and how a finding grows; what a rule looks for is the matter of `rules`.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from activation_monitor.analysis import rules
from activation_monitor.analysis.depth_profile import DepthProfile, depth_profile
from activation_monitor.analysis.findings import SEVERITIES, Finding, limit
from activation_monitor.analysis.fixes import fix_for
from activation_monitor.analysis.shown import count, one_line
from activation_monitor.analysis.snapshot import Snapshot


@dataclass(frozen=True)
class Health:
    """What is known of a run after the snapshots judged so far.

    Attributes:
        findings: One for each code, in the order in which they were first seen. A finding
            grows: layers join, its severity rises, its last step moves on.
        snapshots: How many were judged.
        told: By code, the finding as `judge` last returned it.
    """

    findings: tuple[Finding, ...] = ()
    snapshots: int = 0
    told: Mapping[str, Finding] = field(default_factory=dict)

    @one_line
    def __repr__(self) -> str:
        codes = ", ".join(finding.code for finding in self.findings) or "no findings"
        return f"after {count(self.snapshots, 'snapshot')}: {codes}"


def judge(health: Health, snapshot: Snapshot) -> tuple[Health, tuple[Finding, ...]]:
    """Judge the next snapshot of a run. One cause gives one finding.

    Growth with depth is judged at the first snapshot only, if it still shows the
    initialization: later it may come from learning. Snapshots of evaluation are never
    judged.

    Args:
        health: What is known of the snapshots before, `Health()` before the first.
        snapshot: The newest one.

    Returns:
        What is known now; and the findings to be told: those that are new, whose severity
        has risen, or whose layers are at least twice as many as when they were told last.
    """
    is_first = health.snapshots == 0
    health = dataclasses.replace(health, snapshots=health.snapshots + 1)
    if snapshot.evaluation:
        return health, ()
    found = {finding.code: finding for finding in health.findings}
    for seen, cause in _seen(snapshot, is_first, [*found]):
        if cause is not None:
            found[cause] = _led_to(found[cause], seen, snapshot)
        elif seen.code in found:
            found[seen.code] = _grown(found[seen.code], seen, snapshot)
        else:
            found[seen.code] = seen
    to_tell = tuple(f for f in found.values() if _is_news(f, health.told.get(f.code)))
    told = {**health.told, **{finding.code: finding for finding in to_tell}}
    return dataclasses.replace(health, findings=tuple(found.values()), told=told), to_tell


def judged(snapshots: Iterable[Snapshot]) -> Health:
    """What is known after all these snapshots, in the order of the steps."""
    health = Health()
    for snapshot in snapshots:
        health, _ = judge(health, snapshot)
    return health


def shows_initialization(snapshot: Snapshot) -> bool:
    """Whether a first snapshot is early enough to show how the weights were drawn."""
    return snapshot.last_step <= limit("initialization_ends")


def _seen(snapshot, is_first, known):
    """What the rules find in this snapshot, and the known finding that explains it; None
    where no other finding does. What one of the same snapshot explains is left out."""
    initial = is_first and shows_initialization(snapshot)
    always = [row.rule for row in rules.ALWAYS if row.may_find(snapshot)]
    asked = [*rules.INITIAL, *always] if initial else always
    if not asked:
        return
    given = {
        layer.name
        for layer in snapshot.layers
        if layer.kind == "input" and not layer.parents
    }
    changed = any(layer.changed for layer in snapshot.layers)
    profile = depth_profile(snapshot)
    if any(not given.isdisjoint(f.layers) for f in rules.nonfinite(snapshot, profile)):
        asked = (rules.nonfinite, *asked)  # whatever else shows may come of it
    codes, here = set(known), set()
    for rule in asked:
        for finding in rule(snapshot, profile):
            if rule in rules.OF_DRAWN_WEIGHTS and changed_up_to(profile, finding.layers):
                continue  # these weights tell nothing of how they were drawn
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
            what = dataclasses.replace(
                finding,
                initial=initial and not changed,
                fix=finding.fix
                or fix_for(finding.code, finding.layers, snapshot, profile, not is_first),
            )
            yield what, None


def changed_up_to(profile: DepthProfile, names: Collection[str]) -> list[str]:
    """Layers whose weights have changed since they were drawn, of these and of all that
    lead to them, in the order of the calls."""
    layers = profile.graph.layers
    rows = {row for row, layer in enumerate(layers) if layer.name in names}
    above = set().union(rows, *(profile.graph.before(row) for row in rows))
    return [layers[row].name for row in sorted(above) if layers[row].changed]


def _grown(known, seen, snapshot):
    """A finding that was known, with what a later snapshot shows of it."""
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
    so_far = f" So far it has been {len(layers)} layers." if more else ""
    return dataclasses.replace(
        known,
        severity=severity,
        layers=(*gone, *in_order),
        evidence=seen.evidence | {"layers": float(len(layers))},
        message=f"at step {snapshot.step}, when it last spread, {seen.message}{so_far}",
        fix=seen.fix if _same_cause(known, seen) else known.fix,
    )


def _led_to(known, seen, snapshot):
    """A finding that was known, with what has come of it in training."""
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


def _same_cause(known, seen):
    """Else what was so from the beginning would be put down to training."""
    return (known.fix and known.fix.cause) == (seen.fix and seen.fix.cause)


def _is_news(finding, told):
    return (
        told is None
        or finding.severity != told.severity
        or len(finding.layers) >= 2 * len(told.layers)
    )


_SIZE = ("exploding-activations", "vanishing-activations", "outlier-gain")
_CAUSES = ("symmetric-initialization", *_SIZE)

# What stands on the right explains the finding on the left, unless that shows in the input
# of the model: a signal that vanishes ends in zeros, one that explodes in infinities.
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

# What an input out of scale does to a training that was not fixed.
_EXPLAINED_IN_TRAINING_BY = {
    "dead-units": ("unscaled-input",),
    "nonfinite-activations": ("unscaled-input",),
}

"""What is remembered of a run while it is judged, and the fold that judges it.

The callback, `diagnose` and the TensorBoard tab all fold `judge` over the snapshots of a
run, so they have the same findings. This module decides when a rule is applied, which
finding explains which, and how a finding grows. What a rule looks for is defined in
`rules`.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from activation_monitor.analysis import rules
from activation_monitor.analysis.depth_profile import DepthProfile, depth_profile
from activation_monitor.analysis.findings import SEVERITIES, Finding, Found
from activation_monitor.analysis.fixes import fix_for
from activation_monitor.analysis.motion import Motion, after
from activation_monitor.analysis.rules.evaluation import differs
from activation_monitor.analysis.rules.motion import moved
from activation_monitor.analysis.rules.over_time import at_once, that_may_find
from activation_monitor.analysis.rules.over_time.loss import diverges
from activation_monitor.analysis.shown import count, one_line
from activation_monitor.analysis.snapshot import Recording, Snapshot
from activation_monitor.analysis.thresholds import limit
from activation_monitor.analysis.window import Window, remembered


@dataclass(frozen=True)
class Health:
    """What is known of a run after the snapshots that were judged so far.

    Attributes:
        findings: One for each code, in the order in which they were first seen. A finding
            grows: layers join, its severity rises, its last step advances.
        snapshots: How many snapshots of training were judged.
        reported: By code, the finding as `judge` last returned it.
        first: The first snapshot of training, or the first one after the steps were counted
            from 0 again; None before it.
        window: The last snapshots of training, oldest first, see `window.remembered`.
        absent: By code of a finding that is no longer seen, the first step at which it was
            not, and in how many snapshots it has not been since.
        motion: Whether kernels move.
    """

    findings: tuple[Finding, ...] = ()
    snapshots: int = 0
    reported: Mapping[str, Finding] = field(default_factory=dict[str, Finding])
    first: Snapshot | None = None
    window: tuple[Snapshot, ...] = ()
    absent: Mapping[str, tuple[int, int]] = field(
        default_factory=dict[str, tuple[int, int]]
    )
    motion: Motion = field(default_factory=Motion, compare=False)

    @one_line
    def __repr__(self) -> str:
        codes = ", ".join(finding.code for finding in self.findings) or "no findings"
        return f"after {count(self.snapshots, 'snapshot')}: {codes}"


def judge(health: Health, snapshot: Snapshot) -> tuple[Health, tuple[Finding, ...]]:
    """Judge the next snapshot of a run. One cause gives one finding.

    Growth with depth is judged only at the first snapshot, if it still shows the
    initialization: later it may come from learning. Rules over time read the last
    snapshots. A finding that is no longer seen in several snapshots has recovered; if it is
    seen again, it is open again. A snapshot of evaluation is only compared with those of
    training before it.

    Args:
        health: What is known of the snapshots before; `Health()` before the first one.
        snapshot: The next snapshot.

    Returns:
        What is known now; and the findings to report: those that are new or seen again,
        whose severity has risen, or whose layers are at least twice as many as when last
        reported.
    """
    if snapshot.evaluation:
        return _compared(health, snapshot)
    is_first = health.snapshots == 0
    health = dataclasses.replace(
        health, snapshots=health.snapshots + 1, motion=after(health.motion, snapshot)
    )
    found = {finding.code: finding for finding in health.findings}
    known = {code: one for code, one in found.items() if one.recovered is None}
    last = remembered(health.window, snapshot)
    first = health.first if len(last) > 1 and health.first else snapshot
    news: dict[str, Finding] = {}
    seen_now: set[str] = set()
    previous = health.window[-1] if health.window and len(last) > 1 else None
    window = Window(last, first, known, previous)
    for seen, cause in _seen(snapshot, is_first, window, health.motion):
        code = cause or seen.code
        seen_now.add(code)
        if cause is not None:
            found[cause] = _led_to(found[cause], seen, snapshot)
        elif code in found:
            found[code] = _grown(found[code], seen, snapshot)
        else:
            found[code] = seen
        if code not in known or _is_news(found[code], health.reported.get(code)):
            news[code] = found[code]
    ending = [code for code, finding in found.items() if _can_end(finding, first)]
    absent = _no_longer_seen(found, ending, seen_now, health.absent, snapshot)
    health = dataclasses.replace(
        health,
        findings=tuple(found.values()),
        reported={**health.reported, **news},
        first=first,
        window=last,
        absent=absent,
    )
    return health, tuple(one for code, one in found.items() if code in news)


def _compared(health: Health, evaluation: Snapshot) -> tuple[Health, tuple[Finding, ...]]:
    """`judge` for a snapshot of evaluation."""
    found = {finding.code: finding for finding in health.findings}
    known = {code for code, one in found.items() if one.recovered is None}
    causes = _EXPLAINED_IN_TRAINING_BY[rules.EVALUATION]
    if rules.EVALUATION not in known and not known.isdisjoint(causes):
        return health, ()
    seen, news = set[str](), dict[str, Finding]()
    for finding, cause in differs(health.window, evaluation):
        code = finding.code
        fix = fix_for(cause, evaluation, depth_profile(evaluation))
        finding = dataclasses.replace(finding, initial=False, fix=fix)
        found[code] = _grown(found[code], finding, evaluation) if code in found else finding
        seen.add(code)
        if code not in known:
            news[code] = found[code]
    ending = [code for code in found if code == rules.EVALUATION]
    absent = _no_longer_seen(found, ending, seen, health.absent, evaluation)
    health = dataclasses.replace(
        health,
        findings=tuple(found.values()),
        reported={**health.reported, **news},
        absent=absent,
    )
    return health, tuple(news.values())


def judged(snapshots: Iterable[Snapshot]) -> Health:
    """What is known after all these snapshots.

    Args:
        snapshots: In the order of the steps. The evaluations of a `Recording` are judged as
            well.
    """
    health = Health()
    if isinstance(snapshots, Recording):
        snapshots = snapshots.in_order
    for snapshot in snapshots:
        health, _ = judge(health, snapshot)
    return health


def shows_initialization(snapshot: Snapshot) -> bool:
    """Whether a first snapshot is early enough to show how the weights were drawn."""
    return snapshot.last_step <= limit("initialization-ends")


_Applied = tuple[Callable[[DepthProfile], Iterator[Found]], bool]
"""A rule to apply to a profile, and whether it is on how weights were drawn."""


def _seen(
    snapshot: Snapshot, is_first: bool, window: Window, motion: Motion
) -> Iterator[tuple[Finding, str | None]]:
    """What the rules find in a snapshot, and the known finding that explains it, if any.

    What another finding of the same snapshot explains is left out.
    """
    known = window.open
    initial = is_first and shows_initialization(snapshot)
    apply: list[_Applied] = [
        (partial(row.rule, window), False)
        for row in (*at_once(window), *that_may_find(window))
    ]
    if initial:
        apply += [
            (partial(rule, snapshot), rule in rules.OF_DRAWN_WEIGHTS)
            for rule in rules.INITIAL
        ]
    apply += [
        (partial(row.rule, snapshot), False)
        for row in rules.ALWAYS
        if row.may_find(snapshot)
    ]
    in_motion = [*moved(snapshot, motion)]
    if in_motion:
        apply.append((lambda profile: iter(in_motion), False))
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
        # Everything else may come from it.
        apply = [(partial(rules.nonfinite, snapshot), False), *apply]
    codes, here, diverged = set(known), set[str](), diverges(window)
    for rule, of_drawn_weights in apply:
        for finding, cause in rule(profile):
            if of_drawn_weights and changed_up_to(profile, finding.layers):
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
                    if finding.code == _ROOT:  # its fix knows by how much
                        fix = fix_for(cause, snapshot, profile, came_up=True)
                        finding = dataclasses.replace(finding, fix=fix)
                    yield finding, before
                continue
            here.add(finding.code)
            fix = fix_for(cause, snapshot, profile, not is_first, diverged)
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
    known = dataclasses.replace(known, last_step=snapshot.last_step, recovered=None)
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
    fix = known.fix
    if seen.code == _ROOT:
        consequence = f"it comes with {seen.code}"
        fix = seen.fix if _same_cause(known, seen) else known.fix
    if consequence in known.message:
        return known
    return dataclasses.replace(
        known,
        fix=fix,
        severity=max(known.severity, seen.severity, key=SEVERITIES.index),
        message=f"{known.message} At step {snapshot.step} {consequence}, first in "
        f"{seen.layers[0]}.",
    )


def _can_end(finding: Finding, first: Snapshot) -> bool:
    """Whether the rule of a finding is applied at every snapshot of training."""
    came_up = not finding.initial and finding.step != first.step
    return finding.code in rules.ENDING or (
        came_up and finding.code in rules.ENDING_IN_TRAINING
    )


def _no_longer_seen(
    found: dict[str, Finding],
    codes: Collection[str],
    seen: Collection[str],
    absent: Mapping[str, tuple[int, int]],
    snapshot: Snapshot,
) -> dict[str, tuple[int, int]]:
    """Let findings end that were not seen for long enough: replaces them in `found`.

    Args:
        found: All findings, by code.
        codes: Codes of the findings whose rules were applied to the snapshot.
        seen: Codes of those that were seen in it.
        absent: See `Health`.
        snapshot: The newest snapshot.

    Returns:
        The findings that are missing and have not ended yet, as in `Health.absent`.
    """
    still = {code: since for code, since in absent.items() if code not in codes}
    for code in codes:
        finding = found[code]
        if code in seen or finding.recovered is not None:
            continue
        since, times = absent.get(code, (snapshot.step, 0))
        # Several models may take turns: one does not show what the other recovers from.
        times += set(finding.layers) <= set(snapshot.names)
        long = snapshot.last_step - since >= limit("patience-steps")
        if times >= limit("patience") and long:
            found[code] = dataclasses.replace(finding, recovered=since)
        elif times:
            still[code] = (since, times)
    return still


def _same_cause(known: Finding, seen: Finding) -> bool:
    """Whether both have the same cause: training is not the cause of an old finding."""
    return (known.fix and known.fix.cause) == (seen.fix and seen.fix.cause)


def _is_news(finding: Finding, reported: Finding | None) -> bool:
    return (
        reported is None
        or finding.severity != reported.severity
        or len(finding.layers) >= 2 * len(reported.layers)
    )


_ROOT = "large-updates"
"""The code of the cause of other findings that may be found after them."""

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
        "nonfinite-loss",
    ),
    "nonfinite-gradients": ("exploding-activations", "outlier-gain", "nonfinite-loss"),
    "nonfinite-loss": (
        "exploding-activations",
        "outlier-gain",
        "nonfinite-activations",
        "nonfinite-gradients",
        "large-updates",
    ),
    "stuck-loss-scale": (
        *("exploding-activations", "outlier-gain", "wrong-update"),
        *("nonfinite-activations", "nonfinite-gradients", "nonfinite-loss"),
    ),
}

# What shows that steps are too large, or a jump: whichever comes first explains the others.
_OF_STEPS = (
    "large-updates",
    "scale-jump",
    "dead-units",
    "saturated-activations",
    "collapsed-activations",
    "growing-weights",
    "heavy-tail",
    "loss-jump",
)
_CAUSES_IN_TRAINING = ("large-updates", "scale-jump", "growing-weights", "loss-jump")
_NONFINITE = ("nonfinite-activations", "nonfinite-gradients")
# A network with one of these from the beginning on does not learn as others do.
_FROM_THE_BEGINNING = (
    *_CAUSES,
    _SAME,
    "zero-activations",
    "unscaled-input",
    "mean-shift",
    "saturated-activations",
    "collapsed-activations",
    "no-gradient",
    "exploding-gradients",
    "vanishing-gradients",
    "target-scale",
)

# What findings lead to in training, if they are not fixed.
_EXPLAINED_IN_TRAINING_BY: dict[str, tuple[str, ...]] = {
    **{
        row.code: (*_OF_STEPS, *_NONFINITE, *rules.OF_UPDATES, *_FROM_THE_BEGINNING)
        for row in rules.OVER_TIME
    },
    "dead-units": ("unscaled-input", *rules.OF_UPDATES, *_CAUSES_IN_TRAINING),
    "nonfinite-activations": ("unscaled-input", *rules.OF_UPDATES, *_CAUSES_IN_TRAINING),
    "nonfinite-gradients": (*rules.OF_UPDATES, *_CAUSES_IN_TRAINING),
    "nonfinite-loss": (*rules.OF_UPDATES, *_CAUSES_IN_TRAINING),
    "moving-statistics": (*_NONFINITE, "nonfinite-loss", rules.EVALUATION),
    rules.EVALUATION: (
        *(*_OF_STEPS, *_NONFINITE, *rules.OF_UPDATES, *_FROM_THE_BEGINNING),
        *("nonfinite-loss", "moving-statistics"),
    ),
}

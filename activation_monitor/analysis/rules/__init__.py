"""The rules: functions of a snapshot and its profile that yield findings.

A rule states the observation with its numbers and the mechanism with its reference, and
passes on what it knows about the cause. Rules over time, which read several snapshots, are
in `over_time`. What to change is decided in `fixes`; which finding
explains which, in `health`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found
from activation_monitor.analysis.rules import (
    data,
    embeddings,
    evaluation,
    gradients,
    normalization,
    recurrent,
    size,
    units,
)
from activation_monitor.analysis.rules.mean import mean_shift
from activation_monitor.analysis.rules.no_gradient import no_gradient
from activation_monitor.analysis.rules.nonfinite import (
    any_nonfinite,
    any_nonfinite_gradient,
    nonfinite,
    nonfinite_gradients,
)
from activation_monitor.analysis.rules.outlier import outlier
from activation_monitor.analysis.rules.over_time import OVER_TIME
from activation_monitor.analysis.rules.updates import are_wrong, updates
from activation_monitor.analysis.snapshot import Snapshot

Rule = Callable[[Snapshot, DepthProfile], Iterator[Found]]

INITIAL: tuple[Rule, ...] = (
    data.constant_input,
    embeddings.constant,
    units.symmetric,
    recurrent.exploding,
    outlier,
    size.growth,
    size.operations,
    size.zeros,
    size.unscaled_input,
    embeddings.too_large,
    mean_shift,
    recurrent.saturated,
    units.saturated,
    units.collapsed,
    no_gradient,
    gradients.predicted,
    gradients.measured,
    gradients.normalized,
    data.target_scale,
)
"""The rules for the initialization. Causes come before what they explain."""

OF_DRAWN_WEIGHTS = frozenset(INITIAL) - {
    size.zeros,
    no_gradient,
    data.constant_input,
    data.target_scale,
}
"""The rules on how weights were drawn. They show nothing about weights that have changed
since."""


class Always(NamedTuple):
    """A rule for every snapshot.

    Attributes:
        codes: The codes of its findings.
        rule: The rule.
        may_find: Whether the rule could find anything, from the records alone: most
            snapshots need not be read along depth.
    """

    codes: tuple[str, ...]
    rule: Rule
    may_find: Callable[[Snapshot], bool]


OF_UPDATES = (
    "weights-not-updated",
    "wrong-update",
    "replicas-differ",
    "stuck-loss-scale",
    "weight-decay",
)
"""The codes of faults of the training step itself."""

EVALUATION = evaluation.CODE
"""The code that is judged at evaluations, and not at snapshots of training."""

ALWAYS = (
    Always(("nonfinite-activations",), nonfinite, any_nonfinite),
    Always(("nonfinite-gradients",), nonfinite_gradients, any_nonfinite_gradient),
    Always(("dead-units",), units.dead, units.may_be_dead),
    Always(("moving-statistics",), normalization.moving, normalization.may_be_away),
    Always(OF_UPDATES, updates, are_wrong),
)

ENDING_IN_TRAINING = frozenset({"saturated-activations", "collapsed-activations"})
"""Codes that are judged at the first snapshot and, by another rule, over time: a finding
can end if it came up in training."""

ENDING = {code for row in ALWAYS for code in row.codes} | {
    row.code for row in OVER_TIME
} - ENDING_IN_TRAINING
"""Codes that are judged at every snapshot: their findings can end."""

LAYERS_JOIN = frozenset({"dead-units", "moving-statistics"})
"""Codes of findings that other layers join later. NaN always spreads: its finding stays
with the layer in which it began."""

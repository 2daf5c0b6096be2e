"""The rules: functions of a snapshot and its profile that yield findings.

A rule says the observation with its numbers and the mechanism with its reference. What
to change is the matter of `fix`; which finding explains which, that of `health`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.rules import gradients, size, units
from activation_monitor.analysis.rules.outlier import outlier
from activation_monitor.analysis.rules.units import nonfinite
from activation_monitor.analysis.snapshot import Snapshot

INITIAL = (
    units.symmetric,
    outlier,
    size.growth,
    size.operations,
    size.zeros,
    size.unscaled_input,
    size.mean_shift,
    units.saturated,
    units.collapsed,
    gradients.predicted,
    gradients.measured,
    gradients.normalized,
)
"""For the initialization. Causes stand before what they explain."""

OF_DRAWN_WEIGHTS = frozenset(INITIAL) - {size.zeros}
"""Those that ask how the weights were drawn: of weights that have changed since they say
nothing."""


class Always(NamedTuple):
    """A rule for every snapshot.

    Attributes:
        rule: The rule.
        may_find: Says from the measurements alone whether it could find anything: most
            snapshots need not be read along depth.
    """

    rule: Callable[[Snapshot, DepthProfile], Iterator[Finding]]
    may_find: Callable[[Snapshot], bool]


ALWAYS = (Always(nonfinite, units.any_nonfinite), Always(units.dead, units.may_be_dead))

LAYERS_JOIN = frozenset({"dead-units"})
"""Codes of findings that other layers join later. NaN always spreads: its finding stays
with the layer where it began."""

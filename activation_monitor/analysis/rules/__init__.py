"""The rules: functions of a snapshot and its profile that yield findings.

A rule says the observation with its numbers and the mechanism with its reference. What
to change is the matter of `remedy`; which finding explains which, that of `diagnosis`.
"""

from activation_monitor.analysis.rules import gradients, size, units
from activation_monitor.analysis.rules.outlier import outlier
from activation_monitor.analysis.rules.units import nonfinite

INITIAL = (
    units.symmetric,
    outlier,
    size.growth,
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

ALWAYS = (nonfinite, units.dead)
"""For every snapshot."""

SCREENS = {
    units.dead: ("dead-units", units.may_be_dead),
    nonfinite: ("nonfinite-activations", units.any_nonfinite),
}
"""Of a rule that is asked at every snapshot, the code of its findings, and a look at the
measurements alone that says whether it could find anything: most snapshots need not be
read along depth."""

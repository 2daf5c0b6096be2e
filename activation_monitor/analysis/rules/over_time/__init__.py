"""Rules over time: functions of a window of snapshots and the profile of the newest one.

What they find has come up in training, so its cause is the learning rate, the data or the
loss, never the initializer. A condition must hold in the last `patience` snapshots. Where
the loss is far below that of the first snapshot the network learns, and none of them is
applied.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found
from activation_monitor.analysis.rules.over_time import (
    jumps,
    loss,
    updates,
    values,
    weights,
)
from activation_monitor.analysis.window import Window


class OverTime(NamedTuple):
    """A rule over time.

    Attributes:
        code: The code of its findings.
        rule: The rule.
        may_find: Whether the rule could find anything, from the first and the newest
            snapshot alone as far as possible: it is asked at every sampled step.
    """

    code: str
    rule: Callable[[Window, DepthProfile], Iterator[Found]]
    may_find: Callable[[Window], bool]


OVER_TIME = (
    OverTime("large-updates", updates.too_large, updates.may_be_too_large),
    OverTime("small-updates", updates.too_small, updates.may_be_too_small),
    OverTime("scale-jump", jumps.of_scale, jumps.may_be_of_scale),
    OverTime("saturated-activations", values.saturated, values.may_be_saturated),
    OverTime("collapsed-activations", values.collapsed, values.may_be_collapsed),
    OverTime("growing-weights", weights.growing, weights.may_be_growing),
    OverTime("heavy-tail", values.heavy_tail, values.may_be_heavy_tailed),
    OverTime("loss-jump", jumps.of_loss, jumps.may_be_of_loss),
)
"""Causes come before what they explain."""


AT_ONCE = (OverTime("nonfinite-loss", loss.nonfinite, loss.may_be_nonfinite),)
"""Rules that use a window and need no patience. Other rules may explain what they find."""


def that_may_find(window: Window) -> list[OverTime]:
    """The rules of `OVER_TIME` that could find anything in a window."""
    if not window.lasting or window.learns:
        return []
    return [row for row in OVER_TIME if row.may_find(window)]


def at_once(window: Window) -> list[OverTime]:
    """The rules of `AT_ONCE` that could find anything in a window."""
    return [row for row in AT_ONCE if row.may_find(window)]

"""Which ReLU units were never active over the last sampled steps.

Whether a unit was active in a batch is measured in the training step: a unit is a channel,
and it is active if any sample and position of it is not zero. This module counts over
steps. A step of several replicas, several batches or several calls of a layer counts once:
the unit is active if it was in any of them.

The window of a layer is the shortest one that ends with the last step, has at least
`dead-steps` sampled steps and at least `dead-window` samples; or all steps so far, if these
are fewer. So units that are active for few samples are not taken for dead in small batches.
"""

from typing import NamedTuple

import numpy as np

from activation_monitor.analysis.thresholds import limit

RECTIFIED = ("relu", "relu6")
"""Activation functions whose units are counted: what is below zero becomes zero."""

FIELDS = ("inactive_units", "steps", "samples")
"""What is known of a layer: how many of its units were not active in the window; the
sampled steps and the samples of the window."""


class Activity(NamedTuple):
    """The activity of the units of one layer.

    Attributes:
        idle: For each unit the number of sampled steps since it was active, up to now;
            all steps so far if it never was. Integers of shape `(units,)`.
        samples: The samples of each sampled step of the window, the last one at the end.
    """

    idle: np.ndarray
    samples: tuple[float, ...] = ()


def after(known: Activity | None, active: np.ndarray, samples: float) -> Activity:
    """The activity after one more sampled step.

    Args:
        known: The activity before; None before the first step.
        active: Whether each unit was active, `(units,)`; NaN for all if it is not known,
            after which counting starts again. With another number of units as well.
        samples: How many samples the step had; if there were none, nothing changes.

    Returns:
        The activity now.
    """
    if known is None or known.idle.shape != active.shape:
        known = Activity(np.zeros(active.shape, np.int64))
    if not samples > 0:
        return known
    if np.isnan(active).any():
        return Activity(np.zeros(active.shape, np.int64))
    seen, total = (samples,), samples
    for earlier in reversed(known.samples):
        if len(seen) >= limit("dead-steps") and total >= limit("dead-window"):
            break
        seen, total = (earlier, *seen), total + earlier
    return Activity(np.where(active > 0, 0, known.idle + 1), seen)


def row(known: Activity) -> np.ndarray:
    """What is known of a layer, `(len(FIELDS),)`; NaN before the first step."""
    steps = len(known.samples)
    if not steps:
        return np.full(len(FIELDS), np.nan)
    inactive = np.count_nonzero(known.idle >= steps)
    return np.array([inactive, steps, sum(known.samples)], np.float64)

"""A loss that does not fall although the signal is in order: a note, not a finding."""

from collections.abc import Iterable

import numpy as np

from activation_monitor.analysis import trend
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit


def flat_since(snapshots: Iterable[Snapshot]) -> int | None:
    """The step from which on the loss has not fallen; None if it has.

    The loss of a batch is noisy, so medians over halves of the snapshots are compared. A
    loss that has fallen far below that of the first snapshot may stay where it is.

    Args:
        snapshots: In the order of the steps. Those of evaluation are left out.

    Returns:
        The step of a snapshot, in the first half of the training. None if there are too few
        snapshots or steps, or losses were not measured.
    """
    measured = [s for s in snapshots if not s.evaluation and np.isfinite(s.loss)]
    steps = np.array([one.step for one in measured])
    restarts = np.flatnonzero(np.diff(steps) <= 0)
    if len(restarts):  # a new optimizer counts from 0
        measured, steps = measured[restarts[-1] + 1 :], steps[restarts[-1] + 1 :]
    least = int(limit("flat-loss-snapshots"))
    if len(measured) < least or steps[-1] - steps[0] < limit("flat-loss-steps"):
        return None
    losses = np.array([one.loss for one in measured])
    if 0 < losses[0] * limit("learns") > np.median(losses[-least // 2 :]):
        return None
    longest = (steps[0] + steps[-1]) / 2
    # Of many snapshots, evenly spaced ones say as much.
    rows = np.unique(np.linspace(0, len(losses) - 1, int(limit("flat-loss-of"))).round())
    losses, steps = losses[rows.astype(int)], steps[rows.astype(int)]
    for start in range(len(losses) - least + 1):
        if steps[start] > longest:
            return None
        rest = losses[start:]
        quarter = len(rest) // 4
        if not any(_falls(rest, times * quarter) for times in (1, 2, 3)):
            return int(steps[start])
    return None


def _falls(losses: np.ndarray, row: int) -> bool:
    return trend.falls(losses, row, limit("flat-loss"), limit("flat-loss-errors"))

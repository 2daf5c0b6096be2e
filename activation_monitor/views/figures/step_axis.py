"""The axis of steps, which figures over time share: a step has the same place in each."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from activation_monitor.views.figures.style import whole


def edges(steps: Sequence[float] | np.ndarray) -> np.ndarray:
    """The edges of one column for each step, an array `(steps + 1,)`.

    An edge is halfway between two steps; the first and the last column are symmetric.
    Plotly draws columns like this around the places of a heat map.

    Args:
        steps: At least one step, in increasing order.
    """
    at = np.asarray(steps, float)
    if len(at) == 1:
        return np.array([at[0] - 0.5, at[0] + 0.5])
    middles = (at[1:] + at[:-1]) / 2
    return np.concatenate([[2 * at[0] - middles[0]], middles, [2 * at[-1] - middles[-1]]])


def axis(steps: Sequence[float]) -> dict[str, Any]:
    """The range and the ticks of an axis that shows these steps, in any order.

    Args:
        steps: At least one step.
    """
    ends = edges(np.unique(np.asarray(steps, float)))
    low, high = float(ends[0]), float(ends[-1])
    return {"range": [low, high], **whole(min(steps), max(steps))}

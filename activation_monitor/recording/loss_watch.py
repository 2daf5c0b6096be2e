"""Watches the loss that `fit` reports after each step, for a first sign of trouble."""

import collections
import math
from typing import Any

_REMEMBERED = 8
"""How many losses a jump is compared with: one odd batch is among so many now and then."""

_JUMP = 10.0
"""Times the largest of them. A sign only makes the schedule denser for a few steps."""


class LossWatch:
    """Tells from the mean loss of an epoch so far what happened in the last execution."""

    def __init__(self):
        self._last = collections.deque(maxlen=_REMEMBERED)
        self._mean, self._steps = 0.0, 0
        self._was_nonfinite = False

    def sign(self, mean: Any, steps: int) -> str:
        """Whether the steps since the last call show a sign of trouble.

        Args:
            mean: The mean loss over the steps of the epoch so far, as Keras reports it.
                Anything but a number is ignored.
            steps: The number of these steps.

        Returns:
            `"nonfinite"`, at the first loss that is NaN or infinite; `"jump"`; or `""`.
        """
        if not isinstance(mean, int | float) and getattr(mean, "shape", None) != ():
            return ""
        mean = float(mean)
        if steps <= self._steps:  # an epoch has begun
            self._mean, self._steps = 0.0, 0
        if not math.isfinite(mean):
            is_new, self._was_nonfinite = not self._was_nonfinite, True
            self._steps = steps
            return "nonfinite" if is_new else ""
        if self._was_nonfinite:  # the mean starts again with the epoch
            self._was_nonfinite = False
            self._last.clear()
        loss = (mean * steps - self._mean * self._steps) / (steps - self._steps)
        self._mean, self._steps = mean, steps
        full = len(self._last) == _REMEMBERED
        jumped = full and 0 < _JUMP * max(self._last) < loss
        self._last.append(loss)
        return "jump" if jumped else ""

"""Numbers the training steps."""

import math
from typing import cast


class StepCount:
    """Numbers the steps by the optimizer's counter.

    The counter is read once per epoch only, because reading it waits for the device.

    Each number is used once, even if the counter repeats or skips steps: Keras does not
    count the steps of a custom optimizer, a recompiled optimizer starts at 0, and an
    optimizer that scales the loss does not count the steps that it skips.
    """

    def __init__(self):
        # At the start of this epoch: our step number and the optimizer's counter.
        self._start = self._taken = 0
        # The first step of this execution, and the step after its last one.
        self._now = self._ended = 0
        # Bounds of the next epoch's first step. The number of steps in the last execution
        # is unknown: `fit` reports neither the amount of data nor where it ended.
        self._least, self._most = 0, math.inf

    def fit_begins(self) -> None:
        """Accept any optimizer counter at the next epoch."""
        self._most = math.inf

    def epoch_begins(self, taken: int) -> int:
        """Begin an epoch.

        Args:
            taken: The number of steps the optimizer has taken.

        Returns:
            The number of the next step.
        """
        self._start = self.reached(taken)
        self._taken = taken
        self._ended = self._least = self._start
        return self._start

    def reached(self, taken: int) -> int:
        """The number of the next step, without beginning an epoch.

        Args:
            taken: The number of steps the optimizer has taken.
        """
        moved = taken - self._taken
        if moved > 0:
            return int(min(max(self._start + moved, self._least), self._most))
        return self._ended

    def batch_begins(self, batch: int, together: int) -> int:
        """Begin an execution.

        Args:
            batch: Index of its first batch in the epoch.
            together: The largest number of steps that the execution runs.

        Returns:
            The number of its first step.
        """
        self._now = self._start + batch
        self._most = self._now + together
        return self._now

    def batch_ends(self) -> None:
        """End an execution: it has run at least one step and at most `together` steps."""
        # `batch_begins` has set `_most`, unless no step can be measured.
        self._least, self._ended = self._now + 1, cast(int, self._most)

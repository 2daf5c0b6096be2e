"""The numbers of the steps."""

import math


class StepCount:
    """Numbers the steps as the optimizer does, and asks it once an epoch only: reading
    its counter waits for the device.

    No number is given twice, whatever the optimizer says. One of the user's own is not
    counted by Keras, one compiled anew begins again at 0, one that scales the loss does
    not count the steps it skips.
    """

    def __init__(self):
        self._start = self._taken = 0  # of this epoch: our number, the optimizer's
        self._now = self._ended = 0  # this execution's first step, and past its last one
        # Where the next epoch may begin. How many steps the last execution ran is not
        # known here: `fit` says neither how much data there is nor where it ran out.
        self._least, self._most = 0, math.inf

    def fit_begins(self) -> None:
        """From now until the next epoch the optimizer may have taken any steps."""
        self._most = math.inf

    def epoch_begins(self, taken: int) -> int:
        """The number of the next step, `taken` being the steps the optimizer took."""
        self._start = self.reached(taken)
        self._taken = taken
        self._ended = self._least = self._start
        return self._start

    def reached(self, taken: int) -> int:
        """The number of the next step, without beginning an epoch."""
        moved = taken - self._taken
        if moved > 0:
            return min(max(self._start + moved, self._least), self._most)
        return self._ended

    def batch_begins(self, batch: int, together: int) -> int:
        """The number of the first of the `together` steps that begin with `batch`."""
        self._now = self._start + batch
        self._most = self._now + together
        return self._now

    def batch_ends(self) -> None:
        """At least one of them, at most all, were taken."""
        self._least, self._ended = self._now + 1, self._most

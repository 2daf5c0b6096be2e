"""The plain step and the tapped step, and the schedule that picks one.

The model's own `train_function` is never changed: it runs at all steps but the sampled
ones. A second one is made from the same `train_step`, with taps, and takes the first
one's place for just one call: the first thing it does is to put the plain step back.
"""

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from activation_monitor.recording import measure
from activation_monitor.recording.taps import Taps

DENSE = (0, 1, 2, 5, 10, 20, 50)
"""Steps that are sampled whatever `sample_every` says, counted from the first step that
the monitor sees: initialization is judged there."""


def schedule(sample_every: int | Callable[[int], bool]) -> Callable[[int, int], bool]:
    """A function of (step, first step seen) that says whether to sample.

    Args:
        sample_every: Every how many steps, besides the first ones (`DENSE`); or a
            function of the step, which then decides alone.

    Raises:
        ValueError: If the number is not positive.
        TypeError: If it is neither a number nor a function.
    """
    expected = (
        "ActivationMonitor: `sample_every` must be a positive integer or a function of "
        f"the step. Received: sample_every={sample_every!r}. Use 1 to look at every step."
    )
    if callable(sample_every):
        return lambda step, first: bool(sample_every(step))
    if isinstance(sample_every, bool) or not isinstance(sample_every, int | np.integer):
        raise TypeError(expected)
    if sample_every < 1:
        raise ValueError(expected)
    return lambda step, first: step % sample_every == 0 or step - first in DENSE


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
        moved = taken - self._taken
        if moved > 0:
            self._start = min(max(self._start + moved, self._least), self._most)
        else:
            self._start = self._ended
        self._taken = taken
        self._ended = self._least = self._start
        return self._start

    def batch_begins(self, batch: int, together: int) -> int:
        """The number of the first of the `together` steps that begin with `batch`."""
        self._now = self._start + batch
        self._most = self._now + together
        return self._now

    def batch_ends(self) -> None:
        """At least one of them, at most all, were taken."""
        self._least, self._ended = self._now + 1, self._most


class TwoSteps:
    """Runs a model's sampled steps with taps.

    Args:
        model: A compiled model whose `train_function` is made.
        taps: The taps to install.
        measured: Called after each sampled step with what `Taps.read` returned.
        gave_up: Called with an error if the tapped step does not fit the device.
    """

    def __init__(
        self,
        model,
        taps: Taps,
        measured: Callable,
        gave_up: Callable[[Exception], None],
    ):
        self.model = model
        self.taps = taps
        self._measured = measured
        self._gave_up = gave_up
        self._plain = model.train_function
        self._tapped = {}
        self._looked_closely = set()
        self._exact_next = False
        self._interrupted = False  # a sampled step began, and was not read
        self._seen_kernels = False

    def sample_next(self) -> None:
        """Let the model's next step be a tapped one."""
        # It may be another monitor's sampled step, which puts the plain one back.
        current = self.model.train_function
        current = getattr(current, "plain", current)
        if current is not self._plain:
            # Somebody made a new one (unfroze layers, compiled again).
            self._plain = current
            self._tapped.clear()
        exact = self._exact_next
        if exact not in self._tapped:
            self._tapped[exact] = self._make(exact)
        self.model.train_function = self._once(self._tapped[exact], exact)

    def _once(self, tapped, exact):
        def sampled_step(iterator):
            self.model.train_function = self._plain
            if self._interrupted:
                self.taps.clear()
            self._interrupted = True
            if not self._seen_kernels:  # before the step changes them
                self._seen_kernels = True
                self.taps.measure_kernels()
            try:
                logs = tapped(iterator)
            except tf.errors.ResourceExhaustedError as error:
                # What measuring needs on top may be too much; the plain step may fit.
                if "IteratorGetNext" in str(error):
                    raise  # the user's data
                self._gave_up(error)
                return self._plain(iterator)
            try:
                found = self.taps.read()
            except Exception as error:
                self._gave_up(error)
                return logs
            self._interrupted = False
            if found.layers:
                self._plan_exact_look(found.layers, found.records, exact)
            self._measured(found)
            return logs

        sampled_step.plain = self._plain
        return sampled_step

    def _make(self, exact):
        model = self.model
        before = model.__dict__.get("train_step")
        model.__dict__["train_step"] = self.taps.during(model.train_step, exact)
        try:
            model.train_function = None  # the user's own may know no `force`
            model.make_train_function()
            return model.train_function
        finally:
            model.train_function = self._plain
            if before is None:
                del model.__dict__["train_step"]
            else:
                model.__dict__["train_step"] = before

    def _plan_exact_look(self, layers, records, exact):
        """One exact look for each layer that a quick look cannot measure in full."""
        names = np.array([layer.name for layer in layers])
        needed = set(names[measure.needs_exact(records)])
        if exact:
            self._looked_closely |= needed
        self._looked_closely &= needed
        self._exact_next = bool(needed - self._looked_closely)

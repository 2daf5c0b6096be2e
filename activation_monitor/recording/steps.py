"""The plain step and the tapped step, and the schedule that picks one.

A model's own `train_function` is never changed: it runs at all steps but the sampled
ones. A second one is made from the same `train_step`, with taps, and takes the first
one's place for just one call: the first thing it does is to put the plain step back.
The same holds for `test_function`, and for a step of the user's own.
"""

from collections.abc import Callable

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.recording import measure
from activation_monitor.recording.backends import backend
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


class Looks:
    """What happens before and after what is measured, whatever runs it.

    Args:
        taps: The taps that measure.
        measured: Called after each look with what `Taps.read` returned.
        gave_up: Called with an error after which nothing can be measured.
        kernels: Measure the kernels as well, before the first look.
        always_exact: Let each look be an exact one. Else one follows where a quick look
            could not measure a layer in full: an answer that differs between workers.
    """

    def __init__(
        self,
        taps: Taps,
        measured: Callable,
        gave_up: Callable[[Exception], None],
        kernels: bool = True,
        always_exact: bool = False,
    ):
        self.taps = taps
        self.exact = always_exact
        self.gave_up = gave_up
        self._measured = measured
        self._kernels = self._judged = kernels
        self._always_exact = always_exact
        self._looked_closely = set()
        self._zeros = set()
        self._interrupted = False  # a look began, and was not read

    def begin(self) -> None:
        """Before the step."""
        if self._interrupted:
            self.taps.clear()
        self._interrupted = True
        if self._kernels:  # before the step changes them
            self._kernels = False  # once
            self.taps.measure_kernels()

    def end(self) -> None:
        """After the step: read what it measured, and hand it on."""
        try:
            found = self.taps.read()
        except Exception as error:
            self.gave_up(error)
            return
        self._interrupted = False
        if found.layers:
            self._plan_exact_look(found.layers, found.quantities[records.OUTPUT])
            found = self._with_kernels_of_zeros(found)
        self._measured(found)

    def _with_kernels_of_zeros(self, found):
        """Measure the kernels once more where a layer puts out nothing but zeros: they may
        be NaN, of which ReLU makes zeros on some devices."""
        if records.WEIGHT in found.quantities or not self._judged:
            return found
        outputs = found.quantities[records.OUTPUT]
        zeros, count = (records.field(outputs, n) for n in ("zeros", "count"))
        names = {
            found.layers[row].name for row in np.flatnonzero((zeros == count) & (count > 0))
        }
        if names <= self._zeros:
            return found
        self._zeros |= names
        self.taps.measure_kernels()
        weights = {records.WEIGHT: self.taps.kernels()}
        return found._replace(quantities=found.quantities | weights)

    def _plan_exact_look(self, layers, found):
        """One exact look for each layer that a quick look cannot measure in full."""
        names = np.array([layer.name for layer in layers])
        needed = set(names[measure.needs_exact(found)])
        if self.exact:
            self._looked_closely |= needed
        self._looked_closely &= needed
        self.exact = self._always_exact or bool(needed - self._looked_closely)


class TwoSteps:
    """Runs a model's sampled steps with taps.

    Args:
        model: A compiled model.
        looks: What happens around them.
        kind: "train" or "test": which of the model's functions, made already.
        each: Whether each sampled step is a look. If not, `looks.begin` and `looks.end`
            are called by whoever asks for the steps.
    """

    def __init__(self, model, looks: Looks, kind: str = "train", each: bool = True):
        self.model = model
        self.looks = looks
        self._kind = kind
        self._each = each
        self._plain = self._function
        self._tapped = {}

    def sample_next(self) -> None:
        """Let the model's next step be a tapped one."""
        # It may be another monitor's sampled step, which puts the plain one back.
        current = getattr(self._function, "plain", self._function)
        if current is not self._plain:
            # Somebody made a new one (unfroze layers, compiled again).
            self._plain = current
            self._tapped.clear()
        exact = self.looks.exact
        if exact not in self._tapped:
            self._tapped[exact] = self._make(exact)
        self._function = self._once(self._tapped[exact])

    @property
    def _function(self):
        return getattr(self.model, f"{self._kind}_function")

    @_function.setter
    def _function(self, function):
        setattr(self.model, f"{self._kind}_function", function)

    def _once(self, tapped):
        def sampled_step(iterator):
            self._function = self._plain
            if self._each:
                self.looks.begin()
            try:
                logs = tapped(iterator)
            except Exception as error:
                # What measuring needs on top may be too much; the plain step may fit.
                if not backend.is_out_of_memory(error):
                    raise
                self.looks.gave_up(error)
                return self._plain(iterator)
            if self._each:
                self.looks.end()
            return logs

        sampled_step.plain = self._plain
        return sampled_step

    def _make(self, exact):
        model, step = self.model, f"{self._kind}_step"
        make = getattr(model, f"make_{self._kind}_function")
        before = model.__dict__.get(step)
        model.__dict__[step] = self.looks.taps.during(
            getattr(model, step), exact, fused=bool(model.jit_compile)
        )
        try:
            self._function = None  # the user's own `make` may know no `force`
            make()
            return backend.uncounted(self._function)
        finally:
            self._function = self._plain
            if before is None:
                del model.__dict__[step]
            else:
                model.__dict__[step] = before


class TwoTraces:
    """Runs the sampled calls of a step of the user's own with taps.

    Args:
        step: A `tf.function`, or a Python function that runs eagerly.
        looks: What happens around them.
    """

    def __init__(self, step: Callable, looks: Looks):
        self.looks = looks
        self._step = step
        self._tapped = {}

    def run(self, *args, **kwargs):
        """The step, measured; returns what it returns."""
        exact = self.looks.exact
        if exact not in self._tapped:
            self._tapped[exact] = backend.second_trace(self._step)
        tapped, is_traced, fused = self._tapped[exact]
        self.looks.begin()
        with self.looks.taps.measuring(exact, fused, traced_inside=is_traced):
            outputs = tapped(*args, **kwargs)
        self.looks.end()
        return outputs

"""The plain step and the tapped step.

A model's own `train_function` is never changed: it runs at all steps except the sampled
ones. A second one is made from the same `train_step`, with taps. It takes the place of the
first one for one call: the first thing it does is to put the plain step back. The same
holds for `test_function`, and for a user's own step.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

from activation_monitor.recording.backends import backend
from activation_monitor.recording.calls import replaced
from activation_monitor.recording.keras_private import (
    each_step_wrapped,
    give_state,
    pairs_held,
    state_held,
)
from activation_monitor.recording.precision import Precision
from activation_monitor.recording.table import Measured
from activation_monitor.recording.taps import Taps


class SampledStep:
    """What happens before and after a sampled step, whatever runs it.

    Args:
        taps: The taps that measure.
        measured: Called after each sampled step with what `Taps.read` returned.
        gave_up: Called with an error after which nothing can be measured.
        kept: Called after each step that is only kept, with what `Taps.collect` returned.
        always_exact: See `Precision`. Defaults to `False`.
    """

    def __init__(
        self,
        taps: Taps,
        measured: Callable[[Measured], None],
        gave_up: Callable[[Exception], None],
        kept: Callable[[Callable[[], Measured]], None],
        always_exact: bool = False,
    ):
        self.taps = taps
        self.gave_up = gave_up
        self._measured = measured
        self._kept = kept
        self._precision = Precision(always_exact)
        self._interrupted = False  # a step began, and was not read

    @property
    def exact(self) -> bool:
        """Whether the next step takes the exact pass."""
        return self._precision.exact

    def begin(self, weights: bool = True) -> None:
        """Before the step: measure the weights.

        Args:
            weights: Whether to do so, for a step that `end` reads. Defaults to `True`.
        """
        if self._interrupted:
            self.taps.clear()
        self._interrupted = True
        if weights:
            self.taps.before_step(self.exact)

    def keep(self) -> None:
        """After the step, in place of `end`: pass on what it measured, without reading."""
        copied = self._taken(self.taps.collect)
        if copied is not None:
            self._kept(copied)

    def end(self, outputs: Any = None) -> None:
        """After the step: read what it measured, and pass it on.

        Args:
            outputs: What a user's own step returned, which may be its loss. Defaults to
                `None`.
        """
        found = self._taken(self.taps.read)
        if found is None:
            return
        if math.isnan(found.loss):
            found = found._replace(loss=_as_loss(outputs))
        if found.layers:
            self._precision.after(found)
        self._measured(found)

    def _taken(self, take):
        """What `take` returns; None if it fails, after which nothing can be measured."""
        try:
            found = take()
        except Exception as error:
            self.gave_up(error)
            return None
        self._interrupted = False
        return found


class TwoSteps:
    """Runs a model's sampled steps with taps.

    Args:
        model: A compiled model.
        sampled: What happens before and after them.
        kind: "train" or "test": which of the model's functions, which exists already.
            Defaults to `"train"`.
        each: Whether `sampled` begins and ends with each step. If not, the caller begins
            and ends it. Defaults to `True`.
    """

    def __init__(self, model, sampled: SampledStep, kind: str = "train", each: bool = True):
        self.model = model
        self.sampled = sampled
        self._kind = kind
        self._each = each
        self._plain = self._function
        self._tapped = {}

    def sample_next(self, only_keep: bool = False) -> None:
        """Let the model's next step be a tapped one.

        Args:
            only_keep: Whether what it measures is kept and not read. Defaults to `False`.
        """
        # It may be another monitor's sampled step, which puts the plain one back.
        current = getattr(self._function, "plain", self._function)
        if current is not self._plain:
            # The user made a new one (unfroze layers, compiled again).
            self._plain = current
            self._tapped.clear()
        exact = self.sampled.exact
        if exact not in self._tapped:
            self._tapped[exact] = self._make(exact)
        self._function = self._once(self._tapped[exact], only_keep)

    @property
    def _function(self):
        return getattr(self.model, f"{self._kind}_function")

    @_function.setter
    def _function(self, function):
        setattr(self.model, f"{self._kind}_function", function)

    def _once(self, tapped, only_keep):
        def sampled_step(*args):
            self._function = self._plain
            if self._each:
                with state_held(self.model, backend.state_given(args)):
                    self.sampled.begin(weights=not only_keep)
            fits = False
            try:
                result = backend.run_step(tapped, *args)
                fits = True
            except Exception as error:
                # The measuring may need too much memory; the plain step may fit.
                if not backend.is_out_of_memory(error):
                    raise
                self.sampled.gave_up(error)
            if not fits:  # not within `except`, which holds the memory of the failed step
                return self._plain(*args)
            if self._each and only_keep:
                self.sampled.keep()
            elif self._each:
                give_state(self.model, backend.state_returned(result))
                self.sampled.end()
            return result

        sampled_step.plain = self._plain
        return sampled_step

    def _make(self, exact):
        model, step = self.model, f"{self._kind}_step"
        make = getattr(model, f"make_{self._kind}_function")
        tapped = self.sampled.taps.during(
            _with_state(model, getattr(model, step)),
            exact,
            fused=bool(model.jit_compile),
            repeats=not self._each or model.steps_per_execution > 1,
        )
        in_place = functools.partial(replaced, [model], step, lambda *_: tapped)
        try:
            self._function = None  # the user's own `make` may know no `force`
            with in_place(), each_step_wrapped(model, backend.within_execution):
                make()
            function = backend.uncounted(cast(Callable, self._function))  # `make` set it
        finally:
            self._function = self._plain

        def tapped_function(*args):
            with in_place():  # a function may ask for the step only when it runs
                return function(*args)

        return tapped_function


class TwoTraces:
    """Runs the sampled calls of a user's own step with taps.

    Args:
        step: A compiled function, or a Python function that runs eagerly.
        sampled: What happens before and after them.
    """

    def __init__(self, step: Callable, sampled: SampledStep):
        self.sampled = sampled
        self._step = step
        self._tapped = {}

    def run(self, *args, **kwargs):
        """Run the step, measured; returns what it returns."""
        exact = self.sampled.exact
        if exact not in self._tapped:
            self._tapped[exact] = backend.second_trace(self._step)
        tapped, is_traced, fused = self._tapped[exact]
        taps = self.sampled.taps
        measuring = functools.partial(taps.measuring, exact, fused, traced_inside=is_traced)
        with measuring():
            before = backend.values_before(tapped, args, kwargs, taps.variables)
        with pairs_held(before):
            self.sampled.begin()
        with measuring():
            outputs, after = backend.run_own(tapped, args, kwargs)
        with pairs_held(after):
            self.sampled.end(outputs)
        return outputs


def _with_state(model, step):
    """The step, in whose code the variables of the model have the values of its state."""

    @functools.wraps(step)
    def step_with_state(*args, **kwargs):
        with state_held(model, backend.state_given(args)):
            return step(*args, **kwargs)

    return step_with_state


def _as_loss(outputs):
    """What a step returned if it is a scalar, or the one named "loss", or the only such
    one in a tuple; NaN otherwise."""
    if isinstance(outputs, tuple):
        losses = [loss for loss in map(_as_loss, outputs) if not math.isnan(loss)]
        return losses[0] if len(losses) == 1 else math.nan
    loss: Any = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    try:
        return float(loss) if loss.shape == () else math.nan
    except Exception:  # a value of another kind, or one for each replica
        return math.nan

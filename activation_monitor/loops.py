"""Custom training loops: measures sampled steps, or the code in a `with` block."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from activation_monitor.recording.backends import backend
from activation_monitor.recording.keras_private import pairs_held
from activation_monitor.recording.two_steps import TwoTraces
from activation_monitor.session import Session


class Loop:
    """The steps of a custom training loop.

    Args:
        session: The session of the models that the loop trains.
        first_step: The number of the first step. Defaults to `0`.

    Attributes:
        session: The session.
    """

    def __init__(self, session: Session, first_step: int = 0):
        self.session = session
        self._next_step = first_step
        self._sampled = session.sampled_step(self._end)
        if self._sampled is not None:
            session.training.open()

    def _end(self):
        self._sampled = None

    def watched(self, step: Callable) -> Callable:
        """Wrap a training step so that sampled steps are measured.

        Args:
            step: A compiled function or a Python function that runs one training step.

        Returns:
            A function with the same arguments and results; `step` itself if the models
            cannot be measured.
        """
        if self._sampled is None:  # a coordinator needs the compiled function itself
            return step
        traces = TwoTraces(step, self._sampled)
        session = self.session
        session.first_step = self._next_step

        def watched_step(*args, **kwargs):
            session.now, self._next_step = self._next_step, self._next_step + 1
            if self._sampled is None or not session.samples():
                return step(*args, **kwargs)
            outputs = traces.run(*args, **kwargs)
            session.training.flush()
            return outputs

        return watched_step

    @contextlib.contextmanager
    def measured(self, step: int | None) -> Iterator[None]:
        """Measure all eager calls within the block as one step.

        Args:
            step: The number of the step. None continues the numbers of the steps so far.
        """
        session, sampled = self.session, self._sampled
        if sampled is None:
            yield
            return
        session.now = self._next_step if step is None else step
        self._next_step = session.now + 1
        before = len(session.training.recording)
        begins = backend.CAPTURES_VARIABLES  # else values are found in the block
        block = backend.Block(sampled.taps.variables)
        sampled.begin(weights=begins)
        measuring = sampled.taps.measuring(sampled.exact, traced_inside=not begins)
        with measuring, block.running():
            yield
        if not begins:
            with pairs_held(block.before):
                sampled.taps.before_step(sampled.exact)
        with pairs_held(block.after):
            sampled.end()
        session.training.flush()
        if len(session.training.recording) == before:
            session.attempts.warn_once(
                "nothing was measured: no layer was called eagerly inside `measure_step`. "
                f"Use `watch` to measure a step that is a `{backend.COMPILED}`."
            )


def check_step(step: Any) -> None:
    """Check the argument `step` of `ActivationMonitor.watch`.

    Args:
        step: The argument.

    Raises:
        TypeError: If `step` is not a function.
    """
    if not callable(step) or isinstance(step, keras.Model):
        raise TypeError(
            "ActivationMonitor.watch: `step` must be a function, followed by the models: "
            f"watch(step, models). Received: step={step!r}."
        )


def as_models(
    models: keras.Model | Sequence[keras.Model], where: str
) -> tuple[keras.Model, ...]:
    """Convert one or several models to a tuple.

    Args:
        models: A model, or a list or tuple of models.
        where: The method that the user called, for the message.

    Returns:
        The models.

    Raises:
        TypeError: If `models` is empty, or an element is not a `keras.Model`.
    """
    found = tuple(models) if isinstance(models, list | tuple) else (models,)
    if not found or not all(isinstance(model, keras.Model) for model in found):
        raise TypeError(
            f"ActivationMonitor.{where}: `models` must be a keras.Model or a list of "
            f"them. Received: {models!r}."
        )
    return found

"""Custom training loops: a step that is measured now and then, or a block of code."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import keras

from activation_monitor.recording.backends import backend
from activation_monitor.recording.two_steps import TwoTraces
from activation_monitor.session import Session


class Loop:
    """The steps of a custom training loop.

    Args:
        session: Of the models that are trained there.
        first_step: The number of the first step. Defaults to `0`.

    Attributes:
        session: The same.
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
        """A function that does what `step` does, and is measured at sampled steps.

        Args:
            step: A compiled function or a Python function, which is one training step.

        Returns:
            The function; `step` itself if nothing can be measured.
        """
        if self._sampled is None:  # and a coordinator needs a compiled function
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
        """Within the block, calls that run eagerly are measured as one step.

        Args:
            step: The number of the step; None counts the blocks.
        """
        session, sampled = self.session, self._sampled
        if sampled is None:
            yield
            return
        session.now = self._next_step if step is None else step
        self._next_step = session.now + 1
        before = len(session.training.recording)
        sampled.begin()
        with sampled.taps.measuring(sampled.exact):
            yield
        sampled.end()
        session.training.flush()
        if len(session.training.recording) == before:
            session.attempts.warn_once(
                "nothing was measured: no layer was called eagerly inside `measure_step`. "
                f"Use `watch` for a step that is a `{backend.COMPILED}`."
            )


def check_step(step) -> None:
    """Refuse what cannot be a training step.

    Raises:
        TypeError: If it is not a function.
    """
    if not callable(step) or isinstance(step, keras.Model):
        raise TypeError(
            "ActivationMonitor.watch: `step` must be a function, and the models come "
            f"after it: watch(step, models). Received: step={step!r}."
        )


def as_models(
    models: keras.Model | Sequence[keras.Model], where: str
) -> tuple[keras.Model, ...]:
    """One or several models as a tuple.

    Args:
        models: A model, or a list or tuple of models.
        where: The method that the user called, for the message.

    Raises:
        TypeError: If there is none, or one is not a `keras.Model`.
    """
    found = tuple(models) if isinstance(models, list | tuple) else (models,)
    if not found or not all(isinstance(model, keras.Model) for model in found):
        raise TypeError(
            f"ActivationMonitor.{where}: `models` must be a keras.Model or a list of "
            f"them. Received: {models!r}."
        )
    return found

"""The schedule: which steps are sampled."""

import inspect
from collections.abc import Callable
from typing import cast

import numpy as np

from activation_monitor.analysis.health import Health

DENSE = (0, 1, 2, 5, 10, 20, 50)
"""Steps that are sampled whatever `sample_every` says, counted from the first step that
the monitor sees: initialization is judged there."""

SampleEvery = int | Callable[[int], bool] | Callable[[int, Health], bool]


class Schedule:
    """Says which steps are sampled.

    Args:
        sample_every: Every how many steps, in addition to the first ones (`DENSE`); or a
            function of the step, or of the step and the `Health` of the run, that
            decides alone.

    Attributes:
        by_function: Whether a function decides.

    Raises:
        ValueError: If the number is not positive.
        TypeError: If it is neither a number nor a function.
    """

    def __init__(self, sample_every: SampleEvery):
        expected = (
            "ActivationMonitor: `sample_every` must be a positive integer or a function of "
            f"the step. Received: sample_every={sample_every!r}. Use 1 to sample each."
        )
        self.by_function = callable(sample_every)
        self._every = sample_every
        if self.by_function:
            self._takes_health = _takes_two(sample_every)
            return
        if isinstance(sample_every, bool) or not isinstance(sample_every, int | np.integer):
            raise TypeError(expected)
        if sample_every < 1:
            raise ValueError(expected)

    def next(self, step: int, first: int, health: Health) -> int:
        """The next step to sample, or to ask about.

        Args:
            step: The step from which to search.
            first: The first step that the monitor saw.
            health: What is known of the run.

        Returns:
            `step`, if it is sampled; else a later step before which no step is sampled.
        """
        if callable(self._every):
            arguments = (step, health) if self._takes_health else (step,)
            asked = cast(Callable[..., bool], self._every)
            return step if asked(*arguments) else step + 1
        dense = (first + after for after in DENSE if first + after >= step)
        return min([-(-step // self._every) * self._every, *dense])

    def samples(self, step: int, together: int, first: int, health: Health) -> bool:
        """Whether any of the `together` steps from `step` on is sampled."""
        asked, end = step, step + together
        while asked < end:
            found = self.next(asked, first, health)
            if found == asked:
                return True
            asked = found
        return False


def _takes_two(function):
    """Whether a function can be called with two positional arguments."""
    try:
        inspect.signature(function).bind(0, None)
    except (TypeError, ValueError):
        return False
    required = inspect.signature(function).parameters.values()
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return sum(p.kind in kinds and p.default is p.empty for p in required) == 2

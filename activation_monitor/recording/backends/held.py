"""The state of a step, where variables hold their values: on TensorFlow and PyTorch.

A step neither takes nor returns state there, and its records reach their stores as it runs.
These functions of the protocol then have nothing to do.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any


def returning_records(step: Callable) -> Callable:
    """The step, which puts its records into stores."""
    return step


def within_execution(step: Callable) -> Callable:
    """The step, which puts its records into stores."""
    return step


def state_given(args: Sequence[Any]) -> None:
    """None: variables hold their values."""
    del args


def state_returned(result: Any) -> None:
    """None: variables hold their values."""
    del result


def values_before(step: Callable, args: tuple, kwargs: dict, variables: Any) -> list:
    """None to hold: variables have their values."""
    del step, args, kwargs, variables
    return []


def run_own(step: Callable, args: tuple, kwargs: dict) -> tuple[Any, list]:
    """Run a user's step; variables have their values after it."""
    return step(*args, **kwargs), []


class Block:
    """A block of code that runs eagerly: variables have their values.

    Args:
        variables: Not used.
    """

    before = after = ()

    def __init__(self, variables: Any):
        del variables

    def running(self) -> contextlib.AbstractContextManager[None]:
        """Nothing has to be prepared."""
        return contextlib.nullcontext()

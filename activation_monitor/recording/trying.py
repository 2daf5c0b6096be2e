"""Calls functions until one of them fails: what cannot be measured once is left out."""

from collections.abc import Callable
from typing import Any


class UntilItFails:
    """Calls functions. After the first one that fails, it warns and calls no more.

    Args:
        what: What is measured, for the message, for example `"weights cannot be measured"`.
        warn: Called with the message.

    Attributes:
        failed: Whether one has failed.
    """

    def __init__(self, what: str, warn: Callable[[str], None]):
        self.failed = False
        self._what = what
        self._warn = warn

    def __call__(self, function: Callable, *args: Any) -> Any:
        """The return value of the function; None if it failed, or one did before."""
        if self.failed:
            return None
        try:
            return function(*args)
        except Exception as error:
            self.failed = True
            self._warn(f"{self._what}: {type(error).__name__}: {error}")
            return None

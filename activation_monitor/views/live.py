"""A result that stays up to date in the cells of a notebook that show it.

A Jupyter front end replaces an output that has a display id, also while a cell runs.
IPython is no dependency: nothing is shown where it is not loaded.
"""

import sys
import time
from collections.abc import Callable, Mapping
from uuid import uuid4

APART = 1.0
"""Seconds between two updates at least."""

SHARE = 0.05
"""The most of the time of a training that updates take, those at once excepted."""

Bundle = Mapping[str, str]
"""A result by MIME type, such as "text/html". Images are in base64."""


class Live:
    """Shows a result in a notebook and keeps it up to date.

    Args:
        made: Returns what is shown, by MIME type.
    """

    def __init__(self, made: Callable[[], Bundle]):
        self._made = made
        self._id: str | None = None  # of all cells that show it
        self._due = 0.0

    def display(self) -> bool:
        """Show the result in the running cell.

        Returns:
            Whether there is a notebook that shows it.
        """
        if not _in_kernel():
            return False
        known = self._id or f"activation-monitor-{uuid4().hex}"
        self._publish(known, update=False)
        self._id = known
        return True

    def update(self, at_once: bool = False) -> None:
        """Replace what the cells show. Most calls do nothing: see `APART` and `SHARE`.

        After an error nothing more is updated.

        Args:
            at_once: Whether to do so in any case. Defaults to `False`.
        """
        if self._id is None or (time.monotonic() < self._due and not at_once):
            return
        try:
            self._publish(self._id, update=True)
        except Exception:
            self._id = None
            raise

    def _publish(self, display_id: str, update: bool) -> None:
        from IPython.display import display

        start = time.monotonic()
        display(dict(self._made()), raw=True, display_id=display_id, update=update)
        end = time.monotonic()
        self._due = end + max(APART, (end - start) / SHARE)


def _in_kernel() -> bool:
    """Whether this process is the kernel of a notebook. A terminal cannot replace text."""
    loaded = sys.modules.get("IPython")
    shell = loaded.get_ipython() if loaded else None
    return getattr(shell, "kernel", None) is not None

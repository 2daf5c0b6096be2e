"""The last steps that were measured and not read: a ring of records on the device."""

import collections
from collections.abc import Callable

from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.recording.table import Measured


class Recent:
    """Keeps what the last steps measured where it is, until it is asked for.

    Args:
        length: The number of steps. With 0, nothing is kept.

    Attributes:
        length: As given.
    """

    def __init__(self, length: int):
        self.length = length
        self._ring: collections.deque[tuple[int, int, Callable[[], Measured]]]
        self._ring = collections.deque(maxlen=length)

    def keep(self, step: int, together: int, copied: Callable[[], Measured]) -> None:
        """Keep one more; the oldest is forgotten if there are too many.

        Args:
            step: The number of the step, the first one if an execution runs several.
            together: The number of steps in the execution.
            copied: Copies to the host what was measured, see `Taps.collect`.
        """
        self._ring.append((step, together, copied))

    def forget(self) -> None:
        """Forget all."""
        self._ring.clear()

    def take(self) -> list[Snapshot]:
        """Copy all to the host, oldest first, and forget them."""
        kept = [*self._ring]
        self._ring.clear()
        read = [(step, together, copied()) for step, together, copied in kept]
        return [
            Snapshot(step, **found._asdict(), steps=together)
            for step, together, found in read
            if found.layers
        ]

"""Passes the numbers of snapshots to trackers, and to other callbacks of Keras.

A failure never ends training.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from activation_monitor.analysis import scalars
from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.run import Attempts
from activation_monitor.views.trackers import Log


class Tracking:
    """The trackers of a run of training and of its evaluations.

    Args:
        attempts: Calls the functions that may fail.
        trackers: The trackers, each with a name for messages.
        layers: Whether they get the scalars of each layer.
    """

    def __init__(
        self, attempts: Attempts, trackers: tuple[tuple[str, Log], ...], layers: bool
    ):
        self._attempts = attempts
        self._trackers = trackers
        self._layers = layers
        self.begin()

    def begin(self) -> None:
        """Use all trackers, also those that have failed."""
        self._active = [*self._trackers]

    def log(self, snapshot: Snapshot, findings: Sequence[Finding] | None) -> None:
        """Pass the numbers of a snapshot on. A tracker that fails gets no more of them.

        Args:
            snapshot: The snapshot of a sampled step, or of an evaluation.
            findings: What was found up to this step; None if that is not known.
        """
        if not self._active:
            return
        numbers = self._attempts.attempt(
            "trackers get nothing of a step",
            *(scalars.named, snapshot, findings, self._layers),
        )
        if not numbers:
            return
        for tracker in [*self._active]:
            name, log = tracker

            def track(log=log):
                log(dict(numbers), snapshot.step)
                return True

            if not self._attempts.attempt(f"logging with {name} has ended", track):
                self._active.remove(tracker)


def add_numbers(
    logs: dict[str, Any] | None,
    names: Iterable[str],
    numbers: Callable[[], Mapping[str, float]],
    attempts: Attempts,
) -> None:
    """Add numbers to the `logs` that Keras passes to the callbacks that follow.

    Args:
        logs: The `logs`, in which a number that is there stays as it is; None if there are
            none.
        names: The names of the numbers.
        numbers: Returns the numbers by name. NaN stands for those that are missing.
        attempts: Calls the function, which may fail.
    """
    names = [*names]
    if logs is None or not names:
        return
    found = attempts.attempt("`logs` have no numbers of the monitor", numbers) or {}
    for name in names:
        if name in logs:
            attempts.warn_once(
                f"`logs` have {name!r} already, for example of a metric of that name. It "
                "stays as it is. Give the metric another name."
            )
        else:
            logs[name] = found.get(name, math.nan)

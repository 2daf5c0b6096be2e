"""The last snapshots of a run, as arrays over snapshots and layers, for rules over time."""

import functools
import math
from collections.abc import Mapping

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.shown import count, one_line
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot
from activation_monitor.analysis.thresholds import limit


class Window:
    """The last snapshots of a run, the first one, and what was found and is not over.

    Only snapshots with the layers of the newest one are kept: others cannot be compared.

    Args:
        snapshots: As `remembered` returns them, at least one. The last is the newest.
        first: The first snapshot of training; None if it is not known.
        open: By code, the findings that have not recovered.
        previous: The snapshot before the newest one, also if it is too close to be
            remembered. Defaults to `None`: there is none.

    Attributes:
        snapshots: Those with the layers of the newest one, oldest first.
        first: The first snapshot of training; None if it has other layers.
        newest: The last snapshot.
        open: As given.
        previous: As given; None if it has other layers.
    """

    def __init__(
        self,
        snapshots: tuple[Snapshot, ...],
        first: Snapshot | None,
        open: Mapping[str, Finding],
        previous: Snapshot | None = None,
    ):
        self.newest = snapshots[-1]
        self.snapshots = tuple(one for one in snapshots if self._comparable(one))
        self.first = first if first is not None and self._comparable(first) else None
        self.open = open
        same = previous is not None and self._comparable(previous)
        self.previous = previous if same else None
        self._statistics: dict[tuple[str, str], np.ndarray] = {}

    def _comparable(self, other: Snapshot) -> bool:
        return _same_layers(other.layers, self.newest.layers)

    @functools.cached_property
    def steps(self) -> np.ndarray:
        """The step of each snapshot, of shape `(snapshots,)`."""
        return np.array([one.step for one in self.snapshots])

    @functools.cached_property
    def losses(self) -> np.ndarray:
        """The loss of each snapshot, of shape `(snapshots,)`, NaN if not measured."""
        return np.array([one.loss for one in self.snapshots])

    def statistic(self, name: str, of: str = records.OUTPUT) -> np.ndarray:
        """A statistic of every layer in every snapshot.

        Args:
            name: A name from `records.STATISTICS`.
            of: A quantity, a key of `records.QUANTITIES`. Defaults to `"output"`.

        Returns:
            Array of shape `(snapshots, layers)`, NaN where nothing finite was measured.
        """
        if (name, of) not in self._statistics:
            stack = np.stack([one.records(of) for one in self.snapshots])
            self._statistics[name, of] = records.STATISTICS[name](stack)
        return self._statistics[name, of]

    @functools.cached_property
    def lasting(self) -> tuple[Snapshot, ...]:
        """The snapshots in which a condition must hold to be found: the last `patience`.

        Empty if there are fewer, if they span too few steps, or if they belong to the
        first steps of training, which move fast in every network.
        """
        last = self.snapshots[-int(limit("patience")) :]
        if self.first is None or len(last) < limit("patience"):
            return ()
        spans = last[-1].last_step - last[0].step >= limit("patience-steps")
        settled = last[0].step - self.first.step >= limit("settled-steps")
        return last if spans and settled else ()

    @functools.cached_property
    def learns(self) -> bool:
        """Whether the loss is far below that of the first snapshot, or is falling.

        False if losses were not measured or are negative: a ratio says nothing then.
        """
        losses = self.losses[np.isfinite(self.losses)]
        last = losses[-int(limit("patience")) :]
        if self.first is None or not len(last) or not (losses >= 0).all():
            return False
        now = float(np.median(last))
        if now < limit("learns") * self.first.loss:
            return True
        before = float(np.median(losses[: -len(last)])) if len(losses) > len(last) else now
        return now < limit("learns-slowly") * min(before, self.first.loss)

    @one_line
    def __repr__(self) -> str:
        steps = f"steps {self.steps[0]} to {self.steps[-1]}"
        return f"of {count(len(self.snapshots), 'snapshot')}, {steps}"


def remembered(window: tuple[Snapshot, ...], snapshot: Snapshot) -> tuple[Snapshot, ...]:
    """The last snapshots of a run, after one more.

    All but the newest are at least `window-spacing` steps apart: the dense first steps,
    and a run that samples each step, must not fill the window with a moment of training.

    Args:
        window: The snapshots remembered so far, oldest first.
        snapshot: The next one. If its step is not after theirs, training has started
            again (a new optimizer counts from 0), and they are forgotten.
    """
    before = [*window]
    if before and snapshot.step <= before[-1].step:
        return (snapshot,)
    if len(before) > 1 and before[-1].step - before[-2].step < limit("window-spacing"):
        before.pop()
    return (*before, snapshot)[-int(limit("window")) :]


def log10(values: np.ndarray) -> np.ndarray:
    """The decadic logarithm; NaN where a value is not positive or not finite."""
    good = np.isfinite(values) & (values > 0)
    return np.log10(values, out=np.full(np.shape(values), math.nan), where=good)


def _same_layers(one: tuple[LayerInfo, ...], other: tuple[LayerInfo, ...]) -> bool:
    if one is other:  # the snapshots of a run share their layers
        return True
    return [layer.name for layer in one] == [layer.name for layer in other]

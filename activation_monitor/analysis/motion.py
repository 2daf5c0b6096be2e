"""Whether kernels move from one sampled step to the next, folded over a run.

A step says what it does to a kernel. What happens between two steps, only the kernel says:
the records of two snapshots are equal to the last bit if it is the same.
"""

from dataclasses import dataclass, field

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.analysis.shown import count, one_line
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit

_COMPARED = ("count", "mean", "second_moment", "minimum", "maximum")


def _none() -> np.ndarray:
    return np.zeros(0)


@dataclass(frozen=True, eq=False)
class Motion:
    """What is known of the kernels of a run. Arrays have one element for each layer.

    Attributes:
        names: The layers of the last snapshot.
        record: Fields of the records of their kernels before the step, `(fields, layers)`.
        updated: Whether the step changed them so much that a record shows it.
        untouched: Whether the step did not change them at all.
        put_back: At how many snapshots in a row a kernel was as at the one before, although
            that step had changed it.
        moved_by_others: Whether it changed after the step of the snapshot before, which had
            not changed it.
        had_rate: Whether the learning rate was positive at some snapshot.
        without_rate: At how many snapshots in a row it was zero after that.
        without_rate_since: The first step of these.
    """

    names: tuple[str, ...] = ()
    record: np.ndarray = field(default_factory=_none)
    updated: np.ndarray = field(default_factory=_none)
    untouched: np.ndarray = field(default_factory=_none)
    put_back: np.ndarray = field(default_factory=_none)
    moved_by_others: np.ndarray = field(default_factory=_none)
    had_rate: bool = False
    without_rate: int = 0
    without_rate_since: int = 0

    @one_line
    def __repr__(self) -> str:
        put_back = count(int(np.count_nonzero(self.put_back)), "kernel")
        return f"of {count(len(self.names), 'layer')}, {put_back} put back"


def after(motion: Motion, snapshot: Snapshot) -> Motion:
    """What is known after the next snapshot.

    Args:
        motion: What was known before it.
        snapshot: The snapshot. One that does not say how weights are updated changes
            nothing.
    """
    updating = snapshot.updating
    if updating is None:
        return motion
    record = np.stack([snapshot.field(name, of=records.WEIGHT) for name in _COMPARED])
    low, high = (
        snapshot.field(name, of=records.WEIGHT_UPDATE) for name in ("minimum", "maximum")
    )
    # The mean of a record has the precision of float32: a smaller step leaves no trace.
    size = np.maximum(*np.abs(record[[_COMPARED.index("minimum"), -1]]))
    traceless = limit("above-rounding") * 2.0**-24 * size
    updated = np.abs(snapshot.field("mean", of=records.WEIGHT_UPDATE)) > traceless
    untouched = (low == 0) & (high == 0)
    names = snapshot.names
    put_back = np.zeros(len(names))
    by_others = np.zeros(len(names), bool)
    if motion.names == names:
        # A record of other elements, as that of the first step may be, says nothing.
        same_elements = (record[0] > 0) & (record[0] == motion.record[0])
        same_elements &= low <= high
        stayed = same_elements & (record == motion.record).all(axis=0)
        put_back = np.where(stayed & motion.updated, motion.put_back + 1, 0.0)
        by_others = same_elements & ~stayed & motion.untouched
    rates = [one.learning_rate for one in updating.optimizers]
    has_rate = any(rate > 0 for rate in rates)
    had_rate = motion.had_rate or has_rate
    times, since = 0, 0
    # A rate that is zero from the beginning is meant, or that of a warm-up.
    if rates and had_rate and not has_rate:
        times = motion.without_rate + 1
        since = motion.without_rate_since if motion.without_rate else snapshot.step
    return Motion(
        *(names, record, updated, untouched, put_back, by_others),
        *(had_rate, times, since),
    )

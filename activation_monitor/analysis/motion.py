"""Whether kernels move from one sampled step to the next, folded over a run.

A step says what it does to a kernel. What happens between two steps, only the kernel says:
the records of two snapshots are equal to the last bit if it is the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from activation_monitor.analysis import records
from activation_monitor.analysis.snapshot import Snapshot

_COMPARED = ("count", "mean", "second_moment", "minimum", "maximum")


@dataclass(frozen=True)
class Kernel:
    """A kernel at the last snapshot.

    Attributes:
        record: Fields of its record, before the step.
        updated: Whether the step changed it.
        put_back: At how many snapshots in a row it was as at the one before, although that
            step had changed it.
        moved_by_others: Whether it changed after the step of the snapshot before, which had
            not changed it.
    """

    record: tuple[float, ...]
    updated: bool
    put_back: int = 0
    moved_by_others: bool = False


@dataclass(frozen=True)
class Motion:
    """What is known of the kernels of a run.

    Attributes:
        kernels: By name of the layer.
        without_rate: At how many snapshots in a row the learning rate was zero.
        without_rate_since: The first step of these.
    """

    kernels: Mapping[str, Kernel] = field(default_factory=dict[str, Kernel])
    without_rate: int = 0
    without_rate_since: int = 0


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
    kernels = dict[str, Kernel]()
    record = [snapshot.field(name, of=records.WEIGHT) for name in _COMPARED]
    low, high = (
        snapshot.field(name, of=records.WEIGHT_UPDATE) for name in ("minimum", "maximum")
    )
    for row, layer in enumerate(snapshot.layers):
        if layer.kind != "weight" or not record[0][row] > 0 or low[row] > high[row]:
            continue
        now = tuple(float(values[row]) for values in record)
        before = motion.kernels.get(layer.name)
        updated = bool(low[row] < 0 or high[row] > 0)
        # A record of other elements, as that of the first step may be, says nothing.
        if before is None or before.record[0] != now[0]:
            kernels[layer.name] = Kernel(now, updated)
            continue
        stayed = before.record == now
        back = before.put_back + 1 if stayed and before.updated else 0
        kernels[layer.name] = Kernel(now, updated, back, not (stayed or before.updated))
    rates = [one.learning_rate for one in updating.optimizers]
    started = all(one.taken > 0 for one in updating.optimizers)  # no step of a warm-up
    if not rates or not started or any(rate != 0 for rate in rates):
        return Motion(kernels)
    since = motion.without_rate_since if motion.without_rate else snapshot.step
    return Motion(kernels, motion.without_rate + 1, since)

"""Rules on whether kernels move from one sampled step to the next."""

import math
from collections.abc import Iterator

import numpy as np

from activation_monitor.analysis.causes import Misapplied, NotApplied, Unmoved, WrongUpdate
from activation_monitor.analysis.findings import Found, found
from activation_monitor.analysis.kernels import kernels
from activation_monitor.analysis.motion import Motion
from activation_monitor.analysis.shown import listed
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit


def moved(snapshot: Snapshot, motion: Motion) -> Iterator[Found]:
    """Weights that do not move although each step moves them, or move although none does.

    Args:
        snapshot: The snapshot.
        motion: What is known of the kernels after it.
    """
    if snapshot.updating is not None:
        yield from _put_back(snapshot, motion)
        yield from _frozen(snapshot, motion)


def _put_back(snapshot: Snapshot, motion: Motion) -> Iterator[Found]:
    """Weights that are the same at several sampled steps although each step moves them, or
    that do not move because the learning rate is zero."""
    back = motion.put_back >= limit("put-back")
    without_rate = motion.without_rate >= limit("zero-rate")
    known = kernels(snapshot) if back.any() or without_rate else None
    if known is None:
        return
    rows = [row for row in known.rows if back[row]]
    names = [snapshot.layers[row].name for row in rows or known.rows]
    if rows:
        times = int(np.max(motion.put_back[rows])) + 1
        yield found(
            "weights-not-updated",
            snapshot,
            names,
            {"layers": len(rows), "snapshots": times},
            f"Each sampled step changes the weights of {listed(names)}, and at the next "
            f"one they are as before, to the last bit: {times} times in a row. Something "
            "puts them back between the steps.",
            NotApplied(tuple(rows), Unmoved.PUT_BACK, ""),
            critical=len(rows) == len(known.rows),
        )
    elif without_rate and names:
        yield found(
            "weights-not-updated",
            snapshot,
            names,
            {"layers": len(names), "snapshots": motion.without_rate},
            f"The learning rate has been 0 since step {motion.without_rate_since}, at "
            f"{motion.without_rate} sampled steps in a row. The weights of {listed(names)} "
            "are not updated.",
            NotApplied(tuple(known.rows), Unmoved.NO_RATE, ""),
        )


def _frozen(snapshot: Snapshot, motion: Motion) -> Iterator[Found]:
    """Weights that were frozen after `compile`, and are updated nevertheless."""
    updating = snapshot.updating
    if updating is None or not motion.moved_by_others.any():
        return
    stale = (updating.of("stale") == 1) & motion.moved_by_others
    rows = [int(row) for row in np.flatnonzero(stale)]
    if rows:
        names = [snapshot.layers[row].name for row in rows]
        yield found(
            "wrong-update",
            snapshot,
            names,
            {"layers": len(rows), "times": math.nan},
            f"The weights of {listed(names)} are frozen, and change between the sampled "
            "steps: the compiled step was made when they were trainable, and still "
            "updates them.",
            WrongUpdate(tuple(rows), Misapplied.FROZEN, math.nan),
        )

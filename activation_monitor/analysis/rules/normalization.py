"""Rules on normalization layers that behave differently in evaluation."""

from collections.abc import Iterator

import numpy as np

from activation_monitor.analysis.causes import FixedStatistics, MovingStatistics
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found, found
from activation_monitor.analysis.shown import listed
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit


def moving(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """Batch normalizations whose moving statistics stay away from those of the batches."""
    del profile  # it does not matter where they are
    away, misfits = _away(snapshot), _misfits(snapshot)
    if away:
        yield _of_training(snapshot, away)
    elif misfits:
        yield _of_fixed(snapshot, misfits)


def may_be_away(snapshot: Snapshot) -> bool:
    """Whether `moving` finds anything."""
    return snapshot.moving is not None and bool(_away(snapshot) or _misfits(snapshot))


def _full(snapshot: Snapshot) -> np.ndarray:
    enough = snapshot.field("samples") >= limit("moving-batch")
    return enough & (snapshot.of_moving("steps") >= limit("moving-window"))


def _away(snapshot: Snapshot) -> list[int]:
    """Rows of the layers that normalize with their batches."""
    momentum = snapshot.of_moving("momentum")
    with np.errstate(divide="ignore"):
        settled = np.round(limit("moving-settled") / (1.0 - momentum))
    settled = np.minimum(settled, limit("moving-settled-by"))
    shift, scale = (snapshot.of_moving(name) for name in ("shift", "scale"))
    far = (shift > limit("moving-shift")) | (np.abs(scale) > limit("moving-scale"))
    return np.flatnonzero(far & _full(snapshot) & (snapshot.last_step >= settled)).tolist()


def _misfits(snapshot: Snapshot) -> list[int]:
    """Rows of the layers that normalize with their moving statistics."""
    far = np.abs(snapshot.of_moving("misfit")) > limit("moving-misfit")
    return np.flatnonzero(far & _full(snapshot)).tolist()


def _of_training(snapshot: Snapshot, rows: list[int]) -> Found:
    shift, scale = (snapshot.of_moving(name)[rows] for name in ("shift", "scale"))
    momentum = snapshot.of_moving("momentum")[rows]
    worst = int(np.argmax(np.maximum(shift, np.abs(scale) / limit("moving-scale"))))
    names = [snapshot.layers[row].name for row in rows]
    return found(
        "moving-statistics",
        snapshot,
        names,
        {
            "shift": shift[worst],
            "scale": 10 ** scale[worst],
            "momentum": momentum[worst],
            "layers": len(rows),
        },
        f"{listed(names)} will behave differently in evaluation: the moving statistics "
        "stay away from those of the batches. With them, the channels of "
        f"{names[worst]} would have {10 ** scale[worst]:.2g} times the std that they have "
        f"in training, and a mean that is off by {shift[worst]:.2g} standard deviations "
        "(the median over channels, at least so much at each of the last sampled steps). "
        "Training uses the statistics of each batch, evaluation the moving ones (Ioffe & "
        "Szegedy 2015).",
        MovingStatistics(tuple(rows), float(momentum.max())),
    )


def _of_fixed(snapshot: Snapshot, rows: list[int]) -> Found:
    misfit = snapshot.of_moving("misfit")[rows]
    worst = int(np.argmax(np.abs(misfit)))
    names = [snapshot.layers[row].name for row in rows]
    rms = snapshot.statistic("rms")[rows[worst]]
    return found(
        "moving-statistics",
        snapshot,
        names,
        {"misfit": 10 ** misfit[worst], "rms": rms, "layers": len(rows)},
        f"The moving statistics of {listed(names)}, which training uses as they are, do "
        f"not fit the data: the rms of the output of {names[worst]} is {rms:.3g}, "
        f"{10 ** misfit[worst]:.2g} times what it is for inputs with these statistics.",
        FixedStatistics(tuple(rows)),
    )

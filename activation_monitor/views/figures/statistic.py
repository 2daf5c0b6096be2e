"""A statistic as it is drawn: on which scale, and what of it has to be marked instead."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from activation_monitor.analysis.snapshot import Snapshot

_SIZES = ("rms", "std", "within_std", "between_std")
_SIGNED = ("mean", "minimum", "maximum")
_FRACTIONS = ("zero_fraction", "saturated_fraction", "nonfinite_fraction")

STATISTICS_SHOWN = (*_SIZES, *_SIGNED, *_FRACTIONS, "dead_units")
"""The statistics that figures can show, names from `moments.STATISTICS`."""


class Shown(NamedTuple):
    """A statistic of every layer of a snapshot, each array of shape `(layers,)`.

    Attributes:
        y: Where it is drawn: log10 of the absolute value if the statistic is a size, else
            the value. NaN where there is nothing to draw.
        value: The statistic itself; NaN where nothing finite was measured.
        zero: Whether it is zero, and the scale has no zero.
        nonfinite: Whether some of the tensor's elements are NaN or infinite.
    """

    y: np.ndarray
    value: np.ndarray
    zero: np.ndarray
    nonfinite: np.ndarray


def is_log(statistic: str) -> bool:
    """Whether a statistic is drawn as log10 of its absolute value."""
    return statistic in (*_SIZES, *_SIGNED)


def is_fraction(statistic: str) -> bool:
    """Whether it is a share, between 0 and 1."""
    return statistic in _FRACTIONS


def shown(snapshot: Snapshot, statistic: str) -> Shown:
    """A statistic of a snapshot, as it is drawn."""
    value = snapshot.statistic(statistic)
    nonfinite = snapshot.field("nonfinite") > 0
    if not is_log(statistic):
        return Shown(value, value, np.zeros(len(value), bool), nonfinite)
    zero = value == 0
    return Shown(log10(value), value, zero, nonfinite)


def log10(value: np.ndarray) -> np.ndarray:
    """Logarithm of the absolute value; NaN for zero."""
    size = np.abs(value)
    return np.log10(size, out=np.full(size.shape, np.nan), where=size > 0)


def label(statistic: str) -> str:
    """The axis' title."""
    words = statistic.replace("_", " ")
    return f"|{words}|" if statistic in _SIGNED else words


def check(statistic: str, where: str) -> None:
    """Refuse a statistic that cannot be shown.

    Raises:
        ValueError: If it is none of `STATISTICS_SHOWN`.
    """
    if statistic not in STATISTICS_SHOWN:
        raise ValueError(
            f"{where}: `statistic` must be one of {', '.join(STATISTICS_SHOWN)}. "
            f"Received: statistic={statistic!r}."
        )


def window(values: Sequence[float], least: float) -> tuple[float, float]:
    """The part of an axis on which all these values lie.

    Args:
        values: What is to be seen; what is not finite is passed over.
        least: How long it is at least: else noise looks like a trend.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if len(values) else (-least / 2, least / 2)
    spare = max(least - (high - low), 0.0) / 2
    return float(low - spare), float(high + spare)


def evenly(count: int, most: int) -> np.ndarray:
    """Indices of at most so many of `count` things, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))

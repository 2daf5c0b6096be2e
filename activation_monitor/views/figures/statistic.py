"""A statistic as it is drawn: on which scale, and what of it has to be marked instead."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from activation_monitor.analysis.snapshot import Snapshot

_SIZES = ("rms", "std", "within_std", "between_std")
_SIGNED = ("mean", "minimum", "maximum")
_FRACTIONS = ("zero_fraction", "saturated_fraction", "nonfinite_fraction")

STATISTICS_SHOWN = (*_SIZES, *_SIGNED, *_FRACTIONS, "dead_units")
"""The statistics that figures can show, names from `records.STATISTICS`."""

UNMEASURED = "not measured"
"""What a tooltip says of a layer without a record."""

_LARGEST = 308.25
"""Decades from 1 within which float64, and with it a figure, has numbers."""


class Shown(NamedTuple):
    """A statistic of every layer of a snapshot, each array of shape `(layers,)`.

    Attributes:
        y: Where it stands on its scale: log10 of the absolute value if the statistic is a
            size, else the value. NaN where there is nothing to draw.
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


def on_axis(y: np.ndarray | float, log: bool) -> np.ndarray | float:
    """The number in a figure for a place on a scale: an axis takes the logarithm again."""
    return 10.0 ** np.clip(y, -_LARGEST, _LARGEST) if log else y


def number(value: float, statistic: str) -> str:
    """A value of a statistic as text; shares in percent."""
    if math.isnan(value):
        return "NaN"
    return f"{100 * value:.4g}%" if is_fraction(statistic) else f"{value:.4g}"


def nonfinite_text(count: float, nonfinite: float) -> str:
    """How many of a tensor's elements are NaN or infinite, in words."""
    return f"{nonfinite:.0f} of {count:.0f} elements are NaN or infinite"


def texts(snapshot: Snapshot, statistic: str) -> list[str]:
    """What a tooltip says of each layer: the value; of a tensor with NaN or infinite
    elements how many there are, and the value without them."""
    counts = snapshot.field("count").tolist()
    nonfinite = snapshot.field("nonfinite").tolist()
    values = snapshot.statistic(statistic).tolist()
    return [_text(*one, statistic) for one in zip(counts, nonfinite, values, strict=True)]


def _text(count, nonfinite, value, statistic):
    if not count:
        return UNMEASURED
    known = number(value, statistic)
    if not nonfinite:
        return known
    how_many = nonfinite_text(count, nonfinite)
    if not is_log(statistic):  # a share of all elements, or a count, is one all the same
        return f"{known}; {how_many}"
    rest = "" if nonfinite == count else f"; without them {known}"
    return f"NaN; {how_many}{rest}"


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

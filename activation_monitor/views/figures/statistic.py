"""A statistic as it is drawn: its scale, and the values that need a mark instead."""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.analysis.records import OUTPUT
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.update_ratio import UPDATE_RATIO, update_ratio
from activation_monitor.views.figures.quantity import of_the

_SIZES = ("rms", "std", "within_std", "between_std")
_SIGNED = ("mean", "minimum", "maximum")
_FRACTIONS = ("zero_fraction", "saturated_fraction", "nonfinite_fraction", "dead_units")

STATISTICS_SHOWN = (*_SIZES, *_SIGNED, *_FRACTIONS)
"""Names of the statistics that figures can show, keys of `records.STATISTICS`. Dead units
are shown as a share of the units of their layer."""

_OF_OTHERS = ("rms", "std", "maximum", "zero_fraction")

_READINGS = {
    OUTPUT: STATISTICS_SHOWN,
    records.OUTPUT_GRADIENT: _OF_OTHERS,
    records.WEIGHT: _OF_OTHERS,
    records.WEIGHT_GRADIENT: _OF_OTHERS,
    records.WEIGHT_UPDATE: (UPDATE_RATIO, *_OF_OTHERS),
}
"""By quantity the statistics from which a reader can choose."""

UNMEASURED = "not measured"
"""The tooltip of a layer without a record."""

_LARGEST = 308.25
"""Maximum distance from 1 in decades that float64, and so a figure, can represent."""


class Shown(NamedTuple):
    """A statistic of each layer of a snapshot. Arrays have shape `(layers,)`.

    Attributes:
        y: The place on the scale: log10 of the absolute value if the statistic is a size,
            else the value. NaN if there is nothing to draw.
        value: The statistic; NaN if no finite element was measured.
        zero: Whether the value is zero and the scale is logarithmic.
        nonfinite: Whether some elements of the tensor are NaN or infinite.
    """

    y: np.ndarray
    value: np.ndarray
    zero: np.ndarray
    nonfinite: np.ndarray


def is_log(statistic: str) -> bool:
    """Whether a statistic is drawn as log10 of its absolute value."""
    return statistic in (*_SIZES, *_SIGNED, UPDATE_RATIO)


def is_fraction(statistic: str) -> bool:
    """Whether a statistic is a fraction between 0 and 1."""
    return statistic in _FRACTIONS


def shown(snapshot: Snapshot, statistic: str, of: str = OUTPUT) -> Shown:
    """A statistic of a snapshot as it is drawn.

    Args:
        snapshot: The snapshot.
        statistic: One of `STATISTICS_SHOWN`.
        of: The quantity. Defaults to `"output"`.
    """
    value = values(snapshot, statistic, of)
    nonfinite = snapshot.field("nonfinite", of) > 0
    if not is_log(statistic):
        return Shown(value, value, np.zeros(len(value), bool), nonfinite)
    zero = value == 0
    return Shown(log10(value), value, zero, nonfinite)


def values(snapshot: Snapshot, statistic: str, of: str = OUTPUT) -> np.ndarray:
    """A statistic of each layer, an array `(layers,)`; NaN where it is not known.

    Args:
        snapshot: The snapshot.
        statistic: One of `STATISTICS_SHOWN`; of weight updates also `UPDATE_RATIO`.
        of: The quantity. Defaults to `"output"`.
    """
    if statistic == UPDATE_RATIO:
        return update_ratio(snapshot)
    found = snapshot.statistic(statistic, of)
    if statistic != "dead_units":
        return found
    width = np.array([layer.width for layer in snapshot.layers], np.float64)
    return np.divide(found, width, out=np.full_like(found, np.nan), where=width > 0)


def readings(measured: Collection[str]) -> list[tuple[str, str]]:
    """The pairs of a quantity and a statistic from which a reader can choose.

    Args:
        measured: The quantities that were measured.
    """
    return [(of, name) for of in _READINGS if of in measured for name in _READINGS[of]]


def log10(value: np.ndarray) -> np.ndarray:
    """Logarithm of the absolute value; NaN for zero."""
    size = np.abs(value)
    return np.log10(size, out=np.full(size.shape, np.nan), where=size > 0)


def on_axis(y: np.ndarray | float, log: bool) -> np.ndarray | float:
    """The value to pass to plotly for a place on a scale: its axis takes the logarithm."""
    return 10.0 ** np.clip(y, -_LARGEST, _LARGEST) if log else y


def number(value: float, statistic: str) -> str:
    """A value of a statistic as text; fractions in percent."""
    if math.isnan(value):
        return "NaN"
    return f"{100 * value:.4g}%" if is_fraction(statistic) else f"{value:.4g}"


def nonfinite_text(count: float, nonfinite: float) -> str:
    """The number of NaN or infinite elements of a tensor in words."""
    return f"{nonfinite:.0f} of {count:.0f} elements are NaN or infinite"


def texts(snapshot: Snapshot, statistic: str, of: str = OUTPUT) -> list[str]:
    """The tooltip of each layer: its value. For a tensor with NaN or infinite elements,
    also their number, and the value without them."""
    counts = snapshot.field("count", of).tolist()
    nonfinite = snapshot.field("nonfinite", of).tolist()
    found = values(snapshot, statistic, of).tolist()
    return [_text(*one, statistic) for one in zip(counts, nonfinite, found, strict=True)]


def _text(count, nonfinite, value, statistic):
    if not count:
        return UNMEASURED
    known = number(value, statistic)
    if not nonfinite:
        return known
    how_many = nonfinite_text(count, nonfinite)
    if not is_log(statistic):  # fractions are defined in any case
        return f"{known}; {how_many}"
    rest = "" if nonfinite == count else f"; without them {known}"
    return f"NaN; {how_many}{rest}"


def label(statistic: str, of: str = OUTPUT) -> str:
    """The title of the axis, for a statistic of a quantity."""
    named = words(statistic, of)
    size = statistic.replace("_", " ")
    return named.replace(size, f"|{size}|", 1) if statistic in _SIGNED else named


def words(statistic: str, of: str = OUTPUT) -> str:
    """A statistic of a quantity in words.

    >>> words("zero_fraction"), words("rms", "output_gradient")
    ('zero fraction', 'rms of the gradient')
    """
    if statistic == UPDATE_RATIO:
        return "rms of update / rms of weight"
    return statistic.replace("_", " ") + of_the(of)


def check(statistic: str, where: str, of: str = OUTPUT) -> None:
    """Raise an error for a statistic that cannot be shown.

    Args:
        statistic: Name of the statistic.
        where: The function that the user called, for messages.
        of: The quantity. Defaults to `"output"`.

    Raises:
        ValueError: If it is not one of `STATISTICS_SHOWN`, and not `UPDATE_RATIO` of weight
            updates.
    """
    if statistic == UPDATE_RATIO and of == records.WEIGHT_UPDATE:
        return
    if statistic not in STATISTICS_SHOWN:
        raise ValueError(
            f"{where}: `statistic` must be one of {', '.join(STATISTICS_SHOWN)}. "
            f"Received: statistic={statistic!r}."
        )


def window(values: Sequence[float] | np.ndarray, least: float) -> tuple[float, float]:
    """The part of an axis that shows all these values.

    Args:
        values: The values to show. Values that are not finite are ignored.
        least: Minimum length. On a shorter axis, noise would look like a trend.
    """
    shown = np.asarray(values, float)
    shown = shown[np.isfinite(shown)]
    low, high = (shown.min(), shown.max()) if len(shown) else (-least / 2, least / 2)
    spare = max(least - (high - low), 0.0) / 2
    return float(low - spare), float(high + spare)


def evenly(count: int, most: int) -> np.ndarray:
    """At most `most` evenly spaced indices below `count`, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))

"""A scale on which orders of magnitude, signs and 0 show."""

import math
from typing import Any, NamedTuple

import numpy as np

from activation_monitor.views.figures.style import is_plain, log_axis, size_text

_DECADES = 24
"""Maximum number of decades between the linear part and the largest value."""

_SMALLEST = -307
"""Minimum exponent of the linear part: float64 has no smaller powers of 10 in full."""

_LOWEST = 0.1
"""The fraction of typical sizes that may lie in the linear part."""

_TICKS = 4
"""Maximum number of powers of 10 with ticks on either side of 0."""


class Log(NamedTuple):
    """A logarithmic scale, for values that are all positive."""

    def place(self, values: np.ndarray) -> np.ndarray:
        """The places of values: their log10; NaN for values that are not positive."""
        values = np.asarray(values, float)
        return np.log10(values, out=np.full(values.shape, np.nan), where=values > 0)

    def on_axis(self, places: np.ndarray) -> np.ndarray:
        """What plotly draws at these places: its axis takes the logarithm."""
        return 10.0 ** np.asarray(places, float)

    def axis(self, low: float, high: float) -> dict[str, Any]:
        """The axis between two places."""
        return log_axis(low, high)


class Signed(NamedTuple):
    """A symmetric logarithmic scale.

    The place of a value is `value / linear` up to the size `linear`, and one more for each
    power of 10 beyond it, with the sign of the value.

    Attributes:
        linear: A power of 10, the size up to which the scale is linear.
    """

    linear: float

    def place(self, values: np.ndarray | float) -> np.ndarray:
        """The places of values."""
        values = np.asarray(values, float)
        size = np.abs(values)
        far = np.log10(size, out=np.full(size.shape, -np.inf), where=size != 0)
        far = far - math.log10(self.linear)
        return np.sign(values) * np.where(far > 0, 1 + far, 10.0 ** np.minimum(far, 0))

    def value(self, places: np.ndarray | float) -> np.ndarray:
        """The values at places, the inverse of `place`."""
        places = np.asarray(places, float)
        size = np.abs(places)
        sizes = np.where(size > 1, 10.0 ** np.maximum(size - 1, 0), size)
        return np.sign(places) * self.linear * sizes

    def on_axis(self, places: np.ndarray) -> np.ndarray:
        """What plotly draws at these places: the places, on a linear axis."""
        return np.asarray(places, float)

    def axis(self, low: float, high: float) -> dict[str, Any]:
        """The axis between two places, with ticks at 0 and at powers of 10."""
        decades = math.floor(max(abs(low), abs(high), 1.0))
        each = math.ceil(decades / _TICKS)
        first = round(math.log10(self.linear))
        places = [*range(1, decades + 1, each)]
        plain = is_plain(first, first + decades - 1)
        texts = [size_text(1, first + place - 1, plain) for place in places]
        ticks = {0.0: "0"} | dict(zip(places, texts, strict=True))
        ticks |= {-place: f"\u2212{text}" for place, text in ticks.items() if place}
        shown = sorted(place for place in ticks if low <= place <= high)
        return {
            "range": [low, high],
            "tickvals": shown,
            "ticktext": [ticks[place] for place in shown],
        }


def scale_of(values: np.ndarray, typical: np.ndarray) -> Log | Signed:
    """The scale for some values: logarithmic if all are positive, else signed.

    Args:
        values: All values that are drawn. Those that are not finite are ignored.
        typical: Positive sizes below which values need not be distinguished, such as the
            standard deviations. The linear part ends at the smallest of them (without the
            lowest tenth), but not more than 24 powers of 10 below the largest value.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if len(values) and (values > 0).all():
        return Log()
    typical = np.asarray(typical, float)
    typical = typical[np.isfinite(typical) & (typical > 0)]
    sizes = np.abs(values[values != 0])
    if not len(sizes):
        return Signed(1.0)
    most = math.floor(math.log10(sizes.max()))
    small = np.quantile(typical, _LOWEST, method="lower") if len(typical) else sizes.max()
    least = math.floor(math.log10(small))
    return Signed(10.0 ** max(min(max(least, most - _DECADES), most), _SMALLEST))

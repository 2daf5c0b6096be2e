"""The colour scale of a statistic, and its colour bar."""

import math
from typing import Any, NamedTuple

import numpy as np

from activation_monitor.analysis.records import OUTPUT
from activation_monitor.analysis.thresholds import limit
from activation_monitor.analysis.update_ratio import UPDATE_RATIO
from activation_monitor.views.figures import statistic as statistics
from activation_monitor.views.figures.colours import Theme
from activation_monitor.views.figures.style import is_plain, size_text

_FAINT = 3.0
"""Minimum extent in decades of the scale of sizes on either side of 1. With it a healthy
network is pale."""


class Scale(NamedTuple):
    """A colour scale for the values of `statistic.Shown.y`.

    Attributes:
        colours: plotly's colour scale.
        low, high: Values at its ends.
        bar: Options of plotly's `colorbar`.
    """

    colours: Any
    low: float
    high: float
    bar: dict


def scale(y: np.ndarray, statistic: str, theme: Theme, of: str = OUTPUT) -> Scale:
    """The colour scale for some values.

    Sizes have a scale of powers of 10 around 1, fractions one from 0 to 1. Only outputs
    have a size that they should have: sizes of other quantities have a scale around the
    power of 10 that is next to their median, and ratios of updates around the usual one.

    Args:
        y: Values as in `statistic.Shown.y`. Values that are not finite are ignored.
        statistic: Name of the statistic.
        theme: The theme of the page.
        of: The quantity. Defaults to `"output"`.
    """
    title = {"text": statistics.label(statistic, of), "side": "right"}
    bar = {"title": title, "thickness": 14}
    finite = y[np.isfinite(y)]
    if statistics.is_log(statistic):
        middle = _middle(finite, statistic, of)
        far = float(np.abs(finite - middle).max(initial=_FAINT))
        ticks = _decades(middle, far)
        return Scale(theme.sizes, middle - far, middle + far, bar | ticks)
    return Scale("Cividis", 0.0, 1.0, bar | {"tickformat": ".0%"})


def _middle(finite, statistic, of):
    if statistic == UPDATE_RATIO:
        return round(math.log10(limit("update-ratio")))
    return 0 if of == OUTPUT or not len(finite) else round(float(np.median(finite)))


def _decades(middle, far):
    """Ticks at whole powers of 10: three to five of them, the same number on each side."""
    each = -(-int(far) // 2)
    last = int(far) // each * each
    exponents = range(middle - last, middle + last + 1, each)
    plain = is_plain(min(exponents), max(exponents))
    texts = [size_text(1, e, plain) for e in exponents]
    return {"tickvals": [*exponents], "ticktext": texts}

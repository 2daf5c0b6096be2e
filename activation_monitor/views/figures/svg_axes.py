"""The axes of a figure as SVG: from values to pixels, and the ticks."""

import html
import math
import re
from typing import Any, NamedTuple, cast

import numpy as np
from plotly import graph_objects

WIDTH = 760
"""Width of the SVG in its own units, which are called pixels here."""

TOP = 34
"""Pixels above the panels, for the title and a row of texts."""

_STEPS = (1, 2, 5)
"""Distances of ticks, times powers of ten."""


class Axis(NamedTuple):
    """Maps values to pixels. The ticks are pairs of a place and a text. `low` and `high`
    are places; on a logarithmic axis places are exponents of ten."""

    low: float
    high: float
    start: float
    end: float
    ticks: list[tuple[float, str]]
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self.at_place(math.log10(value) if self.log else value)

    def at_place(self, place: float) -> float:
        """The pixel of a place; on a logarithmic axis the place is the exponent of ten."""
        share = (place - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def shows(self, value: float) -> bool:
        """Whether a value has a place on the axis."""
        return math.isfinite(value) and (value > 0 or not self.log)


def panel_of(reference: str | None) -> str:
    """The suffix of an axis: "2" of "y2" and of "y2 domain", "" of "y" and None."""
    return re.sub(r"[^0-9]", "", reference or "")


def height_below(layout: graph_objects.Layout) -> float:
    """Height of the ticks and the title of the horizontal axis, in pixels."""
    axis = cast(Any, layout.xaxis)  # plotly has no types for the parts
    names = axis.ticktext
    if not axis.tickangle or not names:
        return 52.0
    return 44.0 + 3.5 * max(len(html.unescape(name)) for name in names)


def margin_left(layout: graph_objects.Layout) -> float:
    """Width of the left margin, for the ticks and the slanted name of the first layer."""
    axis, margin = cast(Any, layout.xaxis), cast(Any, layout.margin)
    names = axis.ticktext
    return max(margin.l, 4.6 * len(html.unescape(names[0])) if names else 0.0)


def panels_of(
    figure: graph_objects.Figure, left: float, bottom: float, top: float
) -> dict[str, tuple[Axis, Axis]]:
    """The panels from the top: suffix to the horizontal and the vertical axis.

    Args:
        figure: A figure of scatter traces.
        left: Left end of the horizontal axis, in pixels.
        bottom: Bottom of the lowest panel, in pixels.
        top: Top of the first panel, in pixels.
    """
    drawn = cast(Any, figure)  # plotly has no types for the parts
    layout = drawn.layout
    x = _horizontal(figure, left, WIDTH - layout.margin.r)
    panels = {}
    for suffix in sorted({panel_of(trace.yaxis) for trace in drawn.data}):
        axis = layout[f"yaxis{suffix}"]
        low, high = axis.range or _ends(trace.y for trace in drawn.data)
        start, end = (
            bottom - share * (bottom - top) for share in axis.domain or (0.0, 1.0)
        )
        log = axis.type == "log"
        if axis.tickvals is None:
            ticks = _ticks(axis, low, high, (start - end) // 30)
        else:
            places = np.log10(axis.tickvals) if log else axis.tickvals
            ticks = list(zip(places, axis.ticktext, strict=True))
        panels[suffix] = x, Axis(low, high, start, end, ticks, log)
    return panels


def _horizontal(figure, start, end):
    axis = figure.layout.xaxis
    low, high = axis.range or _ends(trace.x for trace in figure.data)
    if axis.tickvals is not None:
        ticks = list(zip(axis.tickvals, axis.ticktext, strict=True))
    else:
        ticks = _ticks(axis, low, high, 12)
    return Axis(low, high, start, end, ticks)


def _ends(each):
    """The smallest and the largest finite value of some arrays, made different if equal."""
    values = np.concatenate([[], *(np.asarray(v, float) for v in each)])
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if len(values) else (0.0, 0.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(axis, low, high, most):
    """Ticks at round values; at whole values on an axis of depths or exponents."""
    scale = 10.0 ** max(0, math.floor(math.log10((high - low) / most)))
    each = (f * step for f in (scale, 10.0 * scale) for step in _STEPS)
    step = next(step for step in each if (high - low) / step <= most)
    first = math.ceil(low / step)
    values = [i * step for i in range(first, math.floor(high / step) + 1)]
    if axis.type == "log":
        return [(value, f"10<sup>{value:g}</sup>") for value in values]
    return [(value, f"{value:{axis.tickformat or 'g'}}") for value in values]

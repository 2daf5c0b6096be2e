"""Names at the right ends of lines, in their colours, in place of a legend."""

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from plotly import graph_objects

from activation_monitor.views.figures.colours import readable, translucent
from activation_monitor.views.figures.style import escape

SIZE = 11
"""Size of the font of a label, in pixels."""

LINE = 14.0
"""Height of a line of a label, in pixels."""

GAP = 8
"""Pixels between the end of a line and its label."""

_CHARACTER = 6.2
"""Mean width of a character, in pixels. Fonts differ, so this is a wide one."""

_LENGTH = 30
"""Maximum number of characters in a line of a label."""

_MARGIN = 210
"""Maximum right margin in pixels. With it a figure of 700 pixels keeps 60 % for the
plot."""

_NEARLY = 0.9
"""The part of the largest distance of lines that suffices for their labels."""

_AT_THE_END = 0.9
"""The part of the horizontal axis from which the label of a line is in the margin."""


class Label(NamedTuple):
    """A label of a line.

    Attributes:
        text: The text, escaped; lines are separated by `<br>`.
        colour: Colour of the line.
        x: Place of its end on the horizontal axis.
        y: Place of its end on the vertical axis; on a logarithmic axis the log10.
        row: Row of the panel, from 1.
        line: The points of the line, pairs of places; empty if its label is at its end
            wherever other lines end.
    """

    text: str
    colour: str
    x: float
    y: float
    row: int = 1
    line: Sequence[tuple[float, float]] = ()


def cut(name: str) -> str:
    """A name that fits a label: its start and its end; escaped."""
    half = _LENGTH // 2
    fits = name if len(name) <= _LENGTH else f"{name[: half - 1]}…{name[-half:]}"
    return escape(fits)


def wrapped(*parts: str) -> str:
    """Escaped texts in one line if they fit, else each in its own line."""
    line = " ".join(parts)
    return line if len(html.unescape(line)) <= _LENGTH else "<br>".join(parts)


def end_of(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray):
    """The last finite point of a line, as a pair; None if it has none."""
    known = [(float(a), float(b)) for a, b in zip(x, y, strict=True) if math.isfinite(b)]
    return known[-1] if known else None


def add(figure: graph_objects.Figure, labels: Iterable[Label]) -> graph_objects.Figure:
    """Write the labels of lines, one below the other where lines end close together.

    Where lines meet at their ends, the labels have the heights of the lines where these
    are still apart, see `heights_apart`.

    The right margin becomes as wide as the labels, up to a limit. Labels for which a panel
    is not high enough are left out, the first ones first: lines in front are drawn last.

    Args:
        figure: A figure that is dressed, with ranges on all axes.
        labels: The labels.

    Returns:
        The figure.
    """
    labels = [*labels]
    layout = cast(Any, figure.layout)
    beside, inside = grouped(labels, *layout.xaxis.range)
    wide = max((width(label.text) for label in beside), default=0.0)
    figure.update_layout(
        margin={"r": max(layout.margin.r, min(_MARGIN, int(wide) + GAP + 4))}
    )
    for row in sorted({label.row for label in labels}):
        for group in (beside, inside):
            here = [label for label in group if label.row == row]
            _add_group(figure, here, row, group is inside)
    return figure


def grouped(labels: Iterable[Any], low: float, high: float) -> tuple[list, list]:
    """The labels beside the panel, and those of lines that end before, which are in it.

    Args:
        labels: Labels, or other objects with an `x`.
        low, high: The ends of the horizontal axis.
    """
    groups = [], []
    for label in labels:
        groups[label.x < low + _AT_THE_END * (high - low)].append(label)
    return groups


def _add_group(figure, labels, row, over_lines):
    if not labels:
        return
    suffix = "" if row == 1 else f"{row}"
    axis = figure.layout[f"yaxis{suffix}"]
    low, high = axis.range
    height = panel_height(figure.layout, suffix)
    labels = _where_apart(labels, LINE / height * (high - low), over_lines)
    tall = [LINE * (1 + label.text.count("<br>")) for label in labels]
    while sum(tall) > height and len(labels) > 1:
        labels, tall = labels[1:], tall[1:]
    # Plotly hides a text whose place is not on the axis.
    labels = [label._replace(y=float(np.clip(label.y, low, high))) for label in labels]
    at = np.array([(label.y - low) / (high - low) * height for label in labels])
    placed = spread(at, tall, 0.0, height)
    page = figure.layout.paper_bgcolor, figure.layout.font.color
    for label, natural, place in zip(labels, at, placed, strict=True):
        figure.add_annotation(
            text=label.text,
            font={"size": SIZE, "color": readable(label.colour, *page)},
            x=label.x,
            xref=f"x{suffix}",
            xanchor="left",
            xshift=GAP,
            y=label.y,
            yref=f"y{suffix}",
            yanchor="middle",
            yshift=round(place - natural, 1),
            align="left",
            bgcolor=translucent(page[0], 0.8) if over_lines else None,
            showarrow=False,
        )


def _where_apart(labels, tall, over_lines):
    """The labels at the heights at which their lines are apart."""
    groups = {}
    for i, label in enumerate(labels):
        if label.line:  # in the panel, only lines that end at the same depth meet
            groups.setdefault(label.x if over_lines else None, []).append(i)
    labels = [*labels]
    for group in groups.values():
        heights = heights_apart([labels[i].line for i in group], tall)
        for i, y in zip(group, heights, strict=True):
            labels[i] = labels[i]._replace(y=y)
    return labels


def heights_apart(
    lines: Sequence[Sequence[tuple[float, float]]], tall: float
) -> list[float]:
    """The height of each line where the lines are apart: at the last place of the last
    third at which a reader can distinguish nearly as many of them as anywhere in it.

    Many lines over depth end in a softmax layer, at about the same value. Labels in the
    order of their ends would not tell which label belongs to which line.

    Args:
        lines: Pairs `(x, y)` of each line, in increasing order of `x`.
        tall: Height of a text, in units of `y`. Lines farther apart than this are not more
            distinct.
    """
    places = np.unique([x for line in lines for x, _ in line])
    end = places[-1]
    places = places[places >= end - (end - places[0]) / 3]
    points = [np.array(line, float).T for line in lines]
    heights = np.array([np.interp(places, x, y) for x, y in points])
    gaps = np.diff(np.sort(heights, axis=0), axis=0)
    apart = np.minimum(gaps, tall).sum(axis=0)
    best = np.flatnonzero(apart >= _NEARLY * apart.max())[-1]
    return heights[:, best].tolist()


def panel_height(layout: Any, suffix: str = "") -> float:
    """Height of a panel of a dressed figure, in pixels."""
    start, end = layout[f"yaxis{suffix}"].domain or (0.0, 1.0)
    return (end - start) * (layout.height - layout.margin.t - _below(layout))


def _below(layout):
    """Height of ticks, titles and legend below the panels, in pixels."""
    names = layout.xaxis.ticktext
    slanted = layout.xaxis.tickangle and names
    return 90.0 + (3.5 * max(len(html.unescape(n)) for n in names) if slanted else 0.0)


def spread(
    places: Sequence[float] | np.ndarray,
    heights: Sequence[float],
    low: float,
    high: float,
) -> np.ndarray:
    """Places near the wanted ones at which texts do not overlap.

    Their squared distances from the wanted places have the smallest sum, if texts keep the
    order of the places and do not reach beyond the ends.

    Args:
        places: The wanted middles of the texts.
        heights: Heights of the texts, whose sum is at most `high - low`.
        low, high: The ends.
    """
    if not len(places):
        return np.zeros(0)
    order = np.argsort(places, kind="stable")
    tall = np.asarray(heights, float)[order]
    wanted = np.asarray(places, float)[order]
    # Without the heights of the texts below, places must only not decrease.
    offsets = np.concatenate([[0.0], np.cumsum((tall[1:] + tall[:-1]) / 2)])
    first, last = low + tall[0] / 2, high - tall[-1] / 2 - offsets[-1]
    rising = np.clip(_not_decreasing(wanted - offsets), first, max(first, last))
    found = np.empty(len(order))
    found[order] = rising + offsets
    return found


def _not_decreasing(values):
    """The nearest values that do not decrease, by pooling neighbours."""
    pools = []
    for value in values:
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, n), (b, m) = pools[-2:]
            pools[-2:] = [((a * n + b * m) / (n + m), n + m)]
    return np.array([mean for mean, count in pools for _ in range(count)])


def width(text: str) -> float:
    """The width of a label in pixels, as an estimate for a wide font."""
    lines = re.split("<br>", text)
    return _CHARACTER * max(len(html.unescape(line)) for line in lines)

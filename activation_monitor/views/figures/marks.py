"""Marks of one finding in a figure: its layers, and when it was seen."""

from collections.abc import Iterable, Iterator

import numpy as np

from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.shown import count
from activation_monitor.views.figures.path import Path
from activation_monitor.views.figures.style import Theme, escape, translucent


def along_depth(figure, finding: Finding, names: tuple[str, ...], path: Path, theme: Theme):
    """Draw a band behind the layers of a finding, in all panels over depth.

    Args:
        figure: The figure to which the band is added.
        finding: The finding.
        names: Names of all layers of the snapshot.
        path: Their places along depth.
        theme: The theme of the page.
    """
    rows = sorted(path.graph.order, key=lambda row: path.x[row])
    found = [i for i, row in enumerate(rows) if names[row] in finding.layers]
    if not found:
        return
    x = path.x[rows]
    middles = (x[1:] + x[:-1]) / 2
    half = float(np.diff(x).min(initial=1.0)) / 2
    edges = [x[0] - half, *middles, x[-1] + half]
    colour = theme.severity[finding.severity]
    for first, last in _stretches(found):
        figure.add_vrect(
            x0=edges[first],
            x1=edges[last + 1],
            fillcolor=translucent(colour, 0.12),
            line={"width": 0},
            layer="below",
        )
    _explain(figure, finding, {"color": translucent(colour, 0.35)})


def by_step(figure, finding: Finding, names: list[str], steps: list[int], theme: Theme):
    """Draw a frame around the layers of a finding at the steps at which it was seen.

    Args:
        figure: A figure with one row for each layer and one column for each step.
        finding: The finding.
        names: Name of each row.
        steps: Step of each column.
        theme: The theme of the page.
    """
    found = [i for i, name in enumerate(names) if name in finding.layers]
    if not found or not steps:
        return
    start = min(int(np.searchsorted(steps, finding.step)), len(steps) - 1)
    seen_until = finding.step if finding.last_step is None else finding.last_step
    end = max(int(np.searchsorted(steps, seen_until, side="right")) - 1, start)
    line = {"color": theme.severity[finding.severity], "width": 2.5}
    for first, last in _stretches(found):
        figure.add_shape(
            type="rect",
            x0=start - 0.5,
            x1=end + 0.5,
            y0=first - 0.5,
            y1=last + 0.5,
            line=line,
        )
    _explain(figure, finding, {"color": line["color"], "symbol": "square-open"})


def _stretches(places: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The first and the last of each stretch of consecutive numbers.

    >>> [*_stretches([0, 1, 2, 5])]
    [(0, 2), (5, 5)]
    """
    places = sorted(places)
    starts = [i for i in places if i - 1 not in places]
    ends = [i for i in places if i + 1 not in places]
    yield from zip(starts, ends, strict=True)


def _explain(figure, finding, marker):
    """Add the finding to the legend."""
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        marker={"symbol": "square", "size": 11, "line": {"width": 2}} | marker,
        name=escape(
            f"{finding.code} in {count(len(finding.layers), 'layer')}, {finding.when}"
        ),
        showlegend=True,
        hoverinfo="skip",
    )

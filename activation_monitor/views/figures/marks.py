"""Marks of one finding in a figure: its layers, and when it was seen."""

from collections.abc import Sequence

import numpy as np

from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.shown import count
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.views.figures import step_axis
from activation_monitor.views.figures.colours import Theme, translucent
from activation_monitor.views.figures.curves import Curve
from activation_monitor.views.figures.labels import LINE, SIZE, width
from activation_monitor.views.figures.path import Path
from activation_monitor.views.figures.path import path as path_of
from activation_monitor.views.figures.style import escape, short

_NARROW = 400.0
"""Width of a narrow panel in pixels, in which the names of chosen layers do not overlap."""


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
    stretches = _stretches(finding, [names[row] for row in rows], rows, path)
    if not stretches:
        return
    x = path.x[rows]
    middles = (x[1:] + x[:-1]) / 2
    half = float(np.diff(x).min(initial=1.0)) / 2
    edges = [x[0] - half, *middles, x[-1] + half]
    colour = theme.severity[finding.severity]
    for first, last in stretches:
        figure.add_vrect(
            x0=edges[first],
            x1=edges[last + 1],
            fillcolor=translucent(colour, 0.07),
            line={"width": 0},
            layer="below",
        )
    _explain(figure, finding, {"color": translucent(colour, 0.35), "line": {"width": 0}})


def chosen_along_depth(
    figure, chosen: Sequence[str], curves: Sequence[Curve], theme: Theme
) -> int:
    """Draw a thin dotted line at the depth of each chosen layer, with its name above.

    Args:
        figure: The figure over depth.
        chosen: Names of layers. A layer that no curve has is left out.
        curves: The curves, the run in front last. The last one that has a layer places it.
        theme: The theme of the page.

    Returns:
        The number of rows of names above the panels.
    """
    low, high = figure.layout.xaxis.range
    known = {
        curve.snapshot.names[row]: curve.path.x[row]
        for curve in curves
        for row in curve.path.graph.order
    }
    rows: list[list[tuple[float, float]]] = []
    for name in (name for name in chosen if name in known):
        x, text = float(known[name]), short(name)
        figure.add_shape(
            type="line",
            x0=x,
            x1=x,
            xref="x",
            y0=0,
            y1=1,
            yref="paper",
            line={"color": theme.ink, "width": 1, "dash": "dot"},
        )
        share, wide = (x - low) / (high - low), width(text) / _NARROW
        to_right = share < 0.5
        span = (share, share + wide) if to_right else (share - wide, share)
        row = next((i for i, one in enumerate(rows) if _free(span, one)), len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(span)
        figure.add_annotation(
            text=text,
            font={"size": SIZE},
            x=x,
            xref="x",
            y=1,
            yref="paper",
            yanchor="bottom",
            xanchor="left" if to_right else "right",
            yshift=LINE * row,
            showarrow=False,
        )
    return len(rows)


def _free(span, taken):
    return all(span[1] <= start or end <= span[0] for start, end in taken)


def by_step(
    figure,
    finding: Finding,
    names: list[str],
    steps: list[int],
    snapshot: Snapshot,
    theme: Theme,
):
    """Draw a frame around the layers of a finding at the steps at which it was seen.

    Args:
        figure: A figure with one row for each layer and one column for each step.
        finding: The finding.
        names: Name of each row.
        steps: Step of each column.
        snapshot: A snapshot, which says how the layers are connected.
        theme: The theme of the page.
    """
    row_of = {name: row for row, name in enumerate(snapshot.names)}
    rows = [row_of.get(name) for name in names]
    stretches = _stretches(finding, names, rows, path_of(snapshot))
    if not stretches:
        return
    start = min(int(np.searchsorted(steps, finding.step)), len(steps) - 1)
    seen_until = finding.step if finding.last_step is None else finding.last_step
    end = max(int(np.searchsorted(steps, seen_until, side="right")) - 1, start)
    edges = step_axis.edges(steps).tolist()
    colour = theme.severity[finding.severity]
    for first, last in stretches:
        # The outer line is seen where the map has the colour of the inner one.
        for line in ({"color": theme.ink, "width": 5}, {"color": colour, "width": 2}):
            figure.add_shape(
                type="rect",
                x0=edges[start],
                x1=edges[end + 1],
                y0=first - 0.5,
                y1=last + 0.5,
                line=line,
            )
    looks = {"color": colour, "symbol": "square-open", "line": {"width": 2}}
    _explain(figure, finding, looks)


def chosen_rows(figure, rows: Sequence[int], theme: Theme) -> None:
    """Draw a thin dotted line above and below each of these rows of a heat map."""
    for row in rows:
        for edge in (row - 0.5, row + 0.5):
            figure.add_shape(
                type="line",
                x0=0,
                x1=1,
                xref="paper",
                y0=edge,
                y1=edge,
                yref="y",
                line={"color": theme.ink, "width": 1.5, "dash": "dot"},
            )


def _stretches(
    finding: Finding, names: Sequence[str], rows: Sequence[int | None], path: Path
) -> list[tuple[int, int]]:
    """The places of the first and the last layer of each stretch of a finding.

    A stretch goes on from one depth to the next, over layers of the trunk between: a
    finding on weight layers includes the activations and normalizations between them.

    Args:
        finding: The finding.
        names: Names of layers in the order of the data path.
        rows: The row of each in a snapshot, None for a layer that it does not have.
        path: The layers of that snapshot along depth.
    """
    trunk, stretches = set(path.trunk), []
    for place in (i for i, name in enumerate(names) if name in finding.layers):
        if stretches and _goes_on(rows[stretches[-1][1] : place + 1], trunk, path):
            stretches[-1] = stretches[-1][0], place
        else:
            stretches.append((place, place))
    return stretches


def _goes_on(rows, trunk, path):
    """Whether a stretch goes on from the first of these rows to the last."""
    first, *between, last = rows
    if not between:
        return True
    if None in (first, last) or not trunk.issuperset(between):
        return False
    return path.graph.depth[last] - path.graph.depth[first] <= 1


def _explain(figure, finding, marker):
    """Add the finding to the legend."""
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        marker={"symbol": "square", "size": 11} | marker,
        name=escape(
            f"{finding.code} in {count(len(finding.layers), 'layer')}, {finding.when}"
        ),
        showlegend=True,
        hoverinfo="skip",
    )

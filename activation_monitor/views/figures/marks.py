"""Marks of one finding in a figure: its layers, and when it was seen."""

from collections.abc import Sequence

import numpy as np

from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.shown import count
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot
from activation_monitor.views.figures import step_axis
from activation_monitor.views.figures.colours import Theme, translucent
from activation_monitor.views.figures.curves import Curve
from activation_monitor.views.figures.labels import LINE, SIZE, width
from activation_monitor.views.figures.path import Path
from activation_monitor.views.figures.path import path as path_of
from activation_monitor.views.figures.style import common, escape, short

_NARROW = 400.0
"""Width of a narrow panel in pixels, in which the names of chosen layers do not overlap."""

_MANY = 12
"""Number of bands of a finding above which neighbours are merged."""

_NEARLY_ALL = 0.9
"""The part of the layers of a stretch from which its bands are merged."""

_READABLE = 8.0
"""Minimum height in pixels of rows of a heat map that have lines around them."""


def along_depth(figure, finding: Finding, snapshot: Snapshot, path: Path, theme: Theme):
    """Draw a band behind the layers of a finding, in all panels over depth.

    Args:
        figure: The figure to which the band is added.
        finding: The finding.
        snapshot: The snapshot of the curve.
        path: Its layers along depth.
        theme: The theme of the page.
    """
    rows = sorted(path.graph.order, key=lambda row: path.x[row])
    names = [snapshot.names[row] for row in rows]
    stretches = _stretches(finding, names, rows, path, snapshot.layers)
    if not stretches:
        return
    x = path.x[rows]
    middles = (x[1:] + x[:-1]) / 2
    half = float(np.diff(x).min(initial=1.0)) / 2
    edges = [x[0] - half, *middles, x[-1] + half]
    colour = theme.severity[finding.severity]
    look = {"fillcolor": translucent(colour, 0.07), "line": {"width": 0}, "layer": "below"}
    panels = [axis.anchor for axis in figure.select_xaxes()]  # their vertical axes
    _add(
        figure,
        [
            {"type": "rect", "x0": edges[first], "x1": edges[last + 1], "y0": 0, "y1": 1}
            | {"xref": y.replace("y", "x"), "yref": f"{y} domain"}
            | look
            for first, last in stretches
            for y in panels
        ],
    )
    _explain(figure, finding, {"color": translucent(colour, 0.35), "line": {"width": 0}})


def _add(figure, shapes):
    """Add shapes at once: plotly copies all shapes of a figure for each one added."""
    figure.update_layout(shapes=[*figure.layout.shapes, *shapes])


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
    prefix = common(known)
    for name in (name for name in chosen if name in known):
        x, text = float(known[name]), short(name, prefix=prefix)
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
    tall: float,
):
    """Draw a frame around the layers of a finding at the steps at which it was seen.

    A frame would hide very low rows. These have a line at the axis instead.

    Args:
        figure: A figure with one row for each layer and one column for each step.
        finding: The finding.
        names: Name of each row.
        steps: Step of each column.
        snapshot: A snapshot, which says how the layers are connected.
        theme: The theme of the page.
        tall: Height of a row in pixels.
    """
    row_of = {name: row for row, name in enumerate(snapshot.names)}
    rows = [row_of.get(name) for name in names]
    stretches = _stretches(finding, names, rows, path_of(snapshot), snapshot.layers)
    if not stretches:
        return
    start = min(int(np.searchsorted(steps, finding.step)), len(steps) - 1)
    seen_until = finding.step if finding.last_step is None else finding.last_step
    end = max(int(np.searchsorted(steps, seen_until, side="right")) - 1, start)
    edges = step_axis.edges(steps).tolist()
    colour = theme.severity[finding.severity]
    columns = {"type": "rect", "x0": edges[start], "x1": edges[end + 1]}
    at_axis = {"type": "line", "x0": 0, "x1": 0, "xref": "paper"}
    # The outer line is seen where the map has the colour of the inner one.
    framed = [
        columns | {"line": {"color": theme.ink, "width": 5}},
        columns | {"line": {"color": colour, "width": 2}},
    ]
    low = [at_axis | {"line": {"color": colour, "width": 4}}]
    _add(
        figure,
        [
            shape | {"y0": first - 0.5, "y1": last + 0.5}
            for first, last in stretches
            for shape in (low if (last - first + 1) * tall < _READABLE else framed)
        ],
    )
    looks = {"color": colour, "symbol": "square-open", "line": {"width": 2}}
    _explain(figure, finding, looks)


def chosen_rows(figure, rows: Sequence[int], theme: Theme, tall: float) -> None:
    """Draw a thin dotted line above and below each of these rows of a heat map.

    Not if the rows are so low that the lines would hide them: then only their names mark
    them.

    Args:
        figure: A figure with one row for each layer.
        rows: The rows.
        theme: The theme of the page.
        tall: Height of a row in pixels.
    """
    for row in rows if tall >= _READABLE else ():
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
    finding: Finding,
    names: Sequence[str],
    rows: Sequence[int | None],
    path: Path,
    layers: Sequence[LayerInfo],
) -> list[tuple[int, int]]:
    """The places of the first and the last layer of each stretch of a finding.

    A stretch goes on from one depth to the next, over layers of other kinds than those of
    the finding: one on weight layers includes the activations and normalizations between
    them. Where this leaves many stretches, those are merged between which nearly all layers
    of these kinds belong to the finding.

    Args:
        finding: The finding.
        names: Names of layers in the order of the data path.
        rows: The row of each in a snapshot, None for a layer that it does not have.
        path: The layers of that snapshot along depth.
        layers: The layers of that snapshot.
    """
    found = np.isin(np.array(names, object), [*finding.layers])
    kinds = {
        layers[row].kind
        for row, one in zip(rows, found, strict=True)
        if one and row is not None
    }
    alike = np.array([row is None or layers[row].kind in kinds for row in rows], bool)
    stretches = []
    for place in np.flatnonzero(found).tolist():
        last = stretches[-1][1] if stretches else None
        if last is not None and _goes_on(last, place, rows, alike, path):
            stretches[-1] = stretches[-1][0], place
        else:
            stretches.append((place, place))
    return stretches if len(stretches) <= _MANY else _merged(stretches, found, alike)


def _goes_on(last, place, rows, alike, path):
    """Whether a stretch that ends at one place goes on to the next one."""
    if place == last + 1:
        return True
    if alike[last + 1 : place].any() or None in (rows[last], rows[place]):
        return False
    return path.graph.depth[rows[place]] - path.graph.depth[rows[last]] <= 1


def _merged(stretches, found, alike):
    """The stretches, merged where nearly all layers of the kinds are concerned."""
    merged = [*stretches[:1]]
    for first, last in stretches[1:]:
        whole = slice(merged[-1][0], last + 1)
        if found[whole].sum() >= _NEARLY_ALL * alike[whole].sum():
            merged[-1] = merged[-1][0], last
        else:
            merged.append((first, last))
    return merged


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

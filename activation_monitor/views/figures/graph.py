"""The layer graph: the connections of the layers, with the findings marked."""

from collections.abc import Sequence

import numpy as np
from plotly import graph_objects

from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.records import OUTPUT
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views.figures import path as paths
from activation_monitor.views.figures import quantity as quantities
from activation_monitor.views.figures import statistic as statistics
from activation_monitor.views.figures.colours import theme, translucent
from activation_monitor.views.figures.scale import scale
from activation_monitor.views.figures.style import (
    NAMES,
    common,
    dress,
    escape,
    short,
    slanted,
    whole,
)

_DOT = 6
"""Minimum size of a layer in pixels."""


def layer_graph(
    recording: Recording,
    diagnosis: Diagnosis,
    statistic: str = "rms",
    steps: Sequence[int] | float | None = None,
    dark: bool = False,
    of: str = OUTPUT,
    marked: Finding | None = None,
    chosen: Sequence[str] = (),
) -> graph_objects.Figure:
    """Draw the layers from input to output, as they were traced, with the findings marked.

    The trunk, which every path passes, is in the middle; branches are on either side. The
    colour of a layer shows its statistic at one step, on the scale of the heat map. Names
    are in tooltips, and at the axis if there are few layers.

    Args:
        recording: The recording of one run.
        diagnosis: The diagnosis of the run.
        statistic: One of `STATISTICS_SHOWN`. Defaults to `"rms"`.
        steps: A step, or a list of one step. The last snapshot up to it is drawn. Defaults
            to `None`, the first step.
        dark: Whether the colours are for a dark page. Defaults to `False`.
        of: The quantity, a key of `records.QUANTITIES`. Defaults to `"output"`.
        marked: One of the findings; the rings of the others are drawn faintly. Defaults to
            `None`, all alike.
        chosen: Names of layers that get a ring and their name. Unknown names have no
            effect. Defaults to `()`.

    Raises:
        ValueError: If there is nothing to draw, `statistic` is invalid, `steps` is not one
            step, or the quantity is unknown or was not measured.
    """
    statistics.check(statistic, "layer_graph", of)
    quantities.check(of, [recording], "layer_graph")
    paths.check(recording, "layer_graph")
    snapshots = paths.at_steps(
        recording, recording[0].step if steps is None else steps, "layer_graph"
    )
    if len(snapshots) != 1:
        raise ValueError(
            "layer_graph: expected one step, because a layer has one colour. Received: "
            f"steps={steps!r}. Draw one graph for each step, or a `depth_profile` of all."
        )
    colours, (snapshot,) = theme(dark), snapshots
    here = paths.path(snapshot)
    rows = here.graph.order
    y = _lanes(here)
    figure = graph_objects.Figure()
    ends = [(parent, row) for row in rows for parent in here.graph.parents[row]]
    figure.add_scatter(
        x=[x for a, b in ends for x in (here.x[a], here.x[b], None)],
        y=[at for a, b in ends for at in (y[a], y[b], None)],
        mode="lines",
        line={"color": colours.grid, "width": 2},
        hoverinfo="skip",
        showlegend=False,
    )
    size = int(np.clip(900 / max(len(rows), 1), _DOT, 20))
    _add_findings(figure, snapshot, diagnosis, marked, here, y, size, colours)
    _add_layers(figure, snapshot, statistic, of, here, y, size, colours)
    _add_chosen(figure, snapshot, chosen, here, y, size, colours)
    wide = max((abs(at) for at in y.values()), default=0) + 1
    figure.update_yaxes(visible=False, range=[-wide, wide])
    ticks = whole(0, int(here.graph.depth.max()))
    label = "depth (weight layers passed)"
    few = len(rows) <= NAMES
    if few:
        names = [snapshot.layers[row].name for row in here.trunk]
        ticks = slanted(here.x[here.trunk], names, common(snapshot.names))
        label = "layer"
    figure.update_xaxes(title=label, **ticks)
    title = f"Layer graph, {statistics.label(statistic, of)} at step {snapshot.step}"
    dress(figure, colours, title, (260 if few else 210) + 20 * min(wide, 10))
    return figure.update_xaxes(showgrid=False)


def _add_layers(figure, snapshot, statistic, of, here, y, size, colours):
    """Draw the layers in the colours of their statistic; those without one separately."""
    found = statistics.shown(snapshot, statistic, of)
    texts = statistics.texts(snapshot, statistic, of)
    what = statistics.words(statistic, of)
    marks = {"": [], "zero": [], "NaN or infinite elements": [], "not measured": []}
    for row in here.graph.order:
        if found.nonfinite[row] and statistic != "nonfinite_fraction":
            label = "NaN or infinite elements"
        elif found.zero[row]:
            label = "zero"
        else:
            label = "" if np.isfinite(found.y[row]) else "not measured"
        marks[label].append(row)
    shades = scale(found.y[marks[""]], statistic, colours, of)
    looks = {
        "": {
            "color": found.y[marks[""]],
            "colorscale": shades.colours,
            "cmin": shades.low,
            "cmax": shades.high,
            "colorbar": shades.bar,
        },
        "zero": {"color": colours.zero},
        "NaN or infinite elements": {"color": colours.nonfinite},
        "not measured": {"color": colours.paper},
    }
    for label, rows in marks.items():
        if not rows:
            continue
        layers = [snapshot.layers[row] for row in rows]
        outline = {"color": colours.ink, "width": 1 if size > _DOT else 0}
        figure.add_scatter(
            x=here.x[rows],
            y=[y[row] for row in rows],
            mode="markers",
            marker={"size": size, "line": outline, **looks[label]},
            customdata=[layer.name for layer in layers],
            hovertext=[
                f"{escape(layer.name)}<br>{escape(layer.class_name)}, depth "
                f"{here.graph.depth[row]}<br>{what} {texts[row]}"
                for row, layer in zip(rows, layers, strict=True)
            ],
            hoverinfo="text",
            name=label,
            showlegend=bool(label),
        )


def _lanes(here):
    """Vertical places of the layers: 0 for the trunk; a branch stays on one side of it."""
    y, taken = dict.fromkeys(here.trunk, 0), set()
    for row in here.beside:
        from_parents = [y[p] for p in here.graph.parents[row] if y.get(p, 0) != 0]
        sides = (side * lane for lane in range(1, len(y) + 2) for side in (1, -1))
        for lane in (*from_parents, *sides):
            if (int(here.graph.depth[row]), lane) not in taken or lane in from_parents:
                break
        y[row] = lane
        taken.add((int(here.graph.depth[row]), lane))
    return y


def _add_chosen(figure, snapshot, chosen, here, y, size, colours):
    """Draw a ring around each chosen layer, and write its name above it."""
    row_of = {snapshot.names[row]: row for row in here.graph.order}
    names = [name for name in chosen if name in row_of]
    rows = [row_of[name] for name in names]
    if not rows:
        return
    figure.add_scatter(
        x=here.x[rows],
        y=[y[row] for row in rows],
        mode="markers",
        marker={
            "symbol": "circle-open",
            "color": colours.ink,
            "size": size + 4,
            "line": {"width": 2},
        },
        name="chosen",
        showlegend=False,
        customdata=names,
        hoverinfo="skip",  # the tooltip is that of the layer below
    )
    last = float(np.nanmax(here.x))
    for i, (name, row) in enumerate(zip(names, rows, strict=True)):
        figure.add_annotation(
            text=short(name, prefix=common(snapshot.names)),
            font={"size": 11},
            bgcolor=translucent(colours.paper, 0.75),
            x=float(here.x[row]),
            y=y[row],
            # Names of neighbours are above each other, and stay within the figure.
            xanchor="left" if here.x[row] < last / 2 else "right",
            yanchor="bottom",
            yshift=size / 2 + 6 + 15 * (i % 4),
            showarrow=False,
        )


def _add_findings(figure, snapshot, diagnosis, marked, here, y, size, colours):
    """Draw a ring around each layer of a finding; each finding has a legend entry."""
    row_of = {name: row for row, name in enumerate(snapshot.names)}
    apart = 5 if size > _DOT else 3
    for i, finding in enumerate(diagnosis.findings):
        rows = [row_of[name] for name in finding.layers if name in row_of]
        rows = [row for row in rows if row in y]
        faint = marked is not None and finding.code != marked.code
        figure.add_scatter(
            x=here.x[rows],
            y=[y[row] for row in rows],
            mode="markers",
            marker={
                "symbol": "circle-open" if i % 2 == 0 else "square-open",
                "color": colours.severity[finding.severity],
                "size": size + apart + 2 + apart * i,
                "line": {"width": 1 if faint else 2.5},
                "opacity": 0.5 if faint else 1.0,
            },
            name=f"{finding.code} ({finding.severity})",
            showlegend=not faint,
            customdata=[snapshot.layers[row].name for row in rows],
            hovertext=[escape(finding.title)] * len(rows),
            hoverinfo="text",
        )

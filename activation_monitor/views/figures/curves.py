"""Curves over depth: which snapshots are drawn, and the axes."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from activation_monitor.analysis import records
from activation_monitor.analysis.growth import DTYPE_LIMITS
from activation_monitor.analysis.records import OUTPUT
from activation_monitor.analysis.snapshot import Recording, Snapshot
from activation_monitor.views.figures import path as paths
from activation_monitor.views.figures import quantity as quantities
from activation_monitor.views.figures import statistic as statistics
from activation_monitor.views.figures.style import (
    DASHES,
    DECADES,
    NAMES,
    escape,
    log_axis,
    shade,
    short_run,
    slanted,
    theme,
    whole,
)

_NEAR = 4.0
"""Maximum distance in decades between the data and a limit of a dtype that is drawn. A
limit farther away would compress the curves."""

MARKERS = 80
"""Maximum number of layers for which a curve has markers."""


class Curve(NamedTuple):
    """A snapshot and how it is drawn. `name` is the label, cut to fit a legend."""

    run: str
    snapshot: Snapshot
    path: paths.Path
    label: str
    name: str
    colour: str
    dash: str


def curves_of(
    runs: Mapping[str, Recording],
    statistic: str,
    steps: Sequence[float] | float | None,
    dark: bool,
    places: Mapping[str, int] | None,
    where: str,
    of: str = OUTPUT,
) -> list[Curve]:
    """The curves to draw: for each run the snapshots at these steps.

    If there is one run, each step has its own colour. If there are several, each run has
    its own colour and each step its own dash.

    Args:
        runs: Recordings by name.
        statistic: One of `STATISTICS_SHOWN`.
        steps: A step or several; None for the first and the last one of each run.
        dark: Whether the colours are for a dark page.
        places: Name of a run to its index among all runs; None for the order of `runs`.
        where: The function that the user called, for messages.
        of: The quantity. Defaults to `"output"`.

    Raises:
        ValueError: If there is no run, a run has no snapshot, `statistic` or `steps` is
            invalid, or the quantity is unknown or was not measured.
    """
    statistics.check(statistic, where, of)
    quantities.check(of, runs.values(), where)
    if not runs:
        raise ValueError(f"{where}: expected at least one run. Received: none.")
    colours, curves = theme(dark), []
    alone = len(runs) == 1 and places is None
    for run, place in places_of(runs, places).items():
        recording = runs[run]
        paths.check(recording, where)
        wanted = (recording[0].step, recording[-1].step) if steps is None else steps
        chosen = paths.at_steps(recording, wanted, where)
        for i, snapshot in enumerate(chosen):
            last = i == len(chosen) - 1
            if alone:
                of_run, of_run_short, dash = "", "", "solid"
                colour = _of_step(i, len(chosen), colours, dark)
            else:
                of_run, of_run_short = f"{escape(run)}, ", f"{short_run(run)}, "
                dash = "solid" if last else DASHES[i % len(DASHES)]
                colour = colours.run(place)
            step = f"step {snapshot.step}"
            curves.append(
                Curve(
                    *(run, snapshot, paths.path(snapshot)),
                    *(of_run + step, of_run_short + step, colour, dash),
                )
            )
    return curves


def places_of(
    runs: Mapping[str, Recording], places: Mapping[str, int] | None
) -> dict[str, int]:
    """The index of each run among all runs, which selects its colour."""
    return {run: i if places is None else places[run] for i, run in enumerate(runs)}


def _of_step(i, count, colours, dark):
    """Up to three steps have separate colours; more steps have those of a scale."""
    if count <= 3:
        return colours.runs[i]
    return shade(i / (count - 1), dark)


def hover(curve: Curve, rows: list[int], texts: list[str], what: str) -> list[str]:
    """The tooltip of each layer: its name, class and depth, and its text."""
    layers = curve.snapshot.layers
    return [
        f"{escape(layers[row].name)}<br>{escape(layers[row].class_name)}, depth "
        f"{curve.path.graph.depth[row]}<br>{curve.label}: {what} {texts[row]}"
        for row in rows
    ]


def add_curve(figure, curve, statistic, of=OUTPUT):
    """Draw the trunk as a line and the other layers as points; returns the values drawn."""
    found = statistics.shown(curve.snapshot, statistic, of)
    texts = statistics.texts(curve.snapshot, statistic, of)
    log = statistics.is_log(statistic)
    having = curve.snapshot.field("count", of) > 0
    for all_rows, is_trunk in ((curve.path.trunk, True), (curve.path.beside, False)):
        # A layer that does not have the quantity must not interrupt the line.
        rows = all_rows if of == OUTPUT else [row for row in all_rows if having[row]]
        if not rows:
            continue
        marked = not is_trunk or len(rows) <= MARKERS
        figure.add_scatter(
            x=curve.path.x[rows],
            y=statistics.on_axis(found.y[rows], log),
            mode=("lines+markers" if marked else "lines") if is_trunk else "markers",
            line={"color": curve.colour, "dash": curve.dash, "width": 2},
            marker={
                "color": curve.colour,
                "size": 6,
                "opacity": 1.0 if is_trunk else 0.45,
                "symbol": [
                    "circle-open" if negative else "circle"
                    for negative in found.value[rows] < 0
                ],
            },
            name=curve.name,
            legendgroup=curve.label,
            showlegend=is_trunk,
            customdata=[curve.snapshot.layers[row].name for row in rows],
            hovertext=hover(curve, rows, texts, statistics.words(statistic, of)),
            hoverinfo="text",
            row=1,
            col=1,
        )
    return [y for y in found.y if math.isfinite(y)]


def finish_axis(figure, statistic, seen, curves, colours, of=OUTPUT):
    """Set the range and the ticks of the first panel; draw limits of dtypes, and marks."""
    log = statistics.is_log(statistic)
    if log:
        low, high = statistics.window(seen, DECADES)
        for y, dtype in _limits(curves, low, high) if of == OUTPUT else ():
            figure.add_hline(
                y=statistics.on_axis(y, log),
                line={"color": colours.ink, "width": 1, "dash": "longdashdot"},
                row=1,
                col=1,
            )
            figure.add_annotation(  # on a logarithmic axis, `y` is the logarithm
                text=dtype,
                font={"size": 11},
                x=0,
                xref="x domain",
                xanchor="left",
                y=y,
                yref="y",
                yanchor="bottom",
                showarrow=False,
            )
            low, high = min(low, y), max(high, y)
    else:
        low, high = 0.0, 1.0
    spare = 0.08 * (high - low)
    if statistic != "nonfinite_fraction":
        marked = [
            (
                curve,
                statistics.shown(curve.snapshot, statistic, of).zero,
                curve.snapshot.records(of),
            )
            for curve in curves
        ]
        what = statistics.words(statistic, of)
        add_marks(figure, marked, what, (low - spare, high + spare), log, colours)
    ends = low - 1.6 * spare, high + 1.6 * spare
    axis = log_axis(*ends) if log else {"range": [*ends], "tickformat": ".0%"}
    figure.update_yaxes(
        title=statistics.label(statistic, of),
        **axis,
        row=1,
        col=1,
    )


def _limits(curves, low, high):
    """The limits of dtypes that are near the curves, as pairs of a log10 and a label."""
    dtypes = {layer.dtype for curve in curves for layer in curve.snapshot.layers}
    for dtype in sorted(dtypes & DTYPE_LIMITS.keys()):
        smallest, largest = (math.log10(limit) for limit in DTYPE_LIMITS[dtype])
        if largest <= high + _NEAR:
            yield largest, f"largest {dtype}"
        if smallest >= low - _NEAR:
            yield smallest, f"smallest normal {dtype}"


def add_marks(figure, marked, what, edges, log, colours, row=1):
    """Mark what a curve cannot show: zeros at the lower edge, NaN and infinity at the
    upper.

    The outline of a mark has the colour of its curve. Marks of the last curve are on top.

    Args:
        figure: The figure to which the marks are added.
        marked: For each curve the `Curve`, which layers are zero, and their records.
        what: The statistic in words.
        edges: Places of the marks, the lower and the upper one.
        log: Whether the axis is logarithmic; `edges` are then logarithms.
        colours: The theme.
        row: Row of the panel. Defaults to `1`.
    """
    kinds = (
        ("triangle-down", edges[0], colours.zero, "zero"),
        ("x", edges[1], colours.nonfinite, "NaN or infinite elements"),
    )
    for symbol, y, colour, label in kinds:
        x, names, texts, outlines = [], [], [], []
        for curve, zero, found in marked:
            counts, nonfinite = (records.field(found, f) for f in ("count", "nonfinite"))
            for layer in curve.path.graph.order:
                if not (zero[layer] if label == "zero" else nonfinite[layer] > 0):
                    continue
                name = curve.snapshot.layers[layer].name
                said = f"{what} is 0"
                if label != "zero":
                    said = statistics.nonfinite_text(
                        float(counts[layer]), float(nonfinite[layer])
                    )
                x.append(curve.path.x[layer])
                names.append(name)
                texts.append(f"{escape(name)}<br>{curve.label}: {said}")
                outlines.append(curve.colour)
        if x:
            figure.add_scatter(
                x=x,
                y=[statistics.on_axis(y, log)] * len(x),
                mode="markers",
                marker={
                    "symbol": symbol,
                    "size": 9,
                    "color": colour,
                    "line": {"color": outlines, "width": 1.5},
                },
                name=label,
                legendgroup=label,
                showlegend=row == 1,
                customdata=names,
                hovertext=texts,
                hoverinfo="text",
                row=row,
                col=1,
            )


def name_depths(figure, curves, bottom):
    """Write the names of layers at the axis if there are few and all runs share them."""
    names = {curve.snapshot.names for curve in curves}
    rows = curves[0].path.trunk
    deepest = max(curve.path.graph.depth.max() for curve in curves)
    ticks, title = whole(0, int(deepest)), "depth (weight layers passed)"
    if len(names) == 1 and len(curves[0].path.graph.order) <= NAMES:
        layers = [curves[0].snapshot.layers[row].name for row in rows]
        ticks = slanted(curves[0].path.x[rows], layers)
        title = "layer"
    figure.update_xaxes(**ticks)
    figure.update_xaxes(title=title, row=bottom, col=1)

"""Curves over depth: what is drawn of each run, and the axes below them."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from plotly import colors

from activation_monitor.analysis import records
from activation_monitor.analysis.growth import DTYPE_LIMITS
from activation_monitor.analysis.snapshot import Recording, Snapshot
from activation_monitor.views.figures import path as paths
from activation_monitor.views.figures import statistic as statistics
from activation_monitor.views.figures.style import (
    DASHES,
    DECADES,
    LOG_AXIS,
    NAMES,
    escape,
    short_run,
    slanted,
    theme,
    whole,
)

_NEAR = 4.0
"""Decades from the data within which a dtype's limit is drawn: beyond it would only press
the curves together."""

MARKERS = 80
"""Layers up to which each has a marker on the curve."""


class Curve(NamedTuple):
    """A snapshot to be drawn, and how. `name` is the label cut to fit a legend."""

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
    steps: Sequence[int] | int | None,
    dark: bool,
    places: Mapping[str, int] | None,
    where: str,
) -> list[Curve]:
    """What is to be drawn: of each run the snapshots at these steps.

    Of one run alone each step has a colour; of one among others each step has a dash.
    """
    statistics.check(statistic, where)
    if not runs:
        raise ValueError(f"{where}: expected a run at least. Received: none.")
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
    """Of each run its place among all that there are, by which it has its colour."""
    return {run: i if places is None else places[run] for i, run in enumerate(runs)}


def _of_step(i, count, colours, dark):
    """Of few steps each has a colour of its own; many go through one scale."""
    if count <= 3:
        return colours.runs[i]
    ends = (0.25, 1.0) if dark else (0.0, 0.85)
    at = ends[0] + (ends[1] - ends[0]) * i / (count - 1)
    rgb = colors.unlabel_rgb(colors.sample_colorscale("Viridis", [at])[0])
    return "#" + "".join(f"{round(channel):02x}" for channel in rgb)


def hover(curve: Curve, rows: list[int], texts: list[str], what: str) -> list[str]:
    """What is said of each layer where the mouse is: where it stands, and its text."""
    layers = curve.snapshot.layers
    return [
        f"{escape(layers[row].name)}<br>{escape(layers[row].class_name)}, depth "
        f"{curve.path.graph.depth[row]}<br>{curve.label}: {what} {texts[row]}"
        for row in rows
    ]


def add_curve(figure, curve, statistic):
    """The trunk as a line, what stands beside it as points; returns what is to be seen."""
    found = statistics.shown(curve.snapshot, statistic)
    texts = statistics.texts(curve.snapshot, statistic)
    log = statistics.is_log(statistic)
    for rows, is_trunk in ((curve.path.trunk, True), (curve.path.beside, False)):
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
            hovertext=hover(curve, rows, texts, statistic.replace("_", " ")),
            hoverinfo="text",
            row=1,
            col=1,
        )
    return [y for y in found.y if math.isfinite(y)]


def finish_axis(figure, statistic, seen, curves, colours):
    """Range and ticks of the first panel; limits of dtypes; marks at its edges."""
    log = statistics.is_log(statistic)
    if log:
        low, high = statistics.window(seen, DECADES)
        axis = LOG_AXIS
        for y, dtype in _limits(curves, low, high):
            figure.add_hline(
                y=statistics.on_axis(y, log),
                line={"color": colours.ink, "width": 1, "dash": "longdashdot"},
                row=1,
                col=1,
            )
            figure.add_annotation(  # on an axis with a logarithm it stands at that
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
        fraction = statistics.is_fraction(statistic)
        low, high = 0.0, 1.0 if fraction else max([1.0, *seen])
        axis = {"tickformat": ".0%"} if fraction else whole(low, high)
    spare = 0.08 * (high - low)
    if statistic != "nonfinite_fraction":
        marked = [
            (
                curve,
                statistics.shown(curve.snapshot, statistic).zero,
                curve.snapshot.records(),
            )
            for curve in curves
        ]
        what = statistic.replace("_", " ")
        add_marks(figure, marked, what, (low - spare, high + spare), log, colours)
    figure.update_yaxes(
        title=statistics.label(statistic),
        range=[low - 1.6 * spare, high + 1.6 * spare],
        **axis,
        row=1,
        col=1,
    )


def _limits(curves, low, high):
    """Limits of the layers' dtypes that the curves come near to: log10 and label."""
    dtypes = {layer.dtype for curve in curves for layer in curve.snapshot.layers}
    for dtype in sorted(dtypes & DTYPE_LIMITS.keys()):
        smallest, largest = (math.log10(limit) for limit in DTYPE_LIMITS[dtype])
        if largest <= high + _NEAR:
            yield largest, f"largest {dtype}"
        if smallest >= low - _NEAR:
            yield smallest, f"smallest normal {dtype}"


def add_marks(figure, marked, what, edges, log, colours, row=1):
    """Mark what a curve cannot show: zeros below, NaN and infinities above.

    The outline of a mark has the curve's colour; the last curve's are on top.

    Args:
        figure: To which the marks are added.
        marked: Of each curve, the `Curve`, which layers are zero, and their records.
        what: The statistic in words.
        edges: Where the marks stand, below and above.
        log: Whether these are logarithms.
        colours: The theme.
        row: Of the panel.
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
                    said = statistics.nonfinite_text(counts[layer], nonfinite[layer])
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
    """Names of the layers below the axis where they are few and all runs have them."""
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

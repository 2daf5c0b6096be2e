"""One statistic of one layer over the steps, run by run."""

import math
from collections.abc import Mapping

import numpy as np
from plotly import graph_objects

from activation_monitor.analysis.records import OUTPUT
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views.figures import edge_marks, labels, step_axis
from activation_monitor.views.figures import quantity as quantities
from activation_monitor.views.figures import statistic as statistics
from activation_monitor.views.figures.colours import theme
from activation_monitor.views.figures.curves import LOOKS, front_of, places_of
from activation_monitor.views.figures.labels import Label
from activation_monitor.views.figures.style import (
    DECADES,
    dress,
    escape,
    short,
    short_run,
    with_edges,
)

_POINTS = 1000
"""Maximum number of steps of a line. More are thinned evenly."""

_MARKERS = 40
"""Maximum number of steps for which a line has markers."""


def statistic_over_time(
    runs: Mapping[str, Recording],
    layer: str,
    statistic: str = "rms",
    dark: bool = False,
    places: Mapping[str, int] | None = None,
    of: str = OUTPUT,
    focus: str | None = None,
) -> graph_objects.Figure:
    """Draw one statistic of one layer over the steps, with a line for each run.

    Sizes have a logarithmic axis, on which zeros are marked at the lower edge. Steps with
    NaN or infinite elements are marked at the upper edge.

    Args:
        runs: Recordings by name. Runs without this layer are left out.
        layer: Name of the layer.
        statistic: One of `STATISTICS_SHOWN`. Defaults to `"rms"`.
        dark: Whether the colours are for a dark page. Defaults to `False`.
        places: Name of a run to its index among all runs, which selects its colour when
            only some runs are drawn. Defaults to `None`, the order of `runs`.
        of: The quantity, a key of `records.QUANTITIES`. Defaults to `"output"`.
        focus: Name of the run in front; the lines of others are thinner. Defaults to
            `None`, the first run that has the layer.

    Raises:
        ValueError: If no run has a layer of that name, `statistic` or `focus` is invalid,
            or the quantity is unknown or was not measured.
    """
    where = "statistic_over_time"
    statistics.check(statistic, where, of)
    known = quantities.runs_with(runs, layer, of, where)
    front = front_of(runs, focus, where)
    front = front if front in known else next(iter(known))
    colours, number = theme(dark), places_of(runs, places)
    figure = graph_objects.Figure()
    log, what = statistics.is_log(statistic), statistics.words(statistic, of)
    drawn = {
        run: _series(known[run], layer, statistic, of)
        for run in sorted(known, key=lambda run: run == front)
    }
    low, high = 0.0, 1.0
    if log:
        seen = np.concatenate([y for _, y, *_ in drawn.values()])
        low, high = statistics.window(seen, DECADES)
    ends, kinds = [], edge_marks.kinds(colours)
    edges, axis = with_edges(low, high, log)
    front_has = {
        kind for kind, there in zip(kinds, drawn[front][2:4], strict=True) if there.any()
    }
    for run, (steps, y, zero, nonfinite, said) in drawn.items():
        colour, look = colours.run(number[run]), LOOKS[run == front, True]
        prefix = "" if len(runs) == 1 and places is None else f"{escape(run)}: "
        texts = [
            f"{prefix}step {step}: {what} {text}"
            for step, text in zip(steps, said, strict=True)
        ]
        figure.add_scatter(
            x=steps,
            y=statistics.on_axis(y, log),
            mode="lines+markers" if len(steps) <= _MARKERS else "lines",
            line={"color": colour, "width": look.width},
            marker={"size": look.marker, "color": colour},
            opacity=look.opacity,
            name=f"{short_run(run)}: {what}" if prefix else what,
            legendgroup=prefix,
            showlegend=False,
            customdata=[layer] * len(steps),
            hovertext=texts,
            hoverinfo="text",
        )
        for kind, there, edge in zip(kinds, (zero, nonfinite), edges, strict=True):
            listed = run == front or kind not in front_has
            where_marked = np.flatnonzero(there), statistics.on_axis(edge, log)
            marks = _marks(layer, steps, texts, *where_marked, kind)
            look = edge_marks.look(*kind[:2], colour, run == front, len(marks["x"]))
            if marks["x"]:
                figure.add_scatter(**marks, marker=look, showlegend=listed)
        there = np.flatnonzero(zero | nonfinite | np.isfinite(y))
        if len(runs) > 1 and len(there):
            last = there[-1]
            at = edges[0] if zero[last] else float(y[last])
            at = at if math.isfinite(at) else edges[1]
            ends.append(Label(labels.cut(run), colour, steps[last], at))
    figure.update_yaxes(title=statistics.label(statistic, of), **axis)
    steps = [step for recording in known.values() for step in recording.steps]
    figure.update_xaxes(title="step", **step_axis.axis(steps))
    title = f"{statistics.label(statistic, of)} of {short(layer, 60)} over the steps"
    if of != OUTPUT:
        title = f"{short(layer, 60)}: {statistics.label(statistic, of)} over the steps"
    dress(figure, colours, title, height=400)
    return labels.add(figure, ends)


def _series(recording, layer, statistic, of):
    """Steps, places on the scale, zeros, steps with NaN, and texts of a layer."""
    drawn = [recording[i] for i in statistics.evenly(len(recording), _POINTS)]
    found = []
    for snapshot in drawn:
        if layer in snapshot.names:
            row = snapshot.names.index(layer)
            shown = statistics.shown(snapshot, statistic, of)
            text = statistics.texts(snapshot, statistic, of)[row]
            one = (shown.y[row], bool(shown.zero[row]), bool(shown.nonfinite[row]))
            found.append((snapshot.step, *one, text))
    steps, y, zero, nonfinite, texts = zip(*found, strict=True)
    return [*steps], np.array(y, float), np.array(zero), np.array(nonfinite), texts


def _marks(layer, steps, texts, at, y, kind):
    """Marks at steps at which a layer has no place on the axis."""
    return {
        "x": [steps[i] for i in at],
        "y": [y] * len(at),
        "mode": "markers",
        "name": kind[-1],
        "legendgroup": kind[-1],
        "customdata": [layer] * len(at),
        "hovertext": [texts[i] for i in at],
        "hoverinfo": "text",
    }

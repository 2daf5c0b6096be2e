"""The size of the signal over depth: of one run at some steps, of several runs."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from plotly import colors, graph_objects, subplots

from activation_monitor.analysis import moments
from activation_monitor.analysis.depth_profile import DTYPE_LIMITS
from activation_monitor.analysis.depth_profile import depth_profile as read_along_depth
from activation_monitor.analysis.snapshot import History, Snapshot
from activation_monitor.views.figures import path as paths
from activation_monitor.views.figures import statistic as statistics
from activation_monitor.views.figures.style import (
    DASHES,
    dress,
    escape,
    short,
    theme,
    translucent,
)

_WITHIN = 3.0
"""Standard deviations of chance on either side of the expected band, as in
`Segment.interval`."""

_NEAR = 4.0
"""Decades from the data within which a dtype's limit is drawn: beyond it would only press
the curves together."""

_MARKERS = 80
"""Layers up to which each has a marker on the curve."""

_NAMES = 12
"""Layers up to which their names fit below the axis."""


class _Curve(NamedTuple):
    """A snapshot to be drawn, and how."""

    run: str
    snapshot: Snapshot
    path: paths.Path
    label: str
    colour: str
    dash: str


def depth_profile(
    runs: Mapping[str, History],
    statistic: str = "rms",
    steps: Sequence[int] | None = None,
    dark: bool = False,
) -> graph_objects.Figure:
    """A statistic over depth, one curve for each step and run.

    The curve goes through the trunk, the tensors that every path passes; the layers
    beside it are points. For rms the band shows where the law of a well scaled network
    expects the curve, from its first tensor on. Gradients, where they were recorded, have
    a panel of their own.

    Args:
        runs: Histories by name.
        statistic: One of `STATISTICS_SHOWN`.
        steps: Which steps; of each run the last snapshot up to it is drawn. None: the
            first and the last.
        dark: Colours for a dark page.

    Raises:
        ValueError: If there is nothing to draw, or no such statistic.
    """
    curves = _curves(runs, statistic, steps, dark, "depth_profile")
    colours = theme(dark)
    backward = statistic == "rms" and any(c.snapshot.gradients is not None for c in curves)
    figure = subplots.make_subplots(
        rows=2 if backward else 1,
        shared_xaxes=True,
        vertical_spacing=0.06,
        row_heights=[0.62, 0.38] if backward else None,
    )
    seen = []
    if statistic == "rms":
        seen += _add_bands(figure, curves)
    seen += [y for curve in curves for y in _add_curve(figure, curve, statistic)]
    _finish_axis(figure, statistic, seen, curves, colours)
    if backward:
        _add_gradients(figure, curves, colours)
    _name_depths(figure, curves, 2 if backward else 1)
    title = f"{statistics.label(statistic)} over depth"
    return dress(figure, colours, title, height=640 if backward else 460)


def comparison(
    runs: Mapping[str, History], statistic: str = "rms", dark: bool = False
) -> graph_objects.Figure:
    """Runs over depth at their first and last step, and their ratio to the first run.

    Layers are held together by name; where two runs share none, by their place.

    Args:
        runs: Two histories by name at least; the first is what the others are held
            against.
        statistic: One of `STATISTICS_SHOWN`.
        dark: Colours for a dark page.

    Raises:
        ValueError: If there are fewer than two runs, nothing to draw, or no such
            statistic.
    """
    if len(runs) < 2:
        raise ValueError(
            "comparison: expected two runs at least. Received: "
            f"{', '.join(runs) or 'none'}. Of one run `depth_profile` shows the steps."
        )
    curves = _curves(runs, statistic, None, dark, "comparison")
    colours = theme(dark)
    figure = subplots.make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.06)
    seen = [y for curve in curves for y in _add_curve(figure, curve, statistic)]
    _finish_axis(figure, statistic, seen, curves, colours)
    first = next(iter(runs))
    reference = [curve for curve in curves if curve.run == first]
    ratios = []
    for curve in curves:
        if curve.run != first:
            is_last = curve.snapshot is runs[curve.run][-1]
            ratios += _add_ratio(figure, curve, reference[-1 if is_last else 0], statistic)
    log = statistics.is_log(statistic)
    low, high = statistics.window([*ratios, 0.0], 1.0 if log else 0.1)
    what = "ratio" if log else "difference"
    figure.update_yaxes(
        title=f"{what} to {short(first)}",
        range=[low - 0.08 * (high - low), high + 0.08 * (high - low)],
        **(_POWERS if log else {}),
        row=2,
    )
    figure.add_hline(y=0, line={"color": colours.ink, "width": 1}, row=2)
    _name_depths(figure, curves, 2)
    title = f"{statistics.label(statistic)} over depth, run by run"
    return dress(figure, colours, title, height=640)


_POWERS = {"tickprefix": "10<sup>", "ticksuffix": "</sup>"}


def _curves(runs, statistic, steps, dark, where):
    """What is to be drawn: of each run the snapshots at these steps."""
    statistics.check(statistic, where)
    if not runs:
        raise ValueError(f"{where}: expected a run at least. Received: none.")
    colours, curves = theme(dark), []
    for number, (run, history) in enumerate(runs.items()):
        paths.check(history, where)
        wanted = (history[0].step, history[-1].step) if steps is None else steps
        chosen = {s.step: s for s in (paths.at_step(history, step) for step in wanted)}
        for i, snapshot in enumerate(chosen.values()):
            last = i == len(chosen) - 1
            if len(runs) == 1:
                label, dash = f"step {snapshot.step}", "solid"
                colour = _of_step(i, len(chosen), colours, dark)
            else:
                label = f"{escape(run)}, step {snapshot.step}"
                dash = "solid" if last else DASHES[i % len(DASHES)]
                colour = colours.runs[number % len(colours.runs)]
            here = paths.path(snapshot)
            curves.append(_Curve(run, snapshot, here, label, colour, dash))
    return curves


def _of_step(i, count, colours, dark):
    """Of few steps each has a colour of its own; many go through one scale."""
    if count <= 3:
        return colours.runs[i]
    ends = (0.25, 1.0) if dark else (0.0, 0.85)
    at = ends[0] + (ends[1] - ends[0]) * i / (count - 1)
    rgb = colors.unlabel_rgb(colors.sample_colorscale("Viridis", [at])[0])
    return "#" + "".join(f"{round(channel):02x}" for channel in rgb)


def _hover(curve, rows, values, what):
    layers = curve.snapshot.layers
    return [
        f"{escape(layers[row].name)}<br>{escape(layers[row].class_name)}, depth "
        f"{curve.path.graph.depth[row]}<br>{curve.label}: {what} {values[row]:.4g}"
        for row in rows
    ]


def _add_curve(figure, curve, statistic):
    """The trunk as a line, what stands beside it as points; returns what is to be seen."""
    found = statistics.shown(curve.snapshot, statistic)
    for rows, is_trunk in ((curve.path.trunk, True), (curve.path.beside, False)):
        if not rows:
            continue
        marked = not is_trunk or len(rows) <= _MARKERS
        figure.add_scatter(
            x=curve.path.x[rows],
            y=found.y[rows],
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
            name=curve.label,
            legendgroup=curve.label,
            showlegend=is_trunk,
            customdata=[curve.snapshot.layers[row].name for row in rows],
            hovertext=_hover(curve, rows, found.value, statistic.replace("_", " ")),
            hoverinfo="text",
            row=1,
            col=1,
        )
    return [y for y in found.y if math.isfinite(y)]


def _add_bands(figure, curves):
    """Where the law expects each run's first curve; returns the bands' ends."""
    ends, told = [], False
    for curve in {c.run: c for c in reversed(curves)}.values():
        for segment in read_along_depth(curve.snapshot).segments:
            measured = segment.measured
            if len(measured) < 2:
                continue
            layers = np.array([point.depth for point in measured]) - measured[0].depth
            x = curve.path.x[[point.row for point in measured]]
            # Of both mean and variance each layer has an equal part.
            share = layers / segment.layers
            middle = math.log10(measured[0].rms) + segment.chance_mean * share
            wide = _WITHIN * segment.chance_sd * np.sqrt(share)
            low, high = middle - wide, middle + wide
            figure.add_scatter(
                x=np.concatenate([x, x[::-1]]),
                y=np.concatenate([high, low[::-1]]),
                fill="toself",
                fillcolor=translucent(curve.colour, 0.18),
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                name="expected of a well scaled network",
                legendgroup="expected",
                showlegend=not told,
                row=1,
                col=1,
            )
            told = True
            ends += [*low, *high]
    return ends


def _finish_axis(figure, statistic, seen, curves, colours):
    """Range and ticks of the first panel; limits of dtypes; marks at its edges."""
    if not statistics.is_log(statistic):
        top = 1.0 if statistics.is_fraction(statistic) else max([1.0, *seen])
        low, high, ticks = 0.0, top, {}
        if statistics.is_fraction(statistic):
            ticks = {"tickformat": ".0%"}
    else:
        low, high = statistics.window(seen, 2.0)
        ticks = _POWERS
        for y, dtype in _limits(curves, low, high):
            figure.add_hline(
                y=y,
                line={"color": colours.ink, "width": 1, "dash": "longdashdot"},
                annotation={"text": dtype, "font": {"size": 11}},
                annotation_position="top left",
                row=1,
                col=1,
            )
            low, high = min(low, y), max(high, y)
    spare = 0.08 * (high - low)
    if statistic != "nonfinite_fraction":
        _add_marks(figure, statistic, curves, low - spare, high + spare, colours)
    figure.update_yaxes(
        title=statistics.label(statistic),
        range=[low - 1.6 * spare, high + 1.6 * spare],
        **ticks,
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


def _add_marks(figure, statistic, curves, bottom, top, colours):
    """What a curve cannot show: zeros below, NaN and infinities above."""
    marks = (
        ("zero", bottom, "triangle-down", colours.zero, "zero"),
        ("nonfinite", top, "x", colours.nonfinite, "NaN or infinite elements"),
    )
    for name, y, symbol, colour, label in marks:
        x, names, texts = [], [], []
        for curve in curves:
            found = statistics.shown(curve.snapshot, statistic)
            share = curve.snapshot.statistic("nonfinite_fraction")
            for row in curve.path.graph.order:
                if not getattr(found, name)[row]:
                    continue
                layer = curve.snapshot.layers[row].name
                what = f"{share[row]:.0%} NaN or infinite" if name == "nonfinite" else "0"
                x.append(curve.path.x[row])
                names.append(layer)
                texts.append(
                    f"{escape(layer)}<br>{curve.label}: {statistic.replace('_', ' ')} is 0"
                    if name == "zero"
                    else f"{escape(layer)}<br>{curve.label}: {what}"
                )
        if x:
            figure.add_scatter(
                x=x,
                y=[y] * len(x),
                mode="markers",
                marker={
                    "symbol": symbol,
                    "size": 9,
                    "color": colour,
                    "line": {"color": colours.ink, "width": 1},
                },
                name=label,
                customdata=names,
                hovertext=texts,
                hoverinfo="text",
                row=1,
                col=1,
            )


def _add_gradients(figure, curves, colours):
    """The backward signal, below: rms of the loss's gradients by the tensors."""
    seen = []
    for curve in curves:
        if curve.snapshot.gradients is None:
            continue
        value = moments.STATISTICS["rms"](curve.snapshot.gradients)
        y = statistics.log10(value)
        rows = curve.path.trunk
        figure.add_scatter(
            x=curve.path.x[rows],
            y=y[rows],
            mode="lines+markers" if len(rows) <= _MARKERS else "lines",
            line={"color": curve.colour, "dash": curve.dash, "width": 2},
            marker={"size": 6, "color": curve.colour},
            name=curve.label,
            legendgroup=curve.label,
            showlegend=False,
            customdata=[curve.snapshot.layers[row].name for row in rows],
            hovertext=_hover(curve, rows, value, "rms of the gradient"),
            hoverinfo="text",
            row=2,
            col=1,
        )
        seen += list(y[rows])
    low, high = statistics.window(seen, 2.0)
    spare = 0.08 * (high - low)
    title, limits = "rms of the gradient", [low - spare, high + spare]
    figure.update_yaxes(title=title, range=limits, **_POWERS, row=2, col=1)


def _add_ratio(figure, curve, reference, statistic):
    """A run over the first one, layer by layer; returns what is to be seen."""
    of_run = statistics.shown(curve.snapshot, statistic).y
    of_first = statistics.shown(reference.snapshot, statistic).y
    partner = {name: row for row, name in enumerate(reference.snapshot.names)}
    if not partner.keys() & set(curve.snapshot.names):
        pairs = zip(curve.path.trunk, reference.path.trunk, strict=False)
    else:
        pairs = (
            (row, partner.get(curve.snapshot.layers[row].name)) for row in curve.path.trunk
        )
    pairs = [(row, other) for row, other in pairs if other is not None]
    if not pairs:
        return []
    rows = [row for row, _ in pairs]
    y = np.array([of_run[row] - of_first[other] for row, other in pairs])
    figure.add_scatter(
        x=curve.path.x[rows],
        y=y,
        mode="lines+markers" if len(rows) <= _MARKERS else "lines",
        line={"color": curve.colour, "dash": curve.dash, "width": 2},
        marker={"size": 6, "color": curve.colour},
        name=curve.label,
        legendgroup=curve.label,
        showlegend=False,
        customdata=[curve.snapshot.layers[row].name for row in rows],
        hovertext=[
            f"{escape(curve.snapshot.layers[row].name)}<br>{curve.label}: "
            + (f"{10.0**d:.4g} times" if statistics.is_log(statistic) else f"{d:+.4g}")
            for row, d in zip(rows, y, strict=True)
        ],
        hoverinfo="text",
        row=2,
        col=1,
    )
    return list(y)


def _name_depths(figure, curves, bottom):
    """Names of the layers below the axis where they are few and all runs have them."""
    names = {curve.snapshot.names for curve in curves}
    rows = curves[0].path.trunk
    ticks = {}
    if len(names) == 1 and len(curves[0].path.graph.order) <= _NAMES:
        ticks = {
            "tickvals": curves[0].path.x[rows],
            "ticktext": [short(curves[0].snapshot.layers[row].name) for row in rows],
            "tickangle": -25,
        }
    figure.update_xaxes(**ticks)
    title = "layer" if ticks else "depth (weight layers passed)"
    figure.update_xaxes(title=title, row=bottom, col=1)

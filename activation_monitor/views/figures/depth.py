"""The size of the signal over depth, for one run at some steps or for several runs."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from plotly import graph_objects, subplots

from activation_monitor.analysis import records
from activation_monitor.analysis.comparison import pair_layers
from activation_monitor.analysis.depth_profile import depth_profile as read_along_depth
from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.records import OUTPUT
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views.figures import marks
from activation_monitor.views.figures import statistic as statistics
from activation_monitor.views.figures.curves import (
    MARKERS,
    add_curve,
    add_marks,
    curves_of,
    finish_axis,
    hover,
    name_depths,
)
from activation_monitor.views.figures.style import (
    DECADES,
    dress,
    escape,
    log_axis,
    short,
    theme,
    translucent,
)

_WITHIN = 3.0
"""Half the width of the expected band, in standard deviations of chance, as in
`GrowthRange.interval`."""

_EXPECTED = "expected range of a well-scaled network"


def depth_profile(
    runs: Mapping[str, Recording],
    statistic: str = "rms",
    steps: Sequence[float] | float | None = None,
    dark: bool = False,
    places: Mapping[str, int] | None = None,
    of: str = OUTPUT,
    marked: Mapping[str, Finding] | None = None,
) -> graph_objects.Figure:
    """Draw a statistic over depth, with one curve for each step and run.

    The curve connects the layers of the trunk, which every path passes. Other layers are
    points. For the rms of outputs, a band shows the range that the law predicts for a
    well-scaled network, starting from the first tensor of the curve. Gradients, if they
    were recorded, are in a second panel.

    Args:
        runs: Recordings by name.
        statistic: One of `STATISTICS_SHOWN`. Defaults to `"rms"`.
        steps: A step or several. For each, the last snapshot up to it is drawn. Defaults
            to `None`, the first and the last step.
        dark: Whether the colours are for a dark page. Defaults to `False`.
        places: Name of a run to its index among all runs, which selects its colour when
            only some runs are drawn. Defaults to `None`, the order of `runs`.
        of: The quantity, a key of `records.QUANTITIES`, for example `"output_gradient"`.
            Layers that do not have it are left out. Defaults to `"output"`.
        marked: Name of a run to one of its findings, whose layers get a band. Defaults to
            `None`.

    Raises:
        ValueError: If there is nothing to draw, `statistic` or `steps` is invalid, or the
            quantity is unknown or was not measured.
    """
    curves = curves_of(runs, statistic, steps, dark, places, "depth_profile", of)
    colours = theme(dark)
    outputs = statistic == "rms" and of == OUTPUT
    backward = outputs and any(
        records.OUTPUT_GRADIENT in curve.snapshot.quantities for curve in curves
    )
    figure = subplots.make_subplots(
        rows=2 if backward else 1,
        shared_xaxes=True,
        vertical_spacing=0.06,
        row_heights=[0.62, 0.38] if backward else None,
    )
    seen = _add_bands(figure, curves, colours) if outputs else []
    seen += [y for curve in curves for y in add_curve(figure, curve, statistic, of)]
    finish_axis(figure, statistic, seen, curves, colours, of)
    if backward:
        _add_gradients(figure, curves, colours)
    name_depths(figure, curves, 2 if backward else 1)
    for run, finding in (marked or {}).items():
        curve = next(curve for curve in curves if curve.run == run)
        marks.along_depth(figure, finding, curve.snapshot.names, curve.path, colours)
    title = f"{statistics.label(statistic, of)} over depth"
    return dress(figure, colours, title, 660 if backward else 480)


def comparison(
    runs: Mapping[str, Recording],
    statistic: str = "rms",
    dark: bool = False,
    places: Mapping[str, int] | None = None,
    of: str = OUTPUT,
) -> graph_objects.Figure:
    """Draw runs over depth at their first and last step, and their ratio to the first run.

    Layers are matched by name, or by their order if two runs have no name in common.

    Args:
        runs: At least two recordings by name. The first one is the reference.
        statistic: One of `STATISTICS_SHOWN`. Defaults to `"rms"`.
        dark: Whether the colours are for a dark page. Defaults to `False`.
        places: As in `depth_profile`.
        of: As in `depth_profile`. Defaults to `"output"`.

    Raises:
        ValueError: If there are fewer than two runs, there is nothing to draw, `statistic`
            is invalid, or the quantity is unknown or was not measured.
    """
    if len(runs) < 2:
        raise ValueError(
            "comparison: expected at least two runs. Received: "
            f"{', '.join(runs) or 'none'}. Use `depth_profile` for the steps of one run."
        )
    curves = curves_of(runs, statistic, None, dark, places, "comparison", of)
    colours = theme(dark)
    figure = subplots.make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.06)
    outputs = statistic == "rms" and of == OUTPUT
    seen = _add_bands(figure, curves, colours) if outputs else []
    seen += [y for curve in curves for y in add_curve(figure, curve, statistic, of)]
    finish_axis(figure, statistic, seen, curves, colours, of)
    first = next(iter(runs))
    reference = [curve for curve in curves if curve.run == first]
    ratios = []
    for curve in curves:
        if curve.run != first:
            is_last = curve.snapshot is runs[curve.run][-1]
            compared_with = reference[-1 if is_last else 0]
            ratios += _add_ratio(figure, curve, compared_with, statistic, of)
    log = statistics.is_log(statistic)
    low, high = statistics.window([*ratios, 0.0], DECADES if log else 0.1)
    spare = 0.125 * (high - low)
    what = "ratio" if log else "difference"
    ends = low - spare, high + spare
    axis = log_axis(*ends) if log else {"range": [*ends], "tickformat": ".0%"}
    figure.update_yaxes(title=f"{what} to {short(first)}", **axis, row=2)
    figure.add_hline(
        y=statistics.on_axis(0.0, log),
        line={"color": colours.ink, "width": 1},
        # A checker infers the type from the default, "all".
        row=2,  # pyright: ignore[reportArgumentType]
    )
    name_depths(figure, curves, 2)
    title = f"{statistics.label(statistic, of)} over depth, run by run"
    return dress(figure, colours, title, 680)


def _add_bands(figure, curves, colours):
    """Draw the range that the law predicts for each run's first curve; returns its ends."""
    ends, look = [], {"fill": "toself", "mode": "lines", "line": {"width": 0}}
    for curve in {c.run: c for c in reversed(curves)}.values():
        for growth_range in read_along_depth(curve.snapshot).growth_ranges:
            measured = growth_range.measured
            if len(measured) < 2:
                continue
            layers = np.array([point.depth for point in measured]) - measured[0].depth
            x = curve.path.x[[point.row for point in measured]]
            # Each layer contributes an equal part of the mean and of the variance.
            share = layers / growth_range.layers
            middle = math.log10(measured[0].rms) + growth_range.chance_mean * share
            wide = _WITHIN * growth_range.chance_sd * np.sqrt(share)
            low, high = middle - wide, middle + wide
            figure.add_scatter(
                x=np.concatenate([x, x[::-1]]),
                y=statistics.on_axis(np.concatenate([high, low[::-1]]), True),
                fillcolor=translucent(curve.colour, 0.18),
                hoverinfo="skip",
                name=_EXPECTED,
                legendgroup="expected",
                showlegend=False,
                row=1,
                col=1,
                **look,
            )
            ends += [*low, *high]
    if ends:  # the entry in the legend has a neutral colour
        figure.add_scatter(
            x=[None],
            y=[None],
            fillcolor=translucent(colours.ink, 0.18),
            name=_EXPECTED,
            legendgroup="expected",
            row=1,
            col=1,
            **look,
        )
    return ends


def _add_gradients(figure, curves, colours):
    """Draw the backward signal in the second panel: rms of the gradients of the loss."""
    seen, marked = [], []
    for curve in curves:
        back = curve.snapshot.quantities.get(records.OUTPUT_GRADIENT)
        if back is None:
            continue
        value = records.STATISTICS["rms"](back)
        marked.append((curve, value == 0, back))
        y = statistics.log10(value)
        there = records.field(back, "count") > 0
        texts = [statistics.number(one, "rms") for one in value.tolist()]
        for all_rows, is_trunk in ((curve.path.trunk, True), (curve.path.beside, False)):
            # The input of a layer may lack a gradient, which must not interrupt the line.
            rows = [row for row in all_rows if there[row]]
            if rows or is_trunk:
                said = hover(curve, rows, texts, "rms of the gradient")
                _add_line_below(figure, curve, rows, y[rows], True, said, is_trunk)
                seen += list(y[rows])
    low, high = statistics.window(seen, DECADES)
    spare = 0.08 * (high - low)
    title = "rms of the gradient"
    add_marks(figure, marked, title, (low - spare, high + spare), True, colours, row=2)
    axis = log_axis(low - 1.6 * spare, high + 1.6 * spare)
    figure.update_yaxes(title=title, **axis, row=2, col=1)


def _add_ratio(figure, curve, reference, statistic, of):
    """Draw the ratio of a run to the first, layer by layer; returns the values drawn."""
    of_run = statistics.shown(curve.snapshot, statistic, of).y
    of_first = statistics.shown(reference.snapshot, statistic, of).y
    trunk = {*curve.path.trunk}
    if of != OUTPUT:  # a layer that does not have it must not interrupt the line
        trunk &= {*np.flatnonzero(curve.snapshot.field("count", of) > 0).tolist()}
    pairs = [
        (row, other)
        for row, other in pair_layers(curve.snapshot, reference.snapshot)
        if row in trunk
    ]
    if not pairs:
        return []
    rows = [row for row, _ in pairs]
    y = np.array([of_run[row] - of_first[other] for row, other in pairs])
    log = statistics.is_log(statistic)
    said = [
        f"{escape(curve.snapshot.layers[row].name)}<br>{curve.label}: "
        + (f"{10.0**d:.4g} times" if log else f"{100 * d:+.4g}%")
        for row, d in zip(rows, y, strict=True)
    ]
    _add_line_below(figure, curve, rows, y, log, said)
    return list(y)


def _add_line_below(figure, curve, rows, y, log, said, is_trunk=True):
    """Draw a curve in the second panel, or points for layers beside the trunk. It shares
    the entry of the first panel in the legend."""
    mode = "lines+markers" if len(rows) <= MARKERS else "lines"
    figure.add_scatter(
        x=curve.path.x[rows],
        y=statistics.on_axis(y, log),
        mode=mode if is_trunk else "markers",
        line={"color": curve.colour, "dash": curve.dash, "width": 2},
        marker={"size": 6, "color": curve.colour, "opacity": 1.0 if is_trunk else 0.45},
        name=curve.name,
        legendgroup=curve.label,
        showlegend=False,
        customdata=[curve.snapshot.layers[row].name for row in rows],
        hovertext=said,
        hoverinfo="text",
        row=2,
        col=1,
    )

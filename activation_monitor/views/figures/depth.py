"""The signal over depth, for one run at some steps or for several runs."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from plotly import graph_objects, subplots

from activation_monitor.analysis import records
from activation_monitor.analysis.comparison import pair_layers
from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.records import OUTPUT
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views.figures import labels, marks
from activation_monitor.views.figures import statistic as statistics
from activation_monitor.views.figures.colours import theme
from activation_monitor.views.figures.curves import (
    Curve,
    curves_of,
    dashes_in_words,
    front_of,
    name_depths,
)
from activation_monitor.views.figures.labels import Label
from activation_monitor.views.figures.panel import add_line, add_panel
from activation_monitor.views.figures.style import (
    DECADES,
    add_key,
    dress,
    escape,
    log_axis,
    short,
)


def depth_profile(
    runs: Mapping[str, Recording],
    statistic: str = "rms",
    steps: Sequence[float] | float | None = None,
    dark: bool = False,
    places: Mapping[str, int] | None = None,
    of: str = OUTPUT,
    marked: Mapping[str, Finding] | None = None,
    focus: str | None = None,
    chosen: Sequence[str] = (),
) -> graph_objects.Figure:
    """Draw a statistic over depth, forward and backward, with a line for each run and step.

    A line connects the layers of the trunk, which every path passes, where no layer that
    has the quantity is between them without being on the line. Other layers are
    points, with more than three runs only those of the run in front. Each run has its own
    colour, and its name at the end of the line of its last step; with one run, each line
    has its step there. Lines that meet at their ends have their names at the heights of
    the last depth at which they are still apart. The last step is a solid line.

    A second panel has the other direction. Below outputs these are the gradients, with the
    same statistic if gradients have it, else with their rms. Below gradients, weights and
    updates it is the rms of the outputs. There is one panel if the other quantity was not
    measured. For the rms of outputs, a grey band shows the range that the law predicts for
    a well-scaled network, starting from the first tensor of the run in front.

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
        focus: Name of the run in front, which has thick lines and the band of the law.
            Defaults to `None`, the first run.
        chosen: Names of layers to name at their depth. Unknown names have no effect.
            Defaults to `()`.

    Raises:
        ValueError: If there is nothing to draw, `statistic`, `steps` or `focus` is invalid,
            or the quantity is unknown or was not measured.
    """
    where = "depth_profile"
    curves = curves_of(runs, statistic, steps, dark, places, where, of, focus, marked)
    colours = theme(dark)
    panels = [(statistic, of), *_other(statistic, of, curves)]
    figure = subplots.make_subplots(
        rows=len(panels),
        shared_xaxes=True,
        vertical_spacing=0.06,
        row_heights=[0.62, 0.38][: len(panels)],
    )
    ends = []
    for i, panel in enumerate(panels):
        ends += add_panel(figure, curves, *panel, colours, i + 1)
    name_depths(figure, curves, len(panels))
    for run, finding in (marked or {}).items():
        curve = next(curve for curve in curves if curve.run == run)
        marks.along_depth(figure, finding, curve.snapshot, curve.path, colours)
    rows = marks.chosen_along_depth(figure, chosen, curves, colours)
    above = add_key(figure, dashes_in_words(curves), rows)
    title = f"{statistics.label(statistic, of)} over depth"
    dress(figure, colours, title, 660 if len(panels) > 1 else 480, above)
    return labels.add(figure, ends)


def _other(statistic: str, of: str, curves: Sequence[Curve]) -> list[tuple[str, str]]:
    """The statistic and the quantity of the second panel, in a list; empty for none."""
    if of != OUTPUT:
        return [("rms", OUTPUT)]
    gradient = records.OUTPUT_GRADIENT
    if not any(gradient in curve.snapshot.quantities for curve in curves):
        return []
    offered = (gradient, statistic) in statistics.readings([gradient])
    return [(statistic if offered else "rms", gradient)]


def comparison(
    runs: Mapping[str, Recording],
    statistic: str = "rms",
    dark: bool = False,
    places: Mapping[str, int] | None = None,
    of: str = OUTPUT,
    reference: str | None = None,
    focus: str | None = None,
) -> graph_objects.Figure:
    """Draw runs over depth at their first and last step, and their ratio to a reference.

    Layers are matched by name, or by their order if two runs have no name in common.

    Args:
        runs: At least two recordings by name.
        statistic: One of `STATISTICS_SHOWN`. Defaults to `"rms"`.
        dark: Whether the colours are for a dark page. Defaults to `False`.
        places: As in `depth_profile`.
        of: As in `depth_profile`. Defaults to `"output"`.
        reference: Name of the run with which the others are compared. Defaults to `None`,
            the first run.
        focus: As in `depth_profile`. Defaults to `None`, the reference.

    Raises:
        ValueError: If there are fewer than two runs, there is nothing to draw, `statistic`,
            `reference` or `focus` is invalid, or the quantity is unknown or was not
            measured.
    """
    if len(runs) < 2:
        raise ValueError(
            "comparison: expected at least two runs. Received: "
            f"{', '.join(runs) or 'none'}. Use `depth_profile` for the steps of one run."
        )
    first = front_of(runs, reference, "comparison", "reference")
    curves = curves_of(
        *(runs, statistic, None, dark, places, "comparison", of, focus or first)
    )
    colours = theme(dark)
    figure = subplots.make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.06)
    ends = [
        label._replace(text=labels.wrapped(label.text, "(reference)"))
        if label.text == labels.cut(first)
        else label
        for label in add_panel(figure, curves, statistic, of, colours)
    ]
    compared = [curve for curve in curves if curve.run == first]
    ratios = []
    for curve in curves:
        if curve.run != first:
            is_last = curve.snapshot is runs[curve.run][-1]
            found = _add_ratio(figure, curve, compared[-1 if is_last else 0], statistic, of)
            ratios += [y for _, y in found]
            end = labels.end_of(*zip(*found, strict=True)) if found else None
            # Elsewhere the name would be on other lines; it is in the first panel.
            if curve.end and end is not None and end[0] >= 0.5 * np.nanmax(curve.path.x):
                line = [(float(x), float(y)) for x, y in found if math.isfinite(y)]
                ends.append(Label(curve.end, curve.colour, *end, 2, line))
    name_depths(figure, curves, 2)
    _finish_ratios(figure, statistic, ratios, short(first), colours)
    last = max(float(np.nanmax(curve.path.x)) for curve in curves)
    line = [(0.0, 0.0), (last, 0.0)]
    ends.append(Label("reference", compared[-1].colour, *line[-1], 2, line))
    add_key(figure, dashes_in_words(curves))
    title = f"{statistics.label(statistic, of)} over depth, run by run"
    dress(figure, colours, title, 680)
    return labels.add(figure, ends)


def _finish_ratios(figure, statistic, ratios, reference, colours):
    """Set the axis of the second panel, and draw the line of the reference."""
    log = statistics.is_log(statistic)
    low, high = statistics.window([*ratios, 0.0], DECADES if log else 0.1)
    spare = 0.125 * (high - low)
    ends = low - spare, high + spare
    axis = log_axis(*ends) if log else {"range": [*ends], "tickformat": ".0%"}
    what = "ratio" if log else "difference"
    figure.update_yaxes(title=f"{what} to {reference}", **axis, row=2)
    figure.add_hline(
        y=statistics.on_axis(0.0, log),
        line={"color": colours.ink, "width": 1},
        # A checker infers the type from the default, "all".
        row=2,  # pyright: ignore[reportArgumentType]
    )


def _add_ratio(figure, curve, reference, statistic, of):
    """Draw the ratio of a run to the reference, layer by layer; returns the points."""
    of_run = statistics.shown(curve.snapshot, statistic, of).y
    of_first = statistics.shown(reference.snapshot, statistic, of).y
    trunk, having = {*curve.path.trunk}, curve.snapshot.field("count", of) > 0
    if of != OUTPUT:  # a layer that does not have it must not interrupt the line
        trunk &= {*np.flatnonzero(having).tolist()}
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
    add_line(figure, curve, rows, y, log, said, having, 2)
    return [*zip(curve.path.x[rows], y, strict=True)]

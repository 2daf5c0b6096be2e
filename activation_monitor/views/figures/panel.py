"""One panel over depth: a statistic of a quantity, with one line for each curve."""

import math
from collections.abc import Sequence

import numpy as np

from activation_monitor.analysis.depth_profile import depth_profile as read_along_depth
from activation_monitor.analysis.growth import DTYPE_LIMITS
from activation_monitor.analysis.records import OUTPUT
from activation_monitor.views.figures import path as paths
from activation_monitor.views.figures import statistic as statistics
from activation_monitor.views.figures.colours import Theme, translucent
from activation_monitor.views.figures.curves import Curve
from activation_monitor.views.figures.edge_marks import add_marks
from activation_monitor.views.figures.labels import Label
from activation_monitor.views.figures.style import DECADES, escape, with_edges

_NEAR = 4.0
"""Maximum distance in decades between the data and a limit of a dtype that is drawn. A
limit farther away would compress the curves."""

MARKERS = 80
"""Maximum number of layers for which a curve has markers."""

_WITHIN = 3.0
"""Half the width of the expected band, in standard deviations of chance, as in
`GrowthRange.interval`."""

_CROWD = 3
"""Number of runs up to which layers beside the trunk are drawn for all of them, and not for
the run in front only. Points have no lines that lead to their run."""

EXPECTED = "expected range of a well-scaled network"
"""The legend entry of the band."""


def add_panel(
    figure,
    curves: Sequence[Curve],
    statistic: str,
    of: str,
    colours: Theme,
    row: int = 1,
) -> list[Label]:
    """Draw a statistic over depth: lines, their marks, and the axis; returns the labels.

    For the rms of outputs a band shows what the law expects of the run in front.

    Args:
        figure: The figure to which the panel belongs.
        curves: The curves, the run in front last.
        statistic: One of `STATISTICS_SHOWN`.
        of: The quantity.
        colours: The theme.
        row: Row of the panel. Defaults to `1`.
    """
    drawn = [(curve, statistics.shown(curve.snapshot, statistic, of)) for curve in curves]
    with_law = (of, statistic) == (OUTPUT, "rms")
    seen = _add_band(figure, curves, colours, row) if with_law else []
    crowd = len({curve.run for curve in curves}) > _CROWD
    seen += [y for _, found in drawn for y in found.y if math.isfinite(y)]
    edges = _finish_axis(figure, statistic, seen, curves, colours, of, row)
    marked = [(curve, found.zero, curve.snapshot.records(of)) for curve, found in drawn]
    if statistic == "nonfinite_fraction":  # the curves show it
        marked = []
    how = statistics.words(statistic, of), edges, statistics.is_log(statistic), colours
    add_marks(figure, marked, False, *how, row)  # below the curves
    for curve, found in drawn:
        only_trunk = crowd and not curve.front
        _add_curve(figure, curve, found, statistic, of, row, only_trunk)
    add_marks(figure, marked, True, *how, row)
    ends = [_label(curve, found, edges, row) for curve, found in drawn]
    return [label for label in ends if label is not None]


def _add_curve(figure, curve, found, statistic, of, row, only_trunk):
    """Draw the trunk as a line and the other layers as points."""
    texts = statistics.texts(curve.snapshot, statistic, of)
    log = statistics.is_log(statistic)
    having = curve.snapshot.field("count", of) > 0
    beside = [] if only_trunk else curve.path.beside
    for all_rows, is_trunk in ((curve.path.trunk, True), (beside, False)):
        # A layer that does not have the quantity must not interrupt the line.
        rows = all_rows if of == OUTPUT else [one for one in all_rows if having[one]]
        if rows:
            said = hover(curve, rows, texts, statistics.words(statistic, of))
            signs = found.value[rows] < 0
            symbols = ["circle-open" if negative else "circle" for negative in signs]
            how = log, said, having, row, is_trunk, symbols
            add_line(figure, curve, rows, found.y[rows], *how)


def add_line(figure, curve, rows, y, log, said, having, row, is_trunk=True, symbols=None):
    """Draw a line through layers of the trunk, or points for layers beside it.

    The line has gaps where layers were measured that are not on it, see `path.stretches`.

    Args:
        figure: The figure.
        curve: The curve.
        rows: Rows of the layers in its snapshot.
        y: Place of each on the scale.
        log: Whether the scale is logarithmic.
        said: The tooltip of each.
        having: Whether each layer of the snapshot has the quantity.
        row: Row of the panel.
        is_trunk: Whether the layers are those of the trunk. Defaults to `True`.
        symbols: The symbol of each. Defaults to `None`, dots.
    """
    stretches = paths.stretches(curve.path, rows, having) if is_trunk else [[*rows]]
    alone = not is_trunk or all(len(stretch) == 1 for stretch in stretches)
    # A line would hide a point that is on no line.
    mode = "lines" if len(stretches) == 1 and len(rows) > MARKERS else "lines+markers"
    if alone:
        stretches = [[*rows]]
    place = {one: i for i, one in enumerate(rows)}
    order = [i for stretch in stretches for i in (*(place[r] for r in stretch), None)][:-1]

    def with_gaps(values, gap=None):
        return [gap if i is None else values[i] for i in order]

    width, opacity, marker = curve.look
    y = statistics.on_axis(y, log)
    figure.add_scatter(
        x=with_gaps(curve.path.x[rows]),
        y=with_gaps(y),
        mode="markers" if alone else mode,
        line={"color": curve.colour, "dash": curve.dash, "width": width},
        marker={
            "size": marker,
            "color": curve.colour,
            "opacity": 1.0 if is_trunk else 0.45,
            "symbol": None if symbols is None else with_gaps(symbols, "circle"),
        },
        opacity=opacity,
        name=curve.name,
        legendgroup=curve.label,
        showlegend=False,
        customdata=with_gaps([curve.snapshot.layers[one].name for one in rows]),
        hovertext=with_gaps(said),
        hoverinfo="text",
        row=row,
        col=1,
    )


def hover(curve: Curve, rows: list[int], texts: list[str], what: str) -> list[str]:
    """The tooltip of each layer: its name, class and depth, and its text."""
    layers = curve.snapshot.layers
    return [
        f"{escape(layers[row].name)}<br>{escape(layers[row].class_name)}, depth "
        f"{curve.path.graph.depth[row]}<br>{curve.label}: {what} {texts[row]}"
        for row in rows
    ]


def _label(curve, found, edges, row):
    """The label at the end of a line, or at a mark that comes after it."""
    there = found.zero | found.nonfinite | np.isfinite(found.y)
    rows = [one for one in curve.path.trunk if there[one]]
    if not curve.end or not rows:
        return None
    y = np.where(found.zero, edges[0], found.y)[rows]
    y = np.where(np.isfinite(y), y, edges[1])
    line = [*zip(curve.path.x[rows].tolist(), y.tolist(), strict=True)]
    return Label(curve.end, curve.colour, *line[-1], row, line)


def _add_band(figure, curves, colours, row):
    """Draw the range that the law predicts for the first curve in front; returns its
    ends."""
    ends = []
    curve = next(curve for curve in curves if curve.front)
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
            fill="toself",
            fillcolor=translucent(colours.ink, 0.16),
            mode="lines",
            line={"width": 0},
            hoverinfo="skip",
            name=EXPECTED,
            legendgroup="expected",
            showlegend=not ends,
            row=row,
            col=1,
        )
        ends += [*low, *high]
    return ends


def _finish_axis(figure, statistic, seen, curves, colours, of, row):
    """Set range and ticks of a panel, and draw limits of dtypes. Returns the places of
    zeros and of NaN."""
    log = statistics.is_log(statistic)
    low, high = 0.0, 1.0
    if log:
        low, high = statistics.window(seen, DECADES)
        limits = [*_limits(curves, low, high)] if of == OUTPUT else []
        for y, dtype in limits:
            _add_limit(figure, y, dtype, colours, row)
            low, high = min(low, y), max(high, y)
    edges, axis = with_edges(low, high, log)
    figure.update_yaxes(title=statistics.label(statistic, of), **axis, row=row, col=1)
    return edges


def _add_limit(figure, y, dtype, colours, row):
    figure.add_hline(
        y=statistics.on_axis(y, True),
        line={"color": colours.ink, "width": 1, "dash": "longdashdot"},
        row=row,
        col=1,
    )
    suffix = "" if row == 1 else row
    figure.add_annotation(  # on a logarithmic axis, `y` is the logarithm
        text=dtype,
        font={"size": 11},
        x=0,
        xref=f"x{suffix} domain",
        xanchor="left",
        y=y,
        yref=f"y{suffix}",
        yanchor="bottom",
        showarrow=False,
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

"""One panel over depth: a statistic of a quantity, with one line for each curve."""

import math
from collections.abc import Sequence

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.analysis.depth_profile import depth_profile as read_along_depth
from activation_monitor.analysis.growth import DTYPE_LIMITS
from activation_monitor.analysis.records import OUTPUT
from activation_monitor.views.figures import statistic as statistics
from activation_monitor.views.figures.colours import Theme, translucent
from activation_monitor.views.figures.curves import Curve
from activation_monitor.views.figures.labels import Label
from activation_monitor.views.figures.style import DECADES, escape, log_axis

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

_MANY_MARKS = 60
"""Number of marks of a kind from which they are small."""

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
    for curve, found in drawn:
        only_trunk = crowd and not curve.front
        _add_curve(figure, curve, found, statistic, of, row, only_trunk)
        seen += [y for y in found.y if math.isfinite(y)]
    edges = _finish_axis(figure, statistic, seen, curves, colours, of, row)
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
            add_line(figure, curve, rows, found.y[rows], log, said, row, is_trunk)
            signs = found.value[rows] < 0
            symbols = ["circle-open" if negative else "circle" for negative in signs]
            figure.data[-1].marker.symbol = symbols


def add_line(figure, curve, rows, y, log, said, row, is_trunk=True):
    """Draw a line through layers of the trunk, or points for layers beside it.

    Args:
        figure: The figure.
        curve: The curve.
        rows: Rows of the layers in its snapshot.
        y: Place of each on the scale.
        log: Whether the scale is logarithmic.
        said: The tooltip of each.
        row: Row of the panel.
        is_trunk: Whether the layers are those of the trunk. Defaults to `True`.
    """
    mode = "lines+markers" if len(rows) <= MARKERS else "lines"
    width, opacity, marker = curve.look
    figure.add_scatter(
        x=curve.path.x[rows],
        y=statistics.on_axis(y, log),
        mode=mode if is_trunk else "markers",
        line={"color": curve.colour, "dash": curve.dash, "width": width},
        marker={
            "size": marker,
            "color": curve.colour,
            "opacity": 1.0 if is_trunk else 0.45,
        },
        opacity=opacity,
        name=curve.name,
        legendgroup=curve.label,
        showlegend=False,
        customdata=[curve.snapshot.layers[one].name for one in rows],
        hovertext=said,
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
    """Set range and ticks of a panel; draw limits of dtypes, and marks. Returns the places
    of zeros and of NaN."""
    log = statistics.is_log(statistic)
    low, high = 0.0, 1.0
    if log:
        low, high = statistics.window(seen, DECADES)
        limits = [*_limits(curves, low, high)] if of == OUTPUT else []
        for y, dtype in limits:
            _add_limit(figure, y, dtype, colours, row)
            low, high = min(low, y), max(high, y)
    spare = 0.08 * (high - low)
    edges = low - spare, high + spare
    if statistic != "nonfinite_fraction":
        marked = [
            (
                curve,
                statistics.shown(curve.snapshot, statistic, of).zero,
                curve.snapshot.records(of),
            )
            for curve in curves
        ]
        add_marks(figure, marked, statistics.words(statistic, of), edges, log, colours, row)
    ends = low - 1.6 * spare, high + 1.6 * spare
    axis = log_axis(*ends) if log else {"range": [*ends], "tickformat": ".0%"}
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
                    "size": 9 if len(x) <= _MANY_MARKS else 5,
                    "color": colour,
                    "line": {"color": outlines, "width": 1.5},
                },
                name=label,
                legendgroup=label,
                showlegend=True,
                customdata=names,
                hovertext=texts,
                hoverinfo="text",
                row=row,
                col=1,
            )

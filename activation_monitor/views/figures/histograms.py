"""Histograms of one layer over the steps, as a heat map of steps and values."""

import math
from typing import NamedTuple

import numpy as np
from plotly import graph_objects

from activation_monitor.analysis.histogram import Histogram
from activation_monitor.analysis.records import OUTPUT
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views.figures import path as paths
from activation_monitor.views.figures import quantity as quantities
from activation_monitor.views.figures import step_axis
from activation_monitor.views.figures.colours import Theme, mixed, theme
from activation_monitor.views.figures.signed import Signed
from activation_monitor.views.figures.statistic import evenly
from activation_monitor.views.figures.style import dress, note, short

_COLUMNS = 300
"""Maximum number of steps. More are thinned evenly."""

_BINS = 36
"""Number of bins of values, about."""

_RATIO = 10.0
"""Ratio of the widest to the narrowest histogram from which the axis is not linear."""

_DECADES = 24
"""Maximum number of decades between them."""

_FAINT = 0.001
"""Share of the elements below which the scale of colours is linear, above logarithmic."""

_ZEROS = 0.01
"""Share of zeros from which they have their own row."""


class Grid(NamedTuple):
    """The common bins of several histograms.

    Attributes:
        edges: Edges of the bins, an increasing array `(bins + 1,)`.
        places: Places of the edges on the vertical axis, of the same shape.
        scale: The scale of the axis; None if it is linear.
    """

    edges: np.ndarray
    places: np.ndarray
    scale: Signed | None


class Column(NamedTuple):
    """A histogram at one step: its rows as in `Histogram`, without the zeros, and the
    number of zeros."""

    step: int
    rows: np.ndarray
    zeros: float


def histogram_over_time(
    recording: Recording,
    layer: str,
    dark: bool = False,
    place: int = 0,
    of: str = OUTPUT,
) -> graph_objects.Figure:
    """Draw the histograms of one layer: steps rightwards, values upwards, shares as colour.

    All histograms have the same bins. The axis of values is linear. If the widest histogram
    is more than ten times as wide as the narrowest, it is linear around 0 and logarithmic
    beyond. Zeros have their own row if they are at least 1 % of the elements at some step.
    At most 300 evenly spaced steps are drawn.

    Args:
        recording: The recording of one run.
        layer: Name of the layer.
        dark: Whether the colours are for a dark page. Defaults to `False`.
        place: Index of the run among all runs, which selects its colour. Defaults to `0`.
        of: The quantity, one that has histograms. Defaults to `"output"`.

    Raises:
        ValueError: If the recording is empty or has no layer of that name, or the quantity
            is unknown, was not measured or has no histograms.
    """
    where = "histogram_over_time"
    paths.check(recording, where)
    quantities.check(of, [recording], where)
    quantities.check_layer(layer, [recording], of, where)
    counted = {name for snapshot in recording for name in snapshot.histograms}
    if counted and of not in counted:
        raise ValueError(
            f"{where}: expected a quantity with histograms: {', '.join(sorted(counted))}. "
            f"Received: of={of!r}."
        )
    colours = theme(dark)
    figure = graph_objects.Figure()
    title = f"Histograms{quantities.of_the(of)} of {short(layer, 60)}"
    columns = _columns(recording, layer, of)
    if not columns:
        dress(figure, colours, title, height=200)
        note(
            figure,
            "No histograms were recorded. Use <i>ActivationMonitor(histograms=True)</i>.",
        )
        return figure
    columns = _apart(columns)
    grid = grid_of([column.rows for column in columns])
    _add_map(figure, columns, grid, layer, colours.run(place), colours)
    steps = [column.step for column in columns]
    figure.update_xaxes(title="step", **step_axis.axis(steps))
    figure.update_yaxes(title=quantities.WORDS[of])
    dress(figure, colours, title, height=360)
    return figure.update_xaxes(showgrid=False).update_yaxes(showgrid=False)


def _columns(recording, layer, of):
    """The steps with a histogram, with the zeros counted separately."""
    those = [
        snapshot
        for snapshot in recording
        if of in snapshot.histograms and layer in snapshot.names
    ]
    found = []
    for snapshot in (those[i] for i in evenly(len(those), _COLUMNS)):
        counted = snapshot.histogram(layer, of)
        if counted is not None:
            row = snapshot.names.index(layer)
            share = float(snapshot.statistic("zero_fraction", of)[row])
            found.append(Column(snapshot.step, *without_zeros(counted, share)))
    return found


def without_zeros(counted: Histogram, share: float) -> tuple[np.ndarray, float]:
    """The rows of a histogram without the zeros, and their number.

    Args:
        counted: The histogram.
        share: The share of zeros among all elements.
    """
    rows = counted.rows.copy()
    left, right, counts = rows.T  # views
    if math.isnan(share) or not left[0] <= 0 <= right[-1]:
        return rows, 0.0
    # numpy counts an element at an edge in the bucket that begins there, except the last.
    bucket = min(int(np.searchsorted(left, 0.0, side="right")) - 1, len(rows) - 1)
    if left[0] == right[-1]:
        bucket = int(counts.argmax())
    zeros = min(share * counts.sum(), counts[bucket])
    counts[bucket] -= zeros
    return rows, float(zeros)


def _apart(columns):
    """The columns, with the zeros put back if they are too few for their own row."""
    shares = [c.zeros / (c.zeros + c.rows[:, 2].sum()) for c in columns]
    if max(shares) >= _ZEROS:
        return columns
    kept = []
    for step, rows, zeros in columns:
        bucket = min(int(np.searchsorted(rows[:, 0], 0.0, side="right")) - 1, len(rows) - 1)
        rows[max(bucket, 0), 2] += zeros
        kept.append(Column(step, rows, 0.0))
    return kept


def grid_of(histograms: list[np.ndarray]) -> Grid:
    """Common bins for some histograms. If 0 is among the values, it is an edge.

    Args:
        histograms: At least one array of rows, as in `Histogram`.
    """
    low = min(float(rows[0, 0]) for rows in histograms)
    high = max(float(rows[-1, 1]) for rows in histograms)
    sizes = [float(np.abs(rows[[0, -1], [0, 1]]).max()) for rows in histograms]
    sizes = [size for size in sizes if size > 0]
    scale = None
    if sizes and max(sizes) / min(sizes) > _RATIO:
        most, least = (math.floor(math.log10(f(sizes))) for f in (max, min))
        scale = Signed(10.0 ** max(least, most - _DECADES))
    ends = np.array([low, high])
    first, last = ends if scale is None else scale.place(ends)
    if first == last:
        spare = abs(first) / 2 or 0.5
        first, last = first - spare, last + spare
    wide = (last - first) / _BINS
    numbers = np.arange(math.floor(first / wide), math.ceil(last / wide) + 1)
    places = numbers * wide
    edges = places if scale is None else scale.value(places)
    # Rounding must not leave the extremes outside.
    edges = np.concatenate([[min(edges[0], low)], edges[1:-1], [max(edges[-1], high)]])
    return Grid(edges, places, scale)


def rebinned(rows: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The counts of a histogram in other bins, as if they were evenly spread in each
    bucket. Their sum stays the same.

    Args:
        rows: The rows of a `Histogram`.
        edges: The edges of the new bins, which contain the histogram.
    """
    counts = rows[:, 2]
    if rows[0, 0] == rows[-1, 1]:  # all elements are equal
        found = np.zeros(len(edges) - 1)
        at = int(np.searchsorted(edges, rows[0, 0], side="right")) - 1
        found[min(max(at, 0), len(found) - 1)] = counts.sum()
        return found
    buckets = np.concatenate([rows[:, 0], rows[-1:, 1]])
    below = np.concatenate([[0.0], np.cumsum(counts)])
    return np.diff(np.interp(edges, buckets, below))


def _add_map(figure, columns, grid, layer, colour, colours: Theme):
    """Draw the shares of all steps, and set the vertical axis."""
    total = np.array([c.zeros + c.rows[:, 2].sum() for c in columns])
    share = np.stack([rebinned(c.rows, grid.edges) for c in columns], axis=1) / total
    between = [
        f"between {low:.3g} and {high:.3g}"
        for low, high in zip(grid.edges[:-1], grid.edges[1:], strict=True)
    ]
    places = grid.places
    zeros = np.array([column.zeros for column in columns]) / total
    if zeros.any():
        share, between, places = _with_zeros(share, between, places, zeros)
    texts = [
        [
            f"step {column.step}: {100 * one:.2g} % of elements {where}"
            for column, one in zip(columns, row, strict=True)
        ]
        for where, row in zip(between, share, strict=True)
    ]
    strongest = float(_strength(share.max()))
    figure.add_heatmap(
        x=[column.step for column in columns],
        y=places,
        z=_strength(share).astype(np.float32),
        zmin=0,
        zmax=strongest,
        colorscale=[
            [0, colours.paper],
            [1e-6, mixed(colour, colours.paper, 0.12)],
            [0.7, colour],
            [1, mixed(colour, colours.ink, 0.4)],
        ],
        colorbar=_bar(strongest),
        customdata=[layer] * len(share),
        hovertext=texts,
        hoverinfo="text",
    )
    low, high = float(places[0]), float(places[-1])
    axis = {"range": [low, high]} if grid.scale is None else grid.scale.axis(low, high)
    figure.update_yaxes(**axis)


def _with_zeros(share, between, places, zeros):
    """The same with a row for zeros: below bins that begin at 0, above bins that end there,
    else half of it over the bins on either side."""
    at = int(np.searchsorted(places, 0.0))
    wide = float(places[1] - places[0])
    if at == 0:
        places = np.concatenate([[places[0] - wide], places])
    elif at == len(places) - 1:
        places = np.concatenate([places, [places[-1] + wide]])
    else:
        row = [-wide / 2, wide / 2]
        places = np.concatenate([places[:at], row, places[at + 1 :]])
    return (
        np.insert(share, at, zeros, axis=0),
        [*between[:at], "are 0", *between[at:]],
        places,
    )


def _strength(share):
    """The place of a share on the scale of colours."""
    return np.log1p(share / _FAINT)


def _bar(strongest):
    """Options of the colour bar."""
    ticks = {0.0: "0", 0.001: "0.1%", 0.01: "1%", 0.1: "10%", 1.0: "100%"}
    places = {float(_strength(share)): text for share, text in ticks.items()}
    shown = {place: text for place, text in places.items() if place <= strongest * 1.001}
    return {
        "title": {"text": "share of elements", "side": "right"},
        "thickness": 14,
        "tickvals": [*shown],
        "ticktext": [*shown.values()],
    }

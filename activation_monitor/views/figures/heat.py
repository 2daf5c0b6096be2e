"""The heat map: depth x step, which shows where and when a problem begins."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from plotly import graph_objects

from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.records import OUTPUT
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views.figures import marks, step_axis
from activation_monitor.views.figures import path as paths
from activation_monitor.views.figures import quantity as quantities
from activation_monitor.views.figures import statistic as statistics
from activation_monitor.views.figures.colours import theme
from activation_monitor.views.figures.scale import scale
from activation_monitor.views.figures.style import common, dress, escape, short

COLUMNS = 500
"""Maximum number of steps. More are thinned evenly; the first and the last are kept. A
screen does not resolve more, and the browser draws this many in a fraction of a second."""

_TICKS = 30
"""Maximum number of labels on an axis."""

_OTHER = 150
"""Height of the figure besides the map, in pixels."""

_LENGTH = 26
"""Maximum number of characters of a name."""

_BESIDE_BAR = 130
"""Height of the figure besides the colour bar, in pixels."""

_CHARACTER = 6.0
"""Mean width of a character of the title of the colour bar, in pixels."""

_ROW = 16
"""Height of a row, in pixels, unless there are many."""


def heat_map(
    recording: Recording,
    statistic: str = "rms",
    dark: bool = False,
    of: str = OUTPUT,
    marked: Finding | None = None,
    chosen: Sequence[str] = (),
) -> graph_objects.Figure:
    """Draw a statistic of all layers (downwards from the input) at all steps (rightwards).

    Sizes have a logarithmic scale around 1 (around the median for quantities other than
    outputs), blue below and red above. Zeros, and tensors with NaN or infinite elements,
    have separate colours. Steps have the same places as in figures over time; the cells
    of two steps meet halfway. `y` has the escaped names of the layers and `customdata` the
    unescaped ones, one for each row; `x` has the steps.

    Args:
        recording: The recording of one run.
        statistic: One of `STATISTICS_SHOWN`. Defaults to `"rms"`.
        dark: Whether the colours are for a dark page. Defaults to `False`.
        of: The quantity, a key of `records.QUANTITIES`, for example `"output_gradient"`.
            Layers that do not have it are left out. Defaults to `"output"`.
        marked: A finding, whose layers and steps get a frame. Defaults to `None`.
        chosen: Names of layers whose rows are marked, and named in any case. Unknown names
            have no effect. Defaults to `()`.

    Raises:
        ValueError: If there is nothing to draw, `statistic` is invalid, or the quantity is
            unknown or was not measured.
    """
    statistics.check(statistic, "heat_map", of)
    paths.check(recording, "heat_map")
    quantities.check(of, [recording], "heat_map")
    colours = theme(dark)
    names, sampled, values, zero, nonfinite = table(recording, statistic, of)
    y = [escape(name) for name in names]
    height = int(np.clip(_OTHER + _ROW * len(names), 260, 720))
    shades = scale(values, statistic, colours, of)
    bar = shades.bar
    if _CHARACTER * len(bar["title"]["text"]) > height - _BESIDE_BAR:
        bar = bar | {"title": None}  # the title of the figure says it
    figure = graph_objects.Figure()
    what = statistics.words(statistic, of)
    figure.add_heatmap(
        x=sampled,
        y=y,
        z=values,
        customdata=names,
        text=_texts(recording, names, statistic, of),
        hovertemplate=f"%{{y}}<br>step %{{x}}: {what} %{{text}}<extra></extra>",
        colorscale=shades.colours,
        zmin=shades.low,
        zmax=shades.high,
        colorbar=bar,
    )
    special = np.where(nonfinite, 1.0, np.where(zero, 0.0, np.nan))
    if statistic != "nonfinite_fraction" and np.isfinite(special).any():
        figure.add_heatmap(
            x=sampled,
            y=y,
            z=special.astype(np.float32),
            zmin=0,
            zmax=1,
            colorscale=[[0, colours.zero], [1, colours.nonfinite]],
            showscale=False,
            hoverinfo="skip",  # its gaps would hide the tooltips of the map below
        )
        _add_key(figure, zero.any(), nonfinite.any(), colours)
    tall = (height - _OTHER) / max(len(names), 1)
    if marked is not None:
        marks.by_step(figure, marked, names, sampled, recording[0], colours, tall)
    rows = [row for row, name in enumerate(names) if name in chosen]
    marks.chosen_rows(figure, rows, colours, tall)
    figure.update_xaxes(title="step", **step_axis.axis(sampled))
    figure.update_yaxes(type="category", autorange="reversed", **_ticks(y, names, rows))
    title = f"{statistics.label(statistic, of)} of each layer at each step"
    dress(figure, colours, title, height)
    return figure.update_xaxes(showgrid=False).update_yaxes(showgrid=False)


class Table(NamedTuple):
    """A statistic of all layers at all steps.

    Attributes:
        names: Names of the layers, in the order of the data path.
        steps: At most 500 steps, evenly thinned.
        y: `statistic.Shown.y` as a float32 array `(layers, steps)`; NaN if a layer was not
            measured.
        zero, nonfinite: The same fields of `statistic.Shown`, of the same shape.
    """

    names: list[str]
    steps: list[int]
    y: np.ndarray
    zero: np.ndarray
    nonfinite: np.ndarray


def table(recording: Recording, statistic: str, of: str = OUTPUT) -> Table:
    """A statistic by layer and step.

    Args:
        recording: The recording of one run.
        statistic: One of `STATISTICS_SHOWN`.
        of: The quantity. Layers that do not have it are left out. Defaults to `"output"`.
    """
    snapshots = _drawn(recording)
    names, having = _in_depth_order(snapshots), {*quantities.layers_with(recording, of)}
    names = [name for name in names if name in having]
    values = np.full((len(names), len(snapshots)), np.nan, np.float32)
    zero, nonfinite = np.zeros((2, *values.shape), bool)
    for column, snapshot, rows, known in _columns(snapshots, names):
        found = statistics.shown(snapshot, statistic, of)
        values[rows, column] = found.y[known]
        zero[rows, column] = found.zero[known]
        nonfinite[rows, column] = found.nonfinite[known]
    return Table(names, [s.step for s in snapshots], values, zero, nonfinite)


def _texts(recording, names, statistic, of):
    """The tooltip of each layer at each step, an array `(layers, steps)`."""
    snapshots = _drawn(recording)
    texts = np.full((len(names), len(snapshots)), statistics.UNMEASURED, object)
    for column, snapshot, rows, known in _columns(snapshots, names):
        said = statistics.texts(snapshot, statistic, of)
        texts[rows, column] = [said[i] for i in known]
    return texts


def _drawn(recording):
    return [recording[i] for i in statistics.evenly(len(recording), COLUMNS)]


def _columns(snapshots, names):
    """Each snapshot with its column, the rows that it fills, and the layers in them."""
    row_of = {name: row for row, name in enumerate(names)}
    places = {}
    for column, snapshot in enumerate(snapshots):
        if id(snapshot.layers) not in places:
            known = [i for i, name in enumerate(snapshot.names) if name in row_of]
            rows = [row_of[snapshot.layers[i].name] for i in known]
            places[id(snapshot.layers)] = rows, known
        yield column, snapshot, *places[id(snapshot.layers)]


def _in_depth_order(snapshots):
    """Names of all layers; those of the first snapshot in the order of the data path."""
    names = {}
    kinds = {id(snapshot.layers): snapshot for snapshot in snapshots[::-1]}
    for snapshot in reversed(kinds.values()):
        here = paths.path(snapshot)
        order = sorted(here.graph.order, key=lambda row: here.x[row])
        names.update(dict.fromkeys(snapshot.layers[row].name for row in order))
    return list(names)


def _add_key(figure, any_zero, any_nonfinite, colours):
    """Add a legend for the colours that are not on the scale."""
    for there, colour, label in (
        (any_zero, colours.zero, "zero"),
        (any_nonfinite, colours.nonfinite, "NaN or infinite elements"),
    ):
        if there:
            figure.add_scatter(
                x=[None],
                y=[None],
                mode="markers",
                marker={"color": colour, "symbol": "square", "size": 11},
                name=label,
                showlegend=True,  # also for a single entry
                hoverinfo="skip",
            )


def _ticks(places, names, chosen) -> dict[str, Any]:
    """Ticks at some of the rows, and at all chosen ones, which have an arrow."""
    kept = statistics.evenly(len(places), _TICKS)
    apart = 0 if len(names) <= _TICKS else 0.8 * len(names) / _TICKS
    kept = [i for i in kept if all(abs(i - row) > apart for row in chosen)]
    rows = sorted({*kept, *chosen})
    prefix = common(names)
    texts = {i: short(names[i], _LENGTH, prefix) for i in rows}
    texts |= {i: f"\u25b8 {texts[i]}" for i in chosen}
    return {
        "tickvals": [places[i] for i in rows],
        "ticktext": [texts[i] for i in rows],
    }

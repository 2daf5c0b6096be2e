"""Marks at the edges of an axis, for values that have no place on it."""

from collections.abc import Sequence
from typing import Any

from activation_monitor.analysis import records
from activation_monitor.views.figures import statistic as statistics
from activation_monitor.views.figures.colours import Theme
from activation_monitor.views.figures.curves import Curve
from activation_monitor.views.figures.style import escape

_MANY = 60
"""Number of marks of a kind from which they are small."""

_PALE = 0.35
"""Opacity of the marks of runs that are not in front."""

NONFINITE = "NaN or infinite elements"
"""The legend entry of marks at the upper edge."""


def kinds(colours: Theme) -> tuple[tuple[str, str, str], ...]:
    """Symbol, colour and legend entry of the marks at the lower and at the upper edge."""
    return (
        ("triangle-down", colours.zero, "zero"),
        ("x", colours.nonfinite, NONFINITE),
    )


def look(symbol: str, colour: str, outline: Any, front: bool, count: int = 1) -> dict:
    """Options of plotly's `marker`. Marks of other runs are smaller and paler than those of
    the run in front, which would disappear among them.

    Args:
        symbol, colour: Those of the kind.
        outline: Colour of the run, or one for each mark.
        front: Whether the run is in front.
        count: Number of marks of the kind. Defaults to `1`.
    """
    large, small = (9, 5) if front else (5, 4)
    return {
        "symbol": symbol,
        "size": large if count <= _MANY else small,
        "color": colour,
        "opacity": 1.0 if front else _PALE,
        "line": {"color": outline, "width": 1.5 if front else 1},
    }


def add_marks(
    figure,
    marked: Sequence[tuple[Curve, Any, Any]],
    front: bool,
    what: str,
    edges: tuple[float, float],
    log: bool,
    colours: Theme,
    row: int = 1,
):
    """Mark what a curve cannot show: zeros at the lower edge, NaN and infinity at the
    upper.

    The outline of a mark has the colour of its curve. Marks of the last curve are on top.

    Args:
        figure: The figure to which the marks are added.
        marked: For each curve the `Curve`, which layers are zero, and their records.
        front: Whether to draw the marks of the run in front, or those of the others. Those
            of the others are in the legend if that run has none of their kind.
        what: The statistic in words.
        edges: Places of the marks, the lower and the upper one.
        log: Whether the axis is logarithmic; `edges` are then logarithms.
        colours: The theme.
        row: Row of the panel. Defaults to `1`.
    """
    for (symbol, colour, label), y in zip(kinds(colours), edges, strict=True):
        found = [
            (curve, layer, said)
            for curve, zero, of_layers in marked
            for layer, said in _said(curve, zero, of_layers, label, what)
        ]
        here = [one for one in found if one[0].front == front]
        if here:
            names = [curve.snapshot.layers[layer].name for curve, layer, _ in here]
            outlines = [curve.colour for curve, *_ in here]
            figure.add_scatter(
                x=[curve.path.x[layer] for curve, layer, _ in here],
                y=[statistics.on_axis(y, log)] * len(here),
                mode="markers",
                marker=look(symbol, colour, outlines, front, len(here)),
                name=label,
                legendgroup=label,
                showlegend=front or not any(curve.front for curve, *_ in found),
                customdata=names,
                hovertext=[
                    f"{escape(name)}<br>{curve.label}: {said}"
                    for name, (curve, _, said) in zip(names, here, strict=True)
                ],
                hoverinfo="text",
                row=row,
                col=1,
            )


def _said(curve, zero, of_layers, label, what):
    """The layers of a curve that have a mark of this kind, and what their tooltips say."""
    counts, nonfinite = (records.field(of_layers, f) for f in ("count", "nonfinite"))
    for layer in curve.path.graph.order:
        if label == "zero" and zero[layer]:
            yield layer, f"{what} is 0"
        if label != "zero" and nonfinite[layer] > 0:
            yield (
                layer,
                statistics.nonfinite_text(float(counts[layer]), float(nonfinite[layer])),
            )

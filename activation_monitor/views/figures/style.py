"""The style of the figures: texts, axes, the legend."""

import html
import math
from collections.abc import Iterable, Sequence

import numpy as np
from plotly import graph_objects

from activation_monitor.views.figures.colours import DARK as DARK
from activation_monitor.views.figures.colours import LIGHT as LIGHT
from activation_monitor.views.figures.colours import Theme
from activation_monitor.views.figures.colours import rgb as rgb

DECADES = 2.5
"""Minimum length of such an axis without its margins. With them it shows three powers of
10. On a shorter axis, noise would look like a trend."""

NAMES = 12
"""Maximum number of layers whose names fit below an axis."""

DASHES = ("dot", "dash", "dashdot", "longdash")
"""Dashes of the steps of a run before the last one, in turn. The last step is solid."""

_RUN_NAME = 40
"""Maximum number of characters of the name of a run in a legend."""

_THIRDS = 3.5
"""Length in decades up to which an axis of sizes has ticks at 3, 30, 0.3 as well."""

_PLAIN = (-3, 3)
"""Exponents of the powers of 10 between which an axis has plain numbers."""

_POWERS = 8
"""Maximum number of ticks at powers of 10."""

_MANY = 10
"""Length of an axis from which the ticks of plotly are whole numbers."""

_SLANTED = 17
"""Maximum number of characters of a slanted name."""

_ROW = 14
"""Height in pixels of a row of texts above the panels."""

_SPARE, _BEYOND = 0.08, 1.6
"""The distance of marks at the edges of an axis from the values, as a part of their range,
and that of the ends of the axis in such distances."""

_ENTRIES = 4
"""Maximum number of entries in a legend."""


def escape(text: str) -> str:
    """Escape a text for plotly.

    Plotly reads all texts as a subset of HTML, some as templates with variables such as
    `%{x}`, and text between dollars as TeX if MathJax is loaded, for example in a notebook.
    """
    escaped = html.escape(str(text), quote=False)
    return escaped.replace("$", "&#36;").replace("%", "&#37;")


def short(name: str, length: int = 24, prefix: str = "") -> str:
    """The name of a layer for an axis, escaped. A long name is cut at its start, because
    names differ at their ends, and before a "/" if a part of the name fits.

    Args:
        name: The name.
        length: Maximum number of characters. Defaults to `24`.
        prefix: What to leave out, see `common`. Defaults to `""`.
    """
    name = name.removeprefix(prefix)
    if len(name) <= length:
        return escape(name)
    places = (i for i in range(len(name) - length + 1, len(name)) if name[i] == "/")
    return escape(f"…{name[next(places, 1 - length) :]}")


def common(names: Iterable[str]) -> str:
    """The prefix of all these names that an axis need not repeat, up to a "/".

    >>> common(["net/encoder/dense", "net/encoder/norm", "net/digit"])
    'net/'
    """
    parts = [name.split("/")[:-1] for name in names]
    same = 0
    for level in zip(*parts, strict=False):
        if len({*level}) > 1:
            break
        same += 1
    return "".join(f"{part}/" for part in parts[0][:same]) if parts else ""


def short_run(name: str) -> str:
    """A run's name for a legend: its start and its end; escaped."""
    half = _RUN_NAME // 2
    cut = name if len(name) <= _RUN_NAME else f"{name[: half - 1]}…{name[-half:]}"
    return escape(cut)


def slanted(
    x: Sequence[float] | np.ndarray, names: Sequence[str], prefix: str = ""
) -> dict:
    """Names of layers as slanted ticks of an axis, without a prefix. They are so short and
    steep that the first one fits beside the vertical axis; plotly hides a name that does
    not."""
    texts = [short(name, _SLANTED, prefix) for name in names]
    return {"tickvals": x, "ticktext": texts, "tickangle": -40}


def whole(low: float, high: float) -> dict:
    """Ticks of an axis of whole numbers, such as steps, without ticks between them."""
    if low == high:
        return {"tickvals": [low]}
    return {"dtick": 1, "tick0": 0} if high - low < _MANY else {}


def power(exponent: int) -> str:
    """A power of 10 as plotly writes it on an axis."""
    if exponent in (0, 1):
        return f"{10**exponent}"
    return f"10<sup>{exponent}</sup>".replace("-", "\u2212")


def log_axis(low: float, high: float) -> dict:
    """An axis of sizes, with ticks such as 0.1, 1, 10; on a short axis 0.3, 1, 3.

    Args:
        low, high: log10 of its ends.
    """
    first, last = math.ceil(low), math.floor(high)
    each = max(1, math.ceil((last - first + 1) / _POWERS))
    places = {float(e): 1 for e in range(first, last + 1) if e % each == 0}
    if high - low <= _THIRDS:
        thirds = {e + math.log10(3): 3 for e in range(first - 1, last + 1)}
        places |= {place: 3 for place in thirds if low <= place <= high}
    ticks = sorted(places)
    plain = is_plain(first, last)
    return {
        "type": "log",
        "range": [low, high],
        "tickvals": [10.0**place for place in ticks],
        "ticktext": [size_text(places[place], math.floor(place), plain) for place in ticks],
    }


def is_plain(first: int, last: int) -> bool:
    """Whether an axis of these powers of 10 has plain numbers."""
    return _PLAIN[0] <= first and last <= _PLAIN[1]


def size_text(digit: int, exponent: int, plain: bool) -> str:
    """A digit times a power of 10, as plain number or as plotly writes it.

    >>> size_text(3, -1, True), size_text(1, -5, False)
    ('0.3', '10<sup>−5</sup>')
    """
    if plain:
        return f"{digit * 10.0**exponent:.15g}"
    return power(exponent) if digit == 1 else f"{digit}·{power(exponent)}"


def with_edges(low: float, high: float, log: bool) -> tuple[tuple[float, float], dict]:
    """The places of marks at the edges of an axis around values, and the axis.

    Args:
        low, high: The ends of the values, as logarithms on a logarithmic axis.
        log: Whether the axis is one of sizes, else of shares.
    """
    spare = _SPARE * (high - low)
    ends = low - _BEYOND * spare, high + _BEYOND * spare
    axis = log_axis(*ends) if log else {"range": [*ends], "tickformat": ".0%"}
    return (low - spare, high + spare), axis


def dress(
    figure: graph_objects.Figure,
    colours: Theme,
    title: str,
    height: int = 460,
    above: int = 0,
) -> graph_objects.Figure:
    """Set the title, the colours and the legend of a figure; returns the figure.

    Args:
        figure: A figure with its traces and axes.
        colours: The theme of the page.
        title: The title, already escaped.
        height: Height in pixels, including the labels of the axes and the legend. Defaults
            to `460`.
        above: Rows of texts above the panels. There is room for one; for more, the figure
            is higher. Defaults to `0`.
    """
    more = _ROW * max(above - 1, 0)
    height += more
    _limit_legend(figure)
    axis = {"gridcolor": colours.grid, "zeroline": False, "linecolor": colours.grid}
    axis |= {"ticks": "outside", "tickcolor": colours.grid, "automargin": True}
    axis |= {"exponentformat": "power"}  # not 10n or 2M
    figure.update_layout(
        template=None,
        title={
            "text": title,
            "x": 0.01,
            "xanchor": "left",
            "y": 1 - 22 / height,
            "yanchor": "middle",
            "font": {"size": 15},
        },
        paper_bgcolor=colours.paper,
        plot_bgcolor=colours.paper,
        font={"color": colours.ink, "size": 12},
        height=height,
        margin={"l": 70, "r": 20, "t": 50 + more, "b": 16},
        legend={
            "orientation": "h",
            "y": 0,
            "yref": "container",
            "yanchor": "bottom",
            "bgcolor": "rgba(0, 0, 0, 0)",
        },
        hoverlabel={"font": {"size": 12}, "namelength": -1},
    )
    return figure.update_xaxes(**axis).update_yaxes(**axis)


def add_key(figure: graph_objects.Figure, text: str, rows: int = 0) -> int:
    """Write a short key above the panels, on the left; nothing for an empty text.

    Args:
        figure: The figure.
        text: The key, escaped.
        rows: Rows of texts between the panels and the key. Defaults to `0`.

    Returns:
        The number of rows with the key.
    """
    if text:
        figure.add_annotation(
            text=text,
            font={"size": 11},
            x=0,
            xref="paper",
            xanchor="left",
            y=1,
            yref="paper",
            yanchor="bottom",
            yshift=_ROW * rows,
            showarrow=False,
        )
    return rows + bool(text)


def _limit_legend(figure):
    """Keep the first entry of each kind, and not more than fit."""
    shown = []
    for trace in figure.data:
        if trace.showlegend:
            kind = trace.legendgroup or trace.name
            trace.showlegend = kind not in shown and len(shown) < _ENTRIES
            shown += [kind] * trace.showlegend


def note(figure: graph_objects.Figure, text: str) -> None:
    """Write a text into the middle of an empty figure, which says why it is empty."""
    figure.add_annotation(
        text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)

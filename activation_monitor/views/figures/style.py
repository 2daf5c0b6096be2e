"""The style of the figures: colours that colour-blind people can distinguish."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from plotly import colors, graph_objects


@dataclass(frozen=True)
class Theme:
    """Colours of a figure.

    Attributes:
        paper, ink, grid: Background; text and axes; grid lines.
        runs: Ten colours of the runs, in turn. The first six are those of Okabe & Ito
            (2008). The others are the farthest from these and from each other, for normal
            vision, protanopia and deuteranopia (simulated as by Machado et al. 2009).
        low, middle, high: Colours of a size far below 1, about 1, and far above 1.
        zero, nonfinite: Colours of the marks for values without a place on a log scale.
        severity: Severity of a finding to its colour.
    """

    paper: str
    ink: str
    grid: str
    runs: tuple[str, ...]
    low: tuple[str, str]
    middle: str
    high: tuple[str, str]
    zero: str
    nonfinite: str
    severity: dict[str, str]

    def run(self, place: int) -> str:
        """The colour of a run, by its index among all runs."""
        return self.runs[place % len(self.runs)]

    @property
    def sizes(self) -> list[list]:
        """A plotly colour scale for sizes, with 1 in the middle."""
        colours = (*self.low, self.middle, *self.high)
        return [[i / 4, colour] for i, colour in enumerate(colours)]


LIGHT = Theme(
    paper="#ffffff",
    ink="#222222",
    grid="#e3e3e3",
    runs=(
        *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
        *("#7B2FF2", "#7A1E0C", "#1A1A5E", "#0F3C4B"),
    ),
    low=("#053061", "#4393c3"),
    middle="#f2f2f2",
    high=("#d6604d", "#67001f"),
    zero="#8c8c8c",
    nonfinite="#E3B505",
    severity={"critical": "#B00020", "warning": "#E69F00"},
)

DARK = Theme(
    paper="#1e1e1e",
    ink="#e8e8e8",
    grid="#3c3c3c",
    runs=(
        *("#56B4E9", "#E69F00", "#2CC295", "#D98CB8", "#F0E442", "#D55E00"),
        *("#8A3FFC", "#A8452F", "#3A4FC0", "#A5FF96"),
    ),
    low=("#a9d5f5", "#3f86bd"),
    middle="#333333",
    high=("#cf5a45", "#ffc2b0"),
    zero="#8c8c8c",
    nonfinite="#F0E442",
    severity={"critical": "#FF6B6B", "warning": "#E69F00"},
)

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

_ENTRIES = 4
"""Maximum number of entries in a legend."""

_READABLE = 4.5
"""Minimum contrast of text (WCAG 2, level AA)."""


def theme(dark: bool) -> Theme:
    """The colours for a light or a dark page."""
    return DARK if dark else LIGHT


def escape(text: str) -> str:
    """Escape a text for plotly.

    Plotly reads all texts as a subset of HTML, some as templates with variables such as
    `%{x}`, and text between dollars as TeX if MathJax is loaded, for example in a notebook.
    """
    escaped = html.escape(str(text), quote=False)
    return escaped.replace("$", "&#36;").replace("%", "&#37;")


def short(name: str, length: int = 24) -> str:
    """The name of a layer for an axis, escaped. A long name is cut at its start, because
    names differ at their ends."""
    cut = name if len(name) <= length else f"…{name[1 - length :]}"
    return escape(cut)


def short_run(name: str) -> str:
    """A run's name for a legend: its start and its end; escaped."""
    half = _RUN_NAME // 2
    cut = name if len(name) <= _RUN_NAME else f"{name[: half - 1]}…{name[-half:]}"
    return escape(cut)


def slanted(x: Sequence[float] | np.ndarray, names: Sequence[str]) -> dict:
    """Names of layers as slanted ticks of an axis."""
    texts = [short(name) for name in names]
    return {"tickvals": x, "ticktext": texts, "tickangle": -25}


def whole(low: float, high: float) -> dict:
    """Ticks of an axis of whole numbers, such as steps, without ticks between them."""
    if low == high:
        return {"tickvals": [low]}
    return {"dtick": 1, "tick0": 0} if high - low < _MANY else {}


def rgb(colour: str) -> list[int]:
    """The channels of a colour `#rrggbb`."""
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def translucent(colour: str, opacity: float) -> str:
    """A colour `#rrggbb` as plotly's `rgba(...)`."""
    return f"rgba({', '.join(str(c) for c in rgb(colour))}, {opacity})"


def mixed(colour: str, other: str, share: float) -> str:
    """A mixture of two colours `#rrggbb` with this share of the first one."""
    pairs = zip(rgb(colour), rgb(other), strict=True)
    channels = (round(share * a + (1 - share) * b) for a, b in pairs)
    return "#" + "".join(f"{channel:02x}" for channel in channels)


def contrast(colour: str, paper: str) -> float:
    """The contrast of two colours `#rrggbb`, from 1 to 21 (WCAG 2)."""
    low, high = sorted(_luminance(one) for one in (colour, paper))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour):
    share = np.array(rgb(colour)) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def readable(colour: str, paper: str, ink: str) -> str:
    """A colour for text: with as much of the ink as text needs to be read on the paper."""
    shades = (mixed(colour, ink, 1 - tenth / 10) for tenth in range(10))
    return next((one for one in shades if contrast(one, paper) >= _READABLE), ink)


def shade(share: float, dark: bool) -> str:
    """The colour of one of many curves in an order.

    Args:
        share: Its place, from 0 to 1.
        dark: Whether the page is dark.
    """
    low, high = (0.25, 1.0) if dark else (0.0, 0.85)
    (found,) = colors.sample_colorscale("Viridis", [low + (high - low) * share])
    channels = colors.unlabel_rgb(found)
    return "#" + "".join(f"{round(channel):02x}" for channel in channels)


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


def dress(
    figure: graph_objects.Figure,
    colours: Theme,
    title: str,
    height: int = 460,
) -> graph_objects.Figure:
    """Set the title, the colours and the legend of a figure; returns the figure.

    Args:
        figure: A figure with its traces and axes.
        colours: The theme of the page.
        title: The title, already escaped.
        height: Height in pixels, including the labels of the axes and the legend. Defaults
            to `460`.
    """
    _limit_legend(figure)
    axis = {"gridcolor": colours.grid, "zeroline": False, "linecolor": colours.grid}
    axis |= {"ticks": "outside", "tickcolor": colours.grid, "automargin": True}
    axis |= {"exponentformat": "power"}  # not 10n or 2M
    figure.update_layout(
        template=None,
        title={"text": title, "x": 0.01, "xanchor": "left", "font": {"size": 15}},
        paper_bgcolor=colours.paper,
        plot_bgcolor=colours.paper,
        font={"color": colours.ink, "size": 12},
        height=height,
        margin={"l": 70, "r": 20, "t": 50, "b": 10},
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


def add_key(figure: graph_objects.Figure, text: str) -> None:
    """Write a short key above the panels, on the left; nothing for an empty text."""
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
            showarrow=False,
        )


def _limit_legend(figure):
    """Keep the first entry of each kind, and not more than fit."""
    shown = []
    for trace in figure.data:
        if trace.showlegend:
            kind = trace.legendgroup or trace.name
            trace.showlegend = kind not in shown and len(shown) < _ENTRIES
            shown.append(kind)


def note(figure: graph_objects.Figure, text: str) -> None:
    """Write a text into the middle of an empty figure, which says why it is empty."""
    figure.add_annotation(
        text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)

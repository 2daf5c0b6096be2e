"""How figures look: colours that colour-blind people tell apart, light and dark."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from plotly import graph_objects


@dataclass(frozen=True)
class Theme:
    """Colours of a figure.

    Attributes:
        paper, ink, grid: Background; text and axes; grid lines.
        runs: One for each run, in turn (Okabe & Ito 2008).
        low, middle, high: Of a size far below 1, about 1, far above 1.
        zero, nonfinite: Marks of what has no place on a log scale.
        severity: Of findings.
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
        """The colour of a run, by its place among all of them."""
        return self.runs[place % len(self.runs)]

    @property
    def sizes(self) -> list[list]:
        """A colour scale for sizes, 1 in the middle."""
        colours = (*self.low, self.middle, *self.high)
        return [[i / 4, colour] for i, colour in enumerate(colours)]


LIGHT = Theme(
    paper="#ffffff",
    ink="#222222",
    grid="#e3e3e3",
    runs=("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
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
    runs=("#56B4E9", "#E69F00", "#2CC295", "#D98CB8", "#F0E442", "#D55E00"),
    low=("#a9d5f5", "#3f86bd"),
    middle="#333333",
    high=("#cf5a45", "#ffc2b0"),
    zero="#8c8c8c",
    nonfinite="#F0E442",
    severity={"critical": "#FF6B6B", "warning": "#E69F00"},
)

LOG_AXIS = {"type": "log", "nticks": 7}
"""An axis of sizes: plotly has ticks at whole powers of 10, with digits between them on a
short axis, and plain numbers within one, also when a reader zooms in."""

DECADES = 2.5
"""Length of such an axis at least, before it has its margins, and then three powers of 10;
else noise looks like a trend."""

NAMES = 12
"""Layers up to which their names fit below an axis."""

DASHES = ("dot", "dash", "dashdot", "longdash")
"""Of the steps of a run before the last one, in turn; the last one is solid."""

_RUN_NAME = 40
"""Characters of a run's name in a legend."""

_MANY = 10
"""Length of an axis from which on plotly's own ticks are whole numbers."""

_TINT = 0.2
"""Share of a colour in its tint."""


def theme(dark: bool) -> Theme:
    """The colours for a light or a dark page."""
    return DARK if dark else LIGHT


def escape(text: str) -> str:
    """Text as plotly shows it: all its texts are a subset of HTML; some are templates, with
    variables as `%{x}`; and TeX between dollars where MathJax is loaded, in a notebook for
    example."""
    escaped = html.escape(str(text), quote=False)
    return escaped.replace("$", "&#36;").replace("%", "&#37;")


def short(name: str, length: int = 24) -> str:
    """A layer's name for an axis: its end, which tells it from its neighbours; escaped."""
    cut = name if len(name) <= length else f"…{name[1 - length :]}"
    return escape(cut)


def short_run(name: str) -> str:
    """A run's name for a legend: its start and its end; escaped."""
    half = _RUN_NAME // 2
    cut = name if len(name) <= _RUN_NAME else f"{name[: half - 1]}…{name[-half:]}"
    return escape(cut)


def slanted(x: Sequence[float], names: Sequence[str]) -> dict:
    """Layers' names as an axis' ticks."""
    texts = [short(name) for name in names]
    return {"tickvals": x, "ticktext": texts, "tickangle": -25}


def whole(low: float, high: float) -> dict:
    """Ticks of an axis of whole numbers, such as steps: none between them."""
    if low == high:
        return {"tickvals": [low]}
    return {"dtick": 1, "tick0": 0} if high - low < _MANY else {}


def rgb(colour: str) -> list[int]:
    """The channels of a colour `#rrggbb`."""
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def translucent(colour: str, opacity: float) -> str:
    """A colour `#rrggbb` as plotly's `rgba(...)`."""
    return f"rgba({', '.join(str(c) for c in rgb(colour))}, {opacity})"


def tint(colour: str, paper: str) -> str:
    """A pale tint of a colour, opaque: what is behind it does not show."""
    pairs = zip(rgb(colour), rgb(paper), strict=True)
    mixed = (round(_TINT * ink + (1 - _TINT) * page) for ink, page in pairs)
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def power(exponent: int) -> str:
    """A power of 10 as plotly writes it at an axis."""
    if exponent in (0, 1):
        return f"{10**exponent}"
    return f"10<sup>{exponent}</sup>".replace("-", "\u2212")


def dress(
    figure: graph_objects.Figure,
    colours: Theme,
    title: str,
    height: int = 460,
) -> graph_objects.Figure:
    """Give a figure its title, its colours and its legend; returns it.

    Args:
        figure: With its traces and axes.
        colours: Of the page.
        title: Already escaped.
        height: In pixels. What the labels of the axes and the legend take is made free.
    """
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


def note(figure: graph_objects.Figure, text: str) -> None:
    """Say in the middle of an empty figure why it is empty."""
    figure.add_annotation(
        text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)

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
        ridge: Of a histogram, which hides those behind it.
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
    ridge: str
    zero: str
    nonfinite: str
    severity: dict[str, str]

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
    ridge="#cfe3f1",
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
    ridge="#274a60",
    zero="#8c8c8c",
    nonfinite="#F0E442",
    severity={"critical": "#FF6B6B", "warning": "#E69F00"},
)

POWERS = {"tickprefix": "10<sup>", "ticksuffix": "</sup>"}
"""Ticks of an axis, or a colour bar, of log10."""

NAMES = 12
"""Layers up to which their names fit below an axis."""

FAINT = 3.0
"""Decades away from 1 that colours of sizes reach at least: a healthy network is pale."""

DASHES = ("dot", "solid", "dash", "dashdot", "longdash")


def theme(dark: bool) -> Theme:
    """The colours for a light or a dark page."""
    return DARK if dark else LIGHT


def escape(text: str) -> str:
    """Text as plotly shows it: all its texts are a subset of HTML, and TeX between dollars
    where MathJax is loaded, in a notebook for example."""
    return html.escape(str(text), quote=False).replace("$", "&#36;")


def short(name: str, length: int = 24) -> str:
    """A layer's name for an axis: its end, which tells it from its neighbours; escaped."""
    cut = name if len(name) <= length else f"…{name[1 - length :]}"
    return escape(cut)


def slanted(x: Sequence[float], names: Sequence[str]) -> tuple[dict, int]:
    """Layers' names as an axis' ticks, and the pixels that these and a title take."""
    texts = [short(name) for name in names]
    longest = max((min(len(name), 24) for name in names), default=0)
    return {"tickvals": x, "ticktext": texts, "tickangle": -25}, 44 + 3 * longest


def translucent(colour: str, opacity: float) -> str:
    """A colour `#rrggbb` as plotly's `rgba(...)`."""
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({', '.join(str(c) for c in channels)}, {opacity})"


def dress(
    figure: graph_objects.Figure,
    colours: Theme,
    title: str,
    height: int = 460,
    below: int = 52,
) -> graph_objects.Figure:
    """Give a figure its title, its colours and its legend; returns it.

    Args:
        figure: With its traces and axes.
        colours: Of the page.
        title: Already escaped.
        height: In pixels.
        below: Pixels that labels and title of the x axis take; the legend is below them.
    """
    bottom = below + 45
    axis = {"gridcolor": colours.grid, "zeroline": False, "linecolor": colours.grid}
    figure.update_layout(
        template=None,
        title={"text": title, "x": 0.01, "xanchor": "left", "font": {"size": 15}},
        paper_bgcolor=colours.paper,
        plot_bgcolor=colours.paper,
        font={"color": colours.ink, "size": 12},
        height=height,
        margin={"l": 70, "r": 20, "t": 50, "b": bottom},
        legend={
            "orientation": "h",
            "y": -below / (height - 50 - bottom),
            "yanchor": "top",
            "bgcolor": "rgba(0, 0, 0, 0)",
        },
        hoverlabel={"font": {"size": 12}, "namelength": -1},
    )
    figure.update_xaxes(**axis, ticks="outside", tickcolor=colours.grid)
    figure.update_yaxes(**axis, ticks="outside", tickcolor=colours.grid, automargin=True)
    return figure


def note(figure: graph_objects.Figure, text: str) -> None:
    """Say in the middle of an empty figure why it is empty."""
    figure.add_annotation(
        text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)

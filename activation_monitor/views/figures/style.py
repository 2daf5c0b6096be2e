"""How figures look: colours that colour-blind people tell apart, light and dark."""

import html
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

DASHES = ("dot", "solid", "dash", "dashdot", "longdash")


def theme(dark: bool) -> Theme:
    """The colours for a light or a dark page."""
    return DARK if dark else LIGHT


def escape(text: str) -> str:
    """Text as plotly shows it, which reads a subset of HTML in all its texts."""
    return html.escape(str(text), quote=False)


def short(name: str, length: int = 24) -> str:
    """A layer's name for an axis: its end, which tells it from its neighbours; escaped."""
    cut = name if len(name) <= length else f"…{name[1 - length :]}"
    return escape(cut)


def translucent(colour: str, opacity: float) -> str:
    """A colour `#rrggbb` as plotly's `rgba(...)`."""
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({', '.join(str(c) for c in channels)}, {opacity})"


def dress(
    figure: graph_objects.Figure, colours: Theme, title: str, height: int = 460
) -> graph_objects.Figure:
    """Give a figure its title, its colours and its legend; returns it."""
    axis = {"gridcolor": colours.grid, "zeroline": False, "linecolor": colours.grid}
    figure.update_layout(
        template=None,
        title={"text": title, "x": 0.01, "xanchor": "left", "font": {"size": 15}},
        paper_bgcolor=colours.paper,
        plot_bgcolor=colours.paper,
        font={"color": colours.ink, "size": 12},
        height=height,
        margin={"l": 70, "r": 20, "t": 50, "b": 50},
        legend={
            "orientation": "h",
            "y": -0.18,
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

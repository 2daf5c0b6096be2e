"""The colours of the figures, which colour-blind people can distinguish."""

from dataclasses import dataclass

import numpy as np
from plotly import colors


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

_READABLE = 4.5
"""Minimum contrast of text (WCAG 2, level AA)."""


def theme(dark: bool) -> Theme:
    """The colours for a light or a dark page."""
    return DARK if dark else LIGHT


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

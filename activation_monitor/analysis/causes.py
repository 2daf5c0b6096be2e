"""What a rule knows about the cause of a finding. Plain data; `fixes` turns it into a fix.

A rule has read the layers, the weights that compute them and the direction. It passes them
on, so that a fix does not have to find them again.
"""

from typing import Literal, NamedTuple

from activation_monitor.analysis.growth import GrowthRange
from activation_monitor.analysis.links import Link


class Along(NamedTuple):
    """An effect that adds up along a chain of weight layers.

    Attributes:
        chain: The weight layers in order; empty if they do not form a chain.
        decades: By how much the signal, or the gradient, grows along the chain.
        backward: Whether it is the gradient.
    """

    chain: tuple[Link, ...]
    decades: float
    backward: bool


Effect = Along | Literal["gain", "limits", "differences", "mean"]
"""How a finding depends on the size of weights: it adds up `Along` a chain; it is the
"gain" of one layer; outputs reach the "limits" of a bounded activation function; the
"differences" between samples get lost, which only some activation functions do; or it is a
"mean" over an rms, which no size of the weights changes."""


class Weights(NamedTuple):
    """Weight layers whose weights may be too large or too small.

    Attributes:
        rows: Rows of the tensors that the finding names.
        links: The weight layers that compute them.
        grows: Whether too large weights would explain it, else too small ones.
        effect: How the finding depends on the size of the weights.
        stream: The residual stream that the tensors belong to, if they do.
    """

    rows: tuple[int, ...]
    links: tuple[Link, ...]
    grows: bool
    effect: Effect
    stream: GrowthRange | None = None


class EqualWeights(NamedTuple):
    """Weight layers in which all weights are equal."""

    links: tuple[Link, ...]


class Zeros(NamedTuple):
    """Tensors that are zero for all samples.

    Attributes:
        rows: Rows of the tensors, in order.
        links: The weight layers that compute them.
        dead: Whether these are ReLU layers with dead units, else layers whose outputs are
            all zero.
    """

    rows: tuple[int, ...]
    links: tuple[Link, ...]
    dead: bool


class NonFinite(NamedTuple):
    """The tensor in which NaN or infinity appears first."""

    row: int


class InputScale(NamedTuple):
    """The first weight layer, whose input is too large or too small."""

    link: Link


class Operations(NamedTuple):
    """Operations between weight layers.

    Attributes:
        names: Of the tensors that they compute.
        grows: Whether they make the signal larger.
    """

    names: tuple[str, ...]
    grows: bool


Cause = Weights | EqualWeights | Zeros | NonFinite | InputScale | Operations

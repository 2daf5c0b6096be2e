"""What draws a layer's weights as its activation function needs them, as Keras code."""

import math
from typing import NamedTuple

import numpy as np

from activation_monitor.analysis import activations, records, theory
from activation_monitor.analysis.depth_profile import Link
from activation_monitor.analysis.shown import one_line
from activation_monitor.analysis.snapshot import Snapshot


class Change(NamedTuple):
    """One thing to change.

    Attributes:
        where: "in" the call that makes each layer; "before" or "after" each layer.
        code: Keras code: arguments for "in", a new layer for "before" and "after".
        layers: Names of the layers.
        why: The number behind it.
    """

    where: str
    code: str
    layers: tuple[str, ...]
    why: str = ""

    @property
    def line(self) -> str:
        """The code and, as a comment, the number behind it."""
        return f"{self.code}  # {self.why}" if self.why else self.code

    @property
    def place(self) -> str:
        """Where it belongs, in words."""
        return f"{self.where} {listed(self.layers)}"

    def to_dict(self) -> dict[str, str]:
        """The change as plain data: `place` and `line`."""
        return {"place": self.place, "line": self.line}

    @one_line
    def __repr__(self) -> str:
        return f"{self.place}: {self.line}"


def listed(names, most=3) -> str:
    """A few names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def drawn_right(
    links: list[tuple[Link, float]], snapshot: Snapshot, activation: str | None = None
):
    """What draws the weights of layers as their activation functions need them.

    Args:
        links: The layers, each with a factor for the variance.
        snapshot: That they are of.
        activation: The activation function that they shall have; None: the one they have.

    Returns:
        One `Change` for each different one, in the order of the layers.
    """
    groups = {}
    for link, scale in links:
        code, formula = _arguments(link, snapshot, activation or link.activation, scale)
        groups.setdefault((code, formula), []).append(link)
    changes = []
    for (code, formula), group in groups.items():
        now = np.sqrt(np.mean([link.kernel_std**2 for link in group]))
        why = f"{formula} in place of {now:.3g}" if formula and now > 0 else formula
        changes.append(Change("in", code, tuple(link.name for link in group), why))
    return tuple(changes)


# He's derivation keeps the second moment where E phi^2 is half of it at every size. These
# functions halve it again where the signal is small, and twenty layers of gain 2 let it
# vanish; 1 / E phi(z)^2 keeps a signal of size 1.
_NOT_QUITE_RELU = ("gelu", "silu", "swish", "mish", "hard_silu", "hard_swish")


def _arguments(link, snapshot, activation, scale):
    """The argument that draws one layer's weights, and the std that it gives."""
    layer = snapshot.layers[link.row]
    argument = "kernel_initializer"
    if "depthwise" in layer.class_name.lower():
        argument = "depthwise_initializer"
    if scale == 0.0:
        return f'{argument}="zeros"', "std 0"
    suits = activations.initializer(activation) or activations.INITIALIZERS["linear"]
    name, gain = suits.name, suits.weight_variance
    if name == "he_normal":
        gain = 2.0  # what it gives; elu and leaky_relu ask for less
    if activation in _NOT_QUITE_RELU:
        gain = 1.0 / theory.second_moment(activation, 1.0)
    gain *= scale
    fan = _keras_fan_in(link, layer, snapshot)
    if not fan:
        return f'{argument}="{name}"', ""
    std, formula = math.sqrt(gain / fan), f"sqrt({gain:.3g} / {fan:.4g})"
    code = f'"{name}"'
    if argument == "depthwise_initializer" or fan / link.fan_in > 1.5:
        # Keras' fan-in of a depthwise kernel counts all channels (keras issue 11773), and
        # that of a convolution the taps that fall into the padding.
        std, formula = (
            math.sqrt(gain / link.fan_in),
            f"sqrt({gain:.3g} / {link.fan_in:.4g})",
        )
        code = f"keras.initializers.RandomNormal(stddev={std:.3g})"
    elif scale != 1.0 or activation in _NOT_QUITE_RELU:
        code = f"keras.initializers.VarianceScaling({gain:.3g})"
    elif name == "glorot_uniform":
        if 0.5 <= layer.width / fan <= 2.0:
            std = math.sqrt(2.0 / (fan + layer.width))
            formula = f"sqrt(2 / ({fan:.4g} + {layer.width}))"
        else:  # it would be far from the fan-in
            code = '"lecun_normal"'
    return f"{argument}={code}", f"std {std:.3g} = {formula}"


def _keras_fan_in(link, layer, snapshot):
    """Without regard to padding, where Keras' initializers have none."""
    if layer.class_name in ("Conv1D", "Conv2D", "Conv3D"):
        weights = snapshot.field("count", of=records.WEIGHT)[link.row]
        if weights:
            return weights / layer.width
    return link.fan_in

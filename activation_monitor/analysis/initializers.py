"""Which initializer suits a layer's activation function, as Keras code."""

import math
from collections.abc import Iterable

import numpy as np

from activation_monitor.analysis import activations, records, theory
from activation_monitor.analysis.fix import Change
from activation_monitor.analysis.links import Link
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot
from activation_monitor.analysis.thresholds import limit

_SAME = {
    "he_normal": ("HeNormal", "HeUniform"),
    "lecun_normal": ("LecunNormal", "LecunUniform"),
    "glorot_uniform": ("GlorotNormal", "GlorotUniform"),
}
"""By recommended initializer: classes that draw weights of the same size."""

_LECUN_OR_GLOROT = (*_SAME["lecun_normal"], *_SAME["glorot_uniform"])
_SIMILAR = {
    "he_normal": _SAME["he_normal"],
    "lecun_normal": _LECUN_OR_GLOROT,
    "glorot_uniform": _LECUN_OR_GLOROT,
}
"""By recommended initializer: classes that draw weights of about the same size."""

# He's derivation keeps the second moment because E phi^2 is half of it at every size. These
# functions halve it again where the signal is small, and the signal vanishes in twenty
# layers of gain 2. 1 / E phi(z)^2 keeps a signal of size 1.
_NOT_QUITE_RELU = ("gelu", "silu", "swish", "mish", "hard_silu", "hard_swish")

_PADDED = 1.5
"""Keras' fan-in over the products that add up. Above this ratio, its initializers draw too
small weights."""

_GLOROT_IS_LECUN = 0.5, 2.0
"""Width over fan-in between which Glorot's weights are about those of the fan-in alone."""


def suitable_weights(
    links: Iterable[tuple[Link, float]], snapshot: Snapshot, activation: str | None = None
) -> tuple[Change, ...]:
    """The code that draws weights as the activation functions of layers need them.

    Args:
        links: The layers, each with a factor for the variance.
        snapshot: The snapshot of these layers.
        activation: The activation function that they will have. None: the present one.
            Defaults to `None`.

    Returns:
        One `Change` for each different code, in the order of the layers.
    """
    groups: dict[tuple[str, str], list[Link]] = {}
    for link, scale in links:
        code = _arguments(link, snapshot, activation or link.activation, scale)
        groups.setdefault(code, []).append(link)
    changes: list[Change] = []
    for (code, formula), group in groups.items():
        now = np.sqrt(np.mean([link.kernel_std**2 for link in group]))
        why = f"{formula} in place of {now:.3g}" if formula and now > 0 else formula
        changes.append(Change("in", code, tuple(link.name for link in group), why))
    return tuple(changes)


def has_suitable(link: Link, snapshot: Snapshot) -> bool:
    """Whether the layer has the recommended initializer and about its weights.

    Then no change can be recommended: it would have the same name.
    """
    suits = activations.initializer(link.activation)
    if suits is None or _class_of(link, snapshot) not in _SAME.get(suits.name, ()):
        return False
    (change,) = suitable_weights([(link, 1.0)], snapshot)
    return f'="{suits.name}"' in change.code and not _is_far(link)


def was_changed(link: Link, snapshot: Snapshot) -> bool:
    """Whether the layer's initializer is about the recommended one, but not its weights.

    Depthwise kernels do not count: Keras computes their fan-in differently (keras issue
    11773).
    """
    suits = activations.initializer(link.activation)
    known = suits is not None and not link.depthwise
    return (
        known
        and _is_far(link)
        and _class_of(link, snapshot) in _SIMILAR.get(suits.name, ())
    )


def _is_far(link: Link) -> bool:
    return abs(link.excess) > limit("changed-weights")


def _class_of(link: Link, snapshot: Snapshot) -> str:
    """The class of the layer's initializer."""
    return snapshot.layers[link.row].initializer.partition("(")[0]


def _arguments(
    link: Link, snapshot: Snapshot, activation: str, scale: float
) -> tuple[str, str]:
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
    if argument == "depthwise_initializer" or fan / link.fan_in > _PADDED:
        # Keras' fan-in of a depthwise kernel counts all channels (keras issue 11773), and
        # that of a convolution counts the taps that fall into the padding.
        std = math.sqrt(gain / link.fan_in)
        formula = f"sqrt({gain:.3g} / {link.fan_in:.4g})"
        code = f"keras.initializers.RandomNormal(stddev={std:.3g})"
    elif scale != 1.0 or activation in _NOT_QUITE_RELU:
        code = f"keras.initializers.VarianceScaling({gain:.3g})"
    elif name == "glorot_uniform":
        low, high = _GLOROT_IS_LECUN
        if low <= layer.width / fan <= high:
            std = math.sqrt(2.0 / (fan + layer.width))
            formula = f"sqrt(2 / ({fan:.4g} + {layer.width}))"
        else:
            code = '"lecun_normal"'
    return f"{argument}={code}", f"std {std:.3g} = {formula}"


def _keras_fan_in(link: Link, layer: LayerInfo, snapshot: Snapshot) -> float:
    """The fan-in as Keras' initializers compute it: they ignore padding."""
    if layer.class_name in ("Conv1D", "Conv2D", "Conv3D"):
        weights = snapshot.field("count", of=records.WEIGHT)[link.row]
        if weights:
            return float(weights) / layer.width
    return link.fan_in

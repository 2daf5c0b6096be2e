"""What the weight layers of a model compute before their activation functions.

One eager forward pass shows each of them at its first call, and lets its kernel be
changed there before the data goes on.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from activation_monitor.recording.backends import backend
from activation_monitor.recording.calls import replaced, wrapped_calls
from activation_monitor.recording.layers import (
    all_layers,
    has_kernel,
    kind_of,
    unique_paths,
)

_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)

# Layers whose pre-activation is linear in one kernel.
_KNOWN = (
    *(layers.Dense, layers.EinsumDense),
    *(layers.Conv1D, layers.Conv2D, layers.Conv3D),
    *(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
    *(layers.DepthwiseConv1D, layers.DepthwiseConv2D),
    *_SEPARABLE,
)

_CHUNK = 2**20


class WeightLayer(NamedTuple):
    """A weight layer of a model.

    Attributes:
        name: Its Keras path, unique in the model.
        layer: The layer.
        seen_at: The layer whose call shows all its pre-activations: itself, or the
            `TimeDistributed` around it, which calls it once for each time step.
        around: The layers that hold it directly and nothing else: wrappers.
    """

    name: str
    layer: keras.Layer
    seen_at: keras.Layer
    around: tuple[keras.Layer, ...]

    @property
    def known(self) -> bool:
        """Whether its pre-activation is linear in one kernel."""
        return isinstance(self.layer, _KNOWN)

    @property
    def kernel(self):
        """The kernel that sets its scale: of a separable convolution the pointwise one.

        Not a variable where it is computed from several, as with LoRA.
        """
        separable = isinstance(self.layer, _SEPARABLE)
        return self.layer.pointwise_kernel if separable else self.layer.kernel


def weight_layers(model: keras.Model) -> list[WeightLayer]:
    """The weight layers of a model, recurrent ones as a whole."""
    everything = all_layers(model)
    names = unique_paths(model)
    seen_at, around = {}, {}
    for layer in everything:
        inner = layer
        while isinstance(inner, layers.TimeDistributed):
            inner = inner.layer
        seen_at.setdefault(id(inner), layer)
        if isinstance(layer, layers.Wrapper):
            around.setdefault(id(layer.layer), []).append(layer)
    return [
        WeightLayer(
            names[id(layer)], layer, seen_at[id(layer)], tuple(around.get(id(layer), ()))
        )
        for layer in everything
        if isinstance(layer, (*_KNOWN, layers.RNN))
        or (kind_of(layer) == "weight" and has_kernel(layer))
    ]


def at_first_calls(
    model: keras.Model,
    x,
    weights: list[WeightLayer],
    look: Callable[[WeightLayer, Callable[[], float]], Any],
) -> dict[str, Any]:
    """One eager forward pass, with `training=True`, that stops at each weight layer.

    Args:
        model: The model.
        x: What it is called with.
        weights: Where to stop.
        look: Called as `look(weight, std)` at the first call of each weight layer.
            `std()` computes the layer's pre-activations from its input of this pass and
            its kernel of this moment, and returns their standard deviation over all
            elements: NaN if they are not finite, or the layer is of an unknown kind.
            Then the layer is called, and the data goes on.

    Returns:
        What `look` returned, by name of weight layer, in the order of the calls. Calls
        inside a function that is being compiled are not seen.
    """
    seen = {}
    of = {id(weight.seen_at): weight for weight in weights}

    def wrap(layer, call):
        weight = of[id(layer)]

        def looked_at(*args, **kwargs):
            def std():
                if not weight.known:
                    return math.nan
                with replaced([weight.layer], "activation", _linear):
                    return _std(call(*args, **kwargs))

            if weight.name not in seen and backend.graph() is None:
                seen[weight.name] = look(weight, std)
            return call(*args, **kwargs)

        return looked_at

    with wrapped_calls([weight.seen_at for weight in weights], wrap):
        model(x, training=True)
    return seen


def _linear(layer, activation):
    del layer, activation
    return keras.activations.linear


def _std(tensor):
    """In float64, whatever the tensor's dtype."""
    flat = keras.ops.convert_to_numpy(tensor).reshape(-1)
    chunks = [flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK)]
    with np.errstate(over="ignore", invalid="ignore"):
        mean = sum(chunk.astype(np.float64).sum() for chunk in chunks) / flat.size
        squares = (np.square(chunk.astype(np.float64) - mean).sum() for chunk in chunks)
        std = math.sqrt(sum(squares) / flat.size)
    return std if math.isfinite(std) else math.nan

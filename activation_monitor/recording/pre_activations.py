"""The pre-activations of a model's weight layers.

One eager forward pass stops at the first call of each weight layer. A callback measures the
pre-activations there and may change the kernel before the pass continues.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

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

# The pre-activations of these layers are linear in one kernel.
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
        seen_at: The layer whose call computes all pre-activations: the layer itself, or
            the `TimeDistributed` layer around it, which calls it once per time step.
        around: The `keras.layers.Wrapper` layers that wrap the layer directly.
    """

    name: str
    layer: keras.Layer
    seen_at: keras.Layer
    around: tuple[keras.Layer, ...]

    @property
    def known(self) -> bool:
        """Whether the pre-activations are linear in one kernel."""
        return isinstance(self.layer, _KNOWN)

    @property
    def kernel(self) -> Any:
        """The kernel that sets the scale of the pre-activations.

        This is the pointwise kernel of a separable convolution. The kernel is not a
        variable if the layer computes it from several variables, as with LoRA.
        """
        separable = isinstance(self.layer, _SEPARABLE)
        return self.layer.pointwise_kernel if separable else self.layer.kernel


def weight_layers(model: keras.Model) -> list[WeightLayer]:
    """The weight layers of a model.

    A recurrent layer counts as one weight layer.

    Args:
        model: The model.
    """
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
    x: Any,
    weights: list[WeightLayer],
    measure: Callable[[WeightLayer, Callable[[], float]], Any],
) -> dict[str, Any]:
    """Run one eager forward pass and measure each weight layer at its first call.

    The pass runs with `training=True`. Calls inside a function that is being compiled are
    not measured.

    Args:
        model: The model.
        x: The input of the model.
        weights: The weight layers to measure.
        measure: Called as `measure(weight, std)` at the first call of each weight layer,
            before the layer itself is called. `std()` computes the layer's
            pre-activations from its input in this pass and its present kernel, and
            returns their standard deviation over all elements. It returns NaN if they are
            not finite or if the pre-activations of this kind of layer are unknown.

    Returns:
        The return values of `measure` by name of weight layer, in the order of the calls.
    """
    seen = {}
    of = {id(weight.seen_at): weight for weight in weights}

    def wrap(layer, call):
        weight = of[id(layer)]

        def measured(*args, **kwargs):
            def std():
                if not weight.known:
                    return math.nan
                with replaced([weight.layer], "activation", _linear):
                    return _std(call(*args, **kwargs))

            if weight.name not in seen and backend.graph() is None:
                seen[weight.name] = measure(weight, std)
            return call(*args, **kwargs)

        return measured

    with wrapped_calls([weight.seen_at for weight in weights], wrap):
        model(x, training=True)
    return seen


def _linear(layer, activation):
    del layer, activation
    return keras.activations.linear


def _std(tensor):
    """The standard deviation over all elements, computed in float64."""
    flat = cast(np.ndarray, keras.ops.convert_to_numpy(tensor)).reshape(-1)
    chunks = [flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK)]
    with np.errstate(over="ignore", invalid="ignore"):
        mean = sum(chunk.astype(np.float64).sum() for chunk in chunks) / flat.size
        squares = (np.square(chunk.astype(np.float64) - mean).sum() for chunk in chunks)
        std = math.sqrt(sum(squares) / flat.size)
    return std if math.isfinite(std) else math.nan

"""The parts of a layer's gain: kernel, fan-in and initializer."""

import math
from typing import Any, NamedTuple

import keras
import numpy as np

from activation_monitor.recording.backends import backend


def kernel(layer: keras.Layer) -> Any:
    """The kernel that the layer multiplies its input with.

    Args:
        layer: The layer.

    Returns:
        The kernel: a variable, or a tensor if the layer computes it from several
        variables. None if the layer has no kernel. Also None for layers with several
        kernels (separable and recurrent layers), because their gain is not the product
        of one fan-in and one variance, and for quantized kernels.
    """
    if isinstance(layer, keras.layers.RNN | keras.layers.Embedding):
        return None
    if hasattr(layer, "recurrent_kernel") or getattr(layer, "quantization_mode", None):
        return None
    found = getattr(layer, "kernel", None)
    if found is None and getattr(layer, "weights", None):
        matrices = [w for w in layer.weights if len(w.shape) >= 2]
        found = matrices[0] if len(matrices) == 1 else None
    shape = getattr(found, "shape", None)
    if found is None or shape is None or len(shape) < 2:
        return None
    is_float = keras.backend.is_float_dtype(keras.backend.standardize_dtype(found.dtype))
    return found if is_float else None


_CONSTANT = (keras.initializers.Zeros, keras.initializers.Ones, keras.initializers.Constant)
_LEARNED, _MOVING = ("bias", "gamma", "beta"), ("moving_mean", "moving_variance")


def is_changed(layer: keras.Layer) -> bool:
    """Whether the layer's weights are known to differ from their initial values.

    Only variables with a constant initializer show a change: biases, scales and offsets.
    Kernels are random and do not. The bias of an LSTM does not either, because Keras
    initializes it with `unit_forget_bias`. Moving statistics count only in a frozen
    layer: in other layers one forward pass in training mode changes them.

    Args:
        layer: The layer.
    """
    if getattr(layer, "unit_forget_bias", False):
        return False
    for name in _LEARNED if layer.trainable else (*_LEARNED, *_MOVING):
        drawn_by = getattr(layer, f"{name}_initializer", None)
        variable = getattr(layer, name, None)
        if isinstance(drawn_by, _CONSTANT) and isinstance(variable, keras.Variable):
            initial = backend.on_host(drawn_by(variable.shape, variable.dtype))
            if not np.array_equal(backend.on_host(variable.value), initial):
                return True
    return False


def fan_in(layer: keras.Layer, inputs: tuple[int | None, ...]) -> float:
    """The number of products that are summed in one output, averaged over the outputs.

    Dense layers and convolutions have the fan-in that `keras.initializers` computes, with
    three differences:

    * A convolution padded with zeros counts only the taps that lie inside the image.
    * A depthwise convolution counts the taps of one channel. Keras' initializers count
      all channels (keras issue 11773).
    * A transposed convolution counts the taps that meet an input, about one in `strides`.

    Args:
        layer: The layer.
        inputs: Shape of the layer's input, batch axis first. None for unknown lengths.

    Returns:
        The fan-in. It is 0 for a layer without its own kernel and for unknown kinds.
    """
    found = kernel(layer)
    if found is None:
        return 0.0
    shape, name = tuple(found.shape), type(layer).__name__
    if name == "EinsumDense":
        of_input, rest = layer.equation.split(",")
        of_kernel, of_output = rest.split("->")
        summed = set(of_input) - set(of_output)
        axes = zip(shape, of_kernel, strict=True)
        return float(math.prod(n for n, axis in axes if axis in summed))
    size = getattr(layer, "kernel_size", None)
    if size is None or not hasattr(layer, "data_format"):
        known = len(shape) == 2 and inputs and shape[0] == inputs[-1]
        return float(shape[0]) if known else 0.0
    first = layer.data_format == "channels_first"
    places = tuple(inputs[2:] if first else inputs[1:-1]) or (None,) * len(size)
    if name.endswith("Transpose"):
        if None in places:
            return shape[-1] * math.prod(size) / math.prod(layer.strides)
        outputs = layer.compute_output_shape(inputs)
        outputs = outputs[2:] if first else outputs[1:-1]
        per_axis = zip(
            places, outputs, size, layer.strides, layer.dilation_rate, strict=True
        )
        # Each input meets `k` taps along an axis, minus those outside the image.
        return shape[-1] * math.prod(
            n * k * _inside(out, k, s, d, layer.padding) / out
            for n, out, k, s, d in per_axis
        )
    if name.startswith("Depthwise"):
        taps = math.prod(size)
    else:
        taps = math.prod(shape[:-1])
    if layer.padding in ("same", "causal"):
        taps *= math.prod(
            _inside(n, k, s, d, layer.padding)
            for n, k, s, d in zip(
                places, size, layer.strides, layer.dilation_rate, strict=True
            )
        )
    return float(taps)


def _inside(length, size, stride, dilation, padding):
    """The fraction of a padded convolution's taps along one axis that meet an input."""
    if length is None or padding == "valid":
        return 1.0
    outputs = -(-length // stride)
    reach = (size - 1) * dilation
    padded = max((outputs - 1) * stride + reach + 1 - length, 0)
    before = reach if padding == "causal" else padded // 2
    places = np.arange(outputs)[:, None] * stride + np.arange(size) * dilation - before
    return float(np.mean((places >= 0) & (places < length)))


class Recurrent(NamedTuple):
    """The parts of a recurrent layer that set its signal: fields of a `LayerInfo`."""

    gates: str = ""
    input_gain: float = 0.0
    recurrent_gain: float = 0.0


def recurrent(layer: keras.Layer) -> Recurrent:
    """The gains of the two kernels of a recurrent layer, as they are now.

    A gain is `sqrt(fan_in E w^2)`: for inputs of rms 1 the rms of the pre-activations,
    which the law of `theory` calls `sqrt(weight_variance)`. Both kernels are read on the
    host.

    Args:
        layer: A layer that is built.

    Returns:
        What is known. All fields are empty, or 0, for a layer that is not recurrent, or
        whose cell is not one of Keras' own.
    """
    cell: Any = getattr(layer, "cell", None)
    # Subclasses and other cells may do anything with kernels of these names.
    if type(cell).__name__ not in _CELLS or not _is_of_keras(cell):
        return Recurrent()
    gates = getattr(cell, "recurrent_activation", None)
    return Recurrent(
        getattr(gates, "__name__", ""), _gain(cell.kernel), _gain(cell.recurrent_kernel)
    )


_CELLS = ("SimpleRNNCell", "LSTMCell", "GRUCell", "ConvLSTMCell")


def _is_of_keras(layer):
    return type(layer).__module__.partition(".")[0] == "keras"


def _gain(variable):
    values = backend.on_host(variable.value).astype(np.float64)
    found = math.sqrt(values[..., 0].size * np.mean(values * values))
    return found if math.isfinite(found) else 0.0


def initializer(layer: keras.Layer) -> str:
    """The initializer of the kernel as Keras code.

    Args:
        layer: The layer.

    Returns:
        For example `"HeNormal()"`. Empty if the layer has no kernel initializer.
    """
    drawn_by = None
    for argument in ("kernel_initializer", "depthwise_initializer"):
        drawn_by = drawn_by or getattr(layer, argument, None)
    if drawn_by is None:
        return ""
    if not isinstance(drawn_by, keras.initializers.Initializer):
        return getattr(drawn_by, "__name__", type(drawn_by).__name__)
    config = drawn_by.get_config()
    if config.get("mean") == 0.0:
        del config["mean"]
    for unimportant in ("seed", "input_axes", "output_axes"):
        config.pop(unimportant, None)
    arguments = ", ".join(f"{name}={value!r}" for name, value in config.items())
    return f"{type(drawn_by).__name__}({arguments})"

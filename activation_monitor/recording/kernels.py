"""What a layer's signal gain is made of: its kernel, the fan-in, the initializer."""

import math

import keras
import numpy as np


def kernel(layer: keras.Layer):
    """The one kernel that the layer multiplies its input with; None if there is no such.

    None also for layers with several kernels (separable and recurrent ones), whose gain
    is no product of one fan-in and one variance, and for quantized kernels.
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
    if shape is None or len(shape) < 2:
        return None
    is_float = keras.backend.is_float_dtype(keras.backend.standardize_dtype(found.dtype))
    return found if is_float else None


_CONSTANT = (keras.initializers.Zeros, keras.initializers.Ones, keras.initializers.Constant)
_LEARNED, _MOVING = ("bias", "gamma", "beta"), ("moving_mean", "moving_variance")


def is_changed(layer: keras.Layer) -> bool:
    """Whether the layer's weights are known to have left their initial values.

    A bias or a scale that starts at a constant shows it. A kernel is random and cannot; nor
    can the bias of an LSTM, which Keras draws in its own way. Moving statistics count where
    they are used, in a frozen layer: one forward pass moves those of the others.
    """
    if getattr(layer, "unit_forget_bias", False):
        return False
    for name in _LEARNED if layer.trainable else (*_LEARNED, *_MOVING):
        drawn_by = getattr(layer, f"{name}_initializer", None)
        variable = getattr(layer, name, None)
        if isinstance(drawn_by, _CONSTANT) and isinstance(variable, keras.Variable):
            # Not `convert_to_numpy`, of which numpy warns.
            initial = np.asarray(drawn_by(variable.shape, variable.dtype))
            if not np.array_equal(np.asarray(variable.value), initial):
                return True
    return False


def fan_in(layer: keras.Layer, inputs: tuple[int | None, ...]) -> float:
    """How many products add up in one output, on average over the outputs.

    For Dense and convolutions as `keras.initializers` computes it, except that it counts
    * of a convolution padded with zeros only the taps that lie inside the image;
    * of a depthwise convolution the taps of one channel (Keras' own initializers count
      all channels: keras issue 11773);
    * of a transposed convolution the taps that meet an input, about one in `strides`.

    Args:
        layer: The layer.
        inputs: Shape of what it is given, the batch first. None where it is not known.

    Returns:
        The fan-in; 0 for a layer without a kernel of its own or of an unknown kind.
    """
    found = kernel(layer)
    if found is None:
        return 0.0
    shape, name = tuple(found.shape), type(layer).__name__
    if name == "EinsumDense":
        given, rest = layer.equation.split(",")
        of_kernel, put_out = rest.split("->")
        axes = zip(shape, of_kernel, strict=True)
        return float(math.prod(n for n, axis in axes if axis in set(given) - set(put_out)))
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
        # Each input meets `k` taps along an axis, less those that leave the image.
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
    """Share of a padded convolution's taps, along one axis, that meet an input."""
    if length is None or padding == "valid":
        return 1.0
    outputs = -(-length // stride)
    reach = (size - 1) * dilation
    padded = max((outputs - 1) * stride + reach + 1 - length, 0)
    before = reach if padding == "causal" else padded // 2
    places = np.arange(outputs)[:, None] * stride + np.arange(size) * dilation - before
    return float(np.mean((places >= 0) & (places < length)))


def initializer(layer: keras.Layer) -> str:
    """What the kernel was drawn with, as Keras code; empty if the layer does not say."""
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

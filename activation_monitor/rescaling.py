"""Data-driven initialization: scales every layer's pre-activations to unit variance."""

import math
from typing import Any

import keras
import numpy as np
from keras import layers

from activation_monitor.analysis.rescaling import RescaledLayer, Rescaling
from activation_monitor.recording import inputs
from activation_monitor.recording.backends import backend
from activation_monitor.recording.keras_private import stored_value
from activation_monitor.recording.layers import all_layers
from activation_monitor.recording.pre_activations import at_first_calls, weight_layers
from activation_monitor.views import tables  # noqa: F401 - shows the result

_SIGMOIDS = (keras.activations.sigmoid, keras.activations.hard_sigmoid)

# One multiplication is enough, unless a bias varies or a half precision format rounds.
_TOLERANCE = 0.005
_TRIES = 32

# The factor of one step back into the range of a format that overflows or underflows.
_LEAP = 2.0**8


def rescale(model: keras.Model, x: Any) -> Rescaling:
    """Scale the kernels of a model so that all pre-activations have unit variance.

    This is layer-sequential unit-variance initialization (LSUV), on one batch.

    The function runs one eager forward pass and visits the layers in the order of the
    data. It multiplies each kernel by one positive number, and the pass continues with the
    new output of the layer. The variance is computed over batch and units, with the mean
    removed. Pre-activations include the bias and precede the fused activation. The pass
    runs with `training=True`, so that `BatchNormalization` uses the statistics of the
    batch.

    Nothing else changes: biases, moving statistics, the states of seed generators,
    optimizer and trainable flags keep their values bit for bit. If an error is raised, the
    kernels keep their values too; an unbuilt model stays built. A custom layer that draws
    random numbers without its own seed generator advances Keras' global seed generator.

    Dense, einsum-dense, convolutional, transposed, depthwise and separable layers are
    rescaled at any position. The output layer is included, as in the paper. Notes:

    * The kernels keep their random values up to a factor. The paper starts from
      orthonormal kernels; for this, create the layers with
      `kernel_initializer="orthogonal"`.
    * A layer that is called more than once is rescaled at its first call. A layer inside
      `TimeDistributed` is rescaled over all time steps.
    * In a separable convolution only the pointwise kernel is scaled, because the output
      depends on the product of the two kernels.
    * In `MultiHeadAttention` each projection counts as one layer. Its division by
      `sqrt(key_dim)` assumes queries and keys of unit variance (Vaswani et al. 2017).

    The following layers are not rescaled, and the report says so:

    * Recurrent layers: their gates are sigmoids, and their recurrent kernel has its own
      scale.
    * Layers with a fused sigmoid: unit variance makes deep sigmoid networks worse.
    * Frozen kernels.
    * Kernels with a constraint or inside `SpectralNormalization`, which set the scale.
    * Weight layers of unknown kinds.

    Embeddings and normalization layers are neither rescaled nor reported.

    Args:
        model: The model. If it is not built, the batch builds it.
        x: One batch of inputs of the model: an array `(batch, ...)`, or a list, tuple or
            dict of arrays. A few hundred samples are enough.

    Returns:
        A `Rescaling`, which prints as a table: for each weight layer the standard
        deviation before and after, and the factor.

    Raises:
        TypeError: If `model` is not a Keras model, or `x` does not hold numbers.
        ValueError: If `x` is empty, not finite or does not fit the model; if a kernel is
            all zeros, not finite or quantized; or if no factor gives a layer's
            pre-activations unit variance because its input is all zeros or not finite.

    Example:

    ```python
    print(rescale(model, x_train[:256]))
    ```

    Reference:
        Mishkin and Matas (2016), "All you need is a good init",
        https://arxiv.org/abs/1511.06422
    """
    backend.check()
    with inputs.explained(model, _checked(model, x), "rescale"):
        return _rescaled(model, x)


def _rescaled(model, x):
    _build(model, x)
    weights = weight_layers(model)
    reasons = _reasons(weights)
    saved = _state(model)
    for weight in weights:
        if not reasons[weight.name]:
            _refuse_useless(saved[id(weight.kernel)][1], weight.name)

    def scaled(weight, factor):
        # Scale the original kernel each time, so that it is rounded only once.
        drawn = saved[id(weight.kernel)][1]
        with np.errstate(over="ignore", under="ignore"):
            return (drawn.astype(np.float64) * factor).astype(drawn.dtype)

    factors, failures = {}, []

    def bring_to_unit_std(weight, std):
        if reasons[weight.name] or failures:
            return

        def std_at(factor):
            weight.kernel.assign(scaled(weight, factor))
            return std()

        factor, found = _search(std_at)
        if factor is not None:
            factors[weight.name] = factor
            return
        weight.kernel.assign(scaled(weight, 1.0))
        if found > 0:
            reasons[weight.name] = "no scale of its kernel gives unit std: its bias varies"
        else:  # raised after the pass, because Keras would add messages of its own
            failures.append(_useless_input(weight.name))

    def stds():
        return at_first_calls(model, x, weights, lambda weight, std: std())

    final = saved
    try:
        before = stds()
        _restore(saved)
        at_first_calls(model, x, weights, bring_to_unit_std)
        if failures:
            raise ValueError(failures[0])
        finished = dict(saved)
        for weight in weights:
            if weight.name in factors:
                kernel = scaled(weight, factors[weight.name])
                finished[id(weight.kernel)] = weight.kernel, kernel
        _restore(finished)
        after = stds()
        final = finished
    finally:
        _restore(final)

    names = [*before, *(weight.name for weight in weights if weight.name not in before)]
    rows = [
        RescaledLayer(
            name=name,
            std_before=before.get(name, math.nan),
            std_after=after.get(name, math.nan),
            factor=factors.get(name, 1.0),
            reason="" if name in factors else reasons[name] or "not called",
        )
        for name in names
    ]
    return Rescaling(tuple(rows))


def _checked(model, x):
    """Check the arguments of `rescale` and convert the batch to tensors."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            "rescale: `model` must be a keras.Model. "
            f"Received: {model!r} of type {type(model).__name__}. "
            "To rescale a single layer, put it into a keras.Sequential."
        )
    tensors = inputs.tensors(x, "rescale")
    for array in map(np.asarray, keras.tree.flatten(x)):
        if array.dtype.kind not in "OSU" and not np.isfinite(array).all():
            bad = array.size - np.isfinite(array).sum()
            raise ValueError(
                f"rescale: `x` must be finite. Received: {bad} NaN or infinite elements "
                f"of {array.size}, in an array of shape {array.shape}. "
                "Clean the data, or pass other samples."
            )
    return tensors


def _build(model, x):
    """Build the model by a call that leaves its existing state unchanged."""
    if not all(layer.built for layer in all_layers(model)):
        saved = _state(model)
        try:
            model(x, training=False)
        finally:
            _restore(saved)


def _reasons(weights):
    """Why each weight layer is not rescaled, by name; empty if it is rescaled."""
    reasons, owner = {}, {}
    for weight in weights:
        reasons[weight.name] = reason = _reason(weight)
        if not reason:
            first = owner.setdefault(id(weight.kernel), weight)
            if first is not weight:
                reasons[weight.name] = f"it shares the kernel of {first.name}"
    return reasons


def _reason(weight):
    layer = weight.layer
    if isinstance(layer, layers.RNN):
        return "recurrent: its gates and its recurrent kernel set the scale"
    if not weight.known:
        return f"rescale does not support layers of type {type(layer).__name__}"
    if layer.quantization_mode is not None:
        raise ValueError(
            f"rescale: the kernel of {weight.name!r} must be of a floating-point dtype. "
            f"Received: a layer quantized to {layer.quantization_mode}. "
            "Call `rescale` before training and quantize after it."
        )
    if not layer.built:
        return "not called"
    if not layer.trainable or not getattr(weight.kernel, "trainable", False):
        return "frozen"
    if layer.activation in _SIGMOIDS:
        return "sigmoid: unit variance makes deep sigmoid networks learn worse"
    if any(isinstance(outer, layers.SpectralNormalization) for outer in weight.around):
        return "SpectralNormalization sets its scale"
    if weight.kernel.constraint is not None:
        return "its kernel constraint may set its scale"
    return ""


def _refuse_useless(kernel, name):
    finite = np.isfinite(kernel).all()
    if finite and kernel.any():
        return
    raise ValueError(
        f"rescale: the kernel of {name!r} must be finite and not all zeros. "
        f"Received: {'only zeros' if finite else 'NaN or infinite weights'}. "
        "Use another initializer. If the kernel is intended, freeze the layer "
        "(`layer.trainable = False`) during `rescale`."
    )


def _useless_input(name):
    return (
        f"rescale: the pre-activations of {name!r} must have a variance that depends on "
        "the scale of its kernel. Received: values that are all the same or not finite at "
        "any scale. Check the layer before it, whose output is all zeros or not finite on "
        "this batch, or pass more samples. All kernels are unchanged."
    )


def _search(std_at):
    """Search the factor that gives unit std.

    Returns the factor, or None if there is none, and the std of the last try.
    """
    factor = 1.0
    for _ in range(_TRIES):
        std = std_at(factor)
        if abs(std - 1.0) <= _TOLERANCE:
            return factor, std
        if math.isnan(std):
            factor /= _LEAP
        elif std == 0.0:
            factor *= _LEAP
        else:
            factor /= std
    return None, std


def _state(model):
    """The variables of a model and copies of their values, by `id` of the variable."""
    variables = [*model.variables, *model.metrics_variables]
    # Of a variable itself, numpy would issue a warning on JAX.
    values = [keras.ops.convert_to_numpy(stored_value(v)) for v in variables]
    return {id(v): (v, np.array(x)) for v, x in zip(variables, values, strict=True)}


def _restore(state):
    for variable, value in state.values():
        variable.assign(value)

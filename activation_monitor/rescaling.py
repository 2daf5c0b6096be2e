"""Data-driven initialization: brings every layer's pre-activations to unit variance."""

import math

import keras
import numpy as np
from keras import layers

from activation_monitor.analysis.rescaling import RescaledLayer, Rescaling
from activation_monitor.recording import inputs
from activation_monitor.recording.backends import backend
from activation_monitor.recording.layers import all_layers
from activation_monitor.recording.pre_activations import at_first_calls, weight_layers
from activation_monitor.views import tables  # noqa: F401 - shows the result

_SIGMOIDS = (keras.activations.sigmoid, keras.activations.hard_sigmoid)

# One product is enough, but where a bias varies or a half precision format rounds.
_TOLERANCE = 0.005
_TRIES = 32

# A step towards the range of a format that overflows or underflows.
_LEAP = 2.0**8


def rescale(model: keras.Model, x) -> Rescaling:
    """Scale the kernels of a model so that, on this batch, every layer's pre-activations
    have unit variance: layer-sequential unit-variance initialization, "LSUV".

    The layers are visited in the order of the data, in one eager forward pass: each
    kernel is multiplied by one positive number, then the data goes on with the layer's
    new output. Variance is taken over batch and units, mean removed, before the fused
    activation, bias included. The pass runs with `training=True`, so that
    `BatchNormalization` uses the batch's statistics.

    Nothing else changes: biases, moving statistics, the states of seed generators,
    optimizer and trainable flags are bit for bit as before, and so is all of the model
    if an error is raised (but an unbuilt model stays built). A layer of your own that
    draws random numbers without a seed generator of its own moves Keras' global one.

    Rescaled are dense, einsum-dense, convolutional, transposed, depthwise and separable
    layers, wherever they stand, the output layer included, as in the paper. What to know:

    * The kernels are those that were drawn; the paper starts from orthonormal ones. For
      that, give the layers `kernel_initializer="orthogonal"`.
    * A layer that is called more than once is rescaled at its first call; a layer inside
      `TimeDistributed` over all time steps.
    * Of a separable convolution the pointwise kernel is scaled: its two kernels act as
      their product.
    * In `MultiHeadAttention` each projection counts as a layer. Queries and keys of unit
      variance are what its division by `sqrt(key_dim)` presumes (Vaswani et al. 2017).

    Left alone, and said so in the report: recurrent layers, whose gates are sigmoids and
    whose recurrent kernel has a scale of its own; layers with a fused sigmoid, for unit
    variance makes deep sigmoid networks worse; frozen kernels; those with a constraint
    or below `SpectralNormalization`, which set the size themselves; weight layers of
    unknown kinds. Embeddings and normalization layers are not touched.

    Args:
        model: The model. If it is not built, the batch builds it.
        x: One batch of inputs as the model takes them: an array `(batch, ...)`, or a
            list, tuple or dict of such. A few hundred samples are plenty.

    Returns:
        A `Rescaling`, which prints as a table: for each weight layer the standard
        deviation before and after, and the factor.

    Raises:
        TypeError: If `model` is not a Keras model, or `x` does not hold numbers.
        ValueError: If `x` is empty, not finite or does not fit the model; if a kernel is
            all zeros, not finite or quantized; or if a layer's pre-activations cannot be
            brought to unit variance because its input is all zeros or not finite.

    Example:

    ```python
    print(rescale(model, x_train[:256]))
    ```

    Mishkin and Matas (2016), "All you need is a good init", https://arxiv.org/abs/1511.06422
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
        # Always from the drawn kernel: one rounding, whatever was tried before.
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
        else:  # raised after the pass: Keras would wrap it in messages of its own
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
    """The batch as tensors, if it and the model may be rescaled."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            "rescale: `model` must be a keras.Model. "
            f"Received: {model!r} of type {type(model).__name__}. "
            "Put a single layer into a keras.Sequential."
        )
    tensors = inputs.tensors(x, "rescale")
    for array in map(np.asarray, keras.tree.flatten(x)):
        if array.dtype.kind not in "OSU" and not np.isfinite(array).all():
            bad = array.size - np.isfinite(array).sum()
            raise ValueError(
                f"rescale: `x` must be finite. Received: {bad} NaN or infinite elements "
                f"of {array.size}, in an array of shape {array.shape}. "
                "Clean the data, or give other samples."
            )
    return tensors


def _build(model, x):
    """Build what is not built, by a call that changes no state there was."""
    if not all(layer.built for layer in all_layers(model)):
        saved = _state(model)
        try:
            model(x, training=False)
        finally:
            _restore(saved)


def _reasons(weights):
    """By name of weight layer: why it is left alone; empty for those to be rescaled."""
    reasons, owner = {}, {}
    for weight in weights:
        reasons[weight.name] = reason = _reason(weight)
        if not reason:
            first = owner.setdefault(id(weight.kernel), weight)
            if first is not weight:
                reasons[weight.name] = f"its kernel is that of {first.name}"
    return reasons


def _reason(weight):
    layer = weight.layer
    if isinstance(layer, layers.RNN):
        return "recurrent: its gates and its recurrent kernel set the scale"
    if not weight.known:
        return f"rescale does not know the kind {type(layer).__name__}"
    if layer.quantization_mode is not None:
        raise ValueError(
            f"rescale: the kernel of {weight.name!r} must be of a floating-point dtype. "
            f"Received: a layer quantized to {layer.quantization_mode}. "
            "Rescale before training, quantize after it."
        )
    if not layer.built:
        return "not called"
    if not layer.trainable or not getattr(weight.kernel, "trainable", False):
        return "frozen"
    if layer.activation in _SIGMOIDS:
        return "sigmoid: at unit variance deep networks of it learn worse"
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
        f"rescale: the kernel of {name!r} must have weights other than zero, all finite. "
        f"Received: {'nothing but zeros' if finite else 'NaN or infinite weights'}. "
        "Draw it with another initializer; or, if it is meant to be so, freeze the "
        "layer (`layer.trainable = False`) during `rescale`."
    )


def _useless_input(name):
    return (
        f"rescale: the pre-activations of {name!r} must have a variance that follows the "
        "scale of its kernel. Received: all the same or not finite, at any scale. Look at "
        "the layer before it, whose output is all zeros or not finite on this batch, or "
        "give more samples. All kernels are as they were."
    )


def _search(std_at):
    """The factor that gives unit std, None if there is no such, and the last std."""
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
    """All variables of a model with copies of their values, by id."""
    variables = [*model.variables, *model.metrics_variables]
    return {id(v): (v, np.array(v.value)) for v in variables}


def _restore(state):
    for variable, value in state.values():
        variable.assign(value)

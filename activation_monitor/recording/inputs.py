"""Converts a batch to tensors and explains why a model does not accept it.

Keras decides which batch fits: it accepts more than the input shapes of a model state. The
batch is compared with these shapes only after a call has failed, to explain the failure.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, cast

import keras
import numpy as np

from activation_monitor.recording.layers import all_layers

_NUMBERS = re.compile(r"(u?int|b?float|bool)")


def tensors(x: Any, where: str, name: str = "x") -> Any:
    """Convert a batch to tensors, in the same structure.

    Args:
        x: The batch: an array `(batch, ...)`, or a list, tuple or dict of arrays.
        where: The function that the user called, for messages.
        name: Name of its argument, for messages. Defaults to `"x"`.

    Returns:
        The tensors, in the structure of `x`.

    Raises:
        TypeError: If `x` is not an array of numbers or strings, or a list, tuple or dict
            of such arrays.
        ValueError: If `x` has no sample.
    """
    arrays = keras.tree.flatten(x)
    if not all(len(getattr(array, "shape", ())) > 0 for array in arrays):
        raise TypeError(
            f"{where}: `{name}` must be one batch: an array of shape (batch, ...), or a "
            f"list, tuple or dict of such arrays. Received: {type(x).__name__}. "
            "For a tf.data.Dataset of pairs, use `x, y = next(iter(dataset))`."
        )
    empty = [f"an array of shape {_shape(array)}" for array in arrays if 0 in array.shape]
    if empty or not arrays:
        raise ValueError(
            f"{where}: `{name}` must hold at least one sample, ideally a few hundred. "
            f"Received: {empty[0] if empty else 'no array'}."
        )
    try:
        return keras.tree.map_structure(keras.ops.convert_to_tensor, x)
    except Exception:  # each backend raises its own errors
        kinds = (f"{type(a).__name__} of {getattr(a, 'dtype', '?')}" for a in arrays)
        raise TypeError(
            f"{where}: `{name}` must hold numbers. Received: {', '.join(kinds)}. Convert "
            f'it, for example with `{name}.astype("float32")`.'
        ) from None


@contextlib.contextmanager
def explained(model: keras.Model, x: Any, where: str) -> Iterator[None]:
    """Replace Keras' error for a batch that does not fit by one clear error.

    Errors with another reason are raised unchanged.

    Args:
        model: The model that is called within the block.
        x: The batch, as tensors.
        where: The function that the user called, for messages.

    Raises:
        ValueError: If the call of the model fails and `x` does not fit the model.
    """
    try:
        yield
    except Exception as error:
        reason = _misfit(model, x) or _refused_by_a_layer(error)
        if reason is None:
            raise
        raise ValueError(
            f"{where}: `x` does not fit the model {model.name!r}. {reason}"
        ) from None


def input_names(model: keras.Model) -> list[str]:
    """The names of a model's inputs.

    Args:
        model: The model.

    Returns:
        The names, in the order of `model.inputs`. Inputs in a dict are named by their
        keys. The list is empty if the model has no known inputs.
    """
    structure = None if isinstance(model, keras.Sequential) else _inputs(model, "input")
    if isinstance(structure, dict):
        paths = (path for path, _ in keras.tree.flatten_with_path(structure))
        return [".".join(map(str, path)) for path in paths]
    return [each.name for each in _inputs(model, "inputs") or ()]


def _inputs(model, attribute):
    try:
        return getattr(model, attribute, None)
    except ValueError:  # the layer was called more than once
        return None


def _misfit(model, x):
    """How the batch differs from the model's inputs.

    None if it does not differ, or if the model has no known inputs.
    """
    expected, names = _inputs(model, "inputs"), input_names(model)
    if not expected:
        return None
    if isinstance(x, dict):
        if missing := [name for name in names if name not in x]:
            return (
                f"Expected: arrays named {', '.join(names)}. Received: "
                f"{', '.join(map(str, x))}. Add {', '.join(missing)}."
            )
        x = [x[name] for name in names]
    arrays = keras.tree.flatten(x)
    if len(arrays) != len(expected):
        return (
            f"Expected: {_count(len(expected), 'array')}, for {', '.join(names)}. "
            f"Received: {len(arrays)}."
        )
    for name, wanted, array in zip(names, expected, arrays, strict=True):
        which = f" for {name}" if len(names) > 1 else ""
        if reason := _array_misfit(wanted, array, which):
            return reason
    samples = [array.shape[0] for array in arrays]
    if len(set(samples)) > 1:
        return (
            "Expected: the same number of samples for each input. Received: "
            f"{', '.join(map(str, samples))}."
        )
    return _index_beyond_embedding(model, expected, names, arrays)


def _array_misfit(wanted, array, which):
    """How one array differs from an input; None if it does not differ."""
    text, complex_ = (wanted.dtype == "string"), wanted.dtype.startswith("complex")
    dtype = keras.backend.standardize_dtype(array.dtype)
    if not complex_ and text == bool(_NUMBERS.match(dtype)):
        return (
            f"Expected{which}: {'strings' if text else 'real numbers'}. Received: dtype "
            f"{dtype}."
        )
    shape, received = tuple(wanted.shape)[1:], tuple(array.shape)[1:]
    # Keras adds or removes a last axis of length 1.
    same_rank = [(shape, received), (shape, received[:-1]), (shape[:-1], received)]
    ends = [True, received[-1:] == (1,), shape[-1:] == (1,)]
    for (a, b), allowed in zip(same_rank, ends, strict=True):
        fits = all(None in pair or pair[0] == pair[1] for pair in zip(a, b, strict=False))
        if allowed and len(a) == len(b) and fits:
            return None
    hint = ""
    if len(received) == len(shape) - 1:
        hint = " For a single sample, pass a batch of one: `x[None]`."
    return (
        f"Expected{which}: shape {_shape(wanted)}. Received: shape {_shape(array)}.{hint}"
    )


def _index_beyond_embedding(model, expected, names, arrays):
    """Which input holds an integer beyond `input_dim` of the Embedding that takes it.

    Checked for Embedding layers that are called directly on an input. None if there is
    no such integer.
    """
    for layer in all_layers(model):
        if not isinstance(layer, keras.layers.Embedding):
            continue
        source = _inputs(layer, "input")
        for wanted, name, array in zip(expected, names, arrays, strict=True):
            if source is not wanted:
                continue
            highest = np.max(cast(np.ndarray, keras.ops.convert_to_numpy(array)))
            if highest >= layer.input_dim:
                return (
                    f"Expected: integers from 0 to {layer.input_dim - 1} for {name}, since "
                    f"the Embedding {layer.name!r} has input_dim={layer.input_dim}. "
                    f"Received: up to {highest}."
                )
    return None


def _refused_by_a_layer(error):
    """The error of a layer about its input shape; None if the error is another one."""
    if not isinstance(error, ValueError):
        return None
    found = re.search(
        r"of layer ['\"](.+?)['\"] is incompatible with the layer: ([^\n\x1b]+)", str(error)
    )
    return found and f"The layer {found[1]!r} {found[2]}."


def _shape(array):
    batch, *rest = array.shape
    lengths = ["batch" if batch is None else batch]
    lengths += ["any" if length is None else length for length in rest]
    return f"({', '.join(map(str, lengths))}{',' if not rest else ''})"


def _count(n, what):
    return f"{n} {what}{'' if n == 1 else 's'}"

"""Whether a batch is what a model takes, and the error in our own words where it is not.

Keras decides what fits: it accepts more than the shapes of a model's inputs say. Only where
a call has failed is the batch held against them, to explain the failure.
"""

import contextlib
import re

import keras
import numpy as np

from activation_monitor.recording.layers import all_layers

_NUMBERS = re.compile(r"(u?int|b?float|bool)")


def tensors(x, where: str, name: str = "x"):
    """A batch as tensors, in its structure.

    Args:
        x: What the user passed.
        where: The function that it was passed to, for messages.
        name: Of the argument, for messages.

    Raises:
        TypeError: If it is not an array of numbers or strings, or a list, tuple or dict
            of such.
        ValueError: If it has no sample.
    """
    arrays = keras.tree.flatten(x)
    if not all(len(getattr(array, "shape", ())) > 0 for array in arrays):
        raise TypeError(
            f"{where}: `{name}` must be one batch: an array of shape (batch, ...), or a "
            f"list, tuple or dict of such. Received: {type(x).__name__}. "
            "Of a tf.data.Dataset of pairs take `x, y = next(iter(dataset))`."
        )
    empty = [f"an array of shape {_shape(array)}" for array in arrays if 0 in array.shape]
    if empty or not arrays:
        raise ValueError(
            f"{where}: `{name}` must hold at least one sample, better a few hundred. "
            f"Received: {empty[0] if empty else 'no array'}."
        )
    try:
        return keras.tree.map_structure(keras.ops.convert_to_tensor, x)
    except Exception:  # whatever the backend says of it
        kinds = (f"{type(a).__name__} of {getattr(a, 'dtype', '?')}" for a in arrays)
        raise TypeError(
            f"{where}: `{name}` must hold numbers. Received: {', '.join(kinds)}. Convert "
            f'it, for example with `{name}.astype("float32")`.'
        ) from None


@contextlib.contextmanager
def explained(model: keras.Model, x, where: str):
    """Turns what Keras raises for a batch that does not fit into one clear error.

    An error that has another reason is raised as it is.

    Args:
        model: The model that is called.
        x: The batch, as tensors.
        where: The function that it was passed to, for messages.

    Raises:
        ValueError: If the model was called and failed, and `x` does not fit it.
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
    """The names of a model's inputs, in the order of `model.inputs`; none if there are no
    inputs yet."""
    structure = None if isinstance(model, keras.Sequential) else _inputs(model, "input")
    if isinstance(structure, dict):
        paths = (path for path, _ in keras.tree.flatten_with_path(structure))
        return [".".join(map(str, path)) for path in paths]
    return [each.name for each in _inputs(model, "inputs") or ()]


def _inputs(model, attribute):
    try:
        return getattr(model, attribute, None)
    except ValueError:  # of a layer that was called more than once
        return None


def _misfit(model, x):
    """What of the batch is not as the model's inputs are; None if nothing is, or if the
    model has none."""
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
    return _beyond_a_table(model, expected, names, arrays)


def _array_misfit(wanted, array, which):
    """What of one array is not as an input is; None if nothing is."""
    text, complex_ = (wanted.dtype == "string"), wanted.dtype.startswith("complex")
    dtype = keras.backend.standardize_dtype(array.dtype)
    if not complex_ and text == bool(_NUMBERS.match(dtype)):
        return (
            f"Expected{which}: {'strings' if text else 'real numbers'}. Received: dtype "
            f"{dtype}."
        )
    shape, given = tuple(wanted.shape)[1:], tuple(array.shape)[1:]
    # As Keras does, with an axis of length 1 at the end or without.
    same_rank = [(shape, given), (shape, given[:-1]), (shape[:-1], given)]
    ends = [True, given[-1:] == (1,), shape[-1:] == (1,)]
    for (a, b), allowed in zip(same_rank, ends, strict=True):
        fits = all(None in pair or pair[0] == pair[1] for pair in zip(a, b, strict=False))
        if allowed and len(a) == len(b) and fits:
            return None
    hint = ""
    if len(given) == len(shape) - 1:
        hint = " Of one sample make a batch: `x[None]`."
    return (
        f"Expected{which}: shape {_shape(wanted)}. Received: shape {_shape(array)}.{hint}"
    )


def _beyond_a_table(model, expected, names, arrays):
    """Which input has integers that an Embedding right behind it has no row for."""
    for layer in all_layers(model):
        if not isinstance(layer, keras.layers.Embedding):
            continue
        source = _inputs(layer, "input")
        for wanted, name, array in zip(expected, names, arrays, strict=True):
            if source is not wanted:
                continue
            highest = np.max(keras.ops.convert_to_numpy(array))
            if highest >= layer.input_dim:
                return (
                    f"Expected: integers from 0 to {layer.input_dim - 1} for {name}, since "
                    f"the Embedding {layer.name!r} has input_dim={layer.input_dim}. "
                    f"Received: up to {highest}."
                )
    return None


def _refused_by_a_layer(error):
    """What a layer within the model says of its input; None if the error is another."""
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

"""The layers of a model: which ones exist, their paths, kinds and widths."""

import collections
from typing import Any

import keras

from activation_monitor.recording import nested
from activation_monitor.recording.backends import backend
from activation_monitor.recording.choice import LayerChoice, choose
from activation_monitor.recording.keras_private import flattened, own_variables, sublayers

_ACTIVATION_LAYERS = {
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "PReLU": "leaky_relu",
    "ELU": "elu",
    "Softmax": "softmax",
    "Activation": None,  # named by its argument
}

_MERGING_LAYERS = (
    *("Add", "Average", "Concatenate", "Dot"),
    *("Maximum", "Minimum", "Multiply", "Subtract"),
)


def all_layers(*models: keras.Layer) -> list[keras.Layer]:
    """The models and all layers below them, each once.

    Cells inside recurrent layers are not included: a recurrent layer calls its cell once
    more than there are time steps, or not at all if it runs a fused kernel.

    Args:
        *models: The models.
    """
    found, todo = {}, [*models]
    while todo:
        layer = todo.pop(0)
        if id(layer) in found or isinstance(layer, keras.layers.InputLayer):
            continue
        found[id(layer)] = layer
        if not isinstance(layer, keras.layers.RNN):
            todo = sublayers(layer) + todo
    return list(found.values())


def chosen_layers(choice: LayerChoice, *models: keras.Model) -> set[int]:
    """The layers that the user selects, with all layers inside them.

    Args:
        choice: See `choice.choose`.
        *models: The models.

    Returns:
        The `id` of each layer.

    Raises:
        ValueError: If an element of the choice matches no layer.
    """
    layers = all_layers(*models)
    paths = unique_paths(*models)
    top = choose(choice, [(paths[id(layer)], layer) for layer in layers])
    return {id(inner) for layer in top for inner in flattened(layer)}


def unique_paths(*models: keras.Layer) -> dict[int, str]:
    """A unique path for each layer.

    The path is the Keras path of the layer. Layers that share a Keras path are named by
    their position in the model: the names of all layers around them.

    Args:
        *models: The models.

    Returns:
        The paths by `id` of the layer.
    """
    paths, where = {}, {}

    def walk(layer, path, place):
        paths[id(layer)], where[id(layer)] = path, place
        inside = sublayers(layer)
        known = [inner.path for inner in inside if inner.path]
        # A layer without weights may have no path. It gets the prefix of its siblings.
        prefix = known[0].rpartition("/")[0] if known else path
        for inner in inside:
            if id(inner) not in where:
                sibling = f"{prefix}/{inner.name}".lstrip("/")
                walk(inner, inner.path or sibling, f"{place}/{inner.name}")

    for model in models:
        if id(model) not in where:
            walk(model, model.path or model.name, model.name)
    paths = {id(layer): paths[id(layer)] for layer in all_layers(*models)}
    for i in _twins(paths):
        paths[i] = where[i]
    for number, i in enumerate(_twins(paths)):
        paths[i] += f"~{number}"
    return paths


def _twins(paths):
    shared = collections.Counter(paths.values())
    return [i for i, path in paths.items() if shared[path] > 1]


def float_tensors(structure: Any) -> list[tuple[tuple, Any]]:
    """The floating-point tensors in a structure, as pairs of path and tensor."""
    pairs = nested.flatten_with_path(structure)
    return [(path, value) for path, value in pairs if is_float_tensor(value)]


def is_float_tensor(value: Any) -> bool:
    """Whether a value is a dense floating-point tensor."""
    return backend.is_tensor(value) and keras.backend.is_float_dtype(
        keras.backend.standardize_dtype(value.dtype)
    )


def has_kernel(layer: keras.Layer) -> bool:
    """Whether the layer itself owns a variable with two or more axes."""
    return any(len(variable.shape) >= 2 for variable in own_variables(layer))


def kind_of(layer: keras.Layer) -> str:
    """The kind of the layer, one of `snapshot.KINDS`."""
    name = type(layer).__name__
    if "embedding" in name.lower():
        return "embedding"
    if "norm" in name.lower():
        return "normalization"
    if name in _ACTIVATION_LAYERS:  # before the check for weights: PReLU has weights
        return "activation"
    if has_kernel(layer) or any(kind_of(inner) == "weight" for inner in sublayers(layer)):
        return "weight"
    if "pooling" in name.lower():
        return "pooling"
    if name in _MERGING_LAYERS:
        return "merge"
    return "other"


def activation_name(layer: keras.Layer) -> str:
    """The name of the layer's activation function, `"linear"` if it has none."""
    known = _ACTIVATION_LAYERS.get(type(layer).__name__)
    if known:
        return known
    # `RNN` has the activation function in its cell.
    of = layer.cell if isinstance(layer, keras.layers.RNN) else layer
    function = getattr(of, "activation", None)
    if function is None:
        return "linear"
    name = type(function).__name__
    return _ACTIVATION_LAYERS.get(name) or getattr(function, "__name__", name)


def channel_axis(layer: keras.Layer, tensor: Any) -> int:
    """The channel axis of the layer's output.

    Args:
        layer: The layer.
        tensor: Its output.

    Returns:
        1 for `data_format="channels_first"`, otherwise -1.
    """
    first = getattr(layer, "data_format", None) == "channels_first"
    return 1 if first and len(tensor.shape) > 2 else -1


def width_of(layer: keras.Layer, tensor: Any) -> int:
    """The number of the layer's output units: its channels.

    Args:
        layer: The layer.
        tensor: Its output.
    """
    if len(tensor.shape) < 2:
        return 1
    return tensor.shape[channel_axis(layer, tensor)] or 1

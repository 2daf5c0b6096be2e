"""What the layers of a model are: which there are, their paths, kinds and shapes."""

import collections

import keras

from activation_monitor.recording.backends import backend
from activation_monitor.recording.choice import LayerChoice, choose
from activation_monitor.recording.keras_private import flattened, own_variables, sublayers

_ACTIVATION_LAYERS = {
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "PReLU": "leaky_relu",
    "ELU": "elu",
    "Softmax": "softmax",
    "Activation": None,  # says itself
}

_MERGING_LAYERS = (
    *("Add", "Average", "Concatenate", "Dot"),
    *("Maximum", "Minimum", "Multiply", "Subtract"),
)


def all_layers(*models: keras.Layer) -> list[keras.Layer]:
    """The models and all layers below them, each once; recurrent layers as a whole.

    What runs within a recurrent layer is its own affair: it calls its cell once more than
    there are time steps, or not at all where a fused kernel does its work.
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
    """The ids of the layers that a user's choice names, with all layers inside them.

    Args:
        choice: See `choice.choose`, which also says what it raises.
        models: The models.
    """
    layers = all_layers(*models)
    paths = unique_paths(*models)
    top = choose(choice, [(paths[id(layer)], layer) for layer in layers])
    return {id(inner) for layer in top for inner in flattened(layer)}


def unique_paths(*models: keras.Layer) -> dict[int, str]:
    """Keras paths by id of layer; where two layers share one, where they stand."""
    paths, where = {}, {}

    def walk(layer, path, place):
        paths[id(layer)], where[id(layer)] = path, place
        inside = sublayers(layer)
        known = [inner.path for inner in inside if inner.path]
        # A layer without weights may have no path: the same prefix as its siblings'.
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


def float_tensors(structure) -> list[tuple[tuple, object]]:
    """Pairs of path and tensor, of the floating-point tensors in a structure."""
    pairs = keras.tree.flatten_with_path(structure)
    return [(path, value) for path, value in pairs if is_float_tensor(value)]


def is_float_tensor(value) -> bool:
    """Whether this is a dense floating-point tensor."""
    return backend.is_tensor(value) and keras.backend.is_float_dtype(
        keras.backend.standardize_dtype(value.dtype)
    )


def has_kernel(layer: keras.Layer) -> bool:
    """Whether the layer itself owns a variable of two axes or more."""
    return any(len(variable.shape) >= 2 for variable in own_variables(layer))


def kind_of(layer: keras.Layer) -> str:
    """Which of `snapshot.KINDS` the layer is."""
    name = type(layer).__name__
    if "embedding" in name.lower():
        return "embedding"
    if "norm" in name.lower():
        return "normalization"
    if name in _ACTIVATION_LAYERS:  # before its weights: PReLU has some
        return "activation"
    if has_kernel(layer) or any(kind_of(inner) == "weight" for inner in sublayers(layer)):
        return "weight"
    if "pooling" in name.lower():
        return "pooling"
    if name in _MERGING_LAYERS:
        return "merge"
    return "other"


def activation_name(layer: keras.Layer) -> str:
    """Name of the activation function that the layer applies last, `linear` if none."""
    known = _ACTIVATION_LAYERS.get(type(layer).__name__)
    if known:
        return known
    function = getattr(layer, "activation", None)
    if function is None:
        return "linear"
    name = type(function).__name__
    return _ACTIVATION_LAYERS.get(name) or getattr(function, "__name__", name)


def channel_axis(layer: keras.Layer, tensor) -> int:
    """Where the channels of the layer's output stand: 1 or -1."""
    first = getattr(layer, "data_format", None) == "channels_first"
    return 1 if first and len(tensor.shape) > 2 else -1


def width_of(layer: keras.Layer, tensor) -> int:
    """Independent output units: the channels, wherever they stand."""
    if len(tensor.shape) < 2:
        return 1
    return tensor.shape[channel_axis(layer, tensor)] or 1

"""What the layers of a model are: which there are, their names, kinds and masks.

The only module that reaches into the insides of Keras and TensorFlow, for what they have no
public name for (and `transparent`, which hands one layer's insides on as another's).
"""

import collections

import keras

from activation_monitor.recording.backends import backend
from activation_monitor.recording.choice import LayerChoice, choose

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


def steps_taken(optimizer) -> int:
    """How many batches a model's optimizer has seen; 0 if it does not count.

    Its `iterations` are as many, but for an optimizer that accumulates gradients over
    several batches.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of a loss scale
    taken = getattr(optimizer, "_iterations", getattr(optimizer, "iterations", 0))
    return int(keras.ops.cast(taken, "int64"))  # a tensor, of a mirrored variable too


def sublayers(layer: keras.Layer) -> list[keras.Layer]:
    """The layers right inside; where one is `Monitored`, the layer that it wraps."""
    return [
        inner.layer if getattr(inner, "keeps_own_record", False) else inner
        for inner in layer._layers
    ]


def chosen_layers(choice: LayerChoice, *models: keras.Model) -> set[int]:
    """The ids of the layers that a user's choice names, with all layers inside them.

    Args:
        choice: See `choice.choose`, which also says what it raises.
        models: The models.
    """
    layers = all_layers(*models)
    paths = unique_paths(*models)
    top = choose(choice, [(paths[id(layer)], layer) for layer in layers])
    return {id(inner) for layer in top for inner in layer._flatten_layers()}


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


def renewed(value):
    """A floating-point tensor as a new one of the same values and mask; else as it is."""
    if not is_float_tensor(value):
        return value
    new = backend.same_but_new(value)
    mask = _keras_mask(value)
    if mask is not None:
        new._keras_mask = mask
    return new


def attach_masks(layer: keras.Layer, inputs: tuple, outputs) -> None:
    """Attach the masks that Keras attaches to a layer's outputs when it has been called."""
    args, kwargs = inputs
    given = [*args, *kwargs.values()]
    if layer.supports_masking and given:
        before = kwargs.get("mask")
        if before is None:
            before = keras.tree.map_structure(_keras_mask, given[0])
        layer._set_mask_metadata(given[0], outputs, before)


def _keras_mask(value):
    return getattr(value, "_keras_mask", None)


def mask_of(tensor):
    """The mask of a tensor's leading axes; None if it has none that fits."""
    mask = _keras_mask(tensor)
    if mask is None or not 0 < len(mask.shape) <= len(tensor.shape):
        return None
    pairs = zip(mask.shape, tensor.shape, strict=False)
    return mask if all(None in pair or pair[0] == pair[1] for pair in pairs) else None


def has_kernel(layer: keras.Layer) -> bool:
    """Whether the layer itself owns a variable of two axes or more."""
    own = [*layer._trainable_variables, *layer._non_trainable_variables]
    return any(len(variable.shape) >= 2 for variable in own)


def kind_of(layer: keras.Layer) -> str:
    """Which of `snapshot.KINDS` the layer is."""
    name = type(layer).__name__
    if "embedding" in name.lower():
        return "embedding"
    if "norm" in name.lower():
        return "normalization"
    if name in _ACTIVATION_LAYERS:  # before its weights: PReLU has some
        return "activation"
    if has_kernel(layer) or any(kind_of(inner) == "weight" for inner in layer._layers):
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

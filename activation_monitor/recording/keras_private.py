"""The one module that uses what Keras does not export: `keras.src` and leading underscores.

Keras may change these names in any minor version, so pyproject.toml has a ceiling on it.
The smoke tests run with the oldest version that is allowed and with the newest.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.backend.common.tensor_attributes import get_tensor_attr, set_tensor_attr

from activation_monitor.recording.backends import backend

# -- layers


def sublayers(layer: keras.Layer) -> list[keras.Layer]:
    """The layers directly inside; for a `Monitored` one, the layer that it wraps."""
    return [
        inner.layer if getattr(inner, "keeps_own_record", False) else inner
        for inner in layer._layers
    ]


def flattened(layer: keras.Layer) -> list[keras.Layer]:
    """The layer and all layers inside it."""
    return list(layer._flatten_layers())


def own_variables(layer: keras.Layer) -> list:
    """The variables that the layer owns, without those of layers inside it."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def stored_value(variable):
    """The tensor of a variable in its own dtype, also where Keras would cast it."""
    return getattr(variable, "_value", variable)


def steps_taken(optimizer) -> int:
    """How many batches an optimizer has seen; 0 if it does not count.

    This is `iterations`, except for an optimizer that accumulates gradients over several
    batches.
    """
    optimizer = inner_optimizer(optimizer)
    taken = getattr(optimizer, "_iterations", getattr(optimizer, "iterations", 0))
    ops: Any = keras.ops
    return int(ops.reshape(taken, ()))  # a tensor, if the variable is mirrored


def inner_optimizer(optimizer):
    """The optimizer that makes the updates: that inside of a loss scale, or itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def trained_variables(optimizer) -> list:
    """The variables that an optimizer updates if it is not told which."""
    return optimizer._trainable_variables


def loss_scale(optimizer):
    """The factor by which an optimizer has the loss multiplied: a number or a tensor."""
    found = getattr(optimizer, "dynamic_scale", None)  # of a `LossScaleOptimizer`
    if found is None and not optimizer.built:
        found = getattr(optimizer, "initial_scale", None)
    if found is None:
        found = getattr(optimizer, "loss_scale_factor", None)
    return 1.0 if found is None else keras.ops.convert_to_tensor(found)


# -- the values of variables

# Lists of variables, as in the state of a step of Keras' JAX trainer.
_TRAINING = ("trainable", "non_trainable", "optimizer", "metrics")
_EVALUATING = ("trainable", "non_trainable", "metrics")


@contextlib.contextmanager
def values_held(variables: Sequence[Any], values: Sequence[Any]) -> Iterator[None]:
    """Within the block, these variables have these values."""
    before = [variable._value for variable in variables]
    try:
        for variable, value in zip(variables, values, strict=True):
            variable._value = value
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable._value = value


def pairs_held(pairs: Sequence[tuple[Any, Any]]) -> contextlib.AbstractContextManager[None]:
    """Within the block, variables have the values beside them; None if none is known."""
    return values_held([v for v, _ in pairs], [value for _, value in pairs])


@contextlib.contextmanager
def state_held(model: keras.Model, state: Sequence[Any] | None) -> Iterator[None]:
    """Within the block, the variables of a model have the values of a state.

    Args:
        model: The model.
        state: The values that a step gets or returns, by kind of variable. If it is None,
            the variables hold their values themselves.
    """
    if state is None:
        yield
        return
    variables, values = [], []
    for kind, part in zip(
        _TRAINING if len(state) == 4 else _EVALUATING, state, strict=True
    ):
        owner, name = (model.optimizer, "") if kind == "optimizer" else (model, f"{kind}_")
        variables += getattr(owner, f"{name}variables")
        values += part
    with values_held(variables, values):
        yield


def present_state(model: keras.Model) -> list | None:
    """The state of a model between two steps; None if its variables hold it."""
    state = getattr(model, "_jax_state", None)
    if not state or model._jax_state_synced:
        return None
    names = _TRAINING if "optimizer_variables" in state else _EVALUATING
    return [state[f"{name}_variables"] for name in names]


def give_state(model: keras.Model, state: Sequence[Any] | None) -> None:
    """Let the variables of a model have the state that a step of its trainer returned.

    Keras does this when a callback asks for its model. Then functions of the user may read
    and change the model, and an error leaves it as the step has.

    Args:
        model: The model.
        state: What the step has computed, by kind of variable; None if the variables hold
            it.
    """
    if state is not None:
        pairs = zip(_TRAINING, state, strict=True)
        model._jax_state = {f"{name}_variables": values for name, values in pairs}
        model._jax_state_synced = False
        model.jax_state_sync()


def compiled(function: Callable, variables: Sequence[Any]) -> Callable:
    """A compiled version of a function of ours that reads variables.

    Args:
        function: The function. What it assigns to these variables is forgotten, where
            the backend does not capture them.
        variables: The variables.
    """
    if backend.CAPTURES_VARIABLES:
        return backend.compiled(function)

    def pure(values, *args):
        with values_held(variables, values):
            return function(*args)

    traced = backend.compiled(pure)
    return lambda *args: traced([*map(stored_value, variables)], *args)


@contextlib.contextmanager
def each_step_wrapped(model: keras.Model, wrap: Callable) -> Iterator[None]:
    """Within the block, a model makes functions whose steps are wrapped one by one, also
    where a function runs several of them."""
    make = getattr(model, "_make_function", None)
    if make is None:
        yield
        return

    def wrapped_make(step, *args, **kwargs):
        return make(wrap(step), *args, **kwargs)

    model.__dict__["_make_function"] = wrapped_make
    try:
        yield
    finally:
        del model.__dict__["_make_function"]


# -- the call that is running


def is_symbolic_call() -> bool:
    """Whether Keras calls a layer only to learn the shape of its output."""
    return in_symbolic_scope()


def is_training_call() -> bool:
    """Whether the layer call that is running has `training=True`, as Keras decides it."""
    context = global_state.get_global_attribute("current_call_ctx")
    return bool(context is not None and context.get_value("training"))


# -- masks


def keras_mask(tensor):
    """The mask that Keras attached to a tensor; None if there is none."""
    return get_tensor_attr(tensor, "_keras_mask")


def mask_of(tensor):
    """The mask of a tensor's leading axes; None if it has none that fits."""
    mask = keras_mask(tensor)
    if mask is None or not 0 < len(mask.shape) <= len(tensor.shape):
        return None
    pairs = zip(mask.shape, tensor.shape, strict=False)
    return mask if all(None in pair or pair[0] == pair[1] for pair in pairs) else None


def same_but_new(tensor):
    """A new tensor with the same values, and with what Keras attached to the other."""
    return _with_attached(tensor, backend.same_but_new(tensor))


def measured_first(tensor, record):
    """The same tensor, for those who wait until it is measured."""
    return _with_attached(tensor, backend.measured_first(tensor, record))


def gradient_measured(tensor, measure: Callable):
    """The same tensor, for those who compute a gradient by it, which is measured. A loss
    may be computed from its logits instead."""
    new = _with_attached(tensor, backend.gradient_measured(tensor, measure))
    logits = logits_of(new)
    if logits is not None:
        set_tensor_attr(new, "_keras_logits", backend.gradient_measured(logits, measure))
    return new


def logits_of(tensor):
    """What softmax or sigmoid computed this tensor from, if Keras has attached it; None
    otherwise. A loss is then computed from that."""
    return get_tensor_attr(tensor, "_keras_logits")


def _with_attached(tensor, new):
    # The mask; and what softmax or sigmoid was computed from, which the loss is computed
    # from as well.
    for name in ("_keras_mask", "_keras_logits"):
        attached = None if new is tensor else get_tensor_attr(tensor, name)
        if attached is not None:
            set_tensor_attr(new, name, attached)
    return new


def attach_masks(layer: keras.Layer, inputs: tuple, outputs) -> None:
    """Attach the masks that Keras attaches to the outputs of a layer after its call."""
    args, kwargs = inputs
    given = [*args, *kwargs.values()]
    if layer.supports_masking and given:
        before = kwargs.get("mask")
        if before is None:
            before = keras.tree.map_structure(keras_mask, given[0])
        layer._set_mask_metadata(given[0], outputs, before)


# -- a wrapper that Keras cannot tell from its layer

OWN_ATTRIBUTES = ("layer", "_torch_params")
"""Attributes of a wrapper that are not those of the layer inside; the second one holds what
PyTorch knows of its variables."""

WRAPPED_ATTRIBUTES = (
    "_allow_non_tensor_positional_args",
    "_build_shapes_dict",
    "_call_context_args",
    "_call_has_context_arg",
    "_convert_input_args",
    "_path",
)
"""Attributes that Keras must read from the layer inside a wrapper."""


def wrapper_methods() -> dict:
    """The methods that make Keras treat a wrapper as the layer that it wraps, by name.

    They belong into the body of a subclass of `keras.layers.Wrapper` that has an attribute
    `kind`, the class that can be found by its name.
    """

    def _maybe_build(self, call_spec):
        self.layer._maybe_build(call_spec)

    def _open_name_scope(self):
        # With the same name it is the same scope, which Keras opens once: the path of
        # the kernel is `net/dense/kernel`, not `net/dense/dense/kernel`.
        same = self.name == self.layer.name
        return (self.layer if same else super(self.kind, self))._open_name_scope()

    def _obj_type(self):
        return self.layer._obj_type()

    def __reduce__(self):
        # As Keras does it, except for the class, which pickle must find by its name.
        _, arguments = super(self.kind, self).__reduce__()
        return self.kind._unpickle_model, arguments

    methods = _maybe_build, _open_name_scope, _obj_type, __reduce__
    return {method.__name__: method for method in methods}

"""Replaces methods of layers temporarily.

Only the attribute of the instance is replaced. The class, other instances and the objects
that Keras tracks are not changed. A `finally` block restores each layer.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator

import keras

from activation_monitor.recording.keras_private import is_symbolic_call

_NOTHING = object()


@contextlib.contextmanager
def replaced(
    layers: Iterable[keras.Layer],
    name: str,
    make: Callable[[keras.Layer, object], object],
) -> Iterator[None]:
    """Replace an attribute of each layer by `make(layer, attribute)` within the block.

    Args:
        layers: The layers, each once.
        name: Name of the attribute, for example `"call"`.
        make: Function of the layer and the present attribute; returns the replacement.
    """
    before = []
    try:
        for layer in layers:
            # Write to `__dict__`: Keras' `__setattr__` would track the new value.
            own = layer.__dict__.get(name, _NOTHING)
            new = make(layer, getattr(layer, name))
            before.append((layer, own))
            layer.__dict__[name] = new
        yield
    finally:
        for layer, own in reversed(before):  # one may be there twice
            if own is _NOTHING:
                layer.__dict__.pop(name, None)
            else:
                layer.__dict__[name] = own


def wrapped_calls(
    layers: Iterable[keras.Layer],
    wrap: Callable[[keras.Layer, Callable], Callable],
    name: str = "call",
) -> contextlib.AbstractContextManager[None]:
    """Replace the `call` of each layer by `wrap(layer, call)` within the block.

    The original `call` still runs when Keras calls a layer only to infer its output
    shape.

    Args:
        layers: The layers, each once.
        wrap: Function of the layer and its `call`; returns the function to call instead.
        name: The method that Keras calls. Use `"quantized_call"` for a quantized layer.
            Defaults to `"call"`.
    """

    def make(layer, call):
        wrapped = wrap(layer, call)

        @functools.wraps(call)
        def either(*args, **kwargs):
            return (call if is_symbolic_call() else wrapped)(*args, **kwargs)

        return either

    return replaced(layers, name, make)

"""Puts other functions in the place of layers' own, for a while.

What is replaced is the attribute of the instance: the class, other instances and what
Keras tracks stay untouched, and a `finally` puts each layer back as it was.
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
    """Within the block, `layer.name` is `make(layer, layer.name)`.

    Args:
        layers: The layers, each once.
        name: Name of the attribute, `call` for example.
        make: Given the layer and what the attribute was, returns what it shall be.
    """
    before = []
    try:
        for layer in layers:
            # Into `__dict__`: Keras' `__setattr__` would track what is assigned.
            own = layer.__dict__.get(name, _NOTHING)
            new = make(layer, getattr(layer, name))
            before.append((layer, own))
            layer.__dict__[name] = new
        yield
    finally:
        for layer, own in before:
            if own is _NOTHING:
                layer.__dict__.pop(name, None)
            else:
                layer.__dict__[name] = own


def wrapped_calls(
    layers: Iterable[keras.Layer],
    wrap: Callable[[keras.Layer, Callable], Callable],
    name: str = "call",
) -> contextlib.AbstractContextManager[None]:
    """Within the block, each layer's `call` is `wrap(layer, call)`.

    Where Keras calls a layer only to learn the shape of its output, the layer's own
    `call` runs.

    Args:
        layers: The layers, each once.
        wrap: Given the layer and its `call`, returns the function to call instead.
        name: What Keras calls: "quantized_call", if the layer is quantized.
    """

    def make(layer, call):
        wrapped = wrap(layer, call)

        @functools.wraps(call)
        def either(*args, **kwargs):
            return (call if is_symbolic_call() else wrapped)(*args, **kwargs)

        return either

    return replaced(layers, name, make)

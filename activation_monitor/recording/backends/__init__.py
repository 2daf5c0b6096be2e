"""What differs between Keras' backends, one module for each; `backend` is that in use."""

import importlib
from typing import cast

import keras

from activation_monitor.recording.backends.protocol import Backend, NotBuilt

_BUILT = ("tensorflow", "jax", "torch")


def _chosen() -> Backend:
    name = keras.backend.backend()
    if name in _BUILT:
        return cast(Backend, importlib.import_module(f"{__name__}.{name}"))
    return cast(Backend, NotBuilt(name, _BUILT))


backend: Backend = _chosen()

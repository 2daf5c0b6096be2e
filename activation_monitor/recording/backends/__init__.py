"""What differs between Keras' backends, one module for each; `backend` is that in use."""

import importlib

import keras

from activation_monitor.recording.backends.protocol import Backend, NotBuilt

_BUILT = ("tensorflow",)


def _chosen() -> Backend:
    name = keras.backend.backend()
    if name in _BUILT:
        return importlib.import_module(f"{__name__}.{name}")
    return NotBuilt(name, _BUILT)


backend: Backend = _chosen()

"""The functions on tensors with which measuring is written: those of `keras.ops`, or
functions of the backend that do the same in less time.

Keras does not annotate its functions. What type checkers infer for symbolic tensors, None
for example, is wrong for the tensors measured here. So there are no types.
"""

from typing import Any

import keras


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    # Late, because the backends import the modules that use this one.
    from activation_monitor.recording.backends import backend

    found = getattr(backend.ops, name, None) or getattr(keras.ops, name)
    globals()[name] = found
    return found

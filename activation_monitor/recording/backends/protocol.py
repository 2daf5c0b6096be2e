"""What a backend has to offer: all that differs between TensorFlow, JAX and PyTorch.

A backend is a module with these functions and classes. Records may leave the step as side
effects (TensorFlow's variables) or as returned values: `Store` and `Reader` hide which.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np


class Store(Protocol):
    """Where the record of one tensor waits until the host reads it; no layer owns it."""

    def put(self, tensor, **how) -> Any:
        """Measure a tensor of the running step into this store."""

    def merge(self, record) -> None:
        """Merge the record of another tensor of the running step."""

    def read(self) -> np.ndarray:
        """The record on the host, `(len(records.FIELDS),)`."""

    def clear(self) -> None:
        """Empty it."""


class Reader(Protocol):
    """Reads many stores with one copy to the host, and empties them."""

    def read(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Records `(stores, FIELDS)`, and histograms `(stores, SLOTS)` if there are any."""


class Backend(Protocol):
    """The module of one of Keras' backends."""

    FRAMES: tuple[str, ...]
    COMPILED: str


class NotBuilt:
    """In place of a backend that is not built yet: says so when anything is asked of it.

    Args:
        name: Of Keras' backend.
        built: Names of the backends that are built.
    """

    def __init__(self, name: str, built: Sequence[str]):
        self._message = (
            f"activation_monitor does not support Keras' {name} backend yet. Set the "
            f'environment variable KERAS_BACKEND to "{built[0]}" before Keras is imported.'
        )

    def __getattr__(self, name: str) -> Callable:
        raise NotImplementedError(self._message)

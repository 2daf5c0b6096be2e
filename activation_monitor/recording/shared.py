"""Shares one record between the taps of a callback and a `Monitored` layer.

A `Monitored` layer announces that it wants the records of the layer it wraps. Taps that
measure this layer in the same pass store their records here. The `Monitored` layer uses
them and does not measure the outputs a second time.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import keras

_wanted: contextvars.ContextVar[tuple[keras.Layer | None, dict[int, object] | None]] = (
    contextvars.ContextVar("wanted", default=(None, None))
)


@contextlib.contextmanager
def wanted(layer: keras.Layer) -> Iterator[dict[int, object]]:
    """Request the records of a layer's outputs within the block.

    Args:
        layer: The layer whose outputs are wanted.

    Yields:
        A dict that taps fill: the record of each output tensor, by `id` of the tensor.
        Each record covers this tensor only. The dict stays empty without taps.
    """
    found = {}
    token = _wanted.set((layer, found))
    try:
        yield found
    finally:
        _wanted.reset(token)


def place_for(layer: keras.Layer) -> dict[int, object] | None:
    """The dict for the records of a layer's outputs, see `wanted`.

    Args:
        layer: The layer that is measured.

    Returns:
        The dict, or None if the records of this layer are not wanted.
    """
    wanted_layer, found = _wanted.get()
    return found if wanted_layer is layer else None

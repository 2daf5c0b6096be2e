"""A record that two ask for: the taps of a callback and the `Monitored` layer itself.

The layer asks before it is called; the taps, if they are there, measure its output and
leave the record of this pass; the layer finds it and need not measure again.
"""

import contextlib
import contextvars
from collections.abc import Iterator

_wanted = contextvars.ContextVar("wanted", default=(None, None))


@contextlib.contextmanager
def wanted(layer) -> Iterator[dict[int, object]]:
    """Within the block, records of what this layer puts out are wanted.

    Yields:
        Where they will be: the record of one tensor alone, by id of the tensor.
    """
    found = {}
    token = _wanted.set((layer, found))
    try:
        yield found
    finally:
        _wanted.reset(token)


def place_for(layer) -> dict[int, object] | None:
    """Where to leave the records of this layer's outputs; None if nobody wants them."""
    wanted_layer, found = _wanted.get()
    return found if wanted_layer is layer else None

"""Wraps a method of a class temporarily, also where several threads do so at once."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator

_NOTHING = object()
_LOCK = threading.Lock()
_active: dict[tuple[type, str], list[Callable]] = {}  # the last one is the outermost


@contextlib.contextmanager
def wrapped_method(kind: type, name: str, wrapper: Callable) -> Iterator[None]:
    """Within the block, calls of a method pass through a wrapper.

    Blocks may overlap in any order, as those of two threads do. The class has its own
    method again when the last of them ends.

    Args:
        kind: The class.
        name: The name of the method.
        wrapper: Called with the method that it wraps, and then the arguments of the call.
    """
    key = kind, name
    with _LOCK:
        if key not in _active:
            _active[key] = []
            own, method = vars(kind).get(name, _NOTHING), getattr(kind, name)
            setattr(kind, name, _through(method, own, _active[key]))
        _active[key].append(wrapper)
    try:
        yield
    finally:
        with _LOCK:
            # By identity: `remove` compares, and a bound method equals another one.
            at = max(i for i, one in enumerate(_active[key]) if one is wrapper)
            del _active[key][at]
            if not _active[key]:
                del _active[key]
                _restore(kind, name)


def _through(method, own, wrappers):
    """A method that calls another one through wrappers, if there are any."""

    @functools.wraps(method)
    def through(*args, **kwargs):
        call = method
        for wrapper in tuple(wrappers):
            call = functools.partial(wrapper, call)
        return call(*args, **kwargs)

    vars(through)["replaced"] = own
    return through


def _restore(kind, name):
    """Put the method back, unless someone else has replaced ours since."""
    present = vars(kind)[name]
    if not hasattr(present, "replaced"):
        return  # theirs calls ours, which no longer does anything
    if present.replaced is _NOTHING:
        delattr(kind, name)
    else:
        setattr(kind, name, present.replaced)

"""Walks structures of tensors in the order of `keras.tree`.

Its functions keep what they have walked alive on PyTorch, until the garbage collector runs:
the activations of a sampled step, on the device. So lists, tuples and dictionaries are
walked here, and it is asked for other structures only.
"""

from collections.abc import Callable
from typing import Any

import keras

Path = tuple[Any, ...]


def flatten_with_path(structure: Any) -> list[tuple[Path, Any]]:
    """The leaves of a structure, as pairs of path and leaf."""
    return list(_walked((), structure))


def flatten(structure: Any) -> list:
    """The leaves of a structure."""
    return [leaf for _, leaf in _walked((), structure)]


def map_structure(function: Callable[[Any], Any], structure: Any) -> Any:
    """The same structure, with the values of a function of each leaf."""
    kind = type(structure)
    if kind in (list, tuple):
        return kind([map_structure(function, part) for part in structure])
    if kind is dict:
        return {key: map_structure(function, part) for key, part in structure.items()}
    if keras.tree.is_nested(structure):
        return keras.tree.map_structure(function, structure)
    return function(structure)


def _walked(path, structure):
    kind = type(structure)
    if kind in (list, tuple):
        for i, part in enumerate(structure):
            yield from _walked((*path, i), part)
    elif kind is dict:
        for key in _in_order(structure):
            yield from _walked((*path, key), structure[key])
    elif keras.tree.is_nested(structure):
        for inner, leaf in keras.tree.flatten_with_path(structure):
            yield (*path, *inner), leaf
    else:
        yield path, structure


def _in_order(keys):
    try:
        return sorted(keys)
    except TypeError:  # keys of several kinds
        return [*keys]

"""The processes that train together, and the one that writes files.

JAX compiles a step for all devices of all processes together. A record covers the global
batch, without any function of ours, and every process has it.
"""

# The environment of a type checker may have no JAX.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from typing import Any

import jax
from jax.experimental import multihost_utils


def check_strategy(strategy: Any) -> None:
    """All models can be measured."""
    del strategy


def workers(strategy: Any) -> int:
    """The number of processes that train together."""
    del strategy
    return jax.process_count()


def is_chief(strategy: Any) -> bool:
    """Whether this process writes files."""
    del strategy
    return jax.process_index() == 0


def whole(arrays: Any) -> Any:
    """Arrays that every process can read.

    An array that is sharded over devices of several processes is copied to the host of
    each. All processes run this together, after each step that measures, whichever of them
    reads.

    Args:
        arrays: A structure of arrays.
    """
    return arrays if jax.process_count() == 1 else jax.tree.map(_whole, arrays)


def _whole(array):
    if isinstance(array, jax.core.Tracer) or array.is_fully_replicated:
        return array
    if array.is_fully_addressable:
        return array
    return multihost_utils.process_allgather(array, tiled=True)

"""Steps whose records are returned with what the step returns."""

# The environment of a type checker may have no JAX.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from activation_monitor.recording.backends.jax import graphs, processes
from activation_monitor.recording.backends.jax.stores import Store


@jax.tree_util.register_pytree_node_class
class _Recorded:
    """What a step returned, with what was measured in it.

    Args:
        outputs: What it returned.
        records: The records of all stores, in one vector.
        kept: Lists of tensors.
        places: The stores with the places of their records in the vector, what receives
            the tensors, and what else the caller wants to know. It belongs to the
            structure, which `jax.jit` keeps with the compiled step: a step with other
            shapes may measure otherwise.
    """

    def __init__(self, outputs, records, kept, places):
        self.outputs, self.records, self.kept, self.places = outputs, records, kept, places

    def tree_flatten(self):
        return (self.outputs, self.records, self.kept), self.places

    @classmethod
    def tree_unflatten(cls, places, children):
        outputs, records, kept = children
        return cls(outputs, records, kept, places)

    def taken(self):
        """Pass on what was measured; returns what the step returned."""
        stores, keepers, _ = self.places
        records, kept = processes.whole((self.records, self.kept))
        for store, start in stores:
            store.receive([records], start)
        for place, tensors in zip(keepers, kept, strict=True):
            place.receive(tensors)
        return self.outputs


def recorded(outputs: Any, puts: list, about: Any = None) -> Any:
    """What a step returns, with what was measured in it.

    Args:
        outputs: What it returns. If that is a tuple, what was measured is beside its first
            element, the logs of a step of Keras.
        puts: What was measured, see `graphs.Run.taken`.
        about: An object that `about` returns. Defaults to `None`.
    """
    if type(outputs) is tuple and outputs:
        first, *rest = outputs
        return (_recorded(first, puts, about), *rest)
    return _recorded(outputs, puts, about)


def about(outputs: Any) -> Any:
    """The object that was passed to `recorded`."""
    found = jax.tree.leaves(outputs, is_leaf=_is_recorded)
    return next(one for one in found if _is_recorded(one)).places[-1]


def _recorded(outputs, puts, about):
    vectors, kept, stores, keepers, start = [], [], [], [], 0
    for place, found in puts:
        if isinstance(place, Store):
            vectors.append(found[0])
            stores.append((place, start))
            start += found[0].shape[0]
        else:
            keepers.append(place)
            kept.append(found)
    records = jnp.concatenate(vectors) if vectors else jnp.zeros(0)
    return _Recorded(outputs, records, kept, (tuple(stores), tuple(keepers), about))


def returning_records(step: Callable) -> Callable:
    """A step that also returns what was measured in it, for `run_step`.

    Args:
        step: The step.
    """

    @functools.wraps(step)
    def recorded_step(*args, **kwargs):
        with graphs.new_run() as run:
            return recorded(step(*args, **kwargs), run.taken())

    return recorded_step


def run_step(step: Callable, *args: Any) -> Any:
    """Run a sampled step. Its records are in their stores when it returns.

    Args:
        step: The step, which may have been made with `returning_records`.
        *args: Its arguments.

    Returns:
        The return value of the step.
    """
    return taken(step(*args))


def _is_recorded(value):
    return isinstance(value, _Recorded)


def taken(outputs: Any) -> Any:
    """Pass on what was measured; returns what the step returned."""

    def of(value):
        return value.taken() if _is_recorded(value) else value

    return jax.tree.map(of, outputs, is_leaf=_is_recorded)


def within_execution(step: Callable) -> Callable:
    """A step for a loop over the steps of one execution, which keeps the last logs only."""

    @functools.wraps(step)
    def called(*args, **kwargs):
        return taken(step(*args, **kwargs))

    return called


def state_given(args: Sequence[Any]) -> Sequence[Any] | None:
    """The state in the arguments of a step of Keras: lists of values."""
    return args[0] if args and isinstance(args[0], tuple) else None


def state_returned(result: Any) -> Sequence[Any] | None:
    """The state in what a step of Keras returned: lists of values."""
    return result[1]


@jax.jit
def _copied(tensors):
    return [jnp.copy(tensor) for tensor in tensors]


def outlasting(tensors: Sequence[Any]) -> list:
    """The tensors, readable after a step that takes over the memory of its state."""
    return processes.whole(_copied([*tensors]))


def compiled(function: Callable) -> Callable:
    """Compile a function of ours, which reads no variables."""
    traced = jax.jit(function)
    return lambda *args: processes.whole(traced(*args))


def uncounted(function: Callable) -> Callable:
    """JAX does not warn about retracing."""
    return function


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device could not hold a sampled step."""
    return isinstance(error, jax.errors.JaxRuntimeError) and (
        "RESOURCE_EXHAUSTED" in str(error)
    )

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
        places: The stores with the places of their records in the vector, and what
            receives the tensors. It belongs to the structure, which `jax.jit` keeps with
            the compiled step: a step with other shapes may measure otherwise.
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
        stores, keepers = self.places
        records, kept = processes.whole((self.records, self.kept))
        for store, start in stores:
            store.receive([records], start)
        for place, tensors in zip(keepers, kept, strict=True):
            place.receive(tensors)
        return self.outputs


def _recorded(outputs, puts):
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
    return _Recorded(outputs, records, kept, (tuple(stores), tuple(keepers)))


def returning_records(step: Callable) -> Callable:
    """A step that also returns what was measured in it, for `run_step`.

    Args:
        step: The step. If it returns a tuple, what was measured is beside its first
            element, the logs of a step of Keras.
    """

    @functools.wraps(step)
    def recorded_step(*args, **kwargs):
        with graphs.new_run() as run:
            outputs = step(*args, **kwargs)
            if type(outputs) is tuple and outputs:
                first, *rest = outputs
                return (_recorded(first, run.taken()), *rest)
            return _recorded(outputs, run.taken())

    return recorded_step


def run_step(step: Callable, *args: Any) -> Any:
    """Run a sampled step. Its records are in their stores when it returns.

    Args:
        step: The step, which may have been made with `returning_records`.
        *args: Its arguments.

    Returns:
        The return value of the step.
    """
    return _taken(step(*args))


def _is_recorded(value):
    return isinstance(value, _Recorded)


def _taken(outputs):
    def taken(value):
        return value.taken() if _is_recorded(value) else value

    return jax.tree.map(taken, outputs, is_leaf=_is_recorded)


def within_execution(step: Callable) -> Callable:
    """A step for a loop over the steps of one execution, which keeps the last logs only."""

    @functools.wraps(step)
    def called(*args, **kwargs):
        return _taken(step(*args, **kwargs))

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


def second_trace(step: Callable) -> tuple[Callable, bool, bool]:
    """A user's step that also returns what is measured in it. Not built yet."""
    check_loop()
    return step, False, False


def check_loop() -> None:
    """Custom loops are not measured yet: their state is the user's own.

    Raises:
        NotImplementedError: Always.
    """
    raise NotImplementedError(
        "activation_monitor does not measure custom training loops on the jax backend of "
        "Keras yet. Use `fit`, also with a `train_step` of your own."
    )


def uncounted(function: Callable) -> Callable:
    """JAX does not warn about retracing."""
    return function


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device could not hold a sampled step."""
    return isinstance(error, jax.errors.JaxRuntimeError) and (
        "RESOURCE_EXHAUSTED" in str(error)
    )

"""What a backend offers: everything that differs between TensorFlow, JAX and PyTorch.

A backend is a module, or a package, with these functions and classes. It decides

* how records leave the compiled step: `Store.put` measures a tensor of the running step,
  and the record is in its store when `run_step` returns. TensorFlow assigns variables;
  JAX returns records with the outputs of the step, which takes and returns state;
* what a tensor was computed from, for the layer graph;
* what is traced or runs now: replicas, functions inside functions, recomputation;
* which processes train together.

Everything else in `recording` is written in Keras alone.
"""

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, Protocol

import numpy as np


class Store(Protocol):
    """Where the record of one tensor waits until the host reads it. No layer owns it."""

    merges: bool
    channels: int

    def put(
        self,
        tensor: Any,
        *,
        exact: bool,
        fused: bool,
        channel_axis: int = -1,
        unsaturated: tuple[float, float] | None = None,
        mask: Any = None,
    ) -> Any:
        """Measure a tensor of the running step; returns its raw record there."""
        ...

    def merge(self, record: Any) -> None:
        """Merge the raw record of another tensor of the running step."""
        ...

    def read(self) -> np.ndarray:
        """The record on the host, `(len(records.FIELDS),)`."""
        ...

    def clear(self) -> None:
        """Empty it."""
        ...


class Kept(Protocol):
    """Holds tensors of a step, as they are, until the host takes them."""

    def put(self, tensors: Sequence[Any]) -> None:
        """Keep tensors of the running step."""
        ...

    def take(self) -> list[list[Any]] | None:
        """What each replica has kept; None if nothing was. It is then forgotten."""
        ...


class Block(Protocol):
    """A block of a user's code that runs eagerly and is measured as one step.

    Attributes:
        before: Pairs of a variable that does not have its value before the block, and that
            value; None if it is not known.
        after: The same after it.
    """

    before: Sequence[tuple[Any, Any]]
    after: Sequence[tuple[Any, Any]]

    def running(self) -> AbstractContextManager[None]:
        """Within this, the block runs."""
        ...


class Reader(Protocol):
    """Reads many stores with one copy to the host, and empties them."""

    def collect(self) -> Any:
        """Empty the stores; returns what they held, where it is."""
        ...

    def finish(self, collected: Any) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Of what `collect` returned, on the host: records `(stores, len(FIELDS))`,
        histograms `(stores, len(SLOTS))`, and of each store which channels were active,
        `(channels,)`."""
        ...


_Stores = list[Store]  # within `Backend`, `Store` is a function
_Block = Block


class Backend(Protocol):
    """The functions of a backend's module."""

    FRAMES: tuple[str, ...]
    COMPILED: str
    CAPTURES_VARIABLES: bool
    ops: ModuleType
    EACH_WORKER_KNOWS_ALL: bool

    def check(self) -> None:
        """Raise NotImplementedError if this backend is not built yet."""
        ...

    # -- records

    def Store(  # noqa: N802
        self, histograms: bool, merges: bool = True, channels: int = 0
    ) -> Store:
        """A new store."""
        ...

    def Kept(self) -> Kept:  # noqa: N802
        """A new place for tensors of a step."""
        ...

    def Reader(self, stores: _Stores) -> Reader:  # noqa: N802
        """A new reader of stores."""
        ...

    def measure_once(self, x: Any, *, exact: bool, jit_compile: bool = False) -> np.ndarray:
        """The record of an array, measured as in a step."""
        ...

    def on_host(self, tensor: Any) -> np.ndarray:
        """A copy of an array, of a tensor that exists, or of the value of a variable."""
        ...

    def measured_each(self, tensors: Sequence[Any]) -> tuple[Any, Any]:
        """The raw records of several tensors, see `measure.measure_each`."""
        ...

    def counted_each(self, tensors: Sequence[Any]) -> Any:
        """The raw histograms of several tensors, see `measure.count_each`."""
        ...

    # -- steps

    def run_step(self, step: Callable, *args: Any) -> Any:
        """Run a sampled step of a model; its records are in their stores afterwards.

        `args` and the result are those of the model's own step: an iterator and logs for
        TensorFlow and PyTorch, state and an iterator, logs and state for JAX.
        """
        ...

    def compiled(self, function: Callable) -> Callable:
        """A compiled version of a function of ours."""
        ...

    def returning_records(self, step: Callable) -> Callable:
        """A step whose records reach their stores where `run_step` or `within_execution`
        runs it."""
        ...

    def within_execution(self, step: Callable) -> Callable:
        """A sampled step, for a function that runs several of them."""
        ...

    def state_given(self, args: Sequence[Any]) -> Sequence[Any] | None:
        """The values of variables in the arguments of a model's own step, by kind; None if
        the variables hold them. See `keras_private.state_held`."""
        ...

    def state_returned(self, result: Any) -> Sequence[Any] | None:
        """Those in what such a step returned."""
        ...

    def outlasting(self, tensors: Sequence[Any]) -> list:
        """Values of variables that can still be read after a step."""
        ...

    def second_trace(self, step: Callable) -> tuple[Any, bool, bool]:
        """A user's step with a trace of its own, for `run_own`; whether its code runs
        within a call, not in the caller's own; and whether XLA compiles it."""
        ...

    def values_before(
        self, step: Any, args: tuple, kwargs: dict, variables: Sequence[Any]
    ) -> Sequence[tuple[Any, Any]]:
        """Before `run_own`, with the variables of the models: pairs of a variable that does
        not have its value before the step, and that value; None if it is not known."""
        ...

    def run_own(
        self, step: Any, args: tuple, kwargs: dict
    ) -> tuple[Any, Sequence[tuple[Any, Any]]]:
        """Run a sampled step of the user's own. Its outputs; and such pairs after it."""
        ...

    def Block(self, variables: Sequence[Any]) -> _Block:  # noqa: N802
        """A new block, with the variables of the models."""
        ...

    def uncounted(self, function: Callable) -> Callable:
        """A step made for the monitor, without the backend's warnings about retracing."""
        ...

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether the device could not hold a sampled step."""
        ...

    # -- tensors and graphs

    def is_tensor(self, value: Any) -> bool:
        """Whether this is a dense tensor of the running step."""
        ...

    def is_ragged_or_sparse_float(self, value: Any) -> bool:
        """Whether these are floating-point numbers outside of a dense tensor."""
        ...

    def key(self, tensor: Any) -> Hashable:
        """Identifies a tensor of the running step, while it is kept."""
        ...

    def same_but_new(self, tensor: Any) -> Any:
        """The same values as a new tensor."""
        ...

    def measured_first(self, tensor: Any, record: Any) -> Any:
        """The tensor, for consumers that wait until its raw record has been computed."""
        ...

    def gradient_measured(self, tensor: Any, measure: Callable[[Any], Any]) -> Any:
        """The tensor to go on with. Where a backward pass must be prepared in the forward
        pass, `measure` is called with the gradient by it; `gradients_measured` does so
        elsewhere."""
        ...

    def gradients_measured(
        self,
        taps: Callable[[list], list[tuple[list, Callable[[Any], Any]]]],
        asked: Callable[[list, list], None],
    ) -> AbstractContextManager[None]:
        """Within the block, the step's backward pass also computes gradients by tapped
        tensors, and passes that by the first of several to the function beside them. `taps`
        is a function of what the step asks gradients for. `asked` is called with that, and
        with the gradients that the step gets."""
        ...

    def is_added_up(self, gradient: Any) -> bool:
        """Whether to measure this gradient would change the order of a sum."""
        ...

    def sources_noted(self) -> AbstractContextManager[None]:
        """Within the block, an eager step notes what tensors are computed from, where
        nothing else knows it."""
        ...

    def computed_from(self, tensor: Any) -> list | None:
        """The tensors that a tensor was computed from, or what stands for them: `key` and
        `computed_from` are called with these. None if that is not known."""
        ...

    def derived(
        self,
        function: Callable[[list], Any],
        values: list,
        tensors: Callable[[], list[tuple[Any, Callable[[Any], Any]]]],
    ) -> Any:
        """A traced scalar, a function of values of variables, whose gradients by tensors
        are measured: as `gradient_measured` does, or by the function beside each."""
        ...

    def graph(self) -> Hashable | None:
        """What is being traced; None in an eager step."""
        ...

    def outermost_graph(self) -> Hashable | None:
        """What the outermost function is being traced into; None in an eager step."""
        ...

    def in_function_within(self, root: Any) -> bool:
        """Whether a function with a trace of its own is being traced within `root`."""
        ...

    def is_recomputing(self) -> bool:
        """Whether this call repeats a forward pass for the backward pass."""
        ...

    def running_now(self) -> Hashable:
        """Which replica runs the step's Python code now."""
        ...

    # -- processes

    def in_replica(self) -> bool:
        """Whether this code runs for one replica, and not between them."""
        ...

    def replicas(self) -> int:
        """The number of replicas that train together with the one that runs this code."""
        ...

    def sums_over_replicas(self, tensors: list) -> list:
        """The sums of tensors over all replicas, in the step of one of them."""
        ...

    def by_replica(self, variable: Any) -> tuple:
        """The values of a variable in all replicas of this process."""
        ...

    def strategies(self, models: Sequence[Any]) -> list:
        """How these models are distributed, each way once."""
        ...

    def check_strategy(self, strategy: Any) -> None:
        """Raise NotImplementedError for a distribution that cannot be measured."""
        ...

    def workers(self, strategy: Any) -> int:
        """How many processes train together."""
        ...

    def is_chief(self, strategy: Any) -> bool:
        """Whether this process writes files."""
        ...


class NotBuilt:
    """Stands for a backend that is not built yet: raises when anything is asked of it.

    Args:
        name: Name of Keras' backend.
        built: Names of the backends that are built.
    """

    def __init__(self, name: str, built: Sequence[str]):
        self._message = (
            f"activation_monitor does not support the {name} backend of Keras yet. Set the "
            f"environment variable KERAS_BACKEND={built[0]} before Keras is imported."
        )

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(self._message)

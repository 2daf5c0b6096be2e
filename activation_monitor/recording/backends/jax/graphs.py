"""Runs of a step's code, the tensors in it, and what they were computed from.

A step's code runs in a `Run`: while `jax.jit` traces it, or eagerly. What is measured in
there waits in the run, and is returned with what the step returns.

`jax.grad` and its kin run a function on pairs of a value and a tangent. The value is one of
the code around. So is a cotangent in the backward pass. Both may leave the function: what
is computed from `jax.lax.stop_gradient` of a tensor is an output of the step like another.
The functions that `jax.jit`, `jax.lax.scan`, `jax.checkpoint` and `jax.vmap` trace have
values of their own, which must not leave them. `Run.holds` tells these from the others.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import sparse

from activation_monitor.recording.patches import wrapped_method

_running = threading.local()


def _trace_of(value):
    """What traces a value; None for an array that exists."""
    return value._trace if isinstance(value, jax.core.Tracer) else None


def _trace_here():
    """What traces the code that runs, without that of derivatives."""
    return _trace_of(jax.lax.stop_gradient(jnp.zeros(())))


class Run:
    """One run of a step's code.

    Attributes:
        puts: Pairs of a place and what was measured for it.
    """

    def __init__(self):
        self.puts: list[tuple[Any, Any]] = []
        self._trace = _trace_here()

    def holds(self, value: Any) -> bool:
        """Whether the code of the step itself may return a value."""
        trace = _trace_of(value)
        return trace is None or trace is self._trace

    def is_here(self, trace: Any) -> bool:
        """Whether that trace is the one of the step's own code."""
        return trace is self._trace

    @property
    def is_eager(self) -> bool:
        """Whether the step runs without being traced."""
        return self._trace is None


def current() -> Run | None:
    """The run of a step's code in this thread; None outside."""
    return getattr(_running, "run", None)


@contextlib.contextmanager
def new_run() -> Iterator[Run]:
    """Within the block, the code of a step runs."""
    before, _running.run = current(), Run()
    try:
        yield _running.run
    finally:
        _running.run = before


def deliver(place: Any, found: Sequence[Any]) -> None:
    """Let what was measured be received by a place, when the step has run.

    Args:
        place: Has a method `receive`.
        found: Arrays.

    Raises:
        TypeError: If they must not leave a function within the step.
    """
    run = current()
    if run is None:
        if not all(_trace_of(value) is None for value in found):
            raise TypeError("it is called in a compiled function that is not measured")
        place.receive([*found])
    elif not all(map(run.holds, found)):
        raise TypeError(
            "it is computed in a function with a trace of its own, by `jax.jit`, "
            "`jax.lax.scan`, `jax.lax.cond`, `jax.checkpoint` or `jax.vmap` within the step"
        )
    else:
        run.puts.append((place, [*found]))


def running_now() -> tuple[str, int]:
    """Identify the thread that runs this code."""
    return "thread", threading.get_ident()


def is_tensor(value: Any) -> bool:
    """Whether a value is a dense tensor of the running step, not a symbolic Keras one."""
    return isinstance(value, jax.Array)


def is_ragged_or_sparse_float(value: Any) -> bool:
    """Whether a value holds floating-point numbers in a sparse tensor."""
    return isinstance(value, sparse.JAXSparse) and jnp.issubdtype(value.dtype, jnp.floating)


def is_recomputing() -> bool:
    """Whether this call repeats a forward pass: JAX repeats operations, not calls."""
    return False


def graph() -> Any:
    """The run of the step's code; what traces a function within it; or None."""
    run, here = current(), _trace_here()
    return run if run is not None and run.is_here(here) else here


def outermost_graph() -> Any:
    """The run of the step's code; None outside."""
    return current()


def in_function_within(root: Any) -> bool:
    """Whether a function with a trace of its own is being traced within `root`."""
    return graph() is not root


def key(tensor: Any) -> int:
    """Identifies the values of a tensor, with or without tangents."""
    return id(_value(tensor))


def _value(tensor):
    while hasattr(tensor, "primal"):  # a tracer of derivatives
        tensor = tensor.primal
    return tensor


def computed_from(tensor: Any) -> list | None:
    """The tensors that a traced tensor was computed from; None in eager execution."""
    value = _value(tensor)
    if not isinstance(value, jax.core.Tracer):
        run = current()
        # An array in a trace is a constant of the model.
        return None if run is None or run.is_eager else []
    made_by = getattr(value, "parent", None)
    return [] if made_by is None else [*made_by.in_tracers]


def same_but_new(tensor: Any) -> Any:
    """A new tensor with the same values, so that the outputs of two layers differ."""
    return jnp.copy(tensor)


def measured_first(tensor: Any, record: Any) -> Any:
    """The tensor: XLA decides when it is measured."""
    del record
    return tensor


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _passed(measure, x):
    del measure
    return x


def _passed_forward(measure, x):
    del measure
    return x, None


def _passed_backward(measure, _, gradient):
    measure(gradient)
    return (gradient,)


_passed.defvjp(_passed_forward, _passed_backward)


def gradient_measured(tensor: Any, measure: Callable[[Any], Any]) -> Any:
    """The tensor, for consumers whose gradient by it is measured.

    Args:
        tensor: A tensor of the running step.
        measure: Called with the gradient, while the backward pass is traced or runs.

    Returns:
        The tensor itself if no backward pass is prepared that leads through it; or if
        forward derivatives are computed as well, which do not pass through such a tensor.
    """
    trace = _trace_of(tensor)
    if type(trace).__name__ != "LinearizeTrace":
        return tensor
    return _passed(measure, tensor)


def derived(
    function: Callable[[list], Any],
    values: list,
    tensors: Callable[[], list[tuple[Any, Callable[[Any], Any]]]],
) -> Any:
    """A traced scalar, after a backward pass, see `gradient_measured`.

    Args:
        function: Function of the values; returns the scalar.
        values: The values of the variables that are trained.
        tensors: Not used.

    Returns:
        The scalar.
    """
    del tensors
    return jax.value_and_grad(function)(values)[0]


@contextlib.contextmanager
def gradients_measured(
    taps: Callable[[list], list], asked: Callable[[list, list], None]
) -> Iterator[None]:
    """Within the block, tell `asked` what functions of `jax.grad` and
    `jax.value_and_grad` are asked for, and the gradients that they return.

    Args:
        taps: Not used: see `gradient_measured`.
        asked: Called with the sources and the gradients by them.
    """
    del taps

    def noted(of_result):
        def noted_derive(derive, fun, argnums=0, *args, **kwargs):
            derived = derive(fun, argnums, *args, **kwargs)

            @functools.wraps(derived)
            def call(*args, **kwargs):
                result = derived(*args, **kwargs)
                with contextlib.suppress(Exception):
                    several = not isinstance(argnums, int)
                    by = [args[i] for i in argnums] if several else args[argnums]
                    sources, found = map(jax.tree.leaves, (by, of_result(result)))
                    if len(sources) == len(found):
                        asked(sources, found)
                return result

            return call

        return noted_derive

    with contextlib.ExitStack() as stack:
        # With `has_aux`, `grad` returns a pair, which has more leaves than the sources.
        both = ("value_and_grad", lambda result: result[1]), ("grad", lambda result: result)
        for name, of_result in both:
            wrapper = noted(of_result)
            stack.enter_context(wrapped_method(jax, name, wrapper))
        yield


def is_added_up(gradient: Any) -> bool:
    """Whether to measure a gradient would change a sum: XLA keeps its order."""
    del gradient
    return False

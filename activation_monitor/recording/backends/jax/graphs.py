"""Runs of a step's code, the tensors in it, and what they were computed from.

A step's code runs in a `Run`: while `jax.jit` traces it, or eagerly. What is measured in
there waits in the run, and is returned with what the step returns.

`jax.grad` and its kin run a function on pairs of a value and a tangent. The value is one of
the code around. So is a cotangent in the backward pass. Both may leave the function: what
is computed from `jax.lax.stop_gradient` of a tensor is an output of the step like another.
The functions that `jax.jit`, `jax.lax.scan`, `jax.checkpoint` and `jax.vmap` trace have
values of their own, which must not leave them. `Run.holds` tells these from the others.
"""

# The environment of a type checker may have no JAX.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import contextlib
import functools
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
    """One run of a step's code, or of a function in it that `jax.checkpoint` traces.

    Args:
        around: The run that such a function is in. Defaults to `None`: it is the step.

    Attributes:
        step: The run of the step.
        links: Of tensors that enter or leave such functions, by `id`: the tensor, and the
            same values on the side where they come from.
        measuring: By key of a tensor that such a function makes, what measures its
            gradient.
    """

    def __init__(self, around: "Run | None" = None):
        self._puts: list[tuple[Any, list, bool]] = []
        self._loses_gradients = False
        self.step: Run = self if around is None else around.step
        self.links: dict[int, tuple[Any, Any]] = {} if around is None else around.links
        self.measuring: dict[int, Callable[[Any], Any]] = {}
        self._trace = _trace_here()

    def lose_gradients(self) -> None:
        """Leave out all gradients: some are computed where they cannot be measured.

        A rule would take the missing ones for zero.
        """
        if not self._loses_gradients:
            self._loses_gradients = True
            warnings.warn(
                "ActivationMonitor: gradients of layer outputs are not measured: several "
                "layers are recomputed together, in a `RematScope`. This is not supported "
                "on the jax backend of Keras yet.",
                stacklevel=2,
            )

    def taken(self) -> list[tuple[Any, list]]:
        """What the step has measured: pairs of a place and arrays."""
        return [
            (place, found)
            for place, found, is_gradient in self._puts
            if not (is_gradient and self._loses_gradients)
        ]

    def put(self, place: Any, found: list) -> None:
        """Keep what was measured for a place, until the step has run."""
        self._puts.append((place, found, getattr(_running, "backward", False)))

    def link(self, tensor: Any, source: Any) -> None:
        """Note that a tensor has the values of another one, which leads to its parents."""
        tensor, source = value_of(tensor), value_of(source)
        if tensor is not source:
            self.links[id(tensor)] = tensor, source

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
def new_run(around: Run | None = None) -> Iterator[Run]:
    """Within the block, the code of a step runs; or a function in the run `around`."""
    before, _running.run = current(), Run(around)
    try:
        with contextlib.ExitStack() as stack:
            if around is None:
                # Keras calls it for layers in a `RematScope`.
                stack.enter_context(wrapped_method(jax, "checkpoint", _checkpoint))
            yield _running.run
    finally:
        _running.run = before


def _checkpoint(checkpoint, fun, *args, **kwargs):
    """`jax.checkpoint` of a function, whose records leave it with its outputs."""

    def measured(*inputs, **named):
        around = current()
        if around is None or not around.is_here(_trace_here()):
            return checkpoint(fun, *args, **kwargs)(*inputs, **named)
        given = jax.tree.leaves((inputs, named))
        inner: list[Any] = []

        def recorded(*inputs, **named):
            with new_run(around) as run:
                for one, outside in zip(
                    jax.tree.leaves((inputs, named)), given, strict=True
                ):
                    run.link(one, outside)
                outputs = fun(*inputs, **named)
            inner[:] = run, jax.tree.leaves(outputs)
            return outputs, [found for _, found in run.taken()]

        outputs, found = checkpoint(recorded, *args, **kwargs)(*inputs, **named)
        run, made = inner
        for (place, _), values in zip(run.taken(), found, strict=True):
            deliver(place, values)
        leaves, structure = jax.tree.flatten(outputs)
        for i, (leaf, one) in enumerate(zip(leaves, made, strict=True)):
            around.link(leaf, one)
            measure = run.measuring.pop(key(one), None)
            if measure is not None:
                leaves[i] = gradient_measured(leaf, measure)
                around.link(leaves[i], one)
        if run.measuring:
            around.step.lose_gradients()
        return jax.tree.unflatten(structure, leaves)

    return measured


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
            raise TypeError(
                "it is called in a compiled function. On the jax backend of Keras, records "
                "leave only the steps that an `ActivationMonitor` samples: use one, with "
                "`sample_every=1` for all of them, or `run_eagerly=True`"
            )
        place.receive([*found])
    elif not all(map(run.holds, found)):
        raise TypeError(
            "it is computed in a function with a trace of its own, by `jax.jit`, "
            "`jax.lax.scan`, `jax.lax.cond`, `jax.checkpoint` or `jax.vmap` within the step"
        )
    else:
        if run.is_eager and jax.process_count() > 1:
            # It is a program of its own here, over all devices. On CPU, two of them that
            # wait for other processes at the same time may wait forever.
            jax.block_until_ready(found)
        run.put(place, [*found])


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
    return run.step if run is not None and run.is_here(here) else here


def outermost_graph() -> Any:
    """The run of the step's code; None outside."""
    run = current()
    return run and run.step


def in_function_within(root: Any) -> bool:
    """Whether a function with a trace of its own is being traced within `root`."""
    return graph() is not root


def key(tensor: Any) -> int:
    """Identifies the values of a tensor, with or without tangents."""
    return id(value_of(tensor))


def value_of(tensor: Any) -> Any:
    """The values of a tensor without tangents, where they come from."""
    run = current()
    links = {} if run is None else run.links
    while True:
        if hasattr(tensor, "primal"):  # a tracer of derivatives
            tensor = tensor.primal
        elif id(tensor) in links:
            tensor = links[id(tensor)][1]
        else:
            return tensor


def sources_noted() -> contextlib.AbstractContextManager[None]:
    """Nothing to do: a trace knows them."""
    return contextlib.nullcontext()


def computed_from(tensor: Any) -> list | None:
    """The tensors that a traced tensor was computed from; None in eager execution."""
    value, run = value_of(tensor), current()
    if not isinstance(value, jax.core.Tracer):
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
    _running.backward = True
    try:
        measure(gradient)
    finally:
        _running.backward = False
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
    trace, run = _trace_of(tensor), current()
    if run is not None and run is not run.step:
        run.measuring[key(tensor)] = measure
        return tensor
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
                    by = [args[i] for i in np.atleast_1d(argnums)]
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

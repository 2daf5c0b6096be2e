"""The inputs of a traced tensor, and the graph that is being traced."""

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from activation_monitor.recording.patches import wrapped_method

Tap = tuple[list[tf.Tensor], Callable[[Any], Any]]
"""Tensors, and what is called with the gradient by the first of them that has one."""

WORTH_WAITING = 2**15
"""Elements of a sample from which on a layer's output waits until it is measured. To wait
costs the parallelism of measuring and computing: 5 % of a step of a perceptron."""


REORDERED = {
    "Add": tf.add,
    "AddV2": tf.add,
    "AddN": lambda *tensors: tf.add_n(tensors),
    "Mul": tf.multiply,
}
"""Operations that TensorFlow joins with the next one of their kind, if nothing else reads
their result, and then computes in another order. A batch normalization before a residual
sum ends with such a sum. Whoever reads it changes the last bit of the step."""


def running_now() -> tuple[str, int]:
    """Identify which replica runs this code; without replicas, which thread.

    Returns:
        `("replica", replica_id)` or `("thread", thread_id)`.
    """
    # Each `strategy.run` starts new threads, which may reuse the numbers of old threads.
    thread: Any = threading.current_thread()  # TensorFlow's have more attributes
    if hasattr(thread, "replica_id"):
        return "replica", thread.replica_id
    return "thread", thread.ident


def derived(
    function: Callable[[list], tf.Tensor],
    values: list,
    tensors: Callable[[], list[tuple[tf.Tensor, Callable[[Any], Any]]]],
) -> tf.Tensor:
    """A traced scalar, and the gradients of it by tensors of its forward pass.

    Args:
        function: Function of the values; returns the scalar.
        values: The values of the variables that are trained.
        tensors: Called after it. Returns tensors, with functions that are called with the
            gradient, if the scalar depends on the tensor.

    Returns:
        The scalar.
    """
    of, by = function(values), tensors()
    found = tf.gradients(of, [tensor for tensor, _ in by]) if by else []
    for (_, measure), gradient in zip(by, found, strict=True):
        if gradient is not None:
            measure(gradient)
    return of


def is_tensor(value: Any) -> bool:
    """Whether a value is a dense tensor of the running step, not a symbolic Keras one."""
    return isinstance(value, tf.Tensor)


def is_recomputing() -> bool:
    """Whether `keras.remat` repeats this call in the backward pass.

    Only the call stack shows this, because the call runs in the graph of the forward pass.
    """
    frame = inspect.currentframe()
    while frame and frame.f_code.co_name != "inner_recompute_grad":
        frame = frame.f_back
    return frame is not None


def is_ragged_or_sparse_float(value: Any) -> bool:
    """Whether a value holds floating-point numbers in a ragged or sparse tensor."""
    kinds = tf.RaggedTensor, tf.SparseTensor, tf.IndexedSlices
    return isinstance(value, kinds) and value.dtype.is_floating


def graph() -> Any:
    """The graph that is being traced; None in eager execution."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def outermost_graph() -> Any:
    """The graph of the outermost function that is being traced; None in eager execution."""
    found, around = None, graph()
    while around is not None and hasattr(around, "outer_graph"):
        found, around = around, around.outer_graph
    return found


def in_function_within(root: Any) -> bool:
    """Whether a function with its own trace is being traced within `root`.

    Such a trace outlives the step. Branches and loops do not have one.

    Args:
        root: A graph that `graph` returned.
    """
    here = graph()
    while here is not root and here is not None:
        if type(here).__name__ == "FuncGraph":  # and not one of its subclasses
            return True
        here = getattr(here, "outer_graph", None)
    return False


def sources_noted() -> contextlib.AbstractContextManager[None]:
    """Nothing to do: a trace knows them."""
    return contextlib.nullcontext()


def computed_from(tensor: tf.Tensor) -> list[tf.Tensor] | None:
    """The tensors that a traced tensor was computed from; None in eager execution."""
    if tf.executing_eagerly():
        return None
    # An eager tensor in a graph is a constant of the model, without inputs.
    return list(tensor.op.inputs) if tf.is_symbolic_tensor(tensor) else []


def measured_first(tensor: tf.Tensor, record: tf.Tensor) -> tf.Tensor:
    """The tensor, for consumers that wait until its record has been computed.

    Otherwise TensorFlow may measure much later, and keep the tensor in memory until then.
    Small tensors are returned as they are. So are the outputs of softmax and sigmoid: if a
    loss finds these operations, it is computed from their inputs. So are sums and products,
    see `REORDERED`.
    """
    # An eager tensor in a graph is a constant of the model.
    if tf.executing_eagerly() or not tf.is_symbolic_tensor(tensor):
        return tensor
    if tensor.op.type in ("Softmax", "Sigmoid", *REORDERED):
        return tensor
    lengths = tensor.shape[1:]
    if lengths.is_fully_defined() and lengths.num_elements() < WORTH_WAITING:
        return tensor
    with tf.control_dependencies([record]):
        return tf.identity(tensor)


@contextlib.contextmanager
def gradients_measured(
    taps: Callable[[list], list[Tap]], asked: Callable[[list, list], None]
) -> Iterator[None]:
    """Within the block, a gradient tape also computes gradients by tapped tensors.

    They are further sources of the gradient that the step asks for. So the backward pass is
    the same: an operation of ours within it would change the order in which TensorFlow adds
    up gradients, and with it the last bit.

    Args:
        taps: Function of the sources that the step asks for. Returns tensors of the running
            step, with functions that are called with a gradient, in the graph.
        asked: Called with these sources and the gradients by them that the step gets.
    """
    none = tf.UnconnectedGradients.NONE

    def tapped_gradient(
        gradient,
        tape,
        target,
        sources,
        output_gradients=None,
        unconnected_gradients=none,
    ):
        wanted = tf.nest.flatten(sources)
        tapped = taps(wanted)
        if not tapped:
            found = gradient(tape, target, sources, output_gradients, unconnected_gradients)
        else:
            found = with_ours(
                *(gradient, tape, target, sources, output_gradients),
                *(unconnected_gradients, tapped),
            )
        asked(wanted, tf.nest.flatten(found))
        return found

    def with_ours(
        gradient, tape, target, sources, output_gradients, unconnected_gradients, tapped
    ):
        tensors = [tensors for tensors, _ in tapped]
        # The way to each of them leads on to what the step asks for, so no operation is
        # derived that would not be anyway.
        theirs, ours = gradient(tape, target, [sources, tensors], output_gradients, none)
        for (_, measure), found in zip(tapped, ours, strict=True):
            connected = [one for one in found if one is not None]
            if connected and not is_added_up(connected[0]):
                measure(connected[0])
        if tf.UnconnectedGradients(unconnected_gradients) is none:
            return theirs
        # The step wants zeros. The record of a tensor that is not connected stays empty.
        return tf.nest.map_structure(
            lambda found, source: tf.zeros_like(source) if found is None else found,
            *(theirs, sources),
        )

    with wrapped_method(tf.GradientTape, "gradient", tapped_gradient):
        yield


_SHARE_MEMORY = ("Identity", "Reshape", "ExpandDims", "Squeeze", "StopGradient")


def is_added_up(gradient: Any) -> bool:
    """Whether a gradient is added to two or more others as it is.

    The sum begins with one whose memory nobody else needs. To measure that one would change
    the order, and the last bit.
    """
    if not isinstance(gradient, tf.Tensor) or not tf.is_symbolic_tensor(gradient):
        return False
    return any(
        (op.type == "AddN" and len(op.inputs) > 2)
        or (op.type in _SHARE_MEMORY and any(map(is_added_up, op.outputs)))
        for op in gradient.consumers()
    )


def key(tensor: Any) -> int:
    """Identifies a tensor of the running step."""
    return id(tensor)


def gradient_measured(tensor: tf.Tensor, measure: Callable[[Any], Any]) -> tf.Tensor:
    """The tensor: `gradients_measured` measures its gradient."""
    del measure
    return tensor


def same_but_new(tensor: tf.Tensor) -> tf.Tensor:
    """A new tensor with the same values, so that the outputs of two layers differ."""
    return tf.identity(tensor)

"""What a traced tensor was computed from, and which graph is being traced."""

import inspect
import threading

import tensorflow as tf


def running_now() -> tuple[str, int]:
    """Which of those that run the step's code side by side is running: the replica, or
    where there is but one, the thread."""
    # Each `strategy.run` begins new threads, of which some bear old threads' numbers.
    thread = threading.current_thread()
    if hasattr(thread, "replica_id"):
        return "replica", thread.replica_id
    return "thread", thread.ident


def gradients(of, by: list) -> list:
    """Gradients of a traced scalar by traced tensors; None where it does not depend."""
    return tf.gradients(of, by)


def is_tensor(value) -> bool:
    """Whether this is a dense tensor of the running step (not a symbolic Keras one)."""
    return isinstance(value, tf.Tensor)


def is_recomputing() -> bool:
    """Whether this call is one that `keras.remat` repeats in the backward pass.

    Nothing but the stack tells: it runs in the graph of the forward pass.
    """
    frame = inspect.currentframe()
    while frame and frame.f_code.co_name != "inner_recompute_grad":
        frame = frame.f_back
    return frame is not None


def is_ragged_or_sparse_float(value) -> bool:
    """Whether these are floating-point numbers that do not stand in one dense tensor."""
    kinds = tf.RaggedTensor, tf.SparseTensor, tf.IndexedSlices
    return isinstance(value, kinds) and value.dtype.is_floating


def graph():
    """What is being traced now; None when running eagerly."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def outermost_graph():
    """The graph of the function whose tracing began first; None when running eagerly."""
    found, around = None, graph()
    while around is not None and hasattr(around, "outer_graph"):
        found, around = around, around.outer_graph
    return found


def in_function_within(root) -> bool:
    """Whether a function is being traced within `root`: one with a trace of its own, that
    outlives the step. Branches and loops have none.

    Args:
        root: A graph, as `graph` returned it.
    """
    here = graph()
    while here is not root and here is not None:
        if type(here).__name__ == "FuncGraph":  # and not one of its subclasses
            return True
        here = getattr(here, "outer_graph", None)
    return False


def computed_from(tensor) -> list | None:
    """The tensors from which a traced tensor was computed; None when running eagerly."""
    if tf.executing_eagerly():
        return None
    # A constant of the model's, made eagerly: it is computed from nothing.
    return list(tensor.op.inputs) if tf.is_symbolic_tensor(tensor) else []


def same_but_new(tensor):
    """The same values as a new tensor, so that two layers' outputs can be told apart."""
    return tf.identity(tensor)

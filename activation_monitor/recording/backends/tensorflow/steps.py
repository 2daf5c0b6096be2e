"""Compiled steps: traces of our own, and how TensorFlow runs and counts them."""

import inspect
import sys
from collections.abc import Callable

import tensorflow as tf


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device could not hold a step: with the measuring it needs more.

    The user's data may raise the same error; that is not one of the step.
    """
    exhausted = isinstance(error, tf.errors.ResourceExhaustedError)
    return exhausted and "IteratorGetNext" not in str(error)


def compiled(function: Callable) -> Callable:
    """The function, traced at its first call, and not counted, see `uncounted`."""
    return uncounted(tf.function(function, autograph=False))


def run_step(step: Callable, *args):
    """Run a sampled step; its records are in their stores when it returns.

    TensorFlow's step assigns them to variables, so that it is just called.
    """
    return step(*args)


def second_trace(step: Callable) -> tuple[Callable, bool, bool]:
    """A step of the user's as a function with a trace of its own.

    Args:
        step: A `tf.function`, or a Python function.

    Returns:
        The function: the step itself, if it is no `tf.function`; whether it is one; and
        whether XLA compiles it.
    """
    if not hasattr(step, "get_concrete_function"):
        return step, False, False
    return uncounted(step._clone(None)), True, bool(step._jit_compile)


def uncounted(function: Callable) -> Callable:
    """A function that does the same, and whose traces TensorFlow does not count.

    TensorFlow warns when many of the last calls of a function were traced ("5 out of the
    last 5 calls to ... triggered tf.function retracing"). It counts all functions of the
    same source code together: the second trace of a step as one more of the user's own.
    Here each call counts as one that found its trace made, so that TensorFlow warns
    exactly where it would without a monitor.

    Args:
        function: A `tf.function` that was made for the monitor; or a model's train or test
            function that Keras made for it, which calls one. Any other stays as it is.
    """
    traced = _traced_part(function)
    if traced is None:
        return function
    try:
        key = traced._key_for_call_stats
        counter = sys.modules[type(traced).__module__]._frequent_tracing_detector_manager
        traced._omit_frequent_tracing_warning = True
    except AttributeError:  # of another TensorFlow, which will count
        return function
    traced._key_for_call_stats = _OurTraces

    def called(*args, **kwargs):
        outputs = function(*args, **kwargs)
        counter.called_without_tracing(key)
        return outputs

    return called


class _OurTraces:
    """Under which TensorFlow counts the traces that it must not warn of."""


def _traced_part(function):
    """The `tf.function` that this is, or that Keras' train or test function calls."""
    if hasattr(function, "get_concrete_function"):
        return function
    if getattr(function, "__module__", "").startswith("keras."):
        for value in inspect.getclosurevars(function).nonlocals.values():
            if hasattr(value, "get_concrete_function"):
                return value
    return None

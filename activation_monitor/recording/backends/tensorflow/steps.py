"""Compiled steps: separate traces, and how TensorFlow runs and counts them."""

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def is_out_of_memory(error: Exception) -> bool:
    """Whether a step ran out of device memory; a measured step needs more memory.

    The user's data pipeline may raise the same error. It does not count.
    """
    exhausted = isinstance(error, tf.errors.ResourceExhaustedError)
    return exhausted and "IteratorGetNext" not in str(error)


def compiled(function: Callable) -> Callable:
    """Compile a function. Its traces are not counted, see `uncounted`."""
    return uncounted(tf.function(function, autograph=False))


def run_step(step: Callable, *args: Any) -> Any:
    """Run a sampled step. Its records are in their stores when it returns.

    A TensorFlow step assigns the records to variables, so it only has to be called.

    Args:
        step: The step.
        *args: Its arguments.

    Returns:
        The return value of the step.
    """
    return step(*args)


def outlasting(tensors: Sequence[Any]) -> list:
    """The tensors, which no step changes."""
    return [*tensors]


def second_trace(step: Callable) -> tuple[Callable, bool, bool]:
    """A copy of a user's step with its own trace.

    Args:
        step: A `tf.function`, or a Python function.

    Returns:
        The copy (a Python function is returned unchanged); whether `step` is a
        `tf.function`; and whether XLA compiles it.
    """
    if not hasattr(step, "get_concrete_function"):
        return step, False, False
    return uncounted(step._clone(None)), True, bool(step._jit_compile)


def uncounted(function: Callable) -> Callable:
    """Exclude the traces of a function from TensorFlow's warnings about retracing.

    TensorFlow warns when many of the last calls of a function were traced ("5 out of the
    last 5 calls to ... triggered tf.function retracing"). It counts all functions with the
    same source code together, so the second trace of a step would count for the user's
    step. This function counts each call as a call without tracing. TensorFlow then warns
    exactly where it would warn without a monitor.

    Args:
        function: A `tf.function` that was made for the monitor, or a train or test
            function of a Keras model that calls such a function.

    Returns:
        A function that does the same. Other functions are returned unchanged.
    """
    traced = _traced_part(function)
    if traced is None:
        return function
    try:
        key = traced._key_for_call_stats
        counter = sys.modules[type(traced).__module__]._frequent_tracing_detector_manager
        traced._omit_frequent_tracing_warning = True
    except AttributeError:  # another TensorFlow version, which counts the traces
        return function
    traced._key_for_call_stats = _OurTraces

    def called(*args, **kwargs):
        outputs = function(*args, **kwargs)
        counter.called_without_tracing(key)
        return outputs

    return called


class _OurTraces:
    """The key under which TensorFlow counts the traces of the monitor."""


def _traced_part(function):
    """The function itself if it is a `tf.function`, or the one that it calls.

    Keras' train and test functions call a `tf.function`. None for other functions.
    """
    if hasattr(function, "get_concrete_function"):
        return function
    if getattr(function, "__module__", "").startswith("keras."):
        for value in inspect.getclosurevars(function).nonlocals.values():
            if hasattr(value, "get_concrete_function"):
                return value
    return None

"""The TensorFlow backend, see `protocol.Backend`."""

from activation_monitor.recording.backends.tensorflow.graphs import (
    computed_from,
    gradients,
    gradients_measured,
    graph,
    in_function_within,
    is_added_up,
    is_ragged_or_sparse_float,
    is_recomputing,
    is_tensor,
    measured_first,
    outermost_graph,
    running_now,
    same_but_new,
)
from activation_monitor.recording.backends.tensorflow.processes import (
    by_replica,
    check_strategy,
    in_replica,
    is_chief,
    replicas,
    strategies,
    sums_over_replicas,
    workers,
)
from activation_monitor.recording.backends.tensorflow.steps import (
    compiled,
    is_out_of_memory,
    run_step,
    second_trace,
    uncounted,
)
from activation_monitor.recording.backends.tensorflow.stores import (
    Kept,
    Reader,
    Store,
    measure_once,
    measured_each,
)

FRAMES = ("tensorflow",)
"""Packages whose frames stand between the user's line and ours in a stack."""

COMPILED = "tf.function"
"""The name of a compiled function, for messages."""


def check() -> None:
    """This backend is built."""


__all__ = [
    "COMPILED",
    "FRAMES",
    "Kept",
    "Reader",
    "Store",
    "by_replica",
    "check",
    "check_strategy",
    "compiled",
    "computed_from",
    "gradients",
    "gradients_measured",
    "graph",
    "in_function_within",
    "in_replica",
    "is_added_up",
    "is_chief",
    "is_out_of_memory",
    "is_ragged_or_sparse_float",
    "is_recomputing",
    "is_tensor",
    "measure_once",
    "measured_each",
    "measured_first",
    "outermost_graph",
    "replicas",
    "run_step",
    "running_now",
    "same_but_new",
    "second_trace",
    "strategies",
    "sums_over_replicas",
    "uncounted",
    "workers",
]

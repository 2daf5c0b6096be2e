"""The TensorFlow backend, see `protocol.Backend`."""

import keras

from activation_monitor.recording.backends.held import (
    Block,
    returning_records,
    run_own,
    state_given,
    state_returned,
    values_before,
    within_execution,
)
from activation_monitor.recording.backends.tensorflow.graphs import (
    computed_from,
    derived,
    gradient_measured,
    gradients_measured,
    graph,
    in_function_within,
    is_added_up,
    is_ragged_or_sparse_float,
    is_recomputing,
    is_tensor,
    key,
    measured_first,
    outermost_graph,
    running_now,
    same_but_new,
    sources_noted,
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
    outlasting,
    run_step,
    second_trace,
    uncounted,
)
from activation_monitor.recording.backends.tensorflow.stores import (
    Kept,
    Reader,
    Store,
    counted_each,
    measure_once,
    measured_each,
    on_host,
)

FRAMES = ("tensorflow",)
"""Packages whose frames stand between the user's line and ours in a stack."""

CAPTURES_VARIABLES = True
"""Whether a compiled function reads variables as they are at each call."""

EACH_WORKER_KNOWS_ALL = False
"""Whether each process has the records of all that train together."""

COMPILED = "tf.function"
"""The name of a compiled function, for messages."""

ops = keras.ops
"""Functions that measure tensors."""


def check() -> None:
    """This backend is built."""


__all__ = [
    "CAPTURES_VARIABLES",
    "COMPILED",
    "EACH_WORKER_KNOWS_ALL",
    "FRAMES",
    "Block",
    "Kept",
    "Reader",
    "Store",
    "by_replica",
    "check",
    "check_strategy",
    "compiled",
    "computed_from",
    "counted_each",
    "derived",
    "gradient_measured",
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
    "key",
    "measure_once",
    "measured_each",
    "measured_first",
    "on_host",
    "ops",
    "outermost_graph",
    "outlasting",
    "replicas",
    "returning_records",
    "run_own",
    "run_step",
    "running_now",
    "same_but_new",
    "second_trace",
    "sources_noted",
    "state_given",
    "state_returned",
    "strategies",
    "sums_over_replicas",
    "uncounted",
    "values_before",
    "within_execution",
    "workers",
]

"""The JAX backend, see `protocol.Backend`."""

import keras

from activation_monitor.recording.backends.jax.graphs import (
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
from activation_monitor.recording.backends.jax.own_steps import (
    Block,
    run_own,
    second_trace,
    values_before,
)
from activation_monitor.recording.backends.jax.processes import (
    check_strategy,
    is_chief,
    workers,
)
from activation_monitor.recording.backends.jax.steps import (
    compiled,
    is_out_of_memory,
    outlasting,
    returning_records,
    run_step,
    state_given,
    state_returned,
    uncounted,
    within_execution,
)
from activation_monitor.recording.backends.jax.stores import (
    Kept,
    Reader,
    Store,
    counted_each,
    measure_once,
    measured_each,
    on_host,
)
from activation_monitor.recording.backends.one_replica import (
    by_replica,
    in_replica,
    replicas,
    strategies,
    sums_over_replicas,
)

FRAMES = ("jax",)
"""Packages whose frames stand between the user's line and ours in a stack."""

CAPTURES_VARIABLES = False
"""Whether a compiled function reads variables as they are at each call."""

EACH_WORKER_KNOWS_ALL = True
"""Whether each process has the records of all that train together."""

COMPILED = "jax.jit"
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

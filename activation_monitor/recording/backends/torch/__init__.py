"""The PyTorch backend, see `protocol.Backend`."""

# The environment of a type checker may have no PyTorch.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import torch

from activation_monitor.recording.backends.held import (
    Block,
    returning_records,
    run_own,
    state_given,
    state_returned,
    values_before,
    within_execution,
)
from activation_monitor.recording.backends.one_replica import (
    by_replica,
    in_replica,
    replicas,
    strategies,
    sums_over_replicas,
)
from activation_monitor.recording.backends.torch import ops
from activation_monitor.recording.backends.torch.graphs import (
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
from activation_monitor.recording.backends.torch.processes import (
    check_strategy,
    is_chief,
    workers,
)
from activation_monitor.recording.backends.torch.steps import (
    compiled,
    is_out_of_memory,
    outlasting,
    run_step,
    second_trace,
    uncounted,
)
from activation_monitor.recording.backends.torch.stores import (
    Kept,
    Reader,
    Store,
    counted_each,
    measure_once,
    measured_each,
    on_host,
)

FRAMES = ("torch",)
"""Packages whose frames stand between the user's line and ours in a stack."""

CAPTURES_VARIABLES = True
"""Whether a compiled function reads variables as they are at each call."""

EACH_WORKER_KNOWS_ALL = False
"""Whether each process has the records of all that train together."""

COMPILED = "torch.compile"
"""The name of a compiled function, for messages."""


def check() -> None:
    """This backend is built.

    Raises:
        NotImplementedError: If PyTorch is too old.
    """
    if not hasattr(torch.compiler, "set_stance"):
        raise NotImplementedError(
            "activation_monitor needs PyTorch 2.6 or later. Received: PyTorch "
            f"{torch.__version__}. Upgrade it: `pip install -U torch`."
        )


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

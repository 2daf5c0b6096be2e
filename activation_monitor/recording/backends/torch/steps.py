"""Steps, which run eagerly when they are sampled."""

# The environment of a type checker may have no PyTorch.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from collections.abc import Callable, Sequence
from typing import Any

import torch

from activation_monitor.recording.backends.torch import graphs


def run_step(step: Callable, *args: Any) -> Any:
    """Run a sampled step. Its records are in their stores when it returns.

    Args:
        step: The step.
        *args: Its arguments.

    Returns:
        The return value of the step.
    """
    with graphs.eagerly():
        return step(*args)


def outlasting(tensors: Sequence[Any]) -> list:
    """Copies of the tensors, which a step changes in place."""
    return [tensor.detach().clone() for tensor in tensors]


def compiled(function: Callable) -> Callable:
    """A function of ours. It runs eagerly: to compile it takes seconds."""
    return graphs.without_gradients(function)


def second_trace(step: Callable) -> tuple[Callable, bool, bool]:
    """A user's step, which runs eagerly where it is measured, see `graphs.sources_noted`.

    Returns:
        The step; False and False: nothing is traced.
    """
    return step, False, False


def uncounted(function: Callable) -> Callable:
    """PyTorch does not warn about retracing."""
    return function


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device could not hold a sampled step."""
    other = "DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED"
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(name in str(error) for name in other)
    )

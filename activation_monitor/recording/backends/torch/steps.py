"""Steps, which run eagerly when they are sampled."""

# The environment of a type checker may have no PyTorch.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from collections.abc import Callable, Sequence
from typing import Any

import torch

from activation_monitor.recording.backends.torch.graphs import without_gradients


def run_step(step: Callable, *args: Any) -> Any:
    """Run a sampled step. Its records are in their stores when it returns.

    Args:
        step: The step.
        *args: Its arguments.

    Returns:
        The return value of the step.
    """
    return step(*args)


def returning_records(step: Callable) -> Callable:
    """The step, which puts its records into stores."""
    return step


def within_execution(step: Callable) -> Callable:
    """The step, which puts its records into stores."""
    return step


def state_given(args: Sequence[Any]) -> None:
    """None: variables hold their values."""
    del args


def state_returned(result: Any) -> None:
    """None: variables hold their values."""
    del result


def outlasting(tensors: Sequence[Any]) -> list:
    """Copies of the tensors, which a step changes in place."""
    return [tensor.detach().clone() for tensor in tensors]


def compiled(function: Callable) -> Callable:
    """A function of ours. It runs eagerly: to compile it takes seconds."""
    return without_gradients(function)


def check_loop() -> None:
    """Custom loops can be measured."""


def second_trace(step: Callable) -> tuple[Callable, bool, bool]:
    """A user's step as it runs eagerly.

    Args:
        step: A function, which `torch.compile` may have returned.

    Returns:
        The function; False and False: nothing is traced.
    """
    return uncounted(step), False, False


def uncounted(function: Callable) -> Callable:
    """A step as it runs eagerly, also if `torch.compile` has returned it: layers can be
    tapped in code that runs, and not in code that is compiled."""
    return getattr(function, "_torchdynamo_orig_callable", function)


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device could not hold a sampled step."""
    return isinstance(error, torch.OutOfMemoryError)

"""The processes that train together, and the one that writes files."""

# The environment of a type checker may have no PyTorch.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from typing import Any

import torch.distributed


def check_strategy(strategy: Any) -> None:
    """Check that models can be measured.

    Raises:
        NotImplementedError: If several processes train together.
    """
    if workers(strategy) > 1:
        raise NotImplementedError(
            "models that several processes of torch.distributed train together cannot be "
            "measured yet"
        )


def _is_distributed():
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def workers(strategy: Any) -> int:
    """The number of processes that train together."""
    del strategy
    return torch.distributed.get_world_size() if _is_distributed() else 1


def is_chief(strategy: Any) -> bool:
    """Whether this process writes files."""
    del strategy
    return not _is_distributed() or torch.distributed.get_rank() == 0

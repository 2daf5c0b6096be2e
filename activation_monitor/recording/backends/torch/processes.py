"""The processes that train together, and the one that writes files."""

# The environment of a type checker may have no PyTorch.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from collections.abc import Sequence
from typing import Any

import torch.distributed


def strategies(models: Sequence[Any]) -> list:
    """There is one way: each process runs its own step."""
    del models
    return [None]


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


def in_replica() -> bool:
    """Whether this code runs for one replica: always, there is one."""
    return True


def replicas() -> int:
    """The number of replicas of this process."""
    return 1


def sums_over_replicas(tensors: list) -> list:
    """The sums over all replicas, which are the tensors."""
    return tensors


def by_replica(variable: Any) -> tuple:
    """The only value of a variable."""
    return (variable,)


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

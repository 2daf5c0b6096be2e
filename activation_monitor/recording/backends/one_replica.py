"""Replicas, where each process runs one program: on JAX and PyTorch."""

from collections.abc import Sequence
from typing import Any


def strategies(models: Sequence[Any]) -> list:
    """There is one way to distribute models."""
    del models
    return [None]


def in_replica() -> bool:
    """Whether this code runs for one replica: always, there is one program."""
    return True


def replicas() -> int:
    """The number of replicas in this process."""
    return 1


def sums_over_replicas(tensors: list) -> list:
    """The sums over all replicas, which are the tensors."""
    return tensors


def by_replica(variable: Any) -> tuple:
    """The only value of a variable."""
    return (variable,)

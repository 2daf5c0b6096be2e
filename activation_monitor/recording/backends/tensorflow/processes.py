"""The processes that train together, and the one that writes files."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


def strategies(models: Sequence[keras.Model]) -> list[tf.distribute.Strategy]:
    """The distribution strategies of these models, each once."""
    found = [model.distribute_strategy for model in models]
    return list({id(strategy): strategy for strategy in found}.values())


def check_strategy(strategy: tf.distribute.Strategy) -> None:
    """Check that models of a distribution strategy can be measured.

    Args:
        strategy: The strategy.

    Raises:
        NotImplementedError: If they cannot be measured.
    """
    mirrored = tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy
    # Its workers run their steps independently. It reports one replica in sync and may
    # have no cluster resolver, so it needs a check of its own.
    independent = isinstance(strategy, tf.distribute.ParameterServerStrategy)
    single = strategy.num_replicas_in_sync == 1 and strategy.cluster_resolver is None
    if isinstance(strategy, mirrored) or (single and not independent):
        return
    raise NotImplementedError(
        f"models of a {type(strategy).__name__} cannot be measured; use a "
        "MirroredStrategy or a MultiWorkerMirroredStrategy"
    )


def in_replica() -> bool:
    """Whether this code runs for one replica, and not between them."""
    return tf.distribute.get_replica_context() is not None


def replicas() -> int:
    """The number of replicas that train together with the one that runs this code."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def sums_over_replicas(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """The sums over all replicas, in the graph of one of them."""
    if replicas() == 1 or not tensors:
        return tensors
    together: Any = tf.distribute.get_replica_context()
    return together.all_reduce(tf.distribute.ReduceOp.SUM, tensors)


def by_replica(variable: Any) -> tuple:
    """The values of a variable in all replicas of this process, or its only value."""
    if isinstance(variable, tf.distribute.DistributedValues):
        return tuple(one.read_value() for one in variable.values)
    return (variable,)


def workers(strategy: tf.distribute.Strategy) -> int:
    """The number of processes that train together.

    An evaluator does not train with others: it counts as one process.
    """
    resolver = strategy.cluster_resolver
    if resolver is not None and resolver.task_type == "evaluator":
        return 1
    cluster = resolver.cluster_spec().as_dict() if resolver else {}
    return max(sum(len(cluster.get(job, ())) for job in ("chief", "worker")), 1)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes files.

    The chief writes files, or the first worker of a cluster without a chief. An evaluator
    writes its own files.
    """
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type in (None, "", "evaluator"):
        return True
    first = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (first, 0)

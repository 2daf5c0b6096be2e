"""Which processes train together, and which of them writes files."""

from collections.abc import Sequence

import keras
import tensorflow as tf


def strategies(models: Sequence[keras.Model]) -> list[tf.distribute.Strategy]:
    """The distribution strategies of these models, each once."""
    found = [model.distribute_strategy for model in models]
    return list({id(strategy): strategy for strategy in found}.values())


def check_strategy(strategy: tf.distribute.Strategy) -> None:
    """Say early whether a model of this distribution strategy can be measured.

    Raises:
        NotImplementedError: If it cannot.
    """
    mirrored = tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy
    # Its workers run a step each, when they like; in sync there is one, and `strategy`
    # does not tell of its cluster.
    each_alone = isinstance(strategy, tf.distribute.ParameterServerStrategy)
    by_itself = strategy.num_replicas_in_sync == 1 and strategy.cluster_resolver is None
    if isinstance(strategy, mirrored) or (by_itself and not each_alone):
        return
    raise NotImplementedError(
        f"models of a {type(strategy).__name__} cannot be measured, those of a "
        "MirroredStrategy or MultiWorkerMirroredStrategy can"
    )


def workers(strategy: tf.distribute.Strategy) -> int:
    """How many processes train together; an evaluator is by itself."""
    resolver = strategy.cluster_resolver
    if resolver is not None and resolver.task_type == "evaluator":
        return 1
    cluster = resolver.cluster_spec().as_dict() if resolver else {}
    return max(sum(len(cluster.get(job, ())) for job in ("chief", "worker")), 1)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes files: the chief does, or the first worker if there is
    none; and an evaluator, which is by itself."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type in (None, "", "evaluator"):
        return True
    first = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (first, 0)

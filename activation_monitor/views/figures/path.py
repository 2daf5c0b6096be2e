"""Where layers stand along depth."""

import numbers
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from activation_monitor.analysis.layer_graph import LayerGraph
from activation_monitor.analysis.snapshot import Recording, Snapshot


class Path(NamedTuple):
    """The layers of a snapshot along depth.

    Attributes:
        graph: Who feeds whom.
        x: Place of every layer, `(layers,)`: its depth, and between two depths one after
            another what has the same. NaN for what was not measured.
        trunk: Rows that every path to the deepest output passes, in order.
        beside: The other rows that were measured, in order.
    """

    graph: LayerGraph
    x: np.ndarray
    trunk: list[int]
    beside: list[int]


def path(snapshot: Snapshot) -> Path:
    """Place the layers of a snapshot along depth."""
    graph = LayerGraph(snapshot)
    x = np.full(len(snapshot.layers), np.nan)
    at_depth, placed = Counter(int(graph.depth[row]) for row in graph.order), Counter()
    for row in graph.order:
        depth = int(graph.depth[row])
        x[row] = depth + placed[depth] / at_depth[depth]
        placed[depth] += 1
    trunk = []
    if graph.ends:
        whole = graph.paths_to(max(graph.ends, key=lambda end: graph.depth[end]))[0]
        trunk = graph.trunk(whole, whole)
    beside = [row for row in graph.order if row not in set(trunk)]
    return Path(graph, x, trunk, beside)


def at_steps(
    recording: Recording, steps: Sequence[int] | int, where: str
) -> list[Snapshot]:
    """Of each of these steps the last snapshot up to it, or the first one; each once.

    Args:
        recording: With a snapshot at least.
        steps: One or several.
        where: Who asks, for the message.

    Raises:
        ValueError: If these are no steps, or none.
    """
    asked = [steps] if isinstance(steps, numbers.Real) else steps
    asked = [*asked] if isinstance(asked, Iterable) else []
    if not asked or not all(isinstance(step, numbers.Real) for step in asked):
        raise ValueError(
            f"{where}: `steps` must be a step or a list of steps, such as [0, 100]. "
            f"Received: steps={steps!r}."
        )
    return list({s.step: s for s in (_at_step(recording, step) for step in asked)}.values())


def _at_step(recording, step):
    before = [snapshot for snapshot in recording if snapshot.step <= step]
    return before[-1] if before else recording[0]


def check(recording: Recording, where: str) -> None:
    """Refuse a recording without snapshots.

    Raises:
        ValueError: If nothing was measured.
    """
    if not len(recording):
        raise ValueError(
            f"{where}: expected a Recording with a snapshot at least. Received: an empty "
            "one. Nothing has been measured yet: draw the figure after the first sampled "
            "step, or check the log folder."
        )

"""Where layers stand along depth."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from activation_monitor.analysis.layer_graph import LayerGraph
from activation_monitor.analysis.snapshot import History, Snapshot


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


def at_step(history: History, step: int) -> Snapshot:
    """The last snapshot up to a step; the first one if there is none so early."""
    before = [snapshot for snapshot in history if snapshot.step <= step]
    return before[-1] if before else history[0]


def check(history: History, where: str) -> None:
    """Refuse a history without snapshots.

    Raises:
        ValueError: If nothing was measured.
    """
    if not len(history):
        raise ValueError(
            f"{where}: expected a History with a snapshot at least. Received: an empty "
            "one. Nothing has been measured yet: draw the figure after the first sampled "
            "step, or check the log folder."
        )

"""The places of the layers along depth."""

import itertools
import numbers
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from activation_monitor.analysis.layer_graph import LayerGraph, graph_of
from activation_monitor.analysis.snapshot import Recording, Snapshot


class Path(NamedTuple):
    """The layers of a snapshot along depth.

    Attributes:
        graph: The connections of the layers.
        x: Place of each layer, an array `(layers,)`: its depth, plus a fraction that
            separates layers of equal depth. NaN for layers that were not measured.
        trunk: Rows of the layers that every path to the deepest output passes, in order.
        beside: Rows of the other layers that were measured, in order.
    """

    graph: LayerGraph
    x: np.ndarray
    trunk: list[int]
    beside: list[int]


def path(snapshot: Snapshot) -> Path:
    """Place the layers of a snapshot along depth.

    Args:
        snapshot: The snapshot whose layers are placed.
    """
    graph = graph_of(snapshot)
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


def stretches(path: Path, rows: Sequence[int], having: np.ndarray) -> list[list[int]]:
    """The parts of a line through layers of the trunk that a line may join.

    Neighbours on the trunk are joined. Layers of the trunk between two others are passed if
    they do not have the quantity, and no layer beside the trunk that has it is between the
    two: a line there would show a trend that was not measured.

    Args:
        path: The layers along depth.
        rows: Rows of layers of the trunk, in order.
        having: Whether each layer of the snapshot has the quantity, `(layers,)`.
    """
    place = {row: i for i, row in enumerate(path.trunk)}
    beside = path.x[[row for row in path.beside if having[row]]]
    found = [[*rows[:1]]]
    for last, row in itertools.pairwise(rows):
        passed = path.trunk[place[last] + 1 : place[row]]
        between = (path.x[last] < beside) & (beside < path.x[row])
        if passed and (having[passed].any() or between.any()):
            found.append([])
        found[-1].append(row)
    return found


def at_steps(
    recording: Recording, steps: Sequence[float] | float, where: str
) -> list[Snapshot]:
    """For each step the last snapshot up to it, or else the first snapshot; of repeats the
    last, because the last step asked for is the one in front.

    Args:
        recording: A recording with at least one snapshot.
        steps: A step or several.
        where: The function that the user called, for messages.

    Raises:
        ValueError: If `steps` is empty or holds something that is not a number.
    """
    asked = [steps] if isinstance(steps, numbers.Real) else steps
    asked = [*asked] if isinstance(asked, Iterable) else []
    if not asked or not all(isinstance(step, numbers.Real) for step in asked):
        raise ValueError(
            f"{where}: `steps` must be a step or a list of steps, such as [0, 100]. "
            f"Received: steps={steps!r}."
        )
    found = {}
    for snapshot in (_at_step(recording, step) for step in asked):
        found.pop(snapshot.step, None)
        found[snapshot.step] = snapshot
    return [*found.values()]


def _at_step(recording, step):
    before = [snapshot for snapshot in recording if snapshot.step <= step]
    return before[-1] if before else recording[0]


def check(recording: Recording, where: str) -> None:
    """Raise an error for a recording without snapshots.

    Args:
        recording: The recording to check.
        where: The function that the user called, for messages.

    Raises:
        ValueError: If the recording is empty.
    """
    if not len(recording):
        raise ValueError(
            f"{where}: expected a Recording with at least one snapshot. Received: an empty "
            "one, because nothing has been measured yet. Draw the figure after the first "
            "sampled step, or check the log folder."
        )

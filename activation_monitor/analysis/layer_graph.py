"""The layer graph of a snapshot: order, depth, and the trunk on the way to each end."""

from collections.abc import Sequence

import numpy as np

from activation_monitor.analysis.shown import count, one_line
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot


def normalizes(layer: LayerInfo) -> bool:
    """Whether a layer is a normalization, or an unmeasured normalization is before it."""
    return layer.kind == "normalization" or layer.normalized


class LayerGraph:
    """Which tensor is computed from which, as read from the traced graph.

    Args:
        layers: The `LayerInfo`s of a snapshot.
        called: Whether each of them was called, so that its output was measured.

    Attributes:
        layers, called: As given; all rows below are indices of them.
        order: Rows that were measured, parents first.
        parents, children: Parents and children of each row.
        depth: Weight layers on the longest path up to each row, `(layers,)`.
        ends: Rows without children: the network's outputs.
    """

    def __init__(self, layers: Sequence[LayerInfo], called: Sequence[bool]):
        # Inside a loop the order of calls is not the data path: the output of the loop's
        # layer is tapped outside. If nothing was traced, only the order is known.
        anything_traced = any(layer.traced for layer in layers)
        alive = [
            (layer.traced or not anything_traced) and was_called
            for layer, was_called in zip(layers, called, strict=True)
        ]
        self.layers = layers
        self.called = called
        self.parents = [
            [p for p in layer.parents if alive[p]] if alive[i] else []
            for i, layer in enumerate(layers)
        ]
        self.children: list[list[int]] = [[] for _ in layers]
        for row, parents in enumerate(self.parents):
            for parent in parents:
                self.children[parent].append(row)
        self.order = self._in_order([row for row in range(len(layers)) if alive[row]])
        self.ends = [row for row in self.order if not self.children[row]]
        self.depth = np.zeros(len(layers), int)
        self._sources: dict[int, frozenset[int]] = {}
        for row in self.order:
            deepest = max((self.depth[p] for p in self.parents[row]), default=0)
            self.depth[row] = deepest + (layers[row].kind == "weight")
            above = [self._sources[p] for p in self.parents[row]]
            self._sources[row] = frozenset().union(*above) or frozenset([row])

    @one_line
    def __repr__(self) -> str:
        size = f"{count(len(self.layers), 'layer')}, depth {max(self.depth, default=0)}"
        ends = ", ".join(self.layers[end].name for end in self.ends)
        return f"of {size}, to {ends or 'no end'}"

    def paths_to(self, end: int) -> list[frozenset[int]]:
        """The parts of the graph before an end that have a trunk of their own.

        Args:
            end: One of `ends`.

        Returns:
            The whole graph before the end; and, for a network with several inputs, each
            part that only one of them feeds.
        """
        leads = {end}
        for row in reversed(self.order):
            if row in leads:
                leads.update(self.parents[row])
        towers = {self._sources[row] for row in leads if len(self._sources[row]) == 1}
        parts = [frozenset(leads)]
        if len(towers) > 1:
            parts += [
                frozenset(row for row in leads if self._sources[row] == tower)
                for tower in sorted(towers, key=min)
            ]
        return parts

    def trunk(self, part: frozenset[int], whole: frozenset[int]) -> list[int]:
        """The cut vertices of a part: rows that every path through it passes, in order.

        Args:
            part: One of the parts that `paths_to` returns for an end.
            whole: The first of these parts, the whole graph before the end. A path may
                leave the part at any row with a child in the whole graph.
        """
        order = [row for row in self.order if row in part]
        children = {row: [c for c in self.children[row] if c in whole] for row in order}
        # A cut vertex lies on all paths: the numbers of paths above and below it multiply
        # to the number of all paths.
        above: dict[int, int] = {}
        below: dict[int, int] = {}
        for row in order:
            above[row] = sum(above[p] for p in self.parents[row] if p in part) or 1
        for row in reversed(order):  # a child outside the part ends a path
            below[row] = sum(below.get(c, 1) for c in children[row]) or 1
        sources = [row for row in order if not any(p in part for p in self.parents[row])]
        paths = sum(below[row] for row in sources)
        return [row for row in order if above[row] * below[row] == paths]

    def feeds_weight(self) -> list[bool]:
        """Whether there is a weight layer after each row."""
        feeds = [False] * len(self.layers)
        for row in reversed(self.order):
            feeds[row] = any(
                self.layers[c].kind == "weight" or feeds[c] for c in self.children[row]
            )
        return feeds

    def before(self, row: int) -> set[int]:
        """All rows that lead to this one."""
        found: set[int] = set()
        todo = list(self.parents[row])
        while todo:
            parent = todo.pop()
            if parent not in found:
                found.add(parent)
                todo.extend(self.parents[parent])
        return found

    def weight_before(self, row: int) -> int | None:
        """The row of the weight layer that computes a row, which may be the row itself.

        None if there is no such layer, or several layers compute the row together.
        """
        while self.layers[row].kind != "weight":
            if len(self.parents[row]) != 1:
                return None
            (row,) = self.parents[row]
        return row

    def embedding_before(self, row: int) -> int | None:
        """The row of the embedding that alone leads to a row, without weights between."""
        while len(self.parents[row]) == 1:
            (row,) = self.parents[row]
            if self.layers[row].kind == "embedding":
                return row
            if self.layers[row].kind in ("weight", "normalization"):
                return None
        return None

    def _in_order(self, rows: list[int]) -> list[int]:
        """The rows with parents first, otherwise in the order of the calls."""
        order: list[int] = []
        placed: set[int] = set()
        for start in rows:
            todo = [start]
            while todo:
                missing = [p for p in self.parents[todo[-1]] if p not in placed]
                if missing:
                    todo.extend(missing)
                    continue
                row = todo.pop()
                if row not in placed:
                    placed.add(row)
                    order.append(row)
        return order


_recent: list[LayerGraph] = []
_RECENT = 8
"""Number of graphs that are kept for `graph_of`."""


def graph_of(snapshot: Snapshot) -> LayerGraph:
    """The layer graph of a snapshot; the same object for snapshots with the same layers.

    Args:
        snapshot: The snapshot.
    """
    called = (snapshot.field("count") > 0).tolist()
    for graph in _recent:
        # By identity: the snapshots of a run share their layers, and to compare them would
        # take longer than to make the graph.
        if graph.layers is snapshot.layers and graph.called == called:
            return graph
    graph = LayerGraph(snapshot.layers, called)
    _recent[:] = [graph, *_recent][:_RECENT]
    return graph

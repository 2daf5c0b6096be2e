"""Which tensors are compared: the trunk, cut into segments at normalizations.

The *trunk* is formed by the tensors that every path from the model's inputs to its outputs
passes (cut vertices of the traced graph), from the output of the first weight layer to the
input of the last one: the output of the head is a prediction and not a signal. In a network
with several inputs, the way from each input to where they meet has a trunk of its own.

A normalization on the trunk sets the size of the signal: there a `Segment` ends and the
next one begins. The part of a segment along which growth is read is a
`growth.GrowthRange`. What does not reach the head is not judged: a pre-norm residual
stream, for example, may grow without harm, because a normalization ends it.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from activation_monitor.analysis.growth import is_operation
from activation_monitor.analysis.layer_graph import LayerGraph, normalizes
from activation_monitor.analysis.links import Link
from activation_monitor.analysis.shown import count, one_line
from activation_monitor.analysis.snapshot import Snapshot


@dataclass(frozen=True)
class Segment:
    """A part of the trunk without normalization.

    Attributes:
        rows: Rows of the snapshot that are compared, in order.
        open: Whether it reaches the head.
        normalized: Whether it begins at a normalization.
        links: Its weight layers in order, if they form a chain; empty for a residual
            stream.
        branches: The weight layers on a residual stream and on its branches, in order;
            empty for a chain.
        backward: Decades by which a gradient grows from the input of the last link to the
            output of the first one, as the weights predict; NaN if something is not known.
        independence: For each row, `log10` of the share of the rms that differs from sample
            to sample (within-unit std over rms); NaN for fewer than two samples.
    """

    rows: tuple[int, ...]
    open: bool
    normalized: bool
    links: tuple[Link, ...]
    branches: tuple[Link, ...]
    backward: float
    independence: tuple[float, ...]

    @one_line
    def __repr__(self) -> str:
        weights = count(len(self.links or self.branches), "weight layer")
        parts = [f"of {count(len(self.rows), 'tensor')}", weights]
        parts += ["residual"] if self.branches else []
        parts += ["normalized"] if self.normalized else []
        return ", ".join(parts if self.open else [*parts, "closed"])


class _Trunk(NamedTuple):
    """The compared rows of one part of the graph.

    Attributes:
        segments: Its rows, cut at normalizations; some may be empty.
        open: Whether the last segment reaches the head.
    """

    segments: list[list[int]]
    open: bool

    @property
    def rows(self) -> list[int]:
        """All its rows, in order."""
        return [row for rows in self.segments for row in rows]


@functools.lru_cache(maxsize=8)  # graphs are shared by the snapshots of a run
def segment_rows(graph: LayerGraph) -> tuple[tuple[tuple[int, ...], bool], ...]:
    """The compared rows of all trunks, cut at normalizations.

    Returns:
        For each segment its rows, and whether it reaches the head.
    """
    return tuple(
        (tuple(rows), rows is trunk.segments[-1] and trunk.open)
        for end in graph.ends
        for trunk in _trunks_to(end, graph)
        for rows in trunk.segments
        if rows
    )


@functools.lru_cache(maxsize=8)
def whole_trunks(graph: LayerGraph) -> tuple[tuple[int, ...], ...]:
    """The compared rows from each input to each output, normalizations or not.

    Returns:
        For each way its rows, in the order of the data path.
    """
    found: dict[tuple[int, ...], None] = {}
    for end in graph.ends:
        whole, *towers = (trunk.rows for trunk in _trunks_to(end, graph))
        for tower in towers or [[]]:
            found[tuple(dict.fromkeys([*tower, *whole]))] = None
    return tuple(found)


def _trunks_to(end: int, graph: LayerGraph) -> Iterator[_Trunk]:
    """The trunk on the way to an end, and those of the towers that lead to it."""
    feeds_weight = graph.feeds_weight()
    whole, *towers = graph.paths_to(end)
    shared = [graph.layers[row] for row in graph.trunk(whole, whole)]
    normalized = any(normalizes(layer) for layer in shared)
    for part in (whole, *towers):
        segments: list[list[int]] = [[]]
        for row in graph.trunk(part, whole):
            layer = graph.layers[row]
            children = [graph.layers[c] for c in graph.children[row] if c in part]
            only_normalized = children and all(
                child.kind == "normalization" for child in children
            )
            if normalizes(layer):
                segments.append([])
            if graph.depth[row] >= 1 and feeds_weight[row] and not only_normalized:
                segments[-1].append(row)
        # A normalization after the place where towers meet ends their segments too.
        yield _Trunk(segments, part is whole or not normalized)


def segment(
    rows: tuple[int, ...],
    is_open: bool,
    snapshot: Snapshot,
    graph: LayerGraph,
    links: dict[int, Link],
    rms: np.ndarray,
) -> Segment:
    """Describe a segment.

    Args:
        rows: Its rows, one of `segment_rows`.
        is_open: Whether it reaches the head.
        snapshot: The snapshot.
        graph: The layer graph.
        links: All weight layers, by row.
        rms: Rms of each output, `(layers,)`; NaN if not all of it is finite.
    """
    depths = [int(graph.depth[row]) for row in rows]
    found = [
        (depth, links[row])
        for row, depth in zip(rows, depths, strict=True)
        if graph.layers[row].kind == "weight" and row in links
    ]
    # The first one may follow a normalization, whose depth is that of the layer before.
    start = found[0][0] if found and found[0][0] <= depths[0] + 1 else depths[0]
    consecutive = [depth for depth, _ in found] == list(range(start, depths[-1] + 1))
    chain = tuple(link for _, link in found) if consecutive else ()
    branches: tuple[Link, ...] = ()
    if not consecutive:
        here = (graph.before(rows[-1]) | set(rows)) - graph.before(rows[0])
        branches = tuple(links[row] for row in graph.order if row in here & links.keys())
    with np.errstate(divide="ignore", invalid="ignore"):
        within = snapshot.statistic("within_std") / snapshot.statistic("rms")
        within[snapshot.field("samples") < 2] = np.nan
        within[snapshot.field("nonfinite") > 0] = np.nan
        independence = np.log10(within[list(rows)])
    return Segment(
        rows=rows,
        open=is_open,
        normalized=normalizes(graph.layers[rows[0]]),
        links=chain,
        branches=branches,
        backward=_backward(rows, chain, graph, rms),
        independence=tuple(float(value) for value in independence),
    )


def _backward(
    rows: tuple[int, ...], chain: tuple[Link, ...], graph: LayerGraph, rms: np.ndarray
) -> float:
    """Decades by which a gradient grows, unless something of an unknown kind is passed."""
    walk = [row for row in rows if 0 < rms[row] < math.inf]
    through_operation = any(
        is_operation(graph, before, row, rms) for before, row in itertools.pairwise(walk)
    )
    if not chain or through_operation or any(link.contradicted for link in chain[1:]):
        return math.nan
    return sum(link.backward for link in chain[1:])

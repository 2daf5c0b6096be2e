"""The size of the signal along depth: where it is compared, and what chance explains.

Compared are the tensors of the *trunk*, those that every path from the model's inputs
to its outputs passes (cut vertices of the traced graph), from the output of the first
weight layer to what the last one is given: the head's own output is a prediction, no
signal. A normalization on the trunk sets the size anew, and so does an activation
function with a size of its own (`_OFFSET`, `_LIMITS`): there a segment ends and the next
one begins. Only a segment that reaches the head (`open`) is judged: what a
normalization ends, a pre-norm residual stream for example, may grow without harm.
"""

import collections
import itertools
import math
from dataclasses import dataclass

import numpy as np

from activation_monitor.analysis import theory
from activation_monitor.analysis.snapshot import Snapshot

# An activation function with phi(0) != 0 puts out numbers of a size of its own.
_OFFSET = ("sigmoid", "hard_sigmoid", "softmax", "softplus", "exponential", "log_softmax")

# A bounded one does so where it is given more than its limit.
_LIMITS = {"tanh": 1.0, "softsign": 1.0, "hard_tanh": 1.0, "relu6": 6.0}

_OPERATION = 0.5
"""Decades: between two weight layers no activation function changes the size by more (SiLU
halves it, 0.3). A sum over an axis, a rescaling, a hand-written normalization do, and it is
not the weights' doing."""


@dataclass(frozen=True)
class Point:
    """One tensor of the trunk.

    Attributes:
        row: Its index in the snapshot.
        name: Its layer's name.
        depth: Weight layers on the longest path up to here, this one included.
        rms: Of the tensor; NaN if not all of it is finite.
    """

    row: int
    name: str
    depth: int
    rms: float


@dataclass(frozen=True)
class Segment:
    """A stretch of the trunk without normalization, one point for each depth.

    Attributes:
        points: In the order of depth.
        open: Whether it reaches the head.
        measured: Of `points`, those up to the first that is not finite or is zero.
        decades: `log10` of the last measured rms over the first, less what operations
            other than weight layers and activation functions did. NaN for fewer than two.
        chance_mean, chance_sd: Mean and standard deviation of `decades` over the draw of
            the weights if the network is well scaled (facts: theory.chance).
    """

    points: tuple[Point, ...]
    open: bool
    measured: tuple[Point, ...]
    decades: float
    chance_mean: float
    chance_sd: float

    @property
    def layers(self) -> int:
        """Weight layers between the first and the last measured point."""
        return self.measured[-1].depth - self.measured[0].depth if self.measured else 0

    @property
    def growth(self) -> float:
        """Geometric mean of the signal gain per weight layer."""
        return 10.0 ** (self.decades / self.layers) if self.layers else math.nan

    def interval(self, z: float = 3.0) -> tuple[float, float]:
        """Growth that a well scaled network shows within `z` standard deviations."""
        if not self.layers:
            return math.nan, math.nan
        ends = (
            self.chance_mean - z * self.chance_sd,
            self.chance_mean + z * self.chance_sd,
        )
        return tuple(10.0 ** (end / self.layers) for end in ends)


@dataclass(frozen=True)
class DepthProfile:
    """The trunk of one snapshot.

    Attributes:
        step: Of the snapshot.
        depths: Depth of every layer of the snapshot, `(layers,)`.
        segments: In the order of the data path.
    """

    step: int
    depths: np.ndarray
    segments: tuple[Segment, ...]

    @property
    def main(self) -> Segment | None:
        """The longest segment that reaches a head, if any has two weight layers."""
        found = [s for s in self.segments if s.open and s.layers >= 1]
        return max(found, key=lambda segment: segment.layers, default=None)


def depth_profile(snapshot: Snapshot) -> DepthProfile:
    """Read a snapshot along depth, on the way to each of the network's ends.

    Args:
        snapshot: With layers whose parents are known.
    """
    graph = _Graph(snapshot)
    rms = np.where(snapshot.field("nonfinite") > 0, np.nan, snapshot.statistic("rms"))
    segments = {}
    for end in graph.ends:
        for rows, reaches_head in _stretches(graph.trunk(end), snapshot.layers, rms):
            segment = _segment(rows, reaches_head, snapshot.layers, rms, graph.depth)
            segments.setdefault((segment.points, segment.open), segment)
    return DepthProfile(snapshot.step, graph.depth, tuple(segments.values()))


def _stretches(trunk, layers, rms):
    """Cut the trunk where something sets the size anew; the last part reaches the head."""
    parts = [[]]
    for before, row in zip([None, *trunk], trunk, strict=False):
        layer = layers[row]
        limit = _LIMITS.get(layer.activation, math.inf)
        if (
            layer.kind == "normalization"
            or layer.normalized
            or layer.activation in _OFFSET
            or (before is not None and rms[before] > limit)
        ):
            parts.append([])
        parts[-1].append(row)
    return [(rows, rows is parts[-1]) for rows in parts if rows]


def _segment(rows, reaches_head, layers, rms, depths):
    at_depth = collections.defaultdict(list)
    for row in rows:
        at_depth[int(depths[row])].append(row)
    # At each depth, what comes out of the weight layer and what follows it. Pooling
    # changes the size by what it does, not by how anything was initialized.
    shown = {
        depth: [row for row in here if layers[row].kind != "pooling"] or here
        for depth, here in at_depth.items()
    }
    points = tuple(
        Point(
            shown[depth][-1],
            layers[shown[depth][-1]].name,
            depth,
            float(rms[shown[depth][-1]]),
        )
        for depth in sorted(shown)
    )
    measured = tuple(
        itertools.takewhile(lambda p: math.isfinite(p.rms) and p.rms > 0, points)
    )
    if len(measured) < 2:
        return Segment(points, reaches_head, measured, math.nan, math.nan, math.nan)

    start, stop = (rows.index(measured[i].row) for i in (0, -1))
    decades = 0.0
    walk = [row for row in rows[start : stop + 1] if rms[row] > 0]  # no NaN, no zero
    for before, row in itertools.pairwise(walk):
        change = math.log10(rms[row] / rms[before])
        same_depth = depths[row] == depths[before]
        if same_depth and (layers[row].kind == "pooling" or abs(change) > _OPERATION):
            continue
        decades += change
    random = [_randomness([layers[row] for row in shown[p.depth]]) for p in measured[1:]]
    law = theory.chance(*zip(*random, strict=True))
    mean, sd = law.mean / math.log(10), math.sqrt(law.variance) / math.log(10)
    return Segment(points, reaches_head, measured, decades, mean, sd)


def _randomness(layers):
    """On what chance turns at one depth: the activation function, and the width."""
    activations = [layer.activation for layer in layers if layer.activation != "linear"]
    return activations[0] if activations else "linear", layers[0].width


class _Graph:
    """The layer graph of a snapshot: depths, and the trunk."""

    def __init__(self, snapshot):
        layers = snapshot.layers
        # Inside a loop the order of calls is no data path: what the loop's layer hands
        # on is tapped outside. If nothing was traced, the order is all there is.
        anything_traced = any(layer.traced for layer in layers)
        alive = [
            (layer.traced or not anything_traced) and count > 0
            for layer, count in zip(layers, snapshot.field("count"), strict=True)
        ]
        self.parents = [
            [p for p in layer.parents if alive[p]] if alive[i] else []
            for i, layer in enumerate(layers)
        ]
        self.children = [[] for _ in layers]
        for row, parents in enumerate(self.parents):
            for parent in parents:
                self.children[parent].append(row)
        self.order = self._in_order([row for row in range(len(layers)) if alive[row]])
        self.ends = [row for row in self.order if not self.children[row]]
        self.layers = layers
        self.depth = np.zeros(len(layers), int)
        for row in self.order:
            deepest = max((self.depth[p] for p in self.parents[row]), default=0)
            self.depth[row] = deepest + (layers[row].kind == "weight")

    def trunk(self, end):
        """What every path from the inputs to this end passes, and is compared."""
        layers, leads = self.layers, {end}
        for row in reversed(self.order):
            if row in leads:
                leads.update(self.parents[row])
        order = [row for row in self.order if row in leads]
        children = {row: [c for c in self.children[row] if c in leads] for row in order}
        # A cut vertex lies on all paths. Their numbers, above and below, multiply to all.
        above, below, feeds_weight = {}, {}, {}
        for row in order:
            above[row] = sum(above[p] for p in self.parents[row]) or 1
        for row in reversed(order):
            below[row] = sum(below[c] for c in children[row]) or 1
            feeds_weight[row] = any(
                layers[c].kind == "weight" or feeds_weight[c] for c in children[row]
            )

        def compared(row):
            only_normalized = all(layers[c].kind == "normalization" for c in children[row])
            return self.depth[row] >= 1 and feeds_weight[row] and not only_normalized

        return [
            row for row in order if above[row] * below[row] == above[end] and compared(row)
        ]

    def _in_order(self, rows):
        """Parents first; among equals, as called."""
        order, placed = [], set()
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

"""The size of the signal along depth: where it is compared, and what chance explains.

Compared are the tensors of the *trunk*, those that every path from the model's inputs
to its outputs passes (cut vertices of the traced graph), from the output of the first
weight layer to what the last one is given: the head's own output is a prediction, no
signal. A normalization on the trunk sets the size anew, so it ends a segment and begins
the next one. Only a segment that reaches the head (`open`) is judged: what a
normalization ends, a pre-norm residual stream for example, may grow without harm.
"""

import collections
import math
from dataclasses import dataclass

import numpy as np

from activation_monitor.analysis import theory
from activation_monitor.analysis.snapshot import Snapshot

# These change the size by what they do, not by how they were initialized.
_NOT_COMPARED = ("pooling",)


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
        decades: `log10` of the last measured rms over the first. NaN for fewer than two.
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
        """The segment that reaches the head, if it has at least two weight layers."""
        found = [s for s in self.segments if s.open and s.layers >= 1]
        return found[-1] if found else None


def depth_profile(snapshot: Snapshot) -> DepthProfile:
    """Read a snapshot along depth.

    Args:
        snapshot: With layers whose parents are known.
    """
    graph = _Graph(snapshot)
    segments, points = [], []
    for row in graph.trunk:
        layer = snapshot.layers[row]
        if layer.kind == "normalization":
            segments.append((points, False))
            points = []
        points.append(row)
    segments.append((points, True))
    rms = snapshot.statistic("rms")
    whole = snapshot.field("nonfinite") == 0

    def point(row):
        size = float(rms[row]) if whole[row] else math.nan
        return Point(row, snapshot.layers[row].name, int(graph.depth[row]), size)

    profile = []
    for rows, reaches_head in segments:
        # At each depth, what is handed on to the next weight layer.
        at_depth = collections.defaultdict(list)
        for row in rows:
            if snapshot.layers[row].kind not in _NOT_COMPARED:
                at_depth[int(graph.depth[row])].append(row)
        chosen = tuple(point(at_depth[depth][-1]) for depth in sorted(at_depth))
        if chosen:
            random = {
                depth: _randomness([snapshot.layers[row] for row in rows_here])
                for depth, rows_here in at_depth.items()
            }
            profile.append(_segment(chosen, reaches_head, random))
    return DepthProfile(snapshot.step, graph.depth, tuple(profile))


def _randomness(layers):
    """On what chance turns at one depth: the activation function, and the width."""
    activations = [layer.activation for layer in layers if layer.activation != "linear"]
    return activations[0] if activations else "linear", layers[0].width


def _segment(points, reaches_head, random):
    measured = []
    for p in points:
        if not (math.isfinite(p.rms) and p.rms > 0):
            break
        measured.append(p)
    decades = mean = sd = math.nan
    if len(measured) >= 2:
        decades = math.log10(measured[-1].rms) - math.log10(measured[0].rms)
        activations, widths = zip(*(random[p.depth] for p in measured[1:]), strict=True)
        law = theory.chance(activations, widths)
        mean, sd = law.mean / math.log(10), math.sqrt(law.variance) / math.log(10)
    return Segment(points, reaches_head, tuple(measured), decades, mean, sd)


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
        order = self._in_order([row for row in range(len(layers)) if alive[row]])

        weight = [layer.kind == "weight" for layer in layers]
        self.depth = np.zeros(len(layers), int)
        above, below = {}, {}  # number of paths from the inputs, and to the outputs
        for row in order:
            deepest = max((self.depth[p] for p in self.parents[row]), default=0)
            self.depth[row] = deepest + weight[row]
            above[row] = sum(above[p] for p in self.parents[row]) or 1
        feeds_weight = {}
        for row in reversed(order):
            below[row] = sum(below[c] for c in self.children[row]) or 1
            feeds_weight[row] = any(
                weight[c] or feeds_weight[c] for c in self.children[row]
            )
        paths = sum(above[row] for row in order if not self.children[row])

        def compared(row):
            onward = self.children[row]
            only_normalized = onward and all(
                layers[c].kind == "normalization" for c in onward
            )
            return self.depth[row] >= 1 and feeds_weight[row] and not only_normalized

        self.trunk = [
            row for row in order if above[row] * below[row] == paths and compared(row)
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

"""Growth of the signal along depth: where it is read, and what chance explains.

An activation function with a size of its own (`_OFFSET`, `_LIMITS`) sets the size of the
signal, as a normalization does. A `GrowthRange` ends there. Only a range that reaches the
head (`open`) is judged.
"""

import collections
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from activation_monitor.analysis import chance
from activation_monitor.analysis.layer_graph import LayerGraph
from activation_monitor.analysis.shown import one_line
from activation_monitor.analysis.snapshot import LayerInfo
from activation_monitor.analysis.thresholds import THRESHOLDS, limit

# An activation function with phi(0) != 0 outputs numbers of a size of its own.
_OFFSET = ("sigmoid", "hard_sigmoid", "softmax", "softplus", "exponential", "log_softmax")

# A bounded one does so where its input is larger than its limit.
_LIMITS = {"tanh": 1.0, "softsign": 1.0, "hard_tanh": 1.0, "relu6": 6.0}

DTYPE_LIMITS = {
    "float16": (2.0**-14, 65504.0),
    "bfloat16": (2.0**-126, (2.0 - 2.0**-7) * 2.0**127),
    "float32": (2.0**-126, (2.0 - 2.0**-23) * 2.0**127),
}
"""Smallest normal and largest finite number of each dtype (IEEE 754; bfloat16 is float32
with 7 bits of mantissa)."""


@dataclass(frozen=True)
class Point:
    """One tensor of the trunk.

    Attributes:
        row: Its index in the snapshot.
        name: Its layer's name.
        depth: Weight layers on the longest path up to here, this one included.
        rms: Its rms; NaN if not all of it is finite.
        sum: Whether several branches are added here. Then it is part of a residual stream
            and not of a chain.
    """

    row: int
    name: str
    depth: int
    rms: float
    sum: bool = False

    @one_line
    def __repr__(self) -> str:
        return f"{self.name} at depth {self.depth}: rms {self.rms:.3g}"


@dataclass(frozen=True)
class Operation:
    """A change of the signal's size that neither weights nor activation functions make.

    For example a sum over an axis, a rescaling, a product or a hand-written normalization.

    Attributes:
        row: Index of the tensor after it.
        name: Name of that tensor.
        before: Name of the tensor before it.
        decades: `log10` of the rms after it over the rms before it.
    """

    row: int
    name: str
    before: str
    decades: float

    @one_line
    def __repr__(self) -> str:
        return f"from {self.before} to {self.name}: {10**self.decades:.3g} times"


@dataclass(frozen=True)
class GrowthRange:
    """A range of the trunk along which growth is read, with one point for each depth.

    Nothing in it has a size of its own.

    Attributes:
        points: In the order of depth.
        open: Whether it reaches the head.
        measured: Those of `points` before the first that is not finite or is zero.
        decades: `log10` of the last measured rms over the first, without the effect of
            operations and of pooling. NaN for fewer than two points.
        chance_mean, chance_sd: Mean and standard deviation of `decades` over the draw of
            the weights, if the network is well scaled (`chance.of_layers`).
        whole: `log10` of the last measured rms over that of the first tensor, with all
            operations but without pooling. NaN if nothing is measured.
        start, begin: The rms of the first tensor, and its name.
        operations: The changes that are part of `whole` and not of `decades`.
    """

    points: tuple[Point, ...]
    open: bool
    measured: tuple[Point, ...]
    decades: float
    chance_mean: float
    chance_sd: float
    whole: float = math.nan
    start: float = math.nan
    begin: str = ""
    operations: tuple[Operation, ...] = ()

    @property
    def layers(self) -> int:
        """Weight layers between the first and the last measured point."""
        return self.measured[-1].depth - self.measured[0].depth if self.measured else 0

    @property
    def growth(self) -> float:
        """Geometric mean of the signal gain per weight layer; NaN without layers."""
        return 10.0 ** (self.decades / self.layers) if self.layers else math.nan

    @property
    def residual(self) -> bool:
        """Whether this is a residual stream: branches are added along it."""
        return sum(point.sum for point in self.points[1:]) * 2 >= len(self.points) > 1

    def interval(self, z: float = THRESHOLDS["significance"].value) -> tuple[float, float]:
        """The growth that chance leaves a well scaled network.

        Args:
            z: Half the width, in standard deviations. Defaults to `3.0`.

        Returns:
            The lower and the upper end; NaN without layers.
        """
        if not self.layers:
            return math.nan, math.nan
        low = self.chance_mean - z * self.chance_sd
        high = self.chance_mean + z * self.chance_sd
        return 10.0 ** (low / self.layers), 10.0 ** (high / self.layers)

    def limit_depth(self, dtype: str) -> float:
        """The depth at which, at this growth, the rms leaves the range of a dtype.

        Args:
            dtype: A key of `DTYPE_LIMITS`.

        Returns:
            Depth in weight layers from the input, not rounded: of overflow for a signal
            that grows, of underflow for one that falls. Infinite if it does neither.

        Raises:
            KeyError: If the dtype is unknown.
        """
        if not self.layers or self.decades == 0:
            return math.inf
        smallest, largest = DTYPE_LIMITS[dtype]
        end = largest if self.decades > 0 else smallest
        last = self.measured[-1]
        left = math.log10(end / last.rms) * self.layers / self.decades
        return last.depth + left

    @one_line
    def __repr__(self) -> str:
        ends = f"from {self.points[0].name} to {self.points[-1].name}"
        growth = f"growth {self.growth:.3g} per weight layer over {self.layers}"
        return f"{ends}{'' if self.open else ', closed'}: {growth}"


def parts(
    rows: Sequence[int], layers: Sequence[LayerInfo], rms: np.ndarray
) -> list[list[int]]:
    """The rows of a segment, cut where an activation function sets the size."""
    found: list[list[int]] = [[]]
    for before, row in zip([None, *rows], rows, strict=False):
        activation = layers[row].activation
        largest = _LIMITS.get(activation, math.inf)
        if activation in _OFFSET or (before is not None and rms[before] > largest):
            found.append([])
        found[-1].append(row)
    return [part for part in found if part]


def is_operation(graph: LayerGraph, before: int, row: int, rms: np.ndarray) -> bool:
    """Whether the size changes from one row to the next by an operation.

    An activation function that is bounded or has a size of its own is not an operation: it
    may change a large signal by any factor. Pooling is not one either.
    """
    layer = graph.layers[row]
    bounded = layer.activation in (*_OFFSET, *_LIMITS)
    return (
        graph.depth[before] == graph.depth[row]
        and layer.kind != "pooling"
        and not (layer.kind == "activation" and bounded)
        and abs(math.log10(rms[row] / rms[before])) > limit("operation")
    )


def growth_range(
    rows: Sequence[int], is_open: bool, graph: LayerGraph, rms: np.ndarray, mean: np.ndarray
) -> GrowthRange:
    """Read the growth along rows of the trunk.

    Args:
        rows: Rows of one of `parts`.
        is_open: Whether they reach the head.
        graph: The layer graph.
        rms, mean: Of each output, `(layers,)`; rms NaN if not all of it is finite.
    """
    layers, depths = graph.layers, graph.depth
    at_depth: dict[int, list[int]] = collections.defaultdict(list)
    for row in rows:
        at_depth[int(depths[row])].append(row)
    # At each depth the output of the weight layer, and what follows it. Pooling changes
    # the size, and no initializer has a part in that.
    kept = {
        depth: [row for row in here if layers[row].kind != "pooling"] or here
        for depth, here in at_depth.items()
    }
    points = tuple(
        Point(
            kept[depth][-1],
            layers[kept[depth][-1]].name,
            depth,
            float(rms[kept[depth][-1]]),
            any(_adds(graph, row, rms, mean) for row in at_depth[depth]),
        )
        for depth in sorted(kept)
    )
    measured = tuple(
        itertools.takewhile(lambda p: math.isfinite(p.rms) and p.rms > 0, points)
    )
    whole, start, begin, decades = math.nan, math.nan, "", 0.0
    operations: list[Operation] = []
    if measured:
        stop, first = rows.index(measured[-1].row), measured[0].row
        walk = [row for row in rows[: stop + 1] if 0 < rms[row] < math.inf]
        begun = False
        whole, start, begin = 0.0, float(rms[walk[0]]), layers[walk[0]].name
        for before, row in itertools.pairwise(walk):
            change = math.log10(rms[row] / rms[before])
            begun = begun or before == first
            if depths[row] == depths[before] and layers[row].kind == "pooling":
                continue
            whole += change
            if is_operation(graph, before, row, rms):
                names = layers[row].name, layers[before].name
                operations.append(Operation(row, *names, change))
            elif begun:
                decades += change
    of_all = whole, start, begin, tuple(operations)
    if len(measured) < 2:
        unknown = math.nan, math.nan, math.nan
        return GrowthRange(points, is_open, measured, *unknown, *of_all)
    random = [_randomness([layers[row] for row in kept[p.depth]]) for p in measured[1:]]
    law = chance.of_layers(*zip(*random, strict=True))
    center, sd = law.mean / math.log(10), math.sqrt(law.variance) / math.log(10)
    return GrowthRange(points, is_open, measured, decades, center, sd, *of_all)


def _adds(graph: LayerGraph, row: int, rms: np.ndarray, mean: np.ndarray) -> bool:
    """Whether several tensors are added here, as far as the numbers show it."""
    joins = ("Concatenate", "Dot", "Maximum", "Minimum", "Multiply")
    parents = graph.parents[row]
    if len(parents) < 2 or graph.layers[row].class_name in joins:
        return False
    if len(parents) > 2 or not all(0 < rms[one] < math.inf for one in (row, *parents)):
        return True
    # A product written as `a * b` is larger than any sum, or has the size of a product and
    # a size or a mean that no sum has.
    alike = limit("sum-or-product")
    size, a, b = rms[row], *rms[list(parents)]
    if size > (1 + alike) * (a + b):
        return False
    too_small = size < (1 - alike) * abs(a - b)
    off_mean = abs(mean[row] - mean[parents[0]] - mean[parents[1]]) > alike * size
    return not (abs(math.log10(size / a / b)) < alike and (too_small or off_mean))


def _randomness(layers: Sequence[LayerInfo]) -> tuple[str, int]:
    """What chance depends on at one depth: the activation function, and the width."""
    used = [layer.activation for layer in layers if layer.activation != "linear"]
    return used[0] if used else "linear", layers[0].width

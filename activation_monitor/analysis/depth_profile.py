"""The size of the signal along depth: where it is compared, and what chance explains.

Compared are the tensors of the *trunk*, those that every path from the model's inputs
to its outputs passes (cut vertices of the traced graph), from the output of the first
weight layer to what the last one is given: the head's own output is a prediction, no
signal. Of a network with several inputs, the way of each to where they meet has a trunk
of its own.

A normalization on the trunk sets the size anew: there a `Stretch` ends and the next one
begins. So does an activation function with a size of its own (`_OFFSET`, `_LIMITS`):
there a `Segment` ends, along which growth is read. Only what reaches the head (`open`) is
judged: what a normalization ends, a pre-norm residual stream for example, may grow
without harm.
"""

import collections
import itertools
import math
from dataclasses import dataclass

import numpy as np

from activation_monitor.analysis import activations, moments, theory
from activation_monitor.analysis.layer_graph import LayerGraph
from activation_monitor.analysis.shown import count, one_line
from activation_monitor.analysis.snapshot import Snapshot

# An activation function with phi(0) != 0 puts out numbers of a size of its own.
_OFFSET = ("sigmoid", "hard_sigmoid", "softmax", "softplus", "exponential", "log_softmax")

# A bounded one does so where it is given more than its limit.
_LIMITS = {"tanh": 1.0, "softsign": 1.0, "hard_tanh": 1.0, "relu6": 6.0}

_OPERATION = 0.5
"""Decades: what changes the size between two weight layers by more, and is no activation
function, is an operation: a sum over an axis, a rescaling, a hand-written normalization. It
is not the weights' doing. (Of activation functions SiLU changes it most, by 0.3.)"""

_ALIKE = 0.1
"""Decades between the size of a tensor and that of a product, and shares by which a size
and a mean may miss those of a sum: rounding and chance are far below, other operations
far beyond."""

_CONTRADICTED = 0.5
"""Decades between the measured gain of a layer and the predicted one. The largest of 2,919
layers without a normalization behind them is 0.35 (the first 300 networks that
tests/benchmarks/operations.py and trainability.py draw)."""

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
        rms: Of the tensor; NaN if not all of it is finite.
        sum: Whether several branches are added here: a residual stream, no chain.
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
    """A step of the signal's size that no weights and no activation function make: a sum
    over an axis, a rescaling, a product, a hand-written normalization.

    Attributes:
        row: Of the tensor behind it.
        name: Of that tensor.
        before: Name of the tensor before it.
        decades: `log10` of the rms behind it over the rms before it.
    """

    row: int
    name: str
    before: str
    decades: float

    @one_line
    def __repr__(self) -> str:
        return f"from {self.before} to {self.name}: {10**self.decades:.3g} times"


@dataclass(frozen=True)
class Link:
    """One weight layer, and what it should make of the size of its input.

    Attributes:
        row: Its index in the snapshot.
        name: The layer's name.
        activation: The activation function, of its own or of the layer behind it.
        rms_in: Of what it is given; NaN if that is not one measured, finite tensor.
        rms_out: After the activation function.
        fan_in: Products that add up in one output; 0 if not known.
        kernel_mean, kernel_std: Of its weights; NaN if they were not measured.
        depthwise: Whether each unit has an input of its own.
        normalized: Whether a normalization stands before the activation function: then
            the weights do not decide the gain.
    """

    row: int
    name: str
    activation: str
    rms_in: float
    rms_out: float
    fan_in: float
    kernel_mean: float
    kernel_std: float
    depthwise: bool = False
    normalized: bool = False

    @property
    def gain(self) -> float:
        """Signal gain as measured."""
        return self.rms_out / self.rms_in if self.rms_in > 0 else math.nan

    @property
    def weight_variance(self) -> float:
        """`fan_in E w^2`: by how much the layer multiplies the second moment."""
        known = self.fan_in > 0
        second_moment = self.kernel_std**2 + self.kernel_mean**2
        return self.fan_in * second_moment if known else math.nan

    @property
    def pre_activation(self) -> float:
        """Second moment of the pre-activations that these weights make of this input."""
        return self.weight_variance * self.rms_in**2

    @property
    def predicted_gain(self) -> float:
        """Signal gain that follows from the weights, the input and the activation.

        For weights of mean 0 without bias; measured gains of random layers are within
        8 % of it. NaN if something is not known.
        """
        q = self.pre_activation
        known = activations.known(self.activation) and not self.normalized
        if not (math.isfinite(q) and q > 0 and known):
            return math.nan
        return math.sqrt(theory.second_moment(self.activation, q)) / self.rms_in

    @property
    def contradicted(self) -> bool:
        """Whether the measured gain is far from the predicted one: then the layer does
        something besides, and nothing that follows from its weights is known."""
        predicted = self.predicted_gain
        if not (predicted > 0 and 0 <= self.gain < math.inf):
            return False
        if self.gain == 0:
            return True
        return abs(math.log10(self.gain) - math.log10(predicted)) > _CONTRADICTED

    @property
    def backward(self) -> float:
        """Decades by which a gradient grows through the layer towards the input:
        `log10 sqrt(fan_in E w^2 E phi'^2)` (Poole et al. 2016; root of chi_1)."""
        q = self.pre_activation
        if not (math.isfinite(q) and q > 0 and activations.known(self.activation)):
            return math.nan
        chi = self.weight_variance * theory.slope_second_moment(self.activation, q)
        return 0.5 * math.log10(chi) if chi > 0 else -math.inf

    @property
    def excess(self) -> float:
        """Decades by which the weights' own gain is off that of the initializer made for
        this activation function; NaN if there is none, or it is not known."""
        wanted = activations.initializer(self.activation)
        if wanted is None or not self.weight_variance > 0:
            return math.nan
        return 0.5 * math.log10(self.weight_variance / wanted.weight_variance)

    @one_line
    def __repr__(self) -> str:
        return (
            f"{self.name}, {self.activation}: rms {self.rms_in:.3g} to {self.rms_out:.3g}, "
            f"kernel std {self.kernel_std:.3g}, fan-in {self.fan_in:.4g}"
        )


@dataclass(frozen=True)
class Segment:
    """A stretch of the trunk without a size of its own, one point for each depth.

    Attributes:
        points: In the order of depth.
        open: Whether it reaches the head.
        measured: Of `points`, those up to the first that is not finite or is zero.
        decades: `log10` of the last measured rms over the first, less what operations
            other than weight layers and activation functions did. NaN for fewer than two.
        chance_mean, chance_sd: Mean and standard deviation of `decades` over the draw of
            the weights if the network is well scaled (facts: theory.chance).
        whole: `log10` of the last measured rms over that of the first tensor: of all that
            happens on the way, operations included and only pooling left out. NaN where
            nothing is measured.
        start, begin: The rms of the first tensor, and its name.
        operations: The steps that are in `whole` and not in `decades`.
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
        """Geometric mean of the signal gain per weight layer."""
        return 10.0 ** (self.decades / self.layers) if self.layers else math.nan

    @property
    def residual(self) -> bool:
        """Whether this is a residual stream: branches are added along it."""
        return sum(point.sum for point in self.points[1:]) * 2 >= len(self.points) > 1

    def interval(self, z: float = 3.0) -> tuple[float, float]:
        """Growth that a well scaled network shows within `z` standard deviations."""
        if not self.layers:
            return math.nan, math.nan
        ends = (
            self.chance_mean - z * self.chance_sd,
            self.chance_mean + z * self.chance_sd,
        )
        return tuple(10.0 ** (end / self.layers) for end in ends)

    def limit_depth(self, dtype: str) -> float:
        """At which depth, at this growth, the rms leaves the range of a dtype.

        Args:
            dtype: A key of `DTYPE_LIMITS`.

        Returns:
            Depth in weight layers from the input, not rounded: of overflow for a signal
            that grows, of underflow for one that falls. Infinite if it does neither.
        """
        if not self.layers or self.decades == 0:
            return math.inf
        smallest, largest = DTYPE_LIMITS[dtype]
        limit = largest if self.decades > 0 else smallest
        last = self.measured[-1]
        left = math.log10(limit / last.rms) * self.layers / self.decades
        return last.depth + left

    @one_line
    def __repr__(self) -> str:
        ends = f"from {self.points[0].name} to {self.points[-1].name}"
        growth = f"growth {self.growth:.3g} per weight layer over {self.layers}"
        return f"{ends}{'' if self.open else ', closed'}: {growth}"


@dataclass(frozen=True)
class Stretch:
    """A stretch of the trunk without normalization.

    Attributes:
        rows: Rows of the snapshot that are compared, in order.
        open: Whether it reaches the head.
        normalized: Whether it begins at a normalization.
        links: Its weight layers in order, if each stands on the trunk by itself; empty
            for a residual stream.
        branches: The weight layers on a residual stream and beside it, in order; empty
            for a chain.
        backward: Decades by which a gradient grows from the last link's input to the first
            one's output, as the weights predict; NaN if not all of it is known.
        independence: For each row, log10 of the share of the rms that differs from sample
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


@dataclass(frozen=True)
class DepthProfile:
    """The trunk of one snapshot.

    Attributes:
        step: Of the snapshot.
        depths: Depth of every layer of the snapshot, `(layers,)`.
        segments: In the order of the data path.
        stretches: The same.
        links: Of all weight layers, by row.
        graph: Who feeds whom.
    """

    step: int
    depths: np.ndarray
    segments: tuple[Segment, ...]
    stretches: tuple[Stretch, ...]
    links: dict[int, Link]
    graph: LayerGraph

    @property
    def main(self) -> Segment | None:
        """The longest segment that reaches a head, if any has two weight layers."""
        found = [s for s in self.segments if s.open and s.layers >= 1]
        return max(found, key=lambda segment: segment.layers, default=None)

    @one_line
    def __repr__(self) -> str:
        main = self.main
        growth = f"growth {main.growth:.3g} per weight layer" if main else "no growth"
        size = f"{count(len(self.depths), 'layer')}, depth {max(self.depths, default=0)}"
        segments = count(len(self.segments), "segment")
        return f"of step {self.step}: {size}, {segments}, {growth}"


def depth_profile(snapshot: Snapshot) -> DepthProfile:
    """Read a snapshot along depth, on the way to each of the network's ends.

    Args:
        snapshot: With layers whose parents are known.
    """
    graph = LayerGraph(snapshot)
    rms = np.where(snapshot.field("nonfinite") > 0, np.nan, snapshot.statistic("rms"))
    mean = snapshot.statistic("mean")
    links = _links(snapshot, graph, rms)
    segments, stretches = {}, {}
    for rows, is_open in _stretches(graph):
        stretch = _stretch(rows, is_open, snapshot, graph, links, rms)
        stretches.setdefault((rows, is_open), stretch)
        for part in _parts(rows, graph.layers, rms):
            reaches_head = is_open and part[-1] == rows[-1]
            segment = _segment(part, reaches_head, graph, rms, mean)
            segments.setdefault((segment.points, segment.open), segment)
    return DepthProfile(
        step=snapshot.step,
        depths=graph.depth,
        segments=tuple(segments.values()),
        stretches=tuple(stretches.values()),
        links=links,
        graph=graph,
    )


def _stretches(graph):
    """The trunks' compared rows, cut at normalizations; the last part is open."""
    feeds_weight = graph.feeds_weight()
    for end in graph.ends:
        whole, *towers = graph.paths_to(end)
        behind = [graph.layers[row] for row in graph.trunk(whole, whole)]
        normalized = any(_normalizes(layer) for layer in behind)
        for part in (whole, *towers):
            parts = [[]]
            for row in graph.trunk(part, whole):
                layer = graph.layers[row]
                children = [graph.layers[c] for c in graph.children[row] if c in part]
                only_normalized = children and all(
                    child.kind == "normalization" for child in children
                )
                if _normalizes(layer):
                    parts.append([])
                if graph.depth[row] >= 1 and feeds_weight[row] and not only_normalized:
                    parts[-1].append(row)
            # What is normalized behind the place where towers meet ends them as well.
            reaches_head = part is whole or not normalized
            for rows in parts:
                if rows:
                    yield tuple(rows), rows is parts[-1] and reaches_head


def _normalizes(layer):
    return layer.kind == "normalization" or layer.normalized


def _parts(rows, layers, rms):
    """Cut where an activation function sets the size anew."""
    parts = [[]]
    for before, row in zip([None, *rows], rows, strict=False):
        activation = layers[row].activation
        limit = _LIMITS.get(activation, math.inf)
        if activation in _OFFSET or (before is not None and rms[before] > limit):
            parts.append([])
        parts[-1].append(row)
    return [part for part in parts if part]


def _links(snapshot, graph, rms):
    links = {}
    for row in graph.order:
        layer = graph.layers[row]
        if layer.kind != "weight":
            continue
        parents, out, normalized = graph.parents[row], row, False
        activation = layer.activation
        while activation == "linear" and len(graph.children[out]) == 1:
            (child,) = graph.children[out]
            if graph.layers[child].kind not in ("activation", "normalization"):
                break
            out, activation = child, graph.layers[child].activation
            normalized = normalized or _normalizes(graph.layers[child])
        known = len(parents) == 1 and not layer.normalized
        mean = std = math.nan
        if snapshot.kernels is not None:
            kernel = snapshot.kernels[row]
            mean, std = (float(moments.STATISTICS[n](kernel)) for n in ("mean", "std"))
        links[row] = Link(
            row=row,
            name=layer.name,
            activation=activation,
            rms_in=float(rms[parents[0]]) if known else math.nan,
            rms_out=float(rms[out]),
            fan_in=layer.fan_in,
            kernel_mean=mean,
            kernel_std=std,
            depthwise="depthwise" in layer.class_name.lower(),
            normalized=normalized,
        )
    return links


def _stretch(rows, is_open, snapshot, graph, links, rms):
    found, depths = [], graph.depth[list(rows)]
    for row, depth in zip(rows, depths, strict=True):
        if graph.layers[row].kind == "weight" and row in links:
            found.append((depth, links[row]))
    # The first may stand behind a normalization, of the depth before.
    start = found[0][0] if found and found[0][0] <= depths[0] + 1 else depths[0]
    consecutive = [depth for depth, _ in found] == list(range(start, depths[-1] + 1))
    chain = tuple(link for _, link in found) if consecutive else ()
    branches = ()
    if not consecutive:
        here = (graph.before(rows[-1]) | set(rows)) - graph.before(rows[0])
        branches = tuple(links[row] for row in graph.order if row in here & links.keys())
    with np.errstate(divide="ignore", invalid="ignore"):
        within = snapshot.statistic("within_std") / snapshot.statistic("rms")
        within[snapshot.field("samples") < 2] = np.nan
        within[snapshot.field("nonfinite") > 0] = np.nan
        independence = np.log10(within[list(rows)])
    before = graph.layers[rows[0]]
    return Stretch(
        rows=rows,
        open=is_open,
        normalized=_normalizes(before),
        links=chain,
        branches=branches,
        backward=_backward(rows, chain, graph, rms),
        independence=tuple(float(value) for value in independence),
    )


def _is_operation(layer):
    """Whether a step of the size at this layer counts as an operation.

    Not at an activation function that is bounded or has a size of its own: these may change
    a large signal by any factor. Other functions change it by less than `_OPERATION`.
    """
    bounded = layer.activation in (*_OFFSET, *_LIMITS)
    return layer.kind != "activation" or not bounded


def _backward(rows, chain, graph, rms):
    """Decades of a gradient, where nothing on the way is of an unknown kind."""
    walk = [row for row in rows if 0 < rms[row] < math.inf]
    through_operation = any(
        graph.depth[before] == graph.depth[row]
        and graph.layers[row].kind != "pooling"
        and _is_operation(graph.layers[row])
        and abs(math.log10(rms[row] / rms[before])) > _OPERATION
        for before, row in itertools.pairwise(walk)
    )
    if not chain or through_operation or any(link.contradicted for link in chain[1:]):
        return math.nan
    return sum(link.backward for link in chain[1:])


def _adds(graph, row, rms, mean):
    """Whether several tensors are added here, as far as it can be told."""
    joins = ("Concatenate", "Dot", "Maximum", "Minimum", "Multiply")
    parents = graph.parents[row]
    if len(parents) < 2 or graph.layers[row].class_name in joins:
        return False
    if len(parents) > 2 or not all(0 < rms[one] < math.inf for one in (row, *parents)):
        return True
    # A product written as `a * b` is larger than any sum, or has the size of a product and
    # a size or a mean that no sum has.
    size, a, b = rms[row], *rms[list(parents)]
    if size > (1 + _ALIKE) * (a + b):
        return False
    too_small = size < (1 - _ALIKE) * abs(a - b)
    off_mean = abs(mean[row] - mean[parents[0]] - mean[parents[1]]) > _ALIKE * size
    return not (abs(math.log10(size / a / b)) < _ALIKE and (too_small or off_mean))


def _segment(rows, is_open, graph, rms, mean):
    layers, depths = graph.layers, graph.depth
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
            any(_adds(graph, row, rms, mean) for row in at_depth[depth]),
        )
        for depth in sorted(shown)
    )
    measured = tuple(
        itertools.takewhile(lambda p: math.isfinite(p.rms) and p.rms > 0, points)
    )
    whole, start, begin, operations, decades = math.nan, math.nan, "", [], 0.0
    if measured:
        stop, first = rows.index(measured[-1].row), rows.index(measured[0].row)
        walk = [row for row in rows[: stop + 1] if 0 < rms[row] < math.inf]
        whole, start, begin = 0.0, float(rms[walk[0]]), layers[walk[0]].name
        for before, row in itertools.pairwise(walk):
            change = math.log10(rms[row] / rms[before])
            same_depth = depths[row] == depths[before]
            if same_depth and layers[row].kind == "pooling":
                continue
            whole += change
            if same_depth and abs(change) > _OPERATION and _is_operation(layers[row]):
                names = layers[row].name, layers[before].name
                operations.append(Operation(row, *names, change))
            elif rows.index(before) >= first:
                decades += change
    of_all = whole, start, begin, tuple(operations)
    if len(measured) < 2:
        return Segment(points, is_open, measured, *[math.nan] * 3, *of_all)
    random = [_randomness([layers[row] for row in shown[p.depth]]) for p in measured[1:]]
    law = theory.chance(*zip(*random, strict=True))
    mean, sd = law.mean / math.log(10), math.sqrt(law.variance) / math.log(10)
    return Segment(points, is_open, measured, decades, mean, sd, *of_all)


def _randomness(layers):
    """On what chance turns at one depth: the activation function, and the width."""
    activations = [layer.activation for layer in layers if layer.activation != "linear"]
    return activations[0] if activations else "linear", layers[0].width

"""Snapshots for tests of the analysis: made by hand, or of networks drawn by numpy."""

import math
from typing import NamedTuple

import numpy as np
from scipy import special

from activation_monitor.analysis import records
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot

PHI = {
    "linear": lambda h: h,
    "relu": lambda h: np.maximum(h, 0.0),
    "selu": lambda h: (
        1.0507009873554805 * np.where(h > 0, h, 1.673263242354377 * np.expm1(h))
    ),
    "sigmoid": special.expit,
    "tanh": np.tanh,
}

CRITICAL = {"linear": 1.0, "relu": 2.0, "selu": 1.0, "sigmoid": 1.0, "tanh": 1.0}
"""`fan_in Var(w)` of the initializer that people use: LeCun, He, LeCun, Glorot, Glorot."""


# -- by hand


class Tap(NamedTuple):
    """One tapped tensor: what `tap` makes of its arguments."""

    name: str
    rms: float | None
    kind: str
    after: str | None
    info: dict
    record: np.ndarray
    kernel: np.ndarray | None
    gradient: float | None


def tap(
    name,
    rms=1.0,
    kind="weight",
    after=None,
    *,
    mean=0.0,
    within=1.0,
    samples=2,
    dead=0,
    saturated=0.0,
    kernel=None,
    gradient=None,
    **info,
):
    """One tapped tensor; by default the output of a linear layer after the tap before.

    Args:
        name: Of the layer.
        rms: Of the tensor; None if it was never called, not finite if half of it is so.
            Or the tensor itself, then what follows is not asked for.
        kind: One of `snapshot.KINDS`.
        after: Names of its parents, separated by spaces.
        mean, within: The mean, and the part that differs from sample to sample, as shares
            of the rms.
        samples, dead, saturated: Samples, dead units, share of saturated elements.
        kernel: The layer's weights, an array.
        gradient: Rms of the loss's gradient by the tensor.
        **info: Other fields of its `LayerInfo`.
    """
    info = {"activation": "linear", "width": 512, "dtype": "float32"} | info
    if isinstance(rms, np.ndarray):
        record = records.measure(rms, info["activation"])
    elif rms is None:
        record = records.empty()
    else:
        record = records.measure(_elements(rms, mean, within))
        count = records.field(record, "count")
        records.field(record, "samples")[...] = samples
        records.field(record, "dead_units")[...] = dead
        records.field(record, "saturated")[...] = saturated * count
    return Tap(name, rms, kind, after, info, record, kernel, gradient)


def _elements(rms, mean, within):
    """A tensor of two samples with these statistics."""
    if not math.isfinite(rms):
        return [[rms], [rms], [1.0], [-1.0]]
    if (mean, within) == (0.0, 1.0):
        return [[rms], [-rms]]
    between = math.sqrt(max(1.0 - mean**2 - within**2, 0.0))
    units = mean + between * np.array([[1.0, -1.0]])
    return rms * (units + within * np.array([[1.0], [-1.0]]))


def weights(variance, fan_in=64, mean=0.0):
    """Kernel and fan-in of a tap: weights whose `fan_in Var(w)` is `variance`."""
    std = math.sqrt(variance / fan_in)
    return {"kernel": mean + std * np.array([[1.0, -1.0]]), "fan_in": fan_in}


def network(*taps, step=0, steps=1):
    """The snapshot of some taps."""
    names = [given.name for given in taps]
    layers = []
    for row, given in enumerate(taps):
        before = names[row - 1 : row] if given.after is None else given.after.split()
        info = {"class_name": "Layer"} | given.info
        parents = tuple(names.index(parent) for parent in before)
        layers.append(LayerInfo(given.name, kind=given.kind, parents=parents, **info))
    quantities = {"output": np.stack([given.record for given in taps])}
    kernels = [given.kernel for given in taps]
    if any(kernel is not None for kernel in kernels):
        quantities["weight"] = _records(kernels)
    gradients = [given.gradient for given in taps]
    if any(rms is not None for rms in gradients):
        back = _records([rms and [[rms], [-rms]] for rms in gradients])
        quantities["output_gradient"] = back
    return Snapshot(step, tuple(layers), quantities, steps=steps)


def _records(arrays):
    measured = [records.empty() if x is None else records.measure(x) for x in arrays]
    return np.stack(measured)


def chain(*sizes, x=1.0, head=None, step=0, steps=1, **options):
    """Weight layers d1, d2, ... of these sizes, between an input x and a head.

    By default the head has rms 1, or is not finite where what it is given is not. The
    options are those of `tap`, of all layers between.
    """
    if head is None:
        head = 1.0 if math.isfinite((x, *sizes)[-1]) else math.nan
    hidden = [tap(f"d{i + 1}", rms, **options) for i, rms in enumerate(sizes)]
    taps = (tap("x", x, "input"), *hidden, tap("head", head))
    return network(*taps, step=step, steps=steps)


def straight(decades, layers=10, first=1.0, **options):
    """A chain whose rms grows evenly by so many decades over so many layers."""
    return chain(*(first * np.logspace(0, decades, layers + 1)), **options)


def blocks(count, rms, normalized=False):
    """A residual stream: a stem, blocks of two layers that are added, a head.

    Args:
        count: How many blocks.
        rms: Size of the stream after so many blocks, a function.
        normalized: Whether a normalization begins each block and stands before the head.
    """
    taps, stream = [tap("stem", rms(0))], "stem"
    for i in range(1, count + 1):
        if normalized:
            taps.append(norm(f"norm{i}", after=stream))
        taps += [
            tap(f"up{i}", 77.0, after=f"norm{i}" if normalized else stream),
            tap(f"down{i}", 1e-9),
            # As `Add` makes it in one model, and `x + f(x)` in another.
            tap(f"sum{i}", rms(i), "merge" if i % 2 else "input", f"{stream} down{i}"),
        ]
        stream = f"sum{i}"
    if normalized:
        taps.append(norm("last_norm"))
    return network(*taps, tap("head"))


def norm(name, **options):
    """A normalization layer's tap."""
    return tap(name, kind="normalization", **options)


# -- drawn by numpy


class Drawn:
    """A network with random weights, whose tensors are computed and measured."""

    def __init__(self, seed=0, inputs=64, samples=64, scale=1.0):
        self.rng = np.random.default_rng(seed)
        self.taps, self.tensors, self.kernels = [], {}, {}
        self.last = self._add(
            "x", scale * self.rng.standard_normal((samples, inputs)), "input", ""
        )

    def weight(
        self, name, width=64, activation="relu", variance=None, after=None, mean=0.0, **info
    ):
        """A dense layer; `variance` is `fan_in Var(w)`, by default as is usual."""
        given = self.tensors[after or self.last]
        fan_in = given.shape[1]
        variance = CRITICAL[activation] if variance is None else variance
        kernel = self.rng.standard_normal((fan_in, width)) * math.sqrt(variance / fan_in)
        kernel += mean
        self.kernels[name] = kernel
        out = PHI[activation](given @ kernel)
        known = {"activation": activation, "width": width, "fan_in": fan_in}
        return self._add(name, out, "weight", after, kernel=kernel, **known | info)

    def chain(self, depth, width=64, name="d", **options):
        """So many equal layers d1, d2, ..."""
        for i in range(depth):
            self.weight(f"{name}{i + 1}", width, **options)
        return self

    def activation(self, name, activation, after=None):
        """An activation layer."""
        out = PHI[activation](self.tensors[after or self.last])
        return self._add(name, out, "activation", after, activation=activation)

    def normalization(self, name, after=None):
        """Batch normalization."""
        given = self.tensors[after or self.last]
        out = (given - given.mean(0)) / np.sqrt(given.var(0) + 1e-3)
        return self._add(name, out, "normalization", after)

    def merge(self, name, after, by=np.add):
        """A sum or product of two tensors."""
        out = by(*(self.tensors[parent] for parent in after.split()))
        return self._add(name, out, "merge", after)

    def snapshot(self, step=0):
        """What a monitor would have measured; a linear head is added."""
        if not any(given.name == "head" for given in self.taps):
            self.weight("head", 10, "linear")
        return network(*self.taps, step=step)

    def _add(self, name, tensor, kind, after, **options):
        after = self.last if after is None else after
        options = {"width": tensor.shape[1]} | options
        self.taps.append(tap(name, tensor, kind, after, **options))
        self.tensors[name] = tensor
        self.last = name
        return name

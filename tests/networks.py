"""Snapshots for tests of the analysis: written by hand, or of random numpy networks."""

import math
from typing import NamedTuple

import numpy as np
from scipy import special

from activation_monitor.analysis import records
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot
from activation_monitor.analysis.updating import NAMES, OptimizerInfo, Updating, unknown

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
"""`fan_in Var(w)` of the usual initializers: LeCun, He, LeCun, Glorot, Glorot."""


# -- by hand


class Tap(NamedTuple):
    """One tapped tensor, as `tap` creates it."""

    name: str
    rms: float | None
    kind: str
    after: str | None
    info: dict
    record: np.ndarray
    kernel: np.ndarray | None
    gradient: float | np.ndarray | None
    inactive: tuple[int, int, int] | None = None


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
    inactive=None,
    **info,
):
    """One tapped tensor. By default it is the output of a linear layer after the last tap.

    Args:
        name: Name of the layer.
        rms: Rms of the tensor; None if the layer was never called, NaN or infinite if half
            of the tensor is so. An array is the tensor itself and replaces the statistics.
        kind: One of `snapshot.KINDS`.
        after: Names of its parents, separated by spaces.
        mean, within: The mean, and the part that differs from sample to sample, as shares
            of the rms.
        samples, dead, saturated: Samples, dead units, share of saturated elements.
        kernel: The weights of the layer, an array.
        gradient: Rms of the gradient of the loss with respect to the tensor; an array is
            the gradient itself; None if nothing leads from the tensor to the loss.
        inactive: Units that were not active over so many sampled steps and samples, see
            `activity.FIELDS`; None if this was not counted.
        **info: Further fields of its `LayerInfo`.
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
    return Tap(name, rms, kind, after, info, record, kernel, gradient, inactive)


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


def network(*taps, step=0, steps=1, loss=math.nan):
    """The snapshot of some taps."""
    names = [one.name for one in taps]
    layers = []
    for row, one in enumerate(taps):
        before = names[row - 1 : row] if one.after is None else one.after.split()
        info = {"class_name": "Layer"} | one.info
        parents = tuple(names.index(parent) for parent in before)
        layers.append(LayerInfo(one.name, kind=one.kind, parents=parents, **info))
    quantities = {"output": np.stack([one.record for one in taps])}
    kernels = [one.kernel for one in taps]
    if any(kernel is not None for kernel in kernels):
        quantities["weight"] = _records(kernels)
    gradients = [one.gradient for one in taps]
    if any(one is not None for one in gradients):
        back = [[[one], [-one]] if isinstance(one, float) else one for one in gradients]
        quantities["output_gradient"] = _records(back)
    counted = [one.inactive or (math.nan,) * 3 for one in taps]
    some = any(one.inactive is not None for one in taps)
    return Snapshot(
        *(step, tuple(layers), quantities),
        steps=steps,
        loss=loss,
        activity=np.array(counted, np.float64) if some else None,
    )


def _records(arrays):
    measured = [records.empty() if x is None else records.measure(x) for x in arrays]
    return np.stack(measured)


def chain(*sizes, x=1.0, head=None, step=0, steps=1, **options):
    """Weight layers d1, d2, ... with these rms values, between an input x and a head.

    By default the head has rms 1, or it is not finite if its input is not finite. The
    options are those of `tap`, for the layers d1, d2, ...
    """
    if head is None:
        head = 1.0 if math.isfinite((x, *sizes)[-1]) else math.nan
    hidden = [tap(f"d{i + 1}", rms, **options) for i, rms in enumerate(sizes)]
    taps = (tap("x", x, "input"), *hidden, tap("head", head))
    return network(*taps, step=step, steps=steps)


def updated(
    gradient=0.5,
    update=None,
    weight=1.0,
    *,
    layers=3,
    optimizer="SGD",
    rate=0.1,
    taken=7.0,
    took=1.0,
    scale=1.0,
    kept_scale=0,
    settings=None,
    optimizers=1,
    whole=True,
    loss=1.0,
    step=0,
    steps=1,
    known=None,
    reaches=1.0,
    **info,
):
    """A chain of layers d1, d2, ... whose kernels a step has updated.

    By default the update is that of SGD.

    Args:
        gradient, update, weight: The largest absolute value of the gradient, the update and
            the weights of each kernel: a number, or a list with one for each layer.
        layers: How many layers.
        optimizer, rate, taken, took, scale, kept_scale, settings: See `OptimizerInfo`.
        optimizers: How many of them.
        whole, loss, step, steps: See `Updating` and `Snapshot`.
        known: What else is known of the kernels, see `updating.NAMES`: numbers, or lists.
        reaches: Rms of the gradient of each output.
        **info: Further fields of the layers.
    """

    def each(value):
        return value if isinstance(value, list) else [value] * layers

    def kernels(values):
        # Three of one sign and one of the other: their mean is not zero.
        four = np.array([[1.0], [1.0], [1.0], [-1.0]])
        arrays = [None if x is None else x * four for x in each(values)]
        return _records([None, *arrays, None])

    plain = chain(*[1.0] * layers, step=step, steps=steps, gradient=reaches, **info)
    if update is None:
        update = [rate * one for one in each(gradient)]
    found = unknown(layers + 2)
    rows = list(range(1, layers + 1))
    standard = {"optimizer": 0, "times": 1, "repeats": 0, "constrained": 0}
    given = {"source": rows, "factor": 1, "remainder": 0}
    for name, value in (standard | given | (known or {})).items():
        found[rows, NAMES.index(name)] = each(value)
    one = OptimizerInfo(optimizer, rate, taken, took, scale, kept_scale, settings or {})
    quantities = {
        **plain.quantities,
        "weight": kernels(weight),
        "weight_gradient": kernels(gradient),
        "weight_update": kernels(update),
    }
    how = Updating((one,) * optimizers, found, whole)
    changed = {"quantities": quantities, "loss": loss, "updating": how}
    return Snapshot(**{**vars(plain), **changed})


def straight(decades, layers=10, first=1.0, **options):
    """A chain whose rms grows evenly by `decades` over `layers` layers."""
    return chain(*(first * np.logspace(0, decades, layers + 1)), **options)


def blocks(count, rms, normalized=False):
    """A residual stream: a stem, blocks of two layers that are added, a head.

    Args:
        count: How many blocks.
        rms: Function of the number of blocks: the rms of the stream after them.
        normalized: Whether each block and the head follow a normalization.
    """
    taps, stream = [tap("stem", rms(0))], "stem"
    for i in range(1, count + 1):
        if normalized:
            taps.append(norm(f"norm{i}", after=stream))
        taps += [
            tap(f"up{i}", 77.0, after=f"norm{i}" if normalized else stream),
            tap(f"down{i}", 1e-9),
            # One block ends with `Add`, the next one with `x + f(x)`.
            tap(f"sum{i}", rms(i), "merge" if i % 2 else "input", f"{stream} down{i}"),
        ]
        stream = f"sum{i}"
    if normalized:
        taps.append(norm("last_norm"))
    return network(*taps, tap("head"))


def norm(name, **options):
    """The tap of a normalization layer."""
    return tap(name, kind="normalization", **options)


# -- random networks in numpy


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
        """Add a dense layer. `variance` is `fan_in Var(w)`, by default from `CRITICAL`."""
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
        """Add `depth` equal layers d1, d2, ..."""
        for i in range(depth):
            self.weight(f"{name}{i + 1}", width, **options)
        return self

    def activation(self, name, activation, after=None):
        """Add an activation layer."""
        out = PHI[activation](self.tensors[after or self.last])
        return self._add(name, out, "activation", after, activation=activation)

    def normalization(self, name, after=None):
        """Add batch normalization."""
        given = self.tensors[after or self.last]
        out = (given - given.mean(0)) / np.sqrt(given.var(0) + 1e-3)
        return self._add(name, out, "normalization", after)

    def merge(self, name, after, by=np.add):
        """Add a sum or product of two tensors."""
        out = by(*(self.tensors[parent] for parent in after.split()))
        return self._add(name, out, "merge", after)

    def snapshot(self, step=0):
        """The snapshot that a monitor would record, with a linear head at the end."""
        if not any(one.name == "head" for one in self.taps):
            self.weight("head", 10, "linear")
        return network(*self.taps, step=step)

    def _add(self, name, tensor, kind, after, **options):
        after = self.last if after is None else after
        options = {"width": tensor.shape[1]} | options
        self.taps.append(tap(name, tensor, kind, after, **options))
        self.tensors[name] = tensor
        self.last = name
        return name

"""The measured gradients of a snapshot: where they are, and how they change on the way.

A gradient is compared by its norm per sample, `rms * sqrt(elements per sample)`. Unlike its
rms, the norm of a well scaled network keeps its size where the width or the resolution
changes: a layer multiplies it by `sqrt(fan_in E w^2 E phi'^2)`, the root of chi_1 (Poole et
al. 2016), for any fan-out and stride.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from activation_monitor.analysis import activations, records
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit


class Step(NamedTuple):
    """The change of the gradient from the output of a tensor to the one before it.

    Attributes:
        row: Row of the tensor. What computes it from the tensor before changes the
            gradient.
        decades: `log10` of the norm at the tensor before over the norm here: positive if
            the gradient grows towards the input.
    """

    row: int
    decades: float


class Walk(NamedTuple):
    """The gradients along some rows, in the order of the data path.

    Attributes:
        rows: Those whose gradients are finite and not zero.
        norms: Their norms per sample.
        steps: The changes between neighbours. Pooling changes a norm for reasons of its
            own, so its change counts as 0.
    """

    rows: tuple[int, ...]
    norms: tuple[float, ...]
    steps: tuple[Step, ...]

    @property
    def decades(self) -> float:
        """`log10` of the growth from the last row back to the first, without pooling."""
        return sum(step.decades for step in self.steps)

    def largest(self, layers: int) -> list[Step]:
        """The steps that make up the growth: at least a share of the mean of a layer.

        Args:
            layers: Number of weight layers along the rows.
        """
        at_least = limit("gradient-step") * abs(self.decades) / max(layers, 1)
        sign = math.copysign(1.0, self.decades)
        return [step for step in self.steps if sign * step.decades >= at_least]


def was_measured(snapshot: Snapshot) -> bool:
    """Whether the gradient of any output was measured."""
    return snapshot.has(records.OUTPUT_GRADIENT)


def norms(snapshot: Snapshot) -> np.ndarray:
    """Norm per sample of the gradient of each output.

    Returns:
        Array of shape `(layers,)`; NaN where it was not measured or not all of it is
        finite.
    """
    count, samples, bad = (
        snapshot.field(name, of=records.OUTPUT_GRADIENT)
        for name in ("count", "samples", "nonfinite")
    )
    known = (count > 0) & (samples > 0) & (bad == 0)
    elements = np.sqrt(count / np.where(known, samples, 1.0))
    rms = snapshot.statistic("rms", of=records.OUTPUT_GRADIENT)
    return np.where(known, rms * elements, np.nan)


def walk(rows: Sequence[int], snapshot: Snapshot) -> Walk:
    """Read the gradients along rows.

    Args:
        rows: Rows of the snapshot, in the order of the data path.
        snapshot: The snapshot.
    """
    size = norms(snapshot)
    kept = tuple(row for row in rows if size[row] > 0)
    pooled = {row for row in kept if snapshot.layers[row].kind == "pooling"}
    steps = tuple(
        Step(row, 0.0 if row in pooled else math.log10(size[before] / size[row]))
        for before, row in itertools.pairwise(kept)
    )
    return Walk(kept, tuple(float(size[row]) for row in kept), steps)


def is_known(step: Step, profile: DepthProfile) -> bool:
    """Whether a change of the gradient is what its weights and its kind predict.

    A normalization, a pooling and a known activation function act as they should. A weight
    layer does if its forward gain, and this change, are as its weights predict.
    """
    layer = profile.graph.layers[step.row]
    if layer.kind == "activation":
        return activations.known(layer.activation)
    link = profile.links.get(step.row)
    if link is None:
        return layer.kind in ("normalization", "pooling", "merge")
    off = abs(step.decades - link.backward)
    return not link.contradicted and not off > limit("contradicted")

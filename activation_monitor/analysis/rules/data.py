"""Rules on the data: an input that is the same for all samples, targets out of scale."""

import math
from collections.abc import Iterator

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.analysis.causes import SameInput, TargetScale
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found, found
from activation_monitor.analysis.layer_graph import LayerGraph, normalizes
from activation_monitor.analysis.rules.embeddings import are_constant
from activation_monitor.analysis.shown import listed
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit

_RANDOM = ("Dropout", "Noise", "Random")
"""Parts of the names of layers whose outputs differ although their inputs do not."""


def constant_input(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """Every input of the model is the same for all samples."""
    same, graph = _same_for_all(snapshot), profile.graph
    samples = snapshot.field("samples")
    sources = [
        row
        for row in graph.order
        if not graph.parents[row] and samples[row] >= limit("constant-samples")
    ]
    if are_constant(sources, snapshot):
        return  # the vectors are the same, the integers that select them need not be
    # A layer may have more inputs, integers for example, that are not measured.
    if sources and all(
        same[row] and all(_is_alike(child, same, graph) for child in graph.children[row])
        for row in sources
    ):
        names = [snapshot.layers[row].name for row in sources]
        of = "the input of the model"
        if snapshot.layers[sources[0]].kind != "input":
            of = "the first output that was measured"
        yield found(
            "constant-input",
            snapshot,
            names,
            {"samples": samples[sources[0]], "inputs": len(sources)},
            f"All {samples[sources[0]]:.0f} samples of the batch are the same: {of} "
            f"({listed(names)}) does not differ from sample to sample. The network cannot "
            "tell them apart, whatever its weights are. This is a fault of the data or of "
            "its preprocessing, not of the initialization.",
            SameInput(tuple(sources)),
            critical=True,
        )


def _same_for_all(snapshot: Snapshot) -> np.ndarray:
    """Whether each output is the same for all samples, up to rounding."""
    within, rms = snapshot.statistic("within_std"), snapshot.statistic("rms")
    equal = snapshot.field("minimum") == snapshot.field("maximum")
    differ = within > 10.0 ** -limit("collapse-rounding") * rms
    # Squares of the smallest numbers are zero.
    return (snapshot.field("nonfinite") == 0) & ~differ & ((rms > 0) | equal)


def _is_alike(row: int, same: np.ndarray, graph: LayerGraph) -> bool:
    """Whether what is computed from an input is alike too, as far as it can be."""
    layer = graph.layers[row]
    random = any(part in layer.class_name for part in _RANDOM)
    # A normalization over the batch leaves the rounding only.
    return bool(same[row]) or random or normalizes(layer)


def target_scale(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """Targets far from the size of the outputs, as the gradient of the loss shows."""
    distances = _from_targets(snapshot, profile)
    if not distances:
        return
    rms = snapshot.statistic("rms")
    row = max(distances, key=lambda row: distances[row] / max(rms[row], 1.0))
    name, size, distance = snapshot.layers[row].name, float(rms[row]), distances[row]
    times = distance / max(size, 1.0)
    if times > limit("targets"):
        yield found(
            "target-scale",
            snapshot,
            [name],
            {"distance": distance, "output_rms": size, "times": times},
            f"The targets are about {times:.2g} times larger than the output: the output "
            f"of {name} has rms {size:.3g} and differs from its targets by {distance:.3g}, "
            f"as the gradient of the loss shows (loss {snapshot.loss:.3g}). Initializers "
            "and default learning rates assume targets of about size 1. A step of Adam "
            "changes the weights by about the learning rate, too little to reach these "
            "targets soon; SGD multiplies it by this distance, and diverges.",
            TargetScale(row, distance),
            critical=times > limit("critical") * limit("targets"),
        )


def _from_targets(snapshot: Snapshot, profile: DepthProfile) -> dict[int, float]:
    """How far each output is from its targets, if the loss is a mean error.

    The gradient of a mean squared error over `n` numbers is `2 (y - t) / n`: its rms times
    `n / 2` is the root of the loss. That of a mean absolute error is `+-1 / n`: its rms
    times `n` is 1. Where neither law holds, the loss is another one.

    Returns:
        By output, the rms of `y - t`, or the mean of `|y - t|`; empty for another loss.
    """
    of = records.OUTPUT_GRADIENT
    count, bad = (snapshot.field(name, of=of) for name in ("count", "nonfinite"))
    gradient = snapshot.statistic("rms", of=of)
    ends = [row for row in profile.graph.ends if count[row] > 0]
    if not ends or not 0 < snapshot.loss < math.inf or bad[ends].any():
        return {}
    sums = {row: float(gradient[row] * count[row]) for row in ends}
    at_most = limit("law-of-loss")
    squared = {row: total / 2 for row, total in sums.items()}
    in_all = math.sqrt(sum(distance**2 for distance in squared.values()))
    if abs(in_all / math.sqrt(snapshot.loss) - 1) < at_most:
        return squared
    if len(ends) == 1 and abs(sums[ends[0]] - 1) < at_most:
        return {ends[0]: snapshot.loss}
    return {}

"""Fixes for what is not the weights: the input, branches, operations, normalization."""

import math
from collections.abc import Sequence

import numpy as np

from activation_monitor.analysis import activations, theory
from activation_monitor.analysis.causes import (
    Along,
    InputScale,
    Operations,
    UnknownKind,
    Weights,
)
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.fix import Change, Fix
from activation_monitor.analysis.growth import GrowthRange
from activation_monitor.analysis.initializers import suitable_weights
from activation_monitor.analysis.links import Link
from activation_monitor.analysis.shown import listed
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit


def input_scale(cause: InputScale) -> Fix:
    """The fix for an input that is far from unit size."""
    given = cause.link.rms_in
    return Fix(
        "input scale",
        f"The weights of {cause.link.name} are drawn for an input of rms 1, but its input "
        f"has rms {given:.3g}. Tune the learning rate again afterwards: the present one "
        "may not suit the new size.",
        (
            Change(
                "before",
                f"keras.layers.Rescaling({1.0 / given:.3g})",
                (cause.link.name,),
                f"1 / {given:.3g}; or keras.layers.Normalization(), adapted to the data, "
                "for features with different units",
            ),
        ),
    )


def residual(stream: GrowthRange, snapshot: Snapshot, profile: DepthProfile) -> Fix:
    """The fix for a residual stream whose branches are as large as the stream."""
    graph = profile.graph
    sums = [point.row for point in stream.points if point.sum]
    trunk = {point.row for point in stream.points}
    last: list[Link] = []
    inner: list[Link] = []
    for row in sums:
        while len(graph.parents[row]) == 1:  # a layer after the sum
            (row,) = graph.parents[row]
        ends = [graph.weight_before(p) for p in graph.parents[row] if p not in trunk]
        for end in ends:
            if end is not None and end in profile.links:
                last.append(profile.links[end])
                before = [graph.weight_before(p) for p in graph.parents[end]]
                inner += [
                    profile.links[b] for b in before if b is not None and b not in trunk
                ]
    # A ReLU whose input is zero passes no gradient back.
    scales = {link: 0.0 if _passes_zero(link) else 1.0 / len(sums) for link in last}
    changed = list(scales.items())
    far = limit("excess-of-branch")
    changed += [(link, 1.0) for link in inner if abs(link.excess) > far]
    return Fix(
        "unscaled residual branch",
        f"{len(sums)} branches are added to the stream. Each is about as large as the "
        "stream, so the stream grows at every sum. Initialize each block as the identity "
        "(Goyal et al. 2017; Zhang et al. 2019, Fixup), or normalize the input of each "
        "branch.",
        suitable_weights(changed, snapshot),
    )


def _passes_zero(link: Link) -> bool:
    """Whether the activation function has a slope at 0."""
    if not activations.known(link.activation):
        return False
    _, slope = activations.ACTIVATIONS[link.activation]
    return float(slope(np.zeros(()))) != 0


def activation(links: Sequence[Link], snapshot: Snapshot, profile: DepthProfile) -> Fix:
    """The fix for activation functions that no usual initializer suits."""
    first = links[0]
    critical = theory.critical_weight_variance(first.activation)
    needs = (
        f"only weights whose fan_in times variance is {critical:.3g} keep a signal, and no "
        "usual initializer draws them"
        if math.isfinite(critical)
        else "no size of the weights keeps a signal"
    )
    passed = ""
    if math.isfinite(first.backward):
        rate = 10**first.backward
        passed = f" Here a gradient shrinks to {rate:.2g} of its size per layer."
    own = [link for link in links if snapshot.layers[link.row].activation != "linear"]
    apart = [link for link in links if link not in own]
    either = "or keras.layers.BatchNormalization() before each activation"
    changes = suitable_weights([(link, 1.0) for link in links], snapshot, "relu")
    # The activation function is set in the weight layers, or in layers after them.
    for where in (
        tuple(link.name for link in own),
        tuple(_activation_after(link, snapshot, profile) for link in apart),
    ):
        if where:
            changes = (Change("in", 'activation="relu"', where, either), *changes)
    return Fix(
        "activation function",
        f"With {first.activation}, {needs} (Schoenholz et al. 2017).{passed}",
        changes,
    )


def _activation_after(link: Link, snapshot: Snapshot, profile: DepthProfile) -> str:
    row = link.row
    while snapshot.layers[row].activation != link.activation:
        (row,) = profile.graph.children[row]
    return snapshot.layers[row].name


def operations(cause: Operations, profile: DepthProfile) -> Fix:
    """The fix for operations between weight layers."""
    off = limit("excess")
    suited = not any(abs(link.excess) > off for link in profile.links.values())
    what = (
        "a sum over many terms without a factor, a product or a rescaling"
        if cause.grows
        else "a mean over many terms, a product or a rescaling"
    )
    # Activations are alike, and the mean of terms that are alike keeps their size.
    fix = "divide a sum by the number of its terms" if cause.grows else "check its factor"
    # A tensor that no layer computes is named as the input of the layer after it.
    layers = [(name.partition(":input")[0], name) for name in cause.names]
    places = {
        "before": tuple(layer for layer, name in layers if layer != name),
        "after": tuple(layer for layer, name in layers if layer == name),
    }
    return Fix(
        "operation between layers",
        f"The operation between the weight layers may be {what}."
        f"{' The initializers suit the activation functions.' if suited else ''}",
        tuple(
            Change(where, "keras.layers.LayerNormalization()", named, f"or {fix}")
            for where, named in places.items()
            if named
        ),
    )


def own_scale(cause: UnknownKind, snapshot: Snapshot) -> Fix:
    """The fix for layers of an unknown kind that change the size of a gradient."""
    names = tuple(snapshot.layers[row].name for row in cause.rows)
    whose = "this layer" if len(names) == 1 else "each of these layers"
    predicted = [link for link in cause.links.values() if link.predicted_gain > 0]
    text = (
        f"On the way back, {whose} ({listed(names)}) multiplies the gradient by "
        f"{10**cause.decades:.3g}."
    )
    if predicted:
        first = predicted[0]
        text += (
            f" Its weights do not account for it: those of {first.name} predict that it "
            f"multiplies the signal by {first.predicted_gain:.3g}, and it does by "
            f"{first.gain:.3g}."
        )
    return Fix(
        "scale of a layer",
        f"{text} Such a layer computes something of its own, so no initializer can be "
        "recommended for it. Check the factors in its `call` (a frequency, a temperature, "
        "a scale) together with how its weights are drawn: a factor must not be applied "
        "twice, and the weights must be drawn for it.",
    )


def shortcuts(cause: Weights) -> Fix:
    """The fix for many normalized layers without shortcuts."""
    batch = ""
    if cause.grows and isinstance(cause.effect, Along):
        batch = (
            " Batch normalization before ReLU multiplies a gradient by about 1.2 per layer "
            "(Yang et al. 2019, A Mean Field Theory of Batch Normalization)."
        )
    return Fix(
        "depth without shortcuts",
        f"Normalization keeps the size of the signal, not that of the gradient.{batch} "
        "Shortcuts keep it: write x + f(x) around every one or two of these layers (He et "
        "al. 2016), or use fewer layers.",
    )


def normalization(layers: Sequence[str], snapshot: Snapshot, profile: DepthProfile) -> Fix:
    """The fix if the weights suit their activation functions and something else acts."""
    convolution = any(
        "conv" in snapshot.layers[row].class_name.lower() for row in profile.links
    )
    kind = "BatchNormalization" if convolution else "LayerNormalization"
    return Fix(
        "missing normalization",
        "The weights suit their activation functions. Something between the layers changes "
        "the size of the signal, and no normalization restores it.",
        (Change("after", f"keras.layers.{kind}()", tuple(layers)),),
    )

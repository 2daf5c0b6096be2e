"""The rule on NaN and infinity: where it begins."""

from collections.abc import Iterator

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.analysis.causes import NonFinite, NonFiniteGradient
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found, found
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit


def any_nonfinite(snapshot: Snapshot) -> bool:
    """Whether `nonfinite` could find anything, wherever it is."""
    weights = _bad_weights(snapshot)
    return bool((snapshot.field("nonfinite") > 0).any() or (weights > 0).any())


def nonfinite(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """The first layer with NaN or infinity that matters."""
    del profile  # it matters wherever it is
    bad_count = snapshot.field("nonfinite")
    used = {parent for layer in snapshot.layers for parent in layer.parents}
    multiplied = {
        parent
        for layer in snapshot.layers
        if layer.kind in ("weight", "normalization")
        for parent in layer.parents
    }
    # A model may handle infinities on purpose (a mask before a softmax). They matter where
    # they reach an output of the network; or the input of a kernel, whose gradient is NaN
    # then, even if a ReLU turns NaN into zero on the way forward; or the input of a
    # normalization, whose statistics are NaN then.
    todo = [
        int(row)
        for row in np.flatnonzero(bad_count > 0)
        if row not in used or row in multiplied
    ]
    bad: set[int] = set()
    while todo:
        row = todo.pop()
        if row not in bad:
            bad.add(row)
            todo.extend(p for p in snapshot.layers[row].parents if bad_count[p] > 0)
    if not bad:
        yield from _nonfinite_kernels(snapshot)
        return
    row = min(bad)  # layers are in the order of the calls: this is the first one
    layer, count = snapshot.layers[row], snapshot.field("count")[row]
    where, before = "the output", "Its inputs are finite"
    if layer.kind == "input" and layer.parents:
        where = "a sum in the model"
    elif layer.kind == "input":
        where, before = "the input of the model", "The batch itself contains them"
    elif not layer.parents:
        before = "No tensor before it was measured"
    yield found(
        "nonfinite-activations",
        snapshot,
        [layer.name],
        {"nonfinite": bad_count[row], "count": count},
        f"{bad_count[row]:.0f} of {count:.0f} elements of {where} ({layer.name}, "
        f"{layer.dtype}) are NaN or infinite. {before}; everything that is computed from "
        "it inherits them.",
        NonFinite(row),
        critical=True,
    )


def any_nonfinite_gradient(snapshot: Snapshot) -> bool:
    """Whether `nonfinite_gradients` could find anything, wherever it is."""
    return bool((snapshot.field("nonfinite", of=records.OUTPUT_GRADIENT) > 0).any())


def nonfinite_gradients(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """Gradients that are NaN or infinite although all activations are finite."""
    if any_nonfinite(snapshot):
        return
    graph, layers = profile.graph, snapshot.layers
    of = records.OUTPUT_GRADIENT
    count, bad = (snapshot.field(name, of=of) for name in ("count", "nonfinite"))
    # Those that no tensor after them explains. The last one is the first on the way back.
    first = [
        row
        for row in graph.order
        if bad[row] > 0 and not any(bad[child] > 0 for child in graph.children[row])
    ]
    # A loss scale overflows float16 now and then; the step is skipped and the scale halved.
    scaled = any(layer.dtype == "float16" for layer in layers)
    if not first or scaled:
        return
    row = max(first, key=lambda row: (profile.depths[row], row))
    after = [child for child in graph.children[row] if count[child] > 0]
    name = layers[row].name
    largest = float(np.nanmax([0.0, *snapshot.largest(of)]))
    overflows = largest > limit("overflow")
    between = (
        f"They have grown to {largest:.2g} before they exceed the range of "
        f"{layers[row].dtype}: the training diverges"
        if overflows
        else f"They are finite at {layers[after[-1]].name}, so the operation between "
        f"{name} and {layers[after[-1]].name} makes them"
        if after
        else f"The loss makes them: nothing that was measured follows {name}"
    )
    yield found(
        "nonfinite-gradients",
        snapshot,
        [name, *(layers[child].name for child in after[-1:])],
        {"nonfinite": bad[row], "count": count[row], "largest": largest},
        f"{bad[row]:.0f} of {count[row]:.0f} elements of the gradient by the output of "
        f"{name} are NaN or infinite, although all activations are finite. {between}. One "
        "step with such a gradient turns the weights before it into NaN.",
        NonFiniteGradient(row, after[-1] if after else None, overflows),
        critical=True,
    )


def _bad_weights(snapshot: Snapshot) -> np.ndarray:
    """How many weights of each layer are NaN or infinite, as far as they were measured."""
    return snapshot.field("nonfinite", of=records.WEIGHT)


def _nonfinite_kernels(snapshot: Snapshot) -> Iterator[Found]:
    """Weights that are NaN although activations are finite: ReLU may turn NaN into zero."""
    bad = np.flatnonzero(_bad_weights(snapshot) > 0)
    if not len(bad) or not snapshot.field("count").any():
        return  # a snapshot of weights only says nothing about outputs
    row = int(bad[0])
    name, weights = snapshot.layers[row].name, _bad_weights(snapshot)[row]
    count = snapshot.field("count", of=records.WEIGHT)[row]
    yield found(
        "nonfinite-activations",
        snapshot,
        [name],
        {"nonfinite": weights, "count": count},
        f"{weights:.0f} of {count:.0f} weights of {name} are NaN or infinite. Its outputs "
        "are finite because the activation function hides them: on some devices ReLU turns "
        "them into zeros.",
        NonFinite(row),
        critical=True,
    )

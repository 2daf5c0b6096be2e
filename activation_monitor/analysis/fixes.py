"""From a finding to its cause, and to the line of Keras code that mends it.

The measured signal gain of a layer is held against what its weights, its fan-in and its
activation function predict (`depth_profile.Link`). Where the weights are off what suits
the activation function, the cause is the initializer; where they are right, it is
something between the layers.
"""

import math
from dataclasses import dataclass

import numpy as np

from activation_monitor.analysis import activations, records, theory
from activation_monitor.analysis.change import Change, drawn_right, listed
from activation_monitor.analysis.counterfactual import size_accounts_for
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.shown import one_line
from activation_monitor.analysis.snapshot import Snapshot

_EXCESS = 0.1
"""Decades by which weights must be off to be blamed: Glorot's before ReLU are by 0.15;
measured gains are within 0.04 of what the weights predict (facts/theory.md 3.7)."""

_SHIFTED = 0.3
"""Mean over std of a kernel from which its mean is blamed. Drawn about 0, a kernel of 100
weights is there by chance once in 400."""

_CHANCE = 3.0
"""Standard deviations of chance beyond which a mean of weights is blamed."""

_FAR = 0.3
"""Decades of excess from which the inner layers of a residual branch are named as well."""


@dataclass(frozen=True)
class Fix:
    """Why it is so, and what to change.

    Attributes:
        cause: "initializer", "input scale", "missing normalization", "unscaled residual
            branch", "activation function", "depth without shortcuts", "learning rate",
            "range of float16", "data", "data or learning rate", "changed weights",
            "operation between layers", "normalization" or "not known".
        reason: How the numbers show it.
        changes: What to change.
    """

    cause: str
    reason: str
    changes: tuple[Change, ...] = ()

    def __str__(self) -> str:
        lines = [f"Cause: {self.cause}. {self.reason}"]
        if self.changes:
            lines.append("Change:")
        for change in self.changes:
            lines += [f"  {change.place}:", f"      {change.line}"]
        return "\n".join(lines)

    @one_line
    def __repr__(self) -> str:
        changes = "; ".join(f"{change.place}: {change.code}" for change in self.changes)
        return f"for cause {self.cause!r}: {changes or 'no code to change'}"


def fix_for(
    code: str,
    layers: tuple[str, ...],
    snapshot: Snapshot,
    profile: DepthProfile,
    came_up: bool = False,
) -> Fix | None:
    """What causes a finding, and what to change.

    Args:
        code: Of the finding.
        layers: Names of the layers it concerns.
        snapshot: Where it was found.
        profile: The same along depth.
        came_up: Whether snapshots before this one did not show it.

    Returns:
        The fix; None if the measurements do not show a cause.
    """
    names = set(layers)
    rows = [row for row, layer in enumerate(snapshot.layers) if layer.name in names]
    if code == "nonfinite-activations":
        return _nonfinite(rows[0], snapshot)
    if code == "dead-units" and came_up:
        return _died(layers)
    made_by = [profile.graph.weight_before(row) for row in rows]
    links = [profile.links[row] for row in dict.fromkeys(made_by) if row is not None]
    if code == "unscaled-input":
        return _input_scale(links[0])
    stream = _residual_stream(rows, profile)
    if stream and code not in (*_OF_SIGN, "mean-shift"):
        return _residual(stream, snapshot, profile)
    # Of weights that have changed since, no initializer is to blame.
    links = [link for link in links if not snapshot.layers[link.row].changed]
    shifted = [link for link in links if _is_shifted(link, snapshot)]
    if shifted or code == "symmetric-initialization":
        return _initializer(shifted or links, snapshot, _shift_reason)
    sign = -1.0 if code in _TOO_SMALL else 1.0
    contradicted = [link for link in links if link.contradicted]
    links = [link for link in links if not link.contradicted]
    off = [
        link
        for link in links
        if sign * link.excess > _EXCESS and not _has_what_suits(link, snapshot)
    ]
    if off and size_accounts_for(code, off, rows, snapshot, profile):
        changed = [link for link in off if _was_drawn_right(link, snapshot)]
        if len(changed) == len(off):
            return _changed_weights(changed, snapshot)
        return _initializer(off, snapshot, _size_reason)
    if code in _OF_SIGN:
        return _below_zero(rows[0], snapshot, profile)
    if contradicted:
        return _unknown_kind(contradicted)
    unsuited = [
        link
        for link in links
        if activations.known(link.activation)
        and not activations.initializer(link.activation)
    ]
    if unsuited:
        return _activation(unsuited, snapshot, profile)
    if links and all(math.isnan(link.weight_variance) for link in links):
        return _unknown(code, links)
    if any(segment.normalized for segment in profile.segments):
        return _shortcuts(code)
    if off:
        return _not_the_size_alone(off, snapshot)
    return _normalization(links or None, layers, snapshot, profile)


_OF_SIGN = ("dead-units", "zero-activations")
"""What the sign of the pre-activations makes: no size of the weights does."""

_TOO_SMALL = ("vanishing-activations", "zero-activations", "vanishing-gradients")


# -- the initializer


def _initializer(links, snapshot, reason):
    changes = drawn_right([(link, 1.0) for link in links], snapshot)
    return Fix("initializer", reason(links, snapshot), changes)


def _is_shifted(link, snapshot):
    """Whether the weights have a mean that is no chance: of few weights it is large."""
    if link.kernel_std == 0:
        return True
    weights = snapshot.field("count", of=records.WEIGHT)[link.row]
    if not weights:
        return False
    by_chance = _CHANCE / math.sqrt(weights)
    return abs(link.kernel_mean) > max(_SHIFTED, by_chance) * link.kernel_std


def _has_what_suits(link, snapshot):
    """Whether the layer's initializer is the recommended one, and its weights are about
    as it draws them: of the same name no change can be recommended."""
    suits = activations.initializer(link.activation)
    drawn_by = snapshot.layers[link.row].initializer.partition("(")[0]
    ((change, *_),) = (drawn_right([(link, 1.0)], snapshot),)
    same = drawn_by in _SAME.get(suits.name, ()) and f'="{suits.name}"' in change.code
    return same and abs(link.excess) <= 1.0


_SAME = {
    "he_normal": ("HeNormal", "HeUniform"),
    "lecun_normal": ("LecunNormal", "LecunUniform"),
    "glorot_uniform": ("GlorotNormal", "GlorotUniform"),
}
"""Classes of initializers that draw what the recommended one draws."""


def _not_the_size_alone(links, snapshot):
    """What is known where the weights are off and that does not account for the finding."""
    first = links[0]
    return Fix(
        "not known",
        f"{_drawn(first, snapshot)}: {_times(first)} = "
        f"{math.sqrt(first.weight_variance):.3g}. That is not what {first.activation} "
        "needs, and does not account for all of it.",
    )


def _size_reason(links, snapshot):
    first = links[0]
    suits = activations.initializer(first.activation)
    text = (
        f"{_drawn(first, snapshot)}. {_times(first)} = "
        f"{math.sqrt(first.weight_variance):.3g}, where {first.activation} needs about "
        f"{math.sqrt(suits.weight_variance):.3g} ({suits.reference})."
    )
    gains = [
        (link.gain, link.predicted_gain)
        for link in links
        if link.gain > 0 and link.predicted_gain > 0
    ]
    if gains:
        measured, predicted = np.exp(np.mean(np.log(gains), axis=0))
        text += (
            f" From these weights follows a signal gain of {predicted:.3g} per layer; "
            f"measured is {measured:.3g}."
        )
    return text


_FAMILIES = {
    "he_normal": ("HeNormal", "HeUniform"),
    "lecun_normal": ("LecunNormal", "LecunUniform", "GlorotNormal", "GlorotUniform"),
    "glorot_uniform": ("LecunNormal", "LecunUniform", "GlorotNormal", "GlorotUniform"),
}
"""Classes of initializers that draw about what the recommended one draws."""


def _was_drawn_right(link, snapshot):
    """Whether the layer's initializer is as recommended, though its weights are ten times
    off: fan-out and padding make less of a difference. Of a depthwise kernel Keras counts
    the fan-in otherwise (keras issue 11773)."""
    suits = activations.initializer(link.activation)
    drawn_by = snapshot.layers[link.row].initializer.partition("(")[0]
    far = abs(link.excess) > 1.0 and not link.depthwise
    return far and drawn_by in _FAMILIES.get(suits.name, ())


def _changed_weights(links, snapshot):
    first = links[0]
    drawn_by = snapshot.layers[first.row].initializer
    return Fix(
        "changed weights",
        f"{first.name} has {drawn_by}, which suits {first.activation}, but its weights are "
        f"{10**first.excess:.3g} times what that draws: something changed them afterwards "
        "(`assign`, `set_weights`, a loaded file, a wrong shape given to the initializer).",
        tuple(
            Change(
                "in",
                f"layer.kernel.assign(layer.kernel * {10**-link.excess:.3g})",
                (link.name,),
                "or draw them anew",
            )
            for link in links
        ),
    )


def _shift_reason(links, snapshot):
    first = links[0]
    if first.kernel_std == 0:
        return f"{_drawn(first, snapshot)}: one number for all weights."
    return (
        f"{_drawn(first, snapshot)}: the mean of the weights is {first.kernel_mean:.3g}, "
        f"beside a std of {first.kernel_std:.3g}. Weights must be drawn about zero, or all "
        "units add up the same."
    )


def _drawn(link, snapshot):
    drawn_by = snapshot.layers[link.row].initializer
    return f"{link.name} was drawn by {drawn_by}" if drawn_by else f"{link.name}"


def _times(link):
    if abs(link.kernel_mean) > _SHIFTED * link.kernel_std:
        return f"sqrt({link.fan_in:.0f}) times the rms of its weights"
    return f"sqrt({link.fan_in:.0f}) x {link.kernel_std:.3g}"


# -- what is not the initializer

_NAN_IN_TRAINING = Fix(
    "data or learning rate",
    "All was finite at the step sampled before. Either a batch in between held NaN, which "
    "makes NaN of the weights in one step: look for it first. Or steps too large drove the "
    "weights out of range.",
    (
        Change("before", "np.isnan(x).any(), np.isnan(y).any()", ("training",), "the data"),
        Change("in", "learning_rate=...", ("the optimizer",), "a tenth of what it is"),
        Change("in", "clipnorm=1.0", ("the optimizer",), "beside it, if need be"),
    ),
)


def _nonfinite(row, snapshot):
    layer = snapshot.layers[row]
    if layer.kind == "input" and not layer.parents:
        return Fix(
            "data",
            "The batch itself holds NaN or infinities. Find the rows and clean or drop "
            "them: `np.flatnonzero(~np.isfinite(x).all(axis=1))`.",
        )
    if snapshot.field("nonfinite", of=records.WEIGHT)[row]:
        if snapshot.step > 0:
            return _NAN_IN_TRAINING
        return Fix("initializer", f"The weights of {layer.name} are NaN or infinite.")
    if layer.dtype == "float16":
        return Fix(
            "range of float16",
            "It ends at 65504; bfloat16 has the range of float32.",
            (Change("in", 'dtype="mixed_bfloat16"', (layer.name,), "or as global policy"),),
        )
    if snapshot.step > 0:
        return _NAN_IN_TRAINING
    return None


def _died(layers):
    return Fix(
        "learning rate",
        "The units were alive before: steps too large pushed them below zero for all "
        "inputs. Units with a slope below zero do come back, but from steps as large they "
        "are pushed about as well.",
        (
            Change("in", "learning_rate=...", ("the optimizer",), "a tenth of what it is"),
            Change(
                "in", 'activation="leaky_relu"', tuple(layers), "after that, if need be"
            ),
        ),
    )


def _unknown(code, links):
    """Layers whose weights were not, or cannot be measured."""
    size = "small" if code in _TOO_SMALL else "large"
    return Fix(
        "initializer",
        f"Each layer multiplies the signal by about sqrt(fan_in) times the std of its "
        f"weights (He et al. 2015). Those of {listed([link.name for link in links])} were "
        f"not measured; going by the signal they are too {size}.",
    )


def _unknown_kind(links):
    """Layers that do something besides what their kernel and activation function say."""
    first = links[0]
    return Fix(
        "not known",
        f"{listed([link.name for link in links])}: from the weights of {first.name} a "
        f"signal gain of {first.predicted_gain:.3g} follows, measured is "
        f"{first.gain:.3g}. The layer does something besides (a layer of your own, a "
        "large bias), so that no initializer can be recommended for it.",
    )


def _below_zero(row, snapshot, profile):
    """What is known of a layer of zeros: what its activation function gets."""
    layer, parents = snapshot.layers[row], profile.graph.parents[row]
    if layer.kind == "activation" and len(parents) == 1:
        before = snapshot.layers[parents[0]]
        high = snapshot.statistic("maximum")[parents[0]]
        text = (
            f"The input of {layer.name}, the output of {before.name}, is at most "
            f"{high:.3g} for all samples."
        )
        if before.kind == "normalization":
            text += (
                f" {before.name} makes it so: look at its `beta` and, where it uses them "
                "(frozen, or in evaluation), its moving statistics, which do not fit this "
                "data."
            )
            return Fix("normalization", text)
        return Fix("not known", text)
    return Fix(
        "not known",
        f"The size of the weights does not make zeros of the outputs of {layer.name}. "
        "Pre-activations below zero for all samples do: a bias far below zero, or weights "
        "whose mean has the sign opposite to that of their inputs.",
    )


def _input_scale(link):
    factor = 1.0 / link.rms_in
    return Fix(
        "input scale",
        f"The weights of {link.name} are drawn for an input of rms 1; it is given "
        f"{link.rms_in:.3g}. Choose the learning rate anew afterwards: what suited the old "
        "size need not suit the new one.",
        (
            Change(
                "before",
                f"keras.layers.Rescaling({factor:.3g})",
                (link.name,),
                f"1 / {link.rms_in:.3g}; or keras.layers.Normalization(), adapted to the "
                "data, for features of different units",
            ),
        ),
    )


def _residual_stream(rows, profile):
    """The residual growth range that these rows belong to, if it is one."""
    for growth_range in profile.growth_ranges:
        points = {point.row for point in growth_range.points}
        if growth_range.residual and growth_range.open and points & set(rows):
            return growth_range
    return None


def _residual(growth_range, snapshot, profile):
    graph = profile.graph
    sums = [point.row for point in growth_range.points if point.sum]
    trunk = {point.row for point in growth_range.points}
    last, inner = [], []
    for row in sums:
        while len(graph.parents[row]) == 1:  # what follows the sum
            (row,) = graph.parents[row]
        ends = [graph.weight_before(p) for p in graph.parents[row] if p not in trunk]
        for end in ends:
            if end in profile.links:
                last.append(profile.links[end])
                before = [graph.weight_before(p) for p in graph.parents[end]]
                inner += [profile.links[b] for b in before if b not in trunk | {None}]
    # A ReLU that is given nothing but zeros hands back no gradient.
    scale = {link: 0.0 if _passes_zero(link) else 1.0 / len(sums) for link in last}
    changed = list(scale.items())
    changed += [(link, 1.0) for link in inner if abs(link.excess) > _FAR]
    return Fix(
        "unscaled residual branch",
        f"{len(sums)} branches are added to the stream, each about as large as the stream "
        "itself, so that it grows at every sum. Let each block begin as the identity "
        "(Goyal et al. 2017; Zhang et al. 2019, Fixup), or normalize what each branch is "
        "given.",
        drawn_right(changed, snapshot),
    )


def _passes_zero(link):
    """Whether the activation function has a slope at 0."""
    if not activations.known(link.activation):
        return False
    _, slope = activations.ACTIVATIONS[link.activation]
    return float(slope(np.zeros(()))) != 0


def _activation(links, snapshot, profile):
    first = links[0]
    critical = theory.critical_weight_variance(first.activation)
    needs = (
        f"a signal passes only at weights of fan_in times variance {critical:.3g}"
        if math.isfinite(critical)
        else "no size of the weights keeps a signal"
    )
    passed = ""
    if math.isfinite(first.backward):
        rate = 10**first.backward
        passed = f"; here each layer hands back {rate:.2g} of a gradient"
    own = [link for link in links if snapshot.layers[link.row].activation != "linear"]
    behind = [link for link in links if link not in own]
    either = "or keras.layers.BatchNormalization() before each activation"
    changes = drawn_right([(link, 1.0) for link in links], snapshot, "relu")
    # Where the activation is set: in the weight layers, or in those behind them.
    for where in (
        tuple(link.name for link in own),
        tuple(_activation_behind(link, snapshot, profile) for link in behind),
    ):
        if where:
            changes = (Change("in", 'activation="relu"', where, either), *changes)
    return Fix(
        "activation function",
        f"With {first.activation} {needs}, which no usual initializer draws (Schoenholz et "
        f"al. 2017){passed}.",
        changes,
    )


def _activation_behind(link, snapshot, profile):
    row = link.row
    while snapshot.layers[row].activation != link.activation:
        (row,) = profile.graph.children[row]
    return snapshot.layers[row].name


def between_layers(names: list[str], grows: bool, profile: DepthProfile) -> Fix:
    """Of operations between layers, named by the tensors behind them."""
    suited = not any(abs(link.excess) > _EXCESS for link in profile.links.values())
    what = (
        "a sum over many terms without a factor, a product, a rescaling"
        if grows
        else "a mean over many terms, a product, a rescaling"
    )
    # Of terms that are alike, as activations are, the mean keeps the size.
    fix = "divide a sum by the number of its terms" if grows else "check its factor"
    # A tensor that no layer made is named as the input of the layer behind it.
    given = [name.partition(":input")[0] for name in names]
    places = {
        "before": tuple(g for g, name in zip(given, names, strict=True) if g != name),
        "after": tuple(g for g, name in zip(given, names, strict=True) if g == name),
    }
    return Fix(
        "operation between layers",
        f"What stands between the weight layers is {what}."
        f"{' The initializers are right.' if suited else ''}",
        tuple(
            Change(where, "keras.layers.LayerNormalization()", layers, f"or {fix}")
            for where, layers in places.items()
            if layers
        ),
    )


def _shortcuts(code):
    batch = "exploding" in code and (
        " Batch normalization itself does that: in front of ReLU it multiplies a gradient "
        "by about 1.2 per layer (Yang et al. 2019, A Mean Field Theory of Batch "
        "Normalization)."
    )
    return Fix(
        "depth without shortcuts",
        "Normalization keeps the signal's size, not the gradient's."
        f"{batch or ''} Shortcuts do: write x + f(x) around every one or two of these "
        "layers (He et al. 2016), or use fewer.",
    )


def _normalization(links, layers, snapshot, profile):
    concerned = tuple(link.name for link in links) if links else tuple(layers)
    convolution = any(
        "conv" in snapshot.layers[row].class_name.lower() for row in profile.links
    )
    kind = "BatchNormalization" if convolution else "LayerNormalization"
    return Fix(
        "missing normalization",
        "The weights are as their activation functions need them; what changes the size "
        "stands between them, and nothing sets it right.",
        (Change("after", f"keras.layers.{kind}()", concerned),),
    )

"""Fixes for weights: of the wrong size or mean, or changed after they were drawn."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from activation_monitor.analysis import activations, records
from activation_monitor.analysis.causes import EqualWeights, Weights
from activation_monitor.analysis.counterfactual import size_accounts_for
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.fix import Change, Fix
from activation_monitor.analysis.fixes import between
from activation_monitor.analysis.initializers import (
    has_suitable,
    suitable_weights,
    was_changed,
)
from activation_monitor.analysis.links import Link
from activation_monitor.analysis.shown import listed
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit


def equal(cause: EqualWeights, snapshot: Snapshot) -> Fix:
    """The fix for layers in which all weights are equal."""
    return _initializer(cause.links, snapshot, _mean_reason)


def wrong_size(cause: Weights, snapshot: Snapshot, profile: DepthProfile) -> Fix:
    """The fix for layers whose weights may be too large or too small."""
    if cause.stream:
        return between.residual(cause.stream, snapshot, profile)
    fix = wrong_mean(cause.links, snapshot)
    if fix:
        return fix
    links = _as_drawn(cause.links, snapshot)
    unknown_kind = [link for link in links if link.contradicted]
    off = off_size(links, cause.grows, snapshot)
    if off and size_accounts_for(cause.effect, off):
        return draw_again(off, snapshot)
    if unknown_kind:
        return _of_unknown_kind(unknown_kind)
    unsuited = [
        link
        for link in links
        if activations.known(link.activation)
        and not activations.initializer(link.activation)
    ]
    if unsuited:
        return between.activation(unsuited, snapshot, profile)
    if links and all(math.isnan(link.weight_variance) for link in links):
        return _not_measured(links, cause.grows)
    if any(segment.normalized for segment in profile.segments):
        return between.shortcuts(cause)
    if off:
        return _not_the_size_alone(off[0], snapshot)
    names = [link.name for link in links]
    names = names or [snapshot.layers[row].name for row in cause.rows]
    return between.normalization(names, snapshot, profile)


def wrong_mean(links: Sequence[Link], snapshot: Snapshot) -> Fix | None:
    """The fix for weights whose mean is not zero; None if there are none."""
    shifted = [link for link in _as_drawn(links, snapshot) if _is_shifted(link, snapshot)]
    return _initializer(shifted, snapshot, _mean_reason) if shifted else None


def off_size(links: Sequence[Link], grows: bool, snapshot: Snapshot) -> list[Link]:
    """The layers whose weights are too large, or too small.

    Layers of an unknown kind are left out, and those that already have the initializer that
    would be recommended.

    Args:
        links: The layers.
        grows: Whether to return those with too large weights, else too small ones.
        snapshot: The snapshot of these layers.
    """
    sign = 1.0 if grows else -1.0
    return [
        link
        for link in _as_drawn(links, snapshot)
        if not link.contradicted
        and sign * link.excess > limit("excess")
        and not has_suitable(link, snapshot)
    ]


def draw_again(off: Sequence[Link], snapshot: Snapshot) -> Fix:
    """The fix for layers whose weights have the wrong size."""
    if all(was_changed(link, snapshot) for link in off):
        return _changed_weights(off, snapshot)
    fix = _initializer(off, snapshot, _size_reason)
    if len(off) < limit("many-layers"):
        return fix
    # A model with so many layers is often made by a function that takes no initializer.
    return dataclasses.replace(fix, changes=(*fix.changes, _RESCALE))


_RESCALE = Change(
    "before",
    "activation_monitor.rescale(model, x)",
    ("training",),
    "in place of all these, for a model that a function makes, as in keras.applications",
)


def _as_drawn(links: Sequence[Link], snapshot: Snapshot) -> list[Link]:
    """The layers whose weights have not changed: no initializer causes what others do."""
    return [link for link in links if not snapshot.layers[link.row].changed]


def _is_shifted(link: Link, snapshot: Snapshot) -> bool:
    """Whether the mean of the weights is beyond chance, which is large for few weights."""
    if link.kernel_std == 0:
        return True
    weights = snapshot.field("count", of=records.WEIGHT)[link.row]
    if not weights:
        return False
    by_chance = limit("kernel-mean-chance") / math.sqrt(weights)
    return abs(link.kernel_mean) > max(limit("kernel-mean"), by_chance) * link.kernel_std


def _initializer(
    links: Sequence[Link],
    snapshot: Snapshot,
    reason: Callable[[Sequence[Link], Snapshot], str],
) -> Fix:
    changes = suitable_weights([(link, 1.0) for link in links], snapshot)
    return Fix("initializer", reason(links, snapshot), changes)


def _size_reason(links: Sequence[Link], snapshot: Snapshot) -> str:
    first = links[0]
    suits = activations.INITIALIZERS[first.activation]  # without one there is no excess
    needs = f"about {math.sqrt(suits.weight_variance):.3g} ({suits.reference})"
    text = (
        f"{_drawn(first, snapshot)}: {_times(first)} = "
        f"{math.sqrt(first.weight_variance):.3g}, but {first.activation} needs {needs}."
    )
    gains = [
        (link.gain, link.predicted_gain)
        for link in links
        if link.gain > 0 and link.predicted_gain > 0
    ]
    if gains:
        measured, predicted = np.exp(np.mean(np.log(gains), axis=0))
        text += (
            f" These weights predict a signal gain of {predicted:.3g} per layer; the "
            f"measured gain is {measured:.3g}."
        )
    return text


def _mean_reason(links: Sequence[Link], snapshot: Snapshot) -> str:
    first = links[0]
    if first.kernel_std == 0:
        return f"{_drawn(first, snapshot)}: all have the same value."
    return (
        f"{_drawn(first, snapshot)}: their mean is {first.kernel_mean:.3g}, their std "
        f"{first.kernel_std:.3g}. Draw weights around zero; otherwise all units "
        "compute nearly the same sum."
    )


def _drawn(link: Link, snapshot: Snapshot) -> str:
    drawn_by = snapshot.layers[link.row].initializer
    how = f" were drawn with {drawn_by}" if drawn_by else ""
    return f"The weights of {link.name}{how}"


def _times(link: Link) -> str:
    if abs(link.kernel_mean) > limit("kernel-mean") * link.kernel_std:
        rms = math.hypot(link.kernel_std, link.kernel_mean)
        return f"sqrt(fan_in) times their rms is sqrt({link.fan_in:.0f}) x {rms:.3g}"
    return (
        f"sqrt(fan_in) times their std is sqrt({link.fan_in:.0f}) x {link.kernel_std:.3g}"
    )


def _changed_weights(links: Sequence[Link], snapshot: Snapshot) -> Fix:
    first = links[0]
    drawn_by = snapshot.layers[first.row].initializer
    return Fix(
        "changed weights",
        f"{first.name} has {drawn_by}, which suits {first.activation}, but its weights are "
        f"{10**first.excess:.3g} times as large as this initializer draws them. Something "
        "changed them afterwards: `assign`, `set_weights`, a loaded file, or a wrong shape "
        "passed to the initializer.",
        tuple(
            Change(
                "in",
                f"layer.kernel.assign(layer.kernel * {10**-link.excess:.3g})",
                (link.name,),
                "or initialize them again",
            )
            for link in links
        ),
    )


def _not_measured(links: Sequence[Link], grows: bool) -> Fix:
    """For layers whose weights were not, or cannot be measured."""
    return Fix(
        "initializer",
        "Each layer multiplies the signal by about sqrt(fan_in) times the std of its "
        f"weights (He et al. 2015). The weights of {listed([link.name for link in links])} "
        f"were not measured; the signal suggests that they are too "
        f"{'large' if grows else 'small'}.",
    )


def _not_the_size_alone(link: Link, snapshot: Snapshot) -> Fix:
    """For weights that are off by too little to account for the finding."""
    return Fix(
        "not known",
        f"{_drawn(link, snapshot)}: {_times(link)} = "
        f"{math.sqrt(link.weight_variance):.3g}. {link.activation} needs another size, but "
        "that does not account for all of the finding.",
    )


def _of_unknown_kind(links: Sequence[Link]) -> Fix:
    """For layers that do more than their kernel and activation function say."""
    first = links[0]
    return Fix(
        "not known",
        f"{listed([link.name for link in links])}: the weights of {first.name} predict a "
        f"signal gain of {first.predicted_gain:.3g}, but the measured gain is "
        f"{first.gain:.3g}. The layer does something else as well (a custom layer, a large "
        "bias), so no initializer can be recommended for it.",
    )

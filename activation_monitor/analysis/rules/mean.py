"""The rule on means that outweigh what varies, of activations and of weights."""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from activation_monitor.analysis.causes import Weights
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found, found
from activation_monitor.analysis.layer_graph import LayerGraph
from activation_monitor.analysis.links import Link
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit

_OWN_MEAN = ("sigmoid", "hard_sigmoid", "softmax", "softplus", "exponential")
"""Activation functions whose outputs are all positive."""


def mean_shift(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """Activations of the same sign and size, or weights that make them so."""
    mean, rms = snapshot.statistic("mean"), snapshot.statistic("rms")
    rms = np.where(snapshot.field("nonfinite") > 0, np.nan, rms)
    shifted = _shifted(snapshot, profile)
    if shifted:
        first = shifted[0]
        common = first.fan_in * abs(first.kernel_mean)
        own = math.sqrt(first.fan_in) * first.kernel_std
        yield found(
            "mean-shift",
            snapshot,
            [link.name for link in shifted],
            {"common_gain": common, "own_gain": own, "kernel_mean": first.kernel_mean},
            f"The weights of {first.name} have a mean of {first.kernel_mean:.3g}, which "
            "outweighs their spread. The layer multiplies what its inputs have in common "
            f"by {common:.3g} (fan_in times the mean), and what distinguishes them by "
            f"{own:.3g} (sqrt(fan_in) times the std). After a few layers all units output "
            "nearly the same.",
            _cause([link.row for link in shifted], profile),
        )
    for segment in profile.segments:
        for row in segment.rows:
            layer = snapshot.layers[row]
            shift = abs(mean[row]) / rms[row] if rms[row] > 0 else 0.0
            if (
                segment.open
                and layer.kind in ("weight", "activation")
                and layer.activation not in _OWN_MEAN
                and layer.width >= limit("narrowest")
                and shift > limit("mean-shift")
            ):
                yield found(
                    "mean-shift",
                    snapshot,
                    [layer.name],
                    {"mean": mean[row], "rms": rms[row], "shift": shift},
                    f"All units of {layer.name} output nearly the same: their mean is "
                    f"{mean[row]:.3g}, {shift:.0%} of their rms. A common mean makes the "
                    "loss steep in one direction and flat in all others (LeCun et al. "
                    "1998, Efficient BackProp, section 4.3).",
                    _cause([row], profile),
                )
                return


def _cause(rows: list[int], profile: DepthProfile) -> Weights:
    links = profile.links_before(rows)
    return Weights(rows=tuple(rows), links=links, grows=True, effect="mean")


def _shifted(snapshot: Snapshot, profile: DepthProfile) -> list[Link]:
    """Hidden weight layers whose weights have a mean that outweighs their spread.

    In a chain each of them counts. Elsewhere batch normalization or a shortcut makes up for
    a single one, so most layers must have such weights. A normalization over the units
    removes what they have in common altogether.
    """

    def shifted(links: Iterable[Link]) -> list[Link]:
        return [
            link
            for link in links
            if _common(link) > limit("common-gain")
            and snapshot.layers[link.row].width >= limit("narrowest")
        ]

    hidden = profile.graph.feeds_weight()
    chained = {link.row: link for segment in profile.segments for link in segment.links}
    others = [
        link
        for row, link in profile.links.items()
        if hidden[row] and row not in chained and not _centred(row, profile.graph)
    ]
    found_there = shifted(others)
    if 2 * len(found_there) <= len(others):
        found_there = []
    return sorted(shifted(chained.values()) + found_there, key=lambda link: link.row)


def _centred(row: int, graph: LayerGraph) -> bool:
    """Whether a normalization over the units follows."""
    after = {graph.layers[child].class_name for child in graph.children[row]}
    return bool(after & {"LayerNormalization", "GroupNormalization"})


def _common(link: Link) -> float:
    """Gain of what the inputs have in common over the gain of what distinguishes them."""
    if not link.kernel_std > 0 or link.depthwise:
        return 0.0
    return math.sqrt(link.fan_in) * abs(link.kernel_mean) / link.kernel_std

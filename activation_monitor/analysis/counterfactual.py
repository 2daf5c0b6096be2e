"""Whether undoing a cause would undo a finding, computed from the snapshot.

A cause must account for its effect: weights that are off by a factor of two do not make a
layer output zeros. So before the size of weights is reported as the cause, the finding is
computed again with weights of the right size.
"""

import math
from collections.abc import Sequence

from scipy import special

from activation_monitor.analysis import activations, records, theory
from activation_monitor.analysis.causes import Along, Effect
from activation_monitor.analysis.growth import DTYPE_LIMITS
from activation_monitor.analysis.links import Link
from activation_monitor.analysis.thresholds import limit

_HOMOGENEOUS = ("relu", "leaky_relu", "linear")


def size_accounts_for(effect: Effect, links: Sequence[Link]) -> bool:
    """Whether the finding would be gone if these layers had weights of the right size.

    Args:
        effect: How the finding depends on the size of the weights, `Weights.effect`.
        links: The layers whose weights are off, with a finite `excess`.
    """
    if isinstance(effect, Along):
        left = _with_right_size(effect, links)
        return abs(left) <= limit("accounts-for") * abs(effect.decades)
    if effect == "limits":
        return all(_leaves_its_limits(link) for link in links)
    if effect == "differences":
        # ReLU loses the differences between samples at any size of the weights.
        return any(link.activation not in _HOMOGENEOUS for link in links)
    return effect == "gain"  # the mean over the rms is the same for any size


def underflows(link: Link, dtype: str) -> bool:
    """Whether the output that follows from the weights is below the range of its dtype."""
    smallest, _ = DTYPE_LIMITS.get(dtype, (0.0, math.inf))
    return link.weight_variance == 0 or link.rms_in * link.predicted_gain < smallest


def _with_right_size(effect: Along, off: Sequence[Link]) -> float:
    """Decades of growth along the chain if these layers had weights of the right size.

    Of the signal from the output of the first layer to that of the last one, or of a
    gradient on its way back: the length map and chi_1 (Poole et al. 2016), layer by layer.
    NaN if something is not known.
    """
    chain, of_off = effect.chain, {link.row for link in off}
    if not chain:
        return math.nan
    second, forward, backward = chain[0].rms_in ** 2, 0.0, 0.0
    if not (math.isfinite(second) and second > 0):
        second = 1.0
    for i, link in enumerate(chain):
        if not (link.weight_variance > 0 and activations.known(link.activation)):
            return math.nan
        right = 10.0 ** (-2.0 * link.excess) if link.row in of_off else 1.0
        variance = link.weight_variance * right
        q = variance * second
        after = theory.second_moment(link.activation, q)
        slope = theory.slope_second_moment(link.activation, q)
        if not (after > 0 and math.isfinite(after) and slope > 0):
            return math.nan
        if i:
            forward += 0.5 * math.log10(after / second)
            backward += 0.5 * math.log10(variance * slope)
        second = after
    return backward if effect.backward else forward


def _leaves_its_limits(link: Link) -> bool:
    """Whether weights of the right size would keep the layer's outputs off its limits."""
    q = link.pre_activation * 10.0 ** (-2.0 * link.excess)
    if not (math.isfinite(q) and q > 0 and link.activation in records.SATURATED):
        return True
    _, high = records.SATURATED[link.activation]
    phi, _ = activations.ACTIVATIONS[link.activation]
    edge = _inverse(phi, high)
    share = special.erfc(edge / math.sqrt(2.0 * q))
    return bool(share < limit("leaves-limits"))


def _inverse(phi: activations.Function, value: float) -> float:
    """The argument between 0 and 1000 at which an increasing function has a value."""
    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = float(phi(middle)) < value  # arrays of no dimension as well
        low, high = (middle, high) if below else (low, middle)
    return high

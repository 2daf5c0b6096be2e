"""Whether undoing a cause would undo a finding, computed from the record.

A cause must account for its effect: weights that are off by a factor of two do not make a
layer of zeros. So before an initializer is blamed for the size of its weights, the finding
is computed again with the weights as they should be.
"""

import math

from scipy import special

from activation_monitor.analysis import activations, records, theory
from activation_monitor.analysis.depth_profile import DTYPE_LIMITS, DepthProfile, Link
from activation_monitor.analysis.snapshot import Snapshot

_HALF = 0.5
"""Share of a finding's decades that undoing its cause must take away: the rest is another
finding, after this one is fixed."""

_HOMOGENEOUS = ("relu", "leaky_relu", "linear")


def size_accounts_for(
    code: str,
    links: list[Link],
    rows: list[int],
    snapshot: Snapshot,
    profile: DepthProfile,
) -> bool:
    """Whether the finding would be gone, had these layers weights of the right size.

    Args:
        code: Of the finding.
        links: The layers whose weights are off, with a finite `excess`.
        rows: Rows of the layers that the finding names.
        snapshot: Where it was found.
        profile: The same along depth.
    """
    if code in ("dead-units", "mean-shift"):
        return False  # of a sign, or of a mean over rms: no size changes either
    if code == "zero-activations":
        return any(_underflows(link, snapshot) for link in links)
    if code == "collapsed-activations":
        # ReLU loses what differs from sample to sample at any size of the weights.
        return any(link.activation not in _HOMOGENEOUS for link in links)
    if code == "saturated-activations":
        return all(_leaves_its_limits(link) for link in links)
    if code == "outlier-gain":
        return True  # it is the gain of one layer against what suits it
    chain, decades, backward = _turned_on(code, rows, snapshot, profile)
    forward_then, backward_then = _drawn_right(chain, links)
    rest = backward_then if backward else forward_then
    return abs(rest) <= _HALF * abs(decades)


def _turned_on(code, rows, snapshot, profile):
    """The chain along which a finding was read, over how many decades, and whether that
    was backward; an empty chain and NaN if it is not known."""
    concerned = set(rows)
    if code.endswith("gradients"):
        for segment in profile.segments:
            if concerned & {link.row for link in segment.links}:
                measured = records.OUTPUT_GRADIENT in snapshot.quantities
                return segment.links, math.nan if measured else segment.backward, True
        return (), math.nan, True
    for growth_range in profile.growth_ranges:
        inside = {profile.graph.weight_before(point.row) for point in growth_range.points}
        inside |= {point.row for point in growth_range.points}
        if growth_range.open and growth_range.measured and concerned & inside:
            first, last = (growth_range.measured[i].depth for i in (0, -1))
            chain = [
                link
                for segment in profile.segments
                if segment.links and inside & set(segment.rows)
                for link in segment.links
                if first <= profile.depths[link.row] <= last
            ]
            return chain, growth_range.decades, False
    return (), math.nan, False


def _drawn_right(chain, off):
    """Decades by which the signal grows from the first layer's output to the last one's,
    and a gradient on its way back, if the weights of these layers were as they should be:
    the length map and chi_1 (Poole et al. 2016), layer by layer."""
    if not chain:
        return math.nan, math.nan
    of_off = {link.row for link in off}
    second, forward, backward = chain[0].rms_in ** 2, 0.0, 0.0
    if not (math.isfinite(second) and second > 0):
        second = 1.0
    for i, link in enumerate(chain):
        if not (link.weight_variance > 0 and activations.known(link.activation)):
            return math.nan, math.nan
        right = 10.0 ** (-2.0 * link.excess) if link.row in of_off else 1.0
        variance = link.weight_variance * right
        q = variance * second
        after = theory.second_moment(link.activation, q)
        slope = theory.slope_second_moment(link.activation, q)
        if not (after > 0 and math.isfinite(after) and slope > 0):
            return math.nan, math.nan
        if i:
            forward += 0.5 * math.log10(after / second)
            backward += 0.5 * math.log10(variance * slope)
        second = after
    return forward, backward


def _underflows(link, snapshot):
    """Whether what these weights make of their input is below the range of its dtype."""
    smallest, _ = DTYPE_LIMITS.get(snapshot.layers[link.row].dtype, (0.0, math.inf))
    return link.weight_variance == 0 or link.rms_in * link.predicted_gain < smallest


def _leaves_its_limits(link):
    """Whether weights of the right size would put the layer's outputs off its limits."""
    q = link.pre_activation * 10.0 ** (-2.0 * link.excess)
    if not (math.isfinite(q) and q > 0 and link.activation in records.SATURATED):
        return True
    _, high = records.SATURATED[link.activation]
    phi, _ = activations.ACTIVATIONS[link.activation]
    edge = _inverse(phi, high)
    share = special.erfc(edge / math.sqrt(2.0 * q))
    return bool(share < _HALF)


def _inverse(phi, value):
    """Where an increasing function reaches a value, between 0 and 1000."""
    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if phi(middle) < value else (low, middle)
    return high

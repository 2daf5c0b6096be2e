"""Whether undoing a cause would undo a finding, computed from the record.

A cause must account for its effect: weights that are off by a factor of two do not make a
layer of zeros. So before an initializer is blamed for the size of its weights, the finding
is computed again with the weights as they should be.
"""

import math

from scipy import special

from activation_monitor.analysis import activations, moments
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
    decades, counted = _turned_on(code, rows, snapshot, profile)
    rest = decades - sum(link.excess for link in links if link.row in counted)
    return not abs(rest) > _HALF * abs(decades)


def _turned_on(code, rows, snapshot, profile):
    """The decades on which the finding turned, and the rows of the layers that made them:
    not the first, at whose output they begin. NaN if they are not known."""
    concerned = set(rows)
    if code.endswith("gradients"):
        for stretch in profile.stretches:
            links = [link.row for link in stretch.links]
            if snapshot.gradients is None and concerned & set(links):
                return stretch.backward, set(links[1:])
        return math.nan, set()
    for segment in profile.segments:
        inside = {profile.graph.weight_before(point.row) for point in segment.points}
        inside |= {point.row for point in segment.points}
        if segment.open and segment.measured and concerned & inside:
            start = profile.depths[segment.measured[0].row]
            return segment.decades, {r for r in profile.links if profile.depths[r] > start}
    return math.nan, set()


def _underflows(link, snapshot):
    """Whether what these weights make of their input is below the range of its dtype."""
    smallest, _ = DTYPE_LIMITS.get(snapshot.layers[link.row].dtype, (0.0, math.inf))
    return link.weight_variance == 0 or link.rms_in * link.predicted_gain < smallest


def _leaves_its_limits(link):
    """Whether weights of the right size would put the layer's outputs off its limits."""
    q = link.pre_activation * 10.0 ** (-2.0 * link.excess)
    if not (math.isfinite(q) and q > 0 and link.activation in moments.SATURATED):
        return True
    _, high = moments.SATURATED[link.activation]
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

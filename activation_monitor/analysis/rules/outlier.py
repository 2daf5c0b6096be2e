"""The rule on one layer that stands out, which others leave out of their account."""

import math
from collections.abc import Iterator

import numpy as np

from activation_monitor.analysis import activations, theory
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Finding, found, limit
from activation_monitor.analysis.snapshot import Snapshot


def outlier(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """One layer of a chain, or of a stream's branches, whose signal gain is far off."""
    for segment in profile.segments:
        link, decades = outlier_link(segment)
        if not segment.open or link is None:
            continue
        # A large step from a small signal to one of size 1 does no harm. Nor does a step
        # down in a branch: the stream goes on beside it.
        size = math.log10(link.rms_out)
        down = max(decades, size) < -limit("outlier-down") and link in segment.links
        if down or min(decades, size) > limit("exploding"):
            typical = 10 ** (math.log10(link.gain) - decades)
            yield found(
                "outlier-gain",
                snapshot,
                [link.name],
                {"gain": link.gain, "peers": typical, "decades": decades},
                f"{link.name} multiplies the rms of its input by {link.gain:.3g}, where "
                f"{'its peers' if _has_peers(segment) else 'the usual initializer'} would "
                f"by {typical:.3g}. The layers behind it carry that on.",
                critical=decades > 2 * limit("exploding"),
            )


def outlier_link(segment):
    """The one link that is far from all others, and by how many decades."""
    links = segment.links
    if not links:  # a branch that begins at zero is good practice
        links = [link for link in segment.branches if math.isfinite(_off(link))]
    off = np.array([_off(link) for link in links])
    if len(off) < 2 or not np.isfinite(off).all():
        return None, 0.0
    beside = off - np.median(off)
    if not _has_peers(segment):
        # Too few to say what is common among them. The first one's step no growth shows,
        # and it is held against the initializer that suits.
        known = all(activations.known(link.activation) for link in links)
        beside = off if known else np.zeros_like(off)
    odd = int(np.argmax(np.abs(beside)))
    rest = np.delete(beside, odd)
    stands_out = abs(beside[odd]) > 1.0 and np.abs(rest).max() < 0.5 * abs(beside[odd])
    if stands_out and (_has_peers(segment) or links[odd] in segment.links[:1]):
        return links[odd], float(beside[odd])
    return None, 0.0


def _has_peers(segment):
    return len(segment.links or segment.branches) > limit("peers")


def _off(link):
    """Decades by which the measured gain is off that of the initializer that suits."""
    if not (link.gain > 0 and math.isfinite(link.gain)):
        return math.nan
    if not activations.known(link.activation):
        return math.log10(link.gain)
    suits = activations.initializer(link.activation)
    q = (suits.weight_variance if suits else 1.0) * link.rms_in**2
    return math.log10(link.rms_out) - 0.5 * math.log10(
        theory.second_moment(link.activation, q)
    )

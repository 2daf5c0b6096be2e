"""The rule on one layer that stands out. Other rules leave such a layer out of account."""

import math
from collections.abc import Iterator

import numpy as np

from activation_monitor.analysis import activations, theory
from activation_monitor.analysis.causes import Weights
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found, found
from activation_monitor.analysis.links import Link
from activation_monitor.analysis.recurrent import readings
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit
from activation_monitor.analysis.trunk import Segment


def outlier(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """One layer of a chain, or of the branches of a stream, whose gain is far off."""
    over_time = {one.link.row for one in readings(snapshot, profile) if one.explodes}
    for segment in profile.segments:
        link, decades = outlier_link(segment)
        if not segment.open or link is None or link.row in over_time:
            continue
        # A large step from a small signal to one of size 1 does no harm. Neither does a
        # step down in a branch: the stream continues next to it.
        size = math.log10(link.rms_out)
        down = max(decades, size) < -limit("outlier-down") and link in segment.links
        if down or min(decades, size) > limit("exploding"):
            typical = 10 ** (math.log10(link.gain) - decades)
            others = (
                f"its peers multiply it by {typical:.3g}"
                if _has_peers(segment)
                else f"with a usual initializer it would be {typical:.3g}"
            )
            yield found(
                "outlier-gain",
                snapshot,
                [link.name],
                {"gain": link.gain, "peers": typical, "decades": decades},
                f"The signal gain of {link.name} stands out: it multiplies the rms of its "
                f"input by {link.gain:.3g}, but {others}. All layers after it inherit "
                "this.",
                Weights(
                    rows=(link.row,),
                    links=(link,),
                    grows=decades > 0,
                    effect="gain",
                    stream=profile.stream_through([link.row]),
                ),
                critical=decades > limit("critical") * limit("exploding"),
            )


def outlier_link(segment: Segment) -> tuple[Link | None, float]:
    """The one layer whose gain is far from that of all others, and by how many decades.

    Returns:
        None and 0 if no layer stands out.
    """
    links = segment.links
    if not links:  # a branch that begins at zero is good practice
        links = tuple(link for link in segment.branches if math.isfinite(_off(link)))
    off = np.array([_off(link) for link in links])
    if len(off) < 2 or not np.isfinite(off).all():
        return None, 0.0
    distance = off - np.median(off)
    if not _has_peers(segment):
        # Too few layers to have a common gain. Growth does not show the step of the first
        # one, so it is compared with the suitable initializer.
        known = all(activations.known(link.activation) for link in links)
        distance = off if known else np.zeros_like(off)
    odd = int(np.argmax(np.abs(distance)))
    farthest = abs(distance[odd])
    others = np.abs(np.delete(distance, odd)).max()
    stands_out = farthest > limit("outlier") and others < limit("outlier-others") * farthest
    if stands_out and (_has_peers(segment) or links[odd] in segment.links[:1]):
        return links[odd], float(distance[odd])
    return None, 0.0


def _has_peers(segment: Segment) -> bool:
    return len(segment.links or segment.branches) > limit("peers")


def _off(link: Link) -> float:
    """Decades by which the measured gain is off that of a suitable initializer."""
    if not (link.gain > 0 and math.isfinite(link.gain)):
        return math.nan
    if not activations.known(link.activation):
        return math.log10(link.gain)
    suits = activations.initializer(link.activation)
    q = (suits.weight_variance if suits else 1.0) * link.rms_in**2
    return math.log10(link.rms_out) - 0.5 * math.log10(
        theory.second_moment(link.activation, q)
    )

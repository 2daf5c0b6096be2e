"""Rules on the size of the signal along depth."""

import math
from collections.abc import Iterator

import numpy as np

from activation_monitor.analysis.causes import (
    Along,
    EmbeddingScale,
    InputScale,
    Operations,
    Weights,
    Zeros,
)
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found, found
from activation_monitor.analysis.growth import DTYPE_LIMITS, GrowthRange
from activation_monitor.analysis.links import Link
from activation_monitor.analysis.rules.embeddings import are_constant
from activation_monitor.analysis.rules.outlier import outlier_link
from activation_monitor.analysis.shown import count
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit


def growth(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """The signal grows or decays exponentially with depth."""
    for growth_range in profile.growth_ranges:
        harm = _harm(growth_range, profile)
        if -limit("vanishing") <= harm <= limit("exploding"):
            continue
        if growth_range.operations and harm * _harm_in_all(growth_range) <= 0:
            continue  # operations undo it: the signal keeps its size
        by_chance = limit("significance") * growth_range.chance_sd
        if abs(growth_range.decades - growth_range.chance_mean) <= by_chance:
            continue
        grows = growth_range.decades > 0
        direction = "exploding" if grows else "vanishing"
        first, last = growth_range.measured[0], growth_range.measured[-1]
        low, high = growth_range.interval()
        end = "overflow" if grows else "underflow"
        depths = {f"{end}_{d}": growth_range.limit_depth(d) for d in DTYPE_LIMITS}
        rows = _concerned(growth_range, profile)
        yield found(
            f"{direction}-activations",
            snapshot,
            [snapshot.layers[row].name for row in rows],
            {
                "growth": growth_range.growth,
                "expected_low": low,
                "expected_high": high,
                "decades": growth_range.decades,
                "layers": growth_range.layers,
                "first_rms": first.rms,
                "last_rms": last.rms,
            }
            | depths,
            f"The signal {'explodes' if grows else 'vanishes'} with depth: from "
            f"{first.name} to {last.name} the rms of the activations "
            f"{'grows' if grows else 'falls'} from {first.rms:.3g} to {last.rms:.3g}, "
            f"{growth_range.growth:.4g} times per weight layer over "
            f"{count(growth_range.layers, 'weight layer')}. Weights are random, so growth "
            f"varies even with a correct initializer, here between {low:.3g} and "
            f"{high:.3g} times per layer.{_beyond(growth_range, snapshot)}",
            Weights(
                rows=tuple(sorted(rows)),
                links=profile.links_before(sorted(rows)),
                grows=grows,
                effect=Along(
                    _chain(growth_range, profile), growth_range.decades, backward=False
                ),
                stream=profile.stream_through(rows),
            ),
            critical=abs(harm) > limit("critical") * limit(direction),
        )


def _chain(growth_range: GrowthRange, profile: DepthProfile) -> tuple[Link, ...]:
    """The weight layers between the ends of a growth range, if they form a chain."""
    inside = {point.row for point in growth_range.points}
    inside |= {profile.graph.weight_before(row) for row in inside} - {None}
    first, last = (growth_range.measured[i].depth for i in (0, -1))
    return tuple(
        link
        for segment in profile.segments
        if inside & set(segment.rows)
        for link in segment.links
        if first <= profile.depths[link.row] <= last
    )


def _harm(growth_range: GrowthRange, profile: DepthProfile) -> float:
    """Decades of growth that count.

    Growth towards the size that a signal should have, 1, does not count: a large input that
    shrinks, or a small one that grows. Neither does the step of one outlier, which is
    another finding.
    """
    if not growth_range.open or growth_range.layers < 1:
        return 0.0
    decades, rows = growth_range.decades, {point.row for point in growth_range.points}
    segment = next(s for s in profile.segments if rows <= set(s.rows))
    link, odd = outlier_link(segment)
    if link in segment.links[1:] or (link in segment.branches[1:] and odd > 0):
        decades -= odd
        if decades * growth_range.decades < 0:
            return 0.0
    return _away_from_one(decades, growth_range.measured[0].rms)


def _harm_in_all(growth_range: GrowthRange) -> float:
    """Decades that count of everything that happens to the signal, with operations."""
    if not growth_range.open or not growth_range.start > 0:
        return 0.0
    return _away_from_one(growth_range.whole, growth_range.start)


def _away_from_one(decades: float, start: float) -> float:
    start = math.log10(start)
    if decades > 0:
        return max(decades + min(start, 0.0), 0.0)
    return min(decades + max(start, 0.0), 0.0)


def operations(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """The signal grows or decays through operations between the weight layers."""
    for growth_range in profile.growth_ranges:
        harm = _harm_in_all(growth_range)
        grows = harm > 0
        at_most = limit("exploding-operations" if grows else "vanishing")
        here = [op for op in growth_range.operations if op.decades * harm > 0]
        in_all = sum(op.decades for op in growth_range.operations)
        without = math.copysign(1.0, harm) * (harm - in_all)
        # The signal would keep its size without them: otherwise they are not the cause.
        if abs(harm) <= at_most or not here or without > at_most:
            continue
        last = growth_range.measured[-1]
        largest = max(here, key=lambda op: abs(op.decades))
        names = tuple(op.name for op in here)
        how_many = "an operation" if len(here) == 1 else f"{len(here)} operations"
        yield found(
            f"{'exploding' if grows else 'vanishing'}-activations",
            snapshot,
            names,
            {
                "decades": growth_range.whole,
                "operations": len(here),
                "operation_decades": sum(op.decades for op in here),
                "first_rms": growth_range.start,
                "last_rms": last.rms,
            },
            f"The signal {'explodes' if grows else 'vanishes'} because of {how_many} "
            f"between weight layers: from {growth_range.begin} to {last.name} the rms of "
            f"the activations {'grows' if grows else 'falls'} from "
            f"{growth_range.start:.3g} to {last.rms:.3g}. The largest change is from "
            f"{largest.before} to {largest.name}: {10**largest.decades:.3g} times.",
            Operations(names, grows),
            critical=abs(harm) > limit("critical") * at_most,
        )


def _beyond(growth_range: GrowthRange, snapshot: Snapshot) -> str:
    """Where the range of the numbers ends, or will end."""
    after = growth_range.points[len(growth_range.measured) :]
    if after:
        left = "only zeros are left" if after[0].rms == 0 else "values are no longer finite"
        return f" At {after[0].name}, {left}."
    dtype = snapshot.layers[growth_range.measured[-1].row].dtype
    if dtype not in DTYPE_LIMITS:
        return ""
    end = growth_range.limit_depth(dtype)
    verb = "overflows" if growth_range.decades > 0 else "underflows"
    if end >= limit("limit-depth"):
        return ""
    return f" At this rate {dtype} {verb} at depth {end:.0f}."


def _concerned(growth_range: GrowthRange, profile: DepthProfile) -> list[int]:
    """The weight layers that cause the growth; the whole range if no weights do."""
    sign = math.copysign(1.0, growth_range.decades)
    links = profile.links_before(point.row for point in growth_range.points)
    off = sorted(link.row for link in links if sign * link.excess > limit("excess"))
    return off or [point.row for point in growth_range.points]


def zeros(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """A layer on every path outputs only zeros."""
    rms = np.where(snapshot.field("nonfinite") > 0, np.nan, snapshot.statistic("rms"))
    graph = profile.graph
    if are_constant([row for row in graph.order if not graph.parents[row]], snapshot):
        return  # `embeddings.constant` judges them: zeros may be healthy
    for segment in profile.segments:
        for row in segment.rows:
            if rms[row] == 0:
                row = _first_zero(row, rms, profile)
                without_weights = [
                    link.row
                    for link in segment.links
                    if link.kernel_mean == link.kernel_std == 0 and link.row != row
                ]
                rows = [row, *without_weights]
                name = snapshot.layers[row].name
                yield found(
                    "zero-activations",
                    snapshot,
                    [snapshot.layers[row].name for row in rows],
                    {"rms": 0.0},
                    f"All outputs of {name} are zero for every input. No layer after it "
                    "receives the data, and no layer before it learns.",
                    Zeros(
                        tuple(sorted(rows)),
                        profile.links_before(sorted(rows)),
                        dead=False,
                    ),
                    critical=True,
                )
                return


def _first_zero(row: int, rms: np.ndarray, profile: DepthProfile) -> int:
    """The first row of zeros: a normalization of zeros follows the layer that made them."""
    parents = profile.graph.parents[row]
    while len(parents) == 1 and rms[parents[0]] == 0 and profile.depths[parents[0]] > 0:
        (row,) = parents
        parents = profile.graph.parents[row]
    return row


def unscaled_input(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """The input is far from unit size, and nothing on the way to the head corrects it."""
    low, high = 1 / limit("head"), limit("head")
    for segment in profile.segments:
        first = profile.graph.weight_before(segment.rows[0])
        if not segment.open or segment.normalized or first is None:
            continue
        if profile.depths[first] != 1:
            continue
        above = profile.graph.before(first)
        learned = any(snapshot.layers[row].kind == "embedding" for row in above)
        embedding = profile.graph.embedding_before(first)
        if learned and embedding is None:
            continue
        given = profile.links[first].rms_in
        last = snapshot.statistic("rms")[segment.rows[-1]]
        too_large = given > limit("input") and last > high
        # Embeddings are small as Keras initializes them, and they are learned.
        too_small = given < 1 / limit("input") and last < low and not learned
        if (too_large or too_small) and given > 0:
            name = snapshot.layers[first].name
            yield found(
                "unscaled-input",
                snapshot,
                [name],
                {"input_rms": given, "last_rms": last},
                f"The input is too {'large' if too_large else 'small'}: the rms is "
                f"{given:.3g} at the input of {name} and still {last:.3g} at the input of "
                "the last layer. Initializers and default learning rates assume an input "
                "of mean 0 and standard deviation 1 (LeCun et al. 1998, Efficient "
                "BackProp, section 4.3).",
                InputScale(profile.links[first])
                if embedding is None
                else EmbeddingScale(embedding, given),
            )

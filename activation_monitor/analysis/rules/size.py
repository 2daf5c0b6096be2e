"""Rules on the size of the signal along depth."""

import math
from collections.abc import Iterator

import numpy as np

from activation_monitor.analysis.depth_profile import DTYPE_LIMITS, DepthProfile
from activation_monitor.analysis.findings import Finding, found, limit
from activation_monitor.analysis.fixes import between_layers
from activation_monitor.analysis.rules.outlier import outlier_link
from activation_monitor.analysis.snapshot import Snapshot

_OWN_MEAN = ("sigmoid", "hard_sigmoid", "softmax", "softplus", "exponential")


def growth(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """The signal grows or decays exponentially with depth."""
    for growth_range in profile.growth_ranges:
        harm = _harm(growth_range, profile)
        if -limit("vanishing") <= harm <= limit("exploding"):
            continue
        if growth_range.operations and harm * _harm_in_all(growth_range) <= 0:
            continue  # operations undo it: the signal itself keeps its size
        chance = limit("significance") * growth_range.chance_sd
        if abs(growth_range.decades - growth_range.chance_mean) <= chance:
            continue
        direction = "exploding" if growth_range.decades > 0 else "vanishing"
        first, last = growth_range.measured[0], growth_range.measured[-1]
        low, high = growth_range.interval(limit("significance"))
        end = "overflow" if growth_range.decades > 0 else "underflow"
        depths = {f"{end}_{d}": growth_range.limit_depth(d) for d in DTYPE_LIMITS}
        layers = "weight layer" + ("s" if growth_range.layers > 1 else "")
        message = (
            f"from {first.name} to {last.name} the rms of the activations "
            f"{'grows' if growth_range.decades > 0 else 'falls'} from {first.rms:.3g} to "
            f"{last.rms:.3g}: {growth_range.growth:.4g} times per weight layer over "
            f"{growth_range.layers} {layers}, where chance leaves a well scaled network "
            f"between {low:.3g} and {high:.3g}.{_beyond(growth_range, snapshot)}"
        )
        yield found(
            f"{direction}-activations",
            snapshot,
            _concerned(growth_range, profile),
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
            message,
            critical=abs(harm) > limit("critical") * limit(direction),
        )


def _harm(growth_range, profile):
    """Decades of growth that count.

    Not those towards the size that a signal should have, 1: a large input that shrinks, a
    small one that grows. And not the step of one odd layer, which is another finding.
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


def _harm_in_all(growth_range):
    """The same of all that happens to the signal, operations included."""
    if not growth_range.open or not growth_range.start > 0:
        return 0.0
    return _away_from_one(growth_range.whole, growth_range.start)


def _away_from_one(decades, start):
    start = math.log10(start)
    if decades > 0:
        return max(decades + min(start, 0.0), 0.0)
    return min(decades + max(start, 0.0), 0.0)


def operations(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """The signal grows or decays through operations between the weight layers."""
    for growth_range in profile.growth_ranges:
        harm = _harm_in_all(growth_range)
        code = "exploding" if harm > 0 else "vanishing"
        at_most = limit("exploding-operations" if harm > 0 else "vanishing")
        here = [op for op in growth_range.operations if op.decades * harm > 0]
        in_all = sum(op.decades for op in growth_range.operations)
        without = math.copysign(1.0, harm) * (harm - in_all)
        # Without them it would be well: else they are not the cause.
        if abs(harm) <= at_most or not here or without > at_most:
            continue
        last = growth_range.measured[-1]
        odd = max(here, key=lambda op: abs(op.decades))
        times = f"{10**odd.decades:.3g} times"
        yield found(
            f"{code}-activations",
            snapshot,
            [op.name for op in here],
            {
                "decades": growth_range.whole,
                "operations": len(here),
                "operation_decades": sum(op.decades for op in here),
                "first_rms": growth_range.start,
                "last_rms": last.rms,
            },
            f"from {growth_range.begin} to {last.name} the rms of the activations "
            f"{'grows' if harm > 0 else 'falls'} from {growth_range.start:.3g} to "
            f"{last.rms:.3g}. {_how_many(here)} "
            f"{'changes' if len(here) == 1 else 'change'} its size between weight layers, "
            f"the most from {odd.before} to {odd.name}: {times}.",
            critical=abs(harm) > limit("critical") * at_most,
            fix=between_layers([op.name for op in here], harm > 0, profile),
        )


def _how_many(here) -> str:
    """How many operations there are, at the start of a sentence."""
    return "An operation" if len(here) == 1 else f"{len(here)} operations"


def _beyond(growth_range, snapshot):
    """Where the numbers end, or will."""
    beyond = growth_range.points[len(growth_range.measured) :]
    if beyond:
        left = (
            "nothing but zeros is left"
            if beyond[0].rms == 0
            else "the values are no longer finite"
        )
        return f" At {beyond[0].name} {left}."
    dtype = snapshot.layers[growth_range.measured[-1].row].dtype
    if dtype not in DTYPE_LIMITS:
        return ""
    end = growth_range.limit_depth(dtype)
    verb = "overflows" if growth_range.decades > 0 else "underflows"
    return f" At this rate {dtype} {verb} at depth {end:.0f}." if end < 1000 else ""


def _concerned(growth_range, profile):
    """The layers whose own weights push that way; all of the growth range if none does."""
    sign = math.copysign(1.0, growth_range.decades)
    rows = {profile.graph.weight_before(point.row) for point in growth_range.points}
    links = [profile.links[row] for row in sorted(rows - {None}) if row in profile.links]
    guilty = [link.name for link in links if sign * link.excess > 0.1]
    return guilty or [point.name for point in growth_range.points]


def zeros(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """A layer on every path that puts out zeros only."""
    rms = np.where(snapshot.field("nonfinite") > 0, np.nan, snapshot.statistic("rms"))
    for segment in profile.segments:
        for row in segment.rows:
            if rms[row] == 0:
                row = _first_zero(row, rms, profile)
                name = snapshot.layers[row].name
                without_weights = [
                    link.name
                    for link in segment.links
                    if link.kernel_mean == link.kernel_std == 0 and link.name != name
                ]
                yield found(
                    "zero-activations",
                    snapshot,
                    [name, *without_weights],
                    {"rms": 0.0},
                    f"all outputs of {name} are zero for every input, so no layer after "
                    "it sees the data and no layer before it learns.",
                    critical=True,
                )
                return


def _first_zero(row, rms, profile):
    """What made the zeros: of what is normalized, the layer before it."""
    parents = profile.graph.parents[row]
    while len(parents) == 1 and rms[parents[0]] == 0 and profile.depths[parents[0]] > 0:
        (row,) = parents
        parents = profile.graph.parents[row]
    return row


def unscaled_input(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """An input far from unit size, where nothing on the way to the head mends that."""
    low, high = 1 / limit("head"), limit("head")
    for segment in profile.segments:
        first = profile.graph.weight_before(segment.rows[0])
        if not segment.open or segment.normalized or first is None:
            continue
        if profile.depths[first] != 1:
            continue
        above = profile.graph.before(first)
        if any(snapshot.layers[row].kind == "embedding" for row in above):
            continue  # learned, and small as Keras draws it
        given = profile.links[first].rms_in
        last = snapshot.statistic("rms")[segment.rows[-1]]
        too_large = given > limit("input") and last > high
        too_small = given < 1 / limit("input") and last < low
        if (too_large or too_small) and given > 0:
            name = snapshot.layers[first].name
            yield found(
                "unscaled-input",
                snapshot,
                [name],
                {"input_rms": given, "last_rms": last},
                f"the rms of what {name} is given is {given:.3g}, and of what the last "
                f"layer is given still {last:.3g}. Initializers and default learning "
                "rates are made for an input of mean 0 and standard deviation 1 (LeCun et "
                "al. 1998, Efficient BackProp, section 4.3).",
            )


def mean_shift(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """Activations that are all of one sign and size, or weights that make them so."""
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
            f"the weights of {first.name} have a mean of {first.kernel_mean:.3g}: what its "
            f"inputs have in common is multiplied by {common:.3g} (fan_in times the mean), "
            f"what tells them apart by {own:.3g} (sqrt(fan_in) times the std). Soon all "
            "units say the same.",
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
                    f"the mean of {layer.name} is {mean[row]:.3g}, {shift:.0%} of its rms: "
                    "all its units say nearly the same. A common mean makes the loss "
                    "steep in one direction and flat in all others (LeCun et al. 1998, "
                    "Efficient BackProp, section 4.3).",
                )
                return


def _shifted(snapshot, profile):
    """Hidden weight layers whose weights have a mean that outweighs their spread.

    In a chain each counts. Batch normalization or a shortcut mends a single one, so of
    layers beside those most must be so. A normalization over the units takes away what
    they have in common altogether.
    """

    def shifted(links):
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


def _centred(row, graph):
    behind = {graph.layers[child].class_name for child in graph.children[row]}
    return bool(behind & {"LayerNormalization", "GroupNormalization"})


def _common(link):
    """By how much more what the inputs have in common is multiplied than what not."""
    if not link.kernel_std > 0 or link.depthwise:
        return 0.0
    return math.sqrt(link.fan_in) * abs(link.kernel_mean) / link.kernel_std

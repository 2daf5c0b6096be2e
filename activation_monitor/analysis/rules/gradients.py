"""Rules on gradients, predicted from the weights or measured."""

import math
from collections.abc import Iterator

import numpy as np

from activation_monitor.analysis import activations, backward, chance, records, theory
from activation_monitor.analysis.causes import Along, UnknownKind, Weights
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found, found
from activation_monitor.analysis.links import Link
from activation_monitor.analysis.rules.outlier import outlier_link
from activation_monitor.analysis.shown import count, listed
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit
from activation_monitor.analysis.trunk import Segment, whole_trunks

_CANNOT_LEARN = "With one learning rate, the first and the last layers cannot both learn."


def predicted(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """Gradients that must grow or decay, predicted from the weights and the signal."""
    if backward.was_measured(snapshot):
        return
    for segment in profile.segments:
        decades = _counted(segment, segment.backward, snapshot.statistic("rms"))
        if not segment.open or math.isnan(decades):
            continue
        code, verb = _code_and_verb(decades)
        links = segment.links[1:]
        law = chance.of_layers(
            [link.activation for link in links],
            [snapshot.layers[link.row].width for link in links],
        )
        by_chance = limit("significance") * math.sqrt(law.variance) / math.log(10)
        if abs(decades) > limit(code) and abs(decades) > by_chance:
            rate, whole = 10 ** (decades / len(links)), 10**decades
            change = (
                f"grow to {rate:.3g} times their size per layer, {whole:.2g} times in all"
                if decades > 0
                else f"shrink to {rate:.3g} of their size per layer, to {whole:.2g} in all"
            )
            yield found(
                code,
                snapshot,
                [link.name for link in segment.links],
                {"decades": decades, "growth": rate, "layers": len(links)},
                f"Gradients {verb} towards the input. Predicted from the weights: from "
                f"{links[-1].name} back to {segment.links[0].name}, gradients {change}. "
                "The rate is sqrt(fan_in) times the std of the weights times the rms slope "
                f"of {links[0].activation} at this signal (Poole et al. 2016).",
                _cause(
                    [link.row for link in segment.links],
                    decades,
                    profile,
                    Along(segment.links, segment.backward, backward=True),
                ),
                critical=abs(decades) > limit("critical") * limit(code),
            )


def _code_and_verb(decades: float) -> tuple[str, str]:
    if decades > 0:
        return "exploding-gradients", "explode"
    return "vanishing-gradients", "vanish"


def _cause(
    rows: list[int], decades: float, profile: DepthProfile, along: Along | None = None
) -> Weights:
    """The weights as the cause; `along` if the chain that they form is known."""
    return Weights(
        rows=tuple(sorted(rows)),
        links=profile.links_before(sorted(rows)),
        grows=decades > 0,
        effect=along or Along((), math.nan, backward=True),
        stream=profile.stream_through(rows),
    )


def _counted(segment: Segment, decades: float, rms: np.ndarray) -> float:
    """Of the decades by which gradients grow, those that count, as in `size.growth`.

    The gradient of a kernel is the gradient of the output times the activations before it:
    a large input makes up for gradients that fall.
    """
    odd, _ = outlier_link(segment)
    if odd is not None and odd in segment.links[1:]:
        decades -= odd.backward
    return _made_up_for(decades, rms[segment.rows[0]])


def _made_up_for(decades: float, first_rms: float) -> float:
    if decades < 0 and first_rms > 1:
        return min(decades + math.log10(first_rms), 0.0)
    return decades


def measured(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """Gradients that grow or decay where they were measured, along chains and trunks."""
    if not backward.was_measured(snapshot):
        return
    rms = snapshot.statistic("rms")
    for segment in profile.segments:
        # Where weights predict the gradient, the calibrated limits of the prediction hold.
        if segment.open and math.isfinite(segment.backward):
            first, last = segment.links[0].row, segment.links[-1].row
            rows = [row for row in segment.rows if first <= row <= last]
            walk = backward.walk(rows, snapshot)
            harm = _counted(segment, walk.decades, rms)
            yield from _grown(walk, harm, None, segment.links, snapshot, profile)
    for rows in whole_trunks(profile.graph):
        walk = backward.walk(rows, snapshot)
        decades = _whichever_is_smaller(walk, snapshot) - _one_small_layer(walk)
        harm = _made_up_for(decades, rms[walk.rows[0]]) if walk.rows else 0.0
        yield from _grown(walk, harm, "measured-gradients", (), snapshot, profile)


def _whichever_is_smaller(walk: backward.Walk, snapshot: Snapshot) -> float:
    """The decades by which both norm and rms grow; 0 if one of them does not.

    Where the resolution or the width changes they differ, and either may be what counts:
    the healthy networks that were measured lie within the limit by their rms.
    """
    if not walk.rows:
        return 0.0
    rms = snapshot.statistic("rms", of=records.OUTPUT_GRADIENT)
    by_rms = math.log10(rms[walk.rows[0]] / rms[walk.rows[-1]])
    if by_rms * walk.decades <= 0:
        return 0.0
    return min(walk.decades, by_rms, key=abs)


def _one_small_layer(walk: backward.Walk) -> float:
    """Decades of one step that is far smaller than all others: it does no harm alone."""
    steps = sorted((step.decades for step in walk.steps), key=abs)
    if len(steps) < 2:
        return 0.0
    *_, next_to_it, odd = steps
    alone = abs(next_to_it) < limit("outlier-others") * abs(odd)
    small = -limit("outlier-down") <= odd < -limit("outlier")
    return odd if alone and small else 0.0


def _grown(
    walk: backward.Walk,
    harm: float,
    threshold: str | None,
    chain: tuple[Link, ...],
    snapshot: Snapshot,
    profile: DepthProfile,
) -> Iterator[Found]:
    """What was found along some rows whose gradients were measured.

    Args:
        walk: The gradients along these rows.
        harm: The decades that count.
        threshold: Its limit; None for the limit of the code.
        chain: The weight layers, if they form a chain.
        snapshot, profile: The snapshot.
    """
    decades = walk.decades
    if not walk.steps or harm * decades <= 0:
        return
    code, verb = _code_and_verb(decades)
    at_most = limit(threshold or code)
    weights = [row for row in walk.rows[1:] if snapshot.layers[row].kind == "weight"]
    law = chance.of_layers(
        [snapshot.layers[row].activation for row in weights],
        [snapshot.layers[row].width for row in weights],
    )
    by_chance = limit("significance") * math.sqrt(law.variance) / math.log(10)
    first, last = walk.rows[0], walk.rows[-1]
    layers = int(profile.depths[last] - profile.depths[first])
    if abs(harm) <= max(at_most, by_chance) or layers < 1:
        return
    rate = 10 ** (decades / layers)
    steps = walk.largest(layers)
    names = [snapshot.layers[step.row].name for step in steps]
    ends = [snapshot.layers[row].name for row in (first, last)]
    yield found(
        code,
        snapshot,
        names,
        {
            "decades": decades,
            "growth": rate,
            "first_norm": walk.norms[0],
            "last_norm": walk.norms[-1],
            "layers": layers,
        },
        f"Gradients {verb} towards the input: the norm of the gradient of the loss, per "
        f"sample, is {walk.norms[-1]:.3g} at {ends[1]} and {walk.norms[0]:.3g} at "
        f"{ends[0]}, {rate:.3g} times per layer over {count(layers, 'layer')}. It changes "
        f"at {listed(names)}. {_CANNOT_LEARN}",
        _measured_cause(steps, walk, chain, profile),
        critical=abs(harm) > limit("critical") * at_most,
    )


def _measured_cause(
    steps: list[backward.Step],
    walk: backward.Walk,
    chain: tuple[Link, ...],
    profile: DepthProfile,
) -> Weights | UnknownKind:
    """The weights as the cause; layers of an unknown kind if most of it is theirs."""
    unknown = [step for step in steps if not backward.is_known(step, profile)]
    total = sum(step.decades for step in steps)
    if abs(sum(step.decades for step in unknown)) > limit("accounts-for") * abs(total):
        links = profile.links_before(step.row for step in unknown)
        return UnknownKind(
            tuple(step.row for step in unknown),
            {link.row: link for link in links},
            sum(step.decades for step in unknown) / len(unknown),
        )
    along = Along(chain, walk.decades, backward=True) if chain else None
    rows = [link.row for link in chain] or [step.row for step in steps]
    return _cause(rows, walk.decades, profile, along)


def normalized(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """Gradients that must grow because of batch normalization, layer by layer."""
    if backward.was_measured(snapshot):
        return
    decades = 0.0
    rows: list[int] = []
    seen: set[int] = set()
    for segment in profile.segments:
        first = snapshot.layers[segment.rows[0]]
        depth = int(profile.depths[segment.rows[0]])
        # A gradient passes only one of two parallel towers.
        if first.class_name != "BatchNormalization" or depth in seen:
            continue
        seen.add(depth)
        here = [row for row in segment.rows if profile.depths[row] == depth]
        used = [snapshot.layers[row].activation for row in here]
        used = [name for name in used if name != "linear"][:1] or ["linear"]
        if activations.known(used[0]):
            decades += 0.5 * math.log10(theory.batch_normalized_chi(used[0]))
            rows.append(segment.rows[0])
    if decades > limit("measured-gradients"):
        rate = 10 ** (decades / len(rows))
        yield found(
            "exploding-gradients",
            snapshot,
            [snapshot.layers[row].name for row in rows],
            {"decades": decades, "growth": rate, "layers": len(rows)},
            "Gradients explode towards the input because of batch normalization: "
            f"{len(rows)} normalized layers follow each other without a shortcut. Each "
            f"multiplies a gradient by {rate:.3g}, all of them together by "
            f"{10**decades:.2g} (Yang et al. 2019, A Mean Field Theory of Batch "
            "Normalization). "
            f"{_CANNOT_LEARN}",
            _cause(rows, decades, profile),
        )

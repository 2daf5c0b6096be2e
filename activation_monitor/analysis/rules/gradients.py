"""Rules on gradients, predicted from the weights or measured."""

import math
from collections.abc import Iterator

import numpy as np

from activation_monitor.analysis import activations, chance, records, theory
from activation_monitor.analysis.causes import Along, Weights
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found, found
from activation_monitor.analysis.rules.outlier import outlier_link
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit
from activation_monitor.analysis.trunk import Segment

_CANNOT_LEARN = "With one learning rate, the first and the last layers cannot both learn."


def predicted(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """Gradients that must grow or decay, predicted from the weights and the signal."""
    for segment in profile.segments:
        decades = _backward_harm(segment, snapshot.statistic("rms"))
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


def _backward_harm(segment: Segment, rms: np.ndarray) -> float:
    """Decades that count, as in `size.growth`.

    The gradient of a kernel is the gradient of the output times the activations before it:
    a large input makes up for gradients that fall.
    """
    decades, (odd, _) = segment.backward, outlier_link(segment)
    if odd is not None and odd in segment.links[1:]:
        decades -= odd.backward
    if decades < 0 and rms[segment.rows[0]] > 1:
        decades = min(decades + math.log10(rms[segment.rows[0]]), 0.0)
    return decades


def measured(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """Gradients that grow or decay where they were measured (`audit` with `y`)."""
    rms = snapshot.statistic("rms", of=records.OUTPUT_GRADIENT)
    rows = [row for segment in profile.segments for row in segment.rows if rms[row] > 0]
    if not rows:
        return
    first, last = (f(rows, key=lambda row: profile.depths[row]) for f in (min, max))
    decades = math.log10(rms[first] / rms[last])
    if abs(decades) > limit("measured-gradients"):
        layers = int(profile.depths[last] - profile.depths[first])
        names = [snapshot.layers[row].name for row in (first, last)]
        rate = 10 ** (decades / layers)
        code, verb = _code_and_verb(decades)
        yield found(
            code,
            snapshot,
            names,
            {
                "decades": decades,
                "growth": rate,
                "first_rms": rms[first],
                "last_rms": rms[last],
                "layers": layers,
            },
            f"Gradients {verb} towards the input: the rms of the gradient of the loss is "
            f"{rms[last]:.3g} at {names[1]} and {rms[first]:.3g} at {names[0]}, "
            f"{rate:.3g} times per layer over {layers} layers. {_CANNOT_LEARN}",
            _cause([first, last], decades, profile),
            critical=abs(decades) > limit("critical") * limit("measured-gradients"),
        )


def normalized(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """Gradients that must grow because of batch normalization, layer by layer."""
    if records.OUTPUT_GRADIENT in snapshot.quantities:
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

"""Rules on the gradients that come back, predicted or measured."""

import math
from collections.abc import Iterator

from activation_monitor.analysis import activations, records, theory
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Finding, found, limit
from activation_monitor.analysis.rules.outlier import outlier_link
from activation_monitor.analysis.snapshot import Snapshot


def predicted(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """Gradients that must grow or decay, by the weights and the slopes at this signal."""
    for segment in profile.segments:
        decades = _backward_harm(segment, snapshot.statistic("rms"))
        if not segment.open or math.isnan(decades):
            continue
        code = "exploding-gradients" if decades > 0 else "vanishing-gradients"
        links = segment.links[1:]
        law = theory.chance(
            [link.activation for link in links],
            [snapshot.layers[link.row].width for link in links],
        )
        chance = limit("significance") * math.sqrt(law.variance) / math.log(10)
        if abs(decades) > limit(code) and abs(decades) > chance:
            per_layer = 10 ** (decades / len(links))
            yield found(
                code,
                snapshot,
                [link.name for link in segment.links],
                {"decades": decades, "growth": per_layer, "layers": len(links)},
                f"from {links[-1].name} back to {segment.links[0].name} gradients must "
                f"{'grow' if decades > 0 else 'shrink'} to {10**decades:.2g} times their "
                f"size, {per_layer:.3g} times per layer: sqrt(fan_in) times the std of the "
                f"weights times the rms slope of {links[0].activation} at this signal "
                "(Poole et al. 2016).",
                critical=abs(decades) > limit("critical") * limit(code),
            )


def _backward_harm(segment, rms):
    """Decades that count, as in `size.growth`.

    What a kernel gets is the gradient times the activations before it: a large input
    makes up for gradients that fall.
    """
    decades, (odd, _) = segment.backward, outlier_link(segment)
    if odd in segment.links[1:]:
        decades -= odd.backward
    if decades < 0 and rms[segment.rows[0]] > 1:
        decades = min(decades + math.log10(rms[segment.rows[0]]), 0.0)
    return decades


def measured(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """Gradients that did grow or decay, where they were measured (`audit` with `y`)."""
    rms = snapshot.statistic("rms", of=records.OUTPUT_GRADIENT)
    rows = [row for segment in profile.segments for row in segment.rows if rms[row] > 0]
    if not rows:
        return
    first, last = (f(rows, key=lambda row: profile.depths[row]) for f in (min, max))
    decades = math.log10(rms[first] / rms[last])
    if abs(decades) > limit("measured-gradients"):
        layers = int(profile.depths[last] - profile.depths[first])
        names = [snapshot.layers[row].name for row in (first, last)]
        yield found(
            "exploding-gradients" if decades > 0 else "vanishing-gradients",
            snapshot,
            names,
            {
                "decades": decades,
                "growth": 10 ** (decades / layers),
                "first_rms": rms[first],
                "last_rms": rms[last],
                "layers": layers,
            },
            f"the rms of the loss's gradient is {rms[last]:.3g} at {names[1]} and "
            f"{rms[first]:.3g} at {names[0]}, {10 ** (decades / layers):.3g} times per "
            f"layer over {layers} layers: at one learning rate the first layers and the "
            "last cannot both learn.",
            critical=abs(decades) > limit("critical") * limit("measured-gradients"),
        )


def normalized(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """Gradients that must grow because of batch normalization, layer by layer."""
    if records.OUTPUT_GRADIENT in snapshot.quantities:
        return
    decades, rows, seen = 0.0, [], set()
    for segment in profile.segments:
        first = snapshot.layers[segment.rows[0]]
        depth = profile.depths[segment.rows[0]]
        # Of two towers that stand side by side a gradient passes one.
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
            f"{len(rows)} layers with batch normalization follow one another without a "
            f"shortcut. Each multiplies a gradient by {rate:.3g} on its way back, by "
            f"{10**decades:.2g} in all (Yang et al. 2019, A Mean Field Theory of Batch "
            "Normalization): at one learning rate the first layers and the last cannot "
            "both learn.",
        )

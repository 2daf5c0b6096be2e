"""The rules: functions of a snapshot and its profile that yield findings.

A rule says the observation with its numbers and the mechanism with its reference. What
to change is the matter of `remedy`; which finding explains which, that of `diagnosis`.
"""

import math
from collections.abc import Iterator

import numpy as np

from activation_monitor.analysis import activations, moments, theory
from activation_monitor.analysis.depth_profile import DTYPE_LIMITS, DepthProfile
from activation_monitor.analysis.findings import THRESHOLDS, Finding
from activation_monitor.analysis.remedy import listed
from activation_monitor.analysis.snapshot import Snapshot

_RECTIFIED = ("relu", "relu6")
_OWN_MEAN = ("sigmoid", "hard_sigmoid", "softmax", "softplus", "exponential")


def _limit(name):
    return THRESHOLDS[name].value


def _finding(code, snapshot, layers, evidence, message, critical=False):
    return Finding(
        code=code,
        severity="critical" if critical else "warning",
        step=snapshot.step,
        layers=tuple(layers),
        evidence={name: float(value) for name, value in evidence.items()},
        message=message,
    )


def symmetric(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """Kernels whose weights are all the same."""
    if snapshot.kernels is None:
        return
    low, high = (moments.field(snapshot.kernels, n) for n in ("minimum", "maximum"))
    count, hidden = moments.field(snapshot.kernels, "count"), profile.graph.feeds_weight()
    # A kernel of zeros at the end of a residual branch is good practice, and one in a
    # chain shows in the activations. Units of a depthwise kernel have inputs of their own.
    rows = [
        row
        for row in sorted(profile.links)
        if low[row] == high[row] != 0
        and count[row] > 1
        and hidden[row]
        and snapshot.layers[row].width > 1
        and "depthwise" not in snapshot.layers[row].class_name.lower()
    ]
    if rows:
        names = [snapshot.layers[row].name for row in rows]
        yield _finding(
            "symmetric-initialization",
            snapshot,
            names,
            {"weight": low[rows[0]], "layers": len(rows)},
            f"all weights of {listed(names)} are {low[rows[0]]:.3g}. Units with equal "
            "weights compute the same and get the same gradient, so they stay copies of "
            "one unit (Goodfellow et al. 2016, section 8.4).",
            critical=True,
        )


def outlier(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """One layer of a chain whose signal gain is far from that of its peers."""
    for stretch in profile.stretches:
        link, decades = _odd(stretch)
        if not stretch.open or link is None:
            continue
        # A large step from a small signal to one of size 1 does no harm.
        size = math.log10(link.rms_out)
        if min(decades, size) > _limit("exploding") or max(decades, size) < -_limit(
            "outlier-down"
        ):
            typical = 10 ** (math.log10(link.gain) - decades)
            yield _finding(
                "outlier-gain",
                snapshot,
                [link.name],
                {"gain": link.gain, "peers": typical, "decades": decades},
                f"{link.name} multiplies the rms of its input by {link.gain:.3g}, where "
                f"its peers would by {typical:.3g}. The layers behind it carry that on.",
                critical=decades > 2 * _limit("exploding"),
            )


def _odd(stretch):
    """The one link of a chain that is far from all others, and by how many decades."""
    off = np.array([_off(link) for link in stretch.links])
    if len(off) <= _limit("peers") or not np.isfinite(off).all():
        return None, 0.0
    beside = off - np.median(off)
    odd = int(np.argmax(np.abs(beside)))
    rest = np.delete(beside, odd)
    if abs(beside[odd]) > 1.0 and np.abs(rest).max() < 0.5 * abs(beside[odd]):
        return stretch.links[odd], float(beside[odd])
    return None, 0.0


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


def growth(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """The signal grows or decays exponentially with depth."""
    for segment in profile.segments:
        harm = _harm(segment, profile)
        if -_limit("vanishing") <= harm <= _limit("exploding"):
            continue
        chance = _limit("significance") * segment.chance_sd
        if abs(segment.decades - segment.chance_mean) <= chance:
            continue
        direction = "exploding" if segment.decades > 0 else "vanishing"
        first, last = segment.measured[0], segment.measured[-1]
        low, high = segment.interval(_limit("significance"))
        depths = {
            f"{'over' if segment.decades > 0 else 'under'}flow_{d}": segment.limit_depth(d)
            for d in DTYPE_LIMITS
        }
        layers = "weight layer" + ("s" if segment.layers > 1 else "")
        message = (
            f"from {first.name} to {last.name} the rms of the activations "
            f"{'grows' if segment.decades > 0 else 'falls'} from {first.rms:.3g} to "
            f"{last.rms:.3g}: {segment.growth:.4g} times per weight layer over "
            f"{segment.layers} {layers}, where chance leaves a well scaled network between "
            f"{low:.3g} and {high:.3g}.{_beyond(segment, snapshot)}"
        )
        yield _finding(
            f"{direction}-activations",
            snapshot,
            _concerned(segment, profile),
            {
                "growth": segment.growth,
                "expected_low": low,
                "expected_high": high,
                "decades": segment.decades,
                "layers": segment.layers,
                "first_rms": first.rms,
                "last_rms": last.rms,
            }
            | depths,
            message,
            critical=abs(harm) > _limit("critical") * _limit(direction),
        )


def _harm(segment, profile):
    """Decades of growth that count.

    Not those towards the size that a signal should have, 1: a large input that shrinks, a
    small one that grows. And not the step of one odd layer, which is another finding.
    """
    if not segment.open or segment.layers < 1:
        return 0.0
    decades, rows = segment.decades, {point.row for point in segment.points}
    stretch = next(s for s in profile.stretches if rows <= set(s.rows))
    link, odd = _odd(stretch)
    if link is not None and link != stretch.links[0]:
        decades -= odd
        if decades * segment.decades < 0:
            return 0.0
    start = math.log10(segment.measured[0].rms)
    if decades > 0:
        return max(decades + min(start, 0.0), 0.0)
    return min(decades + max(start, 0.0), 0.0)


def _beyond(segment, snapshot):
    """Where the numbers end, or will."""
    beyond = segment.points[len(segment.measured) :]
    if beyond:
        left = (
            "nothing but zeros is left"
            if beyond[0].rms == 0
            else "the values are no longer finite"
        )
        return f" At {beyond[0].name} {left}."
    dtype = snapshot.layers[segment.measured[-1].row].dtype
    if dtype not in DTYPE_LIMITS:
        return ""
    end = segment.limit_depth(dtype)
    verb = "overflows" if segment.decades > 0 else "underflows"
    return f" At this rate {dtype} {verb} at depth {end:.0f}." if end < 1000 else ""


def _concerned(segment, profile):
    """The layers whose own weights push that way; all of the segment if none does."""
    sign = math.copysign(1.0, segment.decades)
    rows = {profile.graph.weight_before(point.row) for point in segment.points}
    links = [profile.links[row] for row in sorted(rows - {None}) if row in profile.links]
    guilty = [link.name for link in links if sign * link.excess > 0.1]
    return guilty or [point.name for point in segment.points]


def zeros(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """A layer on every path that puts out zeros only."""
    rms = np.where(snapshot.field("nonfinite") > 0, np.nan, snapshot.statistic("rms"))
    for stretch in profile.stretches:
        for row in stretch.rows:
            if rms[row] == 0:
                name = snapshot.layers[row].name
                without_weights = [
                    link.name
                    for link in stretch.links
                    if link.kernel_mean == link.kernel_std == 0 and link.name != name
                ]
                yield _finding(
                    "zero-activations",
                    snapshot,
                    [name, *without_weights],
                    {"rms": 0.0},
                    f"all outputs of {name} are zero for every input, so no layer after "
                    "it sees the data and no layer before it learns.",
                    critical=True,
                )
                return


def unscaled_input(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """An input far from unit size, where nothing on the way to the head mends that."""
    low, high = 1 / _limit("head"), _limit("head")
    for stretch in profile.stretches:
        first = profile.graph.weight_before(stretch.rows[0])
        if not stretch.open or stretch.normalized or first is None:
            continue
        if profile.depths[first] != 1:
            continue
        above = profile.graph.before(first)
        if any(snapshot.layers[row].kind == "embedding" for row in above):
            continue  # learned, and small as Keras draws it
        given = profile.links[first].rms_in
        last = snapshot.statistic("rms")[stretch.rows[-1]]
        too_large = given > _limit("input") and last > high
        too_small = given < 1 / _limit("input") and last < low
        if (too_large or too_small) and given > 0:
            name = snapshot.layers[first].name
            yield _finding(
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
    # Once each, though the trunks to several ends share it.
    links = {link.row: link for stretch in profile.stretches for link in stretch.links}
    shifted = [
        link
        for link in links.values()
        if _common(link) > _limit("common-gain")
        and snapshot.layers[link.row].width >= _limit("narrowest")
    ]
    if shifted:
        first = shifted[0]
        common = first.fan_in * abs(first.kernel_mean)
        own = math.sqrt(first.fan_in) * first.kernel_std
        yield _finding(
            "mean-shift",
            snapshot,
            [link.name for link in shifted],
            {"common_gain": common, "own_gain": own, "kernel_mean": first.kernel_mean},
            f"the weights of {first.name} have a mean of {first.kernel_mean:.3g}: what its "
            f"inputs have in common is multiplied by {common:.3g} (fan_in times the mean), "
            f"what tells them apart by {own:.3g} (sqrt(fan_in) times the std). Soon all "
            "units say the same.",
        )
    for stretch in profile.stretches:
        for row in stretch.rows:
            layer = snapshot.layers[row]
            shift = abs(mean[row]) / rms[row] if rms[row] > 0 else 0.0
            if (
                stretch.open
                and layer.kind in ("weight", "activation")
                and layer.activation not in _OWN_MEAN
                and layer.width >= _limit("narrowest")
                and shift > _limit("mean-shift")
            ):
                yield _finding(
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


def _common(link):
    """By how much more what the inputs have in common is multiplied than what not."""
    if not link.kernel_std > 0 or link.depthwise:
        return 0.0
    return math.sqrt(link.fan_in) * abs(link.kernel_mean) / link.kernel_std


def saturated(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """Most of the bounded layers on the trunk at their limits."""
    share = snapshot.statistic("saturated_fraction")
    stretches = [s for s in profile.stretches if s.open and s.links]
    rows = sorted({row for stretch in stretches for row in stretch.rows})
    bounded = [r for r in rows if snapshot.layers[r].activation in moments.SATURATED]
    full = [row for row in bounded if share[row] > _limit("saturated")]
    if 2 * len(full) > len(bounded):
        full = [row for row in bounded if share[row] > 0.5 * _limit("saturated")]
        names = [snapshot.layers[row].name for row in full]
        yield _finding(
            "saturated-activations",
            snapshot,
            names,
            {"saturated_fraction": share[full].mean(), "layers": len(full)},
            f"{share[full].mean():.0%} of the outputs of {listed(names)} are within 1 % of "
            f"the limits of {snapshot.layers[full[0]].activation}. There its slope is near "
            "zero, and so is the gradient (Glorot & Bengio 2010).",
        )


def dead(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """Layers on the trunk most of whose ReLU units never fire."""
    units, samples = snapshot.statistic("dead_units"), snapshot.field("samples")
    found = []
    for row in sorted({row for stretch in profile.stretches for row in stretch.rows}):
        layer = snapshot.layers[row]
        if layer.activation in _RECTIFIED and samples[row] >= _limit("dead_samples"):
            if units[row] / layer.width > _limit("dead"):
                found.append(row)
    if found:
        first = snapshot.layers[found[0]]
        share = units[found[0]] / first.width
        yield _finding(
            "dead-units",
            snapshot,
            [snapshot.layers[row].name for row in found],
            {"dead_fraction": share, "layers": len(found), "samples": samples[found[0]]},
            f"{units[found[0]]:.0f} of {first.width} units of {first.name} are zero for "
            f"all {samples[found[0]]:.0f} samples. A ReLU unit that never fires gets no "
            "gradient and does not come back (Lu et al. 2019, Dying ReLU).",
            critical=share == 1.0,
        )


def collapsed(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """What differs from sample to sample gets lost on the way."""
    for stretch in profile.stretches:
        if not stretch.open:
            continue
        lost, last = 0.0, stretch.rows[0]
        steps = zip(
            stretch.rows[1:], stretch.independence, stretch.independence[1:], strict=False
        )
        for row, before, after in steps:
            # Pooling averages over positions, which differ: no loss of the layers' doing.
            if snapshot.layers[row].kind in ("weight", "activation") and before > -6.5:
                lost += after - before
                last = row
        if lost < -_limit("collapse"):
            first, last = (snapshot.layers[r].name for r in (stretch.rows[0], last))
            start, end = stretch.independence[0], stretch.independence[0] + lost
            yield _finding(
                "collapsed-activations",
                snapshot,
                [snapshot.layers[row].name for row in stretch.rows],
                {"share_first": 10**start, "share_last": 10**end, "decades": lost},
                f"at {first} {min(10**start, 1):.2g} of the rms tells one sample from "
                f"another, at {last} only {10**end:.2g}: all inputs end in nearly the same "
                "activations, and gradients decay at the same rate (Schoenholz et al. "
                "2017, Deep Information Propagation).",
                critical=lost < -_limit("critical") * _limit("collapse"),
            )


def gradients(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """Gradients that must grow or decay, by the weights and the slopes at this signal."""
    for stretch in profile.stretches:
        decades = _backward_harm(stretch, snapshot.statistic("rms"))
        if not stretch.open or math.isnan(decades):
            continue
        code = "exploding-gradients" if decades > 0 else "vanishing-gradients"
        links = stretch.links[1:]
        law = theory.chance(
            [link.activation for link in links],
            [snapshot.layers[link.row].width for link in links],
        )
        chance = _limit("significance") * math.sqrt(law.variance) / math.log(10)
        if abs(decades) > _limit(code) and abs(decades) > chance:
            per_layer = 10 ** (decades / len(links))
            yield _finding(
                code,
                snapshot,
                [link.name for link in stretch.links],
                {"decades": decades, "growth": per_layer, "layers": len(links)},
                f"from {links[-1].name} back to {stretch.links[0].name} gradients must "
                f"{'grow' if decades > 0 else 'shrink'} to {10**decades:.2g} times their "
                f"size, {per_layer:.3g} times per layer: sqrt(fan_in) times the std of the "
                f"weights times the rms slope of {links[0].activation} at this signal "
                "(Poole et al. 2016).",
                critical=abs(decades) > _limit("critical") * _limit(code),
            )


def _backward_harm(stretch, rms):
    """Decades that count, as in `_harm`. What a kernel gets is the gradient times the
    activations before it: a large input makes up for gradients that fall."""
    decades, (odd, _) = stretch.backward, _odd(stretch)
    if odd is not None and odd != stretch.links[0]:
        decades -= odd.backward
    if decades < 0 and rms[stretch.rows[0]] > 1:
        decades = min(decades + math.log10(rms[stretch.rows[0]]), 0.0)
    return decades


def measured_gradients(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """Gradients that did grow or decay, where they were measured (`audit` with `y`)."""
    if snapshot.gradients is None:
        return
    rms = moments.STATISTICS["rms"](snapshot.gradients)
    rows = [row for stretch in profile.stretches for row in stretch.rows if rms[row] > 0]
    if not rows:
        return
    first, last = (f(rows, key=lambda row: profile.depths[row]) for f in (min, max))
    decades = math.log10(rms[first] / rms[last])
    if abs(decades) > _limit("measured-gradients"):
        layers = int(profile.depths[last] - profile.depths[first])
        names = [snapshot.layers[row].name for row in (first, last)]
        yield _finding(
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
            critical=abs(decades) > _limit("critical") * _limit("measured-gradients"),
        )


def normalized_gradients(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """Gradients that must grow because of batch normalization, layer by layer."""
    if snapshot.gradients is not None:
        return
    decades, rows, seen = 0.0, [], set()
    for stretch in profile.stretches:
        first = snapshot.layers[stretch.rows[0]]
        depth = profile.depths[stretch.rows[0]]
        # Of two towers that stand side by side a gradient passes one.
        if first.class_name != "BatchNormalization" or depth in seen:
            continue
        seen.add(depth)
        here = [row for row in stretch.rows if profile.depths[row] == depth]
        used = [snapshot.layers[row].activation for row in here]
        used = [name for name in used if name != "linear"][:1] or ["linear"]
        if activations.known(used[0]):
            decades += 0.5 * math.log10(theory.batch_normalized_chi(used[0]))
            rows.append(stretch.rows[0])
    if decades > _limit("measured-gradients"):
        rate = 10 ** (decades / len(rows))
        yield _finding(
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


def nonfinite(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Finding]:
    """The first layer with NaN or infinities that matter."""
    bad_count = snapshot.field("nonfinite")
    used = {parent for layer in snapshot.layers for parent in layer.parents}
    multiplied = {
        parent
        for layer in snapshot.layers
        if layer.kind == "weight"
        for parent in layer.parents
    }
    # Infinities that the model takes care of (a mask before a softmax) are no fault. They
    # are where they reach an end of the network, or a kernel: its gradient is NaN then,
    # even if a ReLU makes zeros of NaN on the way forward.
    todo = [
        int(row)
        for row in np.flatnonzero(bad_count > 0)
        if row not in used or row in multiplied
    ]
    bad = set()
    while todo:
        row = todo.pop()
        if row not in bad:
            bad.add(row)
            todo.extend(p for p in snapshot.layers[row].parents if bad_count[p] > 0)
    if not bad:
        return
    row = min(bad)  # layers stand in the order of the calls: the first one
    layer, count = snapshot.layers[row], snapshot.field("count")[row]
    where = "the output"
    if layer.kind == "input":
        where = "a sum in the model" if layer.parents else "what the model is given"
    yield _finding(
        "nonfinite-activations",
        snapshot,
        [layer.name],
        {"nonfinite": bad_count[row], "count": count},
        f"{bad_count[row]:.0f} of {count:.0f} elements of {where} ({layer.name}, "
        f"{layer.dtype}) are NaN or infinite. What it is computed from has none; "
        "what is computed from it inherits them.",
        critical=True,
    )


INITIAL = (
    symmetric,
    outlier,
    growth,
    zeros,
    unscaled_input,
    mean_shift,
    saturated,
    collapsed,
    gradients,
    measured_gradients,
    normalized_gradients,
)
"""For the initialization. Causes stand before what they explain."""

ALWAYS = (dead, nonfinite)
"""For every snapshot."""

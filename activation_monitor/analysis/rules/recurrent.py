"""Rules on recurrent layers: kernels that explode over time, gates that are saturated."""

import math
from collections.abc import Iterator

from activation_monitor.analysis import records
from activation_monitor.analysis.causes import (
    EmbeddingScale,
    InputScale,
    RecurrentKernel,
)
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found, found
from activation_monitor.analysis.recurrent import (
    Reading,
    gated_rms,
    readings,
    saturated_share,
)
from activation_monitor.analysis.shown import listed
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit


def exploding(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """The output of a recurrent layer grows from time step to time step."""
    for one in readings(snapshot, profile):
        if not one.explodes:
            continue
        name, activation = one.layer.name, one.layer.activation
        end = (
            f"{one.nonfinite:.0f} of its outputs are no longer finite"
            if one.nonfinite
            else f"the rms of its output is {one.rms:.3g}"
        )
        yield found(
            "exploding-activations",
            snapshot,
            [name],
            {
                "rate": one.rate,
                "first_rms": one.first,
                "last_rms": math.inf if one.nonfinite else one.rms,
            },
            f"The state of {name} explodes over time: its recurrent kernel multiplies the "
            f"rms of the state by {one.rate:.3g} at each time step, sqrt(units) times the "
            f"rms of its weights times the rms slope of {activation} (He et al. 2015). "
            f"From {one.first:.3g} after the first step it has grown until {end}. "
            "Gradients grow at the same rate on the way back (Pascanu et al. 2013).",
            RecurrentKernel(one.link, recurrent=True),
            critical=one.decades > limit("critical") * limit("exploding"),
        )


def saturated(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """Gates, or states, are at the limits of their activation function."""
    full = [one for one in readings(snapshot, profile) if _is_full(one)]
    if not full:
        return
    first, gates = full[0], full[0].layer.gates
    names = [one.layer.name for one in full]
    share = _share(first)
    why = (
        f"the recurrent kernel adds {first.by_state:.3g} (sqrt(units) times the rms of its "
        f"weights is {first.layer.recurrent_gain:.3g})"
        if _by_state(first)
        else f"the input adds {first.by_input:.3g} (the rms of the input of "
        f"{first.link.name} is {first.link.rms_in:.3g}, sqrt(inputs) times the rms of the "
        f"weights {first.layer.input_gain:.3g})"
    )
    what = (
        f"The gates of {listed(names)} are saturated: {share:.0%} of those of "
        f"{names[0]} must be within 1 % of 0 or 1"
        if gates
        else f"The outputs of {listed(names)} are saturated: {share:.0%} of those of "
        f"{names[0]} are within 1 % of the limits of {first.layer.activation}"
    )
    yield found(
        "saturated-activations",
        snapshot,
        names,
        {
            "saturated_fraction": share,
            "layers": len(full),
            "by_input": first.by_input,
            "by_state": first.by_state,
        },
        f"{what}, because their pre-activations have a standard deviation of "
        f"{first.std:.3g}: {why}. There the slope is near zero, so these elements "
        "pass almost no gradient on (Glorot & Bengio 2010).",
        _cause(first, snapshot, profile),
    )


def _by_state(one: Reading) -> bool:
    return one.by_state > one.by_input


def _share(one: Reading) -> float:
    """The share of saturated gates by the law; of saturated outputs as measured."""
    gates = one.layer.gates
    return saturated_share(gates, one.std) if gates else one.saturated


def _is_full(one: Reading) -> bool:
    gates, activation = one.layer.gates, one.layer.activation
    if not math.isfinite(one.std) or activation not in records.SATURATED:
        return False
    at_most = limit("saturated")
    if not gates:
        law = saturated_share(activation, one.std)
        return one.saturated > at_most and law > limit("saturated-too") * at_most
    if gates not in ("sigmoid", "hard_sigmoid") or activation != "tanh":
        return False
    if _by_state(one):
        at_most = limit("saturated-by-state")
    # Saturated gates make the output large. It is not where few inputs are large, or where
    # the layer is of an unknown kind.
    at_least = gated_rms(gates, one.std) / 10 ** limit("gates-law")
    return _share(one) > at_most and one.rms > at_least


def _cause(
    one: Reading, snapshot: Snapshot, profile: DepthProfile
) -> RecurrentKernel | EmbeddingScale | InputScale:
    if _by_state(one):
        return RecurrentKernel(one.link, recurrent=True)
    if one.layer.input_gain > one.link.rms_in:
        return RecurrentKernel(one.link, recurrent=False)
    embedding = profile.graph.embedding_before(one.link.row)
    if embedding is not None:
        return EmbeddingScale(embedding, float(snapshot.statistic("rms")[embedding]))
    return InputScale(one.link)

"""What the two kernels of a recurrent layer do to its signal over time.

One step of a recurrent layer computes its pre-activations from its input and its state,
`h = x W + s U + b`. For independent weights of mean 0 they are Gaussian with standard
deviation `hypot(input_gain rms(x), recurrent_gain rms(s))`, where a gain is
`sqrt(fan_in E w^2)`. The state is the last output, or bounded like it.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from activation_monitor.analysis import records, theory
from activation_monitor.analysis.activations import NEGATIVE_SLOPE
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.links import Link
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot
from activation_monitor.analysis.thresholds import limit

_INVERSE: dict[str, Callable[[float], float]] = {
    "sigmoid": lambda y: math.log(y / (1.0 - y)),
    "hard_sigmoid": lambda y: 6.0 * (y - 0.5),
    "tanh": math.atanh,
    "hard_tanh": lambda y: y,
    "softsign": lambda y: y / (1.0 - y),
}
"""The inverses of the bounded activation functions, above their middle."""


class Reading(NamedTuple):
    """A recurrent layer: what its kernels do to its input and to its state.

    Attributes:
        layer: The layer.
        link: Its row, and the rms of its input.
        rms: Rms of its output; NaN if not all of it is finite.
        nonfinite: Elements of its output that are NaN or infinite.
        saturated: Share of its outputs that were measured at the limits of its activation
            function.
    """

    layer: LayerInfo
    link: Link
    rms: float
    nonfinite: float
    saturated: float

    @property
    def by_input(self) -> float:
        """Rms of what the input adds to the pre-activations."""
        return self.layer.input_gain * self.link.rms_in

    @property
    def by_state(self) -> float:
        """Rms of what the state adds to the pre-activations."""
        return self.layer.recurrent_gain * self.rms

    @property
    def std(self) -> float:
        """Standard deviation of the pre-activations; NaN if something is not known."""
        return math.hypot(self.by_input, self.by_state)

    @property
    def rate(self) -> float:
        """By how much a step multiplies the rms of the state, without an input.

        `recurrent_gain sqrt((1 + a^2) / 2)` for a slope `a` below zero and 1 above (He et
        al. 2015). NaN for other activation functions, and for layers with gates.
        """
        slope = NEGATIVE_SLOPE.get(self.layer.activation, math.nan)
        if self.layer.gates:
            return math.nan
        return self.layer.recurrent_gain * math.sqrt(0.5 * (1.0 + slope**2))

    @property
    def first(self) -> float:
        """Rms of the output after one step, if `rate` is known."""
        slope = NEGATIVE_SLOPE.get(self.layer.activation, math.nan)
        return self.by_input * math.sqrt(0.5 * (1.0 + slope**2))

    @property
    def decades(self) -> float:
        """`log10` of the measured rms over that after one step; infinite if not all of the
        output is finite. NaN if something is not known."""
        if not self.first > 0:
            return math.nan
        if self.nonfinite:
            return math.inf
        if not self.rms > 0:
            return math.nan
        return math.log10(self.rms) - math.log10(self.first)

    @property
    def explodes(self) -> bool:
        """Whether the output has grown over time, because of the recurrent kernel."""
        if not self.rate > 10 ** limit("excess") or math.isnan(self.decades):
            return False
        # What is left to reach the size 1 does no harm.
        return self.decades + min(math.log10(self.first), 0.0) > limit("exploding")


def readings(snapshot: Snapshot, profile: DepthProfile) -> list[Reading]:
    """The recurrent layers whose kernels are known, in the order of the rows.

    Args:
        snapshot: The snapshot.
        profile: The same snapshot along depth.
    """
    bad, rms, saturated = (
        snapshot.field("nonfinite"),
        snapshot.statistic("rms"),
        snapshot.statistic("saturated_fraction"),
    )
    return [
        Reading(
            snapshot.layers[row],
            link,
            math.nan if bad[row] else float(rms[row]),
            float(bad[row]),
            float(saturated[row]),
        )
        for row, link in sorted(profile.links.items())
        if snapshot.layers[row].recurrent_gain > 0
    ]


def saturated_share(activation: str, std: float) -> float:
    """The share of outputs near the limits, for pre-activations `h ~ N(0, std^2)`.

    Args:
        activation: A key of `records.SATURATED`.
        std: The standard deviation.

    Returns:
        `2 Phi(-a / std)`, where `a` is the pre-activation at which the range in
        `records.SATURATED` ends. NaN for NaN.

    Raises:
        KeyError: If the activation function is not bounded.

    >>> round(saturated_share("sigmoid", 10.0), 4)
    0.6459
    """
    _, high = records.SATURATED[activation]
    if std == 0:
        return 0.0
    return math.erfc(_INVERSE[activation](high) / (std * math.sqrt(2.0)))


def gated_rms(gates: str, std: float) -> float:
    """The smallest rms of the output of an LSTM or GRU with tanh, for such gates.

    After one step from a state of zeros, an LSTM outputs `o tanh(i g)` and a GRU
    `(1 - z) g` with gates `i, o, z` and `g = tanh(h)`. Both are at least
    `tanh(1) |o i g|`, because tanh is concave, and later steps add to it. By symmetry
    `E (1 - z)^2 = E z^2`.

    Args:
        gates: The activation function of the gates, "sigmoid" or "hard_sigmoid".
        std: The standard deviation of all pre-activations.

    Returns:
        `tanh(1) sqrt(E o^2 E i^2 E g^2)`; NaN for NaN.
    """
    of_gate = theory.second_moment(gates, std * std)
    return math.tanh(1.0) * of_gate * math.sqrt(theory.second_moment("tanh", std * std))

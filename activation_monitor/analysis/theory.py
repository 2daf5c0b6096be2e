"""What should be seen: exact laws of the signal's size in random networks.

One layer computes `h = x W + b`, `x' = phi(h)` with independent Gaussian weights and
biases of mean 0. Given `x`, the pre-activations `h_j` are independent Gaussians of
variance `q = weight_variance rms(x)^2 + bias_variance`. Hence `rms(x')^2` is the mean of
`n` independent copies of `phi(sqrt(q) z)^2`, with `n` the width of the layer. All laws
here follow from that: what a layer does on average at any `q`; the length map `q -> q'`
from layer to layer (Poole et al. 2016, arXiv:1606.05340; Schoenholz et al. 2017,
arXiv:1611.01232); and what chance adds to it at finite width.

Arguments are the same everywhere: `activation`, a key of `ACTIVATIONS`; `q`, 0 or from
1e-90 to 1e90; `weight_variance`, `fan_in Var(w)`; `bias_variance`, `Var(b)`; `width`, the
units of a layer (channels of a convolution), at least 1. Logarithms are natural.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

from activation_monitor.analysis.activations import ACTIVATIONS, NEGATIVE_SLOPE

# -- averages over one pre-activation h ~ N(0, q)

# One grid for every q: Gauss and Legendre's rule in panels that grow with |h|, as phi and
# the density of N(0, q) change over distances of the order of |h|. The edges are 2^k and
# 1.5 2^k, with all kinks (0, 1, 3, 6) among them.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)
_EDGES = np.append(0.0, np.ldexp([[1.0, 1.5]], np.arange(-160, 160)[:, None]))
_HALF = 0.5 * np.diff(_EDGES)[:, None]
_H = (_EDGES[:-1, None] + _HALF * (1.0 + _NODES)).ravel()
_H_WEIGHT = (_HALF * _WEIGHTS).ravel()
_Q_RANGE = (1e-90, 1e90)  # the density lies within the grid

# What matters of it at q = 1, both signs, with the density in the weights.
_Z = _H[(_H > 2.0**-45) & (_H < 16.0)]
_Z_WEIGHT = np.tile(_H_WEIGHT[(_H > 2.0**-45) & (_H < 16.0)] * stats.norm.pdf(_Z), 2)
_Z_WEIGHT /= _Z_WEIGHT.sum()
_Z = np.append(-_Z, _Z)

_QUANTITIES = {
    "mean": lambda h, phi, slope: phi(h),
    "second_moment": lambda h, phi, slope: phi(h) ** 2,
    "slope_second_moment": lambda h, phi, slope: slope(h) ** 2,
    "drift": lambda h, phi, slope: h * phi(h) * slope(h),  # averages to dE phi^2/dlog q
}


@functools.cache
def _folded(activation, quantity):
    """The quantity at `h` plus that at `-h`, times the weights of the grid."""
    f, functions = _QUANTITIES[quantity], ACTIVATIONS[activation]
    return _H_WEIGHT * (f(_H, *functions) + f(-_H, *functions))


def _average(quantity, activation, q):
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"theory.{quantity}: expected an activation function whose law is known. "
            f"Received: activation={activation!r}. Use one of {', '.join(ACTIVATIONS)}."
        )
    if activation in NEGATIVE_SLOPE:
        a = NEGATIVE_SLOPE[activation]
        if quantity == "mean":
            return (1.0 - a) * math.sqrt(q / (2.0 * math.pi))
        return 0.5 * (1.0 + a * a) * (1.0 if quantity == "slope_second_moment" else q)
    if activation == "exponential":
        with np.errstate(over="ignore"):  # infinite is right
            return float(np.exp(0.5 * q if quantity == "mean" else 2.0 * q))
    if q == 0:  # the limit
        f, functions = _QUANTITIES[quantity], ACTIVATIONS[activation]
        return float(0.5 * (f(-1e-300, *functions) + f(1e-300, *functions)))
    if not _Q_RANGE[0] <= q <= _Q_RANGE[1]:
        return math.nan
    density = np.exp(_H * _H * (-0.5 / q)) / math.sqrt(2.0 * math.pi * q)
    return float(_folded(activation, quantity) @ density)


def mean(activation: str, q: float) -> float:
    """`E phi(h)`, the mean of the activations, for pre-activations `h ~ N(0, q)`.

    Like the next two by quadrature, to 1e-11 relative to the rms; at q = 0 the limit. NaN
    outside the range of `q`; ValueError if the activation function is not known.

    >>> round(mean("relu", 1.0), 6), mean("sigmoid", 0.0)
    (0.398942, 0.5)
    """
    return _average("mean", activation, q)


def second_moment(activation: str, q: float) -> float:
    """`E phi(h)^2`, the mean square of the activations: see `mean`.

    >>> round(second_moment("relu", 1.0), 6), round(second_moment("tanh", 1.0), 6)
    (0.5, 0.394294)
    """
    return _average("second_moment", activation, q)


def slope_second_moment(activation: str, q: float) -> float:
    """`E phi'(h)^2`, the mean square of the derivative: see `mean`.

    >>> slope_second_moment("relu", 1.0), slope_second_moment("tanh", 0.0)
    (0.5, 1.0)
    """
    return _average("slope_second_moment", activation, q)


# -- depth without chance: the limit of infinite width


def length_map(
    activation: str, q: float, weight_variance: float, bias_variance: float = 0.0
) -> float:
    """`q` one layer on, `weight_variance E phi(h)^2 + bias_variance` (Poole et al. 2016).

    >>> length_map("relu", 3.0, weight_variance=2.0)
    3.0
    """
    return weight_variance * second_moment(activation, q) + bias_variance


def fixed_point(
    activation: str, weight_variance: float, bias_variance: float = 0.0, start: float = 1.0
) -> float:
    """Where the length map leads from `q = start` after infinitely many layers.

    Not by iteration: `q'` increases with `q`, so that the iterates move one way, to the
    first fixed point there, which is bracketed in steps of 0.2 in log q and then solved
    for. Two that are closer than that are taken for none.

    Returns:
        The fixed point; `start` if one layer changes its logarithm by less than 1e-11;
        0.0 where the signal dies and inf where it blows up, however slowly: tanh with
        weight variance 1 gives 0.0, though `q` falls as 1 / (2 layers) only.

    >>> round(fixed_point("tanh", 1.5), 6), fixed_point("tanh", 1.0)
    (0.286894, 0.0)
    >>> fixed_point("relu", 2.0, start=3.0), fixed_point("relu", 2.1)
    (3.0, inf)
    """
    rounding = 1e-11

    def change(log_q):
        q = length_map(activation, math.exp(log_q), weight_variance, bias_variance)
        return math.log(q) - log_q if q > 0 else -math.inf

    lowest = length_map(activation, 0.0, weight_variance, bias_variance)
    start = start or lowest
    if start == 0:
        return 0.0
    here = math.log(start)
    if abs(change(here)) <= rounding:
        return start
    way = math.copysign(0.2, change(here))
    # No fixed point is below the lowest q'. If that is 0, the map has become a straight
    # line at 1e-20, and any is at 1e30: from there it goes on for ever.
    end = 1e30 if way > 0 else 0.5 * lowest or 1e-20
    for ahead in np.arange(here, math.log(end), way):
        value = change(ahead) * way
        if value > 0:
            here = ahead
        elif value < -rounding:
            return math.exp(optimize.brentq(change, here, ahead, xtol=1e-14))
    return math.inf if way > 0 else 0.0


def chi_q(
    activation: str, q: float, weight_variance: float, bias_variance: float = 0.0
) -> float:
    """`d log q' / d log q` of the length map: what one layer leaves of a deviation.

    1 for homogeneous layers without bias, whose log rms walks at random over depth. Below
    1 the size is pulled back: log q is an AR(1) process with this slope. From
    `d E phi(h)^2 / d log q = E h phi(h) phi'(h)`, by parts.

    >>> chi_q("relu", 0.2, 1.5, 0.05), round(chi_q("tanh", 0.286894, 1.5), 5)
    (0.75, 0.69549)
    """
    q = max(q, _Q_RANGE[0])  # at 0 the limit
    moment = second_moment(activation, q)
    if weight_variance * moment == 0:
        return 0.0
    if activation == "exponential":  # the moment overflows, its logarithm does not
        drift = 2.0 * q
    else:
        drift = _average("drift", activation, q) / moment
    return drift / (1.0 + bias_variance / (weight_variance * moment))


def chi_1(activation: str, q: float, weight_variance: float) -> float:
    """`weight_variance E phi'(h)^2`: growth of a gradient's second moment in one layer.

    Also that of a small difference between two inputs: above 1 nearby inputs part and
    gradients explode, below 1 inputs become alike and gradients vanish (Schoenholz et al.
    2017).

    >>> chi_1("relu", 1.0, 2.0), round(chi_1("tanh", 0.286894, 1.5), 5)
    (1.0, 1.04057)
    """
    return weight_variance * slope_second_moment(activation, q)


def batch_normalized_chi(activation: str) -> float:
    """`E phi'^2 / Var phi` at q = 1: what batch normalization before every activation
    function does to the mean square of a gradient per layer, for large batches.

    It divides by the std, from which the mean is removed, and so by less than the rms: for
    ReLU `pi / (pi - 1)`, a factor 1.2112 in the gradient (Yang et al. 2019,
    arXiv:1902.08129).

    Example:

    >>> round(batch_normalized_chi("relu") ** 0.5, 4)
    1.2112
    """
    variance = second_moment(activation, 1.0) - mean(activation, 1.0) ** 2
    return slope_second_moment(activation, 1.0) / variance


@functools.cache
def critical_weight_variance(activation: str) -> float:
    """The weight variance at whose fixed point `chi_1` is 1, without bias.

    The edge of chaos (Poole et al. 2016; Schoenholz et al. 2017), for any activation
    function as in Hayou et al. 2019, arXiv:1902.06853. If phi(0) = 0 the fixed point is
    q = 0 and the variance `1 / E phi'^2` there; the point attracts if `E phi^2 / q` does
    not rise from 0 on. If not, `q` is a fixed point for the weight variance
    `q / E phi^2`, with which `chi_1 = 1` is solved for `q`.

    Returns:
        `fan_in Var(w)`; NaN if no fixed point with `chi_1 = 1` attracts. So for gelu,
        silu, mish and hard_silu: close to q = 0 they die or grow, whatever the scale.

    >>> critical_weight_variance("relu"), critical_weight_variance("tanh")
    (2.0, 1.0)
    >>> round(critical_weight_variance("sigmoid"), 1), critical_weight_variance("gelu")
    (103.0, nan)
    """
    if second_moment(activation, 0.0) == 0:
        at_zero = slope_second_moment(activation, 0.0)
        attracts = second_moment(activation, 0.01) <= 0.01 * at_zero * (1.0 + 1e-12)
        return 1.0 / at_zero if attracts else math.nan

    def excess(q):
        return chi_1(activation, q, q / second_moment(activation, q)) - 1.0

    low, high = 1e-3, 300.0  # further on exponentials overflow
    if excess(low) * excess(high) > 0:
        return math.nan
    q = optimize.brentq(excess, low, high, xtol=1e-12)
    weight_variance = q / second_moment(activation, q)
    attracts = chi_q(activation, q, weight_variance) < 1.0
    return weight_variance if attracts else math.nan


# -- one layer, with chance


class StepLaw(NamedTuple):
    """Distribution of `log rms(x') - log sqrt(E rms(x')^2)` over the draw of the weights.

    `mean` is negative (Jensen), of order `-1/n`; `variance` of order `1/n`.
    """

    mean: float
    variance: float


def linear_step(width: int) -> StepLaw:
    """The law of one linear layer, exactly: `n rms^2 / q` is chi-square with n degrees.

    Hence `mean = (psi(n/2) + log 2 - log n) / 2` and `variance = psi_1(n/2) / 4`.

    >>> law = linear_step(512)
    >>> round(law.mean, 8), round(law.variance**0.5, 7)
    (-0.0009772, 0.0312805)
    """
    half = width / 2.0
    mean = 0.5 * (special.digamma(half) + math.log(2.0) - math.log(width))
    return StepLaw(float(mean), float(0.25 * special.polygamma(1, half)))


def relu_step(width: int) -> StepLaw:
    """The law of one ReLU layer, exactly, given that not all units are dead.

    `n rms^2 / q` is chi-square with as many degrees as units are positive, a binomial
    number. The mean is relative to `log sqrt(q/2)`.
    """
    active = np.arange(1, width + 1)
    weight = stats.binom.pmf(active, width, 0.5)
    weight /= weight.sum()
    log_mean = special.digamma(active / 2.0) + math.log(2.0)
    mean = float(weight @ log_mean)
    spread = weight @ (special.polygamma(1, active / 2.0) + (log_mean - mean) ** 2)
    return StepLaw(0.5 * (mean - math.log(width / 2.0)), float(0.25 * spread))


def relative_variance(activation: str) -> float:
    """`c = E phi^4 / (E phi^2)^2 - 1` for a standard normal pre-activation.

    To first order `Var log rms = c / (4 n)` and the bias is its negative. Activation
    functions that are not known count as ReLU (5), which is on the cautious side.

    >>> round(relative_variance("linear"), 6), round(relative_variance("tanh"), 4)
    (2.0, 0.6273)
    """
    if activation not in ACTIVATIONS:
        return 5.0
    y = ACTIVATIONS[activation][0](_Z) ** 2
    return float(_Z_WEIGHT @ y**2 / (_Z_WEIGHT @ y) ** 2 - 1.0)


@functools.cache
def step_law(activation: str, width: int) -> StepLaw:
    """The law of one layer at q = 1, exact for every activation function that is known.

    That of a homogeneous one is the same at every `q`. One that is not known gets the law
    to first order of `relative_variance`.

    >>> law = step_law("tanh", 128)
    >>> round(law.mean, 8), round(law.variance**0.5, 7)
    (-0.00123258, 0.035183)
    """
    if activation == "linear":
        return linear_step(width)
    if activation == "relu":
        return relu_step(width)
    if activation in ACTIVATIONS:
        return _laplace_step(activation, width)
    spread = relative_variance(activation) / (4.0 * width)
    return StepLaw(-spread, spread)


def _laplace_step(activation, width):
    """The law from the Laplace transform of the squared rms, given that it is not 0.

    Let `S` be the mean of n copies of `y = phi(z)^2 / E phi(z)^2`, and `E` independent
    and exponential. `T = log E - log S` has the survival function `P(T > u) = M(e^u)`,
    `M(t) = (E e^(-t y / n))^n`, and gives the moments of `log S`. The density of `T` is
    analytic: the error of a sum over equal steps falls exponentially with their number.
    """
    y = ACTIVATIONS[activation][0](_Z) ** 2
    y /= _Z_WEIGHT @ y
    u = np.arange(-40.0, 60.0, 0.25)
    t = np.exp(u)
    of_one = np.exp(np.outer(t / -width, y))
    density = t * (of_one @ (_Z_WEIGHT * y)) * (of_one @ _Z_WEIGHT) ** (width - 1)
    density /= density.sum()
    mean = density @ u
    variance = density @ (u - mean) ** 2 - math.pi**2 / 6.0
    return StepLaw(float(0.5 * (-np.euler_gamma - mean)), float(0.25 * variance))


# -- many layers, with chance


def chance(activations, widths) -> StepLaw:
    """What chance alone does to the log rms over several layers of a critical network.

    Bounded activation functions pull the size back at every layer, so that for them this
    is an upper bound; for linear and ReLU layers it is exact. `widths` are as many as
    `activations`.
    """
    laws = [step_law(a, int(n)) for a, n in zip(activations, widths, strict=True)]
    return StepLaw(sum(law.mean for law in laws), sum(law.variance for law in laws))


def log_rms_law(activations, widths, gains) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of `log(rms after a layer / rms of the input)`, for each layer.

    Cumulative over depth: two arrays of shape `(layers,)`, in nats and nats squared. Exact
    at every width for one input, layers without bias and homogeneous activation functions:
    then the steps are independent, and `log(gain E phi(z)^2) / 2 + step.mean` and the
    variances add up. Inputs that are not alike fluctuate less together.

    Args:
        activations: One of linear, relu, leaky_relu for each layer.
        widths: As many widths.
        gains: As many squares of the initializer gain, `fan_in Var(w)`. 0 gives -inf.

    Raises:
        ValueError: An activation function is not homogeneous, or the lengths differ.

    >>> mean, variance = log_rms_law(["relu"] * 2, [64, 128], [2.0, 2.0])
    >>> mean.round(5).tolist(), (variance**0.5).round(4).tolist()
    ([-0.02005, -0.02995], [0.144, 0.1755])
    """
    steps = []
    for activation, width, gain in zip(activations, widths, gains, strict=True):
        if activation not in NEGATIVE_SLOPE:
            raise ValueError(
                "theory.log_rms_law: expected homogeneous activation functions. Received: "
                f"{activation!r} for layer {len(steps)}. Use linear, relu or leaky_relu; "
                "for others `length_map` gives the size and `chance` a bound."
            )
        law = step_law(activation, int(width))
        growth = gain * second_moment(activation, 1.0)
        scale = 0.5 * math.log(growth) if growth != 0 else -math.inf
        steps.append((scale + law.mean, law.variance))
    mean, variance = np.cumsum(np.reshape(steps, (-1, 2)), axis=0).T
    return mean, variance


class ChainLaw(NamedTuple):
    """What `layers` products with Gaussian matrices do to the size of a vector.

    `growth`: geometric mean per product; `low`, `high`: where it lies with the stated
    probability.
    """

    growth: float
    low: float
    high: float


def chain_law(
    width: int, weight_std: float, layers: int, confidence: float = 0.999
) -> ChainLaw:
    """The exact growth of a chain of square matrices, the study this package began with.

    The steps are independent, so mean and variance of the log add up exactly; their sum
    is taken as Gaussian (skewness -0.06 for one step of 512 units, less for more).

    >>> [round(value, 3) for value in chain_law(512, 1.0, 20)]
    [22.605, 22.091, 23.132]
    """
    step = linear_step(width)
    center = math.log(weight_std * math.sqrt(width)) + step.mean
    z = stats.norm.ppf(0.5 + confidence / 2.0)
    reach = z * math.sqrt(step.variance / layers)
    return ChainLaw(*(math.exp(center + d) for d in (0.0, -reach, reach)))

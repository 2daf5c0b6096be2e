"""Exact laws of the signal's size in random networks of infinite width.

One layer computes `h = x W + b`, `x' = phi(h)` with independent Gaussian weights and biases
of mean 0. Given `x`, the pre-activations `h_j` are independent Gaussians of variance
`q = weight_variance rms(x)^2 + bias_variance`. Hence `rms(x')^2` is the mean of `n`
independent copies of `phi(sqrt(q) z)^2`, where `n` is the width of the layer. This module
has what follows for large `n`: what a layer does at any `q`, and the length map `q -> q'`
from layer to layer (Poole et al. 2016, arXiv:1606.05340; Schoenholz et al. 2017,
arXiv:1611.01232). `chance` has what finite width adds.

Arguments are the same everywhere: `activation`, a key of `ACTIVATIONS`; `q`, 0 or from
1e-90 to 1e90; `weight_variance`, `fan_in Var(w)`; `bias_variance`, `Var(b)`. Logarithms are
natural.
"""

import functools
import math

import numpy as np
from scipy import optimize

from activation_monitor.analysis.activations import ACTIVATIONS, NEGATIVE_SLOPE

# -- averages over one pre-activation h ~ N(0, q)

# One grid serves every q: Gauss and Legendre's rule in panels that grow with |h|, because
# phi and the density of N(0, q) change over distances of the order of |h|. The edges are
# 2^k and 1.5 2^k; all kinks of the activation functions (0, 1, 3, 6) are among them.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)
_EDGES = np.append(0.0, np.ldexp([[1.0, 1.5]], np.arange(-160, 160)[:, None]))
_HALF = 0.5 * np.diff(_EDGES)[:, None]
GRID = (_EDGES[:-1, None] + _HALF * (1.0 + _NODES)).ravel()
GRID_WEIGHTS = (_HALF * _WEIGHTS).ravel()
"""Positive values of a pre-activation, and their weights in an integral."""

_Q_RANGE = (1e-90, 1e90)  # the density lies within the grid

_QUANTITIES = {
    "mean": lambda h, phi, slope: phi(h),
    "second_moment": lambda h, phi, slope: phi(h) ** 2,
    "slope_second_moment": lambda h, phi, slope: slope(h) ** 2,
    "drift": lambda h, phi, slope: h * phi(h) * slope(h),  # averages to dE phi^2/dlog q
}


@functools.cache
def _folded(activation: str, quantity: str) -> np.ndarray:
    """The quantity at `h` plus the quantity at `-h`, times the weights of the grid."""
    f, functions = _QUANTITIES[quantity], ACTIVATIONS[activation]
    return GRID_WEIGHTS * (f(GRID, *functions) + f(-GRID, *functions))


def _average(quantity: str, activation: str, q: float) -> float:
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
    density = np.exp(GRID * GRID * (-0.5 / q)) / math.sqrt(2.0 * math.pi * q)
    return float(_folded(activation, quantity) @ density)


def mean(activation: str, q: float) -> float:
    """`E phi(h)`, the mean of the activations, for pre-activations `h ~ N(0, q)`.

    By quadrature, accurate to 1e-11 relative to the rms. At q = 0 the limit; NaN outside
    the range of `q`.

    Raises:
        ValueError: If the activation function is not known.

    >>> round(mean("relu", 1.0), 6), mean("sigmoid", 0.0)
    (0.398942, 0.5)
    """
    return _average("mean", activation, q)


def second_moment(activation: str, q: float) -> float:
    """`E phi(h)^2`, the mean square of the activations; see `mean`.

    >>> round(second_moment("relu", 1.0), 6), round(second_moment("tanh", 1.0), 6)
    (0.5, 0.394294)
    """
    return _average("second_moment", activation, q)


def slope_second_moment(activation: str, q: float) -> float:
    """`E phi'(h)^2`, the mean square of the derivative; see `mean`.

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

    Not by iteration: `q'` increases with `q`, so the iterates move in one direction, to
    the first fixed point there. It is bracketed in steps of 0.2 in log q and then solved
    for. Two fixed points that are closer than that are missed.

    Returns:
        The fixed point; `start` if one layer changes its logarithm by less than 1e-11;
        0.0 if the signal vanishes and inf if it explodes, however slowly: tanh with weight
        variance 1 gives 0.0, although `q` falls only as 1 / (2 layers).

    >>> round(fixed_point("tanh", 1.5), 6), fixed_point("tanh", 1.0)
    (0.286894, 0.0)
    >>> fixed_point("relu", 2.0, start=3.0), fixed_point("relu", 2.1)
    (3.0, inf)
    """
    rounding = 1e-11

    def change(log_q: float) -> float:
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
    # No fixed point is below the lowest q'. If that is 0, the map is a straight line at
    # 1e-20, and every map is one at 1e30: from there it goes on for ever.
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

    1 for homogeneous layers without bias, whose log rms is a random walk over depth. Below
    1 the size is pulled back: log q is an AR(1) process with this slope. It follows from
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

    It is also the growth of a small difference between two inputs. Above 1, nearby inputs
    separate and gradients explode; below 1, inputs become alike and gradients vanish
    (Schoenholz et al. 2017).

    >>> chi_1("relu", 1.0, 2.0), round(chi_1("tanh", 0.286894, 1.5), 5)
    (1.0, 1.04057)
    """
    return weight_variance * slope_second_moment(activation, q)


def batch_normalized_chi(activation: str) -> float:
    """`E phi'^2 / Var phi` at q = 1: growth of a batch-normalized gradient per layer.

    By this factor batch normalization before every activation function multiplies the mean
    square of a gradient, for large batches. It divides by the std, which is less than the
    rms because the mean is removed: for ReLU the factor is `pi / (pi - 1)`, 1.2112 in the
    gradient (Yang et al. 2019, arXiv:1902.08129).

    Example:

    >>> round(batch_normalized_chi("relu") ** 0.5, 4)
    1.2112
    """
    variance = second_moment(activation, 1.0) - mean(activation, 1.0) ** 2
    return slope_second_moment(activation, 1.0) / variance


@functools.cache
def critical_weight_variance(activation: str) -> float:
    """The weight variance at whose fixed point `chi_1` is 1, without bias.

    This is the edge of chaos (Poole et al. 2016; Schoenholz et al. 2017), for any
    activation function as in Hayou et al. 2019, arXiv:1902.06853. If phi(0) = 0, the fixed
    point is q = 0 and the variance is `1 / E phi'^2` there; the point attracts if
    `E phi^2 / q` does not rise from 0 on. Otherwise `q` is a fixed point for the weight
    variance `q / E phi^2`, with which `chi_1 = 1` is solved for `q`.

    Returns:
        `fan_in Var(w)`. NaN if no fixed point with `chi_1 = 1` attracts: with gelu, silu,
        mish and hard_silu a small signal vanishes or grows, whatever the scale.

    >>> critical_weight_variance("relu"), critical_weight_variance("tanh")
    (2.0, 1.0)
    >>> round(critical_weight_variance("sigmoid"), 1), critical_weight_variance("gelu")
    (103.0, nan)
    """
    if second_moment(activation, 0.0) == 0:
        at_zero = slope_second_moment(activation, 0.0)
        attracts = second_moment(activation, 0.01) <= 0.01 * at_zero * (1.0 + 1e-12)
        return 1.0 / at_zero if attracts else math.nan

    def excess(q: float) -> float:
        return chi_1(activation, q, q / second_moment(activation, q)) - 1.0

    low, high = 1e-3, 300.0  # beyond, exponentials overflow
    if excess(low) * excess(high) > 0:
        return math.nan
    q = optimize.brentq(excess, low, high, xtol=1e-12)
    weight_variance = q / second_moment(activation, q)
    attracts = chi_q(activation, q, weight_variance) < 1.0
    return weight_variance if attracts else math.nan

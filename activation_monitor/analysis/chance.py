"""What chance adds to the size of the signal at finite width.

The notation is that of `theory`. `width` is the number of units of a layer (channels of a
convolution), at least 1. Logarithms are natural.
"""

import functools
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from activation_monitor.analysis.activations import ACTIVATIONS
from activation_monitor.analysis.theory import GRID, GRID_WEIGHTS

# The part of the grid that matters at q = 1, with both signs, and with the density of the
# standard normal distribution in the weights.
_PART = (GRID > 2.0**-45) & (GRID < 16.0)
_Z = np.append(-GRID[_PART], GRID[_PART])
_Z_WEIGHT = np.tile(GRID_WEIGHTS[_PART] * stats.norm.pdf(GRID[_PART]), 2)
_Z_WEIGHT /= _Z_WEIGHT.sum()

# -- one layer


class StepLaw(NamedTuple):
    """Distribution of `log rms(x') - log sqrt(E rms(x')^2)` over the draw of the weights.

    `mean` is negative (Jensen), of order `-1/n`; `variance` of order `1/n`.
    """

    mean: float
    variance: float


def linear_step(width: int) -> StepLaw:
    """The law of one linear layer, exactly.

    `n rms^2 / q` is chi-square with n degrees of freedom. Hence
    `mean = (psi(n/2) + log 2 - log n) / 2` and `variance = psi_1(n/2) / 4`.

    >>> law = linear_step(512)
    >>> round(law.mean, 8), round(law.variance**0.5, 7)
    (-0.0009772, 0.0312805)
    """
    half = width / 2.0
    mean = 0.5 * (special.digamma(half) + math.log(2.0) - math.log(width))
    return StepLaw(float(mean), float(0.25 * special.polygamma(1, half)))


def relu_step(width: int) -> StepLaw:
    """The law of one ReLU layer, exactly, given that not all units are dead.

    `n rms^2 / q` is chi-square. Its degrees of freedom are the number of positive units,
    which is binomial. The mean is relative to `log sqrt(q/2)`.
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

    To first order, `Var log rms = c / (4 n)` and the bias is its negative. An unknown
    activation function counts as ReLU (5), which is cautious.

    >>> round(relative_variance("linear"), 6), round(relative_variance("tanh"), 4)
    (2.0, 0.6273)
    """
    if activation not in ACTIVATIONS:
        return 5.0
    y = ACTIVATIONS[activation][0](_Z) ** 2
    return float(_Z_WEIGHT @ y**2 / (_Z_WEIGHT @ y) ** 2 - 1.0)


@functools.cache
def step_law(activation: str, width: int) -> StepLaw:
    """The law of one layer at q = 1, exact for every known activation function.

    The law of a homogeneous activation function is the same at every `q`. An unknown one
    gets the first-order law of `relative_variance`.

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


def _laplace_step(activation: str, width: int) -> StepLaw:
    """The law from the Laplace transform of the squared rms, given that it is not 0.

    Let `S` be the mean of n copies of `y = phi(z)^2 / E phi(z)^2`, and `E` independent
    and exponential. `T = log E - log S` has the survival function `P(T > u) = M(e^u)`,
    `M(t) = (E e^(-t y / n))^n`, and gives the moments of `log S`. The density of `T` is
    analytic, so the error of a sum over equal steps falls exponentially with their number.
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


# -- several layers


def of_layers(activations: Iterable[str], widths: Iterable[int]) -> StepLaw:
    """What chance alone does to the log rms over several layers of a critical network.

    Exact for linear and ReLU layers. Bounded activation functions pull the size back at
    every layer, so for them this is an upper bound.

    Args:
        activations: The activation function of each layer.
        widths: The width of each layer.

    Raises:
        ValueError: If their numbers differ.
    """
    laws = [step_law(a, int(n)) for a, n in zip(activations, widths, strict=True)]
    return StepLaw(sum(law.mean for law in laws), sum(law.variance for law in laws))


class ChainLaw(NamedTuple):
    """What `layers` products with Gaussian matrices do to the size of a vector.

    Attributes:
        growth: Median of the geometric mean per product.
        low, high: The interval in which it lies with the stated probability.
    """

    growth: float
    low: float
    high: float


def chain_law(
    width: int, weight_std: float, layers: int, confidence: float = 0.999
) -> ChainLaw:
    """The exact growth of a chain of square matrices, the study this package began with.

    The steps are independent, so mean and variance of the log add up exactly. Their sum is
    treated as Gaussian (skewness -0.06 for one step of 512 units, less for more).

    Args:
        width: Rows and columns of the matrices.
        weight_std: Standard deviation of their entries.
        layers: Number of products.
        confidence: Probability of the interval. Defaults to `0.999`.

    >>> [round(value, 3) for value in chain_law(512, 1.0, 20)]
    [22.605, 22.091, 23.132]
    """
    step = linear_step(width)
    center = math.log(weight_std * math.sqrt(width)) + step.mean
    z = stats.norm.ppf(0.5 + confidence / 2.0)
    reach = z * math.sqrt(step.variance / layers)
    return ChainLaw(*(math.exp(center + d) for d in (0.0, -reach, reach)))

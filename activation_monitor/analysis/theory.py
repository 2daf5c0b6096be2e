"""What should be seen: exact laws of the signal's size in random networks.

One layer computes `h = x W`, `x' = phi(h)` with independent weights of mean 0. Given
`x`, the pre-activations `h_j` are independent Gaussians of variance
`q = Var(W) fan_in rms(x)^2`, so that `rms(x')^2` is the mean of `n` independent copies
of `phi(sqrt(q) z)^2`, with `n` the width of the layer. All laws here follow from that.
Logarithms are natural.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import integrate, special, stats

# The names are those of `keras.activations`. Keras' default slope for `leaky_relu`: 0.2
# as a function, 0.3 as a layer; the law hardly differs.
_ACTIVATIONS = {
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0.0))),
    "gelu": lambda z: z * special.ndtr(z),
    "hard_sigmoid": lambda z: np.clip(z / 6.0 + 0.5, 0.0, 1.0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.2 * z),
    "linear": lambda z: z,
    "mish": lambda z: z * np.tanh(np.logaddexp(0.0, z)),
    "relu": lambda z: np.maximum(z, 0.0),
    "relu6": lambda z: np.clip(z, 0.0, 6.0),
    "selu": lambda z: (
        1.0507009873554805
        * np.where(z > 0, z, 1.6732632423543772 * np.expm1(np.minimum(z, 0.0)))
    ),
    "sigmoid": special.expit,
    "silu": lambda z: z * special.expit(z),
    "softplus": lambda z: np.logaddexp(0.0, z),
    "softsign": lambda z: z / (1.0 + np.abs(z)),
    "tanh": np.tanh,
}


class StepLaw(NamedTuple):
    """Distribution of `log rms(x') - log sqrt(E rms(x')^2)` over the draw of the weights.

    `mean` is negative (Jensen), of order `-1/n`; `variance` of order `1/n`.
    """

    mean: float
    variance: float


def linear_step(width: int) -> StepLaw:
    """The law of one linear layer, exactly: `n rms^2 / q` is chi-square with n degrees.

    Args:
        width: Units of the layer, at least 1.

    Returns:
        `mean = (psi(n/2) + log 2 - log n) / 2`, `variance = psi_1(n/2) / 4`.

    Example:

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

    Args:
        width: Units of the layer, at least 1.
    """
    active = np.arange(1, width + 1)
    weight = stats.binom.pmf(active, width, 0.5)
    weight /= weight.sum()
    log_mean = special.digamma(active / 2.0) + math.log(2.0)
    mean = float(weight @ log_mean)
    spread = weight @ (special.polygamma(1, active / 2.0) + (log_mean - mean) ** 2)
    return StepLaw(0.5 * (mean - math.log(width / 2.0)), float(0.25 * spread))


@functools.cache
def relative_variance(activation: str) -> float:
    """`c = E phi^4 / (E phi^2)^2 - 1` for a standard normal pre-activation.

    To first order `Var log rms = c / (4 n)` and the bias is its negative. Activation
    functions that are not known count as ReLU (5), which is on the cautious side.

    Args:
        activation: A name of `keras.activations`.

    Example:

    >>> round(relative_variance("linear"), 6), round(relative_variance("tanh"), 4)
    (2.0, 0.6273)
    """
    phi = _ACTIVATIONS.get(activation)
    if phi is None:
        return 5.0

    def moment(power):
        def integrand(z):
            return phi(z) ** power * math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)

        # The kinks stand at 0: each half line by itself.
        halves = [(-12.0, 0.0), (0.0, 12.0)]
        return sum(integrate.quad(integrand, *half, epsabs=1e-13)[0] for half in halves)

    return moment(4) / moment(2) ** 2 - 1.0


@functools.cache
def step_law(activation: str, width: int) -> StepLaw:
    """The law of one layer: exact for linear and ReLU, else to first order in `1/n`.

    Args:
        activation: A name of `keras.activations`.
        width: Units of the layer; channels for a convolution.
    """
    if activation == "linear":
        return linear_step(width)
    if activation == "relu":
        return relu_step(width)
    spread = relative_variance(activation) / (4.0 * width)
    return StepLaw(-spread, spread)


def chance(activations, widths) -> StepLaw:
    """What chance alone does to the log rms over several layers of a critical network.

    Bounded activation functions pull the size back at every layer, so that for them
    this is an upper bound; for linear and ReLU layers it is exact.

    Args:
        activations: One name for each layer.
        widths: As many widths.
    """
    laws = [step_law(a, int(n)) for a, n in zip(activations, widths, strict=True)]
    return StepLaw(sum(law.mean for law in laws), sum(law.variance for law in laws))


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

    Args:
        width: Rows and columns of each matrix.
        weight_std: Standard deviation of its entries.
        layers: Number of products.
        confidence: Probability of the interval.

    Example:

    >>> [round(value, 3) for value in chain_law(512, 1.0, 20)]
    [22.605, 22.091, 23.132]
    """
    step = linear_step(width)
    center = math.log(weight_std * math.sqrt(width)) + step.mean
    z = stats.norm.ppf(0.5 + confidence / 2.0)
    reach = z * math.sqrt(step.variance / layers)
    return ChainLaw(*(math.exp(center + d) for d in (0.0, -reach, reach)))

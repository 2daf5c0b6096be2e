"""The laws: against golden numbers, closed forms and random matrices."""

import math

import numpy as np
import pytest
from scipy import stats

from activation_monitor.analysis import theory

# From facts/theory.md section 1, "Step law (exact; nats)":
# width: linear mean, linear sd, relu mean, relu sd.
STEP_LAW = {
    16: (-0.03190003, 0.1824397, -0.08819866, 0.3238801),
    32: (-0.01578770, 0.1269781, -0.04127010, 0.2106524),
    64: (-0.00785319, 0.0890833, -0.02005430, 0.1440463),
    128: (-0.00391642, 0.0627449, -0.00989320, 0.1002921),
    256: (-0.00195567, 0.0442806, -0.00491433, 0.0703895),
    512: (-0.00097720, 0.0312805, -0.00244924, 0.0495904),
    1024: (-0.00048844, 0.0221079, -0.00122266, 0.0350019),
}

# The same, "Activations at q=1": c, and exact bias and sd of log rms for 128 units.
ACTIVATIONS = {
    "tanh": (0.627291, -0.00123258, 0.0351830),
    "sigmoid": (0.528900, -0.00103678, 0.0322453),
    "gelu": (6.215614, -0.01231910, 0.1120963),
    "silu": (6.261746, -0.01229007, 0.1116733),
    "elu": (2.776022, -0.00540633, 0.0736702),
    "selu": (1.503140, -0.00292883, 0.0541661),
}


def sd(law):
    return math.sqrt(law.variance)


def assert_follows(logs, law):
    """Mean and variance of independent draws agree with the law within 4 sd of each.

    A right law fails with probability 1.3e-4, were the seed not fixed.
    """
    n = len(logs)
    deviations = (logs - law.mean) ** 2
    np.testing.assert_array_less(
        abs(logs.mean() - law.mean), 4 * math.sqrt(law.variance / n)
    )
    np.testing.assert_array_less(
        abs(deviations.mean() - law.variance), 4 * deviations.std() / math.sqrt(n)
    )


# -- one layer


@pytest.mark.parametrize("width", STEP_LAW)
def test_the_step_laws_are_the_exact_ones(width):
    """Linear and ReLU steps agree with the table to all its digits."""
    linear_mean, linear_sd, relu_mean, relu_sd = STEP_LAW[width]
    for law, mean, deviation in (
        (theory.linear_step(width), linear_mean, linear_sd),
        (theory.relu_step(width), relu_mean, relu_sd),
    ):
        np.testing.assert_allclose(law.mean, mean, rtol=0, atol=0.6e-8)
        np.testing.assert_allclose(sd(law), deviation, rtol=0, atol=0.6e-7)


def test_one_linear_or_relu_unit_is_the_log_of_a_half_normal():
    """For one unit, log |z| has mean -(gamma + log 2) / 2 and variance pi^2 / 8."""
    mean, variance = -0.5 * (np.euler_gamma + math.log(2)), math.pi**2 / 8
    np.testing.assert_allclose(theory.linear_step(1), (mean, variance), rtol=1e-14)
    # Given that the ReLU unit is not dead, it is |z|; and sqrt(q/2) is the reference.
    relu = (mean + 0.5 * math.log(2), variance)
    np.testing.assert_allclose(theory.relu_step(1), relu, rtol=1e-14)


@pytest.mark.parametrize("width", [16, 48])
def test_a_linear_layer_of_random_weights_follows_its_law(width):
    """20 000 Gaussian matrices, one vector: log rms within 4 sd of mean and variance."""
    rng = np.random.default_rng(width)
    x = rng.uniform(-1, 1, 8)
    h = np.einsum("i,kij->kj", x, rng.standard_normal((20_000, 8, width)))
    q = 8 * np.mean(x**2)
    logs = 0.5 * np.log(np.mean(h**2, axis=1) / q)
    assert_follows(logs, theory.linear_step(width))


@pytest.mark.parametrize("width", [16, 48])
def test_a_relu_layer_of_random_weights_follows_its_law(width):
    """The same after a ReLU, given that not all units are dead (2^-16 of 16)."""
    rng = np.random.default_rng(width + 1)
    x = rng.uniform(-1, 1, 8)
    h = np.einsum("i,kij->kj", x, rng.standard_normal((20_000, 8, width)))
    q = 8 * np.mean(x**2)
    size = np.mean(np.maximum(h, 0) ** 2, axis=1)
    logs = 0.5 * np.log(size[size > 0] / (q / 2))
    assert_follows(logs, theory.relu_step(width))


# -- other activation functions


@pytest.mark.parametrize(
    ("activation", "c"),
    [("linear", 2.0), ("relu", 5.0), *((a, row[0]) for a, row in ACTIVATIONS.items())],
)
def test_the_relative_variance_is_the_golden_one(activation, c):
    """`c` agrees with facts/theory.md section 1 to all six digits."""
    np.testing.assert_allclose(theory.relative_variance(activation), c, atol=0.6e-6)


def test_the_relative_variance_of_a_leaky_relu_has_a_closed_form():
    """For slope a: c = 6 (1 + a^4) / (1 + a^2)^2 - 1, with Keras' default a = 0.2."""
    np.testing.assert_allclose(
        theory.relative_variance("leaky_relu"),
        6 * (1 + 0.2**4) / (1 + 0.2**2) ** 2 - 1,
        rtol=1e-10,  # of the quadrature
    )


@pytest.mark.parametrize(
    ("activation", "phi"),
    [
        ("hard_sigmoid", lambda z: min(max(z / 6 + 0.5, 0), 1)),
        ("mish", lambda z: z * math.tanh(math.log1p(math.exp(z)))),
        ("relu6", lambda z: min(max(z, 0), 6)),
        ("softplus", lambda z: math.log1p(math.exp(z))),
        ("softsign", lambda z: z / (1 + abs(z))),
        ("tanh", math.tanh),
        ("silu", lambda z: z / (1 + math.exp(-z))),
        ("selu", lambda z: 1.05070098736 * (z if z > 0 else 1.67326324235 * math.expm1(z))),
    ],
)
def test_the_relative_variance_is_the_sum_over_a_fine_grid(activation, phi):
    """`c` equals that of a plain sum over z from -10 to 10 in steps of 0.001."""
    z = np.linspace(-10, 10, 20_001)
    weight = stats.norm.pdf(z) / stats.norm.pdf(z).sum()
    y = np.array([phi(value) for value in z])
    c = weight @ y**4 / (weight @ y**2) ** 2 - 1
    # The kinks cost the sum of the order of the step squared.
    np.testing.assert_allclose(theory.relative_variance(activation), c, rtol=1e-5)


def test_an_unknown_activation_function_counts_as_relu():
    """What is not known gets the wide interval of ReLU."""
    assert theory.relative_variance("snake_beta") == 5.0
    assert theory.step_law("snake_beta", 100) == (-5 / 400, 5 / 400)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_law_to_first_order_is_near_the_exact_one(activation):
    """At 128 units, bias and sd to first order are within 3 % of the exact ones."""
    _, bias, deviation = ACTIVATIONS[activation]
    law = theory.step_law(activation, 128)
    np.testing.assert_allclose(law.mean, bias, rtol=0.03)
    np.testing.assert_allclose(sd(law), deviation, rtol=0.03)


@pytest.mark.parametrize("width", [32, 512])
def test_step_laws_of_linear_and_relu_are_not_approximations(width):
    """By name, linear and ReLU give the golden values."""
    linear_mean, linear_sd, relu_mean, relu_sd = STEP_LAW[width]
    linear, relu = theory.step_law("linear", width), theory.step_law("relu", width)
    np.testing.assert_allclose([linear.mean, relu.mean], [linear_mean, relu_mean], 1e-5)
    np.testing.assert_allclose([sd(linear), sd(relu)], [linear_sd, relu_sd], 1e-5)


# -- many layers


def test_chance_adds_up_over_layers_of_different_kinds():
    """Means and variances of the layers add, each by its own activation and width."""
    law = theory.chance(["linear", "relu", "tanh"], [64, 128, 100])
    mean = -0.00785319 - 0.00989320 - 0.627291 / 400
    variance = 0.0890833**2 + 0.1002921**2 + 0.627291 / 400
    np.testing.assert_allclose(law, (mean, variance), rtol=1e-5)  # digits of the table


def test_chance_of_no_layers_is_nothing():
    """Without a layer nothing is left to chance."""
    assert theory.chance([], []) == (0, 0)


def test_chance_needs_a_width_for_every_layer():
    """One name without its width is an error, not a shorter sum."""
    with pytest.raises(ValueError, match="shorter"):
        theory.chance(["relu", "relu"], [64])


# facts/theory.md section 1, "Numbers to assert", 99.9 % two-sided: rms_k / rms_0.
@pytest.mark.parametrize(
    ("activation", "layers", "low", "high"),
    [
        ("linear", 20, 0.619, 1.554),
        ("linear", 50, 0.460, 1.972),
        ("linear", 100, 0.324, 2.539),
        ("relu", 20, 0.459, 1.975),
        ("relu", 50, 0.279, 2.805),
        ("relu", 100, 0.153, 4.002),
    ],
)
def test_chance_moves_a_critical_network_as_far_as_the_golden_intervals(
    activation, layers, low, high
):
    """512 wide at the critical scale: the interval of the rms ratio, three decimals."""
    law = theory.chance([activation] * layers, [512] * layers)
    reach = stats.norm.ppf(0.9995) * sd(law)
    interval = [math.exp(law.mean - reach), math.exp(law.mean + reach)]
    np.testing.assert_allclose(interval, [low, high], rtol=0, atol=0.00051)


def test_chance_is_what_real_relu_networks_show():
    """2 000 He networks 32 wide, 6 deep: mean and variance of the log within 4 sd."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal((2000, 1, 32))
    start = np.log(np.mean(x**2, axis=2))
    for _ in range(6):
        x = np.maximum(x @ rng.normal(0, math.sqrt(2 / 32), (2000, 32, 32)), 0)
    logs = 0.5 * (np.log(np.mean(x**2, axis=2)) - start)[:, 0]
    assert_follows(logs, theory.chance(["relu"] * 6, [32] * 6))


# -- the matmul chain


@pytest.mark.parametrize(
    ("layers", "low", "high"),
    [
        (5, 21.588, 23.670),
        (13, 21.969, 23.260),
        (20, 22.091, 23.132),
        (50, 22.279, 22.937),
        (100, 22.374, 22.839),
    ],
)
def test_the_chain_law_has_the_golden_intervals(layers, low, high):
    """512 wide, std 1, 99.9 %: facts/theory.md section 1, three decimals."""
    law = theory.chain_law(512, 1.0, layers, 0.999)
    np.testing.assert_allclose(law.growth, 22.6053, rtol=0, atol=0.00006)
    np.testing.assert_allclose([law.low, law.high], [low, high], rtol=0, atol=0.0006)


@pytest.mark.parametrize("std", [1e-30, 0.01, 1 / math.sqrt(512), 1e30])
def test_the_chain_law_scales_with_the_weights(std):
    """The growth is proportional to the weights' std: 0.226053 for 0.01."""
    law = theory.chain_law(512, std, 20)
    golden = np.array([22.6053, 22.091, 23.132]) * std
    np.testing.assert_allclose(law, golden, rtol=3e-5)  # digits of the golden numbers


def test_the_chain_law_widens_with_confidence():
    """The interval's half width in the log is the normal quantile times the sd."""
    for confidence, z in ((0.6826894921, 1.0), (0.9544997361, 2.0)):
        law = theory.chain_law(512, 1.0, 4, confidence)
        reach = math.log(law.high / law.growth)
        np.testing.assert_allclose(reach, z * 0.0312805 / 2, rtol=1e-5)
        np.testing.assert_allclose(math.log(law.growth / law.low), reach, rtol=1e-9)


def test_real_chains_lie_in_the_interval_as_often_as_stated():
    """Of 4 000 chains of real matrices 16 wide, 95 % lie within, up to 4 sd."""
    rng = np.random.default_rng(16)
    width, layers, chains = 16, 10, 4000
    x = rng.standard_normal((chains, 1, width))
    start = np.mean(x**2, axis=2)
    for _ in range(layers):
        x = x @ (0.7 * rng.standard_normal((chains, width, width)))
    growth = (np.mean(x**2, axis=2) / start) ** (0.5 / layers)
    law = theory.chain_law(width, 0.7, layers, 0.95)
    inside = np.count_nonzero((law.low <= growth) & (growth <= law.high))
    low, high = stats.binom.ppf(stats.norm.cdf([-4, 4]), chains, 0.95)
    assert low <= inside <= high


def test_the_growth_of_a_chain_is_the_median_not_the_root_of_the_second_moment():
    """Chance makes the typical growth smaller than std sqrt(n), by Jensen."""
    law = theory.chain_law(16, 0.25, 10)
    mean = STEP_LAW[16][0]  # negative; 0.25 sqrt(16) is 1
    np.testing.assert_allclose(law.growth, math.exp(mean), rtol=0, atol=1e-8)

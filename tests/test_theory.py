"""The laws: against golden numbers, closed forms and random matrices."""

import functools
import itertools
import math

import keras
import numpy as np
import pytest
from scipy import integrate, stats

from activation_monitor.analysis import activations, chance, theory

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

# The same, "Activations at q=1": E phi, E phi^2, std phi, c, and exact bias and sd of log
# rms for 128 units.
ACTIVATIONS = {
    "relu": (0.398942, 0.500000, 0.583819, 5, -0.00989320, 0.1002921),
    "leaky .3": (0.279260, 0.545000, 0.683384, 4.090986, -0.00803590, 0.0901321),
    "tanh": (0, 0.394294, 0.627929, 0.627291, -0.00123258, 0.0351830),
    "sigmoid": (0.5, 0.293379, 0.208276, 0.528900, -0.00103678, 0.0322453),
    "erf": (0, 0.464559, 0.681586, 0.559839, -0.00110008, 0.0332362),
    "gelu": (0.282095, 0.425221, 0.587915, 6.215614, -0.01231910, 0.1120963),
    "silu": (0.206621, 0.355776, 0.559538, 6.261746, -0.01229007, 0.1116733),
    "elu": (0.160521, 0.644945, 0.786879, 2.776022, -0.00540633, 0.0736702),
    "selu": (0, 1.000000, 1.000000, 1.503140, -0.00292883, 0.0541661),
}

# The same, "Length-map fixed points", sw^2 and sb^2: q*, rms phi, chi_q, chi_1.
FIXED_POINTS = {
    ("tanh", 1.5, 0): (0.286894, 0.43734, 0.69549, 1.04057),
    ("tanh", 2, 0): (0.617965, 0.55586, 0.55252, 1.10553),
    ("tanh", 4, 0): (2.121474, 0.72826, 0.33097, 1.36267),
    ("sigmoid", 1, 0): (0.264687, 0.51448, 0.04951, 0.05572),
    ("sigmoid", 4, 0): (1.196914, 0.54702, 0.11320, 0.17158),
    ("erf", 1.5, 0): (0.500000, 0.57735, 0.55133, 1.10266),
    # The facts have 1.07177 for chi_1, of a grid that counts the kink at 0 to one side. It
    # is 1.0507^2 (1 / 2 + 1.6733^2 e^2 P(z > 2)).
    ("selu", 1, 0): (1, 1, 0.78265, 1.07157),
    ("relu", 1.5, 0.05): (0.2, 0.31623, 0.75, 0.75),
}

ALL = sorted(activations.ACTIVATIONS)
SIZES = [1e-30, 1e-12, 1e-4, 0.3, 1.0, 7.0, 1e4, 1e12, 1e30]


@pytest.fixture(autouse=True)
def leaky_relu_of_the_table(monkeypatch):
    """The golden table has slope 0.3, Keras' function 0.2: any function may be added."""
    functions = lambda h: np.where(h > 0, h, 0.3 * h), lambda h: np.where(h > 0, 1, 0.3)
    monkeypatch.setitem(activations.ACTIVATIONS, "leaky .3", functions)


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
        (chance.linear_step(width), linear_mean, linear_sd),
        (chance.relu_step(width), relu_mean, relu_sd),
    ):
        np.testing.assert_allclose(law.mean, mean, rtol=0, atol=0.6e-8)
        np.testing.assert_allclose(sd(law), deviation, rtol=0, atol=0.6e-7)


def test_one_linear_or_relu_unit_is_the_log_of_a_half_normal():
    """For one unit, log |z| has mean -(gamma + log 2) / 2 and variance pi^2 / 8."""
    mean, variance = -0.5 * (np.euler_gamma + math.log(2)), math.pi**2 / 8
    np.testing.assert_allclose(chance.linear_step(1), (mean, variance), rtol=1e-14)
    # Given that the ReLU unit is not dead, it is |z|; and sqrt(q/2) is the reference.
    relu = (mean + 0.5 * math.log(2), variance)
    np.testing.assert_allclose(chance.relu_step(1), relu, rtol=1e-14)


@pytest.mark.parametrize("width", [16, 48])
def test_a_linear_layer_of_random_weights_follows_its_law(width):
    """20 000 Gaussian matrices, one vector: log rms within 4 sd of mean and variance."""
    rng = np.random.default_rng(width)
    x = rng.uniform(-1, 1, 8)
    h = np.einsum("i,kij->kj", x, rng.standard_normal((20_000, 8, width)))
    q = 8 * np.mean(x**2)
    logs = 0.5 * np.log(np.mean(h**2, axis=1) / q)
    assert_follows(logs, chance.linear_step(width))


@pytest.mark.parametrize("width", [16, 48])
def test_a_relu_layer_of_random_weights_follows_its_law(width):
    """The same after a ReLU, given that not all units are dead (2^-16 of 16)."""
    rng = np.random.default_rng(width + 1)
    x = rng.uniform(-1, 1, 8)
    h = np.einsum("i,kij->kj", x, rng.standard_normal((20_000, 8, width)))
    q = 8 * np.mean(x**2)
    size = np.mean(np.maximum(h, 0) ** 2, axis=1)
    logs = 0.5 * np.log(size[size > 0] / (q / 2))
    assert_follows(logs, chance.relu_step(width))


# -- the table of activation functions


@pytest.mark.parametrize("activation", [name for name in ALL if name != "erf"])
def test_an_activation_function_is_that_of_keras(activation):
    """In float64 to 1e-6: some of Keras' constants are float32."""
    h = np.array([-40, -6, -3.5, -2.9, -1.1, -0.9, -1e-3, 0, 1e-3, 0.9, 1.1, 3.5, 5.9, 6.5])
    of_keras = keras.ops.convert_to_numpy(keras.activations.get(activation)(h))
    phi, _ = activations.ACTIVATIONS[activation]
    np.testing.assert_allclose(phi(h), of_keras, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("activation", ALL)
def test_a_derivative_is_that_of_its_function(activation):
    """Central differences over 2e-5, away from kinks: error 1e-10, rounding 1e-10."""
    phi, slope = activations.ACTIVATIONS[activation]
    h = np.arange(-7.95, 8, 0.1)
    step = 1e-5
    difference = (phi(h + step) - phi(h - step)) / (2 * step)
    # The exponential is large: relative to it rounding is 1e-11.
    np.testing.assert_allclose(slope(h), difference, rtol=1e-8, atol=1e-9)


def test_known_says_what_is_in_the_table():
    """Keras' other names for the same function count, other names and None do not."""
    names = ["linear", "swish", "hard_swish", "hard_tanh", "erf"]
    assert all(map(activations.known, names))
    assert not any(map(activations.known, ["snake_beta", "softmax", "", None]))
    assert activations.ACTIVATIONS["swish"] is activations.ACTIVATIONS["silu"]
    assert activations.ACTIVATIONS["hard_swish"] is activations.ACTIVATIONS["hard_silu"]


@pytest.mark.parametrize(
    ("activation", "gain", "name"),
    [
        ("linear", 1, "lecun_normal"),
        ("selu", 1, "lecun_normal"),
        ("tanh", 1, "glorot_uniform"),
        ("softsign", 1, "glorot_uniform"),
        *((a, 2, "he_normal") for a in ("relu", "relu6", "gelu", "silu", "swish")),
        *((a, 2, "he_normal") for a in ("mish", "hard_silu", "hard_swish")),
    ],
)
def test_the_initializer_of_keras_has_the_gain_of_the_table(activation, gain, name):
    """By its `scale`: fan_in Var(w), or fan_avg Var(w) for glorot_uniform."""
    advice = activations.initializer(activation)
    assert (advice.weight_variance, advice.name) == (gain, name)
    assert keras.initializers.get(advice.name).scale == gain


@pytest.mark.parametrize("activation", ["leaky_relu", "elu"])
def test_the_other_gains_keep_a_second_moment_of_one(activation):
    """1 / E phi(z)^2, by closed form and golden table; elu to its three digits."""
    moment = {"leaky_relu": (1 + 0.2**2) / 2, "elu": ACTIVATIONS["elu"][1]}[activation]
    advice = activations.initializer(activation)
    np.testing.assert_allclose(advice.weight_variance, 1 / moment, rtol=5e-4)
    assert advice.name == "he_normal"


def test_no_initializer_is_named_where_none_is_good():
    """Better no advice than a wrong one; and every key of the table has a law."""
    for activation in ("sigmoid", "hard_sigmoid", "softplus", "exponential", "snake_beta"):
        assert activations.initializer(activation) is None
    assert activations.INITIALIZERS.keys() <= activations.ACTIVATIONS.keys()
    assert all(advice.reference for advice in activations.INITIALIZERS.values())
    assert "analogy" in activations.initializer("gelu").reference


# -- averages over one pre-activation


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_moments_at_one_are_the_golden_ones(activation):
    """Mean, second moment and std agree with the table to all six digits."""
    mean, second_moment, std, *_ = ACTIVATIONS[activation]
    got = theory.mean(activation, 1.0), theory.second_moment(activation, 1.0)
    np.testing.assert_allclose(got, (mean, second_moment), rtol=0, atol=0.51e-6)
    np.testing.assert_allclose(math.sqrt(got[1] - got[0] ** 2), std, rtol=0, atol=0.51e-6)


@pytest.mark.parametrize(
    ("activation", "q", "ratio"),
    [
        ("relu", 1e-12, 0.5),
        ("relu", 1e12, 0.5),
        ("leaky .3", 1e-12, 0.545),
        ("leaky .3", 1e12, 0.545),
        ("tanh", 1e-12, 1),
        ("tanh", 1e12, 0),
        ("sigmoid", 1e12, 0),
        ("erf", 1e-12, 1.2732),
        ("erf", 1e12, 0),
        ("gelu", 1e-12, 0.25),
        ("gelu", 1e12, 0.5),
        ("silu", 1e-12, 0.25),
        ("silu", 1e12, 0.5),
        ("elu", 1e-12, 1),
        ("elu", 1e12, 0.5),
        # The golden table shows selu at 1e-4 and 1e4. The limits are 0.5 (1.0507^2 +
        # 1.7581^2) and 0.5 1.0507^2, of its slopes at 0 and far from it.
        ("selu", 1e-4, 2.0731),
        ("selu", 1e4, 0.5521),
        ("selu", 1e-12, 2.0975),
        ("selu", 1e12, 0.5520),
    ],
)
def test_the_second_moment_over_q_has_its_limits(activation, q, ratio):
    """`E phi^2 / q` for small and large q, to the four digits of the table."""
    got = theory.second_moment(activation, q) / q
    np.testing.assert_allclose(got, ratio, rtol=0, atol=0.6e-4)


@pytest.mark.parametrize("q", SIZES)
def test_moments_of_erf_gelu_and_exponential_have_closed_forms(q):
    """The arcsine law, Stein's lemma, and the moments of a lognormal, at every size.

    The mean of gelu is what its two sides leave of each other: 1e-14 of the rms.
    """
    erf = (2 / math.pi * math.asin(2 * q / (1 + 2 * q)), 4 / math.pi / math.sqrt(1 + 4 * q))
    if q < 1e12:  # near 1 the arcsine itself loses digits
        np.testing.assert_allclose(theory.second_moment("erf", q), erf[0], rtol=1e-11)
    np.testing.assert_allclose(theory.slope_second_moment("erf", q), erf[1], rtol=1e-11)
    # E h Phi(h) = q E N(h; 0, 1).
    gelu = q / math.sqrt(2 * math.pi * (1 + q))
    got = theory.mean("gelu", q)
    np.testing.assert_allclose(got, gelu, rtol=1e-11, atol=1e-14 * math.sqrt(q))
    exponential = [theory.mean("exponential", q), theory.second_moment("exponential", q)]
    if q < 100:
        expected = [math.exp(q / 2), math.exp(2 * q)]
        np.testing.assert_allclose(exponential, expected, rtol=1e-13)
    else:
        assert exponential == [math.inf, math.inf]


@pytest.mark.parametrize(
    ("activation", "slope"),
    [("linear", 1.0), ("relu", 0.0), ("leaky_relu", 0.2), ("leaky .3", 0.3)],
)
@pytest.mark.parametrize("q", SIZES)
def test_homogeneous_functions_have_closed_forms(activation, slope, q):
    """With slope a for negative h; the added function goes through the quadrature."""
    got = [
        theory.mean(activation, q),
        theory.second_moment(activation, q),
        theory.slope_second_moment(activation, q),
    ]
    half = (1 + slope**2) / 2
    expected = [(1 - slope) * math.sqrt(q / (2 * math.pi)), half * q, half]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("activation", "area"),
    [
        ("tanh", 4 / 3),
        ("softsign", 2 / 3),
        ("sigmoid", 1 / 6),
        ("hard_sigmoid", 1 / 6),
        ("hard_tanh", 2),
        ("relu6", 6),
    ],
)
@pytest.mark.parametrize("q", [1e8, 1e30])
def test_a_saturated_slope_falls_with_the_root_of_q(activation, area, q):
    """For huge q, `E phi'^2` is the integral of phi'^2 times the density at 0.

    The rest is of relative order 1 / q; for softsign, whose tails are long, 3 / q.
    """
    expected = area / math.sqrt(2 * math.pi * q)
    got = theory.slope_second_moment(activation, q)
    np.testing.assert_allclose(got, expected, rtol=1e-12 + 10 / q)


@pytest.mark.parametrize(
    ("activation", "q"),
    [
        (activation, q)
        for activation in ALL
        for q in (0.01, 1.0, 30.0, 1e8)
        if activation != "exponential" or q <= 1  # beyond, by its closed form only
    ],
)
def test_moments_are_those_of_adaptive_quadrature(activation, q):
    """The mean, both moments, by scipy's `quad` between all kinks, to 1e-9."""
    phi, slope = activations.ACTIVATIONS[activation]
    kinks = [0, 1, 3, 6, 40, math.sqrt(q), 4 * math.sqrt(q)]
    end = 13 * math.sqrt(q)
    edges = sorted({sign * min(e, end) for e in [*kinks, end] for sign in (-1, 1)})

    def average(function):
        def integrand(h):
            return float(function(np.float64(h))) * density(h, q)

        pairs = itertools.pairwise(edges)
        return sum(integrate.quad(integrand, *p, epsabs=0, epsrel=1e-11)[0] for p in pairs)

    np.testing.assert_allclose(
        [
            theory.second_moment(activation, q),
            theory.slope_second_moment(activation, q),
            theory.mean(activation, q) / math.sqrt(q),  # of odd functions it is zero
        ],
        [
            average(lambda h: phi(h) ** 2),
            average(lambda h: slope(h) ** 2),
            average(phi) / math.sqrt(q),
        ],
        rtol=1e-9,
        atol=1e-12,
    )


def density(h, q):
    """Of N(0, q); that of scipy is too slow to be called a million times."""
    return math.exp(-0.5 * h * h / q) / math.sqrt(2 * math.pi * q)


@pytest.mark.parametrize("activation", ALL)
def test_moments_are_numbers_at_every_size(activation):
    """Neither NaN nor a warning from 1e-80 to 1e80; and at 0 the limit for small q."""
    for function in (theory.mean, theory.second_moment, theory.slope_second_moment):
        values = np.array([function(activation, q) for q in np.logspace(-80, 80, 81)])
        assert not np.isnan(values).any()
        assert activation == "exponential" or np.isfinite(values).all()
        # Half a kink is met on either side: selu needs a small q to come near.
        near, limit = function(activation, 1e-30), function(activation, 0.0)
        np.testing.assert_allclose(near, limit, rtol=1e-12, atol=1e-14)


def test_outside_its_range_a_moment_is_nan_not_wrong():
    """Where the grid does not reach; closed forms have no such limits."""
    assert math.isnan(theory.second_moment("tanh", 1e91))
    assert math.isnan(theory.second_moment("tanh", math.nan))
    assert theory.second_moment("relu", 1e200) == 0.5e200


@pytest.mark.parametrize(
    "function",
    [
        functools.partial(theory.mean, q=1.0),
        functools.partial(theory.length_map, q=1.0, weight_variance=1.0),
        functools.partial(theory.chi_1, q=1.0, weight_variance=1.0),
        functools.partial(theory.chi_q, q=1.0, weight_variance=1.0),
        functools.partial(theory.fixed_point, weight_variance=1.0),
        theory.critical_weight_variance,
    ],
)
def test_an_unknown_activation_function_has_no_moments(function):
    """The error names it and those that are known."""
    with pytest.raises(ValueError, match=r"Received: activation='snake'. Use .*relu"):
        function("snake")


# -- the length map


@pytest.mark.parametrize("case", FIXED_POINTS)
def test_fixed_points_are_the_golden_ones(case):
    """q*, rms, chi_q and chi_1 agree with the table to all its digits."""
    q, rms, chi_q, chi_1 = FIXED_POINTS[case]
    activation, weight_variance, bias_variance = case
    got = theory.fixed_point(activation, weight_variance, bias_variance)
    np.testing.assert_allclose(got, q, rtol=0, atol=0.51e-6)
    moment = theory.second_moment(activation, got)
    np.testing.assert_allclose(math.sqrt(moment), rms, rtol=0, atol=0.51e-5)
    got_q = theory.chi_q(activation, got, weight_variance, bias_variance)
    np.testing.assert_allclose(got_q, chi_q, rtol=0, atol=0.51e-5)
    got_1 = theory.chi_1(activation, got, weight_variance)
    np.testing.assert_allclose(got_1, chi_1, rtol=0, atol=0.51e-5)


@pytest.mark.parametrize("case", FIXED_POINTS)
@pytest.mark.parametrize("start", [0.0, 1e-6, 40.0])
def test_a_fixed_point_is_where_the_length_map_leads(case, start):
    """From below and above, 300 iterations come to the same: chi_q^300 < 1e-30.

    From exactly 0, only sigmoid and a bias lead away.
    """
    activation, weight_variance, bias_variance = case
    q = start
    for _ in range(300):
        q = theory.length_map(activation, q, weight_variance, bias_variance)
    got = theory.fixed_point(activation, weight_variance, bias_variance, start)
    np.testing.assert_allclose(got, q, rtol=1e-10)


@pytest.mark.parametrize(
    ("activation", "weight_variance", "bias_variance", "start", "limit"),
    [
        ("relu", 1.9, 0, 1.0, 0.0),
        ("relu", 2.0, 0, 0.37, 0.37),  # every q is a fixed point
        ("relu", 2.0, 1e-6, 1.0, math.inf),  # by 1e-6 a layer
        ("relu", 2.1, 0, 1.0, math.inf),
        ("relu", 2.1, 0, 0.0, 0.0),
        ("linear", 1.0, 0, 3.0, 3.0),
        ("leaky_relu", 2 / 1.04, 0, 3.0, 3.0),
        ("tanh", 0.9, 0, 1.0, 0.0),
        ("tanh", 1.0, 0, 1.0, 0.0),  # as 1 / (2 layers)
        ("softsign", 1.0, 0, 1e6, 0.0),
        ("hard_tanh", 1.0, 0, 1.0, 0.0),  # ever slower, as exp(-1 / (2 q))
        ("gelu", 1.0, 0, 1.0, 0.0),
        ("silu", 1.0, 0, 1.0, 0.0),
        ("gelu", 2.0, 0, 1.0, 0.0),
        ("gelu", 2.35, 0, 1.0, 0.0),  # 1.005 repels
        ("gelu", 2.35, 0, 1.01, math.inf),
        ("elu", 2.0, 0, 1.0, math.inf),
        ("exponential", 1.0, 0, 1.0, math.inf),
        ("tanh", 0.0, 0, 1.0, 0.0),
        ("tanh", 0.0, 0.3, 1.0, 0.3),
    ],
)
def test_a_signal_that_dies_or_blows_up_or_stays(
    activation, weight_variance, bias_variance, start, limit
):
    """Without looping: also where it takes for ever."""
    got = theory.fixed_point(activation, weight_variance, bias_variance, start)
    np.testing.assert_allclose(got, limit, rtol=1e-12)


@pytest.mark.parametrize(
    ("activation", "critical"),
    [("tanh", 1), ("hard_tanh", 1), ("softsign", 1), ("erf", math.pi / 4), ("elu", 1)],
)
def test_rounding_is_not_taken_for_a_fixed_point(activation, critical):
    """At the critical variance E phi^2 / q is one but for rounding where q is small."""
    for start in (0.3, 1.0, 7.0, 30.0):
        assert theory.fixed_point(activation, critical, start=start) == 0.0


@pytest.mark.parametrize("bias_variance", [1e-30, 1.0, 1e10])
def test_a_bias_just_below_the_critical_variance_is_amplified(bias_variance):
    """ReLU: q* = sb^2 / (1 - sw^2 / 2). Where chi_q is 1 - 1e-6, rounding costs 1e-9."""
    got = theory.fixed_point("relu", 2.0 * (1 - 1e-6), bias_variance)
    np.testing.assert_allclose(got, 1e6 * bias_variance, rtol=1e-8)


def test_at_the_critical_variance_a_leaky_relu_keeps_every_size():
    """Though 2 / 1.04 has no exact floating-point number."""
    for start in np.geomspace(0.01, 100, 40):
        assert theory.fixed_point("leaky_relu", 2 / 1.04, start=start) == start


@pytest.mark.parametrize("weight_variance", [0.1, 0.15, 0.18])
def test_the_first_fixed_point_on_the_way_is_found(weight_variance):
    """exp has two, at 0.18 a factor of 1.5 apart: from below the iterates stop at the
    first, which attracts as 2 q < 1; what is above the second blows up."""
    q = 1e-3
    for _ in range(1000):
        q = theory.length_map("exponential", q, weight_variance)
    assert 2 * q < 1
    for start in (1e-3, 0.01, 0.4):
        got = theory.fixed_point("exponential", weight_variance, start=start)
        np.testing.assert_allclose(got, q, rtol=1e-9)
    assert theory.fixed_point("exponential", weight_variance, start=2.0) == math.inf


def test_close_to_the_edge_the_fixed_point_of_tanh_is_half_the_distance():
    """E tanh^2 = q - 2 q^2 + 17/3 q^3 - ..., so q* = d/2 + O(d^2) for variance 1 + d."""
    for d in (1e-3, 1e-6, 1e-9):
        got = theory.fixed_point("tanh", 1 + d)
        # Two units of 1e-16 in 1 + d, and in the sum, are 4e-7 of d = 1e-9.
        np.testing.assert_allclose(got, d / 2, rtol=2 * d + 2e-6)


def iterate(activation, q, weight_variance, layers):
    """rms of the activations of each layer, from pre-activations of variance q."""
    rms = []
    for _ in range(layers):
        rms.append(math.sqrt(theory.second_moment(activation, q)))
        q = theory.length_map(activation, q, weight_variance)
    return rms


@pytest.mark.parametrize(
    ("activation", "weight_variance", "golden"),
    [
        ("tanh", 1, "0.627929 0.486262 0.408236 0.228473 0.160941 0.101091"),
        ("gelu", 2, "0.9603 0.9186 0.8750 0.4972 0.0369 0.0000011"),
    ],
)
def test_the_length_map_passes_through_the_golden_sizes(
    activation, weight_variance, golden
):
    """From an input of rms 1, layers 1, 2, 3, 10, 20, 50: to all digits of the facts."""
    rms = iterate(activation, weight_variance, weight_variance, 50)
    for layer, expected in zip((1, 2, 3, 10, 20, 50), golden.split(), strict=True):
        assert f"{rms[layer - 1]:.{len(expected) - 2}f}" == expected


@pytest.mark.parametrize("activation", ["gelu", "silu"])
def test_gelu_and_silu_at_variance_one_halve_the_signal(activation):
    """Facts: x 0.5 a layer, once it is small."""
    rms = iterate(activation, 1.0, 1.0, 12)
    np.testing.assert_allclose(rms[-1] / rms[-2], 0.5, rtol=1e-4)


def test_the_fixed_point_of_gelu_repels():
    """Facts: q* = 1.005 for variance 2.35; a deviation of it grows."""
    np.testing.assert_allclose(theory.length_map("gelu", 1.005, 2.35), 1.005, rtol=5e-5)
    assert theory.chi_q("gelu", 1.005, 2.35) > 1.1


def test_gradients_of_sigmoid_networks_vanish_as_measured():
    """Facts section 4: sw^2 = 4, theory 0.4142 a layer; with sw^2 = 1 0.236."""
    for weight_variance, growth, digits in ((4.0, 0.4142, 0.6e-4), (1.0, 0.236, 0.6e-3)):
        q = theory.fixed_point("sigmoid", weight_variance)
        got = math.sqrt(theory.chi_1("sigmoid", q, weight_variance))
        np.testing.assert_allclose(got, growth, rtol=0, atol=digits)


@pytest.mark.parametrize("activation", ALL)
@pytest.mark.parametrize("q", [1e-20, 1e-3, 0.5, 4.0, 1e5])
@pytest.mark.parametrize("bias_variance", [0.0, 0.4])
def test_chi_q_is_the_slope_of_the_length_map(activation, q, bias_variance):
    """Central differences of log q' over log q +- 1e-4: error 1e-8, rounding 1e-11."""
    got = theory.chi_q(activation, q, 1.7, bias_variance)
    if activation == "exponential" and q > 300:
        assert got == 2 * q  # its second moment overflows
        return
    below, above = (
        math.log(theory.length_map(activation, q * math.exp(d), 1.7, bias_variance))
        for d in (-1e-4, 1e-4)
    )
    np.testing.assert_allclose(got, (above - below) / 2e-4, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("activation", ALL)
def test_the_length_map_increases(activation):
    """What `fixed_point` builds on: chi_q > 0 at every size."""
    assert all(theory.chi_q(activation, q, 1.0) > 0 for q in np.logspace(-30, 30, 121))


def test_chi_q_at_zero_is_the_limit():
    """Without bias tanh passes a deviation on, with bias nothing of it is left."""
    np.testing.assert_allclose(theory.chi_q("tanh", 0.0, 0.8), 1.0, rtol=1e-12)
    assert theory.chi_q("tanh", 0.0, 0.8, 0.1) < 1e-80
    assert theory.chi_q("tanh", 1.0, 0.0, 0.1) == 0.0


def test_chance_in_a_deep_selu_network_is_an_autoregression():
    """Facts: Var log rms = (c / 4n) / (1 - chi_q^2), sd within 4 % at 128 units.

    5 000 networks of 20 layers, given the law of one layer: the sample's variance has a
    standard deviation of 2 %, four of which and those 4 % of the sd make 16 %. A random
    walk would be 8 times as wide.
    """
    rng = np.random.default_rng(20)
    phi, _ = activations.ACTIVATIONS["selu"]
    q = np.ones((5000, 1))
    for _ in range(20):
        x = phi(np.sqrt(q) * rng.standard_normal((5000, 128)))
        q = np.mean(x**2, axis=1, keepdims=True)
    chi = theory.chi_q("selu", 1.0, 1.0)
    expected = ACTIVATIONS["selu"][3] / (4 * 128) / (1 - chi**2)
    np.testing.assert_allclose(np.var(0.5 * np.log(q)), expected, rtol=0.16)


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_gradients_of_random_networks_grow_by_chi_1(activation):
    """One layer: the gradient's second moment is chi_1 times what came, within 4 sd.

    2 000 layers 24 -> 32 -> 1: of sum_j w_j phi'(h_j) v_j, per input, with Var(w) 1.3 /
    24 and v standard normal, the mean square is chi_1 32 / 24.
    """
    rng = np.random.default_rng(24)
    _, slope = activations.ACTIVATIONS[activation]
    x = rng.standard_normal(24)
    weights = rng.normal(0, math.sqrt(1.3 / 24), (2000, 24, 32))
    back = rng.standard_normal((2000, 32)) * slope(np.einsum("i,kij->kj", x, weights))
    # Forward and backward weights are taken as independent, as Schoenholz et al. do.
    weights = rng.normal(0, math.sqrt(1.3 / 24), (2000, 24, 32))
    squares = np.mean(np.einsum("kij,kj->ki", weights, back) ** 2, axis=1)
    expected = theory.chi_1(activation, 1.3 * np.mean(x**2), 1.3) * 32 / 24
    reach = 4 * squares.std() / math.sqrt(2000)
    np.testing.assert_array_less(abs(squares.mean() - expected), reach)


# -- the critical weight variance


@pytest.mark.parametrize(
    ("activation", "critical"),
    [
        ("linear", 1),
        ("relu", 2),
        ("leaky_relu", 2 / 1.04),
        ("tanh", 1),
        ("softsign", 1),
        ("hard_tanh", 1),
        ("erf", math.pi / 4),
        ("elu", 1),
        ("relu6", 2),
        # Of its two slopes at 0.
        ("selu", 2 / (1.05070098736**2 * (1 + 1.67326324235**2))),
    ],
)
def test_critical_weight_variances_have_closed_forms(activation, critical):
    """1 / E phi'^2 at q = 0, the fixed point: 1 / phi'(0)^2 where phi is smooth."""
    got = theory.critical_weight_variance(activation)
    np.testing.assert_allclose(got, critical, rtol=1e-10)
    # It separates signals that die from those that do not, whose gradients then explode.
    assert theory.fixed_point(activation, 0.9 * got) == 0.0
    above = theory.fixed_point(activation, 1.1 * got)
    assert theory.chi_1(activation, above, 1.1 * got) > 1 or above == math.inf


@pytest.mark.parametrize("activation", ["sigmoid", "hard_sigmoid"])
def test_the_critical_weight_variance_of_a_sigmoid_is_solved_for(activation):
    """At its fixed point chi_1 is 1, below it less, above it more."""
    critical = theory.critical_weight_variance(activation)
    chi = [
        theory.chi_1(activation, theory.fixed_point(activation, variance), variance)
        for variance in (0.9 * critical, critical, 1.1 * critical)
    ]
    np.testing.assert_allclose(chi[1], 1, rtol=1e-9)
    assert chi[0] < 0.98 and chi[2] > 1.02


def test_the_critical_weight_variance_of_sigmoid_is_golden():
    """Facts: 103.0."""
    got = theory.critical_weight_variance("sigmoid")
    np.testing.assert_allclose(got, 103.0, rtol=0, atol=0.051)


@pytest.mark.parametrize(
    "activation", ["gelu", "silu", "mish", "hard_silu", "softplus", "exponential"]
)
def test_some_activation_functions_have_no_critical_weight_variance(activation):
    """NaN: no fixed point of any weight variance has chi_1 = 1 and attracts."""
    assert math.isnan(theory.critical_weight_variance(activation))
    for q in np.logspace(-6, 2, 81):
        weight_variance = q / theory.second_moment(activation, q)  # q is a fixed point
        chi_1 = theory.chi_1(activation, q, weight_variance)
        assert chi_1 < 1 or theory.chi_q(activation, q, weight_variance) > 1 - 1e-12


# -- chance in one layer, by the activation function


@pytest.mark.parametrize(
    ("activation", "c"), [("linear", 2.0), *((a, row[3]) for a, row in ACTIVATIONS.items())]
)
def test_the_relative_variance_is_the_golden_one(activation, c):
    """`c` agrees with facts/theory.md section 1 to all six digits."""
    np.testing.assert_allclose(chance.relative_variance(activation), c, atol=0.6e-6)


def test_the_relative_variance_of_a_leaky_relu_has_a_closed_form():
    """For slope a: c = 6 (1 + a^4) / (1 + a^2)^2 - 1, with Keras' default a = 0.2."""
    np.testing.assert_allclose(
        chance.relative_variance("leaky_relu"),
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
    np.testing.assert_allclose(chance.relative_variance(activation), c, rtol=1e-5)


def test_an_unknown_activation_function_counts_as_relu():
    """What is not known gets the wide interval of ReLU."""
    assert chance.relative_variance("snake_beta") == 5.0
    assert chance.step_law("snake_beta", 100) == (-5 / 400, 5 / 400)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_step_laws_are_the_golden_ones(activation):
    """At 128 units bias and sd are exact, to all digits of the table."""
    *_, bias, deviation = ACTIVATIONS[activation]
    law = chance.step_law(activation, 128)
    np.testing.assert_allclose(law.mean, bias, rtol=0, atol=0.51e-8)
    np.testing.assert_allclose(sd(law), deviation, rtol=0, atol=0.51e-7)


@pytest.mark.parametrize("width", [1, 2, 16, 128, 2048])
def test_the_quadrature_of_step_laws_agrees_with_the_closed_forms(width):
    """Linear and ReLU have both; 1e-9 of the variance is what rounding leaves."""
    for activation in ("linear", "relu"):
        law = chance._laplace_step(activation, width)
        np.testing.assert_allclose(law, chance.step_law(activation, width), rtol=1e-9)


@pytest.mark.parametrize("activation", ["tanh", "softsign", "softplus", "leaky_relu"])
def test_the_law_of_one_unit_is_that_of_its_logarithm(activation):
    """For one unit, moments of log |phi(z)| by adaptive quadrature in log |z|."""
    phi, _ = activations.ACTIVATIONS[activation]

    def average(function):
        def integrand(u, sign):
            h = sign * math.exp(u)
            return float(function(np.log(np.abs(phi(h))))) * density(h, 1) * abs(h)

        edges = [-40, -20, -10, -3, 0, 1, 2.6]
        return sum(
            integrate.quad(integrand, *pair, args=(sign,), epsabs=1e-13)[0]
            for pair in itertools.pairwise(edges)
            for sign in (-1, 1)
        )

    mean = average(lambda log: log)
    variance = average(lambda log: (log - mean) ** 2)
    bias = mean - 0.5 * math.log(average(lambda log: np.exp(2 * log)))
    np.testing.assert_allclose(chance.step_law(activation, 1), (bias, variance), rtol=1e-8)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "gelu", "selu", "leaky_relu"])
def test_a_layer_of_random_weights_follows_the_law_of_its_activation(activation):
    """20 000 matrices 8 -> 12, an input with q = 1: mean and variance within 4 sd."""
    rng = np.random.default_rng(12)
    x = rng.uniform(-1, 1, 8)
    x /= math.sqrt(8 * np.mean(x**2))
    h = np.einsum("i,kij->kj", x, rng.standard_normal((20_000, 8, 12)))
    phi, _ = activations.ACTIVATIONS[activation]
    logs = 0.5 * np.log(np.mean(phi(h) ** 2, axis=1) / theory.second_moment(activation, 1))
    assert_follows(logs, chance.step_law(activation, 12))


@pytest.mark.parametrize("width", [32, 512])
def test_step_laws_of_linear_and_relu_are_not_approximations(width):
    """By name, linear and ReLU give the golden values."""
    linear_mean, linear_sd, relu_mean, relu_sd = STEP_LAW[width]
    linear, relu = chance.step_law("linear", width), chance.step_law("relu", width)
    np.testing.assert_allclose([linear.mean, relu.mean], [linear_mean, relu_mean], 1e-5)
    np.testing.assert_allclose([sd(linear), sd(relu)], [linear_sd, relu_sd], 1e-5)


# -- many layers


def test_chance_adds_up_over_layers_of_different_kinds():
    """Means and variances of the layers add, each by its own activation and width."""
    law = chance.of_layers(["linear", "relu", "tanh"], [64, 256, 128])
    mean = -0.00785319 - 0.00491433 - 0.00123258
    variance = 0.0890833**2 + 0.0703895**2 + 0.0351830**2
    np.testing.assert_allclose(law, (mean, variance), rtol=5e-6)  # digits of the table


def test_chance_of_no_layers_is_nothing():
    """Without a layer nothing is left to chance."""
    assert chance.of_layers([], []) == (0, 0)


def test_chance_needs_a_width_for_every_layer():
    """One name without its width is an error, not a shorter sum."""
    with pytest.raises(ValueError, match="shorter"):
        chance.of_layers(["relu", "relu"], [64])


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
    law = chance.of_layers([activation] * layers, [512] * layers)
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
    assert_follows(logs, chance.of_layers(["relu"] * 6, [32] * 6))


@pytest.mark.parametrize("activation", ["linear", "relu", "leaky_relu"])
def test_chains_of_changing_widths_follow_their_law(activation):
    """4 000 networks 20 -> 32 -> 16 -> 48 -> 24, weights of any scale: at each layer mean
    and variance of the log within 4 sd. A ReLU layer that is dead is left out."""
    rng = np.random.default_rng(48)
    widths, gains = [32, 16, 48, 24], [2.0, 0.3, 17.0, 1.0]
    phi, _ = activations.ACTIVATIONS[activation]
    x = rng.uniform(0, 1, (4000, 1, 20))
    start = np.mean(x**2, axis=2)[:, 0]
    scale = 0.0
    for layer, (width, gain) in enumerate(zip(widths, gains, strict=True)):
        scale += 0.5 * math.log(gain * theory.second_moment(activation, 1.0))
        law = chance.of_layers([activation] * (layer + 1), widths[: layer + 1])
        fan_in = x.shape[2]
        weights = rng.normal(0, math.sqrt(gain / fan_in), (4000, fan_in, width))
        x = phi(x @ weights)
        size = np.mean(x**2, axis=2)[:, 0]
        alive = size > 0
        logs = 0.5 * np.log(size[alive] / start[alive]) - scale
        assert_follows(logs, law)


def test_the_law_at_changing_widths_is_the_golden_one():
    """Facts: ReLU, widths 128 to 48, exact variance of the log 0.2263."""
    law = chance.of_layers(["relu"] * 7, [128, 32, 256, 16, 64, 100, 48])
    np.testing.assert_allclose(law.variance, 0.2263, rtol=0, atol=0.51e-4)


@pytest.mark.parametrize(
    ("layers", "mean", "sd"),
    [(20, -0.019544, 0.139891), (50, -0.048860, 0.221187), (100, -0.097720, 0.312805)],
)
def test_the_law_of_a_linear_chain_is_the_golden_one(layers, mean, sd):
    """512 wide: mean and sd of the log."""
    law = chance.of_layers(["linear"] * layers, [512] * layers)
    np.testing.assert_allclose(law.mean, mean, atol=0.6e-6)
    np.testing.assert_allclose(math.sqrt(law.variance), sd, atol=0.6e-6)


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
    law = chance.chain_law(512, 1.0, layers, 0.999)
    np.testing.assert_allclose(law.growth, 22.6053, rtol=0, atol=0.00006)
    np.testing.assert_allclose([law.low, law.high], [low, high], rtol=0, atol=0.0006)


@pytest.mark.parametrize("std", [1e-30, 0.01, 1 / math.sqrt(512), 1e30])
def test_the_chain_law_scales_with_the_weights(std):
    """The growth is proportional to the weights' std: 0.226053 for 0.01."""
    law = chance.chain_law(512, std, 20)
    golden = np.array([22.6053, 22.091, 23.132]) * std
    np.testing.assert_allclose(law, golden, rtol=3e-5)  # digits of the golden numbers


def test_the_chain_law_widens_with_confidence():
    """The interval's half width in the log is the normal quantile times the sd."""
    for confidence, z in ((0.6826894921, 1.0), (0.9544997361, 2.0)):
        law = chance.chain_law(512, 1.0, 4, confidence)
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
    law = chance.chain_law(width, 0.7, layers, 0.95)
    inside = np.count_nonzero((law.low <= growth) & (growth <= law.high))
    low, high = stats.binom.ppf(stats.norm.cdf([-4, 4]), chains, 0.95)
    assert low <= inside <= high


def test_the_growth_of_a_chain_is_the_median_not_the_root_of_the_second_moment():
    """Chance makes the typical growth smaller than std sqrt(n), by Jensen."""
    law = chance.chain_law(16, 0.25, 10)
    mean = STEP_LAW[16][0]  # negative; 0.25 sqrt(16) is 1
    np.testing.assert_allclose(law.growth, math.exp(mean), rtol=0, atol=1e-8)

"""A cause is named only where it accounts for what was found: models and their twins."""

import keras
import numpy as np
import pytest

from activation_monitor import audit

SAMPLES = 64


def batch(*shape):
    return np.random.default_rng(0).standard_normal((SAMPLES, *shape), dtype="float32")


def sequential(*layers, width=32):
    return keras.Sequential([keras.Input((width,)), *layers], name="net")


# -- zeros that no size of the weights makes


def normalized(moving_mean):
    """Four blocks of Dense, frozen BatchNormalization and ReLU."""
    model = sequential()
    for i in range(4):
        model.add(keras.layers.Dense(64, name=f"dense_{i}"))
        frozen = keras.layers.BatchNormalization(trainable=False, name=f"norm_{i}")
        model.add(frozen)
        model.add(keras.layers.ReLU(name=f"relu_{i}"))
    model.add(keras.layers.Dense(1, name="head"))
    model.get_layer("norm_2").moving_mean.assign(np.full(64, moving_mean, np.float32))
    return model


def test_a_frozen_normalization_that_makes_zeros_is_named_and_no_initializer():
    """Glorot's kernels are a factor of two from He's: that makes no zeros."""
    (finding,) = audit(normalized(30.0), batch(32)).findings
    assert finding.code == "zero-activations" and "net/relu_2" in finding.layers
    fix = finding.fix
    assert fix.cause == "normalization" and fix.changes == ()
    assert "the output of net/norm_2, is at most -2" in fix.reason
    assert "moving statistics" in fix.reason
    assert "glorot" not in str(finding)


def test_a_frozen_normalization_that_fits_its_data_is_healthy():
    """The twin: the moving mean is where it was drawn."""
    assert audit(normalized(0.0), batch(32)).findings == ()


def biased(bias, initializer="glorot_uniform"):
    layers = [
        keras.layers.Dense(
            64,
            "relu",
            kernel_initializer=initializer,
            bias_initializer=keras.initializers.Constant(bias),
            name=f"hidden_{i}",
        )
        for i in range(4)
    ]
    return sequential(*layers, keras.layers.Dense(1, name="head"))


def test_a_bias_below_zero_that_makes_zeros_is_not_put_down_to_the_size_of_the_weights():
    """What is known is said, and no more."""
    (finding,) = audit(biased(-30.0), batch(32)).findings
    assert finding.code == "zero-activations"
    assert finding.fix.cause == "not known"
    assert "bias far below zero" in finding.fix.reason
    assert audit(biased(0.0, "he_normal"), batch(32)).findings == ()


# -- layers of an unknown kind


class Sine(keras.layers.Layer):
    """`sin(omega (x W + b))`, drawn as in the SIREN paper (Sitzmann et al. 2020)."""

    def __init__(self, units, omega, limit, **options):
        super().__init__(**options)
        self.units, self.omega, self.limit = units, omega, limit

    def build(self, shape):
        drawn = keras.initializers.RandomUniform(-self.limit, self.limit)
        self.kernel = self.add_weight(shape=(shape[-1], self.units), initializer=drawn)
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros")

    def call(self, x):
        return keras.ops.sin(self.omega * (x @ self.kernel + self.bias))


def siren(width=256, omega=30.0):
    layers = [Sine(width, omega, 1 / 2, name="sine_0")]
    layers += [
        Sine(width, omega, np.sqrt(6 / width) / omega, name=f"sine_{i}")
        for i in range(1, 5)
    ]
    return sequential(*layers, keras.layers.Dense(1, name="head"), width=2)


def test_sine_layers_drawn_as_in_their_paper_get_no_finding():
    """From their kernels a gain of 0.07 would follow; measured is 1.04."""
    x = np.random.default_rng(0).uniform(-1, 1, (SAMPLES, 2)).astype("float32")
    diagnosis = audit(siren(), x)
    assert diagnosis.findings == ()
    links = list(diagnosis.profile.links.values())[1:5]
    assert all(link.contradicted for link in links)
    gains = [link.gain for link in links]
    np.testing.assert_allclose(gains, 1.0, atol=0.15)


# -- operations between layers


def graph_network(times, divide=1.0, neighbours=100):
    """Sums over the nodes of a complete graph between the layers."""
    inputs = keras.Input((neighbours, 8), name="nodes")
    x = inputs
    for i in range(times):
        x = keras.layers.Dense(
            32, "relu", kernel_initializer="he_normal", name=f"message_{i}"
        )(x)
        total = keras.ops.sum(x, axis=1, keepdims=True) / divide
        x = x * 0.0 + total
    return keras.Model(inputs, keras.layers.Dense(1, name="head")(x), name="net")


def test_a_sum_over_neighbours_explodes_and_no_initializer_is_blamed():
    """Six sums over 100 neighbours: about 1e10."""
    (finding,) = audit(graph_network(6), batch(100, 8)).findings
    assert (finding.code, finding.severity) == ("exploding-activations", "critical")
    assert finding.evidence["decades"] > 8
    assert finding.fix.cause == "operation between layers"
    assert "initializer=" not in str(finding.fix)
    assert "between weight layers" in finding.message


def test_a_sum_that_is_divided_by_its_terms_is_healthy():
    """The twin."""
    assert audit(graph_network(6, divide=100.0), batch(100, 8)).findings == ()


# -- weights that have changed


@pytest.mark.parametrize("compiled", [True, False])
def test_a_trained_model_is_not_said_to_be_at_initialization(compiled):
    """By its steps, or by its biases; the same model before training is healthy."""
    x = batch(32)
    model = biased(0.0, "he_normal")
    assert audit(model, x).verdict == "healthy"
    model.compile("adam", "mse")
    model.fit(x, x[:, :1], epochs=20, verbose=0)
    if not compiled:
        saved = model.get_weights()
        model = biased(0.0, "he_normal")
        model.set_weights(saved)
    diagnosis = audit(model, x)
    assert diagnosis.verdict == "not assessed"
    expected = "step 40" if compiled else "have changed since they were drawn"
    assert expected in diagnosis.not_assessed
    assert "at initialization" not in str(diagnosis)
    assert audit(model, x, seeds=3).verdict == "healthy"  # two of three are drawn again


# -- the input


def test_nan_in_the_input_of_the_model_is_said_to_be_in_the_batch():
    """Nothing comes before it."""
    x = batch(32)
    x[3, 5] = np.nan
    (finding,) = audit(biased(0.0, "he_normal"), x).findings
    assert finding.code == "nonfinite-activations"
    assert "of the input of the model" in finding.message
    assert "The batch itself contains them" in finding.message
    assert finding.fix.cause == "data"
    (change,) = finding.fix.changes
    np.testing.assert_array_equal(eval(change.code, {"np": np, "x": x}), [3])


# -- initializers, by activation function and as people write it


def deep(activation, std, apart=False):
    """Twelve layers with the activation function in the layer, or in one after it."""
    layers = []
    for i in range(12):
        draw = keras.initializers.RandomNormal(stddev=std)
        fused = None if apart else activation
        layers.append(
            keras.layers.Dense(64, fused, kernel_initializer=draw, name=f"hidden_{i}")
        )
        if apart:
            layers.append(keras.layers.Activation(activation, name=f"phi_{i}"))
    return sequential(*layers, keras.layers.Dense(1, name="head"))


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(
    ("activation", "std"),
    [("tanh", 1.0), ("tanh", 0.5), ("softsign", 1.0), ("selu", 0.03), ("relu", 0.05)],
)
def test_weights_that_do_not_suit_their_activation_are_put_down_to_the_initializer(
    activation, std, apart
):
    """Bounded functions too, whose size and slope do not follow that of the weights."""
    first, *_ = audit(deep(activation, std, apart), batch(32)).findings
    assert first.fix.cause == "initializer"
    assert "kernel_initializer=" in first.fix.changes[0].code


def test_normalized_layers_are_not_of_an_unknown_kind():
    """A normalization decides the gain: that contradicts no weights."""
    model = sequential()
    for i in range(20):
        draw = keras.initializers.RandomNormal(stddev=1.0)
        model.add(keras.layers.Dense(64, kernel_initializer=draw, name=f"dense_{i}"))
        model.add(keras.layers.BatchNormalization(name=f"norm_{i}"))
        model.add(keras.layers.ReLU(name=f"relu_{i}"))
    model.add(keras.layers.Dense(1, name="head"))
    diagnosis = audit(model, batch(32))
    assert diagnosis.verdict == "healthy"
    assert not any(link.contradicted for link in diagnosis.profile.links.values())


def test_one_forward_pass_before_training_leaves_the_weights_as_they_were_drawn():
    """It moves the statistics of BatchNormalization; a bad initialization is found."""
    inputs = keras.Input((32,))
    first = keras.layers.Dense(32, name="first")(inputs)
    outputs = deep("relu", 0.02)(keras.layers.BatchNormalization(name="norm")(first))
    model = keras.Model(inputs, outputs)
    model(batch(32), training=True)
    assert np.abs(model.get_layer("norm").moving_variance - 1.0).max() > 0
    assert [f.code for f in audit(model, batch(32)).findings] == ["vanishing-activations"]


def test_a_normalized_backbone_without_biases_is_not_called_badly_initialized():
    """Only its normalization shows that it was trained."""
    model = sequential()
    for i in range(6):
        draw = keras.initializers.RandomNormal(stddev=1.0)
        model.add(
            keras.layers.Dense(64, use_bias=False, kernel_initializer=draw, name=f"d{i}")
        )
    model.add(keras.layers.BatchNormalization(name="norm"))
    for i in range(6, 12):
        draw = keras.initializers.RandomNormal(stddev=1.0)
        model.add(
            keras.layers.Dense(64, use_bias=False, kernel_initializer=draw, name=f"d{i}")
        )
    model.add(keras.layers.Dense(1, name="head"))
    assert audit(model, batch(32)).findings[0].code == "exploding-activations"
    model.get_layer("norm").beta.assign(np.full(64, 0.01, np.float32))
    diagnosis = audit(model, batch(32))
    assert (diagnosis.findings, diagnosis.verdict) == ((), "not assessed")


def test_a_product_of_branches_is_no_residual_stream():
    """Zeros in a branch, which a stream of sums bears, would end a product."""
    inputs = keras.Input((64,))
    x = inputs
    for i in range(8):
        a, b = (
            keras.layers.Dense(64, kernel_initializer="he_normal", name=f"{n}{i}")(x)
            for n in "ab"
        )
        x = a * b
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(x))
    for finding in audit(model, batch(64)).findings:
        assert finding.fix is None or finding.fix.cause != "unscaled residual branch"
        assert "zeros" not in str(finding.fix)


@pytest.mark.parametrize("seed", range(4))
def test_the_mean_of_a_few_weights_is_not_blamed(seed):
    """Sixteen weights of one input have a mean by chance."""
    keras.utils.set_random_seed(seed)
    draw = keras.initializers.RandomNormal
    layers = [
        keras.layers.Dense(16, "relu", kernel_initializer=draw(stddev=0.05), name=f"h{i}")
        for i in range(12)
    ]
    model = sequential(*layers, keras.layers.Dense(1, name="head"), width=1)
    (finding,) = audit(model, batch(1)).findings
    assert finding.code == "vanishing-activations"
    changed = {name for change in finding.fix.changes for name in change.layers}
    assert len(changed) >= 10

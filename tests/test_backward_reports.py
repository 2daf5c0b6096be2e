"""Public reports of networks that do not train, through `audit` with targets, and twins."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from activation_monitor import ActivationMonitor, audit, rescale

RNG = np.random.default_rng(0)


def normal(*shape):
    return np.random.default_rng(1).standard_normal(shape, dtype="float32")


def sequential(inputs, *hidden):
    return keras.Sequential([keras.Input(inputs), *hidden], name="net")


def found(model, x, y, loss="mse"):
    """The findings of an audit with targets."""
    model.compile("adam", loss)
    return audit(model, x, y).findings


def codes(model, x, y, loss="mse"):
    return [finding.code for finding in found(model, x, y, loss)]


CLASSES = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


# -- sine layers (Sitzmann et al. 2020)


class Sine(layers.Layer):
    """sin(30 factor (Wx + b)), W uniform within `limit`."""

    def __init__(self, units, limit, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.units, self.limit, self.factor = units, limit, factor

    def build(self, shape):
        draw = keras.initializers.RandomUniform(-self.limit, self.limit)
        size = (shape[-1], self.units)
        self.kernel = self.add_weight(shape=size, initializer=draw, name="kernel")
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, x):
        return ops.sin(30.0 * self.factor * (ops.matmul(x, self.kernel) + self.bias))


def siren(factor):
    hidden = np.sqrt(6 / 256) / 30
    return sequential(
        (2,),
        Sine(256, 1 / 2, name="sine_0"),
        *(Sine(256, hidden, factor, name=f"sine_{i}") for i in range(1, 5)),
        layers.Dense(1, name="head"),
    )


COORDINATES = RNG.uniform(-1, 1, (256, 2)).astype("float32")
WAVES = np.sin(5 * COORDINATES[:, :1])


def test_sine_layers_as_their_paper_draws_them_are_healthy():
    """Kernels of 1/30 of the usual size, and a factor 30 in each layer."""
    assert found(siren(1.0), COORDINATES, WAVES) == ()


@pytest.mark.parametrize("factor", [30.0, 8.0])
def test_a_second_factor_in_sine_layers_is_found_without_an_initializer(factor):
    """About so many times a layer, at the sine layers after the first."""
    (finding,) = found(siren(factor), COORDINATES, WAVES)
    assert finding.code == "exploding-gradients"
    assert finding.layers == tuple(f"net/sine_{i}" for i in range(1, 5))
    # chi_1 of sin(a h) with h of variance 2 / 900 and a = 30 factor, W of variance
    # 2 / (900 n): each layer multiplies the norm by factor sqrt(2 E cos^2), and
    # E cos^2 is 1/2 for such a large argument.
    np.testing.assert_allclose(finding.evidence["growth"], factor, rtol=0.1)
    assert finding.fix.cause == "scale of a layer"
    assert finding.fix.changes == ()


# -- an output that is zero for every sample


def small_regression(seed, activation):
    keras.utils.set_random_seed(seed)
    return sequential(
        (1,),
        layers.Dense(4, "relu"),
        layers.Dense(2, "relu"),
        layers.Dense(1, activation, name="out"),
    )


SEVEN = np.linspace(0, 6, 7, dtype="float32")[:, None]


@pytest.mark.parametrize("seed", range(6))
def test_a_rectified_output_is_found_on_the_seeds_that_do_not_train(seed):
    """Training is the judge: the loss never moves, or it falls."""
    model = small_regression(seed, "relu")
    findings = {finding.code: finding for finding in found(model, SEVEN, 2 * SEVEN + 1)}
    losses = [float(model.train_on_batch(SEVEN, 2 * SEVEN + 1)) for _ in range(20)]
    stuck = losses[-1] == losses[0]
    assert ("no-gradient" in findings) == stuck
    if stuck:
        finding = findings["no-gradient"]
        assert finding.severity == "critical" and finding.layers == ("net/out",)
        assert "The output of net/out is zero for all 7 samples" in finding.message
        assert "No layer gets a gradient" in finding.message
        assert "no activation function on the output" in finding.fix.reason
        (change,) = finding.fix.changes
        assert change.code == 'activation="linear"' and change.layers == ("net/out",)


def test_both_kinds_of_seeds_are_among_those_above():
    """Else the test above shows nothing."""
    outcomes = {
        "no-gradient" in codes(small_regression(seed, "relu"), SEVEN, 2 * SEVEN + 1)
        for seed in range(2)
    }
    assert outcomes == {True, False}


def test_the_same_network_without_an_activation_on_its_output_is_healthy():
    """On a seed on which the other one is stuck."""
    assert codes(small_regression(1, "relu"), SEVEN, 2 * SEVEN + 1) == ["no-gradient"]
    assert codes(small_regression(1, None), SEVEN, 2 * SEVEN + 1) == []


# -- one class


def classifier(units, activation):
    dense = layers.Dense
    return sequential(
        (20,), dense(32, "relu"), dense(32, "relu"), dense(units, activation, name="out")
    )


X = normal(64, 20)
LABELS = (X[:, :1] > 0).astype("float32")


@pytest.mark.filterwarnings("ignore")  # Keras warns of it too
@pytest.mark.parametrize(
    ("loss", "passes"),
    [("mse", False), ("binary_crossentropy", True), ("categorical_crossentropy", True)],
)
def test_a_softmax_over_one_unit_is_found(loss, passes):
    """Keras computes some losses from the input of the softmax, which has a gradient."""
    (finding,) = found(classifier(1, "softmax"), X, LABELS, loss)
    assert finding.code == "no-gradient" and finding.severity == "critical"
    assert finding.layers == ("net/out",)
    assert "is 1 whatever its input is" in finding.message
    assert ("computed from the input of the softmax" in finding.message) == passes
    assert ("No layer gets a gradient" in finding.message) != passes
    assert finding.fix.changes[0].code == 'activation="sigmoid"'
    assert "two units with softmax" in finding.fix.reason


@pytest.mark.parametrize(
    ("units", "activation", "loss"),
    [
        (1, "sigmoid", "binary_crossentropy"),
        (2, "softmax", "sparse_categorical_crossentropy"),
        (1, None, "mse"),
    ],
)
def test_one_unit_with_sigmoid_or_two_with_softmax_are_healthy(units, activation, loss):
    """The twins, as the finding recommends them."""
    assert codes(classifier(units, activation), X, LABELS, loss) == []


# -- an input and targets out of scale


def fourth_power(scale=1.0):
    dense = layers.Dense
    model = sequential((1,), dense(50, "sigmoid"), dense(50, "elu"), dense(1))
    x = np.linspace(-100, 100, 256, dtype="float32")[:, None]
    return model, x / scale, (x / scale) ** 4


@pytest.mark.parametrize("seed", range(3))
def test_saturated_sigmoids_and_targets_out_of_scale_are_two_findings(seed):
    """Each with the number that shows it, and its own fix."""
    keras.utils.set_random_seed(seed)
    model, x, y = fourth_power()
    saturated, targets = found(model, x, y)
    assert saturated.code == "saturated-activations"
    assert saturated.layers == ("net/dense",) or len(saturated.layers) == 1
    assert "the rms of the input of" in saturated.message and " is 58" in saturated.message
    assert "Rescaling(0.0173)" in saturated.fix.changes[0].code
    assert targets.code == "target-scale"
    distance = np.sqrt(np.mean((model.predict(x, verbose=0) - y) ** 2, dtype="float64"))
    np.testing.assert_allclose(targets.evidence["distance"], distance, rtol=1e-3)
    assert targets.evidence["times"] > 1e7


def test_the_same_data_in_scale_are_healthy():
    """x and y within 1."""
    keras.utils.set_random_seed(0)
    assert codes(*fourth_power(scale=100.0)) == []


@pytest.mark.parametrize(("loss", "penalty"), [("mse", None), ("mae", None), ("mse", 1e-4)])
def test_targets_out_of_scale_are_found_for_other_mean_errors(loss, penalty):
    """With a small penalty on weights as well."""
    regularizer = keras.regularizers.L2(penalty) if penalty else None
    hidden = layers.Dense(32, "relu", kernel_regularizer=regularizer)
    y = 300_000 + 100_000 * X[:, :1]
    assert codes(sequential((20,), hidden, layers.Dense(1)), X, y, loss) == ["target-scale"]


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        ("mse", 100 + 100 * X[:, :1]),
        ("mae", 100 + 100 * X[:, :1]),
        ("poisson", np.round(1e5 * LABELS)),
        ("mape", 1e6 * (1 + LABELS)),
        ("hinge", 2 * LABELS - 1),
    ],
)
def test_targets_in_scale_or_of_a_loss_with_its_own_scale_are_healthy(loss, targets):
    """Nothing is known of targets where the laws of mean errors do not hold."""
    last = "softplus" if loss == "poisson" else None
    model = sequential((20,), layers.Dense(32, "relu"), layers.Dense(1, last))
    assert codes(model, X, targets, loss) == []


# -- samples that are all equal


def block(inputs, embed):
    """A transformer block after an embedding or a dense layer."""
    x = embed(inputs)
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, 16)(y, y)
    y = layers.Dense(64, "gelu")(layers.LayerNormalization()(x))
    x = layers.LayerNormalization()(x + layers.Dense(32)(y))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def deep(activation, normalized=False):
    hidden = []
    for _ in range(5):
        hidden += [layers.Dense(32)]
        hidden += [layers.BatchNormalization()] if normalized else []
        hidden += [layers.Activation(activation)]
    return sequential((16,), *hidden, layers.Dense(3))


UNIT = np.eye(16, dtype="float32")

DATA = {
    "dense layers": (lambda: deep("relu"), np.tile(UNIT[0], (64, 1)), normal(64, 16)),
    "tanh layers": (lambda: deep("tanh"), np.tile(UNIT[0], (64, 1)), normal(64, 16)),
    "batch normalization": (
        lambda: deep("relu", True),
        np.tile(UNIT[0], (64, 1)),
        normal(64, 16),
    ),
    "a transformer block": (
        lambda: block(keras.Input((8, 16)), layers.Dense(32)),
        np.tile(UNIT[0], (64, 8, 1)),
        normal(64, 8, 16),
    ),
    "tokens": (
        lambda: block(keras.Input((8,), dtype="int32"), layers.Embedding(10, 32)),
        np.tile(np.arange(8, dtype="int32"), (64, 1)),
        RNG.integers(0, 10, (64, 8), dtype="int32"),
    ),
}
THREE = RNG.integers(0, 3, 64)


@pytest.mark.parametrize("name", DATA)
def test_samples_that_are_all_equal_are_one_finding_on_the_data(name):
    """Whatever the network makes of it."""
    model, equal, _ = DATA[name]
    (finding,) = found(model(), equal, THREE, CLASSES)
    assert finding.code == "constant-input" and finding.severity == "critical"
    assert finding.fix.cause == "data"
    assert "not of the initialization" in finding.message


@pytest.mark.parametrize("name", DATA)
def test_the_same_networks_on_samples_that_differ_are_healthy(name):
    """The twins."""
    model, _, different = DATA[name]
    assert codes(model(), different, THREE, CLASSES) == []


def test_a_constant_second_input_is_healthy():
    """A mask of ones, and positions."""
    x, mask = keras.Input((8, 16)), keras.Input((8, 1))
    y = layers.Dense(32, "relu")(layers.GlobalAveragePooling1D()(x * mask))
    model = keras.Model([x, mask], layers.Dense(3)(y))
    given = [normal(64, 8, 16), np.ones((64, 8, 1), "float32")]
    assert codes(model, given, THREE, CLASSES) == []


# -- gradients that end on the way


class Applied(layers.Layer):
    """Any function of a tensor."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def with_operation(function, trainable=True):
    dense = layers.Dense
    return sequential(
        (20,),
        dense(32, "relu", trainable=trainable),
        dense(32, trainable=trainable),
        Applied(function),
        dense(32, "relu", name="after"),
        dense(1),
    )


ENDS = {
    "a sign": ops.sign,
    "a comparison": lambda x: ops.cast(x > 0, "float32"),
    "a rounding": ops.round,
    "a stopped gradient": ops.stop_gradient,
    "an arg max": lambda x: ops.one_hot(ops.argmax(x, -1), 32, dtype="float32"),
}

PASSES = {
    "a straight-through sign": lambda x: x + ops.stop_gradient(ops.sign(x) - x),
    "a clipping": lambda x: ops.clip(x, -1.0, 1.0),
    "an absolute value": ops.abs,
    "a part of the gradient": lambda x: 0.5 * x + 0.5 * ops.stop_gradient(x),
}


@pytest.mark.parametrize("name", ENDS)
def test_an_operation_at_which_the_gradient_ends_is_found(name):
    """The layers before it get none; those after it do."""
    (finding,) = found(with_operation(ENDS[name]), X, LABELS)
    assert finding.code == "no-gradient" and finding.severity == "warning"
    (where,) = finding.layers
    assert where.startswith("net/applied")
    assert finding.evidence["layers"] == 2
    assert finding.fix.cause == "operation without a derivative"


@pytest.mark.parametrize("name", PASSES)
def test_an_operation_that_passes_a_gradient_is_healthy(name):
    """The twins."""
    assert codes(with_operation(PASSES[name]), X, LABELS) == []


def test_a_gradient_that_is_stopped_before_frozen_layers_is_healthy():
    """Which is what `stop_gradient` is for."""
    model = with_operation(ops.stop_gradient, trainable=False)
    assert codes(model, X, LABELS) == []


class Scaled(layers.Layer):
    """A factor for each unit, that begins at zero."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="zeros")

    def call(self, x):
        return self.scale * x


def residual(last):
    """Two residual blocks whose branches begin at zero."""
    inputs = keras.Input((20,))
    x = layers.Dense(32)(inputs)
    for _ in range(2):
        x = x + last(layers.Dense(64, "gelu")(layers.LayerNormalization()(x)))
    return keras.Model(inputs, layers.Dense(1)(layers.LayerNormalization()(x)))


BEGIN_AT_ZERO = {
    "a head of zeros": lambda: sequential(
        (20,), layers.Dense(32, "relu"), layers.Dense(1, kernel_initializer="zeros")
    ),
    "branches of zeros": lambda: residual(
        lambda x: layers.Dense(32, kernel_initializer="zeros")(x)
    ),
    "branches with a factor": lambda: residual(lambda x: Scaled()(layers.Dense(32)(x))),
    "branches with a normalization": lambda: residual(
        lambda x: layers.BatchNormalization(gamma_initializer="zeros")(layers.Dense(32)(x))
    ),
    "dropout": lambda: residual(lambda x: layers.Dropout(0.5)(layers.Dense(32)(x))),
}


@pytest.mark.parametrize("name", BEGIN_AT_ZERO)
def test_gradients_that_begin_at_zero_are_healthy(name):
    """Until the first update, gradients behind these are exactly zero."""
    assert codes(BEGIN_AT_ZERO[name](), X, LABELS) == []


def test_an_output_without_a_loss_is_healthy():
    """No gradient reaches its branch, and none should."""
    inputs = keras.Input((20,))
    x = layers.Dense(32, "relu")(inputs)
    second = layers.Dense(3)(layers.Dense(16, "relu")(x))
    model = keras.Model(inputs, [layers.Dense(1)(x), second])
    model.compile("adam", ["mse", None])
    targets = [LABELS, normal(64, 3)]
    assert audit(model, X, targets).findings == ()


# -- gradients that are not finite


def normed(epsilon):
    return sequential(
        (20,),
        layers.Dense(32, "relu", name="before"),
        Applied(lambda x: ops.sqrt(ops.sum(x * x, -1, keepdims=True) + epsilon)),
        layers.Dense(1),
    )


EMPTY = np.concatenate([np.zeros((1, 20), "float32"), X[1:]])


def test_gradients_that_are_not_finite_are_found_between_two_layers():
    """The square root of an empty sample: its value is 0, its slope infinite."""
    (finding,) = found(normed(0.0), EMPTY, LABELS)
    assert finding.code == "nonfinite-gradients" and finding.severity == "critical"
    assert finding.layers[0] == "net/before" and "applied" in finding.layers[1]
    assert "1e-12" in finding.fix.reason


def test_the_same_with_a_small_number_inside_is_healthy():
    """And without an empty sample it is too."""
    assert codes(normed(1e-6), EMPTY, LABELS) == []
    assert codes(normed(0.0), X, LABELS) == []


def test_half_precision_with_finite_gradients_is_healthy():
    """Losses are not scaled in an audit, and nothing overflows."""
    hidden = [layers.Dense(32, "relu", dtype="mixed_float16") for _ in range(2)]
    model = sequential((20,), *hidden, layers.Dense(1, dtype="float32"))
    assert codes(model, X, LABELS) == []


# -- a model that takes no initializer


def by_a_function():
    """Many layers as Keras draws them by default."""
    hidden = [layers.Dense(64, "relu") for _ in range(24)]
    return sequential((20,), *hidden, layers.Dense(3))


def test_a_model_that_a_function_makes_can_be_rescaled_as_the_finding_says():
    """VGG16 from scratch: `kernel_initializer` cannot be passed to it."""
    keras.utils.set_random_seed(0)
    model = by_a_function()
    (finding,) = found(model, X, THREE, CLASSES)
    assert finding.code == "vanishing-activations"
    change = finding.fix.changes[-1]
    assert change.code == "activation_monitor.rescale(model, x)"
    rescale(model, X)
    assert found(model, X, THREE, CLASSES) == ()


# -- the same in training

IN_FIT = {
    "sine layers": lambda: (siren(1.0), COORDINATES, WAVES, "mse"),
    "sine layers scaled twice": lambda: (siren(30.0), COORDINATES, WAVES, "mse"),
    "a rectified output": lambda: (small_regression(1, "relu"), SEVEN, SEVEN, "mse"),
    "no activation on it": lambda: (small_regression(1, None), SEVEN, SEVEN, "mse"),
    "out of scale": lambda: (*fourth_power(), "mse"),
    "equal samples": lambda: (DATA["a transformer block"][0](), *EQUAL, CLASSES),
    "samples that differ": lambda: (DATA["tokens"][0](), *DIFFERENT, CLASSES),
    "an empty sample": lambda: (normed(0.0), EMPTY, LABELS, "mse"),
    "no empty sample": lambda: (normed(0.0), X, LABELS, "mse"),
    "two units": lambda: (
        *(classifier(2, "softmax"), X, LABELS),
        "sparse_categorical_crossentropy",
    ),
}
EQUAL = DATA["a transformer block"][1], THREE
DIFFERENT = DATA["tokens"][2], THREE


@pytest.mark.parametrize("name", IN_FIT)
def test_the_callback_says_what_an_audit_says(name):
    """One step of training with the whole batch has the same gradients."""
    model, x, y, loss = IN_FIT[name]()
    expected = found(model, x, y, loss)
    monitor = ActivationMonitor(on_finding=lambda finding: None)
    model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0, callbacks=[monitor])
    said = monitor.diagnosis.findings
    assert [one.code for one in said] == [one.code for one in expected]
    assert [one.layers for one in said] == [one.layers for one in expected]
    assert [one.fix for one in said] == [one.fix for one in expected]

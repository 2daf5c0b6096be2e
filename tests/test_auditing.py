"""The audit before training: what it measures and reports, and that it changes nothing."""

import pickle
import random
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import models
from activation_monitor import ActivationMonitor, audit
from activation_monitor.analysis import chance, records
from cases import cases

RNG = np.random.default_rng(7)
VECTORS = RNG.standard_normal((40, 8)).astype(np.float32)
SERIES = RNG.standard_normal((40, 6, 3)).astype(np.float32)
TOKENS = RNG.integers(0, 20, (40, 6))
TARGETS = RNG.standard_normal((40, 1)).astype(np.float32)
IMAGES, LABELS = models.IMAGES[:40], models.LABELS[:40]


# -- the kinds of model


class Subclassed(keras.Model):
    """A subclassed model that can be cloned from its configuration."""

    def __init__(self, units, name="net"):
        super().__init__(name=name)
        self.units = units
        self.first = layers.Dense(units, "relu", name="first")
        self.dropout = layers.Dropout(0.4, name="dropout")
        self.last = layers.Dense(1, name="last")

    def call(self, x, training=False):
        return self.last(self.dropout(self.first(x), training=training))

    def get_config(self):
        return {"units": self.units, "name": self.name}


class Unconfigured(keras.Model):
    """A model that cannot be cloned, because its argument is a layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, x):
        return self.layer(x)


class Doubled(layers.Layer):
    """A custom layer that is not registered."""

    def call(self, x):
        return 2.0 * x


def sequential():
    stack = [keras.Input((8,)), layers.Dense(16, "relu", name="first")]
    stack += [layers.Dropout(0.5, name="dropout"), layers.Dense(1, name="last")]
    return keras.Sequential(stack, name="net"), VECTORS, TARGETS


def unbuilt():
    stack = [layers.Dense(16, "relu", name="first"), layers.BatchNormalization(name="norm")]
    stack += [layers.Dropout(0.5, name="dropout"), layers.Dense(1, name="last")]
    return keras.Sequential(stack, name="net"), VECTORS, TARGETS


def two_inputs(kind):
    one, two = keras.Input((8,), name="one"), keras.Input((6, 3), name="two")
    flat = layers.Flatten(name="flatten")(two)
    x = layers.Concatenate(name="together")(
        [layers.Dense(12, "tanh", name="left")(one), layers.Dense(12, name="right")(flat)]
    )
    x = layers.Dense(1, name="last")(layers.Dropout(0.2, name="dropout")(x))
    if kind is dict:
        model = keras.Model({"one": one, "two": two}, x, name="net")
        return model, {"one": VECTORS, "two": SERIES}, TARGETS
    return keras.Model([one, two], x, name="net"), [VECTORS, SERIES], TARGETS


def two_outputs():
    inputs = keras.Input((8,))
    x = layers.Dense(12, "elu", name="shared")(inputs)
    outputs = {name: layers.Dense(1, name=name)(x) for name in ("price", "weight")}
    targets = {"price": TARGETS, "weight": 2.0 * TARGETS}
    return keras.Model(inputs, outputs, name="net"), VECTORS, targets


def nested():
    inner_inputs = keras.Input((12,))
    x = layers.BatchNormalization(name="norm")(
        layers.Dense(12, name="inside")(inner_inputs)
    )
    inner = keras.Model(inner_inputs, layers.Dropout(0.3, name="dropout")(x), name="inner")
    inputs = keras.Input((8,))
    x = inner(layers.Dense(12, "relu", name="before")(inputs))
    model = keras.Model(inputs, layers.Dense(1, name="after")(x), name="net")
    return model, VECTORS, TARGETS


def embedding():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, mask_zero=True, name="embedding")(inputs)
    x = layers.GlobalAveragePooling1D(name="average")(x)
    x = layers.Dense(1, name="last")(layers.Dense(12, "gelu", name="hidden")(x))
    return keras.Model(inputs, x, name="net"), TOKENS, TARGETS


def recurrent():
    inputs = keras.Input((6, 3))
    x = layers.LSTM(8, return_sequences=True, dropout=0.3, name="lstm")(inputs)
    x = layers.GRU(8, name="gru")(x)
    return keras.Model(inputs, layers.Dense(1, name="last")(x), name="net"), SERIES, TARGETS


KINDS = {
    "functional": lambda: (models.image_network(), IMAGES, LABELS),
    "mixed_float16": lambda: (models.image_network("mixed_float16"), IMAGES, LABELS),
    "sequential": sequential,
    "unbuilt sequential": unbuilt,
    "subclassed": lambda: (Subclassed(16), VECTORS, TARGETS),
    "dictionary of inputs": lambda: two_inputs(dict),
    "list of inputs": lambda: two_inputs(list),
    "two outputs": two_outputs,
    "nested": nested,
    "embedding": embedding,
    "recurrent": recurrent,
    "spectral": lambda: (
        keras.Sequential(
            [
                keras.Input((8,)),
                layers.SpectralNormalization(layers.Dense(12, name="inner")),
                layers.Dense(1, name="last"),
            ],
            name="net",
        ),
        VECTORS,
        TARGETS,
    ),
}


def compiled(kind):
    """A compiled model of this kind, after some steps of its optimizer."""
    model, x, y = KINDS[kind]()
    loss = "sparse_categorical_crossentropy" if y is LABELS else "mse"
    model.compile("adam", loss)
    if model.built:
        model.optimizer.build(model.trainable_variables)
        for variable in model.optimizer.variables:
            variable.assign(variable + keras.ops.ones_like(variable))
    return model, x, y


# -- nothing changes


def state(model):
    """All variables by path, and the random states of Python and numpy."""
    variables = [*model.variables, *model.metrics_variables]
    if model.optimizer is not None:
        variables += model.optimizer.variables
    values = {f"{v.path} {i}": np.array(v.value) for i, v in enumerate(variables)}
    return values, pickle.dumps((random.getstate(), np.random.get_state()))  # noqa: NPY002


def assert_unchanged(model, before):
    values, randomness = state(model)
    assert values.keys() == before[0].keys()
    for name, value in values.items():
        np.testing.assert_array_equal(value, before[0][name], err_msg=name)
    assert randomness == before[1]
    every = [model, *model._flatten_layers()]
    assert [layer.name for layer in every if "call" in layer.__dict__] == []


@pytest.mark.parametrize(
    "kind",
    # With two outputs the loss creates its trackers when it is first computed.
    [kind for kind in KINDS if kind not in ("unbuilt sequential", "two outputs")],
)
def test_nothing_of_the_model_changes(kind):
    """Weights, statistics, seeds, optimizer, metrics, random states: equal bit for bit."""
    model, x, y = compiled(kind)
    if not model.built:
        model(x)
    before = state(model)
    audit(model, x, y)
    assert_unchanged(model, before)


@pytest.mark.parametrize("kind", ["functional", "sequential", "subclassed", "nested"])
def test_nothing_changes_with_several_seeds(kind):
    """The other initializations are drawn for a clone."""
    model, x, y = compiled(kind)
    if not model.built:
        model(x)
    before = state(model)
    audit(model, x, y, seeds=3)
    assert_unchanged(model, before)


def test_a_plain_pass_in_training_mode_changes_the_state():
    """The state contains statistics and seeds, which a plain training pass changes."""
    model, x, _ = compiled("functional")
    before, _ = state(model)
    model(x, training=True)
    after, _ = state(model)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    for part in ("moving_mean", "moving_variance", "seed_generator_state"):
        assert any(part in name for name in moved)


def test_the_states_of_recurrent_layers_do_not_change():
    """Stateful layers keep their states from batch to batch."""
    inputs = keras.Input(batch_shape=(40, 6, 3))
    recurrent = layers.GRU(8, stateful=True)
    model = keras.Model(inputs, layers.Dense(1)(recurrent(inputs)))
    audit(model, SERIES)
    np.testing.assert_array_equal(recurrent.states[0], np.zeros((40, 8)))


class Fails(layers.Layer):
    """Raises while the pass is traced or while it runs, as `when` says."""

    when = "never"

    def call(self, x):
        if self.when == "traced":
            raise RuntimeError("mine")
        if self.when == "run":
            with tf.control_dependencies([tf.Assert(tf.reduce_max(x) > 1e9, ["mine"])]):
                return tf.identity(x)
        return x


@pytest.mark.parametrize("when", ["traced", "run"])
@pytest.mark.parametrize("targets", [None, TARGETS], ids=["", "targets"])
def test_nothing_changes_when_it_raises_midway(when, targets):
    """The user's own error is raised."""
    fails = Fails()
    inputs = keras.Input((8,))
    x = layers.BatchNormalization()(layers.Dense(8)(inputs))
    x = fails(layers.Dropout(0.5)(x))
    model = keras.Model(inputs, layers.Dense(1)(x))
    model.compile("sgd", "mse")
    fails.when = when
    before = state(model)
    with pytest.raises((RuntimeError, tf.errors.InvalidArgumentError), match="mine"):
        audit(model, VECTORS, targets)
    assert_unchanged(model, before)


@pytest.mark.parametrize("seeds", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize(
    "kind",
    [
        "functional",
        "unbuilt sequential",
    ],
)
def test_training_afterwards_is_as_without_an_audit(kind, seeds):
    """The same seed gives the same weights, bit for bit."""

    def trained(audited):
        keras.utils.set_random_seed(1)
        model, x, y = compiled(kind)
        if audited:
            audit(model, x, y, seeds=seeds)
        model.fit(x, y, batch_size=8, verbose=0)
        return model.get_weights()

    for plain, after_audit in zip(trained(False), trained(True), strict=True):
        np.testing.assert_array_equal(after_audit, plain)


# -- what is measured


def layer_outputs(model, x):
    """The output of each layer of a Functional model in training mode, in float64."""
    stack = [v for v in model.layers if not isinstance(v, layers.InputLayer)]
    given = model.input if isinstance(x, dict) else model.inputs
    outputs_of = keras.Model(given, [layer.output for layer in stack])
    values = keras.tree.flatten(outputs_of(x, training=True))
    return {
        v.name: np.asarray(out, np.float64) for v, out in zip(stack, values, strict=True)
    }


def subclassed_outputs(model, x):
    first = model.first(x)
    dropout = model.dropout(first, training=True)
    found = {"first": first, "dropout": dropout, "last": model.last(dropout)}
    return {name: np.asarray(value, np.float64) for name, value in found.items()}


def nested_outputs(model, x):
    before = model.get_layer("before")(x)
    inside = layer_outputs(model.get_layer("inner"), before)
    after = model.get_layer("after")(inside["dropout"])
    found = {"before": before, "after": after, **inside}
    return {name: np.asarray(value, np.float64) for name, value in found.items()}


OUTPUTS = {"subclassed": subclassed_outputs, "nested": nested_outputs}


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind not in ("unbuilt sequential", "spectral")]
)
def test_rms_is_that_of_the_layers_outputs(kind):
    """The reference uses the same dropout masks, because seeds are restored."""
    model, x, _ = KINDS[kind]()
    if not model.built:
        model(x)
    snapshot = audit(model, x).first
    x = keras.tree.map_structure(tf.constant, x)
    expected = OUTPUTS.get(kind, layer_outputs)(model, x)
    rows = {name.rpartition("/")[2]: row for row, name in enumerate(snapshot.names)}
    assert set(expected) <= set(rows)
    assert {name for name in rows if ":input" not in name} == set(expected)
    tolerance = 2e-3 if kind == "mixed_float16" else 1e-5
    for name, value in expected.items():
        if name == "embedding":  # padding is not measured
            value = value[np.asarray(TOKENS) != 0]
        found = {
            what: snapshot.statistic(what)[rows[name]] for what in ("rms", "std", "mean")
        }
        rms = np.sqrt(np.mean(value**2))
        np.testing.assert_allclose(found["rms"], rms, rtol=tolerance, err_msg=name)
        np.testing.assert_allclose(found["std"], value.std(), rtol=tolerance, err_msg=name)
        np.testing.assert_allclose(found["mean"], value.mean(), atol=tolerance * rms)
        assert snapshot.field("samples")[rows[name]] == 40


def test_an_unbuilt_model_is_built_and_measured():
    """The result is that of a model that is built before."""
    model, x, _ = unbuilt()
    snapshot = audit(model, x).first
    assert model.built
    first = np.asarray(model.get_layer("first")(x), np.float64)
    row = snapshot.names.index("net/first")
    np.testing.assert_allclose(snapshot.statistic("std")[row], first.std(), rtol=1e-5)
    norm = snapshot.names.index("net/norm")  # normalized with the batch's statistics
    np.testing.assert_allclose(snapshot.statistic("std")[norm], 1.0, atol=0.05)


@pytest.mark.parametrize("jit_compile", [True, False])
def test_a_signal_at_the_ends_of_the_range_is_measured(jit_compile):
    """Subnormal numbers and infinities need the exact pass, which is a second pass."""
    inputs = keras.Input((8,))
    x = layers.Rescaling(1e-20, name="small")(layers.Rescaling(1e-24, name="tiny")(inputs))
    model = keras.Model(inputs, layers.Dense(1, name="last")(x))
    model.compile("sgd", "mse", jit_compile=jit_compile)
    x = VECTORS * 1e20
    x[3, 2] = np.inf
    snapshot = audit(model, x).first
    row = snapshot.names.index("tiny")
    assert snapshot.field("nonfinite")[row] == 1
    finite = x[np.isfinite(x)].astype(np.float64)
    np.testing.assert_allclose(
        snapshot.statistic("rms")[row], 1e-24 * np.sqrt(np.mean(finite**2)), rtol=1e-5
    )


@pytest.mark.parametrize("dtype", [None, "mixed_float16"])
@pytest.mark.parametrize(
    "at",
    cases(
        ["conv", "norm", "dropout", "branch", "flatten", "hidden", "head"],
        default=["conv", "branch", "head"],
    ),
)
def test_gradients_are_those_of_a_plain_tape(at, dtype):
    """Gradients with respect to the layer output, with and without a loss scale."""
    model = models.image_network(dtype)
    model.compile("adam", "sparse_categorical_crossentropy")
    snapshot = audit(model, IMAGES, LABELS).first
    found = records.STATISTICS["rms"](snapshot.quantities["output_gradient"])[
        snapshot.names.index(at)
    ]

    outputs = [model.get_layer(at).output]
    if at == "branch":  # the other summand reaches the head as well
        outputs.append(model.get_layer("dropout").output)
    # Dropout is drawn once, before or after this layer, from the restored seed.
    values = keras.Model(model.input, outputs)(IMAGES, training=True)
    values = [tf.convert_to_tensor(value) for value in keras.tree.flatten(values)]
    with tf.GradientTape() as tape:
        tape.watch(values)
        head = values[0]
        if at != "head":
            head = keras.Model(outputs, model.output)(values, training=True)
        losses = keras.losses.sparse_categorical_crossentropy(LABELS, head)
        loss = tf.reduce_mean(losses)
    gradient = np.asarray(tape.gradient(loss, values[0]), np.float64)
    expected = np.sqrt(np.mean(gradient**2))
    np.testing.assert_allclose(found, expected, rtol=2e-2 if dtype else 1e-4)
    assert snapshot.quantities["output_gradient"].shape == snapshot.records().shape


def test_gradients_are_measured_with_targets_only():
    """They are measured for every layer that a trained weight leads to."""
    model, x, y = compiled("two outputs")
    assert audit(model, x).first.quantities.get("output_gradient") is None
    snapshot = audit(model, x, y).first
    computed = np.array([layer.kind != "input" for layer in snapshot.layers])
    gradients = snapshot.quantities["output_gradient"]
    np.testing.assert_array_equal(records.field(gradients, "count") > 0, computed)
    np.testing.assert_array_equal(records.STATISTICS["rms"](gradients) > 0, computed)


def test_an_operation_without_a_gradient_before_all_weights_is_no_error():
    """As in `fit`, nothing is derived that leads to no trained weight."""
    bins = tf.constant(np.random.default_rng(0).integers(0, 5, (16, 7)))

    class Counted(keras.Layer):
        """Outputs a floating-point tensor that has no derivative."""

        def call(self, x):
            counted = tf.math.bincount(bins, axis=-1, minlength=5, weights=x[:, :7])
            return tf.reshape(counted, (16, 5))

    model = keras.Sequential([Counted(), keras.layers.Dense(3), keras.layers.Dense(1)])
    model.build((16, 8))
    model.compile("adam", "mse")
    x = np.random.default_rng(0).standard_normal((16, 8)).astype("float32")
    snapshot = audit(model, x, x[:, :1]).first
    counts = records.field(snapshot.quantities["output_gradient"], "count")
    np.testing.assert_array_equal(counts[-2:], [16 * 3, 16])
    np.testing.assert_array_equal(counts[:-2], 0)


def test_the_loss_is_that_of_the_targets():
    """With the penalties; NaN without targets."""
    layers = keras.layers
    penalty = keras.regularizers.L2(0.1)
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(4, kernel_regularizer=penalty), layers.Dense(1)]
    )
    model.compile("adam", "mse")
    x = np.random.default_rng(0).standard_normal((16, 8)).astype("float32")
    y = x[:, :1]
    weights = [w.astype("float64") for w in model.get_weights()]
    outputs = (x @ weights[0] + weights[1]) @ weights[2] + weights[3]
    expected = np.mean((outputs - y) ** 2) + 0.1 * np.sum(weights[0] ** 2)
    np.testing.assert_allclose(audit(model, x, y).first.loss, expected, rtol=1e-5)
    assert np.isnan(audit(model, x).first.loss)


def test_frozen_layers_are_known():
    """Those whose weights are not trained, by themselves or with a model around them."""
    layers = keras.layers
    inner = keras.Sequential([layers.Dense(4), layers.Dense(4)])
    model = keras.Sequential([keras.Input((8,)), inner, layers.Dense(1)])
    inner.layers[1].trainable = False
    x = np.ones((16, 8), "float32")
    trainable = [layer.trainable for layer in audit(model, x).first.layers]
    assert trainable == [True, True, False, True]
    inner.trainable = False
    trainable = [layer.trainable for layer in audit(model, x).first.layers]
    assert trainable == [True, False, False, True]


# -- what is reported

NORMAL = keras.initializers.RandomNormal
CASES = {
    "healthy": {"initializer": "he_normal"},
    "vanishing": {"initializer": NORMAL(stddev=0.05)},
    "exploding": {"initializer": NORMAL(stddev=1.0)},
    "overflow": {"initializer": NORMAL(stddev=1e5)},
    "zeros": {"initializer": "zeros"},
    "all the same": {"initializer": keras.initializers.Constant(0.1)},
    "shifted": {"initializer": keras.initializers.RandomUniform(0.0, 1 / 32)},
    "saturated": {"initializer": NORMAL(stddev=3.0), "activation": "tanh"},
    "collapsed": {"initializer": "glorot_uniform", "activation": "sigmoid"},
}


IN_THE_DEFAULT_RUN = ("healthy", "exploding", "shifted")


@pytest.mark.parametrize(
    ("case", "scale"),
    [
        pytest.param(
            case, scale, marks=[] if case in IN_THE_DEFAULT_RUN else pytest.mark.slow
        )
        for case, scale in (
            *((case, 1.0) for case in CASES),
            *(("healthy", 300.0), ("saturated", 300.0)),
        )
    ],
)
def test_the_audit_says_what_the_callback_says(case, scale):
    """Both report the same codes, layers, numbers and fixes for one model and batch."""
    x, y = models.data(samples=64, inputs=64)
    x *= scale
    model = models.perceptron(12, 64, inputs=64, **CASES[case])
    audited = audit(model, x)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    monitor = ActivationMonitor(histograms=False, on_finding=lambda finding: None)
    model.fit(x, y, batch_size=64, shuffle=False, verbose=0, callbacks=[monitor])
    assert audited.healthy == (case == "healthy" and scale == 1.0)
    assert audited.healthy == monitor.diagnosis.healthy
    pairs = zip(audited.findings, monitor.diagnosis.findings, strict=True)
    for ours, theirs in pairs:
        assert (ours.code, ours.severity, ours.step) == (theirs.code, theirs.severity, 0)
        assert ours.layers == theirs.layers
        assert ours.evidence.keys() == theirs.evidence.keys()
        for name, value in ours.evidence.items():
            np.testing.assert_allclose(value, theirs.evidence[name], rtol=1e-4)
        assert ours.fix == theirs.fix


def test_a_finding_can_be_ignored():
    """Findings that it explains are not reported either."""
    x, _ = models.data(inputs=64)
    model = models.perceptron(12, 64, inputs=64, initializer=NORMAL(stddev=1.0))
    assert [f.code for f in audit(model, x).findings] == ["exploding-activations"]
    assert audit(model, x, ignore="exploding-activations").healthy
    assert audit(model, x, ignore=["exploding-activations"], seeds=3).healthy


def test_a_diagnosis_prints_what_was_found():
    """The text contains the line of code that fixes it."""
    x, _ = models.data(inputs=64)
    model = models.perceptron(12, 64, inputs=64, initializer=NORMAL(stddev=1.0))
    text = str(audit(model, x))
    assert "exploding-activations (critical, at initialization)" in text
    assert 'kernel_initializer="he_normal"' in text


# -- several seeds


@pytest.mark.parametrize(
    ("activation", "std", "gain"),
    [
        ("relu", 0.05, 128 * 0.05**2 / 2),
        pytest.param("relu", 0.3, 128 * 0.3**2 / 2, marks=pytest.mark.slow),
        pytest.param("linear", 0.05, 128 * 0.05**2, marks=pytest.mark.slow),
    ],
)
def test_the_growth_of_all_draws_covers_the_law(activation, std, gain):
    """The law of a single input bounds the growth of a batch."""
    x, _ = models.data(samples=64, inputs=128)
    model = models.perceptron(16, 128, activation, NORMAL(stddev=std), inputs=128)
    found = audit(model, x, seeds=6)
    (finding,) = found.findings
    law = chance.of_layers([activation] * 15, [128] * 15)
    expected = 0.5 * np.log(gain) + law.mean / 15
    sd = np.sqrt(law.variance) / 15
    low, high = (finding.evidence[f"growth_{end}"] for end in ("low", "high"))
    assert low < np.exp(expected) < high
    assert np.exp(expected - 4 * sd) < low < high < np.exp(expected + 4 * sd)
    rates = [draw.profile.main.growth for draw in found.draws]
    np.testing.assert_allclose([min(rates), max(rates)], [low, high])
    assert len(set(rates)) == 6
    assert f"with growth from {low:.3g} to {high:.3g} per layer" in finding.message


def test_the_growth_of_healthy_draws_is_what_chance_leaves():
    """Growth of 20 He-normal networks, compared with the reported interval."""
    x, _ = models.data(samples=64, inputs=128)
    model = models.perceptron(16, 128, inputs=128)
    found = audit(model, x, seeds=20)
    assert found.healthy
    assert len(found.draws) == 20
    assert all(draw.healthy for draw in found.draws)
    growth_ranges = [draw.profile.main for draw in found.draws]
    z = [(s.decades - s.chance_mean) / s.chance_sd for s in growth_ranges]
    assert abs(np.mean(z)) < 4 / np.sqrt(20)
    # A batch fluctuates less than a single input.
    assert 0.3 < np.std(z) < 1.6
    assert all(s.interval()[0] < s.growth < s.interval()[1] for s in growth_ranges)


def test_the_first_draw_is_the_model_itself():
    """The others are new initializations, the same ones at every call."""
    x, _ = models.data()
    model = models.perceptron()
    alone, several = audit(model, x), audit(model, x, seeds=3)
    assert alone.draws == ()
    np.testing.assert_array_equal(several.first.records(), alone.first.records())
    np.testing.assert_array_equal(several.draws[0].first.records(), alone.first.records())
    rms = [draw.first.statistic("rms")[1] for draw in several.draws]
    assert len(set(rms)) == 3
    again = [draw.first.statistic("rms")[1] for draw in audit(model, x, seeds=3).draws]
    np.testing.assert_array_equal(again, rms)


class Sometimes(keras.initializers.Initializer):
    """He-normal, except for some draws of the network."""

    made = 0
    bad, depth = (), 1

    def __call__(self, shape, dtype=None):
        draw, Sometimes.made = Sometimes.made // Sometimes.depth, Sometimes.made + 1
        std = 1.0 if draw in Sometimes.bad else np.sqrt(2.0 / shape[0])
        return keras.random.normal(shape, stddev=std, dtype=dtype)


@pytest.mark.parametrize(
    ("bad", "seeds", "reported"),
    [
        pytest.param([0], 5, False, marks=pytest.mark.slow),
        pytest.param([3], 5, False, marks=pytest.mark.slow),
        ([1, 3], 5, False),
        ([0, 1], 4, False),
        ([1, 2, 4], 5, True),
        pytest.param([0, 1, 2, 3, 4], 5, True, marks=pytest.mark.slow),
        ([1, 2], 3, True),
    ],
)
def test_findings_of_most_draws_are_reported(bad, seeds, reported):
    """A finding must occur in more than half of the draws."""
    x, _ = models.data(inputs=64)
    with keras.saving.custom_object_scope({"Sometimes": Sometimes}):
        Sometimes.made, Sometimes.bad, Sometimes.depth = 0, bad, 10
        model = models.perceptron(10, 64, initializer=Sometimes(), inputs=64)
        found = audit(model, x, seeds=seeds)
    assert [not draw.healthy for draw in found.draws] == [i in bad for i in range(seeds)]
    assert [f.code for f in found.findings] == ["exploding-activations"] * reported
    for finding in found.findings:
        assert f"Found in {len(bad)} of {seeds} initializations" in finding.message
        assert (finding.evidence["in"], finding.evidence["draws"]) == (len(bad), seeds)
        assert 'kernel_initializer="he_normal"' in str(finding)


@pytest.mark.parametrize(
    "kind",
    cases(
        KINDS, default=["functional", "subclassed", "two outputs", "spectral", "embedding"]
    ),
)
def test_every_kind_of_model_can_be_cloned(kind):
    """With targets, the loss is that of the model."""
    model, x, y = compiled(kind)
    found = audit(model, x, y, seeds=3)
    assert len(found.draws) == 3
    names = {draw.first.names for draw in found.draws}
    assert len({tuple(name.rpartition("/")[2] for name in of) for of in names}) == 1
    for draw in found.draws:
        assert (records.field(draw.first.quantities["output_gradient"], "count") > 0).any()
        assert (draw.first.statistic("rms") > 0).all()


def test_a_subclass_of_a_functional_model_can_be_cloned():
    """Its configuration contains the graph."""
    inputs = keras.Input((8,))
    model = type("Own", (keras.Model,), {})(inputs, layers.Dense(1)(inputs))
    assert len(audit(model, VECTORS, seeds=2).draws) == 2


def test_models_with_unregistered_layers_can_be_cloned():
    """`keras.models.clone_model` clones the layer from its configuration."""
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(1)(Doubled()(layers.Dense(8)(inputs))))
    keras.models.clone_model(model)
    assert len(audit(model, VECTORS, seeds=2).draws) == 2


def own_loss(true, predicted):
    """A loss that is not registered."""
    return keras.ops.mean(keras.ops.square(true - predicted), axis=-1)


@pytest.mark.parametrize("targets", [None, TARGETS])
def test_a_custom_loss_is_accepted(targets):
    """The clone uses the loss function of the model."""
    model = models.perceptron(depth=1)
    model.compile("sgd", own_loss)
    assert len(audit(model, VECTORS, targets, seeds=2).draws) == 2


# -- errors


def test_several_seeds_need_a_model_that_can_be_cloned():
    """A single draw can still be audited."""
    model = Unconfigured(layers.Dense(1))
    assert audit(model, VECTORS).findings == ()
    with pytest.raises(ValueError, match="(?s)can be cloned: .*Use seeds=1"):
        audit(model, VECTORS, seeds=2)


@pytest.mark.parametrize("seeds", [0, -1, 2.0, True, "3", None])
def test_seeds_must_be_a_positive_integer(seeds):
    """The message says what was received."""
    with pytest.raises(ValueError, match=re.escape(f"Received: seeds={seeds!r}.")):
        audit(models.perceptron(), VECTORS, seeds=seeds)


@pytest.mark.parametrize("model", [layers.Dense(1), None, "model.keras", np.ones(3)])
def test_only_models_can_be_audited(model):
    """The message says what was received."""
    with pytest.raises(TypeError, match=f"keras.Model. Received: {type(model).__name__}"):
        audit(model, VECTORS)


@pytest.mark.parametrize(
    "x", [np.empty((0, 8)), [], {}, [np.ones((4, 8)), np.empty((0, 8))]]
)
def test_a_batch_must_not_be_empty(x):
    """An empty batch leaves nothing to measure."""
    with pytest.raises(ValueError, match="audit: `x` must hold at least one sample"):
        audit(models.perceptron(), x)


def test_targets_need_a_loss():
    """The model must be compiled."""
    with pytest.raises(ValueError, match="without a loss. Call `model.compile` first"):
        audit(models.perceptron(), VECTORS, TARGETS)


def test_a_code_that_does_not_exist_cannot_be_ignored():
    """The message lists the existing codes."""
    with pytest.raises(ValueError, match="audit: `ignore`.*Received: explosions.*There"):
        audit(models.perceptron(), VECTORS, ignore="explosions")

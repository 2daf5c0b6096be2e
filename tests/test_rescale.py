"""Data-driven initialization, compared with values that are computed independently."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from activation_monitor.recording.calls import replaced, wrapped_calls
from activation_monitor.rescaling import rescale
from cases import cases
from models import IMAGES, LABELS, data, image_network, perceptron

TOLERANCE = 0.005

VECTORS = np.random.default_rng(4).standard_normal((200, 12)).astype(np.float32)
SEQUENCES = np.random.default_rng(5).standard_normal((60, 10, 6)).astype(np.float32)
VOLUMES = np.random.default_rng(6).standard_normal((10, 6, 6, 6, 2)).astype(np.float32)

KINDS = {
    "Dense": (VECTORS, layers.Dense, {"units": 7}),
    "Dense on sequences": (SEQUENCES, layers.Dense, {"units": 7}),
    "EinsumDense": (
        SEQUENCES,
        layers.EinsumDense,
        {"equation": "abc,cde->abde", "output_shape": (10, 2, 4), "bias_axes": "de"},
    ),
    "Conv1D": (SEQUENCES, layers.Conv1D, {"filters": 5, "kernel_size": 3}),
    "Conv2D": (IMAGES, layers.Conv2D, {"filters": 5, "kernel_size": 3, "strides": 2}),
    "Conv2D in groups": (
        IMAGES,
        layers.Conv2D,
        {"filters": 6, "kernel_size": 3, "groups": 3, "padding": "same"},
    ),
    "Conv3D": (VOLUMES, layers.Conv3D, {"filters": 4, "kernel_size": 3}),
    "Conv1DTranspose": (
        SEQUENCES,
        layers.Conv1DTranspose,
        {"filters": 5, "kernel_size": 3},
    ),
    "Conv2DTranspose": (
        IMAGES,
        layers.Conv2DTranspose,
        {"filters": 5, "kernel_size": 3, "strides": 2},
    ),
    "Conv3DTranspose": (
        VOLUMES,
        layers.Conv3DTranspose,
        {"filters": 4, "kernel_size": 2},
    ),
    "DepthwiseConv1D": (SEQUENCES, layers.DepthwiseConv1D, {"kernel_size": 3}),
    "DepthwiseConv2D": (
        IMAGES,
        layers.DepthwiseConv2D,
        {"kernel_size": 3, "depth_multiplier": 2},
    ),
    "SeparableConv1D": (
        SEQUENCES,
        layers.SeparableConv1D,
        {"filters": 5, "kernel_size": 3},
    ),
    "SeparableConv2D": (
        IMAGES,
        layers.SeparableConv2D,
        {"filters": 5, "kernel_size": 3, "depth_multiplier": 2},
    ),
}


def state(model):
    """The variables of a model and of its optimizer, as pairs of path and value."""
    variables = [*model.variables, *model.metrics_variables]
    if model.compiled:
        variables += model.optimizer.variables
    return [(variable.path, np.array(variable.value)) for variable in variables]


def assert_same_state(model, before):
    """The state is equal bit for bit."""
    now = state(model)
    assert [path for path, _ in now] == [path for path, _ in before]
    for (path, value), (_, old) in zip(now, before, strict=True):
        np.testing.assert_array_equal(value, old, err_msg=path, strict=True)


def pre_activations(model, x):
    """The std of each Dense layer's pre-activations, computed in float64."""
    stds, y = [], x.astype(np.float64)
    for layer in model.layers:
        kernel, bias = (np.float64(weights) for weights in layer.get_weights())
        z = y @ kernel + bias
        stds.append(z.std())
        y = np.maximum(z, 0.0) if layer.activation is keras.activations.relu else z
    return stds


# -- purpose


@pytest.mark.parametrize("bias", [None, "zeros", keras.initializers.RandomNormal(0.0, 0.4)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_pre_activations_of_every_kind_of_layer_get_unit_std(kind, bias):
    """Compared with the outputs of the same model without activation, from `predict`."""
    x, cls, options = KINDS[kind]
    options = dict(options)
    if cls is layers.EinsumDense:
        options["bias_axes"] = options["bias_axes"] if bias else None
    else:
        options["use_bias"] = bias is not None
    options["bias_initializer"] = bias.clone() if hasattr(bias, "clone") else bias
    model, twin = (
        keras.Sequential([keras.Input(x.shape[1:]), cls(**options, activation=function)])
        for function in ("gelu", None)
    )
    drawn = model.get_weights()

    (row,) = rescale(model, x).layers

    for weights, std in ((drawn, row.std_before), (model.get_weights(), row.std_after)):
        twin.set_weights(weights)
        np.testing.assert_allclose(twin.predict(x, verbose=0).std(), std, rtol=1e-4)
    assert abs(row.std_after - 1) <= TOLERANCE
    assert abs(row.std_before - 1) > TOLERANCE
    assert row.reason == ""


@pytest.mark.parametrize("std", [1e-25, 1e-4, 1.0, 10.0])
def test_a_chain_is_rescaled_in_the_order_of_the_data(std):
    """Compared with a forward pass in float64 numpy, before and after."""
    model = perceptron(
        depth=12, width=32, initializer=keras.initializers.RandomNormal(0, std)
    )
    x = data(200)[0]
    before = pre_activations(model, x)

    report = rescale(model, x)

    shown = np.array([row.std_before for row in report.layers])
    seen = shown > 1e-30  # float32 can represent these
    np.testing.assert_allclose(shown[seen], np.array(before)[seen], rtol=1e-5)
    after = pre_activations(model, x)
    np.testing.assert_allclose([row.std_after for row in report.layers], after, rtol=1e-5)
    np.testing.assert_allclose(after, 1.0, atol=TOLERANCE)
    assert [row.name for row in report.layers] == [layer.path for layer in model.layers]


def test_a_deep_network_with_tiny_kernels_learns_after_it_and_not_before():
    """20 layers of ReLU with weights of std 0.01 on scikit-learn's digits."""
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = (digits.data / 16.0).astype(np.float32), digits.target
    losses = []
    for rescaled in (False, True):
        keras.utils.set_random_seed(1)
        draw = keras.initializers.RandomNormal(0.0, 0.01)
        hidden = [
            layers.Dense(64, "relu", kernel_initializer=draw.clone()) for _ in range(20)
        ]
        model = keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10)])
        if rescaled:
            rescale(model, x[:256])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=False)
        history = model.fit(x, y, batch_size=64, epochs=5, verbose=0)  # 145 steps
        losses.append(history.history["loss"][-1])
    assert losses[0] > 2.29  # chance is 2.303
    assert losses[1] < 1.0


def test_a_healthy_network_hardly_changes():
    """LeCun's initializer gives a linear chain unit variance by design."""
    x = np.random.default_rng(0).standard_normal((500, 256)).astype(np.float32)
    model = perceptron(5, 256, None, "lecun_normal", inputs=256)
    factors = [row.factor for row in rescale(model, x).layers[:-1]]
    np.testing.assert_allclose(factors, 1.0, atol=0.06)


def test_a_second_time_changes_nothing():
    """Layers with unit std keep their kernels bit for bit."""
    model = image_network()
    rescale(model, IMAGES)
    before = state(model)
    assert {row.factor for row in rescale(model, IMAGES).layers} == {1.0}
    assert_same_state(model, before)


# -- nothing else changes


def test_only_kernels_change_and_those_by_the_factor_of_the_report():
    """Biases, moving statistics, seeds and optimizer slots stay equal bit for bit."""
    model = image_network()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(IMAGES, LABELS, epochs=2, verbose=0)
    before = state(model)
    trainable = [variable.trainable for variable in model.variables]

    report = rescale(model, IMAGES)

    factors = {f"{row.name}/kernel": row.factor for row in report.layers}
    assert set(factors) == {f"{n}/kernel" for n in ("conv", "branch", "hidden", "head")}
    expected = [
        (path, (np.float64(old) * factors[path]).astype(old.dtype))
        if path in factors
        else (path, old)
        for path, old in before
    ]
    assert_same_state(model, expected)
    assert all(factor != 1.0 for factor in factors.values())
    assert [variable.trainable for variable in model.variables] == trainable
    for layer in model.layers:
        assert "call" not in vars(layer)
    assert model.get_layer("hidden").activation is keras.activations.tanh


def test_it_is_deterministic_and_counts_dropout_and_batch_statistics():
    """Two equal models get equal kernels. The reference uses the same dropout masks."""
    results = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        model = image_network()
        report = rescale(model, IMAGES)
        results.append(model.get_weights())
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
    normalized = keras.Model(model.input, model.get_layer("dropout").output)
    z = model.get_layer("branch")(normalized(IMAGES, training=True))
    np.testing.assert_allclose(np.std(z), 1.0, atol=TOLERANCE)
    np.testing.assert_allclose(report.layers[1].std_after, np.std(z), rtol=1e-5)


class Counting(layers.Layer):
    """Counts its calls."""

    calls = 0

    def call(self, inputs):
        """Return the input."""
        if not isinstance(inputs, keras.KerasTensor) and tf.executing_eagerly():
            Counting.calls += 1
        return inputs


@pytest.mark.parametrize("depth", [1, 20])
def test_the_number_of_passes_does_not_grow_with_depth(depth):
    """One pass measures before, one rescales, one measures after."""
    chain = [layers.Dense(8, "relu") for _ in range(depth)]
    model = keras.Sequential([keras.Input((8,)), *chain, Counting()])
    Counting.calls = 0
    rescale(model, data()[0])
    assert Counting.calls == 3


# -- kinds of models


class TwoInputs(keras.Model):
    """A nested subclassed model with a shared layer, no `training`, and dict inputs."""

    def __init__(self):
        super().__init__()
        self.head = layers.Dense(3)  # not in the order of the calls
        self.inner = keras.Sequential([layers.Dense(12, "relu"), layers.Dropout(0.5)])
        self.shared = layers.Dense(16, "relu")

    def call(self, inputs):
        """Call the shared layer with `a`, then with `b`, which is ten times larger."""
        a, b = self.shared(inputs["a"]), self.shared(inputs["b"])
        return self.head(self.inner(a) + self.inner(b))


def test_an_unbuilt_subclassed_model_with_a_shared_layer():
    """The batch builds it. A shared layer is measured at its first call."""
    x = {"a": data(200)[0], "b": 10 * data(200)[0]}
    model = TwoInputs()
    report = rescale(model, x)
    order = [model.shared, model.inner.layers[0], model.head]
    assert [row.name for row in report.layers] == [layer.path for layer in order]
    np.testing.assert_allclose([row.std_after for row in report.layers], 1, atol=TOLERANCE)
    kernel, bias = model.shared.get_weights()
    np.testing.assert_allclose((x["a"] @ kernel + bias).std(), 1.0, atol=TOLERANCE)
    assert all(row.std_before > 0 for row in report.layers)


class Noise(layers.Layer):
    """Draws random numbers in training and in inference."""

    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, inputs):
        """Add one random draw."""
        return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.seeds)


def test_building_leaves_the_seed_generators_alone():
    """Building calls the model once; each pass calls it once more."""
    model = keras.Sequential([layers.Dense(5), Noise(), layers.Dense(4)])
    before = np.array(model.layers[1].seeds.state.value)
    report = rescale(model, data()[0])
    np.testing.assert_array_equal(model.layers[1].seeds.state.value, before)
    np.testing.assert_allclose([row.std_after for row in report.layers], 1, atol=TOLERANCE)


def test_building_draws_the_weights_that_a_plain_call_draws():
    """The kernels differ only by the factors, since the seed generators are unchanged."""
    x = {"a": data()[0], "b": data()[0]}
    models = []
    for use in (rescale, lambda model, x: model(x)):
        keras.utils.set_random_seed(5)
        models.append(TwoInputs())
        use(models[-1], x)
    ours, plain = (
        [np.array(variable.value) for variable in model.variables] for model in models
    )
    for value, drawn in zip(ours, plain, strict=True):
        if value.ndim < 2:
            np.testing.assert_array_equal(value, drawn)
        else:
            np.testing.assert_allclose(value / drawn, (value / drawn).flat[0], rtol=1e-6)


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_several_inputs(kind):
    """Inputs in the structure of the model; one of them holds integers."""
    tokens, x = keras.Input((5,), dtype="int32", name="tokens"), keras.Input((8,), name="x")
    embedded = layers.Flatten()(layers.Embedding(10, 4, mask_zero=False)(tokens))
    y = layers.Dense(6, "relu", name="first")(layers.Concatenate()([embedded, x]))
    given = {"tokens": tokens, "x": x}
    values = {"tokens": np.arange(200).reshape(40, 5) % 10, "x": data()[0]}
    if kind is not dict:
        given, values = kind(given.values()), kind(values.values())
    model = keras.Model(given, layers.Dense(2, name="second")(y))
    report = rescale(model, values)
    assert [row.name for row in report.layers] == ["first", "second"]
    np.testing.assert_allclose([row.std_after for row in report.layers], 1, atol=TOLERANCE)


def test_a_layer_in_time_distributed_counts_over_all_time_steps():
    """The layer is called once per step, and its first input is all zeros."""
    x = SEQUENCES.copy()
    x[:, 0] = 0.0
    layer = layers.TimeDistributed(layers.Dense(9, "relu"))
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    (row,) = rescale(model, x).layers
    kernel, bias = layer.get_weights()
    np.testing.assert_allclose((x @ kernel + bias).std(), 1.0, atol=TOLERANCE)
    np.testing.assert_allclose(row.std_after, (x @ kernel + bias).std(), rtol=1e-5)


def test_the_projections_of_attention_are_weight_layers():
    """Queries, keys and values have unit variance, computed in numpy."""
    inputs = keras.Input(SEQUENCES.shape[1:])
    attention = layers.MultiHeadAttention(2, 5, name="attention")
    model = keras.Model(inputs, attention(inputs, inputs))
    report = rescale(model, SEQUENCES)
    assert len(report.layers) == 4
    for kernel, bias in zip(*[iter(attention.get_weights()[:6])] * 2, strict=True):
        z = np.einsum("btc,chd->bthd", SEQUENCES, kernel) + bias
        np.testing.assert_allclose(z.std(), 1.0, atol=TOLERANCE)
    output = model.predict(SEQUENCES, verbose=0)
    np.testing.assert_allclose(output.std(), 1.0, atol=TOLERANCE)


@pytest.mark.parametrize("std", [1e-20, 1e-2, 1e30])
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_kernels_beyond_the_range_of_the_dtype_computed_with(dtype, std):
    """They are zero or infinite in float16."""
    keras.config.set_dtype_policy(dtype)
    draw = keras.initializers.RandomNormal(0.0, std)
    model = perceptron(4, 128, initializer=draw)
    x = data(200)[0]
    report = rescale(model, x)
    np.testing.assert_allclose([row.std_after for row in report.layers], 1, atol=TOLERANCE)
    np.testing.assert_allclose(pre_activations(model, x), 1.0, atol=0.03)


@pytest.mark.parametrize("std", [1e-5, 1e-2, 1e4])
def test_kernels_held_in_half_precision(std):
    """The scaled kernels are rounded as well, and the largest outputs overflow."""
    keras.config.set_dtype_policy("float16")
    draw = keras.initializers.RandomNormal(0.0, std)
    model = perceptron(4, 128, initializer=draw)
    report = rescale(model, data(200)[0])
    np.testing.assert_allclose([row.std_after for row in report.layers], 1, atol=TOLERANCE)
    np.testing.assert_allclose(pre_activations(model, data(200)[0]), 1.0, atol=0.03)


def test_the_std_before_is_nan_where_a_half_precision_chain_overflows():
    """The std before is NaN: it was neither 1 nor infinite."""
    keras.config.set_dtype_policy("mixed_float16")
    model = perceptron(6, 128, initializer=keras.initializers.RandomNormal(0.0, 10.0))
    report = rescale(model, data(200)[0])
    assert np.isfinite(report.layers[0].std_before)
    assert np.isnan(report.layers[-1].std_before)


# -- layers that are not rescaled


def frozen():
    """A frozen layer."""
    layer = layers.Dense(6)
    layer.trainable = False
    return layer


class Squared(layers.Layer):
    """A custom layer of an unknown kind."""

    def build(self, shape):
        """Create one kernel."""
        self.matrix = self.add_weight(shape=(shape[-1], 6))

    def call(self, inputs):
        """Multiply by the squared kernel, which is not linear in the kernel."""
        return inputs @ self.matrix**2


class Compiled(layers.Layer):
    """Calls its layer inside a compiled function."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(6)

    def build(self, shape):
        """Build the inner layer."""
        self.dense.build(shape)

    def call(self, inputs):
        """Call the layer in a new graph at each call."""
        return tf.function(self.dense)(inputs)


LEFT_ALONE = {
    "frozen": frozen,
    "sigmoid": lambda: layers.Dense(6, "sigmoid"),
    "sigmoid:": lambda: layers.Conv1D(6, 3, activation="hard_sigmoid"),
    "constraint": lambda: layers.Dense(6, kernel_constraint="unit_norm"),
    "recurrent": lambda: layers.GRU(6, return_sequences=True),
    "recurrent:": lambda: layers.SimpleRNN(6, return_sequences=True, stateful=True),
    "its gates": lambda: layers.Bidirectional(layers.LSTM(6, return_sequences=True)),
    "SpectralNormalization": lambda: layers.SpectralNormalization(layers.Dense(6)),
    "of type Squared": Squared,
    "its bias varies": lambda: layers.Dense(
        6, bias_initializer=keras.initializers.RandomNormal(0.0, 3.0, seed=1)
    ),
    "not called": Compiled,
}


@pytest.mark.parametrize("reason", LEFT_ALONE)
def test_layers_that_are_not_rescaled_keep_their_state_and_the_report_says_why(reason):
    """The layers before and after it are rescaled."""
    x = SEQUENCES
    left = LEFT_ALONE[reason]()
    chain = [layers.Dense(6, "relu", name="first"), left, layers.Dense(2, name="last")]
    model = keras.Sequential([keras.Input(batch_shape=x.shape), *chain])
    before = [np.array(variable.value) for variable in left.variables]
    report = {row.name.rpartition("/")[2]: row for row in rescale(model, x).layers}
    for variable, old in zip(left.variables, before, strict=True):
        np.testing.assert_array_equal(variable.value, old, strict=True)
    for row in (report.pop("first"), report.pop("last")):
        assert row.reason == ""
        np.testing.assert_allclose(row.std_after, 1.0, atol=TOLERANCE)
    assert len(report) in (1, 2)
    for row in report.values():
        assert reason in row.reason
        assert row.factor == 1.0


def test_lora_leaves_a_frozen_kernel():
    """The kernel is computed from three variables; the original kernel is frozen."""
    model = perceptron(2)
    model.get_layer("hidden_0").enable_lora(2)
    report = rescale(model, data()[0])
    assert [row.reason for row in report.layers] == ["frozen", "", ""]


def test_a_layer_that_is_not_called_is_in_the_report():
    """The model is subclassed and calls one of its two branches."""

    class Branches(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.unused = layers.Dense(3), layers.Dense(3)
            self.used.build((None, 8))
            self.unused.build((None, 8))

        def build(self, shape):
            pass

        def call(self, inputs):
            return self.used(inputs)

    model = Branches()
    used, unused = rescale(model, data()[0]).layers
    assert (used.reason, unused.reason) == ("", "not called")
    assert np.isnan(unused.std_before) and np.isnan(unused.std_after)


def test_normalization_and_embedding_layers_are_not_in_the_report():
    """They are not weight layers for `rescale`."""
    model = keras.Sequential(
        [layers.Embedding(9, 4), layers.LayerNormalization(), layers.Dense(5, name="d")]
    )
    report = rescale(model, np.arange(36).reshape(4, 9) % 9)
    assert [row.name.rpartition("/")[2] for row in report.layers] == ["d"]


# -- errors


def with_kernel(value):
    """A network whose second kernel is filled with a value."""
    model = perceptron()
    kernel = model.get_layer("hidden_1").kernel
    kernel.assign(np.full(kernel.shape, value))
    return model


def dead():
    """A network whose first layer outputs only zeros."""
    model = perceptron()
    model.get_layer("hidden_0").bias.assign(np.full(16, -1e6))
    return model


def quantized():
    """A network with integer kernels."""
    model = perceptron()
    for layer in model.layers:
        layer.quantize("int8")
    return model


class Failing(layers.Layer):
    """Raises in the second forward pass, when some layers are rescaled already."""

    calls = 0

    def call(self, inputs):
        """Raise at the second call."""
        if tf.executing_eagerly():
            self.calls += 1
            if self.calls > 1:
                raise OSError("no more")
        return inputs


X = data()[0]
NAN = np.where(np.arange(8) == 3, np.nan, X)

REFUSED = {
    "layer": (lambda: layers.Dense(3), X, TypeError, r"must be a keras.Model.*Dense"),
    "list": (perceptron, [[1.0, 2.0]], TypeError, r"`x` must be one batch.*list"),
    "none": (perceptron, None, TypeError, r"`x` must be one batch.*NoneType"),
    "dataset": (
        perceptron,
        tf.data.Dataset.from_tensors(X),
        TypeError,
        r"Dataset.*next\(iter\(dataset\)\)",
    ),
    "empty": (perceptron, X[:0], ValueError, r"at least one sample.*\(0, 8\)"),
    "nan": (perceptron, NAN, ValueError, r"must be finite.*40 NaN or infinite.*320"),
    "nan in dict": (perceptron, {"x": NAN}, ValueError, r"must be finite"),
    "zero kernel": (
        lambda: with_kernel(0.0),
        X,
        ValueError,
        r"kernel of 'net/hidden_1'.*only zeros.*initializer",
    ),
    "nan kernel": (
        lambda: with_kernel(np.nan),
        X,
        ValueError,
        r"kernel of 'net/hidden_1'.*NaN or infinite weights",
    ),
    "quantized": (quantized, X, ValueError, r"'net/hidden_0'.*quantized to int8"),
    "zero input": (
        perceptron,
        0 * X,
        ValueError,
        r"pre-activations of 'net/hidden_0'.*same",
    ),
    "dead": (dead, X, ValueError, r"of 'net/hidden_1' must.*all the same"),
    "one sample": (
        perceptron,
        X[:1],
        ValueError,
        r"of 'net/head' must.*more samples",
    ),
    "wrong shape": (perceptron, X[:, :3], ValueError, r"fit .*\(batch, 8\).*\(40, 3\)"),
    "user": (
        lambda: keras.Sequential([*perceptron().layers, Failing()]),
        X,
        OSError,
        "no more",
    ),
}


@pytest.mark.parametrize("case", cases(REFUSED, default={*REFUSED} - {"quantized"}))
def test_an_error_says_what_to_do_and_leaves_the_model_unchanged(case):
    """The model is equal bit for bit, and no `call` stays wrapped."""
    make, x, error, message = REFUSED[case]
    model = make()
    is_model = isinstance(model, keras.Model)
    if is_model and not model.built:
        model.build((None, 8))
    before = state(model) if is_model else []
    with pytest.raises(error, match=f"(?s){message}") as caught:
        rescale(model, x)
    if error is not OSError:
        assert str(caught.value).startswith("rescale: ")
    if is_model:
        assert_same_state(model, before)
        for layer in model.layers:
            assert "call" not in vars(layer)


# -- the report


def test_the_report_prints_as_a_table():
    """It shows names without markup, factors and reasons."""
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(6, "relu", name="first[bold]"),
            layers.Dense(6, "sigmoid", name="gate"),
        ],
        name="net",
    )
    report = rescale(model, X)
    lines = str(report).splitlines()
    first, gate = report.layers
    expected = ["net/first[bold]", f"{first.std_before:.3g}", "1", f"{first.factor:.3g}"]
    assert [line.split() for line in lines if "first" in line] == [expected]
    assert any("gate" in line and "sigmoid:" in line for line in lines)
    assert lines[-1] == "1 of 2 weight layers rescaled."
    assert gate.factor == 1.0


# -- the calls


def test_replaced_attributes_are_restored_after_an_error_too():
    """An instance attribute is restored; a class attribute is visible again."""
    plain, own = layers.Dense(2, name="plain"), layers.Dense(2, name="own")
    mine = own.__dict__["call"] = lambda inputs: inputs

    def doubled(layer, call):
        return lambda inputs: 2 * call(inputs)

    with pytest.raises(KeyError), wrapped_calls([plain, own], doubled):
        np.testing.assert_array_equal(own(np.ones((1, 2))), [[2.0, 2.0]])
        raise KeyError
    assert own.call is mine
    assert "call" not in vars(plain)

    def fails(layer, call):
        if layer is own:
            raise KeyError
        return call

    with pytest.raises(KeyError), replaced([plain, own], "call", fails):
        pass
    assert own.call is mine
    assert "call" not in vars(plain)


def test_shapes_are_inferred_with_the_original_call():
    """Keras runs the original `call`, not the wrapped one, to infer output shapes."""
    layer = Squared()
    with wrapped_calls([layer], lambda layer, call: pytest.fail):
        assert layer(keras.Input((4,))).shape == (None, 6)
    assert layer(np.ones((2, 4), np.float32)).shape == (2, 6)

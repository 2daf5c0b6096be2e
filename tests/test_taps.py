"""Which layers are measured, their names and the links between them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import models
from activation_monitor import ActivationMonitor
from activation_monitor.analysis import records


def snapshot_of(model, x=None, y=None, **options):
    if x is None:
        x, y = models.data()
    monitor, warned = models.watch(model, x, y, **options)
    assert warned == []
    return monitor.recording[0]


def edges(snapshot):
    return {
        layer.name: tuple(snapshot.names[p] for p in layer.parents)
        for layer in snapshot.layers
    }


def subclassed(call, name="net", **parts):
    """A subclassed model from its layers and its call."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__(name=name)
            for part, layer in parts.items():
                setattr(self, part, layer)

        def build(self, input_shape):
            self.built = True

        def call(self, x, training=False):
            return call(self, x)

    return Net()


@pytest.mark.parametrize("compile", [{}, {"jit_compile": True}, {"run_eagerly": True}])
def test_the_records_are_those_of_the_outputs(compile):
    """A second model returns the same outputs; numpy measures them in float64."""
    x, y = models.data()
    model = models.perceptron()
    outputs = [layer.output for layer in model.layers]
    expected = keras.Model(model.inputs, outputs).predict(x[:8], verbose=0)
    model.compile(keras.optimizers.SGD(0.0), "mse", **compile)
    monitor, _ = models.watch(model, x, y, sample_every=1)
    batches = [b for b in monitor.recording[0].records()]
    seen = {}
    # The data are shuffled, so that batches are known by their input alone.
    model.fit(
        x[:8], y[:8], batch_size=8, verbose=0, callbacks=[fresh := ActivationMonitor()]
    )
    for name, record in zip(
        fresh.recording[0].names, fresh.recording[0].records(), strict=True
    ):
        seen[name] = record
    assert list(seen) == [
        "net/hidden_0:input",
        *(f"net/{layer.name}" for layer in model.layers),
    ]
    assert len(batches) == len(seen)
    for name, values in zip(seen, [x[:8], *expected], strict=True):
        np.testing.assert_allclose(
            seen[name], records.measure(values), rtol=1e-5, atol=1e-6
        )


def test_layers_are_named_by_their_path_and_linked_along_the_data():
    """In a functional model, where the sum `x + f(x)` is measured as an input."""
    model = models.image_network()
    model.compile("sgd", "sparse_categorical_crossentropy")
    snapshot = snapshot_of(model, models.IMAGES, models.LABELS)
    assert edges(snapshot) == {
        "conv:input": (),
        "conv": ("conv:input",),
        "norm": ("conv",),
        "dropout": ("norm",),
        "branch": ("dropout",),
        "flatten:input": ("dropout", "branch"),
        "flatten": ("flatten:input",),
        "hidden": ("flatten",),
        "head": ("hidden",),
    }
    assert [layer.kind for layer in snapshot.layers] == [
        *("input", "weight", "normalization", "other", "weight"),
        *("input", "other", "weight", "weight"),
    ]
    by_name = dict(zip(snapshot.names, snapshot.layers, strict=True))
    assert (by_name["conv"].activation, by_name["conv"].width) == ("relu", 8)
    assert (by_name["hidden"].activation, by_name["hidden"].width) == ("tanh", 16)
    assert all(layer.traced for layer in snapshot.layers)


def test_a_subclassed_residual_network_is_read_from_its_trace():
    """Only the Python code of `call` says which tensor goes where."""
    model = subclassed(
        lambda net, x: net.head(net.second(h := net.first(x)) + h),
        first=layers.Dense(8),
        second=layers.Dense(8),
        head=layers.Dense(1),
    )
    names = dict(
        zip(("first", "second", "head"), [m.name for m in model.layers], strict=True)
    )
    snapshot = snapshot_of(model)
    first, second, head = (f"net/{names[key]}" for key in ("first", "second", "head"))
    assert edges(snapshot) == {
        f"{first}:input": (),
        first: (f"{first}:input",),
        second: (first,),
        f"{head}:input": (first, second),
        head: (f"{head}:input",),
    }


def test_the_calls_of_a_shared_layer_are_distinguished():
    """`/0` and `/1`, each with its own parents."""
    shared = layers.Dense(8, name="shared")
    model = subclassed(
        lambda net, x: net.head(net.shared(net.shared(x))),
        shared=shared,
        head=layers.Dense(1, name="head"),
    )
    assert edges(snapshot_of(model)) == {
        "net/shared/0:input": (),
        "net/shared/0": ("net/shared/0:input",),
        "net/shared/1": ("net/shared/0",),
        "net/head": ("net/shared/1",),
    }


class Several(layers.Layer):
    """Nested outputs, of which some are integers and strings."""

    def call(self, x):
        whole = tf.cast(x, tf.int32)
        return {"a": 2.0 * x, "b": [x + 1.0, whole, tf.strings.as_string(whole)]}


def test_the_outputs_of_a_layer_are_distinguished_and_only_floats_are_measured():
    """By `:a` and `:b.0`; integers and strings are not measured."""
    model = subclassed(
        lambda net, x: net.head((parts := net.several(x))["a"] + parts["b"][0]),
        several=Several(name="several"),
        head=layers.Dense(1, name="head"),
    )
    snapshot = snapshot_of(model)
    assert edges(snapshot)["net/head:input"] == ("net/several:a", "net/several:b.0")
    assert len(snapshot.names) == 5


def test_a_model_without_sublayers_is_its_own_leaf():
    """It is measured as one layer with weights."""

    class Leaf(keras.Model):
        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(8, 1))

        def call(self, x):
            return x @ self.kernel

    snapshot = snapshot_of(Leaf(name="leaf"))
    assert snapshot.names == ("leaf:input", "leaf")
    assert snapshot.layers[1].kind == "weight"


def test_a_layer_that_is_never_called_is_left_out():
    """It is created, and has a place among the model's layers."""
    model = subclassed(
        lambda net, x: net.head(x),
        head=layers.Dense(1, name="head"),
        unused=layers.Dense(3, name="unused"),
    )
    assert snapshot_of(model).names == ("net/head:input", "net/head")


def test_a_layer_that_returns_its_input_is_distinguished_from_the_layer_before():
    """The output of an identity is the same tensor as its input."""
    model = subclassed(
        lambda net, x: net.head((h := net.first(x)) + net.same(h)),
        first=layers.Dense(8, name="first"),
        same=layers.Identity(name="same"),
        head=layers.Dense(1, name="head"),
    )
    links = edges(snapshot_of(model))
    assert links["net/same"] == ("net/first",)
    assert links["net/head:input"] == ("net/first", "net/same")


def test_a_mask_survives_a_layer_that_returns_its_input():
    """The mask reaches the layer after it, so that padding is left out of the record."""
    tokens = np.array([[1, 2, 0, 0], [3, 0, 0, 0]] * 8)
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            layers.Embedding(5, 3, mask_zero=True),
            layers.Identity(),
            layers.Dropout(0.0, name="after"),
            layers.SimpleRNN(2),
            layers.Dense(1),
        ],
        name="net",
    )
    snapshot = snapshot_of(model, tokens, np.ones((16, 1), np.float32), batch_size=16)
    count = dict(zip(snapshot.names, snapshot.field("count"), strict=True))
    assert count["net/after"] == 3 * np.count_nonzero(tokens)


def test_a_recurrent_layer_is_measured_as_a_whole():
    """Its cell, which runs inside a loop, is not measured."""
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.LSTM(4, return_sequences=True, name="lstm"),
            layers.Bidirectional(layers.GRU(4), name="both"),
            layers.Dense(1, name="head"),
        ],
        name="net",
    )
    x = np.random.default_rng(0).standard_normal((16, 5, 3)).astype(np.float32)
    snapshot = snapshot_of(model, x, np.ones((16, 1), np.float32))
    assert [name for name in snapshot.names if "cell" in name] == []
    assert snapshot.field("count")[snapshot.names.index("net/lstm")] == 8 * 5 * 4
    links = edges(snapshot)
    assert len(links["net/head:input"]) == 2  # both directions


def test_a_layer_called_in_a_loop_is_linked_through_the_layer_that_loops():
    """Its records are merged over the iterations; the data path uses the loop's result."""

    class Loop(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.inner = layers.Dense(8, name="inner")

        def build(self, shape):
            self.inner.build(shape)

        def call(self, x):
            return tf.while_loop(
                lambda i, h: i < 3, lambda i, h: (i + 1, self.inner(h)), (0, x)
            )[1]

    model = subclassed(
        lambda net, x: net.head(net.loop(x)),
        loop=Loop(name="loop"),
        head=layers.Dense(1, name="head"),
    )
    snapshot = snapshot_of(model)
    count = dict(zip(snapshot.names, snapshot.field("count"), strict=True))
    assert count["net/loop/inner"] == 3 * count["net/loop"]
    assert edges(snapshot)["net/head"] == ("net/loop",)


def test_a_dense_layer_with_a_layer_as_activation_counts_as_the_weight_layer():
    """Its output is that of its activation layer: one tensor, which is measured once."""
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(4, activation=layers.LeakyReLU(name="leaky"), name="hidden"),
            layers.Dense(1, name="head"),
        ],
        name="net",
    )
    snapshot = snapshot_of(model)
    assert len(snapshot.names) == 3
    assert snapshot.layers[1].kind == "weight"
    assert snapshot.layers[1].activation == "leaky_relu"


def test_layers_that_are_made_when_the_model_is_built_are_measured():
    """Attention makes its projections in `build`, which runs within the first step."""
    model = subclassed(
        lambda net, x: net.head(net.attention(net.split(x), net.split(x))),
        split=layers.Reshape((4, 2), name="split"),
        attention=layers.MultiHeadAttention(2, 3, name="attention"),
        head=layers.Dense(1, name="head"),
    )
    x, _ = models.data()
    monitor, warned = models.watch(
        model, x, np.ones((40, 4, 1), np.float32), layers=["attention", "head"]
    )
    assert warned == []
    names = {name.split("/", 2)[-1] for name in monitor.recording[0].names}
    assert {"query", "key", "value", "attention_output"} <= names
    for layer in model._flatten_layers():
        assert "call" not in layer.__dict__


@pytest.mark.parametrize(
    ("layer", "kind", "activation"),
    [
        (layers.PReLU(), "activation", "leaky_relu"),
        (layers.ReLU(), "activation", "relu"),
        (layers.Activation("gelu"), "activation", "gelu"),
        (layers.Dense(3, "elu"), "weight", "elu"),
        (layers.EinsumDense("ab,bc->ac", 3), "weight", "linear"),
        (layers.LayerNormalization(), "normalization", "linear"),
        (layers.UnitNormalization(), "normalization", "linear"),
        (layers.Dropout(0.5), "other", "linear"),
    ],
)
def test_layers_are_distinguished_by_what_they_do_to_the_signal(layer, kind, activation):
    """The diagnosis depends on the kind and the activation function."""
    model = keras.Sequential([keras.Input((8,)), layer, layers.Dense(1)])
    info = snapshot_of(model).layers[1]
    assert (info.kind, info.activation) == (kind, activation)


def test_a_normalization_that_is_not_chosen_is_still_found():
    """The chosen layer after it is `normalized`; a layer without one before it is not."""
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(8, name="fc_1"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(8, name="fc_2"),
            layers.Dropout(0.1),
            layers.Dense(1, name="fc_3"),
        ],
        name="net",
    )
    snapshot = snapshot_of(model, layers="fc")
    known = {layer.name: layer.normalized for layer in snapshot.layers}
    assert known["net/fc_2"] and not known["net/fc_3"]


def test_twins_of_the_same_path_get_names_of_their_own():
    """Two submodels that each have a layer of the same name."""
    parts = []
    for name in ("left", "right"):
        inputs = keras.Input((8,))
        parts.append(keras.Model(inputs, layers.Dense(8, name="dense")(inputs), name=name))
    inputs = keras.Input((8,))
    outputs = layers.Dense(1, name="head")(parts[1](parts[0](inputs)))
    snapshot = snapshot_of(keras.Model(inputs, outputs, name="net"))
    assert snapshot.names == (
        *("net/left/dense:input", "net/left/dense", "net/right/dense", "head"),
    )


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("hidden_1", ["net/hidden_1"]),
        (["net/head", "hidden_0"], ["net/hidden_0:input", "net/hidden_0", "net/head"]),
        (r"hidden_[12]", ["net/hidden_1", "net/hidden_2"]),
        (lambda layer: layer.name.endswith("2"), ["net/hidden_2"]),
        (
            "net",
            ["net/hidden_0:input", *(f"net/hidden_{i}" for i in range(3)), "net/head"],
        ),
    ],
)
def test_layers_can_be_chosen(choice, names):
    """By name, by path, by regular expression, by predicate, with all that is inside."""
    assert list(snapshot_of(models.perceptron(), layers=choice).names) == names


def test_a_choice_that_matches_nothing_lists_near_misses():
    """Before training starts."""
    x, y = models.data()
    with pytest.raises(ValueError) as raised:
        models.watch(models.perceptron(), x, y, layers=["hiden_1"])
    assert str(raised.value) == (
        "ActivationMonitor: no layer matches 'hiden_1', passed in `layers`. Similar "
        "names: hidden_1, hidden_2, hidden_0, net/hidden_1, net/hidden_2."
    )


@pytest.mark.parametrize(
    ("choice", "error", "message"),
    [
        (7, TypeError, "Received: layers=7."),
        ([7], TypeError, "Received: 7 among them."),
        ([], ValueError, "Received: layers=[], which is empty."),
        ("(", ValueError, "Received: '(', which is not a regular expression"),
    ],
)
def test_a_choice_of_the_wrong_kind_raises_at_once(choice, error, message):
    """When the monitor is made."""
    with pytest.raises(error) as raised:
        ActivationMonitor(layers=choice)
    assert message in str(raised.value)


def test_a_predicate_that_is_never_true_is_an_error():
    """The message has the number of layers."""
    x, y = models.data()
    with pytest.raises(ValueError, match="False for all 5 layers of the model"):
        models.watch(models.perceptron(), x, y, layers=lambda layer: False)


def test_a_layer_of_a_constant_is_measured():
    """A positional embedding of `ops.arange`, which is an eager tensor."""
    given = keras.Input((8, 4))
    places = keras.layers.Embedding(8, 4, name="places")(keras.ops.arange(8)[None])
    summed = keras.layers.Add(name="sum")([given, places])
    model = keras.Model(given, keras.layers.Dense(1, name="head")(summed))
    x = np.random.default_rng(0).standard_normal((16, 8, 4)).astype(np.float32)
    snapshot = snapshot_of(model, x, x[..., :1], batch_size=16)
    assert {"sum", "head"} <= set(snapshot.names)
    parents = snapshot.layers[snapshot.names.index("sum")].parents
    assert len(parents) == 2
    sizes = snapshot.statistic("rms")[list(parents)]
    np.testing.assert_allclose(sizes[0], np.sqrt(np.mean(x**2)), rtol=1e-6)

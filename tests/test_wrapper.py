"""`Monitored` layers: they behave as the layers they wrap, and their record is right."""

import copy
import pickle
import warnings
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import models
from activation_monitor import ActivationMonitor, Monitored, audit
from activation_monitor.analysis import records
from activation_monitor.recording.backends import backend
from cases import cases

RNG = np.random.default_rng(5)
SEQUENCES = RNG.standard_normal((4, 5, 3)).astype(np.float32)
IMAGES = RNG.standard_normal((4, 8, 8, 3)).astype(np.float32)
TOKENS = RNG.integers(0, 7, (4, 5))


def bare(layer):
    """In place of `Monitored`, for the model to compare with."""
    return layer


def network(wrap=Monitored, activation="relu", **options):
    """Two dense layers, of which the first may be wrapped."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    hidden = wrap(layers.Dense(16, activation, name="hidden", **options))
    outputs = layers.Dense(1, name="head", dtype="float32")(hidden(inputs))
    return keras.Model(inputs, outputs, name="net")


def hidden_of(model):
    return model.get_layer("hidden")


def expected(batches, activation="linear"):
    """Statistics of arrays by their definition, in float64, by name.

    All arrays count as one; the variances within a batch are averaged over elements.
    """
    batches = [np.asarray(batch, np.float64) for batch in batches]
    everything = np.concatenate([batch.ravel() for batch in batches])
    sizes = np.array([batch.size for batch in batches])
    within = [batch.reshape(len(batch), -1).var(axis=0).mean() for batch in batches]
    within = np.average(within, weights=sizes)
    low, high = records.SATURATED.get(activation, (-np.inf, np.inf))
    channels = [batch.reshape(-1, batch.shape[-1]) for batch in batches]
    return {
        "count": everything.size,
        "mean": everything.mean(),
        "std": everything.std(),
        "rms": np.sqrt(np.mean(everything**2)),
        "within_std": np.sqrt(within),
        "between_std": np.sqrt(max(everything.var() - within, 0.0)),
        "minimum": everything.min(),
        "maximum": everything.max(),
        "zero_fraction": np.mean(everything == 0),
        "nonfinite_fraction": 0.0,
        "saturated_fraction": np.mean((everything <= low) | (everything >= high)),
        "dead_units": min((batch == 0).all(axis=0).sum() for batch in channels),
    }


def assert_statistics(found, batches, activation="linear", rtol=1e-6):
    known = expected(batches, activation)
    assert found.keys() == known.keys() == {"count", *records.STATISTICS}
    assert all(type(value) is float for value in found.values())
    for name, value in known.items():
        np.testing.assert_allclose(found[name], value, rtol=rtol, atol=1e-7, err_msg=name)


# -- as the layer it wraps


class Lazy(layers.Layer):
    """Builds its parts by calling them; its output depends on `training`."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner = layers.Dense(3)

    def call(self, x, training=False):
        return self.inner(x) * (2.0 if training else 1.0)


class Parts(keras.Model):
    """Sublayers as an attribute and in a list; two outputs of its own names."""

    def __init__(self, **options):
        super().__init__(**options)
        self.first = layers.Dense(3)
        self.more = [layers.Dense(2), layers.Dense(2)]

    def build(self, shape):
        self.first.build(shape)
        for layer in self.more:
            layer.build((*shape[:-1], 3))

    def call(self, x):
        hidden = self.first(x)
        return {"sum": self.more[0](hidden) + self.more[1](hidden), "hidden": hidden}


def sequential():
    return keras.Sequential([layers.Dense(3, "relu"), layers.Dropout(0.5), layers.Dense(2)])


def cells():
    return layers.StackedRNNCells([layers.SimpleRNNCell(3), layers.LSTMCell(2)])


# A layer and its positional arguments.
KINDS = {
    "normalization": (layers.BatchNormalization, [IMAGES]),
    "dropout": (lambda: layers.Dropout(0.5), [SEQUENCES]),
    "recurrent": (lambda: layers.SimpleRNN(3, return_state=True), [SEQUENCES]),
    "cells": (lambda: layers.RNN(cells(), return_sequences=True), [SEQUENCES]),
    "bidirectional": (lambda: layers.Bidirectional(layers.SimpleRNN(3)), [SEQUENCES]),
    "embedding": (lambda: layers.Embedding(8, 3, mask_zero=True), [TOKENS]),
    "list of inputs": (layers.Add, [[SEQUENCES, SEQUENCES]]),
    "attention": (lambda: layers.MultiHeadAttention(2, 3), [SEQUENCES, SEQUENCES]),
    "einsum": (lambda: layers.EinsumDense("abc,cd->abd", (5, 3)), [SEQUENCES]),
    "regularized": (lambda: layers.Dense(2, activity_regularizer="l2"), [SEQUENCES]),
    "lazily built": (Lazy, [SEQUENCES]),
    "sequential": (sequential, [SEQUENCES]),
    "subclassed model": (Parts, [SEQUENCES]),
    "nothing": (layers.Identity, [SEQUENCES]),
}


def trained(make, arguments, wrap):
    """A model of one layer, and the results of a fit and a prediction."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(x.shape[1:], dtype=x.dtype.name), arguments
    )
    layer = wrap(make())
    outputs = keras.tree.flatten(layer(*inputs))
    # The head has something to train where the layer does not.
    heads = [layers.Dense(1)(output) for output in outputs]
    model = keras.Model(keras.tree.flatten(inputs), heads)
    x = keras.tree.flatten(arguments)
    y = [np.ones((4, *head.shape[1:]), np.float32) for head in heads]
    model.compile("sgd", ["mse"] * len(heads), run_eagerly=True)
    history = model.fit(x, y, epochs=2, verbose=0).history
    specs = [(output.shape, output.dtype) for output in outputs]
    masks = [keras.src.backend.get_keras_mask(output) is not None for output in outputs]
    predicted = keras.tree.flatten(model.predict(x, verbose=0))
    return model, layer, {"history": history, "specs": specs, "masks": masks}, predicted


@pytest.mark.parametrize(
    "kind",
    cases(
        KINDS,
        default=[
            *("normalization", "dropout", "recurrent", "attention", "lazily built"),
            "subclassed model",
        ],
    ),
)
def test_a_wrapped_layer_does_what_the_layer_does(kind, tmp_path):
    """Losses, outputs, shapes, masks, paths; weights can be exchanged both ways."""
    model, layer, facts, predicted = trained(*KINDS[kind], bare)
    wrapped, monitored, wrapped_facts, also_predicted = trained(*KINDS[kind], Monitored)
    assert wrapped_facts == facts
    for one, other in zip(predicted, also_predicted, strict=True):
        np.testing.assert_array_equal(other, one)
    assert [w.path for w in wrapped.weights] == [w.path for w in model.weights]
    assert (monitored.name, monitored.path) == (layer.name, layer.path)
    assert monitored.get_build_config() == layer.get_build_config()

    for source, target in ((model, wrapped), (wrapped, model)):
        values = [RNG.standard_normal(w.shape) for w in source.weights]
        source.set_weights([v.astype(np.float32) for v in values])
        target.set_weights(source.get_weights())
        source.save_weights(tmp_path / "model.weights.h5")
        target.set_weights([np.zeros(w.shape) for w in target.weights])
        target.load_weights(tmp_path / "model.weights.h5")
        for one, other in zip(source.get_weights(), target.get_weights(), strict=True):
            np.testing.assert_array_equal(other, one)


def test_masks_pass_through():
    """Through layers that make, use, pass on and drop a mask."""
    tokens = TOKENS.copy()
    tokens[:, 3:] = 0

    def run(wrap):
        keras.utils.set_random_seed(0)
        embedded = wrap(layers.Embedding(8, 3, mask_zero=True))(tokens)
        dropped = wrap(layers.Dropout(0.5))(embedded)
        sequence, *state = wrap(layers.LSTM(3, return_sequences=True, return_state=True))(
            dropped
        )
        attended = wrap(layers.MultiHeadAttention(2, 3))(sequence, value=dropped)
        pooled = wrap(layers.GlobalAveragePooling1D())(attended)
        return [embedded, dropped, sequence, *state, attended, pooled]

    for one, other in zip(run(bare), run(Monitored), strict=True):
        np.testing.assert_array_equal(other, one)
        masks = [getattr(x, "_keras_mask", None) for x in (one, other)]
        assert (masks[0] is None) == (masks[1] is None)
        if masks[0] is not None:
            np.testing.assert_array_equal(masks[1], masks[0])


def test_supports_masking_and_mask_arguments_are_the_layers():
    """A mask argument reaches the layer; a layer without masks gives its warning."""
    mask = np.array([[True, True, False, False, False]] * 4)
    pooled = Monitored(layers.GlobalAveragePooling1D())(SEQUENCES, mask=mask)
    np.testing.assert_allclose(pooled, SEQUENCES[:, :2].mean(axis=1), rtol=1e-6)
    assert Monitored(layers.Dense(2)).supports_masking
    flat = Monitored(layers.Reshape((15,)))
    assert not flat.supports_masking
    with pytest.warns(UserWarning, match="does not support masking"):
        flat(layers.Masking()(SEQUENCES))


def test_keyword_tensors_and_several_inputs_reach_the_layer():
    """As in `MultiHeadAttention(query, value=...)`, called eagerly and symbolically."""
    query, value = SEQUENCES, SEQUENCES[:, :2]

    def run(wrap):
        keras.utils.set_random_seed(0)
        layer = wrap(layers.MultiHeadAttention(2, 3))
        layer(keras.Input((5, 3)), value=keras.Input((2, 3)))
        return layer(query, value=value, return_attention_scores=True)

    for one, other in zip(run(bare), run(Monitored), strict=True):
        np.testing.assert_array_equal(other, one)


def test_strings_and_integers_are_not_converted():
    """Nor are integers of any size."""
    words = np.array(["a b", "b"])
    vectorize = layers.TextVectorization(vocabulary=["a", "b"])
    wrapped = Monitored(layers.TextVectorization(vocabulary=["a", "b"]))
    np.testing.assert_array_equal(wrapped(words), vectorize(words))
    assert wrapped.statistics() is None
    ids = Monitored(layers.Identity(dtype="int64"))(np.array([2**40 + 1]))
    assert int(ids[0]) == 2**40 + 1
    with pytest.raises(ValueError, match="Only input tensors may be passed"):
        Monitored(layers.Dense(2))("no tensor")


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_the_dtype_policy_is_the_layers(policy):
    """Also where the layer's policy differs from the global one."""
    x = SEQUENCES[0]
    keras.utils.set_random_seed(0)
    layer = layers.Dense(2, dtype=policy)
    keras.utils.set_random_seed(0)
    wrapped = Monitored(layers.Dense(2, dtype=policy))
    outputs = layer(x)
    np.testing.assert_array_equal(wrapped(x), outputs)
    assert wrapped(x).dtype == outputs.dtype
    for name in ("compute_dtype", "variable_dtype", "input_dtype", "dtype"):
        assert getattr(wrapped, name) == getattr(layer, name)
    wrapped.dtype_policy = "float32"
    assert wrapped.layer.dtype_policy.name == "float32"


def test_a_layer_that_asks_for_no_autocast_gets_none():
    """Its inputs keep their dtype."""
    layer = Monitored(layers.Identity(dtype="float16", autocast=False))
    assert layer(tf.constant([1.0])).dtype == "float32"


def test_an_input_of_the_wrong_shape_is_refused_as_by_the_layer():
    """`input_spec` passes through, also for symbolic inputs."""
    with pytest.raises(ValueError, match="incompatible with the layer"):
        Monitored(layers.Conv2D(2, 3))(keras.Input((8, 8)))


def test_frozen_is_frozen_on_both_sides():
    """`trainable` reads and sets the layer's."""
    wrapped = Monitored(layers.Dense(2, trainable=False))
    wrapped.build((None, 3))
    assert not wrapped.trainable and wrapped.trainable_weights == []
    wrapped.trainable = True
    assert wrapped.layer.trainable and len(wrapped.trainable_weights) == 2
    wrapped.layer.trainable = False
    assert not wrapped.trainable and len(wrapped.non_trainable_weights) == 2


def test_a_built_layer_stays_as_it_is():
    """Its weights are the same objects."""
    dense = layers.Dense(2)
    dense(SEQUENCES)
    weights = dense.weights
    wrapped = Monitored(dense)
    assert wrapped.built
    wrapped(SEQUENCES)
    assert all(a is b for a, b in zip(wrapped.weights, weights, strict=True))


def test_quantization_passes_through():
    """`quantize` of the layer and of the model: the same outputs as without a wrapper."""
    x, _ = models.data()
    outputs = []
    for wrap in (bare, Monitored):
        model = network(wrap)
        hidden_of(model).quantize("int8")
        assert hidden_of(model).quantization_mode == "int8"
        assert hidden_of(model).dtype_policy.name.startswith("int8")
        whole = network(wrap)
        with warnings.catch_warnings():  # Keras cannot quantize its own InputLayer
            warnings.simplefilter("ignore")
            whole.quantize("int8")
        outputs.append((model(x), whole(x)))
    for one, other in zip(*outputs, strict=True):
        np.testing.assert_array_equal(other, one)
    assert hidden_of(model).statistics()["count"] == 40 * 16


def test_lora_passes_through():
    """The factors are trained in place of the kernel."""
    model = network()
    hidden_of(model).enable_lora(2)
    names = [weight.name for weight in hidden_of(model).trainable_weights]
    assert names == ["bias", "lora_kernel_a", "lora_kernel_b"]


def test_a_stateful_layer_is_reset():
    """`reset_state`, `adapt` and the like are the layer's."""
    layer = Monitored(layers.LSTM(2, stateful=True))
    first = layer(SEQUENCES)
    assert not np.array_equal(layer(SEQUENCES), first)
    layer.reset_state()
    np.testing.assert_array_equal(layer(SEQUENCES), first)
    assert not hasattr(Monitored(layers.Dense(2)), "reset_state")
    scale = Monitored(layers.Normalization())
    scale.adapt(SEQUENCES)
    np.testing.assert_allclose(np.mean(scale(SEQUENCES)), 0.0, atol=1e-6)


def test_losses_and_the_shapes_of_outputs_are_the_layers():
    """Regularizers count once."""
    options = {"kernel_regularizer": "l2", "activity_regularizer": "l2"}
    losses = []
    for wrap in (bare, Monitored):
        keras.utils.set_random_seed(0)
        layer = wrap(layers.Dense(2, **options))
        layer(SEQUENCES)
        losses.append([float(loss) for loss in layer.losses])
    assert losses[0] == losses[1] and len(losses[0]) == 2
    assert layer.compute_output_shape((None, 5, 3)) == (None, 5, 2)
    spec = layer.compute_output_spec(keras.KerasTensor((None, 5, 3)))
    assert spec.shape == (None, 5, 2)


@pytest.mark.parametrize(("mode", "eagerly"), [("full", True), ("activations", False)])
def test_under_rematerialization_a_pass_counts_once(mode, eagerly):
    """The layer computes twice, for the gradient; its output counts once.

    Keras 3.15 itself fails with "full" in a graph.
    """

    def rematerialized(layer):
        with keras.RematScope(mode=mode):
            return Monitored(type(layer).from_config(layer.get_config()))

    x, y = models.data()
    model = network(rematerialized)
    model.compile("sgd", "mse", run_eagerly=eagerly)
    model.fit(x, y, batch_size=8, verbose=0)
    assert hidden_of(model).statistics(training=True)["count"] == 40 * 16


# -- the record

LOOPS = {
    "fit": {},
    "xla": {"jit_compile": True},
    "eager": {"run_eagerly": True},
    "three steps at once": {"steps_per_execution": 3},
    "three steps at once, xla": {"steps_per_execution": 3, "jit_compile": True},
}


@pytest.mark.parametrize(
    "loop", cases(LOOPS, default=["fit", "xla", "eager", "three steps at once"])
)
def test_the_record_of_a_fit_is_float64_numpy_over_all_batches(loop):
    """Training, validation and prediction; training passes have a record of their own."""
    x, y = models.data(20)
    model = network(activation="tanh")
    model.compile(keras.optimizers.SGD(0.0), "mse", **LOOPS[loop])
    options = {"batch_size": 8, "verbose": 0, "shuffle": False}
    model.fit(x, y, epochs=2, validation_data=(3.0 * x, y), **options)
    model.predict(5.0 * x, batch_size=8, verbose=0)
    layer = hidden_of(model)
    kernel, bias = layer.get_weights()

    def batches(x):
        return [np.tanh(x[i : i + 8] @ kernel + bias) for i in (0, 8, 16)]

    assert_statistics(layer.statistics(training=True), 2 * batches(x), "tanh", 1e-5)
    # Keras validates in batches of the same size.
    inference = 2 * batches(3.0 * x) + batches(5.0 * x)
    assert_statistics(layer.statistics(), inference, "tanh", 1e-5)
    layer.reset_statistics()
    model.fit(x, y, **options)
    assert_statistics(layer.statistics(training=True), batches(x), "tanh", 1e-5)
    assert layer.statistics()["count"] == 0.0


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("xla", [False, True])
def test_the_record_under_mixed_precision(policy, xla):
    """The record is that of the narrow outputs."""
    x, y = models.data(16)
    model = network(dtype=policy)
    outputs = hidden_of(model).layer(x[:8]), hidden_of(model).layer(x[8:])
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=xla)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    found = hidden_of(model).statistics(training=True)
    outputs = [tf.cast(batch, "float64") for batch in outputs]
    # XLA may round an output to the narrow type elsewhere.
    assert_statistics(found, outputs, rtol=1e-2 if xla else 1e-6)


@pytest.mark.smoke
@pytest.mark.parametrize("compile", [None, {}, {"jit_compile": True}])
def test_the_record_of_a_custom_loop(compile):
    """A plain GradientTape loop, a `tf.function`, one with XLA: gradients are the same."""
    x, y = models.data(16)
    gradients = []
    for wrap in (bare, Monitored):
        model = network(wrap)

        def step(x, y, model=model):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
            return tape.gradient(loss, model.trainable_variables)

        run = step if compile is None else tf.function(step, **compile)
        gradients.append([run(tf.constant(x[i : i + 8]), y[i : i + 8]) for i in (0, 8)])
    for one, other in zip(*map(keras.tree.flatten, gradients), strict=True):
        np.testing.assert_array_equal(other, one)
    kernel, bias = hidden_of(model).get_weights()
    batches = [np.maximum(x[i : i + 8] @ kernel + bias, 0) for i in (0, 8)]
    assert_statistics(hidden_of(model).statistics(training=True), batches, rtol=1e-5)
    assert hidden_of(model).statistics()["count"] == 0.0


def test_without_a_pass_the_statistics_are_nan():
    """A count of zero, and NaN."""
    layer = Monitored(layers.Identity())
    layer(np.ones((2, 3), np.float32))
    found = layer.statistics(training=True)
    assert found.pop("count") == 0.0
    assert all(np.isnan(value) for value in found.values())
    layer(np.ones((0, 3), np.float32), training=True)
    assert layer.statistics(training=True)["count"] == 0.0


def test_training_is_resolved_as_in_keras():
    """From the argument, an outer layer or the default, also for layers without it."""
    x = np.ones((2, 3), np.float32)
    for make in (layers.Identity, lambda: layers.Dropout(0.5)):
        layer = Monitored(make())
        layer(x)
        layer(x, training=True)
        keras.Sequential([layer])(x, training=True)
        counts = [layer.statistics(training)["count"] for training in (False, True)]
        assert counts == [6.0, 12.0]


def test_a_model_that_takes_no_training_argument_makes_inference_passes():
    """`fit` of Keras does not pass it on; a dropout inside would not drop either."""

    class WithoutTraining(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = Monitored(layers.Dense(1))

        def call(self, x):
            return self.head(x)

    x, y = models.data(8)
    model = WithoutTraining()
    model.compile("sgd", "mse")
    model.fit(x, y, verbose=0)
    counts = [model.head.statistics(training)["count"] for training in (False, True)]
    assert counts == [8.0, 0.0]


def test_the_whole_range_is_measured():
    """Beside an infinite element, subnormals and the largest float32."""
    values = np.array([[1e-40, 3e38], [np.inf, -3e38]], np.float32)
    layer = Monitored(layers.Identity())
    layer(values)
    found = layer.statistics()
    finite = values[np.isfinite(values)].astype(np.float64)
    np.testing.assert_allclose(found["std"], finite.std(), rtol=1e-6)
    np.testing.assert_allclose(found["maximum"], finite.max(), rtol=1e-6)
    assert found["nonfinite_fraction"] == 0.25
    assert found["zero_fraction"] == 0.0


class Several(layers.Layer):
    """Nested outputs, one of which has integers."""

    def call(self, x):
        return {"a": 2.0 * x, "b": (x + 1.0, tf.cast(x, tf.int32))}


def test_several_outputs_have_a_record_each_and_integers_none():
    """In the structure of the outputs."""
    layer = Monitored(Several())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(SEQUENCES)
    found = layer.statistics()
    assert found.keys() == {"a", "b"} and found["b"][1] is None
    assert_statistics(found["a"], [2.0 * SEQUENCES])
    assert_statistics(found["b"][0], [SEQUENCES + 1.0])


class Sparse(layers.Layer):
    """Outputs a sparse and a dense tensor."""

    def call(self, x):
        return tf.sparse.from_dense(x), x


@pytest.mark.parametrize("compiled", [False, True])
def test_what_cannot_be_measured_is_left_out_with_one_warning(compiled):
    """The other output is measured."""
    layer = Monitored(Sparse(name="sparse"))
    run = tf.function(layer) if compiled else layer
    with pytest.warns(UserWarning, match="Monitored: output 0 of 'sparse'") as caught:
        run(SEQUENCES[0])
        run(SEQUENCES[1])
    assert len(caught) == 1
    sparse, dense = layer.statistics()
    assert sparse is None
    assert_statistics(dense, [SEQUENCES[0], SEQUENCES[1]])


def test_a_failure_to_measure_does_not_end_training(monkeypatch):
    """It warns once; the fit goes on."""

    def broken(*args, **kwargs):
        raise RuntimeError("no room")

    monkeypatch.setattr(backend.Store, "put", broken)
    x, y = models.data()
    model = network()
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="cannot be measured, it is left out.*no room"):
        history = model.fit(x, y, verbose=0).history
    assert np.isfinite(history["loss"][0])
    assert hidden_of(model).statistics() is None


def test_a_tensor_in_the_middle_of_a_subclassed_model_is_seen():
    """A sum that is not the output of a layer, through an identity layer."""

    class Block(keras.Model):
        def __init__(self):
            super().__init__(name="block")
            self.first = layers.Dense(8, "relu")
            self.stream = Monitored(layers.Identity(name="stream"))
            self.head = layers.Dense(1)

        def call(self, x, training=False):
            return self.head(self.stream(x + self.first(x)))

    x, y = models.data(16)
    model = Block()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    monitor, warned = models.watch(model, x, y, batch_size=16, sample_every=1)
    kernel, bias = model.first.get_weights()
    stream = x + np.maximum(x @ kernel + bias, 0)
    assert_statistics(model.stream.statistics(training=True), [stream], rtol=1e-5)
    names = monitor.recording[0].names
    assert warned == [] and names.count("block/stream") == 1
    record = monitor.recording[0].records()[names.index("block/stream")]
    np.testing.assert_allclose(record, records.measure(stream), rtol=1e-5, atol=1e-6)


# -- weights and files


def test_the_record_is_not_a_variable_of_the_model(tmp_path):
    """Nor of the layer, nor of a checkpoint."""
    wrapped, plain = network(), network(bare)
    x, _ = models.data()
    wrapped.predict(x, verbose=0)
    assert len(wrapped.variables) == len(plain.variables) == 4
    assert len(wrapped.non_trainable_variables) == 0
    saved = tf.train.Checkpoint(model=wrapped).save(str(tmp_path / "checkpoint"))
    shapes = tf.train.load_checkpoint(saved).get_variable_to_shape_map().values()
    assert [len(records.FIELDS)] not in shapes
    names = {v.path for v in hidden_of(wrapped).variables}
    assert names == {"hidden/kernel", "hidden/bias"}


def test_a_file_of_the_model_is_loaded_without_a_callback(tmp_path):
    """By its registered name; the record is not in the file and starts empty."""
    x, y = models.data()
    model = network()
    model.compile("adam", "mse")
    model.fit(x, y, verbose=0)
    path = tmp_path / "model.keras"
    model.save(path)
    size = path.stat().st_size
    model.fit(x, y, verbose=0, epochs=2)
    model.save(path)
    assert path.stat().st_size == size
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
    assert '"registered_name": "activation_monitor>Monitored"' in config
    loaded = keras.models.load_model(path)
    assert isinstance(hidden_of(loaded), Monitored)
    with pytest.raises(RuntimeError, match="'hidden' must be called before"):
        hidden_of(loaded).statistics()
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert hidden_of(loaded).statistics()["count"] == 40 * 16
    history = loaded.fit(x, y, verbose=0, shuffle=False).history
    assert history == model.fit(x, y, verbose=0, shuffle=False).history


@pytest.mark.parametrize("kind", ["attention", "recurrent", "subclassed model"])
def test_a_config_makes_the_same_layer_again(kind):
    """`get_config` and `from_config`, and what Keras serializes."""
    make, _ = KINDS[kind]
    with keras.saving.custom_object_scope({"Parts": Parts}):
        wrapped = Monitored(make(), name="watched")
        config = wrapped.get_config()
        again = type(wrapped).from_config(config)
        assert config.keys() == {"name", "layer"}
        assert again.get_config() == config
        assert isinstance(Monitored.from_config(config), Monitored)
        serialized = keras.saving.serialize_keras_object(wrapped)
        assert serialized["registered_name"] == "activation_monitor>Monitored"
        again = keras.saving.deserialize_keras_object(serialized)
        assert type(again.layer) is type(wrapped.layer)
        assert again.name == "watched"


def test_a_model_is_cloned_and_copied_with_its_wrapped_layers():
    """The copies have records of their own."""
    x, _ = models.data()
    model = network()
    model(x)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for other in (clone, copy.deepcopy(model)):
        assert isinstance(hidden_of(other), Monitored)
        np.testing.assert_array_equal(other(x), model(x))
        assert hidden_of(other).statistics()["count"] == 40 * 16
    assert hidden_of(model).statistics()["count"] == 3 * 40 * 16


def test_a_layer_without_a_model_is_copied_and_pickled():
    """With its weights."""
    layer = Monitored(layers.Dense(2))
    outputs = layer(SEQUENCES)
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(again(SEQUENCES), outputs)
        assert again.statistics()["count"] == 4 * 5 * 2


def test_cloning_can_remove_the_wrapper():
    """For a model to export."""
    x, _ = models.data()
    model = network()

    def unwrapped(layer):
        layer = layer.layer if isinstance(layer, Monitored) else layer
        return type(layer).from_config(layer.get_config())

    plain = keras.models.clone_model(model, clone_function=unwrapped)
    plain.set_weights(model.get_weights())
    assert type(plain.get_layer("hidden")) is layers.Dense
    np.testing.assert_array_equal(plain(x), model(x))


def test_a_wrapped_wrapper_refuses_the_weights_of_one_that_is_not(tmp_path):
    """The one case that `save_weights` cannot do; `set_weights` and its own files can."""
    made = []
    for wrap in (bare, Monitored, Monitored):
        inner = layers.TimeDistributed(layers.Dense(2))
        model = keras.Sequential([keras.Input((5, 3)), wrap(inner)])
        model.save_weights(tmp_path / f"{len(made)}.weights.h5")
        made.append(model)
    plain, wrapped, also_wrapped = made
    with pytest.raises(ValueError, match="could not be loaded"):
        plain.load_weights(tmp_path / "1.weights.h5")
    with pytest.raises(ValueError, match="could not be loaded"):
        wrapped.load_weights(tmp_path / "0.weights.h5")
    also_wrapped.load_weights(tmp_path / "1.weights.h5")
    plain.set_weights(wrapped.get_weights())
    for model in (plain, also_wrapped):
        np.testing.assert_array_equal(model(SEQUENCES), wrapped(SEQUENCES))


# -- with the callback


@pytest.mark.parametrize("compile", [{}, {"jit_compile": True}, {"run_eagerly": True}])
def test_a_callback_logs_a_wrapped_layer_like_any_other(compile):
    """The same snapshots as without a wrapper, and a record of every step."""
    x, y = models.data(20)
    seen = []
    for wrap in (bare, Monitored):
        model = network(wrap, activation="tanh")
        model.compile("sgd", "mse", **compile)
        monitor = ActivationMonitor(sample_every=3, histograms=not compile)
        model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[monitor])
        seen.append(monitor.recording)
    plain, wrapped = seen
    assert wrapped.steps == plain.steps == [0, 1, 2, 3, 5, 6, 9]
    for one, other in zip(plain, wrapped, strict=True):
        assert other.layers == one.layers
        np.testing.assert_allclose(other.records(), one.records(), rtol=1e-5, atol=1e-7)
        if not compile:
            np.testing.assert_array_equal(
                other.histograms["output"], one.histograms["output"]
            )
    assert hidden_of(model).statistics(training=True)["count"] == 2 * 20 * 16


def test_the_layers_record_is_the_same_with_a_callback():
    """Sampled steps count like all others."""
    x, y = models.data(20)
    found = []
    for monitors in ([], [ActivationMonitor(sample_every=2)]):
        model = network()
        model.compile("sgd", "mse")
        model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=monitors)
        found.append(hidden_of(model).statistics(training=True))
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-12, err_msg=name)


def test_a_tensor_is_never_measured_twice(monkeypatch):
    """In a sampled step the wrapper uses the record of the taps.

    That step measures the input, and each layer's output and the gradient by it; the other
    one measures what the wrapper needs.
    """
    shapes = []
    put = backend.Store.put

    def counting(self, tensor, **options):
        shapes.append(tuple(tensor.shape))
        return put(self, tensor, **options)

    monkeypatch.setattr(backend.Store, "put", counting)
    x, y = models.data(8)
    model = network()
    model.compile("sgd", "mse", run_eagerly=True)
    monitor = ActivationMonitor(sample_every=lambda step: step == 0)
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[monitor])
    forward, back, other = [(8, 8), (8, 16), (8, 1)], [(8, 16), (8, 1)], [(8, 16)]
    assert shapes == forward + back + other
    assert hidden_of(model).statistics(training=True)["count"] == 2 * 8 * 16


def test_the_record_is_complete_where_the_callback_measures_other_layers():
    """`layers` chooses what the callback measures, not what the wrapper does."""
    x, y = models.data(8)
    model = network()
    model.compile("sgd", "mse")
    monitor, _ = models.watch(model, x, y, layers="head", sample_every=1)
    assert monitor.recording[0].names == ("head",)
    assert hidden_of(model).statistics(training=True)["count"] == 8 * 16


def test_a_wrapper_of_another_name_is_one_layer_to_the_callback():
    """The inner layer is logged once, under its own path."""
    x, y = models.data(8)
    inputs = keras.Input((8,))
    watched = Monitored(layers.Dense(4, name="hidden"), name="watched")
    model = keras.Model(inputs, layers.Dense(1, name="head")(watched(inputs)))
    model.compile("sgd", "mse")
    monitor, _ = models.watch(model, x, y)
    assert monitor.recording[0].names[1:] == ("watched/hidden", "head")


def test_an_audit_sees_the_wrapped_layer():
    """The diagnosis is that of the bare network."""
    x, y = models.data()
    found = []
    for wrap in (bare, Monitored):
        model = network(wrap)
        model.compile("sgd", "mse")
        found.append(audit(model, x, y))
    assert [f.code for f in found[1].findings] == [f.code for f in found[0].findings]


# -- errors


def test_only_a_layer_can_be_wrapped():
    """The message says how to measure a tensor."""
    for wrong in (keras.ops.ones(3), "dense", layers.Dense):
        with pytest.raises(TypeError, match="must be a Keras layer. Received.*Identity"):
            Monitored(wrong)


def test_a_monitored_layer_is_not_wrapped_again():
    """It already has a record."""
    with pytest.raises(ValueError, match="a layer that is not monitored yet"):
        Monitored(Monitored(layers.Dense(2)))


def test_there_are_no_statistics_before_the_layer_is_called():
    """A symbolic call does not count; a reset before the first call is not an error."""
    layer = hidden_of(network())
    layer.reset_statistics()
    with pytest.raises(RuntimeError, match="'hidden' must be called before"):
        layer.statistics()

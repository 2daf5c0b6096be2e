"""The parts of a kernel's gain: fan-in (compared with counting), record, initializer."""

import functools

import keras
import numpy as np
import pytest
from keras import initializers, layers

import models
from activation_monitor import ActivationMonitor
from activation_monitor.analysis import records
from activation_monitor.recording import kernels
from activation_monitor.recording.backends import backend


def built(layer, shape):
    """The layer, built for inputs of this shape."""
    layer(np.zeros(shape, np.float32))
    return layer


def products(layer, shape):
    """The number of products per output, on average: the outputs if all inputs and weights
    are 1. They are small integers, so nothing is rounded."""
    built(layer, shape)
    for weight in layer.weights:
        weight.assign(np.zeros(weight.shape))
    kernels.kernel(layer).assign(np.ones(kernels.kernel(layer).shape))
    outputs = np.asarray(layer(np.ones(shape, np.float32)), np.float64)
    return outputs.mean()


def second_moment(layer, shape, repeats=300):
    """The mean square of the outputs for white noise and weights of variance 1, and five
    standard errors of it, from the repeats."""
    rng = np.random.default_rng(1)
    shape = 16, *shape[1:]
    built(layer, shape)
    found = []
    for _ in range(repeats):
        drawn = rng.standard_normal(kernels.kernel(layer).shape)
        kernels.kernel(layer).assign(drawn)
        outputs = layer(rng.standard_normal(shape).astype(np.float32))
        found.append(np.mean(np.square(outputs)))
    return np.mean(found), 5.0 * np.std(found) / np.sqrt(repeats)


# -- fan-in

DENSE = {
    "Dense": (layers.Dense, (3,), {}, (2, 5)),
    "Dense on sequences": (layers.Dense, (3,), {}, (2, 4, 5)),
    "Dense without a bias": (layers.Dense, (3,), {"use_bias": False}, (2, 1)),
    "into heads": (layers.EinsumDense, ("abc,cde->abde", (None, 3, 4)), {}, (2, 5, 6)),
    "out of heads": (layers.EinsumDense, ("abcd,cde->abe", (None, 4)), {}, (2, 5, 6, 3)),
    "a matrix": (layers.EinsumDense, ("ab,bc->ac", 4), {"bias_axes": "c"}, (2, 5)),
    "along the middle": (layers.EinsumDense, ("abc,bd->adc", (4, 6)), {}, (2, 5, 6)),
    "one matrix each": (layers.EinsumDense, ("abc,bcd->abd", (5, 4)), {}, (2, 5, 6)),
    "a scale": (layers.EinsumDense, ("abc,bc->abc", (5, 6)), {}, (2, 5, 6)),
    "ellipsis before": (layers.EinsumDense, ("...x,xy->...y", 4), {}, (2, 3, 5)),
    "ellipsis after": (layers.EinsumDense, ("ab...,bc->ac...", 4), {}, (2, 3, 5)),
}

STEPS = {
    "": {},
    "strides": {"strides": 2},
    "wide strides": {"strides": 3},
    "dilation": {"dilation_rate": 2},
}

KINDS = {
    "Conv1D": (layers.Conv1D, (4, 4), {}, (2, 11, 3)),
    "Conv2D": (layers.Conv2D, (4, (3, 2)), {}, (2, 7, 9, 3)),
    "Conv2D in groups": (layers.Conv2D, (4, (3, 2)), {"groups": 2}, (2, 7, 9, 6)),
    "Conv3D": (layers.Conv3D, (2, (3, 1, 2)), {}, (2, 7, 4, 5, 2)),
    "DepthwiseConv1D": (layers.DepthwiseConv1D, (3,), {}, (2, 9, 5)),
    "DepthwiseConv2D": (
        layers.DepthwiseConv2D,
        (3,),
        {"depth_multiplier": 2},
        (2, 7, 8, 3),
    ),
}

CONVOLUTIONS = {
    f"{kind}, {padding}, {steps}": (
        make,
        arguments,
        {"padding": padding, **own, **more},
        shape,
    )
    for kind, (make, arguments, own, shape) in KINDS.items()
    for padding in ("valid", "same")
    for steps, more in STEPS.items()
} | {
    f"causal, {steps}": (layers.Conv1D, (4, 3), {"padding": "causal", **more}, (2, 11, 3))
    for steps, more in STEPS.items()
}

MORE_CONVOLUTIONS = {
    "no neighbours": (layers.Conv2D, (4, 1), {"padding": "same"}, (2, 3, 3, 2)),
    "wider than the image": (layers.Conv1D, (4, 31), {"padding": "same"}, (2, 11, 3)),
    "longer than the past": (layers.Conv1D, (4, 31), {"padding": "causal"}, (2, 11, 3)),
    "on one pixel": (layers.Conv2D, (4, 3), {"padding": "same"}, (2, 1, 1, 3)),
    "as large as the image": (layers.Conv2D, (4, 3), {}, (2, 3, 3, 2)),
    "strides over taps": (layers.Conv1D, (4, 2), {"strides": 5}, (2, 11, 3)),
}


def transposed(kernel, strides, padding):
    options = {"strides": strides, "padding": padding}
    return layers.Conv2DTranspose, (4, kernel), options, (2, 7, 8, 3)


# The taps of these layers stay inside the image.
TRANSPOSED = {
    f"{kernel} by {strides}, {padding}": transposed(kernel, strides, padding)
    for kernel, strides in ((1, 1), (2, 2), (3, 3), (2, 3))
    for padding in ("valid", "same")
}

COUNTED = DENSE | CONVOLUTIONS | MORE_CONVOLUTIONS | TRANSPOSED


@pytest.mark.parametrize("case", COUNTED)
def test_the_fan_in_is_the_number_of_products(case):
    """It is exact on average over the outputs. Taps outside the image do not count."""
    make, arguments, options, shape = COUNTED[case]
    layer = make(*arguments, **options)
    counted = products(layer, shape)
    np.testing.assert_allclose(kernels.fan_in(layer, shape), counted, rtol=1e-14)
    assert counted > 0


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("kernel", "strides"), [(2, 1), (3, 1), (4, 1), (3, 2), (4, 2)])
def test_the_fan_in_of_a_transposed_convolution_is_right_except_at_borders(
    kernel, strides, padding
):
    """It counts one tap in `strides`. At the borders some of these taps meet no input: at
    most as many of the `length` positions as the kernel is long."""
    length = 50
    layer = layers.Conv1DTranspose(4, kernel, strides=strides, padding=padding)
    counted = products(layer, (2, length, 3))
    np.testing.assert_allclose(
        kernels.fan_in(layer, (2, length, 3)), counted, rtol=kernel / length
    )


@pytest.mark.parametrize(
    "case",
    [
        "Dense",
        "into heads",
        "out of heads",
        "Conv2D, same, ",
        "DepthwiseConv2D, same, strides",
        "causal, dilation",
        "3 by 3, same",
    ],
)
def test_the_fan_in_is_the_gain_of_white_noise(case):
    """For weights and inputs of mean 0, outputs have the variance `fan_in Var(w)`, within
    five standard errors of 300 random kernels."""
    make, arguments, options, shape = COUNTED[case]
    layer = make(*arguments, **options)
    gain, uncertain = second_moment(layer, shape)
    assert uncertain < 0.15 * gain
    np.testing.assert_allclose(kernels.fan_in(layer, shape), gain, rtol=0, atol=uncertain)


@pytest.mark.parametrize("case", ["Conv2D, same, ", "DepthwiseConv2D, same, dilation"])
def test_it_is_the_same_with_the_channels_first(case):
    """The layer is built but not called, because some CPUs lack this convolution."""
    make, arguments, options, shape = COUNTED[case]
    last = built(make(*arguments, **options), shape)
    first = make(*arguments, **options, data_format="channels_first")
    turned = shape[0], shape[-1], *shape[1:-1]
    first.build(turned)
    assert kernels.fan_in(first, turned) == kernels.fan_in(last, shape)


@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
def test_all_taps_count_for_an_image_of_unknown_size(padding):
    """The border is neglected, as for an infinite image."""
    layer = built(layers.Conv1D(4, 5, padding=padding), (2, 11, 3))
    assert kernels.fan_in(layer, (None, None, 3)) == 15.0


def test_the_fan_in_of_a_layer_of_unknown_kind_with_one_matrix():
    """The fan-in is the length of the input if it equals the first axis of the matrix."""

    class Multiplies(layers.Layer):
        kernel_size = 3  # its meaning is unknown

        def build(self, shape):
            self.matrix = self.add_weight(shape=(shape[-1], 4))

        def call(self, inputs):
            return inputs @ self.matrix

    layer = built(Multiplies(), (2, 5))
    assert kernels.kernel(layer) is layer.matrix
    assert kernels.fan_in(layer, (None, 5)) == 5.0
    assert kernels.fan_in(layer, (None, 7)) == 0.0
    assert kernels.fan_in(layer, ()) == 0.0


def quantized(mode, **options):
    """A Dense layer with quantized weights, as after loading or after training."""
    layer = built(layers.Dense(4, **options), (2, 8))
    layer.quantize(mode)
    return layer


WITHOUT = {
    "SeparableConv1D": lambda: built(layers.SeparableConv1D(4, 3), (2, 8, 3)),
    "SeparableConv2D": lambda: built(layers.SeparableConv2D(4, 3), (2, 8, 8, 3)),
    "SimpleRNN": lambda: built(layers.SimpleRNN(4), (2, 3, 8)),
    "LSTM": lambda: built(layers.LSTM(4), (2, 3, 8)),
    "GRU": lambda: built(layers.GRU(4), (2, 3, 8)),
    "Bidirectional": lambda: built(layers.Bidirectional(layers.GRU(4)), (2, 3, 8)),
    "Embedding": lambda: built(layers.Embedding(8, 8), (2, 8)),
    "LayerNormalization": lambda: built(layers.LayerNormalization(), (2, 8)),
    "BatchNormalization": lambda: built(layers.BatchNormalization(), (2, 8)),
    "ReLU": lambda: built(layers.ReLU(), (2, 8)),
    "not built": lambda: layers.Dense(4),
    "int8": lambda: quantized("int8"),
    "int4": lambda: quantized("int4"),
    "int8 beside LoRA": lambda: quantized("int8", lora_rank=2),
}


@pytest.mark.parametrize("case", WITHOUT)
def test_a_layer_without_one_kernel_has_no_fan_in(case):
    """Several kernels, integer kernels and embeddings have no fan-in."""
    layer = WITHOUT[case]()
    assert kernels.kernel(layer) is None
    assert kernels.fan_in(layer, (2, 8)) == 0.0


@pytest.mark.parametrize("cell", [layers.SimpleRNNCell, layers.LSTMCell, layers.GRUCell])
def test_a_cell_has_several_kernels_like_its_layer(cell):
    """A cell has a kernel for the input and one for the state."""
    layer = cell(4)
    layer.build((2, 8))
    assert kernels.kernel(layer) is None


RECURRENT = {
    "SimpleRNN": (lambda: built(layers.SimpleRNN(5), (2, 3, 8)), "", 8, 5),
    "LSTM": (lambda: built(layers.LSTM(5), (2, 3, 8)), "sigmoid", 8, 5),
    "GRU": (
        lambda: built(layers.GRU(5, recurrent_activation="hard_sigmoid"), (2, 3, 8)),
        "hard_sigmoid",
        8,
        5,
    ),
    "RNN": (lambda: built(layers.RNN(layers.GRUCell(5)), (2, 3, 8)), "sigmoid", 8, 5),
    "ConvLSTM2D": (
        lambda: built(layers.ConvLSTM2D(5, 3), (2, 3, 8, 8, 2)),
        "sigmoid",
        9 * 2,
        9 * 5,
    ),
    "half precision": (
        lambda: built(layers.LSTM(5, dtype="mixed_bfloat16"), (2, 3, 8)),
        "sigmoid",
        8,
        5,
    ),
}


@pytest.mark.parametrize("case", RECURRENT)
def test_a_recurrent_layer_has_two_gains(case):
    """`sqrt(fan_in E w^2)` of its kernel and of its recurrent kernel, of all gates."""
    make, gates, inputs, units = RECURRENT[case]
    layer = make()
    kernel, recurrent = (np.float64(w.numpy()) for w in layer.cell.weights[:2])
    found = kernels.recurrent(layer)
    assert found.gates == gates
    expected = np.sqrt(inputs * np.mean(kernel**2)), np.sqrt(units * np.mean(recurrent**2))
    np.testing.assert_allclose(found[1:], expected, rtol=1e-12)


class OwnCell(layers.LSTMCell):
    """May do anything with its kernels."""


@pytest.mark.parametrize(
    "make",
    [
        lambda: built(layers.Dense(4), (2, 8)),
        lambda: built(layers.Bidirectional(layers.GRU(4)), (2, 3, 8)),
        lambda: built(layers.RNN([layers.GRUCell(4), layers.GRUCell(4)]), (2, 3, 8)),
        lambda: built(layers.RNN(OwnCell(4)), (2, 3, 8)),
    ],
)
def test_other_layers_have_none(make):
    """The directions of `Bidirectional` are layers of their own."""
    assert kernels.recurrent(make()) == ("", 0.0, 0.0)


def test_an_orthogonal_kernel_has_gain_1_at_most():
    """As Keras draws it: 1 without gates, sqrt(1 / 4) for the four parts of an LSTM."""
    simple, lstm = (
        kernels.recurrent(built(kind(32), (2, 3, 8))).recurrent_gain
        for kind in (layers.SimpleRNN, layers.LSTM)
    )
    np.testing.assert_allclose([simple, lstm], [1.0, 0.5], rtol=1e-5)


# -- the record


@pytest.mark.parametrize("std", [1e-40, 1e-33, 1e-20, 0.05, 1e20])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (functools.partial(layers.Dense, 6), (2, 50)),
        (functools.partial(layers.Conv2D, 6, 3), (2, 8, 8, 5)),
        (functools.partial(layers.Conv3D, 4, 3), (2, 3, 3, 3, 2)),
        (functools.partial(layers.EinsumDense, "abc,cde->abde", (None, 3, 4)), (2, 5, 16)),
    ],
)
def test_the_record_is_that_of_float64_numpy(make, shape, std):
    """Kernels of any rank, and with subnormal numbers, which TensorFlow flushes to zero."""
    layer = built(make(), shape)
    drawn = np.random.default_rng(0).standard_normal(layer.kernel.shape) * std
    drawn.flat[:3] = 0.0
    layer.kernel.assign(drawn)
    assert_record(layer)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_record_of_a_broken_kernel_is_that_of_its_finite_numbers(value):
    """The others are counted and left out."""
    layer = built(layers.Dense(6), (2, 50))
    drawn = np.random.default_rng(0).standard_normal((50, 6))
    drawn[3, 4] = value
    layer.kernel.assign(drawn)
    assert_record(layer)
    assert records.field(record_of(layer), "nonfinite") == 1


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16", "mixed_bfloat16"])
def test_the_record_is_right_in_other_dtypes(dtype):
    """The record is that of the numbers rounded to the dtype."""
    layer = built(layers.Dense(6, dtype=keras.DTypePolicy(dtype)), (2, 50))
    assert_record(layer)


def record_of(layer):
    return backend.measure_once(kernels.kernel(layer), exact=True)


def assert_record(layer):
    """All fields equal those of float64 numpy, the mean relative to the rms."""
    numbers = np.array(layer.kernel.numpy()).astype(np.float64)
    expected, found = records.measure(numbers), record_of(layer)
    rms = np.sqrt(records.field(expected, "second_moment"))
    assert rms > 0
    for name in records.FIELD_NAMES:
        np.testing.assert_allclose(
            records.field(found, name),
            records.field(expected, name),
            rtol=1e-6,
            atol=1e-6 * rms if name == "mean" else 0.0,
            err_msg=name,
        )


# -- the initializer


def of_mine(shape, dtype=None):
    """An initializer that is a plain function."""
    return keras.ops.ones(shape, dtype)


INITIALIZERS = {
    "GlorotUniform()": "glorot_uniform",
    "HeNormal()": "he_normal",
    "HeNormal() ": initializers.HeNormal(seed=3),
    "LecunUniform()": initializers.LecunUniform(seed=keras.random.SeedGenerator(3)),
    "RandomNormal(stddev=0.05)": initializers.RandomNormal(),
    "RandomNormal(stddev=1.5)": initializers.RandomNormal(stddev=1.5, seed=1),
    "RandomNormal(mean=0.5, stddev=0.05)": initializers.RandomNormal(0.5),
    "TruncatedNormal(stddev=0.02)": initializers.TruncatedNormal(stddev=0.02),
    "RandomUniform(minval=-0.05, maxval=0.05)": initializers.RandomUniform(),
    "VarianceScaling(scale=2.0, mode='fan_out', distribution='uniform')": (
        initializers.VarianceScaling(2.0, "fan_out", "uniform")
    ),
    "Orthogonal(gain=1.0)": "orthogonal",
    "Constant(value=0.1)": initializers.Constant(0.1),
    "Zeros()": "zeros",
}


@pytest.mark.parametrize("text", INITIALIZERS)
def test_an_initializer_is_written_as_keras_code(text):
    """The code contains the relevant arguments and creates an equal initializer."""
    for layer in (
        layers.Dense(3, kernel_initializer=INITIALIZERS[text]),
        layers.Conv2D(3, 3, kernel_initializer=INITIALIZERS[text]),
        layers.EinsumDense("ab,bc->ac", 3, kernel_initializer=INITIALIZERS[text]),
        layers.DepthwiseConv2D(3, depthwise_initializer=INITIALIZERS[text]),
    ):
        written = kernels.initializer(layer)
        assert written == text.strip()
        again = eval(written, vars(initializers))  # noqa: S307
        assert kernels.initializer(layers.Dense(3, kernel_initializer=again)) == written


@pytest.mark.parametrize(
    ("initializer", "name"),
    [(of_mine, "of_mine"), (functools.partial(of_mine), "partial")],
)
def test_an_initializer_that_is_a_plain_function_has_a_name(initializer, name):
    """The name is its own name or that of its type."""
    layer = layers.Dense(3, kernel_initializer=initializer)
    assert kernels.initializer(layer) == name


@pytest.mark.parametrize(
    "layer", [layers.ReLU(), layers.LayerNormalization(), layers.Embedding(3, 4)]
)
def test_a_layer_without_a_kernel_initializer_has_an_empty_one(layer):
    """The layer has no kernel initializer."""
    assert kernels.initializer(layer) == ""


# -- in a training step


def test_a_monitored_step_records_the_kernels_before_it():
    """Weight layers have a fan-in, an initializer and a record."""
    model = models.image_network()
    before = {layer.name: layer.get_weights() for layer in model.layers}
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    monitor, warnings = models.watch(model, models.IMAGES, models.LABELS, batch_size=10)
    assert warnings == []
    first = monitor.recording[0]
    found = {layer.name: layer for layer in first.layers}
    expected = {
        "conv": (27.0, "GlorotUniform()"),
        "branch": (8 * (3 * 6 - 2) ** 2 / 6**2, "GlorotUniform()"),
        "hidden": (6 * 6 * 8, "GlorotUniform()"),
        "head": (16, "GlorotUniform()"),
        "norm": (0.0, ""),
        "flatten": (0.0, ""),
    }
    for name, drawn in expected.items():
        assert (found[name].fan_in, found[name].initializer) == pytest.approx(drawn)
    for name, record in zip(first.names, first.quantities["weight"], strict=True):
        if found[name].kind == "weight":
            # A kernel counts as one unit, and its zeros are not counted.
            kernel = records.measure(before[name][0].reshape(-1, 1))
            records.field(kernel, "counted")[...] = 0
            np.testing.assert_allclose(record, kernel, rtol=1e-5, atol=1e-8)
        else:
            np.testing.assert_array_equal(record, records.empty())


@pytest.mark.parametrize("settings", [{}, {"jit_compile": True}, {"run_eagerly": True}])
def test_the_kernels_of_each_sampled_step_are_those_before_it(settings):
    """They are not the kernels after the step. A callback reads them just before it."""
    model = models.perceptron(2)
    seen = []
    see = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(
            [np.sqrt(np.mean(layer.get_weights()[0] ** 2.0)) for layer in model.layers]
        )
    )
    model.compile("sgd", "mse", **settings)
    x, y = models.data()
    monitor = ActivationMonitor(sample_every=1)
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[see, monitor])
    assert len({rms[0] for rms in seen}) == len(monitor.recording) > 2
    for snapshot, expected in zip(monitor.recording, seen, strict=True):
        rms = snapshot.statistic("rms", of="weight")
        np.testing.assert_allclose(rms[~np.isnan(rms)], expected, rtol=1e-6)


def test_with_several_steps_in_one_execution_the_kernels_are_those_before_the_first():
    """Records of outputs are merged over the steps, records of weights are not."""
    model = models.perceptron(2)
    expected = [np.sqrt(np.mean(layer.get_weights()[0] ** 2.0)) for layer in model.layers]
    model.compile("sgd", "mse", steps_per_execution=3)
    x, y = models.data()
    monitor, _ = models.watch(model, x, y)
    first = monitor.recording[0]
    rms = first.statistic("rms", of="weight")
    np.testing.assert_allclose(rms[~np.isnan(rms)], expected, rtol=1e-6)
    sizes = [layer.get_weights()[0].size for layer in model.layers]
    np.testing.assert_array_equal(first.field("count", of="weight")[~np.isnan(rms)], sizes)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_kernel_that_cannot_be_read_does_not_stop_training(jit_compile):
    """A warning says why the layer is left out."""

    class Secretive(layers.Dense):
        @property
        def kernel(self):
            raise RuntimeError("a secret")

        def call(self, inputs):
            return inputs @ self._kernel

    x, y = models.data()
    model = keras.Sequential([keras.Input((8,)), Secretive(3, name="it"), layers.Dense(1)])
    monitor, warned = models.watch(model, x, y, compile={"jit_compile": jit_compile})
    assert warned and all("RuntimeError: a secret" in one for one in warned)
    assert monitor.recording.steps == [0, 1, 2]

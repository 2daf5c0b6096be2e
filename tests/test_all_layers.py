"""Every layer that Keras has trains under a monitor as it does without, and is measured.

One row of `CASES` per layer. The rows of a group become the branches of one model, each
with a head and a loss of its own, so that no branch hides what happens in another.
"""

import inspect
import re
import warnings
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from activation_monitor import ActivationMonitor

SAMPLES = 8


def _normal(*shape):
    return np.random.default_rng(len(shape)).standard_normal((SAMPLES, *shape)).astype("f4")


ROWS, OTHER_ROWS = _normal(6), 2.0 * _normal(6)
SERIES, SHORT_SERIES = _normal(5, 4), _normal(3, 4)
MAPS = _normal(6, 6, 4)
VOLUMES = _normal(4, 4, 4, 2)
MOVIES_1D, MOVIES_2D, MOVIES_3D = (
    _normal(3, 5, 2),
    _normal(3, 4, 4, 2),
    _normal(2, 3, 3, 3, 2),
)
SOUND = _normal(64)
PICTURES = np.random.default_rng(0).uniform(0, 255, (SAMPLES, 8, 8, 3)).astype("f4")
TOKENS = np.random.default_rng(0).integers(0, 7, (SAMPLES, 5))
TOKENS[:, 3:] *= np.arange(SAMPLES)[:, np.newaxis] % 2  # some end with padding
OTHER_TOKENS = TOKENS[:, ::-1].copy()
COLOURS = np.array([["red", "green"], ["blue", "red"]] * (SAMPLES // 2))
SENTENCES = np.array(["red is a colour", "green", "blue is one", "no colour"] * 2)
LABELS = np.eye(4, dtype="f4")[np.arange(SAMPLES) % 4]
BOXES = np.random.default_rng(0).uniform(0, 4, (SAMPLES, 2, 4)).astype("f4") + [0, 0, 4, 4]
CLASSES = np.ones((SAMPLES, 2), "f4")


class Case(NamedTuple):
    """A layer, what it is called with, and where its output is measured."""

    make: Callable[[], keras.Layer]
    inputs: tuple
    records: str | None  # which are its output, by what follows the layer's name
    left_out: str  # why nothing of it is measured
    differs: str  # why a second call of the layer puts out something else


INTEGERS = "its outputs are integers"
DRAWN = "it draws its operations with Python's `random` when it is traced"
OWN = r"(:(?!input).*)?"  # the layer's own outputs


def case(make, *inputs, records=OWN, left_out="", differs=""):
    """A row of `CASES`; the layer is called as `layer(*inputs)`."""
    return Case(make, inputs, records, left_out, differs)


def pair():
    """Two inputs of no other layer: TensorFlow finds sums of the same two tensors and
    adds up their gradients in an order that changes from one tracing to the next."""
    return [ROWS.copy(), OTHER_ROWS.copy()]


CASES = {
    "dense": [
        case(lambda: layers.Dense(3, "relu"), ROWS),
        case(lambda: layers.EinsumDense("abc,cd->abd", (5, 3), bias_axes="d"), SERIES),
        case(lambda: layers.PReLU(), ROWS),
        case(lambda: layers.Activation("gelu"), ROWS),
        case(lambda: layers.ReLU(), ROWS),
        case(lambda: layers.LeakyReLU(), ROWS),
        case(lambda: layers.ELU(), ROWS),
        case(lambda: layers.Softmax(), ROWS),
        case(lambda: layers.Identity(), ROWS),
        case(lambda: layers.Lambda(lambda x: 2.0 * x, output_shape=(6,)), ROWS),
        case(lambda: layers.ActivityRegularization(l1=0.1, l2=0.1), ROWS),
    ],
    "convolution": [
        case(lambda: layers.Conv1D(3, 2), SERIES),
        case(lambda: layers.Conv2D(3, 3, 2, "same", activation="relu"), MAPS),
        case(lambda: layers.Conv2D(4, 2, groups=2, dilation_rate=2), MAPS),
        case(lambda: layers.Conv3D(2, 2), VOLUMES),
        case(lambda: layers.Conv1DTranspose(3, 2), SERIES),
        case(lambda: layers.Conv2DTranspose(3, 2, 2), MAPS),
        case(lambda: layers.Conv3DTranspose(2, 2), VOLUMES),
        case(lambda: layers.DepthwiseConv1D(2), SERIES),
        case(lambda: layers.DepthwiseConv2D(2, depth_multiplier=2), MAPS),
        case(lambda: layers.SeparableConv1D(3, 2), SERIES),
        case(lambda: layers.SeparableConv2D(3, 2), MAPS),
    ],
    "recurrent": [
        case(lambda: layers.SimpleRNN(3), SERIES),
        case(lambda: layers.LSTM(3, return_sequences=True, return_state=True), SERIES),
        case(lambda: layers.LSTM(3, dropout=0.2, recurrent_dropout=0.2), SERIES),
        case(lambda: layers.GRU(3, return_sequences=True, go_backwards=True), SERIES),
        case(lambda: layers.GRU(3, unroll=True, reset_after=False), SERIES),
        case(lambda: layers.Bidirectional(layers.LSTM(2)), SERIES, records="/.*_lstm.*"),
        case(
            lambda: layers.Bidirectional(layers.GRU(2, return_sequences=True), "sum"),
            SERIES,
            records=None,  # of either direction, not of their sum
        ),
        case(
            lambda: layers.TimeDistributed(layers.Dense(3)),
            SERIES,
            records=r"/dense/\d",
        ),
    ],
    "cells": [
        case(lambda: layers.RNN(layers.LSTMCell(2), return_state=True), SERIES),
        case(lambda: layers.RNN([layers.GRUCell(2), layers.SimpleRNNCell(3)]), SERIES),
        case(
            lambda: layers.RNN(
                layers.StackedRNNCells([layers.LSTMCell(2), layers.LSTMCell(3)]),
                return_sequences=True,
            ),
            SERIES,
        ),
        case(lambda: layers.SimpleRNNCell(6), ROWS, OTHER_ROWS),
        case(lambda: layers.GRUCell(6), ROWS, OTHER_ROWS),
        case(lambda: layers.LSTMCell(6), ROWS, [OTHER_ROWS, OTHER_ROWS]),
        case(
            lambda: layers.StackedRNNCells(
                [layers.GRUCell(6, name="low"), layers.GRUCell(6, name="high")]
            ),
            ROWS,
            [OTHER_ROWS, OTHER_ROWS],
            records="/low:1.0|/high:.*",
        ),
    ],
    "recurrent convolution": [
        case(lambda: layers.ConvLSTM1D(2, 2), MOVIES_1D),
        case(lambda: layers.ConvLSTM2D(2, 2, return_sequences=True), MOVIES_2D),
        case(lambda: layers.ConvLSTM3D(1, 2), MOVIES_3D),
    ],
    "attention": [
        case(lambda: layers.Attention(use_scale=True), [SERIES, SHORT_SERIES]),
        case(lambda: layers.AdditiveAttention(dropout=0.1), [SERIES, SHORT_SERIES]),
        case(
            lambda: layers.MultiHeadAttention(2, 3),
            SERIES,
            SHORT_SERIES,
            records="/attention_output",
        ),
        case(
            lambda: layers.MultiHeadAttention(2, 2, dropout=0.1, flash_attention=False),
            SERIES,
            SERIES,
            records="/attention_output",
        ),
        case(
            lambda: layers.GroupQueryAttention(3, 4, 2),
            SERIES,
            SERIES,
            records="/attention_output",
        ),
    ],
    "embedding": [
        case(lambda: layers.Embedding(7, 3), TOKENS),
        case(lambda: layers.ReversibleEmbedding(7, 3), TOKENS),
        case(lambda: layers.Masking(), SERIES),
    ],
    "normalization": [
        case(lambda: layers.BatchNormalization(), MAPS),
        case(lambda: layers.BatchNormalization(axis=1), SERIES),
        case(lambda: layers.LayerNormalization(), SERIES),
        case(lambda: layers.RMSNormalization(), SERIES),
        case(lambda: layers.GroupNormalization(2), MAPS),
        case(lambda: layers.UnitNormalization(), ROWS),
        case(lambda: layers.SpectralNormalization(layers.Dense(3)), ROWS, records="/dense"),
    ],
    "regularization": [
        case(lambda: layers.Dropout(0.3), ROWS),
        case(lambda: layers.AlphaDropout(0.3), ROWS),
        case(lambda: layers.GaussianDropout(0.3), ROWS),
        case(lambda: layers.GaussianNoise(0.3), ROWS),
        case(lambda: layers.SpatialDropout1D(0.3), SERIES),
        case(lambda: layers.SpatialDropout2D(0.3), MAPS),
        case(lambda: layers.SpatialDropout3D(0.3), VOLUMES),
    ],
    "merging": [
        case(lambda: layers.Add(), pair()),
        case(lambda: layers.Subtract(), pair()),
        case(lambda: layers.Multiply(), pair()),
        case(lambda: layers.Average(), pair()),
        case(lambda: layers.Maximum(), pair()),
        case(lambda: layers.Minimum(), pair()),
        case(lambda: layers.Concatenate(), pair()),
        case(lambda: layers.Dot(1), pair()),
    ],
    "pooling": [
        case(lambda: layers.MaxPooling1D(), SERIES),
        case(lambda: layers.MaxPooling2D(), MAPS),
        case(lambda: layers.MaxPooling3D(), VOLUMES),
        case(lambda: layers.AveragePooling1D(2), SERIES),
        case(lambda: layers.AveragePooling2D(2), MAPS),
        case(lambda: layers.AveragePooling3D(2), VOLUMES),
        case(lambda: layers.GlobalMaxPooling1D(), SERIES),
        case(lambda: layers.GlobalMaxPooling2D(), MAPS),
        case(lambda: layers.GlobalMaxPooling3D(), VOLUMES),
        case(lambda: layers.GlobalAveragePooling1D(), SERIES),
        case(lambda: layers.GlobalAveragePooling2D(), MAPS),
        case(lambda: layers.GlobalAveragePooling3D(), VOLUMES),
        case(lambda: layers.AdaptiveMaxPooling1D(2), SERIES),
        case(lambda: layers.AdaptiveMaxPooling2D(2), MAPS),
        case(lambda: layers.AdaptiveMaxPooling3D(2), VOLUMES),
        case(lambda: layers.AdaptiveAveragePooling1D(2), SERIES),
        case(lambda: layers.AdaptiveAveragePooling2D(2), MAPS),
        case(lambda: layers.AdaptiveAveragePooling3D(2), VOLUMES),
    ],
    "reshaping": [
        case(lambda: layers.Flatten(), SERIES),
        case(lambda: layers.Permute((2, 1)), SERIES),
        case(lambda: layers.Reshape((2, 10)), SERIES),
        case(lambda: layers.RepeatVector(2), ROWS),
        case(lambda: layers.Cropping1D(1), SERIES),
        case(lambda: layers.Cropping2D(1), MAPS),
        case(lambda: layers.Cropping3D(1), VOLUMES),
        case(lambda: layers.UpSampling1D(), SERIES),
        case(lambda: layers.UpSampling2D(interpolation="bilinear"), MAPS),
        case(lambda: layers.UpSampling3D(), VOLUMES),
        case(lambda: layers.ZeroPadding1D(), SERIES),
        case(lambda: layers.ZeroPadding2D(), MAPS),
        case(lambda: layers.ZeroPadding3D(), VOLUMES),
    ],
    "features": [
        case(lambda: layers.Normalization(mean=1.0, variance=4.0), ROWS),
        case(lambda: layers.Rescaling(0.5, 1.0), ROWS),
        case(lambda: layers.CategoryEncoding(7, "multi_hot"), TOKENS),
        case(
            lambda: layers.Discretization([-1.0, 0.0, 1.0], output_mode="int"),
            ROWS,
            left_out=INTEGERS,
        ),
        case(lambda: layers.Discretization([-1.0, 1.0], output_mode="multi_hot"), ROWS),
        case(lambda: layers.Hashing(5), TOKENS, left_out=INTEGERS),
        case(lambda: layers.Hashing(5, output_mode="multi_hot"), TOKENS),
        case(
            lambda: layers.HashedCrossing(5, output_mode="one_hot"),
            (TOKENS[:, :1].copy(), OTHER_TOKENS[:, :1].copy()),
        ),
        case(
            lambda: layers.StringLookup(vocabulary=["red", "blue"]),
            COLOURS,
            left_out=INTEGERS,
        ),
        case(
            lambda: layers.StringLookup(
                vocabulary=["red", "blue"], output_mode="multi_hot"
            ),
            COLOURS,
            left_out=INTEGERS,
        ),
        case(lambda: layers.IntegerLookup(vocabulary=[1, 2, 4]), TOKENS, left_out=INTEGERS),
        case(
            lambda: layers.IntegerLookup(vocabulary=[1, 2, 4], output_mode="count"),
            TOKENS,
            left_out=INTEGERS,
        ),
        case(
            lambda: layers.TextVectorization(
                vocabulary=["red", "colour"], output_sequence_length=4
            ),
            SENTENCES,
            left_out=INTEGERS,
        ),
        case(
            lambda: layers.TextVectorization(
                vocabulary=["red", "colour"],
                output_mode="tf_idf",
                idf_weights=[0.5, 2.0],
            ),
            SENTENCES,
            records="/string_lookup.*",
        ),
        case(lambda: layers.MelSpectrogram(16, 8, 16, num_mel_bins=4), SOUND),
        case(lambda: layers.STFTSpectrogram("log", 16, 8, 16), SOUND[..., np.newaxis]),
    ],
    "pictures": [
        case(lambda: layers.CenterCrop(4, 4), PICTURES),
        case(lambda: layers.Resizing(5, 5), PICTURES),
        case(lambda: layers.AutoContrast(), PICTURES),
        case(lambda: layers.Equalization(), PICTURES),
        case(lambda: layers.ContrastLimitedAdaptiveHistogramEqualization(), PICTURES),
        case(lambda: layers.Solarization(), PICTURES),
        case(
            lambda: layers.Pipeline([layers.Rescaling(0.1), layers.RandomFlip(seed=1)]),
            PICTURES,
            records="/random_flip.*",
        ),
    ],
    "augmentation of places": [
        case(lambda: layers.RandomCrop(4, 4, seed=1), PICTURES),
        case(lambda: layers.RandomFlip(seed=1), PICTURES),
        case(lambda: layers.RandomTranslation(0.2, 0.2, seed=1), PICTURES),
        case(lambda: layers.RandomRotation(0.2, seed=1), PICTURES),
        case(lambda: layers.RandomZoom(0.2, seed=1), PICTURES),
        case(lambda: layers.RandomShear(0.2, 0.2, seed=1), PICTURES),
        case(lambda: layers.RandomPerspective(seed=1), PICTURES),
        case(lambda: layers.RandomElasticTransform(seed=1), PICTURES),
        case(lambda: layers.RandomErasing(seed=1), PICTURES),
        case(lambda: layers.RandomGaussianBlur(seed=1), PICTURES),
    ],
    "augmentation of colours": [
        case(lambda: layers.RandomBrightness(0.2, seed=1), PICTURES),
        case(lambda: layers.RandomContrast(0.2, seed=1), PICTURES),
        case(lambda: layers.RandomSaturation(0.2, seed=1), PICTURES),
        case(lambda: layers.RandomHue(0.2, seed=1), PICTURES),
        case(lambda: layers.RandomSharpness(0.2, seed=1), PICTURES),
        case(lambda: layers.RandomGrayscale(seed=1), PICTURES),
        case(lambda: layers.RandomInvert(seed=1), PICTURES),
        case(lambda: layers.RandomPosterization(4, seed=1), PICTURES),
        case(lambda: layers.RandomColorDegeneration(0.2, seed=1), PICTURES),
        case(
            lambda: layers.RandomColorJitter((0, 255), 0.2, 0.2, 0.2, 0.2, seed=1), PICTURES
        ),
    ],
    "augmentation of several kinds": [
        case(
            lambda: layers.AugMix(num_chains=1, chain_depth=1, seed=1),
            PICTURES,
            differs=DRAWN,
        ),
        case(lambda: layers.RandAugment(num_ops=1, seed=1), PICTURES, differs=DRAWN),
        case(lambda: layers.MixUp(seed=1), {"images": PICTURES, "labels": LABELS}),
        case(lambda: layers.CutMix(seed=1), {"images": PICTURES, "labels": LABELS}),
    ],
}


def network(cases):
    """The branches and, sharing all layers, a model of the layers' own outputs."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    arrays, entrances = {}, {}

    def entrance(array):
        """A float input passes a Dense layer first, so that gradients go back through."""
        if id(array) not in entrances:
            name = f"x{len(arrays)}"
            dtype = "string" if array.dtype.kind == "U" else array.dtype.name
            arrays[name] = array
            source = keras.Input(array.shape[1:], dtype=dtype, name=name)
            inputs[name] = source
            entrances[id(array)] = source
            if array is not PICTURES and dtype == "float32":
                stem = layers.Dense(array.shape[-1], name=f"stem_{name}")
                entrances[id(array)] = stem(source)
        return entrances[id(array)]

    inputs, outputs, heads = {}, {}, {}
    for each in cases:
        layer = each.make()
        arguments = keras.tree.map_structure(entrance, each.inputs)
        outputs[layer.name] = layer(*arguments)
        heads[layer.name] = head(layer.name, outputs[layer.name])
    return keras.Model(inputs, heads), keras.Model(inputs, outputs), arrays


def head(name, outputs):
    """A prediction of one number from all that a layer puts out."""
    flat = [
        ops.reshape(ops.cast(part, "float32"), (-1, int(np.prod(part.shape[1:]))))
        for part in keras.tree.flatten(outputs)
    ]
    whole = flat[0] if len(flat) == 1 else ops.concatenate(flat, axis=-1)
    return layers.Dense(1, name=f"{name}_head")(whole)


def trained(cases, callbacks):
    """All that training leaves behind: losses, variables, predictions."""
    model, _, arrays = network(cases)
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), "mse", jit_compile=False)
    targets = {name: np.ones((SAMPLES, 1), "f4") for name in model.output}
    data = tf.data.Dataset.from_tensors((arrays, targets))
    history = model.fit(
        data, epochs=2, shuffle=False, verbose=0, callbacks=callbacks
    ).history
    return history, model, model.predict(data, verbose=0)


def assert_same(monitored, plain):
    """Bit for bit: losses, variables (with optimizer and random state), predictions."""
    for (history, model, outputs), (wanted, other, expected) in [(monitored, plain)]:
        assert history == wanted
        assert np.isfinite(list(history.values())).all()
        ours, theirs = (
            {v.path: v.numpy() for v in (*m.variables, *m.optimizer.variables)}
            for m in (model, other)
        )
        assert ours.keys() == theirs.keys()
        for path in theirs:
            np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)
        for path, values in keras.tree.flatten_with_path(expected):
            mine = dict(keras.tree.flatten_with_path(outputs))[path]
            np.testing.assert_array_equal(mine, values, err_msg=str(path))


def pooled(snapshot, chosen):
    """Count, mean and std of several records taken as one, in float64 numpy."""
    count, mean, std = (
        f(name)[chosen]
        for f, name in (
            (snapshot.field, "count"),
            (snapshot.statistic, "mean"),
            (snapshot.statistic, "std"),
        )
    )
    total, middle = count.sum(), np.average(mean, weights=count)
    return total, middle, np.sqrt(np.average(std**2 + (mean - middle) ** 2, weights=count))


@pytest.mark.parametrize("group", CASES)
def test_every_layer_trains_as_without_a_monitor_and_is_measured(group):
    """Bit for bit; and what is measured is what an identical layer puts out."""
    cases = CASES[group]
    plain = trained(cases, [])
    monitor = ActivationMonitor(sample_every=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monitored = trained(cases, [monitor])
    assert_same(monitored, plain)
    assert monitor.history.steps == [0, 1]
    snapshot = monitor.history[0]
    _, twin, arrays = network(cases)
    outputs = twin({k: tf.constant(v) for k, v in arrays.items()}, training=True)
    for each, (layer, output) in zip(cases, outputs.items(), strict=True):
        of_layer = re.compile(rf"{layer}(?=[/:]|$)(?!:input)")
        found = [name for name in snapshot.names if of_layer.match(name)]
        assert bool(found) != bool(each.left_out), layer
        if not found or each.records is None or each.differs:
            continue
        own = re.compile(f"{layer}({each.records})")
        chosen = [i for i, name in enumerate(snapshot.names) if own.fullmatch(name)]
        values = np.concatenate(
            [np.float64(part).ravel() for part in keras.tree.flatten(output)]
        )
        np.testing.assert_allclose(
            pooled(snapshot, chosen),
            (values.size, values.mean(), values.std()),
            rtol=1e-5,
            atol=1e-6,
            err_msg=layer,
        )


LEFT_OUT = {
    "Layer": "abstract",
    "Wrapper": "abstract",
    "InputLayer": "it is no computation; what it lets in is measured as `:input`",
    "JaxLayer": "needs JAX",
    "FlaxLayer": "needs JAX and Flax",
    "TorchModuleWrapper": "needs PyTorch, and Keras on PyTorch",
    "MaxNumBoundingBoxes": "has a test of its own",
    "TFSMLayer": "has a test of its own",
}


def test_no_layer_of_keras_is_forgotten():
    """Each exported class has a row, or stands with a reason among those left out."""
    exported = {
        member.__name__
        for member in vars(layers).values()
        if inspect.isclass(member) and issubclass(member, keras.Layer)
    }
    rows = {type(each.make()).__name__ for group in CASES.values() for each in group}
    assert exported - rows - set(LEFT_OUT) == set()
    assert set(LEFT_OUT) <= exported - rows

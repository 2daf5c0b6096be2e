"""Every layer of Keras, and models of every kind: what the tests of all layers train.

One row of `CASES` per layer. The rows of a group become the branches of one model, each
with a head and a loss of its own, so that no branch hides what happens in another.
"""

import functools
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

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


class Case(NamedTuple):
    """A layer, what it is called with, and where its output is measured."""

    make: Callable[[], keras.Layer]
    inputs: tuple
    records: str | None  # which are its output, by what follows the layer's name
    left_out: str  # why nothing of it is measured
    differs: str  # why a second call of the layer has another output


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
    """The branches as one model; a model of the layers' outputs with the same layers; the
    arrays by name of the input."""
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
                # No bias: a sum of sums is another matter, see below.
                width, name = array.shape[-1], f"stem_{name}"
                stem = layers.Dense(width, use_bias=False, name=name)
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
    """A prediction of one number from all outputs of a layer."""
    flat = [
        ops.reshape(ops.cast(part, "float32"), (-1, int(np.prod(part.shape[1:]))))
        for part in keras.tree.flatten(outputs)
    ]
    whole = flat[0] if len(flat) == 1 else ops.concatenate(flat, axis=-1)
    return layers.Dense(1, name=f"{name}_head")(whole)


# -- models


def functional(*stack, shape=(6,), batch_size=None, **options):
    """A chain of layers as a model named `net`."""
    source = keras.Input(shape, batch_size=batch_size, **options)
    tensor = source
    for layer in stack:
        tensor = layer(tensor)
    return keras.Model(source, tensor, name="net")


class Subclassed(keras.Model):
    """A model from its layers and its call; its first call builds it."""

    def __init__(self, call, **parts):
        super().__init__(name="net")
        self.parts = parts
        self._does = call
        for name, layer in parts.items():
            setattr(self, name, layer)

    def call(self, x, training=False):
        return self._does(self, x)


class Nested(layers.Layer):
    """Nested outputs, one of which has integers."""

    def call(self, x):
        return {"a": 2.0 * x, "b": [x + 1.0, ops.cast(x, "int32")]}


def stateful():
    stack = layers.LSTM(3, stateful=True, name="lstm"), layers.Dense(1, name="head")
    return functional(*stack, shape=(5, 4), batch_size=SAMPLES), SERIES


def padded_tokens():
    return functional(
        layers.Embedding(7, 3, mask_zero=True, name="embedding"),
        layers.LSTM(3, return_sequences=True, name="lstm"),
        layers.Dropout(0.1, name="dropout"),
        layers.Bidirectional(layers.GRU(2), name="both"),
        layers.Dense(1, name="head"),
        shape=(5,),
        dtype="int64",
    ), TOKENS


def mask_through_an_identity():
    return functional(
        layers.Embedding(7, 3, mask_zero=True, name="embedding"),
        layers.Identity(name="same"),
        layers.SimpleRNN(2, name="recurrent"),
        layers.Dense(1, name="head"),
        shape=(5,),
        dtype="int64",
    ), TOKENS


PADDED = SERIES.copy()
PADDED[::2, 3:] = 0.0


def padded_series():
    source = keras.Input((5, 4))
    masked = layers.Masking(name="masking")(source)
    attended = layers.MultiHeadAttention(2, 2, name="attention")(masked, masked)
    outputs = layers.TimeDistributed(layers.Dense(1), name="each")(attended)
    outputs = layers.GlobalAveragePooling1D(name="pool")(outputs)
    return keras.Model(source, outputs, name="net"), PADDED


def sparse():
    few = tf.sparse.from_dense(np.maximum(ROWS, 0.0))
    stack = layers.Dense(3, "relu", name="dense"), layers.Dense(1, name="head")
    return functional(*stack, sparse=True), few


def ragged_tokens():
    tokens = tf.ragged.constant([[1, 2], [3], [1, 2, 3], [4], [5, 6], [1], [2], [3, 3]])
    return functional(
        layers.Embedding(7, 3, name="odd"),
        layers.Lambda(lambda x: x.to_tensor() if hasattr(x, "to_tensor") else x),
        layers.GlobalAveragePooling1D(name="pool"),
        layers.Dense(1, name="head"),
        shape=(None,),
        dtype="int32",
        ragged=True,
    ), tokens


def ragged_text():
    return functional(
        layers.TextVectorization(vocabulary=["red", "colour"], ragged=True),
        layers.CategoryEncoding(4, "multi_hot", name="encoding"),
        layers.Dense(1, name="head"),
        shape=(),
        dtype="string",
    ), SENTENCES


def nested_outputs():
    def call(net, x):
        parts = net.nested(x)
        return net.head(ops.concatenate([parts["a"], parts["b"][0]], axis=-1))

    parts = {"nested": Nested(name="nested"), "head": layers.Dense(1, name="head")}
    return Subclassed(call, **parts), ROWS


def several_inputs_and_outputs():
    first, second = keras.Input((6,), name="first"), keras.Input((5, 4), name="second")
    joined = layers.Concatenate(name="join")([first, layers.Flatten()(second)])
    outputs = {"one": layers.Dense(1, name="one")(joined)}
    outputs["two"] = layers.Dense(1, name="two")(layers.Dense(3)(joined))
    return keras.Model([first, second], outputs, name="net"), (ROWS, SERIES)


def shared_submodel():
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(6, "tanh", name="inner")], name="twice"
    )
    return functional(inner, inner, layers.Dense(1, name="head")), ROWS


def built_lazily():
    return Subclassed(
        lambda net, x: net.head(net.norm(net.first(x))),
        first=layers.Dense(3, name="first"),
        norm=layers.BatchNormalization(name="norm"),
        head=layers.Dense(1, name="head"),
    ), ROWS


def equalization():
    """A functional model cannot hold it: the layer passes the symbolic input on."""
    return Subclassed(
        lambda net, x: net.head(net.flatten(net.equal(x))),
        equal=layers.Equalization(name="equal"),
        flatten=layers.Flatten(),
        head=layers.Dense(1, name="head"),
    ), PICTURES / 255.0


def boxes():
    boxes = np.random.default_rng(0).uniform(0, 4, (SAMPLES, 2, 4)).astype("f4")
    boxes[..., 2:] += 4.0

    def call(net, x):
        boxes = {"boxes": x["boxes"], "labels": x["labels"]}
        kept = net.kept({"images": x["pictures"], "bounding_boxes": boxes})
        return net.head(net.flatten(kept["bounding_boxes"]["boxes"]))

    return Subclassed(
        call,
        kept=layers.MaxNumBoundingBoxes(3, bounding_box_format="xyxy", name="kept"),
        flatten=layers.Flatten(),
        head=layers.Dense(1, name="head"),
    ), {"pictures": PICTURES, "boxes": boxes, "labels": np.ones((SAMPLES, 2), "f4")}


def saved_model():
    class Doubling(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 6))])
        def serve(self, x):
            return 2.0 * x

    with tempfile.TemporaryDirectory() as folder:
        module = Doubling()
        tf.saved_model.save(module, folder, signatures=module.serve)
        layer = layers.TFSMLayer(folder, call_endpoint="serving_default", name="served")

    def call(net, x):
        return net.head(next(iter(net.served(net.first(x)).values())))

    return Subclassed(
        call, first=layers.Dense(6), served=layer, head=layers.Dense(1, name="head")
    ), ROWS


def lora():
    dense = layers.Dense(3, name="dense")
    einsum = layers.EinsumDense("ab,bc->ac", 4, name="einsum")
    model = functional(dense, einsum, layers.Dense(1, name="head"))
    dense.enable_lora(2)
    einsum.enable_lora(2)
    return model, ROWS


def quantized(mode):
    def build():
        dense = layers.Dense(4, "relu", name="dense")
        model = functional(
            layers.Dense(6, name="before"), dense, layers.Dense(1, name="head")
        )
        dense.quantize(mode)
        return model, ROWS

    return build


def frozen():
    norm = layers.BatchNormalization(name="norm", trainable=False)
    dense = layers.Dense(3, name="dense", trainable=False)
    return functional(
        layers.Dense(6, name="before"), norm, dense, layers.Dense(1, name="head")
    ), ROWS


def regularized():
    return functional(
        layers.Dense(
            6,
            kernel_regularizer="l2",
            bias_regularizer="l1",
            activity_regularizer="L1L2",
            kernel_constraint="max_norm",
            name="dense",
        ),
        layers.ActivityRegularization(0.1, name="activity"),
        layers.Dense(1, activity_regularizer="l2", name="head"),
    ), ROWS


def remat_of_activations():
    """Keras refuses to recompute whole layers on TensorFlow: `training` is a keyword."""
    with keras.RematScope("activations"):
        stack = layers.Dense(6, "tanh", name="dense"), layers.Dense(4, name="second")
    return functional(*stack, layers.Dense(1, name="head")), ROWS


class Recomputed(layers.Layer):
    """Computes the output of its inner layer again in the backward pass."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner = layers.Dense(4, "tanh", name="inner")
        self.again = keras.remat(lambda x: self.inner(x))

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.again(x)


def remat_of_a_layer():
    stack = layers.Dense(6, name="before"), Recomputed(name="recomputed")
    return functional(*stack, layers.Dense(1, name="head")), ROWS


MODELS = {
    "stateful": (stateful, {"lstm"}),
    "padded tokens": (padded_tokens, {"embedding", "lstm", "dropout"}),
    "a mask through an identity": (mask_through_an_identity, {"same", "recurrent"}),
    "padded series": (padded_series, {"masking", "pool"}),
    "sparse inputs": (sparse, {"dense"}),
    "ragged text": (ragged_text, {"encoding"}),
    "nested outputs": (nested_outputs, {"net/nested:a", "net/nested:b.0"}),
    "several inputs and outputs": (several_inputs_and_outputs, {"join", "one", "two"}),
    "shared submodel": (shared_submodel, {"twice/inner/0", "twice/inner/1"}),
    "built lazily": (built_lazily, {"net/first", "net/norm"}),
    "equalization": (equalization, {"net/equal"}),
    "bounding boxes": (boxes, {"net/kept:bounding_boxes.boxes"}),
    "saved model": (saved_model, {"net/served:output_0"}),
    "LoRA": (lora, {"dense", "einsum"}),
    "int8": (quantized("int8"), {"dense"}),
    "float8": (quantized("float8"), {"dense"}),
    "int4": (quantized("int4"), {"dense"}),
    "frozen": (frozen, {"norm", "dense"}),
    "regularized": (regularized, {"dense", "activity"}),
    "remat of activations": (remat_of_activations, {"dense", "second"}),
    "remat of a layer": (remat_of_a_layer, {"before", "head"}),
}
"""A function that makes model and inputs; names that have to be measured."""


def sum_of_sums():
    source = keras.Input((6,))
    a, b, c = (layers.Dense(64, name=name)(source) for name in "abc")
    total = layers.Add(name="outer")([a, layers.Add(name="inner")([b, c])])
    return keras.Model(source, layers.Dense(1, name="head")(total), name="net"), ROWS


class Odd(layers.Layer):
    """Its output is the function's."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, x):
        return self.function(x)


def odd(function, back):
    """A model with a layer whose odd output `back` makes a dense tensor again."""

    def build():
        return Subclassed(
            lambda net, x: net.head(ops.reshape(back(net.odd(x)), (SAMPLES, 6))),
            odd=Odd(function, name="odd"),
            head=layers.Dense(1, name="head"),
        ), ROWS

    return build


UNMEASURABLE = {
    "a tensor of unknown rank": odd(
        lambda x: tf.numpy_function(np.copy, [x], tf.float32), lambda x: x
    ),
    "a ragged tensor": odd(tf.RaggedTensor.from_tensor, lambda x: x.to_tensor()),
    "a sparse tensor": odd(tf.sparse.from_dense, tf.sparse.to_dense),
    "the embedding of ragged tokens": ragged_tokens,
}


# -- their trainings, as cases of `trials`


def fit_layers(group, trial):
    """The branches of a group: two epochs of one step."""
    model, _, arrays = network(CASES[group])
    targets = {name: np.ones((SAMPLES, 1), "f4") for name in model.output}
    return fit_one_batch(trial, model, (arrays, targets))


def fit_model(build, trial):
    """A model and inputs that a function makes."""
    model, x = build()
    y = np.ones((SAMPLES, 1), "f4")
    if isinstance(getattr(model, "output_names", None), list) and len(model.outputs) > 1:
        y = dict.fromkeys(model.output, y)
    return fit_one_batch(trial, model, (x, y))


def fit_one_batch(trial, model, batch):
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), "mse", jit_compile=False)
    data = tf.data.Dataset.from_tensors(batch)
    history = trial.fit(model, data, epochs=2, shuffle=False)
    assert np.isfinite([*history.values()]).all()  # NaN would equal NaN
    trial.leave(model.predict(data, verbose=0))
    return model


TRAININGS = {
    **{f"layers: {group}": functools.partial(fit_layers, group) for group in CASES},
    **{
        f"network: {name}": functools.partial(fit_model, row[0])
        for name, row in MODELS.items()
    },
    **{
        f"network: {name}": functools.partial(fit_model, row)
        for name, row in UNMEASURABLE.items()
    },
}

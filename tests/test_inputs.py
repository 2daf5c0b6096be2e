"""A batch that does not fit a model gives one clear error in `audit` and `rescale`."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import models
from activation_monitor import audit, rescale
from activation_monitor.recording.inputs import input_names

BOTH = pytest.mark.parametrize("function", [audit, rescale])


def ones(*shape, dtype="float32"):
    """Different numbers, so that variances are not zero."""
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def two_inputs(names=("left", "right"), as_dict=False):
    """A model with two inputs, of 8 and of 4 numbers."""
    left, right = keras.Input((8,), name=names[0]), keras.Input((4,), name=names[1])
    joined = layers.Concatenate()([layers.Dense(4)(left), layers.Dense(4)(right)])
    inputs = {names[0]: left, names[1]: right} if as_dict else [left, right]
    return keras.Model(inputs, layers.Dense(1)(joined), name="two")


def pictures():
    """A model for images of any size with three channels."""
    inputs = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, padding="same")(inputs))
    return keras.Model(inputs, layers.Dense(2)(x), name="net")


def embedding():
    """A model for five integers below 10."""
    inputs = keras.Input((5,), dtype="int32", name="tokens")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(10, 4, name="table")(inputs))
    return keras.Model(inputs, layers.Dense(2)(x), name="net")


class Subclassed(keras.Model):
    """A model without known inputs."""

    def __init__(self):
        super().__init__(name="own")
        self.dense = layers.Dense(4, name="dense")

    def call(self, inputs):
        """Call the layer."""
        return self.dense(inputs)


def subclassed():
    """A subclassed model that is built for vectors of length 8."""
    model = Subclassed()
    model(np.zeros((1, 8), np.float32))
    return model


MISFITS = {
    "width": (models.perceptron, ones(4, 7), "shape (batch, 8). Received: shape (4, 7)."),
    "rank": (models.perceptron, ones(4, 8, 3), "(batch, 8). Received: shape (4, 8, 3)."),
    "no batch": (
        models.perceptron,
        ones(8),
        "shape (batch, 8). Received: shape (8,). For a single sample, pass a batch of one: "
        "`x[None]`.",
    ),
    "channels": (
        pictures,
        ones(4, 9, 9, 1),
        "shape (batch, any, any, 3). Received: shape (4, 9, 9, 1).",
    ),
    "one picture": (
        pictures,
        ones(9, 9, 3),
        "any, 3). Received: shape (9, 9, 3). For a single sample, pass a batch of one: "
        "`x[None]`.",
    ),
    "strings": (
        models.perceptron,
        np.array([["a"] * 8] * 4),
        "real numbers. Received: dtype string.",
    ),
    "one of two": (two_inputs, ones(4, 8), "2 arrays, for left, right. Received: 1."),
    "three of two": (
        two_inputs,
        [ones(4, 8), ones(4, 4), ones(4, 4)],
        "2 arrays, for left, right. Received: 3.",
    ),
    "swapped": (
        two_inputs,
        [ones(4, 4), ones(4, 8)],
        "for left: shape (batch, 8). Received: shape (4, 4).",
    ),
    "second": (
        two_inputs,
        [ones(4, 8), ones(4, 5)],
        "for right: shape (batch, 4). Received: shape (4, 5).",
    ),
    "names": (
        lambda: two_inputs(as_dict=True),
        {"left": ones(4, 8), "rigth": ones(4, 4)},
        "arrays named left, right. Received: left, rigth. Add right.",
    ),
    "samples": (
        two_inputs,
        [ones(4, 8), ones(5, 4)],
        "the same number of samples for each input. Received: 4, 5.",
    ),
    "integers": (
        embedding,
        np.full((4, 5), 12),
        "integers from 0 to 9 for tokens, since the Embedding 'table' has input_dim=10. "
        "Received: up to 12.",
    ),
}


@BOTH
@pytest.mark.parametrize("case", [*MISFITS])
def test_a_batch_that_does_not_fit_is_one_clear_error(function, case):
    """The message has one line and says what was expected and received."""
    make, x, message = MISFITS[case]
    model = make()
    with pytest.raises(ValueError) as caught:
        function(model, x)
    said = str(caught.value)
    start = f"{function.__name__}: `x` does not fit the model {model.name!r}. Expected"
    assert said.startswith(start)
    assert said.endswith(message)
    assert "\n" not in said and "\x1b" not in said
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


FITS = {
    "numbers": (models.perceptron, ones(20, 8)),
    "other dtypes": (models.perceptron, ones(20, 8, dtype="float64")),
    "a last axis of one": (models.perceptron, ones(20, 8, 1)),
    "any size": (pictures, ones(20, 5, 7, 3)),
    "a list": (two_inputs, [ones(20, 8), ones(20, 4)]),
    "a tuple": (two_inputs, (ones(20, 8), ones(20, 4))),
    "names": (
        lambda: two_inputs(as_dict=True),
        {"left": ones(20, 8), "right": ones(20, 4)},
    ),
    "names for a list": (two_inputs, {"right": ones(20, 4), "left": ones(20, 8)}),
    "more names": (
        two_inputs,
        {"right": ones(20, 4), "left": ones(20, 8), "other": ones(20, 1)},
    ),
    "integers": (embedding, np.arange(100).reshape(20, 5) % 10),
    "a subclass": (subclassed, ones(20, 8)),
}


@BOTH
@pytest.mark.parametrize("case", [*FITS])
def test_every_batch_that_keras_accepts_is_accepted(function, case):
    """Every batch that the model can be called with is accepted."""
    make, x = FITS[case]
    model = make()
    model(x)
    function(model, x)


@BOTH
def test_a_sequential_model_built_by_a_batch_takes_another_length(function):
    """Keras accepts it, although `model.inputs` has the length of the first batch."""
    pooled = [layers.Conv1D(4, 3, padding="same"), layers.GlobalAveragePooling1D()]
    model = keras.Sequential([*pooled, layers.Dense(2)])
    model(ones(2, 9, 3))
    assert model.inputs[0].shape == (2, 9, 3)
    function(model, ones(20, 12, 3))


@BOTH
def test_without_known_inputs_the_error_names_the_layer_that_refuses(function):
    """The message says what the layer expected and received."""
    with pytest.raises(ValueError) as caught:
        function(subclassed(), ones(4, 7))
    said = str(caught.value)
    assert said.startswith(
        f"{function.__name__}: `x` does not fit the model 'own'. The layer"
    )
    assert "'dense' expected axis -1 of input shape to have value 8" in said
    assert "(4, 7)" in said
    assert "\n" not in said and "\x1b" not in said


@BOTH
@pytest.mark.parametrize("error", [RuntimeError, ValueError, KeyError])
def test_other_errors_of_the_model_are_raised_unchanged(function, error):
    """The batch fits, so the error has another reason."""

    class Fails(layers.Layer):
        def call(self, inputs):
            raise error("mine")

        def compute_output_spec(self, inputs):
            return keras.KerasTensor(inputs.shape)

    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(1)(Fails()(inputs)))
    with pytest.raises(error, match="mine"):
        function(model, ones(4, 8))


@BOTH
@pytest.mark.parametrize(
    ("x", "received"),
    [
        ([[1.0, 2.0]], "list"),
        (3.0, "float"),
        (None, "NoneType"),
        ("batch.npy", "str"),
        (np.float32(3.0), "float32"),
        (tf.data.Dataset.from_tensors(np.ones((4, 8))), "_TensorDataset"),
    ],
)
def test_other_types_than_arrays_are_a_type_error(function, x, received):
    """The message says what to pass instead."""
    message = f"`x` must be one batch: .* Received: {received}. For a tf.data"
    with pytest.raises(TypeError, match=f"{function.__name__}: {message}"):
        function(models.perceptron(), x)


@BOTH
@pytest.mark.parametrize(
    "x",
    [
        np.array([[None] * 8] * 4),
        np.array([[1.0] * 8] * 4, object),
        np.zeros((4, 8), "datetime64[s]"),
        np.zeros(4, [("a", "f4"), ("b", "i4")]),
    ],
    ids=lambda x: str(x.dtype),
)
def test_arrays_of_objects_are_a_type_error(function, x):
    """The message names the received dtype and how to convert it."""
    message = f"{function.__name__}: `x` must hold numbers. Received: ndarray of {x.dtype}."
    with pytest.raises(TypeError, match=re.escape(message)):
        function(models.perceptron(), x)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.ones((3, 1)), ValueError, "must hold the targets of the 4 samples of `x`. Re"),
        (np.ones((0, 1)), ValueError, "must hold at least one sample"),
        (np.array([[None]] * 4), TypeError, "must hold numbers. Received: ndarray of obj"),
        ([1.0, 2.0], TypeError, "must be one batch"),
    ],
)
def test_targets_that_do_not_fit_the_batch_are_refused(y, error, message):
    """The messages are those for `x`, with the name `y`."""
    model = models.perceptron()
    model.compile("sgd", "mse")
    with pytest.raises(error, match=f"audit: `y` {message}"):
        audit(model, ones(4, 8), y)
    audit(model, ones(4, 8), np.ones((4, 1)))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (two_inputs, ["left", "right"]),
        (lambda: two_inputs(("b", "a")), ["b", "a"]),
        (lambda: two_inputs(("b", "a"), as_dict=True), ["a", "b"]),
        (embedding, ["tokens"]),
        (subclassed, []),
        (lambda: keras.Sequential([layers.Dense(1)]), []),
    ],
)
def test_the_names_of_inputs_are_in_the_order_of_the_inputs(make, names):
    """Dict inputs are named by their keys. Unknown inputs give an empty list."""
    model = make()
    assert input_names(model) == names
    if names:
        assert [each.name for each in model.inputs] == names

"""The networks that are trained, by name, with the data and the ways to compile them."""

import re
from typing import Any, NamedTuple

import keras
import numpy as np

BATCHES = 4
"""Different batches of data; they repeat."""


class Compiled(NamedTuple):
    """A model that is ready for `fit`."""

    model: keras.Model
    data: Any  # a `tf.data.Dataset` of batches, without end
    x: np.ndarray  # the first batch


class Way(NamedTuple):
    """How a model is compiled."""

    model: str
    mode: str = "graph"
    precision: str = "float32"

    def __str__(self):
        return f"{self.model}, {self.mode}, {self.precision}"


def resnet50():
    """177 tensors. 64 x 64 images."""
    return keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=10)


def transformer():
    """Four blocks of attention and a feed-forward network, 48 tensors."""
    inputs = x = keras.Input((64, 128))
    for _ in range(4):
        y = keras.layers.LayerNormalization()(x)
        x = x + keras.layers.MultiHeadAttention(4, 32)(y, y)
        y = keras.layers.LayerNormalization()(x)
        y = keras.layers.Dense(512, activation="gelu")(y)
        x = x + keras.layers.Dense(128)(y)
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.LayerNormalization()(x))
    return keras.Model(inputs, head()(x))


def mlp():
    """20 x 512 units, 22 tensors."""
    hidden = [
        keras.layers.Dense(512, "relu", kernel_initializer="he_normal") for _ in range(20)
    ]
    return keras.Sequential([keras.Input((512,)), *hidden, head()])


def wide():
    """Few layers with large outputs: 64 MiB each at batch 32. For the peak of memory."""
    layers = [keras.Input((128, 128, 3))]
    for _ in range(8):
        layers += [keras.layers.Conv2D(32, 3, padding="same"), keras.layers.ReLU()]
    return keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), head()])


def chain(layers):
    """Tiny layers: what is left is the cost of a layer, whatever its size."""
    hidden = [
        keras.layers.Dense(16, "relu", kernel_initializer="he_normal")
        for _ in range(layers - 1)
    ]
    return keras.Sequential([keras.Input((16,)), *hidden, head()])


def head():
    # Under mixed precision probabilities are float32, as the Keras guide recommends.
    return keras.layers.Dense(10, activation="softmax", dtype="float32")


BUILDERS = {
    "resnet50": (resnet50, 32),
    "transformer": (transformer, 32),
    "mlp": (mlp, 128),
    "wide": (wide, 32),
}
"""Name to function and batch size. `chain-N` is a chain of N layers."""


def compiled(way: Way, batch: int | None = None) -> Compiled:
    """Build and compile a model. Sets the dtype policy of this thread."""
    import tensorflow as tf

    keras.config.set_dtype_policy(way.precision)
    keras.utils.set_random_seed(0)
    name = way.model
    if matched := re.fullmatch(r"chain-(\d+)", name):
        model, usual = chain(int(matched[1])), 64
    else:
        build, usual = BUILDERS[name]
        model = build()
    model.compile(
        keras.optimizers.SGD(1e-3),
        "sparse_categorical_crossentropy",
        jit_compile=way.mode == "xla",
    )
    rng = np.random.default_rng(0)
    shape = (BATCHES, batch or usual, *model.input_shape[1:])
    x = rng.standard_normal(shape, dtype="float32")
    y = rng.integers(0, 10, shape[:2])
    # Batches are made in advance, so that a step waits for nothing.
    data = tf.data.Dataset.from_tensor_slices((x, y)).repeat()
    return Compiled(model, data, x[0])


def mixed_precision() -> str:
    """The half precision that is fast here: float16 takes minutes on most CPUs."""
    import tensorflow as tf

    return "mixed_float16" if tf.config.list_physical_devices("GPU") else "mixed_bfloat16"

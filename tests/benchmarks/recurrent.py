"""Which recurrent layers and embeddings train, at which sizes of their parts.

    python tests/benchmarks/recurrent.py [LAYER ...]

scikit-learn's digits as sequences of 8 rows: of 8 pixels with rms 1 (lstm, gru, tanh and
relu: a layer of 32 units), or of one token for the 8 bits of a row (flat, norm, average and
embedded lstm: an embedding of 16). 500 steps of batch 64 with Adam(1e-3) and SGD(0.01), or
SGD(0.1) for tokens. Each part is multiplied by a number after Keras has drawn it; vectors
of an embedding are normal numbers times it. The accuracy is that of 389 other digits, after
training. One layer takes a minute.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

STEPS, BATCH, TRAINED = 500, 64, 1408
SIZES = [
    *((1, size, 1) for size in (1, 2, 4, 8, 16, 64, 0.1)),
    *((size, 1, 1) for size in (10, 30, 100, 1000)),
    *((1, 1, size) for size in (10, 30, 100, 1000, 0.01, 1e-4)),
]
"""Factors of the input, of the recurrent kernel and of the kernel."""

VECTORS = ("default", "ones", "zeros", 1e-6, 1e-3, 1.0, 10.0, 30.0, 100.0, 1000.0)
RECURRENT = {
    "tanh": lambda: layers.SimpleRNN(32, unroll=True),
    "lstm": lambda: layers.LSTM(32, unroll=True),
    "gru": lambda: layers.GRU(32, reset_after=False, unroll=True),
    "relu": lambda: layers.SimpleRNN(32, activation="relu", unroll=True),
}
EMBEDDED = {
    "flat": lambda: [layers.Flatten(), layers.Dense(32, "relu")],
    "embedded lstm": lambda: [layers.LSTM(32, unroll=True)],
    "norm": lambda: [
        *(layers.LayerNormalization(), layers.Flatten()),
        layers.Dense(32, "relu"),
    ],
    "average": lambda: [layers.GlobalAveragePooling1D()],
}


def digits(tokens):
    """Samples and labels in a fixed order."""
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8)
    if tokens:
        x = ((x > 7) * 2 ** np.arange(8)).sum(-1).astype("int32")
    else:
        x = (x / np.sqrt(np.mean(x.astype("float32") ** 2))).astype("float32")
    order = np.random.default_rng(0).permutation(len(x))
    return x[order], y[order].astype("int32")


def compiled(hidden, optimizer, tokens):
    """A network of these layers, and its weights as drawn."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,), dtype="int32") if tokens else keras.Input((8, 8))
    model = keras.Sequential([inputs, *hidden(), layers.Dense(10)])
    rates = {"adam": keras.optimizers.Adam(1e-3), "sgd": keras.optimizers.SGD(0.01)}
    if tokens:
        rates["sgd"] = keras.optimizers.SGD(0.1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(rates[optimizer], loss)
    model.optimizer.build(model.trainable_variables)
    return model, model.get_weights()


def accuracy(model, weights, x, y):
    """Train a compiled network from these weights."""
    for variable in model.optimizer.variables:
        if "learning_rate" not in variable.path:
            variable.assign(np.zeros(variable.shape, variable.dtype))
    model.set_weights(weights)
    rng = np.random.default_rng(1)
    for _ in range(STEPS):
        batch = rng.integers(0, TRAINED, BATCH)
        model.train_on_batch(x[batch], y[batch])
    said = np.argmax(model(x[TRAINED:]), axis=-1)
    return np.mean(said == y[TRAINED:])


def main(names):
    """Print the table, of these layers or of all."""
    print("layer,optimizer,input,recurrent kernel,kernel or vectors,accuracy", flush=True)
    for name in names or [*RECURRENT, *EMBEDDED]:
        tokens = name in EMBEDDED
        x, y = digits(tokens)
        if tokens:
            noise = np.random.default_rng(0).standard_normal((256, 16))
        for optimizer in ("adam", "sgd"):
            hidden = (
                (lambda name=name: [layers.Embedding(256, 16), *EMBEDDED[name]()])
                if tokens
                else (lambda name=name: [RECURRENT[name]()])
            )
            model, drawn = compiled(hidden, optimizer, tokens)
            for size in VECTORS if tokens else SIZES:
                weights, factor = [one.copy() for one in drawn], 1
                if tokens:
                    kinds = {"ones": 1 + 0 * noise, "zeros": 0 * noise}
                    if size != "default":
                        weights[0] = kinds[size] if size in kinds else size * noise
                    shown = f",,{size}"
                else:
                    factor, recurrent, kernel = size
                    weights[0] *= kernel
                    weights[1] *= recurrent
                    shown = f"{factor},{recurrent},{kernel}"
                found = accuracy(model, weights, x if tokens else factor * x, y)
                print(f"{name},{optimizer},{shown},{found:.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

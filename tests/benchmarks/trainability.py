"""Which networks train: a random population, each one trained on scikit-learn's digits.

    python tests/benchmarks/trainability.py [--count N] [--out FILE]

Network number i is drawn with a generator seeded by i, so that any first part of the
population is a fair sample of it. About half of them are what a textbook would advise;
a third have kernels of a random scale; the rest have other initializers, or one layer
that is far off. Each row of the CSV rebuilds its network exactly (`build`) and its data
(`batch`); numbers that are in the file already are not trained again.

The label is whether the network trains, and nothing else: no statistic of activations,
weights or gradients enters it. 300 steps of batch 64, with Adam(1e-3) and with
SGD(0.01, momentum 0.9). The final loss is the mean of the last 20 steps (chance: 2.303).

    good      both end below 1.0
    bad       neither does, and Adam(1e-4) does not either; NaN is a failure
    partial   the rest

A run ends early where it is decided: at a loss that is not finite, and when the mean of
50 steps is below 0.3.

The population falls in two halves by a hash of the architecture (family, depth, width,
activation, pooling): "calibrate" for setting thresholds, "report" for figures to publish.
No architecture is in both.
"""

import argparse
import csv
import functools
import hashlib
import math
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_digits

POPULATION = pathlib.Path(__file__).with_name("trainability.csv")
STEPS, CHUNK, BATCH = 300, 50, 64
TRAINED, CLEARLY_TRAINED = 1.0, 0.3
FRESH = 30  # networks until a new process starts: TensorFlow keeps 40 MB of each

ARCHITECTURE = ["family", "depth", "width", "activation", "max_pool", "top"]
CONFIG = [*ARCHITECTURE, "kind", "initializer", "bad_layer", "factor", "input", "seed"]
RESULT = ["half", "adam", "sgd", "adam_small", "label"]
COLUMNS = ["id", *CONFIG, *RESULT]

FAMILIES = {
    "mlp": 0.38,
    "cnn": 0.23,
    "mlp_bn": 0.08,
    "cnn_bn": 0.08,
    "mlp_ln": 0.06,
    "residual": 0.10,
    "preln": 0.07,
}
ACTIVATIONS = {
    "relu": 0.25,
    "leaky_relu": 0.08,
    "tanh": 0.14,
    "gelu": 0.12,
    "silu": 0.10,
    "elu": 0.08,
    "selu": 0.08,
    "softsign": 0.05,
    "linear": 0.06,
    "sigmoid": 0.04,
}
KINDS = {"suited": 0.42, "graded": 0.33, "other": 0.15, "bad_layer": 0.10}
INPUTS = {"standard": 0.79, "raw": 0.07, "x0.01": 0.07, "x100": 0.07}

HE = ["he_normal", "he_uniform"]
GLOROT = ["glorot_uniform", "glorot_normal", "lecun_normal", "orthogonal"]
SUITED = {name: HE for name in ("relu", "leaky_relu", "gelu", "silu", "elu")}
SUITED |= {"selu": ["lecun_normal"]}
SUITED |= {name: GLOROT for name in ("tanh", "softsign", "linear", "sigmoid")}
FIXED = {  # initializers that do not look at the width: (class, arguments)
    "normal_0.01": (keras.initializers.RandomNormal, {"stddev": 0.01}),
    "normal_0.05": (keras.initializers.RandomNormal, {"stddev": 0.05}),
    "normal_0.2": (keras.initializers.RandomNormal, {"stddev": 0.2}),
    "normal_1.0": (keras.initializers.RandomNormal, {"stddev": 1.0}),
    "uniform_0.05": (keras.initializers.RandomUniform, {"minval": -0.05, "maxval": 0.05}),
    "truncated_0.02": (keras.initializers.TruncatedNormal, {"stddev": 0.02}),
    "uniform_0_1": (keras.initializers.RandomUniform, {"minval": 0.0, "maxval": 1.0}),
}
OTHER = [*HE, *GLOROT, *FIXED]


def draw(number):
    """The configuration of network `number`."""
    rng = np.random.default_rng([7, number])

    def pick(options):
        if isinstance(options, dict):
            weights = np.array(list(options.values()))
            return str(rng.choice(list(options), p=weights / weights.sum()))
        return options[rng.integers(len(options))]

    row = dict.fromkeys(CONFIG, "")
    row |= {"family": pick(FAMILIES), "activation": pick(ACTIVATIONS)}
    if row["family"].startswith("cnn"):
        row |= {"depth": pick([4, 8, 16]), "width": pick([16, 32])}
        row |= {"max_pool": pick([0, 1]), "top": pick(["flatten", "average"])}
    elif row["family"] in ("residual", "preln"):
        row |= {"depth": pick([7, 13, 25, 41]), "width": pick([48, 96, 200])}
    else:
        row |= {"depth": pick([3, 6, 12, 25, 40]), "width": pick([48, 96, 200])}
    row["kind"] = pick(KINDS)
    row["initializer"] = pick(SUITED[row["activation"]])
    if row["kind"] == "graded":
        row["initializer"] = f"scaling_{10 ** rng.uniform(-1, math.log10(16)):.3g}"
    elif row["kind"] == "other":
        row["initializer"] = pick(OTHER)
    elif row["kind"] == "bad_layer":
        row |= {"bad_layer": int(rng.integers(row["depth"])), "factor": pick([100, 0.001])}
    row |= {"input": pick(INPUTS), "seed": number}
    return row


def half(row):
    """The half that this architecture belongs to."""
    key = "/".join(str(row[name]) for name in ARCHITECTURE)
    even = hashlib.sha256(key.encode()).digest()[0] % 2 == 0
    return "calibrate" if even else "report"


def initializer(row, index):
    """A new object with a seed of its own: one object draws the same weights each time."""
    name, seed = row["initializer"], int(row["seed"]) * 1000 + index
    if name.startswith("scaling_"):
        scale = float(name.removeprefix("scaling_"))
        return keras.initializers.VarianceScaling(scale, seed=seed)
    if name in FIXED:
        cls, arguments = FIXED[name]
        return cls(**arguments, seed=seed)
    found = keras.initializers.get(name)
    return type(found)(seed=seed)


def layer_names(row):
    """Names of the hidden layers with kernels, in the order of the data."""
    stem = "conv" if row["family"].startswith("cnn") else "hidden"
    return [f"{stem}_{i}" for i in range(int(row["depth"]))]


def build(row):
    """The network, not compiled: hidden_0.. or conv_0.., and logits from `head`.

    A residual network is a first layer and blocks of two, x + f(x), with the activation
    inside the block; of the normalised ones `_bn` and `_ln` normalise before the
    activation, `preln` at the start of each block and before the head.
    """
    keras.utils.set_random_seed(int(row["seed"]))
    family, activation, depth = row["family"], row["activation"], int(row["depth"])
    layers, names = keras.layers, layer_names(row)

    def weights(index, activation=None):
        arguments = {
            "activation": activation,
            "kernel_initializer": initializer(row, index),
            "name": names[index],
        }
        if family.startswith("cnn"):
            return layers.Conv2D(int(row["width"]), 3, padding="same", **arguments)
        return layers.Dense(int(row["width"]), **arguments)

    inputs = x = keras.Input((8, 8, 1) if family.startswith("cnn") else (64,))
    if family in ("residual", "preln"):
        x = weights(0, activation)(x)
        for i in range(1, depth, 2):
            y = layers.LayerNormalization()(x) if family == "preln" else x
            x = layers.Add()([x, weights(i + 1)(weights(i, activation)(y))])
        if family == "preln":
            x = layers.LayerNormalization()(x)
    else:
        for i in range(depth):
            if family.endswith(("_bn", "_ln")):
                norm = "BatchNormalization" if "bn" in family else "LayerNormalization"
                x = getattr(layers, norm)()(weights(i)(x))
                x = layers.Activation(activation)(x)
            else:
                x = weights(i, activation)(x)
            if row["max_pool"] in (1, "1") and i == depth // 2 - 1:
                x = layers.MaxPooling2D()(x)
    if row["top"] == "flatten":
        x = layers.Flatten()(x)
    elif row["top"] == "average":
        x = layers.GlobalAveragePooling2D()(x)
    head = keras.initializers.GlorotUniform(seed=int(row["seed"]) * 1000 + 999)
    model = keras.Model(
        inputs, layers.Dense(10, kernel_initializer=head, name="head")(x), name="net"
    )
    if row["bad_layer"] != "":
        kernel = model.get_layer(names[int(row["bad_layer"])]).kernel
        kernel.assign(kernel * float(row["factor"]))
    return model


@functools.cache
def digits():
    return load_digits(return_X_y=True)


def data(row):
    """All 1797 digits, as this network gets them."""
    x, y = digits()
    if row["input"] == "raw":
        x = x * 16
    else:
        x = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
        x = x * {"standard": 1, "x0.01": 0.01, "x100": 100}[row["input"]]
    shape = (-1, 8, 8, 1) if row["family"].startswith("cnn") else (-1, 64)
    return x.reshape(shape).astype("float32"), y.astype("int32")


def order(row):
    """Which samples each training step gets: STEPS x BATCH, epochs without repetition."""
    rng = np.random.default_rng([11, int(row["seed"])])
    samples = len(digits()[1]) // BATCH * BATCH
    epochs = STEPS * BATCH // samples + 1
    shuffled = [rng.permutation(len(digits()[1]))[:samples] for _ in range(epochs)]
    return np.concatenate(shuffled)[: STEPS * BATCH].reshape(STEPS, BATCH)


def batch(row):
    """The 64 samples of the first training step."""
    x, y = data(row)
    first = order(row)[0]
    return x[first], y[first]


# From where to where fan_in * E[w^2] neither shrinks nor grows the signal: for signals
# much smaller and much larger than one. A bounded function has no upper end.
CRITICAL = {
    "relu": (2, 2),
    "leaky_relu": (1.92, 1.92),
    "gelu": (2, 4),
    "silu": (2, 4),
    "elu": (1, 2),
    "selu": (0.48, 1.81),
    "linear": (1, 1),
    "tanh": (1, math.inf),
    "softsign": (1, math.inf),
}


def truth(row):
    """What is wrong by construction: (direction, first layer), None for what is not clear.

    One bad layer: that layer, exploding or vanishing as its factor is. The same scale
    everywhere: clear if `fan_in * E[w^2]`, against the critical one, would change the size
    of the signal tenfold or more from the first hidden layer to the last; the first
    hidden layer is where it starts. Normalised networks and sigmoid: not clear. Bounded
    activations cannot explode. Residual blocks cannot make the signal vanish.
    """
    family, activation, names = row["family"], row["activation"], layer_names(row)
    if family not in ("mlp", "cnn", "residual") or activation not in CRITICAL:
        return None, None
    low, high = CRITICAL[activation]
    if row["bad_layer"] != "":
        index = int(row["bad_layer"])
        if float(row["factor"]) > 1:
            return ("exploding", names[index]) if high < math.inf else (None, None)
        in_block = family == "residual" and index > 0
        return (None, None) if in_block else ("vanishing", names[index])
    fan_in = int(row["width"]) * (9 if family == "cnn" else 1)
    if row["initializer"] == "uniform_0_1":  # the mean adds up: fan_in / 2 times a layer
        return ("exploding", names[0]) if high < math.inf else (None, None)
    shape = (3, 3, int(row["width"]), int(row["width"])) if family == "cnn" else None
    kernel = initializer(row, 1)(shape or (fan_in, fan_in))
    kernel = keras.ops.convert_to_numpy(kernel)
    strength = fan_in * float(np.mean(np.square(kernel, dtype="float64")))
    if family == "residual":
        # x + f(x): the stream's second moment grows by at least the branch's, which is
        # strength / high after the first layer of the block times strength after the second
        growth = 0.5 * math.log10(1 + strength**2 / high) * (int(row["depth"]) // 2)
        return ("exploding", None) if growth > 1 else (None, None)
    steps = int(row["depth"]) - 1
    if high < math.inf and 0.5 * steps * math.log10(strength / high) > 1:
        return "exploding", names[0]
    if 0.5 * steps * math.log10(strength / low) < -1:
        return "vanishing", names[0]
    return None, None


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(1e-3),
    "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "adam_small": lambda: keras.optimizers.Adam(1e-4),
}


def label_of(row):
    """Train `row`'s network as the protocol says; the final losses and the label."""
    return label(build(row), *data(row), order(row))


def label(model, x, y, batches):
    """Train a network on these batches of samples; the final losses and the label."""
    import tensorflow as tf  # `error_rates.py` reads the labels on any backend

    x, y, batches = map(tf.constant, (x, y, batches))
    variables = [v.value for v in model.trainable_variables]
    start = model.get_weights()

    @tf.function
    def gradients(indices):
        with tf.GradientTape() as tape:
            logits = model(tf.gather(x, indices), training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                tf.gather(y, indices), logits
            )
            loss = tf.reduce_mean(losses)
        return loss, tape.gradient(loss, variables)

    def final_loss(optimizer):
        model.set_weights(start)
        optimizer.build(model.trainable_variables)

        @tf.function
        def run(first):
            losses = tf.TensorArray(tf.float32, CHUNK)
            for i in tf.range(CHUNK):
                loss, grads = gradients(batches[first + i])
                optimizer.apply(grads, model.trainable_variables)
                losses = losses.write(i, loss)
            return losses.stack()

        for first in range(0, STEPS, CHUNK):
            losses = run(tf.constant(first)).numpy().astype("float64")
            if not np.isfinite(losses).all():
                return math.nan
            if losses.mean() < CLEARLY_TRAINED:
                break
        return losses[-20:].mean()

    losses = {name: final_loss(OPTIMIZERS[name]()) for name in ("adam", "sgd")}
    if not any(loss < TRAINED for loss in losses.values()):
        losses["adam_small"] = final_loss(OPTIMIZERS["adam_small"]())
    if losses["adam"] < TRAINED and losses["sgd"] < TRAINED:
        found = "good"
    else:
        found = "partial" if any(loss < TRAINED for loss in losses.values()) else "bad"
    return {name: f"{loss:.4g}" for name, loss in losses.items()} | {"label": found}


def read(path=POPULATION):
    """The rows of the CSV, as dicts of strings."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=360, help="size of the population")
    parser.add_argument("--out", type=pathlib.Path, default=POPULATION)
    arguments = parser.parse_args()
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # each network is a new trace, as it should be
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    done = (
        {int(row["id"]) for row in read(arguments.out)} if arguments.out.exists() else set()
    )
    todo = [number for number in range(arguments.count) if number not in done]
    with open(arguments.out, "a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        if not done:
            writer.writeheader()
        for number in todo[:FRESH]:
            row = draw(number)
            row |= {"id": number, "half": half(row)} | label_of(row)
            writer.writerow(row)
            file.flush()
            print(" ".join(str(v) for v in row.values() if v != ""), flush=True)
            keras.backend.clear_session()
    if len(todo) > FRESH:
        os.execv(sys.executable, [sys.executable, *sys.argv])


if __name__ == "__main__":
    main()

"""What the monitor says of whole runs: healthy ones, and ones with a known fault.

    python tests/benchmarks/runs.py --record DIR   # train; continues where it ended
    python tests/benchmarks/runs.py --judge DIR    # the rules over the logs, into runs.csv
    python tests/benchmarks/runs.py --report [--half report] [--list]   # rates of runs.csv

**Record** trains small networks with the callback and writes an event log of each. Each
architecture is trained without a fault several times, with other optimizers, schedules and
regularization, and once with each fault. **Judge** folds the rules of this checkout over
the logs, so that a changed rule needs no new training, and writes one row per run to
`runs.csv`. **Report** prints the rates from that file alone.

The label is the outcome, and nothing else: a run *trains* if the accuracy on held-out
samples is at least 0.7 after the last step (chance: 0.1; R^2 of at least 0.6 for a
regression, 0.5 for an autoencoder). A run without a fault that does not train is in no
rate. A run with a fault is *harmed* if it does not train. A fault that does no harm is
still there, so a finding on it is no false alarm.

The faults are of learning rate, labels, inputs, targets, loss and precision, or an event of
training (units that die). None is of the initialization: all initializers are those that
Keras defaults to or that suit the activation function. The main question is how many runs
are *called a bad initialization*: a finding recommends an initializer, or one of the rules
on drawn weights says that it was seen at initialization.

Architecture number i is drawn with a generator seeded by i. The architectures of a
family belong to the two halves in turns: "calibrate" for setting thresholds, "report" for
figures to publish. No architecture is in both.

Data: scikit-learn's digits as vectors, images, sequences of 8 rows or of 16 patches; and
made-up sequences of 16 tokens, half of which tell the class. 1437 digits are for training,
360 are held out.
"""

import argparse
import csv
import functools
import gc
import itertools
import json
import os
import pathlib
import sys
import time
import warnings
from collections import Counter, defaultdict
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

TABLE = pathlib.Path(__file__).with_name("runs.csv")
STEPS, ONSET, EVERY = 500, 200, 20
TRAIN = 1437  # digits for training; the rest is held out
FRESH = 20  # runs until a new process starts: TensorFlow keeps 40 MB of each
HEALTHY_RUNS, FAULTY_RUNS = 3, 9  # of each architecture

ARCHITECTURE = ["family", "depth", "width", "activation", "initializer"]
TRAINING = [
    *("optimizer", "learning_rate", "schedule", "dropout", "weight_decay", "batch"),
    *("extra", "fault", "factor", "onset", "seed"),
]
OUTCOME = ["metric", "loss", "outcome", "seconds"]
COLUMNS = ["id", "half", *ARCHITECTURE, *TRAINING, *OUTCOME, "snapshots", "findings"]

FAMILIES = (  # one for each architecture, in this order
    *("mlp", "cnn", "mlp_bn", "gru", "preln", "mlp", "transformer", "cnn_bn"),
    *("autoencoder", "embedded_mean", "residual", "mlp_ln", "lstm", "regression", "mlp"),
    *("resnet", "separable", "embedded_gru", "cnn", "mlp", "cnn_bn", "mlp_bn", "preln"),
    *("embedded_transformer", "mlp", "gru", "cnn", "residual", "mlp_ln", "autoencoder"),
    *("resnet", "mlp", "cnn_bn", "regression", "mlp", "separable", "embedded_gru"),
    *("transformer", "cnn", "mlp_bn", "mlp", "embedded_mean"),
)
IMAGES = ("cnn", "cnn_bn", "resnet", "separable")
TOKENS = ("embedded_mean", "embedded_gru", "embedded_transformer")
NUMBERS = ("autoencoder", "regression")  # targets that are numbers
DENSE = ("mlp", "mlp_bn", "mlp_ln", "residual", "preln", *NUMBERS)
RECURRENT = ("gru", "lstm", "embedded_gru")
ATTENTION = ("transformer", "embedded_transformer")
RECTIFIERS = {"relu": 0.55, "gelu": 0.1, "silu": 0.05, "elu": 0.1, "tanh": 0.1, "selu": 0.1}
SUITED = {"relu": "he_normal", "selu": "lecun_normal"}


def architecture(number):
    """The architecture with this number."""
    rng = np.random.default_rng([17, number])
    family = FAMILIES[number % len(FAMILIES)]
    if family in IMAGES:
        depth, width = rng.choice([2, 4, 6]), rng.choice([8, 16])
    elif family in RECURRENT:
        depth, width = 1, rng.choice([16, 32])
    elif family in ATTENTION:
        depth, width = 1, rng.choice([16, 32])
    elif family in ("residual", "preln"):
        depth, width = rng.choice([5, 9]), rng.choice([32, 64])
    elif family in NUMBERS:
        depth, width = rng.choice([2, 4]), 64
    else:
        depth, width = rng.choice([1, 2, 3, 5, 8]), rng.choice([32, 64, 128])
    activation = str(rng.choice([*RECTIFIERS], p=[*RECTIFIERS.values()]))
    if family in RECURRENT:
        activation = "tanh"
    elif family in ATTENTION:
        activation = str(rng.choice(["relu", "gelu"]))
    suited = rng.random() < 0.5 or activation == "selu"
    initializer = SUITED.get(activation, "glorot_uniform") if suited else "glorot_uniform"
    row = {"family": family, "depth": int(depth), "width": int(width)}
    return row | {"activation": activation, "initializer": initializer}


OPTIMIZERS = {  # learning rates at which networks of this size train
    "sgd": (0.03, 0.1),
    "momentum": (0.01, 0.03),
    "adam": (1e-3, 3e-3),
    "adamw": (1e-3, 3e-3),
    "rmsprop": (5e-4, 1e-3),
}
SCHEDULES = ("constant", "cosine", "warmup", "steps")
EXTRAS = ("clip", "few", "raw", "average", "accumulate", "together", "frozen", "float16")
"""What else a healthy run may have: gradients clipped by norm, 256 samples only, pixels of
0 to 1, weights averaged, gradients of 2 steps accumulated, 5 steps per execution, a first
layer that is frozen, mixed_float16 with its loss scale."""


def training(row, number, variant):
    """How an architecture is trained in a variant, without a fault."""
    rng = np.random.default_rng([19, number, variant])
    optimizer = str(rng.choice([*OPTIMIZERS], p=[0.2, 0.25, 0.3, 0.15, 0.1]))
    if row["family"] in (*RECURRENT, *ATTENTION, *TOKENS, *NUMBERS):
        optimizer = str(rng.choice(["adam", "adamw", "rmsprop"]))
    low, high = OPTIMIZERS[optimizer]
    extra = str(rng.choice(EXTRAS)) if rng.random() < 0.4 else ""
    if extra == "raw" and row["family"] in (*TOKENS, *NUMBERS):
        extra = ""
    if extra == "float16" and row["family"] not in DENSE:
        extra = ""
    if extra == "frozen" and row["family"] in (*TOKENS, *RECURRENT, *ATTENTION):
        extra = ""
    return {
        "optimizer": optimizer,
        "learning_rate": float(f"{low * (high / low) ** rng.random():.2g}"),
        "schedule": str(rng.choice(SCHEDULES)),
        "dropout": float(rng.choice([0, 0, 0.1, 0.3])),
        "weight_decay": 0.01 if optimizer == "adamw" else 0.0,
        "batch": int(rng.choice([32, 64, 128])),
        "extra": extra,
        "seed": 1000 * number + variant,
    }


# -- the faults: at which step they begin, and in which runs they make sense


def _numeric(row):
    return row["family"] not in TOKENS


def _classes(row):
    return row["family"] not in NUMBERS


def _any(row):
    return True


def _relu(row):
    return row["activation"] == "relu" and row["family"] != "embedded_mean"


def _dense(row):
    return row["family"] in DENSE  # in float16, convolutions take minutes on a CPU


def _targets(row):
    return row["family"] in NUMBERS


FAULTS = {
    "lr-high": (0, _any),
    "lr-high-late": (ONSET, _any),
    "lr-low": (0, _any),
    "labels-random": (0, _classes),
    "labels-random-late": (ONSET, _classes),
    "labels-one-class-late": (ONSET, _classes),
    "input-feature-late": (ONSET, _numeric),
    "input-scale-late": (ONSET, _numeric),
    "input-constant": (0, _any),
    "input-constant-late": (ONSET, _any),
    "input-nan-late": (ONSET, _numeric),
    "dying-bias-late": (ONSET, _relu),
    "dying-lr-late": (ONSET, _relu),
    "float16-overflow-late": (ONSET, _dense),
    "float16-underflow": (0, _dense),
    "targets-scale": (0, _targets),
    "targets-scale-late": (ONSET, _targets),
    "loss-negated": (0, _classes),
    "loss-not-logits": (0, _classes),
}


def fault(row, name, number):
    """What is changed by a fault."""
    rng = np.random.default_rng([23, number, list(FAULTS).index(name)])
    factor = {
        "lr-high": 10 ** rng.uniform(1.5, 3),
        "lr-high-late": 10 ** rng.uniform(1.5, 3),
        "lr-low": 10 ** rng.uniform(-5, -3),
        "input-feature-late": 1e4,
        "input-scale-late": 255.0,
        "input-nan-late": 0.1,  # share of rows
        "dying-lr-late": 10 ** rng.uniform(2, 3),
        "float16-overflow-late": 1e5,
        "float16-underflow": 1e-5,
        "targets-scale": 1e4,
        "targets-scale-late": 1e4,
    }.get(name, "")
    factor = factor and float(f"{factor:.2g}")
    found = {"fault": name, "factor": factor, "onset": FAULTS[name][0]}
    if name in ("labels-random", "labels-random-late"):
        found["factor"] = float(rng.choice([0.5, 1.0]))  # share of labels
    return row | found


def population(architectures):
    """All runs in the order of recording: any first part is a fair sample of it."""
    rows = [architecture(number) for number in range(architectures)]
    sides = itertools.cycle((("calibrate", "report"), ("report", "calibrate")))
    known, halves = {}, defaultdict(lambda: itertools.cycle(next(sides)))
    for number, row in enumerate(rows):
        key = tuple(row[name] for name in ARCHITECTURE)
        if key not in known:  # the same may be drawn twice
            known[key] = number
            rows[number] = row | {"half": next(halves[row["family"]])}
    numbers = sorted(known.values())
    plans = {}
    for number in numbers:
        names = [name for name, (_, suits) in FAULTS.items() if suits(rows[number])]
        order = np.random.default_rng([29, number]).permutation(names).tolist()
        # Faults that suit few networks are all among the runs; float16 is slow, so last.
        common = [name for name in order if FAULTS[name][1] in (_any, _numeric, _classes)]
        left_out = common[FAULTY_RUNS - len(names) + len(common) :]
        chosen = [name for name in order if name not in left_out]
        plans[number] = sorted(chosen, key=lambda name: name.startswith("float16"))

    def healthy(number, variant):
        row = rows[number] | training(rows[number], number, variant)
        return row | {"id": f"{number:02}-healthy-{variant}", "fault": ""}

    def faulty(number, place):
        row = rows[number] | training(rows[number], number, place % HEALTHY_RUNS)
        name = str(plans[number][place])
        row = fault(row | {"id": f"{number:02}-{name}"}, name, number)
        if name.startswith("float16"):
            row |= {"extra": "float16", "batch": 32}
        elif row["extra"] == "float16":
            row["extra"] = ""  # slow
        if name.startswith("input-scale") and row["extra"] == "raw":
            row["extra"] = ""
        return row

    yield from (healthy(n, v) for v in range(2) for n in numbers)
    places = range(FAULTY_RUNS)
    yield from (faulty(n, p) for p in places[:4] for n in numbers if p < len(plans[n]))
    yield from (healthy(n, 2) for n in numbers)
    yield from (faulty(n, p) for p in places[4:] for n in numbers if p < len(plans[n]))


# -- the data


@functools.cache
def digits():
    """All digits in a fixed order, standardized, and 0 to 1."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    standard = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    return standard.astype("float32"), (x / 16).astype("float32"), y.astype("int32")


VOCABULARY, LENGTH = 80, 16


@functools.cache
def tokens():
    """Sequences of 16 tokens: each is of its class's own 8 with probability 1/2."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 10, 4360)
    own = 8 * y[:, None] + rng.integers(0, 8, (len(y), LENGTH))
    other = rng.integers(0, VOCABULARY, own.shape)
    x = np.where(rng.random(own.shape) < 0.5, own, other)
    return x.astype("int32"), y.astype("int32")


def data(row):
    """Training and held-out samples: x, y, x, y."""
    family = row["family"]
    if family in TOKENS:
        x, y = tokens()
        return x[:-360], y[:-360], x[-360:], y[-360:]
    standard, pixels, y = digits()
    x = pixels if row["extra"] == "raw" else standard
    if family == "autoencoder":
        y = x
    elif family == "regression":
        y = ((y - 4.5) / y.std()).astype("float32")[:, None]
    if family in IMAGES:
        x = x.reshape(-1, 8, 8, 1)
    elif family in RECURRENT:
        x = x.reshape(-1, 8, 8)
    elif family in ATTENTION:
        x = x.reshape(-1, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 16, 4)
    return x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


def batches(row, x, y):
    """The samples of all steps in a row, with what is wrong with them."""
    rng = np.random.default_rng([11, row["seed"]])
    n = 256 if row["extra"] == "few" else len(x)
    size = STEPS * row["batch"]
    order = np.concatenate([rng.permutation(n) for _ in range(size // n + 1)])[:size]
    x, y = x[order], y[order]
    begin, name = row["batch"] * int(row.get("onset") or 0), row["fault"]
    factor, rest = row.get("factor"), slice(begin, None)
    if name.startswith("labels-random"):
        wrong = rng.random(len(y[rest])) < factor
        y[rest][wrong] = rng.integers(0, 10, wrong.sum())
    elif name == "labels-one-class-late":
        y[rest] = 3
    elif name == "input-feature-late":
        x.reshape(len(x), -1)[rest, 27] = factor * (1 + x.reshape(len(x), -1)[rest, 27])
    elif name in ("input-scale-late", "float16-overflow-late"):
        x[rest] *= factor
    elif name.startswith("input-constant"):
        x[rest] = x[0]
    elif name == "input-nan-late":
        x[rest][rng.random(len(x[rest])) < factor] = np.nan
    elif name.startswith("targets-scale"):
        y[rest] *= factor
    return x, y


# -- the networks


def build(row):
    """The network; not compiled. All hidden layers that bias can kill end in a ReLU."""
    import keras

    layers, ops = keras.layers, keras.ops
    keras.utils.set_random_seed(row["seed"])
    family, activation = row["family"], row["activation"]
    depth, width, rate = row["depth"], row["width"], row["dropout"]
    seeds = iter(range(10**6))

    def initializer():
        found = keras.initializers.get(row["initializer"])
        return type(found)(seed=1000 * row["seed"] + next(seeds))

    def weights(units, activation=None, kind="dense"):
        arguments = {"activation": activation, "kernel_initializer": initializer()}
        if kind == "dense":
            return layers.Dense(units, **arguments)
        if kind == "separable":
            arguments["depthwise_initializer"] = arguments.pop("kernel_initializer")
            arguments["pointwise_initializer"] = initializer()
            return layers.SeparableConv2D(units, 3, padding="same", **arguments)
        return layers.Conv2D(units, 3, padding="same", **arguments)

    def drop(x):
        return layers.Dropout(rate, seed=next(seeds))(x) if rate else x

    def block(x, width):
        """A transformer block; the normalization comes first."""
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(2, width // 2, kernel_initializer=initializer())(
            y, y
        )
        y = weights(2 * width, activation)(layers.LayerNormalization()(x))
        return x + drop(weights(width)(y))

    if family in TOKENS:
        inputs = keras.Input((LENGTH,), dtype="int32")
        x = layers.Embedding(VOCABULARY, width)(inputs)
        if family == "embedded_gru":
            x = layers.GRU(width)(x)
        elif family == "embedded_transformer":
            for _ in range(depth):
                x = block(x, width)
        if family != "embedded_gru":
            x = layers.GlobalAveragePooling1D()(x)
        x = drop(x)
    elif family in ("gru", "lstm"):
        inputs = keras.Input((8, 8))
        x = drop(getattr(layers, family.upper())(width)(inputs))
    elif family == "transformer":
        inputs = keras.Input((16, 4))
        x = weights(width)(inputs)
        where = np.random.default_rng(row["seed"]).normal(size=(1, 16, width))
        x = x + ops.cast(where, x.dtype)
        for _ in range(depth):
            x = block(x, width)
        x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    elif family in ("residual", "preln"):
        inputs = keras.Input((64,))
        x = weights(width, activation)(inputs)
        for _ in range(depth // 2):
            y = layers.LayerNormalization()(x) if family == "preln" else x
            y = weights(width)(drop(weights(width, activation)(y)))
            if family == "residual":
                y = y * 0.5
            x = x + y
        if family == "preln":
            x = layers.LayerNormalization()(x)
    elif family == "resnet":
        inputs = keras.Input((8, 8, 1))
        x = weights(width, kind="conv")(inputs)
        for _ in range(depth // 2):
            y = layers.Activation(activation)(layers.BatchNormalization()(x))
            x = x + weights(width, kind="conv")(y)
        x = layers.Activation(activation)(layers.BatchNormalization()(x))
        x = drop(layers.GlobalAveragePooling2D()(x))
    elif family in IMAGES:
        inputs = x = keras.Input((8, 8, 1))
        for i in range(depth):
            kind = "separable" if family == "separable" and i else "conv"
            if family == "cnn_bn":
                x = layers.BatchNormalization()(weights(width, kind=kind)(x))
                x = layers.Activation(activation)(x)
            else:
                x = weights(width, activation, kind)(x)
            if i == (depth - 1) // 2:
                x = layers.MaxPooling2D()(x)
        x = drop(layers.Flatten()(x))
        x = drop(weights(32, activation)(x))
    else:
        inputs = x = keras.Input((64,))
        for i in range(depth):
            narrow = family == "autoencoder" and i == depth // 2
            units = 16 if narrow else width
            if family in ("mlp_bn", "mlp_ln"):
                norm = "BatchNormalization" if family == "mlp_bn" else "LayerNormalization"
                x = getattr(layers, norm)()(weights(units)(x))
                x = layers.Activation(activation)(x)
            else:
                x = weights(units, activation)(x)
            x = x if family in NUMBERS else drop(x)
    units = {"autoencoder": 64, "regression": 1}.get(family, 10)
    model = keras.Model(inputs, layers.Dense(units, dtype="float32", name="head")(x))
    if row["extra"] == "frozen":
        next(layer for layer in model.layers if layer.weights).trainable = False
    return model


def optimizer(row):
    """The optimizer with its schedule, faults of the learning rate included."""
    import keras

    class Schedule(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            ops = keras.ops
            step = ops.cast(step, "float32")
            rate = row["learning_rate"] * _shape(row["schedule"], step, ops)
            first, factor = float(row.get("onset") or 0), row.get("factor")
            if row["fault"].startswith("lr-"):
                rate = rate * ops.where(step >= first, factor, 1.0)
            elif row["fault"] == "dying-lr-late":  # for three steps only
                bad = ops.logical_and(step >= first, step < first + 3)
                rate = rate * ops.where(bad, factor, 1.0)
            return rate

        def get_config(self):
            return {}

    arguments = {"clipnorm": 1.0} if row["extra"] == "clip" else {}
    if row["extra"] == "average":
        arguments["use_ema"] = True
    if row["extra"] == "accumulate":
        arguments["gradient_accumulation_steps"] = 2
    rate, kinds = Schedule(), keras.optimizers
    if row["optimizer"] == "sgd":
        return kinds.SGD(rate, **arguments)
    if row["optimizer"] == "momentum":
        return kinds.SGD(rate, momentum=0.9, **arguments)
    if row["optimizer"] == "adamw":
        return kinds.AdamW(rate, weight_decay=row["weight_decay"], **arguments)
    kind = {"adam": kinds.Adam, "rmsprop": kinds.RMSprop}[row["optimizer"]]
    return kind(rate, **arguments)


def _shape(schedule, step, ops):
    if schedule == "cosine":
        return 0.5 * (1 + ops.cos(np.pi * ops.minimum(step / STEPS, 1.0)))
    if schedule == "warmup":  # and down to zero in a line
        down = (STEPS - step) / (STEPS - 50)
        return ops.minimum((step + 1) / 50, ops.maximum(down, 0.0))
    if schedule == "steps":
        return ops.where(step < 250, 1.0, ops.where(step < 400, 0.1, 0.01))
    return 1.0


def loss_of(row):
    """The loss, with what is wrong with it."""
    import keras

    if row["family"] in NUMBERS:
        return keras.losses.MeanSquaredError()
    if row["fault"] == "loss-not-logits":
        return keras.losses.SparseCategoricalCrossentropy()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if row["fault"] == "loss-negated":
        return lambda y_true, y_pred: -loss(y_true, y_pred)
    return loss


def killer(row):
    """A callback that gives the ReLU layers in the middle a large negative bias."""
    import keras

    class Killer(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch != row["onset"]:
                return
            found = []
            normalizes = {"mlp_ln": keras.layers.LayerNormalization}.get(
                row["family"], keras.layers.BatchNormalization
            )
            for layer in self.model.layers:
                if isinstance(layer, normalizes):
                    found.append(layer.beta)
                elif layer.name != "head" and getattr(layer, "bias", None) is not None:
                    if layer.activation is keras.activations.relu:
                        found.append(layer.bias)
            chosen = found[len(found) // 2]
            chosen.assign(np.full(chosen.shape, -100.0))

    return Killer()


# -- the record


def record(row, folder):
    """Train one run, and write its log and `row.json`, which holds the outcome."""
    import keras

    from activation_monitor import ActivationMonitor

    begin = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("log/*/*"):  # of a run that was cut off
        old.unlink()
    half_precision = row["extra"] == "float16"
    keras.config.set_dtype_policy("mixed_float16" if half_precision else "float32")
    model = build(row)
    unscaled = row["fault"] == "float16-underflow"
    model.compile(
        optimizer(row),
        loss_of(row),
        loss_weights=[row["factor"]] if unscaled else None,
        jit_compile=False,
        auto_scale_loss=not unscaled,
        steps_per_execution=5 if row["extra"] == "together" else 1,
    )
    x, y, x_held, y_held = data(row)
    x, y = batches(row, x, y)
    monitor = ActivationMonitor(
        folder / "log", sample_every=EVERY, histograms=False, scalars=False
    )
    callbacks = [killer(row)] if row["fault"] == "dying-bias-late" else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        history = model.fit(
            *(x, y),
            batch_size=row["batch"],
            shuffle=False,
            verbose=0,
            callbacks=[*callbacks, monitor],
        )
    said = np.asarray(model(x_held, training=False), "float64")
    if row["family"] in NUMBERS:
        metric = 1 - np.mean((said - y_held) ** 2) / np.mean((y_held - y_held.mean(0)) ** 2)
        enough = 0.5 if row["family"] == "autoencoder" else 0.6
    else:
        finite = np.isfinite(said).all(axis=1)
        metric, enough = np.mean((said.argmax(axis=1) == y_held) & finite), 0.7
    row = row | {
        "metric": f"{metric:.3g}",
        "loss": f"{history.history['loss'][-1]:.3g}",
        "outcome": "trains" if metric >= enough else "fails",
        "seconds": f"{time.perf_counter() - begin:.1f}",
    }
    (folder / "row.json").write_text(json.dumps(row))
    keras.backend.clear_session()
    return row


def record_all(folder, architectures, only="", part=0, parts=1):
    """Train all runs that are not recorded yet, in fresh processes."""
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    gc.disable()  # half of the time; `clear_session` collects after each run
    rows = [
        row
        for row in itertools.islice(population(architectures), part, None, parts)
        if only in row["id"] and not (folder / row["id"] / "row.json").exists()
    ]
    print(f"{len(rows)} runs to do", flush=True)
    for row in rows[:FRESH]:
        try:
            done = record(row, folder / row["id"])
        except Exception as error:
            print(f"{row['id']}: {type(error).__name__}: {error}", flush=True)
            done = row | {"outcome": "error"}
            (folder / row["id"] / "row.json").write_text(json.dumps(done))
        print(" ".join(str(done.get(c, "")) for c in COLUMNS[:-2]), flush=True)
    if len(rows) > FRESH:
        os.execv(sys.executable, [sys.executable, *sys.argv])


# -- the judgement of the logs

ABOUT_DATA = ("constant-input", "target-scale", "unscaled-input")
"""Codes that may be seen at initialization and say nothing about how weights were drawn."""


def judged(row, folder):
    """A row with its findings, by the rules of this checkout.

    Each finding is `code@step`, with the step of the snapshot at which the monitor reports
    it, `i` after it if it was seen at initialization, and `w` if its fix recommends an
    initializer.
    """
    from activation_monitor.analysis.health import Health, judge
    from activation_monitor.storage.reader import read_run

    recording, health, found = read_run(folder / "log"), Health(), {}
    for snapshot in recording:
        health, _ = judge(health, snapshot)
        for finding in health.findings:
            first, initial, weights = found.get(finding.code, (snapshot.step, False, False))
            fix = finding.fix
            said = "" if fix is None else f"{fix.cause} {fix.changes}"
            weights = weights or "initializer" in said
            found[finding.code] = first, initial or finding.initial, weights
    shown = " ".join(
        f"{code}@{step}{'i' * initial}{'w' * weights}"
        for code, (step, initial, weights) in found.items()
    )
    return row | {"snapshots": len(recording), "findings": shown}


def recorded(folder, architectures):
    """The runs that were recorded, with their outcomes, in the order of the population."""
    for row in population(architectures):
        path = folder / row["id"] / "row.json"
        if path.exists():
            outcome = json.loads(path.read_text())
            yield row | {name: outcome.get(name, "") for name in OUTCOME}


def judge_all(folder, table, architectures):
    """Judge all logs, and write the table."""
    with open(table, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for row in recorded(folder, architectures):
            if row["outcome"] in ("trains", "fails"):
                writer.writerow(judged(row, folder / row["id"]))


# -- the rates

DIVERGES = {
    *("nonfinite-activations", "nonfinite-gradients", "large-updates", "scale-jump"),
    *("growing-weights", "loss-jump", "exploding-activations", "exploding-gradients"),
}
DIES = {"dead-units", "zero-activations", "no-gradient"}
LOST = {"collapsed-activations", "saturated-activations"}  # what steps too large lead to
RIGHT = {
    "lr-high": DIVERGES | DIES | LOST,
    "lr-high-late": DIVERGES | DIES | LOST,
    "lr-low": {"small-updates"},
    "labels-random": {"loss-flat"},
    "labels-random-late": {"loss-flat", "loss-jump"},
    "labels-one-class-late": {"loss-jump", "collapsed-activations"},
    "input-feature-late": {"scale-jump", "loss-jump", "unscaled-input", "heavy-tail"},
    "input-scale-late": {"scale-jump", "loss-jump", "unscaled-input"},
    "input-constant": {"constant-input"},
    "input-constant-late": {"constant-input", "collapsed-activations"},
    "input-nan-late": {"nonfinite-activations"},
    "dying-bias-late": DIES | {"loss-jump"},
    "dying-lr-late": DIVERGES | DIES | LOST,
    "float16-overflow-late": {"nonfinite-activations", "nonfinite-gradients", "scale-jump"},
    "float16-underflow": {"no-gradient", "vanishing-gradients", "small-updates"},
    "targets-scale": {"target-scale"},
    "targets-scale-late": {"target-scale", "loss-jump"},
    "loss-negated": DIVERGES | DIES | LOST,
    "loss-not-logits": DIVERGES | DIES | LOST | {"loss-flat"},
}
"""By fault, the codes of which the first finding, or one of the same step, should be one. A
random label leaves the signal as it is: that nothing is found is right as well."""


class Seen(NamedTuple):
    """A finding of the table."""

    code: str
    step: int
    initial: bool
    initializer: bool

    @property
    def blames_weights(self):
        """Whether it calls the initialization bad."""
        return self.initializer or (self.initial and self.code not in ABOUT_DATA)


def seen(row):
    """The findings of a row, in the order of their steps."""
    found = []
    for text in row["findings"].split():
        code, when = text.split("@")
        step = int(when.rstrip("iw"))
        found.append(Seen(code, step, "i" in when, "w" in when))
    return sorted(found, key=lambda finding: finding.step)


def report(rows, listed=False):
    """Print the rates, as the documentation shows them."""
    from error_rates import rate

    healthy = [row for row in rows if not row["fault"] and row["outcome"] == "trains"]
    failed = [row for row in rows if not row["fault"] and row["outcome"] != "trains"]
    faulty = [row for row in rows if row["fault"]]
    late = [row for row in faulty if int(row["onset"])]
    early = [any(f.step < int(r["onset"]) for f in seen(r)) for r in late]
    print("| runs | called a bad initialization | any finding |")
    print("| --- | --- | --- |")
    for name, group, found in (
        ("without a fault, train", healthy, [bool(seen(row)) for row in healthy]),
        ("without a fault, do not", failed, [bool(seen(row)) for row in failed]),
        ("with a fault, before it begins", late, early),
        ("with a fault, all", faulty, [bool(seen(row)) for row in faulty]),
    ):
        blamed = [any(f.blames_weights for f in seen(row)) for row in group]
        shown = "" if group is late else rate(blamed)
        print(f"| {name} | {shown} | {rate(found)} |")
    print()
    titles = ("fault", "runs", "harmed", "found, of harmed", "found, of others")
    titles += ("right, of found", "called a bad initialization", "steps until found")
    print("|", " | ".join(titles), "|")
    print("| --- " * len(titles) + "|")
    for fault in FAULTS:
        show_fault(fault, [row for row in rows if row["fault"] == fault])
    if not listed:
        return
    for fault in ("", *FAULTS):
        group = healthy if fault == "" else [r for r in faulty if r["fault"] == fault]
        first = Counter(seen(row)[0].code if seen(row) else "nothing" for row in group)
        shown = ", ".join(f"{code} {number}" for code, number in first.most_common())
        print(f"\nfirst finding, {fault or 'no fault'}: {shown}", end="")
    wrong = [row for row in healthy if seen(row)]
    wrong += [r for r in faulty if any(f.blames_weights for f in seen(r))]
    wrong += [row for row, is_early in zip(late, early, strict=True) if is_early]
    print("\n\nfalse alarms, called a bad initialization, found before the fault began:")
    for row in wrong:
        print(" ".join(str(row[name]) for name in COLUMNS if row[name] != ""))


def show_fault(fault, rows):
    """Print the rates of one kind of fault."""
    after = [[f for f in seen(row) if f.step >= int(row["onset"])] for row in rows]
    told = [findings for findings in after if findings]
    harmed = [bool(f) for r, f in zip(rows, after, strict=True) if r["outcome"] != "trains"]
    others = [bool(f) for r, f in zip(rows, after, strict=True) if r["outcome"] == "trains"]
    steps = [findings[0].step - FAULTS[fault][0] for findings in told]
    right = sum(
        any(f.code in RIGHT[fault] for f in findings if f.step == findings[0].step)
        for findings in told
    )
    blamed = sum(any(f.blames_weights for f in seen(row)) for row in rows)
    cells = (
        *(f"`{fault}`", len(rows), len(harmed)),
        *(f"{sum(harmed)} of {len(harmed)}", f"{sum(others)} of {len(others)}"),
        *(f"{right} of {len(told)}", f"{blamed} of {len(rows)}"),
        f"{np.median(steps):.0f}" if steps else "-",
    )
    print("|", " | ".join(map(str, cells)), "|")


def read(path=TABLE):
    """The rows of the table, as dicts of strings."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--judge", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--half", choices=["calibrate", "report", "both"], default="both")
    parser.add_argument("--list", action="store_true", help="each run that is judged wrong")
    parser.add_argument("--only", default="", help="record runs whose id has this in it")
    parser.add_argument("--part", default="0/1", help="0/2 and 1/2: for two processes")
    parser.add_argument("--out", type=pathlib.Path, default=TABLE)
    parser.add_argument("--architectures", type=int, default=len(FAMILIES))
    arguments = parser.parse_args()
    if arguments.record:
        part, parts = map(int, arguments.part.split("/"))
        record_all(
            *(arguments.record, arguments.architectures, arguments.only, part, parts)
        )
    if arguments.judge:
        judge_all(arguments.judge, arguments.out, arguments.architectures)
    if arguments.report:
        rows = read(arguments.out)
        halves = ["calibrate", "report"] if arguments.half == "both" else [arguments.half]
        report([row for row in rows if row["half"] in halves], arguments.list)


if __name__ == "__main__":
    main()

"""Which networks train that have operations between their weight layers.

    python tests/benchmarks/operations.py [--count N] [--processes K]   # train and measure
    python tests/benchmarks/operations.py --measure         # measure all of the file again
    python tests/benchmarks/operations.py --report [--list] # the rates, from the file

An operation multiplies the size of the signal and has no weights that an initializer
could set: a sum over nodes, a product by a constant, x * x, a cumulative sum, attention
without scale or softmax, a hand-written normalization. All initializers suit their
activation function and all inputs are of unit size, so that what does not train does not
because of an operation.

Network number i is drawn with a generator seeded by i, so that any first part of the
population is a fair sample of it. About half are designs as they are published (GIN with
normalization, GCN, DeepSets, squeeze-excite, gates, attention over tokens times sqrt(d),
sums of skips, constants that cancel); the others are drawn over a grid of sizes, without
regard to whether that is wise. They are written as users write: `keras.ops` in the
functional API, `Lambda`, or a layer of their own. Each row of the CSV rebuilds its network
exactly (`build`); numbers that are in the file already are not trained again.

The label is that of `trainability.py`, by the same code: whether the network trains, and
nothing else. No statistic of activations, weights or gradients enters it.

The halves are by a hash of the architecture (recipe, depth, width, activation, nodes,
operation, pooling), "calibrate" for setting a limit, "report" for figures to publish. No
architecture is in both.

Measured at initialization, by `audit` of the 64 samples of the first step, along the open
growth_range with the most weight layers:

    decades     growth without operations, as `depth_profile` judges it today
    total       log10 of the last measured rms over the first, operations included
    whole       the same from the output of the range's first weight layer: `total` begins
                behind the operations that follow it at the same depth
    left_out    steps that `decades` leaves out; left_sum is their sum
    harm, harm_whole    of `total` and of `whole`: decades away from size 1 alone, as in
                `rules/size.py`
    codes       today's findings
    times       places with an operation; a mean over neighbours before a sum is none
"""

import argparse
import csv
import dataclasses
import functools
import hashlib
import itertools
import math
import multiprocessing
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import error_rates
import keras
import numpy as np
import tensorflow as tf
import trainability
from keras import layers, ops

from activation_monitor import audit
from activation_monitor.analysis import depth_profile as profiles
from activation_monitor.analysis import growth
from activation_monitor.analysis.rules import size as rules
from activation_monitor.analysis.thresholds import limit

POPULATION = pathlib.Path(__file__).with_name("operations.csv")
FRESH = 25  # networks until a new process starts: TensorFlow keeps 40 MB of each

ARCHITECTURE = [
    "recipe",
    "depth",
    "width",
    "activation",
    "nodes",
    "operation",
    "pool",
    "pool_at",
]
CONFIG = [
    *ARCHITECTURE,
    "kind",
    "place",
    "size",
    "fix",
    "written",
    "initializer",
    "seed",
]
MEASURED = [
    "times",
    "decades",
    "total",
    "whole",
    "first_rms",
    "whole_rms",
    "last_rms",
    "layers",
    "left_out",
    "left_sum",
    "harm",
    "harm_whole",
    "chance_sd",
    "codes",
]
COLUMNS = ["id", *CONFIG, *trainability.RESULT, *MEASURED]

ACTIVATIONS = {
    "relu": 0.40,
    "leaky_relu": 0.08,
    "gelu": 0.14,
    "silu": 0.10,
    "elu": 0.10,
    "selu": 0.05,
    "tanh": 0.13,
}
RECIPES = {
    "published": [
        "gin",
        "gin",
        "gcn",
        "deepsets",
        "deepsets",
        "deepsets_mean",
        "equivariant",
        "equivariant",
        "squeeze_excite",
        "glu",
        "skip",
        "attention",
        "attention_unscaled",
        "scale_back",
        "scale_back",
        "sum_readout",
        "sum_readout",
    ],
    "graded": [
        *["scale"] * 6,
        *["sum_neighbours"] * 4,
        *["sum_nodes"] * 2,
        "cumsum",
        "square",
        "product",
        "attention_linear",
        "mean_neighbours",
        *["pool_sum"] * 2,
    ],
}
NODES = {4: 0.15, 8: 0.2, 16: 0.3, 64: 0.25, 256: 0.1}
NORMALIZED = ["layer_norm", "layer_norm", "batch_norm", "rms", "standardize"]


def draw(number):
    """The configuration of network `number`."""
    rng = np.random.default_rng([13, number])

    def pick(options):
        if isinstance(options, dict):
            weights = np.array(list(options.values()))
            options = list(options)
            return options[rng.choice(len(options), p=weights / weights.sum())]
        return options[rng.integers(len(options))]

    row = dict.fromkeys(CONFIG, "") | {"seed": number, "place": "each", "size": 1}
    row["kind"] = pick(["published", "graded"])
    row["recipe"] = recipe = pick(RECIPES[row["kind"]])
    row["activation"] = pick(ACTIVATIONS)
    row["initializer"] = pick(trainability.SUITED[row["activation"]])
    row["written"] = pick(["ops", "lambda", "layer"])
    row["operation"] = recipe
    dense = recipe in ("squeeze_excite", "glu", "skip", "scale_back", "scale", "square")
    dense = dense or recipe == "product"
    nodes = row["nodes"] = 0 if dense else int(pick(NODES))
    if recipe.startswith("attention"):
        nodes = row["nodes"] = pick([16, 64])
    row["width"] = pick([32, 64, 96] if nodes < 16 else [32, 48] if nodes < 64 else [32])
    depth = row["depth"] = pick([3, 5, 8] if dense else [3, 4, 6] if nodes < 64 else [3, 4])
    if not dense:
        row |= {"pool": "mean", "pool_at": depth - 1}
    near = [k for k in (3, 8, 24, 63) if k < nodes] or [3]
    match recipe:
        case "gin":
            row |= {"operation": "sum_neighbours", "size": pick(near)}
            row |= {
                "place": "second",
                "fix": pick(NORMALIZED),
                "pool": pick(["mean", "sum"]),
            }
        case "gcn":
            row |= {"operation": "mean_neighbours", "size": pick(near)}
        case "deepsets" | "deepsets_mean":
            fixes = ["", "", "layer_norm", "rms", "small_weights", "inverse"]
            row |= {"operation": "", "pool_at": depth // 2 - (depth == 3), "size": nodes}
            if recipe == "deepsets":
                row |= {"pool": "sum", "fix": pick(fixes)}
        case "equivariant":
            row |= {"operation": "sum_nodes", "size": nodes}
            row["fix"] = pick([*NORMALIZED, "inverse", "centre", "small_weights"])
        case "attention" | "attention_unscaled":
            row |= {"fix": pick(["layer_norm", "layer_norm", "rms", ""]), "pool": "flatten"}
        case "scale_back":
            row |= {"operation": "scale", "place": pick(["once", "each"])}
            fixes = [*NORMALIZED, "inverse", "small_weights", "small_weights"]
            row["fix"] = pick(
                fixes if row["place"] == "each" else [*fixes, "later", "later"]
            )
            row["size"] = pick([0.01, 0.1, 10, 100, round(math.sqrt(row["width"]), 3)])
        case "sum_readout":
            row |= {"operation": pick(["", "mean_neighbours"]), "pool": "sum"}
            row |= {"size": pick(near) if row["operation"] else nodes}
            row["fix"] = pick(["", "", "small_head", "layer_norm"])
        case "scale":
            row["place"] = pick(["each", "each", "once", "end"])
            # Up to 4 decades up and 6 down, in as many steps as there are places.
            largest = min(2 * len(places(row)), 4)
            total = rng.uniform(-min(2 * len(places(row)), 6), largest)
            row["size"] = float(f"{10 ** (total / len(places(row))):.3g}")
        case "sum_neighbours":
            row |= {"size": pick(near), "fix": pick(["", "", "sqrt", "sqrt", "centre"])}
        case "sum_nodes":
            row |= {"size": nodes, "place": pick(["each", "once"])}
            row["fix"] = pick(["", "", "sqrt"])
        case "mean_neighbours":
            row["size"] = near[-1]
        case "cumsum" | "square" | "product" | "attention_linear":
            row["place"] = pick(["each", "each", "once"])
        case "pool_sum":
            row |= {"operation": "", "pool": "sum", "size": nodes}
            row["pool_at"] = pick([depth - 1, depth - 1, depth // 2])
    return row


def half(row):
    """The half that this architecture belongs to."""
    key = "/".join(str(row[name]) for name in ARCHITECTURE)
    even = hashlib.sha256(key.encode()).digest()[0] % 2 == 0
    return "calibrate" if even else "report"


def places(row):
    """Hidden layers behind which the operation stands."""
    depth = int(row["depth"])
    if row["operation"] == "":
        return []
    start = 1 if row["operation"] == "skip" else 0
    return {
        "each": list(range(start, depth)),
        "second": list(range(1, depth, 2)),
        "once": [depth // 2],
        "end": [depth - 1],
    }[row["place"]]


# -- the operations


def positions(nodes):
    """Of nodes on the grid of the image: row and column, each of unit size."""
    high = {4: 2, 8: 8, 16: 4, 64: 8, 256: 16}[nodes]
    grid = np.indices((high, nodes // high)).reshape(2, -1).T.astype("float32")
    return (grid - grid.mean(axis=0)) / np.maximum(grid.std(axis=0), 1e-6)


@functools.cache
def adjacency(nodes, count):
    """Each node's `count` nearest ones, without itself: a matrix of zeros and ones."""
    where = positions(nodes)
    distance = np.linalg.norm(where[:, None] - where[None], axis=-1)
    order = np.argsort(distance, axis=1, kind="stable")[:, 1 : count + 1]
    matrix = np.zeros((nodes, nodes), "float32")
    np.put_along_axis(matrix, order, 1.0, axis=1)
    return matrix


def operation(row):
    """What the operation computes, as a function of a tensor."""
    nodes, size = int(row["nodes"]), float(row["size"])
    if row["operation"] == "scale":
        return lambda x: x * size
    if row["operation"] == "sum_neighbours":
        return lambda x: x + ops.matmul(adjacency(nodes, int(size)), x)
    if row["operation"] == "mean_neighbours":
        return lambda x: ops.matmul(adjacency(nodes, int(size)), x) / size
    return {
        "sum_nodes": lambda x: x + ops.sum(x, axis=1, keepdims=True),
        "cumsum": lambda x: ops.cumsum(x, axis=1),
        "square": lambda x: x * x,
    }[row["operation"]]


POOLS = {
    "sum": lambda x: ops.sum(x, axis=1),
    "mean": lambda x: ops.mean(x, axis=1),
    "flatten": lambda x: ops.reshape(x, (-1, math.prod(x.shape[1:]))),
}
UNDONE = {
    "rms": lambda x: x / ops.sqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6),
    "centre": lambda x: x - ops.mean(x, axis=-1, keepdims=True),
    "standardize": lambda x: (
        (x - ops.mean(x, axis=-1, keepdims=True))
        / (ops.std(x, axis=-1, keepdims=True) + 1e-5)
    ),
}


class Compute(layers.Layer):
    """A layer of a user's own, without weights."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)


class PositionEmbedding(layers.Layer):
    """Adds a learned vector to each token."""

    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], initializer="uniform", name="table")

    def call(self, x):
        return x + self.table


def written(row, function, name):
    """The function, in the network number's way of writing it."""
    if row["written"] == "ops":
        return function
    return {"lambda": layers.Lambda, "layer": Compute}[row["written"]](function, name=name)


# -- the networks


def build(row):
    """The network, not compiled: hidden_0.., each with its operation, and `head`."""
    keras.utils.set_random_seed(int(row["seed"]))
    depth, width, nodes = int(row["depth"]), int(row["width"]), int(row["nodes"])
    size, at = float(row["size"]), places(row)
    pool_at = int(row["pool_at"]) if row["pool"] else None
    recipe, kind, fix = row["recipe"], row["operation"], row["fix"]
    fixed_behind_pool = kind == ""

    def dense(name, units=width, activation=None, index=0):
        # of the projections, without an activation function: Keras' default
        kernel = (
            trainability.initializer(row, index)
            if activation == row["activation"]
            else keras.initializers.GlorotUniform(seed=int(row["seed"]) * 1000 + index)
        )
        return layers.Dense(units, activation, kernel_initializer=kernel, name=name)

    def undo(x, i):
        if fix == "layer_norm":
            return layers.LayerNormalization(name=f"norm_{i}")(x)
        if fix == "batch_norm":
            return layers.BatchNormalization(name=f"norm_{i}")(x)
        if fix in ("inverse", "sqrt"):
            divisor = size if fix == "inverse" else math.sqrt(size)
            return written(row, lambda x: x / divisor, f"fix_{i}")(x)
        if fix in UNDONE:
            return written(row, UNDONE[fix], f"fix_{i}")(x)
        return x

    def gate(x, i):
        index = 100 + 10 * i
        if kind == "product":
            return dense(f"left_{i}", index=index)(x) * dense(
                f"right_{i}", index=index + 1
            )(x)
        if kind == "glu":
            gates = dense(f"gate_{i}", activation="sigmoid", index=index)(x)
            return layers.Multiply(name=f"gated_{i}")([x, gates])
        squeezed = dense(f"squeeze_{i}", width // 4, "relu", index)(x)
        excited = dense(f"excite_{i}", activation="sigmoid", index=index + 1)(squeezed)
        return layers.Multiply(name=f"gated_{i}")([x, excited])

    def attend(x, i):
        names = enumerate(("query", "key", "value"))
        q, k, v = (dense(f"{name}_{i}", index=100 + 10 * i + j)(x) for j, name in names)
        scores = ops.matmul(q, ops.transpose(k, (0, 2, 1)))
        if kind == "attention_linear":
            return x + ops.matmul(scores, v)
        if kind == "attention":
            scores = scores / math.sqrt(width)
        return x + ops.matmul(ops.softmax(scores), v)

    if recipe in (
        "attention",
        "attention_unscaled",
    ):  # tokens: the brightness of each pixel
        inputs = keras.Input((nodes,))
        x = layers.Embedding(17, width, name="embedding")(inputs)
        # Keras 3 takes `x * number` of Keras tensors for sparse: no layer can add to it
        cls = Compute if row["written"] == "layer" else layers.Lambda
        x = cls(lambda x: x * math.sqrt(width), name="embedding_scale")(x)
        x = PositionEmbedding(name="position")(x)
    else:
        inputs = x = keras.Input((nodes, features(nodes)) if nodes else (64,))
    for i in range(depth):
        before = x
        x = dense(f"hidden_{i}", activation=row["activation"], index=i)(x)
        if i in at:
            if kind == "skip":
                x = layers.Add(name=f"add_{i}")([before, x])
            elif kind in ("product", "glu", "squeeze_excite"):
                x = gate(x, i)
            elif kind.startswith("attention"):
                x = attend(x, i)
            else:
                x = written(row, operation(row), f"op_{i}")(x)
            x = undo(x, i)
        if i == pool_at:
            x = written(row, POOLS[row["pool"]], "pool")(x)
            if fixed_behind_pool:
                x = undo(x, "pool")
    if fix == "later":
        x = written(row, lambda x: x / size, "back")(x)
    outputs = dense("head", 10, index=999)(x)
    model = keras.Model(inputs, outputs, name="net")
    smaller = {}
    if fix == "small_weights":
        behind = [pool_at] if fixed_behind_pool else at
        names = [f"hidden_{i + 1}" if i + 1 < depth else "head" for i in behind]
        smaller = dict.fromkeys(names, size)
    elif fix == "small_head":
        smaller = {"head": 100.0}
    for name, factor in smaller.items():
        kernel = model.get_layer(name).kernel
        kernel.assign(kernel / factor)
    return model


def features(nodes):
    """Numbers that each node has: 64 up to 16 nodes, 18 of more."""
    return 64 if nodes < 64 else 18


def data(row):
    """All 1797 digits, as this network gets them.

    Up to 16 nodes each has a part of the image, the rest of it zero: a pooled network can
    learn what one with all pixels can. Of more, a pixel times its row and its column.
    """
    nodes = int(row["nodes"])
    x, y = trainability.digits()
    if row["recipe"] in ("attention", "attention_unscaled"):
        if nodes == 16:  # the brightest of 2 x 2
            x = x.reshape(-1, 4, 2, 4, 2).max(axis=(2, 4)).reshape(-1, 16)
        return x.astype("float32"), y.astype("int32")
    x = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    if 0 < nodes < 64:
        high = {4: 2, 8: 8, 16: 4}[nodes]
        row_of, column_of = (
            np.indices((8, 8)) // np.array([8 // high, 8 * high // nodes])[:, None, None]
        )
        node_of = (row_of * (nodes // high) + column_of).ravel()
        x = x[:, None] * (node_of == np.arange(nodes)[:, None]) * math.sqrt(nodes)
    elif nodes:
        where = np.concatenate([np.eye(8)[axis.ravel()] for axis in np.indices((8, 8))], 1)
        where = np.concatenate([where, positions(64)], axis=1)
        x = x[:, :, None] * where * math.sqrt(18 / 4)  # of unit size
        x = x.reshape(-1, 8, 8, 18)
        times = math.isqrt(nodes // 64)
        x = x.repeat(times, axis=1).repeat(times, axis=2).reshape(-1, nodes, 18)
    return x.astype("float32"), y.astype("int32")


# -- what is measured


def measure(row):
    """The sizes along the open growth range before any training, and today's findings."""
    model, (x, _) = build(row), data(row)
    diagnosis = audit(model, x[trainability.order(row)[0]])
    codes = " ".join(dict.fromkeys(f.code for f in diagnosis.findings))
    means = row["operation"] == "mean_neighbours" and row["pool"] == "sum"
    times = (0 if means else len(places(row))) + (row["pool"] == "sum")
    found = {"times": times, "codes": codes}
    if diagnosis.first is None:
        return found
    return found | sizes(diagnosis.first)


def sizes(snapshot):
    """Growth along the open growth range with the most weight layers."""
    profile = profiles.depth_profile(snapshot)
    rms = np.where(snapshot.field("nonfinite") > 0, np.nan, snapshot.statistic("rms"))
    is_open = [s for s in profile.growth_ranges if s.open and s.measured]
    if not is_open:
        return {}
    growth_range = profile.main or max(is_open, key=lambda s: len(s.points))
    rows = next(
        part
        for segment in profile.segments
        if segment.open
        for part in growth.parts(segment.rows, profile.graph.layers, rms)
        if {point.row for point in growth_range.points} <= set(part)
    )
    first, last = growth_range.measured[0], growth_range.measured[-1]
    walk = [r for r in rows[rows.index(first.row) : rows.index(last.row) + 1] if rms[r] > 0]
    steps = [
        (math.log10(rms[b] / rms[a]), profile.depths[a] == profile.depths[b], b)
        for a, b in itertools.pairwise(walk)
    ]
    left = [
        change
        for change, same_depth, row in steps
        if same_depth
        and (
            profile.graph.layers[row].kind == "pooling" or abs(change) > limit("operation")
        )
    ]
    total = math.log10(last.rms / first.rms)
    begin = float(rms[rows[0]])
    whole = math.log10(last.rms / begin) if begin > 0 else math.nan
    judged = dataclasses.replace(growth_range, decades=total)
    start = dataclasses.replace(first, rms=begin)
    judged_whole = dataclasses.replace(
        growth_range, decades=whole, measured=(start, *growth_range.measured)
    )
    # One weight layer, an operation, the head: `_harm` would not judge it.
    layers_between = growth_range.layers
    if layers_between < 1:
        harm_whole = discounted(whole, begin)
    else:
        harm_whole = rules._harm(judged_whole, profile)
    numbers = {
        "decades": growth_range.decades,
        "total": total,
        "whole": whole,
        "first_rms": first.rms,
        "whole_rms": begin,
        "last_rms": last.rms,
        "left_sum": sum(left),
        "harm": rules._harm(judged, profile),
        "harm_whole": harm_whole,
        "chance_sd": growth_range.chance_sd,
    }
    shown = {name: f"{value:.4g}" for name, value in numbers.items()}
    return shown | {"layers": layers_between, "left_out": len(left)}


def discounted(decades, begin):
    """As `rules/size.py` discounts growth towards 1."""
    if not math.isfinite(decades):
        return 0.0
    start = math.log10(begin)
    if decades > 0:
        return max(decades + min(start, 0.0), 0.0)
    return min(decades + max(start, 0.0), 0.0)


# -- the run


def examined(row):
    """One row, trained if it is not labelled yet; runs in a process of its own."""
    quiet()
    if "label" not in row:
        row = row | trainability.label(build(row), *data(row), trainability.order(row))
        keras.backend.clear_session()
    row = row | measure(row)
    keras.backend.clear_session()
    return row


def quiet():
    tf.get_logger().setLevel("ERROR")  # each network is a new trace, as it should be
    if not tf.config.threading.get_intra_op_parallelism_threads():
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def written_rows(rows, path, mode, processes):
    """Examine the rows and write each as it comes, in order."""
    # Not concurrent.futures: its max_tasks_per_child hangs (python/cpython#115634).
    context = multiprocessing.get_context("spawn")
    with open(path, mode, newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        if mode == "w" or not path.stat().st_size:
            writer.writeheader()
        with context.Pool(processes, maxtasksperchild=FRESH) as pool:
            for row in pool.imap(examined, rows):
                writer.writerow(row)
                file.flush()
                print(" ".join(str(v) for v in row.values() if v != ""), flush=True)


# -- the rates

HARMS = {"harm": "total", "harm_whole": "whole"}
GROWTH = ("exploding-activations", "vanishing-activations")
BEYOND = 1.1  # a limit fitted to the good ones is so much beyond the largest of them


def alarm(row, column, up, down):
    """Whether a limit on this growth, operations included, is passed."""
    value = float(row[column] or 0)
    return value > up or value < -down


def is_repeated(row):
    """Whether operations stand at several places, not at a single one."""
    return int(row["times"]) > 1


def fitted(rows, column):
    """Limits beyond the largest harm of the good networks, up and down."""
    values = [float(row[column] or 0) for row in rows if row["label"] == "good"]
    return BEYOND * max(values), BEYOND * -min(values)


def report(rows, listed):
    calibrate = [row for row in rows if row["half"] == "calibrate"]
    for name in ("calibrate", "report"):
        of_half = [row for row in rows if row["half"] == name]
        counts = {
            k: sum(r["label"] == k for r in of_half) for k in ("good", "bad", "partial")
        }
        print(f"{name}: {len(of_half)} networks,", counts)
    print("\nThe three furthest from 0 among the good, up and down (decades)")
    for column, name in itertools.product(HARMS, ("calibrate", "report")):
        for which, chosen in (("single", False), ("repeated", True)):
            group = [r for r in rows if r["half"] == name and is_repeated(r) == chosen]
            good = sorted(float(r[column] or 0) for r in group if r["label"] == "good")
            up, down = good[-3:][::-1], good[:3]
            print(f"{column:10} {name:9} {which:8} up {up} down {down} of {len(good)}")
    print("\nThe three nearest to 0, up and down (decades)")
    for column, name, label in itertools.product(
        HARMS, ("calibrate", "report"), ("bad", "partial")
    ):
        group = [r for r in rows if r["half"] == name and r["label"] == label]
        near = sorted((float(r[column] or 0) for r in group), key=abs)
        up, down = [v for v in near if v > 0][:3], [v for v in near if v <= 0][:3]
        print(f"{column:10} {name:9} {label:8} up {up} down {down} of {len(near)}")
    today = limit("exploding"), limit("vanishing")
    rules_of = {"today's growth rule": lambda r: any(c in r["codes"] for c in GROWTH)}
    rules_of["all of today's findings"] = lambda r: bool(r["codes"])
    for column, kind in HARMS.items():
        for name, ends in (("today's", today), ("fitted", fitted(calibrate, column))):
            title = f"{kind} beyond {name} +{ends[0]:.3g} -{ends[1]:.3g}"
            rule = functools.partial(alarm, column=column, up=ends[0], down=ends[1])
            rules_of[title] = rule
            rules_of[f"  or any of today's findings ({kind}, {name})"] = (
                lambda r, rule=rule: rule(r) or bool(r["codes"])
            )
    rate = error_rates.rate
    print("\nOf all networks whose `whole` passes a limit: good, partial, bad")
    for ends in ((0.9, 1.2), (1.0, 1.5), (1.2, 1.7), (1.5, 2.0), (1.8, 2.4), (2.1, 2.75)):
        for way, end in zip((1, -1), ends, strict=True):
            past = [r for r in rows if way * float(r["harm_whole"] or 0) > end]
            counts = [
                sum(r["label"] == k for r in past) for k in ("good", "partial", "bad")
            ]
            print(f"{'up' if way > 0 else 'down'} {end}: {counts}")
    groups = {
        "calibrate": lambda r: r["half"] == "calibrate",
        "report": lambda r: r["half"] == "report",
        "report, single": lambda r: r["half"] == "report" and not is_repeated(r),
        "report, repeated": lambda r: r["half"] == "report" and is_repeated(r),
    }
    for name, belongs in groups.items():
        group = [row for row in rows if belongs(row)]
        by = {k: [r for r in group if r["label"] == k] for k in ("good", "bad", "partial")}
        print(f"\n{name}: false alarms of the good | misses of the bad | alarms, partial")
        for title, rule in rules_of.items():
            print(
                f"{title:58} {rate([rule(r) for r in by['good']]):32}"
                f"{rate([not rule(r) for r in by['bad']]):32}"
                f"{sum(map(rule, by['partial']))}/{len(by['partial'])}"
            )
    if listed:
        for row in sorted(rows, key=lambda r: float(r["harm_whole"] or 0)):
            shown = ["id", "half", "label", "harm", "harm_whole", "decades", "times"]
            shown += ["adam", "sgd", "adam_small", *CONFIG[:-1], "codes"]
            print(" ".join(row[name] for name in shown if row[name] != ""))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=160, help="size of the population")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--measure", action="store_true", help="keep the labels")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--list", action="store_true", help="each false alarm and miss")
    parser.add_argument("--out", type=pathlib.Path, default=POPULATION)
    arguments = parser.parse_args()
    known = trainability.read(arguments.out) if arguments.out.exists() else []
    if arguments.measure:
        kept = [
            {name: row[name] for name in COLUMNS if name not in MEASURED} for row in known
        ]
        written_rows(kept, arguments.out, "w", arguments.processes)
    elif not arguments.report:
        done = {int(row["id"]) for row in known}
        rows = [draw(i) | {"id": i} for i in range(arguments.count) if i not in done]
        rows = [row | {"half": half(row)} for row in rows]
        written_rows(rows, arguments.out, "a", arguments.processes)
        rows = sorted(trainability.read(arguments.out), key=lambda row: int(row["id"]))
        with open(arguments.out, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    if arguments.report:
        report(known, arguments.list)


if __name__ == "__main__":
    main()

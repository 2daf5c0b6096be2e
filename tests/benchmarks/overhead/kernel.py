"""The kernel alone, against one read of the tensor.

One sum reads a tensor once: no exact statistic can be cheaper.
"""

import time

import numpy as np
import tensorflow as tf
from intervals import median

import models
from activation_monitor.recording.backends.tensorflow import stores

SHAPES = ((128, 512), (32, 64, 512), (32, 16, 16, 256))


def one_sum(x):
    return tf.reduce_sum(x)


def naive(x):
    return tf.reduce_mean(x), tf.math.reduce_std(x)


def ours(fused, histograms):
    """A function that measures a tensor as a sampled step does, into a store."""
    store = stores.Store(histograms, merges=False)
    return lambda x: store.put(x, exact=False, fused=fused)


def kernels(fused):
    """Name to a compiled function of a tensor."""
    functions = {
        "one sum": one_sum,
        "mean and std, naive": naive,
        "ours": ours(fused, histograms=False),
        "ours, histogram": ours(fused, histograms=True),
    }
    return {
        name: tf.function(function, jit_compile=fused, autograph=False)
        for name, function in functions.items()
    }


def compare(mode: str, precision: str, rounds: int) -> list[dict]:
    """Call the kernels in turn.

    Args:
        mode: "graph" or "xla".
        precision: A dtype policy. Its compute dtype is that of the tensors.
        rounds: Calls of each.

    Returns:
        One dict for each shape and kernel, with `seconds` and with the `ratio` to one sum
        in the same round.
    """
    dtype = precision.removeprefix("mixed_")
    found = []
    for shape in SHAPES:
        x = tf.cast(tf.nn.relu(tf.random.normal(shape, seed=0)), dtype)
        functions = kernels(fused=mode == "xla")
        seconds = {name: [] for name in functions}
        for i in range(rounds + 1):
            for name in list(functions)[:: -1 if i % 2 else 1]:
                began = time.perf_counter()
                outputs = functions[name](x)
                for output in tf.nest.flatten(outputs):
                    output.numpy()
                seconds[name].append(time.perf_counter() - began)
        one = np.array(seconds["one sum"][1:])  # the first call traces
        for name in functions:
            mine = np.array(seconds[name][1:])
            way = models.Way("x".join(map(str, shape)), mode, precision)
            found.append(
                way._asdict()
                | {"kernel": name, "ratio": median(mine / one)._asdict()}
                | {"seconds": median(mine)._asdict()}
            )
    return found

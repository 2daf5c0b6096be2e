"""Who is compared: one row of `CONTESTANTS` each.

A contestant is a context manager around its `fit`. It gets a compiled model, a batch and
a folder, may change the model, and yields the callbacks of the `fit`.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from activation_monitor import ActivationMonitor


class Contestant(NamedTuple):
    """A row.

    Attributes:
        name: For the table.
        enter: The context manager.
        ours: Whether it is this package.
        epochs_of_one: Whether its epochs have one step only.
        against: Name of the contestant that it is divided by.
        note: What to know about the figure.
    """

    name: str
    enter: Callable
    ours: bool = False
    epochs_of_one: bool = False
    against: str = "no monitor"
    note: str = ""


def nothing(model, x, folder):
    """No callbacks."""
    return contextlib.nullcontext([])


# -- ours


def ours(log=False, **options):
    """A monitor; `options` are its arguments."""

    def enter(model, x, folder):
        # Findings would be printed between the rows. They are made all the same.
        options.setdefault("on_finding", lambda finding: None)
        monitor = ActivationMonitor(folder if log else None, **options)
        return contextlib.nullcontext([monitor])

    return enter


# -- theirs


def tensorboard(model, x, folder):
    """Keras' own: histograms of the weights at the end of each epoch."""
    board = keras.callbacks.TensorBoard(folder, histogram_freq=1, write_graph=False)
    return contextlib.nullcontext([board])


def folk(run):
    """The recipe of many a forum: a second model with the outputs of all layers."""

    def enter(model, x, folder):
        all_outputs = keras.Model(model.inputs, [layer.output for layer in hidden(model)])

        def sample(batch, logs):
            for output in run(all_outputs, x):
                float(np.mean(output)), float(np.std(output))

        callback = keras.callbacks.LambdaCallback(on_train_batch_end=sample)
        return contextlib.nullcontext([callback])

    return enter


def called(model, x):
    return [output.numpy() for output in model(x, training=False)]


def predicted(model, x):
    return model.predict(x, verbose=0)


def summary_in_call(model, x, folder):
    """As in the documentation of Keras' TensorBoard callback, in every layer."""
    for layer in hidden(model):
        layer.call = with_summary(layer.call, layer.name)
    board = keras.callbacks.TensorBoard(folder, update_freq=1, write_graph=False)
    return contextlib.nullcontext([board])


def with_summary(call, name):
    @functools.wraps(call)
    def summarizing(*args, **kwargs):
        outputs = call(*args, **kwargs)
        tf.summary.histogram(name, outputs)
        return outputs

    return summarizing


@contextlib.contextmanager
def check_numerics(model, x, folder):
    """TensorFlow's check of every operation. It concerns the thread that enables it."""
    tf.debugging.enable_check_numerics()
    try:
        yield []
    finally:
        tf.debugging.disable_check_numerics()


@contextlib.contextmanager
def debugger_v2(model, x, folder):
    """TensorBoard's Debugger V2. It concerns the thread that enables it."""
    tf.debugging.experimental.enable_dump_debug_info(
        folder, tensor_debug_mode="FULL_HEALTH", circular_buffer_size=1000
    )
    try:
        yield []
    finally:
        tf.debugging.experimental.disable_dump_debug_info()


def hidden(model):
    """The layers of a model without its inputs, as a user lists them."""
    return [
        layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)
    ]


EPOCHS = "no monitor, epochs of one step"

CONTESTANTS = (
    Contestant("no monitor", nothing),
    Contestant(
        "ours, default schedule",
        ours(log=True),
        ours=True,
        note="The median is that of a step that is not sampled. See the part `fit`.",
    ),
    Contestant(
        "ours, every step, outputs only",
        ours(sample_every=1, histograms=False, gradients=False),
        ours=True,
        note="`gradients=False`: outputs, weights and updates.",
    ),
    Contestant("ours, every step", ours(sample_every=1, histograms=False), ours=True),
    Contestant(
        "ours, every step, outputs only, histograms",
        ours(sample_every=1, gradients=False),
        ours=True,
        note="`gradients=False`: outputs, weights and updates.",
    ),
    Contestant("ours, every step, histograms", ours(sample_every=1), ours=True),
    Contestant(
        "ours, every step, log",
        ours(log=True, sample_every=1, histograms=False),
        ours=True,
    ),
    Contestant(
        "ours, every step, histograms, log", ours(log=True, sample_every=1), ours=True
    ),
    Contestant(
        "ours, flight recorder",
        ours(flight_recorder=8),
        ours=True,
        note="The median is that of a step that is kept and not read.",
    ),
    Contestant(EPOCHS, nothing, epochs_of_one=True),
    Contestant(
        "keras TensorBoard(histogram_freq=1)",
        tensorboard,
        epochs_of_one=True,
        against=EPOCHS,
        note="Weights only, once per epoch. An epoch is one step here, for it and for what "
        "it is divided by, so that the ratio is that of a step with histograms.",
    ),
    Contestant(
        "sub-model called",
        folk(called),
        note="A second forward pass of a fixed batch, in inference mode.",
    ),
    Contestant(
        "sub-model predict",
        folk(predicted),
        note="A second forward pass of a fixed batch, in inference mode.",
    ),
    Contestant(
        "tf.summary.histogram in call",
        summary_in_call,
        note="With TensorBoard(update_freq=1), which also writes the loss.",
    ),
    Contestant(
        "enable_check_numerics", check_numerics, note="Finds NaN and infinity only."
    ),
    Contestant("Debugger V2, FULL_HEALTH", debugger_v2),
)

NAMES = {contestant.name: contestant for contestant in CONTESTANTS}

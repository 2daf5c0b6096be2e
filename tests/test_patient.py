"""The instrument does not touch the patient: training is the same with and without."""

import re
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

import models
from activation_monitor import ActivationMonitor
from cases import cases

SETTINGS = {
    "plain": {},
    "xla": {"jit_compile": True},
    "auto": {"jit_compile": "auto"},
    "eager": {"run_eagerly": True},
    "two steps per execution": {"steps_per_execution": 2},
    "three steps per execution, unrolled": {"steps_per_execution": 3, "unrolled": 2},
    "two steps per execution, xla": {"steps_per_execution": 2, "jit_compile": True},
    "two steps per execution, eager": {"steps_per_execution": 2, "run_eagerly": True},
    "float16": {"dtype": "mixed_float16"},
    "float16, xla": {"dtype": "mixed_float16", "jit_compile": True},
    "bfloat16": {"dtype": "mixed_bfloat16"},
}


def trained(settings, monitored, folder):
    """Everything that training leaves behind: history, weights, optimizer, files.

    50 samples in batches of 8 make a last batch of 2; validation runs in between.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    options = dict(settings)
    dtype, unrolled = options.pop("dtype", "float32"), options.pop("unrolled", 1)
    keras.config.set_dtype_policy(dtype)
    model = models.image_network()
    model.compile(
        keras.optimizers.Adam(1e-2),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        **options,
    )
    model.unrolled_steps_per_execution = unrolled
    monitor = ActivationMonitor(folder / "logs", sample_every=2)
    history = model.fit(
        models.IMAGES,
        models.LABELS,
        batch_size=8,
        epochs=2,
        verbose=0,
        validation_data=(models.IMAGES[:9], models.LABELS[:9]),
        callbacks=[monitor] if monitored else [],
    )
    model.save(folder / "model.keras")
    with zipfile.ZipFile(folder / "model.keras") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    # Keras writes the date into the one and memory addresses into the other.
    del files["metadata.json"]
    address = rb'"shared_object_id": \d+'
    files["config.json"] = re.sub(address, b"", files["config.json"])
    model.save_weights(folder / "model.weights.h5")
    files["model.weights.h5, by itself"] = (folder / "model.weights.h5").read_bytes()
    variables = [v.numpy() for v in (*model.weights, *model.optimizer.variables)]
    return history.history, variables, files, monitor


UNROLLED = "three steps per execution, unrolled"


@pytest.mark.parametrize(
    "setting",
    cases(
        SETTINGS,
        default=["plain", "xla", "eager", "float16", UNROLLED],
        smoke=["plain", "xla", "float16"],
    ),
)
def test_training_is_bit_identical(setting, tmp_path):
    """Losses, metrics and their keys, weights, optimizer state, saved files."""
    history, variables, files, _ = trained(SETTINGS[setting], False, tmp_path)
    monitored = trained(SETTINGS[setting], True, tmp_path)
    assert monitored[0] == history
    for plain, measured in zip(variables, monitored[1], strict=True):
        np.testing.assert_array_equal(measured, plain)
    assert monitored[2].keys() == files.keys()
    for name in files:
        assert monitored[2][name] == files[name], name
    monitor = monitored[3]
    together = SETTINGS[setting].get("steps_per_execution", 1)
    sampled = monitor.recording
    assert len(sampled) >= 5
    # All samples of the first execution were measured: the image is the first row.
    assert sampled[0].field("samples")[0] == 8 * together
    assert sampled[0].steps == together


def test_the_last_batch_of_another_size_is_measured_as_it_is():
    """50 samples in batches of 8: the seventh has 2."""
    model = models.image_network()
    model.compile("sgd", "sparse_categorical_crossentropy")
    monitor, _ = models.watch(model, models.IMAGES, models.LABELS, sample_every=1)
    samples = [snapshot.field("samples")[0] for snapshot in monitor.recording]
    assert samples == [8, 8, 8, 8, 8, 8, 2]


class Witness(keras.callbacks.Callback):
    """Notes which training function each step is about to run."""

    def __init__(self):
        super().__init__()
        self.functions = []

    def on_train_batch_begin(self, batch, logs=None):
        self.functions.append(self.model.train_function)


def test_a_step_that_is_not_sampled_runs_the_function_that_ran_before():
    """The very same object, before, during and after."""
    x, y = models.data()
    model = models.perceptron()
    model.compile("sgd", "mse")
    model.fit(x, y, batch_size=8, verbose=0)
    before = model.train_function
    witness = Witness()
    monitor = ActivationMonitor(sample_every=lambda step: step == 7)
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[monitor, witness])
    assert [f is before for f in witness.functions] == [True, True, False, True, True]
    assert monitor.recording.steps == [7]
    assert model.train_function is before


def test_no_step_is_traced_again():
    """Plain steps are traced as often as without a monitor, tapped ones once more."""

    class Counting(keras.Model):
        traced = 0

        def train_step(self, data):
            Counting.traced += 1
            return super().train_step(data)

    x, y = models.data()
    inputs = keras.Input((8,))
    model = Counting(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    model.fit(x, y, batch_size=8, verbose=0)
    Counting.traced = 0
    monitor = ActivationMonitor(sample_every=2)
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[monitor])
    assert len(monitor.recording) > 5
    assert Counting.traced == 1


def patched(model):
    """Names of the layers on which anything was left replaced."""
    every = [model, *model._flatten_layers()]
    return [layer.name for layer in every if {"call", "train_step"} & set(layer.__dict__)]


class Interrupts(layers.Layer):
    """Raises in the middle of a forward pass."""

    def __init__(self, error, **options):
        super().__init__(**options)
        self.error, self.calls, self.at = error, 0, 3

    def call(self, x):
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return x


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("mine")])
@pytest.mark.parametrize("eagerly", [True, False])
def test_an_exception_in_the_middle_of_a_step_leaves_nothing_patched(error, eagerly):
    """It reaches the user, and a later fit goes on measuring, without the broken step."""
    x, y = models.data()
    interrupts = Interrupts(error)
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(8), interrupts, layers.Dense(1)]
    )
    model.compile("sgd", "mse", run_eagerly=eagerly)
    monitor = ActivationMonitor(sample_every=1)
    interrupts.at = interrupts.calls + 2 if eagerly else interrupts.calls + 1
    with pytest.raises(type(error)):
        model.fit(x, y, batch_size=8, verbose=0, callbacks=[monitor])
    assert patched(model) == []
    taken = len(monitor.recording)
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[monitor])
    assert len(monitor.recording) == taken + 5
    for snapshot in monitor.recording:
        assert set(snapshot.field("samples")) == {8}
    assert patched(model) == []


def test_a_users_own_train_step_is_what_runs():
    """Its logs are what `fit` reports."""

    class Own(keras.Model):
        def train_step(self, data):
            logs = super().train_step(data)
            return {**logs, "mine": 2.0 * logs["loss"]}

    x, y = models.data()
    inputs = keras.Input((8,))
    model = Own(inputs, layers.Dense(1, name="head")(inputs))
    model.compile("sgd", "mse")
    monitor = ActivationMonitor(sample_every=1)
    history = model.fit(x, y, batch_size=8, verbose=0, callbacks=[monitor]).history
    np.testing.assert_allclose(history["mine"], 2.0 * np.array(history["loss"]), rtol=1e-6)
    assert monitor.recording.steps == [0, 1, 2, 3, 4]


def test_early_stopping_stops_as_without_a_monitor():
    """At the same epoch."""
    x, y = models.data()
    epochs = []
    for monitors in ([], [ActivationMonitor(sample_every=1)]):
        keras.utils.set_random_seed(0)
        model = models.perceptron()
        model.compile(keras.optimizers.SGD(0.0), "mse")
        stop = keras.callbacks.EarlyStopping("loss", patience=1)
        history = model.fit(x, y, epochs=9, verbose=0, callbacks=[*monitors, stop])
        epochs.append(len(history.epoch))
    assert epochs == [2, 2]

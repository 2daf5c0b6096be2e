"""Trainings of every kind that Keras tests of its trainer and its callbacks: data, settings
of `compile` and `fit`, models, callbacks of the user, several calls with one monitor.

Each is a case of `trials`: a function of a trial that returns the model.
"""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import models
from activation_monitor import read_recording

X, Y = models.data()
TARGETS = (Y > 0).astype(np.float32)
BATCHES = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 40, 8)]


def compiled(optimizer="sgd", loss="mse", model=None, **options):
    model = model or models.perceptron(depth=1)
    model.compile(optimizer, loss, **options)
    return model


# -- data


class Batches(keras.utils.PyDataset):
    """Five batches."""

    def __len__(self):
        return len(BATCHES)

    def __getitem__(self, i):
        return BATCHES[i]


def infinite():
    while True:
        yield from BATCHES


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)


def unknown_size():
    return dataset().filter(lambda x, y: True)


SOURCES = {
    "arrays": (lambda: (X, Y), {"batch_size": 8}),
    "arrays, fewer steps": (lambda: (X, Y), {"batch_size": 8, "steps_per_epoch": 3}),
    "arrays, more steps": (lambda: (X, Y), {"batch_size": 8, "steps_per_epoch": 7}),
    "arrays, a small last batch": (lambda: (X, Y), {"batch_size": 12}),
    "arrays, one batch": (lambda: (X, Y), {"batch_size": 64}),
    "one sample": (lambda: (X[:1], Y[:1]), {}),
    "tensors": (lambda: (tf.constant(X), tf.constant(Y)), {"batch_size": 8}),
    "dataset": (lambda: (dataset(),), {}),
    "dataset of unknown size": (lambda: (unknown_size(),), {}),
    "dataset of unknown size, more steps": (
        lambda: (unknown_size(),),
        {"steps_per_epoch": 7},
    ),
    "dataset without end": (lambda: (dataset().repeat(),), {"steps_per_epoch": 7}),
    "PyDataset": (lambda: (Batches(),), {}),
    "PyDataset, two threads": (lambda: (Batches(workers=2),), {"shuffle": False}),
    "generator": (lambda: ((batch for batch in BATCHES),), {}),
    "generator without end": (lambda: (infinite(),), {"steps_per_epoch": 7}),
}


def fit_data(source, trial):
    """Two fits of two epochs: every batch has a number of its own."""
    make, options = SOURCES[source]
    model = compiled()
    epochs = 1 if source == "generator" else 2
    for _ in range(2):
        trial.fit(model, *make(), epochs=epochs, **options)
    return model


# Epochs that several steps at once do not divide: how many steps the last execution ran is
# known to the optimizer alone.
UNEVEN = [
    *("arrays, fewer steps", "arrays, more steps", "dataset of unknown size"),
    *("dataset of unknown size, more steps", "generator without end"),
]


def fit_several_steps_at_once(source, together, trial):
    make, options = SOURCES[source]
    model = compiled(steps_per_execution=together)
    trial.fit(model, *make(), epochs=3, **options)
    return model


# -- settings of `compile` and `fit`

sgd = keras.optimizers.SGD
COMPILED = {
    "xla": lambda: {"jit_compile": True},
    "eager": lambda: {"run_eagerly": True},
    "more steps at once than there are": lambda: {"steps_per_execution": 9},
    "metrics": lambda: {"metrics": ["mae", "mape"], "weighted_metrics": ["mse"]},
    "accumulation": lambda: {"optimizer": sgd(0.1, gradient_accumulation_steps=3)},
    "loss scale": lambda: {"optimizer": keras.optimizers.LossScaleOptimizer(sgd(0.1))},
    "moving average": lambda: {
        "optimizer": sgd(0.1, use_ema=True, ema_overwrite_frequency=3)
    },
    "a schedule and clipping": lambda: {
        "optimizer": keras.optimizers.Adam(
            keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5),
            clipnorm=1.0,
            weight_decay=0.1,
        )
    },
}


def fit_compiled(setting, trial):
    """Two epochs, whose last batch is smaller."""
    model = compiled(**COMPILED[setting]())
    trial.fit(model, X, Y, batch_size=12, epochs=2)
    return model


def fit_unrolled(trial):
    """Three steps at once, unrolled by two, of four."""
    model = compiled(steps_per_execution=3)
    model.unrolled_steps_per_execution = 2
    trial.fit(model, X, Y, batch_size=12, epochs=2)
    return model


def fit_with_skipped_steps(trial):
    """The optimizer skips steps whose scaled gradients are infinite, and does not count
    them: they have numbers of their own."""
    scaled = keras.optimizers.LossScaleOptimizer(sgd(0.1), initial_scale=1e38)
    model = compiled(scaled)
    trial.fit(model, X, Y, batch_size=8, epochs=2)
    assert int(model.optimizer.iterations) < 10
    trial.steps = range(10)
    return model


FITTED = {
    "sample weights": {"sample_weight": np.arange(40) / 20.0},
    "class weights": {"class_weight": {0: 0.2, 1: 3.0}},
    "split": {"validation_split": 0.4},
    "validation": {"validation_data": (X[:9], TARGETS[:9]), "validation_batch_size": 4},
    "validation now and then": {
        "validation_data": (X, TARGETS, np.arange(40) / 20.0),
        "validation_freq": [2],
        "validation_steps": 2,
    },
    "later epochs only": {"initial_epoch": 1},
    "in order": {"shuffle": False},
}


def fit_with_options(options, trial):
    """Validation in between is not measured and moves no step."""
    model = compiled(metrics=["mae"])
    trial.fit(model, X, TARGETS, batch_size=12, epochs=3, **FITTED[options])
    return model


def fit_no_epoch(options, trial):
    """As a resumed run that has nothing left to do."""
    model = compiled()
    trial.fit(model, X, Y, **options)
    return model


# -- models


def two_inputs(structure):
    """A model of two inputs in a structure, and two outputs in a dict."""
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
    x = layers.Dense(4, "relu")(layers.Add()([a, b]))
    outputs = {"first": layers.Dense(1)(x), "second": layers.Dense(2)(x)}
    return keras.Model(structure(a, b), outputs)


class Lazy(keras.Model):
    """Built by its first batch, in `fit`; its sublayer's sublayer too."""

    def __init__(self):
        super().__init__()
        self.inner = keras.Sequential([layers.Dense(4, "relu"), layers.Dropout(0.5)])
        self.norm = layers.BatchNormalization()
        self.head = layers.Dense(1)

    def call(self, x, training=False):
        return self.head(self.norm(self.inner(x, training=training), training=training))


class NoTrainingArgument(keras.Model):
    """Its call takes the inputs only; a sublayer is made when it is built."""

    def build(self, shape):
        self.dense = layers.Dense(1)
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)


class AddsLosses(layers.Layer):
    """Adds what is its only loss, in its call."""

    def call(self, x):
        self.add_loss(ops.mean(ops.square(x)))
        return x


class OwnStep(keras.Model):
    """A `train_step` of its own, which calls the model and a sublayer once more."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            predicted = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=predicted)
            loss += 0.1 * tf.reduce_mean(
                self.layers[-1](2.0 * self.layers[-2].output_of(x))
            )
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(
            zip(gradients, self.trainable_variables, strict=True)
        )
        return {"mine": loss, "size": tf.shape(x)[0]}


class Remembers(layers.Dense):
    """A dense layer that is called by another name as well."""

    def output_of(self, x):
        return self(x)


class OwnLoss(keras.Model):
    """A loss, a metric and a use of it that no compiled argument names."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.far = keras.metrics.Mean(name="far")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = ops.mean(ops.abs(y - y_pred)) + sum(self.losses)
        self.far.update_state(loss * 4.0)
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return {**super().compute_metrics(x, y, y_pred, sample_weight), "one": 1.0}


class OwnFunction(keras.Model):
    """A training function of its own, which Keras' `run_eagerly` and the rest pass by."""

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            step = tf.function(self.train_step)
            self.train_function = lambda iterator: step(next(iterator))
        return self.train_function


class OwnFunctionWithoutForce(keras.Model):
    """As it was written for earlier versions of Keras."""

    def make_train_function(self):
        if self.train_function is None:
            step = tf.function(self.train_step)
            self.train_function = lambda iterator: step(next(iterator))
        return self.train_function


class Counts(layers.Layer):
    """State that each training call moves."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)
        self.factor = self.add_weight(shape=(), initializer="ones", constraint="non_neg")

    def call(self, x, training=False):
        if training:
            self.calls.assign(self.calls + 1)
        return x * self.factor


def functional(kind, *between):
    inputs = keras.Input((8,))
    x = Remembers(8, "relu", activity_regularizer="l2")(inputs)
    for layer in between:
        x = layer(x)
    return kind(inputs, layers.Dense(1, kernel_constraint="non_neg")(x))


def nested():
    inner = compiled(model=functional(keras.Model), metrics=["mse"])
    inputs = keras.Input((8,))
    return keras.Model(inputs, layers.Dense(1)(layers.Dense(3)(inner(inputs))))


MODELS = {
    "lazy": (Lazy, {}),
    "lazy, eager": (Lazy, {"run_eagerly": True}),
    "lazy, xla": (Lazy, {"jit_compile": True}),
    "lazy sequential": (
        lambda: keras.Sequential([layers.Dense(4, "relu"), layers.Dense(1)]),
        {},
    ),
    "no training argument": (NoTrainingArgument, {}),
    "a loss that a layer adds": (
        lambda: functional(keras.Model, AddsLosses()),
        {"loss": None},
    ),
    "own step": (lambda: functional(OwnStep), {}),
    "own loss": (lambda: functional(OwnLoss), {"loss": None}),
    "own function": (lambda: functional(OwnFunction), {}),
    "own function without force": (lambda: functional(OwnFunctionWithoutForce), {}),
    "state": (lambda: functional(keras.Model, Counts(), layers.Dropout(0.5)), {}),
    "a compiled model inside": (nested, {"metrics": ["mae"]}),
}


def fit_model(kind, trial):
    make, options = MODELS[kind]
    model = compiled(**{"loss": "mse", **options}, model=make())
    trial.fit(model, X, Y, batch_size=12, epochs=2, validation_data=(X, Y))
    return model


STRUCTURES = {
    "list": (lambda a, b: [a, b], [X, -X]),
    "dict": (lambda a, b: {"a": a, "b": b}, {"a": X, "b": -X}),
    "nested": (lambda a, b: {"deep": [a, {"b": b}]}, {"deep": [X, {"b": -X}]}),
}


def fit_structure(structure, trial):
    """Two losses with weights of their own, metrics of one output."""
    make, x = STRUCTURES[structure]
    model = compiled(
        loss={"first": "mse", "second": "mae"},
        loss_weights={"first": 0.2, "second": 3.0},
        metrics={"first": ["mae"]},
        model=two_inputs(make),
    )
    y = {"first": Y, "second": np.tile(Y, 2)}
    trial.fit(model, x, y, batch_size=12, epochs=2)
    return model


def fit_an_output_without_a_loss(trial):
    model = two_inputs(lambda a, b: [a, b])
    compiled(loss={"first": "mse", "second": None}, model=model)
    trial.fit(model, [X, X], {"first": Y, "second": None}, batch_size=12)
    return model


def fit_frozen(trial):
    """The optimizer counts no step of a model without trainable weights."""
    model = models.perceptron(depth=1)
    model.trainable = False
    compiled(model=model)
    for _ in range(2):
        trial.fit(model, X, Y, batch_size=8)
    trial.steps = range(10)
    return model


def fit_ragged(trial):
    model = keras.Sequential(
        [layers.Lambda(lambda x: x.to_tensor(shape=(None, 3))), layers.Dense(1)]
    )
    compiled(model=model)
    x = tf.ragged.constant([[1.0], [2.0, 3.0], [4.0, 5.0, 6.0]])
    trial.fit(model, x, np.ones((3, 1)), epochs=2)
    return model


def fit_sparse(trial):
    inputs = keras.Input((8,), sparse=True)
    model = compiled(model=keras.Model(inputs, layers.Dense(1)(inputs)))
    trial.fit(model, tf.sparse.from_dense(X), Y, batch_size=12)
    return model


# -- callbacks of the user


class Meddles(keras.callbacks.Callback):
    """Calls a function of the model, the batch and the epoch after each batch."""

    def __init__(self, function, at="on_train_batch_end"):
        super().__init__()
        setattr(self, at, lambda index, logs=None: function(self.model, index))


def stop(model, batch):
    if batch >= 1:
        model.stop_training = True


def evaluate(model, batch):
    if batch != 1:
        return
    model.evaluate(X[:9], Y[:9], verbose=0)
    model.predict(X[:9], verbose=0)
    model.test_on_batch(X[:9], Y[:9])
    model.predict_on_batch(X[:9])


def freeze(model, epoch):
    model.layers[0].trainable = epoch != 1
    model.make_train_function(force=True)


def other_rate(model, batch):
    model.optimizer.learning_rate = 0.1 / (batch + 1)


def assign(model, batch):
    model.layers[0].bias.assign_add(np.ones(16))


def nan_weights(model, batch):
    if batch == 1:
        model.layers[0].kernel.assign(np.full((8, 16), np.nan))


callback = keras.callbacks
CALLBACKS = {
    "stopped in the middle": lambda folder: [Meddles(stop)],
    "evaluation in the middle": lambda folder: [Meddles(evaluate)],
    "evaluation before a batch": lambda folder: [Meddles(evaluate, "on_train_batch_begin")],
    "freezing": lambda folder: [Meddles(freeze, "on_epoch_begin")],
    "rate set": lambda folder: [Meddles(other_rate)],
    "weights set": lambda folder: [Meddles(assign)],
    "early stopping": lambda folder: [
        callback.EarlyStopping("loss", min_delta=9.0, restore_best_weights=True)
    ],
    "rates": lambda folder: [
        callback.LearningRateScheduler(lambda epoch, rate: rate * 0.5),
        callback.ReduceLROnPlateau("val_loss", min_delta=9.0, patience=1),
    ],
    "not a number": lambda folder: [Meddles(nan_weights), callback.TerminateOnNaN()],
    "lambda": lambda folder: [
        callback.LambdaCallback(
            on_epoch_end=lambda epoch, logs: logs.update(twice=2.0 * logs["loss"])
        )
    ],
    "moving average": lambda folder: [callback.SwapEMAWeights()],
    "moving average by epoch": lambda folder: [callback.SwapEMAWeights(swap_on_epoch=True)],
    "backup": lambda folder: [callback.BackupAndRestore(folder / "backup", save_freq=2)],
}


def fit_with_callbacks(name, trial):
    """Two fits of three epochs."""
    optimizer = sgd(0.01, use_ema="average" in name)
    model = compiled(optimizer, metrics=["mae"])
    for _ in range(2):
        trial.fit(
            model,
            *(X, Y),
            batch_size=12,
            epochs=3,
            validation_data=(X, Y),
            callbacks=CALLBACKS[name](trial.folder),
        )
    return model


def fit_with_files(trial):
    """Lines of `CSVLogger`, checkpoints; TensorBoard's callback shares the log folder."""
    folder = trial.folder
    model = compiled(metrics=["mae"])
    trial.fit(
        model,
        *(X, Y),
        batch_size=12,
        epochs=2,
        validation_data=(X, Y),
        callbacks=[
            callback.CSVLogger(folder / "log.csv"),
            callback.ModelCheckpoint(folder / "{epoch}.keras", save_freq=3),
            callback.ModelCheckpoint(
                folder / "best.weights.h5", save_best_only=True, save_weights_only=True
            ),
            callback.TensorBoard(folder / "logs", histogram_freq=1, update_freq=1),
        ],
    )
    trial.left.append((folder / "log.csv").read_text())
    for name in ("1.keras", "2.keras"):
        saved = keras.saving.load_model(folder / name)
        trial.leave(saved.get_weights())
        trial.left.append(int(saved.optimizer.iterations))
    model.load_weights(folder / "best.weights.h5")
    return model


class Breaks(keras.callbacks.Callback):
    """A callback that fails, at the second batch."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def _break(self, index=0, logs=None):
        if index == 1 or "batch" not in self.at:
            raise ZeroDivisionError("a mistake in the user's callback")

    def __getattribute__(self, name):
        if name.startswith("on_") and name == object.__getattribute__(self, "at"):
            return self._break
        return object.__getattribute__(self, name)


# Where the user's callback fails, and the steps of two fits of which the first fails.
MISTAKES = {
    "on_train_begin": [*range(5)],
    "on_epoch_begin": [*range(5)],
    "on_train_batch_begin": [*range(6)],
    "on_train_batch_end": [*range(7)],
    "on_epoch_end": [*range(10)],
}


def fit_after_a_mistake(at, trial):
    """Fitted again after the failure, the model goes on as without a monitor."""
    model = compiled()
    with pytest.raises(ZeroDivisionError):
        trial.fit(model, X, Y, batch_size=8, callbacks=[Breaks(at)])
    trial.fit(model, X, Y, batch_size=8)
    trial.steps = MISTAKES[at]
    if trial.monitored:
        assert read_recording(trial.folder / "logs").steps == trial.steps
    return model


# -- several calls


def fit_beside_single_batches(trial):
    """`train_on_batch` takes steps that the optimizer counts and no callback sees."""
    model = compiled()
    for _ in range(2):
        trial.left.append(str(model.train_on_batch(X[:7], Y[:7])))
        trial.fit(model, X, Y, batch_size=12)
        trial.left.append(str(model.test_on_batch(X[:7], Y[:7])))
        trial.left.append(str(model.evaluate(X, Y, verbose=0)))
    trial.steps = [1, 2, 3, 4, 6, 7, 8, 9]
    return model


def fit_compiled_again(trial):
    """Between fits: with other metrics, another optimizer, and then XLA."""
    model = compiled(metrics=["mse"])
    trial.fit(model, X, Y, batch_size=8)
    trial.fit(compiled("adam", metrics=["mae"], model=model), X, Y, batch_size=8)
    trial.fit(compiled(model=model, jit_compile=True), X, Y, batch_size=8)
    trial.steps = range(15)
    return model


def fit_frozen_then_thawed(trial):
    """Compiled again in between, as Keras asks for."""
    dense, norm = layers.Dense(4, "relu"), layers.BatchNormalization()
    model = keras.Sequential([keras.Input((8,)), dense, norm, layers.Dense(1)])
    for trainable in (False, True):
        dense.trainable = norm.trainable = trainable
        model.compile("sgd", "mse", jit_compile=False)
        trial.fit(model, X, Y, batch_size=40)
    trial.steps = [0, 1]  # the second optimizer counts from 0
    trial.leave(model.predict(X, verbose=0))
    return model


def _named(prefix, function, names):
    return {f"{prefix}: {name}": functools.partial(function, name) for name in names}


TRAININGS = {
    **_named("data", fit_data, SOURCES),
    **{
        f"{together} steps at once: {source}": functools.partial(
            fit_several_steps_at_once, source, together
        )
        for source in UNEVEN
        for together in (2, 3)
    },
    **_named("compile", fit_compiled, COMPILED),
    "compile: unrolled steps": fit_unrolled,
    "compile: steps that a loss scale skips": fit_with_skipped_steps,
    **_named("fit", fit_with_options, FITTED),
    "fit: no epoch": functools.partial(fit_no_epoch, {"epochs": 0}),
    "fit: no epoch left": functools.partial(
        fit_no_epoch, {"epochs": 2, "initial_epoch": 2}
    ),
    **_named("model", fit_model, MODELS),
    **_named("structure", fit_structure, STRUCTURES),
    "model: an output without a loss": fit_an_output_without_a_loss,
    "model: frozen": fit_frozen,
    "model: ragged inputs": fit_ragged,
    "model: sparse inputs": fit_sparse,
    **_named("callback", fit_with_callbacks, CALLBACKS),
    "callback: files": fit_with_files,
    **_named("mistake", fit_after_a_mistake, MISTAKES),
    "calls: single batches beside fit": fit_beside_single_batches,
    "calls: compiled again": fit_compiled_again,
    "calls: frozen, then thawed": fit_frozen_then_thawed,
}

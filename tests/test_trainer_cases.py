"""What Keras tests of its trainer and its callbacks, run with and without a monitor.

Every case is run twice, from the same seed. Both runs leave the same behind, to the bit:
`Recording`, weights, the optimizer's variables, and what the user's callbacks were told.
The steps that were measured are those that the optimizer counted.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import models
from activation_monitor import ActivationMonitor, read_recording
from cases import cases

# Keras warns of data that end early, of what it does not shuffle, and of layers that the
# loss does not depend on.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Your input ran out of data"),
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed"),
    pytest.mark.filterwarnings("ignore:Gradients do not exist"),
]

X, Y = models.data()
TARGETS = (Y > 0).astype(np.float32)
BATCHES = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 40, 8)]


class Diary(keras.callbacks.Callback):
    """Writes down what a user's callback is told, and the steps that were taken."""

    def __init__(self):
        super().__init__()
        self.calls, self.steps = [], []

    def note(self, name, *told):
        self.calls.append(f"{name} {told}")  # exact for floats, equal for NaN
        if name == "on_train_batch_begin":
            optimizer = self.model.optimizer
            optimizer = getattr(optimizer, "inner_optimizer", optimizer)
            # `iterations` are fewer where gradients are accumulated.
            self.now = int(optimizer._iterations) if optimizer else 0
        if name == "on_train_batch_end":
            self.steps.append(self.now)


for _name in dir(keras.callbacks.Callback):
    if _name.startswith("on_"):
        setattr(
            Diary,
            _name,
            lambda self, *told, _name=_name, logs=None: self.note(_name, *told, logs),
        )


class Trial:
    """One run of a case: `fit`, the folder it may write to, and what it leaves behind."""

    def __init__(self, folder, monitored):
        self.folder, self.left, self.diary = folder, [], Diary()
        self.steps = self.diary.steps  # that must have been measured, if monitored
        folder.mkdir()
        self.monitor = None
        if monitored:
            self.monitor = ActivationMonitor(
                folder / "logs", 1, histograms=False, on_finding=lambda finding: None
            )

    def fit(self, model, *data, callbacks=(), **options):
        monitors = [self.monitor] if self.monitor else []
        every = [*monitors, *callbacks, self.diary]
        history = model.fit(*data, verbose=0, callbacks=every, **options)
        self.left.append(str((history.epoch, history.history)))


def with_and_without(case, folder):
    """Run a case, a function of the trial that returns its model, and compare."""
    trials = []
    for monitored in (False, True):
        keras.backend.clear_session()
        keras.utils.set_random_seed(0)
        trial = Trial(folder / f"monitored {monitored}", monitored)
        model = case(trial)
        optimizer = model.optimizer.variables if model.optimizer else []
        trial.variables = [v.numpy() for v in (*model.variables, *optimizer)]
        trials.append(trial)
    plain, monitored = trials
    assert monitored.left == plain.left
    assert monitored.diary.calls == plain.diary.calls
    for expected, got in zip(plain.variables, monitored.variables, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert monitored.monitor.recording.steps == list(monitored.steps)
    return monitored


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


@pytest.mark.parametrize(
    "source",
    cases(
        SOURCES,
        default=[
            *("arrays, a small last batch", "dataset of unknown size"),
            *("dataset without end", "PyDataset", "generator"),
        ],
    ),
)
def test_data_of_any_kind(source, tmp_path):
    """Every batch is measured under the optimizer's number, over epochs and fits."""
    make, options = SOURCES[source]

    def case(trial):
        model = compiled()
        epochs = 1 if source == "generator" else 2
        for _ in range(2):
            trial.fit(model, *make(), epochs=epochs, **options)
        return model

    with_and_without(case, tmp_path)


@pytest.mark.parametrize("together", [pytest.param(2, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize(
    "source",
    cases(
        [
            *("arrays, fewer steps", "arrays, more steps", "dataset of unknown size"),
            *("dataset of unknown size, more steps", "generator without end"),
        ],
        default=["arrays, fewer steps", "dataset of unknown size, more steps"],
    ),
)
def test_several_steps_at_once_of_epochs_that_they_do_not_divide(
    source, together, tmp_path
):
    """How many steps the last execution ran is known to the optimizer alone."""
    make, options = SOURCES[source]

    def case(trial):
        model = compiled(steps_per_execution=together)
        trial.fit(model, *make(), epochs=3, **options)
        return model

    with_and_without(case, tmp_path)


# -- how `compile` and `fit` are called

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


@pytest.mark.parametrize(
    "setting", cases(COMPILED, default=["xla", "eager", "accumulation", "loss scale"])
)
def test_models_compiled_in_any_way(setting, tmp_path):
    """Two epochs each, the last batch being smaller."""

    def case(trial):
        model = compiled(**COMPILED[setting]())
        trial.fit(model, X, Y, batch_size=12, epochs=2)
        return model

    with_and_without(case, tmp_path)


def test_unrolled_steps(tmp_path):
    """Three at once, unrolled by two, of four."""

    def case(trial):
        model = compiled(steps_per_execution=3)
        model.unrolled_steps_per_execution = 2
        trial.fit(model, X, Y, batch_size=12, epochs=2)
        return model

    with_and_without(case, tmp_path)


def test_steps_that_a_loss_scale_skips_have_numbers_of_their_own(tmp_path):
    """The optimizer does not count them: the scaled gradients are infinite."""

    def case(trial):
        scaled = keras.optimizers.LossScaleOptimizer(sgd(0.1), initial_scale=1e38)
        model = compiled(scaled)
        trial.fit(model, X, Y, batch_size=8, epochs=2)
        trial.left.append(int(model.optimizer.iterations))
        trial.steps = range(10)
        return model

    assert with_and_without(case, tmp_path).left[-1] < 10


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


@pytest.mark.slow
@pytest.mark.parametrize("options", FITTED)
def test_fit_called_in_any_way(options, tmp_path):
    """Validation in between is not measured and moves no step."""

    def case(trial):
        model = compiled(metrics=["mae"])
        trial.fit(model, X, TARGETS, batch_size=12, epochs=3, **FITTED[options])
        return model

    with_and_without(case, tmp_path)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"epochs": 2, "initial_epoch": 2}])
def test_no_epoch_is_no_failure(options, tmp_path):
    """As in a resumed run that was done: nothing is measured, and nothing warned of."""

    def case(trial):
        model = compiled()
        trial.fit(model, X, Y, **options)
        return model

    with_and_without(case, tmp_path)


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


@pytest.mark.parametrize(
    "case", cases(MODELS, default=["lazy", "own step", "own function", "state"])
)
def test_models_of_any_kind(case, tmp_path):
    """Own steps, losses and functions, models built in `fit`, state and randomness."""
    make, options = MODELS[case]

    def run(trial):
        model = compiled(**{"loss": "mse", **options}, model=make())
        trial.fit(model, X, Y, batch_size=12, epochs=2, validation_data=(X, Y))
        return model

    with_and_without(run, tmp_path)


STRUCTURES = {
    "list": (lambda a, b: [a, b], [X, -X]),
    "dict": (lambda a, b: {"a": a, "b": b}, {"a": X, "b": -X}),
    "nested": (lambda a, b: {"deep": [a, {"b": b}]}, {"deep": [X, {"b": -X}]}),
}


@pytest.mark.parametrize("structure", cases(STRUCTURES, default=["nested"]))
def test_inputs_and_outputs_in_structures(structure, tmp_path):
    """Two losses with weights of their own, metrics of one output."""
    make, x = STRUCTURES[structure]

    def case(trial):
        model = compiled(
            loss={"first": "mse", "second": "mae"},
            loss_weights={"first": 0.2, "second": 3.0},
            metrics={"first": ["mae"]},
            model=two_inputs(make),
        )
        y = {"first": Y, "second": np.tile(Y, 2)}
        trial.fit(model, x, y, batch_size=12, epochs=2)
        return model

    with_and_without(case, tmp_path)


def test_an_output_without_a_loss(tmp_path):
    """Is computed and measured all the same."""

    def case(trial):
        model = two_inputs(lambda a, b: [a, b])
        compiled(loss={"first": "mse", "second": None}, model=model)
        trial.fit(model, [X, X], {"first": Y, "second": None}, batch_size=12)
        return model

    trial = with_and_without(case, tmp_path)
    assert len(trial.monitor.recording[0].names) == 6  # two inputs, sum and three layers


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_a_frozen_model_takes_no_steps_that_its_optimizer_would_count(tmp_path):
    """They are counted where they are run."""

    def case(trial):
        model = models.perceptron(depth=1)
        model.trainable = False
        compiled(model=model)
        for _ in range(2):
            trial.fit(model, X, Y, batch_size=8)
        trial.steps = range(10)
        return model

    with_and_without(case, tmp_path)


def test_ragged_inputs(tmp_path):
    """Are left as they are; what is made of them is measured."""

    def case(trial):
        model = keras.Sequential(
            [layers.Lambda(lambda x: x.to_tensor(shape=(None, 3))), layers.Dense(1)]
        )
        compiled(model=model)
        x = tf.ragged.constant([[1.0], [2.0, 3.0], [4.0, 5.0, 6.0]])
        trial.fit(model, x, np.ones((3, 1)), epochs=2)
        return model

    with_and_without(case, tmp_path)


def test_sparse_inputs(tmp_path):
    """As a `tf.sparse.SparseTensor`, into a dense layer."""

    def case(trial):
        inputs = keras.Input((8,), sparse=True)
        model = compiled(model=keras.Model(inputs, layers.Dense(1)(inputs)))
        trial.fit(model, tf.sparse.from_dense(X), Y, batch_size=12)
        return model

    with_and_without(case, tmp_path)


# -- the user's callbacks


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


@pytest.mark.slow
@pytest.mark.parametrize("case", CALLBACKS)
def test_callbacks_beside_the_monitor(case, tmp_path):
    """Do what they do without it, in two fits of three epochs."""

    def run(trial):
        optimizer = sgd(0.01, use_ema="average" in case)
        model = compiled(optimizer, metrics=["mae"])
        for _ in range(2):
            callbacks = CALLBACKS[case](trial.folder)
            trial.fit(
                model,
                *(X, Y),
                batch_size=12,
                epochs=3,
                validation_data=(X, Y),
                callbacks=callbacks,
            )
        return model

    with_and_without(run, tmp_path)


def test_files_that_callbacks_write(tmp_path):
    """The same lines of `CSVLogger`, the same checkpoints, and TensorBoard's callback in
    the monitor's own log folder."""

    def case(trial):
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
            trial.left.append([w.tolist() for w in saved.get_weights()])
            trial.left.append(int(saved.optimizer.iterations))
        model.load_weights(folder / "best.weights.h5")
        return model

    trial = with_and_without(case, tmp_path)
    runs = {path.name for path in (trial.folder / "logs").iterdir()}
    assert runs == {"train", "validation", "activations"}
    assert read_recording(trial.folder / "logs").steps == trial.monitor.recording.steps


# -- several calls


def test_single_batches_beside_fit(tmp_path):
    """Are not measured, and counted by the optimizer."""

    def case(trial):
        model = compiled()
        for _ in range(2):
            trial.left.append(str(model.train_on_batch(X[:7], Y[:7])))
            trial.fit(model, X, Y, batch_size=12)
            trial.left.append(str(model.test_on_batch(X[:7], Y[:7])))
            trial.left.append(str(model.evaluate(X, Y, verbose=0)))
        return model

    trial = with_and_without(case, tmp_path)
    assert trial.monitor.recording.steps == [1, 2, 3, 4, 6, 7, 8, 9]


def test_a_model_compiled_anew_between_fits(tmp_path):
    """With other metrics, another optimizer and then XLA."""

    def case(trial):
        model = compiled(metrics=["mse"])
        trial.fit(model, X, Y, batch_size=8)
        trial.fit(compiled("adam", metrics=["mae"], model=model), X, Y, batch_size=8)
        trial.fit(compiled(model=model, jit_compile=True), X, Y, batch_size=8)
        trial.steps = range(15)
        return model

    with_and_without(case, tmp_path)


class Breaks(keras.callbacks.Callback):
    """A user's callback with a mistake, at the second batch."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def _break(self, index=0, logs=None):
        if index == 1 or "batch" not in self.at:
            raise ZeroDivisionError("a mistake of the user's")

    def __getattribute__(self, name):
        if name.startswith("on_") and name == object.__getattribute__(self, "at"):
            return self._break
        return object.__getattribute__(self, name)


@pytest.mark.parametrize(
    ("at", "steps"),
    [
        ("on_train_begin", [0, 1, 2, 3, 4]),
        pytest.param("on_epoch_begin", [0, 1, 2, 3, 4], marks=pytest.mark.slow),
        ("on_train_batch_begin", [0, 1, 2, 3, 4, 5]),
        pytest.param("on_train_batch_end", [*range(7)], marks=pytest.mark.slow),
        ("on_epoch_end", [*range(10)]),
    ],
)
def test_a_mistake_in_a_users_callback_is_the_users_to_see(at, steps, tmp_path):
    """Fitted once more, the model goes on as if no monitor had been there."""

    def case(trial):
        model = compiled()
        with pytest.raises(ZeroDivisionError):
            trial.fit(model, X, Y, batch_size=8, callbacks=[Breaks(at)])
        trial.fit(model, X, Y, batch_size=8)
        trial.steps = steps
        return model

    trial = with_and_without(case, tmp_path)
    assert read_recording(trial.folder / "logs").steps == steps

"""The activity of units is counted in the sampled step, as float64 numpy counts it."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers, ops

import models
from activation_monitor import ActivationMonitor, audit, diagnose, read_recording

RNG = np.random.default_rng(0)
X = RNG.standard_normal((96, 8)).astype(np.float32)
Y = RNG.standard_normal((96, 1)).astype(np.float32)
BIAS = np.linspace(-9, 2, 16).astype(np.float32)


def sparse(**options):
    """A network whose units are active for few samples to most, and never change."""
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, "relu", kernel_initializer="lecun_normal", name="hidden"),
            layers.Dense(1, name="head"),
        ],
        name="net",
    )
    model.get_layer("hidden").bias.assign(BIAS / 2)
    model.compile(keras.optimizers.SGD(0.0), "mse", **options)
    return model


def hidden(model, x):
    """The pre-activations of the hidden layer, in float64."""
    kernel, bias = (np.float64(w) for w in model.get_layer("hidden").get_weights())
    return np.float64(x) @ kernel + bias


def expected(pre_activations, ends, size):
    """The rows of `activity.FIELDS` at steps that end after so many samples."""
    rows = []
    for end in ends:
        start = max(0, end - -(-128 // size) * size)
        of_window = pre_activations[start:end]
        steps = len(of_window) / size
        rows.append((np.sum((of_window <= 0).all(axis=0)), steps, len(of_window)))
    return rows


def fit(model, batch_size, epochs=2, x=X, **options):
    return models.fit_in_order(model, x, Y[: len(x)], batch_size, epochs, **options)


COMPILED = [
    {},
    pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
    {"run_eagerly": True},
]


@pytest.mark.parametrize("options", COMPILED)
def test_the_units_are_those_that_numpy_finds_inactive(options, tmp_path):
    """At each step, over the last eight batches of 16; read from the log as well."""
    model = sparse(**options)
    monitor = fit(model, 16, log_dir=tmp_path)
    twice = hidden(model, np.concatenate([X, X]))
    rows = expected(twice, range(16, 193, 16), 16)
    row = monitor.recording[0].names.index("net/hidden")
    for recording in (monitor.recording, read_recording(tmp_path)):
        found = [snapshot.activity[row] for snapshot in recording]
        np.testing.assert_array_equal(found, rows)
        for snapshot in recording:
            others = np.delete(snapshot.activity, row, axis=0)
            assert np.isnan(others).all()
    counts = [count for count, _, _ in rows]
    assert 0 < counts[-1] < counts[0] < 16  # batches look deader than they are


def test_steps_that_run_together_are_one():
    """A unit that is active in either of two batches is active in their execution."""
    model = sparse(steps_per_execution=2)
    monitor = fit(model, 16, epochs=1)
    row = monitor.recording[0].names.index("net/hidden")
    found = [snapshot.activity[row] for snapshot in monitor.recording]
    np.testing.assert_array_equal(found, expected(hidden(model, X), (32, 64, 96), 32))


def test_the_channels_of_an_image_are_units():
    """Active at any position."""
    x = RNG.standard_normal((96, 6, 6, 3)).astype(np.float32)
    inputs = keras.Input((6, 6, 3))
    last = layers.Conv2D(8, 3, activation="relu", name="last")(inputs)
    outputs = layers.Dense(1)(layers.GlobalAveragePooling2D()(last))
    model = keras.Model(inputs, outputs)
    model.get_layer("last").bias.assign(np.linspace(-3, 0, 8))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    monitor = fit(model, 32, epochs=1, x=x)
    out = np.asarray(keras.Model(inputs, last)(x), np.float64)
    row = monitor.recording[0].names.index("last")
    for i, snapshot in enumerate(monitor.recording):
        seen = out[: 32 * (i + 1)]
        dead = np.sum((seen == 0).all(axis=(0, 1, 2)))
        np.testing.assert_array_equal(snapshot.activity[row], [dead, i + 1, 32 * (i + 1)])
    assert 0 < dead < 8


class Loop(layers.Layer):
    """Calls a layer in a loop over time steps, and then another time."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(16, "relu", name="dense")

    def build(self, shape):
        self.dense.build((None, shape[-1]))

    def call(self, x):
        start = ops.zeros_like(self.dense(x[:, 0]))
        _, total = ops.while_loop(
            lambda i, total: i < 4,
            lambda i, total: (i + 1, total + self.dense(x[:, i])),
            (0, start),
        )
        return total


def test_a_layer_in_a_loop_is_active_in_any_of_its_calls():
    """Four calls in one step, over four batches of 24 sequences."""
    x = RNG.standard_normal((96, 4, 8)).astype(np.float32)
    model = keras.Sequential([keras.Input((4, 8)), Loop(name="loop"), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    dense = model.get_layer("loop").dense
    dense.bias.assign(BIAS / 2)
    monitor = fit(model, 24, epochs=1, x=x)
    kernel, bias = (np.float64(w) for w in dense.get_weights())
    active = np.float64(x) @ kernel + bias > 0
    names = monitor.recording[0].names
    row = names.index(next(name for name in names if name.endswith("dense/1")))
    found = [snapshot.activity[row] for snapshot in monitor.recording]
    for i, (inactive, steps, samples) in enumerate(found):
        # The samples of all four calls: two steps have more than 128, three are needed.
        assert samples == 96 * steps and steps == min(i + 1, 3)
        window = active[24 * max(0, i - 2) : 24 * (i + 1)]
        assert inactive == np.sum(~window.any(axis=(0, 1)))


def test_a_layer_whose_number_of_channels_varies_is_counted_anew():
    """One ReLU, fed with 4 channels and with 6: no count joins them, and nothing fails."""
    model = keras.Sequential([layers.ReLU(name="relu"), layers.Lambda(ops.mean)])
    monitor = ActivationMonitor(on_finding=lambda finding: None)
    found = []
    for channels in (4, 4, 6, 4):
        with monitor.measure_step(model):
            model(-np.ones((8, channels), np.float32))
        last = monitor.recording[-1]
        (row,) = (i for i, name in enumerate(last.names) if name.endswith("relu"))
        found.append(last.of_units("inactive_units")[row])
    np.testing.assert_array_equal(found, [4, 4, np.nan, 4])


def test_more_channels_than_a_step_should_copy_are_not_counted():
    """The count of the batch remains."""
    model = keras.Sequential([keras.Input((8,)), layers.Dense(2**16 + 1, "relu")])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    monitor = fit(model, 96, epochs=1)
    assert monitor.recording[0].activity is None
    assert monitor.recording[0].field("dead_units")[-1] == 0


def test_an_audit_has_no_window():
    """It judges the batch that it has: 15 of 16 units are zero."""
    model = models.perceptron(1)
    bias = np.where(np.arange(16) > 0, -1e3, 1.0).astype(np.float32)
    model.get_layer("hidden_0").bias.assign(bias)
    (finding,) = audit(model, X).findings
    assert finding.code == "dead-units" and "for all 96 samples." in finding.message


# -- what is found


def dying(batches_dead):
    """A fit of 30 steps in which a layer dies at step 20, for so many steps."""
    model = models.perceptron(3)
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    layer = model.get_layer("hidden_1")
    model.get_layer("hidden_2").bias.assign(np.ones(16))  # it stays alive without input
    alive = layer.bias.numpy()

    def kill(batch, logs):
        step = int(model.optimizer.iterations)
        if step == 20:
            layer.bias.assign(np.full(16, -1e3, np.float32))
        if step == 20 + batches_dead:
            layer.bias.assign(alive)

    monitor = ActivationMonitor(sample_every=1, on_finding=lambda finding: None)
    killer = keras.callbacks.LambdaCallback(on_train_batch_begin=kill)
    model.fit(X, Y, batch_size=32, epochs=10, verbose=0, callbacks=[killer, monitor])
    return monitor


def test_a_layer_that_dies_is_found_after_its_window():
    """It dies at step 20 of 30; four batches of 32 make a window of 128."""
    (finding,) = dying(100).diagnosis.findings
    assert (finding.code, finding.layers) == ("dead-units", ("net/hidden_1",))
    assert finding.severity == "critical"
    assert (finding.step, finding.last_step) == (23, 29)
    assert finding.evidence["sampled_steps"] == 4 and finding.evidence["samples"] == 128


def test_a_layer_that_comes_back_is_healthy():
    """Three odd batches, each of which alone shows a dead layer."""
    monitor = dying(3)
    dead = [snapshot.field("dead_units")[2] for snapshot in monitor.recording]
    assert dead.count(16) == 3 and dead[20] == 16
    assert monitor.diagnosis.findings == ()


def test_sparse_units_in_small_batches_are_healthy():
    """Each of 500 units is active for 0.6 % of the samples: more than nine of ten look
    dead in a batch of 16, few over a window of 128."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((640, 8)).astype(np.float32)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(500, "relu", name="hidden", kernel_initializer="lecun_normal"),
            layers.Dense(1, name="head"),
            layers.Dense(1, name="last"),
        ],
        name="net",
    )
    layer = model.get_layer("hidden")
    z = np.float64(x) @ np.float64(layer.kernel.numpy())
    model.compile(keras.optimizers.SGD(0.0), "mse")
    # Sparse from step 20 on, as training makes units sparse.
    bias = -np.quantile(z, 1 - 0.006, axis=0).astype(np.float32)

    def make_sparse(batch, logs):
        if batch == 20:
            layer.bias.assign(bias)

    monitor = ActivationMonitor(sample_every=1, on_finding=lambda finding: None)
    callbacks = [keras.callbacks.LambdaCallback(on_train_batch_begin=make_sparse), monitor]
    model.fit(x, x[:, :1], batch_size=16, verbose=0, shuffle=False, callbacks=callbacks)
    row = monitor.recording[0].names.index("net/hidden")
    last = monitor.recording[-1]
    assert last.field("dead_units")[row] > 450
    window = z[-128:] + bias
    np.testing.assert_array_equal(
        last.activity[row], [np.sum((window <= 0).all(axis=0)), 8, 128]
    )
    assert 0.3 < last.activity[row, 0] / 500 < 0.6  # 0.994^128 = 0.46
    assert monitor.diagnosis.findings == ()
    # The check can fail: by the batch alone it is found.
    alone = [dataclasses.replace(one, activity=None) for one in monitor.recording]
    assert [finding.code for finding in diagnose(alone).findings] == ["dead-units"]

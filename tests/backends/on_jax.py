"""Tests of the JAX backend. `test_jax.py` runs this file in a process of its own."""

import subprocess
import sys
import textwrap
import warnings

import jax
import keras
import numpy as np
import pytest
from keras import layers

from activation_monitor import ActivationMonitor, audit
from activation_monitor.analysis import raw, records
from activation_monitor.auditing import _ForwardPass
from activation_monitor.recording.backends import backend
from activation_monitor.recording.backends import jax as jax_backend

RATE = 0.01
_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(96, 12)).astype("float32")
Y = X[:, :1] * X[:, 1:2]
SEQUENCES = _RNG.normal(size=(48, 6, 5)).astype("float32")


class Guide(keras.Model):
    """A `train_step` as the guides of Keras write it for JAX."""

    def compute_loss_and_updates(self, trained, others, x, y, training=False):
        predicted, others = self.stateless_call(trained, others, x, training=training)
        return self.compute_loss(x, y, predicted), (predicted, others)

    def train_step(self, state, data):
        trained, others, optimizer, metrics = state
        x, y = data
        derive = jax.value_and_grad(self.compute_loss_and_updates, has_aux=True)
        (loss, (_, others)), grads = derive(trained, others, x, y, training=True)
        trained, optimizer = self.optimizer.stateless_apply(optimizer, grads, trained)
        return {"loss": loss}, (trained, others, optimizer, metrics)


def perceptron(kind=keras.Model, **dtype):
    given = keras.Input((12,))
    hidden = layers.Dense(16, "relu", **dtype)(given)
    hidden = layers.Dense(8, "tanh", **dtype)(hidden)
    return kind(given, layers.Dense(1, **dtype)(hidden))


def residual():
    given = keras.Input((12,))
    x = layers.Dense(16, "relu", name="first")(given)
    y = layers.Dense(16, "relu", name="inside")(x)
    y = layers.BatchNormalization(name="norm")(y)
    x = layers.Add(name="add")([x, y])
    x = layers.Dropout(0.2, name="drop")(x)
    return keras.Model(given, layers.Dense(1, name="last")(x))


def of_sequences(*inner):
    return keras.Sequential([keras.Input((6, 5)), *inner, layers.Dense(1)])


def trained(make, x=X, y=Y, monitor=None, epochs=2, batch_size=32, fit=None, **options):
    """Weights, history and the model after a short training."""
    keras.utils.set_random_seed(1)
    model = make()
    model.compile(**{"optimizer": keras.optimizers.SGD(RATE), "loss": "mse"} | options)
    callbacks = [monitor] if monitor else []
    fit = {"epochs": epochs, "batch_size": batch_size, "shuffle": False} | (fit or {})
    history = model.fit(x, y, verbose=0, callbacks=callbacks, **fit)
    return model.get_weights(), history.history, model


def silent(**options):
    """A monitor that measures often. A finding fails the test, as every warning does."""
    return ActivationMonitor(**{"sample_every": 2} | options)


def assert_same_training(make, x=X, y=Y, monitor=None, fit=None, **options):
    """With and without a monitor: the same bits. Returns the monitor."""
    monitor = monitor or silent()
    weights, history, _ = trained(make, x, y, fit=fit, **options)
    found, measured_history, _ = trained(make, x, y, monitor, fit=fit, **options)
    for expected, one in zip(weights, found, strict=True):
        np.testing.assert_array_equal(one, expected)
    assert measured_history == history
    assert len(monitor.recording)
    return monitor


def expected_records(weights, x, y):
    """By quantity, the tensors of the first step of `perceptron`, in float64."""
    w1, b1, w2, b2, w3, b3 = (one.astype(np.float64) for one in weights)
    x, y = x.astype(np.float64), y.astype(np.float64)
    before = x @ w1 + b1
    first = np.maximum(before, 0)
    second = np.tanh(first @ w2 + b2)
    out = second @ w3 + b3
    d_out = 2 * (out - y) / out.size
    d_second = d_out @ w3.T
    d_inner = d_second * (1 - second**2)
    d_first = d_inner @ w2.T
    gradients = [x.T @ (d_first * (before > 0)), first.T @ d_inner, second.T @ d_out]
    return float(np.mean((out - y) ** 2)), {
        records.OUTPUT: [x, first, second, out],
        records.OUTPUT_GRADIENT: [None, d_first, d_second, d_out],
        records.WEIGHT: [None, w1, w2, w3],
        records.WEIGHT_GRADIENT: [None, *gradients],
        records.WEIGHT_UPDATE: [None, *(-RATE * one for one in gradients)],
    }


def assert_records(snapshot, expected, rtol=1e-5, quantities=None):
    loss, tensors = expected
    np.testing.assert_allclose(snapshot.loss, loss, rtol=rtol)
    for quantity in quantities or tensors:
        for record, tensor in zip(
            snapshot.quantities[quantity], tensors[quantity], strict=True
        ):
            if tensor is None:
                assert records.field(record, "count") == 0
                continue
            rms = np.sqrt(np.mean(tensor**2))
            found = {
                name: records.field(record, name)
                for name in ("count", "mean", "variance", "minimum", "maximum")
            }
            assert found["count"] == tensor.size
            # An update is a difference of float32 weights.
            slack = 40 * rtol if quantity == records.WEIGHT_UPDATE else rtol
            for name, value in (
                ("mean", tensor.mean()),
                ("minimum", tensor.min()),
                ("maximum", tensor.max()),
            ):
                np.testing.assert_allclose(
                    found[name], value, rtol=slack, atol=slack * rms, err_msg=quantity
                )
            np.testing.assert_allclose(found["variance"], tensor.var(), rtol=slack)


MODES = [
    {},
    {"jit_compile": False},
    {"run_eagerly": True},
]


@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize("kind", [keras.Model, Guide])
def test_records_of_a_step_equal_float64(kind, options):
    """Outputs, their gradients, weights, their gradients and updates, and the loss."""
    keras.utils.set_random_seed(1)
    initial = perceptron().get_weights()
    monitor = silent()
    trained(lambda: perceptron(kind), monitor=monitor, **options)
    assert monitor.recording.steps[:3] == [0, 1, 2]
    assert_records(monitor.recording[0], expected_records(initial, X[:32], Y[:32]))


@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize("make", [residual, lambda: perceptron(Guide)])
def test_training_is_the_same_to_the_bit(make, options):
    assert_same_training(make, **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: of_sequences(layers.LSTM(8, return_sequences=True), layers.GRU(4)),
        lambda: of_sequences(layers.Masking(), layers.SimpleRNN(4)),
        lambda: of_sequences(layers.Bidirectional(layers.LSTM(4))),
        lambda: of_sequences(
            layers.Conv1D(8, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling1D(),
            layers.Flatten(),
        ),
        lambda: of_sequences(layers.TimeDistributed(layers.Dense(4)), layers.Flatten()),
    ],
)
def test_layers_of_sequences_are_measured(make):
    """And the gradient of every output but those of the inputs."""
    monitor = assert_same_training(make, SEQUENCES, SEQUENCES[:, 0, :1], batch_size=24)
    snapshot = monitor.recording[0]
    counts = records.field(snapshot.quantities[records.OUTPUT_GRADIENT], "count")
    expected = records.field(snapshot.quantities[records.OUTPUT], "count")
    for layer, found, count in zip(snapshot.layers, counts, expected, strict=True):
        masks = "masking" in layer.name
        assert found == (0 if layer.kind == "input" or masks else count), layer.name


def test_the_graph_of_layers_is_that_of_the_model():
    monitor = silent()
    trained(residual, monitor=monitor)
    found = {
        layer.name.rpartition("/")[2]: {
            monitor.recording[0].layers[i].name.rpartition("/")[2] for i in layer.parents
        }
        for layer in monitor.recording[0].layers
    }
    assert found == {
        "first:input": set(),
        "first": {"first:input"},
        "inside": {"first"},
        "norm": {"inside"},
        "add": {"first", "norm"},
        "drop": {"add"},
        "last": {"drop"},
    }
    assert all(layer.traced for layer in monitor.recording[0].layers)


def test_frozen_layers_in_front_have_no_gradient():
    """The backward pass is not made longer."""

    def make():
        model = perceptron()
        model.layers[1].trainable = False
        return model

    monitor = assert_same_training(make)
    quantities = monitor.recording[0].quantities
    counts = records.field(quantities[records.OUTPUT_GRADIENT], "count")
    np.testing.assert_array_equal(counts > 0, [False, False, True, True])


def test_steps_that_run_together_are_merged():
    """The record covers three batches; the last one is shorter."""
    monitor = assert_same_training(
        perceptron, X[:80], Y[:80], silent(), steps_per_execution=3
    )
    assert monitor.recording[0].steps == 3
    counts = records.field(monitor.recording[0].quantities[records.OUTPUT], "count")
    np.testing.assert_array_equal(counts, [80 * 12, 80 * 16, 80 * 8, 80])
    inputs = monitor.recording[0].quantities[records.OUTPUT][0]
    np.testing.assert_allclose(
        records.field(inputs, "mean"), X[:80].astype(np.float64).mean(), atol=1e-6
    )


def test_an_evaluation_is_one_snapshot():
    monitor = assert_same_training(
        residual, monitor=silent(validation=True), fit={"validation_data": (X, Y)}
    )
    assert len(monitor.validation_recording) == 2
    found = monitor.validation_recording[0].quantities[records.OUTPUT]
    assert records.field(found, "count")[0] == X.size
    np.testing.assert_allclose(
        records.field(found, "variance")[0], X.astype(np.float64).var(), rtol=1e-5
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    """Gradients are those of the loss, without its scale."""

    def make():
        return perceptron(dtype=policy)

    keras.utils.set_random_seed(1)
    initial = perceptron().get_weights()
    keras.config.set_dtype_policy(policy)
    try:
        monitor = assert_same_training(make)
    finally:
        keras.config.set_dtype_policy("float32")
    _, expected = expected_records(initial, X[:32], Y[:32])
    for quantity in (records.OUTPUT_GRADIENT, records.WEIGHT_GRADIENT):
        for record, tensor in zip(
            monitor.recording[0].quantities[quantity][1:],
            expected[quantity][1:],
            strict=True,
        ):
            found = records.field(record, "second_moment")
            np.testing.assert_allclose(found, np.mean(tensor**2), rtol=0.02)


@pytest.mark.parametrize("names", [["one", "two"], None])
def test_recomputed_layers(names):
    """Layers that are recomputed one by one are measured in full. Of those that are
    recomputed together no gradient is, so that no rule takes it for zero."""

    def make(recompute=True):
        mode = "list_of_layers" if names else "full"
        scope = keras.RematScope(mode=mode, layer_names=names) if recompute else None
        with scope or warnings.catch_warnings():
            return keras.Sequential(
                [
                    keras.Input((12,)),
                    layers.Dense(16, "relu", name="one"),
                    layers.Dense(16, "relu", name="two"),
                    layers.Dense(1),
                ]
            )

    if not names:
        with pytest.warns(UserWarning, match="recomputed together"):
            monitor = assert_same_training(make)
        snapshot = monitor.recording[0]
        assert not records.field(
            snapshot.quantities[records.OUTPUT_GRADIENT], "count"
        ).any()
    else:
        snapshot = assert_same_training(make).recording[0]
    plain = silent()
    trained(lambda: make(False), monitor=plain)
    expected = plain.recording[0]
    assert [one.parents for one in snapshot.layers] == [
        one.parents for one in expected.layers
    ]
    for quantity in snapshot.quantities.keys() - {"" if names else records.OUTPUT_GRADIENT}:
        np.testing.assert_allclose(
            snapshot.quantities[quantity], expected.quantities[quantity], rtol=1e-5
        )


def test_a_layer_inside_a_jitted_function_is_left_out():
    """A warning says so; training is the same."""

    class Inner(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.last = layers.Dense(8, "relu"), layers.Dense(1)

        def call(self, x):
            return self.last(jax.jit(lambda t: self.first(t))(x))

    with pytest.warns(UserWarning, match=r"`jax.jit` with a trace of its own"):
        monitor = assert_same_training(Inner)
    assert not any("dense" == one.name for one in monitor.recording[0].layers)


def test_the_recent_steps_are_read_when_the_loss_is_not_finite():
    """Values that a later step has donated are not asked for."""
    y = Y.copy()
    y[70] = np.inf
    monitor = ActivationMonitor(
        sample_every=lambda step: step == 0,
        flight_recorder=2,
        on_finding=lambda found: None,
    )
    trained(perceptron, y=y, monitor=monitor, epochs=1)
    assert {0, 1, 2} <= set(monitor.recording.steps)


def test_a_network_that_loses_its_signal_is_found():
    """As on TensorFlow."""

    def make():
        inner = [
            layers.Dense(64, "relu", kernel_initializer="random_normal") for _ in range(20)
        ]
        return keras.Sequential([keras.Input((12,)), *inner, layers.Dense(1)])

    found = []
    trained(make, monitor=ActivationMonitor(on_finding=found.append), epochs=1)
    assert "vanishing-activations" in {one.code for one in found}


def test_a_healthy_network_has_no_finding():
    def make():
        inner = [
            layers.Dense(64, "relu", kernel_initializer="he_normal") for _ in range(20)
        ]
        return keras.Sequential([keras.Input((12,)), *inner, layers.Dense(1)])

    monitor = silent()
    options = {"optimizer": keras.optimizers.Adam(1e-3)}
    trained(make, monitor=monitor, epochs=4, **options)
    assert monitor.findings == ()


@pytest.mark.parametrize("with_targets", [False, True])
def test_an_audit_changes_nothing(with_targets):
    """And measures the gradients if there are targets."""
    weights, _, model = trained(residual)
    before = [np.array(one.value) for one in model.optimizer.variables]
    y = Y if with_targets else None
    assert audit(model, X, y).findings == ()
    for one, expected in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, expected)
    for one, expected in zip(model.optimizer.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(one.value), expected)


def test_an_audit_measures_what_a_step_does():
    keras.utils.set_random_seed(1)
    model = perceptron()
    model.compile(keras.optimizers.SGD(RATE), "mse")
    snapshot = _ForwardPass(model, model).measured(X[:32], Y[:32])
    expected = expected_records(model.get_weights(), X[:32], Y[:32])
    wanted = records.OUTPUT, records.OUTPUT_GRADIENT, records.WEIGHT
    assert_records(snapshot, expected, quantities=wanted)


@pytest.mark.parametrize(
    ("scale", "exact"), [(1e-25, False), (1e36, False), (1e-36, True), (1e20, True)]
)
def test_a_record_is_right_over_the_range_of_float32(scale, exact):
    x = (_RNG.normal(size=(200, 30)) * scale + scale).astype("float32")
    record = backend.measure_once(x, exact=exact)
    x = x.astype(np.float64)
    for name, value in (("mean", x.mean()), ("variance", x.var()), ("maximum", x.max())):
        np.testing.assert_allclose(records.field(record, name), value, rtol=1e-6)


def test_many_elements_of_a_kernel_are_added_up():
    """One by one, the mean square of a million would be off by 1e-5."""
    x = _RNG.uniform(1.0, 2.0, size=(1024, 1024)).astype("float32")
    x[::2] *= -1
    measured, suffices = backend.measured_each([jax.numpy.asarray(x)])
    (record,) = raw.finish(np.asarray(measured))
    x = x.astype(np.float64)
    assert bool(suffices[0])
    np.testing.assert_allclose(records.field(record, "variance"), x.var(), rtol=1e-6)
    np.testing.assert_allclose(records.field(record, "mean"), x.mean(), atol=1e-6 * x.std())


def test_one_copy_to_the_host_holds_all_records(monkeypatch):
    """Of outputs and gradients."""
    copied = []
    real = jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda x: copied.append(len(x)) or real(x))
    monitor = ActivationMonitor(sample_every=lambda step: step == 1)
    trained(residual, monitor=monitor, epochs=1)
    assert copied == [1]


def test_data_parallel_training_gives_records_of_the_global_batch():
    assert jax.device_count() == 4
    keras.utils.set_random_seed(1)
    initial = perceptron().get_weights()
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(auto_shard_dataset=False)
    )
    try:
        monitor = assert_same_training(perceptron)
    finally:
        keras.distribution.set_distribution(None)
    assert_records(monitor.recording[0], expected_records(initial, X[:32], Y[:32]))


def test_a_log_is_written_without_tensorflow(tmp_path):
    """In a process of its own: `keras.utils.set_random_seed` loads it where it is there."""
    code = """
        import sys
        import keras
        import numpy as np
        from activation_monitor import ActivationMonitor
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile("sgd", "mse")
        x = np.random.default_rng(0).normal(size=(64, 3))
        model.fit(x, x[:, :2], verbose=0, callbacks=[ActivationMonitor(sys.argv[1])])
        print([name for name in sys.modules if name.split(".")[0] == "tensorflow"])
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stdout.splitlines() == ["[]"], run.stderr
    assert [*tmp_path.rglob("events.out.tfevents*")]
    assert backend is jax_backend

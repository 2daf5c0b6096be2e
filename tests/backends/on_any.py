"""Tests that hold on JAX and on PyTorch; run in a process of its own for each of them."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import layers

from activation_monitor import ActivationMonitor, Monitored, audit
from activation_monitor.analysis import raw, records
from activation_monitor.auditing import _ForwardPass
from activation_monitor.recording import kernels
from activation_monitor.recording.backends import backend
from backends.common import (
    BACKEND,
    RATE,
    SEQUENCES,
    Guide,
    X,
    Y,
    assert_records,
    assert_same_training,
    expected_records,
    of_sequences,
    perceptron,
    residual,
    silent,
    trained,
)

_RNG = np.random.default_rng(1)


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
    measured, suffices = backend.measured_each([keras.ops.convert_to_tensor(x)])
    (record,) = raw.finish(np.asarray(measured))
    x = x.astype(np.float64)
    assert bool(suffices[0])
    np.testing.assert_allclose(records.field(record, "variance"), x.var(), rtol=1e-6)
    np.testing.assert_allclose(records.field(record, "mean"), x.mean(), atol=1e-6 * x.std())


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
    assert backend.__name__.rpartition(".")[2] == BACKEND


@pytest.mark.parametrize("histograms", [False, True])
def test_a_store_of_many_tensors_holds_a_record_of_all(histograms):
    """It joins those of every 256, and does not keep them all."""
    store, one = (
        backend.Store(histograms, merges=merges, channels=3) for merges in (True, False)
    )
    tensors = _RNG.normal(size=(600, 4, 3)).astype("float32")
    tensors[..., 1] = 0
    tensors[10, 0, 1] = 1  # active once, long ago
    tensors[..., 2] = 0
    for x in tensors:
        for place in (store, one):
            place.put(keras.ops.convert_to_tensor(x), exact=False, fused=False)
    assert len(store.received) <= 256
    found, counted, active = backend.Reader([store, one]).finish(
        backend.Reader([store, one]).collect()
    )
    expected = tensors.astype(np.float64)
    np.testing.assert_allclose(records.field(found[0], "mean"), expected.mean(), atol=1e-7)
    np.testing.assert_allclose(
        records.field(found[0], "variance"), expected.var(), rtol=1e-6
    )
    np.testing.assert_array_equal(records.field(found, "count"), [600 * 12, 12])
    np.testing.assert_array_equal(active, [[1, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(counted[0], counted[1])  # that of the last one
    assert records.field(store.read(), "count") == 0


@pytest.mark.parametrize("monitored", [False, True])
def test_a_monitored_layer_records_its_outputs(monitored):
    """Of every step, whether a callback samples it or not. Training is the same."""

    def make(wrap=Monitored):
        given = keras.Input((12,))
        hidden = wrap(layers.Dense(16, "relu", name="hidden"))(given)
        return keras.Model(given, layers.Dense(1)(hidden))

    monitor = silent() if monitored else None
    expected, _, _ = trained(lambda: make(lambda layer: layer), run_eagerly=True)
    found, _, model = trained(make, monitor=monitor, run_eagerly=True)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert model.layers[1].statistics(training=True)["count"] == 2 * 96 * 16


def test_weights_that_were_trained_are_not_judged_as_drawn():
    """A bias that is not zero any more shows it."""
    x = np.tile(X, (2, 1))
    model = perceptron()
    assert audit(model, x).verdict == "healthy"
    _, _, model = trained(perceptron)
    assert audit(model, x).verdict == "not assessed"


def test_the_gains_of_a_recurrent_layer_are_those_of_its_kernels():
    """`sqrt(fan_in E w^2)` of both."""
    layer = layers.LSTM(16)
    layer.build((None, 6, 5))
    kernel, recurrent, _ = (one.astype(np.float64) for one in layer.get_weights())
    found = kernels.recurrent(layer)
    np.testing.assert_allclose(found.input_gain, np.sqrt(5 * np.mean(kernel**2)), rtol=1e-6)
    np.testing.assert_allclose(
        found.recurrent_gain, np.sqrt(16 * np.mean(recurrent**2)), rtol=1e-6
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool"])
def test_values_on_the_host_are_a_copy(dtype):
    values = np.array([[0.0, 1.0], [2.0, -3.0]])
    variable = keras.Variable(values, dtype=dtype, trainable="float" in dtype)
    found = backend.on_host(variable.value)
    expected = values.astype(bool) if dtype == "bool" else values
    np.testing.assert_array_equal(found.astype("float64"), expected)
    found[:] = 0
    np.testing.assert_array_equal(
        backend.on_host(variable.value).astype("float64"), expected
    )

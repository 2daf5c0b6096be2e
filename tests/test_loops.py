"""Custom training steps without `fit`: `watch` and `measure_step`."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from activation_monitor import ActivationMonitor, read_recording

X, Y = models.data(samples=8)


def training_step(model, optimizer, compiled=True, **options):
    """A training step with a gradient tape, compiled or not."""

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        variables = model.trainable_variables
        optimizer.apply_gradients(
            zip(tape.gradient(loss, variables), variables, strict=True)
        )
        return loss

    return tf.function(step, **options) if compiled else step


def trained(make_step, steps=6, monitored=True, **options):
    """Run some steps; returns losses, weights and the monitor."""
    keras.utils.set_random_seed(0)
    model = models.perceptron()
    step = make_step(model, keras.optimizers.Adam(0.01))
    monitor = ActivationMonitor(**options)
    if monitored:
        step = monitor.watch(step, model)
    losses = [float(step(X, Y)) for _ in range(steps)]
    return losses, model.get_weights(), monitor


STEPS = {
    "compiled": lambda model, optimizer: training_step(model, optimizer),
    "by XLA": lambda model, optimizer: training_step(model, optimizer, jit_compile=True),
    "with a signature": lambda model, optimizer: training_step(
        *(model, optimizer),
        input_signature=[tf.TensorSpec([None, 8]), tf.TensorSpec([None, 1])],
    ),
    "eager": lambda model, optimizer: training_step(model, optimizer, compiled=False),
}


@pytest.mark.smoke
@pytest.mark.parametrize("kind", STEPS)
def test_a_watched_step_does_the_same_and_is_measured(kind):
    """Results are equal bit for bit, and records are those of float64 numpy."""
    losses, weights, _ = trained(STEPS[kind], monitored=False)
    watched, after, monitor = trained(STEPS[kind], sample_every=4)
    np.testing.assert_array_equal(watched, losses)
    for one, other in zip(after, weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert monitor.recording.steps == [0, 1, 2, 4, 5]

    first = monitor.recording[0]
    assert first.names == (
        *("net/hidden_0:input", "net/hidden_0", "net/hidden_1", "net/hidden_2"),
        "net/head",
    )
    keras.utils.set_random_seed(0)
    h = X.astype(np.float64)
    kernels = [w.astype(np.float64) for w in models.perceptron().get_weights()]
    for i, (kernel, bias) in enumerate(zip(kernels[::2], kernels[1::2], strict=True)):
        h = h @ kernel + bias
        h = h if i == 3 else np.maximum(h, 0.0)
        np.testing.assert_allclose(first.statistic("mean")[i + 1], h.mean(), rtol=1e-5)
        np.testing.assert_allclose(first.statistic("std")[i + 1], h.std(), rtol=1e-5)
    if kind != "eager":  # eager steps use the order of the calls instead
        assert [layer.parents for layer in first.layers] == [(), (0,), (1,), (2,), (3,)]
        assert all(layer.traced for layer in first.layers)


def test_a_step_that_is_not_sampled_is_the_users_own():
    """The step is traced once plain and once measured, and nothing else is traced."""
    traces = []

    @tf.function
    def step(x):
        traces.append(1)
        return tf.reduce_sum(model(x))

    model = models.perceptron()
    monitor = ActivationMonitor(sample_every=lambda number: number == 2)
    watched = monitor.watch(step, model)
    for _ in range(5):
        watched(X)
    assert len(traces) == 2
    assert step.experimental_get_tracing_count() == 1
    assert monitor.recording.steps == [2]
    ops = step.get_concrete_function(X).graph.get_operations()
    assert not [op for op in ops if "Assign" in op.type]


def test_the_layers_are_as_before_also_after_an_error():
    """No `call` stays replaced, and the next sample contains only its own step."""
    model = models.perceptron()

    def step(x):
        model(x)
        if x.shape[0] == 3:
            raise KeyError("the user's own")

    monitor = ActivationMonitor(sample_every=1)
    watched = monitor.watch(step, model)
    with pytest.raises(KeyError, match="the user's own"):
        watched(X[:3])
    assert all("call" not in layer.__dict__ for layer in model.layers)
    watched(X[:5])
    assert monitor.recording.steps == [1]
    np.testing.assert_array_equal(monitor.recording[0].field("samples"), 5.0)


def test_a_resumed_run_goes_on_where_it_stopped(tmp_path):
    """Steps are counted from the number that the user passes. The log holds both runs."""
    for first in (0, 40):
        model = models.perceptron()
        monitor = ActivationMonitor(tmp_path, sample_every=10)
        step = monitor.watch(lambda x, model=model: model(x), model, first_step=first)
        for _ in range(12):
            step(X)
        assert monitor.recording.steps == [first + n for n in (0, 1, 2, 5, 10)]
    assert read_recording(tmp_path).steps == [0, 1, 2, 5, 10, 40, 41, 42, 45, 50]


def test_the_log_can_be_read_while_the_loop_runs(tmp_path):
    """Each sample is flushed, so nothing has to be closed."""
    model = models.perceptron()
    monitor = ActivationMonitor(tmp_path)
    step = monitor.watch(lambda x: model(x), model)
    step(X)
    assert read_recording(tmp_path).steps == [0]


def test_two_models_in_one_step_are_distinguished():
    """A GAN: the discriminator is called twice in a step."""
    generator = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, "relu", name="up")], name="generator"
    )
    discriminator = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(1, name="score")], name="discriminator"
    )

    @tf.function
    def step(noise, real):
        fake = discriminator(generator(noise))
        return tf.reduce_mean(discriminator(real)) - tf.reduce_mean(fake)

    monitor = ActivationMonitor()
    step = monitor.watch(step, [generator, discriminator])
    noise = np.ones((3, 4), np.float32)
    step(noise, X)
    (snapshot,) = monitor.recording
    assert set(snapshot.names) == {
        "generator/up:input",
        "generator/up",
        "discriminator/score/0",
        "discriminator/score/1:input",
        "discriminator/score/1",
    }
    samples = dict(zip(snapshot.names, snapshot.field("samples"), strict=True))
    assert (samples["discriminator/score/0"], samples["discriminator/score/1"]) == (3, 8)


def test_gradient_accumulation_counts_each_call_as_a_step():
    """Calls that do not change the optimizer's counter count too."""
    model, optimizer = models.perceptron(), keras.optimizers.SGD(0.1)
    total = [tf.Variable(tf.zeros_like(v)) for v in model.trainable_variables]

    @tf.function
    def step(x, y, apply):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        for sum_, gradient in zip(total, gradients, strict=True):
            sum_.assign_add(gradient)
        if apply:
            optimizer.apply_gradients(zip(total, model.trainable_variables, strict=True))
        return loss

    monitor = ActivationMonitor(sample_every=1)
    watched = monitor.watch(step, model)
    for i in range(4):
        watched(X, Y, tf.constant(i % 2 == 1))
    assert monitor.recording.steps == [0, 1, 2, 3]
    np.testing.assert_array_equal(monitor.recording[3].field("samples"), 8.0)


def test_a_model_inside_a_model_is_measured_by_its_leaves():
    """The snapshot contains the inner layers with their paths."""
    inner = models.perceptron(depth=1)
    outer = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8), inner])
    monitor = ActivationMonitor()
    monitor.watch(tf.function(lambda x: outer(x)), outer)(X)
    names = [name.rpartition("/")[2] for name in monitor.recording[0].names]
    assert names[1:] == ["dense", "hidden_0", "head"] or names[-2:] == ["hidden_0", "head"]


def test_python_control_flow_of_a_step_is_converted_as_without_a_monitor():
    """AutoGraph converts the user's function, not the wrapper."""
    model = models.perceptron()

    @tf.function
    def step(x):
        total = tf.constant(0.0)
        for row in x:
            if tf.reduce_sum(row) > 0:
                total += tf.reduce_sum(model(row[None]))
        return total

    expected = float(step(X))
    monitor = ActivationMonitor(sample_every=1)
    watched = monitor.watch(step, model)
    np.testing.assert_allclose(float(watched(X)), expected, rtol=1e-6)
    positive = (X.sum(axis=1) > 0).sum()
    np.testing.assert_array_equal(monitor.recording[0].field("samples")[-1], positive)


def test_a_compiled_function_that_a_python_step_calls_is_not_measured():
    """Its trace is kept and would measure at every step, so it is not measured."""
    model = models.perceptron()
    compiled = tf.function(lambda x: model(x))
    monitor = ActivationMonitor(sample_every=1)
    watched = monitor.watch(lambda x: compiled(x), model)
    with pytest.warns(UserWarning, match="a trace of its own.*to `watch`") as caught:
        for _ in range(3):
            watched(X)
    assert len(caught) == 1
    assert len(monitor.recording) == 0
    ops = compiled.get_concrete_function(X).graph.get_operations()
    assert not [op for op in ops if "Assign" in op.type]


def test_findings_of_a_watched_step_are_reported():
    """The rules and the warning are those of `fit`."""
    model = models.perceptron(depth=20, width=64, initializer="random_normal")
    monitor = ActivationMonitor()
    with pytest.warns(UserWarning, match="vanishing-activations"):
        monitor.watch(tf.function(lambda x: model(x)), model)(X)
    assert [f.code for f in monitor.diagnosis.findings] == ["vanishing-activations"]


# -- measure_step


def test_an_eager_step_is_measured_within_the_block():
    """Its results are those of the step without the monitor."""
    results = []
    for looking in (False, True):
        keras.utils.set_random_seed(0)
        model = models.perceptron()
        step = training_step(model, keras.optimizers.SGD(0.1), compiled=False)
        monitor = ActivationMonitor()
        for number in range(3):
            if looking and number != 1:
                with monitor.measure_step(model):
                    step(X, Y)
            else:
                step(X, Y)
        results.append(model.get_weights())
    for plain, looked_at in zip(*results, strict=True):
        np.testing.assert_array_equal(looked_at, plain)
    assert monitor.recording.steps == [0, 1]
    np.testing.assert_array_equal(monitor.recording[1].field("samples"), 8.0)
    assert monitor.diagnosis.healthy


def test_the_number_of_a_step_can_be_given():
    """The user passes the number."""
    model, monitor = models.perceptron(), ActivationMonitor()
    for number in (7, 12):
        with monitor.measure_step(model, step=number):
            model(X)
    assert monitor.recording.steps == [7, 12]


def test_a_block_that_calls_no_layer_says_so():
    """One example is a block that only runs a compiled function."""
    model, monitor = models.perceptron(), ActivationMonitor()
    compiled = tf.function(lambda x: model(x))
    compiled(X)
    with pytest.warns(UserWarning, match="no layer was called eagerly"):
        with monitor.measure_step(model):
            compiled(X)


# -- wrong use


def test_wrong_types_of_steps_and_models_are_refused():
    """The message says what was expected and received."""
    model, monitor = models.perceptron(), ActivationMonitor()
    with pytest.raises(TypeError, match="`step` must be a function, .* Received: step=3"):
        monitor.watch(3, model)
    with pytest.raises(TypeError, match=r"models: watch\(step, models\)"):
        monitor.watch(model, len)
    for models_given in ([], len, "net"):
        with pytest.raises(TypeError, match="watch: `models` must be a keras.Model or a"):
            monitor.watch(len, models_given)
    with pytest.raises(TypeError, match="measure_step: `models` must be a keras.Model"):
        with monitor.measure_step("net"):
            pass


def test_a_monitor_watches_one_step():
    """Two steps would mix their layers in one recording."""
    model, monitor = models.perceptron(), ActivationMonitor()
    monitor.watch(len, model)
    with pytest.raises(ValueError, match="already watches a step. Make another monitor"):
        monitor.watch(len, model)


def test_only_fit_can_be_stopped():
    """Only the user can end a custom loop."""
    monitor = ActivationMonitor(on_finding="stop")
    with pytest.raises(ValueError, match='`on_finding` must not be "stop"'):
        monitor.watch(len, models.perceptron())


def test_a_schedule_that_raises_does_not_end_the_loop():
    """It gives one warning, and the step runs."""
    model = models.perceptron()
    monitor = ActivationMonitor(sample_every=lambda step: 1 // 0)
    step = monitor.watch(lambda x: model(x), model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outputs = [step(X).shape for _ in range(3)]
    assert outputs == 3 * [(8, 1)]
    assert len(caught) == 1
    assert "this step is not measured" in str(caught[0].message)

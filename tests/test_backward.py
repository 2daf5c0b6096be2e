"""Gradients, weights, updates and the loss of a sampled step, against a float64 twin."""

import threading
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import models
from activation_monitor import ActivationMonitor
from activation_monitor.analysis import records
from activation_monitor.recording import backward, taps, weights
from activation_monitor.recording.backends import backend
from cases import cases

X, Y = models.data(samples=32)
BATCH = 8


def network(dtype=None):
    """A chain of four kinds of layers and a linear head."""
    hidden = [
        layers.Dense(16, "tanh", name="tanh", dtype=dtype),
        layers.LayerNormalization(name="norm", dtype=dtype),
        layers.Dense(12, name="linear", dtype=dtype),
        layers.ReLU(name="relu", dtype=dtype),
        layers.Dense(16, "gelu", name="gelu", dtype=dtype),
        layers.Dense(1, name="head", dtype=dtype),
    ]
    return keras.Sequential([keras.Input((8,), dtype=dtype), *hidden], name="net")


def twin_of(model, x, y, loss=None):
    """Loss, gradients by layer outputs and by kernels, in float64, of one batch."""
    twin = network("float64")
    twin.set_weights([np.asarray(value, np.float64) for value in model.get_weights()])
    outputs, kernels = {}, {}
    with tf.GradientTape() as tape:
        tensor = tf.constant(x, tf.float64)
        for layer in twin.layers:
            tensor = layer(tensor)
            tape.watch(tensor)
            outputs[layer.name] = tensor
            if isinstance(layer, layers.Dense):
                kernels[layer.name] = layer.kernel.value
        error = tensor - tf.constant(y, tf.float64)
        loss = tf.reduce_mean(error**2)
    by_output, by_kernel = tape.gradient(loss, [outputs, kernels])
    numpy = ({name: g.numpy() for name, g in d.items()} for d in (by_output, by_kernel))
    return float(loss), *numpy


def fitted(model, optimizer="sgd", every=1, epochs=1, **options):
    """A monitor of `fit`, and the weights before each step and after the last one."""
    kept = []
    gradients = options.pop("gradients", True)
    note = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: kept.append(model.get_weights())
    )
    model.compile(optimizer, "mse", **options)
    monitor = ActivationMonitor(sample_every=every, gradients=gradients)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(
            X,
            Y,
            batch_size=BATCH,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[note, monitor],
        )
    return monitor, [*kept, model.get_weights()]


def rms(x):
    """Root mean square in float64."""
    return np.sqrt(np.mean(np.square(np.asarray(x, np.float64))))


def of_layer(snapshot, name, of, statistic="rms"):
    """A statistic of a quantity of one layer."""
    row = snapshot.names.index(f"net/{name}")
    return snapshot.statistic(statistic, of=of)[row]


COMPILATIONS = {
    "graph": {},
    "xla": {"jit_compile": True},
    "eager": {"run_eagerly": True},
}


@pytest.mark.parametrize(
    "compilation", cases(COMPILATIONS, default=COMPILATIONS, smoke=COMPILATIONS)
)
def test_gradients_and_loss_are_those_of_a_float64_twin(compilation):
    model = network()
    monitor, before = fitted(model, **COMPILATIONS[compilation])
    assert len(monitor.recording) == 4
    for snapshot, values in zip(monitor.recording, before, strict=False):
        model.set_weights(values)
        batch = slice(BATCH * snapshot.step, BATCH * (snapshot.step + 1))
        loss, by_output, by_kernel = twin_of(model, X[batch], Y[batch])
        np.testing.assert_allclose(snapshot.loss, loss, rtol=1e-5)
        for name, gradient in by_output.items():
            for statistic, expected in {
                "rms": rms(gradient),
                "std": gradient.std(),
                "minimum": gradient.min(),
                "maximum": gradient.max(),
                "zero_fraction": np.mean(gradient == 0),
            }.items():
                found = of_layer(snapshot, name, records.OUTPUT_GRADIENT, statistic)
                np.testing.assert_allclose(
                    found, expected, rtol=2e-5, atol=1e-9, err_msg=f"{name} {statistic}"
                )
        for name, gradient in by_kernel.items():
            found = of_layer(snapshot, name, records.WEIGHT_GRADIENT)
            np.testing.assert_allclose(found, rms(gradient), rtol=2e-5, err_msg=name)


def test_histograms_of_gradients_count_all_elements():
    model = network()
    monitor, before = fitted(model)
    snapshot = monitor.recording[0]
    model.set_weights(before[0])
    _, by_output, _ = twin_of(model, X[:BATCH], Y[:BATCH])
    for name, gradient in by_output.items():
        _, rows = snapshot.histogram(f"net/{name}", of=records.OUTPUT_GRADIENT)
        np.testing.assert_equal(rows[:, 2].sum(), gradient.size)
        edges = rows[0, 0], rows[-1, 1]
        np.testing.assert_allclose(
            edges, (gradient.min(), gradient.max()), rtol=1e-4, atol=1e-9
        )


def accumulating():
    return keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "adam": lambda: keras.optimizers.Adam(1e-2),
    "weight decay": lambda: keras.optimizers.AdamW(1e-2, weight_decay=0.3),
    "clipped": lambda: keras.optimizers.SGD(0.1, global_clipnorm=1e-3),
    "average": lambda: keras.optimizers.SGD(
        0.1, use_ema=True, ema_overwrite_frequency=1, ema_momentum=0.5
    ),
    "accumulation": accumulating,
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_update_is_the_change_of_the_kernel_whatever_made_it(kind):
    model = network()
    # The second epoch also has steps that run compiled functions for the weights.
    monitor, values = fitted(model, OPTIMIZERS[kind](), epochs=2)
    assert len(monitor.recording) == 8
    for snapshot, before, after in zip(monitor.recording, values, values[1:], strict=False):
        if snapshot.step % 4 == 3:
            continue  # Keras overwrites with averages after the epoch
        model.set_weights(before)
        kernels = {layer.name: layer.kernel.numpy() for layer in dense(model)}
        model.set_weights(after)
        for layer in dense(model):
            change = layer.kernel.numpy().astype(np.float64) - kernels[layer.name]
            np.testing.assert_allclose(
                of_layer(snapshot, layer.name, records.WEIGHT_UPDATE),
                rms(change),
                rtol=1e-4,
                atol=1e-9,
            )
            np.testing.assert_allclose(
                of_layer(snapshot, layer.name, records.WEIGHT),
                rms(kernels[layer.name]),
                rtol=1e-6,
            )


def dense(model):
    return [layer for layer in model.layers if isinstance(layer, layers.Dense)]


def test_accumulation_updates_every_second_step_and_has_a_gradient_at_each():
    monitor, _ = fitted(network(), accumulating())
    updates, gradients = (
        monitor.recording.statistic("rms", "net/head", of=of)
        for of in (records.WEIGHT_UPDATE, records.WEIGHT_GRADIENT)
    )
    np.testing.assert_equal(updates[[0, 2]], 0.0)
    np.testing.assert_array_less(0.0, updates[[1, 3]])
    np.testing.assert_array_less(0.0, gradients)


def with_constant_scale():
    return keras.optimizers.SGD(0.1, loss_scale_factor=1024.0)


def with_dynamic_scale():
    inner = keras.optimizers.SGD(0.1)
    return keras.optimizers.LossScaleOptimizer(inner, initial_scale=4096.0)


@pytest.mark.parametrize("scaled", [with_constant_scale, with_dynamic_scale])
def test_the_loss_scale_is_divided_out(scaled):
    keras.utils.set_random_seed(1)
    plain, _ = fitted(network(), keras.optimizers.SGD(0.1))
    keras.utils.set_random_seed(1)
    monitor, _ = fitted(network(), scaled())
    for of in (records.OUTPUT_GRADIENT, records.WEIGHT_GRADIENT, records.WEIGHT_UPDATE):
        for snapshot, twin in zip(monitor.recording, plain.recording, strict=True):
            np.testing.assert_allclose(
                snapshot.statistic("rms", of), twin.statistic("rms", of), rtol=1e-5
            )
    twin = plain.recording[0].histogram("net/gelu", of=records.OUTPUT_GRADIENT)
    found = monitor.recording[0].histogram("net/gelu", of=records.OUTPUT_GRADIENT)
    np.testing.assert_allclose(found.rows, twin.rows, rtol=1e-5, atol=1e-9)


def test_float16_gradients_have_the_size_of_float32_ones():
    keras.utils.set_random_seed(1)
    plain, _ = fitted(network(), keras.optimizers.SGD(0.1))
    keras.utils.set_random_seed(1)
    keras.config.set_dtype_policy("mixed_float16")
    monitor, _ = fitted(network())
    assert type(monitor.model.optimizer).__name__ == "LossScaleOptimizer"
    found, expected = (
        recording[0].statistic("rms", records.OUTPUT_GRADIENT)
        for recording in (monitor.recording, plain.recording)
    )
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_a_softmax_head_has_the_gradient_by_what_the_loss_is_computed_from():
    x = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
    y = np.arange(16) % 4
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(4, "softmax", name="head")], name="net"
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    probabilities = np.asarray(model(x), np.float64)
    monitor = ActivationMonitor()
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0, callbacks=[monitor])
    # The gradient of cross-entropy by the logits (Bridle 1990).
    expected = (probabilities - np.eye(4)[y]) / 16
    found = of_layer(monitor.recording[0], "head", records.OUTPUT_GRADIENT)
    np.testing.assert_allclose(found, rms(expected), rtol=1e-5)


def test_a_frozen_layer_has_an_output_gradient_and_no_weight_gradient():
    model = network()
    model.get_layer("linear").trainable = False
    monitor, _ = fitted(model)
    snapshot = monitor.recording[0]
    assert np.isnan(of_layer(snapshot, "linear", records.WEIGHT_GRADIENT))
    np.testing.assert_equal(of_layer(snapshot, "linear", records.WEIGHT_UPDATE), 0.0)
    assert of_layer(snapshot, "linear", records.OUTPUT_GRADIENT) > 0
    assert of_layer(snapshot, "gelu", records.WEIGHT_GRADIENT) > 0


def test_without_gradients_there_are_weights_updates_and_a_loss():
    monitor, _ = fitted(network(), gradients=False)
    snapshot = monitor.recording[0]
    assert set(snapshot.quantities) == {
        records.OUTPUT,
        records.WEIGHT,
        records.WEIGHT_UPDATE,
    }
    assert np.isfinite(snapshot.loss)


def test_an_evaluation_has_neither_gradients_nor_weights():
    model = network()
    model.compile("sgd", "mse")
    monitor = ActivationMonitor(validation=True)
    model.fit(X, Y, verbose=0, validation_data=(X, Y), callbacks=[monitor])
    assert set(monitor.validation_recording[0].quantities) == {records.OUTPUT}
    assert records.OUTPUT_GRADIENT in monitor.recording[0].quantities


def test_several_steps_in_one_execution_have_one_update():
    model = network()
    monitor, values = fitted(model, keras.optimizers.SGD(0.1), steps_per_execution=4)
    (snapshot,) = monitor.recording
    assert snapshot.steps == 4
    model.set_weights(values[0])
    before = model.get_layer("gelu").kernel.numpy()
    model.set_weights(values[-1])
    change = model.get_layer("gelu").kernel.numpy().astype(np.float64) - before
    found = of_layer(snapshot, "gelu", records.WEIGHT_UPDATE)
    np.testing.assert_allclose(found, rms(change), rtol=1e-4)
    row = snapshot.names.index("net/gelu")
    count = snapshot.field("count", of=records.OUTPUT_GRADIENT)[row]
    np.testing.assert_equal(count, 4 * BATCH * 16)


@pytest.mark.parametrize("compiled", [True, False])
def test_custom_loops_have_gradients_updates_and_the_loss_they_return(compiled):
    model, optimizer = network(), keras.optimizers.SGD(0.1)

    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    optimizer.build(model.trainable_variables)
    monitor = ActivationMonitor(sample_every=1)
    step = monitor.watch(tf.function(train_step) if compiled else train_step, model)
    expected_loss, by_output, by_kernel = twin_of(model, X[:BATCH], Y[:BATCH])
    step(tf.constant(X[:BATCH]), tf.constant(Y[:BATCH]))
    step(tf.constant(X[:BATCH]), tf.constant(Y[:BATCH]))
    snapshot = monitor.recording[0]
    np.testing.assert_allclose(snapshot.loss, expected_loss, rtol=1e-5)
    for name, gradient in by_output.items():
        found = of_layer(snapshot, name, records.OUTPUT_GRADIENT)
        np.testing.assert_allclose(found, rms(gradient), rtol=2e-5)
    for name, gradient in by_kernel.items():
        found = of_layer(snapshot, name, records.WEIGHT_GRADIENT)
        np.testing.assert_allclose(found, rms(gradient), rtol=2e-5)
        found = of_layer(snapshot, name, records.WEIGHT_UPDATE)
        np.testing.assert_allclose(found, 0.1 * rms(gradient), rtol=1e-4)


def test_a_measured_block_has_gradients_and_updates():
    model, optimizer = network(), keras.optimizers.SGD(0.1)
    _, by_output, by_kernel = twin_of(model, X[:BATCH], Y[:BATCH])
    monitor = ActivationMonitor()
    with monitor.measure_step(model):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(X[:BATCH], training=True) - Y[:BATCH]) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
    snapshot = monitor.recording[0]
    found = of_layer(snapshot, "tanh", records.OUTPUT_GRADIENT)
    np.testing.assert_allclose(found, rms(by_output["tanh"]), rtol=2e-5)
    found = of_layer(snapshot, "tanh", records.WEIGHT_UPDATE)
    np.testing.assert_allclose(found, 0.1 * rms(by_kernel["tanh"]), rtol=1e-4)


class Unbuilt(keras.Model):
    """A model that has no kernel before its first step."""

    def __init__(self):
        super().__init__(name="net")
        self.head = layers.Dense(1, name="head")

    def call(self, x):
        return self.head(x)


def test_a_layer_that_the_step_builds_has_its_kernel_measured_too():
    model = Unbuilt()
    monitor = ActivationMonitor()
    with monitor.measure_step(model):
        model(X)
    (found,) = (
        value
        for value in monitor.recording[0].statistic("rms", records.WEIGHT)
        if np.isfinite(value)
    )
    np.testing.assert_allclose(found, rms(model.head.kernel), rtol=1e-6)


def test_large_kernels_are_measured_in_full_once_and_then_in_rows():
    model = keras.Sequential(
        [keras.Input((300,)), layers.Dense(200, name="wide"), layers.Dense(1, name="head")],
        name="net",
    )
    model.compile(keras.optimizers.SGD(0.01), "mse")
    kernel = model.layers[0].kernel.numpy()
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 300)), rng.standard_normal((32, 1))
    monitor = ActivationMonitor(sample_every=1)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[monitor])
    counts = [
        snapshot.field("count", of=records.WEIGHT)[1] for snapshot in monitor.recording
    ]
    # 60,000 elements: one row in 7, because 5 divides the 300 inputs.
    np.testing.assert_array_equal(counts, [60000, 8600, 8600, 8600])
    first, second = monitor.recording[0], monitor.recording[1]
    np.testing.assert_allclose(
        of_layer(first, "wide", records.WEIGHT), rms(kernel), rtol=1e-6
    )
    # A relative standard error of 1 / sqrt(2 * 8600) = 0.8 %.
    np.testing.assert_allclose(
        of_layer(second, "wide", records.WEIGHT), rms(kernel), rtol=0.03
    )
    np.testing.assert_equal(first.field("count", of=records.WEIGHT_UPDATE)[1], 8600)


KERNELS = {
    "normal": np.random.default_rng(0).standard_normal((64, 50)),
    "uniform": np.random.default_rng(1).uniform(0, 1, (64, 50)),
    "1e-30": 1e-30 * np.random.default_rng(2).standard_normal((64, 50)),
    "1e30": 1e30 * np.random.default_rng(3).standard_normal((64, 50)),
    "a large mean": 1e3 + np.random.default_rng(4).standard_normal((64, 50)),
    "all equal": np.full((64, 50), 1 / 3),
    "zeros": np.zeros((64, 50)),
    "images": np.random.default_rng(5).standard_normal((3, 3, 16, 8)),
}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_kernels_of_all_sizes_are_measured_as_in_float64(dtype):
    """Those of which sums about zero do not suffice are measured on the host."""
    tensors = [keras.ops.cast(kernel, dtype) for kernel in KERNELS.values()]
    found = weights.finished(tensors, backend.measured_each(tensors))
    for name, tensor, record in zip(KERNELS, tensors, found, strict=True):
        values = np.asarray(keras.ops.cast(tensor, "float64"))
        if not np.isfinite(values.astype(np.float32)).all():
            np.testing.assert_equal(records.field(record, "nonfinite"), values.size)
            continue
        np.testing.assert_equal(records.field(record, "count"), values.size)
        for statistic, expected in {
            "mean": values.mean(),
            "std": values.std(),
            "rms": rms(values),
            "minimum": values.min(),
            "maximum": values.max(),
        }.items():
            np.testing.assert_allclose(
                records.STATISTICS[statistic](record),
                expected,
                rtol=2e-6,
                atol=1e-6 * rms(values) + 1e-45,
                err_msg=f"{name} {statistic}",
            )


def test_elements_that_are_not_finite_are_counted_and_left_out():
    kernel = np.random.default_rng(0).standard_normal((64, 50)).astype(np.float32)
    kernel[3, :5], kernel[7, 2] = np.nan, np.inf
    # Gradients are kept in variables of the backend.
    tensors = [keras.ops.convert_to_tensor(kernel), tf.Variable(kernel)]
    found = weights.finished(tensors, backend.measured_each(tensors))
    np.testing.assert_equal(records.field(found, "nonfinite"), 6)
    finite = kernel[np.isfinite(kernel)]
    np.testing.assert_allclose(records.STATISTICS["rms"](found), rms(finite), rtol=1e-6)


def test_rows_are_evenly_spaced_and_at_least_one():
    kernel = np.arange(300.0 * 200).reshape(300, 200)
    np.testing.assert_array_equal(weights.some_rows(kernel), kernel[::7])
    np.testing.assert_array_equal(weights.some_rows(kernel[:5]), kernel[:5])
    wide = np.ones((3, 40000), np.float32)
    np.testing.assert_array_equal(weights.some_rows(wide).shape, (1, 40000))
    images = np.arange(3.0 * 3 * 64 * 64).reshape(3, 3, 64, 64)
    expected = images.reshape(-1, 64)[::3]
    np.testing.assert_array_equal(weights.some_rows(images), expected)


def test_a_failure_to_measure_gradients_warns_once_and_training_goes_on(monkeypatch):
    def fail(kernel):
        raise RuntimeError("no room")

    keras.utils.set_random_seed(1)
    _, expected = fitted(network())
    keras.utils.set_random_seed(1)
    model = network()
    model.compile("sgd", "mse")
    monkeypatch.setattr(backward, "some_rows", fail)
    with pytest.warns(
        UserWarning, match="gradients of kernels cannot be measured.*no room"
    ):
        model.fit(
            X,
            Y,
            batch_size=BATCH,
            shuffle=False,
            verbose=0,
            callbacks=[monitor := ActivationMonitor(sample_every=1)],
        )
    np.testing.assert_equal(model.get_weights(), expected[-1])
    assert np.isfinite(of_layer(monitor.recording[0], "gelu", records.OUTPUT_GRADIENT))
    assert records.WEIGHT_GRADIENT not in monitor.recording[0].quantities


@pytest.mark.parametrize("generator_first", [True, False])
def test_each_network_has_the_gradient_of_the_loss_that_trains_it(generator_first):
    """Two losses, two optimizers: the loss of the discriminator also depends on the
    generator, which it does not train."""
    generator = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="g")], name="gen")
    critic = keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, "tanh", name="d"), layers.Dense(1, name="out")],
        name="dis",
    )
    rates = keras.optimizers.SGD(0.0), keras.optimizers.SGD(0.0)
    for rate, model in zip(rates, (generator, critic), strict=True):
        rate.build(model.trainable_variables)
    noise = tf.constant(np.random.default_rng(0).standard_normal((8, 3)), tf.float32)

    def losses():
        judged = critic(generator(noise))
        return tf.reduce_mean((judged - 1.0) ** 2), tf.reduce_mean(judged**2)

    def train_step():
        with tf.GradientTape() as of_generator, tf.GradientTape() as of_critic:
            both = losses()
        steps = [(of_generator, 0, generator), (of_critic, 1, critic)]
        for tape, which, model in steps if generator_first else steps[::-1]:
            gradients = tape.gradient(both[which], model.trainable_variables)
            rates[which].apply(gradients, model.trainable_variables)

    with tf.GradientTape() as tape:
        made = generator(noise)
        loss = tf.reduce_mean((critic(made) - 1.0) ** 2)
    expected = rms(tape.gradient(loss, made))
    monitor = ActivationMonitor()
    monitor.watch(tf.function(train_step), [generator, critic])()
    snapshot = monitor.recording[0]
    row = snapshot.names.index("gen/g")
    found = snapshot.statistic("rms", of=records.OUTPUT_GRADIENT)[row]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_gradient_by_the_input_is_not_one_of_training():
    model = network()
    monitor = ActivationMonitor()
    with monitor.measure_step(model):
        x = tf.constant(X)
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = model(x)
        tape.gradient(outputs, x)
    assert records.OUTPUT_GRADIENT not in monitor.recording[0].quantities


def test_a_sum_that_no_layer_computes_has_the_gradient_of_both_its_ways():
    class Residual(keras.Model):
        """A residual stream written with `+`."""

        def __init__(self):
            super().__init__(name="net")
            self.stem = layers.Dense(8, name="stem")
            self.branch = layers.Dense(8, "relu", name="branch")
            self.inner = layers.Dense(8, "relu", name="inner")
            self.head = layers.Dense(1, name="head")

        def call(self, x):
            x = self.stem(x)
            stream = x + self.branch(x)
            return self.head(stream + self.inner(stream))

    model = Residual()
    model(X[:1])
    with tf.GradientTape() as tape:
        x = model.stem(X)
        stream = x + model.branch(x)
        loss = tf.reduce_mean((model.head(stream + model.inner(stream)) - Y) ** 2)
    expected = rms(tape.gradient(loss, stream))
    model.compile("sgd", "mse")
    monitor = ActivationMonitor()
    model.fit(X, Y, batch_size=32, shuffle=False, verbose=0, callbacks=[monitor])
    found = of_layer(monitor.recording[0], "inner:input", records.OUTPUT_GRADIENT)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_error_of_the_users_own_backward_pass_is_the_users():
    """It is raised as without a monitor."""

    @tf.custom_gradient
    def broken(x):
        def backward(gradient):
            raise ArithmeticError("mine")

        return x + 0.0, backward

    class Own(keras.Model):
        """A model whose backward pass fails."""

        def __init__(self):
            super().__init__()
            self.head = layers.Dense(1)

        def call(self, x):
            return broken(self.head(x))

    model = Own()
    model.compile("sgd", "mse")
    with pytest.raises(ArithmeticError, match="mine"):
        model.fit(X, Y, verbose=0, callbacks=[ActivationMonitor()])
    assert tf.GradientTape.gradient.__module__.startswith("tensorflow")
    assert keras.optimizers.Optimizer.apply.__module__.startswith("keras")


def test_a_failure_to_find_what_a_gradient_is_of_does_not_end_training(monkeypatch):
    def fail(*arguments):
        raise RuntimeError("lost")

    monkeypatch.setattr(taps, "depending_on", fail)
    model = network()
    model.compile("sgd", "mse")
    monitor = ActivationMonitor()
    with pytest.warns(UserWarning, match="gradients cannot be measured.*lost"):
        model.fit(X, Y, verbose=0, callbacks=[monitor])
    assert records.OUTPUT_GRADIENT not in monitor.recording[0].quantities
    assert records.WEIGHT_GRADIENT in monitor.recording[0].quantities


def test_a_step_that_wants_zeros_has_them_and_the_record_stays_empty():
    """For an output that the loss does not depend on."""
    model = network()
    unused = layers.Dense(3, name="unused")
    unused.build((None, 8))
    both = keras.Sequential([keras.Input((8,)), unused], name="other")
    # TensorFlow makes zeros for variables of its own only.
    both_trained = [*model.trainable_variables, *both.trainable_variables]
    variables = [variable.value for variable in both_trained]

    def gradients():
        with tf.GradientTape() as tape:
            both(X)
            loss = tf.reduce_mean((model(X) - Y) ** 2)
        return tape.gradient(loss, variables, unconnected_gradients="zero")

    expected = gradients()
    monitor = ActivationMonitor()
    found = monitor.watch(tf.function(gradients), [model, both])()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    snapshot = monitor.recording[0]
    counts = dict(
        zip(
            snapshot.names, snapshot.field("count", of=records.OUTPUT_GRADIENT), strict=True
        )
    )
    np.testing.assert_equal([counts["unused"], counts["net/head"]], [0, len(X)])


def test_a_layer_called_in_a_branch_after_the_model_does_not_end_its_gradients():
    model = network()
    extra = layers.Dense(1, name="extra")
    extra.build((None, 8))
    aside = keras.Sequential([keras.Input((8,)), extra], name="aside")

    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(X) - Y) ** 2)
            loss += tf.cond(loss > 0.0, lambda: 0.0 * tf.reduce_mean(aside(X)), lambda: 0.0)
        return tape.gradient(loss, model.trainable_variables)

    _, by_output, _ = twin_of(model, X, Y)
    monitor = ActivationMonitor()
    monitor.watch(tf.function(step, autograph=False), [model, aside])()
    for name, gradient in by_output.items():
        found = of_layer(monitor.recording[0], name, records.OUTPUT_GRADIENT)
        np.testing.assert_allclose(found, rms(gradient), rtol=2e-5, err_msg=name)


def test_probabilities_that_another_loss_uses_have_the_gradient_of_that_loss():
    """Cross-entropy is computed from what softmax was computed from, and not from its
    output. A second loss uses the output itself."""
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(3, "softmax", name="out")], name="net"
    )
    classes = np.arange(len(X)) % 3
    entropy = keras.losses.SparseCategoricalCrossentropy()

    def of_both(outputs):
        return entropy(classes, outputs) + tf.reduce_mean(outputs[:, 0] ** 2)

    def step():
        with tf.GradientTape() as tape:
            loss = of_both(model(X))
        return tape.gradient(loss, model.trainable_variables)

    monitor = ActivationMonitor()
    monitor.watch(tf.function(step), model)()
    found = of_layer(monitor.recording[0], "out", records.OUTPUT_GRADIENT)
    probabilities = np.asarray(model(X), np.float64)
    expected = np.zeros_like(probabilities)
    expected[:, 0] = 2 * probabilities[:, 0] / len(X)
    np.testing.assert_allclose(found, rms(expected), rtol=1e-5)


def test_a_loss_of_another_thread_is_not_that_of_the_step():
    """Two threads: one evaluates the model while the other one's step is measured."""
    model = network()
    model.compile("sgd", "mse")

    def aside():
        model.compute_loss(y=tf.constant(Y), y_pred=tf.constant(Y + 1e3))

    def step():
        with tf.GradientTape() as tape:
            outputs = model(X)
            thread = threading.Thread(target=aside)
            thread.start()
            thread.join()
            loss = model.compute_loss(y=tf.constant(Y), y_pred=outputs)
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        return {}

    expected, _, _ = twin_of(model, X, Y)
    monitor = ActivationMonitor()
    monitor.watch(tf.function(step, autograph=False), model)()
    np.testing.assert_allclose(monitor.recording[0].loss, expected, rtol=1e-5)

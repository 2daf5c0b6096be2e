"""The callback: the steps it samples, what it reports, and what it does on failures."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import models
from activation_monitor import ActivationMonitor, read_recording
from activation_monitor.recording.backends import backend


@pytest.mark.parametrize(
    ("every", "steps"),
    [
        (100, [0, 1, 2, 5, 10, 20, 50, 100]),
        (30, [0, 1, 2, 5, 10, 20, 30, 50, 60, 90]),
        (lambda step: step in (3, 99), [3, 99]),
    ],
)
def test_the_first_steps_are_sampled_densely(every, steps):
    """Later every n-th step is sampled; a function of the step decides alone."""
    x, y = models.data(samples=21)
    model = models.perceptron(depth=1)
    model.compile("sgd", "mse")
    monitor = ActivationMonitor(sample_every=every, histograms=False)
    model.fit(x, y, batch_size=1, epochs=5, verbose=0, callbacks=[monitor])
    assert monitor.recording.steps == steps


def test_a_second_fit_continues_where_the_first_one_stopped():
    """Steps are those of the optimizer; the first steps are not sampled densely again."""
    x, y = models.data()
    model = models.perceptron()
    monitor, _ = models.watch(model, x, y)
    models.watch(model, x, y, monitor=monitor)
    assert monitor.recording.steps == [0, 1, 2, 5]


def test_a_new_monitor_on_a_trained_model_samples_at_once():
    """It samples its own first steps densely, under the optimizer's numbers."""
    x, y = models.data()
    model = models.perceptron()
    models.watch(model, x, y)
    monitor, _ = models.watch(model, x, y)
    assert monitor.recording.steps == [5, 6, 7]


def test_the_steps_of_a_model_compiled_again_are_counted_on():
    """Its new optimizer begins at 0; the steps of the log do not go back."""
    x, y = models.data()
    model = models.perceptron()
    monitor, _ = models.watch(model, x, y, sample_every=1)
    model.compile("adam", "mse")
    models.watch(model, x, y, monitor=monitor)
    assert monitor.recording.steps == [*range(10)]


def test_with_another_model_the_monitor_starts_again():
    """Findings of the first model do not count for the second."""
    x, y = models.data()
    monitor, _ = models.watch(models.perceptron(), x, y, sample_every=1)
    exploding = models.perceptron(
        20, 64, initializer=keras.initializers.RandomNormal(stddev=1.0)
    )
    models.watch(exploding, x, y, monitor=monitor)
    assert monitor.recording.steps == [*range(5)]
    assert [f.code for f in monitor.diagnosis.findings] == ["exploding-activations"]


def test_a_model_whose_layers_were_changed_is_measured_with_its_new_layers():
    """The head is replaced between two fits with one monitor."""
    x, y = models.data()
    model = models.perceptron(depth=1)
    monitor, _ = models.watch(model, x, y)
    model.pop()
    model.add(layers.Dense(1, name="other"))
    model.compile("sgd", "mse")
    _, warned = models.watch(model, x, y, monitor=monitor)
    assert warned == []
    assert monitor.recording[-1].names[-1] == "net/other"


class OwnOptimizer(keras.Model):
    """A training step that does not use the compiled optimizer, as in a GAN."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x, training=True) - y))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.own.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


@pytest.mark.parametrize("compiled", [{}, {"optimizer": None}])
def test_steps_are_counted_where_the_optimizer_does_not(compiled):
    """Also in a second fit: every step has a number of its own."""
    x, y = models.data()
    inputs = keras.Input((8,))
    model = OwnOptimizer(inputs, layers.Dense(1)(inputs))
    model.own = keras.optimizers.SGD(0.01)
    model.compile(**compiled)
    monitor = ActivationMonitor(sample_every=4)
    for _ in range(2):
        model.fit(x, y, batch_size=8, verbose=0, callbacks=[monitor])
    assert monitor.recording.steps == [0, 1, 2, 4, 5, 8]


def test_steps_of_gradient_accumulation_are_those_of_the_batches():
    """The optimizer's own count moves every fourth of them."""
    x, y = models.data()
    model = models.perceptron(depth=1)
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=4), "mse")
    monitor, _ = models.watch(model, x, y, sample_every=1)
    assert monitor.recording.steps == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("together", [1, 2, 3])
def test_steps_are_counted_right_over_epochs_of_odd_length(together):
    """The last execution of an epoch may run fewer steps; the optimizer counts them all."""
    x, y = models.data()
    model = models.perceptron(depth=1)
    model.compile("sgd", "mse", steps_per_execution=together)
    truth = []

    class Notes(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            truth.append(int(self.model.optimizer.iterations))

    monitor = ActivationMonitor(sample_every=1)
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[Notes(), monitor])
    assert monitor.recording.steps == truth


def test_errors_of_the_user_are_raised():
    """A file that is missing from the data ends `fit`, as it does without a monitor."""

    def read(path):
        size = tf.strings.length(tf.io.read_file(path))
        return tf.ones((1, 8)) * tf.cast(size > 0, tf.float32), tf.ones((1, 1))

    broken = tf.data.Dataset.from_tensor_slices([__file__, "/nowhere"]).map(read)
    model = models.perceptron(depth=1)
    model.compile("sgd", "mse")
    with pytest.raises(tf.errors.NotFoundError):
        model.fit(
            broken, shuffle=False, verbose=0, callbacks=[ActivationMonitor(sample_every=1)]
        )


def test_two_monitors_do_not_disturb_each_other():
    """Each measures its own steps; the plain function is in place at the end."""
    x, y = models.data()
    model = models.perceptron(depth=1)
    model.compile("sgd", "mse")
    model.fit(x, y, batch_size=8, verbose=0)
    plain = model.train_function
    first = ActivationMonitor(sample_every=lambda step: step in (5, 7))
    second = ActivationMonitor(sample_every=lambda step: step in (6, 8))
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[first, second])
    assert (first.recording.steps, second.recording.steps) == ([5, 7], [6, 8])
    assert model.train_function is plain


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sample_every": 0}, ValueError, "Received: sample_every=0. Use 1 to sample"),
        ({"sample_every": "often"}, TypeError, "Received: sample_every='often'."),
        ({"sample_every": True}, TypeError, "Received: sample_every=True."),
        ({"on_finding": "shout"}, ValueError, "Received: on_finding='shout'."),
        ({"log_dir": 3}, TypeError, "Received: log_dir=3."),
    ],
)
def test_wrong_arguments_raise_at_once(options, error, message):
    """When the monitor is made; the message has the argument received."""
    with pytest.raises(error) as raised:
        ActivationMonitor(**options)
    assert message in str(raised.value)


HEALTHY = {
    "he relu": {"activation": "relu", "initializer": "he_normal"},
    "glorot tanh": {"activation": "tanh", "initializer": "glorot_uniform"},
    "lecun selu": {"activation": "selu", "initializer": "lecun_normal"},
    "orthogonal linear": {"activation": "linear", "initializer": "orthogonal"},
}
BROKEN = {
    "std 1": (keras.initializers.RandomNormal(stddev=1.0), "exploding-activations"),
    "std 0.01": (keras.initializers.RandomNormal(stddev=0.01), "vanishing-activations"),
    "zeros": ("zeros", "zero-activations"),
    "overflow": (keras.initializers.RandomNormal(stddev=1e3), "exploding-activations"),
}


@pytest.mark.parametrize("case", HEALTHY)
def test_a_healthy_network_gets_no_warning(case):
    """20 layers, every step sampled."""
    x, y = models.data(inputs=64)
    model = models.perceptron(depth=20, width=128, inputs=64, **HEALTHY[case])
    model.compile(keras.optimizers.SGD(1e-3), "mse")  # at 1e-2 one of them diverges
    monitor, warned = models.watch(model, x, y, sample_every=1)
    assert warned == []
    assert monitor.diagnosis.healthy
    low, high = monitor.diagnosis.profile.main.interval()
    # Tanh shrinks the signal slowly however well it is initialized, like 1 / sqrt(depth).
    assert low < monitor.diagnosis.profile.main.growth < high or case == "glorot tanh"


def transformer(pre_norm):
    """Four blocks, the normalization before (GPT) or after (BERT) each sum."""

    def norm(x, here):
        return layers.LayerNormalization()(x) if here else x

    inputs = keras.Input((16,), dtype="int32")
    x = layers.Embedding(50, 32)(inputs)
    for _ in range(4):
        y = norm(x, pre_norm)
        x = norm(x + layers.MultiHeadAttention(4, 8)(y, y), not pre_norm)
        y = layers.Dense(64, "gelu")(norm(x, pre_norm))
        x = norm(x + layers.Dense(32)(y), not pre_norm)
    x = layers.GlobalAveragePooling1D()(norm(x, pre_norm))
    return keras.Model(inputs, layers.Dense(1)(x))


@pytest.mark.parametrize("pre_norm", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_transformer_is_healthy(pre_norm):
    """Its residual stream grows, as that of every transformer."""
    tokens = np.random.default_rng(0).integers(0, 50, (32, 16))
    _, warned = models.watch(
        transformer(pre_norm), tokens, np.ones((32, 1)), sample_every=1
    )
    assert warned == []


@pytest.mark.slow
def test_a_residual_network_of_keras_is_healthy():
    """ResNet50 with its own initializers, on Gaussian images of 32 x 32."""
    x = np.random.default_rng(0).standard_normal((8, 32, 32, 3)).astype(np.float32)
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=1)
    monitor, warned = models.watch(model, x, np.ones((8, 1)), histograms=False)
    assert warned == []
    assert len(monitor.recording[0].layers) == 177


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_network_gets_one_warning_that_names_the_fault(case):
    """Once, from the first snapshot, whatever follows."""
    x, y = models.data(inputs=64)
    initializer, code = BROKEN[case]
    model = models.perceptron(20, 128, initializer=initializer, inputs=64)
    monitor, warned = models.watch(model, x, y, sample_every=1)
    assert [finding.code for finding in monitor.diagnosis.findings] == [code]
    assert len(warned) == 1
    assert warned[0].startswith(
        f"ActivationMonitor: {code} (critical, at initialization): "
    )
    assert "net/hidden_0" in warned[0]
    assert not monitor.diagnosis.healthy


def test_the_growth_that_is_reported_is_that_of_the_law():
    """Weights of std 0.1 in ReLU layers of 256: sqrt(256 / 2) 0.1 = 1.131 per layer."""
    x, y = models.data(inputs=256)
    initializer = keras.initializers.RandomNormal(stddev=0.1)
    model = models.perceptron(40, 256, initializer=initializer, inputs=256)
    monitor, _ = models.watch(model, x, y)
    (finding,) = monitor.diagnosis.findings
    # The sd of the mean over 39 layers of 256 is 0.0704 / sqrt(39) = 0.011; 4 of them.
    np.testing.assert_allclose(finding.evidence["growth"], 1.131, rtol=0.045)
    assert finding.evidence["layers"] == 39


def test_growth_that_training_brings_is_not_reported():
    """Weights that are ten times as large at step 11 are not a wrong initialization."""
    x, y = models.data(samples=64, inputs=64)
    model = models.perceptron(3, 64, inputs=64)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    for layer in model.layers[1:3]:
        layer.kernel.assign(10.0 * layer.kernel)
    _, at_the_start = models.watch(model, x, y)
    model.optimizer.iterations.assign(11)
    monitor, later = models.watch(model, x, y)
    assert (len(at_the_start), later) == (1, [])
    assert monitor.recording.steps[0] == 11


@pytest.fixture
def exploding():
    return models.perceptron(
        20, 64, initializer=keras.initializers.RandomNormal(stddev=1.0)
    )


def test_a_finding_can_stop_training(exploding):
    """After the step in which it was found, with a warning."""
    x, y = models.data()
    monitor, warned = models.watch(exploding, x, y, on_finding="stop", sample_every=1)
    assert monitor.recording.steps == [0]
    assert len(warned) == 1


def test_a_finding_can_raise(exploding):
    """The model keeps its own training function."""
    x, y = models.data()
    with pytest.raises(RuntimeError, match="ActivationMonitor: exploding-activations"):
        models.watch(exploding, x, y, on_finding="raise")
    monitor, _ = models.watch(exploding, x, y)
    # A loss that becomes infinite makes the schedule denser.
    assert monitor.recording.steps[:3] == [1, 2, 3]


def test_a_function_can_receive_a_finding(exploding):
    """Instead of a warning."""
    x, y = models.data()
    got = []
    monitor, warned = models.watch(exploding, x, y, on_finding=got.append)
    (received,), (finding,) = got, monitor.diagnosis.findings
    assert (received.code, received.step, received.layers) == (
        finding.code,
        finding.step,
        finding.layers,
    )
    assert (received.last_step or received.step, finding.last_step) == (
        0,
        monitor.diagnosis.steps[-1],
    )
    assert warned == []


def test_the_warning_points_to_the_users_line(exploding):
    """To the line with `fit`, not into Keras or the monitor."""
    x, y = models.data()
    exploding.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="exploding") as caught:
        exploding.fit(x, y, verbose=0, callbacks=[ActivationMonitor()])
    assert {warning.filename for warning in caught} == {__file__}


def test_infinities_that_the_model_handles_are_not_a_finding():
    """A mask of minus infinity before a softmax."""
    inputs = keras.Input((8,))
    masked = layers.Lambda(lambda x: tf.where(x > 0, x, -np.inf), name="mask")(
        layers.Dense(8)(inputs)
    )
    outputs = layers.Dense(1)(layers.Dense(4)(layers.Softmax()(masked)))
    x, y = models.data(samples=8)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    monitor, warned = models.watch(model, np.abs(x) + 1, y, sample_every=1)
    snapshot = monitor.recording[0]
    assert snapshot.field("nonfinite")[snapshot.names.index("mask")] > 0
    assert [w for w in warned if "mask" in w] == []


def test_non_finite_inputs_are_named():
    """Only the first tensor along the data path that has them."""
    x, y = models.data()
    x[3, 2] = np.nan
    model = models.perceptron()
    monitor, warned = models.watch(model, x, y, batch_size=40, sample_every=1)
    assert len(warned) == 1
    assert "1 of 320 elements of the input of the model (net/hidden_0:input" in warned[0]


def test_the_finite_elements_beside_nan_are_measured_at_the_next_sample():
    """In an exact step, which is compiled then, once for each layer that needs it."""
    x, y = models.data()
    x[3, 2] = np.nan
    model = models.perceptron(depth=1)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    monitor, _ = models.watch(model, x, y, batch_size=40, sample_every=1)
    models.watch(model, x, y, batch_size=40, monitor=monitor)
    models.watch(model, x, y, batch_size=40, monitor=monitor)
    variances = [snapshot.field("variance")[0] for snapshot in monitor.recording]
    assert np.isnan(variances).tolist() == [True, False, True]
    np.testing.assert_allclose(variances[1], np.nanvar(x.astype(np.float64)), rtol=1e-6)


def test_a_sampled_step_copies_as_often_to_the_host_for_many_layers_as_for_few(monkeypatch):
    """The records of all layers leave the device as one tensor."""
    holder = next(kind for kind in type(tf.constant(0)).mro() if "numpy" in vars(kind))
    copy, copied = holder.numpy, []
    monkeypatch.setattr(holder, "numpy", lambda self: copied.append(self) or copy(self))
    x, y = models.data()
    copies = []
    for depth in (1, 9):
        model = models.perceptron(depth)
        monitor, _ = models.watch(model, x, y, sample_every=1)
        copied.clear()
        models.watch(model, x, y, sample_every=1, monitor=monitor)
        copies.append(len(copied))
        assert any(len(tensor.shape) == 2 for tensor in copied)  # (replicas, columns)
        assert len(monitor.recording) == 10
    assert copies[0] == copies[1]


# -- failures of the monitor never end training


def losses(monitor, x, y):
    model = models.perceptron()
    model.compile("sgd", "mse")
    return model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=monitor).history


def test_a_log_folder_that_cannot_be_written_gives_one_warning(tmp_path):
    """The diagnosis is made all the same."""
    x, y = models.data()
    (tmp_path / "file").write_text("in the way")
    monitor = ActivationMonitor(tmp_path / "file" / "logs")
    with pytest.warns(UserWarning) as caught:
        losses([monitor], x, y)
    assert len(caught) == 1
    assert "nothing is logged to" in str(caught[0].message)
    assert monitor.diagnosis.healthy


def test_a_full_disk_gives_one_warning_and_what_was_written_stays(tmp_path):
    """On a tmpfs of 64 kB, where it may be mounted; in a process of its own, since the
    background thread of TensorBoard's writer prints a traceback of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs here")
    code = f"""
        import sys, warnings
        sys.path.insert(0, {str(models.__file__).rpartition("/")[0]!r})
        import models
        from activation_monitor import ActivationMonitor
        x, y = models.data()
        model = models.perceptron()
        model.compile("sgd", "mse")
        monitor = ActivationMonitor({str(disk)!r}, sample_every=1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(x, y, batch_size=8, epochs=30, verbose=0, callbacks=[monitor])
        ours = [str(w.message) for w in caught if "ActivationMonitor" in str(w.message)]
        print(len(monitor.recording), len(ours), ours)
    """
    try:
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
        )
        assert run.stdout.startswith("150 1 ["), run.stdout + run.stderr
        assert "has ended, training goes on" in run.stdout
        assert len(read_recording(disk)) >= 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_layer_that_cannot_be_measured_is_left_out_with_one_warning(monkeypatch):
    """The others are measured."""
    original = backend.Store.put

    def put(store, tensor, **options):
        if tensor.shape[-1] == 5:
            raise NotImplementedError("five units are too many")
        return original(store, tensor, **options)

    monkeypatch.setattr(backend.Store, "put", put)
    x, y = models.data()
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(5, name="odd"), layers.Dense(1, name="even")],
        name="net",
    )
    monitor, warned = models.watch(model, x, y, sample_every=1)
    assert warned == [
        "ActivationMonitor: 'net/odd' cannot be measured, it is left out: "
        "NotImplementedError: five units are too many"
    ]
    assert "net/even" in monitor.recording[-1].names
    assert len(monitor.recording) == 5


def test_a_view_that_breaks_does_not_end_training(tmp_path, monkeypatch):
    """The losses are those without a monitor."""
    x, y = models.data()
    keras.utils.set_random_seed(0)
    expected = losses([], x, y)

    def broken(*args, **options):
        raise ZeroDivisionError("a bug of the monitor")

    monkeypatch.setattr("activation_monitor.run.judge", broken)
    monkeypatch.setattr("activation_monitor.storage.writer.EventLog.write", broken)
    keras.utils.set_random_seed(0)
    monitor = ActivationMonitor(tmp_path, sample_every=1)
    with pytest.warns(UserWarning) as caught:
        assert losses([monitor], x, y) == expected
    assert len(caught) == 2
    assert len(monitor.recording) == 15


def test_a_schedule_that_raises_does_not_end_training():
    """The schedule is the user's, so the error is reported, once."""
    x, y = models.data()
    monitor = ActivationMonitor(sample_every=lambda step: 1 // 0)
    with pytest.warns(UserWarning) as caught:
        losses([monitor], x, y)
    (message,) = [str(warning.message) for warning in caught]
    assert "this step is not measured, training goes on (ZeroDivisionError" in message


def test_a_tapped_step_that_does_not_fit_the_device_gives_way_to_the_plain_one(monkeypatch):
    """Memory may run out because measuring needs more."""
    from activation_monitor.recording import two_steps

    def too_large(self, exact):
        def tapped(iterator):
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")

        return tapped

    monkeypatch.setattr(two_steps.TwoSteps, "_make", too_large)
    x, y = models.data()
    monitor, warned = models.watch(models.perceptron(), x, y)
    assert len(warned) == 1
    assert (
        "measuring failed and ends here, training goes on (ResourceExhaustedError"
        in warned[0]
    )
    assert len(monitor.recording) == 0

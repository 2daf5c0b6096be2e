"""Silent errors in real trainings: how many are named, in one run of a few steps each.

    python tests/test_silent_errors.py

counts them all, with their healthy twins and other healthy trainings.
"""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from activation_monitor.analysis.optimizer_law import expected
from cases import cases
from healthy_updates import HEALTHY, OPTIMIZERS, TRAININGS
from silent_errors import ERRORS, X, Y, fitted, monitor, network

BY_NAME = {error.__name__: (error, code) for error, code in ERRORS.items()}
FAST = ("applies_twice", "clips_values_to_nothing")
NAMED = [name for name, (_, code) in BY_NAME.items() if code]
MISSED = [name for name in BY_NAME if name not in NAMED]


def two_replicas():
    """Two devices for `MirroredStrategy`, unless TensorFlow has begun."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    half = tf.config.LogicalDeviceConfiguration()
    try:
        tf.config.set_logical_device_configuration(cpu, [half, half])
    except RuntimeError:
        return len(tf.config.list_logical_devices("CPU")) > 1
    return True


def codes(seen):
    return [finding.code for finding in seen.diagnosis.findings]


@pytest.mark.parametrize("name", cases(NAMED, FAST))
def test_a_silent_error_is_named_and_its_twin_is_healthy(name):
    """By its code, and by nothing else."""
    if name == "replicas_part" and not two_replicas():
        pytest.skip("TensorFlow has begun with one device")
    error, code = BY_NAME[name]
    assert codes(error(True)) == [code]
    assert codes(error(False)) == []


@pytest.mark.parametrize("name", cases(MISSED, MISSED[:1]))
def test_what_the_documentation_says_is_missed_is_missed(name):
    """If this fails, the documentation has to name it."""
    error, _ = BY_NAME[name]
    assert codes(error(True)) == []


@pytest.mark.parametrize(
    "name",
    cases(HEALTHY, ["SGD, loss scale"]),
)
def test_an_update_that_is_easily_taken_for_a_wrong_one_is_healthy(name):
    """Of any optimizer, and of training steps of one's own."""
    seen = HEALTHY[name]()
    assert seen.recording[0].updating is not None
    assert codes(seen) == []


WITH_A_LAW = {
    *("SGD", "SGD, momentum", "SGD, Nesterov", "SGD, clipvalue", "SGD, loss scale"),
    *("Adam", "Adam, amsgrad", "Adam, epsilon", "AdamW", "Adamax", "Lion"),
    *("RMSprop", "RMSprop, momentum", "Adagrad"),
}


@pytest.mark.parametrize("name", cases(sorted(WITH_A_LAW), ["SGD, Nesterov"]))
def test_the_law_of_an_optimizer_is_what_it_does_to_a_variable(name):
    """One step of Keras' optimizer on one variable, without a monitor."""
    import keras

    optimizer = OPTIMIZERS[name]()
    weights = np.linspace(-0.5, 0.4, 10, dtype=np.float32)
    gradients = np.linspace(-0.3, 0.7, 10, dtype=np.float32)
    variable = keras.Variable(weights)
    optimizer.build([variable])
    scale = getattr(optimizer, "dynamic_scale", 1.0)
    optimizer.apply([keras.ops.convert_to_tensor(gradients) * scale], [variable])
    moved = np.abs(keras.ops.convert_to_numpy(variable) - weights).max()
    law = expected(fitted_info(name), 0.7, 0.5, 2.0**-24)
    np.testing.assert_allclose(moved, law.high, rtol=2e-3)
    assert law.low * (1 - 1e-3) <= moved <= law.high * (1 + 1e-3)


def fitted_info(name):
    """What a monitor reads of this optimizer at its first step."""
    model = network()
    model.compile(OPTIMIZERS[name](), "mse")
    (info,) = fitted(model).recording[0].updating.optimizers
    assert (info.taken, info.took) == (0, 1)
    return info


def test_a_log_returns_how_weights_were_updated(tmp_path):
    """Every number of it, and the same findings."""
    from activation_monitor import ActivationMonitor, diagnose, read_recording

    model = network()
    model.compile("sgd", "mse")
    seen = ActivationMonitor(tmp_path)
    model.fit(X, Y, batch_size=32, verbose=0, callbacks=[seen])
    read = read_recording(tmp_path)
    for ours, theirs in zip(seen.recording, read, strict=True):
        assert theirs.updating.optimizers == ours.updating.optimizers
        assert theirs.updating.whole and ours.updating.whole
        np.testing.assert_array_equal(theirs.updating.kernels, ours.updating.kernels)
    assert diagnose(read).findings == seen.diagnosis.findings


@pytest.mark.parametrize("times", [1, 2])
def test_a_watched_step_that_applies_a_gradient_twice_is_named(times):
    """Also where the step is traced twice, because its first trace makes variables."""
    import keras

    model, optimizer = network(), keras.optimizers.SGD(0.1, momentum=0.9)
    seen = monitor()

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        for _ in range(times):
            optimizer.apply(gradients, model.trainable_variables)
        return loss

    seen.watch(step, model)(X, Y)
    kernels = seen.recording[0].updating.of("times")
    np.testing.assert_array_equal(kernels[~np.isnan(kernels)], times)
    assert codes(seen) == ["wrong-update"] * (times - 1)


def test_the_documentation_has_these_counts():
    """Each case is a test here; `main` runs them all."""
    page = (Path(__file__).parent.parent / "docs" / "accuracy.md").read_text()
    errors, healthy = len(BY_NAME), len(HEALTHY)
    assert f"| {errors} silent errors | {len(NAMED)} of {errors} named |" in page
    assert f"| their healthy twins | 0 of {errors} flagged |" in page
    counts = f"{len(OPTIMIZERS)} optimizers and their arguments, {len(TRAININGS)} steps"
    assert counts in page and f"| 0 of {healthy} flagged |" in page


def main():
    """Count what is named and what is not."""
    two_replicas()
    named, alarms = [], []
    for name, (error, code) in BY_NAME.items():
        found, twin = codes(error(True)), codes(error(False))
        named += [name] if code and found == [code] else []
        alarms += [name] if twin else []
        print(f"{name}: {', '.join(found) or 'not named'}; twin: {', '.join(twin) or '-'}")
    others = [name for name, training in HEALTHY.items() if codes(training())]
    print(f"named: {len(named)} of {len(BY_NAME)}")
    print(f"false alarms: {len(alarms)} of {len(BY_NAME)} twins")
    print(f"false alarms: {len(others)} of {len(HEALTHY)} other healthy trainings")


if __name__ == "__main__":
    main()

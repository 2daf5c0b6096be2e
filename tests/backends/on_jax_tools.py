"""`Monitored`, `rescale` and `calibrate` on JAX; and what actions find in `fit`."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

from activation_monitor import ActivationMonitor, Monitored, rescale
from activation_monitor.actions import UnhealthyModelError
from activation_monitor.calibration import calibrate
from backends.common import RATE, X, Y, perceptron

STATISTICS = "mean", "std", "rms", "maximum"


def with_record():
    """A model, and the layer in it that keeps a record of its own."""
    keras.utils.set_random_seed(1)
    hidden = Monitored(layers.Dense(16, "relu"))
    model = keras.Sequential([keras.Input((12,)), hidden, layers.Dense(1)])
    return model, hidden


def assert_statistics(found, outputs):
    """They are those of all outputs together, in float64."""
    size = np.sqrt(np.mean(outputs**2))
    expected = outputs.mean(), outputs.std(), size, outputs.max()
    assert found["count"] == outputs.size
    np.testing.assert_allclose(
        [found[name] for name in STATISTICS], expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}])
def test_a_layer_records_all_steps_that_are_sampled(options):
    """Of a rate of 0, so that the outputs are known. Eagerly it needs no monitor."""
    model, hidden = with_record()
    model.compile(keras.optimizers.SGD(0.0), "mse", **options)
    callbacks = [] if options else [ActivationMonitor(sample_every=1)]
    model.fit(X, Y, batch_size=32, verbose=0, callbacks=callbacks)
    kernel, bias = (one.astype(np.float64) for one in model.get_weights()[:2])
    outputs = np.maximum(X.astype(np.float64) @ kernel + bias, 0)
    assert_statistics(hidden.statistics(training=True), outputs)


def test_a_layer_in_a_compiled_step_that_nothing_samples_says_so():
    """And does not change it."""
    model, hidden = with_record()
    model.compile(keras.optimizers.SGD(RATE), "mse")
    with pytest.warns(UserWarning, match="with `sample_every=1` for all of them, or"):
        history = model.fit(X, Y, batch_size=32, shuffle=False, verbose=0).history
    keras.utils.set_random_seed(1)
    plain = keras.Sequential(
        [keras.Input((12,)), layers.Dense(16, "relu"), layers.Dense(1)]
    )
    plain.compile(keras.optimizers.SGD(RATE), "mse")
    assert plain.fit(X, Y, batch_size=32, shuffle=False, verbose=0).history == history


def test_rescale_brings_pre_activations_to_unit_std():
    """As float64 measures it; without a warning."""
    keras.utils.set_random_seed(1)
    inner = [layers.Dense(32, "relu", kernel_initializer="random_normal") for _ in range(6)]
    model = keras.Sequential([keras.Input((12,)), *inner, layers.Dense(1)])

    def stds():
        signal, found = X.astype(np.float64), []
        weights = [one.astype(np.float64) for one in model.get_weights()]
        for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
            signal = signal @ kernel + bias
            found.append(signal.std())
            signal = np.maximum(signal, 0)
        return found

    assert max(stds()) < 0.3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rescaled = rescale(model, X)
    np.testing.assert_allclose(stds(), 1.0, atol=0.1)
    after = [row.std_after for row in rescaled.layers]
    np.testing.assert_allclose(after, stds(), rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"jit_compile": False}])
def test_a_calibration_passes(options):
    """And measures what a chain with weights of twice the size does."""
    found = calibrate(1 / 8, width=64, layers=10, **options)
    assert found.passed
    twice = calibrate(1 / 4, width=64, layers=10, **options)
    assert twice.passed
    np.testing.assert_allclose(twice.growth, 2 * found.growth, rtol=1e-5)


class Reads(keras.callbacks.Callback):
    """Counts how often a training lets its variables have their values."""

    def __init__(self):
        super().__init__()
        self.synced = 0

    def on_train_batch_end(self, batch, logs=None):
        self.synced += self._model._jax_state_synced


def test_only_sampled_steps_give_the_variables_their_values():
    """Keras warns that to do so at each step is slow."""
    keras.utils.set_random_seed(1)
    model, reads = perceptron(), Reads()
    model.compile(keras.optimizers.SGD(RATE), "mse")
    monitor = ActivationMonitor(sample_every=lambda step: step == 1)
    model.fit(X, Y, batch_size=16, verbose=0, callbacks=[monitor, reads])
    assert reads.synced == 1


@pytest.mark.parametrize("step", [0, 2])
@pytest.mark.parametrize("action", ["raise", "stop"])
def test_a_finding_that_ends_training_leaves_the_weights_of_its_step(action, step):
    """Also where the state before it was given away."""
    x = X.copy()
    x[32 * step] = np.nan
    keras.utils.set_random_seed(1)
    model = perceptron()
    model.compile(keras.optimizers.SGD(RATE), "mse")
    monitor = ActivationMonitor(sample_every=1, on_finding={"critical": action})
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        try:
            model.fit(x, Y, batch_size=32, shuffle=False, verbose=0, callbacks=[monitor])
            assert action == "stop"
        except UnhealthyModelError:
            assert action == "raise"
    assert int(model.optimizer.iterations) == step + 1
    assert np.isnan(model.get_weights()[0]).any()


def test_a_function_may_change_the_model_when_something_is_found():
    """The learning rate stays changed."""
    keras.utils.set_random_seed(1)
    model = perceptron()
    model.compile(keras.optimizers.SGD(RATE), "mse")
    x = X.copy()
    x[32] = np.nan

    def slower(finding):
        model.optimizer.learning_rate = RATE / 10

    monitor = ActivationMonitor(sample_every=1, on_finding=slower)
    model.fit(x, Y, batch_size=32, shuffle=False, verbose=0, callbacks=[monitor])
    np.testing.assert_allclose(float(model.optimizer.learning_rate.value), RATE / 10)

"""Tests of JAX only. `test_jax.py` runs this file in a process of its own."""

import warnings

import jax
import keras
import numpy as np
import pytest
from keras import layers

from activation_monitor import ActivationMonitor
from activation_monitor.analysis import records
from backends.common import (
    X,
    Y,
    assert_records,
    assert_same_training,
    expected_records,
    perceptron,
    residual,
    silent,
    trained,
)


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

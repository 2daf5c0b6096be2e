"""Tests of PyTorch only. `test_each_backend.py` runs this file in its own process."""

import keras
import numpy as np
import pytest
import torch
from keras import layers

from activation_monitor import ActivationMonitor
from activation_monitor.analysis import records
from backends.common import (
    RATE,
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


@pytest.mark.parametrize(
    "scope", [{"mode": "full"}, {"mode": "list_of_layers", "layer_names": ["one", "two"]}]
)
def test_recomputed_layers_are_measured_once(scope):
    """The records are those without recomputation."""

    def make(recompute=True):
        with keras.RematScope(**scope) if recompute else keras.RematScope(mode=None):
            return keras.Sequential(
                [
                    keras.Input((12,)),
                    layers.Dense(16, "relu", name="one"),
                    layers.Dense(16, "relu", name="two"),
                    layers.Dense(1),
                ]
            )

    snapshot = assert_same_training(make).recording[0]
    plain = silent()
    trained(lambda: make(False), monitor=plain)
    expected = plain.recording[0]
    assert [one.parents for one in snapshot.layers] == [
        one.parents for one in expected.layers
    ]
    assert snapshot.quantities.keys() == expected.quantities.keys()
    for quantity, found in snapshot.quantities.items():
        np.testing.assert_array_equal(found, expected.quantities[quantity])


def test_one_copy_to_the_host_holds_all_records(monkeypatch):
    """Of 7 outputs and 6 gradients, more than ten numbers each."""
    copied = []
    real = torch.Tensor.cpu

    def counted(tensor):
        copied.append(tensor.numel())
        return real(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", counted)
    monitor = ActivationMonitor(sample_every=lambda step: step == 1)
    trained(residual, monitor=monitor, epochs=1)
    assert sum(number > 10 * 13 for number in copied) == 1


class Loop:
    """A training loop as the guides of Keras write it for PyTorch."""

    def __init__(self, make, monitor, how):
        keras.utils.set_random_seed(1)
        self.model, self.monitor, self.how = make(), monitor, how
        self.optimizer = keras.optimizers.SGD(RATE)
        self.of_torch = torch.optim.SGD(self.model.parameters(), lr=RATE)
        self.loss = keras.losses.MeanSquaredError()

    def step(self, x, y):
        self.model.zero_grad()
        loss = self.loss(y, self.model(x, training=True))
        loss.backward()
        weights = [*self.model.trainable_weights]
        if self.how == "watch, torch.optim":
            self.of_torch.step()
            return loss.detach()
        with torch.no_grad():
            self.optimizer.apply([one.value.grad for one in weights], weights)
        return loss.detach()

    def run(self):
        step = self.step
        if self.how.startswith("watch"):
            step = self.monitor.watch(self.step, self.model)
        losses = []
        for i in [*range(3)] * 2:
            batch = slice(32 * i, 32 * i + 32)
            x, y = torch.tensor(X[batch]), torch.tensor(Y[batch])
            if self.how == "measure_step":
                with self.monitor.measure_step(self.model):
                    losses.append(float(step(x, y)))
            else:
                losses.append(float(step(x, y)))
        return self.model.get_weights(), losses


@pytest.mark.parametrize("make", [perceptron, residual])
@pytest.mark.parametrize("how", ["watch", "measure_step"])
def test_a_custom_loop_is_the_same_to_the_bit(how, make):
    expected, expected_losses = Loop(make, None, "alone").run()
    monitor = silent(sample_every=1)
    found, losses = Loop(make, monitor, how).run()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert losses == expected_losses
    assert monitor.recording.steps == [*range(6)]


@pytest.mark.parametrize("how", ["watch", "measure_step"])
def test_records_of_a_custom_loop_equal_float64(how):
    """Outputs, their gradients, weights, their gradients and updates."""
    keras.utils.set_random_seed(1)
    initial = perceptron().get_weights()
    monitor = silent(sample_every=1)
    Loop(perceptron, monitor, how).run()
    loss, expected = expected_records(initial, X[:32], Y[:32])
    found = monitor.recording[0]
    if how == "watch":  # it sees what the step returns
        np.testing.assert_allclose(found.loss, loss, rtol=1e-5)
    assert_records(found, (found.loss, expected))


# PyTorch asks for the gradient of each tensor where it compiles, and hides its own warning.
HIDDEN_BY_PYTORCH = "ignore:The .grad attribute of a Tensor:UserWarning"


def test_updates_by_an_optimizer_of_pytorch_are_measured():
    """The gradients that it gets are not."""
    keras.utils.set_random_seed(1)
    initial = perceptron().get_weights()
    monitor = silent(sample_every=1)
    Loop(perceptron, monitor, "watch, torch.optim").run()
    found = monitor.recording[0]
    _, expected = expected_records(initial, X[:32], Y[:32])
    without = {k: v for k, v in expected.items() if k != records.WEIGHT_GRADIENT}
    assert_records(found, (found.loss, without))
    assert records.WEIGHT_GRADIENT not in found.quantities


@pytest.mark.filterwarnings(HIDDEN_BY_PYTORCH)
def test_a_compiled_model_is_measured_in_eager_steps():
    """They compute the same, up to the rounding of another order of operations."""

    def make():
        inner = (
            layers.Dense(16, "relu"),
            layers.BatchNormalization(),
            layers.Dense(8, "gelu"),
        )
        return keras.Sequential([keras.Input((12,)), *inner, layers.Dense(1)])

    plain, _, _ = trained(make, jit_compile=True)
    monitor, eager = silent(), silent()
    found, _, model = trained(make, monitor=monitor, jit_compile=True)
    assert model.jit_compile
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    trained(make, monitor=eager)
    for quantity, one in monitor.recording[0].quantities.items():
        np.testing.assert_array_equal(one, eager.recording[0].quantities[quantity])


@pytest.mark.filterwarnings(HIDDEN_BY_PYTORCH)
def test_layers_in_code_that_the_user_compiles_are_measured():
    """The sampled step runs it eagerly."""

    class Inner(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = layers.Dense(8, "relu", name="first")
            self.last = layers.Dense(1, name="last")
            self.fast = torch.compile(lambda t: self.first(t))

        def call(self, x):
            return self.last(self.fast(x))

    monitor = silent()
    found, _, _ = trained(Inner, monitor=monitor)
    expected, _, _ = trained(Inner)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    names = [one.name.rpartition("/")[2] for one in monitor.recording[0].layers]
    assert names == ["first:input", "first", "last"]


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: x.add_(y),
        lambda x, y: x.__iadd__(y),
        lambda x, y: x.__setitem__((slice(None), 0), y[:, 0]),
    ],
)
def test_results_that_change_in_place_lead_to_their_sources(change):
    """The tensor that changes has two parents then."""

    class Inplace(layers.Layer):
        def call(self, x, y):
            x = x + 0.0
            change(x, y)
            return x

    given = keras.Input((12,))
    one, two = layers.Dense(8, name="one")(given), layers.Dense(8, name="two")(given)
    outputs = layers.Dense(1, name="last")(Inplace(name="sum")(one, two))

    def make():
        return keras.models.clone_model(keras.Model(given, outputs))

    monitor = assert_same_training(make)
    found = {one.name: one.parents for one in monitor.recording[0].layers}
    names = [one.name for one in monitor.recording[0].layers]
    parents = {
        name.rpartition("/")[2]: {names[i].rpartition("/")[2] for i in rows}
        for name, rows in found.items()
    }
    assert parents["sum"] == {"one", "two"}
    assert parents["last"] == {"sum"}


def test_gradients_that_the_user_keeps_are_left_alone():
    """An audit with targets computes gradients, and adds to no `grad`."""
    from activation_monitor import audit

    model = perceptron()
    model.compile("sgd", "mse")
    kernel = model.layers[1].kernel.value
    kernel.grad = torch.ones_like(kernel)
    audit(model, X, Y)
    np.testing.assert_array_equal(kernel.grad.numpy(), np.ones(kernel.shape))


def test_several_processes_are_left_alone(monkeypatch):
    """One warning says so, and training is the same."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    expected, _, _ = trained(perceptron)
    monitor = silent()
    with pytest.warns(UserWarning, match="several processes of torch.distributed"):
        found, _, _ = trained(perceptron, monitor=monitor)
    assert not len(monitor.recording)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)

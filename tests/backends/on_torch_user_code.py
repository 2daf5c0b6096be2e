"""What users write for PyTorch: in place, with hooks, with gradients of their own."""

import gc
import threading
import weakref

import keras
import numpy as np
import pytest
import torch
from keras import layers

from activation_monitor.analysis import records
from backends.common import assert_same_training, perceptron, silent, trained


def derived_by(derive):
    """A model whose step passes on gradients that a function of the loss returns."""

    class Own(keras.Model):
        def train_step(self, data):
            x, y = data
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
            weights = [*self.trainable_weights]
            gradients = derive(loss, [one.value for one in weights])
            with torch.no_grad():
                self.optimizer.apply(gradients, weights)
            return {"loss": loss.detach()}

    return lambda: perceptron(Own)


def clipped(loss, values):
    loss.backward()
    torch.nn.utils.clip_grad_norm_(values, 0.1, foreach=True)
    gradients = [value.grad for value in values]
    for value in values:
        value.grad = None
    return gradients


@pytest.mark.parametrize(
    "derive",
    [
        torch.autograd.grad,
        lambda loss, values: torch.autograd.grad(loss, (value for value in values)),
        lambda loss, values: torch._foreach_mul(torch.autograd.grad(loss, values), 0.5),
        clipped,
    ],
    ids=["grad", "of an iterator", "scaled together", "clipped"],
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_gradients_of_the_users_own(derive, optimizer):
    """Optimizers change lists of tensors in place. A warning would be an error."""
    monitor = assert_same_training(derived_by(derive), optimizer=optimizer)
    found = monitor.recording[0].quantities[records.WEIGHT_GRADIENT]
    assert np.all(records.field(found, "count")[1:] > 0)


class Token(layers.Layer):
    """Returns its own parameter, as the class token of a transformer."""

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 12), name="token")

    def call(self, x):
        return self.token.value


class Noise(layers.Layer):
    """Adds noise with a function that is called with keywords."""

    def call(self, x):
        return x + torch.nn.init.uniform_(torch.empty_like(x), b=0.1)


def with_token():
    given = keras.Input((12,))
    x = layers.Add()([given, Token(name="token")(given)])
    return keras.Model(given, layers.Dense(1)(Noise()(x)))


def test_a_layer_that_returns_its_parameter_keeps_no_hook():
    """A hook would measure at every step, for ever."""
    assert_same_training(with_token)
    _, _, model = trained(with_token, monitor=silent(sample_every=1))
    assert not model.get_layer("token").token.value._backward_hooks


@pytest.mark.parametrize(
    "passes_on", [lambda: layers.Dropout(0.0), lambda: layers.ActivityRegularization()]
)
def test_a_layer_that_returns_its_input_changes_no_sum(passes_on):
    """The gradients of three consumers are added up in the same order."""

    def make():
        given = keras.Input((12,))
        x = layers.Dense(16, "relu", name="first")(given)
        y = passes_on()(x)
        parts = [layers.Dense(16, name=f"part_{i}")(y) for i in range(3)]
        return keras.Model(given, layers.Dense(1)(layers.Add()([x, *parts])))

    assert_same_training(make, epochs=4)


class ReluInPlace(layers.Layer):
    def call(self, x):
        return torch.relu_(x)


def test_a_layer_that_changes_its_input_has_one_row():
    """What it was given is not measured once more, after the change."""

    def make(kind):
        hidden = [layers.Dense(8), kind(), layers.Dense(8), kind()]
        return keras.Sequential([keras.Input((12,)), *hidden, layers.Dense(1)])

    monitor = assert_same_training(lambda: make(ReluInPlace))
    other = silent()
    trained(lambda: make(layers.ReLU), monitor=other)
    for quantity in records.OUTPUT, records.OUTPUT_GRADIENT:
        found, expected = (
            one.recording[0].quantities[quantity] for one in (monitor, other)
        )
        np.testing.assert_array_equal(
            records.field(found, "variance"), records.field(expected, "variance")
        )


@pytest.mark.parametrize("gradients", [False, True])
def test_no_tensor_of_a_step_outlives_it(gradients):
    """Without the garbage collector, which knows nothing of the memory of a device."""
    seen = []

    class Watched(layers.Dense):
        def call(self, x):
            outputs = super().call(x)
            seen.append(weakref.ref(outputs))
            return outputs

    def make():
        return keras.Sequential([keras.Input((12,)), Watched(16), layers.Dense(1)])

    gc.collect()
    gc.disable()
    try:
        trained(make, monitor=silent(sample_every=1, gradients=gradients))
        assert len(seen) >= 6 and not any(one() is not None for one in seen)
    finally:
        gc.enable()


def test_a_transform_of_torch_func_is_left_alone():
    """The ordinary pass of the same step is measured."""

    class Own(keras.Model):
        def train_step(self, data):
            x, y = data
            torch.func.vmap(lambda row: self(row[None])[0])(x[:2].detach())
            return super().train_step((x, y))

    monitor = assert_same_training(lambda: perceptron(Own))
    counts = records.field(monitor.recording[0].quantities[records.OUTPUT], "count")
    np.testing.assert_array_equal(counts, [32 * 12, 32 * 16, 32 * 8, 32])


def test_another_thread_that_calls_the_model_is_no_part_of_the_step():
    class Own(keras.Model):
        def train_step(self, data):
            logs = super().train_step(data)
            other = threading.Thread(target=lambda: self(data[0][:3]))
            other.start()
            other.join()
            return logs

    monitor = assert_same_training(lambda: perceptron(Own))
    counts = records.field(monitor.recording[0].quantities[records.OUTPUT], "count")
    np.testing.assert_array_equal(counts, [32 * 12, 32 * 16, 32 * 8, 32])


class _Passed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.variable = 3
        return x * 1.0

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_a_function_of_the_users_own_may_have_any_attribute():
    class Layer(layers.Layer):
        def call(self, x):
            return _Passed.apply(x)

    def make():
        inner = layers.Dense(8), Layer(), layers.Dense(1)
        return keras.Sequential([keras.Input((12,)), *inner])

    monitor = assert_same_training(make)
    found = monitor.recording[0].quantities[records.OUTPUT_GRADIENT]
    assert np.all(records.field(found, "count")[1:] > 0)


def test_one_sparse_gradient_leaves_the_others():
    """And is named in a warning."""

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            embedding = torch.nn.Embedding(50, 4, sparse=True)
            self.embedding = layers.TorchModuleWrapper(embedding)
            self.last = layers.Dense(1, name="last")

        def call(self, x):
            return self.last(self.embedding(x).mean(1))

    tokens = np.random.default_rng(0).integers(0, 50, (96, 5))
    with pytest.warns(UserWarning, match="gradients of kernels cannot be measured"):
        monitor = assert_same_training(Own, tokens)
    snapshot = monitor.recording[-1]
    row = [one.name.endswith("last") for one in snapshot.layers].index(True)
    found = snapshot.quantities[records.WEIGHT_GRADIENT]
    assert records.field(found[row], "count") == 4

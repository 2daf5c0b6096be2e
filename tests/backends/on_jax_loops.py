"""Custom training loops on JAX: `watch` and `measure_step`."""

import functools

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from keras import layers

from activation_monitor import ActivationMonitor
from activation_monitor.analysis import records
from backends.common import (
    RATE,
    X,
    Y,
    assert_records,
    expected_records,
    perceptron,
    residual,
)

BATCHES = [(X[i : i + 32], Y[i : i + 32]) for i in (0, 32, 64)] * 2


def loop_of(make, wrap=jax.jit, optimizer=None, calls=None):
    """A step as Keras' guide to custom loops with JAX writes it, its first state, and the
    model."""
    keras.utils.set_random_seed(1)
    model = make()
    optimizer = optimizer or keras.optimizers.SGD(RATE)
    optimizer.build(model.trainable_variables)
    loss_fn = keras.losses.MeanSquaredError()

    def compute_loss_and_updates(trained, others, x, y):
        predicted, others = model.stateless_call(trained, others, x, training=True)
        return loss_fn(y, predicted), others

    derive = jax.value_and_grad(compute_loss_and_updates, has_aux=True)

    def train_step(state, data):
        if calls is not None:
            calls.append(1)
        trained, others, of_optimizer = state
        x, y = data
        (loss, others), grads = derive(trained, others, x, y)
        trained, of_optimizer = optimizer.stateless_apply(of_optimizer, grads, trained)
        return loss, (trained, others, of_optimizer)

    groups = model.trainable_variables, model.non_trainable_variables, optimizer.variables
    state = tuple([jnp.copy(v.value) for v in group] for group in groups)
    return wrap(train_step), state, model


def run(step, state, batches=BATCHES):
    losses = []
    for batch in batches:
        loss, state = step(state, batch)
        losses.append(float(loss))
    return losses, jax.tree.map(np.asarray, state)


WRAPS = {
    "compiled": jax.jit,
    "donated": functools.partial(jax.jit, donate_argnums=0),
    "by name": functools.partial(jax.jit, donate_argnames="state"),
    "eager": lambda step: step,
}


@pytest.mark.parametrize("kind", WRAPS)
def test_records_of_a_watched_step_equal_float64(kind):
    """All quantities and the loss, although no variable of the model has its value."""
    step, state, model = loop_of(perceptron, WRAPS[kind])
    initial = [np.asarray(value) for value in state[0]]
    monitor = ActivationMonitor(sample_every=2)
    run(monitor.watch(step, model), state)
    assert monitor.recording.steps == [0, 1, 2, 4, 5]
    assert_records(monitor.recording[0], expected_records(initial, X[:32], Y[:32]))
    assert [one.parents for one in monitor.recording[0].layers] == [(), (0,), (1,), (2,)]


def test_weights_of_a_later_step_are_those_of_its_state():
    step, state, model = loop_of(perceptron)
    _, (before, _, _) = run(step, state, BATCHES[:4])
    monitor = ActivationMonitor(sample_every=4)
    run(monitor.watch(step, model), state)
    assert monitor.recording[3].step == 4
    x, y = BATCHES[4]
    assert_records(monitor.recording[3], expected_records(before, x, y))


@pytest.mark.parametrize("kind", WRAPS)
@pytest.mark.parametrize("make", [perceptron, residual])
def test_a_watched_loop_is_the_same_to_the_bit(kind, make):
    """Also with dropout and batch normalization, and an optimizer with a state."""
    found = []
    for watches in (False, True):
        optimizer = keras.optimizers.Adam(RATE)
        step, state, model = loop_of(make, WRAPS[kind], optimizer)
        monitor = ActivationMonitor(sample_every=2)
        found.append(run(monitor.watch(step, model) if watches else step, state))
    (losses, plain), (watched, after) = found
    assert watched == losses
    jax.tree.map(np.testing.assert_array_equal, after, plain)
    assert len(monitor.recording) == 5


def test_a_step_that_is_not_sampled_is_the_users_own():
    """It is traced once plain and once measured."""
    calls = []
    step, state, model = loop_of(perceptron, calls=calls)
    monitor = ActivationMonitor(sample_every=lambda number: number in (2, 4))
    run(monitor.watch(step, model), state)
    assert len(calls) == 2
    assert monitor.recording.steps == [2, 4]


def test_static_arguments_stay_static():
    step, state, model = loop_of(perceptron, lambda step: step)

    @functools.partial(jax.jit, static_argnames="twice", donate_argnums=0)
    def train_step(state, data, twice):
        for _ in range(2 if twice else 1):
            loss, state = step(state, data)
        return loss, state

    monitor = ActivationMonitor(sample_every=1)
    watched = monitor.watch(train_step, model)
    _, state = watched(state, BATCHES[0], twice=False)
    watched(state, BATCHES[1], twice=True)
    assert monitor.recording.steps == [0, 1]
    names = [name.rpartition("/")[2] for name in monitor.recording[1].names]
    assert names[-1] == "1"  # the second call


def test_a_step_that_is_a_method_is_measured():
    step, state, model = loop_of(perceptron, lambda step: step)
    initial = model.get_weights()  # a view of `state` would keep its memory

    class Trainer:
        @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
        def train_step(self, state, data):
            return step(state, data)

    monitor = ActivationMonitor(sample_every=1)
    run(monitor.watch(Trainer().train_step, model), state)
    assert state[0][0].is_deleted()  # its memory is taken over, as the user wants
    assert_records(monitor.recording[0], expected_records(initial, X[:32], Y[:32]))


def test_shardings_of_a_step_are_kept():
    """Of a batch on four devices. Training is the same to the bit."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("batch",))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    by_rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    options = {"in_shardings": (everywhere, by_rows), "out_shardings": everywhere}
    found = []
    for watches in (False, True):
        step, state, model = loop_of(perceptron, functools.partial(jax.jit, **options))
        initial = [np.asarray(value) for value in state[0]]
        monitor = ActivationMonitor(sample_every=2)
        found.append(run(monitor.watch(step, model) if watches else step, state))
    assert found[0][0] == found[1][0]
    jax.tree.map(np.testing.assert_array_equal, found[0][1], found[1][1])
    assert_records(monitor.recording[0], expected_records(initial, X[:32], Y[:32]))


def test_updates_that_are_not_known_are_not_measured():
    """Of an optimizer that is not Keras' own: an average of the weights, say, would look
    like an update. The weights are known."""
    _, state, model = loop_of(perceptron)

    @jax.jit
    def train_step(trained, others, data):
        def loss_of(trained):
            predicted, _ = model.stateless_call(trained, others, data[0], training=True)
            return jnp.mean((predicted - data[1]) ** 2)

        loss, gradients = jax.value_and_grad(loss_of)(trained)
        return loss, [w - RATE * g for w, g in zip(trained, gradients, strict=True)]

    monitor = ActivationMonitor()
    trained, others, _ = state
    initial = [np.asarray(value) for value in trained]
    monitor.watch(train_step, model)(trained, others, BATCHES[0])
    found = monitor.recording[0].quantities
    expected = expected_records(initial, *BATCHES[0])
    known = records.OUTPUT, records.OUTPUT_GRADIENT, records.WEIGHT
    assert_records(monitor.recording[0], expected, quantities=known)
    for quantity in (records.WEIGHT_UPDATE, records.WEIGHT_GRADIENT):
        if quantity in found:
            assert not records.field(found[quantity], "count").any()


def test_a_jitted_function_that_a_python_step_calls_is_not_measured():
    step, state, model = loop_of(perceptron)
    monitor = ActivationMonitor(sample_every=1)
    with pytest.warns(UserWarning, match="`jax.jit` with a trace of its own.*to `watch`"):
        run(monitor.watch(lambda state, data: step(state, data), model), state)
    assert len(monitor.recording) == 0
    assert len(run(step, state)[0]) == len(BATCHES)


def test_the_layers_and_variables_are_as_before_also_after_an_error():
    _, state, model = loop_of(perceptron)
    own = [variable._value for variable in model.variables]

    @jax.jit
    def train_step(state, data):
        predicted, _ = model.stateless_call(state[0], state[1], data[0])
        if len(data[0]) == 3:
            raise KeyError("the user's own")
        return jnp.mean(predicted), state

    monitor = ActivationMonitor(sample_every=1)
    watched = monitor.watch(train_step, model)
    with pytest.raises(KeyError, match="the user's own"):
        watched(state, (X[:3], Y[:3]))
    assert all("call" not in layer.__dict__ for layer in model.layers)
    watched(state, (X[:5], Y[:5]))
    assert monitor.recording.steps == [1]
    assert all(v._value is value for v, value in zip(model.variables, own, strict=True))


# -- measure_step


def test_a_block_is_measured_as_float64_says():
    step, state, model = loop_of(perceptron, lambda step: step)
    initial = [np.asarray(value) for value in state[0]]
    plain, expected = run(step, state)
    monitor = ActivationMonitor()
    losses = []
    for batch in BATCHES:
        with monitor.measure_step(model):
            loss, state = step(state, batch)
        losses.append(float(loss))
    assert losses == plain
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    _, tensors = expected_records(initial, *BATCHES[0])
    # The block returns nothing that could be its loss.
    assert_records(monitor.recording[0], (np.nan, tensors))
    assert monitor.recording.steps == [*range(len(BATCHES))]


def test_a_block_with_variables_that_are_assigned():
    """A loop that lets Keras' optimizer change the variables of the model."""
    keras.utils.set_random_seed(1)
    model = perceptron()
    optimizer = keras.optimizers.SGD(RATE)
    initial = model.get_weights()

    def loss_of(trained, x, y):
        predicted, _ = model.stateless_call(trained, [], x)
        return jnp.mean((predicted - y) ** 2)

    monitor = ActivationMonitor()
    with monitor.measure_step(model):
        values = [variable.value for variable in model.trainable_variables]
        gradients = jax.grad(loss_of)(values, *BATCHES[0])
        optimizer.apply(gradients, model.trainable_variables)
    _, tensors = expected_records(initial, *BATCHES[0])
    assert_records(monitor.recording[0], (np.nan, tensors))
    assert (model.get_weights()[0] != initial[0]).any()


def test_a_block_that_calls_no_layer_says_so():
    step, state, model = loop_of(perceptron)
    step(state, BATCHES[0])
    with pytest.warns(UserWarning, match="no layer was called eagerly.*jax.jit"):
        with ActivationMonitor().measure_step(model):
            step(state, BATCHES[0])


def test_findings_of_a_watched_step_are_reported():
    inner = [
        layers.Dense(64, "relu", kernel_initializer="random_normal") for _ in range(20)
    ]

    def make():
        return keras.Sequential([keras.Input((12,)), *inner, layers.Dense(1)])

    step, state, model = loop_of(make)
    monitor = ActivationMonitor()
    with pytest.warns(UserWarning, match="vanishing-activations"):
        monitor.watch(step, model)(state, BATCHES[0])

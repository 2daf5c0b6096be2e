"""Silent errors: faults of a training step that raise nothing.

Each is a function of `broken`, whether to make the error, that trains a model and returns
its monitor. With `broken=False` it is the healthy twin: the same code without the fault.
"""

import functools

import keras
import numpy as np
import tensorflow as tf

from activation_monitor import ActivationMonitor

RNG = np.random.default_rng(0)
X = RNG.standard_normal((64, 32), dtype=np.float32)
Y = X[:, :1] * X[:, 1:2]


def monitor():
    return ActivationMonitor(on_finding=lambda finding: None)


def layers():
    dense = keras.layers.Dense
    hidden = [
        dense(32, "relu", kernel_initializer="he_normal", name=f"hidden_{i}")
        for i in range(3)
    ]
    return [keras.Input((32,)), *hidden, dense(1, name="head")]


def network(kind=keras.Sequential, **options):
    keras.utils.set_random_seed(0)
    if kind is keras.Sequential:
        return kind(layers(), name="net")
    inputs, *rest = layers()
    x = inputs
    for layer in rest:
        x = layer(x)
    return kind(inputs, x, name="net", **options)


def fitted(model, steps=1, x=X, y=Y, callbacks=()):
    seen = monitor()
    model.fit(
        *(x, y),
        batch_size=32,
        epochs=steps,
        steps_per_epoch=1,
        verbose=0,
        callbacks=[seen, *callbacks],
    )
    return seen


def custom(step, optimizer="adam", steps=1, **options):
    """The monitor of a model whose training step is `step(model, weights, gradients)`."""

    class Custom(keras.Model):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            weights = self.trainable_variables
            step(self, weights, tape.gradient(loss, weights))
            return {"loss": loss}

    model = network(Custom)
    model.compile(optimizer, "mse", **options)
    return fitted(model, steps)


# -- the training step


def forgets_to_apply(broken):
    def step(model, weights, gradients):
        if not broken:
            model.optimizer.apply(gradients, weights)

    return custom(step)


def applies_some_of_them(broken):
    def step(model, weights, gradients):
        if broken:  # the last two: kernel and bias of the head
            weights, gradients = weights[-2:], gradients[-2:]
        model.optimizer.apply(gradients, weights)

    return custom(step)


def optimizer_of_another_model(broken):
    other = network()

    def step(model, weights, gradients):
        if not model.optimizer.built:
            model.optimizer.build(other.trainable_variables if broken else weights)
        model.optimizer.apply(gradients)

    return custom(step)


def applies_twice(broken):
    def step(model, weights, gradients):
        for _ in range(2 if broken else 1):
            model.optimizer.apply_gradients(zip(gradients, weights, strict=True))

    return custom(step, "sgd")


def in_another_order(broken):
    """The hidden kernels have the same shape, so nothing is raised."""

    def step(model, weights, gradients):
        if broken:
            order = [4, 5, 2, 3, 0, 1, 6, 7]
            gradients = [gradients[i] for i in order]
        model.optimizer.apply(gradients, weights)

    return custom(step)


def wrong_sign(broken):
    sign = -1.0 if broken else 1.0

    def step(model, weights, gradients):
        model.optimizer.apply([sign * gradient for gradient in gradients], weights)

    return custom(step)


def adds_a_step_by_hand(broken):
    """Left over from a loop without an optimizer."""

    def step(model, weights, gradients):
        model.optimizer.apply(gradients, weights)
        if broken:
            weights[2].assign_sub(0.01 * gradients[2])

    return custom(step, keras.optimizers.SGD(0.01))


def asks_for_some_of_them(broken):
    """The tape is asked for the weights of the head; the twin freezes the others."""

    class Custom(keras.Model):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            weights = self.layers[-1].trainable_variables
            self.optimizer.apply(tape.gradient(loss, weights), weights)
            return {"loss": loss}

    model = network(Custom)
    if not broken:
        for layer in model.layers[1:-1]:
            layer.trainable = False
    model.compile("adam", "mse")
    return fitted(model)


def stops_the_gradient(broken):
    """Half of the network is behind a `stop_gradient`."""
    keras.utils.set_random_seed(0)
    inputs, first, *rest = layers()
    x = first(inputs)
    if broken:
        x = keras.layers.Lambda(keras.ops.stop_gradient)(x)
    for layer in rest:
        x = layer(x)
    model = keras.Model(inputs, x, name="net")
    model.compile("adam", "mse")
    return fitted(model)


def divides_by_the_batch_twice(broken):
    """The loss is a mean over the batch already: as if by a limit on the norm."""

    def step(model, weights, gradients):
        number = 32.0 if broken else 1.0
        model.optimizer.apply([one / number for one in gradients], weights)

    return custom(step, "sgd")


class Ascends(keras.optimizers.SGD):
    """An optimizer of the user's own that adds the gradient."""

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(-gradient, variable, learning_rate)


def own_optimizer_ascends(broken):
    model = network()
    model.compile(Ascends(0.01) if broken else keras.optimizers.SGD(0.01), "mse")
    return fitted(model, 3)


def multiplies_by_zero(broken):
    """A limit of zero; the twin limits the norm by hand."""

    def step(model, weights, gradients):
        limit = 0.0 if broken else 1.0
        gradients, _ = tf.clip_by_global_norm(gradients, limit)
        model.optimizer.apply(gradients, weights)

    return custom(step)


def assigns_back(broken):
    """The first kernel is put back after the update; the twin is not."""

    def step(model, weights, gradients):
        before = tf.identity(weights[0])
        model.optimizer.apply(gradients, weights)
        if broken:
            weights[0].assign(before)

    return custom(step)


# -- the optimizer


def clips_values_to_nothing(broken):
    model = network()
    model.compile(keras.optimizers.SGD(0.1, clipvalue=1e-12 if broken else 1.0), "mse")
    return fitted(model)


def clips_norms_to_nothing(broken):
    model = network()
    model.compile(keras.optimizers.Adam(clipnorm=1e-14 if broken else 1.0), "mse")
    return fitted(model)


class Keep(keras.constraints.Constraint):
    """Returns the first weights that it got."""

    def __init__(self, value):
        self.value = value

    def __call__(self, w):
        return keras.ops.convert_to_tensor(self.value)


def constraint_takes_it_back(broken):
    model = network()
    kernel = model.layers[1].kernel
    kernel.constraint = (
        Keep(kernel.numpy()) if broken else keras.constraints.MaxNorm(3.0, axis=0)
    )
    model.compile("adam", "mse")
    return fitted(model)


def decay_takes_all(broken):
    """Weight decay of 0.5 a step, which is the update of an AdamW with its defaults."""
    model = network()
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=500.0 if broken else 0.004), "mse"
    )
    return fitted(model)


def rate_of_zero(broken):
    """A schedule that ends in the first epoch; the twin warms up from zero."""
    schedules = keras.optimizers.schedules
    schedule = (
        schedules.CosineDecay(1e-2, 2)
        if broken
        else schedules.CosineDecay(0.0, 100, warmup_target=1e-2, warmup_steps=3)
    )
    model = network()
    model.compile(keras.optimizers.Adam(schedule), "mse")
    return fitted(model, 11)


# -- loss scale


def with_scale(scales, applies_inner):
    class Custom(keras.Model):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
                derived = self.optimizer.scale_loss(loss) if scales else loss
            weights = self.trainable_variables
            gradients = tape.gradient(derived, weights)
            optimizer = self.optimizer
            if applies_inner:
                optimizer = optimizer.inner_optimizer
            optimizer.apply(gradients, weights)
            return {"loss": loss}

    model = network(Custom)
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-3))
    model.compile(optimizer, "mse")
    return fitted(model)


def keeps_the_loss_scale(broken):
    return with_scale(scales=True, applies_inner=broken)


def divides_by_the_loss_scale_only(broken):
    return with_scale(scales=not broken, applies_inner=False)


class Squash(keras.layers.Layer):
    """The square root of |x|, whose derivative at 0 is infinite."""

    def __init__(self, epsilon, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def call(self, x):
        return keras.ops.sqrt(keras.ops.relu(x) + self.epsilon)


def stuck_loss_scale(broken):
    keras.utils.set_random_seed(0)
    dense = functools.partial(keras.layers.Dense, dtype="mixed_float16")
    squash = Squash(0.0 if broken else 1e-3, dtype="mixed_float16")
    hidden = dense(32, "relu", kernel_initializer="he_normal")
    head = dense(1)
    model = keras.Sequential([keras.Input((32,)), hidden, squash, head], name="net")
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(1e-3), initial_scale=4.0
    )
    model.compile(optimizer, "mse")
    return fitted(model, 6)


# -- around the step


class PutBack(keras.callbacks.Callback):
    """Sets the weights to those of the beginning."""

    def __init__(self, always):
        super().__init__()
        self.always = always

    def on_train_begin(self, logs=None):
        self.weights = self.model.get_weights()

    def on_train_batch_end(self, batch, logs=None):
        if self.always or int(self.model.optimizer.iterations) == 3:
            self.model.set_weights(self.weights)


def callback_puts_weights_back(broken):
    """After each step; the twin does it once, as a search for a learning rate does."""
    model = network()
    model.compile("adam", "mse")
    return fitted(model, 11, callbacks=[PutBack(broken)])


def frozen_after_compile(broken):
    """The compiled step still trains the layer; the twin is compiled again."""
    model = network()
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0, batch_size=32)
    model.layers[0].trainable = False
    if not broken:
        model.compile("sgd", "mse")
    return fitted(model, 11)


# -- replicas


def replicas_part(broken):
    strategy = tf.distribute.MirroredStrategy(tf.config.list_logical_devices("CPU")[:2])
    with strategy.scope():
        model = network()
        model.compile("sgd", "mse")
    if broken:
        one, _ = model.layers[1].kernel._value.values
        one.assign(one * 1.1)
    return fitted(model)


ERRORS = {
    forgets_to_apply: "weights-not-updated",
    applies_some_of_them: "weights-not-updated",
    optimizer_of_another_model: "weights-not-updated",
    multiplies_by_zero: "weights-not-updated",
    assigns_back: "weights-not-updated",
    clips_values_to_nothing: "weights-not-updated",
    clips_norms_to_nothing: "weights-not-updated",
    constraint_takes_it_back: "weights-not-updated",
    asks_for_some_of_them: "no-gradient",
    stops_the_gradient: "no-gradient",
    applies_twice: "wrong-update",
    adds_a_step_by_hand: "wrong-update",
    in_another_order: "wrong-update",
    wrong_sign: "wrong-update",
    keeps_the_loss_scale: "wrong-update",
    divides_by_the_loss_scale_only: "wrong-update",
    callback_puts_weights_back: "weights-not-updated",
    rate_of_zero: "weights-not-updated",
    frozen_after_compile: "wrong-update",
    decay_takes_all: "weight-decay",
    stuck_loss_scale: "stuck-loss-scale",
    replicas_part: "replicas-differ",
    divides_by_the_batch_twice: None,
    own_optimizer_ascends: None,
}
"""Errors, and the code of the finding that names each; None for those that are missed."""

"""Healthy trainings whose updates are easily taken for wrong ones."""

import keras
import tensorflow as tf

from silent_errors import X, Y, fitted, layers, monitor, network

optimizers = keras.optimizers
schedules = optimizers.schedules

OPTIMIZERS = {
    "SGD": lambda: optimizers.SGD(0.01),
    "SGD, momentum": lambda: optimizers.SGD(0.01, momentum=0.9),
    "SGD, Nesterov": lambda: optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "SGD, decay": lambda: optimizers.SGD(0.01, weight_decay=0.1),
    "SGD, clipvalue": lambda: optimizers.SGD(0.01, clipvalue=0.01),
    "SGD, clipnorm": lambda: optimizers.SGD(0.01, clipnorm=0.01),
    "SGD, global clipnorm": lambda: optimizers.SGD(0.01, global_clipnorm=0.01),
    "SGD, schedule": lambda: optimizers.SGD(schedules.ExponentialDecay(0.01, 1, 0.5)),
    "SGD, accumulation": lambda: optimizers.SGD(0.01, gradient_accumulation_steps=2),
    "SGD, average": lambda: optimizers.SGD(
        0.01, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=1
    ),
    "SGD, loss scale": lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.01)),
    "SGD, fixed loss scale": lambda: optimizers.SGD(0.01, loss_scale_factor=64.0),
    "SGD, tiny rate": lambda: optimizers.SGD(1e-12),
    "Adam": lambda: optimizers.Adam(),
    "Adam, amsgrad": lambda: optimizers.Adam(amsgrad=True),
    "Adam, epsilon": lambda: optimizers.Adam(epsilon=0.1),
    "Adam, clipnorm": lambda: optimizers.Adam(clipnorm=1e-4),
    "Adam, accumulation": lambda: optimizers.Adam(gradient_accumulation_steps=3),
    "Adam, warm-up": lambda: optimizers.Adam(
        schedules.CosineDecay(0.0, 100, warmup_target=1e-3, warmup_steps=10)
    ),
    "AdamW": lambda: optimizers.AdamW(),
    "AdamW, decay": lambda: optimizers.AdamW(1e-3, weight_decay=5.0),
    "Nadam": lambda: optimizers.Nadam(),
    "RMSprop": lambda: optimizers.RMSprop(),
    "RMSprop, centered": lambda: optimizers.RMSprop(centered=True),
    "RMSprop, momentum": lambda: optimizers.RMSprop(momentum=0.9),
    "Adagrad": lambda: optimizers.Adagrad(0.01),
    "Adadelta": lambda: optimizers.Adadelta(1.0),
    "Adamax": lambda: optimizers.Adamax(),
    "Adafactor": lambda: optimizers.Adafactor(),
    "Ftrl": lambda: optimizers.Ftrl(0.01),
    "Lion": lambda: optimizers.Lion(1e-4),
    "Lamb": lambda: optimizers.Lamb(),
    "Muon": lambda: optimizers.Muon(),
}


class Own(optimizers.SGD):
    """An optimizer of the user's own, with updates of another size."""

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, 3.0 * learning_rate)


def _compiled(optimizer="sgd", loss="mse", model=None, **options):
    model = model or network()
    model.compile(optimizer, loss, **options)
    return model


def frozen_layers():
    model = network()
    model.layers[0].trainable = False
    return fitted(_compiled(model=model), 3)


def frozen_later():
    """Frozen and compiled again, with the same monitor."""
    model = _compiled("adam")
    seen = monitor()
    for _ in range(2):
        model.fit(X, Y, verbose=0, batch_size=32, callbacks=[seen])
        model.layers[0].trainable = False
        model.compile("adam", "mse")
    return seen


def low_rank():
    model = network()
    model.layers[1].enable_lora(4)
    return fitted(_compiled("adam", model=model), 3)


def regularized():
    model = network()
    for layer in model.layers:
        layer.kernel_regularizer = keras.regularizers.L2(0.1)
    return fitted(_compiled(model=model), 3)


def constrained():
    model = network()
    for layer in model.layers:
        layer.kernel.constraint = keras.constraints.UnitNorm(axis=0)
    return fitted(_compiled(model=model), 3)


def own_optimizer():
    return fitted(_compiled(Own(0.01)), 3)


def converged():
    """The output is right, so all gradients are zero."""
    model = network()
    return fitted(_compiled("adam", model=model), 3, y=model(X).numpy())


def several_steps_at_once():
    model = _compiled("sgd", steps_per_execution=2)
    seen = monitor()
    model.fit(X, Y, verbose=0, batch_size=16, epochs=2, callbacks=[seen])
    return seen


def compiled_by_xla():
    return fitted(_compiled("adam", jit_compile=True), 3)


def run_eagerly():
    return fitted(_compiled("sgd", run_eagerly=True), 3)


def _of_dtype(policy):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        model = keras.Sequential(layers(), name="net")
    finally:
        keras.config.set_dtype_policy("float32")
    return fitted(_compiled("adam", model=model), 3)


def mixed_float16():
    return _of_dtype("mixed_float16")


def bfloat16():
    return _of_dtype("bfloat16")


def shared_layer():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32,))
    dense = keras.layers.Dense(32, "relu")
    x = dense(dense(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    return fitted(_compiled(model=model), 3)


def large_kernels():
    """Measured in some of their rows."""
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(300, "relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((32,)), *hidden, keras.layers.Dense(1)])
    return fitted(_compiled(optimizers.SGD(0.01), model=model), 3)


def several_losses():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32,))
    x = keras.layers.Dense(32, "relu")(inputs)
    model = keras.Model(inputs, [keras.layers.Dense(1)(x), keras.layers.Dense(1)(x)])
    model.compile("sgd", ["mse", "mae"])
    return fitted(model, 3, y=(Y, Y))


class _Own(keras.Model):
    """Trains with `update(tape, loss, x, y)`."""

    update = None

    def train_step(self, data):
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
            scaled = 1024.0 * loss
        type(self).update(self, tape, loss, scaled)
        return {"loss": loss}


def _own(update, optimizer="adam"):
    kind = type("Own", (_Own,), {"update": update})
    model = network(kind)
    model.compile(optimizer, "mse")
    return fitted(model, 3)


def loss_scaled_by_hand():
    def update(self, tape, loss, scaled):
        weights = self.trainable_variables
        gradients = [g / 1024.0 for g in tape.gradient(scaled, weights)]
        self.optimizer.apply(gradients, weights)

    return _own(update)


def two_optimizers():
    """One for the head, one for the rest."""
    other = optimizers.SGD(0.01)

    def update(self, tape, loss, scaled):
        weights = self.trainable_variables
        gradients = tape.gradient(loss, weights)
        self.optimizer.apply(gradients[-2:], weights[-2:])
        other.apply(gradients[:-2], weights[:-2])

    return _own(update)


def two_gradients_in_a_step():
    """The second is of another loss, and added to the first."""

    def update(self, tape, loss, scaled):
        weights = self.trainable_variables
        first, second = tape.gradient(loss, weights), tape.gradient(scaled, weights)
        pairs = zip(first, second, strict=True)
        self.optimizer.apply([g + 1e-3 * h for g, h in pairs], weights)

    return _own(update)


def two_updates_in_a_step():
    def update(self, tape, loss, scaled):
        weights = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        self.optimizer.apply(tape.gradient(scaled, weights), weights)

    return _own(update, optimizers.SGD(1e-5))


def every_other_step():
    """Gradients are added up by hand, and applied at every second step."""
    sums, steps = [], tf.Variable(0)

    def update(self, tape, loss, scaled):
        weights = self.trainable_variables
        gradients = tape.gradient(loss, weights)
        if not sums:
            with tf.init_scope():
                sums.extend(tf.Variable(tf.zeros(w.shape)) for w in weights)
                self.optimizer.build(weights)
        for total, gradient in zip(sums, gradients, strict=True):
            total.assign_add(gradient)
        steps.assign_add(1)

        def apply():
            self.optimizer.apply([total / 2.0 for total in sums], weights)
            for total in sums:
                total.assign(tf.zeros_like(total))
            return True

        tf.cond(steps % 2 == 0, apply, lambda: False)

    return _own(update)


def without_an_optimizer_of_keras():
    """Plain steps by hand."""

    def update(self, tape, loss, scaled):
        weights = self.trainable_variables
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(0.01 * gradient)

    return _own(update)


class Adversarial(keras.Model):
    """A generator and a discriminator with an optimizer each, one step for both."""

    def __init__(self):
        super().__init__(name="gan")
        self.generator = keras.Sequential(
            [keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(32)]
        )
        self.discriminator = keras.Sequential(
            [keras.Input((32,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(1)]
        )
        self.others = optimizers.Adam(1e-4)

    def train_step(self, x):
        noise = tf.random.normal((32, 8))
        score = keras.losses.BinaryCrossentropy(from_logits=True)
        with tf.GradientTape() as tape:
            true = self.discriminator(x, training=True)
            false = self.discriminator(self.generator(noise, training=True))
            loss = score(tf.ones_like(true), true) + score(tf.zeros_like(false), false)
        weights = self.discriminator.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        with tf.GradientTape() as tape:
            false = self.discriminator(self.generator(noise, training=True))
            loss = score(tf.ones_like(false), false)
        weights = self.generator.trainable_variables
        self.others.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


def adversarial():
    keras.utils.set_random_seed(0)
    model = Adversarial()
    model.compile("adam")
    return fitted(model, 3, y=None)


class _Teacher(keras.callbacks.Callback):
    """Moves the teacher after each step."""

    def __init__(self, student, teacher):
        super().__init__()
        self.student, self.teacher = student, teacher

    def on_train_batch_end(self, batch, logs=None):
        pairs = zip(self.teacher.weights, self.student.weights, strict=True)
        for slow, fast in pairs:
            slow.assign(0.9 * slow + 0.1 * fast)


def frozen_teacher():
    """A frozen copy that a callback moves, and that the student learns from."""
    student, teacher = network(), network()
    teacher.name = "teacher"
    teacher.trainable = False
    inputs = keras.Input((32,))
    error = student(inputs) - 0.5 * teacher(inputs)
    model = keras.Model(inputs, error)
    return fitted(
        _compiled("adam", model=model), 11, callbacks=[_Teacher(student, teacher)]
    )


def loop_of_ones_own():
    """The watched function computes gradients; they are applied outside of it."""
    model, optimizer = network(), optimizers.Adam()
    seen = monitor()

    @tf.function
    def gradients(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        return tape.gradient(loss, model.trainable_variables)

    watched = seen.watch(gradients, model)
    for _ in range(3):
        optimizer.apply(watched(X, Y), model.trainable_variables)
    return seen


TRAININGS = [
    *(frozen_layers, frozen_later, low_rank, regularized, constrained, own_optimizer),
    *(converged, several_steps_at_once, compiled_by_xla, run_eagerly, mixed_float16),
    *(bfloat16, shared_layer, large_kernels, several_losses, loss_scaled_by_hand),
    *(two_optimizers, two_gradients_in_a_step, two_updates_in_a_step),
    *(every_other_step, without_an_optimizer_of_keras, adversarial, frozen_teacher),
    loop_of_ones_own,
]
HEALTHY = {
    **{training.__name__: training for training in TRAININGS},
    **{
        name: lambda make=make: fitted(_compiled(make()), 3)
        for name, make in OPTIMIZERS.items()
    },
}

"""Programs that train on several replicas, run by test_distribution.py.

TensorFlow fixes the number of devices and the cluster of a process when it starts, so each
program is a process of its own. It writes its results to a file.

    python tests/distributed.py mirrored FOUND
    python tests/distributed.py worker FOUND INDEX LOG_DIR
    python tests/distributed.py parameter_servers FOUND
"""

import os
import pickle
import signal
import socket
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import models
from activation_monitor import ActivationMonitor, Monitored

RATE = 0.05
WORKERS = 2
SHARE = 6  # rows of each worker at a step
TINY_STEP = 1  # at this step, the second worker has only subnormal inputs
SAVED_AFTER, KILLED_AFTER = 9, 13  # steps


def perceptron(wrap=lambda layer: layer):
    """A network with a ReLU and a saturating layer; `forward` computes its outputs."""
    return keras.Sequential(
        [
            keras.Input((8,)),
            wrap(layers.Dense(16, "relu", kernel_initializer="he_normal", name="first")),
            layers.Dense(16, "tanh", name="second"),
            layers.Dense(1, name="head"),
        ],
        name="net",
    )


def forward(weights, x):
    """The tensors that are measured in `perceptron`, by name, in float64."""
    w = [np.asarray(array, np.float64) for array in weights]
    x = np.asarray(x, np.float64)
    first = np.maximum(x @ w[0] + w[1], 0.0)
    second = np.tanh(first @ w[2] + w[3])
    head = second @ w[4] + w[5]
    return {
        "net/first:input": x,
        "net/first": first,
        "net/second": second,
        "net/head": head,
    }


def training_step(strategy, model, rows):
    """The step of a custom loop, on global batches of `rows` rows."""
    optimizer = keras.optimizers.SGD(RATE)

    def on_replica(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(x, training=True) - y)) / rows
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    @tf.function
    def step(x, y):
        losses = strategy.run(on_replica, args=(x, y))
        return strategy.reduce("SUM", losses, axis=None)

    return step


def our_warnings(caught):
    """The messages of the monitor's warnings."""
    return [str(w.message) for w in caught if "Monitor" in str(w.message)]


# -- two replicas in one process


class Notes(keras.callbacks.Callback):
    """Keeps the weights before each step."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_batch_begin(self, batch, logs=None):
        self.weights.append(self.model.get_weights())


def fit(
    strategy,
    x,
    y,
    make=perceptron,
    rate=RATE,
    loss="mse",
    monitor=None,
    compiled=None,
    batch_size=12,
    **options,
):
    """Fit a model on the replicas; returns weights, losses, warnings and snapshots."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = make()
        model.compile(keras.optimizers.SGD(rate), loss, **(compiled or {}))
    notes = Notes()
    callbacks = [notes] if monitor is None else [notes, monitor]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        log = model.fit(
            *(x, y),
            batch_size=batch_size,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
            **options,
        )
    return {
        "weights": notes.weights,
        "final": model.get_weights(),
        "losses": log.history["loss"],
        "warned": our_warnings(caught),
        "snapshots": [] if monitor is None else monitor.recording.snapshots,
        "validation": [] if monitor is None else monitor.validation_recording.snapshots,
        "model": model,
    }


def custom_loop(strategy, x, y, monitor=None, eager=False):
    """Run steps of 7 rows."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = perceptron()
    step = training_step(strategy, model, rows=7)
    rows = tf.data.Dataset.from_tensor_slices((x, y)).batch(7)
    found = {"weights": [], "losses": []}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if monitor is not None and not eager:
            step = monitor.watch(step, model)
        for batch in strategy.experimental_distribute_dataset(rows):
            found["weights"].append(model.get_weights())
            if eager:
                with monitor.measure_step(model):
                    strategy.run(lambda x, y: model(x, training=True), args=batch)
            else:
                found["losses"].append(float(step(*batch)))
    return found | {
        "final": model.get_weights(),
        "warned": our_warnings(caught),
        "snapshots": [] if monitor is None else monitor.recording.snapshots,
    }


def several_runs(strategy, x, monitor):
    """A step that calls `strategy.run` twice, as one that accumulates gradients does."""
    with strategy.scope():
        model = perceptron()

    @tf.function
    def step(x):
        twice = [strategy.run(model, args=(part,)) for part in (x, x)]
        return [strategy.experimental_local_results(outputs) for outputs in twice]

    step = monitor.watch(step, model)
    rows = tf.data.Dataset.from_tensor_slices(x).batch(12)
    for batch in strategy.experimental_distribute_dataset(rows):
        step(batch)
    return {"snapshots": monitor.recording.snapshots}


def layers_with_records(strategy, x, y, monitor):
    """The statistics of a `Monitored` layer after two steps and one evaluation."""
    wrapped = []

    def wrap(layer):
        wrapped.append(Monitored(layer))
        return wrapped[0]

    found = fit(strategy, x, y, lambda: perceptron(wrap), rate=0.0, monitor=monitor)
    found["model"].evaluate(x[:11], y[:11], batch_size=8, verbose=0)
    (layer,) = wrapped
    return found | {
        "training": layer.statistics(training=True),
        "inference": layer.statistics(),
    }


def spoiled_batches():
    """Two batches that the quick pass cannot measure on one of the replicas."""
    x, _ = models.data(samples=12)
    one_nan = x.copy()
    one_nan[9, 2] = np.nan
    tiny = x * np.float32(1e-33)
    tiny[6:] = x[6:] * np.float32(1e-39)
    return {"nan": one_nan, "subnormal": tiny}


def mirrored():
    """Run all cases on two logical devices."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    x, y = models.data(samples=24)

    def monitor(**options):
        return ActivationMonitor(sample_every=1, **options)

    found = {}
    found["compiled"] = fit(strategy, x, y, monitor=monitor())
    eagerly = {"run_eagerly": True}
    found["eager"] = fit(strategy, x, y, monitor=monitor(), compiled=eagerly)
    found["eager, plain"] = fit(strategy, x, y, compiled=eagerly)
    # The last batch has 3 rows. Keras' own `fit` fails if the first batch is odd.
    found["odd"] = fit(strategy, x[:19], y[:19], batch_size=8, monitor=monitor())
    # Batches of 7, 7 and 1 rows: the second replica has no row of the last one.
    x, y = x[:15], y[:15]
    found["watched"] = custom_loop(strategy, x, y, monitor())
    found["watched, plain"] = custom_loop(strategy, x, y)
    found["measured eagerly"] = custom_loop(strategy, x, y, monitor(), eager=True)
    x, y = models.data(samples=24)
    found["two runs"] = several_runs(strategy, x, monitor())
    images = models.IMAGES[:24], models.LABELS[:24]
    of_images = {
        "make": models.image_network,
        "loss": "sparse_categorical_crossentropy",
        "batch_size": 8,
    }
    every_other = ActivationMonitor(sample_every=lambda step: step != 1)
    found["images"] = fit(strategy, *images, monitor=every_other, **of_images)
    found["images, plain"] = fit(strategy, *images, **of_images)
    found["validated"] = fit(
        strategy,
        *(x, y),
        monitor=monitor(validation=True),
        validation_data=(x[:11], y[:11]),
        validation_batch_size=8,
    )
    for case, spoiled in spoiled_batches().items():
        found[case] = fit(strategy, spoiled, y[:12], rate=0.0, epochs=2, monitor=monitor())
    found["own record"] = layers_with_records(strategy, x, y, None)
    found["own record, monitored"] = layers_with_records(strategy, x, y, monitor())
    for case in found.values():
        case.pop("model", None)
    return found


# -- one of several workers


def share(worker, step):
    """The batch of a worker at a step."""
    rng = np.random.default_rng([worker, step])
    x = rng.standard_normal((SHARE, 8)).astype(np.float32)
    y = rng.standard_normal((SHARE, 1)).astype(np.float32)
    return x * np.float32(1e-39) if (worker, step) == (1, TINY_STEP) else x, y


def outcome(function, *args):
    """Call a function; returns the error as text, or "ran"."""
    try:
        function(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "ran"


def worker(found_file, index, log_dir):
    """Run nine steps and save the results; then run on until one worker is killed."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = perceptron()
    step = training_step(strategy, model, rows=WORKERS * SHARE)

    by_function = ActivationMonitor(sample_every=lambda step: step == 0)
    found = {"refused": outcome(by_function.watch, step, model), "weights": []}
    monitor = ActivationMonitor(log_dir, sample_every=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        watched = monitor.watch(step, model)
        for number in range(SAVED_AFTER):
            found["weights"].append(model.get_weights())
            watched(*map(tf.constant, share(index, number)))
    found["warned"] = our_warnings(caught)
    found["snapshots"] = monitor.recording.snapshots
    found["final"] = model.get_weights()

    def fit(callbacks):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = perceptron()
            model.compile("sgd", "mse")
        x, y = models.data()
        model.fit(x, y, batch_size=8, verbose=0, callbacks=callbacks)

    found["fit, plain"] = outcome(fit, [])
    found["fit"] = outcome(fit, [ActivationMonitor()])
    save(found, found_file)

    try:
        for number in range(SAVED_AFTER, SAVED_AFTER + 100):
            if index == 1 and number == KILLED_AFTER:
                os.kill(os.getpid(), signal.SIGKILL)
            watched(*map(tf.constant, share(index, number)))
    finally:
        os._exit(0)  # without closing files or waiting for the other worker


# -- strategies that are refused


def parameter_servers():
    """Schedule a step with a coordinator; workers and server are in this process."""
    jobs = {"worker": 2, "ps": 1}
    spec = {job: [f"127.0.0.1:{p}" for p in free_ports(n)] for job, n in jobs.items()}
    cluster = tf.train.ClusterSpec(spec)
    servers = [
        tf.distribute.Server(cluster, job, index, protocol="grpc")
        for job, n in jobs.items()
        for index in range(n)
    ]
    strategy = tf.distribute.ParameterServerStrategy(
        tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, rpc_layer="grpc")
    )
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    with strategy.scope():
        model = perceptron()

    @tf.function
    def step(x):
        return tf.reduce_sum(model(x))

    monitor = ActivationMonitor(sample_every=lambda step: True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        watched = monitor.watch(step, model)
        result = coordinator.schedule(watched, args=(tf.ones((3, 8)),)).fetch()
    return {
        "warned": our_warnings(caught),
        "result": float(result),
        "expected": forward(model.get_weights(), np.ones((3, 8)))["net/head"].sum(),
        "snapshots": monitor.recording.snapshots,
        "servers": len(servers),
    }


def free_ports(number):
    """Unused ports of the loopback interface."""
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def save(found, path):
    """Write the file atomically."""
    part = Path(f"{path}.part")
    part.write_bytes(pickle.dumps(found))
    part.rename(path)


if __name__ == "__main__":
    command, found_file, *rest = sys.argv[1:]
    if command == "worker":
        worker(found_file, int(rest[0]), rest[1])
    save(
        {"mirrored": mirrored, "parameter_servers": parameter_servers}[command](),
        found_file,
    )
    os._exit(0)  # the threads of servers and of collective operations end with it

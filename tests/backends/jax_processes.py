"""One of two JAX processes that train together, run by on_jax_processes.py.

    python tests/backends/jax_processes.py FOUND INDEX PORT LOG_DIR

It writes its results to a file, and trains on until the second process is killed.
"""

import functools
import os
import pickle
import signal
import sys
import warnings
from pathlib import Path

import jax
import keras
import numpy as np
from keras import layers

from activation_monitor import ActivationMonitor

RATE = 0.05
BATCH = 12  # rows of the global batch; each process has half of them
STEPS = 4  # in an epoch
KILLED_AT = 7  # this step is the last one

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(STEPS * BATCH, 8)).astype("float32")
Y = X[:, :1] * X[:, 1:2]


def perceptron():
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, "relu", kernel_initializer="he_normal", name="first"),
            layers.Dense(16, "tanh", name="second"),
            layers.Dense(1, name="head"),
        ],
        name="net",
    )


def share(rows, index):
    """The rows of a process: the first or the second half of each global batch."""
    batches = rows.reshape(-1, 2, BATCH // 2, rows.shape[-1])
    return batches[:, index].reshape(-1, rows.shape[-1])


def our_warnings(caught):
    """The messages of the monitor's warnings."""
    return [str(w.message) for w in caught if "Monitor" in str(w.message)]


class Ends(keras.callbacks.Callback):
    """Kills its process in the middle of training."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)


def fit(index, monitor=None, x=X, epochs=2, callbacks=(), make=perceptron, **compiled):
    """Fit a model; returns weights, losses, warnings and snapshots."""
    keras.utils.set_random_seed(1)
    model = make()
    model.compile(keras.optimizers.SGD(RATE), "mse", **compiled)
    initial = model.get_weights()
    validating = monitor is not None and monitor._options.validation
    x, y = share(x, index), share(np.resize(Y, (len(x), 1)), index)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            history = model.fit(
                *(x, y),
                batch_size=BATCH // 2,
                shuffle=False,
                verbose=0,
                epochs=epochs,
                validation_data=(x, y) if validating else None,
                callbacks=[*callbacks, *([] if monitor is None else [monitor])],
            ).history["loss"]
            ended = "ran"
        except Exception as error:
            history, ended = None, type(error).__name__
    return {
        "initial": initial,
        "final": model.get_weights(),
        "losses": history,
        "ended": ended,
        "steps": int(model.optimizer.iterations),
        "warned": our_warnings(caught),
        "snapshots": [] if monitor is None else monitor.recording.snapshots,
        "validation": [] if monitor is None else monitor.validation_recording.snapshots,
    }


def watched(index, distribution, monitor=None):
    """Run a custom loop; returns weights, losses and snapshots."""
    keras.utils.set_random_seed(1)
    model, optimizer = perceptron(), keras.optimizers.SGD(RATE)
    optimizer.build(model.trainable_variables)

    def loss_of(trained, x, y):
        predicted, _ = model.stateless_call(trained, [], x, training=True)
        return keras.ops.mean((predicted - y) ** 2)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, x, y):
        loss, gradients = jax.value_and_grad(loss_of)(state[0], x, y)
        return loss, optimizer.stateless_apply(state[1], gradients, state[0])

    if monitor is not None:
        step = monitor.watch(step, model)
    groups = model.trainable_variables, optimizer.variables
    state = tuple([keras.ops.copy(v.value) for v in group] for group in groups)
    initial, losses = model.get_weights(), []
    rows = [share(one, index).reshape(STEPS, BATCH // 2, -1) for one in (X, Y)]
    for x, y in zip(*rows, strict=True):
        loss, state = step(
            state,
            *(
                jax.make_array_from_process_local_data(
                    distribution.get_data_layout(one.shape).backend_layout, one
                )
                for one in (x, y)
            ),
        )
        losses.append(float(loss))
    return {
        "initial": initial,
        "final": [np.asarray(value) for value in state[0]],
        "losses": losses,
        "snapshots": [] if monitor is None else monitor.recording.snapshots,
    }


def cases(index, log_dir, distribution):
    """The results of all trainings that end."""
    spoiled = X.copy()
    spoiled[2 * BATCH + BATCH // 2 :] = np.nan  # the second process has it at step 2
    called = []
    found = {
        "plain": fit(index),
        "each": fit(index, ActivationMonitor(log_dir, sample_every=1)),
        "some": fit(index, ActivationMonitor(sample_every=3, validation=True)),
        "together": fit(index, ActivationMonitor(sample_every=1), steps_per_execution=3),
        "together, plain": fit(index, steps_per_execution=3),
        "eager": fit(index, ActivationMonitor(sample_every=3), run_eagerly=True, epochs=1),
        "recent": fit(
            index, ActivationMonitor(sample_every=100, flight_recorder=2), x=spoiled
        ),
        "watched": watched(index, distribution, ActivationMonitor(sample_every=2)),
        "watched, plain": watched(index, distribution),
        "by function": fit(index, ActivationMonitor(sample_every=lambda step: True)),
    }
    for name, action in (
        *(("stop", "stop"), ("raise", "raise")),
        ("function", lambda finding: called.append(finding.code)),
    ):
        monitor = ActivationMonitor(sample_every=1, on_finding={"critical": action})
        found[name] = fit(index, monitor, x=spoiled)
    return found | {"called": called}


def sharded(index):
    """A model whose kernels are sharded over the processes; both have all of the data."""
    mesh = keras.distribution.DeviceMesh(
        (2, 2), ("model", "batch"), keras.distribution.list_devices()
    )
    layouts = keras.distribution.LayoutMap(mesh)
    layouts[".*kernel"] = ("model", None)
    distribution = keras.distribution.ModelParallel(
        layout_map=layouts, batch_dim_name="batch", auto_shard_dataset=False
    )
    keras.distribution.set_distribution(distribution)
    keras.utils.set_random_seed(1)
    model = perceptron()
    model.compile(keras.optimizers.SGD(RATE), "mse")
    monitor = ActivationMonitor(sample_every=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, Y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[monitor])
    return {"snapshots": monitor.recording.snapshots, "warned": our_warnings(caught)}


def main(found_file, index, port, log_dir):
    """Run the cases and save the results; then train on."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # A process that was killed is noticed after 20 s, and not after 100.
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, index, heartbeat_timeout_seconds=20)
    distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(distribution)
    found = cases(index, f"{log_dir}/{index}", distribution) | {"sharded": sharded(index)}
    part = Path(f"{found_file}.part")
    part.write_bytes(pickle.dumps(found))
    part.rename(found_file)

    keras.distribution.set_distribution(distribution)
    killed = ActivationMonitor(f"{log_dir}/killed_{index}", sample_every=1)
    try:
        fit(
            index,
            killed,
            np.concatenate([X, X, X, X]),
            callbacks=[Ends()] if index == 1 else [],
        )
    finally:
        os._exit(0)  # without closing files


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])

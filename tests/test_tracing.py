"""TensorFlow's warning of frequent retracing: never for traces of ours, else as ever.

It counts over the whole process, by the source of a function: each case has its own.
"""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PRELUDE = """
import keras, numpy as np, tensorflow as tf, models
from activation_monitor import ActivationMonitor, Monitored, audit, rescale
from activation_monitor.recording.backends import backend

x, y = models.data()

def compiled():
    model = models.perceptron()
    model.compile("sgd", "mse")
    return model

def fit(steps, monitors=(), **options):
    given = {"batch_size": 4, "verbose": 0, "callbacks": [*monitors], **options}
    compiled().fit(x[: 4 * steps], y[: 4 * steps], **given)

def training_step():
    model, optimizer = models.perceptron(), keras.optimizers.SGD()

    @tf.function
    def own_step(x, y, number=0):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2) + number
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return loss

    return own_step, model
"""

OURS = {
    "audits": "for _ in range(5): audit(compiled(), x, y)",
    # Nearly all steps of a short fit are sampled, and the plain one is traced late.
    "short fits": "for _ in range(5): fit(4, [ActivationMonitor()])",
    "evaluations": """
for _ in range(2):
    monitor = ActivationMonitor(validation=True)
    fit(5, [monitor], validation_data=(x[:12], y[:12]))
""",
    "watched steps": """
for _ in range(6):
    step = ActivationMonitor().watch(*training_step())
    for _ in range(5):
        step(x, y)
""",
    "kernels of many shapes": """
for n in range(5):
    array = np.ones((n + 1, 2), np.float32)
    backend.measure_once(array, exact=False, jit_compile=True)
    backend.measure_once(array, exact=False)
""",
    "wrapped layers, rescaled": """
for _ in range(5):
    model = keras.Sequential([keras.Input((8,)), Monitored(keras.layers.Dense(3))])
    rescale(model, x)
    model(x)
    model.layers[0].statistics()
""",
}

USERS = """
for _ in range(6):
    fit(2, monitors())

step, model = training_step()
for monitor in monitors():
    step = monitor.watch(step, model)
for number in range(8):  # Python numbers: each has a trace of its own
    step(x, y, number)
"""


def warned_of(code):
    """Functions that TensorFlow warns of in a process of its own, and how often."""
    run = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    names = re.findall(r"calls to (.*?) (?:at|Input|triggered) ", run.stderr)
    assert len(names) == run.stderr.count("triggered tf.function retracing"), run.stderr
    return Counter(names)


@pytest.mark.smoke
def test_no_trace_of_ours_is_warned_of():
    """Nor does one make TensorFlow warn of Keras' or the user's functions."""
    assert warned_of("\n".join(OURS.values())) == {}


@pytest.mark.slow
@pytest.mark.smoke
def test_the_users_own_retracing_is_warned_of_as_without_a_monitor():
    """As often: short fits in a loop, and a step that is traced for every number."""
    monitor = "[ActivationMonitor(sample_every=lambda step: step == 0)]"
    plain, monitored = (
        warned_of(f"def monitors(): return {monitors}\n{USERS}")
        for monitors in ("[]", monitor)
    )
    assert len(plain) == 2
    assert monitored == plain

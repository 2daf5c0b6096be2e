"""A residual network that explodes slowly, block by block, until SGD diverges.

    python examples/slow_explosion.py

Every layer has a textbook initializer, and each single block is fine: it adds a branch
about as large as the stream. After thirty sums, the stream is hundreds of times too large.
The fix is in the last layer of each branch.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from sklearn.datasets import load_digits

from activation_monitor import ActivationMonitor

BLOCKS = 30


def network(last_of_branch):
    """Thirty blocks `x + f(x)`; `last_of_branch`: arguments of the last layer of each f."""
    dense = keras.layers.Dense
    inputs = keras.Input((64,))
    x = dense(128, name="stem")(inputs)
    for i in range(BLOCKS):
        branch = dense(128, "relu", kernel_initializer="he_normal", name=f"first_{i}")(x)
        x = x + dense(128, name=f"last_{i}", **last_of_branch)(branch)
    outputs = dense(10, activation="softmax", name="digit")(x)
    return keras.Model(inputs, outputs, name="net")


def train(model, x, y):
    """Train for five epochs; returns the last loss and the monitor."""
    model.compile(
        keras.optimizers.SGD(0.003, momentum=0.9), "sparse_categorical_crossentropy"
    )
    monitor = ActivationMonitor(histograms=False, on_finding=lambda finding: None)
    history = model.fit(x, y, batch_size=64, epochs=5, verbose=0, callbacks=[monitor])
    return history.history["loss"][-1], monitor


def main():
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x = ((x - x.mean()) / x.std()).astype("float32")

    loss, monitor = train(network({"kernel_initializer": "glorot_uniform"}), x, y)
    first = monitor.recording[0]
    print("The rms of the stream at the first step:")
    points = monitor.diagnosis.profile.main.points
    for point in points[:: len(points) // 6]:
        print(f"  depth {point.depth:3d}  {point.rms:12.3g}")
    print(f"\nLoss at the end: {loss:.3g} (guessing: 2.3). At step {first.step}:\n")
    for finding in monitor.diagnosis.findings:
        print(finding)

    line = monitor.diagnosis.findings[0].fix.changes[0].code
    fixed, monitor = train(network(eval(f"dict({line})")), x, y)
    print(f"\nWith {line} in the branches: loss {fixed:.3g}.")
    verdict = "healthy" if monitor.diagnosis.healthy else monitor.diagnosis.findings
    print("The monitor:", verdict)
    return loss, fixed, monitor.diagnosis


if __name__ == "__main__":
    main()

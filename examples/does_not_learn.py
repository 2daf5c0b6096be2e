"""A network that does not learn, fixed by the line that the monitor prints.

    python examples/does_not_learn.py

Twenty ReLU layers use `random_normal`, a common first attempt: its standard deviation is
0.05, whatever the width. On scikit-learn's digits the accuracy stays at 10 %: guessing.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from activation_monitor import ActivationMonitor


def network(**arguments):
    """A network of twenty hidden layers, each with these arguments."""
    layers = keras.layers
    hidden = [
        layers.Dense(128, activation="relu", name=f"hidden_{i}", **arguments)
        for i in range(20)
    ]
    return keras.Sequential(
        [keras.Input((64,)), *hidden, layers.Dense(10, activation="softmax", name="digit")],
        name="net",
    )


def train(model, data):
    """Train for five epochs; returns the accuracy on unseen digits and the diagnosis."""
    x, x_test, y, y_test = data
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    monitor = ActivationMonitor(histograms=False, on_finding=lambda finding: None)
    model.fit(x, y, batch_size=64, epochs=5, verbose=0, callbacks=[monitor])
    return model.evaluate(x_test, y_test, verbose=0)[1], monitor.diagnosis


def main():
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x = ((x - x.mean()) / x.std()).astype("float32")
    data = train_test_split(x, y, test_size=0.2, random_state=0)

    accuracy, diagnosis = train(network(kernel_initializer="random_normal"), data)
    print(f"With random_normal: accuracy {accuracy:.0%}. The monitor says:\n")
    for finding in diagnosis.findings:
        print(finding)

    line = diagnosis.findings[0].fix.changes[0].code
    # The line is Python code: the argument that a person would add to each layer.
    arguments = eval(f"dict({line})")
    fixed, diagnosis = train(network(**arguments), data)
    print(f"\nWith {line}: accuracy {fixed:.0%}.")
    print("The monitor:", "healthy" if diagnosis.healthy else diagnosis.findings)
    return accuracy, fixed, diagnosis


if __name__ == "__main__":
    main()

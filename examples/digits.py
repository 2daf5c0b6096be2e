"""Train a convolutional network on scikit-learn's digits with the monitor attached.

    python examples/digits.py [LOG_DIR]

Prints what the monitor found, and the command that starts TensorBoard.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from activation_monitor import ActivationMonitor


def network():
    """Two convolutions and two hidden layers, with the default initializers of Keras."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_1"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv_2"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(128, activation="relu", name="hidden_1"),
            layers.Dropout(0.2, name="dropout"),
            layers.Dense(64, activation="relu", name="hidden_2"),
            layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="digits",
    )


def main(log_dir="logs/digits"):
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).reshape(-1, 8, 8, 1).astype("float32")
    x, x_test, y, y_test = train_test_split(images, labels, test_size=0.2, random_state=0)

    model = network()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    monitor = ActivationMonitor(log_dir, sample_every=20)
    model.fit(x, y, batch_size=64, epochs=8, verbose=0, callbacks=[monitor])
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)

    print(monitor.diagnosis)
    print(f"Accuracy on {len(x_test)} unseen digits: {accuracy:.1%}")
    print(f"\nTo see all steps:  tensorboard --logdir {log_dir}")
    return monitor, accuracy


if __name__ == "__main__":
    main(*sys.argv[1:])

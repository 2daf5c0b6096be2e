"""Tanh networks across the edge of chaos: theory, measurement, and which ones learn.

    python examples/edge_of_chaos.py

The weight variance (fan_in times Var w) of 30 tanh layers goes from 0.25 to 16. Below 1 the
signal vanishes. Above 1 gradients explode, faster the larger the variance is (Poole et al.
2016), while the activations look healthy, because tanh never exceeds 1.
"""

import math
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from sklearn.datasets import load_digits

from activation_monitor import ActivationMonitor
from activation_monitor.analysis import theory

WIDTH, DEPTH = 128, 30


def network(weight_variance):
    """A network of thirty tanh layers with this weight variance."""
    layers = keras.layers
    hidden = [
        layers.Dense(
            WIDTH,
            activation="tanh",
            kernel_initializer=keras.initializers.VarianceScaling(weight_variance),
            name=f"hidden_{i}",
        )
        for i in range(DEPTH)
    ]
    head = layers.Dense(10, activation="softmax", name="digit")
    return keras.Sequential([keras.Input((64,)), *hidden, head], name="net")


def main(variances=(0.25, 0.5, 1.0, 1.5, 2.0, 4.0, 16.0)):
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x = ((x - x.mean()) / x.std()).astype("float32")
    print("weight    rms of the last layer    gradient    loss   the monitor says")
    print("variance  law          measured    per layer   after  at the first step")
    found = {}
    for variance in variances:
        model = network(variance)
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy"
        )
        monitor = ActivationMonitor(histograms=False, on_finding=lambda finding: None)
        history = model.fit(x, y, batch_size=64, epochs=10, verbose=0, callbacks=[monitor])

        q = theory.fixed_point("tanh", variance)
        law = math.sqrt(theory.second_moment("tanh", q))
        rate = math.sqrt(theory.chi_1("tanh", q, variance))
        measured = monitor.recording[0].statistic("rms")[-2]  # before the head
        loss = history.history["loss"][-1]
        codes = [finding.code for finding in monitor.diagnosis.findings]
        found[variance] = law, measured, rate, loss, codes
        print(
            f"{variance:8.3g}  {law:<11.3g}  {measured:<10.3g}  {rate:<10.3g}  {loss:5.2f}"
            f"   {', '.join(codes) or 'healthy'}"
        )
    print("\nA law of 0 is the limit of infinite depth. The loss of guessing is 2.30.")
    return found


if __name__ == "__main__":
    main()

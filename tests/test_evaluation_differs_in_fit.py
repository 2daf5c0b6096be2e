"""Training and evaluation that part, in `fit`: with real models and data."""

import keras
import numpy as np
import pytest

from activation_monitor import ActivationMonitor


def trained(layers, prepare=lambda x: x, epochs=4, **options):
    """The monitor, after `epochs` of 150 steps with validation."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).standard_normal((2600, 8), dtype="float32")
    y = x[:, :1] * x[:, 1:2]
    model = keras.Sequential([keras.Input((8,)), *layers()])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    monitor = ActivationMonitor(validation=True, **options)
    model.fit(
        *(x[:2400], y[:2400]),
        batch_size=16,
        epochs=epochs,
        validation_data=(prepare(x[2400:]), y[2400:]),
        verbose=0,
        callbacks=[monitor],
    )
    return monitor


class OnlyInTraining(keras.layers.Layer):
    """Divides by 10 in training: a fault that `training` makes easy."""

    def call(self, x, training=False):
        return x / 10.0 if training else x


def plain(*between):
    return lambda: [
        keras.layers.Dense(32, "relu"),
        *(layer() for layer in between),
        keras.layers.Dense(1),
    ]


def test_validation_data_that_are_prepared_in_another_way_are_found():
    """A warning names the input, with the ratio that float64 numpy has."""
    with pytest.warns(UserWarning, match="evaluation-differs"):
        monitor = trained(plain(), lambda x: x * 255)
    (finding,) = monitor.findings
    assert finding.layers == ("sequential/dense:input",) or ":input" in finding.layers[0]
    x = np.random.default_rng(0).standard_normal((2600, 8), dtype="float32")
    expected = 255 * np.sqrt(np.mean(x[2400:].astype(float) ** 2))
    np.testing.assert_allclose(finding.evidence["rms"], expected, rtol=1e-5)
    assert finding.fix.cause == "input scale"


def test_a_layer_that_differs_in_training_is_named():
    """And not the data."""
    with pytest.warns(UserWarning, match="evaluation-differs"):
        monitor = trained(plain(OnlyInTraining))
    (finding,) = monitor.findings
    assert "only_in_training" in finding.layers[0] and len(finding.layers) == 1
    assert finding.fix.cause == "not known"


BETWEEN = {
    "nothing": (),
    "dropout": (lambda: keras.layers.Dropout(0.5),),
    "noise": (lambda: keras.layers.GaussianNoise(1.0),),
    "batch normalization": (keras.layers.BatchNormalization,),
    "layer normalization": (keras.layers.LayerNormalization,),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_healthy_networks_behave_the_same_in_evaluation(name):
    """A warning would be an error."""
    monitor = trained(plain(*BETWEEN[name]))
    assert monitor.findings == ()
    assert len(monitor.validation_recording) == 4


def test_training_stops_when_evaluation_differs():
    """After the epoch; with patience, at a later evaluation."""
    for patience, epochs in ((0, 1), (1, 2)):
        with pytest.warns(UserWarning) as caught:
            monitor = trained(
                *(plain(OnlyInTraining), lambda x: x, 5),
                on_finding={"evaluation-differs": "stop"},
                patience=patience,
            )
        np.testing.assert_equal(len(monitor.validation_recording), epochs)
        assert "training stops" in str(caught[-1].message)

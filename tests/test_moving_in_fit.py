"""The moving statistics of a fit are compared with its batches, as float64 numpy does."""

import keras
import numpy as np
import pytest
from keras import layers

import models
from activation_monitor import read_recording
from activation_monitor.analysis import moving

RNG = np.random.default_rng(0)
X = (2 * RNG.standard_normal((96, 6)) + np.arange(6)).astype(np.float32)
Y = RNG.standard_normal((96, 1)).astype(np.float32)


def network(rate=0.0, options=None, compiled=None):
    """Normalizes its input, and that once more, and has a head."""
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.BatchNormalization(name="norm", **(options or {})),
            layers.Dense(8, "relu", name="hidden"),
            layers.Dense(1, name="head"),
        ],
        name="net",
    )
    model.compile(keras.optimizers.SGD(rate), "mse", **(compiled or {}))
    return model


def fit(model, epochs, x=X, y=Y, batch_size=16, **options):
    return models.fit_in_order(model, x, y, batch_size, epochs, **options)


def replayed(batches, momentum, epsilon=1e-3):
    """Shift and scale of each step and channel, by the updates that Keras documents."""
    mean, variance = np.zeros(6), np.ones(6)
    for batch in np.float64(batches):
        m, v = batch.mean(axis=0), batch.var(axis=0)
        shift = (m - mean) / np.sqrt(variance + epsilon)
        scale = np.log10((v + epsilon) / (variance + epsilon)) / 2
        yield shift, scale
        mean = momentum * mean + (1 - momentum) * m
        variance = momentum * variance + (1 - momentum) * v


@pytest.mark.parametrize(
    "compiled",
    [
        {},
        {"run_eagerly": True},
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
    ],
)
def test_the_deviations_are_those_of_numpy(compiled, tmp_path):
    """With a momentum of 0.5 each second step is kept; read from the log as well."""
    model = network(options={"momentum": 0.5}, compiled=compiled)
    monitor = fit(model, 1, log_dir=tmp_path)
    steps = [*replayed(X.reshape(6, 16, 6), 0.5)]
    for recording in (monitor.recording, read_recording(tmp_path)):
        for i, snapshot in enumerate(recording):
            window = [*range(0, i + 1, 2)][-3:] + [i]
            common = []
            for part in range(2):
                stacked = np.stack([steps[k][part] for k in window])
                same = (np.sign(stacked) == np.sign(stacked[0])).all(axis=0)
                least = np.abs(stacked).min(axis=0) * np.sign(stacked[0])
                common.append(np.where(same, least, 0.0))
            row = snapshot.names.index("net/norm")
            expected = [0.5, len(window) - 1]
            expected += [np.median(np.abs(common[0])), np.median(common[1]), np.nan]
            np.testing.assert_allclose(snapshot.moving[row], expected, rtol=2e-4, atol=2e-5)
            assert np.isnan(np.delete(snapshot.moving, row, axis=0)).all()


def test_steps_that_run_together_count_as_so_many_updates():
    """Two equal batches give the deviation of one."""
    batch = np.concatenate([X[:16], X[:16]])
    model = network(compiled={"steps_per_execution": 2})
    monitor = fit(model, 1, batch, Y[:32])
    (shift, scale), *_ = replayed([X[:16]], 0.99)
    row = monitor.recording[0].names.index("net/norm")
    np.testing.assert_allclose(
        monitor.recording[0].moving[row, 2:4],
        [np.median(np.abs(shift)), np.median(scale)],
        rtol=1e-3,
    )


def test_a_layer_that_is_called_twice_has_two_updates():
    """Both calls get the same input, so the deviation is that of one."""
    inputs = keras.Input((6,))
    shared = layers.BatchNormalization(name="norm")
    outputs = layers.Dense(1)(layers.Add()([shared(inputs), shared(inputs)]))
    model = keras.Model(inputs, outputs, name="net")
    model.compile(keras.optimizers.SGD(0.0), "mse")
    monitor = fit(model, 1, X[:16], Y[:16])
    (shift, scale), *_ = replayed([X[:16]], 0.99)
    found = monitor.recording[0]
    rows = [i for i, layer in enumerate(found.layers) if layer.kind == "normalization"]
    assert len(rows) == 2
    for row in rows:
        np.testing.assert_allclose(
            found.moving[row, 2:4],
            [np.median(np.abs(shift)), np.median(scale)],
            rtol=1e-3,
        )


def test_a_frozen_layer_is_compared_with_what_its_statistics_promise():
    """Its inputs have ten times the std that the statistics say."""
    model = network(options={"trainable": False})
    std = X.std(axis=0) / 10
    norm = model.get_layer("norm")
    norm.moving_mean.assign(X.mean(axis=0))
    norm.moving_variance.assign(std**2)
    monitor = fit(model, 1, batch_size=96, x=X, y=Y)
    row = monitor.recording[0].names.index("net/norm")
    found = dict(zip(moving.FIELDS, monitor.recording[0].moving[row], strict=True))
    np.testing.assert_allclose(found["misfit"], 1.0, atol=0.02)
    np.testing.assert_equal([found["shift"], found["scale"]], [np.nan] * 2)


# -- what is found


def drifting(momentum, steps, patience=20):
    """Inputs far from 0 with a std of 5, from which the statistics start at 0 and 1."""
    rng = np.random.default_rng(1)
    x = (8 + 5 * rng.standard_normal((64 * steps, 6))).astype(np.float32)
    model = network(1e-3, {"momentum": momentum})
    monitor = fit(
        *(model, 1, x, x[:, :1] / 8), batch_size=64, sample_every=patience, histograms=False
    )
    return model, monitor, x


def test_the_usual_momentum_settles():
    """It is far at the beginning and near at the end: no finding at any step."""
    _, monitor, _ = drifting(0.9, 160)
    first, last = (monitor.recording[i].of_moving("scale")[1] for i in (0, -1))
    assert first > 0.6 and abs(last) < 0.1
    assert monitor.diagnosis.findings == ()


def test_batches_of_one_kind_after_the_other_are_found_and_shuffled_ones_are_not():
    """Sorted data: each next stretch is far from what the statistics have followed."""
    rng = np.random.default_rng(2)
    ramp = np.repeat(np.linspace(0, 400, 160), 32)[:, None]  # 2.5 std at each step
    x = (ramp + rng.standard_normal((160 * 32, 6))).astype(np.float32)
    found = []
    for order in (np.arange(len(x)), rng.permutation(len(x))):
        monitor = fit(
            *(network(0.0, {"momentum": 0.9}), 1, x[order], x[:, :1] / 400),
            batch_size=32,
            sample_every=20,
            histograms=False,
        )
        found.append([finding.code for finding in monitor.diagnosis.findings])
    assert "moving-statistics" in found[0] and "moving-statistics" not in found[1]


def test_a_network_with_frozen_statistics_of_other_data_is_found():
    """And not with those of this data. The fix is the layer's, not the momentum's."""
    codes = []
    for size in (10.0, 1.0):
        model = network(1e-3, {"trainable": False})
        model.get_layer("norm").moving_mean.assign(X.mean(axis=0))
        model.get_layer("norm").moving_variance.assign((X.std(axis=0) / size) ** 2)
        monitor = fit(model, 3, batch_size=96)
        codes.append([finding.code for finding in monitor.diagnosis.findings])
    assert "moving-statistics" in codes[0]
    assert "moving-statistics" not in codes[1]

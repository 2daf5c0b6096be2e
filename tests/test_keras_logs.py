"""`ActivationMonitor(logs=...)`: numbers in the `logs` that later callbacks get."""

import csv
import math
import warnings

import keras
import numpy as np
import pytest

import models
from activation_monitor import ActivationMonitor
from activation_monitor.analysis import scalars

CHOSEN = ("growth", "gradient_rms_max", "update_ratio_max", "findings")


def fit(monitor, *others, epochs=2, before=(), **compile):
    """A fit of 5 steps an epoch; the model."""
    model, (x, y) = models.perceptron(), models.data()
    model.compile("sgd", "mse", **compile)
    callbacks = [*before, monitor, *others]
    model.fit(x, y, batch_size=8, epochs=epochs, verbose=0, callbacks=callbacks)
    return model


def numbers_at(monitor, step):
    """The chosen numbers of the last snapshot up to a step, from their own formulas."""
    last = [one for one in monitor.recording if one.step <= step][-1]
    update, weight = (last.statistic("rms", of) for of in ("weight_update", "weight"))
    gradient = last.statistic("rms", "output_gradient")
    first, *_, end = [
        rms
        for name, rms in zip(last.names, last.statistic("rms"), strict=True)
        if name in ("net/hidden_0", "net/hidden_1", "net/hidden_2")
    ]
    return {
        "growth": (end / first) ** (1 / 2),  # two layers lie between them
        "gradient_rms_max": np.nanmax(gradient),
        "update_ratio_max": np.nanmax(update / weight),
        "findings": 0.0,
    }


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([*found.values()], [expected[n] for n in found], rtol=1e-6)


def test_callbacks_that_come_later_get_the_numbers_of_the_last_sampled_step(tmp_path):
    """CSVLogger writes them as it writes the loss, in each epoch."""
    monitor = ActivationMonitor(logs=CHOSEN)
    file = tmp_path / "log.csv"
    model = fit(monitor, keras.callbacks.CSVLogger(file))
    with file.open() as opened:
        rows = [*csv.DictReader(opened)]
    assert [*rows[0]][:6] == ["epoch", *sorted(("loss", *CHOSEN))]
    for row, last_step in zip(rows, (4, 9), strict=True):
        expected = numbers_at(monitor, last_step)
        assert_close({name: float(row[name]) for name in CHOSEN}, expected)
    assert model.history.history["growth"] == [float(row["growth"]) for row in rows]


def test_each_batch_has_them_from_the_first_sampled_step_on():
    """NaN before it, so that the keys never change; then those of the last sampled step."""
    seen = []
    spy = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(dict(logs))
    )
    monitor = ActivationMonitor(sample_every=lambda step: step in (2, 4), logs=CHOSEN)
    fit(monitor, spy)
    assert monitor.recording.steps == [2, 4]
    assert all({*logs} == {"loss", *CHOSEN} for logs in seen) and len(seen) == 10
    assert all(math.isnan(logs[name]) for logs in seen[:2] for name in CHOSEN)
    for step in range(2, 10):
        expected = numbers_at(monitor, step)
        assert_close({name: seen[step][name] for name in CHOSEN}, expected)


def test_a_callback_that_comes_before_gets_none():
    """Keras calls callbacks in their order, with one dictionary."""
    seen = []
    spy = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(dict(logs))
    )
    fit(ActivationMonitor(logs="growth"), before=[spy])
    assert [[*logs] for logs in seen] == [["loss"], ["loss"]]


def test_early_stopping_stops_by_one_of_them():
    """`nonfinite_layers` stays 0, which is no improvement: the second epoch is the last."""
    stop = keras.callbacks.EarlyStopping("nonfinite_layers", mode="min", patience=1)
    model = fit(ActivationMonitor(logs="nonfinite_layers"), stop, epochs=5)
    assert model.history.history["nonfinite_layers"] == [0.0, 0.0]


def test_without_logs_early_stopping_does_not_know_them():
    """The test above can fail: training goes on, and Keras warns."""
    stop = keras.callbacks.EarlyStopping("nonfinite_layers", mode="min", patience=1)
    with pytest.warns(UserWarning, match="`nonfinite_layers` which is not available"):
        model = fit(ActivationMonitor(), stop, epochs=3)
    assert {*model.history.history} == {"loss"} and len(model.history.epoch) == 3


def test_the_learning_rate_falls_when_one_of_them_does_not():
    """ReduceLROnPlateau halves it after each epoch without improvement."""
    plateau = keras.callbacks.ReduceLROnPlateau(
        "findings", mode="min", patience=1, factor=0.5, verbose=0
    )
    model = fit(ActivationMonitor(logs="findings"), plateau, epochs=3)
    np.testing.assert_allclose(float(model.optimizer.learning_rate), 0.01 / 4)


def test_a_metric_of_the_same_name_stays():
    """The user's number has precedence; the monitor says so once."""

    def growth(y_true, y_pred):
        return keras.ops.full_like(y_true[:, 0], 42.0)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = fit(ActivationMonitor(logs=("growth", "findings")), metrics=[growth])
    assert model.history.history["growth"] == [42.0, 42.0]
    assert model.history.history["findings"] == [0.0, 0.0]
    (told,) = [str(w.message) for w in caught if "ActivationMonitor" in str(w.message)]
    assert "`logs` have 'growth' already" in told


def test_validation_and_its_metrics_stay_as_they_are():
    """The numbers of training are beside `val_loss`; `evaluate` returns none of them."""
    model, (x, y) = models.perceptron(), models.data()
    model.compile("sgd", "mse", steps_per_execution=2)
    monitor = ActivationMonitor(logs=[*scalars.OF_NETWORK], validation=True)
    options = {"batch_size": 8, "verbose": 0, "callbacks": [monitor]}
    fitted = model.fit(x, y, validation_data=(x, y), **options)
    assert {*fitted.history} == {"loss", "val_loss", *scalars.OF_NETWORK}
    found = model.evaluate(x, y, verbose=0, callbacks=[monitor], return_dict=True)
    assert {*found} == {"loss"}


@pytest.mark.filterwarnings("always")
def test_a_number_that_cannot_be_computed_does_not_end_training(monkeypatch):
    """It is NaN, and the monitor says so once."""

    def broken(known):
        raise ZeroDivisionError("not this one")

    monkeypatch.setitem(scalars.OF_NETWORK, "growth", broken)
    with pytest.warns(UserWarning, match="`logs` have no numbers of the monitor.*not this"):
        model = fit(ActivationMonitor(logs="growth"))
    assert np.isnan(model.history.history["growth"]).tolist() == [True, True]

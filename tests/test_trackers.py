"""Numbers that go to other trackers: functions, MLflow, Weights & Biases."""

import json
import math
import struct
import sys
import warnings

import keras
import numpy as np
import pytest

import models
from activation_monitor import ActivationMonitor, UnhealthyModelError
from activation_monitor.analysis import scalars
from activation_monitor.analysis.records import OUTPUT_GRADIENT
from activation_monitor.views import trackers


class Kept:
    """A tracker that keeps what it gets."""

    def __init__(self):
        self.steps = {}

    def __call__(self, numbers, step):
        self.steps[step] = numbers


def watch(monitor, **options):
    """Fit a network, whose names of layers have `:` and `/`; returns our warnings."""
    model = options.pop("model", None) or models.perceptron(depth=3)
    _, told = models.watch(model, *models.data(), monitor=monitor, **options)
    return told


def expected_of(snapshot):
    """Each scalar of each layer, from the statistics of the snapshot."""
    found = {}
    for scalar, statistic, quantity in (
        ("activation_mean", "mean", "output"),
        ("activation_std", "std", "output"),
        ("gradient_rms", "rms", OUTPUT_GRADIENT),
    ):
        values = snapshot.statistic(statistic, quantity)
        for i, name in enumerate(snapshot.names):
            if snapshot.field("count", quantity)[i]:
                found[f"{scalar}/{i:03d}_{name}"] = values[i]
    update, weight = (snapshot.statistic("rms", of) for of in ("weight_update", "weight"))
    for i, name in enumerate(snapshot.names):
        if snapshot.field("count", "weight")[i]:
            found[f"update_ratio/{i:03d}_{name}"] = update[i] / weight[i]
    return found


# -- any function


def test_a_function_gets_the_numbers_of_each_sampled_step():
    """Those of the layers are the statistics; those of the network have their names."""
    kept = Kept()
    monitor = ActivationMonitor(trackers=kept)
    assert watch(monitor) == []
    assert [*kept.steps] == monitor.recording.steps == [0, 1, 2]
    for snapshot in monitor.recording:
        numbers = kept.steps[snapshot.step]
        expected = expected_of(snapshot)
        of_layers = [name for name in numbers if "/0" in name]
        assert of_layers == [*expected]
        np.testing.assert_allclose(
            [numbers[name] for name in expected], [*expected.values()], rtol=1e-12
        )
        others = {*numbers} - {*expected}
        assert "activation_monitor/growth" in others
        assert all(name.split("/")[1] in scalars.OF_NETWORK for name in others)
        assert all(type(number) is float for number in numbers.values())


def test_several_trackers_get_the_same_and_cannot_change_it_for_each_other():
    """Each gets a dictionary of its own."""
    first, second = Kept(), Kept()

    def spoil(numbers, step):
        numbers.clear()

    watch(ActivationMonitor(trackers=[first, spoil, second]))
    assert first.steps == second.steps and all(first.steps.values())
    first.steps[0].clear()
    assert second.steps[0]


def test_without_scalars_a_tracker_gets_the_numbers_of_the_network_only():
    """As TensorBoard, which gets none of the layers either."""
    kept = Kept()
    watch(ActivationMonitor(trackers=kept, scalars=False))
    assert kept.steps[0]
    assert {name.split("/")[0] for name in kept.steps[0]} == {"activation_monitor"}


def test_evaluations_have_the_prefix_that_keras_gives_them():
    """At the step that training has reached; nothing is said on findings."""
    kept = []
    monitor = ActivationMonitor(
        validation=True, trackers=lambda numbers, step: kept.append((step, numbers))
    )
    model, (x, y) = models.perceptron(), models.data()
    model.compile("sgd", "mse")
    model.fit(x, y, verbose=0, validation_data=(x, y), callbacks=[monitor])
    (step, numbers) = kept[-1]
    (snapshot,) = monitor.validation_recording
    assert step == snapshot.step == 2
    assert all(name.startswith("val_activation_") for name in numbers)
    assert "val_activation_monitor/findings" not in numbers
    np.testing.assert_allclose(
        numbers["val_activation_std/004_net/head"], snapshot.statistic("std")[4]
    )


def test_the_number_of_findings_is_that_of_the_step():
    """A network that vanishes has one at step 0; its healthy twin has none."""
    for initializer, expected in (("random_normal", 1.0), ("he_normal", 0.0)):
        kept = Kept()
        monitor = ActivationMonitor(trackers=kept, on_finding=lambda finding: None)
        watch(monitor, model=models.perceptron(12, 64, initializer=initializer))
        assert kept.steps[0]["activation_monitor/critical_findings"] == expected


def test_trackers_get_the_step_that_raises():
    """Numbers go out before anything is done about a finding."""
    kept = Kept()
    monitor = ActivationMonitor(trackers=kept, on_finding="raise")
    model, (x, y) = models.perceptron(12, 64, initializer="random_normal"), models.data()
    model.compile("sgd", "mse")
    with pytest.raises(UnhealthyModelError):
        model.fit(x, y, verbose=0, callbacks=[monitor])
    assert [*kept.steps] == [0]


def test_a_custom_loop_is_tracked_as_well():
    """With the steps that `watch` counts."""
    kept = Kept()
    monitor = ActivationMonitor(trackers=kept)
    model, (x, y) = models.perceptron(), models.data()
    optimizer = keras.optimizers.SGD(0.01)

    def step(x, y):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = keras.ops.mean((model(x, training=True) - y) ** 2)
        optimizer.apply(
            tape.gradient(loss, model.trainable_weights), model.trainable_weights
        )
        return loss

    model(x)
    watched = monitor.watch(step, model)
    for _ in range(3):
        watched(x, y)
    assert [*kept.steps] == monitor.recording.steps == [0, 1, 2]


# -- what must not happen


class Failing:
    """A tracker that fails from its second call on, differently each time."""

    calls = 0

    def __call__(self, numbers, step):
        self.calls += 1
        if self.calls > 1:
            raise ConnectionError(f"no answer to call {self.calls}")


def test_a_tracker_that_fails_is_told_once_and_training_goes_on():
    """It gets no more numbers in this `fit`; the other tracker and the log get all."""
    failing, kept = Failing(), Kept()
    monitor = ActivationMonitor(trackers=[failing, kept], sample_every=1)
    (told,) = watch(monitor)
    assert "logging with Failing has ended, training goes on" in told
    assert "ConnectionError: no answer to call 2" in told
    assert failing.calls == 2
    assert [*kept.steps] == monitor.recording.steps == [0, 1, 2, 3, 4]


def test_evaluations_do_not_try_it_again():
    """A tracker that waits for a server in vain would do so in each epoch."""
    failing = Failing()
    model, (x, y) = models.perceptron(), models.data()
    model.compile("sgd", "mse")
    monitor = ActivationMonitor(trackers=failing, validation=True)
    with pytest.warns(UserWarning, match="logging with Failing has ended") as told:
        model.fit(*(x, y), epochs=3, verbose=0, validation_data=(x, y), callbacks=[monitor])
    assert len(monitor.validation_recording) == 3
    assert (failing.calls, len(told)) == (2, 1)


def test_the_next_fit_tries_a_tracker_again():
    """For example, because a run of the tracker is active then."""
    failing = Failing()
    monitor, model = ActivationMonitor(trackers=failing), models.perceptron()
    watch(monitor, model=model)
    failing.calls = -100
    assert watch(monitor, model=model) == []
    assert failing.calls > -100


def test_training_is_bit_identical_with_trackers():
    """Weights and losses, also with one that fails."""
    found = []
    for options in (None, {"trackers": [Kept(), Failing()], "logs": "growth"}):
        keras.utils.set_random_seed(1)
        model, (x, y) = models.perceptron(), models.data()
        model.compile("adam", "mse")
        callbacks = [] if options is None else [ActivationMonitor(**options)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            history = model.fit(x, y, epochs=2, verbose=0, callbacks=callbacks)
        found.append((history.history["loss"], model.get_weights()))
    (losses, weights), (same_losses, same_weights) = found
    assert losses == same_losses
    for ours, theirs in zip(weights, same_weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("given", "error"), [("tensorboard", ValueError), (3, TypeError), ([None], TypeError)]
)
def test_what_is_no_tracker_is_an_error_before_training(given, error):
    """The message says what there is and what came."""
    with pytest.raises(error, match="'mlflow', 'wandb', a function") as raised:
        ActivationMonitor(trackers=given)
    assert "Received: trackers=" in str(raised.value)


@pytest.mark.parametrize("name", trackers.NAMED)
def test_a_library_that_is_missing_is_an_error_before_training(name, monkeypatch):
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f'trackers="{name}".*`pip install {name}`'):
        ActivationMonitor(trackers=name)


# -- MLflow, with its local store


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    yield mlflow
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(before)


def test_mlflow_returns_what_was_logged(mlflow):
    """A run of its local store has all numbers at all steps, beside those of the user."""
    kept = Kept()
    monitor = ActivationMonitor(trackers=["mlflow", kept])
    with mlflow.start_run() as run:
        mlflow.log_metric("loss", 0.5, step=7)
        assert watch(monitor) == []
    client = mlflow.MlflowClient()
    names = {*client.get_run(run.info.run_id).data.metrics} - {"loss"}
    assert names == {name.replace(":", "_") for name in kept.steps[0]}
    for name in kept.steps[0]:
        history = client.get_metric_history(run.info.run_id, name.replace(":", "_"))
        found = {one.step: one.value for one in history}
        assert found == {step: numbers[name] for step, numbers in kept.steps.items()}


def test_mlflow_takes_nan_and_more_metrics_than_it_takes_at_once(mlflow):
    """More than 1000 numbers; NaN stays NaN."""
    log = trackers.NAMED["mlflow"]()
    numbers = {f"activation_std/{i:03d}_net/layer_{i}": i / 7 for i in range(1203)}
    with mlflow.start_run() as run:
        log(numbers | {"bad": math.nan}, 3)
    found = mlflow.MlflowClient().get_run(run.info.run_id).data.metrics
    assert math.isnan(found.pop("bad"))
    assert found == numbers


def test_mlflow_without_a_run_says_what_to_do_and_starts_none(mlflow):
    """Training goes on."""
    (told,) = watch(ActivationMonitor(trackers="mlflow"))
    assert "logging with mlflow has ended" in told
    assert "Call `mlflow.start_run()` before `fit`" in told
    assert mlflow.active_run() is None
    assert mlflow.search_runs(output_format="list") == []


# -- Weights & Biases, offline


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    yield wandb
    if wandb.run is not None:
        wandb.finish()


def records_of(path):
    """The messages of a run's file, which is in the format of LevelDB's logs."""
    from wandb.proto import wandb_internal_pb2

    content, start, message = path.read_bytes(), 7, b""
    while start < len(content):
        left = 32768 - start % 32768
        if left < 7:  # a record does not begin at the end of a block
            start += left
            continue
        _, length, part = struct.unpack("<IHB", content[start : start + 7])
        message += content[start + 7 : start + 7 + length]
        start += 7 + length
        if part in (1, 4):  # the whole record, or its last part
            yield wandb_internal_pb2.Record.FromString(message)
            message = b""


def history_of(records):
    for record in records:
        if record.HasField("history"):
            yield {
                "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                for item in record.history.item
            }


def test_wandb_has_what_was_logged(wandb, tmp_path):
    """The file of an offline run has all numbers at all steps; the groups have our step as
    their axis. The user's own numbers are not disturbed."""
    kept = Kept()
    monitor = ActivationMonitor(trackers=["wandb", kept])
    run = wandb.init(project="test")
    run.log({"mine": 1.0})
    assert watch(monitor) == []
    run.log({"mine": 2.0})
    last = kept.steps[2]
    assert {name: run.summary[name] for name in last} == last
    run.finish()
    wandb.teardown()  # waits until the file is complete
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    found = [*records_of(path)]
    rows = [*history_of(found)]
    ours = [row for row in rows if "activation_monitor/step" in row]
    by_step = {
        row["activation_monitor/step"]: {name: row[name] for name in kept.steps[0]}
        for row in ours
    }
    assert by_step == kept.steps
    assert [row["mine"] for row in rows if "mine" in row] == [1.0, 2.0]
    axes = {
        record.metric.glob_name: record.metric.step_metric
        for record in found
        if record.HasField("metric") and record.metric.glob_name
    }
    groups = {f"{name.split('/')[0]}/*" for name in kept.steps[0]}
    assert groups <= axes.keys()
    assert {axes[group] for group in groups} == {"activation_monitor/step"}


def test_wandb_without_a_run_says_what_to_do(wandb):
    """Training goes on. A run that is active at the next `fit` gets the numbers."""
    monitor, model = ActivationMonitor(trackers="wandb"), models.perceptron()
    (told,) = watch(monitor, model=model)
    assert "logging with wandb has ended" in told and "Call `wandb.init()`" in told
    run = wandb.init(project="test")
    assert watch(monitor, model=model) == []
    assert "activation_monitor/growth" in run.summary.keys()

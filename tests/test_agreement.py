"""Live, read again, in the report, as JSON and in the tab: one verdict of every run."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import board
import models
from activation_monitor import ActivationMonitor, cli, diagnose, read_recording
from activation_monitor.analysis.update_ratio import update_ratio

X, Y = models.data(64)


def fit(folder, model=None, callbacks=(), **options):
    """Fit for five epochs of two steps with a monitor and validation."""
    monitor = ActivationMonitor(
        folder / "run", sample_every=1, validation=True, on_finding=lambda finding: None
    )
    model = model or models.perceptron(6)
    model.compile("sgd", "mse")
    data = {"x": X, "y": Y, "batch_size": 32, "epochs": 5, "validation_data": (X, Y)}
    model.fit(**data | options, verbose=0, callbacks=[monitor, *callbacks])
    return monitor


def killed(folder):
    """A fit in which ReLU layers die one after the other, from the second step on."""
    model = models.perceptron(6)

    def kill(batch, logs):
        step = int(model.optimizer.iterations)
        if step % 2 == 0 and step < 8:
            layer = model.get_layer(f"hidden_{5 - step // 2}")
            layer.bias.assign(np.full(layer.units, -1e3, np.float32))

    return fit(folder, model, [keras.callbacks.LambdaCallback(on_train_batch_end=kill)])


def watched(folder):
    """A custom training loop of a network whose signal explodes."""
    model = models.perceptron(6, initializer=keras.initializers.RandomNormal(stddev=2.0))
    monitor = ActivationMonitor(folder / "run", 1, on_finding=lambda finding: None)
    step = monitor.watch(tf.function(lambda x: model(x, training=True)), model)
    for _ in range(3):
        step(X)
    return monitor


def vanishing(folder):
    drawn_by = keras.initializers.RandomNormal(stddev=0.01)
    return fit(folder, models.perceptron(6, initializer=drawn_by))


def unlike_training(folder):
    """A fit in which the validation data are 100 times as large as those of training."""
    return fit(folder, epochs=20, validation_data=(X * 100, Y))


RUNS = {
    "healthy": (fit, "healthy", {}),
    "vanishing": (vanishing, "findings", {"vanishing-activations": 0}),
    "dying": (killed, "findings", {"dead-units": 9}),
    "evaluation": (unlike_training, "findings", {"evaluation-differs": 40}),
    "one layer": (lambda f: fit(f, models.perceptron(1)), "not assessed", {}),
    "watched": (watched, "findings", {"exploding-activations": 0}),
}


@pytest.mark.parametrize("name", RUNS)
def test_every_reader_says_the_same_of_a_run(name, tmp_path, capsys):
    """Verdict, codes, layers, first and last step."""
    make, verdict, last_steps = RUNS[name]
    monitor = make(tmp_path)
    live = monitor.diagnosis
    assert live.verdict == verdict
    assert {f.code: f.last_step or f.step for f in live.findings} == last_steps
    codes = [finding.code for finding in live.findings]

    for what in (monitor, monitor.recording, tmp_path / "run"):
        again = diagnose(what)
        assert again.verdict == verdict and again.findings == live.findings
    read = read_recording(tmp_path / "run")
    assert read.steps == list(live.steps)
    for ours, theirs in zip(monitor.recording, read, strict=True):
        assert ours.quantities.keys() == theirs.quantities.keys()
        for of, array in ours.quantities.items():
            np.testing.assert_array_equal(theirs.quantities[of], array, of)
        np.testing.assert_array_equal(update_ratio(theirs), update_ratio(ours))
        np.testing.assert_array_equal(theirs.loss, ours.loss)

    capsys.readouterr()
    assert cli.main(["report", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["runs"]) == {"run"}  # none of evaluations
    assert report["runs"]["run"]["verdict"] == verdict
    as_data = json.loads(json.dumps([finding.to_dict() for finding in live.findings]))
    assert report["runs"]["run"]["findings"] == as_data
    assert report["runs"]["run"]["worst_layer"] == live.worst_layer
    page = tmp_path / "report.html"
    assert cli.main(["report", str(tmp_path), "-o", str(page)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    words = f"findings: {', '.join(codes)}" if codes else verdict
    assert line == f"run: {words}"

    client = board.Client(tmp_path)
    client.wait_for("run/activations", step=live.steps[-1])
    if len(evaluations := monitor.validation_recording):
        client.wait_for("run/activations_validation", step=evaluations.steps[-1])
    shown = client.json("run", run="run/activations")
    assert shown["verdict"] == verdict
    for one in shown["findings"]:
        for only_there in ("shown_by", "in_words", "worst_layer"):
            one.pop(only_there)
    assert shown["findings"] == as_data
    assert shown["worst_layer"] == live.worst_layer

    if len(evaluations):
        assert diagnose(evaluations).findings == ()
        shown = client.json("run", run="run/activations_validation")
        assert (shown["verdict"], shown["evaluation"]) == ("not assessed", True)
        assert shown["findings"] == []


def test_a_finding_that_spreads_is_told_a_few_times(tmp_path):
    """Four layers die in turn. The finding is reported when it begins, when it doubles, and
    when it becomes critical."""
    told = []
    model = models.perceptron(6)
    model.compile("sgd", "mse")

    def kill(batch, logs):
        step = int(model.optimizer.iterations)
        if step < 5:
            layer = model.get_layer(f"hidden_{6 - step}")
            # Nine in ten and a little more, of 16 units.
            layer.bias.assign(np.where(np.arange(16) < 15, -1e3, 1.0).astype(np.float32))

    monitor = ActivationMonitor(sample_every=1, on_finding=told.append)
    killer = keras.callbacks.LambdaCallback(on_train_batch_end=kill)
    model.fit(X, Y, batch_size=16, epochs=3, verbose=0, callbacks=[monitor, killer])
    assert [finding.code for finding in told] == ["dead-units"] * len(told)
    assert [(len(finding.layers), finding.severity) for finding in told] == [
        (1, "warning"),
        (2, "warning"),
        (3, "critical"),  # half of the six
    ]
    (finding,) = monitor.diagnosis.findings
    assert finding.layers == tuple(f"net/hidden_{i}" for i in range(2, 6))
    assert finding.last_step == monitor.diagnosis.steps[-1]
    assert finding.fix.cause == "learning rate"

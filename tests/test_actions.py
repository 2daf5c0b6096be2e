"""What happens when something is found: warn, stop, raise, or a function."""

import dataclasses
import inspect
import pickle
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

import models
from activation_monitor import (
    ActivationMonitor,
    UnhealthyModelError,
    diagnose,
    read_recording,
)
from activation_monitor.actions import NAMES, Actions, Seen, check_actions, decide
from activation_monitor.analysis.findings import Finding
from activation_monitor.storage.log_format import FINDINGS_TAG

X, Y = models.data()  # five batches of 8


def exploding():
    """Its finding comes at the first step."""
    draw = keras.initializers.RandomNormal(stddev=1.0)
    return models.perceptron(20, 64, initializer=draw)


def nan_in_batch(batch, array=X):
    """Data with NaN in one batch of 8."""
    array = array.copy()
    array[8 * batch :][:8] = np.nan
    return array


def fit(model, monitor, x=X, y=Y, before=(), after=()):
    """Fit in the order of the data, at a rate that changes little; our warnings."""
    if not model.compiled:
        model.compile(keras.optimizers.SGD(1e-3), "mse")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(
            *(x, y),
            batch_size=8,
            shuffle=False,
            verbose=0,
            callbacks=[*before, monitor, *after],
        )
    return [str(w.message) for w in caught if "ActivationMonitor" in str(w.message)]


def around(callback, first):
    """Another callback before the monitor or after it, as arguments of `fit`."""
    return ([callback], []) if first else ([], [callback])


def last_verdict(log_dir):
    """The diagnosis that TensorBoard shows, with the step."""
    events = EventAccumulator(str(log_dir / "activations")).Reload()
    last = events.Tensors(FINDINGS_TAG)[-1]
    return tensor_util.make_ndarray(last.tensor_proto).item().decode(), last.step


# -- which action, and when


def finding(code="dead-units", severity="warning", step=0, **more):
    return Finding(code, severity, step, ("a",), {}, "Found.", **more)


def done(seen, on_finding="stop", patience=0, code="dead-units"):
    """What is done at each step about one finding.

    Args:
        seen: A character for each sampled step: "." it is not seen; "w" or "c" it is seen,
            as a warning or critical; "r" it is reported, but not seen.
        on_finding, patience: The arguments of the monitor.
        code: That of the finding.
    """
    actions, state, known, steps = check_actions(on_finding, patience, "f"), Seen(), (), []
    for step, char in enumerate(seen):
        before = known
        severity = {"w": "warning", "c": "critical"}.get(char)
        if severity and not known:
            known = (finding(code, severity, step),)
        elif severity:
            known = (dataclasses.replace(known[0], severity=severity, last_step=step),)
        grown = [f.severity for f in known] != [f.severity for f in before]
        news = known if grown or char == "r" else ()
        state, due = decide(actions, state, known, news)
        steps += [(step, action) for action, _ in due]
    return steps


@pytest.mark.parametrize("action", ["stop", "raise"])
def test_without_patience_it_acts_when_first_seen_and_when_grown(action):
    """Not at the steps in between, at which it is seen as well."""
    assert done(".ww.wcc", action) == [(1, action), (5, action)]
    assert done(".....", action) == []


def test_patience_counts_further_sampled_steps_in_a_row():
    """Until then it warns, once. A step at which it is not seen starts the count again."""
    assert done(".wwww", patience=2) == [(1, "warn"), (3, "stop")]
    assert done(".ww.ww.w", patience=2) == [(1, "warn")]
    assert done(".ww.wwwww", patience=2) == [(1, "warn"), (6, "stop")]
    assert done(".wwwwwcc", patience=2) == [(1, "warn"), (3, "stop"), (6, "stop")]


def test_what_grows_while_it_waits_warns_again():
    """And is acted on when the patience is at its end."""
    assert done(".wcc", patience=2) == [(1, "warn"), (2, "warn"), (3, "stop")]


def test_a_finding_of_the_first_step_does_not_wait():
    """Most rules judge only that step: it would never be seen again."""
    assert done("c.....", patience=2) == [(0, "stop")]
    assert done(".c....", patience=2) == [(1, "warn")]


def test_patience_changes_nothing_for_warnings():
    """They come at once."""
    for patience in (0, 3):
        assert done(".ww.wcc", "warn", patience) == [(1, "warn"), (5, "warn")]


def test_what_is_reported_without_being_seen_neither_stops_nor_raises():
    """For example that a finding has recovered. A function receives it."""
    assert done(".w.r", {"critical": "stop"}) == [(1, "warn"), (3, "warn")]
    assert done(".w.r", "stop") == [(1, "stop"), (3, "warn")]
    assert done(".w.r", "raise") == [(1, "raise"), (3, "warn")]
    assert done(".w.r", print) == [(1, print), (3, print)]
    # It was warned of before, so this is a warning too.
    assert done(".w.r", print, patience=2) == [(1, "warn"), (3, "warn")]


def test_a_severity_acts_on_those_above_it_too():
    """Below it, findings warn."""
    assert done(".w.c", {"critical": "stop"}) == [(1, "warn"), (3, "stop")]
    assert done(".w.c", {"warning": "stop"}) == [(1, "stop"), (3, "stop")]
    both = {"warning": print, "critical": "raise"}
    assert done(".w.c", both) == [(1, print), (3, "raise")]
    assert done(".w.c", {}) == [(1, "warn"), (3, "warn")]


def test_a_code_has_precedence_over_a_severity():
    """Also if its action is the milder one."""
    by = {"critical": "raise", "dead-units": "stop"}
    assert done(".w.c", by) == [(1, "stop"), (3, "stop")]
    assert done(".c", by, code="outlier-gain") == [(1, "raise")]
    assert done(".c", {"critical": "raise", "dead-units": "warn"}) == [(1, "warn")]


def test_a_severity_that_rises_is_counted_from_when_it_was_first_seen():
    """Patience asks whether the finding stays, not how severe it was meanwhile."""
    assert done(".wwc", {"critical": "stop"}, patience=2) == [(1, "warn"), (3, "stop")]


def test_several_findings_have_counts_of_their_own():
    """And are acted on in the order in which they were first seen."""
    first, second = finding(step=1), finding("outlier-gain", step=2)
    actions, state = Actions({"warning": "stop"}, patience=1), Seen(steps=1)
    state, due = decide(actions, state, [first], [first])
    assert due == [("warn", first)]
    first = dataclasses.replace(first, last_step=2)
    state, due = decide(actions, state, [first, second], [second])
    assert due == [("stop", first), ("warn", second)]


@pytest.mark.parametrize(
    ("on_finding", "patience", "message"),
    [
        ("shout", 0, "Received: on_finding='shout'."),
        (None, 0, "Received: on_finding=None."),
        ({"critical": "shout"}, 0, "Received: on_finding={'critical': 'shout'}."),
        ({"critical": ["stop"]}, 0, "Received: on_finding={'critical': ['stop']}."),
        ({"fatal": "stop"}, 0, "Received: 'fatal'. Severities: warning, critical. Codes"),
        ({3: "stop"}, 0, "Received: 3. Severities: warning, critical. Codes: constant-"),
        ("stop", -1, "Received: patience=-1. Use 0 to act when"),
        ("stop", 1.5, "Received: patience=1.5."),
        ("stop", True, "Received: patience=True."),
        ("stop", "2", "Received: patience='2'."),
    ],
)
def test_wrong_actions_are_refused(on_finding, patience, message):
    """When the monitor is made, with what was received and what there is."""
    with pytest.raises(ValueError, match="^ActivationMonitor: ") as raised:
        ActivationMonitor(on_finding=on_finding, patience=patience)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "on_finding", [*NAMES, print, {}, {"critical": "stop", "dead-units": print}]
)
def test_right_actions_are_accepted(on_finding):
    """All of the documentation, and numpy's integers."""
    ActivationMonitor(on_finding=on_finding, patience=np.int64(2))


# -- in `fit`


def test_a_stop_is_announced_and_leaves_a_complete_log(tmp_path):
    """The warning says that training stops, at which step, and why."""
    monitor = ActivationMonitor(tmp_path, 1, on_finding={"critical": "stop"})
    model = exploding()
    (warned,) = fit(model, monitor)
    expected = "ActivationMonitor: training stops at step 0, due to exploding-activations"
    assert warned.startswith(expected)
    assert int(model.optimizer.iterations) == 1
    assert read_recording(tmp_path).steps == [0]
    verdict, step = last_verdict(tmp_path)
    assert "exploding-activations" in verdict and step == 0


def test_findings_below_the_severity_only_warn():
    """The healthy twin: all five steps run."""
    monitor = ActivationMonitor(sample_every=1, on_finding={"mean-shift": "stop"})
    model = exploding()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    (warned,) = fit(model, monitor)
    assert warned.startswith("ActivationMonitor: exploding-activations")
    assert int(model.optimizer.iterations) == 5


def test_patience_in_a_training_that_turns_nan():
    """NaN from step 1 on is seen at all steps after it: the third of them stops."""
    model = models.perceptron()
    monitor = ActivationMonitor(sample_every=1, on_finding="stop", patience=2)
    warned = fit(model, monitor, nan_in_batch(1))
    assert int(model.optimizer.iterations) == 4
    first, second = warned
    assert first.startswith("ActivationMonitor: nonfinite-activations (critical, in train")
    assert "training stops at step 3, due to nonfinite-activations" in second


def test_patience_does_not_delay_what_the_first_step_shows():
    """NaN in the first batch."""
    model = models.perceptron()
    monitor = ActivationMonitor(sample_every=1, on_finding="stop", patience=2)
    fit(model, monitor, nan_in_batch(0))
    assert int(model.optimizer.iterations) == 1


@pytest.mark.parametrize(("patience", "steps"), [(1, 5), (0, 2)])
def test_one_odd_batch_does_not_stop_a_patient_training(patience, steps):
    """NaN at one step only, as no weight is trained. Without patience it stops there."""
    model = models.perceptron()
    model.trainable = False
    monitor = ActivationMonitor(sample_every=1, on_finding="stop", patience=patience)
    reader = Reader(monitor)
    fit(model, monitor, nan_in_batch(1), after=[reader])
    assert [finding.code for finding in monitor.findings] == ["nonfinite-activations"]
    assert len(reader.read) == steps


def test_the_error_carries_the_finding_and_the_diagnosis(tmp_path):
    """It is a RuntimeError, and its message is the finding as printed."""
    model, monitor = exploding(), ActivationMonitor(tmp_path, on_finding="raise")
    with pytest.raises(UnhealthyModelError) as raised:
        fit(model, monitor)
    error = raised.value
    assert isinstance(error, RuntimeError)
    assert error.findings == monitor.findings == error.diagnosis.findings
    assert [f.code for f in error.findings] == ["exploding-activations"]
    assert str(error) == f"ActivationMonitor: {error.findings[0]}"
    assert diagnose(error) == error.diagnosis


def test_the_error_can_be_pickled(tmp_path):
    """Test runners and process pools send it to another process."""
    with pytest.raises(UnhealthyModelError) as raised:
        fit(exploding(), ActivationMonitor(on_finding="raise"))
    copy = pickle.loads(pickle.dumps(raised.value))
    assert str(copy) == str(raised.value)
    assert copy.findings == raised.value.findings
    assert copy.diagnosis.steps == raised.value.diagnosis.steps


def test_the_log_is_complete_before_the_error(tmp_path):
    """With the step, the verdict and the picture of the end, and the file is closed."""
    monitor = ActivationMonitor(tmp_path, 1, on_finding="raise")
    with pytest.raises(UnhealthyModelError):
        fit(models.perceptron(), monitor, x=nan_in_batch(3))
    assert read_recording(tmp_path).steps == [0, 1, 2, 3]
    verdict, step = last_verdict(tmp_path)
    assert "nonfinite-activations" in verdict and step == 3
    tags = EventAccumulator(str(tmp_path / "activations")).Reload().Tags()["tensors"]
    assert "activation_monitor/depth_by_step" in tags
    assert monitor._session.training._log is None


def test_after_the_error_the_model_trains_as_before(tmp_path):
    """It has its own training function, and the same monitor goes on in a new file."""
    model = models.perceptron()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(X, Y, verbose=0)
    plain = model.train_function
    monitor = ActivationMonitor(tmp_path, 1, on_finding="raise")
    with pytest.raises(UnhealthyModelError):
        fit(model, monitor, x=nan_in_batch(2))
    assert model.train_function is plain
    before = monitor.recording.steps
    assert before[-1] - before[0] == 2
    weights = [w * 0 + 0.1 for w in model.get_weights()]
    model.set_weights(weights)
    assert fit(model, monitor) == []
    assert len(monitor.recording.steps) == 3 + 5
    assert read_recording(tmp_path).steps == monitor.recording.steps


def test_all_findings_of_a_step_are_in_the_error():
    """Those that raise are its message; those that warn have warned before."""
    found = [finding(), finding("outlier-gain")]
    error = UnhealthyModelError(found, diagnose([]))
    assert str(error) == f"ActivationMonitor: {found[0]}\n\n{found[1]}"
    assert error.findings == tuple(found)


def test_a_function_that_raises_leaves_a_complete_log(tmp_path):
    """Its own error ends training."""

    class Mine(Exception):
        pass

    def refuse(finding):
        raise Mine(finding.code)

    monitor = ActivationMonitor(tmp_path, 1, on_finding=refuse)
    with pytest.raises(Mine, match="nonfinite-activations"):
        fit(models.perceptron(), monitor, x=nan_in_batch(3))
    assert read_recording(tmp_path).steps == [0, 1, 2, 3]
    assert last_verdict(tmp_path)[1] == 3


def test_a_function_finds_the_step_in_the_log(tmp_path):
    """What was found is on the disk before the function is called."""
    steps = []
    monitor = ActivationMonitor(
        tmp_path, 1, on_finding=lambda _: steps.append(read_recording(tmp_path).steps)
    )
    fit(models.perceptron(), monitor, x=nan_in_batch(3))
    assert steps == [[0, 1, 2, 3]]


# -- for other callbacks


class Reader(keras.callbacks.Callback):
    """Reads the findings after each batch."""

    def __init__(self, monitor):
        super().__init__()
        self.monitor = monitor
        self.read = []

    def on_train_batch_end(self, batch, logs=None):
        self.read.append([finding.code for finding in self.monitor.findings])


def nothing(finding):
    """For `on_finding`: neither warn nor act."""


@pytest.mark.parametrize(
    ("ignore", "found"),
    [((), ["nonfinite-activations"]), ("nonfinite-activations", [])],
)
@pytest.mark.parametrize("first", [True, False])
def test_other_callbacks_read_the_findings_of_the_same_batch(first, ignore, found):
    """Before or after the monitor in the list of callbacks; without ignored codes."""
    monitor = ActivationMonitor(sample_every=1, ignore=ignore, on_finding=nothing)
    reader = Reader(monitor)
    before, after = around(reader, first)
    assert monitor.findings == ()
    fit(models.perceptron(), monitor, nan_in_batch(3), before=before, after=after)
    assert reader.read == [[], [], [], found, found]
    assert monitor.findings == monitor.diagnosis.findings


# -- with TerminateOnNaN, which reads the loss: on some devices ReLU hides NaN from it


TERMINATE = keras.callbacks.TerminateOnNaN
CAN_RAISE = "raise_error" in inspect.signature(TERMINATE).parameters


@pytest.mark.parametrize("on_finding", ["warn", "stop"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("part", ["x", "y"])
def test_it_works_with_terminate_on_nan(tmp_path, part, first, on_finding):
    """In either order: training ends at the step of the NaN, and both say so."""
    model = models.perceptron(activation="tanh")
    monitor = ActivationMonitor(tmp_path, 1, on_finding=on_finding)
    before, after = around(TERMINATE(), first)
    bad = {part: nan_in_batch(3, {"x": X, "y": Y}[part])}
    warned = fit(model, monitor, **bad, before=before, after=after)
    code = {"x": "nonfinite-activations", "y": "nonfinite-loss"}[part]
    assert int(model.optimizer.iterations) == 4
    assert [(f.code, f.step) for f in monitor.diagnosis.findings] == [(code, 3)]
    assert len(warned) == 1
    assert ("training stops at step 3" in warned[0]) == (on_finding == "stop")
    assert read_recording(tmp_path).steps == [0, 1, 2, 3]
    verdict, step = last_verdict(tmp_path)
    assert code in verdict and step == 3
    assert diagnose(tmp_path).findings == monitor.findings


@pytest.mark.parametrize("first", [True, False])
def test_a_healthy_training_with_both_runs_to_its_end(first):
    """The healthy twin."""
    model, monitor = (
        models.perceptron(activation="tanh"),
        ActivationMonitor(on_finding="stop"),
    )
    before, after = around(TERMINATE(), first)
    assert fit(model, monitor, before=before, after=after) == []
    assert int(model.optimizer.iterations) == 5


@pytest.mark.skipif(not CAN_RAISE, reason="this version of Keras cannot")
@pytest.mark.parametrize("first", [True, False])
def test_what_was_found_is_in_the_log_when_keras_raises(tmp_path, first):
    """Keras then calls no `on_train_end`."""
    monitor = ActivationMonitor(tmp_path, 1)
    one = TERMINATE(raise_error=True)
    before, after = around(one, first)
    with pytest.raises(RuntimeError, match="NaN or Inf loss") as raised:
        fit(
            models.perceptron(activation="tanh"),
            monitor,
            nan_in_batch(3),
            before=before,
            after=after,
        )
    assert not isinstance(raised.value, UnhealthyModelError)
    assert [f.step for f in monitor.diagnosis.findings] == [3]
    assert read_recording(tmp_path).steps == [0, 1, 2, 3]
    assert "nonfinite-activations" in last_verdict(tmp_path)[0]


@pytest.mark.parametrize("first", [True, False])
def test_our_error_comes_before_that_of_keras(first):
    """A sampled step is judged before any callback is called."""
    monitor = ActivationMonitor(sample_every=1, on_finding="raise")
    before, after = around(TERMINATE(), first)
    with pytest.raises(UnhealthyModelError, match="nonfinite-activations"):
        fit(
            models.perceptron(activation="tanh"),
            monitor,
            nan_in_batch(3),
            before=before,
            after=after,
        )


# -- custom loops


@pytest.mark.parametrize("compiled", [True, False])
def test_a_watched_step_raises_and_the_loop_can_go_on(tmp_path, compiled):
    """The log is closed first; the next sampled step opens a new file beside it."""
    model, monitor = exploding(), ActivationMonitor(tmp_path, 1, on_finding="raise")

    def forward(x):
        return model(x)

    step = monitor.watch(tf.function(forward) if compiled else forward, model)
    with pytest.raises(UnhealthyModelError, match="exploding-activations"):
        step(X)
    assert monitor._session.training._log is None
    assert read_recording(tmp_path).steps == [0]
    step(X)
    step(X)
    assert read_recording(tmp_path).steps == monitor.recording.steps == [0, 1, 2]


def test_a_measured_block_raises_at_its_end(tmp_path):
    """After what is in it has run; a later block goes on."""
    model, monitor = exploding(), ActivationMonitor(tmp_path, on_finding="raise")
    outputs = []
    with pytest.raises(UnhealthyModelError, match="exploding-activations"):
        with monitor.measure_step(model):
            outputs.append(model(X))
    assert len(outputs) == 1
    assert read_recording(tmp_path).steps == [0]
    with monitor.measure_step(model):
        model(X)
    assert read_recording(tmp_path).steps == [0, 1]


def test_a_loop_cannot_be_stopped_by_a_dictionary_either():
    """Only the user can end a custom loop."""
    monitor = ActivationMonitor(on_finding={"critical": "stop"})
    with pytest.raises(ValueError, match='`on_finding` must not be "stop"'):
        monitor.watch(len, models.perceptron())
    with pytest.raises(ValueError, match='`on_finding` must not be "stop"'):
        with monitor.measure_step(models.perceptron()):
            pass
    monitor = ActivationMonitor(on_finding={"critical": "raise"})
    monitor.watch(len, models.perceptron())

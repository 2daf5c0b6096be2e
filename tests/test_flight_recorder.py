"""What is known of the step at which the loss became NaN, and of the steps before it."""

import math

import keras
import numpy as np
import pytest
from keras import layers

import models
from activation_monitor import ActivationMonitor, diagnose
from activation_monitor.analysis import records
from activation_monitor.recording.loss_watch import LossWatch

STEPS, BATCH = 48, 8
X, Y = models.data(samples=STEPS * BATCH)
BAD_STEP = 14
"""Not sampled by the schedule, which has 10 and 20."""

EMPTY = X.copy()
EMPTY[BAD_STEP * BATCH] = 0.0  # one sample of zeros: the square root has no derivative
MISSING = Y.copy()
MISSING[BAD_STEP * BATCH] = np.nan


class Length(layers.Layer):
    """The Euclidean norm, whose derivative at zero is NaN."""

    def call(self, x):
        return keras.ops.sqrt(keras.ops.sum(x * x, axis=-1, keepdims=True))


def network(length=True):
    keras.utils.set_random_seed(3)
    inner = [Length(name="length")] if length else []
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, "tanh", use_bias=False, name="features"),
            *inner,
            layers.Dense(1, name="head"),
        ],
        name="net",
    )


def fitted(x=X, y=Y, length=True, around=None, optimizer="adam", fit=None, **options):
    """A monitor after one epoch; `around` makes the callbacks from it."""
    model = network(length)
    model.compile(optimizer, "mse", **(fit or {}))
    monitor = ActivationMonitor(on_finding=lambda finding: None, **options)
    callbacks = around(monitor) if around else [monitor]
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=callbacks)
    return monitor, model


def at(monitor, step):
    """The snapshot of a step."""
    return monitor.recording[monitor.recording.steps.index(step)]


ORDERS = {
    "alone": lambda monitor: [monitor],
    "before it": lambda monitor: [keras.callbacks.TerminateOnNaN(), monitor],
    "after it": lambda monitor: [monitor, keras.callbacks.TerminateOnNaN()],
}


# -- the recorder


@pytest.mark.parametrize("order", ORDERS)
def test_the_step_that_makes_the_first_nan_is_found_beside_terminate_on_nan(order):
    """The gradient is NaN at one step, the loss at the next one."""
    monitor, _ = fitted(EMPTY, around=ORDERS[order], flight_recorder=4)
    (finding,) = monitor.findings
    assert (finding.code, finding.step) == ("nonfinite-gradients", BAD_STEP)
    assert finding.layers == ("net/features", "net/length")
    assert finding.fix.cause == "operation without a finite derivative"
    assert set(range(BAD_STEP - 2, BAD_STEP + 2)) <= set(monitor.recording.steps)


def test_kept_steps_have_the_records_of_sampled_ones():
    monitor, _ = fitted(EMPTY, flight_recorder=4)
    every, _ = fitted(EMPTY, sample_every=1)
    for step in range(BAD_STEP - 2, BAD_STEP + 1):
        kept = at(monitor, step)
        expected = at(every, step)
        np.testing.assert_equal(kept.loss, expected.loss)
        assert kept.names == expected.names
        for quantity in (records.OUTPUT, records.OUTPUT_GRADIENT):
            np.testing.assert_array_equal(
                kept.quantities[quantity], expected.quantities[quantity]
            )


def test_training_with_the_recorder_is_bit_identical():
    plain = network()
    plain.compile("adam", "mse")
    plain.fit(X, Y, batch_size=BATCH, shuffle=False, verbose=0)
    monitor, model = fitted(flight_recorder=4)
    np.testing.assert_equal(model.get_weights(), plain.get_weights())
    assert monitor.findings == ()
    assert monitor.recording.steps == [0, 1, 2, 5, 10, 20]


def test_executions_of_several_steps_are_kept_as_such():
    monitor, _ = fitted(EMPTY, flight_recorder=2, fit={"steps_per_execution": 4})
    (finding,) = monitor.findings
    # The last of them has NaN in its activations: the weights were broken by the third.
    assert (finding.code, finding.step) == ("nonfinite-activations", 12)
    assert at(monitor, 12).last_step == 15


def test_a_loss_of_nan_is_found_in_the_step_that_has_it():
    monitor, _ = fitted(y=MISSING, length=False, flight_recorder=4)
    (finding,) = monitor.findings
    assert (finding.code, finding.step) == ("nonfinite-loss", BAD_STEP)
    assert finding.layers == ("net/head",)
    assert finding.fix.cause == "loss or targets"
    assert f"At step {BAD_STEP - 1}, the last one measured before" in finding.message


# -- without it


@pytest.mark.parametrize("order", ORDERS)
def test_a_loss_of_nan_is_found_although_its_step_was_not_sampled(order):
    monitor, model = fitted(y=MISSING, length=False, around=ORDERS[order])
    finding = monitor.findings[0]
    assert (finding.code, finding.step) == ("nonfinite-loss", BAD_STEP)
    assert finding.layers == ("net/features", "net/head")
    assert finding.fix.cause == "data or loss"
    assert "flight_recorder=8" in str(finding.fix)
    assert "At step 10, the last one measured before" in finding.message
    assert f"the loss was {at(monitor, 10).loss:.3g}" in finding.message
    kernel = model.layers[0].kernel.numpy()
    np.testing.assert_equal(
        at(monitor, BAD_STEP).field("nonfinite", of=records.WEIGHT)[1],
        np.count_nonzero(~np.isfinite(kernel)),
    )
    assert monitor.diagnosis.last.step != BAD_STEP  # that snapshot has no outputs


def test_a_divergence_is_told_from_a_bad_batch():
    rate = keras.optimizers.SGD(3.0)
    for recorder in (0, 4):
        monitor, _ = fitted(length=False, optimizer=rate, flight_recorder=recorder)
        finding = monitor.findings[0]
        assert finding.fix.cause == "learning rate", finding
        rate = keras.optimizers.SGD(3.0)


def test_the_schedule_gets_denser_after_a_first_sign():
    """Ten steps, and not for a healthy run."""
    jump = Y.copy()
    jump[20 * BATCH :] += 1e3
    monitor, _ = fitted(y=jump, length=False)
    assert monitor.recording.steps == [0, 1, 2, 5, 10, *range(20, 31)]
    healthy, _ = fitted(length=False)
    assert healthy.recording.steps == [0, 1, 2, 5, 10, 20]


@pytest.mark.parametrize("recorder", [0, 4])
def test_the_log_shows_the_same_findings(recorder, tmp_path):
    monitor, _ = fitted(
        y=MISSING,
        length=False,
        around=ORDERS["after it"],
        log_dir=tmp_path,
        flight_recorder=recorder,
    )
    again = diagnose(tmp_path)
    assert again.findings == monitor.diagnosis.findings
    assert again.findings[0].step == BAD_STEP


def test_a_bad_length_is_refused():
    for bad in (-1, True, 2.5, "all"):
        with pytest.raises(ValueError, match="flight_recorder.*0 for none"):
            ActivationMonitor(flight_recorder=bad)


# -- the loss that `fit` reports


def signs(losses, together=1):
    """By execution, the sign, from the mean that Keras reports."""
    watch, found = LossWatch(), []
    for last in range(together, len(losses) + 1, together):
        found.append(watch.sign(float(np.mean(losses[:last])), last))
    return found


def test_a_jump_is_one_of_the_loss_of_a_step_and_not_of_the_mean():
    rng = np.random.default_rng(0)
    noise = np.exp(0.5 * rng.standard_normal(300))
    assert set(signs(noise)) == {""}
    jump = noise.copy()
    jump[200] = 100.0
    np.testing.assert_array_equal(np.flatnonzero(np.array(signs(jump)) == "jump"), [200])
    falling = 100 * 0.9 ** np.arange(100)
    assert set(signs(falling)) == {""}


def test_a_loss_of_nan_is_a_sign_once_until_it_is_finite_again():
    watch = LossWatch()
    means = [1.0, math.nan, math.nan]
    assert [watch.sign(m, n) for n, m in enumerate(means, 1)] == ["", "nonfinite", ""]
    assert [watch.sign(m, n) for n, m in enumerate(means, 1)] == ["", "nonfinite", ""]
    assert LossWatch().sign(math.inf, 1) == "nonfinite"


def test_what_is_no_number_is_no_loss():
    for nothing in (None, "loss", np.ones(2), {}):
        assert LossWatch().sign(nothing, 1) == ""

"""`assert_healthy`: a model's health as an assertion, with the findings as its message."""

import keras
import numpy as np
import pytest

import models
from activation_monitor import assert_healthy, audit

X, Y = models.data()


def test_a_healthy_model_passes():
    """With and without gradients, and with several initializations."""
    model = models.perceptron()
    assert_healthy(model, X)
    assert_healthy(model, X, seeds=2)
    model.compile("sgd", "mse")
    assert_healthy(model, X, Y)


def test_a_sick_model_fails_with_the_findings_as_printed():
    """They are the whole message."""
    model = models.perceptron(20, 64, initializer="random_normal")
    with pytest.raises(AssertionError) as raised:
        assert_healthy(model, X)
    (finding,) = audit(model, X).findings
    assert finding.code == "vanishing-activations"
    assert str(raised.value) == str(finding)


def test_two_findings_are_two_paragraphs():
    """In the order of the diagnosis."""
    model = models.perceptron(3, 64)
    model.compile("sgd", "mse")
    x, y = np.repeat(X[:1], len(X), axis=0), 1e6 * Y
    with pytest.raises(AssertionError) as raised:
        assert_healthy(model, x, y)
    first, second = audit(model, x, y).findings
    assert str(raised.value) == f"{first}\n\n{second}"
    with pytest.raises(AssertionError) as raised:
        assert_healthy(model, x, y, ignore=first.code)
    assert str(raised.value) == str(second)
    assert_healthy(model, x, y, ignore=[first.code, second.code])


def test_gradients_are_judged_if_there_are_targets():
    """The fault is in the targets alone: without them the model passes."""
    model = models.perceptron()
    model.compile("sgd", "mse")
    assert_healthy(model, X)
    with pytest.raises(AssertionError, match="^target-scale"):
        assert_healthy(model, X, 1e6 * Y)


def test_what_cannot_be_assessed_fails_unless_it_is_allowed():
    """As `Diagnosis.healthy`, which is False: a test must not pass for no reason."""
    model = models.perceptron()
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    assert audit(model, X).verdict == "not assessed"
    with pytest.raises(AssertionError, match="^not assessed: .*allow_not_assessed=True"):
        assert_healthy(model, X)
    assert_healthy(model, X, allow_not_assessed=True)
    model.layers[0].kernel.assign(np.nan * model.layers[0].kernel)
    with pytest.raises(AssertionError, match="nonfinite-activations"):
        assert_healthy(model, X, allow_not_assessed=True)


def test_the_model_is_not_changed():
    """As `audit`."""
    model = models.image_network()
    before = model.get_weights()
    assert_healthy(model, models.IMAGES)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_wrong_arguments_are_no_failed_assertion():
    """A test that is written wrongly must not look like a sick model."""
    model = models.perceptron()
    with pytest.raises(ValueError, match="`ignore` must hold codes of findings"):
        assert_healthy(model, X, ignore="dead")
    with pytest.raises(ValueError, match="the model must be compiled"):
        assert_healthy(model, X, Y)
    with pytest.raises(TypeError, match="`model` must be a keras.Model"):
        assert_healthy(keras.layers.Dense(1), X)

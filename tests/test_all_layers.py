"""Every layer that Keras has is measured under a monitor, and so is every kind of model."""

import functools
import inspect
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import layer_cases
import trials
from cases import cases
from layer_cases import CASES, MODELS, ROWS, UNMEASURABLE, Subclassed, network


def pooled(snapshot, chosen):
    """Count, mean and std of several records as one, in float64 numpy."""
    count, mean, std = (
        f(name)[chosen]
        for f, name in (
            (snapshot.field, "count"),
            (snapshot.statistic, "mean"),
            (snapshot.statistic, "std"),
        )
    )
    total, middle = count.sum(), np.average(mean, weights=count)
    return total, middle, np.sqrt(np.average(std**2 + (mean - middle) ** 2, weights=count))


@pytest.mark.parametrize("group", cases(CASES, default=["dense", "attention"]))
def test_every_layer_is_measured(group, tmp_path):
    """The statistics are those of the outputs of an identical layer."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = functools.partial(layer_cases.fit_layers, group)
        snapshot = trials.measured(fit, tmp_path).monitor.recording[0]
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    _, twin, arrays = network(CASES[group])
    outputs = twin({k: tf.constant(v) for k, v in arrays.items()}, training=True)
    for each, (layer, output) in zip(CASES[group], outputs.items(), strict=True):
        of_layer = re.compile(rf"{layer}(?=[/:]|$)(?!:input)")
        found = [name for name in snapshot.names if of_layer.match(name)]
        assert bool(found) != bool(each.left_out), layer
        if not found or each.records is None or each.differs:
            continue
        own = re.compile(f"{layer}({each.records})")
        chosen = [i for i, name in enumerate(snapshot.names) if own.fullmatch(name)]
        values = np.concatenate(
            [np.float64(part).ravel() for part in keras.tree.flatten(output)]
        )
        np.testing.assert_allclose(
            pooled(snapshot, chosen),
            (values.size, values.mean(), values.std()),
            rtol=1e-5,
            atol=1e-6,
            err_msg=layer,
        )


LEFT_OUT = {
    "Layer": "abstract",
    "Wrapper": "abstract",
    "InputLayer": "it is no computation; what it lets in is measured as `:input`",
    "JaxLayer": "needs JAX",
    "FlaxLayer": "needs JAX and Flax",
    "TorchModuleWrapper": "needs PyTorch, and Keras on PyTorch",
    "Equalization": "has a model of its own in `MODELS`",
    "MaxNumBoundingBoxes": "has a model of its own in `MODELS`",
    "TFSMLayer": "has a model of its own in `MODELS`",
}


def test_no_layer_of_keras_is_forgotten():
    """Each exported class has a row, or is left out with a reason."""
    exported = {
        member.__name__
        for member in vars(layers).values()
        if inspect.isclass(member) and issubclass(member, keras.Layer)
    }
    rows = {type(each.make()).__name__ for group in CASES.values() for each in group}
    assert exported - rows - set(LEFT_OUT) == set()
    assert set(LEFT_OUT) <= exported - rows


def warned(case, folder):
    """The recording of the training, and the warnings of ours that it gave."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        recording = trials.measured(case, folder).monitor.recording
    messages = [str(w.message) for w in caught]
    return recording, [m for m in messages if m.startswith("ActivationMonitor")]


@pytest.mark.parametrize(
    "name",
    cases(
        MODELS,
        default=[
            *("padded tokens", "several inputs and outputs", "shared submodel"),
            *("built lazily", "LoRA", "int8", "frozen", "remat of a layer"),
        ],
    ),
)
def test_every_kind_of_model_is_measured(name, tmp_path):
    """Without a warning, and its layers by their names."""
    build, expected = MODELS[name]
    recording, messages = warned(functools.partial(layer_cases.fit_model, build), tmp_path)
    assert messages == []
    assert expected <= set(recording[0].names)
    if name == "remat of a layer":  # it computes the layer again for the gradient
        inner = [name for name in recording[0].names if name.endswith("inner")]
        assert len(inner) == 1


def test_frozen_layers_are_measured_like_others(tmp_path):
    """In a model that is compiled again between two fits with one monitor."""

    def case(trial):
        dense = layers.Dense(4, "relu", name="dense")
        norm = layers.BatchNormalization(name="norm")
        head = layers.Dense(1, name="head")
        model = keras.Sequential([keras.Input((6,)), dense, norm, head])
        for trainable in (False, True):
            dense.trainable = norm.trainable = trainable
            model.compile("sgd", "mse", jit_compile=False)
            trial.fit(model, ROWS, np.ones((len(ROWS), 1), "f4"))
        trial.steps = [0, 1]  # the second optimizer counts from 0
        return model

    (frozen, thawed), messages = warned(case, tmp_path)
    assert messages == []
    assert {"dense", "norm", "head"} <= {name.split("/")[-1] for name in frozen.names}
    assert thawed.names == frozen.names


class Overwriting(layers.Layer):
    """Writes its output into the dict of its inputs, as Keras' MixUp does."""

    def call(self, data):
        data["x"] = 3.0 * data["x"]
        return data


def test_the_input_of_a_layer_is_measured_before_the_call(tmp_path):
    """Also where the layer changes the dict of its inputs."""

    def build():
        return Subclassed(
            lambda net, x: net.head(net.over({"x": x})["x"]),
            over=Overwriting(name="over"),
            head=layers.Dense(1, name="head"),
        ), ROWS

    fit = functools.partial(layer_cases.fit_model, build)
    first = trials.measured(fit, tmp_path).monitor.recording[0]
    mean = dict(zip(first.names, first.statistic("mean"), strict=True))
    np.testing.assert_allclose(mean["net/over:input"], np.float64(ROWS).mean(), rtol=1e-5)
    np.testing.assert_allclose(mean["net/over:x"], 3 * np.float64(ROWS).mean(), rtol=1e-5)


@pytest.mark.parametrize("name", cases(UNMEASURABLE, default=["a ragged tensor"]))
def test_what_cannot_be_measured_is_left_out_with_one_warning(name, tmp_path):
    """The other layers are measured, at every step."""
    fit = functools.partial(layer_cases.fit_model, UNMEASURABLE[name])
    recording, messages = warned(fit, tmp_path)
    (message,) = messages
    assert re.match(
        r"ActivationMonitor: '(net/)?odd' cannot be measured, it is left out: ", message
    )
    for snapshot in recording:
        names = [name.removeprefix("net/") for name in snapshot.names]
        assert "head" in names
        assert "odd" not in names

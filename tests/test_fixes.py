"""Fixes are verified: networks that do not train, rebuilt with the printed code."""

import math
import re
from dataclasses import dataclass
from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits

import models
from activation_monitor import audit
from cases import cases

STEPS, BATCH = 200, 64
FAILS, TRAINS, CLEARLY = 2.0, 1.0, 0.5  # mean loss of 20 steps; by chance log(10) = 2.303


# -- data and training


@cache
def digits(kind):
    """Samples and labels: standardised features, or images of the same, or raw ones."""
    x, y = load_digits(return_X_y=True)
    if kind == "0..255":
        x = x * 16.0
    else:
        std = x.std(axis=0)
        x = (x - x.mean(axis=0)) / np.where(std > 0, std, 1.0)
        x = x * {"x100": 100.0, "x0.01": 0.01}.get(kind, 1.0)
    shape = (-1, 8, 8, 1) if kind == "images" else (-1, 64)
    return x.reshape(shape).astype(np.float32), y.astype(np.int32)


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(1e-3),
}


def final_loss(model, x, y, optimizer):
    """The mean loss of the last 20 steps; sooner if it is NaN, or clearly trained."""
    optimizer = OPTIMIZERS[optimizer]()
    weights = model.trainable_variables
    optimizer.build(weights)
    x, y = tf.constant(x), tf.constant(y)

    @tf.function(autograph=False)
    def step(samples):
        with tf.GradientTape() as tape:
            logits = model(tf.gather(x, samples), training=True)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(
                    tf.gather(y, samples), logits
                )
            )
        optimizer.apply(tape.gradient(loss, weights), weights)
        return loss

    rng, losses = np.random.default_rng(0), []
    for _ in range(STEPS):
        losses.append(float(step(tf.constant(rng.choice(len(x), BATCH, replace=False)))))
        if not math.isfinite(losses[-1]):
            return math.nan
        if len(losses) >= 20 and np.mean(losses[-20:]) < CLEARLY:
            break
    return np.mean(losses[-20:])


# -- the fix, as it is printed


def repaired(model, changes):
    """The model rebuilt, with each printed line of code at its place."""

    def lines(where, layer):
        return [
            change.code
            for change in changes
            if change.where == where
            and layer.name in {name.rpartition("/")[2] for name in change.layers}
        ]

    def run(code):
        return eval(code, {"keras": keras})  # noqa: S307

    def made(layer):
        config = layer.get_config()
        for code in lines("in", layer):
            config |= run(f"dict({code})")
        return type(layer).from_config(config)

    def called(layer, *args, **kwargs):
        for code in lines("before", layer):
            args = (run(code)(args[0]), *args[1:])
        outputs = layer(*args, **kwargs)
        for code in lines("after", layer):
            outputs = run(code)(outputs)
        return outputs

    return keras.models.clone_model(model, clone_function=made, call_function=called)


# -- unhealthy networks


def normal(std):
    return keras.initializers.RandomNormal(stddev=std)


def scaled(scale):
    return keras.initializers.VarianceScaling(scale)


def dense(activation, initializer, depth=20, odd=None, between=None, separate=False):
    """A perceptron, 128 wide. `odd`: index and initializer of one layer of its own."""
    inputs = x = keras.Input((64,))
    for i in range(depth):
        draw = keras.initializers.get(odd[1] if odd and odd[0] == i else initializer)
        fused = None if separate else activation
        layer = layers.Dense(
            128, fused, kernel_initializer=draw.clone(), name=f"hidden_{i}"
        )
        x = layer(x)
        if separate:
            x = layers.Activation(activation, name=f"activation_{i}")(x)
        if between:
            x = between()(x)
    return keras.Model(inputs, layers.Dense(10, name="head")(x), name="net")


def convolutional(initializer, depth=8):
    inputs = x = keras.Input((8, 8, 1))
    for i in range(depth):
        x = layers.Conv2D(
            16,
            3,
            padding="same",
            activation="relu",
            kernel_initializer=keras.initializers.get(initializer).clone(),
            name=f"conv_{i}",
        )(x)
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, layers.Dense(10, name="head")(x), name="net")


def depthwise(initializer, depth=8):
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(32, 3, padding="same", kernel_initializer="he_normal", name="stem")(
        inputs
    )
    for i in range(depth):
        x = layers.DepthwiseConv2D(
            3,
            padding="same",
            activation="relu",
            depthwise_initializer=keras.initializers.get(initializer).clone(),
            name=f"depthwise_{i}",
        )(x)
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, layers.Dense(10, name="head")(x), name="net")


def residual(initializer, blocks=25):
    """Blocks of two layers, x + f(x), without normalization."""
    inputs = keras.Input((64,))

    def layer(name, activation=None):
        draw = keras.initializers.get(initializer).clone()
        return layers.Dense(128, activation, kernel_initializer=draw, name=name)

    x = layers.Dense(128, "relu", kernel_initializer="he_normal", name="stem")(inputs)
    for i in range(blocks):
        branch = layer(f"last_{i}")(layer(f"inner_{i}", "relu")(x))
        x = layers.Add(name=f"add_{i}")([x, branch])
    return keras.Model(inputs, layers.Dense(10, name="head")(x), name="net")


class Tripled(layers.Layer):
    """A scaling written by hand, where a normalization was meant to be."""

    def call(self, x):
        return 3.0 * x


# -- what is printed, and that it helps

HE = 'kernel_initializer="he_normal"'
GLOROT = 'kernel_initializer="glorot_uniform"'
LECUN = 'kernel_initializer="lecun_normal"'
STD_HE = "std 0.125 = sqrt(2 / 128)"
STD_GLOROT = "std 0.0884 = sqrt(2 / (128 + 128))"
STD_LECUN = "std 0.0884 = sqrt(1 / 128)"


@dataclass
class Case:
    """An unhealthy network, what it is trained with, and what should be said of it."""

    build: object
    optimizer: str
    code: str
    cause: str
    printed: tuple[str, ...]
    data: str = "standard"


CASES = {
    "relu, N(0, 0.01)": Case(
        lambda: dense("relu", normal(0.01)),
        "adam",
        "vanishing-activations",
        "initializer",
        (HE, STD_HE, "in place of 0.01"),
    ),
    "relu, N(0, 0.05)": Case(
        lambda: dense("relu", normal(0.05)),
        "adam",
        "vanishing-activations",
        "initializer",
        (HE, STD_HE, "in place of 0.05", "std 0.177 = sqrt(2 / 64)"),
    ),
    "relu, N(0, 1)": Case(
        lambda: dense("relu", normal(1.0)),
        "adam",
        "exploding-activations",
        "initializer",
        (HE, STD_HE),
    ),
    "leaky_relu, N(0, 0.05)": Case(
        lambda: dense("leaky_relu", normal(0.05)),
        "sgd",
        "vanishing-activations",
        "initializer",
        (HE, STD_HE),
    ),
    "elu, N(0, 0.01)": Case(
        lambda: dense("elu", normal(0.01)),
        "sgd",
        "vanishing-activations",
        "initializer",
        (HE, STD_HE),
    ),
    "elu, N(0, 1)": Case(
        lambda: dense("elu", normal(1.0)),
        "sgd",
        "exploding-activations",
        "initializer",
        (HE, STD_HE),
    ),
    "selu, N(0, 0.01)": Case(
        lambda: dense("selu", normal(0.01)),
        "sgd",
        "vanishing-activations",
        "initializer",
        (LECUN, STD_LECUN),
    ),
    "selu, N(0, 1)": Case(
        lambda: dense("selu", normal(1.0)),
        "sgd",
        "exploding-activations",
        "initializer",
        (LECUN, STD_LECUN),
    ),
    "gelu, N(0, 0.05)": Case(
        lambda: dense("gelu", normal(0.05)),
        "adam",
        "vanishing-activations",
        "initializer",
        ("keras.initializers.VarianceScaling(2.35)", "std 0.136 = sqrt(2.35 / 128)"),
    ),
    "gelu, N(0, 1)": Case(
        lambda: dense("gelu", normal(1.0)),
        "adam",
        "exploding-activations",
        "initializer",
        ("keras.initializers.VarianceScaling(2.35)", "std 0.136 = sqrt(2.35 / 128)"),
    ),
    "silu, N(0, 0.05)": Case(
        lambda: dense("silu", normal(0.05)),
        "adam",  # plain SGD needs a smaller step in twenty layers of it
        "vanishing-activations",
        "initializer",
        ("keras.initializers.VarianceScaling(2.81)", "std 0.148 = sqrt(2.81 / 128)"),
    ),
    "mish, N(0, 0.05)": Case(
        lambda: dense("mish", normal(0.05)),
        "sgd",
        "vanishing-activations",
        "initializer",
        ("keras.initializers.VarianceScaling(2.21)", "std 0.131 = sqrt(2.21 / 128)"),
    ),
    "tanh, N(0, 0.01)": Case(
        lambda: dense("tanh", normal(0.01)),
        "sgd",
        "vanishing-activations",
        "initializer",
        (GLOROT, STD_GLOROT, "std 0.102 = sqrt(2 / (64 + 128))"),
    ),
    "tanh, N(0, 1)": Case(
        lambda: dense("tanh", normal(1.0)),
        "sgd",
        "saturated-activations",
        "initializer",
        (GLOROT, STD_GLOROT),
    ),
    "convolutions, N(0, 0.01)": Case(
        lambda: convolutional(normal(0.01)),
        "sgd",
        "vanishing-activations",
        "initializer",
        (HE,),
        data="images",
    ),
    "convolutions, N(0, 1)": Case(
        lambda: convolutional(normal(1.0)),
        "sgd",
        "exploding-activations",
        "initializer",
        (HE,),
        data="images",
    ),
    "depthwise convolutions, he_normal": Case(
        lambda: depthwise("he_normal"),
        "sgd",
        "vanishing-activations",
        "initializer",
        ("depthwise_initializer=keras.initializers.RandomNormal(stddev=0.514)",),
        data="images",
    ),
    "sigmoid": Case(
        lambda: dense("sigmoid", "glorot_uniform", depth=8),
        "sgd",
        "collapsed-activations",
        "activation function",
        ('activation="relu"', HE, "103"),
    ),
    "sigmoid, in layers of their own": Case(
        lambda: dense("sigmoid", "glorot_uniform", depth=8, separate=True),
        "sgd",
        "collapsed-activations",
        "activation function",
        ('activation="relu"',),
    ),
    "tanh, constant": Case(
        lambda: dense("tanh", keras.initializers.Constant(0.1), depth=3),
        "sgd",
        "symmetric-initialization",
        "initializer",
        (GLOROT, STD_GLOROT),
    ),
    "relu, zeros": Case(
        lambda: dense("relu", "zeros", depth=5),
        "sgd",
        "zero-activations",
        "initializer",
        (HE,),
    ),
    "relu, uniform from 0": Case(
        lambda: dense("relu", keras.initializers.RandomUniform(0.0, 1 / 64)),
        "adam",
        "mean-shift",
        "initializer",
        (HE, STD_HE, "their mean is 0.0078"),
    ),
    "one layer x100": Case(
        lambda: dense("relu", "he_normal", depth=10, odd=(4, scaled(2e4))),
        "sgd",
        "outlier-gain",
        "initializer",
        (HE, STD_HE, "in hidden_4:"),
    ),
    "input x100": Case(
        lambda: dense("relu", "he_normal", depth=5),
        "sgd",
        "unscaled-input",
        "input scale",
        ("before hidden_0:", "keras.layers.Rescaling(0.0117)", "1 / 85.5"),
        data="x100",
    ),
    "input 0..255": Case(
        lambda: dense("relu", "he_normal", depth=5),
        "sgd",
        "unscaled-input",
        "input scale",
        ("before hidden_0:", "keras.layers.Rescaling(0.00811)", "1 / 123"),
        data="0..255",
    ),
    "residual, he_normal": Case(
        lambda: residual("he_normal"),
        "sgd",
        "exploding-activations",
        "unscaled residual branch",
        ('kernel_initializer="zeros"', "in place of 0.125", "25 branches"),
    ),
    "a scaling by hand": Case(
        lambda: dense("relu", "he_normal", depth=12, between=Tripled),
        "sgd",
        "exploding-activations",
        "missing normalization",
        ("after hidden_0, hidden_1", "keras.layers.LayerNormalization()"),
    ),
}


IN_THE_DEFAULT_RUN = (
    *("relu, N(0, 0.05)", "tanh, constant", "sigmoid"),
    *("convolutions, N(0, 0.01)", "relu, zeros", "one layer x100", "input 0..255"),
    "a scaling by hand",
)


@pytest.mark.parametrize("case", cases(CASES, default=IN_THE_DEFAULT_RUN))
def test_an_unhealthy_network_trains_after_the_printed_fix(case):
    """Before, it does not; after, nothing is found any more and it does."""
    case = CASES[case]
    x, y = digits(case.data)
    unhealthy = case.build()
    (finding,) = audit(unhealthy, x[:BATCH]).findings
    loss = final_loss(unhealthy, x, y, case.optimizer)
    assert loss > FAILS or math.isnan(loss)
    assert finding.code == case.code

    fix = finding.fix
    healthy = repaired(unhealthy, fix.changes)
    found = audit(healthy, x[:BATCH])
    assert [f.code for f in found.findings] == []
    assert final_loss(healthy, x, y, case.optimizer) < TRAINS

    assert fix.cause == case.cause
    for line in case.printed:
        assert line in str(finding)
    for change in fix.changes:
        assert change.line in str(finding)


def normalised(shortcuts):
    """51 normalised layers, with or without a sum around every two of them."""
    inputs = keras.Input((64,))

    def layer(x):
        x = layers.Dense(64, kernel_initializer="he_normal")(x)
        return layers.ReLU()(layers.BatchNormalization()(x))

    x = layer(inputs)
    for _ in range(25):
        x = layers.Add()([x, layer(layer(x))]) if shortcuts else layer(layer(x))
    model = keras.Model(inputs, layers.Dense(10, name="head")(x), name="net")
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.mark.slow
def test_deep_normalised_layers_are_advised_to_have_shortcuts():
    """The fix in words: x + f(x) around every two of these layers."""
    x, y = digits("standard")
    (finding,) = audit(normalised(False), x[:BATCH], y[:BATCH]).findings
    assert finding.code == "exploding-gradients"
    assert finding.fix.cause == "depth without shortcuts"
    assert "write x + f(x) around every one or two of these layers" in str(finding)


@pytest.mark.slow
def test_shortcuts_carry_a_gradient_through_normalised_layers():
    """Without them it does not train; with them it does, and nothing is found."""
    x, y = digits("standard")
    without, with_them = normalised(False), normalised(True)
    assert final_loss(without, x, y, "sgd") > FAILS
    assert audit(with_them, x[:BATCH], y[:BATCH]).healthy
    assert final_loss(with_them, x, y, "sgd") < TRAINS


DRAWN = {
    "relu": (lambda: dense("relu", normal(1.0), 4), "standard"),
    "tanh": (lambda: dense("tanh", normal(3.0), 4), "standard"),
    "selu": (lambda: dense("selu", normal(1.0), 4), "standard"),
    "convolutions": (lambda: convolutional(normal(1.0), 4), "images"),
    "depthwise convolutions": (lambda: depthwise("he_normal"), "images"),
    "one layer": (lambda: dense("relu", "he_normal", 10, (4, scaled(2e4))), "standard"),
}


@pytest.mark.parametrize("case", DRAWN)
def test_the_std_that_is_printed_is_the_one_that_is_drawn(case):
    """Of the kernels with enough weights to tell; so is the one that it replaces."""
    build, data = DRAWN[case]
    unhealthy = build()
    (finding,) = audit(unhealthy, digits(data)[0][:BATCH]).findings
    healthy = repaired(unhealthy, finding.fix.changes)
    compared = 0
    for change in finding.fix.changes:
        if "initializer=" not in change.code:  # the line for a model that a function makes
            continue
        right, wrong = re.match(
            "std ([0-9.]+) = .* in place of ([0-9.]+)", change.why
        ).groups()
        kernels = [
            np.concatenate(
                [model.get_layer(name).kernel.numpy().ravel() for name in change.layers]
            )
            for model in (healthy, unhealthy)
        ]
        if kernels[0].size < 1000:  # 5 % is two standard deviations
            continue
        np.testing.assert_allclose(kernels[0].std(), float(right), rtol=0.05)
        np.testing.assert_allclose(kernels[1].std(), float(wrong), rtol=0.01)
        compared += 1
    assert compared


def test_the_formula_that_is_printed_gives_the_std_beside_it():
    """Also where the fan-in, which counts taps inside the image, is not a whole number."""
    unhealthy = depthwise("he_normal")
    (finding,) = audit(unhealthy, digits("images")[0][:BATCH]).findings
    std, gain, fan = re.search(
        r"std ([0-9.]+) = sqrt\(([0-9.]+) / ([0-9.]+)\)", str(finding)
    ).groups()
    np.testing.assert_allclose(float(std), math.sqrt(float(gain) / float(fan)), rtol=0.01)


def test_weights_that_were_changed_later_are_not_put_down_to_their_initializer():
    """The present line would fix nothing; the factor does."""
    model = models.perceptron(depth=6, width=64, initializer="he_uniform", inputs=16)
    layer = model.get_layer("hidden_3")
    layer.kernel.assign(layer.kernel * 100.0)
    x, _ = models.data(samples=64, inputs=16)
    (finding,) = audit(model, x).findings
    assert finding.code == "outlier-gain"
    assert finding.fix.cause == "changed weights"
    (change,) = finding.fix.changes
    assert change.layers == ("net/hidden_3",)
    exec(change.code, {"layer": layer})  # noqa: S102 - it is what we printed
    assert audit(model, x).healthy

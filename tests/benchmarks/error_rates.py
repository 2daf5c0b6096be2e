"""How often detectors are wrong about an initialization, ours and its rivals'.

    python tests/benchmarks/error_rates.py                  # networks of trainability.csv
    python tests/benchmarks/error_rates.py --half report --list
    python tests/benchmarks/error_rates.py --applications   # keras.applications
    KERAS_BACKEND=jax python tests/benchmarks/error_rates.py  # ours alone

Every detector looks once, before any training, at the same network and the same batch,
with training=True. A false alarm is an alarm about a network that trains, a miss is
ignore about one that does not. Nothing is trained here.

**The population** of `trainability.py` was labelled by training each network: good, bad
and partial as written there, by no statistic that a detector could look at. The half
"calibrate" is for choosing thresholds, "report" for figures to publish.

**keras.applications** are healthy as Keras draws them (all have normalisation; batch 8,
smooth random images, 0 to 255, through the `preprocess_input` of each). Sick are:

- VGG16 and VGG19 as Keras draws them: Glorot-uniform kernels halve the signal's second
  moment at each of 16 and 19 layers with ReLU, and nothing restores it. Neither trains
  without pre-trained weights (tensorflow/models#991, apache/mxnet#9866).
- "N(0, 1)", normalisation replaced by the identity where there is any: each kernel
  multiplies the second moment by about fan_in / 2, up to 2304 times. A shortcut adds to
  that and takes nothing away. Where ReLU6 stops the growth, at MobileNet and MobileNetV2,
  nearly all units stand at 0 or 6, and the direction counts as not known.
- "N(0, 0.01)", likewise: fan_in / 2 * 0.0001 is 0.23 at most where the kernel is 3 x 3 of
  512 channels and 0.0005 where it is depthwise. Only of networks without a shortcut past
  most of these kernels: the shortcuts of ResNet, Xception, DenseNet and ConvNeXt carry
  the signal to the head.
- "zero": all weights of one convolution that every path passes are zero, so that nothing
  after it depends on the input.
- "NaN": one element of such a kernel is NaN, and so is the loss.
- "constant": all kernels are constant, 1 / fan_in. All units of a layer compute the same,
  get the same gradient, and stay the same; the gradient through such a head is zero.
"""

import argparse
import functools
import math
import multiprocessing
import os
import types
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import trainability
from rich.console import Console
from rich.table import Table

# -- one look at a network: what the detectors get


@dataclass(frozen=True)
class Output:
    """The output of a hidden layer on the batch. Units are the last axis."""

    layer: str
    function: str  # the activation function that made it, "linear" if none did
    finite: bool
    mean: float
    std: float
    abs_mean: float
    zeros: float  # share of exact zeros
    not_positive: float
    inactive_units: float  # share of units that are positive for less than 1 % of inputs
    tiny_units: float  # share of units whose absolute value has its 95th percentile < 1e-5
    edge_units: float  # share of units whose mean distance from the middle is > 0.85


@dataclass(frozen=True)
class PreActivation:
    """What an activation function was given."""

    layer: str
    function: str
    variance: float
    smd_saturated_units: float  # share of units with less than 1 % of inputs in range
    beyond_five: float  # share of elements


@dataclass(frozen=True)
class Kernel:
    """A kernel and its gradient on the batch."""

    name: str
    shape: tuple[int, ...]
    finite: bool
    variance: float
    norm: float
    zeros: float
    grad_finite: bool
    grad_abs_mean: float
    grad_norm: float
    grad_zeros: float
    grad_spread: float  # 95th minus 5th percentile


@dataclass(frozen=True)
class Records:
    """One network on one batch. Layers and kernels stand in the order of the data."""

    outputs: list[Output]
    inputs: list[PreActivation]
    kernels: list[Kernel]
    function: str  # the activation function that most hidden layers have
    loss: float
    classes: int


# What SageMaker Debugger calls the range in which an activation function is not saturated.
SMD_RANGE = {"tanh": (-9.4999, 9.4999), "sigmoid": (-23.0, 16.99999)}


def collect(model, x, y):
    """Forward and backward once, eagerly, and take the statistics in float64."""
    import tensorflow as tf

    layers = model.layers
    weighted = [i for i, layer in enumerate(layers) if kernels_of(layer)]
    hidden = layers[weighted[0] : weighted[-1]]
    given = []  # (layer, function, what the function got)

    def spy(layer, function):
        def spied(value):
            given.append((layer.name, name_of(function), value))
            return function(value)

        return spied

    fused = [(layer, layer.activation) for layer in hidden if hasattr(layer, "activation")]
    relus = [layer for layer in hidden if isinstance(layer, keras.layers.ReLU)]
    look = keras.Model(
        model.inputs,
        [model.output, [layer.output for layer in hidden], [r.input for r in relus]],
    )
    kernels = [kernel for layer in layers for kernel in kernels_of(layer)]
    try:
        for layer, function in fused:
            layer.activation = spy(layer, function)
        with tf.GradientTape() as tape:
            logits, outputs, before_relu = look(tf.constant(x), training=True)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(tf.constant(y), logits)
            )
        gradients = tape.gradient(loss, [kernel.value for kernel in kernels])
    finally:
        for layer, function in fused:
            layer.activation = function
    given += [(r.name, "relu", value) for r, value in zip(relus, before_relu, strict=True)]
    functions = {layer.name: name_of(function) for layer, function in fused}
    functions |= {layer.name: "relu" for layer in relus}
    named = Counter(f for f in functions.values() if f != "linear")
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Records(
            outputs=[
                output_record(layer.name, functions.get(layer.name, "linear"), value)
                for layer, value in zip(hidden, outputs, strict=True)
            ],
            inputs=[
                input_record(layer, function, value)
                for layer, function, value in given
                if function != "linear"
            ],
            kernels=[
                kernel_record(kernel, gradient)
                for kernel, gradient in zip(kernels, gradients, strict=True)
            ],
            function=named.most_common(1)[0][0] if named else "linear",
            loss=float(loss),
            classes=int(logits.shape[-1]),
        )


def kernels_of(layer):
    return [v for v in layer.trainable_variables if v.name.endswith("kernel")]


def name_of(function):
    return getattr(function, "__name__", type(function).__name__)


def output_record(layer, function, value):
    a = np.asarray(value, "float64")
    a = a.reshape(-1, a.shape[-1])
    size = np.abs(a)
    # The distance of a bounded activation from its middle, as a share of the way.
    edge = np.abs(2 * a - 1) if function == "sigmoid" else size
    return Output(
        layer=layer,
        function=function,
        finite=bool(np.isfinite(a).all()),
        mean=a.mean(),
        std=a.std(),
        abs_mean=size.mean(),
        zeros=(a == 0).mean(),
        not_positive=(a <= 0).mean(),
        inactive_units=((a > 0).mean(axis=0) < 0.01).mean(),
        tiny_units=((size >= 1e-5).mean(axis=0) < 0.05).mean(),
        edge_units=(edge.mean(axis=0) > 0.85).mean(),
    )


def input_record(layer, function, value):
    a = np.asarray(value, "float64")
    a = a.reshape(-1, a.shape[-1])
    low, high = SMD_RANGE.get(function, (-math.inf, math.inf))
    return PreActivation(
        layer=layer,
        function=function,
        variance=a.var(),
        smd_saturated_units=(((a > low) & (a < high)).mean(axis=0) < 0.01).mean(),
        beyond_five=(np.abs(a) >= 5).mean(),
    )


def kernel_record(kernel, gradient):
    w, g = np.asarray(kernel.value, "float64"), np.asarray(gradient, "float64")
    low, high = np.percentile(g, [5, 95])
    return Kernel(
        name=kernel.path,
        shape=w.shape,
        finite=bool(np.isfinite(w).all()),
        variance=w.var(),
        norm=np.linalg.norm(w),
        zeros=(w == 0).mean(),
        grad_finite=bool(np.isfinite(g).all()),
        grad_abs_mean=np.abs(g).mean(),
        grad_norm=np.linalg.norm(g),
        grad_zeros=(g == 0).mean(),
        grad_spread=high - low,
    )


# -- the detectors: functions of the records. A comparison with NaN is False, so rules that
# do not look for NaN stay silent about it, as the originals do.


def naive(r: Records):
    """What many a notebook does: the std of each hidden layer within [0.1, 10]."""
    return any(not 0.1 <= o.std <= 10 for o in r.outputs)


# SageMaker Debugger. The code of its rules is closed; read from the developer guide,
# debugger-built-in-rules.md. Of gradients we look at kernels only, in its favour: those of
# biases in front of a batch normalisation are zero by construction. A "neuron" is a unit
# (a channel). Rules over several steps (loss, WeightUpdateRatio, UnchangedTensor) need
# training and do not apply; TensorVariance has no default.


def smd_vanishing_gradient(r: Records):
    """The mean absolute gradient of a kernel below 1e-7."""
    return any(k.grad_abs_mean < 1e-7 for k in r.kernels)


def smd_poor_weights(r: Records):
    """PoorWeightInitialization by its parameter's text: the largest variance of weights
    of a layer more than 10 times the smallest."""
    return ratio([k.variance for k in r.kernels]) > 10


def smd_poor_inputs(r: Records):
    """PoorWeightInitialization by its prose: the same of the activation inputs."""
    return ratio([i.variance for i in r.inputs]) > 10


def smd_poor_gradients(r: Records):
    """PoorWeightInitialization, second condition: a kernel's gradients all but equal, the
    95th less the 5th percentile below 0.001."""
    return any(k.grad_spread < 0.001 for k in r.kernels)


def smd_saturated(r: Records):
    """More than half of the units of a tanh or sigmoid layer get 99 % of their inputs
    beyond what float32 tells from the limit."""
    return any(i.smd_saturated_units > 0.5 for i in r.inputs if i.function in SMD_RANGE)


def smd_dead_relu(r: Records):
    """More than half of the units of a ReLU layer active for less than 1 % of inputs."""
    return any(o.inactive_units > 0.5 for o in r.outputs if o.function == "relu")


def smd_exploding(r: Records):
    """ExplodingTensor: NaN or infinity in an output, a kernel or its gradient."""
    return not all(
        [o.finite for o in r.outputs] + [k.finite and k.grad_finite for k in r.kernels]
    )


def smd_all_zero(r: Records):
    """An output, a kernel or a kernel's gradient that is zero everywhere."""
    zeros = [o.zeros for o in r.outputs]
    zeros += [z for k in r.kernels for z in (k.zeros, k.grad_zeros)]
    return any(z == 1 for z in zeros)


def smd_any(r: Records):
    """All SageMaker Debugger rules above, PoorWeightInitialization by its parameter."""
    return any(
        rule(r)
        for rule in (
            smd_vanishing_gradient,
            smd_poor_weights,
            smd_poor_gradients,
            smd_saturated,
            smd_dead_relu,
            smd_exploding,
            smd_all_zero,
        )
    )


# TheDeepChecker, read from deep_checker/checkers.py and hooks.py. The activation rules
# start at its 10th iteration there and apply to the first one here.
F_CRITICAL = 2.70554


def deepchecker_weights(r: Records):
    """Before training: var(W) of zero, or the F ratio to He's variance (ReLU), Glorot's
    (tanh), LeCun's (sigmoid) above 2.7; for other functions, to all three of them."""
    for k in r.kernels:
        field_size = math.prod(k.shape[:-2])
        fan_in, fan_out = k.shape[-2] * field_size, k.shape[-1] * field_size
        right = {
            "he": f_ratio(k.variance, 2 / fan_in) <= F_CRITICAL,
            "glorot": f_ratio(k.variance, 2 / (fan_in + fan_out)) <= F_CRITICAL,
            "lecun": f_ratio(k.variance, 1 / fan_in) <= F_CRITICAL,
        }
        needed = {"relu": "he", "tanh": "glorot", "sigmoid": "lecun"}.get(r.function)
        if k.variance <= 1e-8 or not any(right.values()):
            return True
        if needed and not right[needed]:
            return True
    return False


def deepchecker_activations(r: Records):
    """The std of an activation outside [0.5, 2] and the F ratio to that limit above 2.7;
    half of the units dead, or of tanh and sigmoid saturated; NaN or infinity. Activations
    are the outputs of layers with an activation function."""
    for o in r.outputs:
        if o.function == "linear" and r.function != "linear":
            continue
        limit = min(max(o.std, 0.5), 2.0)
        if not o.finite or f_ratio(o.std**2, limit**2) > F_CRITICAL:
            return True
        bounded = r.function in ("tanh", "sigmoid")
        if (o.edge_units if bounded else o.tiny_units) > 0.5:
            return True
    return False


# AUTOTRAINER, read from AutoTrainer/utils/monitor.py and utils.py (default_param). It asks
# its gradient rules only where accuracy is poor as well, which is known after training;
# here they stand alone. Gradients of kernels only.


def autotrainer_vanishing(r: Records):
    """||grad W_1|| below 1e-4 and less than a thousandth of ||grad W_last||."""
    first, last = r.kernels[0].grad_norm, r.kernels[-1].grad_norm
    return first < 1e-3 * last and first < 1e-4


def autotrainer_exploding(r: Records):
    """||grad W_1|| more than 70 times ||grad W_last||, or a gradient with NaN."""
    first, last = r.kernels[0].grad_norm, r.kernels[-1].grad_norm
    return first > 70 * last or not all(k.grad_finite for k in r.kernels)


def autotrainer_dying_relu(r: Records):
    """At least 70 % of all gradients exactly zero."""
    sizes = [math.prod(k.shape) for k in r.kernels]
    return np.average([k.grad_zeros for k in r.kernels], weights=sizes) >= 0.7


def autotrainer_any(r: Records):
    """The three gradient rules."""
    return autotrainer_vanishing(r) or autotrainer_exploding(r) or autotrainer_dying_relu(r)


# DeepDiagnosis, read from callback/callbacks.py. Of its rules these apply before training;
# "out of range" always alarms for logits and is left out in its favour, and so is the dead
# node rule of the last epoch, which is the next one alone.


def deepdiagnosis(r: Records):
    """The mean of an output NaN, infinite or zero; a mean absolute gradient below 1e-7; a
    variance of weights outside [1e-5, 10]; more than half of the inputs of a tanh or
    sigmoid layer beyond 5; SGD's lr * ||grad|| / ||W|| outside [1e-5, 0.1] at lr 0.01."""
    return (
        any(not math.isfinite(o.mean) or o.mean == 0 for o in r.outputs)
        or any(k.grad_abs_mean < 1e-7 for k in r.kernels)
        or any(not 1e-5 <= k.variance <= 10 for k in r.kernels)
        or any(i.beyond_five > 0.5 for i in r.inputs if i.function in SMD_RANGE)
        or any(not 1e-5 <= 0.01 * k.grad_norm / k.norm <= 0.1 for k in r.kernels if k.norm)
    )


def deepdiagnosis_dead(r: Records):
    """At least 70 % of a ReLU layer's outputs not positive."""
    return any(o.not_positive >= 0.7 for o in r.outputs if o.function == "relu")


def ratio(values):
    """The largest over the smallest; infinite if only the smallest is zero."""
    low, high = min(values, default=1), max(values, default=1)
    if low == 0:
        return math.inf if high > 0 else 1
    return high / low


def f_ratio(a, b):
    return ratio([a, b])


DETECTORS = {
    "std in [0.1, 10]": naive,
    "SMD, all below": smd_any,
    "  VanishingGradient": smd_vanishing_gradient,
    "  PoorWeightInit., weights": smd_poor_weights,
    "  PoorWeightInit., inputs (not in all)": smd_poor_inputs,
    "  PoorWeightInit., gradients": smd_poor_gradients,
    "  SaturatedActivation": smd_saturated,
    "  DeadRelu": smd_dead_relu,
    "  ExplodingTensor": smd_exploding,
    "  AllZero": smd_all_zero,
    "TheDeepChecker, weights": deepchecker_weights,
    "TheDeepChecker, activations": deepchecker_activations,
    "AUTOTRAINER, all below": autotrainer_any,
    "  vanishing": autotrainer_vanishing,
    "  exploding": autotrainer_exploding,
    "  dying ReLU": autotrainer_dying_relu,
    "DeepDiagnosis": deepdiagnosis,
    "  dead node": deepdiagnosis_dead,
}
OURS, FORWARD = "activation_monitor", "activation_monitor, forward only"
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"  # elsewhere without the rivals


def our_findings(model, x, y, gradients=True):
    """What activation_monitor finds, with or without the backward pass."""
    from activation_monitor import audit

    if not gradients:
        return audit(model, x).findings
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss, jit_compile=False)
    return audit(model, x, y).findings


def is_alarm(findings):
    return any(finding.severity in ("warning", "critical") for finding in findings)


# -- what is examined


@dataclass
class Case:
    """A network, what is known about it, and what the detectors said."""

    name: str
    half: str
    label: str  # good, bad, partial
    make: Callable  # () -> model, x, y
    direction: str | None = None  # exploding or vanishing, by construction
    first_layer: str | None = None
    alarms: dict[str, bool] = field(default_factory=dict)
    findings: list = field(default_factory=list)

    def examine(self):
        keras.utils.set_random_seed(0)
        model, x, y = self.make()
        # First: they see the model untouched.
        forward = our_findings(model, x, y, gradients=False)
        found = our_findings(model, x, y)
        self.findings = [
            types.SimpleNamespace(
                code=f.code, severity=f.severity, layers=f.layers, evidence=f.evidence
            )
            for f in found
        ]
        self.alarms = {OURS: is_alarm(self.findings), FORWARD: is_alarm(forward)}
        if ON_TENSORFLOW:
            records = collect(model, x, y)
            self.alarms |= {name: bool(rule(records)) for name, rule in DETECTORS.items()}
        keras.backend.clear_session()


def population(path, half):
    for row in trainability.read(path):
        if half not in ("both", row["half"]):
            continue
        shown = [row[c] for c in trainability.CONFIG if row[c] != ""]
        yield Case(
            f"{row['id']}: {' '.join(shown)}",
            row["half"],
            row["label"],
            lambda row=row: (trainability.build(row), *trainability.batch(row)),
            *trainability.truth(row),
        )


# The module of `preprocess_input`, the image size, a convolution that every path passes.
APPLICATIONS = {
    "MobileNet": ("mobilenet", 64, "conv_pw_6"),
    "MobileNetV2": ("mobilenet_v2", 64, "Conv_1"),
    "MobileNetV3Small": ("mobilenet_v3", 64, "conv_1"),
    "MobileNetV3Large": ("mobilenet_v3", 64, "conv_1"),
    "EfficientNetB0": ("efficientnet", 64, "top_conv"),
    "EfficientNetV2B0": ("efficientnet_v2", 64, "top_conv"),
    "ResNet50": ("resnet", 64, "conv1_conv"),
    "ResNet50V2": ("resnet_v2", 64, "conv1_conv"),
    "ResNet101": ("resnet", 64, "conv1_conv"),
    "DenseNet121": ("densenet", 64, "pool3_conv"),
    "Xception": ("xception", 96, "block14_sepconv2"),
    "InceptionV3": ("inception_v3", 96, None),
    "NASNetMobile": ("nasnet", 96, "stem_conv1"),
    "ConvNeXtTiny": ("convnext", 64, None),
    "VGG16": ("vgg16", 64, "block3_conv1"),
    "VGG19": ("vgg19", 64, "block3_conv1"),
}
VGG = ("VGG16", "VGG19")
CARRIED_BY_SHORTCUTS = (
    "ResNet50",
    "ResNet50V2",
    "ResNet101",
    "DenseNet121",
    "Xception",
    "ConvNeXtTiny",
)
RELU6 = ("MobileNet", "MobileNetV2")
SOME = ("MobileNet", "ResNet50", "InceptionV3", "VGG16")
NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)


def images(size, count=8):
    """Smooth random images, 0 to 255, with colours that differ from image to image."""
    import tensorflow as tf

    rng = np.random.default_rng(1)
    coarse = rng.uniform(size=(count, 8, 8, 3)) + rng.uniform(size=(count, 1, 1, 3))
    smooth = tf.image.resize(coarse, (size, size), "bicubic").numpy()
    low, high = smooth.min((1, 2), keepdims=True), smooth.max((1, 2), keepdims=True)
    return (255 * (smooth - low) / (high - low)).astype("float32")


def application(name, mutate=None):
    """The network with ten logits, and a batch for it."""
    module, size, _ = APPLICATIONS[name]
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None
    )
    if mutate:
        model = mutate(model) or model
    preprocess = getattr(keras.applications, module).preprocess_input
    return model, preprocess(images(size)), np.arange(8, dtype="int32")


class PassThrough(keras.layers.Layer):
    """Stands where a normalisation stood, and takes its arguments."""

    def call(self, inputs, mask=None):
        return inputs


def normal_kernels(stddev):
    """Without normalisation, and with kernels from a normal distribution."""

    def without(layer):
        if isinstance(layer, NORMALIZATIONS):
            return PassThrough(name=layer.name)
        if isinstance(layer, keras.Model):
            return keras.models.clone_model(layer, clone_function=without)
        return type(layer).from_config(layer.get_config())

    def mutate(model):
        model = keras.models.clone_model(model, clone_function=without)
        rng = np.random.default_rng(2)
        for layer in model.layers:
            for kernel in kernels_of(layer):
                kernel.assign(rng.normal(0, stddev, kernel.shape))
        return model

    return mutate


def constant_kernels(model):
    for layer in model.layers:
        for kernel in kernels_of(layer):
            fan_in = math.prod(kernel.shape[:-1])
            kernel.assign(np.full(kernel.shape, 1 / fan_in))


def zero_layer(layer_name):
    def mutate(model):
        for weight in model.get_layer(layer_name).trainable_variables:
            weight.assign(np.zeros(weight.shape))

    return mutate


def nan_in(layer_name):
    def mutate(model):
        kernel = kernels_of(model.get_layer(layer_name))[-1]
        broken = np.array(kernel.value)
        broken.flat[0] = np.nan
        kernel.assign(broken)

    return mutate


def applications():
    for name, (_, _, trunk) in APPLICATIONS.items():

        def case(what, label, mutate=None, direction=None, layer=None, name=name):
            return Case(
                f"{name} {what}",
                "applications",
                label,
                lambda: application(name, mutate),
                direction,
                layer,
            )

        if name in VGG:
            yield case("default", "bad", None, "vanishing", "block1_conv1")
        else:
            yield case("default", "good")
        direction = None if name in RELU6 else "exploding"
        yield case("N(0, 1)", "bad", normal_kernels(1.0), direction)
        if name not in CARRIED_BY_SHORTCUTS:
            yield case("N(0, 0.01)", "bad", normal_kernels(0.01), "vanishing")
        if trunk:
            yield case(f"zero {trunk}", "bad", zero_layer(trunk), "vanishing", trunk)
        if trunk and name in SOME:
            yield case(f"NaN {trunk}", "bad", nan_in(trunk), "exploding", trunk)
        if name in SOME:
            yield case("constant", "bad", constant_kernels)


# -- the verdict

DIRECTIONS = {"zero-activations": "vanishing", "nonfinite-activations": "exploding"}


def direction_of(finding):
    """A finding's direction: zeros are the end of vanishing, NaN that of exploding, and one
    layer that stands out does so upwards or downwards."""
    start = finding.code.split("-")[0]
    if start in ("exploding", "vanishing"):
        return start
    if finding.code == "outlier-gain":
        return "exploding" if finding.evidence["decades"] > 0 else "vanishing"
    return DIRECTIONS.get(finding.code)


def first_layer_of(finding):
    """ "net/hidden_3:input" -> "hidden_3" """
    if not finding.layers:
        return None
    return finding.layers[0].split(":")[0].split("/")[-1]


def wilson(k, n, z=1.96):
    """The 95 % Wilson score interval of a proportion, in percent."""
    if n == 0:
        return 0.0, 100.0
    p = k / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def rate(hits):
    """ "3/120 = 2.5 % (0.9 to 7.1)" """
    k, n = sum(hits), len(hits)
    if n == 0:
        return "-"
    low, high = wilson(k, n)
    return f"{k}/{n} = {100 * k / n:.1f} % ({low:.1f} to {high:.1f})"


def show_rates(console, title, cases):
    table = Table(title=title, title_justify="left")
    for column in ("detector", "false alarms, good", "misses, bad", "alarms, partial"):
        table.add_column(column, no_wrap=True)
    for name in (OURS, FORWARD, *(DETECTORS if ON_TENSORFLOW else ())):
        alarms = {
            label: [case.alarms[name] for case in cases if case.label == label]
            for label in ("good", "bad", "partial")
        }
        partial = alarms["partial"]
        table.add_row(
            name,
            rate(alarms["good"]),
            rate([not alarm for alarm in alarms["bad"]]),
            f"{sum(partial)}/{len(partial)}" if partial else "-",
            style="bold" if name == OURS else None,
        )
    console.print(table)


def show_attribution(console, title, cases):
    """Of the sick networks that ours finds and whose fault is known: is it named?"""
    found = [c for c in cases if c.label == "bad" and c.alarms[OURS] and c.direction]
    table = Table(title=f"{OURS}, found and known: {title}", title_justify="left")
    for column in ("fault", "right direction", "right first layer", "within one layer"):
        table.add_column(column, no_wrap=True)
    kinds = {
        "one bad layer": lambda c: " bad_layer " in c.name,
        "all layers": lambda c: " bad_layer " not in c.name,
        "all": lambda c: True,
    }
    for kind, belongs in kinds.items():
        direction, layer, near = [], [], []
        for case in filter(belongs, found):
            right = [f for f in case.findings if direction_of(f) == case.direction]
            direction.append(bool(right))
            if case.first_layer:
                names = [first_layer_of(f) for f in right]
                layer.append(case.first_layer in names)
                near.append(any(distance(n, case.first_layer) <= 1 for n in names))
        table.add_row(kind, rate(direction), rate(layer), rate(near))
    console.print(table)


def distance(one, other):
    """How far hidden_3 is from hidden_4: 1. Infinite between names of another kind."""
    if one == other:
        return 0
    stem, _, number = (one or "").rpartition("_")
    other_stem, _, other_number = other.rpartition("_")
    if stem != other_stem or not (number.isdigit() and other_number.isdigit()):
        return math.inf
    return abs(int(number) - int(other_number))


def show_errors(console, cases):
    for title, wrong in (
        ("false alarms", lambda c: c.label == "good" and c.alarms[OURS]),
        ("misses", lambda c: c.label == "bad" and not c.alarms[OURS]),
        (
            "wrong direction or first layer",
            lambda c: (
                c.label == "bad"
                and c.alarms[OURS]
                and c.direction
                and not any(
                    direction_of(f) == c.direction
                    and c.first_layer in (None, first_layer_of(f))
                    for f in c.findings
                )
            ),
        ),
    ):
        listed = [case for case in cases if wrong(case)]
        console.print(f"\n[bold]{OURS}, {title}: {len(listed)}")
        for case in listed:
            known = f" [{case.direction} from {case.first_layer}]" if case.direction else ""
            console.print(f"{case.half} {case.name}{known}", markup=False)
            for f in case.findings:
                numbers = ", ".join(f"{k} {v:.3g}" for k, v in f.evidence.items())
                ends = f"{f.layers[0]} .. {f.layers[-1]}" if f.layers else ""
                console.print(
                    f"    {f.code} ({f.severity}) {ends}: {numbers}", markup=False
                )


@functools.cache
def cases_of(is_applications, path, half):
    return list(applications() if is_applications else population(path, half))


def examined(task):
    """What the detectors say of one case; runs in a process of its own."""
    number, *what = task
    if ON_TENSORFLOW:
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        # Each graph runs once: to optimise it would cost more than it saves.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    case = cases_of(*what)[number]
    case.examine()
    return case.alarms, case.findings


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--applications", action="store_true")
    parser.add_argument("--half", choices=["calibrate", "report", "both"], default="both")
    parser.add_argument("--list", action="store_true", help="each false alarm and miss")
    parser.add_argument("--csv", default=str(trainability.POPULATION))
    parser.add_argument("--limit", type=int, help="only the first so many networks")
    parser.add_argument("--only", default="", help="only cases whose name has this in it")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    console = Console(width=None if os.isatty(1) else 140, highlight=False)
    what = arguments.applications, arguments.csv, arguments.half
    chosen = [(i, c) for i, c in enumerate(cases_of(*what)) if arguments.only in c.name]
    chosen = chosen[: arguments.limit]
    cases = [case for _, case in chosen]
    # Not concurrent.futures: its max_tasks_per_child hangs (python/cpython#115634).
    with multiprocessing.get_context("spawn").Pool(
        arguments.processes,
        maxtasksperchild=10 if arguments.applications else 30,  # they hold memory
    ) as pool:
        tasks = [(number, *what) for number, _ in chosen]
        for case, said in zip(cases, pool.imap(examined, tasks), strict=True):
            case.alarms, case.findings = said
            if arguments.applications:
                codes = ", ".join(f.code for f in case.findings) or "nothing"
                console.print(f"{case.name} ({case.label}): {codes}", markup=False)
    for half in dict.fromkeys(case.half for case in cases):
        of_half = [case for case in cases if case.half == half]
        counts = Counter(case.label for case in of_half)
        title = f"{half}: " + ", ".join(f"{n} {label}" for label, n in counts.items())
        show_rates(console, title, of_half)
        show_attribution(console, half, of_half)
    if arguments.list:
        show_errors(console, cases)


if __name__ == "__main__":
    main()

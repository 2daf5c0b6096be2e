"""The numbers on which rules and fixes turn, each with its unit and its source."""

from typing import NamedTuple


class Threshold(NamedTuple):
    """A number on which a rule turns.

    Attributes:
        value: The number, positive.
        unit: What it counts.
        source: Where it comes from.
    """

    value: float
    unit: str
    source: str


def limit(name: str) -> float:
    """The value of a threshold.

    Args:
        name: A key of `THRESHOLDS`.

    Raises:
        KeyError: If there is no such threshold.
    """
    return THRESHOLDS[name].value


_CALIBRATED = (
    "10 % above the largest value of the networks that train in the calibration halves of "
    "data/calibration.npz ({} of 166) and tests/benchmarks/trainability.csv ({} of 158)"
)

_KARPATHY = (
    "a rule of thumb: A. Karpathy, CS231n course notes, Neural Networks Part 3, Ratio of "
    "weights:updates (2015): about 1e-3"
)
_A_DECADE = "chosen, not calibrated: a decade from `update-ratio`"

THRESHOLDS = {
    # -- the size of the signal
    "exploding": Threshold(
        1.2,
        "decades of growth of the rms along a growth range that reaches the head",
        _CALIBRATED.format("1.09", "below"),
    ),
    "exploding-operations": Threshold(
        1.4,
        "decades of growth of the rms through operations between weight layers",
        "10 % above the largest value of 52 networks that train in the calibration half of "
        "tests/benchmarks/operations.csv (1.29)",
    ),
    "vanishing": Threshold(2.75, "decades of decay", _CALIBRATED.format("2.25", "2.50")),
    "significance": Threshold(
        3.0,
        "standard deviations of chance up to which growth is attributed to chance",
        "without it 4 % of well scaled networks 32 wide and 50 deep would be flagged",
    ),
    "critical": Threshold(
        2.0,
        "times the threshold above which a finding is critical instead of a warning",
        "plain SGD fails from about there, Adam trains through some decay",
    ),
    "limit-depth": Threshold(
        1000.0,
        "weight layers up to which a message names the depth of overflow or underflow",
        "chosen, not calibrated: deeper networks are hardly ever built",
    ),
    "input": Threshold(
        30.0,
        "times above or below 1 that the rms of the input may be",
        "digits times 100, times 0.01 or 0..255: plain SGD fails unless an activation "
        "function forgets the scale; every initializer assumes unit rms",
    ),
    "head": Threshold(
        10.0,
        "times above or below 1 that the rms may be at the head, if the input is unscaled",
        "as for input: networks that forgot the scale of the input lie within",
    ),
    "outlier": Threshold(
        1.0,
        "decades by which the gain of one layer must differ from that of its peers",
        "chosen, not calibrated: a factor of 10",
    ),
    "outlier-others": Threshold(
        0.5,
        "share of the outlier's distance that all other layers must stay below",
        "chosen, not calibrated: with a second layer as far off, none stands out",
    ),
    "outlier-down": Threshold(
        5.0,
        "decades by which the gain of one layer may fall short of that of its peers",
        "networks with one layer of 0.001 times its weights train, 5 of 9 with SGD as well",
    ),
    "peers": Threshold(
        3,
        "other layers that are needed before one may stand out from them",
        "the median of fewer layers is not a common gain",
    ),
    "operation": Threshold(
        0.5,
        "decades: an operation changes the size between two weight layers by more",
        "activation functions without a size of their own change it by 0.3 at most (SiLU)",
    ),
    "sum-or-product": Threshold(
        0.1,
        "decades, or share, by which size and mean may miss those of a product or sum",
        "rounding and chance are far below, other operations far above",
    ),
    # -- gradients
    "exploding-gradients": Threshold(
        1.6,
        "decades by which a gradient grows towards the input, predicted from the weights",
        _CALIBRATED.format("1.46", "below"),
    ),
    "vanishing-gradients": Threshold(
        3.0,
        "decades by which a gradient falls towards the input, predicted from the weights",
        _CALIBRATED.format("2.20", "2.71"),
    ),
    "measured-gradients": Threshold(
        3.0,
        "decades between the measured gradients at the first and the last layer of the "
        "trunk, by their norm per sample and by their rms",
        "30 healthy keras.applications lie between -2.0 and 2.5 by rms; perceptrons of 51 "
        "BN-ReLU layers are at 4.1 and do not train",
    ),
    "gradient-step": Threshold(
        0.5,
        "times the mean change of a gradient per layer from which on a layer is named",
        "chosen, not calibrated: half of the layers of an even growth lie above the mean",
    ),
    "no-gradient-samples": Threshold(
        4,
        "samples from which on a batch that passes no gradient is no chance",
        "an output of ReLU is zero for all of 4 samples by chance with probability 2^-4",
    ),
    "above-underflow": Threshold(
        3.0,
        "decades above the range of its dtype from which a gradient does not underflow "
        "in one layer",
        "chosen, not calibrated: a layer of a network that trains takes off less",
    ),
    "overflow": Threshold(
        1e10,
        "size of a gradient from which on infinity after it is overflow",
        "chosen, not calibrated: gradients of networks that train are below 1e3, and "
        "float32 ends at 3e38",
    ),
    # -- the data
    "constant-samples": Threshold(
        8,
        "samples from which on equal ones are a fault of the data",
        "chosen, not calibrated: 8 samples of one bit are equal with probability 2^-7",
    ),
    "law-of-loss": Threshold(
        0.03,
        "share by which a gradient may miss that of a mean squared, or absolute, error",
        "rounding is far below; a penalty on weights beyond it hides the error",
    ),
    "targets": Threshold(
        1000.0,
        "times by which targets may be larger than the output",
        "relu and tanh networks, targets of std 1 to 1e4, 3000 steps: from 1000 on "
        "SGD(0.01) fails (R^2 below 0.5), and Adam(0.001) does with tanh",
    ),
    # -- what the units say
    "collapse": Threshold(
        2.0,
        "decades by which the share of the rms that differs from sample to sample falls",
        "the largest value of a network that trains is 1.25 (sigmoid), of others 0.7",
    ),
    "collapse-rounding": Threshold(
        6.5,
        "decades below 1 at which the share that differs from sample to sample is rounding",
        "chosen, not calibrated: the resolution of float32 is 2^-23, 6.9 decades",
    ),
    "saturated": Threshold(
        0.8,
        "share of saturated outputs in more than half of the bounded layers",
        "networks that train have up to 0.73, tanh with N(0, 1) weights 0.85; gates "
        "of an LSTM that trains 0.65, of one that hardly does 0.89 (input times 30 and 100 "
        "in tests/benchmarks/recurrent.py)",
    ),
    "saturated-by-input": Threshold(
        0.4,
        "share of saturated outputs in the first layer if its input is too large",
        "50 sigmoids of one feature in -100..100 have 0.60, with a standard deviation of "
        "0.04 over the draw",
    ),
    "saturated-by-state": Threshold(
        0.5,
        "share of saturated gates if a recurrent kernel is too large",
        "tests/benchmarks/recurrent.py: a GRU with 0.53 does not train (accuracy 0.26), "
        "nor an LSTM with 0.72 (0.13); a GRU with 0.13 does (0.89), an LSTM with 0.16 half",
    ),
    "gates-law": Threshold(
        0.1,
        "decades by which the output of saturated gates may fall short of their law",
        "chosen, not calibrated: chance of 32 units and 64 samples is below 0.03",
    ),
    "saturated-too": Threshold(
        0.5,
        "times the threshold above which a finding names a saturated layer as well",
        "chosen, not calibrated: the layers next to saturated ones share their cause",
    ),
    "dead": Threshold(
        0.9,
        "share of ReLU units that are zero for all samples",
        "half of the units are zero by chance once all samples look alike (deep networks, "
        "initializers of mean 0); networks that train have up to 0.62 zeros",
    ),
    "dead-layers": Threshold(
        0.5,
        "share of the trunk's ReLU layers with mostly dead units that makes them critical",
        "each passes less than a tenth of its units on, a healthy one half: four such "
        "layers in a row leave 4 % of a gradient's rms",
    ),
    "dead-samples": Threshold(
        16,
        "samples below which no unit is called dead",
        "a healthy unit is zero for all of 16 samples with probability 2^-16",
    ),
    "mean-shift": Threshold(
        0.9,
        "absolute mean of the activations over their rms",
        "ReLU of independent inputs 0.56, networks that train up to 0.62",
    ),
    "common-gain": Threshold(
        5.0,
        "times by which weights multiply what their inputs share more than what differs",
        "weights drawn around 0 have |z| / sqrt(units), below 3; U(0, a) has "
        "sqrt(3 fan_in): 5 at 8 inputs",
    ),
    "narrowest": Threshold(
        16,
        "units below which the mean of a layer shows nothing about its initializer",
        "a mean over fewer units is large by chance",
    ),
    # -- causes
    "initialization-ends": Threshold(
        10,
        "steps up to which the first snapshot still shows the initialization",
        "of 167 healthy networks 1 crossed the thresholds at step 10 and 5 at step 300; "
        "one of our convolutional ones did so at step 40: by learning",
    ),
    "contradicted": Threshold(
        0.5,
        "decades between the measured and the predicted gain of a layer of an unknown kind",
        "the largest value of 2,919 layers without a normalization after them is 0.35 (the "
        "first 300 networks that tests/benchmarks/operations.py and trainability.py draw)",
    ),
    "excess": Threshold(
        0.1,
        "decades by which weights must be off to be the cause",
        "Glorot's before ReLU are off by 0.15; measured gains are within 0.04 of what the "
        "weights predict (facts/theory.md 3.7)",
    ),
    "excess-of-branch": Threshold(
        0.3,
        "decades by which the inner layers of a residual branch must be off to be named",
        "chosen, not calibrated: the last layer sets the size of a branch",
    ),
    "changed-weights": Threshold(
        1.0,
        "decades by which weights are off what their own initializer draws if they changed",
        "fan-out in place of fan-in, and padding, make less of a difference",
    ),
    "kernel-mean": Threshold(
        0.3,
        "mean over std of a kernel from which its mean is the cause",
        "a kernel of 100 weights drawn around 0 reaches it by chance once in 400",
    ),
    "kernel-mean-chance": Threshold(
        3.0,
        "standard deviations of chance beyond which the mean of a kernel is the cause",
        "the mean of few weights is large by chance, once in 370 beyond 3",
    ),
    "many-layers": Threshold(
        8,
        "layers with a wrong initializer from which on one line for all is shown as well",
        "chosen, not calibrated: VGG16, which takes no initializer, has 13 convolutions",
    ),
    "accounts-for": Threshold(
        0.5,
        "share of a finding's decades that may be left once its cause is undone",
        "chosen, not calibrated: the rest is another finding, after this one is fixed",
    ),
    "leaves-limits": Threshold(
        0.5,
        "share of saturated outputs below which weights of the right size would lie",
        "chosen, not calibrated: below `saturated`, with room for chance",
    ),
    # -- updates
    "update-ratio": Threshold(
        1e-3,
        "rms of the update of a kernel over that of the kernel, at a usual learning rate",
        _KARPATHY,
    ),
    "update-ratio-low": Threshold(
        1e-4, "the same: below this a layer hardly learns", _A_DECADE
    ),
    "update-ratio-high": Threshold(
        1e-2, "the same: above this the learning rate is usually too large", _A_DECADE
    ),
    "cut-off": Threshold(
        1e-8,
        "factor before the optimizer up to which it leaves nothing of a gradient",
        "chosen, not calibrated: a loss scale of 2^24 that is divided out by hand is 6e-8",
    ),
    "same-gradient": Threshold(
        1e-3,
        "share of a gradient that a factor does not explain",
        "chosen, not calibrated: float32 has 6e-8, float16 5e-4",
    ),
    "hardly-updated": Threshold(
        1e-6,
        "share of the update of an optimizer up to which weights are not updated",
        "chosen, not calibrated: a gradient that is clipped at 1 is not 1e6 for long",
    ),
    "above-rounding": Threshold(
        8.0,
        "times the rounding of a weight from which on an update cannot be lost",
        "chosen, not calibrated: 1 would be exact for the largest weight",
    ),
    "update-law": Threshold(
        0.01,
        "share by which an update may miss the law of its optimizer",
        "rounding of float16 is 5e-4; epsilon, weight decay and clipping are in the law",
    ),
    "put-back": Threshold(
        2,
        "snapshots in a row at which weights are as at the one before",
        "chosen, not calibrated: one may be a search for a learning rate, which puts them "
        "back once",
    ),
    "zero-rate": Threshold(
        2,
        "snapshots in a row with a learning rate of 0, after one with another",
        "chosen, not calibrated: a cyclic schedule may touch 0 in one step",
    ),
    "weight-decay": Threshold(
        0.1,
        "share of the weights that weight decay takes at each step",
        "chosen, not calibrated: AdamW's defaults take 4e-6, usual settings at most 1e-3",
    ),
    "replicas": Threshold(
        1e-5,
        "difference between replicas over the largest weight",
        "0 on equal devices; rounding on others is below 1e-6",
    ),
    "loss-scale": Threshold(
        1.0,
        "loss scale below which it is too small to prevent an underflow",
        "without a loss scale it is 1",
    ),
}

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
_EXCHANGEABLE = (
    "chosen, not calibrated: of {} values in any order the last ones are by chance the "
    "largest now and then, but not by so much"
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
    "diverging": Threshold(
        3.0,
        "times the first loss from which on training diverges",
        "chosen, not calibrated: a loss that learns is below that of the first step",
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
    "dead-steps": Threshold(
        3,
        "sampled steps over which a unit that dies in training must have been inactive",
        "chosen, not calibrated: one batch may be odd, and the next one like it",
    ),
    "dead-window": Threshold(
        128,
        "samples over which a unit that dies in training must have been inactive",
        "a unit that is active for 2 % of the samples is inactive for 128 of them with "
        "probability 0.98^128 = 0.08, for a batch of 32 with 0.52; `dead` of the units are "
        "so by chance only if each is active for less than 1 of 1,200 samples",
    ),
    "evaluation-window": Threshold(
        3,
        "sampled steps of training, from all of which evaluation differs",
        "chosen, not calibrated: one batch may be odd, and the next one like it",
    ),
    "evaluation-ratio": Threshold(
        0.5,
        "decades between the rms of a tensor in evaluation and in training, less what "
        "changes in this time",
        "chosen, not calibrated: a factor of 3.2; dropout of 0.8 makes 0.35",
    ),
    "moving-window": Threshold(
        3,
        "sampled steps in all of which batches differ from the moving statistics",
        "chosen, not calibrated: one batch may be odd, and the next one like it",
    ),
    "moving-apart": Threshold(
        100,
        "steps between two of these, or 1 / (1 - momentum) if that is less",
        "the moving statistics follow a jump in so many steps, with the default momentum",
    ),
    "moving-slower": Threshold(
        1.5,
        "times these steps from which on the momentum itself is the cause",
        "chosen, not calibrated: above the default of Keras, which has 1",
    ),
    "moving-settled": Threshold(
        5,
        "times 1 / (1 - momentum) updates, after which moving statistics have settled",
        "the initial value has then the weight e^-5 = 0.007",
    ),
    "moving-settled-by": Threshold(
        5000,
        "steps after which moving statistics have settled whatever the momentum",
        "5 / (1 - 0.999): no network of keras.applications has a larger momentum",
    ),
    "moving-shift": Threshold(
        1.0,
        "standard deviations by which the mean of a channel would be off in evaluation",
        "chosen, not calibrated: a ReLU after it passes 84 % of the inputs instead of half",
    ),
    "moving-scale": Threshold(
        0.3,
        "decades by which the std of a channel would be off in evaluation",
        "chosen, not calibrated: a factor of 2",
    ),
    "moving-misfit": Threshold(
        0.5,
        "decades by which the output differs from what fixed moving statistics promise",
        "chosen, not calibrated: a factor of 3.2, data of another kind may make less",
    ),
    "moving-batch": Threshold(
        8,
        "samples of a batch below which its statistics are too random to judge others by",
        "the variance over 8 samples has a relative standard deviation of 0.5",
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
    "large-updates": Threshold(
        0.1,
        "the same, on average over the layers, from which on it is a finding",
        "two decades from `update-ratio`; DeepDiagnosis (Wardat et al. 2022) has 0.1 too",
    ),
    "large-first-update": Threshold(
        0.3,
        "the same of the first step, from which on it explains why nothing was learned",
        "digits: Adam(0.01) begins with 0.08 at most and learns, Adam(0.1) with 0.5 to 0.8 "
        "and often does not",
    ),
    "large-updates-growth": Threshold(
        2.0,
        "times the size at first to which such steps make the weights grow",
        "digits: Adam(0.1) makes them 3 to 7 times as large, in tanh networks that fail",
    ),
    "small-updates": Threshold(
        1e-5,
        "the same, below which it is a finding if it was so from the beginning on",
        "two decades from `update-ratio`; in 56 healthy runs of `runs.py`, half calibrate, "
        "the largest ratio of the first 100 steps is at least 1.3e-3",
    ),
    "small-updates-steps": Threshold(
        100,
        "steps that updates must have been small for",
        "chosen, not calibrated: a learning rate that rises from 0 is small for a moment",
    ),
    # -- over time
    "window": Threshold(
        16, "snapshots that rules over time remember", "chosen, not calibrated"
    ),
    "window-spacing": Threshold(
        10,
        "steps between two remembered snapshots at least",
        "chosen, not calibrated: a run that samples every step remembers 160 steps",
    ),
    "patience": Threshold(
        3,
        "snapshots in a row that must show a condition, or no longer show it",
        "chosen, not calibrated: one odd batch is one snapshot",
    ),
    "patience-steps": Threshold(
        20,
        "steps that these snapshots must span at least",
        "chosen, not calibrated: snapshots of successive steps show one moment",
    ),
    "settled-steps": Threshold(
        20,
        "steps after the first one, before which nothing over time is judged",
        "chosen, not calibrated: the first steps of Adam are large, and the signal adapts",
    ),
    "learns": Threshold(
        0.5,
        "times the loss of the first snapshot, below which the network learns",
        "chosen, not calibrated: nothing is wrong over time with a network that learns",
    ),
    "learns-slowly": Threshold(
        0.95,
        "times the loss of the first snapshot, and of those before the last ones, below "
        "which the network still learns",
        "chosen, not calibrated: large models take long to halve their loss",
    ),
    "rising": Threshold(
        0.8,
        "share of pairs of snapshots of which the later one has the larger value",
        "chosen, not calibrated: noise has 0.5, with 0.09 standard deviation for 16 values",
    ),
    "loss-jump": Threshold(
        2.0, "times by which the loss must jump", _EXCHANGEABLE.format("16")
    ),
    "loss-jump-to": Threshold(
        0.5,
        "times the loss of the first snapshot that the loss must jump to",
        "as `learns`: a network that has not lost most of what it learned goes on learning",
    ),
    "scale-jump": Threshold(
        5.0,
        "times by which the rms of an output or a kernel must jump",
        _EXCHANGEABLE.format("16"),
    ),
    "jump-spread": Threshold(
        8.0,
        "robust standard deviations of the noise by which the logarithm must jump",
        _EXCHANGEABLE.format("16"),
    ),
    "jump-before": Threshold(
        4, "snapshots that are needed before a jump", "chosen, not calibrated"
    ),
    "jump-before-most": Threshold(
        8,
        "snapshots before a jump that it is compared with at most",
        "chosen, not calibrated: before them the loss was as high, when training began",
    ),
    "jump-sudden": Threshold(
        0.5,
        "share of a jump of scale that the first step of it must have",
        "chosen, not calibrated: a steady growth has a third in each of three snapshots",
    ),
    "growing-weights": Threshold(
        10.0,
        "times the rms of the first snapshot from which on weights have grown too far",
        "chosen, not calibrated: a decade",
    ),
    "growing-weights-gain": Threshold(
        10.0,
        "rms of weights times the square root of the fan-in from which on they are large",
        "chosen, not calibrated: a decade above LeCun's initializer, which has 1",
    ),
    "growing-weights-still": Threshold(
        1.2,
        "times by which weights must grow within the window",
        "chosen, not calibrated",
    ),
    "heavy-tail": Threshold(
        0.2,
        "share of the sum of squares of a tensor that its largest element has",
        "chosen, not calibrated: of 1000 normal values the largest has 0.01",
    ),
    "heavy-tail-before": Threshold(
        0.03,
        "the same share at the first snapshot at most",
        "chosen, not calibrated: the tail must have come up in training",
    ),
    "heavy-tail-samples": Threshold(
        4.0,
        "times the share of one sample in a batch that the largest element must have",
        "chosen, not calibrated: one unit that answers to one sample is no fault",
    ),
    "heavy-tail-elements": Threshold(
        1024,
        "elements below which one of them may have a large share by chance",
        "chosen, not calibrated: normal values have 2 ln(n) / n, 0.01 of 1024",
    ),
    "flat-loss": Threshold(
        0.02,
        "share by which the loss must fall from one half of the snapshots to the other",
        "chosen, not calibrated: less than 1 % per doubling of training",
    ),
    "flat-loss-errors": Threshold(
        2.0,
        "standard errors by which the loss must fall at least",
        "chosen, not calibrated: 2 % of flat losses fall by as much by chance",
    ),
    "flat-loss-snapshots": Threshold(
        8, "snapshots from which on a loss may be called flat", "chosen, not calibrated"
    ),
    "flat-loss-steps": Threshold(
        200, "steps from which on a loss may be called flat", "chosen, not calibrated"
    ),
    "flat-loss-of": Threshold(
        128, "snapshots that are compared, of more", "chosen, not calibrated"
    ),
    # -- how a step updates weights
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

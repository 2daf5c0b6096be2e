"""What a rule knows about the cause of a finding. Plain data; `fixes` turns it into a fix.

A rule has read the layers, the weights that compute them and the direction. It passes them
on, so that a fix does not have to find them again.
"""

import enum
from typing import Literal, NamedTuple

from activation_monitor.analysis.growth import GrowthRange
from activation_monitor.analysis.links import Link


class Along(NamedTuple):
    """An effect that adds up along a chain of weight layers.

    Attributes:
        chain: The weight layers in order; empty if they do not form a chain.
        decades: By how much the signal, or the gradient, grows along the chain.
        backward: Whether it is the gradient.
    """

    chain: tuple[Link, ...]
    decades: float
    backward: bool


Effect = Along | Literal["gain", "limits", "differences", "mean"]
"""How a finding depends on the size of weights: it adds up `Along` a chain; it is the
"gain" of one layer; outputs reach the "limits" of a bounded activation function; the
"differences" between samples get lost, which only some activation functions do; or it is a
"mean" over an rms, which no size of the weights changes."""


class Weights(NamedTuple):
    """Weight layers whose weights may be too large or too small.

    Attributes:
        rows: Rows of the tensors that the finding names.
        links: The weight layers that compute them.
        grows: Whether too large weights would explain it, else too small ones.
        effect: How the finding depends on the size of the weights.
        stream: The residual stream that the tensors belong to, if they do.
    """

    rows: tuple[int, ...]
    links: tuple[Link, ...]
    grows: bool
    effect: Effect
    stream: GrowthRange | None = None


class EqualWeights(NamedTuple):
    """Weight layers in which all weights are equal."""

    links: tuple[Link, ...]


class Zeros(NamedTuple):
    """Tensors that are zero for all samples.

    Attributes:
        rows: Rows of the tensors, in order.
        links: The weight layers that compute them.
        dead: Whether these are ReLU layers with dead units, else layers whose outputs are
            all zero.
    """

    rows: tuple[int, ...]
    links: tuple[Link, ...]
    dead: bool


class NonFinite(NamedTuple):
    """The tensor in which NaN or infinity appears first."""

    row: int


class InputScale(NamedTuple):
    """The first weight layer, whose input is too large or too small."""

    link: Link


class EmbeddingScale(NamedTuple):
    """An embedding whose vectors are too large, or all the same.

    Attributes:
        row: Row of its output.
        rms: Rms of its output.
    """

    row: int
    rms: float


class RecurrentKernel(NamedTuple):
    """A recurrent layer one of whose kernels is too large.

    Attributes:
        link: The layer.
        recurrent: Whether it is the recurrent kernel, else that of the input.
    """

    link: Link
    recurrent: bool


class Operations(NamedTuple):
    """Operations between weight layers.

    Attributes:
        names: Of the tensors that they compute.
        grows: Whether they make the signal larger.
    """

    names: tuple[str, ...]
    grows: bool


class UnknownKind(NamedTuple):
    """Layers that change the gradient by more than their weights account for.

    Attributes:
        rows: Rows of their outputs.
        links: Those that are weight layers, by row.
        decades: By how much each multiplies the gradient, on average.
    """

    rows: tuple[int, ...]
    links: dict[int, Link]
    decades: float


class Reason(enum.Enum):
    """Why no gradient passes a layer."""

    ONE_CLASS = "a softmax over one unit"
    RECTIFIED = "an output that a rectifier makes zero"
    BRANCH = "a branch that a rectifier makes zero"
    SATURATED = "an output at the limits of its activation function"
    STEPS = "an output that varies in steps"
    CUT = "an operation without a derivative, or one that stops the gradient"


class Blocked(NamedTuple):
    """A tensor that passes no gradient to what it is computed from.

    Attributes:
        row: Its row.
        reason: Why.
        parents: Rows of the tensors that it is computed from.
    """

    row: int
    reason: Reason
    parents: tuple[int, ...]


class SameInput(NamedTuple):
    """Inputs of the model that are the same for every sample."""

    rows: tuple[int, ...]


class TargetScale(NamedTuple):
    """Targets that are far larger than the output.

    Attributes:
        row: Row of the output.
        error: Rms of output minus target.
    """

    row: int
    error: float


class NonFiniteGradient(NamedTuple):
    """The tensor whose gradient is NaN or infinite first, on the way back.

    Attributes:
        row: Its row.
        after: Row of the tensor computed from it whose gradient is finite; None if the
            loss itself gives it.
        overflows: Whether gradients of a size that no healthy step has lead there.
    """

    row: int
    after: int | None
    overflows: bool


class NonFiniteLoss(NamedTuple):
    """A loss that is NaN or infinite although no activation is known to be.

    Attributes:
        measured: Whether the activations of that step were measured, so that the loss is
            the first such value.
    """

    measured: bool


class Steps(NamedTuple):
    """The steps of training, for what has come up in training.

    Attributes:
        ratio: Update-to-weight ratio, the geometric mean over the layers; NaN if it was not
            measured.
        shows: What has come up: updates of the wrong "size"; outputs that carry no more
            "signal"; a "jump"; a jump of an "input" of the model; a heavy "tail"; or
            "growth" of the weights.
    """

    ratio: float
    shows: Literal["size", "signal", "jump", "input", "tail", "growth"]


class MovingStatistics(NamedTuple):
    """Batch normalizations whose moving statistics do not follow the batches.

    Attributes:
        rows: Their rows.
        momentum: The largest momentum.
    """

    rows: tuple[int, ...]
    momentum: float


class FixedStatistics(NamedTuple):
    """Batch normalizations that use moving statistics of other data in training."""

    rows: tuple[int, ...]


class Unmoved(enum.Enum):
    """Why a step does not update weights. The first ones explain the others."""

    NO_OPTIMIZER = "no optimizer is called"
    NOT_GIVEN = "the optimizer is not given them"
    CUT_OFF = "the step multiplies the gradient by zero"
    CLIPPED = "the optimizer clips the gradient to nothing"
    CONSTRAINED = "the constraint takes the update back"
    UNDONE = "something takes the update back"
    PUT_BACK = "something puts the weights back after the step"
    NO_RATE = "the learning rate is zero"


class NotApplied(NamedTuple):
    """Weights that get a gradient and are not updated.

    Attributes:
        rows: Rows of the layers.
        reason: Why.
        clipping: The argument by which the optimizer clips; empty if it does not.
    """

    rows: tuple[int, ...]
    reason: Unmoved
    clipping: str


class Misapplied(enum.Enum):
    """How an update differs from what optimizer and gradient imply."""

    OF_ANOTHER = "the gradient of other weights is applied"
    REPEATED = "a gradient is applied several times"
    NOT_UNSCALED = "gradients are not divided by the loss scale"
    NOT_SCALED = "the loss is not multiplied by the loss scale"
    ASCENT = "the gradient has the wrong sign"
    LAW = "the update has another size"
    FROZEN = "the weights are frozen"


class WrongUpdate(NamedTuple):
    """Weights whose update is not what optimizer and gradient imply.

    Attributes:
        rows: Rows of the layers.
        reason: How.
        number: How many times, or the row of the other weights.
    """

    rows: tuple[int, ...]
    reason: Misapplied
    number: float


class Decay(NamedTuple):
    """Weight decay that takes a large share of the weights at each step.

    Attributes:
        rows: Rows of the layers.
        share: The share.
    """

    rows: tuple[int, ...]
    share: float


class Replicas(NamedTuple):
    """Rows of layers whose replicas have different weights."""

    rows: tuple[int, ...]


class EvaluationDiffers(NamedTuple):
    """The tensor in which evaluation and training part."""

    row: int


class StuckScale(NamedTuple):
    """Rows of layers whose gradients are not finite at the smallest loss scale."""

    rows: tuple[int, ...]


Cause = (
    Weights
    | EqualWeights
    | Zeros
    | NonFinite
    | InputScale
    | EmbeddingScale
    | RecurrentKernel
    | Operations
    | UnknownKind
    | Blocked
    | SameInput
    | TargetScale
    | NonFiniteGradient
    | NonFiniteLoss
    | Steps
    | MovingStatistics
    | FixedStatistics
    | EvaluationDiffers
    | NotApplied
    | WrongUpdate
    | Decay
    | Replicas
    | StuckScale
)

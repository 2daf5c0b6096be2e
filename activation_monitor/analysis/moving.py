"""How far the moving statistics of a batch normalization are from those of its batches.

Training normalizes with the mean `m` and variance `v` of the batch, evaluation with moving
statistics `M` and `V`. For a channel of the batch, the output before `gamma` and `beta` has
mean 0 and std 1 in training; in evaluation it would have

    mean (m - M) / sqrt(V + epsilon)    and    std sqrt((v + epsilon) / (V + epsilon)).

The statistics of the batch need not be measured: a step with one update changes `M` to
`momentum M + (1 - momentum) m`, so `m = M + (M' - M) / (1 - momentum)`, and `v` likewise.
Several updates give a weighted mean of the batches, with `momentum^updates`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from activation_monitor.analysis.thresholds import limit

FIELDS = ("momentum", "steps", "shift", "scale", "misfit")
"""What is known of a normalization layer: its momentum; how many sampled steps the window
has, far enough apart that the moving statistics could have followed from one to the next;
and what is common to all of them and the last step. That is the mean that a channel would
have in evaluation, in standard deviations (the median over channels of its size); the
decades by which its std would differ; and, of a layer that uses its moving statistics in
training, the decades by which the rms of its output differs from what they promise. NaN
where it does not apply."""


class Deviation(NamedTuple):
    """How one step differs from what the moving statistics stand for.

    Attributes:
        step: The step.
        shift: Mean of each channel in evaluation, `(channels,)`; empty if the step did not
            change the moving statistics.
        scale: Decades between the std of each channel in evaluation and in training.
        misfit: Decades between the measured rms of the output and the expected one; NaN if
            the step changed the moving statistics.
    """

    step: int
    shift: np.ndarray
    scale: np.ndarray
    misfit: float


def deviation(
    step: int,
    before: np.ndarray,
    after: np.ndarray,
    momentum: float,
    updates: int,
    epsilon: float,
) -> Deviation:
    """The deviation of a step that normalized with the statistics of its batch.

    Args:
        step: The step.
        before: Moving mean and variance before the step, `(2, channels)`.
        after: The same after it.
        momentum: Of the layer, below 1.
        updates: How often the step updated them.
        epsilon: Of the layer.
    """
    kept = momentum**updates
    old, new = before.astype(np.float64), after.astype(np.float64)
    mean, variance = old + (new - old) / (1.0 - kept)
    shift = (mean - old[0]) / np.sqrt(old[1] + epsilon)
    ratio = (np.maximum(variance, 0.0) + epsilon) / (old[1] + epsilon)
    decades = np.log10(ratio) / 2.0
    return Deviation(step, shift.astype(np.float32), decades.astype(np.float32), np.nan)


def of_fixed(
    step: int,
    fixed: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    epsilon: float,
    rms: float,
) -> Deviation:
    """The deviation of a step that normalized with the moving statistics.

    If they fit, the output has the mean square `mean(gamma^2 V / (V + epsilon) + beta^2)`.

    Args:
        step: The step.
        fixed: Moving mean and variance, `(2, channels)`.
        gamma: The scale of each channel, `(channels,)` or `()`.
        beta: The offset of each channel, `(channels,)` or `()`.
        epsilon: Of the layer.
        rms: The measured rms of the output.
    """
    variance, nothing = fixed[1].astype(np.float64), np.zeros(0, np.float32)
    passed = variance / (variance + epsilon)
    squares: np.ndarray = np.square(gamma) * passed + np.square(beta)
    square = float(squares.mean())
    known = square > 0 and rms > 0 and math.isfinite(rms)
    misfit = math.log10(rms / math.sqrt(square)) if known else math.nan
    return Deviation(step, nothing, nothing, misfit)


def row(momentum: float, window: Sequence[Deviation], last: Deviation) -> np.ndarray:
    """What is known of a layer after a sampled step, `(len(FIELDS),)`.

    Args:
        momentum: Of the layer.
        window: The deviations that `window_after` has kept.
        last: The deviation of the last step.
    """
    same = [*window, last]
    shift = scale = np.nan
    if last.shift.size:
        shift = float(np.median(np.abs(_common([one.shift for one in same]))))
        scale = float(np.median(_common([one.scale for one in same])))
    misfit = float(_common([np.array(one.misfit) for one in same]))
    return np.array([momentum, len(window), shift, scale, misfit], np.float64)


def window_after(
    window: Sequence[Deviation], last: Deviation, momentum: float
) -> tuple[Deviation, ...]:
    """The deviations to keep after a sampled step: a few, far enough apart.

    Args:
        window: Those that were kept before.
        last: That of the step. It is kept if it is far enough from the one before. If the
            steps are counted from 0 again, or the layer now uses its statistics in another
            way, it is the first one.
        momentum: Of the layer.
    """
    apart = limit("moving-apart")
    if not last.shift.size:
        apart = 1.0  # they follow nothing
    elif momentum < 1:
        apart = min(apart, 1.0 / (1.0 - momentum))
    if window and window[-1].step <= last.step:
        before = window[-1]
        if before.shift.shape == last.shift.shape:
            if last.step - before.step < apart - 0.5:
                return tuple(window)
            return (*window, last)[-int(limit("moving-window")) :]
    return (last,)


def _common(values: Sequence[np.ndarray]) -> np.ndarray:
    """The part that all have: the smallest one if all have the same sign, else 0."""
    low, high = np.minimum.reduce(values), np.maximum.reduce(values)
    return np.maximum(low, 0.0) + np.minimum(high, 0.0)

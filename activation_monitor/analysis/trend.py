"""What a short series shows: that it jumped, that it keeps rising, that it does not fall.

Robust statistics: medians, and the median absolute deviation (MAD) times 1.4826, which is
the standard deviation of a normal distribution (F. R. Hampel 1974, The influence curve and
its role in robust estimation). A few odd values change none of them by much.
"""

from typing import NamedTuple

import numpy as np

_OF_NORMAL = 1.4826


def spread(values: np.ndarray) -> np.ndarray:
    """A robust standard deviation along the first axis.

    Args:
        values: Array of shape `(n, ...)`, without NaN, or the result is NaN.

    Returns:
        Array of shape `(...)`, in the unit of the values.
    """
    return _OF_NORMAL * np.median(np.abs(values - np.median(values, axis=0)), axis=0)


class Jump(NamedTuple):
    """A series that went up and stayed there.

    Attributes:
        row: The first value after the jump.
        before: The median before it.
        after: The median from it on.
    """

    row: int
    before: float
    after: float


def jump(
    values: np.ndarray,
    least: float,
    spreads: float,
    least_before: int,
    least_after: int,
    sudden: float = 0.0,
) -> Jump | None:
    """Where a series went up and stayed there; None if it did not.

    It jumped at a row if all values from there on exceed all values before, and the medians
    differ by more than `least` and by more than `spreads` times the robust standard
    deviation on either side. Noise around one level does not do this, and a single odd
    value cannot.

    Args:
        values: Array of shape `(n,)`. With a value that is not finite there is no jump.
        least: Difference of the medians at least, in the unit of the values.
        spreads: Difference of the medians at least, in robust standard deviations.
        least_before: How many values before it are needed.
        least_after: How many values from it on are needed.
        sudden: Share of the difference that the first step must have, so that a steady
            rise is no jump. Defaults to `0.0`.
    """
    values = np.asarray(values, float)
    if not np.isfinite(values).all():
        return None
    highest = np.maximum.accumulate(values)  # up to each row
    lowest = np.minimum.accumulate(values[::-1])[::-1]  # from each row on
    apart = np.flatnonzero(lowest[1:] > highest[:-1]) + 1
    for row in apart[::-1].tolist():
        low, high = values[:row], values[row:]
        if row < least_before or len(high) < least_after:
            continue
        before, after = float(np.median(low)), float(np.median(high))
        if after - before <= least:
            continue
        noise = max(float(spread(low)), float(spread(high)))
        steep = values[row] - values[row - 1] >= sudden * (after - before)
        if after - before > spreads * noise and steep:
            return Jump(row, before, after)
    return None


def rising(values: np.ndarray) -> np.ndarray:
    """The share of pairs of values of which the later one is larger.

    It is `(tau + 1) / 2` without ties, with the rank correlation `tau` of values and time
    (M. G. Kendall 1938, A new measure of rank correlation): 1 for a series that never
    falls, 1/2 for noise.

    Args:
        values: Array of shape `(n, ...)` with `n > 1`. A pair with NaN does not rise.

    Returns:
        Array of shape `(...)`, from 0 to 1.
    """
    early, late = np.triu_indices(len(values), 1)
    return (values[late] > values[early]).mean(axis=0)


def falls(values: np.ndarray, tolerance: float, spreads: float) -> bool:
    """Whether the second half of a series is below the first one.

    Args:
        values: Array of shape `(n,)`, finite, with `n > 1`.
        tolerance: By which share of the size of the first half it must be below at least.
        spreads: By how many standard errors of a median it must be below at least.
    """
    early, late = values[: len(values) // 2], values[len(values) // 2 :]
    # The standard error of a median of normal values is sqrt(pi / 2) times that of a mean.
    error = np.hypot(
        *(spread(half) * np.sqrt(np.pi / 2 / len(half)) for half in (early, late))
    )
    by = float(np.median(early) - np.median(late))
    return by > max(tolerance * abs(float(np.median(early))), spreads * float(error))

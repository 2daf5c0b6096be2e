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
    before: tuple[int, int],
    least_after: int,
    sudden: float = 0.0,
) -> Jump | None:
    """Where a series went up and stayed there; None if it did not.

    It jumped at a row if all values from there on exceed the ones before, and the medians
    differ by more than `least` and by more than `spreads` times the noise. The noise is the
    robust standard deviation of the differences of successive values, over sqrt(2): neither
    a trend nor the jump itself changes it. A single odd value is no jump.

    Args:
        values: Array of shape `(n,)`. With a value that is not finite there is no jump.
        least: Difference of the medians at least, in the unit of the values.
        spreads: Difference of the medians at least, in standard deviations of the noise.
        before: How many values before it are needed, and how many are compared at most.
        least_after: How many values from it on are needed.
        sudden: Share of the difference that the first step must have, so that a steady
            rise is no jump. Defaults to `0.0`.
    """
    values = np.asarray(values, float)
    if len(values) < before[0] + least_after or not np.isfinite(values).all():
        return None
    lowest = np.minimum.accumulate(values[::-1])[::-1]  # from each row on
    for row in range(len(values) - least_after, before[0] - 1, -1):
        low, high = values[max(row - before[1], 0) : row], values[row:]
        if lowest[row] <= low.max():
            continue
        level, after = float(np.median(low)), float(np.median(high))
        noise = float(spread(np.diff(values))) / np.sqrt(2)
        steep = values[row] - values[row - 1] >= sudden * (after - level)
        if after - level > max(least, spreads * noise) and steep:
            return Jump(row, level, after)
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


def falls(values: np.ndarray, row: int, tolerance: float, spreads: float) -> bool:
    """Whether a series is lower from a row on than before it.

    Args:
        values: Array of shape `(n,)`, finite.
        row: A row with values on either side.
        tolerance: By which share of the size before it must be lower at least.
        spreads: By how many standard errors of a median it must be lower at least.
    """
    early, late = values[:row], values[row:]
    # The standard error of a median of normal values is sqrt(pi / 2) times that of a mean.
    error = np.hypot(
        *(spread(part) * np.sqrt(np.pi / 2 / len(part)) for part in (early, late))
    )
    by = float(np.median(early) - np.median(late))
    return by > max(tolerance * abs(float(np.median(early))), spreads * float(error))

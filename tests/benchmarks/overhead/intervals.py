"""Medians with intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

COVERAGE = 0.95


class Median(NamedTuple):
    """A median and the interval that contains it with probability `COVERAGE`."""

    median: float
    low: float
    high: float
    count: int


def median(values: Sequence[float]) -> Median:
    """The median and its interval between two order statistics, free of a distribution.

    The number of values below the median is binomial, so that the k-th smallest and the
    k-th largest value enclose it with a known probability. Below 6 values no two values
    do so with `COVERAGE`; then the interval is their range.
    """
    ordered = np.sort(np.asarray(values, float))
    n = len(ordered)
    # The largest k for which fewer than k of n values lie below with at most 2.5 %.
    k = int(stats.binom.ppf((1 - COVERAGE) / 2, n, 0.5))
    k = max(k, 1)
    return Median(float(np.median(ordered)), float(ordered[k - 1]), float(ordered[-k]), n)

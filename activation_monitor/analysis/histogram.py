"""The histogram stored with a record: its layout, and how it is read.

A histogram is a float64 vector: the stride at which elements were taken, the smallest
and the largest of them, and the counts of `BUCKETS` buckets of equal width between the
two. `tf.summary.histogram` would count the same for these elements.
"""

from typing import NamedTuple

import numpy as np

from activation_monitor.analysis.shown import one_line

BUCKETS = 30
"""Number of buckets, as in `tf.summary.histogram`."""

EXACT_UP_TO = 2**14
"""Number of elements of a tensor up to which all are counted; above it, one in `stride`."""

KERNELS_EXACT_UP_TO = 2**12
"""The same for the measured rows of a kernel and of its gradient. A kernel has no outliers
that come and go with the samples, and there are as many kernels as layers."""

SLOTS = ("stride", "low", "high", *(f"bucket_{i}" for i in range(BUCKETS)))
"""The names of the numbers of a histogram, in order."""


def _growing_primes(limit: int, ratio: float) -> tuple[int, ...]:
    primes, candidate = [1, 2], 3
    while primes[-1] < limit:
        # The cheap condition first: this runs when the module is imported.
        if candidate < 50 or candidate > ratio * primes[-1]:
            if all(candidate % p for p in range(2, int(candidate**0.5) + 1)):
                primes.append(candidate)
        candidate += 2
    return tuple(primes)


# For tensors of up to 2^31 elements; far enough apart to keep the list short.
STRIDES = _growing_primes(limit=2**31 // EXACT_UP_TO, ratio=1.1)
"""The possible strides: 1 and primes."""


def stride_of(elements: int, units: int, most: int = EXACT_UP_TO) -> int:
    """The stride at which a tensor is sampled.

    It is 1, or a prime that does not divide the number of units: the sample then visits
    all units alike.

    Args:
        elements: The number of elements.
        units: The number of elements of one row.
        most: The number of elements to take at most. Defaults to `EXACT_UP_TO`.

    Returns:
        The smallest of `STRIDES` that leaves at most `most` elements.
    """
    fits = (n for n in STRIDES if n * most >= elements and (n == 1 or units % n))
    return next(fits, STRIDES[-1])


class Histogram(NamedTuple):
    """A histogram in the form that TensorBoard shows.

    Attributes:
        stride: 1 if every element was counted, n if one in n was.
        rows: Array of shape `(BUCKETS, 3)`: left edge, right edge, count.
    """

    stride: int
    rows: np.ndarray

    @one_line
    def __repr__(self) -> str:
        counted = f"{self.rows[:, 2].sum():.0f} elements"
        which = counted if self.stride == 1 else f"{counted}, one in {self.stride}"
        return f"of {which}, from {self.rows[0, 0]:.3g} to {self.rows[-1, 1]:.3g}"


def unpack(vector: np.ndarray) -> Histogram | None:
    """Convert a histogram vector to edges and counts.

    The edges are `numpy.linspace(low, high)`, the last one exactly `high`. If all elements
    are equal, all edges are that value and the last bucket has the count.

    Args:
        vector: Array of shape `(len(SLOTS),)`.

    Returns:
        A `Histogram`, or None if there was no finite element.
    """
    stride, low, high = (float(number) for number in vector[:3])
    counts: np.ndarray = vector[3:]
    if not counts.sum() > 0:
        return None
    edges = np.linspace(low, high, BUCKETS + 1)
    rows = np.column_stack((edges[:-1], edges[1:], counts))
    return Histogram(int(stride), rows)


def pack(histogram: Histogram) -> np.ndarray:
    """Convert a histogram back to its vector, the inverse of `unpack`."""
    rows = histogram.rows
    head = [histogram.stride, rows[0, 0], rows[-1, 1]]
    return np.concatenate([head, rows[:, 2]]).astype(np.float64)


def scaled(vectors: np.ndarray, factor: float) -> np.ndarray:
    """The histograms of tensors that are multiplied by a positive factor.

    Args:
        vectors: Array of shape `(..., len(SLOTS))`.
        factor: The factor.
    """
    found = vectors.copy()
    found[..., 1:3] *= factor
    return found


def none(*shape: int) -> np.ndarray:
    """Vectors without counts, of shape `(*shape, len(SLOTS))`."""
    return np.zeros((*shape, len(SLOTS)))

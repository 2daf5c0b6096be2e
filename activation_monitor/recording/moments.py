"""The moments of a matrix `(batch, units)`, in its own dtype.

The plain mean and standard deviation overflow at 1e17 and die at 1e-18, and they cost
several reads and a copy of the tensor. A record must be right over the whole range of the
dtype, and the graph must stay small, because every layer has one. So there are two passes:

* The quick pass reads the tensor four times and makes no copy: the sum and the extremes of
  each unit, and the sum of squares. This suffices for magnitudes whose squares neither
  overflow nor underflow, and where the variance within the units is not far smaller than
  the mean square. Where it does not suffice, the pass goes on in the same step: it scales
  by a power of two taken from the largest magnitude (which is exact), subtracts the first
  row, and takes squares about the mean of each unit. XLA fuses this, so there it is all.
* The exact pass does the same, leaves non-finite elements out, and rebuilds subnormals from
  their bits, since TensorFlow flushes them to zero. It costs several times more.

Written in `keras.ops`, without float64 and dynamic strides, which JAX does not have.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from activation_monitor.analysis import raw
from activation_monitor.recording import ops

# Between these magnitudes float32 squares can neither overflow nor be flushed, even
# summed over a large batch: no scaling needed.
_PLAIN_RANGE = (1e-12, 1e12)

# Sums of squares are right to 1e-7. Where the variance within units is below this part of
# the mean square, the root of their difference is not right to 1e-6. In a well scaled
# network of ReLUs it is below from about depth 20 on.
_CANCELS_BELOW = 1 / 16

# TensorFlow sums the columns of fewer rows to 2e-7; those of more are summed in blocks.
_MANY_ROWS = 1025

# So many numbers at a time are added up one by one. TensorFlow's kernels are faster with
# large blocks, and XLA adds up one by one what TensorFlow adds up as a tree.
_BLOCK, _FUSED_BLOCK = 256, 32

_SMALLEST_NORMAL = 0x00800000  # the bits of 2^-126
_MAGNITUDE = 0x7FFFFFFF  # all bits but the sign


class Moments(NamedTuple):
    """What is measured of a matrix `(batch, units)`.

    Attributes:
        values: Vector of the numbers of `raw.MOMENTS`. Those before the number of
            non-finite elements mean nothing if there are any that were not left out.
        unit_is_zero: Boolean vector `(units,)`: all elements of the unit are zero.
    """

    values: Any
    unit_is_zero: Any


class Primitives(NamedTuple):
    """What a backend may do better than the functions of Keras.

    Attributes:
        sum_of_squares: Returns the sum of the squares of a matrix.
        rarely: Calls a function with tensors. Its graph need not be part of this one,
            because it seldom runs. The function is traced once for tensors of a kind.
    """

    sum_of_squares: Callable[[Any], Any]
    rarely: Callable[..., Any]


def quick(
    x: Any, lengths: tuple[Any, Any], primitives: Primitives | None = None
) -> Moments:
    """The moments from sums about zero, or about the first row where those do not suffice.

    Args:
        x: Floating-point tensor `(batch, units)`.
        lengths: The numbers of rows and units.
        primitives: Those of the backend. Defaults to `None`: XLA compiles the step.
    """
    low, high = ops.min(x, axis=0), ops.max(x, axis=0)
    lowest, highest = ops.min(low), ops.max(high)

    if primitives is None:  # it costs no more, and a branch would
        values = _careful(x, lowest, highest, fused=True)
    else:
        suffices, simple = _about_zero(x, lengths, lowest, highest, primitives)
        values = ops.cond(
            suffices,
            lambda: simple,
            lambda: primitives.rarely(_careful, x, lowest, highest),
        )
    return Moments(values, (low == 0) & (high == 0))


def _careful(x, lowest, highest, fused=False):
    """The values by squares about the first row, scaled."""
    exponent = exponent_of(ops.maximum(-lowest, highest))
    scale = power_of_two(-exponent, x.dtype)
    found = _about_first(x * scale, fused)
    extremes = lowest * scale, highest * scale
    return ops.stack([exponent, *found, *extremes, *total(~ops.isfinite(x))])


def _is_plain(largest):
    return (largest > _PLAIN_RANGE[0]) & (largest < _PLAIN_RANGE[1])


def _about_zero(x, lengths, lowest, highest, primitives):
    """Whether sums about zero suffice, and the values from them."""
    batch, units = (ops.cast(length, x.dtype) for length in lengths)
    unit_mean = ops.sum(x, axis=0) / batch
    mean = ops.mean(unit_mean)
    square = primitives.sum_of_squares(x) / (batch * units)
    within = square - ops.mean(ops.square(unit_mean))
    between = ops.mean(ops.square(unit_mean - mean))
    largest = ops.maximum(-lowest, highest)
    suffices = _is_plain(largest) & (within > _CANCELS_BELOW * square)  # no, if one is NaN
    suffices = suffices & (batch < _MANY_ROWS)
    zero = ops.zeros_like(mean)
    values = [zero, mean, within, between, lowest, highest, zero, zero]
    return suffices, ops.stack(values)


def of_each(xs: Sequence[Any], primitives: Primitives) -> tuple[Any, Any]:
    """The values of several matrices `(elements, 1)`, from sums about zero.

    The arithmetic with the sums is done for all of them together, because hundreds of small
    operations cost more than the reads.

    Args:
        xs: Float32 tensors of shape `(elements, 1)`, whose elements are known.
        primitives: Those of the backend.

    Returns:
        Tensor of shape `(len(xs), len(raw.MOMENTS))`, see `Moments`; and a boolean tensor
        `(len(xs),)`: whether sums about zero suffice.
    """
    elements = ops.convert_to_tensor([float(x.shape[0]) for x in xs], "float32")
    low, high = (ops.stack([f(x) for x in xs]) for f in (ops.min, ops.max))
    mean = ops.stack([ops.sum(x) for x in xs]) / elements
    square = ops.stack([primitives.sum_of_squares(x) for x in xs]) / elements
    variance = square - ops.square(mean)
    largest = ops.maximum(-low, high)
    suffices = _is_plain(largest) & (variance > _CANCELS_BELOW * square)
    zero = ops.zeros_like(mean)
    values = ops.stack([zero, mean, variance, zero, low, high, zero, zero], axis=-1)
    return values, suffices | (largest == 0)


def exact(x: Any, there: Any = None, fused: bool = False) -> tuple[Moments, Any, Any]:
    """The moments of all finite elements, subnormals included.

    Args:
        x: Floating-point tensor `(batch, units)`.
        there: Boolean tensor of the same shape: which elements exist. Defaults to `None`,
            all of them.
        fused: Whether XLA compiles the step. Defaults to `False`.

    Returns:
        The moments; which elements count, as a boolean tensor; and which of those are
        exactly zero.
    """
    there = ops.ones_like(x, dtype="bool") if there is None else there
    finite = ops.isfinite(x) & there
    x = ops.where(finite, x, ops.zeros_like(x))
    if is_double(x):
        exponent = _exponent_of_double(ops.max(ops.abs(x)))
        y, zero = x * ops.power(ops.cast(2.0, x.dtype), -exponent), x == 0
    else:
        exponent, y, zero = _scaled_with_subnormals(x)
    weight = ops.cast(finite, y.dtype)
    about_first = _about_first(y, fused, weight)
    extremes = ops.min(ops.where(finite, y, np.inf)), ops.max(ops.where(finite, y, -np.inf))
    nonfinite = there & ~finite
    values = [exponent, *about_first, *extremes, *total(nonfinite)]
    values = ops.stack([ops.cast(value, "float32") for value in values])
    # NaN is not zero.
    unit_is_zero = ops.all(zero & ~nonfinite, axis=0)
    return Moments(values, unit_is_zero), finite, zero & finite


def total(flags: Any) -> tuple[Any, Any]:
    """How many of a matrix of flags are true, in two parts: multiples of `raw.BASE`, rest.

    Float32 holds integers up to 2^24 only. Each column may have so many.
    """
    by_unit = ops.sum(ops.cast(flags, "float32"), axis=0)
    parts = ops.floor(by_unit / raw.BASE)
    return ops.sum(parts), ops.sum(by_unit - parts * raw.BASE)


def blocked_sum(x: Any) -> Any:
    """The sum of a matrix, which XLA would add up one by one.

    Args:
        x: Floating-point tensor whose shape is known.
    """
    lengths = tuple(x.shape)
    return _total(_column_sums(x, lengths, fused=True), lengths, fused=True)


def is_double(x: Any) -> bool:
    """Whether a tensor is float64."""
    return keras.backend.standardize_dtype(x.dtype) == "float64"


def exponent_of(largest: Any) -> Any:
    """The exponent of two that scales a magnitude to about 1, as an integer in float32.

    Args:
        largest: A scalar, not negative. NaN and infinity have some exponent.

    Returns:
        -126 to 126: both `2^exponent` and `2^-exponent` are normal numbers.
    """
    if is_double(largest):
        return _exponent_of_double(largest)
    return ops.cast(_exponent_bits(largest) - 127, "float32")


def power_of_two(exponent: Any, dtype: str) -> Any:
    """`2^exponent` for a whole number from -126 to 127, without rounding."""
    if keras.backend.standardize_dtype(dtype) == "float64":
        return ops.power(ops.cast(2.0, dtype), exponent)
    shifted = ops.left_shift(ops.cast(exponent, "int32") + 127, 23)
    return bits_as(shifted, "float32")


def bits_as(x: Any, dtype: str) -> Any:
    """The bits of each element as an element of another dtype of the same size.

    With an axis of length 1 at the end: `ops.view` of Keras 3.12 needs a last axis, and one
    whose length is known.
    """
    return ops.squeeze(ops.view(ops.expand_dims(x, -1), dtype), -1)


def _about_first(y, fused, weight=None):
    """Mean, variance within and variance between, by two passes about the first row."""
    lengths = ops.shape(y)
    shift = ops.sum(y[:1], axis=0)  # a vector also if there are no rows
    z = y - shift
    if weight is None:
        batch, units = (ops.cast(length, y.dtype) for length in lengths)
        n = batch * units
    else:
        z = z * weight
        batch = _column_sums(weight, lengths, fused)
        n = ops.maximum(_total(batch, lengths, fused), 1.0)
    unit_mean = _column_sums(z, lengths, fused) / ops.maximum(batch, 1.0)
    deviation = ops.square(z - unit_mean)
    if weight is not None:
        deviation = deviation * weight
    within = _total(_column_sums(deviation, lengths, fused), lengths, fused) / n
    # About the mean of the first unit, so that adding the shift does not round the means.
    center = ops.sum((shift + unit_mean)[:1])
    unit_mean = (shift - center) + unit_mean
    mean = _total(unit_mean * batch, lengths, fused) / n
    between = _total(ops.square(unit_mean - mean) * batch, lengths, fused) / n
    return mean + center, within, between


def _scaled_with_subnormals(x):
    """Exponent, scaled elements, and which are zero, of finite float32 elements."""
    bits = bits_as(x, "int32")
    magnitude = ops.bitwise_and(bits, _MAGNITUDE)
    subnormal = magnitude < _SMALLEST_NORMAL
    # Floats are in the order of their bits; comparing the floats would flush them.
    largest = ops.max(magnitude)
    of_normal = ops.right_shift(largest, 23) - 127
    # A subnormal is a whole number of units of 2^-149.
    of_subnormal = _exponent_bits(ops.cast(largest, "float32")) - 127 - 149
    exponent = ops.where(largest < _SMALLEST_NORMAL, of_subnormal, of_normal)
    exponent = ops.clip(exponent, -149, 126)
    # 2^-exponent may exceed float32. Two factors do not.
    half = ops.floor_divide(-exponent, 2)
    y = x * power_of_two(half, "float32") * power_of_two(-exponent - half, "float32")
    # Where -126 is the limit, subnormals are 1e-30 times smaller than the largest element.
    unit = power_of_two(ops.maximum(-149 - exponent, -126), "float32")
    rebuilt = ops.cast(magnitude, "float32") * unit
    rebuilt = ops.where(bits < 0, -rebuilt, rebuilt)
    y = ops.where(subnormal, rebuilt, y)
    return ops.cast(exponent, "float32"), y, magnitude == 0


def _exponent_bits(x):
    return ops.clip(ops.right_shift(bits_as(x, "int32"), 23), 1, 253)


def _exponent_of_double(largest):
    known = ops.isfinite(largest) & (largest > 0)
    exponent = ops.floor(ops.log2(ops.where(known, largest, ops.ones_like(largest))))
    return ops.clip(exponent, -1000.0, 1000.0)


def _total(vector, lengths, fused):
    """The sum of a vector over the units, which TensorFlow adds up as a tree."""
    if not fused:
        return ops.sum(vector)
    column = ops.expand_dims(vector, -1)
    return ops.sum(_column_sums(column, (lengths[1], 1), fused))


def _column_sums(z, lengths, fused):
    """Sums over the rows, as sums of the sums of blocks.

    Added up one by one, 100 000 rows are off by 2e-5. There are no branches: a branch is
    as large a graph again, and XLA would copy the tensor into it.
    """
    rows, columns = lengths
    block = _FUSED_BLOCK if fused else _BLOCK
    for _ in range(3 if fused else 1):
        # At least one row is left: of nothing but equal blocks XLA would make one sum.
        blocks = (rows - 1) // block
        blocks = max(blocks, 0) if isinstance(blocks, int) else ops.maximum(blocks, 0)
        blocked = ops.reshape(z[: blocks * block], (blocks, block, columns))
        rest = ops.sum(z[blocks * block :], axis=0, keepdims=True)
        z, rows = ops.concatenate([ops.sum(blocked, axis=1), rest], axis=0), blocks + 1
    return ops.sum(z, axis=0)

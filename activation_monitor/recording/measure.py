"""A tensor becomes a raw record, inside the training step.

Zeros, saturated elements and histograms are counted in all elements of a small tensor and
in an evenly strided sample of a large one; the record says in how many. Everything else
comes from all elements, see `moments`.

Written in `keras.ops`; nothing here knows about layers, callbacks or files.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from activation_monitor.analysis import histogram as buckets
from activation_monitor.analysis import raw, records
from activation_monitor.recording import moments, ops

# Elements below float32's normal range (1.18e-38) read as zero in the quick pass. With
# the largest magnitude above this they cannot move a second moment by 1e-6.
_SUBNORMALS_MATTER_BELOW = 1e-30

_STRIDES = np.array(buckets.STRIDES, np.int32)
_ENOUGH_FOR = np.minimum(
    np.array(buckets.STRIDES) * buckets.EXACT_UP_TO, np.iinfo(np.int32).max
).astype(np.int32)  # the largest number of elements for each stride


def measure(
    x: Any,
    *,
    channel_axis: int = -1,
    unsaturated: tuple[float, float] | None = None,
    mask: Any = None,
    exact: bool = False,
    histograms: bool = False,
    activity: bool = False,
    primitives: moments.Primitives | None = None,
) -> Any:
    """The raw record of a tensor; its raw histogram and its active channels if wanted.

    Args:
        x: Floating-point tensor of shape `(batch, *positions, channels)`; or, with a
            `channel_axis` of 1, `(batch, channels, *positions)`. A vector is one unit, a
            scalar is one row of one unit.
        channel_axis: 1 or -1. Defaults to `-1`.
        unsaturated: The limits from `records.SATURATED`. Defaults to `None`: the
            activation function has no limits.
        mask: Boolean tensor of leading axes of `x`, False for padding, which is left out
            as if the tensor were shorter. Such a tensor is measured by the exact pass.
            Defaults to `None`.
        exact: Whether to take the exact pass: subnormals and the finite elements beside
            non-finite ones are measured too, and all elements are counted. Defaults to
            `False`.
        histograms: Whether to append the raw histogram. Defaults to `False`.
        activity: Whether to append for each channel 1 if any sample and position of it is
            not zero, else 0. Defaults to `False`.
        primitives: Those of the backend. Defaults to `None`: XLA compiles the step.

    Returns:
        Float32 tensor of shape `(len(raw.COLUMNS),)`. With histograms,
        `len(raw.HISTOGRAM_COLUMNS)` numbers follow; with activity, one for each channel.
    """
    rows, lengths = _rows(x)
    exact = exact or mask is not None
    stride, sample = _sample(rows, lengths)
    elements = lengths[0] * lengths[1]
    counts: dict[str, Any] = {"count": _pair(elements)}
    if exact:
        there = None if mask is None else _padding(mask, x, lengths)
        found, finite, zero = moments.exact(rows, there, fused=primitives is None)
        if there is not None:
            counts["count"] = moments.total(there)
            nothing = ops.cast(np.nan, rows.dtype)
            _, sample = _sample(ops.where(there, rows, nothing), lengths)
        counts |= {"counted": counts["count"], "zeros": moments.total(zero)}
        if unsaturated is not None:
            counts["saturated"] = moments.total(_beyond(rows, unsaturated) & finite)
    else:
        found = moments.quick(rows, lengths, primitives)
        counts |= {"counted": ops.size(sample), "zeros": _number_of(sample == 0)}
        if unsaturated is not None:
            beyond = _beyond(sample, unsaturated) & ops.isfinite(sample)
            counts["saturated"] = _number_of(beyond)
    counts["samples"] = lengths[0]
    zero_channels = _of_channels(found.unit_is_zero, x, channel_axis)
    counts["dead_units"] = _number_of(zero_channels)
    parts = [_integers(counts, exact), ops.cast(found.values, "float32")]
    if histograms:
        parts.append(_histogram(stride, sample))
    if activity:
        parts.append(ops.cast(~zero_channels, "float32"))
    return ops.concatenate(parts)


def measure_each(
    tensors: Sequence[Any], *, primitives: moments.Primitives
) -> tuple[Any, Any]:
    """The raw records of several tensors of known shapes, each as of one unit.

    This is how kernels, their gradients and their updates are measured. The quick pass does
    not count zeros.

    Args:
        tensors: Floating-point tensors. They are measured in float32.
        primitives: Those of the backend.

    Returns:
        Float32 tensor of shape `(len(tensors), len(raw.COLUMNS))`; and a boolean tensor
        `(len(tensors),)`: whether the quick pass suffices for the tensor.
    """
    columns = [ops.reshape(ops.cast(x, "float32"), (-1, 1)) for x in tensors]
    parts = np.divmod([x.shape[0] for x in columns], int(raw.BASE))
    integers = np.zeros((len(columns), 1 + 2 * len(raw.INTEGERS)), np.float32)
    for name in ("count", "samples"):
        place = 1 + raw.INTEGERS.index(name)
        integers[:, place], integers[:, place + len(raw.INTEGERS)] = parts
    values, suffices = moments.of_each(columns, primitives)
    return ops.concatenate([integers, values], axis=-1), suffices


def count_each(tensors: Sequence[Any]) -> Any:
    """The raw histograms of several tensors of known shapes.

    They are those of the measured rows of kernels and of their gradients, counted for all
    of them together. The stride is that within these rows. Up to
    `histogram.KERNELS_EXACT_UP_TO` elements of a tensor are all counted.

    Args:
        tensors: Floating-point tensors. They are counted in float32.

    Returns:
        Float32 tensor of shape `(len(tensors), len(raw.HISTOGRAM_COLUMNS))`.
    """
    strides = [
        buckets.stride_of(int(np.prod(x.shape)), x.shape[-1], buckets.KERNELS_EXACT_UP_TO)
        for x in tensors
    ]
    samples = [
        ops.reshape(ops.cast(x, "float32"), (-1,))[::stride]
        for x, stride in zip(tensors, strides, strict=True)
    ]
    longest = max(x.shape[0] for x in samples)
    rows = [_padded(x, longest) for x in samples]
    return _histograms(np.array(strides, np.float32), ops.stack(rows))


def _padded(x, length):
    """With NaN, which is not counted."""
    more = length - x.shape[0]
    return ops.pad(x, ((0, more),), constant_values=np.nan) if more else x


def _integers(counts, complete):
    """The first columns of a raw record."""
    zero = ops.zeros((), "float32")
    pairs = [counts.get(name, zero) for name in raw.INTEGERS]
    pairs = [pair if isinstance(pair, tuple) else (zero, pair) for pair in pairs]
    numbers = [zero + 1.0 if complete else zero]
    numbers += [high for high, _ in pairs] + [low for _, low in pairs]
    return ops.stack([ops.cast(number, "float32") for number in numbers])


def needs_exact(found: np.ndarray) -> np.ndarray:
    """Which records, on the host, a quick pass could not measure in full.

    Args:
        found: Records, array of shape `(layers, len(FIELDS))`.

    Returns:
        Boolean array of shape `(layers,)`.
    """
    largest = np.maximum(
        np.abs(records.field(found, "minimum")),
        np.abs(records.field(found, "maximum")),
    )
    seen = records.field(found, "count") > 0
    nonfinite = records.field(found, "nonfinite") > 0
    return seen & (nonfinite | (largest < _SUBNORMALS_MATTER_BELOW))


def _rows(x):
    """As a matrix `(batch, units)`, in float32 or, if it came so, float64; and its lengths.

    Widening float16 and bfloat16 is exact.
    """
    x = x if moments.is_double(x) else ops.cast(x, "float32")
    batch, *rest = ops.shape(x) if len(x.shape) else (1,)
    units = 1
    for length in rest:
        units = units * length
    return x if len(x.shape) == 2 else ops.reshape(x, (batch, units)), (batch, units)


def _padding(mask, x, lengths):
    """A mask of leading axes of `x` as a matrix `(batch, units)`: which elements exist."""
    spread = ops.reshape(mask, (*ops.shape(mask), *(1,) * (len(x.shape) - len(mask.shape))))
    return ops.reshape(ops.broadcast_to(spread, ops.shape(x)), lengths)


def _of_channels(unit_is_zero, x, channel_axis):
    """Whether all units of a channel are zero, for each channel."""
    if len(x.shape) <= 2:
        return unit_is_zero
    length = ops.shape(x)[channel_axis]
    channels = max(length, 1) if isinstance(length, int) else ops.maximum(length, 1)
    shape, axis = ((channels, -1), 1) if channel_axis == 1 else ((-1, channels), 0)
    return ops.all(ops.reshape(unit_is_zero, shape), axis=axis)


def channels_of(x: Any, channel_axis: int) -> int:
    """The number of channels of a tensor, 0 if it is not known before the step runs."""
    return int((x.shape[channel_axis] if len(x.shape) > 1 else 1) or 0)


def _beyond(x, unsaturated):
    low, high = unsaturated
    return (x <= low) | (x >= high)


def _number_of(flags):
    """How many of up to 2^24 flags are true."""
    return ops.sum(ops.cast(flags, "float32"))


def _pair(number):
    """A large integer as two numbers that float32 holds."""
    base = int(raw.BASE)
    return number // base, number % base


def _sample(rows, lengths):
    """Up to `histogram.EXACT_UP_TO` elements: all, or one in a stride.

    The stride is a prime that does not divide the number of units, so that the sample
    visits all units alike and cannot fall in step with the channels.

    Returns:
        The stride, and the elements as a vector.
    """
    batch, units = lengths
    elements = batch * units
    if isinstance(elements, int):
        stride = buckets.stride_of(elements, units)
    else:
        fits = _ENOUGH_FOR >= elements
        fits = fits & ((ops.mod(units, _STRIDES) > 0) | (_STRIDES == 1))
        stride = ops.min(ops.where(fits, _STRIDES, _STRIDES[-1]))
    # Keras' slice has no known rank where the stride is a tensor.
    return stride, ops.reshape(ops.reshape(rows, (-1,))[::stride], (-1,))


def _histogram(stride, sample):
    """The raw histogram of the finite elements of a sample."""
    return _histograms(ops.reshape(ops.cast(stride, "float32"), (1,)), sample[None])[0]


def _histograms(strides, samples):
    """The raw histograms of the finite elements of each row of samples."""
    finite = ops.isfinite(samples)
    values = ops.where(finite, samples, ops.zeros_like(samples))
    low = ops.min(ops.where(finite, values, np.inf), axis=1)
    high = ops.max(ops.where(finite, values, -np.inf), axis=1)
    exponent = moments.exponent_of(ops.maximum(-low, high))
    scale = moments.power_of_two(-exponent, values.dtype)
    values, low, high = values * scale[:, None], low * scale, high * scale
    width = (high - low) / buckets.BUCKETS
    place = ops.floor(ops.divide_no_nan(values - low[:, None], width[:, None]))
    # All elements alike: TensorBoard's convention puts them into the last bucket.
    place = ops.where(width[:, None] > 0, place, buckets.BUCKETS - 1.0)
    place = ops.cast(ops.clip(place, 0.0, buckets.BUCKETS - 1.0), "int32")
    rows = samples.shape[0]
    if rows > 1:
        begins = np.arange(rows)[:, None] * buckets.BUCKETS
        place = place + ops.convert_to_tensor(begins, "int32")
    ones, place = ops.reshape(ops.cast(finite, "float32"), (-1,)), ops.reshape(place, (-1,))
    counts = ops.segment_sum(ones, place, rows * buckets.BUCKETS)
    counts = ops.reshape(counts, (rows, buckets.BUCKETS))
    head = [ops.cast(number, "float32") for number in (strides, exponent, low, high)]
    counted = ops.concatenate([ops.stack(head, axis=1), counts], axis=1)
    some = ops.sum(counts, axis=1) > 0
    return ops.where(some[:, None], counted, ops.zeros_like(counted))

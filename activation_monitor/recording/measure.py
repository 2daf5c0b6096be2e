"""A tensor becomes a record, inside the training step.

The arithmetic must be right over the whole range of the tensor's dtype, where the
plain mean and standard deviation overflow at 1e17 and die at 1e-18, and the graph must
stay small: it is laid on every layer. So there are two ways to measure:

* the *quick* look scales by a power of two taken from the largest magnitude (exact, and
  it brings the whole normal range of float32 into reach), takes the mean of each unit
  and the squares about it, and finishes in float64 on what is left. Non-finite elements
  are counted always; the finite rest beside them is not measured (NaN).
* the *exact* look masks non-finite elements and rebuilds subnormals from their bits,
  since TensorFlow flushes them to zero. It costs several times more and is taken at the
  next sampled step after a record that `needs_exact`.

Written in `keras.ops`; nothing here knows about layers, callbacks or files.
"""

from typing import Any

import keras
import numpy as np

from activation_monitor.analysis import histogram as buckets
from activation_monitor.analysis import records

# Keras does not annotate its functions. What type checkers infer for symbolic tensors,
# None for example, is wrong for the tensors measured here.
ops: Any = keras.ops

# Between these magnitudes float32 squares can neither overflow nor be flushed, even
# summed over a large batch: no scaling needed.
_PLAIN_RANGE = (1e-12, 1e12)

# Taking squares about a mean that was rounded to float32 adds (2^-24 mean)^2 to a
# variance. Below this ratio of variance to squared mean that is more than about 1e-8
# of it, and the batch is shifted by its first row before the mean is taken.
_SHIFT_BELOW = 1e-6

_BLOCK = 256

# Elements below float32's normal range (1.18e-38) read as zero in the quick look. With
# the largest magnitude above this they cannot move a second moment by 1e-6.
_SUBNORMALS_MATTER_BELOW = 1e-30


def as_rows(x):
    """`x` as a matrix `(batch, units)`, in float32 or, if it came so, float64.

    A scalar is one row; a vector is one unit. Widening float16 and bfloat16 is exact.
    """
    return _rows(x if _is_double(x) else ops.cast(x, "float32"))


def _is_double(x):
    return keras.backend.standardize_dtype(x.dtype) == "float64"


def _rows(x):
    if len(x.shape) == 0:
        return ops.reshape(x, (1, 1))
    batch = ops.shape(x)[0]
    return ops.reshape(x, (batch, ops.size(x) // ops.maximum(batch, 1)))


def grid(x, channel_axis: int):
    """How the units of `x` are laid out, see `accumulate`.

    Args:
        x: Tensor of shape `(batch, *positions, channels)`; or, with a `channel_axis` of 1,
            `(batch, channels, *positions)`.
        channel_axis: 1 or -1.
    """
    return ops.maximum(ops.shape(x)[channel_axis], 1), 1 if channel_axis == 1 else 0


def padding(mask, x):
    """A mask of leading axes of `x`, as rows: which elements are there.

    Args:
        mask: Boolean tensor of shape `(batch, time)`, or of more leading axes of `x`. False
            is padding.
        x: Tensor of shape `(batch, time, ...)`.

    Returns:
        Boolean tensor of shape `(batch, units)`, like `as_rows(x)`.
    """
    spread = ops.reshape(mask, (*ops.shape(mask), *(1,) * (len(x.shape) - len(mask.shape))))
    return _rows(ops.broadcast_to(spread, ops.shape(x)))


def accumulate(
    record, rows, *, grid=None, unsaturated=None, mask=None, exact=False, fused=False
):
    """Merge the record of a tensor into a record.

    Args:
        record: Float64 tensor of shape `(len(FIELDS),)`, what was seen before;
            `records.empty()` if nothing was.
        rows: Float32 or float64 tensor of shape `(batch, units)`, from `as_rows`.
        grid: How the units are laid out: how many channels there are, and which axis
            the positions are. None: each unit is a channel.
        unsaturated: From `records.SATURATED`; None if the activation has no limits.
        mask: From `padding`: elements that are there. The others are left out, as if the
            tensor were shorter. Measured by the exact look, whatever `exact` says.
        exact: Measure subnormals and the finite elements beside non-finite ones too.
        fused: The step is compiled by XLA, which fuses element-wise passes and pays for
            branches. The executor of TensorFlow graphs is the reverse.

    Returns:
        Float64 tensor of shape `(len(FIELDS),)`. Where non-finite elements stopped a
        quick look, all fields but the counts are NaN.
    """
    exact = exact or mask is not None
    # A float64 tensor needs neither scaling nor wider sums, up to squares of 1e308.
    if exact or _is_double(rows):
        fields = _exact(rows, mask)
    else:
        fields = _quick(rows, fused)
    if unsaturated is not None:
        low, high = unsaturated
        beyond = ((rows <= low) | (rows >= high)) & ops.isfinite(rows)
        fields["saturated"] = _total(beyond if mask is None else beyond & mask)
    else:
        fields["saturated"] = 0.0
    nonzero = fields.pop("nonzero_per_unit")
    if grid is not None:
        channels, axis = grid
        shape = (-1, channels) if axis == 0 else (channels, -1)
        nonzero = ops.sum(ops.reshape(nonzero, shape), axis=axis)
    fields["dead_units"] = ops.sum(ops.cast(nonzero == 0, "float64"))
    if not exact:
        fields["dead_units"] = ops.where(
            fields["nonfinite"] > 0, ops.cast(np.nan, "float64"), fields["dead_units"]
        )
    fields = [ops.cast(fields[name], "float64") for name in records.FIELD_NAMES]
    # `count` stands first. Of a tensor without elements nothing is known.
    seen = ops.where(fields[0] > 0, ops.stack(fields), records.empty())
    return records.merge(record, seen, xp=ops)


def needs_exact(found: np.ndarray) -> np.ndarray:
    """Which records, on the host, a quick look could not measure in full.

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


def _quick(x, fused):
    def unless(common, shortcut, careful):
        return careful() if fused else ops.cond(common, shortcut, careful)

    low, high = ops.min(x), ops.max(x)
    largest = ops.maximum(-low, high)
    plain = (largest > _PLAIN_RANGE[0]) & (largest < _PLAIN_RANGE[1])
    # The exponent bits of the largest magnitude, kept to where 2^-k is a normal float.
    exponent = ops.clip(ops.right_shift(_bits_as(largest, "int32"), 23), 1, 253)
    exponent = ops.where(plain, 127, exponent)
    scale = _bits_as(ops.left_shift(254 - exponent, 23), "float32")
    unscale = ops.power(ops.cast(2.0, "float64"), ops.cast(exponent - 127, "float64"))
    y = unless(plain, lambda: x, lambda: x * scale)

    def per_unit(z):
        batch = ops.cast(ops.shape(z)[0], "float64")
        mean = _column_sums(z, fused) / batch
        deviations = ops.square(z - ops.cast(mean, z.dtype))
        return mean, ops.mean(_column_sums(deviations, fused)) / batch

    def shifted():
        first = y[:1]
        mean, within = per_unit(y - first)
        return mean + ops.sum(ops.cast(first, "float64"), axis=0), within

    if fused:
        unit_mean, within = shifted()
    else:
        unit_mean, within = per_unit(y)
        steady = within > _SHIFT_BELOW * ops.mean(ops.square(unit_mean))
        unit_mean, within = ops.cond(steady, lambda: (unit_mean, within), shifted)

    mean = ops.mean(unit_mean)
    variance = within + ops.mean(ops.square(unit_mean - mean))
    # x / x is 1, and 0 for 0 by this function's definition; NaN for a non-finite x.
    nonzero_per_unit = ops.sum(ops.divide_no_nan(x, x), axis=0)
    nonzero = ops.sum(ops.cast(nonzero_per_unit, "float64"))
    count = ops.cast(ops.size(x), "float64")
    nonfinite = unless(
        ops.isfinite(mean),
        lambda: ops.cast(0.0, "float64"),
        lambda: count - _total(ops.isfinite(x)),
    )

    def finite_only(value):
        value = ops.cast(value, "float64")
        return ops.where(nonfinite > 0, ops.cast(np.nan, "float64"), value)

    return {
        "count": count,
        "samples": ops.shape(x)[0],
        "nonfinite": nonfinite,
        "zeros": finite_only(count - nonzero),
        "mean": finite_only(mean * unscale),
        "variance": finite_only(variance * unscale * unscale),
        "second_moment": finite_only((variance + ops.square(mean)) * unscale * unscale),
        "within_variance": finite_only(within * unscale * unscale),
        "minimum": finite_only(low),
        "maximum": finite_only(high),
        "nonzero_per_unit": nonzero_per_unit,
    }


def _column_sums(z, fused):
    """Sums over the rows, in float64.

    A long float32 sum is added up one by one (by XLA on a CPU, and by TensorFlow over
    the first axis): 100 000 rows are off by 2e-5. XLA widens each element as it reads
    it. Elsewhere that would be another copy of the tensor, and blocks of `_BLOCK` rows
    are summed in float32, to 1e-7, and their sums in float64.
    """
    if fused:
        return ops.sum(ops.cast(z, "float64"), axis=0)
    rows, units = ops.shape(z)[0], ops.shape(z)[1]
    blocks = rows // _BLOCK

    def plain():
        return ops.cast(ops.sum(z, axis=0), "float64")

    def blockwise():
        blocked = ops.reshape(z[: blocks * _BLOCK], (blocks, _BLOCK, units))
        in_blocks = ops.sum(ops.cast(ops.sum(blocked, axis=1), "float64"), axis=0)
        return in_blocks + ops.cast(ops.sum(z[blocks * _BLOCK :], axis=0), "float64")

    return ops.cond(blocks < 2, plain, blockwise)


def _exact(x, mask=None):
    there = ops.ones_like(x, dtype="bool") if mask is None else mask
    finite = ops.isfinite(x) & there
    y = ops.cast(ops.where(finite, x, ops.zeros_like(x)), "float64")
    if not _is_double(x):
        bits = _bits_as(x, "int32")
        magnitude = ops.bitwise_and(bits, 0x7FFFFFFF)
        rebuilt = ops.cast(magnitude, "float64") * 2.0**-149
        rebuilt = ops.where(bits < 0, -rebuilt, rebuilt)
        y = ops.where((magnitude < 0x00800000) & there, rebuilt, y)

    weight = ops.cast(finite, "float64")
    n = ops.maximum(ops.sum(weight), 1.0)
    n_unit = ops.sum(weight, axis=0)
    mean = ops.sum(y) / n
    unit_mean = ops.sum(y, axis=0) / ops.maximum(n_unit, 1.0)
    within = ops.sum(weight * ops.square(y - unit_mean)) / n
    variance = within + ops.sum(n_unit * ops.square(unit_mean - mean)) / n
    bad = there & ~finite
    return {
        "count": ops.size(x) if mask is None else _total(there),
        "samples": ops.shape(x)[0],
        "nonfinite": _total(bad),
        "zeros": _total((y == 0.0) & finite),
        "mean": mean,
        "variance": variance,
        "second_moment": variance + ops.square(mean),
        "within_variance": within,
        "minimum": ops.min(ops.where(finite, y, np.inf)),
        "maximum": ops.max(ops.where(finite, y, -np.inf)),
        "nonzero_per_unit": ops.sum(ops.cast((y != 0.0) | bad, "float64"), axis=0),
    }


def _bits_as(x, dtype):
    """The bits of each element as an element of another dtype of the same size.

    With an axis of length 1 at the end: `ops.view` of Keras 3.12 needs a last axis, and one
    whose length is known.
    """
    return ops.squeeze(ops.view(ops.expand_dims(x, -1), dtype), -1)


def _total(flags):
    """How many are true: rows in float32, exact to 2^24 units, then in float64."""
    return ops.sum(ops.cast(ops.sum(ops.cast(flags, "float32"), axis=1), "float64"))


def histogram(x):
    """A histogram of a tensor's finite elements, counted in the graph.

    Of more than `histogram.EXACT_UP_TO` elements an evenly strided sample is counted.
    The stride is a prime that does not divide the number of units, so that the sample
    visits all units alike and cannot fall in step with the channels.

    Args:
        x: Float32 or float64 tensor of shape `(batch, units)`, from `as_rows`.

    Returns:
        Float64 tensor of shape `(len(histogram.SLOTS),)`.
    """
    elements = ops.size(x)
    units = elements // ops.maximum(ops.shape(x)[0], 1)
    strides = ops.cast(buckets.STRIDES, "int32")
    fits = strides * buckets.EXACT_UP_TO >= elements
    fits = fits & ((ops.mod(units, strides) > 0) | (strides == 1))
    stride = ops.take(strides, ops.argmax(ops.cast(fits, "int32")))
    sample = ops.reshape(ops.reshape(x, (-1,))[::stride], (-1,))

    finite = ops.isfinite(sample)
    values = ops.cast(ops.where(finite, sample, ops.zeros_like(sample)), "float64")
    low = ops.min(ops.where(finite, values, np.inf))
    high = ops.max(ops.where(finite, values, -np.inf))
    width = (high - low) / buckets.BUCKETS
    place = ops.floor(ops.divide_no_nan(values - low, width))
    # All elements alike: TensorBoard's convention puts them into the last bucket.
    place = ops.where(width > 0, place, buckets.BUCKETS - 1.0)
    place = ops.cast(ops.clip(place, 0.0, buckets.BUCKETS - 1.0), "int32")
    counts = ops.segment_sum(ops.cast(finite, "float32"), place, buckets.BUCKETS)
    head = ops.stack([ops.cast(stride, "float64"), low, high])
    counted = ops.concatenate([head, ops.cast(counts, "float64")])
    return ops.where(ops.any(finite), counted, buckets.none())

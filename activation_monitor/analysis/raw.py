"""The raw record: what a training step computes of a tensor, and how a record follows.

A raw record is a float32 vector, so that every backend can compute it: one number for each
row of `COLUMNS`. Its moments are in units of a power of two, `2^exponent`, so that their
squares neither overflow nor underflow. Integers, which float32 holds up to 2^24 only, are
stored in two parts. All the rest of the arithmetic happens here, in float64.
"""

from typing import Any

import numpy as np

from activation_monitor.analysis import histogram, records

BASE = 2.0**12
"""An integer `n` is stored as `n // BASE` and `n % BASE`: exact up to 2^36."""

INTEGERS = ("count", "samples", "zeros", "saturated", "counted", "dead_units")
"""Fields of a record that are integers, in the order of a raw record."""

MOMENTS = (
    "exponent",
    "mean",
    "within",
    "between",
    "minimum",
    "maximum",
    "nonfinite_high",
    "nonfinite_low",
)
"""The exponent; in units of `2^exponent` the mean, the variance within the units, that of
their means, and the extremes; and the number of non-finite elements."""

COLUMNS = (
    "complete",  # 1 if non-finite elements were left out of the moments, else 0
    *(f"{name}_high" for name in INTEGERS),
    *(f"{name}_low" for name in INTEGERS),
    *MOMENTS,
)
"""The names of the numbers of a raw record, in order."""

HISTOGRAM_COLUMNS = ("stride", "exponent", *histogram.SLOTS[1:])
"""The names of the numbers of a raw histogram, in order. The edges are in units of
`2^exponent`."""


def finish(raw: Any, xp: Any = np) -> Any:
    """The records of raw records.

    Args:
        raw: Raw records of shape `(..., len(COLUMNS))`. All zeros if nothing was measured.
        xp: The array namespace: `numpy`, or `keras.ops` inside a training step of a
            backend that has float64. Defaults to `numpy`.

    Returns:
        Float64 records of shape `(..., len(records.FIELDS))`. Where a tensor had
        non-finite elements and the record is not complete, all fields but the counts of
        elements, samples and non-finite elements are NaN.
    """
    raw = raw.astype(np.float64) if xp is np else xp.cast(raw, "float64")
    column = {name: raw[..., i] for i, name in enumerate(COLUMNS)}
    integers = (*INTEGERS, "nonfinite")
    found = {n: column[f"{n}_high"] * BASE + column[f"{n}_low"] for n in integers}
    unit = xp.power(2.0, column["exponent"])
    mean, within = column["mean"] * unit, column["within"] * unit * unit
    variance = within + column["between"] * unit * unit
    found |= {
        "mean": mean,
        "variance": variance,
        "second_moment": variance + mean * mean,
        "within_variance": within,
        "minimum": column["minimum"] * unit,
        "maximum": column["maximum"] * unit,
    }
    unknown = (found["nonfinite"] > 0) & (column["complete"] == 0)
    for name in found.keys() - {"count", "samples", "nonfinite"}:
        found[name] = xp.where(unknown, np.nan, found[name])
    seen = xp.stack([found[name] for name in records.FIELD_NAMES], axis=-1)
    # Of a tensor without elements nothing is known.
    return xp.where(found["count"][..., None] > 0, seen, records.empty())


def finish_histograms(raw: np.ndarray) -> np.ndarray:
    """The histograms of raw histograms.

    Args:
        raw: Raw histograms of shape `(..., len(HISTOGRAM_COLUMNS))`.

    Returns:
        Array of shape `(..., len(histogram.SLOTS))`, see `histogram`.
    """
    raw = raw.astype(np.float64)
    finished = np.delete(raw, 1, axis=-1)
    finished[..., 1:3] *= np.power(2.0, raw[..., 1:2])
    return finished

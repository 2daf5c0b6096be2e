"""The record of a tensor: its columns, how records merge, which statistics follow.

A record is a float64 vector with one number for each row of `FIELDS`; a stack of
records is an array of shape `(..., len(FIELDS))`. Everything here broadcasts over
the leading axes.

A training step computes raw records (see `raw`), from which these follow. Where one step
measures several tensors, it merges their records by the same `merge`: it is written once,
for any array namespace.

The *quantity* says which tensor of a layer a record describes. It is a key of
`QUANTITIES`. Records of all quantities have the same columns.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from activation_monitor.analysis.hints import no_such


class Field(NamedTuple):
    """One number of a record.

    Attributes:
        name: Its name.
        empty: Its value in the record of a tensor without elements. Merging with an empty
            record changes nothing.
        meaning: What it counts or measures.
    """

    name: str
    empty: float
    meaning: str


FIELDS = (
    Field("count", 0.0, "elements, finite or not"),
    Field("samples", 0.0, "rows along the first (batch) axis"),
    Field("nonfinite", 0.0, "elements that are NaN or infinite"),
    Field("zeros", 0.0, "elements that are exactly zero, among the counted"),
    Field("mean", 0.0, "mean of the finite elements"),
    Field("variance", 0.0, "variance of the finite elements, mean removed"),
    Field("second_moment", 0.0, "mean square of the finite elements, mean kept"),
    Field(
        "within_variance",
        0.0,
        "variance of each unit across the batch, averaged over units: "
        "zero when all inputs give the same output",
    ),
    Field("minimum", np.inf, "smallest finite element"),
    Field("maximum", -np.inf, "largest finite element"),
    Field(
        "saturated",
        0.0,
        "elements within the margin of a bounded activation's limits, among the counted",
    ),
    Field("dead_units", np.inf, "channels that are zero for every sample and position"),
    Field(
        "counted",
        0.0,
        "elements among which zeros and saturated ones were counted: all, or an evenly "
        "strided sample of a large tensor",
    ),
)

SATURATED = {
    "tanh": (-0.98, 0.98),
    "softsign": (-0.98, 0.98),
    "hard_tanh": (-0.98, 0.98),
    "sigmoid": (0.01, 0.99),
    "hard_sigmoid": (0.01, 0.99),
}
"""By bounded activation function, the range in which an output is not saturated. The
margin is 1 % of the range at either end. There tanh passes less than 4 % of a gradient, and
sigmoid 4 % of its maximum."""

OUTPUT = "output"
OUTPUT_GRADIENT = "output_gradient"
WEIGHT = "weight"
WEIGHT_GRADIENT = "weight_gradient"
WEIGHT_UPDATE = "weight_update"

QUANTITIES = {
    OUTPUT: "the output of the layer in the forward pass",
    OUTPUT_GRADIENT: "the gradient of the loss with respect to that output",
    WEIGHT: "the kernel of a weight layer, before the step changes it",
    WEIGHT_GRADIENT: "the gradient of the loss with respect to the kernel",
    WEIGHT_UPDATE: "the change that the step makes to the kernel",
}
"""The tensors of a layer that can be measured: name -> meaning."""

_LINEAR = ("mean", "minimum", "maximum")
_SQUARES = ("variance", "second_moment", "within_variance")
_SUMS = ("count", "samples", "nonfinite", "zeros", "saturated", "counted")

FIELD_NAMES = tuple(field.name for field in FIELDS)
_INDEX = {name: i for i, name in enumerate(FIELD_NAMES)}
_EMPTY = np.array([field.empty for field in FIELDS])


def empty(*shape: int) -> np.ndarray:
    """Records of tensors without elements, of shape `(*shape, len(FIELDS))`."""
    return np.broadcast_to(_EMPTY, (*shape, len(FIELDS))).copy()


def field(records: np.ndarray, name: str) -> np.ndarray:
    """One field of a stack of records.

    Args:
        records: Array of shape `(..., len(FIELDS))`.
        name: A name from `FIELD_NAMES`.

    Returns:
        Array of shape `(...)`, a view.

    Raises:
        KeyError: If there is no such field.
    """
    if name not in _INDEX:
        raise KeyError(f"field: {no_such('field', name, FIELD_NAMES, listed=True)}")
    return records[..., _INDEX[name]]


def measure(x: Any, activation: str = "linear") -> np.ndarray:
    """The record of an array, computed on the host in float64.

    All elements from the smallest subnormal to the largest finite float32 are measured.
    Non-finite elements are counted and left out of the other statistics.

    Args:
        x: Array of any shape and real dtype. The first axis is the batch; every
            position along the other axes is a unit; the last axis holds the channels.
        activation: Name of the activation function that computed it, see `SATURATED`.
            Defaults to `"linear"`.

    Returns:
        Array of shape `(len(FIELDS),)`.

    Example:

    >>> record = measure(np.array([[1.0, -1.0], [3.0, -1.0]]))
    >>> float(field(record, "mean")), float(field(record, "within_variance"))
    (0.5, 0.5)
    """
    low, high = SATURATED.get(activation, (-np.inf, np.inf))
    x = np.asarray(x, np.float64)
    if x.size == 0:
        return empty()
    rows = x.reshape(x.shape[0] if x.ndim else 1, -1)
    finite = np.isfinite(rows)
    n = finite.sum()
    kept = rows[finite]
    record = empty()
    record[_INDEX["count"]] = rows.size
    record[_INDEX["samples"]] = rows.shape[0]
    record[_INDEX["nonfinite"]] = rows.size - n
    channels = x.reshape(-1, x.shape[-1] if x.ndim > 1 else 1)
    record[_INDEX["dead_units"]] = (channels == 0).all(axis=0).sum()
    record[_INDEX["zeros"]] = (kept == 0).sum()
    record[_INDEX["counted"]] = rows.size
    if n:
        masked = np.where(finite, rows, 0.0)
        per_unit = np.maximum(finite.sum(0), 1)
        deviation = np.where(finite, rows - masked.sum(0) / per_unit, 0.0)
        record[_INDEX["mean"]] = kept.mean()
        record[_INDEX["variance"]] = kept.var()
        record[_INDEX["second_moment"]] = np.mean(kept**2)
        record[_INDEX["within_variance"]] = np.sum(deviation**2) / n
        record[_INDEX["minimum"]] = kept.min()
        record[_INDEX["maximum"]] = kept.max()
        record[_INDEX["saturated"]] = ((kept <= low) | (kept >= high)).sum()
    return record


def merge(a: Any, b: Any, xp: Any = np) -> Any:
    """The record of two sets of elements together, from the records of each.

    Exact up to float64 rounding and independent of the order (Chan, Golub and
    LeVeque 1979): `n = n_a + n_b`, `mean = mean_a + d n_b / n`,
    `variance = (n_a v_a + n_b v_b) / n + d^2 n_a n_b / n^2` with `d = mean_b - mean_a`.

    `within_variance` is an exception by definition: it is the variance across *one* batch.
    For two batches it is their average weighted by elements, without the difference
    between batches. `dead_units` is the smaller of the two numbers: at most as many units
    are dead in both batches.

    Args:
        a: Records of shape `(..., len(FIELDS))`.
        b: Records of the same shape.
        xp: The array namespace: `numpy`, or `keras.ops` inside a training step. Defaults
            to `numpy`.

    Returns:
        Records of the same shape.

    Example:

    >>> x = np.arange(6.0).reshape(3, 2)
    >>> both = merge(measure(x[:1]), measure(x[1:]))
    >>> float(field(both, "variance")), float(x.var())
    (2.9166666666666665, 2.9166666666666665)
    """
    of_a = {name: a[..., i] for i, name in enumerate(FIELD_NAMES)}
    of_b = {name: b[..., i] for i, name in enumerate(FIELD_NAMES)}
    n_a = of_a["count"] - of_a["nonfinite"]
    n_b = of_b["count"] - of_b["nonfinite"]
    share = n_b / xp.maximum(n_a + n_b, 1.0)
    delta = of_b["mean"] - of_a["mean"]

    merged = {name: of_a[name] + of_b[name] for name in _SUMS}
    for name in ("mean", "variance", "second_moment", "within_variance"):
        merged[name] = of_a[name] + share * (of_b[name] - of_a[name])
    # If `a` or `b` is empty, the share is 1 or 0, and there is no variance between them.
    between = share * (1.0 - share) * delta * delta
    merged["variance"] = merged["variance"] + between
    for name in ("minimum", "dead_units"):
        merged[name] = xp.minimum(of_a[name], of_b[name])
    merged["maximum"] = xp.maximum(of_a["maximum"], of_b["maximum"])
    # XLA's minimum of NaN and a number is the number.
    merged["dead_units"] = merged["dead_units"] + 0.0 * merged["mean"]
    return xp.stack([merged[name] for name in FIELD_NAMES], axis=-1)


def scaled(records: np.ndarray, factor: float) -> np.ndarray:
    """The records of tensors that are multiplied by a factor.

    Args:
        records: Records of shape `(..., len(FIELDS))`.
        factor: A positive number. Fields that count saturated elements stay as they are.
    """
    found = records.copy()
    for power, names in ((1, _LINEAR), (2, _SQUARES)):
        for name in names:
            found[..., _INDEX[name]] *= factor**power
    return found


Statistic = Callable[[np.ndarray], np.ndarray]
"""A function of a stack of records."""


def _fraction(name: str, of: str = "counted") -> Statistic:
    def fraction(records: np.ndarray) -> np.ndarray:
        count = field(records, of)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(count > 0, field(records, name) / count, np.nan)

    return fraction


def _measured(name: str, finish: Statistic = lambda values: values) -> Statistic:
    def statistic(records: np.ndarray) -> np.ndarray:
        seen = field(records, "count") > field(records, "nonfinite")
        return np.where(seen, finish(field(records, name)), np.nan)

    return statistic


def _between_std(records: np.ndarray) -> np.ndarray:
    # Both are sums of the same squares, so the difference may round below zero.
    variance, within = (
        _measured(name)(records) for name in ("variance", "within_variance")
    )
    return np.sqrt(np.maximum(variance - within, 0.0))


STATISTICS: dict[str, Statistic] = {
    "mean": _measured("mean"),
    "std": _measured("variance", np.sqrt),
    "rms": _measured("second_moment", np.sqrt),
    "within_std": _measured("within_variance", np.sqrt),
    "between_std": _between_std,
    "minimum": _measured("minimum"),
    "maximum": _measured("maximum"),
    "zero_fraction": _fraction("zeros"),
    "nonfinite_fraction": _fraction("nonfinite", of="count"),
    "saturated_fraction": _fraction("saturated"),
    # Infinite in a log written before it was measured.
    "dead_units": _measured("dead_units", lambda n: np.where(np.isfinite(n), n, np.nan)),
}
"""The statistics of records: name -> function from an array `(..., len(FIELDS))` to an
array `(...)`, with NaN where nothing finite was measured."""

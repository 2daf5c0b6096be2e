"""The layout of a log: tags and tables, and the snapshots that they encode.

This module knows neither files nor protos. `writer` and `reader` handle event files, and
the plugin receives the same tensors from TensorBoard. All of them encode and decode here.

Version 3 writes for each snapshot these tensors, at one step:

* `activation_monitor/records/<quantity>`: the records of a quantity, a float64 array
  `(layers, columns)`, compressed without loss (`compressed`). Of fields that follow from
  others, it has the bits that differ (`_FOLLOWS`);
* `activation_monitor/histograms/<quantity>`: the histograms of a quantity, a float64 array
  `(layers, slots)`, compressed in the same way;
* `activation_monitor/activity`: how many ReLU units were not active over the last sampled
  steps, a float64 array `(layers, 3)` of `activity.FIELDS`, compressed in the same way; if
  there are any, and the log is new enough;
* `activation_monitor/moving`: how far moving statistics are from the batches, in the same
  way, `(layers, 5)` of `moving.FIELDS`;
* `activation_monitor/step`: the float64 array `(steps, loss)`;
* `activation_monitor/optimizers`: the optimizers of the step as the bytes of a JSON text,
  and `activation_monitor/kernels_given`: what is known of what they were given, a float64
  array `(layers, names)`, compressed in the same way; both only where they are known;
* `activation_monitor/layers`: the rows and columns as JSON, at the first step and whenever
  they change.

Earlier versions are still read. Version 2 did not compress the records, and wrote the
histograms as TensorBoard's tab reads them, to `activations/<layer>`, with the strides at
which they were sampled in `activation_monitor/strides`, `(layers,)`. Version 1 also wrote
the records of the outputs, with `steps` and the strides as additional columns, to
`activation_monitor/snapshot`, and the records of the kernels to
`activation_monitor/kernels`.
"""

import dataclasses
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from activation_monitor.analysis import histogram, records
from activation_monitor.analysis.snapshot import OF_LAYERS, LayerInfo, Snapshot
from activation_monitor.analysis.updating import NAMES, OptimizerInfo, Updating, unknown
from activation_monitor.storage.plugin_name import PLUGIN

RUN = "activations"
"""Name of the run folder inside the log folder."""

VALIDATION_RUN = "activations_validation"
"""Name of the run folder for the forward passes of evaluation."""

VERSION = 3
"""Version of the format that `encode` writes."""

LAYERS_TAG = f"{PLUGIN}/layers"
STEP_TAG = f"{PLUGIN}/step"
FINDINGS_TAG = f"{PLUGIN}/findings"
OPTIMIZERS_TAG = f"{PLUGIN}/optimizers"
KERNELS_GIVEN_TAG = f"{PLUGIN}/kernels_given"
IMAGE_TAG = f"{PLUGIN}/depth_by_step"
RECORDS_TAGS = {quantity: f"{PLUGIN}/records/{quantity}" for quantity in records.QUANTITIES}
"""Quantity to the tag of its records."""

HISTOGRAMS_TAGS = {
    quantity: f"{PLUGIN}/histograms/{quantity}" for quantity in records.QUANTITIES
}
"""Quantity to the tag of its histograms."""

HISTOGRAM_PREFIX = "activations/"
"""In a log of version 1 or 2, the tag of a layer's histogram for TensorBoard's tab is this
prefix and the name of the layer."""

_OF_LAYERS_TAGS = {name: f"{PLUGIN}/{name}" for name in OF_LAYERS}
_STRIDES_TAG_2 = f"{PLUGIN}/strides"
_SNAPSHOT_TAG_1, _KERNELS_TAG_1 = f"{PLUGIN}/snapshot", f"{PLUGIN}/kernels"
_STEPS_1, _STRIDE_1 = "steps", "histogram_stride"

SNAPSHOT_TAGS = (
    *(RECORDS_TAGS[records.OUTPUT], _SNAPSHOT_TAG_1),
    *(tag for quantity, tag in RECORDS_TAGS.items() if quantity != records.OUTPUT),
    *(STEP_TAG, *_OF_LAYERS_TAGS.values(), OPTIMIZERS_TAG, KERNELS_GIVEN_TAG),
    *(_STRIDES_TAG_2, _KERNELS_TAG_1),
)
"""Tags that `decode` reads, for all versions, besides those of `HISTOGRAMS_TAGS`. A step
that has one of the first two is a snapshot."""

WITH_HISTOGRAMS_IN_COPIES = (_STRIDES_TAG_2, _SNAPSHOT_TAG_1)
"""A step that has one of these tags, of version 1 or 2, has its histograms only in the tags
of TensorBoard's tab."""

_LAYER_FIELDS = {field.name for field in dataclasses.fields(LayerInfo)}


class _HasStep(Protocol):
    @property
    def step(self) -> int: ...


Stepped = TypeVar("Stepped", bound=_HasStep)


class Table(NamedTuple):
    """What the rows and columns of the tensors of a snapshot mean.

    Attributes:
        layers: The layers, one for each row.
        columns: Names of the columns of a record.
        evaluation: Whether the snapshots are of forward passes of evaluation. Defaults to
            `False`.
    """

    layers: tuple[LayerInfo, ...]
    columns: tuple[str, ...]
    evaluation: bool = False


def evaluations_of(run: str) -> str | None:
    """The name of the run with the evaluations of a run; None for a run of evaluation, and
    for one whose name is not that of a run of training."""
    path = PurePosixPath(run)
    return path.with_name(VALIDATION_RUN).as_posix() if path.name == RUN else None


def is_evaluation(run: str) -> bool:
    """Whether a run is one of evaluation, by its name, which is the path of its folder."""
    return run.rpartition("/")[2] == VALIDATION_RUN


def metadata_content() -> bytes:
    """The plugin data of the first value of each tag that this package owns."""
    return json.dumps({"version": VERSION}).encode()


def check_version(content: bytes) -> None:
    """Raise an error for a log that a later version of this package wrote.

    Args:
        content: The plugin data of a tag, as `metadata_content` returns it.

    Raises:
        ValueError: If the format is newer than `VERSION`, or unknown.
    """
    try:
        version = json.loads(content)["version"]
    except (ValueError, KeyError, TypeError):
        version = content[:40]
    if version not in range(1, VERSION + 1):
        raise ValueError(
            f"expected a log of format {VERSION} or earlier. Received: format "
            f"{version!r}. Install a newer activation-monitor to read it."
        )


def table_to_json(table: Table) -> str:
    """The table as the text that `table_from_json` reads."""
    rows = [vars(layer) for layer in table.layers]
    return json.dumps(
        {"layers": rows, "columns": table.columns, "evaluation": table.evaluation}
    )


def table_from_json(text: str | bytes, evaluation: bool = False) -> Table:
    """Read a table. Fields of a layer that a later version added are ignored.

    Args:
        text: The result of `table_to_json`.
        evaluation: Whether the run is one of evaluation by its name.
            Defaults to `False`.

    Raises:
        ValueError, KeyError, TypeError: If the text is not a table.
    """
    written = json.loads(text)
    layers = tuple(_layer(row) for row in written["layers"])
    return Table(
        layers, tuple(written["columns"]), bool(written.get("evaluation") or evaluation)
    )


def _layer(row):
    values: dict[str, Any] = {
        name: tuple(value) if name == "parents" else value
        for name, value in row.items()
        if name in _LAYER_FIELDS
    }
    return LayerInfo(**values)


def compressed(array: np.ndarray) -> np.ndarray:
    """Compress numbers without loss, to about 3 bytes each for records.

    The first bytes of all numbers of a column are together, then the second bytes, and so
    on. The bytes that hardly differ (signs, exponents, the end of what is a small integer
    or was a float32) take next to nothing after that.

    Args:
        array: A float64 array of two axes.

    Returns:
        A uint8 array of one axis, which `restored` reads.
    """
    columns = np.ascontiguousarray(array.T, "<f8")
    planes = columns.view(np.uint8).reshape(*columns.shape, 8).swapaxes(1, 2)
    return np.frombuffer(zlib.compress(planes.tobytes(), level=1), np.uint8)


def restored(written: np.ndarray, columns: int) -> np.ndarray:
    """The inverse of `compressed`.

    Args:
        written: The result of `compressed`.
        columns: The length of the second axis.

    Raises:
        ValueError: If these are not numbers in so many columns.
    """
    try:
        planes = np.frombuffer(zlib.decompress(written.tobytes()), np.uint8)
        planes = planes.reshape(columns, 8, -1).swapaxes(1, 2)
    except (zlib.error, ValueError) as error:
        raise ValueError(
            f"expected compressed numbers in {columns} columns. Received: "
            f"{written.size} bytes that are none ({error})."
        ) from None
    found = np.ascontiguousarray(planes).view("<f8")[..., 0]
    return np.array(found.T, np.float64, order="C")


_FOLLOWS = {
    "variance": lambda field: field("within_variance"),
    "second_moment": lambda field: field("variance") + field("mean") * field("mean"),
}
"""Fields that follow from others, nearly or exactly: name -> function of a function that
returns a field by its name. Each uses fields that come before it here, or none of these."""


def _without_what_follows(array: np.ndarray, columns: tuple[str, ...]) -> np.ndarray:
    """Records in whose place of a field that follows from others the differing bits are.

    They are zero or few, and compress to next to nothing.
    """
    found = np.array(array, np.float64)
    for name, expected in _FOLLOWS.items():
        bits = expected(lambda other: array[:, columns.index(other)])
        _flip(found, columns.index(name), bits)
    return found


def _with_what_follows(written: np.ndarray, columns: tuple[str, ...]) -> np.ndarray:
    """The inverse of `_without_what_follows`."""
    found = np.array(written, np.float64)
    for name, expected in _FOLLOWS.items():
        bits = expected(lambda other: found[:, columns.index(other)])
        _flip(found, columns.index(name), bits)
    return found


def _flip(found, column, numbers):
    """Flip the bits of a column that are set in some numbers."""
    flipped = np.ascontiguousarray(found[:, column]).view(np.uint64)
    flipped ^= np.ascontiguousarray(numbers, np.float64).view(np.uint64)
    found[:, column] = flipped.view(np.float64)


def encoded(array: np.ndarray) -> np.ndarray:
    """Records `(layers, len(records.FIELDS))` as `encode` writes them."""
    return compressed(_without_what_follows(array, records.FIELD_NAMES))


def encode(snapshot: Snapshot) -> tuple[Table, dict[str, np.ndarray]]:
    """The table of a snapshot and its arrays by tag.

    Args:
        snapshot: The snapshot to encode.

    Returns:
        The table, and a dictionary from the tags of the module's docstring to arrays.
    """
    arrays = {STEP_TAG: np.array([snapshot.steps, snapshot.loss], np.float64)}
    for name, array in snapshot.quantities.items():
        arrays[RECORDS_TAGS[name]] = encoded(array)
    for name, array in snapshot.histograms.items():
        arrays[HISTOGRAMS_TAGS[name]] = compressed(array)
    for name, tag in _OF_LAYERS_TAGS.items():
        array = getattr(snapshot, name)
        if array is not None:
            arrays[tag] = compressed(array)
    if snapshot.updating is not None:
        arrays |= _encoded_updating(snapshot.updating)
    return Table(snapshot.layers, records.FIELD_NAMES, snapshot.evaluation), arrays


def decode(
    step: int,
    table: Table,
    arrays: Mapping[str, np.ndarray],
    histograms: Mapping[str, np.ndarray] | None = None,
) -> Snapshot:
    """Make a snapshot from the arrays of a log, of any version up to `VERSION`.

    Args:
        step: The step of the snapshot.
        table: The rows and columns of the arrays.
        arrays: Tag to array, for the tags of `SNAPSHOT_TAGS` and `HISTOGRAMS_TAGS` that the
            log has at this step.
        histograms: Of a log of version 1 or 2: name of a layer to an array `(buckets, 3)`
            of edges and counts, for the layers that have one. Defaults to `None`, no
            histograms.

    Raises:
        ValueError: If the shape of an array does not fit the table.
    """
    layers = len(table.layers)
    shape = layers, len(table.columns)
    quantities = {
        name: _records(step, arrays[tag], table.columns, shape)
        for name, tag in RECORDS_TAGS.items()
        if tag in arrays
    }
    steps, loss = arrays.get(STEP_TAG, (1.0, math.nan))
    strides = arrays.get(_STRIDES_TAG_2)
    if _SNAPSHOT_TAG_1 in arrays:
        first = arrays[_SNAPSHOT_TAG_1]
        quantities[records.OUTPUT] = _records(step, first, table.columns, shape)
        steps = first[0, table.columns.index(_STEPS_1)]
        if _STRIDE_1 in table.columns:
            strides = first[:, table.columns.index(_STRIDE_1)]
    if _KERNELS_TAG_1 in arrays:
        quantities[records.WEIGHT] = _records(step, arrays[_KERNELS_TAG_1], table.columns)
    packed = {
        name: restored(arrays[tag], len(histogram.SLOTS))
        for name, tag in HISTOGRAMS_TAGS.items()
        if tag in arrays
    }
    if histograms is not None and strides is not None:
        packed[records.OUTPUT] = histogram.none(layers)
        for i, layer in enumerate(table.layers):
            if layer.name in histograms:
                counted = histogram.Histogram(int(strides[i]), histograms[layer.name])
                packed[records.OUTPUT][i] = histogram.pack(counted)
    of_layers = {
        name: restored(arrays[tag], len(OF_LAYERS[name]))
        for name, tag in _OF_LAYERS_TAGS.items()
        if tag in arrays
    }
    return Snapshot(
        step=step,
        layers=table.layers,
        quantities=quantities,
        histograms=packed,
        steps=int(steps),
        loss=float(loss),
        evaluation=table.evaluation,
        **of_layers,
        updating=_updating(arrays, layers),
    )


_OPTIMIZER_FIELDS = {field.name for field in dataclasses.fields(OptimizerInfo)}


def _encoded_updating(updating: Updating) -> dict[str, np.ndarray]:
    """By tag, the arrays that `_updating` reads."""
    written = {
        "whole": updating.whole,
        "names": NAMES,
        "optimizers": [vars(one) for one in updating.optimizers],
    }
    text = json.dumps(written, separators=(",", ":"), default=dict)
    return {
        OPTIMIZERS_TAG: np.frombuffer(zlib.compress(text.encode()), np.uint8),
        KERNELS_GIVEN_TAG: compressed(updating.kernels),
    }


def _updating(arrays, layers):
    """How a step updates kernels; None if the log does not say. What a later version added
    is ignored."""
    if OPTIMIZERS_TAG not in arrays or KERNELS_GIVEN_TAG not in arrays:
        return None
    try:
        written = json.loads(zlib.decompress(arrays[OPTIMIZERS_TAG].tobytes()))
        optimizers = tuple(
            OptimizerInfo(**{k: v for k, v in one.items() if k in _OPTIMIZER_FIELDS})
            for one in written["optimizers"]
        )
        names = written["names"]
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"expected optimizers as compressed JSON. Received: {error}."
        ) from None
    found = restored(arrays[KERNELS_GIVEN_TAG], len(names))
    kernels = unknown(layers)
    for i, name in enumerate(NAMES):
        if name in names and len(found) == layers:
            kernels[:, i] = found[:, names.index(name)]
    return Updating(optimizers, kernels, bool(written.get("whole")))


def with_histograms(snapshot: Snapshot, of: str, written: np.ndarray) -> Snapshot:
    """The snapshot with the histograms of a quantity.

    Args:
        snapshot: The snapshot, without histograms.
        of: The quantity.
        written: The array that the log has in `HISTOGRAMS_TAGS`.
    """
    found = restored(written, len(histogram.SLOTS))
    return dataclasses.replace(snapshot, histograms={of: found})


def with_histogram(snapshot: Snapshot, layer: str, rows: np.ndarray) -> Snapshot:
    """The snapshot with the histogram of one layer's output, from a log of version 1 or 2.

    Args:
        snapshot: The snapshot, without histograms.
        layer: Name of one of its layers.
        rows: Array `(buckets, 3)` of edges and counts. It does not hold the stride, which
            no caller needs; the stride of the result is 1.
    """
    packed = histogram.none(len(snapshot.layers))
    counted = histogram.Histogram(1, rows)
    packed[snapshot.names.index(layer)] = histogram.pack(counted)
    return dataclasses.replace(snapshot, histograms={records.OUTPUT: packed})


def _records(step, written, columns, shape=None):
    """Records with the current fields. Fields that an older log does not have are empty."""
    if written.dtype == np.uint8:
        written = _with_what_follows(restored(written, len(columns)), columns)
    if shape is not None and written.shape != shape:
        raise ValueError(
            f"step {step}: expected an array of {shape[0]} layers and {shape[1]} columns. "
            f"Received: shape {written.shape}."
        )
    if columns[: len(records.FIELD_NAMES)] == records.FIELD_NAMES:
        return np.array(written[:, : len(records.FIELD_NAMES)], np.float64)
    found = records.empty(len(written))
    for i, name in enumerate(records.FIELD_NAMES):
        if name in columns:
            found[:, i] = written[:, columns.index(name)]
    if "counted" not in columns:  # before there were samples, all elements were
        records.field(found, "counted")[:] = records.field(found, "count")
    return found


def without_undone(written: list[Stepped]) -> list[Stepped]:
    """The valid part of what was written, in the order of the steps.

    A step that is not greater than the one before it means that the run was resumed or
    started again. It replaces everything that was written from that step on.

    Args:
        written: Objects with a `step`, in the order in which they were written.

    Returns:
        The objects that were not replaced, with increasing steps.
    """
    kept = []
    for one in written:
        while kept and kept[-1].step >= one.step:
            kept.pop()
        kept.append(one)
    return kept

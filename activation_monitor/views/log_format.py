"""How snapshots are laid out in a log: tags, tables, and what they are read back into.

Nothing here knows files or protos: `events` writes and reads event files, the plugin is
handed the same tensors by TensorBoard. Both make snapshots of them here.
"""

import dataclasses
import json
from typing import NamedTuple, TypeVar

import numpy as np

from activation_monitor.analysis import histogram, moments
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot

RUN = "activations"
"""Name of the run folder below the log folder."""

VALIDATION_RUN = "activations_validation"
"""The same for the forward passes of evaluation."""

PLUGIN = "activation_monitor"
VERSION = 1
SNAPSHOT_TAG = f"{PLUGIN}/snapshot"
KERNELS_TAG = f"{PLUGIN}/kernels"
LAYERS_TAG = f"{PLUGIN}/layers"
FINDINGS_TAG = f"{PLUGIN}/findings"
IMAGE_TAG = f"{PLUGIN}/depth_by_step"
HISTOGRAM_TAG = "activations/"

STEPS, STRIDE = "steps", "histogram_stride"
"""Columns of a snapshot's table besides the fields of a record."""

_LAYER_FIELDS = {field.name for field in dataclasses.fields(LayerInfo)}

Stepped = TypeVar("Stepped")


class Table(NamedTuple):
    """What the rows and the columns of the tensors of a snapshot are."""

    layers: tuple[LayerInfo, ...]
    columns: tuple[str, ...]
    evaluation: bool = False


def is_evaluation(run: str) -> bool:
    """Whether a run is one of evaluation, by its name: the path of its folder."""
    return run.rpartition("/")[2] == VALIDATION_RUN


def metadata_content() -> bytes:
    """What is written beside the first value of each tag of ours."""
    return json.dumps({"version": VERSION}).encode()


def check_version(content: bytes) -> None:
    """Refuse what a later version of this package wrote.

    Args:
        content: The plugin data of a tag, as `metadata_content` made it.

    Raises:
        ValueError: If it is of a later format, or of none that is known.
    """
    try:
        version = json.loads(content)["version"]
    except (ValueError, KeyError, TypeError):
        version = content[:40]
    if version not in range(1, VERSION + 1):
        raise ValueError(
            f"a log of format {VERSION} was expected, and this is one of format "
            f"{version!r}. Install a newer activation-monitor to read it."
        )


def table_to_json(table: Table) -> str:
    """What `table_from_json` reads."""
    rows = [dataclasses.asdict(layer) for layer in table.layers]
    return json.dumps(
        {"layers": rows, "columns": table.columns, "evaluation": table.evaluation}
    )


def table_from_json(text: str | bytes, evaluation: bool = False) -> Table:
    """A table; what a later version wrote of a layer besides is left out.

    Args:
        text: What `table_to_json` made.
        evaluation: Whether the name of the run says that it is one of evaluation.

    Raises:
        ValueError, KeyError, TypeError: If it is no table.
    """
    written = json.loads(text)
    layers = tuple(
        LayerInfo(
            **{
                name: tuple(value) if name == "parents" else value
                for name, value in row.items()
                if name in _LAYER_FIELDS
            }
        )
        for row in written["layers"]
    )
    return Table(
        layers, tuple(written["columns"]), bool(written.get("evaluation") or evaluation)
    )


def snapshot_to_array(snapshot: Snapshot) -> tuple[Table, np.ndarray]:
    """The table of a snapshot, and its float64 array `(layers, columns)`."""
    columns = (*moments.FIELD_NAMES, STEPS)
    array = [snapshot.records, np.full(len(snapshot.layers), snapshot.steps)]
    if snapshot.histograms is not None:
        # The edges and counts are in the histograms; how they were sampled is not.
        columns += (STRIDE,)
        array.append(snapshot.histograms[:, 0])
    return Table(snapshot.layers, columns, snapshot.evaluation), np.column_stack(array)


def snapshot_from_arrays(
    step: int,
    table: Table,
    array: np.ndarray,
    kernels: np.ndarray | None = None,
    histograms: dict[str, np.ndarray] | None = None,
) -> Snapshot:
    """The snapshot of which the log holds these tensors.

    Args:
        step: Of the snapshot.
        table: What the rows and columns are.
        array: Of shape `(layers, columns)`.
        kernels: In the same way, the first columns being fields of records; None if
            they were not measured.
        histograms: By layer, array `(buckets, 3)` of edges and counts, for those that
            there are; None if none are asked for.

    Raises:
        ValueError: If the array is not of the table's shape.
    """
    if array.shape != (len(table.layers), len(table.columns)):
        raise ValueError(
            f"step {step}: an array of {len(table.layers)} layers and "
            f"{len(table.columns)} columns was expected. Received: shape {array.shape}."
        )
    packed = None
    if histograms is not None and STRIDE in table.columns:
        packed = histogram.none(len(table.layers))
        strides = array[:, table.columns.index(STRIDE)]
        for i, layer in enumerate(table.layers):
            if layer.name in histograms:
                counted = histogram.Histogram(int(strides[i]), histograms[layer.name])
                packed[i] = histogram.pack(counted)
    return Snapshot(
        step=step,
        layers=table.layers,
        records=_records(array, table.columns),
        histograms=packed,
        steps=int(array[0, table.columns.index(STEPS)]),
        kernels=None if kernels is None else _records(kernels, table.columns),
        evaluation=table.evaluation,
    )


def with_histogram(snapshot: Snapshot, layer: str, rows: np.ndarray) -> Snapshot:
    """The snapshot with the histogram of one layer.

    Args:
        snapshot: Without histograms.
        layer: Name of one of its layers.
        rows: Array `(buckets, 3)` of edges and counts. How the elements were sampled is
            not in it, and not asked for.
    """
    packed = histogram.none(len(snapshot.layers))
    counted = histogram.Histogram(1, rows)
    packed[snapshot.names.index(layer)] = histogram.pack(counted)
    return dataclasses.replace(snapshot, histograms=packed)


def _records(written, columns):
    """Records of today's fields; those that an older log does not have stay empty."""
    if columns[: len(moments.FIELD_NAMES)] == moments.FIELD_NAMES:
        return np.array(written[:, : len(moments.FIELD_NAMES)], np.float64)
    records = moments.empty(len(written))
    for i, name in enumerate(moments.FIELD_NAMES):
        if name in columns:
            records[:, i] = written[:, columns.index(name)]
    return records


def without_undone(written: list[Stepped]) -> list[Stepped]:
    """What holds of what was written, in the order of the steps.

    Where a step comes that is not beyond the one before it (a resumed run, a new one),
    what was written from there on was undone, and the later holds.

    Args:
        written: Things with a `step`, in the order in which they were written.
    """
    kept = []
    for one in written:
        while kept and kept[-1].step >= one.step:
            kept.pop()
        kept.append(one)
    return kept

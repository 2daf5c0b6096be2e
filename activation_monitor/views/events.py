"""Snapshots to TensorBoard event files and back: the only module that names protos.

Everything of one step is one event, in a run folder of its own (`RUN` below the log
folder): TensorBoard's Python reader follows only the newest file of a folder, so it is
never shared with another writer. In it are

* `activation_mean/<layer>`, `activation_std/<layer>`: scalars, unless switched off;
* `activations/<layer>`: histograms;
* `activation_monitor/snapshot`: all records, one float64 tensor `(layers, fields)`;
* `activation_monitor/kernels`: records of the kernels, where they were measured;
* `activation_monitor/layers`: the rows and columns of that tensor as JSON, at the first
  step and whenever they change;
* `activation_monitor/findings`: the diagnosis in words, whenever it changes;
* `activation_monitor/depth_by_step`: a picture of all layers at all steps, at the end.
"""

import re
import time
import warnings
from pathlib import Path

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util

from activation_monitor.analysis import histogram
from activation_monitor.analysis.snapshot import History, Snapshot
from activation_monitor.views import log_format
from activation_monitor.views.log_format import (
    FINDINGS_TAG,
    HISTOGRAM_TAG,
    IMAGE_TAG,
    KERNELS_TAG,
    LAYERS_TAG,
    PLUGIN,
    RUN,
    SNAPSHOT_TAG,
    VALIDATION_RUN,
)
from activation_monitor.views.record_file import EVENT_FILES, read_records

_SAMPLED = (
    f"Of at most {histogram.EXACT_UP_TO} elements all are counted; of more an evenly "
    "strided sample, here one in {stride}."
)


def _own_metadata():
    return summary_pb2.SummaryMetadata(
        plugin_data=summary_pb2.SummaryMetadata.PluginData(
            plugin_name=PLUGIN, content=log_format.metadata_content()
        ),
        # Without a data class no reader of TensorBoard's sees the summary.
        data_class=summary_pb2.DATA_CLASS_TENSOR,
    )


class EventLog:
    """Writes snapshots, off the calling thread.

    Args:
        log_dir: The log folder; the run folder is made below it.
        run: Name of the run folder.
        scalars: Whether to write mean and std of each layer as scalars, for TensorBoard's
            Scalars tab: two cards for each layer.

    Raises:
        OSError, tensorflow.errors.OpError: If it cannot be written to. An error that
            comes up later, while the background thread writes, is raised by the next
            call.
    """

    def __init__(self, log_dir: str | Path, run: str = RUN, scalars: bool = True):
        self._scalars = scalars
        self.run_dir = Path(log_dir) / run
        self._writer = EventFileWriter(str(self.run_dir), max_queue_size=100, flush_secs=10)
        self._tags = set()
        self._table = None

    def write(self, snapshot: Snapshot, findings: str | None = None) -> None:
        """Write all of one step.

        Args:
            snapshot: What was measured.
            findings: The diagnosis as Markdown, if it is new.
        """
        summary = summary_pb2.Summary()

        def add(tag, value, metadata, description=""):
            if not isinstance(value, str):
                value = np.asarray(value)
            tensor = tensor_util.make_tensor_proto(value)
            added = summary.value.add(tag=tag, tensor=tensor)
            if tag not in self._tags:  # read from a tag's first value only
                self._tags.add(tag)
                added.metadata.CopyFrom(metadata)
                added.metadata.summary_description = description

        table, array = log_format.snapshot_to_array(snapshot)
        if table != self._table:
            self._table = table
            add(LAYERS_TAG, log_format.table_to_json(table), _own_metadata())
        add(SNAPSHOT_TAG, array, _own_metadata())
        if snapshot.kernels is not None:
            add(KERNELS_TAG, snapshot.kernels, _own_metadata())

        scalar = scalar_metadata.create_summary_metadata("", "")
        for statistic in ("mean", "std") if self._scalars else ():
            values = snapshot.statistic(statistic).astype(np.float32)
            for name, value in zip(snapshot.names, values, strict=True):
                add(f"activation_{statistic}/{name}", value, scalar)
        if snapshot.histograms is not None:
            metadata = histogram_metadata.create_summary_metadata("", "")
            for name, vector in zip(snapshot.names, snapshot.histograms, strict=True):
                counted = histogram.unpack(vector)
                if counted is not None:
                    about = _SAMPLED.format(stride=counted.stride)
                    add(HISTOGRAM_TAG + name, counted.rows, metadata, about)
        if findings is not None:
            add(FINDINGS_TAG, findings, text_metadata.create_summary_metadata("", ""))
        self._writer.add_event(
            event_pb2.Event(wall_time=time.time(), step=snapshot.step, summary=summary)
        )

    def write_verdict(self, step: int, findings: str) -> None:
        """Write the diagnosis alone, as Markdown, as it is after this step."""
        summary = summary_pb2.Summary()
        added = summary.value.add(
            tag=FINDINGS_TAG, tensor=tensor_util.make_tensor_proto(findings)
        )
        if FINDINGS_TAG not in self._tags:
            self._tags.add(FINDINGS_TAG)
            added.metadata.CopyFrom(text_metadata.create_summary_metadata("", ""))
        self._writer.add_event(
            event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
        )

    def write_image(self, step: int, png: bytes, size: tuple[int, int], about: str) -> None:
        """Write a picture for TensorBoard's Images tab.

        Args:
            step: Up to which it shows.
            png: The file.
            size: Width and height in pixels.
            about: What it shows.
        """
        summary = summary_pb2.Summary()
        # An array of numpy's own byte strings would lose zeros at their ends.
        content = np.array([b"%d" % size[0], b"%d" % size[1], png], object)
        added = summary.value.add(
            tag=IMAGE_TAG, tensor=tensor_util.make_tensor_proto(content)
        )
        if IMAGE_TAG not in self._tags:
            self._tags.add(IMAGE_TAG)
            added.metadata.CopyFrom(image_metadata.create_summary_metadata("", ""))
            added.metadata.summary_description = about
        self._writer.add_event(
            event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
        )

    def flush(self) -> None:
        """Bring what was written so far to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


def read_history(log_dir: str | Path) -> History:
    """Read back what an `EventLog` wrote, also while it is being written.

    Where a file begins before the end of the one before it (a resumed run, a new one),
    that one's steps from there on were undone, and the later ones hold.

    Nothing that can be read is left out. Of a damaged file, the steps before the damage
    are read; those after it too, unless the length of a record or the list of layers is
    in the damaged part. A warning says so. A file whose last record is cut, because it is
    being written or because its writer was killed, is not damaged.

    Args:
        log_dir: The log folder, or the run folder itself.

    Raises:
        FileNotFoundError: If there is no such folder, or no event file of ours in it.
        NotADirectoryError: If it is a file.
        ValueError: If a later version of this package wrote it, or all of it is damaged.
    """
    top = _folder(log_dir, "read_history")
    folder = top / RUN if (top / RUN).is_dir() else top
    history, damages = _read_folder(folder)
    if not len(history):
        raise _why_nothing("read_history", top, damages)
    for damage in damages:
        warnings.warn(f"read_history: {damage}", stacklevel=2)
    return history


def read_runs(log_dir: str | Path) -> dict[str, History]:
    """All runs of training in a log folder and in the folders below it.

    Damaged files are read as by `read_history`, with a warning for each.

    Args:
        log_dir: The folder to search.

    Returns:
        Histories by name, in the order of the names: the path from the log folder to the
        folder that was an `ActivationMonitor`'s `log_dir`. Runs of evaluation are left
        out.

    Raises:
        FileNotFoundError: If there is no such folder, or no run in it.
        NotADirectoryError: If it is a file.
        ValueError: If a later version of this package wrote one, or all are damaged.
    """
    top, runs, damages = _folder(log_dir, "read_runs"), {}, []
    for folder in _folders_with_events(top):
        if folder.name == VALIDATION_RUN:
            continue
        history, damaged = _read_folder(folder)
        damages += damaged
        if len(history):
            named = folder.parent if folder.name == RUN and folder != top else folder
            name = named.relative_to(top).as_posix()
            runs[top.resolve().name if name == "." else name] = history
    if not runs:
        raise _why_nothing("read_runs", top, damages)
    for damage in damages:
        warnings.warn(f"read_runs: {damage}", stacklevel=2)
    return runs


def _folder(log_dir, where):
    """The folder, which must be one."""
    folder = Path(log_dir)
    if not folder.exists():
        raise FileNotFoundError(
            f"{where}: expected the log folder of an ActivationMonitor. Received: "
            f"{folder}, which does not exist."
        )
    if not folder.is_dir():
        raise NotADirectoryError(
            f"{where}: expected the log folder of an ActivationMonitor. Received: "
            f"{folder}, which is a file. Give the folder that it is in: {folder.parent}"
        )
    return folder


def _folders_with_events(top):
    return sorted({path.parent for path in top.rglob(EVENT_FILES) if path.is_file()})


def _why_nothing(where, top, damages):
    """The error for a folder of which no step was read."""
    if damages:
        return ValueError(f"{where}: no step in {top} can be read. {' '.join(damages)}")
    folders = _folders_with_events(top)
    names = [folder.relative_to(top).as_posix() for folder in folders]
    in_them = f"in {_some(names)}" if names != ["."] else "in it"
    validation = next((f for f in folders if f.name == VALIDATION_RUN), None)
    runs = [folder.parent for folder in folders if folder.name == RUN]
    own = (RUN,) if where == "read_runs" else (RUN, VALIDATION_RUN)
    if top.name in own or top / RUN in folders or (runs and where == "read_runs"):
        found = (
            "whose log has no sampled step yet. Read it again after the first one is "
            "measured"
        )
    elif runs:
        found = f"with runs in the folders below it. Give one of them: {_some(runs)}"
    elif validation is not None:
        found = (
            "with a run of evaluation only, none of training. In Python, "
            f"`read_history({str(validation)!r})` reads it"
        )
    elif folders:
        found = f"with event files of other writers only, {in_them}"
    elif any(top.iterdir()):
        found = "with no event file in it or below it"
    else:
        found = "which is empty"
    return FileNotFoundError(
        f"{where}: no snapshots. Expected the log folder of an ActivationMonitor. "
        f"Received: {top}, {found}."
    )


def _some(things, most=5):
    """The first few, separated by commas."""
    more = ["..."] if len(things) > most else []
    return ", ".join([*map(str, things[:most]), *more])


def _read_folder(folder):
    """The history in a folder's files, and for each that is damaged a sentence."""
    written, damages = [], []
    paths = [path for path in folder.glob(EVENT_FILES) if path.is_file()]
    for path in sorted(paths, key=_when_made):
        snapshots, damage = _read_file(path)
        written += snapshots
        damages += [damage] if damage else []
    return History(log_format.without_undone(written)), damages


def _when_made(path: Path) -> list[int]:
    """The numbers in the file's name: the second, then the host's and the process's, and
    a count within the process, of one digit or more."""
    return [int(number) for number in re.findall(r"\d+", path.name)]


def _read_file(path: Path) -> tuple[list[Snapshot], str]:
    """The snapshots in a file; and what is wrong with it, empty if nothing is."""
    table, snapshots, damaged, nameless = None, [], [], 0
    for record in read_records(path):
        event = _event(record)
        if event is None:
            damaged.append(record)
            if record.data is None or LAYERS_TAG.encode() in record.data:
                table = None
            continue
        _check_version(event, path)
        values = {value.tag: value.tensor for value in event.summary.value}
        try:
            if LAYERS_TAG in values:
                text = _array(values[LAYERS_TAG]).item()
                table = _table(text, log_format.is_evaluation(path.parent.name))
            if SNAPSHOT_TAG in values:
                snapshots.append(_snapshot(event.step, values, table))
        except (ValueError, TypeError) as error:
            if not damaged:
                raise ValueError(f"{path}: {error}") from None
            nameless += 1  # the list of layers has changed in a damaged record
    return snapshots, _damage(path, damaged, len(snapshots), nameless)


def _event(record):
    """The event in a record; None if it is damaged."""
    if not record.intact:
        return None
    try:
        return event_pb2.Event.FromString(record.data)
    except Exception:  # protobuf's own, which has no public name in TensorBoard
        return None


def _check_version(event, path):
    for value in event.summary.value:
        if value.tag == LAYERS_TAG and value.HasField("metadata"):
            try:
                log_format.check_version(value.metadata.plugin_data.content)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None


def _table(text, evaluation):
    try:
        return log_format.table_from_json(text, evaluation)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"its list of layers cannot be read ({type(error).__name__}: {error}). "
            "Expected a log that an ActivationMonitor wrote."
        ) from None


def _snapshot(step, values, table):
    if table is None:
        raise ValueError(
            "its list of layers is missing. Expected a log that an ActivationMonitor wrote."
        )
    kernels = _array(values[KERNELS_TAG]) if KERNELS_TAG in values else None
    histograms = {
        layer.name: _array(values[HISTOGRAM_TAG + layer.name])
        for layer in table.layers
        if HISTOGRAM_TAG + layer.name in values
    }
    return log_format.snapshot_from_arrays(
        step, table, _array(values[SNAPSHOT_TAG]), kernels, histograms
    )


def _damage(path, damaged, read, nameless):
    """A damaged file in words, empty if it is not: where, and what was read of it."""
    if not damaged:
        return ""
    at = f"byte {damaged[0].start}"
    if len(damaged) > 1:
        at += f" and {len(damaged) - 1} more place{'s' if len(damaged) > 2 else ''}"
    text = f"{path} is damaged at {at}: {read} step{'' if read == 1 else 's'} read"
    if damaged[-1].data is None:
        text += f", none after byte {damaged[-1].start}"
    if nameless:
        text += f", {nameless} left out, whose list of layers is in the damaged part"
    return f"{text}. If it is a copy, copy it again."


def _array(tensor) -> np.ndarray:
    return tensor_util.make_ndarray(tensor)

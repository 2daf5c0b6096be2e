"""Reads recordings back from TensorBoard event files."""

import contextlib
import re
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto import event_pb2
from tensorboard.util import tensor_util

from activation_monitor.analysis.snapshot import Recording, Snapshot
from activation_monitor.storage import log_format
from activation_monitor.storage.log_format import RUN, VALIDATION_RUN
from activation_monitor.storage.plugin_name import PLUGIN
from activation_monitor.storage.record_file import EVENT_FILES, read_records

# protobuf creates the classes when the module is imported. Type checkers do not see them.
_EVENTS: Any = event_pb2

_OURS = f"{PLUGIN}/"
_TAGS = (*log_format.SNAPSHOT_TAGS, *log_format.HISTOGRAMS_TAGS.values())


def read_recording(log_dir: str | Path) -> Recording | dict[str, Recording]:
    """Read the log of an `ActivationMonitor`, also during training.

    Args:
        log_dir: The `log_dir` of one monitor, or a folder that contains several of them.

    Returns:
        A `Recording` if `log_dir` is the log of one run. If the runs are in folders inside
        it, a dictionary of their recordings by name, see `read_runs`.

    Raises:
        FileNotFoundError: If the folder does not exist or contains no run.
        NotADirectoryError: If `log_dir` is a file.
        ValueError: If a later version of this package wrote the log, or all of it is
            damaged.

    Example:

    ```python
    recording = read_recording("logs/run1")
    recording.statistic("rms", "sequential/dense")
    ```
    """
    folder = _folder(log_dir, "read_recording")
    own = [path for path in (folder / RUN, folder) if path.is_dir()]
    if any(path.is_file() for top in own for path in top.glob(EVENT_FILES)):
        return read_run(folder, "read_recording")
    below = [found for found in _folders_with_events(folder) if found.name == RUN]
    reader = read_runs if below else read_run
    return reader(folder, "read_recording")


def read_run(log_dir: str | PathLike[str], where: str = "read_run") -> Recording:
    """Read the log that one `EventLog` wrote.

    If a file begins at a step that an earlier file has already passed (the run was resumed
    or started again), its steps replace those of the earlier file from there on.

    Everything that can be read is read. In a damaged file these are the steps before the
    damage, and those after it unless the length of a record or the list of layers is
    damaged. A warning reports the damage. A file whose last record is cut, because it is
    still being written or its writer was killed, is not damaged.

    Args:
        log_dir: The log folder, or the run folder itself.
        where: The function that the user called, for messages. Defaults to `"read_run"`.

    Returns:
        The recording, with at least one snapshot, and with the evaluations of the run.

    Raises:
        FileNotFoundError: If the folder does not exist or contains no log of an
            `ActivationMonitor`.
        NotADirectoryError: If `log_dir` is a file.
        ValueError: If a later version of this package wrote the log, or all of it is
            damaged.
    """
    top = _folder(log_dir, where)
    folder = top / RUN if (top / RUN).is_dir() else top
    recording, damages = _read_with_evaluations(folder)
    if not len(recording):
        raise _why_nothing(where, top, damages)
    for damage in damages:
        warnings.warn(f"{where}: {damage}", stacklevel=3)
    return recording


def read_runs(log_dir: str | Path, where: str = "read_runs") -> dict[str, Recording]:
    """Read all runs of training in a log folder and in the folders inside it.

    Damaged files are read as in `read_run`, with a warning for each.

    Args:
        log_dir: The folder to search.
        where: The function that the user called, for messages. Defaults to `"read_runs"`.

    Returns:
        Recordings by name, in the order of the names. A name is the path from the log
        folder to the `log_dir` of an `ActivationMonitor`. Evaluations are in
        `Recording.evaluations` of their run.

    Raises:
        FileNotFoundError: If the folder does not exist or contains no run.
        NotADirectoryError: If `log_dir` is a file.
        ValueError: If a later version of this package wrote one of the logs, or all of them
            are damaged.
    """
    top, runs, damages = _folder(log_dir, where), {}, []
    for folder in _folders_with_events(top):
        if folder.name == VALIDATION_RUN:
            continue
        recording, damaged = _read_with_evaluations(folder)
        damages += damaged
        if len(recording):
            named = folder.parent if folder.name == RUN and folder != top else folder
            name = named.relative_to(top).as_posix()
            runs[top.resolve().name if name == "." else name] = recording
    if not runs:
        raise _why_nothing(where, top, damages, several=True)
    for damage in damages:
        warnings.warn(f"{where}: {damage}", stacklevel=3)
    return runs


def _folder(log_dir, where):
    """The path, which must be that of a folder."""
    folder = Path(log_dir)
    if not folder.exists():
        raise FileNotFoundError(
            f"{where}: expected the log folder of an ActivationMonitor. Received: "
            f"{folder}, which does not exist."
        )
    if not folder.is_dir():
        raise NotADirectoryError(
            f"{where}: expected the log folder of an ActivationMonitor. Received: "
            f"{folder}, which is a file. Pass the folder that contains it: {folder.parent}"
        )
    return folder


def _folders_with_events(top):
    return sorted({path.parent for path in top.rglob(EVENT_FILES) if path.is_file()})


def _why_nothing(where, top, damages, several=False):
    """The error for a folder from which no step was read."""
    if damages:
        return ValueError(f"{where}: no step in {top} can be read. {' '.join(damages)}")
    folders = _folders_with_events(top)
    names = [folder.relative_to(top).as_posix() for folder in folders]
    in_them = f"in {_some(names)}" if names != ["."] else "in it"
    validation = next((f for f in folders if f.name == VALIDATION_RUN), None)
    runs = [folder.parent for folder in folders if folder.name == RUN]
    own = (RUN,) if several else (RUN, VALIDATION_RUN)
    if top.name in own or top / RUN in folders or (runs and several):
        found = (
            "whose log has no sampled step yet. Read it again after the first one is "
            "measured"
        )
    elif runs:
        found = f"with runs in the folders inside it. Pass one of them: {_some(runs)}"
    elif validation is not None:
        found = (
            "with a run of evaluation only, none of training. In Python, "
            f"`read_recording({str(validation)!r})` reads it"
        )
    elif folders:
        found = f"with event files of other writers only, {in_them}"
    elif any(top.iterdir()):
        found = "with no event file in it"
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


def _read_with_evaluations(folder):
    """`_read_folder`, and the evaluations of that run as far as they can be read."""
    recording, damages = _read_folder(folder)
    evaluations = folder.parent / VALIDATION_RUN
    if folder.name == RUN and evaluations.is_dir():
        with contextlib.suppress(ValueError):  # they only add to what is known
            recording.evaluations, _ = _read_folder(evaluations)
    return recording, damages


def _read_folder(folder):
    """The recording in the files of a folder, and a sentence for each damaged file."""
    written, damages = [], []
    paths = [path for path in folder.glob(EVENT_FILES) if path.is_file()]
    for path in sorted(paths, key=_when_made):
        snapshots, damage = _read_file(path)
        written += snapshots
        damages += [damage] if damage else []
    return Recording(log_format.without_undone(written)), damages


def _when_made(path: Path) -> list[int]:
    """The numbers in the name of the file: the second, those of the host and the process,
    and a count within the process. They have different numbers of digits."""
    return [int(number) for number in re.findall(r"\d+", path.name)]


def _read_file(path: Path) -> tuple[list[Snapshot], str]:
    """The snapshots in a file, and a sentence on its damage, empty if there is none."""
    table, snapshots, damaged, nameless = None, [], [], 0
    for record in read_records(path):
        event = _event(record)
        if event is None:
            damaged.append(record)
            if record.data is None or log_format.LAYERS_TAG.encode() in record.data:
                table = None
            continue
        values = _values(event)
        _check_version(values, path)
        try:
            if log_format.LAYERS_TAG in values:
                text = _array(values[log_format.LAYERS_TAG]).item()
                table = _table(text, log_format.is_evaluation(path.parent.name))
            if not values.keys().isdisjoint(log_format.SNAPSHOT_TAGS[:2]):
                snapshots.append(_snapshot(event.step, values, table))
        except (ValueError, TypeError) as error:
            if not damaged:
                raise ValueError(f"{path}: {error}") from None
            nameless += 1  # the list of layers is in a damaged record
    return snapshots, _damage(path, damaged, len(snapshots), nameless)


def _event(record):
    """The event in a record; None if the record is damaged."""
    if not record.intact:
        return None
    try:
        return _EVENTS.Event.FromString(record.data)
    except Exception:  # protobuf's error, which has no public name in TensorBoard
        return None


def _values(event):
    """By tag, the values of an event that are ours: they come before the copies for
    TensorBoard's tabs, of which there are several for each layer. Those are read only where
    they hold the histograms."""
    summary, values = event.summary.value, {}
    for value in summary:
        if not value.tag.startswith(_OURS):
            break
        values[value.tag] = value
    if not values.keys().isdisjoint(log_format.WITH_HISTOGRAMS_IN_COPIES):
        values |= {value.tag: value for value in summary}
    return values


def _check_version(values, path):
    value = values.get(log_format.LAYERS_TAG)
    if value is not None and value.HasField("metadata"):
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
    arrays = {tag: _array(values[tag]) for tag in _TAGS if tag in values}
    tags = {}
    if not values.keys().isdisjoint(log_format.WITH_HISTOGRAMS_IN_COPIES):
        names = [layer.name for layer in table.layers]
        tags = {log_format.HISTOGRAM_PREFIX + name: name for name in names}
    histograms = {name: _array(values[tag]) for tag, name in tags.items() if tag in values}
    return log_format.decode(step, table, arrays, histograms)


def _damage(path, damaged, read, nameless):
    """Where a file is damaged and what was read from it, in words; empty if intact."""
    if not damaged:
        return ""
    at = f"byte {damaged[0].start}"
    if len(damaged) > 1:
        at += f" and {len(damaged) - 1} more place{'s' if len(damaged) > 2 else ''}"
    text = f"{path} is damaged at {at}: {read} step{'' if read == 1 else 's'} read"
    if damaged[-1].data is None:
        text += f", none after byte {damaged[-1].start}"
    if nameless:
        text += f", {nameless} skipped because the list of layers is damaged"
    return f"{text}. If it is a copy, copy it again."


def _array(value) -> np.ndarray:
    return tensor_util.make_ndarray(value.tensor)

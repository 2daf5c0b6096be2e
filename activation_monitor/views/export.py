"""Writes the numbers of recordings to a file that other programs read."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from activation_monitor.analysis import tidy
from activation_monitor.analysis.dataframe import EXTRA, dataframe
from activation_monitor.analysis.optional import optional
from activation_monitor.analysis.snapshot import Recording, Snapshot

COLUMNS = ("run", "phase", *tidy.Row._fields)
"""The columns of a file. "phase" is "training", or "evaluation" for the forward passes of
`ActivationMonitor(validation=True)`."""


def write(runs: Mapping[str, Recording], path: str | Path) -> None:
    """Write all numbers of all runs to a file, one row for each number.

    The rows are those of `tidy.rows`, with the run and the phase before them. The file has
    what is needed to read the same float64 back. An existing file is replaced when the new
    one is complete.

    Args:
        runs: Recordings by name. Their evaluations are written after them.
        path: The file. Its suffix, a key of `FORMATS`, decides on the format.

    Raises:
        ValueError: If the suffix is unknown.
        ImportError: If the format needs a package that is not installed.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    check(path)
    part = path.with_name(f".{path.name}.part")
    try:
        FORMATS[path.suffix.lower()].write(runs, part)
        part.replace(path)
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror or error}).") from error
    finally:
        part.unlink(missing_ok=True)


def check(path: str | Path) -> None:
    """Check that there is a format for a file, and that its packages are installed.

    Args:
        path: The file.

    Raises:
        ValueError: If the suffix is unknown.
        ImportError: If the format needs a package that is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        *others, last = FORMATS
        raise ValueError(
            f"--output must end in {', '.join(others)} or {last}, which decides on the "
            f"format. Received: {path}. Use, for example, {path.with_suffix('.csv')}."
        )
    for package in FORMATS[path.suffix.lower()].packages:
        optional(package, f"export: a {path.suffix} file", EXTRA)


def _parts(
    runs: Mapping[str, Recording],
) -> Iterator[tuple[dict[str, str], Iterable[Snapshot]]]:
    """The recordings and their evaluations, each with its run and its phase."""
    for run, recording in runs.items():
        yield {"run": run, "phase": "training"}, recording
        if recording.evaluations is not None:
            yield {"run": run, "phase": "evaluation"}, recording.evaluations


def _write_csv(runs, path):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for of_part, snapshots in _parts(runs):
            before = (*of_part.values(),)
            writer.writerows(before + row for row in tidy.rows(snapshots))


def _write_json(runs, path):
    """A list with an object for each row, one a line."""
    with path.open("w", encoding="utf-8") as file:
        encode, separator = json.JSONEncoder(allow_nan=False).encode, "[\n"
        for of_part, snapshots in _parts(runs):
            for row in tidy.rows(snapshots):
                named = of_part | row._asdict() | {"value": _in_json(row.value)}
                file.write(separator + encode(named))
                separator = ",\n"
        file.write("\n]\n")


def _in_json(value: float) -> float | str | None:
    """JSON has no such numbers: None for NaN, and, as in the JSON of protobuf, "Infinity"
    and "-Infinity"."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return None
    return "Infinity" if value > 0 else "-Infinity"


def _write_parquet(runs, path):
    frame = dataframe(_parts(runs), "export")
    frame.to_parquet(path, engine="pyarrow", index=False)


class Format(NamedTuple):
    """A format of a file: the function that writes it, and the packages that it needs."""

    write: Callable[[Mapping[str, Recording], Path], None]
    packages: tuple[str, ...] = ()


FORMATS = {
    ".csv": Format(_write_csv),
    ".parquet": Format(_write_parquet, ("pandas", "pyarrow")),
    ".json": Format(_write_json),
}
"""By suffix."""

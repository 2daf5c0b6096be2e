"""`diagnose`: one diagnosis for live objects, logs and lists of snapshots."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from os import PathLike
from typing import Protocol

from activation_monitor.analysis import diagnosis as rules
from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.findings import check_ignored
from activation_monitor.analysis.snapshot import Recording, Snapshot
from activation_monitor.views import console  # noqa: F401 - shows the result

_EXPECTED = (
    "an ActivationMonitor, the path of its log folder, a Recording, or snapshots in the "
    "order of the steps"
)


class Diagnosed(Protocol):
    """An object with a diagnosis of its own, such as an `ActivationMonitor`."""

    @property
    def diagnosis(self) -> Diagnosis: ...


def diagnose(
    what: Diagnosed | str | PathLike[str] | Iterable[Snapshot],
    ignore: str | Collection[str] = (),
) -> Diagnosis:
    """Diagnose a run.

    The result prints as a table. A notebook shows a table and a figure.

    Args:
        what: One of

            * an `ActivationMonitor`, also while it is training;
            * the `log_dir` of an `ActivationMonitor`, a string or a `Path`;
            * a `Recording`, or any iterable of `Snapshot` objects in the order of their
              steps.
        ignore: Code, or codes, of findings not to report. Defaults to `()`. A monitor also
            leaves out the codes that it ignores itself.

    Returns:
        A `Diagnosis`.

    Raises:
        TypeError: If `what` is none of these.
        ValueError: If `ignore` holds an unknown code, or the log cannot be read.
        FileNotFoundError: If the log folder does not exist, or does not hold one run.
        NotADirectoryError: If the path is that of a file.

    Example:

    ```python
    diagnose("logs/run1", ignore="dead-units")
    ```
    """
    ignore = check_ignored(ignore, "diagnose")
    if isinstance(what, str | PathLike):
        from activation_monitor.storage.reader import read_run  # loads TensorBoard

        return rules.diagnose(read_run(what, "diagnose"), ignore)
    own = getattr(what, "diagnosis", None)
    if isinstance(own, Diagnosis):
        kept = tuple(finding for finding in own.findings if finding.code not in ignore)
        return dataclasses.replace(own, findings=kept)
    return rules.diagnose(_snapshots(what), ignore)


def _snapshots(what):
    if isinstance(what, Mapping):
        names = ", ".join(map(repr, what)) or "none"
        raise TypeError(
            f"diagnose: expected one run: {_EXPECTED}. Received: a {type(what).__name__} "
            f"of several, {names}. Call `diagnose` for each of its values."
        )
    if not isinstance(what, Iterable):
        raise TypeError(f"diagnose: expected {_EXPECTED}. Received: {type(what).__name__}.")
    snapshots = what if isinstance(what, Recording) else list(what)
    for place, one in enumerate(snapshots):
        if not isinstance(one, Snapshot):
            raise TypeError(
                f"diagnose: expected {_EXPECTED}. Received: a {type(what).__name__} whose "
                f"element {place} is of type {type(one).__name__}."
            )
    return snapshots

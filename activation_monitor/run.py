"""Keeps, judges and logs the snapshots of one run. A failure here never ends training."""

import inspect
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from activation_monitor.analysis import scalars
from activation_monitor.analysis.diagnosis import Diagnosis, summary
from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.health import Health, judge
from activation_monitor.analysis.snapshot import Recording, Snapshot
from activation_monitor.recording.backends import backend
from activation_monitor.storage.writer import EventLog
from activation_monitor.views import (
    console,  # noqa: F401 - shows the diagnosis
    in_words,
)

_KEEP = 1000


class Attempts:
    """Calls functions whose failure must not end training.

    Each failure gives a warning. The same warning is issued only once.
    """

    def __init__(self):
        self._warned = set()

    def attempt(self, without: str, function: Callable, *args: Any) -> Any:
        """Call a function and turn an error into a warning.

        Args:
            without: The consequence of a failure, for the warning.
            function: The function to call.
            *args: Its arguments.

        Returns:
            The return value of the function; None if it raised an error.
        """
        try:
            return function(*args)
        except Exception as error:
            self.warn_once(
                f"{without}, training goes on ({type(error).__name__}: {error})."
            )
            return None

    def warn_once(self, message: str) -> None:
        """Issue a warning, unless the same message was issued before."""
        if message not in self._warned:
            self._warned.add(message)
            warn(message)


def warn(message: object) -> None:
    """Issue a Python warning that points to the user's line, for example that with `fit`.

    Args:
        message: The message, or an object such as a finding that prints as one.
    """
    ours = ("activation_monitor", "keras", "contextlib", *backend.FRAMES)
    level, frame = 1, inspect.currentframe()
    while frame and frame.f_globals.get("__name__", "").split(".")[0] in ours:
        level, frame = level + 1, frame.f_back
    if sys.stderr.isatty():
        print(file=sys.stderr)  # the line may contain a progress bar
    warnings.warn(f"ActivationMonitor: {message}", stacklevel=level)


class Run:
    """One run: the snapshots of a network's training, or of its evaluations.

    Args:
        attempts: Calls the functions that may fail.
        log_dir: The log folder, or None to write nothing.
        name: Name of the run's folder in `log_dir`.
        ignore: Codes of findings that are not reported. Defaults to `frozenset()`.
        scalars: Whether to log scalars of each layer. Defaults to `True`.
        log_budget: About how many bytes the log may have, see `EventLog`. Defaults to
            `None`, no limit.
        evaluations: The snapshots of evaluations of this run of training. Defaults to
            `None`: there are none.
        track: Called with each snapshot and what was found up to it, to log numbers
            elsewhere; None in place of the findings of an evaluation. Defaults to `None`.

    Attributes:
        recording: The snapshots. It holds at most 1000: those of the first steps, and the
            rest thinned evenly.
    """

    def __init__(
        self,
        attempts: Attempts,
        log_dir: str | Path | None,
        name: str,
        ignore: frozenset[str] = frozenset(),
        scalars: bool = True,
        log_budget: int | None = None,
        evaluations: Recording | None = None,
        track: Callable[[Snapshot, Sequence[Finding] | None], None] | None = None,
    ):
        self.recording = Recording(keep=_KEEP, evaluations=evaluations)
        self._attempts = attempts
        self._log_dir = log_dir
        self._name = name
        self._ignored = ignore
        self._scalars = scalars
        self._log_budget = log_budget
        self._track = track
        self._health = Health()
        self._added = 0
        self._log = None
        self._numbers: tuple[Snapshot, dict[str, float]] | None = None

    @property
    def health(self) -> Health:
        """The state of the diagnosis after all snapshots so far."""
        return self._health

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings in all snapshots so far, without those that are ignored."""
        return tuple(f for f in self._health.findings if f.code not in self._ignored)

    @property
    def diagnosis(self) -> Diagnosis:
        """The diagnosis of all snapshots so far, which prints as a table."""
        return summary(self.recording, self.findings)

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers of the network at the last sampled step, see `scalars.OF_NETWORK`;
        NaN before it."""
        if not len(self.recording):
            return dict.fromkeys(scalars.OF_NETWORK, math.nan)
        last = self.recording[-1]
        if self._numbers is None or self._numbers[0] is not last:
            self._numbers = last, scalars.of_network(last, self.findings)
        return self._numbers[1]

    def open(self) -> None:
        """Open the log, if a log folder is set and the log is not open yet."""
        if self._log_dir is not None and self._log is None:
            self._log = self._attempts.attempt(
                f"nothing is logged to {str(self._log_dir)!r}",
                *(EventLog, self._log_dir, self._name, self._scalars, self._log_budget),
            )

    def add(self, snapshot: Snapshot) -> list[Finding]:
        """Keep, judge and log a snapshot.

        Args:
            snapshot: The snapshot of a sampled step.

        Returns:
            The findings to report: new ones, and those that have grown. See
            `health.judge`.
        """
        self.recording.append(snapshot)
        new = self._judged(snapshot)
        self._added += 1
        # The verdict is also written at powers of two, so that it stays up to date.
        due = new or self._added & (self._added - 1) == 0
        verdict = None
        if due and self._log is not None and not snapshot.evaluation:
            verdict = self._verdict()
        self._write(EventLog.write, snapshot, verdict)
        if self._log is not None and self._log.thinned_from is not None:
            self._attempts.warn_once(
                f"the log in {str(self._log_dir)!r} has passed half of its budget of "
                f"{self._log_budget} bytes: from step {self._log.thinned_from} on it gets "
                "ever fewer snapshots. Set `log_budget` or `sample_every` higher for a "
                "longer log."
            )
        if self._track is not None:
            self._track(snapshot, None if snapshot.evaluation else self.findings)
        return new

    def compare(self, evaluation: Snapshot) -> list[Finding]:
        """Judge an evaluation of this run of training, by comparison.

        Args:
            evaluation: A snapshot of evaluation, which another run has kept.

        Returns:
            The findings to report, see `add`.
        """
        new = self._judged(evaluation)
        if new and self._log is not None and (verdict := self._verdict()) is not None:
            self._write(EventLog.write_verdict, evaluation.step, verdict)
        return new

    def _judged(self, snapshot):
        """Judge a snapshot; the findings to report."""
        after = self._attempts.attempt(
            "the diagnosis is incomplete", judge, self._health, snapshot
        )
        self._health, new = after or (self._health, ())
        return [finding for finding in new if finding.code not in self._ignored]

    def _verdict(self):
        return self._attempts.attempt(
            "the log has no verdict", lambda: in_words.markdown(self.diagnosis)
        )

    def flush(self) -> None:
        """Write buffered events, so that readers can see them."""
        self._write(EventLog.flush)

    def close(self) -> None:
        """Close the log.

        The log of a training run ends with the last verdict and an image of all steps.
        `open` then opens a new file in the same folder.
        """
        if len(self.recording) and not self.recording[-1].evaluation:
            if self._log is not None and (verdict := self._verdict()) is not None:
                self._write(EventLog.write_verdict, self.recording.steps[-1], verdict)
            if self._log is not None:  # it is None if writing the verdict failed
                self._attempts.attempt(
                    "the log has no picture", self._write_image, self._log
                )
        self._write(EventLog.close)
        self._log = None

    def _write_image(self, log):
        from activation_monitor.views.figures import image  # loads plotly only when needed

        pixels = image.picture(self.recording)
        height, width, _ = pixels.shape
        step = self.recording.steps[-1]
        log.write_image(step, image.png(pixels), (width, height), image.ABOUT)

    def _write(self, method, *args):
        if self._log is not None:

            def write():
                method(self._log, *args)
                return self._log

            # After a failure the log is None, and nothing more is written.
            self._log = self._attempts.attempt(
                f"logging to {str(self._log_dir)!r} has ended", write
            )

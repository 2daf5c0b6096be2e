"""What becomes of what is measured: a recording, findings, a log. None of it may fail."""

import inspect
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

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
    """Calls what may fail without ending training, and warns once of each failure."""

    def __init__(self):
        self._told = set()

    def attempt(self, without: str, function: Callable, *args):
        """What the function returns; None if it fails.

        Args:
            without: What there is not then, for the warning.
            function: What to call.
            *args: What to call it with.
        """
        try:
            return function(*args)
        except Exception as error:
            self.warn_once(
                f"{without}, training goes on ({type(error).__name__}: {error})."
            )
            return None

    def warn_once(self, message: str) -> None:
        """Warn, unless the very same was said before."""
        if message not in self._told:
            self._told.add(message)
            warn(message)


def warn(message) -> None:
    """A Python warning that points at the user's own line, that with `fit`."""
    ours = ("activation_monitor", "keras", "contextlib", *backend.FRAMES)
    level, frame = 1, inspect.currentframe()
    while frame and frame.f_globals.get("__name__", "").split(".")[0] in ours:
        level, frame = level + 1, frame.f_back
    if sys.stderr.isatty():
        print(file=sys.stderr)  # a progress bar may stand in the line
    warnings.warn(f"ActivationMonitor: {message}", stacklevel=level)


class Run:
    """One run: the snapshots of a network's training, or of its evaluations.

    Args:
        attempts: Calls what may fail.
        log_dir: The log folder, None to write nothing.
        name: Of the run folder below it.
        ignore: Codes of findings that nobody wants to hear of.
        scalars: Whether to log scalars of each layer.

    Attributes:
        recording: The snapshots. At most 1000 are held, those of the first steps and an
            evenly thinned rest.
    """

    def __init__(
        self,
        attempts: Attempts,
        log_dir: str | Path | None,
        name: str,
        ignore: frozenset[str] = frozenset(),
        scalars: bool = True,
    ):
        self.recording = Recording(keep=_KEEP)
        self._attempts = attempts
        self._log_dir = log_dir
        self._name = name
        self._ignored = ignore
        self._scalars = scalars
        self._health = Health()
        self._added = 0
        self._log = None

    @property
    def health(self) -> Health:
        """What is known of the snapshots so far."""
        return self._health

    @property
    def diagnosis(self) -> Diagnosis:
        """What the snapshots say so far; prints as a table."""
        told = [f for f in self._health.findings if f.code not in self._ignored]
        return summary(self.recording, told)

    def open(self) -> None:
        """Open the log, if there is to be one and it is not open."""
        if self._log_dir is not None and self._log is None:
            self._log = self._attempts.attempt(
                f"nothing is logged to {str(self._log_dir)!r}",
                *(EventLog, self._log_dir, self._name, self._scalars),
            )

    def add(self, snapshot: Snapshot) -> list[Finding]:
        """Keep, judge and write a snapshot.

        Returns:
            The findings to be told: what is new, and what has grown; see `health.judge`.
        """
        self.recording.append(snapshot)
        after = self._attempts.attempt(
            "the diagnosis is incomplete", judge, self._health, snapshot
        )
        self._health, new = after or (self._health, ())
        new = [finding for finding in new if finding.code not in self._ignored]
        self._added += 1
        # At powers of two as well, so that it does not fall behind.
        due = new or self._added & (self._added - 1) == 0
        verdict = None
        if due and self._log is not None and not snapshot.evaluation:
            verdict = self._verdict()
        self._write(EventLog.write, snapshot, verdict)
        return new

    def _verdict(self):
        return self._attempts.attempt(
            "the log has no verdict", lambda: in_words.markdown(self.diagnosis)
        )

    def flush(self) -> None:
        """Let the log be read."""
        self._write(EventLog.flush)

    def close(self) -> None:
        """Close the log, that of training with the last verdict and a picture of all steps
        at its end; `open` opens a new file beside it."""
        if len(self.recording) and not self.recording[-1].evaluation:
            if self._log is not None and (verdict := self._verdict()) is not None:
                self._write(EventLog.write_verdict, self.recording.steps[-1], verdict)
            if self._log is not None:  # which it is not, if that failed
                self._attempts.attempt("the log has no picture", self._write_image)
        self._write(EventLog.close)
        self._log = None

    def _write_image(self):
        from activation_monitor.views.figures import image  # plotly is loaded here only

        pixels = image.heat_image(self.recording)
        height, width, _ = pixels.shape
        step = self.recording.steps[-1]
        self._log.write_image(step, image.png(pixels), (width, height), image.ABOUT)

    def _write(self, method, *args):
        if self._log is not None:

            def write():
                method(self._log, *args)
                return self._log

            # None from then on, if it fails.
            self._log = self._attempts.attempt(
                f"logging to {str(self._log_dir)!r} has ended", write
            )

"""The callback: where recording, analysis and views meet."""

import inspect
import warnings
from collections.abc import Callable, Collection
from pathlib import Path

import keras

from activation_monitor.analysis.diagnosis import Diagnosis, new_findings, summary
from activation_monitor.analysis.findings import Finding, check_silence
from activation_monitor.analysis.snapshot import History, Snapshot
from activation_monitor.recording.choice import LayerChoice, check
from activation_monitor.recording.steps import StepCount, TwoSteps, schedule
from activation_monitor.recording.taps import (
    Taps,
    all_layers,
    chosen_layers,
    steps_taken,
)
from activation_monitor.views import console
from activation_monitor.views.events import EventLog

_KEEP = 1000


class ActivationMonitor(keras.callbacks.Callback):
    """Records every layer's activations during `fit` and says what is wrong with them.

    At sampled steps the model runs a second compiled training step, which does the same
    and measures each layer's output inside the step. All other steps run the model's own
    training step, unchanged. The price is one more compilation, at the first sampled
    step. Nothing is added to the model, its weights, its saved files or its history,
    and no failure of the monitor ends training: it warns once and goes on with what
    works.

    Args:
        log_dir: Folder for TensorBoard; events go to the run `activations` below it.
            None writes nothing; the diagnosis is still made.
        sample_every: Every how many steps to look, or a function of the step that returns
            whether to. Steps are counted from the optimizer's `iterations`. Given a
            number, the first steps are sampled densely: 0, 1, 2, 5, 10, 20 and 50.
        layers: Which layers to measure. None: every leaf layer with a floating-point
            output. Else one or a list of: a layer's name or path; a regular expression,
            searched for in the path (a string or a compiled pattern); or a predicate of
            the layer. A layer stands for all layers inside it.
        histograms: Count histograms as well.
        on_finding: What to do when something is found: "warn" once for each finding,
            "stop" training (and warn), "raise" a RuntimeError, or a function that is
            called with the `Finding`.
        silence: Codes of findings that you do not want to hear of, `Finding.code`.

    A monitor follows one model: given another one, it starts anew.

    Attributes:
        history: The snapshots, a `History`. At most 1000 are held, those of the first
            steps and an evenly thinned rest; the event file has all.
        diagnosis: What they say: a `Diagnosis`, which prints as a table.

    Raises:
        TypeError, ValueError: For arguments of the wrong kind or value; and at the
            start of `fit` if `layers` matches no layer.

    Example:

    ```python
    monitor = ActivationMonitor("logs/run1")
    model.fit(x, y, callbacks=[monitor])
    print(monitor.diagnosis)
    ```
    """

    def __init__(
        self,
        log_dir: str | Path | None = None,
        sample_every: int | Callable[[int], bool] = 100,
        layers: LayerChoice = None,
        histograms: bool = True,
        on_finding: str | Callable[[Finding], None] = "warn",
        silence: str | Collection[str] = (),
    ):
        super().__init__()
        if log_dir is not None and not isinstance(log_dir, str | Path):
            raise TypeError(
                "ActivationMonitor: `log_dir` must be the path of a folder, or None to "
                f"write nothing. Received: log_dir={log_dir!r}."
            )
        if on_finding not in ("warn", "stop", "raise") and not callable(on_finding):
            raise ValueError(
                'ActivationMonitor: `on_finding` must be "warn", "stop", "raise" or a '
                f"function of the finding. Received: on_finding={on_finding!r}."
            )
        check(layers)
        self.log_dir = log_dir
        self._is_sampled = schedule(sample_every)
        self._choice = layers
        self._histograms = bool(histograms)
        self._on_finding = on_finding
        self._silence = check_silence(silence, "ActivationMonitor")
        self._log = None
        self._told = set()
        self._of = None
        self._forget()

    def _forget(self):
        """Start anew, with another model."""
        self.history = History(keep=_KEEP)
        self._findings: tuple[Finding, ...] = ()
        self._first_step = None
        self._count = StepCount()
        self._now = 0
        self._looked = False
        self._layers = None
        self._steps = None

    @property
    def diagnosis(self) -> Diagnosis:
        """What the snapshots say so far; prints as a table."""
        told = [f for f in self._findings if f.code not in self._silence]
        return summary(self.history, told, console.diagnosis_text)

    # -- what Keras calls

    def on_train_begin(self, logs=None):
        """Find the layers; open the log."""
        model = self.model
        if self._of is not model:  # another model than in the `fit` before
            self._forget()
            self._of = model
        # A wrong choice of layers is the user's to know before training starts.
        chosen = chosen_layers(self._choice, model)
        layers = [id(layer) for layer in all_layers(model)]
        if self._steps is None or layers != self._layers:
            self._layers = layers
            taps = self._attempt("nothing is measured", self._taps, chosen)
            self._steps = None
            if taps is not None:
                self._steps = TwoSteps(model, taps, self._measured, self._gave_up)
        if self._steps is None:
            return
        self._count.fit_begins()
        if self.log_dir is not None and self._log is None:
            self._log = self._attempt(
                f"nothing is logged to {str(self.log_dir)!r}", EventLog, self.log_dir
            )

    def on_epoch_begin(self, epoch, logs=None):
        """Find out at which step it begins."""
        if self._steps is None:
            return
        # Not before: another callback's `on_train_begin` may restore the optimizer.
        taken = self._attempt(
            "steps are counted without the optimizer", steps_taken, self.model.optimizer
        )
        start = self._count.epoch_begins(taken or 0)
        if self._first_step is None:
            self._first_step = start

    def on_train_batch_begin(self, batch, logs=None):
        """Choose which of the two training steps runs now."""
        if self._steps is not None:
            together = self.model.steps_per_execution
            self._now = self._count.batch_begins(batch, together)
            self._attempt("this step is not measured", self._choose, together)

    def on_train_batch_end(self, batch, logs=None):
        """Count it; it does not come to this where the data has run out."""
        self._count.batch_ends()

    def on_epoch_end(self, epoch, logs=None):
        """Let the log be read."""
        self._write(EventLog.flush)

    def on_train_end(self, logs=None):
        """Close the log; a later `fit` opens a new file beside it."""
        self._write(EventLog.close)
        self._log = None
        if self._steps is not None and self._looked and not self.history.snapshots:
            self._warn_once(
                "no layer was measured. If the model overrides `make_train_function`, "
                "let it call `self.train_step`.",
            )

    # -- what happens then

    def _taps(self, chosen):
        model = self.model
        replicas = model.distribute_strategy.num_replicas_in_sync
        if replicas > 1:
            raise NotImplementedError(
                f"{replicas} replicas; distributed training is not measured yet"
            )
        return Taps(model, chosen, self._histograms, warn=self._warn_once)

    def _choose(self, together):
        steps = range(self._now, self._now + together)
        if any(self._is_sampled(step, self._first_step) for step in steps):
            self._looked = True
            self._steps.sample_next()

    def _measured(self, found):
        if not found.layers:
            return
        steps = self.model.steps_per_execution
        snapshot = Snapshot(self._now, steps=steps, **found._asdict())
        self.history.append(snapshot)
        first = len(self.history) == 1
        new = self._attempt(
            "the diagnosis is incomplete",
            new_findings,
            snapshot,
            self._findings,
            first,
        )
        self._findings += new or ()
        new = [finding for finding in new or () if finding.code not in self._silence]
        if self._log is not None:
            verdict = None
            if new or first:
                verdict = console.diagnosis_markdown(self.diagnosis)
            self._write(EventLog.write, snapshot, verdict)
        for finding in new:
            self._act_on(finding)

    def _act_on(self, finding):
        if callable(self._on_finding):
            self._on_finding(finding)
        elif self._on_finding == "raise":
            raise RuntimeError(f"ActivationMonitor: {finding}")
        else:
            _warn(finding)
            if self._on_finding == "stop":
                self.model.stop_training = True

    def _gave_up(self, error):
        self._steps = None
        self._warn_once(
            f"measuring failed here and is given up, training goes on "
            f"({type(error).__name__}: {error})."
        )

    def _write(self, method, *args):
        if self._log is not None:

            def write():
                method(self._log, *args)
                return self._log

            # None from then on, if it fails.
            self._log = self._attempt(f"logging to {str(self.log_dir)!r} has ended", write)

    def _attempt(self, without, function, *args):
        """Call what may fail without ending training: what it returns, None if it fails."""
        try:
            return function(*args)
        except Exception as error:
            self._warn_once(
                f"{without}, training goes on ({type(error).__name__}: {error})."
            )
            return None

    def _warn_once(self, message):
        if message not in self._told:
            self._told.add(message)
            _warn(message)


def _warn(message):
    """A Python warning that points at the user's own line, that with `fit`."""
    ours = ("activation_monitor", "keras", "tensorflow")
    level, frame = 1, inspect.currentframe()
    while frame and frame.f_globals.get("__name__", "").split(".")[0] in ours:
        level, frame = level + 1, frame.f_back
    warnings.warn(f"ActivationMonitor: {message}", stacklevel=level)

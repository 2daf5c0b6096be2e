"""What a monitor does with its models: measure, judge, log, and act on findings."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import keras

from activation_monitor.actions import Actions, Seen, UnhealthyModelError, decide
from activation_monitor.analysis import rules
from activation_monitor.analysis.records import OUTPUT
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.recording.backends import backend
from activation_monitor.recording.choice import LayerChoice
from activation_monitor.recording.keras_private import present_state, state_held
from activation_monitor.recording.layers import chosen_layers
from activation_monitor.recording.loss_watch import LossWatch
from activation_monitor.recording.recent import Recent
from activation_monitor.recording.steps import Schedule
from activation_monitor.recording.table import Measured
from activation_monitor.recording.taps import Taps
from activation_monitor.recording.two_steps import SampledStep
from activation_monitor.run import Attempts, Run, warn
from activation_monitor.storage.log_format import RUN, VALIDATION_RUN
from activation_monitor.tracking import Tracking
from activation_monitor.views.live import Live
from activation_monitor.views.trackers import Log

_DENSE = 10
"""So many steps are sampled after a first sign of trouble."""

_APART = 20
"""Times as many steps lie between two such signs: at most one step in 20 is sampled in
addition to the schedule."""


@dataclass(frozen=True)
class Options:
    """The validated arguments of an `ActivationMonitor`."""

    log_dir: str | Path | None
    schedule: Schedule
    layers: LayerChoice
    histograms: bool
    gradients: bool
    scalars: bool
    log_budget: int | None
    validation: bool
    actions: Actions
    ignored: frozenset[str]
    flight_recorder: int
    trackers: tuple[tuple[str, Log], ...]
    logs: tuple[str, ...]


class Session:
    """The training run and the evaluation run of one or several models.

    Args:
        options: The arguments of the monitor.
        attempts: Calls the functions that may fail.
        models: The models to measure.
        live: Shows the training in a notebook.

    Attributes:
        training: The run of training.
        evaluating: The run of evaluations.
        tracking: The trackers of both.
        now: The number of the running step, or of the next step between two steps.
        first_step: The number of the first step; None before it.
        together: The number of steps that one execution runs.
        stop: A function that ends training; None if training cannot be ended.
        has_sampled: Whether any step was sampled.
    """

    def __init__(
        self,
        options: Options,
        attempts: Attempts,
        models: tuple[keras.Model, ...],
        live: Live,
    ):
        self.options = options
        self._live = live
        self.attempts = attempts
        self.models = models
        self._is_chief = all(map(backend.is_chief, backend.strategies(models)))
        log_dir = options.log_dir if self._is_chief else None
        trackers = options.trackers if self._is_chief else ()
        self.tracking = Tracking(attempts, trackers, options.scalars)
        written = {
            "scalars": options.scalars,
            "log_budget": options.log_budget,
            "track": self.tracking.log,
        }
        self.evaluating = Run(attempts, log_dir, VALIDATION_RUN, **written)
        self.training = Run(
            *(attempts, log_dir, RUN, options.ignored),
            evaluations=self.evaluating.recording,
            **written,
        )
        self.now = 0
        self.first_step: int | None = None
        self.together = 1
        self.stop: Callable[[], None] | None = None
        self.has_sampled = False
        self._recent = Recent(options.flight_recorder)
        self._losses = LossWatch()
        self._may_differ = False  # whether other workers have other records
        # The step before which each one is sampled, after a sign of trouble.
        self._dense_until = -_DENSE * _APART
        self._taps: Taps | None = None  # those of training
        # By whether it is found in evaluations: patience counts those, or sampled steps.
        self._seen = {False: Seen(), True: Seen(steps=1)}
        self._was_closed = False  # because an error was raised

    def sampled_step(
        self,
        gave_up: Callable[[], None],
        kind: str = "train",
    ) -> SampledStep | None:
        """Create the object that measures sampled steps of the models.

        Args:
            gave_up: Called when measuring fails and ends.
            kind: `"train"` or `"test"`. Defaults to `"train"`.

        Returns:
            The sampled step. None, after a warning, if the models cannot be measured.

        Raises:
            ValueError: If `layers` matches no layer; or if `sample_every` is a function
                and several workers train together.
        """
        strategies = backend.strategies(self.models)
        together = max(map(backend.workers, strategies), default=1)
        may_differ = together > 1 and not backend.EACH_WORKER_KNOWS_ALL
        if together > 1 and self.options.schedule.by_function:
            # All workers run a sampled step together, or each waits forever. TensorFlow
            # also ends training ("Collective instance ... expected type").
            raise ValueError(
                "ActivationMonitor: with several workers `sample_every` must be a number, "
                f"so that all {together} workers sample the same steps. Received: a "
                "function."
            )
        chosen = chosen_layers(self.options.layers, *self.models)

        def end(error):
            gave_up()
            self.attempts.warn_once(
                "measuring failed and ends here, training goes on "
                f"({type(error).__name__}: {error})."
            )

        def make():
            for strategy in strategies:
                backend.check_strategy(strategy)
            taps = Taps(
                self.models,
                chosen,
                histograms=self.options.histograms,
                weights=kind == "train",
                gradients=kind == "train" and self.options.gradients,
                warn=self.attempts.warn_once,
                now=lambda: (self.now, self.together),
            )
            receive = self._measured if kind == "train" else self._evaluated
            if kind == "train":
                self._taps, self._may_differ = taps, may_differ
            return SampledStep(taps, receive, end, self._kept, always_exact=may_differ)

        return self.attempts.attempt("nothing is measured", make)

    @property
    def keeps(self) -> bool:
        """Whether a step that is not sampled is measured, and kept for a while."""
        return self._recent.length > 0

    def samples(self) -> bool:
        """Whether the running step is sampled: by the schedule, or after a sign of trouble
        in the loss."""

        def ask():
            if self.now < self._dense_until:
                return True
            first = cast(int, self.first_step)  # set before the first step
            return self.options.schedule.samples(
                self.now, self.together, first, self.training.health
            )

        sampled = self.attempts.attempt("this step is not measured", ask)
        self.has_sampled = self.has_sampled or bool(sampled)
        return bool(sampled)

    def _measured(self, found: Measured):
        if not found.layers:
            return
        if self._was_closed:  # a custom loop that goes on after the error
            self.training.open()
            self._was_closed = False
        snapshot = Snapshot(self.now, **found._asdict(), steps=self.together)
        if self.keeps and snapshot.nonfinite:
            self._add_recent()
        self._recent.forget()
        self._add(snapshot)

    def _kept(self, copied: Callable[[], Measured]):
        self._recent.keep(self.now, self.together, copied)

    def _add_recent(self):
        taken = self.attempts.attempt("recent steps cannot be read", self._recent.take)
        for snapshot in taken or ():
            self._add(snapshot)

    def execution_ended(self, mean_loss: Any, steps: int) -> None:
        """After an execution: act on a first sign of trouble in its loss.

        The recent steps are read. The next ones are sampled, unless other workers would
        not sample them as well. If the loss is not finite and its step was not measured, a
        snapshot shows the weights as it has left them.

        Args:
            mean_loss: The mean loss of the epoch so far; None if it is not known.
            steps: The number of its steps.
        """
        sign = self.attempts.attempt(
            "signs of trouble in the loss are missed", self._losses.sign, mean_loss, steps
        )
        if not sign:
            return
        self._add_recent()
        after = self.now + self.together
        if not self._may_differ and after >= self._dense_until + _DENSE * _APART:
            self._dense_until = after + _DENSE
        recording = self.training.recording
        if sign == "nonfinite" and len(recording) and recording[-1].last_step < self.now:
            found = self.attempts.attempt(
                "the weights of this step are not measured",
                *(self._weights_after, recording[-1].layers, float(mean_loss)),
            )
            if found is not None:
                self._add(found)

    def _weights_after(self, layers, loss):
        """A snapshot of the weights that an execution has left; None if layers changed."""
        taps = cast(Taps, self._taps)  # it has made a snapshot before
        with contextlib.ExitStack() as stack:
            for model in self.models:
                stack.enter_context(state_held(model, present_state(model)))
            weights = taps.weights_now()
        if len(weights[OUTPUT]) != len(layers):
            return None
        return Snapshot(self.now, layers, weights, {}, self.together, loss)

    def show(self, at_once: bool = True) -> None:
        """Keep the notebook up to date.

        Args:
            at_once: Whether to do so in any case, and not only once in a while. Defaults to
                `True`.
        """
        self.attempts.attempt(
            "the notebook is not kept up to date", self._live.update, at_once
        )

    def _add(self, snapshot: Snapshot):
        news = self.training.add(snapshot)
        self.show(at_once=bool(news))
        self._act_on(news, snapshot)

    def _evaluated(self, found: Measured):
        if not found.layers:
            return
        snapshot = Snapshot(self.now, **found._asdict(), evaluation=True)
        self.evaluating.add(snapshot)
        news = self.training.compare(snapshot)
        self.show(at_once=bool(news))
        self._act_on(news, snapshot)

    def _act_on(self, news, snapshot):
        if not self._is_chief and not backend.EACH_WORKER_KNOWS_ALL:
            return  # else all workers end training together
        which = snapshot.evaluation
        findings = [
            finding
            for finding in self.training.findings
            if (finding.code == rules.EVALUATION) == which
        ]
        self._seen[which], due = decide(
            self.options.actions, self._seen[which], findings, news
        )
        if due:
            self.training.flush()  # whatever ends training now
            self._act(due, snapshot)

    def _act(self, due, snapshot):
        to_raise = []
        try:
            for action, finding in due:
                if callable(action):
                    action(finding)
                elif action == "raise":
                    to_raise.append(finding)  # after the others
                elif action == "stop" and self.stop is not None:
                    warn(f"training stops at step {snapshot.last_step}, due to {finding}")
                    self.stop()
                else:
                    warn(finding)
            if to_raise:
                raise UnhealthyModelError(to_raise, self.training.diagnosis)
        except BaseException:  # the user's function, or a warning, may raise one as well
            self.training.close()
            self.evaluating.close()
            self._was_closed = True
            raise

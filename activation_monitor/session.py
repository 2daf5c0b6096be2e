"""What a monitor does with its models: measure, judge, log, and act on findings."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import keras

from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.recording.backends import backend
from activation_monitor.recording.choice import LayerChoice
from activation_monitor.recording.layers import chosen_layers
from activation_monitor.recording.steps import Schedule
from activation_monitor.recording.table import Measured
from activation_monitor.recording.taps import Taps
from activation_monitor.recording.two_steps import SampledStep
from activation_monitor.run import Attempts, Run, warn
from activation_monitor.storage.log_format import RUN, VALIDATION_RUN


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
    on_finding: str | Callable[[Finding], None]
    ignored: frozenset[str]


class Session:
    """The training run and the evaluation run of one or several models.

    Args:
        options: The arguments of the monitor.
        attempts: Calls the functions that may fail.
        models: The models to measure.

    Attributes:
        training: The run of training.
        evaluating: The run of evaluations.
        now: The number of the running step, or of the next step between two steps.
        first_step: The number of the first step; None before it.
        together: The number of steps that one execution runs.
        stop: A function that ends training; None if training cannot be ended.
        has_sampled: Whether any step was sampled.
    """

    def __init__(
        self, options: Options, attempts: Attempts, models: tuple[keras.Model, ...]
    ):
        self.options = options
        self.attempts = attempts
        self.models = models
        self._is_chief = all(map(backend.is_chief, backend.strategies(models)))
        log_dir = options.log_dir if self._is_chief else None
        written = {"scalars": options.scalars, "log_budget": options.log_budget}
        self.training = Run(attempts, log_dir, RUN, options.ignored, **written)
        self.evaluating = Run(attempts, log_dir, VALIDATION_RUN, **written)
        self.now = 0
        self.first_step: int | None = None
        self.together = 1
        self.stop: Callable[[], None] | None = None
        self.has_sampled = False

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
        if together > 1 and self.options.schedule.by_function:
            # The first sampled step creates variables, whose values the workers exchange.
            # If only one worker creates them, training ends ("Collective instance ...
            # expected type") or the worker waits forever.
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
                now=lambda: self.now,
            )
            receive = self._measured if kind == "train" else self._evaluated
            return SampledStep(taps, receive, end, always_exact=together > 1)

        return self.attempts.attempt("nothing is measured", make)

    def samples(self) -> bool:
        """Whether the running step is sampled, according to the schedule."""

        def ask():
            first = cast(int, self.first_step)  # set before the first step
            return self.options.schedule.samples(
                self.now, self.together, first, self.training.health
            )

        sampled = self.attempts.attempt("this step is not measured", ask)
        self.has_sampled = self.has_sampled or bool(sampled)
        return bool(sampled)

    def _measured(self, found: Measured):
        if found.layers:
            snapshot = Snapshot(self.now, **found._asdict(), steps=self.together)
            for finding in self.training.add(snapshot):
                self._act_on(finding)

    def _evaluated(self, found: Measured):
        if found.layers:
            self.evaluating.add(Snapshot(self.now, **found._asdict(), evaluation=True))

    def _act_on(self, finding):
        on_finding = self.options.on_finding
        if not self._is_chief:
            return
        if callable(on_finding):
            on_finding(finding)
        elif on_finding == "raise":
            raise RuntimeError(f"ActivationMonitor: {finding}")
        else:
            warn(finding)
            if on_finding == "stop" and self.stop is not None:
                self.stop()

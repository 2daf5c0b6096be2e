"""The callback: where recording, analysis and views meet."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import keras

from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.findings import Finding, check_ignored
from activation_monitor.analysis.shown import count, one_line
from activation_monitor.analysis.snapshot import Recording, Snapshot
from activation_monitor.recording.backends import backend
from activation_monitor.recording.choice import LayerChoice, check
from activation_monitor.recording.keras_private import (
    all_layers,
    chosen_layers,
    steps_taken,
)
from activation_monitor.recording.step_count import StepCount
from activation_monitor.recording.steps import Looks, TwoSteps, TwoTraces, schedule
from activation_monitor.recording.taps import Taps
from activation_monitor.run import Attempts, Run, warn
from activation_monitor.storage.log_format import RUN, VALIDATION_RUN


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
        scalars: Write mean and std of every layer as scalars as well, two cards for each in
            TensorBoard's Scalars tab. Figures and diagnosis do not need them.
        validation: Measure the forward passes of `evaluate`, and of the validation inside
            `fit`, as well: all batches of one evaluation make one snapshot, in
            `validation_recording` and in the run `activations_validation`, at the step
            that training has reached. It is never judged.
        on_finding: What to do when something is found: "warn", "stop" training (and
            warn), "raise" a RuntimeError, or a function that is called with the `Finding`.
            It happens once for each finding, and again when the finding has grown: its
            severity has risen, or twice as many layers have joined.
        ignore: Codes of findings that you do not want to hear of, `Finding.code`.

    A monitor follows one model: given another one, it starts anew. Without `fit`, a
    training step of your own is looked at by `watch` or `look`.

    Under `tf.distribute.MirroredStrategy` the records of the replicas are merged. Of
    several workers each measures its own share of the batch, and the chief writes; all of
    them need the monitor, with the same arguments but for `log_dir`.

    Attributes:
        recording: The snapshots, a `Recording`. At most 1000 are held, those of the first
            steps and an evenly thinned rest; the event file has all.
        validation_recording: Those of the evaluations, with `validation=True`.
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
        validation: bool = False,
        on_finding: str | Callable[[Finding], None] = "warn",
        ignore: str | Collection[str] = (),
        scalars: bool = True,
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
        self._sampled_by_function = callable(sample_every)
        self._choice = layers
        self._histograms = bool(histograms)
        self._scalars = bool(scalars)
        self._validation = bool(validation)
        self._on_finding = on_finding
        self._ignored = check_ignored(ignore, "ActivationMonitor")
        self._attempts = Attempts()
        self._attempt = self._attempts.attempt
        self._in_fit = False
        self._follow(())

    def _follow(self, models):
        """Start anew, with other models."""
        self._models = tuple(models)
        self._is_chief = all(backend.is_chief(m.distribute_strategy) for m in models)
        log_dir = self.log_dir if self._is_chief else None
        scalars = self._scalars
        self._training = Run(self._attempts, log_dir, RUN, self._ignored, scalars=scalars)
        self._evaluating = Run(self._attempts, log_dir, VALIDATION_RUN, scalars=scalars)
        self._steps = {}  # by kind: the layers it was made for, and TwoSteps or None
        self._watches = False
        self._looks = None
        self._first_step = None
        self._count = StepCount()
        self._now = self._next_step = 0
        self._looked = False

    @property
    def recording(self) -> Recording:
        """The snapshots of training."""
        return self._training.recording

    @property
    def validation_recording(self) -> Recording:
        """The snapshots of evaluations, one for each."""
        return self._evaluating.recording

    @property
    def diagnosis(self) -> Diagnosis:
        """What the snapshots of training say so far; prints as a table."""
        return self._training.diagnosis

    def figure(self, kind: str = "depth_profile", **options):
        """A figure of training so far, which a notebook shows.

        Args:
            kind: "depth_profile": the size of the signal over depth; "heat_map": of all
                layers at all steps; "layer_graph": with the findings marked;
                "layer_over_time" and "histogram_over_time": of one layer.
            **options: `statistic` (of the first three; "rms" if not given), `steps` (of
                the profile; of the graph one step), `layer` (of the last two; the worst
                one if not given), and `dark=True` for a dark page.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ValueError: If nothing was measured yet, or there is no such figure, statistic
                or layer.

        Example:

        ```python
        monitor.figure("heat_map", statistic="std")
        ```
        """
        from activation_monitor.views import figures  # plotly is loaded when it is used

        return figures.draw(kind, self.recording, self.diagnosis, **options)

    @one_line
    def __repr__(self) -> str:
        log = "" if self.log_dir is None else f", log_dir={str(self.log_dir)!r}"
        if not len(self.recording):
            return f"without snapshots{log}"
        found = ", ".join(finding.code for finding in self.diagnosis.findings)
        steps, snapshots = self.recording.steps, count(len(self.recording), "snapshot")
        return (
            f"with {snapshots}, steps {steps[0]} to {steps[-1]}{log}: "
            f"{found or 'no findings'}"
        )

    # -- what Keras calls

    def on_train_begin(self, logs=None):
        """Find the layers; open the log."""
        self._in_fit = True
        if self._two_steps("train"):
            self._count.fit_begins()
            self._training.open()

    def on_epoch_begin(self, epoch, logs=None):
        """Find out at which step it begins."""
        if self._made("train") is None:
            return
        # Not before: another callback's `on_train_begin` may restore the optimizer.
        start = self._count.epoch_begins(self._steps_taken())
        if self._first_step is None:
            self._first_step = start

    def on_train_batch_begin(self, batch, logs=None):
        """Choose which of the two training steps runs now."""
        steps = self._made("train")
        if steps is not None:
            together = self.model.steps_per_execution
            self._now = self._count.batch_begins(batch, together)
            self._attempt("this step is not measured", self._choose, steps, together)

    def on_train_batch_end(self, batch, logs=None):
        """Count it; it does not come to this where the data has run out."""
        self._count.batch_ends()

    def on_epoch_end(self, epoch, logs=None):
        """Let the log be read."""
        self._training.flush()
        self._evaluating.flush()

    def on_train_end(self, logs=None):
        """Close the log; a later `fit` opens a new file beside it."""
        self._in_fit = False
        self._training.close()
        self._evaluating.close()
        if self._made("train") and self._looked and not self.recording.snapshots:
            self._attempts.warn_once(
                "no layer was measured: none puts out dense floating-point numbers, or "
                "the model's own `make_train_function` does not call `self.train_step`."
            )

    def on_test_begin(self, logs=None):
        """Begin to measure an evaluation, if that is wanted."""
        steps = self._two_steps("test") if self._validation else None
        if steps is not None:
            self._now = self._count.reached(self._steps_taken())
            self._evaluating.open()
            steps.looks.begin()

    def on_test_batch_begin(self, batch, logs=None):
        """Let the next step of an evaluation be measured."""
        steps = self._made("test")
        if steps is not None:
            self._attempt("this step of the evaluation is not measured", steps.sample_next)

    def on_test_end(self, logs=None):
        """Keep what the evaluation measured."""
        steps = self._made("test")
        if steps is not None:
            steps.looks.end()
            if not self._in_fit:
                self._evaluating.close()

    # -- without `fit`

    def watch(
        self,
        step: Callable,
        models: keras.Model | Sequence[keras.Model],
        first_step: int = 0,
    ) -> Callable:
        """A training step that does what yours does, and is looked at now and then.

        A `tf.function` is traced a second time, with the layers of the models measured;
        the sampled steps run that one, all others your own, unchanged. A Python function
        runs eagerly, and is measured while it runs.

        Args:
            step: The outermost function of the training step. If it is compiled, the
                `tf.function` itself: what it calls must not be a `tf.function` again.
            models: The model, or the models, that it calls.
            first_step: The number of the first step, `int(optimizer.iterations)` in a run
                that was resumed. From there each call counts as one.

        Returns:
            A function to be called in place of `step`; `step` itself, after a warning, if
            nothing can be measured.

        Raises:
            TypeError: If `step` is no function, or `models` are no Keras models.
            ValueError: If this monitor watches a step already, if `on_finding` is "stop",
                or if a function decides what is sampled by several workers.

        Example:

        ```python
        monitor = ActivationMonitor("logs/run1")
        train_step = monitor.watch(train_step, model)
        for x, y in dataset:
            loss = train_step(x, y)
        ```
        """
        if not callable(step) or isinstance(step, keras.Model):
            raise TypeError(
                "ActivationMonitor.watch: `step` must be a function, and the models come "
                f"after it: watch(step, models). Received: step={step!r}."
            )
        models = _as_models(models, "watch")
        if self._watches:
            raise ValueError(
                "ActivationMonitor.watch: this monitor watches a step already. Make "
                "another monitor for this one."
            )
        self._refuse_stop("watch")
        self._follow(models)
        self._watches = True
        looks = self._looks_at(models, self._measured)
        if looks is None:  # and a coordinator that schedules it wants a `tf.function`
            return step
        traces = TwoTraces(step, looks)
        self._first_step = self._next_step = first_step
        self._training.open()

        def watched(*args, **kwargs):
            self._now, self._next_step = self._next_step, self._next_step + 1
            sampled = self._watches and self._attempt(
                "this step is not measured", self._is_sampled, self._now, self._first_step
            )
            if not sampled:
                return step(*args, **kwargs)
            outputs = traces.run(*args, **kwargs)
            self._training.flush()
            return outputs

        return watched

    @contextlib.contextmanager
    def look(
        self, models: keras.Model | Sequence[keras.Model], step: int | None = None
    ) -> Iterator[None]:
        """Within the block, what runs eagerly is measured, as one step.

        Args:
            models: The model, or the models, that are called there.
            step: The number of the step; None counts the blocks.

        Raises:
            TypeError: If `models` are no Keras models.
            ValueError: If `on_finding` is "stop".

        Example:

        ```python
        with monitor.look(model):
            loss = train_step(x, y)
        ```
        """
        models = _as_models(models, "look")
        self._refuse_stop("look")
        if self._looks is None or models != self._models:
            self._follow(models)
            self._looks = self._looks_at(models, self._measured)
            self._training.open()
        if self._looks is None:
            yield
            return
        self._now = self._next_step if step is None else step
        self._next_step = self._now + 1
        before = len(self.recording)
        self._looks.begin()
        with self._looks.taps.measuring(self._looks.exact):
            yield
        self._looks.end()
        self._training.flush()
        if len(self.recording) == before:
            self._attempts.warn_once(
                "nothing was measured: within `look` no layer was called eagerly. A step "
                "that is a `tf.function` is looked at by `watch`."
            )

    # -- what happens then

    def _two_steps(self, kind):
        """The model's two steps of a kind, made anew if its layers are others."""
        model = self.model
        if self._models != (model,):  # another model than in the `fit` before
            self._follow((model,))
        # A wrong choice of layers is the user's to know before training starts.
        chosen_layers(self._choice, model)
        layers = [id(layer) for layer in all_layers(model)]
        if kind not in self._steps or self._steps[kind][0] != layers:
            receive = self._measured if kind == "train" else self._evaluated
            looks = self._looks_at((model,), receive, kind)
            each = kind == "train"
            steps = TwoSteps(model, looks, kind, each) if looks else None
            self._steps[kind] = layers, steps
        return self._steps[kind][1]

    def _made(self, kind):
        return self._steps.get(kind, (None, None))[1]

    def _looks_at(self, models, receive, kind="train"):
        """What measures these models; None, after a warning, if nothing can."""
        strategies = {id(s): s for s in (m.distribute_strategy for m in models)}.values()
        together = max((backend.workers(strategy) for strategy in strategies), default=1)
        if together > 1 and self._sampled_by_function:
            # The first sampled step makes variables, whose values the workers tell each
            # other. One that makes them alone ends training ("Collective instance ...
            # expected type"), or waits for the others for ever.
            raise ValueError(
                "ActivationMonitor: with several workers `sample_every` must be a number, "
                f"so that all {together} sample the same steps. Received: a function."
            )
        chosen = chosen_layers(self._choice, *models)

        def make():
            for strategy in strategies:
                backend.check_strategy(strategy)
            warn_once = self._attempts.warn_once
            taps = Taps(models, chosen, self._histograms, warn=warn_once)
            return Looks(
                *(taps, receive, lambda error: self._gave_up(kind, error)),
                kernels=kind == "train",
                always_exact=together > 1,
            )

        return self._attempt("nothing is measured", make)

    def _steps_taken(self):
        taken = self._attempt(
            "steps are counted without the optimizer", steps_taken, self.model.optimizer
        )
        return taken or 0

    def _choose(self, steps, together):
        numbers = range(self._now, self._now + together)
        if any(self._is_sampled(number, self._first_step) for number in numbers):
            self._looked = True
            steps.sample_next()

    def _measured(self, found):
        if not found.layers:
            return
        steps = 1 if self.model is None else self.model.steps_per_execution
        for finding in self._training.add(
            Snapshot(self._now, steps=steps, **found._asdict())
        ):
            self._act_on(finding)

    def _evaluated(self, found):
        if found.layers:
            found = found._asdict()
            self._evaluating.add(Snapshot(self._now, **found, evaluation=True))

    def _act_on(self, finding):
        if not self._is_chief:
            return
        if callable(self._on_finding):
            self._on_finding(finding)
        elif self._on_finding == "raise":
            raise RuntimeError(f"ActivationMonitor: {finding}")
        else:
            warn(finding)
            if self._on_finding == "stop":
                self.model.stop_training = True

    def _refuse_stop(self, where):
        if self._on_finding == "stop":
            raise ValueError(
                f'ActivationMonitor.{where}: `on_finding` must not be "stop", for only '
                '`fit` can be stopped. Use "raise", or a function of the finding.'
            )

    def _gave_up(self, kind, error):
        if kind in self._steps:
            self._steps[kind] = self._steps[kind][0], None
        self._watches = False
        self._attempts.warn_once(
            f"measuring failed here and is given up, training goes on "
            f"({type(error).__name__}: {error})."
        )


def _as_models(models, where):
    found = (models,)
    if isinstance(models, list | tuple):
        found = tuple(models)
    if not found or not all(isinstance(model, keras.Model) for model in found):
        raise TypeError(
            f"ActivationMonitor.{where}: `models` must be a keras.Model or a list of "
            f"them. Received: {models!r}."
        )
    return found

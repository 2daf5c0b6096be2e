"""The callback."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import keras

from activation_monitor import loops
from activation_monitor.actions import Action, check_actions
from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.findings import Finding, check_ignored
from activation_monitor.analysis.scalars import check_numbers
from activation_monitor.analysis.shown import count, one_line
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.recording.backends import backend
from activation_monitor.recording.choice import LayerChoice, check
from activation_monitor.recording.keras_private import steps_taken
from activation_monitor.recording.layers import all_layers, chosen_layers
from activation_monitor.recording.step_count import StepCount
from activation_monitor.recording.steps import SampleEvery, Schedule
from activation_monitor.recording.two_steps import TwoSteps
from activation_monitor.run import Attempts
from activation_monitor.session import Options, Session
from activation_monitor.tracking import add_numbers
from activation_monitor.views.live import Live
from activation_monitor.views.trackers import Tracker, trackers_of


class ActivationMonitor(keras.callbacks.Callback):
    """Records activations and gradients of every layer and says what is wrong with them.

    At sampled steps the model runs a second compiled training step, which does the same
    and measures each layer's output, and the gradient with respect to it, inside the step.
    The weights are measured just before the step, and their updates just after it. All
    other steps run the model's own training step, unchanged. The cost is one more
    compilation, at the first sampled step. Nothing is added to the model, its weights, its
    saved files or, without `logs`, its `History`, and no failure of the monitor ends
    training: it warns once and continues with what works.

    Args:
        log_dir: Folder for TensorBoard; events go to the run `activations` below it.
            Defaults to `None`, which writes nothing; the diagnosis is still made.
        sample_every: How many steps lie between two sampled steps; or a function of the
            step, or of the step and the `Health` of the run, that returns whether to
            sample. Steps are counted from the optimizer's `iterations`. With a number,
            the first steps are sampled densely: 0, 1, 2, 5, 10, 20 and 50. Defaults to
            `100`.
        layers: Which layers to measure: one or a list of layer names, paths and regular
            expressions (strings or compiled patterns, searched for in the path); or a
            predicate of the layer. A layer includes all layers inside it. Defaults to
            `None`: every leaf layer with a floating-point output.
        histograms: Whether to count histograms, of outputs, kernels and the gradients of
            both. Defaults to `True`.
        gradients: Whether to measure the gradients of the loss as well, with respect to
            each layer's output and kernel. Defaults to `True`.
        validation: Whether to measure the forward passes of `evaluate`, and of the
            validation inside `fit`. All batches of one evaluation make one snapshot, in
            `validation_recording` and in the run `activations_validation`, at the step
            that training has reached. It is compared with the training steps before it.
            Defaults to `False`.
        on_finding: What to do when something is found: "warn", "stop" training (and
            warn), "raise" an `UnhealthyModelError` after the log is closed, or a function
            that is called with the `Finding`. Or a dictionary of these by severity or
            code: `{"critical": "stop"}` stops at critical findings and warns of all
            others. It happens once for each finding, and again when the finding has
            grown: its severity has risen, or twice as many layers have joined. Defaults
            to `"warn"`.
        patience: At how many further sampled steps in a row a finding must be seen before
            training is stopped, an error is raised or a function is called. Until then it
            only warns. Findings of the first sampled step do not wait, because most rules
            judge only that step. Defaults to `0`.
        ignore: Codes of findings to ignore (`Finding.code`), one or several. Defaults to
            `()`.
        flight_recorder: How many of the last steps to keep for the case that the loss
            becomes NaN or infinite, or jumps. Then every step of `fit` is measured like a
            sampled one, without the weights, and the records stay on the device until they
            are needed. Defaults to `0`: such a step can only be sampled by chance.
        trackers: Where else to log the numbers of each sampled step: "mlflow" or "wandb",
            the active run of MLflow or Weights & Biases; or a function that is called with
            a dictionary of numbers by name, and the step. Or a list of these. With
            `scalars=False` they get the numbers of the whole network only. Defaults to
            `()`.
        logs: Names of numbers to add to the `logs` of each batch and epoch: keys of
            `activation_monitor.analysis.scalars.OF_NETWORK`, such as "growth", one or
            several. Callbacks that come after this one see them, the progress bar and the
            `History` as well. They are those of the last sampled step, and NaN before it.
            Defaults to `()`.
        scalars: Whether to write scalars of every layer as well, for TensorBoard's Scalars
            tab: mean, std, the rms of the gradient, and update over weight, with a card for
            each. Figures and diagnosis do not need them. Defaults to `True`.
        log_budget: About how many bytes the log of a run may have. When half of it is used,
            the log gets ever fewer snapshots, and the monitor says so once. Snapshots with
            something new to report are always logged. None sets no limit. Defaults to
            `1_000_000_000`.

    A monitor follows one model; with another model it starts again. Without `fit`, use
    `watch` or `measure_step`.

    Under `tf.distribute.MirroredStrategy` the records of the replicas are merged. With
    several workers, each measures its own share of the batch, and the chief writes; all of
    them need the monitor, with the same arguments except `log_dir`. Several JAX processes
    have the records of the global batch, all of them, and the first one writes.

    Attributes:
        recording: The snapshots, a `Recording`. It holds at most 1000: those of the first
            steps and an evenly thinned rest. The event file has all.
        validation_recording: The snapshots of evaluations, with `validation=True`.
        diagnosis: What the snapshots say, a `Diagnosis`, which prints as a table.
        findings: The findings so far, a tuple of `Finding`, for other callbacks.

    Raises:
        TypeError, ValueError: If an argument is of the wrong kind or value; and at the
            start of `fit` if `layers` matches no layer.
        UnhealthyModelError: In `fit` and in custom loops, with `on_finding="raise"`.
        NotImplementedError: If Keras runs on a backend that is not supported yet.

    Example:

    ```python
    monitor = ActivationMonitor("logs/run1")
    model.fit(x, y, callbacks=[monitor])
    print(monitor.diagnosis)
    ```
    """

    model: keras.Model  # Keras sets it before it calls the methods below

    def __init__(
        self,
        log_dir: str | Path | None = None,
        sample_every: SampleEvery = 100,
        layers: LayerChoice = None,
        histograms: bool = True,
        gradients: bool = True,
        validation: bool = False,
        on_finding: Action | Mapping[str, Action] = "warn",
        patience: int = 0,
        ignore: str | Collection[str] = (),
        scalars: bool = True,
        log_budget: int | None = 1_000_000_000,
        flight_recorder: int = 0,
        trackers: Tracker | Collection[Tracker] = (),
        logs: str | Collection[str] = (),
    ):
        super().__init__()
        backend.check()
        if log_dir is not None and not isinstance(log_dir, str | Path):
            raise TypeError(
                "ActivationMonitor: `log_dir` must be the path of a folder, or None to "
                f"write nothing. Received: log_dir={log_dir!r}."
            )
        if log_budget is not None and not _is_count(log_budget, least=1):
            raise ValueError(
                "ActivationMonitor: `log_budget` must be a positive number of bytes, or "
                f"None for no limit. Received: log_budget={log_budget!r}."
            )
        if not _is_count(flight_recorder, least=0):
            raise ValueError(
                "ActivationMonitor: `flight_recorder` must be the number of steps to keep, "
                f"0 for none. Received: flight_recorder={flight_recorder!r}."
            )
        check(layers)
        self.log_dir = log_dir
        self._options = Options(
            log_dir=log_dir,
            schedule=Schedule(sample_every),
            layers=layers,
            histograms=bool(histograms),
            gradients=bool(gradients),
            scalars=bool(scalars),
            log_budget=log_budget,
            validation=bool(validation),
            actions=check_actions(on_finding, patience, "ActivationMonitor"),
            ignored=check_ignored(ignore, "ActivationMonitor"),
            flight_recorder=flight_recorder,
            trackers=trackers_of(trackers, "ActivationMonitor"),
            logs=check_numbers(logs, "ActivationMonitor"),
        )
        self._attempts = Attempts()
        self._live = Live(self._shown)
        self._in_fit = False
        self._follow(())

    def _follow(self, models):
        """Start again, with other models."""
        self._session = Session(self._options, self._attempts, tuple(models), self._live)
        self._steps = {}  # by kind: the layers it was made for, and TwoSteps or None
        self._count = StepCount()
        self._loop = None
        self._watches = False

    @property
    def recording(self) -> Recording:
        """The snapshots of training."""
        return self._session.training.recording

    @property
    def validation_recording(self) -> Recording:
        """The snapshots of evaluations, one for each."""
        return self._session.evaluating.recording

    @property
    def diagnosis(self) -> Diagnosis:
        """What the snapshots of training say so far; prints as a table."""
        return self._session.training.diagnosis

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found in training so far, without what is ignored.

        A sampled step is judged before the training step returns. So another callback
        reads its findings in `on_train_batch_end` of the same batch, whatever the order of
        the callbacks.

        Example:

        ```python
        class LowerLearningRate(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                if any(finding.code == "dead-units" for finding in monitor.findings):
                    self.model.optimizer.learning_rate = 1e-4
        ```
        """
        return self._session.training.findings

    def figure(self, kind: str = "depth_profile", **options):
        """A figure of training so far, which a notebook shows.

        Args:
            kind: "depth_profile": the size of the signal over depth; "heat_map": of all
                layers at all steps; "layer_graph": with the findings marked;
                "layer_over_time" and "histogram_over_time": of one layer; "update_ratio":
                how far each step moves the weights, with a line at the usual 1e-3.
            **options: `statistic` (of the first three; "rms" if not given), `steps` (of
                the profile; of the graph one step), `layer` (of one layer; the worst one
                if not given), `of` (of the heat map and of one layer: the quantity, a key
                of `Snapshot.quantities`; "output" if not given, or "output_gradient",
                "weight", "weight_gradient", "weight_update"), and `dark=True` for a dark
                page.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ValueError: If nothing was measured yet, there is no such figure, statistic,
                layer or quantity, or the quantity was not measured.

        Example:

        ```python
        monitor.figure("heat_map", statistic="std")
        monitor.figure("layer_over_time", layer="dense", of="output_gradient")
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

    def _ipython_display_(self):
        # What it shows stays up to date while `fit` runs, in this cell or in a later one.
        try:
            is_shown = self._live.display()
        except Exception as error:  # a cell must not fail because of how it is shown
            self._attempts.warn_once(
                "ActivationMonitor: the notebook cannot show the monitor "
                f"({type(error).__name__}: {error})."
            )
            is_shown = False
        if not is_shown:
            print(repr(self))

    def _shown(self):
        from activation_monitor.views import notebook  # plotly is loaded when it is used

        return notebook.bundle(self.diagnosis, self.recording, repr(self))

    # -- what Keras calls

    def on_train_begin(self, logs=None):
        """Find the layers; open the log."""
        self._in_fit = True
        if self._two_steps("train"):
            self._session.stop = self._stop
            self._count.fit_begins()
            self._session.tracking.begin()
            self._session.training.open()

    def on_epoch_begin(self, epoch, logs=None):
        """Find out at which step it begins."""
        if self._made("train") is None:
            return
        # Not before: another callback's `on_train_begin` may restore the optimizer.
        start = self._count.epoch_begins(self._steps_taken())
        if self._session.first_step is None:
            self._session.first_step = start

    def on_train_batch_begin(self, batch, logs=None):
        """Choose which of the two training steps runs now."""
        steps = self._made("train")
        if steps is not None:
            session = self._session
            # Not `self.model`, which has Keras copy the state of a JAX model.
            (model,) = session.models
            session.together = model.steps_per_execution
            session.now = self._count.batch_begins(batch, session.together)
            if session.samples():
                self._attempts.attempt("this step is not measured", steps.sample_next)
            elif session.keeps:
                self._attempts.attempt("this step is not kept", steps.sample_next, True)

    def on_train_batch_end(self, batch, logs=None):
        """Count it, and watch its loss. Keras does not call this where the data has run
        out."""
        self._count.batch_ends()
        if self._made("train") is not None:
            self._session.execution_ended((logs or {}).get("loss"), batch + 1)
        self._add_numbers(logs)

    def on_epoch_end(self, epoch, logs=None):
        """Flush the log, so that it can be read."""
        self._add_numbers(logs)
        self._session.training.flush()
        self._session.evaluating.flush()

    def on_train_end(self, logs=None):
        """Close the log; a later `fit` opens a new file beside it."""
        self._in_fit = False
        self._session.training.close()
        self._session.evaluating.close()
        self._session.show()
        sampled = self._made("train") and self._session.has_sampled
        if sampled and not self.recording.snapshots:
            self._attempts.warn_once(
                "no layer was measured: either no layer outputs a dense floating-point "
                "tensor, or your `make_train_function` does not call `self.train_step`."
            )

    def on_test_begin(self, logs=None):
        """Begin to measure an evaluation, if `validation` is set."""
        steps = self._two_steps("test") if self._options.validation else None
        if steps is not None:
            self._session.now = self._count.reached(self._steps_taken())
            self._session.evaluating.open()
            steps.sampled.begin()

    def on_test_batch_begin(self, batch, logs=None):
        """Let the next step of an evaluation be measured."""
        steps = self._made("test")
        if steps is not None:
            self._attempts.attempt(
                "this step of the evaluation is not measured", steps.sample_next
            )

    def on_test_end(self, logs=None):
        """Keep what the evaluation measured."""
        steps = self._made("test")
        if steps is not None:
            steps.sampled.end()
            if self._in_fit:
                self._session.evaluating.flush()
            else:
                self._session.evaluating.close()

    def _add_numbers(self, logs):
        training = self._session.training
        add_numbers(logs, self._options.logs, lambda: training.numbers, self._attempts)

    def _two_steps(self, kind):
        """The model's two steps of a kind, made again if its layers have changed."""
        model = self.model
        if self._session.models != (model,):  # another model than in the `fit` before
            self._follow((model,))
        # A wrong choice of layers is reported before training starts.
        chosen_layers(self._options.layers, model)
        layers = [id(layer) for layer in all_layers(model)]
        if kind not in self._steps or self._steps[kind][0] != layers:
            sampled = self._session.sampled_step(lambda: self._end_measuring(kind), kind)
            each = kind == "train"
            steps = TwoSteps(model, sampled, kind, each) if sampled else None
            self._steps[kind] = layers, steps
        return self._steps[kind][1]

    def _made(self, kind):
        return self._steps.get(kind, (None, None))[1]

    def _end_measuring(self, kind):
        if kind in self._steps:
            self._steps[kind] = self._steps[kind][0], None

    def _steps_taken(self):
        taken = self._attempts.attempt(
            "steps are counted without the optimizer", steps_taken, self.model.optimizer
        )
        return taken or 0

    def _stop(self):
        (model,) = self._session.models  # not `self.model`, see above
        model.stop_training = True

    # -- without `fit`

    def watch(
        self,
        step: Callable,
        models: keras.Model | Sequence[keras.Model],
        first_step: int = 0,
    ) -> Callable:
        """A training step that does what yours does, and is measured at sampled steps.

        A compiled step (a `tf.function`, or on JAX a `jax.jit`) is traced a second time,
        with the layers of the models measured. The sampled steps run that trace; all others
        run your own, unchanged. A Python function runs eagerly, and is measured while it
        runs.

        Args:
            step: The outermost function of the training step. If it is compiled, pass the
                compiled function itself; functions that it calls must not be compiled
                again.
            models: The model, or the models, that it calls.
            first_step: The number of the first step, `int(optimizer.iterations)` in a run
                that was resumed. From there each call counts as one. Defaults to `0`.

        Returns:
            A function to call in place of `step`; `step` itself, after a warning, if
            nothing can be measured.

        Raises:
            TypeError: If `step` is not a function, or `models` are not Keras models.
            ValueError: If this monitor already watches a step, if `on_finding` has "stop",
                or if a function decides what several workers sample.

        Example:

        ```python
        monitor = ActivationMonitor("logs/run1")
        train_step = monitor.watch(train_step, model)
        for x, y in dataset:
            loss = train_step(x, y)
        ```
        """
        loops.check_step(step)
        models = loops.as_models(models, "watch")
        if self._watches:
            raise ValueError(
                "ActivationMonitor.watch: this monitor already watches a step. Make "
                "another monitor for this one."
            )
        self._refuse_stop("watch")
        self._follow(models)
        self._watches = True
        return loops.Loop(self._session, first_step).watched(step)

    @contextlib.contextmanager
    def measure_step(
        self, models: keras.Model | Sequence[keras.Model], step: int | None = None
    ) -> Iterator[None]:
        """Within the block, calls that run eagerly are measured, as one step.

        Args:
            models: The model, or the models, that are called there.
            step: The number of the step. Defaults to `None`, which counts the blocks.

        Raises:
            TypeError: If `models` are not Keras models.
            ValueError: If `on_finding` has "stop".

        Example:

        ```python
        with monitor.measure_step(model):
            loss = train_step(x, y)
        ```
        """
        models = loops.as_models(models, "measure_step")
        self._refuse_stop("measure_step")
        if self._loop is None or models != self._session.models:
            self._follow(models)
            self._loop = loops.Loop(self._session)
        with self._loop.measured(step):
            yield

    def _refuse_stop(self, where):
        if self._options.actions.may_stop:
            raise ValueError(
                f'ActivationMonitor.{where}: `on_finding` must not be "stop": only `fit` '
                'can be stopped. Use "raise", or a function of the finding.'
            )


def _is_count(value, least):
    return isinstance(value, int) and not isinstance(value, bool) and value >= least

"""A training with and without the monitor, and the comparison of what the two leave."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from activation_monitor import ActivationMonitor, Monitored


class Diary(keras.callbacks.Callback):
    """Writes down the calls of a user's callback, and the number of each step."""

    def __init__(self):
        super().__init__()
        self.calls, self.steps = [], []

    def note(self, name, *arguments):
        self.calls.append(f"{name} {arguments}")  # exact for floats, equal for NaN
        if name == "on_train_batch_begin":
            optimizer = self.model.optimizer
            optimizer = getattr(optimizer, "inner_optimizer", optimizer)
            # `iterations` are fewer where gradients are accumulated.
            self.now = int(optimizer._iterations) if optimizer else 0
        if name == "on_train_batch_end":
            self.steps.append(self.now)


for _name in dir(keras.callbacks.Callback):
    if _name.startswith("on_"):
        setattr(
            Diary,
            _name,
            lambda self, *given, _name=_name, logs=None: self.note(_name, *given, logs),
        )


class Trial:
    """One run of a case.

    A case is a function of the trial: it calls `fit` of the trial, may write to the trial's
    folder, and returns the model. It may replace `steps`, and append to `left`.
    """

    def __init__(self, folder: Path, monitored: bool, sample_every: int = 1):
        self.folder, self.monitored, self.diary = folder, monitored, Diary()
        self.left = []  # what has to be equal with and without the monitor
        self.steps = self.diary.steps  # that have to be measured
        folder.mkdir()
        self.monitor = None
        if monitored:
            self.monitor = ActivationMonitor(
                folder / "logs", sample_every, histograms=False, on_finding=lambda _: None
            )

    def fit(self, model, *data, callbacks=(), **options):
        """Fit with the callbacks of the user, and the monitor if there is one."""
        monitors = [self.monitor] if self.monitor else []
        every = [*monitors, *callbacks, self.diary]
        history = model.fit(*data, verbose=0, callbacks=every, **options)
        self.left.append(str((history.epoch, history.history)))
        return history.history

    def wrap(self, layer):
        """The layer, wrapped if monitored; there is no callback then."""
        if not self.monitored:
            return layer
        self.monitor = None
        return Monitored(layer)

    def leave(self, structure):
        """Arrays that have to be equal to the bit."""
        arrays = keras.tree.flatten(structure)
        self.left.append([np.asarray(array).tobytes() for array in arrays])


def run(case: Callable, folder: Path, monitored: bool, **options) -> Trial:
    """Run a case; from the second run on nothing is left of the first."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    trial = Trial(folder / f"monitored {monitored}", monitored, **options)
    model = case(trial)
    optimizer = model.optimizer.variables if model.optimizer else []
    trial.variables = [(v.path, v.numpy()) for v in (*model.variables, *optimizer)]
    return trial


def measured(case: Callable, folder: Path) -> Trial:
    """Run a case under a monitor that has to measure every step that the case names."""
    trial = run(case, folder, monitored=True)
    assert trial.monitor.recording.steps == list(trial.steps)
    return trial


def assert_untouched(case: Callable, folder: Path, **options) -> Trial:
    """Run a case without and with the monitor: both leave the same, bit for bit."""
    plain, monitored = (run(case, folder, flag, **options) for flag in (False, True))
    assert monitored.left == plain.left
    assert monitored.diary.calls == plain.diary.calls
    for (path, value), (name, expected) in zip(
        monitored.variables, plain.variables, strict=True
    ):
        assert path == name
        np.testing.assert_array_equal(value, expected, err_msg=path)
    return monitored

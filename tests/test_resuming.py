"""A run that is killed within an epoch and restarted continues its curves."""

import json
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

import models
from activation_monitor import ActivationMonitor, read_recording

SCRIPT = """
    import os
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import json, signal, sys
    tests, folder, kill_at, order, save_freq, accumulate = sys.argv[1:]
    sys.path.insert(0, tests)
    import keras
    import models
    from activation_monitor import ActivationMonitor

    class Kills(keras.callbacks.Callback):
        ran = []

        def on_train_batch_begin(self, batch, logs=None):
            self.now = int(self.model.optimizer._iterations)

        def on_train_batch_end(self, batch, logs=None):
            self.ran.append(self.now)
            if len(self.ran) == int(kill_at):
                print(json.dumps(self.ran), flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

    keras.utils.set_random_seed(0)
    x, y = models.data()
    model = models.perceptron(depth=2)
    sgd = keras.optimizers.SGD(0.01, gradient_accumulation_steps=json.loads(accumulate))
    model.compile(sgd, "mse")
    freq = save_freq if save_freq == "epoch" else int(save_freq)
    both = [
        ActivationMonitor(folder + "/logs", sample_every=1),
        keras.callbacks.BackupAndRestore(folder + "/backup", save_freq=freq),
    ]
    if order == "backup first":
        both.reverse()
    kills = Kills()
    model.fit(x, y, batch_size=8, epochs=4, shuffle=False, verbose=0,
              callbacks=[*both, kills])
    print(json.dumps(kills.ran))
"""


def run(folder, kill_at, order, save_freq, accumulate):
    """Train in a separate process; returns its exit code and the steps that it ran."""
    tests = models.__file__.rpartition("/")[0]
    arguments = [tests, str(folder), str(kill_at), order, str(save_freq), accumulate]
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), *arguments],
        capture_output=True,
        text=True,
    )
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
    return ended.returncode, json.loads(ended.stdout)


@pytest.mark.parametrize(
    ("order", "save_freq", "accumulate", "restored"),
    [
        # The run is killed after 13 of 4 x 5 steps. The last backup is that of the second
        # epoch or of step 12. In both cases the third epoch restarts at its first batch.
        pytest.param("backup first", "epoch", None, 10, marks=pytest.mark.slow),
        ("monitor first", 4, None, 12),
        pytest.param("monitor first", "epoch", 3, 10, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_continues_its_curves(
    order, save_freq, accumulate, restored, tmp_path
):
    """Steps have the optimizer's numbers for any order of the callbacks. With backups at
    the end of epochs, the values are those of a run that was not killed."""
    arguments = order, save_freq, json.dumps(accumulate)
    killed, ran = run(tmp_path, 13, *arguments)
    assert (killed, ran) == (-signal.SIGKILL, [*range(13)])
    before = read_recording(tmp_path / "logs")
    # At least all steps of the first two epochs are on disk.
    assert before.steps[:10] == [*range(10)]
    assert before.steps == [*range(len(before))]

    ended, ran = run(tmp_path, 99, *arguments)
    assert (ended, ran) == (0, [*range(restored, restored + 10)])
    assert len([*(tmp_path / "logs" / "activations").iterdir()]) == 2
    after = read_recording(tmp_path / "logs")
    kept = [step for step in before.steps if step < restored]
    assert after.steps == kept + ran
    for step in kept:
        np.testing.assert_array_equal(after[step].records(), before[step].records())

    if save_freq == "epoch":
        keras.utils.set_random_seed(0)
        whole = fitted(None, compiled(2, accumulate), epochs=4, shuffle=False)
        for one, other in zip(after, whole.recording, strict=True):
            np.testing.assert_array_equal(one.records(), other.records())


def fitted(folder, model, monitor=None, **options):
    x, y = models.data()
    monitor = monitor or ActivationMonitor(folder, sample_every=options.pop("every", 1))
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[monitor], **options)
    return monitor


def compiled(depth=1, accumulate=None):
    model = models.perceptron(depth)
    sgd = keras.optimizers.SGD(0.01, gradient_accumulation_steps=accumulate)
    model.compile(sgd, "mse")
    return model


def test_a_loaded_model_continues_at_its_optimizers_step(tmp_path):
    """`initial_epoch` itself does not change the step numbers."""
    model = compiled()
    fitted(tmp_path, model, epochs=2)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    monitor = fitted(tmp_path, loaded, epochs=3, initial_epoch=2)
    assert monitor.recording.steps == [10, 11, 12, 13, 14]
    assert read_recording(tmp_path).steps == [*range(15)]


def test_steps_that_were_undone_are_not_read(tmp_path):
    """Steps after the restored one are undone, even if the second run skips them."""
    model = compiled()
    model.save(tmp_path / "model.keras")
    fitted(tmp_path, model, epochs=2)
    again = keras.saving.load_model(tmp_path / "model.keras")
    again.optimizer.iterations.assign(4)
    second = fitted(tmp_path, again, epochs=2, every=lambda step: step in (4, 9))
    recording = read_recording(tmp_path)
    assert recording.steps == [0, 1, 2, 3, 4, 9]
    np.testing.assert_array_equal(recording[-1].records(), second.recording[-1].records())


def test_many_fits_within_a_second_are_read_in_their_order(tmp_path):
    """Their file names differ in a number with one or two digits."""
    model, monitor = compiled(), None
    for _ in range(12):
        monitor = fitted(tmp_path, model, monitor)
    assert read_recording(tmp_path).steps == [*range(60)]

"""Every step of a training is measured, under the number that the optimizer gives it.

The trainings are those that Keras tests of its trainer and its callbacks. Here they run
under a monitor only; test_patient.py runs all of them with and without, and compares.
"""

import pytest

import trials
from activation_monitor import read_recording
from trainings import TRAININGS

# Keras warns of data that end early, of what it does not shuffle, of layers that the loss
# does not depend on, and of models without trainable weights.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Your input ran out of data"),
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed"),
    pytest.mark.filterwarnings("ignore:Gradients do not exist"),
    pytest.mark.filterwarnings("ignore:The model does not have any trainable weights"),
]


@pytest.mark.parametrize(
    "name",
    [
        *("data: arrays, a small last batch", "data: dataset of unknown size"),
        *("data: dataset without end", "data: PyDataset", "data: generator"),
        "3 steps at once: arrays, fewer steps",
        "3 steps at once: dataset of unknown size, more steps",
        *("compile: xla", "compile: eager", "compile: accumulation", "compile: loss scale"),
        *("compile: unrolled steps", "compile: steps that a loss scale skips"),
        *("fit: no epoch", "fit: no epoch left"),
        *("model: lazy", "model: own step", "model: own function", "model: state"),
        *("model: frozen", "model: ragged inputs", "model: sparse inputs"),
        *("structure: nested", "mistake: on_train_begin", "mistake: on_train_batch_begin"),
        *("mistake: on_epoch_end", "calls: single batches beside fit"),
        "calls: compiled again",
    ],
)
def test_every_step_is_measured_under_its_number(name, tmp_path):
    """Over epochs and fits, also where the optimizer does not count."""
    trials.measured(TRAININGS[name], tmp_path)


def test_an_output_without_a_loss_is_measured(tmp_path):
    """The model computes it all the same."""
    trial = trials.measured(TRAININGS["model: an output without a loss"], tmp_path)
    assert len(trial.monitor.recording[0].names) == 6  # two inputs, sum and three layers


def test_the_callback_of_tensorboard_may_write_to_the_same_folder(tmp_path):
    """Each writes runs of its own, and the recording is read from among them."""
    trial = trials.measured(TRAININGS["callback: files"], tmp_path)
    runs = {path.name for path in (trial.folder / "logs").iterdir()}
    assert runs == {"train", "validation", "activations"}
    assert read_recording(trial.folder / "logs").steps == trial.monitor.recording.steps

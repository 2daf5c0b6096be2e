"""On another backend of Keras nothing of ours imports TensorFlow, installed or not."""

import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec

import pytest

from activation_monitor.recording import backends

# Everything but what Keras itself imports it for: `keras.utils.set_random_seed`, and the
# serialization of a model (`model.save`, `keras.models.clone_model`).
CODE = """
    import sys

    import keras
    import numpy as np

    import activation_monitor
    from activation_monitor import cli

    folder = sys.argv[1]
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    hidden = [keras.layers.Dense(16, "relu", name=f"hidden_{i}") for i in range(6)]
    model = keras.Sequential([keras.Input((8,)), *hidden, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    monitor = activation_monitor.ActivationMonitor(
        folder, validation=True, flight_recorder=2, on_finding=lambda finding: None
    )
    data = {"validation_data": (x, x[:, :1]), "callbacks": [monitor], "verbose": 0}
    model.fit(x, x[:, :1], **data)
    assert str(activation_monitor.diagnose(folder)) == str(monitor.diagnosis)
    assert monitor.recording.steps == activation_monitor.read_recording(folder).steps
    assert len(monitor.validation_recording) == 1
    monitor.figure("heat_map")
    activation_monitor.audit(model, x, x[:, :1])
    activation_monitor.rescale(model, x)
    assert cli.main(["report", folder, "-o", f"{folder}/report.html"]) == 0
    assert cli.main(["explain", "dead-units"]) == 0
    assert cli.main(["calibrate", "--no-study", "--width", "64", "--layers", "2"]) == 0
    print("loaded:", *sorted(name for name in sys.modules if "." not in name))
"""

OTHERS = [name for name in backends._BUILT if name != "tensorflow" and find_spec(name)]


def loaded(code, backend, *arguments):
    """The modules that a process with this backend has loaded at its end."""
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return set(run.stdout.rpartition("loaded:")[2].split())


@pytest.mark.smoke
@pytest.mark.parametrize("backend", OTHERS)
def test_nothing_of_ours_imports_tensorflow(backend, tmp_path):
    """Training with a log, evaluation, audit, rescaling, reading back, the figures, the
    report and the command line. Where it is not installed, an import would fail."""
    found = loaded(CODE, backend, str(tmp_path))
    assert {"keras", backend, "activation_monitor", "tensorboard"} <= found
    assert "tensorflow" not in found
    assert [*tmp_path.rglob("events.out.tfevents*")]


@pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
@pytest.mark.parametrize("backend", OTHERS)
def test_the_check_for_tensorflow_would_notice(backend):
    """The test above can fail. This is Keras' own import."""
    code = """
        import sys, keras
        keras.utils.set_random_seed(0)
        print("loaded:", *sys.modules)
    """
    assert "tensorflow" in loaded(code, backend)

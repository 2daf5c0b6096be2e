"""One model, its weights and one batch: the same records, findings and messages on every
backend that is installed, each in a process of its own."""

import dataclasses
import functools
import importlib.util
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from activation_monitor.analysis import records
from activation_monitor.recording import backends
from cases import cases

SCRIPT = Path(__file__).parent / "same_runs.py"
INSTALLED = [name for name in backends._BUILT if importlib.util.find_spec(name)]

# Each model with each fault, and what is found.
# Not here: NaN before a Dense layer with a ReLU, which TensorFlow computes together with
# the product and makes 0 of it; and a transformer that diverges, whose gradients are
# rounded differently (3e-5).
FOUND = {
    "perceptron, healthy": [],
    "perceptron, too large": ["exploding-activations"],
    "perceptron, too small": ["vanishing-activations"],
    "perceptron, dead": ["zero-activations"],
    "residual, healthy": [],
    "residual, too large": [],
    "residual, too small": [],
    "residual, dead": [],
    "residual, NaN": ["nonfinite-activations"],
    "transformer, healthy": [],
    "transformer, too small": [],
    "transformer, dead": ["no-gradient"],
    "transformer, NaN": ["nonfinite-activations"],
    "lstm, healthy": [],
    "lstm, too large": [],
    "lstm, too small": [],
    "lstm, dead": ["zero-activations"],
}
DEFAULT = (
    "perceptron, too large",
    "perceptron, too small",
    "residual, healthy",
    "residual, NaN",
    "transformer, healthy",
    "transformer, dead",
    "lstm, healthy",
)


@functools.cache
def ran(backend, default):
    """By case: snapshots, findings and warnings, as `same_runs.py` returns them."""
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    names = [name for name in FOUND if (name in DEFAULT) == default]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "runs"
        command = [sys.executable, str(SCRIPT), str(file), *names]
        process = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr[-4000:]
        return pickle.loads(file.read_bytes())


def assert_same_layers(found, expected):
    """Names, kinds, parents and all else that is known of them."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for field in dataclasses.fields(other):
            value, known = getattr(one, field.name), getattr(other, field.name)
            if isinstance(known, float):
                np.testing.assert_allclose(value, known, rtol=1e-6, err_msg=field.name)
            else:
                assert value == known, (other.name, field.name)


def assert_same_records(found, expected, quantity, rtol=1e-5):
    """To `rtol` of the size of the tensor, where both are measured; and which are.

    The gradient of one of several terms that are added up is not measured on TensorFlow,
    and on JAX that of a tensor that no layer made.
    """
    of = {
        name: (found.field(name, quantity), expected.field(name, quantity))
        for name in FIELDS
    }
    measured = [counts > 0 for counts in of["count"]]
    for row, layer in enumerate(expected.layers):
        here = measured[0][row] and measured[1][row]
        if not here and quantity != records.OUTPUT_GRADIENT:
            assert not measured[0][row] and not measured[1][row], layer.name
        if not here:
            continue
        # An update is a difference of weights, which are rounded.
        rounded = (
            expected.largest(records.WEIGHT)[row]
            if quantity == records.WEIGHT_UPDATE
            else 0
        )
        size = np.sqrt(of["second_moment"][1][row])
        slack = rtol * size + 1e-7 * rounded
        where = f"{quantity} of {layer.name}"
        for name, power in FIELDS.items():
            one, other = (values[row] for values in of[name])
            if power == 0:
                np.testing.assert_array_equal(one, other, f"{name}, {where}")
            else:
                atol = slack if power == 1 else 2 * slack * size
                np.testing.assert_allclose(
                    one, other, rtol, atol, err_msg=f"{name}, {where}"
                )


FIELDS = {
    **dict.fromkeys(
        ("count", "samples", "nonfinite", "zeros", "saturated", "dead_units"), 0
    ),
    **dict.fromkeys(("mean", "minimum", "maximum"), 1),
    **dict.fromkeys(("variance", "second_moment", "within_variance"), 2),
}
"""The fields of a record that are compared, with their power of the tensor: counts are
equal."""


@pytest.mark.skipif(len(INSTALLED) < 2, reason="one backend is installed")
@pytest.mark.parametrize("case", cases(FOUND, DEFAULT))
def test_what_is_measured_and_found_is_the_same_on_every_backend(case):
    """Layers and records of the first step; losses, findings and warnings of all steps."""
    first, *others = (ran(backend, case in DEFAULT)[case] for backend in INSTALLED)
    snapshots, findings, warned = first
    assert [finding.code for finding in findings] == FOUND[case]
    for found, also_findings, also_warned in others:
        assert_same_layers(found[0].layers, snapshots[0].layers)
        assert found[0].quantities.keys() == snapshots[0].quantities.keys()
        for quantity in snapshots[0].quantities:
            # What becomes of NaN differs: TensorFlow's `relu`, where it is joined with a
            # product of matrices, makes it 0; and NaN times the slope 0 is 0 on JAX.
            if not (case.endswith("NaN") and quantity != records.WEIGHT):
                # Sums of large numbers of both signs are rounded otherwise.
                rtol = 1e-4 if case.endswith("too large") else 1e-5
                assert_same_records(found[0], snapshots[0], quantity, rtol)
        losses = ([one.loss for one in each] for each in (found, snapshots))
        np.testing.assert_allclose(*losses, rtol=1e-4)
        assert [each.code for each in also_findings] == FOUND[case]
        assert [each.message for each in also_findings] == [e.message for e in findings]
        assert [each.layers for each in also_findings] == [each.layers for each in findings]
        assert also_warned == warned

"""Two JAX processes that train together: `jax_processes.py`, on the loopback interface."""

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from activation_monitor import read_recording
from activation_monitor.analysis import records
from backends import jax_processes
from backends.jax_processes import BATCH, RATE, STEPS, X, Y

SECONDS = 500  # time limit of a process, several times its usual duration


def free_port():
    """An unused port of the loopback interface."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What the processes found, their exit codes, and the folder of their logs."""
    folder = tmp_path_factory.mktemp("processes")
    files = [folder / f"found_{i}" for i in range(2)]
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    port, processes = str(free_port()), []
    for i in range(2):
        with open(f"{files[i]}.log", "w") as log:
            command = [sys.executable, jax_processes.__file__, files[i], str(i), port]
            processes.append(
                subprocess.Popen(
                    [*command, folder / "logs"],
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        codes = [process.wait(timeout=SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for file in files:
        assert file.exists(), Path(f"{file}.log").read_text()[-5000:]
    found = [pickle.loads(file.read_bytes()) for file in files]
    return SimpleNamespace(found=found, codes=codes, logs=folder / "logs")


def step_in_float64(weights, x, y):
    """Loss, tensors by quantity, and the weights after a step of SGD."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    w1, b1, w2, b2, w3, b3 = weights
    before = x @ w1 + b1
    first = np.maximum(before, 0)
    second = np.tanh(first @ w2 + b2)
    out = second @ w3 + b3
    d_out = 2 * (out - y) / out.size
    d_second = d_out @ w3.T
    d_inner = d_second * (1 - second**2)
    d_first = d_inner @ w2.T
    d_before = d_first * (before > 0)
    kernels = [x.T @ d_before, first.T @ d_inner, second.T @ d_out]
    biases = [one.sum(axis=0) for one in (d_before, d_inner, d_out)]
    gradients = [one for pair in zip(kernels, biases, strict=True) for one in pair]
    after = [w - RATE * g for w, g in zip(weights, gradients, strict=True)]
    return (
        float(np.mean((out - y) ** 2)),
        after,
        {
            records.OUTPUT: [x, first, second, out],
            records.OUTPUT_GRADIENT: [None, d_first, d_second, d_out],
            records.WEIGHT: [None, w1, w2, w3],
            records.WEIGHT_GRADIENT: [None, *kernels],
            records.WEIGHT_UPDATE: [None, *(-RATE * one for one in kernels)],
        },
    )


def assert_records(found, expected, err_msg):
    """Records equal the statistics of tensors in float64; None stands for an empty one."""
    for quantity, tensors in expected.items():
        for record, tensor in zip(found[quantity], tensors, strict=True):
            if tensor is None:
                assert records.field(record, "count") == 0
                continue
            size = np.sqrt(np.mean(tensor**2))
            # An update is a difference of float32 weights.
            slack = 2e-3 if quantity == records.WEIGHT_UPDATE else 5e-5
            assert records.field(record, "count") == tensor.size
            for name, value in (
                *(("mean", tensor.mean()), ("variance", tensor.var())),
                *(("minimum", tensor.min()), ("maximum", tensor.max())),
            ):
                np.testing.assert_allclose(
                    records.field(record, name),
                    value,
                    rtol=slack,
                    atol=slack * (size**2 if name == "variance" else size),
                    err_msg=f"{name} of {quantity} {err_msg}",
                )


@pytest.mark.parametrize("index", [0, 1])
def test_records_are_those_of_the_global_batch_in_both_processes(both, index):
    """Of a training in float64, at each of its steps."""
    found = both.found[index]["each"]
    assert found["warned"] == []
    assert [snapshot.step for snapshot in found["snapshots"]] == [*range(2 * STEPS)]
    weights = [one.astype(np.float64) for one in found["initial"]]
    for snapshot in found["snapshots"]:
        rows = slice(BATCH * (snapshot.step % STEPS), BATCH * (snapshot.step % STEPS + 1))
        loss, weights, expected = step_in_float64(weights, X[rows], Y[rows])
        np.testing.assert_allclose(snapshot.loss, loss, rtol=1e-5)
        assert_records(snapshot.quantities, expected, f"at step {snapshot.step}")


@pytest.mark.parametrize("index", [0, 1])
def test_records_of_a_custom_loop_are_those_of_the_global_batch(both, index):
    found = both.found[index]["watched"]
    weights = [one.astype(np.float64) for one in found["initial"]]
    loss, _, expected = step_in_float64(weights, X[:BATCH], Y[:BATCH])
    np.testing.assert_allclose(found["snapshots"][0].loss, loss, rtol=1e-5)
    assert_records(found["snapshots"][0].quantities, expected, "in a loop")


@pytest.mark.parametrize("case", ["each", "some", "together", "watched"])
def test_training_is_the_same_to_the_bit(both, case):
    """With a monitor in both processes, and in both alike."""
    plain = f"{case}, plain" if case in ("together", "watched") else "plain"
    for found in both.found:
        assert found[case]["losses"] == found[plain]["losses"]
        pairs = zip(found[case]["final"], both.found[0][plain]["final"], strict=True)
        for one, expected in pairs:
            np.testing.assert_array_equal(one, expected)
        assert (found[case]["final"][0] != found[case]["initial"][0]).any()


@pytest.mark.parametrize(
    ("case", "steps"),
    [
        ("some", [0, 1, 2, 3, 5, 6]),
        ("together", [0, 3, 4, 7]),
        ("watched", [0, 1, 2]),
        ("eager", [0, 1, 2, 3]),
        ("recent", [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_both_processes_sample_the_same_steps(both, case, steps):
    """By a number, in executions of three steps, eagerly, and after a loss that is NaN:
    the same records, although one of them has the NaN."""
    first, second = (found[case]["snapshots"] for found in both.found)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.records(), other.records())
    assert [snapshot.step for snapshot in first] == steps


def test_an_evaluation_covers_the_data_of_both_processes(both):
    for found in both.found:
        validation = found["some"]["validation"]
        assert len(validation) == 2
        record = validation[0].quantities[records.OUTPUT][0]
        assert records.field(record, "count") == X.size
        np.testing.assert_allclose(
            records.field(record, "variance"), X.astype(np.float64).var(), rtol=1e-5
        )


def test_only_the_first_process_writes_files(both):
    assert [(both.logs / str(i)).exists() for i in range(2)] == [True, False]
    read = read_recording(both.logs / "0")
    kept = both.found[0]["each"]["snapshots"]
    for one, expected in zip(read, kept, strict=True):
        np.testing.assert_array_equal(one.records(), expected.records())


@pytest.mark.parametrize(
    ("case", "ended", "steps"),
    [("stop", "ran", 3), ("raise", "UnhealthyModelError", 3), ("function", "ran", 8)],
)
def test_findings_act_on_both_processes_alike(both, case, ended, steps):
    """Of a NaN that one of them has at step 2. If one alone went on, it would wait
    forever."""
    for found in both.found:
        assert (found[case]["ended"], found[case]["steps"]) == (ended, steps)
        assert found["called"] == ["nonfinite-activations"]
        assert len(found[case]["final"]) == 6  # an error does not take the weights away


def test_a_function_may_not_choose_the_steps(both):
    """A process that samples a step alone would wait forever."""
    for found in both.found:
        assert found["by function"]["ended"] == "ValueError"
        assert found["by function"]["steps"] == 0


@pytest.mark.parametrize("index", [0, 1])
def test_kernels_that_are_sharded_over_the_processes_are_measured(both, index):
    """Neither process has all of a kernel."""
    found = both.found[index]["sharded"]
    assert found["warned"] == []
    weights = [one.astype(np.float64) for one in both.found[0]["each"]["initial"]]
    _, _, expected = step_in_float64(weights, X[:BATCH], Y[:BATCH])
    assert_records(found["snapshots"][0].quantities, expected, "")
    assert len(found["snapshots"]) == STEPS


def test_the_files_of_a_killed_process_stay_readable(both):
    """They hold what was measured until the other process was killed."""
    assert both.codes[1] == -9
    steps = read_recording(both.logs / "killed_0").steps
    assert steps[: jax_processes.KILLED_AT] == [*range(jax_processes.KILLED_AT)]

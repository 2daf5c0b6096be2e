"""Runs the tests of JAX and PyTorch, each in a process of its own.

`on_any.py` holds on both of them, `on_jax.py` and `on_torch.py` on one.
"""

import ast
import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

ENVIRONMENTS = {
    "jax": {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    },
    "torch": {"CUDA_VISIBLE_DEVICES": ""},
}


def files_of(backend):
    return [HERE / f"on_{name}.py" for name in ("any", backend)]


CASES = [
    pytest.param(
        *(backend, file.name, node.name),
        marks=pytest.mark.skipif(
            importlib.util.find_spec(backend) is None, reason=f"{backend} is not installed"
        ),
    )
    for backend in ENVIRONMENTS
    for file in files_of(backend)
    for node in ast.parse(file.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
]


@functools.cache
def outcome_on(backend):
    """What pytest printed, with one line for each test."""
    environment = os.environ | {"KERAS_BACKEND": backend} | ENVIRONMENTS[backend]
    options = "-v", "--noconftest", "-p", "no:cacheprovider"
    return subprocess.run(
        [sys.executable, "-m", "pytest", *map(str, files_of(backend)), *options],
        capture_output=True,
        text=True,
        env=environment,
    ).stdout


@pytest.mark.xdist_group("each_backend")
@pytest.mark.parametrize(("backend", "file", "name"), CASES)
def test_on_a_backend(backend, file, name):
    """The test of this name, with all its parameters, has passed."""
    outcome = outcome_on(backend)
    found = {
        line.split()[1]
        for line in outcome.splitlines()
        if len(line.split()) > 1 and f"{file}::{name}" in line.split()[0].split("[")[0]
    }
    assert found == {"PASSED"}, outcome[-6000:]

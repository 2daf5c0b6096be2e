"""Runs the tests of the JAX backend, which needs a process of its own."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = sorted(Path(__file__).parent.glob("on_jax*.py"))
CASES = [
    (file.name, node.name)
    for file in FILES
    for node in ast.parse(file.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed"
)


@pytest.fixture(scope="module")
def outcome():
    """What pytest printed, with one line for each test."""
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    options = "-v", "--noconftest", "-p", "no:cacheprovider"
    command = "-m", "pytest", *map(str, FILES), *options
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment
    ).stdout


@pytest.mark.parametrize(("file", "name"), CASES)
def test_on_jax(file, name, outcome):
    """The test of this name, with all its parameters, has passed."""
    words = [line.split() for line in outcome.splitlines() if "::" in line]
    found = {
        line[1]
        for line in words
        if len(line) > 1 and line[0].split("[")[0].endswith(f"{file}::{name}")
    }
    assert found == {"PASSED"}, outcome[-6000:]

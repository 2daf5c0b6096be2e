"""Runs the tests of the JAX backend, which needs a process of its own."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILE = HERE / "on_jax.py"
NAMES = [
    node.name
    for node in ast.parse(FILE.read_text()).body
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
    command = "-m", "pytest", str(FILE), "-v", "--noconftest", "-p", "no:cacheprovider"
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment
    ).stdout


@pytest.mark.parametrize("name", NAMES)
def test_on_jax(name, outcome):
    """The test of this name, with all its parameters, has passed."""
    lines = [line for line in outcome.splitlines() if f"on_jax.py::{name}" in line]
    found = {
        line.split()[1]
        for line in lines
        if len(line.split()) > 1 and "::" in line.split()[0]
    }
    assert found == {"PASSED"}, outcome[-6000:]

"""What all tests share: a quiet TensorFlow, seeded randomness, the marker `analysis`."""

import ast
import functools
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from cases import is_slow

# They need a process of their own, with another backend: `test_each_backend.py` runs them.
collect_ignore_glob = ["backends/on_*.py", "backends/guide_*.py", "backends/common.py"]

_SUBJECT = "activation_monitor.analysis"
# What the tests of analysis may import at the top of a file. A function in such a file may
# import more, with `pytest.importorskip`.
_BESIDE = {
    *(*sys.stdlib_module_names, "numpy", "pytest", "scipy"),
    *("cases", "networks", "test_rules", "test_update_rules"),
}


@functools.cache
def _tests_analysis(path: Path) -> bool:
    """Whether a file imports modules of analysis, and else numpy and scipy only."""
    names = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    others = [name for name in names if not f"{name}.".startswith(f"{_SUBJECT}.")]
    if {name.split(".")[0] for name in others} - _BESIDE:
        return False
    return len(others) < len(names) or "activation_monitor/analysis/" in path.as_posix()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m analysis`, other files are not even imported."""
    if config.option.markexpr != "analysis" or collection_path.suffix != ".py":
        return None
    return None if _tests_analysis(collection_path) else True


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Set the markers by what a file imports and by the list of slow tests."""
    for item in items:
        if _tests_analysis(item.path):
            item.add_marker("analysis")
        if is_slow(item.nodeid):
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def seeded(request):
    """Every test starts from the same state of randomness."""
    if request.node.get_closest_marker("analysis"):
        yield  # makes its own generators, from seeds
        return
    import keras

    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")

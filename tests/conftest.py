"""What all tests share: a quiet TensorFlow, seeded randomness, the marker `analysis`."""

import ast
import functools
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from cases import ON_EACH_BACKEND, is_slow, is_smoke, needs_tensorflow

BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
if BACKEND == "jax":  # for the tests of distribution
    os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")

# What tests on other backends share.
collect_ignore_glob = [
    f"backends/{name}.py" for name in ("common", "guide_*", "jax_processes", "same_runs")
]

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


def _on(backend: str, path: Path) -> bool:
    """Whether a file has tests that run in a process with this backend of Keras."""
    if path.name.startswith("on_"):  # tests of one backend, or of some
        of_this = path.stem == "on_any" or path.stem.startswith(f"on_{backend}")
        return of_this and backend != "tensorflow"
    return backend == "tensorflow" or path.name in ON_EACH_BACKEND


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files that do not run on this backend are not even imported; with `-m analysis`,
    others than those of analysis."""
    if collection_path.suffix != ".py":
        return None
    if config.option.markexpr == "analysis":
        return None if _tests_analysis(collection_path) else True
    return None if _on(BACKEND, collection_path) else True


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Set the markers by what a file imports and by the lists of `cases`."""
    if BACKEND != "tensorflow":
        items[:] = [item for item in items if not needs_tensorflow(item.nodeid)]
    for item in items:
        if _tests_analysis(item.path):
            item.add_marker("analysis")
        if is_slow(item.nodeid):
            item.add_marker("slow")
        if is_smoke(item.nodeid):
            item.add_marker("smoke")


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

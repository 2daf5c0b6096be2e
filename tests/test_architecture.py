"""The rules of the design that a program can check."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "activation_monitor"

ANYWHERE = {"numpy"} | set(sys.stdlib_module_names)

# Who may import whom. The first row that fits a module's path holds. This is the diagram:
# recording and views do not know each other, and analysis knows neither.
MAY_IMPORT = {
    "analysis/": {"scipy", "activation_monitor.analysis"},
    "recording/backends/tensorflow": {
        "keras",
        "tensorflow",
        "activation_monitor.analysis",
        "activation_monitor.recording",
    },
    "recording/": {
        "keras",
        "activation_monitor.analysis",
        "activation_monitor.recording",
    },
    "storage/plugin_name.py": set(),
    "storage/record_file.py": {"google_crc32c"},
    "storage/": {
        "tensorboard",
        "activation_monitor.analysis",
        "activation_monitor.storage",
    },
    "views/figures/": {
        "plotly",
        "activation_monitor.analysis",
        "activation_monitor.views.figures",
    },
    "views/plugin/entry.py": {
        "tensorboard",
        "activation_monitor.storage.plugin_name",
        "activation_monitor.views.plugin.tab",
    },
    "views/plugin/run.py": {"activation_monitor.analysis", "activation_monitor.storage"},
    "views/plugin/runs.py": {
        "tensorboard",
        "activation_monitor.analysis",
        "activation_monitor.storage",
        "activation_monitor.views.plugin.run",
    },
    "views/plugin/": {
        "tensorboard",
        "werkzeug",
        "activation_monitor.analysis",
        "activation_monitor.storage",
        "activation_monitor.views.figures",
        "activation_monitor.views.plugin",
    },
    "views/in_words.py": {"activation_monitor.analysis"},
    "views/summary.py": {
        "activation_monitor.analysis",
        "activation_monitor.views.in_words",
    },
    "views/console.py": {
        "rich",
        "activation_monitor.analysis",
        "activation_monitor.views.figures",
        "activation_monitor.views.in_words",
        "activation_monitor.views.notebook",
    },
    "views/tables.py": {
        "rich",
        "activation_monitor.analysis",
        "activation_monitor.views.console",
        "activation_monitor.views.notebook",
    },
    "views/explain.py": {
        "rich",
        "activation_monitor.analysis",
        "activation_monitor.views.console",
    },
    "views/markup.py": {
        "activation_monitor.analysis",
        "activation_monitor.views.console",
        "activation_monitor.views.summary",
    },
    "views/notebook.py": {"activation_monitor.analysis", "activation_monitor.views"},
    "views/report.py": {
        "plotly",
        "activation_monitor.analysis",
        "activation_monitor.views",
    },
    "views/report_page.py": set(),
    "views/": {"activation_monitor.analysis"},
    "auditing.py": {"keras", "activation_monitor"},
    "diagnosing.py": {"activation_monitor"},
    "monitor.py": {"keras", "activation_monitor"},
    "run.py": {"activation_monitor"},
    "rescaling.py": {"keras", "activation_monitor"},
    "session.py": {"keras", "activation_monitor"},
    "loops.py": {"keras", "activation_monitor"},
    "calibration.py": {"keras", "activation_monitor"},
    "cli.py": {"activation_monitor"},
    "foreign_errors.py": set(),
    "saved_models.py": {"keras", "activation_monitor"},
    "wrapper.py": {"keras", "activation_monitor"},
    "__init__.py": {"activation_monitor"},
}


def imported(source):
    """What a source imports, anywhere in it: modules, or names in them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = f"{'.' * node.level}{node.module or ''}"
            yield from (f"{module}.{alias.name}" for alias in node.names)


def forbidden(path, source):
    """The imports that the table does not allow to the module at `path`."""
    allowed = next(names for row, names in MAY_IMPORT.items() if path.startswith(row))
    return [
        name
        for name in imported(source)
        if name.split(".")[0] not in ANYWHERE
        and not any(name == a or name.startswith(f"{a}.") for a in allowed)
    ]


def modules():
    return sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", modules())
def test_a_module_imports_only_what_the_table_allows(path):
    """The table above is kept."""
    assert forbidden(path, (PACKAGE / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("analysis/records.py", "import keras"),
        ("analysis/records.py", "def f():\n    from tensorflow import nn"),
        ("analysis/theory.py", "from activation_monitor.views import console"),
        ("views/console.py", "from activation_monitor.recording import taps"),
        ("views/console.py", "import tensorboard.compat.proto"),
        ("views/in_words.py", "from activation_monitor.views import console"),
        ("views/plugin/entry.py", "from activation_monitor.storage import log_format"),
        ("recording/taps.py", "import activation_monitor.storage.reader"),
        ("recording/taps.py", "from .. import views"),
    ],
)
def test_the_table_would_notice(path, source):
    """The test above can fail: each of these breaks a rule."""
    assert forbidden(path, source) != []


def test_no_module_takes_the_name_of_one_of_the_standard_library():
    """Else the check above would take its imports for the standard library's."""
    names = {Path(path).stem for path in modules()} - {"__init__"}
    assert names & set(sys.stdlib_module_names) == set()


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in run.stdout.split()}


def test_importing_the_package_loads_no_framework():
    """TensorBoard will import the package wherever it is installed."""
    loaded = loaded_by("import activation_monitor; dir(activation_monitor)")
    assert loaded & {"tensorflow", "keras", "tensorboard", "rich", "scipy"} == set()


def test_the_check_for_loaded_frameworks_would_notice():
    """The test above can fail."""
    assert "keras" in loaded_by("from activation_monitor import ActivationMonitor")


def test_the_public_names_are_there():
    """Each name in `__all__` resolves, and a wrong one gives the usual error."""
    import activation_monitor

    for name in activation_monitor.__all__:
        assert getattr(activation_monitor, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Monitor'"):
        _ = activation_monitor.Monitor


def test_the_linter_finds_nothing():
    """Private attributes of Keras are touched in the two modules for it only (SLF001)."""
    root = PACKAGE.parent
    run = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", str(root)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout

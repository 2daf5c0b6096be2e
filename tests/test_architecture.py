"""The rules of the design that a program can check."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "activation_monitor"

ANYWHERE = {"numpy"} | set(sys.stdlib_module_names)

# Who may import whom: the first row that a module's path starts with. Recording and views
# do not import each other, and analysis imports neither.
MAY_IMPORT = {
    "analysis/dataframe.py": {"pandas", "activation_monitor.analysis"},  # when it is used
    "analysis/": {"scipy", "activation_monitor.analysis"},
    "recording/backends/tensorflow": {
        "keras",
        "tensorflow",
        "activation_monitor.analysis",
        "activation_monitor.recording",
    },
    "recording/backends/jax": {
        "jax",
        "keras",
        "activation_monitor.analysis",
        "activation_monitor.recording",
    },
    "recording/backends/torch": {
        "keras",
        "torch",
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
        "activation_monitor.views.in_words",
        "activation_monitor.views.plugin",
    },
    "views/export.py": {"pandas", "pyarrow", "activation_monitor.analysis"},
    "views/trackers.py": {"mlflow", "wandb", "activation_monitor.analysis"},
    "views/in_words.py": {
        "activation_monitor.analysis",
        "activation_monitor.views.evidence",
    },
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
        "activation_monitor.views.worst_layers",
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
        "activation_monitor.views.worst_layers",
    },
    "views/live.py": {"IPython"},  # where it is loaded already
    "views/notebook.py": {"activation_monitor.analysis", "activation_monitor.views"},
    "views/report.py": {
        "plotly",
        "activation_monitor.analysis",
        "activation_monitor.views",
    },
    "views/report_figures.py": {
        "plotly",
        "activation_monitor.analysis",
        "activation_monitor.views.figures",
        "activation_monitor.views.summary",
    },
    "views/report_page.py": set(),
    "views/": {"activation_monitor.analysis"},
    "actions.py": {"activation_monitor.analysis"},
    "asserting.py": {"keras", "activation_monitor"},
    "auditing.py": {"keras", "activation_monitor"},
    "diagnosing.py": {"activation_monitor"},
    "monitor.py": {"keras", "activation_monitor"},
    "run.py": {"activation_monitor"},
    "pytest_plugin.py": {"pytest", "activation_monitor"},
    "rescaling.py": {"keras", "activation_monitor"},
    "session.py": {"keras", "activation_monitor"},
    "loops.py": {"keras", "activation_monitor"},
    "calibration.py": {"keras", "activation_monitor"},
    "cli.py": {"activation_monitor"},
    "foreign_errors.py": set(),
    "saved_models.py": {"keras", "activation_monitor"},
    "tracking.py": {"activation_monitor"},
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
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "optional":
            # It imports the package when it is called.
            yield from (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))


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


TESTS_OF_ANALYSIS = {
    *(
        "test_chain",
        "test_comparison",
        "test_depth_profile",
        "test_diagnosis",
        "test_health",
    ),
    *("test_hints", "test_histogram", "test_layer_graph", "test_records", "test_rules"),
    *("test_snapshot", "test_theory"),
}


def test_the_tests_of_analysis_run_without_keras_and_tensorflow():
    """`-m analysis` selects these: one that imports Keras at its top would drop out."""
    import conftest

    files = Path(__file__).parent.glob("test_*.py")
    found = {file.stem for file in files if conftest._tests_analysis(file)}
    assert found >= TESTS_OF_ANALYSIS
    assert found & {"test_monitor", "test_console", "test_architecture"} == set()


@pytest.mark.parametrize("path", modules())
def test_a_module_imports_only_what_the_table_allows(path):
    """No import breaks the table above."""
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
        ("analysis/tidy.py", "optional('pandas', 'export')"),
        ("views/console.py", "wandb = optional('wandb', 'trackers')"),
    ],
)
def test_the_table_would_notice(path, source):
    """The test above can fail: each of these breaks a rule."""
    assert forbidden(path, source) != []


def test_no_module_takes_the_name_of_one_of_the_standard_library():
    """Otherwise the check above takes its imports for those of the standard library."""
    names = {Path(path).stem for path in modules()} - {"__init__"}
    assert names & set(sys.stdlib_module_names) == set()


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in run.stdout.split()}


def test_importing_the_package_loads_no_framework():
    """TensorBoard imports the package wherever it is installed."""
    loaded = loaded_by("import activation_monitor; dir(activation_monitor)")
    assert loaded & {"tensorflow", "keras", "tensorboard", "rich", "scipy"} == set()


def test_the_check_for_loaded_frameworks_would_notice():
    """The test above can fail."""
    assert "keras" in loaded_by("from activation_monitor import ActivationMonitor")


def test_the_public_names_are_there():
    """Each name in `__all__` resolves, and a wrong one gives the usual error."""
    import activation_monitor

    assert sorted(activation_monitor._MODULES) == activation_monitor.__all__
    for name in activation_monitor.__all__:
        assert getattr(activation_monitor, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Monitor'"):
        _ = activation_monitor.Monitor


@pytest.mark.parametrize(
    "command", [["check", "--no-cache"], ["format", "--check", "--no-cache"]]
)
def test_ruff_finds_nothing(command):
    """The linter, which also allows private attributes of Keras in few modules only
    (SLF001), and the formatter."""
    run = subprocess.run(
        [sys.executable, "-m", "ruff", *command, str(PACKAGE.parent)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("import keras.src", "TID251"),
        ("from keras.src.backend import common", "TID251"),
        ("import tensorflow", "TID251"),
        ("def f(layer):\n    return layer._layers", "SLF001"),
    ],
)
def test_ruff_sees_private_names_and_frameworks(code, rule):
    """In every module except those that pyproject.toml names."""
    for path, expected in (
        ("activation_monitor/recording/taps.py", True),
        ("activation_monitor/monitor.py", True),
        ("activation_monitor/recording/keras_private.py", False),
    ):
        run = subprocess.run(
            [sys.executable, "-m", "ruff", "check", "--stdin-filename", path, "-"],
            input=f"{code}\n",
            capture_output=True,
            text=True,
            cwd=PACKAGE.parent,
        )
        assert (rule in run.stdout) == expected, run.stdout

"""Type checkers see the public names, and find nothing wrong in the package."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Files in which pyright still finds errors. It checks those of analysis by its strict rules
# and the others by its basic ones. After fixing a file remove its name; add none.
NOT_YET = {
    "activation_monitor/analysis/activations.py",
    "activation_monitor/analysis/chain.py",
    "activation_monitor/analysis/change.py",
    "activation_monitor/analysis/comparison.py",
    "activation_monitor/analysis/counterfactual.py",
    "activation_monitor/analysis/depth_profile.py",
    "activation_monitor/analysis/diagnosis.py",
    "activation_monitor/analysis/findings.py",
    "activation_monitor/analysis/fixes.py",
    "activation_monitor/analysis/health.py",
    "activation_monitor/analysis/hints.py",
    "activation_monitor/analysis/histogram.py",
    "activation_monitor/analysis/layer_graph.py",
    "activation_monitor/analysis/records.py",
    "activation_monitor/analysis/rescaling.py",
    "activation_monitor/analysis/rules/gradients.py",
    "activation_monitor/analysis/rules/outlier.py",
    "activation_monitor/analysis/rules/size.py",
    "activation_monitor/analysis/rules/units.py",
    "activation_monitor/analysis/shown.py",
    "activation_monitor/analysis/snapshot.py",
    "activation_monitor/analysis/theory.py",
    "activation_monitor/auditing.py",
    "activation_monitor/cli.py",
    "activation_monitor/monitor.py",
    "activation_monitor/recording/backends/__init__.py",
    "activation_monitor/recording/backends/protocol.py",
    "activation_monitor/recording/backends/tensorflow.py",
    "activation_monitor/recording/inputs.py",
    "activation_monitor/recording/keras_private.py",
    "activation_monitor/recording/kernels.py",
    "activation_monitor/recording/measure.py",
    "activation_monitor/recording/passes.py",
    "activation_monitor/recording/pre_activations.py",
    "activation_monitor/recording/shared.py",
    "activation_monitor/recording/step_count.py",
    "activation_monitor/recording/steps.py",
    "activation_monitor/recording/taps.py",
    "activation_monitor/recording/transparent.py",
    "activation_monitor/run.py",
    "activation_monitor/saved_models.py",
    "activation_monitor/storage/log_format.py",
    "activation_monitor/storage/reader.py",
    "activation_monitor/storage/writer.py",
    "activation_monitor/views/console.py",
    "activation_monitor/views/figures/curves.py",
    "activation_monitor/views/figures/depth.py",
    "activation_monitor/views/figures/graph.py",
    "activation_monitor/views/figures/heat.py",
    "activation_monitor/views/figures/over_time.py",
    "activation_monitor/views/figures/statistic.py",
    "activation_monitor/views/figures/svg.py",
    "activation_monitor/views/markup.py",
    "activation_monitor/views/plugin/runs.py",
    "activation_monitor/views/plugin/tab.py",
}

HEAD = """
import keras
import activation_monitor
from activation_monitor import *

def use(model: keras.Model, monitor: ActivationMonitor, finding: Finding) -> None:
"""

TYPES = {
    "monitor.recording": "Recording",
    "monitor.recording[0]": "Snapshot",
    "monitor.recording.steps": "list[int]",
    "monitor.diagnosis": "Diagnosis",
    "monitor.diagnosis.findings": "tuple[Finding, ...]",
    "finding.code": "str",
    "diagnose(monitor.recording)": "Diagnosis",
    "audit(model, 1)": "Diagnosis",
    "rescale(model, 1)": "Rescaling",
    "Monitored": "type[Monitored]",
}


def checked(*arguments):
    """What pyright reports, as dictionaries; of the package where no file is given."""
    run = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
        + [*map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    return json.loads(run.stdout)["generalDiagnostics"]


@pytest.fixture(scope="module")
def uses(tmp_path_factory):
    """What pyright reports of a user's file, by line of the file."""
    file = tmp_path_factory.mktemp("user") / "uses.py"
    body = [*(f"    reveal_type({text})" for text in TYPES), "    activation_monitor.Wrong"]
    file.write_text(HEAD + "\n".join(body))
    first = HEAD.count("\n")
    return {report["range"]["start"]["line"] - first: report for report in checked(file)}


@pytest.mark.parametrize("text", TYPES)
def test_a_checker_knows_the_types_of_public_names(uses, text):
    """Although the names are resolved on first use only."""
    report = uses[[*TYPES].index(text)]
    assert report["message"] == f'Type of "{text}" is "{TYPES[text]}"'


def test_a_checker_reports_a_name_that_does_not_exist(uses):
    """The module's `__getattr__` does not hide it."""
    assert uses.keys() == {*range(len(TYPES) + 1)}
    assert uses[len(TYPES)]["rule"] == "reportAttributeAccessIssue"


def test_the_checker_finds_nothing_wrong():
    """With the settings in pyproject.toml: strict for analysis, basic for the rest."""
    reports = [report for report in checked() if report["severity"] == "error"]
    lines = {}
    for report in reports:
        name = Path(report["file"]).relative_to(ROOT).as_posix()
        text = f"{name}:{report['range']['start']['line'] + 1}: {report['message']}"
        lines.setdefault(name, []).append(text)
    wrong = [line for name in lines.keys() - NOT_YET for line in lines[name]]
    assert wrong == [], "\n".join(wrong)
    # A file without errors has to leave the list.
    assert NOT_YET - lines.keys() == set()

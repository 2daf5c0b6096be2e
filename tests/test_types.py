"""Type checkers see the public names, and find nothing wrong in the package."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

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
    "monitor.findings": "tuple[Finding, ...]",
    "finding.code": "str",
    "diagnose(monitor.recording)": "Diagnosis",
    "audit(model, 1)": "Diagnosis",
    "assert_healthy(model, 1)": "None",
    "UnhealthyModelError([finding], monitor.diagnosis).findings": "tuple[Finding, ...]",
    "rescale(model, 1)": "Rescaling",
    "Monitored": "type[Monitored]",
}


def checked(*arguments):
    """The reports of pyright, as dictionaries; without arguments, those on the package."""
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
    wrong = [
        f"{Path(report['file']).relative_to(ROOT).as_posix()}:"
        f"{report['range']['start']['line'] + 1}: {report['message']}"
        for report in checked()
        if report["severity"] == "error"
    ]
    assert wrong == [], "\n".join(wrong)

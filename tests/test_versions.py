"""The versions that pyproject.toml allows are those that are run; the tab shows a log."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import board
import models
from activation_monitor import diagnose, read_recording

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OLDEST = (ROOT / "tests" / "oldest.txt").read_text()


def bounds(project):
    """The lower bound of each package that is not pinned, in all extras together."""
    extras = project["optional-dependencies"].values()
    texts = [*project["dependencies"], *(text for extra in extras for text in extra)]
    found = {}
    for requirement in map(Requirement, texts):
        for specifier in requirement.specifier:
            if specifier.operator == ">=":
                known = found.setdefault(requirement.name, set())
                known.add(Version(specifier.version))
    return {name: versions.pop() for name, versions in found.items() if len(versions) == 1}


def pins(text):
    """The exact versions of a constraints file."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found = {}
    for requirement in map(Requirement, lines):
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        found[requirement.name] = Version(specifier.version)
    return found


def test_the_oldest_versions_that_are_run_are_the_lower_bounds():
    """Each has one bound, whatever extra it is in, and that is what is installed."""
    named = {
        Requirement(text).name
        for texts in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
        for text in texts
        if "==" not in text
    }
    assert bounds(PROJECT).keys() == named
    assert pins(OLDEST) == bounds(PROJECT)


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("keras==3.12.0", "keras==3.13.0"),
        ("numpy==1.26.0", ""),
        ("rich==13.0.0", "rich==13.0.0\nwerkzeug==3.0"),
    ],
)
def test_a_bound_that_is_not_run_would_be_noticed(line, other):
    """The test above can fail."""
    assert line in OLDEST
    text = "\n".join(filter(None, OLDEST.replace(line, other).splitlines()))
    assert pins(text) != bounds(PROJECT)


def test_the_classifiers_name_the_versions_of_python_that_are_allowed():
    """No other, and this one is among them."""
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert named == [f"3.{minor}" for minor in range(50) if f"3.{minor}" in allowed]
    assert "{}.{}".format(*sys.version_info) in named


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """The log of a network whose signal vanishes."""
    folder = tmp_path_factory.mktemp("logs") / "run"
    network = models.perceptron(depth=12, width=64, initializer="random_normal")
    models.watch(network, *models.data(), log_dir=folder)
    return folder


@pytest.mark.smoke
@pytest.mark.parametrize("loader", board.LOADERS)
def test_the_tab_shows_the_log_of_a_fit(log, loader):
    """Its page, its run with the verdict, its figures."""
    recording = read_recording(log)
    assert recording.steps == [0, 1, 2]
    client = board.Client(log.parent, loader)
    client.wait_for("run/activations", step=2)
    for name in ("index.js", "plotly.min.js"):
        assert client.get(name).status_code == 200
    run = client.json("run", run="run/activations")
    assert run["steps"] == recording.steps
    assert [layer["name"] for layer in run["layers"]] == [*recording[0].names]
    (finding,) = diagnose(recording).findings
    assert finding.code == "vanishing-activations"
    assert [told["message"] for told in run["findings"]] == [finding.message]

    for kind in ("depth_profile", "heat_map", "layer_graph", "layer_over_time"):
        asked = {"kind": kind, "run": "run/activations", "layer": "net/hidden_3"}
        assert client.json("figure", **asked)["data"]

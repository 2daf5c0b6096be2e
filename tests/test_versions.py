"""The versions that pyproject.toml allows are those that tests run with."""

import re
import sys
import tomllib
import warnings
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import board
import models
from activation_monitor import diagnose, read_recording

ROOT = Path(__file__).parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]
OLDEST = (ROOT / "tests" / "oldest.txt").read_text()
OLDEST_JAX = (ROOT / "tests" / "oldest_jax.txt").read_text()


def requirements():
    """All that is required: by the package, its extras and the dependency groups."""
    extras = PROJECT["optional-dependencies"].values()
    groups = SETTINGS["dependency-groups"].values()
    lists = [PROJECT["dependencies"], *extras, *groups]
    texts = [text for each in lists for text in each if isinstance(text, str)]
    return [Requirement(text) for text in texts]


def bounds():
    """The one lower bound of each package that is not pinned."""
    found = {}
    for requirement in requirements():
        for specifier in requirement.specifier:
            if specifier.operator == ">=":
                known = found.setdefault(requirement.name, set())
                known.add(Version(specifier.version))
    return {name: versions.pop() for name, versions in found.items() if len(versions) == 1}


def bounds_without_jax():
    """Those that oldest.txt pins."""
    return {name: version for name, version in bounds().items() if name != "jax"}


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
    """Each package has the same bound wherever it is required, and oldest.txt pins it."""
    named = {each.name for each in requirements() if "==" not in str(each.specifier)}
    assert bounds().keys() == named
    assert pins(OLDEST) == bounds_without_jax()


def test_the_oldest_versions_with_jax_are_the_lower_bounds():
    """Except of what the oldest JAX needs in a newer version."""
    without = SETTINGS["dependency-groups"]["without-tensorflow"]
    needed = {one.name for one in map(Requirement, without) if "==" not in str(one)}
    found = pins(OLDEST_JAX)
    assert found.keys() == needed | {"jax"}
    differing = {name for name, one in found.items() if one != bounds()[name]}
    assert differing == {"numpy", "scipy"}
    assert all(found[name] > bounds()[name] for name in differing)


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
    assert pins(text) != bounds_without_jax()


@pytest.mark.parametrize("name", ["keras", "jax", "torch"])
def test_private_names_of_others_have_a_ceiling(name):
    """On the minor version, with which they may change. The version that runs here, and
    one that a group pins, is below it."""
    each = [one.specifier for one in requirements() if one.name == name]
    (specifiers,) = {one for one in each if "<" in str(one)}
    (ceiling,) = [Version(one.version) for one in specifiers if one.operator == "<"]
    assert len(ceiling.release) == 2
    pinned = [next(iter(one)).version for one in each if "==" in str(one)]
    for version in [*pinned, *(d.version for d in metadata.distributions(name=name))]:
        assert version in specifiers


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_an_environment_of_a_backend_has_what_the_package_needs_but_tensorflow(backend):
    """The package is installed there without its dependencies."""
    groups = SETTINGS["dependency-groups"]
    included, own = groups[backend]
    assert included == {"include-group": "without-tensorflow"}
    assert Requirement(own).name == backend
    needed = [Requirement(text) for text in PROJECT["dependencies"]]
    group = map(Requirement, groups["without-tensorflow"])
    found = {str(one) for one in group if not one.name.startswith("pytest")}
    assert found == {str(one) for one in needed if one.name != "tensorflow"}


OURS, THEIRS = "activation_monitor.recording.taps", "keras.src.layers.layer"


@pytest.mark.parametrize("category", [DeprecationWarning, PendingDeprecationWarning])
def test_deprecated_calls_of_our_own_fail(category):
    """Those that Keras and TensorFlow make do not."""

    def deprecated(module):
        warnings.warn_explicit("use the new one", category, "file.py", 1, module=module)

    deprecated(THEIRS)
    with pytest.raises(category, match="use the new one"):
        deprecated(OURS)


def test_the_classifiers_name_the_versions_of_python_that_are_allowed():
    """These and no others; the one that runs here is among them."""
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
    """The page, the run with its verdict, the figures."""
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
    assert [each["message"] for each in run["findings"]] == [finding.message]

    for kind in ("depth_profile", "heat_map", "layer_graph", "layer_over_time"):
        asked = {"kind": kind, "run": "run/activations", "layer": "net/hidden_3"}
        assert client.json("figure", **asked)["data"]

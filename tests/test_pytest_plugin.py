"""The fixture for pytest, as the tests of a user have it: each case is a run of its own."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

TESTS = """
import keras
import numpy as np
import pytest

X = np.random.default_rng(0).standard_normal((32, 16), dtype="float32")
Y = X.sum(axis=1, keepdims=True)


def network(initializer="he_normal"):
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    hidden = [dense(32, "relu", kernel_initializer=initializer) for _ in range(2)]
    model = keras.Sequential([keras.Input((16,)), *hidden, dense(1)], name="net")
    model.compile(keras.optimizers.SGD(1e-4), "mse")
    return model


def test_healthy(healthy_training, tmp_path):
    monitor = healthy_training(tmp_path, sample_every=1)
    network().fit(X, Y, verbose=0, callbacks=[monitor])
    assert monitor.recording.steps == [0] and list(tmp_path.iterdir())


def test_accepted(healthy_training):
    monitor = healthy_training(ignore="zero-activations")
    network("zeros").fit(X, Y, verbose=0, callbacks=[monitor])


def test_sick(healthy_training):
    network("zeros").fit(X, Y, verbose=0, callbacks=[healthy_training()])


def test_one_of_two_is_sick(healthy_training):
    with healthy_training().measure_step(healthy := network()):
        healthy(X)
    network("zeros").fit(X, Y, verbose=0, callbacks=[healthy_training()])


def test_with_an_action_of_its_own(healthy_training):
    model = network("zeros")
    with healthy_training(on_finding="raise").measure_step(model):
        model(X)


def test_sick_and_wrong(healthy_training):
    model = network("zeros")
    with healthy_training().measure_step(model):
        model(X)
    assert 1 + 1 == 3


@pytest.mark.xfail(strict=True, reason="known")
def test_known_to_be_sick(healthy_training):
    model = network("zeros")
    with healthy_training().measure_step(model):
        model(X)


def test_forgotten(healthy_training):
    healthy_training()
    network()(X)


def test_not_called(healthy_training):
    pass


def test_skipped(healthy_training):
    pytest.skip("not now")


@pytest.fixture
def mine(healthy_training):
    return healthy_training()


def test_by_way_of_another_fixture(mine):
    model = network("zeros")
    with mine.measure_step(model):
        model(X)


def test_without_the_fixture():
    network("zeros")(X)
"""

OUTCOMES = {
    "healthy": "PASSED",
    "accepted": "PASSED",
    "sick": "FAILED",
    "one_of_two_is_sick": "FAILED",
    "with_an_action_of_its_own": "FAILED",
    "sick_and_wrong": "FAILED",
    "known_to_be_sick": "XFAIL",
    "forgotten": "FAILED",
    "not_called": "FAILED",
    "skipped": "SKIPPED",
    "by_way_of_another_fixture": "FAILED",
    "without_the_fixture": "PASSED",
}

WITHOUT_FRAMEWORKS = """
import sys


def test_nothing_is_loaded():
    assert "activation_monitor.pytest_plugin" in sys.modules
    loaded = {name.split(".")[0] for name in sys.modules}
    assert loaded & {"tensorflow", "keras", "tensorboard", "numpy", "scipy"} == set()
"""


def run(folder, test, *options):
    """Run pytest in a folder, where the package is installed with its entry points."""
    installed = folder / "site" / "activation_monitor-0.dist-info"
    installed.mkdir(parents=True)
    lines = [
        f"{name} = {where}" for name, where in PROJECT["entry-points"]["pytest11"].items()
    ]
    (installed / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines]))
    (installed / "METADATA").write_text("Name: activation-monitor\nVersion: 0\n")
    (folder / "tests").mkdir()
    (folder / "tests" / "test_it.py").write_text(test)
    paths = os.pathsep.join(map(str, (folder / "site", ROOT)))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests", *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """What pytest prints of the tests above."""
    folder = tmp_path_factory.mktemp("user")
    return run(folder, TESTS, "-v", "-rA", "-W", "error::UserWarning").stdout


@pytest.mark.parametrize("name", OUTCOMES)
def test_a_test_passes_if_nothing_was_found(done, name):
    """Sick models fail, in the test and not after it, and their healthy twins pass."""
    outcomes = re.findall(rf"::test_{name} (\w+)", done)
    assert outcomes == [OUTCOMES[name]], done
    assert "ERROR" not in done.replace("TEST_ERROR", "")


def section(done, name):
    """What is printed of a failed test."""
    return re.search(rf"^_+ test_{name} _+$(.*?)^[_=]{{3}}", done, re.DOTALL | re.M)[1]


def test_the_finding_is_the_message(done):
    """All of it, with the fix; and nothing else, no traceback."""
    shown = section(done, "sick").strip()
    assert shown.startswith("zero-activations (critical, at initialization): All outp")
    assert 'kernel_initializer="he_normal"' in shown
    assert shown.endswith("More: activation-monitor explain zero-activations")
    assert "zero-activations" in section(done, "one_of_two_is_sick")
    assert "(critical, at init" in section(done, "by_way_of_another_fixture")


def test_an_action_of_its_own_is_kept(done):
    """Here it raises, at the line with `fit`."""
    assert "UnhealthyModelError" in section(done, "with_an_action_of_its_own")


def test_a_test_that_fails_itself_shows_the_findings_below(done):
    """They may be the reason."""
    shown = section(done, "sick_and_wrong")
    assert "assert (1 + 1) == 3" in shown
    assert "(critical, at init" in done.split("assert (1 + 1) == 3")[1]


def test_a_monitor_that_measured_nothing_fails_the_test(done):
    """A test must not pass because its monitor was forgotten."""
    for name in ("forgotten", "not_called"):
        shown = section(done, name).strip()
        assert shown.startswith("healthy_training: nothing was measured. Pass")


def test_loading_it_loads_no_framework(tmp_path):
    """Every run of pytest loads it, also where no network is tested."""
    done = run(tmp_path, WITHOUT_FRAMEWORKS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_check_for_loaded_frameworks_would_notice(tmp_path):
    """The test above can fail."""
    done = run(tmp_path, f"import keras\n{WITHOUT_FRAMEWORKS}")
    assert "1 failed" in done.stdout and "{'keras'" in done.stdout.replace('"', "'")


def test_the_fixture_is_documented(tmp_path):
    """As `pytest --fixtures` shows it."""
    done = run(tmp_path, "", "--fixtures")
    assert "healthy_training" in done.stdout
    assert "whose findings fail the test" in done.stdout


def test_pytest_is_no_dependency():
    """Only who runs pytest loads the plugin."""
    assert [one for one in PROJECT["dependencies"] if "pytest" in one] == []

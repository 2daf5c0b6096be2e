"""What the README says is run: its Python blocks, its commands, the examples."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def run(arguments, folder):
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True
    )


@pytest.mark.smoke
@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_python_blocks_run_and_print_what_is_shown(number, tmp_path):
    """The first prints the finding that follows it, up to the random weights."""
    done = run(["-c", blocks("python")[number]], tmp_path)
    assert done.returncode == 0, done.stderr
    shown = " ".join(blocks("text")[number].split())
    printed = " ".join(done.stdout.split())
    # The figures differ from draw to draw.
    pattern = re.sub(r"[0-9.]+(e-[0-9]+)?", "[0-9.e-]+", re.escape(shown).replace("\\", ""))
    assert re.search(pattern.replace("(", r"\(").replace(")", r"\)"), printed), printed


def test_the_mended_network_of_the_readme_is_healthy(tmp_path):
    """With the initializer that the README recommends."""
    code = blocks("python")[0].replace("random_normal", "he_normal")
    done = run(["-W", "error::UserWarning", "-c", code], tmp_path)
    assert "Healthy: no findings" in done.stdout, done.stdout + done.stderr


@pytest.mark.smoke
def test_the_digits_example_prints_that_it_is_healthy(tmp_path):
    """Without a warning, with the accuracy and how to open TensorBoard."""
    done = run(["-W", "error::UserWarning", str(ROOT / "examples" / "digits.py")], tmp_path)
    assert "Healthy: no findings" in done.stdout, done.stdout + done.stderr
    accuracy = float(re.search(r"unseen digits: ([0-9.]+)%", done.stdout)[1])
    assert accuracy > 90
    assert "tensorboard --logdir logs/digits" in done.stdout
    assert list((tmp_path / "logs" / "digits" / "activations").iterdir())


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path):
    """A few steps of the smallest network; it prints ratios, nothing is asserted."""
    script = str(ROOT / "tests" / "benchmarks" / "step_cost.py")
    done = run([script, "--model", "mlp", "--steps", "4"], tmp_path)
    assert re.findall(r"step \d+\.\d\d .*, first step \d+\.\d\d", done.stdout), done.stderr


def test_the_commands_of_the_readme_are_what_ci_runs():
    """One runs the main job; CI takes those that install and run tests from here."""
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert sum("examples/digits.py" in line for line in commands) == 1
    tests = [line for line in commands if "pytest" in line and "install" in line]
    _, oldest = tests
    assert "-c tests/oldest.txt" in oldest and oldest.endswith("-m smoke")
    (patterns,) = re.findall(r"for pattern in (.*); do", (ROOT / ".ci" / "run").read_text())
    for command, pattern in zip(tests, shlex.split(patterns), strict=True):
        found = [line for line in README.splitlines() if re.search(pattern, line)]
        assert found == [command]

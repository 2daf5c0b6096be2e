"""The benchmark of the cost: its arithmetic, and that it runs. Nothing is timed here."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from activation_monitor.analysis.health import Health
from activation_monitor.recording.steps import Schedule

ROOT = Path(__file__).parent.parent
PROGRAM = ROOT / "tests" / "benchmarks" / "overhead"


def load(name):
    """A module of the benchmark, which is a program and no package."""
    spec = importlib.util.spec_from_file_location(
        f"overhead_{name}", PROGRAM / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments):
    """What the program prints."""
    done = subprocess.run(
        [sys.executable, PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- arithmetic


@pytest.mark.parametrize(
    ("count", "place"),
    # From tables of the sign test: the largest k with P(Binomial(n, 1/2) < k) <= 0.025.
    [(5, 1), (6, 1), (8, 1), (9, 2), (10, 2), (15, 4), (20, 6), (25, 8), (50, 18)],
)
def test_the_interval_of_a_median_ends_at_the_ranks_of_the_sign_test(count, place):
    shuffled = np.random.default_rng(0).permutation(count) + 1.0
    found = load("intervals").median(shuffled)
    assert (found.low, found.high) == (place, count + 1 - place)
    assert found.median == (count + 1) / 2 and found.count == count


def test_the_interval_contains_the_median_as_often_as_it_says():
    """Of exponential numbers, whose median is log 2. It may be wider, not narrower."""
    rng, intervals = np.random.default_rng(0), load("intervals")
    found = [intervals.median(rng.exponential(size=24)) for _ in range(1000)]
    inside = np.mean([m.low <= np.log(2) <= m.high for m in found])
    assert intervals.COVERAGE - 0.01 < inside < 0.99


@pytest.mark.parametrize("steps", [1, 3, 99, 100, 101, 1000])
def test_the_estimate_counts_sampled_steps_as_the_schedule_does(steps):
    scale = load("scale")
    for settings in scale.SETTINGS:
        schedule = Schedule(settings.sample_every)
        counted = sum(schedule.samples(step, 1, 0, Health()) for step in range(steps))
        assert scale.sampled(settings, steps) == counted


def test_the_estimate_multiplies_what_was_measured():
    """By hand: 100 layers, 1,000 steps, 10 workers, sampled every 100 steps."""
    scale = load("scale")
    every = "ours, every step, histograms, log"
    results = {
        "chain": [
            {"contestant": every, "layers": 50, "added": {"median": 1.0}},
            {"contestant": every, "layers": 500, "added": {"median": 0.1}},
        ],
        "steps": [
            {"contestant": every, "ratio": {"median": 1.2}},
            {"contestant": every, "reason": "too small"},
        ],
        "log": [
            {"logged": name, "bytes": size}
            for name, size in zip(
                ("neither", "scalars", "histograms", "both"), (1, 3, 10, 12), strict=True
            )
        ],
        "board": [
            {"scalars": False, "bytes_each": 5.0},
            {"scalars": True, "bytes_each": 9.0},
        ],
    }
    defaults = scale.estimates(results, 100, 1000, 10)[0]
    snapshots = 10 + 6  # 0, 100, .., 900 and 1, 2, 5, 10, 20, 50
    assert defaults["snapshots"] == snapshots
    np.testing.assert_allclose(defaults["seconds_of_layers"], snapshots * 100 * 0.1 / 500)
    np.testing.assert_allclose(defaults["share_of_tensors"], 0.2 / 100)
    assert defaults["log"] == snapshots * 100 * 12
    assert defaults["tensorboard"] == snapshots * 100 * (5 + 4 + 9)
    nothing = scale.estimates({}, 100, 1000, 10)[0]
    assert nothing["log"] is nothing["tensorboard"] is nothing["share_of_tensors"] is None


# -- the program


@pytest.mark.slow
def test_the_benchmark_runs_and_says_who_cannot_run_with_xla(tmp_path):
    file = tmp_path / "costs.json"
    few = ("--models", "chain-2", "--modes", "xla", "--precision", "float32")
    few += ("--rounds", 2, "--steps", 1, "--repeats", 1, "--fit-steps", 2)
    who = ("--contestants", "ours, every step, log", "TensorBoard", "check_numerics")
    printed = run("--parts", "steps", "fit", *few, *who, "--json", file)
    assert "cannot run" in printed and "XLA cannot compile DebugNumericSummaryV2" in printed
    rows = json.loads(file.read_text())["steps"]
    assert {row["contestant"]: "ratio" in row for row in rows} == {
        "no monitor": True,
        "ours, every step, log": True,
        "no monitor, epochs of one step": True,
        "keras TensorBoard(histogram_freq=1)": True,
        "enable_check_numerics": False,
    }
    again = run("--read", file, "--scale", 10, 100, 2)
    assert "cannot run" in again and "10 layers, 100 steps, 2 workers" in again

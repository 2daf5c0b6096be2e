"""A log that keeps to its budget: what is left out, what never is, and who says so."""

import numpy as np
import pytest

import models
from activation_monitor import ActivationMonitor, read_recording
from activation_monitor.analysis import records
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot
from activation_monitor.storage.log_format import RUN
from activation_monitor.storage.writer import EventLog

LAYERS = tuple(
    LayerInfo(f"dense_{i}", "Dense", "weight", "relu", 4, "float32", (i - 1,) if i else ())
    for i in range(20)
)


def taken(step):
    """A snapshot of about 3 kB."""
    x = np.random.default_rng(step).standard_normal((20, 8, 4))
    return Snapshot(step, LAYERS, {"output": np.stack([records.measure(one) for one in x])})


def size(folder):
    return sum(path.stat().st_size for path in (folder / RUN).iterdir())


def logged(folder, budget, steps, verdicts=()):
    """Write a log; returns it."""
    log = EventLog(folder, budget=budget)
    for step in steps:
        log.write(taken(step), "new" if step in verdicts else None)
    log.close()
    return log


def test_a_log_within_half_of_its_budget_has_all_snapshots(tmp_path):
    """As without a budget, byte for byte as long."""
    for name, budget in (("none", None), ("large", 10**6)):
        log = logged(tmp_path / name, budget, range(50))
        assert log.thinned_from is None
        assert read_recording(tmp_path / name).steps == [*range(50)]
    assert size(tmp_path / "none") == size(tmp_path / "large") < 10**6 / 2


def test_a_long_log_stays_within_its_budget_and_gets_ever_sparser(tmp_path):
    """All of the first half; then at most `1 - n / 2m` of the budget after m snapshots."""
    budget, many = 200_000, 2000
    log = logged(tmp_path, budget, range(many))
    steps = read_recording(tmp_path).steps
    n = log.thinned_from
    assert steps[:n] == [*range(n)] and n not in steps
    each = size(tmp_path) / len(steps)
    assert size(tmp_path) <= budget
    assert n * each == pytest.approx(budget / 2, rel=0.1)
    for m in (2 * n, 4 * n, 16 * n):
        allowed = budget * (1 - n / (2 * m))
        assert sum(step < m for step in steps) * each == pytest.approx(allowed, rel=0.1)
    for m in (2 * n, 10 * n):  # there every fourth and every hundredth is written
        near = [step for step in steps if 0.7 * m < step < 1.5 * m]
        np.testing.assert_allclose(np.diff(near).mean(), (m / n) ** 2, rtol=0.3)


def test_snapshots_with_something_to_report_are_always_written(tmp_path):
    """A finding must not lack the snapshot that shows it."""
    told = [300, 301, 950]
    logged(tmp_path / "told", 100_000, range(1000), told)
    assert {*told} <= {*read_recording(tmp_path / "told").steps}
    logged(tmp_path / "not", 100_000, range(1000))
    assert not {*told} <= {*read_recording(tmp_path / "not").steps}


def test_the_files_of_a_resumed_run_count(tmp_path):
    """All of them together keep to the budget, up to a table of layers and a snapshot."""
    for start in range(0, 400, 100):
        logged(tmp_path, 200_000, range(start, start + 100))
    assert size(tmp_path) <= 210_000
    steps = read_recording(tmp_path).steps
    assert any(step >= 100 for step in steps) and len(steps) < 100


def test_a_budget_that_is_spent_leaves_what_must_be_told(tmp_path):
    """With its table of layers, so that it can be read."""
    logged(tmp_path, None, range(100))
    log = logged(tmp_path, 1000, range(100, 150), [120])
    assert log.thinned_from == 100
    assert read_recording(tmp_path).steps == [*range(100), 120]


def test_the_monitor_says_once_that_the_log_is_thinned(tmp_path):
    """The recording in memory has all steps, and so does the log without a budget."""
    x, y = models.data(samples=400)
    for budget, told in ((20_000, 1), (None, 0)):
        folder = tmp_path / str(budget)
        options = {"log_dir": folder, "sample_every": 1, "log_budget": budget}
        monitor, warned = models.watch(models.perceptron(), x, y, **options)
        said = [one for one in warned if "budget of 20000 bytes: from step" in one]
        assert len(said) == len(warned) == told
        assert len(monitor.recording) == 50
        steps = read_recording(folder).steps
        assert (len(steps) < 50) == bool(told)
        assert {*steps} <= {*monitor.recording.steps}


@pytest.mark.parametrize("budget", [0, -1, True, 1e9, "1 GB"])
def test_a_budget_must_be_a_number_of_bytes(budget):
    """Or None, for no limit."""
    with pytest.raises(ValueError, match="positive number of bytes, or None") as caught:
        ActivationMonitor(log_budget=budget)
    assert f"log_budget={budget!r}" in str(caught.value)
    ActivationMonitor(log_budget=None)


def test_what_is_written_is_not_changed_by_the_budget(tmp_path):
    """The snapshots that are left are read back bit for bit."""
    logged(tmp_path, 100_000, range(300))
    for snapshot in read_recording(tmp_path):
        expected = taken(snapshot.step)
        np.testing.assert_array_equal(snapshot.records(), expected.records())

"""`diagnose`: the same diagnosis of a live object, a log, a recording and snapshots."""

import pytest

from activation_monitor import Recording, diagnose
from activation_monitor.storage.writer import EventLog
from activation_monitor.views import console
from networks import Drawn

CODE = "vanishing-activations"
SNAPSHOTS = [Drawn(1).chain(8, variance=0.02).snapshot(step) for step in (0, 10)]


class Live:
    """An object with a diagnosis, as an `ActivationMonitor` has one."""

    diagnosis = diagnose(SNAPSHOTS)


def logged(folder, name="run"):
    log = EventLog(folder / name)
    for snapshot in SNAPSHOTS:
        log.write(snapshot)
    log.close()
    return folder / name


@pytest.mark.parametrize(
    "of",
    [
        Recording,
        list,
        iter,
        lambda snapshots: Live(),
    ],
    ids=["recording", "list", "iterator", "live"],
)
def test_snapshots_in_any_form_have_one_diagnosis(of):
    """And it prints as a table."""
    found = diagnose(of(SNAPSHOTS))
    assert [finding.code for finding in found.findings] == [CODE]
    assert found.findings == Live.diagnosis.findings
    assert found.steps == (0, 10)
    assert str(found) == console.diagnosis_text(found)
    assert diagnose(of(SNAPSHOTS), ignore=CODE).healthy
    assert diagnose(of(SNAPSHOTS), ignore=["dead-units"]).findings == found.findings


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_log_is_diagnosed_by_its_path(tmp_path, kind):
    """A string or a `Path`, with the same findings."""
    found = diagnose(kind(logged(tmp_path)))
    assert found.findings == Live.diagnosis.findings
    assert diagnose(kind(tmp_path / "run"), ignore=CODE).healthy


def test_a_folder_of_several_runs_is_refused_with_their_names(tmp_path):
    """One diagnosis is that of one run."""
    logged(tmp_path, "a"), logged(tmp_path, "b")
    with pytest.raises(FileNotFoundError, match=r"diagnose: .* Pass one of them: .*b"):
        diagnose(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"diagnose: .* does not exist"):
        diagnose(tmp_path / "c")


@pytest.mark.parametrize(
    ("what", "received"),
    [
        (3, "Received: int."),
        (None, "Received: NoneType."),
        (SNAPSHOTS[0], "Received: Snapshot."),
        ([SNAPSHOTS[0], "a"], "Received: a list whose element 1 is of type str."),
        ({"a": 1, "b": 2}, "Received: a dict of several, 'a', 'b'. Call `diagnose` for"),
    ],
)
def test_anything_else_is_refused_with_what_was_expected(what, received):
    """A dictionary of runs, as `read_recording` returns it, with what to do."""
    with pytest.raises(TypeError) as raised:
        diagnose(what)
    said = str(raised.value)
    assert said.startswith("diagnose: expected ") and received in said
    assert "an ActivationMonitor, the path of its log folder, a Recording" in said


def test_an_unknown_code_is_refused_before_anything_is_read():
    """Also for a path that does not exist."""
    with pytest.raises(ValueError, match="diagnose: `ignore` must hold codes"):
        diagnose("nowhere", ignore=["growth"])

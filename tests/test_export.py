"""`activation-monitor export`: the numbers of logs in files of other formats."""

import csv
import json
import math
import os
import sys

import numpy as np
import pytest

import models
from activation_monitor import cli, read_recording
from activation_monitor.analysis import records, tidy
from activation_monitor.analysis.snapshot import LayerInfo, Recording, Snapshot
from activation_monitor.storage.log_format import VALIDATION_RUN
from activation_monitor.views import export

FORMATS = tuple(export.FORMATS)

# Numbers whose digits or whose kind a format may lose.
AWKWARD = (0.1 + 0.2, -0.0, 5e-324, 1.7976931348623157e308, math.nan, math.inf, -math.inf)


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            layer = row["layer"] or None
            yield (
                *(row["run"], row["phase"], int(row["step"]), layer),
                *(row["quantity"], row["statistic"], float(row["value"])),
            )


def read_json(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    for row in json.loads(path.read_text(), parse_constant=refuse):
        assert [*row] == [*export.COLUMNS]
        value = math.nan if row["value"] is None else float(row["value"])
        yield *[*row.values()][:-1], value


def read_parquet(path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.read_parquet(path)
    for row in frame.itertuples(index=False):
        yield tuple(None if one is np.nan else one for one in row[:-1]) + (row.value,)


READERS = {".csv": read_csv, ".json": read_json, ".parquet": read_parquet}


def needs(suffix):
    for package in export.FORMATS[suffix].packages:
        pytest.importorskip(package)


def assert_same(found, expected):
    """Equal rows, in which NaN is equal to NaN and -0.0 differs from 0.0."""
    found, expected = [*found], [*expected]
    assert [row[:-1] for row in found] == [row[:-1] for row in expected]
    ours, theirs = (np.array([row[-1] for row in rows]) for rows in (found, expected))
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(np.signbit(ours), np.signbit(theirs))


def recording(losses, name='net/ünit, "a"'):
    """Steps with these losses and one layer, whose name has what a format must quote."""
    layer = LayerInfo(name, "Dense", "weight", "relu", 3, "float32", ())
    rng = np.random.default_rng(0)
    return Recording(
        Snapshot(
            *(10 * i, (layer,)),
            {"output": records.measure(rng.normal(size=(4, 3)), "relu")[None]},
            loss=loss,
        )
        for i, loss in enumerate(losses)
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_number_is_read_back_as_it_was(suffix, tmp_path):
    """Also NaN, infinities, the smallest and the largest float64, and names with quotes."""
    needs(suffix)
    runs = {"b": recording(AWKWARD), "a/1": recording([1.0], name="other")}
    path = tmp_path / f"numbers{suffix}"
    export.write(runs, path)
    expected = [
        (run, "training", *row) for run, one in runs.items() for row in tidy.rows(one)
    ]
    assert_same(READERS[suffix](path), expected)
    losses = [row[-1] for row in expected if row[4] == "loss" and row[0] == "b"]
    np.testing.assert_array_equal(losses, AWKWARD)


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """The log folder of two runs, the second one with evaluations; and its monitors."""
    folder = tmp_path_factory.mktemp("logs")
    x, y = models.data()
    monitors = {}
    for run, validation in (("run1", False), ("sweep/run2", True)):
        model = models.perceptron()
        model.compile("sgd", "mse")
        monitor = models.ActivationMonitor(folder / run, validation=validation)
        model.fit(x, y, verbose=0, validation_data=(x, y), callbacks=[monitor])
        monitors[run] = monitor
    return folder, monitors


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_command_writes_what_the_monitors_have_measured(suffix, logs, tmp_path, capsys):
    """All runs below the folder, with their evaluations, equal to the recordings."""
    needs(suffix)
    folder, monitors = logs
    path = tmp_path / f"numbers{suffix.upper()}"
    assert cli.main(["export", str(folder), "-o", str(path)]) == 0
    assert capsys.readouterr().out == f"Wrote {path}: 2 runs.\n"
    expected = []
    for run, monitor in monitors.items():
        for phase, one in (
            ("training", monitor.recording),
            ("evaluation", monitor.validation_recording),
        ):
            expected += [(run, phase, *row) for row in tidy.rows(one)]
    found = [*READERS[suffix](path)]
    assert_same(found, expected)
    assert {row[1] for row in found if row[0] == "sweep/run2"} == {"training", "evaluation"}
    assert {row[4] for row in found} == {"loss", *records.QUANTITIES}


def test_a_log_of_one_run_is_named_after_its_folder(logs, tmp_path):
    """The column `run` is there with one run as well."""
    folder, _ = logs
    path = tmp_path / "numbers.csv"
    assert cli.main(["export", str(folder / "run1"), "-o", str(path)]) == 0
    assert {row[0] for row in read_csv(path)} == {"run1"}


def test_csv_and_json_need_no_pandas(logs, tmp_path, monkeypatch):
    """They are written by the standard library."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    for suffix in (".csv", ".json"):
        path = tmp_path / f"numbers{suffix}"
        assert cli.main(["export", str(logs[0]), "-o", str(path)]) == 0
        assert len([*READERS[suffix](path)]) > 100


# -- errors


def fails(arguments, capsys):
    """The one line of an export that fails."""
    assert cli.main(["export", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


def test_parquet_without_its_packages_says_what_to_install(
    logs, tmp_path, monkeypatch, capsys
):
    """Before the logs are read."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    line = fails([logs[0], "-o", tmp_path / "numbers.parquet"], capsys)
    assert "a .parquet file needs pandas" in line and "`pip install pandas`" in line
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["numbers.xlsx", "numbers", "numbers.csv.gz"])
def test_an_unknown_suffix_is_an_error_with_those_that_there_are(
    name, logs, tmp_path, capsys
):
    """The message says what came, and a name that works."""
    line = fails([logs[0], "-o", tmp_path / name], capsys)
    assert "--output must end in .csv, .parquet or .json" in line
    assert f"Received: {tmp_path / name}." in line
    assert line.endswith(".csv.")


def test_wrong_paths_are_errors_in_one_line(logs, tmp_path, capsys):
    """A log that is not there, a file as log, a folder as output, a missing folder."""
    folder, _ = logs
    out = tmp_path / "numbers.csv"
    line = fails([tmp_path / "nothing", "-o", out], capsys)
    assert "expected the log folder of an ActivationMonitor" in line
    assert "nothing, which does not exist" in line
    (tmp_path / "file").write_text("")
    assert "which is a file" in fails([tmp_path / "file", "-o", out], capsys)
    assert "which is a folder" in fails([folder, "-o", tmp_path], capsys)
    line = fails([folder, "-o", tmp_path / "missing" / "numbers.csv"], capsys)
    assert f"Create the folder {tmp_path / 'missing'} first." in line
    (tmp_path / "empty").mkdir()
    assert "no snapshots" in fails([tmp_path / "empty", "-o", out], capsys)
    assert not out.exists()


@pytest.mark.filterwarnings("always")
def test_a_log_that_cannot_be_read_is_an_error_that_says_where(tmp_path, capsys):
    """All of it is damaged. What is intact is exported, with a warning in one line."""
    folder, out = tmp_path / "logs", tmp_path / "numbers.csv"
    models.watch(models.perceptron(), *models.data(), log_dir=folder)
    (file,) = (folder / "activations").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) - 40] + b"#" * 40)
    assert cli.main(["export", str(folder), "-o", str(out)]) == 0
    (warning,) = capsys.readouterr().err.splitlines()
    assert "export: warning" in warning and "is damaged at byte" in warning
    assert {row[2] for row in read_csv(out)} == {*read_recording_quietly(folder).steps}
    file.write_bytes(b"#" * len(whole))
    line = fails([folder, "-o", out], capsys)
    assert f"no step in {folder} can be read" in line and "damaged at byte 0" in line


def read_recording_quietly(folder):
    with pytest.warns(UserWarning, match="damaged"):
        return read_recording(folder)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_cannot_be_written_leaves_the_old_one(
    suffix, tmp_path, monkeypatch, capsys
):
    """The new file takes its place only when it is complete."""
    needs(suffix)
    path = tmp_path / f"numbers{suffix}"
    export.write({"run": recording([1.0])}, path)
    before = path.read_bytes()

    def full(snapshots):
        yield from ()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tidy, "rows", full)
    monkeypatch.setattr(tidy, "table", lambda snapshot: next(full(snapshot)))
    with pytest.raises(OSError, match=r"numbers.* cannot be written \(No space left"):
        export.write({"run": recording([2.0])}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_evaluations_are_read_with_their_run(logs):
    """The test above compares something: there are evaluations in the log."""
    folder, monitors = logs
    assert (folder / "sweep" / "run2" / VALIDATION_RUN).is_dir()
    assert len(monitors["sweep/run2"].validation_recording) == 1

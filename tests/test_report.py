"""The report page, its JSON, and the commands that make and compare."""

import base64
import dataclasses
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import board
from activation_monitor import cli
from activation_monitor.analysis import records
from activation_monitor.analysis.diagnosis import diagnose
from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.fix import Change, Fix
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.storage.reader import read_runs
from activation_monitor.storage.writer import EventLog
from activation_monitor.views import report
from activation_monitor.views.figures.colours import DARK, LIGHT, rgb
from activation_monitor.views.in_words import headline
from activation_monitor.views.summary import reference_of, summary
from networks import Drawn, chain, network, tap

HOSTILE = "</script><img src=x onerror=alert(1)>&amp;<b>bold</b>"


def healthy(seed=0, step=0):
    return Drawn(seed).chain(8).snapshot(step)


def vanishing(step=0):
    return Drawn(1).chain(8, variance=0.02).snapshot(step)


def trained_with(dead, step):
    """A healthy network, with this many dead units in its fifth layer."""
    found = healthy(step, step)
    outputs = found.quantities["output"].copy()
    if dead:
        records.field(outputs, "dead_units")[5] = dead
        zeros = dead / found.layers[5].width * records.field(outputs, "counted")[5]
        records.field(outputs, "zeros")[5] = zeros
    return dataclasses.replace(found, quantities={**found.quantities, "output": outputs})


RUNS = {
    "a_vanishing": Recording([vanishing(), vanishing(10)]),
    "b_fine": Recording([healthy(), healthy(1, 10)]),
    "c_fine": Recording([healthy(2), healthy(3, 10)]),
}


def write(folder, recording, run="activations"):
    """Log a recording as a monitor does."""
    log = EventLog(folder, run)
    for snapshot in recording:
        log.write(snapshot)
    log.close()


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A folder with the three runs, one in a deeper folder, one with an evaluation."""
    top = tmp_path_factory.mktemp("logs")
    write(top / "a_vanishing", RUNS["a_vanishing"])
    write(top / "b_fine", RUNS["b_fine"])
    write(top / "b_fine", RUNS["c_fine"], "activations_validation")
    write(top / "deeper" / "c_fine", RUNS["c_fine"])
    (top / "b_fine" / "train").mkdir()
    (top / "b_fine" / "train" / "events.out.tfevents.1.x").write_bytes(b"")
    return top


class Page(HTMLParser):
    """The text of a page, its tags, and its scripts."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.text, self.scripts, self._in = [], "", [], None
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._in = tag

    def handle_endtag(self, tag):
        self._in = None

    def handle_data(self, data):
        if self._in == "script":
            self.scripts.append(data)
        elif self._in != "style":
            self.text += data

    @property
    def figures(self):
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def page():
    """The page of the three runs."""
    return Page(report.page(RUNS, "three runs"))


# -- the page


def test_the_verdict_comes_first(page):
    """One line for all runs, a row for each, then each run with evidence and fix."""
    text = page.text
    finding = diagnose(RUNS["a_vanishing"]).findings[0]
    order = [
        "three runs",
        "Findings in 1 of 3 runs: a_vanishing.",
        "a_vanishing" + "critical: vanishing-activations",
        "initialization",
        finding.fix.changes[0].line,
        "b_fine" + "healthy",
        "Comparison",
        "a_vanishing: critical: vanishing-activations",
        "vanishing-activations (critical, at initialization)",
        "rms of the signal",
        "Cause: initializer.",
        "b_fine: healthy",
        "Healthy: no findings; 2 steps sampled, up to step 10.",
        "What was measured",
    ]
    place = 0
    for part in order:
        place = text.index(part, place)
    assert finding.message in text
    for change in finding.fix.changes:
        assert change.line in text


def test_every_figure_is_there_in_both_themes(page):
    """Each has a place on the page, and the data of the recordings."""
    places = {a["data-figure"] for tag, a in page.tags if "data-figure" in a}
    assert places == set(page.figures)
    kinds = ("depth", "heat", "graph", "layer")
    each = {f"{kind}-{i}" for kind in kinds for i in range(3)}
    assert places == {"comparison", "over-time"} | each
    for both in page.figures.values():
        assert both["light"]["layout"]["paper_bgcolor"] == "#ffffff"
        assert both["dark"]["layout"]["paper_bgcolor"] == "#1e1e1e"


def test_the_layer_of_the_worst_finding_is_compared_over_the_steps():
    """With the statistic that shows the finding, in all runs that have the layer; the run
    with the finding is in front. Each run also has its layer beside the reference."""
    sick = Recording(
        trained_with(dead, step) for step, dead in ((0, 0), (10, 63), (20, 63))
    )
    fine = Recording(trained_with(0, step) for step in (0, 10, 20))
    other = Recording([chain(1.0, 1.0), chain(1.0, 1.0, step=10)])
    drawn = Page(report.page({"a": fine, "b": sick, "c": other}, "")).figures
    over_time = drawn["over-time"]["light"]
    assert over_time["layout"]["title"]["text"] == "dead units of d5 over the steps"
    lines = {t["name"].split(":")[0]: t for t in over_time["data"] if "name" in t}
    assert {*lines} == {"a", "b"}
    drawn_dead = [
        np.mean((Drawn(step).chain(8).tensors["d5"] == 0).all(axis=0))
        for step in (0, 10, 20)
    ]
    np.testing.assert_allclose(json_values(lines["a"]["y"]), drawn_dead)
    expected = [drawn_dead[0], 63 / 64, 63 / 64]
    np.testing.assert_allclose(json_values(lines["b"]["y"]), expected)
    assert lines["b"]["line"]["width"] > lines["a"]["line"]["width"]
    for i, runs in ((0, {"a"}), (1, {"a", "b"}), (2, {"c"})):
        data = drawn[f"layer-{i}"]["light"]["data"]
        shown = {trace.get("line", {}).get("color") for trace in data}
        colours = {run: LIGHT.run(place) for place, run in enumerate("abc")}
        assert {run for run, colour in colours.items() if colour in shown} >= runs, i


def test_one_run_has_its_depth_profile():
    """There is nothing to compare with, and a single run needs no headings."""
    one = Page(report.page({"run": RUNS["b_fine"]}, "one"))
    assert set(one.figures) == {"depth-0", "heat-0", "graph-0", "layer-0"}
    assert "No findings." in one.text


def test_the_figures_of_a_run_show_the_worst_finding():
    """Its statistic, its layers and its step. A healthy run has none of it."""
    sick = Recording(
        trained_with(dead, step) for step, dead in ((0, 0), (10, 63), (20, 63))
    )
    (finding,) = diagnose(sick).findings
    assert finding.code == "dead-units" and finding.step == 10
    drawn = Page(report.page({"a": sick}, "one run")).figures
    title = drawn["finding-0"]["light"]["layout"]["title"]["text"]
    assert title == "dead units over depth"
    names = {trace.get("name") for trace in drawn["finding-0"]["light"]["data"]}
    assert {"step 0", "step 10", "step 20"} <= names
    for key in ("depth-0", "finding-0", "heat-0"):
        assert drawn[key]["dark"]["layout"]["shapes"], key
    assert drawn["heat-0"]["light"]["layout"]["title"]["text"].startswith("dead units")
    title = drawn["graph-0"]["light"]["layout"]["title"]["text"]
    assert title == "Layer graph, dead units at step 10: dead-units found"
    fine = Recording(trained_with(0, step) for step in (0, 10, 20))
    drawn = Page(report.page({"a": fine}, "one run")).figures
    assert "finding-0" not in drawn
    assert "shapes" not in drawn["heat-0"]["light"]["layout"]
    title = drawn["graph-0"]["light"]["layout"]["title"]["text"]
    assert title == "Layer graph, rms at step 0"


def test_no_run_has_two_figures_of_one_heading(page):
    """Each figure of a run shows something else."""
    for place in range(len(RUNS)):
        titles = [
            both["light"]["layout"]["title"]["text"]
            for key, both in page.figures.items()
            if key.endswith(f"-{place}")
        ]
        assert len(titles) == len({*titles}) == 4


def test_the_part_of_a_run_begins_with_what_to_change(page):
    """Its verdict, then the line of its row, in front of the findings."""
    said = headline(diagnose(RUNS["a_vanishing"]))
    part = page.text[page.text.index("a_vanishing: critical") :]
    start = "a_vanishing: critical: vanishing-activationsChange first, "
    assert part.startswith(f"{start}{said.place}:{said.line}1 finding; 2 steps sampled")
    assert page.text.count("Change first") == 1  # healthy runs have nothing to change


def test_runs_with_findings_come_first():
    """Critical, warning, not assessed, healthy, and runs of one kind by name: in the table
    of the runs, in the line above it, and in the parts. The colours do not change."""
    warned = Recording([trained_with(0, 0), trained_with(63, 10), trained_with(63, 20)])
    runs = {
        "a": RUNS["b_fine"],
        "b": Recording([chain(1.0)]),
        "c": warned,
        "d": RUNS["a_vanishing"],
        "e": RUNS["c_fine"],
        "f": RUNS["a_vanishing"],
    }
    kinds = [headline(diagnose(recording)).kind for recording in runs.values()]
    expected = "healthy,not assessed,warning,critical,healthy,critical".split(",")
    assert kinds == expected
    source = report.page(runs, "")
    order = re.findall(r'<td><a href="#run-(\d)">.*?</i>(\w)</a>', source)
    assert order == [("3", "d"), ("5", "f"), ("2", "c"), ("1", "b"), ("0", "a"), ("4", "e")]
    parts = re.findall(r"<summary><i class=.*?</i>(\w):", source)
    assert "".join(parts) == "".join(run for _, run in order)
    assert "Findings in 3 of 6 runs: d, f, c." in source
    colours = re.findall(r"light-dark\((#\w+), #\w+\)\"></i>(\w)", source)
    assert {run: colour for colour, run in colours} == {
        run: LIGHT.run(place) for place, run in enumerate(runs)
    }


@pytest.mark.parametrize(
    ("runs", "why"),
    [
        ("abc", "b, the first healthy run by name."),
        ("ad", "d, the first run by name without findings; no run is healthy."),
        ("ae", "a, the first run by name; all have findings."),
    ],
)
def test_the_page_says_which_run_is_the_reference_and_why(runs, why):
    """Below the heading of the comparison, which names it as well."""
    every = dict(zip("abc", RUNS.values(), strict=True))
    every |= {"d": Recording([chain(1.0)]), "e": RUNS["a_vanishing"]}
    text = Page(report.page({run: every[run] for run in runs}, "")).text
    head = f"Comparison with the reference {why[0]}\nThe reference is {why} --reference RUN"
    assert head in text
    chosen = Page(report.page({run: every[run] for run in runs}, "", "a")).text
    assert "The reference is a, which was chosen. " in chosen


def test_runs_with_gradients_and_updates_have_figures_of_them():
    """In one figure below the outputs, and of their own."""
    taps = [tap(f"d{i}", 1.0, gradient=10.0**-i) for i in range(1, 4)]
    forward = network(*taps)
    kernels = np.stack([records.measure([[1.0], [-1.0]])] * 3)
    updates = records.scaled(kernels, 1e-3)
    quantities = {**forward.quantities, "weight": kernels, "weight_update": updates}
    trained = Recording([dataclasses.replace(forward, quantities=quantities)])
    one = Page(report.page({"a": trained}, "one run"))
    kinds = ("depth", "heat", "graph", "layer", "updates")
    assert set(one.figures) == {f"{kind}-0" for kind in kinds}
    (line, *_) = one.figures["updates-0"]["light"]["data"]
    np.testing.assert_allclose(json_values(line["y"]), [1e-3])
    both = Page(report.page({"a": trained, "b": RUNS["b_fine"]}, "two runs")).figures
    assert {"depth-0", "updates-0"} <= set(both)
    assert "updates-1" not in both
    below = [t for t in both["depth-0"]["light"]["data"] if t.get("yaxis") == "y2"]
    np.testing.assert_allclose(json_values(below[0]["y"]), [1e-1, 1e-2, 1e-3])


def json_values(written):
    """Numbers as plotly writes them into JSON: a list, or the bytes of an array."""
    if isinstance(written, dict):
        return np.frombuffer(base64.b64decode(written["bdata"]), written["dtype"])
    return written


def test_what_differs_is_held_against_the_healthy_run(page):
    """The reference is the first healthy run, in any position."""
    start = page.text.index("What differs from the reference b_finea_vanishing")
    assert page.text.index("c_fine", start) < page.text.index("a_vanishing: critical")
    assert reference_in(page) == "b_fine"


def reference_in(page):
    """The run that is named as the reference at the end of its line."""
    notes = page.figures["comparison"]["light"]["layout"]["annotations"]
    (text,) = (note["text"] for note in notes if "(reference)" in note["text"])
    return re.sub(r"(<br>|\s)*\(reference\)", "", text)


def test_the_reference_can_be_chosen():
    """A run with findings as well. Figures, differences and JSON follow; colours stay."""
    chosen = Page(report.page(RUNS, "three runs", "a_vanishing"))
    assert reference_in(chosen) == "a_vanishing"
    assert "What differs from the reference a_vanishingb_fine" in chosen.text
    assert summary(RUNS, "c_fine")["reference"] == "c_fine"
    assert set(summary(RUNS, "c_fine")["differences"]) == {"a_vanishing", "b_fine"}
    for name in (None, "a_vanishing"):
        drawn = Page(report.page(RUNS, "", name)).figures["comparison"]["light"]["data"]
        lines = {
            trace["name"].split(",")[0]: trace["line"]["color"]
            for trace in drawn
            if trace.get("line", {}).get("color") and "name" in trace
        }
        expected = {run: LIGHT.run(place) for place, run in enumerate(RUNS)}
        assert lines == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["findings", "healthy", "healthy"], "b"),
        (["findings", "not assessed", "healthy"], "c"),
        (["findings", "not assessed", "findings"], "b"),
        (["findings", "findings", "findings"], "a"),
    ],
)
def test_the_reference_is_the_first_run_with_the_best_verdict(verdicts, expected):
    """Healthy is better than not assessed, and that is better than findings."""
    snapshots = {"healthy": [healthy()], "not assessed": [chain(1.0)]}
    snapshots["findings"] = [vanishing()]
    diagnoses = {
        name: diagnose(snapshots[verdict])
        for name, verdict in zip("abc", verdicts, strict=True)
    }
    assert [found.verdict for found in diagnoses.values()] == verdicts
    assert reference_of(diagnoses) == expected


def test_an_unknown_reference_is_an_error(logs, tmp_path, capsys):
    """With the name that was probably meant, and without a page."""
    with pytest.raises(ValueError, match="Did you mean 'b_fine'"):
        report.page(RUNS, "", "b_fin")
    output = tmp_path / "page.html"
    arguments = ["report", str(logs), "-o", str(output), "--reference", "c_fine"]
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert said == (
        "activation-monitor report: no run named 'c_fine'. Did you mean 'deeper/c_fine'? "
        "The reference must be a run of the report.\n"
    )
    assert not output.exists()
    assert cli.main([*arguments[:-1], "deeper/c_fine"]) == 0
    assert reference_in(Page(output.read_text(encoding="utf-8"))) == "deeper/c_fine"


def test_the_table_has_every_layer_with_its_figures(page):
    """Three digits, at the first and at the last step."""
    net = Drawn(0).chain(8)
    for name in ("d1", "d8"):
        assert f"{np.sqrt(np.mean(net.tensors[name] ** 2)):.3g}" in page.text
    rows = [a["class"] for tag, a in page.tags if tag == "tr" and "class" in a]
    # And one in the table of the runs.
    assert len(rows) == 3 * (1 + len(RUNS["a_vanishing"][0].layers))
    named = diagnose(RUNS["a_vanishing"]).findings[0].layers
    assert rows.count("critical") == 1 + len(named)


def test_the_page_needs_no_network(page):
    """It loads no script, style, image or font. Plotly is part of it."""
    for tag, attributes in page.tags:
        assert tag not in ("img", "iframe", "object", "embed")
        assert "src" not in attributes
        href = attributes.get("href", "data:,")
        assert href == "data:," or href.startswith("#run-")
    assert any("plotly.js v" in script for script in page.scripts)


def test_hostile_names_stay_text():
    """Names of layers, classes, initializers and runs, and the title. None ends the
    script."""
    info = {"class_name": HOSTILE, "initializer": HOSTILE, "activation": HOSTILE}
    taps = [tap(f"{HOSTILE}{i}", 10.0**i, **info) for i in range(6)]
    steps = Recording([network(*taps, step=i) for i in range(2)])
    source = report.page({HOSTILE: steps, f"{HOSTILE}2": steps}, HOSTILE)
    found = Page(source)
    kinds = {tag for tag, _ in found.tags}
    assert kinds.isdisjoint({"img"}) and not any("onerror" in a for _, a in found.tags)
    assert found.text.count(HOSTILE) > 20
    assert len(found.scripts) >= 3 and len(found.figures) == 10
    before_plotly = source[: source.index("plotly.js v")]
    assert "<img" not in before_plotly and before_plotly.count("</script>") == 1


def test_a_page_of_nothing_is_an_error():
    """No run, or a run without a snapshot."""
    with pytest.raises(ValueError, match="Received: no run"):
        report.page({}, "x")
    with pytest.raises(ValueError, match="Received: no snapshot in a"):
        summary({"a": Recording()})


# -- for programs


def test_the_json_says_what_the_page_says():
    """Verdict, growth, findings and layers, as strict JSON."""
    found = json.loads(json.dumps(summary(RUNS), allow_nan=False))
    assert found["format"] == 3 and not found["healthy"]
    assert found["reference"] == "b_fine"
    assert set(found["differences"]) == {"a_vanishing", "c_fine"}
    assert found["differences"]["c_fine"] == [] or all(
        "last step" in line for line in found["differences"]["c_fine"]
    )
    run = found["runs"]["a_vanishing"]
    (expected,) = diagnose(RUNS["a_vanishing"]).findings
    (finding,) = run["findings"]
    assert finding["code"] == "vanishing-activations" == expected.code
    assert finding["layers"] == list(expected.layers)
    assert finding["evidence"] == expected.evidence
    assert finding["changes"][0]["line"] == expected.fix.changes[0].line
    net = Drawn(1).chain(8, variance=0.02)
    size = {name: math.sqrt(np.mean(x**2)) for name, x in net.tensors.items()}
    growth = (size["d8"] / size["d1"]) ** (1 / 7)
    np.testing.assert_allclose(run["growth"]["per_layer"], growth, rtol=1e-6)
    assert (run["growth"]["from"], run["growth"]["to"]) == ("d1", "d8")
    layer = run["layers"][2]
    assert (layer["name"], layer["depth"]) == ("d2", 2)
    np.testing.assert_allclose(layer["first"]["rms"], size["d2"])


def test_json_has_none_for_what_is_no_number():
    """JSON has no NaN and no infinity."""
    recording = Recording([chain(1.0, math.nan), network(tap("x"), step=2)])
    found = summary({"run": recording})
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text)["runs"]["run"]["layers"][1]["last"]["rms"] is None


# -- log folders


def test_all_runs_below_a_folder_are_read(logs):
    """By the path of the log folder. Evaluations and files of other writers are left
    out."""
    runs = read_runs(logs)
    assert list(runs) == ["a_vanishing", "b_fine", "deeper/c_fine"]
    for name, recording in zip(runs, RUNS.values(), strict=True):
        assert runs[name].steps == recording.steps
        np.testing.assert_array_equal(runs[name][1].records(), recording[1].records())


@pytest.mark.parametrize("where", [".", "activations"])
def test_a_log_folder_alone_is_a_run(logs, where):
    """It has the name of the log folder, which may be given, or the run folder in it."""
    (name,) = read_runs(logs / "a_vanishing" / where)
    assert name == ("a_vanishing" if where == "." else "activations")


def test_a_folder_without_runs_is_an_error(tmp_path):
    """The message says what the folder contains."""
    with pytest.raises(FileNotFoundError, match=f"Received: {tmp_path}, which is empty"):
        read_runs(tmp_path)


# -- the commands


VERDICTS = """\
a_vanishing: findings: vanishing-activations
b_fine: healthy
deeper/c_fine: healthy
"""


@pytest.mark.smoke
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_report_command_writes_a_file_and_prints_the_verdict_of_every_run(
    options, logs, tmp_path, capsys
):
    """To the given file, with exit code 0 also if there are findings."""
    output = tmp_path / "report"
    assert cli.main(["report", str(logs), "-o", str(output), *options]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"Wrote {output}.\n{VERDICTS}"
    assert captured.err == ""
    content = output.read_text(encoding="utf-8")
    if options:
        assert json.loads(content) == summary(read_runs(logs))
    else:
        assert "Findings in 1 of 3 runs: a_vanishing." in Page(content).text


@pytest.mark.parametrize(
    ("findings", "snapshots", "verdict"),
    [
        ((), [chain(1.0, 1.0)], "healthy"),
        (("dead-units", "mean-shift"), [], "findings: dead-units, mean-shift"),
        ((), [chain(1.0)], "not assessed"),
        ((), [], "not assessed"),
    ],
)
def test_a_verdict_is_one_of_three(findings, snapshots, verdict):
    """A run without measurements is not healthy."""
    found = tuple(Finding(code, "warning", 0, (), {}, "") for code in findings)
    diagnosis = dataclasses.replace(diagnose(snapshots), findings=found)
    assert cli._verdict(diagnosis) == verdict


def test_the_verdict_of_a_finding_that_is_over_says_so():
    """In the terminal, and only for that finding."""
    over = Finding("dead-units", "warning", 0, (), {}, "", recovered=70)
    now = Finding("mean-shift", "warning", 0, (), {}, "")
    diagnosis = dataclasses.replace(diagnose([]), findings=(over, now))
    said = cli._verdict(diagnosis)
    assert said == "findings: dead-units (recovered at step 70), mean-shift"


def test_the_report_command_prints_json(logs, capsys):
    """And nothing else, because a program reads it."""
    assert cli.main(["report", str(logs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == summary(read_runs(logs))


@pytest.mark.parametrize("command", ["report", "compare"])
def test_a_log_folder_that_cannot_be_read_is_exit_code_2(command, logs, tmp_path, capsys):
    """With one line that says what is there instead, and without a page."""
    file = tmp_path / "notes.txt"
    file.write_text("x")
    output = ["-o", str(tmp_path / "page.html")] if command == "report" else []
    for where, message in [
        (tmp_path / "missing", "which does not exist."),
        (file, f"which is a file. Pass the folder that contains it: {tmp_path}."),
        (tmp_path, "with no event file in it."),
    ]:
        runs = (
            [str(where)] if command == "report" else [str(logs / "a_vanishing"), str(where)]
        )
        assert cli.main([command, *runs, *output]) == 2
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        assert line.startswith(f"activation-monitor {command}: ")
        assert "read_" not in line and line.endswith(f"Received: {where}, {message}")
        assert captured.out == ""
    assert [*tmp_path.iterdir()] == [file]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", "--output must be a file. Received: {0}, which is a folder. Use, for "),
        ("no/page.html", "--output must be a file in an existing folder. Received: {0}"),
        ("/dev/full", "/dev/full cannot be written (No space left on device)."),
    ],
)
def test_an_output_that_cannot_be_written_is_exit_code_2(
    output, message, logs, tmp_path, capsys
):
    """With one line that says what to pass instead."""
    if output == "/dev/full" and not Path(output).exists():
        pytest.skip("needs Linux")
    path = tmp_path / output
    assert cli.main(["report", str(logs), "-o", str(path)]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith(f"activation-monitor report: {message.format(path)}")
    assert captured.out == ""


def damaged(folder, recording):
    """The file of a log whose last step is damaged."""
    write(folder, recording)
    (path,) = (folder / "activations").iterdir()
    content = bytearray(path.read_bytes())
    content[-40] ^= 1  # in the last record's data
    path.write_bytes(content)
    return path


@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize("command", ["report", "compare"])
def test_a_damaged_log_is_told_in_one_line_and_read_all_the_same(command, tmp_path, capsys):
    """On stderr, without the line of code that warned. The damage does not change the exit
    code."""
    path = damaged(tmp_path / "bad", RUNS["b_fine"])
    runs = [str(tmp_path / "bad")]
    more = runs if command == "compare" else ["-o", str(tmp_path / "page.html")]
    assert cli.main([command, *runs, *more]) == 0
    captured = capsys.readouterr()
    for line in captured.err.splitlines():
        start = f"activation-monitor {command}: warning: {path} is damaged at byte "
        assert line.startswith(start)
        assert line.endswith(": 1 step read. If it is a copy, copy it again.")
    assert captured.err
    assert ("bad: healthy" in captured.out) == (command == "report")


def test_the_compare_command_tells_by_its_exit_code(logs, tmp_path, capsys):
    """0 without differences, 1 with differences, 2 if the runs cannot be compared."""
    a, b = str(logs / "a_vanishing"), str(logs / "b_fine")
    assert cli.main(["compare", a, a]) == 0
    assert "No difference between" in capsys.readouterr().out
    assert cli.main(["compare", b, a]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "rms at the first step, of" in printed
    assert "from d1 (depth 1) on" in printed
    assert "vanishing-activations" in printed
    assert cli.main(["compare", a, str(tmp_path)]) == 2
    assert "activation-monitor compare: no snapshots." in capsys.readouterr().err


# -- in a browser


def browser(*arguments):
    """The output of headless Chromium, and its console."""
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    flags += " --disable-background-networking --disable-component-update --disable-sync"
    flags += " --enable-logging=stderr --virtual-time-budget=20000"
    run = subprocess.run(
        ["chromium", *flags.split(), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    console = re.findall(r"CONSOLE.*", run.stderr)
    return run.stdout, console


@pytest.mark.skipif(
    shutil.which("chromium") is None,
    reason="needs Debian's chromium: apt-get install chromium",
)
@pytest.mark.parametrize("hostile", [False, True])
def test_the_page_draws_in_a_browser_from_a_file(tmp_path, hostile):
    """Each figure is drawn, no name becomes an element, and the console is empty."""
    runs = RUNS
    if hostile:
        taps = [tap(f"{HOSTILE}{i}", 10.0**i) for i in range(6)]
        steps = Recording([network(*taps, step=i) for i in range(2)])
        runs = {HOSTILE: steps, f"{HOSTILE}2": steps}
    source = report.page(runs, HOSTILE)
    # Without a window, no figure comes near: printing draws them all.
    shown = f"{source}<script>dispatchEvent(new Event('beforeprint'))</script>"
    (tmp_path / "page.html").write_text(shown, encoding="utf-8")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    dom, console = browser(profile, "--dump-dom", f"file://{tmp_path}/page.html")
    assert console == []
    drawn = re.findall(r'class="figure js-plotly-plot" data-figure="([^"]+)"', dom)
    assert set(drawn) == set(Page(source).figures)
    assert "<img" not in dom[: dom.index('id="figures"')]
    assert not re.search(r"<b>bold", dom[: dom.index('id="figures"')])


LOOK = """
const printed = [...document.querySelectorAll("[data-figure]")];
const wide = [...document.querySelectorAll(".wide")];
const of = (css) => getComputedStyle(document.body)[css];
return {
  paper: of("backgroundColor"),
  drawn: printed.filter((place) => place.data).length,
  papers: [...new Set(printed.filter((p) => p.data).map((p) => p.layout.paper_bgcolor))],
  widths: [...new Set(printed.filter((p) => p.data).map((p) => p._fullLayout.width))],
  closed: document.querySelectorAll("details:not([open])").length,
  cut: wide.filter((w) => w.scrollHeight > w.clientHeight + 2).length,
  sticky: wide.filter(
    (w) => getComputedStyle(w.querySelector("th")).position === "sticky").length,
  broken: document.documentElement.scrollWidth > innerWidth,
};
"""

ROWS = """
const lines = (text) => {
  const range = document.createRange();
  range.selectNodeContents(text);
  return new Set([...range.getClientRects()].map((line) => line.top)).size;
};
const seen = (element) => element.getClientRects().length > 0;
return [...document.querySelectorAll(".part")].map((part) => ({
  names: [...part.querySelectorAll(".wide tbody tr")].filter(seen).map((row) =>
    [row.cells[0].textContent, ...[...row.cells[0].childNodes]
      .filter((node) => node.nodeType === 3).map(lines)]),
  said: [...part.querySelectorAll(".on-paper")].filter(seen).map((p) => p.textContent),
}));
"""


@pytest.fixture(scope="module")
def open_page(tmp_path_factory):
    """The page of runs with 60 layers of long names, in a browser."""
    if board.why_no_browser():
        pytest.skip(board.why_no_browser())
    names = [f"net/encoder/{'block/' * 8}{i}" for i in range(60)]
    names[0] = names[0].replace("block/", "block_")
    deep = network(*(tap(name) for name in names))
    steps = Recording([deep, dataclasses.replace(deep, step=10)])
    source = report.page({**RUNS, "deep": steps}, "title")
    path = tmp_path_factory.mktemp("report") / "page.html"
    path.write_text(source, encoding="utf-8")
    with board.browser(1024, 768) as driver:
        driver.get(f"file://{path}")
        yield driver, len(Page(source).figures)


def test_a_printed_page_is_light_open_and_not_cut(open_page):
    """All parts are open, all figures are drawn in the width of the paper, and no table
    scrolls. Afterwards, the page is as before."""
    driver, count = open_page
    driver.execute_script("document.querySelector('[value=dark]').click()")
    before = driver.execute_script(LOOK)
    assert before["closed"] > 0 and before["cut"] == 1 and before["drawn"] < count
    assert before["paper"] == "rgb(30, 30, 30)" and before["papers"] == ["#1e1e1e"]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    driver.set_window_size(703, 1032)  # A4 at 96 dots per inch, between the margins
    driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    during = driver.execute_script(LOOK)
    assert during["closed"] == during["cut"] == during["sticky"] == 0
    assert during["drawn"] == count and during["widths"] == [700]
    assert during["paper"] == "rgb(255, 255, 255)" and during["papers"] == ["#ffffff"]
    assert not during["broken"]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    driver.set_window_size(1024, 768)
    driver.execute_script("dispatchEvent(new Event('afterprint'))")
    after = driver.execute_script(LOOK)
    assert {**after, "drawn": 0, "widths": 0} == {**before, "drawn": 0, "widths": 0}
    assert 700 not in after["widths"]


def test_a_printed_table_of_many_layers_has_the_worst_ten(open_page):
    """As in the terminal, and the page says so. No name is broken but after a slash. The
    screen has all layers."""
    driver, _ = open_page
    for media, count in (("print", 10), ("", 60)):
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media})
        driver.set_window_size(703 if media else 1024, 1032)
        driver.execute_script("dispatchEvent(new Event('beforeprint'))")
        *small, deep = driver.execute_script(ROWS)
        driver.execute_script("dispatchEvent(new Event('afterprint'))")
        assert [len(part["names"]) for part in small] == [10, 10, 10]
        assert [part["said"] for part in small] == [[], [], []]
        assert len(deep["names"]) == count
        for name, *lines in (*deep["names"][1:], *small[0]["names"]):
            assert lines == [1] * (1 + name.count("/"))
        said = "10 of 60 layers: those of the findings, then those whose rms has changed "
        said += "most. The page on a screen has all layers."
        assert deep["said"] == ([said] if media else [])


def test_the_first_printed_page_is_full(open_page):
    """What differs from the reference is in front of the figures, and the first figure is
    low, to fit below. Two of the others fit on a page."""
    driver, _ = open_page
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    heights = driver.execute_script(
        "return [...document.querySelectorAll('.figure')].map((f) => f.offsetHeight)"
    )
    first = driver.execute_script(
        "return document.querySelector('h2 + p').nextElementSibling.innerText"
    )
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    driver.execute_script("dispatchEvent(new Event('afterprint'))")
    assert first.startswith("What differs from the reference")
    assert heights[0] == 400
    margin, page = 2 * 8 + 8, 1032  # A4 at 96 dots per inch, between the margins
    assert 2 * max(heights) + margin <= page


def test_the_switch_goes_before_the_theme_of_the_browser(open_page):
    """Light, dark, and back to that of the browser, for the page and for its figures."""
    driver, _ = open_page
    for browser_theme in ("light", "dark"):
        media = [{"name": "prefers-color-scheme", "value": browser_theme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        for choice in ("light", "dark", ""):
            driver.execute_script(
                "document.querySelector(`[name=theme][value='${arguments[0]}']`).click()",
                choice,
            )
            seen = driver.execute_script(LOOK)
            theme = LIGHT if (choice or browser_theme) == "light" else DARK
            assert seen["papers"] == [theme.paper]
            assert seen["paper"] == f"rgb({', '.join(map(str, rgb(theme.paper)))})"
    assert driver.get_log("browser") == []


# -- a diagnosis in one row


def row_of(*findings):
    """The row of a run with these findings; of a healthy one without."""
    return headline(dataclasses.replace(diagnose([healthy()]), findings=findings))


def test_a_row_says_what_where_since_when_and_what_to_change():
    """Of the worst finding, not the change of another one. A finding that is over says when
    it ended and comes last, and a healthy run says nothing but that."""
    change = Change("in", "clipnorm=1.0", ("a", "b", "c"), "a bound")
    warning = Finding("dead-units", "warning", 20, ("d1",), {}, "", initial=False)
    fixed = dataclasses.replace(warning, fix=Fix("learning rate", "", (change,)))
    worst = Finding("mean-shift", "critical", 0, ("d1", "d2", "d3"), {}, "")
    assert row_of(fixed, worst) == (
        "critical",
        "critical: mean-shift and 1 more",
        "d3 and 2 more",
        "initialization",
        *("", ""),
    )
    assert row_of(fixed)[-2:] == ("in a and 2 more", "clipnorm=1.0  # a bound")
    assert row_of(dataclasses.replace(warning, recovered=50)) == (
        *("warning", "warning: dead-units (recovered at step 50)", "d1", "step 20"),
        *("", ""),
    )
    over = dataclasses.replace(worst, recovered=60)
    assert row_of(over).verdict == "critical: mean-shift (recovered at step 60)"
    assert row_of(fixed, over).verdict == "warning: dead-units and 1 more"
    assert row_of() == ("healthy", "healthy", "", "", "", "")
    assert headline(diagnose([chain(1.0)])).kind == "not assessed"

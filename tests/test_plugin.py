"""TensorBoard's tab: its routes with both loaders, its page in a real browser."""

import dataclasses
import json
import re
import shutil
import struct
import subprocess
import sys
import time
import urllib.request
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tensorboard import context
from tensorboard.data import provider
from tensorboard.plugins import base_plugin
from werkzeug import test, wrappers

import board
from activation_monitor import diagnose, read_recording
from activation_monitor.analysis import histogram, records
from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.snapshot import LayerInfo, Recording, Snapshot
from activation_monitor.storage import log_format, plugin_name, writer
from activation_monitor.views.plugin import runs, tab

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"
NEWER = log_format.VERSION + 1
STATIC = ROOT / "activation_monitor" / "views" / "plugin" / "static"
OUTPUTS = log_format.RECORDS_TAGS[records.OUTPUT]
SHRINKING = "shrinking/activations"
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "a&b=c#d?e%2e%2e/../../etc/passwd",
    '"quoted" \\ \u202eright to left\u2028',
    "__proto__",
]
"""Names that a page, a path or a figure may take for something else."""


def chain(names, width=64):
    """A chain of ReLU layers after an input layer."""
    first = LayerInfo("given", "InputLayer", "input", "linear", width, "float32", ())
    return first, *(
        LayerInfo(
            *(name, "Dense", "weight", "relu", width, "float32", (i,)),
            fan_in=width,
            initializer="RandomNormal()",
        )
        for i, name in enumerate(names)
    )


LAYERS = chain([f"net/dense_{i}" for i in range(12)])


def measured(layers, step, gain=1.0, samples=64, rng=None):
    """A snapshot of a random network with these layers, whose signal grows by `gain`."""
    rng = rng or np.random.default_rng(step)
    found, histograms = [], histogram.none(len(layers))
    kernels = records.empty(len(layers))
    kernels[1:] = records.measure(rng.standard_normal((64, 64)) * gain * np.sqrt(2 / 64))
    for i in range(len(layers)):
        x = rng.standard_normal((samples, 64)) * gain**i * (1 + 0.001 * step)
        x = np.maximum(x, 0) * np.sqrt(2) if i else x
        found.append(records.measure(x, "relu" if i else "linear"))
        counts, _ = np.histogram(x, histogram.BUCKETS)
        histograms[i] = [1, x.min(), x.max(), *counts]
    return Snapshot(
        step,
        layers,
        {"output": np.stack(found), "weight": kernels},
        {"output": histograms},
    )


def write(folder, steps, layers=LAYERS, gain=1.0, run=log_format.RUN):
    """Write a log with these steps."""
    log = writer.EventLog(folder, run)
    for step in steps:
        log.write(measured(layers, step, gain))
    log.close()
    return folder


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A log folder with all kinds of runs."""
    folder = tmp_path_factory.mktemp("logs")
    write(folder / "healthy", range(0, 300, 2))
    write(folder / "shrinking", range(30), gain=0.2)
    write(folder / "twofits", range(50))
    time.sleep(1.1)  # the names of the files differ by the second
    write(folder / "twofits", range(30, 40), chain(["other/a", "other/b", "other/c"]))
    write(folder / "hostile" / "x&y=z#<b>", [0, 1], chain(HOSTILE))
    (path,) = (write(folder / "half", range(40)) / log_format.RUN).iterdir()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    (folder / "empty" / log_format.RUN).mkdir(parents=True)
    (folder / "empty" / log_format.RUN / path.name).write_bytes(b"")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(log_format, "VERSION", NEWER)
        write(folder / "newer", range(3))
    return folder


@pytest.fixture(scope="module", params=[*board.LOADERS])
def client(logs, request):
    """The tab on that folder, with each of TensorBoard's loaders."""
    made = board.Client(logs, request.param)
    made.wait_for("healthy/activations", step=298)
    made.wait_for(
        *(f"{run}/activations" for run in ("shrinking", "half", "twofits", "newer"))
    )
    made.wait_for("hostile/x&y=z#<b>/activations", step=1)
    return made


# -- loading it


def loaded_by(code):
    """The modules that a fresh interpreter has loaded after this code."""
    code += "\nimport sys\nprint(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in run.stdout.splitlines()[-1].split()}


LOAD = """
from activation_monitor.views.plugin.entry import Loader
Loader().fix_flags(object())
"""


def test_loading_the_entry_point_loads_no_framework():
    """TensorBoard loads it at its start, for every user."""
    heavy = {"tensorflow", "keras", "plotly", "scipy", "rich"}
    assert loaded_by(LOAD) & heavy == set()


@pytest.mark.parametrize("heavy", ["plotly", "scipy", "keras"])
def test_the_check_of_what_is_loaded_would_notice(heavy):
    """The test above can fail."""
    assert heavy in loaded_by(f"{LOAD}import {heavy}")


def test_the_entry_point_is_declared_and_is_the_loader():
    """In pyproject.toml, under the name of the plugin."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["tensorboard_plugins"]
    assert declared == {plugin_name.PLUGIN: "activation_monitor.views.plugin.entry:Loader"}
    assert plugin_name.PLUGIN == "activation_monitor"


@pytest.mark.parametrize(
    ("given", "kept"),
    [({}, {"activation_monitor": 0}), ({"activation_monitor": 7}, None)],
)
def test_all_steps_are_kept_unless_the_user_says_otherwise(given, kept):
    """For TensorBoard, 0 means all steps."""
    from activation_monitor.views.plugin.entry import Loader

    class Flags:
        samples_per_plugin = dict(given)

    Loader().fix_flags(Flags)
    assert Flags.samples_per_plugin == (given if kept is None else kept)


@pytest.mark.parametrize("flags", [None, object()])
def test_flags_of_another_tensorboard_do_no_harm(flags):
    """An error here would end every TensorBoard on the machine."""
    from activation_monitor.views.plugin.entry import Loader

    Loader().fix_flags(flags)


# -- the routes


def test_tensorboard_shows_the_tab(client):
    """With its name and the script of its page."""
    listing = client.page("/data/plugins_listing").json["activation_monitor"]
    assert listing["enabled"]
    assert listing["tab_name"] == "Activations"
    assert listing["loading_mechanism"]["module_path"].endswith(
        "/data/plugin/activation_monitor/index.js"
    )


def test_runs_are_listed_by_name_with_the_last_step_of_each(client):
    """Empty runs are not listed. The order is the same at every start."""
    found = {run["name"]: run["state"][0] for run in client.json("runs")["runs"]}
    assert list(found) == sorted(found)
    assert found["healthy/activations"] == 298
    assert "newer/activations" in found
    assert "empty/activations" not in found


def test_every_step_is_there(client):
    """All 150 steps, although TensorBoard keeps 10 or 100 by default."""
    run = client.json("run", run="healthy/activations")
    assert run["steps"] == [*range(0, 300, 2)]
    assert run["problem"] == run["note"] == ""
    assert run["label"] == "healthy"
    assert [layer["name"] for layer in run["layers"]] == [la.name for la in LAYERS]
    assert [layer["depth"] for layer in run["layers"]] == [*range(13)]


@pytest.mark.parametrize("name", ["healthy", "shrinking", "half", "twofits"])
def test_a_run_is_read_and_judged_as_from_its_file(client, logs, name):
    """The tab and `read_recording` read the same files in different ways."""
    recording = read_recording(logs / name)
    run = client.json("run", run=f"{name}/activations")
    assert run["steps"] == recording.steps
    expected = diagnose(recording).findings
    assert run["worst_layer"] == diagnose(recording).worst_layer
    severities = {layer["name"]: layer["severity"] for layer in run["layers"]}
    worst = diagnose(recording).worst_by_layer
    assert {name: s for name, s in severities.items() if s} == {
        name: finding.severity for name, finding in worst.items()
    }
    assert [finding["code"] for finding in run["findings"]] == [f.code for f in expected]
    for told, finding in zip(run["findings"], expected, strict=True):
        assert told["message"] == finding.message
        assert told["layers"] == [*finding.layers]
        assert told["step"] == finding.step
        shown_by, in_words = told.pop("shown_by"), told.pop("in_words")
        assert told.pop("worst_layer") == finding.layers[-1]  # the smallest signal
        assert dict(in_words)["growth per layer"] == "0.2001 times"
        assert told == json.loads(json.dumps(finding.to_dict()))
        assert shown_by == "rms"


def test_the_shrinking_run_has_a_finding_and_the_healthy_one_has_none(client):
    """The runs are what their names say."""
    (finding,) = client.json("run", run=SHRINKING)["findings"]
    assert finding["code"] == "vanishing-activations"
    assert finding["evidence"]
    assert client.json("run", run="healthy/activations")["findings"] == []


def test_of_two_fits_in_one_run_the_later_holds(client, logs):
    """From its first step on, with its own layers."""
    run = client.json("run", run="twofits/activations")
    assert run["steps"] == [*range(40)]
    names = {layer["name"] for layer in run["layers"]}
    assert {"net/dense_0", "other/a"} <= names
    figure = figured(client, "layer_over_time", run="twofits/activations", layer="other/a")
    (mean,) = (t for t in figure["data"] if t["name"] == "twofits: mean")
    values = read_recording(logs / "twofits").statistic("mean", "other/a")
    assert np.isnan(values[:30]).all() and np.isfinite(values[30:]).all()
    assert np.isnan(array(mean["y"])[:30]).all()
    said = [text.partition("mean ")[2] for text in mean["hovertext"][30:]]
    np.testing.assert_allclose(np.array(said, float), values[30:], rtol=1e-3)


def test_a_run_of_a_newer_format_says_so_and_the_others_are_shown(client):
    """The message says what to do."""
    run = client.json("run", run="newer/activations")
    assert f"format {NEWER}" in run["problem"] and "Install a newer" in run["problem"]
    assert run["steps"] == []
    answer = client.get("figure", kind="heat_map", run="newer/activations")
    assert answer.status_code == 404


def array(values):
    """Numbers of a figure, which plotly writes as a list or in base64."""
    if isinstance(values, list):
        return np.array(values, float)
    import base64

    found = np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"])
    return found.astype(float)


def figured(client, kind, **query):
    """A figure as the page receives it."""
    return client.json("figure", kind=kind, **query)


@pytest.mark.parametrize(
    ("kind", "query"),
    [
        ("depth_profile", {"statistic": "std"}),
        ("heat_map", {"statistic": "mean"}),
        ("layer_over_time", {"layer": "net/dense_3"}),
        ("histogram_over_time", {"layer": "net/dense_3"}),
        ("layer_graph", {}),
        ("comparison", {"run": ["healthy/activations", "half/activations"]}),
    ],
)
@pytest.mark.parametrize("dark", ["0", "1"])
def test_every_figure_is_there_in_light_and_dark(client, kind, query, dark):
    """As JSON of plotly, in the requested colours."""
    query = {"run": "healthy/activations", "dark": dark, **query}
    figure = figured(client, kind, **query)
    assert figure["data"]
    paper = figure["layout"]["paper_bgcolor"]
    assert paper == ("#1e1e1e" if dark == "1" else "#ffffff")


def test_the_profile_is_that_of_the_step_asked_for(client, logs):
    """It also shows the first step. A step that was not sampled shows the one before it."""
    recording = read_recording(logs / "healthy")
    asked = {"run": "healthy/activations", "statistic": "rms", "step": 101}
    named = {
        trace.get("name"): trace
        for trace in figured(client, "depth_profile", **asked)["data"]
    }
    curves = [named[f"healthy, step {step}"] for step in (0, 100)]
    for trace, snapshot in zip(curves, (recording[0], recording[50]), strict=True):
        expected = np.sqrt(records.field(snapshot.records(), "second_moment"))
        y = array(trace["y"])
        np.testing.assert_allclose(y[: len(expected)], expected, rtol=1e-12)


@pytest.mark.parametrize("statistic", ["rms", "zero_fraction"])
@pytest.mark.parametrize(("asked", "shown"), [(None, 298), (0, 0), (101, 100)])
def test_the_graph_is_that_of_the_step_and_the_statistic_asked_for(
    client, logs, statistic, asked, shown
):
    """Defaults to the last step. A step that was not sampled shows the one before it."""
    query = {"run": "healthy/activations", "statistic": statistic}
    query |= {} if asked is None else {"step": asked}
    figure = figured(client, "layer_graph", **query)
    words = statistic.replace("_", " ")
    title = f"Layer graph, {words} at step {shown}"
    assert figure["layout"]["title"]["text"] == title
    expected = read_recording(logs / "healthy")[shown // 2].statistic(statistic)
    expected = np.log10(expected) if statistic == "rms" else expected
    found = array(figure["data"][-1]["marker"]["color"])
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def colours_of(figure, run):
    """The colours of the lines of a run."""
    named = (trace for trace in figure["data"] if "name" in trace)
    starts = f"{run}, step", f"{run}: mean"
    return {t["line"]["color"] for t in named if t["name"].startswith(starts)}


@pytest.mark.parametrize("kind", ["depth_profile", "comparison", "layer_over_time"])
def test_a_run_has_the_colour_of_its_place_in_the_log(client, kind):
    """Its colour does not depend on the other runs in the figure."""
    listed = client.json("runs")
    names = [run["name"] for run in listed["runs"]]
    palette = listed["colours"]["light"]
    for others in ([], ["half/activations"], ["healthy/activations", "half/activations"]):
        if kind == "comparison" and not others:
            continue
        asked = {"run": [*others, SHRINKING], "layer": "net/dense_3"}
        found = colours_of(figured(client, kind, **asked), "shrinking")
        assert found == {palette[names.index(SHRINKING) % len(palette)]}


def test_the_only_run_of_a_log_has_one_colour(tmp_path):
    """That of the first place. Its steps differ by the dash."""
    write(tmp_path / "run", [0, 5])
    client = board.Client(tmp_path)
    client.wait_for("run/activations", step=5)
    figure = figured(client, "depth_profile", run="run/activations")
    curves = [trace for trace in figure["data"] if "customdata" in trace]
    assert [trace["name"] for trace in curves] == ["run, step 0", "run, step 5"]
    first = client.json("runs")["colours"]["light"][0]
    assert {trace["line"]["color"] for trace in curves} == {first}
    assert [trace["line"]["dash"] for trace in curves] == ["dot", "solid"]


def test_a_spike_is_among_the_columns_of_the_heat_map():
    """The step of a finding is drawn, also if there are too many steps to draw all of
    them."""
    held = InMemory(LAYERS[:4], 2000, bad=1000)
    routes = tab.Tab(base_plugin.TBContext(data_provider=held)).get_plugin_apps()
    run = test.Client(routes["/run"], wrappers.Response).get("/?run=run").json
    assert [finding["step"] for finding in run["findings"]] == [1000]
    ask = test.Client(routes["/figure"], wrappers.Response)
    figure = ask.get("/?kind=heat_map&run=run").json
    drawn = array(figure["data"][0]["x"])
    assert 1000 in drawn and len(drawn) <= 500


@pytest.mark.parametrize(
    ("layers", "gain", "verdict"),
    [
        (LAYERS, 1.0, "healthy"),
        (LAYERS, 0.2, "findings"),
        (LAYERS[:2], 1.0, "not assessed"),
    ],
)
def test_a_run_has_one_of_three_verdicts(tmp_path, layers, gain, verdict):
    """And the reason, if it was not assessed."""
    write(tmp_path / "run", [0, 5], layers, gain)
    client = board.Client(tmp_path)
    client.wait_for("run/activations", step=5)
    run = client.json("run", run="run/activations")
    assert (run["verdict"], run["evaluation"]) == (verdict, False)
    assert bool(run["findings"]) == (verdict == "findings")
    assert bool(run["reason"]) == (verdict == "not assessed")


@pytest.mark.parametrize("gain", [1.0, 0.2])
def test_a_run_of_evaluations_is_not_judged(tmp_path, gain):
    """There are no findings, also in the graph, for any measurements."""
    write(tmp_path / "run", [0, 5], gain=gain, run=log_format.VALIDATION_RUN)
    client = board.Client(tmp_path)
    name = f"run/{log_format.VALIDATION_RUN}"
    client.wait_for(name, step=5)
    run = client.json("run", run=name)
    assert (run["verdict"], run["evaluation"]) == ("not assessed", True)
    assert run["findings"] == []
    assert run["reason"].startswith("These are forward passes of evaluation")
    assert run["label"] == "run (validation)"
    graph = figured(client, "layer_graph", run=name)
    assert not any("activations (" in trace.get("name", "") for trace in graph["data"])


def test_histograms_come_with_a_sample_of_the_steps(client):
    """Which always includes the newest."""
    query = {"run": "healthy/activations", "layer": "net/dense_3"}
    figure = figured(client, "histogram_over_time", **query)
    drawn = array(figure["data"][0]["x"])
    assert drawn[-1] == 298 and 10 < len(drawn) <= 60


@pytest.mark.parametrize("loader", [*board.LOADERS])
def test_the_histograms_are_those_that_were_measured(tmp_path, loader):
    """All buckets of them, at all steps, which are few here."""
    write(tmp_path, range(5))
    client = board.Client(tmp_path, loader)
    client.wait_for("activations", step=4)
    read = runs.Runs(client.provider).with_histograms(
        context.RequestContext(), "", "activations", "net/dense_3"
    )
    assert read.steps == [*range(5)]
    for snapshot, written in zip(read, read_recording(tmp_path), strict=True):
        found, expected = (s.histogram("net/dense_3").rows for s in (snapshot, written))
        assert found.shape == (30, 3)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("loader", [*board.LOADERS])
def test_histograms_of_earlier_versions_are_shown(tmp_path, loader, version):
    """They are in the tags of TensorBoard's own tab only."""
    shutil.copytree(DATA / f"version_{version}", tmp_path / "old")
    client = board.Client(tmp_path, loader)
    client.wait_for("old/activations")
    written = read_recording(tmp_path / "old")
    read = runs.Runs(client.provider).with_histograms(
        context.RequestContext(), "", "old/activations", written[0].names[1]
    )
    assert read.steps == written.steps
    for ours, theirs in zip(read, written, strict=True):
        found, expected = (s.histogram(written[0].names[1]).rows for s in (ours, theirs))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("loader", [*board.LOADERS])
def test_tensorboards_own_tabs_show_the_scalars_and_histograms(tmp_path, loader):
    """As they were measured, at each step; histograms with pairs of buckets as one."""
    write(tmp_path, range(3))
    client, written = board.Client(tmp_path, loader), read_recording(tmp_path)
    client.wait_for("activations", step=2)

    def asked(plugin, tag):
        path = f"/data/plugin/{plugin}?run=activations&tag={tag}"
        answer = client.page(path)
        assert answer.status_code == 200, answer.data
        return answer.json

    layer = f"{written[0].names.index('net/dense_3'):03d}_net/dense_3"
    for statistic in ("mean", "std"):
        shown = asked("scalars/scalars", f"~activation_{statistic}/{layer}")
        expected = written.statistic(statistic, "net/dense_3")
        assert [step for _, step, _ in shown] == [0, 1, 2]
        np.testing.assert_allclose([value for *_, value in shown], expected, rtol=1e-6)
    shown = asked("histograms/histograms", f"~activations/{layer}")
    assert [step for _, step, _ in shown] == [0, 1, 2]
    for (*_, rows), snapshot in zip(shown, written, strict=True):
        expected = snapshot.histogram("net/dense_3").rows
        np.testing.assert_array_equal(
            np.array(rows)[:, 2], expected[:, 2].reshape(-1, 2).sum(axis=1)
        )
        np.testing.assert_allclose(np.array(rows)[:, 0], expected[::2, 0], rtol=1e-6)


def test_hostile_names_arrive_as_they_are_and_are_escaped_in_figures(client):
    """The page receives unescaped JSON; figures are escaped because plotly reads HTML."""
    name = "hostile/x&y=z#<b>/activations"
    run = client.json("run", run=name)
    assert run["name"] == name
    assert [layer["name"] for layer in run["layers"]] == ["given", *HOSTILE]
    for layer in HOSTILE:
        asked = {"run": [name, "healthy/activations"], "layer": layer}
        figure = figured(client, "layer_over_time", **asked)
        assert any(layer in trace.get("customdata", ()) for trace in figure["data"])
    for kind in ("depth_profile", "heat_map", "layer_graph"):
        figure = figured(client, kind, run=name)
        assert "<img" not in texts(figure) and "<script" not in texts(figure)


def texts(figure):
    """All of a figure except the names that a click returns."""
    for trace in figure["data"]:
        trace.pop("customdata", None)
    return json.dumps(figure)


@pytest.mark.parametrize(
    ("route", "query", "code"),
    [
        ("run", {}, 400),
        ("run", {"run": "nowhere"}, 404),
        ("run", {"run": "../../etc/passwd"}, 404),
        ("figure", {"run": "healthy/activations"}, 400),
        ("figure", {"kind": "__class__", "run": "healthy/activations"}, 400),
        ("figure", {"kind": "heat_map"}, 400),
        (
            "figure",
            {"kind": "heat_map", "run": ["shrinking/activations", "half/activations"]},
            400,
        ),
        ("figure", {"kind": "heat_map", "run": "nowhere"}, 404),
        (
            "figure",
            {"kind": "heat_map", "run": SHRINKING, "statistic": "os.system"},
            400,
        ),
        (
            "figure",
            {"kind": "depth_profile", "run": SHRINKING, "step": "1e9x"},
            400,
        ),
        (
            "figure",
            {"kind": "layer_over_time", "run": SHRINKING, "layer": "none"},
            404,
        ),
    ],
)
def test_a_wrong_question_gets_an_error_that_says_so(client, route, query, code):
    """Without a traceback and without a server error."""
    answer = client.get(route, **query)
    assert answer.status_code == code, answer.data
    assert b"Traceback" not in answer.data


@pytest.mark.parametrize(
    "path",
    [
        "../entry.py",
        "..%2fentry.py",
        "%2e%2e/entry.py",
        "static/index.js",
        "./../tab.py",
        "index.js/../../tab.py",
        "/etc/passwd",
        "..\\tab.py",
        "index.js%00",
    ],
)
def test_no_path_leads_out_of_the_page(client, path):
    """Each file has its own route, so a path cannot leave the folder."""
    answer = client.get(path)
    assert answer.status_code in (400, 404), answer.data
    assert b"import" not in answer.data


def test_the_page_is_served_with_its_types_and_without_sniffing(client):
    """All files of the page, and plotly.js of the installed package."""
    import plotly

    for path in STATIC.iterdir():
        answer = client.get(path.name)
        assert answer.data == path.read_bytes()
        kind = {".js": "text/javascript", ".css": "text/css"}[path.suffix]
        assert answer.content_type.startswith(kind)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    answer = client.get("plotly.min.js")
    assert answer.data == script.read_bytes()
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "max-age" in answer.headers["Cache-Control"]


def test_the_page_makes_no_html_of_data_and_imports_only_its_own_files():
    """Its source has none of the ways to make HTML of data."""
    for path in STATIC.glob("*.js"):
        source = path.read_text()
        ways = r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\("
        assert re.findall(ways, source) == []
        for name in re.findall(r"from '(.*)'", source):
            assert (STATIC / name).is_file(), name
        assert "http://" not in source and "https://" not in source


# -- runs that grow, flags


@pytest.mark.parametrize("loader", [*board.LOADERS])
def test_a_run_that_grows_is_read_on(tmp_path, loader):
    """New steps are added and judged. A file may be cut at any byte."""
    log = writer.EventLog(tmp_path / "run")
    log.write(measured(LAYERS, 0))
    log.flush()
    client = board.Client(tmp_path, loader)
    client.wait_for("run/activations")
    assert client.json("run", run="run/activations")["steps"] == [0]
    bad = measured(LAYERS, 5)
    bad.records()[-1, records.FIELD_NAMES.index("nonfinite")] = 3.0
    log.write(bad)
    log.close()
    client.wait_for("run/activations", step=5)
    run = client.json("run", run="run/activations")
    assert run["steps"] == [0, 5]
    (finding,) = run["findings"]
    assert (finding["code"], finding["step"]) == ("nonfinite-activations", 5)
    assert finding["layers"] == ["net/dense_11"]


@pytest.mark.parametrize("loader", [*board.LOADERS])
def test_a_log_folder_that_holds_nothing_of_ours_has_no_runs(tmp_path, loader):
    """The page then says how to create one."""
    assert board.Client(tmp_path, loader).json("runs")["runs"] == []


def test_a_log_without_its_list_of_layers_says_so(tmp_path, monkeypatch):
    """For example a file that is cut at its start: the run is listed with the problem."""
    monkeypatch.setattr(log_format, "table_to_json", lambda table: "{}")
    write(tmp_path, range(2))
    client = board.Client(tmp_path)
    client.wait_for("activations")
    assert "activations: " in client.json("run", run="activations")["problem"]


def damage(folder, step, at=-1000):
    """Damage one bit of the record of a step, at a distance from its end."""
    (path,) = (folder / log_format.RUN).iterdir()
    content, starts = bytearray(path.read_bytes()), [0]
    while starts[-1] < len(content):
        starts.append(starts[-1] + 16 + struct.unpack_from("<Q", content, starts[-1])[0])
    place = starts[step + 2] + at if at < 0 else starts[step + 1] + at
    content[place] ^= 1
    path.write_bytes(content)
    return starts[step + 1], path


@pytest.mark.parametrize("loader", [*board.LOADERS])
def test_a_damaged_file_is_told_of_where_its_run_is_shown(tmp_path, loader):
    """TensorBoard itself does not report damage. Other runs have no notice."""
    write(tmp_path / "fine", range(6))
    begins = {}
    for run, at in {"number": -1000, "length": 0}.items():
        write(tmp_path / run, range(6))
        begins[run] = damage(tmp_path / run, 3, at)
    client = board.Client(tmp_path, loader)
    client.wait_for("fine/activations", step=5)
    client.wait_for(*(f"{run}/activations" for run in begins), step=2)
    assert client.json("run", run="fine/activations")["note"] == ""
    for run, (start, path) in begins.items():
        shown = client.json("run", run=f"{run}/activations")
        assert shown["problem"] == ""
        assert shown["steps"][:3] == [0, 1, 2]
        assert shown["note"] == (
            f"{path.name} is damaged at byte {start}: TensorBoard stops reading there or "
            "shows wrong numbers. `activation-monitor report` shows all that can be read."
        )


def test_damage_of_a_run_that_cannot_be_shown_stands_beside_its_problem(
    tmp_path, monkeypatch
):
    """For example, if the list of layers is damaged."""
    monkeypatch.setattr(log_format, "table_to_json", lambda table: "{}")
    write(tmp_path, range(4))
    start, _ = damage(tmp_path, 2)
    client = board.Client(tmp_path)
    client.wait_for("activations")
    problem = client.json("run", run="activations")["problem"]
    assert f"damaged at byte {start}: " in problem


def test_where_the_log_folder_is_not_on_this_machine_nothing_is_checked(tmp_path):
    """For example with --logdir_spec, or a bucket."""
    from activation_monitor.views.plugin import runs

    write(tmp_path, range(4))
    damage(tmp_path, 2)
    client = board.Client(tmp_path)
    client.wait_for("activations", step=1)
    for logdir, noticed in [("gs://bucket/logs", False), ("", False), (tmp_path, True)]:
        run = runs.Runs(client.provider, str(logdir)).read(None, "", "activations")
        assert ("damaged" in run.note) == noticed


def test_a_user_who_keeps_fewer_steps_is_told_so(tmp_path):
    """The findings may then be incomplete."""
    write(tmp_path, range(20))
    flag = "--samples_per_plugin=activation_monitor=5"
    client = board.Client(tmp_path, "fast", flag)
    client.wait_for("activations", step=19)
    assert len(client.json("run", run="activations")["steps"]) == 5
    assert "random sample of 5 steps" in client.json("runs")["note"]


def test_more_than_tensorboard_hands_over_at_once_is_sampled_and_said(tmp_path):
    """The fast loader limits answers to 256 MiB; here it refuses at once."""
    write(tmp_path, range(20))
    from activation_monitor.views.plugin import runs

    class Limited:
        def __init__(self, provider):
            self.list_tensors = provider.list_tensors
            self._read = provider.read_tensors

        def read_tensors(self, *args, downsample, **kwargs):
            if downsample > 1000 and kwargs["run_tag_filter"].tags == {OUTPUTS}:
                raise RuntimeError("RESOURCE_EXHAUSTED")
            return self._read(*args, downsample=downsample, **kwargs)

    client = board.Client(tmp_path)
    client.wait_for("activations", step=19)
    limited = runs.Runs(Limited(client.provider))
    run = limited.read(None, "", "activations")
    assert run.recording.steps == [*range(20)]
    assert "more steps than TensorBoard can return" in run.note


@pytest.mark.parametrize("loader", [*board.LOADERS])
def test_it_works_below_a_path_prefix(tmp_path, loader):
    """For example with a proxy."""
    write(tmp_path, range(3))
    client = board.Client(tmp_path, loader, "--path_prefix=/some/where")
    client.wait_for("activations", step=2)
    assert client.json("run", run="activations")["steps"] == [0, 1, 2]
    assert client.json("run", run="activations")["label"] == "."


def test_a_run_without_histograms_says_how_to_get_them(tmp_path):
    """In place of the figure."""
    log = writer.EventLog(tmp_path)
    log.write(dataclasses.replace(measured(LAYERS, 0), histograms={}))
    log.close()
    client = board.Client(tmp_path)
    client.wait_for("activations")
    asked = {"run": "activations", "layer": "net/dense_3"}
    (said,) = figured(client, "histogram_over_time", **asked)["layout"]["annotations"]
    assert "histograms=True" in said["text"]


class InMemory:
    """A data provider with one run of so many layers and steps."""

    def __init__(self, layers, steps, bad=None):
        rng = np.random.default_rng(0)
        snapshot = measured(layers, 0, rng=rng)
        table, _ = log_format.encode(snapshot)
        outputs = snapshot.records() * (1 + 0.01 * rng.random((steps, 1, 1)))
        if bad is not None:  # a step at which the last layer has some NaN
            outputs[bad, -1, records.FIELD_NAMES.index("nonfinite")] = 3.0
        text = np.array(log_format.table_to_json(table).encode(), object)
        self._data = {
            log_format.LAYERS_TAG: [provider.TensorDatum(0, 0.0, text)],
            OUTPUTS: [
                provider.TensorDatum(i, float(i), log_format.encoded(written))
                for i, written in enumerate(outputs)
            ],
        }

    def list_tensors(self, ctx, *, experiment_id, plugin_name, run_tag_filter):
        described = {
            tag: provider.TensorTimeSeries(
                max_step=data[-1].step,
                max_wall_time=data[-1].wall_time,
                plugin_content=log_format.metadata_content(),
                description="",
                display_name="",
            )
            for tag, data in self._data.items()
        }
        return {"run": described}

    def read_tensors(self, ctx, *, run_tag_filter, **options):
        return {"run": {t: self._data[t] for t in run_tag_filter.tags if t in self._data}}


def test_a_view_of_200_layers_and_5000_steps_takes_less_than_a_second():
    """After loading. The best of three counts, because the machine may be busy."""
    held = InMemory(chain([f"net/dense_{i}" for i in range(199)]), 5000)
    context = base_plugin.TBContext(data_provider=held, sampling_hints={})
    routes = tab.Tab(context).get_plugin_apps()
    ask = test.Client(routes["/figure"], wrappers.Response)
    for kind in ("depth_profile", "heat_map", "layer_over_time", "layer_graph"):
        query = {"kind": kind, "run": "run", "layer": "net/dense_7", "step": 2500}
        assert ask.get("/", query_string=query).status_code == 200
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            ask.get("/", query_string=query)
            taken.append(time.perf_counter() - start)
        assert min(taken) < 1.0, kind


def test_a_spike_is_drawn_however_many_steps_there_are():
    """A heat map shows only some steps, but always those of findings."""
    layers = chain(["a", "b", "c"])
    recording = Recording(
        Snapshot(i, layers, {"output": records.empty(len(layers))}) for i in range(5000)
    )
    kept = tab._thinned(recording, 500, keep={1234}).steps
    assert len(kept) in (500, 501)
    assert {0, 1234, 4999} <= set(kept)
    assert tab._thinned(recording, 5000) is recording


# -- installed


def test_the_wheel_installed_in_a_fresh_environment_is_served(tmp_path, logs):
    """Build it, install it beside TensorBoard without TensorFlow and Keras, ask over
    HTTP."""

    def run(*command):
        subprocess.run([*map(str, command)], check=True, capture_output=True, cwd=tmp_path)

    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q"]
    run(*pip, "-w", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for path in STATIC.iterdir():
        assert f"activation_monitor/views/plugin/static/{path.name}" in names
    venv.create(tmp_path / "fresh", with_pip=True)
    fresh = tmp_path / "fresh" / "bin"
    run(fresh / "pip", "install", "-q", "--no-deps", wheel)
    needed = ("numpy", "scipy", "rich", "plotly", "tensorboard", "google-crc32c")
    run(fresh / "pip", "install", "-q", *needed)
    command = [fresh / "tensorboard", "--logdir", logs, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as board_process:
        try:
            lines = []
            for line in board_process.stderr:
                lines.append(line)
                if found := re.search(r"http://[^/]+:(\d+)/", line):
                    break
            else:
                pytest.fail("".join(lines))
            url = f"http://localhost:{found[1]}/data/"

            def get(path):
                return json.loads(urllib.request.urlopen(url + path).read())

            assert get("plugins_listing")["activation_monitor"]["tab_name"] == "Activations"
            own = "plugin/activation_monitor/"
            board.until(lambda: [r["name"] for r in get(own + "runs")["runs"]], bool)
            run_read = board.until(
                lambda: get(own + "run?run=shrinking/activations"),
                lambda r: len(r["steps"]) == 30,
            )
            assert run_read["findings"][0]["code"] == "vanishing-activations"
            asked = own + "figure?kind=depth_profile&run=shrinking/activations"
            assert get(asked)["data"]
            for path in STATIC.iterdir():
                served = urllib.request.urlopen(url + own + path.name).read()
                assert served == path.read_bytes()
        finally:
            board_process.kill()  # `terminate` may wait for its threads for ever


# -- in a browser

in_browser = pytest.mark.skipif(bool(board.why_no_browser()), reason=board.why_no_browser())


@pytest.fixture(scope="module")
def driver():
    """One browser for all tests."""
    with board.browser() as made:
        yield made


@pytest.fixture(scope="module")
def served(logs, driver):
    """TensorBoard for that folder: its address, and its own messages in the console."""
    url = board.serve(logs)
    driver.get(f"{url}#timeseries")
    board.until(
        lambda: driver.find_elements("css selector", "plugins, router-outlet"), bool
    )
    time.sleep(2)
    return url, {told(entry) for entry in driver.get_log("browser")}


@pytest.fixture
def page(served, driver):
    """The tab, opened and drawn. At the end the console must have no new message."""
    url, already_said = served
    board.open_tab(driver, url)
    yield driver
    said = [entry for entry in driver.get_log("browser") if not of_graphics(entry)]
    assert {told(entry) for entry in said} <= already_said


def of_graphics(entry):
    """Whether the graphics driver reports that it is slow, which it is without a GPU."""
    return "GL Driver Message" in entry["message"]


def told(entry):
    """A line of the console without its place."""
    return entry["level"], re.sub(r"^\S+ [\d:]+ ", "", entry["message"])


def find(page, selector):
    return page.find_element("css selector", selector)


def curve(page, place, name):
    """Heights of the curve whose name ends like this."""
    return page.execute_script(
        """const trace = document.getElementById(arguments[0])._fullData
             .find((one) => one.name && one.name.endsWith(arguments[1]));
           return trace ? [...trace.y] : null;""",
        place,
        name,
    )


def only(page, *runs):
    """Select only these runs and wait until they are drawn."""
    labels = [e.text for e in page.find_elements("css selector", "#runs .run .text")]
    for i, label in enumerate(labels):
        box = page.find_elements("css selector", "#runs input")[i]
        if box.is_enabled() and box.is_selected() != (label in runs):
            before = board.ready(page)
            box.click()  # all rows are made again
            board.until(lambda n=before: board.ready(page) > n, bool)


def address(page):
    page.switch_to.default_content()
    found = page.execute_script("return location.hash")
    page.switch_to.frame(find(page, "iframe[src*='name=activation_monitor']"))
    return found


@pytest.mark.smoke
@in_browser
def test_the_tab_draws_the_runs_the_findings_and_the_figures(page):
    """The run with findings is first, with its fix. Each figure is drawn by plotly."""
    assert [e.text for e in page.find_elements("css selector", "#runs .run")] == [
        "shrinking",
        "newer",
        "half",
        "healthy",
        HOSTILE_RUN,
        "twofits",
    ]
    first, second = page.find_elements("css selector", "#runs tr")[:2]
    assert "chosen" in first.get_attribute("class")
    assert "vanishing-activations" in first.text and "Copy" in first.text
    assert f"format {NEWER}" in second.text
    assert find(page, "#findings").text.startswith("Run shrinking\n")
    for place in ("profile", "heat"):
        assert find(page, f"#{place} .plotly").is_displayed()
    assert len(page.find_elements("css selector", "#layers-drawn .plotly")) >= 1


@in_browser
def test_the_slider_moves_the_curve(page, logs):
    """To the values of the selected step, and back to the last one."""
    only(page, "healthy")
    recording = read_recording(logs / "healthy")
    before = curve(page, "profile", "step 298")
    from selenium.webdriver.common.keys import Keys

    slider = find(page, "#step")
    slider.send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * 50)
    board.until(lambda: curve(page, "profile", "step 100"), bool)
    expected = recording[50].statistic("rms")
    drawn = np.array(curve(page, "profile", "step 100"), float)
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)
    assert find(page, "#step-shown").text == "100"
    assert "step=100" in address(page)
    slider.send_keys(Keys.END)
    assert board.until(lambda: curve(page, "profile", "step 298"), bool) == before


@in_browser
def test_a_click_on_the_heat_map_selects_the_layer(page):
    """Its figures are drawn, the list marks it, and the address has it."""
    from selenium.webdriver import ActionChains

    only(page, "healthy")
    heat = find(page, "#heat .nsewdrag")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", heat)
    down = heat.size["height"] * (8.5 / 13 - 0.5)
    ActionChains(page).move_to_element_with_offset(heat, 0, int(down)).click().perform()
    board.until(lambda: "net%2Fdense_7" in address(page), bool)
    assert find(page, "#layers .chosen .text").text == "net/dense_7"
    title = "#layers-drawn .over-time .gtitle"
    board.until(lambda: "dense_7" in find(page, title).text, bool)


@in_browser
def test_a_link_opens_what_it_was_copied_from(page, served, driver):
    """Statistic, step, layers and hidden runs are in the address."""
    only(page, "half")
    link = address(page)
    settings = "&p.activation_monitor.statistic=std&p.activation_monitor.step=7"
    board.open_tab(driver, served[0], link.removeprefix("#activation_monitor") + settings)
    assert find(page, "#statistic").get_property("value") == "std"
    assert find(page, "#step-shown").text == "7"
    ticked = page.find_elements("css selector", "#runs input:checked")
    assert len(ticked) == 1
    assert curve(page, "profile", "step 7")


@in_browser
@pytest.mark.parametrize(
    "settings",
    [
        "&p.activation_monitor.layers=%5B1",
        "&p.activation_monitor.step=x",
        "&=",
    ],
)
def test_a_broken_link_opens_all_the_same(page, served, driver, settings):
    """Settings that cannot be read are ignored."""
    board.open_tab(driver, served[0], settings)
    assert find(page, "#profile .plotly").is_displayed()


@in_browser
def test_hostile_names_are_shown_as_text(page):
    """They create no element and run no script."""
    only(page, HOSTILE_RUN)
    shown = [e.text for e in page.find_elements("css selector", "#layers .text")]
    assert shown[1] == HOSTILE[0] and shown[2] == HOSTILE[1]
    for i in range(len(HOSTILE)):
        row = page.find_elements("css selector", "#layers .row")[1 + i]
        row.click()
        board.until(lambda i=i: quoted(HOSTILE[i]) in address(page), bool)
    time.sleep(1)
    assert page.find_elements("css selector", "main img, aside img, main script, b") == []


HOSTILE_RUN = "hostile/x&y=z#<b>"


def quoted(name):
    from urllib.parse import quote

    return quote(json.dumps([name], ensure_ascii=False), safe="!'()*")


@in_browser
def test_the_copy_button_copies_the_line(page):
    """The line of the fix as it is shown."""
    line = find(page, "#findings code").text
    button = find(page, "#findings .copy")
    button.click()
    board.until(lambda: button.text, lambda text: text == "Copied")
    field = find(page, "#layer-filter")
    from selenium.webdriver.common.keys import Keys

    field.send_keys(Keys.CONTROL, "v")
    assert field.get_property("value") == line


@in_browser
def test_no_button_sends_a_figure_away(page):
    """The default buttons of plotly include an upload."""
    titles = page.execute_script(
        """return [...document.querySelectorAll('.modebar-btn')]
             .map((button) => button.dataset.title);"""
    )
    assert set(titles) == {"Download plot as a PNG", "Zoom", "Pan", "Reset axes"}


# The layers 5 to 8 of `LAYERS` at step 2.
CELLS = {
    "net/dense_4": "0",
    "net/dense_5": "NaN; 3 of 4096 elements are NaN or infinite; without them 1",
    "net/dense_6": "NaN; 4096 of 4096 elements are NaN or infinite",
    "net/dense_7": "1",
}


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """TensorBoard with a run that has a zero and NaN, and one without; their steps."""
    folder = tmp_path_factory.mktemp("cells")
    elements = np.ones((64, 64))
    some, all_of_them = elements.copy(), elements * np.nan
    some.flat[:3] = np.nan, np.inf, -np.inf
    broken = [0 * elements, some, all_of_them, elements]
    for name, tensors in (("broken", broken), ("healthy", [elements] * 4)):
        log = writer.EventLog(folder / name)
        for step in (0, 1, 2, 3):
            snapshot = measured(LAYERS, step)
            if step == 2:
                for row, x in zip(range(5, 9), tensors, strict=True):
                    snapshot.records()[row] = records.measure(x, "relu")
            log.write(snapshot)
        log.close()
    recordings = {name: read_recording(folder / name) for name in ("broken", "healthy")}
    return board.serve(folder), recordings


def tooltip(page, row, column, rows, columns):
    """The tooltip of the heat map at the mouse."""
    from selenium.webdriver import ActionChains

    heat = find(page, "#heat .nsewdrag")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", heat)
    x = heat.size["width"] * ((column + 0.5) / columns - 0.5)
    y = heat.size["height"] * ((row + 0.5) / rows - 0.5)
    mouse = ActionChains(page, duration=0)
    mouse.move_to_element_with_offset(heat, 0, -200)
    mouse.move_to_element_with_offset(heat, int(x), int(y)).perform()
    said = "return document.querySelector('#heat .hoverlayer').textContent"
    return board.until(lambda: page.execute_script(said), bool)


@in_browser
@pytest.mark.parametrize("run", ["broken", "healthy"])
def test_the_mouse_on_a_cell_of_the_heat_map_reads_its_value(cells, driver, run):
    """A zero, NaN with the number of elements, and numbers beside such cells."""
    url, recordings = cells
    focus = f"&p.activation_monitor.run={run}%2Factivations"
    board.open_tab(driver, url, focus)
    board.until(lambda: find(driver, "#heat .gtitle").text, bool)
    for row, step in ((0, 0), (5, 1), (5, 2), (6, 2), (7, 2), (8, 2), (12, 2)):
        layer = LAYERS[row].name
        expected = f"{recordings[run][step].statistic('rms')[row]:.4g}"
        if run == "broken" and step == 2:
            expected = CELLS.get(layer, expected)
        said = tooltip(driver, row, step, len(LAYERS), 4)
        assert said == f"{layer}step {step}: rms {expected}"


@in_browser
def test_the_layer_graph_follows_slider_and_statistic(page):
    """The title has the step and the statistic, and the colours follow them."""
    only(page, "healthy")
    page.execute_script("document.getElementById('graph-card').open = true")
    said = "#graph .gtitle"
    board.until(lambda: page.find_elements("css selector", said), bool)

    def graph(title):
        board.until(lambda: find(page, said).text, lambda text: text == title)
        return page.execute_script(
            """const traces = document.getElementById('graph')._fullData;
               const colours = traces.map(({marker}) => marker?.color);
               return [...colours.find((one) => one?.length === 13 && one[0] !== '#')];"""
        )

    from selenium.webdriver.common.keys import Keys

    last = graph("Layer graph, rms at step 298")
    find(page, "#step").send_keys(Keys.HOME)
    first = graph("Layer graph, rms at step 0")
    assert first != last
    find(page, "#statistic").send_keys("zero")
    shares = graph("Layer graph, zero fraction at step 0")
    assert all(0 <= share <= 1 for share in shares) and shares != first


def colours_drawn(page):
    """Run to the colours of its lines and of its box, as `#rrggbb`."""
    lines, boxes = page.execute_script(
        """const lines = ['#profile', '#comparison', '#layers-drawn .over-time']
             .map((place) => document.querySelector(place))
             .filter((figure) => figure.checkVisibility())
             .flatMap((figure) => figure._fullData.map(
               ({name, line}) => [name, line?.color]));
           const boxes = [...document.querySelectorAll('#runs .row')].map((row) => [
             row.querySelector('.run .text').textContent,
             row.querySelector('input').style.accentColor]);
           return [lines, boxes];"""
    )
    found = {}
    for name, colour in lines:
        if run := re.fullmatch(r"(.*)(, step \d+|: mean)", name or ""):
            found.setdefault(run[1], set()).add(colour.lower())
    for run, colour in boxes:
        if run in found:
            channels = map(int, re.findall(r"\d+", colour))
            found[run].add("#" + "".join(f"{channel:02x}" for channel in channels))
    return found


@in_browser
def test_a_run_keeps_its_colour_when_others_are_hidden(page):
    """In each figure and in the list, also if it is the only one drawn."""
    before = {}
    for shown in (
        ("half", "healthy", "shrinking"),
        ("healthy", "shrinking"),
        ("shrinking",),
    ):
        only(page, *shown)
        found = colours_drawn(page)
        assert {*found} == {*shown}
        for run in shown:
            assert len(found[run]) == 1, (run, found[run])
            assert before.setdefault(run, found[run]) == found[run]
    assert len(set().union(*before.values())) == 3


@in_browser
def test_no_verdict_runs_into_the_name_of_its_run(page):
    """A healthy run of the name "healthy" has both in cells of their own."""
    cells = [
        tuple(find(row, f".{part}").text for part in ("run", "verdict"))
        for row in page.find_elements("css selector", "#runs tr")
    ]
    assert ("healthy", "healthy") in cells and ("newer", "cannot be read") in cells
    only(page, "healthy")
    assert find(page, "#findings h3").text == "Run healthy: healthy"


SHOWN = """
const [run, done] = arguments;
import(new URL('findings.js', document.baseURI)).then(({detail, worst}) => {
  const section = document.createElement('section');
  section.append(...detail(run, worst(run), () => {}));
  done([section.querySelector('.dot').className, section.textContent]);
});
"""


def told_of(page, **fields):
    """How the page shows a run: the class of its dot, and all text."""
    run = {"name": "r/activations", "label": "r", "problem": "", "note": "", "steps": [0]}
    run |= {"layers": [], "findings": [], "verdict": "healthy", "reason": ""}
    run |= {"worst_finding": None}
    return page.execute_async_script(SHOWN, run | {"evaluation": False} | fields)


FOUND = Finding("dead-units", "warning", 5, ("d1",), {"a_b": 0.95, "c": np.nan}, "It is.")
FOUND = dataclasses.replace(FOUND, initial=False, last_step=360)


@in_browser
def test_a_verdict_has_a_colour_and_a_reason(page):
    """Green is only for a run that was assessed and is healthy."""
    assert told_of(page) == ["dot healthy", "Run r: healthy"]
    dot, said = told_of(page, verdict="not assessed", reason="Because of that.")
    assert dot == "dot unassessed"
    assert said.startswith("Run r: not assessed") and "Because of that." in said
    dot, said = told_of(page, verdict="not assessed", evaluation=True)
    assert (dot, said) == ("dot evaluation", "Run r: measured, not judged")
    assert told_of(page, evaluation=True)[0] == "dot evaluation"
    found = FOUND.to_dict() | {"in_words": [["a b", "95 %"], ["c", "not finite"]]}
    dot, said = told_of(page, verdict="findings", findings=[found])
    assert dot == "dot warning" and said.startswith("Run rdead-units")
    assert "in training, steps 5 to 360" in said
    assert "a b95 %" in said and "cnot finite" in said
    assert "More: activation-monitor explain dead-units" in said


@in_browser
def test_only_healthy_is_green(page):
    """Runs that were not assessed, or are never judged, are grey on both pages."""
    for theme in (False, True):
        green, *greys = page.execute_script(
            """document.documentElement.classList.toggle('dark', arguments[0]);
               return ['healthy', 'unassessed', 'evaluation'].map((kind) => {
                 const dot = document.createElement('span');
                 dot.className = `dot ${kind}`;
                 document.body.append(dot);
                 const style = getComputedStyle(dot);
                 const shown = style.borderTopWidth === '0px'
                   ? style.backgroundColor : style.borderTopColor;
                 dot.remove();
                 return shown.match(/\\d+/g).map(Number);
               });""",
            theme,
        )
        assert green[1] > green[0] + 50
        assert all(len(set(grey[:3])) == 1 for grey in greys)


@in_browser
def test_the_axis_of_sizes_has_plain_numbers(page):
    """At 1 and 3 times the powers of 10, of which a healthy network has at least three."""
    only(page, "healthy")
    for figure in ("profile", "comparison"):
        if figure == "comparison":
            only(page, "healthy", "half")
        ticks = page.execute_script(
            """return [...document.querySelectorAll(`#${arguments[0]} .ytick text`)]
                 .map((tick) => tick.textContent.replace('\\u2212', '-')
                   .replaceAll('\\u200b', ''));""",
            figure,
        )
        numbers = [tick for tick in ticks if tick.strip("0.") in ("1", "3")]
        powers = [tick for tick in numbers if tick.strip("0.") == "1"]
        assert len(powers) >= 3 and numbers == ticks, ticks


@in_browser
def test_the_end_of_a_long_name_is_seen(tmp_path, driver):
    """Names of layers differ at their ends. A short name is aligned left."""
    layers = chain(["model/" + "block_of_layers/" * 4 + "dense_1", "short"])
    write(tmp_path / ("a_long_name_of_a_folder_" * 2 + "lr_0.1"), [0], layers)
    board.open_tab(driver, board.serve(tmp_path))
    places = driver.execute_script(
        """const names = [...document.querySelectorAll('#runs .run .text, #layers .text')];
           return names.map((box) => {
             const text = box.querySelector('bdi').firstChild;
             const end = document.createRange();
             end.setStart(text, text.length - 1);
             end.setEnd(text, text.length);
             const [outer, last, all] = [box, end, box.querySelector('bdi')].map(
               (one) => one.getBoundingClientRect());
             return [last.left >= outer.left && last.right <= outer.right + 1,
                     all.width <= outer.width && all.left - outer.left];
           });"""
    )
    assert len(places) == 4 and all(end_seen for end_seen, _ in places)
    assert places[0][0] and places[2][1] is False
    assert {left for _, left in (places[1], places[3])} == {0}


@in_browser
def test_a_button_is_not_broken_where_the_page_is_narrow(served, driver):
    """It fits beside a long line, and nothing exceeds the width of the page."""
    driver.set_window_size(800, 600)
    try:
        board.open_tab(driver, served[0])
        height = find(driver, "#findings .copy").size["height"]
        assert height < 30
        inner, outer = driver.execute_script(
            "const {scrollWidth, clientWidth} = document.getElementById('main');"
            "return [scrollWidth, clientWidth]"
        )
        assert inner <= outer
    finally:
        driver.set_window_size(1440, 900)


@in_browser
def test_the_legend_leaves_the_title_of_the_axis_free(page):
    """With any number of rows."""
    boxes = page.execute_script(
        """return ['#profile', '#comparison', '#layers-drawn .over-time'].map((place) => {
             const figure = document.querySelector(place);
             const box = (part) => figure.querySelector(part).getBoundingClientRect();
             const titles = [...figure.querySelectorAll('[class$=title]')].filter(
               (one) => /^x\\d?title$/.test(one.getAttribute('class')) && one.textContent);
             return [Math.max(...titles.map((one) => one.getBoundingClientRect().bottom)),
                     box('.legend').top];
           });"""
    )
    for title, legend in boxes:
        assert title <= legend + 1


@in_browser
def test_the_tab_follows_a_training_that_runs(tmp_path, driver):
    """New steps appear automatically. A slider at the end stays at the end."""
    log = writer.EventLog(tmp_path / "run")
    log.write(measured(LAYERS, 0))
    log.flush()
    board.open_tab(driver, board.serve(tmp_path))
    assert find(driver, "#step-shown").text == "0 (last)"
    log.write(measured(LAYERS, 5))
    log.close()
    board.until(
        lambda: find(driver, "#step-shown").text, lambda text: text == "5 (last)", 30
    )
    board.until(lambda: curve(driver, "profile", "step 5"), bool)


@in_browser
def test_the_tab_draws_below_a_path_prefix(logs, driver):
    """All addresses of the page are relative."""
    board.open_tab(driver, board.serve(logs, "--path_prefix=/some/where"))
    assert find(driver, "#profile .plotly").is_displayed()


@in_browser
def test_an_empty_log_folder_is_explained(tmp_path, driver):
    """If the user opens the tab although there are no data."""
    board.open_tab(driver, board.serve(tmp_path))
    assert "Add ActivationMonitor" in find(driver, "#empty").text

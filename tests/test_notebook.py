"""What a cell shows: of a real kernel, and of results made by hand."""

import base64
import dataclasses
import html
import importlib
import json
import math
import pickle
import pkgutil
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import nbclient
import nbformat
import pytest
from IPython.core.formatters import DisplayFormatter

from activation_monitor import analysis, diagnose
from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.findings import SHOWN_BY, Finding
from activation_monitor.analysis.rescaling import RescaledLayer, Rescaling
from activation_monitor.analysis.shown import LONGEST, one_line
from activation_monitor.views import console, evidence, in_words, notebook
from networks import Drawn, network, tap

ROOT = Path(__file__).parent.parent

HOSTILE = "</table><script>alert(1)</script><b onclick='x'>&amp;\"$"

# -- in a kernel

SETUP = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
import contextlib, io
import keras
import networks
from activation_monitor import *
from activation_monitor.views import console
from models import data, perceptron

made = networks.Drawn(1).chain(8, variance=0.02).snapshot(0)
diagnosis = diagnose([made])
keras.utils.set_random_seed(0)
model = perceptron(3, initializer=keras.initializers.RandomNormal(stddev=0.001))
model.compile("sgd", "mse")
x, y = data()
monitor = ActivationMonitor(sample_every=2, on_finding=lambda finding: None)
model.fit(x, y, batch_size=8, verbose=0, callbacks=[monitor]);
"""

ONE_LINE = {
    "monitor": "ActivationMonitor with 4 snapshots, steps 0 to 4: vanishing-activations",
    "monitor.recording": "Recording of 4 snapshots of 5 layers, steps 0 to 4",
    "monitor.recording[0]": "Snapshot of step 0: 5 layers, with histograms, "
    "output_gradient, weight, weight_update, weight_gradient",
    "monitor.recording[0].layers[1]": "LayerInfo net/hidden_0: Dense, relu, width 16",
    "monitor.recording[0].histogram('net/hidden_0')": "Histogram of 128 elements, from ",
    "monitor.diagnosis": "Diagnosis of steps 0 to 4: 1 finding: vanishing-activations",
    "monitor.diagnosis.findings[0]": (
        "Finding vanishing-activations (warning, at initialization) in net/hidden_0, "
        "net/hidden_1, net/hidden_2"
    ),
    "monitor.diagnosis.findings[0].fix": "Fix for cause 'initializer': in net/hidden",
    "monitor.diagnosis.findings[0].fix.changes[0]": "Change in net/hidden_0: kernel_in",
    "monitor.diagnosis.profile": "DepthProfile of step 0: 5 layers, depth 4, 1 ",
    "monitor.diagnosis.profile.main": "GrowthRange from net/hidden_0 to net/hidden_2",
    "monitor.diagnosis.profile.main.points[0]": "Point net/hidden_0 at depth 1: rms 0.0",
    "monitor.diagnosis.profile.segments[0]": "Segment of 3 tensors, 3 weight layers",
    "monitor.diagnosis.profile.links[1]": "Link net/hidden_0, relu: rms ",
    "monitor.diagnosis.profile.graph": "LayerGraph of 5 layers, depth 4, to net/head",
    "audited": "Diagnosis of step 5, 3 initializations: 1 finding: vanishing-activations;",
    "audited.draws[1]": "Diagnosis of step 0: 1 finding: vanishing-activations; ",
    "rescaled": "Rescaling with 4 of 4 weight layers rescaled",
    "rescaled.layers[0]": "RescaledLayer net/hidden_0: std 0.00",
    "Monitored(keras.layers.Dense(3, name='d'))": "Monitored <Dense name=d, built=False>",
}
"""Expressions at the end of a cell, and how their one line begins."""

SEVERAL = {
    "monitor.diagnosis.findings": ["Finding"],
    "audited.draws": ["Diagnosis"] * 3,
    "rescaled.layers": ["RescaledLayer"] * 4,
    "monitor.recording.snapshots": ["Snapshot"] * 4,
}

OTHERS = {
    "str": "print(len(str(diagnosis)), end=''); text = str(diagnosis)",
    "f-string": "text = f'{diagnosis}'; (text,)[0]",
    "print": "print(diagnosis)",
    "file": "open('diagnosis.txt', 'w', encoding='utf-8').write(str(diagnosis));",
    "audit": "audited = audit(model, x, seeds=3)",
    "rescale": "rescaled = rescale(model, x); str(rescaled)",
    "show": """
with contextlib.redirect_stdout(io.StringIO()) as out:
    console.show(console.diagnosis_table(diagnosis))
out.getvalue()""",
    "made": "diagnosis",
    "figure": """
import plotly.io
plotly.io.renderers.default = "plotly_mimetype+notebook_connected"
monitor.figure("heat_map")""",
}


def run(notebook, folder, client=nbclient.NotebookClient):
    """Run all cells in a new kernel. Returns the client."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this Python
        for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            patched.setenv(name, str(folder / name.lower()))
        made = client(
            notebook,
            timeout=300,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        )
        made.execute()
    return made


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Outputs of each cell of one notebook, by the name or expression of the cell."""
    folder = tmp_path_factory.mktemp("notebook")
    named = {"setup": SETUP, **OTHERS} | {each: each for each in (*ONE_LINE, *SEVERAL)}
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in named.values()]
    )
    run(notebook, folder)
    outputs = {name: cell.outputs for name, cell in zip(named, notebook.cells, strict=True)}
    file = (folder / "diagnosis.txt").read_text(encoding="utf-8")
    return outputs | {"written": file}


def result(cells, name):
    """The only result of a cell, by type. The cell must not show anything else."""
    (output,) = cells[name]
    assert output.output_type in ("execute_result", "display_data")
    return output.data


def printed(cells, name):
    """The printed text of a cell. The cell must not show anything else."""
    assert {output.output_type for output in cells[name]} == {"stream"}
    return "".join(output.text for output in cells[name])


EXPECTED = str(diagnose([Drawn(1).chain(8, variance=0.02).snapshot(0)]))
"""In this process, which is not a kernel."""


def test_the_text_in_a_kernel_is_that_of_a_plain_process(cells):
    """With `str`, in an f-string and in a file. Nothing is displayed on the way."""
    assert "vanishing-activations (critical, at initialization)" in EXPECTED
    assert printed(cells, "str") == str(len(EXPECTED))
    assert eval(result(cells, "f-string")["text/plain"]) == EXPECTED
    assert cells["file"] == []
    assert cells["written"] == EXPECTED


def test_print_shows_a_diagnosis_once(cells):
    """As text on stdout, without a second, displayed copy."""
    assert printed(cells, "print") == f"{EXPECTED}\n"


def test_what_is_shown_can_be_redirected(cells):
    """In a kernel, too, the tables of the commands go to `sys.stdout`, in colour."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", eval(result(cells, "show")["text/plain"]))
    assert [line.rstrip() for line in text.splitlines()][:4] == EXPECTED.splitlines()[:4]


@pytest.mark.parametrize("expression", ONE_LINE)
def test_a_result_is_one_line_of_text(cells, expression):
    """With the name of its class and the most important facts."""
    line = result(cells, expression)["text/plain"]
    assert line.startswith(f"<{ONE_LINE[expression]}")
    assert line.endswith(">") and "\n" not in line and len(line) <= LONGEST


@pytest.mark.parametrize("expression", SEVERAL)
def test_several_results_are_a_line_each(cells, expression):
    """In a tuple or a list."""
    lines = result(cells, expression)["text/plain"].splitlines()
    kinds = [re.match(r"[\[(\s]*<(\w+) .*>[\]),]*$", line)[1] for line in lines]
    assert kinds == SEVERAL[expression]


class Elements(HTMLParser):
    """The elements of some HTML, its text, and the cells of its tables."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.text, self.cells, self.styles, self._open = [], "", [], "", ""
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._open = tag
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        if self._open == "style":
            self.styles += data
            return
        self.text += data
        if self._open in ("td", "th", "br", "wbr") and self.cells:
            self.cells[-1] += data

    def count(self, tag):
        return sum(found == tag for found, _ in self.tags)


def test_a_diagnosis_in_a_cell_has_table_figure_and_findings(cells):
    """Verdict, cause, lines of code, and a row for each layer."""
    made = diagnose([Drawn(1).chain(8, variance=0.02).snapshot(0)])
    shown = Elements(result(cells, "made")["text/html"])
    (finding,) = made.findings
    numbers = evidence.evidence(finding)
    assert shown.count("svg") == 1 and shown.count("table") == 2
    assert shown.count("tr") == 1 + len(made.first.layers) + len(numbers)
    for label, said in numbers:
        assert [label, said] in [shown.cells[i : i + 2] for i in range(len(shown.cells))]
    assert [cell for cell in shown.cells if cell in made.first.names] == [*made.first.names]
    fix = finding.fix
    for words in (finding.title, finding.message, fix.reason, fix.changes[0].line):
        assert words in shown.text
    assert {"svg", "table"} <= {
        tag for tag, _ in Elements(result(cells, "monitor.diagnosis")["text/html"]).tags
    }


def test_a_figure_is_in_the_html_of_a_notebook_with_the_renderer_of_the_documentation(
    cells,
):
    """Plotly's own renderer in a kernel offers a type that nbconvert leaves out."""
    *_, output = cells["figure"]
    assert "Plotly.newPlot" in output.data["text/html"]


def test_an_image_stands_in_where_html_is_not_shown(cells):
    """The PNG that the HTML has as well, hidden by its style: layers by steps."""
    data = result(cells, "made")
    page = Elements(data["text/html"])
    (image,) = (attributes for tag, attributes in page.tags if tag == "img")
    assert image["src"] == f"data:image/png;base64,{data['image/png'].strip()}"
    assert image["class"] == "static" and "Rms of each layer" in image["alt"]
    assert ".activation-monitor .static { display: none; }" in page.styles
    assert base64.b64decode(data["image/png"])[:8] == b"\x89PNG\r\n\x1a\n"
    healthy = chain_of(8)._repr_png_()
    assert healthy[:4] == b"\x89PNG" and healthy != base64.b64decode(data["image/png"])


def test_a_rescaling_in_a_cell_is_a_table(cells):
    """Each weight layer has its name, std before and after, and factor."""
    shown = Elements(result(cells, "rescaled")["text/html"])
    assert shown.count("table") == 1 and shown.count("tr") == 5
    text = eval(result(cells, "rescale")["text/plain"])
    rows = [line.split() for line in text.splitlines() if line.startswith("  net/")]
    assert [row[:4] for row in rows] == [
        shown.cells[start : start + 4] for start in range(5, 25, 5)
    ]


# -- the one line


class Described:
    """A class that describes itself in words."""

    def __init__(self, words):
        self.words = words

    @one_line
    def __repr__(self):
        return self.words() if callable(self.words) else self.words


def test_one_line_stays_one_line_and_short():
    """Whatever the names of the layers."""
    assert repr(Described("a\nb\tc  d")) == "<Described a b c d>"
    line = repr(Described("x" * 1000))
    assert len(line) == LONGEST and line.endswith("x…>")
    assert len(repr(Described("x" * (LONGEST - len("<Described >"))))) == LONGEST
    assert "…" not in repr(Described("x" * (LONGEST - len("<Described >"))))


def test_one_line_never_fails():
    """An incomplete object has a line as well."""
    assert repr(Described(lambda: 1 / 0)) == (
        "<Described without a description (ZeroDivisionError)>"
    )
    assert repr(object.__new__(Diagnosis)) == (
        "<Diagnosis without a description (AttributeError)>"
    )


def test_every_result_has_its_one_line():
    """No dataclass of the analysis prints its fields, some of which are arrays."""
    found = []
    for module in pkgutil.iter_modules(analysis.__path__, f"{analysis.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and dataclasses.is_dataclass(value):
                found.append(value)
    assert Diagnosis in found and len(set(found)) >= 15
    ours = Described.__repr__.__code__  # what `one_line` returns
    assert [cls for cls in found if cls.__repr__.__code__ is not ours] == []


def test_results_compare_hash_and_pickle_by_their_fields():
    """The one line does not change the dataclass, and a result holds no view."""
    snapshot = Drawn(1).chain(8, variance=0.02).snapshot(0)
    made = diagnose([snapshot])
    finding = made.findings[0]
    copy = pickle.loads(pickle.dumps(finding))
    assert copy == finding and hash(copy) == hash(finding) and copy is not finding
    other = dataclasses.replace(finding, step=7)
    assert other != finding and other.step == 7
    assert [field.name for field in dataclasses.fields(Finding)][:4] == [
        *("code", "severity", "step", "layers")
    ]
    again = pickle.loads(pickle.dumps(made))
    assert str(again) == str(made) and again._repr_html_() == made._repr_html_()
    report = Rescaling((RescaledLayer("a", 2.0, 1.0, 0.5),))
    assert report == Rescaling(report.layers) and hash(report) == hash(
        Rescaling(report.layers)
    )
    assert pickle.loads(pickle.dumps(report)) == report


# -- the HTML


def chain_of(count, variance=2.0):
    return diagnose([Drawn(1).chain(count, variance=variance).snapshot(0)])


NAN = [tap(name, math.nan) for name in "abc"]
BEFORE_ANYTHING = diagnose([])
STATES = {
    "nothing measured": BEFORE_ANYTHING,
    "no findings": chain_of(8),
    "NaN everywhere": diagnose([network(*NAN)]),
    "NaN gradients": diagnose([network(*(tap(n, 1.0, gradient=math.nan) for n in "abc"))]),
    "zeros": diagnose([network(*(tap(name, 0.0) for name in "abc"))]),
    "not called": diagnose([network(tap("a", None), tap("b", None))]),
    "one layer": diagnose([network(tap("a"))]),
    "200 layers": chain_of(200),
    "200 vanishing layers": chain_of(200, 0.02),
}


@pytest.mark.parametrize("state", STATES)
def test_every_state_has_html(state):
    """With the verdict and a table, and a figure if there is something to draw."""
    made = STATES[state]
    source = console.diagnosis_html(made)  # what fails, fails here
    assert made._repr_html_() == source
    shown = Elements(source)
    for line in in_words.sentences(made):
        assert line in shown.text
    numbers = sum(bool(evidence.evidence(finding)) for finding in made.findings)
    assert shown.count("table") == (made.first is not None) + numbers
    drawable = state not in ("nothing measured", "not called")
    quantities = {SHOWN_BY[one.code] for one in made.findings}
    apart = quantities - {("output", "rms"), ("output_gradient", "rms")}
    assert shown.count("svg") == drawable * (2 if apart else 1)
    assert len(source) < 300_000
    assert shown.count("script") == 0
    assert [a["class"] for tag, a in shown.tags if tag == "img"] == ["static"] * drawable
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", source)


def hostile():
    names = [f"{HOSTILE}{i}" for i in range(5)]
    return diagnose([network(*(tap(n, 10.0**-i) for i, n in enumerate(names)))]), names


def test_a_name_stays_text_in_a_cell():
    """Names of layers are escaped in the table, the findings and the axis."""
    made, names = hostile()
    shown = Elements(made._repr_html_())
    assert shown.count("script") == shown.count("b") - 1 == 0  # <b> before the cause
    assert not any("onclick" in attributes for _, attributes in shown.tags)
    assert [cell for cell in shown.cells if cell in names] == names
    assert made.findings[0].message in shown.text
    assert shown.text.count(names[0][-20:]) >= 4
    report = Rescaling((RescaledLayer(HOSTILE, 2.0, 1.0, 0.5, HOSTILE),))
    shown = Elements(notebook.rescaling_html(report))
    assert shown.count("script") == 0 and shown.cells.count(HOSTILE) == 2


def test_a_layer_that_was_left_alone_says_why():
    """It has no factor and is grey."""
    layers = (
        RescaledLayer("a", 2.0, 1.0, 0.5),
        RescaledLayer("b", math.nan, 3.0, 1.0, "frozen"),
    )
    shown = Elements(notebook.rescaling_html(Rescaling(layers)))
    assert shown.cells[5:] == ["a", "2", "1", "0.5", "", "b", "-", "3", "", "frozen"]
    rows = [
        attributes["class"]
        for tag, attributes in shown.tags[1:]
        if tag == "tr" and attributes
    ]
    assert rows == ["", "left-alone"]
    assert "1 of 2 weight layers rescaled." in shown.text


def test_a_view_that_fails_leaves_the_one_line(capsys, monkeypatch):
    """A cell shows the one line instead of a traceback."""

    def fails(made):
        raise RuntimeError("no such thing")

    made = chain_of(3)
    kinds = {"text/plain", "text/html", "image/png"}
    assert set(DisplayFormatter().format(made)[0]) == kinds
    monkeypatch.setattr(notebook, "diagnosis_png", fails)
    monkeypatch.setattr(notebook, "diagnosis_html", fails)
    monkeypatch.setattr(notebook, "rescaling_html", fails)
    for shown in (made, dataclasses.replace(made, profile=None), Rescaling(())):
        data, _ = DisplayFormatter().format(shown)
        assert data == {"text/plain": repr(shown)}
    assert capsys.readouterr() == ("", "")


PROBE = """
const shown = {};
for (const page of ["light", "dark"]) {
  const place = document.getElementById(page), colour = getComputedStyle(place).color;
  const of = (what, css) => [...place.querySelectorAll(what)].map(
    (element) => getComputedStyle(element)[css]);
  const wide = place.querySelector(".wide");
  shown[page] = {
    colour,
    texts: [...new Set([...of("p:not(.title), td, th, pre, summary", "color"),
      ...of("svg text:not([fill])", "fill")])],
    titles: [...new Set(of(".title", "color"))],
    scrolls: wide.scrollHeight > 2 * wide.clientHeight,
    height: wide.clientHeight,
    outside: getComputedStyle(place.querySelector("p.outside")).margin,
  };
}
document.title = JSON.stringify(shown);
"""


@pytest.mark.skipif(
    shutil.which("chromium") is None,
    reason="needs Debian's chromium: apt-get install chromium",
)
def test_a_cell_suits_a_light_and_a_dark_page(tmp_path):
    """Text and axes have the colour of the page, the name of a curve has that of the curve,
    a long table scrolls, no style leaks."""
    made = chain_of(200, 0.02)._repr_html_()
    places = {
        "light": "color: #222; background: #fff",
        "dark": "color: #ddd; background: #111",
    }
    body = "".join(
        f'<div id="{page}" style="{style}"><p class="outside title">x</p>{made}</div>'
        for page, style in places.items()
    )
    path = tmp_path / "page.html"
    path.write_text(f"<!DOCTYPE html>{body}<script>{PROBE}</script>", encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync"
    flags += " --disable-background-networking --disable-component-update --dump-dom"
    done = subprocess.run(
        ["chromium", *flags.split(), f"--user-data-dir={tmp_path / 'p'}", f"file://{path}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    title = re.search("<title>(.*)</title>", done.stdout)[1]
    found = json.loads(html.unescape(title))
    for page in places:
        # Names at line ends have the colours of the lines, see `test_svg.py`.
        assert found[page]["texts"] == [found[page]["colour"]]
        assert found[page]["scrolls"] and found[page]["height"] < 400
        assert found[page]["outside"] == "16px 0px"  # as the browser has it
    assert found["light"]["titles"] != found["light"]["colour"]

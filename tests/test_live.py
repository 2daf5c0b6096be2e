"""A monitor in a notebook that shows a training while it runs."""

import re
import subprocess
import sys
import types
import warnings

import keras
import nbclient
import nbformat
import pytest

from activation_monitor import ActivationMonitor
from activation_monitor.views import live, notebook
from models import data, perceptron
from test_notebook import ROOT, Elements, run

# -- in a kernel

BEFORE = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
import keras
from activation_monitor import *
from activation_monitor.views import live, notebook
from models import data, perceptron

live.APART, live.SHARE = 0.0, 1e9  # each sampled step is shown
keras.utils.set_random_seed(0)
model = perceptron(3)
model.compile("sgd", "mse")
x, y = data()
monitor = ActivationMonitor(sample_every=1, on_finding=lambda finding: None)
"""

FIT = "model.fit(x, y, batch_size=8, verbose=0, callbacks=[monitor]);"

FAILS = """
def fails(*args):
    raise RuntimeError("no such thing")

notebook._html = fails
"""

CELLS = {
    "before": BEFORE,
    "placeholder": "monitor",
    "fit below": f"display(monitor); {FIT}",
    "after": "monitor",
    "other": f"""
import warnings
other = ActivationMonitor(sample_every=1)
display(other)
{FAILS}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    history = {FIT.replace("monitor", "other")}
len(other.recording), [str(one.message) for one in caught if "notebook" in str(one.message)]
""",
    "failing": "display(other)",
}


class Recorded(nbclient.NotebookClient):
    """A client that keeps what arrives while a cell runs."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.arrived = []

    def process_message(self, msg, cell, cell_index):
        self.arrived.append((cell_index, msg["msg_type"], msg["content"]))
        return super().process_message(msg, cell, cell_index)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The cells by name, and the messages by name of the cell that ran."""
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in CELLS.values()]
    )
    client = run(book, tmp_path_factory.mktemp("live"), Recorded)
    names = [*CELLS]
    arrived = {name: [] for name in names}
    for index, kind, content in client.arrived:
        arrived[names[index]].append((kind, content))
    return dict(zip(names, book.cells, strict=True)), arrived


def updates(arrived, name):
    """The text of each update while a cell ran."""
    return [
        Elements(content["data"]["text/html"]).text
        for kind, content in arrived[name]
        if kind == "update_display_data"
    ]


def steps_in(text):
    """The number of sampled steps that a text shows."""
    found = re.search(r"(\d+) steps? sampled", text)
    return int(found[1]) if found else 0


def test_a_monitor_is_shown_while_the_cell_runs(executed):
    """Each update shows the steps so far. The first one comes with the first step."""
    _, arrived = executed
    shown = [steps_in(text) for text in updates(arrived, "fit below")]
    assert shown == [1, 2, 3, 4, 5, 5]  # and once more at the end
    assert updates(arrived, "placeholder") == updates(arrived, "after") == []


def test_a_cell_that_was_run_before_is_kept_up_to_date(executed):
    """It shows that nothing was measured, then the training in another cell. What is saved
    is the last state, with table, figure and image."""
    cells, arrived = executed
    first = next(c for kind, c in arrived["placeholder"] if kind == "display_data")
    assert "nothing has been measured yet" in first["data"]["text/html"]
    for name in ("placeholder", "fit below", "after"):
        (output,) = cells[name].outputs
        assert output.output_type == "display_data"
        page = Elements(output.data["text/html"])
        assert steps_in(page.text) == 5
        assert page.count("svg") == 1 and page.count("table") == 1
        assert output.data["image/png"].startswith("iVBOR")
        assert output.data["text/plain"].startswith("<ActivationMonitor with 5 snapshots")


def test_a_view_that_fails_ends_neither_training_nor_cell(executed):
    """All steps are measured, one warning says why nothing is shown, and the cell shows
    the one line."""
    cells, arrived = executed
    *_, last = cells["other"].outputs
    measured, warned = eval(last.data["text/plain"])
    assert measured == 5
    assert warned == [
        "ActivationMonitor: the notebook is not kept up to date, training goes on "
        "(RuntimeError: no such thing)."
    ]
    assert updates(arrived, "other") == []
    told, output = sorted(cells["failing"].outputs, key=lambda one: one.name)
    assert "the notebook cannot show the monitor (RuntimeError: no such thing)" in told.text
    assert output.text.startswith("<ActivationMonitor with 5 snapshots")


# -- how often


class Shell:
    """Stands for IPython in a kernel, with a clock."""

    kernel = "a kernel"

    def __init__(self, monkeypatch, cost=0.0):
        self.now, self.cost, self.shown = 0.0, cost, []
        fake = types.ModuleType("IPython")
        fake.get_ipython = lambda: self
        fake.display = types.ModuleType("IPython.display")
        fake.display.display = self.display
        monkeypatch.setitem(sys.modules, "IPython", fake)
        monkeypatch.setitem(sys.modules, "IPython.display", fake.display)
        monkeypatch.setattr(live, "time", types.SimpleNamespace(monotonic=lambda: self.now))

    def display(self, data, raw, display_id, update):
        assert raw
        self.shown.append((self.now, data, display_id, update))
        self.now += self.cost


@pytest.mark.parametrize(("cost", "apart"), [(0.0, 1.0), (0.05, 1.0), (0.2, 4.0)])
def test_updates_take_a_small_part_of_the_time(cost, apart, monkeypatch):
    """At most one in a second, and at most one twentieth of the time."""
    shell = Shell(monkeypatch, cost)
    shown = live.Live(lambda: {"text/plain": "x"})
    shown.update()
    assert shell.shown == []  # it is in no cell
    assert shown.display()
    while shell.now < 100.0:
        shown.update()
        shell.now += 0.01
    times = [now for now, *_ in shell.shown]
    gaps = [b - a - cost for a, b in zip(times, times[1:], strict=False)]
    assert apart <= min(gaps) and max(gaps) < apart + 0.03
    assert len(times) * cost <= 0.05 * 100.0 + cost
    assert {display_id for _, _, display_id, _ in shell.shown} == {shell.shown[0][2]}
    assert [update for *_, update in shell.shown][:3] == [False, True, True]


def test_the_last_state_is_shown_at_once(monkeypatch):
    """Without waiting for the second to pass."""
    shell = Shell(monkeypatch)
    states = iter("abc")
    shown = live.Live(lambda: {"text/plain": next(states)})
    shown.display()
    shown.update()
    shown.update(at_once=True)
    assert [data["text/plain"] for _, data, _, _ in shell.shown] == ["a", "b"]


def test_new_findings_are_shown_at_once(monkeypatch):
    """A step with news does not wait; a healthy network has none."""
    for scale, expected in ((0.001, 1), (None, 0)):
        shell = Shell(monkeypatch)
        keras.utils.set_random_seed(0)
        options = {}
        if scale:
            options["initializer"] = keras.initializers.RandomNormal(stddev=scale)
        model = perceptron(3, **options)
        model.compile("sgd", "mse")
        monitor = ActivationMonitor(sample_every=1, on_finding=lambda finding: None)
        monitor._ipython_display_()
        x, y = data()
        model.fit(x, y, batch_size=8, verbose=0, callbacks=[monitor])
        # The cell, the news, and the end: the clock stands still.
        assert len(shell.shown) == 2 + expected
        assert "vanishing" in shell.shown[-1][1]["text/plain"] or not expected


def test_without_a_notebook_it_is_one_line(capsys, monkeypatch):
    """In a plain process, and in a terminal with IPython, which cannot replace text."""
    monitor = ActivationMonitor()
    shell = Shell(monkeypatch)
    shell.kernel = None
    for loaded in (True, False):
        if not loaded:
            monkeypatch.delitem(sys.modules, "IPython")
        monitor._ipython_display_()
        assert capsys.readouterr().out == "<ActivationMonitor without snapshots>\n"
    assert shell.shown == []


def test_a_training_outside_of_a_notebook_needs_none():
    """IPython is not installed here, and the view of a notebook, with plotly, is not
    loaded."""
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
        "sys.modules['IPython'] = None\n"
        "from activation_monitor import ActivationMonitor\n"
        "from models import data, perceptron\n"
        "model = perceptron(3); model.compile('sgd', 'mse'); x, y = data()\n"
        "monitor = ActivationMonitor()\n"
        "model.fit(x, y, verbose=0, callbacks=[monitor]); monitor._ipython_display_()\n"
        "names = {'plotly', 'activation_monitor.views.notebook'}\n"
        "print('loaded', *sorted(names & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    line, loaded = done.stdout.splitlines()[-2:]
    assert line.startswith("<ActivationMonitor with "), done.stderr
    assert loaded.strip() == "loaded"


def test_the_placeholder_has_no_figure():
    """Before the first step there is nothing to draw."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = notebook.bundle(ActivationMonitor().diagnosis, [], "<line>")
    assert set(made) == {"text/plain", "text/html"} and made["text/plain"] == "<line>"
    assert Elements(made["text/html"]).count("svg") == 0

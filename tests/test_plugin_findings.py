"""The tab shows the finding that is selected: its statistic, its layers, its step."""

import time

import numpy as np
import pytest

import board
from activation_monitor.analysis import records
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.storage import log_format, writer
from test_plugin import LAYERS, address, array, curve, find, in_browser, measured

SICK, HEALTHY = "sick/activations", "healthy/activations"
DEAD = 5
"""Row of the layer whose units die at step 20."""


def trained(step, growth):
    """A snapshot with a healthy forward signal and gradients that grow backwards."""
    forward = measured(LAYERS, step)
    rng, n = np.random.default_rng(step), len(LAYERS)
    back = [
        records.measure(1e-4 * growth ** (n - i) * rng.standard_normal((64, 64)))
        for i in range(1, n)
    ]
    outputs = forward.records().copy()
    if growth > 1 and step >= 20:
        records.field(outputs, "dead_units")[DEAD] = 63
        records.field(outputs, "zeros")[DEAD] = 0.99 * 64 * 64
    gradients = np.stack([records.empty(), *back])
    found = {**forward.quantities, "output": outputs, "output_gradient": gradients}
    return Snapshot(step, LAYERS, found, forward.histograms)


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A run with exploding gradients, later also dead units, and a healthy run."""
    folder = tmp_path_factory.mktemp("logs")
    for name, growth in (("sick", 4.0), ("healthy", 1.0)):
        log = writer.EventLog(folder / name, log_format.RUN)
        for step in range(0, 40, 2):
            log.write(trained(step, growth))
        log.close()
    return folder


@pytest.fixture(scope="module", params=[*board.LOADERS])
def client(logs, request):
    """The tab on that folder, with each of TensorBoard's loaders."""
    made = board.Client(logs, request.param)
    made.wait_for(SICK, HEALTHY, step=38)
    return made


# -- the routes


def test_each_finding_comes_with_the_statistic_that_shows_it(client):
    """The worst one is named. A healthy run has none; both offer what was measured."""
    sick, healthy = (client.json("run", run=run) for run in (SICK, HEALTHY))
    assert {f["code"]: f["shown_by"] for f in sick["findings"]} == {
        "exploding-gradients": "output_gradient/rms",
        "dead-units": "dead_units",
    }
    assert sick["worst_finding"] == "exploding-gradients"
    assert healthy["findings"] == [] and healthy["worst_finding"] is None
    offered = {one["value"]: one["text"] for one in healthy["statistics"]}
    assert offered["output_gradient/rms"] == "rms of the gradient"
    assert not any(value.startswith("weight_update/") for value in offered)


def curves(figure, name):
    """The curves of the first panel whose names begin like this."""
    traces = [trace for trace in figure["data"] if trace.get("yaxis", "y") == "y"]
    return [trace for trace in traces if trace.get("name", "").startswith(name)]


@pytest.mark.parametrize("kind", ["depth_profile", "heat_map", "layer_graph"])
def test_a_figure_shows_the_gradient_that_is_asked_for(client, kind):
    """The values are those that were measured, the finding is marked."""
    query = {"run": SICK, "statistic": "output_gradient/rms", "step": 0}
    query |= {"finding": "exploding-gradients", "focus": SICK}
    figure = client.json("figure", kind=kind, **query)
    assert "rms of the gradient" in figure["layout"]["title"]["text"]
    expected = trained(0, 4.0).statistic("rms", "output_gradient")[1:]
    if kind == "depth_profile":
        line, below = [t for t in figure["data"] if t.get("name") == "sick, step 0"]
        np.testing.assert_allclose(array(line["y"]), expected, rtol=1e-6)
        forward = trained(0, 4.0).statistic("rms")
        np.testing.assert_allclose(array(below["y"]), forward, rtol=1e-6)
        bands = figure["layout"]["shapes"]  # one in each panel
        assert [(band["x0"], band["x1"]) for band in bands] == [(1.5, 11.5)] * 2
    elif kind == "heat_map":
        first = array(figure["data"][0]["z"]).reshape(12, 20)[:, 0]
        np.testing.assert_allclose(first, np.log10(expected), rtol=1e-5)
        frame, _ = figure["layout"]["shapes"]  # in two colours
        # A column is two steps wide, a row is one layer high.
        assert [frame[one] for one in ("x0", "y0", "y1")] == [-1, 0.5, 10.5]
    else:
        names = [trace.get("name", "") for trace in figure["data"]]
        assert "exploding-gradients (critical)" in names


def test_the_profile_also_has_the_step_at_which_the_finding_began(client):
    """Between the first step and the chosen one, which is last."""
    query = {"run": [HEALTHY, SICK], "statistic": "dead_units", "focus": SICK}
    figure = client.json("figure", kind="depth_profile", finding="dead-units", **query)
    names = [trace.get("name") for trace in figure["data"]]
    steps = [name for name in names if name and name.startswith("sick, step")]
    # Once for dead units, and once below for the gradients.
    assert steps == ["sick, step 0", "sick, step 20", "sick, step 38"] * 2
    figure = client.json("figure", kind="depth_profile", finding="no-such", **query)
    assert not figure["layout"].get("shapes")


@pytest.mark.parametrize(("step", "dash_of_20"), [(0, "dot"), (38, "dash")])
def test_the_selected_step_is_the_solid_line(client, step, dash_of_20):
    """Also if it is before the step of the finding."""
    query = {"run": SICK, "statistic": "dead_units", "focus": SICK, "step": step}
    figure = client.json("figure", kind="depth_profile", finding="dead-units", **query)
    lines = {trace["name"]: trace for trace in curves(figure, "sick, step")}
    assert lines[f"sick, step {step}"]["line"]["dash"] == "solid"
    assert lines["sick, step 20"]["line"]["dash"] == dash_of_20
    share = array(lines[f"sick, step {step}"]["y"])
    np.testing.assert_allclose(share, trained(step, 4.0).statistic("dead_units") / 64)


def test_a_layer_over_time_shows_its_gradient_or_else_its_output(client):
    """The input has no gradient."""
    query = {"run": SICK, "statistic": "output_gradient/rms"}
    for layer, title in (("net/dense_3", "Gradient of"), ("given", "given over")):
        figure = client.json("figure", kind="layer_over_time", layer=layer, **query)
        assert figure["layout"]["title"]["text"].startswith(title)


@pytest.mark.parametrize(
    ("statistic", "code"),
    [
        ("weight/update_ratio", 400),
        ("nothing/rms", 400),
        ("output_gradient/", 400),
        ("weight_update/update_ratio", 404),
    ],
)
def test_a_statistic_that_cannot_be_shown_gets_an_error(client, statistic, code):
    """Unknown, or not measured in the run."""
    answer = client.get("figure", kind="heat_map", run=SICK, statistic=statistic)
    assert answer.status_code == code, answer.data
    assert b"Traceback" not in answer.data


# -- the page


@pytest.fixture(scope="module")
def driver():
    """One browser for all tests."""
    with board.browser() as made:
        yield made


@pytest.fixture(scope="module")
def url(logs, driver):
    return board.serve(logs)


@pytest.fixture
def page(url, driver):
    """The tab, opened and drawn, after both runs are read."""
    board.open_tab(driver, url)
    board.until(
        lambda: len(driver.find_elements("css selector", "#runs .row")), lambda n: n == 2
    )
    return driver


def click(page, element):
    """Click and wait until everything is drawn."""
    before = board.ready(page)
    element.click()
    board.until(lambda: board.ready(page) > before, bool)


def shown(page):
    """The statistic that is selected, and the titles of profile and heat map."""
    titles = [find(page, f"#{place} .gtitle").text for place in ("profile", "heat")]
    assert titles[0].removesuffix(" over depth") == titles[1].removesuffix(
        " of each layer at each step"
    )
    return find(page, "#statistic").get_property("value"), titles[0]


def shapes(page, place):
    return page.execute_script(
        """const {shapes} = document.getElementById(arguments[0]).layout;
           return (shapes ?? []).filter(({type}) => type === 'rect').length;""",
        place,
    )


GRADIENT = "output_gradient/rms", "rms of the gradient over depth"


@in_browser
def test_the_tab_opens_with_the_statistic_of_the_worst_finding(page):
    """Its card, its layers and its steps are marked. The forward signal would be flat."""
    assert shown(page) == GRADIENT
    assert find(page, ".choice[aria-pressed=true]").text == "exploding-gradients"
    assert "exploding-gradients" in find(page, ".finding").text
    assert shapes(page, "profile") and shapes(page, "heat")
    drawn = np.array(curve(page, "profile", "sick, step 0"), float)
    assert np.log10(drawn[0] / drawn[-1]) > 5
    assert find(page, "#layers-drawn .over-time .gtitle").text.startswith("Gradient of")


@in_browser
def test_a_click_on_a_finding_shows_its_statistic_its_layer_and_its_step(page, url):
    """The address has them, and a link opens them again."""
    for _ in range(2):
        click(page, page.find_elements("css selector", ".choice")[1])
        assert shown(page) == ("dead_units", "dead units over depth")
        assert find(page, "#step-shown").text == "20"
        assert find(page, "#layers .chosen .text").text == LAYERS[DEAD].name
        assert "dead-units" in find(page, ".finding").text
        link = address(page)
        board.open_tab(page, url, link.removeprefix("#activation_monitor"))
        assert shown(page) == ("dead_units", "dead units over depth")
    click(page, page.find_elements("css selector", ".choice")[0])
    assert shown(page) == GRADIENT and find(page, "#step-shown").text == "0"


@in_browser
def test_the_statistic_of_the_user_stays_until_another_run_or_finding_is_selected(page):
    """It stays when the step moves. A healthy run shows the rms of its outputs."""
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.select import Select

    Select(find(page, "#statistic")).select_by_value("std")
    board.until(
        lambda: shown_safely(page), lambda found: found == ("std", "std over depth")
    )
    find(page, "#step").send_keys(Keys.HOME)
    board.until(lambda: curve(page, "profile", "sick, step 0"), bool)
    assert shown(page) == ("std", "std over depth")
    names = page.find_elements("css selector", "#runs .name")
    click(page, next(one for one in names if one.text.startswith("healthy")))
    assert shown(page) == ("rms", "rms over depth")
    assert not shapes(page, "heat")
    names = page.find_elements("css selector", "#runs .name")
    click(page, next(one for one in names if one.text.startswith("sick")))
    assert shown(page) == GRADIENT


def shown_safely(page):
    """Like `shown`, None while the figures show different statistics."""
    try:
        return shown(page)
    except AssertionError:
        return None


@in_browser
def test_the_evidence_opens_without_selecting_the_finding(page):
    """So does the button that copies a line."""
    click(page, page.find_elements("css selector", ".choice")[1])
    before = address(page)
    find(page, ".finding summary").click()
    find(page, ".finding .copy").click()
    time.sleep(0.5)
    assert find(page, ".finding details").get_property("open")
    assert address(page) == before

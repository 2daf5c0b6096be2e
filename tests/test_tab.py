"""What the tab shows on its first screen, and how the user moves through it."""

import json

import numpy as np
import pytest

import board
from activation_monitor import read_recording
from activation_monitor.analysis import records
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.storage import log_format, writer
from activation_monitor.views.figures import depth_profile
from test_plugin import address, chain, find, in_browser, measured

RUNS = [f"run_{i}" for i in range(10)]
SHRINKING = {"run_3", "run_7"}
LAYERS = chain([f"net/dense_{i}" for i in range(12)])
OTHER = chain(["other/a", "net/dense_0"])
MANY = chain(
    ["net/stem"]
    + [f"net/encoder/block_{i}/{part}" for i in range(12) for part in ("attention", "mlp")]
    + [f"net/decoder/dense_{i}" for i in range(24)]
)
STEPS = (0, 2, 4, 20)


def write(folder, layers, gain=1.0):
    log = writer.EventLog(folder, log_format.RUN)
    for step in STEPS:
        snapshot = measured(layers, step, gain)
        gradients = np.stack(
            [records.measure(np.full((4, 4), 1e-3 * (i + 1))) for i in range(len(layers))]
        )
        found = {**snapshot.quantities, "output_gradient": gradients}
        log.write(Snapshot(step, layers, found, snapshot.histograms))
    log.close()


@pytest.fixture(scope="module")
def driver():
    """One browser for all tests."""
    with board.browser() as made:
        yield made


def opened(driver, url, settings="", count=1):
    """The tab, after TensorBoard has loaded all runs."""
    board.open_tab(driver, url, settings)
    rows = "return document.querySelectorAll('#runs tr').length"
    board.until(lambda: driver.execute_script(rows), lambda n: n == count)
    still(driver)
    return driver


def still(page):
    """Wait until nothing is drawn any more."""
    waiting = "return document.querySelectorAll('.plot.waiting').length"
    board.until(lambda: page.execute_script(waiting), lambda n: n == 0)


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    """TensorBoard with ten runs, two of which have findings; one has other layers."""
    folder = tmp_path_factory.mktemp("ten")
    for name in RUNS:
        gain = 0.2 if name in SHRINKING else 1.0
        write(folder / name, OTHER if name == "run_9" else LAYERS, gain)
    return board.serve(folder)


@pytest.fixture
def page(ten, driver):
    return opened(driver, ten, count=10)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """TensorBoard with one run of 50 layers in modules."""
    folder = tmp_path_factory.mktemp("many")
    write(folder / "run", MANY)
    return board.serve(folder)


def texts(page, selector):
    return [one.text for one in page.find_elements("css selector", selector)]


def click(page, element):
    """Click and wait until everything is drawn."""
    before = board.ready(page)
    element.click()
    board.until(lambda: board.ready(page) > before, bool)
    still(page)


def press(page, *keys):
    """Press keys where the keyboard focus is."""
    from selenium.webdriver import ActionChains

    ActionChains(page, duration=0).send_keys(*keys).perform()


def setting(page, name):
    """A setting in the address; None if it is not there."""
    from urllib.parse import parse_qs

    found = parse_qs(address(page).replace("#activation_monitor", ""))
    return found.get(f"p.activation_monitor.{name}", [None])[0]


def row(page, run):
    rows = page.find_elements("css selector", "#runs tr")
    return next(one for one in rows if find(one, ".run").text == run)


# -- colours


def test_a_run_has_the_colour_that_the_report_has(tmp_path):
    """Runs of training come first, by name. Their evaluations take no colour of theirs."""
    for run in ("b", "a-x", "a"):
        for part in (log_format.RUN, log_format.VALIDATION_RUN):
            log = writer.EventLog(tmp_path / run, part)
            log.write(measured(LAYERS, 0))
            log.close()
    client = board.Client(tmp_path)
    runs = "a", "a-x", "b"  # "a-x/" comes before "a/", but not the folder
    names = [f"{run}/{log_format.RUN}" for run in runs]
    names += [f"{run}/{log_format.VALIDATION_RUN}" for run in runs]
    client.wait_for(*names)
    listed = client.json("runs")
    assert {run["name"]: run["place"] for run in listed["runs"]} == {
        name: place for place, name in enumerate(names)
    }
    figure = client.json("figure", kind="depth_profile", run=[names[2], names[3]])
    drawn = [trace for trace in figure["data"] if trace.get("name") == "b, step 0"]
    in_the_report = depth_profile({run: read_recording(tmp_path / run) for run in runs})
    (expected,) = [trace for trace in in_the_report.data if trace.name == "b, step 0"]
    assert {trace["line"]["color"] for trace in drawn} == {expected.line.color}


# -- histograms


@pytest.mark.parametrize(
    ("statistic", "layer", "counted"),
    [
        ("rms", "net/dense_2", "Histograms of net/dense_2"),
        ("weight/rms", "net/dense_2", "Histograms of the weight of net/dense_2"),
        ("weight_update/rms", "net/dense_2", "Histograms of the weight of net/dense_2"),
        ("weight_update/rms", "given", "Histograms of given"),  # it has no weights
    ],
)
def test_histograms_are_of_the_quantity_of_the_statistic(
    weighed, statistic, layer, counted
):
    """Updates have no histograms: those of the weights are shown."""
    query = {"run": "run/activations", "layer": layer, "statistic": statistic}
    figure = weighed.json("figure", kind="histogram_over_time", **query)
    assert figure["layout"]["title"]["text"] == counted


@pytest.fixture(scope="module")
def weighed(tmp_path_factory):
    """A run with histograms of outputs and weights."""
    folder = tmp_path_factory.mktemp("weighed")
    snapshot = measured(LAYERS, 0)
    found = {**snapshot.quantities, "weight_update": snapshot.quantities["weight"]}
    histograms = {"output": snapshot.histograms["output"]}
    histograms["weight"] = histograms["output"].copy()
    histograms["weight"][0] = 0  # the input
    log = writer.EventLog(folder / "run", log_format.RUN)
    log.write(Snapshot(0, LAYERS, found, histograms))
    log.close()
    client = board.Client(folder)
    client.wait_for("run/activations")
    return client


# -- the first screen


@in_browser
@pytest.mark.parametrize("size", [(1024, 768), (1440, 900)])
def test_the_first_screen_has_every_answer_and_a_figure(page, size):
    """With ten runs: the rows with findings, the line to change, and 200 pixels of the
    first figure."""
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False},
    )
    try:
        assert texts(page, "#runs .run")[:2] == sorted(SHRINKING)
        cells = texts(row(page, "run_3"), "td")
        assert cells[2].startswith("vanishing-activations initializer")
        assert cells[3].startswith("net/dense_") and cells[4] == "initialization"
        assert "kernel_initializer=" in cells[5]
        board.until(
            lambda: page.execute_script(
                """const box = document.querySelector('#profile .nsewdrag')
                     .getBoundingClientRect();
                   return window.innerHeight - box.top;"""
            ),
            lambda seen: seen >= 200,
        )
        wide = page.execute_script(
            """return ['main', 'header', '#run-box'].map((part) => {
                 const {scrollWidth, clientWidth} = document.querySelector(part);
                 return scrollWidth - clientWidth;
               });"""
        )
        assert max(wide) <= 0
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@in_browser
def test_only_the_selected_run_is_shown_in_detail(page):
    """A healthy one says so."""
    assert find(page, "#findings h3").text.startswith("Run run_3")
    click(page, find(row(page, "run_5"), ".run"))
    assert find(page, "#findings").text == "Run run_5: healthy"
    assert "chosen" in row(page, "run_5").get_attribute("class")
    assert texts(row(page, "run_5"), "td")[2:] == ["healthy", "", "", ""]


# -- runs


@in_browser
def test_the_filter_lists_runs_and_the_buttons_draw_those_that_are_listed(page):
    """The others stay as they are."""
    find(page, "#run-filter").send_keys("_7")
    assert texts(page, "#runs .run") == ["run_7"]
    click(page, find(page, "#no-runs"))
    assert json.loads(setting(page, "hidden")) == ["run_7/activations"]
    find(page, "#run-filter").clear()
    find(page, "#run-filter").send_keys("run")
    click(page, find(page, "#no-runs"))
    assert find(page, "#empty").text.startswith("No run is drawn")
    click(page, find(page, "#all-runs"))
    assert setting(page, "hidden") is None and not find(page, "#empty").is_displayed()


@in_browser
def test_the_selected_run_stays_selected_when_others_are_hidden_or_drawn(page):
    """Also if it was selected by default. The keyboard focus stays on the box."""
    box = find(row(page, "run_7"), "input")
    click(page, box)
    assert find(page, "#findings h3").text == "Run run_3"
    assert setting(page, "run") == "run_3/activations"
    active = page.switch_to.active_element
    assert active.get_attribute("aria-label") == "draw run_7"
    click(page, active)
    assert setting(page, "hidden") is None


@in_browser
def test_a_run_is_compared_with_a_healthy_run_or_the_chosen_one(page, ten):
    """The first healthy run by name, not the first run. The address has the choice."""
    from selenium.webdriver.support.select import Select

    def reference():
        return find(page, "#reference").find_element("css selector", ":checked").text

    def drawn(place):
        return find(page, place).get_attribute("data-drawn") or ""

    assert reference() == "run_0"
    assert "reference=run_0/activations" in drawn("#comparison")
    assert "run=run_3/activations&run=run_0/activations&focus" in drawn("#profile")
    pair = "run=run_3/activations&run={}/activations&layer"
    assert pair.format("run_0") in drawn(".over-time")
    click(page, find(row(page, "run_0"), ".run"))
    assert reference() == "run_0"
    assert "run=run_0/activations&layer" in drawn(".over-time")  # beside no other
    click(page, find(row(page, "run_3"), ".run"))
    Select(find(page, "#reference")).select_by_visible_text("run_7")
    board.until(lambda: drawn(".over-time"), lambda q: pair.format("run_7") in q)
    opened(page, ten, address(page).removeprefix("#activation_monitor"), 10)
    assert reference() == "run_7"


# -- layers


@in_browser
def test_the_layers_of_the_selected_run_come_first(page):
    """Then those that only other runs have, paler."""
    click(page, find(row(page, "run_9"), ".run"))
    names = [one.name for one in (*OTHER, *LAYERS) if one.name != "given"]
    expected = ["given", *dict.fromkeys(names)]
    assert texts(page, "#layers .text") == expected
    pale = texts(page, "#layers .elsewhere .text")
    assert pale == expected[3:]


@in_browser
def test_a_layer_that_the_selected_run_does_not_have_is_said_to_be_missing(page):
    """The figure across the runs still shows it."""
    click(page, find(row(page, "run_9"), ".run"))
    rows = page.find_elements("css selector", "#layers .elsewhere")
    rows[-1].click()
    still(page)
    assert texts(page, "#layers-drawn .notice") == ["run_9 has no layer net/dense_11."]
    assert find(page, ".across .plotly").is_displayed()
    assert not find(page, ".histograms").is_displayed()


@in_browser
def test_a_filter_that_nothing_matches_says_so(page):
    """Of runs and of layers."""
    find(page, "#run-filter").send_keys("zzz")
    assert texts(page, "#runs tr") == ["No run matches the filter."]
    find(page, "#layer-filter").send_keys("zzz")
    assert find(page, "#layers").text == "No layer matches."


@in_browser
def test_several_layers_are_drawn_and_put_away_again(page):
    """Up to four with Shift; a click without it leaves one."""
    page.execute_script(
        """const rows = () => document.querySelectorAll('#layers .row');
           rows()[1].click();
           for (const place of [2, 3, 4, 5]) {
             rows()[place].dispatchEvent(new MouseEvent('click', {shiftKey: true}));
           }"""
    )
    still(page)
    titles = "#layers-drawn .over-time .gtitle"
    assert texts(page, titles) == [f"net/dense_{i} over the steps" for i in range(1, 5)]
    page.find_elements("css selector", "#layers .row")[7].click()
    still(page)
    board.until(
        lambda: texts(page, titles), lambda found: found == ["net/dense_6 over the steps"]
    )
    assert len(page.find_elements("css selector", "#layers-drawn .parts")) == 1


@in_browser
def test_the_keyboard_goes_through_layers_and_steps(page):
    """Up and down, left and right; not while a text is typed. The keyboard focus goes
    along."""
    from selenium.webdriver.common.keys import Keys

    click(page, find(row(page, "run_5"), ".run"))
    rows = page.find_elements("css selector", "#layers .row")
    rows[3].click()
    board.until(lambda: setting(page, "layers"), lambda s: s == '["net/dense_2"]')
    press(page, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP)
    assert setting(page, "layers") == '["net/dense_3"]'
    assert page.switch_to.active_element.get_attribute("title").startswith("net/dense_3,")
    press(page, Keys.ARROW_LEFT)
    assert setting(page, "step") == "4" and find(page, "#step-shown").text == "4"
    press(page, Keys.ARROW_LEFT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert setting(page, "step") is None
    find(page, "#layer-filter").send_keys("dense_1", Keys.ARROW_LEFT, Keys.ARROW_DOWN)
    assert setting(page, "step") is None
    assert setting(page, "layers") == '["net/dense_3"]'
    still(page)


@in_browser
def test_more_than_forty_layers_are_a_tree_of_modules(page, many):
    """The modules of the chosen layer are open. The filter finds layers in all of them."""
    page = opened(page, many)
    top = page.execute_script(
        """return [...document.getElementById('layers').children].map(
             (one) => [one.tagName, one.querySelector('.text').textContent]);"""
    )
    assert top == [
        ["BUTTON", "given"],
        ["DETAILS", "net"],
    ]
    from selenium.webdriver.common.keys import Keys

    find(page, "#layers .row").click()  # the input
    press(page, *[Keys.ARROW_DOWN] * 5)
    board.until(
        lambda: setting(page, "layers"),
        lambda s: s == '["net/encoder/block_1/mlp"]',
    )
    opened_modules = "#layers details[open] > summary .text"
    assert texts(page, opened_modules) == ["net", "encoder", "block_1"]
    assert find(page, "#layers .chosen").is_displayed()
    assert find(page, "#layers .chosen .text").text == "mlp"
    find(page, "#layer-filter").send_keys("block_7")
    assert texts(page, "#layers .text") == [
        f"net/encoder/block_7/{part}" for part in ("attention", "mlp")
    ]


@in_browser
def test_forty_layers_are_a_list(page):
    """All names are in full."""
    assert not page.find_elements("css selector", "#layers details")
    assert "net/dense_11" in texts(page, "#layers .text")


# -- steps


CURSORS = """
return [...document.querySelectorAll('.over-steps')]
  .filter((place) => place.layout && place.checkVisibility())
  .map((place) => place.layout.shapes.filter(({name}) => name === 'cursor')
    .map(({x0, x1}) => [x0, x1]));
"""


@in_browser
def test_all_figures_over_the_steps_have_the_same_cursor(page):
    """It follows the slider, and a click in a figure moves both."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    def cursors():
        return {step for (pair,) in page.execute_script(CURSORS) for step in pair}

    assert cursors() == {20}
    assert len(page.execute_script(CURSORS)) == 4  # map, layer, histograms, across the runs
    find(page, "#step").send_keys(Keys.HOME)
    board.until(cursors, lambda found: found == {0})
    still(page)
    heat = find(page, "#heat .nsewdrag")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", heat)
    ActionChains(page).move_to_element_with_offset(
        heat, heat.size["width"] // 2 - 4, 0
    ).click().perform()
    board.until(cursors, lambda found: found == {20})
    assert find(page, "#step-shown").text == "20 (last)"
    still(page)


@in_browser
def test_the_slider_goes_on_after_all_runs_were_hidden_while_it_drew(page):
    """Nothing waits for a figure that is not drawn any more."""
    page.execute_script(
        """const slider = document.getElementById('step');
           for (const place of [1, 2, 0]) {
             slider.value = place;
             slider.dispatchEvent(new Event('input'));
           }
           document.getElementById('no-runs').click();"""
    )
    assert find(page, "#empty").is_displayed()
    click(page, find(page, "#all-runs"))
    from selenium.webdriver.common.keys import Keys

    find(page, "#step").send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    drawn = "return document.getElementById('profile').dataset.drawn"
    board.until(lambda: page.execute_script(drawn), lambda query: "step=2" in query)


@in_browser
def test_the_cursor_is_at_the_step_of_the_slider_also_if_a_figure_comes_late(page):
    """A layer is chosen and the step is moved before the figures arrive."""
    page.execute_script(
        """document.querySelectorAll('#layers .row')[3].click();
           const slider = document.getElementById('step');
           slider.value = 1;
           slider.dispatchEvent(new Event('input'));"""
    )
    still(page)
    assert {step for (pair,) in page.execute_script(CURSORS) for step in pair} == {2}


@in_browser
def test_an_error_is_gone_when_the_figure_is_drawn_again(page):
    """For example after the server was restarted."""
    page.execute_script(
        """window.kept = window.fetch;
           window.fetch = () => Promise.reject(new Error('no answer'));
           document.querySelectorAll('#layers .row')[4].click();"""
    )

    def said():
        return texts(page, "#heat > .notice")

    board.until(said, lambda found: found == ["no answer"])
    still(page)
    page.execute_script(
        """window.fetch = window.kept;
           document.querySelectorAll('#layers .row')[5].click();"""
    )
    board.until(said, lambda found: found == [])
    still(page)
    assert find(page, "#heat .plotly").is_displayed()


def test_a_layer_without_the_quantity_of_the_statistic_shows_its_outputs(weighed):
    """In each figure of a layer: another run may have measured it."""
    query = {"run": "run/activations", "layer": "net/dense_2"}
    query |= {"statistic": "output_gradient/rms", "focus": "run/activations"}
    for kind in ("layer_over_time", "statistic_over_time", "histogram_over_time"):
        title = weighed.json("figure", kind=kind, **query)["layout"]["title"]["text"]
        assert "gradient" not in title
    answer = weighed.get("figure", kind="heat_map", **query)
    assert answer.status_code == 404


def test_a_snapshot_of_the_weights_only_is_not_the_last_line(tmp_path):
    """As after a step at which the loss became NaN."""
    log = writer.EventLog(tmp_path / "run", log_format.RUN)
    for step in (0, 10):
        log.write(measured(LAYERS, step))
    weights = {"weight": measured(LAYERS, 13).quantities["weight"]}
    nothing = {"output": records.empty(len(LAYERS))}
    log.write(Snapshot(13, LAYERS, nothing | weights, {}))
    log.close()
    client = board.Client(tmp_path)
    client.wait_for("run/activations", step=13)
    for statistic in ("rms", "weight/rms"):
        query = {"run": "run/activations", "statistic": statistic}
        figure = client.json("figure", kind="depth_profile", **query)
        named = [trace["name"] for trace in figure["data"] if "customdata" in trace]
        assert {name for name in named if name.startswith("run, ")} == {
            "run, step 0",
            "run, step 10",
        }

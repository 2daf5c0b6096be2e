"""Names at the ends of lines: where they stand, and what they say."""

import html
import math

import numpy as np
import pytest
from scipy import optimize

import board
from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views import figures
from activation_monitor.views.figures import colours, labels
from networks import Drawn, blocks, chain, network, tap


def steps_of(*sizes, step=20, **options):
    """A chain at steps 0, 20, ..., with these sizes of its last layer but one."""
    return Recording(
        chain(1.0, size, step=step * i, **options) for i, size in enumerate(sizes)
    )


def ends(figure, row=1):
    """Text to the label at the end of a line, in a panel."""
    axis = "y" if row == 1 else f"y{row}"
    notes = figure.layout.annotations
    return {html.unescape(n.text): n for n in notes if n.yref == axis and n.xshift}


def pixels(figure, row=1):
    """Text to the ends of a label in pixels above the foot of its panel."""
    axis = figure.layout["yaxis" if row == 1 else f"yaxis{row}"]
    height = labels.panel_height(figure.layout, "" if row == 1 else str(row))
    low, high = axis.range
    found = {}
    for text, note in ends(figure, row).items():
        middle = (note.y - low) / (high - low) * height + note.yshift
        half = 7 * (1 + note.text.count("<br>"))
        found[text] = middle - half, middle + half
    return found, height


def test_places_are_the_nearest_ones_without_overlap():
    """As a quadratic program finds them, for random places and heights."""
    rng = np.random.default_rng(0)
    for count in (1, 2, 5, 9):
        places = rng.uniform(-20, 220, count)
        tall = rng.choice([14.0, 28.0], count)
        found = labels.spread(places, tall, 0.0, 300.0)
        order = np.argsort(places)
        gaps = (tall[order][1:] + tall[order][:-1]) / 2
        limits = [
            {"type": "ineq", "fun": lambda y, i=i, gap=gap: y[i + 1] - y[i] - gap}
            for i, gap in enumerate(gaps)
        ]
        start = np.cumsum([tall[order][0] / 2, *gaps])
        nearest = optimize.minimize(
            lambda y, wanted=places[order]: np.sum((y - wanted) ** 2),
            start,
            bounds=[(0, 300)] * count,
            constraints=[
                *limits,
                {"type": "ineq", "fun": lambda y, h=tall[order][0]: y[0] - h / 2},
                {"type": "ineq", "fun": lambda y, h=tall[order][-1]: 300 - h / 2 - y[-1]},
            ],
            options={"ftol": 1e-12, "maxiter": 500},
        )
        np.testing.assert_allclose(found[order], nearest.x, atol=0.05)


def test_places_that_are_apart_stay():
    """Only texts that would overlap move."""
    found = labels.spread([50.0, 10.0, 90.0], [14.0] * 3, 0.0, 100.0)
    np.testing.assert_array_equal(found, [50.0, 10.0, 90.0])


@pytest.mark.parametrize("focus", [None, "run_7"])
def test_ten_runs_have_ten_names_that_do_not_overlap(focus):
    """In both panels of the comparison, each in its colour, readable on the page."""
    runs = {f"run_{i}": steps_of(1.0, 1.0 + 0.05 * i) for i in range(10)}
    figure = figures.depth_profile(runs, focus=focus)
    assert {*ends(figure)} == {*runs}
    found, height = pixels(figure)
    spans = sorted(found.values())
    assert spans[0][0] >= -0.1 and spans[-1][1] <= height + 0.1
    assert all(a[1] <= b[0] + 0.2 for a, b in zip(spans, spans[1:], strict=False))
    for i, run in enumerate(runs):
        note, colour = ends(figure)[run], colours.LIGHT.runs[i]
        assert note.font.color == colours.readable(colour, "#ffffff", colours.LIGHT.ink)
    # No line has an entry in the legend.
    entries = {trace.name for trace in figure.data if trace.showlegend}
    assert not any(run in name for run in runs for name in entries)
    compared = figures.comparison(runs)
    assert {*ends(compared, 2)} == {*runs} - {"run_0"} | {"reference"}
    assert "run_0 (reference)" in ends(compared)


def test_a_label_stands_where_its_line_ends():
    """At the last layer, at the value of the last step, if it has room."""
    runs = {"a": steps_of(1.0, 1.0), "b": steps_of(1.0, 1.0)}
    runs["b"][1].field("second_moment")[-1] = 1e6
    figure = figures.depth_profile(runs)
    for run, size in (("a", 1.0), ("b", 1e3)):
        note = ends(figure)[run]
        assert (note.x, note.yshift, note.xanchor) == (3.0, 0.0, "left")
        np.testing.assert_allclose(note.y, math.log10(size), atol=1e-12)


def order_of(figure, row=1):
    """The texts of the labels, from the lowest to the highest."""
    found = pixels(figure, row)[0]
    return sorted(found, key=lambda text: found[text])


def test_lines_that_meet_in_the_head_have_names_in_the_order_before_it():
    """At the heights of the last layer at which they are apart, in both panels. In the
    head the order is another one. Lines that are apart at their ends have names there."""
    sizes = {"c": 1e-3, "a": 1.0, "d": 1e3, "b": 1e5}
    runs = {
        run: Recording([network(*_with_head(size, 1.0 - 0.1 * i))])
        for i, (run, size) in enumerate(sizes.items())
    }
    figure = figures.comparison(runs, reference="a")
    assert order_of(figure) == ["c", "a (reference)", "d", "b"]
    assert order_of(figure, 2) == ["c", "reference", "d", "b"]
    for run, size in (("c", 1e-3), ("d", 1e3), ("b", 1e5)):
        np.testing.assert_allclose(ends(figure)[run].y, math.log10(size), atol=1e-12)
        assert ends(figure)[run].x == 10.0
    apart = {
        run: Recording([network(*_with_head(size, 1 / size))])
        for run, size in sizes.items()
    }
    assert order_of(figures.depth_profile(apart)) == ["b", "d", "a", "c"]


def _with_head(size, head):
    return [*(tap(f"d{i}", size) for i in range(9)), tap("head", head)]


def test_of_lines_that_are_never_apart_the_last_point_decides():
    """Also a place at which only some of the lines are apart is better than none."""
    same = [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (3.0, 1.0)]
    assert labels.heights_apart([same, same], 0.1) == [1.0, 1.0]
    higher = [(0.0, 1.0), (1.0, 9.0), (2.0, 2.0), (3.0, 1.0)]  # 1 is before the last third
    assert labels.heights_apart([same, same, higher], 0.1) == [1.0, 1.0, 2.0]


def test_a_run_that_ends_in_zeros_or_nan_has_its_name_at_the_mark():
    """At the edge at which the mark of its last layer is."""
    runs = {
        "zero": Recording([network(tap("a"), tap("b", 0.0))]),
        "nan": Recording([network(tap("a"), tap("b", np.full((2, 2), math.nan)))]),
        "fine": Recording([network(tap("a"), tap("b", 3.0))]),
    }
    figure = figures.depth_profile(runs)
    found = {run: note.y for run, note in ends(figure).items()}
    assert found["zero"] < 0 < found["fine"] < found["nan"]
    marks = {trace.name: trace.y[0] for trace in figure.data if trace.showlegend}
    np.testing.assert_allclose(10.0 ** found["zero"], marks["zero"])
    np.testing.assert_allclose(10.0 ** found["nan"], marks["NaN or infinite elements"])


@pytest.mark.parametrize(("count", "drawn"), [(2, "ab"), (3, "abc"), (4, "a")])
def test_of_many_runs_only_that_in_front_has_points_beside_the_trunk(count, drawn):
    """Lines have their names at the ends, points have not. Their zeros stay marked."""
    runs = {run: Recording([blocks(3, lambda i: 2.0**i)]) for run in "abcd"[:count]}
    runs["b"][0].field("second_moment")[runs["b"][0].names.index("up2")] = 0.0
    figure = figures.depth_profile(runs)
    points = {
        t.name[0] for t in figure.data if t.mode == "markers" and t.legendgroup != "zero"
    }
    assert points == {*drawn}
    (zeros,) = [t for t in figure.data if t.name == "zero"]
    assert tuple(zeros.customdata) == ("up2",)


def test_a_network_that_is_less_deep_has_its_name_where_it_ends():
    """In the panel, not in the margin."""
    runs = {"deep": Recording([Drawn(0).chain(20).snapshot()])}
    runs["flat"] = Recording([Drawn(0).chain(5).snapshot()])
    found = ends(figures.depth_profile(runs))
    assert (found["deep"].x, found["flat"].x) == (21.0, 6.0)
    # Lines of others may be behind it.
    assert found["deep"].bgcolor is None and found["flat"].bgcolor is not None


def test_with_one_run_the_lines_have_their_steps():
    """With what begins at that step. In the colour of the run, first dotted, last solid
    and thickest."""
    finding = Finding("dead-units", "warning", 20, ("d2",), {}, ".")
    recording = steps_of(1.0, 2.0, 3.0)
    figure = figures.depth_profile(
        {"run": recording}, steps=[0, 20, 40], marked={"run": finding}, places={"run": 3}
    )
    assert {*ends(figure)} == {"step 0", "step 20 (dead-units begins)", "step 40"}
    lines = [t for t in figure.data if t.mode and "lines" in t.mode and t.customdata]
    assert {t.line.color for t in lines} == {colours.LIGHT.runs[3]}
    assert [t.line.dash for t in lines] == ["dot", "dash", "solid"]
    widths, opacities = ([t.line.width for t in lines], [t.opacity for t in lines])
    assert widths[2] > max(widths[:2]) and opacities[2] > max(opacities[:2])


def test_a_long_finding_is_in_a_second_line_of_the_label():
    """Instead of being cut."""
    finding = Finding("symmetric-initialization", "critical", 0, ("d2",), {}, ".")
    figure = figures.depth_profile({"run": steps_of(1.0, 2.0)}, marked={"run": finding})
    assert "step 0<br>(symmetric-initialization begins)" in ends(figure)


def test_a_key_explains_the_dashes_of_several_runs():
    """In one line above the panels. One run has its steps at the lines instead."""
    recording = steps_of(1.0, 2.0, 3.0)
    runs = {"a": recording, "b": recording}

    def key(figure):
        return [n.text for n in figure.layout.annotations if n.yref == "paper"]

    assert key(figures.depth_profile(runs)) == ["dotted: first step"]
    figure = figures.depth_profile(runs, steps=[0, 20, 40])
    assert key(figure) == ["dotted: first step, dashed: step 20"]
    assert key(figures.comparison(runs)) == ["dotted: first step"]
    assert key(figures.depth_profile({"a": recording})) == []
    assert key(figures.depth_profile(runs, steps=40)) == []


def test_the_run_in_front_is_drawn_last_and_thickest():
    """The default is the first one."""
    runs = {run: steps_of(1.0, 2.0) for run in "abc"}
    for draw in (figures.depth_profile, figures.comparison):
        for focus, front in ((None, "a"), ("b", "b"), ("c", "c")):
            figure = draw(runs, focus=focus)
            of_panel = [t for t in figure.data if t.customdata and t.yaxis in (None, "y")]
            assert of_panel[-1].name == f"{front}, step 20"
            width = {t.name[0]: t.line.width for t in of_panel if "20" in t.name}
            opacity = {t.name[0]: t.opacity for t in of_panel if "20" in t.name}
            for run in {*"abc"} - {front}:
                assert width[run] < width[front] and opacity[run] < opacity[front]


@pytest.mark.parametrize("length", [3, 30, 31, 200])
def test_names_are_cut_in_the_middle_and_the_plot_keeps_60_percent(length):
    """Of a figure of 700 pixels. Both ends of a name are kept."""
    name = "".join(chr(ord("a") + i % 26) for i in range(length))
    cut = html.unescape(labels.cut(name))
    assert cut == name if length <= 30 else len(cut) <= 30
    assert name.startswith(cut.split("…")[0]) and name.endswith(cut.split("…")[-1])
    runs = {f"{i}{name}{i}": steps_of(1.0, 2.0 + i) for i in range(3)}
    for figure in (figures.depth_profile(runs), figures.comparison(runs)):
        margin = figure.layout.margin
        assert 700 - margin.l - margin.r >= 0.6 * 700
        lines = [line for text in ends(figure) for line in text.split("<br>")]
        assert margin.r >= 5.5 * max(map(len, lines))


def test_of_more_runs_than_fit_the_run_in_front_keeps_its_name():
    """Labels never overlap."""
    runs = {f"run_{i}": steps_of(1.0, 1.0 + 0.01 * i) for i in range(60)}
    figure = figures.depth_profile(runs, focus="run_30")
    assert "run_30" in ends(figure) and len(ends(figure)) < 60
    spans = sorted(pixels(figure)[0].values())
    assert all(a[1] <= b[0] + 0.2 for a, b in zip(spans, spans[1:], strict=False))


def test_the_legend_has_at_most_four_entries():
    """For what is not a line: the band, a finding, zero, NaN. One for both panels."""
    taps = [tap("x"), tap("a", gradient=0.0), tap("b", 0.0), tap("c", math.nan)]
    recording = Recording([network(*taps, tap("d", gradient=math.nan))])
    finding = Finding("dead-units", "warning", 0, ("a",), {}, ".")
    runs = {"one": recording, "two": recording}
    figure = figures.depth_profile(runs, marked={"one": finding, "two": finding})
    entries = [trace.name for trace in figure.data if trace.showlegend]
    assert len(entries) == len({*entries}) <= 4
    assert {"zero", "NaN or infinite elements"} <= {*entries}
    assert any(name.startswith("dead-units in 1 layer") for name in entries)
    assert {t.yaxis for t in figure.data if t.name == "zero"} == {"y", "y2"}


def test_the_lines_of_layers_have_their_names_at_the_end():
    """The updates of a run, instead of a legend of a dozen entries."""
    from test_figures_of import trained

    steps = Recording(trained(1e-3, 2e-4, 1e-2, step=i) for i in range(3))
    figure = figures.update_ratio(steps)
    assert {*ends(figure)} == {"d1", "d2", "d3"}
    assert not any(trace.showlegend for trace in figure.data)


BOXES = """
const box = (part) => {
  const {left, right, top, bottom} = part.getBoundingClientRect();
  return [left, right, top, bottom];
};
return [...document.querySelectorAll('.js-plotly-plot')].map((figure) => ({
  notes: [...figure.querySelectorAll('.annotation-text')].map(box),
  titles: [...figure.querySelectorAll('.g-xtitle, .g-x2title')]
    .filter((one) => one.textContent).map(box),
  legend: [...figure.querySelectorAll('.legend')].map(box),
  plot: [...figure.querySelectorAll('.nsewdrag')].map(box),
  ticks: [...figure.querySelectorAll('.xtick, .x2tick')].map(box),
  figure: box(figure),
}));
"""


def overlap(a, b):
    """Whether two boxes have more than a pixel in common."""
    return min(a[1], b[1]) - max(a[0], b[0]) > 1 and min(a[3], b[3]) - max(a[2], b[2]) > 1


@pytest.mark.skipif(bool(board.why_no_browser()), reason=board.why_no_browser())
def test_in_a_browser_nothing_is_printed_over_something_else(tmp_path):
    """With ten runs and all kinds of legend entries, 700 pixels wide: neither labels nor
    the legend, nor names of layers beyond the edge."""
    sizes = np.linspace(1.0, 1.4, 10)
    taps = [tap(f"network/dense_{i}", gradient=0.0 if i == 3 else 1.0) for i in range(11)]
    ill = Recording([network(*taps, tap("network/last", math.nan))])
    runs = {f"sweep/with-a-long-name/{i}": steps_of(1.0, s) for i, s in enumerate(sizes)}
    finding = Finding("dead-units", "warning", 0, ("network/dense_2",), {}, ".")
    drawn = [
        figures.depth_profile(runs),
        figures.comparison(runs, dark=True),
        figures.depth_profile({"ill": ill}, marked={"ill": finding}),
        figures.statistic_over_time(runs, "d2"),
    ]
    page = "".join(
        figure.to_html(full_html=False, include_plotlyjs=not i)
        for i, figure in enumerate(drawn)
    )
    path = tmp_path / "page.html"
    path.write_text(f'<!DOCTYPE html><meta charset="utf-8">{page}', encoding="utf-8")
    with board.browser(716, 900) as driver:  # the margins of the page are 8 pixels wide
        driver.get(path.as_uri())
        boxes = board.until(
            lambda: driver.execute_script(BOXES),
            lambda found: len(found) == 4 and all(one["ticks"] for one in found),
        )
    for one in boxes:
        left, right, top, bottom = one["figure"]
        assert right - left == 700 and one["notes"] and one["titles"]
        assert all(b[1] - b[0] >= 0.6 * 700 for b in one["plot"])
        texts = one["notes"] + one["titles"] + one["legend"]
        for i, a in enumerate(texts):
            assert left <= a[0] and a[1] <= right and top <= a[2] and a[3] <= bottom
            assert not any(overlap(a, b) for b in texts[:i])
        assert all(b[0] >= left - 1 and b[3] <= bottom for b in one["ticks"])
    assert sum(bool(one["legend"]) for one in boxes) >= 3

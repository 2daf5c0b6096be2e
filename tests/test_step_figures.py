"""Figures over the steps: one axis for all, and one layer on a scale with signs."""

import dataclasses
import math

import numpy as np
import pytest

from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views import figures
from activation_monitor.views.figures import colours, signed, step_axis
from networks import Drawn, chain, network, tap

NAN = "NaN or infinite elements"
UNEVEN = (0, 1, 2, 5, 10, 100)


def uneven(*sizes):
    sizes = sizes or (1.0, 2.0, 3.0, 2.0, 1.0, 0.5)
    return Recording(
        chain(1.0, size, step=step) for step, size in zip(UNEVEN, sizes, strict=True)
    )


# -- the axis of steps


def test_columns_meet_halfway_between_the_steps():
    """As plotly draws a heat map around its places: the ends are symmetric."""
    np.testing.assert_allclose(
        step_axis.edges(UNEVEN), [-0.5, 0.5, 1.5, 3.5, 7.5, 55.0, 145.0]
    )
    np.testing.assert_array_equal(step_axis.edges([7]), [6.5, 7.5])


def test_a_step_has_the_same_place_in_all_figures_over_time():
    """The heat map, the histograms and the curves have the same axis of numbers."""
    steps = uneven()
    drawn = [
        figures.heat_map(steps),
        figures.layer_over_time({"a": steps}, "d1"),
        figures.statistic_over_time({"a": steps}, "d1"),
    ]
    for figure in drawn:
        axis = figure.layout.xaxis
        assert axis.type in (None, "linear") and tuple(axis.range) == (-0.5, 145.0)
        assert tuple(figure.data[-1].x) == UNEVEN


def test_the_frame_of_a_finding_is_at_the_edges_of_its_columns():
    """Of the first and of the last step at which it was seen."""
    from test_figures_of import found_in

    figure = figures.heat_map(uneven(), marked=found_in("d2", step=5, last_step=10))
    assert {(s.x0, s.x1) for s in figure.layout.shapes} == {(3.5, 55.0)}


def test_chosen_layers_are_named_in_the_heat_map_among_150():
    """The names around them give way. Rows are too low for lines around them."""
    steps = Recording([Drawn(0).chain(149, width=4).snapshot()])
    names = steps[0].names
    plain = figures.heat_map(steps).layout
    figure = figures.heat_map(steps, chosen=["d70", "no such layer", names[-1]])
    axis = figure.layout.yaxis
    rows = [names.index(name) for name in axis.tickvals]
    ticks = dict(zip(axis.tickvals, axis.ticktext, strict=True))
    assert ticks["d70"] == "\u25b8 d70" and ticks[names[-1]].startswith("\u25b8")
    assert len(plain.yaxis.tickvals) <= 30 and len(rows) <= 31
    around = [abs(row - names.index("d70")) for row in rows]
    assert sorted(around)[1] >= 4 - 1 and min(np.diff(sorted(rows))) >= 3
    assert not figure.layout.shapes and not plain.shapes


# -- chosen layers in the other figures


def test_chosen_layers_have_a_line_and_a_name_in_the_profile():
    """At their depth, in all panels. Unknown names have no effect."""
    steps = Recording([Drawn(0).chain(149, width=4).snapshot()])
    figure = figures.depth_profile({"a": steps}, chosen=["d70", "d120", "no such layer"])
    assert [(s.x0, s.x1) for s in figure.layout.shapes] == [(70.0, 70.0), (120.0, 120.0)]
    assert {s.yref for s in figure.layout.shapes} == {"paper"}
    notes = {n.text: n for n in figure.layout.annotations if n.yref == "paper"}
    assert {*notes} == {"d70", "d120"}
    assert (notes["d70"].xanchor, notes["d120"].xanchor) == ("left", "right")
    assert notes["d70"].yshift == notes["d120"].yshift == 0
    assert figure.layout.height == figures.depth_profile({"a": steps}).layout.height


def test_names_of_chosen_layers_that_are_close_are_in_several_rows():
    """Above the panels, for which the figure is higher; the key is above the names."""
    steps = Recording(Drawn(0).chain(149, width=4).snapshot(step) for step in (0, 1))
    runs, close = {"a": steps, "b": steps}, ["d70", "d71", "d72", "d10"]
    plain, figure = figures.depth_profile(runs), figures.depth_profile(runs, chosen=close)
    rows = {n.text: n.yshift for n in figure.layout.annotations if n.yref == "paper"}
    assert rows == {"d70": 0, "d71": 14, "d72": 28, "d10": 0, "dotted: first step": 42}
    more = figure.layout.height - plain.layout.height
    assert more == figure.layout.margin.t - plain.layout.margin.t == 42


def test_chosen_layers_have_a_ring_and_a_name_in_the_graph():
    """At the place of the layer. Without them a large graph has no names at all."""
    steps = Recording([Drawn(0).chain(149, width=4).snapshot()])
    from activation_monitor.analysis.diagnosis import diagnose

    diagnosis = diagnose(steps)
    assert not figures.layer_graph(steps, diagnosis).layout.annotations
    figure = figures.layer_graph(steps, diagnosis, chosen=["d70", "no such layer"])
    (note,) = figure.layout.annotations
    (ring,) = [trace for trace in figure.data if trace.name == "chosen"]
    assert (note.text, note.x, note.y) == ("d70", 70.0, 0)
    assert tuple(ring.customdata) == ("d70",) and tuple(ring.x) == (70.0,)
    assert ring.marker.size > figure.data[-2].marker.size


# -- the scale


def test_the_signed_scale_is_linear_around_0_and_logarithmic_beyond():
    """With one unit for each power of 10; both directions agree."""
    scale = signed.Signed(0.01)
    values = np.array([-10.0, -0.1, -0.01, -0.005, 0.0, 0.002, 0.01, 1.0, 1e300])
    places = [-4.0, -2.0, -1.0, -0.5, 0.0, 0.2, 1.0, 3.0, 303.0]
    np.testing.assert_allclose(scale.place(values), places, atol=1e-12)
    np.testing.assert_allclose(scale.value(places), values, rtol=1e-9)
    assert np.isnan(scale.place(np.array([np.nan])))[0]


@pytest.mark.parametrize("linear", [1e-7, 0.1, 1.0, 1e4])
@pytest.mark.parametrize("decades", [1, 3, 9])
def test_ticks_of_the_signed_scale_say_their_places(linear, decades):
    """0, and powers of 10 on either side, at most four each."""
    scale = signed.Signed(linear)
    axis = scale.axis(-decades - 0.5, decades + 0.5)
    said = []
    for text in axis["ticktext"]:
        digits = text.replace("\u2212", "-").replace("</sup>", "")
        said.append(float(digits.replace("10<sup>", "1e")))
    np.testing.assert_allclose(scale.place(np.array(said)), axis["tickvals"], atol=1e-9)
    assert 0.0 in axis["tickvals"] and len(axis["tickvals"]) <= 9
    one_side = signed.Signed(linear).axis(-0.1, 2.0)
    assert min(one_side["tickvals"]) == 0.0


@pytest.mark.parametrize(
    ("values", "typical", "expected"),
    [
        ([0.5, 3.0], [1.0], signed.Log()),
        ([0.0, 3.0], [0.7], signed.Signed(0.1)),
        ([-3.0, 3.0], [2.0, 0.02], signed.Signed(0.01)),
        ([-3.0, 300.0], [1e-30], signed.Signed(1e-22)),  # not more than 24 decades
        ([-3.0, 3.0], [1e-9] + [2.0] * 19, signed.Signed(1.0)),  # the lowest tenth
        ([0.0, 30.0], [0.0, math.nan], signed.Signed(10.0)),
        ([0.0, 0.0], [0.0], signed.Signed(1.0)),
        ([math.nan], [math.nan], signed.Signed(1.0)),
        ([5e-324, -1.0e-320], [5e-324], signed.Signed(1e-307)),
    ],
)
def test_the_scale_is_chosen_by_the_values(values, typical, expected):
    """Logarithmic if all are positive, else linear up to the smallest deviation."""
    assert signed.scale_of(np.array(values), np.array(typical)) == expected


# -- one layer over time


def test_values_that_are_all_positive_have_a_log_axis_with_plain_places():
    """Such as those of a sigmoid."""
    tensors = [np.random.default_rng(i).uniform(0.1, 0.2 + i, (20, 4)) for i in range(3)]
    steps = Recording(network(tap("a", x), step=i) for i, x in enumerate(tensors))
    figure = figures.layer_over_time({"r": steps}, "a")
    assert figure.layout.yaxis.type == "log"
    (mean,) = [trace for trace in figure.data if trace.name == "mean"]
    np.testing.assert_allclose(mean.y, [x.mean() for x in tensors], rtol=1e-9)
    (band,) = [trace for trace in figure.data if trace.name == "mean ± std"]
    upper, lower = np.split(np.array(band.y), 2)
    np.testing.assert_allclose(lower[::-1], [x.mean() - x.std() for x in tensors])
    np.testing.assert_allclose(upper, [x.mean() + x.std() for x in tensors])


@pytest.mark.parametrize("floor", [0.0, -1.0])
def test_the_band_ends_at_the_extremes(floor):
    """It does not go below the minimum, nor above the maximum."""
    x = np.full((100, 4), floor)
    x[:3] = 50.0
    low, high = (x.mean() - x.std(), x.mean() + x.std())
    assert low < floor and high < 50.0
    flipped = -x
    for tensor in (x, flipped):
        steps = Recording([network(tap("a", tensor))])
        figure = figures.layer_over_time({"r": steps}, "a")
        by_name = {trace.name: trace for trace in figure.data}
        extremes = [t.y[0] for t in figure.data if t.name == "extremes"]
        upper, lower = by_name["mean ± std"].y
        assert min(extremes) <= lower <= upper <= max(extremes)
        assert min(extremes) == lower or max(extremes) == upper


def test_tooltips_of_a_layer_over_time_have_the_plain_values():
    """Although places are those of the scale."""
    steps = uneven(1.0, 2e-3, -3.0, 4.0, 1.0, 1.0)
    x = np.array([[-3.0, 1.0], [0.0, 0.5]])
    steps.append(network(tap("x"), tap("d2", x), step=200))
    figure = figures.layer_over_time({"r": steps}, "d2")
    said = {trace.hovertext[-1] for trace in figure.data if trace.hovertext}
    assert said == {
        *("step 200: mean -0.375", "step 200: minimum -3", "step 200: maximum 1")
    }


def test_the_minimum_of_a_softmax_layer_does_not_compress_the_other_lines():
    """On a logarithmic axis. A minimum near the mean is shown."""
    for smallest, is_shown in ((1e-15, False), (0.02, True)):
        x = np.array([[1 - 2 * smallest, smallest, smallest], [0.2, 0.3, 0.5]])
        figure = figures.layer_over_time({"r": Recording([network(tap("a", x))])}, "a")
        low, high = figure.layout.yaxis.range
        assert figure.layout.yaxis.type == "log" and high - low < 4
        assert (low < math.log10(smallest) < high) == is_shown
        (label,) = [n for n in figure.layout.annotations if n.text == "minimum"]
        assert low <= label.y <= high  # else plotly would hide it
        for shown in (x.mean(), x.std(), x.max()):
            assert low < math.log10(shown) < high


@pytest.mark.parametrize(
    ("activation", "saturates"),
    [("tanh", True), ("hard_sigmoid", True), ("linear", False), ("relu", False)],
)
def test_only_bounded_activation_functions_have_a_line_of_saturated_outputs(
    activation, saturates
):
    """Of an input or a linear layer it would be 0 and say nothing."""
    steps = Recording([network(tap("x", 1.0, "input"), tap("d2", activation=activation))])
    figure = figures.layer_over_time({"r": steps}, "d2")
    assert ("saturated" in {trace.name for trace in figure.data}) == saturates
    assert {"zeros", "non-finite"} <= {trace.name for trace in figure.data}
    of_input = figures.layer_over_time({"r": steps}, "x")
    assert "saturated" not in {trace.name for trace in of_input.data}


def test_the_run_in_front_of_one_layer_has_the_thicker_lines_and_the_names():
    """The reference has its own colour and its name, and thinner lines."""
    runs = {"fine": uneven(), "ill": uneven(1.0, 2.0, 4.0, 8.0, 16.0, 32.0)}
    for focus, front, other in ((None, "fine", "ill"), ("ill", "ill", "fine")):
        figure = figures.layer_over_time(runs, "d2", focus=focus)
        of = {t.name: t for t in figure.data if t.name.endswith(": mean")}
        assert [*of] == [f"{other}: mean", f"{front}: mean"]
        widths = {name: trace.line.width for name, trace in of.items()}
        assert widths[f"{front}: mean"] > widths[f"{other}: mean"]
        found = {trace.line.color for trace in of.values()}
        assert found == {*colours.LIGHT.runs[:2]}
        labels = [n.text for n in figure.layout.annotations if n.yref == "y"]
        assert sorted(labels) == sorted(["fine", "ill", "minimum", "maximum"])
    alone = figures.layer_over_time({"fine": runs["fine"]}, "d2")
    labels = [n.text for n in alone.layout.annotations if n.yref == "y"]
    assert sorted(labels) == ["maximum", "mean", "minimum"]


# -- one statistic over time


@pytest.mark.parametrize("statistic", ["rms", "zero_fraction", "mean"])
def test_one_statistic_of_a_layer_is_drawn_for_all_runs(statistic):
    """On a logarithmic axis if it is a size. Each run has its name at its end."""
    variances = {"a": 2.0, "b": 8.0, "c": 0.5}
    nets = {
        run: [Drawn(seed).chain(4, variance=variance) for seed in range(3)]
        for run, variance in variances.items()
    }
    runs = {
        run: Recording(net.snapshot(step=10 * i) for i, net in enumerate(drawn))
        for run, drawn in nets.items()
    }
    figure = figures.statistic_over_time(runs, "d3", statistic)
    of = {
        "rms": lambda x: math.sqrt((x**2).mean()),
        "zero_fraction": lambda x: (x == 0).mean(),
        "mean": lambda x: abs(x.mean()),
    }[statistic]
    words = statistic.replace("_", " ")
    for i, (run, drawn) in enumerate(nets.items()):
        (line,) = [t for t in figure.data if t.name == f"{run}: {words}"]
        expected = [of(net.tensors["d3"]) for net in drawn]
        np.testing.assert_allclose(line.y, expected, rtol=1e-10)
        assert line.line.color == colours.LIGHT.runs[i]
        assert {*line.customdata} == {"d3"}
        (note,) = [n for n in figure.layout.annotations if n.text == run]
        end = expected[-1] if statistic == "zero_fraction" else math.log10(expected[-1])
        np.testing.assert_allclose((note.x, note.y), (20.0, end), rtol=1e-9)
    assert (figure.layout.yaxis.type == "log") == (statistic != "zero_fraction")


def test_zeros_and_nan_of_one_statistic_are_marked_at_the_edges():
    """With the tooltips of the heat map. A healthy run has no marks."""
    ill = uneven(1.0, 2.0, 0.0, math.nan, 1.0, math.nan)
    figure = figures.statistic_over_time({"ill": ill, "fine": uneven()}, "d2")
    marks = {t.name: t for t in figure.data if t.mode == "markers"}
    zeros, nans = marks["zero"], marks["NaN or infinite elements"]
    assert (tuple(zeros.x), tuple(nans.x)) == ((2,), (5, 100))
    low, high = figure.layout.yaxis.range
    assert low < math.log10(zeros.y[0]) < 0 < math.log10(nans.y[0]) < high
    assert zeros.hovertext == ("ill: step 2: rms 0",)
    assert "2 of 4 elements are NaN or infinite" in nans.hovertext[0]
    fine = figures.statistic_over_time({"fine": uneven()}, "d2")
    assert [t.mode for t in fine.data] == ["lines+markers"]


def edge_marks(figure, name):
    """Colour of the outline of a mark to the trace and its place among all traces."""
    found = {}
    for place, trace in enumerate(figure.data):
        if trace.name == name and trace.mode == "markers":
            outline = trace.marker.line.color
            outline = outline if isinstance(outline, str) else outline[0]
            found[outline, trace.yaxis or "y"] = place, trace
    return found


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, "zero") for kind in ("profile", "comparison", "statistic")),
        *((kind, NAN) for kind in ("profile", "comparison", "statistic", "layer")),
    ],
)
def test_marks_of_the_run_in_front_stand_out_from_those_of_others(kind, name):
    """Those of other runs are small and pale, and below the line in front. The legend
    shows a strong one if there is one."""
    bad = 0.0 if name == "zero" else math.nan
    ill = uneven(1.0, bad, 1.0, 1.0, 1.0, bad)
    runs = {"a": ill, "b": ill, "fine": uneven()}

    def draw(focus):
        if kind == "profile":
            return figures.depth_profile(runs, steps=1, focus=focus)
        if kind == "comparison":
            return figures.comparison(runs, focus=focus, reference="fine")
        function = "statistic_over_time" if kind == "statistic" else "layer_over_time"
        return getattr(figures, function)(runs, "d2", focus=focus)

    figure, (a, b, _) = draw("b"), colours.LIGHT.runs[:3]
    found = edge_marks(figure, name)
    (behind, pale), (_, strong) = found[a, "y"], found[b, "y"]
    assert pale.marker.size < strong.marker.size
    assert pale.marker.opacity < 0.5 and strong.marker.opacity == 1.0
    lines = [
        i
        for i, trace in enumerate(figure.data)
        if trace.mode.startswith("lines") and trace.line.color == b and trace.yaxis != "y2"
    ]
    assert behind < max(lines)
    shown = [trace for _, trace in found.values() if trace.showlegend]
    assert strong in shown and pale not in shown
    others = [trace for _, trace in edge_marks(draw("fine"), name).values()]
    assert {trace.marker.opacity for trace in others} == {pale.marker.opacity}
    assert any(trace.showlegend for trace in others)


def test_runs_without_the_layer_are_left_out_of_the_statistic():
    """One run with it is enough; the others do not take its colour."""
    runs = {"flat": Recording([chain(1.0)]), "deep": Recording([chain(1.0, 2.0)])}
    (line,) = figures.statistic_over_time(runs, "d2").data
    assert line.name == "deep: rms" and line.line.color == colours.LIGHT.runs[1]
    with pytest.raises(ValueError, match="statistic_over_time: no layer named 'd9'"):
        figures.statistic_over_time(runs, "d9")


def test_update_over_weight_is_a_statistic_over_time():
    """As the figure of all layers has it."""
    from test_figures_of import trained

    ratios = [1e-3, 2e-3, 4e-2]
    steps = Recording(trained(r, 1e-3, step=i) for i, r in enumerate(ratios))
    figure = figures.statistic_over_time(
        {"a": steps}, "d1", "update_ratio", of="weight_update"
    )
    np.testing.assert_allclose(figure.data[0].y, ratios)
    assert figure.layout.title.text.startswith("d1: rms of update / rms of weight over")


# -- two panels


PAIRS = {
    ("rms", "output"): ("rms", "rms of the gradient"),
    ("std", "output"): ("std", "std of the gradient"),
    ("zero_fraction", "output"): ("zero fraction", "zero fraction of the gradient"),
    ("within_std", "output"): ("within std", "rms of the gradient"),
    ("dead_units", "output"): ("dead units", "rms of the gradient"),
    ("rms", "output_gradient"): ("rms of the gradient", "rms"),
    ("std", "weight"): ("std of the weight", "rms"),
    ("update_ratio", "weight_update"): ("rms of update / rms of weight", "rms"),
}


@pytest.mark.parametrize("reading", PAIRS)
def test_the_profile_shows_both_directions(reading):
    """Below outputs their gradients, below all else the outputs with their band. The bands
    of a finding are in both panels."""
    from test_figures_of import found_in, random, trained

    statistic, of = reading
    back = random(None, *[1e-3] * 6)
    steps = Recording([trained(*[1e-3] * 6, output_gradient=back)])
    marked = {"a": found_in("d2", "d3")}
    figure = figures.depth_profile({"a": steps}, statistic, of=of, marked=marked)
    titles = (figure.layout.yaxis.title.text, figure.layout.yaxis2.title.text)
    assert titles == PAIRS[reading]
    bands = {t.yaxis for t in figure.data if t.legendgroup == "expected"}
    assert bands == ({"y2"} if of != "output" else {"y"} if statistic == "rms" else set())
    assert {shape.yref for shape in figure.layout.shapes} == {"y domain", "y2 domain"}
    expected = {
        "rms of the gradient": steps[0].statistic("rms", "output_gradient")[1:],
        "std of the gradient": steps[0].statistic("std", "output_gradient")[1:],
        "zero fraction of the gradient": np.zeros(6),
        "rms": steps[0].statistic("rms"),
    }[titles[1]]
    (line,) = [t for t in figure.data if t.yaxis == "y2" and t.name == "step 0"]
    np.testing.assert_allclose(line.y, expected, rtol=1e-9)


@pytest.mark.parametrize("statistic", ["rms", "std", "dead_units"])
def test_without_gradients_there_is_one_panel(statistic):
    """Which is lower than two."""
    steps = Recording([chain(1.0, 2.0)])
    figure = figures.depth_profile({"a": steps}, statistic)
    assert {t.yaxis for t in figure.data} <= {None, "y"} and figure.layout.height == 480


def test_the_ratio_is_to_the_run_that_is_chosen():
    """By default the first one. Its line is named in the panel of the ratios."""
    sizes = {"a": 1.0, "b": 4.0, "c": 16.0}
    runs = {run: Recording([chain(1.0, size)]) for run, size in sizes.items()}
    for reference, expected in ((None, "a"), ("c", "c"), ("b", "b")):
        figure = figures.comparison(runs, reference=reference)
        below = {t.name[0]: t for t in figure.data if t.yaxis == "y2"}
        assert {*below} == {*runs} - {expected}
        for run, trace in below.items():
            found = dict(zip(trace.customdata, trace.y, strict=True))
            np.testing.assert_allclose(found["d2"], sizes[run] / sizes[expected])
        notes = [n for n in figure.layout.annotations if n.text == "reference"]
        assert [(n.yref, n.y) for n in notes] == [("y2", 0.0)]
        assert figure.layout.yaxis2.title.text == f"ratio to {expected}"


def test_one_snapshot_is_enough_for_each_figure_over_time():
    """It stands in the middle of the axis."""
    steps = Recording([dataclasses.replace(chain(1.0, 2.0), step=7)])
    for figure in (
        figures.heat_map(steps),
        figures.layer_over_time({"a": steps}, "d2"),
        figures.statistic_over_time({"a": steps}, "d2"),
    ):
        assert tuple(figure.layout.xaxis.range) == (6.5, 7.5)

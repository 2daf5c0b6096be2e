"""Figures of gradients, weights and updates: what is drawn is what was measured."""

import json
import math

import keras
import numpy as np
import pytest

import models
import networks
from activation_monitor import ActivationMonitor
from activation_monitor.analysis import histogram, records
from activation_monitor.analysis.diagnosis import diagnose, summary
from activation_monitor.analysis.findings import SHOWN_BY, Finding
from activation_monitor.analysis.snapshot import LayerInfo, Recording, Snapshot
from activation_monitor.views import figures
from activation_monitor.views.figures import colours
from networks import tap

HOSTILE = "</script><img src=x onerror=alert(1)>&amp;<b>%{y}</b>$\\href{x}$"

NAN = math.nan


def _records(arrays):
    return np.stack([records.empty() if x is None else records.measure(x) for x in arrays])


def _histograms(arrays):
    found = histogram.none(len(arrays))
    for i, x in enumerate(arrays):
        if x is not None:
            counts, edges = np.histogram(x[np.isfinite(x)], histogram.BUCKETS)
            rows = np.stack([edges[:-1], edges[1:], counts], axis=1)
            found[i] = histogram.pack(histogram.Histogram(1, rows))
    return found


def random(*sizes, seed=0):
    """A random array of each size; None for None."""
    rng = np.random.default_rng(seed)
    return [None if s is None else s * rng.standard_normal((20, 10)) for s in sizes]


def snapshot(step=0, name="d", **quantities):
    """A chain of weight layers with these tensors by quantity. The first is an input."""
    quantities = {"output": random(*[1.0] * len(next(iter(quantities.values()))))} | (
        quantities
    )
    layers = tuple(
        LayerInfo(
            *("x" if i == 0 else f"{name}{i}", "Dense", "weight" if i else "input"),
            *("tanh", 10, "float32", (i - 1,) if i else ()),
        )
        for i in range(len(quantities["output"]))
    )
    measured = {of: _records(arrays) for of, arrays in quantities.items()}
    counted = {
        of: _histograms(arrays)
        for of, arrays in quantities.items()
        if of in ("output", "output_gradient")
    }
    return Snapshot(step, layers, measured, counted)


def trained(*ratios, step=0, gradients=None, **options):
    """A snapshot of layers with kernels of rms 1 that change by these parts."""
    weights = [None, *(np.array([[1.0, -1.0]]) for _ in ratios)]
    updates = [None, *(np.array([[r, -r]]) for r in ratios)]
    back = gradients or [None, *(np.ones((1, 2)) for _ in ratios)]
    return snapshot(
        step, weight=weights, weight_update=updates, weight_gradient=back, **options
    )


def named(figure, name):
    return [trace for trace in figure.data if trace.name == name]


@pytest.fixture(scope="module")
def back():
    """Gradients at three steps, none of the input."""
    sizes = [(None, 1e-6, 1e-5), (None, 1e-7, 1e-4), (None, 1e-6, 1e-3)]
    tensors = [random(*one, seed=i) for i, one in enumerate(sizes)]
    recording = Recording(
        snapshot(10 * i, output_gradient=t, weight=random(None, 1, 1))
        for i, t in enumerate(tensors)
    )
    return recording, tensors


# -- update over weight


def test_the_update_ratio_is_drawn_over_the_steps_on_a_log_axis():
    """One line for each weight layer. A step without an update has no point."""
    ratios = [(1e-3, 2e-5), (0.0, 0.0), (3e-3, 0.5)]
    steps = Recording(trained(*r, step=5 * i) for i, r in enumerate(ratios))
    figure = figures.update_ratio(steps)
    for name, expected in (("d1", [1e-3, NAN, 3e-3]), ("d2", [2e-5, NAN, 0.5])):
        (line,) = named(figure, name)
        np.testing.assert_array_equal(line.x, [0, 5, 10])
        np.testing.assert_allclose(line.y, expected)
        assert set(line.customdata) == {name}
    axis = figure.layout.yaxis
    assert axis.type == "log"
    assert axis.range[0] < math.log10(2e-5) and axis.range[1] > math.log10(0.5)
    assert not named(figure, "zero")


def test_the_usual_ratio_is_a_line_in_a_band():
    """Karpathy's 1e-3, a decade on either side, always within the axis."""
    figure = figures.update_ratio(Recording([trained(1e-3, 1.1e-3)]))
    band, line = figure.layout.shapes
    assert (band.type, band.y0, band.y1) == ("rect", 1e-4, 1e-2)
    assert (line.type, line.y0, line.y1) == ("line", 1e-3, 1e-3)
    low, high = figure.layout.yaxis.range
    assert low < -4 and high > -2
    (text,) = [one for one in figure.layout.annotations if "usual" in one.text]
    assert "usual ratio, 10<sup>\u22123</sup>" in text.text
    assert (text.yref, text.y, text.yanchor) == ("paper", 1, "bottom")  # not on the lines


def test_several_steps_in_one_execution_count_as_one_of_them():
    """The update is that of all of them."""
    one = trained(1e-3, 2e-3)
    several = Snapshot(0, one.layers, one.quantities, steps=4)
    (line,) = named(figures.update_ratio(Recording([several])), "d2")
    np.testing.assert_allclose(line.y, [5e-4])


def test_of_many_layers_first_last_and_the_farthest_are_drawn():
    """By the distance from 1e-3 on the log axis, at the last step that has one."""
    ratios = np.full(40, 1e-3)
    far = {3: 1e-6, 7: 1.0, 8: 1e-5, 12: 0.05, 20: 1e-7, 21: 2e-5, 30: 0.2, 31: 3e-5}
    far |= {35: 4e-5, 36: 0.02}
    for row, ratio in far.items():
        ratios[row] = ratio
    steps = [trained(*np.roll(ratios, 1)), trained(*ratios, step=1)]
    steps.append(trained(*[0.0] * 40, step=2))
    figure = figures.update_ratio(Recording(steps))
    drawn = [trace.name for trace in figure.data]
    assert drawn == [f"d{row + 1}" for row in sorted({0, 39, *far})]
    assert "12 of 40 weight layers: first, last and those" in figure.layout.title.text
    few = figures.update_ratio(Recording([trained(*ratios[:12])]))
    assert len(few.data) == 12 and few.layout.title.text.endswith("over the steps")


def test_a_kernel_that_stands_still_is_marked_and_the_farthest_unless_frozen():
    """A frozen layer has no gradient, so nothing is wrong with it."""
    ratios = [1e-3] + [2e-3] * 30 + [1e-3]
    ratios[5] = ratios[6] = 0.0
    back = [None] + [None if i == 5 else np.ones((1, 2)) for i in range(32)]
    figure = figures.update_ratio(Recording([trained(*ratios, gradients=back)]))
    (zeros,) = named(figure, "zero")
    assert tuple(zeros.customdata) == ("d7",)
    assert zeros.y[0] < 1e-4 and math.log10(zeros.y[0]) > figure.layout.yaxis.range[0]
    assert named(figure, "d7") and not named(figure, "d6")


def test_steps_that_change_nothing_leave_a_figure_that_says_so():
    """Not an error: the next sampled step may have an update."""
    figure = figures.update_ratio(Recording([trained(0.0, 0.0)]))
    assert not figure.data
    assert "No sampled step has changed" in figure.layout.annotations[0].text


def test_updates_that_were_not_measured_are_a_clear_error():
    """And so is an empty recording."""
    with pytest.raises(ValueError, match="update_ratio: expected a quantity .*: output. R"):
        figures.update_ratio(Recording([networks.chain(1.0)]))
    with pytest.raises(ValueError, match="update_ratio: expected .* an empty one"):
        figures.update_ratio(Recording())


@pytest.mark.parametrize("dark", [False, True])
def test_hostile_names_are_text_in_figures_of_quantities(dark):
    """As in all figures. The colours are those of the page."""
    tensors = {"output_gradient": random(1.0, 1.0)}
    steps = Recording([trained(1e-3, name=HOSTILE, **tensors)])
    layer = f"{HOSTILE}1"
    for figure in (
        figures.update_ratio(steps, dark=dark),
        figures.heat_map(steps, dark=dark, of="weight"),
        figures.layer_over_time({"a": steps}, layer, dark, of="output_gradient"),
        figures.histogram_over_time(steps, layer, dark, of="output_gradient"),
    ):
        plain = json.loads(figure.to_json())
        for trace in plain["data"]:
            assert {*(trace.pop("customdata", None) or [layer])} <= {layer, "x"}
        for bad in ("<img", "</script", "<b>", "$", "onerror=alert(1)>", "&gt;%{y}"):
            assert bad not in json.dumps(plain)
        assert figure.layout.paper_bgcolor == colours.theme(dark).paper


# -- `of`


def test_the_heat_map_of_gradients_is_their_rms(back):
    """Layers without a gradient have no row."""
    recording, tensors = back
    figure = figures.heat_map(recording, of="output_gradient")
    sizes = figure.data[0]
    assert tuple(sizes.customdata) == ("d1", "d2")
    for i, name in enumerate(("d1", "d2"), start=1):
        expected = [math.log10(math.sqrt((t[i] ** 2).mean())) for t in tensors]
        row = sizes.z[list(sizes.customdata).index(name)]
        np.testing.assert_allclose(row, expected, rtol=1e-6)
    assert figure.layout.title.text == "rms of the gradient of each layer at each step"
    assert sizes.colorbar.title.text == "rms of the gradient"
    assert "rms of the gradient %{text}" in sizes.hovertemplate


def test_colours_of_gradients_are_around_their_median(back):
    """No gradient must be about 1, as an output must. All values are on the scale."""
    recording, _ = back
    sizes = figures.heat_map(recording, of="output_gradient").data[0]
    middle = round(float(np.median(sizes.z)))
    assert (sizes.zmin + sizes.zmax) / 2 == middle == -6
    assert sizes.zmin <= sizes.z.min() and sizes.z.max() <= sizes.zmax
    places = list(sizes.colorbar.tickvals)
    assert places[len(places) // 2] == middle and len(places) in (3, 5)
    outputs = figures.heat_map(recording).data[0]
    assert outputs.zmin == -outputs.zmax


def test_a_gradient_over_time_is_that_of_numpy(back):
    """Mean, extremes and zeros; the axis says what it is. Gradients do not saturate."""
    recording, tensors = back
    figure = figures.layer_over_time({"run": recording}, "d2", of="output_gradient")
    traces = {trace.name: trace for trace in figure.data}
    low, high = named(figure, "extremes")
    axis = figure.layout.yaxis
    said = dict(zip(axis.tickvals, axis.ticktext, strict=True))
    assert (said[1], said[-1]) == ("10<sup>−5</sup>", "−10<sup>−5</sup>")
    for line, of in ((traces["mean"], np.mean), (low, np.min), (high, np.max)):
        values = np.array([of(t[2]) for t in tensors])
        size = np.abs(values)  # linear up to the tick at 1, a power of 10 per unit beyond
        far = np.where(size < 1e-5, size / 1e-5, 6 + np.log10(size))
        np.testing.assert_allclose(line.y, np.sign(values) * far)
    np.testing.assert_array_equal(traces["zeros"].y, [0, 0, 0])
    assert figure.layout.yaxis.title.text == "gradients"
    assert figure.layout.title.text == "Gradient of d2 over the steps"
    assert "saturated" not in traces
    outputs = figures.layer_over_time({"run": recording}, "d2")
    assert outputs.layout.yaxis.title.text == "activations" and named(outputs, "saturated")


def test_gradients_that_are_not_finite_are_marked_over_time():
    """By the elements of the gradient, not by those of the output."""
    bad = np.ones((4, 5))
    bad[0, :3] = np.nan
    steps = [
        snapshot(i, output_gradient=[None, g])
        for i, g in enumerate([np.zeros((4, 5)), bad])
    ]
    for of, expected in (("output_gradient", 1), ("output", 0)):
        figure = figures.layer_over_time({"a": Recording(steps)}, "d1", of=of)
        marks = named(figure, "NaN or infinite elements")
        assert len(marks) == expected
        for mark in marks:
            assert mark.hovertext == ("step 1: 3 of 20 elements are NaN or infinite",)
    (zeros, nans) = figures.heat_map(Recording(steps), of="output_gradient").data[2:]
    assert {zeros.name, nans.name} == {"zero", "NaN or infinite elements"}


CALLS = {
    "heat_map": lambda steps, of: figures.heat_map(steps, of=of),
    "layer_over_time": lambda steps, of: figures.layer_over_time({"a": steps}, "d1", of=of),
    "histogram_over_time": lambda steps, of: figures.histogram_over_time(
        steps, "d1", of=of
    ),
}


@pytest.mark.parametrize("kind", CALLS)
def test_a_quantity_that_cannot_be_drawn_is_a_clear_error(kind, back):
    """Unknown: what there is. Not measured: what was, and what measures it."""
    draw, (recording, _) = CALLS[kind], back
    with pytest.raises(
        ValueError, match=f"{kind}: `of`: no quantity named 'gradient'. Did"
    ):
        draw(recording, "gradient")
    expected = (
        f"{kind}: expected a quantity that was measured: output, output_gradient, weight. "
        "Received: of='{}'. An `ActivationMonitor{}` measures it in each sampled step"
    )
    for of, how in (
        ("weight_update", ""),
        ("weight_gradient", r"\(gradients=True\)"),
    ):
        with pytest.raises(ValueError, match=expected.format(of, how)):
            draw(recording, of)


def test_a_layer_without_the_quantity_is_a_clear_error(back):
    """The message names those that have it."""
    recording, _ = back
    expected = "expected a layer whose 'output_gradient' was measured: d1, d2. .*layer='x'"
    with pytest.raises(ValueError, match=f"layer_over_time: {expected}"):
        figures.layer_over_time({"a": recording}, "x", of="output_gradient")
    with pytest.raises(ValueError, match=f"histogram_over_time: {expected}"):
        figures.histogram_over_time(recording, "x", of="output_gradient")
    with pytest.raises(ValueError, match="with histograms: output, output_gradient. Rec"):
        figures.histogram_over_time(recording, "d1", of="weight")
    with pytest.raises(ValueError, match="no layer named 'd9'"):
        figures.layer_over_time({"a": recording}, "d9", of="output_gradient")


def test_runs_without_the_quantity_are_left_out(back):
    """One run with gradients is enough."""
    recording, _ = back
    without = Recording([snapshot(weight=random(None, 1, 1))])
    runs = {"without": without, "with": recording}
    figure = figures.layer_over_time(runs, "d1", of="output_gradient")
    assert named(figure, "with: mean") and not named(figure, "without: mean")


# -- of a monitor


@pytest.fixture(scope="module")
def monitor():
    """A monitor of a few steps of training."""
    found, _ = models.watch(models.perceptron(), *models.data(), sample_every=1)
    return found


def test_a_monitor_draws_its_update_ratios(monitor):
    """SGD moves a kernel by learning rate times gradient, which is measured as well."""
    figure = monitor.figure("update_ratio", dark=True)
    names = [f"hidden_{i}" for i in range(3)] + ["head"]
    assert [trace.name for trace in figure.data] == names
    for name, line in zip(names, figure.data, strict=True):
        weight, gradient = (
            monitor.recording.statistic("rms", f"net/{name}", of)
            for of in ("weight", "weight_gradient")
        )
        # Keras' default learning rate of SGD; the update is a difference of float32.
        np.testing.assert_allclose(line.y, 0.01 * gradient / weight, rtol=1e-3)
    assert monitor.diagnosis.figure("update_ratio").data[0].x == (0,)


@pytest.mark.parametrize("kind", ["layer_over_time", "histogram_over_time"])
def test_the_default_layer_has_the_quantity(monitor, kind):
    """The worst one may be an input, whose gradient is not measured."""
    figure = monitor.figure(kind, of="output_gradient")
    layer = monitor.diagnosis.worst_layer
    assert {*figure.data[-1].customdata} == {layer}
    first = monitor.recording[0].names[0]
    steps = Recording([*monitor.recording])
    only_input = diagnose([networks.network(networks.tap(first))])
    assert only_input.worst_layer == first
    figure = figures.draw(kind, steps, only_input, of="output_gradient")
    assert {*figure.data[-1].customdata} == {"net/hidden_0"}
    assert {*figures.draw(kind, steps, only_input).data[-1].customdata} == {first}


def test_a_monitor_without_gradients_says_how_to_measure_them():
    """And draws what it measures nevertheless: outputs, weights and updates."""
    model = models.perceptron()
    model.compile(keras.optimizers.SGD(0.01), "mse")
    monitor, _ = models.watch(
        model, *models.data(), monitor=ActivationMonitor(gradients=False)
    )
    for options in (
        {"kind": "layer_over_time", "of": "weight_gradient"},
        {"kind": "heat_map", "of": "output_gradient"},
    ):
        with pytest.raises(ValueError, match=r"ActivationMonitor\(gradients=True\)"):
            monitor.figure(**options)
    assert monitor.figure("heat_map").data and monitor.figure("heat_map", of="weight").data
    assert len(monitor.figure("update_ratio").data) == 4


def test_over_sums_without_a_gradient_no_line_passes_layers_that_have_one():
    """A training does not measure the gradient of a sum that no layer makes. Layers of the
    branches are points; a gradient of 0 is marked. No line goes from the stem to the head:
    the branches between are not on it."""
    taps = [tap("stem", 1.0, gradient=1e-1)]
    for i, stream in ((1, "stem"), (2, "sum1")):
        taps.append(tap(f"up{i}", 1.0, after=stream, gradient=10.0**-i))
        taps.append(tap(f"down{i}", 1.0, gradient=0.0 if i == 2 else 1e-3))
        taps.append(tap(f"sum{i}", 1.0, "input", f"{stream} down{i}"))
    one = networks.network(*taps, tap("head", 1.0, gradient=1e-4))
    figure = figures.depth_profile({"run": Recording([one])})
    line, points, zeros = [trace for trace in figure.data if trace.yaxis == "y2"]
    assert tuple(line.customdata) == ("stem", "head") and line.mode == "markers"
    np.testing.assert_allclose(line.y, [1e-1, 1e-4])
    assert tuple(points.customdata) == ("up1", "down1", "up2", "down2")
    np.testing.assert_allclose(points.y, [1e-1, 1e-3, 1e-2, NAN])
    assert points.mode == "markers" and tuple(zeros.customdata) == ("down2",)
    low, high = figure.layout.yaxis2.range
    assert low < -4 and high > -1


def test_the_kernels_of_residual_blocks_are_points_and_those_of_a_chain_a_line():
    """A line through two points, the stem and the head, would suggest a trend. In a chain,
    layers without weights are between the kernels."""
    kernel = np.array([[1.0, -1.0]])
    taps, stream = [tap("stem", kernel=kernel)], "stem"
    for i in range(3):
        taps += [tap(f"up{i}", after=stream, kernel=kernel), tap(f"down{i}", kernel=kernel)]
        taps.append(tap(f"sum{i}", 1.0, "merge", f"{stream} down{i}"))
        stream = f"sum{i}"
    residual = networks.network(*taps, tap("head", kernel=kernel))
    plain = []
    for i in range(3):
        plain += [tap(f"d{i}", kernel=kernel), tap(f"act{i}", 1.0, "activation")]
    for one, mode, layers in (
        (residual, "markers", ("stem", "head")),
        (networks.network(*plain), "lines+markers", ("d0", "d1", "d2")),
    ):
        runs = {"a": Recording([one]), "b": Recording([one])}
        for figure in (
            figures.depth_profile(runs, of="weight"),
            figures.comparison(runs, of="weight"),
        ):
            traces = [t for t in figure.data if t.customdata == layers]
            assert len(traces) >= 2 and {t.mode for t in traces} == {mode}
            assert {t.marker.opacity for t in traces} == {1.0}
    # The residual stream itself is measured from block to block.
    drawn = figures.depth_profile({"a": Recording([residual])}).data
    (stream,) = [trace for trace in drawn if "sum0" in (trace.customdata or ())]
    assert stream.mode == "lines+markers" and None not in stream.customdata


def test_the_ratio_has_a_gap_where_only_one_of_the_runs_has_layers():
    """The head of a deep run has a point only, if the reference is not as deep."""
    deep = networks.network(*(tap(f"d{i}") for i in range(9)), tap("head"))
    flat = networks.network(*(tap(f"d{i}") for i in range(3)), tap("head"))
    runs = {"flat": Recording([flat]), "deep": Recording([deep])}
    figure = figures.comparison(runs)
    (ratio,) = [t for t in figure.data if t.yaxis == "y2" and t.customdata]
    assert tuple(ratio.customdata) == ("d0", "d1", "d2", None, "head")
    assert ratio.y[3] is None and ratio.mode == "lines+markers"
    (other,) = [
        t
        for t in figures.comparison(runs, reference="deep").data
        if t.yaxis == "y2" and t.customdata
    ]
    assert tuple(other.customdata) == ("d0", "d1", "d2", "head")  # its own layers only


def test_the_depth_profile_of_a_training_has_the_gradients(monitor):
    """At both steps, in the second panel."""
    figure = monitor.figure()
    below = [trace for trace in figure.data if trace.yaxis == "y2"]
    assert [trace.name for trace in below] == ["step 0", "step 4"]
    for trace, one in zip(
        below, (monitor.recording[0], monitor.recording[-1]), strict=True
    ):
        rms = dict(zip(one.names, one.statistic("rms", "output_gradient"), strict=True))
        for name, y in zip(trace.customdata, trace.y, strict=True):
            np.testing.assert_allclose(y, rms[name])
    assert figure.layout.yaxis2.title.text == "rms of the gradient"


# -- the statistic and the marks of a finding


def test_each_statistic_that_shows_a_finding_can_be_chosen_and_drawn():
    """In the profile, the heat map and the graph. What was not measured is not offered."""
    offered = figures.readings(records.QUANTITIES)
    assert {*SHOWN_BY.values()} <= {*offered}
    assert {of for of, _ in figures.readings(["output", "weight"])} == {"output", "weight"}
    steps = Recording([trained(1e-3, 2e-3, output_gradient=random(None, 1, 1))])
    diagnosis = diagnose(steps)
    for of, statistic in offered:
        look = {"statistic": statistic, "of": of}
        for figure in (
            figures.depth_profile({"run": steps}, **look),
            figures.comparison({"a": steps, "b": steps}, **look),
            figures.heat_map(steps, **look),
            figures.layer_graph(steps, diagnosis, **look),
        ):
            words = figures.words(statistic, of)
            assert words in figure.layout.title.text.replace("|", "")


def test_the_profile_shows_the_quantity_over_the_layers_that_have_it(back):
    """The input has no gradient, and does not interrupt the line."""
    recording, tensors = back
    figure = figures.depth_profile({"run": recording}, of="output_gradient", steps=20)
    line, below = named(figure, "step 20")
    expected = [np.sqrt(np.mean(np.square(x))) for x in tensors[2][1:]]
    np.testing.assert_allclose(line.y, expected, rtol=1e-12)
    assert [*line.customdata] == ["d1", "d2"]
    assert figure.layout.yaxis.title.text == "rms of the gradient"
    assert figure.layout.yaxis2.title.text == "rms" and below.yaxis == "y2"
    expected = recording[2].statistic("rms")
    np.testing.assert_allclose(below.y, expected, rtol=1e-12)


def test_update_over_weight_is_drawn_over_depth_and_steps():
    """A weight that does not change while others do is marked as zero."""
    ratios = [(1e-3, 2e-5, 0.5), (4e-3, 0.0, 0.25)]
    steps = Recording(trained(*r, step=5 * i) for i, r in enumerate(ratios))
    look = {"statistic": "update_ratio", "of": "weight_update"}
    profile = figures.depth_profile({"run": steps}, **look)
    line = named(profile, "step 0")[0]
    np.testing.assert_allclose(line.y, ratios[0], rtol=1e-12)
    (zero,) = named(profile, "zero")
    assert [*zero.customdata] == ["d2"]
    heat = figures.heat_map(steps, **look).data[0]
    expected = np.log10([[1e-3, 4e-3], [2e-5, NAN], [0.5, 0.25]])
    np.testing.assert_allclose(heat.z, expected, rtol=1e-6)
    assert (heat.zmin + heat.zmax) / 2 == -3  # the usual ratio is pale


@pytest.mark.parametrize("of", ["output", "weight"])
def test_only_updates_have_a_ratio_to_the_weights(of):
    """As an error that names the statistics."""
    with pytest.raises(ValueError, match="`statistic` must be one of rms"):
        figures.heat_map(Recording([trained(1e-3)]), "update_ratio", of=of)


def found_in(*layers, code="dead-units", step=10, last_step=20):
    return Finding(code, "warning", step, layers, {}, ".", last_step=last_step)


def bands(figure):
    return [(shape.x0, shape.x1) for shape in figure.layout.shapes]


def test_the_layers_of_a_finding_have_a_band_in_every_panel_over_depth(back):
    """From half a layer before to half a layer after. Only if a finding is to be marked."""
    steps = Recording(
        trained(*[1e-3] * 6, step=s, output_gradient=random(None, *[1.0] * 6))
        for s in (0, 10, 20)
    )
    finding = found_in("d2", "d3", "d5")
    figure = figures.depth_profile({"run": steps}, marked={"run": finding})
    assert {*bands(figure)} == {(1.5, 3.5), (4.5, 5.5)}
    assert {shape.yref for shape in figure.layout.shapes} == {"y domain", "y2 domain"}
    assert named(figure, f"dead-units in 3 layers, {finding.when}")
    assert not bands(figures.depth_profile({"run": steps}))


def test_the_heat_map_frames_layers_and_steps_of_a_finding():
    """Up to the last step at which it was seen, from halfway to the steps beside them. Rows
    are counted."""
    steps = Recording(trained(*[1e-3] * 6, step=s) for s in (0, 5, 10, 20, 30))
    figure = figures.heat_map(steps, marked=found_in("d2", "d3", "d5"))
    frames = [(s.x0, s.x1, s.y0, s.y1) for s in figure.layout.shapes]
    expected = [(7.5, 25.0, 1.5, 3.5), (7.5, 25.0, 4.5, 5.5)]
    assert frames == [expected[0]] * 2 + [expected[1]] * 2  # each in two colours
    assert not figures.heat_map(steps).layout.shapes


def test_a_mark_goes_on_over_the_layers_between_two_depths():
    """Every weight layer of a chain with normalization; not over a weight layer between."""
    drawn = networks.Drawn(0)
    for i in range(4):
        drawn.weight(f"dense{i}", activation="linear")
        drawn.normalization(f"norm{i}")
    steps = Recording([drawn.snapshot()])
    every = figures.heat_map(steps, marked=found_in(*(f"dense{i}" for i in range(4))))
    assert len({s.y0 for s in every.layout.shapes}) == 1
    apart = figures.heat_map(steps, marked=found_in("dense0", "dense2"))
    assert len({s.y0 for s in apart.layout.shapes}) == 2


def residual(blocks_count, missing=()):
    """A normalized residual network, and the names of its weight layers but some."""
    one = networks.blocks(blocks_count, lambda i: 1.0, normalized=True)
    weights = [layer.name for layer in one.layers if layer.kind == "weight"]
    return Recording([one]), found_in(*(n for n in weights if n not in missing))


@pytest.mark.parametrize(
    ("missing", "count"),
    [
        ((), 1),
        (("up3",), 2),  # few bands say what they say
        ([f"up{i}" for i in range(0, 61, 5)], 1),  # nearly all
        ([f"up{i}" for i in range(1, 61)], 61),  # half of them: not merged
    ],
)
def test_bands_of_nearly_all_layers_are_one(missing, count):
    """Normalizations and sums between the weight layers do not interrupt them."""
    steps, finding = residual(60, missing)
    over_depth = figures.depth_profile({"run": steps}, marked={"run": finding})
    assert len(bands(over_depth)) == count
    by_step = figures.heat_map(steps, marked=finding).layout.shapes
    assert len({shape.y0 for shape in by_step}) == count


@pytest.mark.parametrize(("layers", "framed"), [(20, True), (150, False)])
def test_low_rows_of_the_heat_map_are_marked_at_the_axis_only(layers, framed):
    """The chosen row and a finding in one layer: lines around them would hide them."""
    steps = Recording([trained(*[1e-3] * layers)])
    options = {"chosen": ["d7"], "marked": found_in("d9", step=0, last_step=0)}
    figure = figures.heat_map(steps, **options)
    frames = [s for s in figure.layout.shapes if s.type == "rect"]
    inside = [s for s in figure.layout.shapes if s.type == "line" and s.x1 != s.x0]
    at_axis = [s for s in figure.layout.shapes if (s.x0, s.x1, s.xref) == (0, 0, "paper")]
    assert (len(frames), len(inside), len(at_axis)) == ((2, 2, 0) if framed else (0, 0, 1))
    assert any(text.startswith("\u25b8") for text in figure.layout.yaxis.ticktext)
    # A stretch that is high enough has its frame.
    wide = found_in(*(f"d{i}" for i in range(1, 10)), step=0)
    assert [s.type for s in figures.heat_map(steps, marked=wide).layout.shapes] == [
        "rect"
    ] * 2


@pytest.mark.parametrize(("layers", "titled"), [(2, False), (30, True)])
def test_the_title_of_the_colour_bar_is_not_longer_than_the_map(layers, titled):
    """The title of the figure says the same."""
    steps = Recording([trained(*[1e-3] * layers)])
    figure = figures.heat_map(steps, "update_ratio", of="weight_update")
    said = "rms of update / rms of weight"
    assert figure.data[0].colorbar.title.text == (said if titled else None)
    assert figure.layout.title.text.startswith(said)
    rms = figures.heat_map(steps)  # a short title fits
    assert rms.data[0].colorbar.title.text == "rms"


def test_the_graph_draws_the_rings_of_the_other_findings_faintly():
    """All alike, if none is to be marked."""
    steps = Recording([trained(1e-3, 1e-3)])
    both = found_in("d1"), found_in("d2", code="mean-shift")
    diagnosis = summary(steps, both)

    def widths(**options):
        drawn = figures.layer_graph(steps, diagnosis, **options).data
        rings = [trace for trace in drawn if trace.name and "(warning)" in trace.name]
        return [ring.marker.line.width for ring in rings]

    first, second = widths(marked=both[1])
    assert first < second
    assert widths() == [second, second]

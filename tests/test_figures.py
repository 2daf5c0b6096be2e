"""The figures: what is drawn is what was measured, found a second way with numpy."""

import dataclasses
import html
import json
import math

import numpy as np
import pytest
import tensorflow as tf

import networks
from activation_monitor import ActivationMonitor, audit
from activation_monitor import diagnose as public_diagnose
from activation_monitor.analysis import chance, histogram
from activation_monitor.analysis.diagnosis import diagnose
from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views import figures
from activation_monitor.views.figures import colours, image, pixel_text, style
from models import data, perceptron, watch
from networks import Drawn, blocks, chain, network, tap

HOSTILE = "</script><img src=x onerror=alert(1)>&amp;<b>%{y}</b>$\\href{x}$"

DRAWN = {
    "depth_profile": lambda h, d, **o: figures.depth_profile({"a": h}, **o),
    "two runs": lambda h, d, **o: figures.depth_profile({"a": h, "b": h}, **o),
    "heat_map": lambda h, d, **o: figures.heat_map(h, **o),
    "comparison": lambda h, d, **o: figures.comparison({"a": h, "b": h}, **o),
    "layer_graph": figures.layer_graph,
    "layer_over_time": lambda h, d, **o: figures.layer_over_time(
        {"a": h, "b": h}, h[0].names[-1], **o
    ),
    "histogram_over_time": lambda h, d, **o: figures.histogram_over_time(
        h, h[0].names[-1], **o
    ),
    "statistic_over_time": lambda h, d, **o: figures.statistic_over_time(
        {"a": h, "b": h}, h[0].names[-1], **o
    ),
}


def drawn(depth=5, seed=0, **options):
    """A random network computed by numpy, with its head."""
    net = Drawn(seed).chain(depth, **options)
    net.snapshot()
    return net


def recording(*nets):
    """The snapshots of some networks at steps 0, 10, 20, ..."""
    return Recording(net.snapshot(step=10 * i) for i, net in enumerate(nets))


def rms(net):
    """Root mean square of each tensor, by name."""
    return {name: math.sqrt(np.mean(x**2)) for name, x in net.tensors.items()}


def named(figure, name):
    """The traces of that name."""
    return [trace for trace in figure.data if trace.name == name]


def by_layer(trace):
    """A trace's y of each layer."""
    return dict(zip(trace.customdata, trace.y, strict=True))


# -- the depth profile


def test_the_depth_profile_is_the_rms_over_depth():
    """At the first and the last step, on a logarithmic axis. Depth counts weight layers."""
    nets = [drawn(seed=seed) for seed in range(3)]
    figure = figures.depth_profile({"run": recording(*nets)})
    for step, net in ((0, nets[0]), (20, nets[2])):
        (curve,) = named(figure, f"step {step}")
        names = ("x", "d1", "d2", "d3", "d4", "d5", "head")
        assert tuple(curve.customdata) == names
        np.testing.assert_array_equal(curve.x, range(7))
        expected = [rms(net)[name] for name in names]
        np.testing.assert_allclose(curve.y, expected, rtol=1e-12)
    assert figure.layout.yaxis.type == "log"
    assert not named(figure, "step 10")


@pytest.mark.parametrize("statistic", ["std", "within_std", "mean", "zero_fraction"])
def test_other_statistics_are_drawn_by_their_own_values(statistic):
    """As absolute values, because the axis is logarithmic."""
    net = drawn()
    figure = figures.depth_profile({"run": recording(net)}, statistic)
    found = by_layer(named(figure, "step 0")[0])
    of = {
        "std": lambda x: x.std(),
        "within_std": lambda x: math.sqrt(x.var(axis=0).mean()),
        "mean": lambda x: abs(x.mean()),
        "zero_fraction": lambda x: (x == 0).mean(),
    }[statistic]
    for name, tensor in net.tensors.items():
        np.testing.assert_allclose(found[name], of(tensor), rtol=1e-10)
    assert not named(figure, "expected range of a well-scaled network")


def test_a_negative_mean_is_drawn_hollow():
    """The place shows its size, the marker its sign."""
    snapshot = network(tap("a", 2.0, mean=0.5), tap("b", 2.0, mean=-0.5))
    figure = figures.depth_profile({"run": Recording([snapshot])}, "mean")
    (curve,) = named(figure, "step 0")
    assert curve.marker.symbol == ("circle", "circle-open")
    np.testing.assert_allclose(curve.y, [1.0, 1.0], rtol=1e-12)


def test_steps_that_were_not_sampled_show_the_last_before():
    """A step before the first snapshot shows the first one. No curve is drawn twice."""
    nets = [drawn(seed=seed) for seed in range(3)]
    figure = figures.depth_profile({"run": recording(*nets)}, steps=[-1, 4, 12, 15, 99])
    shown = [trace.name for trace in figure.data if trace.customdata is not None]
    assert shown == ["step 0", "step 10", "step 20"]


@pytest.mark.parametrize("steps", [10, np.int64(14), [10]])
def test_one_step_may_stand_without_a_list(steps):
    """A number has the same effect as a list of one number."""
    nets = [drawn(seed=seed) for seed in range(3)]
    figure = figures.depth_profile({"run": recording(*nets)}, steps=steps)
    assert [t.name for t in figure.data if t.customdata is not None] == ["step 10"]


def test_the_steps_of_a_run_among_others_have_dashes_that_differ():
    """The last step is solid, the others are not."""
    nets = [drawn(seed=seed) for seed in range(3)]
    runs = {"a": recording(*nets), "b": recording(*nets)}
    figure = figures.depth_profile(runs, "std", steps=[0, 10, 20])
    for run in runs:
        dashes = [t.line.dash for t in figure.data if t.name.startswith(f"{run}, step")]
        assert len(set(dashes)) == 3 and dashes[-1] == "solid"


def test_the_band_is_what_chance_allows_a_well_scaled_network():
    """From the first tensor on: mean and variance grow evenly, three sd on either side."""
    net = drawn(10)
    figure = figures.depth_profile({"run": recording(net)})
    (band,) = named(figure, "expected range of a well-scaled network")
    assert band.showlegend
    high, low = np.log10(band.y[:10]), np.log10(band.y[10:][::-1])
    np.testing.assert_allclose(band.x[:10], range(1, 11))
    law = chance.of_layers(("relu",) * 9, (64,) * 9)
    start = math.log10(rms(net)["d1"])
    for k in range(10):
        mean = law.mean / math.log(10) * k / 9
        sd = math.sqrt(law.variance * k / 9) / math.log(10)
        np.testing.assert_allclose((high[k] + low[k]) / 2, start + mean, atol=1e-9)
        np.testing.assert_allclose((high[k] - low[k]) / 2, 3 * sd, atol=1e-9)


@pytest.mark.parametrize("variance", [2.0, 40.0, 0.1])
def test_only_a_healthy_network_stays_in_its_band(variance):
    """So the figure alone shows whether the network is healthy."""
    net = drawn(20, variance=variance)
    figure = figures.depth_profile({"run": recording(net)})
    (band,) = named(figure, "expected range of a well-scaled network")
    found = by_layer(named(figure, "step 0")[0])
    high, low = band.y[:20], band.y[20:][::-1]
    inside = [low[i] <= found[f"d{i + 1}"] <= high[i] for i in range(1, 20)]
    assert all(inside) if variance == 2.0 else not any(inside[5:])


def test_zeros_and_what_is_not_finite_are_marked_at_the_edges():
    """They are never visible as a gap only."""
    snapshot = chain(1.0, 1e-3, 0.0, math.nan)
    figure = figures.depth_profile({"run": Recording([snapshot])})
    (zeros,), (others,) = named(figure, "zero"), named(figure, "NaN or infinite elements")
    assert tuple(zeros.customdata) == ("d3",)
    assert tuple(others.customdata) == ("d4", "head")
    low, high = figure.layout.yaxis.range
    curve = by_layer(named(figure, "step 0")[0])
    assert math.isnan(curve["d3"])
    finite = [y for y in curve.values() if math.isfinite(y)]
    assert 10**low < zeros.y[0] < min(finite) <= max(finite) < others.y[0] < 10**high
    assert "2 of 4 elements are NaN or infinite" in others.hovertext[0]
    assert zeros.hovertext[0].endswith("rms is 0")


def test_the_limits_of_a_dtype_are_drawn_where_the_curve_comes_near_them():
    """Largest float32 3.4e38, smallest normal 1.18e-38; for float16 65504 and 6.1e-5."""

    def lines(dtype, *sizes):
        figure = figures.depth_profile({"r": Recording([chain(*sizes, dtype=dtype)])})
        notes = [one for one in figure.layout.annotations if one.text != "step 0"]
        low, high = figure.layout.yaxis.range
        assert all(low < note.y < high for note in notes)
        # On a log axis a line stands at a value, a text at its logarithm.
        places = [shape.y0 for shape in figure.layout.shapes]
        texts = [10.0**note.y for note in notes]
        np.testing.assert_allclose(texts, places)
        return places

    assert lines("float32", 1.0, 2.0) == []
    np.testing.assert_allclose(lines("float32", 1.0, 1e36), [3.4028235e38], 1e-6)
    np.testing.assert_allclose(lines("float32", 1.0, 1e-36), [1.1754944e-38], 1e-6)
    np.testing.assert_allclose(lines("float16", 1.0, 30.0), [65504.0, 2.0**-14], 1e-6)


def test_gradients_have_a_panel_of_their_own():
    """Their rms on a logarithmic axis; without gradients there is one panel."""
    taps = [tap(f"d{i}", 1.0, gradient=10.0**-i) for i in range(1, 4)]
    lost = tap("lost", 1.0, gradient=0.0)
    snapshot = network(*taps, lost)
    figure = figures.depth_profile({"run": Recording([snapshot])})
    below = [trace for trace in figure.data if trace.yaxis == "y2"]
    np.testing.assert_allclose(below[0].y[:3], [1e-1, 1e-2, 1e-3], rtol=1e-12)
    assert figure.layout.yaxis2.type == "log"
    assert tuple(below[1].customdata) == ("lost",)
    assert not any(
        trace.yaxis == "y2"
        for trace in figures.depth_profile({"run": Recording([chain(1.0)])}).data
    )


def test_what_stands_beside_the_trunk_is_not_on_the_curve():
    """The residual stream is a line; layers of its branches are points."""
    figure = figures.depth_profile({"run": Recording([blocks(3, lambda i: 2.0**i)])})
    line, points = named(figure, "step 0")
    stream = ["stem", "sum1", "sum2", "sum3", "head"]
    assert [name for name in line.customdata] == stream
    np.testing.assert_allclose(line.y[:4], [1.0, 2.0, 4.0, 8.0], rtol=1e-12)
    assert line.mode == "lines+markers" and points.mode == "markers"
    assert set(points.customdata) == {f"{n}{i}" for n in ("up", "down") for i in (1, 2, 3)}
    assert all(np.diff(line.x) > 0)


# -- the heat map


@pytest.fixture(scope="module")
def three():
    """A network at three steps: healthy, with a zero, with one half not finite."""
    steps = [chain(1.0, 10.0), chain(100.0, 0.0, step=5), chain(1e-3, math.nan, step=9)]
    return Recording(steps)


def test_the_heat_map_is_log10_of_the_rms_by_layer_and_step(three):
    """Rows start at the input, columns are steps. Zeros and NaN are marked."""
    figure = figures.heat_map(three)
    sizes, marks, *_ = figure.data
    assert tuple(sizes.customdata) == tuple(sizes.y) == ("x", "d1", "d2", "head")
    assert tuple(sizes.x) == (0, 5, 9)
    assert figure.layout.yaxis.autorange == "reversed"
    np.testing.assert_allclose(
        sizes.z, [[0, 0, 0], [0, 2, -3], [1, np.nan, 0], [0, 0, 0]], atol=1e-6
    )
    nan = np.nan
    expected = [[nan] * 3, [nan] * 3, [nan, 0, 1], [nan, nan, 1]]
    np.testing.assert_array_equal(marks.z, expected)
    assert {trace.name for trace in figure.data[2:]} == {"zero", "NaN or infinite elements"}


def test_a_cell_of_the_heat_map_says_its_value_whatever_other_cells_hold(three):
    """Zeros and NaN have a tooltip with the number of elements; the marks above them have
    none."""
    sizes, marks, *_ = figures.heat_map(three).data
    half = "NaN; 2 of 4 elements are NaN or infinite; without them 1"
    assert sizes.text.tolist() == [
        ["1", "1", "1"],
        ["1", "100", "0.001"],
        ["10", "0", half],
        ["1", "1", half],
    ]
    assert sizes.hovertemplate == "%{y}<br>step %{x}: rms %{text}<extra></extra>"
    assert marks.hoverinfo == "skip" and marks.hovertemplate is None


def test_a_healthy_heat_map_says_the_values_and_has_no_marks():
    """The same values as with numpy, as plain numbers instead of powers of 10."""
    net = drawn()
    (sizes,) = figures.heat_map(recording(net)).data
    said = dict(zip(sizes.customdata, sizes.text[:, 0], strict=True))
    assert said == {name: f"{value:.4g}" for name, value in rms(net).items()}


def test_tooltips_of_shares_are_percent_and_never_round_a_fault_away():
    """One non-finite element in a million is not shown as 0 %."""
    few = np.ones((1000, 1000))
    few[0, 0] = np.nan
    steps = Recording([network(tap("a", few), tap("b", np.zeros((4, 2))), tap("c", None))])

    def said(statistic):
        return figures.heat_map(steps, statistic).data[0].text[:, 0].tolist()

    lost = "1 of 1000000 elements are NaN or infinite"
    assert said("nonfinite_fraction") == [f"0.0001%; {lost}", "0%"]
    assert said("zero_fraction") == [f"0%; {lost}", "100%"]
    assert said("rms") == [f"NaN; {lost}; without them 1", "0"]


def test_a_layer_that_was_not_measured_says_so():
    """At the steps at which it did not exist."""
    later = network(tap("x", 1.0, "input"), tap("d1", 10.0), tap("new", 100.0), step=1)
    sizes = figures.heat_map(Recording([chain(1.0), later])).data[0]
    said = dict(zip(sizes.customdata, sizes.text.tolist(), strict=True))
    assert said["new"] == ["not measured", "100"]
    assert said["head"] == ["1", "not measured"]


def test_the_colours_of_sizes_have_1_in_the_middle(three):
    """Blue below and red above. With at least three decades, a healthy network is pale."""
    sizes = figures.heat_map(three).data[0]
    assert (sizes.zmin, sizes.zmax) == (-3.0, 3.0)
    wide = figures.heat_map(Recording([chain(1.0, 1e20)])).data[0]
    assert (wide.zmin, wide.zmax) == (-20.0, 20.0)
    share = figures.heat_map(three, "zero_fraction").data[0]
    assert (share.zmin, share.zmax) == (0.0, 1.0)
    np.testing.assert_allclose(share.z[2], [0.0, 1.0, 0.0])


@pytest.mark.parametrize("far", [1.0, 1e2, 5e3, 1e7, 3e20, 1e38])
def test_the_key_of_sizes_has_whole_powers_of_10(far):
    """At least three with 1 in the middle, all on the scale."""
    steps = Recording([chain(1.0, far)])
    graph = figures.layer_graph(steps, diagnose(steps))
    (layers,) = named(graph, "")
    sizes = figures.heat_map(steps).data[0]
    of_layers = layers.marker.cmin, layers.marker.cmax
    np.testing.assert_allclose((sizes.zmin, sizes.zmax), of_layers, rtol=1e-6)
    for bar in (sizes.colorbar, layers.marker.colorbar):
        places = list(bar.tickvals)
        assert len(places) in (3, 5) and all(isinstance(place, int) for place in places)
        assert places[len(places) // 2] == 0 and sizes.zmin <= min(places)
        assert max(places) <= sizes.zmax
        for place, text in zip(places, bar.ticktext, strict=True):
            digits = text.replace("<sup>", "e").replace("</sup>", "")
            assert float(digits.replace("\u2212", "-").replace("10e", "1e")) == 10.0**place


def test_dead_units_are_a_share_of_the_units_of_their_layer():
    """So layers of different widths can be compared. Tooltips are in percent as well."""
    few = [tap("a", 1.0, dead=0, width=8), tap("b", 1.0, dead=2, width=8)]
    few.append(tap("c", 1.0, dead=6, width=16))
    steps = Recording([network(*few)])
    heat = figures.heat_map(steps, "dead_units").data[0]
    np.testing.assert_array_equal(heat.z, [[0.0], [2 / 8], [6 / 16]])
    assert (heat.zmin, heat.zmax, heat.colorbar.tickformat) == (0.0, 1.0, ".0%")
    assert [text[0] for text in heat.text] == ["0%", "25%", "37.5%"]
    profile = figures.depth_profile({"a": steps}, "dead_units")
    assert profile.layout.yaxis.tickformat == ".0%"
    np.testing.assert_array_equal(profile.data[0].y, [0.0, 2 / 8, 6 / 16])
    ratio = figures.comparison({"a": steps, "b": steps}, "dead_units").layout.yaxis2
    assert ratio.tickformat == ".0%"


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((-1.3, 1.5), ["0.1", "0.3", "1", "3", "10", "30"]),
        ((2.9, 3.6), ["1000", "3000"]),
        ((2.9, 4.1), ["10<sup>3</sup>", "3·10<sup>3</sup>", "10<sup>4</sup>"]),
        ((-4.2, -3.4), ["10<sup>−4</sup>", "3·10<sup>−4</sup>"]),
    ],
)
def test_a_short_axis_of_sizes_has_ticks_at_1_and_3(ends, expected):
    """As plain numbers near 1, never mixed with powers. Each tick says its place."""
    axis = style.log_axis(*ends)
    assert axis["ticktext"] == expected
    said = [read(text) for text in axis["ticktext"]]
    np.testing.assert_allclose(said, axis["tickvals"], rtol=1e-12)


def test_the_profile_of_a_healthy_network_has_such_ticks():
    """No power with a broken exponent."""
    axis = figures.depth_profile({"a": recording(drawn())}).layout.yaxis
    assert {"0.1", "0.3", "1", "3", "10"} <= {*axis.ticktext}
    assert not any("." in text and "<sup>" in text for text in axis.ticktext)


def read(tick):
    """The number that a tick says."""
    digits = tick.replace("−", "-").replace("</sup>", "").replace("·10<sup>", "e")
    return float(digits.replace("10<sup>", "1e"))


@pytest.mark.parametrize("decades", [4, 12, 60])
def test_a_long_axis_of_sizes_has_a_few_powers_of_10(decades):
    """At equal distances."""
    steps = Recording([chain(1.0, 10.0**-decades, dtype="float64")])
    axis = figures.depth_profile({"a": steps}).layout.yaxis
    exponents = np.log10(axis.tickvals)
    assert 3 <= len(exponents) <= 8 and len(set(np.diff(exponents).round(9))) == 1
    np.testing.assert_allclose([read(t) for t in axis.ticktext], axis.tickvals, rtol=1e-12)


def test_of_very_many_steps_the_heat_map_draws_an_even_choice():
    """Including the first and the last."""
    snapshot = chain(1.0)
    many = Recording(dataclasses.replace(snapshot, step=i) for i in range(2001))
    x = [int(step) for step in figures.heat_map(many).data[0].x]
    assert (len(x), x[0], x[-1]) == (500, 0, 2000)
    assert set(np.diff(x)) <= {4, 5}


def test_a_layer_that_comes_later_has_a_row_without_what_was_not_measured():
    """The rows are the layers of all steps."""
    later = network(tap("x", 1.0, "input"), tap("d1", 10.0), tap("new", 100.0), step=1)
    sizes = figures.heat_map(Recording([chain(1.0), later])).data[0]
    found = dict(zip(sizes.customdata, sizes.z, strict=True))
    np.testing.assert_allclose(found["new"], [np.nan, 2.0])
    np.testing.assert_allclose(found["head"], [0.0, np.nan])


def test_the_picture_has_a_block_of_pixels_for_each_layer_and_step(three):
    """White at 1, blue below, red above, grey for zeros, yellow for NaN."""
    pixels = image.heat_image(three)
    assert pixels.shape == (360, 639, 3) and pixels.dtype == np.uint8
    blocks = pixels.reshape(4, 90, 3, 213, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    cells = blocks[:, 0, :, 0].astype(int)
    np.testing.assert_array_equal(cells[0], [[0xF2] * 3] * 3)
    red, _, blue = np.moveaxis(cells, -1, 0)
    assert red[2, 0] > blue[2, 0] and red[1, 1] > blue[1, 1] and red[1, 2] < blue[1, 2]
    assert cells[2, 1].tolist() == [0x8C] * 3
    assert cells[2, 2].tolist() == cells[3, 2].tolist() == [0xE3, 0xB5, 0x05]
    many = Recording(dataclasses.replace(chain(1.0), step=i) for i in range(2001))
    assert image.heat_image(many).shape == (360, 500, 3)


def texts_in(pixels, texts):
    """Where each text stands in an image: the columns and rows of its top left corner."""
    ink = (pixels == pixel_text.INK).all(axis=-1)
    found = {}
    for text in texts:
        mask = pixel_text.text_mask(text, 2)
        windows = np.lib.stride_tricks.sliding_window_view(ink, mask.shape)
        found[text] = [(x, y) for y, x in np.argwhere((windows == mask).all(axis=(2, 3)))]
    return found


def test_the_picture_has_axes_and_a_key(three):
    """The heat map, the numbers of the layers beside their rows, the steps below their
    columns, and the colours with their meaning."""
    heat, pixels = image.heat_image(three), image.picture(three)
    area = image.heat_area(heat)
    np.testing.assert_array_equal(pixels[area], heat)
    top, left = area[0].start, area[1].start
    texts = ("layer", "step", "rms", "1e6", "1e-3", "zero", "NaN inf")
    found = texts_in(pixels, texts)
    assert all(len(places) == 1 for places in found.values()), found
    half = pixel_text.HEIGHT
    for layer in range(4):  # rows of 90 pixels
        places = texts_in(pixels[:, :left], [str(layer)])[str(layer)]
        (y,) = [y for _, y in places]
        assert abs(y + half - (top + 90 * layer + 45)) <= 2
    below = pixels[area[0].stop :]
    for column, step in enumerate(three.steps):  # columns of 213 pixels
        ((x, _),) = texts_in(below, [str(step)])[str(step)]
        middle = x + pixel_text.text_mask(str(step), 2).shape[1] / 2
        assert abs(middle - (left + 213 * column + 106.5)) <= 2
    # The key names the colours that the map has: pale at 1, darkest at the ends.
    ((_, y),) = found["1e6"]
    bar = pixels[y + half : y + half + 180, area[1].stop + 25].astype(int)
    assert bar[0, 0] > bar[0, 2] and bar[-2, 0] < bar[-2, 2]
    np.testing.assert_allclose(bar[90], 0xF2, atol=2)


def test_the_labels_of_a_large_picture_do_not_overlap():
    """150 layers and 500 steps: round numbers, and gaps between the steps."""
    deep = chain(*np.logspace(0, 3, 148))
    many = Recording(dataclasses.replace(deep, step=3 * i) for i in range(500))
    pixels = image.picture(many)
    assert pixels.shape[1] < 1000
    assert [*image._spread(150, 15)] == [*range(0, 150, 10)]
    assert [*image._spread(150, 14)] == [*range(0, 150, 20)]
    columns = image._apart(many.steps, 500)
    assert columns[0] == 0 and columns[-1] == 499
    width = pixel_text.text_mask("1497", 2).shape[1]
    assert (np.diff(columns) >= 0.6 * width).all() and len(columns) >= 5


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 7, 3), (90, 4, 3)])
def test_the_png_is_read_as_the_same_pixels(shape):
    """By the decoder of TensorFlow."""
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal(tf.io.decode_png(image.png(pixels)), pixels)


# -- one layer over the steps


def test_a_layer_over_time_shows_mean_std_extremes_and_shares():
    """All equal those that numpy computes from the tensors. The band of a ReLU does not go
    below 0."""
    nets = [drawn(seed=seed) for seed in range(3)]
    figure = figures.layer_over_time({"run": recording(*nets)}, "d2")
    tensors = [net.tensors["d2"] for net in nets]
    traces = {trace.name: trace for trace in figure.data}
    np.testing.assert_array_equal(traces["mean"].x, [0, 10, 20])
    np.testing.assert_allclose(at(figure, traces["mean"].y), [x.mean() for x in tensors])
    low, high = (at(figure, trace.y) for trace in named(figure, "extremes"))
    np.testing.assert_allclose(low, [x.min() for x in tensors])
    np.testing.assert_allclose(high, [x.max() for x in tensors])
    upper, lower = np.split(at(figure, traces["mean ± std"].y), 2)
    np.testing.assert_allclose(upper, [x.mean() + x.std() for x in tensors])
    assert all(x.mean() < x.std() for x in tensors)
    np.testing.assert_array_equal(lower, [0, 0, 0])
    np.testing.assert_allclose(traces["zeros"].y, [(x == 0).mean() for x in tensors])
    np.testing.assert_array_equal(traces["non-finite"].y, [0, 0, 0])


def at(figure, places):
    """The values at places of an axis that is linear up to its first positive tick and has
    a power of 10 for each unit beyond it."""
    axis, places = figure.layout.yaxis, np.array(places)
    said = dict(zip(axis.tickvals, axis.ticktext, strict=True))
    far = np.where(np.abs(places) > 1, 10.0 ** (np.abs(places) - 1), np.abs(places))
    assert axis.type != "log" and said[0] == "0"
    return read(said[1]) * np.sign(places) * far


def test_steps_with_nan_are_marked_in_the_layer_over_time(three):
    """Above all curves, with the fraction."""
    figure = figures.layer_over_time({"run": three}, "d2")
    (marks,) = named(figure, "NaN or infinite elements")
    assert tuple(marks.x) == (9,)
    assert max(named(figure, "extremes")[1].y) < marks.y[0] < figure.layout.yaxis.range[1]
    np.testing.assert_allclose(named(figure, "non-finite")[0].y, [0, 0, 0.5])


def test_steps_with_nan_of_several_runs_have_one_entry_in_the_legend(three):
    """The outline of a mark has the colour of its run, the tooltip its name."""
    runs = {"good": recording(*[drawn()] * 2), "a": three, "b": three}
    figure = figures.layer_over_time(runs, "d2")
    marks = named(figure, "NaN or infinite elements")
    assert [trace.showlegend for trace in marks] == [True, False]
    of_runs = [trace.line.color for trace in figure.data if trace.name.endswith(": mean")]
    assert of_runs == [*colours.LIGHT.runs[1:3], colours.LIGHT.runs[0]]  # in front: last
    assert [trace.marker.line.color for trace in marks] == of_runs[:2]
    said = "step 9: 2 of 4 elements are NaN or infinite"
    assert [trace.hovertext for trace in marks] == [(f"a: {said}",), (f"b: {said}",)]


def test_runs_without_the_layer_are_left_out():
    """One run with the layer is enough. It keeps the colour that it has among the
    others."""
    runs = {"a": Recording([chain(1.0)]), "b": Recording([chain(1.0, 2.0)])}
    figure = figures.layer_over_time(runs, "d2")
    assert not any(trace.name.startswith("a:") for trace in figure.data)
    of_both = figures.layer_over_time(runs, "d1")
    (alone,), (beside,) = named(figure, "b: mean"), named(of_both, "b: mean")
    assert alone.line.color == beside.line.color == colours.LIGHT.runs[1]


@pytest.mark.parametrize(
    ("steps", "ticks"),
    [([7], {"tickvals": (7,)}), ([0, 3], {"dtick": 1}), ([0, 500], {"dtick": None})],
)
def test_no_tick_stands_between_two_steps(steps, ticks):
    """Nor at half a depth. On a longer axis the ticks of plotly are whole numbers."""
    taken = Recording(chain(1.0, 2.0, step=step) for step in steps)
    axis = figures.layer_over_time({"a": taken}, "d2").layout.xaxis
    assert {name: axis[name] for name in ticks} == ticks
    many = Recording([drawn(30).snapshot()])
    for depth, each in ((taken, 1), (many, None)):
        other = Recording([network(tap("x"), *[tap(f"y{i}") for i in range(5)])])
        runs = {"a": depth, "b": other}
        assert figures.depth_profile(runs).layout.xaxis.dtick == each


def with_histograms(x, step):
    """A snapshot of one layer with the histogram of a tensor."""
    counts, edges = np.histogram(x, histogram.BUCKETS)
    rows = np.stack([edges[:-1], edges[1:], counts], axis=1)
    vector = histogram.pack(histogram.Histogram(1, rows))
    return dataclasses.replace(
        network(tap("a", x), step=step), histograms={"output": vector[None]}
    )


def test_without_histograms_the_figure_says_so(three):
    """Instead of staying empty."""
    figure = figures.histogram_over_time(three, "d1")
    assert not figure.data
    assert "No histograms were recorded" in figure.layout.annotations[0].text


# -- the layer graph


def test_the_layer_graph_has_a_line_for_each_edge_and_rings_on_what_was_found():
    """All layers are at their depth, branches beside the trunk."""
    snapshot = blocks(6, lambda i: 6.0**i)
    diagnosis = diagnose([snapshot])
    assert [f.code for f in diagnosis.findings] == ["exploding-activations"]
    figure = figures.layer_graph(Recording([snapshot]), diagnosis)
    edges, rings, layers = figure.data
    assert rings.name == "exploding-activations (critical)"
    assert set(rings.customdata) == set(diagnosis.findings[0].layers)
    assert set(layers.customdata) == set(snapshot.names)
    place = dict(zip(layers.customdata, zip(layers.x, layers.y, strict=True), strict=True))
    assert place["stem"] == (1.0, 0) and place["sum3"][1] == 0 and place["up2"][1] != 0
    drawn_edges = {
        ((edges.x[i], edges.y[i]), (edges.x[i + 1], edges.y[i + 1]))
        for i in range(0, len(edges.x), 3)
    }
    assert drawn_edges == {
        (place[snapshot.names[parent]], place[layer.name])
        for layer in snapshot.layers
        for parent in layer.parents
    }
    np.testing.assert_allclose(
        dict(zip(layers.customdata, layers.marker.color, strict=True))["sum3"],
        3 * math.log10(6.0),
    )


@pytest.mark.parametrize("statistic", ["rms", "std", "mean", "zero_fraction", "dead_units"])
@pytest.mark.parametrize("step", [None, 0, 10, 14, [20]])
def test_the_layer_graph_shows_the_statistic_at_the_step(statistic, step):
    """In the colours of the heat map. Both are in the title; the rings do not change."""
    nets = [drawn(8, seed=seed, variance=0.05) for seed in range(3)]
    steps = recording(*nets)
    diagnosis = diagnose(steps)
    options = {} if step is None else {"steps": step}
    figure = figures.layer_graph(steps, diagnosis, statistic, **options)
    at = {None: 0, 0: 0, 10: 1, 14: 1}[step] if not isinstance(step, list) else 2
    of = {
        "rms": lambda x: math.log10(math.sqrt((x**2).mean())),
        "std": lambda x: math.log10(x.std()),
        "mean": lambda x: math.log10(abs(x.mean())),
        "zero_fraction": lambda x: (x == 0).mean(),
        "dead_units": lambda x: (x == 0).all(axis=0).mean(),
    }[statistic]
    (layers,) = named(figure, "")
    for name, colour in zip(layers.customdata, layers.marker.color, strict=True):
        if statistic == "dead_units" and name in ("x", "head"):
            continue  # not those of ReLU
        np.testing.assert_allclose(colour, of(nets[at].tensors[name]), atol=1e-9)
    words = "|mean|" if statistic == "mean" else statistic.replace("_", " ")
    assert figure.layout.title.text == f"Layer graph, {words} at step {10 * at}"
    assert layers.marker.colorbar.title.text == words
    first = figures.layer_graph(steps, diagnosis)
    assert figure.data[1].name == "vanishing-activations (critical)"
    assert figure.data[1].customdata == first.data[1].customdata
    scale = layers.marker.cmin, layers.marker.cmax
    if statistic in ("zero_fraction", "dead_units"):
        assert scale == (0.0, 1.0) and layers.marker.colorbar.tickformat == ".0%"
    else:
        assert scale[0] == -scale[1] <= -3.0


def test_the_layer_graph_says_the_values(three):
    """In tooltips like those of the heat map, at each step."""
    figure = figures.layer_graph(three, diagnose(three), steps=9)
    said = {
        name: text.split("<br>")[-1]
        for trace in figure.data
        if trace.hovertext is not None and trace.name in ("", "NaN or infinite elements")
        for name, text in zip(trace.customdata, trace.hovertext, strict=True)
    }
    half = "rms NaN; 2 of 4 elements are NaN or infinite; without them 1"
    assert said == {"x": "rms 1", "d1": "rms 0.001", "d2": half, "head": half}


def test_the_layer_graph_of_the_share_that_is_not_finite_has_colours_for_it(three):
    """The fraction is the value here, so no mark covers it."""
    figure = figures.layer_graph(three, diagnose(three), "nonfinite_fraction", steps=9)
    (layers,) = named(figure, "")
    found = dict(zip(layers.customdata, layers.marker.color, strict=True))
    assert found == {"x": 0.0, "d1": 0.0, "d2": 0.5, "head": 0.5}
    assert not named(figure, "NaN or infinite elements")


def test_the_layer_graph_gives_zeros_and_nan_colours_of_their_own():
    """Different from a healthy layer, whose colour the finite elements might have."""
    steps = Recording([chain(1.0, 0.0, math.nan)])
    figure = figures.layer_graph(steps, diagnose(steps))
    assert tuple(named(figure, "zero")[0].customdata) == ("d2",)
    assert tuple(named(figure, "NaN or infinite elements")[0].customdata) == ("d3", "head")


# -- runs side by side


def test_the_comparison_is_the_ratio_to_the_first_run():
    """Layer by layer on a logarithmic axis, at the first and at the last step."""
    nets = {"a": [drawn(seed=0), drawn(seed=1)]}
    nets["b"] = [drawn(seed=2, variance=8.0), drawn(seed=3, variance=8.0)]
    runs = {name: recording(*both) for name, both in nets.items()}
    figure = figures.comparison(runs)
    ratios = [trace for trace in figure.data if trace.yaxis == "y2"]
    assert [trace.name for trace in ratios] == ["b, step 0", "b, step 10"]
    for trace, i in zip(ratios, (0, 1), strict=True):
        a, b = rms(nets["a"][i]), rms(nets["b"][i])
        for name, y in by_layer(trace).items():
            np.testing.assert_allclose(y, b[name] / a[name], rtol=1e-12)
        assert set(trace.customdata) == set(a)


def test_layers_of_other_names_are_compared_by_their_place():
    """Keras numbers the models of one process, so two runs may share no name."""
    first = network(tap("m/a", 1.0), tap("m/b", 1.0))
    second = network(tap("m_1/a_2", 10.0), tap("m_1/b_2", 1000.0))
    figure = figures.comparison({"a": Recording([first]), "b": Recording([second])})
    (ratio,) = [trace for trace in figure.data if trace.yaxis == "y2"]
    found = by_layer(ratio)
    assert list(found) == ["m_1/a_2", "m_1/b_2"]
    np.testing.assert_allclose([*found.values()], [10.0, 1000.0], rtol=1e-12)


# -- colours of runs

COLOURED = {
    "depth_profile": lambda runs, **o: figures.depth_profile(runs, **o),
    "comparison": lambda runs, **o: figures.comparison(runs, **o),
    "layer_over_time": lambda runs, **o: figures.layer_over_time(runs, "d2", **o),
    "statistic_over_time": lambda runs, **o: figures.statistic_over_time(runs, "d2", **o),
}


def colours_in(figure):
    """Run to the colours of its lines."""
    found = {}
    for trace in figure.data:
        for run in "abcd":
            if trace.name.startswith((f"{run}, step", f"{run}: ")):
                found.setdefault(run, set()).add(trace.line.color)
    return found


@pytest.mark.parametrize("kind", COLOURED)
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("left", ["abcd", "bd", "cd", "d"])
def test_a_run_keeps_its_colour_whatever_is_hidden(kind, dark, left):
    """Its index among all runs selects it, also if it is the only one drawn."""
    if kind == "comparison" and len(left) == 1:
        left = "ad"
    runs = {run: recording(drawn(seed=i)) for i, run in enumerate("abcd")}
    places = {run: i for i, run in enumerate(runs)}
    shown = {run: runs[run] for run in left}
    figure = COLOURED[kind](shown, dark=dark, places=places)
    palette = (colours.DARK if dark else colours.LIGHT).runs
    assert colours_in(figure) == {run: {palette[places[run]]} for run in left}


@pytest.mark.parametrize("kind", COLOURED)
def test_without_places_runs_have_their_colours_in_turn(kind):
    """As in a report, which shows all runs."""
    runs = {run: recording(drawn(seed=i)) for i, run in enumerate("ca")}
    palette = colours.LIGHT.runs
    assert colours_in(COLOURED[kind](runs)) == {"c": {palette[0]}, "a": {palette[1]}}


def test_a_histogram_has_the_colour_of_its_run():
    """From the colour of the page on. The default is the colour of the first run."""
    x = np.random.default_rng(0).standard_normal((50, 8))
    steps = Recording([with_histograms(x, 0)])
    for options, place in (({}, 0), ({"place": 2}, 2), ({"place": 12}, 2)):
        (shares,) = figures.histogram_over_time(steps, "a", **options).data
        shades = [colour for _, colour in shares.colorscale]
        assert shades[0] == colours.LIGHT.paper
        assert shades[2] == colours.LIGHT.runs[place]


def test_the_expected_band_is_grey_and_that_of_the_run_in_front():
    """One for all runs. The default is the first run."""
    nets = {run: drawn(10, seed=i, variance=2.0 + i) for i, run in enumerate("abc")}
    runs = {run: recording(net) for run, net in nets.items()}
    for focus, expected in ((None, "a"), ("b", "b"), ("c", "c")):
        figure = figures.depth_profile(runs, focus=focus)
        (band,) = named(figure, "expected range of a well-scaled network")
        assert band.fillcolor == colours.translucent(colours.LIGHT.ink, 0.16)
        start = rms(nets[expected])["d1"]
        np.testing.assert_allclose([band.y[0], band.y[-1]], [start, start], rtol=1e-9)


def test_long_names_of_runs_are_cut_in_the_legend_and_whole_in_tooltips():
    """Lines are grouped by the whole name, because two names may be cut to the same
    text."""
    long = ["lr/" + "very_" * 9 + end + "_deep" * 9 for end in ("0.1", "0.2")]
    runs = {name: recording(drawn(), drawn(seed=1)) for name in long}
    for figure in (figures.depth_profile(runs), figures.layer_over_time(runs, "d2")):
        entries = [t for t in figure.data if t.legendgroup and "deep" in t.legendgroup]
        assert all(len(trace.name) < 60 for trace in entries)
        assert len({trace.legendgroup for trace in entries}) == 4
        for trace in entries:
            said = trace.hovertemplate or trace.hovertext[0]
            assert long[0] in said or long[1] in said


# -- axes

SIZES = ["rms", "std", "within_std", "between_std", "mean", "minimum", "maximum"]


@pytest.mark.parametrize("statistic", SIZES)
@pytest.mark.parametrize("sizes", [(1.0, 1.01, 0.99), (1.0, 10.0, 1e3), (1e-9, 1.0, 1e9)])
def test_sizes_have_a_log_axis_with_three_powers_of_10_at_least(statistic, sizes):
    """In each panel, also for nearly equal sizes. Ticks are at whole powers, never at
    `10^0.01`."""
    steps = Recording([chain(*sizes, mean=0.5, within=0.5)])
    one = figures.depth_profile({"a": steps}, statistic)
    two = figures.comparison({"a": steps, "b": steps}, statistic)
    for axis in (one.layout.yaxis, two.layout.yaxis, two.layout.yaxis2):
        low, high = axis.range
        assert (axis.type, axis.exponentformat) == ("log", "power")
        assert axis.tickprefix is None
        assert math.floor(high) - math.ceil(low) >= 2
    seen = [y for trace in one.data if trace.customdata is not None for y in trace.y]
    low, high = one.layout.yaxis.range
    assert all(10**low < y < 10**high for y in seen if not math.isnan(y))


def test_small_and_large_activations_are_written_as_powers_of_10():
    """Not as 10n or 2M, the default of plotly."""
    x = 1e-8 * np.random.default_rng(0).standard_normal((50, 8))
    steps = Recording([with_histograms(x, 0)])
    over_time = figures.layer_over_time({"a": steps}, "a").layout.yaxis
    histograms = figures.histogram_over_time(steps, "a").layout.yaxis
    assert over_time.exponentformat == histograms.exponentformat == "power"


@pytest.mark.parametrize("statistic", ["zero_fraction", "saturated_fraction", "dead_units"])
def test_shares_have_a_linear_axis(statistic):
    """It includes zero."""
    steps = recording(drawn())
    one = figures.depth_profile({"a": steps}, statistic)
    two = figures.comparison({"a": steps, "b": steps}, statistic)
    for axis in (one.layout.yaxis, two.layout.yaxis, two.layout.yaxis2):
        assert axis.type in (None, "linear") and axis.range[0] < 0 < axis.range[1]


def test_the_largest_numbers_of_float64_are_drawn():
    """Marks at the edge are still finite numbers."""
    snapshot = chain(1.0, 1.0, 0.0, math.nan, dtype="float64")
    snapshot.field("maximum")[1:3] = 1e308, 1e-308
    figure = figures.depth_profile({"a": Recording([snapshot])}, "maximum")
    (curve,), (zeros,) = named(figure, "step 0"), named(figure, "zero")
    (others,) = named(figure, "NaN or infinite elements")
    np.testing.assert_allclose(curve.y[1:3], [1e308, 1e-308], rtol=1e-10)
    assert 0 < zeros.y[0] < 1e-300 and 1e300 < others.y[0] < math.inf


# -- all of them


def text_of(figure):
    """Everything that a figure may show as text: all but the data and `customdata`."""
    plain = json.loads(figure.to_json())
    for trace in plain["data"]:
        trace.pop("customdata", None)
    return json.dumps(plain)


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize("dark", [False, True])
def test_hostile_names_are_text_in_every_figure(kind, dark):
    """Names of layers, classes and runs. `customdata` has the unescaped name of the
    layer."""
    taps = (tap(f"{HOSTILE}{i}", 10.0**i, class_name=HOSTILE) for i in range(6))
    steps = Recording([network(*taps, tap("n", math.nan), tap("z", 0.0))])
    diagnosis = diagnose(steps)
    runs = {HOSTILE: steps, f"{HOSTILE}2": steps}
    figure = {
        "two runs": lambda: figures.depth_profile(runs, dark=dark),
        "comparison": lambda: figures.comparison(runs, dark=dark),
        "layer_over_time": lambda: figures.layer_over_time(runs, f"{HOSTILE}1", dark),
        "statistic_over_time": lambda: figures.statistic_over_time(
            runs, f"{HOSTILE}1", dark=dark
        ),
    }.get(kind, lambda: DRAWN[kind](steps, diagnosis, dark=dark))()
    shown = text_of(figure)
    for bad in ("<img", "</script", "<b>", "$", "onerror=alert(1)>", "&gt;%{y}"):
        assert bad not in shown
    names = {name for t in figure.data if t.customdata is not None for name in t.customdata}
    assert names <= set(steps[0].names)


def test_text_is_escaped_so_that_it_reads_as_it_was():
    """Plotly decodes it to the same name."""
    assert not {"<", "$", "%"} & set(style.escape(HOSTILE))
    assert html.unescape(style.escape(HOSTILE)) == HOSTILE
    cut = html.unescape(style.short("network/" + "very/" * 10 + "dense_7", 12))
    assert cut == "…/dense_7"
    assert style.short("network/with_a_long_name", 12) == "…a_long_name"
    assert style.short("very/dense_7", 12) == "very/dense_7"


@pytest.mark.parametrize("kind", DRAWN)
def test_axes_have_names_without_the_prefix_that_all_layers_share(kind):
    """Tooltips and clicks have the whole names."""
    names = [f"net/{part}/dense_{i}" for part in ("encoder", "decoder") for i in range(4)]
    steps = Recording([network(*(tap(name) for name in ["net/stem", *names]))])
    figure = DRAWN[kind](steps, diagnose(steps))
    texts = [*(figure.layout.xaxis.ticktext or ()), *(figure.layout.yaxis.ticktext or ())]
    texts = [html.unescape(text) for text in texts]
    assert not any("net/" in text for text in texts)
    if kind in ("depth_profile", "heat_map", "graph", "layer_graph", "two runs"):
        assert {"stem", "encoder/dense_0"} <= {*texts}
    shown = {name for t in figure.data for name in t.customdata or ()}
    assert {*shown} <= {*steps[0].names}


def test_a_common_prefix_ends_between_parts():
    """A part that only begins alike stays. One name keeps its last part."""
    assert style.common(["net/dense_1", "net/dense_2", "net/dense_3"]) == "net/"
    assert style.common(["net/a/x", "net/ab/x"]) == "net/"
    assert style.common(["net/a/x"]) == "net/a/"
    assert style.common(["net/x", "x"]) == style.common(["x", "y"]) == ""
    assert style.common([]) == ""


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize("layers", [1, 5, 500])
def test_every_figure_is_drawn_for_few_and_many_layers(kind, layers):
    """As JSON without NaN or infinity, and with labels that do not crowd the axes."""
    steps = Recording([drawn(layers, width=16).snapshot(step) for step in (0, 1)])
    figure = DRAWN[kind](steps, diagnose(steps))
    json.dumps(json.loads(figure.to_json()), allow_nan=False)
    for axis in ("xaxis", "yaxis"):
        ticks = getattr(figure.layout, axis).ticktext
        assert ticks is None or len(ticks) <= 30
    if layers == 500 and kind == "depth_profile":
        assert named(figure, "step 0")[0].mode == "lines"


@pytest.mark.parametrize("kind", DRAWN)
def test_light_and_dark_differ_in_colours_only(kind):
    """The data are the same."""
    steps = recording(drawn(seed=0), drawn(seed=1))
    light, dark = (DRAWN[kind](steps, diagnose(steps), dark=d) for d in (False, True))
    assert (
        light.layout.paper_bgcolor == "#ffffff" and dark.layout.paper_bgcolor == "#1e1e1e"
    )
    for a, b in zip(light.data, dark.data, strict=True):
        for field in ("x", "y", "z", "customdata"):
            if field in a:
                np.testing.assert_array_equal(a[field], b[field])


def luminance(colour):
    """Relative luminance of `#rrggbb` (WCAG 2)."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(
        channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
    )
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("theme", [colours.LIGHT, colours.DARK], ids=["light", "dark"])
def test_text_and_curves_stand_out_from_the_page(theme):
    """Contrast of 7 for text and about 2 for curves, marks and findings. WCAG asks for 3 if
    colour is the only cue; here there are dashes and shapes as well."""

    def contrast(colour):
        low, high = sorted([luminance(colour), luminance(theme.paper)])
        return (high + 0.05) / (low + 0.05)

    assert contrast(theme.ink) > 7
    for colour in (*theme.runs, theme.zero, theme.nonfinite, *theme.severity.values()):
        assert contrast(colour) > 1.8
    for colour in theme.runs:
        assert contrast(colours.readable(colour, theme.paper, theme.ink)) >= 4.5
        assert colours.contrast(colour, theme.paper) == pytest.approx(contrast(colour))


CONES = {
    "normal": np.eye(3),
    "protanopia": [
        *([0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216]),
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        *([0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413]),
        [-0.011820, 0.042940, 0.968881],
    ],
}
"""What people with full dichromacy see, in linear RGB: Machado, Oliveira & Fernandes, "A
Physiologically-based Model for Simulation of Color Vision Deficiency", 2009."""


def lab(colour, sight):
    """A colour in CIELAB (white point D65), as seen with one of `CONES`."""
    share = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    linear = np.clip(CONES[sight] @ linear, 0, 1)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750]]
    to_xyz.append([0.0193339, 0.1191920, 0.9503041])
    x, y, z = to_xyz @ linear / [0.95047, 1.0, 1.08883]
    fx, fy, fz = (
        np.cbrt(v) if v > 216 / 24389 else (24389 / 27 * v + 16) / 116 for v in (x, y, z)
    )
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


@pytest.mark.parametrize("theme", [colours.LIGHT, colours.DARK], ids=["light", "dark"])
@pytest.mark.parametrize("sight", CONES)
def test_ten_runs_have_colours_that_everyone_can_distinguish(theme, sight):
    """At least 15 apart in CIELAB, where 2.3 is just noticeable."""
    seen = [lab(colour, sight) for colour in theme.runs]
    assert len(seen) == 10
    far = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(far) > 15


@pytest.mark.parametrize("kind", DRAWN)
def test_an_empty_history_is_a_clear_error(kind):
    """It says what was received and what to do."""
    of_layer = {
        "layer_over_time": lambda: figures.layer_over_time({"a": Recording()}, "d1"),
        "statistic_over_time": lambda: figures.statistic_over_time(
            {"a": Recording()}, "d1"
        ),
        "histogram_over_time": lambda: figures.histogram_over_time(Recording(), "d1"),
    }
    if kind in of_layer:
        with pytest.raises(
            ValueError, match=f"{kind}: (expected|no layer named .d1.. There are: none)"
        ):
            of_layer[kind]()
        return
    where = "depth_profile" if kind == "two runs" else kind
    with pytest.raises(ValueError, match=f"{where}: expected .* Received: an empty one"):
        DRAWN[kind](Recording(), diagnose([]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h: figures.depth_profile({"a": h}, "size"), "one of rms, std"),
        (lambda h: figures.heat_map(h, "size"), "Received: statistic='size'"),
        (lambda h: figures.layer_graph(h, None, "size"), "Received: statistic='size'"),
        (lambda h: figures.layer_graph(h, None, steps=[0, 10]), r"one step.*=\[0, 10\]"),
        (lambda h: figures.layer_graph(h, None, steps="0"), "`steps` must .* steps='0'"),
        (lambda h: figures.depth_profile({"a": h}, steps=[]), r"`steps` must .*=\[\]"),
        (lambda h: figures.depth_profile({"a": h}, steps="last"), "steps='last'"),
        (lambda h: figures.depth_profile({"a": h}, steps=[None]), r"steps=\[None\]"),
        (lambda h: figures.depth_profile({}), "expected at least one run"),
        (lambda h: figures.depth_profile({"a": h}, focus="b"), "`focus`: no run named 'b'"),
        (
            lambda h: figures.comparison({"a": h, "b": h}, reference="c"),
            "comparison: `reference`: no run named 'c'. There are: a, b",
        ),
        (
            lambda h: figures.layer_over_time({"a": h}, "d1", focus="b"),
            "layer_over_time: `focus`: no run named 'b'",
        ),
        (
            lambda h: figures.statistic_over_time({"a": h}, "d1", "size"),
            "statistic_over_time: `statistic` must be one of rms",
        ),
        (lambda h: figures.comparison({"a": h}), "at least two runs. Received: a"),
        (
            lambda h: figures.layer_over_time({"a": h}, "no"),
            "no layer named .no.. There are: x, d1, .* one of the runs .a..",
        ),
        (
            lambda h: figures.histogram_over_time(h, "no"),
            "no layer named .no.. There are: x, d1",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message):
    """The message says what was expected and what was received."""
    with pytest.raises(ValueError, match=message):
        call(recording(drawn(), drawn(seed=1)))


# -- in a notebook


@pytest.fixture(scope="module")
def monitor():
    """A monitor after a few steps of a network whose signal vanishes."""
    model = perceptron(8, initializer="random_normal")
    found, _ = watch(model, *data(), on_finding=lambda finding: None)
    return found


@pytest.mark.parametrize(
    "kind",
    [
        *("depth_profile", "heat_map", "layer_graph", "layer_over_time"),
        *("histogram_over_time", "statistic_over_time"),
    ],
)
def test_a_monitor_draws_its_figures_by_name(monitor, kind):
    """They equal those of the function of that name. The default layer is the worst one."""
    figure = monitor.figure(kind, dark=True)
    layer = monitor.diagnosis.worst_layer
    assert layer == monitor.diagnosis.findings[0].layers[-1]
    expected = {
        "depth_profile": lambda: figures.depth_profile({"x": monitor.recording}, dark=True),
        "heat_map": lambda: figures.heat_map(monitor.recording, dark=True),
        "layer_graph": lambda: figures.layer_graph(
            monitor.recording, monitor.diagnosis, dark=True
        ),
        "layer_over_time": lambda: figures.layer_over_time(
            {"x": monitor.recording}, layer, dark=True
        ),
        "histogram_over_time": lambda: figures.histogram_over_time(
            monitor.recording, layer, dark=True
        ),
        "statistic_over_time": lambda: figures.statistic_over_time(
            {"x": monitor.recording}, layer, dark=True
        ),
    }[kind]()
    assert figure.to_json() == expected.to_json()
    assert figure.data


def test_the_figure_of_a_monitor_is_its_depth_profile(monitor):
    """Options are passed to the figure."""
    assert monitor.figure().layout.title.text == "rms over depth"
    figure = monitor.figure(statistic="std", steps=[1])
    assert figure.layout.title.text == "std over depth"
    assert [trace.name for trace in figure.data] == ["step 1", "step 1"]
    assert figure.layout.yaxis2.title.text == "std of the gradient"


def test_the_graph_of_a_monitor_takes_statistic_and_steps(monitor):
    """Like the depth profile."""
    figure = monitor.figure("layer_graph", statistic="zero_fraction", steps=[2])
    assert figure.layout.title.text == "Layer graph, zero fraction at step 2"
    expected = figures.layer_graph(
        monitor.recording, monitor.diagnosis, "zero_fraction", steps=2
    )
    assert figure.to_json() == expected.to_json()
    of_diagnosis = monitor.diagnosis.figure("layer_graph", statistic="std")
    assert of_diagnosis.layout.title.text == "Layer graph, std at step 0"


def test_a_diagnosis_draws_its_first_snapshot(monitor):
    """The depth profile by default; the graph marks the findings."""
    for diagnosis in (monitor.diagnosis, public_diagnose(monitor.recording)):
        assert diagnosis.figure().layout.title.text == "rms over depth"
        figure = diagnosis.figure("layer_graph")
        assert any(
            trace.name == "vanishing-activations (critical)" for trace in figure.data
        )
        assert diagnosis.figure("depth_profile", statistic="std").data


def test_the_diagnosis_of_an_audit_draws_the_gradients():
    """If it had targets. With several seeds, the first one is drawn."""
    model = perceptron(4)
    model.compile("sgd", "mse")
    figure = audit(model, *data(), seeds=2).figure("depth_profile")
    assert any(trace.yaxis == "y2" for trace in figure.data)


def test_a_figure_that_cannot_be_drawn_says_why(monitor):
    """An unknown kind, or nothing measured yet."""
    with pytest.raises(ValueError, match="`kind` must be one of .* kind='pie'"):
        monitor.figure("pie")
    with pytest.raises(ValueError, match="expected a recording with at least one snapshot"):
        ActivationMonitor().figure()
    with pytest.raises(ValueError, match="expected a recording with at least one snapshot"):
        ActivationMonitor().diagnosis.figure()


def test_the_worst_layer_is_where_the_finding_ends_or_the_deepest_judged():
    """None if nothing was measured."""
    exploding = diagnose([networks.straight(10.0)])
    assert exploding.worst_layer == exploding.findings[0].layers[-1]
    assert diagnose([chain(1.0, 1.0, 1.0)]).worst_layer == "d3"
    assert diagnose([network(tap("a"))]).worst_layer == "a"
    assert diagnose([]).worst_layer is None


@pytest.mark.parametrize(
    ("code", "worst"), [("dead-units", "c"), ("exploding-gradients", "a")]
)
def test_a_finding_on_gradients_is_worst_at_its_first_layer(code, worst):
    """Gradients flow towards the input. The worst finding decides, not the first one."""
    finding = Finding(code, "critical", 5, ("a", "b", "c"), {}, "It is.")
    assert finding.worst_layer == worst
    earlier = dataclasses.replace(finding, severity="warning", step=0, layers=("b",))
    of_run = diagnose([network(*(tap(name) for name in "abc"))])
    found = dataclasses.replace(of_run, findings=(earlier, finding))
    assert found.worst_layer == worst
    over = dataclasses.replace(finding, recovered=10)
    assert dataclasses.replace(of_run, findings=(over,)).worst_finding == over
    now = dataclasses.replace(of_run, findings=(earlier, over)).worst_finding
    assert now == earlier

"""A figure as SVG: what is drawn stands where the measurements say."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views import figures
from activation_monitor.views.figures.colours import DARK, LIGHT
from activation_monitor.views.figures.svg import WIDTH, svg
from networks import Drawn, network, tap

HOSTILE = "&lt;br&gt;</text></svg><script>x</script>\"'"

BETWEEN = "rgb(43, 147, 206)"
"""Halfway from the first colour of the light theme, #0072B2, to that of the dark one,
#56B4E9: ((0 + 86) / 2, (114 + 180) / 2, (178 + 233) / 2), rounded."""


def drawn(*snapshots):
    """The elements of the depth profile of a run."""
    figure = figures.depth_profile({"run": Recording(snapshots)})
    return ElementTree.fromstring(svg(figure))


def elements(root, tag):
    return [e for e in root.iter() if e.tag.endswith(f"}}{tag}")]


def texts(root):
    """Each text with its element."""
    return [("".join(e.itertext()), e) for e in elements(root, "text")]


def numbers(text):
    return [float(number) for number in re.findall(r"-?[0-9.]+", text)]


def curve(root, colour=BETWEEN):
    """Corners of each line of a colour, `(corners, 2)`."""
    paths = [e for e in elements(root, "path") if e.get("stroke") == colour]
    return [np.reshape(numbers(path.get("d")), (-1, 2)) for path in paths]


def powers(root):
    """The exponents of ten on the axis, and their places."""
    ticks = [(text, e) for text, e in texts(root) if e.get("text-anchor") == "end"]
    values = [
        float(text.replace("10", "1e", 1).replace("\u2212", "-")) if len(e) else float(text)
        for text, e in ticks
        if not e.get("transform")
    ]
    places = [float(e.get("y")) - 4 for _, e in ticks if not e.get("transform")]
    return [*zip(np.log10(values), places, strict=True)]


def depths(root):
    """The depths on the axis, and their places."""
    below = [(text, e) for text, e in texts(root) if e.get("text-anchor") == "middle"]
    ticks = [(text, e) for text, e in below if text.isdigit()]
    return [(int(text), float(e.get("x"))) for text, e in ticks]


def test_a_curve_stands_where_its_axis_says():
    """Vertically by the ticks of the powers, horizontally by those of the depths."""
    net = Drawn(1).chain(20, variance=0.5)
    root = drawn(net.snapshot())
    line = max(curve(root), key=len)
    sizes = [math.log10(math.sqrt(np.mean(net.tensors[n] ** 2))) for n in net.tensors]
    assert len(line) == len(sizes) == 22
    assert [exponent for exponent, _ in powers(root)] == [-6, -4, -2, 0]
    slope, start = np.polyfit(*zip(*powers(root), strict=True), 1)
    np.testing.assert_allclose(line[:, 1], start + slope * np.array(sizes), atol=0.2)
    assert [depth for depth, _ in depths(root)] == [*range(0, 22, 2)]
    slope, start = np.polyfit(*zip(*depths(root), strict=True), 1)
    np.testing.assert_allclose(line[:, 0], start + slope * np.arange(22), atol=0.2)
    assert len(elements(root, "circle")) == 22


def test_a_line_is_broken_where_nothing_is_measured():
    """Zeros are marked below the curve, NaN above it, and the legend has both."""
    sizes = [1.0, 0.1, 0.0, 0.1, math.nan, 1.0]
    root = drawn(network(*(tap(f"l{i}", size) for i, size in enumerate(sizes))))
    lines = [e for e in elements(root, "path") if e.get("fill") == "none"]
    path = max((line.get("d") for line in lines), key=len)
    assert path.count("M") == 2
    said = [text for text, _ in texts(root)]
    assert "zero" in said and "NaN or infinite elements" in said
    marks = {
        colour: [e.get("d") for e in elements(root, "path") if colour in e.attrib.values()]
        for colour in (LIGHT.zero, LIGHT.nonfinite)
    }
    assert [len(found) for found in marks.values()] == [2, 2]  # one each in the legend
    (top, *_), (bottom, *_) = (
        [numbers(d)[1] for d in marks[c]] for c in (LIGHT.nonfinite, LIGHT.zero)
    )
    inside = numbers(path)[1::2]
    assert top < min(inside) and max(inside) < bottom


def test_gradients_have_a_panel_below():
    """With its own title and ticks. Names are below the lower panel."""
    taps = [tap(n, 1.0, gradient=10.0**-i) for i, n in enumerate("abcd")]
    root = drawn(network(*taps))
    titles = {text: float(e.get("y")) for text, e in texts(root)}
    assert titles["rms"] < titles["rms of the gradient"] < titles["a"] < titles["layer"]
    upper, lower = (line[:, 1] for line in curve(root) if len(line) == 4)
    assert np.ptp(upper) == 0 and upper.max() < lower.min()
    np.testing.assert_allclose(np.diff(lower), np.diff(lower)[0], atol=0.2)
    assert np.diff(lower)[0] > 10


@pytest.mark.parametrize("size", [4.0, 1e30])
def test_the_limit_of_a_dtype_is_drawn_near_the_curve(size):
    """As a dashed line with its name, at the same place as in the figure."""
    taps = [tap(f"l{i}", size * 10.0**i, dtype="float16") for i in range(4)]
    figure = figures.depth_profile({"run": Recording([network(*taps)])})
    root = ElementTree.fromstring(svg(figure))
    lines = [e for e in elements(root, "path") if e.get("stroke-dasharray")]
    assert len(lines) == len(figure.layout.shapes) >= 1
    assert {line.get("stroke") for line in lines} == {"currentColor"}
    assert "largest float16" in [text for text, _ in texts(root)]


def test_names_stay_text_and_within_the_picture():
    """The end of a long name is on the axis from a slash, with any characters."""
    root = drawn(network(*(tap(f"{i}{HOSTILE}{i}") for i in range(3))))
    kinds = {e.tag.rpartition("}")[2] for e in root.iter()}
    assert kinds == {"svg", "text", "path", "circle", "polygon", "g"}
    shown = [(text, e) for text, e in texts(root) if text.startswith("…")]
    end = HOSTILE.rpartition("/")[2]
    assert [text for text, _ in shown] == [f"…/{end}{i}" for i in range(3)]
    for text, e in shown:  # slanted by 40 degrees, its end below the tick
        assert e.get("transform").startswith("rotate(-40 ")
        assert float(e.get("x")) - 5.5 * len(text) * math.cos(math.radians(40)) > 0
    root = drawn(network(tap("a&lt;br&gt;b"), tap("c")))
    assert "a&lt;br&gt;b" in [text for text, _ in texts(root)]


def test_colours_suit_a_light_and_a_dark_page():
    """Text, axes and limits have the colour of the page, curves one between the themes."""
    figure = figures.depth_profile(
        {"run": Recording([Drawn(0).chain(5).snapshot(step) for step in (0, 10)])}
    )
    source = svg(figure)
    assert source.count('fill="currentColor"') == 1  # of the whole picture
    assert BETWEEN in source and "rgba(128, 128, 128, 0.16)" in source
    for theme in (LIGHT, DARK):
        for colour in (theme.paper, theme.ink, theme.grid, *theme.runs):
            assert colour not in source
    steps = {text for text, _ in texts(ElementTree.fromstring(source))}
    assert {"step 0", "step 10", "rms over depth"} <= steps


def test_a_deep_network_has_few_ticks_and_a_small_picture():
    """Round depths, and a line without markers."""
    root = drawn(Drawn(0).chain(300).snapshot())
    assert [depth for depth, _ in depths(root)] == [*range(0, 301, 50)]
    assert len(elements(root, "circle")) == 0
    assert all(0 <= float(e.get("x")) <= WIDTH for _, e in texts(root))


def test_names_of_runs_stand_at_the_ends_of_their_lines():
    """In their colours, one below the other in the order of the lines, within the picture.
    The legend does not repeat them."""
    runs = {
        f"run_{i}": Recording([network(tap("a"), tap("b", 1.0 + 0.01 * i), tap("c"))])
        for i in range(10)
    }
    figure = figures.depth_profile(runs | {"far": Recording([network(tap("a", 1e-3))])})
    root = ElementTree.fromstring(svg(figure))
    names = [(text, e) for text, e in texts(root) if text in (*runs, "far")]
    assert sorted(text for text, _ in names) == sorted([*runs, "far"])
    assert len({e.get("fill") for text, e in names if text in runs}) == 10
    right = [(float(e.get("y")), text) for text, e in names if text in runs]
    heights = sorted(y for y, _ in right)
    assert min(np.diff(heights)) >= 13.9
    for _, e in names:
        assert 0 < float(e.get("x")) < WIDTH and float(e.get("y")) > 0


def test_bands_and_chosen_layers_are_drawn_in_all_panels():
    """The band of a finding stands behind the curves, the line of a layer goes through
    both panels."""
    taps = [tap(n, 1.0, gradient=10.0**-i) for i, n in enumerate("abcd")]
    finding = Finding("dead-units", "warning", 0, ("b", "c"), {}, ".")
    options = {"marked": {"run": finding}, "chosen": ["c", "no such layer"]}
    figure = figures.depth_profile({"run": Recording([network(*taps)])}, **options)
    root = ElementTree.fromstring(svg(figure))
    places = {text: float(e.get("x")) for text, e in texts(root) if e.get("transform")}
    bands = [e for e in elements(root, "path") if (e.get("fill") or "").endswith("0.07)")]
    assert len(bands) == 2
    for band in bands:
        left, top, right, bottom, _ = numbers(band.get("d"))
        np.testing.assert_allclose(left, (places["a"] + places["b"]) / 2, atol=0.2)
        np.testing.assert_allclose(right, (places["c"] + places["d"]) / 2, atol=0.2)
        assert top < bottom
    (line,) = [e for e in elements(root, "path") if e.get("stroke-dasharray")]
    (x, low), (same, high) = np.reshape(numbers(line.get("d")), (2, 2))
    np.testing.assert_allclose([x, same], places["c"], atol=0.2)
    spans = [numbers(band.get("d"))[1::2][:2] for band in bands]
    assert high <= min(top for top, _ in spans) and low >= max(b for _, b in spans)
    assert "no such layer" not in [text for text, _ in texts(root)]

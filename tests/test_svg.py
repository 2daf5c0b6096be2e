"""A figure as SVG: what is drawn stands where the measurements say."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views import figures
from activation_monitor.views.figures.colours import DARK, LIGHT
from activation_monitor.views.figures.svg import WIDTH, svg
from networks import Drawn, network, tap

HOSTILE = "&lt;br&gt;</text></svg><script>x</script>\"'"

BETWEEN = "rgb(43, 147, 205)"
"""Halfway from the first colour of the light theme, #0072B2, to that of the dark one,
#56B4E9: ((0 + 86) / 2, (114 + 180) / 2, (178 + 233) / 2), rounded down."""


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
    ticks = [(text, e) for text, e in texts(root) if len(e)]  # with a superscript in it
    return [(float(text[2:]), float(e.get("y")) - 4) for text, e in ticks]


def depths(root):
    """The depths on the axis, and their places."""
    ticks = [(text, e) for text, e in texts(root) if text.isdigit() and not len(e)]
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
    assert len(elements(root, "circle")) == 22 + 1  # and one in the legend


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
    """The end of a long name is on the axis, with any characters."""
    root = drawn(network(*(tap(f"{HOSTILE}{i}") for i in range(3))))
    kinds = {e.tag.rpartition("}")[2] for e in root.iter()}
    assert kinds == {"svg", "text", "tspan", "path", "circle", "polygon", "g"}
    shown = [(text, e) for text, e in texts(root) if text.startswith("…")]
    assert [text for text, _ in shown] == [f"…{f'{HOSTILE}{i}'[-23:]}" for i in range(3)]
    for text, e in shown:  # slanted by 25 degrees, its end below the tick
        assert e.get("transform").startswith("rotate(-25 ")
        assert float(e.get("x")) - 5.5 * len(text) * math.cos(math.radians(25)) > 0
    root = drawn(network(tap("a&lt;br&gt;b"), tap("c")))
    assert "a&lt;br&gt;b" in [text for text, _ in texts(root)]


def test_colours_suit_a_light_and_a_dark_page():
    """Text, axes and limits have the colour of the page, curves one between the themes."""
    figure = figures.depth_profile(
        {"run": Recording([Drawn(0).chain(5).snapshot(step) for step in (0, 10)])}
    )
    source = svg(figure)
    assert source.count('fill="currentColor"') == 1  # of the whole picture
    assert BETWEEN in source and "rgba(43, 147, 205, 0.18)" in source
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

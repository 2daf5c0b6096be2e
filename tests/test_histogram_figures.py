"""Histograms over the steps: shares of the elements in common bins, and the zeros."""

import dataclasses
import html
import math
import re

import numpy as np
import pytest

from activation_monitor.analysis import histogram
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views import figures
from activation_monitor.views.figures import histograms
from networks import network, tap


def counted(x):
    """The histogram of a tensor, as numpy counts it."""
    counts, edges = np.histogram(x, histogram.BUCKETS)
    return np.stack([edges[:-1], edges[1:], counts], axis=1).astype(float)


def snapshot(x, step, of="output"):
    """A snapshot of one layer with the histogram of a tensor."""
    x = np.asarray(x)
    if x.min() == x.max():  # the last bucket has all elements
        rows = np.repeat([[x.min(), x.min(), 0.0]], histogram.BUCKETS, axis=0)
        rows[-1, 2] = x.size
    else:
        rows = counted(x)
    one = {
        "output": lambda: tap("a", x),
        "output_gradient": lambda: tap("a", 1.0, gradient=x),
        "weight": lambda: tap("a", 1.0, kernel=x),
    }[of]()
    return dataclasses.replace(
        network(one, step=step),
        histograms={of: histogram.pack(histogram.Histogram(1, rows))[None]},
    )


def shares(figure):
    """The share of each row and column, by the inverse of the scale of colours."""
    (drawn,) = figure.data
    return np.expm1(np.array(drawn.z, float)) * 0.001


def normal(size=1.0, seed=0, shape=(50, 8)):
    return size * np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (-3.0, 5.0), (1e-9, 3e-9), (-1e30, 2e30)])
def test_other_bins_have_the_same_total(ends):
    """For any bins around the histogram, in float64; also if all elements are equal."""
    rng = np.random.default_rng(1)
    rows = counted(rng.uniform(*ends, 1000))
    for bins in (1, 7, 36, 500):
        edges = np.linspace(ends[0] - abs(ends[1]), ends[1] + abs(ends[1]), bins + 1)
        new = histograms.rebinned(rows, edges)
        assert new.dtype == np.float64 and (new >= 0).all()
        np.testing.assert_allclose(new.sum(), 1000.0, rtol=1e-12)
    equal = np.repeat([[ends[1], ends[1], 0.0]], histogram.BUCKETS, axis=0)
    equal[-1, 2] = 17.0
    new = histograms.rebinned(equal, np.linspace(ends[0], ends[1], 11))
    np.testing.assert_array_equal(new, [0.0] * 9 + [17.0])


def test_bins_that_are_unions_of_buckets_have_their_counts():
    """And half of a bucket has half of its count."""
    rows = counted(normal())
    edges = np.concatenate([rows[:, 0], rows[-1:, 1]])
    np.testing.assert_allclose(
        histograms.rebinned(rows, edges[::3]), rows[:, 2].reshape(-1, 3).sum(axis=1)
    )
    middle = (edges[4] + edges[5]) / 2
    below, above = histograms.rebinned(rows, np.array([edges[0], middle, edges[-1]]))
    np.testing.assert_allclose(below, rows[:4, 2].sum() + rows[4, 2] / 2)
    np.testing.assert_allclose(below + above, 400.0)


@pytest.mark.parametrize("of", ["output", "output_gradient", "weight"])
def test_each_step_is_a_column_of_shares(of):
    """They sum to 1. Steps have the places that curves have, bins are those of numpy."""
    tensors = [normal(1.0 + i, seed=i) for i in range(3)]
    steps = Recording(snapshot(x, s, of) for x, s in zip(tensors, (0, 1, 50), strict=True))
    figure = figures.histogram_over_time(steps, "a", of=of)
    (drawn,) = figure.data
    assert drawn.type == "heatmap" and tuple(drawn.x) == (0, 1, 50)
    assert tuple(figure.layout.xaxis.range) == (-0.5, 74.5)
    share = shares(figure)
    np.testing.assert_allclose(share.sum(axis=0), 1.0, atol=1e-5)
    edges = np.array(drawn.y)
    assert 0.0 in edges and edges[0] <= min(map(np.min, tensors))
    for column, x in enumerate(tensors):
        # A bin may have parts of the buckets at its ends, which numpy's counts have not.
        exact = np.histogram(x, edges)[0] / x.size
        cumulated = np.abs(np.cumsum(share[:, column]) - np.cumsum(exact))
        largest = counted(x)[:, 2].max() / x.size
        assert cumulated.max() <= largest
    words = {"output": "activation", "output_gradient": "gradient", "weight": "weight"}
    assert figure.layout.yaxis.title.text == words[of]
    assert {*drawn.customdata} == {"a"}


def test_zeros_of_relu_have_a_row_of_their_own():
    """Below the other bins, whose shares they do not change. The tooltip says so."""
    x = np.maximum(normal(), 0.0)
    zeros = float((x == 0).mean())
    figure = figures.histogram_over_time(Recording([snapshot(x, 40)]), "a")
    share, (drawn,) = shares(figure), figure.data
    np.testing.assert_allclose(share[0, 0], zeros, rtol=1e-5)
    assert drawn.y[0] < 0 == drawn.y[1]
    first = (x[x > 0] < drawn.y[2]).sum() / x.size
    np.testing.assert_allclose(share[1, 0], first, atol=counted(x[x > 0])[0, 2] / x.size)
    assert drawn.hovertext[0][0] == f"step 40: {100 * zeros:.2g} % of elements are 0"
    np.testing.assert_allclose(share.sum(), 1.0, atol=1e-5)


def test_without_zeros_no_row_is_for_them():
    """A tensor without zeros, and one with fewer than 1 %, which stay where they were."""
    x = normal()
    few = x.copy()
    few[0, :3] = 0.0
    for tensor in (x, few):
        figure = figures.histogram_over_time(Recording([snapshot(tensor, 0)]), "a")
        (drawn,) = figure.data
        assert not any("are 0" in text for row in drawn.hovertext for text in row)
        np.testing.assert_allclose(np.diff(drawn.y), np.diff(drawn.y)[0], rtol=1e-9)
        np.testing.assert_allclose(shares(figure).sum(), 1.0, atol=1e-5)


def test_zeros_between_two_signs_have_a_row_at_0():
    """For example those of a dropout."""
    x = normal()
    x[:20] = 0.0
    figure = figures.histogram_over_time(Recording([snapshot(x, 0)]), "a")
    (drawn,) = figure.data
    (row,) = [i for i, r in enumerate(drawn.hovertext) if r[0].endswith("are 0")]
    assert drawn.y[row] < 0 < drawn.y[row + 1]
    np.testing.assert_allclose(shares(figure)[row, 0], 0.4, rtol=1e-5)
    assert all(np.diff(drawn.y) > 0)


def test_a_layer_that_dies_has_only_zeros():
    """All units are zero at the second step; the first one is not changed."""
    x = np.maximum(normal(), 0.0)
    steps = Recording([snapshot(x, 0), snapshot(np.zeros((50, 8)), 1)])
    share = shares(figures.histogram_over_time(steps, "a"))
    np.testing.assert_allclose(share[:, 1], [1.0] + [0.0] * (len(share) - 1), atol=1e-6)
    np.testing.assert_allclose(share[0, 0], (x == 0).mean(), rtol=1e-5)


def test_a_layer_of_one_value_is_drawn():
    """Also if it is the same at all steps."""
    for value in (0.0, 3.0, -1e-20):
        steps = Recording(snapshot(np.full((4, 2), value), i) for i in range(2))
        share = shares(figures.histogram_over_time(steps, "a"))
        np.testing.assert_allclose(np.sort(share, axis=0)[-1], [1.0, 1.0], rtol=1e-5)


def value_of(text):
    """The number that a tick says."""
    digits = html.unescape(text).replace("\u2212", "-").replace("</sup>", "")
    return float(re.sub("^(-?)10<sup>", r"\g<1>1e", digits))


def test_widths_that_differ_by_powers_of_10_are_all_seen():
    """On an axis that is linear around 0 and logarithmic beyond, with ticks of both signs.
    A narrow histogram fills several bins."""
    tensors = [normal(10.0**-i, seed=i) for i in range(5)]
    steps = Recording(snapshot(x, i) for i, x in enumerate(tensors))
    figure = figures.histogram_over_time(steps, "a")
    share, axis = shares(figure), figure.layout.yaxis
    np.testing.assert_allclose(share.sum(axis=0), 1.0, atol=1e-5)
    assert ((share > 1e-4).sum(axis=0) >= 6).all()
    values = dict(zip(axis.tickvals, map(value_of, axis.ticktext), strict=True))
    assert values[0.0] == 0 and min(values.values()) < 0 < max(values.values())
    positive = {place: value for place, value in values.items() if value > 0}
    places = np.array([*positive])
    fitted = np.polyfit(places, np.log10([*positive.values()]), 1)
    np.testing.assert_allclose(fitted[0], 1.0, rtol=1e-9)  # a unit for each power of 10
    linear = Recording(snapshot(x, i) for i, x in enumerate(tensors[:1] * 2))
    assert figures.histogram_over_time(linear, "a").layout.yaxis.tickvals is None


def test_tooltips_say_step_share_and_bin():
    """In words, with the ends of the bin as values."""
    x = np.linspace(0.0, 1.0, 3001)[1:]
    figure = figures.histogram_over_time(Recording([snapshot(x[:, None], 40)]), "a")
    (drawn,) = figure.data
    said = re.compile(r"step 40: ([\d.]+) % of elements between (\S+) and (\S+)")
    for (text,), low, high in zip(drawn.hovertext, drawn.y, drawn.y[1:], strict=False):
        share, start, end = map(float, said.fullmatch(text).groups())
        np.testing.assert_allclose([start, end], [low, high], rtol=5e-3, atol=1e-9)
        np.testing.assert_allclose(share, 100 * ((x > low) & (x <= high)).mean(), rtol=0.06)


def test_many_steps_are_thinned_evenly():
    """With the first and the last. The figure has one height for any number."""
    x = normal()
    one = snapshot(x, 0)
    steps = Recording(dataclasses.replace(one, step=i) for i in range(1000))
    figure = figures.histogram_over_time(steps, "a")
    assert (len(figure.data[0].x), figure.data[0].x[0], figure.data[0].x[-1]) == (
        300,
        0,
        999,
    )
    assert figure.layout.height == 360


def test_the_colour_bar_says_shares():
    """In percent, at the places of the scale."""
    figure = figures.histogram_over_time(Recording([snapshot(normal(), 0)]), "a")
    bar = figure.data[0].colorbar
    for place, text in zip(bar.tickvals, bar.ticktext, strict=True):
        share = float(text.rstrip("%")) / 100
        np.testing.assert_allclose(math.expm1(place) * 0.001, share, atol=1e-12)
    assert bar.title.text == "share of elements"

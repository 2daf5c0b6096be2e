"""The histogram vector: its layout, how it is read, the strides to choose from."""

import numpy as np
import pytest

from activation_monitor.analysis import histogram


def vector_of(x, stride=1):
    """The vector of the elements of `x`, counted by numpy."""
    counts, edges = np.histogram(x, bins=30)
    return np.array([stride, edges[0], edges[-1], *counts], np.float64)


def gaussian(scale, shift=0.0):
    return scale * (np.random.default_rng(1).standard_normal(1000) + shift)


# -- reading


@pytest.mark.parametrize("scale", [1e-30, 1.0, 3.0, 1e30])
@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0])
def test_a_histogram_is_read_as_numpy_counted_it(scale, shift):
    """Left edges, right edges and counts are those of `numpy.histogram`."""
    x = gaussian(scale, shift)
    counts, edges = np.histogram(x, bins=30)
    read = histogram.unpack(vector_of(x, stride=7))
    assert read.stride == 7 and isinstance(read.stride, int)
    atol = 4 * 2.0**-53 * np.abs(x).max()  # roundings of an edge
    np.testing.assert_allclose(read.rows[:, 0], edges[:-1], rtol=0, atol=atol)
    np.testing.assert_allclose(read.rows[:, 1], edges[1:], rtol=0, atol=atol)
    np.testing.assert_array_equal(read.rows[:, 2], counts)


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.2), (1e-45, 3e38), (-3e38, 3e38)])
def test_edges_are_equally_spaced_and_end_exactly_where_the_elements_do(low, high):
    """No gap between buckets; the outermost edges are the extremes to the last bit."""
    read = histogram.unpack(np.array([1, low, high, *range(30)], np.float64))
    left, right, _ = read.rows.T
    np.testing.assert_array_equal(left[1:], right[:-1])
    assert (left[0], right[-1]) == (low, high)
    width = (high - low) / 30
    np.testing.assert_allclose(right - left, width, rtol=1e-12)  # of 30 sums


@pytest.mark.parametrize("value", [0.0, -2.5, 1e-45, 3.4e38])
def test_elements_that_are_all_alike_stand_in_the_last_bucket(value):
    """All edges are that value; the last bucket holds the count."""
    vector = np.array([1, value, value, *[0] * 29, 64], np.float64)
    read = histogram.unpack(vector)
    expected = np.column_stack([np.full((30, 2), value), [0] * 29 + [64]])
    np.testing.assert_array_equal(read.rows, expected)


@pytest.mark.parametrize(
    "vector",
    [
        vector_of(gaussian(1.0)),
        vector_of(gaussian(1e-30, 3.0), stride=131),
        vector_of(gaussian(1e30, -1.0), stride=2),
        np.array([3, 0.1, 0.1, *[0] * 29, 5], np.float64),
    ],
)
def test_packing_undoes_unpacking(vector):
    """`pack` gives back the vector, bit for bit, and from it the same histogram."""
    read = histogram.unpack(vector)
    packed = histogram.pack(read)
    assert packed.dtype == np.float64
    np.testing.assert_array_equal(packed, vector)
    again = histogram.unpack(packed)
    assert again.stride == read.stride
    np.testing.assert_array_equal(again.rows, read.rows)


# -- nothing counted


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3)])
def test_in_new_vectors_nothing_is_counted(shape):
    """`none` makes vectors of the shape asked for, which are read as no histogram."""
    vectors = histogram.none(*shape)
    np.testing.assert_array_equal(vectors, np.zeros((*shape, 33)))
    for vector in vectors.reshape(-1, 33):
        assert histogram.unpack(vector) is None


@pytest.mark.parametrize("count", [0.0, np.nan])
def test_without_counts_there_is_no_histogram(count):
    """Extremes without counts, or counts that are NaN, are no histogram."""
    assert histogram.unpack(np.array([1.0, -1.0, 1.0, *[count] * 30])) is None


# -- layout


def test_a_vector_has_stride_extremes_and_thirty_buckets():
    """The slots are named in the order in which the tests above fill them."""
    buckets = [f"bucket_{i}" for i in range(30)]
    assert histogram.SLOTS == ("stride", "low", "high", *buckets)
    assert histogram.BUCKETS == 30


def test_strides_are_one_and_primes():
    """A stride that shares a factor with the width of a tensor would miss units."""
    largest = max(histogram.STRIDES)
    sieve = np.ones(largest + 1, bool)
    for factor in range(2, int(largest**0.5) + 1):
        sieve[2 * factor :: factor] = False
    primes = set(np.flatnonzero(sieve[2:]) + 2)
    assert histogram.STRIDES[0] == 1
    assert set(histogram.STRIDES[1:]) <= primes


def test_strides_are_increasing_and_near_enough_to_each_other():
    """From 13 on none is more than a third above the one before."""
    strides = np.array(histogram.STRIDES)
    assert (np.diff(strides) > 0).all()
    assert histogram.STRIDES[:7] == (1, 2, 3, 5, 7, 11, 13)
    ratios = strides[7:] / strides[6:-1]
    assert ratios.max() < 4 / 3 and len(strides) < 100


def test_strides_cover_tensors_of_two_to_the_31_elements():
    """The largest stride brings 2^31 elements down to those that are counted exactly."""
    assert 2**31 / histogram.STRIDES[-1] <= histogram.EXACT_UP_TO == 2**14
    assert 2**31 / histogram.STRIDES[-2] > histogram.EXACT_UP_TO

"""Raw records: the record and the histogram that follow from float32 numbers."""

import keras
import numpy as np
import pytest

from activation_monitor.analysis import histogram, raw, records


def raw_record(**numbers):
    """A raw record with these numbers; the rest is zero."""
    vector = np.zeros(len(raw.COLUMNS), np.float32)
    for name, number in numbers.items():
        vector[raw.COLUMNS.index(name)] = number
    return vector


MEASURED = {
    "count_high": 3,
    "count_low": 5,
    "samples_low": 7,
    "zeros_low": 11,
    "counted_low": 13,
    "dead_units_low": 1,
    "exponent": 3,
    "mean": -0.5,
    "within": 0.25,
    "between": 0.125,
    "minimum": -1.5,
    "maximum": 1.0,
}
RECORD = {
    "count": 3 * 4096 + 5,
    "samples": 7,
    "nonfinite": 0,
    "zeros": 11,
    "mean": -4.0,
    "variance": 64 * 0.375,
    "second_moment": 64 * 0.375 + 16.0,
    "within_variance": 16.0,
    "minimum": -12.0,
    "maximum": 8.0,
    "saturated": 0,
    "dead_units": 1,
    "counted": 13,
}


@pytest.mark.parametrize("xp", (np, keras.ops), ids=("numpy", "keras"))
def test_moments_are_in_units_of_a_power_of_two_and_integers_in_two_parts(xp):
    """On the host and in the graph."""
    record = np.asarray(raw.finish(raw_record(**MEASURED), xp=xp))
    assert record.dtype == np.float64
    assert dict(zip(records.FIELD_NAMES, record.tolist(), strict=True)) == RECORD


@pytest.mark.parametrize("exponent", (-149, 126))
def test_squares_of_the_ends_of_float32_are_finite(exponent):
    """The second moment of 2^-149 is 2^-298, which float64 holds."""
    record = raw.finish(raw_record(**MEASURED | {"exponent": exponent}))
    np.testing.assert_equal(records.field(record, "mean"), -0.5 * 2.0**exponent)
    np.testing.assert_equal(records.field(record, "variance"), 0.375 * 4.0**exponent)


def test_integers_up_to_2_to_36_are_exact():
    """Float32 holds them up to 2^24 only."""
    n = 2**36 - 1
    record = raw.finish(raw_record(count_high=n // 4096, count_low=n % 4096))
    assert records.field(record, "count") == n


@pytest.mark.parametrize("complete", (0, 1))
def test_beside_non_finite_elements_only_a_complete_record_has_moments(complete):
    """The counts are there in any case."""
    numbers = MEASURED | {"nonfinite_low": 2, "complete": complete}
    record = raw.finish(raw_record(**numbers))
    known = dict(zip(records.FIELD_NAMES, record.tolist(), strict=True))
    for name, value in (RECORD | {"nonfinite": 2}).items():
        counted = complete or name in ("count", "samples", "nonfinite")
        np.testing.assert_equal(known[name], value if counted else np.nan, err_msg=name)


def test_what_was_not_measured_is_an_empty_record_and_no_histogram():
    """Also within a stack."""
    stack = np.stack([raw_record(), raw_record(**MEASURED)])
    np.testing.assert_array_equal(raw.finish(stack)[0], records.empty())
    assert records.field(raw.finish(stack)[1], "count") == RECORD["count"]
    nothing = np.zeros((2, len(raw.HISTOGRAM_COLUMNS)), np.float32)
    np.testing.assert_array_equal(raw.finish_histograms(nothing), histogram.none(2))


def test_the_edges_of_a_histogram_are_in_units_of_a_power_of_two():
    """The counts are as they are."""
    counts = np.arange(histogram.BUCKETS)
    vector = np.array([7, -2, -1.0, 3.0, *counts], np.float32)
    finished = raw.finish_histograms(vector[None])[0]
    np.testing.assert_array_equal(finished, [7, -0.25, 0.75, *counts])

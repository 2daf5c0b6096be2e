"""Records and histograms of tensors that are multiplied by a factor."""

import numpy as np

from activation_monitor.analysis import histogram, records

X = np.random.default_rng(0).standard_normal((16, 8)) + 0.5


def test_a_scaled_record_is_that_of_the_scaled_tensor():
    found = records.scaled(np.stack([records.measure(X)] * 2), 1 / 64)
    np.testing.assert_allclose(found, np.stack([records.measure(X / 64)] * 2), rtol=1e-12)


def test_a_scaled_record_of_nothing_is_empty():
    np.testing.assert_array_equal(records.scaled(records.empty(3), 8.0), records.empty(3))


def test_a_scaled_histogram_has_scaled_edges_and_the_same_counts():
    counts = np.arange(histogram.BUCKETS)
    vector = np.concatenate([[3.0, -1.0, 2.0], counts])
    found = histogram.scaled(vector, 4.0)
    np.testing.assert_array_equal(found, np.concatenate([[3.0, -4.0, 8.0], counts]))

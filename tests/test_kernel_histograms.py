"""Histograms of kernels and of their gradients, against numpy; on every backend."""

import keras
import numpy as np
import pytest
from keras import layers

from activation_monitor import ActivationMonitor, read_recording
from activation_monitor.analysis import histogram, raw, records
from activation_monitor.recording.backends import backend

BATCH, RATE = 16, 0.1
X = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
Y = np.random.default_rng(1).normal(size=(64, 3)).astype("float32")
OF_KERNELS = records.WEIGHT, records.WEIGHT_GRADIENT


def linear(width=12, **options):
    """Two linear layers without bias, whose gradients are products of matrices."""
    keras.utils.set_random_seed(3)
    inner = layers.Dense(width, use_bias=False, name="first")
    head = layers.Dense(3, use_bias=False, name="last")
    model = keras.Sequential([keras.Input((6,)), inner, head], name="net")
    model.compile(**{"optimizer": keras.optimizers.SGD(RATE), "loss": "mse"} | options)
    return model


def fitted(model, monitor=None, epochs=2):
    """A monitor that has sampled each step of `fit`, and the kernels before each step."""
    before = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: before.append(model.get_weights())
    )
    monitor = monitor or ActivationMonitor(sample_every=1, on_finding=lambda found: None)
    options = {"shuffle": False, "verbose": 0, "epochs": epochs}
    model.fit(X, Y, BATCH, callbacks=[note, monitor], **options)
    return monitor, before


def gradients(step, first, last):
    """Of the mean squared error with respect to both kernels, in float64."""
    batch = slice(step * BATCH % len(X), step * BATCH % len(X) + BATCH)
    x, y, first, last = (
        np.asarray(a, np.float64) for a in (X[batch], Y[batch], first, last)
    )
    error = 2 * (x @ first @ last - y) / y.size
    return x.T @ error @ last.T, (x @ first).T @ error


def assert_counts(found, values, stride=1, rtol=1e-6):
    """The histogram is that of numpy. An element that is closer to an edge than rounding
    moves it may be on either side."""
    values = np.asarray(values, np.float64).ravel()
    edges = np.histogram_bin_edges(values, histogram.BUCKETS)
    away = rtol * np.abs(values).max()
    assert found.stride == stride
    assert found.rows[:, 2].sum() == values.size
    left, right = found.rows[:, 0], found.rows[:, 1]
    np.testing.assert_allclose([*left, right[-1]], edges, rtol=0, atol=away)
    below = np.cumsum(found.rows[:-1, 2])
    ordered = np.sort(values)
    assert (below >= np.searchsorted(ordered, edges[1:-1] - away)).all()
    assert (below <= np.searchsorted(ordered, edges[1:-1] + away)).all()


@pytest.mark.parametrize("options", [{}, {"jit_compile": False}, {"run_eagerly": True}])
def test_histograms_of_kernels_and_their_gradients_are_those_of_numpy(options):
    """At every sampled step: the first two run other code than those after them."""
    monitor, before = fitted(linear(**options))
    assert len(monitor.recording) == len(before) == 8
    for snapshot, kernels in zip(monitor.recording, before, strict=True):
        expected = dict(
            zip(OF_KERNELS, (kernels, gradients(snapshot.step, *kernels)), strict=True)
        )
        for of, pair in expected.items():
            for name, values in zip(("net/first", "net/last"), pair, strict=True):
                assert_counts(snapshot.histogram(name, of), values, rtol=1e-5)


def test_a_large_kernel_is_counted_in_evenly_spaced_elements_of_its_rows():
    """One row in 7 of 300, because 5 divides 300; in these one element in 3 of 8,600."""
    inner = layers.Dense(200, use_bias=False, trainable=False, name="wide")
    model = keras.Sequential([keras.Input((300,)), inner, layers.Dense(1)], name="net")
    model.compile("sgd", "mse")
    (kernel,) = inner.get_weights()
    monitor = ActivationMonitor(sample_every=1, on_finding=lambda found: None)
    x = np.random.default_rng(2).normal(size=(32, 300)).astype("float32")
    model.fit(x, x[:, :1], 8, verbose=0, callbacks=[monitor])
    expected = kernel[::7].ravel()[::3]
    assert expected.size <= histogram.KERNELS_EXACT_UP_TO
    for snapshot in monitor.recording:
        found = snapshot.histogram("net/wide", records.WEIGHT)
        assert_counts(found, expected, stride=21)
        # A frozen kernel has no gradient.
        assert snapshot.histogram("net/wide", records.WEIGHT_GRADIENT) is None
    assert len(monitor.recording) == 4


def test_with_a_loss_scale_histograms_are_those_of_the_gradients_without_it():
    """Their edges are the extremes of the records, which are divided by the scale."""
    scaled = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(RATE), initial_scale=1024.0
    )
    monitor, before = fitted(linear(optimizer=scaled))
    for snapshot, kernels in zip(monitor.recording, before, strict=True):
        low, high = (
            snapshot.statistic(name, records.WEIGHT_GRADIENT)[1:]
            for name in ("minimum", "maximum")
        )
        vectors = snapshot.histograms[records.WEIGHT_GRADIENT][1:]
        np.testing.assert_allclose(vectors[:, 1], low, rtol=1e-6)
        np.testing.assert_allclose(vectors[:, 2], high, rtol=1e-6)
        for name, values in zip(
            ("net/first", "net/last"), gradients(snapshot.step, *kernels), strict=True
        ):
            found = snapshot.histogram(name, records.WEIGHT_GRADIENT)
            assert_counts(found, values, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_elements_that_are_not_finite_are_not_counted(bad):
    """The others are; of nothing but NaN there is no histogram."""
    model = linear()
    first, last = model.get_weights()
    first[2, 3], last[:] = bad, np.nan
    model.set_weights([first, last])
    monitor, _ = fitted(model, epochs=1)
    snapshot = monitor.recording[0]
    assert snapshot.histogram("net/last", records.WEIGHT) is None
    finite = first[np.isfinite(first)]
    assert_counts(snapshot.histogram("net/first", records.WEIGHT), finite)
    assert finite.size == first.size - 1


KERNELS = {
    "normal": np.random.default_rng(0).standard_normal((64, 50)),
    "short": np.random.default_rng(1).uniform(0, 1, (5, 7)),
    "1e-30": 1e-30 * np.random.default_rng(2).standard_normal((64, 50)),
    "1e30": 1e30 * np.random.default_rng(3).standard_normal((64, 50)),
    "a large mean": 1e3 + np.random.default_rng(4).standard_normal((64, 50)),
    "one": np.full((1, 1), -2.0),
    "all equal": np.full((64, 50), 1 / 3),
    "zeros": np.zeros((64, 50)),
    "images": np.random.default_rng(5).standard_normal((3, 3, 16, 8)),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_kernels_of_all_sizes_are_counted_as_in_numpy(dtype):
    """Together, whatever their lengths."""
    with np.errstate(over="ignore"):  # 1e30 in float16
        tensors = [keras.ops.cast(kernel, dtype) for kernel in KERNELS.values()]
    counted = backend.on_host(backend.counted_each(tensors))
    vectors = raw.finish_histograms(counted)
    for name, tensor, vector in zip(KERNELS, tensors, vectors, strict=True):
        values = backend.on_host(keras.ops.cast(tensor, "float32")).astype(np.float64)
        if not np.isfinite(values).all():
            assert dtype == "float16" and name == "1e30"
            assert histogram.unpack(vector) is None
            continue
        found = histogram.unpack(vector)
        if np.ptp(values) == 0:
            np.testing.assert_array_equal(found.rows[:, 2], [*[0] * 29, values.size])
            np.testing.assert_allclose(found.rows[:, :2], values.flat[0], rtol=1e-6)
            continue
        assert_counts(found, values)


@pytest.mark.parametrize(
    ("options", "counted"),
    [
        ({}, {*OF_KERNELS, records.OUTPUT, records.OUTPUT_GRADIENT}),
        ({"gradients": False}, {records.OUTPUT, records.WEIGHT}),
        ({"histograms": False}, set()),
    ],
)
def test_what_is_not_wanted_is_not_counted(options, counted):
    monitor = ActivationMonitor(sample_every=1, on_finding=lambda found: None, **options)
    monitor, _ = fitted(linear(), monitor)
    for snapshot in monitor.recording:
        assert {*snapshot.histograms} == counted
        assert {*OF_KERNELS} <= {*snapshot.quantities} or "gradients" in options


def test_a_log_returns_the_histograms_unchanged(tmp_path):
    monitor = ActivationMonitor(tmp_path, 1, on_finding=lambda found: None)
    monitor, _ = fitted(linear(), monitor)
    read = read_recording(tmp_path)
    assert len(read) == len(monitor.recording) == 8
    for ours, theirs in zip(monitor.recording, read, strict=True):
        assert {*OF_KERNELS} <= ours.histograms.keys() == theirs.histograms.keys()
        for of, array in ours.histograms.items():
            assert theirs.histograms[of].tobytes() == array.tobytes()

"""The measuring kernel against float64 numpy: eager, in a graph and under XLA."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from activation_monitor.analysis import histogram, moments
from activation_monitor.recording import measure, tensorflow_backend

MODES = ("eager", "graph", "xla")


@functools.cache
def compiled(dtype, rank, mode, exact):
    look = tensorflow_backend._look(
        dtype, rank, exact=exact, fused=mode == "xla", histograms=True
    )
    if mode == "eager":
        return look
    return tf.function(
        look,
        jit_compile=mode == "xla",
        autograph=False,
        input_signature=[
            tf.TensorSpec([len(moments.FIELDS)], tf.float64),
            tf.TensorSpec([None] * rank, dtype),
        ],
    )


def look(x, mode="graph", exact=False, before=None):
    """The record and the histogram of an array, as a training step measures them."""
    x = tf.constant(x)
    before = moments.empty() if before is None else before
    run = compiled(x.dtype.name, len(x.shape), mode, exact)
    record, counted = run(tf.constant(before), x)
    return record.numpy(), counted.numpy()


def numpy_record(x):
    """The same in plain float64 numpy, finite elements only."""
    x = np.asarray(x).astype(np.float64)
    rows = x.reshape(len(x), -1) if x.ndim else x.reshape(1, 1)
    finite = np.ma.masked_invalid(rows)
    kept = finite.compressed()
    per_unit = finite.var(axis=0) * finite.count(axis=0)
    return {
        "count": rows.size,
        "samples": rows.shape[0],
        "nonfinite": rows.size - kept.size,
        "zeros": np.sum(kept == 0),
        "mean": kept.mean(),
        "variance": kept.var(),
        "second_moment": np.mean(kept * kept),
        "within_variance": per_unit.sum() / kept.size,
        "minimum": kept.min(),
        "maximum": kept.max(),
    }


def assert_right(record, x, rtol=1e-6):
    """All fields to `rtol`; the mean relative to the rms, since it may cancel to zero."""
    expected = numpy_record(x)
    rms = np.sqrt(expected["second_moment"])
    for name, value in expected.items():
        measured = moments.field(record, name)
        if name == "mean":
            np.testing.assert_allclose(measured, value, rtol=0, atol=rtol * rms)
        else:
            np.testing.assert_allclose(measured, value, rtol=rtol, err_msg=name)


def normal(shape, std=1.0, mean=0.0, seed=0):
    return mean + std * np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("exponent", range(-33, 38, 5))
def test_the_quick_look_is_right_over_the_range_of_float32(mode, exponent):
    """Where the plain float32 std is zero below 1e-19 and infinite above 1e19."""
    x = normal((64, 33), 10.0**exponent).astype(np.float32)
    assert_right(look(x, mode)[0], x)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("exponent", (-44, -41, -38, -30, 0, 30, 37))
def test_the_exact_look_is_right_down_to_the_subnormals(mode, exponent):
    """TensorFlow flushes numbers below 1.18e-38 to zero; they are measured all the same."""
    x = normal((64, 33), 10.0**exponent).astype(np.float32)
    assert_right(look(x, mode, exact=True)[0], x, rtol=1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("dtype", "stds"),
    [
        ("float16", (1e-3, 1.0, 1e4)),
        ("bfloat16", (1e-30, 1.0, 1e37)),
        ("float64", (1e-100, 1.0, 1e100)),
    ],
)
def test_other_dtypes_are_right(mode, dtype, stds):
    """Half precision is widened without loss; float64 is measured as it is."""
    for std in stds:
        x = tf.cast(normal((32, 5, 7), std), dtype)
        assert_right(look(x, mode)[0], tf.cast(x, tf.float64).numpy())


CASES = {
    "a scalar": np.float32(3.5),
    "a vector": normal(1000).astype(np.float32),
    "one element": np.full((1, 1), -2.0, np.float32),
    "one row": normal((1, 500)).astype(np.float32),
    "one row of one value": np.full((1, 50), 0.1, np.float32),
    "a constant": np.full((64, 10), 1 / 3, np.float32),
    "zeros": np.zeros((8, 8), np.float32),
    "a constant per unit": np.tile(normal(40).astype(np.float32), (16, 1)),
    "relu": np.maximum(normal((32, 8, 8, 4)), 0).astype(np.float32),
    "a large mean": normal((64, 50), 1.0, 1e6).astype(np.float32),
    "a very large mean": normal((64, 50), 1e30, 1e36).astype(np.float32),
    "large means of either sign": (
        normal((64, 50)) + 1e6 * np.where(np.arange(50) % 2, 1, -1)
    ).astype(np.float32),
    "an outlier": np.where(
        np.arange(6400).reshape(64, 100) == 7, 1e6, normal((64, 100))
    ).astype(np.float32),
    "an outlier in the first row": np.where(
        np.arange(6400).reshape(64, 100) == 0, 1e9, normal((64, 100))
    ).astype(np.float32),
    "many rows": normal((100_003, 2), 1.0, 5.0).astype(np.float32),
    "many equal rows": np.full(100_003, 1 / 3, np.float32),
    "many units": normal((3, 100_003), 1.0, 1.0).astype(np.float32),
    "the largest numbers": np.array([[3.4e38, -3.4e38], [3.4e38, 3.4e38]], np.float32),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_special_tensors_are_right(mode, case):
    """Right at the first, quick look."""
    assert_right(look(CASES[case], mode)[0], CASES[case])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("exact", (False, True))
@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0), (0, 3, 0)])
def test_an_empty_tensor_gives_an_empty_record(mode, exact, shape):
    """Not NaN, and no bucket is counted."""
    record, counted = look(np.zeros(shape, np.float32), mode, exact)
    np.testing.assert_array_equal(record, moments.empty())
    np.testing.assert_array_equal(counted, histogram.none())


NONFINITE = {
    "mixed": [[1.0, np.nan, 2.0], [np.inf, -np.inf, -3.0]],
    "one nan": [[np.nan, 1.0], [2.0, 3.0]],
    "one inf": [[0.0, np.inf], [2.0, 3.0]],
    "both infinities in a unit": [[np.inf, 1.0], [-np.inf, 3.0]],
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", NONFINITE)
def test_non_finite_elements_are_counted_at_once_the_rest_at_the_second_look(mode, case):
    """The quick record says that there are some, and that it is not complete."""
    x = np.array(NONFINITE[case], np.float32)
    quick, counted = look(x, mode)
    expected = numpy_record(x)
    for name in ("count", "samples", "nonfinite"):
        assert moments.field(quick, name) == expected[name]
    assert np.isnan(moments.field(quick, "variance"))
    assert measure.needs_exact(quick[None]).tolist() == [True]
    assert counted[3:].sum() == expected["count"] - expected["nonfinite"]
    assert_right(look(x, mode, exact=True)[0], x)


def test_a_tensor_without_finite_elements_is_counted():
    """Its record has a count and nothing else."""
    x = np.full((4, 3), np.nan, np.float32)
    expected = moments.empty()
    expected[:3] = 12, 4, 12
    np.testing.assert_array_equal(look(x, exact=True)[0], expected)


@pytest.mark.parametrize(
    ("std", "needed"), [(1.0, False), (1e-28, False), (1e-33, True), (1e-41, True)]
)
def test_an_exact_look_is_asked_for_where_subnormals_matter(std, needed):
    """And for no ordinary record."""
    record, _ = look(normal((64, 33), std).astype(np.float32))
    assert measure.needs_exact(record[None]).tolist() == [needed]


@pytest.mark.parametrize("mode", MODES)
def test_records_of_batches_merge_into_the_record_of_all(mode):
    """In the graph, step by step: Chan's formula in float64."""
    sizes = enumerate((5, 8, 1))
    batches = [normal((n, 9), 3.0, i, seed=i).astype(np.float32) for i, n in sizes]
    record = moments.empty()
    for batch in batches:
        record, _ = look(batch, mode, before=record)
    together = np.concatenate(batches)
    expected = numpy_record(together)
    # By definition the variance within units is that of one batch, averaged.
    expected["within_variance"] = np.average(
        [b.astype(np.float64).var(axis=0).mean() for b in batches],
        weights=[len(b) for b in batches],
    )
    for name, value in expected.items():
        np.testing.assert_allclose(moments.field(record, name), value, rtol=1e-6)


def written_by_tensorflow(x):
    """The histogram that `tf.summary.histogram` makes of an array."""
    from tensorboard.plugins.histogram import summary_v2

    return summary_v2._buckets(tf.constant(x)).numpy()


HISTOGRAMS = {
    "normal": normal((128, 128)).astype(np.float32),
    "relu": np.maximum(normal((64, 200)), 0).astype(np.float32),
    "float16": normal((64, 100)).astype(np.float16),
    "far from zero": normal((64, 100), 1.0, 1e4).astype(np.float32),
    "integers": np.random.default_rng(0).integers(0, 31, (50, 50)).astype(np.float32),
    "one value": np.full((10, 10), 0.7, np.float32),
    "one element": np.full((1, 1), -0.7, np.float32),
    "huge": normal((10, 10), 1e37).astype(np.float32),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", HISTOGRAMS)
def test_the_histogram_is_that_of_tf_summary(mode, case):
    """Bucket by bucket, up to 2^14 elements."""
    x = HISTOGRAMS[case]
    stride, rows = histogram.unpack(look(x, mode)[1])
    assert stride == 1
    expected = written_by_tensorflow(x)
    np.testing.assert_array_equal(rows[:, 2], expected[:, 2])
    np.testing.assert_allclose(rows[:, :2], expected[:, :2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "shape", [(8, 8, 8, 64), (32, 768), (7, 9973), (1, 40_000), (65_537,)]
)
def test_of_a_larger_tensor_an_evenly_strided_sample_is_counted(mode, shape):
    """The same that numpy takes at the stride it states; no unit is left out for long."""
    x = normal(shape).astype(np.float32)
    stride, rows = histogram.unpack(look(x, mode)[1])
    assert stride > 1
    sample = x.reshape(-1)[::stride]
    assert sample.size <= histogram.EXACT_UP_TO
    # Not thinner than needed: 2 and 3 may divide the number of units, 5 is the next.
    assert sample.size > histogram.EXACT_UP_TO / 4
    np.testing.assert_array_equal(rows[:, 2], written_by_tensorflow(sample)[:, 2])
    units = x[0].size if x.ndim > 1 else 1
    visited = np.unique(np.arange(0, x.size, stride) % units)
    assert visited.size >= min(units, sample.size) * 0.99


def test_no_gradient_is_taken_of_a_measurement():
    """Nothing of it is recorded on the tape."""
    store = tensorflow_backend.Store(histograms=True)
    x = tf.Variable(normal((4, 3)))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            y = x * 2.0
            store.put(y, exact=False, fused=False)
            loss = tf.reduce_sum(y)
        return tape.gradient(loss, x)

    np.testing.assert_array_equal(step(), np.full((4, 3), 2.0))
    assert_right(store.record.numpy(), 2.0 * x.numpy())

"""Update over weight: the statistic, and what steps without an update give."""

import math

import numpy as np
import pytest

from activation_monitor.analysis import records
from activation_monitor.analysis.snapshot import LayerInfo, Recording, Snapshot
from activation_monitor.analysis.update_ratio import update_ratio, update_ratios

NAN = math.nan


def kernels(*sizes, seed=0):
    """A random kernel of each size; None for None."""
    rng = np.random.default_rng(seed)
    return [None if s is None else s * rng.standard_normal((40, 30)) for s in sizes]


def of(arrays):
    """Records of some arrays; an empty one for None."""
    return np.stack([records.empty() if x is None else records.measure(x) for x in arrays])


def snapshot(weights, updates, step=0, steps=1, names=None):
    """Weight layers in a chain, with their kernels and how they change."""
    names = names or [f"d{i}" for i in range(len(weights))]
    layers = tuple(
        LayerInfo(name, "Dense", "weight", "relu", 30, "float32", (i - 1,) if i else ())
        for i, name in enumerate(names)
    )
    quantities = {"output": of([np.ones((2, 3))] * len(weights)), "weight": of(weights)}
    if updates is not None:
        quantities["weight_update"] = of(updates)
    return Snapshot(step, layers, quantities, steps=steps)


def expected(weights, updates, steps=1):
    """The ratio by its definition."""
    pairs = zip(weights, updates, strict=True)
    return [math.sqrt((u**2).mean() / (w**2).mean()) / steps for w, u in pairs]


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e20])
def test_the_ratio_is_that_of_the_root_mean_squares(size, steps):
    """At any size of the weights. Of several steps in one execution, a mean step."""
    weights, updates = kernels(size, 0.1 * size, seed=1), kernels(1e-3 * size, size, seed=2)
    found = update_ratio(snapshot(weights, updates, steps=steps))
    np.testing.assert_allclose(found, expected(weights, updates, steps), rtol=1e-12)


def test_what_was_not_measured_has_no_ratio():
    """Neither a layer without a kernel nor a snapshot without updates."""
    weights, updates = kernels(1.0, None, 1.0), kernels(1e-3, None, 1e-2, seed=3)
    found = update_ratio(snapshot(weights, updates))
    np.testing.assert_array_equal(np.isnan(found), [False, True, False])
    assert np.isnan(update_ratio(snapshot(weights, None))).all()
    no_kernel = kernels(None, 1.0, 1.0)
    np.testing.assert_array_equal(
        np.isnan(update_ratio(snapshot(no_kernel, updates))), [True, True, False]
    )


def test_a_kernel_of_zeros_has_no_ratio():
    """The other layers have theirs."""
    weights, updates = kernels(0.0, 1.0), kernels(1e-3, 1e-3, seed=4)
    found = update_ratio(snapshot(weights, updates))
    assert math.isnan(found[0])
    np.testing.assert_allclose(found[1], expected(weights[1:], updates[1:])[0])


def test_a_step_that_changes_no_kernel_has_no_ratios():
    """Within gradient accumulation. One layer that does not change beside others has 0."""
    weights = kernels(1.0, 1.0)
    assert np.isnan(update_ratio(snapshot(weights, kernels(0.0, 0.0)))).all()
    frozen = update_ratio(snapshot(weights, kernels(0.0, 1e-3)))
    assert frozen[0] == 0.0 and frozen[1] > 0


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
def test_a_tensor_that_is_not_finite_has_no_ratio(bad):
    """The finite elements alone would say that all is well."""
    for which in (0, 1):
        both = kernels(1.0, 1.0), kernels(1e-3, 1e-3, seed=5)
        both[which][0][3, 4] = bad
        found = update_ratio(snapshot(*both))
        assert math.isnan(found[0])
        np.testing.assert_allclose(found[1], expected(both[0][1:], both[1][1:])[0])


def test_the_ratios_of_a_recording_are_those_of_its_snapshots():
    """By name, also if the layers change; layers without any are left out."""
    weights, updates = kernels(1.0, None, 1.0), kernels(1e-3, None, 1e-2, seed=6)
    later = snapshot(weights[::2], updates[::2], 9, names=["d2", "new"])
    no_update = snapshot(weights, kernels(0.0, None, 0.0), 5)
    recording = Recording([snapshot(weights, updates), no_update, later])
    found = update_ratios(recording)
    first, third = expected(weights[::2], updates[::2])
    assert [*found] == ["d0", "d2", "new"]
    np.testing.assert_allclose(found["d0"], [first, NAN, NAN])
    np.testing.assert_allclose(found["d2"], [third, NAN, first])
    np.testing.assert_allclose(found["new"], [NAN, NAN, third])
    assert update_ratios(Recording()) == {}
    assert update_ratios(Recording([snapshot(weights, None)])) == {}

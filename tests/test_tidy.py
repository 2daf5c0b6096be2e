"""The tidy table of a recording, as rows and as a data frame."""

import sys

import numpy as np
import pytest

from activation_monitor.analysis import optional, records, tidy
from activation_monitor.analysis.snapshot import LayerInfo, Recording, Snapshot

# In neither alphabetical order nor that of their numbers.
NAMES = ("net/stem", "net/block_10", "net/block_2", "net/head")


def layers():
    return tuple(
        LayerInfo(name, "Dense", "weight", "tanh", 5, "float32", (i - 1,) if i else ())
        for i, name in enumerate(NAMES)
    )


def tensors(seed):
    """By quantity, an array of each layer; None where the layer has no such tensor."""
    rng = np.random.default_rng(seed)
    outputs = [rng.normal(0.1, 1.5, (16, 5)) for _ in NAMES]
    outputs[1][outputs[1] < 0] = 0.0
    outputs[2][3, 2] = np.nan
    weights = [rng.normal(size=(7, 5)), None, *rng.normal(size=(2, 7, 5))]
    updates = [None if one is None else 1e-3 * one**2 for one in weights]
    return {"output": outputs, "weight": weights, "weight_update": updates}


def snapshot(step, loss=0.5, seed=0):
    found = {
        quantity: np.stack(
            [
                records.empty() if one is None else records.measure(one, "tanh")
                for one in arrays
            ]
        )
        for quantity, arrays in tensors(seed).items()
    }
    return Snapshot(step, layers(), found, loss=loss)


def of_array(x):
    """All statistics of an array, from their definitions."""
    finite = x[np.isfinite(x)]
    masked = np.ma.masked_invalid(x)
    within = ((masked - masked.mean(axis=0)) ** 2).sum() / finite.size
    return {
        "mean": finite.mean(),
        "std": finite.std(),
        "rms": np.sqrt((finite**2).mean()),
        "within_std": np.sqrt(within),
        "between_std": np.sqrt(max(finite.var() - within, 0)),
        "minimum": finite.min(),
        "maximum": finite.max(),
        "zero_fraction": (x == 0).mean(),
        "nonfinite_fraction": (~np.isfinite(x)).mean(),
        "saturated_fraction": (np.abs(finite) >= 0.98).sum() / x.size,
        "dead_units": (x == 0).all(axis=0).sum(),
    }


def test_each_row_has_the_number_that_its_array_gives():
    """Every statistic of every tensor, from float64 formulas on the arrays themselves."""
    found = {row[:-1]: row.value for row in tidy.rows([snapshot(3, seed=1)])}
    expected = {(3, None, "loss", "mean"): 0.5}
    for quantity, arrays in tensors(1).items():
        for name, array in zip(NAMES, arrays, strict=True):
            if array is not None:
                expected |= {
                    (3, name, quantity, statistic): value
                    for statistic, value in of_array(array).items()
                }
    for name, weight in zip(NAMES, tensors(1)["weight"], strict=True):
        if weight is not None:
            ratio = np.sqrt((1e-6 * weight**4).mean() / (weight**2).mean())
            expected[3, name, "weight_update", "update_ratio"] = ratio
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(
        [found[key] for key in expected], [*expected.values()], rtol=1e-12, atol=1e-15
    )


def test_rows_are_in_the_order_of_the_data():
    """Steps; in them the loss, then the layers as they are called; then quantities."""
    found = [*tidy.rows([snapshot(0), snapshot(10)])]
    assert [row.step for row in found] == sorted(row.step for row in found)
    of_one = [row for row in found if row.step == 10]
    assert of_one[0] == (10, None, "loss", "mean", 0.5)
    assert [*dict.fromkeys(row.layer for row in of_one[1:])] == [*NAMES]
    of_stem = [row.quantity for row in of_one if row.layer == "net/stem"]
    assert [*dict.fromkeys(of_stem)] == ["output", "weight", "weight_update"]
    assert len(of_one) == 1 + 4 * 11 + 2 * 3 * 11 + 3


def test_a_tensor_without_finite_elements_keeps_its_rows():
    """Their values are NaN; the share of elements that are not finite is a number."""
    bad = records.measure(np.full((4, 5), np.inf))[None]
    (layer, *_) = layers()
    found = [*tidy.rows([Snapshot(0, (layer,), {"output": bad}, loss=np.inf)])]
    assert found[0].value == np.inf
    values = {row.statistic: row.value for row in found[1:]}
    assert np.isnan([values["mean"], values["rms"], values["maximum"]]).all()
    assert values["nonfinite_fraction"] == 1.0


def test_a_data_frame_has_the_same_rows():
    """The same columns and values in the same order."""
    pandas = pytest.importorskip("pandas")
    recording = Recording([snapshot(0), snapshot(5, loss=np.nan, seed=4)])
    frame = recording.to_dataframe()
    rows = [*tidy.rows(recording)]
    assert [*frame.columns] == ["step", "layer", "quantity", "statistic", "value"]
    assert frame.step.dtype == np.int64 and frame.value.dtype == np.float64
    np.testing.assert_array_equal(frame.value, [row.value for row in rows])
    for column in ("step", "quantity", "statistic"):
        assert frame[column].tolist() == [getattr(row, column) for row in rows]
    is_loss = frame.layer.isna()
    assert frame.quantity[is_loss].tolist() == ["loss", "loss"]
    assert frame.layer[~is_loss].tolist() == [row.layer for row in rows if row.layer]
    assert isinstance(frame, pandas.DataFrame)


def test_layers_of_a_data_frame_sort_in_the_order_of_the_data():
    """A pivot has them as columns in the order of the calls, not of the alphabet."""
    pytest.importorskip("pandas")
    recording = Recording([snapshot(0), snapshot(5)])
    frame = recording.to_dataframe()
    rms = frame[(frame.quantity == "output") & (frame.statistic == "rms")]
    table = rms.pivot(index="step", columns="layer", values="value")
    assert [*table.columns] == [*NAMES] != sorted(NAMES)
    for name in NAMES:
        np.testing.assert_array_equal(table[name], recording.statistic("rms", name))


def test_a_recording_without_snapshots_is_an_empty_data_frame():
    """With the same columns and types."""
    pytest.importorskip("pandas")
    empty, full = (Recording(one).to_dataframe() for one in ((), [snapshot(0)]))
    assert len(empty) == 0 and [*empty.columns] == [*full.columns]
    assert empty.value.dtype == full.value.dtype and empty.step.dtype == full.step.dtype


def test_without_pandas_the_error_says_what_to_install(monkeypatch):
    """It is an ImportError that names the method, the package and the extra."""
    monkeypatch.setitem(sys.modules, "pandas", None)  # as if it were not there
    message = r"to_dataframe needs pandas.*`pip install pandas`.* extra `dataframe`"
    with pytest.raises(ImportError, match=message):
        Recording().to_dataframe()


def test_a_package_that_is_broken_raises_its_own_error(tmp_path, monkeypatch):
    """It is installed: to install it again would not help."""
    (tmp_path / "broken_package.py").write_text("import something_that_it_misses")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_that_it_misses"):
        optional.optional("broken_package", "a test")

"""Snapshots by layer and by step; the recording and how it is thinned."""

import numpy as np
import pytest

from activation_monitor.analysis import records
from activation_monitor.analysis.snapshot import LayerInfo, Recording, Snapshot


def snapshot(step=0, histograms=None, **sizes):
    """One step of a chain of layers, by name and rms; None was not measured."""
    layers = tuple(
        LayerInfo(name, "Dense", "weight", "linear", 2, "float32", (i - 1,) if i else ())
        for i, name in enumerate(sizes)
    )
    found = [
        records.empty() if rms is None else records.measure([[rms], [-rms]])
        for rms in sizes.values()
    ]
    counted = {} if histograms is None else {"output": histograms}
    return Snapshot(step, layers, {"output": np.stack(found)}, counted)


def filled(keep, count):
    recording = Recording(keep=keep)
    for step in range(count):
        recording.append(snapshot(step, dense=1.0))
    return recording


# -- one snapshot


def test_a_snapshot_gives_names_statistics_and_fields_in_the_order_of_its_layers():
    """One value for each layer; NaN where nothing was measured."""
    taken = snapshot(3, first=2.0, second=None, third=0.5)
    assert taken.names == ("first", "second", "third")
    np.testing.assert_array_equal(taken.statistic("rms"), [2.0, np.nan, 0.5])
    np.testing.assert_array_equal(taken.statistic("maximum"), [2.0, np.nan, 0.5])
    np.testing.assert_array_equal(taken.statistic("dead_units"), [0, np.nan, 0])
    np.testing.assert_array_equal(taken.statistic("saturated_fraction"), [0, np.nan, 0])
    np.testing.assert_array_equal(taken.field("count"), [2, 0, 2])


def test_kernels_and_how_they_were_drawn_are_unknown_unless_they_are_known():
    """A snapshot has no kernels, a layer no fan-in and no initializer."""
    taken = snapshot(dense=1.0)
    assert taken.quantities.get("weight") is None
    (layer,) = taken.layers
    assert (layer.fan_in, layer.initializer) == (0.0, "")
    weights = records.measure([[3.0], [4.0]])[None]
    both = Snapshot(0, taken.layers, taken.quantities | {"weight": weights})
    np.testing.assert_allclose(both.statistic("rms", of="weight"), [np.sqrt(12.5)])
    np.testing.assert_array_equal(taken.statistic("rms", of="weight"), [np.nan])
    np.testing.assert_array_equal(taken.field("count", of="weight"), [0])


@pytest.mark.parametrize(("step", "steps", "last"), [(0, 1, 0), (7, 1, 7), (20, 8, 27)])
def test_the_last_step_is_the_last_of_those_merged(step, steps, last):
    """A snapshot of several steps begins at `step` and ends with `last_step`."""
    taken = snapshot(step, dense=1.0)
    assert Snapshot(step, taken.layers, taken.quantities, steps=steps).last_step == last


def test_a_histogram_is_found_by_the_name_of_its_layer():
    """Each layer has its own; None where nothing was counted, or no histogram kept."""
    vectors = np.zeros((2, 33))
    vectors[1] = [5, -1.0, 2.0, *range(30)]
    taken = snapshot(histograms=vectors, first=1.0, second=1.0)
    assert taken.histogram("first") is None
    assert taken.histogram("second").stride == 5
    np.testing.assert_array_equal(taken.histogram("second").rows[:, 2], np.arange(30))
    assert snapshot(first=1.0).histogram("first") is None


@pytest.mark.parametrize(
    ("method", "known"),
    [("statistic", records.STATISTICS), ("field", records.FIELD_NAMES)],
)
def test_an_unknown_statistic_or_field_is_a_key_error_that_lists_them(method, known):
    """Names are those of `moments`: all of them, in one line."""
    with pytest.raises(KeyError) as caught:
        getattr(snapshot(dense=1.0), method)("norm")
    (message,) = caught.value.args
    assert f"{method}: no {method} named 'norm'. " in message
    assert message.endswith(f"There are: {', '.join(known)}.")
    assert "\n" not in message


def test_the_histogram_of_an_unknown_layer_is_a_key_error_with_a_hint():
    """Also where no histograms were kept."""
    for histograms in (None, np.zeros((2, 33))):
        taken = snapshot(histograms=histograms, **{"net/first": 1.0, "net/second": 1.0})
        assert taken.histogram("net/first") is None
        with pytest.raises(KeyError, match="'first'. Did you mean 'net/first'?"):
            taken.histogram("first")


# -- a recording


def test_a_recording_gives_a_statistic_of_any_quantity_over_the_steps():
    """NaN at steps where the quantity was not measured; an unknown one is an error."""
    first, second = snapshot(0, dense=1.0), snapshot(1, dense=3.0)
    gradient = records.measure([[0.3], [0.4]])[None]
    second = Snapshot(1, second.layers, second.quantities | {"output_gradient": gradient})
    recording = Recording([first, second])
    found = recording.statistic("rms", "dense", of="output_gradient")
    np.testing.assert_allclose(found, [np.nan, np.sqrt(0.125)])
    np.testing.assert_allclose(recording.statistic("rms", "dense"), [1.0, 3.0])
    with pytest.raises(KeyError, match="Recording.statistic: no quantity named 'grad'"):
        recording.statistic("rms", "dense", of="grad")


@pytest.mark.parametrize(
    ("quantities", "expected"),
    [
        ({}, "must have records of the outputs. Received: none"),
        ({"weight": records.empty(1)}, "Received: weight"),
        (
            {"output": records.empty(1), "loss": records.empty(1)},
            "no quantity named 'loss'",
        ),
        ({"output": records.empty(2)}, r"1 layers and 13 columns for 'output'.*\(2, 13\)"),
    ],
)
def test_quantities_that_do_not_fit_the_layers_are_refused(quantities, expected):
    """When the snapshot is made, not where it is read."""
    layers = snapshot(dense=1.0).layers
    with pytest.raises(ValueError, match=expected):
        Snapshot(0, layers, quantities)


def test_a_history_is_a_sequence_of_snapshots():
    """It has a length, an order, first and last, and the steps."""
    snapshots = [snapshot(step, dense=1.0) for step in (0, 1, 2, 5, 100)]
    recording = Recording(snapshots[:2])
    for taken in snapshots[2:]:
        recording.append(taken)
    assert len(recording) == 5
    assert all(a is b for a, b in zip(recording, snapshots, strict=True))
    assert recording[0] is snapshots[0] and recording[-1] is snapshots[-1]
    assert recording.steps == [0, 1, 2, 5, 100]


def test_histories_do_not_share_their_snapshots():
    """What is appended to one is in no other, nor in the list it was made of."""
    given = [snapshot(dense=1.0)]
    a, b = Recording(given), Recording(given)
    a.append(snapshot(1, dense=1.0))
    assert (len(a), len(b), len(given)) == (2, 1, 1)
    assert len(Recording()) == 0


def test_a_history_without_a_limit_keeps_all():
    """By default nothing is let go."""
    assert filled(None, 300).steps == [*range(300)]


def test_a_history_that_is_not_full_keeps_all():
    """Up to `keep` snapshots nothing is let go."""
    assert filled(20, 20).steps == [*range(20)]


def test_a_full_history_lets_every_second_one_go_but_the_first_and_the_newest():
    """Literally, for 20 to keep: after 21, 23 and 26 snapshots."""
    first = [*range(16)]
    assert filled(20, 21).steps == [*first, 16, 18, 20]
    assert filled(20, 23).steps == [*first, 16, 20, 22]
    assert filled(20, 26).steps == [*first, 16, 22, 24, 25]


@pytest.mark.parametrize("keep", [17, 18, 31, 64, 100])
def test_a_history_never_holds_more_than_it_may_and_never_loses_its_ends(keep):
    """At every length: at most `keep`, in order, the first 16 and the newest there."""
    recording = Recording(keep=keep)
    for step in range(400):
        recording.append(snapshot(step, dense=1.0))
        steps = recording.steps
        assert len(steps) <= keep
        assert steps[:16] == [*range(min(step + 1, 16))]
        assert steps[-1] == step
        assert steps == sorted(set(steps))
        # Half of what may go is let go, no more.
        assert len(steps) >= min(step + 1, 16 + (keep - 16) // 2)


@pytest.mark.parametrize("keep", [1, 5, 16])
def test_a_small_history_too_holds_no_more_than_it_may(keep):
    """`keep` is how many to hold at most, even below sixteen."""
    assert len(filled(keep, 40)) <= keep


def test_a_history_that_may_hold_nothing_is_refused():
    """With what came."""
    with pytest.raises(ValueError, match="must be positive, or None for all. Received: 0"):
        Recording(keep=0)


def test_what_a_history_starts_from_is_thinned_too():
    """A recording made of more snapshots than it may hold comes within its limit."""
    recording = Recording((snapshot(step, dense=1.0) for step in range(200)), keep=20)
    recording.append(snapshot(200, dense=1.0))
    assert len(recording) <= 20


def test_a_statistic_over_the_steps_is_nan_where_the_layer_was_not_measured():
    """Not called (no elements), or not yet there: NaN, in the order of the steps."""
    recording = Recording(
        [
            snapshot(0, dense=1.0, late=None),
            snapshot(10, dense=3.0),
            snapshot(20, late=0.25, dense=2.0),
        ]
    )
    np.testing.assert_array_equal(recording.statistic("rms", "dense"), [1.0, 3.0, 2.0])
    np.testing.assert_array_equal(
        recording.statistic("maximum", "late"), [np.nan, np.nan, 0.25]
    )


def test_a_layer_that_no_snapshot_has_is_a_key_error_with_a_hint():
    """The message names the layer asked for, and the one that was meant: as a layer is
    usually called, without the model's name in front."""
    recording = Recording(
        [snapshot(0, **{"net/dense": 1.0}), snapshot(1, **{"net/late": 1.0})]
    )
    for asked, meant in [("dense", "net/dense"), ("late", "net/late")]:
        with pytest.raises(KeyError) as caught:
            recording.statistic("rms", asked)
        (message,) = caught.value.args
        assert message == (
            f"Recording.statistic: no layer named {asked!r}. Did you mean {meant!r}?"
        )
    np.testing.assert_array_equal(recording.statistic("rms", "net/dense"), [1.0, np.nan])


def test_an_empty_history_has_no_layers():
    """It says so."""
    with pytest.raises(KeyError, match="no layer named 'dens'. There are: none."):
        Recording().statistic("rms", "dens")


@pytest.mark.parametrize("layer", ["dense", "no such layer"])
def test_an_unknown_statistic_over_the_steps_is_a_key_error_that_lists_them(layer):
    """Names are those of `records.STATISTICS`."""
    with pytest.raises(KeyError) as caught:
        Recording([snapshot(dense=1.0)]).statistic("sdt", layer)
    (message,) = caught.value.args
    assert message == (
        "Recording.statistic: no statistic named 'sdt'. Did you mean 'std'? "
        f"There are: {', '.join(records.STATISTICS)}."
    )

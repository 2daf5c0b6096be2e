"""Two runs side by side: what differs, from which layer on, and what is left to chance."""

import math

import numpy as np
import pytest

from activation_monitor.analysis.comparison import compare, pair_layers
from activation_monitor.analysis.diagnosis import diagnose
from activation_monitor.analysis.snapshot import Recording
from networks import Drawn, chain, network, tap


def held(first, second):
    """The comparison of two lists of snapshots, or of two snapshots."""
    runs = [Recording(run if isinstance(run, list) else [run]) for run in (first, second)]
    return compare(*runs, tuple(diagnose(run) for run in runs), ("A", "B"))


@pytest.mark.parametrize("activation", ["relu", "tanh", "selu"])
@pytest.mark.parametrize(("depth", "width"), [(3, 16), (20, 32), (50, 64)])
def test_two_draws_of_one_initializer_do_not_differ(activation, depth, width):
    """In no pair of ten: deep and narrow networks vary by much, and it is allowed for."""
    differ = 0
    for seed in range(10):
        first, second = (
            Drawn(s).chain(depth, width, activation=activation).snapshot()
            for s in (2 * seed, 2 * seed + 1)
        )
        lines = held(first, second).differences
        differ += any(line.startswith("rms") for line in lines)
    assert differ == 0


def test_another_initializer_shows_from_the_layer_that_has_it():
    """The first layer that differs is the sixth, where four times the weights begin."""

    def snapshot(variance):
        return Drawn(0).chain(5).chain(5, name="e", variance=variance).snapshot()

    found = held(snapshot(2.0), snapshot(32.0))
    (line,) = [line for line in found.differences if line.startswith("rms at the first")]
    assert "6 of 12 layers, from e1 (depth 6) on" in line
    assert "4 times" in line
    differ = [pair.name for pair in found.pairs if pair.differs_first]
    assert differ == ["e1", "e2", "e3", "e4", "e5", "head"]


def test_sizes_are_those_of_both_runs():
    """Rms at the first and the last snapshot of each."""
    first = [chain(1.0, 2.0), chain(1.0, 4.0, step=5)]
    second = [chain(1.0, 2.0), chain(1.0, 80.0, step=7)]
    found = held(first, second)
    pairs = {pair.name: pair for pair in found.pairs}
    assert (pairs["d2"].first, pairs["d2"].last) == ((2.0, 2.0), (4.0, 80.0))
    assert [pair.name for pair in found.pairs if pair.differs_last] == ["d2"]
    assert not any(pair.differs_first for pair in found.pairs)
    assert found.differences == (
        "rms at the last step, of 1 of 4 layers, from d2 (depth 2) on: 4 against 80, "
        "20 times",
    )


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_zeros_and_what_is_not_finite_differ_from_every_size(value):
    """But not from themselves."""
    assert [p.name for p in held(chain(1.0), chain(value, head=1.0)).pairs] == [
        "x",
        "d1",
        "head",
    ]
    differ = [
        p.name for p in held(chain(1.0), chain(value, head=1.0)).pairs if p.differs_first
    ]
    assert differ == ["d1"]
    assert not any(p.differs_first for p in held(chain(value), chain(value)).pairs)


def test_layers_settings_and_findings_that_only_one_has_are_named():
    """In words, with the run's name."""
    first = network(tap("a", activation="relu"), tap("b"), tap("only_a"))
    second = network(tap("a", activation="tanh", width=8), tap("b"), tap("only_b", 0.0))
    assert set(held(first, second).differences) >= {
        "layers only in A: only_a",
        "layers only in B: only_b",
        "activation of 1 of 2 layers, from a on: relu against tanh",
        "width of 1 of 2 layers, from a on: 512 against 8",
    }
    unhealthy = held(chain(1.0, 1.0, 1.0), chain(1.0, math.nan, math.nan))
    assert "found only in B: nonfinite-activations" in unhealthy.differences


def test_the_same_run_does_not_differ_from_itself():
    """Whatever is in it."""
    snapshots = [chain(1.0, 0.0, math.nan), chain(1e30, 1e-30, step=3)]
    assert held(snapshots, snapshots).differences == ()


def test_layers_are_paired_by_name_else_by_place():
    """One common name is enough for names to count."""
    a = network(tap("p"), tap("q"), tap("r"))
    by_name = network(tap("r"), tap("p"))
    assert pair_layers(a, by_name) == [(0, 1), (2, 0)]
    by_place = network(tap("s"), tap("t"))
    assert pair_layers(a, by_place) == [(0, 0), (1, 1)]


def test_a_layer_that_the_last_snapshot_lacks_is_no_error():
    """It was not measured there: neither was it in the other run."""
    runs = [chain(1.0, 1.0), network(tap("x", 1.0, "input"), step=4)]
    found = held(runs, runs)
    assert found.differences == ()
    np.testing.assert_array_equal(found.pairs[1].last, [np.nan, np.nan])


def test_an_empty_run_cannot_be_compared():
    """It says which."""
    with pytest.raises(ValueError, match="Received: B has none"):
        held([chain(1.0)], [])


@pytest.fixture
def printed():
    """A function that prints the table of a comparison: it needs rich."""
    console = pytest.importorskip("activation_monitor.views.console")
    tables = pytest.importorskip("activation_monitor.views.tables")

    def text(found, **options):
        table = tables.comparison_table(found, ("A", "B"), **options)
        return console.as_text(table, width=80)

    return text


def test_the_table_shows_the_layers_that_differ_and_what_does(printed):
    """Ratios that are beyond chance are marked; the rest is not listed."""
    found = held(chain(1.0, 2.0), chain(1.0, 20.0))
    shown = printed(found)
    row = next(line for line in shown.splitlines() if line.strip().startswith("d2"))
    assert row.split() == ["d2", "2", "2", "20!", "10", "2", "20!"]
    assert not any(line.strip().startswith("d1") for line in shown.splitlines())
    assert "* rms at the first step, of 1 of 4 layers" in shown
    assert shown.count("! = differs from A by more than chance explains.") == 1
    same = printed(held(*[chain(1.0)] * 2))
    assert same == "No difference between A and B beyond chance."


def test_a_mark_is_explained_only_where_there_is_one(printed):
    """Runs that differ in their settings only have no table, and no marks."""
    first, second = (
        network(tap("a", activation=phi), tap("b")) for phi in ("relu", "tanh")
    )
    found = held(first, second)
    assert found.differences and not any(pair.differs_first for pair in found.pairs)
    shown = printed(found)
    assert "!" not in shown


def test_a_long_table_is_cut(printed):
    """And says how much is left."""
    found = held(chain(*[1.0] * 50), chain(*[10.0] * 50))
    shown = printed(found, most=5)
    assert "and 45 more layers." in shown

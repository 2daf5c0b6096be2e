"""The layer graph of hand-made networks: order, depth, trunks, against all paths listed."""

import dataclasses
import random

import numpy as np
import pytest

from activation_monitor.analysis import records
from activation_monitor.analysis.layer_graph import graph_of
from networks import blocks, network, norm, tap


def graph_with(*taps):
    return graph_of(network(*taps))


def names(graph, rows):
    return " ".join(graph.layers[row].name for row in rows)


def trunks(graph):
    """For each end, the trunks on the way to it: of all of it, and of each tower."""
    return {
        graph.layers[end].name: [
            names(graph, graph.trunk(part, graph.paths_to(end)[0]))
            for part in graph.paths_to(end)
        ]
        for end in graph.ends
    }


# -- random graphs, against all their paths


def random_parents(rng, layers=9, sources=(0, 1, 1, 1, 2, 3)):
    return [
        sorted(rng.sample(range(i), min(i, rng.choice(sources)))) for i in range(layers)
    ]


def random_graph(parents, rng=None, kinds=("weight",)):
    rows = [
        tap(
            f"d{i}",
            kind=(rng or random).choice(kinds),
            after=" ".join(f"d{p}" for p in above),
        )
        for i, above in enumerate(parents)
    ]
    return graph_with(*rows)


def all_paths(parents):
    """Every path from a source to an end."""

    def onward(row):
        children = [c for c, above in enumerate(parents) if row in above]
        return [[row, *rest] for c in children for rest in onward(c)] or [[row]]

    return [p for row, above in enumerate(parents) if not above for p in onward(row)]


def common(paths):
    """Vertices that all of these paths share, in order."""
    return [row for row in paths[0] if all(row in path for path in paths)]


def tower_paths(paths, source):
    """Of each path from a source, the initial part that no other source reaches."""
    others = {row for path in paths if path[0] != source for row in path}
    for path in paths:
        if path[0] == source:
            stop = next((i for i, row in enumerate(path) if row in others), len(path))
            yield path[:stop]


@pytest.mark.parametrize("seed", range(30))
def test_order_depth_and_trunk_are_those_of_all_paths(seed):
    """Nine layers; depth counts the weight layers of the longest path only."""
    rng = random.Random(seed)
    parents = random_parents(rng)
    graph = random_graph(parents, rng, ("weight", "weight", "other", "activation"))
    paths = all_paths(parents)
    weight = [layer.kind == "weight" for layer in graph.layers]

    assert sorted(graph.order) == list(range(9))
    for row, above in enumerate(parents):
        assert all(graph.order.index(p) < graph.order.index(row) for p in above)
        assert graph.children[row] == [c for c in range(9) if row in parents[c]]
    depths = [
        max(sum(weight[r] for r in p[: p.index(row) + 1]) for p in paths if row in p)
        for row in range(9)
    ]
    np.testing.assert_array_equal(graph.depth, depths)
    feeds = [
        any(any(weight[r] for r in p[p.index(row) + 1 :]) for p in paths if row in p)
        for row in range(9)
    ]
    assert graph.feeds_weight() == feeds
    leads = [{r for p in paths if row in p for r in p[: p.index(row)]} for row in range(9)]
    assert [graph.before(row) for row in range(9)] == leads
    assert graph.ends == [row for row in range(9) if all(row not in p for p in parents)]
    for end in graph.ends:
        to_end = [path for path in paths if path[-1] == end]
        whole, *_ = graph.paths_to(end)
        assert whole == {row for path in to_end for row in path}
        assert graph.trunk(whole, whole) == common(to_end)


@pytest.mark.parametrize("seed", range(30))
def test_each_of_several_inputs_has_the_trunk_of_its_own_paths(seed):
    """For each source: what the parts of its paths that no other reaches have in common."""
    parents = random_parents(random.Random(seed))
    graph, paths = random_graph(parents), all_paths(parents)
    for end in graph.ends:
        to_end = [path for path in paths if path[-1] == end]
        sources = sorted({path[0] for path in to_end})
        expected = [common(list(tower_paths(to_end, source))) for source in sources]
        parts = graph.paths_to(end)
        found = [graph.trunk(part, parts[0]) for part in parts]
        assert found == [common(to_end)] + (expected if len(sources) > 1 else [])


# -- towers


@pytest.mark.parametrize(
    ("taps", "expected"),
    [
        # One input: no tower.
        ([tap("x", kind="input"), tap("a"), tap("b")], ["x a b"]),
        (
            [
                tap("x", kind="input"),
                tap("a"),
                tap("y", kind="input", after=""),
                tap("b"),
                tap("cat", kind="merge", after="a b"),
                tap("c"),
            ],
            ["cat c", "x a", "y b"],
        ),
        # Two meet, and the third later: what two feed is not a tower of one.
        (
            [
                *(tap("x", kind="input"), tap("y", kind="input", after="")),
                tap("both", kind="merge", after="x y"),
                tap("a"),
                *(tap("z", kind="input", after=""), tap("b")),
                tap("all", kind="merge", after="a b"),
            ],
            ["all", "x", "y", "z b"],
        ),
        # Within a tower a branch is not a trunk.
        (
            [
                *(tap("x", kind="input"), tap("a"), tap("f"), tap("g")),
                tap("sum", kind="merge", after="a g"),
                tap("y", kind="input", after=""),
                tap("both", kind="merge", after="sum y"),
            ],
            ["both", "x a sum", "y"],
        ),
        # One layer for both inputs is called twice.
        (
            [
                *(tap("x", kind="input"), tap("net/dense/0", after="x")),
                *(tap("y", kind="input", after=""), tap("net/dense/1", after="y")),
                tap("dot", kind="merge", after="net/dense/0 net/dense/1"),
            ],
            ["dot", "x net/dense/0", "y net/dense/1"],
        ),
    ],
)
def test_the_way_of_each_input_to_where_they_meet_has_a_trunk(taps, expected):
    """First that of the whole, then those of the inputs in their order."""
    assert list(trunks(graph_with(*taps, tap("head"))).values()) == [
        [f"{expected[0]} head", *expected[1:]]
    ]


def test_a_branch_inside_a_tower_is_not_on_its_trunk():
    """`x + f(x) + g(y)`: not every way from x to the sum passes f."""
    graph = graph_with(
        *(tap("x", kind="input"), tap("stem"), tap("f"), tap("y", kind="input", after="")),
        tap("sum", kind="merge", after="stem f y"),
        tap("head"),
    )
    assert trunks(graph) == {"head": ["sum head", "x stem", "y"]}


def test_each_end_has_towers_of_what_leads_to_it():
    """An end that one input feeds has none, though another end is fed by both."""
    graph = graph_with(
        *(tap("x", kind="input"), tap("a"), tap("aux")),
        *(tap("y", kind="input", after=""), tap("b")),
        tap("cat", kind="merge", after="a b"),
        tap("head"),
    )
    assert trunks(graph) == {"aux": ["x a aux"], "head": ["cat head", "x a", "y b"]}


# -- order and rows that are left out


@pytest.mark.parametrize("seed", range(5))
def test_rows_in_any_order_are_put_after_their_parents(seed):
    """A parent may stand after its child: rows are in the order of the calls."""
    taps = [tap("a", after=""), *(tap(c, after=p) for p, c in ("ab", "bc", "cd"))]
    taps += [tap("add", kind="merge", after="b d"), tap("e", after="add")]
    random.Random(seed).shuffle(taps)
    graph = graph_with(*taps)
    assert names(graph, graph.order) == "a b c d add e"
    assert trunks(graph) == {"e": ["a b add e"]}


def test_what_is_called_at_the_same_time_stays_in_the_order_of_the_calls():
    """Nothing but parents moves a row forward."""
    taps = [tap("s", after=""), *(tap(f"d{i}", after="s") for i in (3, 1, 2))]
    graph = graph_with(*taps, tap("all", kind="merge", after="d1 d2 d3"))
    assert names(graph, graph.order) == "s d3 d1 d2 all"


def test_the_order_of_calls_is_a_path_only_where_nothing_was_traced():
    """A cell in a loop is left out beside traced layers; alone, calls are a chain."""
    taps = [tap("a"), tap("cell", traced=False), tap("b", after="a"), tap("c")]
    graph = graph_with(*taps)
    assert names(graph, graph.order) == "a b c"
    assert graph.children == [[2], [], [3], []]
    eager = graph_with(*(tap(name, traced=False) for name in "abc"))
    assert names(eager, eager.order) == "a b c"
    np.testing.assert_array_equal(eager.depth, [1, 2, 3])


def test_a_layer_that_was_never_called_is_nobodys_parent():
    """What follows it starts again."""
    graph = graph_with(tap("a"), tap("off", None), tap("b"), tap("c"))
    assert names(graph, graph.order) == "a b c"
    assert graph.parents == [[], [], [], [2]]
    np.testing.assert_array_equal(graph.depth, [1, 0, 1, 2])
    assert names(graph, graph.ends) == "a c"


# -- the weight layer before a row


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("x", None),
        ("a", "a"),
        ("relu", "a"),
        ("pool", "a"),
        ("b", "b"),
        ("sum", None),
        ("after", None),
        ("n", "c"),
        ("head", "head"),
    ],
)
def test_the_weight_layer_before_a_row_is_the_only_one_that_made_it(row, expected):
    """Itself or through operations of one input; none after a sum or an input."""
    graph = graph_with(
        *(tap("x", kind="input"), tap("a"), tap("relu", kind="activation")),
        *(tap("pool", kind="pooling"), tap("b"), tap("sum", kind="merge", after="pool b")),
        *(tap("after", kind="activation"), tap("c"), norm("n"), tap("head")),
    )
    names = [layer.name for layer in graph.layers]
    found = graph.weight_before(names.index(row))
    assert (None if found is None else names[found]) == expected


def test_a_thousand_blocks_have_too_many_paths_for_a_float():
    """2^1100 paths are counted exactly: every sum is on the trunk, no branch is."""
    graph = graph_of(blocks(1100, lambda i: 1.0))
    (part,) = graph.paths_to(graph.ends[0])
    sums = [f"sum{i}" for i in range(1, 1101)]
    assert names(graph, graph.trunk(part, part)) == " ".join(["stem", *sums, "head"])


def test_snapshots_with_the_same_layers_share_a_graph():
    """It does not change from step to step, unless other layers are called."""
    first = network(tap("a"), tap("b"), tap("c"))
    again = dataclasses.replace(first, step=1)
    assert graph_of(again) is graph_of(first)
    gone = first.records().copy()
    gone[1] = records.empty()
    without = dataclasses.replace(first, quantities={"output": gone})
    assert graph_of(without).order == [0, 2] != graph_of(first).order
    equal = network(tap("a"), tap("b"), tap("c"))
    assert graph_of(equal) is not graph_of(first)  # layers of another run
    assert graph_of(equal).order == graph_of(first).order

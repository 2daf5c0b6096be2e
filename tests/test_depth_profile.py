"""The trunk of hand-made networks: what is compared, in which segments, how it grows."""

import math
import random

import numpy as np
import pytest

from activation_monitor.analysis import moments
from activation_monitor.analysis.depth_profile import depth_profile
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot


def tap(name, rms=1.0, kind="weight", after=None, **info):
    """One tapped tensor; by default the output of a linear layer after the tap before.

    `rms`: None if it was never called, infinite if some of it is not finite.
    `after`: names of its parents, separated by spaces.
    """
    info = {"activation": "linear", "width": 64, "traced": True} | info
    return name, rms, kind, after, info


def network(*taps):
    """The snapshot of some taps."""
    names = [name for name, *_ in taps]
    layers, records = [], []
    for row, (name, rms, kind, after, info) in enumerate(taps):
        before = names[row - 1 : row] if after is None else after.split()
        parents = tuple(names.index(parent) for parent in before)
        layers.append(
            LayerInfo(name, "Layer", kind, dtype="float32", parents=parents, **info)
        )
        if rms is None:
            records.append(moments.empty())
        elif math.isfinite(rms):
            records.append(moments.measure([[rms], [-rms]]))
        else:
            records.append(moments.measure([[rms], [1.0]]))
    return Snapshot(4, tuple(layers), np.stack(records))


def chain(*sizes, **info):
    """Weight layers d1, d2, ... of these sizes, between an input and a head."""
    return network(
        tap("x", 1.0, "input"),
        *(tap(f"d{i + 1}", rms, **info) for i, rms in enumerate(sizes)),
        tap("head", 123.0),
    )


def segments_of(snapshot):
    """Names of the points of each segment, and whether it is open."""
    profile = depth_profile(snapshot)
    return [(" ".join(p.name for p in s.points), s.open) for s in profile.segments]


# -- plain chains


def test_a_chain_is_one_open_segment_without_input_and_head():
    """Compared are the outputs of the weight layers but the last."""
    snapshot = chain(1.0, 2.0, 4.0, 8.0)
    assert segments_of(snapshot) == [("d1 d2 d3 d4", True)]
    profile = depth_profile(snapshot)
    assert profile.step == 4
    np.testing.assert_array_equal(profile.depths, [0, 1, 2, 3, 4, 5])
    points = [(p.row, p.name, p.depth, p.rms) for p in profile.main.points]
    assert points == [(1, "d1", 1, 1), (2, "d2", 2, 2), (3, "d3", 3, 4), (4, "d4", 4, 8)]


# Mean and sd of one step in nats: facts/theory.md section 1, "Step law".
@pytest.mark.parametrize(
    ("activation", "width", "mean", "sd"),
    [
        ("linear", 64, -0.00785319, 0.0890833),
        ("relu", 128, -0.00989320, 0.1002921),
        ("relu", 32, -0.04127010, 0.2106524),
    ],
)
@pytest.mark.parametrize("sizes", [(1, 2, 4, 8), (5, 5), (1e20, 1e-9, 3), (7, 1e-30)])
def test_growth_and_its_interval_are_those_of_the_steps_between(
    activation, width, mean, sd, sizes
):
    """Growth is the geometric mean from first to last, chance adds up in between."""
    main = depth_profile(chain(*sizes, activation=activation, width=width)).main
    steps = len(sizes) - 1
    assert main.layers == steps
    np.testing.assert_allclose(main.decades, math.log10(sizes[-1] / sizes[0]), atol=1e-12)
    growth = (sizes[-1] / sizes[0]) ** (1 / steps)
    np.testing.assert_allclose(main.growth, growth, rtol=1e-12)
    # From here on the golden numbers have four digits and more.
    np.testing.assert_allclose(main.chance_mean, steps * mean / math.log(10), rtol=1e-5)
    np.testing.assert_allclose(main.chance_sd, steps**0.5 * sd / math.log(10), rtol=1e-5)
    for z in (1.0, 3.0):
        low, high = (math.exp(mean + s * z * sd / math.sqrt(steps)) for s in (-1, 1))
        np.testing.assert_allclose(main.interval(z), (low, high), rtol=1e-5)
    np.testing.assert_array_equal(main.interval(), main.interval(3.0))


def test_the_first_point_adds_no_chance():
    """The interval is that of the layers after the first, each by its own law."""
    snapshot = network(
        tap("wild", activation="relu", width=2),
        tap("tame", activation="linear", width=512),
        tap("head"),
    )
    main = depth_profile(snapshot).main
    np.testing.assert_allclose(main.chance_mean, -0.00097720 / math.log(10), rtol=1e-5)
    np.testing.assert_allclose(main.chance_sd, 0.0312805 / math.log(10), rtol=1e-5)


@pytest.mark.parametrize("sizes", [(), (1.0,)])
def test_with_fewer_than_two_points_there_is_no_growth(sizes):
    """A network of one or two weight layers has nothing to compare."""
    profile = depth_profile(chain(*sizes))
    assert profile.main is None
    for segment in profile.segments:
        assert segment.layers == 0
        np.testing.assert_array_equal(
            [segment.growth, segment.decades, *segment.interval()], [np.nan] * 4
        )


@pytest.mark.parametrize(
    ("sizes", "measured", "decades"),
    [
        ((1, 1e10, 1e20, math.inf, math.inf), "d1 d2 d3", 20),
        ((1, 1e10, math.nan, 5, 5), "d1 d2", 10),
        ((1, 1e-10, 1e-20, 0, 0), "d1 d2 d3", -20),
        ((1, 1, 1, 1e-6, 0), "d1 d2 d3 d4", -6),
        ((1, 0, 1, 1, 1), "d1", math.nan),
        ((math.inf, 1, 1, 1, 1), "", math.nan),
        ((0, 1, 1, 1, 1), "", math.nan),
    ],
)
def test_what_is_not_finite_or_zero_ends_the_measured_part(sizes, measured, decades):
    """All points stay in the segment; growth is that of the points before."""
    (segment,) = depth_profile(chain(*sizes)).segments
    assert [p.name for p in segment.points] == ["d1", "d2", "d3", "d4", "d5"]
    assert " ".join(p.name for p in segment.measured) == measured
    assert segment.layers == max(len(measured.split()) - 1, 0)
    np.testing.assert_allclose(segment.decades, decades, rtol=1e-12)


def test_a_point_that_is_not_all_finite_has_no_rms():
    """The rms of the finite rest says nothing of the tensor."""
    main = depth_profile(chain(1.0, 2.0, math.nan)).main
    np.testing.assert_array_equal([p.rms for p in main.points], [1.0, 2.0, math.nan])


# -- what is compared


@pytest.mark.parametrize(
    ("taps", "points"),
    [
        # What is handed on is the activation, whichever layer computes it.
        ([tap("a"), tap("a_relu", kind="activation")], "a_relu d"),
        ([tap("a"), tap("drop", kind="other"), tap("scale", kind="other")], "scale d"),
        # Pooling changes the size by what it does.
        ([tap("a"), tap("pool", kind="pooling")], "a d"),
        ([tap("a"), tap("pool", kind="pooling"), tap("drop", kind="other")], "drop d"),
        # An embedding has no fan-in: the depth begins with the first kernel.
        ([tap("embed", kind="embedding"), tap("a")], "a d"),
        ([tap("x", kind="input"), tap("drop", kind="other"), tap("a")], "a d"),
    ],
)
def test_at_each_depth_the_last_tensor_that_was_not_pooled_is_compared(taps, points):
    """One point for each depth: what the next weight layer is given."""
    assert segments_of(network(*taps, tap("d"), tap("head"))) == [(points, True)]


@pytest.mark.parametrize(
    "after_the_head", [[], [tap("softmax", kind="activation")], [tap("n", kind="other")]]
)
def test_the_head_and_what_comes_after_it_is_not_compared(after_the_head):
    """A prediction is no signal."""
    taps = [tap("a"), tap("b"), tap("head"), *after_the_head]
    assert segments_of(network(*taps)) == [("a b", True)]


# -- normalization


def norm(name, **options):
    return tap(name, kind="normalization", **options)


def test_batch_normalization_after_every_layer_leaves_nothing_to_grow():
    """Each normalization ends a segment; what feeds nothing else is not compared."""
    snapshot = network(
        tap("conv1", 50.0),
        norm("bn1"),
        tap("relu1", 0.7, kind="activation"),
        tap("conv2", 1e-9),
        norm("bn2"),
        tap("relu2", 0.7, kind="activation"),
        tap("head"),
    )
    assert segments_of(snapshot) == [("relu1", False), ("relu2", True)]
    assert depth_profile(snapshot).main is None


def test_a_normalization_on_the_trunk_begins_the_segment_that_is_judged():
    """Growth before it is buffered, growth after it counts from its output."""
    snapshot = network(
        tap("a", 1.0),
        tap("b", 1e3),
        tap("c", 1e6),
        norm("ln", rms=1.0),
        tap("d", 2.0),
        tap("e", 4.0),
        tap("head"),
    )
    assert segments_of(snapshot) == [("a b", False), ("ln d e", True)]
    main = depth_profile(snapshot).main
    np.testing.assert_allclose(main.growth, 2.0, rtol=1e-12)
    assert main.layers == 2


def test_a_normalization_before_the_first_weight_layer_ends_nothing():
    """Normalized inputs are not part of the trunk."""
    snapshot = network(tap("x", kind="input"), norm("n"), tap("a"), tap("b"), tap("head"))
    assert segments_of(snapshot) == [("a b", True)]


def blocks(count, rms, normalized):
    """A residual stream: a stem, blocks of two layers that are added, a head."""
    taps, stream = [tap("stem", rms(0))], "stem"
    for i in range(1, count + 1):
        if normalized:
            taps.append(norm(f"norm{i}", after=stream))
        taps += [
            tap(f"up{i}", 77.0, after=f"norm{i}" if normalized else stream),
            tap(f"down{i}", 1e-9),
            # As `Add` makes it in one model, and `x + f(x)` in another.
            tap(f"sum{i}", rms(i), "merge" if i % 2 else "input", f"{stream} down{i}"),
        ]
        stream = f"sum{i}"
    if normalized:
        taps.append(norm("last_norm"))
    return network(*taps, tap("head"))


def test_a_residual_stream_that_a_normalization_ends_is_not_open():
    """Pre-norm blocks: the stream may grow, nothing is left to judge."""
    snapshot = blocks(3, lambda i: 10.0**i, normalized=True)
    # The last sum is given to nothing but the normalization.
    assert segments_of(snapshot) == [("stem sum1 sum2", False), ("last_norm", True)]
    profile = depth_profile(snapshot)
    assert profile.main is None
    assert profile.segments[0].layers == 4
    np.testing.assert_allclose(profile.segments[0].decades, 2.0, rtol=1e-12)


def test_a_residual_stream_without_normalization_is_open():
    """Its growth is per weight layer: two in each block."""
    snapshot = blocks(3, lambda i: 10.0**i, normalized=False)
    assert segments_of(snapshot) == [("stem sum1 sum2 sum3", True)]
    main = depth_profile(snapshot).main
    assert [p.depth for p in main.points] == [1, 3, 5, 7]
    assert main.layers == 6
    np.testing.assert_allclose(main.growth, 10.0 ** (3 / 6), rtol=1e-12)


def test_a_thousand_blocks_have_too_many_paths_for_a_float():
    """2^1100 paths are counted exactly: every sum is on the trunk, no branch is."""
    profile = depth_profile(blocks(1100, lambda i: 1.0, normalized=False))
    names = [p.name for p in profile.main.points]
    assert names == ["stem", *(f"sum{i}" for i in range(1, 1101))]


# -- what else sets the size anew


def test_a_normalization_that_is_not_measured_begins_a_segment():
    """`normalized` says that one stands in front of the tensor."""
    snapshot = network(
        tap("a", 1.0),
        tap("b", 1e3),
        tap("c", 1.0, normalized=True),
        tap("d", 2.0),
        tap("head"),
    )
    assert segments_of(snapshot) == [("a b", False), ("c d", True)]
    np.testing.assert_allclose(depth_profile(snapshot).main.growth, 2.0, rtol=1e-12)


@pytest.mark.parametrize(
    "name",
    ["sigmoid", "hard_sigmoid", "softmax", "softplus", "exponential", "log_softmax"],
)
def test_an_activation_function_with_an_offset_begins_a_segment(name):
    """Where phi(0) != 0 the size does not come from what the layer is given."""
    dense = [tap("a", 0.01), tap("b", 0.01), tap("s", 0.5, activation=name), tap("c", 0.3)]
    assert segments_of(network(*dense, tap("head"))) == [("a b", False), ("s c", True)]
    # As a layer of its own, after a linear one.
    layer = tap("s", 0.5, "activation", activation=name)
    snapshot = network(tap("a", 0.01), tap("b", 0.01), layer, tap("c", 0.3), tap("head"))
    assert segments_of(snapshot) == [("a b", False), ("s c", True)]
    # First of all, it ends nothing.
    snapshot = network(tap("s", 0.5, activation=name), tap("c", 0.3), tap("head"))
    assert segments_of(snapshot) == [("s c", True)]


@pytest.mark.parametrize(
    ("name", "limit"),
    [("tanh", 1.0), ("softsign", 1.0), ("hard_tanh", 1.0), ("relu6", 6.0)],
)
def test_a_bounded_activation_function_begins_a_segment_where_it_is_given_more(name, limit):
    """Above its limit it puts out its own size; below, what it is given shows."""
    for kind in ("weight", "activation"):
        for size, whole in ((0.99, True), (1.01, False), (100.0, False)):
            bounded = tap("t", 0.9 * limit, kind, activation=name)
            snapshot = network(
                tap("a", limit * size),
                tap("b", limit * size),
                bounded,
                tap("c"),
                tap("head"),
            )
            names = "a b t c" if kind == "weight" else "a t c"
            assert segments_of(snapshot) == (
                [(names, True)] if whole else [("a b", False), ("t c", True)]
            )


@pytest.mark.parametrize("name", ["relu", "selu", "gelu", "silu", "elu", "linear"])
def test_other_activation_functions_begin_no_segment(name):
    """They hand on the size of what they are given, whatever it is."""
    assert segments_of(chain(1e3, 1e3, 1e-3, activation=name)) == [("d1 d2 d3", True)]


# -- what is no growth


@pytest.mark.parametrize(
    ("between", "decades"),
    [
        # Dense is linear, and its activation a layer of its own.
        ([tap("relu", 0.5**0.5, kind="activation", activation="relu")], -0.150514998),
        ([tap("silu", 0.5, kind="activation", activation="silu")], -0.301029996),
        ([tap("scale", 10**0.49, kind="other")], 0.49),
        ([tap("scale", 10**-0.49, kind="other")], -0.49),
        ([tap("one", 10**0.4, kind="other"), tap("two", 10**0.8, kind="other")], 0.8),
        # A sum over an axis, a rescaling, a normalization written by hand.
        ([tap("sum", 100.0, kind="other")], 0.0),
        ([tap("mean", 0.01, kind="other")], 0.0),
        ([tap("scale", 10**0.51, kind="other")], 0.0),
        ([tap("scale", 10**-0.51, kind="other")], 0.0),
        (
            [tap("sum", 100.0, kind="merge"), tap("relu", 70.0, kind="activation")],
            -0.1549020,
        ),
        # Pooling, by however little.
        ([tap("pool", 0.8, kind="pooling")], 0.0),
        ([tap("pool", 0.8, kind="pooling"), tap("drop", 1.6, kind="other")], 0.301029996),
    ],
)
def test_what_operations_do_between_two_weight_layers_is_no_growth(between, decades):
    """What a weight layer or an activation function does to the size is, and adds up."""
    last = between[-1][1]
    twice = [
        tap("a", 1.0),
        tap("b", 1.0),
        *between,
        tap("c", last * 3.0),
        tap("d", last * 6.0),
        tap("head"),
    ]
    main = depth_profile(network(*twice)).main
    assert main.layers == 3
    assert main.measured[-1].rms == pytest.approx(last * 6.0)
    np.testing.assert_allclose(main.decades, decades + math.log10(6.0), rtol=1e-6)
    np.testing.assert_allclose(main.growth, (10.0**decades * 6.0) ** (1 / 3), rtol=1e-6)


def test_what_relu_does_in_layers_of_its_own_adds_up():
    """Dense(linear) that keeps the size, then ReLU: sqrt(1/2) in each of nine steps."""
    taps = []
    for i in range(10):
        taps.append(tap(f"d{i}", 0.5 ** (i / 2)))
        taps.append(
            tap(f"relu{i}", 0.5 ** ((i + 1) / 2), kind="activation", activation="relu")
        )
    main = depth_profile(network(*taps, tap("head"))).main
    assert main.layers == 9
    np.testing.assert_allclose(main.growth, 0.5**0.5, rtol=1e-12)
    np.testing.assert_allclose(main.decades, -9 * 0.150514998, rtol=1e-8)


# -- other graphs


@pytest.mark.parametrize(
    ("taps", "trunks"),
    [
        # Two inputs meet: the trunk begins where they do.
        (
            [
                tap("a"),
                tap("b", after=""),
                tap("both", kind="merge", after="a b"),
                tap("c"),
            ],
            ["both c"],
        ),
        # Two outputs part: each has a trunk of its own, with what they share.
        ([tap("a"), tap("b"), tap("c"), tap("aux", after="b")], ["a b", "a b aux"]),
        (
            [tap("a"), tap("b"), tap("aux"), tap("aux2"), tap("aux3", after="b")],
            ["a b aux", "a b aux3"],
        ),
        # Two outputs of one tensor: the trunk to both is the same, and told once.
        ([tap("a"), tap("aux", after="b"), tap("b", after="a")], ["a b"]),
        # An output without a layer after it: a state that nobody uses.
        (
            [tap("a"), tap("b:0"), tap("b:1", after="a"), tap("c", after="b:0")],
            ["a", "a b:0 c"],
        ),
        # A skip over two layers.
        (
            [tap("a"), tap("b"), tap("c"), tap("add", kind="merge", after="a c"), tap("d")],
            ["a add d"],
        ),
        # A concatenation of two branches, of different depths.
        (
            [
                tap("a"),
                tap("left"),
                tap("right", after="a"),
                tap("right2"),
                tap("cat", kind="merge", after="left right2"),
            ],
            ["a cat"],
        ),
        # Two networks side by side share no tensor.
        (
            [tap("a"), tap("b"), tap("c", after=""), tap("d"), tap("e", after="b")],
            ["c", "a b e"],
        ),
    ],
)
def test_the_trunk_to_each_end_is_what_every_path_to_it_passes(taps, trunks):
    """Branches, and what not all inputs have in common, are not compared."""
    segments = segments_of(network(*taps, tap("head")))
    assert segments == [(trunk, True) for trunk in trunks]


@pytest.mark.parametrize("early", [1, 5])
def test_an_auxiliary_head_does_not_hide_the_trunk_behind_it(early):
    """An early output has a short trunk; the longest one is the main segment."""
    sizes = [2.0**i for i in range(8)]
    hidden = [tap(f"d{i}", rms) for i, rms in enumerate(sizes)]
    aux = tap("aux", 1.0, after=f"d{early}")
    snapshot = network(*hidden, aux, tap("head", after="d7"))
    names = [f"d{i}" for i in range(8)]
    shared = " ".join(names[: early + 1])
    assert segments_of(snapshot) == [(shared, True), (" ".join(names), True)]
    main = depth_profile(snapshot).main
    assert [p.name for p in main.points] == names
    np.testing.assert_allclose(main.growth, 2.0, rtol=1e-12)


def test_the_main_segment_is_the_longest_whichever_end_comes_first():
    """Of two networks side by side the deeper one, in either order."""
    deep = [tap("a", after=""), tap("b"), tap("c"), tap("head")]
    flat = [tap("d", after=""), tap("e"), tap("head2")]
    for taps in (deep + flat, flat + deep):
        profile = depth_profile(network(*taps))
        assert len(profile.segments) == 2
        assert [p.name for p in profile.main.points] == ["a", "b", "c"]


def test_states_that_nobody_uses_do_not_hide_the_trunk():
    """An LSTM's states are outputs of their own; its sequence is the data path."""
    snapshot = network(
        tap("x", kind="input"),
        tap("lstm:0", 0.2, after="x"),
        tap("lstm:1", 9.0, after="x"),
        tap("lstm:2", 9.0, after="x"),
        tap("dense", 0.4, after="lstm:0"),
        tap("dense2", 0.8),
        tap("head"),
    )
    assert segments_of(snapshot) == [("lstm:0 dense dense2", True)]
    np.testing.assert_allclose(depth_profile(snapshot).main.growth, 2.0, rtol=1e-12)


@pytest.mark.parametrize("seed", range(30))
def test_the_trunk_and_depths_of_random_graphs_are_those_of_all_their_paths(seed):
    """Every path of nine layers listed, for its vertices and for the longest."""
    rng = random.Random(seed)
    parents = [
        sorted(rng.sample(range(i), min(i, rng.choice([0, 1, 1, 1, 2, 3]))))
        for i in range(9)
    ]

    def paths_from(i):
        onward = [c for c in range(9) if i in parents[c]]
        return [[i, *rest] for c in onward for rest in paths_from(c)] or [[i]]

    paths = [p for i in range(9) if not parents[i] for p in paths_from(i)]
    ends = [i for i in range(9) if all(i not in p for p in parents)]
    trunks = []
    for end in ends:
        to_end = [p for p in paths if p[-1] == end]
        trunk = [i for i in range(9) if i != end and all(i in p for p in to_end)]
        if trunk and trunk not in trunks:
            trunks.append(trunk)
    depths = [max(p.index(i) + 1 for p in paths if i in p) for i in range(9)]

    snapshot = network(
        *(tap(f"d{i}", after=" ".join(f"d{p}" for p in parents[i])) for i in range(9))
    )
    profile = depth_profile(snapshot)
    np.testing.assert_array_equal(profile.depths, depths)
    assert all(segment.open for segment in profile.segments)
    assert [[p.row for p in s.points] for s in profile.segments] == trunks
    longest = max((depths[t[-1]] - depths[t[0]] for t in trunks), default=0)
    assert (profile.main.layers if profile.main else 0) == longest


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_rows_does_not_matter(seed):
    """A parent may stand after its child: rows are in the order of the calls."""
    taps = [tap("a"), tap("b", after="a"), tap("c", after="b"), tap("d", after="c")]
    taps += [tap("add", kind="merge", after="b d"), tap("e", after="add")]
    taps[0] = tap("a", after="")
    random.Random(seed).shuffle(taps)
    assert segments_of(network(*taps, tap("head", after="e"))) == [("a b add e", True)]


# -- rows that are no part of the data path


def test_what_runs_inside_a_loop_is_not_part_of_a_traced_path():
    """The cell of a recurrent layer is left out, what the layer hands on is not."""
    snapshot = network(
        tap("embed", kind="embedding"),
        tap("cell", 1e9, after="embed", traced=False),
        tap("lstm", 1.0, after="embed"),
        tap("dense", 2.0),
        tap("head"),
    )
    assert segments_of(snapshot) == [("lstm dense", True)]
    np.testing.assert_array_equal(depth_profile(snapshot).depths, [0, 0, 1, 2, 3])


def test_if_nothing_was_traced_the_order_of_the_calls_is_the_path():
    """An eager step is read as a chain."""
    taps = [tap(name, traced=False) for name in ("a", "b", "c", "head")]
    assert segments_of(network(*taps)) == [("a b c", True)]


@pytest.mark.parametrize("rms", [None, 1.0])
def test_a_layer_that_was_never_called_is_no_path(rms):
    """Without elements an output is nothing; with some, it has a trunk of its own."""
    snapshot = network(tap("a"), tap("b"), tap("head"), tap("loose", rms, after="a"))
    other = [] if rms is None else [("a", True)]
    assert segments_of(snapshot) == [("a b", True), *other]


@pytest.mark.parametrize("rms", [None, 1.0])
def test_a_layer_beside_the_network_adds_no_trunk(rms):
    """Called or not: what is no weight layer's input has nothing to compare."""
    snapshot = network(tap("a"), tap("b"), tap("head"), tap("loose", rms, after=""))
    assert segments_of(snapshot) == [("a b", True)]


def test_if_no_layer_was_called_there_is_no_profile():
    """A snapshot of nothing but empty records has no segments."""
    profile = depth_profile(network(tap("a", None), tap("b", None), tap("head", None)))
    assert (profile.segments, profile.main) == ((), None)
    np.testing.assert_array_equal(profile.depths, [0, 0, 0])


@pytest.mark.parametrize("width", [32, 6400])
def test_what_stands_behind_an_activation_does_not_change_the_role_of_chance(width):
    """Dense(relu) and Dropout or Flatten fluctuate like Dense(relu)."""
    pairs = [
        (tap(f"d{i}", activation="relu", width=32), tap(f"o{i}", kind="other", width=width))
        for i in range(5)
    ]
    main = depth_profile(network(*(t for pair in pairs for t in pair), tap("head"))).main
    np.testing.assert_allclose(main.chance_sd, 2 * 0.2106524 / math.log(10), rtol=1e-5)


@pytest.mark.parametrize("middle", [0.0, math.nan])
def test_a_tensor_that_is_passed_over_between_two_depths_is_left_out(middle):
    """Zeros or NaN that an operation makes and another one mends are no growth."""
    snapshot = network(
        tap("a"),
        tap("odd", middle, kind="other"),
        tap("mended", 1.0, kind="other"),
        tap("b"),
        tap("head"),
    )
    np.testing.assert_allclose(depth_profile(snapshot).main.decades, 0.0, atol=1e-12)

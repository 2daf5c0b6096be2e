"""The trunk of hand-made networks: what is compared, in which ranges, how it grows."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, special

from activation_monitor.analysis.depth_profile import depth_profile
from activation_monitor.analysis.growth import DTYPE_LIMITS
from networks import Drawn, blocks, chain, network, norm, tap, weights


def segments_of(snapshot):
    """Names of the points of each growth range, and whether it is open, in their order."""
    profile = depth_profile(snapshot)
    return [(" ".join(p.name for p in s.points), s.open) for s in profile.growth_ranges]


# -- plain chains


def test_a_chain_is_one_open_segment_without_input_and_head():
    """Compared are the outputs of the weight layers but the last."""
    snapshot = chain(1.0, 2.0, 4.0, 8.0, head=123.0, step=4)
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
    for growth_range in profile.growth_ranges:
        assert growth_range.layers == 0
        np.testing.assert_array_equal(
            [growth_range.growth, growth_range.decades, *growth_range.interval()],
            [np.nan] * 4,
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
    """All points stay in the growth range; growth is that of the points before."""
    (growth_range,) = depth_profile(chain(*sizes)).growth_ranges
    assert [p.name for p in growth_range.points] == ["d1", "d2", "d3", "d4", "d5"]
    assert " ".join(p.name for p in growth_range.measured) == measured
    assert growth_range.layers == max(len(measured.split()) - 1, 0)
    np.testing.assert_allclose(growth_range.decades, decades, rtol=1e-12)


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


def test_batch_normalization_after_every_layer_leaves_nothing_to_grow():
    """Each normalization ends a growth range; what feeds nothing else is not compared."""
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


def test_a_residual_stream_that_a_normalization_ends_is_not_open():
    """Pre-norm blocks: the stream may grow, nothing is left to judge."""
    snapshot = blocks(3, lambda i: 10.0**i, normalized=True)
    # The last sum is given to nothing but the normalization.
    assert segments_of(snapshot) == [("stem sum1 sum2", False), ("last_norm", True)]
    profile = depth_profile(snapshot)
    assert profile.main is None
    assert profile.growth_ranges[0].layers == 4
    np.testing.assert_allclose(profile.growth_ranges[0].decades, 2.0, rtol=1e-12)


def test_a_residual_stream_without_normalization_is_open():
    """Its growth is per weight layer: two in each block."""
    snapshot = blocks(3, lambda i: 10.0**i, normalized=False)
    assert segments_of(snapshot) == [("stem sum1 sum2 sum3", True)]
    main = depth_profile(snapshot).main
    assert [p.depth for p in main.points] == [1, 3, 5, 7]
    assert main.layers == 6
    np.testing.assert_allclose(main.growth, 10.0 ** (3 / 6), rtol=1e-12)


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
    last = between[-1].rms
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
        # Two inputs meet: the trunk begins where they do, and each has one before.
        (
            [
                tap("a"),
                tap("b", after=""),
                tap("both", kind="merge", after="a b"),
                tap("c"),
            ],
            ["both c", "a", "b"],
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
    """Branches are not compared, nor what not all inputs of the end have in common."""
    growth_ranges = segments_of(network(*taps, tap("head")))
    assert growth_ranges == [(trunk, True) for trunk in trunks]


@pytest.mark.parametrize("early", [1, 5])
def test_an_auxiliary_head_does_not_hide_the_trunk_behind_it(early):
    """An early output has a short trunk; the longest one is the main growth range."""
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
        assert len(profile.growth_ranges) == 2
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


# -- towers


def two_towers(*joint):
    """Two inputs with chains of their own, joined by what is given."""
    return network(
        *(tap("x", kind="input"), tap("a1", 1.0), tap("a2", 10.0), tap("a3", 100.0)),
        *(tap("y", kind="input", after=""), tap("b1", 1.0), tap("b2", 0.5)),
        tap("cat", 70.0, "merge", "a3 b2"),
        *joint,
        tap("head"),
    )


def test_the_way_of_each_input_to_where_they_meet_is_a_segment():
    """Each with its own growth; what follows is one of its own."""
    snapshot = two_towers(tap("c", 70.0), tap("d", 140.0))
    assert segments_of(snapshot) == [("cat c d", True), ("a1 a2 a3", True), ("b1 b2", True)]
    growth_ranges = depth_profile(snapshot).growth_ranges
    growth = [growth_range.growth for growth_range in growth_ranges]
    np.testing.assert_allclose(growth, [2**0.5, 10.0, 0.5], rtol=1e-12)
    assert [growth_range.layers for growth_range in growth_ranges] == [2, 2, 1]


@pytest.mark.parametrize("joint", [[norm("n")], [tap("c", 70.0), norm("n"), tap("d")]])
def test_towers_that_a_normalization_ends_are_not_open(joint):
    """As with one input: what is normalized before the head may grow without harm."""
    opened = [
        s.points[0].name for s in depth_profile(two_towers(*joint)).growth_ranges if s.open
    ]
    assert "a1" not in opened and "b1" not in opened


def test_a_normalization_within_a_tower_cuts_it():
    """Only what reaches the meeting point is open."""
    snapshot = network(
        *(
            tap("x", kind="input"),
            tap("a1", 1.0),
            tap("a2", 9.0),
            norm("n"),
            tap("a3", 3.0),
        ),
        *(tap("y", kind="input", after=""), tap("b1", 1.0)),
        tap("cat", 2.0, "merge", "a3 b1"),
        tap("head"),
    )
    assert segments_of(snapshot) == [
        *(("cat", True), ("a1", False), ("n a3", True), ("b1", True))
    ]


# -- residual streams


@pytest.mark.parametrize(
    ("snapshot", "residual"),
    [
        (blocks(1, lambda i: 1.0), True),
        (blocks(5, lambda i: 1.0), True),
        (blocks(5, lambda i: 1.0, normalized=True), True),
        (chain(1, 1, 1, 1), False),
        # Sums at two of four points, at one of three, and at the first only.
        (
            network(
                *(tap("a"), tap("b"), tap("s", kind="merge", after="a b"), tap("c")),
                *(tap("d"), tap("t", kind="merge", after="c d"), tap("head")),
            ),
            True,
        ),
        (
            network(
                *(tap("a"), tap("b"), tap("s", kind="merge", after="a b"), tap("c")),
                *(tap("d"), tap("head")),
            ),
            False,
        ),
        (
            network(
                *(tap("a"), tap("b", after=""), tap("s", kind="merge", after="a b")),
                *(tap("c"), tap("head")),
            ),
            False,
        ),
        # What follows a sum at the same depth does not hide it.
        (
            network(
                *(tap("a"), tap("b"), tap("s", kind="merge", after="a b")),
                *(tap("relu", kind="activation"), tap("c"), tap("head", after="relu")),
            ),
            True,
        ),
        # One point is no stream.
        (
            network(
                *(tap("a"), tap("b", after=""), tap("s", kind="merge", after="a b")),
                tap("head"),
            ),
            False,
        ),
    ],
)
def test_a_segment_along_which_branches_are_added_is_a_residual_stream(snapshot, residual):
    """At half of its points or more, the first left out."""
    assert depth_profile(snapshot).growth_ranges[0].residual is residual


def test_branches_that_are_concatenated_are_no_residual_stream():
    """Inception: nothing is added, and nothing of the stream is kept."""
    taps, stream = [tap("stem")], "stem"
    for i in range(4):
        taps += [tap(f"left{i}", after=stream), tap(f"right{i}", after=stream)]
        both = {"after": f"left{i} right{i}", "class_name": "Concatenate"}
        taps.append(tap(f"cat{i}", kind="merge", **both))
        stream = f"cat{i}"
    assert not depth_profile(network(*taps, tap("head"))).main.residual


# -- where the range of a dtype ends


@pytest.mark.parametrize(
    ("sizes", "float16", "bfloat16", "float32"),
    [
        # log10 of 65504 is 4.8162678; of 2^-14, -4.2144199.
        ((1, 10, 100), 5.8162678, 39.5301397, 39.5318397),
        ((1, 0.1, 0.01), 5.2144199, 38.9297794, 38.9297794),
        ((5, 5e2), 1 + 4.1172978 / 2, 1 + 37.8311697 / 2, 1 + 37.8328697 / 2),
        # It has been left already, or is at the very end.
        ((1, 1e6), 1 + 4.8162678 / 6, 1 + 38.5301397 / 6, 1 + 38.5318397 / 6),
        ((1, 65504.0), 2.0, 1 + 38.5301397 / 4.8162678, 1 + 38.5318397 / 4.8162678),
        ((1, 1e20, math.inf), 1 + 4.8162678 / 20, 1 + 1.9265070, 1 + 1.9265920),
        ((1, 1, 1), math.inf, math.inf, math.inf),
        ((1,), math.inf, math.inf, math.inf),
    ],
)
def test_the_depth_at_which_a_dtype_ends_is_where_the_straight_line_meets_it(
    sizes, float16, bfloat16, float32
):
    """Overflow of what grows, underflow of what falls, to the smallest normal number."""
    (growth_range,) = depth_profile(chain(*sizes)).growth_ranges
    found = [growth_range.limit_depth(d) for d in ("float16", "bfloat16", "float32")]
    np.testing.assert_allclose(found, [float16, bfloat16, float32], rtol=1e-7)


def test_the_limits_are_those_of_the_dtypes():
    """As numpy has them, and ml_dtypes for bfloat16."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert set(DTYPE_LIMITS) == {"float16", "bfloat16", "float32"}
    for dtype, limits in DTYPE_LIMITS.items():
        info = ml_dtypes.finfo(dtype)
        np.testing.assert_array_equal(
            limits, (float(info.smallest_normal), float(info.max))
        )


def test_the_depth_at_which_a_dtype_ends_counts_all_layers_of_a_block():
    """A stream that doubles every two layers, from 8 at depth 7 on."""
    main = depth_profile(blocks(3, lambda i: 2.0**i)).main
    expected = 7 + 2 * (math.log2(65504) - 3)
    np.testing.assert_allclose(main.limit_depth("float16"), expected, rtol=1e-12)


def test_what_operations_do_is_not_carried_on_to_the_end_of_the_range():
    """The rate is that of the weight layers, the start what is there."""
    snapshot = network(tap("a"), tap("sum", 100.0, "other"), tap("b", 1000.0), tap("head"))
    main = depth_profile(snapshot).main
    np.testing.assert_allclose(main.growth, 10.0, rtol=1e-12)
    expected = 2 + math.log10(65.504)
    np.testing.assert_allclose(main.limit_depth("float16"), expected, rtol=1e-12)


# -- links: one weight layer, and what it should do


def normal_average(f, q):
    """E f(h) over h ~ N(0, q)."""
    sd, total = math.sqrt(q), 0.0
    edges = sorted(
        {0.0, *(side * min(x, 12 * sd) for side in (-1, 1) for x in (1, 3, 1e9))}
    )

    def weighted(h):
        return f(h) * math.exp(-0.5 * h * h / q) / (sd * math.sqrt(2 * math.pi))

    for low, high in itertools.pairwise(edges):
        total += integrate.quad(weighted, low, high, epsabs=0.0, epsrel=1e-9)[0]
    return total


BY_QUADRATURE = {
    "tanh": (math.tanh, lambda h: 1 - math.tanh(h) ** 2),
    "sigmoid": (special.expit, lambda h: special.expit(h) * special.expit(-h)),
    "softsign": (lambda h: h / (1 + abs(h)), lambda h: (1 + abs(h)) ** -2.0),
    "gelu": (
        lambda h: h * special.ndtr(h),
        lambda h: special.ndtr(h) + h * math.exp(-h * h / 2) / math.sqrt(2 * math.pi),
    ),
}


def link_of(name, activation, rms_in, variance, **options):
    """The link of the second layer of a chain."""
    second = {"activation": activation} | weights(variance) | options
    snapshot = network(tap("a", rms_in), tap(name, 0.3, **second), tap("head"))
    return depth_profile(snapshot).links[1]


@pytest.mark.parametrize("variance", [0.01, 1.0, 2.0, 30.0])
@pytest.mark.parametrize("rms_in", [0.02, 1.0, 5.0])
@pytest.mark.parametrize("activation", ["linear", "relu", "leaky_relu", *BY_QUADRATURE])
def test_a_link_predicts_gain_and_backward_as_the_integrals_say(
    activation, rms_in, variance
):
    """Closed forms of the homogeneous functions, scipy's quadrature of the others."""
    link = link_of("d", activation, rms_in, variance)
    q = variance * rms_in**2
    if activation in BY_QUADRATURE:
        phi, slope = BY_QUADRATURE[activation]
        moment = normal_average(lambda h: phi(h) ** 2, q)
        chi = variance * normal_average(lambda h: slope(h) ** 2, q)
    else:
        share = {"linear": 1.0, "relu": 0.5, "leaky_relu": 0.52}[activation]
        moment, chi = share * q, share * variance
    np.testing.assert_allclose(link.weight_variance, variance, rtol=1e-12)
    np.testing.assert_allclose(link.pre_activation, q, rtol=1e-12)
    np.testing.assert_allclose(link.predicted_gain, math.sqrt(moment) / rms_in, rtol=1e-6)
    np.testing.assert_allclose(10**link.backward, math.sqrt(chi), rtol=1e-6)
    np.testing.assert_allclose(link.gain, 0.3 / rms_in, rtol=1e-12)


@pytest.mark.parametrize(
    ("activation", "wanted"),
    [
        *(("linear", 1.0), ("relu", 2.0), ("leaky_relu", 2 / 1.04), ("tanh", 1.0)),
        *(("selu", 1.0), ("gelu", 2.0), ("sigmoid", None), ("mystery", None)),
    ],
)
def test_the_excess_is_that_over_the_initializer_for_the_activation(activation, wanted):
    """In decades of the gain; unknown where there is no such initializer."""
    for variance in (1e-4, 1.0, 2.0, 64.0):
        expected = math.log10(variance / wanted) / 2 if wanted else math.nan
        found = link_of("d", activation, 1.0, variance).excess
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_link_counts_the_mean_of_the_weights_as_well():
    """`fan_in E w^2`, of the weights as they are."""
    kernel = np.random.default_rng(0).uniform(0.0, 0.4, (64, 32))
    link = link_of("d", "relu", 1.0, 1.0, kernel=kernel, fan_in=64)
    np.testing.assert_allclose(
        (link.kernel_mean, link.kernel_std, link.weight_variance),
        (kernel.mean(), kernel.std(), 64 * np.mean(kernel**2)),
        rtol=1e-12,
    )


@pytest.mark.parametrize(
    ("options", "unknown"),
    [
        ({"kernel": None}, "weight_variance predicted_gain backward excess"),
        ({"fan_in": 0.0}, "weight_variance predicted_gain backward excess"),
        ({"activation": "mystery"}, "predicted_gain backward excess"),
        ({"kernel": np.zeros((2, 2))}, "predicted_gain backward excess"),
        ({"rms_in": 0.0}, "gain predicted_gain backward"),
        ({"rms_in": math.nan}, "gain predicted_gain backward"),
        ({"activation": "sigmoid"}, "excess"),
        ({}, ""),
    ],
)
def test_what_is_not_known_of_a_link_is_nan(options, unknown):
    """And nothing else is."""
    options = {"rms_in": 1.0, "activation": "relu"} | options
    rms_in, activation = options.pop("rms_in"), options.pop("activation")
    link = link_of("d", activation, rms_in, 2.0, **options)
    names = ("gain", "weight_variance", "predicted_gain", "backward", "excess")
    assert [n for n in names if math.isnan(getattr(link, n))] == unknown.split()


def test_what_was_not_measured_or_is_no_one_tensor_is_no_input_of_a_link():
    """Two parents, or none; and kernels that were not measured at all."""
    snapshot = network(
        tap("a"), tap("b"), tap("dot", after="a b", **weights(1.0)), tap("c"), tap("head")
    )
    links = depth_profile(snapshot).links
    np.testing.assert_array_equal([links[0].rms_in, links[2].rms_in], [math.nan] * 2)
    links = depth_profile(chain(1, 2)).links
    np.testing.assert_array_equal(
        [(link.kernel_mean, link.kernel_std) for link in links.values()],
        np.full((3, 2), math.nan),
    )
    np.testing.assert_array_equal([link.gain for link in links.values()], [1, 2, 0.5])


def test_the_input_of_a_layer_behind_a_normalization_that_is_not_measured_is_unknown():
    """What its parent puts out is not what it is given."""
    snapshot = network(tap("a", 1e3), tap("b", normalized=True), tap("head"))
    np.testing.assert_array_equal(depth_profile(snapshot).links[1].rms_in, math.nan)


@pytest.mark.parametrize(
    ("behind", "activation", "rms_out"),
    [
        ([], "linear", 1.0),
        ([tap("t", 0.6, "activation", activation="tanh")], "tanh", 0.6),
        (
            [
                norm("n", rms=0.9),
                tap("t", 0.6, "activation", activation="relu"),
                tap("u", 0.2, "activation", activation="tanh"),
            ],
            "relu",
            0.6,
        ),
        ([tap("n", 0.9, "normalization")], "linear", 0.9),
        # Not behind what is no function of single elements, nor where the way parts.
        (
            [tap("p", 0.9, "pooling"), tap("t", 0.6, "activation", activation="relu")],
            *("linear", 1.0),
        ),
        (
            [
                tap("t", 0.6, "activation", activation="relu"),
                tap("u", 0.6, "activation", "b", activation="tanh"),
                tap("m", 0.6, "merge", "t u"),
            ],
            *("linear", 1.0),
        ),
    ],
)
def test_an_activation_layer_behind_belongs_to_the_link(behind, activation, rms_out):
    """Dense and its activation function, or Dense, BatchNormalization and ReLU."""
    snapshot = network(tap("a"), tap("b"), *behind, tap("head"))
    link = depth_profile(snapshot).links[1]
    assert (link.name, link.activation, link.rms_out) == ("b", activation, rms_out)


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
def test_measured_gains_and_gradients_of_random_layers_are_as_predicted(activation):
    """Drawn weights: each gain within chance, a gradient passed back through all."""
    drawn = Drawn(1, inputs=256).chain(6, 256, activation=activation, variance=1.5)
    profile = depth_profile(drawn.snapshot())
    (segment,) = profile.segments
    assert [link.name for link in segment.links] == [f"d{i}" for i in range(1, 7)]
    for link in segment.links:  # sd of ReLU at 256 units is 0.0704: facts/theory.md
        assert abs(math.log(link.gain / link.predicted_gain)) < 4 * 0.0704

    back = drawn.rng.standard_normal((64, 256))
    start = np.sqrt(np.mean(back**2))
    for name in ("d6", "d5", "d4", "d3", "d2"):
        out = drawn.tensors[name]
        slope = {"linear": 1.0, "relu": out > 0, "tanh": 1 - out**2}[activation]
        back = (back * slope) @ drawn.kernels[name].T
    decades = math.log10(np.sqrt(np.mean(back**2)) / start)
    assert abs(segment.backward - decades) < 4 * 0.0704 * math.sqrt(5) / math.log(10)


# -- segments


def stretches_of(snapshot):
    """Of each segment the names of its rows and of its links, and whether it is open."""
    layers = snapshot.layers
    return [
        (
            " ".join(layers[row].name for row in segment.rows),
            " ".join(link.name for link in segment.links),
            segment.open,
        )
        for segment in depth_profile(snapshot).segments
    ]


def test_a_stretch_is_cut_at_normalizations_only():
    """A growth range ends at a sigmoid as well."""
    sizes = [tap("a", 0.01), tap("s", 0.5, activation="sigmoid"), tap("b", 0.3)]
    snapshot = network(*sizes, norm("n"), tap("head"))
    assert stretches_of(snapshot) == [("a s", "a s", False), ("n", "", True)]
    assert segments_of(snapshot) == [("a", False), ("s", False), ("n", True)]
    assert [s.normalized for s in depth_profile(snapshot).segments] == [False, True]


def test_a_normalization_that_is_not_measured_begins_a_stretch():
    """At the layer behind it, which is its first link."""
    snapshot = network(tap("a"), tap("b", normalized=True), tap("c"), tap("head"))
    assert stretches_of(snapshot) == [("a", "a", False), ("b c", "b c", True)]
    assert [s.normalized for s in depth_profile(snapshot).segments] == [False, True]


@pytest.mark.parametrize(
    "before",
    [
        [tap("a"), norm("n")],
        [tap("a"), tap("a2", after=""), tap("both", kind="merge", after="a a2")],
    ],
)
def test_a_stretch_that_begins_behind_a_weight_layer_has_links(before):
    """Each of its weight layers stands on the trunk by itself."""
    snapshot = network(*before, tap("b"), tap("c"), tap("d"), tap("head"))
    (found,) = (s for s in depth_profile(snapshot).segments if len(s.rows) == 4)
    assert [link.name for link in found.links] == ["b", "c", "d"]


def test_a_residual_stream_has_no_links():
    """Its branches are no part of the trunk, and the stem alone is no chain."""
    assert stretches_of(blocks(2, lambda i: 1.0)) == [("stem sum1 sum2", "", True)]


def test_backward_adds_up_from_the_last_layer_to_the_output_of_the_first():
    """The first link's own weights do not count; what is not known leaves nothing."""
    variances = (50.0, 4.0, 0.25, 2.25)
    layers = [tap(f"d{i}", **weights(v)) for i, v in enumerate(variances)]
    profile = depth_profile(network(tap("x", kind="input"), *layers, tap("head")))
    np.testing.assert_allclose(10 ** profile.segments[0].backward, 1.5, rtol=1e-12)
    layers[2] = tap("d2")
    profile = depth_profile(network(tap("x", kind="input"), *layers, tap("head")))
    np.testing.assert_array_equal(profile.segments[0].backward, math.nan)
    (stream,) = depth_profile(blocks(2, lambda i: 1.0)).segments
    np.testing.assert_array_equal(stream.backward, math.nan)


def test_independence_is_the_share_that_differs_from_sample_to_sample():
    """In decades; unknown for one sample, for zeros and for what is not finite."""
    shares = (1.0, 0.5, 1e-3, 1e-9)
    snapshot = network(
        *(tap(f"d{i}", 7.0, within=share) for i, share in enumerate(shares)),
        tap("same", 3.0, within=0.0),
        *(tap("one", samples=1), tap("zero", 0.0), tap("head")),
    )
    (segment,) = depth_profile(snapshot).segments
    expected = [*np.log10(shares), -math.inf, math.nan, math.nan]
    np.testing.assert_allclose(segment.independence, expected, rtol=1e-6)


def test_independence_of_a_tensor_is_that_of_its_elements():
    """Against numpy: std over the batch, averaged over units as squares."""
    tensor = np.random.default_rng(2).standard_normal((32, 8)) * 0.1 + 1.0
    snapshot = network(tap("a", tensor), tap("head"))
    (segment,) = depth_profile(snapshot).segments
    share = np.sqrt(tensor.var(axis=0).mean() / np.mean(tensor**2))
    np.testing.assert_allclose(10 ** segment.independence[0], share, rtol=1e-12)


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
    """A snapshot of nothing but empty records has no growth ranges."""
    profile = depth_profile(network(tap("a", None), tap("b", None), tap("head", None)))
    assert (profile.growth_ranges, profile.main) == ((), None)
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

"""The rules: which findings hand-made profiles give, healthy and sick, and their words."""

import math

import numpy as np
import pytest

from activation_monitor.analysis import moments
from activation_monitor.analysis.diagnosis import (
    CODES,
    THRESHOLDS,
    diagnose,
    new_findings,
    summary,
)
from activation_monitor.analysis.snapshot import History, LayerInfo, Snapshot

EXPLODING = "exploding-activations"
VANISHING = "vanishing-activations"
ZERO = "zero-activations"
NONFINITE = "nonfinite-activations"

NAN, INF = math.nan, math.inf


def network(*taps, step=0, steps=1, width=512, activation="linear"):
    """A snapshot of tensors given as `(name, rms)`, `(name, rms, kind)` or
    `(name, rms, kind, parents)`; by default weight layers, each after the one before.
    A dict at the end holds other fields of the layer.

    An rms that is not finite stands for a tensor of that value and three ones.
    """
    names = [name for name, *_ in taps]
    layers, records = [], []
    for row, (name, rms, *more) in enumerate(taps):
        info = more.pop() if more and isinstance(more[-1], dict) else {}
        kind, after = (*more, "weight")[0], (*more, None, None)[1]
        before = names[row - 1 : row] if after is None else after.split()
        parents = tuple(names.index(parent) for parent in before)
        known = {"activation": activation, "width": width, "dtype": "float16"} | info
        layers.append(LayerInfo(name, "Layer", kind, parents=parents, **known))
        elements = [rms, -rms] if math.isfinite(rms) else [rms, 1.0, 1.0, 1.0]
        records.append(moments.measure(np.array(elements)[:, None]))
    return Snapshot(step, tuple(layers), np.stack(records), steps=steps)


def chain(*sizes, x=1.0, head=None, **options):
    """An input, weight layers d1, d2, ... of these sizes, and a head.

    By default the head has rms 1, or NaN where it is given what is not finite.
    """
    hidden = [(f"d{i + 1}", rms) for i, rms in enumerate(sizes)]
    if head is None:
        head = 1.0 if math.isfinite((x, *sizes)[-1]) else NAN
    return network(("x", x, "input"), *hidden, ("head", head), **options)


def straight(decades, layers=10, **options):
    """A chain whose rms grows evenly by so many decades over so many layers."""
    return chain(*np.logspace(0, decades, layers + 1), **options)


def narrow(decades):
    """50 layers of 32 ReLU units: 49 steps.

    By facts/theory.md section 1 ("Step law") chance alone moves their log10 rms by
    49 * -0.04127010 / ln 10 = -0.878 with sd 7 * 0.2106524 / ln 10 = 0.640: 3 sd reach
    from -2.799 to 1.043.
    """
    return straight(decades, 49, width=32, activation="relu")


def residual(blocks, gain):
    """A residual stream without normalization that grows by `gain` in each block."""
    taps, stream = [("stem", 1.0)], "stem"
    for i in range(blocks):
        taps.append((f"branch{i}", 0.7, "weight", stream))
        taps.append((f"sum{i}", gain ** (i + 1), "merge", f"{stream} branch{i}"))
        stream = f"sum{i}"
    return network(*taps, ("head", 1.0))


def pre_norm(gain):
    """The same with a normalization in each block and one before the head."""
    taps, stream = [("stem", 1.0)], "stem"
    for i in range(10):
        taps.append((f"norm{i}", 1.0, "normalization", stream))
        taps.append((f"branch{i}", 0.7))
        taps.append((f"sum{i}", gain ** (i + 1), "merge", f"{stream} branch{i}"))
        stream = f"sum{i}"
    return network(*taps, ("last_norm", 1.0, "normalization"), ("head", 1.0))


def codes(*snapshots):
    """Codes of all findings of a run."""
    return tuple(finding.code for finding in diagnose(snapshots).findings)


# -- one snapshot

# tanh with sw^2 = 1, layers 1, 2, 3, 10, 20, 50: facts/theory.md "Length-map fixed points".
TANH = (0.627929, 0.486262, 0.408236, 0.228473, 0.160941, 0.101091)

HEALTHY = {
    "flat": straight(0.0),
    "flat for 100 layers": straight(0.0, 100),
    "two layers": chain(1.0),
    "one layer": chain(),
    "growth just below 1 decade": straight(0.999),
    "decay just above 2 decades": straight(-1.999),
    "there and back again": chain(1, 1e3, 1e6, 1e3, 1),
    "down and up": chain(1, 1e-3, 1e-6, 1e-3, 1),
    "input of 0..255": chain(150, 150, 150, x=150),
    "tiny all along": chain(1e-12, 1e-12, 1e-12, x=1e-12),
    "input of 1e-4": chain(1e-4, 1e-4, 1e-4, x=1e-4),
    "input of another size than all else": chain(1, 1, 1, x=1e4),
    "first seen late, grown by learning": straight(1.2, step=300),
    "He ReLU, 100 layers": straight(0.2, 100, activation="relu"),
    "narrow and deep, flat": narrow(0.0),
    "two inputs of other sizes": network(
        ("a", 1e6), ("b", 1e-6, "weight", ""), ("sum", 1.0, "merge", "a b"), ("c", 1.0)
    ),
    "batch normalization after N(0, 1) kernels": network(
        ("a", 30.0), ("n", 1.0, "normalization"), ("b", 1e3), ("m", 1.0, "normalization")
    ),
    "one layer, large outputs": chain(head=1e9),
    "large outputs": straight(0.0, head=1e6),
    "outputs all zero": straight(0.0, head=0.0),
    "tanh decays to its fixed point": chain(*TANH, activation="tanh"),
    "narrow and deep, 1.03 decades are chance": narrow(1.03),
    "narrow and deep, -2.78 decades are chance": narrow(-2.78),
    "residual, 4 blocks times sqrt 1.5": residual(4, math.sqrt(1.5)),
    "residual, a branch of zeros": network(
        ("a", 1.0), ("b", 0.0), ("sum", 1.0, "merge", "a b"), ("head", 1.0)
    ),
    "pre-norm stream that grows": pre_norm(3.0),
    "normalized after it grew": network(
        ("a", 1.0), ("b", 1e3), ("c", 1e6), ("n", 1.0, "normalization"), ("head", 1.0)
    ),
    "pooled to a hundredth": network(
        ("a", 1.0), ("b", 1.0), ("pool", 1e-3, "pooling"), ("head", 1.0)
    ),
    "-inf masked before a softmax": network(
        ("a", 1.0),
        ("b", 1.0),
        ("mask", -INF, "other"),
        ("soft", 0.1, "activation"),
        ("head", 1.0),
    ),
    "a mask of infinities before a softmax": network(
        *(("d1", 1.0), ("mask", INF, "other"), ("softmax", 1.0, "activation")),
        *(("d2", 1.0), ("head", 1.0)),
    ),
    "NaN in two operations, replaced": network(
        *(("d1", 1.0), ("log", NAN, "other"), ("sum", NAN, "other")),
        *(("replaced", 1.0, "other"), ("d2", 1.0), ("head", 1.0)),
    ),
    "NaN in the input, replaced": network(
        *(("x", NAN, "input"), ("replaced", 1.0, "other"), ("d1", 1.0), ("head", 1.0))
    ),
    "NaN in the input, replaced, at step 500": network(
        *(("x", NAN, "input"), ("replaced", 1.0, "other"), ("d1", 1.0), ("head", 1.0)),
        step=500,
    ),
    "NaN in a branch that is left out": network(
        ("a", 1.0), ("b", NAN), ("sum", 1.0, "merge", "a b"), ("head", 1.0)
    ),
    "ReLU then sigmoid from an input of 0.01": network(
        ("x", 0.01, "input"),
        *((f"d{i}", 0.01, {"activation": "relu"}) for i in range(5)),
        *((f"s{i}", 0.5, {"activation": "sigmoid"}) for i in range(2)),
        ("head", 1.0),
    ),
    "ReLU of 0..255, then tanh": network(
        ("x", 150.0, "input"),
        *((f"d{i}", 150.0, {"activation": "relu"}) for i in range(5)),
        ("t0", 0.98, {"activation": "tanh"}),
        ("t1", 0.7, {"activation": "tanh"}),
        ("head", 1.0),
    ),
    "a normalization that was not measured": network(
        ("a", 1.0), ("b", 1e3), ("c", 1.0, {"normalized": True}), ("d", 1.0), ("head", 1.0)
    ),
    "summed over an axis between two weight layers": network(
        ("a", 1.0), ("b", 1.0), ("sum", 100.0, "other"), ("c", 100.0), ("head", 1.0)
    ),
    "averaged over an axis between two weight layers": network(
        ("a", 1.0), ("b", 1.0), ("mean", 1e-3, "other"), ("c", 1e-3), ("head", 1.0)
    ),
    "an unused state of another size": network(
        ("a", 1.0),
        ("b", 1.0),
        ("state", 1e6, "weight", "a"),
        ("c", 1.0, "weight", "b"),
        ("head", 1.0),
    ),
    "first seen at step 11, exploding": straight(3.0, step=11),
    "first seen at step 11, vanishing": straight(-6.0, step=11),
    "first seen at step 11, zero": chain(1, 1, 0, 0, step=11),
    "12 steps at once from step 0, exploding": straight(3.0, steps=12),
}

SICK = {
    "growth just above 1 decade": (straight(1.001), (EXPLODING,)),
    "decay just below 2 decades": (straight(-2.001), (VANISHING,)),
    "growth in one layer": (chain(1, 1, 1, 11, 11), (EXPLODING,)),
    "decay in one layer": (chain(1, 0.009), (VANISHING,)),
    "Glorot ReLU, 0.7 a layer": (straight(15 * math.log10(0.7), 15), (VANISHING,)),
    "weights of std 1, 512 wide": (straight(20 * math.log10(22.6), 20), (EXPLODING,)),
    "narrow and deep, 1.06 decades": (narrow(1.06), (EXPLODING,)),
    "narrow and deep, -2.82 decades": (narrow(-2.82), (VANISHING,)),
    "wide and deep, 1.03 decades": (straight(1.03, 49), (EXPLODING,)),
    "wide and deep, -2.05 decades": (straight(-2.05, 49), (VANISHING,)),
    "residual, 25 blocks times sqrt 1.5": (residual(25, math.sqrt(1.5)), (EXPLODING,)),
    "grows after the last normalization": (
        network(("a", 9.0), ("n", 1.0, "normalization"), ("b", 11.0), ("head", 1.0)),
        (EXPLODING,),
    ),
    "first seen at step 10, exploding": (straight(3.0, step=10), (EXPLODING,)),
    "first seen at step 10, vanishing": (straight(-6.0, step=10), (VANISHING,)),
    "first seen at step 10, zero": (chain(1, 1, 0, 0, step=10), (ZERO,)),
    "11 steps at once from step 0": (straight(3.0, steps=11), (EXPLODING,)),
    "explodes to infinity": (chain(1, 1e10, 1e20, 1e30, INF, NAN, head=NAN), (EXPLODING,)),
    "explodes and is dead from there on": (chain(1, 1e2, 1e4, 0, 0), (EXPLODING,)),
    "vanishes to zero": (chain(1, 1e-10, 1e-20, 1e-30, 0, 0, head=0.0), (VANISHING,)),
    "zero from one layer on": (chain(1, 1, 0, 0, head=0.0), (ZERO,)),
    "zero at one layer": (chain(1, 0, 1, 1), (ZERO,)),
    "zero from the first layer on": (chain(0, 0, 0, head=0.0), (ZERO,)),
    "zero input": (chain(0, 0, 0, x=0.0, head=0.0), (ZERO,)),
    "infinite at one layer": (chain(1, 1, INF, NAN), (NONFINITE,)),
    "NaN from one layer on": (chain(1, 1, NAN, NAN, head=NAN), (NONFINITE,)),
    "NaN in the outputs": (chain(1, 1, 1, head=NAN), (NONFINITE,)),
    "NaN in the input": (chain(NAN, NAN, x=NAN, head=NAN), (NONFINITE,)),
    "NaN in the input at step 500": (chain(NAN, x=NAN, step=500), (NONFINITE,)),
    "NaN beside the trunk": (
        network(("a", 1.0), ("b", NAN), ("sum", NAN, "merge", "a b"), ("head", NAN)),
        (NONFINITE,),
    ),
    "NaN in one of two outputs": (
        network(("a", 1.0), ("b", NAN), ("aux", NAN), ("head", 1.0, "weight", "a")),
        (NONFINITE,),
    ),
    "explodes behind unused states": (
        network(
            ("x", 1.0, "input"),
            *((f"lstm:{i}", 1.0, "weight", "x") for i in range(3)),
            ("d1", 10.0, "weight", "lstm:0"),
            ("d2", 100.0),
            ("head", 1.0),
        ),
        (EXPLODING,),
    ),
    "vanishes behind an auxiliary head": (
        network(
            ("a", 1.0),
            ("b", 0.1),
            ("aux", 1.0),
            ("c", 0.01, "weight", "b"),
            ("d", 0.001),
            ("head", 1.0),
        ),
        (VANISHING,),
    ),
    "explodes on the way to the auxiliary head only": (
        network(
            ("a", 1.0),
            ("aux1", 50.0),
            ("aux2", 1.0),
            ("b", 1.0, "weight", "a"),
            ("c", 1.0),
            ("head", 1.0),
        ),
        (EXPLODING,),
    ),
    "explodes to one end and vanishes to the other": (
        network(
            ("a", 1.0),
            ("up", 50.0),
            ("aux", 1.0),
            ("down", 1e-3, "weight", "a"),
            ("head", 1.0),
        ),
        (EXPLODING, VANISHING),
    ),
    "grows after a sigmoid": (
        network(
            ("a", 1.0), ("s", 0.5, {"activation": "sigmoid"}), ("b", 11.0), ("head", 1.0)
        ),
        (EXPLODING,),
    ),
    "Glorot ReLU in layers of their own": (
        network(
            *(
                tap
                for i in range(16)
                for tap in (
                    (f"d{i}", 0.7**i),
                    (f"r{i}", 0.7 ** (i + 1), "activation", {"activation": "relu"}),
                )
            ),
            ("head", 1.0),
        ),
        (VANISHING,),
    ),
    "too large at once": (chain(1, INF, head=NAN), (NONFINITE,)),
    "zeros, and NaN where they are divided by": (chain(1, 0, NAN), (ZERO, NONFINITE)),
    "vanishes, and then NaN": (chain(1, 1e-5, NAN, NAN), (VANISHING, NONFINITE)),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_network_gets_no_finding(name):
    """Whatever chance, a fixed point, an input or a normalization explains is healthy."""
    diagnosis = diagnose([HEALTHY[name]])
    assert diagnosis.findings == ()
    assert diagnosis.healthy


@pytest.mark.parametrize("name", SICK)
def test_a_sick_network_gets_the_findings_of_its_causes(name):
    """Exactly the codes of the causes, none of their consequences."""
    snapshot, expected = SICK[name]
    assert codes(snapshot) == expected
    assert not diagnose([snapshot]).healthy


def test_half_the_units_dead_is_what_relu_does():
    """A tensor of half zeros is no finding."""
    snapshot = straight(0.0, 3, activation="relu")
    half = moments.measure([[0.0, 2.0**0.5], [2.0**0.5, 0.0]])
    assert moments.STATISTICS["zero_fraction"](half) == 0.5
    assert codes(Snapshot(0, snapshot.layers, np.stack([half] * 6))) == ()


def test_every_code_has_a_network_that_is_told_by_it():
    """No rule stands without a test, and no finding has a code without a meaning."""
    assert {code for _, expected in SICK.values() for code in expected} == set(CODES)


def test_the_thresholds_are_those_the_tables_above_stand_either_side_of():
    """Each threshold with its value; each says its unit and its source."""
    assert {name: threshold.value for name, threshold in THRESHOLDS.items()} == {
        "exploding": 1.0,
        "vanishing": 2.0,
        "critical": 2.0,
        "significance": 3.0,
        "initialization_ends": 10,
    }
    assert all(threshold.unit and threshold.source for threshold in THRESHOLDS.values())


@pytest.mark.parametrize(
    ("snapshot", "severity"),
    [
        (straight(1.001), "warning"),
        (straight(1.999), "warning"),
        (straight(2.001), "critical"),
        (straight(-2.001), "warning"),
        (straight(-3.999), "warning"),
        (straight(-4.001), "critical"),
        (chain(1, 0, 0), "critical"),
        (chain(1, 1, NAN), "critical"),
    ],
)
def test_growth_is_critical_from_twice_its_threshold_on(snapshot, severity):
    """In decades; zeros and NaN are always critical."""
    (finding,) = diagnose([snapshot]).findings
    assert finding.severity == severity


@pytest.mark.parametrize(
    ("snapshot", "layers"),
    [
        (straight(2.0, 2), ("d1", "d2", "d3")),
        (chain(1, 1e10, 1e20, INF, NAN), ("d1", "d2", "d3", "d4", "d5")),
        (chain(1, 1, 0, 0, 0), ("d3",)),
        (chain(1, 1, INF, NAN, NAN), ("d3",)),
        (chain(NAN, NAN, x=NAN), ("x",)),
        # The first that a kernel multiplies, though a later layer makes it finite.
        (chain(1, INF, 1, NAN, NAN), ("d2",)),
        (chain(1, 1, NAN, x=NAN), ("x",)),
        (
            network(
                ("a", 1.0),
                ("b", NAN),
                ("c", NAN, "weight", "a"),
                ("d", 1.0, "merge", "a b"),
            ),
            ("c",),
        ),
        (
            network(("a", 1.0), ("b", NAN), ("sum", NAN, "merge", "a b"), ("head", NAN)),
            ("b",),
        ),
    ],
)
def test_a_finding_names_the_layers_concerned(snapshot, layers):
    """The segment that grows; the first layer with zeros or NaN, be it the input."""
    (finding,) = diagnose([snapshot]).findings
    assert finding.layers == layers


# -- several snapshots


@pytest.mark.parametrize(
    ("snapshots", "expected"),
    [
        # The same again is no news.
        ([straight(0.0, step=s) for s in range(5)], ()),
        ([straight(3.0, step=s) for s in range(5)], ((EXPLODING, 0),)),
        ([straight(-3.0, step=s) for s in range(5)], ((VANISHING, 0),)),
        ([chain(1, 0, step=s) for s in range(5)], ((ZERO, 0),)),
        ([chain(1, NAN, step=s) for s in range(100, 105)], ((NONFINITE, 100),)),
        # Growth is judged where the initialization still shows: at the first snapshot.
        ([straight(0.0), straight(3.0, step=5)], ()),
        ([straight(0.0), straight(-6.0, step=5)], ()),
        ([straight(0.0), chain(1, 1, 0, step=5)], ()),
        ([straight(0.0), straight(3.0, step=500)], ()),
        # NaN may come at any time.
        ([straight(0.0), chain(1, NAN, step=5000)], ((NONFINITE, 5000),)),
        ([straight(-3.0), chain(1, NAN, step=1)], ((VANISHING, 0), (NONFINITE, 1))),
        ([chain(1, 0, 0), chain(1, NAN, step=1)], ((ZERO, 0), (NONFINITE, 1))),
        # Where an explosion ends, or what the first update makes of it.
        ([straight(3.0), chain(1, NAN, NAN, step=1)], ((EXPLODING, 0),)),
        ([straight(3.0), chain(1, INF, step=20)], ((EXPLODING, 0),)),
        ([straight(3.0), chain(1, 0, 0, step=1)], ((EXPLODING, 0),)),
        # Another layer of the same kind is no news either.
        ([chain(1, 1, NAN), chain(1, NAN, NAN, step=1)], ((NONFINITE, 0),)),
    ],
)
@pytest.mark.parametrize("made_as", [list, iter, History])
def test_over_a_run_every_cause_is_found_once_where_it_is_first_seen(
    made_as, snapshots, expected
):
    """From a list, an iterator or a history: codes and steps, in order."""
    diagnosis = diagnose(made_as(snapshots))
    assert tuple((f.code, f.step) for f in diagnosis.findings) == expected
    assert diagnosis.steps == tuple(snapshot.step for snapshot in snapshots)


def test_findings_made_one_snapshot_at_a_time_are_those_of_the_whole_run():
    """What the callback does while training is what `diagnose` does after it."""
    snapshots = [straight(-3.0), straight(-3.0, step=1), chain(1, NAN, step=2)]
    known = ()
    for i, snapshot in enumerate(snapshots):
        known += new_findings(snapshot, known, first=i == 0)
    assert [f.code for f in known] == [VANISHING, NONFINITE]
    assert known == diagnose(snapshots).findings
    assert summary(snapshots, known).findings == known


def test_an_explosion_does_not_explain_nan_in_the_input():
    """A batch with NaN is a cause of its own, whatever the network is like."""
    run = [straight(3.0), chain(NAN, NAN, x=NAN, step=700)]
    assert codes(*run) == (EXPLODING, NONFINITE)


# -- the diagnosis


def test_a_diagnosis_holds_the_first_snapshot_and_its_profile():
    """Figures of the initialization, whatever was seen later."""
    snapshots = [straight(0.5, 5), straight(0.1, 5, step=9)]
    diagnosis = diagnose(snapshots)
    assert diagnosis.first is snapshots[0]
    assert diagnosis.profile.step == 0
    np.testing.assert_allclose(diagnosis.profile.main.decades, 0.5, rtol=1e-12)
    assert diagnosis.steps == (0, 9)


def test_without_measurements_nobody_is_healthy():
    """A diagnosis of nothing has no findings, no profile, and no clean bill of health."""
    diagnosis = diagnose([])
    assert (diagnosis.findings, diagnosis.steps) == ((), ())
    assert diagnosis.first is None and diagnosis.profile is None
    assert not diagnosis.healthy


def test_a_diagnosis_is_shown_by_the_function_it_was_given():
    """`print` shows what that function makes of it; without one, the plain fields."""
    shown = diagnose([straight(0.0)], shown_by=lambda d: f"{len(d.steps)} steps")
    assert str(shown) == "1 steps"
    assert str(diagnose([])) == (
        "Diagnosis(findings=(), first=None, profile=None, steps=())"
    )


# -- the words

HE = (
    "Each layer multiplies the size of the signal by about sqrt(fan_in) times the "
    "standard deviation of its weights (He et al. 2015): look at the kernel initializer "
    "of these layers, whose weights are too "
)

# Width 512: mean -0.00097720 and sd 0.0312805 a step, so that over 1, 2, 3 and 4 layers
# exp(mean -+ 3 sd / sqrt(layers)) is, to three digits:
INTERVALS = {
    1: "0.91 and 1.1",
    2: "0.935 and 1.07",
    3: "0.946 and 1.05",
    4: "0.953 and 1.05",
}


@pytest.mark.parametrize(
    ("snapshot", "message"),
    [
        (
            chain(2, 20, 200, 2000, 20000),
            "from d1 to d5 the rms of the activations grows from 2 to 2e+04: 10 times "
            "per weight layer over 4 layers, where chance leaves a well scaled network "
            f"between {INTERVALS[4]}. {HE}large.",
        ),
        (
            chain(1, 30),
            "from d1 to d2 the rms of the activations grows from 1 to 30: 30 times "
            "per weight layer over 1 layer, where chance leaves a well scaled network "
            f"between {INTERVALS[1]}. {HE}large.",
        ),
        (
            chain(1, 1e10, 1e20, INF, NAN),
            "from d1 to d3 the rms of the activations grows from 1 to 1e+20: 1e+10 times "
            "per weight layer over 2 layers, where chance leaves a well scaled network "
            f"between {INTERVALS[2]}. At d4 the values are no longer finite. {HE}large.",
        ),
        (
            chain(3, 0.6, 0.12, 0.024),
            "from d1 to d4 the rms of the activations falls from 3 to 0.024: 0.2 times "
            "per weight layer over 3 layers, where chance leaves a well scaled network "
            f"between {INTERVALS[3]}. {HE}small.",
        ),
        (
            chain(1, 1e-10, 1e-20, 0, 0),
            "from d1 to d3 the rms of the activations falls from 1 to 1e-20: 1e-10 times "
            "per weight layer over 2 layers, where chance leaves a well scaled network "
            f"between {INTERVALS[2]}. At d4 nothing but zeros is left. {HE}small.",
        ),
        (
            chain(1, 0, 0),
            "all outputs of d2 are zero for every input, so no layer after it sees the "
            "data and no layer before it learns. Look at its kernel initializer, or at "
            "what it is given.",
        ),
        (
            chain(1, 1, NAN, NAN),
            "1 of 4 elements of the output (d3, float16) are NaN or infinite. What it "
            "is computed from has none; what is computed from it inherits them.",
        ),
        (
            chain(NAN, x=NAN),
            "1 of 4 elements of what the model is given (x, float16) are NaN or infinite. "
            "What it is computed from has none; what is computed from it inherits them.",
        ),
    ],
)
def test_a_message_says_what_was_seen_and_what_it_comes_from(snapshot, message):
    """The whole message of each kind of finding, literally."""
    (finding,) = diagnose([snapshot]).findings
    assert finding.message == message


def test_the_intervals_of_the_messages_are_those_of_the_golden_step_law():
    """-0.00097720 and 0.0312805 are from facts/theory.md section 1, for 512 units."""
    for layers, words in INTERVALS.items():
        reach = 3 * 0.0312805 / math.sqrt(layers)
        low, high = (math.exp(-0.00097720 + side * reach) for side in (-1, 1))
        assert words == f"{low:.3g} and {high:.3g}"


@pytest.mark.parametrize(
    ("snapshot", "words"),
    [
        (chain(1, 100, 1e4, 0, 0), "At d4 nothing but zeros is left."),
        (chain(1, 1e-2, 1e-4, NAN), "At d4 the values are no longer finite."),
    ],
)
def test_what_stands_beyond_the_measured_part_is_told_as_it_is(snapshot, words):
    """A signal may explode and then be zero, or vanish and then be NaN."""
    assert words in diagnose([snapshot]).findings[0].message


def test_a_sum_inside_the_model_is_not_what_the_model_is_given():
    """Where `x + f(x)` overflows, the finding does not send people to their data."""
    snapshot = network(
        ("a", 1.0), ("b", 1.0), ("c:input", INF, "input", "a b"), ("c", NAN), ("head", NAN)
    )
    (finding,) = diagnose([snapshot]).findings
    assert finding.layers == ("c:input",)
    assert "what the model is given" not in finding.message


def test_the_evidence_holds_the_numbers_the_rule_turned_on():
    """By name, for each kind of finding."""
    (growth,) = diagnose([chain(2, 20, 200)]).findings
    expected = {
        "growth": 10.0,
        "expected_low": math.exp(-0.00097720 - 3 * 0.0312805 / 2**0.5),
        "expected_high": math.exp(-0.00097720 + 3 * 0.0312805 / 2**0.5),
        "decades": 2.0,
        "layers": 2,
        "first_rms": 2.0,
        "last_rms": 200.0,
    }
    assert [*growth.evidence] == [*expected]
    np.testing.assert_allclose([*growth.evidence.values()], [*expected.values()], rtol=1e-6)
    (zero,) = diagnose([chain(1, 0)]).findings
    assert zero.evidence == {"rms": 0.0}
    (nan,) = diagnose([chain(1, NAN)]).findings
    assert nan.evidence == {"nonfinite": 1.0, "count": 4.0}


def test_a_finding_prints_its_code_severity_and_step_before_its_message():
    """One line for people and for logs; findings can stand in a set."""
    (finding,) = diagnose([chain(1, 1, NAN, step=70)]).findings
    assert str(finding) == (
        "nonfinite-activations (critical, step 70): 1 of 4 elements of the output (d3, "
        "float16) are NaN or infinite. What it is computed from has none; what is "
        "computed from it inherits them."
    )
    assert len({finding, *diagnose([chain(1, 1, NAN, step=70)]).findings}) == 1

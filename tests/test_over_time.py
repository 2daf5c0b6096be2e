"""The rules over time: runs on either side of each limit, and healthy twins."""

import dataclasses
import functools
import math

import numpy as np
import pytest

from activation_monitor.analysis import records, trend
from activation_monitor.analysis.diagnosis import diagnose, summary
from activation_monitor.analysis.flat_loss import flat_since
from activation_monitor.analysis.health import Health, judge, judged
from activation_monitor.analysis.rules.over_time import OVER_TIME, that_may_find
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.analysis.thresholds import limit
from activation_monitor.analysis.window import Window, remembered
from networks import network, tap, weights

STEPS = (0, 1, 2, 5, 10, 20, 50, *range(100, 1700, 100))
"""Those of the default schedule."""

COUNT = 4096
"""Elements of each output."""


def after(step, then, before=1.0):
    """A value that changes at a step."""
    return lambda now: then if now >= step else before


def during(start, end, then, before=1.0):
    """A value that changes at a step, and back at another one."""
    return lambda now: then if start <= now < end else before


def only(step, then, before=1.0):
    """A value that is different in one snapshot."""
    return lambda now: then if now == step else before


def noise(sigma, around=2.3, seed=0):
    """Lognormal noise, the same for a step whatever else is drawn."""
    return lambda now: (
        around * math.exp(sigma * np.random.default_rng((seed, now)).standard_normal())
    )


def falling(now):
    """The loss of a network that learns, down to 0.1."""
    return 0.1 + 2.2 * math.exp(-now / 150)


class Layer(dict):
    """What one layer does over the steps, by name: see `at`."""


DEFAULTS = {
    "loss": 2.3,
    "size": 1.0,
    "x": 1.0,
    "weight": 1.0,
    "ratio": 1e-3,
    "head_ratio": 1e-3,
    "first_ratio": 1e-3,
    "saturated": 0.1,
    "head_saturated": 0.1,
    "within": 0.5,
    "head_within": 0.5,
    "samples": 64,
    "tail": 0.005,
    "gradient_tail": None,
    "activation": "tanh",
    "trainable": True,
    "fan_in": 64,
    "width": 64,
    "weight_gradient": 1e-3,
    "mean": 0.4,
}


def at(step, **given):
    """The snapshot of a step: an input, three bounded layers and a sigmoid head.

    Every argument is a value, or a function of the step.

    Args:
        step: The step.
        loss: The loss.
        size, x: The rms of the second hidden layer and of the input.
        weight: Times by which the weights of the hidden layers are larger than LeCun's.
        ratio, head_ratio, first_ratio: Update-to-weight ratio of the hidden layers but the
            first one, of the head, of the first one.
        saturated, head_saturated: Share of saturated outputs.
        within, head_within: Share of the rms that differs from sample to sample.
        samples: Samples of a batch.
        tail, gradient_tail: Share of the sum of squares that one element has, of the output
            of the second hidden layer and of its gradient.
        activation, trainable, fan_in, width, mean: Of the hidden layers.
        weight_gradient: Rms of the gradients of the weights; None if not measured.
    """
    assert not given.keys() - DEFAULTS.keys()
    now = {
        name: value(step) if callable(value) else value
        for name, value in (DEFAULTS | given).items()
    }
    loss = now.pop("loss")
    return dataclasses.replace(_measured(**now), step=step, loss=loss)


@functools.lru_cache(maxsize=4096)
def _measured(**now):
    """The snapshot of these values, made once."""
    common = {"samples": now["samples"], "mean": now["mean"]}
    kernel = weights(now["weight"] ** 2, fan_in=now["fan_in"] or 64)["kernel"]
    gradient = None if now["gradient_tail"] is None else 1.0
    hidden = [
        tap(
            f"d{i}",
            now["size"] if i == 2 else 1.0,
            activation=now["activation"],
            saturated=now["saturated"],
            within=now["within"],
            kernel=kernel,
            fan_in=now["fan_in"],
            trainable=now["trainable"],
            gradient=gradient,
            width=now["width"],
            **common,
        )
        for i in (1, 2, 3)
    ]
    taps = [
        tap("x", now["x"], "input", samples=now["samples"]),
        *hidden,
        tap(
            "head",
            activation="sigmoid",
            saturated=now["head_saturated"],
            within=now["head_within"],
            kernel=kernel,
            fan_in=now["fan_in"],
            gradient=gradient,
            width=10,
            **common,
        ),
    ]
    made = network(*taps)
    ratios = [now["first_ratio"], now["ratio"], now["ratio"], now["head_ratio"]]
    updates = [records.empty()]
    updates += [records.measure(ratio * kernel) for ratio in ratios]
    quantities = {**made.quantities, "weight_update": np.stack(updates)}
    if now["weight_gradient"] is not None:
        of_each = records.measure(now["weight_gradient"] * np.sign(kernel))
        quantities["weight_gradient"] = np.stack([records.empty(), *[of_each] * 4])
    for of, share in (("output", now["tail"]), ("output_gradient", now["gradient_tail"])):
        if share is None:
            continue
        found = quantities[of]
        scale = COUNT / records.field(found, "count")[1]
        for name in ("count", "counted", "saturated"):
            records.field(found, name)[...] *= scale
        squares = records.field(found, "second_moment")[2]
        records.field(found, "maximum")[2] = math.sqrt(share * COUNT * squares)
    return dataclasses.replace(made, quantities=quantities)


def run(steps=STEPS, **given):
    """The snapshots of a run, see `at`."""
    return [at(step, **given) for step in steps]


def codes(snapshots):
    return [finding.code for finding in diagnose(snapshots).findings]


def growing(now):
    """A steady growth by a factor of 100 over the run."""
    return 100 ** (now / STEPS[-1])


LARGE = {
    "all layers": {"ratio": 0.3, "head_ratio": 0.3, "first_ratio": 0.3},
    "just above the limit": dict.fromkeys(("ratio", "head_ratio", "first_ratio"), 0.11),
    "on average": {"ratio": 0.9, "head_ratio": 0.9, "first_ratio": 0.01},
    "from step 400 on": {
        name: after(400, 0.5, 1e-3) for name in ("ratio", "head_ratio", "first_ratio")
    },
    "the first step, and then the weights are large": {
        **{n: only(0, 0.7, 1e-2) for n in ("ratio", "head_ratio", "first_ratio")},
        "weight": after(20, 3.0),
    },
}
NOT_LARGE = {
    "usual": {},
    "just below the limit": dict.fromkeys(("ratio", "head_ratio", "first_ratio"), 0.09),
    "one layer": {"ratio": 0.9, "head_ratio": 1e-3, "first_ratio": 1e-4},
    "the network learns": {"ratio": 0.3, "head_ratio": 0.3, "loss": falling},
    "one odd step": {n: only(500, 3.0, 1e-3) for n in ("ratio", "head_ratio")},
    "the first steps of Adam": {
        n: lambda now: 1.0 / (1 + now) for n in ("ratio", "head_ratio", "first_ratio")
    },
    "a large first step alone": {
        n: only(0, 0.7, 1e-2) for n in ("ratio", "head_ratio", "first_ratio")
    },
    "frozen layers": {"ratio": 0.9, "first_ratio": 0.9, "trainable": False},
}

SMALL = {
    "all layers": dict.fromkeys(("ratio", "head_ratio", "first_ratio"), 1e-8),
    "just below the limit": dict.fromkeys(("ratio", "head_ratio", "first_ratio"), 9e-6),
    "gradients not measured": {
        **dict.fromkeys(("ratio", "head_ratio", "first_ratio"), 1e-8),
        "weight_gradient": None,
    },
}
NOT_SMALL = {
    "just above the limit": dict.fromkeys(("ratio", "head_ratio", "first_ratio"), 1.1e-5),
    "a schedule that ends at zero": {
        n: lambda now: 1e-3 * (1 - now / 1601) ** 6
        for n in ("ratio", "head_ratio", "first_ratio")
    },
    "zero from step 300 on": {
        n: after(300, 1e-8, 1e-3) for n in ("ratio", "head_ratio", "first_ratio")
    },
    "rises from zero": {
        n: lambda now: 1e-9 * (1 + now) for n in ("ratio", "head_ratio", "first_ratio")
    },
    "no update at all": dict.fromkeys(("ratio", "head_ratio", "first_ratio"), 0.0),
    "no gradients": {
        **dict.fromkeys(("ratio", "head_ratio", "first_ratio"), 1e-8),
        "weight_gradient": 0.0,
    },
    "only the hidden layers": {"ratio": 1e-8, "first_ratio": 1e-8, "head_ratio": 0.01},
}

SCALE_JUMP = {
    "an output": {"size": after(700, 20.0)},
    "just above the limit": {"size": after(700, 5.1)},
    "the weights": {"weight": after(700, 8.0)},
    "the input": {"x": after(700, 50.0)},
    "an output that varies by 10 %": {
        "size": lambda now: noise(0.1, 20.0 if now >= 700 else 1.0)(now)
    },
}
NO_SCALE_JUMP = {
    "just below the limit": {"size": after(700, 4.9)},
    "down": {"size": after(700, 0.01)},
    "one odd batch": {"size": only(700, 50.0)},
    "two odd batches": {"size": during(700, 900, 50.0)},
    "a steady growth": {"size": growing},
    "in the first steps": {"size": after(20, 50.0)},
    "an output that varies by 300 %": {"size": noise(1.1, 1.0)},
    "another one": {"size": noise(1.1, 1.0, seed=1)},
    "the network learns": {"size": after(700, 20.0), "loss": falling},
}

JUMPED = {
    "back to the beginning": {"loss": lambda now: falling(now) + 3.0 * (now >= 900)},
    "far above": {"loss": lambda now: falling(now) + 90.0 * (now >= 900)},
    "just above the limits": {"loss": after(900, 2.3 * 0.52, 0.55)},
    "with noise": {
        "loss": lambda now: noise(0.1, 2.2 if now >= 900 else 0.3)(now) if now else 2.3
    },
}
NOT_JUMPED = {
    "learns": {"loss": falling},
    "just below the first limit": {"loss": after(900, 2.3, 2.3 / 1.9)},
    "just below the second limit": {
        "loss": lambda now: 2.3 if not now else 1.1 if now >= 900 else 0.2
    },
    "one odd batch": {"loss": only(900, 50.0, 2.3)},
    "two odd batches": {"loss": during(900, 1100, 50.0, 2.3)},
    "noise": {"loss": noise(1.0)},
    "more noise": {"loss": noise(2.0)},
    "a lower learning rate": {"loss": after(900, 0.2, 0.9)},
    "rises and falls": {"loss": lambda now: 2.3 + math.sin(now / 300)},
    "negative": {"loss": after(900, -0.1, -3.0)},
    "not measured": {"loss": math.nan},
}

SATURATED = {
    "all layers": {"saturated": after(300, 0.95, 0.1)},
    "just above the limit": {"saturated": after(300, 0.81, 0.1)},
    "from step 50 on": {"saturated": after(50, 0.95, 0.1)},
    "sigmoid": {"saturated": after(300, 0.95, 0.1), "activation": "sigmoid"},
}
NOT_SATURATED = {
    "just below the limit": {"saturated": after(300, 0.79, 0.1)},
    "the head of a classifier": {"head_saturated": after(300, 1.0, 0.1)},
    "not low at first": {"saturated": after(300, 0.95, 0.45)},
    "one odd batch": {"saturated": only(300, 0.95, 0.1)},
    "two": {"saturated": during(300, 500, 0.95, 0.1)},
    "the network learns": {"saturated": after(300, 0.95, 0.1), "loss": falling},
    "not bounded": {"saturated": after(300, 0.95, 0.1), "activation": "linear"},
}

COLLAPSED = {
    "all layers": {"within": after(300, 1e-4, 0.5), "mean": 0.4},
    "just above the limit": {"within": after(300, 0.0048, 0.5)},
    "nothing differs": {"within": after(300, 0.0, 0.5)},
    "negative losses": {
        "within": after(300, 1e-4, 0.5),
        "loss": lambda now: -1.0 + math.exp(-now / 99),
    },
}
NOT_COLLAPSED = {
    "just below the limit": {"within": after(300, 0.0052, 0.5)},
    "the output of a regression": {"head_within": after(300, 1e-4, 0.5)},
    "one odd batch": {"within": only(300, 1e-4, 0.5)},
    "the network learns": {"within": after(300, 1e-4, 0.5), "loss": falling},
    "batches of one sample": {"within": after(300, 0.0, 0.5), "samples": after(300, 1, 64)},
    "small from the beginning on": {"within": 1e-3},
}

GROWING = {
    "a hundredfold": {"weight": growing},
    "a thousandfold": {"weight": lambda now: growing(now) ** 1.5},
}
NOT_GROWING = {
    "ninefold": {"weight": lambda now: min(growing(now), 9.0)},
    "fivefold": {"weight": lambda now: 5 ** (now / 1600)},
    "from very small ones": {"weight": lambda now: 0.01 * growing(now)},
    "the network learns": {"weight": growing, "loss": falling},
    "fan-in not known": {"weight": growing, "fan_in": 0},
}

HEAVY = {
    "an output": {"tail": lambda now: 0.005 + 0.9 * now / 1600},
    "a gradient": {"gradient_tail": lambda now: 0.005 + 0.9 * now / 1600},
}
NOT_HEAVY = {
    "no longer growing": {"tail": lambda now: 0.5 * (-1) ** (now // 100) * 0.1 + 0.4},
    "just below the limit": {"tail": lambda now: 0.005 + 0.19 * now / 1600},
    "few samples": {"tail": lambda now: 0.005 + 0.4 * now / 1600, "samples": 8},
    "the network learns": {"tail": lambda now: 0.005 + 0.9 * now / 1600, "loss": falling},
    "one odd batch": {"tail": only(900, 0.9, 0.005)},
    "heavy at first": {"tail": lambda now: 0.1 + 0.8 * now / 1600},
}

TABLES = {
    "large-updates": (LARGE, NOT_LARGE),
    "small-updates": (SMALL, NOT_SMALL),
    "scale-jump": (SCALE_JUMP, NO_SCALE_JUMP),
    "loss-jump": (JUMPED, NOT_JUMPED),
    "growing-weights": (GROWING, NOT_GROWING),
    "heavy-tail": (HEAVY, NOT_HEAVY),
}
ALSO = {
    "saturated-activations": (SATURATED, NOT_SATURATED),
    "collapsed-activations": (COLLAPSED, NOT_COLLAPSED),
}


def cases(healthy):
    return [
        pytest.param(code, given, id=f"{code}: {name}")
        for code, tables in (TABLES | ALSO).items()
        for name, given in tables[healthy].items()
    ]


# -- the rules


@pytest.mark.parametrize(("code", "given"), cases(healthy=False))
def test_what_comes_up_in_training_is_found(code, given):
    """One cause gives one finding, which is never of the initialization."""
    (finding,) = diagnose(run(**given)).findings
    assert finding.code == code
    assert not finding.initial and finding.fix.cause != "initializer"
    assert finding.when.startswith("in training, steps ") or finding.step == 0
    assert finding.last_step == STEPS[-1] and finding.recovered is None
    assert finding.layers and set(finding.layers) <= {"x", "d1", "d2", "d3", "head"}
    assert "nan" not in str(finding).lower()


@pytest.mark.parametrize(("code", "given"), cases(healthy=True))
def test_a_healthy_run_has_no_finding(code, given):
    """The twin of each failure."""
    del code
    assert codes(run(**given)) == []


def test_each_rule_over_time_is_in_the_tables():
    """And each has as many healthy runs as sick ones."""
    assert (TABLES | ALSO).keys() == {row.code for row in OVER_TIME}
    for sick, healthy in (TABLES | ALSO).values():
        assert len(healthy) >= len(sick)


DENSE = {
    "noise of an output": NO_SCALE_JUMP["an output that varies by 300 %"],
    "noise of the loss": NOT_JUMPED["noise"],
    "the first steps of Adam": NOT_LARGE["the first steps of Adam"],
    "rises from zero": NOT_SMALL["rises from zero"],
    "learns": {"loss": falling, "saturated": after(40, 0.95, 0.1)},
    "learns slowly": {
        "loss": lambda now: 2.3 - 0.0006 * now,
        "saturated": after(300, 0.95, 0.1),
    },
}


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("steps", [range(200), range(0, 2000, 25)], ids=["1", "25"])
def test_a_healthy_run_has_no_finding_however_densely_it_is_sampled(name, steps):
    """Every step, or every 25."""
    assert codes(run(steps, **DENSE[name])) == []


def test_densely_sampled_steps_are_no_long_time():
    """A condition over six successive steps is not found; over 30 steps it is."""
    saturated = {"saturated": during(60, 66, 0.95, 0.1)}
    assert codes(run(range(120), **saturated)) == []
    saturated = {"saturated": during(60, 90, 0.95, 0.1)}
    assert codes(run(range(120), **saturated)) == ["saturated-activations"]


# -- what a finding says


def test_updates_that_are_too_large_come_with_the_factor():
    """The geometric mean over the layers, as numpy computes it."""
    given = {"ratio": 0.9, "head_ratio": 0.4, "first_ratio": 0.05}
    (finding,) = diagnose(run(**given)).findings
    mean = np.exp(np.mean(np.log([0.05, 0.9, 0.9, 0.4])))
    np.testing.assert_allclose(finding.evidence["update_ratio"], mean, rtol=1e-12)
    assert finding.layers == ("d2", "d3", "head")
    assert finding.severity == "critical" and finding.fix.cause == "learning rate"
    assert finding.fix.changes[0].why == f"about {1e-3 / mean:.1g} times the present one"


def test_updates_that_are_too_small_come_with_the_factor():
    """A thousand times a millionth is a thousandth."""
    given = dict.fromkeys(("ratio", "head_ratio", "first_ratio"), 1e-8)
    (finding,) = diagnose(run(**given)).findings
    assert finding.fix.changes[0].why == "about 1e+05 times the present one"
    assert (finding.step, finding.last_step) == (0, 1600)


def test_a_jump_of_the_loss_names_the_steps_between_which_it_is():
    """With the medians before and after it."""
    loss = after(900, 4.0, 1.0)
    health, reported = Health(), []
    for snapshot in run(loss=loss):
        health, news = judge(health, snapshot)
        reported += [(snapshot.step, finding.code) for finding in news]
    (finding,) = health.findings
    assert reported == [(1100, "loss-jump")]  # the third snapshot of it
    assert (finding.step, finding.severity, finding.layers) == (900, "critical", ("head",))
    np.testing.assert_allclose(
        [finding.evidence[name] for name in ("before", "after", "first")], [1, 4, 1]
    )
    assert "to 4 times its size between the steps 800 and 900, from 1 to 4" in (
        finding.message
    )


@pytest.mark.parametrize(
    ("given", "layers", "words", "cause"),
    [
        ({"x": after(700, 50.0)}, ("x",), "The rms of the input of the model", "data"),
        (
            {"size": after(700, 50.0)},
            ("d2",),
            "The rms of the outputs of d2",
            "data or learning rate",
        ),
        (
            {"weight": after(700, 8.0), "ratio": 0.09},
            ("d1", "d2", "d3", "head"),
            "The rms of the weights of d1",
            "learning rate",
        ),
    ],
)
def test_a_jump_of_scale_names_the_first_layer_and_its_cause(given, layers, words, cause):
    """In the order of the data path."""
    given = {"head_ratio": 0.09, "first_ratio": 0.09} | given if "ratio" in given else given
    (finding,) = diagnose(run(**given)).findings
    assert finding.layers == layers and finding.step == 700
    assert words in finding.message and finding.fix.cause == cause


def test_a_gradual_rise_of_the_loss_is_a_jump_as_well():
    """It is as lost as after a sudden one."""

    def loss(now):
        return 1.0 if now < 800 else min(1.0 + (now - 700) / 100, 6.0)

    (finding,) = diagnose(run(loss=loss)).findings
    assert finding.code == "loss-jump"


def test_what_follows_from_large_steps_is_explained_by_them():
    """Saturation, collapse and a jump of the loss, with or without a later cause."""
    large = {name: 0.5 for name in ("ratio", "head_ratio", "first_ratio")}
    sick = {
        "saturated": after(300, 0.95, 0.1),
        "within": after(300, 1e-5, 0.5),
        "loss": after(900, 9.0, 2.3),
    }
    (finding,) = diagnose(run(**large, **sick)).findings
    assert finding.code == "large-updates"
    assert "it has led to saturated-activations" in finding.message
    # Seen before its cause, it is the same finding, with the factor of the cause.
    late = {name: after(900, 0.5, 1e-3) for name in large}
    (finding,) = diagnose(run(**late, **sick)).findings
    assert finding.code == "saturated-activations" and finding.severity == "critical"
    assert "it comes with large-updates" in finding.message
    assert "about 0.002 times the present one" in str(finding.fix)


def test_a_fault_of_the_beginning_explains_what_comes_of_it():
    """A signal that vanishes from the start: it is not a second finding that all inputs
    come to give the same."""
    first = run(size=1e-3)[0]
    sick = [first, *run(within=after(300, 1e-5, 0.5))[1:]]
    before = codes([first])
    if before:
        assert codes(sick) == before


def test_nan_after_a_jump_is_no_finding_of_its_own():
    """It makes the first one critical."""
    snapshots = run(loss=after(900, 2.2, 1.0))
    last = dataclasses.replace(snapshots[-1], step=1700)
    broken = last.records().copy()
    records.field(broken, "nonfinite")[1:] = 3
    last = dataclasses.replace(last, quantities={**last.quantities, "output": broken})
    (finding,) = diagnose([*snapshots, last]).findings
    assert (finding.code, finding.severity) == ("loss-jump", "critical")
    assert (
        "At step 1700 it has led to nonfinite-activations, first in d1" in finding.message
    )


# -- a finding ends


def test_a_finding_that_is_no_longer_seen_has_recovered():
    """Three snapshots later, from the first of them on."""
    snapshots = run(saturated=during(300, 600, 0.95, 0.1))
    states = [
        [finding.when for finding in judged(snapshots[:n]).findings]
        for n in range(1, len(snapshots) + 1)
    ]
    by_step = dict(zip(STEPS, states, strict=True))
    assert by_step[400] == []
    assert by_step[500] == ["in training, steps 300 to 500"]
    assert by_step[700] == by_step[500]
    assert by_step[800] == ["in training, steps 300 to 500, recovered at step 600"]
    assert by_step[1600] == by_step[800]
    (finding,) = judged(snapshots).findings
    assert finding.recovered == finding.to_dict()["recovered"] == 600
    assert finding.title == (
        "saturated-activations (warning, in training, steps 300 to 500, recovered at step "
        "600)"
    )


def test_a_finding_that_comes_back_is_open_again_and_reported_again():
    """Its end is not."""

    def saturated(now):
        return 0.95 if 300 <= now < 600 or now >= 1200 else 0.1

    health, reported = Health(), []
    for snapshot in run(saturated=saturated):
        health, news = judge(health, snapshot)
        reported += [(snapshot.step, one.code, one.recovered) for one in news]
    (finding,) = health.findings
    assert finding.when == "in training, steps 300 to 1600"
    assert reported == [
        (500, "saturated-activations", None),
        (1400, "saturated-activations", None),
    ]


def test_a_jump_has_recovered_when_the_level_is_back():
    """Not when the new level has filled the window."""
    (still,) = diagnose(run(range(0, 6000, 100), loss=after(900, 4.0, 1.0))).findings
    assert still.recovered is None and still.last_step == 5900
    back = run(range(0, 6000, 100), loss=during(900, 4000, 4.0, 1.0))
    (over,) = diagnose(back).findings
    assert (over.step, over.last_step, over.recovered) == (900, 3900, 4000)
    sizes = run(range(0, 6000, 100), size=during(900, 4000, 20.0))
    (over,) = diagnose(sizes).findings
    assert (over.code, over.recovered) == ("scale-jump", 4000)


def test_a_learning_rate_that_is_raised_ends_small_updates():
    """Although they were there from the first snapshot on."""
    small = {n: after(900, 1e-3, 1e-8) for n in ("ratio", "head_ratio", "first_ratio")}
    (finding,) = diagnose(run(**small)).findings
    assert finding.when == "in training, steps 0 to 800, recovered at step 900"


def test_one_snapshot_without_it_ends_no_finding():
    """Nor two."""

    def saturated(now):
        return 0.95 if now >= 300 and now not in (800, 900) else 0.1

    (finding,) = diagnose(run(saturated=saturated)).findings
    assert finding.recovered is None and finding.last_step == 1600


def test_a_finding_of_the_initialization_does_not_end():
    """Its rule is not applied again."""
    snapshots = [at(0, saturated=0.95), *run(saturated=0.1)[1:]]
    (finding,) = diagnose(snapshots).findings
    assert finding.code == "saturated-activations" and finding.initial
    assert finding.recovered is None
    assert finding.when == "at initialization"


# -- what is remembered


def test_the_window_holds_the_last_snapshots_that_are_far_enough_apart():
    """The newest one in any case; all but it by 10 steps at least."""
    window = ()
    for step in range(400):
        window = remembered(window, at(step))
        kept = [one.step for one in window]
        assert kept[-1] == step and len(kept) <= limit("window")
        assert all(np.diff(kept[:-1]) >= limit("window-spacing"))
    assert kept == [*range(250, 400, 10), 399]


def test_the_window_starts_again_where_the_steps_do():
    """A new optimizer counts from 0; the run before it explains nothing."""
    health = judged([*run(range(0, 500, 100)), at(0, loss=0.5)])
    assert [one.step for one in health.window] == [0]
    assert health.first.loss == 0.5


def test_only_snapshots_of_the_same_layers_are_compared():
    """Two models take turns: a change from one to the other is no jump."""
    one, other = run(loss=2.3), run(loss=9.0, saturated=0.3, size=99.0)
    renamed = [
        dataclasses.replace(
            snapshot,
            step=snapshot.step + 3,
            layers=tuple(
                dataclasses.replace(layer, name=f"b_{layer.name}")
                for layer in snapshot.layers
            ),
        )
        for snapshot in other
        if snapshot.step > 10
    ]
    mixed = sorted([*one, *renamed], key=lambda snapshot: snapshot.step)
    assert codes(mixed) == []
    window = judged(mixed).window
    seen = Window(window, one[0], {})
    assert {snapshot.names[1] for snapshot in seen.snapshots} == {"b_d1"}
    assert len(seen.snapshots) < len(window) and seen.first is None


def test_evaluations_are_not_remembered():
    """They are not steps of training."""
    snapshots = run()
    mixed = [
        one
        for snapshot in snapshots
        for one in (snapshot, dataclasses.replace(snapshot, evaluation=True))
    ]
    assert judged(mixed).window == judged(snapshots).window


@pytest.mark.parametrize("code", TABLES | ALSO)
def test_live_and_read_again_the_findings_are_the_same(code):
    """A recording keeps few snapshots; the log has all of them."""
    given = next(iter((TABLES | ALSO)[code][0].values()))
    thinned, live = Recording(keep=20), Health()
    snapshots = run(range(0, 1600, 20), **given)
    for snapshot in snapshots:
        thinned.append(snapshot)
        live, _ = judge(live, snapshot)
    again = [dataclasses.replace(one, layers=(*one.layers,)) for one in snapshots]
    assert summary(thinned, live.findings).findings == diagnose(again).findings
    assert [finding.code for finding in live.findings] == [code]
    assert len(thinned) <= 20


@pytest.mark.parametrize("row", OVER_TIME, ids=lambda row: row.code)
def test_a_screen_never_passes_over_what_its_rule_would_find(row):
    """And it passes over something."""
    from activation_monitor.analysis.depth_profile import depth_profile

    asked = []
    for tables in (TABLES | ALSO).values():
        for given in (*tables[0].values(), *tables[1].values()):
            health = judged(run(STEPS[:-3], **given))
            known = {one.code: one for one in health.findings}
            last = remembered(health.window, at(STEPS[-3], **given))
            window = Window(last, health.first, known)
            if not window.lasting or window.learns:
                assert that_may_find(window) == []
                continue
            found = [*row.rule(window, depth_profile(window.newest))]
            asked.append((bool(found), row.may_find(window)))
    assert any(found for found, _ in asked)
    assert not all(may for _, may in asked)
    assert all(may for found, may in asked if found)


# -- a loss that does not fall


@pytest.mark.parametrize(
    ("loss", "since"),
    [
        (lambda now: 2.3, 0),
        (noise(0.02), 0),
        (noise(0.3), 0),
        (lambda now: 2.3 + 0.001 * now, 0),
        (lambda now: 2.3 - 0.5 * min(now, 500) / 500, 500),
    ],
)
def test_a_loss_that_does_not_fall_is_a_note(loss, since):
    """Not a finding: the network stays healthy."""
    diagnosis = diagnose(run(range(0, 3000, 50), loss=loss))
    assert diagnosis.healthy
    assert abs(diagnosis.flat_since - since) <= 400
    assert diagnosis.note.startswith(
        f"The loss has not fallen since step {diagnosis.flat_since}, and no fault was found"
        " in the signal (activations and updates)."
    )


@pytest.mark.parametrize(
    "loss",
    [
        falling,
        lambda now: 2.3 - 0.0005 * now,
        lambda now: noise(0.1, 2.3 - 0.0005 * now)(now),
        lambda now: 2.3 if not now else 0.9,  # has learned all that there is
        math.nan,
        lambda now: -0.001 * now,
    ],
)
def test_a_loss_that_falls_or_has_fallen_is_none(loss):
    """Nor one that was not measured."""
    diagnosis = diagnose(run(range(0, 3000, 50), loss=loss))
    assert diagnosis.healthy and diagnosis.note == "" and diagnosis.flat_since is None


def test_a_short_run_and_a_run_with_findings_have_no_note():
    """The finding says what is wrong."""
    assert flat_since(run(range(0, 150, 10))) is None
    assert flat_since(run(range(0, 700, 100))) is None
    diagnosis = diagnose(run(saturated=after(300, 0.95, 0.1)))
    assert diagnosis.findings and diagnosis.note == ""


# -- robust statistics


def test_the_robust_spread_is_the_standard_deviation_of_normal_values():
    """And three odd values of a hundred do not matter."""
    values = np.random.default_rng(0).standard_normal(100_000) * 3
    np.testing.assert_allclose(trend.spread(values), 3.0, rtol=0.02)
    odd = np.concatenate([values[:97], [1e9] * 3])
    np.testing.assert_allclose(trend.spread(odd), 3.0, rtol=0.3)


def test_the_share_of_rising_pairs_is_that_of_kendalls_tau():
    """As scipy computes it."""
    from scipy import stats

    rng = np.random.default_rng(0)
    values = rng.standard_normal((16, 5)).cumsum(axis=0)
    for column, share in zip(values.T, trend.rising(values), strict=True):
        tau = stats.kendalltau(np.arange(16), column).statistic
        np.testing.assert_allclose(share, (tau + 1) / 2, rtol=1e-12)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0])
def test_noise_around_one_level_hardly_ever_looks_like_a_jump(sigma):
    """The loss of a run of 50,000 steps that learns nothing."""
    rng = np.random.default_rng(1)
    logs = np.log10(2.3) + sigma * rng.standard_normal(500) / math.log(10)
    rule = (math.log10(2), limit("jump-spread"), (4, 8), 3)
    jumps = [trend.jump(logs[i : i + 16], *rule) for i in range(len(logs) - 16)]
    assert all(one is None for one in jumps)
    shifted = logs[:16] + np.where(np.arange(16) < 9, 0.0, 10 * sigma)
    found = trend.jump(shifted, *rule)
    assert found is not None and found.row == 9
    np.testing.assert_allclose(found.before, np.median(shifted[1:9]), rtol=1e-12)


def test_a_trend_is_no_noise_and_hides_no_jump():
    """A loss that falls to a tenth, and then is back."""
    logs = np.array([*np.linspace(0, -1, 10), *[0.1] * 4])
    assert trend.jump(logs, 0.3, 8, (4, 8), 3).row == 10
    assert trend.jump(logs[:12], 0.3, 8, (4, 8), 3) is None  # not for long enough
    assert trend.jump(np.where(logs == logs[5], np.nan, logs), 0.3, 8, (4, 8), 3) is None

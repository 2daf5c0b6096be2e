"""What is remembered of a run: findings grow, and every way of judging agrees."""

import dataclasses
import math

import numpy as np
import pytest

from activation_monitor.analysis import records
from activation_monitor.analysis.diagnosis import diagnose, summary
from activation_monitor.analysis.health import Health, judge, judged
from activation_monitor.analysis.snapshot import Recording
from networks import chain, network, norm, straight, tap

DEAD = "dead-units"


def rectified(step, *dead):
    """Twelve ReLU layers of 100 units at a step, with so many dead units from the first."""
    counts = (*dead, *[0] * (12 - len(dead)))
    taps = [
        tap(f"d{i}", activation="relu", width=100, samples=64, dead=count)
        for i, count in enumerate(counts, 1)
    ]
    return network(*taps, tap("head"), step=step)


def folded(*snapshots):
    """What is known at the end, and what is reported at each snapshot."""
    health, reported = Health(), []
    for snapshot in snapshots:
        health, news = judge(health, snapshot)
        reported.append(news)
    return health, reported


# -- a finding grows


def test_layers_join_a_finding_and_its_last_step_moves_on():
    """From one layer at step 5 to six of twelve at step 360."""
    health, _ = folded(
        rectified(0),
        rectified(5, 95),
        rectified(100, 95, 0, 92),
        rectified(360, 95, 91, 92, 93, 94, 99),
    )
    (finding,) = health.findings
    assert finding.layers == ("d1", "d2", "d3", "d4", "d5", "d6")
    assert (finding.step, finding.last_step) == (5, 360)
    assert finding.title == "dead-units (critical, in training, steps 5 to 360)"
    assert "In 6 of 12 ReLU layers more than 90% of the units" in finding.message
    assert "95 of 100 units of d1" in finding.message
    np.testing.assert_allclose(
        [finding.evidence[name] for name in ("layers", "relu_layers", "dead_fraction")],
        [6, 12, 0.99],
    )
    assert finding.fix.changes[-1].layers == finding.layers


def test_a_layer_that_has_recovered_stays_in_the_finding():
    """It was concerned; the last step is that at which the finding was last seen."""
    health, _ = folded(
        rectified(0), rectified(5, 95, 95), rectified(9, 0, 95), rectified(20)
    )
    (finding,) = health.findings
    assert finding.layers == ("d1", "d2")
    assert (finding.step, finding.last_step) == (5, 9)


def test_units_that_come_back_end_the_finding():
    """After three snapshots without dead units; the finding stays, and says so."""
    run = [rectified(0), rectified(5, 95), *(rectified(s) for s in (20, 50))]
    (finding,) = folded(*run)[0].findings
    assert finding.recovered is None
    (finding,) = folded(*run, rectified(100))[0].findings
    assert finding.recovered == 20 and finding.last_step is None
    assert finding.when == "in training, step 5, recovered at step 20"
    health, reported = folded(*run, rectified(100), rectified(200, 0, 95))
    assert health.findings[0].when == "in training, steps 5 to 200"
    assert health.findings[0].layers == ("d1", "d2")
    assert [len(news) for news in reported] == [0, 1, 0, 0, 0, 1]


def test_a_finding_is_reported_again_when_it_gets_worse_or_twice_as_large():
    """Not at each step, nor for each layer that joins."""
    health, reported = folded(
        rectified(0),
        rectified(1, 95),
        rectified(2, 95),
        rectified(3, 95, 95),  # twice as many
        rectified(4, 95, 95, 95),
        rectified(5, 95, 95, 95, 95),  # and again
        rectified(6, 95, 95, 95, 95, 95),
        rectified(7, *[95] * 6),  # critical: half of them
        rectified(8, *[95] * 6),
    )
    assert [len(news) for news in reported] == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    severities = [news[0].severity for news in reported if news]
    assert severities == ["warning", "warning", "warning", "critical"]
    assert reported[-2][0].layers == health.findings[0].layers


def test_nan_stays_with_the_layer_where_it_began():
    """A step later all weights are NaN, and so is every layer."""
    health, reported = folded(
        straight(0.0), chain(1, 1, math.nan, step=4), chain(*[math.nan] * 3, step=5)
    )
    (finding,) = health.findings
    assert finding.layers == ("d3",)
    assert (finding.step, finding.last_step) == (4, 5)
    assert [len(news) for news in reported] == [0, 1, 0]


def test_units_that_were_dead_at_initialization_keep_their_cause():
    """Training did not cause them; the finding says until when they were seen."""
    health, _ = folded(rectified(0, 95), rectified(50, 95, 95, 95))
    (finding,) = health.findings
    first = folded(rectified(0, 95))[0].findings[0]
    assert finding.initial and finding.fix == first.fix
    assert finding.when == "at initialization and up to step 50"
    assert finding.layers == ("d1", "d2", "d3")


# -- what comes of a finding


@pytest.mark.parametrize(
    "first",
    [
        chain(99.0, 99.0, x=99.0),  # unscaled-input
        chain(1, 1, 50, 50, 50),  # outlier-gain
    ],
)
def test_nan_in_training_makes_the_finding_that_explains_it_worse(first):
    """One cause gives one finding; it says what it has led to, and is reported again."""
    layers = first.names
    found = first.records().copy()
    found[1:] = records.measure(np.array([[1.0, math.nan]]))  # but for the input
    later = dataclasses.replace(
        first, quantities=first.quantities | {"output": found}, step=20
    )
    health, reported = folded(first, dataclasses.replace(first, step=1), later, later)
    (finding,) = health.findings
    assert [len(news) for news in reported] == [1, 0, 1, 0]
    assert (reported[0][0].severity, finding.severity) == ("warning", "critical")
    assert f"At step 20 it has led to nonfinite-activations, first in {layers[1]}." in (
        finding.message
    )
    assert finding.message.count("nonfinite-activations") == 1
    assert finding.when == "at initialization and up to step 20"


# -- every way of judging agrees


def test_a_thinned_recording_and_its_full_log_give_the_same_findings():
    """Live, each snapshot is judged when it is taken; later all are read again."""
    rng = np.random.default_rng(0)
    run = [rectified(0)]
    for step in range(1, 400):
        spread = int(12 * step / 400)
        run.append(rectified(step, *rng.integers(85, 100, spread)))
    thinned, live = Recording(keep=20), Health()
    for snapshot in run:
        thinned.append(snapshot)
        live, _ = judge(live, snapshot)
    assert len(thinned) <= 20
    from_live = summary(thinned, live.findings)
    from_log = diagnose(run)
    assert from_live.findings == from_log.findings == judged(run).findings
    assert (from_live.verdict, from_live.worst_layer) == (
        from_log.verdict,
        from_log.worst_layer,
    )
    (finding,) = live.findings
    assert finding.last_step == 399 and len(finding.layers) > 6
    # The check can fail: the thinned recording alone has lost some of it.
    assert diagnose(thinned).findings != live.findings


@pytest.mark.parametrize(
    "snapshot",
    [rectified(5, *[100] * 12), straight(9.0), chain(1, math.nan), chain(1, 0.0, 0.0)],
)
def test_an_evaluation_without_training_is_not_judged(snapshot):
    """Whatever it shows; the same in training is found."""
    assert diagnose([snapshot]).verdict == "findings"
    diagnosis = diagnose([dataclasses.replace(snapshot, evaluation=True)])
    assert diagnosis.findings == ()
    assert diagnosis.verdict == "not assessed"
    assert "only compared with those of training" in diagnosis.not_assessed


# -- what could be assessed


def changed(snapshot, *names):
    """The same, with layers whose weights have left their initial values."""
    layers = tuple(
        dataclasses.replace(layer, changed=layer.name in names) for layer in snapshot.layers
    )
    return dataclasses.replace(snapshot, layers=layers)


@pytest.mark.parametrize(
    ("snapshots", "verdict", "words"),
    [
        ([straight(0.0)], "healthy", ""),
        ([straight(0.0), straight(9.0, step=500)], "healthy", ""),
        (
            [network(tap("a", 30.0), norm("n"), tap("b", 9.0), norm("m"), tap("c"))],
            "healthy",
            "",
        ),
        ([straight(0.0, step=10)], "healthy", ""),
        ([straight(0.0, step=11)], "not assessed", "first snapshot is from step 11"),
        ([chain(1.0, 1.0)], "healthy", ""),
        ([chain(1.0)], "not assessed", "this needs two weight layers in a row"),
        ([chain()], "not assessed", "this needs two weight layers in a row"),
        ([], "not assessed", "Nothing has been measured"),
        (
            [network(tap("a"), tap("b", 1e-6), tap("c", 1e-6), norm("n"), tap("d"))],
            "not assessed",
            "this needs two weight layers in a row",
        ),
        ([changed(straight(0.0), "d2")], "not assessed", "weights of d2 have changed"),
        ([changed(straight(0.0), "head")], "healthy", ""),
        ([straight(3.0)], "findings", ""),
    ],
)
def test_the_verdict_is_one_of_three(snapshots, verdict, words):
    """Without findings it is healthy only where growth with depth could be judged."""
    diagnosis = diagnose(snapshots)
    assert diagnosis.verdict == verdict
    assert diagnosis.healthy == (verdict == "healthy")
    assert words in diagnosis.not_assessed
    assert bool(diagnosis.not_assessed) == (verdict == "not assessed")


def test_weights_that_have_changed_are_not_called_a_bad_initialization():
    """Their growth may come from learning; zeros and NaN are found all the same."""
    names = tuple(f"d{i}" for i in range(1, 11))
    assert [f.code for f in diagnose([straight(4.0)]).findings] == ["exploding-activations"]
    assert diagnose([changed(straight(4.0), *names)]).findings == ()
    (zeros,) = diagnose([changed(chain(1, 0, 0), "d1", "d2", "d3")]).findings
    assert (zeros.code, zeros.when) == ("zero-activations", "at step 0")
    (nan,) = diagnose([changed(chain(1, math.nan), "d1")]).findings
    assert nan.code == "nonfinite-activations" and not nan.initial

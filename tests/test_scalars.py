"""The numbers of curves: of each layer, and of a whole network."""

import dataclasses
import math

import numpy as np
import pytest

from activation_monitor.analysis import scalars
from activation_monitor.analysis.diagnosis import diagnose
from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.snapshot import Snapshot
from networks import chain, network, tap, updated


def of(snapshot, name, findings=()):
    return scalars.of_network(snapshot, findings)[name]


def test_growth_is_that_of_a_chain_with_a_known_rate():
    """Each layer multiplies the signal by 1.3; a chain that keeps its size has 1."""
    grows = chain(*(1.3 ** np.arange(12)), head=1.3**11)
    np.testing.assert_allclose(of(grows, "growth"), 1.3, rtol=1e-12)
    np.testing.assert_allclose(of(chain(*[1.0] * 12), "growth"), 1.0, rtol=1e-12)


def test_growth_is_nan_where_it_cannot_be_read():
    """One weight layer has no growth; nothing else is missing because of that."""
    one = network(tap("x", kind="input"), tap("head", 2.0))
    assert math.isnan(of(one, "growth"))
    assert of(one, "activation_rms_max") == 2.0


def test_extremes_are_those_of_the_layers_and_not_of_the_input():
    """Smallest and largest rms of outputs and gradients, without layers that have NaN."""
    taps = [
        tap("x", 1000.0, "input", gradient=1e9),
        tap("a", 0.25, gradient=3e-4),
        tap("b", 8.0, gradient=7e-2),
        tap("c", np.array([[math.nan], [1e4]]), gradient=np.array([[math.inf], [1e-9]])),
    ]
    numbers = scalars.of_network(network(*taps), ())
    for name, (smallest, largest) in {
        "activation": (0.25, 8.0),
        "gradient": (3e-4, 7e-2),
    }.items():
        np.testing.assert_allclose(numbers[f"{name}_rms_min"], smallest)
        np.testing.assert_allclose(numbers[f"{name}_rms_max"], largest)
    assert numbers["nonfinite_layers"] == 1.0
    assert of(network(*taps[:3]), "nonfinite_layers") == 0.0


def test_update_ratios_are_those_of_layers_that_are_trained():
    """A frozen layer, whose kernel does not move, is not the smallest."""
    snapshot = updated(weight=2.0, update=[0.02, 0.5, 0.0])
    assert of(snapshot, "update_ratio_min") == 0.0
    *trained, last = snapshot.layers[:4]
    layers = (*trained, dataclasses.replace(last, trainable=False), snapshot.layers[4])
    frozen = Snapshot(**{**vars(snapshot), "layers": layers})
    np.testing.assert_allclose(of(frozen, "update_ratio_min"), 0.01)
    np.testing.assert_allclose(of(frozen, "update_ratio_max"), 0.25)


def test_dead_units_are_a_share_of_the_units_of_relu_layers():
    """Over the window where it is known, else over the batch. Other layers do not count."""
    relu = {"activation": "relu", "width": 8}
    window = tap("a", **relu, inactive=(2, 5, 640), dead=7)
    batch = tap("a", **relu, dead=6)
    linear = tap("b", width=8, dead=8)
    assert of(network(window, linear), "dead_fraction_max") == 2 / 8
    assert of(network(batch, linear), "dead_fraction_max") == 6 / 8
    assert math.isnan(of(network(linear), "dead_fraction_max"))


def test_saturation_is_that_of_bounded_activation_functions():
    """The largest share; NaN in a network without any."""
    layers = [tap("a", activation="tanh", saturated=s, samples=4) for s in (0.0, 0.5)]
    layers[1] = layers[1]._replace(name="b")
    linear = tap("c", saturated=1.0)
    assert of(network(*layers, linear), "saturated_fraction_max") == 0.5
    assert math.isnan(of(network(linear), "saturated_fraction_max"))


def test_findings_that_are_over_do_not_count():
    """Those that are open, and the critical ones among them."""
    warning = Finding("dead-units", "warning", 3, ("a",), {}, "")
    critical = Finding("loss-jump", "critical", 3, (), {}, "")
    over = dataclasses.replace(critical, code="scale-jump", recovered=9)
    numbers = scalars.of_network(chain(1.0), [warning, critical, over])
    assert (numbers["findings"], numbers["critical_findings"]) == (2.0, 1.0)
    assert of(chain(1.0), "findings") == 0.0
    assert math.isnan(scalars.of_network(chain(1.0), None)["findings"])


def test_a_sick_network_and_its_healthy_twin_differ_in_the_number_of_findings():
    """The count is that of the diagnosis."""
    for decades, expected in ((-6, 1.0), (0, 0.0)):
        snapshot = chain(*np.logspace(0, decades, 12), head=10.0**decades)
        findings = diagnose([snapshot]).findings
        assert of(snapshot, "critical_findings", findings) == expected


def test_the_scalars_of_layers_are_the_statistics_of_their_arrays():
    """By name, in the order of the calls; only those that were measured."""
    rng = np.random.default_rng(0)
    arrays = {f"net/block_{i}": rng.normal(i, 2.0, (9, 4)) for i in (10, 2)}
    gradient = rng.normal(size=(9, 4))
    taps = [
        tap(name, array, gradient=gradient if i else None)
        for i, (name, array) in enumerate(arrays.items())
    ]
    found = scalars.named(network(*taps), ())
    layers = {name: value for name, value in found.items() if "/0" in name}
    first, second = arrays.values()
    expected = {
        "activation_mean/000_net/block_10": first.mean(),
        "activation_mean/001_net/block_2": second.mean(),
        "activation_std/000_net/block_10": first.std(),
        "activation_std/001_net/block_2": second.std(),
        "gradient_rms/001_net/block_2": np.sqrt((gradient**2).mean()),
    }
    assert [*layers] == [*expected]
    np.testing.assert_allclose([*layers.values()], [*expected.values()])
    others = {name.removeprefix("activation_monitor/") for name in found.keys() - layers}
    assert others <= scalars.OF_NETWORK.keys() and "activation_rms_max" in others
    assert not any(map(math.isnan, found.values()))


def test_names_sort_in_the_order_of_the_calls():
    """Also with more than ten layers, and against the alphabet."""
    names = [f"{letter}{i}" for i, letter in enumerate("zyxwvutsrqpo")]
    found = scalars.named(network(*map(tap, names)), ())
    of_mean = [name for name in found if name.startswith("activation_mean/")]
    assert sorted(of_mean) == of_mean
    assert [name.split("_")[-1] for name in of_mean] == names


def test_scalars_of_layers_can_be_left_out():
    """Those of the network stay; those of an evaluation have the prefix of Keras."""
    snapshot = chain(1.0, 1.0, 1.0)
    few = scalars.named(snapshot, (), layers=False)
    assert few and all(name.startswith("activation_monitor/") for name in few)
    evaluation = Snapshot(**{**vars(snapshot), "evaluation": True})
    found = scalars.named(evaluation, None)
    assert all(name.startswith("val_activation_") for name in found)
    assert "val_activation_monitor/growth" in found
    assert "val_activation_monitor/findings" not in found


def test_a_layer_without_a_finite_element_has_a_scalar_that_is_nan():
    """A tracker shows where it broke. A layer that was not called has no scalar."""
    bad = np.full((4, 2), np.nan)
    found = scalars.named(network(tap("a", bad), tap("b", None)), ())
    assert math.isnan(found["activation_std/000_a"])
    assert "activation_std/001_b" not in found


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("grow", ValueError, "no number named 'grow'. Did you mean 'growth'"),
        (("growth", "loss"), ValueError, "no number named 'loss'"),
        (True, TypeError, "one or several names of numbers. Received: logs=True"),
    ],
)
def test_wrong_names_of_numbers_are_errors_that_list_them(names, error, message):
    """Right ones are returned as a tuple."""
    with pytest.raises(error, match=message) as raised:
        scalars.check_numbers(names, "ActivationMonitor")
    assert "There are: findings, critical_findings," in str(raised.value)
    assert scalars.check_numbers("growth", "x") == ("growth",)
    assert scalars.check_numbers(["growth", "findings"], "x") == ("growth", "findings")


def test_every_number_is_documented():
    """The names in the table of the page are those that there are, in order."""
    from pathlib import Path

    page = (Path(__file__).parent.parent / "docs" / "export.md").read_text()
    shown = [line.split("`")[1::2] for line in page.splitlines() if line.startswith("| `")]
    names = [name for row in shown for name in row if name in scalars.OF_NETWORK]
    assert names == [*scalars.OF_NETWORK]

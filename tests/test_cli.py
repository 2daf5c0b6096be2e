"""The command line, and the calibration that proves the measurements on this machine."""

import math

import numpy as np
import pytest

from activation_monitor import cli
from activation_monitor.analysis import chain, theory


@pytest.fixture(
    params=[
        {},
        {"jit_compile": True},
        {"run_eagerly": True, "layers": 8},
        {"dtype": "mixed_bfloat16", "layers": 8},
        {"dtype": "mixed_float16", "layers": 8},
    ],
    ids=str,
)
def calibration(request):
    """The critical chain, measured through `fit` by a monitor."""
    return cli.calibrate(1 / math.sqrt(512), seed=7, **request.param)


def test_the_critical_chain_obeys_the_law(calibration):
    """Weights of std 1/sqrt(n): the signal stays, in every dtype and compilation."""
    assert calibration.passed, calibration.verdict
    exact = 2e-2 if "mixed" in calibration.title else 1e-5
    assert max(row.error for row in calibration.rows) < exact


@pytest.mark.parametrize("std", [1.0, 0.01])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_exploding_and_vanishing_chains_obey_the_law(std, jit_compile):
    """Beyond 1e19 and below 1e-19, where the plain float32 std is infinite or zero."""
    calibration = cli.calibrate(std, seed=8, jit_compile=jit_compile)
    assert calibration.passed, calibration.verdict
    assert max(row.error for row in calibration.rows) < 1e-5
    assert abs(math.log10(calibration.rows[-1].rms)) > 12
    low, high = (22.062, 23.162) if std == 1.0 else (0.22062, 0.23162)
    np.testing.assert_allclose(
        [calibration.law.low, calibration.law.high], [low, high], 1e-3
    )


def test_a_monitor_that_is_wrong_fails():
    """The calibration of one that is 10 % off, more with every layer."""
    good = cli.calibrate(1 / math.sqrt(512), layers=10)
    rms = np.array([1.0, *(row.rms for row in good.rows)])
    wrong = rms * 1.1 ** np.arange(11)
    reference = theory.chain_law(512, 1 / math.sqrt(512), 10).growth ** np.arange(11)
    names = tuple(row.name for row in good.rows)
    bad = chain.calibrate("wrong", names, wrong, reference, 1 / math.sqrt(512), 512)
    assert not bad.passed
    assert bad.verdict.startswith("FAIL")


@pytest.mark.smoke
def test_the_command_passes_and_prints_the_study(capsys):
    """Exit code 0; the tables of the study and of the calibration."""
    assert cli.main(["calibrate", "--layers", "5"]) == 0
    printed = capsys.readouterr().out
    for line in (
        "The naive float32 std is inf after product 14.",
        "The naive float32 std is 0 after product 32.",
        "625 -> 10000",
        "Calibration: PASS",
    ):
        assert line in printed


def test_the_command_fails_with_an_exit_code(capsys, monkeypatch):
    """1 if one chain fails, whatever the others do."""

    def failing(weight_std, **options):
        names = ("a", "b")
        rms = np.array([1.0, weight_std * 5, weight_std**2 * 25])
        return chain.calibrate("t", names, rms, rms, weight_std, options["width"])

    monkeypatch.setattr(cli, "calibrate", failing)
    assert cli.main(["calibrate", "--no-study"]) == 1
    assert "Calibration: FAIL" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["calibrate", "--width", "63"], ["calibrate", "--dtype", "int8"]]
)
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    """argparse says what was expected."""
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    assert exit.value.code == 2
    assert "usage: activation-monitor" in capsys.readouterr().err


def test_half_precision_is_calibrated_where_it_reaches(capsys):
    """float16 ends after four layers of std 1: only the critical chain is run."""
    assert cli.main(["calibrate", "--no-study", "--dtype", "float16", "--layers", "5"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("PASS: growth") == 1

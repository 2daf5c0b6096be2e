"""Each example prints what its docstring promises."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short(path):
    """It has under 80 lines, and says how to run it."""
    source = path.read_text()
    assert len(source.splitlines()) < 80
    assert f"python examples/{path.name}" in source


@pytest.mark.slow
def test_the_network_that_does_not_learn_is_fixed_by_the_printed_line(capsys):
    """The accuracy is that of guessing before, and high with the printed line."""
    before, after, diagnosis = load("does_not_learn").main()
    assert before < 0.2 and after > 0.85
    assert diagnosis.healthy
    printed = capsys.readouterr().out
    assert "vanishing-activations (critical, at initialization)" in printed
    assert 'kernel_initializer="he_normal"  # std 0.125 = sqrt(2 / 128)' in printed


@pytest.mark.slow
def test_the_residual_network_explodes_slowly_and_is_fixed(capsys):
    """SGD diverges before; with the fix, it trains and the monitor finds nothing."""
    before, after, diagnosis = load("slow_explosion").main()
    assert not math.isfinite(before) and after < 0.5
    assert diagnosis.healthy
    printed = capsys.readouterr().out
    assert "Cause: unscaled residual branch." in printed
    assert 'kernel_initializer="zeros"' in printed


@pytest.mark.slow
def test_tanh_across_the_edge_of_chaos(capsys):
    """No finding at the edge, where it learns; findings on both sides, where it fails."""
    found = load("edge_of_chaos").main(variances=(0.25, 1.5, 16.0))
    assert "exploding-gradients" in capsys.readouterr().out
    ordered, edge, chaotic = found.values()
    assert ordered[-1] == ["vanishing-activations"] and ordered[3] > 2.0
    assert edge[-1] == [] and edge[3] < 1.0
    assert chaotic[-1] == ["exploding-gradients"] and chaotic[3] > 2.0
    # Fixed points of the length map: facts/theory.md section 1.
    np.testing.assert_allclose(edge[0], 0.43734, rtol=1e-4)
    np.testing.assert_allclose(edge[1], edge[0], rtol=0.1)

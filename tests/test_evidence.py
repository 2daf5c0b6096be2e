"""The evidence of findings in words."""

import ast
import importlib
import math
import re
from pathlib import Path

import numpy as np
import pytest

from activation_monitor.analysis import rules
from activation_monitor.analysis.diagnosis import diagnose
from activation_monitor.analysis.findings import CODES, Finding
from activation_monitor.analysis.growth import DTYPE_LIMITS
from activation_monitor.views import evidence as words
from activation_monitor.views.evidence import evidence
from networks import Drawn

FOLDER = Path(rules.__file__).parent


def finding(code, **numbers):
    return Finding(code, "warning", 20, ("a",), numbers, "")


# -- all that rules report


def text_of(node, module):
    """A string, or an f-string as a pattern, or the value of a constant of a module."""
    if isinstance(node, ast.JoinedStr):
        parts = (
            re.escape(part.value) if isinstance(part, ast.Constant) else ".+"
            for part in node.values
        )
        return "".join(parts)
    if isinstance(node, ast.Name):
        return re.escape(getattr(module, node.id, "")) or ".+"
    return re.escape(node.value) if isinstance(node, ast.Constant) else ".+"


def names_in(node, function):
    """The nodes of the names of some evidence, also if a variable holds it."""
    holds = [node] if not isinstance(node, ast.Name) else []
    for each in ast.walk(function):
        targets = getattr(each, "targets", [getattr(each, "target", None)])
        for target in targets:
            if isinstance(each, ast.Assign | ast.AugAssign) and target is not None:
                if ast.unparse(target) == ast.unparse(node):
                    holds.append(each.value)
                if ast.unparse(target).startswith(f"{ast.unparse(node)}["):
                    yield target.slice
    for held in holds:
        for each in ast.walk(held):
            if isinstance(each, ast.Dict):
                yield from each.keys
            elif isinstance(each, ast.Name) and each.id == "depths":
                # The depths of `size.growth`, one for each dtype.
                yield ast.Constant("overflow_float32")
                yield ast.Constant("underflow_float16")


def reported():
    """Pairs of a pattern of codes and a pattern of a name, of all rules."""
    for path in sorted(FOLDER.rglob("*.py")):
        parts = path.relative_to(FOLDER.parents[2]).with_suffix("").parts
        module = importlib.import_module(".".join(parts))
        tree = ast.parse(path.read_text())
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            for call in ast.walk(function):
                name = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
                if name in ("found", "found_since"):
                    first = {"found": 0, "found_since": 2}[name]
                    given = call.args[first + (3 if name == "found" else 2)]
                    code = text_of(call.args[first], module)
                    if code == ".+":  # a variable: any code that the module names
                        known = [c for c in CODES if f'"{c}"' in path.read_text()]
                        code = "|".join(known) or "none"
                    for key in names_in(given, function):
                        yield code, text_of(key, module)


REPORTED = sorted({*reported()})


def test_all_rules_are_read():
    """Each code has a rule, and the names of the evidence of some are among them."""
    codes = {code for code in CODES for given, _ in REPORTED if re.fullmatch(given, code)}
    assert codes == set(CODES)
    assert ("dead\\-units", "dead_fraction") in REPORTED
    assert ("nonfinite\\-loss", "update_ratio") in REPORTED
    assert ("nonfinite\\-loss", "last_loss") in REPORTED
    assert ("scale\\-jump", ".+_before") in REPORTED


@pytest.mark.parametrize(("code", "name"), REPORTED)
def test_every_number_that_a_rule_reports_has_words(code, name):
    """A new name in the evidence of a rule needs a row in the table."""
    for one in CODES:
        if re.fullmatch(code, one):
            said = [each for row in words._of(one) for each in row.names]
            assert any(re.fullmatch(name, each) for each in said), (one, name)


def test_a_number_without_words_is_noticed():
    """The test above can fail; the number is shown under its own name."""
    new = finding("dead-units", half_life=3.0)
    assert not words.has_words(new.code, new.evidence)
    assert evidence(new) == [("half life", "3")]


AUDITED = {"draws": 3.0, "in": 2.0, "growth": 0.5, "growth_low": 0.4, "growth_high": 0.6}


def test_an_audit_of_several_initializations_says_how_many():
    """With the range of the growth."""
    assert evidence(finding("vanishing-activations", **AUDITED)) == [
        ("growth per layer", "0.5 times"),
        ("growth per layer in all draws", "between 0.4 and 0.6 times"),
        ("initializations that show it", "2 of 3"),
    ]


# -- the words


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            finding("dead-units", dead_fraction=63 / 64, layers=3.0, relu_layers=8.0),
            [
                ("dead units", "98.44 % of the units of a layer"),
                ("layers with mostly dead units", "3 of 8 layers with ReLU"),
            ],
        ),
        (
            finding("nonfinite-activations", nonfinite=32.0, count=4096.0),
            [("NaN or infinite elements", "32 of 4,096")],
        ),
        (
            finding("nonfinite-loss", step=12000.0, broken_kernels=0.0),
            [
                ("loss", "not finite at step 12,000"),
                ("kernels with NaN or infinity", "0"),
            ],
        ),
        (
            finding("outlier-gain", gain=22.60512, peers=1.0, decades=3.0),
            [
                ("distance from its peers", "3 decades (1000 times)"),
                ("gain of the layer", "22.61 times"),
                ("gain of its peers", "1 times"),
            ],
        ),
        (
            finding("moving-statistics", shift=1.5, scale=20.0, momentum=0.99, layers=2.0),
            [
                ("std that evaluation has", "20 times"),
                ("mean that evaluation has", "off by 1.5 standard deviations"),
                ("momentum", "0.99"),
                ("layers", "2"),
            ],
        ),
        (finding("mean-shift", shift=0.97), [("mean over rms", "97 %")]),
        (finding("stuck-loss-scale", scale=1e-40), [("loss scale", "1e-40")]),
        (finding("wrong-update", layers=1.0, times=math.nan), [("layers", "1")]),
        (
            finding("unscaled-input", input_rms=135.27, last_rms=99.0),
            [("rms of the input", "135.3"), ("rms at the last layer", "99")],
        ),
    ],
    ids=lambda value: getattr(value, "code", ""),
)
def test_numbers_are_said_with_their_units(given, expected):
    """Literally: percent, counts, steps, factors."""
    assert evidence(given) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (22.60512, "22.61"),
        (-0.123456, "-0.1235"),
        (9999.6, "10,000"),
        (1234567.0, "1,235,000"),
        (3.4e38, "3.4e+38"),
        (1e-7, "1e-07"),
        (math.nan, "not known"),
        (math.inf, "infinite"),
    ],
)
def test_a_number_has_four_digits(value, expected):
    """With separators of thousands, unless it is very large or very small."""
    assert words.number(value) == expected


def test_growth_beyond_the_range_of_a_float_has_words():
    """10 to the power of the decades would overflow."""
    (said,) = evidence(finding("exploding-activations", decades=400.0))
    assert said == ("change in all", "400 decades (10^400 times)")


def test_the_evidence_of_a_real_finding_is_that_of_the_tensors():
    """Against growth and sizes in float64, with the interval of chance in one row."""
    net = Drawn(1).chain(8, variance=0.02)
    (found,) = diagnose([net.snapshot(0)]).findings
    said = dict(evidence(found))
    size = {name: math.sqrt((x**2).mean()) for name, x in net.tensors.items()}
    growth = (size["d8"] / size["d1"]) ** (1 / 7)
    assert said["growth per layer"] == f"{growth:.4g} times"
    assert said["rms of the signal"] == f"from {size['d1']:.4g} to {size['d8']:.4g}"
    assert said["weight layers on the way"] == "7"
    assert re.fullmatch(
        r"between 0\.\d+ and 1\.\d+ times", said["growth per layer by chance"]
    )
    depths = re.findall(r"(\w+) at depth (\d+)", said["underflow at this rate"])
    limits = {dtype: math.log(low) for dtype, (low, _) in DTYPE_LIMITS.items()}
    for dtype, depth in depths:
        # Depth 1 has the size of d1; each layer multiplies it by the growth.
        exact = 1 + (limits.pop(dtype) - math.log(size["d1"])) / math.log(growth)
        np.testing.assert_allclose(int(depth), exact, atol=0.5)
    assert limits == {}
    assert not any("_" in label for label in said)

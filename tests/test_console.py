"""The tables in the terminal, compared with what they should look like."""

# The golden texts are as wide as the console they are made for.
# ruff: noqa: E501

import dataclasses
import math

import numpy as np
import pytest
from tensorboard.plugin_util import markdown_to_safe_html

import networks
from activation_monitor.analysis import chain
from activation_monitor.analysis.diagnosis import diagnose
from activation_monitor.analysis.fix import Change, Fix
from activation_monitor.views import console, evidence, in_words, tables
from networks import tap


def network(*sizes, step=0, names=None):
    """A chain of weight layers of 512 units; the last is the head."""
    names = names or [f"dense_{i}" for i in range(len(sizes))]
    taps = (tap(name, rms) for name, rms in zip(names, sizes, strict=True))
    return networks.network(*taps, step=step)


def text(*snapshots):
    return console.diagnosis_text(diagnose(snapshots))


# -- the diagnosis

# The intervals: exp(-0.00097720 -+ 3 * 0.0312805 / sqrt(layers)), facts/theory.md section 1.
HEALTHY = """\
Activations at steps 0 and 20

                                                  non-
 layer    depth  step  mean   std   rms  zeros  finite
 ──────────────────────────────────────────────────────
 dense_0      1     0     0     1     1     0%      0%
                   20     0     1     1     0%      0%
 dense_1      2     0     0     1     1     0%      0%
                   20     0     1     1     0%      0%
 dense_2      3     0     0  1.04  1.04     0%      0%
                   20     0     1     1     0%      0%
 dense_3      4     0     0   250   250     0%      0%
                   20     0   250   250     0%      0%

rms over depth  ▄▄▅
Growth per weight layer: 1.02 over 2 layers (chance alone: 0.935 to 1.07), from
dense_0 to dense_2.
Healthy: no findings; 2 steps sampled, up to step 20."""

WITH_FINDINGS = """\
Activations at step 5

  layer     depth   mean     std     rms   zeros   non-finite
 ─────────────────────────────────────────────────────────────
  dense_0       1      0       1       1      0%           0%
  dense_1       2      0   1e-05   1e-05      0%           0%
  dense_2       3      0       0       0    100%           0%
  dense_3       4      0       1       1      0%          50%

rms over depth  █▁_
Growth per weight layer: 1e-05 over 1 layer (chance alone: 0.91 to 1.1), from
dense_0 to dense_1.
2 findings; 1 step sampled.
* vanishing-activations (warning, at initialization): The signal vanishes with
depth: from dense_0 to dense_1 the rms of the activations falls from 1 to 1e-05,
1e-05 times per weight layer over 1 weight layer. Weights are random, so growth
varies even with a correct initializer, here between 0.91 and 1.1 times per
layer. At dense_2, only zeros are left.
Cause: initializer. dense_0 was drawn by RandomNormal(stddev=0.01).
Change:
  in dense_0 and dense_1:
      kernel_initializer="lecun_normal"  # std 0.125
More: activation-monitor explain vanishing-activations
* nonfinite-activations (critical, at initialization): 2 of 4 elements of the
output (dense_3, float32) are NaN or infinite. Its inputs are finite; everything
that is computed from it inherits them.
More: activation-monitor explain nonfinite-activations"""

NO_GROWTH = """\
Activations at step 0

  layer     depth   mean   std   rms   zeros   non-finite
 ─────────────────────────────────────────────────────────
  dense_0       1      0     2     2      0%           0%
  dense_1       2      0     3     3      0%           0%

Growth with depth was not judged: this needs two weight layers in a row before
the last one, and nothing between them that sets the size of the signal
(normalization, sigmoid, saturated tanh, zeros or NaN).
Not assessed: no findings; 1 step sampled."""


def test_nothing_measured_has_a_verdict_in_markdown_too():
    """The same sentence as in the terminal."""
    assert in_words.markdown(diagnose([])) == (
        "ActivationMonitor: nothing has been measured yet."
    )


FIX = Fix(
    "initializer",
    "dense_0 was drawn by RandomNormal(stddev=0.01).",
    (
        Change(
            "in", 'kernel_initializer="lecun_normal"', ("dense_0 and dense_1",), "std 0.125"
        ),
    ),
)


def with_fixes(diagnosis, *fixes):
    """The diagnosis with these fixes in its findings."""
    findings = zip(diagnosis.findings, fixes, strict=True)
    replaced = (dataclasses.replace(f, fix=fix) for f, fix in findings)
    return dataclasses.replace(diagnosis, findings=tuple(replaced))


@pytest.mark.parametrize(
    ("snapshots", "fixes", "expected"),
    [
        ([network(1.0, 1.0, 1.04, 250.0), network(1, 1, 1, 250, step=20)], (), HEALTHY),
        ([network(1.0, 1e-5, 0.0, math.nan, step=5)], (FIX, None), WITH_FINDINGS),
        ([network(2.0, 3.0)], (), NO_GROWTH),
        ([], (), "ActivationMonitor: nothing has been measured yet."),
    ],
    ids=["healthy", "findings", "too short for growth", "nothing"],
)
def test_a_diagnosis_prints_as_this_table(snapshots, fixes, expected):
    """Literally: statistics of the first and the last snapshot, growth, findings, steps."""
    diagnosis = with_fixes(diagnose(snapshots), *fixes)
    assert console.diagnosis_text(diagnosis) == expected


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([1.0, 1.0], "▅▅"),  # not as if something happened
        ([1e-8, 1e-4, 1.0], "▁▅█"),
        ([1.0, 0.0, math.inf, math.nan], "▅_xx"),
        ([0.0], "_"),
        ([], ""),
    ],
)
def test_a_profile_is_shown_as_a_line_of_bars(sizes, expected):
    """On a logarithmic scale. Zeros and non-finite values are marked."""
    assert console.spark_line(sizes) == expected


def test_a_deep_profile_fits_the_line():
    """From the first layer to the last."""
    line = console.spark_line(np.logspace(-3, 3, 500))
    assert len(line) == 60
    assert (line[0], line[-1]) == ("▁", "█")
    assert list(line) == sorted(line)


def test_a_line_of_code_is_not_broken():
    """A line copied from the terminal stays one line, whatever its length."""
    code = Change("in", 'kernel_initializer="he_normal"', ("dense_0",), "x" * 90)
    diagnosis = with_fixes(diagnose([network(0.0, 1.0)]), Fix("a", "b.", (code,)))
    lines = console.diagnosis_text(diagnosis).splitlines()
    assert f"      {code.line}" in lines
    assert max(len(line) for line in lines if "kernel" not in line) <= 80


def test_print_shows_the_table():
    """A diagnosis prints as the text of the console view."""
    diagnosis = diagnose([network(2.0, 3.0)])
    assert str(diagnosis) == NO_GROWTH


def many(count, **changed):
    """A healthy network of many layers, with other sizes by the number of the layer."""
    sizes = [changed.get(f"at_{i}", 1.0) for i in range(count)]
    return network(*sizes, names=[f"net/block_{i}/dense" for i in range(count)])


def names_in(shown):
    """The names in the first column of a table."""
    lines = shown.splitlines()
    start = next(i for i, line in enumerate(lines) if "──" in line)
    rows = lines[start + 1 : lines.index("", start)]
    return [word for line in rows for word in line.split()[:1] if "/" in word]


@pytest.mark.parametrize(("layers", "expected"), [(40, 40), (41, 10)])
def test_a_table_of_many_layers_has_the_worst_ten(layers, expected):
    """Up to 40 layers, all of them. A line says how many there are."""
    shown = text(many(layers))
    assert len(names_in(shown)) == expected
    said = f"10 of {layers} layers: those of the findings, then those whose rms is"
    assert (said in " ".join(shown.split())) == (expected < layers)


def test_the_worst_layers_are_those_of_findings_and_then_those_that_changed_most():
    """In the order of the network. A layer whose output has become zero comes first."""
    first = many(150)
    changed = {f"at_{i}": 1.0 + i for i in range(1, 31)} | {"at_100": 0.0, "at_120": 0.01}
    last = many(150, **changed, at_140=math.inf)
    last = dataclasses.replace(last, step=1000)
    (finding,) = diagnose([first, last]).findings
    assert finding.layers == ("net/block_140/dense",)
    shown = text(first, last)
    kept = [*range(24, 31), 100, 120, 140]
    assert names_in(shown) == [f"net/block_{i}/dense" for i in kept]
    assert "then those whose rms has changed most" in " ".join(shown.split())


def test_of_one_snapshot_the_sizes_far_from_one_are_shown():
    """There is no other step to compare with."""
    shown = text(many(60, at_7=3.0, at_9=0.2, at_59=0.01))
    assert {"net/block_7/dense", "net/block_9/dense", "net/block_59/dense"} <= {
        *names_in(shown)
    }


def test_layers_of_a_finding_are_coloured_by_its_severity():
    """Yellow for a warning, red for a critical finding."""

    def styles(*sizes):
        return [r.style for r in table_of(diagnose([network(*sizes)])).rows]

    def table_of(diagnosis):
        return console.diagnosis_table(diagnosis).renderables[0]

    assert styles(1, 1, 1, 1) == [None] * 4
    assert styles(1, 5, 25, 1) == ["yellow"] * 3 + [None]
    assert styles(1, 1e-3, 1e-6, 1) == ["bold red"] * 3 + [None]
    assert styles(1, 50, 2500, 1) == ["bold red"] * 3 + [None]
    assert styles(1, 1, math.inf, math.nan) == [None, None, "bold red", None]
    assert styles(1, 1, math.inf, 1) == [None, None, "bold red", None]


def test_a_layer_of_two_findings_has_the_colour_of_the_worse():
    """The signal explodes towards one head, which is critical, and vanishes towards the
    other."""
    snapshot = networks.network(
        *(tap("a"), tap("up", 1e4), tap("aux")),
        *(tap("down", 1e-3, after="a"), tap("head")),
    )
    table = console.diagnosis_table(diagnose([snapshot])).renderables[0]
    assert [row.style for row in table.rows] == [*["bold red"] * 2, None, "yellow", None]


BLOCKS = "/".join(f"block_{i}" for i in range(30))


def test_a_long_name_is_cut_at_its_start():
    """Names differ at their ends. A row stays one line."""
    lines = text(network(1.0, 1.0, names=[BLOCKS, "head"])).splitlines()
    assert len(lines[3 : lines.index("", 3)]) == 3
    (row,) = (line for line in lines if "…" in line)
    name = row.split()[0]
    assert name[0] == "…" and BLOCKS.endswith(name[1:]) and len(name) > 20
    assert len(row) <= 80


def test_no_name_in_a_sentence_is_broken():
    """Sentences are broken between words, also at a hyphen in none of them."""
    name = f"{BLOCKS}/a-b"
    snapshot = network(1.0, 0.0, 1.0, names=["a", name, "head"])
    (finding,) = diagnose([snapshot]).findings
    assert finding.message.count(name) == 1
    shown = text(snapshot)
    assert shown.count(name) == str(finding).count(name)


@pytest.mark.parametrize("name", ["attention[query]", "a[/b]", "[red]dense"])
def test_brackets_in_a_name_are_no_markup(name):
    """The name of a layer is shown unchanged, and no name breaks `print`."""
    assert f"  {name} " in text(network(1.0, 1.0, names=[name, "head"]))


def test_a_layer_that_was_not_called_has_dashes_in_all_columns():
    """A dash means "not measured", also for fractions."""
    line = text(network(1.0, 1.0, None)).splitlines()[6]
    assert line.split() == ["dense_2", "0", "-", "-", "-", "-", "-"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (-0.12345, "-0.123"),
        (1234.5, "1.23e+03"),
        (3e-41, "3e-41"),
        (math.inf, "inf"),
        (math.nan, "-"),
        (None, "-"),
    ],
)
def test_a_number_has_three_digits_or_is_a_dash(value, expected):
    """A dash means "not measured"."""
    assert console.number(value) == expected


def test_the_verdict_in_markdown_has_a_paragraph_for_each_finding():
    """For TensorBoard's Text tab: the same words without the table."""
    assert in_words.markdown(diagnose([network(1.0, 1.0, 1.0)])) == (
        "Growth per weight layer: 1 over 1 layer (chance alone: 0.91 to 1.1), from dense_0 "
        "to dense_1.\n\nHealthy: no findings; 1 step sampled."
    )
    dead = with_fixes(diagnose([network(0.0, 1.0)]), FIX)
    assert in_words.markdown(dead) == (
        "Growth with depth was not judged: this needs two weight layers in a row before the "
        "last one, and nothing between them that sets the size of the signal "
        "(normalization, sigmoid, saturated tanh, zeros or NaN).\n\n"
        "1 finding; 1 step sampled.\n\n"
        "**zero-activations (critical, at initialization)**: All outputs of dense_0 are "
        "zero for every input. No layer after it receives the data, and no layer before it "
        "learns.\n\n"
        "| evidence | |\n| --- | --- |\n| rms | 0 |\n\n"
        "*Cause: initializer.* dense_0 was drawn by RandomNormal(stddev=0.01).\n\n"
        "Change in dense_0 and dense_1:\n\n"
        '```python\nkernel_initializer="lecun_normal"  # std 0.125\n```\n\n'
        "More: `activation-monitor explain zero-activations`"
    )
    unknown = with_fixes(diagnose([network(0.0, 1.0)]), None)
    assert in_words.markdown(unknown).endswith(
        "| rms | 0 |\n\nMore: `activation-monitor explain zero-activations`"
    )


def test_the_evidence_is_a_table_in_the_text_tab():
    """As TensorBoard renders Markdown, with one row for each number."""
    dead = diagnose([network(1.0, 1e-5, 0.0, math.nan, step=5)])
    page = markdown_to_safe_html(in_words.markdown(dead))
    for finding in dead.findings:
        for label, said in evidence.evidence(finding):
            assert f"<td>{label}</td>\n<td>{said}</td>" in page
    assert page.count("<table>") == 2 and "|" not in page


# -- the study and the calibration


def printed(renderable, capsys):
    console.show(renderable)
    return "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())


def test_a_study_prints_its_rows_and_notes(capsys, monkeypatch):
    """Literally, with an infinite naive std and the notes below."""
    monkeypatch.setenv("COLUMNS", "100")
    rows = (
        chain.Product(1, 0.01, 22.123, 22.6, 20.4, 25.1, 22.123),
        chain.Product(2, -1.5, 1e19, 511.0, 442.0, 591.0, math.inf),
    )
    study = chain.Study("Two products", rows, ("The naive one ends.",), 2, None)
    assert (
        printed(tables.study_table(study), capsys)
        == """\
Two products

                         law:  law:  law:  naive
 product  mean    std  median   low  high    std
 ────────────────────────────────────────────────
       1  0.01   22.1    22.6  20.4  25.1   22.1
       2  -1.5  1e+19     511   442   591    inf

The naive one ends."""
    )
    table = tables.study_table(study).renderables[0]
    assert [row.style for row in table.rows] == [None, "yellow"]


@pytest.mark.parametrize(
    ("first_gain", "verdict", "styles", "style"),
    [
        (22.0, "PASS", [None, None], "green"),
        # The second gain is wrong as well: it is taken over the first size.
        (33.0, "FAIL", ["bold red", "bold red"], "bold red"),
    ],
)
def test_a_calibration_prints_its_rows_and_verdict(
    first_gain, verdict, styles, style, capsys, monkeypatch
):
    """Numbers of each layer, and PASS or FAIL in its colour."""
    monkeypatch.setenv("COLUMNS", "100")
    rms = np.array([1.0, first_gain, 500.0])
    calibration = chain.calibrate("Dense", ("a", "b"), rms, rms * 1.001, 1.0, 512)
    shown = printed(tables.calibration_table(calibration), capsys)
    lines = shown.splitlines()
    assert lines[0] == "Dense"
    assert lines[2].split() == "law: law: law: vs".split()
    assert lines[3].split() == "layer rms gain median low high float64".split()
    del lines[2]
    # 1 - (1 - 5e-4)^(1/2) two-sided is z = 3.662; median and reach by the golden step.
    middle = 22.6274 * (1 - 2 / (9 * 512)) ** 1.5
    low, high = lines[4].split()[4:6]
    np.testing.assert_allclose(float(low), 22.6053 * math.exp(-3.662 * 0.03128), rtol=5e-3)
    np.testing.assert_allclose(float(high), 22.6053 * math.exp(3.662 * 0.03128), rtol=5e-3)
    assert lines[4].split()[:4] == ["a", f"{first_gain:.3g}", f"{first_gain:.4g}"] + [
        f"{middle:.4g}"
    ]
    assert lines[5].split()[:3] == ["b", "500", f"{500 / first_gain:.4g}"]
    assert all(line.endswith("1.0e-03") for line in lines[4:6])
    assert " ".join(lines[7:]) == calibration.verdict
    assert calibration.verdict.startswith(f"{verdict}: growth 22.361 per layer")
    table, words = tables.calibration_table(calibration).renderables
    assert [row.style for row in table.rows] == styles
    assert words.style == style

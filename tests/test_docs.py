"""The documentation is run: its Python blocks, its commands, the numbers that it prints.

    python tests/test_docs.py [PAGE ...]

writes what the blocks print now into the pages. Read the difference before you commit it.
"""

import ast
import contextlib
import csv
import io
import json
import math
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "tests" / "benchmarks"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
TOLERANCE = 2e-2
"""Relative, of numbers that are not counts: seeds are set, devices differ."""

SMOKE = {"README.md", "custom-loops.md"}
"""Pages that run with the oldest versions too."""

SLOW = {
    *("before-training.md", "callback.md", "distribution.md", "findings.md"),
    *("reports.md", "tests.md"),
}
"""Pages that take long: `-m slow` runs them."""

NEEDS = {"export.md": ("mlflow", "pandas", "pyarrow")}
"""Packages that the blocks of a page need, of the dependency group `trackers`."""

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")
README_LINES = 200


class Block(NamedTuple):
    """A block that runs, and what the page says that it prints.

    Attributes:
        language: "python" or "sh".
        code: The code.
        printed: The text block that follows; None if there is none.
        span: Where `printed` is in the page.
    """

    language: str
    code: str
    printed: str | None
    span: tuple[int, int] | None


def blocks(page: str) -> list[Block]:
    """The blocks of a page that run, in order. Blocks in other languages do not run."""
    fences, found = [*FENCE.finditer(page)], []
    for fence, after in zip(fences, [*fences[1:], None], strict=False):
        if fence[1] in ("python", "sh"):
            shown = after is not None and after[1] == "text"
            printed = (after[2], after.span(2)) if shown else (None, None)
            found.append(Block(fence[1], fence[2], *printed))
    return found


def commands(code: str) -> list[list[str]]:
    """The arguments of each call of our command line in a block of shell code."""
    words = [shlex.split(line) for line in code.splitlines() if line.strip()]
    return [line[1:] for line in words if line[0] == "activation-monitor"]


def run_blocks(given: list[list[str]]) -> None:
    """Run the blocks of a page in this process; print what each prints, as JSON."""
    names, printed = {"__name__": "__main__"}, []
    for language, code in given:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            if language == "python":
                exec(compile(code, "<block>", "exec"), names)
            else:
                from activation_monitor import cli

                for arguments in commands(code):
                    cli.main(arguments)
        printed.append(output.getvalue())
    print(json.dumps(printed))


def outputs(page: str, folder: Path) -> list[str]:
    """What each block of a page prints; they run in one process, in an empty folder."""
    given = [[block.language, block.code] for block in blocks(page)]
    done = subprocess.run(
        [sys.executable, __file__, "--run"],
        cwd=folder,
        input=json.dumps(given),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def difference(shown: str, printed: str) -> str:
    """Where two texts differ, in words; empty if they agree.

    Words and counts agree exactly, other numbers within `TOLERANCE`. White space and the
    ends of lines do not matter.
    """
    shown, printed = (" ".join(text.split()) for text in (shown, printed))
    if NUMBER.sub("#", shown) != NUMBER.sub("#", printed):
        return f"the words differ. The page:\n{shown}\nPrinted:\n{printed}"
    for expected, found in zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True):
        are_counts = expected.isdigit() and found.isdigit()
        tolerance = 0.0 if are_counts else TOLERANCE
        if not math.isclose(float(expected), float(found), rel_tol=tolerance):
            return f"{expected} in the page, printed {found}:\n{printed}"
    return ""


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path,
            marks=[pytest.mark.smoke] * (path.name in SMOKE)
            + [pytest.mark.slow] * (path.name in SLOW),
        )
        for path in PAGES
    ],
    ids=lambda path: path.name,
)
def test_the_blocks_of_a_page_run_and_print_what_is_shown(path, tmp_path):
    """All in one process, in the order of the page. A block that prints shows it."""
    page = path.read_text()
    if not blocks(page):
        pytest.skip("no block runs")
    for package in NEEDS.get(path.name, ()):
        pytest.importorskip(package)
    for block, printed in zip(blocks(page), outputs(page, tmp_path), strict=True):
        if block.language == "python" or block.printed is not None:
            assert difference(block.printed or "", printed) == "", block.code


@pytest.mark.parametrize(
    ("printed", "differs"),
    [
        ("grows 1.234 times over 19 layers", ""),
        ("grows 1.25\ntimes over  19 layers", ""),
        ("grows 1.27 times over 19 layers", "1.24 in the page"),
        ("grows 1.24 times over 20 layers", "19 in the page"),
        ("falls 1.24 times over 19 layers", "the words differ"),
        ("grows 1.24 times over 19 layers.", "the words differ"),
    ],
)
def test_the_comparison_would_notice(printed, differs):
    """The test above can fail."""
    found = difference("grows 1.24 times over 19 layers", printed)
    assert differs in found and bool(differs) == bool(found)


# -- README and CONTRIBUTING


def test_the_readme_is_short():
    """What is longer stands in docs/."""
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) < README_LINES


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    """Each link to a file, and each link to a heading of a page."""
    for target, anchor in re.findall(
        r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", path.read_text()
    ):
        linked = path.parent / target if target else path
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), flags=re.MULTILINE)
            assert anchor in [_anchor(heading) for heading in headings]


def _anchor(heading):
    """The name that GitHub gives to a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def lines_of_shell(name: str) -> list[str]:
    """The commands of a page, one a line."""
    fences = FENCE.findall((ROOT / name).read_text())
    return [
        line for language, code in fences if language == "sh" for line in code.splitlines()
    ]


def test_the_main_command_of_the_readme_is_one_line():
    """Installation and a first result."""
    assert sum("examples/digits.py" in line for line in lines_of_shell("README.md")) == 1


def test_each_command_that_ci_runs_is_in_one_place():
    """CI takes the commands that install and run the tests from README and CONTRIBUTING."""
    patterns = re.findall(r"^  '(.*)'$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    pages = ("README.md", "CONTRIBUTING.md")
    shell = [line for page in pages for line in lines_of_shell(page)]
    prose = [line for page in pages for line in (ROOT / page).read_text().splitlines()]
    assert len(patterns) >= 3
    for pattern in patterns:
        found = [line for line in prose if re.search(pattern, line)]
        assert len(found) == 1 and found[0] in shell, pattern


@pytest.mark.smoke
def test_the_digits_example_prints_that_it_is_healthy(tmp_path):
    """The README's main command: no warning, the accuracy, how to open TensorBoard."""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", ROOT / "examples" / "digits.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "Healthy: no findings" in done.stdout, done.stdout + done.stderr
    accuracy = float(re.search(r"unseen digits: ([0-9.]+)%", done.stdout)[1])
    assert accuracy > 90
    assert "tensorboard --logdir logs/digits" in done.stdout
    assert list((tmp_path / "logs" / "digits" / "activations").iterdir())


def test_the_arguments_are_those_of_the_callback():
    """The table names each argument, in order, with its default."""
    import inspect

    from activation_monitor import ActivationMonitor

    page = (ROOT / "docs" / "callback.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", page, flags=re.MULTILINE)
    shown = {name: ast.literal_eval(default) for name, default in rows}
    parameters = inspect.signature(ActivationMonitor).parameters
    assert shown == {name: parameter.default for name, parameter in parameters.items()}


# -- findings


def sections() -> dict[str, str]:
    """The sections of the page on findings, by code."""
    page = (ROOT / "docs" / "findings.md").read_text()
    _, *parts = re.split(r"^## ", page, flags=re.MULTILINE)
    return dict(part.split("\n", 1) for part in parts)


def test_each_code_has_a_section():
    """The page is the file that the package contains, and the README names all codes."""
    from activation_monitor.analysis.findings import CODES

    assert (ROOT / "docs" / "findings.md").samefile(
        ROOT / "activation_monitor" / "docs" / "findings.md"
    )
    assert sections().keys() == CODES.keys()
    readme = (ROOT / "README.md").read_text()
    assert [code for code in CODES if f"(docs/findings.md#{code})" not in readme] == []


@pytest.mark.parametrize("code", [*sections()])
def test_a_section_shows_the_finding_and_the_fix(code):
    """The first block prints this code alone, the second one nothing found."""
    found = [block.printed for block in blocks(sections()[code])]
    assert found == [f"['{code}']\n", "[]\n"]
    for part in ("**The fix.**", "**What it cannot see.**", "**When it is reported.**"):
        assert sections()[code].count(part) == 1


def test_the_thresholds_in_the_page_are_those_of_the_table():
    """Written as `name` = value."""
    from activation_monitor.analysis.thresholds import THRESHOLDS

    named = re.findall(
        r"`([\w-]+)`\s=\s(\d+(?:\.\d+)?)", (ROOT / "docs" / "findings.md").read_text()
    )
    assert {name for name, _ in named} <= THRESHOLDS.keys()
    assert named
    for name, value in named:
        assert float(value) == THRESHOLDS[name].value, name


# -- numbers that benchmarks print


def test_the_rates_for_operations_are_those_of_their_file():
    """As `python tests/benchmarks/operations.py --report` prints them."""
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "operations.py", "--report"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    rates = re.findall(
        r"^all of today's findings +(\d+)/(\d+) = .*?\) +(\d+)/(\d+) =",
        *(done.stdout, re.MULTILINE),
    )
    page = (ROOT / "docs" / "accuracy.md").read_text()
    shown = re.findall(
        r"^\| \w+ \| (\d+) of (\d+) \| (\d+) of (\d+) \|$", page, re.MULTILINE
    )
    assert shown == rates[: len(shown)] and len(shown) == 2


def test_the_rates_of_whole_runs_are_those_of_their_file():
    """As `python tests/benchmarks/runs.py --report --half report` prints them."""
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "runs.py", "--report", "--half", "report"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    tables = done.stdout.strip().split("\n\n")
    assert len(tables) == 2
    page = (ROOT / "docs" / "accuracy.md").read_text()
    assert all(f"\n{table}\n" in page for table in tables)


def test_the_counts_of_networks_are_those_of_their_file():
    """How many networks of each half train, do not, or do with one optimizer only."""
    with (BENCHMARKS / "trainability.csv").open() as file:
        counts = Counter((row["half"], row["label"]) for row in csv.DictReader(file))
    page = (ROOT / "docs" / "accuracy.md").read_text()
    shown = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    assert len(shown) == 2
    for half, *numbers in shown:
        labels = ("good", "bad", "partial")
        assert [int(number) for number in numbers] == [
            counts[half, label] for label in labels
        ]


# -- writing what is printed


def _wrapped(text):
    lines = []
    for line in text.rstrip().splitlines():
        indent = " " * (len(line) - len(line.lstrip()))
        lines += textwrap.wrap(
            line, 92, subsequent_indent=indent, break_long_words=False
        ) or [""]
    return "\n".join(lines) + "\n"


def update(path: Path) -> None:
    """Write what the blocks of a page print into its text blocks, where they differ."""
    import tempfile

    page = path.read_text()
    with tempfile.TemporaryDirectory() as folder:
        printed = outputs(page, Path(folder))
    for block, text in reversed([*zip(blocks(page), printed, strict=True)]):
        if block.printed is None:
            if text and block.language == "python":
                print(f"{path.name}: a block prints what no text block shows:\n{text}")
        elif difference(block.printed, text):
            start, end = block.span
            page = page[:start] + _wrapped(text) + page[end:]
            print(f"{path.name}: written")
    path.resolve().write_text(page)


if __name__ == "__main__":
    if sys.argv[1:] == ["--run"]:
        run_blocks(json.load(sys.stdin))
    else:
        for path in [Path(name) for name in sys.argv[1:]] or PAGES:
            update(path)

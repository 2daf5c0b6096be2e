"""Sections of the documentation of the findings, for the terminal.

The package ships `docs/findings.md`, which has a section `## code` for each key of
`analysis.findings.CODES`.
"""

import re
from pathlib import Path

from rich.markdown import Markdown

from activation_monitor.analysis.findings import CODES
from activation_monitor.analysis.hints import no_such
from activation_monitor.views import console

FINDINGS = Path(__file__).parent.parent / "docs" / "findings.md"
"""The file that is shipped with the package."""

_FENCE = re.compile(r"\s*(```|~~~)")


def explain(code: str, file: Path = FINDINGS) -> str:
    """The section of the documentation on a finding.

    Args:
        code: The code of a finding, a key of `CODES`.
        file: The Markdown file. Defaults to `FINDINGS`.

    Returns:
        The section as Markdown, from its heading to the next one of the same level.

    Raises:
        ValueError: If there is no finding of that code, or the file has no section on it.
        OSError: If the file cannot be read.
    """
    if code not in CODES:
        raise ValueError(f"explain: {no_such('finding', code, CODES, listed=True)}")
    found = sections(file.read_text(encoding="utf-8"))
    if code not in found:
        raise ValueError(
            f"explain: expected a section `## {code}` in {file}. Received: sections on "
            f"{', '.join(found) or 'nothing'}."
        )
    return found[code]


def sections(text: str) -> dict[str, str]:
    """The sections of second level of a Markdown text, by their headings.

    Args:
        text: Markdown with headings such as ``## dead-units`` or ``## `dead-units` ``.
            A line in a block of code is not a heading.
    """
    found, name, fence = {}, None, ""
    for line in text.splitlines():
        mark = _FENCE.match(line)
        if mark and fence in ("", mark[1]):
            fence = "" if fence else mark[1]
        elif not fence and re.match(r"##? ", line):
            name = line[3:].strip().strip("`") if line.startswith("## ") else None
            if name is not None:
                found[name] = []
        if name is not None:
            found[name].append(line)
    return {heading: "\n".join(lines).strip() for heading, lines in found.items()}


def show(code: str, file: Path = FINDINGS) -> None:
    """Print the section on a finding to the terminal. See `explain`.

    Args:
        code: The code of a finding, a key of `CODES`.
        file: The Markdown file. Defaults to `FINDINGS`.
    """
    console.show(Markdown(explain(code, file)))

"""HTML that report and notebook share: the verdict, the findings, the tables."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.views import console
from activation_monitor.views.summary import statistics_of


def verdict(diagnosis: Diagnosis) -> str:
    """The verdict in sentences, then the findings."""
    lines = reversed(console.verdict_lines(diagnosis))  # growth is told after the verdict
    sentences = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return sentences + "".join(finding(found) for found in diagnosis.findings)


def finding(found: Finding) -> str:
    """What is wrong, the cause, and the lines to change."""
    parts = [
        f'<div class="finding {escape(found.severity)}">',
        # No <h3>: JupyterLab lists it in the notebook's table of contents.
        f'<p class="title" role="heading" aria-level="3">{escape(found.title)}</p>',
        f"<p>{escape(found.message)}</p>",
    ]
    if found.fix:
        cause, reason = escape(found.fix.cause), escape(found.fix.reason)
        parts.append(f"<p><b>Cause: {cause}.</b> {reason}</p>")
        for change in found.fix.changes:
            parts.append(
                f"<p>Change {escape(change.place)}:</p><pre>{escape(change.line)}</pre>"
            )
    return "".join([*parts, "</div>"])


def table(columns: Mapping[str, str], rows: Iterable[tuple[str, Iterable[str]]]) -> str:
    """A table that scrolls within its place.

    Args:
        columns: Of each heading the class of the cells below it, "number" or "". A line
            break in a heading is kept.
        rows: Of each the class and the cells.
    """
    kinds = [f' class="{kind}"' if kind else "" for kind in columns.values()]
    head = "".join(
        f"<th{kind}>{escape(heading).replace(chr(10), '<br>')}</th>"
        for heading, kind in zip(columns, kinds, strict=True)
    )
    body = ""
    for row_kind, cells in rows:
        line = "".join(
            f"<td{kind}>{escape(cell)}</td>"
            for cell, kind in zip(cells, kinds, strict=True)
        )
        body += f'<tr class="{escape(row_kind)}">{line}</tr>'
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        "</table></div>"
    )


_SETTINGS = {"class_name": "class"}


def layer_table(
    diagnosis: Diagnosis, snapshots: Iterable[Snapshot], settings: Sequence[str]
) -> str:
    """The layers with their settings, their depth, and statistics at some steps.

    Args:
        diagnosis: Of the run; the layers are those of its first snapshot.
        snapshots: One for each step; several of one step count once.
        settings: Fields of `LayerInfo`.
    """
    at = {snapshot.step: snapshot for snapshot in snapshots}
    columns = {"layer": ""} | {_SETTINGS.get(name, name): "" for name in settings}
    columns["depth"] = "number"
    for step in at:
        columns |= {
            f"{label}\nstep {step}": "number" for label in console.STATISTICS.values()
        }
    severity = {name: found.severity for name, found in diagnosis.worst_by_layer.items()}
    rows = []
    for row, layer in enumerate(diagnosis.first.layers):
        cells = [layer.name, *(str(getattr(layer, name)) for name in settings)]
        cells.append(str(diagnosis.profile.depths[row]))
        for snapshot in at.values():
            of = statistics_of(snapshot, layer.name)
            cells += [_shown(of[name], name) for name in console.STATISTICS]
        rows.append((severity.get(layer.name, ""), cells))
    return table(columns, rows)


def _shown(value, statistic):
    return console.shown(math.nan if value is None else value, statistic)

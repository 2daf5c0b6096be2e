"""The HTML tables that the report and the notebook share."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.views import console
from activation_monitor.views.summary import statistics_of


def table(columns: Mapping[str, str], rows: Iterable[tuple[str, Iterable[str]]]) -> str:
    """A table that scrolls inside its own area.

    Args:
        columns: Heading to the class of the cells below it, "number" or "". A line break
            in a heading is kept.
        rows: For each row its class and its cells.
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
    """The layers with their settings, their depth, and their statistics at some steps.

    Args:
        diagnosis: The diagnosis of the run. The rows are the layers of its first snapshot.
        snapshots: One snapshot for each step. If two have the same step, the later counts.
        settings: Names of fields of `LayerInfo`.
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
    first, profile = diagnosis.first, diagnosis.profile
    if first is None or profile is None:  # nothing was measured
        return table(columns, rows)
    for row, layer in enumerate(first.layers):
        cells = [layer.name, *(str(getattr(layer, name)) for name in settings)]
        cells.append(str(profile.depths[row]))
        for snapshot in at.values():
            of = statistics_of(snapshot, layer.name)
            cells += [_shown(of[name], name) for name in console.STATISTICS]
        rows.append((severity.get(layer.name, ""), cells))
    return table(columns, rows)


def _shown(value, statistic):
    return console.shown(math.nan if value is None else value, statistic)

"""The HTML tables that the report and the notebook share."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.views import console
from activation_monitor.views.summary import statistics_of
from activation_monitor.views.worst_layers import worst_rows


def table(columns: Mapping[str, str], rows: Iterable[tuple[str, Iterable[str]]]) -> str:
    """A table that scrolls inside its own area.

    Args:
        columns: Heading to the class of the cells below it, "number" or "". A line break
            in a heading is kept.
        rows: For each row its class and its cells, the name of a layer first.
    """
    kinds = [f' class="{kind}"' if kind else "" for kind in columns.values()]
    head = "".join(
        f"<th{kind}>{escape(heading).replace(chr(10), '<br>')}</th>"
        for heading, kind in zip(columns, kinds, strict=True)
    )
    body = ""
    for row_kind, cells in rows:
        line = "".join(
            f"<td{kind}>{escape(cell) if place else name_html(cell)}</td>"
            for place, (cell, kind) in enumerate(zip(cells, kinds, strict=True))
        )
        body += f'<tr class="{escape(row_kind)}">{line}</tr>'
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        "</table></div>"
    )


_LONG = 40
"""Names with more characters may be broken over two lines."""


def name_html(name: str) -> str:
    """The name of a layer. A long one may be broken after a slash."""
    return escape(name).replace("/", "/<wbr>" if len(name) > _LONG else "/")


_SETTINGS = {"class_name": "class"}


def layer_table(
    diagnosis: Diagnosis, snapshots: Iterable[Snapshot], settings: Sequence[str]
) -> str:
    """The layers with their settings, their depth, and their statistics at some steps.

    Rows that `worst_layers.worst_rows` does not choose have the class "rest".

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
    chosen = {*worst_rows(diagnosis)}
    for row, layer in enumerate(first.layers):
        cells = [layer.name, *(str(getattr(layer, name)) for name in settings)]
        cells.append(str(profile.depths[row]))
        for snapshot in at.values():
            of = statistics_of(snapshot, layer.name)
            cells += [_shown(of[name], name) for name in console.STATISTICS]
        rest = "" if row in chosen else " rest"
        rows.append((f"{severity.get(layer.name, '')}{rest}".strip(), cells))
    return table(columns, rows)


def _shown(value, statistic):
    return console.shown(math.nan if value is None else value, statistic)

"""Which layers of a large network a table shows where there is no room for all."""

import math
from collections.abc import Sequence

import numpy as np

from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.findings import SEVERITIES
from activation_monitor.analysis.snapshot import Snapshot

_ALL = 40
"""Up to so many layers, a table has all of them."""

_WORST = 10
"""The number of layers in the table of a larger network."""


def worst_rows(diagnosis: Diagnosis) -> Sequence[int]:
    """Rows of the first snapshot, in order: of a small network all, else the worst.

    These are the layers of the most severe findings, then those whose rms has changed most
    from the first to the last snapshot; of a single snapshot, those whose rms is farthest
    from 1.

    Args:
        diagnosis: The diagnosis.

    Raises:
        ValueError: If nothing was measured.
    """
    first, last, single = _ends(diagnosis)
    names = first.names
    if len(names) <= _ALL:
        return range(len(names))
    rms = first.statistic("rms")
    later = dict(zip(last.names, last.statistic("rms"), strict=True))
    before = np.ones_like(rms) if single else rms
    worst_by_layer = diagnosis.worst_by_layer

    def badness(row):
        finding = worst_by_layer.get(names[row])
        severity = SEVERITIES.index(finding.severity) if finding else -1
        return severity, _change(float(before[row]), later.get(names[row], math.nan))

    worst = sorted(range(len(names)), key=badness, reverse=True)
    return sorted(worst[:_WORST])


def which(diagnosis: Diagnosis) -> str:
    """Which layers `worst_rows` chose, as a sentence; empty if these are all."""
    first, _, single = _ends(diagnosis)
    chosen, count = len(worst_rows(diagnosis)), len(first.names)
    if chosen == count:
        return ""
    how = "is farthest from 1" if single else "has changed most"
    return f"{chosen} of {count} layers: those of the findings, then those whose rms {how}."


def _ends(diagnosis: Diagnosis) -> tuple[Snapshot, Snapshot, bool]:
    """The first and the last snapshot, and whether these are one step."""
    first = diagnosis.first
    if first is None:
        raise ValueError("worst_layers: nothing was measured.")
    last = diagnosis.last or first
    return first, last, first.step == last.step


def _change(before: float, after: float) -> float:
    """Decades between two sizes. More than any number if just one is zero or not known."""
    sizes = [size if size > 0 and math.isfinite(size) else 0.0 for size in (before, after)]
    if not all(sizes):
        return math.inf if any(sizes) else 0.0
    return abs(math.log10(sizes[1]) - math.log10(sizes[0]))

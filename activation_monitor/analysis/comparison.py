"""Two runs side by side: what differs, and from which layer on."""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from activation_monitor.analysis.depth_profile import depth_profile
from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.layer_graph import LayerGraph
from activation_monitor.analysis.shown import count, one_line
from activation_monitor.analysis.snapshot import Recording, Snapshot

CHANCE = 3.0
"""Standard deviations between two draws of the same initializer that are put down to
chance."""

CHANCE_OF_ONE = 5.0
"""The same for the signal gain of one layer: more, for there are many layers."""

FLOOR = 0.1
"""Decades, a factor of 1.26, that sizes at the first step may always differ by: the batch
is another one."""

LAST_FLOOR = 0.3
"""The same at the last step, a factor of 2: training goes its own way."""

_SETTINGS = ("class_name", "activation", "width", "dtype", "fan_in", "initializer")


@dataclass(frozen=True)
class Pair:
    """A layer that both runs have.

    Attributes:
        name: Its name in the first run.
        other: Its name in the second run.
        depth: Of the layer in the first run.
        first, last: Rms in the first and in the second run at the first snapshot of each,
            and at the last; NaN if nothing finite was measured.
        differs_first, differs_last: Whether by more than chance explains.
    """

    name: str
    other: str
    depth: int
    first: tuple[float, float]
    last: tuple[float, float]
    differs_first: bool
    differs_last: bool

    @one_line
    def __repr__(self) -> str:
        first, last = (f"{a:.3g} against {b:.3g}" for a, b in (self.first, self.last))
        return f"{self.name} and {self.other}: rms {first} first, {last} last"


@dataclass(frozen=True)
class Comparison:
    """What differs between two runs.

    Attributes:
        pairs: The layers that both have, along the data path of the first run.
        differences: In words, with the layer from which on; empty if nothing differs.
    """

    pairs: tuple[Pair, ...]
    differences: tuple[str, ...]

    @one_line
    def __repr__(self) -> str:
        found = "; ".join(self.differences) or "no difference"
        return f"of {count(len(self.pairs), 'pair')} of layers: {found}"


def pair_layers(first: Snapshot, second: Snapshot) -> list[tuple[int, int]]:
    """Rows of the layers that two snapshots have in common.

    Args:
        first: In the order of whose data path the pairs are.
        second: What it is held against.

    Returns:
        Pairs of rows: by name; where no name is in both (Keras numbers the models of one
        program), by their place on the data path.
    """
    order = LayerGraph(first).order
    row_of = {name: row for row, name in enumerate(second.names)}
    by_name = [(row, row_of.get(first.layers[row].name)) for row in order]
    shared = [(row, other) for row, other in by_name if other is not None]
    return shared or list(zip(order, LayerGraph(second).order, strict=False))


def compare(
    first: Recording,
    second: Recording,
    diagnoses: tuple[Diagnosis, Diagnosis],
    names: tuple[str, str] = ("the first run", "the second run"),
) -> Comparison:
    """Hold two runs against each other.

    Sizes at the first step differ if their ratio is beyond what two draws of the same
    initializer show by chance (`CHANCE`, `FLOOR`), or if it changes by more than that from
    one layer to the next (`CHANCE_OF_ONE`); at the last step by a factor of 2
    (`LAST_FLOOR`); in any case if only one is zero or not finite.

    Args:
        first: With a snapshot at least.
        second: The same.
        diagnoses: Of both.
        names: What to call them.

    Raises:
        ValueError: If a recording is empty.
    """
    for name, recording in zip(names, (first, second), strict=True):
        if not len(recording):
            raise ValueError(
                f"compare: expected a Recording with a snapshot at least. Received: {name} "
                "has none."
            )
    rows = pair_layers(first[0], second[0])
    sizes = [
        _sizes(a, b, rows) for a, b in ((first[0], second[0]), (first[-1], second[-1]))
    ]
    allowed, jumps = _beyond_chance(first[0], [row for row, _ in rows], sizes[0])
    depths = LayerGraph(first[0]).depth
    pairs = tuple(
        Pair(
            name=first[0].layers[row].name,
            other=second[0].layers[other].name,
            depth=int(depths[row]),
            first=sizes[0][i],
            last=sizes[1][i],
            differs_first=_differ(*sizes[0][i], allowed[i]) or jumps[i],
            differs_last=_differ(*sizes[1][i], max(LAST_FLOOR, allowed[i])),
        )
        for i, (row, other) in enumerate(rows)
    )
    differences = (
        *_missing(first[0], second[0], rows, names),
        *_settings(first[0], second[0], rows),
        *_size_difference(pairs, "first"),
        *_size_difference(pairs, "last"),
        *_findings(diagnoses, names),
    )
    return Comparison(pairs, differences)


def _sizes(first, second, rows):
    """Rms in both, of each pair, by name; NaN where a later snapshot lacks the layer."""
    found = []
    for snapshot in (first, second):
        rms = np.where(snapshot.field("nonfinite") > 0, np.nan, snapshot.statistic("rms"))
        found.append(rms)
    return [
        (
            float(found[0][row]) if row < len(found[0]) else math.nan,
            float(found[1][other]) if other < len(found[1]) else math.nan,
        )
        for row, other in rows
    ]


def _beyond_chance(snapshot, rows, sizes):
    """Decades of difference at each row that chance explains; and at which rows the ratio
    changes by more than one layer's chance explains."""
    ratio = {row: _decades(*pair) for row, pair in zip(rows, sizes, strict=True)}
    at, jumps = {}, set()
    for growth_range in depth_profile(snapshot).growth_ranges:
        if not growth_range.layers:
            continue
        one = growth_range.chance_sd * math.sqrt(2.0 / growth_range.layers)
        start = growth_range.points[0].depth
        for point in growth_range.points:
            # The first point has been through one layer as well.
            spread = one * math.sqrt(point.depth - start + 1)
            at[point.row] = max(at.get(point.row, FLOOR), CHANCE * spread)
        for before, point in itertools.pairwise(growth_range.points):
            change = ratio.get(point.row, math.nan) - ratio.get(before.row, math.nan)
            if abs(change) > max(FLOOR, CHANCE_OF_ONE * one):
                jumps.add(point.row)
    allowed, reached = [], FLOOR
    for row in rows:
        reached = at.get(row, reached)
        allowed.append(reached)
    return allowed, [row in jumps for row in rows]


def _decades(a, b):
    return math.log10(b / a) if a > 0 and b > 0 else math.nan


def _differ(a, b, allowed):
    if math.isnan(a) or math.isnan(b) or a == 0 or b == 0:
        return not (a == b or (math.isnan(a) and math.isnan(b)))
    return abs(_decades(a, b)) > allowed


def _missing(first, second, rows, names):
    kept = {row for row, _ in rows}, {other for _, other in rows}
    for snapshot, of, name in zip((first, second), kept, names, strict=True):
        only = [layer.name for i, layer in enumerate(snapshot.layers) if i not in of]
        if only:
            yield f"layers only in {name}: {_listed(only)}"


def _settings(first, second, rows):
    for setting in _SETTINGS:
        other = [
            (a.name, getattr(a, setting), getattr(b, setting))
            for a, b in ((first.layers[row], second.layers[o]) for row, o in rows)
            if getattr(a, setting) != getattr(b, setting)
        ]
        if other:
            name, a, b = other[0]
            yield (
                f"{setting.replace('_', ' ')} of {_layers(len(other), len(rows))}, from "
                f"{name} on: {a or 'not known'} against {b or 'not known'}"
            )


def _size_difference(pairs, when):
    found = [pair for pair in pairs if getattr(pair, f"differs_{when}")]
    if not found:
        return
    start = found[0]

    def ratio(pair):
        a, b = getattr(pair, when)
        return b / a if a > 0 else math.nan

    text = (
        f"rms at the {when} step, of {_layers(len(found), len(pairs))}, from {start.name} "
        f"(depth {start.depth}) on: {_against(*getattr(start, when))}"
    )
    measured = [pair for pair in found if ratio(pair) > 0]
    if measured:
        worst = max(measured, key=lambda pair: abs(math.log10(ratio(pair))))
        if worst is not start:
            text += f"; most at {worst.name}: {_against(*getattr(worst, when))}"
    yield text


def _against(a, b):
    times = f", {b / a:.3g} times" if a > 0 and b > 0 else ""
    return f"{_number(a)} against {_number(b)}{times}"


def _number(value):
    return "not finite" if math.isnan(value) else f"{value:.3g}"


def _findings(diagnoses, names):
    codes = [[finding.code for finding in diagnosis.findings] for diagnosis in diagnoses]
    for one, other, name in ((*codes, names[0]), (*codes[::-1], names[1])):
        only = [code for code in one if code not in other]
        if only:
            yield f"found only in {name}: {', '.join(only)}"


def _layers(count, of):
    return f"{count} of {of} layer{'' if of == 1 else 's'}"


def _listed(names, most=3):
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest

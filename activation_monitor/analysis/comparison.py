"""The comparison of two runs: what differs, and from which layer on."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from activation_monitor.analysis.depth_profile import depth_profile
from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.layer_graph import graph_of
from activation_monitor.analysis.shown import count, listed, one_line
from activation_monitor.analysis.snapshot import Recording, Snapshot

CHANCE = 3.0
"""Standard deviations between two draws of the same initializer that are attributed to
chance."""

CHANCE_OF_ONE = 5.0
"""The same for the signal gain of one layer: larger, because there are many layers."""

FLOOR = 0.1
"""Decades, a factor of 1.26, by which sizes at the first step may always differ: the
batches differ."""

LAST_FLOOR = 0.3
"""The same at the last step, a factor of 2: no two trainings are alike."""

Rows = Sequence[tuple[int, int]]
"""Pairs of rows of two snapshots."""

_SETTINGS = ("class_name", "activation", "width", "dtype", "fan_in", "initializer")


@dataclass(frozen=True)
class Pair:
    """A layer that both runs have.

    Attributes:
        name: Its name in the first run.
        other: Its name in the second run.
        depth: Its depth in the first run.
        first, last: Its rms in the first and in the second run, at the first and at the
            last snapshot of each; NaN if nothing finite was measured.
        differs_first, differs_last: Whether these differ by more than chance.
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
        differences: In words, each with the first layer that differs; empty if nothing
            differs.
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
        first: The first snapshot. Its data path determines the order.
        second: The second snapshot.

    Returns:
        Pairs of rows, by name. If no name is in both (Keras numbers the models of one
        program), by their position on the data path.
    """
    order = graph_of(first).order
    row_of = {name: row for row, name in enumerate(second.names)}
    by_name = [(row, row_of.get(first.layers[row].name)) for row in order]
    shared = [(row, other) for row, other in by_name if other is not None]
    return shared or list(zip(order, graph_of(second).order, strict=False))


def compare(
    first: Recording,
    second: Recording,
    diagnoses: tuple[Diagnosis, Diagnosis],
    names: tuple[str, str] = ("the first run", "the second run"),
) -> Comparison:
    """Compare two runs.

    Sizes at the first step differ if their ratio is larger than chance explains for two
    draws of the same initializer (`CHANCE`, `FLOOR`), or if the ratio changes by more than
    that from one layer to the next (`CHANCE_OF_ONE`). Sizes at the last step differ by a
    factor of 2 (`LAST_FLOOR`). Both differ if only one is zero or not finite.

    Args:
        first: The first run, with at least one snapshot.
        second: The second run, with at least one snapshot.
        diagnoses: The diagnoses of both.
        names: The names of both in the messages.
            Defaults to `("the first run", "the second run")`.

    Raises:
        ValueError: If a recording is empty.
    """
    for name, recording in zip(names, (first, second), strict=True):
        if not len(recording):
            raise ValueError(
                "compare: expected a Recording with at least one snapshot. Received: "
                f"{name} has none."
            )
    rows = pair_layers(first[0], second[0])
    sizes = [
        _sizes(a, b, rows) for a, b in ((first[0], second[0]), (first[-1], second[-1]))
    ]
    allowed, jumps = _beyond_chance(first[0], [row for row, _ in rows], sizes[0])
    depths = graph_of(first[0]).depth
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


def _sizes(first: Snapshot, second: Snapshot, rows: Rows) -> list[tuple[float, float]]:
    """The rms of each pair in both snapshots; NaN where a snapshot lacks the layer."""
    found: list[np.ndarray] = []
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


def _beyond_chance(
    snapshot: Snapshot, rows: list[int], sizes: list[tuple[float, float]]
) -> tuple[list[float], list[bool]]:
    """Decades of difference that chance explains at each row; and whether the ratio changes
    there by more than chance explains for one layer."""
    ratio = {row: _decades(*pair) for row, pair in zip(rows, sizes, strict=True)}
    at: dict[int, float] = {}
    jumps: set[int] = set()
    for growth_range in depth_profile(snapshot).growth_ranges:
        if not growth_range.layers:
            continue
        one = growth_range.chance_sd * math.sqrt(2.0 / growth_range.layers)
        start = growth_range.points[0].depth
        for point in growth_range.points:
            # One layer comes before the first point as well.
            spread = one * math.sqrt(point.depth - start + 1)
            at[point.row] = max(at.get(point.row, FLOOR), CHANCE * spread)
        for before, point in itertools.pairwise(growth_range.points):
            change = ratio.get(point.row, math.nan) - ratio.get(before.row, math.nan)
            if abs(change) > max(FLOOR, CHANCE_OF_ONE * one):
                jumps.add(point.row)
    allowed: list[float] = []
    reached = FLOOR
    for row in rows:
        reached = at.get(row, reached)
        allowed.append(reached)
    return allowed, [row in jumps for row in rows]


def _decades(a: float, b: float) -> float:
    return math.log10(b / a) if a > 0 and b > 0 else math.nan


def _differ(a: float, b: float, allowed: float) -> bool:
    if math.isnan(a) or math.isnan(b) or a == 0 or b == 0:
        return not (a == b or (math.isnan(a) and math.isnan(b)))
    return abs(_decades(a, b)) > allowed


def _missing(
    first: Snapshot, second: Snapshot, rows: Rows, names: tuple[str, str]
) -> Iterator[str]:
    kept = {row for row, _ in rows}, {other for _, other in rows}
    for snapshot, of, name in zip((first, second), kept, names, strict=True):
        only = [layer.name for i, layer in enumerate(snapshot.layers) if i not in of]
        if only:
            yield f"layers only in {name}: {listed(only)}"


def _settings(first: Snapshot, second: Snapshot, rows: Rows) -> Iterator[str]:
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


def _size_difference(pairs: Sequence[Pair], when: str) -> Iterator[str]:
    found = [pair for pair in pairs if getattr(pair, f"differs_{when}")]
    if not found:
        return
    start = found[0]

    def ratio(pair: Pair) -> float:
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


def _against(a: float, b: float) -> str:
    times = f", {b / a:.3g} times" if a > 0 and b > 0 else ""
    return f"{_number(a)} against {_number(b)}{times}"


def _number(value: float) -> str:
    return "not finite" if math.isnan(value) else f"{value:.3g}"


def _findings(
    diagnoses: tuple[Diagnosis, Diagnosis], names: tuple[str, str]
) -> Iterator[str]:
    codes = [[finding.code for finding in diagnosis.findings] for diagnosis in diagnoses]
    for one, other, name in ((*codes, names[0]), (*codes[::-1], names[1])):
        only = [code for code in one if code not in other]
        if only:
            yield f"found only in {name}: {', '.join(only)}"


def _layers(count: int, of: int) -> str:
    return f"{count} of {of} layer{'' if of == 1 else 's'}"

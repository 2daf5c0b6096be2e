"""Curves over depth: which snapshots are drawn, and how they look."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.hints import no_such
from activation_monitor.analysis.records import OUTPUT
from activation_monitor.analysis.snapshot import Recording, Snapshot
from activation_monitor.views.figures import labels
from activation_monitor.views.figures import path as paths
from activation_monitor.views.figures import quantity as quantities
from activation_monitor.views.figures import statistic as statistics
from activation_monitor.views.figures.colours import theme
from activation_monitor.views.figures.style import (
    DASHES,
    NAMES,
    common,
    escape,
    short_run,
    slanted,
    whole,
)


class Look(NamedTuple):
    """How a line is drawn: its width in pixels, its opacity, the size of its markers."""

    width: float
    opacity: float
    marker: float


LOOKS = {
    # In front, last step.
    (True, True): Look(3.0, 1.0, 6),
    (True, False): Look(1.5, 0.75, 4),
    (False, True): Look(1.8, 0.8, 4),
    (False, False): Look(1.0, 0.55, 3),
}
"""By whether a run is in front, and whether a line is that of its last step."""


class Curve(NamedTuple):
    """A snapshot and how it is drawn.

    Attributes:
        run: Name of the run.
        snapshot: The snapshot.
        path: Its layers along depth.
        label: Run and step, escaped, for tooltips.
        name: The same, cut to fit.
        end: The label at the end of the line; empty for none.
        colour: Colour of the run.
        dash: Dash of the step. The last step is solid.
        look: Width, opacity and markers.
        front: Whether the run is in front.
    """

    run: str
    snapshot: Snapshot
    path: paths.Path
    label: str
    name: str
    end: str
    colour: str
    dash: str
    look: Look
    front: bool


def curves_of(
    runs: Mapping[str, Recording],
    statistic: str,
    steps: Sequence[float] | float | None,
    dark: bool,
    places: Mapping[str, int] | None,
    where: str,
    of: str = OUTPUT,
    focus: str | None = None,
    marked: Mapping[str, Finding] | None = None,
) -> list[Curve]:
    """The curves to draw: for each run the snapshots at these steps, the run in front last.

    Each run has its own colour, and each of its steps its own dash.

    Args:
        runs: Recordings by name.
        statistic: One of `STATISTICS_SHOWN`.
        steps: A step or several; None for the first and the last one of each run.
        dark: Whether the colours are for a dark page.
        places: Name of a run to its index among all runs; None for the order of `runs`.
        where: The function that the user called, for messages.
        of: The quantity. Defaults to `"output"`.
        focus: Name of the run in front. Defaults to `None`, the first run.
        marked: Name of a run to one of its findings, whose step has it in its label.
            Defaults to `None`.

    Raises:
        ValueError: If there is no run, a run has no snapshot, `statistic`, `steps` or
            `focus` is invalid, or the quantity is unknown or was not measured.
    """
    statistics.check(statistic, where, of)
    quantities.check(of, runs.values(), where)
    front = front_of(runs, focus, where)
    colours, curves = theme(dark), []
    alone = len(runs) == 1
    for run, place in sorted(places_of(runs, places).items(), key=lambda o: o[0] == front):
        recording = runs[run]
        paths.check(recording, where)
        wanted = (recording[0].step, recording[-1].step) if steps is None else steps
        # Another snapshot has nothing to draw, or no layers along depth.
        drawn = [one for one in recording if one.has(of) and one.has()]
        chosen = paths.at_steps(Recording(drawn or recording), wanted, where)
        finding = (marked or {}).get(run)
        for i, snapshot in enumerate(chosen):
            last = i == len(chosen) - 1
            step = f"step {snapshot.step}"
            long = short = step
            if not alone or places is not None:
                long, short = f"{escape(run)}, {step}", f"{short_run(run)}, {step}"
            end = labels.cut(run) if last else ""
            if alone:
                end = step
                if finding is not None and finding.step == snapshot.step:
                    end = labels.wrapped(step, f"({finding.code} begins)")
            look = LOOKS[run == front, last]
            dash = "solid" if last else DASHES[i % len(DASHES)]
            curves.append(
                Curve(
                    *(run, snapshot, paths.path(snapshot), long, short, end),
                    *(colours.run(place), dash, look, run == front),
                )
            )
    return curves


def front_of(
    runs: Mapping[str, Recording], focus: str | None, where: str, argument: str = "focus"
) -> str:
    """The name of the run in front: `focus`, or else the first one.

    Args:
        runs: Recordings by name.
        focus: A name; None for the first one.
        where: The function that the user called, for messages.
        argument: Its argument, for messages. Defaults to `"focus"`.

    Raises:
        ValueError: If there is no run, or none of that name.
    """
    if not runs:
        raise ValueError(f"{where}: expected at least one run. Received: none.")
    if focus is not None and focus not in runs:
        raise ValueError(f"{where}: `{argument}`: {no_such('run', focus, [*runs])}")
    return next(iter(runs)) if focus is None else focus


def places_of(
    runs: Mapping[str, Recording], places: Mapping[str, int] | None
) -> dict[str, int]:
    """The index of each run among all runs, which selects its colour."""
    return {run: i if places is None else places[run] for i, run in enumerate(runs)}


def dashes_in_words(curves: Sequence[Curve]) -> str:
    """What the dashes of several runs mean; empty if all lines are solid.

    >>> dashes_in_words([])
    ''
    """
    if len({curve.run for curve in curves}) == 1:
        return ""  # each line has its step at its end
    names = {"dot": "dotted", "dash": "dashed"}
    said = {}
    for curve in curves:
        first = curve.snapshot.step == min(
            one.snapshot.step for one in curves if one.run == curve.run
        )
        step = "first step" if first else f"step {curve.snapshot.step}"
        if curve.dash != "solid":
            said.setdefault(names.get(curve.dash, curve.dash), set()).add(step)
    return ", ".join(
        f"{dash}: {steps.pop() if len(steps) == 1 else 'a step between'}"
        for dash, steps in said.items()
    )


def name_depths(figure, curves, bottom):
    """Write the names of layers at the axis if there are few and all runs share them."""
    names = {curve.snapshot.names for curve in curves}
    front = curves[-1]
    deepest = max(curve.path.graph.depth.max() for curve in curves)
    ticks, title = whole(0, int(deepest)), "depth (weight layers passed)"
    if len(names) == 1 and len(front.path.graph.order) <= NAMES:
        layers = [front.snapshot.layers[row].name for row in front.path.trunk]
        ticks = slanted(front.path.x[front.path.trunk], layers, common(*names))
        title = "layer"
    places = [x for curve in curves for x in curve.path.x[curve.path.graph.order]]
    low, high = statistics.window(places, 1.0)
    spare = 0.02 * (high - low)
    figure.update_xaxes(**ticks, range=[low - spare, high + spare])
    figure.update_xaxes(title=title, row=bottom, col=1)

"""The figures of the report: which there are, each for a light and for a dark page."""

from collections.abc import Mapping
from typing import NamedTuple

from plotly import graph_objects

from activation_monitor.analysis import records
from activation_monitor.analysis.diagnosis import VERDICTS, Diagnosis
from activation_monitor.analysis.findings import shown_by
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views import figures

MOST = 8
"""Maximum number of runs with figures of their own, those with findings first. The common
figure shows all runs."""


class Pictured(NamedTuple):
    """A figure for a light page and for a dark one."""

    light: graph_objects.Figure
    dark: graph_objects.Figure


def _both(function, *args, **options):
    return Pictured(function(*args, **options), function(*args, **options, dark=True))


def of_all(runs: Mapping[str, Recording], reference: str) -> dict[str, Pictured]:
    """The figures of all runs together, by key; none of a single run.

    Args:
        runs: Recordings by name.
        reference: The name of the run that the others are compared with.
    """
    if len(runs) == 1:
        return {}
    first = {reference: runs[reference], **runs}
    places = {run: place for place, run in enumerate(runs)}
    return {"comparison": _both(figures.comparison, first, places=places)}


def of_each(
    runs: Mapping[str, Recording], diagnoses: Mapping[str, Diagnosis]
) -> dict[str, dict[str, Pictured]]:
    """The figures of the worst runs, by the name of the run and by key.

    Args:
        runs: Recordings by name.
        diagnoses: Their diagnoses.
    """
    worst = sorted(runs, key=lambda run: -VERDICTS.index(diagnoses[run].verdict))[:MOST]
    return {
        run: {
            f"{kind}-{place}": figure
            for kind, figure in _of_one(run, runs[run], diagnoses[run], place)
        }
        for place, run in enumerate(runs)
        if run in worst
    }


def _of_one(run, recording, diagnosis, place):
    """The figures of a run: first what shows its worst finding."""
    layer, worst = diagnosis.worst_layer, diagnosis.worst_finding
    measured = {name for snapshot in recording for name in snapshot.quantities}
    of, statistic = records.OUTPUT, "rms"
    if worst is not None:
        of, statistic = shown_by(worst.code, measured)
    # The size of the signal and of the gradient are one figure.
    apart = (of, statistic) != (records.OUTPUT, "rms")
    options = {"places": {run: place}}
    if apart:
        look = {"statistic": statistic, "of": of}
        yield "finding", _both(_profile, run, recording, diagnosis, **look)
    yield "depth", _both(_profile, run, recording, diagnosis)
    look = {"statistic": statistic, "of": of, "marked": worst}
    yield "heat", _both(figures.heat_map, recording, **look)
    at = worst.step if worst else None
    yield "graph", _both(figures.layer_graph, recording, diagnosis, steps=at, **look)
    yield "layer", _both(figures.layer_over_time, {run: recording}, layer, **options)
    if any(snapshot.histograms for snapshot in recording):
        yield (
            "histograms",
            _both(figures.histogram_over_time, recording, layer, place=place),
        )
    if records.WEIGHT_UPDATE in measured:
        yield "updates", _both(figures.update_ratio, recording)


def _profile(run, recording, diagnosis, **options):
    """The first and the last step, and the one at which the worst finding began."""
    worst = diagnosis.worst_finding
    steps = {recording[0].step, recording[-1].step} | ({worst.step} if worst else set())
    marked = {run: worst} if worst else None
    return figures.depth_profile(
        {run: recording}, steps=sorted(steps), marked=marked, **options
    )

"""The figures of the report: which there are, each for a light and for a dark page."""

from collections.abc import Mapping
from typing import NamedTuple

from plotly import graph_objects

from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.findings import shown_by
from activation_monitor.analysis.records import OUTPUT, OUTPUT_GRADIENT, WEIGHT_UPDATE
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views import figures
from activation_monitor.views.figures.quantity import layers_with
from activation_monitor.views.summary import worst_first

MOST = 8
"""Maximum number of runs with figures of their own, those with findings first. The common
figure shows all runs."""


class Pictured(NamedTuple):
    """A figure for a light page and for a dark one."""

    light: graph_objects.Figure
    dark: graph_objects.Figure


def _both(function, *args, **options):
    return Pictured(function(*args, **options), function(*args, **options, dark=True))


def of_all(
    runs: Mapping[str, Recording], diagnoses: Mapping[str, Diagnosis], reference: str
) -> dict[str, Pictured]:
    """The figures of all runs together, by key; none of a single run.

    Args:
        runs: Recordings by name.
        diagnoses: Their diagnoses.
        reference: The name of the run that the others are compared with.
    """
    if len(runs) == 1:
        return {}
    found = {"comparison": _both(figures.comparison, runs, reference=reference)}
    worst = worst_first(diagnoses)[0]
    of, statistic = _shown(runs[worst], diagnoses[worst])
    layer = _layer(runs[worst], diagnoses[worst], of)
    having = {
        run: recording
        for run, recording in runs.items()
        if layer is not None and layer in _measured(recording, of)
    }
    if len(having) > 1:
        options = {"statistic": statistic, "of": of, "places": _places(runs)}
        over_time = figures.statistic_over_time
        found["over-time"] = _both(over_time, having, layer, focus=worst, **options)
    return found


def of_each(
    runs: Mapping[str, Recording],
    diagnoses: Mapping[str, Diagnosis],
    reference: str,
) -> dict[str, dict[str, Pictured]]:
    """The figures of the worst runs, by the name of the run and by key.

    Args:
        runs: Recordings by name.
        diagnoses: Their diagnoses.
        reference: The name of the run that the others are compared with.
    """
    worst = worst_first(diagnoses)[:MOST]
    return {
        run: {
            f"{kind}-{place}": figure
            for kind, figure in _of_one(run, runs, diagnoses[run], reference)
        }
        for place, run in enumerate(runs)
        if run in worst
    }


def _of_one(run, runs, diagnosis, reference):
    """The figures of a run: first what shows its worst finding."""
    recording, worst, places = runs[run], diagnosis.worst_finding, _places(runs)
    of, statistic = _shown(recording, diagnosis)
    look = {"statistic": statistic, "of": of}
    # The size of the signal and of the gradient are one figure.
    apart = statistic != "rms" or of not in (OUTPUT, OUTPUT_GRADIENT)
    if apart:
        yield "finding", _profile(run, recording, diagnosis, places, **look)
    yield "depth", _profile(run, recording, diagnosis, places, **({} if apart else look))
    yield "heat", _both(figures.heat_map, recording, marked=worst, **look)
    at = worst.step if worst else None
    options = {"steps": at, "marked": worst, **look}
    graph = _both(figures.layer_graph, recording, diagnosis, **options)
    if worst:
        for one in graph:
            title = one.layout.title.text
            one.update_layout(title_text=f"{title}: {worst.code} found")
    yield "graph", graph
    layer = _layer(recording, diagnosis, of)
    of = of if layer is not None else OUTPUT
    layer = layer or diagnosis.worst_layer
    both = {
        name: runs[name] for name in (run, reference) if layer in _measured(runs[name], of)
    }
    options = {"of": of, "places": places, "focus": run}
    yield "layer", _both(figures.layer_over_time, both, layer, **options)
    counted = {name for snapshot in recording for name in snapshot.histograms}
    if counted:
        options = {"of": of if of in counted else OUTPUT, "place": places[run]}
        yield "histograms", _both(figures.histogram_over_time, recording, layer, **options)
    if WEIGHT_UPDATE in recording.quantities:
        yield "updates", _both(figures.update_ratio, recording)


def _profile(run, recording, diagnosis, places, **look):
    """The first and the last step, and the one at which the worst finding began."""
    worst = diagnosis.worst_finding
    steps = {recording[0].step, recording[-1].step} | ({worst.step} if worst else set())
    options = {"steps": sorted(steps), "marked": {run: worst} if worst else None, **look}
    # Tooltips of a single run do not name it.
    options |= {"places": places} if len(places) > 1 else {}
    return _both(figures.depth_profile, {run: recording}, **options)


def _places(runs):
    return {run: place for place, run in enumerate(runs)}


def _shown(recording, diagnosis):
    """The quantity and the statistic that show the worst finding."""
    worst = diagnosis.worst_finding
    quantities = recording.quantities
    return (OUTPUT, "rms") if worst is None else shown_by(worst.code, quantities)


def _measured(recording, of):
    """The layers of which a quantity was measured; none if it was not."""
    there = of in recording.quantities
    return layers_with(recording, of) if there or of == OUTPUT else []


def _layer(recording, diagnosis, of):
    """The worst layer of which a quantity was measured; None without one."""
    worst = diagnosis.worst_finding
    named = [*worst.layers] if worst else []
    having = _measured(recording, of)
    candidates = [diagnosis.worst_layer, *named[::-1], *having[::-1]]
    return next((layer for layer in candidates if layer in having), None)

"""The tab's routes: the page, plotly.js, the runs, a run, and the figures.

The figures are made here, from snapshots, by the functions that the report and the notebook
use. The page only draws them. A log may contain any name for a run or a layer, so names
leave this module as JSON only, and the page shows them as text only.
"""

import functools
import gzip
import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
from tensorboard import errors
from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from activation_monitor.analysis import records
from activation_monitor.analysis.findings import shown_by
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.storage.log_format import RUN, is_evaluation
from activation_monitor.storage.plugin_name import PLUGIN
from activation_monitor.views.in_words import evidence, headline
from activation_monitor.views.plugin import query
from activation_monitor.views.plugin.runs import Runs

_STATIC = Path(__file__).parent / "static"
_TYPES = {".js": "text/javascript", ".css": "text/css"}
_DAY = 86400

_COUNTED = {records.WEIGHT_UPDATE: records.WEIGHT}
"""Quantity without histograms to the one whose histograms show most of it."""

_DRAWN_HISTOGRAMS = 60
"""Maximum number of steps that are passed to the figure of the histograms."""


def _figures():
    """Import plotly, which takes a second, at the first figure and not at the start."""
    from activation_monitor.views import figures

    return figures


def _run_colours():
    from activation_monitor.views.figures import colours

    return {"light": [*colours.LIGHT.runs], "dark": [*colours.DARK.runs]}


# Werkzeug's decorator is made for methods too; its types are those of a function.
_application = cast(Callable[[Callable], Callable], wrappers.Request.application)


class Tab(base_plugin.TBPlugin):
    """TensorBoard's plugin.

    Args:
        context: TensorBoard's `TBContext`.
    """

    plugin_name = PLUGIN

    def __init__(self, context):
        self._runs = Runs(context.data_provider, context.logdir or "")
        self._kept = (context.sampling_hints or {}).get(PLUGIN, 0)

    def get_plugin_apps(self) -> dict[str, Callable]:
        """The routes. Each is an exact name, so no path leads out of the folder."""
        routes: dict[str, Callable] = {
            f"/{path.name}": functools.partial(self._static, path)
            for path in _STATIC.iterdir()
            if path.suffix in _TYPES
        }
        routes["/plotly.min.js"] = self._plotly
        routes["/runs"] = self._list
        routes["/run"] = self._run
        routes["/figure"] = self._figure
        return routes

    def is_active(self) -> bool:
        """False: TensorBoard itself checks whether there are data of the plugin."""
        return False

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """The name of the tab and the script that builds its page."""
        return base_plugin.FrontendMetadata(
            es_module_path="/index.js", tab_name="Activations"
        )

    @_application
    def _static(self, path, request):
        return http_util.Respond(request, path.read_bytes(), _TYPES[path.suffix])

    @_application
    def _plotly(self, request):
        return http_util.Respond(
            *(request, _plotly_script(), "text/javascript"),
            content_encoding="gzip",
            expires=_DAY,
        )

    @_application
    def _list(self, request):
        states = self._runs.states(*query.where(request))
        note = ""
        if self._kept:
            note = (
                f"TensorBoard keeps a random sample of {self._kept} steps of each run, as "
                "--samples_per_plugin says. The findings below may miss problems at other "
                "steps."
            )
        return _json(
            request,
            {
                "runs": [
                    {"name": name, "state": [*state], "place": place}
                    for place, (name, state) in enumerate(_training_first(states))
                ],
                "colours": _run_colours(),
                # In the script's address: a browser must not reuse an older plotly.js.
                "plotly": importlib.metadata.version("plotly"),
                "note": note,
            },
        )

    @_application
    def _run(self, request):
        name = query.value(request, "run")
        run = self._runs.read(*query.where(request), name, refresh=True)
        row = headline(run.diagnosis) if run.diagnosis else None
        return _json(
            request,
            {
                "name": name,
                "label": label(name),
                "problem": run.problem,
                "note": run.note,
                "steps": run.recording.steps,
                "columns": min(len(run.recording), _figures().COLUMNS),
                "layers": run.layers,
                "worst_layer": run.worst_layer,
                "findings": [
                    finding.to_dict()
                    | {
                        "worst_layer": finding.worst_layer,
                        "shown_by": _shown_by(finding, run),
                        "in_words": evidence(finding),
                    }
                    for finding in run.findings
                ],
                "since": row and row.since,
                "change": row and {"place": row.place, "line": row.line},
                "worst_finding": run.worst_finding and run.worst_finding.code,
                "statistics": _statistics(run),
                "verdict": run.verdict,
                "reason": run.reason,
                "evaluation": any(snapshot.evaluation for snapshot in run.recording),
            },
        )

    @_application
    def _figure(self, request):
        kind = query.value(request, "kind")
        if kind not in self._drawn_by:
            raise errors.InvalidArgumentError(
                f"`kind` must be one of {', '.join(self._drawn_by)}. Received: {kind!r}."
            )
        where = query.where(request)
        runs = {
            name: self._runs.read(*where, name) for name in query.values(request, "run")
        }
        for run in runs.values():
            if run.problem or not len(run.recording):
                raise errors.NotFoundError(run.problem or "Nothing has been measured yet.")
        dark = request.args.get("dark") == "1"
        figure = self._drawn_by[kind](self, request, runs, dark)
        return http_util.Respond(request, figure.to_json(), "application/json")

    def _places(self, request):
        """The index of each run among all runs of the log, which selects its colour: a run
        keeps its colour when others are hidden."""
        states = self._runs.states(*query.where(request))
        return {label(name): i for i, (name, _) in enumerate(_training_first(states))}

    def _depth_profile(self, request, runs, dark):
        step, reading = query.step(request), query.reading(request, runs)
        focus = query.run(request, runs, "focus")
        marked = query.finding(request, runs[focus])
        chosen = {
            label(name): _first_and(
                run,
                reading["of"],
                *([marked.step] if marked and name == focus else []),
                step,
            )
            for name, run in runs.items()
        }
        return _figures().depth_profile(
            chosen,
            # Of each run the first step, and last the chosen one, which is a solid line.
            steps=[-np.inf, *([marked.step] if marked else []), step],
            dark=dark,
            places=self._places(request),
            marked={label(focus): marked} if marked else None,
            focus=label(focus),
            chosen=request.args.getlist("chosen"),
            **reading,
        )

    def _comparison(self, request, runs, dark):
        step, reading = query.step(request), query.reading(request, runs)
        of = reading["of"]
        chosen = {label(name): _first_and(run, of, step) for name, run in runs.items()}
        return _figures().comparison(
            chosen,
            dark=dark,
            places=self._places(request),
            reference=label(query.run(request, runs, "reference")),
            focus=label(query.run(request, runs, "focus")),
            **reading,
        )

    def _heat_map(self, request, runs, dark):
        run = _only(runs)
        found = {finding.step for finding in run.diagnosis.findings}
        # The figure would thin a longer recording again and could drop these steps.
        recording = _thinned(run.recording, _figures().COLUMNS - len(found), found)
        return _figures().heat_map(
            recording,
            dark=dark,
            marked=query.finding(request, run),
            chosen=request.args.getlist("chosen"),
            **query.reading(request, runs),
        )

    def _layer_over_time(self, request, runs, dark):
        layer = query.layer(request, runs)
        having = _having(layer, runs)
        of = _measured_of(having, layer, query.reading(request)["of"])
        return _figures().layer_over_time(
            having, layer, dark=dark, places=self._places(request), of=of
        )

    def _statistic_over_time(self, request, runs, dark):
        layer, reading = query.layer(request, runs), query.reading(request)
        having = _having(layer, runs)
        if _measured_of(having, layer, reading["of"]) != reading["of"]:
            reading = {}
        focus = label(query.run(request, runs, "focus"))
        return _figures().statistic_over_time(
            having,
            layer,
            dark=dark,
            places=self._places(request),
            focus=focus if focus in having else None,
            **reading,
        )

    def _histogram_over_time(self, request, runs, dark):
        run = _only(runs)
        (name,) = runs
        layer, of = query.layer(request, runs), query.reading(request)["of"]
        of = _measured_of(_having(layer, runs), layer, of)
        read = functools.partial(
            self._runs.with_histograms, *query.where(request), name, layer
        )
        for counted in dict.fromkeys((of, _COUNTED.get(of, of), records.OUTPUT)):
            recording = read(counted)
            if len(recording):
                break
        if not len(recording):  # the figure then says why it is empty
            recording = Recording(s for s in run.recording if layer in s.names)
        recording = _thinned(recording, _DRAWN_HISTOGRAMS)
        place = self._places(request).get(label(name), 0)
        return _figures().histogram_over_time(
            recording, layer, dark=dark, place=place, of=counted
        )

    def _layer_graph(self, request, runs, dark):
        run = _only(runs)
        return _figures().layer_graph(
            *(run.recording, run.diagnosis),
            steps=query.step(request),
            dark=dark,
            marked=query.finding(request, run),
            chosen=request.args.getlist("chosen"),
            **query.reading(request, runs),
        )

    _drawn_by = {
        "depth_profile": _depth_profile,
        "heat_map": _heat_map,
        "layer_over_time": _layer_over_time,
        "histogram_over_time": _histogram_over_time,
        "statistic_over_time": _statistic_over_time,
        "layer_graph": _layer_graph,
        "comparison": _comparison,
    }


def label(run: str) -> str:
    """The name that the tab shows for a run: its log folder, without the run folder in it.

    Args:
        run: The name that TensorBoard has for it, a path.
    """
    folder, _, last = run.rpartition("/")
    if last == RUN:
        return folder or "."
    if is_evaluation(run):
        return f"{folder or '.'} (validation)"
    return run


def _training_first(states):
    """Runs with their states by the path of their folder; those of evaluations last. So a
    run of training has the place, and the colour, that it has in the report."""

    def order(pair):
        return is_evaluation(pair[0]), PurePosixPath(label(pair[0]))

    return sorted(states.items(), key=order)


def _shown_by(finding, run):
    return query.key(*shown_by(finding.code, run.measured))


def _statistics(run):
    """The statistics of a run from which the reader can choose."""
    return [
        {"value": query.key(of, name), "text": _figures().words(name, of)}
        for of, name in _figures().readings(run.measured)
    ]


def _having(layer, runs):
    """The recordings of the runs that have a layer, by label."""
    return {label(name): run.recording for name, run in runs.items() if layer in run.names}


def _measured_of(recordings, layer, of):
    """The quantity, or that of outputs if a layer does not have it: a layer without weights
    has no updates."""
    there = any(
        snapshot.field("count", of)[snapshot.names.index(layer)] > 0
        for recording in recordings.values()
        for snapshot in recording
        if of in snapshot.quantities and layer in snapshot.names
    )
    return of if there else records.OUTPUT


def _json(request, content):
    return http_util.Respond(request, content, "application/json")


def _only(runs):
    if len(runs) != 1:
        raise errors.InvalidArgumentError(
            f"This figure shows one run. Received: {len(runs)} runs."
        )
    (run,) = runs.values()
    return run


def _first_and(run, of, *steps):
    """A recording of the first snapshot, which shows the initialization, and of steps."""
    chosen = [run.recording[0], *(run.at(step, of) for step in steps)]
    by_step = {snapshot.step: snapshot for snapshot in chosen}
    return Recording(by_step[step] for step in sorted(by_step))


def _thinned(recording, most, keep=()):
    """At most `most` snapshots, evenly spaced, and those of the steps `keep` as well."""
    n = len(recording)
    if n <= most:
        return recording
    even = set(np.linspace(0, n - 1, most).round().astype(int).tolist())
    kept = even | {i for i, step in enumerate(recording.steps) if step in keep}
    return Recording(recording[i] for i in sorted(kept))


@functools.cache
def _plotly_script():
    """plotly.js of the installed package, which is not imported; compressed once."""
    found = cast(Any, importlib.util.find_spec("plotly"))  # a dependency, so it is there
    folder = Path(found.origin).parent
    script = (folder / "package_data" / "plotly.min.js").read_bytes()
    return gzip.compress(script, 6, mtime=0)

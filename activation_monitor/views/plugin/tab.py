"""The tab's routes: the page, plotly.js, the runs, a run, and the figures.

Every figure is made here, from snapshots, by the functions that the report and the
notebook use; the page draws them. Names of runs and layers are whatever a log says: they
leave here as JSON only, and the page shows them as text only.
"""

import functools
import gzip
import importlib.metadata
import importlib.util
from pathlib import Path

import numpy as np
from tensorboard import errors, plugin_util
from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from activation_monitor.analysis.findings import CODES
from activation_monitor.analysis.hints import no_such
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.storage.log_format import RUN, is_evaluation
from activation_monitor.views.plugin.entry import PLUGIN
from activation_monitor.views.plugin.runs import Runs

_STATIC = Path(__file__).parent / "static"
_TYPES = {".js": "text/javascript", ".css": "text/css"}
_DAY = 86400

_DRAWN_STEPS = 500
"""Columns of a heat map, and histograms: more than a screen can tell apart, and what the
browser draws in a fraction of a second."""

_DRAWN_HISTOGRAMS = 60


def _figures():
    """Imports plotly, which takes a second: at the first figure, not at the start."""
    from activation_monitor.views import figures

    return figures


def _run_colours():
    from activation_monitor.views.figures import style

    return {"light": [*style.LIGHT.runs], "dark": [*style.DARK.runs]}


class Tab(base_plugin.TBPlugin):
    """TensorBoard's plugin.

    Args:
        context: TensorBoard's `TBContext`.
    """

    plugin_name = PLUGIN

    def __init__(self, context):
        self._runs = Runs(context.data_provider, context.logdir or "")
        self._kept = (context.sampling_hints or {}).get(PLUGIN, 0)

    def get_plugin_apps(self):
        """The routes, each exact: there is no path to leave the folder by."""
        routes = {
            f"/{path.name}": functools.partial(self._static, path)
            for path in _STATIC.iterdir()
            if path.suffix in _TYPES
        }
        routes["/plotly.min.js"] = self._plotly
        routes["/runs"] = self._list
        routes["/run"] = self._run
        routes["/figure"] = self._figure
        return routes

    def is_active(self):
        """TensorBoard itself looks whether there is data of ours."""
        return False

    def frontend_metadata(self):
        """Name of the tab and where its page starts."""
        return base_plugin.FrontendMetadata(
            es_module_path="/index.js", tab_name="Activations"
        )

    @wrappers.Request.application
    def _static(self, path, request):
        return http_util.Respond(request, path.read_bytes(), _TYPES[path.suffix])

    @wrappers.Request.application
    def _plotly(self, request):
        return http_util.Respond(
            *(request, _plotly_script(), "text/javascript"),
            content_encoding="gzip",
            expires=_DAY,
        )

    @wrappers.Request.application
    def _list(self, request):
        states = self._runs.states(*_where(request))
        note = ""
        if self._kept:
            note = (
                f"TensorBoard was told to keep {self._kept} steps of each run, a random "
                "sample: the findings below may miss what happened at the others."
            )
        return _json(
            request,
            {
                "runs": [{"name": name, "state": [*s]} for name, s in states.items()],
                "statistics": [*_figures().STATISTICS_SHOWN],
                "colours": _run_colours(),
                # So that a browser does not keep the script of an older one.
                "plotly": importlib.metadata.version("plotly"),
                "note": note,
            },
        )

    @wrappers.Request.application
    def _run(self, request):
        name = _asked(request, "run")
        run = self._runs.read(*_where(request), name, refresh=True)
        return _json(
            request,
            {
                "name": name,
                "label": label(name),
                "problem": run.problem,
                "note": run.note,
                "steps": run.recording.steps,
                "columns": min(len(run.recording), _DRAWN_STEPS),
                "layers": [{"name": name, "depth": depth} for name, depth in run.layers],
                "findings": [_finding(f) for f in run.findings],
                "verdict": run.verdict,
                "reason": run.reason,
                "evaluation": any(snapshot.evaluation for snapshot in run.recording),
            },
        )

    @wrappers.Request.application
    def _figure(self, request):
        kind = _asked(request, "kind")
        if kind not in self._drawn_by:
            raise errors.InvalidArgumentError(
                f"`kind` must be one of {', '.join(self._drawn_by)}. Received: {kind!r}."
            )
        where = _where(request)
        runs = {name: self._runs.read(*where, name) for name in _all_asked(request, "run")}
        for run in runs.values():
            if run.problem or not len(run.recording):
                raise errors.NotFoundError(run.problem or "Nothing was measured yet.")
        dark = request.args.get("dark") == "1"
        figure = self._drawn_by[kind](self, request, runs, dark)
        return http_util.Respond(request, figure.to_json(), "application/json")

    def _places(self, request):
        """Of each run its place among all of the log, by which it has its colour whatever
        is hidden; None of a log with one run, whose steps have colours."""
        names = self._runs.states(*_where(request))
        return {label(n): i for i, n in enumerate(names)} if len(names) > 1 else None

    def _depth_profile(self, request, runs, dark):
        step, statistic = _step(request), _statistic(request)
        chosen = {label(name): _first_and(run, step) for name, run in runs.items()}
        return _figures().depth_profile(
            chosen, statistic, dark=dark, places=self._places(request)
        )

    def _comparison(self, request, runs, dark):
        step, statistic = _step(request), _statistic(request)
        chosen = {label(name): _first_and(run, step) for name, run in runs.items()}
        return _figures().comparison(
            chosen, statistic, dark=dark, places=self._places(request)
        )

    def _heat_map(self, request, runs, dark):
        run = _only(runs)
        found = {finding.step for finding in run.diagnosis.findings}
        # As many as the figure draws, which would thin more of them again.
        recording = _thinned(run.recording, _DRAWN_STEPS - len(found), found)
        return _figures().heat_map(recording, _statistic(request), dark=dark)

    def _layer_over_time(self, request, runs, dark):
        layer = _layer(request, runs)
        having = {
            label(name): run.recording
            for name, run in runs.items()
            if any(layer == known for known, _ in run.layers)
        }
        return _figures().layer_over_time(
            having, layer, dark=dark, places=self._places(request)
        )

    def _histogram_over_time(self, request, runs, dark):
        _only(runs)  # else an error
        ((name, run),) = runs.items()
        layer = _layer(request, runs)
        recording = self._runs.with_histograms(*_where(request), name, layer)
        if not len(recording):  # without histograms, the figure says why it is empty
            recording = Recording(s for s in run.recording if layer in s.names)
        recording = _thinned(recording, _DRAWN_HISTOGRAMS)
        place = (self._places(request) or {}).get(label(name), 0)
        return _figures().histogram_over_time(recording, layer, dark=dark, place=place)

    def _layer_graph(self, request, runs, dark):
        run = _only(runs)
        return _figures().layer_graph(
            *(run.recording, run.diagnosis, _statistic(request), _step(request)), dark=dark
        )

    _drawn_by = {
        "depth_profile": _depth_profile,
        "heat_map": _heat_map,
        "layer_over_time": _layer_over_time,
        "histogram_over_time": _histogram_over_time,
        "layer_graph": _layer_graph,
        "comparison": _comparison,
    }


def label(run: str) -> str:
    """A run as people call it: by its log folder, in which we write a folder of ours."""
    folder, _, last = run.rpartition("/")
    if last == RUN:
        return folder or "."
    if is_evaluation(run):
        return f"{folder or '.'} (validation)"
    return run


def _where(request):
    return (
        plugin_util.context(request.environ),
        plugin_util.experiment_id(request.environ),
    )


def _json(request, content):
    return http_util.Respond(request, content, "application/json")


def _all_asked(request, name):
    found = request.args.getlist(name)
    if not found:
        raise errors.InvalidArgumentError(f"The query must say `{name}`.")
    return found


def _asked(request, name):
    return _all_asked(request, name)[0]


def _only(runs):
    if len(runs) != 1:
        raise errors.InvalidArgumentError(
            f"This figure shows one run. Received: {len(runs)} runs."
        )
    (run,) = runs.values()
    return run


def _step(request):
    """The step that is asked for; without one, the last."""
    text = request.args.get("step", "")
    try:
        return int(text) if text else np.inf
    except ValueError:
        raise errors.InvalidArgumentError(
            f"`step` must be an integer. Received: {text!r}."
        ) from None


def _statistic(request):
    statistic = request.args.get("statistic", "rms")
    if statistic not in _figures().STATISTICS_SHOWN:
        raise errors.InvalidArgumentError(
            f"`statistic` must be one of {', '.join(_figures().STATISTICS_SHOWN)}. "
            f"Received: {statistic!r}."
        )
    return statistic


def _layer(request, runs):
    layer = _asked(request, "layer")
    if not any(layer == name for run in runs.values() for name, _ in run.layers):
        known = [name for run in runs.values() for name, _ in run.layers]
        raise errors.NotFoundError(f"These runs have {no_such('layer', layer, known)}")
    return layer


def _first_and(run, step):
    """The first snapshot, which shows the initialization, and the chosen one."""
    first, chosen = run.recording[0], run.at(step)
    return Recording([first] if chosen is first else [first, chosen])


def _thinned(recording, most, keep=()):
    """So many snapshots, evenly taken, and those of the steps to keep."""
    n = len(recording)
    if n <= most:
        return recording
    even = set(np.linspace(0, n - 1, most).round().astype(int).tolist())
    kept = even | {i for i, step in enumerate(recording.steps) if step in keep}
    return Recording(recording[i] for i in sorted(kept))


def _finding(finding):
    """A finding as the page shows it."""
    fix = finding.fix
    return {
        "code": finding.code,
        "meaning": CODES[finding.code],
        "severity": finding.severity,
        "initial": finding.initial,
        "when": finding.when,
        "step": finding.step,
        "layers": [*finding.layers],
        "message": finding.message,
        "evidence": [[name, f"{value:.4g}"] for name, value in finding.evidence.items()],
        "cause": fix.cause if fix else "",
        "reason": fix.reason if fix else "",
        "changes": [{"place": change.place, "line": change.line} for change in fix.changes]
        if fix
        else [],
    }


@functools.cache
def _plotly_script():
    """plotly.js of the installed package, which need not be imported; compressed once."""
    folder = Path(importlib.util.find_spec("plotly").origin).parent
    script = (folder / "package_data" / "plotly.min.js").read_bytes()
    return gzip.compress(script, 6, mtime=0)

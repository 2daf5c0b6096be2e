"""Reads the runs that TensorBoard holds, judges them, and caches the result.

TensorBoard returns one tag at a time, with all of its steps. Snapshots that were decoded
and judged before are cached, so only new ones are decoded and judged.
"""

import contextlib
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tensorboard import errors
from tensorboard.data import provider

from activation_monitor.analysis import histogram, records
from activation_monitor.analysis.diagnosis import summary
from activation_monitor.analysis.health import Health, judge
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.storage import log_format
from activation_monitor.storage.plugin_name import PLUGIN
from activation_monitor.storage.record_file import EVENT_FILES, check
from activation_monitor.views.plugin.run import Run, State

_HISTOGRAMS = "histograms"
_KEEP_RUNS = 16
"""Number of runs in the cache."""

_EVERYTHING = 1_000_000_000
"""As many steps as there are: TensorBoard requires a number."""

_WITH_HISTOGRAMS = 200
"""Number of steps of which histograms are requested: more than a figure shows apart."""

_IF_TOO_MANY = 1000
"""Number of steps that are requested if all of them are too many for one answer."""


class Datum(NamedTuple):
    """One value of a tag."""

    step: int
    wall_time: float
    array: np.ndarray


class Runs:
    """The runs of a log folder.

    Args:
        data_provider: The data provider of TensorBoard, with either loader.
        logdir: The log folder. Its files are checked for damage, which TensorBoard does not
            report. Nothing is checked if it is not a folder on this machine. Defaults to
            `""`.
    """

    def __init__(self, data_provider: provider.DataProvider, logdir: str = ""):
        # Its methods have no types, and a checker infers None for abstract ones.
        self._provider: Any = data_provider
        self._logdir = logdir
        self._runs: OrderedDict[tuple[str, str], Run] = OrderedDict()
        self._locks: dict[tuple[str, str], threading.Lock] = {}
        self._lock = threading.Lock()

    def states(self, context, experiment: str) -> dict[str, State]:
        """The runs with data of the plugin, sorted by name, and their states.

        TensorBoard's fast loader lists the runs in a different order at every start.
        """
        listed = self._list(context, experiment)
        return {
            name: State(
                max(tag.max_step for tag in tags.values()),
                max(tag.max_wall_time for tag in tags.values()),
            )
            for name, tags in sorted(listed.items())
            if tags
        }

    def read(self, context, experiment: str, name: str, refresh: bool = False) -> Run:
        """A run with everything that TensorBoard holds of it.

        Args:
            context: TensorBoard's request context.
            experiment: TensorBoard's experiment id.
            name: Name of the run.
            refresh: Whether to read new steps if the run is in the cache. Defaults to
                `False`.

        Raises:
            tensorboard.errors.NotFoundError: If there is no run of that name.
        """
        key = experiment, name
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            run = self._runs.get(key)
            if run is None or refresh:
                run = self._read(context, experiment, name, run)
            with self._lock:
                self._runs[key] = run
                self._runs.move_to_end(key)
                while len(self._runs) > _KEEP_RUNS:
                    gone, _ = self._runs.popitem(last=False)
                    self._locks.pop(gone, None)
        return run

    def with_histograms(
        self, context, experiment: str, name: str, layer: str, of: str = records.OUTPUT
    ) -> Recording:
        """Snapshots with a histogram of this layer, at up to `_WITH_HISTOGRAMS` steps.

        Of a log of version 1 or 2 they are those whose histogram TensorBoard has kept: a
        random sample, as for its own Histograms tab.

        Args:
            context: TensorBoard's request context.
            experiment: TensorBoard's experiment id.
            name: Name of the run.
            layer: Name of the layer.
            of: The quantity. Defaults to `"output"`.

        Returns:
            A recording, empty if the run has no histograms of the quantity.
        """
        run = self.read(context, experiment, name)
        if of not in log_format.HISTOGRAMS_TAGS:
            return Recording()

        def kept(tag, plugin):
            found = self._tag(context, experiment, name, tag, plugin, _WITH_HISTOGRAMS)
            return {(one.step, one.wall_time): one.array for one in found}

        ours, theirs = kept(log_format.HISTOGRAMS_TAGS[of], PLUGIN), {}
        if of == records.OUTPUT:
            theirs = kept(log_format.HISTOGRAM_PREFIX + layer, _HISTOGRAMS)
        found = []
        for snapshot, key in zip(run.recording, run.written, strict=True):
            if layer not in snapshot.names:
                continue
            if key in ours:
                add = log_format.with_histograms
                found.append(add(snapshot, of, ours[key]))
            elif key in theirs and len(theirs[key]) == histogram.BUCKETS:
                found.append(log_format.with_histogram(snapshot, layer, theirs[key]))
        return Recording(found)

    def _list(self, context, experiment, name=None):
        return self._provider.list_tensors(
            context,
            experiment_id=experiment,
            plugin_name=PLUGIN,
            run_tag_filter=provider.RunTagFilter(runs=None if name is None else [name]),
        )

    def _read(self, context, experiment, name, before):
        tags = self._list(context, experiment, name).get(name)
        if not tags:
            raise errors.NotFoundError(f"There is no run {name!r} with activations.")
        newest = max(tags.values(), key=lambda tag: tag.max_wall_time)
        state = State(
            max(tag.max_step for tag in tags.values()),
            newest.max_wall_time,
        )
        evaluations = self._evaluations(context, experiment, name)
        if (
            before is not None
            and before.state == state
            and before.recording.evaluations is evaluations
        ):
            return before
        checked = self._check(name, before.checked if before else {})
        damage = _damage(checked)
        try:
            for tag in tags.values():
                log_format.check_version(tag.plugin_content)
            run = self._grown(context, experiment, name, tags, before, state)
            run.recording.evaluations = evaluations
            _judge(run, before)
        except Exception as error:  # a file may hold anything; the other runs are shown
            return Run(problem=f"{name}: {error} {damage}".rstrip())
        run.note, run.checked = f"{run.note} {damage}".strip(), checked
        return run

    def _evaluations(self, context, experiment, name):
        """The evaluations of a run of training; None if there are none."""
        beside = log_format.evaluations_of(name)
        try:
            if beside is not None:
                found = self.read(context, experiment, beside, refresh=True).recording
                return found if len(found) else None
        except errors.NotFoundError:
            pass
        return None

    def _check(self, name, before):
        """The files of a run that can be opened, with the result of their check."""
        folder = Path(self._logdir) / name
        if not self._logdir or not folder.is_dir():
            return {}
        checked = {}
        for path in sorted(folder.glob(EVENT_FILES)):
            with contextlib.suppress(OSError):
                checked[path] = check(path, before.get(path))
        return checked

    def _grown(self, context, experiment, name, tags, before, state):
        def written(tag, most=_EVERYTHING):
            if tag not in tags:
                return []
            found = self._tag(context, experiment, name, tag, PLUGIN, most)
            return log_format.without_undone(found)

        def snapshots_with(most=_EVERYTHING):
            # A run that a newer version resumed has both tags; the older one is first.
            found = [
                (tag, one)
                for tag in reversed(log_format.SNAPSHOT_TAGS[:2])
                for one in written(tag, most)
            ]
            kept = log_format.without_undone([one for _, one in found])
            tag_of = {one.wall_time: tag for tag, one in found}
            return kept, {one.wall_time: {tag_of[one.wall_time]: one.array} for one in kept}

        note = ""
        try:
            arrays, by_time = snapshots_with()
        except Exception:  # an answer of the fast loader is limited to 256 MiB
            arrays, by_time = snapshots_with(_IF_TOO_MANY)
            note = (
                f"{name} has more steps than TensorBoard can return at once. A random "
                f"sample of {len(arrays)} steps is shown. --load_fast=false shows all."
            )
        tables = written(log_format.LAYERS_TAG)
        if arrays and not tables:
            raise ValueError(
                "its list of layers is missing. Expected a log that an ActivationMonitor "
                "wrote."
            )
        keys = [(one.step, one.wall_time) for one in arrays]
        run = Run(state=state, note=note, written=keys)
        snapshots = []
        if before is not None and before.written == keys[: len(before.written)]:
            snapshots = [*before.recording]
        starts = [one.step for one in tables]
        evaluation = log_format.is_evaluation(name)
        parsed = [
            log_format.table_from_json(one.array.item(), evaluation) for one in tables
        ]
        new = arrays[len(snapshots) :]
        for tag in log_format.SNAPSHOT_TAGS[2:] if new else ():
            for one in written(tag):  # all tags of one event have its wall time
                by_time.get(one.wall_time, {})[tag] = one.array
        for one in new:
            table = parsed[max(np.searchsorted(starts, one.step, side="right") - 1, 0)]
            snapshots.append(log_format.decode(one.step, table, by_time[one.wall_time]))
        run.recording = Recording(snapshots)
        return run

    def _tag(self, context, experiment, name, tag, plugin, most=_EVERYTHING):
        found = self._provider.read_tensors(
            context,
            experiment_id=experiment,
            plugin_name=plugin,
            downsample=most,
            run_tag_filter=provider.RunTagFilter(runs=[name], tags=[tag]),
        )
        return [
            Datum(datum.step, datum.wall_time, datum.numpy)
            for datum in found.get(name, {}).get(tag, ())
        ]


def _judge(run, before):
    """Judge the snapshots of a run: the new ones, if they all come after those before."""
    todo, health = run.recording.in_order, Health()
    if before is not None:
        known = before.recording.in_order
        pairs = zip(known, todo, strict=False)
        if len(known) <= len(todo) and all(one is other for one, other in pairs):
            todo, health = todo[len(known) :], before.health
    for snapshot in todo:
        health, _ = judge(health, snapshot)
    run.health = health
    run.diagnosis = summary(run.recording, health.findings)


def _damage(checked):
    """A sentence for each damaged file of a run; empty if there is none."""
    return " ".join(
        f"{path.name} is damaged at byte {found.damaged}: TensorBoard stops reading there "
        "or shows wrong numbers. `activation-monitor report` shows all that can be read."
        for path, found in checked.items()
        if found.damaged is not None
    )

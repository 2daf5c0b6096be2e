"""What TensorBoard holds of a run: read, made into snapshots, judged and kept.

TensorBoard answers a tag at a time, with every step of it. What was converted and judged
before is kept, and only what is new is converted and judged.
"""

import contextlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tensorboard import errors
from tensorboard.data import provider

from activation_monitor.analysis.diagnosis import Diagnosis, summary
from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.health import Health, judge
from activation_monitor.analysis.snapshot import Recording, Snapshot
from activation_monitor.storage import log_format
from activation_monitor.storage.record_file import EVENT_FILES, Checked, check

_HISTOGRAMS = "histograms"
_KEEP_RUNS = 16
_EVERYTHING = 1_000_000_000
_IF_TOO_MANY = 1000


class State(NamedTuple):
    """By what is seen that a run has grown."""

    step: int
    wall_time: float


class Datum(NamedTuple):
    """One value of a tag."""

    step: int
    wall_time: float
    array: np.ndarray


@dataclass
class Run:
    """A run as far as it was read.

    Attributes:
        recording: Its snapshots.
        health: What is known of them.
        diagnosis: What they say.
        problem: Why it cannot be shown; empty if it can.
        note: What is not shown of it; empty if all is.
        state, written: What TensorBoard had of it when it was read.
        checked: Its files, as far as they were checked for damage.
    """

    recording: Recording = field(default_factory=Recording)
    health: Health = field(default_factory=Health)
    diagnosis: Diagnosis | None = None
    problem: str = ""
    note: str = ""
    state: State | None = None
    written: list[tuple[int, float]] = field(default_factory=list)
    checked: dict[Path, Checked] = field(default_factory=dict)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found; nothing in a run that cannot be read."""
        return self.diagnosis.findings if self.diagnosis else ()

    @property
    def verdict(self) -> str:
        """`Diagnosis.verdict`, "not assessed" for a run that cannot be read."""
        return self.diagnosis.verdict if self.diagnosis else "not assessed"

    @property
    def reason(self) -> str:
        """Why growth with depth could not be assessed, if that is the verdict."""
        unknown = self.diagnosis is None or self.verdict != "not assessed"
        return "" if unknown else self.diagnosis.not_assessed

    @property
    def layers(self) -> list[tuple[str, int]]:
        """Names and depths of all layers, in the order of the calls; of the first snapshot
        and then what later ones have besides."""
        if self.diagnosis is None or self.diagnosis.first is None:
            return []
        first, depths = self.diagnosis.first, self.diagnosis.profile.depths
        found = dict(zip(first.names, map(int, depths), strict=True))
        seen = {id(first.layers)}
        for snapshot in self.recording:
            if id(snapshot.layers) not in seen:
                seen.add(id(snapshot.layers))
                for name in snapshot.names:
                    found.setdefault(name, max(found.values(), default=0))
        return [*found.items()]

    def at(self, step: int) -> Snapshot:
        """The snapshot of this step, or the last one before it, or the first."""
        later = np.searchsorted(self.recording.steps, step, side="right")
        return self.recording[max(int(later) - 1, 0)]


class Runs:
    """The runs of a log folder.

    Args:
        data_provider: TensorBoard's, whichever loader is behind it.
        logdir: The log folder, whose files are checked for damage, of which TensorBoard
            does not tell. If it is not a folder of this machine, nothing is checked.
    """

    def __init__(self, data_provider: provider.DataProvider, logdir: str = ""):
        self._provider = data_provider
        self._logdir = logdir
        self._runs: OrderedDict[tuple[str, str], Run] = OrderedDict()
        self._locks: dict[tuple[str, str], threading.Lock] = {}
        self._lock = threading.Lock()

    def states(self, context, experiment: str) -> dict[str, State]:
        """The runs that hold anything of ours, sorted by name, and how far they are.

        TensorBoard's fast loader lists them in another order at every start.
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
        """A run, with all that TensorBoard has of it.

        Args:
            context: TensorBoard's request context.
            experiment: Its experiment id.
            name: Of the run.
            refresh: Whether to look for what is new, if it was read before.

        Raises:
            tensorboard.errors.NotFoundError: If there is none of that name.
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

    def with_histograms(self, context, experiment: str, name: str, layer: str) -> Recording:
        """The snapshots of which TensorBoard has kept this layer's histogram, with it.

        TensorBoard keeps a random sample of them, as for its own tab of histograms.
        """
        run = self.read(context, experiment, name)
        tag = log_format.HISTOGRAM_PREFIX + layer
        written = self._tag(context, experiment, name, tag, _HISTOGRAMS)
        kept = {(one.step, one.wall_time): one.array for one in written}
        found = []
        for snapshot, key in zip(run.recording, run.written, strict=True):
            if key in kept and layer in snapshot.names:
                found.append(log_format.with_histogram(snapshot, layer, kept[key]))
        return Recording(found)

    def _list(self, context, experiment, name=None):
        return self._provider.list_tensors(
            context,
            experiment_id=experiment,
            plugin_name=log_format.PLUGIN,
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
        if before is not None and before.state == state:
            return before
        checked = self._check(name, before.checked if before else {})
        damage = _damage(checked)
        try:
            for tag in tags.values():
                log_format.check_version(tag.plugin_content)
            run = self._grown(context, experiment, name, tags, before, state)
        except Exception as error:  # whatever is in the file: the other runs are shown
            return Run(problem=f"{name}: {error} {damage}".rstrip())
        run.note, run.checked = f"{run.note} {damage}".strip(), checked
        return run

    def _check(self, name, before):
        """The files of a run that can be read, with what is known of them."""
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
            found = self._tag(context, experiment, name, tag, log_format.PLUGIN, most)
            return log_format.without_undone(found)

        def snapshots_with(most=_EVERYTHING):
            # A run that a newer version resumed has both, the older one's first.
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
        except Exception:  # more than the fast loader hands over at once: 256 MiB
            arrays, by_time = snapshots_with(_IF_TOO_MANY)
            note = (
                f"{name} has more steps than TensorBoard can hand over at once; shown are "
                f"{len(arrays)}, taken at random. With --load_fast=false all are."
            )
        tables = written(log_format.LAYERS_TAG)
        if arrays and not tables:
            raise ValueError(
                "its list of layers is missing. Expected is a log that an "
                "ActivationMonitor wrote."
            )
        keys = [(one.step, one.wall_time) for one in arrays]
        run = Run(state=state, note=note, written=keys)
        snapshots, health = [], Health()
        if before is not None and before.written == keys[: len(before.written)]:
            snapshots = [*before.recording]
            health = before.health
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
            snapshot = log_format.decode(one.step, table, by_time[one.wall_time])
            health, _ = judge(health, snapshot)
            snapshots.append(snapshot)
        run.recording, run.health = Recording(snapshots), health
        run.diagnosis = summary(run.recording, health.findings)
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


def _damage(checked):
    """The damaged files of a run in words; empty if there is none."""
    return " ".join(
        f"{path.name} is damaged at byte {found.damaged}: TensorBoard reads no further, or "
        "shows damaged numbers. `activation-monitor report` shows all that can be read."
        for path, found in checked.items()
        if found.damaged is not None
    )

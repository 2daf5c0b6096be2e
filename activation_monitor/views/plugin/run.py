"""A run as the tab shows it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.health import Health
from activation_monitor.analysis.snapshot import Recording, Snapshot
from activation_monitor.storage.record_file import Checked


class State(NamedTuple):
    """The last step of a run and its time. A new one means that the run has grown."""

    step: int
    wall_time: float


@dataclass
class Run:
    """A run as far as it has been read.

    Attributes:
        recording: Its snapshots.
        health: The state of the rules after the last snapshot.
        diagnosis: The diagnosis of the snapshots; None if the run cannot be read.
        problem: Why the run cannot be shown; empty if it can.
        note: Which part of the run is not shown; empty if everything is.
        state: The state of the run when it was read.
        written: Step and wall time of each snapshot.
        checked: The result of the check for damage of each file.
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
        """The findings; none for a run that cannot be read."""
        return self.diagnosis.findings if self.diagnosis else ()

    @property
    def verdict(self) -> str:
        """`Diagnosis.verdict`; "not assessed" for a run that cannot be read."""
        return self.diagnosis.verdict if self.diagnosis else "not assessed"

    @property
    def reason(self) -> str:
        """What to say besides the verdict: why growth with depth could not be judged, if
        the verdict is "not assessed"; and `Diagnosis.note`."""
        if self.diagnosis is None:
            return ""
        assessed = self.verdict != "not assessed"
        why = "" if assessed else self.diagnosis.not_assessed
        return " ".join(filter(None, (why, self.diagnosis.note)))

    @property
    def worst_finding(self) -> Finding | None:
        """`Diagnosis.worst_finding`: the finding that is shown first."""
        return self.diagnosis.worst_finding if self.diagnosis else None

    @property
    def worst_layer(self) -> str | None:
        """`Diagnosis.worst_layer`: the layer to check first."""
        return self.diagnosis.worst_layer if self.diagnosis else None

    @property
    def measured(self) -> set[str]:
        """The quantities that were measured."""
        return self.recording.quantities

    @property
    def layers(self) -> list[dict[str, Any]]:
        """All layers for the page, in the order of `names`.

        Each has a `name`, a `depth`, and the `severity` of the worst finding that concerns
        it, None if there is none.
        """
        worst = self.diagnosis.worst_by_layer if self.diagnosis else {}
        return [
            {
                "name": name,
                "depth": depth,
                "severity": worst[name].severity if name in worst else None,
            }
            for name, depth in self._depths.items()
        ]

    @property
    def names(self) -> list[str]:
        """Names of all layers in the order of the calls: those of the first snapshot, then
        those that only later snapshots have."""
        return [*self._depths]

    @property
    def _depths(self):
        first = self.diagnosis and self.diagnosis.first
        profile = self.diagnosis and self.diagnosis.profile
        if first is None or profile is None:
            return {}
        found = dict(zip(first.names, map(int, profile.depths), strict=True))
        seen = {id(first.layers)}
        for snapshot in self.recording:
            if id(snapshot.layers) not in seen:
                seen.add(id(snapshot.layers))
                for name in snapshot.names:
                    found.setdefault(name, max(found.values(), default=0))
        return found

    def at(self, step: float, of: str = records.OUTPUT) -> Snapshot:
        """The last snapshot up to this step with a quantity, and with outputs, which tell
        the depths; the first one if there is none.

        Args:
            step: The step.
            of: The quantity, which not all snapshots have. Defaults to `"output"`.
        """
        place = int(np.searchsorted(self.recording.steps, step, side="right")) - 1
        for snapshot in reversed(self.recording.snapshots[: place + 1]):
            if snapshot.has(of) and snapshot.has():
                return snapshot
        return self.recording[0]

"""What a report says of one or several runs, for programs."""

import math
from collections.abc import Iterator, Mapping

from activation_monitor.analysis import comparison
from activation_monitor.analysis.diagnosis import VERDICTS, Diagnosis
from activation_monitor.analysis.records import STATISTICS
from activation_monitor.analysis.snapshot import Recording, Snapshot
from activation_monitor.views import console

FORMAT = 2
"""Version of the JSON that `summary` makes."""


def summary(runs: Mapping[str, Recording]) -> dict:
    """What the report says, for programs: `json.dumps` takes it.

    Keys are stable within a `format`. Numbers that are not finite, or were not measured,
    are None.

    * `format`: `FORMAT`.
    * `healthy`: whether all runs are.
    * `runs`, by name:
        * `healthy`: true only if growth with depth could be judged; `verdict`: "healthy",
          "findings" or "not assessed"; `summary`: the same in sentences, a list.
        * `steps`: those that were sampled.
        * `growth`: None, or `per_layer`, `layers`, `low` and `high` (what chance leaves a
          well scaled network), `from`, `to`.
        * `findings`: `code`, `severity`, `step`, `last_step`, `initial`, `layers`,
          `evidence`, `message`, and `fix`: None, or `cause`, `reason` and `changes`,
          each with `place` and `line`.
        * `layers`: `name`, `class_name`, `kind`, `activation`, `dtype`, `initializer`,
          `depth`; `first` and `last`, the statistics at the first and the last step.
    * `reference`: the name of the first healthy run, else of the first.
    * `differences`, by name of every other run: what differs from the reference, a list of
      sentences.

    Raises:
        ValueError: If there is no run, or one without a snapshot.
    """
    diagnoses = diagnose_all(runs)
    return {
        "format": FORMAT,
        "healthy": all(diagnosis.healthy for diagnosis in diagnoses.values()),
        "runs": {run: _run_summary(runs[run], diagnoses[run]) for run in runs},
        "reference": next(iter(reference_first(runs, diagnoses))),
        "differences": {
            run: list(found.differences) for run, found in compared(runs, diagnoses)
        },
    }


def diagnose_all(runs: Mapping[str, Recording]) -> dict[str, Diagnosis]:
    """The diagnosis of every run.

    Raises:
        ValueError: If there is no run, or one without a snapshot.
    """
    if not runs or not all(len(recording) for recording in runs.values()):
        empty = [run for run, recording in runs.items() if not len(recording)]
        raise ValueError(
            "report: expected runs with a snapshot each. Received: "
            f"{'none in ' + ', '.join(empty) if empty else 'no run'}."
        )
    return {run: console.diagnose(recording) for run, recording in runs.items()}


def compared(
    runs: Mapping[str, Recording], diagnoses: Mapping[str, Diagnosis]
) -> Iterator[tuple[str, comparison.Comparison]]:
    """Every other run held against the reference."""
    (first, reference), *others = reference_first(runs, diagnoses).items()
    for run, recording in others:
        both = (diagnoses[first], diagnoses[run])
        yield run, comparison.compare(reference, recording, both, (first, run))


def reference_first(
    runs: Mapping[str, Recording], diagnoses: Mapping[str, Diagnosis]
) -> dict[str, Recording]:
    """The first healthy run before all others: what the sick ones are held against."""
    order = sorted(runs, key=lambda run: VERDICTS.index(diagnoses[run].verdict))
    return {run: runs[run] for run in (order[0], *(r for r in runs if r != order[0]))}


def _run_summary(recording, diagnosis):
    main = diagnosis.profile.main
    growth = None
    if main is not None:
        low, high = main.interval()
        growth = {
            "per_layer": _finite(main.growth),
            "layers": main.layers,
            "low": _finite(low),
            "high": _finite(high),
            "from": main.measured[0].name,
            "to": main.measured[-1].name,
        }
    return {
        "healthy": diagnosis.healthy,
        "verdict": diagnosis.verdict,
        "summary": console.verdict_lines(diagnosis),
        "steps": recording.steps,
        "growth": growth,
        "findings": [_finding_summary(finding) for finding in diagnosis.findings],
        "layers": [
            {
                "name": layer.name,
                "class_name": layer.class_name,
                "kind": layer.kind,
                "activation": layer.activation,
                "dtype": layer.dtype,
                "initializer": layer.initializer,
                "depth": int(diagnosis.profile.depths[row]),
                "first": statistics_of(recording[0], layer.name),
                "last": statistics_of(recording[-1], layer.name),
            }
            for row, layer in enumerate(recording[0].layers)
        ],
    }


def _finding_summary(finding):
    fix = finding.fix
    return {
        "code": finding.code,
        "severity": finding.severity,
        "step": finding.step,
        "last_step": finding.step if finding.last_step is None else finding.last_step,
        "initial": finding.initial,
        "layers": list(finding.layers),
        "evidence": {name: _finite(value) for name, value in finding.evidence.items()},
        "message": finding.message,
        "fix": fix
        and {
            "cause": fix.cause,
            "reason": fix.reason,
            "changes": [
                {"place": change.place, "line": change.line} for change in fix.changes
            ],
        },
    }


def statistics_of(snapshot: Snapshot, name: str) -> dict[str, float | None]:
    """All statistics of the layer of that name; None what is not finite or not there."""
    if name not in snapshot.names:
        return dict.fromkeys(STATISTICS)
    row = snapshot.names.index(name)
    record = snapshot.records()[row]
    return {statistic: _finite(of(record)) for statistic, of in STATISTICS.items()}


def _finite(value):
    return float(value) if math.isfinite(value) else None

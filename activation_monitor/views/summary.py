"""What a report says about one or several runs, as plain data for programs."""

import math
from collections.abc import Iterator, Mapping

from activation_monitor.analysis import comparison
from activation_monitor.analysis.diagnosis import VERDICTS, Diagnosis, diagnose
from activation_monitor.analysis.findings import SEVERITIES
from activation_monitor.analysis.hints import no_such
from activation_monitor.analysis.records import STATISTICS
from activation_monitor.analysis.snapshot import Recording, Snapshot
from activation_monitor.views.in_words import sentences

FORMAT = 3
"""Version of the data that `summary` returns.

3: findings are those of `Finding.to_dict`, which have `cause`, `reason` and `changes` in
place of `fix`, and `meaning`, `title`, `when` and `docs` in addition; runs have
`worst_layer`.
"""


def summary(runs: Mapping[str, Recording], reference: str | None = None) -> dict:
    """What the report says, as plain data.

    Args:
        runs: Recordings by name, each with at least one snapshot.
        reference: The name of the run that the others are compared with. Defaults to
            `None`, the first one with the best verdict.

    Returns:
        A dictionary that `json.dumps` accepts. Its keys do not change within a `format`.
        A number that is not finite, or was not measured, is None.

        * `format`: `FORMAT`.
        * `healthy`: whether all runs are healthy.
        * `runs`: name to a dictionary:
            * `healthy`: whether the verdict is "healthy".
            * `verdict`: "healthy", "findings", or "not assessed" if there are no findings
              but growth with depth could not be judged.
            * `summary`: growth and verdict in words, a list of sentences.
            * `steps`: the sampled steps.
            * `growth`: None if it was not measured, else a dictionary with `per_layer`,
              `layers` (their number), `low` and `high` (the interval that chance explains
              in a well-scaled network), `from` and `to` (names of layers).
            * `worst_layer`: name of the layer to inspect first, `Diagnosis.worst_layer`.
            * `findings`: a list of `Finding.to_dict()`: `code`, `meaning`, `severity`,
              `step`, `last_step`, `recovered`, `initial`, `when`, `title`, `layers`,
              `evidence`, `message`, `cause`, `reason`, `changes`, `docs`.
            * `layers`: a list of dictionaries with `name`, `class_name`, `kind`,
              `activation`, `dtype`, `initializer`, `depth`, and the statistics at the
              `first` and the `last` step, dictionaries with the names of
              `records.STATISTICS`.
        * `reference`: name of the run that the others are compared with.
        * `differences`: name of every other run to its differences from the reference, a
          list of sentences.

    Raises:
        ValueError: If there is no run, a run has no snapshot, or no run has the name of the
            reference.
    """
    diagnoses = diagnose_all(runs)
    first = reference_of(diagnoses, reference)
    return {
        "format": FORMAT,
        "healthy": all(diagnosis.healthy for diagnosis in diagnoses.values()),
        "runs": {run: _run_summary(runs[run], diagnoses[run]) for run in runs},
        "reference": first,
        "differences": {
            run: list(found.differences) for run, found in compared(runs, diagnoses, first)
        },
    }


def diagnose_all(runs: Mapping[str, Recording]) -> dict[str, Diagnosis]:
    """The diagnosis of every run.

    Raises:
        ValueError: If there is no run, or a run has no snapshot.
    """
    if not runs or not all(len(recording) for recording in runs.values()):
        empty = [run for run, recording in runs.items() if not len(recording)]
        raise ValueError(
            "report: expected runs with at least one snapshot each. Received: "
            f"{'no snapshot in ' + ', '.join(empty) if empty else 'no run'}."
        )
    return {run: diagnose(recording) for run, recording in runs.items()}


def reference_of(diagnoses: Mapping[str, Diagnosis], chosen: str | None = None) -> str:
    """The name of the run that the others are compared with.

    Args:
        diagnoses: The diagnoses of all runs by name, in the order of the runs.
        chosen: The name of a run. Defaults to `None`, the first one with the best verdict:
            healthy, else not assessed, else with findings.

    Raises:
        ValueError: If there is no run of that name.
    """
    if chosen is None:
        return min(diagnoses, key=lambda run: VERDICTS.index(diagnoses[run].verdict))
    if chosen not in diagnoses:
        raise ValueError(
            f"report: {no_such('run', chosen, diagnoses)} The reference must be a run of "
            "the report."
        )
    return chosen


def worst_first(diagnoses: Mapping[str, Diagnosis]) -> list[str]:
    """The names of the runs as the tab lists them: those with a critical finding, with a
    warning, not assessed, healthy. Runs of one kind keep their order."""
    return sorted(diagnoses, key=lambda run: _badness(diagnoses[run]), reverse=True)


def _badness(diagnosis):
    worst = diagnosis.worst_finding
    severity = SEVERITIES.index(worst.severity) if worst else -1
    return VERDICTS.index(diagnosis.verdict), severity


def compared(
    runs: Mapping[str, Recording], diagnoses: Mapping[str, Diagnosis], reference: str
) -> Iterator[tuple[str, comparison.Comparison]]:
    """The comparison of every other run with the reference, as pairs with its name."""
    for run, recording in runs.items():
        if run != reference:
            both = (diagnoses[reference], diagnoses[run])
            names = (reference, run)
            yield run, comparison.compare(runs[reference], recording, both, names)


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
        "summary": sentences(diagnosis),
        "steps": recording.steps,
        "growth": growth,
        "worst_layer": diagnosis.worst_layer,
        "findings": [finding.to_dict() for finding in diagnosis.findings],
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


def statistics_of(snapshot: Snapshot, name: str) -> dict[str, float | None]:
    """All statistics of a layer by name; None if not finite, or the layer is not there."""
    if name not in snapshot.names:
        return dict.fromkeys(STATISTICS)
    row = snapshot.names.index(name)
    record = snapshot.records()[row]
    return {statistic: _finite(of(record)) for statistic, of in STATISTICS.items()}


def _finite(value):
    return float(value) if math.isfinite(value) else None

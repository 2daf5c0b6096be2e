"""A finding of several snapshots."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from activation_monitor.analysis.causes import Steps
from activation_monitor.analysis.findings import Found, found
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.update_ratio import update_ratio
from activation_monitor.analysis.window import Window, log10


def found_since(
    since: Snapshot,
    window: Window,
    code: str,
    layers: Iterable[str],
    evidence: Mapping[str, float],
    message: str,
    cause: Steps,
    critical: bool = False,
) -> Found:
    """What a rule has found from a snapshot up to the newest one.

    Args:
        since: The first snapshot that shows it.
        window: The window.
        code, layers, evidence, message, cause, critical: As for `findings.found`.
    """
    one = found(code, since, layers, evidence, message, cause, critical)
    last = window.newest.last_step
    return Found(dataclasses.replace(one.finding, last_step=last), cause)


def during(window: Window) -> str:
    """The steps in which a condition held, in words."""
    return f"steps {window.lasting[0].step} to {window.newest.last_step}"


def mean_ratio(snapshot: Snapshot) -> float:
    """The geometric mean of the update-to-weight ratio over the layers that are trained.

    NaN if the updates were not measured, or the step made none.
    """
    logs = ratios(snapshot)
    logs = logs[np.isfinite(logs)]
    return float(10 ** logs.mean()) if len(logs) else float("nan")


def ratios(snapshot: Snapshot) -> np.ndarray:
    """`log10` of the update-to-weight ratio by layer, NaN for frozen ones: `(layers,)`."""
    ratio = update_ratio(snapshot)
    for row in np.flatnonzero(ratio > 0).tolist():
        if not snapshot.layers[row].trainable:
            ratio[row] = np.nan
    return log10(ratio)

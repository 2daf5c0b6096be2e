"""How far a step moves the weights: the size of the update over that of the weight."""

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.analysis.snapshot import Recording, Snapshot

UPDATE_RATIO = "update_ratio"
"""Its name where it is shown beside the statistics of records, for `weight_update`."""


def update_ratio(snapshot: Snapshot) -> np.ndarray:
    """The rms of the update of each kernel over the rms of that kernel.

    The update is what the step changed: optimizer, clipping and weight decay included. A
    common rule of thumb is about 1e-3 (A. Karpathy, CS231n course notes, "Neural Networks
    Part 3: Learning and Evaluation", section "Ratio of weights:updates", 2015).

    If one execution ran several steps (`Snapshot.steps`), the update is the sum of theirs,
    and the ratio is divided by their number: the mean of a step if all point the same way,
    and less than that otherwise.

    Args:
        snapshot: The snapshot.

    Returns:
        Array of shape `(layers,)`, without unit. 0 for a kernel that did not change while
        another one did, for example of a frozen layer. NaN where kernel and update were not
        measured, where an element of one is NaN or infinite, where all measured weights
        are zero, and for all layers if no kernel changed: the step then applied no update.
        So it is within gradient accumulation, and if a loss scale skips a step.
    """
    weight, update = (_rms(snapshot, of) for of in (records.WEIGHT, records.WEIGHT_UPDATE))
    if not (snapshot.statistic("rms", records.WEIGHT_UPDATE) > 0).any():
        return np.full(len(snapshot.layers), np.nan)
    return np.divide(
        update / snapshot.steps, weight, out=np.full_like(weight, np.nan), where=weight > 0
    )


def update_ratios(recording: Recording) -> dict[str, np.ndarray]:
    """The ratio of each weight layer over the steps.

    A layer that is called more than once has an entry for each call, with equal values.

    Args:
        recording: The recording.

    Returns:
        Name of the layer to an array of shape `(snapshots,)`, in the order of the layers.
        See `update_ratio`. Layers that have NaN at all steps are left out.
    """
    found: dict[str, np.ndarray] = {}
    for i, snapshot in enumerate(recording):
        ratio = update_ratio(snapshot)
        for row in np.flatnonzero(~np.isnan(ratio)).tolist():
            name = snapshot.layers[row].name
            found.setdefault(name, np.full(len(recording), np.nan))[i] = ratio[row]
    order = [name for snapshot in recording for name in snapshot.names]
    return {name: found[name] for name in dict.fromkeys(order) if name in found}


def _rms(snapshot: Snapshot, of: str) -> np.ndarray:
    """The rms of each layer, NaN if not all elements are finite."""
    bad = snapshot.field("nonfinite", of) > 0
    return np.where(bad, np.nan, snapshot.statistic("rms", of))

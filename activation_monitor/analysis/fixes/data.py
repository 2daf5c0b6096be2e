"""Fixes for data: samples that are all the same, targets out of scale."""

from activation_monitor.analysis.causes import SameInput, TargetScale
from activation_monitor.analysis.fix import Change, Fix
from activation_monitor.analysis.snapshot import Snapshot


def same_input(cause: SameInput, snapshot: Snapshot) -> Fix:
    """The fix for inputs that are the same for all samples."""
    first = snapshot.layers[cause.rows[0]]
    at = f"{snapshot.statistic('rms')[cause.rows[0]]:.3g}"
    return Fix(
        "data",
        f"Compare two samples of what the model gets, after all preprocessing (the rms of "
        f"{first.name} is {at}). Usual reasons: a normalization along the wrong axis, one "
        "feature that is so large that dividing by the norm of a row leaves nothing of the "
        "others, padding or truncation that removes all content, an index that is not "
        "advanced.",
        (Change("before", "np.ptp(x, axis=0).max()", ("training",), "must be above 0"),),
    )


def target_scale(cause: TargetScale) -> Fix:
    """The fix for targets that are far larger than the output."""
    del cause  # the same line for all of them
    return Fix(
        "target scale",
        "The weights are drawn for outputs of size 1. Train on scaled targets, and scale "
        "the predictions back: `y * std + mean`. For targets over several powers of ten, "
        "take their logarithm first.",
        (
            Change(
                "before",
                "mean, std = y.mean(axis=0), y.std(axis=0); y = (y - mean) / std",
                ("training",),
                "of the training data",
            ),
        ),
    )

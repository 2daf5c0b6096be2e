"""From the cause that a rule suspects to a fix as Keras code.

A rule passes what it knows as a `causes.Cause`. For the size of weights, the measured
signal gain of a layer is compared with the gain that follows from its weights, its fan-in
and its activation function (`links.Link`). If the weights do not suit the activation
function, the cause is the initializer. If they do, it is something between the layers.
"""

from typing import assert_never

from activation_monitor.analysis import causes
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.fix import Fix
from activation_monitor.analysis.fixes import (
    between,
    data,
    normalization,
    reach,
    recurrent,
    steps,
    updates,
    values,
    weights,
)
from activation_monitor.analysis.snapshot import Snapshot


def fix_for(
    cause: causes.Cause,
    snapshot: Snapshot,
    profile: DepthProfile,
    came_up: bool = False,
    diverged: bool = False,
) -> Fix | None:
    """The fix for what a rule has found.

    Args:
        cause: What the rule knows about the cause.
        snapshot: The snapshot in which it was found.
        profile: The same snapshot along depth.
        came_up: Whether an earlier snapshot did not show it. Defaults to `False`.
        diverged: Whether training diverged before it came up. Defaults to `False`.

    Returns:
        The fix; None if the measurements do not show a cause.
    """
    match cause:
        case causes.NonFinite():
            return values.nonfinite(cause, snapshot, diverged)
        case causes.Zeros():
            return values.zeros(cause, snapshot, profile, came_up)
        case causes.InputScale():
            return between.input_scale(cause)
        case causes.EmbeddingScale():
            return recurrent.embedding(cause, snapshot)
        case causes.RecurrentKernel():
            return recurrent.kernel(cause, snapshot)
        case causes.Operations():
            return between.operations(cause, profile)
        case causes.NonFiniteGradient():
            return reach.nonfinite(cause, snapshot)
        case causes.Blocked():
            return reach.blocked(cause, snapshot)
        case causes.SameInput():
            return data.same_input(cause, snapshot)
        case causes.TargetScale():
            return data.target_scale(cause)
        case causes.NotApplied():
            return updates.not_applied(cause, snapshot)
        case causes.WrongUpdate():
            return updates.wrong(cause)
        case causes.Decay():
            return updates.decay(cause)
        case causes.Replicas():
            return updates.replicas()
        case causes.StuckScale():
            return updates.stuck_scale(cause, snapshot)
        case causes.UnknownKind():
            return between.own_scale(cause, snapshot)
        case causes.NonFiniteLoss():
            return values.nonfinite_loss(cause, diverged)
        case causes.Steps():
            return steps.of_training(cause)
        case causes.MovingStatistics():
            return normalization.moving(cause, snapshot)
        case causes.FixedStatistics():
            return normalization.fixed(cause, snapshot)
        case causes.EvaluationDiffers():
            return normalization.evaluation(cause, snapshot)
        case causes.EqualWeights():
            return weights.equal(cause, snapshot)
        case causes.Weights():
            return weights.wrong_size(cause, snapshot, profile)
        case _:
            assert_never(cause)

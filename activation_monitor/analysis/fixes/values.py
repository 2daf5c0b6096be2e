"""Fixes for values that carry no signal: NaN, infinity, zeros."""

from activation_monitor.analysis import records
from activation_monitor.analysis.causes import NonFinite, NonFiniteLoss, Zeros
from activation_monitor.analysis.counterfactual import underflows
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.fix import SMALLER_STEPS, Change, Fix
from activation_monitor.analysis.fixes.weights import draw_again, off_size, wrong_mean
from activation_monitor.analysis.snapshot import Snapshot

_DIVERGED = Fix(
    "learning rate",
    "Training diverged before: each step makes the weights larger, until they exceed the "
    "range of the numbers. The steps are too large.",
    SMALLER_STEPS,
)

_ONE_BATCH = Fix(
    "data or loss",
    "Nothing grew in the steps measured before, so one batch in between is the likely "
    "cause: NaN in it, which turns the weights into NaN in one step, or a value for which "
    "an operation or the loss has no finite derivative. To see which layer and which "
    "quantity comes first, train again and keep the last steps.",
    (
        Change("before", "np.isnan(x).any(), np.isnan(y).any()", ("training",), "the data"),
        Change("in", "flight_recorder=8", ("ActivationMonitor",), "measures every step"),
    ),
)

_BROKEN_ROWS = "np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))"


def nonfinite(cause: NonFinite, snapshot: Snapshot, diverged: bool) -> Fix | None:
    """The fix for NaN or infinity."""
    layer = snapshot.layers[cause.row]
    if layer.kind == "input" and not layer.parents:
        return Fix(
            "data",
            "The batch itself contains NaN or infinity. A step of training with such a "
            "batch turns the weights into NaN, from which they do not recover: clean the "
            "data and train again.",
            (Change("before", _BROKEN_ROWS, ("training",), "the rows to clean or drop"),),
        )
    if snapshot.field("nonfinite", of=records.WEIGHT)[cause.row]:
        if snapshot.step > 0:
            return _DIVERGED if diverged else _ONE_BATCH
        return Fix("initializer", f"The weights of {layer.name} are NaN or infinite.")
    if layer.kind == "embedding" and snapshot.step == 0:  # its input are integers
        return Fix("initializer", f"Vectors of {layer.name} are NaN or infinite.")
    if layer.dtype == "float16":
        return Fix(
            "range of float16",
            "float16 ends at 65504; bfloat16 has the range of float32.",
            (
                Change(
                    "in", 'dtype="mixed_bfloat16"', (layer.name,), "or as the global policy"
                ),
            ),
        )
    if snapshot.step > 0:
        return _DIVERGED if diverged else _ONE_BATCH
    return None


def nonfinite_loss(cause: NonFiniteLoss, diverged: bool) -> Fix:
    """The fix for a loss that is NaN or infinite although no activation is known to be."""
    if diverged:
        return _DIVERGED
    if not cause.measured:
        return _ONE_BATCH
    return Fix(
        "loss or targets",
        "Either the targets of this batch contain NaN or infinity: check this first. Or "
        "the loss divides by zero, or takes the logarithm or the root of zero, for outputs "
        "that occur.",
        (
            Change("before", "np.isnan(y).any()", ("training",), "the targets"),
            Change(
                "in",
                "from_logits=True",
                ("the loss",),
                "a cross-entropy, and no activation on the last layer",
            ),
        ),
    )


def zeros(cause: Zeros, snapshot: Snapshot, profile: DepthProfile, came_up: bool) -> Fix:
    """The fix for tensors of zeros, and for dead units."""
    if cause.dead and came_up:
        return _died(tuple(snapshot.layers[row].name for row in cause.rows))
    fix = wrong_mean(cause.links, snapshot)
    if fix:
        return fix
    # No size of the weights makes a pre-activation negative, but small ones may underflow.
    if not cause.dead:
        small = off_size(cause.links, grows=False, snapshot=snapshot)
        if any(underflows(link, snapshot.layers[link.row].dtype) for link in small):
            return draw_again(small, snapshot)
    return _negative(cause.rows[0], snapshot, profile)


def _died(layers: tuple[str, ...]) -> Fix:
    return Fix(
        "learning rate",
        "The units were alive before. Too large steps made their pre-activations negative "
        "for all inputs. Units with a slope below zero can recover, but steps of this size "
        "move them too far as well.",
        (
            Change(
                "in", "learning_rate=...", ("the optimizer",), "a tenth of the present one"
            ),
            Change("in", 'activation="leaky_relu"', layers, "afterwards, if needed"),
        ),
    )


def _negative(row: int, snapshot: Snapshot, profile: DepthProfile) -> Fix:
    """What is known about a layer of zeros: the input of its activation function."""
    layer, parents = snapshot.layers[row], profile.graph.parents[row]
    if layer.kind == "activation" and len(parents) == 1:
        before = snapshot.layers[parents[0]]
        high = snapshot.statistic("maximum")[parents[0]]
        text = (
            f"The input of {layer.name}, the output of {before.name}, is at most "
            f"{high:.3g} for all samples."
        )
        if before.kind == "normalization":
            text += (
                f" Check the `beta` of {before.name} and, if the layer uses them (frozen, "
                "or in evaluation), its moving statistics: they do not fit this data."
            )
            return Fix("normalization", text)
        return Fix("not known", text)
    return Fix(
        "not known",
        f"The size of the weights does not make the outputs of {layer.name} zero. "
        "Pre-activations that are negative for all samples do: because of a bias far below "
        "zero, or of weights whose mean has the opposite sign of their inputs.",
    )

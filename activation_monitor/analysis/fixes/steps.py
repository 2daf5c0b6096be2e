"""Fixes for what comes up in training: the learning rate, the data or the loss."""

from typing import assert_never

from activation_monitor.analysis.causes import Steps
from activation_monitor.analysis.fix import SMALLER_STEPS, Change, Fix
from activation_monitor.analysis.thresholds import limit

_CLIP = Change("in", "clipnorm=1.0", ("the optimizer",), "bounds what one batch can do")


def of_training(cause: Steps) -> Fix:
    """The fix for what was in order at first and has come up in training."""
    too_large = cause.ratio > limit("update-ratio-high")
    match cause.shows:
        case "size":
            return _learning_rate(cause.ratio)
        case "signal":
            return Fix(
                "learning rate",
                "The first step was in order, so the initialization is not the cause. "
                f"Too large steps have moved the weights too far.{_times_usual(cause)}",
                (_rate(cause.ratio), *SMALLER_STEPS[1:]) if too_large else SMALLER_STEPS,
            )
        case "jump" if too_large:
            return Fix(
                "learning rate",
                f"The step after it was too large.{_times_usual(cause)}",
                (_rate(cause.ratio), _CLIP),
            )
        case "jump":
            return Fix(
                "data or learning rate",
                "Either a batch between these two steps had values, or targets, of another "
                "size than those before: check this first. Or the learning rate was "
                f"raised, or is too large for some batches.{_times_usual(cause)}",
                (_CLIP, SMALLER_STEPS[0]),
            )
        case "input":
            return Fix(
                "data",
                "Values of another size come from the data: another file or another "
                "source, a preprocessing that is missing or was fitted again. Scale all "
                "data by the same numbers.",
                (
                    Change(
                        "before",
                        "x.mean(), x.std()",
                        ("training",),
                        "of each part of the data",
                    ),
                ),
            )
        case "tail":
            return Fix(
                "data or learning rate",
                "Find the samples that have the largest values, or the largest loss: "
                "outliers in the inputs or targets, wrong labels, empty samples. If they "
                "belong to the data, limit what they can do.",
                (
                    _CLIP,
                    Change("in", "loss=keras.losses.Huber()", ("compile",), "a regression"),
                ),
            )
        case "growth":
            return Fix(
                "loss or learning rate",
                "Either larger weights always give a smaller loss: a loss without a lower "
                "bound, a missing sign, a constraint that is missing. Or the steps are so "
                f"large that their noise makes the weights grow.{_times_usual(cause)}",
                (
                    Change("in", "weight_decay=1e-4", ("the optimizer",), "bounds them"),
                    SMALLER_STEPS[0],
                ),
            )
        case _:
            assert_never(cause.shows)


def _learning_rate(ratio: float) -> Fix:
    """The fix for updates of the wrong size."""
    if ratio > limit("update-ratio"):
        return Fix(
            "learning rate",
            "The size of an update is proportional to the learning rate, and it has "
            f"{ratio / limit('update-ratio'):.2g} times the usual size.",
            (_rate(ratio), *SMALLER_STEPS[1:]),
        )
    return Fix(
        "learning rate",
        "The size of an update is proportional to the learning rate, and it has "
        f"{ratio / limit('update-ratio'):.2g} times the usual size. With plain SGD it is "
        "proportional to the loss as well: check that the loss is not scaled down.",
        (_rate(ratio),),
    )


def _rate(ratio: float) -> Change:
    """A learning rate that gives updates of the usual size."""
    factor = limit("update-ratio") / ratio
    return Change(
        "in",
        "learning_rate=...",
        ("the optimizer",),
        f"about {factor:.1g} times the present one",
    )


def _times_usual(cause: Steps) -> str:
    """The size of the updates as a sentence, if it was measured."""
    if not cause.ratio > 0:
        return ""
    usual = limit("update-ratio")
    return (
        f" An update has {cause.ratio:.2g} times the rms of the weights; usual is about "
        f"{usual:.0e}."
    )

"""Passes numbers on to other experiment trackers.

A tracker is a function of numbers by name and of the step, with the signature of
`mlflow.log_metrics`. Those in `NAMED` are made here. The libraries are imported when they
are used.
"""

import re
from collections.abc import Callable, Collection, Mapping

from activation_monitor.analysis import scalars
from activation_monitor.analysis.optional import optional

Log = Callable[[Mapping[str, float], int], object]
"""A tracker: a function of the numbers by name and of the step."""

Tracker = str | Log
"""A key of `NAMED`, or a tracker itself."""

_STEP = "activation_monitor/step"

_AT_ONCE = 1000
"""The most metrics that MLflow takes in one call."""

_NOT_ALLOWED = re.compile(r"[^\w\-. /]")
"""Characters that the name of a metric of MLflow cannot have on each platform."""


def _wandb() -> Log:
    """Logs to the active run of Weights & Biases.

    The steps are those of the optimizer, in a metric of their own: W&B counts its own step
    with each call of `log`, and drops what has a smaller one.
    """
    wandb = optional("wandb", 'trackers="wandb"')
    prepared = None  # the run whose steps are defined

    def log(numbers: Mapping[str, float], step: int) -> None:
        nonlocal prepared
        run = wandb.run
        if run is None:
            raise RuntimeError(
                "expected an active run of Weights & Biases. Received: none. Call "
                "`wandb.init()` before `fit`"
            )
        if run is not prepared:
            run.define_metric(_STEP, hidden=True)
            for group in _groups():
                run.define_metric(f"{group}/*", step_metric=_STEP)
            prepared = run
        run.log({**numbers, _STEP: step})

    return log


def _groups():
    of_training = ("activation_monitor", *scalars.OF_LAYERS)
    return [f"{prefix}{group}" for prefix in ("", "val_") for group in of_training]


def _mlflow() -> Log:
    """Logs to the active run of MLflow."""
    mlflow = optional("mlflow", 'trackers="mlflow"')

    def log(numbers: Mapping[str, float], step: int) -> None:
        if mlflow.active_run() is None:  # it would start one that nobody ends
            raise RuntimeError(
                "expected an active run of MLflow. Received: none. Call "
                "`mlflow.start_run()` before `fit`"
            )
        named = [(_NOT_ALLOWED.sub("_", name), value) for name, value in numbers.items()]
        for start in range(0, len(named), _AT_ONCE):
            mlflow.log_metrics(dict(named[start : start + _AT_ONCE]), step=step)

    return log


NAMED: dict[str, Callable[[], Log]] = {"mlflow": _mlflow, "wandb": _wandb}
"""By name, functions that make a tracker."""


def trackers_of(
    given: Tracker | Collection[Tracker], where: str
) -> tuple[tuple[str, Log], ...]:
    """Check the argument `trackers`.

    Args:
        given: One or several trackers.
        where: The name of the calling function, for the message.

    Returns:
        Each tracker with a name for messages.

    Raises:
        TypeError, ValueError: If one is neither a function nor a key of `NAMED`.
        ImportError: If the library of one is not installed.
    """
    if isinstance(given, str) or not isinstance(given, Collection):
        given = [given]
    found: list[tuple[str, Log]] = []
    for one in given:
        if callable(one):
            found.append((getattr(one, "__qualname__", type(one).__name__), one))
        elif isinstance(one, str) and one in NAMED:
            found.append((one, NAMED[one]()))
        else:
            wrong = ValueError if isinstance(one, str) else TypeError
            raise wrong(
                f"{where}: `trackers` must be {', '.join(map(repr, NAMED))}, a function of "
                "the numbers by name and the step, or a list of these. Received: "
                f"trackers={one!r}."
            )
    return tuple(found)

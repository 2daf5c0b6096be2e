"""Reads the parameters of a request. TensorBoard answers with the errors raised here."""

from collections.abc import Mapping

import numpy as np
from tensorboard import context, errors, plugin_util
from werkzeug import wrappers

from activation_monitor.analysis.hints import no_such
from activation_monitor.views.plugin.run import Run


def where(request: wrappers.Request) -> tuple[context.RequestContext, str]:
    """TensorBoard's request context and experiment id."""
    return (
        plugin_util.context(request.environ),
        plugin_util.experiment_id(request.environ),
    )


def values(request: wrappers.Request, name: str) -> list[str]:
    """All values of a parameter.

    Raises:
        tensorboard.errors.InvalidArgumentError: If there is none.
    """
    found = request.args.getlist(name)
    if not found:
        raise errors.InvalidArgumentError(f"The query must have the parameter `{name}`.")
    return found


def value(request: wrappers.Request, name: str) -> str:
    """The first value of a parameter, see `values`."""
    return values(request, name)[0]


def step(request: wrappers.Request) -> float:
    """The requested step; without one infinity, which selects the last.

    Raises:
        tensorboard.errors.InvalidArgumentError: If it is not an integer.
    """
    text = request.args.get("step", "")
    try:
        return int(text) if text else np.inf
    except ValueError:
        raise errors.InvalidArgumentError(
            f"`step` must be an integer. Received: {text!r}."
        ) from None


def statistic(request: wrappers.Request) -> str:
    """The requested statistic, by default "rms".

    Raises:
        tensorboard.errors.InvalidArgumentError: If figures cannot show it.
    """
    from activation_monitor.views.figures import STATISTICS_SHOWN  # loads plotly

    found = request.args.get("statistic", "rms")
    if found not in STATISTICS_SHOWN:
        raise errors.InvalidArgumentError(
            f"`statistic` must be one of {', '.join(STATISTICS_SHOWN)}. "
            f"Received: {found!r}."
        )
    return found


def layer(request: wrappers.Request, runs: Mapping[str, Run]) -> str:
    """The requested layer.

    Raises:
        tensorboard.errors.NotFoundError: If none of the runs has it.
    """
    found = value(request, "layer")
    known = [name for run in runs.values() for name in run.names]
    if found not in known:
        raise errors.NotFoundError(f"These runs have {no_such('layer', found, known)}")
    return found

"""Reads the parameters of a request. TensorBoard answers with the errors raised here."""

from collections.abc import Mapping

import numpy as np
from tensorboard import context, errors, plugin_util
from werkzeug import wrappers

from activation_monitor.analysis import records
from activation_monitor.analysis.findings import Finding
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


def key(of: str, statistic: str) -> str:
    """A quantity and a statistic as one text: that of outputs is the statistic alone.

    >>> key("output", "rms"), key("output_gradient", "rms")
    ('rms', 'output_gradient/rms')
    """
    return statistic if of == records.OUTPUT else f"{of}/{statistic}"


def reading(
    request: wrappers.Request, runs: Mapping[str, Run] | None = None
) -> dict[str, str]:
    """The requested statistic, by default "rms" of the outputs, as arguments of a figure:
    `statistic` and `of`.

    Args:
        request: The request.
        runs: The runs, one of which must have it. Defaults to `None`, any.

    Raises:
        tensorboard.errors.InvalidArgumentError: If figures cannot show it.
        tensorboard.errors.NotFoundError: If it was measured in none of the runs.
    """
    from activation_monitor.views.figures import readings  # loads plotly

    found = request.args.get("statistic", "rms")
    known = {key(*one): one for one in readings(records.QUANTITIES)}
    if found not in known:
        raise errors.InvalidArgumentError(
            f"`statistic` must be one of {', '.join(known)}. Received: {found!r}."
        )
    of, statistic = known[found]
    if runs is not None and not any(of in run.measured for run in runs.values()):
        raise errors.NotFoundError(f"These runs have no {of!r}: it was not measured.")
    return {"statistic": statistic, "of": of}


def finding(request: wrappers.Request, run: Run) -> Finding | None:
    """The finding of a run that is to be marked, by its code; None if none is requested.

    A run that is read on may have a finding no more, so an unknown code marks nothing.
    """
    code = request.args.get("finding", "")
    return next((found for found in run.findings if found.code == code), None)


def run(request: wrappers.Request, runs: Mapping[str, Run], name: str) -> str:
    """The run that a parameter names, one of those requested; without it the first one.

    Raises:
        tensorboard.errors.InvalidArgumentError: If it names another run.
    """
    found = request.args.get(name) or next(iter(runs))
    if found not in runs:
        raise errors.InvalidArgumentError(
            f"`{name}` must be one of the requested runs: {', '.join(runs)}. Received: "
            f"{found!r}."
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

"""A few numbers of each layer, and a few of a whole network, for curves over the steps."""

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.analysis.activity import RECTIFIED
from activation_monitor.analysis.depth_profile import depth_profile
from activation_monitor.analysis.findings import SEVERITIES, Finding
from activation_monitor.analysis.hints import no_such
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot
from activation_monitor.analysis.update_ratio import update_ratio

OF_LAYERS = ("activation_mean", "activation_std", "gradient_rms", "update_ratio")
"""The scalars of each layer: mean and std of its output, rms of the gradient with respect
to the output, and update ratio of its kernel."""


def of_layers(snapshot: Snapshot) -> tuple[np.ndarray, np.ndarray]:
    """The scalars of each layer.

    Args:
        snapshot: The snapshot.

    Returns:
        The values, of shape `(len(OF_LAYERS), layers)`, NaN where nothing finite was
        measured; and, of the same shape, whether the layer has such a scalar at this step.
    """
    values = np.stack(
        [
            snapshot.statistic("mean"),
            snapshot.statistic("std"),
            snapshot.statistic("rms", records.OUTPUT_GRADIENT),
            update_ratio(snapshot),
        ]
    )
    output, gradient = (
        snapshot.field("count", of) > 0 for of in (records.OUTPUT, records.OUTPUT_GRADIENT)
    )
    return values, np.stack([output, output, gradient, ~np.isnan(values[3])])


def in_order(position: int, layer: str) -> str:
    """The name of a layer after its position, so that names sort in the order of the calls.

    >>> in_order(3, "net/hidden_2")
    '003_net/hidden_2'
    """
    return f"{position:03d}_{layer}"


class Known(NamedTuple):
    """What the numbers of a network are computed from.

    Attributes:
        snapshot: The snapshot.
        findings: What was found up to this step; None if that is not known.
    """

    snapshot: Snapshot
    findings: Sequence[Finding] | None


def _growth(known: Known) -> float:
    main = depth_profile(known.snapshot).main
    return np.nan if main is None else main.growth


def _extreme(pick: Callable[[np.ndarray], float], values: np.ndarray) -> float:
    """The smallest or the largest of the finite values; NaN without any."""
    values = values[np.isfinite(values)]
    return float(pick(values)) if len(values) else np.nan


def _rms(known: Known, of: str, pick: Callable[[np.ndarray], float]) -> float:
    snapshot = known.snapshot
    is_output = _where(snapshot, lambda layer: layer.kind != "input")
    is_finite = snapshot.field("nonfinite", of) == 0
    return _extreme(pick, snapshot.statistic("rms", of)[is_output & is_finite])


def _update_ratio(known: Known, pick: Callable[[np.ndarray], float]) -> float:
    is_trained = _where(known.snapshot, lambda layer: layer.trainable)
    return _extreme(pick, update_ratio(known.snapshot)[is_trained])


def _dead_fraction(known: Known) -> float:
    snapshot = known.snapshot
    of_window, of_batch = (
        snapshot.of_units("inactive_units"),
        snapshot.statistic("dead_units"),
    )
    units = np.where(np.isnan(of_window), of_batch, of_window)
    width = np.array([layer.width for layer in snapshot.layers], np.float64)
    rectified = _where(snapshot, lambda layer: layer.activation in RECTIFIED)
    some = rectified & (width > 0)
    return _extreme(np.max, units[some] / width[some])


def _saturated_fraction(known: Known) -> float:
    snapshot = known.snapshot
    bounded = _where(snapshot, lambda layer: layer.activation in records.SATURATED)
    return _extreme(np.max, snapshot.statistic("saturated_fraction")[bounded])


def _nonfinite_layers(known: Known) -> float:
    snapshot = known.snapshot
    bad = [snapshot.field("nonfinite", quantity) > 0 for quantity in snapshot.quantities]
    return float(np.any(bad, axis=0).sum())


def _open(known: Known, severities: Sequence[str]) -> float:
    if known.findings is None:
        return np.nan
    still = [finding for finding in known.findings if finding.recovered is None]
    return float(sum(finding.severity in severities for finding in still))


def _where(snapshot: Snapshot, holds: Callable[[LayerInfo], bool]) -> np.ndarray:
    return np.array([holds(layer) for layer in snapshot.layers], bool)


_OUTPUT, _GRADIENT = records.OUTPUT, records.OUTPUT_GRADIENT

OF_NETWORK: dict[str, Callable[[Known], float]] = {
    "findings": partial(_open, severities=SEVERITIES),
    "critical_findings": partial(_open, severities=SEVERITIES[-1:]),
    "nonfinite_layers": _nonfinite_layers,
    "growth": _growth,
    "activation_rms_min": partial(_rms, of=_OUTPUT, pick=np.min),
    "activation_rms_max": partial(_rms, of=_OUTPUT, pick=np.max),
    "gradient_rms_min": partial(_rms, of=_GRADIENT, pick=np.min),
    "gradient_rms_max": partial(_rms, of=_GRADIENT, pick=np.max),
    "update_ratio_min": partial(_update_ratio, pick=np.min),
    "update_ratio_max": partial(_update_ratio, pick=np.max),
    "dead_fraction_max": _dead_fraction,
    "saturated_fraction_max": _saturated_fraction,
}
"""The numbers of a whole network. NaN where it was not measured.

* `findings`, `critical_findings`: how many findings have not ended.
* `nonfinite_layers`: how many layers have NaN or infinity in any measured tensor.
* `growth`: of the activations per weight layer, `GrowthRange.growth` of the longest range;
  1 if they keep their size with depth.
* `activation_rms_min`, `activation_rms_max`: the smallest and the largest rms of the output
  of a layer, among those that are finite.
* `gradient_rms_min`, `gradient_rms_max`: of the gradient with respect to such an output.
* `update_ratio_min`, `update_ratio_max`: of the update ratio of a trainable layer.
* `dead_fraction_max`: the largest share of units of a ReLU layer that were zero for all
  samples, over the last sampled steps.
* `saturated_fraction_max`: the largest share of outputs of a layer with a bounded
  activation function that are near its limits.
"""


def check_numbers(names: str | Collection[str], where: str) -> tuple[str, ...]:
    """Check names of numbers of the network.

    Args:
        names: One or several names.
        where: The name of the calling function, for the message.

    Returns:
        The names.

    Raises:
        TypeError: If it is neither a string nor a collection of strings.
        ValueError: If one is not in `OF_NETWORK`.
    """
    if isinstance(names, str):
        names = (names,)
    given: Any = names  # whatever the user has passed
    if not isinstance(given, Collection):
        raise TypeError(
            f"{where}: `logs` must be one or several names of numbers. Received: "
            f"logs={given!r}. There are: {', '.join(OF_NETWORK)}."
        )
    for name in names:
        if name not in OF_NETWORK:
            known = no_such("number", name, OF_NETWORK, listed=True)
            raise ValueError(f"{where}: wrong `logs`: {known}")
    return tuple(names)


def of_network(snapshot: Snapshot, findings: Sequence[Finding] | None) -> dict[str, float]:
    """The numbers of a whole network, by the names in `OF_NETWORK`.

    Args:
        snapshot: The snapshot.
        findings: What was found up to this step; None if that is not known.
    """
    known = Known(snapshot, findings)
    return {name: float(number(known)) for name, number in OF_NETWORK.items()}


def named(
    snapshot: Snapshot, findings: Sequence[Finding] | None, layers: bool = True
) -> dict[str, float]:
    """All numbers of a snapshot under one name each, for programs that draw curves.

    Args:
        snapshot: The snapshot. Of an evaluation, names begin with "val_".
        findings: What was found up to this step; None if that is not known.
        layers: Whether to return the scalars of each layer. Defaults to `True`.

    Returns:
        `activation_monitor/NAME` for the numbers of the network that were measured;
        and `SCALAR/POSITION_LAYER` for the scalars of each layer, see `in_order`.
    """
    prefix = "val_" if snapshot.evaluation else ""
    found: dict[str, float] = {}
    for name, number in of_network(snapshot, findings).items():
        if not math.isnan(number):
            found[f"{prefix}activation_monitor/{name}"] = number
    if not layers:
        return found
    values, measured = of_layers(snapshot)
    for row, layer in np.argwhere(measured).tolist():
        name = in_order(layer, snapshot.layers[layer].name)
        found[f"{prefix}{OF_LAYERS[row]}/{name}"] = float(values[row, layer])
    return found

"""Plotly figures of a `Recording`: the same in report, TensorBoard's tab and notebook.

Every function is pure and returns a `plotly.graph_objects.Figure`. `runs` maps names of
runs to recordings, in the order in which they are drawn. Names of layers and runs are
escaped wherever they become text, which plotly reads as HTML; traces that show layers
carry the names as they are in `customdata`, one for each point, so that a click can tell
which one was meant.

Sizes have a log axis, or a colour for their log10. What has no logarithm is marked: zeros
at the lower edge of the axis, tensors with NaN or infinite elements at the upper one.
"""

from plotly import graph_objects

from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views.figures.depth import comparison, depth_profile
from activation_monitor.views.figures.graph import layer_graph
from activation_monitor.views.figures.heat import heat_map
from activation_monitor.views.figures.over_time import (
    histogram_over_time,
    layer_over_time,
)
from activation_monitor.views.figures.statistic import STATISTICS_SHOWN

__all__ = [
    "STATISTICS_SHOWN",
    "comparison",
    "draw",
    "depth_profile",
    "heat_map",
    "histogram_over_time",
    "layer_graph",
    "layer_over_time",
]

_KINDS = {
    "depth_profile": lambda recording, diagnosis, **o: depth_profile(
        {"run": recording}, **o
    ),
    "heat_map": lambda recording, diagnosis, **o: heat_map(recording, **o),
    "layer_graph": layer_graph,
    "layer_over_time": lambda recording, diagnosis, **o: layer_over_time(
        {"run": recording}, **{"layer": diagnosis.worst_layer} | o
    ),
    "histogram_over_time": lambda recording, diagnosis, **o: histogram_over_time(
        recording, **{"layer": diagnosis.worst_layer} | o
    ),
}


def draw(
    kind: str, recording: Recording, diagnosis: Diagnosis, **options
) -> graph_objects.Figure:
    """A figure of one run, by its name.

    Args:
        kind: "depth_profile", "heat_map", "layer_graph", "layer_over_time" or
            "histogram_over_time".
        recording: Of the run.
        diagnosis: Of the same.
        **options: Of the function of that name. Without `layer`, the figures of one layer
            show `diagnosis.worst_layer`.

    Raises:
        ValueError: If there is no such figure, or nothing to draw.
    """
    if kind not in _KINDS:
        raise ValueError(
            f"figure: `kind` must be one of {', '.join(_KINDS)}. Received: kind={kind!r}."
        )
    if not len(recording):
        raise ValueError(
            f"figure: expected measurements to draw. Received: kind={kind!r} before "
            "anything was measured. Draw it after the first sampled step."
        )
    return _KINDS[kind](recording, diagnosis, **options)

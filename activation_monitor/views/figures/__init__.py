"""Plotly figures of a `Recording`, for the report, the TensorBoard tab and notebooks.

Each function is pure and returns a `plotly.graph_objects.Figure`. `runs` maps names of runs
to recordings, in the order in which they are drawn. Plotly reads text as HTML, so names of
layers and runs are escaped in all texts. Traces that show layers also have the unescaped
names in `customdata`, one for each point, so that a click identifies the layer.

Sizes have a logarithmic axis, or a colour for their log10. Values without a logarithm are
marked: zeros at the lower edge of the axis, tensors with NaN or infinite elements at the
upper edge.
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
    """Draw a figure of one run by the name of the figure.

    Args:
        kind: `"depth_profile"`, `"heat_map"`, `"layer_graph"`, `"layer_over_time"` or
            `"histogram_over_time"`.
        recording: The recording of the run.
        diagnosis: The diagnosis of the run.
        **options: Arguments of the function of that name. The default of `layer` is
            `diagnosis.worst_layer`.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        ValueError: If there is no figure of that name, or the recording is empty.
    """
    if kind not in _KINDS:
        raise ValueError(
            f"figure: `kind` must be one of {', '.join(_KINDS)}. Received: kind={kind!r}."
        )
    if not len(recording):
        raise ValueError(
            "figure: expected a recording with at least one snapshot. Received: an empty "
            f"one, for kind={kind!r}. Draw it after the first sampled step."
        )
    return _KINDS[kind](recording, diagnosis, **options)

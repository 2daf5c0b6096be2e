"""Plotly figures of a `History`: the same in report, TensorBoard's tab and notebook.

Every function is pure and returns a `plotly.graph_objects.Figure`. `runs` maps names of
runs to histories, in the order in which they are drawn. Names of layers and runs are
escaped wherever they become text, which plotly reads as HTML; traces that show layers
carry the names as they are in `customdata`, one for each point, so that a click can tell
which one was meant.

Sizes are drawn as log10. What has no logarithm is marked: zeros at the lower edge of the
axis, tensors with NaN or infinite elements at the upper one.
"""

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
    "depth_profile",
    "heat_map",
    "histogram_over_time",
    "layer_graph",
    "layer_over_time",
]

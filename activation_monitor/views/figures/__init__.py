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

from activation_monitor.analysis import records
from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views.figures.depth import comparison, depth_profile
from activation_monitor.views.figures.graph import layer_graph
from activation_monitor.views.figures.heat import COLUMNS, heat_map
from activation_monitor.views.figures.histograms import histogram_over_time
from activation_monitor.views.figures.one_statistic import statistic_over_time
from activation_monitor.views.figures.over_time import layer_over_time
from activation_monitor.views.figures.quantity import layers_with
from activation_monitor.views.figures.statistic import STATISTICS_SHOWN, readings, words
from activation_monitor.views.figures.updates import update_ratio

__all__ = [
    "COLUMNS",
    "STATISTICS_SHOWN",
    "comparison",
    "draw",
    "depth_profile",
    "heat_map",
    "histogram_over_time",
    "layer_graph",
    "layer_over_time",
    "readings",
    "statistic_over_time",
    "update_ratio",
    "words",
]

_KINDS = {
    "depth_profile": lambda recording, diagnosis, **o: depth_profile(
        {"run": recording}, **o
    ),
    "heat_map": lambda recording, diagnosis, **o: heat_map(recording, **o),
    "layer_graph": layer_graph,
    "layer_over_time": lambda recording, diagnosis, **o: layer_over_time(
        {"run": recording},
        **{"layer": _default_layer(recording, diagnosis, o.get("of"))} | o,
    ),
    "histogram_over_time": lambda recording, diagnosis, **o: histogram_over_time(
        recording, **{"layer": _default_layer(recording, diagnosis, o.get("of"))} | o
    ),
    "statistic_over_time": lambda recording, diagnosis, **o: statistic_over_time(
        {"run": recording},
        **{"layer": _default_layer(recording, diagnosis, o.get("of"))} | o,
    ),
    "update_ratio": lambda recording, diagnosis, **o: update_ratio(recording, **o),
}


def _default_layer(recording, diagnosis, of):
    """The worst layer, or the next one before it of which the quantity was measured."""
    worst = diagnosis.worst_layer
    if of not in records.QUANTITIES:  # the figure says so
        return worst
    names, having = (layers_with(recording, one) for one in (records.OUTPUT, of))
    before = [name for name in names[: names.index(worst) + 1] if name in having]
    return [worst, *having[:1], *before][-1]


def draw(
    kind: str, recording: Recording, diagnosis: Diagnosis, **options
) -> graph_objects.Figure:
    """Draw a figure of one run by the name of the figure.

    Args:
        kind: `"depth_profile"`, `"heat_map"`, `"layer_graph"`, `"layer_over_time"`,
            `"histogram_over_time"`, `"statistic_over_time"` or `"update_ratio"`.
        recording: The recording of the run.
        diagnosis: The diagnosis of the run.
        **options: Arguments of the function of that name. The default of `layer` is
            `diagnosis.worst_layer`; of a quantity that it does not have, the last layer
            before it.

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

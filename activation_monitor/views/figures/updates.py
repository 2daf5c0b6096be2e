"""How far each step moves the weights, over the steps."""

import math

import numpy as np
from plotly import graph_objects

from activation_monitor.analysis import records
from activation_monitor.analysis.shown import count
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.analysis.thresholds import limit
from activation_monitor.analysis.update_ratio import update_ratios
from activation_monitor.views.figures import labels, step_axis
from activation_monitor.views.figures import path as paths
from activation_monitor.views.figures import quantity as quantities
from activation_monitor.views.figures import statistic as statistics
from activation_monitor.views.figures.colours import shade, theme, translucent
from activation_monitor.views.figures.labels import Label, end_of
from activation_monitor.views.figures.style import (
    add_key,
    common,
    dress,
    escape,
    note,
    power,
    short,
    with_edges,
)

_LAYERS = 12
"""Maximum number of layers in the figure."""

_TITLE = "Update / weight over the steps"


def update_ratio(recording: Recording, dark: bool = False) -> graph_objects.Figure:
    """Draw the rms of the update over the rms of the weight, for each weight layer.

    The update is what one step changed in the kernel, learning rate, clipping and weight
    decay included, see `analysis.update_ratio`. The line is at 1e-3, a common rule of thumb
    (A. Karpathy, CS231n course notes, "Neural Networks Part 3: Learning and Evaluation",
    section "Ratio of weights:updates", 2015). The band is one decade on either side.

    Of more than 12 weight layers, the first, the last and the ten farthest from the line
    are drawn, by the distance on the logarithmic axis at the last step; a kernel that does
    not change is the farthest, unless it is frozen. Colours are those of the depth, from
    the first layer to the last. Steps that apply no update have no point. Ratios of 0 are
    marked at the lower edge.

    Args:
        recording: The recording of one run.
        dark: Whether the colours are for a dark page. Defaults to `False`.

    Raises:
        ValueError: If the recording is empty or updates were not measured.
    """
    paths.check(recording, "update_ratio")
    quantities.check(records.WEIGHT_UPDATE, [recording], "update_ratio")
    colours, ratios = theme(dark), update_ratios(recording)
    figure = graph_objects.Figure()
    if not ratios:
        dress(figure, colours, _TITLE)
        note(figure, "No sampled step has changed a weight.")
        return figure
    names, drawn = [*ratios], _drawn(recording, ratios)
    zeros, ends, prefix = {}, [], common(recording[0].names)
    seen = [math.log10(limit(f"update-ratio{end}")) for end in ("-low", "-high")]
    for name in drawn:
        ratio, colour = (
            ratios[name],
            shade(names.index(name) / max(len(names) - 1, 1), dark),
        )
        figure.add_scatter(
            x=recording.steps,
            y=np.where(ratio > 0, ratio, np.nan),
            mode="lines+markers" if len(recording) <= 40 else "lines",
            line={"color": colour, "width": 2},
            marker={"size": 5, "color": colour},
            name=short(name, prefix=prefix),
            legendgroup=escape(name),
            showlegend=False,
            customdata=[name] * len(recording),
            hovertemplate=f"{escape(name)}<br>step %{{x}}: %{{y:.3g}}<extra></extra>",
        )
        seen += [*statistics.log10(ratio)]
        end = end_of(recording.steps, statistics.log10(ratio))
        if end is not None:
            ends.append(Label(short(name, prefix=prefix), colour, *end))
        zeros[name] = [
            step for step, r in zip(recording.steps, ratio, strict=True) if r == 0
        ]
    low, high = statistics.window(seen, 0.0)
    (lower, _), axis = with_edges(low, high, log=True)
    _add_zeros(figure, zeros, 10.0**lower, colours)
    _add_guide(figure, colours)
    figure.update_yaxes(title="rms of update / rms of weight", **axis)
    figure.update_xaxes(title="step", **step_axis.axis(recording.steps))
    title = _TITLE
    if len(drawn) < len(names):
        title += (
            f", {len(drawn)} of {count(len(names), 'weight layer')}: first, last and those "
            "farthest from the line"
        )
    usual = power(round(math.log10(limit("update-ratio"))))
    add_key(figure, f"dashed: usual ratio, {usual}; grey: a decade on either side")
    dress(figure, colours, title)
    return labels.add(figure, ends)


def _drawn(recording, ratios):
    """Names of the layers to draw, in their order."""
    names = [*ratios]
    if len(names) <= _LAYERS:
        return names
    trained = {*quantities.layers_with(recording, records.WEIGHT_GRADIENT)}

    def distance(name):
        last = ratios[name][~np.isnan(ratios[name])][-1]
        if last == 0:
            return math.inf if name in trained else 0.0
        return abs(math.log10(last / limit("update-ratio")))

    farthest = sorted(names[1:-1], key=distance, reverse=True)[: _LAYERS - 2]
    kept = {names[0], names[-1], *farthest}
    return [name for name in names if name in kept]


def _add_zeros(figure, zeros, y, colours):
    """Mark at `y` the steps at which a kernel did not change while others did."""
    steps = [step for at in zeros.values() for step in at]
    names = [name for name, at in zeros.items() for _ in at]
    if steps:
        figure.add_scatter(
            x=steps,
            y=[y] * len(steps),
            mode="markers",
            marker={"symbol": "triangle-down", "size": 9, "color": colours.zero},
            name="zero",
            showlegend=True,
            customdata=names,
            hovertext=[
                f"{escape(name)}<br>step {step}: the weights did not change"
                for name, step in zip(names, steps, strict=True)
            ],
            hoverinfo="text",
        )


def _add_guide(figure, colours):
    """Draw the usual ratio as a line, and a decade on either side as a band."""
    figure.add_hrect(
        y0=limit("update-ratio-low"),
        y1=limit("update-ratio-high"),
        fillcolor=translucent(colours.ink, 0.08),
        line={"width": 0},
        layer="below",
    )
    figure.add_hline(
        y=limit("update-ratio"),
        line={"color": colours.ink, "width": 1, "dash": "dash"},
        layer="below",
    )

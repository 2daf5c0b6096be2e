"""One layer over the steps: its mean, its spread and its fractions."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from plotly import graph_objects, subplots

from activation_monitor.analysis.records import OUTPUT, SATURATED
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views.figures import edge_marks, labels, step_axis
from activation_monitor.views.figures import quantity as quantities
from activation_monitor.views.figures.colours import theme, translucent
from activation_monitor.views.figures.curves import front_of, places_of
from activation_monitor.views.figures.labels import Label, end_of
from activation_monitor.views.figures.signed import Log, Signed, scale_of
from activation_monitor.views.figures.statistic import nonfinite_text, window
from activation_monitor.views.figures.style import dress, escape, short, short_run

_MARKERS = 40
"""Maximum number of steps for which a line has markers."""

_BELOW = 2.0
"""Decades below the mean and the standard deviation up to which a minimum is shown."""

_SHARES = (
    ("zero_fraction", "zeros", "solid"),
    ("saturated_fraction", "saturated", "dash"),
    ("nonfinite_fraction", "non-finite", "dot"),
)


class _Drawn(NamedTuple):
    """A run to draw: its statistics by name, the prefix of its labels, and the prefix cut
    to fit."""

    run: str
    recording: Recording
    of: str
    found: dict[str, np.ndarray]
    prefix: str
    name: str
    colour: str
    front: bool


def layer_over_time(
    runs: Mapping[str, Recording],
    layer: str,
    dark: bool = False,
    places: Mapping[str, int] | None = None,
    of: str = OUTPUT,
    focus: str | None = None,
) -> graph_objects.Figure:
    """Draw mean, standard deviation, extremes and fractions of one layer over the steps.

    The band is the mean plus and minus one standard deviation, as far as it is between the
    extremes, which are dotted. The axis is logarithmic if all values are positive. Else it
    is linear around 0, and logarithmic beyond, on either side. Tooltips have the values.

    On a logarithmic axis, a minimum far below the mean and the standard deviation is
    beyond the lower end.

    The fractions of zeros, of saturated and of non-finite elements are in a second panel,
    that of saturated ones for outputs of bounded activation functions.
    Steps at which some elements are NaN or infinite are marked at the upper edge.

    Args:
        runs: Recordings by name, in most cases one, or one and a reference. Runs without
            this layer are left out.
        layer: Name of the layer.
        dark: Whether the colours are for a dark page. Defaults to `False`.
        places: Name of a run to its index among all runs, which selects its colour when
            only some runs are drawn. Defaults to `None`, the order of `runs`.
        of: The quantity, a key of `records.QUANTITIES`, for example `"output_gradient"`.
            Defaults to `"output"`.
        focus: Name of the run in front; the lines of others are thinner. Defaults to
            `None`, the first run that has the layer.

    Raises:
        ValueError: If no run has a layer of that name, `focus` is invalid, or the quantity
            is unknown or was not measured.
    """
    where = "layer_over_time"
    known = quantities.runs_with(runs, layer, of, where)
    front = front_of(runs, focus, where)
    front = front if front in known else next(iter(known))
    alone = len(runs) == 1 and places is None
    colours, places = theme(dark), places_of(runs, places)
    drawn = [
        _Drawn(
            *(run, recording, of, _statistics(recording, layer, of)),
            "" if alone else f"{escape(run)}: ",
            "" if alone else f"{short_run(run)}: ",
            *(colours.run(places[run]), run == front),
        )
        for run, recording in sorted(known.items(), key=lambda one: one[0] == front)
    ]
    figure = subplots.make_subplots(
        rows=2, shared_xaxes=True, vertical_spacing=0.07, row_heights=[0.65, 0.35]
    )
    values = np.concatenate([d.found[name] for d in drawn for name in d.found])
    scale = scale_of(values, np.concatenate([d.found["std"] for d in drawn]))
    low, high = _range(drawn, scale)
    span = high - low
    edge = float(scale.on_axis(np.array(high + 0.08 * span)))
    ends = []
    for of_run in drawn:  # the run in front last, with its marks
        ends += _add_sizes(figure, of_run, layer, scale, len(drawn) > 1)
        ends += _add_shares(figure, of_run, layer)
        listed = of_run.front or not _nonfinite(drawn[-1], layer)
        _add_nonfinite(figure, of_run, layer, edge, colours, listed)
    axis = scale.axis(low - 0.06 * span, high + 0.14 * span)
    figure.update_yaxes(title=f"{quantities.WORDS[of]}s", **axis, row=1, col=1)
    share = {"title": "fraction", "range": [-0.04, 1.04], "tickformat": ".0%"}
    figure.update_yaxes(**share, row=2, col=1)
    steps = [step for recording in known.values() for step in recording.steps]
    figure.update_xaxes(**step_axis.axis(steps))
    figure.update_xaxes(title="step", row=2, col=1)
    title = f"{short(layer, 60)} over the steps"
    if of != OUTPUT:
        title = f"{quantities.WORDS[of].capitalize()} of {title}"
    dress(figure, colours, title, height=520)
    return labels.add(figure, ends)


def _range(drawn, scale: Log | Signed):
    """The part of the axis without its margins. On a logarithmic axis a minimum close to 0,
    as that of a softmax layer, would compress the other lines."""
    places = {
        name: scale.place(np.concatenate([d.found[name] for d in drawn]))
        for name in ("minimum", "mean", "std", "maximum")
    }
    if isinstance(scale, Signed):
        return window([*places["minimum"], *places["maximum"]], 0.5)
    lowest = places.pop("minimum")
    typical = np.concatenate([*places.values()])
    least = np.min(typical, where=np.isfinite(typical), initial=np.inf) - _BELOW
    return window([*typical, *np.maximum(lowest, least)], 0.5)


def _statistics(recording, layer, of):
    """Mean, std, extremes, and the ends of the band; all arrays have shape `(steps,)`."""
    names = ("mean", "std", "minimum", "maximum")
    found = {name: recording.statistic(name, layer, of) for name in names}
    low, high = found["mean"] - found["std"], found["mean"] + found["std"]
    found["low"] = np.maximum(low, found["minimum"])
    found["high"] = np.minimum(high, found["maximum"])
    return found


def _add_sizes(figure, of_run, layer, scale: Log | Signed, several):
    """Draw the mean with its band, and the extremes; returns the labels."""
    found, steps, colour = of_run.found, np.array(of_run.recording.steps), of_run.colour
    there, front = np.isfinite(found["mean"]), of_run.front
    x = steps[there]
    low, high = (scale.place(found[end][there]) for end in ("low", "high"))
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=scale.on_axis(np.concatenate([high, low[::-1]])),
        fill="toself",
        fillcolor=translucent(colour, 0.22 if front else 0.1),
        line={"color": colour, "width": 0},
        mode="lines",
        name="mean ± std",
        legendgroup="mean ± std",
        showlegend=front,
        hoverinfo="skip",
        row=1,
        col=1,
    )
    ends = []
    for name in ("minimum", "maximum", "mean"):
        is_mean = name == "mean"
        places = scale.place(found[name])
        figure.add_scatter(
            x=steps,
            y=scale.on_axis(places),
            mode="lines+markers" if len(steps) <= _MARKERS else "lines",
            line={
                "color": colour,
                "dash": "solid" if is_mean else "dot",
                "width": (2.5 if front else 1.5) if is_mean else 1,
            },
            marker={"size": (5 if front else 4) if is_mean else 3},
            opacity=1.0 if front else 0.8,
            name=f"{of_run.name}mean" if is_mean else "extremes",
            legendgroup=f"{of_run.prefix}{'mean' if is_mean else 'extremes'}",
            showlegend=False,
            customdata=[layer] * len(steps),
            hovertext=[
                f"{of_run.prefix}step {step}: {name} {value:.4g}"
                for step, value in zip(steps, found[name], strict=True)
            ],
            hoverinfo="text",
            row=1,
            col=1,
        )
        end = end_of(steps, places)
        if end is not None and (front or is_mean):
            text = labels.cut(of_run.run) if several and is_mean else name
            ends.append(Label(text, colour, *end))
    return ends


def _can_saturate(of_run, layer):
    """Whether the tensors can be at the limits of an activation function."""
    activations = {
        info.activation
        for snapshot in of_run.recording
        for info in snapshot.layers
        if info.name == layer
    }
    return of_run.of == OUTPUT and not activations.isdisjoint(SATURATED)


def _add_shares(figure, of_run, layer):
    """Draw the fractions; returns the labels."""
    recording, ends = of_run.recording, []
    for statistic, label, dash in _SHARES:
        if statistic == "saturated_fraction" and not _can_saturate(of_run, layer):
            continue
        share = recording.statistic(statistic, layer, of_run.of)
        figure.add_scatter(
            x=recording.steps,
            y=share,
            mode="lines+markers" if len(recording) <= _MARKERS else "lines",
            line={
                "color": of_run.colour,
                "dash": dash,
                "width": 2 if of_run.front else 1.2,
            },
            marker={"size": 4},
            opacity=1.0 if of_run.front else 0.8,
            name=label,
            showlegend=False,
            customdata=[layer] * len(recording),
            hovertemplate=(
                f"{of_run.prefix}step %{{x}}: {label} %{{y:.4~p}}<extra></extra>"
            ),
            row=2,
            col=1,
        )
        end = end_of(recording.steps, share)
        if of_run.front and end is not None:
            ends.append(Label(label, of_run.colour, *end, 2))
    return ends


def _nonfinite(of_run, layer):
    """The snapshots with NaN or infinite elements."""
    recording = of_run.recording
    share = recording.statistic("nonfinite_fraction", layer, of_run.of)
    return [snapshot for i, snapshot in enumerate(recording) if share[i] > 0]


def _add_nonfinite(figure, of_run, layer, y, colours, listed):
    """Mark the steps with NaN or infinity."""
    of, prefix, there = of_run.of, of_run.prefix, _nonfinite(of_run, layer)
    if there:
        figure.add_scatter(
            x=[snapshot.step for snapshot in there],
            y=[y] * len(there),
            mode="markers",
            marker=edge_marks.look(
                *("x", colours.nonfinite, of_run.colour, of_run.front, len(there))
            ),
            name=edge_marks.NONFINITE,
            legendgroup="nonfinite",
            showlegend=listed,
            customdata=[layer] * len(there),
            hovertext=[
                f"{prefix}step {snapshot.step}: {_nonfinite_text(snapshot, layer, of)}"
                for snapshot in there
            ],
            hoverinfo="text",
            row=1,
            col=1,
        )


def _nonfinite_text(snapshot, layer, of):
    row = snapshot.names.index(layer)
    counts = (snapshot.field(name, of)[row] for name in ("count", "nonfinite"))
    return nonfinite_text(*counts)

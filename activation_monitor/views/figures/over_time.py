"""Figures of one layer over the steps."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from plotly import graph_objects, subplots

from activation_monitor.analysis.records import OUTPUT
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views.figures import path as paths
from activation_monitor.views.figures import quantity as quantities
from activation_monitor.views.figures.curves import places_of
from activation_monitor.views.figures.statistic import evenly, nonfinite_text, window
from activation_monitor.views.figures.style import (
    dress,
    escape,
    note,
    short,
    short_run,
    theme,
    tint,
    translucent,
    whole,
)

_RIDGES = 24
"""Maximum number of histograms in a figure."""

_SHARES = (
    ("zero_fraction", "zeros", "solid"),
    ("saturated_fraction", "saturated", "dash"),
    ("nonfinite_fraction", "non-finite", "dot"),
)


class _Drawn(NamedTuple):
    """A run to draw, and the quantity; the prefix of its labels, and the prefix cut to fit
    a legend."""

    recording: Recording
    of: str
    prefix: str
    name: str
    colour: str


def layer_over_time(
    runs: Mapping[str, Recording],
    layer: str,
    dark: bool = False,
    places: Mapping[str, int] | None = None,
    of: str = OUTPUT,
) -> graph_objects.Figure:
    """Draw mean, standard deviation, extremes and fractions of one layer over the steps.

    The fractions of zeros, of saturated and of non-finite elements are in a second panel.
    Steps at which some elements are NaN or infinite are marked at the upper edge.

    Args:
        runs: Recordings by name. Runs without this layer are left out.
        layer: Name of the layer.
        dark: Whether the colours are for a dark page. Defaults to `False`.
        places: Name of a run to its index among all runs, which selects its colour when
            only some runs are drawn. Defaults to `None`, the order of `runs`.
        of: The quantity, a key of `records.QUANTITIES`, for example `"output_gradient"`.
            Defaults to `"output"`.

    Raises:
        ValueError: If no run has a layer of that name, or the quantity is unknown or was
            not measured.
    """
    quantities.check(of, runs.values(), "layer_over_time")
    known = {
        run: recording
        for run, recording in runs.items()
        if layer in quantities.layers_with(recording, of)
    }
    if not known:
        expected = f" Expected a layer of one of the runs ({', '.join(runs) or 'none'})."
        quantities.check_layer(layer, runs.values(), of, "layer_over_time", expected)
    alone = len(runs) == 1 and places is None
    colours, places = theme(dark), places_of(runs, places)
    figure = subplots.make_subplots(
        rows=2, shared_xaxes=True, vertical_spacing=0.07, row_heights=[0.65, 0.35]
    )
    drawn = [
        _Drawn(
            *(recording, of),
            "" if alone else f"{escape(run)}: ",
            "" if alone else f"{short_run(run)}: ",
            colours.run(places[run]),
        )
        for run, recording in known.items()
    ]
    seen = []
    for number, of_run in enumerate(drawn):
        # The legend has each kind of line once, and each run once.
        explained = number == 0
        seen.append(_add_sizes(figure, of_run, layer, explained))
        _add_shares(figure, of_run, layer, alone, explained, colours)
    low, high = window(np.concatenate(seen), 0.0)
    span = (high - low) or max(abs(high), 1.0)
    explained, edge = True, high + 0.08 * span
    for of_run in drawn:
        there = _add_nonfinite(figure, of_run, layer, edge, explained, colours)
        explained = explained and not there
    limits = [low - 0.06 * span, high + 0.14 * span]
    figure.update_yaxes(title=f"{quantities.WORDS[of]}s", range=limits, row=1, col=1)
    share = {"title": "fraction", "range": [-0.04, 1.04], "tickformat": ".0%"}
    figure.update_yaxes(**share, row=2, col=1)
    steps = [step for recording in known.values() for step in recording.steps]
    figure.update_xaxes(**whole(min(steps), max(steps)))
    figure.update_xaxes(title="step", row=2, col=1)
    title = f"{short(layer, 60)} over the steps"
    if of != OUTPUT:
        title = f"{quantities.WORDS[of].capitalize()} of {title}"
    return dress(figure, colours, title, height=560)


def histogram_over_time(
    recording: Recording,
    layer: str,
    dark: bool = False,
    place: int = 0,
    of: str = OUTPUT,
) -> graph_objects.Figure:
    """Draw the histograms of one layer, one above the other in the order of the steps.

    All histograms have the same height. At most 24 evenly spaced steps are drawn.

    Args:
        recording: The recording of one run.
        layer: Name of the layer.
        dark: Whether the colours are for a dark page. Defaults to `False`.
        place: Index of the run among all runs, which selects its colour. Defaults to `0`.
        of: The quantity: `"output"` or `"output_gradient"`. Defaults to `"output"`.

    Raises:
        ValueError: If the recording is empty or has no layer of that name, or the quantity
            is unknown, was not measured or has no histograms.
    """
    where = "histogram_over_time"
    paths.check(recording, where)
    quantities.check(of, [recording], where)
    quantities.check_layer(layer, [recording], of, where)
    counted = {name for snapshot in recording for name in snapshot.histograms}
    if counted and of not in counted:
        raise ValueError(
            f"{where}: expected a quantity with histograms: {', '.join(sorted(counted))}. "
            f"Received: of={of!r}."
        )
    colours = theme(dark)
    colour = colours.run(place)
    those = [snapshot for snapshot in recording if of in snapshot.histograms]
    kept = [those[i] for i in evenly(len(those), _RIDGES)]
    kept = [
        (snapshot.step, snapshot.histogram(layer, of))
        for snapshot in kept
        if layer in snapshot.names
    ]
    kept = [(step, counted) for step, counted in kept if counted is not None]
    figure = graph_objects.Figure()
    title = f"Histograms{quantities.of_the(of)} of {short(layer, 60)}"
    if not kept:
        dress(figure, colours, title)
        note(
            figure,
            "No histograms were recorded. Use <i>ActivationMonitor(histograms=True)</i>.",
        )
        return figure
    for place in reversed(range(len(kept))):  # the first steps are in front
        step, (_, rows) = kept[place]
        left, right, counts = rows.T
        centre = (left + right) / 2
        height = 1.6 * counts / counts.max()
        x = np.concatenate([[left[0]], centre, [right[-1]]])
        y = place + np.concatenate([[0.0], height, [0.0]])
        figure.add_scatter(
            x=np.concatenate([x, [left[0]]]),
            y=np.concatenate([y, [place]]),
            fill="toself",
            fillcolor=tint(colour, colours.paper),
            line={"color": colour, "width": 1},
            mode="lines",
            name=f"step {step}",
            customdata=[layer] * (len(x) + 1),
            hovertext=f"step {step}: {counts.sum():.0f} elements counted, "
            f"{left[0]:.4g} to {right[-1]:.4g}",
            hoverinfo="text",
            showlegend=False,
        )
    figure.update_yaxes(
        title="step",
        tickvals=list(range(len(kept))),
        ticktext=[str(step) for step, _ in kept],
    )
    figure.update_xaxes(title=quantities.WORDS[of])
    return dress(figure, colours, title, height=180 + 18 * len(kept))


def _add_sizes(figure, of_run, layer, explained):
    """Draw the mean with a band of one standard deviation, and the extremes; returns the
    values drawn."""
    recording, quantity, prefix, run, colour = of_run
    steps = np.array(recording.steps)
    of = {
        name: recording.statistic(name, layer, quantity)
        for name in ("mean", "std", "minimum", "maximum")
    }
    there = np.isfinite(of["mean"])
    x, low, high = steps[there], of["mean"] - of["std"], of["mean"] + of["std"]
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high[there], low[there][::-1]]),
        fill="toself",
        fillcolor=translucent(colour, 0.22),
        line={"width": 0},
        mode="lines",
        name="mean ± std",
        showlegend=explained,
        hoverinfo="skip",
        row=1,
        col=1,
    )
    for name, dash in (("mean", "solid"), ("minimum", "dot"), ("maximum", "dot")):
        figure.add_scatter(
            x=steps,
            y=of[name],
            mode="lines+markers" if len(steps) <= 40 else "lines",
            line={"color": colour, "dash": dash, "width": 2 if name == "mean" else 1},
            marker={"size": 5 if name == "mean" else 3},
            name=f"{run}mean" if name == "mean" else "extremes",
            legendgroup=f"{prefix}{dash}",
            showlegend=name == "mean" or (explained and name == "minimum"),
            customdata=[layer] * len(steps),
            hovertemplate=f"step %{{x}}: {name} %{{y:.4g}}<extra>{prefix}</extra>",
            row=1,
            col=1,
        )
    return np.concatenate([of["minimum"], of["maximum"], low, high])


def _add_shares(figure, of_run, layer, alone, explained, colours):
    recording, quantity, prefix, _, colour = of_run
    for i, (statistic, label, dash) in enumerate(_SHARES):
        if statistic == "saturated_fraction" and quantity != OUTPUT:
            continue  # only outputs can be at the limits of an activation function
        figure.add_scatter(
            x=recording.steps,
            y=recording.statistic(statistic, layer, quantity),
            mode="lines+markers" if len(recording) <= 40 else "lines",
            line={"color": colours.runs[i + 1] if alone else colour, "dash": dash},
            marker={"size": 4},
            name=label,
            showlegend=explained,
            customdata=[layer] * len(recording),
            hovertemplate=f"step %{{x}}: {label} %{{y:.4~p}}<extra>{prefix}</extra>",
            row=2,
            col=1,
        )


def _add_nonfinite(figure, of_run, layer, y, explained, colours):
    """Mark the steps with NaN or infinity; returns whether there are any."""
    recording, of, prefix, _, colour = of_run
    share = recording.statistic("nonfinite_fraction", layer, of)
    there = [snapshot for i, snapshot in enumerate(recording) if share[i] > 0]
    if there:
        figure.add_scatter(
            x=[snapshot.step for snapshot in there],
            y=[y] * len(there),
            mode="markers",
            marker={
                "symbol": "x",
                "size": 9,
                "color": colours.nonfinite,
                "line": {"color": colour, "width": 1.5},
            },
            name="NaN or infinite elements",
            legendgroup="nonfinite",
            showlegend=explained,
            customdata=[layer] * len(there),
            hovertext=[
                f"{prefix}step {snapshot.step}: {_nonfinite_text(snapshot, layer, of)}"
                for snapshot in there
            ],
            hoverinfo="text",
            row=1,
            col=1,
        )
    return bool(there)


def _nonfinite_text(snapshot, layer, of):
    row = snapshot.names.index(layer)
    counts = (snapshot.field(name, of)[row] for name in ("count", "nonfinite"))
    return nonfinite_text(*counts)

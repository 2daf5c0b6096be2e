"""A plotly figure of curves as inline SVG, for pages without plotly.js.

It supports what the figures over depth consist of: scatter traces in panels one above the
other, lines, bands, annotations and the legend. Vertical axes are linear or logarithmic.
Text, axes and grid have the colour of the surrounding text, which suits a light and a dark
page.
"""

import html
import re
from typing import Any, cast

import numpy as np
from plotly import graph_objects

from activation_monitor.views.figures.colours import (
    DARK,
    LIGHT,
    contrast,
    mixed,
    readable,
    rgb,
)
from activation_monitor.views.figures.labels import LINE, grouped, spread
from activation_monitor.views.figures.svg_axes import (
    TOP,
    WIDTH,
    height_below,
    margin_left,
    panel_of,
    panels_of,
)

_SHRUNK = 0.75
"""Height of a panel relative to the figure: a notebook cell is lower than a page."""

_CONTRAST = 3.0
"""Minimum contrast of a run's colour with both pages (WCAG 2, for graphics)."""

_MARGIN = 50
"""Top margin of the plotly figure, in pixels, with room for a row of texts."""

_LEGEND = 45
"""Height of the legend in the plotly figure, in pixels."""

_DASHES = {"dot": "2 3", "dash": "7 4", "dashdot": "7 3 2 3", "longdash": "11 4"}
_DASHES["longdashdot"] = "11 3 2 3"


def svg(figure: graph_objects.Figure) -> str:
    """The figure as an `<svg>` element.

    Args:
        figure: A figure of scatter traces. All its texts are escaped, as plotly requires.
    """
    drawn = cast(Any, figure)  # plotly has no types for the parts
    layout = drawn.layout
    below = height_below(layout)
    inside = layout.height - layout.margin.t - below - _LEGEND
    top = TOP + layout.margin.t - _MARGIN  # more for rows of texts
    left, bottom = margin_left(layout), top + _SHRUNK * inside
    panels = panels_of(figure, left, bottom, top)
    parts = [_text(left, TOP - 16, layout.title.text, size=14)]
    for suffix, (x, y) in panels.items():
        is_last = suffix == max(panels)
        parts += _frame(x, y, layout, suffix, below if is_last else None)
    # Not by `in`: plotly compares all properties of two shapes.
    shapes = [(shape.layer == "below", _shape(shape, panels)) for shape in layout.shapes]
    parts += [made for behind, made in shapes if behind]
    for trace in drawn.data:
        parts += _trace(trace, *panels[panel_of(trace.yaxis)])
    parts += [made for behind, made in shapes if not behind]
    for suffix, panel in panels.items():
        parts += _notes(layout, suffix, *panel)
    entries, height = _legend(figure, left, bottom + below + 12)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'role="img" aria-label="{_plain(layout.title.text)}" style="width: 100%; '
        f'max-width: {WIDTH}px; height: auto; font-size: 12px" fill="currentColor">'
        f"{''.join([*parts, *entries])}</svg>"
    )


# -- axes


def _frame(x, y, layout, suffix, below):
    """Grid, ticks and titles of a panel. The last one has a height `below` for names."""
    faint = 'stroke="currentColor" stroke-opacity="0.15"'
    for value, text in y.ticks:
        at = y.at_place(value)
        yield f'<path d="M{x.start} {at}H{x.end}" {faint}/>'
        yield _text(x.start - 8, at + 4, text, "end")
    for value, text in x.ticks:
        at = x.at_place(value)
        yield f'<path d="M{at} {y.start}V{y.end}" {faint}/>'
        if below is not None:
            angle = layout.xaxis.tickangle
            anchor = "end" if angle else "middle"
            yield _text(at, y.start + 16, text, anchor, angle)
    title = layout[f"yaxis{suffix}"].title.text
    yield _text(16, (y.start + y.end) / 2, title, "middle", -90)
    if below is not None:
        title = layout[f"xaxis{suffix}"].title.text
        yield _text((x.start + x.end) / 2, y.start + below - 10, title, "middle")


def _shape(shape, panels):
    """A horizontal line in a panel, or a vertical line or band in one panel or in all."""
    name = panel_of(shape.yref)
    those = [panels[name]] if "y" in shape.yref else [*panels.values()]
    if shape.yref in (f"y{name}", "y"):
        x, y = those[0]
        return _line(shape.line, [(x.start, y.at(shape.y0)), (x.end, y.at(shape.y1))])
    x, top, bottom = those[0][0], those[0][1].end, those[-1][1].start
    left, right = x.at(shape.x0), x.at(shape.x1)
    if shape.type == "line":
        return _line(shape.line, [(left, bottom), (right, top)])
    fill = _colour(shape.fillcolor)
    return f'<path d="M{left} {top}H{right}V{bottom}H{left}Z" fill="{fill}"/>'


def _notes(layout, suffix, x, y):
    """The texts of a panel: the names of its lines, and others. The first panel has those
    of the whole figure."""
    ends = []
    for note in layout.annotations:
        if note.yref == f"y{suffix}" and note.xshift:
            ends.append(note)
        elif note.yref == f"y{suffix}":
            # On a logarithmic axis, plotly uses the exponent as the place of a text.
            yield _text(x.start + 4, y.at_place(note.y) - 4, note.text)
        elif note.yref == "paper" and not suffix:
            in_figure = note.xref == "paper"
            at = x.start if in_figure else x.at(note.x)
            anchor = {"left": "start", "right": "end"}[note.xanchor]
            place = y.end - 4 - (note.yshift or 0)
            yield _text(at, place, note.text, anchor, size=11)
    # A panel is lower than in the figure, so that names are placed again.
    for group in grouped(ends, x.low, x.high):
        places = [y.start - y.at_place(note.y) for note in group]
        tall = [LINE * len(note.text.split("<br>")) for note in group]
        placed = spread(places, tall, 0.0, y.start - y.end)
        for note, place, height in zip(group, placed, tall, strict=True):
            for i, line in enumerate(note.text.split("<br>")):
                at = y.start - place - height / 2 + (i + 0.75) * LINE
                text = _text(x.at(note.x) + note.xshift, round(at, 1), line, size=11)
                yield text.replace("<text ", f'<text fill="{_colour(note.font.color)}" ')


# -- traces and the legend


def _trace(trace, x, y):
    points = [
        (x.at(a), y.at(b)) if x.shows(a) and y.shows(b) else None
        for a, b in zip(np.asarray(trace.x, float), np.asarray(trace.y, float), strict=True)
    ]
    if trace.fill == "toself":
        corners = " ".join(f"{a},{b}" for a, b in filter(None, points))
        yield f'<polygon points="{corners}" fill="{_colour(trace.fillcolor)}"/>'
        return
    faint = 1.0 if trace.opacity is None else trace.opacity
    if "lines" in trace.mode:
        line = _line(trace.line, points)
        yield line if faint == 1 else f'<g opacity="{faint:g}">{line}</g>'
    if "markers" in trace.mode:
        marker = trace.marker
        symbols = _each(marker.symbol, len(points))
        outlines = _each(marker.line.color, len(points))
        drawn = "".join(
            _mark(symbol, *point, marker.size, marker.color, outline)
            for point, symbol, outline in zip(points, symbols, outlines, strict=True)
            if point
        )
        opacity = faint * (1.0 if marker.opacity is None else marker.opacity)
        yield f'<g opacity="{opacity:g}">{drawn}</g>'


def _each(value, count):
    """One value for each of `count` points, from one for all or one for each."""
    return [value] * count if value is None or isinstance(value, str) else list(value)


def _line(line, points):
    """A line through the points, interrupted where one is missing."""
    path, pen = "", "M"
    for point in points:
        path += f"{pen}{point[0]} {point[1]}" if point else ""
        pen = "L" if point else "M"
    dash = f' stroke-dasharray="{_DASHES[line.dash]}"' if line.dash in _DASHES else ""
    return (
        f'<path d="{path}" fill="none" stroke="{_colour(line.color)}" '
        f'stroke-width="{line.width or 2}"{dash}/>'
    )


def _mark(symbol, x, y, size, colour, outline):
    r, fill = size / 2, f'fill="{_colour(colour)}"'
    edge = f' stroke="{_colour(outline)}"' if outline else ""
    if symbol == "triangle-down":
        return f'<path d="M{x - r} {y - r}H{x + r}L{x} {y + r}Z" {fill}{edge}/>'
    if symbol == "x":
        cross = f"M{x - r} {y - r}L{x + r} {y + r}M{x - r} {y + r}L{x + r} {y - r}"
        stroke = f'stroke="{_colour(outline or colour)}"'
        inner = f'<path d="{cross}" stroke="{_colour(colour)}" stroke-width="2"/>'
        return f'<path d="{cross}" {stroke} stroke-width="4.5"/>{inner}'
    if symbol == "circle-open":
        fill, edge = 'fill="none"', f' stroke="{_colour(colour)}"'
    return f'<circle cx="{x}" cy="{y}" r="{r}" {fill}{edge}/>'


def _legend(figure, left, top) -> tuple[list[str], float]:
    """The entries in rows, and the bottom of the last row."""
    parts, x, y = [], left, top
    for trace in figure.data:
        if not trace.showlegend or not trace.name:
            continue
        wide = 44 + 6.6 * len(html.unescape(trace.name))
        if x > left and x + wide > WIDTH:
            x, y = left, y + 20
        middle = y - 4
        if trace.fill == "toself":
            fill = _colour(trace.fillcolor)
            parts.append(f'<path d="M{x} {middle - 5}h24v10h-24z" fill="{fill}"/>')
        else:
            if "lines" in trace.mode:
                parts.append(_line(trace.line, [(x, middle), (x + 24, middle)]))
            if "markers" in trace.mode:
                marker = trace.marker
                symbol, outline = (
                    _each(value, 1)[0] for value in (marker.symbol, marker.line.color)
                )
                here = (x + 12, middle, marker.size, marker.color, outline)
                parts.append(_mark(symbol, *here))
        parts.append(_text(x + 30, y, trace.name))
        x += wide
    return parts, y + 10


def _colour(colour):
    """A colour between those of the light and the dark theme, which suits both."""
    if colour in (None, LIGHT.ink, LIGHT.grid):
        return "currentColor"
    if colour.startswith("rgba"):
        red, green, blue, opacity = re.findall(r"[\d.]+", colour)
        solid = "#" + "".join(f"{int(c):02x}" for c in (red, green, blue))
        if solid == LIGHT.ink:
            return f"rgba(128, 128, 128, {opacity})"
        between = _between(solid)
        return colour if between is None else f"rgba{between[3:-1]}, {opacity})"
    return _between(colour) or colour


def _between(colour):
    """The colour halfway between the themes of a run's colour, or of text in it, with so
    much white or black that it stands out from both pages."""
    for light, dark in zip(LIGHT.runs, DARK.runs, strict=True):
        if colour.lower() in (light.lower(), readable(light, LIGHT.paper, LIGHT.ink)):
            middle = mixed(light, dark, 0.5)
            for paper, towards in ((DARK.paper, "#ffffff"), (LIGHT.paper, "#000000")):
                shades = (mixed(middle, towards, 1 - i / 20) for i in range(20))
                middle = next(one for one in shades if contrast(one, paper) >= _CONTRAST)
            return f"rgb({', '.join(map(str, rgb(middle)))})"
    return None


# -- text


def _text(x, y, text, anchor="start", angle=None, size=None):
    """A text in plotly's HTML as SVG. Only superscripts are kept."""
    turned = f' transform="rotate({angle} {x:g} {y:g})"' if angle else ""
    size = f' font-size="{size}"' if size else ""
    before, *above = re.split("</?sup>", text or "")
    raised = "".join(
        f'<tspan dy="-5" font-size="9">{_plain(part)}</tspan>' for part in above[:1]
    )
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{turned}{size}>'
        f"{_plain(before)}{raised}</text>"
    )


def _plain(text):
    """The text that plotly would show, escaped for SVG."""
    return html.escape(html.unescape((text or "").replace("<br>", " ")))

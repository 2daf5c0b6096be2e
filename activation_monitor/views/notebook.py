"""A diagnosis, a monitor and the result of `rescale` in a notebook.

A notebook shows only one of the types that an object offers, so the table and the figure
are in one `text/html`. The figure is a static SVG. Plotly's own HTML needs plotly.js, which
is 4.8 MB in each cell or a network connection, and it stays blank in some front ends
(plotly.py issue 3085). `diagnosis.figure()` returns plotly's own figure.

The theme is unknown here: JupyterLab, VS Code and Colab mark a dark page in different ways.
So text and lines use the colour of the surrounding text (`currentColor`, which does not
work in an `<img>`), and all other colours suit a light and a dark page.

A notebook that is not trusted removes the style and the SVG. Headings, tables
and code are plain elements and stay readable. The texts in the figure also stay, so it has
no tooltips. In its place appears a PNG of the signal in depth and time, which the style
hides. The same PNG is there as `image/png`, for PDF and other pages without HTML.
"""

import base64
from html import escape

from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.findings import shown_by
from activation_monitor.analysis.records import OUTPUT, OUTPUT_GRADIENT
from activation_monitor.analysis.rescaling import Rescaling
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views import figures, in_words, markup, tables
from activation_monitor.views.figures import image
from activation_monitor.views.figures.svg import svg
from activation_monitor.views.live import Bundle

_CLASS = "activation-monitor"

# A style applies to the whole page, so each rule names the class. The colours are halfway
# between those of the light and the dark page of the report.
_STYLE = """<style>
.X { font-size: 13px; line-height: 1.45; max-width: 1000px; overflow-wrap: anywhere;
  --critical: #d83648; --warning: #c97f00; --healthy: #169a78; --grey: #8888884d; }
.X p { margin: 4px 0; }
.X .verdict { border-left: 5px solid var(--grey); padding: 2px 12px; }
.X .verdict > p:first-child { font-size: 15px; font-weight: bold; }
.X .verdict.healthy { border-color: var(--healthy); }
.X .verdict.critical { border-color: var(--critical); }
.X .verdict.warning { border-color: var(--warning); }
.X .finding { border-top: 1px solid var(--grey); margin-top: 8px; padding-top: 4px; }
.X .title { font-weight: bold; }
.X .critical .title { color: var(--critical); }
.X .warning .title { color: var(--warning); }
.X .finding pre { background: #8888881f; color: inherit; border: 0; border-radius: 3px;
  padding: 4px 8px; margin: 4px 0; white-space: pre-wrap;
  font: 12px/1.45 ui-monospace, monospace; }
.X .static { display: none; }
.X svg { display: block; margin: 8px 0; }
.X summary { cursor: pointer; display: list-item; font-weight: bold; }
.X .finding .evidence { border-collapse: collapse; margin: 4px 0; font-size: 12px;
  color: inherit; border: 0; }
.X .finding .evidence tr { background: none; }
.X .evidence th, .X .evidence td { padding: 1px 10px 1px 0; text-align: left; border: 0;
  background: none; color: inherit; }
.X .evidence th { font-weight: normal; opacity: 0.7; }
.X .wide { max-height: 330px; overflow: auto; width: fit-content; max-width: 100%; }
.X .wide table { border-collapse: collapse; margin: 0; font-size: 12px; color: inherit;
  border: 0; }
.X .wide th, .X .wide td { padding: 2px 10px; text-align: left; white-space: nowrap;
  border: 0; border-bottom: 1px solid var(--grey); background: none; color: inherit; }
.X .wide tr { background: none; }
.X .wide th { position: sticky; top: 0; font-weight: bold; vertical-align: bottom;
  backdrop-filter: blur(9px); -webkit-backdrop-filter: blur(9px); }
.X .wide .number { text-align: right; font-variant-numeric: tabular-nums; }
.X .wide .critical td { background: #d8364826; }
.X .wide .warning td { background: #c97f0026; }
.X .wide .left-alone td { opacity: 0.6; }
.X .more { opacity: 0.7; }
.X .more code { font: 12px ui-monospace, monospace; background: none; color: inherit; }
</style>""".replace(".X", f".{_CLASS}")


def diagnosis_html(diagnosis: Diagnosis) -> str:
    """The verdict and the findings, the signal over depth, and the table of the layers."""
    recording = _recording_of(diagnosis)
    return _html(diagnosis, recording, _png(recording))


def _html(diagnosis, recording, png):
    kind = "healthy" if diagnosis.healthy else ""
    if diagnosis.findings:
        kind = in_words.headline(diagnosis).kind
    parts = [f'<div class="verdict {kind}">{in_words.html(diagnosis)}</div>']
    if diagnosis.first is not None:
        snapshots = (diagnosis.first, diagnosis.last or diagnosis.first)
        table = markup.layer_table(diagnosis, snapshots, ("class_name", "activation"))
        parts += [
            *(svg(figure) for figure in _figures(diagnosis, recording) if figure.data),
            _static(png),
            f"<details open><summary>Layers</summary>{table}</details>",
            '<p class="more">Interactive figures: <code>.figure("depth_profile")</code>, '
            '<code>.figure("layer_graph")</code></p>',
        ]
    return _framed(parts)


def diagnosis_png(diagnosis: Diagnosis) -> bytes | None:
    """The size of the signal at the first and at the last snapshot; None without them."""
    return _png(_recording_of(diagnosis))


def bundle(diagnosis: Diagnosis, recording: Recording, line: str) -> Bundle:
    """A training so far, by MIME type.

    Args:
        diagnosis: Its diagnosis.
        recording: Its snapshots, of which there may be none.
        line: The same in one line.
    """
    png = _png(recording)
    made = {"text/plain": line, "text/html": _html(diagnosis, recording, png)}
    return made if png is None else {**made, "image/png": _base64(png)}


def _recording_of(diagnosis):
    both = (diagnosis.first, diagnosis.last)
    at = {snapshot.step: snapshot for snapshot in both if snapshot is not None}
    return Recording(at.values())


def _figures(diagnosis, recording):
    """The size of the signal over depth, and what shows the worst finding."""
    worst, options = diagnosis.worst_finding, {}
    of, statistic = OUTPUT, "rms"
    if worst is not None:
        of, statistic = shown_by(worst.code, recording.quantities)
        steps = {recording[0].step, worst.step, recording[-1].step}
        options = {"marked": {"run": worst}, "steps": sorted(steps)}
    reading = {"of": of, "statistic": statistic}
    yield figures.draw("depth_profile", recording, diagnosis, **reading, **options)
    # The size of the signal and of the gradient are one figure.
    if statistic != "rms" or of not in (OUTPUT, OUTPUT_GRADIENT):
        yield figures.draw("depth_profile", recording, diagnosis, **options)


def _png(recording):
    measured = any(snapshot.has() for snapshot in recording)
    return image.png(image.picture(recording)) if measured else None


def _base64(data):
    return base64.b64encode(data).decode("ascii")


def _static(png):
    if png is None:
        return ""
    return (
        f'<img class="static" alt="{escape(image.ABOUT)}" '
        f'src="data:image/png;base64,{_base64(png)}">'
    )


def rescaling_html(report: Rescaling) -> str:
    """The standard deviation before and after, and the factor, for each weight layer."""
    name, *figures, reason = tables.RESCALING_HEADINGS
    columns = {name: "", **dict.fromkeys(figures, "number"), reason: ""}
    rows = [
        ("left-alone" if layer.reason else "", tables.rescaling_row(layer))
        for layer in report.layers
    ]
    return _framed(
        [
            f'<p class="title">{escape(tables.RESCALING_TITLE)}</p>',
            markup.table(columns, rows),
            f"<p>{escape(report.summary)}.</p>",
        ]
    )


def _framed(parts):
    return f'{_STYLE}<div class="{_CLASS}">{"".join(parts)}</div>'

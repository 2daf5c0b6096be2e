"""The report: one self-contained HTML page about one or several runs."""

import json
from collections.abc import Mapping
from html import escape

from plotly import offline

from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views import in_words, markup, report_figures
from activation_monitor.views.figures.colours import DARK, LIGHT
from activation_monitor.views.report_page import PAGE
from activation_monitor.views.summary import (
    compared,
    diagnose_all,
    reference_of,
    worst_first,
)
from activation_monitor.views.worst_layers import which

_OPEN = 3
"""Up to so many runs, the parts of all of them are open."""


def page(runs: Mapping[str, Recording], title: str, reference: str | None = None) -> str:
    """The report as HTML that needs no other file and no network.

    At the top, each run has a row: its verdict, the layers, since when, and the line to
    change. Then come the comparison of the runs, and for each run its findings, figures and
    layers. Runs with findings come first, the worst ones at the top. The page follows the
    light or dark theme of the browser and has a switch for it. Printed, it is light, and
    all parts are open.

    Args:
        runs: Recordings by name, each with at least one snapshot.
        title: Title of the page, for example the log folder.
        reference: The name of the run that the others are compared with. Defaults to
            `None`, the first one with the best verdict.

    Raises:
        ValueError: If there is no run, a run has no snapshot, or no run has the name of the
            reference.
    """
    diagnoses = diagnose_all(runs)
    first = reference_of(diagnoses, reference)
    order = worst_first(diagnoses)
    places = {run: place for place, run in enumerate(runs)}  # of its colour
    together = report_figures.of_all(runs, diagnoses, first)
    each = report_figures.of_each(runs, diagnoses, first)
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="line">{escape(_in_one_line(diagnoses, order))}</p>',
        _rows(diagnoses, order, places),
    ]
    if len(runs) > 1:
        body += [f"<h2>Comparison with the reference {escape(first)}</h2>"]
        body += [_why(diagnoses, first, reference)]
        body += [_differences(runs, diagnoses, first, order), *_places(together)]
    body += [
        _part(places[run], run, runs[run], diagnoses[run], each.get(run), len(runs))
        for run in order
    ]
    body.append(_how(runs))
    figures = dict(together)
    for of_run in each.values():
        figures |= of_run
    return PAGE.substitute(
        title=escape(title),
        body="\n".join(body),
        figures=_embedded(figures),
        plotly=offline.get_plotlyjs(),
    )


# -- the runs at a glance


def _in_one_line(diagnoses, order):
    said = []
    for verdict, words in _WORDS.items():
        runs = [run for run in order if diagnoses[run].verdict == verdict]
        which = f" in {len(runs)} of {len(diagnoses)} runs: {', '.join(runs)}"
        if runs:
            said.append(f"{words}{which if len(diagnoses) > 1 else ''}.")
    return " ".join(said) or "No findings."


_WORDS = {"findings": "Findings", "not assessed": "Not assessed"}

_COLUMNS = ("run", "verdict", "layer", "since", "change")


def _rows(diagnoses, order, places):
    head = "".join(f"<th>{column}</th>" for column in _COLUMNS)
    rows = ""
    for run in order:
        place, said = places[run], in_words.headline(diagnoses[run])
        line = f"<code>{escape(said.line)}</code>" if said.line else ""
        where = (
            f'<span class="place">{markup.name_html(said.place)}</span> '
            if said.line
            else ""
        )
        rows += (
            f'<tr class="{_kind(said.kind)}">'
            f'<td><a href="#run-{place}">{_swatch(place)}{escape(run)}</a></td>'
            f'<td class="kind">{escape(said.verdict)}</td>'
            f"<td>{markup.name_html(said.layers)}</td>"
            f"<td>{escape(said.since)}</td><td>{where}{line}</td></tr>"
        )
    return (
        f'<table class="runs"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )


def _kind(kind):
    return kind.replace(" ", "-")


def _swatch(place):
    """The colour that the run has in the figures."""
    light, dark = LIGHT.run(place), DARK.run(place)
    return f'<i class="swatch" style="background: light-dark({light}, {dark})"></i>'


def _why(diagnoses, reference, chosen):
    """The reference, and why it is this run."""
    verdict = diagnoses[reference].verdict
    why = "which was chosen" if chosen is not None else _WHY[verdict]
    return (
        f"<p>The reference is {escape(reference)}, {why}. "
        "<code>--reference RUN</code> chooses another.</p>"
    )


_WHY = {
    "healthy": "the first healthy run by name",
    "not assessed": "the first run by name without findings; no run is healthy",
    "findings": "the first run by name; all have findings",
}
"""Why a run is the reference, by its verdict."""


def _differences(runs, diagnoses, first, order):
    """In front of the figures: text fills a printed page, a figure moves to the next."""
    found = dict(compared(runs, diagnoses, first))
    said = ""
    for run in order:
        if run in found:
            lines = found[run].differences or ("nothing beyond chance",)
            items = "".join(f"<li>{escape(line)}</li>" for line in lines)
            said += f"<p><b>{escape(run)}</b></p><ul>{items}</ul>"
    return (
        f"<details><summary>What differs from the reference {escape(first)}</summary>"
        f"{said}</details>"
    )


# -- one run


def _part(place, run, recording, diagnosis, pictures, count):
    """The part of a run, closed if it has nothing to say and there are many runs."""
    said = in_words.headline(diagnosis)
    kind = _kind(said.kind)
    is_open = " open" if count <= _OPEN or diagnosis.findings else ""
    of_run = "".join(_places(pictures or {}))
    if pictures is None:
        of_run = (
            f'<p class="more">Figures are those of {report_figures.MOST} runs. For this '
            "one, write a report of its folder alone.</p>"
        )
    steps = (recording[0], recording[-1])
    layers = markup.layer_table(
        diagnosis, steps, ("class_name", "activation", "initializer")
    )
    return (
        f'<details class="run"{is_open}><summary>{_swatch(place)}{escape(run)}: '
        f'<span class="{kind}"><span class="kind">{escape(said.verdict)}</span></span>'
        f'</summary><div id="run-{place}" class="part">'
        f'<article class="{kind}">{_first(said)}{in_words.html(diagnosis)}</article>'
        f"{of_run}"
        f"<details open><summary>Layers</summary>{layers}{_on_paper(diagnosis)}</details>"
        "</div></details>"
    )


def _on_paper(diagnosis):
    """Which layers a printed table has, if not all."""
    said = which(diagnosis)
    return said and f'<p class="on-paper">{said} The page on a screen has all layers.</p>'


def _first(said):
    """What to change first."""
    if not said.line:
        return ""
    place, line = escape(said.place), escape(said.line)
    return f'<p class="first"><b>Change first</b>, {place}:</p><pre>{line}</pre>'


def _places(pictures):
    return [f'<div class="figure" data-figure="{key}"></div>' for key in pictures]


def _how(runs):
    lines = []
    for run, recording in runs.items():
        steps, snapshot = recording.steps, recording[-1]
        samples = int(snapshot.field("samples").max())
        dtypes = ", ".join(sorted({layer.dtype for layer in snapshot.layers}))
        lines.append(
            f"<li><b>{escape(run)}</b>: {len(steps)} sampled steps, from {steps[0]} to "
            f"{steps[-1]}; {len(snapshot.layers)} tensors of dtype {escape(dtypes)}; up to "
            f"{samples} samples at the last step.</li>"
        )
    return f"<h2>What was measured</h2><ul>{''.join(lines)}</ul>{_METHOD}"


_METHOD = """<p>At each sampled step, the training step of the model also measured the
output of every monitored layer. The statistics cover all elements of the output for the
batch: mean, standard deviation and rms (root mean square, mean not removed) of the finite
elements, and the fractions of zeros and of NaN or infinite elements. Depth counts the
weight layers on the longest data path. Growth with depth is judged at the first step only,
over the tensors that every path from input to output passes, and compared with the interval
that the random draw of the weights explains.</p>
<p>A step that trains the model also measures, for each weight layer, its kernel and the
change that the step makes to it; and, unless <code>gradients=False</code>, the gradients of
the loss with respect to each output and kernel. In large kernels these are measured in
evenly spaced rows.</p>"""


def _embedded(pictures):
    """Figures as JSON that is safe inside a script element."""
    text = json.dumps(
        {
            key: {
                "light": json.loads(p.light.to_json()),
                "dark": json.loads(p.dark.to_json()),
            }
            for key, p in pictures.items()
        }
    )
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text

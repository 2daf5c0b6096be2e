"""The report: one self-contained HTML page about one or several runs."""

import json
from collections.abc import Mapping
from html import escape
from typing import NamedTuple

from plotly import graph_objects, offline

from activation_monitor.analysis import records
from activation_monitor.analysis.diagnosis import VERDICTS
from activation_monitor.analysis.findings import shown_by
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views import figures, in_words, markup
from activation_monitor.views.report_page import PAGE
from activation_monitor.views.summary import (
    compared,
    diagnose_all,
    reference_first,
)

_MOST = 8
"""Maximum number of runs with figures of their own, those with findings first. The common
figure shows all runs."""


class _Pictured(NamedTuple):
    """A figure for a light page and for a dark one."""

    light: graph_objects.Figure
    dark: graph_objects.Figure


def page(runs: Mapping[str, Recording], title: str) -> str:
    """The report as HTML that needs no other file and no network.

    The page has the verdict, the figures, the tables of the layers, and a description of
    what was measured. It follows the light or dark theme of the browser.

    Args:
        runs: Recordings by name, each with at least one snapshot.
        title: Title of the page, for example the log folder.

    Raises:
        ValueError: If there is no run, or a run has no snapshot.
    """
    diagnoses = diagnose_all(runs)
    pictures = _pictures(runs, diagnoses)
    body = [f"<h1>{escape(title)}</h1>", '<section id="verdict">']
    body.append(f"<p><b>{escape(_in_one_line(diagnoses))}</b></p>")
    body += [_verdict(run, diagnoses[run]) for run in runs]
    body += [*_differences(runs, diagnoses), "</section>", "<h2>Figures</h2>"]
    for heading, of_section in pictures:
        if heading:
            body.append(f"<h3>{escape(heading)}</h3>")
        body += [f'<div class="figure" data-figure="{key}"></div>' for key in of_section]
    body.append("<h2>Layers</h2>")
    body += [
        _layer_table(run, recording, diagnoses[run]) for run, recording in runs.items()
    ]
    body.append(_how(runs))
    figures_of_page = {
        key: picture for _, of_section in pictures for key, picture in of_section.items()
    }
    return PAGE.substitute(
        title=escape(title),
        body="\n".join(body),
        figures=_embedded(figures_of_page),
        plotly=offline.get_plotlyjs(),
    )


def _in_one_line(diagnoses):
    said = []
    for verdict, words in _WORDS.items():
        runs = [run for run, found in diagnoses.items() if found.verdict == verdict]
        which = f" in {len(runs)} of {len(diagnoses)} runs: {', '.join(runs)}"
        if runs:
            said.append(f"{words}{which if len(diagnoses) > 1 else ''}.")
    return " ".join(said) or "No findings."


_WORDS = {"findings": "Findings", "not assessed": "Not assessed"}


def _verdict(run, diagnosis):
    kind = {"healthy": "healthy", "findings": "findings"}.get(
        diagnosis.verdict, "unassessed"
    )
    said = in_words.html(diagnosis)
    return f'<article class="{kind}"><h2>{escape(run)}</h2>{said}</article>'


def _differences(runs, diagnoses):
    first = next(iter(reference_first(runs, diagnoses)))
    for run, found in compared(runs, diagnoses):
        lines = found.differences or ("nothing beyond chance",)
        items = "".join(f"<li>{escape(line)}</li>" for line in lines)
        yield (
            f"<details><summary>What differs between {escape(first)} and {escape(run)}"
            f"</summary><ul>{items}</ul></details>"
        )


def _pictures(runs, diagnoses):
    """Pairs of a heading and figures by key: the common figure, then those of each run."""

    def both(function, *args, **options):
        return _Pictured(function(*args, **options), function(*args, **options, dark=True))

    if len(runs) == 1:
        ((run, diagnosis),) = diagnoses.items()
        common = {"depth": both(_profile, run, runs[run], diagnosis)}
    else:
        common = {"comparison": both(figures.comparison, reference_first(runs, diagnoses))}
    sections = [("", common)]
    worst_first = sorted(runs, key=lambda run: -VERDICTS.index(diagnoses[run].verdict))
    for i, run in enumerate(worst_first[:_MOST]):
        recording = runs[run]
        layer = diagnoses[run].worst_layer
        measured = {name for snapshot in recording for name in snapshot.quantities}
        worst, of_run = diagnoses[run].worst_finding, {}
        of, statistic = records.OUTPUT, "rms"
        if worst is not None:
            of, statistic = shown_by(worst.code, measured)
        if len(runs) > 1 and records.OUTPUT_GRADIENT in measured:
            # The comparison does not show them.
            of_run[f"depth-{i}"] = both(_profile, run, recording, diagnoses[run])
        if (of, statistic) != (records.OUTPUT, "rms"):
            reading = {"statistic": statistic, "of": of}
            found = both(_profile, run, recording, diagnoses[run], **reading)
            of_run[f"finding-{i}"] = found
        look = {"statistic": statistic, "of": of, "marked": worst}
        of_run |= {
            f"heat-{i}": both(figures.heat_map, recording, **look),
            f"graph-{i}": both(
                *(figures.layer_graph, recording, diagnoses[run]),
                steps=worst.step if worst else None,
                **look,
            ),
            f"layer-{i}": both(figures.layer_over_time, {run: recording}, layer),
        }
        if any(snapshot.histograms for snapshot in recording):
            histograms = both(figures.histogram_over_time, recording, layer)
            of_run[f"histograms-{i}"] = histograms
        if records.WEIGHT_UPDATE in measured:
            of_run[f"updates-{i}"] = both(figures.update_ratio, recording)
        sections.append((run if len(runs) > 1 else "", of_run))
    return sections


def _profile(run, recording, diagnosis, **options):
    """The first and the last step, and the one at which the worst finding began."""
    worst = diagnosis.worst_finding
    steps = {recording[0].step, recording[-1].step} | ({worst.step} if worst else set())
    marked = {run: worst} if worst else None
    return figures.depth_profile(
        {run: recording}, steps=sorted(steps), marked=marked, **options
    )


def _layer_table(run, recording, diagnosis):
    settings = ("class_name", "activation", "initializer")
    table = markup.layer_table(diagnosis, (recording[0], recording[-1]), settings)
    return f"<details open><summary>{escape(run)}</summary>{table}</details>"


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

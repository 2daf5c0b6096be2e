"""The verdict and the findings of a diagnosis in words: as sentences, Markdown and HTML.

All renderings are made of the same pieces: the sentences of `sentences`, the entries of
`Finding.to_dict`, and its numbers as `evidence` says them. `Finding.__str__` is the
rendering as plain text.
"""

from html import escape
from typing import NamedTuple

from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.shown import count, listed
from activation_monitor.analysis.thresholds import limit
from activation_monitor.views.evidence import evidence


def sentences(diagnosis: Diagnosis) -> list[str]:
    """Growth with depth and the verdict, without the findings.

    Returns:
        A list of sentences. The last one is the verdict.
    """
    if diagnosis.first is None:
        return ["ActivationMonitor: nothing has been measured yet."]
    verdict = "no findings"
    if diagnosis.findings:
        verdict = count(len(diagnosis.findings), "finding")
    else:
        verdict = f"{diagnosis.verdict.capitalize()}: {verdict}"
    sampled = f"{count(len(diagnosis.steps), 'step')} sampled"
    if len(diagnosis.steps) > 1:
        sampled += f", up to step {diagnosis.steps[-1]}"
    note = [diagnosis.note] if diagnosis.note else []
    return [*_growth(diagnosis), *note, f"{verdict}; {sampled}."]


def _growth(diagnosis):
    main, reason = diagnosis.profile.main, diagnosis.not_assessed
    if main is not None:
        low, high = main.interval()
        drawn = diagnosis.draws[0] if diagnosis.draws else diagnosis
        chance = "" if drawn.not_assessed else f" (chance alone: {low:.3g} to {high:.3g})"
        yield (
            f"Growth per weight layer: {main.growth:.3g} over "
            f"{count(main.layers, 'layer')}{chance}, from {main.measured[0].name} "
            f"to {main.measured[-1].name}{_beyond_chance(diagnosis, main)}."
        )
    elif not reason:
        yield (
            "Growth with depth: normalization layers set the size of the signal, and it "
            "stays in range between them."
        )
    if reason:
        yield reason


def _beyond_chance(diagnosis, main):
    """Why growth that exceeds chance is not a finding, if that is so."""
    low, high = main.interval()
    if main.operations:
        return f"; a factor of {10**main.whole:.3g} in total with the operations in between"
    if not diagnosis.healthy or low <= main.growth <= high:
        return ""
    if -limit("vanishing") <= main.decades <= limit("exploding"):
        return (
            "; this is more than chance explains, but harmless over so few layers (a "
            f"factor of {10**main.decades:.3g} in total)"
        )
    return ""


def markdown(diagnosis: Diagnosis) -> str:
    """The verdict and the findings as Markdown, for TensorBoard's Text tab."""
    parts = sentences(diagnosis)
    for finding in diagnosis.findings:
        said = finding.to_dict()
        parts.append(f"**{said['title']}**: {said['message']}")
        if numbers := evidence(finding):
            rows = [f"| {_cell(label)} | {_cell(text)} |" for label, text in numbers]
            parts.append("\n".join(["| evidence | |", "| --- | --- |", *rows]))
        if said["cause"]:
            parts.append(f"*Cause: {said['cause']}.* {said['reason']}")
        for change in said["changes"]:
            parts.append(f"Change {change['place']}:")
            parts.append(f"```python\n{change['line']}\n```")
        parts.append(f"More: `{finding.more}`")
    return "\n\n".join(parts)


class Headline(NamedTuple):
    """A diagnosis in one row.

    Attributes:
        kind: The severity of the worst finding; without findings, the verdict.
        verdict: The same with the code of the worst finding, when it was over if it is,
            and how many more there are.
        layers: Layers of the worst finding, the last one first; empty without findings.
        since: When it began; empty without findings.
        place, line: What to change first; empty if that is not known.
    """

    kind: str
    verdict: str
    layers: str
    since: str
    place: str
    line: str


def headline(diagnosis: Diagnosis) -> Headline:
    """A diagnosis in one row: what is wrong, where, since when, and what to change."""
    worst = diagnosis.worst_finding
    if worst is None:
        return Headline(diagnosis.verdict, diagnosis.verdict, "", "", "", "")
    more = len(diagnosis.findings) - 1
    also = f" and {more} more" if more else ""
    change = next(iter(worst.fix.changes), None) if worst.fix else None
    return Headline(
        kind=worst.severity,
        verdict=f"{worst.severity}: {in_short(worst)}{also}",
        layers=listed(sorted(worst.layers, key=lambda name: name != worst.worst_layer), 1),
        since="initialization" if worst.initial else f"step {worst.step}",
        place=f"{change.where} {listed(change.layers, 1)}" if change else "",
        line=change.line if change else "",
    )


def in_short(finding: Finding) -> str:
    """The code of a finding, and when it was over."""
    over = finding.recovered
    return finding.code if over is None else f"{finding.code} (recovered at step {over})"


def _cell(text):
    return text.replace("|", "\\|")


def html(diagnosis: Diagnosis) -> str:
    """The verdict and the findings as HTML, for the report and the notebook."""
    lines = reversed(sentences(diagnosis))  # the verdict first
    paragraphs = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return paragraphs + "".join(map(_finding_html, diagnosis.findings))


def _finding_html(finding: Finding) -> str:
    said = finding.to_dict()
    parts = [
        f'<div class="finding {escape(said["severity"])}">',
        # Not an <h3>: JupyterLab would list it in the notebook's table of contents.
        f'<p class="title" role="heading" aria-level="3">{escape(said["title"])}</p>',
        f"<p>{escape(said['message'])}</p>",
        _evidence_html(finding),
    ]
    if said["cause"]:
        cause, reason = escape(said["cause"]), escape(said["reason"])
        parts.append(f"<p><b>Cause: {cause}.</b> {reason}</p>")
    for change in said["changes"]:
        place, line = escape(change["place"]), escape(change["line"])
        parts.append(f"<p>Change {place}:</p><pre>{line}</pre>")
    parts.append(f'<p class="more">More: <code>{escape(finding.more)}</code></p>')
    return "".join([*parts, "</div>"])


def _evidence_html(finding: Finding) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td>{escape(text)}</td></tr>'
        for label, text in evidence(finding)
    )
    return f'<table class="evidence">{rows}</table>' if rows else ""

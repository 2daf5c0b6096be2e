"""Tables in the terminal, and how a diagnosis shows itself."""

import io
import math

import numpy as np
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from activation_monitor.analysis import shown as results
from activation_monitor.analysis.chain import Calibration, Study
from activation_monitor.analysis.comparison import Comparison
from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.diagnosis import diagnose as diagnose  # with the views
from activation_monitor.analysis.rescaling import RescaledLayer, Rescaling
from activation_monitor.analysis.shown import count as _count
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.analysis.thresholds import limit

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 80

_STYLES = {"critical": "bold red", "warning": "yellow"}


def number(value: float) -> str:
    """Three significant digits; a dash where nothing was measured."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.3g}"


def percent(value: float) -> str:
    """A share in whole percent; a dash where nothing was measured."""
    return "-" if math.isnan(value) else f"{value:.0%}"


def _table(title, headings=()):
    """A table with these columns of figures."""
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


STATISTICS = {
    "mean": "mean",
    "std": "std",
    "rms": "rms",
    "zero_fraction": "zeros",
    "nonfinite_fraction": "non-finite",
}
"""The statistics in a table of layers, and their headings."""


def shown(value: float, statistic: str) -> str:
    """A statistic in a table of layers."""
    return (percent if "fraction" in statistic else number)(value)


def diagnosis_table(diagnosis: Diagnosis) -> Group:
    """The layers along the data path with their figures, and the verdict."""
    if diagnosis.first is None:
        return Group(*_verdict(diagnosis))
    snapshots = [diagnosis.first]
    if diagnosis.last is not None and diagnosis.last.step != diagnosis.first.step:
        snapshots.append(diagnosis.last)
    table = _table(f"Activations at {_steps_of(snapshots)}")
    if len(snapshots) > 1:
        table.padding = (0, 1, 0, 0)  # fits 80 columns
    table.add_column("layer", overflow="fold")
    headings = ("depth", *(["step"] if len(snapshots) > 1 else []), *STATISTICS.values())
    for heading in headings:
        if len(snapshots) > 1:  # narrower
            heading = heading.replace("-", "-\n")
        table.add_column(heading, justify="right", no_wrap=True)
    worst_by_layer = diagnosis.worst_by_layer
    values = [{name: one.statistic(name) for name in STATISTICS} for one in snapshots]
    rows_of = [{name: row for row, name in enumerate(one.names)} for one in snapshots]
    for i, layer in enumerate(diagnosis.first.layers):
        finding = worst_by_layer.get(layer.name)
        for snapshot, statistics, row_of in zip(snapshots, values, rows_of, strict=True):
            is_first = snapshot is diagnosis.first
            row = row_of.get(layer.name)
            table.add_row(
                Text(layer.name if is_first else ""),
                str(diagnosis.profile.depths[i]) if is_first else "",
                *([str(snapshot.step)] if len(snapshots) > 1 else []),
                *(
                    shown(math.nan if row is None else statistics[name][row], name)
                    for name in STATISTICS
                ),
                style=_STYLES[finding.severity] if finding else None,
            )
    return Group(table, *_profile(diagnosis), *_verdict(diagnosis))


def _steps_of(snapshots):
    """The first step, and the last one if there is another."""
    steps = [str(snapshot.step) for snapshot in snapshots]
    return f"step {steps[0]}" if len(steps) == 1 else f"steps {' and '.join(steps)}"


def _profile(diagnosis):
    """The rms over depth as one line of bars, of the range that growth is read from."""
    main = diagnosis.profile.main
    if main is not None:
        sizes = [point.rms for point in main.points]
        yield Text(f"rms over depth  {spark_line(sizes)}")


def spark_line(sizes, width: int = 60) -> str:
    """Sizes as bars on a logarithmic scale of two decades at least.

    Args:
        sizes: Not negative; zeros are shown as `_`, what is not finite as `x`.
        width: Characters at most; of more sizes an evenly spaced part is shown.
    """
    sizes = np.asarray(sizes, float)
    if len(sizes) > width:
        sizes = sizes[np.linspace(0, len(sizes) - 1, width).round().astype(int)]
    seen = np.isfinite(sizes) & (sizes > 0)
    logs = np.log10(sizes, where=seen, out=np.zeros_like(sizes))
    low, high = (f(logs[seen]) for f in (np.min, np.max)) if seen.any() else (0.0, 0.0)
    spare = max(2.0 - (high - low), 0.0) / 2.0
    share = (logs - low + spare) / (high - low + 2.0 * spare)
    bars = np.minimum((share * len(_BARS)).astype(int), len(_BARS) - 1)
    return "".join(
        _BARS[bar] if bar_is_seen else "_" if size == 0 else "x"
        for bar, bar_is_seen, size in zip(bars, seen, sizes, strict=True)
    )


def _verdict(diagnosis):
    yield from _summary(diagnosis)
    for finding in diagnosis.findings:
        style = _STYLES[finding.severity]
        yield Text(f"* {finding.title}: {finding.message}", style=style)
        if finding.fix:
            text, *changes = str(finding.fix).splitlines()
            yield Text(text, style=style)
            for line in changes:  # code, to be copied: on one line
                yield Text(line, style=style, no_wrap=True, overflow="ignore")


def _summary(diagnosis):
    if diagnosis.first is None:
        yield Text("ActivationMonitor: nothing has been measured yet.")
        return
    sampled = f"{_count(len(diagnosis.steps), 'step')} sampled"
    if len(diagnosis.steps) > 1:
        sampled += f", up to step {diagnosis.steps[-1]}"
    main, reason = diagnosis.profile.main, diagnosis.not_assessed
    if main is not None:
        low, high = main.interval()
        drawn = diagnosis.draws[0] if diagnosis.draws else diagnosis
        chance = "" if drawn.not_assessed else f" (chance alone: {low:.3g} to {high:.3g})"
        yield Text(
            f"Growth per weight layer: {main.growth:.3g} over "
            f"{_count(main.layers, 'layer')}{chance}, from {main.measured[0].name} "
            f"to {main.measured[-1].name}{_beyond_chance(diagnosis, main)}."
        )
    elif not reason:
        yield Text(
            "Growth with depth: normalization layers set the size of the signal, and it "
            "stays in range between them."
        )
    if reason:
        yield Text(reason)
    if diagnosis.findings:
        yield Text(
            f"{_count(len(diagnosis.findings), 'finding')}; {sampled}.", style="bold"
        )
    else:
        style = "green" if diagnosis.healthy else "bold"
        yield Text(
            f"{diagnosis.verdict.capitalize()}: no findings; {sampled}.", style=style
        )


def _beyond_chance(diagnosis, main):
    """Why growth beyond chance is no finding, where it is none."""
    low, high = main.interval()
    if main.operations:
        return f"; with the operations between them a factor of {10**main.whole:.3g} in all"
    if not diagnosis.healthy or low <= main.growth <= high:
        return ""
    if -limit("vanishing") <= main.decades <= limit("exploding"):
        return (
            f": beyond chance, and too little over so few layers to do harm (a factor of "
            f"{10**main.decades:.3g} in all)"
        )
    return ""


@results.text.register
def diagnosis_text(diagnosis: Diagnosis) -> str:
    """The same as plain text, for `print`."""
    return _as_text(diagnosis_table(diagnosis))


@results.figure.register
def diagnosis_figure(diagnosis: Diagnosis, kind: str, **options):
    """A plotly figure of the diagnosis, see `figures.draw`."""
    from activation_monitor.views.figures import draw  # plotly is loaded when it is used

    recording = Recording([diagnosis.first] if diagnosis.first else [])
    return draw(kind, recording, diagnosis, **options)


@results.html.register
def diagnosis_html(diagnosis: Diagnosis) -> str:
    """The same for a notebook, see `notebook.diagnosis_html`."""
    import activation_monitor.views.notebook as notebook  # it loads plotly

    return notebook.diagnosis_html(diagnosis)


def verdict_lines(diagnosis: Diagnosis) -> list[str]:
    """Growth and verdict in sentences, without the findings."""
    return [line.plain for line in _summary(diagnosis)]


def diagnosis_markdown(diagnosis: Diagnosis) -> str:
    """The verdict for TensorBoard's Text tab."""
    parts = verdict_lines(diagnosis)
    for finding in diagnosis.findings:
        parts.append(f"**{finding.title}**: {finding.message}")
        if finding.fix:
            parts.append(f"*Cause: {finding.fix.cause}.* {finding.fix.reason}")
            for change in finding.fix.changes:
                parts.append(f"Change {change.place}:")
                parts.append(f"```python\n{change.line}\n```")
    return "\n\n".join(parts)


def _narrow(table):
    """The table with less room between its columns: numbers of ten characters, such as
    -9.88e-127 or 9.876e-127, fit into 80 columns."""
    table.padding = (0, 1, 0, 0)
    return table


def _law_table(title, before, last):
    """A table of figures: what was measured, the bounds of a law, and a last column."""
    law = (f"law:\n{bound}" for bound in ("median", "low", "high"))
    table = _narrow(_table(title, (*before, *law, last)))
    for column in table.columns:
        column.vertical = "bottom"
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
    return table


def study_table(study: Study) -> Group:
    """One experiment of the matmul-chain study."""
    table = _law_table(study.title, ("product", "mean", "std"), "naive\nstd")
    for row in study.rows:
        table.add_row(
            str(row.product),
            number(row.mean),
            number(row.std),
            *(number(value) for value in (row.expected, row.low, row.high)),
            f"{row.naive_std:.3g}",
            style=None if row.low <= row.std <= row.high else "yellow",
        )
    return Group(table, *(Text(note) for note in study.notes))


def calibration_table(calibration: Calibration) -> Group:
    """Measured growth against the law, layer by layer, and the verdict."""
    table = _law_table(calibration.title, ("layer", "rms", "gain"), "vs\nfloat64")
    for row in calibration.rows:
        table.add_row(
            row.name,
            number(row.rms),
            *(f"{value:.4g}" for value in (row.gain, row.expected, row.low, row.high)),
            f"{row.error:.1e}",
            style=None if row.passed else "bold red",
        )
    style = "green" if calibration.passed else "bold red"
    return Group(table, Text(calibration.verdict, style=style))


RESCALING_TITLE = "Standard deviation of the pre-activations"
RESCALING_HEADINGS = ("layer", "before", "after", "factor", "left alone")


def rescaling_row(layer: RescaledLayer) -> tuple[str, ...]:
    """One layer below `RESCALING_HEADINGS`."""
    factor = "" if layer.reason else number(layer.factor)
    sizes = number(layer.std_before), number(layer.std_after)
    return (layer.name, *sizes, factor, layer.reason)


def rescaling_table(report: Rescaling) -> Group:
    """The weight layers along the data path: std before and after, and the factor."""
    table = _table(RESCALING_TITLE)
    name, *figures, reason = RESCALING_HEADINGS
    table.add_column(name, overflow="fold")
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(reason, overflow="fold")
    for layer in report.layers:
        style = "dim" if layer.reason else None
        table.add_row(*(Text(cell) for cell in rescaling_row(layer)), style=style)
    return Group(table, Text(f"{report.summary}."))


def comparison_table(
    comparison: Comparison, names: tuple[str, str], most: int = 30
) -> Group:
    """The layers in which two runs differ, and what differs in words. A size that differs
    by more than chance has an exclamation mark, which a line below the table explains.

    Args:
        comparison: Of the two runs.
        names: Of the runs.
        most: Layers to show.
    """
    if not comparison.differences:
        text = f"No difference between {names[0]} and {names[1]} beyond chance."
        return Group(Text(text, style="green"))
    other = [pair for pair in comparison.pairs if pair.differs_first or pair.differs_last]
    table = _table(f"Rms of the layers that differ\nA: {names[0]}\nB: {names[1]}")
    table.add_column("layer", overflow="fold")
    for heading in ("depth", "A first", "B first", "ratio", "A last", "B last"):
        table.add_column(heading, justify="right", no_wrap=True)
    for pair in other[:most]:
        (a, b), (a_last, b_last) = pair.first, pair.last
        table.add_row(
            Text(pair.name),
            str(pair.depth),
            number(a),
            number(b) + _mark(pair.differs_first),
            number(b / a) if a > 0 and b > 0 else "-",
            number(a_last),
            number(b_last) + _mark(pair.differs_last),
        )
    parts = [_narrow(table), Text(_MARKED)] if other else []
    if len(other) > most:
        parts.append(Text(f"and {len(other) - most} layers more."))
    return Group(*parts, *(Text(f"* {line}") for line in comparison.differences))


_MARKED = "! = differs from A by more than chance explains."


def _mark(differs):
    return "!" if differs else " "


@results.text.register
def rescaling_text(report: Rescaling) -> str:
    """The same as plain text, for `print`."""
    return _as_text(rescaling_table(report))


@results.html.register
def rescaling_html(report: Rescaling) -> str:
    """The same for a notebook, see `notebook.rescaling_html`."""
    import activation_monitor.views.notebook as notebook

    return notebook.rescaling_html(report)


def show(renderable) -> None:
    """Print to the terminal, or to what stands in for it."""
    _console().print(renderable, crop=False)


def _as_text(renderable, width=_WIDTH):
    buffer = io.StringIO()
    _console(file=buffer, width=width, color_system=None).print(renderable, crop=False)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def _console(**options):
    # Within a Jupyter kernel rich displays what it is told to print, past `file` and past
    # `sys.stdout`: a string stays empty, a redirected output as well.
    return Console(force_jupyter=False, **options)

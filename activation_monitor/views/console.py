"""A diagnosis in the terminal: the table of the layers, the verdict and the findings."""

import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from activation_monitor.analysis import shown as results
from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views.in_words import sentences
from activation_monitor.views.worst_layers import which, worst_rows

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 80

_STYLES = {"critical": "bold red", "warning": "yellow"}


# -- cells and tables


def number(value: float | None) -> str:
    """Three significant digits; a dash for NaN and None, which mean "not measured"."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.3g}"


def percent(value: float) -> str:
    """A fraction in whole percent; a dash for NaN, which means "not measured"."""
    return "-" if math.isnan(value) else f"{value:.0%}"


def table(title: str, headings: Sequence[str] = ()) -> Table:
    """A table whose columns hold numbers.

    Args:
        title: The line above the table.
        headings: Headings of the columns. Defaults to `()`, a table without columns.
    """
    made = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD)
    for heading in headings:
        made.add_column(heading, justify="right", no_wrap=True)
    return made


class Name:
    """The name of a layer in a cell, in one line. If it is longer than its column, it
    begins with an ellipsis: names differ at their ends.

    Args:
        name: The name.
    """

    def __init__(self, name: str):
        self._name = name

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, max(cell_len(self._name), 1))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        name, width = self._name, options.max_width
        if cell_len(name) > width:
            start = 1
            while cell_len(name[start:]) > width - 1:
                start += 1
            name = f"…{name[start:]}"
        yield Text(name, no_wrap=True, overflow="crop")


class Words:
    """A text in lines that are broken between words only: no name in it is broken.

    Args:
        text: The text.
        style: A style of rich. Defaults to `""`.
    """

    def __init__(self, text: str, style: str = ""):
        self._text = text
        self._style = style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = textwrap.wrap(
            self._text,
            options.max_width,
            break_long_words=False,
            break_on_hyphens=False,
        )
        yield Text("\n".join(lines), self._style, no_wrap=True, overflow="ignore")


def narrow(table: Table) -> Table:
    """Reduce the space between the columns, so that numbers of ten characters, such as
    -9.88e-127, fit into 80 columns. Returns the table."""
    table.padding = (0, 1, 0, 0)
    return table


def show(renderable: RenderableType) -> None:
    """Print to standard output."""
    _console().print(renderable, crop=False)


def as_text(renderable: RenderableType, width: int = _WIDTH) -> str:
    """What `show` would print, without colours.

    Args:
        renderable: What to print, for example a table.
        width: Width in characters. Defaults to `80`.
    """
    buffer = io.StringIO()
    _console(file=buffer, width=width, color_system=None).print(renderable, crop=False)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def _console(**options):
    # In a Jupyter kernel rich would display the output in the cell and ignore `file` and
    # `sys.stdout`: the string would stay empty, and so would a redirected output.
    return Console(force_jupyter=False, **options)


# -- the diagnosis

STATISTICS = {
    "mean": "mean",
    "std": "std",
    "rms": "rms",
    "zero_fraction": "zeros",
    "nonfinite_fraction": "non-finite",
}
"""The statistics in a table of layers, with their headings."""


def shown(value: float, statistic: str) -> str:
    """A statistic as a cell in a table of layers."""
    return (percent if "fraction" in statistic else number)(value)


@results.text.register
def diagnosis_text(diagnosis: Diagnosis) -> str:
    """The table of the layers, the verdict and the findings, as plain text for `print`."""
    return as_text(diagnosis_table(diagnosis))


@results.html.register
def diagnosis_html(diagnosis: Diagnosis) -> str:
    """The same as HTML, see `notebook.diagnosis_html`."""
    from activation_monitor.views import notebook  # loads plotly

    return notebook.diagnosis_html(diagnosis)


@results.png.register
def diagnosis_png(diagnosis: Diagnosis) -> bytes | None:
    """An image for where HTML is not shown, see `notebook.diagnosis_png`."""
    from activation_monitor.views import notebook  # loads plotly

    return notebook.diagnosis_png(diagnosis)


@results.figure.register
def diagnosis_figure(diagnosis: Diagnosis, kind: str, **options: Any) -> Any:
    """A plotly figure of the first snapshot, see `figures.draw`."""
    from activation_monitor.views.figures import draw  # loads plotly

    recording = Recording([diagnosis.first] if diagnosis.first else [])
    return draw(kind, recording, diagnosis, **options)


def diagnosis_table(diagnosis: Diagnosis) -> Group:
    """The layers along the data path, their statistics, the verdict and the findings.

    Of more than 40 layers, the table has the worst ten: those of the most severe findings,
    then those whose rms has changed most from the first to the last snapshot; of a single
    snapshot, those whose rms is farthest from 1. A line below says so.
    """
    if diagnosis.first is None or diagnosis.profile is None:
        return Group(*_verdict(diagnosis))
    snapshots = [diagnosis.first]
    if diagnosis.last is not None and diagnosis.last.step != diagnosis.first.step:
        snapshots.append(diagnosis.last)
    several = len(snapshots) > 1
    made = table(f"Activations at {_steps_of(snapshots)}")
    if several:
        narrow(made)
    made.add_column("layer")
    for heading in ("depth", *(["step"] if several else []), *STATISTICS.values()):
        if several:
            heading = heading.replace("-", "-\n")
        made.add_column(heading, justify="right", no_wrap=True)
    values = [{name: one.statistic(name) for name in STATISTICS} for one in snapshots]
    rows_of = [{name: row for row, name in enumerate(one.names)} for one in snapshots]
    worst_by_layer = diagnosis.worst_by_layer
    names = diagnosis.first.names
    for i in worst_rows(diagnosis):
        finding = worst_by_layer.get(names[i])
        for snapshot, statistics, row_of in zip(snapshots, values, rows_of, strict=True):
            is_first = snapshot is diagnosis.first
            row = row_of.get(names[i])
            made.add_row(
                Name(names[i]) if is_first else "",
                str(diagnosis.profile.depths[i]) if is_first else "",
                *([str(snapshot.step)] if several else []),
                *(
                    shown(math.nan if row is None else statistics[name][row], name)
                    for name in STATISTICS
                ),
                style=_STYLES[finding.severity] if finding else None,
            )
    parts: list[RenderableType] = [made]
    if said := which(diagnosis):
        parts.append(Words(said))
    return Group(*parts, *_profile(diagnosis), *_verdict(diagnosis))


def _steps_of(snapshots):
    steps = [str(snapshot.step) for snapshot in snapshots]
    return f"step {steps[0]}" if len(steps) == 1 else f"steps {' and '.join(steps)}"


def _profile(diagnosis):
    """The rms over depth as a line of bars, for the layers that growth is measured over."""
    main = diagnosis.profile.main
    if main is not None:
        sizes = [point.rms for point in main.points]
        yield Text(f"rms over depth  {spark_line(sizes)}")


def spark_line(sizes: Sequence[float], width: int = 60) -> str:
    """Sizes as bars on a logarithmic scale that spans at least two decades.

    Args:
        sizes: Non-negative numbers. A zero is shown as `_`, NaN and infinity as `x`.
        width: Maximum number of characters. If there are more sizes, an evenly spaced
            selection is shown. Defaults to `60`.
    """
    values = np.asarray(sizes, float)
    if len(values) > width:
        values = values[np.linspace(0, len(values) - 1, width).round().astype(int)]
    seen = np.isfinite(values) & (values > 0)
    logs = np.log10(values, where=seen, out=np.zeros_like(values))
    low, high = (f(logs[seen]) for f in (np.min, np.max)) if seen.any() else (0.0, 0.0)
    spare = max(2.0 - (high - low), 0.0) / 2.0
    share = (logs - low + spare) / (high - low + 2.0 * spare)
    bars = np.minimum((share * len(_BARS)).astype(int), len(_BARS) - 1)
    return "".join(
        _BARS[bar] if bar_is_seen else "_" if size == 0 else "x"
        for bar, bar_is_seen, size in zip(bars, seen, values, strict=True)
    )


def _verdict(diagnosis) -> Iterator[RenderableType]:
    *growth, verdict = sentences(diagnosis)
    yield from map(Words, growth)
    yield Words(verdict, "green" if diagnosis.healthy else "bold")
    for finding in diagnosis.findings:
        style = _STYLES[finding.severity]
        for line in f"* {finding}".splitlines():
            if line.startswith(" "):  # code to be copied, which must not be broken
                yield Text(line, style, no_wrap=True, overflow="ignore")
            else:
                yield Words(line, style)

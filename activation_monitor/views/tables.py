"""Tables for the terminal: matmul-chain study, calibration, rescaling and comparison."""

from rich.console import Group
from rich.text import Text

from activation_monitor.analysis import shown as results
from activation_monitor.analysis.chain import Calibration, Study
from activation_monitor.analysis.comparison import Comparison
from activation_monitor.analysis.rescaling import RescaledLayer, Rescaling
from activation_monitor.views.console import (
    Name,
    Words,
    as_text,
    narrow,
    number,
    table,
)


def _law_table(title, before, last):
    """A table with the measured columns, the bounds of a law, and a last column."""
    law = (f"law:\n{bound}" for bound in ("median", "low", "high"))
    made = narrow(table(title, (*before, *law, last)))
    for column in made.columns:
        column.vertical = "bottom"
    made.columns[0].no_wrap = False  # it gives way to the numbers
    return made


def study_table(study: Study) -> Group:
    """One experiment of the matmul-chain study.

    Args:
        study: The experiment. Rows outside the bounds of the law are yellow.
    """
    made = _law_table(study.title, ("product", "mean", "std"), "naive\nstd")
    for row in study.rows:
        made.add_row(
            str(row.product),
            number(row.mean),
            number(row.std),
            *(number(value) for value in (row.expected, row.low, row.high)),
            f"{row.naive_std:.3g}",
            style=None if row.low <= row.std <= row.high else "yellow",
        )
    return Group(made, *(Text(note) for note in study.notes))


def calibration_table(calibration: Calibration) -> Group:
    """The measured gain of each layer beside the law, and the verdict.

    Args:
        calibration: The calibration. Rows of layers that failed are red.
    """
    made = _law_table(calibration.title, ("layer", "rms", "gain"), "vs\nfloat64")
    for row in calibration.rows:
        made.add_row(
            Name(row.name),
            number(row.rms),
            *(f"{value:.4g}" for value in (row.gain, row.expected, row.low, row.high)),
            f"{row.error:.1e}",
            style=None if row.passed else "bold red",
        )
    style = "green" if calibration.passed else "bold red"
    return Group(made, Text(calibration.verdict, style=style))


RESCALING_TITLE = "Standard deviation of the pre-activations"
RESCALING_HEADINGS = ("layer", "before", "after", "factor", "left alone")


def rescaling_row(layer: RescaledLayer) -> tuple[str, ...]:
    """The cells of one layer, in the order of `RESCALING_HEADINGS`."""
    factor = "" if layer.reason else number(layer.factor)
    sizes = number(layer.std_before), number(layer.std_after)
    return (layer.name, *sizes, factor, layer.reason)


@results.text.register
def rescaling_text(report: Rescaling) -> str:
    """The table of `rescaling_table` as plain text, for `print`."""
    return as_text(rescaling_table(report))


@results.html.register
def rescaling_html(report: Rescaling) -> str:
    """The same as HTML, see `notebook.rescaling_html`."""
    from activation_monitor.views import notebook  # loads plotly

    return notebook.rescaling_html(report)


def rescaling_table(report: Rescaling) -> Group:
    """The weight layers along the data path: std before and after, and the factor."""
    made = table(RESCALING_TITLE)
    name, *figures, reason = RESCALING_HEADINGS
    made.add_column(name)
    for heading in figures:
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column(reason)
    for layer in report.layers:
        style = "dim" if layer.reason else None
        _, *cells = rescaling_row(layer)
        made.add_row(Name(layer.name), *map(Text, cells), style=style)
    return Group(made, Words(f"{report.summary}."))


_MARKED = "! = differs from A by more than chance explains."


def comparison_table(
    comparison: Comparison, names: tuple[str, str], most: int = 30
) -> Group:
    """The layers in which two runs differ, and the differences in words.

    An exclamation mark follows a size that differs by more than chance explains. A line
    below the table says so.

    Args:
        comparison: The comparison of the two runs.
        names: Names of the two runs.
        most: Maximum number of layers in the table. Defaults to `30`.
    """
    if not comparison.differences:
        text = f"No difference between {names[0]} and {names[1]} beyond chance."
        return Group(Text(text, style="green"))
    other = [pair for pair in comparison.pairs if pair.differs_first or pair.differs_last]
    made = table(f"Rms of the layers that differ\nA: {names[0]}\nB: {names[1]}")
    made.add_column("layer")
    for heading in ("depth", "A first", "B first", "ratio", "A last", "B last"):
        made.add_column(heading, justify="right", no_wrap=True)
    for pair in other[:most]:
        (a, b), (a_last, b_last) = pair.first, pair.last
        made.add_row(
            Name(pair.name),
            str(pair.depth),
            number(a),
            number(b) + _mark(pair.differs_first),
            number(b / a) if a > 0 and b > 0 else "-",
            number(a_last),
            number(b_last) + _mark(pair.differs_last),
        )
    parts = [narrow(made), Text(_MARKED)] if other else []
    if len(other) > most:
        parts.append(Text(f"and {len(other) - most} more layers."))
    return Group(*parts, *(Words(f"* {line}") for line in comparison.differences))


def _mark(differs):
    return "!" if differs else " "

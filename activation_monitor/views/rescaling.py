"""The table of what `rescale` did, in the terminal."""

import io
import math

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from activation_monitor.analysis.rescaling import Rescaling


def rescale_table(report: Rescaling) -> Group:
    """The weight layers along the data path: std before and after, and the factor."""
    title = Text("Standard deviation of the pre-activations")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("layer", overflow="fold")
    for heading in ("before", "after", "factor"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("left alone", overflow="fold")
    for layer in report.layers:
        table.add_row(
            Text(layer.name),
            _number(layer.std_before),
            _number(layer.std_after),
            "" if layer.reason else _number(layer.factor),
            Text(layer.reason),
            style="dim" if layer.reason else None,
        )
    done = sum(not layer.reason for layer in report.layers)
    return Group(table, Text(f"{done} of {len(report.layers)} weight layers rescaled."))


def rescaling_text(report: Rescaling) -> str:
    """The same as plain text, for `print`."""
    buffer = io.StringIO()
    Console(file=buffer, width=100, color_system=None).print(rescale_table(report))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def _number(value):
    """Three significant digits; a dash where nothing was measured."""
    return "-" if math.isnan(value) else f"{value:.3g}"

"""The tables that are printed."""

from rich.table import Table

from activation_monitor.analysis.shown import count


def tables(results: dict):
    """A table for each part that was measured."""
    for part, rows in results.items():
        if part in SHOWN and rows:
            yield SHOWN[part](rows)


def steps(rows):
    table = _table(
        "A step, begin to begin, over that of no monitor",
        *("model", "contestant", "ratio", "95 % interval", "step"),
    )
    for row in rows:
        if "reason" in row:
            _add(table, row, row["contestant"], "[red]cannot run[/]", row["reason"])
        else:
            _add(table, row, *_ratio(row, row["contestant"]))
    notes = {row["contestant"]: row["note"] for row in rows if row.get("note")}
    table.caption = "\n".join(f"{name}: {note}" for name, note in notes.items())
    return table


def first(rows):
    title = "The first step, in a fresh process, over that of no monitor"
    return _fresh(rows, title, "time", seconds)


def fit(rows):
    title = f"`fit` of {rows[0]['steps']} steps, compilation and log included"
    return _fresh(rows, title, "time", seconds)


def memory(rows):
    title = "Peak of memory above what the process held before"
    return _fresh(rows, title, "peak", size)


def _fresh(rows, title, column, text):
    table = _table(title, "model", "contestant", "ratio", "95 % interval", column)
    for row in rows:
        # This distinguishes the two models of a process.
        named = row["contestant"]
        named += f", {row['figure']}" if row["figure"].endswith("model") else ""
        value = text(row["value"]["median"])
        _add(table, row, named, *_median(row["ratio"]), value)
    return table


def chain(rows):
    table = _table(
        "A sampled step of a chain of tiny layers",
        *("model", "contestant", "added per layer", "95 % interval", "step"),
    )
    for row in rows:
        if "reason" in row:
            _add(table, row, row["contestant"], "[red]cannot run[/]", row["reason"])
        elif row["contestant"] != row["against"]:
            each = {
                name: 1e6 * row["added"][name] / row["layers"]
                for name in ("median", "low", "high")
            }
            added = f"{each['median']:.0f} µs", f"{each['low']:.0f} - {each['high']:.0f}"
            step = seconds(row["seconds"]["median"])
            _add(table, row, row["contestant"], *added, step)
    return table


def kernel(rows):
    table = _table(
        "The kernel alone, over one sum of the same tensor",
        *("tensor", "kernel", "ratio", "95 % interval", "call"),
    )
    for row in rows:
        _add(table, row, *_ratio(row, row["kernel"]))
    return table


def log(rows):
    table = _table(
        "Log", "model", "logged besides the statistics", "per layer and snapshot"
    )
    for row in rows:
        table.add_row(row["model"], row["logged"], f"{row['bytes']:.0f} B")
    return table


def board(rows):
    table = _table(
        "TensorBoard with the tab open (fast loader), a synthetic log without histograms",
        *("layers x snapshots", "scalars", "memory", "per layer and snapshot", "read back"),
    )
    for row in rows:
        table.add_row(
            f"{row['layers']} x {row['snapshots']}",
            *("yes" if row["scalars"] else "no", size(row["bytes"])),
            *(f"{row['bytes_each']:.0f} B", seconds(row["read"])),
        )
    return table


def scale(rows, layers, steps, workers):
    """The table of the estimates."""
    table = _table(
        f"Computed from the measured parts: {layers:,} layers, {steps:,} steps, "
        f"{count(workers, 'worker')}",
        *("settings", "snapshots", "time of the layers", "time of the tensors"),
        *("log per layer and snapshot", "log", "TensorBoard", "exchanged per snapshot"),
    )
    for row in rows:
        table.add_row(
            row["settings"] + (" (recommended)" if row["recommended"] else ""),
            f"{row['snapshots']:,}",
            _known(row["seconds_of_layers"], seconds),
            _known(row["share_of_tensors"], lambda share: f"{share:.3%} of training"),
            _known(row["bytes_each"], lambda each: f"{each:.0f} B"),
            *(_known(row[name], size) for name in ("log", "tensorboard", "network")),
        )
    return table


SHOWN = {
    "steps": steps,
    "first": first,
    "fit": fit,
    "chain": chain,
    "memory": memory,
    "kernel": kernel,
    "log": log,
    "board": board,
}


def _add(table, row, *cells):
    """Add a row. The model stands in the first of its rows only."""
    way = f"{row['model']}, {row['mode']}, {row['precision']}"
    repeated = way in table.columns[0].cells
    if table.row_count and not repeated:
        table.add_section()
    table.add_row("" if repeated else way, *cells)


def _ratio(row, name):
    return name, *_median(row["ratio"]), seconds(row["seconds"]["median"])


def _median(found):
    interval = f"{found['low']:.3f} - {found['high']:.3f}, n = {found['count']}"
    return f"{found['median']:.3f}", interval


def _table(title, *columns):
    table = Table(title=title, title_justify="left", caption_justify="left")
    for column in columns:
        right = column in ("ratio", "step", "time", "call", "peak", "log", "TensorBoard")
        table.add_column(column, justify="right" if right else "left")
    return table


def _known(value, text):
    return "not measured" if value is None else text(value)


def size(number: float) -> str:
    """Bytes as text."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(number) < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def seconds(number: float) -> str:
    """A duration as text."""
    units = (1e-3, 1e6, "µs"), (1, 1e3, "ms"), (120, 1, "s"), (7200, 1 / 60, "min")
    for limit, factor, unit in units:
        if abs(number) < limit:
            return f"{number * factor:.3g} {unit}"
    return f"{number / 3600:.3g} h"

"""The figure of the documentation: what a sampled step costs with each contestant."""

import base64
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote_to_bytes

from plotly import graph_objects, subplots

from activation_monitor.views.figures import style

NOT_DRAWN = ("no monitor", "no monitor, epochs of one step")
TICKS = (1, 1.5, 2, 3, 5, 10, 20, 50, 100)
MARKS = ("circle", "diamond", "square", "triangle-up")


def draw(rows: list[dict]) -> graph_objects.Figure:
    """Ratios of the part `steps` in float32, a panel for each mode."""
    rows = [
        row
        for row in rows
        if row["contestant"] not in NOT_DRAWN and row["precision"] == "float32"
    ]
    modes = sorted({row["mode"] for row in rows})
    names = list(dict.fromkeys(row["contestant"] for row in rows))
    titles = ["XLA" if mode == "xla" else mode for mode in modes]
    figure = subplots.make_subplots(
        1, len(modes), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03
    )
    found = list(dict.fromkeys(row["model"] for row in rows))
    for column, mode in enumerate(modes, 1):
        for i, model in enumerate(found):
            points = [
                row
                for row in rows
                if (row["mode"], row["model"]) == (mode, model) and "ratio" in row
            ]
            figure.add_trace(_trace(points, model, i, column == 1), 1, column)
        stopped = [
            row["contestant"] for row in rows if row["mode"] == mode and "reason" in row
        ]
        for name in dict.fromkeys(stopped):
            figure.add_annotation(
                text="cannot run",
                x=0.02,  # a logarithm
                y=name,
                xanchor="left",
                showarrow=False,
                font={"color": style.LIGHT.severity["critical"]},
                row=1,
                col=column,
            )
    title = "Time of a step, in units of a step without a monitor"
    style.dress(figure, style.LIGHT, title, height=130 + 32 * len(names))
    ticks = {"tickvals": TICKS, "ticktext": [f"{t:g}" for t in TICKS], "tickangle": 0}
    figure.update_xaxes(type="log", matches="x", **ticks)
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1])
    return figure.add_vline(x=1, line={"color": style.LIGHT.ink, "width": 1})


def _trace(points, model, place, in_legend):
    middle, low, high = (
        [row["ratio"][name] for row in points] for name in ("median", "low", "high")
    )
    return graph_objects.Scatter(
        x=middle,
        y=[row["contestant"] for row in points],
        error_x={
            "array": [b - a for a, b in zip(middle, high, strict=True)],
            "arrayminus": [b - a for a, b in zip(low, middle, strict=True)],
            "thickness": 1,
        },
        mode="markers",
        marker={
            "color": style.LIGHT.run(place),
            "symbol": MARKS[place % len(MARKS)],
            "size": 9,
        },
        name=model,
        showlegend=in_legend,
    )


def write(figure: graph_objects.Figure, path: Path, width: int = 1000) -> None:
    """Write a figure as SVG or PNG, as plotly draws it in a browser."""
    sys.path.insert(0, str(Path(__file__).parent.parent.parent))
    import board

    if missing := board.why_no_browser():
        raise SystemExit(missing)
    kind = path.suffix.removeprefix(".")
    height = figure.layout.height
    with tempfile.TemporaryDirectory() as folder, board.browser(width, height) as driver:
        page = Path(folder) / "figure.html"
        figure.write_html(page, include_plotlyjs=True)
        driver.get(page.as_uri())
        url = driver.execute_async_script(
            """const [format, width, height, done] = arguments;
            Plotly.toImage(document.querySelector('.plotly-graph-div'),
                {format, width, height, scale: 2}).then(done, done);""",
            *(kind, width, height),
        )
    content = url.split(",", 1)[1]
    path.write_bytes(
        base64.b64decode(content) if kind == "png" else unquote_to_bytes(content)
    )

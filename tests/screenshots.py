"""Screenshots of the tab and of the report: the one in the README, or all to look at.

    python tests/screenshots.py README.png
    python tests/screenshots.py --all FOLDER

With `--all`: of 1, 3 and 10 runs of networks of 2, 12 and 150 layers, and of six runs with
a fault each; 1440 x 900 and 1024 x 768 pixels, light and dark; the top and each figure, and
the printed report. The runs are those of `shown_runs.py`. They are read from `--logs`, or
trained first, in about 15 minutes. Needs headless Chromium (Debian: apt-get install
chromium chromium-driver), and for the printed pages pdftoppm (poppler-utils).
"""

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import board

SIZES = ((1440, 900), (1024, 768))
THEMES = ("light", "dark")
FIGURES = ("profile", "heat", "layers-drawn", "comparison", "graph")
"""The `id` of the element of each figure of the tab."""

EACH_RUN = ("six",)
"""Log folders of which the top of the tab is drawn for each run."""

PAGES = 4
"""How many figures of a report, and how many printed pages, get a picture."""


# -- the tab


def resize(driver, width, height):
    """Set the size of the page. That of the window includes the borders."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )


def open_tab(driver, url, settings="", theme="light"):
    """Open the tab in a theme and wait until it is drawn."""
    driver.switch_to.default_content()
    driver.get(url)
    driver.execute_script(
        "localStorage.setItem('_tb_global_settings', arguments[0])",
        json.dumps({"theme": theme}),
    )
    board.open_tab(driver, url, settings)
    settle(driver)


def settle(driver, quiet=1.0, most=30.0):
    """Wait until nothing has been drawn for a while."""
    end, drawn, since = time.monotonic() + most, board.ready(driver), time.monotonic()
    while time.monotonic() - since < quiet and time.monotonic() < end:
        time.sleep(0.1)
        if board.ready(driver) != drawn:
            drawn, since = board.ready(driver), time.monotonic()


def pictures_of_tab(driver, url, theme):
    """Pairs of the name of a part and its picture: the top, then each figure."""
    open_tab(driver, url, theme=theme)
    yield "top", driver.get_screenshot_as_png()
    driver.execute_script(
        "for (const d of document.querySelectorAll('.card')) d.open = true"
    )
    settle(driver)
    for name in FIGURES:
        if scroll_to(driver, f"#{name}"):
            yield name, driver.get_screenshot_as_png()


def scroll_to(driver, selector, number=0):
    """Scroll an element into view; returns whether it is there and visible."""
    there = driver.execute_script(
        """const found = document.querySelectorAll(arguments[0])[arguments[1]];
        if (!found || !found.getClientRects().length) return false;
        found.scrollIntoView();
        return true;""",
        selector,
        number,
    )
    time.sleep(0.7)
    return there


# -- the report


def pictures_of_report(driver, page, theme):
    """Pairs of the name of a part and its picture: the top, figures, tables, print."""
    prefers = {"name": "prefers-color-scheme", "value": theme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [prefers]})
    driver.switch_to.default_content()
    driver.get(Path(page).resolve().as_uri())
    time.sleep(2)
    yield "top", driver.get_screenshot_as_png()
    for number in range(PAGES):
        if scroll_to(driver, "[data-figure]", number):
            yield f"figure-{number}", driver.get_screenshot_as_png()
    driver.execute_script(
        "for (const d of document.querySelectorAll('details')) d.open = true"
    )
    if scroll_to(driver, "table"):
        yield "table", driver.get_screenshot_as_png()


def printed(driver, page):
    """Pairs of the name and the picture of each printed page of a report."""
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    driver.switch_to.default_content()
    driver.get(Path(page).resolve().as_uri())
    time.sleep(2)
    pdf = driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "report.pdf").write_bytes(base64.b64decode(pdf["data"]))
        command = ["pdftoppm", "-png", "-r", "60", "report.pdf", "page"]
        subprocess.run(command, cwd=folder, check=True)
        pages = sorted(Path(folder).glob("page*.png"))
        for i, path in enumerate(pages[:PAGES] + pages[PAGES:][-2:]):
            yield f"print-{i}", path.read_bytes()


def write_report(logs, to):
    """What `activation-monitor report` writes."""
    from activation_monitor import cli

    cli.main(["report", str(logs), "-o", str(to)])
    return to


# -- all of them


def take_all(driver, logs, folder):
    """Write all pictures of one log folder; their names begin with its name."""
    url = board.serve(logs)
    with tempfile.TemporaryDirectory() as made:
        page = write_report(logs, Path(made, "report.html"))
        for width, height in SIZES:
            resize(driver, width, height)
            for theme in THEMES:
                begin = f"{logs.name}-{width}-{theme}"
                for name, image in pictures_of_tab(driver, url, theme):
                    (folder / f"{begin}-tab-{name}.png").write_bytes(image)
                for name, image in pictures_of_report(driver, page, theme):
                    (folder / f"{begin}-report-{name}.png").write_bytes(image)
        if shutil.which("pdftoppm"):
            for name, image in printed(driver, page):
                (folder / f"{logs.name}-{name}.png").write_bytes(image)
    if logs.name in EACH_RUN:
        for run in sorted(path.name for path in logs.iterdir() if path.is_dir()):
            open_tab(driver, url, f"&p.activation_monitor.run={run}/activations")
            (folder / f"{logs.name}-{run}.png").write_bytes(driver.get_screenshot_as_png())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("to", help="PNG file, or the folder with --all")
    parser.add_argument("--all", action="store_true", help="every part, light and dark")
    parser.add_argument(
        "--logs", help="the log folder; with --all, a folder of log folders such as 3x12"
    )
    parser.add_argument("--only", nargs="+", help="with --all, only these log folders")
    arguments = parser.parse_args()
    if missing := board.why_no_browser():
        sys.exit(f"screenshots: {missing}")
    with tempfile.TemporaryDirectory() as made, board.browser(1280, 1200) as driver:
        logs = Path(arguments.logs or made)
        if not arguments.logs:
            import shown_runs

            (shown_runs.train_all if arguments.all else shown_runs.train)(logs)
        if not arguments.all:
            open_tab(driver, board.serve(logs))
            driver.save_screenshot(arguments.to)
            return
        folder = Path(arguments.to)
        folder.mkdir(parents=True, exist_ok=True)
        for one in sorted(path for path in logs.iterdir() if path.is_dir()):
            if not arguments.only or one.name in arguments.only:
                take_all(driver, one, folder)


if __name__ == "__main__":
    main()

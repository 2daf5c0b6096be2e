"""Screenshots of the tab: the one in the README, or all to check after a change.

    python tests/screenshots.py README.png
    python tests/screenshots.py --all FOLDER

Trains three initializations of one network, opens TensorBoard's tab in headless Chromium
(Debian: apt-get install chromium chromium-driver) and writes PNG files.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import board

RUNS = {
    "glorot": "glorot_uniform",
    "he": "he_normal",
    "small": "random_normal",  # std 0.05 for any fan-in
}
"""Name of each run and its initializer."""


def train(folder, depth=20, epochs=8):
    """Train one ReLU network on the digits with each initializer of `RUNS`."""
    import keras
    from sklearn.datasets import load_digits

    from activation_monitor import ActivationMonitor

    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean()) / images.std()
    for name, initializer in RUNS.items():
        keras.utils.set_random_seed(0)
        hidden = [
            keras.layers.Dense(
                96,
                "relu",
                kernel_initializer=keras.initializers.get(initializer).clone(),
                name=f"hidden_{i}",
            )
            for i in range(depth)
        ]
        head = keras.layers.Dense(10, "softmax", name="digit")
        model = keras.Sequential([keras.Input((64,)), *hidden, head], name="net")
        model.compile(keras.optimizers.SGD(0.02), "sparse_categorical_crossentropy")
        monitor = ActivationMonitor(
            Path(folder) / name, sample_every=10, on_finding=lambda finding: None
        )
        model.fit(images, labels, 64, epochs, verbose=0, callbacks=[monitor])


def picture(driver, url, path, settings="", theme="light", scroll=None):
    """Take a screenshot of the tab, from its top or from the element with this id."""
    driver.get(url)
    driver.execute_script(
        "localStorage.setItem('_tb_global_settings', arguments[0])",
        json.dumps({"theme": theme}),
    )
    board.open_tab(driver, url, settings)
    if scroll:
        driver.execute_script(
            "for (const c of document.querySelectorAll('details.card')) c.open = true;"
        )
        time.sleep(3)
        driver.execute_script(
            "document.getElementById(arguments[0]).scrollIntoView()", scroll
        )
    time.sleep(1)
    driver.switch_to.default_content()
    driver.save_screenshot(str(path))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("to", help="PNG file, or the folder with --all")
    parser.add_argument("--all", action="store_true", help="every part, light and dark")
    parser.add_argument("--logs", help="an existing log folder")
    arguments = parser.parse_args()
    if missing := board.why_no_browser():
        sys.exit(f"screenshots: {missing}")
    with tempfile.TemporaryDirectory() as made, board.browser(1280, 1200) as driver:
        if not arguments.logs:
            train(made)
        url = board.serve(arguments.logs or made)
        if not arguments.all:
            picture(driver, url, arguments.to)
            return
        folder = Path(arguments.to)
        folder.mkdir(parents=True, exist_ok=True)
        for theme in ("light", "dark"):
            for part in (None, "profile", "heat", "layers-drawn", "comparison", "graph"):
                path = folder / f"{theme}-{part or 'top'}.png"
                picture(driver, url, path, theme=theme, scroll=part)


if __name__ == "__main__":
    main()

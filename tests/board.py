"""TensorBoard with this package's tab, for tests: as an app, as a server, in a browser."""

import atexit
import contextlib
import importlib.util
import os
import shutil
import tempfile
import time
import warnings

from tensorboard import default, program
from tensorboard.backend import application
from werkzeug import test, wrappers

from activation_monitor.views.plugin.entry import Loader

LOADERS = {"fast": "true", "python": "false"}

_SERVERS = []
"""Pipes on which TensorBoard's data servers hang: they end when these are closed."""


@atexit.register
def _stop_servers():
    for pipe in _SERVERS:
        pipe.close()


@contextlib.contextmanager
def _starting(board):
    """TensorBoard drops the process and the folder of its data server at once, which
    warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
    pipe = getattr(board._ingester, "_stdin_handle", None)
    if pipe is not None:
        _SERVERS.append(pipe)


def _configured(logdir, loader, *flags):
    # Not the installed plugins, which may include another version of this one.
    board = program.TensorBoard(plugins=[*default.get_static_plugins(), Loader])
    reload = ["--reload_interval", "1"]
    if loader == "python":
        # A thread that still reads when Python ends would take it down with it.
        reload = ["--reload_interval", "0", "--reload_task", "blocking"]
    load = ["--load_fast", LOADERS[loader]]
    board.configure(["tensorboard", "--logdir", str(logdir), *load, *reload, *flags])
    return board


class Client:
    """Asks the tab's routes without a network.

    Args:
        logdir: The log folder.
        loader: A key of `LOADERS`.
        *flags: More of TensorBoard's command line.
    """

    def __init__(self, logdir, loader="fast", *flags):
        board = _configured(logdir, loader, *flags)
        with _starting(board):
            self.provider, multiplexer = board._make_data_provider()
        app = application.TensorBoardWSGIApp(
            *(board.flags, board.plugin_loaders, self.provider),
            *(board.assets_zip_provider, multiplexer),
        )
        self._client = test.Client(app, wrappers.Response)
        self._prefix = board.flags.path_prefix
        self._reload = board._ingester.start if loader == "python" else lambda: None

    def get(self, route, **query):
        """The answer of one of the routes of the tab."""
        path = f"{self._prefix}/data/plugin/activation_monitor/{route}"
        return self._client.get(path, query_string=query)

    def page(self, path):
        """The answer of any path of TensorBoard's."""
        return self._client.get(self._prefix + path)

    def json(self, route, **query):
        """The answer as Python objects. It must not be an error."""
        answer = self.get(route, **query)
        assert answer.status_code == 200, answer.data
        return answer.json

    def wait_for(self, *runs, step=None):
        """Wait until TensorBoard has loaded these runs, up to a step."""

        def loaded():
            self._reload()
            return {
                run["name"]
                for run in self.json("runs")["runs"]
                if step is None or run["state"][0] >= step
            }

        until(loaded, lambda found: set(runs) <= found)


def until(ask, good, seconds=30):
    """Ask until the answer is good; returns it."""
    end = time.monotonic() + seconds
    while not good(answer := ask()):
        assert time.monotonic() < end, f"still {answer!r} after {seconds} s"
        time.sleep(0.1)
    return answer


def serve(logdir, *flags):
    """Start TensorBoard in this process with the fast loader; returns its address."""
    board = _configured(logdir, "fast", "--port", "0", "--host", "127.0.0.1", *flags)
    with _starting(board):
        return board.launch()


def why_no_browser():
    """What is missing for `browser`; empty if nothing is missing."""
    missing = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    if importlib.util.find_spec("selenium") is None:
        missing.append("the Python package selenium")
    if not missing:
        return ""
    return f"{', '.join(missing)} missing: apt-get install chromium chromium-driver"


@contextlib.contextmanager
def browser(width=1440, height=900):
    """A headless Chromium as a selenium driver."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            f"--window-size={width},{height}",
            f"--user-data-dir={profile}",
        ):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(
            shutil.which("chromedriver"), log_output=os.devnull
        )
        driver = webdriver.Chrome(options=options, service=service)
        try:
            yield driver
        finally:
            driver.quit()


def open_tab(driver, url, settings="", drawn=True):
    """Open the tab and enter its frame. By default, wait until everything is drawn."""
    driver.switch_to.default_content()
    driver.get("about:blank")  # else only the hash changes
    driver.get(f"{url}#activation_monitor{settings}")
    frame = "iframe[src*='name=activation_monitor']"
    until(lambda: driver.find_elements("css selector", frame), bool)
    driver.switch_to.frame(driver.find_element("css selector", frame))
    if drawn:
        until(lambda: ready(driver) > 0, bool, seconds=60)


def ready(driver):
    """The number of times that everything was drawn."""
    return driver.execute_script(
        "return Number(document.documentElement.dataset.ready ?? 0)"
    )

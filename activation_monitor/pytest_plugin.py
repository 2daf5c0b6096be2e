"""A fixture for pytest, which loads this module in each run where the package is installed.

So it imports no framework, and pytest need not rewrite the package (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from activation_monitor.monitor import ActivationMonitor

_NAME = "healthy_training"
_MONITORS = pytest.StashKey["list[ActivationMonitor]"]()


@pytest.fixture(name=_NAME)
def healthy_training(
    request: pytest.FixtureRequest,
) -> Iterator[Callable[..., ActivationMonitor]]:
    """Makes an `ActivationMonitor` whose findings fail the test.

    The fixture is a function with the arguments of `ActivationMonitor`. After its body has
    passed, the test fails if there are findings, which are the message, or if nothing was
    measured. To accept a finding, pass its code as `ignore`. If the body fails, the
    findings are shown below its error.

    Example:

    ```python
    def test_my_model_trains(healthy_training):
        model.fit(x, y, callbacks=[healthy_training(sample_every=10)])
    ```
    """
    monitors: list[ActivationMonitor] = []
    request.node.stash[_MONITORS] = monitors

    def make(log_dir: str | Path | None = None, **options: Any) -> ActivationMonitor:
        from activation_monitor import ActivationMonitor

        options.setdefault("on_finding", _nothing_yet)
        monitor = ActivationMonitor(log_dir, **options)
        monitors.append(monitor)
        return monitor

    yield make
    if _MONITORS in request.node.stash:  # the body failed
        found = "\n\n".join(str(f) for monitor in monitors for f in monitor.findings)
        if found:
            request.node.add_report_section("teardown", "activation_monitor", found)


@pytest.hookimpl(trylast=True)  # after the body, and only if it has passed
def pytest_runtest_call(item: pytest.Item) -> None:
    """Fail a test whose training has findings."""
    if _MONITORS not in item.stash:
        return
    monitors = item.stash[_MONITORS]
    del item.stash[_MONITORS]
    found = [str(finding) for monitor in monitors for finding in monitor.findings]
    if not found and not any(len(monitor.recording) for monitor in monitors):
        found = [
            f"{_NAME}: nothing was measured. Pass `{_NAME}()` to `fit` as a callback, or "
            "use its `watch` or `measure_step`."
        ]
    if found:
        pytest.fail("\n\n".join(found), pytrace=False)


def _nothing_yet(finding: object) -> None:
    """The test fails after its body, with all findings."""

"""Tells you why your Keras network does not train: which layer, and why.

    from activation_monitor import ActivationMonitor

    monitor = ActivationMonitor("logs/run1")
    model.fit(x, y, callbacks=[monitor])
    print(monitor.diagnosis)

The public names are resolved on first use, so that importing the package loads neither
TensorFlow nor Keras: TensorBoard imports it to show its tab, wherever it is installed.
"""

import importlib

# Type checkers take this name for that of `typing`, whose import is four fifths of the time
# that importing this package would take.
TYPE_CHECKING = False

if TYPE_CHECKING:  # Type checkers do not follow `__getattr__`.
    from activation_monitor.actions import UnhealthyModelError
    from activation_monitor.analysis.diagnosis import Diagnosis
    from activation_monitor.analysis.findings import Finding
    from activation_monitor.analysis.snapshot import Recording, Snapshot
    from activation_monitor.asserting import assert_healthy
    from activation_monitor.auditing import audit
    from activation_monitor.diagnosing import diagnose
    from activation_monitor.monitor import ActivationMonitor
    from activation_monitor.rescaling import rescale
    from activation_monitor.storage.reader import read_recording
    from activation_monitor.wrapper import Monitored

__all__ = [
    "ActivationMonitor",
    "Diagnosis",
    "Finding",
    "Monitored",
    "Recording",
    "Snapshot",
    "UnhealthyModelError",
    "assert_healthy",
    "audit",
    "diagnose",
    "read_recording",
    "rescale",
]
__version__ = "0.1.0"

_MODULES = {
    "ActivationMonitor": "activation_monitor.monitor",
    "Diagnosis": "activation_monitor.analysis.diagnosis",
    "Finding": "activation_monitor.analysis.findings",
    "Monitored": "activation_monitor.wrapper",
    "Recording": "activation_monitor.analysis.snapshot",
    "Snapshot": "activation_monitor.analysis.snapshot",
    "UnhealthyModelError": "activation_monitor.actions",
    "assert_healthy": "activation_monitor.asserting",
    "audit": "activation_monitor.auditing",
    "diagnose": "activation_monitor.diagnosing",
    "read_recording": "activation_monitor.storage.reader",
    "rescale": "activation_monitor.rescaling",
}

if not TYPE_CHECKING:  # A checker that sees it accepts any name.

    def __getattr__(name):
        if name in _MODULES:
            return getattr(importlib.import_module(_MODULES[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

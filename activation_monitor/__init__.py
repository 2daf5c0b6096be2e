"""Tells you why your Keras network does not train: which layer, and why.

    from activation_monitor import ActivationMonitor

    monitor = ActivationMonitor("logs/run1")
    model.fit(x, y, callbacks=[monitor])
    print(monitor.diagnosis)

The public names are resolved on first use: importing the package loads neither
TensorFlow nor Keras, for TensorBoard loads it (to show its tab) wherever it is installed.
"""

import importlib

_PUBLIC = {
    "ActivationMonitor": "activation_monitor.monitor",
    "Diagnosis": "activation_monitor.analysis.diagnosis",
    "Finding": "activation_monitor.analysis.findings",
    "Recording": "activation_monitor.analysis.snapshot",
    "Monitored": "activation_monitor.wrapper",
    "Snapshot": "activation_monitor.analysis.snapshot",
    "audit": "activation_monitor.auditing",
    "diagnose": "activation_monitor.diagnosing",
    "read_recording": "activation_monitor.storage.reader",
    "rescale": "activation_monitor.rescaling",
}

__all__ = [*_PUBLIC]  # noqa: PLE0604
__version__ = "0.1.0"


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_PUBLIC])

"""Which steps take the exact pass: those after a quick pass that could not measure all.

The quick pass cannot measure subnormal elements, nor the finite elements beside non-finite
ones (see `measure`). The exact pass can, and costs several times more.
"""

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.recording import measure
from activation_monitor.recording.table import Measured


class Precision:
    """Decides from what a step measured how the next sampled step measures.

    Args:
        always_exact: Whether every step takes the exact pass. Otherwise one follows where
            a quick pass could not measure a layer in full, which several workers would
            answer differently. Defaults to `False`.

    Attributes:
        exact: Whether the next sampled step takes the exact pass.
    """

    def __init__(self, always_exact: bool = False):
        self.exact = always_exact
        self._always_exact = always_exact
        self._measured_exactly = set()

    def after(self, found: Measured) -> None:
        """Plan one exact pass for each layer that the quick pass could not measure."""
        needs = measure.needs_exact(found.quantities[records.OUTPUT])
        if records.WEIGHT in found.quantities:
            # Of weights, NaN alone matters: one layer of zeros is no reason.
            needs |= records.field(found.quantities[records.WEIGHT], "nonfinite") > 0
        names = np.array([layer.name for layer in found.layers])
        needed = set(names[needs])
        if self.exact:
            self._measured_exactly |= needed
        self._measured_exactly &= needed
        self.exact = self._always_exact or bool(needed - self._measured_exactly)

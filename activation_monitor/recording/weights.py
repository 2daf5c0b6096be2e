"""The kernels of weight layers, their gradients, and how a step changes them.

Kernels and updates are measured around the step and not in it: whatever changes a kernel -
the optimizer, clipping, weight decay, an average over steps - is part of the update, and
the step itself stays as it is. Of a gradient the step only keeps some rows, which are
measured after it.

The first step measures the kernels in full, because the rules on how weights were drawn
need all of them. Everything else is measured in evenly spaced rows of large kernels. The
field `count` of a record says in how many elements. Histograms of kernels and gradients are
of these rows, too, or of evenly spaced elements in them.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import keras
import numpy as np

from activation_monitor.analysis import histogram, raw, records
from activation_monitor.recording import kernels, moments
from activation_monitor.recording.backends import backend
from activation_monitor.recording.keras_private import compiled, stored_value
from activation_monitor.recording.trying import UntilItFails

ops: Any = keras.ops  # not annotated, see `recording.ops`


def some_rows(kernel: Any) -> Any:
    """Evenly spaced rows of a kernel or of its gradient, in float32 at least.

    A row holds the weights of one input. All rows are returned if they have at most
    `histogram.EXACT_UP_TO` elements; otherwise about as many elements, and at least one
    row.

    Args:
        kernel: Floating-point tensor of shape `(..., inputs, outputs)`, all known.

    Returns:
        Tensor of shape `(rows, outputs)`.
    """
    rows = ops.reshape(kernel, (-1, int(kernel.shape[-1])))[:: _stride(kernel)]
    return rows if moments.is_double(rows) else ops.cast(rows, "float32")


def _stride(kernel):
    """One in so many rows of a kernel is measured."""
    lengths = [int(length) for length in kernel.shape]
    # A stride that does not divide the number of inputs visits all of them.
    return histogram.stride_of(int(np.prod(lengths)), lengths[-2])


def known_kernels(layers: Sequence[keras.Layer]) -> dict[int, Any]:
    """The kernels of those layers that have one, by id of the layer.

    Args:
        layers: The layers. One whose kernel cannot be read, or has no known value, is left
            out.
    """
    found = {}
    for layer in layers:
        try:
            kernel = kernels.kernel(layer)
        except Exception:  # a layer of the user's own with names like ours
            continue
        if kernel is not None and stored_value(kernel) is not None:
            found[id(layer)] = kernel
    return found


class Weights:
    """Measures kernels before a step; their gradients and updates after it.

    Args:
        warn: Called with a message if kernels cannot be measured, after which none are.
        histograms: Whether to count histograms of the kernels and of their gradients, not
            of the updates. Defaults to `False`.

    Attributes:
        histograms: Those of the step, by quantity and id of the layer.
        replicas: By id of the layer, the largest difference between two replicas of its
            kernel before the step. Empty if there is one replica.
    """

    def __init__(self, warn: Callable[[str], None], histograms: bool = False):
        self._attempt = UntilItFails("weights cannot be measured", warn)
        # By ids of the layers and kernels; empty until they are compiled.
        self._functions: dict[tuple, tuple[Callable, ...]] = {}
        # By quantity: ids of layers, and their records.
        self._found: dict[str, tuple[tuple[int, ...], np.ndarray]] = {}
        # Ids of layers, and the rows of their kernels before the step.
        self._before: tuple[tuple[int, ...], Any] | None = None
        self._kernels: list[Any] = []
        self._after: Callable = lambda rows, gradients: None
        self._counts = histograms
        self._strides: dict[int, int] = {}  # of the rows, by id of the layer
        self.histograms: dict[str, dict[int, np.ndarray]] = {}
        self.replicas: dict[int, float] = {}

    def before(self, layers: Sequence[keras.Layer], exact: bool) -> None:
        """Measure the kernels before a step.

        Args:
            layers: The layers, those without a kernel included.
            exact: Whether to measure all rows, as in the first step.
        """
        self._found, self._before, self.replicas, self.histograms = {}, None, {}, {}
        found = known_kernels(layers)
        if found:
            self._kernels = [*found.values()]
            self._strides = {layer: _stride(kernel) for layer, kernel in found.items()}
            layers = [layer for layer in layers if id(layer) in found]
            self._attempt(self._measure_before, layers, found, exact)
            self._attempt(self._compare_replicas, found)

    def after(self, gradients: dict[int, Any]) -> None:
        """Measure what the step changed, and the gradients that it has kept.

        Args:
            gradients: Rows of gradients, see `some_rows`, by id of the layer.
        """
        if self._before is not None:
            self._attempt(self._measure_after, gradients)

    def late(self, layers: Sequence[keras.Layer]) -> None:
        """Measure the kernels of layers that were built during the step, as they are now.

        Args:
            layers: The layers, those that were measured before included.
        """
        known, _ = self._found.get(records.WEIGHT, ((), None))
        found = known_kernels([layer for layer in layers if id(layer) not in known])
        if found:
            self._attempt(self._measure_late, found)

    def read(self) -> dict[str, dict[int, np.ndarray]]:
        """What was measured: records `(len(FIELDS),)`, by quantity and id of the layer."""
        found, self._found, self._before = self._found, {}, None
        if self._attempt.failed:
            return {}
        return {
            quantity: dict(zip(ids, measured, strict=True))
            for quantity, (ids, measured) in found.items()
        }

    def _measure_before(self, layers, found, exact):
        ids = tuple(found)
        # A kernel that its layer computes is another tensor each time.
        kept = [id(k) if isinstance(k, keras.Variable) else 0 for k in found.values()]
        key = ids, tuple(kept)
        is_new = key not in self._functions
        if is_new:
            self._functions = {key: ()}
            functions = _functions(layers, self._counts)
        else:
            # Not before, because the first step takes less time without compiling.
            functions = self._functions[key] or tuple(
                compiled(function, _read(layers))
                for function in _functions(layers, self._counts)
            )
            self._functions[key] = functions
        before, self._after = functions
        if is_new or exact:
            values = _values(found.values())
            rows = [some_rows(value) for value in values]
            measured = finished(values, backend.measured_each(values))
            counted = backend.counted_each(rows) if self._counts else None
        else:
            rows, measured, counted = before()
            measured = finished(rows, measured)
        self._found[records.WEIGHT] = ids, measured
        self._add_histograms(records.WEIGHT, ids, counted)
        self._before = ids, backend.outlasting(rows)

    def _compare_replicas(self, found):
        for layer, kernel in found.items():
            values = backend.by_replica(stored_value(kernel))
            if len(values) > 1:
                first, *others = map(some_rows, values)
                parted = [ops.max(ops.abs(other - first)) for other in others]
                self.replicas[layer] = float(ops.max(ops.stack(parted)))

    def _measure_after(self, gradients):
        ids, rows = cast(tuple, self._before)  # by `after`
        kept = [*gradients.values()]
        if all(stored_value(kernel) is not None for kernel in self._kernels):
            changes, measured, counted = self._after(rows, kept)
        else:
            ids, changes, measured = (), [], backend.measured_each(kept) if kept else None
            counted = None
        if measured is None:
            return
        measured = finished([*changes, *kept], measured)
        self._found[records.WEIGHT_UPDATE] = ids, measured[: len(ids)]
        if kept:
            self._found[records.WEIGHT_GRADIENT] = tuple(gradients), measured[len(ids) :]
            self._add_histograms(records.WEIGHT_GRADIENT, tuple(gradients), counted)

    def _add_histograms(self, quantity, ids, counted):
        """`counted` is None if nothing was counted."""
        if counted is not None:
            found = raw.finish_histograms(backend.on_host(counted))
            strides = [self._strides.get(layer, 1) for layer in ids]
            found[:, 0] *= strides  # of the rows, and within them
            self.histograms[quantity] = dict(zip(ids, found, strict=True))

    def _measure_late(self, found):
        values = _values(found.values())
        measured = finished(values, backend.measured_each(values))
        ids, before = self._found.get(records.WEIGHT, ((), measured[:0]))
        self._found[records.WEIGHT] = (*ids, *found), np.concatenate([before, measured])


def _values(found):
    """The tensors of kernels."""
    return [ops.convert_to_tensor(stored_value(kernel)) for kernel in found]


def _read(layers):
    """The variables that `_functions` reads."""
    return [variable for layer in layers for variable in layer.variables]


def _functions(layers, counts):
    """Functions that measure the rows of the kernels, and of what has changed in them.

    They return rows, records, and raw histograms of the kernels or of the gradients; None
    in place of them if none are wanted.
    """

    def counted(tensors):
        return backend.counted_each(tensors) if counts and tensors else None

    def values():
        return _values(kernels.kernel(layer) for layer in layers)

    def before():
        rows = [some_rows(value) for value in values()]
        return rows, backend.measured_each(rows), counted(rows)

    def after(rows, gradients):
        pairs = zip(values(), rows, strict=True)
        changes = [some_rows(value) - known for value, known in pairs]
        measured = backend.measured_each([*changes, *gradients])
        return changes, measured, counted(gradients)

    return before, after


def finished(tensors: Sequence[Any], measured: tuple[Any, Any]) -> np.ndarray:
    """The records on the host, of which those that the quick pass could not measure are
    computed here: of NaN, of subnormals, and where the mean is large beside the deviation.

    Args:
        tensors: What was measured.
        measured: What `backend.measured_each` returned for these tensors.

    Returns:
        Array of shape `(len(tensors), len(records.FIELDS))`.
    """
    found, suffices = map(backend.on_host, measured)
    found = raw.finish(found)
    for i in np.flatnonzero(~suffices):
        # Gradients are kept in variables; reshaping makes a tensor.
        column = ops.reshape(ops.cast(tensors[int(i)], "float32"), (-1, 1))
        (column,) = backend.outlasting([column])  # it may be sharded over processes
        found[i] = records.measure(backend.on_host(column))
    return found

"""The moving statistics of batch normalizations, read before and after a sampled step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from activation_monitor.analysis import moving
from activation_monitor.recording.backends import backend
from activation_monitor.recording.keras_private import stored_value
from activation_monitor.recording.trying import UntilItFails

ops: Any = keras.ops  # not annotated, see `recording.ops`


def is_batch_normalization(layer: keras.Layer) -> bool:
    """Whether a layer is Keras' own: a subclass may update its statistics otherwise."""
    return type(layer) is keras.layers.BatchNormalization and layer.built


class Moving:
    """Compares the moving statistics with the batches of sampled steps.

    Nothing is measured in the step: the statistics of a batch follow from the change that
    the step makes to the moving ones.

    Args:
        warn: Called with a message if they cannot be read, after which none are.
    """

    def __init__(self, warn: Callable[[str], None]):
        self._attempt = UntilItFails("moving statistics cannot be read", warn)
        self._before: dict[int, np.ndarray] = {}
        self._windows: dict[int, tuple[moving.Deviation, ...]] = {}  # by id of the layer

    def before(self, layers: Sequence[keras.Layer]) -> None:
        """Read the moving statistics before a step.

        Args:
            layers: The layers, others included.
        """
        self._before = self._attempt(_statistics, layers) or {}

    def after(
        self,
        step: int,
        layers: Sequence[keras.Layer],
        updates: Mapping[int, int],
        rms: Mapping[int, float],
    ) -> dict[int, np.ndarray]:
        """Compare them with those after it.

        Args:
            step: The number of the step.
            layers: The layers that the step called.
            updates: How often it called each, by id of the layer; 0 if it is not known.
            rms: The rms of the output of each, by id of the layer.

        Returns:
            Arrays `(len(moving.FIELDS),)` by id of the layer.
        """
        layers = [layer for layer in layers if id(layer) in self._before]
        return self._attempt(self._compare, step, layers, updates, rms) or {}

    def _compare(self, step, layers, updates, rms):
        found, now = {}, _statistics(layers)
        for layer in layers:
            key = id(layer)
            before, after = self._before[key], now[key]
            momentum, epsilon = float(layer.momentum), float(layer.epsilon)
            if np.array_equal(before, after):
                parts = (_values(layer, "gamma", 1.0), _values(layer, "beta", 0.0))
                last = moving.of_fixed(step, before, *parts, epsilon, rms[key])
            elif updates[key] and 0 <= momentum < 1 and np.isfinite(after).all():
                about = momentum, updates[key], epsilon
                last = moving.deviation(step, before, after, *about)
            else:
                self._windows.pop(key, None)
                continue
            known = self._windows.get(key, ())
            self._windows[key] = moving.window_after(known, last, momentum)
            found[key] = moving.row(momentum, self._windows[key], last)
        return found


def _statistics(layers):
    """Moving mean and variance `(2, channels)` by id of the layer, with one copy."""
    layers = [
        layer
        for layer in layers
        if is_batch_normalization(layer) and stored_value(layer.moving_mean) is not None
    ]
    pairs = [(layer.moving_mean, layer.moving_variance) for layer in layers]
    values = [ops.convert_to_tensor(stored_value(v)) for pair in pairs for v in pair]
    if not values:
        return {}
    together = backend.on_host(ops.concatenate(values))
    ends = np.cumsum([2 * pair[0].shape[0] for pair in pairs])
    each = np.split(together, ends[:-1])
    return {
        id(layer): part.reshape(2, -1) for layer, part in zip(layers, each, strict=True)
    }


def _values(layer, name, default):
    variable = getattr(layer, name)
    if variable is None:
        return np.array(default)
    return backend.on_host(stored_value(variable)).astype(np.float64)

"""Places that receive what a step measured, and functions that measure."""

# The environment of a type checker may have no JAX.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from activation_monitor.analysis import raw
from activation_monitor.recording import measure, moments
from activation_monitor.recording.backends import received
from activation_monitor.recording.backends.jax import processes
from activation_monitor.recording.backends.jax.graphs import deliver


@functools.cache
def _measuring(
    *,
    exact: bool,
    histograms: bool = False,
    activity: bool = False,
    channel_axis: int = -1,
    unsaturated: tuple[float, float] | None = None,
):
    """A compiled function that measures a tensor with or without a mask."""

    def measuring(tensor, mask=None):
        return measure.measure(
            tensor,
            channel_axis=channel_axis,
            unsaturated=unsaturated,
            mask=mask,
            exact=exact,
            histograms=histograms,
            activity=activity,
        )

    def apart(tensor, mask=None):
        # Fused with what is measured, the step itself may be rounded differently. XLA does
        # not move code into a branch, and cannot know that this one is always taken.
        found = jax.eval_shape(measuring, tensor, mask)
        first = jnp.reshape(tensor, (-1,))[:1]
        always = jnp.all((first == first) | (first != first))
        return jax.lax.cond(
            *(always, measuring, lambda *_: jnp.zeros(found.shape, found.dtype)),
            *(tensor, mask),
        )

    return jax.jit(apart)


def _sum_of_squares(x):
    # XLA adds up one by one. Added up so, a million squares are off by 1e-5.
    return moments.blocked_sum(jnp.square(x))


_PRIMITIVES = moments.Primitives(
    sum_of_squares=_sum_of_squares, rarely=lambda function, *tensors: function(*tensors)
)


@jax.jit
def _measured_each(tensors):
    return measure.measure_each(tensors, primitives=_PRIMITIVES)


_counted_each = jax.jit(measure.count_each)


def on_host(tensor: Any) -> np.ndarray:
    """A copy of an array, of a tensor that exists, or of the value of a variable."""
    return np.array(tensor)


def measured_each(tensors: Sequence[Any]) -> tuple[Any, Any]:
    """The raw records of several tensors, see `measure.measure_each`."""
    return processes.whole(_measured_each([*tensors]))


def counted_each(tensors: Sequence[Any]) -> Any:
    """The raw histograms of several tensors, see `measure.count_each`."""
    return processes.whole(_counted_each([*tensors]))


def measure_once(x: Any, *, exact: bool, jit_compile: bool = False) -> np.ndarray:
    """Measure an array as a training step would.

    Args:
        x: Array, tensor or variable of any shape and floating-point dtype.
        exact: Whether to take the exact pass, see `measure`.
        jit_compile: Not used: XLA compiles all measurements.

    Returns:
        The record, `(len(records.FIELDS),)`.
    """
    del jit_compile
    tensor = keras.ops.convert_to_tensor(x)
    return raw.finish(np.asarray(_measuring(exact=exact)(tensor)))


class Store:
    """Receives the record of one tensor, and holds it until the host reads it.

    Args:
        histograms: Whether to count a histogram as well.
        merges: Whether several tensors may be measured before the host reads: their
            records are merged, and the histogram is that of the last one. If `False`, the
            record is that of the last one. Defaults to `True`.
        channels: The number of channels whose activity is measured. Of several tensors, a
            channel is active if it is in any. Defaults to `0`.

    Attributes:
        received: What was measured of each of the last tensors: an array, and where it
            begins there.
        earlier: What was measured of those before them.
    """

    def __init__(self, histograms: bool, merges: bool = True, channels: int = 0):
        self.histograms = histograms
        self.merges = merges
        self.channels = channels
        self.received: list[tuple[Any, int]] = []
        self.earlier: received.Joined | None = None

    def put(
        self,
        tensor: Any,
        *,
        exact: bool,
        fused: bool,
        channel_axis: int = -1,
        unsaturated: tuple[float, float] | None = None,
        mask: Any = None,
    ) -> Any:
        """Measure a tensor of the running step for this store.

        Args:
            tensor: A dense floating-point tensor.
            exact: Whether to take the exact pass, see `measure`.
            fused: Not used: XLA compiles all measurements.
            channel_axis: The channel axis, 1 or -1. Defaults to `-1`.
            unsaturated: The limits from `records.SATURATED`. Defaults to `None`: the
                activation function has no limits.
            mask: Boolean mask of the leading axes, False for padding. Defaults to `None`.

        Returns:
            The raw record of this tensor, `(len(raw.COLUMNS),)`.
        """
        del fused
        # In another trace the layer may output another number of channels.
        fits = (
            self.channels > 0 and measure.channels_of(tensor, channel_axis) == self.channels
        )
        measuring = _measuring(
            exact=exact,
            histograms=self.histograms,
            activity=fits,
            channel_axis=channel_axis,
            unsaturated=unsaturated,
        )
        found = measuring(jax.lax.stop_gradient(tensor), mask)
        if self.channels and not fits:
            nothing = jnp.full(self.channels, np.nan, np.float32)
            found = jnp.concatenate([found, nothing])
        deliver(self, [found])
        return found[: len(raw.COLUMNS)]

    def merge(self, record: Any) -> None:
        """Merge the raw record of another tensor of the running step.

        Args:
            record: The raw record, `(len(raw.COLUMNS),)`. The store must merge.
        """
        rest = received.length_of(self) - len(raw.COLUMNS)
        deliver(self, [jnp.concatenate([record, jnp.zeros(rest, np.float32)])])

    def receive(self, found: Sequence[Any], start: int = 0) -> None:
        """Take what a step has measured.

        Args:
            found: One array, which may hold other records as well.
            start: Where it begins there. Defaults to `0`.
        """
        received.receive(self, found[0], start, np.asarray)

    def read(self) -> np.ndarray:
        """The record, `(len(records.FIELDS),)`, as a numpy array."""
        return received.present(self, np.asarray).record

    def clear(self) -> None:
        """Empty the store."""
        received.clear(self)


class Kept:
    """Holds tensors of a step until the host takes them, as they are."""

    def __init__(self):
        self._tensors = None

    def put(self, tensors: Sequence[Any]) -> None:
        """Keep tensors of the running step."""
        deliver(self, [*map(jax.lax.stop_gradient, tensors)])

    def receive(self, found: Sequence[Any]) -> None:
        """Take the tensors of a step that has run."""
        self._tensors = [*found]

    def take(self) -> list[list[Any]] | None:
        """What the step has kept, in a list; None if nothing was."""
        found, self._tensors = self._tensors, None
        return None if found is None else [found]


class Reader:
    """Reads many stores with one copy to the host and empties them.

    Args:
        stores: The stores to read.
    """

    def __init__(self, stores: list[Store]):
        self.stores = tuple(stores)

    def collect(self) -> Any:
        """Empty the stores; returns what they held, still on the device."""
        held = [([*store.received], store.earlier) for store in self.stores]
        for store in self.stores:
            store.clear()
        return held

    def finish(self, collected: Any) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Copy to the host what `collect` returned.

        Returns:
            The records, `(stores, len(records.FIELDS))`; the histograms, `(stores,
            len(histogram.SLOTS))`, empty ones for stores without; and of each store which
            of its channels were active, `(channels,)`. NaN where it is not known.
        """
        arrays = {id(array): array for held, _ in collected for array, _ in held}
        copies = dict(zip(arrays, jax.device_get([*arrays.values()]), strict=True))
        each = [
            received.stacked(store, [(copies[id(array)], start) for array, start in held])
            for store, (held, _) in zip(self.stores, collected, strict=True)
        ]
        return received.finish(self.stores, each, [earlier for _, earlier in collected])

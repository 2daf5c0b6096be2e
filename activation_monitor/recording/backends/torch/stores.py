"""Places that receive what a step measured, and functions that measure."""

# The environment of a type checker may have no PyTorch.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import torch

from activation_monitor.analysis import raw
from activation_monitor.recording import measure, moments
from activation_monitor.recording.backends import received
from activation_monitor.recording.backends.torch import graphs, ops

_EAGER = moments.Primitives(
    sum_of_squares=lambda x: torch.sum(torch.square(x)),
    rarely=lambda function, *tensors: function(*tensors),
)


def _primitives(tensor):
    """Those for the device: elsewhere than on a CPU, a branch waits for the device."""
    return _EAGER if tensor.device.type == "cpu" else None


def on_host(tensor: Any) -> np.ndarray:
    """A copy of an array, of a tensor that exists, or of the value of a variable. Bfloat16,
    which numpy does not have, becomes float32."""
    tensor = torch.as_tensor(tensor).detach()
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.float()
    return tensor.cpu().numpy().copy()


def measured_each(tensors: Sequence[Any]) -> tuple[Any, Any]:
    """The raw records of several tensors, see `measure.measure_each`."""
    with graphs.measuring():
        return measure.measure_each(
            [tensor.detach() for tensor in tensors], primitives=_EAGER
        )


def counted_each(tensors: Sequence[Any]) -> Any:
    """The raw histograms of several tensors, see `measure.count_each`."""
    with graphs.measuring():
        return measure.count_each([tensor.detach() for tensor in tensors])


def measure_once(x: Any, *, exact: bool, jit_compile: bool = False) -> np.ndarray:
    """Measure an array as a training step would.

    Args:
        x: Array, tensor or variable of any shape and floating-point dtype.
        exact: Whether to take the exact pass, see `measure`.
        jit_compile: Not used: measurements run eagerly.

    Returns:
        The record, `(len(records.FIELDS),)`.
    """
    del jit_compile
    tensor: Any = keras.ops.convert_to_tensor(x)
    tensor = tensor.detach()
    with graphs.measuring():
        found = measure.measure(tensor, exact=exact, primitives=_primitives(tensor))
    return raw.finish(found.cpu().numpy())


class Store:
    """Holds the record of one tensor until the host reads it.

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
            fused: Not used: measurements run eagerly.
            channel_axis: The channel axis, 1 or -1. Defaults to `-1`.
            unsaturated: The limits from `records.SATURATED`. Defaults to `None`: the
                activation function has no limits.
            mask: Boolean mask of the leading axes, False for padding. Defaults to `None`.

        Returns:
            The raw record of this tensor, `(len(raw.COLUMNS),)`.
        """
        del fused
        # At another step the layer may output another number of channels.
        fits = (
            self.channels > 0 and measure.channels_of(tensor, channel_axis) == self.channels
        )
        with graphs.measuring():
            found = measure.measure(
                tensor.detach(),
                channel_axis=channel_axis,
                unsaturated=unsaturated,
                mask=mask,
                exact=exact,
                histograms=self.histograms,
                activity=fits,
                primitives=_primitives(tensor),
            )
            if self.channels and not fits:
                nothing = torch.full((self.channels,), np.nan, device=found.device)
                found = torch.cat([found, nothing])
        received.receive(self, found, 0, on_host)
        return found[: len(raw.COLUMNS)]

    def merge(self, record: Any) -> None:
        """Merge the raw record of another tensor of the running step.

        Args:
            record: The raw record, `(len(raw.COLUMNS),)`. The store must merge.
        """
        rest = received.length_of(self) - len(raw.COLUMNS)
        found = torch.cat([record, record.new_zeros(rest)])
        received.receive(self, found, 0, on_host)

    def read(self) -> np.ndarray:
        """The record, `(len(records.FIELDS),)`, as a numpy array."""
        return received.present(self, on_host).record

    def clear(self) -> None:
        """Empty the store."""
        received.clear(self)


class Kept:
    """Holds tensors of a step until the host takes them, as they are."""

    def __init__(self):
        self._tensors = None

    def put(self, tensors: Sequence[Any]) -> None:
        """Keep copies of tensors of the running step, which may change in place later."""
        self._tensors = [tensor.detach().clone() for tensor in tensors]

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
        held = [[*store.received] for store in self.stores]
        earlier = [store.earlier for store in self.stores]
        for store in self.stores:
            store.clear()
        vectors = [found for several in held for found, _ in several]
        together = ops.concatenate(vectors) if vectors else torch.zeros(0)
        return together, [len(several) for several in held], earlier

    def finish(self, collected: Any) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Copy to the host what `collect` returned.

        Returns:
            The records, `(stores, len(records.FIELDS))`; the histograms, `(stores,
            len(histogram.SLOTS))`, empty ones for stores without; and of each store which
            of its channels were active, `(channels,)`. NaN where it is not known.
        """
        together, tensors, earlier = collected
        together, start, each = together.cpu().numpy(), 0, []
        for store, number in zip(self.stores, tensors, strict=True):
            length = received.length_of(store)
            starts = range(start, start + number * length, length)
            each.append(received.stacked(store, [(together, at) for at in starts]))
            start += number * length
        return received.finish(self.stores, each, earlier)

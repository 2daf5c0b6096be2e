"""Joins what stores have received, on the host, where records do not wait in variables."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from activation_monitor.analysis import histogram, raw, records

MANY = 256
"""So many tensors a store receives before they are joined. A `Monitored` layer, or a long
evaluation, would otherwise fill the memory with records."""


class Joined(NamedTuple):
    """What a store has received earlier.

    Attributes:
        record: The record, `(len(records.FIELDS),)`.
        active: Which channels were active, `(channels,)`, as numbers. NaN where it is not
            known.
    """

    record: np.ndarray
    active: np.ndarray


class Receiving(Protocol):
    """A store, as far as this module needs it; see `protocol.Store`.

    Attributes:
        received: What was measured of each of the last tensors: an array, on the device,
            and where it begins there.
        earlier: What was measured of those before them.
    """

    histograms: bool
    merges: bool
    channels: int
    received: list[tuple[Any, int]]
    earlier: Joined | None


def length_of(store: Receiving) -> int:
    """How many numbers a store receives for each tensor."""
    counted = store.histograms * len(raw.HISTOGRAM_COLUMNS)
    return len(raw.COLUMNS) + counted + store.channels


def stacked(store: Receiving, received: Sequence[tuple[np.ndarray, int]]) -> np.ndarray:
    """What a store has received.

    Args:
        store: The store.
        received: For each tensor an array, and where its numbers begin there.

    Returns:
        Array `(tensors, length_of(store))`. One row of zeros if it received nothing.
    """
    length = length_of(store)
    parts = [array[start : start + length] for array, start in received]
    return np.stack(parts or [np.zeros(length, np.float32)])


def joined(store: Receiving, rows: np.ndarray, earlier: Joined | None) -> Joined:
    """Join what a store has received.

    Args:
        store: The store.
        rows: What `stacked` returned.
        earlier: What it has received before. If it does not merge, that does not count.
    """
    several = raw.finish(rows[:, : len(raw.COLUMNS)])
    return _joined(store, rows, several, earlier)


def receive(
    store: Receiving, array: Any, start: int, on_host: Callable[[Any], np.ndarray]
) -> None:
    """Let a store take what was measured of a tensor.

    Args:
        store: The store.
        array: An array on the device, which may hold other records as well.
        start: Where it begins there.
        on_host: Copies such an array to the host.
    """
    if not store.merges:
        store.received.clear()
    elif len(store.received) == MANY:
        store.earlier = present(store, on_host)
        store.received.clear()
    store.received.append((array, start))


def present(store: Receiving, on_host: Callable[[Any], np.ndarray]) -> Joined:
    """What a store has received until now, see `receive`."""
    held = [(on_host(array), start) for array, start in store.received]
    return joined(store, stacked(store, held), store.earlier)


def clear(store: Receiving) -> None:
    """Let a store forget what it has received."""
    store.received.clear()
    store.earlier = None


def finish(
    stores: Sequence[Receiving],
    each: Sequence[np.ndarray],
    earlier: Sequence[Joined | None],
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """What `protocol.Reader.finish` returns.

    Args:
        stores: The stores, at least one.
        each: What `stacked` returned for each of them.
        earlier: What each has received before.

    Returns:
        The records, `(stores, len(records.FIELDS))`; the histograms, `(stores,
        len(histogram.SLOTS))`, empty ones for stores without; and of each store which of
        its channels were active, `(channels,)`. NaN where it is not known.
    """
    # All together, because many small arrays take as long as a step.
    several = raw.finish(np.concatenate([part[:, : len(raw.COLUMNS)] for part in each]))
    ends = np.cumsum([len(part) for part in each])[:-1]
    split = np.split(several, ends)
    found = [*map(_joined, stores, each, split, earlier)]
    counted = histogram.none(len(stores))
    counting = [store.histograms for store in stores]
    if any(counting):
        columns = slice(len(raw.COLUMNS), len(raw.COLUMNS) + len(raw.HISTOGRAM_COLUMNS))
        last = [p[-1, columns] for p, does in zip(each, counting, strict=True) if does]
        counted[counting] = raw.finish_histograms(np.stack(last))
    return np.stack([one.record for one in found]), counted, [one.active for one in found]


def _joined(store, rows, several, earlier):
    """As `joined`, with the records of the rows, `(tensors, len(records.FIELDS))`."""
    flags = rows[:, length_of(store) - store.channels :]
    if not store.merges:
        return Joined(several[-1], np.max(flags, axis=0))
    if earlier is not None:
        several = [earlier.record, *several]
        flags = np.concatenate([earlier.active[np.newaxis], flags])
    # The maximum is NaN, if one is NaN.
    return Joined(functools.reduce(records.merge, several), np.max(flags, axis=0))

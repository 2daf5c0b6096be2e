"""Joins what stores have received, on the host, where records do not wait in variables."""

import functools
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from activation_monitor.analysis import histogram, raw, records


class Receiving(Protocol):
    """A store, as far as this module needs it; see `protocol.Store`."""

    histograms: bool
    merges: bool
    channels: int


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


def record(store: Receiving, rows: np.ndarray) -> np.ndarray:
    """The record of a store, `(len(records.FIELDS),)`, from what `stacked` returned."""
    return _joined(store, raw.finish(rows[:, : len(raw.COLUMNS)]))


def finish(
    stores: Sequence[Receiving], each: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """What `protocol.Reader.finish` returns.

    Args:
        stores: The stores, at least one.
        each: What `stacked` returned for each of them.

    Returns:
        The records, `(stores, len(records.FIELDS))`; the histograms, `(stores,
        len(histogram.SLOTS))`, empty ones for stores without; and of each store which of
        its channels were active, `(channels,)`. NaN where it is not known.
    """
    # All together, because many small arrays take as long as a step.
    several = raw.finish(np.concatenate([part[:, : len(raw.COLUMNS)] for part in each]))
    ends = np.cumsum([len(part) for part in each])[:-1]
    split = zip(stores, np.split(several, ends), strict=True)
    found = np.stack([_joined(store, part) for store, part in split])
    counted = histogram.none(len(stores))
    counting = [store.histograms for store in stores]
    if any(counting):
        columns = slice(len(raw.COLUMNS), len(raw.COLUMNS) + len(raw.HISTOGRAM_COLUMNS))
        last = [p[-1, columns] for p, does in zip(each, counting, strict=True) if does]
        counted[counting] = raw.finish_histograms(np.stack(last))
    active = [
        np.max(part[:, length_of(store) - store.channels :], axis=0)  # NaN, if one is NaN
        for store, part in zip(stores, each, strict=True)
    ]
    return found, counted, active


def _joined(store, several):
    """One record of several, `(tensors, len(records.FIELDS))`."""
    return functools.reduce(records.merge, several) if store.merges else several[-1]

"""The tapped tensors: which layer made each of them, and where its records wait."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import keras
import numpy as np

from activation_monitor.analysis import activity, histogram, records
from activation_monitor.analysis.snapshot import LayerInfo
from activation_monitor.analysis.updating import Updating
from activation_monitor.recording import kernels
from activation_monitor.recording.backends import backend
from activation_monitor.recording.backends.protocol import Store
from activation_monitor.recording.layers import unique_paths
from activation_monitor.recording.step_trace import Parents


class Measured(NamedTuple):
    """What a step measured: fields of a `Snapshot`."""

    layers: tuple[LayerInfo, ...]
    quantities: dict[str, np.ndarray]
    histograms: dict[str, np.ndarray]
    loss: float = math.nan
    activity: np.ndarray | None = None
    moving: np.ndarray | None = None
    updating: Updating | None = None


def unscaled(found: Measured, scale: float) -> Measured:
    """What was measured, with gradients divided by the factor that the loss had.

    Args:
        found: What was measured.
        scale: The factor, positive.
    """
    if scale == 1 or not scale > 0:  # a scale that was halved to zero
        return found
    of = {records.OUTPUT_GRADIENT, records.WEIGHT_GRADIENT}
    quantities, histograms = (
        arrays | {name: scaled(arrays[name], 1 / scale) for name in of & arrays.keys()}
        for arrays, scaled in (
            (found.quantities, records.scaled),
            (found.histograms, histogram.scaled),
        )
    )
    return found._replace(quantities=quantities, histograms=histograms)


@dataclass
class Row:
    """One tapped tensor."""

    layer: keras.Layer
    call: int
    part: str  # "" for the only output, ":0" or ":key" for one of several, ":input"
    kind: str = "other"
    activation: str = "linear"
    width: int = 1
    fan_in: float = 0.0
    dtype: str = ""
    parents: Parents = Parents((), True, False)
    stores: dict[str, Store] = field(default_factory=dict)  # by quantity

    @property
    def key(self) -> tuple[int, int, str]:
        """Identifies the tensor in every trace of the step."""
        return id(self.layer), self.call, self.part


class Table:
    """The tapped tensors of all traces of a step, in the order in which they were found.

    Args:
        models: The models, which name the layers.
        histograms: Whether to count histograms.
    """

    def __init__(self, models: tuple[keras.Model, ...], histograms: bool):
        self.rows: list[Row] = []
        self._models = models
        self._histograms = histograms
        self._index: dict[tuple, int] = {}
        self._reader = None
        self._layers = None  # until the step's Python code runs again
        self._changed = set()
        self._recurrent: dict[int, kernels.Recurrent] = {}  # as first known
        self._activity: dict[int, activity.Activity] = {}  # by index

    def note_weights(self, layers: list[keras.Layer]) -> None:
        """Note what shows only before training: which layers' weights have left their
        initial values, and the kernels of recurrent layers."""
        self._changed = {id(layer) for layer in layers if _is_changed(layer)}
        self._recurrent = {}
        for layer in layers:
            if layer.built:
                self._note_recurrent(layer)

    def _note_recurrent(self, layer):
        if id(layer) not in self._recurrent:
            self._recurrent[id(layer)] = _recurrent(layer)
        return self._recurrent[id(layer)]

    def _recurrent_of(self, row):
        # The states of a layer are outputs of their own, of another size.
        is_sequence = row.kind == "weight" and row.part in ("", ":0")
        return self._note_recurrent(row.layer) if is_sequence else _NONE

    def begin_trace(self) -> None:
        """Before the step's Python code runs: what is known of the rows may change."""
        self._layers = None

    def index(self, layer: keras.Layer, call: int, part: str) -> int:
        """The index of a row, which is added if it is new."""
        row = Row(layer, call, part)
        if row.key not in self._index:
            self._index[row.key] = len(self.rows)
            self.rows.append(row)
        return self._index[row.key]

    def find(self, layer: keras.Layer, call: int, part: str) -> int | None:
        """The index of a row; None if there is none."""
        return self._index.get((id(layer), call, part))

    def drop_last(self) -> None:
        """Remove the last row, which could not be measured."""
        del self._index[self.rows.pop().key]
        self._reader = None

    def store(
        self, index: int, quantity: str, merges: bool = False, channels: int = 0
    ) -> Store:
        """The store of a quantity of a row, which is made if it is new.

        Args:
            index: The index of the row.
            quantity: A name from `records.QUANTITIES`.
            merges: Whether several tensors are measured before `read`. Defaults to
                `False`.
            channels: The number of channels whose activity is measured, if it is new.
                Defaults to `0`.
        """
        stores = self.rows[index].stores
        if quantity in stores:
            channels = stores[quantity].channels
        if quantity not in stores or (merges and not stores[quantity].merges):
            stores[quantity] = backend.Store(
                histograms=self._histograms, merges=merges, channels=channels
            )
            self._reader = None
        return stores[quantity]

    def spread(
        self,
        by_layer: dict[int, np.ndarray],
        nothing: Callable[[int], np.ndarray] = records.empty,
    ) -> np.ndarray:
        """The records of weights as an array `(rows, len(records.FIELDS))`.

        Args:
            by_layer: The records of kernels, or their histograms, by id of the layer.
            nothing: Makes the array for so many rows without records. Defaults to
                `records.empty`.
        """
        found = nothing(len(self.rows))
        for record, row in zip(found, self.rows, strict=True):
            if row.kind == "weight":
                record[:] = by_layer.get(id(row.layer), record)
        return found

    def calls(self, outputs: np.ndarray) -> dict[int, tuple[int, float]]:
        """By id of each layer that the last step called: how often, and the rms of its
        output.

        Args:
            outputs: The records of the outputs, as `read` returned them.

        Returns:
            The number of calls, 0 if it is not known because some are in a loop, and the
            rms.
        """
        found: dict[int, tuple[int, float]] = {}
        rms = records.STATISTICS["rms"](outputs)
        counts = records.field(outputs, "count")
        for row, size, count in zip(self.rows, rms, counts, strict=True):
            if row.kind == "input" or not count:
                continue
            calls, _ = found.get(id(row.layer), (0, 0.0))
            looped = (calls == 0 and id(row.layer) in found) or not row.parents.traced
            found[id(row.layer)] = 0 if looped else calls + 1, float(size)
        return found

    def of_layers(self, by_layer: dict[int, np.ndarray]) -> np.ndarray | None:
        """Arrays of the same length, by id of a layer, in all rows of its outputs.

        Returns:
            An array with one row for each row, NaN where there is none; None if there is
            no array.
        """
        if not by_layer:
            return None
        nothing = np.full(len(next(iter(by_layer.values()))), np.nan)
        return np.stack(
            [
                nothing if row.kind == "input" else by_layer.get(id(row.layer), nothing)
                for row in self.rows
            ]
        )

    def clear(self) -> None:
        """Empty all stores, after a step that was interrupted."""
        for row in self.rows:
            for store in row.stores.values():
                store.clear()

    def collect(self) -> Callable[[bool], Measured]:
        """Take what the last step measured, and empty the stores. Nothing is copied yet.

        Returns:
            A function that copies it to the host, all at once. Its argument says whether
            the step counts for the activity of units, which only steps do that are read in
            their order. It returns layers, records and histograms by quantity, with empty
            records for tensors that do not have the quantity. No layers if none was called.
        """
        if not self.rows:
            return lambda counts_units: Measured((), {}, {})
        places = [
            (quantity, row, store)
            for row, entry in enumerate(self.rows)
            for quantity, store in entry.stores.items()
        ]
        if self._reader is None:
            self._reader = backend.Reader([store for _, _, store in places])
        if self._layers is None:
            self._layers = self._infos()
        reader, layers = self._reader, self._layers
        collected = reader.collect()

        def copied(counts_units):
            found, counted, active = reader.finish(collected)
            quantities, histograms = {}, {}
            for quantity in records.QUANTITIES:
                here = [i for i, (name, _, _) in enumerate(places) if name == quantity]
                if here:
                    rows = [places[i][1] for i in here]
                    quantities[quantity] = records.empty(len(layers))
                    quantities[quantity][rows] = found[here]
                    if self._histograms:
                        histograms[quantity] = histogram.none(len(layers))
                        histograms[quantity][rows] = counted[here]
            if not counts_units:
                return Measured(layers, quantities, histograms)
            of_units = self._count_active(
                (row, active[i], records.field(found[i], "samples"))
                for i, (_, row, store) in enumerate(places)
                if store.channels
            )
            return Measured(layers, quantities, histograms, activity=of_units)

        return copied

    def _count_active(self, measured):
        """The activity of all rows, `(rows, len(activity.FIELDS))`; None if none has any.

        Args:
            measured: Row, activity of its channels and number of samples.
        """
        of_units = np.full((len(self.rows), len(activity.FIELDS)), np.nan)
        for row, active, samples in measured:
            known = activity.after(self._activity.get(row), active, float(samples))
            self._activity[row] = known
            of_units[row] = activity.row(known)
        return None if np.isnan(of_units).all() else of_units

    def _infos(self):
        paths = unique_paths(*self._models)
        several = {id(row.layer) for row in self.rows if row.call > 0}
        return tuple(
            LayerInfo(
                name=paths[id(row.layer)]
                + (f"/{row.call}" if id(row.layer) in several else "")
                + row.part,
                class_name=type(row.layer).__name__,
                kind=row.kind,
                activation=row.activation,
                width=row.width,
                fan_in=row.fan_in,
                initializer=kernels.initializer(row.layer) if row.kind == "weight" else "",
                dtype=row.dtype,
                parents=row.parents.rows,
                traced=row.parents.traced,
                normalized=row.parents.normalized,
                changed=row.kind != "input" and id(row.layer) in self._changed,
                trainable=row.kind == "input" or bool(row.layer.trainable),
                **self._recurrent_of(row)._asdict(),
            )
            for row in self.rows
        )


_NONE = kernels.Recurrent()


def _recurrent(layer):
    try:
        return kernels.recurrent(layer)
    except Exception:  # a cell with kernels of another kind, quantized for example
        return _NONE


def _is_changed(layer):
    try:
        return kernels.is_changed(layer)
    except Exception:  # a layer of the user's own with names like ours
        return False

"""The record of all forward passes of one layer, training and inference kept apart."""

import warnings
from typing import NamedTuple

import keras
import numpy as np

from activation_monitor.analysis import records
from activation_monitor.recording.backends import backend
from activation_monitor.recording.backends.protocol import Store
from activation_monitor.recording.keras_private import mask_of
from activation_monitor.recording.layers import (
    activation_name,
    channel_axis,
    is_float_tensor,
)


class _Stores(NamedTuple):
    """Where the records of one output wait."""

    inference: Store
    training: Store


class _Leaf:
    """Of the layer's outputs, one: its stores, None if it is not measured.

    No container, so that `keras.tree` takes it for a leaf.
    """

    def __init__(self, stores: _Stores | None):
        self.stores = stores


class LayerRecord:
    """Measures what a layer puts out, into variables that no layer owns.

    Args:
        layer: The layer.
    """

    def __init__(self, layer: keras.Layer):
        self._layer = layer
        self._stores: dict[tuple, _Stores] = {}  # by path in the outputs
        self._outputs = None  # the structure of the last outputs, of leaves
        self._told = set()

    @property
    def seen(self) -> bool:
        """Whether there was a pass."""
        return self._outputs is not None

    def put(self, outputs, training: bool, measured: dict[int, object]) -> None:
        """Measure the outputs of the pass that is running, in the graph.

        What cannot be measured is left out, with one warning if it is floating-point.

        Args:
            outputs: What the layer has put out: a tensor or a structure of them.
            training: Whether it is a training pass.
            measured: Records of this pass that exist already, by id of tensor.
        """
        leaves = []
        for path, value in keras.tree.flatten_with_path(outputs):
            stores = None
            try:
                if is_float_tensor(value):
                    stores = self._put(path, value, training, measured.get(id(value)))
                elif _is_float(value):
                    raise TypeError(f"{type(value).__name__} is no dense tensor")
            except Exception as error:  # must not end training
                self._warn_once(path, error)
            leaves.append(_Leaf(stores))
        self._outputs = keras.tree.pack_sequence_as(outputs, leaves)

    def _put(self, path, tensor, training, record):
        if path not in self._stores:
            self._stores[path] = _Stores(backend.Store(False), backend.Store(False))
        stores = self._stores[path]
        store = stores.training if training else stores.inference
        if record is None:
            # The exact look needs no second one and has no branches, for any compiler.
            store.put(
                tensor,
                exact=True,
                fused=False,
                channel_axis=channel_axis(self._layer, tensor),
                unsaturated=records.SATURATED.get(activation_name(self._layer)),
                mask=mask_of(tensor),
            )
        else:
            store.merge(record)
        return stores

    def _warn_once(self, path, error):
        if path not in self._told:
            self._told.add(path)
            which = f"output {'.'.join(map(str, path))} of " if path else ""
            warnings.warn(
                f"Monitored: {which}{self._layer.path or self._layer.name!r} cannot be "
                f"measured, it is left out: {type(error).__name__}: {error}",
                stacklevel=2,
            )

    def clear(self) -> None:
        """Empty the record."""
        for stores in self._stores.values():
            for store in stores:
                store.clear()

    def statistics(self, training: bool):
        """What was seen: for each output a dict of floats, None where nothing is measured.

        Of the same structure as the outputs of the last pass.
        """

        def of(leaf):
            if leaf.stores is None:
                return None
            store = leaf.stores.training if training else leaf.stores.inference
            return _named(store.read())

        return keras.tree.map_structure(of, self._outputs)


def _named(record: np.ndarray) -> dict[str, float]:
    statistics = {name: float(of(record)) for name, of in records.STATISTICS.items()}
    return {"count": float(records.field(record, "count")), **statistics}


def _is_float(value):
    try:
        return keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype))
    except Exception:  # no tensor, or of a dtype that Keras does not know
        return False

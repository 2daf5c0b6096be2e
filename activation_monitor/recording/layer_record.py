"""The record of all forward passes of one layer, separate for training and inference."""

import warnings
from typing import Any, NamedTuple

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
    """The stores of one output."""

    inference: Store
    training: Store


class _Leaf:
    """One output of the layer: its stores, or None if it is not measured.

    Not a container type, so that `keras.tree` treats it as a leaf.
    """

    def __init__(self, stores: _Stores | None):
        self.stores = stores


class LayerRecord:
    """Measures the outputs of a layer. No layer owns the variables of the record.

    Args:
        layer: The layer.
    """

    def __init__(self, layer: keras.Layer):
        self._layer = layer
        self._stores: dict[tuple, _Stores] = {}  # by path in the outputs
        self._outputs = None  # the structure of the last outputs, with `_Leaf` objects
        self._warned = set()

    @property
    def seen(self) -> bool:
        """Whether the layer has been called."""
        return self._outputs is not None

    def put(self, outputs: Any, training: bool, measured: dict[int, object]) -> None:
        """Measure the outputs of the running pass, in the graph.

        An output that cannot be measured is left out. A floating-point output that is
        left out gives one warning.

        Args:
            outputs: The outputs of the layer: a tensor or a structure of tensors.
            training: Whether this is a training pass.
            measured: Records of this pass that exist already, by `id` of the tensor.
        """
        leaves = []
        for path, value in keras.tree.flatten_with_path(outputs):
            stores = None
            try:
                if is_float_tensor(value):
                    stores = self._put(path, value, training, measured.get(id(value)))
                elif _is_float(value):
                    raise TypeError(f"{type(value).__name__} is not a dense tensor")
            except Exception as error:  # a failed measurement must not end training
                self._warn_once(path, error)
            leaves.append(_Leaf(stores))
        self._outputs = keras.tree.pack_sequence_as(outputs, leaves)

    def _put(self, path, tensor, training, record):
        if path not in self._stores:
            self._stores[path] = _Stores(backend.Store(False), backend.Store(False))
        stores = self._stores[path]
        store = stores.training if training else stores.inference
        if record is None:
            # The exact pass never needs a second pass. It has no branches, so every
            # compiler accepts it.
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
        if path not in self._warned:
            self._warned.add(path)
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

    def statistics(self, training: bool) -> Any:
        """The statistics of all passes of one kind.

        Args:
            training: Whether to take the training passes or the inference passes.

        Returns:
            The structure of the last outputs, with a dict of floats for each measured
            output and None for the others.
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
    except Exception:  # not a tensor, or a dtype that Keras does not know
        return False

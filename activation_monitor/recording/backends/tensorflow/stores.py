"""Variables that hold records until the host reads them, and functions that measure."""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from activation_monitor.analysis import histogram, records
from activation_monitor.recording import measure


@functools.cache
def _measuring(
    dtype: str,
    rank: int,
    *,
    exact: bool,
    fused: bool,
    histograms: bool,
    channel_axis: int = -1,
    unsaturated: tuple[float, float] | None = None,
    masked: int = 0,
):
    """A function that measures a tensor into a record, and into a histogram if wanted.

    There is one function per kind of tensor. It is traced once for all taps.

    TensorFlow keeps the call in the graph (`_noinline`) because two hundred inlined copies
    delay the first step of a large network: ResNet50 needs 3 times the plain first step
    with inlined copies, and 2 times with calls. XLA inlines the function regardless.

    `masked` is the rank of the mask, which is a further argument; 0 without a mask.
    """

    def measuring(record, tensor, mask=None):
        rows = measure.as_rows(tensor)
        grid = measure.grid(tensor, channel_axis) if rank > 2 else None
        if mask is not None:
            mask = measure.padding(mask, tensor)
        record = measure.accumulate(
            *(record, rows),
            grid=grid,
            unsaturated=unsaturated,
            mask=mask,
            exact=exact,
            fused=fused,
        )
        if not histograms:
            return (record,)
        if mask is not None:
            rows = tf.where(mask, rows, tf.constant(np.nan, rows.dtype))
        return record, measure.histogram(rows)

    signature = [
        tf.TensorSpec([len(records.FIELDS)], tf.float64),
        tf.TensorSpec([None] * rank, dtype),
    ]
    if masked:
        signature.append(tf.TensorSpec([None] * masked, tf.bool))
    return tf.function(
        measuring,
        input_signature=signature,
        autograph=False,
        experimental_attributes={"_noinline": True},
    ).get_concrete_function()


def measure_once(x: Any, *, exact: bool, jit_compile: bool = False) -> np.ndarray:
    """Measure an array as a training step would.

    Args:
        x: Array, tensor or variable of any shape and floating-point dtype.
        exact: Whether to take the exact pass, see `measure`.
        jit_compile: Whether to compile the measurement with XLA. Defaults to `False`.

    Returns:
        The record, `(len(records.FIELDS),)`.
    """
    tensor = tf.convert_to_tensor(x)
    kind = tensor.dtype.name, len(tensor.shape)
    measuring = _measuring(*kind, exact=exact, fused=jit_compile, histograms=False)
    arguments = tf.constant(records.empty()), tensor
    if jit_compile:
        run = tf.function(measuring, autograph=False, jit_compile=True)
        # TensorFlow would count a trace that a call makes, see `steps.uncounted`.
        measuring = run.get_concrete_function(*arguments)
    return measuring(*arguments)[0].numpy()


def _variable(value):
    # The variable is created outside the function that is being traced. It is not
    # "lifted" out of the function, because TensorFlow would then trace the whole training
    # step twice. Each replica has its own value.
    with tf.init_scope():
        return tf.Variable(
            value,
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.NONE,
            experimental_enable_variable_lifting=False,
        )


def _by_replica(variable):
    """The component variables of a variable, one for each replica."""
    return getattr(variable, "values", (variable,))


class Store:
    """Holds the record of one tensor until the host reads it. No layer owns the variables.

    Args:
        histograms: Whether to count a histogram as well.
        first_only: Whether to keep only the record of the first tensor and of the first
            replica, for example for a kernel. If `False`, the records of all tensors and
            all replicas are merged. Defaults to `False`.
    """

    def __init__(self, histograms: bool, first_only: bool = False):
        self.record = _variable(records.empty())
        self.histogram = _variable(histogram.none()) if histograms else None
        self.first_only = first_only

    def put(
        self,
        tensor: tf.Tensor,
        *,
        exact: bool,
        fused: bool,
        channel_axis: int = -1,
        unsaturated: tuple[float, float] | None = None,
        mask: tf.Tensor | None = None,
        alone: bool = False,
    ) -> tf.Tensor:
        """Measure a tensor of the running step into this store, in the graph.

        Args:
            tensor: A dense floating-point tensor.
            exact: Whether to take the exact pass, see `measure`.
            fused: Whether XLA compiles the step.
            channel_axis: The channel axis, 1 or -1. Defaults to `-1`.
            unsaturated: The limits from `records.SATURATED`. Defaults to `None`: the
                activation function has no limits.
            mask: Boolean mask of the leading axes, False for padding. Defaults to `None`.
            alone: Whether to return the record of this tensor only. Defaults to `False`.

        Returns:
            The record of all tensors that the store has measured, or of this tensor if
            `alone` is `True`. Shape `(len(records.FIELDS),)`.
        """
        histograms = self.histogram is not None
        measuring = _measuring(
            tensor.dtype.name,
            len(tensor.shape),
            exact=exact,
            fused=fused,
            histograms=histograms,
            channel_axis=channel_axis,
            unsaturated=unsaturated,
            masked=0 if mask is None else len(mask.shape),
        )
        known = self.record.read_value()
        before = tf.constant(records.empty()) if alone or self.first_only else known
        arguments = [tf.stop_gradient(tensor)] + ([] if mask is None else [mask])
        seen = measuring(before, *arguments)
        if self.first_only:
            self.record.assign(tf.where(records.field(known, "count") > 0, known, seen[0]))
        elif alone:
            self.merge(seen[0])
        else:
            self.record.assign(seen[0])
        if self.histogram is not None:
            self.histogram.assign(seen[1])
        return seen[0]

    def merge(self, record: tf.Tensor) -> None:
        """Merge the record of another tensor of the running step, in the graph.

        Args:
            record: The record, `(len(records.FIELDS),)`.
        """
        self.record.assign(records.merge(self.record.read_value(), record, xp=keras.ops))

    def read(self) -> np.ndarray:
        """The record of all replicas, `(len(records.FIELDS),)`, as a numpy array."""
        return self.joined(np.stack([v.numpy() for v in _by_replica(self.record)]))

    def joined(self, by_replica: np.ndarray) -> np.ndarray:
        """Join the records of the replicas.

        Args:
            by_replica: The records, `(replicas, len(records.FIELDS))`.

        Returns:
            One record, `(len(records.FIELDS),)`.
        """
        if self.first_only:
            return by_replica[0]
        return functools.reduce(records.merge, by_replica)

    def clear(self) -> None:
        """Empty the store."""
        kinds = [(self.record, records.empty())]
        if self.histogram is not None:
            kinds.append((self.histogram, histogram.none()))
        for variable, empty in kinds:
            for value in _by_replica(variable):
                value.assign(empty)


class Reader:
    """Reads many stores with one copy to the host and empties them.

    Args:
        stores: The stores to read.
    """

    def __init__(self, stores: list[Store]):
        self.stores = tuple(stores)
        self._read = tf.function(self._read_all, autograph=False).get_concrete_function()

    def _read_all(self):
        kinds = [[store.record for store in self.stores]]
        histograms = [s.histogram for s in self.stores if s.histogram is not None]
        if histograms:
            kinds.append(histograms)
        columns = []
        for variables in kinds:
            by_replica = zip(*map(_by_replica, variables), strict=True)
            stacked = tf.stack([tf.stack(replica) for replica in by_replica])
            columns.append(tf.reshape(stacked, [tf.shape(stacked)[0], -1]))
        columns = tf.concat(columns, axis=-1)
        with tf.control_dependencies([columns]):
            for store in self.stores:
                store.clear()
        return columns

    def _copy(self):
        return self._read().numpy()

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Read and empty the stores.

        Returns:
            The records, `(stores, len(records.FIELDS))`, joined over replicas; and the
            histograms of the first replica, `(stores, len(histogram.SLOTS))`. Stores
            without a histogram have an empty one.
        """
        columns = self._copy()
        replicas, count = len(columns), len(self.stores) * len(records.FIELDS)
        shape = replicas, len(self.stores), len(records.FIELDS)
        by_store = columns[:, :count].reshape(shape).swapaxes(0, 1)
        pairs = zip(self.stores, by_store, strict=True)
        found = np.stack([store.joined(replicas) for store, replicas in pairs])
        counted = histogram.none(len(self.stores))
        counting = [store.histogram is not None for store in self.stores]
        if any(counting):
            counted[counting] = columns[0, count:].reshape(-1, len(histogram.SLOTS))
        return found, counted

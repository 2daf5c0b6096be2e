"""Where records wait until the host reads them, and the functions that measure tensors."""

import functools

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
    """Measures a tensor into a record, and a histogram if wanted: one function per kind
    of tensor, traced once for all taps.

    In a graph it stays a call (`_noinline`): inlined two hundred times it would make the
    first step of a large network wait (ResNet50: 3 times the plain first step inlined,
    2 times as calls). XLA inlines it all the same.

    `masked` is the rank of the mask that it takes as a further argument; 0 for none.
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


def measure_once(x, *, exact: bool, jit_compile: bool = False) -> np.ndarray:
    """The record of an array, measured as in the training step.

    Args:
        x: Array, tensor or variable of any shape and floating-point dtype.
        exact: Whether to take the exact pass.
        jit_compile: Whether to compile it with XLA. Defaults to `False`.
    """
    tensor = tf.convert_to_tensor(x)
    kind = tensor.dtype.name, len(tensor.shape)
    measuring = _measuring(*kind, exact=exact, fused=jit_compile, histograms=False)
    arguments = tf.constant(records.empty()), tensor
    if jit_compile:
        run = tf.function(measuring, autograph=False, jit_compile=True)
        # Traced by a call, TensorFlow would count it, see `steps.uncounted`.
        measuring = run.get_concrete_function(*arguments)
    return measuring(*arguments)[0].numpy()


def _variable(value):
    # Made outside the function being traced; and not "lifted" out of it, which would
    # make TensorFlow trace the whole training step a second time. Each replica has a
    # value of its own.
    with tf.init_scope():
        return tf.Variable(
            value,
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.NONE,
            experimental_enable_variable_lifting=False,
        )


def _by_replica(variable):
    """The variables that hold a variable's values, one for each replica."""
    return getattr(variable, "values", (variable,))


class Store:
    """Where the record of one tensor waits until the host reads it. No layer owns it.

    Args:
        histograms: Whether to count histograms as well.
        first_only: Whether the first tensor is kept and later ones are dropped, as for a
            kernel. Otherwise they are merged, and so are those of all replicas. Defaults
            to `False`.
    """

    def __init__(self, histograms: bool, first_only: bool = False):
        self.record = _variable(records.empty())
        self.histogram = _variable(histogram.none()) if histograms else None
        self.first_only = first_only

    def put(
        self,
        tensor,
        *,
        exact: bool,
        fused: bool,
        channel_axis: int = -1,
        unsaturated: tuple[float, float] | None = None,
        mask=None,
        alone: bool = False,
    ):
        """Measure a tensor of the running step into this store, in the graph.

        Args:
            tensor: A dense floating-point tensor.
            exact: Whether to take the exact pass, see `measure`.
            fused: Whether XLA compiles the step.
            channel_axis: Where the channels are, 1 or -1. Defaults to `-1`.
            unsaturated: From `records.SATURATED`. Defaults to `None`: the activation
                function has no limits.
            mask: Mask of leading axes. Defaults to `None`.
            alone: Whether to return the record of this tensor alone. Defaults to `False`.

        Returns:
            The record of all tensors that the store has seen; with `alone`, of this one.
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
        if histograms:
            self.histogram.assign(seen[1])
        return seen[0]

    def merge(self, record) -> None:
        """Merge the record of another tensor of the running step, in the graph."""
        self.record.assign(records.merge(self.record.read_value(), record, xp=keras.ops))

    def read(self) -> np.ndarray:
        """The record on the host, of all replicas together, `(len(FIELDS),)`."""
        return self.joined(np.stack([v.numpy() for v in _by_replica(self.record)]))

    def joined(self, by_replica: np.ndarray) -> np.ndarray:
        """One record from those of the replicas, `(replicas, len(FIELDS))`."""
        if self.first_only:
            return by_replica[0]
        return functools.reduce(records.merge, by_replica)

    def clear(self) -> None:
        """Empty it."""
        kinds = [(self.record, records.empty())]
        if self.histogram is not None:
            kinds.append((self.histogram, histogram.none()))
        for variable, empty in kinds:
            for value in _by_replica(variable):
                value.assign(empty)


class Reader:
    """Reads many stores as one tensor, with one copy to the host, and empties them.

    Args:
        stores: The stores.
    """

    def __init__(self, stores: list[Store]):
        self.stores = tuple(stores)
        self._counting = [s for s in self.stores if s.histogram is not None]
        self._read = tf.function(self._read_all, autograph=False).get_concrete_function()

    def _read_all(self):
        kinds = [[store.record for store in self.stores]]
        if self._counting:
            kinds.append([store.histogram for store in self._counting])
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
        """What the stores hold.

        Returns:
            Records, `(stores, len(FIELDS))`, those of the replicas merged; and histograms
            of the first replica, `(stores, len(SLOTS))`, empty ones for stores that count
            none.
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

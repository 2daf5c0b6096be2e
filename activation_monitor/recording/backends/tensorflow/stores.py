"""Variables that hold records until the host reads them, and functions that measure."""

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from activation_monitor.analysis import histogram, raw, records
from activation_monitor.recording import measure, moments
from activation_monitor.recording.backends.tensorflow import graphs


@functools.cache
def _measuring(
    dtype: str,
    rank: int,
    *,
    exact: bool,
    fused: bool,
    histograms: bool,
    activity: bool = False,
    channel_axis: int = -1,
    unsaturated: tuple[float, float] | None = None,
    masked: int = 0,
):
    """A function that measures a tensor, see `measure.measure`.

    There is one function per kind of tensor. It is traced once for all taps.

    `masked` is the rank of the mask, which is a further argument; 0 without a mask.
    """

    def measuring(tensor, mask=None):
        return measure.measure(
            tensor,
            channel_axis=channel_axis,
            unsaturated=unsaturated,
            mask=mask,
            exact=exact,
            histograms=histograms,
            activity=activity,
            primitives=None if fused else _GRAPH,
        )

    signature = [tf.TensorSpec([None] * rank, dtype)]
    if masked:
        signature.append(tf.TensorSpec([None] * masked, tf.bool))
    return _kept(measuring, signature)


def on_host(tensor: Any) -> np.ndarray:
    """A copy of an array, of a tensor that exists, or of the value of a variable."""
    return tf.convert_to_tensor(tensor).numpy().copy()


def measured_each(tensors: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """The raw records of several tensors, in the graph, see `measure.measure_each`."""
    return measure.measure_each(tensors, primitives=_GRAPH)


def counted_each(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """The raw histograms of several tensors, in the graph, see `measure.count_each`."""
    return measure.count_each(tensors)


_GRAPH = moments.Primitives(
    # One read and no copy.
    sum_of_squares=lambda x: 2.0 * tf.nn.l2_loss(x),
    # TensorFlow makes a graph of the function when it first runs.
    rarely=lambda function, *tensors: _kept_for(
        function, tuple((tensor.dtype.name, len(tensor.shape)) for tensor in tensors)
    )(*tensors),
)


def _apart(measuring, arguments, shape):
    """Call a function where XLA does not fuse it with the step.

    Fused with what is measured, the step itself may be rounded differently (seen with
    TensorFlow 2.19). XLA does not move code into a branch, and cannot know that this one is
    always taken.
    """
    first = tf.reshape(arguments[0], [-1])[:1]
    always = tf.reduce_all((first == first) | (first != first))
    return tf.cond(always, lambda: measuring(*arguments), lambda: tf.zeros(shape))


@functools.cache
def _merging():
    """A function that merges a raw record into a record."""

    def merging(record, raw_record):
        return records.merge(record, raw.finish(raw_record, xp=keras.ops), xp=keras.ops)

    shapes = (len(records.FIELDS), tf.float64), (len(raw.COLUMNS), tf.float32)
    return _kept(merging, [tf.TensorSpec([length], dtype) for length, dtype in shapes])


@functools.cache
def _kept_for(function, kinds):
    """As `_kept`, for tensors of these pairs of dtype and rank."""
    return _kept(function, [tf.TensorSpec([None] * rank, dtype) for dtype, rank in kinds])


def _kept(function, arguments):
    """A function that is traced now for such arguments, and called in the graphs of others.

    TensorFlow keeps the call in the graph (`_noinline`) because two hundred inlined copies
    delay the first step of a large network: ResNet50 needs 3 times the plain first step
    with inlined copies, and 2 times with calls. XLA inlines the function regardless.
    """
    return tf.function(
        function, autograph=False, experimental_attributes={"_noinline": True}
    ).get_concrete_function(*arguments)


def _to_measure(tensor):
    """The tensor; or the same values computed once more, if to read it would change the
    step, see `graphs.REORDERED`."""
    if tf.executing_eagerly() or not tf.is_symbolic_tensor(tensor):
        return tensor
    op: Any = tensor.op
    if op.type not in graphs.REORDERED or op.graph is not graphs.graph():
        return tensor
    # What nothing but this operation reads must not be read either.
    *others, last = [
        one if len(one.consumers()) > 1 else _to_measure(one) for one in op.inputs
    ]
    # The maximum is the input itself. TensorFlow does not know that, and joins operations
    # whose inputs are equal.
    return graphs.REORDERED[op.type](*others, tf.maximum(last, -np.inf))


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
    if jit_compile:
        run = tf.function(measuring, autograph=False, jit_compile=True)
        # TensorFlow would count a trace that a call makes, see `steps.uncounted`.
        measuring = run.get_concrete_function(tensor)
    return raw.finish(measuring(tensor).numpy())


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
        merges: Whether several tensors may be measured before the host reads: their
            records are merged, and the histogram is that of the last one. If `False`, the
            record is that of the last one, which costs less. Defaults to `True`.
        channels: The number of channels whose activity is measured. Of several tensors, a
            channel is active if it is in any. Defaults to `0`.

    Attributes:
        length: The length of what is measured of a tensor.
        last: The variable with the raw record of the last tensor, and what is wanted of the
            raw histogram and the activity of the channels, see `measure.measure`.
        merged: The variable with the record of all tensors; None if they are not merged.
    """

    def __init__(self, histograms: bool, merges: bool = True, channels: int = 0):
        self.merges = merges
        self.histograms = histograms
        self.channels = channels
        self._measured = len(raw.COLUMNS) + histograms * len(raw.HISTOGRAM_COLUMNS)
        self.length = self._measured + channels
        self.last = _variable(np.zeros(self.length, np.float32))
        self.merged = None
        if merges:
            self.merged = _variable(records.empty())

    def put(
        self,
        tensor: tf.Tensor,
        *,
        exact: bool,
        fused: bool,
        channel_axis: int = -1,
        unsaturated: tuple[float, float] | None = None,
        mask: tf.Tensor | None = None,
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

        Returns:
            The raw record of this tensor, `(len(raw.COLUMNS),)`.
        """
        # In another trace the layer may output another number of channels.
        fits = (
            self.channels > 0 and measure.channels_of(tensor, channel_axis) == self.channels
        )
        measuring = _measuring(
            tensor.dtype.name,
            len(tensor.shape),
            exact=exact,
            fused=fused,
            histograms=self.histograms,
            activity=fits,
            channel_axis=channel_axis,
            unsaturated=unsaturated,
            masked=0 if mask is None else len(mask.shape),
        )
        measured = tensor if fused else _to_measure(tensor)
        arguments = [tf.stop_gradient(measured)] + ([] if mask is None else [mask])
        if fused:
            length = self.length if fits else self._measured
            found = _apart(measuring, arguments, [length])
        else:
            found = measuring(*arguments)
        record = found[: len(raw.COLUMNS)] if self.length > len(raw.COLUMNS) else found
        if self.channels and not fits:
            found = tf.concat([found, tf.fill([self.channels], np.float32(np.nan))], axis=0)
        if self.merged is not None:
            self.merge(record)
            if self.channels:
                known = self.last.read_value()[self._measured :]
                active = tf.maximum(found[self._measured :], known)
                found = tf.concat([found[: self._measured], active], axis=0)
        self.last.assign(found)
        return record

    def merge(self, record: tf.Tensor) -> None:
        """Merge the record of another tensor of the running step, in the graph.

        Args:
            record: The raw record, `(len(raw.COLUMNS),)`. The store must merge.
        """
        merged: Any = self.merged
        merged.assign(_merging()(merged.read_value(), record))

    def read(self) -> np.ndarray:
        """The record of all replicas, `(len(records.FIELDS),)`, as a numpy array."""
        kept = self.last if self.merged is None else self.merged
        found = np.stack([v.numpy() for v in _by_replica(kept)])
        return self.joined(found if self.merged is not None else raw.finish(found))

    def joined(self, by_replica: np.ndarray) -> np.ndarray:
        """Join the records of the replicas.

        Args:
            by_replica: The records, `(replicas, len(records.FIELDS))`.

        Returns:
            One record, `(len(records.FIELDS),)`.
        """
        return functools.reduce(records.merge, by_replica)

    def clear(self) -> None:
        """Empty the store."""
        for value in _by_replica(self.last):
            value.assign(np.zeros(self.length, np.float32))
        if self.merged is not None:
            for value in _by_replica(self.merged):
                value.assign(records.empty())


def _known(tensor) -> Any:
    """A shape, which type checkers take for one with unknown lengths."""
    return tensor.shape


class Kept:
    """Holds tensors of a step until the host takes them, as they are."""

    def __init__(self):
        self._variables = None

    def put(self, tensors: Sequence[tf.Tensor]) -> None:
        """Keep tensors of the running step, in the graph.

        Args:
            tensors: As many as before, of the same known shapes.
        """
        if self._variables is None:
            zeros = [np.zeros(_known(tensor), tensor.dtype.name) for tensor in tensors]
            self._variables = [_variable(False), *map(_variable, zeros)]
        flag, *variables = self._variables
        for variable, tensor in zip(variables, tensors, strict=True):
            variable.assign(tensor)
        flag.assign(True)

    def take(self) -> list[list[tf.Tensor]] | None:
        """What each replica has kept, valid until the next step; None if nothing was."""
        if self._variables is None:
            return None
        by_replica = _by_replica_of(self._variables)
        if not by_replica[0][0].numpy():
            return None
        for flag in _by_replica(self._variables[0]):
            flag.assign(False)
        return [list(values[1:]) for values in by_replica]


class Reader:
    """Reads many stores with one copy to the host and empties them.

    Args:
        stores: The stores to read.
    """

    def __init__(self, stores: list[Store]):
        self.stores = tuple(stores)
        self._read = tf.function(self._read_all, autograph=False).get_concrete_function()
        starts = np.cumsum([0, *(store.length for store in stores)])[:-1, None]
        counting = [store.histograms for store in stores]
        self._channels = [(store.length - store.channels, store.length) for store in stores]
        self._channels = starts + np.array(self._channels)
        self._record_columns = starts + np.arange(len(raw.COLUMNS))
        self._histogram_columns = (
            starts[counting] + len(raw.COLUMNS) + np.arange(len(raw.HISTOGRAM_COLUMNS))
        )

    def _read_all(self):
        """By replica: all that was measured last, and all that was merged."""
        last = _by_replica_of([store.last for store in self.stores])
        last = tf.stack([tf.concat(vectors, axis=0) for vectors in last])
        merging = [store.merged for store in self.stores if store.merged is not None]
        merged = [tf.stack(vectors) for vectors in _by_replica_of(merging)]
        with tf.control_dependencies([last, *merged]):
            for store in self.stores:
                store.clear()
        return last, tf.stack(merged) if merging else None

    def collect(self) -> Any:
        """Empty the stores; returns what they held, still on the device."""
        return self._read()

    def finish(self, collected: Any) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Copy to the host what `collect` returned.

        Returns:
            The records, `(stores, len(records.FIELDS))`, joined over replicas; the
            histograms of the first replica, `(stores, len(histogram.SLOTS))`, empty ones
            for stores without; and of each store which of its channels were active on any
            replica, `(channels,)`, see `measure.measure`. NaN where it is not known.
        """
        last, merged = collected
        last, merged = last.numpy(), None if merged is None else merged.numpy()
        found = raw.finish(last[:, self._record_columns])
        if merged is not None:
            found[:, [store.merged is not None for store in self.stores]] = merged
        if len(found) == 1:
            joined = found[0]
        else:
            by_store = zip(self.stores, found.swapaxes(0, 1), strict=True)
            joined = np.stack([store.joined(replicas) for store, replicas in by_store])
        counted = histogram.none(len(self.stores))
        counting = [store.histograms for store in self.stores]
        counted[counting] = raw.finish_histograms(last[0, self._histogram_columns])
        active = np.max(last, axis=0)  # NaN, if one is NaN
        return joined, counted, [active[start:end] for start, end in self._channels]


def _by_replica_of(variables):
    """For each replica the values of all variables."""
    return list(zip(*map(_by_replica, variables), strict=True))

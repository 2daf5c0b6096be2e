"""All that differs between Keras' backends, for TensorFlow.

Where a record is kept until it is read, how a function is traced once and used by all
taps, and which tensors a traced tensor was computed from.
"""

import functools
import inspect

import numpy as np
import tensorflow as tf

from activation_monitor.analysis import histogram, moments
from activation_monitor.recording import measure


@functools.cache
def _look(
    dtype: str,
    rank: int,
    *,
    exact: bool,
    fused: bool,
    histograms: bool,
    channel_axis: int = -1,
    unsaturated: tuple[float, float] | None = None,
):
    """Measures a tensor into a record, and a histogram if wanted: one function per kind
    of tensor, traced once for all taps.

    In a graph it stays a call (`_noinline`): inlined two hundred times it would make the
    first step of a large network wait (ResNet50: 3 times the plain first step inlined,
    2 times as calls). XLA inlines it all the same.
    """

    def look(record, tensor):
        rows = measure.as_rows(tensor)
        grid = measure.grid(tensor, channel_axis) if rank > 2 else None
        record = measure.accumulate(
            record, rows, grid=grid, unsaturated=unsaturated, exact=exact, fused=fused
        )
        return (record, measure.histogram(rows)) if histograms else (record,)

    return tf.function(
        look,
        input_signature=[
            tf.TensorSpec([len(moments.FIELDS)], tf.float64),
            tf.TensorSpec([None] * rank, dtype),
        ],
        autograph=False,
        experimental_attributes={"_noinline": True},
    ).get_concrete_function()


def measure_once(x, *, exact: bool, jit_compile: bool = False) -> np.ndarray:
    """The record of an array, measured as in the training step.

    Args:
        x: Array, tensor or variable of any shape and floating-point dtype.
        exact: Whether to take the exact look.
        jit_compile: Whether to compile it with XLA.
    """
    tensor = tf.convert_to_tensor(x)
    kind = tensor.dtype.name, len(tensor.shape)
    look = _look(*kind, exact=exact, fused=jit_compile, histograms=False)
    run = tf.function(look, autograph=False, jit_compile=True) if jit_compile else look
    return run(tf.constant(moments.empty()), tensor)[0].numpy()


def _variable(value):
    # Made outside the function being traced; and not "lifted" out of it, which would
    # make TensorFlow trace the whole training step a second time.
    with tf.init_scope():
        return tf.Variable(
            value, trainable=False, experimental_enable_variable_lifting=False
        )


class Store:
    """Where one tap's record waits until the host reads it: variables no layer owns."""

    def __init__(self, histograms: bool):
        self.record = _variable(moments.empty())
        self.histogram = _variable(histogram.none()) if histograms else None

    def put(
        self,
        tensor,
        *,
        exact: bool,
        fused: bool,
        channel_axis: int = -1,
        unsaturated: tuple[float, float] | None = None,
    ) -> None:
        """Measure a tensor of the running step into this store, in the graph."""
        histograms = self.histogram is not None
        look = _look(
            tensor.dtype.name,
            len(tensor.shape),
            exact=exact,
            fused=fused,
            histograms=histograms,
            channel_axis=channel_axis,
            unsaturated=unsaturated,
        )
        seen = look(self.record, tf.stop_gradient(tensor))
        self.record.assign(seen[0])
        if histograms:
            self.histogram.assign(seen[1])


class Reader:
    """Reads many stores as one tensor, with one copy to the host, and empties them."""

    def __init__(self, stores: list[Store]):
        self.stores = tuple(stores)
        # Variables of one kind, and what empties them.
        self._kinds = [([s.record for s in stores], moments.empty())]
        if stores[0].histogram is not None:
            self._kinds.append(([s.histogram for s in stores], histogram.none()))
        self._read = tf.function(self._read_all, autograph=False).get_concrete_function()

    def _read_all(self):
        columns = tf.concat([tf.stack(kind) for kind, _ in self._kinds], axis=1)
        with tf.control_dependencies([columns]):
            self.clear()
        return columns

    def clear(self) -> None:
        """Empty all stores."""
        for variables, empty in self._kinds:
            for variable in variables:
                variable.assign(empty)

    def _copy(self):
        return self._read().numpy()

    def read(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Records `(taps, FIELDS)`, and histograms `(taps, SLOTS)` if there are any."""
        columns = self._copy()
        split = len(moments.FIELDS)
        records, histograms = columns[:, :split], columns[:, split:]
        return records, histograms if histograms.size else None


def compiled(function):
    """The function, traced at its first call."""
    return tf.function(function, autograph=False)


def gradients(of, by: list) -> list:
    """Gradients of a traced scalar by traced tensors; None where it does not depend."""
    return tf.gradients(of, by)


def is_tensor(value) -> bool:
    """Whether this is a dense tensor of the running step (not a symbolic Keras one)."""
    return isinstance(value, tf.Tensor)


def is_recomputing() -> bool:
    """Whether this call is one that `keras.remat` repeats in the backward pass.

    Nothing but the stack tells: it runs in the graph of the forward pass.
    """
    frame = inspect.currentframe()
    while frame and frame.f_code.co_name != "inner_recompute_grad":
        frame = frame.f_back
    return frame is not None


def is_ragged_or_sparse_float(value) -> bool:
    """Whether these are floating-point numbers that do not stand in one dense tensor."""
    kinds = tf.RaggedTensor, tf.SparseTensor, tf.IndexedSlices
    return isinstance(value, kinds) and value.dtype.is_floating


def graph():
    """What is being traced now; None when running eagerly."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def computed_from(tensor) -> list | None:
    """The tensors from which a traced tensor was computed; None when running eagerly."""
    return None if tf.executing_eagerly() else list(tensor.op.inputs)


def same_but_new(tensor):
    """The same values as a new tensor, so that two layers' outputs can be told apart."""
    return tf.identity(tensor)

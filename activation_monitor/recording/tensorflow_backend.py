"""All that differs between Keras' backends, for TensorFlow.

Where a record is kept until it is read, how a function is traced once and used by all
taps, and which tensors a traced tensor was computed from.
"""

import functools

import numpy as np
import tensorflow as tf

from activation_monitor.analysis import histogram, moments
from activation_monitor.recording import measure


@functools.cache
def _shared(name, dtype, **options):
    """A function of `measure`, traced once for all taps.

    In a graph it stays a call (`_noinline`): inlined two hundred times it would make the
    first step of a large network wait (ResNet50: 3.0 times the plain first step inlined,
    1.8 times as calls). XLA inlines it all the same.
    """
    spec = [tf.TensorSpec([None, None], dtype)]
    if name == "accumulate":
        spec.insert(0, tf.TensorSpec([len(moments.FIELDS)], tf.float64))
    return tf.function(
        functools.partial(getattr(measure, name), **options),
        input_signature=spec,
        autograph=False,
        experimental_attributes={"_noinline": True},
    )


def measure_once(x: np.ndarray, *, exact: bool, jit_compile: bool = False) -> np.ndarray:
    """The record of an array, measured by the kernel of the training step.

    Args:
        x: Array of any shape and floating-point dtype.
        exact: Whether to take the exact look.
        jit_compile: Whether to compile it with XLA.
    """
    rows = measure.as_rows(tf.constant(x))
    accumulate = _shared("accumulate", rows.dtype, exact=exact, fused=jit_compile)
    if jit_compile:
        accumulate = tf.function(accumulate, autograph=False, jit_compile=True)
    return accumulate(tf.constant(moments.empty()), rows).numpy()


class Store:
    """Where one tap's record waits until the host reads it: variables no layer owns."""

    def __init__(self, histograms: bool):
        # Out of the function being traced, into the surrounding eager world.
        with tf.init_scope():
            self.record = tf.Variable(moments.empty(), trainable=False)
            self.histogram = None
            if histograms:
                self.histogram = tf.Variable(histogram.none(), trainable=False)

    def put(self, tensor, *, exact: bool, fused: bool) -> None:
        """Measure a tensor of the running step into this store, in the graph."""
        rows = measure.as_rows(tf.stop_gradient(tensor))
        accumulate = _shared("accumulate", rows.dtype, exact=exact, fused=fused)
        self.record.assign(accumulate(self.record.read_value(), rows))
        if self.histogram is not None:
            self.histogram.assign(_shared("histogram", rows.dtype)(rows))


class Reader:
    """Reads many stores as one tensor, with one copy to the host, and empties them."""

    def __init__(self, stores: list[Store]):
        self.stores = tuple(stores)
        kinds = [[s.record for s in stores], [s.histogram for s in stores]]
        self._variables = [kind for kind in kinds if kind and kind[0] is not None]
        self._empty = {len(moments.FIELDS): moments.empty()}
        self._read = tf.function(self._read_all, autograph=False)

    def _read_all(self):
        columns = tf.concat([tf.stack(kind) for kind in self._variables], axis=1)
        with tf.control_dependencies([columns]):
            self.clear()
        return columns

    def clear(self) -> None:
        """Empty all stores."""
        for kind in self._variables:
            for variable in kind:
                empty = self._empty.get(variable.shape[0], histogram.none())
                variable.assign(empty)

    def read(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Records `(taps, FIELDS)`, and histograms `(taps, SLOTS)` if there are any."""
        columns = self._read().numpy()
        split = len(moments.FIELDS)
        records, histograms = columns[:, :split], columns[:, split:]
        return records, histograms if histograms.size else None


def is_tensor(value) -> bool:
    """Whether this is a dense tensor of the running step (not a symbolic Keras one)."""
    return isinstance(value, tf.Tensor)


def graph():
    """What is being traced now; None when running eagerly."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def computed_from(tensor) -> list | None:
    """The tensors from which a traced tensor was computed; None when running eagerly."""
    return None if tf.executing_eagerly() else list(tensor.op.inputs)


def same_but_new(tensor):
    """The same values as a new tensor, so that two layers' outputs can be told apart."""
    return tf.identity(tensor)

"""All that differs between Keras' backends, for TensorFlow.

Where a record is kept until it is read, how a function is traced once and used by all
taps, and which tensors a traced tensor was computed from.
"""

import functools
import inspect
import sys
import threading
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from activation_monitor.analysis import histogram, records
from activation_monitor.recording import measure

FRAMES = ("tensorflow",)
"""Packages whose frames stand between the user's line and ours in a stack."""

COMPILED = "tf.function"
"""What a compiled function is called, for messages."""


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
    masked: int = 0,
):
    """Measures a tensor into a record, and a histogram if wanted: one function per kind
    of tensor, traced once for all taps.

    In a graph it stays a call (`_noinline`): inlined two hundred times it would make the
    first step of a large network wait (ResNet50: 3 times the plain first step inlined,
    2 times as calls). XLA inlines it all the same.

    `masked` is the rank of the mask that it is given besides; 0 for none.
    """

    def look(record, tensor, mask=None):
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
        look,
        input_signature=signature,
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
    given = tf.constant(records.empty()), tensor
    if jit_compile:
        run = tf.function(look, autograph=False, jit_compile=True)
        # Traced by a call, TensorFlow would count it, see `uncounted`.
        look = run.get_concrete_function(*given)
    return look(*given)[0].numpy()


def _variable(value):
    # Made outside the function being traced; and not "lifted" out of it, which would
    # make TensorFlow trace the whole training step a second time. Of several replicas
    # each has a value of its own.
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
    """Where one tap's record waits until the host reads it: variables no layer owns."""

    def __init__(self, histograms: bool):
        self.record = _variable(records.empty())
        self.histogram = _variable(histogram.none()) if histograms else None

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

        Returns:
            The record of what the store has seen; with `alone`, of this tensor only.
        """
        histograms = self.histogram is not None
        look = _look(
            tensor.dtype.name,
            len(tensor.shape),
            exact=exact,
            fused=fused,
            histograms=histograms,
            channel_axis=channel_axis,
            unsaturated=unsaturated,
            masked=0 if mask is None else len(mask.shape),
        )
        before = tf.constant(records.empty()) if alone else self.record.read_value()
        given = [tf.stop_gradient(tensor)] + ([] if mask is None else [mask])
        seen = look(before, *given)
        if alone:
            self.merge(seen[0])
        else:
            self.record.assign(seen[0])
        if histograms:
            self.histogram.assign(seen[1])
        return seen[0]

    def read(self) -> np.ndarray:
        """The record on the host, of all replicas together, `(len(FIELDS),)`."""
        values = [variable.numpy() for variable in _by_replica(self.record)]
        return functools.reduce(records.merge, values)

    def clear(self) -> None:
        """Empty it: what it is to hold when nothing was seen."""
        kinds = [(self.record, records.empty())]
        if self.histogram is not None:
            kinds.append((self.histogram, histogram.none()))
        for variable, empty in kinds:
            for value in _by_replica(variable):
                value.assign(empty)

    def merge(self, record) -> None:
        """Merge the record of another tensor of the running step, in the graph."""
        self.record.assign(records.merge(self.record.read_value(), record, xp=keras.ops))


class Reader:
    """Reads many stores as one tensor, with one copy to the host, and empties them."""

    def __init__(self, stores: list[Store]):
        self.stores = tuple(stores)
        self._read = tf.function(self._read_all, autograph=False).get_concrete_function()

    def _read_all(self):
        kinds = [[store.record for store in self.stores]]
        if self.stores[0].histogram is not None:
            kinds.append([store.histogram for store in self.stores])
        columns = []
        for variables in kinds:
            by_replica = zip(*map(_by_replica, variables), strict=True)
            columns.append(tf.stack([tf.stack(replica) for replica in by_replica]))
        columns = tf.concat(columns, axis=-1)
        with tf.control_dependencies([columns]):
            for store in self.stores:
                store.clear()
        return columns

    def _copy(self):
        return self._read().numpy()

    def read(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Records `(taps, FIELDS)`, and histograms `(taps, SLOTS)` if there are any.

        Of several replicas the records are merged; the histograms are the first one's.
        """
        columns = self._copy()
        split = len(records.FIELDS)
        merged = functools.reduce(records.merge, columns[..., :split])
        histograms = columns[0, :, split:]
        return merged, histograms if histograms.size else None


def check_strategy(strategy: tf.distribute.Strategy) -> None:
    """Say early whether a model of this distribution strategy can be measured.

    Raises:
        NotImplementedError: If it cannot.
    """
    mirrored = tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy
    # Its workers run a step each, when they like; in sync there is one, and `strategy`
    # does not tell of its cluster.
    each_alone = isinstance(strategy, tf.distribute.ParameterServerStrategy)
    by_itself = strategy.num_replicas_in_sync == 1 and strategy.cluster_resolver is None
    if isinstance(strategy, mirrored) or (by_itself and not each_alone):
        return
    raise NotImplementedError(
        f"models of a {type(strategy).__name__} cannot be measured, those of a "
        "MirroredStrategy or MultiWorkerMirroredStrategy can"
    )


def workers(strategy: tf.distribute.Strategy) -> int:
    """How many processes train together; an evaluator is by itself."""
    resolver = strategy.cluster_resolver
    if resolver is not None and resolver.task_type == "evaluator":
        return 1
    cluster = resolver.cluster_spec().as_dict() if resolver else {}
    return max(sum(len(cluster.get(job, ())) for job in ("chief", "worker")), 1)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes files: the chief does, or the first worker if there is
    none; and an evaluator, which is by itself."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type in (None, "", "evaluator"):
        return True
    first = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (first, 0)


def running_now() -> tuple[str, int]:
    """Which of those that run the step's code side by side is running: the replica, or
    where there is but one, the thread."""
    # Each `strategy.run` begins new threads, of which some bear old threads' numbers.
    thread = threading.current_thread()
    if hasattr(thread, "replica_id"):
        return "replica", thread.replica_id
    return "thread", thread.ident


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device could not hold a step: with the measuring it needs more.

    The user's data may raise the same error; that is not one of the step.
    """
    exhausted = isinstance(error, tf.errors.ResourceExhaustedError)
    return exhausted and "IteratorGetNext" not in str(error)


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


def outermost_graph():
    """The graph of the function whose tracing began first; None when running eagerly."""
    found, around = None, graph()
    while around is not None and hasattr(around, "outer_graph"):
        found, around = around, around.outer_graph
    return found


def in_function_within(root) -> bool:
    """Whether a function is being traced within `root`: one with a trace of its own, that
    outlives the step. Branches and loops have none.

    Args:
        root: A graph, as `graph` returned it.
    """
    here = graph()
    while here is not root and here is not None:
        if type(here).__name__ == "FuncGraph":  # and not one of its subclasses
            return True
        here = getattr(here, "outer_graph", None)
    return False


def computed_from(tensor) -> list | None:
    """The tensors from which a traced tensor was computed; None when running eagerly."""
    if tf.executing_eagerly():
        return None
    # A constant of the model's, made eagerly: it is computed from nothing.
    return list(tensor.op.inputs) if tf.is_symbolic_tensor(tensor) else []


def same_but_new(tensor):
    """The same values as a new tensor, so that two layers' outputs can be told apart."""
    return tf.identity(tensor)


def second_trace(step: Callable) -> tuple[Callable, bool, bool]:
    """A step of the user's as a function with a trace of its own.

    Args:
        step: A `tf.function`, or a Python function.

    Returns:
        The function: the step itself, if it is no `tf.function`; whether it is one; and
        whether XLA compiles it.
    """
    if not hasattr(step, "get_concrete_function"):
        return step, False, False
    return uncounted(step._clone(None)), True, bool(step._jit_compile)


def uncounted(function: Callable) -> Callable:
    """A function that does the same, and whose traces TensorFlow does not count.

    TensorFlow warns when many of the last calls of a function were traced ("5 out of the
    last 5 calls to ... triggered tf.function retracing"). It counts all functions of the
    same source code together: the second trace of a step as one more of the user's own.
    Here each call counts as one that found its trace made, so that TensorFlow warns
    exactly where it would without a monitor.

    Args:
        function: A `tf.function` that was made for the monitor; or a model's train or test
            function that Keras made for it, which calls one. Any other stays as it is.
    """
    traced = _traced_part(function)
    if traced is None:
        return function
    try:
        key = traced._key_for_call_stats
        counter = sys.modules[type(traced).__module__]._frequent_tracing_detector_manager
        traced._omit_frequent_tracing_warning = True
    except AttributeError:  # of another TensorFlow, which will count
        return function
    traced._key_for_call_stats = _OurTraces

    def called(*args, **kwargs):
        outputs = function(*args, **kwargs)
        counter.called_without_tracing(key)
        return outputs

    return called


class _OurTraces:
    """Under which TensorFlow counts the traces that it must not warn of."""


def _traced_part(function):
    """The `tf.function` that this is, or that Keras' train or test function calls."""
    if hasattr(function, "get_concrete_function"):
        return function
    if getattr(function, "__module__", "").startswith("keras."):
        for value in inspect.getclosurevars(function).nonlocals.values():
            if hasattr(value, "get_concrete_function"):
                return value
    return None

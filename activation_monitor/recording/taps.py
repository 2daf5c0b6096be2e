"""Taps on layers: wraps their calls and measures what they output.

While a training step's Python code runs - once while it is traced, or at every step when
it runs eagerly - each layer's `call` is replaced on the instance by one that also measures.
Outside that time no layer is changed at all, and a `finally` puts the layers back as they
were.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import keras
import numpy as np

from activation_monitor.analysis import activity, histogram, records
from activation_monitor.recording import kernels, nested, shared
from activation_monitor.recording.applied import Optimizers
from activation_monitor.recording.backends import backend
from activation_monitor.recording.backward import Backward, depending_on
from activation_monitor.recording.calls import wrapped_calls
from activation_monitor.recording.keras_private import (
    attach_masks,
    gradient_measured,
    logits_of,
    mask_of,
    measured_first,
    own_variables,
    same_but_new,
    stored_value,
    values_held,
)
from activation_monitor.recording.layers import (
    activation_name,
    all_layers,
    channel_axis,
    float_tensors,
    has_kernel,
    is_float_tensor,
    kind_of,
    width_of,
)
from activation_monitor.recording.measure import channels_of
from activation_monitor.recording.moving import Moving
from activation_monitor.recording.step_trace import Trace
from activation_monitor.recording.table import Measured, Table, unscaled
from activation_monitor.recording.weights import Weights, known_kernels

# Of more, the activity of each would be as much as all else that a step copies.
_MANY_CHANNELS = 2**16


class Taps:
    """Measures the chosen layers of one or several models while a step runs.

    A layer is measured if it is a leaf: it calls no other layer. So is a layer whose
    inner calls happen inside a loop, since that layer is what the data path sees, and one
    with a kernel of its own that computes after its sublayers.

    Args:
        models: The models.
        chosen: Ids of the layers to measure, see `chosen_layers`.
        histograms: Whether to count histograms. Defaults to `True`.
        weights: Whether to measure the kernels. Defaults to `True`.
        updates: Whether to measure how a step changes them. Defaults to `True`.
        gradients: Whether to measure the gradients of the loss with respect to outputs and
            kernels. Defaults to `False`.
        warn: Called with a message when a layer is left out. Defaults to `print`.
        now: Returns the number of the step, and how many training steps run before `read`.
            Defaults to a function that returns 0 and 1.
    """

    def __init__(
        self,
        models: Sequence[keras.Model],
        chosen: set[int],
        histograms: bool = True,
        weights: bool = True,
        updates: bool = True,
        gradients: bool = False,
        warn: Callable[[str], None] = print,
        now: Callable[[], tuple[int, int]] = lambda: (0, 1),
    ):
        self.layers = all_layers(*models)
        self._models = tuple(models)
        self._chosen = chosen
        self._gradients = gradients
        self._derives = False  # whether the running code derives a loss of ours
        self._warn = warn
        self._unmeasurable = set()
        self._functions_left_out = False
        self._weights = Weights(warn, histograms) if weights else None
        self._updates = updates
        self._moving = Moving(warn) if weights and updates else None
        self._now = now
        self._backward = Backward(self._measured_layers, gradients, warn)
        self._optimizers = Optimizers(self._models, warn)
        self._whole = False  # whether the code that is measured is all of the step
        self._table = Table(tuple(models), histograms)
        self._table.note_weights(self.layers)
        self._entered = 0  # replicas run in threads of their own, that take turns
        self._tapped_layers = contextlib.ExitStack()
        self._traces: dict[object, Trace] = {}  # by what runs side by side
        self._new_trace, self._traced_inside = None, False
        self._begun_in = None  # what runs side by side

    @property
    def variables(self) -> list:
        """The variables of the models."""
        return [variable for model in self._models for variable in model.variables]

    # -- while the step's Python code runs

    def during(
        self,
        train_step: Callable,
        exact: bool = False,
        fused: bool = False,
        repeats: bool = False,
    ) -> Callable:
        """A step that does the same and measures the layers it calls; see `measuring`."""

        @functools.wraps(train_step)
        def tapped_train_step(*args, **kwargs):
            with self.measuring(exact, fused, repeats, whole=True):
                return train_step(*args, **kwargs)

        return backend.returning_records(tapped_train_step)

    @contextlib.contextmanager
    def measuring(
        self,
        exact: bool = False,
        fused: bool = False,
        repeats: bool = False,
        traced_inside: bool = False,
        whole: bool = False,
    ) -> Iterator[None]:
        """Within the block, the layers that are called are measured.

        Args:
            exact: Whether to take the exact pass, see `measure`. Defaults to `False`.
            fused: Whether XLA compiles the step. Defaults to `False`.
            repeats: Whether the step runs several times before the records are read.
                Defaults to `False`.
            traced_inside: Whether the block holds the call of a function that is traced
                there. Otherwise it is in the step's own Python code. Defaults to `False`.
            whole: Whether the block holds all that a step does. Defaults to `False`.
        """

        def new_trace():
            graph = backend.outermost_graph() if traced_inside else backend.graph()
            return Trace(exact, fused, repeats, step_graph=graph)

        self._table.begin_trace()
        self._entered += 1
        try:
            if self._entered == 1:
                self._new_trace, self._traced_inside = new_trace, traced_inside
                self._begun_in = backend.running_now()
                self._tapped_layers.enter_context(backend.sources_noted())
                for layer in self.layers:
                    self._tap(layer)
                if self._weights is not None and self._updates:
                    self._tapped_layers.enter_context(
                        self._backward.tapped(self._models, self._is_step, whole)
                    )
                    self._whole = whole
                if self._gradients:
                    self._tapped_layers.enter_context(
                        backend.gradients_measured(
                            self._gradient_taps, self._gradients_asked
                        )
                    )
            if not traced_inside:
                self._traces[backend.running_now()] = new_trace()
            yield
        finally:
            self._entered -= 1
            if self._entered == 0:
                self._traces.clear()
                self._tapped_layers.close()

    def _tap(self, layer):
        # Keras calls a quantized layer by another name.
        quantized = getattr(layer, "quantization_mode", None) is not None
        name = "quantized_call" if quantized else "call"
        self._tapped_layers.enter_context(wrapped_calls([layer], self._tapped, name))

    def _tap_inside(self, outer):
        """Tap what the layer made when it was built, which may be just now."""
        known = {id(layer) for layer in self.layers}
        for layer in all_layers(outer):
            if id(layer) not in known:
                self.layers.append(layer)
                if id(outer) in self._chosen:
                    self._chosen.add(id(layer))
                self._tap(layer)

    def _tapped(self, layer, call):
        def tapped_call(*args, **kwargs):
            # A user may have kept the function, and Keras may repeat the call.
            if not self._entered or backend.is_recomputing() or self._is_elsewhere():
                return call(*args, **kwargs)
            running = self._trace()
            if backend.in_function_within(running.step_graph):
                self._leave_out_function(layer)
                return call(*args, **kwargs)
            if not running.calling:
                running.root = backend.graph()
            self._tap_inside(layer)
            number = running.calls[id(layer)]
            running.calls[id(layer)] += 1
            leaves = len(running.leaf_graphs)
            inputs, made = (args, kwargs), set()
            with contextlib.suppress(Exception):  # what cannot be walked is left out below
                # As they are now: the layer may put its outputs into a dict of inputs, or
                # change a tensor in place.
                inputs = nested.map_structure(lambda part: part, inputs)
                tensors = [tensor for _, tensor in float_tensors(inputs)]
                made = {id(tensor) for tensor in tensors if running.is_output(tensor)}
            running.calling.append(layer)
            try:
                outputs = call(*args, **kwargs)
            finally:
                running.calling.pop()
            if id(layer) in self._unmeasurable:
                return outputs
            known = len(self._table.rows)
            try:
                return self._after(running, layer, number, leaves, inputs, made, outputs)
            except Exception as error:
                last = len(self._table.rows) - 1
                if last >= known and last not in running.rows:  # it would stay empty
                    self._table.drop_last()
                self._leave_out(layer, f"{type(error).__name__}: {error}")
                return outputs

        return tapped_call

    def _is_step(self):
        """Whether the code that runs belongs to the step, and not to another thread."""
        now = backend.running_now()
        running = self._traces.get(now)
        if not self._entered or (running is None and now != self._begun_in):
            return False
        # A function with a trace of its own keeps what is added to it.
        root = running.step_graph if running else backend.outermost_graph()
        return not backend.in_function_within(root)

    def _is_elsewhere(self):
        """Whether another thread of the user's calls the layer, and no replica."""
        now = backend.running_now()
        known = now == self._begun_in or now in self._traces
        return not known and backend.replicas() == 1

    def _measured_layers(self):
        return [
            layer
            for layer in self.layers
            if id(layer) in self._chosen and id(layer) not in self._unmeasurable
        ]

    def _trace(self):
        """That of the running replica; `strategy.run` begins some within a step."""
        now = backend.running_now()
        running = self._traces.get(now)
        # A function whose first trace made variables is traced once more.
        if running is None or (self._traced_inside and not running.calling):
            if running is None or running.step_graph is not backend.outermost_graph():
                new_trace = cast(Callable[[], Trace], self._new_trace)  # by `measuring`
                running = self._traces[now] = new_trace()
        return running

    def _leave_out_function(self, layer):
        # Its trace is kept, for the steps that are not sampled too.
        if not self._functions_left_out:
            self._functions_left_out = True
            self._warn(
                f"{layer.path or layer.name!r} is called inside a `{backend.COMPILED}` "
                "with a trace of its own. Layers in there are not measured. Remove that "
                "decorator where an outer function is compiled anyway, as in `fit`, or "
                f"pass the outermost `{backend.COMPILED}` to `watch`."
            )

    def _leave_out(self, layer, reason):
        if id(layer) not in self._unmeasurable:
            self._unmeasurable.add(id(layer))
            self._warn(
                f"{layer.path or layer.name!r} cannot be measured, it is left out: {reason}"
            )

    def _after(self, running, layer, number, leaves, inputs, made, outputs):
        """Measure the outputs of a call, if this layer is one to measure. `made` holds the
        ids of inputs that other layers have output."""
        here = backend.graph()
        inner = running.leaf_graphs[leaves:]
        is_leaf = not inner
        holds_loop = any(graph is not here for graph in inner)
        if is_leaf or holds_loop:
            running.leaf_graphs[leaves:] = [here]
        named = float_tensors(outputs)
        if not (is_leaf or holds_loop):
            if not has_kernel(layer):
                return outputs
            made_inside = [running.row_of(tensor) for _, tensor in named]
            if any(row is not None for row in made_inside):
                # Its last sublayer (an activation, say) made the output: one tensor,
                # measured once, that counts as this weight layer's.
                for row in made_inside:
                    if row is not None:
                        self._table.rows[row].kind = "weight"
                return outputs

        passed_on = any(running.is_output(tensor) for _, tensor in named) or any(
            tensor is one for _, tensor in named for one in nested.flatten(inputs)
        )
        if passed_on:
            # A new tensor tells this layer's output from its input.
            outputs = nested.map_structure(
                lambda value: same_but_new(value) if is_float_tensor(value) else value,
                outputs,
            )
            named = float_tensors(outputs)
        attach_masks(layer, inputs, outputs)
        tensors = [tensor for _, tensor in named]
        running.add_outputs(tensors)
        if id(layer) not in self._chosen:
            if kind_of(layer) == "normalization":
                running.add_normalized(tensors)
            return outputs

        if any(map(backend.is_ragged_or_sparse_float, nested.flatten(outputs))):
            raise TypeError("its output is a ragged or a sparse tensor")
        given = [tensor for _, tensor in float_tensors(inputs)]
        if here is running.root:
            for tensor in given:
                if id(tensor) not in made and not running.is_output(tensor):
                    parents = running.parents([tensor])
                    self._measure(running, layer, number, ":input", parents, tensor)
                    running.add_outputs([tensor])
        parents = running.parents(given)
        measured = {}
        for path, tensor in named:
            part = ":" + ".".join(map(str, path)) if path else ""
            measured[id(tensor)] = self._measure(
                running, layer, number, part, parents, tensor, given
            )
        return nested.map_structure(lambda v: measured.get(id(v), v), outputs)

    def _measure(self, running, layer, number, part, parents, tensor, inputs=()):
        """Measure one tensor; `parents` are those of `Trace.parents`.

        Returns:
            The tensor to go on with.
        """
        suffix = 0
        while self._table.find(layer, number, part) in running.rows:
            suffix += 1  # several inputs of one call
            part = f"{part.split('_')[0]}_{suffix}"
        index = self._table.index(layer, number, part)
        row = self._table.rows[index]
        row.kind = "input" if part.startswith(":input") else kind_of(layer)
        row.activation = "linear" if row.kind == "input" else activation_name(layer)
        # A `Monitored` layer waits for this record, which must be right the first time.
        place = None if row.kind == "input" else shared.place_for(layer)
        axis, channels = channel_axis(layer, tensor), 0
        if row.activation in activity.RECTIFIED:
            channels = channels_of(tensor, axis)
        record = self._store(running, index, records.OUTPUT, channels).put(
            tensor,
            exact=running.exact or place is not None,
            fused=running.fused,
            channel_axis=axis,
            unsaturated=records.SATURATED.get(row.activation),
            mask=mask_of(tensor),
        )
        after = tensor if running.fused else measured_first(tensor, record)
        if row.kind != "input" and (self._gradients or self._derives):
            measure = functools.partial(self._measure_gradient, running, index)
            after = gradient_measured(after, measure)
        if place is not None:
            place[id(after)] = record
        row.width = int(width_of(layer, tensor))
        row.dtype = keras.backend.standardize_dtype(tensor.dtype)
        if row.kind == "weight":
            shapes = [tuple(given.shape) for given in inputs]
            row.fan_in = kernels.fan_in(layer, shapes[0] if shapes else ())
        row.parents = parents
        around = [outer for outer in running.calling if own_variables(outer)]
        running.owners[index] = [] if row.kind == "input" else [layer, *around]
        running.add_measured(index, tensor, after)
        return after

    def _store(self, running, index, quantity, channels=0):
        # A graph within that of the step is a loop or a branch.
        merges = running.repeats or backend.graph() is not running.step_graph
        if channels > _MANY_CHANNELS:
            channels = 0
        return self._table.store(index, quantity, merges, channels)

    def _gradient_taps(self, sources):
        """The measured tensors whose gradients belong to a step that asks for gradients by
        these variables, each with what measures its gradient."""
        try:
            return self._taps_of(sources)
        except Exception as error:
            self._warn(f"gradients cannot be measured: {type(error).__name__}: {error}")
            return []

    def _gradients_asked(self, sources, gradients):
        if self._is_step():
            self._backward.asked(sources, gradients)

    def _taps_of(self, sources):
        running = self._traces.get(backend.running_now())
        if running is None:
            return []
        taps = []
        for index, tensor in self._depending_on(sources, running).items():
            measure = functools.partial(self._measure_gradient, running, index)
            logits = logits_of(tensor)
            taps.append(([tensor] if logits is None else [tensor, logits], measure))
        return taps

    def _depending_on(self, sources, running):
        """The measured tensors of this graph that depend on these variables, by row."""
        tensors = running.tensors_here()
        parents = [row.parents.rows for row in self._table.rows]
        found = depending_on(sources, running.owners, parents)
        return {row: tensors[row] for row in found if row in tensors}

    def _measure_gradient(self, running, index, gradient):
        try:
            gradient = keras.ops.convert_to_tensor(gradient)
            store = self._store(running, index, records.OUTPUT_GRADIENT)
            store.put(gradient, exact=running.exact, fused=running.fused)
        except Exception as error:
            layer = self._table.rows[index].layer
            self._warn(
                f"the gradient of {layer.path or layer.name!r} cannot be measured: "
                f"{type(error).__name__}: {error}"
            )

    def derived(self, loss: Callable, variables: Sequence[keras.Variable]):
        """Measure the gradients by all tensors of a loss that depend on variables.

        Args:
            loss: Computes the loss, which is traced.
            variables: The variables that are trained.

        Returns:
            The loss.
        """

        def of(values):
            with values_held(variables, values):
                return loss()

        def tensors():
            running = self._traces[backend.running_now()]
            return [
                (tensor, functools.partial(self._measure_gradient, running, row))
                for row, tensor in self._depending_on(variables, running).items()
            ]

        self._derives = True
        try:
            return backend.derived(of, [*map(stored_value, variables)], tensors)
        finally:
            self._derives = False

    # -- on the host

    def before_step(self, exact: bool) -> None:
        """Before a step: measure the kernels.

        Args:
            exact: Whether to take the exact pass, see `measure`.
        """
        if self._weights is not None:
            self._weights.before(self._measured_layers(), exact)
            if self._updates and self._gradients:
                self._optimizers.before(self._backward.notes)
        if self._moving is not None:
            self._moving.before(self._measured_layers())

    def clear(self) -> None:
        """Forget what an interrupted step left in the stores."""
        self._table.clear()
        self._backward.take()

    def collect(self) -> Callable[[], Measured]:
        """Take what the last step measured, without the weights; see `Table.collect`."""
        copied, kept = self._table.collect(), self._backward.take()
        return lambda: unscaled(copied(False), kept.scale)._replace(loss=kept.loss)

    def weights_now(self) -> dict[str, np.ndarray]:
        """The kernels as they are now, by quantity; between two steps.

        Returns:
            Records `(rows, len(records.FIELDS))` of weights; those of outputs are empty.
        """
        found = {records.OUTPUT: self._table.spread({})}
        if self._weights is not None:
            self._weights.late(self._measured_layers())
            found |= self._of_weights(self._weights)
        return found

    def _of_weights(self, weights):
        read = weights.read().items()
        return {quantity: self._table.spread(by_layer) for quantity, by_layer in read}

    def read(self) -> Measured:
        """What the last step measured, and what it did to weights, on the host."""
        found = self._table.collect()(True)
        kept = self._backward.take()
        if self._weights is not None and found.layers:
            if self._updates:
                self._weights.after(kept.rows)
            called = {id(row.layer) for row in self._table.rows}
            layers = [layer for layer in self._measured_layers() if id(layer) in called]
            self._weights.late(layers)
            replicas = self._weights.replicas
            counted = self._weights.histograms.items()
            found.histograms.update(
                (of, self._table.spread(one, histogram.none)) for of, one in counted
            )
            found.quantities.update(self._of_weights(self._weights))
            found = found._replace(updating=self._updating(kept.relations, replicas))
        if self._moving is not None and found.layers:
            found = found._replace(moving=self._read_moving(self._moving, found))
        return unscaled(found, kept.scale)._replace(loss=kept.loss)

    def _read_moving(self, moving, found):
        called = self._table.calls(found.quantities[records.OUTPUT])
        layers = [layer for layer in self._measured_layers() if id(layer) in called]
        step, together = self._now()
        updates = {key: calls * together for key, (calls, _) in called.items()}
        rms = {key: size for key, (_, size) in called.items()}
        return self._table.of_layers(moving.after(step, layers, updates, rms))

    def _updating(self, relations, replicas):
        if not self._updates or not self._gradients:
            return None
        rows = self._table.rows
        layers = [row.layer if row.kind == "weight" else None for row in rows]
        return self._optimizers.updating(
            self._backward.notes,
            layers,
            known_kernels([layer for layer in layers if layer is not None]),
            relations,
            replicas,
            self._whole,
        )

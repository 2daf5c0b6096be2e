"""Taps on layers: wraps their calls, measures what they put out, reads the layer graph.

While a training step's Python
code runs - once while it is traced, or at every step when it runs eagerly - each layer's
`call` is replaced on the instance by one that also measures. Outside that time no layer
is changed at all, and an exception changes nothing back to front: the layers are put
back as they were in a `finally`.
"""

import collections
import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import keras
import numpy as np

from activation_monitor.analysis import records
from activation_monitor.analysis.snapshot import LayerInfo
from activation_monitor.recording import kernels, shared
from activation_monitor.recording.backends import backend
from activation_monitor.recording.calls import wrapped_calls
from activation_monitor.recording.keras_private import (
    activation_name,
    all_layers,
    attach_masks,
    channel_axis,
    float_tensors,
    has_kernel,
    kind_of,
    mask_of,
    renewed,
    unique_paths,
    width_of,
)


class Measured(NamedTuple):
    """What a step measured: the fields of a `Snapshot` but for the steps."""

    layers: tuple[LayerInfo, ...]
    quantities: dict[str, np.ndarray]
    histograms: dict[str, np.ndarray]


@dataclass
class _Row:
    """One tapped tensor: who made it in which call, and where its record waits."""

    layer: keras.Layer
    call: int
    part: str  # "" for the only output, ":0" or ":key" for one of several, ":input"
    store: backend.Store
    kind: str = "other"
    activation: str = "linear"
    width: int = 1
    fan_in: float = 0.0
    dtype: str = ""
    parents: tuple[int, ...] = ()
    traced: bool = True
    normalized: bool = False


@dataclass
class _Pass:
    """One run of the step's Python code, by one replica: what has been called so far."""

    exact: bool
    fused: bool
    step_graph: object  # that the step's own code makes; None if it runs eagerly
    depth: int = 0
    root: object = None  # the graph of the outermost monitored call
    rows: list[int] = field(default_factory=list)
    calls: collections.Counter = field(default_factory=collections.Counter)
    leaf_graphs: list = field(default_factory=list)
    # By id of tensor. `alive` keeps the tensors, so that no id is used twice.
    owner: dict[int, int] = field(default_factory=dict)
    made: set[int] = field(default_factory=set)
    normalized: set[int] = field(default_factory=set)  # by layers that were not chosen
    alive: list = field(default_factory=list)
    tensors: dict[int, object] = field(default_factory=dict)  # of the root graph, by row


class Taps:
    """Measures the chosen layers of one or several models while a step runs.

    A layer is a leaf, and is measured, if it calls no other layer. So is a layer whose
    inner calls happen inside a loop, since it is what the data path sees, and one with a
    kernel of its own that computes after its sublayers.

    Args:
        models: The models.
        chosen: Ids of the layers to measure, see `chosen_layers`.
        histograms: Count histograms as well.
        warn: Called with a message when a layer has to be left out.
    """

    def __init__(
        self,
        models: Sequence[keras.Model],
        chosen: set[int],
        histograms: bool = True,
        warn: Callable[[str], None] = print,
    ):
        self.models = tuple(models)
        self.layers = all_layers(*models)
        self._chosen = chosen
        self._histograms = histograms
        self._warn = warn
        self._unmeasurable = set()
        self._changed = {id(layer) for layer in self.layers if _is_changed(layer)}
        self._functions_left_out = False
        self._rows: dict[tuple[int, int, str], int] = {}
        self._table: list[_Row] = []
        self._reader = None
        self._known = None  # infos of the layers, until the step's Python code runs again
        self._kernels = {}  # by id of layer
        self._entered = 0  # replicas run in threads of their own, that take turns
        self._tapped_layers = contextlib.ExitStack()
        self._passes: dict[object, _Pass] = {}  # by what runs side by side
        self._new_pass, self._traced_inside = None, False
        self._gradients: dict[int, backend.Store] = {}  # by row
        self._gradient_reader = None

    # -- while the step's Python code runs

    def during(
        self, train_step: Callable, exact: bool = False, fused: bool = False
    ) -> Callable:
        """A step that does the same and measures the layers it calls; for `measuring`."""

        @functools.wraps(train_step)
        def tapped_train_step(*args, **kwargs):
            with self.measuring(exact, fused):
                return train_step(*args, **kwargs)

        return tapped_train_step

    @contextlib.contextmanager
    def measuring(
        self, exact: bool = False, fused: bool = False, traced_inside: bool = False
    ) -> Iterator[None]:
        """Within the block, the layers that are called are measured.

        Args:
            exact: Take the exact look, see `measure`.
            fused: The step is compiled by XLA.
            traced_inside: The block holds the call of a function that is traced there.
                Else it is in the step's own Python code.
        """

        def new_pass():
            graph = backend.outermost_graph() if traced_inside else backend.graph()
            return _Pass(exact, fused, step_graph=graph)

        self._known = None
        self._entered += 1
        try:
            if self._entered == 1:
                self._new_pass, self._traced_inside = new_pass, traced_inside
                for layer in self.layers:
                    self._tap(layer)
            if not traced_inside:
                self._passes[backend.running_now()] = new_pass()
            yield
        finally:
            self._entered -= 1
            if self._entered == 0:
                self._passes.clear()
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
            # It may be that somebody kept it, or that it is computed again.
            if not self._entered or backend.is_recomputing():
                return call(*args, **kwargs)
            running = self._pass()
            if backend.in_function_within(running.step_graph):
                self._leave_out_function(layer)
                return call(*args, **kwargs)
            if running.depth == 0:
                running.root = backend.graph()
            self._tap_inside(layer)
            number = running.calls[id(layer)]
            running.calls[id(layer)] += 1
            leaves = len(running.leaf_graphs)
            inputs = args, kwargs
            with contextlib.suppress(Exception):  # what cannot be walked is told of below
                # As they are now: the layer may put its outputs into the dict it is given.
                inputs = keras.tree.map_structure(lambda part: part, inputs)
            running.depth += 1
            try:
                outputs = call(*args, **kwargs)
            finally:
                running.depth -= 1
            if id(layer) in self._unmeasurable:
                return outputs
            known = len(self._table)
            try:
                return self._after(running, layer, number, leaves, inputs, outputs)
            except Exception as error:
                last = len(self._table) - 1
                if last >= known and last not in running.rows:  # it would stay empty
                    row = self._table.pop()
                    del self._rows[id(row.layer), row.call, row.part]
                self._leave_out(layer, f"{type(error).__name__}: {error}")
                return outputs

        return tapped_call

    def _pass(self):
        """That of the running replica; `strategy.run` begins some within a step."""
        now = backend.running_now()
        running = self._passes.get(now)
        # A function whose first trace made variables is traced once more.
        if running is None or (self._traced_inside and not running.depth):
            if running is None or running.step_graph is not backend.outermost_graph():
                running = self._passes[now] = self._new_pass()
        return running

    def _leave_out_function(self, layer):
        # Its trace is kept, for the steps that are not looked at too.
        if not self._functions_left_out:
            self._functions_left_out = True
            self._warn(
                f"{layer.path or layer.name!r} is called within a `tf.function` that is "
                "traced by itself. Layers in there are not measured. Take that decorator "
                "away where a function around it is compiled anyway, as in `fit`; or hand "
                "the outermost `tf.function` over to `watch`."
            )

    def _leave_out(self, layer, reason):
        if id(layer) not in self._unmeasurable:
            self._unmeasurable.add(id(layer))
            self._warn(
                f"{layer.path or layer.name!r} cannot be measured, it is left out: {reason}"
            )

    def _after(self, running, layer, number, leaves, inputs, outputs):
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
            if any(id(tensor) in running.owner for _, tensor in named):
                # Its last sublayer (an activation, say) made the output: one tensor,
                # measured once, that counts as this weight layer's.
                for _, tensor in named:
                    if id(tensor) in running.owner:
                        self._table[running.owner[id(tensor)]].kind = "weight"
                return outputs

        if any(id(tensor) in running.made for _, tensor in named) or any(
            tensor is given for _, tensor in named for given in keras.tree.flatten(inputs)
        ):
            # Handed through: a new tensor tells this layer's output from its input.
            outputs = keras.tree.map_structure(renewed, outputs)
            named = float_tensors(outputs)
        attach_masks(layer, inputs, outputs)
        running.alive.extend(tensor for _, tensor in named)
        running.made.update(id(tensor) for _, tensor in named)
        if id(layer) not in self._chosen:
            if kind_of(layer) == "normalization":
                running.normalized.update(id(tensor) for _, tensor in named)
            return outputs

        if any(map(backend.is_ragged_or_sparse_float, keras.tree.flatten(outputs))):
            raise TypeError("its output is a ragged or a sparse tensor")
        given = [tensor for _, tensor in float_tensors(inputs)]
        if here is running.root:
            for tensor in given:
                if id(tensor) not in running.made:
                    parents = self._parents(running, [tensor])
                    self._measure(running, layer, number, ":input", parents, tensor)
                    running.made.add(id(tensor))
        parents = self._parents(running, given)
        for path, tensor in named:
            part = ":" + ".".join(map(str, path)) if path else ""
            self._measure(running, layer, number, part, parents, tensor, given)
        return outputs

    def _measure(self, running, layer, number, part, parents, tensor, inputs=()):
        """Measure one tensor; `parents` as found by `_parents`."""
        suffix = 0
        while self._rows.get((id(layer), number, part)) in running.rows:
            suffix += 1  # several inputs of one call
            part = f"{part.split('_')[0]}_{suffix}"
        index = self._row(layer, number, part)
        row = self._table[index]
        row.kind = "input" if part.startswith(":input") else kind_of(layer)
        row.activation = "linear" if row.kind == "input" else activation_name(layer)
        # A `Monitored` layer waits for this record; it is to be right at the first look.
        place = None if row.kind == "input" else shared.place_for(layer)
        record = row.store.put(
            tensor,
            exact=running.exact or place is not None,
            fused=running.fused,
            channel_axis=channel_axis(layer, tensor),
            unsaturated=records.SATURATED.get(row.activation),
            mask=mask_of(tensor),
            alone=place is not None,
        )
        if place is not None:
            place[id(tensor)] = record
        row.width = int(width_of(layer, tensor))
        row.dtype = keras.backend.standardize_dtype(tensor.dtype)
        if row.kind == "weight":
            shapes = [tuple(given.shape) for given in inputs]
            row.fan_in = kernels.fan_in(layer, shapes[0] if shapes else ())
        row.parents, row.traced, row.normalized = parents
        running.rows.append(index)
        running.owner[id(tensor)] = index
        running.alive.append(tensor)
        if backend.graph() is running.root:
            running.tensors[index] = tensor

    def measure_gradients(self, of) -> None:
        """Measure what comes back to every tensor measured so far in the running pass.

        Args:
            of: The traced scalar to derive, a loss.
        """
        running = self._passes[backend.running_now()]
        rows, tensors = zip(*running.tensors.items(), strict=True)
        for row, gradient in zip(rows, backend.gradients(of, tensors), strict=True):
            if gradient is None:  # no way from here to the loss
                continue
            if row not in self._gradients:
                self._gradients[row] = backend.Store(histograms=False)
                self._gradient_reader = None
            self._gradients[row].put(gradient, exact=running.exact, fused=False)

    def _row(self, layer, number, part):
        key = (id(layer), number, part)
        if key not in self._rows:
            self._rows[key] = len(self._table)
            store = backend.Store(self._histograms)
            self._table.append(_Row(layer, number, part, store))
            self._reader = None
        return self._rows[key]

    def _parents(self, running, tensors):
        """Rows that the tensors were computed from; whether the trace said so; whether a
        normalization that is not measured itself stands in between."""
        found, seen, todo = set(), set(), list(tensors)
        traced, normalized = backend.graph() is running.root, False
        while todo:
            tensor = todo.pop()
            if id(tensor) in running.owner:
                found.add(running.owner[id(tensor)])
            elif id(tensor) not in seen:
                seen.add(id(tensor))
                normalized = normalized or id(tensor) in running.normalized
                sources = backend.computed_from(tensor)
                traced = traced and sources is not None
                todo.extend(sources or ())
        if not traced and not found:
            found = set(running.rows[-1:])
        return tuple(sorted(found)), traced, normalized

    # -- on the host

    def clear(self) -> None:
        """Forget what an interrupted step left behind."""
        for store in (*(row.store for row in self._table), *self._gradients.values()):
            store.clear()

    def measure_kernels(self) -> None:
        """Measure the kernels as they are now; the next `read` hands them on."""
        for layer in self.layers:
            if id(layer) in self._chosen and id(layer) not in self._unmeasurable:
                try:
                    record = kernels.record(layer)
                except Exception as error:
                    self._warn(
                        f"the kernel of {layer.path or layer.name!r} cannot be measured: "
                        f"{type(error).__name__}: {error}"
                    )
                    continue
                if record is not None:
                    self._kernels[id(layer)] = record

    def read(self) -> Measured:
        """What the last step measured, with one copy to the host; then empties it.

        Returns:
            Layer infos; records of shape `(layers, len(FIELDS))`; histograms of shape
            `(layers, len(SLOTS))` or None; records of the kernels and of the gradients,
            or None, empty ones for layers without. No layers if none was called.
        """
        if not self._table:
            return Measured((), {}, {})
        if self._reader is None:
            self._reader = backend.Reader([row.store for row in self._table])
        if self._known is None:
            self._known = self._infos()
        outputs, histograms = self._reader.read()
        quantities = {records.OUTPUT: outputs}
        kernels_found = self.kernels()
        if kernels_found is not None:
            quantities[records.WEIGHT] = kernels_found
        if self._gradients:
            if self._gradient_reader is None:
                self._gradient_reader = backend.Reader(list(self._gradients.values()))
            gradients = records.empty(len(self._table))
            gradients[list(self._gradients)] = self._gradient_reader.read()[0]
            quantities[records.OUTPUT_GRADIENT] = gradients
        counted = {} if histograms is None else {records.OUTPUT: histograms}
        return Measured(self._known, quantities, counted)

    def kernels(self) -> np.ndarray | None:
        """The records of the kernels that were measured, then empties them.

        Returns:
            Array of shape `(layers, len(FIELDS))`, empty records for layers without; None
            if none were measured.
        """
        if not self._kernels:
            return None
        found = records.empty(len(self._table))
        for record, row in zip(found, self._table, strict=True):
            if row.kind == "weight":
                record[:] = self._kernels.get(id(row.layer), record)
        self._kernels = {}
        return found

    def _infos(self):
        paths = unique_paths(*self.models)
        several = {id(row.layer) for row in self._table if row.call > 0}
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
                parents=row.parents,
                traced=row.traced,
                normalized=row.normalized,
                changed=row.kind != "input" and id(row.layer) in self._changed,
            )
            for row in self._table
        )


def _is_changed(layer):
    try:
        return kernels.is_changed(layer)
    except Exception:  # a layer of the user's own with names like ours
        return False

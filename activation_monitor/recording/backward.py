"""What a step computes after its forward pass: its loss, and the gradients of kernels.

The loss passes through `compute_loss` of a model, and the gradients through `apply` of an
optimizer. While the step's Python code runs, both are wrapped. Neither is changed.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from activation_monitor.recording.applied import Notes
from activation_monitor.recording.backends import backend
from activation_monitor.recording.calls import replaced
from activation_monitor.recording.keras_private import (
    inner_optimizer,
    loss_scale,
    stored_value,
    trained_variables,
)
from activation_monitor.recording.patches import wrapped_method
from activation_monitor.recording.weights import known_kernels, some_rows

ops: Any = keras.ops  # not annotated, see `recording.ops`

_OPTIMIZERS = (keras.optimizers.Optimizer, keras.optimizers.LossScaleOptimizer)
"""The classes of Keras that define `apply`. The second one calls the first one."""


def depending_on(
    sources: Sequence[Any],
    owners: Mapping[int, Sequence[keras.Layer]],
    parents: Sequence[tuple[int, ...]],
) -> list[int]:
    """Which measured tensors depend on one of these variables.

    The gradient of another tensor does not belong to a step that trains these variables.

    Args:
        sources: Variables, of Keras or of its backend.
        owners: By row of a measured tensor, the layers that may own variables which it
            depends on directly; in the order of the calls.
        parents: By row, the rows that it was computed from.
    """
    asked, found = set(map(id, sources)), {}
    for row, layers in owners.items():
        variables = [variable for layer in layers for variable in layer.variables]
        ids = {
            id(one) for variable in variables for one in (variable, stored_value(variable))
        }
        if not ids.isdisjoint(asked) or any(parent in found for parent in parents[row]):
            found[row] = True
    return [*found]


class Kept(NamedTuple):
    """What a step has kept.

    Attributes:
        loss: The loss; NaN if it is not known.
        scale: The factor by which the loss was multiplied before gradients were computed.
        rows: Rows of the gradients of kernels, which have that factor, by id of the layer.
        relations: By id of the layer, sums over products of the gradient that the
            optimizer was given and the one that a tape returned, see
            `applied.relation`.
    """

    loss: float
    scale: float
    rows: dict[int, Any]
    relations: dict[int, np.ndarray]


class Backward:
    """Keeps the loss of a step, and rows of the gradients of kernels, until they are read.

    Args:
        layers: Returns the layers whose kernels count.
        gradients: Whether to keep gradients.
        warn: Called with a message if something cannot be kept.

    Attributes:
        notes: What was noted of the step's code, as it last ran; None before it.
    """

    def __init__(
        self,
        layers: Callable[[], Sequence[keras.Layer]],
        gradients: bool,
        warn: Callable[[str], None],
    ):
        self._layers = layers
        self._gradients = gradients
        self._warn = warn
        self._loss = None
        self.notes: Notes | None = None
        self._new_notes = Notes()
        # By ids of the layers whose kernels one call of `apply` updates, and of those of
        # them whose gradient it got is not the one that a tape returned.
        self._rows = {}
        self._applying = set()  # replicas run in threads of their own

    @contextlib.contextmanager
    def tapped(
        self, models: Sequence[keras.Model], runs: Callable[[], bool], whole: bool = False
    ) -> Iterator[None]:
        """Within the block, keep the loss of the models and the gradients that are applied.

        Args:
            models: The models.
            runs: Returns whether the code that runs belongs to the step.
            whole: Whether the step's code runs in the block for certain, and all of it.
                Defaults to `False`.
        """

        def with_loss(model, compute_loss):
            @functools.wraps(compute_loss)
            def tapped_compute_loss(*args, **kwargs):
                loss = compute_loss(*args, **kwargs)
                if runs():
                    self._attempt("the loss", self._keep_loss, loss)
                return loss

            return tapped_compute_loss

        with contextlib.ExitStack() as stack:
            stack.enter_context(replaced(models, "compute_loss", with_loss))
            if self._gradients:
                self._new_notes = Notes()
                for kind in _OPTIMIZERS:
                    apply, scale = self._tapped_apply(runs), self._tapped_scale_loss(runs)
                    stack.enter_context(wrapped_method(kind, "apply", apply))
                    stateless = self._tapped_stateless_apply(runs)
                    stack.enter_context(wrapped_method(kind, "stateless_apply", stateless))
                    stack.enter_context(wrapped_method(kind, "scale_loss", scale))
                stack.callback(self._end_notes, whole)
            yield

    def _end_notes(self, whole):
        if whole or not self._new_notes.is_empty:  # else its code may not have run
            self.notes = self._new_notes
        self._new_notes.end()

    def asked(self, sources: Sequence[Any], gradients: Sequence[Any]) -> None:
        """Note what a gradient tape of the step was asked for, and what it returned."""
        self._attempt(
            "gradients", self._new_notes.asked, *(self._of_kernel(), sources, gradients)
        )

    def _tapped_scale_loss(self, runs):
        def tapped_scale_loss(scale_loss, optimizer, *args, **kwargs):
            if runs():
                self._new_notes.asked_to_scale(optimizer)
            return scale_loss(optimizer, *args, **kwargs)

        return tapped_scale_loss

    def _tapped_apply(self, runs):
        def tapped_apply(apply, optimizer, grads, trainable_variables=None):
            now = backend.running_now()
            if now in self._applying or not backend.in_replica() or not runs():
                return apply(optimizer, grads, trainable_variables)
            grads = list(grads)  # both may be iterators
            if trainable_variables is not None:
                trainable_variables = list(trainable_variables)
            with self._kept(now, optimizer, grads, trainable_variables):
                return apply(optimizer, grads, trainable_variables)

        return tapped_apply

    def _tapped_stateless_apply(self, runs):
        """One with a loss scale calls `apply` of the optimizer inside, within a branch."""

        def tapped_stateless_apply(apply, optimizer, optimizer_variables, grads, values):
            now = backend.running_now()
            if now in self._applying or not runs():
                return apply(optimizer, optimizer_variables, grads, values)
            grads = list(grads)
            with self._kept(now, optimizer, grads, None):
                return apply(optimizer, optimizer_variables, grads, values)

        return tapped_stateless_apply

    @contextlib.contextmanager
    def _kept(self, now, optimizer, grads, variables):
        """Keep gradients, and none that are applied within the block."""
        self._attempt(
            "gradients of kernels", *(self._keep_rows, optimizer, grads, variables)
        )
        self._applying.add(now)
        try:
            yield
        finally:
            self._applying.remove(now)

    def _keep_loss(self, loss):
        if self._loss is None:
            self._loss = backend.Kept()
        self._loss.put([ops.cast(loss, "float32") * backend.replicas()])

    def _of_kernel(self):
        """The id of the layer by that of its kernel."""
        return {
            id(one): i
            for i, kernel in known_kernels(self._layers()).items()
            for one in (kernel, stored_value(kernel))
        }

    def _keep_rows(self, optimizer, gradients, variables):
        if variables is None:
            variables = trained_variables(inner_optimizer(optimizer))
        of_kernel = self._of_kernel()
        given = {
            of_kernel[id(variable)]: (gradient, variable.shape)
            for gradient, variable in zip(gradients, variables, strict=True)
            if id(variable) in of_kernel
        }
        returned = self._new_notes.applied(
            optimizer, {layer: gradient for layer, (gradient, _) in given.items()}
        )
        rows = {}
        for layer, (gradient, shape) in given.items():
            if gradient is not None:
                self._attempt(
                    "gradients of kernels", _add_rows, *(rows, layer, gradient, shape)
                )
        relations = {
            layer: _relation(rows[layer], _rows_of(gradient, given[layer][1]))
            for layer, gradient in returned.items()
            if layer in rows and not backend.is_added_up(gradient)
        }
        scale = ops.cast(loss_scale(optimizer), "float32")
        key = tuple(rows), tuple(relations)
        if key not in self._rows:
            self._rows[key] = backend.Kept()
        summed = backend.sums_over_replicas([*rows.values()])
        self._rows[key].put([scale, *summed, *relations.values()])

    def _attempt(self, what, keep, *args):
        try:
            keep(*args)
        except Exception as error:
            self._warn(f"{what} cannot be measured: {type(error).__name__}: {error}")

    def take(self) -> Kept:
        """What the step has kept, which is then forgotten."""
        loss = None if self._loss is None else self._loss.take()
        loss = math.nan if loss is None else float(np.mean([found for (found,) in loss]))
        scale, rows, relations = 1.0, {}, {}
        for (layers, changed), kept in self._rows.items():
            found = kept.take()
            if found is not None:
                factor, *tensors = found[0]
                scale = float(factor)
                rows |= zip(layers, tensors[: len(layers)], strict=True)
                sums = map(backend.on_host, tensors[len(layers) :])
                relations |= zip(changed, sums, strict=True)
        return Kept(loss, scale, rows, relations)


def _add_rows(rows, layer, gradient, shape):
    rows[layer] = _rows_of(gradient, shape)


def _rows_of(gradient, shape):
    return some_rows(ops.reshape(ops.convert_to_tensor(gradient), shape))


def _relation(given, returned):
    """Sums of the products of two gradients, `(3,)`."""
    given, returned = (ops.cast(rows, "float32") for rows in (given, returned))
    pairs = (given, returned), (returned, returned), (given, given)
    return ops.stack([ops.sum(one * other) for one, other in pairs])

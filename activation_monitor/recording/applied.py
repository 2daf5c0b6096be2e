"""What a step's code does with gradients, noted while it runs.

Which tensors a gradient tape returned, which of them an optimizer was given, for which
kernels, and whether the loss was scaled. A compiled step runs its code once, and each note
holds for all its steps.
"""

import math
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import keras
import numpy as np

from activation_monitor.analysis.updating import (
    NAMES,
    SETTINGS,
    OptimizerInfo,
    Updating,
    unknown,
)
from activation_monitor.recording.backends import backend
from activation_monitor.recording.keras_private import (
    inner_optimizer,
    loss_scale,
    steps_taken,
    trained_variables,
)
from activation_monitor.recording.trying import UntilItFails

_FACTOR, _REMAINDER, _REPLICAS = map(NAMES.index, ("factor", "remainder", "replicas"))


class Given(NamedTuple):
    """The gradient that an optimizer was given for the kernel of a layer.

    Attributes:
        optimizer: The index of the optimizer.
        tensor: The `id` of the gradient; 0 for None.
        source: The `id` of the layer whose gradient a tape returned as this tensor; None
            if no tape did.
    """

    optimizer: int
    tensor: int
    source: int | None


class Notes:
    """Notes on one run of a step's code, by one replica.

    Attributes:
        optimizers: Those that were applied, each once.
        given: By id of the layer, what the calls of `apply` were given for its kernel.
        scaled: The optimizers that were asked to scale the loss.
    """

    def __init__(self):
        self._graph = None
        self._clear()

    def _clear(self):
        self.optimizers: list[Any] = []
        self.given: dict[int, list[Given]] = {}
        self.scaled: list[Any] = []
        self._runner = None
        # Tensors are kept as long as the code runs, so that no id is used twice.
        self._asked: dict[int, tuple[Any, int]] = {}  # by id of the tensor
        self._of_layer: dict[int, list[Any]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no optimizer was applied and no gradient was asked for."""
        return not self.optimizers and not self._of_layer

    def _is_ours(self):
        """Whether the replica that runs is the one that is followed."""
        now, graph = backend.running_now(), backend.outermost_graph()
        if graph is not self._graph:
            # A function whose first trace made variables is traced once more.
            self._clear()
            self._graph = graph
        self._runner = self._runner or now
        return self._runner == now

    def asked(self, of_kernel: Mapping[int, int], sources: Sequence, found: Sequence):
        """A gradient tape returned gradients.

        Args:
            of_kernel: Id of the layer by id of its kernel.
            sources: What it was asked for.
            found: The gradients by them, or None.
        """
        if not self._is_ours():
            return
        for source, gradient in zip(sources, found, strict=True):
            layer = of_kernel.get(id(source))
            if layer is not None and gradient is not None:
                self._asked[id(gradient)] = gradient, layer
                self._of_layer.setdefault(layer, []).append(gradient)

    def applied(self, optimizer: Any, gradients: Mapping[int, Any]) -> dict[int, Any]:
        """An optimizer is applied.

        Args:
            optimizer: The optimizer.
            gradients: By id of the layer, the gradient for its kernel, which may be None.

        Returns:
            By id of the layer, the gradient that a tape returned for its kernel, if the
            optimizer gets another tensor.
        """
        if not self._is_ours():
            return {}
        if not any(optimizer is one for one in self.optimizers):
            self.optimizers.append(optimizer)
        index = next(i for i, one in enumerate(self.optimizers) if one is optimizer)
        changed = {}
        for layer, gradient in gradients.items():
            _, source = self._asked.get(id(gradient), (None, None))
            tensor = 0 if gradient is None else id(gradient)
            self.given.setdefault(layer, []).append(Given(index, tensor, source))
            before = self._of_layer.get(layer, [])
            if source is None and gradient is not None and len(before) == 1:
                changed[layer] = before[0]
        return changed

    def asked_to_scale(self, optimizer: Any) -> None:
        """An optimizer is asked to scale the loss."""
        if self._is_ours():
            self.scaled.append(optimizer)

    def end(self) -> None:
        """The code has run: let the tensors go."""
        self._graph = None
        self._asked.clear()
        self._of_layer = {layer: [] for layer in self._of_layer}


class Before(NamedTuple):
    """What is read of an optimizer before a step."""

    optimizer: Any
    learning_rate: float
    taken: int
    scale: float


def before(optimizer: Any) -> Before:
    """Read an optimizer before a step.

    Args:
        optimizer: An optimizer of Keras.
    """
    scale = 1.0
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        scale = _number(loss_scale(optimizer))
    rate = _number(optimizer.learning_rate)
    return Before(optimizer, rate, steps_taken(optimizer), scale)


def _number(scalar: Any) -> float:
    # Not `convert_to_numpy`: numpy issues a warning for it.
    number: Any = keras.ops.cast(scalar, "float32")
    return float(number)


def info(optimizer: Any, known: Before | None, scaled: Sequence[Any]) -> OptimizerInfo:
    """An optimizer that a step has applied.

    Args:
        optimizer: The optimizer.
        known: What was read of it before the step; None if it was not known then.
        scaled: The optimizers that were asked to scale the loss in the step.
    """
    inner = inner_optimizer(optimizer)
    name = type(inner).__name__
    settings = {}
    for setting in SETTINGS:
        value = getattr(inner, setting, None)
        if isinstance(value, bool | int | float):
            settings[setting] = float(value)
    # A loss scale belongs to the optimizer that it wraps.
    others = [one for one in scaled if one is not optimizer]
    scale = known.scale if known else 1.0
    kept = 0
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        kept = 0 if any(one is optimizer for one in scaled) else -1
    for other in others:
        wraps = isinstance(other, keras.optimizers.LossScaleOptimizer)
        if wraps and other.inner_optimizer is optimizer:
            kept, scale = 1, _number(loss_scale(other))
    return OptimizerInfo(
        class_name=name if type(inner) is getattr(keras.optimizers, name, None) else "",
        learning_rate=known.learning_rate if known else math.nan,
        taken=known.taken if known else math.nan,
        took=steps_taken(optimizer) - known.taken if known else math.nan,
        scale=scale,
        kept_scale=kept,
        settings=settings,
    )


def of_kernel(
    given: Sequence[Given], kernel: Any, built_with: Set[int]
) -> dict[str, float]:
    """What is known of a kernel, by names of `updating.NAMES`, except for `source`.

    Args:
        given: What the calls of `apply` were given for it.
        kernel: The kernel.
        built_with: Ids of the variables that optimizers were built with.
    """
    if not isinstance(kernel, keras.Variable):
        return {}
    if not kernel.trainable:
        return {"stale": id(kernel) in built_with}
    given = [one for one in given if one.tensor]
    found = {
        "optimizer": given[0].optimizer if given else -1,
        "times": len(given),
        "repeats": len(given) - len({one.tensor for one in given}),
        "constrained": kernel.constraint is not None,
    }
    if given and source_of(given) is not None:
        found |= {"factor": 1.0, "remainder": 0.0}
    return found


def source_of(given: Sequence[Given]) -> int | None:
    """The id of the layer whose gradient was given in all calls; None if there is none."""
    sources = {one.source for one in given if one.tensor}
    return sources.pop() if len(sources) == 1 else None


def relation(sums: np.ndarray) -> tuple[float, float]:
    """How a gradient a that was given to an optimizer follows from a gradient t.

    Args:
        sums: Sums over the elements of a t, t t and a a, `(3,)`.

    Returns:
        The factor k for which a - k t is smallest, and the rms of that over the rms of a.
        NaN if the sums overflow or underflow.
    """
    both, own, other = (float(value) for value in sums)
    if not (0 < own < math.inf and math.isfinite(both) and math.isfinite(other)):
        return math.nan, math.nan
    factor = both / own
    rest = max(other - factor * both, 0.0)
    return factor, math.sqrt(rest / other) if other else 0.0


class Optimizers:
    """Reads optimizers before and after a step, and joins that with the notes on it.

    Args:
        models: The models, which may have optimizers.
        warn: Called with a message if they cannot be read, after which none are.
    """

    def __init__(self, models: Sequence[keras.Model], warn: Callable[[str], None]):
        self._models = models
        self._attempt = UntilItFails("optimizers cannot be read", warn)
        self._before: list[Before] = []
        # What is the same at all steps, and what it follows from.
        self._same: tuple[tuple, np.ndarray] | None = None

    def before(self, notes: Notes | None) -> None:
        """Read those that are known before a step.

        Args:
            notes: What was noted of a step before; None if there was none.
        """
        known = [getattr(model, "optimizer", None) for model in self._models]
        known += notes.optimizers if notes else []
        kinds = keras.optimizers.Optimizer, keras.optimizers.LossScaleOptimizer
        optimizers = {id(one): one for one in known if isinstance(one, kinds)}
        self._before = self._attempt(lambda: [*map(before, optimizers.values())]) or []

    def updating(
        self,
        notes: Notes | None,
        layers: Sequence[keras.Layer | None],
        kernels: Mapping[int, Any],
        relations: Mapping[int, np.ndarray],
        replicas: Mapping[int, float],
        whole: bool,
    ) -> Updating | None:
        """What is known after a step; None if that is nothing.

        Args:
            notes: What was noted of the step.
            layers: The layer of each row; None if it is not the output of a weight layer.
            kernels: The kernels by id of the layer.
            relations: By id of the layer, see `relation`.
            replicas: By id of the layer, the difference between replicas of the kernel.
            whole: Whether all of the step was followed.
        """
        if notes is None:
            return None
        return self._attempt(
            self._updating, notes, layers, kernels, relations, replicas, whole
        )

    def _updating(self, notes, layers, kernels, relations, replicas, whole):
        infos = []
        for optimizer in notes.optimizers:
            read = [one for one in self._before if one.optimizer is optimizer]
            infos.append(info(optimizer, read[0] if read else None, notes.scaled))
        found = self._same_at_all_steps(notes, layers, kernels).copy()
        if relations or replicas:
            for row, layer in enumerate(layers):
                if id(layer) in relations:
                    found[row, [_FACTOR, _REMAINDER]] = relation(relations[id(layer)])
                found[row, _REPLICAS] = replicas.get(id(layer), math.nan)
        return Updating(tuple(infos), found, whole)

    def _same_at_all_steps(self, notes, layers, kernels):
        trainable = [getattr(kernel, "trainable", None) for kernel in kernels.values()]
        key = notes, len(layers), [*kernels], trainable
        if self._same is None or self._same[0] != key:
            rows: dict[int, int] = {}
            for row, layer in enumerate(layers):
                rows.setdefault(id(layer), row)
            built_with = {
                id(variable)
                for one in self._before
                for variable in trained_variables(inner_optimizer(one.optimizer))
            }
            found = unknown(len(layers))
            for row, layer in enumerate(layers):
                if id(layer) in kernels:
                    given = notes.given.get(id(layer), [])
                    known = of_kernel(given, kernels[id(layer)], built_with)
                    for name, value in known.items():
                        found[row, NAMES.index(name)] = value
                    if "factor" in known:
                        source = source_of(given)
                        own = source == id(layer)
                        at = row if own else rows.get(source or 0, math.nan)
                        found[row, NAMES.index("source")] = at
            self._same = key, found
        return self._same[1]

"""Diagnoses a model before training: one forward pass that changes nothing."""

import contextlib
import dataclasses
import math
import random
from collections.abc import Collection
from typing import Any

import keras
import numpy as np

from activation_monitor.analysis.diagnosis import Diagnosis, diagnose
from activation_monitor.analysis.findings import check_ignored
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.recording import inputs
from activation_monitor.recording.backends import backend
from activation_monitor.recording.keras_private import compiled, steps_taken
from activation_monitor.recording.layers import all_layers, chosen_layers
from activation_monitor.recording.precision import Precision
from activation_monitor.recording.taps import Taps
from activation_monitor.views import console  # noqa: F401 - shows the result


def audit(
    model: keras.Model,
    x: Any,
    y: Any = None,
    seeds: int = 1,
    ignore: str | Collection[str] = (),
) -> Diagnosis:
    """Diagnose a model before training, from one batch.

    Runs one compiled forward pass in training mode and measures every layer as in `fit`.
    The pass does not change weights, optimizer, moving statistics of `BatchNormalization`,
    seeds of `Dropout` or the random states of Python and numpy. A model that is not built
    is built by a call.

    Args:
        model: The model, compiled or not.
        x: One batch of inputs of the model: an array `(batch, ...)`, or a list, tuple or
            dict of arrays. Use at least 16 samples of real data, because the scale of the
            inputs matters.
        y: The targets of this batch. If they are passed and the model is compiled, the
            gradients of the loss with respect to the layer outputs are measured as well.
            Defaults to `None`.
        seeds: The number of initializations to audit. The first one is the model itself;
            the others are clones with new random weights. A finding is reported if more
            than half of them have it, so that it is a property of the initializer and not
            of one random draw. Defaults to `1`.
        ignore: Codes of findings that are not reported. Defaults to `()`.

    Returns:
        A `Diagnosis`, which prints as a table. With several seeds, its `draws` hold one
        diagnosis for each.

    Raises:
        TypeError: If the model is not a `keras.Model`, or `x` or `y` does not hold
            numbers.
        ValueError: If the batch is empty or does not fit the model; if a code in `ignore`
            does not exist; if `y` has another number of samples than `x`, or is passed
            with a model that is not compiled; if `seeds` is not a positive integer, or is
            above 1 and the model cannot be cloned.

    Example:

    ```python
    assert audit(model, x[:64], seeds=5).healthy
    ```
    """
    backend.check()
    ignore = check_ignored(ignore, "audit")
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"audit: `model` must be a keras.Model. Received: {type(model).__name__}."
        )
    if isinstance(seeds, bool) or not isinstance(seeds, int | np.integer) or seeds < 1:
        raise ValueError(
            f"audit: `seeds` must be a positive integer. Received: seeds={seeds!r}. "
            "Use 1 to audit the present weights only."
        )
    x = inputs.tensors(x, "audit")
    if y is not None:
        if not model.compiled:
            raise ValueError(
                "audit: with targets `y`, the model must be compiled, because the "
                "gradients of its loss are measured. Received: a model without a loss. "
                "Call `model.compile` first, or omit `y`."
            )
        y = inputs.tensors(y, "audit", "y")
        samples = keras.tree.flatten(x)[0].shape[0]
        targets = keras.tree.flatten(y)[0].shape[0]
        if targets != samples:
            raise ValueError(
                f"audit: `y` must hold the targets of the {samples} samples of `x`. "
                f"Received: {targets} targets."
            )

    with inputs.explained(model, x, "audit"):
        if not model.built:
            model(keras.tree.map_structure(lambda array: array[:1], x))
        with _unchanged(model):
            draws = [_ForwardPass(model, model).measured(x, y)]
            if seeds > 1:
                draws += _measured_clones(model, x, y, range(1, seeds))
    each = tuple(diagnose([snapshot], ignore) for snapshot in draws)
    return each[0] if seeds == 1 else _in_most(each)


class _ForwardPass:
    """Measures forward passes of a model or of a clone. The pass is traced once."""

    def __init__(self, model, original):
        def ignore(message):
            del message  # a layer that cannot be measured is left out silently

        self.model = model
        self.original = original
        self.taps = Taps(
            *([model], chosen_layers(None, model)),
            histograms=False,
            updates=False,
            warn=ignore,
        )
        self._precision = Precision()
        self._passes = {}
        # A clone has new random weights, even if the original is trained.
        trained = steps_taken(getattr(model, "optimizer", None)) if model is original else 0
        self._step = trained

    def measured(self, x, y) -> Snapshot:
        found, loss = self._run(x, y)
        self._precision.after(found)
        if self._precision.exact:
            found, loss = self._run(x, y)
            self._precision.after(found)
        # One pass, or two over the same batch: there is no window.
        found = found._replace(loss=loss, activity=None)
        return Snapshot(self._step, **found._asdict())

    def _run(self, x, y):
        exact = self._precision.exact
        if exact not in self._passes:
            forward = self.taps.during(self._forward, exact)
            variables = [*_variables(self.model), *_variables(self.original)]
            each = {id(variable): variable for variable in variables}
            self._passes[exact] = compiled(forward, [*each.values()])
        self.taps.before_step(exact)
        loss = backend.run_step(self._passes[exact], x, y)
        return self.taps.read(), math.nan if loss is None else float(loss)

    def _forward(self, x, y):
        if y is None:
            self.model(x, training=True)
            return None

        def loss():
            outputs = self.model(x, training=True)
            return self.original.compute_loss(x, y, outputs, training=True)

        return self.taps.derived(loss, self.model.trainable_variables)


def _measured_clones(model, x, y, seeds):
    forward = None
    for seed in seeds:
        random.seed(seed)  # Keras' initializers draw their seeds from it
        np.random.seed(seed)  # noqa: NPY002 - for custom initializers
        clone = _clone(model)
        if not clone.built:
            clone(keras.tree.map_structure(lambda array: array[:1], x))
        if forward is None:
            forward = _ForwardPass(clone, model)
        else:
            forward.model.set_weights(clone.get_weights())
        yield forward.measured(x, y)


def _clone(model):
    compiled = model.compiled
    # The clone does not need to be compiled, and a custom loss might prevent it.
    model.compiled = False
    try:
        try:
            return keras.models.clone_model(model)
        except ValueError:  # a subclassed model
            return type(model).from_config(model.get_config())
    except Exception as error:
        raise ValueError(
            "audit: `seeds` above 1 needs a model that can be cloned: a Functional or "
            "Sequential model, or a model with `get_config`. Received: a "
            f"{type(model).__name__}, whose clone failed with {type(error).__name__}: "
            f"{error}. Use seeds=1, or audit several models yourself."
        ) from error
    finally:
        model.compiled = compiled


def _in_most(draws):
    """The first draw's diagnosis with the findings of more than half of the draws.

    A trained model does not represent its initializer. In this case only the clones are
    counted.
    """
    trained = draws[0].not_assessed and not draws[1].not_assessed
    counted = draws[1:] if trained else draws
    findings = []
    for code in dict.fromkeys(f.code for draw in counted for f in draw.findings):
        same = [f for draw in counted for f in draw.findings if f.code == code]
        if 2 * len(same) <= len(counted):
            continue
        evidence = same[0].evidence
        evidence = evidence | {"draws": float(len(counted)), "in": float(len(same))}
        drawn = "new initializations" if trained else "initializations"
        message = f"{same[0].message} Found in {len(same)} of {len(counted)} {drawn}"
        rates = [f.evidence["growth"] for f in same if "growth" in f.evidence]
        if rates:
            low, high = min(rates), max(rates)
            evidence |= {"growth_low": low, "growth_high": high}
            message += f", with growth from {low:.3g} to {high:.3g} per layer"
        findings.append(
            dataclasses.replace(same[0], evidence=evidence, message=f"{message}.")
        )
    return dataclasses.replace(draws[0], findings=tuple(findings), draws=draws)


def _variables(model):
    """The variables that a forward pass may read or assign."""
    variables = [*model.variables, *getattr(model, "metrics_variables", ())]
    for layer in all_layers(model):  # states of stateful recurrent layers
        states = keras.tree.flatten(getattr(layer, "states", None))
        variables += [state for state in states if isinstance(state, keras.Variable)]
    return variables


@contextlib.contextmanager
def _unchanged(model):
    """Restore the state that cloning or a forward pass in training mode changes."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    # Weights too: SpectralNormalization assigns its kernel in the forward pass.
    before = [(v, v.numpy()) for v in _variables(model)]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002

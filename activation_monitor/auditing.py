"""The same look before any training: one forward pass, and nothing is changed."""

import contextlib
import dataclasses
import random
from collections.abc import Collection

import keras
import numpy as np

from activation_monitor.analysis.diagnosis import Diagnosis, diagnose
from activation_monitor.analysis.findings import check_ignored
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.recording import inputs
from activation_monitor.recording.backends import backend
from activation_monitor.recording.keras_private import steps_taken
from activation_monitor.recording.layers import all_layers, chosen_layers
from activation_monitor.recording.precision import Precision
from activation_monitor.recording.taps import Taps
from activation_monitor.views import console  # noqa: F401 - shows the result


def audit(
    model: keras.Model,
    x,
    y=None,
    seeds: int = 1,
    ignore: str | Collection[str] = (),
) -> Diagnosis:
    """Diagnose a model before any training, from one batch.

    One forward pass in training mode, compiled, with every layer measured as in `fit`.
    Weights, optimizer, statistics of BatchNormalization, seeds of Dropout and Python's and
    numpy's random state are left exactly as they were. A model that is not built is
    built, by being called.

    Args:
        model: The model, compiled or not.
        x: One batch of inputs as the model takes them: an array, or a list or dictionary
            of arrays. 16 samples or more; real ones, since their size matters too.
        y: The targets of that batch. With them and a compiled model, the gradients that
            come back through every layer are measured as well.
        seeds: How many initializations to look at. The first is the model's own; the
            others are drawn anew for a clone. What is found in most of them is
            reported, so that it is the initializer's doing and not that of one draw.
        ignore: Codes of findings not to report.

    Returns:
        A `Diagnosis`, which prints as a table. With several seeds its `draws` hold that of
        each.

    Raises:
        TypeError: If the model is not a `keras.Model`, or `x` or `y` does not hold
            numbers.
        ValueError: For a batch that is empty or does not fit the model, a ignored code
            that does not exist, targets of other samples or for a model that is not
            compiled, or several seeds for a model that cannot be cloned.

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
            "1 looks at the weights as they are."
        )
    x = inputs.tensors(x, "audit")
    if y is not None:
        if not model.compiled:
            raise ValueError(
                "audit: with targets `y` the gradients of the loss are measured, and the "
                "model has no loss. Call `model.compile` before, or leave `y` out."
            )
        y = inputs.tensors(y, "audit", "y")
        samples = keras.tree.flatten(x)[0].shape[0]
        targets = keras.tree.flatten(y)[0].shape[0]
        if targets != samples:
            raise ValueError(
                f"audit: `y` must hold the targets of the {samples} samples of `x`. "
                f"Received: {targets}."
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
    """Measures forward passes of a model, or of a clone of it, traced once."""

    def __init__(self, model, original):
        def ignore(message):
            del message  # a layer that cannot be measured is left out

        self.model = model
        self.original = original
        self.taps = Taps([model], chosen_layers(None, model), False, warn=ignore)
        self._precision = Precision()
        self._passes = {}
        # A clone is drawn again, whatever the original has learned.
        trained = steps_taken(getattr(model, "optimizer", None)) if model is original else 0
        self._step = trained

    def measured(self, x, y) -> Snapshot:
        found = self._run(x, y)
        self._precision.after(found)
        if self._precision.exact:
            found = self._run(x, y)
            self._precision.after(found)
        return Snapshot(self._step, *found)

    def _run(self, x, y):
        exact = self._precision.exact
        if exact not in self._passes:
            forward = self.taps.during(self._forward, exact)
            self._passes[exact] = backend.compiled(forward)
        backend.run_step(self._passes[exact], x, y)
        return self.taps.read()

    def _forward(self, x, y):
        outputs = self.model(x, training=True)
        if y is not None:
            loss = self.original.compute_loss(x, y, outputs, training=True)
            self.taps.measure_gradients(loss)


def _measured_clones(model, x, y, seeds):
    forward = None
    for seed in seeds:
        random.seed(seed)  # from which Keras' initializers draw their seeds
        np.random.seed(seed)  # noqa: NPY002 - for initializers of the user's own
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
    # A clone needs no compilation of its own, which a loss of the user's might forbid.
    model.compiled = False
    try:
        try:
            return keras.models.clone_model(model)
        except ValueError:  # it is subclassed
            return type(model).from_config(model.get_config())
    except Exception as error:
        raise ValueError(
            "audit: `seeds` above 1 needs a model that can be made anew: a Functional or "
            "Sequential one, or one with `get_config`. Making a "
            f"{type(model).__name__} failed with {type(error).__name__}: {error}. Use "
            "seeds=1, or audit several models yourself."
        ) from error
    finally:
        model.compiled = compiled


def _in_most(draws):
    """The first draw's diagnosis, with what more than half of all draws show. A model that
    was trained shows no initialization: then the others are counted."""
    trained = draws[0].not_assessed and not draws[1].not_assessed
    counted = draws[1:] if trained else draws
    findings = []
    for code in dict.fromkeys(f.code for draw in counted for f in draw.findings):
        same = [f for draw in counted for f in draw.findings if f.code == code]
        if 2 * len(same) <= len(counted):
            continue
        evidence = same[0].evidence
        evidence = evidence | {"draws": float(len(counted)), "in": float(len(same))}
        message = f"{same[0].message} So in {len(same)} of {len(counted)} initializations"
        message += " drawn again" if trained else ""
        rates = [f.evidence["growth"] for f in same if "growth" in f.evidence]
        if rates:
            low, high = min(rates), max(rates)
            evidence |= {"growth_low": low, "growth_high": high}
            message += f", by {low:.3g} to {high:.3g} times per layer"
        findings.append(
            dataclasses.replace(same[0], evidence=evidence, message=f"{message}.")
        )
    return dataclasses.replace(draws[0], findings=tuple(findings), draws=draws)


@contextlib.contextmanager
def _unchanged(model):
    """Puts back what a forward pass in training mode, or cloning, changes."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    # All of them: SpectralNormalization assigns its kernel in the forward pass.
    variables = [*model.variables, *getattr(model, "metrics_variables", ())]
    for layer in all_layers(model):  # of stateful recurrent layers
        states = keras.tree.flatten(getattr(layer, "states", None))
        variables += [state for state in states if isinstance(state, keras.Variable)]
    before = [(v, v.numpy()) for v in variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002

"""Steps of the user's own, and blocks of code, which are given state and return it.

The variables of a model do not know their values in such a loop. They are found by what
`stateless_call` and `stateless_apply` are given and return while the step's code runs, and
by where these very arrays are among the arguments and the outputs of the step. A value that
is not found so is not known.
"""

# The environment of a type checker may have no JAX.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import contextlib
import functools
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import keras

from activation_monitor.recording.backends.jax import graphs, steps
from activation_monitor.recording.patches import wrapped_method

Values = list[tuple[Any, Any]]
"""Variables, and the value of each; None if it is not known."""


class _Places:
    """Where the values of variables are in a compiled step.

    Args:
        of: Variables; the index of the value before the step among the leaves of its
            arguments; and that of the value after it among those of its outputs. None for
            a value that is not there.
    """

    def __init__(self, of: list[tuple[Any, int | None, int | None]]):
        self.of = of


class _Seen:
    """The values of variables that models and optimizers were given and returned.

    Attributes:
        values: By `id` of a variable: the variable, its own value, and those values.
    """

    def __init__(self):
        self.values: dict[int, tuple[Any, Any, list]] = {}

    def note(self, variables: Sequence[Any], values: Any) -> None:
        """Note that these variables have these values, if there is one for each."""
        values = [*values]
        if len(variables) == len(values):
            for variable, value in zip(variables, values, strict=True):
                own = variable._value
                known = self.values.setdefault(id(variable), (variable, own, []))
                known[-1].append(graphs.value_of(value))

    def places(self, given: list, returned: list) -> _Places:
        """The first value of each variable in `given`, the last one in `returned`.

        A variable whose own value the step uses is left out.
        """
        inputs = {id(graphs.value_of(value)): i for i, value in enumerate(given)}
        outputs = {id(graphs.value_of(value)): i for i, value in enumerate(returned)}
        found = []
        for variable, own, values in self.values.values():
            first = [inputs[id(value)] for value in values if id(value) in inputs]
            last = [outputs[id(value)] for value in values if id(value) in outputs]
            if first or values[0] is not own:
                found.append((variable, (first or [None])[0], (last or [None])[-1]))
        return _Places(found)

    def around(self, before: Values) -> tuple[Values, Values]:
        """The values before and after code that has run eagerly.

        Args:
            before: The own values of the variables of the models, before it.
        """
        first = {id(variable): (variable, value) for variable, value in before}
        last = []
        for variable, own, values in self.values.values():
            values = [one for one in values if not isinstance(one, jax.core.Tracer)]
            if values:
                first[id(variable)] = variable, values[0]
                if variable._value is own:  # else it was assigned the value after it
                    last.append((variable, values[-1]))
        return [*first.values()], last


@contextlib.contextmanager
def _noted() -> Iterator[_Seen]:
    seen = _Seen()

    def call(stateless_call, layer, trained, others, *args, **kwargs):
        seen.note(layer.trainable_variables, trained)
        seen.note(layer.non_trainable_variables, others)
        returned = stateless_call(layer, trained, others, *args, **kwargs)
        seen.note(layer.non_trainable_variables, returned[1])
        return returned

    def apply(stateless_apply, optimizer, state, gradients, trained):
        trained = [*trained]
        seen.note(optimizer.variables, state)
        seen.note(optimizer._trainable_variables, trained)
        returned = stateless_apply(optimizer, state, gradients, trained)
        seen.note(optimizer._trainable_variables, returned[0])
        seen.note(optimizer.variables, returned[1])
        return returned

    kinds = keras.optimizers.Optimizer, keras.optimizers.LossScaleOptimizer
    with contextlib.ExitStack() as stack:
        stack.enter_context(wrapped_method(keras.Layer, "stateless_call", call))
        for kind in kinds:
            stack.enter_context(wrapped_method(kind, "stateless_apply", apply))
        yield seen


def is_jitted(step: Any) -> bool:
    """Whether a function was made by `jax.jit`."""
    return hasattr(step, "trace") and hasattr(step, "__wrapped__")


def _jitted_again(step, function):
    """Another function, compiled with the options that a function was compiled with.

    `jax.jit` of the same function would use the trace that exists.
    """
    options = getattr(step, "_jit_info", None)
    if options is None:  # another version of JAX
        raise NotImplementedError(
            "the options of this `jax.jit` cannot be read. Pass the function itself to "
            "`watch`, and compile what it calls with `jax.jit`"
        )
    # By names if they are known: JAX 0.7 does not count static arguments in the numbers.
    names, numbers = options.donate_argnames, options.donate_argnums
    by_name = len(names) >= len(numbers)
    donated = {"donate_argnames": names} if by_name else {"donate_argnums": numbers}
    return jax.jit(
        function,
        in_shardings=_tree(options.in_shardings_treedef, options.in_shardings_leaves),
        out_shardings=_tree(options.out_shardings_treedef, options.out_shardings_leaves),
        static_argnums=options.static_argnums or None,
        static_argnames=options.static_argnames or None,
        **donated,
        keep_unused=options.keep_unused,
        compiler_options=dict(options.compiler_options_kvs) or None,
    )


def _tree(structure, leaves):
    return jax.tree.unflatten(structure, leaves)


class SecondTrace:
    """A user's step that also returns what is measured in it.

    Args:
        step: A function that `jax.jit` has made, or a Python function.
    """

    def __init__(self, step: Callable):
        self._is_jitted = is_jitted(step)
        self._owner: tuple = ()
        if self._is_jitted and isinstance(step, types.MethodType):
            self._owner, step = (step.__self__,), step.__func__
        function = step.__wrapped__ if self._is_jitted else step

        @functools.wraps(function)
        def measured(*args, **kwargs):
            with graphs.new_run() as run, _noted() as seen:
                outputs = function(*args, **kwargs)
                given, returned = map(jax.tree.leaves, ((args, kwargs), outputs))
                about = seen.places(given, returned) if self._is_jitted else seen
                return steps.recorded(outputs, run.taken(), about)

        self._step = _jitted_again(step, measured) if self._is_jitted else measured
        self._ran: Any = None

    def before(self, args: tuple, kwargs: dict, variables: Sequence[Any]) -> Values:
        """Trace the step; or run it, if it is not compiled.

        Args:
            args: Its arguments.
            kwargs: Those with names.
            variables: The variables of the models.

        Returns:
            The values of variables before it.
        """
        if not self._is_jitted:
            own = _own(variables)
            outputs = self._step(*args, **kwargs)
            before, after = steps.about(outputs).around(own)
            self._ran = outputs, after
            return before
        args = (*self._owner, *args)
        places = steps.about(self._step.trace(*args, **kwargs).out_info)
        given = jax.tree.leaves((args, kwargs))
        return [
            (variable, None if first is None else given[first])
            for variable, first, _ in places.of
        ]

    def run(self, args: tuple, kwargs: dict) -> tuple[Any, Values]:
        """Run the step, unless `before` has; returns its outputs and the values after."""
        if not self._is_jitted:
            (outputs, after), self._ran = self._ran, None
            return steps.taken(outputs), after
        found = self._step(*self._owner, *args, **kwargs)
        places, outputs = steps.about(found), steps.taken(found)
        returned = jax.tree.leaves(outputs)
        return outputs, [
            (variable, None if last is None else returned[last])
            for variable, _, last in places.of
        ]


def _own(variables):
    return [(variable, variable._value) for variable in variables]


def second_trace(step: Callable) -> tuple[SecondTrace, bool, bool]:
    """A user's step that is measured.

    Args:
        step: A function that `jax.jit` has made, or a Python function.

    Returns:
        The step; that its code runs within a call; and that XLA compiles it.
    """
    return SecondTrace(step), True, True


def values_before(
    step: SecondTrace, args: tuple, kwargs: dict, variables: Sequence[Any]
) -> Values:
    """The values of variables before a step, see `SecondTrace`."""
    return step.before(args, kwargs, variables)


def run_own(step: SecondTrace, args: tuple, kwargs: dict) -> tuple[Any, Values]:
    """Run a user's step; returns its outputs, and the values of variables after it."""
    return step.run(args, kwargs)


class Block:
    """A block of code that runs eagerly and is measured as one step.

    Args:
        variables: The variables of the models.

    Attributes:
        before: The values of variables before it.
        after: The values after it.
    """

    def __init__(self, variables: Sequence[Any]):
        self.before: Values = _own(variables)
        self.after: Values = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Within the block, what is measured waits for its end."""
        with graphs.new_run() as run, _noted() as seen:
            yield
            found = steps.recorded(None, run.taken())
        self.before, self.after = seen.around(self.before)
        steps.taken(found)

"""The tensors of an eager step, what they were computed from, and gradients by them.

A sampled step runs eagerly, and nothing is traced. Autograd knows neither tensors behind
frozen layers nor those of an evaluation. So while a sampled step runs, a
`TorchFunctionMode` notes for each result which tensors it was computed from. It keeps no
tensor alive.
"""

# The environment of a type checker may have no PyTorch.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from activation_monitor.recording.patches import wrapped_method

_running = threading.local()


class _Source:
    """Stands for the values of a tensor, and leads to those it was computed from."""

    __slots__ = ("parents",)

    def __init__(self, parents: tuple["_Source", ...] = ()):
        self.parents = parents


def _tensors_in(value):
    """The tensors in arguments or results, which may be nested."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors_in(one)
    elif isinstance(value, dict):
        yield from _tensors_in([*value.values()])


class _Noting(TorchFunctionMode):
    """Notes which tensors each result is computed from.

    Only what is computed from a tensor that someone has asked for is noted: weights,
    gradients and what an optimizer does with them are not.
    """

    def __init__(self):
        super().__init__()
        self._sources: dict[int, tuple[weakref.ref, _Source]] = {}  # by id of the tensor
        self.hooks: list[Any] = []  # of gradients

    def known(self, tensor):
        """Stands for the present values of a tensor; None if they are not noted."""
        reference, source = self._sources.get(id(tensor), (None, None))
        # Another tensor may have the id of one that is gone.
        return source if reference is not None and reference() is tensor else None

    def pass_on(self, tensor):
        """From now on the values of a tensor are those that a layer has passed on."""
        self._note(tensor, _Source((self.source_of(tensor),)))

    def source_of(self, tensor):
        """Stands for the present values of a tensor, which are noted from now on."""
        return self.known(tensor) or self._note(tensor, _Source())

    def _note(self, tensor, source):
        self._sources[id(tensor)] = weakref.ref(tensor), source
        return source

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":  # most calls read a shape or a dtype
            results = func(*args, **kwargs)
            if isinstance(results, torch.Tensor):
                self._note_results(name, args, self._known_in(args), results)
            return results
        given = [*args, *kwargs.values()]
        known = self._known_in(given)  # before the call, which may change a tensor in place
        results = func(*args, **kwargs)
        self._note_results(name, given, known, results)
        return results

    def _note_results(self, name, given, known, results):
        """Note what the results of a function are computed from, or what it changes."""
        if not known:
            return
        with contextlib.suppress(Exception):  # the user's step goes on
            source = _Source(tuple(known.values()))
            # Functions of lists change each of them. They are called with keywords, too.
            changed = given[:1] if _changes_in_place(name) else ()
            new = [one for one in _tensors_in(results) if id(one) not in known]
            for one in [*_tensors_in(changed), *new]:
                self._note(one, source)

    def _known_in(self, arguments):
        """What stands for the tensors in arguments, by their id."""
        try:
            found = {id(one): self.known(one) for one in _tensors_in(arguments)}
        except Exception:  # the user's step goes on
            return {}
        return {key: source for key, source in found.items() if source is not None}


def _changes_in_place(name):
    """Whether a function changes its first argument: `add_`, `__iadd__`, `__setitem__`."""
    if name.startswith("__"):
        return name in _IN_PLACE
    return name.endswith("_")


_OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
_OF_BITS = ("and", "or", "xor", "lshift", "rshift")
_IN_PLACE = {"__setitem__", *(f"__i{name}__" for name in (*_OPERATORS, *_OF_BITS))}


def eagerly() -> contextlib.AbstractContextManager[None]:
    """Within the block, functions of `torch.compile` run eagerly: layers can be tapped, and
    sources noted, in code that runs, and not in code that is compiled."""
    return torch.compiler.set_stance("force_eager")


@contextlib.contextmanager
def sources_noted() -> Iterator[None]:
    """Within the block, it is noted what each tensor is computed from."""
    before, noting = getattr(_running, "noting", None), _Noting()
    _running.noting = noting
    try:
        with eagerly(), noting:
            yield
    finally:
        _running.noting = before
        # A hook holds what it measures for, and tensors of the step with it. And a later
        # backward pass belongs to another step.
        for hook in noting.hooks:
            hook.remove()


@contextlib.contextmanager
def measuring() -> Iterator[None]:
    """Within the block, tensors are measured: nothing is derived, and nothing noted."""
    with torch.no_grad(), torch._C.DisableTorchFunction():
        yield


def running_now() -> tuple[str, int]:
    """Identify the thread that runs this code."""
    return "thread", threading.get_ident()


def is_tensor(value: Any) -> bool:
    """Whether a value is a dense tensor of the running step, not a symbolic Keras one."""
    return isinstance(value, torch.Tensor) and _is_dense(value) and not value.is_meta


def _is_dense(tensor):
    return tensor.layout is torch.strided and not tensor.is_nested


def is_ragged_or_sparse_float(value: Any) -> bool:
    """Whether a value holds floating-point numbers in a nested or sparse tensor."""
    return (
        isinstance(value, torch.Tensor)
        and not _is_dense(value)
        and value.dtype.is_floating_point
    )


def is_recomputing() -> bool:
    """Whether a backward pass runs, in which a checkpoint repeats its forward pass; or a
    transform of `torch.func`, whose tensors must not leave it."""
    transform = torch._C._functorch.peek_interpreter_stack()
    return transform is not None or torch._C._current_graph_task_id() != -1


def graph() -> None:
    """None: steps run eagerly."""


def outermost_graph() -> None:
    """None: steps run eagerly."""


def in_function_within(root: Any) -> bool:
    """False: nothing is traced, see `sources_noted`."""
    del root
    return False


def key(tensor: Any) -> Any:
    """Identifies the values of a tensor."""
    noting = getattr(_running, "noting", None)
    if noting is None:
        return id(tensor)
    return tensor if isinstance(tensor, _Source) else noting.source_of(tensor)


def computed_from(tensor: Any) -> list | None:
    """What the values of a tensor were computed from; None where that is not noted."""
    if getattr(_running, "noting", None) is None:
        return None
    return [*key(tensor).parents]


def same_but_new(tensor: Any) -> Any:
    """The tensor, which is the output of another layer from now on.

    A new one would change the order in which gradients are added up.
    """
    noting = getattr(_running, "noting", None)
    if noting is not None:
        noting.pass_on(tensor)
    return tensor


def measured_first(tensor: Any, record: Any) -> Any:
    """The tensor, which has been measured."""
    del record
    return tensor


def gradient_measured(tensor: Any, measure: Callable[[Any], Any]) -> Any:
    """The tensor, whose gradient is measured once a backward pass knows it.

    Args:
        tensor: A tensor of the running step.
        measure: Called with the gradient, while the backward pass runs.
    """
    noting = getattr(_running, "noting", None)
    if tensor.requires_grad and noting is not None:

        def measure_only(gradient):
            measure(gradient)  # what a hook returns would take the place of the gradient

        noting.hooks.append(tensor.register_hook(measure_only))
    return tensor


def derived(
    function: Callable[[list], Any],
    values: list,
    tensors: Callable[[], list[tuple[Any, Callable[[Any], Any]]]],
) -> Any:
    """A scalar, after a backward pass, see `gradient_measured`.

    Args:
        function: Function of the values; returns the scalar.
        values: The values of the variables that are trained.
        tensors: Not used.

    Returns:
        The scalar.
    """
    del tensors
    with torch.enable_grad():
        of = function(values)
        by = [value for value in values if value.requires_grad]
        if by and of.requires_grad:
            # This leaves the gradients alone that the variables hold.
            torch.autograd.grad(of, by, allow_unused=True)
    return of.detach()


@contextlib.contextmanager
def gradients_measured(
    taps: Callable[[list], list], asked: Callable[[list, list], None]
) -> Iterator[None]:
    """Within the block, tell `asked` which gradients backward passes compute.

    Args:
        taps: Not used: see `gradient_measured`.
        asked: Called with the tensors that a backward pass leads to, or that it was asked
            for, and the gradients by them.
    """
    del taps

    def noted_backward(backward, tensor, *args, **kwargs):
        leaves = []
        with contextlib.suppress(Exception):  # the user's step goes on
            leaves = _leaves(tensor)  # before: a backward pass frees what leads to them
        result = backward(tensor, *args, **kwargs)
        asked(leaves, [leaf.grad for leaf in leaves])
        return result

    def noted_grad(grad, outputs, inputs, *args, **kwargs):
        if not isinstance(inputs, torch.Tensor):
            inputs = tuple(inputs)  # it may be an iterator
        found = grad(outputs, inputs, *args, **kwargs)
        sources = [*_tensors_in(inputs)]
        if len(sources) == len(found):  # edges of the graph are no tensors
            asked(sources, [*found])
        return found

    with (
        wrapped_method(torch.Tensor, "backward", noted_backward),
        wrapped_method(torch.autograd, "grad", noted_grad),
    ):
        yield


def _leaves(tensor):
    """The tensors whose `grad` a backward pass from this one adds to."""
    found, seen, todo = [], set(), [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, torch.Tensor):  # the node adds to the gradient of a leaf
            found.append(leaf)
        todo.extend(following for following, _ in node.next_functions)
    return found


def is_added_up(gradient: Any) -> bool:
    """Whether to measure a gradient would change a sum: it is only read."""
    del gradient
    return False


def without_gradients(function: Callable) -> Callable:
    """A function of ours in which nothing is derived."""

    @functools.wraps(function)
    def called(*args, **kwargs):
        with torch.no_grad():
            return function(*args, **kwargs)

    return called

"""What one run of the step's Python code has called so far, and what came from what."""

import collections
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

import keras

from activation_monitor.recording.backends import backend


class Parents(NamedTuple):
    """What a tensor was computed from.

    Attributes:
        rows: Rows of the tapped tensors without another tapped tensor in between.
        traced: Whether the trace says so. If not, it is the tensor that was tapped before.
        normalized: Whether a normalization that is not measured itself is in between.
    """

    rows: tuple[int, ...]
    traced: bool
    normalized: bool


@dataclass
class Trace:
    """One run of the step's Python code by one replica: once while it is traced, or at
    every step when it runs eagerly.

    Attributes:
        exact: Whether the exact pass is taken.
        fused: Whether XLA compiles the step.
        repeats: Whether what is traced runs several times before the records are read.
        step_graph: The graph that the step's own code makes; None if it runs eagerly.
        root: The graph of the outermost of them.
        calling: The layers whose calls are running, the outermost first.
        owners: By row, the layers that may own variables which it depends on directly: its
            own one, and those around it that have some.
        rows: Rows that were measured, in the order of the calls.
        calls: How often each layer was called, by id.
        leaf_graphs: The graphs of the leaf calls so far.
        tensors: The measured tensors of the root graph, and that graph, by row.
    """

    exact: bool
    fused: bool
    repeats: bool
    step_graph: object
    root: object = None
    calling: list[keras.Layer] = field(default_factory=list)
    owners: dict[int, list[keras.Layer]] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    calls: collections.Counter = field(default_factory=collections.Counter)
    leaf_graphs: list = field(default_factory=list)
    tensors: dict[int, tuple[object, object]] = field(default_factory=dict)
    # By key of tensor. `_alive` keeps the tensors, so that no id is used twice.
    _row_of: dict[Hashable, int] = field(default_factory=dict)
    _outputs: set[Hashable] = field(default_factory=set)
    _normalized: set[Hashable] = field(default_factory=set)
    _alive: list = field(default_factory=list)

    def add_outputs(self, tensors: list) -> None:
        """Note that layers output these tensors."""
        self._alive.extend(tensors)
        self._outputs.update(map(backend.key, tensors))

    def add_normalized(self, tensors: list) -> None:
        """Note that a normalization layer that is not measured output these tensors."""
        self._normalized.update(map(backend.key, tensors))

    def add_measured(self, row: int, tensor, after) -> None:
        """Note that a tensor was measured, and which one the step goes on with."""
        self.rows.append(row)
        self._row_of[backend.key(tensor)] = self._row_of[backend.key(after)] = row
        self._alive.append(tensor)
        self.add_outputs([after])
        if backend.graph() is self.root:
            self.tensors[row] = tensor, self.root

    def tensors_here(self) -> dict[int, object]:
        """The measured tensors of the graph that is being traced now, by row."""
        now = backend.graph()
        return {
            row: tensor for row, (tensor, graph) in self.tensors.items() if graph is now
        }

    def is_output(self, tensor) -> bool:
        """Whether a layer output this tensor, or it was measured as an input."""
        return backend.key(tensor) in self._outputs

    def row_of(self, tensor) -> int | None:
        """The row of a tensor that was measured; None for another one."""
        return self._row_of.get(backend.key(tensor))

    def parents(self, tensors: list) -> Parents:
        """What these tensors were computed from, all together."""
        found, seen, todo = set(), set(), list(tensors)
        traced, normalized = backend.graph() is self.root, False
        while todo:
            tensor = todo.pop()
            key = backend.key(tensor)
            if key in self._row_of:
                found.add(self._row_of[key])
            elif key not in seen:
                seen.add(key)
                normalized = normalized or key in self._normalized
                sources = backend.computed_from(tensor)
                traced = traced and sources is not None
                todo.extend(sources or ())
        if not traced and not found:
            found = set(self.rows[-1:])
        return Parents(tuple(sorted(found)), traced, normalized)

"""The measurements of one step, and of all steps."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from activation_monitor.analysis import histogram, moments
from activation_monitor.analysis.hints import no_such
from activation_monitor.analysis.shown import count, one_line

KINDS = (
    "weight",
    "embedding",
    "normalization",
    "activation",
    "pooling",
    "merge",
    "input",
    "other",
)
"""What a tapped tensor comes from, as far as the diagnosis tells apart. `weight`: a
layer with a kernel. `input`: not a layer's output but what a layer was given, where no
tapped layer made it: the model's input, or a sum written as `x + f(x)`."""


@dataclass(frozen=True)
class LayerInfo:
    """What is known of one tapped tensor besides its measurements.

    Attributes:
        name: Unique in a snapshot: the layer's Keras path, with `/0`, `/1` for the calls
            of a layer called more than once, `:0`, `:1` (or `:key`) for one of several
            outputs and `:input` for what the layer was given.
        class_name: The layer's class.
        kind: One of `KINDS`.
        activation: Name of the activation function applied last, `linear` if none.
        width: Number of independent output units: channels, for a convolution.
        dtype: Of the tensor, for example `float32`.
        parents: Indices of the tapped tensors it was computed from, without another
            tapped tensor in between.
        traced: Whether the parents were read from the traced graph. If not (a layer
            inside a loop, or an eager step), they are the tensor tapped before.
        normalized: Whether a normalization layer that is not measured itself stands
            between the parents and this tensor.
        fan_in: How many products add up in one output (zero padding not counted), 0 if
            there is no one kernel.
        initializer: What the kernel was drawn with, as Keras code; empty if not known.
        changed: Whether the layer's weights are known to have left their initial values
            before the monitor began (trained, loaded or assigned): a bias or a moving
            statistic can show it, a kernel cannot.
    """

    name: str
    class_name: str
    kind: str
    activation: str
    width: int
    dtype: str
    parents: tuple[int, ...]
    traced: bool = True
    normalized: bool = False
    fan_in: float = 0.0
    initializer: str = ""
    changed: bool = False

    @one_line
    def __repr__(self) -> str:
        what = (self.class_name, self.activation, f"width {self.width}", self.dtype)
        return f"{self.name}: {', '.join(what)}"


@dataclass(frozen=True)
class Snapshot:
    """What was measured at one step.

    Attributes:
        step: `optimizer.iterations` before the step (the first of them, if one
            execution runs several steps).
        layers: One `LayerInfo` for each tapped tensor, in the order of the calls.
        records: Float64 array of shape `(layers, len(moments.FIELDS))`.
        histograms: Float64 array of shape `(layers, len(histogram.SLOTS))`, or None. Of
            several steps they show the last.
        steps: Training steps that were run in one execution and whose records are merged
            here: `steps_per_execution`. The last execution of an epoch may run fewer.
        kernels: Records of the layers' kernels before the step, of the same shape as
            `records`, empty ones for layers without; or None if they were not measured.
        gradients: Records of the loss's gradients by the tensors, in the same way.
        evaluation: Whether these are forward passes of evaluation. They are measured and
            never judged.
    """

    step: int
    layers: tuple[LayerInfo, ...]
    records: np.ndarray
    histograms: np.ndarray | None = None
    steps: int = 1
    kernels: np.ndarray | None = None
    gradients: np.ndarray | None = None
    evaluation: bool = False

    @property
    def last_step(self) -> int:
        """The last step whose measurements are merged here."""
        return self.step + self.steps - 1

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(layer.name for layer in self.layers)

    def statistic(self, name: str) -> np.ndarray:
        """A statistic of every layer.

        Args:
            name: A name from `moments.STATISTICS`, such as "std" or "rms".

        Returns:
            Array of shape `(layers,)`, NaN where nothing finite was measured.

        Raises:
            KeyError: If there is no such statistic.
        """
        return _statistic("Snapshot.statistic", name)(self.records)

    def field(self, name: str) -> np.ndarray:
        """A field of every layer's record, by its name in `moments.FIELD_NAMES`.

        Raises:
            KeyError: If there is no such field.
        """
        return moments.field(self.records, name)

    def histogram(self, name: str) -> histogram.Histogram | None:
        """The histogram of the layer of that name; None if none was kept.

        Raises:
            KeyError: For a name that no layer has.
        """
        if name not in self.names:
            raise KeyError(f"Snapshot.histogram: {no_such('layer', name, self.names)}")
        if self.histograms is None:
            return None
        return histogram.unpack(self.histograms[self.names.index(name)])

    @one_line
    def __repr__(self) -> str:
        when = f"step {self.step}"
        if self.steps > 1:
            when = f"steps {self.step} to {self.last_step}"
        also = ("histograms", "kernels", "gradients")
        there = [name for name in also if getattr(self, name) is not None]
        more = f", with {', '.join(there)}" if there else ""
        return f"of {when}: {count(len(self.layers), 'layer')}{more}"


class History:
    """Snapshots in the order in which they were taken.

    Args:
        snapshots: Where to start from.
        keep: How many to hold at most. When there are more, every second one is let
            go, except for the first sixteen (which show the initialization; fewer if
            `keep` is below 17) and the newest. None holds all.

    Raises:
        ValueError: If `keep` is not positive.
    """

    _FIRST = 16

    def __init__(self, snapshots: Iterable[Snapshot] = (), keep: int | None = None):
        if keep is not None and keep < 1:
            raise ValueError(
                f"History: `keep` must be positive, or None for all. Received: {keep}."
            )
        self.snapshots = list(snapshots)
        self.keep = keep
        self._thin()

    def append(self, snapshot: Snapshot) -> None:
        """Add the newest snapshot."""
        self.snapshots.append(snapshot)
        self._thin()

    def _thin(self):
        while self.keep is not None and len(self.snapshots) > self.keep:
            n = self._FIRST if self.keep > self._FIRST else self.keep // 2
            first, rest = self.snapshots[:n], self.snapshots[n:]
            self.snapshots = first + rest[(len(rest) + 1) % 2 :: 2]

    def __len__(self) -> int:
        return len(self.snapshots)

    @one_line
    def __repr__(self) -> str:
        if not self.snapshots:
            return "without snapshots"
        layers, steps = len(self.snapshots[-1].layers), self.steps
        return (
            f"of {len(self)} snapshots of {layers} layers, steps {steps[0]} to "
            f"{steps[-1]}; `diagnose(history)` prints what they say"
        )

    def __iter__(self):
        return iter(self.snapshots)

    def __getitem__(self, index: int) -> Snapshot:
        return self.snapshots[index]

    @property
    def steps(self) -> list[int]:
        """The step of each snapshot."""
        return [snapshot.step for snapshot in self.snapshots]

    def statistic(self, name: str, layer: str) -> np.ndarray:
        """A statistic of one layer over the steps.

        Args:
            name: A name from `moments.STATISTICS`.
            layer: A layer's name.

        Returns:
            Array of shape `(snapshots,)`, NaN where the layer was not measured.

        Raises:
            KeyError: If there is no such statistic, or no snapshot has a layer of that
                name.
        """
        of = _statistic("History.statistic", name)
        row_in = {}  # by the identity of a tuple of layers, which snapshots share
        records = moments.empty(len(self.snapshots))
        for record, snapshot in zip(records, self.snapshots, strict=True):
            if id(snapshot.layers) not in row_in:
                names = snapshot.names
                row_in[id(snapshot.layers)] = names.index(layer) if layer in names else None
            row = row_in[id(snapshot.layers)]
            if row is not None:
                record[:] = snapshot.records[row]
        if all(row is None for row in row_in.values()):
            known = [known for snapshot in self.snapshots for known in snapshot.names]
            raise KeyError(f"History.statistic: {no_such('layer', layer, known)}")
        return of(records)


def _statistic(where, name):
    """The function of that name in `moments.STATISTICS`."""
    if name not in moments.STATISTICS:
        known = no_such("statistic", name, moments.STATISTICS, listed=True)
        raise KeyError(f"{where}: {known}")
    return moments.STATISTICS[name]

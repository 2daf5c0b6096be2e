"""The records of one step, and of all steps."""

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from activation_monitor.analysis import activity, histogram, moving, records
from activation_monitor.analysis.hints import no_such
from activation_monitor.analysis.records import OUTPUT
from activation_monitor.analysis.shown import count, one_line
from activation_monitor.analysis.updating import Updating

OF_LAYERS = {"activity": activity.FIELDS, "moving": moving.FIELDS}
"""Arrays of a snapshot with one row for each layer that are no records: what was counted
over several sampled steps. Name -> columns."""

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
"""The kinds of layers that the diagnosis distinguishes. `weight`: a layer with a kernel.
`input`: the tensor is not the output of a layer but the input of one, which no tapped layer
computes: the model's input, or a sum written as `x + f(x)`."""


@dataclass(frozen=True)
class LayerInfo:
    """Everything about one tapped tensor except its records.

    Attributes:
        name: Unique in a snapshot: the layer's Keras path, with `/0`, `/1` for the calls
            of a layer called more than once, `:0`, `:1` (or `:key`) for one of several
            outputs and `:input` for the input of the layer.
        class_name: The layer's class.
        kind: One of `KINDS`.
        activation: Name of the activation function applied last, `linear` if none.
        width: Number of independent output units: channels, for a convolution.
        dtype: Of the tensor, for example `float32`.
        parents: Indices of the tapped tensors it was computed from, without another
            tapped tensor in between.
        traced: Whether the parents were read from the traced graph. If not (a layer
            inside a loop, or an eager step), the parent is the tensor tapped before.
            Defaults to `True`.
        normalized: Whether there is a normalization layer that is not measured between the
            parents and this tensor. Defaults to `False`.
        fan_in: How many products add up in one output, without zero padding; 0 if the
            layer does not have one kernel. Defaults to `0.0`.
        initializer: The initializer of the kernel as Keras code; empty if not known.
        changed: Whether the layer's weights are known to have changed since they were
            drawn (trained, loaded or assigned). A bias or a moving statistic can show it, a
            kernel cannot. Defaults to `False`.
        trainable: Whether the layer's weights are trained, else frozen. Defaults to `True`.
        gates: The activation function of the gates of a recurrent layer; empty for a layer
            without gates. Defaults to `""`.
        input_gain: Of a recurrent layer, `sqrt(fan_in E w^2)` of the kernel of its inputs,
            over all gates, before the first sampled step; 0 for other layers and where it
            is not known. Defaults to `0.0`.
        recurrent_gain: The same of its recurrent kernel. Defaults to `0.0`.
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
    trainable: bool = True
    gates: str = ""
    input_gain: float = 0.0
    recurrent_gain: float = 0.0

    @one_line
    def __repr__(self) -> str:
        what = (self.class_name, self.activation, f"width {self.width}", self.dtype)
        return f"{self.name}: {', '.join(what)}"


@dataclass(frozen=True)
class Snapshot:
    """The records of one step.

    Attributes:
        step: `optimizer.iterations` before the step (the first of them, if one
            execution runs several steps).
        layers: One `LayerInfo` for each tapped tensor, in the order of the calls.
        quantities: The records, by quantity (a key of `records.QUANTITIES`). Each is a
            float64 array of shape `(layers, len(records.FIELDS))`, with an empty record
            for a layer that has no such tensor. "output" is required; the others are
            present if they were measured.
        histograms: By quantity, float64 arrays of shape `(layers, len(histogram.SLOTS))`.
            For several steps they show the last one. Empty if no histograms were counted.
        steps: Number of training steps whose records are merged here, because they ran in
            one execution (`steps_per_execution`). The last execution of an epoch may have
            fewer. Defaults to `1`.
        loss: The loss of the step; NaN if it was not measured.
        evaluation: Whether these are forward passes of evaluation, which are only compared
            with those of training. Defaults to `False`.
        activity: How many units of ReLU layers were not active over the last sampled steps,
            an array of shape `(layers, len(activity.FIELDS))` with NaN for other layers;
            None if it was not measured. Defaults to `None`.
        moving: How far the moving statistics of batch normalizations are from the batches
            of the last sampled steps, an array of shape `(layers, len(moving.FIELDS))` with
            NaN for other layers; None if there are none. Defaults to `None`.
        updating: How the step updates the kernels; None if that is not known, as in a log
            of an earlier version. Defaults to `None`.

    Raises:
        ValueError: If "output" is missing, a quantity is unknown, or an array does not have
            one row for each layer.
    """

    step: int
    layers: tuple[LayerInfo, ...]
    quantities: Mapping[str, np.ndarray]
    histograms: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    steps: int = 1
    loss: float = math.nan
    evaluation: bool = False
    activity: np.ndarray | None = None
    moving: np.ndarray | None = None
    updating: Updating | None = None

    def __post_init__(self) -> None:
        if OUTPUT not in self.quantities:
            raise ValueError(
                "Snapshot: `quantities` must have records of the outputs. Received: "
                f"{', '.join(self.quantities) or 'none'}."
            )
        for quantity in (*self.quantities, *self.histograms):
            _check_quantity("Snapshot", quantity, ValueError)
        for arrays, columns in (
            (self.quantities, len(records.FIELDS)),
            (self.histograms, len(histogram.SLOTS)),
        ):
            for quantity, array in arrays.items():
                if array.shape != (len(self.layers), columns):
                    raise ValueError(
                        f"Snapshot: expected an array of {len(self.layers)} layers and "
                        f"{columns} columns for {quantity!r}. Received: {array.shape}."
                    )
        for name, columns in OF_LAYERS.items():
            array, shape = getattr(self, name), (len(self.layers), len(columns))
            if array is not None and array.shape != shape:
                raise ValueError(
                    f"Snapshot: expected an array of shape {shape} for `{name}`. Received: "
                    f"{array.shape}."
                )

        if self.updating is not None and len(self.updating.kernels) != len(self.layers):
            raise ValueError(
                f"Snapshot: expected `updating` of {len(self.layers)} layers. Received: "
                f"{len(self.updating.kernels)}."
            )

    @property
    def last_step(self) -> int:
        """The last step whose records are merged here."""
        return self.step + self.steps - 1

    @property
    def nonfinite(self) -> bool:
        """Whether the loss is infinite, or anything that was measured is not finite."""
        return math.isinf(self.loss) or any(
            bool((records.field(array, "nonfinite") > 0).any())
            for array in self.quantities.values()
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(layer.name for layer in self.layers)

    def records(self, of: str = OUTPUT) -> np.ndarray:
        """The records of a quantity; empty ones if it was not measured.

        Args:
            of: A quantity, a key of `records.QUANTITIES`. Defaults to `"output"`.

        Returns:
            Array of shape `(layers, len(records.FIELDS))`.

        Raises:
            KeyError: If there is no such quantity.
        """
        _check_quantity("Snapshot.records", of)
        found = self.quantities.get(of)
        return records.empty(len(self.layers)) if found is None else found

    def has(self, of: str = OUTPUT) -> bool:
        """Whether a quantity of any layer was measured. After a step at which the loss
        became NaN there may be a snapshot of the weights only.

        Args:
            of: The quantity. Defaults to `"output"`.
        """
        return of in self.quantities and bool(self.field("count", of).any())

    def statistic(self, name: str, of: str = OUTPUT) -> np.ndarray:
        """A statistic of every layer.

        Args:
            name: A name from `records.STATISTICS`, such as "std" or "rms".
            of: A quantity, a key of `records.QUANTITIES`. Defaults to `"output"`.

        Returns:
            Array of shape `(layers,)`, NaN where nothing finite was measured.

        Raises:
            KeyError: If there is no such statistic or quantity.
        """
        return _statistic("Snapshot.statistic", name)(self.records(of))

    def field(self, name: str, of: str = OUTPUT) -> np.ndarray:
        """A field of every layer's record.

        Args:
            name: A name from `records.FIELD_NAMES`.
            of: A quantity, a key of `records.QUANTITIES`. Defaults to `"output"`.

        Raises:
            KeyError: If there is no such field or quantity.
        """
        return records.field(self.records(of), name)

    def largest(self, of: str = OUTPUT) -> np.ndarray:
        """The largest absolute value of every layer.

        Args:
            of: A quantity, a key of `records.QUANTITIES`. Defaults to `"output"`.

        Returns:
            Array of shape `(layers,)`, NaN where nothing was measured or not all of it is
            finite.

        Raises:
            KeyError: If there is no such quantity.
        """
        found = self.records(of)
        count, bad, low, high = (
            records.field(found, name)
            for name in ("count", "nonfinite", "minimum", "maximum")
        )
        known = (count > 0) & (bad == 0)
        return np.where(known, np.maximum(np.abs(low), np.abs(high)), np.nan)

    def histogram(self, name: str, of: str = OUTPUT) -> histogram.Histogram | None:
        """The histogram of a layer; None if none was counted.

        Args:
            name: A layer's name.
            of: A quantity, a key of `records.QUANTITIES`. Defaults to `"output"`.

        Raises:
            KeyError: If there is no such layer or quantity.
        """
        _check_quantity("Snapshot.histogram", of)
        if name not in self.names:
            raise KeyError(f"Snapshot.histogram: {no_such('layer', name, self.names)}")
        if of not in self.histograms:
            return None
        return histogram.unpack(self.histograms[of][self.names.index(name)])

    def of_units(self, name: str) -> np.ndarray:
        """A number of every layer on the activity of its units.

        Args:
            name: A name from `activity.FIELDS`.

        Returns:
            Array of shape `(layers,)`, NaN where it is not known.

        Raises:
            KeyError: If there is no such number.
        """
        return self._of_layers("activity", "of_units", name)

    def of_moving(self, name: str) -> np.ndarray:
        """A number of every layer on its moving statistics.

        Args:
            name: A name from `moving.FIELDS`.

        Returns:
            Array of shape `(layers,)`, NaN where it is not known.

        Raises:
            KeyError: If there is no such number.
        """
        return self._of_layers("moving", "of_moving", name)

    def _of_layers(self, which: str, where: str, name: str) -> np.ndarray:
        columns = OF_LAYERS[which]
        if name not in columns:
            known = no_such("field", name, columns, listed=True)
            raise KeyError(f"Snapshot.{where}: {known}")
        array = getattr(self, which)
        if array is None:
            return np.full(len(self.layers), np.nan)
        return array[:, columns.index(name)]

    @one_line
    def __repr__(self) -> str:
        when = f"step {self.step}"
        if self.steps > 1:
            when = f"steps {self.step} to {self.last_step}"
        also = ["histograms"] if self.histograms else []
        also += [name for name in self.quantities if name != OUTPUT]
        more = f", with {', '.join(also)}" if also else ""
        return f"of {when}: {count(len(self.layers), 'layer')}{more}"


class Recording:
    """The snapshots of a run, in the order of the steps.

    Args:
        snapshots: The first snapshots. Defaults to `()`.
        keep: The largest number of snapshots to keep. When there are more, every second
            one is dropped, except for the first sixteen (which show the initialization;
            fewer if `keep` is below 17) and the newest. None keeps all. Defaults to `None`.
        evaluations: The snapshots of evaluations of the same run, another `Recording`.
            They are judged by comparison with those of training. Defaults to `None`: there
            are none.

    Raises:
        ValueError: If `keep` is not positive.
    """

    _FIRST = 16

    def __init__(
        self,
        snapshots: Iterable[Snapshot] = (),
        keep: int | None = None,
        evaluations: "Recording | None" = None,
    ):
        if keep is not None and keep < 1:
            raise ValueError(
                f"Recording: `keep` must be positive, or None for all. Received: {keep}."
            )
        self.snapshots = list(snapshots)
        self.keep = keep
        self.evaluations = evaluations
        self._thin()

    @property
    def in_order(self) -> list[Snapshot]:
        """The snapshots and those of evaluations, in the order in which they were made.

        An evaluation at step n comes before the training step n: it runs between two steps,
        and has the number of the next one.
        """
        evaluations = self.evaluations or ()
        return [*heapq.merge(evaluations, self.snapshots, key=lambda one: one.step)]

    def append(self, snapshot: Snapshot) -> None:
        """Add the newest snapshot."""
        self.snapshots.append(snapshot)
        self._thin()

    def _thin(self) -> None:
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
            f"{steps[-1]}; `diagnose(recording)` judges them"
        )

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(self.snapshots)

    def __getitem__(self, index: int) -> Snapshot:
        return self.snapshots[index]

    @property
    def quantities(self) -> set[str]:
        """The quantities that any snapshot has."""
        return {name for snapshot in self.snapshots for name in snapshot.quantities}

    @property
    def steps(self) -> list[int]:
        """The step of each snapshot."""
        return [snapshot.step for snapshot in self.snapshots]

    def statistic(self, name: str, layer: str, of: str = OUTPUT) -> np.ndarray:
        """A statistic of one layer over the steps.

        Args:
            name: A name from `records.STATISTICS`.
            layer: A layer's name.
            of: A quantity, a key of `records.QUANTITIES`. Defaults to `"output"`.

        Returns:
            Array of shape `(snapshots,)`, NaN where it was not measured.

        Raises:
            KeyError: If there is no such statistic or quantity, or no snapshot has a layer
                of that name.
        """
        statistic = _statistic("Recording.statistic", name)
        _check_quantity("Recording.statistic", of)
        row_in: dict[int, int | None] = {}  # by identity of the layers, which are shared
        found = records.empty(len(self.snapshots))
        for record, snapshot in zip(found, self.snapshots, strict=True):
            if id(snapshot.layers) not in row_in:
                names = snapshot.names
                row_in[id(snapshot.layers)] = names.index(layer) if layer in names else None
            row = row_in[id(snapshot.layers)]
            if row is not None and of in snapshot.quantities:
                record[:] = snapshot.quantities[of][row]
        if all(row is None for row in row_in.values()):
            known = [known for snapshot in self.snapshots for known in snapshot.names]
            raise KeyError(f"Recording.statistic: {no_such('layer', layer, known)}")
        return statistic(found)

    def to_dataframe(self) -> Any:
        """All statistics of all layers as a tidy data frame: one row for each number.

        Needs pandas, which the extra `dataframe` of this package has.

        Returns:
            A `pandas.DataFrame` with the columns

            * "step";
            * "layer": the name; missing for the loss;
            * "quantity": a key of `records.QUANTITIES`, or "loss";
            * "statistic": a key of `records.STATISTICS`; "update_ratio" of the quantity
              "weight_update"; "mean" of the loss;
            * "value": NaN if it was not measured or nothing finite was.

            Names are ordered categories: layers sort in the order of the data. There are
            no rows for tensors that a layer does not have. `evaluations` are a recording of
            their own.

        Raises:
            ImportError: If pandas is not installed.

        Example:

        ```python
        frame = monitor.recording.to_dataframe()
        rms = frame[(frame.quantity == "output") & (frame.statistic == "rms")]
        rms.pivot(index="step", columns="layer", values="value")
        ```
        """
        from activation_monitor.analysis import dataframe  # it imports this module

        return dataframe.dataframe([({}, self)], "Recording.to_dataframe")


def _statistic(where: str, name: str) -> records.Statistic:
    """A function in `records.STATISTICS`, by its name."""
    if name not in records.STATISTICS:
        known = no_such("statistic", name, records.STATISTICS, listed=True)
        raise KeyError(f"{where}: {known}")
    return records.STATISTICS[name]


def _check_quantity(where: str, name: str, error: type[Exception] = KeyError) -> None:
    if name not in records.QUANTITIES:
        known = no_such("quantity", name, records.QUANTITIES, listed=True)
        raise error(f"{where}: {known}")

"""The scalars and histograms of a log, which TensorBoard's own tabs show.

They are copies, in the form that these tabs read: `reader` and the package's own tab read
the records, which are smaller. A copy needs its tag in each event, 20 to 60 bytes. So a
scalar is written in the shortest form that TensorBoard has, `simple_value`; and a histogram
has half of the buckets, in float32, and is written at ever fewer snapshots (`shows`).
"""

from typing import Any

import numpy as np
from tensorboard.compat.proto import summary_pb2, tensor_shape_pb2, types_pb2
from tensorboard.plugins.histogram import metadata as histogram_metadata

from activation_monitor.analysis import histogram, records, scalars
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot

# protobuf creates the classes when the module is imported. Type checkers do not see them.
_SUMMARIES: Any = summary_pb2
_SHAPES: Any = tensor_shape_pb2
_TYPES: Any = types_pb2

_LAST = "~"
"""The first character of our groups. TensorBoard sorts groups by name: so they come after
those of the user, such as `epoch_loss`."""

_HISTOGRAMS = {records.OUTPUT: "activations", records.OUTPUT_GRADIENT: "gradients"}
"""Quantity to the group of its histograms."""

_ALL_OF = 64
"""Number of snapshots that all have histograms. TensorBoard keeps 100 of a tag."""

_MERGED = 2
"""Number of buckets that are one bucket here."""

_ABOUT = (
    f"Up to {histogram.EXACT_UP_TO} elements are all counted. Larger tensors are sampled "
    "at equal distances, here one element in {stride}. The Activations tab has twice as "
    "many buckets."
)


def shows(number: int) -> bool:
    """Whether a snapshot has histograms for TensorBoard's tab.

    All of the first 64 have, then every second one up to 128, every fourth up to 256, and
    so on: 32 for each doubling.

    Args:
        number: How many snapshots the file had before.
    """
    every = 1 << (number // _ALL_OF).bit_length()
    return number % every == 0


def tag(group: str, position: int, layer: LayerInfo) -> str:
    """The tag of a copy. Tags sort in the order of the calls of the layers.

    Args:
        group: A scalar of `scalars.OF_LAYERS`, "activations" or "gradients".
        position: The position of the layer in the snapshot.
        layer: The layer.
    """
    return f"{_LAST}{group}/{scalars.in_order(position, layer.name)}"


class Copies:
    """Makes the scalars and histograms of snapshots that have the same layers.

    Args:
        layers: The layers.
    """

    def __init__(self, layers: tuple[LayerInfo, ...]):
        self.layers = layers
        self._scalars = [
            _SUMMARIES.Summary.Value(tag=tag(scalar, position, layer))
            for scalar in scalars.OF_LAYERS
            for position, layer in enumerate(layers)
        ]
        shape = _SHAPES.TensorShapeProto()
        for size in (histogram.BUCKETS // _MERGED, 3):
            shape.dim.add(size=size)
        self._histograms = {}  # by quantity
        for quantity, group in _HISTOGRAMS.items():
            self._histograms[quantity] = []
            for position, layer in enumerate(layers):
                value = _SUMMARIES.Summary.Value(tag=tag(group, position, layer))
                value.tensor.dtype = _TYPES.DT_FLOAT
                value.tensor.tensor_shape.CopyFrom(shape)
                self._histograms[quantity].append((value, value.tensor))

    def add_scalars(self, summary: Any, snapshot: Snapshot) -> None:
        """Add the scalars that each layer has to a `Summary`, see `scalars.of_layers`."""
        values, measured = scalars.of_layers(snapshot)
        with np.errstate(over="ignore"):
            numbers = values.astype(np.float32).ravel()
        rows = np.flatnonzero(measured).tolist()
        for row, number in zip(rows, numbers[rows].tolist(), strict=True):
            self._scalars[row].simple_value = number
        summary.value.extend([self._scalars[row] for row in rows])

    def add_histograms(self, summary: Any, snapshot: Snapshot, described: set[str]) -> None:
        """Add the histograms of outputs and gradients that there are to a `Summary`.

        Args:
            summary: The `Summary`.
            snapshot: The snapshot.
            described: Tags that the file has. TensorBoard reads the description from the
                first value of a tag, which is added here.
        """
        for quantity, copies in self._histograms.items():
            if quantity in snapshot.histograms:
                self._add(summary, snapshot.histograms[quantity], copies, described)

    def _add(self, summary, vectors, copies, described):
        contents = _rows(vectors)
        for i in np.flatnonzero(vectors[:, 3:].any(axis=1)).tolist():
            value, tensor = copies[i]
            tensor.tensor_content = contents[i].tobytes()
            summary.value.append(value)
            if value.tag not in described:
                described.add(value.tag)
                metadata = histogram_metadata.create_summary_metadata("", "")
                metadata.summary_description = _ABOUT.format(stride=int(vectors[i, 0]))
                summary.value[-1].metadata.CopyFrom(metadata)


def _rows(vectors: np.ndarray) -> np.ndarray:
    """Edges and counts `(layers, buckets, 3)` in float32, with fewer buckets."""
    largest = np.finfo(np.float32).max  # the tab shows nothing if an edge is infinite
    low, high = np.clip(vectors[:, 1:3], -largest, largest).T
    edges = np.linspace(low, high, histogram.BUCKETS // _MERGED + 1, axis=1)
    counts = vectors[:, 3:].reshape(len(vectors), -1, _MERGED).sum(axis=2)
    return np.stack([edges[:, :-1], edges[:, 1:], counts], axis=2).astype(np.float32)

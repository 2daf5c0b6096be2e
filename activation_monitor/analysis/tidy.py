"""The numbers of snapshots as a tidy table: one row for each number.

For each snapshot there is first the loss, then each layer in the order of the calls; for
each layer each quantity that it has, in the order of `records.QUANTITIES`; for each of them
all statistics, in the order of `records.STATISTICS`.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.update_ratio import update_ratio

LOSS = ("loss", "mean")
"""Quantity and statistic of the loss, which is that of a batch. It has no layer."""

UPDATE_RATIO = (records.WEIGHT_UPDATE, "update_ratio")
"""Quantity and statistic of `update_ratio`, the one number that two quantities make."""


class Row(NamedTuple):
    """One number.

    Attributes:
        step: The step of the snapshot.
        layer: The name of the layer; None for the loss.
        quantity: A key of `records.QUANTITIES`, or "loss".
        statistic: A key of `records.STATISTICS`; "update_ratio" of a "weight_update";
            "mean" of the loss.
        value: NaN if it was not measured or nothing finite was.
    """

    step: int
    layer: str | None
    quantity: str
    statistic: str
    value: float


def rows(snapshots: Iterable[Snapshot]) -> Iterator[Row]:
    """The rows of the table.

    Args:
        snapshots: In the order of the steps, a `Recording` for example.
    """
    for snapshot in snapshots:
        step = int(snapshot.step)
        yield Row(step, None, *LOSS, float(snapshot.loss))
        columns, values, present = table(snapshot)
        found = values.tolist()
        for layer, column in np.argwhere(present).tolist():
            name = snapshot.layers[layer].name
            yield Row(step, name, *columns[column], found[layer][column])


def table(snapshot: Snapshot) -> tuple[list[tuple[str, str]], np.ndarray, np.ndarray]:
    """The numbers of the layers of one snapshot, with one column for each statistic.

    Args:
        snapshot: The snapshot.

    Returns:
        Quantity and statistic of each column; the values, of shape `(layers, columns)`;
        and, of the same shape, whether there is such a number. There is none where a layer
        has no such tensor, and no update ratio where it is NaN.
    """
    columns: list[tuple[str, str]] = []
    values: list[np.ndarray] = []
    present: list[np.ndarray] = []
    for quantity in records.QUANTITIES:
        if quantity not in snapshot.quantities:
            continue
        has_tensor = snapshot.field("count", quantity) > 0
        for statistic in records.STATISTICS:
            columns.append((quantity, statistic))
            values.append(snapshot.statistic(statistic, quantity))
            present.append(has_tensor)
    ratio = update_ratio(snapshot)
    columns.append(UPDATE_RATIO)
    values.append(ratio)
    present.append(~np.isnan(ratio))
    return columns, np.stack(values, axis=1), np.stack(present, axis=1)

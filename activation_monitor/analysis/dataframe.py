"""The tidy table as a data frame of pandas, which is imported when it is used."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from activation_monitor.analysis import records, tidy
from activation_monitor.analysis.optional import optional
from activation_monitor.analysis.snapshot import Snapshot

_QUANTITIES = (tidy.LOSS[0], *records.QUANTITIES)
_STATISTICS = (*records.STATISTICS, tidy.UPDATE_RATIO[1])

EXTRA = "dataframe"
"""The extra of this package that has pandas and pyarrow."""


def dataframe(
    parts: Iterable[tuple[Mapping[str, str], Iterable[Snapshot]]], where: str
) -> Any:
    """The rows of `tidy.rows` as a data frame.

    Args:
        parts: Snapshots, each with what stands in further columns of its rows, by the name
            of the column. These come first.
        where: What the user called, for messages.

    Returns:
        A `pandas.DataFrame` with the further columns and those of `tidy.Row`. All but
        "step" (int64) and "value" (float64) are ordered categories, in the order of the
        data: so they sort. The layer of the loss is missing.

    Raises:
        ImportError: If pandas is not installed.
    """
    pandas = optional("pandas", where, EXTRA)
    layer_codes: dict[str, int] = {}
    of_parts: list[tuple[int, Mapping[str, str]]] = []  # number of rows, further columns
    columns: dict[str, list[np.ndarray]] = {name: [] for name in tidy.Row._fields}
    for further, snapshots in parts:
        before = sum(map(len, columns["value"]))
        for snapshot in snapshots:
            for name, array in _block(snapshot, layer_codes).items():
                columns[name].append(array)
        of_parts.append((sum(map(len, columns["value"])) - before, further))
    joined = {
        name: np.concatenate([np.zeros(0, _DTYPES[name]), *arrays])
        for name, arrays in columns.items()
    }

    def categories(codes: np.ndarray, names: Iterable[str]) -> Any:
        return pandas.Categorical.from_codes(codes, [*names], ordered=True)

    lengths = [length for length, _ in of_parts]
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for _, further in of_parts for name in further):
        values = [further[name] for _, further in of_parts]
        known = {value: code for code, value in enumerate(dict.fromkeys(values))}
        codes = np.repeat([known[value] for value in values], lengths)
        found[name] = categories(codes, known)
    return pandas.DataFrame(
        found
        | {
            "step": joined["step"],
            "layer": categories(joined["layer"], layer_codes),
            "quantity": categories(joined["quantity"], _QUANTITIES),
            "statistic": categories(joined["statistic"], _STATISTICS),
            "value": joined["value"],
        }
    )


_DTYPES = {
    "step": np.int64,
    "layer": np.int32,
    "quantity": np.int8,
    "statistic": np.int8,
    "value": np.float64,
}


def _block(snapshot: Snapshot, layer_codes: dict[str, int]) -> dict[str, np.ndarray]:
    """The rows of one snapshot by column, with codes for names.

    Args:
        snapshot: The snapshot.
        layer_codes: Code of each layer so far; new ones are added.
    """
    pairs, values, present = tidy.table(snapshot)
    layer, column = np.nonzero(present)
    codes = [layer_codes.setdefault(name, len(layer_codes)) for name in snapshot.names]
    quantities = [_QUANTITIES.index(quantity) for quantity, _ in pairs]
    statistics = [_STATISTICS.index(statistic) for _, statistic in pairs]
    loss_quantity, loss_statistic = tidy.LOSS
    of_loss_and_layers = {
        "step": (snapshot.step, np.full(len(layer), snapshot.step)),
        "layer": (-1, np.array(codes)[layer]),
        "quantity": (_QUANTITIES.index(loss_quantity), np.array(quantities)[column]),
        "statistic": (_STATISTICS.index(loss_statistic), np.array(statistics)[column]),
        "value": (snapshot.loss, values[present]),
    }
    return {
        name: np.concatenate([[of_loss], of_layers]).astype(_DTYPES[name])
        for name, (of_loss, of_layers) in of_loss_and_layers.items()
    }

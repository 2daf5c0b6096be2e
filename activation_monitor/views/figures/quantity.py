"""Which tensors of a layer a figure shows: its output, or another quantity."""

from collections.abc import Iterable, Mapping

import numpy as np

from activation_monitor.analysis import records
from activation_monitor.analysis.hints import no_such
from activation_monitor.analysis.records import OUTPUT
from activation_monitor.analysis.snapshot import Recording

WORDS = {
    records.OUTPUT: "activation",
    records.OUTPUT_GRADIENT: "gradient",
    records.WEIGHT: "weight",
    records.WEIGHT_GRADIENT: "weight gradient",
    records.WEIGHT_UPDATE: "weight update",
}
"""Quantity to the word for one element of it, in titles and on axes."""

_GRADIENTS = (records.OUTPUT_GRADIENT, records.WEIGHT_GRADIENT)


def of_the(quantity: str) -> str:
    """What follows the name of a statistic: nothing for outputs, which need no word.

    >>> of_the("output"), of_the("output_gradient")
    ('', ' of the gradient')
    """
    return "" if quantity == OUTPUT else f" of the {WORDS[quantity]}"


def check(of: str, recordings: Iterable[Recording], where: str) -> None:
    """Raise an error for a quantity that cannot be drawn.

    Args:
        of: The quantity.
        recordings: The recordings, one of which must have it.
        where: The function that the user called, for messages.

    Raises:
        ValueError: If there is no such quantity, or no recording has it.
    """
    if of not in WORDS:
        raise ValueError(f"{where}: `of`: {no_such('quantity', of, WORDS, listed=True)}")
    snapshots = [snapshot for recording in recordings for snapshot in recording]
    measured = {name for snapshot in snapshots for name in snapshot.quantities}
    if snapshots and of not in measured:
        known = ", ".join(name for name in WORDS if name in measured)
        how = "(gradients=True)" if of in _GRADIENTS else ""
        raise ValueError(
            f"{where}: expected a quantity that was measured: {known}. Received: "
            f"of={of!r}. An `ActivationMonitor{how}` measures it in each sampled step that "
            "trains the model."
        )


def layers_with(recording: Recording, of: str) -> list[str]:
    """Names of the layers of which a quantity was measured, in the order of the calls.

    Args:
        recording: The recording of one run.
        of: The quantity. Of `"output"` all layers of the recording are returned.
    """
    if of == OUTPUT:
        kinds = {id(snapshot.layers): snapshot for snapshot in recording}.values()
        return [*dict.fromkeys(name for snapshot in kinds for name in snapshot.names)]
    having = dict[int, np.ndarray]()
    names = dict[int, tuple[str, ...]]()
    for snapshot in recording:
        key, there = id(snapshot.layers), snapshot.field("count", of) > 0
        having[key] = having[key] | there if key in having else there
        names.setdefault(key, snapshot.names)
    found = (names[key][row] for key in names for row in np.flatnonzero(having[key]))
    return [*dict.fromkeys(found)]


def runs_with(
    runs: Mapping[str, Recording], layer: str, of: str, where: str
) -> dict[str, Recording]:
    """The runs in which a quantity of a layer was measured.

    Args:
        runs: Recordings by name.
        layer: Name of the layer.
        of: The quantity.
        where: The function that the user called, for messages.

    Raises:
        ValueError: If there are none.
    """
    check(of, runs.values(), where)
    known = {
        run: recording
        for run, recording in runs.items()
        if layer in layers_with(recording, of)
    }
    if not known:
        expected = f" Expected a layer of one of the runs ({', '.join(runs) or 'none'})."
        check_layer(layer, runs.values(), of, where, expected)
    return known


def check_layer(
    layer: str, recordings: Iterable[Recording], of: str, where: str, expected: str = ""
) -> None:
    """Raise an error for a layer that no recording has, or has without the quantity.

    Args:
        layer: Name of the layer.
        recordings: The recordings.
        of: The quantity, which `check` accepts.
        where: The function that the user called, for messages.
        expected: More for the message on an unknown layer. Defaults to `""`.

    Raises:
        ValueError: If the layer cannot be drawn.
    """
    recordings = [*recordings]
    known = [name for recording in recordings for name in layers_with(recording, OUTPUT)]
    if layer not in known:
        raise ValueError(f"{where}: {no_such('layer', layer, known)}{expected}")
    having = [name for recording in recordings for name in layers_with(recording, of)]
    if layer not in having:
        raise ValueError(
            f"{where}: expected a layer whose {of!r} was measured: "
            f"{', '.join(dict.fromkeys(having))}. Received: layer={layer!r}."
        )

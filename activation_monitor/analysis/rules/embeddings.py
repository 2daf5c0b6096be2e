"""Rules on embeddings: vectors that are all the same, or too large."""

from collections.abc import Iterator, Sequence

from activation_monitor.analysis import records
from activation_monitor.analysis.causes import EmbeddingScale
from activation_monitor.analysis.depth_profile import DepthProfile
from activation_monitor.analysis.findings import Found, found
from activation_monitor.analysis.rules.no_gradient import RECTIFIED
from activation_monitor.analysis.shown import listed
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit


def are_constant(rows: Sequence[int], snapshot: Snapshot) -> bool:
    """Whether these are embeddings whose vectors consist of one number, for all tokens.

    That says nothing of the integers that select the vectors.
    """
    low, high = snapshot.field("minimum"), snapshot.field("maximum")
    layers = snapshot.layers
    return bool(rows) and all(
        layers[row].kind == "embedding" and layers[row].width > 1 and low[row] == high[row]
        for row in rows
    )


def constant(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """The network gets nothing but embeddings, and all their vectors are equal."""
    graph = profile.graph
    samples, value = snapshot.field("samples"), snapshot.field("minimum")
    rows = [row for row in graph.order if not graph.parents[row]]
    enough = all(samples[row] >= limit("constant-samples") for row in rows)
    if not enough or not are_constant(rows, snapshot):
        return
    names = [snapshot.layers[row].name for row in rows]
    vectors = f"All vectors of {listed(names)}"
    cause = EmbeddingScale(rows[0], abs(float(value[rows[0]])))
    if any(value[rows]):
        yield found(
            "symmetric-initialization",
            snapshot,
            names,
            {"weight": value[rows[0]], "layers": len(rows)},
            f"{vectors} are equal ({value[rows[0]]:.3g} everywhere in {names[0]}), so all "
            "tokens are the same to the network until training has separated them.",
            cause,
            critical=True,
        )
    elif not _receive_gradients(rows, snapshot, profile):
        yield found(
            "zero-activations",
            snapshot,
            names,
            {"rms": 0.0},
            f"{vectors} are zero, and no gradient reaches them: the layers after them "
            "output zeros where their slope is 0, so nothing changes in training.",
            cause,
            critical=True,
        )


def _receive_gradients(
    rows: Sequence[int], snapshot: Snapshot, profile: DepthProfile
) -> bool:
    """Whether training changes embeddings of zeros, in which case they are healthy."""
    of = records.OUTPUT_GRADIENT
    count, low, high = (
        snapshot.field(name, of=of) for name in ("count", "minimum", "maximum")
    )
    if any(count[rows]):
        return any(low[row] < 0 or high[row] > 0 for row in rows)
    # Not measured: it is known to end only where all that follows is rectified.
    todo, graph = [*rows], profile.graph
    ends: list[bool] = []
    while todo:
        for row in graph.children[todo.pop()]:
            layer = snapshot.layers[row]
            if layer.activation != "linear":
                zero = snapshot.field("maximum")[row] == 0
                ends.append(layer.activation in RECTIFIED and bool(zero))
            else:
                todo.append(row)
                ends += [] if graph.children[row] else [False]
    return not all(ends)


def too_large(snapshot: Snapshot, profile: DepthProfile) -> Iterator[Found]:
    """Large embeddings that reach the last layer without weights in between.

    `size.unscaled_input` has the networks with more weight layers.
    """
    rms = snapshot.statistic("rms")
    for end in profile.graph.ends:
        last = profile.graph.weight_before(end)
        row = None if last is None else profile.graph.embedding_before(last)
        if last is None or row is None:
            continue
        given, gated = profile.links[last].rms_in, snapshot.layers[last].recurrent_gain > 0
        if rms[row] > limit("input") and given > limit("head") and not gated:
            name = snapshot.layers[row].name
            yield found(
                "unscaled-input",
                snapshot,
                [name],
                {"input_rms": rms[row], "last_rms": given},
                f"The vectors of {name} are too large: their rms is {rms[row]:.3g}, and "
                f"still {given:.3g} at the input of the last layer.",
                EmbeddingScale(row, float(rms[row])),
            )

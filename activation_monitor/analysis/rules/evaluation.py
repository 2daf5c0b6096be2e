"""Whether the signal in evaluation is that of training."""

from collections.abc import Iterator, Sequence

import numpy as np

from activation_monitor.analysis.causes import EvaluationDiffers
from activation_monitor.analysis.findings import Found, found
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot
from activation_monitor.analysis.thresholds import limit

CODE = "evaluation-differs"


def differs(training: Sequence[Snapshot], evaluation: Snapshot) -> Iterator[Found]:
    """The first tensor whose rms in evaluation is far from that in training.

    A tensor counts if its own ratio is large, and if it is not that of a tensor that it was
    computed from. So the layer is named in which the two part, and no layer after it.

    Args:
        training: The snapshots of training before the evaluation, the last
            `evaluation-window` of which are read. The ratio that is common to all of these
            counts: one odd batch raises nothing.
        evaluation: A snapshot of evaluation.
    """
    window = [*training][-int(limit("evaluation-window")) :]
    if len(window) < limit("evaluation-window"):
        return
    if evaluation.step - window[-1].last_step > window[-1].step - window[0].step:
        return  # what has changed since may be more than what changed in the window
    decades = _decades(window, evaluation)
    samples = evaluation.field("samples")
    unsettled = _behind_unsettled(window[-1], evaluation)
    for row, layer in enumerate(evaluation.layers):
        if not abs(decades[row]) > limit("evaluation-ratio"):  # NaN is not
            continue
        if samples[row] < limit("dead-samples") or _is_random(layer) or unsettled[row]:
            continue
        before = [decades[parent] for parent in layer.parents]
        added = min((decades[row] - parent for parent in before), key=abs, default=None)
        if added is not None and not abs(added) > limit("evaluation-ratio"):
            continue
        rms = evaluation.statistic("rms")[row]
        ratio = 10 ** decades[row]
        named, given, _ = layer.name.partition(":input")
        what = f"{'input' if given else 'output'} of {named}"
        yield found(
            CODE,
            evaluation,
            [layer.name],
            {"ratio": ratio, "rms": rms},
            f"The {what} in evaluation is not that of training: its rms is "
            f"{rms:.3g}, {ratio:.3g} times that of the last {len(window)} sampled steps of "
            "training. Metrics of evaluation are those of another network.",
            EvaluationDiffers(row),
        )
        return


def _decades(window: Sequence[Snapshot], evaluation: Snapshot) -> np.ndarray:
    """Decades between the rms in evaluation and in training, the least of the window; 0
    where the sign changes, NaN where it is not known.

    What changes within the window goes on until the evaluation, so that much is taken off.
    """
    each = np.full((len(window), len(evaluation.layers)), np.nan)
    now = evaluation.statistic("rms")
    for place, snapshot in enumerate(window):
        rows = {name: row for row, name in enumerate(snapshot.names)}
        rms = snapshot.statistic("rms")
        for row, name in enumerate(evaluation.names):
            before = rms[rows[name]] if name in rows else np.nan
            if before > 0 and now[row] > 0:
                each[place, row] = np.log10(now[row] / before)
    low, high = each.min(axis=0), each.max(axis=0)
    common = np.maximum(low, 0.0) + np.minimum(high, 0.0)
    return np.sign(common) * np.maximum(np.abs(common) - (high - low), 0.0)


def _is_random(layer: LayerInfo) -> bool:
    """Whether the layer changes the size of its input in training only, by design."""
    return any(text in layer.class_name for text in ("Dropout", "Noise", "Random"))


def _behind_unsettled(training: Snapshot, evaluation: Snapshot) -> list[bool]:
    """Whether a layer is, or computes from, a batch normalization whose moving statistics
    have not settled."""
    found: list[bool] = []
    for layer in evaluation.layers:
        early = (
            layer.class_name == "BatchNormalization"
            and layer.name in training.names
            and evaluation.step < _settled(training, layer.name)
        )
        found.append(early or any(found[parent] for parent in layer.parents))
    return found


def _settled(snapshot: Snapshot, name: str) -> float:
    """The step from which on moving statistics are judged in evaluation.

    With a larger momentum than the default it is that of the default: evaluation that runs
    before the statistics have settled is wrong then, whatever comes later.
    """
    momentum = snapshot.of_moving("momentum")[snapshot.names.index(name)]
    most = limit("moving-settled") * limit("moving-apart")
    if not momentum < 1:
        return most
    return min(round(limit("moving-settled") / (1.0 - momentum)), most)

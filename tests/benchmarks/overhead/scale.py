"""What a long training of a deep network on many workers costs, from the measured parts.

Nothing here is measured at that size. The formulas:

- *Sampled steps*: the schedule's first ones and every n-th one.
- *Time of the layers*: sampled steps x layers x the microseconds per layer that the part
  `chain` found for its longest chain (graph, host and log; tiny tensors).
- *Time of the tensors*: the ratio of a sampled step, from the part `steps`, of the model
  with the largest tensors measured, less one, divided by the distance of sampled steps. It
  contains the time of that model's layers, so that the sum of both is an upper estimate.
- *Log*: snapshots x layers x the bytes of the part `log`. The chief alone writes, so the
  number of workers does not matter.
- *TensorBoard*: snapshots x layers x the bytes of the part `board`. Scalars and histograms
  come on top, for the snapshots that TensorBoard keeps of them: scalars by the bytes of
  the part `board`, histograms by those of the log.
- *Network*: what the workers exchange at a sampled step: one raw record a layer and worker,
  in float32.
"""

from typing import NamedTuple

from activation_monitor.analysis import raw
from activation_monitor.recording.steps import DENSE

KEPT_SCALARS = 1000
"""Steps of a tag of scalars that TensorBoard 2.21 keeps (its fast loader), at random."""

KEPT_HISTOGRAMS = 100
"""The same of a tag of tensors. Of our own tags it keeps all."""


class Settings(NamedTuple):
    """Arguments of the monitor."""

    sample_every: int = 100
    histograms: bool = True
    scalars: bool = True

    def __str__(self):
        changed = [
            f"{name}={value}"
            for name, value in self._asdict().items()
            if value != self._field_defaults[name]
        ]
        return ", ".join(changed) or "defaults"


SETTINGS = (
    Settings(),
    Settings(histograms=False, scalars=False),
    Settings(sample_every=1000),
    Settings(sample_every=1000, scalars=False),
    Settings(sample_every=1000, histograms=False, scalars=False),
)
RECOMMENDED = SETTINGS[-1]
"""For a run of this size. Histograms of the few layers of interest: a second monitor with
`layers=`."""


def estimates(results: dict, layers: int, steps: int, workers: int) -> list[dict]:
    """The costs with each of `SETTINGS`.

    Args:
        results: What was measured, by part.
        layers, steps, workers: The size of the run.

    Returns:
        One dict for each; a cost is `None` if its part was not measured.
    """
    return [
        {"settings": str(each), "recommended": each == RECOMMENDED}
        | _estimate(results, each, layers, steps, workers)
        for each in SETTINGS
    ]


def sampled(settings: Settings, steps: int) -> int:
    """How many of the first `steps` steps are sampled."""
    every = settings.sample_every
    return -(-steps // every) + sum(step < steps and step % every > 0 for step in DENSE)


def _estimate(results, settings, layers, steps, workers):
    snapshots = sampled(settings, steps)
    each_log = {row["logged"]: row["bytes"] for row in results.get("log", ())}
    logged = _logged(settings)
    like = f"ours, every step{', histograms' if settings.histograms else ''}, log"
    chain = [
        row
        for row in results.get("chain", ())
        if row["contestant"] == like and "added" in row
    ]
    ratios = [
        row["ratio"]["median"]
        for row in results.get("steps", ())
        if row["contestant"] == like and "ratio" in row
    ]
    longest = max(chain, key=lambda row: row["layers"], default=None)
    board = {row["scalars"]: row["bytes_each"] for row in results.get("board", ())}
    microseconds = longest and 1e6 * longest["added"]["median"] / longest["layers"]
    return {
        "snapshots": snapshots,
        "seconds_of_layers": microseconds and 1e-6 * microseconds * layers * snapshots,
        "share_of_tensors": (max(ratios) - 1) / settings.sample_every if ratios else None,
        "bytes_each": each_log.get(logged),
        "log": each_log[logged] * layers * snapshots if logged in each_log else None,
        "tensorboard": _tensorboard(settings, layers, snapshots, each_log, board),
        "network": 4 * len(raw.COLUMNS) * layers * workers,
    }


def _logged(settings):
    names = {
        (False, False): "neither",
        (False, True): "scalars",
        (True, False): "histograms",
        (True, True): "both",
    }
    return names[settings.histograms, settings.scalars]


def _tensorboard(settings, layers, snapshots, each_log, board):
    if not board or not each_log:
        return None
    found = snapshots * layers * board[False]
    if settings.scalars:
        each = board[True] - board[False]
        found += min(snapshots, KEPT_SCALARS) * layers * each
    if settings.histograms:
        each = each_log["histograms"] - each_log["neither"]
        found += min(snapshots, KEPT_HISTOGRAMS) * layers * each
    return found

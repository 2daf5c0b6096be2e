"""Contestants train in turns: each in a `fit` of its own, one of them at a time.

Each contestant has a thread, in which it builds its model and calls `fit` once. A callback
at the head of its callbacks waits for the turn at the beginning of a step. So that all work
counts, a step is timed from its beginning to the beginning of the next one: with what the
other callbacks do after it, and with the end of an epoch where it ends. The device is
waited for before each reading of the clock.

Writers and dtype policies belong to a thread, and so do TensorFlow's switches
(`enable_check_numerics` and Debugger V2 "take effect only on the thread in which they are
called"), so that no contestant changes another one's steps. What a contestant writes in
the background may reach into the next one's turn; the first step of each turn is not
counted, for this and because the caches of the processor are another contestant's.
"""

import re
import threading
import time
from pathlib import Path

import contestants
import keras
import tensorflow as tf
from intervals import median

import models

WARM_UP = 6
"""Steps before the first round. The default schedule samples 0, 1, 2 and 5, so that both
steps are compiled within them."""

_ENDLESS = 10**9


class Clock(keras.callbacks.Callback):
    """Times steps from begin to begin. `at_begin` is called between two of them."""

    def __init__(self, at_begin=lambda: None):
        super().__init__()
        self.seconds = []
        self._at_begin = at_begin
        self._began = None

    def on_train_batch_begin(self, batch, logs=None):
        tf.test.experimental.sync_devices()
        if self._began is not None:
            self.seconds.append(time.perf_counter() - self._began)
        self._at_begin()
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Without this method Keras runs the callbacks of the plain `fit` in a thread."""


class Player:
    """A contestant that trains when it is its turn.

    Attributes:
        contestant: Its row.
        reason: Why it cannot run; empty if it can.
    """

    def __init__(self, contestant: contestants.Contestant, way: models.Way, folder: Path):
        self.contestant, self.reason = contestant, ""
        self._way, self._folder = way, folder
        self._wanted, self._over = 0, False
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._clock = Clock(self._next_turn)
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._thread.start()

    def turn(self, steps: int) -> list[float]:
        """Train some steps; returns the seconds of each."""
        self._wanted, self._clock.seconds = steps, []
        self._go.release()
        self._done.acquire()
        return self._clock.seconds

    def end(self) -> None:
        """End training, regularly."""
        if not self.reason:
            self._over = True
            self._go.release()
        self._thread.join()

    def _next_turn(self):
        if len(self._clock.seconds) == self._wanted:
            self._done.release()
            self._go.acquire()
        if self._over:
            self._clock.model.stop_training = True

    def _train(self):
        self._go.acquire()
        row = self.contestant
        try:
            model, data, x = models.compiled(self._way)
            with row.enter(model, x, str(self._folder)) as callbacks:
                model.fit(
                    data,
                    steps_per_epoch=1 if row.epochs_of_one else _ENDLESS,
                    epochs=_ENDLESS,
                    callbacks=[self._clock, *callbacks],
                    verbose=0,
                )
        except Exception as error:
            self.reason = short(error)
        self._done.release()


def short(error: Exception) -> str:
    """Why a contestant cannot run, in one line."""
    text = str(error)
    # "Detected unsupported operations when trying to compile graph F on XLA_CPU_JIT:
    # WriteSummary (No registered 'WriteSummary' OpKernel for ..."
    if missing := re.search(r"XLA\w*: (\w+) \(No registered", text):
        return f"XLA cannot compile {missing[1]}"
    lines = text.strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:100]}"


def compare(
    way: models.Way,
    rows: list[contestants.Contestant],
    folder: Path,
    rounds: int,
    steps: int,
    say=lambda text: None,
) -> list[dict]:
    """Train contestants in alternation.

    Args:
        way: The model, and how it is compiled.
        rows: The contestants, including those that others are divided by.
        folder: For what they write.
        rounds: How often it is each one's turn.
        steps: Steps in a turn that count, after one that does not.
        say: Called with what happens.

    Returns:
        One dict for each contestant: `ratio`, `added` seconds and `seconds` with their
        intervals, or the `reason` for which it cannot run. They are medians over the
        rounds: of the mean step of the turn, divided by and less the mean step of the
        other one in the same round.
    """
    players = []
    for i, row in enumerate(rows):
        say(f"{way}: {row.name}")
        player = Player(row, way, folder / f"{way.model}-{way.mode}-{way.precision}-{i}")
        player.turn(WARM_UP)
        players.append(player)
    means = {player.contestant.name: [] for player in players}
    for turn in range(rounds):
        say(f"{way}: round {turn + 1} of {rounds}")
        first = turn % len(players)  # each has each place, and each neighbour on both sides
        order = players[first:] + players[:first]
        for player in order if turn % 2 else order[::-1]:
            if not player.reason:
                counted = player.turn(1 + steps)[1:]
                means[player.contestant.name].append(sum(counted) / max(1, len(counted)))
    for player in players:
        player.end()
    return [result(way, player, means) for player in players]


def result(way, player, means):
    row, seconds = player.contestant, means[player.contestant.name]
    found = way._asdict() | {
        "contestant": row.name,
        "ours": row.ours,
        "against": row.against,
        "note": row.note,
    }
    others = means.get(row.against, [])
    if player.reason or not seconds or not others:
        return found | {"reason": player.reason or f"needs {row.against!r}"}
    pairs = list(zip(seconds, others, strict=True))
    return found | {
        "ratio": median([mine / other for mine, other in pairs])._asdict(),
        "added": median([mine - other for mine, other in pairs])._asdict(),
        "seconds": median(seconds)._asdict(),
    }

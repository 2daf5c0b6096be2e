"""The parts of the benchmark: each measures one thing and returns rows for its table."""

import itertools
import tempfile
from pathlib import Path

import contestants
import fresh
import kernel
import turns
from intervals import median

import models

EVERY_STEP = {"sample_every": 1}
CHAIN = (
    "no monitor",
    "ours, every step",
    "ours, every step, log",
    "ours, every step, histograms, log",
)
LARGER_BATCH = 1.25
"""For the control of `memory`: activations grow by this, so should the figure."""


def ways(arguments, names=None):
    """The models and how they are compiled, as asked for."""
    chosen = itertools.product(
        names or arguments.models, arguments.modes, arguments.precision
    )
    return [models.Way(*each) for each in chosen]


def steps(arguments, say):
    """A step of each contestant, begin to begin."""
    rows = list(contestants.CONTESTANTS)
    if arguments.contestants:
        asked = {
            row.name for row in rows if any(t in row.name for t in arguments.contestants)
        }
        asked |= {contestants.NAMES[name].against for name in asked}
        rows = [row for row in rows if row.name in asked | {"no monitor"}]
    return [row for way in ways(arguments) for row in _compare(arguments, way, rows, say)]


def _compare(arguments, way, rows, say):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return turns.compare(
            way, rows, Path(folder), arguments.rounds, arguments.steps, say
        )


def chain(arguments, say):
    """Microseconds that a sampled step adds for each of many tiny layers."""
    found = []
    for layers in arguments.chain:
        for way in ways(arguments, [f"chain-{layers}"]):
            rows = [contestants.NAMES[name] for name in CHAIN]
            found += [
                row | {"layers": layers} for row in _compare(arguments, way, rows, say)
            ]
    return found


def first(arguments, say):
    """The first sampled step over the first plain step."""
    names = [*arguments.models, *(f"chain-{layers}" for layers in arguments.chain)]
    variants = {
        "no monitor": {"monitor": None},
        "ours, every step": {"monitor": EVERY_STEP | {"histograms": False}},
        "ours, every step, histograms": {"monitor": EVERY_STEP},
    }
    each = ways(arguments, names)
    return _fresh("first", each, variants, arguments.repeats, say)


def fit(arguments, say):
    """A whole `fit` at the default schedule over a plain one, with log and compilation."""
    names = [name for name in arguments.models if name != "resnet50" or arguments.long]
    variants = {"no monitor": {"monitor": None}, "ours, default schedule": {"monitor": {}}}
    each, steps = ways(arguments, names), arguments.fit_steps
    return _fresh("training", each, variants, arguments.repeats, say, steps=steps)


def memory(arguments, say):
    """The peak of memory, with a control: a larger batch, of which the effect is known."""
    batch = models.BUILDERS[arguments.memory_model][1]
    variants = {
        "no monitor": {},
        "ours, every step": {"monitor": EVERY_STEP | {"histograms": False}},
        "ours, every step, histograms": {"monitor": EVERY_STEP},
        f"no monitor, batch x {LARGER_BATCH}": {"batch": int(batch * LARGER_BATCH)},
    }
    each = ways(arguments, [arguments.memory_model])
    return _fresh("memory", each, variants, arguments.repeats, say)


def _fresh(kind, each_way, variants, repeats, say, **same):
    """Rows with ratios to "no monitor", one for each figure that a process returns."""
    found = []
    for way in each_way:
        measured = fresh.alternating(kind, variants, repeats, say, way=way, **same)
        for figure in measured["no monitor"][0]:
            plain = [one[figure] for one in measured["no monitor"]]
            for name, ones in measured.items():
                mine = [one[figure] for one in ones]
                ratios = [a / b for a, b in zip(mine, plain, strict=True)]
                found.append(
                    way._asdict()
                    | {"contestant": name, "figure": figure, "repeats": repeats}
                    | {"ratio": median(ratios)._asdict(), "value": median(mine)._asdict()}
                    | same
                )
    return found


def kernels(arguments, say):
    """The kernel alone on three shapes."""
    found = []
    for mode, precision in itertools.product(arguments.modes, arguments.precision):
        say(f"kernels: {mode}, {precision}")
        found += kernel.compare(mode, precision, arguments.kernel_rounds)
    return found


LOGS = {
    "neither": {"histograms": False, "scalars": False},
    "scalars": {"histograms": False, "scalars": True},
    "histograms": {"histograms": True, "scalars": False},
    "both": {"histograms": True, "scalars": True},
}


def log(arguments, say):
    """Bytes of the log per layer and snapshot."""
    found = []
    for name, options in LOGS.items():
        say(f"log: {name}")
        way = models.Way(arguments.log_model)
        measured = fresh.measured("log", way=way, monitor=options)
        found.append({"model": way.model, "logged": name} | measured)
    return found


def board(arguments, say):
    """Memory of TensorBoard per layer and snapshot, from a short and a long log."""
    layers, many = arguments.board
    few, found = max(1, many // 10), []
    for scalars in (False, True):
        say(f"TensorBoard: {layers} layers, {'with' if scalars else 'without'} scalars")
        short, long = (
            fresh.measured("board", layers=layers, steps=steps, scalars=scalars)
            for steps in (few, many)
        )
        each = (long["bytes"] - short["bytes"]) / ((many - few) * layers)
        found.append(
            {"layers": layers, "snapshots": many, "scalars": scalars}
            | {"bytes_each": each, "bytes": long["bytes"], "read": long["read"]}
        )
    return found


PARTS = {
    "steps": steps,
    "first": first,
    "fit": fit,
    "chain": chain,
    "memory": memory,
    "kernel": kernels,
    "log": log,
    "board": board,
}

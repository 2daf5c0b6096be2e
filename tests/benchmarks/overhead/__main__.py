"""What monitoring a training costs: this package and what people use instead.

    python tests/benchmarks/overhead --json costs.json            # everything; hours
    python tests/benchmarks/overhead --models mlp --parts steps   # some of it
    python tests/benchmarks/overhead --read costs.json --scale    # without measuring
    python tests/benchmarks/overhead --read costs.json --figure examples/cost.svg

Parts:

    steps   a step of each contestant over one without a monitor, in alternation
    first   the first sampled step over the first plain step, in fresh processes
    fit     a `fit` of 1,000 steps at the default schedule over a plain one
    chain   what a sampled step adds for each of many tiny layers
    memory  the peak of memory
    kernel  the measuring of one tensor over one sum of it
    log     bytes of the log per layer and snapshot
    board   memory of TensorBoard, and the time to read a log back

All ratios are medians with 95 % intervals, of pairs that were measured one after the
other. `turns.py` says how contestants alternate.
"""

import argparse
import datetime
import json
import os
import platform
import sys
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console

PARTS = ("steps", "first", "fit", "chain", "memory", "kernel", "log", "board")


def parsed():
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks/overhead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to measure")
    what.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    what.add_argument(
        "--models",
        nargs="+",
        default=("resnet50", "transformer", "mlp"),
        help="also `wide`, and `chain-N` of N tiny layers",
    )
    what.add_argument(
        "--modes", nargs="+", choices=("graph", "xla"), default=("graph", "xla")
    )
    what.add_argument(
        "--precision",
        nargs="+",
        default=("float32", "mixed"),
        help="dtype policies; `mixed` is mixed_float16 on a GPU and else mixed_bfloat16",
    )
    what.add_argument(
        "--contestants",
        nargs="+",
        metavar="TEXT",
        help="of the part `steps`, those with one of these texts in their names",
    )
    what.add_argument("--memory-model", default="wide")
    what.add_argument("--log-model", default="mlp")
    what.add_argument("--long", action="store_true", help="the part `fit` of ResNet50 too")

    size = parser.add_argument_group("how much")
    size.add_argument("--rounds", type=int, default=24, help="turns of each contestant")
    size.add_argument("--steps", type=int, default=3, help="steps of a turn that count")
    size.add_argument("--repeats", type=int, default=3, help="fresh processes of each kind")
    size.add_argument("--fit-steps", type=int, default=1000)
    size.add_argument("--kernel-rounds", type=int, default=50)
    size.add_argument("--chain", type=int, nargs="*", default=(50, 100, 200, 500))
    size.add_argument(
        "--board", type=int, nargs=2, default=(200, 1000), metavar=("LAYERS", "SNAPSHOTS")
    )

    out = parser.add_argument_group("what to do with it")
    out.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    out.add_argument(
        "--read",
        type=Path,
        metavar="FILE",
        help="start from the results in a file; nothing is measured unless --parts says so",
    )
    out.add_argument("--figure", type=Path, metavar="FILE", help="an SVG or PNG file")
    out.add_argument(
        "--scale",
        type=int,
        nargs="*",
        metavar="N",
        help="compute the costs of a run of N layers, N steps and N workers; "
        "without numbers 1000, 1000000 and 64",
    )
    arguments = parser.parse_args()
    if arguments.scale is not None and len(arguments.scale) not in (0, 3):
        parser.error("--scale takes no number, or three: layers, steps and workers")
    if arguments.read and arguments.parts is PARTS:
        arguments.parts = ()
    return arguments


def measure(arguments, results, say):
    """Measure the parts asked for. The file is written after each."""
    import parts
    import tensorflow as tf

    import models

    tf.get_logger().setLevel("ERROR")
    half = models.mixed_precision()
    arguments.precision = [half if p == "mixed" else p for p in arguments.precision]
    here, before = machine(), results.get("machine")
    if before and before | {"date": ""} != here | {"date": ""}:
        raise SystemExit(f"--read: measured on another machine, {before}; this is {here}.")
    results["machine"] = here
    results["command"] = sys.argv[1:]
    for part in arguments.parts:
        results[part] = parts.PARTS[part](arguments, say)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1))


def machine():
    """Where the figures come from."""
    import keras
    import tensorflow as tf

    cpu = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return {
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "gpus": gpus,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "date": datetime.date.today().isoformat(),
    }


def main():
    arguments = parsed()
    results = json.loads(arguments.read.read_text()) if arguments.read else {}
    console, progress = Console(), Console(stderr=True)
    if not console.is_terminal:
        console.width = 150  # as wide as the tables
    # The second model of a folk recipe has another structure than its data, says Keras.
    warnings.simplefilter("ignore")
    if arguments.parts:
        with progress.status("starts") as status:
            measure(arguments, results, status.update)

    import show

    where = (f"{name} {value}" for name, value in results["machine"].items() if value)
    console.print(", ".join(where))
    for table in show.tables(results):
        console.print(table)
    if arguments.scale is not None:
        import scale

        run = arguments.scale or (1000, 1_000_000, 64)
        console.print(show.scale(scale.estimates(results, *run), *run))
    if arguments.figure:
        import figure

        figure.write(figure.draw(results["steps"]), arguments.figure)


if __name__ == "__main__":
    main()

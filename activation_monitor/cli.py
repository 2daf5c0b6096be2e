"""The command line, `activation-monitor`."""

import argparse
import math
import os
import sys

from activation_monitor.analysis import chain, moments

_STDS = {"exploding": 1.0, "vanishing": 0.01, "critical": None}
_POLICIES = ("float32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
_JIT = {"auto": "auto", "on": True, "off": False}


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 passed, 1 failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="activation-monitor",
        description="Tells you why your Keras network does not train.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    calibration = commands.add_parser(
        "calibrate",
        help="prove on this machine that what the monitor measures is true",
        description=(
            "Shows the matmul-chain study, then runs the same chain as Keras layers "
            "through model.fit with an ActivationMonitor and holds the measured growth "
            "against the exact law. A right monitor fails by chance at most once in "
            f"{1 / chain.FALSE_ALARMS:.0f} chains."
        ),
    )
    add = calibration.add_argument
    add(
        "--width",
        type=_at_least(chain.NARROWEST),
        default=512,
        help="units per layer [512]",
    )
    add("--layers", type=_at_least(1), default=20, help="layers of the chain [20]")
    add("--dtype", choices=_POLICIES, default="float32", help="dtype policy [float32]")
    add("--jit", choices=_JIT, default="auto", help="XLA compilation [auto]")
    add("--seed", type=int, default=0, help="of the random weights [0]")
    add("--no-study", action="store_true", help="only the calibration")
    calibration.set_defaults(run=_calibrate)

    auditing = commands.add_parser(
        "audit",
        help="diagnose a saved model before training",
        description=(
            "Makes one forward pass of a saved model and says what is wrong with its "
            "initialization. Exit code 0: nothing found; 1: something; 2: it could not "
            "be audited."
        ),
    )
    add = auditing.add_argument
    add("model", help="a file that `model.save` wrote")
    add(
        "--data",
        help="a batch of inputs: .npy, or .npz with an array for each input, by name or "
        "in order [Gaussian noise of mean 0 and std 1; small integers where those are "
        "asked for]",
    )
    add("--batch", type=_at_least(1), default=64, help="samples to take [64]")
    add("--seeds", type=_at_least(1), default=1, help="initializations to draw [1]")
    add("--silence", nargs="*", default=[], metavar="CODE", help="findings not to report")
    auditing.set_defaults(run=_audit)

    reporting = commands.add_parser(
        "report",
        help="make one page of what monitors logged",
        description=(
            "Makes a self-contained HTML page of all runs in a log folder and below it. "
            "Exit code 0: it was made, whatever it says; 2: it could not be."
        ),
    )
    add = reporting.add_argument
    add("log_dir", metavar="LOGDIR", help="the `log_dir` of a monitor, or a folder of them")
    add("-o", "--output", help="the file to write [report.html; with --json the terminal]")
    add("--json", action="store_true", help="the same for programs, as JSON")
    reporting.set_defaults(run=_report)

    comparing = commands.add_parser(
        "compare",
        help="say what differs between two runs, and from which layer on",
        description=(
            "Holds two logged runs against each other: layers, how they were drawn, sizes "
            "at the first and the last step, findings. Exit code 0: they do not differ "
            "beyond chance; 1: they do; 2: they could not be compared."
        ),
    )
    for name in ("run_a", "run_b"):
        comparing.add_argument(name, metavar=name.upper(), help="a monitor's `log_dir`")
    comparing.set_defaults(run=_compare)

    arguments = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return arguments.run(arguments)


def _at_least(least):
    def integer(text):
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        return int(text)

    return integer


def _calibrate(arguments):
    from activation_monitor.views import console

    if not arguments.no_study:
        for study in studies(arguments.seed):
            console.show(console.study_table(study))
    passed = []
    for trial, (kind, std) in enumerate(_STDS.items()):
        std = std or 1.0 / math.sqrt(arguments.width)
        if kind != "critical" and arguments.dtype in ("float16", "mixed_float16"):
            continue  # float16 ends after four such layers
        calibration = calibrate(
            weight_std=std,
            width=arguments.width,
            layers=arguments.layers,
            dtype=arguments.dtype,
            jit_compile=_JIT[arguments.jit],
            seed=(arguments.seed, trial),
        )
        console.show(console.calibration_table(calibration))
        passed.append(calibration.passed)
    print(f"Calibration: {'PASS' if all(passed) else 'FAIL'}")
    return 0 if all(passed) else 1


def _audit(arguments):
    import keras

    from activation_monitor.auditing import audit

    try:
        model = keras.saving.load_model(arguments.model, compile=False)
        x = _batch(model, arguments)
        diagnosis = audit(model, x, seeds=arguments.seeds, silence=arguments.silence)
    except Exception as error:
        print(f"activation-monitor audit: {error}", file=sys.stderr)
        return 2
    print(diagnosis)
    if arguments.data is None:
        print(
            "Measured on made-up inputs, which say nothing about the size of yours: give "
            "real ones with --data."
        )
    return 0 if diagnosis.healthy else 1


def _report(arguments):
    import json
    from pathlib import Path

    from activation_monitor.views import events, report, summary

    try:
        runs = events.read_runs(arguments.log_dir)
        if arguments.json:
            text = json.dumps(summary.summary(runs), indent=1, allow_nan=False)
        else:
            text = report.page(runs, f"Activations in {arguments.log_dir}")
        output = arguments.output or (None if arguments.json else "report.html")
        if output is None:
            print(text)
            return 0
        Path(output).write_text(text, encoding="utf-8")
    except Exception as error:
        print(f"activation-monitor report: {error}", file=sys.stderr)
        return 2
    print(f"Wrote {output}: {', '.join(runs)}.")
    return 0


def _compare(arguments):
    from activation_monitor.analysis import comparison
    from activation_monitor.views import console, events

    names = (arguments.run_a, arguments.run_b)
    try:
        histories = [events.read_history(name) for name in names]
        diagnoses = tuple(console.diagnose(history) for history in histories)
        found = comparison.compare(*histories, diagnoses, names)
    except Exception as error:
        print(f"activation-monitor compare: {error}", file=sys.stderr)
        return 2
    console.show(console.comparison_table(found, names))
    return 1 if found.differences else 0


def _batch(model, arguments):
    """The inputs from the file, or made-up ones, in the structure the model takes."""
    import keras
    import numpy as np

    from activation_monitor.recording.taps import all_layers

    if not model.built or not getattr(model, "inputs", None):
        raise ValueError(
            "expected a model whose inputs are known (Functional, or Sequential with an "
            f"Input). Received: {type(model).__name__}. In Python, audit(model, x) does."
        )
    if arguments.data is None:
        rng = np.random.default_rng(0)
        tables = [
            layer.input_dim
            for layer in all_layers(model)
            if isinstance(layer, keras.layers.Embedding)
        ]
        found = [_made_up(given, arguments.batch, tables, rng) for given in model.inputs]
    else:
        loaded = np.load(arguments.data)
        names = [given.name for given in model.inputs]
        if isinstance(loaded, np.ndarray):
            found = [loaded]
        elif set(names) <= set(loaded.files):
            found = [loaded[name] for name in names]
        else:
            found = [loaded[name] for name in loaded.files]
        if len(found) != len(names):
            raise ValueError(
                f"expected {len(names)} arrays in {arguments.data}, one for each of the "
                f"model's inputs ({', '.join(names)}). Received: {len(found)}."
            )
        found = [array[: arguments.batch] for array in found]
    if isinstance(model, keras.Sequential):
        return found[0]
    return keras.tree.pack_sequence_as(model.input, found)


def _made_up(given, batch, tables, rng):
    """A batch for one input; axes of unknown length get 32."""
    shape = (batch, *(32 if length is None else length for length in given.shape[1:]))
    if "int" in given.dtype:
        return rng.integers(0, min(tables, default=2), shape).astype(given.dtype)
    return rng.standard_normal(shape).astype(given.dtype)


def studies(seed: int = 0) -> list[chain.Study]:
    """The three experiments of the study, measured as in a training step."""
    from activation_monitor.recording import tensorflow_backend

    def measure(x):
        return tensorflow_backend.measure_once(x, exact=True)

    return [
        chain.chain_study(1.0, seed=seed, measure=measure),
        chain.chain_study(0.01, 0.01, seed=seed, measure=measure),
        chain.single_product_study(1.0, seed=seed, measure=measure),
        chain.single_product_study(1 / 25, seed=seed, measure=measure),
    ]


def calibrate(
    weight_std: float,
    width: int = 512,
    layers: int = 20,
    dtype: str = "float32",
    jit_compile: bool | str = "auto",
    seed: int | tuple[int, ...] = 0,
    **fit_options,
) -> chain.Calibration:
    """Train a chain of linear Keras layers for one step and check what was measured.

    Args:
        weight_std: Standard deviation of the weights.
        width: Units of every layer.
        layers: Number of layers.
        dtype: Keras dtype policy of the layers.
        jit_compile: As in `model.compile`.
        seed: Of the weights and the input.
        **fit_options: Passed on to `model.compile`, such as `run_eagerly`.
    """
    import keras
    import numpy as np

    from activation_monitor.monitor import ActivationMonitor

    rng = np.random.default_rng(seed)
    names = tuple(f"product_{i + 1}" for i in range(layers))
    model = keras.Sequential(
        [keras.Input((width,))]
        + [
            keras.layers.Dense(width, use_bias=False, dtype=dtype, name=name)
            for name in names
        ]
    )
    weights = [rng.normal(0.0, weight_std, (width, width)) for _ in names]
    model.set_weights([w.astype(np.float32) for w in weights])
    x = rng.standard_normal((1, width)).astype(np.float32)
    # A loss with finite gradients for outputs of any size, and steps of size zero.
    model.compile(
        keras.optimizers.SGD(0.0),
        lambda y, outputs: keras.ops.mean(keras.ops.tanh(outputs)),
        jit_compile=jit_compile,
        **fit_options,
    )
    # The monitor would rightly warn of two of the three chains.
    monitor = ActivationMonitor(histograms=False, on_finding=lambda finding: None)
    model.fit(x, np.zeros((1, 1), np.float32), verbose=0, callbacks=[monitor])

    measured = monitor.history[0].statistic("rms")  # the input, then the layers
    reference, y = [], x.astype(np.float64)
    for matrix in [np.eye(width), *(np.float32(w).astype(np.float64) for w in weights)]:
        y = y @ matrix
        reference.append(float(moments.STATISTICS["rms"](moments.measure(y))))
    return chain.calibrate(
        title=f"{layers} Dense layers of {width}, weights of std {weight_std:.4g}, "
        f"{dtype}, jit_compile={jit_compile}",
        names=names,
        rms=measured,
        reference_rms=np.array(reference),
        weight_std=weight_std,
        width=width,
    )


if __name__ == "__main__":
    sys.exit(main())

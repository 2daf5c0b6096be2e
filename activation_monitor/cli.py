"""The command line, `activation-monitor`."""

import argparse
import functools
import math
import os
import re
import sys
import warnings
from pathlib import Path

from activation_monitor.analysis import chain, records
from activation_monitor.analysis.findings import CODES
from activation_monitor.analysis.hints import no_such
from activation_monitor.foreign_errors import first_line

_STDS = {"exploding": 1.0, "vanishing": 0.01, "critical": None}
_POLICIES = ("float32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
_JIT = {"auto": "auto", "on": True, "off": False}


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 passed, 1 failed, 2 could not be run, and of
    `audit` 3 where nothing was found but not all could be assessed."""
    parser = argparse.ArgumentParser(
        prog="activation-monitor",
        description="Tells you why your Keras network does not train.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    calibration = commands.add_parser(
        "calibrate",
        help="prove on this machine that what the monitor measures is true",
        description=(
            "Shows the matmul-chain study, then runs the same chain as Keras layers "
            "through model.fit with an ActivationMonitor and holds the measured growth "
            "against the exact law. A right monitor fails by chance at most once in "
            f"{1 / chain.FALSE_ALARMS:.0f} chains. Exit code 0: it passed; 1: it failed; "
            "2: it could not be run."
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
    add("--seed", type=_at_least(0), default=0, help="of the random weights [0]")
    add("--no-study", action="store_true", help="only the calibration")
    calibration.set_defaults(run=_calibrate)

    auditing = commands.add_parser(
        "audit",
        help="diagnose a saved model before training",
        description=(
            "Makes one forward pass of a saved model and says what is wrong with its "
            "initialization. Exit code 0: healthy; 1: something was found; 2: it could "
            "not be audited; 3: nothing was found, but growth with depth could not be "
            "assessed."
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
    add(
        "--ignore",
        nargs="*",
        type=_code,
        default=[],
        metavar="CODE",
        help="findings not to report; give the model first",
    )
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
    if arguments.command is None:
        parser.error(f"expected a command: {', '.join(commands.choices)}. See --help.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with warnings.catch_warnings():
        warnings.showwarning = functools.partial(_show_warning, arguments.command)
        try:
            return arguments.run(arguments)
        except Exception as error:
            _say(arguments.command, _in_one_line(error))
            return 2


def _at_least(least):
    def integer(text):
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        return int(text)

    return integer


def _code(text):
    if text not in CODES:
        raise argparse.ArgumentTypeError(no_such("finding", text, CODES, listed=True))
    return text


def _say(command, text):
    print(f"activation-monitor {command}: {text}", file=sys.stderr)


def _show_warning(command, message, category, *where):
    """A warning as one line, without the line of code that it comes from."""
    del category, where
    _say(command, f"warning: {_without_function(str(message))}")


def _in_one_line(error):
    """What an error says, with the kind of error if it is not one that we would raise."""
    text = _without_function(first_line(error))
    if not isinstance(error, OSError | RuntimeError | TypeError | ValueError):
        text = f"{type(error).__name__}: {text}"
    return f"{text}."


def _without_function(text):
    """A message of ours without the function that raised it: a user of the command line
    did not call it."""
    return re.sub(r"^(audit|calibrate|compare|read_runs|report): ", "", text)


def _calibrate(arguments):
    from activation_monitor.views import console, tables

    if not arguments.no_study:
        for study in studies(arguments.seed):
            console.show(tables.study_table(study))
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
        console.show(tables.calibration_table(calibration))
        passed.append(calibration.passed)
    print(f"Calibration: {'PASS' if all(passed) else 'FAIL'}")
    return 0 if all(passed) else 1


def _audit(arguments):
    from activation_monitor import saved_models
    from activation_monitor.auditing import audit

    model = saved_models.load_model(arguments.model)
    x = saved_models.load_batch(model, arguments.data, arguments.batch)
    try:
        diagnosis = audit(model, x, seeds=arguments.seeds, ignore=arguments.ignore)
    except Exception as error:
        of = arguments.data or arguments.model
        raise RuntimeError(f"{of}: {_in_one_line(error)}") from error
    print(diagnosis)
    if arguments.data is None:
        print("Measured on made-up inputs, which say nothing about the size of yours.")
        print("Give real ones with --data.")
    return {"healthy": 0, "findings": 1, "not assessed": 3}[diagnosis.verdict]


def _report(arguments):
    import json

    from activation_monitor.storage import reader
    from activation_monitor.views import report, summary

    output = arguments.output or (None if arguments.json else "report.html")
    if output is not None:
        _check_output(output)
    runs = reader.read_runs(arguments.log_dir, "report")
    if arguments.json:
        text = json.dumps(summary.summary(runs), indent=1, allow_nan=False)
    else:
        text = report.page(runs, f"Activations in {arguments.log_dir}")
    if output is None:
        print(text)
        return 0
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OSError(f"{output} cannot be written ({error.strerror}).") from error
    print(f"Wrote {output}.")
    for run, diagnosis in summary.diagnose_all(runs).items():
        print(f"{run}: {_verdict(diagnosis)}")
    return 0


def _check_output(output):
    """Refuse what cannot be written to, before everything is read."""
    path = Path(output)
    if path.is_dir():
        raise IsADirectoryError(
            f"--output must be a file. Received: {output}, which is a folder. Write, for "
            f"example, to {path / 'report.html'}."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"--output must be a file in a folder that exists. Received: {output}. Make "
            f"the folder {path.parent} first."
        )


def _verdict(diagnosis):
    """A diagnosis in a few words."""
    if diagnosis.findings:
        return f"findings: {', '.join(finding.code for finding in diagnosis.findings)}"
    return diagnosis.verdict


def _compare(arguments):
    from activation_monitor.analysis import comparison
    from activation_monitor.analysis.diagnosis import diagnose
    from activation_monitor.storage import reader
    from activation_monitor.views import console, tables

    names = (arguments.run_a, arguments.run_b)
    recordings = [reader.read_run(name, "compare") for name in names]
    diagnoses = tuple(diagnose(recording) for recording in recordings)
    found = comparison.compare(*recordings, diagnoses, names)
    console.show(tables.comparison_table(found, names))
    return 1 if found.differences else 0


def studies(seed: int = 0) -> list[chain.Study]:
    """The three experiments of the study, measured as in a training step."""
    from activation_monitor.recording.backends import backend

    def measure(x):
        return backend.measure_once(x, exact=True)

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

    Raises:
        RuntimeError: If nothing was measured, with what the monitor warned of.
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
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, np.zeros((1, 1), np.float32), verbose=0, callbacks=[monitor])
    if not len(monitor.recording):
        said = [str(warning.message) for warning in caught] or ["no warning"]
        more = f" And {len(said) - 1} more warnings." if len(said) > 1 else ""
        raise RuntimeError(
            "calibrate: nothing was measured, so there is nothing to hold against the law. "
            f"Expected a measured step of `fit`. Received: {said[0].rstrip('.')}.{more}"
        )
    for warning in caught:
        warnings.warn_explicit(
            *(warning.message, warning.category, warning.filename, warning.lineno)
        )

    measured = monitor.recording[0].statistic("rms")  # the input, then the layers
    reference, y = [], x.astype(np.float64)
    for matrix in [np.eye(width), *(np.float32(w).astype(np.float64) for w in weights)]:
        y = y @ matrix
        reference.append(float(records.STATISTICS["rms"](records.measure(y))))
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

"""The command line, `activation-monitor`."""

import argparse
import functools
import math
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from activation_monitor.analysis import chain
from activation_monitor.analysis.findings import CODES
from activation_monitor.analysis.hints import no_such
from activation_monitor.analysis.shown import count
from activation_monitor.foreign_errors import first_line

_STDS = {"exploding": 1.0, "vanishing": 0.01, "critical": None}
_POLICIES = ("float32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
_JIT = {"auto": "auto", "on": True, "off": False}


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The arguments. Defaults to `None`: the arguments of the process.

    Returns:
        The exit code. 0: the command succeeded; 1: it found a problem or a difference;
        2: it could not run; 3: `audit` found nothing, but could not assess growth.
    """
    parser = argparse.ArgumentParser(
        prog="activation-monitor",
        description="Shows why a Keras network does not train.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (add_arguments, run, about, description) in _COMMANDS.items():
        command = commands.add_parser(name, help=about, description=description)
        add_arguments(command.add_argument)
        command.set_defaults(run=run)
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
    """Print a warning as one line, without the line of code that issued it."""
    del category, where
    _say(command, f"warning: {_without_function(str(message))}")


def _in_one_line(error):
    """The message of an error in one line.

    The type of the error is added if it is not a type that this package raises.
    """
    text = _without_function(first_line(error))
    ours = OSError | RuntimeError | TypeError | ValueError | ImportError
    if not isinstance(error, ours):
        text = f"{type(error).__name__}: {text}"
    return f"{text}."


def _without_function(text):
    """A message without the name of the Python function that raised it.

    The user of the command line did not call this function.
    """
    return re.sub(r"^(audit|calibrate|compare|export|read_runs|report): ", "", text)


def _calibrate_arguments(add):
    width = _at_least(chain.NARROWEST)
    add("--width", type=width, default=512, help="units per layer [512]")
    add("--layers", type=_at_least(1), default=20, help="layers of the chain [20]")
    add("--dtype", choices=_POLICIES, default="float32", help="dtype policy [float32]")
    add("--jit", choices=_JIT, default="auto", help="XLA compilation [auto]")
    add("--seed", type=_at_least(0), default=0, help="seed of the random weights [0]")
    add("--no-study", action="store_true", help="run only the calibration")


def _audit_arguments(add):
    add("model", help="a model file written by `model.save`")
    add(
        "--data",
        help="a batch of inputs: .npy, or .npz with one array per input, by name or in "
        "order [Gaussian noise of mean 0 and std 1; small integers for integer inputs]",
    )
    add("--batch", type=_at_least(1), default=64, help="samples to use at most [64]")
    add("--seeds", type=_at_least(1), default=1, help="initializations to audit [1]")
    about = "findings that are not reported; place MODEL before this option"
    add("--ignore", nargs="*", type=_code, default=[], metavar="CODE", help=about)


def _report_arguments(add):
    add("log_dir", metavar="LOGDIR", help="the `log_dir` of one or several monitors")
    add("-o", "--output", help="output file [report.html; with --json the terminal]")
    add("--json", action="store_true", help="write the report as JSON, for programs")
    about = (
        "the run that the others are compared with [the first one with the best verdict]"
    )
    add("--reference", metavar="RUN", help=about)


def _export_arguments(add):
    add("log_dir", metavar="LOGDIR", help="the `log_dir` of one or several monitors")
    about = "output file: its suffix .csv, .parquet or .json decides on the format"
    add("-o", "--output", required=True, metavar="FILE", help=about)


def _compare_arguments(add):
    for name in ("run_a", "run_b"):
        add(name, metavar=name.upper(), help="the `log_dir` of a monitor")


def _explain_arguments(add):
    add("code", type=_code, metavar="CODE", help=f"one of {', '.join(CODES)}")


def _calibrate(arguments):
    from activation_monitor import calibration
    from activation_monitor.views import console, tables

    if not arguments.no_study:
        for study in calibration.studies(arguments.seed):
            console.show(tables.study_table(study))
    passed = []
    for trial, (kind, std) in enumerate(_STDS.items()):
        std = std or 1.0 / math.sqrt(arguments.width)
        if kind != "critical" and arguments.dtype in ("float16", "mixed_float16"):
            continue  # float16 reaches its limits after four such layers
        found = calibration.calibrate(
            weight_std=std,
            width=arguments.width,
            layers=arguments.layers,
            dtype=arguments.dtype,
            jit_compile=_JIT[arguments.jit],
            seed=(arguments.seed, trial),
        )
        console.show(tables.calibration_table(found))
        passed.append(found.passed)
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
        file = arguments.data or arguments.model
        raise RuntimeError(f"{file}: {_in_one_line(error)}") from error
    print(diagnosis)
    if arguments.data is None:
        print("Measured on random inputs, whose scale may differ from your data.")
        print("Pass real inputs with --data.")
    return {"healthy": 0, "findings": 1, "not assessed": 3}[diagnosis.verdict]


def _report(arguments):
    import json

    from activation_monitor.storage import reader
    from activation_monitor.views import report, summary

    output = arguments.output or (None if arguments.json else "report.html")
    if output is not None:
        _check_output(output, "report.html")
    runs = reader.read_runs(arguments.log_dir, "report")
    if arguments.json:
        found = summary.summary(runs, arguments.reference)
        text = json.dumps(found, indent=1, allow_nan=False)
    else:
        title = f"Activations in {arguments.log_dir}"
        text = report.page(runs, title, arguments.reference)
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


def _check_output(output, example):
    """Check the output path before the logs are read."""
    path = Path(output)
    if path.is_dir():
        raise IsADirectoryError(
            f"--output must be a file. Received: {output}, which is a folder. Use, for "
            f"example, {path / example}."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"--output must be a file in an existing folder. Received: {output}. Create "
            f"the folder {path.parent} first."
        )


def _export(arguments):
    from activation_monitor.storage import reader
    from activation_monitor.views import export

    _check_output(arguments.output, "numbers.csv")
    export.check(arguments.output)
    runs = reader.read_runs(arguments.log_dir, "export")
    export.write(runs, arguments.output)
    print(f"Wrote {arguments.output}: {count(len(runs), 'run')}.")
    return 0


def _verdict(diagnosis):
    """A diagnosis in a few words."""
    from activation_monitor.views.in_words import in_short

    if diagnosis.findings:
        return f"findings: {', '.join(map(in_short, diagnosis.findings))}"
    return diagnosis.verdict


def _explain(arguments):
    from activation_monitor.views import explain

    explain.show(arguments.code)
    return 0


def _compare(arguments):
    from activation_monitor.analysis import comparison
    from activation_monitor.analysis.diagnosis import diagnose
    from activation_monitor.storage import reader
    from activation_monitor.views import console, tables

    names = (arguments.run_a, arguments.run_b)
    first, second = (reader.read_run(name, "compare") for name in names)
    diagnoses = diagnose(first), diagnose(second)
    found = comparison.compare(first, second, diagnoses, names)
    console.show(tables.comparison_table(found, names))
    return 1 if found.differences else 0


class _Command(NamedTuple):
    """A command: its arguments, its function, its summary and its description."""

    arguments: Callable
    run: Callable
    about: str
    description: str


_COMMANDS = {
    "calibrate": _Command(
        _calibrate_arguments,
        _calibrate,
        "verify the measurements of the monitor on this machine",
        "Shows the matmul-chain study. Then trains the same chain as Keras layers with "
        "model.fit and an ActivationMonitor, and compares the measured growth with the "
        "exact law. A correct monitor fails by chance at most once in "
        f"{1 / chain.FALSE_ALARMS:.0f} chains. Exit code 0: passed; 1: failed; 2: the "
        "calibration could not run.",
    ),
    "audit": _Command(
        _audit_arguments,
        _audit,
        "diagnose a saved model before training",
        "Runs one forward pass of a saved model and reports problems of its "
        "initialization. Exit code 0: healthy; 1: findings; 2: the model could not be "
        "audited; 3: no findings, but growth with depth was not assessed.",
    ),
    "report": _Command(
        _report_arguments,
        _report,
        "write logged runs to one HTML page",
        "Writes a self-contained HTML page with all runs in a log folder and its "
        "subfolders. Exit code 0: the page was written, with or without findings; 2: it "
        "could not be written.",
    ),
    "compare": _Command(
        _compare_arguments,
        _compare,
        "show how two runs differ, and from which layer on",
        "Compares two logged runs: layers, initializers, rms at the first and the last "
        "step, and findings. Exit code 0: no difference beyond chance; 1: a difference; "
        "2: the runs could not be compared.",
    ),
    "export": _Command(
        _export_arguments,
        _export,
        "write the numbers of logged runs to a CSV, Parquet or JSON file",
        "Writes all statistics of all layers of all runs in a log folder and its "
        "subfolders, one row for each number: run, phase, step, layer, quantity, "
        "statistic, value. Exit code 0: the file was written; 2: it could not be written.",
    ),
    "explain": _Command(
        _explain_arguments,
        _explain,
        "explain a finding, its fixes and its limits",
        "Prints the section of the documentation about a finding.",
    ),
}


if __name__ == "__main__":
    sys.exit(main())

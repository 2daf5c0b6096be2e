"""The command line, and the calibration that verifies the measurements."""

import math
import os
import warnings
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

import models
from activation_monitor import ActivationMonitor, calibration, cli
from activation_monitor.analysis import chain, chance
from activation_monitor.analysis.findings import CODES


@pytest.fixture(
    params=[
        {},
        {"jit_compile": True},
        {"run_eagerly": True, "layers": 8},
        {"dtype": "mixed_bfloat16", "layers": 8},
        {"dtype": "mixed_float16", "layers": 8},
    ],
    ids=str,
)
def critical(request):
    """The critical chain, measured by a monitor in `fit`."""
    return calibration.calibrate(1 / math.sqrt(512), seed=7, **request.param)


def test_the_critical_chain_obeys_the_law(critical):
    """Weights of std 1/sqrt(n) keep the signal, with every dtype and compilation."""
    assert critical.passed, critical.verdict
    exact = 2e-2 if "mixed" in critical.title else 1e-5
    assert max(row.error for row in critical.rows) < exact


@pytest.mark.parametrize("std", [1.0, 0.01])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_exploding_and_vanishing_chains_obey_the_law(std, jit_compile):
    """Signals reach 1e19 and 1e-19, where the plain float32 std is infinite or zero."""
    found = calibration.calibrate(std, seed=8, jit_compile=jit_compile)
    assert found.passed, found.verdict
    assert max(row.error for row in found.rows) < 1e-5
    assert abs(math.log10(found.rows[-1].rms)) > 12
    low, high = (22.062, 23.162) if std == 1.0 else (0.22062, 0.23162)
    np.testing.assert_allclose([found.law.low, found.law.high], [low, high], 1e-3)


def test_a_monitor_that_is_wrong_fails():
    """The calibration fails if the error is 10 % and grows with every layer."""
    good = calibration.calibrate(1 / math.sqrt(512), layers=10)
    rms = np.array([1.0, *(row.rms for row in good.rows)])
    wrong = rms * 1.1 ** np.arange(11)
    reference = chance.chain_law(512, 1 / math.sqrt(512), 10).growth ** np.arange(11)
    names = tuple(row.name for row in good.rows)
    bad = chain.calibrate("wrong", names, wrong, reference, 1 / math.sqrt(512), 512)
    assert not bad.passed
    assert bad.verdict.startswith("FAIL")


@pytest.mark.smoke
def test_the_command_passes_and_prints_the_study(capsys):
    """The exit code is 0. The tables of study and calibration are printed."""
    assert cli.main(["calibrate", "--layers", "5"]) == 0
    printed = capsys.readouterr().out
    for line in (
        "The naive float32 std is inf after product 14.",
        "The naive float32 std is 0 after product 32.",
        "625 -> 10000",
        "Calibration: PASS",
    ):
        assert line in printed


def test_the_command_fails_with_an_exit_code(capsys, monkeypatch):
    """The exit code is 1 if any chain fails."""

    def failing(weight_std, **options):
        names = ("a", "b")
        rms = np.array([1.0, weight_std * 5, weight_std**2 * 25])
        return chain.calibrate("t", names, rms, rms, weight_std, options["width"])

    monkeypatch.setattr(calibration, "calibrate", failing)
    assert cli.main(["calibrate", "--no-study"]) == 1
    assert "Calibration: FAIL" in capsys.readouterr().out


def test_a_calibration_without_measurements_says_why(capsys, monkeypatch):
    """The exit code is 2, with the first warning of the monitor."""

    def blind(self, batch, logs=None):
        warnings.warn("ActivationMonitor: it sees nothing.", stacklevel=1)
        warnings.warn("ActivationMonitor: nor later.", stacklevel=1)

    monkeypatch.setattr(ActivationMonitor, "on_train_batch_begin", blind)
    monkeypatch.setattr(ActivationMonitor, "on_train_begin", lambda self, logs=None: None)
    assert cli.main(["calibrate", "--no-study", "--layers", "2"]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("activation-monitor calibrate: nothing was measured, so ")
    assert "Received: ActivationMonitor: it sees nothing. And 1 more warnings." in line
    assert "Calibration" not in captured.out


@pytest.mark.filterwarnings("always")
def test_a_calibration_passes_on_the_warnings_of_the_monitor(capsys, monkeypatch):
    """Warnings have one line each. They are not failures if something was measured."""
    begin = ActivationMonitor.on_train_begin

    def warns(self, logs=None):
        warnings.warn("ActivationMonitor: a remark.", stacklevel=1)
        begin(self, logs)

    monkeypatch.setattr(ActivationMonitor, "on_train_begin", warns)
    assert cli.main(["calibrate", "--no-study", "--layers", "2"]) == 0
    remark = "activation-monitor calibrate: warning: ActivationMonitor: a remark."
    assert remark in capsys.readouterr().err.splitlines()


# -- usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            "expected a command: calibrate, audit, report, compare, export, explain. "
            "See --help.",
        ),
        (["diagnose"], "argument COMMAND: invalid choice: 'diagnose' (choose from"),
        (["calibrate", "--width", "63"], "argument --width: must be at least 64, got 63"),
        (["calibrate", "--width", "wide"], "--width: invalid integer value: 'wide'"),
        (["calibrate", "--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
        (["calibrate", "--seed", "-1"], "argument --seed: must be at least 0, got -1"),
        (["audit"], "the following arguments are required: model"),
        (["audit", "m", "--batch", "0"], "argument --batch: must be at least 1, got 0"),
        (["report"], "the following arguments are required: LOGDIR"),
        (["compare", "a"], "the following arguments are required: RUN_B"),
        (["export", "logs"], "the following arguments are required: -o/--output"),
        (
            ["audit", "m", "--ignore", "dead-unit"],
            "--ignore: no finding named 'dead-unit'. Did you mean 'dead-units'? There "
            f"are: {', '.join(CODES)}.",
        ),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments, message, capsys):
    """The last line says what was expected, after the usage. Nothing is loaded before."""
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    assert exit.value.code == 2
    *usage, last = capsys.readouterr().err.splitlines()
    assert usage[0].startswith("usage: activation-monitor")
    assert message in last


# -- audits of files


def network(*inputs, layer=None):
    """A small model with these inputs."""
    x = [layers.Dense(4, "relu")(given) for given in inputs]
    x = layers.Concatenate()(x) if len(x) > 1 else x[0]
    return keras.Model([*inputs], layers.Dense(1)((layer or layers.Dropout(0.1))(x)))


class Own(layers.Layer):
    """A custom layer that is not registered."""

    def call(self, inputs):
        """Return the input."""
        return inputs * 1.0


def own_activation(x):
    """A custom function that is not registered."""
    return 2 * x


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Valid and invalid files of models and batches."""
    folder = tmp_path_factory.mktemp("files")
    model = models.perceptron()
    for name in ("good.keras", "good.h5"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras calls .h5 legacy
            model.save(folder / name)
    model.save_weights(folder / "good.weights.h5")
    vector, pair = keras.Input((8,), name="vector"), keras.Input((2,), name="pair")
    network(vector, pair).save(folder / "two.keras")
    network(vector, layer=Own()).save(folder / "own.keras")
    dense = layers.Dense(4, own_activation)
    network(vector, layer=dense).save(folder / "activation.keras")
    network(vector, layer=layers.Lambda(lambda x: 2 * x)).save(folder / "lambda.keras")
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    x = layers.Flatten()(layers.Embedding(10, 4)(tokens))
    keras.Model(tokens, layers.Dense(1)(x)).save(folder / "tokens.keras")
    content = (folder / "good.keras").read_bytes()
    (folder / "cut.keras").write_bytes(content[:-1000])
    hdf5 = (folder / "good.h5").read_bytes()
    (folder / "cut.h5").write_bytes(hdf5[: len(hdf5) // 2])
    with zipfile.ZipFile(folder / "zip.keras", "w") as archive:
        archive.writestr("notes.txt", "x")
    for name in ("text.keras", "text.h5", "text.npy", "model.pt"):
        (folder / name).write_text("Some text, no numbers.")
    (folder / "exported").mkdir()
    (folder / "exported" / "saved_model.pb").write_bytes(b"")
    (folder / "folder.npy").mkdir()

    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 8)).astype(np.float32)
    with_nan = np.where(np.arange(8) == 3, np.nan, x)
    arrays = {
        "x": x,
        "nan": with_nan,
        "double": x.astype(np.float64),
        "narrow": x[:, :7],
        "sample": x[0],
        "number": np.float32(3.0),
        "empty": x[:0],
        "strings": np.array([["a"] * 8] * 4),
        "objects": np.array([[None] * 8] * 4, object),
        "complex": x.astype(complex),
        "dates": np.zeros((4, 8), "datetime64[s]"),
        "large": np.full((20, 5), 10),
        "halves": np.full((20, 5), 0.5),
        "whole": rng.integers(0, 10, (20, 5)).astype(float),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=True)
    content = (folder / "x.npy").read_bytes()
    (folder / "cut.npy").write_bytes(content[:300])
    pair = x[:, :2]
    archives = {
        "named": {"pair": pair, "vector": x},
        "ordered": {"arr_0": x, "arr_1": pair},
        "reversed": {"arr_0": pair, "arr_1": x},
        "more": {"y": x[:, 0], "pair": pair, "vector": x},
        "misnamed": {"vector": x, "pear": pair},
        "one": {"vector": x},
        "none": {},
        "uneven": {"vector": x, "pair": pair[:7]},
        "pickled": {"vector": x, "pair": np.array([[None]] * 20, object)},
    }
    for name, named in archives.items():
        np.savez(folder / f"{name}.npz", **named)
    content = (folder / "named.npz").read_bytes()
    (folder / "cut.npz").write_bytes(content[: len(content) // 2])
    return folder


def audited(folder, capsys, *arguments):
    """Run an audit in the folder; returns exit code, output and lines of stderr."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        code = cli.main(["audit", *arguments])
    finally:
        os.chdir(before)
    captured = capsys.readouterr()
    return code, captured.out, captured.err.splitlines()


A_MODEL = "expected a file that `model.save` wrote, .keras or .h5. Received: "
IN_PYTHON = "model = keras.saving.load_model('{}', {})"


@pytest.mark.parametrize(
    ("model", "messages"),
    [
        ("missing.keras", [f"{A_MODEL}no such file."]),
        ("missing", [f"{A_MODEL}no such file."]),
        (".", [f"{A_MODEL}a folder."]),
        ("exported", [f"{A_MODEL}a folder that `model.export` wrote", "model.save("]),
        (
            "text.keras",
            [f"{A_MODEL}22 bytes that are not a zip archive: ", "Save the model again"],
        ),
        ("cut.keras", [A_MODEL, "bytes that are not a zip archive: it is truncated"]),
        ("text.h5", [f"{A_MODEL}22 bytes that are not an HDF5 file: it is truncated"]),
        (
            "cut.h5",
            ["it is damaged, or not a model (", "truncated", "Save the model again"],
        ),
        ("zip.keras", ["it is damaged, or not a model (", "config.json"]),
        ("model.pt", [f"{A_MODEL}model.pt, a kind of file that Keras does not load."]),
        (
            "good.weights.h5",
            [f"{A_MODEL}weights without their model.", "load_weights('good.weights.h5')"],
        ),
        (
            "own.keras",
            [
                "it contains 'Own', a custom class or function, which the command ",
                IN_PYTHON.format("own.keras", "custom_objects={'Own': Own}"),
            ],
        ),
        (
            "activation.keras",
            [
                "it contains 'own_activation', a custom class or function",
                "custom_objects={'own_activation': own_activation})`, then `print(",
            ],
        ),
        (
            "lambda.keras",
            [
                "it contains Python code, for example a Lambda layer",
                IN_PYTHON.format("lambda.keras", "safe_mode=False"),
            ],
        ),
    ],
)
def test_a_file_that_is_not_a_model_is_refused_with_the_reason(
    model, messages, folder, capsys
):
    """Exit code 2, and one line: the file, what was expected and received, what to do."""
    code, printed, (line,) = audited(folder, capsys, model)
    assert (code, printed) == (2, "")
    assert line.startswith(f"activation-monitor audit: {model}: ")
    assert line.endswith(".") and "\x1b" not in line
    for message in messages:
        assert message in line


ARRAYS = "expected arrays, as `np.save` or `np.savez` writes them. Received: "
TWO = "expected 2 arrays, for vector, pair. Received: "


@pytest.mark.parametrize(
    ("model", "data", "messages"),
    [
        ("good", "missing.npy", [f"{ARRAYS}no such file."]),
        ("good", "folder.npy", [f"{ARRAYS}a folder."]),
        ("good", "text.npy", [f"{ARRAYS}a file of another kind, of 22 bytes.", "np.save("]),
        ("good", "cut.npy", ["it is damaged or truncated (", "Save it again."]),
        ("good", "objects.npy", ["expected numbers. Received: Python objects", "astype("]),
        ("good", "strings.npy", ["expected numbers for ", "Received: dtype <U1."]),
        ("good", "complex.npy", ["expected numbers for ", "Received: dtype complex128."]),
        ("good", "dates.npy", ["expected numbers for ", "Received: dtype datetime64[s]."]),
        (
            "good",
            "number.npy",
            ["of shape (samples, ...)", "shape (), which has no sample"],
        ),
        ("good", "empty.npy", ["of shape (samples, ...)", "shape (0, 8), which has no"]),
        ("good", "narrow.npy", ["Expected: shape (batch, 8). Received: shape (20, 7)."]),
        (
            "good",
            "sample.npy",
            ["Received: shape (8,). For a single sample, pass a batch of one: `x[None"],
        ),
        ("good", "named.npz", ["expected 1 array, for ", "Received: 2 (pair, vector)."]),
        ("good", "good.keras", [f"{ARRAYS}an archive with other files in it, such as "]),
        ("two", "x.npy", [f"{TWO}1. Save the inputs with `np.savez('batch.npz'"]),
        ("two", "one.npz", [f"{TWO}1 (vector).", "**{'vector': ..., 'pair': ...})`."]),
        ("two", "none.npz", [f"{TWO}0."]),
        ("two", "misnamed.npz", [f"{TWO}2 (vector, pear)."]),
        ("two", "pickled.npz", ["expected numbers. Received: Python objects"]),
        ("two", "cut.npz", ["it is damaged or truncated ("]),
        ("two", "reversed.npz", ["for vector: shape (batch, 8). Received: shape (20, 2)."]),
        ("two", "uneven.npz", ["the same number of samples", "Received: 20, 7."]),
        ("tokens", "large.npy", ["integers from 0 to 9 for tokens", "Received: up to 10."]),
        ("tokens", "halves.npy", ["expected whole numbers for tokens, of dtype int32."]),
    ],
)
def test_a_file_that_does_not_fit_the_model_is_refused_with_the_reason(
    model, data, messages, folder, capsys
):
    """Exit code 2, and one line: the file, what was expected and received, what to do."""
    code, printed, (line,) = audited(folder, capsys, f"{model}.keras", "--data", data)
    assert (code, printed) == (2, "")
    assert line.startswith(f"activation-monitor audit: {data}: ")
    assert line.endswith(".") and "\x1b" not in line and "allow_pickle" not in line
    for message in messages:
        assert message in line


@pytest.mark.parametrize(
    ("model", "data"),
    [
        ("good.keras", "x.npy"),
        ("good.h5", "double.npy"),
        ("good.keras", "one.npz"),  # the name of a single array does not matter
        ("two.keras", "named.npz"),
        ("two.keras", "ordered.npz"),
        ("two.keras", "more.npz"),
        ("tokens.keras", "whole.npy"),
        ("good.keras", None),
        ("two.keras", None),
        ("tokens.keras", None),
    ],
)
def test_a_model_and_a_batch_that_fit_are_audited(model, data, folder, capsys):
    """A verdict is printed and nothing on stderr. The exit code is 0, or 3 if the network
    is too shallow to assess growth."""
    arguments = [] if data is None else ["--data", data]
    code, printed, errors = audited(folder, capsys, model, *arguments)
    assert (code, errors) == (0 if model.startswith("good") else 3, [])
    assert "indings; 1 step" in printed
    assert ("Pass real inputs with --data." in printed) == (data is None)
    assert max(map(len, printed.splitlines())) <= 80


def test_nan_in_a_batch_is_a_finding_and_not_wrong_usage(folder, capsys):
    """The exit code is 1, as for any finding."""
    code, printed, errors = audited(folder, capsys, "good.keras", "--data", "nan.npy")
    assert (code, errors) == (1, [])
    assert "nonfinite-activations" in printed
    ignored = ("--ignore", "nonfinite-activations")
    code, _, _ = audited(folder, capsys, "good.keras", "--data", "nan.npy", *ignored)
    assert code == 3  # NaN leaves nothing to assess


def test_a_model_without_known_inputs_is_refused(folder, capsys):
    """The message says what to do instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns that it is not built
        keras.Sequential([layers.Dense(1)]).save(folder / "unbuilt.keras")
    code, _, (line,) = audited(folder, capsys, "unbuilt.keras")
    assert code == 2
    assert "expected a model whose inputs are known" in line
    assert line.endswith(
        "In Python, `activation_monitor.audit(model, x)` accepts any model."
    )


def test_half_precision_is_calibrated_within_its_range(capsys):
    """float16 overflows after four layers of std 1, so only the critical chain is run."""
    assert cli.main(["calibrate", "--no-study", "--dtype", "float16", "--layers", "5"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("PASS: growth") == 1

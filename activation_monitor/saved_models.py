"""Loads a saved model and a batch for it from files, for the command line.

A file may be missing, truncated, of another kind or made for another model. In each case a
ValueError says which file it is, what was expected and what to do.
"""

import re
import zipfile
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np

from activation_monitor.foreign_errors import first_line
from activation_monitor.recording.inputs import input_names
from activation_monitor.recording.layers import all_layers

_HDF5, _NPY, _ZIP = b"\x89HDF\r\n\x1a\n", b"\x93NUMPY", b"PK"
"""The first bytes of files of these kinds."""

_A_MODEL = "expected a file that `model.save` wrote, .keras or .h5"
_ARRAYS = "expected arrays, as `np.save` or `np.savez` writes them"

_OWN = re.compile(
    r"(?:Could not locate (?:class|function)|Unknown (?:layer|[\w ]*function)):? '([^']+)'"
)
"""Keras' messages about a class or function that it cannot find."""


# -- the model


def load_model(path: str) -> keras.Model:
    """Load a model that `model.save` wrote, without compiling it.

    Args:
        path: The file, or the folder of a model that was saved with `zipped=False`.

    Raises:
        ValueError: If the model cannot be loaded.
    """
    received = _not_a_model(Path(path))
    if received:
        raise ValueError(f"{path}: {_A_MODEL}. Received: {received}.")
    try:
        return cast(keras.Model, keras.saving.load_model(path, compile=False))
    except Exception as error:
        raise ValueError(f"{path}: {_why_not_loaded(path, error)}.") from error


def _not_a_model(file):
    """What a file is if it is not a model, and what to do; empty if it may be a model.

    Only the name and the first bytes of the file are checked.
    """
    if not file.exists():
        return "no such file"
    if (file / "saved_model.pb").is_file():
        return (
            "a folder that `model.export` wrote for serving, without Keras layers. Save "
            'the model itself, with `model.save("model.keras")`'
        )
    if file.is_dir():  # a model that was saved with `zipped=False` is a folder
        return "" if (file / "config.json").is_file() else "a folder"
    size = file.stat().st_size
    again = "it is truncated, or of another kind. Save the model again"
    if file.suffix == ".keras":
        is_archive = zipfile.is_zipfile(file)
        return "" if is_archive else f"{size} bytes that are not a zip archive: {again}"
    if file.suffix in (".h5", ".hdf5"):
        is_hdf5 = _begins(file, _HDF5)
        return "" if is_hdf5 else f"{size} bytes that are not an HDF5 file: {again}"
    return (
        f"{file.name}, a kind of file that Keras does not load. Save the model with "
        '`model.save("model.keras")`'
    )


def _why_not_loaded(path, error):
    """Keras' error in one or two sentences, with what to do."""
    text = str(error)
    if own := _OWN.search(text):
        return (
            f"it contains {own[1]!r}, a custom class or function, which the command line "
            "cannot import. Import it in Python and audit the model there: "
            + _in_python(path, f", custom_objects={{{own[1]!r}: {own[1]}}}")
        )
    if "safe_mode" in text or "unsafe_deserialization" in text:
        return (
            "it contains Python code, for example a Lambda layer, which the command line "
            "does not run. If you trust the file, audit the model in Python: "
            + _in_python(path, ", safe_mode=False")
        )
    if "No model config found" in text or path.endswith(".weights.h5"):
        return (
            f"{_A_MODEL}. Received: weights without their model. Create the model in "
            f"Python, then `model.load_weights({path!r})` and `audit(model, x)`"
        )
    if isinstance(error, OSError | zipfile.BadZipFile | KeyError | EOFError):
        return f"it is damaged, or not a model ({first_line(error)}). Save the model again"
    return f"Keras {keras.__version__} cannot load it ({first_line(error)})"


def _in_python(path, options):
    return (
        f"`model = keras.saving.load_model({path!r}{options})`, then "
        "`print(activation_monitor.audit(model, x))`"
    )


# -- the batch


def load_batch(model: keras.Model, path: str | None, samples: int) -> Any:
    """Load or create a batch for a model.

    Shapes are not checked, because Keras may accept more than one.

    Args:
        model: The model.
        path: A .npy or .npz file. None for random inputs: Gaussian noise of mean 0 and
            std 1, and small integers for integer inputs.
        samples: The largest number of samples.

    Returns:
        Arrays `(samples, ...)` in the structure of the model's inputs.

    Raises:
        ValueError: If the inputs of the model are not known, or the file does not hold
            numbers for them.
    """
    names = input_names(model)
    if not model.built or not names:
        raise ValueError(
            "expected a model whose inputs are known (Functional, or Sequential with an "
            f"Input). Received: {type(model).__name__}. In Python, "
            "`activation_monitor.audit(model, x)` accepts any model."
        )
    if path is None:
        found = [_random(model, expected, samples) for expected in model.inputs]
    else:
        arrays = zip(names, model.inputs, _chosen(path, names), strict=True)
        found = [_checked(path, *each)[:samples] for each in arrays]
    if isinstance(model, keras.Sequential):
        return found[0]
    return keras.tree.pack_sequence_as(model.input, found)


def _random(model, expected, samples):
    """Random values for one input. Axes of unknown length get length 32."""
    rng = np.random.default_rng(0)
    shape = (samples, *(32 if length is None else length for length in expected.shape[1:]))
    if expected.dtype == "string":
        raise ValueError(
            f"expected strings for {expected.name}. Received: no data. Pass a file with "
            "--data."
        )
    if "int" in expected.dtype:
        tables = (a for a in all_layers(model) if isinstance(a, keras.layers.Embedding))
        most = min((table.input_dim for table in tables), default=2)
        return rng.integers(0, most, shape).astype(expected.dtype)
    return rng.standard_normal(shape).astype(expected.dtype)


def _chosen(path, names):
    """The arrays of a file for the inputs with these names, in the order of the names."""
    loaded = _loaded(path)
    if set(names) <= set(loaded):
        return [loaded[name] for name in names]
    # Other names, such as arr_0 and arr_1: the arrays are in the order of the inputs.
    if len(loaded) == len(names) and not set(names) & set(loaded):
        return [*loaded.values()]
    named = ", ".join(f"{name!r}: ..." for name in names)
    received = f" ({', '.join(loaded)})" if any(loaded) else ""
    raise ValueError(
        f"{path}: expected {len(names)} array{'s' * (len(names) > 1)}, for "
        f"{', '.join(names)}. Received: {len(loaded)}{received}. Save the inputs "
        f"with `np.savez('batch.npz', **{{{named}}})`."
    )


def _loaded(path):
    """The arrays of a file by name. The array of a .npy file has an empty name."""
    file = Path(path)
    if not file.exists():
        raise ValueError(f"{path}: {_ARRAYS}. Received: no such file.")
    if file.is_dir():
        raise ValueError(f"{path}: {_ARRAYS}. Received: a folder.")
    if not (_begins(file, _NPY) or _begins(file, _ZIP)):
        raise ValueError(
            f"{path}: {_ARRAYS}. Received: a file of another kind, of "
            f'{file.stat().st_size} bytes. Convert it with `np.save("batch.npy", x)`.'
        )
    try:
        with file.open("rb") as opened:
            loaded = np.load(opened, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            arrays = {name: loaded[name] for name in loaded.files}
    except Exception as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{path}: expected numbers. Received: Python objects, which may run code "
                'when they are loaded. Save `x.astype("float32")`.'
            ) from error
        raise ValueError(
            f"{path}: it is damaged or truncated ({first_line(error)}). Save it again."
        ) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(
                f"{path}: {_ARRAYS}. Received: an archive with other files in it, such as "
                f"{name}."
            )
    return arrays


def _checked(path, name, expected, array):
    """The array for one input, after a check of its dtype and number of samples."""
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(
            f"{path}: expected an array of shape (samples, ...) for {name}. Received: "
            f"shape {array.shape}, which has no sample."
        )
    strings, complex_ = expected.dtype == "string", expected.dtype.startswith("complex")
    wanted = "strings" if strings else "numbers"
    right = array.dtype.kind in ("SU" if strings else "biufc" if complex_ else "biuf")
    if right and array.dtype.kind == "f" and "int" in expected.dtype:
        wanted, right = "whole numbers", not np.any(array % 1)
    if not right:
        raise ValueError(
            f"{path}: expected {wanted} for {name}, of dtype {expected.dtype}. Received: "
            f"dtype {array.dtype}."
        )
    return array


def _begins(file, signature):
    with file.open("rb") as opened:
        return opened.read(len(signature)) == signature

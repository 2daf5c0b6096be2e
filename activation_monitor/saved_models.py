"""A saved model and a batch for it, from files: what the command line audits.

Every file may be missing, cut, of another kind or for another model. Each of these is a
ValueError that says which file, what was expected and what to do.
"""

import re
import zipfile
from pathlib import Path

import keras
import numpy as np

from activation_monitor.foreign_errors import first_line
from activation_monitor.recording.inputs import input_names
from activation_monitor.recording.layers import all_layers

_HDF5, _NPY, _ZIP = b"\x89HDF\r\n\x1a\n", b"\x93NUMPY", b"PK"
"""How files of these kinds begin."""

_A_MODEL = "expected a file that `model.save` wrote, .keras or .h5"
_ARRAYS = "expected arrays, as `np.save` or `np.savez` writes them"

_OWN = re.compile(
    r"(?:Could not locate (?:class|function)|Unknown (?:layer|[\w ]*function)):? '([^']+)'"
)
"""What Keras says of a class or function that is not its own."""


# -- the model


def load_model(path: str) -> keras.Model:
    """Load what `model.save` wrote, without its compilation.

    Raises:
        ValueError: If it cannot be loaded.
    """
    received = _not_a_model(Path(path))
    if received:
        raise ValueError(f"{path}: {_A_MODEL}. Received: {received}.")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:
        raise ValueError(f"{path}: {_why_not_loaded(path, error)}.") from error


def _not_a_model(file):
    """What a file is instead, with what to do, as far as it shows from outside."""
    if not file.exists():
        return "no such file"
    if (file / "saved_model.pb").is_file():
        return (
            "a folder that `model.export` wrote for serving, without Keras layers. Save "
            'the model itself, with `model.save("model.keras")`'
        )
    if file.is_dir():  # a model that was saved with `zipped=False` is one
        return "" if (file / "config.json").is_file() else "a folder"
    size = file.stat().st_size
    again = f"of {size} bytes: it is cut, or of another kind. Save the model again"
    if file.suffix == ".keras":
        return "" if zipfile.is_zipfile(file) else f"no archive but a file {again}"
    if file.suffix in (".h5", ".hdf5"):
        return "" if _begins(file, _HDF5) else f"no HDF5 file but one {again}"
    return (
        f"{file.name}, of a kind that Keras does not load. Save the model with "
        '`model.save("model.keras")`'
    )


def _why_not_loaded(path, error):
    """What Keras raised, in one or two sentences."""
    text = str(error)
    if own := _OWN.search(text):
        return (
            f"it contains {own[1]!r}, a class or function of your own, which the command "
            "line cannot import. Audit it in Python, where you import it: "
            + _in_python(path, f", custom_objects={{{own[1]!r}: {own[1]}}}")
        )
    if "safe_mode" in text or "unsafe_deserialization" in text:
        return (
            "it contains Python code, such as that of a Lambda layer, which the command "
            "line does not run. If you trust the file, audit it in Python: "
            + _in_python(path, ", safe_mode=False")
        )
    if "No model config found" in text or path.endswith(".weights.h5"):
        return (
            f"{_A_MODEL}. Received: weights without their model. Make the model in Python, "
            f"then `model.load_weights({path!r})` and `audit(model, x)`"
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


def load_batch(model: keras.Model, path: str | None, samples: int):
    """A batch for a model, in the structure that it takes.

    Args:
        model: The model.
        path: Of a .npy or .npz file; None for made-up inputs: Gaussian noise, and small
            integers where those are asked for.
        samples: How many to take at most.

    Raises:
        ValueError: If the inputs of the model are not known, or the file does not hold
            numbers for them. Shapes are not checked: Keras takes more than one.
    """
    names = input_names(model)
    if not model.built or not names:
        raise ValueError(
            "expected a model whose inputs are known (Functional, or Sequential with an "
            f"Input). Received: {type(model).__name__}. In Python, "
            "`activation_monitor.audit(model, x)` takes any model."
        )
    if path is None:
        found = [_made_up(model, given, samples) for given in model.inputs]
    else:
        arrays = zip(names, model.inputs, _chosen(path, names), strict=True)
        found = [_checked(path, *each)[:samples] for each in arrays]
    if isinstance(model, keras.Sequential):
        return found[0]
    return keras.tree.pack_sequence_as(model.input, found)


def _made_up(model, given, samples):
    """A batch for one input; axes of unknown length get 32."""
    rng = np.random.default_rng(0)
    shape = (samples, *(32 if length is None else length for length in given.shape[1:]))
    if given.dtype == "string":
        raise ValueError(f"expected strings for {given.name}. Give some with --data.")
    if "int" in given.dtype:
        tables = (a for a in all_layers(model) if isinstance(a, keras.layers.Embedding))
        most = min((table.input_dim for table in tables), default=2)
        return rng.integers(0, most, shape).astype(given.dtype)
    return rng.standard_normal(shape).astype(given.dtype)


def _chosen(path, names):
    """The arrays in a file that are for the inputs of these names, in their order."""
    loaded = _loaded(path)
    if set(names) <= set(loaded):
        return [loaded[name] for name in names]
    # Names such as arr_0 and arr_1: in order.
    if len(loaded) == len(names) and not set(names) & set(loaded):
        return [*loaded.values()]
    named = ", ".join(f"{name!r}: ..." for name in names)
    received = f" ({', '.join(loaded)})" if any(loaded) else ""
    raise ValueError(
        f"{path}: expected {len(names)} array{'s' * (len(names) > 1)}, for "
        f"{', '.join(names)}. Received: {len(loaded)}{received}. Save what the model takes "
        f"with `np.savez('batch.npz', **{{{named}}})`."
    )


def _loaded(path):
    """The arrays in a file by name; one without a name, if there is only one."""
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
                'when they are read. Save `x.astype("float32")`.'
            ) from error
        raise ValueError(
            f"{path}: it is damaged or cut ({first_line(error)}). Save it again."
        ) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(
                f"{path}: {_ARRAYS}. Received: an archive with other files in it, such as "
                f"{name}."
            )
    return arrays


def _checked(path, name, given, array):
    """The array for one input, if it has samples of the input's kind."""
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(
            f"{path}: expected an array of shape (samples, ...) for {name}. Received: "
            f"shape {array.shape}, which has no sample."
        )
    strings, complex_ = given.dtype == "string", given.dtype.startswith("complex")
    wanted = "strings" if strings else "numbers"
    right = array.dtype.kind in ("SU" if strings else "biufc" if complex_ else "biuf")
    if right and array.dtype.kind == "f" and "int" in given.dtype:
        wanted, right = "whole numbers", not np.any(array % 1)
    if not right:
        raise ValueError(
            f"{path}: expected {wanted} for {name}, of dtype {given.dtype}. Received: "
            f"dtype {array.dtype}."
        )
    return array


def _begins(file, signature):
    with file.open("rb") as opened:
        return opened.read(len(signature)) == signature

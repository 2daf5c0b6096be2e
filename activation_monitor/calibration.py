"""The calibration: the matmul-chain study, and the same chain trained in Keras.

The laws of the chain are known exactly (see `analysis.chain`). The calibration compares
them with the measurements and so verifies the monitor on the user's machine.
"""

import warnings
from typing import Any, cast

import keras
import numpy as np

from activation_monitor.analysis import chain, records
from activation_monitor.monitor import ActivationMonitor
from activation_monitor.recording.backends import backend


def studies(seed: int = 0) -> list[chain.Study]:
    """Run the experiments of the study, measured as in a training step.

    Args:
        seed: Seed of the random weights. Defaults to `0`.

    Returns:
        Two chains, with weights of std 1 and 0.01, and two single products, with weights
        of std 1 and 1/25.
    """

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
    **compile_options: Any,
) -> chain.Calibration:
    """Train a chain of linear Keras layers for one step and check the measured growth.

    Args:
        weight_std: Standard deviation of the weights.
        width: Number of units of every layer. Defaults to `512`.
        layers: Number of layers. Defaults to `20`.
        dtype: Keras dtype policy of the layers. Defaults to `"float32"`.
        jit_compile: As in `model.compile`. Defaults to `"auto"`.
        seed: Seed of the weights and the input. Defaults to `0`.
        **compile_options: Further arguments of `model.compile`, for example
            `run_eagerly`.

    Returns:
        The measured growth, the exact law, and whether they agree.

    Raises:
        RuntimeError: If nothing was measured. The message contains the first warning of
            the monitor.
    """
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
    # The loss has finite gradients for outputs of any size. The weights do not change.
    # Type checkers infer `str` from Keras' defaults of `jit_compile` and `verbose`.
    model.compile(
        keras.optimizers.SGD(0.0),
        lambda y, outputs: keras.ops.mean(keras.ops.tanh(outputs)),
        jit_compile=jit_compile,  # pyright: ignore[reportArgumentType]
        **compile_options,
    )
    # The monitor would warn about two of the three chains, correctly.
    monitor = ActivationMonitor(histograms=False, on_finding=lambda finding: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(
            *(x, np.zeros((1, 1), np.float32)),
            verbose=0,  # pyright: ignore[reportArgumentType]
            callbacks=[monitor],
        )
    if not len(monitor.recording):
        texts = [str(warning.message) for warning in caught]
        ours = [text for text in texts if text.startswith("ActivationMonitor")]
        said = ours or texts or ["no warning"]
        more = f" And {len(said) - 1} more warnings." if len(said) > 1 else ""
        raise RuntimeError(
            "calibrate: nothing was measured, so the law cannot be checked. Expected: a "
            f"measured step of `fit`. Received: {said[0].rstrip('.')}.{more}"
        )
    for warning in caught:
        warnings.warn_explicit(
            cast(Warning, warning.message),
            *(warning.category, warning.filename, warning.lineno),
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

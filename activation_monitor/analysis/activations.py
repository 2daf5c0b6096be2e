"""The known activation functions: their slopes, and how to draw weights for them."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special


def _density(z: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def _inside(h: np.ndarray, low: float, high: float = np.inf) -> np.ndarray:
    return np.where((h > low) & (h < high), 1.0, 0.0)


def _elu(h: np.ndarray, scale: float = 1.0, alpha: float = 1.0) -> np.ndarray:
    return scale * np.where(h > 0, h, alpha * np.expm1(np.minimum(h, 0.0)))


def _elu_slope(h: np.ndarray, scale: float = 1.0, alpha: float = 1.0) -> np.ndarray:
    return scale * np.where(h > 0, 1.0, alpha * np.exp(np.minimum(h, 0.0)))


def _mish_slope(h: np.ndarray) -> np.ndarray:
    t = np.tanh(np.logaddexp(0.0, h))
    return t + h * (1.0 - t * t) * special.expit(h)


def _silu_slope(h: np.ndarray) -> np.ndarray:
    return special.expit(h) * (1.0 + h * special.expit(-h))


_SELU = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017
NEGATIVE_SLOPE = {"linear": 1.0, "relu": 0.0, "leaky_relu": 0.2}
"""The homogeneous activation functions, and their slopes below zero."""

Function = Callable[[np.ndarray], np.ndarray]
"""A function of arrays, element by element."""

ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "elu": (_elu, _elu_slope),
    "erf": (special.erf, lambda h: 2.0 / math.sqrt(math.pi) * np.exp(-h * h)),
    "exponential": (np.exp, np.exp),
    "gelu": (lambda h: h * special.ndtr(h), lambda h: special.ndtr(h) + h * _density(h)),
    "hard_sigmoid": (
        lambda h: np.clip(h / 6.0 + 0.5, 0.0, 1.0),
        lambda h: _inside(h, -3.0, 3.0) / 6.0,
    ),
    "hard_silu": (
        lambda h: h * np.clip(h / 6.0 + 0.5, 0.0, 1.0),
        lambda h: _inside(h, -3.0, 3.0) * (h / 3.0 + 0.5) + _inside(h, 3.0),
    ),
    "hard_tanh": (lambda h: np.clip(h, -1.0, 1.0), lambda h: _inside(h, -1.0, 1.0)),
    "leaky_relu": (lambda h: np.maximum(h, 0.2 * h), lambda h: 0.2 + 0.8 * _inside(h, 0.0)),
    "linear": (lambda h: h, np.ones_like),
    "mish": (lambda h: h * np.tanh(np.logaddexp(0.0, h)), _mish_slope),
    "relu": (lambda h: np.maximum(h, 0.0), lambda h: _inside(h, 0.0)),
    "relu6": (lambda h: np.clip(h, 0.0, 6.0), lambda h: _inside(h, 0.0, 6.0)),
    "selu": (lambda h: _elu(h, *_SELU), lambda h: _elu_slope(h, *_SELU)),
    "sigmoid": (special.expit, lambda h: special.expit(h) * special.expit(-h)),
    "silu": (lambda h: h * special.expit(h), _silu_slope),
    "softplus": (lambda h: np.logaddexp(0.0, h), special.expit),
    "softsign": (lambda h: h / (1.0 + np.abs(h)), lambda h: (1.0 + np.abs(h)) ** -2.0),
    "tanh": (np.tanh, lambda h: 1.0 - np.tanh(h) ** 2),
}
"""Name in `keras.activations` -> (phi, its derivative). `leaky_relu` has the slope of
Keras' function, 0.2 (its layer has 0.3); `gelu` is exact; `erf` is not in Keras."""
ACTIVATIONS["swish"] = ACTIVATIONS["silu"]
ACTIVATIONS["hard_swish"] = ACTIVATIONS["hard_silu"]


def known(activation: str) -> bool:
    """Whether the activation function is one of `ACTIVATIONS`."""
    return activation in ACTIVATIONS


class Initializer(NamedTuple):
    """How to draw the weights before an activation function.

    Attributes:
        weight_variance: `fan_in Var(w)`.
        name: The nearest initializer of Keras. (`glorot_uniform` has weight variance 1 if
            fan_in = fan_out.)
        reference: The publication.
    """

    weight_variance: float
    name: str
    reference: str


_HE = "He et al. 2015, arXiv:1502.01852"
_RELU = Initializer(2.0, "he_normal", _HE)
_LIKE_RELU = Initializer(2.0, "he_normal", f"by analogy with ReLU, {_HE}")
_GLOROT = Initializer(1.0, "glorot_uniform", "Glorot & Bengio 2010, AISTATS")

INITIALIZERS = {
    "elu": Initializer(1.55, "he_normal", f"1 / E phi(z)^2, by analogy with ReLU, {_HE}"),
    "leaky_relu": Initializer(2.0 / (1.0 + 0.2**2), "he_normal", _HE),
    "linear": Initializer(1.0, "lecun_normal", "LeCun et al. 1998, Efficient BackProp"),
    "selu": Initializer(1.0, "lecun_normal", "Klambauer et al. 2017, arXiv:1706.02515"),
    **dict.fromkeys(("relu", "relu6"), _RELU),
    **dict.fromkeys(("softsign", "tanh"), _GLOROT),
    **dict.fromkeys(("gelu", "silu", "swish", "mish"), _LIKE_RELU),
    **dict.fromkeys(("hard_silu", "hard_swish"), _LIKE_RELU),
}
"""Activation function -> `Initializer`. No usual initializer suits sigmoid, hard_sigmoid,
softplus and exponential (the critical weight variance of sigmoid is 103)."""


def initializer(activation: str) -> Initializer | None:
    """The initializer that suits an activation function; None if no usual one does."""
    return INITIALIZERS.get(activation)

"""The matmul-chain study, and the calibration that follows from it.

A Gaussian vector is multiplied by random Gaussian matrices repeatedly. Its size after each
product is known exactly (`chance`), so what a monitor measures on such a chain can be
compared with the law. The plain float32 standard deviation fails long before the values do;
the study shows where.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from activation_monitor.analysis import chance, records
from activation_monitor.analysis.shown import count, one_line

CONFIDENCE = 0.999
"""Probability of the intervals of the study."""

FALSE_ALARMS = 1e-3
"""How often a correct monitor fails its calibration by chance, at most."""

NARROWEST = 64
"""Number of units from which this rate holds, also for a single layer."""

TOLERANCE = 0.02
"""Relative difference from float64 up to which a measurement is correct: enough for the
rounding of half precision and of TF32, too little for a wrong statistic."""

_ENOUGH = 100  # products; the values end at 67 with weights of std 0.01


class Product(NamedTuple):
    """One row of the study.

    Attributes:
        product: Number of the product, from 1.
        mean, std: As measured.
        expected, low, high: Median of the law for the std, and its interval.
        naive_std: `numpy.std` in float32.
    """

    product: int
    mean: float
    std: float
    expected: float
    low: float
    high: float
    naive_std: float

    @one_line
    def __repr__(self) -> str:
        law = f"law: {self.low:.3g} to {self.high:.3g}"
        return f"{self.product}: std {self.std:.3g} ({law}), naive std {self.naive_std:.3g}"


@dataclass(frozen=True)
class Study:
    """One experiment: its rows, and what they show in words.

    Attributes:
        title: What was multiplied.
        rows: One for each product.
        notes: What the rows show, as sentences.
        naive_ends, values_end: The first product after which the naive std, or the values
            themselves, are infinite or zero; None if they never are.
    """

    title: str
    rows: tuple[Product, ...]
    notes: tuple[str, ...]
    naive_ends: int | None
    values_end: int | None

    @one_line
    def __repr__(self) -> str:
        return f"of {count(len(self.rows), 'product')}: {self.title}"


def _std_step(width: int) -> tuple[float, float]:
    """Mean and variance of the log of the std (mean removed) after one product."""
    mean = 0.5 * (special.digamma((width - 1) / 2) + math.log(2 / width))
    return mean, 0.25 * special.polygamma(1, (width - 1) / 2)


def _interval(log_mean: float, log_variance: float) -> tuple[float, ...]:
    reach = stats.norm.ppf(0.5 + CONFIDENCE / 2) * math.sqrt(log_variance)
    # The range of float64's exponential is enough for all sensible arguments.
    return tuple(math.exp(log_mean + d) for d in (0.0, -reach, reach))


def chain_study(
    weight_std: float,
    input_std: float = 1.0,
    width: int = 512,
    seed: int = 0,
    measure: Callable[[np.ndarray], np.ndarray] = records.measure,
) -> Study:
    """Multiply a Gaussian vector by random square matrices until nothing is left.

    Args:
        weight_std: Standard deviation of the entries of the matrices.
        input_std: Standard deviation of the entries of the vector. Defaults to `1.0`.
        width: Rows and columns of the matrices. Defaults to `512`.
        seed: Seed of the random numbers. Defaults to `0`.
        measure: The function under test, from a float32 array to a record. Defaults to
            `records.measure`.

    Returns:
        One row for each product, in float32, until the values are no longer finite or all
        zero, or until there are 100 products.
    """
    rng = np.random.default_rng(seed)
    x = np.float32(input_std) * rng.standard_normal(width).astype(np.float32)
    log_start = math.log(float(records.STATISTICS["rms"](records.measure(x))))
    gain = math.log(weight_std * math.sqrt(width))
    rms_step = chance.linear_step(width)
    std_mean, std_variance = _std_step(width)

    rows: list[Product] = []
    naive_ends = values_end = None
    while values_end is None and len(rows) < _ENOUGH:
        k = len(rows) + 1
        weights = rng.standard_normal((width, width)).astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            x = x @ (weights * np.float32(weight_std))
            naive = float(np.std(x))
        record = measure(x[None])
        expected, low, high = _interval(
            log_start + k * gain + (k - 1) * rms_step.mean + std_mean,
            (k - 1) * rms_step.variance + std_variance,
        )
        mean, std = (float(records.STATISTICS[s](record)) for s in ("mean", "std"))
        rows.append(Product(k, mean, std, expected, low, high, naive))
        if naive_ends is None and not (math.isfinite(naive) and naive > 0):
            naive_ends = k
        if records.field(record, "nonfinite") > 0 or std == 0:
            values_end = k
    return Study(
        title=f"A vector of std {input_std:g} times {width} x {width} matrices of std "
        f"{weight_std:g}",
        rows=tuple(rows),
        notes=tuple(_endings(rows, naive_ends, values_end)),
        naive_ends=naive_ends,
        values_end=values_end,
    )


def _endings(
    rows: list[Product], naive_ends: int | None, values_end: int | None
) -> Iterator[str]:
    if naive_ends is not None:
        naive = rows[naive_ends - 1].naive_std
        what = "0" if naive == 0 else "inf" if math.isinf(naive) else "nan"
        yield f"The naive float32 std is {what} after product {naive_ends}."
    if values_end is not None:
        what = "all zero" if rows[-1].std == 0 else "no longer finite"
        yield f"The values themselves are {what} after product {values_end}."


def single_product_study(
    weight_std: float,
    fan_in: int = 625,
    fan_out: int = 10_000,
    seed: int = 0,
    measure: Callable[[np.ndarray], np.ndarray] = records.measure,
) -> Study:
    """Multiply one unit Gaussian vector by one rectangular matrix.

    The expected std is `weight_std * sqrt(fan_in)`; its interval covers the draw of the
    vector as well.

    Args:
        weight_std: Standard deviation of the entries of the matrix.
        fan_in: Its rows. Defaults to `625`.
        fan_out: Its columns. Defaults to `10_000`.
        seed: Seed of the random numbers. Defaults to `0`.
        measure: The function under test, from a float32 array to a record. Defaults to
            `records.measure`.
    """
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, fan_in)).astype(np.float32)
    weights = rng.standard_normal((fan_in, fan_out)).astype(np.float32)
    y = x @ (weights * np.float32(weight_std))
    record = measure(y)
    of_x, (std_mean, std_variance) = chance.linear_step(fan_in), _std_step(fan_out)
    expected, low, high = _interval(
        math.log(weight_std * math.sqrt(fan_in)) + of_x.mean + std_mean,
        of_x.variance + std_variance,
    )
    mean, std = (float(records.STATISTICS[s](record)) for s in ("mean", "std"))
    row = Product(1, mean, std, expected, low, high, float(np.std(y)))
    title = f"{fan_in} -> {fan_out} weights of std {weight_std:g}"
    return Study(title, (row,), (), None, None)


class CalibrationRow(NamedTuple):
    """One layer of the calibration: measured gain, its law, and an independent check.

    Attributes:
        name: The layer's name.
        rms: The measured rms.
        gain: The measured signal gain.
        expected, low, high: Median of the law for the gain, and its interval.
        error: Relative difference of the measured rms from one computed in float64 with
            the same weights. It includes the rounding of the layer's dtype.
    """

    name: str
    rms: float
    gain: float
    expected: float
    low: float
    high: float
    error: float

    @property
    def passed(self) -> bool:
        """Whether the gain follows the law and the rms is that of these weights."""
        return self.low <= self.gain <= self.high and self.error <= TOLERANCE

    @one_line
    def __repr__(self) -> str:
        law = f"law: {self.low:.4g} to {self.high:.4g}"
        passed = "passed" if self.passed else "failed"
        return f"{self.name}: gain {self.gain:.4g} ({law}), {passed}"


@dataclass(frozen=True)
class Calibration:
    """Whether what was measured on a chain of linear layers follows the law.

    Attributes:
        title: What was calibrated.
        rows: One for each layer.
        growth: Geometric mean of the measured gains.
        law: The law of `growth`.
    """

    title: str
    rows: tuple[CalibrationRow, ...]
    growth: float
    law: chance.ChainLaw

    @property
    def passed(self) -> bool:
        """Whether the growth and every single gain lie in their intervals."""
        inside = self.law.low <= self.growth <= self.law.high
        return inside and all(row.passed for row in self.rows)

    @property
    def verdict(self) -> str:
        """PASS or FAIL with the numbers."""
        worst = np.max([row.error for row in self.rows])  # NaN if one is
        return (
            f"{'PASS' if self.passed else 'FAIL'}: growth {self.growth:.5g} per layer, "
            f"expected {self.law.low:.5g} to {self.law.high:.5g}; "
            f"{sum(row.passed for row in self.rows)} of {len(self.rows)} layers correct; "
            f"largest difference from float64 {worst:.1e}."
        )

    @one_line
    def __repr__(self) -> str:
        return self.verdict


def calibrate(
    title: str,
    names: tuple[str, ...],
    rms: np.ndarray,
    reference_rms: np.ndarray,
    weight_std: float,
    width: int,
) -> Calibration:
    """Compare the sizes measured along a chain of linear layers with the exact law.

    For one input row, each gain squared is independently `weight_std^2` times chi-square
    with `width` degrees of freedom. Half of `FALSE_ALARMS` is used for all single gains,
    half for their geometric mean.

    Args:
        title: What was calibrated.
        names: Names of the `L` layers.
        rms: Measured rms of the input and of each output, `(L + 1,)`.
        reference_rms: The same, computed in float64 from the weights.
        weight_std: Standard deviation of the weights.
        width: Units of every layer, at least `NARROWEST`.

    Raises:
        ValueError: If the layers are narrower.
    """
    if width < NARROWEST:
        raise ValueError(
            f"calibrate: `width` must be at least {NARROWEST}: below, the law of the "
            "growth is not Gaussian enough for the stated rate of false alarms. "
            f"Received: width={width}."
        )
    layers = len(names)
    each = 1.0 - (1.0 - FALSE_ALARMS / 2) ** (1.0 / layers)
    low, expected, high = (
        weight_std * math.sqrt(stats.chi2.ppf(p, width))
        for p in (each / 2, 0.5, 1 - each / 2)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        gains = rms[1:] / rms[:-1]
        errors = np.abs(rms[1:] / reference_rms[1:] - 1.0)
        growth = float(np.exp(np.mean(np.log(gains))))
    return Calibration(
        title=title,
        rows=tuple(
            CalibrationRow(name, float(r), float(gain), expected, low, high, float(e))
            for name, r, gain, e in zip(names, rms[1:], gains, errors, strict=True)
        ),
        growth=growth,
        law=chance.chain_law(width, weight_std, layers, 1.0 - FALSE_ALARMS / 2),
    )

"""The evidence of a finding in words, with units."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from activation_monitor.analysis.findings import Finding
from activation_monitor.analysis.growth import DTYPE_LIMITS


class _Words(NamedTuple):
    """What is said of some numbers of the evidence.

    Attributes:
        label: What they are.
        text: The numbers with their units, as `{name:form}`, with a key of `_FORMS`. If
            empty, nothing is said.
        codes: The codes for which it is said. `()` stands for all codes.
        of: The names, if `text` does not have them all. Defaults to `()`.
    """

    label: str
    text: str
    codes: tuple[str, ...] = ()
    of: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the numbers. It is said if the evidence has all of them."""
        return self.of or tuple(name for name, _ in _PLACES.findall(self.text))


_PLACES = re.compile(r"{(\w+):(\w+)}")

_GROWING = (
    *("exploding-activations", "vanishing-activations"),
    *("exploding-gradients", "vanishing-gradients"),
)


def _depth(dtype, end):
    return f"{dtype} at depth {{{end}_{dtype}:depth}}"


_WORDS = (
    # Of the whole network, or the loss.
    _Words("loss", "not finite at {step:step}", ("nonfinite-loss",)),
    _Words("last finite loss", "{last_loss:number} at {last_step:step}"),
    _Words("loss", "from {before:number} to {after:number}"),
    _Words("loss at first", "{first:number}", ("loss-jump",)),
    _Words("rms of the output", "{output:number}"),
    _Words("largest element of a gradient", "{largest_gradient:number}"),
    _Words("kernels with NaN or infinity", "{broken_kernels:count}"),
    _Words("inputs that do not vary", "{inputs:count}"),
    # Growth.
    _Words("growth per layer", "{growth:number} times"),
    _Words(
        "growth per layer by chance",
        "between {expected_low:number} and {expected_high:number} times",
    ),
    _Words(
        "growth per layer in all draws",
        "between {growth_low:number} and {growth_high:number} times",
    ),
    _Words("growth per time step", "{rate:number} times"),
    _Words("operations that change the signal", "{operations:count}"),
    _Words("change in these operations", "{operation_decades:decades}"),
    _Words("change of the differences", "{decades:decades}", ("collapsed-activations",)),
    _Words("distance from its peers", "{decades:decades}", ("outlier-gain",)),
    _Words("change in all", "{decades:decades}"),
    _Words(
        "norm of the gradient, at the output and at the input",
        "{last_norm:number} and {first_norm:number}",
    ),
    _Words("rms of the signal", "from {first_rms:number} to {last_rms:number}"),
    _Words("rms of the input", "{input_rms:number}"),
    _Words("rms at the last layer", "{last_rms:number}", ("unscaled-input",)),
    *(
        _Words(
            f"{end} at this rate", ", ".join(_depth(dtype, end) for dtype in DTYPE_LIMITS)
        )
        for end in ("overflow", "underflow")
    ),
    # Of one layer.
    _Words("gain of the layer", "{gain:number} times", ("outlier-gain",)),
    _Words("gain of its peers", "{peers:number} times"),
    _Words("gain of what the inputs have in common", "{common_gain:number} times"),
    _Words("gain of what distinguishes them", "{own_gain:number} times"),
    _Words("mean of the weights", "{kernel_mean:number}"),
    _Words("mean", "{mean:number}"),
    _Words("rms", "{rms:number}"),
    _Words("mean over rms", "{shift:share}", ("mean-shift",)),
    _Words("value of all weights", "{weight:number}"),
    _Words("NaN or infinite elements", "{nonfinite:count} of {count:count}"),
    _Words("largest finite element", "{largest:number}"),
    _Words("rms in evaluation over rms in training", "{ratio:number} times"),
    _Words("distance from the targets", "{distance:number}"),
    _Words("rms of the output", "{output_rms:number}"),
    _Words("distance over size of the output", "{times:number} times", ("target-scale",)),
    _Words("std that evaluation has", "{scale:number} times", ("moving-statistics",)),
    _Words("mean that evaluation has", "off by {shift:number} standard deviations"),
    _Words("momentum", "{momentum:number}"),
    _Words("rms over what the statistics imply", "{misfit:number} times"),
    # Of units.
    _Words("dead units", "{dead_fraction:share} of the units of a layer"),
    _Words(
        "layers with mostly dead units",
        "{layers:count} of {relu_layers:count} layers with ReLU",
    ),
    _Words("saturated elements", "{saturated_fraction:share}"),
    _Words("saturated elements at first", "{at_first:share}", ("saturated-activations",)),
    _Words("std that the input adds", "{by_input:number}"),
    _Words("std that the recurrent kernel adds", "{by_state:number}"),
    _Words(
        "share of the rms that differs between samples",
        "from {share_first:share} to {share_last:share}",
    ),
    _Words("share of the largest element", "{share:share}", ("heavy-tail",)),
    _Words("its share at first", "{at_first:share}", ("heavy-tail",)),
    _Words("elements", "{elements:count}"),
    # Of weights and updates.
    _Words("size of an update over that of the weights", "{update_ratio:number}"),
    _Words("rms of the weights", "from {weight_before:number} to {weight_after:number}"),
    _Words("rms of the output", "from {output_before:number} to {output_after:number}"),
    _Words("growth of the weights", "{factor:number} times", ("growing-weights",)),
    _Words("jump", "{factor:number} times", ("scale-jump",)),
    _Words("gain of the weights", "{gain:number} times", ("growing-weights",)),
    _Words("largest gradient", "{gradient:number}"),
    _Words("largest update", "{update:number}"),
    _Words("weights lost at each step", "{share:share}", ("weight-decay",)),
    _Words("largest difference", "{difference:number}"),
    _Words("loss scale", "{scale:number}", ("stuck-loss-scale",)),
    # It counts repetitions, or is a factor, or a number of a row: the message says which.
    _Words("", "", ("wrong-update",), ("times",)),
    # How much was measured.
    _Words("weight layers on the way", "{layers:count}", _GROWING),
    _Words("weight layers without gradient", "{layers:count}", ("no-gradient",)),
    _Words("layers with NaN gradients", "{layers:count}", ("stuck-loss-scale",)),
    _Words("layers", "{layers:count}"),
    _Words("samples", "{samples:count}"),
    _Words("sampled steps in a row", "{sampled_steps:count}"),
    _Words("sampled steps in a row", "{snapshots:count}"),
    _Words("initializations that show it", "{in:count} of {draws:count}"),
)
"""In the order in which they are shown. A name is said once: the first that applies."""


def evidence(finding: Finding) -> list[tuple[str, str]]:
    """The evidence of a finding in words.

    Args:
        finding: The finding.

    Returns:
        Pairs of what a number is, such as "growth per layer", and the number with its unit,
        such as "22.6 times". Numbers have at most 4 digits, shares are in percent, counts
        have separators of thousands, and a step is "step 20".
    """
    left, said = dict(finding.evidence), list[tuple[str, str]]()
    for words in _of(finding.code):
        if left.keys() >= {*words.names}:
            numbers = {name: left.pop(name) for name in words.names}
            if words.text:
                said.append((words.label, _filled(words.text, numbers)))
    # The table has words for all that the rules report.
    unknown = ((name.replace("_", " "), number(value)) for name, value in left.items())
    return [*said, *unknown]


def has_words(code: str, names: Mapping[str, float]) -> bool:
    """Whether the table has words for all numbers of the evidence of a finding."""
    said = {name for words in _of(code) for name in words.names}
    return said >= names.keys()


def _of(code):
    """The words for a code. A name with words for the code itself has no others."""
    own = {name for words in _WORDS if code in words.codes for name in words.names}
    return [
        words
        for words in _WORDS
        if code in words.codes or (not words.codes and own.isdisjoint(words.names))
    ]


def _filled(text, numbers):
    return _PLACES.sub(lambda place: _FORMS[place[2]](numbers[place[1]]), text)


def number(value: float) -> str:
    """A number with at most 4 significant digits."""
    if math.isnan(value):
        return "not known"
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    rounded = float(f"{value:.4g}")
    if 1e4 <= abs(rounded) < 1e7:
        return f"{rounded:,.0f}"
    return f"{rounded:.4g}"


def _count(value):
    return f"{value:,.0f}" if math.isfinite(value) else number(value)


def _share(value):
    return f"{number(100 * value)} %" if math.isfinite(value) else number(value)


def _step(value):
    return f"step {_count(value)}"


def _decades(value):
    if not math.isfinite(value):
        return number(value)
    times = number(10**value) if abs(value) < 300 else f"10^{value:.0f}"
    return f"{number(value)} decades ({times} times)"


_FORMS = {
    "number": number,
    "count": _count,
    "depth": _count,
    "share": _share,
    "step": _step,
    "decades": _decades,
}

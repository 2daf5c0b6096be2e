"""Weight layers, and what they should do to the size of their input."""

import math
from dataclasses import dataclass

import numpy as np

from activation_monitor.analysis import activations, records, theory
from activation_monitor.analysis.layer_graph import LayerGraph, normalizes
from activation_monitor.analysis.shown import one_line
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.analysis.thresholds import limit


@dataclass(frozen=True)
class Link:
    """One weight layer, and what it should do to the size of its input.

    Attributes:
        row: Index of its output in the snapshot.
        name: The layer's name.
        activation: The activation function of the layer, or of the activation layer after
            it.
        rms_in: Rms of its input; NaN if that is not one measured, finite tensor.
        rms_out: Rms after the activation function.
        fan_in: Products that add up in one output; 0 if not known.
        kernel_mean, kernel_std: Mean and standard deviation of its weights; NaN if they
            were not measured.
        depthwise: Whether each unit has an input of its own.
        normalized: Whether there is a normalization before the activation function. Then
            the weights do not determine the gain.
    """

    row: int
    name: str
    activation: str
    rms_in: float
    rms_out: float
    fan_in: float
    kernel_mean: float
    kernel_std: float
    depthwise: bool = False
    normalized: bool = False

    @property
    def gain(self) -> float:
        """The measured signal gain, `rms_out / rms_in`."""
        return self.rms_out / self.rms_in if self.rms_in > 0 else math.nan

    @property
    def weight_variance(self) -> float:
        """`fan_in E w^2`: the factor by which the layer multiplies the second moment."""
        second_moment = self.kernel_std**2 + self.kernel_mean**2
        return self.fan_in * second_moment if self.fan_in > 0 else math.nan

    @property
    def pre_activation(self) -> float:
        """Second moment of the pre-activations that follows from weights and input."""
        return self.weight_variance * self.rms_in**2

    @property
    def predicted_gain(self) -> float:
        """The signal gain that follows from weights, input and activation function.

        For weights of mean 0 without bias. Measured gains of random layers are within 8 %
        of it. NaN if something is not known.
        """
        q = self.pre_activation
        known = activations.known(self.activation) and not self.normalized
        if not (math.isfinite(q) and q > 0 and known):
            return math.nan
        return math.sqrt(theory.second_moment(self.activation, q)) / self.rms_in

    @property
    def contradicted(self) -> bool:
        """Whether the measured gain is far from the predicted one.

        Then the layer is of an unknown kind, and nothing can be predicted from its weights.
        """
        predicted = self.predicted_gain
        if not (predicted > 0 and 0 <= self.gain < math.inf):
            return False
        if self.gain == 0:
            return True
        off = math.log10(self.gain) - math.log10(predicted)
        return abs(off) > limit("contradicted")

    @property
    def backward(self) -> float:
        """Decades by which a gradient grows from the output of the layer to its input.

        `log10 sqrt(fan_in E w^2 E phi'^2)`, the logarithm of the root of chi_1 (Poole et
        al. 2016). NaN if something is not known.
        """
        q = self.pre_activation
        if not (math.isfinite(q) and q > 0 and activations.known(self.activation)):
            return math.nan
        chi = self.weight_variance * theory.slope_second_moment(self.activation, q)
        return 0.5 * math.log10(chi) if chi > 0 else -math.inf

    @property
    def excess(self) -> float:
        """Decades by which the weights are larger than a suitable initializer draws them.

        Negative for smaller ones. NaN if no initializer suits the activation function, or
        the weights are not known.
        """
        suits = activations.initializer(self.activation)
        if suits is None or not self.weight_variance > 0:
            return math.nan
        return 0.5 * math.log10(self.weight_variance / suits.weight_variance)

    @one_line
    def __repr__(self) -> str:
        return (
            f"{self.name}, {self.activation}: rms {self.rms_in:.3g} to {self.rms_out:.3g}, "
            f"kernel std {self.kernel_std:.3g}, fan-in {self.fan_in:.4g}"
        )


def links_of(snapshot: Snapshot, graph: LayerGraph, rms: np.ndarray) -> dict[int, Link]:
    """All weight layers of a snapshot, by row.

    Args:
        snapshot: The snapshot.
        graph: Its layer graph.
        rms: Rms of each output, `(layers,)`; NaN if not all of it is finite.
    """
    links: dict[int, Link] = {}
    kernel_mean, kernel_std = (
        snapshot.statistic(name, of=records.WEIGHT) for name in ("mean", "std")
    )
    for row in graph.order:
        layer = graph.layers[row]
        if layer.kind != "weight":
            continue
        parents, out, normalized = graph.parents[row], row, False
        activation = layer.activation
        while activation == "linear" and len(graph.children[out]) == 1:
            (child,) = graph.children[out]
            if graph.layers[child].kind not in ("activation", "normalization"):
                break
            out, activation = child, graph.layers[child].activation
            normalized = normalized or normalizes(graph.layers[child])
        known = len(parents) == 1 and not layer.normalized
        links[row] = Link(
            row=row,
            name=layer.name,
            activation=activation,
            rms_in=float(rms[parents[0]]) if known else math.nan,
            rms_out=float(rms[out]),
            fan_in=layer.fan_in,
            kernel_mean=float(kernel_mean[row]),
            kernel_std=float(kernel_std[row]),
            depthwise="depthwise" in layer.class_name.lower(),
            normalized=normalized,
        )
    return links

"""`Monitored`: a layer that records its own outputs, for single layers and custom loops."""

from typing import Any

import keras

from activation_monitor.recording import shared
from activation_monitor.recording.backends import backend
from activation_monitor.recording.keras_private import is_symbolic_call, is_training_call
from activation_monitor.recording.layer_record import LayerRecord
from activation_monitor.recording.transparent import Transparent


@keras.saving.register_keras_serializable(package="activation_monitor")
class Monitored(Transparent):
    """A layer that behaves as the layer it wraps and records its outputs.

    Every forward pass is measured inside the graph, without a callback: in `fit`,
    `evaluate` and `predict`, in a `tf.function` or a custom loop, with or without XLA. (On
    JAX, in a compiled step only if an `ActivationMonitor` samples it; with a warning.) If
    the model is also trained with an `ActivationMonitor`, the snapshots contain the layer
    under its usual name, and its output is measured once for both.

    The record is not a weight. `save`, `save_weights` and checkpoints do not store it, and
    a loaded model starts with an empty record. Import this class before loading a model,
    so that Keras can find it. Weights are compatible with those of the unwrapped model, in
    both directions: `get_weights`, `set_weights` and the files of `save_weights`. The
    exception is a wrapped layer that is a wrapper itself (`TimeDistributed`,
    `SpectralNormalization`): Keras refuses its `save_weights` files with an error.

    All other attributes are those of the layer (`hidden.kernel`, `hidden.enable_lora(4)`).
    Set them on `.layer`. The class of the object is a subclass that is created for the
    layer and has the name of the layer's class, because Keras names weights after it. Use
    `isinstance(layer, Monitored)` to detect it.

    A forward pass that is computed twice is measured twice. This happens inside a model or
    block that is rematerialized, and in `RNN`, which calls its cell once more than there
    are time steps. `model.export` exports the measurement as well. To avoid this, clone
    the model without the wrapper before the export.

    Args:
        layer: The layer to wrap.
        name: Name of the wrapper in the model. Defaults to `None`: the name of the layer.

    Attributes:
        layer: The wrapped layer.

    Raises:
        TypeError: If `layer` is not a Keras layer.
        ValueError: If `layer` is a `Monitored` layer already.

    Example:

    ```python
    hidden = Monitored(keras.layers.Dense(512, activation="relu"))
    ...
    model.fit(x, y)
    hidden.statistics(training=True)["zero_fraction"]
    ```

    To measure a tensor inside a subclassed model, pass it through an `Identity` layer:

    ```python
    class Block(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = keras.layers.Dense(64, activation="relu")
            self.second = keras.layers.Dense(64)
            self.stream = Monitored(keras.layers.Identity(name="stream"))

        def call(self, x):
            return self.stream(x + self.second(self.first(x)))

    block.stream.statistics()["rms"]
    ```
    """

    keeps_own_record = True  # taps measure the wrapped layer instead of this one

    def __new__(cls, layer, *args, **kwargs):
        """Check the layer before Keras uses it."""
        backend.check()
        if not isinstance(layer, keras.Layer):
            raise TypeError(
                "Monitored: `layer` must be a Keras layer. Received: "
                f"layer={layer!r} (a {type(layer).__name__}). To measure a tensor, pass it "
                "through `Monitored(keras.layers.Identity())`."
            )
        if isinstance(layer, Monitored):
            raise ValueError(
                "Monitored: `layer` must be a layer that is not monitored yet. Received: "
                f"layer={layer!r}. Use this layer without a second wrapper."
            )
        return super().__new__(cls, layer, *args, **kwargs)

    def __init__(self, layer: keras.Layer, *, name: str | None = None):
        super().__init__(layer, name=name)
        self._record = LayerRecord(layer)

    def call_layer(self, *args: Any, **kwargs: Any) -> Any:
        """Call the layer and measure its outputs."""
        if is_symbolic_call():  # Keras only infers shapes
            return self.layer(*args, **kwargs)
        training = is_training_call()
        with shared.wanted(self.layer) as measured:
            outputs = self.layer(*args, **kwargs)
        self._record.put(outputs, training, measured)
        return outputs

    def statistics(self, training: bool = False) -> Any:
        """The statistics of all passes since the record was last reset.

        The statistics cover the elements of all passes together, as if they were one
        tensor, with two exceptions. `within_std`, the spread across one batch, is averaged
        over the batches. `dead_units` is that of the batch with the fewest dead units.

        Args:
            training: Whether to take the training passes or the inference passes. Keras
                decides which a pass is: in `fit`, a subclassed model whose `call` has no
                `training` argument makes inference passes. Defaults to `False`.

        Returns:
            A dict of floats: `"count"`, the number of elements, and all statistics of
            `analysis.records.STATISTICS`. They are NaN if there was no pass of this kind.
            If the layer has several outputs, the structure of the outputs with such dicts,
            and None for an output that is not a dense floating-point tensor.

        Raises:
            RuntimeError: If the layer has not been called.
        """
        if not self._record.seen:
            raise RuntimeError(
                f"Monitored: {self.name!r} must be called before `statistics`. Received: "
                "no call so far. Run the model first."
            )
        return self._record.statistics(training)

    def reset_statistics(self) -> None:
        """Empty the record, both for training passes and for inference passes."""
        self._record.clear()

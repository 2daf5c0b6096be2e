"""`Monitored`: a layer that keeps its own record, for hand-picked places and own loops."""

import keras

from activation_monitor.recording import shared
from activation_monitor.recording.backends import backend
from activation_monitor.recording.keras_private import is_symbolic_call, is_training_call
from activation_monitor.recording.layer_record import LayerRecord
from activation_monitor.recording.transparent import Transparent


@keras.saving.register_keras_serializable(package="activation_monitor")
class Monitored(Transparent):
    """A layer that behaves as the one it wraps and keeps a record of what it puts out.

    Every forward pass is measured inside the graph: in `fit`, `evaluate` and `predict`,
    in a `tf.function` or a loop of your own, with or without XLA, with no callback. In a
    fit with an `ActivationMonitor` the layer is in the snapshots as it would be without
    the wrapper, and its output is measured once for both.

    The record is no weight and is in no file of `save`, `save_weights` or a checkpoint; a
    model loaded again starts with an empty one (import this class before, so that Keras
    knows it). Weights go from the wrapped model to the unwrapped one and back:
    `get_weights` and `set_weights`, and the files of `save_weights`; these last not where
    the layer is a wrapper itself (`TimeDistributed`, `SpectralNormalization`), which is
    refused with an error.

    Other attributes are the layer's (`hidden.kernel`, `hidden.enable_lora(4)`); set them
    on `.layer`. Its class is made for the layer and bears its name, since Keras files
    weights under that: ask `isinstance(layer, Monitored)`, not for its type.

    What is computed again is measured again: in a model or block around it that is
    rematerialized; and `RNN` calls its cell once more than there are time steps.
    `model.export` writes the program with its measuring: take the wrapper off before, by
    cloning the model.

    Args:
        layer: The layer to wrap.
        name: Its name in the model; by default that of the layer.

    Attributes:
        layer: The layer that is wrapped.

    Raises:
        TypeError: If `layer` is no layer.
        ValueError: If it is a `Monitored` one already.

    Example:

    ```python
    hidden = Monitored(keras.layers.Dense(512, activation="relu"))
    ...
    model.fit(x, y)
    hidden.statistics(training=True)["zero_fraction"]
    ```

    A tensor in the middle of a subclassed model is looked at by sending it through a
    layer that does nothing:

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

    keeps_own_record = True  # for the taps, which look through it at the layer

    def __new__(cls, layer, *args, **kwargs):
        """Check before Keras handles the layer."""
        backend.check()
        if not isinstance(layer, keras.Layer):
            raise TypeError(
                "Monitored: `layer` must be a Keras layer. Received: "
                f"layer={layer!r} (a {type(layer).__name__}). To look at a tensor, send it "
                "through `Monitored(keras.layers.Identity())`."
            )
        if isinstance(layer, Monitored):
            raise ValueError(
                "Monitored: `layer` must be a layer that is not monitored yet. Received: "
                f"layer={layer!r}. Use it as it is, or wrap its `.layer`."
            )
        return super().__new__(cls, layer, *args, **kwargs)

    def __init__(self, layer: keras.Layer, *, name: str | None = None):
        super().__init__(layer, name=name)
        self._record = LayerRecord(layer)

    def call_layer(self, *args, **kwargs):
        """Call the layer and measure what it puts out."""
        if is_symbolic_call():  # Keras asks for shapes only
            return self.layer(*args, **kwargs)
        training = is_training_call()
        with shared.wanted(self.layer) as measured:
            outputs = self.layer(*args, **kwargs)
        self._record.put(outputs, training, measured)
        return outputs

    def statistics(self, training: bool = False):
        """What was seen since the record was begun.

        All passes together, as if their outputs were one tensor; but `within_std`, which
        is the spread across one batch, is that of the batches, averaged over elements,
        and `dead_units` are those of the batch with the fewest.

        Args:
            training: Whether to take the training passes or those of inference. Which a
                pass is says Keras: in `fit`, a subclassed model whose `call` takes no
                `training` makes inference passes.

        Returns:
            A dict of floats: "count", the number of elements, and `STATISTICS` of
            `analysis.records`, NaN if there was no pass of this kind. If the layer has
            several outputs, their structure with such dicts in it, and None for what is
            no dense floating-point tensor.

        Raises:
            RuntimeError: If the layer has not been called.
        """
        if not self._record.seen:
            raise RuntimeError(
                f"Monitored: {self.name!r} was expected to have been called. It has not "
                "been, and there is nothing to tell. Run the model first."
            )
        return self._record.statistics(training)

    def reset_statistics(self) -> None:
        """Begin the record anew, that of training passes and that of inference."""
        self._record.clear()

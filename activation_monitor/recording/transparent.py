"""A wrapper that Keras cannot distinguish from the layer it wraps.

Keras inspects a layer to convert its arguments, build it, name it and save it. The wrapper
returns what the wrapped layer would return. The parts that depend on Keras' private names
are in `keras_private`.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import keras

from activation_monitor.recording.keras_private import (
    OWN_ATTRIBUTES,
    WRAPPED_ATTRIBUTES,
    wrapper_methods,
)


def _of_the_layer(name):
    """A property that reads and sets the attribute of the wrapped layer."""

    def read(self):
        if "layer" in self.__dict__:
            return getattr(self.layer, name)
        if name in self.__dict__:
            return self.__dict__[name]
        raise AttributeError(name)

    def write(self, value):
        if "layer" in self.__dict__:
            setattr(self.layer, name, value)
        else:  # Keras' constructor sets and reads it before there is a wrapped layer
            self.__dict__[name] = value

    return property(read, write)


@functools.cache
def _class_around(kind, wrapped):
    """The subclass of the wrapper `kind` for layers of the class `wrapped`.

    Keras derives three things from a layer's class, and they must be those of the wrapped
    layer: the signature of `call` (which arguments are tensors or masks, whether there is
    a `training` argument), the signature of `build`, and the name of the class.
    `save_weights` names the weights of layers in a list after their class.
    """

    @functools.wraps(wrapped.build)
    def build(self, *args, **kwargs):
        self.layer.build(*args, **kwargs)

    @functools.wraps(wrapped.call)
    def call(self, *args, **kwargs):
        return self.call_layer(*args, **kwargs)

    body = {"build": build, "call": call, **wrapper_methods()}
    about = {"__module__": kind.__module__, "__doc__": kind.__doc__}
    made = type(wrapped.__name__, (kind,), {**body, **about})
    made.kind = kind
    package, _, name = keras.saving.get_registered_name(kind).rpartition(">")
    if package:
        # The subclass is saved under the wrapper's registered name. That name must load
        # the wrapper, so the wrapper is registered last.
        register = keras.saving.register_keras_serializable(package, name)
        register(made)
        register(kind)
    return made


class Transparent(keras.layers.Wrapper):
    """Behaves exactly as the layer it wraps and has the same name.

    Attributes that the wrapper does not define are those of the layer, for example
    `adapt`, `enable_lora`, `reset_state` and `kernel`. To set such an attribute, set it on
    `.layer`.

    Args:
        layer: The layer to wrap.
        name: Name of the wrapper. Defaults to `None`: the name of the layer.
    """

    kind: type | None = None  # the wrapper class that the user called, a base of this class

    def __new__(cls, layer, *args, **kwargs):
        made = _class_around(cls.kind or cls, type(layer))
        return super().__new__(made, layer, *args, **kwargs)

    def __init__(self, layer: keras.Layer, *, name: str | None = None):
        super().__init__(layer, name=name or layer.name)

    def call_layer(self, *args: Any, **kwargs: Any) -> Any:
        """Call the wrapped layer. `call` runs this method."""
        return self.layer(*args, **kwargs)

    # -- attributes of the wrapped layer

    autocast = _of_the_layer("autocast")
    built = _of_the_layer("built")
    compute_dtype = _of_the_layer("compute_dtype")
    dtype_policy = _of_the_layer("dtype_policy")
    input_dtype = _of_the_layer("input_dtype")
    input_spec = _of_the_layer("input_spec")
    quantization_mode = _of_the_layer("quantization_mode")
    supports_jit = _of_the_layer("supports_jit")
    supports_masking = _of_the_layer("supports_masking")
    trainable = _of_the_layer("trainable")
    variable_dtype = _of_the_layer("variable_dtype")

    def __getattr__(self, name):
        # On PyTorch a layer is a module, which finds its parts in this way.
        of_module = getattr(super(), "__getattr__", None)
        if of_module is not None:
            with contextlib.suppress(AttributeError):
                return of_module(name)
        if not name.startswith("__") and name not in OWN_ATTRIBUTES:
            return getattr(self.layer, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self):
        return f"<{(self.kind or type(self)).__name__} {self.layer!r}>"

    def compute_mask(self, *args: Any, **kwargs: Any) -> Any:
        """The output mask of the wrapped layer."""
        return self.layer.compute_mask(*args, **kwargs)

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        """The output shape of the wrapped layer."""
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """The output spec of the wrapped layer."""
        return self.layer.compute_output_spec(*args, **kwargs)

    def quantize(self, mode: str | None = None, **kwargs: Any) -> None:
        """Quantize the wrapped layer."""
        self.layer.quantize(mode, **kwargs)

    def quantized_call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the wrapped layer, which runs its own quantized call."""
        return self.call(*args, **kwargs)

    def rematerialized_call(
        self, layer_call: Callable, *args: Any, **kwargs: Any
    ) -> Callable:
        """Return the call unchanged: the wrapped layer rematerializes itself."""
        return layer_call

    # -- saving: the same files as without the wrapper

    def get_config(self) -> dict[str, Any]:
        """The name and the config of the wrapped layer."""
        return {"name": self.name, "layer": keras.saving.serialize_keras_object(self.layer)}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "Transparent":
        """Create the layer from its config and wrap it."""
        config = dict(config)
        layer = keras.saving.deserialize_keras_object(
            config.pop("layer"), custom_objects=custom_objects
        )
        return (cls.kind or cls)(layer, **config)

    def get_build_config(self) -> dict[str, Any] | None:
        """The build config of the wrapped layer."""
        return self.layer.get_build_config()

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Build the wrapped layer, unless its own config has built it already."""
        if not self.layer.built:
            self.layer.build_from_config(config)

    def save_own_variables(self, store: Any) -> None:
        """Save the variables of the wrapped layer."""
        self.layer.save_own_variables(store)

    def load_own_variables(self, store: Any) -> None:
        """Load the variables of the wrapped layer."""
        self.layer.load_own_variables(store)

    def __dir__(self):
        # Keras finds what to save through `dir`. It must find the parts of the wrapped
        # layer under the same names as without the wrapper, and not find the wrapped
        # layer in addition. If the wrapped layer has an attribute `layer` itself (it is a
        # wrapper), this is impossible, and the wrapped layer is saved as a part.
        own = {name for name in dir(type(self)) if not name.startswith("_")}
        hidden = set() if hasattr(self.layer, "layer") else {"layer"}
        return sorted((own | {"layer"} | set(dir(self.layer))) - hidden)


for _name in WRAPPED_ATTRIBUTES:
    setattr(Transparent, _name, _of_the_layer(_name))

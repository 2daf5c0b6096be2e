"""A wrapper that Keras cannot tell from the layer it wraps.

Keras reads from a layer how to convert its arguments, build it, name it and save it. From
the wrapper it must read what it would read from the wrapped layer. The private part of
that is in `keras_private`.
"""

import functools

import keras

from activation_monitor.recording.keras_private import WRAPPED_ATTRIBUTES, wrapper_methods


def _of_the_layer(name):
    """An attribute that is the wrapped layer's, to read and to set."""

    def read(self):
        if "layer" in self.__dict__:
            return getattr(self.layer, name)
        if name in self.__dict__:
            return self.__dict__[name]
        raise AttributeError(name)

    def write(self, value):
        if "layer" in self.__dict__:
            setattr(self.layer, name, value)
        else:  # within Keras' constructor, which sets and reads its own
            self.__dict__[name] = value

    return property(read, write)


@functools.cache
def _class_around(kind, wrapped):
    """The subclass of the wrapper `kind` for layers of the class `wrapped`.

    Keras derives three things from a layer's class, which must be as without a wrapper:
    the signature of `call` (which arguments are tensors, which are masks, whether there
    is a `training`), that of `build`, and the class's name, under which `save_weights`
    files the weights of the layers in a list.
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
        # Saved under the wrapper's registered name, which goes on to mean the wrapper.
        register = keras.saving.register_keras_serializable(package, name)
        register(made)
        register(kind)
    return made


class Transparent(keras.layers.Wrapper):
    """Behaves exactly as the layer it wraps, and has its name.

    What it does not define itself it takes from the layer: `adapt`, `enable_lora`,
    `reset_state`, `kernel`. To set such an attribute, set it on `.layer`.

    Args:
        layer: The layer.
        name: Another name than the layer's.
    """

    kind: type = None  # the class that was asked for, of which this is the subclass

    def __new__(cls, layer, *args, **kwargs):
        made = _class_around(cls.kind or cls, type(layer))
        return super().__new__(made, layer, *args, **kwargs)

    def __init__(self, layer, *, name=None):
        super().__init__(layer, name=name or layer.name)

    def call_layer(self, *args, **kwargs):
        """Call the wrapped layer; what `call` does."""
        return self.layer(*args, **kwargs)

    # -- what the layer says is said of the wrapper

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
        if "layer" in self.__dict__ and not name.startswith("__"):
            return getattr(self.layer, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self):
        return f"<{(self.kind or type(self)).__name__} {self.layer!r}>"

    def compute_mask(self, *args, **kwargs):
        """The layer's own mask of its output."""
        return self.layer.compute_mask(*args, **kwargs)

    def compute_output_shape(self, *args, **kwargs):
        """The layer's own."""
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args, **kwargs):
        """The layer's own."""
        return self.layer.compute_output_spec(*args, **kwargs)

    def quantize(self, mode=None, **kwargs):
        """Quantize the layer."""
        self.layer.quantize(mode, **kwargs)

    def quantized_call(self, *args, **kwargs):
        """Call the layer, which is quantized: it knows that itself."""
        return self.call(*args, **kwargs)

    def rematerialized_call(self, layer_call, *args, **kwargs):
        """The call as it is: the layer rematerializes itself."""
        return layer_call

    # -- saving: the same files as those of the layer by itself

    def get_config(self):
        """Name and layer."""
        return {"name": self.name, "layer": keras.saving.serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Wrap the layer of a config anew."""
        config = dict(config)
        layer = keras.saving.deserialize_keras_object(
            config.pop("layer"), custom_objects=custom_objects
        )
        return (cls.kind or cls)(layer, **config)

    def get_build_config(self):
        """The layer's own."""
        return self.layer.get_build_config()

    def build_from_config(self, config):
        """Build the layer, if it was not built when it was made from its own config."""
        if not self.layer.built:
            self.layer.build_from_config(config)

    def save_own_variables(self, store):
        """Save the layer's own."""
        self.layer.save_own_variables(store)

    def load_own_variables(self, store):
        """Load the layer's own."""
        self.layer.load_own_variables(store)

    def __dir__(self):
        # Keras finds what to save here: the layer's parts, each where it would be without
        # the wrapper, and not the layer once more below it. A layer with a `layer` of its
        # own (a wrapper) cannot be had that way, and is saved as a part.
        own = {name for name in dir(type(self)) if not name.startswith("_")}
        hidden = set() if hasattr(self.layer, "layer") else {"layer"}
        return sorted((own | {"layer"} | set(dir(self.layer))) - hidden)


for _name in WRAPPED_ATTRIBUTES:
    setattr(Transparent, _name, _of_the_layer(_name))

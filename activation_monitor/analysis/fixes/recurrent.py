"""Fixes for layers of sequences: recurrent kernels, and embeddings."""

from activation_monitor.analysis.causes import EmbeddingScale, RecurrentKernel
from activation_monitor.analysis.fix import Change, Fix
from activation_monitor.analysis.snapshot import Snapshot


def kernel(cause: RecurrentKernel, snapshot: Snapshot) -> Fix:
    """The fix for a kernel of a recurrent layer that is too large."""
    layer = snapshot.layers[cause.link.row]
    which, inputs, gain, argument, name = (
        (
            "recurrent kernel",
            "units",
            layer.recurrent_gain,
            "recurrent_initializer",
            "orthogonal",
        )
        if cause.recurrent
        else ("kernel", "inputs", layer.input_gain, "kernel_initializer", "glorot_uniform")
    )
    why = (
        "it keeps the norm of the state (Saxe et al. 2014), and is the default"
        if cause.recurrent
        else "the default"
    )
    return Fix(
        "initializer",
        f"The weights of the {which} of {layer.name} are too large: sqrt({inputs}) times "
        f"their rms is {gain:.3g}, and should be about 1 or less.",
        (Change("in", f'{argument}="{name}"', (layer.name,), why),),
    )


def embedding(cause: EmbeddingScale, snapshot: Snapshot) -> Fix:
    """The fix for embeddings that are too large, or all the same."""
    name = snapshot.layers[cause.row].name
    field = (snapshot.field(part)[cause.row] for part in ("minimum", "maximum"))
    return Fix(
        "initializer",
        f"The vectors of {name} are not drawn at random: all have the same value."
        if len(set(field)) == 1
        else f"The vectors of {name} were drawn too large: their rms is {cause.rms:.3g}. "
        "A step of training changes such vectors by next to nothing.",
        (
            Change(
                "in",
                'embeddings_initializer="uniform"',
                (name,),
                "within 0.05, the default",
            ),
        ),
    )

"""What an error that Keras, TensorFlow or numpy raised says, in one line."""

import re

_WHERE = (
    "Exception encountered when calling",
    "Graph execution error",
    "Detected at node",
    'File "',
)
"""How the lines begin that say where something failed, before the one that says what."""


def first_line(error: Exception) -> str:
    """The first line that says what happened, without colour codes and final period.

    Args:
        error: Any error; of one that nests others, the innermost is told.
    """
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error))
    text = text.rpartition("Exception encountered: ")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(_WHERE)]
    return (told or lines or [type(error).__name__])[0].rstrip(".")

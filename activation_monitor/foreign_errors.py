"""Shortens an error of Keras, TensorFlow or numpy to one line."""

import re

_WHERE = (
    "Exception encountered when calling",
    "Graph execution error",
    "Detected at node",
    'File "',
)
"""Beginnings of the lines that say where an error occurred, not which one."""


def first_line(error: Exception) -> str:
    """The first line of a message that says what happened.

    Args:
        error: Any error. For a nested error, the message of the innermost one is used.

    Returns:
        The line, without colour codes and without the final period.
    """
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error))
    text = text.rpartition("Exception encountered: ")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    what = [line for line in lines if not line.startswith(_WHERE)]
    return (what or lines or [type(error).__name__])[0].rstrip(".")

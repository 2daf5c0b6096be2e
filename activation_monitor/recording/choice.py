"""Selects layers by name, path, regular expression or predicate."""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

LayerChoice = Iterable | str | re.Pattern | Callable[[Any], bool] | None
"""What the argument `layers` of `ActivationMonitor` accepts."""

_EXPECTED = (
    "ActivationMonitor: `layers` must be None, a function of a layer, or one or a list of "
    "layer names, paths and regular expressions."
)


def check(choice: LayerChoice) -> None:
    """Validate a choice before the model is known.

    Args:
        choice: See `choose`.

    Raises:
        TypeError: If the choice, or an element of it, has the wrong type.
        ValueError: If the choice is empty, or a string is not a valid regular expression.
    """
    if choice is None or callable(choice):
        return
    if not isinstance(choice, Iterable):
        raise TypeError(f"{_EXPECTED} Received: layers={choice!r}.")
    wanted = _as_list(choice)
    if not wanted:
        raise ValueError(f"{_EXPECTED} Received: layers={choice!r}, which is empty.")
    for one in wanted:
        if not isinstance(one, str | re.Pattern):
            raise TypeError(f"{_EXPECTED} Received: {one!r} among them.")
        try:
            re.compile(one)
        except re.error as error:
            raise ValueError(
                f"{_EXPECTED} Received: {one!r}, which is not a regular expression: "
                f"{error}."
            ) from None


def choose(choice: LayerChoice, layers: Sequence[tuple[str, Any]]) -> list:
    """Select layers.

    A string that equals the name or the path of a layer selects this layer. Any other
    string, and a compiled pattern, is searched for in the paths.

    Args:
        choice: None for all layers; a predicate; or one or several strings and patterns.
        layers: Pairs of path and layer.

    Returns:
        The selected layers. A layer that several elements select appears several times.

    Raises:
        ValueError: If an element of the choice matches no layer. The message lists
            similar names.
    """
    if choice is None:
        return [layer for _, layer in layers]
    if callable(choice):
        found = [layer for _, layer in layers if choice(layer)]
        if not found:
            raise ValueError(
                "ActivationMonitor: the function passed as `layers` must return True for "
                f"at least one layer. Received: False for all {len(layers)} layers of the "
                "model."
            )
        return found
    found = []
    for wanted in _as_list(choice):
        matching = _matching(wanted, layers)
        if not matching:
            raise ValueError(
                f"ActivationMonitor: no layer matches {wanted!r}, passed in `layers`. "
                f"{_near_misses(wanted, layers)}"
            )
        found += matching
    return found


def _as_list(choice):
    return [choice] if isinstance(choice, str | re.Pattern) else list(choice)


def _matching(wanted, layers):
    exact = [layer for path, layer in layers if wanted in (path, layer.name)]
    return exact or [layer for path, layer in layers if re.search(wanted, path)]


def _near_misses(wanted, layers):
    text = wanted.pattern if isinstance(wanted, re.Pattern) else wanted
    names = sorted({path for path, _ in layers} | {layer.name for _, layer in layers})
    near = difflib.get_close_matches(text, names, n=5, cutoff=0.4)
    if near:
        return f"Similar names: {', '.join(near)}."
    more = f", and {len(names) - 20} more" if len(names) > 20 else ""
    return f"The layers are: {', '.join(names[:20])}{more}."

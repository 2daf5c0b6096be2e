"""The message for an unknown name: the name that was probably meant, or all names."""

import difflib
import re
from collections.abc import Iterable

_MOST = 3
"""Names that are suggested at most."""

_LISTED = 20
"""Names up to which all are listed if none is close."""


def no_such(what: str, name: str, known: Iterable[str], listed: bool = False) -> str:
    """The message for an unknown name.

    Args:
        what: The kind of name, for example "layer".
        name: The unknown name.
        known: The names that exist.
        listed: Whether to list all names in any case, and not only if none is close.
            Defaults to `False`.

    Example:

    >>> no_such("layer", "hidden_1", ["net/hidden_0", "net/hidden_1"])
    "no layer named 'hidden_1'. Did you mean 'net/hidden_1'?"
    >>> no_such("statistic", "norm", ["mean", "std", "rms"])
    "no statistic named 'norm'. There are: mean, std, rms."
    """
    known = [*dict.fromkeys(known)]
    text = f"no {what} named {name!r}."
    close = _close(str(name), known)
    if close:
        text += f" Did you mean {' or '.join(map(repr, close))}?"
    if listed or not close:
        shown = known if listed else known[:_LISTED]
        more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
        text += f" There are: {', '.join(shown) or 'none'}{more}."
    return text


def _close(name: str, known: list[str]) -> list[str]:
    """The names whose path contains this one; without such names, the similar ones."""
    part = re.compile(rf"(^|/){re.escape(name)}([/:~]|$)")
    having = [other for other in known if name and part.search(other)]
    if having:
        return having[:_MOST]
    alike = _alike(name, known)
    # The last part alone as well: a path before it makes any two names unlike.
    by_last: dict[str, str] = {}
    for other in known:
        by_last.setdefault(other.rpartition("/")[2], other)
    last = _alike(name.rpartition("/")[2], by_last)
    return [*dict.fromkeys([*alike, *(by_last[part] for part in last)])][:_MOST]


def _alike(name: str, known: Iterable[str]) -> list[str]:
    """The names that are very close; without such names, the one that is fairly close."""
    known = [*known]
    very = difflib.get_close_matches(name, known, _MOST, cutoff=0.75)
    return very or difflib.get_close_matches(name, known, 1)

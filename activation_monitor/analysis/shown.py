"""How a result shows itself: in one line everywhere, in full by the views it carries."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

LONGEST = 200
"""Characters of the one line at most: two lines of a terminal or three of a notebook."""


class Views(NamedTuple):
    """What shows a result in full. Analysis knows neither rich nor plotly, so a result
    carries these functions of it.

    Attributes:
        text: Makes the text that `print` shows.
        html: Makes the HTML that a notebook shows.
        figure: Makes a figure, from the result, a kind and options.
    """

    text: Callable[[Any], str]
    html: Callable[[Any], str] | None = None
    figure: Callable[..., Any] | None = None


def one_line(words: Callable[[Any], str]) -> Callable[[Any], str]:
    """Make `<Class words>` of a method that describes an object in words: its `__repr__`.

    The line has at most `LONGEST` characters. It never fails: a debugger shows half-made
    objects as well.
    """

    @functools.wraps(words)
    def described(self):
        try:
            text = " ".join(words(self).split())
        except Exception as error:
            text = f"without a description ({type(error).__name__})"
        line = f"<{type(self).__name__} {text}>"
        return line if len(line) <= LONGEST else f"{line[: LONGEST - 2]}…>"

    return described


def html(result) -> str | None:
    """What a notebook shows of a result with `views`.

    Returns:
        HTML; None, for which a notebook shows the one line, if the result has no such
        view or the view fails.
    """
    if result.views is None or result.views.html is None:
        return None
    try:
        return result.views.html(result)
    except Exception:  # a cell must not fail for how its result is shown
        return None


def count(n: int, what: str) -> str:
    """A number of things in words."""
    return f"{n} {what}{'' if n == 1 else 's'}"

"""How a result is shown: one line everywhere, in full where a view is registered.

`text`, `html`, `png` and `figure` are generic functions (`functools.singledispatch`).
Analysis knows neither rich nor plotly, so here they have only a fallback. Each view
registers itself for the type of its result:

```python
@shown.text.register
def diagnosis_text(diagnosis: Diagnosis) -> str: ...
```

All public functions that return a result import the views, so a result of theirs is shown
in full. Analysis imported alone shows the one line.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

LONGEST = 200
"""Characters of the one line at most: two lines of a terminal or three of a notebook."""


@functools.singledispatch
def text(result: Any) -> str:
    """The text that `print` shows: the one line if no view is registered."""
    return repr(result)


@functools.singledispatch
def html(result: Any) -> str | None:
    """The HTML that a notebook shows: None if no view is registered."""
    del result
    return None


@functools.singledispatch
def png(result: Any) -> bytes | None:
    """The image that stands for the HTML, in a PDF: None if no view is registered."""
    del result
    return None


@functools.singledispatch
def figure(result: Any, kind: str, **options: Any) -> Any:
    """A figure of the result.

    Args:
        result: The result to draw.
        kind: The name of the figure.
        **options: Options of that figure.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        TypeError: If no view is registered.
    """
    raise TypeError(
        f"{type(result).__name__}.figure: expected a view that draws it. Received: none, "
        "because only `activation_monitor.analysis` is imported. Import "
        "`activation_monitor.views.console` first."
    )


def in_notebook(result: Any) -> str | None:
    """The HTML that a notebook shows of a result.

    Returns:
        HTML. None if no view is registered or the view fails: the notebook then shows the
        one line. A cell must not fail because of how its result is shown.
    """
    try:
        return html(result)
    except Exception:
        return None


def as_image(result: Any) -> bytes | None:
    """The PNG that a notebook without HTML shows of a result; None as for `in_notebook`."""
    try:
        return png(result)
    except Exception:
        return None


def one_line(words: Callable[[Any], str]) -> Callable[[Any], str]:
    """Make `<Class words>` of a method that describes an object in words: its `__repr__`.

    The line has at most `LONGEST` characters. It never fails: a debugger shows half-made
    objects as well.
    """

    @functools.wraps(words)
    def described(self: Any) -> str:
        try:
            text = " ".join(words(self).split())
        except Exception as error:
            text = f"without a description ({type(error).__name__})"
        line = f"<{type(self).__name__} {text}>"
        return line if len(line) <= LONGEST else f"{line[: LONGEST - 2]}…>"

    return described


def count(n: int, what: str) -> str:
    """A number of things in words.

    >>> count(1, "layer"), count(3, "layer")
    ('1 layer', '3 layers')
    """
    return f"{n} {what}{'' if n == 1 else 's'}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """A few names, and how many more there are.

    >>> listed(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"

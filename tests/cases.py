"""Which of many cases of one kind the default run has; `-m slow` runs the others."""

from collections.abc import Iterable

import pytest


def cases(names: Iterable[str], default: Iterable[str], smoke: Iterable[str] = ()) -> list:
    """Parameters of a test: all names, with their marks.

    Args:
        names: Of the cases.
        default: Those of the default run, with something in them that no other has. The
            rest is slow.
        smoke: Those that run with the oldest versions too.
    """
    names, default, smoke = [*names], {*default}, {*smoke}
    assert default | smoke <= {*names}, (default | smoke) - {*names}
    return [
        pytest.param(
            name,
            marks=[
                *([] if name in default else [pytest.mark.slow]),
                *([pytest.mark.smoke] if name in smoke else []),
            ],
        )
        for name in names
    ]

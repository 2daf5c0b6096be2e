"""Methods of classes are wrapped by several threads at once, and put back."""

import contextlib

import numpy as np
import pytest

from activation_monitor.recording.patches import wrapped_method


class Parent:
    """Defines the method."""

    def twice(self, x):
        return 2 * x


class Child(Parent):
    """Inherits it."""


def adding(number):
    def wrapper(method, own, x):
        return method(own, x) + number

    return wrapper


@pytest.mark.parametrize("kind", [Parent, Child])
@pytest.mark.parametrize("first_ends_first", [True, False])
def test_blocks_may_overlap_and_the_class_is_as_before(kind, first_ends_first):
    before = dict(vars(kind))
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    first.enter_context(wrapped_method(kind, "twice", adding(10)))
    np.testing.assert_equal(kind().twice(1), 12)
    second.enter_context(wrapped_method(kind, "twice", adding(100)))
    np.testing.assert_equal(kind().twice(1), 112)
    (first if first_ends_first else second).close()
    np.testing.assert_equal(kind().twice(1), 102 if first_ends_first else 12)
    (second if first_ends_first else first).close()
    np.testing.assert_equal(kind().twice(1), 2)
    assert dict(vars(kind)) == before


def test_a_wrapper_that_raises_is_removed():
    def failing(method, own, x):
        raise ArithmeticError

    with pytest.raises(ArithmeticError), wrapped_method(Parent, "twice", failing):
        Parent().twice(1)
    np.testing.assert_equal(Parent().twice(1), 2)


def test_what_someone_else_wrapped_within_the_block_stays_theirs():
    """Theirs calls ours, which no longer does anything."""
    own = Parent.twice
    try:
        with wrapped_method(Parent, "twice", adding(10)):
            ours = Parent.twice
            Parent.twice = lambda self, x: -ours(self, x)
            np.testing.assert_equal(Parent().twice(1), -12)
        np.testing.assert_equal(Parent().twice(1), -2)
    finally:
        Parent.twice = own

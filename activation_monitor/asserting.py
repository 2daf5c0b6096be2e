"""For tests: asserts that a model is healthy before training."""

from collections.abc import Collection
from typing import Any

import keras

from activation_monitor.actions import printed
from activation_monitor.auditing import audit


def assert_healthy(
    model: keras.Model,
    x: Any,
    y: Any = None,
    seeds: int = 1,
    ignore: str | Collection[str] = (),
    allow_not_assessed: bool = False,
) -> None:
    """Assert that `audit` finds nothing wrong with a model.

    The model is not changed.

    Args:
        model: The model, compiled or not.
        x: One batch of inputs of the model, see `audit`.
        y: The targets of this batch. If they are passed, the model must be compiled, and
            the gradients of the loss are judged as well. Defaults to `None`.
        seeds: The number of initializations to audit, see `audit`. Defaults to `1`.
        ignore: Codes of findings that are accepted. Defaults to `()`.
        allow_not_assessed: Whether to accept a model of which growth with depth cannot be
            judged, for example a trained one. All else is judged. Defaults to `False`.

    Raises:
        AssertionError: If there are findings; they are the message. Also if the verdict
            is "not assessed" and this is not allowed, with the reason.
        TypeError, ValueError: As `audit`.

    Example:

    ```python
    def test_my_model_is_healthy():
        assert_healthy(make_model(), x[:64], y[:64])
    ```
    """
    __tracebackhide__ = True  # pytest shows the line of the test
    diagnosis = audit(model, x, y, seeds=seeds, ignore=ignore)
    if diagnosis.findings:
        raise AssertionError(printed(diagnosis.findings))
    if diagnosis.not_assessed and not allow_not_assessed:
        raise AssertionError(
            f"not assessed: {diagnosis.not_assessed} Nothing else was found. To accept "
            "this, pass allow_not_assessed=True."
        )

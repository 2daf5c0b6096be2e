"""What to do about findings: warn, stop training, raise an error, or call a function."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from activation_monitor.analysis.diagnosis import Diagnosis
from activation_monitor.analysis.findings import CODES, SEVERITIES, Finding

NAMES = ("warn", "stop", "raise")

Action = str | Callable[[Finding], object]
"""One of `NAMES`, or a function of the finding."""


class UnhealthyModelError(RuntimeError):
    """Raised because of a finding, if `on_finding` of an `ActivationMonitor` says so.

    Before it is raised, the event files are written and closed, so TensorBoard and
    `read_recording` show what led to it. It can be pickled. `diagnose` takes it as well.

    Args:
        findings: The findings to raise.
        diagnosis: The diagnosis of the run so far.

    Attributes:
        findings: The findings for which it was raised, a tuple of `Finding`. They are the
            message.
        diagnosis: The diagnosis of the run so far, a `Diagnosis`. It has all findings,
            also those that only warn.

    Example:

    ```python
    monitor = ActivationMonitor("logs/run1", on_finding="raise")
    try:
        model.fit(x, y, callbacks=[monitor])
    except UnhealthyModelError as error:
        print(error.findings[0].fix)
    ```
    """

    def __init__(self, findings: Sequence[Finding], diagnosis: Diagnosis):
        self.findings = tuple(findings)
        self.diagnosis = diagnosis
        super().__init__(self.findings, diagnosis)  # what pickle passes to a copy

    def __str__(self) -> str:
        return f"ActivationMonitor: {printed(self.findings)}"


def printed(findings: Iterable[Finding]) -> str:
    """Findings as text, with an empty line between two of them.

    Args:
        findings: The findings.
    """
    return "\n\n".join(map(str, findings))


@dataclass(frozen=True)
class Actions:
    """Which finding leads to which action.

    Attributes:
        by: Severity or code to action.
        patience: At how many further sampled steps in a row a finding must be seen before
            an action other than "warn".
    """

    by: Mapping[str, Action]
    patience: int = 0

    @property
    def may_stop(self) -> bool:
        """Whether a finding can lead to "stop"."""
        return "stop" in self.by.values()

    def of(self, finding: Finding) -> Action:
        """The action for a finding: that of its code; else that of its severity or of the
        next one below; else "warn"."""
        if finding.code in self.by:
            return self.by[finding.code]
        not_above = SEVERITIES[: SEVERITIES.index(finding.severity) + 1]
        return next((self.by[one] for one in not_above[::-1] if one in self.by), "warn")


def check_actions(
    on_finding: Action | Mapping[str, Action], patience: int, where: str
) -> Actions:
    """Check the arguments that say what to do about findings.

    Args:
        on_finding: An action, or a dictionary of severity or code to action.
        patience: See `Actions`.
        where: The name of the calling function, for the message.

    Raises:
        ValueError: If an action, a severity or a code does not exist, or `patience` is
            not an integer of 0 or more.
    """
    if isinstance(on_finding, Mapping):
        by: dict[str, Action] = dict(on_finding)
        unknown = [key for key in by if key not in (*SEVERITIES, *CODES)]
        if unknown:
            raise ValueError(
                f"{where}: the keys of `on_finding` must be severities or codes of "
                f"findings. Received: {', '.join(map(repr, unknown))}. Severities: "
                f"{', '.join(SEVERITIES)}. Codes: {', '.join(CODES)}."
            )
    else:
        by = {SEVERITIES[0]: on_finding}
    for action in by.values():
        if not callable(action) and not (isinstance(action, str) and action in NAMES):
            raise ValueError(
                f'{where}: `on_finding` must be "warn", "stop", "raise", a function of the '
                "finding, or a dictionary of these by severity or code. Received: "
                f"on_finding={on_finding!r}."
            )
    is_integer = isinstance(patience, int | np.integer) and not isinstance(patience, bool)
    if not is_integer or patience < 0:
        raise ValueError(
            f"{where}: `patience` must be a number of sampled steps, 0 or more. Received: "
            f"patience={patience!r}. Use 0 to act when a finding is first seen."
        )
    return Actions(by, int(patience))


@dataclass(frozen=True)
class Seen:
    """What is remembered of findings between two sampled steps.

    Attributes:
        steps: How many sampled steps there were.
        last_steps: By code, `Finding.last_step` at the last sampled step.
        in_a_row: By code, at how many sampled steps in a row it was seen, up to the last
            one.
        waiting: Codes that were reported, but not acted on yet.
    """

    steps: int = 0
    last_steps: Mapping[str, int | None] = field(default_factory=dict)
    in_a_row: Mapping[str, int] = field(default_factory=dict)
    waiting: frozenset[str] = frozenset()


def decide(
    actions: Actions, before: Seen, findings: Sequence[Finding], news: Iterable[Finding]
) -> tuple[Seen, list[tuple[Action, Finding]]]:
    """Decide what to do after a sampled step.

    A finding that is reported leads to its action once it was seen at enough sampled steps
    in a row, and to a warning until then. Most rules judge the first sampled step only, so
    patience does not apply there. A finding that is reported without being seen again can
    neither stop training nor raise an error.

    Args:
        actions: Which finding leads to which action.
        before: What is remembered; `Seen()` before the first step.
        findings: All findings after the step.
        news: Those to report, see `health.judge`.

    Returns:
        What to remember; and pairs of an action and its finding, in the order of
        `findings`.
    """
    # The last step of a finding changes with each step at which it is seen.
    none: Any = object()
    in_a_row = {
        finding.code: before.in_a_row.get(finding.code, 0) + 1
        for finding in findings
        if before.last_steps.get(finding.code, none) != finding.last_step
    }
    is_first = before.steps == 0
    reported = {finding.code for finding in news}
    waiting, due = set(before.waiting), list[tuple[Action, Finding]]()
    for finding in findings:
        code, action = finding.code, actions.of(finding)
        seen = in_a_row.get(code, 0)
        is_ready = seen > 0 and (is_first or seen > actions.patience)
        is_known = seen == 0 and code not in waiting and callable(action)
        if action == "warn" or not (is_ready or is_known):
            if code in reported:
                due.append(("warn", finding))
            if code in reported and action != "warn" and seen:
                waiting.add(code)
        elif code in reported or code in waiting:
            due.append((action, finding))
            waiting.discard(code)
    last_steps = {finding.code: finding.last_step for finding in findings}
    return Seen(before.steps + 1, last_steps, in_a_row, frozenset(waiting)), due

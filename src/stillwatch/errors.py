"""What can go wrong, as a caller would act on it.

    StillwatchError
    ├── Terminal               do not retry: somebody must change something
    │   ├── UsageError         the command, a setting or a plug-in is wrong      exit 2
    │   ├── InputRejected      nothing in the input could be judged              exit 3
    │   └── EngineError        a step failed in an engine                        exit 5
    └── Transient              the same call may succeed later                   exit 5

A message says what and where; ``hint`` says what to do next. A bad *row* is no exception: it is counted as a
``Reject`` with its place, and the good rows go on.
"""

from __future__ import annotations

from dataclasses import dataclass


class StillwatchError(Exception):
    """Base of all errors raised on purpose. ``str()`` gives the message and, indented below it, the hint."""

    exit_code = 5

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class Terminal(StillwatchError):
    """Retrying the same call cannot help."""


class Transient(StillwatchError):
    """The same call may succeed later: a busy file, a full queue, a dependency that is down."""


class UsageError(Terminal):
    """The command line, a setting or a plug-in is wrong."""

    exit_code = 2


class InputRejected(Terminal):
    """No row of the input could be judged; the message gathers what was wrong with it."""

    exit_code = 3


class EngineError(Terminal):
    """A named step failed; the message carries the step's name and its SQL."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Rows that were left out for one reason: how many, and the place of the first (``file:line`` or ``file:row``)."""

    reason: str
    rows: int
    place: str
    hint: str = ""

    def __str__(self) -> str:
        line = f"{self.place}: {self.reason} ({self.rows} row{'s' if self.rows != 1 else ''})"
        return f"{line}\n  hint: {self.hint}" if self.hint else line

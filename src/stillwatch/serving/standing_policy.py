"""The policy that stands: read anew when its file changes; never more than what could be read and understood.

Without a file the default policy stands, all of it in shadow: it is written down what would be done, and nothing is. With a file
that cannot be used no rule stands at all: nothing new is proposed, what is in force goes on to its end, and what judgements and
new findings undo is undone. How many accounts a person may suspend alone then is as it last was; where that is not known, none.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from stillwatch.errors import UsageError
from stillwatch.policy import Bulk, Policy, load
from stillwatch.store.state import FileMark, file_mark

DEFAULT = "no policy file: the default policy stands in shadow, and nothing is done"


@dataclass(slots=True)
class StandingPolicy:
    """The policy in ``path``. ``fault`` says why the file cannot be used, empty where it can or where there is none."""

    path: Path
    is_named: bool = False
    """Whether somebody asked for this file; then it must be there."""
    fault: str = ""
    _policy: Policy | None = None
    _mark: FileMark | None = None

    def now(self) -> Policy:
        """The policy, read again if its file is another one than the last time."""
        mark = file_mark(self.path)
        if self._policy is None or mark != self._mark:
            self._mark = mark
            self._policy = self._read()
        return self._policy

    @property
    def source(self) -> str:
        """Where the policy that stands comes from, in words."""
        if self.fault:
            return f"{self.path}: cannot be used, no rule stands: {self.fault}"
        return str(self.path) if self._mark else DEFAULT

    def _read(self) -> Policy:
        self.fault = ""
        try:
            if self._mark is None and not self.is_named:
                return in_shadow(load(None))
            return load(self.path)
        except UsageError as e:
            self.fault = str(e)
            return Policy(rules=(), bulk=self._policy.bulk if self._policy else Bulk(suspend=0))


def in_shadow(policy: Policy) -> Policy:
    """The policy with every rule in shadow, and nothing that could begin beside the rules."""
    rules = tuple(dataclasses.replace(rule, shadow=True) for rule in policy.rules)
    notes = (*policy.notes, f"{DEFAULT.capitalize()}.")
    return dataclasses.replace(policy, rules=rules, escalation=None, notes=notes)

"""What an account is told about an action: the fields of a statement of reasons (DSA, Art. 17), without a word on detection.

Pure: an action and the provider's wording in, a statement out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from stillwatch.responders import ladder
from stillwatch.types import Action, Part, Rung

PERSON = "person"
"""The ``rule`` of an action that somebody decided on."""

FACTS = (
    "Patterns in how this account is used look like a systematic collection of answers in order to train another model. "
    "The terms of use do not allow that."
)
GROUND = "The terms of use: no use of the service's outputs to develop competing models."


@dataclass(frozen=True, slots=True)
class Wording:
    """The provider's words and addresses; ``{case}`` in an address stands for the case."""

    text: str = FACTS
    ground: str = GROUND
    appeal_url: str = ""
    case_url: str = ""
    scope: str = "everywhere"


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of reasons. Times are UTC; ``until`` is when the action ends by itself.

    ``decision`` is the kind of restriction, ``facts`` why in general words, ``ground`` the term it rests on, ``scope``
    where it holds. ``automated_decision`` is true where no person signed.
    """

    case: str
    account_id: str
    decision: str
    limits: str
    facts: str
    ground: str
    scope: str
    since: datetime
    until: datetime
    automated_detection: bool
    automated_decision: bool
    redress: str
    appeal_url: str
    case_url: str

    def text(self) -> str:
        """The statement as a letter, in plain words."""
        decided = "by a rule, without a person" if self.automated_decision else "by a person"
        lines = [
            f"Case {self.case}, account {self.account_id}",
            self.limits,
            f"Why: {self.facts}",
            f"Ground: {self.ground} It holds {self.scope}.",
            f"From {self.since:%Y-%m-%d %H:%M} UTC until {self.until:%Y-%m-%d %H:%M} UTC at the latest.",
            f"{'Automated means' if self.automated_detection else 'No automated means'} found this; "
            f"the decision was taken {decided}.",
            self.redress,
        ]
        return "\n".join(lines)


DECISIONS = {
    Rung.OBSERVE: "none",
    Rung.PROTECT: "PARTIAL_RESTRICTION",
    Rung.THROTTLE: "PARTIAL_RESTRICTION",
    Rung.VERIFY: "ACCOUNT_SUSPENDED_UNTIL_VERIFIED",
    Rung.RESTRICT: "PARTIAL_RESTRICTION",
    Rung.SUSPEND: "ACCOUNT_SUSPENDED",
}


ONLY = {
    Part.ACCOUNT: "",
    Part.KEY: " This concerns one key of the account, and no other.",
    Part.END_USER: " This concerns one end user of the account, and nobody else of it.",
}


def _decision(action: Action) -> str:
    """The kind of restriction; on a part of an account it is a partial one at most."""
    decision = DECISIONS[action.rung]
    return decision if action.part is Part.ACCOUNT or decision == "none" else "PARTIAL_RESTRICTION"


def statement_of(action: Action, wording: Wording) -> Statement:
    """What the account is told about this action."""
    told = {r.rung: f"{r.told}{ONLY[action.part]}" for r in ladder()}
    appeal, case_url = (u.replace("{case}", action.action_id) for u in (wording.appeal_url, wording.case_url))
    how = f"at {appeal}" if appeal else f"through support, naming the case {action.action_id}"
    return Statement(
        case=action.action_id,
        account_id=action.account_id,
        decision=_decision(action),
        limits=told[action.rung],
        facts=action.reason,
        ground=wording.ground,
        scope=wording.scope,
        since=action.starts_at.astimezone(UTC),
        until=action.expires_at.astimezone(UTC),
        automated_detection=action.rule != PERSON or bool(action.campaign_id),
        automated_decision=action.rule != PERSON and not action.signatures,
        redress=f"You may appeal {how}. Somebody who had no part in the decision looks at it. You may also turn to a court.",
        appeal_url=appeal,
        case_url=case_url,
    )

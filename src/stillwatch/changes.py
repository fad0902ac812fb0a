"""What a change of an action or an appeal is: the entry that the audit is told, and the statements that then make it so.

Nothing is done here: a ``Step`` is carried out by ``actions``, which writes its entry first. Rows are read back here too, so that
what a change writes and what is made of it stand in one place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from stillwatch.entries import Deed
from stillwatch.errors import UsageError
from stillwatch.store.state import Judgement
from stillwatch.types import Action, Part, Rung, Standing

UPHELD, OVERTURNED = "upheld", "overturned"

LONGEST_REASON = 1000
"""Characters of a reason, as many as an entry of the audit holds."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened to an action. ``audit`` is the number of the entry written before it."""

    action_id: str
    account_id: str
    campaign_id: str
    rung: Rung
    event: str
    who: str
    role: str
    at: datetime
    reason: str
    audit: int


@dataclass(frozen=True, slots=True)
class Appeal:
    """An appeal by an account. ``outcome`` is empty until it is decided; the text of the appeal is kept elsewhere."""

    case_id: str
    account_id: str
    filed_at: datetime
    deadline: datetime
    text_hash: str
    outcome: str = ""
    reviewer: str = ""
    decided_at: datetime | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One change: what the audit is told, and the statements that make it so, given the number of the entry."""

    entry: Deed
    statements: Callable[[int], Iterator[tuple[str, tuple[Any, ...]]]]


@dataclass(frozen=True, slots=True)
class Doing:
    """Who does something, as what, when and why."""

    who: str
    role: str
    at: datetime
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.who.strip():
            raise UsageError("nobody is named who does this", hint="give the name of a person or a rule")
        if len(self.reason) > LONGEST_REASON:
            raise UsageError(f"the reason is longer than {LONGEST_REASON} characters", hint="say it in fewer words")


@dataclass(frozen=True, slots=True)
class Row:
    """An action as it is in the table, and who proposed it."""

    action: Action
    proposer: str = ""


_EVENT = "INSERT INTO action_events (action_id, event, who, role, at, reason, audit) VALUES (?, ?, ?, ?, ?, ?, ?)"


def _facts(action: Action, reason: str, **more: Any) -> dict[str, Any]:
    return {
        "account": action.account_id,
        "campaign": action.campaign_id,
        "rung": action.rung.value,
        "rule": action.rule,
        "reason": reason,
        **({} if action.part is Part.ACCOUNT else {"part": action.part.value, "mark": action.mark}),
        **more,
    }


def happened(row: Row, event: str, doing: Doing, **more: Any) -> Step:
    """Something that happens to an action and leaves its standing as it is."""
    action_id = row.action.action_id

    def statements(number: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
        yield _EVENT, (action_id, event, doing.who, doing.role, text_of(doing.at), doing.reason, number)

    facts = _facts(row.action, doing.reason, **more)
    return Step(Deed(f"action.{event}", doing.who, doing.role, action_id, facts), statements)


def raised(row: Row, doing: Doing) -> Step:
    """A second signature is needed from here on."""
    said = happened(row, "raised", doing, needed=2)

    def statements(number: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
        yield from said.statements(number)
        yield "UPDATE actions SET needed = 2 WHERE action_id = ?", (row.action.action_id,)

    return replace(said, statements=statements)


def moved(row: Row, standing: Standing, doing: Doing) -> Step:
    """A change of standing."""
    said = happened(row, standing.value, doing, was=row.action.standing.value)

    def statements(number: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
        yield from said.statements(number)
        yield "UPDATE actions SET standing = ? WHERE action_id = ?", (standing.value, row.action.action_id)

    return replace(said, statements=statements)


def proposed(action: Action, doing: Doing) -> Step:
    """A new action, as it begins to stand."""
    said = happened(
        Row(action), "proposed", doing, needed=action.needed, standing=action.standing.value,
        starts=text_of(action.starts_at), ends=text_of(action.expires_at),
    )  # fmt: skip

    def statements(number: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
        yield (
            "INSERT INTO actions (action_id, key, account_id, campaign_id, rung, rule, reason, proposer, proposed_at, starts_at, "
            "expires_at, settings, needed, standing, part, mark) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                action.action_id, action.key, action.account_id, action.campaign_id, action.rung.value, action.rule,
                action.reason, doing.who, text_of(action.proposed_at), text_of(action.starts_at), text_of(action.expires_at),
                json.dumps(dict(action.settings), ensure_ascii=False), action.needed, action.standing.value,
                action.part.value, action.mark,
            ),
        )  # fmt: skip
        yield from said.statements(number)

    return replace(said, statements=statements)


_APPEAL = """INSERT INTO appeals (case_id, event, account_id, who, at, deadline, text_hash, reason, audit)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""


def filed(appeal: Appeal, doing: Doing) -> Step:
    """A new appeal."""
    facts = {"account": appeal.account_id, "deadline": text_of(appeal.deadline), "text_hash": appeal.text_hash}
    entry = Deed("appeal.filed", doing.who, doing.role, appeal.case_id, facts)
    return Step(entry, lambda number: iter([_appeal_row(appeal, "filed", doing, number)]))


def decided(appeal: Appeal, doing: Doing) -> Step:
    """The decision, and where it overturns, the judgement that calibration learns from and that no rule overrules."""

    def statements(number: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
        yield _appeal_row(appeal, appeal.outcome, doing, number)
        if appeal.outcome == OVERTURNED:
            said = f"appeal {appeal.case_id} overturned: {doing.reason}"
            held = Judgement(appeal.account_id, "negative", doing.who, said, doing.at)
            yield (
                "INSERT INTO judgements (subject, verdict, judge, at, reason) VALUES (?, ?, ?, ?, ?)",
                (held.subject, held.verdict, held.judge, text_of(held.at), held.reason),
            )

    facts = {"account": appeal.account_id, "reason": doing.reason}
    return Step(Deed(f"appeal.{appeal.outcome}", doing.who, doing.role, appeal.case_id, facts), statements)


def _appeal_row(appeal: Appeal, event: str, doing: Doing, number: int) -> tuple[str, tuple[Any, ...]]:
    at, deadline = text_of(doing.at), text_of(appeal.deadline)
    return _APPEAL, (
        appeal.case_id, event, appeal.account_id, doing.who, at, deadline, appeal.text_hash, doing.reason, number
    )  # fmt: skip


def row_of(r: Mapping[str, Any]) -> Row:
    """An action read back from its table."""
    action = Action(
        action_id=r["action_id"],
        key=r["key"],
        account_id=r["account_id"],
        campaign_id=r["campaign_id"],
        rung=Rung(r["rung"]),
        rule=r["rule"],
        reason=r["reason"],
        standing=Standing(r["standing"]),
        proposed_at=moment_of(r["proposed_at"]),
        starts_at=moment_of(r["starts_at"]),
        expires_at=moment_of(r["expires_at"]),
        settings=json.loads(r["settings"]),
        needed=r["needed"],
        signatures=tuple(json.loads(r["signers"])),
        part=Part(r["part"]),
        mark=r["mark"],
    )
    return Row(action, r["proposer"])


def happening_of(r: Mapping[str, Any]) -> Happening:
    """What happened, read back."""
    return Happening(
        r["action_id"], r["account_id"], r["campaign_id"], Rung(r["rung"]), r["event"], r["who"], r["role"],
        moment_of(r["at"]), r["reason"], r["audit"],
    )  # fmt: skip


def appeal_of(r: Mapping[str, Any]) -> Appeal:
    """An appeal as it was filed, read back."""
    return Appeal(r["case_id"], r["account_id"], moment_of(r["at"]), moment_of(r["deadline"]), r["text_hash"])


def text_of(moment: datetime) -> str:
    """A moment as text that sorts as moments do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def moment_of(text: str) -> datetime:
    """As ``text_of`` had it."""
    return datetime.fromisoformat(text)

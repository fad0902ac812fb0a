"""The life of an action: proposed, signed or refused, due, in force, expired, undone, replaced; and appeals against it.

The rule that keeps it right: every change is written to the audit first, in ``_carry_out`` and nowhere else; what each comes to,
in words and in rows, is in ``changes``. If the audit cannot be written, its error is passed on and everything stands as it stood.
(The other way about, an entry may tell of a change that a crash then kept from happening.) An action holds only while it is in
force *and* the clock is within its times, so that nothing outlives its end because nobody came to end it. What happened to an
action is only ever added to; the tables refuse the rest.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, runtime_checkable
from uuid import uuid4

from stillwatch import changes
from stillwatch.changes import (
    LONGEST_REASON,
    OVERTURNED,
    UPHELD,
    Appeal,
    Doing,
    Happening,
    Row,
    Step,
    appeal_of,
    happening_of,
    moment_of,
    row_of,
    text_of,
)
from stillwatch.entries import Deed
from stillwatch.errors import Terminal, UsageError
from stillwatch.responders import ladder
from stillwatch.statements import PERSON, Statement, Wording, statement_of
from stillwatch.store.state import State
from stillwatch.types import Action, InForce, Part, Rung, Standing

__all__ = [
    "ANSWERED_WITHIN", "ENDED", "LIVING", "LONGEST_REASON", "OVERTURNED", "UPHELD", "Actions", "Appeal", "Audit", "Happening",
    "act_of_person",
]  # fmt: skip

RULE, SYSTEM, APPROVER, REVIEWER, ACCOUNT = "rule", "system", "approver", "reviewer", "account"
"""Roles under which things are done."""

ENDED = (Standing.EXPIRED, Standing.UNDONE, Standing.REFUSED, Standing.REPLACED)
LIVING = tuple(s for s in Standing if s not in ENDED)

AT_ONCE = timedelta(hours=24)
"""Suspensions that one person alone lets through within this time count as done at once."""

ANSWERED_WITHIN = timedelta(days=14)
"""How soon an appeal is to be decided where no deadline is given."""


class Audit(Protocol):
    """Where deeds are written before they are done; what ``append`` has returned from is on disk, anything else raises."""

    def append(self, event: str, who: str, role: str, subject: str, facts: Mapping[str, Any]) -> int:
        """The number of the entry."""
        ...


@runtime_checkable
class WholesaleAudit(Audit, Protocol):
    """An audit that writes many entries in one go, all or none, as ``audit.Audit`` does."""

    def append_all(self, deeds: Sequence[Deed]) -> Sequence[int]:
        """Their numbers."""
        ...


class Actions:
    """All actions in a state. One ``State`` belongs to one thread, and so does this; several processes may each have one.

    Without an ``audit`` it is for reading alone: whatever would change something is Terminal. ``bulk_suspend`` is a number of
    accounts, or what tells it: a policy may change while actions live.
    """

    def __init__(
        self,
        state: State,
        audit: Audit | None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        bulk_suspend: int | Callable[[], int] = 20,
    ) -> None:
        self._state, self._audit, self._clock = state, audit, clock
        self._bulk = bulk_suspend if callable(bulk_suspend) else lambda: bulk_suspend

    # Proposing

    def propose(self, actions: Iterable[Action], who: str = "policy", role: str = RULE) -> list[Action]:
        """Take up proposals; the new ones, as they stand now. A key that is known already is left as it is.

        One with standing UNDONE undoes the living action of that id. Restricting and suspending always wait for a person,
        suspending more accounts than ``bulk_suspend`` at once for two. Without ``role`` ``rule`` a person proposes: what is
        above observe then waits for somebody else's signature, and the action's ``rule`` must be ``person``.
        """
        doing = Doing(who, role, self._clock())
        given = list(actions)
        _check_proposals(given, role)
        with self._state.transaction():
            known = self._known_keys(given)
            first: dict[str, Action] = {}
            for a in given:
                if a.standing is not Standing.UNDONE and a.key not in known:
                    first.setdefault(a.key, a)
            fresh = list(first.values())
            new = [_asking(a, least) for a, least in zip(fresh, self._least(fresh, role))]
            undone = self._rows("action_id", [a.action_id for a in given if a.standing is Standing.UNDONE])
            reasons = {a.action_id: a.reason for a in given}
            steps = [changes.proposed(a, doing) for a in new]
            for row in (r for r in undone if r.action.standing in LIVING):
                steps.append(changes.moved(row, Standing.UNDONE, replace(doing, reason=reasons[row.action.action_id])))
            self._carry_out(steps)
        return new

    def _known_keys(self, actions: Sequence[Action]) -> set[str]:
        return {r.action.key for r in self._rows("key", [a.key for a in actions])}

    def _least(self, actions: Sequence[Action], role: str) -> list[int]:
        """How many must sign each of these at least, whatever the proposal says."""
        suspensions, bulk = self._suspensions(actions), self._bulk()
        return [
            2
            if a.rung is Rung.SUSPEND and suspensions[a.campaign_id] > bulk
            else int((role != RULE and a.rung is not Rung.OBSERVE) or a.rung.height > Rung.VERIFY.height)
            for a in actions
        ]

    def _suspensions(self, proposed: Sequence[Action]) -> Counter[str]:
        """By campaign, suspensions that are proposed now, wait, or are in force."""
        mine = Counter(a.campaign_id for a in proposed if a.rung is Rung.SUSPEND and a.standing is not Standing.SHADOW)
        held = self._rows(
            "campaign_id", list(mine), "AND rung = 'suspend' AND standing IN ('pending', 'due', 'in_force')"
        )
        return mine + Counter(r.action.campaign_id for r in held)

    # Signing

    def sign(self, action_ids: Iterable[str], who: str, role: str = APPROVER) -> list[Action]:
        """Sign pending actions, all or none; they are returned as they stand then, due where that was enough.

        Who has signed one already changes nothing. Whoever proposed an action is not enough alone. Suspensions beyond
        ``bulk_suspend`` that one person would let through alone within a day come to need a second one. UsageError where
        an action is unknown, no longer pending, or has run out.
        """
        ids, doing = list(dict.fromkeys(action_ids)), Doing(who, role, self._clock())
        with self._state.transaction():
            rows = self._wanted(ids)
            open_ = [r for r in rows if not (who in r.action.signatures and r.action.standing in LIVING)]
            _all_pending(open_, doing.at)
            bulk = self._is_bulk(open_, who, doing.at)
            self._carry_out(list(_signings(open_, doing, bulk)))
            return [r.action for r in self._wanted(ids)]

    def _is_bulk(self, rows: Sequence[Row], who: str, at: datetime) -> bool:
        alone = self._state.execute(
            "SELECT count(*) AS n FROM action_events e JOIN actions a USING (action_id) "
            "WHERE e.event = 'signed' AND e.who = ? AND e.at > ? AND a.rung = 'suspend' AND a.needed < 2",
            who,
            text_of(at - AT_ONCE),
        )
        lone = sum(r.action.rung is Rung.SUSPEND and r.action.needed < 2 for r in rows)
        return int(alone[0]["n"]) + lone > self._bulk()

    def refuse(self, action_ids: Iterable[str], who: str, reason: str, role: str = APPROVER) -> list[Action]:
        """Turn pending actions down, all or none; UsageError where one is unknown or no longer pending."""
        ids, doing = list(dict.fromkeys(action_ids)), Doing(who, role, self._clock(), reason)
        with self._state.transaction():
            rows = self._wanted(ids)
            _all_pending(rows, None)
            self._carry_out([changes.moved(r, Standing.REFUSED, doing) for r in rows])
            return [r.action for r in self._wanted(ids)]

    # Beginning and ending

    def start_due(self, now: datetime) -> list[Action]:
        """Put in force what is due and has begun; an action of the same rule on the same account, or part of it, is replaced
        by it. What was to begin at once does, also by a clock that has gone back since."""
        doing = Doing(SYSTEM, SYSTEM, now)
        with self._state.transaction():
            due = self._rows(
                "standing", [Standing.DUE.value], "AND (starts_at <= ? OR starts_at <= proposed_at) AND expires_at > ?",
                text_of(now), text_of(now),
            )  # fmt: skip
            last = {_place(r.action): r for r in due}
            older = self._rows("account_id", [r.action.account_id for r in due], "AND standing = 'in_force'")
            replaced = [r for r in (*older, *due) if (newer := last.get(_place(r.action))) is not None
                        and newer is not r]  # fmt: skip
            self._carry_out([changes.moved(r, Standing.REPLACED, doing) for r in replaced])
            self._carry_out([changes.moved(r, Standing.IN_FORCE, doing) for r in last.values()])
            return [replace(r.action, standing=Standing.IN_FORCE) for r in last.values()]

    def expire(self, now: datetime) -> list[Action]:
        """End what has run out, whether it was in force or not."""
        doing = Doing(SYSTEM, SYSTEM, now)
        with self._state.transaction():
            rows = self._rows("standing", [s.value for s in LIVING], "AND expires_at <= ?", text_of(now))
            self._carry_out([changes.moved(r, Standing.EXPIRED, doing) for r in rows])
            return [replace(r.action, standing=Standing.EXPIRED) for r in rows]

    def undo(self, what: str | Iterable[str], who: str, reason: str, role: str = APPROVER) -> list[Action]:
        """Undo actions by their ids, or all living ones of a campaign by its id (a text); those that were undone.

        What has ended already is left as it is; UsageError for an unknown id. Nothing of them holds from here on.
        """
        doing = Doing(who, role, self._clock(), reason)
        with self._state.transaction():
            rows = self._rows("campaign_id", [what]) if isinstance(what, str) else self._wanted(list(what))
            living = [r for r in rows if r.action.standing in LIVING]
            self._carry_out([changes.moved(r, Standing.UNDONE, doing) for r in living])
            return [replace(r.action, standing=Standing.UNDONE) for r in living]

    # Appeals

    def appeal(
        self, account_id: str, text_hash: str = "", deadline: datetime | None = None, who: str | None = None
    ) -> str:
        """File an appeal of an account; the case. One that is open already is that case. UsageError if nothing was done to it.

        ``deadline`` is when it must be decided, 14 days from now if not given; ``text_hash`` names what the account wrote.
        """
        doing = Doing(who or account_id, ACCOUNT if who is None else APPROVER, self._clock())
        with self._state.transaction():
            if found := [a for a in self.appeals() if a.account_id == account_id and not a.outcome]:
                return found[0].case_id
            rows = self._rows("account_id", [account_id])
            if not any(r.action.rung is not Rung.OBSERVE and r.action.standing is not Standing.SHADOW for r in rows):
                raise UsageError(f"nothing was ever done to account {account_id!r} that it could appeal against")
            appeal = Appeal(
                f"AP-{uuid4().hex[:16]}", account_id, doing.at, deadline or doing.at + ANSWERED_WITHIN, text_hash
            )
            self._carry_out([changes.filed(appeal, doing)])
        return appeal.case_id

    def decide_appeal(self, case_id: str, who: str, outcome: str, reason: str, role: str = REVIEWER) -> Appeal:
        """Uphold what was done, or overturn it: then all that lives on the account is undone, and the account is judged negative.

        UsageError for an unknown or decided case, and where the reviewer had a part in what is appealed against.
        """
        doing = Doing(who, role, self._clock(), reason)
        if outcome not in (UPHELD, OVERTURNED):
            raise UsageError(f"an appeal is {UPHELD} or {OVERTURNED}, not {outcome!r}")
        with self._state.transaction():
            appeal = self._open_appeal(case_id)
            rows = self._rows("account_id", [appeal.account_id])
            if any(who in r.action.signatures or r.proposer == who for r in rows):
                raise UsageError(
                    f"{who} had a part in what {case_id} appeals against", hint="somebody else must decide it"
                )
            decided = replace(appeal, outcome=outcome, reviewer=who, decided_at=doing.at, reason=reason)
            self._carry_out([changes.decided(decided, doing)])
            if outcome == OVERTURNED:
                why = replace(doing, reason=f"appeal {case_id} overturned")
                living = [r for r in rows if r.action.standing in LIVING]
                self._carry_out([changes.moved(r, Standing.UNDONE, why) for r in living])
        return decided

    def appeals(self, now: datetime | None = None) -> list[Appeal]:
        """All appeals, the one due first first; with ``now`` only open ones whose deadline has passed."""
        rows = self._state.execute("SELECT * FROM appeals ORDER BY number")
        found = {r["case_id"]: appeal_of(r) for r in rows if r["event"] == "filed"}
        for r in (r for r in rows if r["event"] != "filed"):
            found[r["case_id"]] = replace(
                found[r["case_id"]],
                outcome=r["event"],
                reviewer=r["who"],
                decided_at=moment_of(r["at"]),
                reason=r["reason"],
            )
        late = (a for a in found.values() if now is None or (not a.outcome and a.deadline <= now))
        return sorted(late, key=lambda a: (a.deadline, a.case_id))

    def _open_appeal(self, case_id: str) -> Appeal:
        found = next((a for a in self.appeals() if a.case_id == case_id), None)
        if found is None:
            raise UsageError(f"no appeal {case_id!r}")
        if found.outcome:
            raise UsageError(f"appeal {case_id} was {found.outcome} by {found.reviewer}", hint="file another one")
        return found

    # Asking

    def in_force(self, now: datetime) -> dict[str, InForce]:
        """What holds for each account as a whole now: see ``holding``."""
        return self.holding(now)[Part.ACCOUNT]

    def holding(self, now: datetime) -> dict[Part, dict[str, InForce]]:
        """What holds now, by account, and by the marks of keys and of end users: the strictest rung, with the settings of milder
        ones below its own. Where a person has decided on one of these, that alone counts for it.
        """
        # It began when it was put in force: a clock that has gone back since does not take it away.
        rows = self._rows("standing", [Standing.IN_FORCE.value], "AND expires_at > ?", text_of(now))
        return {part: _strictest([r.action for r in rows if r.action.part is part]) for part in Part}

    def shadows(self, now: datetime) -> dict[str, InForce]:
        """What would hold for each account as a whole if what is in shadow were not."""
        rows = self._rows(
            "standing", [Standing.SHADOW.value], "AND part = 'account' AND starts_at <= ? AND expires_at > ?", text_of(now),
            text_of(now),
        )  # fmt: skip
        return _strictest([r.action for r in rows])

    def newest(self) -> int:
        """The number of the last thing that happened to any action, 0 before the first: while it stands, only the clock
        changes what ``holding`` and ``shadows`` say, and that not before ``turns_at``."""
        return int(self._state.execute("SELECT coalesce(max(number), 0) AS n FROM action_events")[0]["n"])

    def turns_at(self, now: datetime) -> datetime | None:
        """When the clock alone next changes what holds or would hold; None where it never does."""
        told = text_of(now)
        rows = self._state.execute(
            "SELECT min(at) AS at FROM ("
            "SELECT min(expires_at) AS at FROM actions WHERE standing IN ('in_force', 'shadow') AND expires_at > ? UNION ALL "
            "SELECT min(starts_at) AS at FROM actions WHERE standing = 'shadow' AND starts_at > ?) AS turns",
            told, told,
        )  # fmt: skip
        return moment_of(rows[0]["at"]) if rows[0]["at"] else None

    def counts(self) -> dict[Standing, int]:
        """How many actions live, by standing; standings without one are not named."""
        rows = self._state.execute("SELECT standing, count(*) AS n FROM actions GROUP BY standing")
        found = {Standing(r["standing"]): int(r["n"]) for r in rows}
        return {standing: n for standing, n in found.items() if standing in LIVING}

    def known(self, now: datetime) -> tuple[Action, ...]:
        """Every action on an account as a whole that has not run out, whatever its standing, oldest first: what
        ``policy.decide`` is to know. What a person did to one key says nothing of the rest."""
        return tuple(r.action for r in self._query("part = 'account' AND expires_at > ?", [text_of(now)]))

    def standing(self, *standings: Standing) -> list[Action]:
        """Actions with one of these standings, oldest first; all living ones if none is given."""
        return [r.action for r in self._rows("standing", [s.value for s in standings or LIVING])]

    def find(self, action_ids: Iterable[str]) -> list[Action]:
        """Actions by their ids, oldest first; ids that there are none of are passed over."""
        return [r.action for r in self._rows("action_id", list(action_ids))]

    def get(self, action_id: str) -> Action:
        """One action; UsageError if there is none of that id."""
        return self._wanted([action_id])[0].action

    def statement(self, action_id: str, wording: Wording | None = None) -> Statement:
        """What the account is told about an action; ``wording`` is the policy's."""
        return statement_of(self.get(action_id), wording or Wording())

    def history(self, subject: str) -> list[Happening]:
        """All that happened to the actions on an account, or of a campaign, oldest first."""
        rows = self._state.execute(
            "SELECT e.*, a.account_id, a.campaign_id, a.rung FROM action_events e JOIN actions a USING (action_id) "
            "WHERE a.account_id = ? OR a.campaign_id = ? ORDER BY e.number",
            subject,
            subject,
        )
        return [happening_of(r) for r in rows]

    # The one place where anything changes

    def _carry_out(self, steps: Sequence[Step]) -> None:
        """Write all steps to the audit, then do them. Within a transaction: if either fails, nothing has happened."""
        if not steps:
            return
        with self._state.transaction():
            for step, number in zip(steps, self._written([s.entry for s in steps]), strict=True):
                for sql, values in step.statements(number):
                    self._state.execute(sql, *values)

    def _written(self, entries: Sequence[Deed]) -> Sequence[int]:
        if self._audit is None:
            raise Terminal("these actions are for reading alone", hint="give them an audit to write to")
        if isinstance(self._audit, WholesaleAudit):
            return self._audit.append_all(entries)
        return [self._audit.append(e.event, e.who, e.role, e.subject, e.facts) for e in entries]

    # Rows

    def _wanted(self, action_ids: Sequence[str]) -> list[Row]:
        rows = {r.action.action_id: r for r in self._rows("action_id", action_ids)}
        if unknown := [i for i in action_ids if i not in rows]:
            raise UsageError(f"no such action: {', '.join(unknown)}")
        return [rows[i] for i in action_ids]

    def _rows(self, column: str, values: Sequence[str], more: str = "", *given: str) -> list[Row]:
        """Actions that have one of these values in a column of ours."""
        if not values:
            return []
        return self._query(
            f"a.{column} IN (SELECT value FROM json_each(CAST(? AS TEXT))) {more}", [json.dumps(list(values)), *given]
        )

    def _query(self, where: str, values: Sequence[str]) -> list[Row]:
        rows = self._state.execute(
            "SELECT a.*, (SELECT json_group_array(who) FROM (SELECT who FROM action_events e WHERE e.event = 'signed' "
            f"AND e.action_id = a.action_id ORDER BY e.number) AS s) AS signers FROM actions a WHERE {where} ORDER BY a.number",
            *values,
        )
        return [row_of(r) for r in rows]


def act_of_person(
    account_id: str,
    rung: Rung,
    reason: str,
    now: datetime,
    lasts: timedelta,
    *,
    campaign_id: str = "",
    settings: Mapping[str, Any] | None = None,
    part: Part = Part.ACCOUNT,
    mark: str = "",
) -> Action:
    """The action that a person proposes for an account, or a part of it; ``reason`` is what the account is told."""
    return Action(
        action_id=f"A-{uuid4().hex[:16]}",
        key=f"{PERSON}|{account_id}|{rung}|{text_of(now)}{'|' if mark else ''}{mark}",
        account_id=account_id,
        campaign_id=campaign_id,
        rung=rung,
        rule=PERSON,
        reason=reason,
        standing=Standing.DUE if rung is Rung.OBSERVE else Standing.PENDING,
        proposed_at=now,
        starts_at=now,
        expires_at=now + lasts,
        settings=ladder()[rung.height].filled(settings or {}),
        needed=int(rung is not Rung.OBSERVE),
        part=part,
        mark=mark,
    )


def _place(action: Action) -> tuple[str, Part, str, str]:
    """Where an action stands: another one there replaces it."""
    return action.account_id, action.part, action.mark, action.rule


def _check_proposals(actions: Sequence[Action], role: str) -> None:
    may = (Standing.SHADOW, Standing.PENDING, Standing.DUE, Standing.UNDONE)
    for a in actions:
        if a.standing not in may:
            raise UsageError(f"action {a.action_id}: {a.standing} is no way to begin", hint=f"one of {', '.join(may)}")
        if (a.rule == PERSON) != (role != RULE) and a.standing is not Standing.UNDONE:
            raise UsageError(
                f"action {a.action_id}: its rule is {a.rule!r}, proposed as {role!r}",
                hint="a person proposes actions of the rule 'person', a rule those of its own",
            )
        if faults := ladder()[a.rung.height].faults(a.settings):
            raise UsageError(f"action {a.action_id}: {'; '.join(faults)}", hint="see docs/reference.md, Responders")


def _asking(action: Action, least: int) -> Action:
    """The action with at least so many signatures needed, and standing as that asks; none are taken from the proposal."""
    needed = max(action.needed, least)
    standing = Standing.PENDING if needed else Standing.DUE
    return replace(
        action,
        needed=needed,
        signatures=(),
        standing=action.standing if action.standing is Standing.SHADOW else standing,
    )


def _all_pending(rows: Sequence[Row], at: datetime | None) -> None:
    """UsageError naming all that are not pending, or have run out by ``at``."""
    faults = [f"{r.action.action_id} is {r.action.standing}" for r in rows if r.action.standing is not Standing.PENDING]
    faults += [f"{r.action.action_id} has run out" for r in rows if at is not None and r.action.expires_at <= at]
    if faults:
        raise UsageError(f"only pending actions wait for a person: {'; '.join(faults[:20])}")


def _signings(rows: Sequence[Row], doing: Doing, is_bulk: bool) -> Iterator[Step]:
    """Signatures, second ones asked for where they make a bulk of suspensions, and what is due by them."""
    for row in rows:
        raised = is_bulk and row.action.rung is Rung.SUSPEND and row.action.needed < 2
        needed = 2 if raised else row.action.needed
        if raised:
            yield changes.raised(row, replace(doing, reason="many suspensions at once"))
        yield changes.happened(row, "signed", doing)
        signers = {*row.action.signatures, doing.who}
        if len(signers) >= needed and signers != {row.proposer}:
            yield changes.moved(row, Standing.DUE, doing)


def _strictest(actions: Iterable[Action]) -> dict[str, InForce]:
    """What holds, by the account, or by the mark of a part of one."""
    found: dict[str, list[Action]] = {}
    for action in actions:
        found.setdefault(action.mark or action.account_id, []).append(action)
    return {name: _holding(on_it) for name, on_it in found.items()}


def _holding(actions: Sequence[Action]) -> InForce:
    """What holds of several actions in force on one account."""
    counting = [a for a in actions if a.rule == PERSON] or actions
    climbing = sorted(counting, key=lambda a: (a.rung.height, a.expires_at, a.action_id))
    top = climbing[-1]
    settings = {name: value for a in climbing for name, value in a.settings.items()}
    return InForce(
        top.account_id, top.rung, top.action_id, top.campaign_id, top.expires_at, settings, top.part, top.mark
    )

"""Findings and what is in force to proposed actions: pure, without a clock, and the same for the same seed.

Order of rank: a person's judgement or action, then what the newest findings say, then the rules. Whatever begins without a
person stays below the caps; beyond them the same is proposed for signature.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from stillwatch.policy.nouns import CAPABILITY_SHARE, Escalation, Newest, Policy, Rule, Suspect, Told, Traffic
from stillwatch.responders import ladder
from stillwatch.statements import PERSON
from stillwatch.store.state import Judgement
from stillwatch.types import Action, Rung, Standing

LIVING = (Standing.SHADOW, Standing.PENDING, Standing.DUE, Standing.IN_FORCE)
ESCALATION, HOLDOUT = "escalation", "holdout"
"""Names of what is proposed beside the rules; no rule may have one of them, nor ``person``."""

HOUR = timedelta(hours=1)


def decide(
    policy: Policy,
    campaigns: Newest,
    in_force: Sequence[Action],
    judgements: Mapping[str, Judgement],
    traffic: Traffic,
    now: datetime,
    seed: bytes,
) -> tuple[Action, ...]:
    """What is proposed now: new actions (shadow, pending or due), and actions of ``in_force`` to be undone (standing UNDONE).

    ``in_force`` holds every action that has not run out, whatever its standing: one refused is not proposed again while its
    period lasts. Each proposal has a key by campaign, account, rule and period, so that proposing it twice is harmless.
    """
    known = _Known.of(in_force, judgements, now)
    undone = tuple(_undoings(campaigns, known, in_force))
    gone = {a.action_id for a in undone}
    living = [a for a in in_force if a.standing in LIVING and a.action_id not in gone]
    proposed = [a for told in campaigns.campaigns for a in _of_campaign(policy, told, known, living, now, seed)]
    return (*undone, *_signed(policy, _once(proposed), living, campaigns, traffic))


@dataclass(frozen=True, slots=True)
class _Known:
    """What is looked up for each account: keys in use, what lives on it, what people said of it."""

    keys: frozenset[str]
    running: frozenset[tuple[str, str, bool]]
    """(account, rule, shadow) of what lives."""
    by_person: frozenset[str]
    """Accounts under a person's living action."""
    judgements: Mapping[str, Judgement]
    since: Mapping[str, datetime] = field(default_factory=dict)
    """By campaign, when something was first proposed for it."""

    @classmethod
    def of(cls, actions: Sequence[Action], judgements: Mapping[str, Judgement], now: datetime) -> _Known:
        living = [a for a in actions if a.standing in LIVING]
        since: dict[str, datetime] = {}
        for a in actions:
            since[a.campaign_id] = min(a.proposed_at, since.get(a.campaign_id, a.proposed_at))
        return cls(
            frozenset(a.key for a in actions),
            frozenset((a.account_id, a.rule, a.standing is Standing.SHADOW) for a in living),
            frozenset(a.account_id for a in living if a.rule == PERSON),
            judgements,
            since,
        )

    def verdict(self, campaign_id: str, account_id: str) -> Judgement | None:
        """The judgement that holds for an account: its own, else its campaign's."""
        return self.judgements.get(account_id) or self.judgements.get(campaign_id)

    def is_positive(self, subject: str) -> bool:
        held = self.judgements.get(subject)
        return held is not None and held.verdict == "positive"


def _undoings(newest: Newest, known: _Known, actions: Iterable[Action]) -> Iterator[Action]:
    """Living actions that a judgement or the newest findings no longer bear, with the reason."""
    home = {s.account_id: c.campaign_id for c in newest.campaigns for s in c.accounts}
    for action in actions:
        if action.standing in LIVING and (reason := _unborne(action, home, newest, known)):
            yield dataclasses.replace(action, standing=Standing.UNDONE, reason=reason)


def _unborne(action: Action, home: Mapping[str, str], newest: Newest, known: _Known) -> str:
    campaign_id = home.get(action.account_id, action.campaign_id)
    held = known.verdict(campaign_id, action.account_id) or known.judgements.get(action.campaign_id)
    if action.rule == PERSON:
        newer = held is not None and held.verdict == "negative" and held.at > action.proposed_at
        return "a later judgement: negative" if newer else ""
    if held is not None and held.verdict == "negative":
        return "judged negative by a person"
    if held is not None and held.verdict == "unsure" and action.rung is not Rung.OBSERVE:
        return "judged unsure by a person: observed only"
    cleared = action.account_id in newest.elsewhere and not known.is_positive(action.account_id)
    return "cleared by the newest findings" if cleared else ""


def _of_campaign(
    policy: Policy, told: Told, known: _Known, living: Sequence[Action], now: datetime, seed: bytes
) -> Iterator[Action]:
    """What rules and the ladder want for the accounts of one campaign, before caps."""
    since = told.detected_at or known.since.get(told.campaign_id, now)
    case = _Case(policy, told, known, now, since, seed)
    steps = case.steps(living)
    for suspect in told.accounts:
        held = known.verdict(told.campaign_id, suspect.account_id)
        if suspect.account_id in known.by_person or (held is not None and held.verdict == "negative"):
            continue
        unsure = held is not None and held.verdict == "unsure"
        for rule in policy.rules:
            if case.holds(rule, suspect) and not (unsure and rule.rung is not Rung.OBSERVE):
                yield from case.proposal(rule, suspect)
        if suspect.account_id in steps and not unsure:
            yield from case.proposal(steps[suspect.account_id], suspect)


@dataclass(frozen=True, slots=True)
class _Case:
    """One campaign at one moment. ``since`` is when it was first told."""

    policy: Policy
    told: Told
    known: _Known
    now: datetime
    since: datetime
    seed: bytes

    def holds(self, rule: Rule, suspect: Suspect) -> bool:
        """Whether a rule's conditions hold; a person's positive judgement counts as certainty."""
        when, told = rule.when, self.told
        confidence = 1.0 if self.known.is_positive(told.campaign_id) else told.confidence
        risk = 1.0 if self.known.is_positive(suspect.account_id) else suspect.risk
        return (
            confidence >= when.confidence
            and risk >= when.risk
            and len(told.accounts) >= when.accounts
            and self.now - self.since >= timedelta(days=when.days)
            and (
                not when.capabilities or any(told.capabilities.get(c, 0) >= CAPABILITY_SHARE for c in when.capabilities)
            )
        )

    def steps(self, living: Iterable[Action]) -> dict[str, Rule]:
        """The next rung of the ladder by account: for those on the campaign's highest, if it goes on for all that; and the
        rung it has been escalated to, for those that came later and are on a lower one."""
        plan = self.policy.escalation
        mine = [a for a in living if a.campaign_id == self.told.campaign_id and a.standing is Standing.IN_FORCE]
        if plan is None or not (on := _on_ladder(plan.ladder, mine)):
            return {}
        reached = max((plan.ladder.index(a.rung) for a in mine if a.rule == ESCALATION), default=0)
        found = {account_id: reached for account_id, place in on.items() if place < reached}
        top = max(on.values())
        enough = plan.escalate_after + min(a.starts_at for a in mine if a.rung is plan.ladder[top])
        if top + 1 < len(plan.ladder) and self.now >= enough and self.told.last_seen >= enough:
            found |= {account_id: top + 1 for account_id, place in on.items() if place == top}
        return {account_id: _step(plan, plan.ladder[place]) for account_id, place in found.items()}

    def proposal(self, rule: Rule, suspect: Suspect) -> Iterator[Action]:
        """The action a rule gives an account: none if it has it already, to be observed if it is held out."""
        if rule.rung in self.policy.holdout.rungs and not self.known.is_positive(suspect.account_id):
            text = f"{HOLDOUT}|{self.told.campaign_id}|{suspect.account_id}"
            if chance(self.seed, text) < self.policy.holdout.share:
                rule = dataclasses.replace(rule, name=HOLDOUT, rung=Rung.OBSERVE, settings={}, signatures=0)
        period = max((self.now - self.since) // rule.lasts, 0)
        if period and self.told.last_seen < self.now - rule.lasts:
            return
        name = f"{rule.name}:{rule.rung}" if rule.name == ESCALATION else rule.name
        parts = (self.told.campaign_id, suspect.account_id, name, str(period), *(["shadow"] if rule.shadow else []))
        key = "|".join(p.replace("|", "%7C") for p in parts)
        if key in self.known.keys or (suspect.account_id, rule.name, rule.shadow) in self._running(rule):
            return
        starts = max(self.now, self.since + rule.after + rule.jitter * chance(self.seed, f"{parts[0]}|{rule.name}"))
        yield Action(
            action_id=f"A-{hmac.digest(self.seed, f'id|{key}'.encode(), hashlib.sha256).hex()[:16]}",
            key=key,
            account_id=suspect.account_id,
            campaign_id=self.told.campaign_id,
            rung=rule.rung,
            rule=rule.name,
            reason=self.policy.statement.text,
            standing=Standing.SHADOW if rule.shadow else Standing.PENDING if rule.signatures else Standing.DUE,
            proposed_at=self.now,
            starts_at=starts,
            expires_at=starts + rule.lasts,
            settings=_settings(self.policy, rule),
            needed=rule.signatures,
        )

    def _running(self, rule: Rule) -> frozenset[tuple[str, str, bool]]:
        # A step up the ladder stands beside the one below it; its key alone keeps it single.
        return frozenset() if rule.name == ESCALATION else self.known.running


def _on_ladder(ladder: Sequence[Rung], actions: Iterable[Action]) -> dict[str, int]:
    """The highest place on the ladder that each account is on."""
    on: dict[str, int] = {}
    for a in actions:
        if a.rung in ladder:
            on[a.account_id] = max(ladder.index(a.rung), on.get(a.account_id, 0))
    return on


def _step(plan: Escalation, rung: Rung) -> Rule:
    return Rule(ESCALATION, rung, plan.lasts, settings=plan.settings.get(rung, {}), signatures=plan.signatures)


def _settings(policy: Policy, rule: Rule) -> dict[str, Any]:
    words = {"appeal_url": policy.statement.appeal_url, "case_url": policy.statement.case_url}
    told = {name: url for name, url in words.items() if url and rule.rung.height >= Rung.VERIFY.height}
    return {**told, **ladder()[rule.rung.height].filled(rule.settings)}


def chance(seed: bytes, text: str) -> float:
    """A number in [0, 1) that this text always gets under this seed, and nobody without the seed can tell."""
    return int.from_bytes(hmac.digest(seed, text.encode(), hashlib.sha256)[:7]) / 2**56


def _once(proposed: Iterable[Action]) -> list[Action]:
    """The first of each key; a held-out account may match several rules."""
    return list({a.key: a for a in reversed(list(proposed))}.values())[::-1]


def _signed(
    policy: Policy, proposed: Sequence[Action], living: Sequence[Action], newest: Newest, traffic: Traffic
) -> Iterator[Action]:
    """The proposals with as many signatures as organisations, bulk and caps ask for."""
    shares = shares_of(newest, traffic)
    caps = _Hours(policy, shares, living)
    suspended = _suspended([*proposed, *living])
    for action in sorted(proposed, key=lambda a: (a.starts_at, a.rung.height)):
        needed = action.needed
        if action.rung is not Rung.OBSERVE and policy.organisations.asks(traffic.organisations.get(action.account_id)):
            needed = max(needed, 1)
        if action.rung is Rung.SUSPEND:
            needed = max(needed, 2 if suspended.get(action.campaign_id, 0) > policy.bulk.suspend else 1)
        if not needed and action.standing is not Standing.SHADOW and action.rung is not Rung.OBSERVE:
            needed = 0 if caps.admit(action) else 1
        standing = Standing.PENDING if needed and action.standing is Standing.DUE else action.standing
        yield dataclasses.replace(action, needed=needed, standing=standing)


def _suspended(actions: Iterable[Action]) -> dict[str, int]:
    """Suspensions by campaign, proposed or living, shadows apart."""
    count: dict[str, int] = {}
    for a in actions:
        if a.rung is Rung.SUSPEND and a.standing is not Standing.SHADOW:
            count[a.campaign_id] = count.get(a.campaign_id, 0) + 1
    return count


def shares_of(newest: Newest, traffic: Traffic) -> dict[str, float]:
    """Share of the log's exchanges that each suspect makes; empty where the total is unknown."""
    total = traffic.total or newest.exchanges
    if not total:
        return {}
    return {
        s.account_id: traffic.exchanges.get(s.account_id, c.exchanges / len(c.accounts)) / total
        for c in newest.campaigns
        for s in c.accounts
    }


class _Hours:
    """What begins without a person, by the moment it begins. No hour, wherever it starts, holds more than the caps."""

    def __init__(self, policy: Policy, shares: Mapping[str, float], living: Iterable[Action]) -> None:
        self._caps, self._shares = policy.caps, shares
        mine = [a for a in living if not a.needed and a.standing is not Standing.SHADOW and a.rung is not Rung.OBSERVE]
        self._begun = sorted((a.starts_at, a.account_id) for a in mine if a.rule != PERSON)

    def admit(self, action: Action) -> bool:
        """Whether this one may begin without a person; it then counts."""
        at, account_id = action.starts_at, action.account_id
        low, high = bisect_right(self._begun, (at - HOUR, "\U0010ffff")), bisect_left(self._begun, (at + HOUR, ""))
        accounts = {a for _, a in self._begun[low:high]} | {account_id}
        if len(accounts) > self._caps.accounts_per_hour or not self._shares:
            return False
        if sum(self._shares.get(a, 0.0) for a in accounts) > self._caps.traffic_share_per_hour:
            return False
        insort(self._begun, (at, account_id))
        return True

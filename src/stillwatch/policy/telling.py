"""A policy in plain words, and whom it would hit, before anything is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rich import box
from rich.console import Console
from rich.table import Table

from stillwatch.policy.deciding import HOLDOUT, decide, shares_of
from stillwatch.policy.nouns import Newest, Policy, Rule, Traffic, When
from stillwatch.responders import ladder
from stillwatch.store.state import Judgement
from stillwatch.types import Action, Rung, Standing
from stillwatch.windows import length_text

Ties = Mapping[str, Mapping[str, str]]
"""By kind (payment, organisation, end user), the value each account holds."""


def explain(policy: Policy) -> list[str]:
    """What the policy does, a sentence each."""
    return [
        *(_rule(rule) for rule in policy.rules),
        *_escalation(policy),
        f"What begins without a person is at most {policy.caps.accounts_per_hour:,} accounts and "
        f"{policy.caps.traffic_share_per_hour:.1%} of the log's exchanges within any hour; beyond that a person signs.",
        f"Restricting and suspending always need a signature; to suspend more than {policy.bulk.suspend} accounts at once "
        "needs two people.",
        *_holdout(policy),
        _organisations(policy),
        "A person's judgement outranks every rule: negative undoes all that rules have done, unsure leaves observing alone.",
        "Accounts that the newest findings clear have their actions undone; every action ends by itself.",
        *policy.notes,
    ]


def _rule(rule: Rule) -> str:
    meaning = ladder()[rule.rung.height].meaning
    set_to = ", ".join(f"{k} = {v}" for k, v in rule.settings.items())
    signed = {0: "without a person", 1: "once a person has signed"}
    how = signed.get(rule.signatures, f"once {rule.signatures} people have signed")
    shadow = " It is in shadow: written down, never done." if rule.shadow else ""
    return (
        f"{rule.name}: {_when(rule.when)}, {_begins(rule)} {how} and for {length_text(rule.lasts)}: {rule.rung}"
        f"{f' ({set_to})' if set_to else ''}, that is, {meaning}.{shadow}"
    )


def _when(when: When) -> str:
    parts = [
        *([f"at least {when.confidence:.0%} certain"] if when.confidence else []),
        *([f"of {when.accounts} accounts or more"] if when.accounts else []),
        *([f"told {when.days:g} days ago or earlier"] if when.days else []),
        *([f"after {' or '.join(when.capabilities)}"] if when.capabilities else []),
    ]
    campaign = f"a campaign {', '.join(parts)}" if parts else "any campaign"
    return f"accounts of {campaign}" + (f", with a risk of {when.risk:g} or more" if when.risk else "")


def _begins(rule: Rule) -> str:
    if not rule.after and not rule.jitter:
        return "at once"
    if not rule.jitter:
        return f"{length_text(rule.after)} after it was told"
    late = rule.after + rule.jitter
    return (
        f"at some moment {_span(rule.after)} to {length_text(late)} after it was told, the same for all its accounts,"
    )


def _span(length: timedelta) -> str:
    return length_text(length) if length else "0h"


def _escalation(policy: Policy) -> Iterator[str]:
    if plan := policy.escalation:
        yield (
            f"If a campaign is still seen {length_text(plan.escalate_after)} after a rung began, its accounts on that rung "
            f"are proposed for the next of {', '.join(plan.ladder)}, for {length_text(plan.lasts)}, "
            f"with {plan.signatures} signature{'' if plan.signatures == 1 else 's'}."
        )


def _holdout(policy: Policy) -> Iterator[str]:
    if policy.holdout.share and policy.holdout.rungs:
        yield (
            f"{policy.holdout.share:.0%} of a campaign's accounts, chosen by a keyed hash, are only observed instead of: "
            f"{', '.join(policy.holdout.rungs)}."
        )


def _organisations(policy: Policy) -> str:
    whose = "that declare an organisation" if policy.organisations.ask == "declared" else "of known organisations"
    return f"For accounts {whose}, a person signs whatever is above observe."


@dataclass(frozen=True, slots=True)
class Preview:
    """What one rule would begin now: accounts by how they begin, share of the log's exchanges, and who else would be hit.

    ``others`` counts, by kind of value, accounts outside that share one with those hit. ``share`` is None where the log's
    size is unknown.
    """

    rule: str
    rung: Rung
    accounts: int
    without_person: int
    waiting: int
    in_two_signatures: int
    shadow: int
    held_out: int
    share: float | None
    begins: tuple[datetime, datetime] | None
    """When the first and the last of them begins."""
    others: Mapping[str, int] = field(default_factory=dict)


def preview(
    policy: Policy,
    campaigns: Newest,
    in_force: Sequence[Action],
    judgements: Mapping[str, Judgement],
    traffic: Traffic,
    now: datetime,
    seed: bytes,
    ties: Ties | None = None,
) -> list[Preview]:
    """A row for each rule, those that hit nobody too, then escalation, held out and what would be undone."""
    proposed = decide(policy, campaigns, in_force, judgements, traffic, now, seed)
    shares = shares_of(campaigns, traffic)
    names = {rule.name: rule.rung for rule in policy.rules}
    rows = [_row(n, r, [a for a in proposed if _is_of(a, n)], shares, ties or {}) for n, r in names.items()]
    for action in proposed:
        name = "undone" if action.standing is Standing.UNDONE else action.rule
        if name not in names:
            names[name] = action.rung
            same = [a for a in proposed if (a.standing is Standing.UNDONE if name == "undone" else _is_of(a, name))]
            rows.append(_row(name, max((a.rung for a in same), key=lambda r: r.height), same, shares, ties or {}))
    return rows


def _is_of(action: Action, rule: str) -> bool:
    return action.rule == rule and action.standing is not Standing.UNDONE


def _row(name: str, rung: Rung, actions: list[Action], shares: Mapping[str, float], ties: Ties) -> Preview:
    hit = {a.account_id for a in actions}
    starts = sorted(a.starts_at for a in actions)
    return Preview(
        rule=name,
        rung=rung,
        accounts=len(hit),
        without_person=sum(a.standing is Standing.DUE for a in actions),
        waiting=sum(a.standing is Standing.PENDING for a in actions),
        in_two_signatures=sum(a.standing is Standing.PENDING and a.needed > 1 for a in actions),
        shadow=sum(a.standing is Standing.SHADOW for a in actions),
        held_out=len(hit) if name == HOLDOUT else 0,
        share=None if not shares else sum(shares.get(a, 0.0) for a in hit),
        begins=(starts[0], starts[-1]) if starts else None,
        others={kind: _others(hit, held) for kind, held in ties.items()},
    )


def _others(hit: set[str], held: Mapping[str, str]) -> int:
    values = {held[a] for a in hit if held.get(a)}
    return sum(value in values and account_id not in hit for account_id, value in held.items())


def show(rows: Sequence[Preview], console: Console) -> None:
    """A preview for a person."""
    table = Table(
        "rule", "rung", title="what would begin now", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    kinds = list(dict.fromkeys(kind for row in rows for kind in row.others))
    for name in ("accounts", "alone", "to sign", "shadow", "traffic", *kinds):
        table.add_column(name, justify="right", no_wrap=True)
    for r in rows:
        share = "?" if r.share is None else f"{r.share:.2%}"
        signed = f"{r.waiting:,}" + (f" ({r.in_two_signatures:,} twice)" if r.in_two_signatures else "")
        others = [f"{r.others.get(k, 0):,}" for k in kinds]
        table.add_row(
            r.rule, r.rung, f"{r.accounts:,}", f"{r.without_person:,}", signed, f"{r.shadow:,}", share, *others
        )
    console.print(table)
    for r in (r for r in rows if r.begins):
        first, last = (f"{at:%Y-%m-%d %H:%M}" for at in r.begins or ())
        console.print(f"{r.rule}: begins {first}" + (f" to {last} UTC" if first != last else " UTC"))
    if kinds:
        console.print(f"{', '.join(kinds)}: accounts that are not hit, but share one with some that are", style="dim")

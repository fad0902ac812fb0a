"""Verdicts to campaigns that people can read: names, members with reasons, days, models, and a picture."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from stillwatch.cases import Case, capability_shares
from stillwatch.evidence import KIND_NAMES, Holdings
from stillwatch.kinds import KINDS
from stillwatch.scoring import Verdict
from stillwatch.types import FAMILIES, Campaign, Day, Member, Node, Outcome, Pivot, Reason

NODES = 120
"""Dots in a campaign's picture: the values most of its members share, and a sample of the members."""


@dataclass(frozen=True, slots=True)
class Judged:
    """All clusters that were judged, as campaigns by outcome, largest first."""

    campaigns: tuple[Campaign, ...]
    review: tuple[Campaign, ...]
    let_go: tuple[Campaign, ...]


@dataclass(frozen=True, slots=True)
class Names:
    """What numbers stand for: accounts and models."""

    accounts: pa.Array
    models: list[str]


def name(verdicts: list[Verdict], holdings: Holdings, names: Names, pivots: dict[int, Pivot], at: datetime) -> Judged:
    """Every verdict as a campaign, detected ``at`` that time; ``pivots`` by case number."""
    made = [campaign(v, holdings, names, pivots.get(v.case.number), at) for v in verdicts]
    made.sort(key=lambda c: (-len(c.members), c.campaign_id))
    return Judged(
        *(tuple(c for c in made if c.outcome is o) for o in (Outcome.CAMPAIGN, Outcome.REVIEW, Outcome.LET_GO))
    )


def campaign(verdict: Verdict, holdings: Holdings, names: Names, pivot: Pivot | None, at: datetime) -> Campaign:
    """One verdict as a campaign, detected ``at`` that time."""
    case = verdict.case
    totals = case.tables["case_totals"].to_pylist()[0]
    members = people(verdict, holdings, names)
    nodes, edges = picture(case, holdings, names)
    shares = capability_shares(case)
    return Campaign(
        campaign_id=identity(members),
        outcome=verdict.outcome,
        members=members,
        exchanges=int(totals["exchanges"]),
        first_seen=totals["first_seen"],
        last_seen=totals["last_seen"],
        confidence=verdict.confidence,
        q_value=verdict.q_value,
        bits=verdict.bits,
        evidence=verdict.evidence,
        capabilities=shares,
        models=models_used(case, names),
        summary=sentence(verdict, shares, int(totals["exchanges"])),
        exhibits=verdict.exhibits,
        alternatives=verdict.alternatives,
        pivot=pivot,
        detected_at=at if verdict.outcome is Outcome.CAMPAIGN else None,
        days=days(case),
        nodes=nodes,
        edges=edges,
    )


def identity(members: tuple[Member, ...]) -> str:
    """A short name that depends on the members alone, so the same log gives the same name."""
    return named_after(m.account_id for m in members)


def named_after(account_ids: Iterable[str]) -> str:
    """The name of a campaign of these accounts, in whatever order."""
    return f"SW-{hashlib.blake2b(chr(10).join(sorted(account_ids)).encode(), digest_size=4).hexdigest()}"


def people(verdict: Verdict, holdings: Holdings, names: Names) -> tuple[Member, ...]:
    """The members by account, riskiest first, each with the families that speak for it."""
    case = verdict.case
    bits = case.scored.bits[np.searchsorted(case.scored.accounts, case.members)]
    shared = shares(case, holdings)
    rows = {r["account"]: r for r in case.tables["case_members"].to_pylist()}
    found = []
    for k, customer in enumerate(case.members.tolist()):
        seen = rows[customer]
        found.append(
            Member(
                names.accounts[customer].as_py(), float(verdict.risk[k]), int(seen["exchanges"]),
                seen["first_seen"], seen["last_seen"], why(bits[k], shared[k]),
            )
        )  # fmt: skip
    return tuple(sorted(found, key=lambda m: (-m.risk, m.account_id)))


def shares(case: Case, holdings: Holdings) -> np.ndarray:
    """How many values of each kind a member shares with at least one other, (members, kinds)."""
    position, value = holdings.values_of(case.members)
    _, number, count = np.unique(value, return_inverse=True, return_counts=True)
    keep = count[number] >= 2
    flat = position[keep] * len(KIND_NAMES) + holdings.kind[value[keep]]
    return np.bincount(flat, minlength=case.size * len(KIND_NAMES)).reshape(case.size, len(KIND_NAMES))


def why(bits: np.ndarray, shared: np.ndarray) -> tuple[Reason, ...]:
    """Sentences for the families that gave an account at least one bit, strongest first."""
    reasons = []
    for f in np.argsort(-bits, kind="stable"):
        if bits[f] < 1:
            break
        kinds = [k for k, n in enumerate(shared) if n and KINDS[KIND_NAMES[k]].family == FAMILIES[f]]
        nouns = ", ".join(f"{KINDS[KIND_NAMES[k]].meaning} ({shared[k]})" for k in kinds[:3])
        reasons.append(Reason(FAMILIES[f], float(bits[f]), f"shares with other members: {nouns or 'its traffic'}"))
    return tuple(reasons)


def models_used(case: Case, names: Names) -> tuple[str, ...]:
    """Models the members asked for, most used first."""
    rows = case.tables["case_models"].sort_by([("exchanges", "descending"), ("model", "ascending")])
    return tuple(names.models[m] for m in rows["model"].to_pylist())


def days(case: Case) -> tuple[Day, ...]:
    """Exchanges by UTC day."""
    rows = case.tables["case_days"].sort_by("day").to_pylist()
    return tuple(
        Day(r["day"].strftime("%Y-%m-%d"), int(r["exchanges"]), int(r["taken"] or 0), int(r["accounts"])) for r in rows
    )


def sentence(verdict: Verdict, shares: dict[str, float], exchanges: int) -> str:
    """The verdict in one or two sentences."""
    size = verdict.case.size
    after = [n.replace("_", " ") for n, s in sorted(shares.items(), key=lambda i: -i[1]) if s >= 0.1 and n != "other"]
    aim = f", after {' and '.join(after[:3])}" if after else ""
    held = [f for f, b in sorted(verdict.evidence.items(), key=lambda i: -i[1]) if b >= 3]
    if verdict.outcome is Outcome.CAMPAIGN:
        return f"{size:,} accounts with one hidden operator made {exchanges:,} exchanges{aim}; evidence: {', '.join(held)}."
    reason = next((a.text for a in verdict.alternatives if a.explains), "")
    if reason:
        return f"{size:,} accounts belong together but are explained: {reason}."
    weakest = min(verdict.bits, key=lambda axis: verdict.bits[axis])
    return f"{size:,} accounts belong together{aim}; too little speaks for {weakest.value} to act."


def picture(case: Case, holdings: Holdings, names: Names) -> tuple[tuple[Node, ...], tuple[tuple[int, int], ...]]:
    """Dots and lines: the values that most members share on an inner ring, a sample of members around them."""
    _, value = holdings.values_of(case.members)
    rare = holdings.holders[value] <= holdings.cap()[value]
    values, counts = np.unique(value[rare], return_counts=True)
    top = values[np.argsort(-counts, kind="stable")][:16]
    members = case.members[:: max(1, math.ceil(case.size / (NODES - 16)))]
    nodes = [ring(k, len(top), 0.22, KIND_NAMES[holdings.kind[v]], KINDS[KIND_NAMES[holdings.kind[v]]].meaning, int(c))
             for k, (v, c) in enumerate(zip(top, np.sort(counts)[::-1]))]  # fmt: skip
    nodes += [ring(k, len(members), 0.46, "account", names.accounts[int(a)].as_py(), 1) for k, a in enumerate(members)]
    at = {int(v): k for k, v in enumerate(top)}
    edges = []
    for k, account in enumerate(members):
        _, held = holdings.values_of(np.array([account]))
        edges += [(at[int(v)], len(top) + k) for v in held if int(v) in at]
    return tuple(nodes), tuple(edges)


def ring(place: int, of: int, radius: float, kind: str, label: str, weight: int) -> Node:
    """A dot on a circle around the middle."""
    angle = 2 * math.pi * place / max(1, of)
    x, y = 0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle)
    return Node(f"{kind}:{place}", kind, label, float(weight), x, y)

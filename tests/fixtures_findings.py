"""Findings as a run would make them, for the tests of what is written about them. Seeded; every name is made up."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.errors import Reject
from stillwatch.findings import Counts, Findings, Run, accounts_table
from stillwatch.progress import Timing
from stillwatch.types import Alternative, Axis, Campaign, Day, Exhibit, Member, Node, Outcome, Pivot, Reason

START = datetime(2026, 3, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Written:
    """What the files of a result say."""

    folder: Path

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    @property
    def accounts(self) -> list[dict[str, Any]]:
        return pq.read_table(self.folder / "accounts.parquet").to_pylist()

    @property
    def found(self) -> tuple[Any, ...]:
        """All that a replay tells of what it found."""
        return (self.accounts, *(self.json(f"{n}.json") for n in ("campaigns", "review", "history")))


@dataclass(frozen=True)
class Shape:
    """What tells one made-up campaign from another."""

    name: str
    accounts: int
    per_day: float
    days: int
    evidence: dict[str, float]
    capabilities: dict[str, float]
    summary: str
    outcome: Outcome = Outcome.CAMPAIGN
    camouflage: float = 0.3
    q_value: float = 0.0004
    confidence: float = 0.9994
    pivot: Pivot | None = None
    alternatives: tuple[Alternative, ...] = ()


TEXTS = {
    "identity": ("One card paid for {m} of these accounts.", "Sign-ups came in bursts of 20 to 40 within two minutes."),
    "network": ("Requests leave from one hosting network, over addresses that change together.",),
    "template": (
        "One fixed wrapper round the question, its slot filled anew each time.",
        "The same six tools are offered in the same order, a set nobody else in the log offers.",
    ),
    "tempo": ("Accounts take turns: whenever one pauses, another goes on within seconds.",),
    "content": ("The accounts work through one list of prompts, dividing it among themselves with almost no repeats.",),
    "migration": ("Half of the traffic moved to the new model within a day of its release.",),
}

REASONS = {
    "identity": "pays with a card that {n} other accounts of the cluster use",
    "network": "shares {n} addresses with the cluster and with nobody else",
    "template": "{n} of its exchanges use the wrapper only this cluster uses",
    "tempo": "resumed within 4 s of another member's pause {n} times",
    "content": "worked on {n} prompts of the list, none of them also done by another member",
    "migration": "moved to the new model in the hour the others did",
}


def campaign(shape: Shape, seed: int = 0) -> Campaign:
    """One campaign of that shape."""
    rng = random.Random(f"{shape.name}-{seed}")
    days = _days(shape, rng)
    members = tuple(_member(shape, i, rng) for i in range(shape.accounts))
    nodes, edges = _picture(shape, rng)
    return Campaign(
        campaign_id=shape.name,
        outcome=shape.outcome,
        members=members,
        exchanges=sum(d.exchanges for d in days),
        first_seen=START + timedelta(hours=3),
        last_seen=START + timedelta(days=shape.days - 1, hours=22, minutes=41),
        confidence=shape.confidence,
        q_value=shape.q_value,
        bits={Axis.COORDINATION: sum(shape.evidence.values()) * 0.6 - 12, Axis.EXTRACTION: 11.4, Axis.CONCEALMENT: 6.2},
        evidence=shape.evidence,
        capabilities=shape.capabilities,
        models=("aster-4", "aster-4-mini"),
        summary=shape.summary,
        exhibits=tuple(_exhibits(shape)),
        alternatives=shape.alternatives,
        pivot=shape.pivot,
        days=days,
        nodes=nodes,
        edges=edges,
    )


def _days(shape: Shape, rng: random.Random) -> tuple[Day, ...]:
    out = []
    for i in range(shape.days):
        ramp = min(1.0, (i + 1) / 4) * (0.35 if i % 7 in (5, 6) else 1.0)
        active = max(1, round(shape.accounts * ramp * rng.uniform(0.5, 0.8)))
        exchanges = max(1, round(active * shape.per_day * rng.uniform(0.8, 1.2)))
        name = (START + timedelta(days=i)).strftime("%Y-%m-%d")
        out.append(Day(name, exchanges, round(exchanges * (1 - shape.camouflage * rng.uniform(0.7, 1.3))), active))
    return tuple(out)


def _member(shape: Shape, i: int, rng: random.Random) -> Member:
    reasons = [
        Reason(family, round(bits * rng.uniform(0.2, 0.6), 2), REASONS[family].format(n=rng.randint(2, 60)))
        for family, bits in shape.evidence.items()
        if bits > 6
    ]
    first = START + timedelta(days=rng.randint(0, max(0, shape.days - 4)), minutes=rng.randint(0, 1439))
    account_id = f"acct_{rng.getrandbits(48):012x}"
    return Member(
        account_id,
        round(rng.uniform(0.93, 0.9999), 4),
        rng.randint(4, 900),
        first,
        first + timedelta(days=3),
        tuple(reasons),
    )


def _exhibits(shape: Shape) -> list[Exhibit]:
    out = []
    for family, bits in shape.evidence.items():
        axis = Axis.EXTRACTION if family == "content" else Axis.COORDINATION
        for n, sentence in enumerate(TEXTS[family]):
            members = max(2, round(shape.accounts * (0.8 - 0.3 * n)))
            holders, expected = members + 3 * n + 1, members / 40
            out.append(
                Exhibit(
                    axis,
                    family,
                    f"{family}_detector",
                    round(bits * (1 - 0.4 * n), 1),
                    sentence.format(m=members),
                    members,
                    holders,
                    expected,
                )
            )
    text = "Declared countries, sign-up addresses and working hours contradict each other."
    out.append(
        Exhibit(
            Axis.CONCEALMENT, "identity", "identity_mismatch", 6.2, text, shape.accounts // 2, shape.accounts * 2, 9.0
        )
    )
    return out


def _picture(shape: Shape, rng: random.Random) -> tuple[tuple[Node, ...], tuple[tuple[int, int], ...]]:
    kinds = (
        ("payment", "card 4f…a2"),
        ("wording", "wrapper W-19"),
        ("address", "203.0.113.0/24"),
        ("tools", "6 tools, set T-3"),
        ("payment", "card 91…07"),
    )
    nodes, edges = [], []
    for n, (kind, label) in enumerate(kinds):
        angle = 2 * math.pi * n / len(kinds)
        x, y = 0.5 + 0.34 * math.cos(angle), 0.5 + 0.34 * math.sin(angle)
        nodes.append(Node(f"{kind}{n}", kind, label, shape.accounts / (n + 1), x, y))
    for i in range(min(shape.accounts, 400)):
        home = rng.randrange(len(kinds))
        x, y = (min(max(rng.gauss(c, 0.07), 0), 1) for c in (nodes[home].x, nodes[home].y))
        nodes.append(Node(f"a{i}", "account", f"acct {i}", 1.0, x, y))
        edges.append((home, len(nodes) - 1))
        if rng.random() < 0.4:
            edges.append((rng.randrange(len(kinds)), len(nodes) - 1))
    return tuple(nodes), tuple(edges)


REJECTED = (
    Alternative(
        "one paying customer", False, "41 payment instruments of 9 issuers; the largest pays for 6% of the accounts."
    ),
    Alternative(
        "a class or course",
        False,
        "No education programme; one request a minute day and night, no breaks between lessons.",
    ),
    Alternative(
        "a public tool",
        False,
        "The wrapper is nobody else's: 0 of 11,903 other accounts use it, a public tool would have 31.",
    ),
    Alternative(
        "a benchmark run", False, "Benchmarks repeat a fixed list; here 97% of prompts are asked once, by one account."
    ),
)

SHAPES = (
    Shape(
        "C-5d20f1", 412, 31, 27,
        {"template": 31.4, "identity": 22.0, "tempo": 14.8, "content": 11.2, "network": 4.1},
        {"cot_elicitation": 0.82, "math_reasoning": 0.11, "grading": 0.05, "other": 0.02},
        "412 accounts behind 41 cards ask one operator's list of questions for step-by-step reasoning, in turns, "
        "wrapped in wording nobody else uses; about a third of their traffic is ordinary chat that hides it.",
        alternatives=REJECTED,
    ),
    Shape(
        "C-a91b77", 1480, 4, 12,
        {"identity": 27.3, "content": 18.9, "migration": 9.6},
        {"agentic_coding": 0.64, "tool_use": 0.21, "coding": 0.15},
        "1,480 accounts with four requests a day each were signed up in bursts and share out agentic coding tasks; "
        "half of them moved to the new model on the day it came out.",
        camouflage=0.55, q_value=0.0021, confidence=0.9971, pivot=Pivot("aster-5", 0.513, 0.064, 0.402, 0.622, 0.331, 0.561),
        alternatives=REJECTED[:3],
    ),
    Shape(
        "C-0e3c48", 23, 120, 20,
        {"template": 17.7, "network": 9.3, "tempo": 8.8},
        {"sensitive_rewrite": 0.93, "other": 0.07},
        "23 accounts on one hosting network have sensitive questions rewritten into safe answers, round the clock.",
        camouflage=0.05, q_value=0.0087, confidence=0.987, alternatives=REJECTED[1:],
    ),
)  # fmt: skip

REVIEW = (
    Shape(
        "R-77ac02", 9, 40, 15, {"tempo": 9.9, "content": 4.0}, {"grading": 0.9, "other": 0.1},
        "Nine accounts keep time with each other and grade answers, but share neither card, address nor wording.",
        outcome=Outcome.REVIEW, q_value=0.18, confidence=0.71,
        alternatives=(Alternative("an evaluation vendor", False, "Would declare an organisation; none is declared."),),
    ),
    Shape(
        "R-1f9e5b", 61, 6, 21, {"identity": 12.1}, {"coding": 1.0},
        "61 accounts on two cards; one family of evidence only.",
        outcome=Outcome.REVIEW, q_value=0.32, confidence=0.55,
    ),
)  # fmt: skip

LET_GO = tuple(
    Shape(
        f"L-{n}", size, 8, 10, evidence, {"coding": 0.7, "other": 0.3}, summary, outcome=Outcome.LET_GO, q_value=1.0,
        confidence=0.02, alternatives=(Alternative(name, True, text), REJECTED[1]),
    )
    for n, size, evidence, summary, name, text in (
        ("c01", 240, {"template": 19.0, "network": 11.0}, "240 users of one open-source coding agent.",
         "a public tool", "The system text is the agent's own: 1,904 accounts of 611 mail domains hold it."),
        ("c02", 38, {"network": 16.5, "tempo": 7.0}, "38 accounts behind one address, on weekdays.",
         "a class or course",
         "All belong to one education programme; 36 of 38 ask the same 12 exercises, in lesson hours."),
        ("c03", 85, {"identity": 24.0, "network": 9.0}, "85 seats on one invoice.",
         "one declared customer", "All 85 declare one organisation and pay with one instrument."),
        ("c04", 512, {"migration": 8.0}, "512 accounts that tried the new model on its first day.",
         "first-day interest", "Share after 24 h is 7%, that of honest accounts 6%; nothing else is shared."),
    )
)  # fmt: skip

BLIND = {"tls_reuse": "needs ja4, which no row holds", "relay_after_ban": "needs status, which 2% of rows hold"}

COVERAGE = {
    "exchange_id": 1.0, "time": 1.0, "account_id": 1.0, "model": 1.0, "prompt": 1.0, "system": 0.81, "tools": 0.36,
    "ip": 0.994, "asn": 0.98, "user_agent": 0.91, "max_tokens": 0.77, "temperature": 0.41, "status": 0.02, "ja4": 0.0,
    "response": 0.0, "end_user": 0.0,
}  # fmt: skip

TIMINGS = {
    "read": Timing(19.2, 33.1),
    "fold": Timing(4.6, 7.9),
    "detect": Timing(15.8, 27.0),
    "judge": Timing(6.1, 6.3),
    "report": Timing(0.9, 0.9),
}

REJECTS = (
    Reject("time is no time: 'soon'", 212, "log/day-03.ndjson:1841", "give RFC 3339, or seconds since 1970"),
    Reject("no account_id", 97, "log/day-11.ndjson:7"),
    Reject("exchange_id seen before, with other content", 3, "log/day-12.ndjson:90312"),
)


def run(**changes: object) -> Run:
    """How such a result was made."""
    values: dict[str, object] = {
        "version": "0.1.0",
        "settings": {"engine": "duckdb", "threads": 2, "memory_bytes": 2_000_000_000, "max_false_discovery": 0.01},
        "counts": Counts(1_204_643, 1_204_331, 12_431, 3, START, START + timedelta(days=26, hours=23, minutes=58)),
        "started": datetime(2026, 3, 29, 6, 0, tzinfo=UTC),
        "finished": datetime(2026, 3, 29, 6, 0, 47, tzinfo=UTC),
        "rejects": REJECTS,
        "timings": TIMINGS,
        "peak_memory_bytes": 1_310_000_000,
        "blind": BLIND,
        "coverage": COVERAGE,
        "unknown_columns": ("x_region", "x_trace"),
    }
    return Run(**{**values, **changes})  # type: ignore[arg-type]


def findings(
    campaigns: Sequence[Campaign], review: Sequence[Campaign] = (), let_go: Sequence[Campaign] = (), honest: int = 200
) -> Findings:
    """Findings with a row for every member and for ``honest`` other accounts."""
    members = {m.account_id for c in (*campaigns, *review, *let_go) for m in c.members}
    seen = pa.array([*sorted(members), *(f"acct_honest_{i:05d}" for i in range(honest))])
    return Findings(tuple(campaigns), tuple(review), tuple(let_go), accounts_table(seen, campaigns, review))


def few() -> Findings:
    """Three campaigns, two clusters under review, four look-alikes let go."""
    return findings([campaign(s) for s in SHAPES], [campaign(s) for s in REVIEW], [campaign(s) for s in LET_GO])


def none() -> Findings:
    """A clean log."""
    return findings([], [], [campaign(s) for s in LET_GO[:2]])


def many(campaigns: int, members: int) -> Findings:
    """So many campaigns, with so many members in all, each with everything a campaign can have."""
    sizes = [members // campaigns + (i < members % campaigns) for i in range(campaigns)]
    made = []
    for i, size in enumerate(sizes):
        s = SHAPES[0]
        made.append(
            campaign(
                Shape(f"C-{i:06x}", size, s.per_day, 60, s.evidence, s.capabilities, s.summary, alternatives=REJECTED),
                i,
            )
        )
    return findings(made)

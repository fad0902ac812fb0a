"""What to simulate: the settings of a world, the campaigns in it, and the shapes disclosed so far.

A shape is a set of knobs, not a lab: all of them were reported by providers in 2026, and the sizes scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stillwatch.errors import UsageError
from stillwatch.types import CAPABILITIES

ROTATIONS = ("sticky", "pool", "datacentre")
SIGNUPS = ("burst", "spread", "batches")
WORDINGS = ("fixed", "several", "paraphrased", "none")
TEMPOS = ("human", "clock", "balanced")

POPULATIONS: Mapping[str, float] = {
    "private_chat": 25, "agent_users": 15, "products": 8, "nightly_batches": 4, "benchmark_runners": 3, "classes": 7,
    "hackathons": 3, "company_seats": 8, "undeclared_companies": 5, "synthetic_data_makers": 0.6,
    "evaluation_vendors": 0.9, "routers": 0.7, "vpn_users": 5, "carrier_nat_users": 5, "first_day_migrators": 4,
    "public_kit_users": 3, "families": 4, "privacy_relay_users": 3,
}  # fmt: skip
"""Honest populations and their share of the honest accounts, in parts of whatever they add up to."""


@dataclass(frozen=True, slots=True)
class CampaignPlan:
    """One hidden operator: how many accounts, what they ask, and how it hides.

    ``requests`` is the mean number of exchanges of an account, 0 for as many as honest accounts make, times ``busy``.
    ``camouflage`` is the share of them that is ordinary traffic of the operator's making, ``customers`` the share that
    real people sent through the same accounts. ``addresses`` is one of ``ROTATIONS``, ``signups`` of ``SIGNUPS``,
    ``wording`` of ``WORDINGS`` and ``tempo`` of ``TEMPOS``. ``accounts_per_card`` of 1 means a card each.
    ``generations`` counts the heads that follow one another after bans; ``pivot`` is the share of queries on a new
    model within 24 h of its release. ``days`` is how long it runs, 0 for the whole log.
    """

    shape: str
    accounts: int
    targets: Mapping[str, float]
    requests: float = 0
    busy: float = 1
    camouflage: float = 0.3
    customers: float = 0
    addresses: str = "pool"
    accounts_per_card: int = 8
    signups: str = "batches"
    wording: str = "several"
    variants: int = 12
    tempo: str = "human"
    generations: int = 1
    pivot: float = 0.1
    pathways: int = 1
    days: float = 0
    follow_ups: float = 0.35

    def __post_init__(self) -> None:
        for name, choices in (("addresses", ROTATIONS), ("signups", SIGNUPS), ("wording", WORDINGS), ("tempo", TEMPOS)):
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"{self.shape}: {name} is {getattr(self, name)!r}", hint=f"one of {', '.join(choices)}"
                )
        if self.accounts < 2:
            raise UsageError(f"{self.shape}: a campaign needs at least 2 accounts, got {self.accounts}")
        if not 0 <= self.camouflage <= 0.9 or not 0 <= self.customers <= 0.9:
            raise UsageError(f"{self.shape}: camouflage and customers lie between 0 and 0.9")
        if unknown := set(self.targets) - set(CAPABILITIES):
            raise UsageError(f"{self.shape}: unknown capability {sorted(unknown)[0]!r}", hint=", ".join(CAPABILITIES))
        if not self.targets or self.accounts_per_card < 1 or self.generations < 1:
            raise UsageError(f"{self.shape}: needs a target, and at least 1 account a card and 1 generation")

    @property
    def ordinary(self) -> float:
        """Share of its exchanges that are no distillation queries."""
        return 1 - (1 - self.camouflage) * (1 - self.customers)


@dataclass(frozen=True, slots=True)
class World:
    """Settings of one simulated log. Equal settings give an equal log.

    ``accounts`` and ``exchanges`` are totals, campaigns included (exchanges to within a few percent); ``prompts`` and
    ``traces`` are folders of real texts and timings to use instead of the built-in ones.
    """

    seed: int = 0
    accounts: int = 10_000
    exchanges: int = 400_000
    days: int = 28
    start: datetime = datetime(2026, 9, 7, tzinfo=UTC)
    campaigns: tuple[CampaignPlan, ...] = ()
    populations: Mapping[str, float] = field(default_factory=lambda: dict(POPULATIONS))
    prompts: Path | None = None
    traces: Path | None = None

    def __post_init__(self) -> None:
        planted = sum(c.accounts for c in self.campaigns)
        if self.accounts < planted + 200:
            raise UsageError(
                f"{self.accounts} accounts leave too few beside {planted} of campaigns",
                hint="at least 200 honest accounts are needed; raise --accounts",
            )
        if self.exchanges < 4 * self.accounts:
            raise UsageError(f"{self.exchanges} exchanges are fewer than 4 an account", hint="raise --exchanges")
        if self.days < 3:
            raise UsageError(f"{self.days} days are too few", hint="at least 3")
        if unknown := set(self.populations) - set(POPULATIONS):
            raise UsageError(f"unknown population {sorted(unknown)[0]!r}", hint=", ".join(POPULATIONS))
        if self.campaign_exchanges > 0.7 * self.exchanges:
            raise UsageError(
                f"the campaigns want {self.campaign_exchanges:.0f} of {self.exchanges} exchanges",
                hint="raise --exchanges or plant less",
            )

    @property
    def per_account(self) -> float:
        return self.exchanges / self.accounts

    def requests_of(self, plan: CampaignPlan) -> float:
        """Mean exchanges of one account of this campaign in this world."""
        return max(4.0, plan.requests or self.per_account * plan.busy)

    @property
    def campaign_exchanges(self) -> float:
        return sum(c.accounts * self.requests_of(c) for c in self.campaigns)


@dataclass(frozen=True, slots=True)
class Preset:
    """A disclosed shape: a line for ``--help`` and the plan at its usual size."""

    meaning: str
    plan: CampaignPlan


def _presets(*rows: tuple[str, CampaignPlan]) -> dict[str, Preset]:
    return {plan.shape: Preset(meaning, plan) for meaning, plan in rows}


C = CampaignPlan
PRESETS: Mapping[str, Preset] = _presets(
    ("reasoning, rubric grading and censorship-safe rewrites, load-balanced over shared cards",
     C("balanced_reasoning", 120, {"math_reasoning": 0.35, "cot_elicitation": 0.25, "grading": 0.25,
       "sensitive_rewrite": 0.15}, tempo="balanced", accounts_per_card=10, wording="several", variants=16)),
    ("tools, coding, data analysis, computer use and vision over several channels and kinds of account",
     C("many_pathways", 300, {"tool_use": 0.25, "coding": 0.2, "data_analysis": 0.2, "computer_use": 0.2,
       "vision": 0.15}, pathways=4, accounts_per_card=5, signups="spread", wording="several", variants=40,
       camouflage=0.4)),
    ("huge agentic coding that moves half of its traffic to a new model within a day",
     C("agentic_pivot", 400, {"agentic_coding": 0.6, "tool_use": 0.4}, busy=1.5, pivot=0.48, tempo="clock",
       wording="paraphrased", follow_ups=0.5, accounts_per_card=15)),
    ("one fixed prompt that forces the reasoning into tags; banned accounts are replaced at once",
     C("tagged_traces", 600, {"cot_elicitation": 0.5, "math_reasoning": 0.5}, wording="fixed", generations=3,
       signups="burst", accounts_per_card=1, camouflage=0.2)),
    ("an operator's own users' requests, forwarded as they come through a pool of accounts",
     C("forwarded_users", 500, {"agentic_coding": 0.4, "coding": 0.3, "other": 0.3}, wording="none", camouflage=0,
       follow_ups=0.5, accounts_per_card=12, addresses="datacentre", signups="batches")),
    ("raw traces sent in to be cleaned and judged",
     C("trace_cleaning", 273, {"cot_elicitation": 0.6, "grading": 0.4}, wording="several", variants=8,
       accounts_per_card=6, tempo="clock", addresses="datacentre")),
    ("sessions of an operator's users replayed, many through routers",
     C("session_replay", 150, {"agentic_coding": 0.7, "tool_use": 0.3}, wording="none", follow_ups=0.7, pathways=3,
       accounts_per_card=9, camouflage=0.1)),
    ("thousands of accounts with about four requests each, in a spike of days",
     C("four_requests", 4000, {"cot_elicitation": 0.7, "math_reasoning": 0.3}, requests=4, camouflage=0.1, days=4,
       wording="paraphrased", accounts_per_card=4, signups="burst")),
    ("reasoning coerced in the language of the question, other than English",
     C("foreign_traces", 90, {"cot_elicitation": 0.6, "math_reasoning": 0.4}, wording="fixed", accounts_per_card=3,
       signups="spread", camouflage=0.5)),
    ("a resale proxy: real customers and extraction in the same accounts, heads replaced after bans",
     C("hydra_proxy", 200, {"coding": 0.3, "math_reasoning": 0.3, "cot_elicitation": 0.2, "data_analysis": 0.2},
       customers=0.6, camouflage=0.1, generations=2, pathways=2, accounts_per_card=7, wording="several")),
    ("one small wallet and one prompt: a handful of accounts, easy to overlook",
     C("small_ring", 14, {"coding": 0.5, "math_reasoning": 0.5}, accounts_per_card=7, wording="fixed", busy=2.5,
       camouflage=0.5, addresses="sticky")),
)  # fmt: skip
"""Shapes by name. ``small_ring`` is no disclosed case but the small end of what should be found."""

USUAL = (
    ("balanced_reasoning", 0.010, 0.5), ("many_pathways", 0.016, 0.4), ("agentic_pivot", 0.020, 0.3),
    ("tagged_traces", 0.024, 0.3), ("trace_cleaning", 0.008, 0.7), ("four_requests", 0.070, 0.0),
    ("hydra_proxy", 0.012, 0.1), ("small_ring", 0.0, 0.5),
)  # fmt: skip
"""Campaigns of a usual month: shape, share of all accounts, camouflage."""


def presets(shape: str, accounts: int = 0, camouflage: float | None = None) -> CampaignPlan:
    """A disclosed shape by name, at another size or with another share of camouflage."""
    if shape not in PRESETS:
        raise UsageError(f"no campaign shape {shape!r}", hint=f"one of {', '.join(PRESETS)}")
    plan = PRESETS[shape].plan
    return replace(
        plan, accounts=accounts or plan.accounts, camouflage=plan.camouflage if camouflage is None else camouflage
    )


def parse_campaign(spec: str) -> CampaignPlan:
    """``SHAPE[:ACCOUNTS[:CAMOUFLAGE]][,knob=value...]``, such as ``tagged_traces:400:0.7,wording=paraphrased``."""
    head, *knobs = spec.split(",")
    shape, *numbers = head.split(":")
    if len(numbers) > 2:
        raise UsageError(f"campaign {spec!r} has too many parts", hint="SHAPE:ACCOUNTS:CAMOUFLAGE")
    plan = presets(shape)
    for name, value in zip(("accounts", "camouflage"), numbers):
        plan = _turn(plan, name, value, spec)
    for knob in knobs:
        name, _, value = knob.partition("=")
        plan = _turn(plan, name, value, spec)
    return plan


def _turn(plan: CampaignPlan, name: str, value: str, spec: str) -> CampaignPlan:
    kinds: dict[str, Any] = {f.name: type(getattr(plan, f.name)) for f in fields(plan)}
    del kinds["shape"], kinds["targets"]
    if name not in kinds:
        raise UsageError(f"campaign {spec!r}: no knob {name!r}", hint=", ".join(kinds))
    kind = float if name in ("requests", "busy", "camouflage", "customers", "pivot", "days") else kinds[name]
    try:
        turned: dict[str, Any] = {name: kind(value)}
        return replace(plan, **turned)
    except ValueError as fault:
        raise UsageError(f"campaign {spec!r}: {name} is {value!r}, no number") from fault


def default_world(seed: int = 0, accounts: int = 10_000, exchanges: int = 0, **settings: object) -> World:
    """A usual month: every honest population and campaigns of 14 to thousands of accounts; 0 exchanges means 100 each.

    ``settings`` are further fields of ``World``; ``campaigns=()`` gives look-alikes only.
    """
    if "campaigns" not in settings:
        settings["campaigns"] = tuple(
            presets(shape, min(4000, max(14, round(share * accounts))), camouflage)
            for shape, share, camouflage in USUAL
        )
    return World(seed, accounts, exchanges or 100 * accounts, **settings)  # type: ignore[arg-type]

"""The nouns a person or a rule holds in the hand. Frozen; they import nothing of ours.

Exchanges, facts and observations come by the million and are tables (``tables.py``); these come by the thousand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

FAMILIES = ("identity", "network", "template", "tempo", "content", "migration")
"""Families of evidence. Within one, only the strongest counts; families add up."""

CAPABILITIES = (
    "agentic_coding", "tool_use", "coding", "data_analysis", "computer_use", "vision",
    "math_reasoning", "cot_elicitation", "grading", "sensitive_rewrite", "other",
)  # fmt: skip
"""What a distillation query is after, in the contract's words; a fact's ``capability`` is an index into this."""


ELICITATIONS = (
    "none", "step_traces", "rebuild_reasoning", "pretext", "rubric_grading", "answer_cleaning",
    "sensitive_rewrite", "trajectory", "data_generation", "curriculum_sweep",
)  # fmt: skip
"""Ways of making training data that can be seen in one prompt; a fact's ``elicitation_kind`` is an index into this."""


class Axis(StrEnum):
    """A campaign is judged on three axes, all needed."""

    COORDINATION = "coordination"
    EXTRACTION = "extraction"
    CONCEALMENT = "concealment"


class Outcome(StrEnum):
    """What became of a cluster that was judged."""

    CAMPAIGN = "campaign"
    REVIEW = "review"
    LET_GO = "let_go"


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One piece of proof: a value, how many accounts of the cluster hold it, and how many chance would give.

    ``bits`` is the log2 likelihood ratio it contributes; ``text`` is a sentence for an analyst, without content or
    personal values; ``holders`` counts the accounts that hold the value anywhere in the log.
    """

    axis: Axis
    family: str
    detector: str
    bits: float
    text: str
    members: int = 0
    holders: int = 0
    expected: float = 0.0


@dataclass(frozen=True, slots=True)
class Alternative:
    """An honest explanation that was considered, and the numbers that reject it or make it stand."""

    name: str
    explains: bool
    text: str


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one account is counted to a campaign; the shape of ``accounts.parquet``'s ``reasons``."""

    family: str
    bits: float
    text: str


@dataclass(frozen=True, slots=True)
class Member:
    """One account of a cluster. ``risk`` is a probability in [0, 1]; times are UTC."""

    account_id: str
    risk: float
    exchanges: int
    first_seen: datetime
    last_seen: datetime
    reasons: tuple[Reason, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.risk <= 1:
            raise ValueError(f"risk of {self.account_id!r} must lie in [0, 1]: {self.risk}")


@dataclass(frozen=True, slots=True)
class Pivot:
    """Share of a campaign's extraction on a new model in the 24 h after its release, beside that of comparable honest accounts.

    ``share_low`` to ``share_high`` is the share's 95 % interval, ``more_low`` to ``more_high`` that of how much more it is than
    the benign one.
    """

    model: str
    share_24h: float
    benign_share_24h: float
    share_low: float
    share_high: float
    more_low: float
    more_high: float

    def __post_init__(self) -> None:
        more = self.share_24h - self.benign_share_24h
        if not self.share_low <= self.share_24h <= self.share_high or not self.more_low <= more <= self.more_high:
            raise ValueError(f"a pivot to {self.model!r} lies outside of its intervals")


@dataclass(frozen=True, slots=True)
class Node:
    """A dot of a campaign's picture: an account or a value many of its accounts share. ``x``, ``y`` in [0, 1]."""

    key: str
    kind: str
    label: str
    weight: float
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Day:
    """One UTC day of a campaign: exchanges of its accounts, those judged distillation, accounts active."""

    day: str
    exchanges: int
    distillation: int
    accounts: int


@dataclass(frozen=True, slots=True)
class Campaign:
    """Accounts judged to have one hidden operator who makes training data; or, by ``outcome``, merely looked like it.

    ``bits`` holds the log-odds by axis, ``evidence`` the coordination and extraction bits by family, ``confidence`` a
    probability, ``q_value`` the expected share of false campaigns among those at least this strong, ``capabilities``
    shares over the exchanges judged to be distillation queries. ``edges`` join indices of ``nodes``. ``predecessors`` are
    ids under which parts of it were known before they merged into it or it split off.
    """

    campaign_id: str
    outcome: Outcome
    members: tuple[Member, ...]
    exchanges: int
    first_seen: datetime
    last_seen: datetime
    confidence: float
    q_value: float
    bits: Mapping[Axis, float]
    evidence: Mapping[str, float]
    capabilities: Mapping[str, float]
    models: tuple[str, ...]
    summary: str
    exhibits: tuple[Exhibit, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    pivot: Pivot | None = None
    detected_at: datetime | None = None
    days: tuple[Day, ...] = ()
    nodes: tuple[Node, ...] = ()
    edges: tuple[tuple[int, int], ...] = field(default=())
    predecessors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len({m.account_id for m in self.members}) != len(self.members):
            raise ValueError(f"campaign {self.campaign_id}: an account is listed twice")
        if self.first_seen > self.last_seen:
            raise ValueError(f"campaign {self.campaign_id}: first_seen after last_seen")


class Rung(StrEnum):
    """The steps of the ladder, mildest first; each says what the gateway does with an account's requests."""

    OBSERVE = "observe"
    PROTECT = "protect"
    THROTTLE = "throttle"
    VERIFY = "verify"
    RESTRICT = "restrict"
    SUSPEND = "suspend"

    @property
    def height(self) -> int:
        """0 for the mildest."""
        return _HEIGHTS[self]


_HEIGHTS = {rung: height for height, rung in enumerate(Rung)}


class Standing(StrEnum):
    """Where an action is in its life. Only ``IN_FORCE`` changes what an account gets; the last four are for ever."""

    SHADOW = "shadow"
    """Written down as what would have been done, never done."""
    PENDING = "pending"
    """Waits for signatures."""
    DUE = "due"
    """Signed, or needs none; begins at ``starts_at``."""
    IN_FORCE = "in_force"
    EXPIRED = "expired"
    UNDONE = "undone"
    REFUSED = "refused"
    REPLACED = "replaced"
    """By another one on the same account."""


class Part(StrEnum):
    """What of an account an action is on: all of it, one of its keys, or one of its own end users."""

    ACCOUNT = "account"
    KEY = "key"
    END_USER = "end_user"

    @property
    def said(self) -> str:
        """The word for it in a sentence to whom it concerns."""
        return "user" if self is Part.END_USER else self.value


@dataclass(frozen=True, slots=True)
class Action:
    """One response to one account. Times are UTC; ``settings`` are the rung's own, such as ``requests_per_minute``.

    With another ``part`` than all of the account it is on a key or an end user of it, and ``mark`` is the keyed hash of that.
    ``rule`` is the policy's rule, or ``person`` where somebody decided. ``reason`` is what the account is told. ``needed`` is how
    many people must sign; ``signatures`` who has. Two actions with one ``key`` are one.
    """

    action_id: str
    key: str
    account_id: str
    campaign_id: str
    rung: Rung
    rule: str
    reason: str
    standing: Standing
    proposed_at: datetime
    starts_at: datetime
    expires_at: datetime
    settings: Mapping[str, Any] = field(default_factory=dict)
    needed: int = 0
    signatures: tuple[str, ...] = ()
    part: Part = Part.ACCOUNT
    mark: str = ""

    def __post_init__(self) -> None:
        if (self.part is Part.ACCOUNT) != (not self.mark):
            raise ValueError(f"action {self.action_id!r}: a key or an end user has a mark, and nothing else has")
        if any(t.tzinfo is None for t in (self.proposed_at, self.starts_at, self.expires_at)):
            raise ValueError(f"action {self.action_id!r}: its times have no zone")
        if not self.starts_at < self.expires_at:
            raise ValueError(f"action {self.action_id!r} must begin before it ends")


@dataclass(frozen=True, slots=True)
class InForce:
    """What holds for one account now, or for a ``part`` of it by its ``mark``: all that a gateway is told."""

    account_id: str
    rung: Rung
    action_id: str
    campaign_id: str
    expires_at: datetime
    settings: Mapping[str, Any] = field(default_factory=dict)
    part: Part = Part.ACCOUNT
    mark: str = ""

    @property
    def subject(self) -> str:
        """A name for exactly what this holds for, under which its requests are counted."""
        return self.account_id if self.part is Part.ACCOUNT else f"{self.account_id}\0{self.part}\0{self.mark}"

"""A policy as it is held in the hand, and what it is asked about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from stillwatch.statements import Wording
from stillwatch.types import Campaign, Rung

CAPABILITY_SHARE = 0.1
"""From this share of its exchanges on, a campaign is after a capability."""


@dataclass(frozen=True, slots=True)
class When:
    """What must hold for a rule: all of it. ``days`` counts since the campaign was first told; any capability is enough."""

    confidence: float = 0.0
    risk: float = 0.0
    accounts: int = 0
    days: float = 0.0
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """A rung for the accounts of a campaign: when, how long after it was told, give or take, and for how long."""

    name: str
    rung: Rung
    lasts: timedelta
    when: When = field(default_factory=When)
    settings: Mapping[str, Any] = field(default_factory=dict)
    after: timedelta = timedelta(0)
    jitter: timedelta = timedelta(0)
    shadow: bool = False
    signatures: int = 0


@dataclass(frozen=True, slots=True)
class Caps:
    """How much may begin without a person within any hour: accounts, and share of the log's exchanges they make."""

    accounts_per_hour: int = 500
    traffic_share_per_hour: float = 0.02


@dataclass(frozen=True, slots=True)
class Bulk:
    """More accounts than this suspended at once need two people."""

    suspend: int = 20


@dataclass(frozen=True, slots=True)
class Holdout:
    """The share of a campaign's accounts that is only observed where a rule has one of these rungs, to measure effect."""

    share: float = 0.0
    rungs: tuple[Rung, ...] = ()


@dataclass(frozen=True, slots=True)
class Escalation:
    """Rung by rung up the ``ladder``, each ``escalate_after`` the one before, as long as the campaign is still seen then."""

    escalate_after: timedelta
    ladder: tuple[Rung, ...]
    lasts: timedelta
    signatures: int = 1
    settings: Mapping[Rung, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Organisations:
    """For whose accounts a person must sign above observe: all that ``declared`` an organisation, or ``known`` ones."""

    ask: str = "declared"
    known: tuple[str, ...] = ()

    def asks(self, organisation: str | None) -> bool:
        return bool(organisation) and (self.ask == "declared" or organisation in self.known)


@dataclass(frozen=True, slots=True)
class Policy:
    """What is done about campaigns. ``notes`` are things a reader should know that are no faults."""

    rules: tuple[Rule, ...]
    caps: Caps = field(default_factory=Caps)
    bulk: Bulk = field(default_factory=Bulk)
    holdout: Holdout = field(default_factory=Holdout)
    organisations: Organisations = field(default_factory=Organisations)
    escalation: Escalation | None = None
    statement: Wording = field(default_factory=Wording)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Suspect:
    """An account that the newest findings count to a campaign."""

    account_id: str
    risk: float
    flagged_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """A campaign as the newest findings tell it. ``detected_at`` is None in a scan's."""

    campaign_id: str
    confidence: float
    exchanges: int
    last_seen: datetime
    detected_at: datetime | None
    capabilities: Mapping[str, float]
    accounts: tuple[Suspect, ...]


def told_of(campaign: Campaign) -> Told:
    """The campaign of a run that has just ended."""
    suspects = tuple(Suspect(m.account_id, m.risk) for m in campaign.members)
    return Told(
        campaign.campaign_id, campaign.confidence, campaign.exchanges, campaign.last_seen, campaign.detected_at,
        campaign.capabilities, suspects,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest findings: campaigns, and accounts (of those asked about) that were seen and counted to none.

    ``exchanges`` is how many the log holds, 0 where unknown.
    """

    campaigns: tuple[Told, ...] = ()
    elsewhere: frozenset[str] = frozenset()
    exchanges: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is known of accounts beside the findings: exchanges, all exchanges of the log, the organisation each declares.

    An account without a count is taken to make an equal part of its campaign's; without a total the share cap cannot be
    kept, and a person must sign.
    """

    exchanges: Mapping[str, int] = field(default_factory=dict)
    total: int = 0
    organisations: Mapping[str, str] = field(default_factory=dict)

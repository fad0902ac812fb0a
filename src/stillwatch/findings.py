"""What a run found and how it was made: the nouns that results, report and summary are written from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.errors import Reject
from stillwatch.progress import Timing
from stillwatch.tables import UTC_US
from stillwatch.types import Campaign, Member

REASON = pa.struct([("family", pa.string()), ("bits", pa.float64()), ("text", pa.string())])

REASONS = pa.list_(pa.field("element", REASON))

ACCOUNTS_SCHEMA = pa.schema([
    pa.field("account_id", pa.string(), nullable=False),
    pa.field("campaign_id", pa.string()),
    pa.field("risk", pa.float64(), nullable=False),
    pa.field("first_flagged_at", UTC_US),
    pa.field("reasons", REASONS, nullable=False),
])  # fmt: skip
"""``accounts.parquet``: one row for every account seen. ``campaign_id`` is null outside campaigns."""

CLEARED_AT = pa.field("cleared_at", UTC_US)
"""The extra column of a replay: when a later step took back what an earlier one had flagged."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What was read, and what of it could be judged. Times are those of the first and last exchange kept.

    ``exchanges_later`` could be, but were left aside because they are later than the run was told to go.
    """

    exchanges_read: int
    exchanges_kept: int
    accounts: int
    models: int
    first_time: datetime | None = None
    last_time: datetime | None = None
    exchanges_later: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """How a result was made.

    ``coverage`` gives, for each canonical column, the share of rows that hold it; ``blind`` the detectors that could
    not work, each with a sentence naming the columns it missed; ``notes`` rows that were kept but changed on the way in.
    ``settings`` must hold no secret. ``state`` are figures of a replay's state: its size in bytes, the rows taken up from
    it, and the rows that had come late by then.
    """

    version: str
    settings: Mapping[str, Any]
    counts: Counts
    started: datetime
    finished: datetime
    rejects: tuple[Reject, ...] = ()
    notes: tuple[Reject, ...] = ()
    timings: Mapping[str, Timing] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    blind: Mapping[str, str] = field(default_factory=dict)
    coverage: Mapping[str, float] = field(default_factory=dict)
    unknown_columns: tuple[str, ...] = ()
    state: Mapping[str, int] = field(default_factory=dict)

    @property
    def rejected(self) -> dict[str, int]:
        """Rows left out, by reason, most first."""
        rows: dict[str, int] = {}
        for reject in self.rejects:
            rows[reject.reason] = rows.get(reject.reason, 0) + reject.rows
        return dict(sorted(rows.items(), key=lambda item: (-item[1], item[0])))

    @property
    def spent(self) -> Timing:
        """Wall and processor seconds of all stages together."""
        return sum(self.timings.values(), Timing(0.0, 0.0))


@dataclass(frozen=True, slots=True)
class Findings:
    """What was concluded: campaigns to act on, clusters worth a look, look-alikes let go, a row for each account."""

    campaigns: tuple[Campaign, ...]
    review: tuple[Campaign, ...]
    let_go: tuple[Campaign, ...]
    accounts: pa.Table

    def __post_init__(self) -> None:
        _check_accounts(self.accounts, self.campaigns)


def accounts_table(
    seen: pa.Array | pa.ChunkedArray,
    campaigns: Iterable[Campaign],
    review: Iterable[Campaign] = (),
    *,
    flagged_at: Mapping[str, datetime] | None = None,
    base_risk: float = 0.0,
) -> pa.Table:
    """The rows of ``accounts.parquet`` for the account ids ``seen`` (each once), in their order.

    Members of a campaign carry its id; members of a cluster under review keep risk and reasons but belong to none;
    everybody else has ``base_risk`` and no reason. An account in several clusters keeps the first,
    campaigns before review.
    """
    flagged: dict[str, tuple[Member, str | None]] = {}
    for campaign in campaigns:
        for member in campaign.members:
            flagged.setdefault(member.account_id, (member, campaign.campaign_id))
    for cluster in review:
        for member in cluster.members:
            flagged.setdefault(member.account_id, (member, None))
    held = _flagged_columns(flagged, flagged_at or {}, base_risk)
    ids = (seen.combine_chunks() if isinstance(seen, pa.ChunkedArray) else seen).cast(pa.string())
    at = pc.fill_null(pc.index_in(ids, value_set=pa.array(list(flagged), pa.string())), len(flagged))
    return pa.Table.from_arrays([ids, *(c.take(at) for c in held)], schema=ACCOUNTS_SCHEMA)


def _flagged_columns(
    flagged: Mapping[str, tuple[Member, str | None]], flagged_at: Mapping[str, datetime], base_risk: float
) -> list[pa.Array]:
    """Columns after ``account_id``, one row per flagged account and a last one for all the others."""
    members = [member for member, _ in flagged.values()]
    reasons = [[{"family": r.family, "bits": round(r.bits, 2), "text": r.text} for r in m.reasons] for m in members]
    return [
        pa.array([*(campaign_id for _, campaign_id in flagged.values()), None], pa.string()),
        pa.array([*(round(m.risk, 6) for m in members), base_risk], pa.float64()),
        pa.array([*(flagged_at.get(m.account_id) for m in members), None], UTC_US),
        pa.array([*reasons, []], REASONS),
    ]


def _check_accounts(accounts: pa.Table, campaigns: tuple[Campaign, ...]) -> None:
    plain = accounts.drop_columns(["cleared_at"]) if "cleared_at" in accounts.column_names else accounts
    if not plain.schema.equals(ACCOUNTS_SCHEMA):
        raise ValueError(f"accounts must have the contract's columns:\n{ACCOUNTS_SCHEMA}\nnot:\n{plain.schema}")
    if pc.count_distinct(accounts["account_id"]).as_py() != accounts.num_rows:
        raise ValueError("an account has more than one row")
    placed = accounts.num_rows - accounts["campaign_id"].null_count
    members = sum(len(c.members) for c in campaigns)
    if placed != members and "cleared_at" not in accounts.column_names:
        raise ValueError(f"{placed} accounts carry a campaign_id, but the campaigns have {members} members")

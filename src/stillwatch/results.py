"""What a run found and how it was made, and the files that say so.

The files are the ones of the contract: ``accounts.parquet``, ``campaigns.json``, ``review.json``, ``report.html`` and
``run.json``. They appear together or not at all: all are written beside their place, then moved in, ``run.json`` last.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stillwatch.errors import Reject
from stillwatch.progress import Timing
from stillwatch.store.state import Staging
from stillwatch.tables import UTC_US
from stillwatch.types import CAPABILITIES, Campaign, Member

REASON = pa.struct([("family", pa.string()), ("bits", pa.float64()), ("text", pa.string())])

ACCOUNTS_SCHEMA = pa.schema([
    pa.field("account_id", pa.string(), nullable=False),
    pa.field("campaign_id", pa.string()),
    pa.field("risk", pa.float64(), nullable=False),
    pa.field("first_flagged_at", UTC_US),
    pa.field("reasons", pa.list_(REASON), nullable=False),
])  # fmt: skip
"""``accounts.parquet``: one row for every account seen. ``campaign_id`` is null outside campaigns."""

CLEARED_AT = pa.field("cleared_at", UTC_US)
"""The extra column of a replay: when a later step took back what an earlier one had flagged."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What was read, and what of it could be judged. Times are those of the first and last exchange kept."""

    exchanges_read: int
    exchanges_kept: int
    accounts: int
    models: int
    first_time: datetime | None = None
    last_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """How a result was made.

    ``coverage`` gives, for each canonical column, the share of rows that hold it; ``blind`` the detectors that could not
    work, each with a sentence naming the columns it missed. ``settings`` must hold no secret.
    """

    version: str
    settings: Mapping[str, Any]
    counts: Counts
    started: datetime
    finished: datetime
    rejects: tuple[Reject, ...] = ()
    timings: Mapping[str, Timing] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    blind: Mapping[str, str] = field(default_factory=dict)
    coverage: Mapping[str, float] = field(default_factory=dict)
    unknown_columns: tuple[str, ...] = ()

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
    """What was concluded: campaigns to act on, clusters worth a look, look-alikes let go, and a row for each account."""

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
    everybody else has ``base_risk`` and no reason. An account in several clusters keeps the first, campaigns before review.
    """
    flagged: dict[str, tuple[Member, str | None]] = {}
    for campaign in campaigns:
        for member in campaign.members:
            flagged.setdefault(member.account_id, (member, campaign.campaign_id))
    for cluster in review:
        for member in cluster.members:
            flagged.setdefault(member.account_id, (member, None))
    held = _flagged_columns(flagged, flagged_at or {}, base_risk)
    ids = seen.combine_chunks() if isinstance(seen, pa.ChunkedArray) else seen
    at = pc.fill_null(pc.index_in(ids, value_set=pa.array(list(flagged), pa.string())), len(flagged))
    return pa.Table.from_arrays([ids.cast(pa.string()), *(c.take(at) for c in held)], schema=ACCOUNTS_SCHEMA)


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
        pa.array([*reasons, []], pa.list_(REASON)),
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


def write(findings: Findings, run: Run, out: Path) -> None:
    """Write the contract's files into the folder ``out``, made if need be; those of an earlier run are replaced.

    Raises OSError as the file system does; then nothing of this run is left in ``out``.
    """
    from stillwatch.report import page

    with Staging(out) as staged:
        pq.write_table(findings.accounts, staged / "accounts.parquet", compression="zstd")
        _write_json(staged / "campaigns.json", [campaign_json(c) for c in findings.campaigns])
        _write_json(staged / "review.json", [campaign_json(c) for c in findings.review])
        (staged / "report.html").write_text(page(findings, run), encoding="utf-8")
        _write_json(staged / "run.json", run_json(findings, run))


def campaign_json(campaign: Campaign) -> dict[str, Any]:
    """A campaign in the contract's shape. Shares and bits are rounded; capabilities and evidence are strongest first."""
    unknown = set(campaign.capabilities) - set(CAPABILITIES)
    if unknown:
        raise ValueError(f"campaign {campaign.campaign_id}: capabilities the contract does not name: {sorted(unknown)}")
    pivot = campaign.pivot
    return {
        "campaign_id": campaign.campaign_id,
        "accounts": len(campaign.members),
        "exchanges": campaign.exchanges,
        "first_seen": iso(campaign.first_seen),
        "last_seen": iso(campaign.last_seen),
        "detected_at": iso(campaign.detected_at) if campaign.detected_at else None,
        "confidence": probability(campaign.confidence),
        "q_value": float(f"{campaign.q_value:.3g}"),
        "capabilities": _ranked(campaign.capabilities, 4),
        "evidence": _ranked(campaign.evidence, 1),
        "models": list(campaign.models),
        "pivot": pivot and {
            "model": pivot.model,
            "share_24h": round(pivot.share_24h, 4),
            "benign_share_24h": round(pivot.benign_share_24h, 4),
        },
        "summary": campaign.summary,
    }  # fmt: skip


def run_json(findings: Findings, run: Run) -> dict[str, Any]:
    """How the result was made, in the shape of ``run.json``."""
    counts, spent = run.counts, run.spent
    return {
        "version": run.version,
        "started": iso(run.started),
        "finished": iso(run.finished),
        "settings": dict(run.settings),
        "rows": {
            "exchanges_read": counts.exchanges_read,
            "exchanges_kept": counts.exchanges_kept,
            "exchanges_rejected": sum(run.rejected.values()),
            "accounts": counts.accounts,
            "models": counts.models,
        },
        "first_time": iso(counts.first_time) if counts.first_time else None,
        "last_time": iso(counts.last_time) if counts.last_time else None,
        "rejected": run.rejected,
        "rejects": [{"reason": r.reason, "rows": r.rows, "place": r.place, "hint": r.hint} for r in run.rejects],
        "coverage": {name: round(part, 4) for name, part in run.coverage.items()},
        "unknown_columns": list(run.unknown_columns),
        "blind": dict(run.blind),
        "timings": {name: _timing_json(t) for name, t in run.timings.items()},
        "total": _timing_json(spent),
        "exchanges_per_cpu_s": round(counts.exchanges_kept / spent.cpu_s) if spent.cpu_s > 0 else None,
        "peak_memory_bytes": run.peak_memory_bytes,
        "found": {
            "campaigns": len(findings.campaigns),
            "accounts_in_campaigns": sum(len(c.members) for c in findings.campaigns),
            "review": len(findings.review),
            "let_go": len(findings.let_go),
        },
    }


def iso(moment: datetime) -> str:
    """A moment as ISO 8601 in UTC, ending in Z; a moment without zone is refused."""
    if moment.tzinfo is None:
        raise ValueError(f"time without a zone: {moment!r}")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def probability(value: float) -> float:
    """Four decimals, never rounded up to a certainty that was not there."""
    return round(value, 4) if value in (0.0, 1.0) else min(max(round(value, 4), 0.0001), 0.9999)


def _ranked(shares: Mapping[str, float], digits: int) -> dict[str, float]:
    rounded = {name: round(value, digits) for name, value in shares.items()}
    return {name: v for name, v in sorted(rounded.items(), key=lambda item: (-item[1], item[0])) if v}


def _timing_json(timing: Timing) -> dict[str, float]:
    return {"wall_s": round(timing.wall_s, 3), "cpu_s": round(timing.cpu_s, 3)}


def _write_json(path: Path, content: object) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    path.write_text(text + "\n", encoding="utf-8")


def _plain(value: object) -> object:
    """Settings may hold paths, times and sets; JSON does not."""
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    return value.isoformat() if isinstance(value, date) else str(value)

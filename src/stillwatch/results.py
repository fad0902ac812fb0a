"""The files that say what a run found, exactly as the contract has them.

``accounts.parquet``, ``campaigns.json``, ``review.json``, ``report.html`` and ``run.json`` appear together or not at
all: they are written beside their place, then moved in, ``run.json`` last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stillwatch.findings import Counts, Findings, Run, accounts_table
from stillwatch.progress import Timing
from stillwatch.report import page
from stillwatch.store.state import Staging
from stillwatch.types import CAPABILITIES, Campaign

__all__ = ["Counts", "Findings", "Run", "accounts_table", "campaign_json", "run_json", "write"]


def write(findings: Findings, run: Run, out: Path, history: Sequence[Mapping[str, Any]] | None = None) -> None:
    """Write the contract's files into the folder ``out``, made if need be; those of an earlier run are replaced.

    ``history`` is a replay's: what became of each campaign, and goes to ``history.json``. Raises OSError as the file
    system does; then nothing of this run is left in ``out``.
    """
    with Staging(out) as staged:
        pq.write_table(findings.accounts, staged / "accounts.parquet", compression="zstd")
        _write_json(staged / "campaigns.json", [campaign_json(c) for c in findings.campaigns])
        _write_json(staged / "review.json", [campaign_json(c) for c in findings.review])
        (staged / "report.html").write_text(page(findings, run), encoding="utf-8", errors="backslashreplace")
        if history is not None:
            _write_json(staged / "history.json", history)
        _write_json(staged / "run.json", run_json(findings, run))


def campaign_json(campaign: Campaign) -> dict[str, Any]:
    """A campaign in the contract's shape: shares and bits rounded, capabilities and evidence strongest first."""
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
            "exchanges_rejected": counts.exchanges_read - counts.exchanges_kept - counts.exchanges_later,
            **({"exchanges_later": counts.exchanges_later} if counts.exchanges_later else {}),
            "accounts": counts.accounts,
            "models": counts.models,
        },
        "first_time": iso(counts.first_time) if counts.first_time else None,
        "last_time": iso(counts.last_time) if counts.last_time else None,
        "rejected": run.rejected,
        "rejects": [{"reason": r.reason, "rows": r.rows, "place": r.place, "hint": r.hint} for r in run.rejects],
        "changed": [{"reason": n.reason, "rows": n.rows, "place": n.place} for n in run.notes],
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
        **run.state,
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
    # A file's name may be no text; JSON escapes such bytes just as Python does.
    path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def _plain(value: object) -> object:
    """Settings may hold paths, times and sets; JSON does not."""
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    return value.isoformat() if isinstance(value, date) else str(value)

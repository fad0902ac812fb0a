"""The last judgement as it lies in ``home/results``: what the policy is asked about, and what people are shown.

A result is whole where there is a ``run.json``: it goes first when a newer one is moved in, and comes last. What is read here is
of one run, or nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stillwatch.errors import Terminal, Transient
from stillwatch.policy import Newest, Suspect, Told

RUN = "run.json"


@dataclass(frozen=True, slots=True)
class Mark:
    """Tells one result from the next: its ``run.json``'s inode, time and size."""

    inode: int
    changed_ns: int
    size: int


@dataclass(frozen=True, slots=True)
class Result:
    """One judgement: campaigns and review as their files have them, a row per account, how it was made."""

    mark: Mark
    run: Mapping[str, Any]
    campaigns: Sequence[Mapping[str, Any]] = ()
    review: Sequence[Mapping[str, Any]] = ()
    accounts: pa.Table = field(default_factory=lambda: pa.table({"account_id": pa.array([], pa.string())}))

    @property
    def finished(self) -> datetime:
        """When the judgement ended, UTC."""
        return datetime.fromisoformat(self.run["finished"])

    @property
    def exchanges(self) -> int:
        """Exchanges judged."""
        return int(self.run["rows"]["exchanges_kept"])

    def campaign(self, campaign_id: str) -> Mapping[str, Any] | None:
        """A campaign or a case for review by its id."""
        return next((c for c in (*self.campaigns, *self.review) if c["campaign_id"] == campaign_id), None)

    def members(self, campaign_id: str) -> list[dict[str, Any]]:
        """The rows of a campaign's accounts, riskiest first."""
        rows = self.accounts.filter(pc.equal(self.accounts["campaign_id"], campaign_id))
        return rows.sort_by([("risk", "descending"), ("account_id", "ascending")]).to_pylist()

    def account(self, account_id: str) -> dict[str, Any] | None:
        """An account's row, None where it was not seen."""
        rows = self.accounts.filter(pc.equal(self.accounts["account_id"], account_id)).to_pylist()
        return rows[0] if rows else None

    def newest(self, asked: Iterable[str]) -> Newest:
        """For the policy: campaigns with their accounts, and which of those ``asked`` about were seen and are in none.

        One that was flagged and not cleared is not seen to be in none: what it was flagged by may only have been forgotten.
        """
        placed = self.accounts.filter(pc.is_valid(self.accounts["campaign_id"]))
        by_campaign: dict[str, list[Suspect]] = {}
        for row in placed.select(["account_id", "campaign_id", "risk", "first_flagged_at"]).to_pylist():
            suspect = Suspect(row["account_id"], row["risk"], row["first_flagged_at"])
            by_campaign.setdefault(row["campaign_id"], []).append(suspect)
        told = tuple(_told(c, by_campaign.get(c["campaign_id"], [])) for c in self.campaigns)
        free = self.accounts.filter(_is_free(self.accounts))["account_id"]
        wanted = pa.array(sorted(set(asked)), pa.string())
        return Newest(told, frozenset(wanted.filter(pc.is_in(wanted, value_set=free)).to_pylist()), self.exchanges)


def _is_free(accounts: pa.Table) -> pa.ChunkedArray:
    outside = pc.is_null(accounts["campaign_id"])
    if "cleared_at" not in accounts.column_names:
        return outside
    return pc.and_(outside, pc.or_(pc.is_null(accounts["first_flagged_at"]), pc.is_valid(accounts["cleared_at"])))


def mark(folder: Path) -> Mark | None:
    """The result that is there now, None where there is none or one is being moved in."""
    try:
        status = (folder / RUN).stat()
    except FileNotFoundError:
        return None
    return Mark(status.st_ino, status.st_mtime_ns, status.st_size)


def read(folder: Path) -> Result | None:
    """The result in ``folder``, None where there is none.

    Transient where a newer one came in between (read again), Terminal where a file of it cannot be understood.
    """
    before = mark(folder)
    if before is None:
        return None
    try:
        run, campaigns, review = (_json(folder / name) for name in (RUN, "campaigns.json", "review.json"))
        accounts = pq.read_table(folder / "accounts.parquet")
        result = Result(before, run, campaigns, review, accounts)
        _ = result.finished, result.exchanges
    except FileNotFoundError as e:
        raise Transient(f"{e.filename}: was replaced while it was read", hint="it is read again") from e
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as e:
        if mark(folder) != before:
            raise Transient(f"{folder}: was replaced while it was read", hint="it is read again") from e
        raise Terminal(f"{folder}: the result cannot be read: {e}", hint="the next judgement replaces it") from e
    if mark(folder) != before:
        raise Transient(f"{folder}: was replaced while it was read", hint="it is read again")
    return result


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _told(campaign: Mapping[str, Any], suspects: Sequence[Suspect]) -> Told:
    return Told(
        campaign_id=campaign["campaign_id"],
        confidence=campaign["confidence"],
        exchanges=campaign["exchanges"],
        last_seen=datetime.fromisoformat(campaign["last_seen"]),
        detected_at=datetime.fromisoformat(campaign["detected_at"]) if campaign["detected_at"] else None,
        capabilities=campaign["capabilities"],
        accounts=tuple(suspects),
    )

"""What a policy is asked about, read from the folder of a scan or a replay and from the accounts file."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stillwatch.adapters import read_accounts
from stillwatch.errors import UsageError
from stillwatch.policy.nouns import Newest, Suspect, Told, Traffic

HINT = "RESULT is the folder that stillwatch scan or replay wrote: accounts.parquet, campaigns.json and run.json"

TIES = {"card": "payment_hash", "org": "org_id", "phone": "phone_hash"}
"""What accounts may share, and the column of the accounts file that holds it."""


def findings_of(folder: Path, watched: Collection[str] | None = None) -> Newest:
    """The findings in a folder of results. UsageError where a file cannot be read or lacks something.

    ``elsewhere`` holds only accounts of ``watched``, the ones under action, if these are given.
    """
    listed, rows = _json(folder / "campaigns.json"), _accounts(folder / "accounts.parquet")
    members = _members(rows)
    try:
        campaigns = tuple(_told(c, members.get(c["campaign_id"], ())) for c in listed)
        kept = int(_json(folder / "run.json")["rows"]["exchanges_kept"])
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise UsageError(f"{folder}: not what a scan or a replay writes: {e!r}", hint=HINT) from e
    free = rows.filter(pc.is_null(rows["campaign_id"]))["account_id"]
    if watched is not None:
        free = free.filter(pc.is_in(free, value_set=pa.array(sorted(watched), pa.string())))
    return Newest(campaigns, frozenset(free.to_pylist()), kept)


def end_of(folder: Path) -> datetime:
    """When the log that was judged ended, UTC."""
    try:
        return _moment(_json(folder / "run.json")["last_time"])
    except (KeyError, TypeError, ValueError) as e:
        raise UsageError(f"{folder / 'run.json'}: does not say when the log ended: {e!r}", hint=HINT) from e


def traffic_of(accounts: pa.Table, exchanges: Mapping[str, int] | None = None, total: int = 0) -> Traffic:
    """What the accounts table declares, with counts of exchanges if there are any."""
    return Traffic(exchanges or {}, total, _held(accounts, "org_id"))


def ties_of(accounts: pa.Table) -> dict[str, dict[str, str]]:
    """By kind, the value that each account of the table holds."""
    return {kind: _held(accounts, column) for kind, column in TIES.items()}


def accounts_of(path: Path) -> pa.Table:
    """The accounts file, in the contract's columns; InputRejected where no row can be read."""
    return read_accounts(path)[0]


def _held(accounts: pa.Table, column: str) -> dict[str, str]:
    some = accounts.filter(pc.is_valid(accounts[column]))
    return dict(zip(some["account_id"].to_pylist(), some[column].to_pylist()))


def _told(campaign: Mapping[str, Any], suspects: tuple[Suspect, ...]) -> Told:
    detected = campaign["detected_at"]
    return Told(
        campaign_id=campaign["campaign_id"],
        confidence=float(campaign["confidence"]),
        exchanges=int(campaign["exchanges"]),
        last_seen=_moment(campaign["last_seen"]),
        detected_at=_moment(detected) if detected else None,
        capabilities={str(name): float(share) for name, share in campaign["capabilities"].items()},
        accounts=suspects,
    )


def _members(rows: pa.Table) -> dict[str, tuple[Suspect, ...]]:
    some = rows.filter(pc.is_valid(rows["campaign_id"])).select(
        ["campaign_id", "account_id", "risk", "first_flagged_at"]
    )
    found: dict[str, list[Suspect]] = {}
    for campaign_id, account_id, risk, flagged in zip(*(some[n].to_pylist() for n in some.column_names)):
        found.setdefault(campaign_id, []).append(Suspect(account_id, risk, flagged))
    return {campaign_id: tuple(suspects) for campaign_id, suspects in found.items()}


def _accounts(file: Path) -> pa.Table:
    try:
        return pq.read_table(file, columns=["account_id", "campaign_id", "risk", "first_flagged_at"])
    except (OSError, pa.ArrowException) as e:
        raise UsageError(f"{file}: cannot be read: {e}", hint=HINT) from e


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise UsageError(f"{file}: cannot be read: {e}", hint=HINT) from e


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)

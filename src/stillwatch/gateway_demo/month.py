"""What is sent: a simulated month that ends today, each account under the name that a proxy's log has for it.

Events have their own time. All until midnight (UTC) comes in with the times of the simulation, as an archive would; today's calls
are made now, through the gateway, so that their times are the gateway's own: a day in a minute, in the order of the log.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stillwatch.serving.gateways import hashed
from stillwatch.simulate import World, parse_campaign, simulate

DAYS = 28
BODY_ROWS = 4000
"""Exchanges of the archive in one body."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is simulated. ``campaigns`` are as ``stillwatch simulate --campaign`` takes them."""

    accounts: int
    exchanges: int
    campaigns: tuple[str, ...]


QUICK = Size(600, 12_000, ("balanced_reasoning:40",))
USUAL = Size(1_000, 24_000, ("balanced_reasoning:50", "tagged_traces:40"))


@dataclass(frozen=True, slots=True)
class Call:
    """One of today's requests, and what the log says was answered. ``account`` is the simulation's name of who calls."""

    account: str
    model: str
    prompt: str
    response: str
    system: str
    end_user: str
    ip: str
    user_agent: str
    tools: tuple[str, ...]
    max_tokens: int
    input_tokens: int
    output_tokens: int

    def body(self) -> dict[str, Any]:
        """The request's fields in OpenAI's dialect; what was streamed is asked for in one piece."""
        said = [{"role": "system", "content": self.system}] if self.system else []
        optional = {
            "user": self.end_user, "max_tokens": self.max_tokens,
            "tools": [{"type": "function", "function": {"name": t, "parameters": {}}} for t in self.tools],
        }  # fmt: skip
        body = {"model": self.model, "messages": [*said, {"role": "user", "content": self.prompt}]}
        return body | {name: value for name, value in optional.items() if value}


@dataclass(frozen=True, slots=True)
class Month:
    """``archive`` has the rows until today, ``accounts`` what they declared, ``planted`` names by operator, ``names`` the
    simulation's name of each account. All but ``names`` and ``today`` go by the names that the proxy's log has."""

    archive: pa.Table
    today: tuple[Call, ...]
    accounts: pa.Table
    models: Path
    planted: Mapping[str, frozenset[str]]
    names: Mapping[str, str]

    def bodies(self) -> Iterator[bytes]:
        """The archive as bodies of JSON lines."""
        for at in range(0, self.archive.num_rows, BODY_ROWS):
            yield lines(self.archive.slice(at, BODY_ROWS))


def secret_of(account: str) -> str:
    """The key by which an account calls the gateway."""
    return f"sk-{account}"


def name_of(account: str) -> str:
    """What the proxy's log calls an account: the hash of its key, and that is what it is judged and acted on by."""
    return hashed(secret_of(account))


def simulated(folder: Path, size: Size, seed: int, now: datetime) -> Month:
    """A month whose last day is that of ``now``, written to ``folder`` and read back."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    plans = tuple(parse_campaign(text) for text in size.campaigns)
    start = midnight - timedelta(days=DAYS - 1)
    simulate(World(seed, size.accounts, size.exchanges, DAYS, start, plans), folder)
    rows, accounts = pq.read_table(folder / "exchanges"), pq.read_table(folder / "accounts.parquet")
    is_past = pc.less(rows["time"], pa.scalar(midnight, rows["time"].type))
    created, latest = accounts["created_at"], pa.scalar(now, accounts["created_at"].type)
    created = pc.if_else(pc.greater(created, latest), latest, created)
    accounts = accounts.set_column(accounts.column_names.index("created_at"), "created_at", created)
    ids = accounts["account_id"].to_pylist()
    return Month(
        archive=_renamed(rows.filter(is_past)),
        today=tuple(_call(r) for r in rows.filter(pc.invert(is_past)).sort_by("time").to_pylist()),
        accounts=_renamed(accounts),
        models=folder / "models.csv",
        planted=_planted(folder / "truth.parquet"),
        names={name_of(a): a for a in ids},
    )


def _renamed(table: pa.Table) -> pa.Table:
    names = pa.array([name_of(a) for a in table["account_id"].to_pylist()], pa.string())
    return table.set_column(table.column_names.index("account_id"), "account_id", names)


def _call(row: Mapping[str, Any]) -> Call:
    return Call(
        account=row["account_id"], model=row["model"], prompt=row["prompt"] or "...", response=row["response"] or "",
        system=row["system"] or "", end_user=row["end_user"] or "", ip=row["ip"] or "", user_agent=row["user_agent"] or "",
        tools=tuple(row["tools"] or ()), max_tokens=row["max_tokens"] or 0, input_tokens=row["input_tokens"] or 0,
        output_tokens=row["output_tokens"] or 0,
    )  # fmt: skip


def _planted(truth: Path) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for row in pq.read_table(truth, columns=["account_id", "campaign_id"]).to_pylist():
        if row["campaign_id"]:
            found.setdefault(row["campaign_id"], set()).add(name_of(row["account_id"]))
    return {campaign: frozenset(names) for campaign, names in found.items()}


def lines(table: pa.Table) -> bytes:
    """Rows as JSON lines, without what is null; times in ISO 8601."""
    return b"".join(json.dumps(_plain(row)).encode() + b"\n" for row in table.to_pylist())


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {n: v.isoformat() if isinstance(v, datetime) else v for n, v in row.items() if v is not None}

"""What the spool holds: its rows and tables, what may be put into it and what is told of it, and its errors.

Of an exchange it holds what fingerprints read of it and the names of account and model, never content.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stillwatch.errors import Terminal, Transient
from stillwatch.fingerprints import SYSTEM_SKETCH_WIDTH, UNOBSERVED, Observed, observe
from stillwatch.privacy import Privacy
from stillwatch.tables import ACCOUNTS, FACTS, SKETCH_WIDTH, UTC_US, Column, Table

OBSERVED = pa.schema([f for f in FACTS.schema if f.name not in UNOBSERVED])
"""The facts of an exchange that are known as soon as it has come in."""
SPOOLED = pa.schema([
    pa.field("account_id", pa.string(), nullable=False),
    pa.field("model", pa.string(), nullable=False),
    *OBSERVED,
    pa.field("sketch", pa.list_(pa.uint32(), SKETCH_WIDTH)),
    pa.field("system_sketch", pa.list_(pa.uint32(), SYSTEM_SKETCH_WIDTH)),
])  # fmt: skip
"""A row of the spool: names of account and model, the facts, and the sketches of prompt and system text (0 = empty)."""
ACCOUNT_EVENTS = Table("account events", "what was said of an account, and when", (
    Column("at", UTC_US, "when it was so; the latest word on a column holds", True), *ACCOUNTS.columns,
))  # fmt: skip

CHANGES = (
    (
        "spool",
        """
        CREATE TABLE schemas (schema INTEGER PRIMARY KEY, bytes BLOB NOT NULL UNIQUE) STRICT;
        CREATE TABLE batches (
            batch INTEGER PRIMARY KEY AUTOINCREMENT,
            rows INTEGER NOT NULL,
            first INTEGER NOT NULL,
            last INTEGER NOT NULL,
            at INTEGER NOT NULL,
            schema INTEGER NOT NULL REFERENCES schemas,
            size INTEGER NOT NULL,
            crc INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE contents (batch INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
        CREATE TABLE exchanges (exchange INTEGER PRIMARY KEY) STRICT;
        CREATE TABLE dead (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            at INTEGER NOT NULL,
            source TEXT NOT NULL,
            reason TEXT NOT NULL,
            place TEXT NOT NULL,
            hint TEXT NOT NULL,
            record INTEGER NOT NULL,
            count INTEGER NOT NULL,
            UNIQUE (source, reason, record)
        ) STRICT;
        CREATE TABLE totals (name TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT;
        INSERT INTO totals VALUES ('dead', 0);
        CREATE TABLE accounts (account_id TEXT PRIMARY KEY, said TEXT NOT NULL) STRICT;""",
    ),
)
"""Changes of the spool's tables, in order. A shipped one is never edited."""


class Overload(Transient):
    """No room for more now; ``wait_s`` is when to come again, in seconds."""

    def __init__(self, message: str, *, wait_s: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds. ``bytes`` on disk; ``waiting_bytes`` and ``waiting_puts`` not yet written; ``joined_puts`` in one commit, which
    begins at most every ``join_s`` seconds while more is coming; ``dead_letters`` kept."""

    bytes: int = 16 << 30
    waiting_bytes: int = 64 << 20
    waiting_puts: int = 4096
    joined_puts: int = 200
    join_s: float = 0.01
    dead_letters: int = 10_000


class DamagedBatch(Terminal):
    """A batch whose bytes are not those that were written; ``number`` is its own."""

    def __init__(self, path: Path, number: int, why: str) -> None:
        hint = f"what came after can be read on from {number}; have senders repeat what they sent, if they can"
        super().__init__(f"{path}: batch {number} is damaged: {why}", hint=hint)
        self.number, self.why = number, why


@dataclass(frozen=True, slots=True)
class SetAside:
    """A damaged batch as it was taken out: what the spool says of it, in times of exchanges and of its commit, and its bytes as
    they are (None where there are none). ``freed`` ids were of no batch that can be read: an exchange that bore one may be
    sent again."""

    number: int
    rows: int
    first: datetime
    last: datetime
    at: datetime
    bytes: bytes | None
    freed: int = 0


@dataclass(frozen=True, slots=True)
class Dead:
    """Records that were refused for one reason: how many, the place of the first and a keyed hash of it, never its content."""

    reason: str
    place: str
    record: int
    count: int = 1
    hint: str = ""

    def __post_init__(self) -> None:
        if not -(2**63) <= self.record < 2**63:
            raise ValueError("the hash of a dead record must fit 64 bits, signed")
        if not all(map(is_whole, (self.reason, self.place, self.hint))):
            raise ValueError("what is said of a dead record must be whole Unicode")


def is_whole(text: str) -> bool:
    """Whether a text has no half characters, which no database keeps."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A ``Dead`` as kept: from which source, when last; ``count`` adds up over all times it came."""

    at: datetime
    source: str
    reason: str
    place: str
    hint: str
    record: int
    count: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a put: rows that are new, rows that the spool held already, records refused."""

    new: int
    duplicates: int
    dead: int


@dataclass(frozen=True, slots=True)
class Figures:
    """The spool in numbers. ``oldest`` and ``newest`` are times of exchanges, ``waiting`` rows not yet written, ``dead`` all
    records ever refused, ``last`` the number of the newest batch."""

    rows: int
    batches: int
    bytes: int
    oldest: datetime | None
    newest: datetime | None
    waiting: int
    dead: int
    accounts: int
    last: int


def fingerprinted(batch: pa.RecordBatch, privacy: Privacy) -> pa.Table:
    """Rows for the spool from a batch of ``EXCHANGES``: fingerprints read, content gone."""
    return spooled(batch["account_id"], batch["model"], observe(batch, privacy))


def spooled(account_id: pa.Array, model: pa.Array, seen: Observed) -> pa.Table:
    """Rows for the spool from observed ones and the names of account and model of each."""
    columns = dict(zip(seen.facts.schema.names, seen.facts.columns)) | {"account_id": account_id, "model": model}
    columns["sketch"] = _listed(seen.sketch, SKETCH_WIDTH)
    columns["system_sketch"] = _listed(seen.system_sketch, SYSTEM_SKETCH_WIDTH)
    return pa.Table.from_arrays([columns[n] for n in SPOOLED.names], schema=SPOOLED)


def observed(rows: pa.Table) -> Observed:
    """What ``fingerprints.observe`` gave for rows of the spool."""
    rows = rows.combine_chunks()
    facts = pa.RecordBatch.from_arrays([_one(rows[n]) for n in OBSERVED.names], schema=OBSERVED)
    return Observed(facts, _matrix(rows["sketch"], SKETCH_WIDTH), _matrix(rows["system_sketch"], SYSTEM_SKETCH_WIDTH))


def _listed(sketch: np.ndarray, width: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(sketch).reshape(-1)), width)


def _matrix(column: pa.ChunkedArray, width: int) -> np.ndarray:
    return np.asarray(_one(column).flatten()).reshape(-1, width)


def _one(column: pa.ChunkedArray) -> pa.Array:
    """The only chunk; an empty one where there is none."""
    return column.chunk(0) if column.num_chunks == 1 else pa.array([], column.type)


def words_of(events: pa.Table | None) -> list[tuple[Any, ...]]:
    """Words on accounts as they are kept, a row each; ValueError for another schema than ``ACCOUNT_EVENTS``."""
    if events is None:
        return []
    if not events.schema.equals(ACCOUNT_EVENTS.schema):
        raise ValueError("words on accounts must have the schema of ACCOUNT_EVENTS")
    return list(zip(*(events[f.name].cast(stored_type(f.type)).to_pylist() for f in ACCOUNT_EVENTS.schema)))


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The type in which a value of an account stands in JSON."""
    return pa.int64() if pa.types.is_timestamp(kind) else kind


def of_today(rows: pa.Table) -> pa.Table:
    """Rows of an earlier version in the schema of this one: what they lack is null, what is no more is left out."""
    if rows.schema.equals(SPOOLED):
        return rows
    has = set(rows.schema.names)
    columns = [rows[f.name].cast(f.type) if f.name in has else pa.nulls(len(rows), f.type) for f in SPOOLED]
    return pa.Table.from_arrays(columns, schema=SPOOLED)


def moment_of(us: int) -> datetime:
    """The moment so many microseconds after 1970."""
    return datetime.fromtimestamp(us // 10**6, UTC).replace(microsecond=us % 10**6)

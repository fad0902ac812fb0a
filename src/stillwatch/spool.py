"""What came in, fingerprinted, until it is judged: each exchange once, on disk before anybody is told so.

Rules that keep it right. One thread writes; it joins what waits into one transaction, and only a commit that reached the
disk (WAL, synchronous=FULL) resolves what was put. Ids of exchanges and the rows that bear them are in that same
transaction, so a row is there if and only if its id is, across crashes too. A batch has a number of its own, never given
again; numbers grow in the order of commits. Ids are kept as long as the batch that brought them.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.errors import Terminal, Transient
from stillwatch.spool_rows import (
    ACCOUNT_EVENTS,
    CHANGES,
    OBSERVED,
    SPOOLED,
    DamagedBatch,
    Dead,
    DeadLetter,
    Figures,
    Limits,
    Overload,
    SetAside,
    Stored,
    fingerprinted,
    is_whole,
    moment_of,
    observed,
    of_today,
    spooled,
    stored_type,
    words_of,
)
from stillwatch.store.migrations import migrate
from stillwatch.tables import ACCOUNTS

__all__ = [
    "ACCOUNT_EVENTS", "OBSERVED", "SPOOLED", "DamagedBatch", "Dead", "DeadLetter", "Figures", "Limits", "Overload", "SetAside",
    "Spool", "Stored", "fingerprinted", "observed", "spooled",
]  # fmt: skip

BUSY_S = 10.0
"""How long a write waits for another process's, in seconds."""
STEP = 32
"""Batches that one transaction forgets."""
IDS_AT_ONCE = 20_000
"""Ids that one transaction frees."""
STEP_PAGES = 512
"""Pages that are given back to the disk between two of those."""
WAL_BYTES = 64 << 20
"""What the WAL is cut back to after a burst."""


@dataclass(slots=True)
class _Put:
    """One put that waits for its commit; ``said`` are words on accounts, a row each of ``ACCOUNT_EVENTS``."""

    rows: pa.Table
    dead: Sequence[Dead]
    source: str
    said: Sequence[tuple[Any, ...]]
    done: Future[Stored] = field(default_factory=Future)

    def __post_init__(self) -> None:
        # What would fail in the writer would fail for all that share its commit.
        if not self.rows.schema.equals(SPOOLED):
            raise ValueError("rows for the spool must have the schema SPOOLED")
        if self.rows["exchange"].null_count or self.rows["time"].null_count:
            raise ValueError("rows for the spool need an exchange and a time")
        if not is_whole(self.source):
            raise ValueError("the name of a source must be whole Unicode")
        # It is begun: whoever waits for it can no longer call it off.
        self.done.set_running_or_notify_cancel()

    @property
    def nbytes(self) -> int:
        # A refused record and a word on an account weigh about this much.
        return int(self.rows.nbytes) + 512 * (1 + len(self.dead) + len(self.said))


class Spool:
    """The spool in one SQLite file. ``put`` from as many threads as there are; reading goes on beside it, in any process."""

    def __init__(self, path: Path, limits: Limits | None = None) -> None:
        self._path, self._limits = path, limits or Limits()
        self._changed = threading.Condition()
        self._waiting: deque[_Put] = deque()
        self._waiting_bytes = self._waiting_rows = self._writing_rows = 0
        self._rate = 10e6
        self._closed = False
        self._writer: threading.Thread | None = None
        self._writes = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        with _faults(path), closing(self._connect()) as db:
            if not db.execute("PRAGMA page_count").fetchone()[0]:
                # Before there are tables, or it does nothing but wait for the writer.
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")
            migrate(db, CHANGES, "spool")
            self._schema = _schema_number(db)
            self._used = self._size(db)
            # A file that is damaged where it matters most is found out now, not when something is lost.
            db.execute("SELECT count(*), sum(rows) FROM batches").fetchall()

    def put(
        self, rows: pa.Table, dead: Sequence[Dead] = (), source: str = "", accounts: pa.Table | None = None
    ) -> Stored:
        """Keep rows of ``SPOOLED``, refused records and words on accounts (``ACCOUNT_EVENTS``); returns once all is on disk.

        A row whose ``exchange`` the spool holds, or that came earlier in ``rows``, is a duplicate and left out. Overload
        where there is no room, Transient where it could not be written (a full disk, a busy file): nothing of it is kept
        then, and the same call may be made again.
        """
        return self.submit(rows, dead, source, accounts).result()

    def submit(
        self, rows: pa.Table, dead: Sequence[Dead] = (), source: str = "", accounts: pa.Table | None = None
    ) -> Future[Stored]:
        """As ``put``, without waiting for the disk: the future has what ``put`` returns or raises. Overload at once."""
        put = _Put(rows, tuple(dead), source, words_of(accounts))
        with self._changed:
            if self._closed:
                raise Terminal(f"{self._path}: the spool is closed")
            self._check_room(put)
            self._waiting.append(put)
            self._waiting_bytes += put.nbytes
            self._waiting_rows += rows.num_rows
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_all, name="spool", daemon=True)
                self._writer.start()
            self._changed.notify_all()
        return put.done

    def _check_room(self, put: _Put) -> None:
        limits = self._limits
        if self._used + self._waiting_bytes + put.nbytes > limits.bytes:
            raise Overload(
                f"{self._path}: the spool holds {self._used:,} bytes and may hold {limits.bytes:,}",
                wait_s=60.0, hint="let what is judged be forgotten sooner, or allow the spool more bytes",
            )  # fmt: skip
        # One put larger than the bound may still go alone.
        is_full = self._waiting_bytes + put.nbytes > limits.waiting_bytes or len(self._waiting) >= limits.waiting_puts
        if is_full and self._waiting:
            wait_s = min(60.0, max(1.0, self._waiting_bytes / self._rate))
            raise Overload(
                f"{self._path}: {self._waiting_bytes:,} bytes wait to be written",
                wait_s=wait_s, hint="the disk is slower than what comes in: send less, or give the spool a faster one",
            )  # fmt: skip

    # The writer

    def _write_all(self) -> None:
        db: sqlite3.Connection | None = None
        began = 0.0
        while puts := self._next(began):
            began = time.monotonic()
            try:
                with _faults(self._path), self._writes:
                    db = db or self._connect()
                    stored = self._commit(db, puts)
                    self._used = self._size(db)
            except Exception as e:  # the writer must survive: whoever waits is told
                # The next write begins with a fresh connection.
                if db is not None:
                    db.close()
                db = None
                self._settle(puts, began, e)
            else:
                self._settle(puts, began, stored)
        if db is not None:
            db.close()

    def _next(self, began: float) -> list[_Put]:
        """Puts for one commit, once it is time; none when the spool is closed and all is written."""
        limits = self._limits
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            while not self._closed and len(self._waiting) < limits.joined_puts:
                left = began + limits.join_s - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            puts = [self._waiting.popleft() for _ in range(min(len(self._waiting), limits.joined_puts))]
            self._writing_rows = sum(p.rows.num_rows for p in puts)
            return puts

    def _settle(self, puts: Sequence[_Put], began: float, told: Sequence[Stored] | Exception) -> None:
        took = sum(p.nbytes for p in puts)
        with self._changed:
            self._waiting_bytes -= took
            self._waiting_rows -= sum(p.rows.num_rows for p in puts)
            self._writing_rows = 0
            self._rate += 0.2 * (took / max(1e-3, time.monotonic() - began) - self._rate)
        for number, put in enumerate(puts):
            if isinstance(told, Exception):
                put.done.set_exception(_again(told))
            else:
                put.done.set_result(told[number])

    def _commit(self, db: sqlite3.Connection, puts: Sequence[_Put]) -> list[Stored]:
        rows = pa.concat_tables([p.rows for p in puts])
        exchange = rows["exchange"].to_numpy()
        db.execute("BEGIN IMMEDIATE")
        try:
            is_new = _entered(db, exchange)
            if is_new.any():
                self._append(db, rows.filter(pa.array(is_new)))
            for put in puts:
                self._bury(db, put.dead, put.source)
                _say(db, put.said)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return list(_shares(puts, is_new))

    def _append(self, db: sqlite3.Connection, rows: pa.Table) -> None:
        times = pc.min_max(rows["time"].cast(pa.int64())).as_py()
        message = rows.combine_chunks().to_batches()[0].serialize()
        packed = pa.Codec("zstd", 1).compress(message, asbytes=True)
        row = (rows.num_rows, times["min"], times["max"], _now(), self._schema, message.size, zlib.crc32(packed))
        sql = "INSERT INTO batches (rows, first, last, at, schema, size, crc) VALUES (?, ?, ?, ?, ?, ?, ?)"
        number = db.execute(sql, row).lastrowid
        db.execute("INSERT INTO contents VALUES (?, ?)", (number, packed))

    def _bury(self, db: sqlite3.Connection, dead: Sequence[Dead], source: str) -> None:
        if not dead:
            return
        now = _now()
        db.executemany(
            "INSERT INTO dead (at, source, reason, place, hint, record, count) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (source, reason, record) DO UPDATE"
            " SET at = excluded.at, place = excluded.place, hint = excluded.hint, count = count + excluded.count",
            [(now, source, d.reason, d.place, d.hint, d.record, d.count) for d in dead],
        )
        db.execute("UPDATE totals SET count = count + ? WHERE name = 'dead'", (sum(d.count for d in dead),))
        db.execute(
            "DELETE FROM dead WHERE number IN (SELECT number FROM dead ORDER BY at DESC, number DESC LIMIT -1 OFFSET ?)",
            (self._limits.dead_letters,),
        )

    # Reading

    def read(self, after: int = 0) -> Iterator[tuple[int, pa.Table]]:
        """Batches later than number ``after`` that are there now, in the order of their commits, each with its number.

        DamagedBatch where one is; it names the number, so that reading can go on after it.
        """
        with closing(self._reader()) as db:
            with _faults(self._path):
                end = db.execute("SELECT coalesce(max(batch), 0) FROM batches").fetchone()[0]
            while (found := self._batch(db, after, end)) is not None:
                after = found[0]
                yield found

    def _batch(self, db: sqlite3.Connection, after: int, end: int) -> tuple[int, pa.Table] | None:
        sql = """SELECT batch, s.bytes, size, crc, c.bytes FROM batches JOIN schemas s USING (schema)
                 LEFT JOIN contents c USING (batch) WHERE batch > ? AND batch <= ? ORDER BY batch LIMIT 1"""
        with _faults(self._path):
            # To the end, so that no transaction stays open: it would keep the WAL from being folded in.
            found = db.execute(sql, (after, end)).fetchall()
        if not found:
            return None
        number, schema, size, crc, packed = found[0]
        if packed is None:
            raise DamagedBatch(self._path, number, "its bytes are gone")
        if zlib.crc32(packed) != crc:
            raise DamagedBatch(self._path, number, "its bytes are others than were written")
        try:
            message = pa.Codec("zstd").decompress(packed, decompressed_size=size)
            batch = pa.ipc.read_record_batch(message, pa.ipc.read_schema(pa.py_buffer(schema)))
            return number, of_today(pa.Table.from_batches([batch]))
        except (OSError, pa.ArrowException) as e:
            raise DamagedBatch(self._path, number, f"it cannot be understood: {e}") from e

    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """The latest refused records, newest first."""
        sql = "SELECT at, source, reason, place, hint, record, count FROM dead ORDER BY at DESC, number DESC LIMIT ?"
        return [DeadLetter(moment_of(at), *rest) for at, *rest in self._query(sql, limit)]

    def accounts(self) -> pa.Table:
        """What is known of each account, in the schema of ``ACCOUNTS``, by name: for each column the latest word."""
        rows = []
        for account_id, said in self._query("SELECT account_id, said FROM accounts ORDER BY account_id"):
            rows.append({"account_id": account_id} | {name: value for name, (_, value) in json.loads(said).items()})
        columns = [pa.array([r.get(f.name) for r in rows], stored_type(f.type)).cast(f.type) for f in ACCOUNTS.schema]
        return pa.Table.from_arrays(columns, schema=ACCOUNTS.schema)

    def figures(self) -> Figures:
        """The spool in numbers, now."""
        sql = """SELECT coalesce(sum(rows), 0), count(*), min(first), max(last),
                 (SELECT count FROM totals WHERE name = 'dead'), (SELECT count(*) FROM accounts),
                 (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'batches') FROM batches"""
        ((rows, batches, first, last, dead, accounts, number),) = self._query(sql)
        with self._changed:
            waiting, used = self._waiting_rows, self._used
        oldest, newest = (None if us is None else moment_of(us) for us in (first, last))
        return Figures(rows, batches, used, oldest, newest, waiting, dead, accounts, number)

    def last(self) -> int:
        """The number of the newest batch there ever was, 0 where there was none."""
        return int(self._query("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'batches'")[0][0])

    # Forgetting

    def forget(self, before: datetime, through: int | None = None) -> int:
        """Drop batches all of whose exchanges are older than ``before``, and their ids; how many rows that were. With
        ``through`` only batches up to that number: what came late, or since then, may not have been judged.

        In small steps between which puts go on, giving the room back to the disk. An exchange forgotten and sent again is
        new.
        """
        if before.tzinfo is None:
            raise ValueError("forget needs a time with a zone")
        forgotten = 0
        with _faults(self._path), closing(self._connect()) as db:
            end = 2**63 - 1 if through is None else through
            while dropped := self._forget_some(db, int(before.timestamp() * 1e6), end):
                forgotten += dropped
            while db.execute("PRAGMA freelist_count").fetchone()[0]:
                self._vacuum(db)
            self._used = self._size(db)
        return forgotten

    def _forget_some(self, db: sqlite3.Connection, before: int, through: int) -> int:
        with self._writes:
            db.execute("BEGIN IMMEDIATE")
            try:
                sql = "SELECT batch, rows FROM batches WHERE last < ? AND batch <= ? LIMIT ?"
                found = db.execute(sql, (before, through, STEP)).fetchall()
                for number, _ in found:
                    self._forget_batch(db, number)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        self._vacuum(db)
        return sum(rows for _, rows in found)

    def _forget_batch(self, db: sqlite3.Connection, number: int) -> None:
        found = self._batch(db, number - 1, number)
        if found is not None:
            ids = ",".join(map(str, found[1]["exchange"].to_pylist()))
            db.execute("DELETE FROM exchanges WHERE exchange IN (SELECT value FROM json_each(?))", (f"[{ids}]",))
        db.execute("DELETE FROM contents WHERE batch = ?", (number,))
        db.execute("DELETE FROM batches WHERE batch = ?", (number,))

    def _vacuum(self, db: sqlite3.Connection) -> None:
        """Give some of the empty pages back to the disk."""
        with self._writes:
            db.execute(f"PRAGMA incremental_vacuum({STEP_PAGES})").fetchall()

    # Taking out what is damaged

    def damaged(self, number: int) -> SetAside:
        """What there is of a batch, to be kept elsewhere before it is taken out. Terminal where there is no such batch."""
        sql = (
            """SELECT rows, first, last, at, c.bytes FROM batches LEFT JOIN contents c USING (batch) WHERE batch = ?"""
        )
        found = self._query(sql, number)
        if not found:
            raise Terminal(f"{self._path}: there is no batch {number}")
        rows, first, last, at, held = found[0]
        return SetAside(number, rows, moment_of(first), moment_of(last), moment_of(at), held)

    def take_out(self, number: int) -> int:
        """Take a damaged batch out of the spool, so that all others can be read and forgotten; how many ids were freed.

        Which ids it brought can no longer be read of it: those are freed that no batch has which can be read. Ids and rows are
        written in one transaction, so the ids of a moment lack none of the batches of that moment, and what comes in
        meanwhile is not looked at.
        """
        with _faults(self._path), closing(self._connect()) as db:
            db.execute("BEGIN")
            ids = np.fromiter((e for (e,) in db.execute("SELECT exchange FROM exchanges")), np.int64)
            end = db.execute("SELECT coalesce(max(batch), 0) FROM batches").fetchone()[0]
            db.execute("COMMIT")
            orphans = np.setdiff1d(ids, self._ids_of_readable(db, end))
            for part in np.array_split(orphans, -(-len(orphans) // IDS_AT_ONCE) or 1):
                self._change(
                    db, "DELETE FROM exchanges WHERE exchange IN (SELECT value FROM json_each(?))", _listed_ids(part)
                )
            # Last: a crash before leaves the batch to be found again.
            self._change(db, "DELETE FROM contents WHERE batch = ?", number)
            self._change(db, "DELETE FROM batches WHERE batch = ?", number)
        return len(orphans)

    def _ids_of_readable(self, db: sqlite3.Connection, end: int) -> np.ndarray:
        ids, after = [np.empty(0, np.int64)], 0
        while after < end:
            try:
                if (found := self._batch(db, after, end)) is None:
                    break
                after = found[0]
                ids.append(found[1]["exchange"].to_numpy())
            except DamagedBatch as e:
                after = e.number
        return np.concatenate(ids)

    def _change(self, db: sqlite3.Connection, sql: str, value: object) -> None:
        with self._writes:
            db.execute(sql, (value,))

    # Connections

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        return db

    def _reader(self) -> sqlite3.Connection:
        with _faults(self._path):
            db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA query_only = 1")
            return db

    def _query(self, sql: str, *values: object) -> list[Any]:
        with _faults(self._path), closing(self._reader()) as db:
            return db.execute(sql, values).fetchall()

    def _size(self, db: sqlite3.Connection) -> int:
        """Bytes in use: pages that hold something, and the WAL."""
        pages, free, page = (
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        try:
            wal = os.stat(f"{self._path}-wal").st_size
        except FileNotFoundError:
            wal = 0
        return int((pages - free) * page + wal)

    def close(self) -> None:
        """Write what waits, then let go of the file. A put after that is Terminal."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._writer is not None:
            self._writer.join()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _listed_ids(ids: np.ndarray) -> str:
    """Ids as SQL takes them, all in one value."""
    return f"[{','.join(map(str, ids.tolist()))}]"


def _entered(db: sqlite3.Connection, exchange: np.ndarray) -> np.ndarray:
    """Enters the ids the spool does not hold; which rows brought one, the first of those that share it."""
    is_new = np.zeros(len(exchange), bool)
    ids, first = np.unique(exchange, return_index=True)
    if len(ids):
        sql = "INSERT OR IGNORE INTO exchanges SELECT value FROM json_each(?) RETURNING exchange"
        entered = np.array([e for (e,) in db.execute(sql, (_listed_ids(ids),)).fetchall()], np.int64)
        is_new[first[np.searchsorted(ids, entered)]] = True
    return is_new


def _shares(puts: Sequence[_Put], is_new: np.ndarray) -> Iterator[Stored]:
    at = 0
    for put in puts:
        rows = put.rows.num_rows
        new = int(is_new[at : at + rows].sum())
        yield Stored(new, rows - new, sum(d.count for d in put.dead))
        at += rows


def _say(db: sqlite3.Connection, said_now: Sequence[tuple[Any, ...]]) -> None:
    """Add words on accounts. For each column the latest holds, of two at one time the greater: so the order they come in
    does not matter."""
    for at, account_id, *values in said_now:
        row = db.execute("SELECT said FROM accounts WHERE account_id = ?", (account_id,)).fetchone()
        said = json.loads(row[0]) if row else {}
        for name, value in zip(ACCOUNTS.names[1:], values):
            if value is not None:
                said[name] = max(said.get(name, [at, value]), [at, value])
        text = json.dumps(said, separators=(",", ":"), sort_keys=True)
        db.execute("INSERT OR REPLACE INTO accounts VALUES (?, ?)", (account_id, text))


def _schema_number(db: sqlite3.Connection) -> int:
    packed, sql = SPOOLED.serialize().to_pybytes(), "SELECT schema FROM schemas WHERE bytes = ?"
    # Written once only: a full disk or a busy writer must not keep a reader from opening the spool.
    if db.execute(sql, (packed,)).fetchone() is None:
        db.execute("INSERT OR IGNORE INTO schemas (bytes) VALUES (?)", (packed,))
    return int(db.execute(sql, (packed,)).fetchone()[0])


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """SQLite's errors as ours: what may pass (busy, full, a failing disk) is Transient, a damaged file Terminal."""
    try:
        yield
    except sqlite3.Error as e:
        raise _named(e, path) from e


def _named(e: sqlite3.Error, path: Path) -> Terminal | Transient:
    code = getattr(e, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Transient(f"{path}: another process is writing to the spool", hint="try again")
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return Transient(f"{path}: could not be written: {e}", hint="is the disk full? free some of it and try again")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        hint = "move it and its -wal and -shm away and restore a copy, or begin with an empty spool; senders may repeat"
        return Terminal(f"{path}: the spool is damaged: {e}", hint=hint)
    return Terminal(f"{path}: {e}", hint="can the spool's folder be written to?")


def _again(e: Exception) -> Exception:
    """The error anew, for one of several that wait: a traceback grows with each thread that raises it."""
    if isinstance(e, Terminal | Transient):
        again = type(e)(e.message, hint=e.hint)
        again.__cause__ = e
        return again
    return e


def _now() -> int:
    return time.time_ns() // 1000

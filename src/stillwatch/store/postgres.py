"""The state in a PostgreSQL database, for when one machine is not enough.

The rule that keeps it right: who writes holds one advisory lock from before it first reads to its commit, so that writers come
one after another as they do with SQLite. A server keeps a second lock for as long as its connection lives; where that breaks,
nothing is written before the next connection has the lock again, so that of two servers only one ever writes. A commit is on disk
when it returns. Connections are direct, or pooled by session: a pooler that changes them in between would lose the lock.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.store.migrations import MIGRATIONS, check_order
from stillwatch.store.places import Address
from stillwatch.store.postgres_sql import FUNCTIONS, definitions, statement

try:
    import psycopg
    from psycopg import sql as quoting
    from psycopg.rows import dict_row
except ImportError as e:
    raise UsageError("a state in PostgreSQL needs psycopg", hint="pip install 'stillwatch[postgres]'") from e

T = TypeVar("T")

RETRY_S = 10.0
"""After a connection could not be made, or an answer did not come in time, how long all is refused at once, in seconds: who asks
again and again is not kept waiting each time."""
SLACK_S = 1.0
"""How much longer than the database itself we wait until it has given an answer up, in seconds."""
TOO_LATE = "57014"
PASSING = ("40001", "40P01", "55P03", TOO_LATE, "53300", "53100", "57P01", "57P02", "57P03", "08", "25P03")
"""SQLSTATEs, or how they begin, of what may be tried again: serialization, deadlock, timeouts, no room, shutdowns, lines cut."""
SESSION = """
    SET synchronous_commit = on; SET timezone = 'UTC'; SET standard_conforming_strings = on; SET client_min_messages = warning;
    SET idle_in_transaction_session_timeout = '60s'; SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3; SET tcp_user_timeout = 25000;
"""
"""Of each connection. A server whose machine is gone is noticed within half a minute, and gives up its lock."""


class _Silent(psycopg.OperationalError):
    """No answer came, not even that it took too long: the database hangs, or its machine is gone."""


class _Bounded(psycopg.Connection[dict[str, Any]]):
    """A connection that waits ``answer_s`` seconds for any answer, and is closed where none came: what was asked may still be
    done. The database's own limit ends what is slow; it cannot where the database itself stands still."""

    answer_s = float("inf")

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().wait(self._until(gen, time.monotonic() + self.answer_s), *args, **kwargs)
        except _Silent:
            self.close()
            raise

    def _until(self, gen: Any, end: float) -> Any:
        """What psycopg waits by, which is asked several times a second."""
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > end:
                    raise _Silent(f"no answer within {self.answer_s:.0f} s")
                wanted = gen.send(ready)
        except StopIteration as e:
            return e.value


class Postgres:
    """A schema of a database, brought up to date. One thread at a time.

    ``busy_s`` is how long another writer is waited for, ``answer_s`` how long any answer, in seconds. With ``holds`` the server's
    lock is taken: Transient where another server has it. Unless it ``makes`` them, tables are left as they are.
    """

    def __init__(
        self, address: Address, busy_s: float, answer_s: float = 60.0, *, holds: bool = False, makes: bool = True
    ) -> None:
        self._address, self._wait_s, self._busy_s, self._answer_s = address, busy_s, busy_s, answer_s
        self._holds, self._is_new, self._refused = holds, makes, (-float("inf"), "")
        self._db: psycopg.Connection[dict[str, Any]] | None = None
        self._in_transaction = False
        self._connected()

    @property
    def in_transaction(self) -> bool:
        return self._in_transaction

    def begin(self) -> None:
        self._again(self._begin)

    def begin_reading(self) -> None:
        def begin() -> None:
            with self._named():
                self._connected().execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

        self._again(begin)
        self._in_transaction = True

    def commit(self) -> None:
        """COMMIT; Terminal where PostgreSQL could only roll back, since a statement within had failed."""
        with self._named():
            db = self._connected()
            self._in_transaction = False
            done = db.execute("COMMIT").statusmessage
        if done != "COMMIT":
            raise Terminal(f"{self._address}: a transaction in which a statement had failed was not kept")

    def rollback(self) -> None:
        """Give up what was begun; a connection that cannot say so is closed, which does the same."""
        try:
            with self._named():
                db = self._connected()
                self._in_transaction = False
                db.execute("ROLLBACK")
        except (Transient, Terminal):
            self._drop()

    def execute(self, sql: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        """A statement's rows. Outside of a transaction one that reads is asked again where the connection had broken while idle;
        one that writes is a transaction of its own."""
        if self._in_transaction:
            return self._run(sql, values)
        if sql.lstrip()[:6].upper() == "SELECT":
            return self._again(lambda: self._run(sql, values))
        self.begin()
        try:
            rows = self._run(sql, values)
            self.commit()
        except BaseException:
            if self._in_transaction:
                self.rollback()
            raise
        return rows

    @contextmanager
    def patience(self, wait_s: float) -> Iterator[None]:
        self._wait_s = wait_s
        try:
            yield
        finally:
            self._wait_s = self._busy_s

    def number_on(self, table: str) -> None:
        self._run(
            f"SELECT setval(pg_get_serial_sequence(?, 'number'), (SELECT max(number) FROM {table})) AS n",
            (f"{self._address.schema}.{table}",),
        )

    def is_held(self) -> bool:
        """Whether a server has the state now, this one or another."""
        key = _key(self._address.schema, "server")
        rows = self.execute(
            "SELECT count(*) AS n FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted "
            "AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) "
            "AND classid = CAST(? AS BIGINT) AND objid = CAST(? AS BIGINT) AND objsubid = 1",
            (key >> 32 & 0xFFFFFFFF, key & 0xFFFFFFFF),
        )
        return bool(rows[0]["n"])

    def applied(self) -> list[str]:
        """Names of the changes that were made to its tables."""
        with self._named():
            return self._applied()

    def close(self) -> None:
        self._drop()

    # Asking

    def _run(self, sql: str, values: Sequence[object]) -> list[dict[str, Any]]:
        with self._named():
            cursor = self._connected().execute(statement(sql), values)
            return cursor.fetchall() if cursor.description else []

    def _begin(self) -> None:
        wait_ms = max(1, int(self._wait_s * 1000))
        key = _key(self._address.schema, "writer")
        with self._named():
            db = self._connected()
            try:
                db.execute(f"BEGIN; SET LOCAL lock_timeout = {wait_ms}; SELECT pg_advisory_xact_lock({key})")
            except psycopg.Error:
                with suppress(psycopg.Error):
                    db.execute("ROLLBACK")
                raise
        self._in_transaction = True

    def _again(self, call: Callable[[], T]) -> T:
        """What ``call`` gives, on a new connection where the one we had was broken: nothing had been done on it."""
        before = self._db
        try:
            return call()
        except Transient:
            if before is None or not before.closed:
                raise
        return call()

    # The connection

    def _connected(self) -> psycopg.Connection[dict[str, Any]]:
        """The connection, made anew if need be: the lock of a server first, the tables up to date. Transient where it cannot be;
        in a transaction a broken one stays broken."""
        until, why = self._refused
        if time.monotonic() < until and not self._in_transaction:
            raise Transient(why, hint="it is tried again soon")
        if self._db is not None and not (self._db.closed and not self._in_transaction):
            return self._db
        self._drop()
        try:
            with self._named():
                self._db = self._connect()
            self._take()
            self._migrate()
        except Transient as e:
            self._drop()
            self._refused = (time.monotonic() + RETRY_S, e.message)
            raise
        except BaseException:
            self._drop()
            raise
        return self._db

    def _connect(self) -> psycopg.Connection[dict[str, Any]]:
        password = self._address.password
        limit_s = max(2, round(min(self._answer_s, 10.0)))
        db = _Bounded.connect(
            self._address.url,
            autocommit=True,
            row_factory=dict_row,
            application_name="stillwatch",
            connect_timeout=limit_s,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=limit_s * 1000,
            password=password.reveal() if password else None,
        )
        db.answer_s = self._answer_s + SLACK_S
        timeout = f"SET statement_timeout = {int(self._answer_s * 1000)};"
        path = quoting.SQL("SET search_path = {}, pg_temp").format(quoting.Identifier(self._address.schema))
        db.execute(SESSION + timeout)
        db.execute(path)
        return db

    def _take(self) -> None:
        if not self._holds or self._db is None:
            return
        with self._named():
            key = _key(self._address.schema, "server")
            row = self._db.execute("SELECT pg_try_advisory_lock(%s) AS is_ours", (key,)).fetchone()
        if not row or not row["is_ours"]:
            raise Transient(
                f"{self._address}: another server has this state", hint="one server at a time; stop it first"
            )

    def _drop(self) -> None:
        self._in_transaction = False
        if self._db is not None:
            with suppress(psycopg.Error):
                self._db.close()
            self._db = None

    # Definitions

    def _migrate(self) -> None:
        """Bring the tables up to date, each change in one transaction under one lock. UsageError as ``migrate`` has it."""
        if not self._is_new or self._db is None:
            return
        with self._named():
            if len(self._applied()) < len(MIGRATIONS):
                self._prepare()
                while self._apply_next():
                    pass
            check_order(self._applied(), [name for name, _ in MIGRATIONS], "state")
        self._is_new = False

    def _prepare(self) -> None:
        """The schema, its functions and the table of migrations, if they are not there."""
        schema = quoting.Identifier(self._address.schema)
        with self._changing() as db:
            if not _scalar(db, "SELECT to_regnamespace(%s) IS NOT NULL", schema.as_string(db)):
                db.execute(quoting.SQL("CREATE SCHEMA {}").format(schema))
            if not self._has_migrations():
                made = 'name TEXT COLLATE "C" PRIMARY KEY, applied_at TEXT NOT NULL, rowid BIGINT GENERATED ALWAYS AS IDENTITY'
                db.execute(f"{FUNCTIONS} CREATE TABLE migrations ({made});")

    def _apply_next(self) -> bool:
        """Make the next change, unless another process has made it: whether there was one."""
        with self._changing() as db:
            done = self._applied()
            check_order(done, names := [name for name, _ in MIGRATIONS], "state")
            if len(done) == len(names):
                return False
            name, text = MIGRATIONS[len(done)]
            db.execute(definitions(text))
            now = datetime.now(UTC).isoformat(timespec="seconds")
            db.execute("INSERT INTO migrations (name, applied_at) VALUES (%s, %s)", (name, now))
        return True

    @contextmanager
    def _changing(self) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        assert self._db is not None
        with self._db.transaction():
            self._db.execute(f"SELECT pg_advisory_xact_lock({_key(self._address.schema, 'migrations')})")
            yield self._db

    def _has_migrations(self) -> bool:
        assert self._db is not None
        return bool(
            _scalar(
                self._db,
                "SELECT EXISTS (SELECT FROM information_schema.tables WHERE table_schema = %s AND table_name = 'migrations')",
                self._address.schema,
            )
        )

    def _applied(self) -> list[str]:
        if self._db is None or not self._has_migrations():
            return []
        return [r["name"] for r in self._db.execute("SELECT name FROM migrations ORDER BY rowid")]

    @contextmanager
    def _named(self) -> Iterator[None]:
        """PostgreSQL's errors as ours: what may pass is Transient. A message never holds a password."""
        try:
            yield
        except psycopg.Error as e:
            raise self._ours(e) from e

    def _ours(self, e: psycopg.Error) -> Terminal | Transient:
        state, said = e.sqlstate or "", " ".join(str(e).split())
        if state == TOO_LATE or isinstance(e, _Silent):
            self._refused = (time.monotonic() + RETRY_S, f"{self._address}: {said}")
        if state == "55P03":
            return Transient(f"{self._address}: another process is writing to the state", hint="try again")
        if state.startswith(PASSING) or (isinstance(e, psycopg.OperationalError) and not state):
            return Transient(
                f"{self._address}: {said}", hint="is the database up, and may we in? stillwatch doctor says more"
            )
        if isinstance(e, psycopg.DataError) and "NUL" in said:
            return UsageError("a text holds a NUL, which PostgreSQL cannot keep", hint="send it as it should be read")
        return Terminal(f"{self._address}: {said}")


@dataclass(frozen=True, slots=True)
class Examined:
    """How a database stands: its version, whether what it says is on disk is so, and what there is of a state in it.

    ``missing`` are changes of the tables that are yet to be made, all of them where there is no state; ``bytes`` is its size.
    """

    version: str
    is_forced: bool
    missing: tuple[str, ...]
    bytes: int
    is_held: bool


def examine(address: Address) -> Examined:
    """Look at a database and change nothing. Transient or Terminal where it cannot be reached; UsageError as for opening it."""
    db = Postgres(address, 1.0, 10.0, makes=False)
    try:
        (row,) = db.execute(
            "SELECT current_setting('server_version') AS version, current_setting('fsync') AS fsync, "
            "current_setting('full_page_writes') AS pages, "
            "(SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ? AND c.relkind = 'r') AS bytes",
            (address.schema,),
        )
        done = db.applied()
        check_order(done, names := [name for name, _ in MIGRATIONS], "state")
        forced = row["fsync"] == "on" and row["pages"] == "on"
        return Examined(row["version"], forced, tuple(names[len(done) :]), int(row["bytes"]), db.is_held())
    finally:
        db.close()


def _key(schema: str, purpose: str) -> int:
    """The number of an advisory lock, one of a database's 2^64."""
    text = f"stillwatch {schema} {purpose}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), signed=True)


def _scalar(db: psycopg.Connection[dict[str, Any]], sql: str, *values: object) -> object:
    row = db.execute(sql, values).fetchone()
    return next(iter(row.values())) if row else None

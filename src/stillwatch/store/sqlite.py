"""The state in a file of SQLite's: embedded, and the default. A commit is on disk when it returns."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stillwatch.errors import Terminal, Transient
from stillwatch.store.migrations import migrate


class Sqlite:
    """A file, brought up to date. Belongs to the thread that opened it."""

    def __init__(self, path: Path, busy_s: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._busy_s = path, busy_s
        with self._named():
            self._db = sqlite3.connect(path, timeout=busy_s, isolation_level=None)
            self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
            migrate(self._db)

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def begin(self) -> None:
        self.execute("BEGIN IMMEDIATE")

    def begin_reading(self) -> None:
        self.execute("BEGIN")

    def commit(self) -> None:
        self.execute("COMMIT")

    def rollback(self) -> None:
        if self._db.in_transaction:
            self.execute("ROLLBACK")

    def execute(self, sql: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        with self._named():
            cursor = self._db.execute(sql, values)
            return [{d[0]: v for d, v in zip(cursor.description, row)} for row in cursor]

    @contextmanager
    def patience(self, wait_s: float) -> Iterator[None]:
        self.execute(f"PRAGMA busy_timeout = {int(wait_s * 1000)}")
        try:
            yield
        finally:
            self.execute(f"PRAGMA busy_timeout = {int(self._busy_s * 1000)}")

    def number_on(self, table: str) -> None:
        """Nothing: a number is one above the highest there is."""

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """SQLite's errors as ours: a busy state may be tried again, anything else not."""
        try:
            yield
        except sqlite3.Error as e:
            if getattr(e, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise Transient(f"{self._path}: another process is writing to the state", hint="try again") from e
            raise Terminal(f"{self._path}: {e}") from e

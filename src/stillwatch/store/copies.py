"""Whole copies of SQLite files that somebody may be writing to, and whether such a file is sound."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from stillwatch.errors import Terminal

PAGES = 4096
"""Pages copied in one go; between two goes a writer gets its turn."""


def copy_database(source: Path, target: Path) -> None:
    """Write a copy of one moment of ``source``, its log included, to ``target``. Terminal where it cannot be read."""
    try:
        with closing(_reader(source)) as read, closing(sqlite3.connect(target)) as write:
            # One transaction: a writer's commits in between do not make the copy begin again.
            read.execute("BEGIN")
            read.execute("SELECT count(*) FROM sqlite_master").fetchone()
            read.backup(write, pages=PAGES)
            write.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as e:
        raise Terminal(f"{source}: cannot be copied: {e}", hint="stillwatch doctor says more") from e


def raise_numbers(path: Path, table: str, least: int) -> None:
    """Have the next row of an AUTOINCREMENT table get a number above ``least``. Terminal where the file cannot be written."""
    try:
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(
                "INSERT INTO sqlite_sequence SELECT ?1, 0 WHERE ?1 NOT IN (SELECT name FROM sqlite_sequence)", (table,)
            )
            db.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (least, table))
    except sqlite3.Error as e:
        raise Terminal(f"{path}: cannot be written: {e}") from e


def faults_of(path: Path, *, quick: bool = False) -> list[str]:
    """What SQLite finds wrong with a file, nothing where it is sound; ``quick`` leaves the indexes out."""
    try:
        with closing(_reader(path)) as db:
            rows = db.execute("PRAGMA quick_check(10)" if quick else "PRAGMA integrity_check(10)").fetchall()
    except sqlite3.Error as e:
        return [str(e)]
    return [text for (text,) in rows if text != "ok"]


def _reader(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10, isolation_level=None)

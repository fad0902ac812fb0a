"""Changes of the state's tables: ordered, recorded, each in one transaction. A shipped one is never edited."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

from stillwatch.errors import UsageError

MIGRATIONS: tuple[tuple[str, str], ...] = (
    (
        "runs",
        """
        CREATE TABLE runs (
            run_id TEXT PRIMARY KEY,
            command TEXT NOT NULL,
            input TEXT NOT NULL,
            out TEXT NOT NULL,
            version TEXT NOT NULL,
            started_at TEXT NOT NULL,
            ended_at TEXT,
            exit_code INTEGER
        ) STRICT;""",
    ),
    (
        "judgements",
        """
        CREATE TABLE judgements (
            number INTEGER PRIMARY KEY,
            subject TEXT NOT NULL,
            verdict TEXT NOT NULL CHECK (verdict IN ('positive', 'negative', 'unsure')),
            judge TEXT NOT NULL,
            at TEXT NOT NULL,
            reason TEXT NOT NULL
        ) STRICT;
        CREATE INDEX judgements_by_subject ON judgements (subject, number);
        CREATE TRIGGER judgements_are_not_edited BEFORE UPDATE ON judgements
            BEGIN SELECT RAISE(ABORT, 'a judgement is replaced by a newer one, never edited'); END;
        CREATE TRIGGER judgements_are_not_deleted BEFORE DELETE ON judgements
            BEGIN SELECT RAISE(ABORT, 'a judgement is replaced by a newer one, never deleted'); END;""",
    ),
    (
        "tokens",
        """
        CREATE TABLE tokens (
            token_id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            role TEXT NOT NULL,
            digest BLOB NOT NULL CHECK (length(digest) = 32),
            created_at TEXT NOT NULL,
            created_by TEXT NOT NULL,
            expires_at TEXT NOT NULL,
            last_used_at TEXT,
            revoked_at TEXT,
            revoked_by TEXT,
            replaces TEXT REFERENCES tokens
        ) STRICT;
        CREATE INDEX tokens_by_name ON tokens (name);""",
    ),
)
"""Name and statements, in order."""


def migrate(db: sqlite3.Connection) -> list[str]:
    """Bring the state up to date; the names of what was applied, none the second time.

    UsageError where the state was written by a newer version, or in another order: it is then left as it is.
    """
    db.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_at TEXT NOT NULL) STRICT")
    names = [name for name, _ in MIGRATIONS]
    done = [name for (name,) in db.execute("SELECT name FROM migrations ORDER BY rowid")]
    if done != names[: len(done)]:
        raise UsageError(
            f"the state has been changed by another version: it knows {', '.join(done)}",
            hint="update stillwatch, or point it at another state file",
        )
    for name, statements in MIGRATIONS[len(done) :]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            db.executescript(
                f"BEGIN IMMEDIATE; {statements} INSERT INTO migrations VALUES ('{name}', '{now}'); COMMIT;"
            )
        except sqlite3.Error:
            db.rollback()
            raise
    return names[len(done) :]

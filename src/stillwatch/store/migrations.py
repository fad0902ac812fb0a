"""Changes of the state's tables: ordered, recorded, each in one transaction. A shipped one is never edited."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
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
    (
        "actions",
        """
        CREATE TABLE actions (
            number INTEGER PRIMARY KEY,
            action_id TEXT NOT NULL UNIQUE,
            key TEXT NOT NULL UNIQUE,
            account_id TEXT NOT NULL,
            campaign_id TEXT NOT NULL,
            rung TEXT NOT NULL CHECK (rung IN ('observe', 'protect', 'throttle', 'verify', 'restrict', 'suspend')),
            rule TEXT NOT NULL,
            reason TEXT NOT NULL,
            proposer TEXT NOT NULL,
            proposed_at TEXT NOT NULL,
            starts_at TEXT NOT NULL,
            expires_at TEXT NOT NULL,
            settings TEXT NOT NULL,
            needed INTEGER NOT NULL CHECK (needed >= 0),
            standing TEXT NOT NULL CHECK (standing IN
                ('shadow', 'pending', 'due', 'in_force', 'expired', 'undone', 'refused', 'replaced'))
        ) STRICT;
        CREATE INDEX actions_by_account ON actions (account_id, number);
        CREATE INDEX actions_by_campaign ON actions (campaign_id, number);
        CREATE INDEX actions_by_standing ON actions (standing, number);
        CREATE INDEX actions_by_end ON actions (expires_at);
        CREATE TABLE action_events (
            number INTEGER PRIMARY KEY,
            action_id TEXT NOT NULL,
            event TEXT NOT NULL,
            who TEXT NOT NULL,
            role TEXT NOT NULL,
            at TEXT NOT NULL,
            reason TEXT NOT NULL,
            audit INTEGER NOT NULL
        ) STRICT;
        CREATE INDEX action_events_by_action ON action_events (action_id, number);
        CREATE UNIQUE INDEX one_signs_once ON action_events (action_id, who) WHERE event = 'signed';
        CREATE TABLE appeals (
            number INTEGER PRIMARY KEY,
            case_id TEXT NOT NULL,
            event TEXT NOT NULL CHECK (event IN ('filed', 'upheld', 'overturned')),
            account_id TEXT NOT NULL,
            who TEXT NOT NULL,
            at TEXT NOT NULL,
            deadline TEXT NOT NULL,
            text_hash TEXT NOT NULL,
            reason TEXT NOT NULL,
            audit INTEGER NOT NULL
        ) STRICT;
        CREATE UNIQUE INDEX an_appeal_is_filed_once ON appeals (case_id) WHERE event = 'filed';
        CREATE UNIQUE INDEX an_appeal_is_decided_once ON appeals (case_id) WHERE event <> 'filed';
        CREATE INDEX appeals_by_account ON appeals (account_id, number);
        CREATE TRIGGER actions_begin_before_they_hold BEFORE INSERT ON actions
            WHEN NEW.standing NOT IN ('shadow', 'pending', 'due') OR (NEW.standing = 'due' AND NEW.needed > 0)
            BEGIN SELECT RAISE(ABORT, 'an action begins in shadow, pending, or due where nobody need sign'); END;
        CREATE TRIGGER actions_need_signatures BEFORE UPDATE OF standing ON actions
            WHEN NEW.standing IN ('due', 'in_force') AND NEW.needed > (
                SELECT count(*) FROM action_events e WHERE e.action_id = NEW.action_id AND e.event = 'signed')
            BEGIN SELECT RAISE(ABORT, 'an action is not due before enough people have signed'); END;
        CREATE TRIGGER actions_end_once BEFORE UPDATE ON actions
            WHEN OLD.standing IN ('expired', 'undone', 'refused', 'replaced')
            BEGIN SELECT RAISE(ABORT, 'an action that has ended has ended'); END;
        CREATE TRIGGER actions_ask_no_less BEFORE UPDATE OF needed ON actions WHEN NEW.needed < OLD.needed
            BEGIN SELECT RAISE(ABORT, 'signatures that are needed are never waived'); END;
        CREATE TRIGGER actions_are_not_rewritten BEFORE UPDATE OF number, action_id, key, account_id, campaign_id, rung,
            rule, reason, proposer, proposed_at, starts_at, expires_at, settings ON actions
            BEGIN SELECT RAISE(ABORT, 'only the standing of an action changes'); END;
        CREATE TRIGGER actions_are_not_deleted BEFORE DELETE ON actions
            BEGIN SELECT RAISE(ABORT, 'an action is undone, never deleted'); END;
        CREATE TRIGGER action_events_are_not_edited BEFORE UPDATE ON action_events
            BEGIN SELECT RAISE(ABORT, 'what happened to an action is never edited'); END;
        CREATE TRIGGER action_events_are_not_deleted BEFORE DELETE ON action_events
            BEGIN SELECT RAISE(ABORT, 'what happened to an action is never deleted'); END;
        CREATE TRIGGER appeals_are_not_edited BEFORE UPDATE ON appeals
            BEGIN SELECT RAISE(ABORT, 'an appeal is decided by a row of its own, never edited'); END;
        CREATE TRIGGER appeals_are_not_deleted BEFORE DELETE ON appeals
            BEGIN SELECT RAISE(ABORT, 'an appeal is never deleted'); END;""",
    ),
    (
        "holders",
        """
        CREATE TABLE holders (
            number INTEGER PRIMARY KEY,
            audit TEXT NOT NULL,
            since TEXT NOT NULL,
            after_event INTEGER NOT NULL,
            after_appeal INTEGER NOT NULL
        ) STRICT;
        CREATE TRIGGER holders_are_not_edited BEFORE UPDATE ON holders
            BEGIN SELECT RAISE(ABORT, 'whose a state was is never edited'); END;
        CREATE TRIGGER holders_are_not_deleted BEFORE DELETE ON holders
            BEGIN SELECT RAISE(ABORT, 'whose a state was is never deleted'); END;""",
    ),
    (
        "token_orders",
        """
        CREATE TABLE token_orders (
            number INTEGER PRIMARY KEY,
            what TEXT NOT NULL CHECK (what IN ('issue', 'rotate', 'revoke')),
            token_id TEXT NOT NULL,
            name TEXT NOT NULL,
            role TEXT NOT NULL,
            digest BLOB CHECK (length(digest) = 32),
            old_id TEXT NOT NULL,
            seconds INTEGER NOT NULL,
            ordered_by TEXT NOT NULL,
            at TEXT NOT NULL,
            outcome TEXT CHECK (outcome IN ('done', 'refused', 'withdrawn')),
            said TEXT
        ) STRICT;
        CREATE INDEX token_orders_by_outcome ON token_orders (outcome, number);
        CREATE TRIGGER token_orders_are_answered_once BEFORE UPDATE ON token_orders WHEN OLD.outcome IS NOT NULL
            BEGIN SELECT RAISE(ABORT, 'an order is answered once'); END;
        CREATE TRIGGER token_orders_are_not_deleted BEFORE DELETE ON token_orders
            BEGIN SELECT RAISE(ABORT, 'an order for a token is never deleted'); END;""",
    ),
    (
        "parts",
        """
        ALTER TABLE actions ADD COLUMN part TEXT NOT NULL DEFAULT 'account' CHECK (part IN ('account', 'key', 'end_user'));
        ALTER TABLE actions ADD COLUMN mark TEXT NOT NULL DEFAULT '' CHECK ((part = 'account') = (mark = ''));
        CREATE TRIGGER actions_are_not_aimed_anew BEFORE UPDATE OF part, mark ON actions
            BEGIN SELECT RAISE(ABORT, 'only the standing of an action changes'); END;""",
    ),
)
"""Name and statements, in order."""


def migrate(db: sqlite3.Connection, changes: Sequence[tuple[str, str]] = MIGRATIONS, what: str = "state") -> list[str]:
    """Bring the state, or ``what`` else has ``changes`` of its own, up to date; the names of what was applied, none the
    second time.

    UsageError where it was written by a newer version, or in another order: it is then left as it is.
    """
    db.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_at TEXT NOT NULL) STRICT")
    names = [name for name, _ in changes]
    done = _applied(db)
    check_order(done, names, what)
    for name, statements in changes[len(done) :]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            db.executescript(
                f"BEGIN IMMEDIATE; {statements} INSERT INTO migrations VALUES ('{name}', '{now}'); COMMIT;"
            )
        except sqlite3.Error:
            db.rollback()
            # Another process may have been a moment faster.
            if name not in _applied(db):
                raise
    return names[len(done) :]


def check_order(done: Sequence[str], names: Sequence[str], what: str) -> None:
    """UsageError where ``done`` is not how ``names`` begin: another version has changed it."""
    if list(done) != list(names[: len(done)]):
        raise UsageError(
            f"the {what} has been changed by another version: it knows {', '.join(done)}",
            hint=f"update stillwatch, or point it at another {what}",
        )


def _applied(db: sqlite3.Connection) -> list[str]:
    return [name for (name,) in db.execute("SELECT name FROM migrations ORDER BY rowid")]

"""A state from one place to another, row by row: SQLite to PostgreSQL and back, and out of PostgreSQL into a backup.

The target's own rules hold while it is filled: an action goes in as it began, its signatures after it, and its standing last, so
that what could not have come about is not taken over either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stillwatch.errors import UsageError
from stillwatch.store.state import State

NUMBERED = ("judgements", "actions", "action_events", "appeals", "holders", "token_orders")
NAMED = ("runs", "tokens")
"""All tables of a state, by whether rows have numbers of their own; in an order in which nothing refers to what is not there."""


def copy_state(source: State, target: State) -> int:
    """Fill an empty state with all that another one holds at one moment; how many rows. UsageError where it is not empty."""
    with target.transaction(), source.reading():
        for table in (*NAMED, *NUMBERED):
            if target.execute(f"SELECT 1 AS one FROM {table} LIMIT 1"):
                raise UsageError(
                    f"{target.place}: there is something in it already ({table})", hint="give an empty one"
                )
        rows = sum(_copy_table(source, target, table, "rowid") for table in NAMED)
        rows += sum(_copy_table(source, target, table, "number") for table in NUMBERED)
        for action in source.execute("SELECT number, standing FROM actions ORDER BY number"):
            if action["standing"] != _begun(action):
                target.execute("UPDATE actions SET standing = ? WHERE number = ?", action["standing"], action["number"])
        for table in NUMBERED:
            target.number_on(table)
    return rows


def _copy_table(source: State, target: State, table: str, by: str) -> int:
    rows = source.execute(f"SELECT * FROM {table} ORDER BY {by}")
    for row in rows:
        given = {name: value for name, value in row.items() if name != "rowid"}
        if table == "actions":
            given["standing"] = _begun(row)
        marks = ", ".join("?" * len(given))
        target.execute(f"INSERT INTO {table} ({', '.join(given)}) VALUES ({marks})", *given.values())
    return len(rows)


def _begun(action: Mapping[str, Any]) -> str:
    """A standing that an action may begin in."""
    return "shadow" if action["standing"] == "shadow" else "pending"

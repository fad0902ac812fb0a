"""Orders for tokens, by which a command beside a running server has it make one: the server alone holds the audit.

The command draws the secret and puts what may be kept of it into the state, as an order; the server writes the audit, then lets
the token hold, and answers. An order that is not answered in time is withdrawn, and never carried out: a token is in the audit or
does not hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from stillwatch.errors import StillwatchError, Terminal, Transient, UsageError
from stillwatch.serving.access import Access, Draft, Role
from stillwatch.store.state import State

LOOK_S = 0.05
"""Seconds between two looks whether an order was answered."""
TOO_OLD = timedelta(minutes=5)
"""An order of this age, whose command is surely gone, is turned down."""
MOST = 100
"""Orders carried out in one go."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done: ``issue`` the token of a draft, ``rotate`` the old one into it, or ``revoke`` the old one.

    ``lasts`` is the lifetime of a new token, or the grace of the one that it replaces.
    """

    what: str
    by: str
    made: Draft | None = None
    name: str = ""
    role: str = ""
    old_id: str = ""
    lasts: timedelta = timedelta(0)


def ordered(state: State, order: Order, within_s: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Have the running server do it; when this returns it is done, and in the audit.

    UsageError where the server turned it down, Transient where it did not answer in time: then nothing was done, or will be.
    """
    number = _place(state, order)
    until = time.monotonic() + within_s
    try:
        while not _answer(state, number)[0] and time.monotonic() < until:
            sleep(LOOK_S)
    finally:
        # Whatever ends the waiting, a signal too, ends the order.
        _withdraw(state, number)
    outcome, said = _answer(state, number)
    if outcome == "refused":
        raise UsageError(said)
    if outcome != "done":
        raise Transient(
            f"the running server did not answer within {within_s:.0f} s: nothing was done",
            hint="look at its log, or stop it and try again",
        )


def _place(state: State, order: Order) -> int:
    made, now = order.made, datetime.now(UTC).isoformat(timespec="microseconds")
    with state.transaction():
        state.execute(
            "INSERT INTO token_orders (what, token_id, name, role, digest, old_id, seconds, ordered_by, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            order.what, made.token_id if made else order.old_id, order.name, order.role, made.digest if made else None,
            order.old_id, int(order.lasts.total_seconds()), order.by, now,
        )  # fmt: skip
        return int(state.execute("SELECT max(number) AS n FROM token_orders")[0]["n"])


def _answer(state: State, number: int) -> tuple[str, str]:
    """The outcome, empty where there is none yet, and what was said."""
    row = state.execute("SELECT outcome, said FROM token_orders WHERE number = ?", number)[0]
    return row["outcome"] or "", row["said"] or ""


def _withdraw(state: State, number: int) -> None:
    state.execute("UPDATE token_orders SET outcome = 'withdrawn' WHERE number = ? AND outcome IS NULL", number)


def carry_out(access: Access, state: State, now: datetime) -> int:
    """Do what is ordered, oldest first, each in a transaction of its own; how many were answered.

    What makes no sense is turned down. Where the audit or the state cannot be written the order waits; the error is passed on.
    """
    rows = state.execute("SELECT * FROM token_orders WHERE outcome IS NULL ORDER BY number LIMIT ?", MOST)
    return sum(_carry_out(access, state, row, now) for row in rows)


def _carry_out(access: Access, state: State, row: Mapping[str, Any], now: datetime) -> bool:
    with state.transaction():
        # Withdrawn meanwhile?
        if _answer(state, row["number"])[0]:
            return False
        try:
            if abs(now - datetime.fromisoformat(row["at"])) > TOO_OLD:
                raise UsageError("the order is too old, or the two clocks differ", hint="give it again")
            _do(access, row)
            outcome, said = "done", ""
        except (UsageError, ValueError) as e:
            outcome, said = "refused", e.message if isinstance(e, StillwatchError) else "the order makes no sense"
        state.execute("UPDATE token_orders SET outcome = ?, said = ? WHERE number = ?", outcome, said, row["number"])
    return True


def _do(access: Access, row: Mapping[str, Any]) -> None:
    by, lasts = row["ordered_by"], timedelta(seconds=row["seconds"])
    digest = bytes(row["digest"] or b"")
    match row["what"]:
        case "issue":
            access.enrol(row["token_id"], digest, row["name"], Role(row["role"]), by, lasts)
        case "rotate":
            access.replace(row["old_id"], row["token_id"], digest, by, lasts)
        case "revoke":
            access.revoke(row["old_id"], by)
        case other:
            raise Terminal(f"no such order: {other!r}")

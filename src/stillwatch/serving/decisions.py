"""What is in force, in memory: one question, one answer, about a microsecond, and never a wait.

The table is never changed, only replaced whole, by one assignment: a question sees the old table or the new one, nothing
between. The answer is the strictest thing in force for the account, the key and the end user; what has expired does not count,
and whoever is unknown passes. Keys and end users are found by keyed hashes; where only they are named, the account that the log
has said they belong to is asked for too. Nothing here raises a rung: if tables stop coming, the last one goes on being answered
from, each answer is counted as stale and one alarm is given.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from stillwatch.errors import UsageError
from stillwatch.serving.marks import Marks
from stillwatch.types import InForce, Rung

KEY_NAME = re.compile(r"[0-9a-f]{64}")

STALE_AFTER_S = 900.0
"""Without a new table for this long, in seconds, answers count as stale."""

log = logging.getLogger(__name__)


UNKEYED = Marks()


def nobody(key: str, end_user: str) -> str:
    """No account: nothing is known of whose a key or an end user is."""
    return ""


@dataclass(frozen=True, slots=True)
class Table:
    """What is in force, by account, by the mark of a key and by that of an end user (``marks.Marks``).

    A gateway names a key by the SHA-256 of the secret, in hex, as LiteLLM does; where traffic names accounts so, what holds for
    such an account holds for the key. ``shadows`` holds, by account, what would be in force if its rule were not in shadow:
    counted when asked for, never answered.
    """

    accounts: Mapping[str, InForce] = field(default_factory=dict)
    keys: Mapping[str, InForce] = field(default_factory=dict)
    end_users: Mapping[str, InForce] = field(default_factory=dict)
    shadows: Mapping[str, InForce] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many answers it holds; shadows are none."""
        return len(self.accounts) + len(self.keys) + len(self.end_users)


@dataclass(slots=True)
class Counts:
    """What was asked and answered since the start; only ever goes up. For others to export.

    ``in_force`` and ``shadow`` count answers by rung; the gateways add ``refused``, by rung, ``rewritten``, ``too_large`` and
    ``unreadable`` (bodies that passed unchanged, for being over the cap or no JSON), and ``faults``: requests that passed because
    a responder failed on them.
    """

    asked: int = 0
    stale: int = 0
    alarms: int = 0
    in_force: dict[Rung, int] = field(default_factory=lambda: dict.fromkeys(Rung, 0))
    shadow: dict[Rung, int] = field(default_factory=lambda: dict.fromkeys(Rung, 0))
    refused: dict[Rung, int] = field(default_factory=lambda: dict.fromkeys(Rung, 0))
    rewritten: int = 0
    too_large: int = 0
    unreadable: int = 0
    faults: int = 0


Ranked = tuple[tuple[int, float, datetime], datetime, InForce]
"""How strict an answer is, when it ends, and the answer."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """A table made ready for asking: each answer beside its rank, worked out once."""

    table: Table
    accounts: dict[str, Ranked]
    named_by_key: dict[str, Ranked]
    keys: dict[str, Ranked]
    end_users: dict[str, Ranked]
    shadows: dict[str, Ranked]

    @classmethod
    def of(cls, table: Table) -> _Ready:
        parts = (table.accounts, table.keys, table.end_users, table.shadows)
        accounts, keys, end_users, shadows = ({who: _ranked(held) for who, held in part.items()} for part in parts)
        named_by_key = {who: held for who, held in accounts.items() if KEY_NAME.fullmatch(who)}
        return cls(table, accounts, named_by_key, keys, end_users, shadows)


class Decisions:
    """The table that holds now, and the counts. Asked on the server's thread; ``replace`` may come from any."""

    def __init__(
        self,
        table: Table | None = None,
        *,
        marks: Marks = UNKEYED,
        owner: Callable[[str, str], str] = nobody,
        stale_after_s: float = STALE_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
        alarm: Callable[[str], None] = log.warning,
    ) -> None:
        if not stale_after_s > 0:
            raise UsageError(f"stale_after must be above 0 seconds: {stale_after_s}")
        self.counts = Counts()
        self._marks, self._owner = marks, owner
        self._clock, self._alarm, self._stale_after_s = clock, alarm, stale_after_s
        self._ready = _Ready.of(Table() if table is None else table)
        self._stale_at = clock() + stale_after_s
        self._told = False

    @property
    def table(self) -> Table:
        """The table that holds now."""
        return self._ready.table

    def replace(self, table: Table, *, stale: bool = False) -> None:
        """Answer from ``table`` from now on. ``stale``: it is not what holds, only the last that is known. The same table again
        only says that it still holds."""
        ready = self._ready if table is self._ready.table else _Ready.of(table)
        self._stale_at = -math.inf if stale else self._clock() + self._stale_after_s
        self._told = False
        self._ready = ready

    def is_stale(self) -> bool:
        """Whether no table has come for longer than ``stale_after_s``, or the one that came was stale already."""
        return self._clock() > self._stale_at

    def ask(self, account: str, key: str, end_user: str, now: datetime) -> InForce | None:
        """The strictest thing in force at ``now`` (UTC) for any of the three; None lets the request pass.

        An empty name asks nothing; without an account, the one that the key or the end user belongs to is asked for. An end user
        is one of that account. Of two equally strict the one that ends later is given.
        """
        ready, counts = self._ready, self.counts
        counts.asked += 1
        if self._clock() > self._stale_at:
            self._count_stale()
        if not account:
            account = self._owner(key, end_user)
        best = None
        for held in self._held(ready, account, key, end_user):
            if held and held[1] > now and (best is None or held[0] > best[0]):
                best = held
        shadow = (ready.shadows.get(account) or ready.shadows.get(key)) if ready.shadows else None
        if shadow and shadow[1] > now:
            counts.shadow[shadow[2].rung] += 1
        if best is None:
            return None
        counts.in_force[best[2].rung] += 1
        return best[2]

    def _held(self, ready: _Ready, account: str, key: str, end_user: str) -> Iterator[Ranked | None]:
        """What there is for each of the names."""
        if account:
            yield ready.accounts.get(account)
        if key:
            yield ready.named_by_key.get(key)
        if key and ready.keys:
            yield ready.keys.get(self._marks.key(key))
        if end_user and ready.end_users:
            for of in {account, key} - {""}:
                yield ready.end_users.get(self._marks.end_user(of, end_user))

    def _count_stale(self) -> None:
        self.counts.stale += 1
        if self._told:
            return
        self._told = True
        self.counts.alarms += 1
        self._alarm(
            f"what is in force has not been told anew for over {self._stale_after_s:g} s; "
            "the last that is known goes on being answered"
        )


def _ranked(held: InForce) -> Ranked:
    """Higher rungs are stricter; on one rung fewer requests a minute are, then a later end."""
    if held.expires_at.tzinfo is None:
        raise UsageError(f"action {held.action_id!r}: the end of what is in force has no zone")
    rate = requests_per_minute(held)
    return (held.rung.height, -rate if rate else 0.0, held.expires_at), held.expires_at, held


def requests_per_minute(held: InForce) -> float:
    """How many requests a minute are let through; 0 if the action sets none or something that is no rate."""
    rate = held.settings.get("requests_per_minute")
    usable = isinstance(rate, int | float) and not isinstance(rate, bool) and math.isfinite(rate) and rate > 0
    return float(rate) if usable and rate is not None else 0.0


def now_utc() -> datetime:
    """The time gateways ask at."""
    return datetime.now(UTC)

"""What happened to the rows of one reading: kept, refused and why, cleaned, unknown. Counts only, never content.

Every row read ends in exactly one place: ``rows_read == rows_kept + sum(of row rejects)``. Faults of whole files stand
beside that with the rows they cost where those are known. The number of distinct reasons and names is bounded, whatever
the input does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from stillwatch.adapters.intake.seen import Seen
from stillwatch.errors import Reject

MAX_REASONS = 200
MAX_UNKNOWN = 1000
OTHER = "(other names)"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what is read. Bytes unless said otherwise; ``max_ratio`` is decompressed to compressed bytes."""

    text_bytes: int = 1 << 20
    line_bytes: int = 64 << 20
    block_bytes: int = 16 << 20
    batch_rows: int = 65_536
    batch_bytes: int = 64 << 20
    file_bytes: int = 256 << 30
    max_ratio: float = 200.0
    ratio_from_bytes: int = 64 << 20
    future_s: int = 86_400
    earliest: datetime = datetime(2015, 1, 1, tzinfo=UTC)


class Tally:
    """Counts by reason, with the first place of each; past ``MAX_REASONS`` the rest is one line."""

    def __init__(self) -> None:
        self._by_reason: dict[str, Reject] = {}

    def add(self, reason: str, rows: int, place: str, hint: str = "") -> None:
        if reason not in self._by_reason and len(self._by_reason) >= MAX_REASONS:
            reason, hint = "other reasons", ""
        first = self._by_reason.get(reason)
        self._by_reason[reason] = (
            Reject(reason, rows, place, hint)
            if first is None
            else Reject(reason, first.rows + rows, first.place, first.hint)
        )

    @property
    def rejects(self) -> list[Reject]:
        """Most frequent first."""
        return sorted(self._by_reason.values(), key=lambda r: (-r.rows, r.reason))


@dataclass
class Report:
    """The running account of one reading; adapters write to it, ``Source`` shows it."""

    limits: Limits = field(default_factory=Limits)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    seen: Seen = field(default_factory=Seen)
    rejected: Tally = field(default_factory=Tally)
    noted: Tally = field(default_factory=Tally)
    unknown: dict[str, int] = field(default_factory=dict)
    coverage: dict[str, int] = field(default_factory=dict)
    rows_read: int = 0
    rows_kept: int = 0
    bytes_before: int = 0
    bytes_in_file: Callable[[], int] = lambda: 0
    stdin: tuple[bytes, BinaryIO] | None = None

    def reject(self, reason: str, rows: int, place: str, hint: str = "") -> None:
        """Rows left out. File faults use this too, with the rows they cost, 0 where that is unknown."""
        self.rejected.add(reason, rows, place, hint)

    def note(self, what: str, rows: int, place: str) -> None:
        """Rows that were kept but changed (cleaned, cut), or records that are no exchanges."""
        self.noted.add(what, rows, place)

    def see_unknown(self, name: str, rows: int) -> None:
        if name not in self.unknown and len(self.unknown) >= MAX_UNKNOWN:
            name = OTHER
        self.unknown[name] = self.unknown.get(name, 0) + rows


def label(path: Path) -> str:
    """How messages name a file."""
    return "(stdin)" if str(path) == "-" else str(path)


def place(path: Path, row: int) -> str:
    """``file:line`` or ``file:row``, counted from 1."""
    return f"{label(path)}:{row}"

"""The coverage card: which canonical columns a log has, in how many rows, and what was left out of it."""

from __future__ import annotations

from dataclasses import dataclass

from stillwatch.adapters.intake.source import Source
from stillwatch.errors import Reject
from stillwatch.tables import EXCHANGES


@dataclass(frozen=True, slots=True)
class ColumnCoverage:
    """One column: rows that have a value in it, their share of the rows kept, what it means."""

    column: str
    rows: int
    share: float
    meaning: str
    required: bool
    otel: str


@dataclass(frozen=True, slots=True)
class CoverageCard:
    """What a log holds. ``formats`` counts files by adapter; ``unknown`` rows by fields that no column takes."""

    rows_read: int
    rows_kept: int
    columns: tuple[ColumnCoverage, ...]
    formats: dict[str, int]
    unknown: dict[str, int]
    rejects: tuple[Reject, ...]
    notes: tuple[Reject, ...]


def coverage_card(source: Source) -> CoverageCard:
    """The card of a log; reads it to its end unless that was done. InputRejected where nothing can be judged."""
    if not source.rows_read:
        for _ in source:
            pass
    columns = tuple(
        ColumnCoverage(
            c.name,
            rows := source.coverage.get(c.name, 0),
            rows / max(1, source.rows_kept),
            c.meaning,
            c.required,
            c.otel,
        )
        for c in EXCHANGES.columns
    )
    unknown = dict(sorted(source.unknown.items(), key=lambda item: (-item[1], item[0])))
    return CoverageCard(
        source.rows_read,
        source.rows_kept,
        columns,
        dict(source.formats),
        unknown,
        tuple(source.rejects),
        tuple(source.notes),
    )

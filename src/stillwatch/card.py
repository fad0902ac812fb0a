"""The coverage card: which columns a log has in how many rows, and which detectors are blind for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stillwatch.adapters import read_accounts, read_exchanges, read_models
from stillwatch.pipeline import blindness
from stillwatch.plugins import discover
from stillwatch.tables import EXCHANGES


@dataclass(frozen=True, slots=True)
class Card:
    """What a log holds: rows read and kept, files by adapter, rows that hold each canonical column.

    ``unknown`` counts rows by field that no column takes, ``rejects`` what was left out, ``notes`` what was changed on
    the way in, ``blind`` the detectors that cannot work, each with the reason.
    """

    rows_read: int
    rows_kept: int
    formats: Mapping[str, int]
    coverage: Mapping[str, int]
    unknown: Mapping[str, int]
    rejects: tuple[str, ...]
    notes: tuple[str, ...]
    blind: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``; ``coverage`` as shares of the rows kept."""
        rows = max(1, self.rows_kept)
        return {
            "rows_read": self.rows_read,
            "rows_kept": self.rows_kept,
            "formats": dict(self.formats),
            "coverage": {c.name: round(self.coverage.get(c.name, 0) / rows, 4) for c in EXCHANGES.columns},
            "unknown": dict(self.unknown),
            "rejects": list(self.rejects),
            "notes": list(self.notes),
            "blind": dict(self.blind),
        }


def look(log: Path, accounts: Path | None, models: Path | None, adapter: str | None, maps: tuple[Path, ...]) -> Card:
    """Read the whole log and count; raises InputRejected as a scan would."""
    declared, faults = read_accounts(accounts) if accounts else (None, [])
    released, more = read_models(models) if models else (None, [])
    source = read_exchanges(log, adapter=adapter, maps=maps)
    for _ in source:
        pass
    return Card(
        rows_read=source.rows_read,
        rows_kept=source.rows_kept,
        formats=dict(source.formats),
        coverage=dict(source.coverage),
        unknown=dict(source.unknown),
        rejects=tuple(str(r) for r in (*source.rejects, *faults, *more)),
        notes=tuple(str(n) for n in source.notes),
        blind=blindness(discover("detectors"), source.coverage, declared, released),
    )


def show(card: Card, console: Console) -> None:
    """The card as tables, for a terminal."""
    formats = ", ".join(f"{name} ({files} file{'s' if files != 1 else ''})" for name, files in card.formats.items())
    console.print(f"{card.rows_read:,} rows read, {card.rows_kept:,} can be judged; format: {formats}", markup=False)
    table = Table("column", "rows", "share", "meaning", box=None, header_style="bold", pad_edge=False)
    for c in EXCHANGES.columns:
        rows = card.coverage.get(c.name, 0)
        share = rows / max(1, card.rows_kept)
        table.add_row(c.name, f"{rows:,}" if rows else "-", f"{share:.1%}" if rows else "absent", c.meaning)
    console.print(table)
    for name, why in card.blind.items():
        console.print(f"blind: {name} ({why})", markup=False)
    if card.unknown:
        fields = ", ".join(f"{name} ({rows:,})" for name, rows in sorted(card.unknown.items())[:20])
        console.print(f"fields that no column takes: {fields}", markup=False)
    for title, lines in (("left out:", card.rejects), ("changed on the way in:", card.notes)):
        for line in (title, *lines) if lines else ():
            console.print(line, markup=False, highlight=False)


def show_adapters(console: Console) -> None:
    """The log formats that are known, with what each is."""
    table = Table("adapter", "format", box=None, header_style="bold", pad_edge=False)
    for name, adapter in discover("adapters").items():
        table.add_row(name, adapter.meaning)
    console.print(table)

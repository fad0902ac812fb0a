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
    """Rows read and kept, rows that hold each canonical column, fields nobody asked for, faults, blind detectors."""

    rows_read: int
    rows_kept: int
    coverage: Mapping[str, int]
    unknown: Mapping[str, int]
    rejects: tuple[str, ...]
    blind: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``; ``coverage`` as shares of the rows kept."""
        rows = max(1, self.rows_kept)
        return {
            "rows_read": self.rows_read,
            "rows_kept": self.rows_kept,
            "coverage": {c.name: round(self.coverage.get(c.name, 0) / rows, 4) for c in EXCHANGES.columns},
            "unknown": dict(self.unknown),
            "rejects": list(self.rejects),
            "blind": dict(self.blind),
        }


def look(log: Path, accounts: Path | None, models: Path | None, adapter: str | None, maps: tuple[Path, ...]) -> Card:
    """Read the whole log and count; raises InputRejected as a scan would."""
    declared, faults = read_accounts(accounts) if accounts else (None, [])
    released, more = read_models(models) if models else (None, [])
    source = read_exchanges(log, adapter=adapter, maps=maps)
    for _ in source:
        pass
    blind = blindness(discover("detectors"), source.coverage, declared, released)
    rejects = tuple(str(r) for r in (*source.rejects, *faults, *more))
    return Card(source.rows_read, source.rows_kept, dict(source.coverage), dict(source.unknown), rejects, blind)


def show(card: Card, console: Console) -> None:
    """The card as tables, for a terminal."""
    console.print(f"{card.rows_read:,} rows read, {card.rows_kept:,} can be judged")
    table = Table("column", "rows", "share", "meaning", box=None, header_style="bold")
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
    for reject in card.rejects:
        console.print(reject, markup=False)

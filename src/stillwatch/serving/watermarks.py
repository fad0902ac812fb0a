"""Which campaigns have a key now: the ledger of watermarks as it stands, read anew when it changes. No secret is needed for that.

While the ledger cannot be used the last that could goes on being answered from: a key that was committed to stays so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from stillwatch.entries import LOG
from stillwatch.errors import StillwatchError, Terminal
from stillwatch.protection.book import Ledger
from stillwatch.responders.protect import WATERMARK, WATERMARK_KEY, watermark_key
from stillwatch.serving.decisions import Table
from stillwatch.store.state import FileMark, file_mark
from stillwatch.types import InForce
from stillwatch.verification import public_key, verify


@dataclass(slots=True)
class Watermarks:
    """The ledger in ``folder``. ``fault`` says why it cannot be used, empty where it can or where there is none."""

    folder: Path
    fault: str = ""
    _ledger: Ledger = field(default_factory=Ledger)
    _mark: FileMark | None = None

    def now(self) -> Ledger:
        """The ledger, read again if its log is another one than the last time, or could not be used then."""
        mark = file_mark(self.folder / LOG)
        if mark != self._mark or self.fault:
            try:
                self._ledger = self._read()
                self.fault = ""
            except StillwatchError as e:
                self.fault = e.message
            self._mark = mark
        return self._ledger

    def _read(self) -> Ledger:
        if not (self.folder / LOG).exists():
            return Ledger()
        found = verify(self.folder, public_key(self.folder))
        if not found.is_sound:
            raise Terminal(str(found.faults[0]), hint="stillwatch audit verify HOME/watermarks")
        return Ledger.read(self.folder)


def with_watermark(held: InForce, ledger: Ledger, now: datetime) -> InForce:
    """What is in force, with the id of the key that its campaign has now, where answers are to carry a watermark."""
    if held.settings.get(WATERMARK) is not True:
        return held
    key = ledger.current(held.campaign_id, now)
    return replace(held, settings={**held.settings, WATERMARK_KEY: key.key_id}) if key else held


def unmarked(table: Table) -> list[str]:
    """Campaigns whose accounts are to get watermarked answers, and do not: they have no key."""
    parts: tuple[Mapping[str, InForce], ...] = (table.accounts, table.keys, table.end_users)
    wanted = (h for part in parts for h in part.values() if h.settings.get(WATERMARK) is True)
    return sorted({h.campaign_id for h in wanted if not watermark_key(h.settings)})

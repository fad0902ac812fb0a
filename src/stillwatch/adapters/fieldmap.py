"""Log formats as data: a TOML file says which field of a record goes to which canonical column.

extends = "litellm"                     # optional: start from a built-in map, change what is said here
meaning = "our gateway"
unfold = "otlp"                         # optional: one record holds many exchanges
path = '(?P<tenant>[^/]+)/[^/]+$'       # optional: named groups of the file's path, as fields path.tenant
ignore = ["trace.*", "body.{seed,stop}"]   # known and not needed: not counted as unknown

[match]                                 # which records are this format; none of it: every record
all = ["request.messages"]              # dotted paths that must be there; path=value and path~part test the value
any = ["url~/v1/messages", "response.type=message"]
none = ["params"]

[columns]
account_id = "metadata.key_hash"                                # a path
exchange_id = ["response.id", "id"]                             # the first of several that has something
prompt = { from = ["request.messages"], as = "last_user_text" } # through a converter
system = ["request.system", "request.messages|system_text"]     # or each through its own
end_user = { join = ["team", "user"] }                          # several, with ':' between
batch = { value = true }                                        # the same for all records

[hints]
account_id = "what to do where it is missing"
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from stillwatch.adapters.intake.adapter import Adapter
from stillwatch.adapters.intake.conform import Chunk, conform
from stillwatch.adapters.intake.mapfile import TYPES, FieldMap, load
from stillwatch.adapters.intake.mixed import columns_of
from stillwatch.adapters.intake.records import Record, Records, first_records, record_blocks
from stillwatch.adapters.intake.report import Report, place
from stillwatch.adapters.intake.unfold import UNFOLDS

ODD_SHAPES = (TypeError, ValueError, AttributeError, KeyError, IndexError, RecursionError)
"""What reading a record raises when its values are not of the kind its format has in those places."""


def map_adapter(*sources: str | Path, name: str = "", meaning: str = "") -> Adapter:
    """An adapter that reads records by field maps: built-in ones by name, others by file. The first that matches
    counts.
    """
    maps = tuple(load(s) for s in sources)
    reading = Mapped(name or maps[0].name, maps)
    return Adapter(reading.name, meaning or maps[0].meaning, reading.matches, reading.batches)


@dataclass(frozen=True)
class Mapped:
    """Reads files by field maps."""

    name: str
    maps: tuple[FieldMap, ...]

    def matches(self, path: Path, head: bytes) -> bool:
        return any(self._map_of(r) is not None for record in first_records(path, head) for r in self._unfolded(record))

    def batches(self, path: Path, report: Report) -> Iterator[pa.RecordBatch]:
        for records in record_blocks(path, report):
            yield from self.conformed(records, path, report)

    def conformed(self, records: Records, path: Path, report: Report) -> Iterator[pa.RecordBatch]:
        """Canonical batches of these records, wherever they come from; messages name ``path`` and the records' numbers."""
        chunk = self._chunk(records, path, report)
        if len(chunk):
            yield from conform(chunk, report)

    def _map_of(self, record: Record) -> FieldMap | None:
        return next((m for m in self.maps if m.match(record)), None)

    def _unfolded(self, record: Record) -> list[Record]:
        """The records in a record, for telling the format: none where it is not what it should be."""
        try:
            return list(UNFOLDS[self.maps[0].unfold](record, Report(), ""))
        except ODD_SHAPES:
            return []

    def _chunk(self, records: Records, path: Path, report: Report) -> Chunk:
        rows, places = [], []
        hints: dict[str, str] = {}
        groups = _path_fields(self.maps[0].path, path)
        for number, record in records:
            for chosen, row in self._rows(record, groups, place(path, number), report):
                hints = hints or chosen.hints
                rows.append(row)
                places.append(number)
        return Chunk(path, columns_of(rows, TYPES), np.array(places, dtype=np.int64), hints)

    def _rows(self, record: Record, groups: Record, where: str, report: Report) -> Iterator[tuple[FieldMap, Record]]:
        """The canonical rows of a record. One that a converter stumbles over is counted as a reject."""
        try:
            for flat in UNFOLDS[self.maps[0].unfold](record, report, where):
                flat = groups | flat if groups else flat
                chosen = self._map_of(flat)
                if chosen is None:
                    self._refuse(f"a record that is none of {self.name}'s", where, report)
                else:
                    row = chosen.row(flat)
                    self._count_unknown(chosen, flat, report)
                    yield chosen, row
        except ODD_SHAPES:
            self._refuse(f"a record of a shape that {self.name}'s do not have", where, report)

    def _refuse(self, reason: str, where: str, report: Report) -> None:
        report.rows_read += 1
        report.reject(reason, 1, where, "a field map for these records can be given with --map FILE")

    def _count_unknown(self, chosen: FieldMap, record: Record, report: Report) -> None:
        for name in chosen.unknown(record):
            report.see_unknown(name, 1)


def _path_fields(pattern: str, path: Path) -> Record:
    match = re.search(pattern, path.as_posix()) if pattern else None
    return {f"path.{k}": v for k, v in match.groupdict().items()} if match else {}

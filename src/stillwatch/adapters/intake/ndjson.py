"""Canonical rows out of NDJSON: Arrow reads whole blocks; Python reads the few lines around a fault.

A block that Arrow refuses is halved until the fault is alone among a few lines; those are read one by one, so a broken
line costs itself and its place is known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json

from stillwatch.adapters.intake.blocks import Block, blocks
from stillwatch.adapters.intake.conform import Chunk, Rows
from stillwatch.adapters.intake.depth import MAX_DEPTH, deep_lines
from stillwatch.adapters.intake.files import opened
from stillwatch.adapters.intake.mixed import columns_of
from stillwatch.adapters.intake.report import Report, place
from stillwatch.adapters.intake.required import require
from stillwatch.tables import Table

FEW_LINES = 64
JSON_HINT = "each line must be one whole JSON object"


def ndjson_chunks(path: Path, table: Table, report: Report) -> Iterator[Chunk]:
    """The file's rows as chunks; lines that are no JSON objects are counted as rejects."""
    reading = Reading(path, table, report)
    with opened(path, report) as stream:
        for block in blocks(stream, path, report):
            yield from reading.chunks(block)


@dataclass
class Reading:
    """One file being read. ``texts`` are the columns it writes as text so far.

    ``others`` are the types it writes the other columns in; filled once unknown fields of varying shape keep Arrow from
    finding types by itself.
    """

    path: Path
    table: Table
    report: Report
    texts: set[str] = field(default_factory=set)
    others: dict[str, pa.DataType] = field(default_factory=dict)
    is_checked: bool = False

    def __post_init__(self) -> None:
        self.texts = {c.name for c in self.table.columns if pa.types.is_string(c.type)}

    def chunks(self, block: Block) -> Iterator[Chunk]:
        if b"\0" in block.text:
            block = self._without_nul(block)
        if len(deep := deep_lines(block.text)):
            block = self._without(deep, block)
        if not self.is_checked:
            self._check(block)
        yield from self._read(block, retries=True)

    def _without_nul(self, block: Block) -> Block:
        hurt = [n for n, text in enumerate(block.text.split(b"\n")) if b"\0" in text]
        self.report.note("NUL bytes in a line, replaced", len(hurt), place(self.path, block.line + hurt[0]))
        return Block(block.text.replace(b"\0", b"\xef\xbf\xbd"), block.line)

    def _without(self, deep: Rows, block: Block) -> Block:
        """The block with these lines blank, so that the others keep their numbers."""
        self.report.rows_read += len(deep)
        self.report.reject(
            f"JSON nested deeper than {MAX_DEPTH} levels", len(deep), place(self.path, block.line + int(deep[0]))
        )
        lines = block.text.split(b"\n")
        for number in deep:
            lines[number] = b""
        return Block(b"\n".join(lines), block.line)

    def _check(self, block: Block) -> None:
        """InputRejected if a required column is named nowhere in the first block that has an object at all."""
        rows = [
            row for text in block.text.split(b"\n", FEW_LINES)[:FEW_LINES] if isinstance(row := _loaded(text), dict)
        ]
        if rows:
            named = {n for row in rows for n in row} | {n for n in self.table.names if f'"{n}"'.encode() in block.text}
            require(named, self.table, self.path)
            self.is_checked = True

    def _read(self, block: Block, retries: bool = False) -> Iterator[Chunk]:
        parsed = self._parsed(block)
        if parsed is None and retries:
            parsed = self._parsed_otherwise(block)
        if parsed is not None:
            yield from self._chunk(*parsed)
        elif block.text.count(b"\n") <= FEW_LINES:
            yield from self._one_by_one(block)
        else:
            for half in _halves(block):
                yield from self._read(half)

    def _parsed(self, block: Block) -> tuple[dict[str, pa.Array], Rows] | None:
        """The block by Arrow, with the line of each row; None where Arrow cannot, or counts otherwise than we do."""
        known = dict.fromkeys((n for n in self.table.names if n in self.texts), pa.string()) | self.others
        parse = pyarrow.json.ParseOptions(
            explicit_schema=pa.schema(known.items()),
            unexpected_field_behavior="ignore" if self.others else "infer",
        )
        whole = pyarrow.json.ReadOptions(use_threads=False, block_size=len(block.text) + 64)
        try:
            read = pyarrow.json.read_json(pa.BufferReader(block.text), read_options=whole, parse_options=parse)
        except pa.ArrowInvalid:
            return None
        lines = _lines(block, read.num_rows)
        if lines is None:
            return None
        if self.others:
            self._count_unknown(block)
        return dict(zip(read.schema.names, read.columns)), lines

    def _parsed_otherwise(self, block: Block) -> tuple[dict[str, pa.Array], Rows] | None:
        """As ``_parsed``, after a look at the first lines: ids written as numbers, unknown fields that vary."""
        sample = [
            row for text in block.text.split(b"\n", FEW_LINES)[:FEW_LINES] if isinstance(row := _loaded(text), dict)
        ]
        numbers = {n for row in sample for n in self.texts & row.keys() if isinstance(row[n], int | float)}
        if numbers:
            self.texts -= numbers
            if (parsed := self._parsed(block)) is not None:
                return parsed
        if self.others:
            return None
        self.others = self._types_of(sample)
        if (parsed := self._parsed(block)) is None:
            self.others = {}
        return parsed

    def _types_of(self, sample: list[dict[str, Any]]) -> dict[str, pa.DataType]:
        """How the columns that are not text are written, by some rows; as the table has them where no row does."""
        wanted = {c.name: c.type for c in self.table.columns if c.name not in self.texts}
        seen = {n: a.type for n, a in columns_of(sample, wanted).items()}
        return {n: _json_type(seen.get(n, pa.null()), kind) for n, kind in wanted.items()}

    def _count_unknown(self, block: Block) -> None:
        for text in block.text.splitlines():
            row = _loaded(text)
            for name in row if isinstance(row, dict) else ():
                if name not in self.table.names:
                    self.report.see_unknown(name, 1)

    def _one_by_one(self, block: Block) -> Iterator[Chunk]:
        rows, lines = [], []
        for number, text in enumerate(block.text.split(b"\n"), block.line):
            if not text.strip():
                continue
            row = _loaded(text)
            problem = self._problem(row)
            if problem:
                self.report.rows_read += 1
                self.report.reject(problem, 1, place(self.path, number), JSON_HINT)
            else:
                rows.append(row)
                lines.append(number)
        if rows:
            types = {c.name: c.type for c in self.table.columns}
            unknown = {n: pa.string() for row in rows for n in row if n not in types}
            yield from self._chunk(columns_of(rows, types | unknown), np.array(lines))

    def _problem(self, row: Any) -> str:
        if row is _BROKEN:
            return "broken JSON"
        if not isinstance(row, dict):
            return "a line that is no JSON object"
        for name in row.keys() & self.table.schema.names:
            if isinstance(row[name], dict | list) and pa.types.is_string(self.table.schema.field(name).type):
                return f"{name} is not text"
        return ""

    def _chunk(self, columns: dict[str, pa.Array], lines: Rows) -> Iterator[Chunk]:
        if not len(lines):
            return
        filled = {n: c for n, c in columns.items() if c.null_count < len(lines)}
        for name, column in filled.items():
            if name not in self.table.names:
                self.report.see_unknown(name, len(column) - column.null_count)
        yield Chunk(self.path, filled, lines, {})


BLANK_LINE = re.compile(rb"(?:\A|\n)[ \t\r]*(?=\n)")


class _Broken:
    """What a line that is no JSON is read as."""


_BROKEN = _Broken()


def _loaded(text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8", "surrogateescape"), strict=False)
    except (ValueError, RecursionError):
        return _BROKEN


def _json_type(seen: pa.DataType, wanted: pa.DataType) -> pa.DataType:
    """What Arrow is told to expect of a column."""
    if pa.types.is_integer(seen) and pa.types.is_floating(wanted):
        return pa.float64()
    if not pa.types.is_null(seen):
        return seen
    if pa.types.is_timestamp(wanted):
        return pa.string()
    return pa.int64() if pa.types.is_integer(wanted) else pa.float64() if pa.types.is_floating(wanted) else wanted


def _lines(block: Block, rows: int) -> Rows | None:
    """The line number of each row; None if rows and lines cannot be matched."""
    count = block.text.count(b"\n")
    # A blank line and a line of two objects would make up for each other.
    if rows == count and not BLANK_LINE.search(block.text):
        return np.arange(block.line, block.line + count)
    filled = [n for n, text in enumerate(block.text.split(b"\n"), block.line) if text.strip()]
    return np.array(filled, dtype=np.int64) if len(filled) == rows else None


def _halves(block: Block) -> tuple[Block, Block]:
    middle = block.text.find(b"\n", len(block.text) // 2) + 1
    if middle in (0, len(block.text)):
        middle = block.text.rfind(b"\n", 0, len(block.text) // 2) + 1
    head = block.text[:middle]
    return Block(head, block.line), Block(block.text[middle:], block.line + head.count(b"\n"))

"""Canonical rows out of CSV: Arrow reads whole blocks as text, ``cast`` makes types of it.

Fields may be quoted and hold newlines; the first line names the columns; comma, semicolon and tab are told apart by it.
An empty field is null, a quoted empty one is empty text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numba import njit

from stillwatch.adapters.intake.blocks import Block, blocks
from stillwatch.adapters.intake.conform import Chunk, Rows
from stillwatch.adapters.intake.files import Stream, fault, opened
from stillwatch.adapters.intake.mixed import array_of
from stillwatch.adapters.intake.report import Report, place
from stillwatch.adapters.intake.required import require
from stillwatch.tables import Table

DELIMITERS = ",;\t"
WIDTH_HINT = "each line must have as many fields as the first; a field with the delimiter or a quote in it is quoted"


def csv_chunks(path: Path, table: Table, report: Report) -> Iterator[Chunk]:
    """The file's rows as chunks of text columns; rows of another width than the header's are counted as rejects."""
    with opened(path, report) as stream:
        for reading, block in _blocks(stream, path, report):
            if not reading.is_checked:
                reading.check(table)
            chunk = reading.chunk(block, report)
            reading.count_unknown(chunk, table, report)
            yield chunk


def csv_tables(path: Path, report: Report) -> Iterator[Chunk]:
    """As ``csv_chunks``, for a file whose columns are another format's."""
    with opened(path, report) as stream:
        for reading, block in _blocks(stream, path, report):
            yield reading.chunk(block, report)


def header_of(head: bytes) -> tuple[list[str], str]:
    """Names of the columns and the delimiter, from the first line."""
    line = head.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8", "replace")
    delimiter = max(DELIMITERS, key=line.count)
    return next(csv.reader([line], delimiter=delimiter), []), delimiter


def _blocks(stream: Stream, path: Path, report: Report) -> Iterator[tuple[Reading, Block]]:
    reading: Reading | None = None
    for block in blocks(stream, path, report, after_last_record):
        if reading is None:
            names, delimiter = header_of(block.text)
            if len(set(names)) != len(names):
                raise fault(path, f"the first line names a column twice: {', '.join(names[:12])}", "rename one of them")
            reading = Reading(path, names, delimiter)
            end = block.text.find(b"\n") + 1
            block = Block(block.text[end:], block.line + 1)
        if block.text.strip():
            yield reading, block


@dataclass
class Reading:
    """One file being read, by its header."""

    path: Path
    names: list[str]
    delimiter: str
    is_checked: bool = False

    def check(self, table: Table) -> None:
        require(self.names, table, self.path)
        self.is_checked = True

    def count_unknown(self, chunk: Chunk, table: Table, report: Report) -> None:
        for name, column in chunk.columns.items():
            if name not in table.names:
                report.see_unknown(name, len(column) - column.null_count)

    def chunk(self, block: Block, report: Report) -> Chunk:
        lines = _record_lines(np.frombuffer(block.text, np.uint8), ord(self.delimiter)) + block.line
        bad: list[int] = []
        read = self._parsed(block, bad)
        if read is None or read.num_rows + len(bad) != len(lines):
            return self._one_by_one(block, report)
        if bad:
            # Arrow counts the rows of the block from 1, without a header.
            fallen = np.array(bad) - 1
            self._reject(lines[fallen], report)
            lines = np.delete(lines, fallen)
        columns = {n: c.combine_chunks() for n, c in zip(self.names, read.columns)}
        return Chunk(self.path, {n: _text(c) for n, c in columns.items()}, lines, {})

    def _reject(self, lines: Rows, report: Report) -> None:
        report.rows_read += len(lines)
        report.reject("wrong number of fields", len(lines), place(self.path, int(lines[0])), WIDTH_HINT)

    def _parsed(self, block: Block, bad: list[int]) -> pa.Table | None:
        def leave_out(row: Any) -> str:
            bad.append(row.number)
            return "skip"

        parse = pyarrow.csv.ParseOptions(
            delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=leave_out
        )  # fmt: skip
        whole = pyarrow.csv.ReadOptions(
            use_threads=False, block_size=len(block.text) + 64, column_names=self.names
        )  # fmt: skip
        convert = pyarrow.csv.ConvertOptions(
            check_utf8=False,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            column_types=dict.fromkeys(self.names, pa.string()),
        )
        try:
            return pyarrow.csv.read_csv(pa.BufferReader(block.text), whole, parse, convert)
        except pa.ArrowInvalid:
            return None

    def _one_by_one(self, block: Block, report: Report) -> Chunk:
        csv.field_size_limit(report.limits.line_bytes)
        reader = csv.reader(io.StringIO(block.text.decode("utf-8", "surrogateescape")), delimiter=self.delimiter)
        rows: list[list[str]] = []
        lines: list[int] = []
        start = block.line
        for row in reader:
            if len(row) == len(self.names):
                rows.append(row)
                lines.append(start)
            elif row:
                self._reject(np.array([start]), report)
            start = block.line + reader.line_num
        columns = {n: array_of([r[i] or None for r in rows], pa.string()) for i, n in enumerate(self.names)}
        return Chunk(self.path, columns, np.array(lines, dtype=np.int64), {})


def _text(column: Any) -> pa.Array:
    return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column


def after_last_record(text: bytes) -> int:
    """Where the last whole record ends, newlines inside quotes passed over."""
    delimiter = header_of(text[: 1 << 16])[1]
    return int(_last_end(np.frombuffer(text, np.uint8), ord(delimiter)))


@njit(cache=True, nogil=True)
def _last_end(text: Any, delimiter: int) -> Any:
    inside, last, at_start = False, 0, True
    for i in range(len(text)):
        c = text[i]
        if c == 34:
            if inside or at_start:
                inside = not inside
        elif c == 10 and not inside:
            last = i + 1
        # A quote opens only at the start of a field; after an inner quote it may reopen ("" is one quote).
        at_start = (not inside) and (c == 10 or c == delimiter or c == 34)
        if i == 0 and c == 34:
            inside = True
    return last


@njit(cache=True, nogil=True)
def _record_lines(text: Any, delimiter: int) -> Any:
    """The line, from 0, on which each record that is not blank begins."""
    out = np.empty(len(text) + 1, np.int64)
    count, line, begun, start, inside, at_start = 0, 0, 0, 0, False, True
    for i in range(len(text)):
        c = text[i]
        if c == 34:
            if inside or at_start:
                inside = not inside
        elif c == 10:
            line += 1
            if not inside:
                blank = i == start or (i == start + 1 and text[start] == 13)
                if not blank:
                    out[count] = begun
                    count += 1
                begun, start = line, i + 1
        at_start = (not inside) and (c == 10 or c == delimiter or c == 34)
    return out[:count].copy()

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
    try:
        return next(csv.reader([line], delimiter=delimiter), []), delimiter
    except csv.Error:
        return [], delimiter


def is_utf8(text: bytes) -> bool:
    """Whether the bytes are UTF-8."""
    try:
        str(text, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _blocks(stream: Stream, path: Path, report: Report) -> Iterator[tuple[Reading, Block]]:
    reading: Reading | None = None
    for block in blocks(stream, path, report, Cutter()):
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
        text = np.frombuffer(block.text, np.uint8)
        lines = _record_lines(text, ord(self.delimiter), block.text.count(b"\n")) + block.line
        bad: list[int] = []
        read = self._parsed(block, bad)
        if read is None or read.num_rows + len(bad) != len(lines):
            return self._one_by_one(block, report)
        if bad:
            # Arrow counts the rows of the block from 1, without a header.
            fallen = np.array(bad) - 1
            self._reject(lines[fallen], report)
            lines = np.delete(lines, fallen)
        return Chunk(self.path, dict(zip(self.names, read.columns)), lines, {})

    def _reject(self, lines: Rows, report: Report) -> None:
        report.rows_read += len(lines)
        report.reject("wrong number of fields", len(lines), place(self.path, int(lines[0])), WIDTH_HINT)

    def _parsed(self, block: Block, bad: list[int]) -> pa.Table | None:
        if not is_utf8(block.text):
            return None  # pyarrow could not hand a broken row to ``leave_out``

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
        text = io.StringIO(block.text.decode("utf-8", "surrogateescape"), newline="")
        reader = csv.reader(text, delimiter=self.delimiter)
        rows: list[list[str]] = []
        lines: list[int] = []
        start = block.line
        while True:
            try:
                row = next(reader, None)
            except csv.Error:
                self._reject(np.array([start]), report)
                start = block.line + reader.line_num
                continue
            if row is None:
                break
            if len(row) == len(self.names):
                rows.append(row)
                lines.append(start)
            elif row:
                self._reject(np.array([start]), report)
            start = block.line + reader.line_num
        columns = {n: array_of([r[i] or None for r in rows], pa.string()) for i, n in enumerate(self.names)}
        return Chunk(self.path, columns, np.array(lines, dtype=np.int64), {})


class Cutter:
    """Finds where the last whole record of a text ends, newlines inside quotes passed over; the first text has the
    header.
    """

    def __init__(self) -> None:
        self._delimiter = ""

    def __call__(self, text: bytes) -> int:
        self._delimiter = self._delimiter or header_of(text)[1]
        return int(_last_end(np.frombuffer(text, np.uint8), ord(self._delimiter)))


@njit(cache=True, nogil=True)
def _last_end(text: Any, delimiter: int) -> Any:
    inside, at_start, last = False, True, 0
    for i in range(len(text)):
        c = text[i]
        # A quote opens at the start of a field only; right after a closing one it is half of a doubled one.
        if c == 34 and (inside or at_start):
            inside = not inside
        elif c == 10 and not inside:
            last = i + 1
        at_start = (not inside) and (c == 10 or c == delimiter or c == 34)  # noqa: PLR1714
    return last


@njit(cache=True, nogil=True)
def _record_lines(text: Any, delimiter: int, newlines: int) -> Any:
    """The line, from 0, on which each record that is not blank begins."""
    out = np.empty(newlines, np.int64)
    count, line, begun, start, inside, at_start = 0, 0, 0, 0, False, True
    for i in range(len(text)):
        c = text[i]
        if c == 34 and (inside or at_start):
            inside = not inside
        elif c == 10:
            line += 1
            if not inside:
                if i > start and not (i == start + 1 and text[start] == 13):
                    out[count] = begun
                    count += 1
                begun, start = line, i + 1
        at_start = (not inside) and (c == 10 or c == delimiter or c == 34)  # noqa: PLR1714
    return out[:count].copy()

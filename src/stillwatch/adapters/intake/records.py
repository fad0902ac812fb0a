"""Records of foreign formats as Python objects: NDJSON, JSON documents, CSV and Parquet, told apart by their first
bytes.

A foreign record is nested and varied, so each is parsed on its own; what comes of it is columnar again a block later.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stillwatch.adapters.intake.blocks import Block, blocks
from stillwatch.adapters.intake.conform import Chunk
from stillwatch.adapters.intake.csvs import csv_tables, header_of
from stillwatch.adapters.intake.files import PARQUET, Stream, head_of, opened
from stillwatch.adapters.intake.parquet import parquet_file, parquet_tables
from stillwatch.adapters.intake.report import Report, place
from stillwatch.adapters.intake.texts import whole_text

Record = dict[str, Any]
Records = list[tuple[int, Record]]

_BETWEEN = re.compile(r"[\s,\[\]]*")
_DECODER = json.JSONDecoder(strict=False)
LINE_HINT = "each line must be one whole JSON object, or the file one JSON document"


def record_blocks(path: Path, report: Report) -> Iterator[Records]:
    """Lists of (line or row, record), of bounded size; what cannot be parsed is counted as a reject."""
    head = head_of(path, report)
    if head.startswith(PARQUET):
        yield from map(_rows_of, parquet_tables(path, report))
    elif not _is_json(head):
        yield from map(_rows_of, csv_tables(path, report))
    elif _is_lines(head):
        with opened(path, report) as stream:
            for block in blocks(stream, path, report):
                yield _of_lines(block, path, report)
    else:
        with opened(path, report) as stream:
            yield from _of_document(stream, path, report)


@lru_cache(maxsize=1)
def first_records(path: Path, head: bytes) -> tuple[Record, ...]:
    """Records in the first bytes of a file, to tell its format by; none where they cannot be parsed."""
    if head.startswith(PARQUET):
        batch = next(parquet_file(path).iter_batches(1), None)
        columns = dict(zip(batch.schema.names, batch.columns)) if batch is not None else {}
        return tuple(record for _, record in _rows_of(Chunk(path, columns, np.arange(1), {}))) if columns else ()
    if not _is_json(head):
        names, delimiter = header_of(head)
        lines = head.decode("utf-8", "replace").splitlines()[1:4]
        return tuple(dict(zip(names, row)) for row in csv.reader(lines, delimiter=delimiter))
    if _is_lines(head):
        return tuple(r for line in head.split(b"\n")[:64] for r in _objects(_parsed(line)))
    try:
        text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "ignore")
        return tuple(_objects(_DECODER.raw_decode(text, _after_brackets(text, 0))[0]))
    except (ValueError, RecursionError):
        return ()


def _is_json(head: bytes) -> bool:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def _is_lines(head: bytes) -> bool:
    """Whether one of the first lines is a whole value; a document's lines are not."""
    lines = head.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return any(line.strip() and _objects(_parsed(line)) for line in lines[:64])


def _parsed(line: bytes) -> Any:
    try:
        return _DECODER.decode(line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None


def _objects(value: Any) -> list[Record]:
    """The records in one parsed value: an object is one, a list of objects several."""
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, dict)]


def _of_lines(block: Block, path: Path, report: Report) -> Records:
    found: Records = []
    for number, line in enumerate(block.text.split(b"\n"), block.line):
        if not line.strip():
            continue
        records = _objects(_parsed(line))
        if not records:
            report.rows_read += 1
            report.reject("broken JSON, or no object", 1, place(path, number), LINE_HINT)
        found += [(number, r) for r in records]
    return found


def _of_document(stream: Stream, path: Path, report: Report) -> Iterator[Records]:
    """Objects of one JSON document, or of several behind each other, decoded as the text comes in."""
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    text, at, line, more = "", 0, 1, True
    while more:
        data = stream.read(report.limits.block_bytes)
        more = bool(data)
        text = text[at:] + decode(data, not more).lstrip("\ufeff")
        found, at, line, is_stuck = _decoded(text, line)
        yield found
        if is_stuck and (not more or len(text) - at > report.limits.line_bytes):
            report.rows_read += 1
            report.reject("broken JSON; the rest of the document was not read", 1, place(path, line), LINE_HINT)
            return


def _decoded(text: str, line: int) -> tuple[Records, int, int, bool]:
    """Whole objects at the start of a text, where they end, the line there, and whether what is left is none."""
    found: Records = []
    at = 0
    while True:
        start = _after_brackets(text, at)
        line += text.count("\n", at, start)
        if start >= len(text):
            return found, start, line, False
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            return found, start, line, True
        found += [(line, r) for r in _objects(value)]
        line += text.count("\n", start, end)
        at = end


def _after_brackets(text: str, at: int) -> int:
    match = _BETWEEN.match(text, at)
    return match.end() if match else at


def _rows_of(chunk: Chunk) -> Records:
    columns = {name: _values(column) for name, column in chunk.columns.items()}
    names = list(columns)
    return [(int(p), dict(zip(names, row))) for p, row in zip(chunk.places, zip(*columns.values()))]


def _values(column: Any) -> list[Any]:
    """A column as Python values; a nested one with broken UTF-8 inside loses the values that have it."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_string(column.type):
        return whole_text(column).to_pylist()
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return None

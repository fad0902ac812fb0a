"""Rows as read to rows as the contract has them: the one gate every adapter's rows pass, in this order.

types, required values, times in range, text made safe, ids seen before. A row that fails is counted under the first
reason that applies, with the place of the first such row; all that is left has exactly the schema of ``EXCHANGES``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.adapters.intake.cast import cast, expected
from stillwatch.adapters.intake.report import Report, place
from stillwatch.adapters.intake.seen import DIFFERENT, SAME
from stillwatch.adapters.intake.texts import BROKEN, NOTES, mended
from stillwatch.tables import EXCHANGES, Table

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

DUPLICATE = "duplicate"
DIFFERENT_DUPLICATE = "duplicate exchange_id with different content"
TIME_HINT = "times are ISO 8601, or seconds, ms, us or ns since 1970; no zone means UTC"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Columns as read, of any types, under canonical names; ``places`` holds each row's line or row in the file."""

    path: Path
    columns: Mapping[str, pa.Array]
    places: Rows
    hints: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True, slots=True)
class Telling:
    """Tells the report about some rows of a batch, by their places."""

    path: Path
    places: Rows
    report: Report

    def note(self, what: str, mask: Mask) -> None:
        rows = np.flatnonzero(mask)
        if len(rows):
            self.report.note(what, len(rows), place(self.path, int(self.places[rows[0]])))

    def reject(self, reason: str, mask: Mask, hint: str = "") -> None:
        rows = np.flatnonzero(mask)
        if len(rows):
            self.report.reject(reason, len(rows), place(self.path, int(self.places[rows[0]])), hint)


class Sieve:
    """Which rows of a chunk still stand; a row falls once, for the first reason that applies."""

    def __init__(self, chunk: Chunk, report: Report) -> None:
        self._told = Telling(chunk.path, chunk.places, report)
        self.stands = np.ones(len(chunk), bool)

    def drop(self, mask: Mask, reason: str, hint: str = "") -> None:
        self._told.reject(reason, mask & self.stands, hint)
        self.stands &= ~mask

    def count(self, mask: Mask, reason: str, hint: str) -> None:
        """Tells of rows that stand all the same."""
        self._told.reject(reason, mask, hint)

    def misfit(self, mask: Mask, reason: str, hint: str) -> None:
        """Rows with a value that could not be read."""
        self.drop(mask, reason, hint)


def conform(chunk: Chunk, report: Report) -> Iterator[pa.RecordBatch]:
    """The chunk's good rows as record batches of ``EXCHANGES``, each within the limits of rows and bytes."""
    report.rows_read += len(chunk)
    sieve = Sieve(chunk, report)
    columns = shaped(chunk, EXCHANGES, sieve)
    _check_times(columns["time"], sieve, report)
    batch, places = standing(columns, EXCHANGES, sieve, chunk.places)
    told = Telling(chunk.path, places, report)
    batch = _first_seen(_safe(batch, told), told)
    report.rows_kept += len(batch)
    for column in EXCHANGES.names:
        present = len(batch) - batch[column].null_count
        report.coverage[column] = report.coverage.get(column, 0) + present
    yield from _pieces(batch, report)


def shaped(chunk: Chunk, table: Table, sieve: Sieve) -> dict[str, pa.Array]:
    """All columns of the table in their types; rows with values that do not fit, or without required ones, fall."""
    columns = {}
    for column in table.columns:
        given = chunk.columns.get(column.name)
        if given is None:
            columns[column.name] = pa.nulls(len(chunk), column.type)
        else:
            columns[column.name], failed = cast(given, column.type)
            sieve.misfit(failed, f"{column.name} is not {expected(column.type)}", _hint(column.name, chunk))
    for column in table.columns:
        if column.required:
            sieve.drop(_is_missing(columns[column.name]), f"{column.name} is missing", _hint(column.name, chunk))
    return columns


def _hint(name: str, chunk: Chunk) -> str:
    return chunk.hints.get(name, TIME_HINT if name in ("time", "created_at", "released_at") else "")


def _is_missing(column: pa.Array) -> Mask:
    missing: Mask = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_string(column.type):
        empty = pc.equal(pc.binary_length(column), 0).fill_null(False)
        missing = missing | empty.to_numpy(zero_copy_only=False)
    return missing


def _check_times(times: pa.Array, sieve: Sieve, report: Report) -> None:
    us = times.view(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    earliest = int(report.limits.earliest.timestamp() * 1e6)
    latest = int((report.now + timedelta(seconds=report.limits.future_s)).timestamp() * 1e6)
    sieve.drop(us < earliest, f"time lies before {report.limits.earliest.year}", TIME_HINT)
    sieve.drop(us > latest, "time lies in the future", "check the clock that wrote the log, and the unit of its times")


def standing(columns: Mapping[str, pa.Array], table: Table, sieve: Sieve, places: Rows) -> tuple[pa.RecordBatch, Rows]:
    """The rows that still stand, in the table's schema, and their places."""
    batch = pa.RecordBatch.from_arrays([columns[n] for n in table.names], schema=table.schema)
    if sieve.stands.all():
        return batch, places
    return batch.filter(pa.array(sieve.stands)), places[sieve.stands]


def _safe(batch: pa.RecordBatch, told: Telling) -> pa.RecordBatch:
    """Text mended; counts below zero, which some gateways write for "unknown", made null."""
    columns = []
    for field, column in zip(batch.schema, batch.columns):
        if pa.types.is_string(field.type):
            column = _mended(field.name, column, told)
        elif pa.types.is_integer(field.type):
            column = _not_negative(field.name, column, told)
        elif pa.types.is_list(field.type):
            column = _whole_names(field.name, column, told)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _mended(name: str, column: pa.Array, told: Telling) -> pa.Array:
    longest = told.report.limits.text_bytes
    column, flags = mended(name, column, longest)
    if flags is not None:
        for flag, what in NOTES.items():
            told.note(f"{name}: {what.format(longest)}", flags & flag != 0)
    return column


def _whole_names(name: str, column: pa.Array, told: Telling) -> pa.Array:
    """Lists of names, those with broken UTF-8 read again with it spelt out."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        names = column.cast(pa.list_(pa.binary())).to_pylist()
        is_broken = [any(n is not None and not _decodes(n) for n in row or ()) for row in names]
        told.note(f"{name}: {NOTES[BROKEN]}", np.array(is_broken))
        whole = [row and [n and n.decode("utf-8", "replace") for n in row] for row in names]
        return pa.array(whole, column.type)
    return column


def _decodes(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _not_negative(name: str, column: pa.Array, told: Telling) -> pa.Array:
    if column.null_count == len(column) or pc.min(column).as_py() >= 0:
        return column
    negative = pc.less(column, pa.scalar(0, column.type)).fill_null(False)
    told.note(f"{name}: below zero, taken as unknown", negative.to_numpy(zero_copy_only=False))
    return pc.if_else(negative, pa.scalar(None, column.type), column)


def _first_seen(batch: pa.RecordBatch, told: Telling) -> pa.RecordBatch:
    """Rows whose exchange_id was not met before in this reading."""
    seen = told.report.seen
    marks = seen.mark(batch["exchange_id"], seen.content_hashes(batch))
    if not marks.any():
        return batch
    told.reject(DUPLICATE, marks == SAME)
    told.reject(DIFFERENT_DUPLICATE, marks == DIFFERENT)
    return batch.filter(pa.array(marks == 0))


def _pieces(batch: pa.RecordBatch, report: Report) -> Iterator[pa.RecordBatch]:
    limits = report.limits
    if len(batch) > 1 and (len(batch) > limits.batch_rows or batch.nbytes > limits.batch_bytes):
        half = len(batch) // 2
        yield from _pieces(batch.slice(0, half), report)
        yield from _pieces(batch.slice(half), report)
    elif len(batch):
        yield batch

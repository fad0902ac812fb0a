"""Rows as read to rows as the contract has them: the one gate every adapter's rows pass, in this order.

types, required values, times in range, text made safe, ids seen before. A row that fails is counted under the first reason
that applies, with the place of the first such row; all that is left has exactly the schema of ``EXCHANGES``.
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
from stillwatch.adapters.intake.texts import NOTES, mended
from stillwatch.tables import EXCHANGES, Table

Rows = npt.NDArray[np.int64]

DUPLICATE = "duplicate"
DIFFERENT_DUPLICATE = "duplicate exchange_id with different content"
TIME_HINT = "times are ISO 8601, or seconds, ms, us or ns since 1970; no zone means UTC"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Columns as read, of whatever types, under canonical names; ``places`` holds each row's line or row in the file."""

    path: Path
    columns: Mapping[str, pa.Array]
    places: Rows
    hints: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.places)


class Sieve:
    """Which rows of a chunk still stand; a row falls once, for the first reason that applies."""

    def __init__(self, chunk: Chunk, report: Report) -> None:
        self._chunk, self._report = chunk, report
        self.stands = np.ones(len(chunk), bool)

    def drop(self, mask: npt.NDArray[np.bool_], reason: str, hint: str = "") -> None:
        fallen = np.flatnonzero(mask & self.stands)
        if len(fallen):
            self.stands[fallen] = False
            self.count(fallen, reason, hint)

    def count(self, rows: Rows, reason: str, hint: str) -> None:
        self._report.reject(reason, len(rows), place(self._chunk.path, int(self._chunk.places[rows[0]])), hint)

    def misfit(self, mask: npt.NDArray[np.bool_], reason: str, hint: str) -> None:
        """Rows with a value that could not be read."""
        self.drop(mask, reason, hint)


def conform(chunk: Chunk, report: Report) -> Iterator[pa.RecordBatch]:
    """The chunk's good rows as record batches of ``EXCHANGES``, each within the limits of rows and bytes."""
    report.rows_read += len(chunk)
    sieve = Sieve(chunk, report)
    columns = shaped(chunk, EXCHANGES, sieve)
    _check_times(columns["time"], sieve, report)
    batch, places = standing(columns, EXCHANGES, sieve, chunk.places)
    batch = _safe(batch, chunk, places, report)
    batch = _first_seen(batch, chunk, places, report)
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


def _is_missing(column: pa.Array) -> npt.NDArray[np.bool_]:
    missing: npt.NDArray[np.bool_] = column.is_null().to_numpy(zero_copy_only=False)
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


def _safe(batch: pa.RecordBatch, chunk: Chunk, places: Rows, report: Report) -> pa.RecordBatch:
    """Text mended; counts below zero, which some gateways write for "unknown", made null."""
    columns = []
    for field, column in zip(batch.schema, batch.columns):
        if pa.types.is_string(field.type):
            column, flags = mended(field.name, column, report.limits.text_bytes)
            for flag, what in NOTES.items() if flags is not None else ():
                _note(what.format(report.limits.text_bytes), field.name, flags & flag != 0, chunk, places, report)
        elif pa.types.is_integer(field.type) and column.null_count < len(column) and pc.min(column).as_py() < 0:
            negative = pc.less(column, pa.scalar(0, field.type)).fill_null(False)
            _note(
                "below zero, taken as unknown",
                field.name,
                negative.to_numpy(zero_copy_only=False),
                chunk,
                places,
                report,
            )
            column = pc.if_else(negative, pa.scalar(None, field.type), column)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _note(
    what: str, name: str, mask: npt.NDArray[np.bool_], chunk: Chunk, places: Rows, report: Report
) -> None:  # fmt: skip
    rows = np.flatnonzero(mask)
    if len(rows):
        report.note(f"{name}: {what}", len(rows), place(chunk.path, int(places[rows[0]])))


def _first_seen(batch: pa.RecordBatch, chunk: Chunk, places: Rows, report: Report) -> pa.RecordBatch:
    """Rows whose exchange_id was not met before in this reading."""
    marks = report.seen.mark(batch["exchange_id"], report.seen.content_hashes(batch))
    for mark, reason in ((SAME, DUPLICATE), (DIFFERENT, DIFFERENT_DUPLICATE)):
        rows = np.flatnonzero(marks == mark)
        if len(rows):
            report.reject(reason, len(rows), place(chunk.path, int(places[rows[0]])))
    return batch if not marks.any() else batch.filter(pa.array(marks == 0))


def _pieces(batch: pa.RecordBatch, report: Report) -> Iterator[pa.RecordBatch]:
    limits = report.limits
    if len(batch) > 1 and (len(batch) > limits.batch_rows or batch.nbytes > limits.batch_bytes):
        half = len(batch) // 2
        yield from _pieces(batch.slice(0, half), report)
        yield from _pieces(batch.slice(half), report)
    elif len(batch):
        yield batch

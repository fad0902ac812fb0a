"""The two small tables beside a log: accounts, and when models were released. Parquet, NDJSON or CSV; a file or a
folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.adapters.intake.conform import Chunk, Mask, Sieve, shaped, standing
from stillwatch.adapters.intake.csvs import csv_chunks
from stillwatch.adapters.intake.files import PARQUET, fault, head_of, listed
from stillwatch.adapters.intake.ndjson import ndjson_chunks
from stillwatch.adapters.intake.parquet import parquet_chunks
from stillwatch.adapters.intake.report import Report, label
from stillwatch.adapters.intake.texts import mended
from stillwatch.errors import InputRejected, Reject
from stillwatch.tables import ACCOUNTS, MODELS, Table


def read_accounts(path: Path) -> tuple[pa.Table, list[Reject]]:
    """Accounts in the schema of ``ACCOUNTS``, one row each, and what was left out.

    Equal rows are one; of rows that differ the one created last stays, or the last in the file, and the others are
    counted. InputRejected where no row can be read.
    """
    return _read(Path(path), ACCOUNTS, "created_at")


def read_models(path: Path) -> tuple[pa.Table, list[Reject]]:
    """Models in the schema of ``MODELS``, one row each, the last one of those that differ; and what was left out."""
    return _read(Path(path), MODELS, None)


def _read(path: Path, table: Table, latest_by: str | None) -> tuple[pa.Table, list[Reject]]:
    report = Report()
    batches: list[pa.RecordBatch] = []
    for file in listed(path):
        try:
            batches += [_shaped(chunk, table, report) for chunk in _chunks(file, table, report)]
        except InputRejected as e:
            report.reject(e.message.removeprefix(f"{label(file)}: "), 0, label(file), e.hint)
    rows = pa.Table.from_batches(batches, table.schema)
    if not len(rows):
        faults = "\n".join(f"  {r}".replace("\n", "\n  ") for r in report.rejected.rejects)
        raise InputRejected(f"{path}: no {table.name} can be read from it\n{faults}".rstrip())
    return _one_each(rows, path, latest_by, report), report.rejected.rejects


def _chunks(path: Path, table: Table, report: Report) -> Iterator[Chunk]:
    head = head_of(path, report)
    if not head.strip():
        raise fault(path, "the file is empty", "was it written to the end?")
    if head.startswith(PARQUET) or path.suffix in (".parquet", ".pq"):
        return parquet_chunks(path, table, report)
    is_json = head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    return ndjson_chunks(path, table, report) if is_json else csv_chunks(path, table, report)


class Lenient(Sieve):
    """A value that cannot be read costs itself: losing the row would lose the organisation an account declares."""

    def misfit(self, mask: Mask, reason: str, hint: str) -> None:
        self.count(mask, f"{reason}; the value is left out", hint)


def _shaped(chunk: Chunk, table: Table, report: Report) -> pa.RecordBatch:
    sieve = Lenient(chunk, report)
    batch, _ = standing(shaped(chunk, table, sieve), table, sieve, chunk.places)
    safe = [
        mended(f.name, c, report.limits.text_bytes)[0] if pa.types.is_string(f.type) else c
        for f, c in zip(batch.schema, batch.columns)
    ]
    return pa.RecordBatch.from_arrays(safe, schema=batch.schema)


def _one_each(rows: pa.Table, path: Path, latest_by: str | None, report: Report) -> pa.Table:
    """One row for each value of the first column, in the order of first appearance."""
    key = rows.schema.names[0]
    distinct = rows.append_column("_at", pa.array(np.arange(len(rows))))
    distinct = distinct.group_by(rows.schema.names, use_threads=False).aggregate([("_at", "max"), ("_at", "min")])
    repeated = len(distinct) - pc.count_distinct(rows[key]).as_py()
    if repeated:
        what = f"{key} listed more than once with different values; the latest row stands"
        report.reject(what, repeated, label(path))
    # A row without a time must not outrank one that has it.
    when = pa.nulls(len(distinct), pa.int64()) if latest_by is None else distinct[latest_by].cast(pa.int64())
    ranked = distinct.append_column("_when", pc.fill_null(when, np.iinfo(np.int64).min))
    ranked = ranked.sort_by([(key, "ascending"), ("_when", "ascending"), ("_at_max", "ascending")])
    names = ranked[key].combine_chunks()
    is_last = np.append(pc.not_equal(names[1:], names[:-1]).to_numpy(zero_copy_only=False), True)
    first = ranked.group_by(key, use_threads=False).aggregate([("_at_min", "min")])
    last = ranked.filter(pa.array(is_last)).join(first, key)
    return last.sort_by("_at_min_min").select(rows.schema.names).cast(rows.schema).combine_chunks()

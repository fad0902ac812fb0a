"""Rows out of Parquet: the wanted columns alone, in batches of bounded bytes, one row group after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.adapters.intake.conform import Chunk
from stillwatch.adapters.intake.files import PARQUET, fault, faults_of
from stillwatch.adapters.intake.report import Limits, Report, place
from stillwatch.adapters.intake.required import require
from stillwatch.tables import Table

MIN_ROWS = 64


def parquet_chunks(path: Path, table: Table, report: Report) -> Iterator[Chunk]:
    """The table's columns that the file has; other columns are counted as unknown, not read."""
    with faults_of(path):
        file = parquet_file(path)
        names = file.schema_arrow.names
        require(names, table, path)
        for name in names:
            if name not in table.names:
                report.see_unknown(name, file.metadata.num_rows)
        yield from _groups(file, [n for n in table.names if n in names], path, report)


def parquet_tables(path: Path, report: Report) -> Iterator[Chunk]:
    """As ``parquet_chunks``, for a file whose columns are another format's: all of them."""
    with faults_of(path):
        file = parquet_file(path)
        yield from _groups(file, file.schema_arrow.names, path, report)


def parquet_file(path: Path) -> pq.ParquetFile:
    """The file, its footer read; InputRejected where it has none."""
    try:
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    except pa.ArrowInvalid as e:
        with path.open("rb") as raw:
            begins = raw.read(4) == PARQUET
        if begins:
            raise fault(path, "a Parquet file that was cut off or damaged", "write or copy it again") from e
        hint = "text must be NDJSON or CSV under another name than .parquet"
        raise fault(path, "not a Parquet file, in spite of its name", hint) from e


def _groups(file: pq.ParquetFile, names: list[str], path: Path, report: Report) -> Iterator[Chunk]:
    size, before, total = path.stat().st_size, 0, max(1, file.metadata.num_rows)
    for group in range(file.num_row_groups):
        rows, at = file.metadata.row_group(group).num_rows, before
        try:
            for batch in file.iter_batches(_batch_rows(file, group, report.limits), [group], names):
                places = np.arange(at + 1, at + 1 + len(batch))
                at += len(batch)
                report.bytes_in_file = lambda done=at: size * done // total  # type: ignore[misc]
                yield Chunk(path, dict(zip(batch.schema.names, batch.columns)), places, {})
        except (OSError, pa.ArrowException) as e:
            lost = before + rows - at
            report.rows_read += lost
            what = str(e).strip().splitlines()[0]
            report.reject(f"a damaged row group: {what}", lost, place(path, at + 1), "write or copy the file again")
        before += rows


def _batch_rows(file: pq.ParquetFile, group: int, limits: Limits) -> int:
    meta = file.metadata.row_group(group)
    mean_bytes = meta.total_byte_size / max(1, meta.num_rows)
    return int(min(limits.batch_rows, max(MIN_ROWS, limits.batch_bytes / 2 / max(1.0, mean_bytes))))

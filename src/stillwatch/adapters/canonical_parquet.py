"""The canonical log as Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from stillwatch.adapters.intake.adapter import Adapter
from stillwatch.adapters.intake.conform import conform
from stillwatch.adapters.intake.files import PARQUET
from stillwatch.adapters.intake.parquet import parquet_chunks
from stillwatch.adapters.intake.report import Report
from stillwatch.tables import EXCHANGES


def matches(path: Path, head: bytes) -> bool:
    return head.startswith(PARQUET) or path.suffix in (".parquet", ".pq")


def batches(path: Path, report: Report) -> Iterator[pa.RecordBatch]:
    for chunk in parquet_chunks(path, EXCHANGES, report):
        yield from conform(chunk, report)


ADAPTER = Adapter("parquet", "canonical columns, Parquet", matches, batches, general=True)

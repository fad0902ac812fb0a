"""The canonical log as CSV, columns named in the first line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from stillwatch.adapters.intake.adapter import Adapter
from stillwatch.adapters.intake.conform import conform
from stillwatch.adapters.intake.csvs import csv_chunks, header_of
from stillwatch.adapters.intake.report import Report
from stillwatch.tables import EXCHANGES


def matches(path: Path, head: bytes) -> bool:
    if ".csv" in path.suffixes or ".tsv" in path.suffixes:
        return True
    return len(set(header_of(head)[0]) & set(EXCHANGES.names)) >= 3


def batches(path: Path, report: Report) -> Iterator[pa.RecordBatch]:
    for chunk in csv_chunks(path, EXCHANGES, report):
        yield from conform(chunk, report)


ADAPTER = Adapter("csv", "canonical columns, CSV", matches, batches, general=True)

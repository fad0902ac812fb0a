"""The canonical log as NDJSON, one object a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from stillwatch.adapters.intake.adapter import Adapter
from stillwatch.adapters.intake.conform import conform
from stillwatch.adapters.intake.ndjson import ndjson_chunks
from stillwatch.adapters.intake.report import Report
from stillwatch.tables import EXCHANGES


def matches(path: Path, head: bytes) -> bool:
    is_named = ".ndjson" in path.suffixes or ".jsonl" in path.suffixes
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") or is_named


def batches(path: Path, report: Report) -> Iterator[pa.RecordBatch]:
    for chunk in ndjson_chunks(path, EXCHANGES, report):
        yield from conform(chunk, report)


ADAPTER = Adapter("ndjson", "canonical columns, NDJSON", matches, batches, general=True)

"""How many rows a log has, guessed before it is read: footers of Parquet files, lengths of first lines of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.adapters.intake.files import PARQUET, head_of, size_of
from stillwatch.adapters.intake.report import Report
from stillwatch.errors import InputRejected

LOOKED_AT = 16
USUAL_RATIO = 5


def estimated_rows(files: Sequence[Path]) -> int | None:
    """A guess from a few files spread over all; None where nothing can be said, as of standard input."""
    sizes = [size_of(f) for f in files]
    step = max(1, len(files) // LOOKED_AT)
    looked = [(size, rows) for f, size in zip(files[::step], sizes[::step]) if size and (rows := _rows(f, size))]
    if not looked:
        return None
    return sum(rows for _, rows in looked) * sum(sizes) // sum(size for size, _ in looked)


def _rows(path: Path, size: int) -> int:
    try:
        with path.open("rb") as raw:
            magic = raw.read(4)
        if magic == PARQUET:
            return int(pq.read_metadata(path).num_rows)
        head = head_of(path, Report())
    except (OSError, pa.ArrowException, InputRejected):
        return 0
    is_packed = not head.startswith(magic)
    whole = size * USUAL_RATIO if is_packed else size
    return whole * max(1, head.count(b"\n")) // max(1, len(head))

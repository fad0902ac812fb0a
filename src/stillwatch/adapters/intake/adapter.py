"""What a log format is to the rest: a name, a look at a file's first bytes, and batches of canonical rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from stillwatch.adapters.intake.report import Report


@dataclass(frozen=True)
class Adapter:
    """One log format.

    ``matches(path, head)`` says whether a file is in this format, from its first decompressed bytes (64 KB, or more up
    to the end of a first line). ``batches(path, report)`` yields record batches of exactly the schema of ``EXCHANGES``
    (what the format lacks is null), and writes what it left out, cleaned or did not know to the report. A fault of the
    whole file is an InputRejected. A ``general`` adapter takes whatever has its container's shape and is asked last.
    """

    name: str
    meaning: str
    matches: Callable[[Path, bytes], bool]
    batches: Callable[[Path, Report], Iterator[pa.RecordBatch]]
    general: bool = False

"""A log as one stream of canonical record batches, and the account of its reading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from stillwatch.adapters.intake.adapter import Adapter
from stillwatch.adapters.intake.estimate import estimated_rows
from stillwatch.adapters.intake.files import fault, head_of, size_of
from stillwatch.adapters.intake.report import Limits, Report, label
from stillwatch.errors import InputRejected, Reject

SHOWN_FAULTS = 20


@dataclass
class Source:
    """A log. Iterating yields batches of ``EXCHANGES`` in the order of files and rows, each exchange_id once.

    While and after that, the counts say what became of every row. Iterating anew starts them anew. InputRejected at the
    end where not one row could be judged; a bad file or row among good ones is a Reject.
    """

    path: Path
    files: Sequence[Path]
    adapters: Sequence[Adapter]
    limits: Limits = field(default_factory=Limits)
    now: datetime | None = None
    progress: Callable[[Source], None] | None = None
    formats: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.bytes_total = sum(map(size_of, self.files))
        self._report = self._fresh()

    def _fresh(self) -> Report:
        return Report(limits=self.limits, now=self.now or datetime.now(UTC))

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        self._report = report = self._fresh()
        self.formats.clear()
        for path in self.files:
            try:
                for batch in self._batches(path, report):
                    yield batch
                    if self.progress is not None:
                        self.progress(self)
            except InputRejected as e:
                report.reject(e.message.removeprefix(f"{label(path)}: "), 0, label(path), e.hint)
            report.bytes_before += size_of(path)
            report.bytes_in_file = lambda: 0
        if not report.rows_kept:
            raise self._nothing_left()

    def _batches(self, path: Path, report: Report) -> Iterator[pa.RecordBatch]:
        head = head_of(path, report)
        report.bytes_in_file = lambda: 0
        if not head.strip():
            raise fault(path, "the file is empty", "was it written to the end?")
        adapter = self._adapter_of(path, head)
        self.formats[adapter.name] += 1
        before = report.rows_read
        yield from adapter.batches(path, report)
        if report.rows_read == before:
            raise fault(
                path, "the file holds no exchanges", f"it was read as {adapter.name}; --adapter reads it otherwise"
            )

    def _adapter_of(self, path: Path, head: bytes) -> Adapter:
        if len(self.adapters) == 1:
            return self.adapters[0]
        for adapter in self.adapters:
            if adapter.matches(path, head):
                return adapter
        names = ", ".join(a.name for a in self.adapters)
        raise fault(path, "no adapter knows this format", f"adapters are {names}; --map FILE describes another format")

    def _nothing_left(self) -> InputRejected:
        faults = [f"  {r}".replace("\n", "\n  ") for r in self.rejects[:SHOWN_FAULTS]]
        more = len(self.rejects) - len(faults)
        lines = [*faults, *([f"  and {more} more"] if more > 0 else [])]
        counted = f"{self.rows_read:,} row{'s' if self.rows_read != 1 else ''} read"
        return InputRejected("\n".join([f"{label(self.path)}: nothing in it can be judged, {counted}", *lines]))

    @property
    def rejects(self) -> list[Reject]:
        """Rows and files left out, by reason, most rows first."""
        return self._report.rejected.rejects

    @property
    def notes(self) -> list[Reject]:
        """Rows kept but changed, and records that are no exchanges, in the shape of rejects."""
        return self._report.noted.rejects

    @property
    def rows_read(self) -> int:
        return self._report.rows_read

    @property
    def rows_kept(self) -> int:
        return self._report.rows_kept

    @property
    def unknown(self) -> dict[str, int]:
        """Columns or fields that no canonical column takes, with the rows that had them."""
        return self._report.unknown

    @property
    def coverage(self) -> dict[str, int]:
        """Rows kept in which each canonical column has a value."""
        return self._report.coverage

    @property
    def bytes_done(self) -> int:
        """Bytes read from the disk, of ``bytes_total`` (0 for standard input)."""
        return self._report.bytes_before + self._report.bytes_in_file()

    @property
    def estimated_rows(self) -> int | None:
        """Rows the log will turn out to have: from its footers and first lines before, from the pace while reading."""
        if self.rows_read and self.bytes_done:
            return max(self.rows_read, self.rows_read * self.bytes_total // max(1, self.bytes_done))
        return estimated_rows(self.files)

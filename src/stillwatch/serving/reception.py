"""What comes in at a route, of any kind it is accepted in, to canonical batches, words on accounts, and refused records.

    litellm                   pushes of LiteLLM's generic_api callback: a JSON array, an object, or an object a line
    otlp/traces, otlp/logs    OTLP/HTTP export requests, protobuf or JSON
    exchanges                 the canonical columns as JSON lines, an array or an object
    accounts                  OCSF account_change and authentication events, or the canonical columns of accounts

Knows nothing of HTTP but the words for what a body is, and nothing of the disk. A number in a place (``litellm:3``) is that
of the record in the body: the line, the item of the array, the span.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json

from stillwatch.adapters.fieldmap import Mapped
from stillwatch.adapters.intake.conform import DIFFERENT_DUPLICATE, DUPLICATE, Chunk, conform
from stillwatch.adapters.intake.converters import as_text
from stillwatch.adapters.intake.depth import deep_lines
from stillwatch.adapters.intake.mapfile import FieldMap, Match, Rule, load
from stillwatch.adapters.intake.report import Report
from stillwatch.adapters.intake.seen import Seen
from stillwatch.adapters.intake.unfold import NO_INFERENCE
from stillwatch.errors import Reject
from stillwatch.privacy import Privacy
from stillwatch.serving import otlp_wire
from stillwatch.serving.account_events import account_events, keys_of
from stillwatch.serving.bodies import (
    JSON,
    LINES,
    PROTOBUF,
    BodyRefused,
    Limits,
    Parts,
    document,
    inflated,
    kind_of,
    objects,
    parts_of,
    too_large,
)
from stillwatch.serving.otlp_wire import LOGS, TRACES, Signal
from stillwatch.spool import ACCOUNT_EVENTS, Dead
from stillwatch.tables import EXCHANGES

__all__ = ["ROUTES", "BodyRefused", "Formats", "Limits", "Received", "answer", "formats", "receive"]

PASSING = Privacy.random()
"""What hashes refused records where no secret is given: equal ones are known as such until the process ends."""
FEW = 1 << 12
"""Room for ids that a body's reading begins with."""


@dataclass(frozen=True, slots=True)
class Received:
    """What a body came to.

    ``batches`` have the schema of ``EXCHANGES``, ``accounts`` that of ``ACCOUNT_EVENTS``, ``keys`` are accounts and the SHA-256
    of a key of each, in hex. ``records`` is how many the body
    held; each is in a batch or a word on an account, or in ``refused``, ``duplicates`` (of another in the same body) or
    ``passed_over`` (spans and log records that are no inference). ``notes`` are rows kept but changed, ``unknown`` fields no
    column takes, ``coverage`` rows kept that have a value, by column.
    """

    batches: tuple[pa.RecordBatch, ...] = ()
    accounts: pa.Table = field(default_factory=ACCOUNT_EVENTS.schema.empty_table)
    keys: tuple[tuple[str, str], ...] = ()
    refused: tuple[Dead, ...] = ()
    records: int = 0
    duplicates: int = 0
    passed_over: int = 0
    notes: tuple[Reject, ...] = ()
    unknown: Mapping[str, int] = field(default_factory=dict)
    coverage: Mapping[str, int] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        """Exchanges and words on accounts that were read."""
        return sum(b.num_rows for b in self.batches) + self.accounts.num_rows

    @property
    def rejected(self) -> int:
        """Records refused."""
        return sum(d.count for d in self.refused)

    @property
    def message(self) -> str:
        """Why records were refused, in a line for their sender; empty where none was."""
        return "; ".join(f"{d.reason} ({d.count}, first at {d.place})" for d in self.refused[:5])


@dataclass(frozen=True, slots=True)
class Formats:
    """The field maps that read each route's records."""

    litellm: Mapped
    otlp: Mapped
    exchanges: Mapped


@cache
def formats(maps: tuple[Path, ...] = ()) -> Formats:
    """The built-in field maps, and before them a provider's own; UsageError where one of those is wrong."""
    own = [load(path) for path in maps]
    spans = [m for m in own if m.unfold == "otlp"]
    plain = [m for m in own if m.unfold != "otlp"]
    return Formats(
        Mapped("litellm", (*plain, load("litellm"), load("litellm_spendlogs"))),
        Mapped("otlp", (*spans, load("otlp"))),
        Mapped("the contract", (_canonical(),)),
    )


def _canonical() -> FieldMap:
    rules = {
        c.name: Rule((c.name,), (_text if pa.types.is_string(c.type) else lambda value: value,))
        for c in EXCHANGES.columns
    }
    return FieldMap("the contract", "the canonical columns", Match(), rules)


def _text(value: Any) -> str | None:
    if isinstance(value, dict | list):
        raise ValueError("no text")
    return as_text(value)


@dataclass(frozen=True, slots=True)
class _Task:
    """A body being read: inflated, of which kind, and where its reading is accounted for."""

    text: bytes
    kind: str
    path: Path
    report: Report
    limits: Limits
    formats: Formats

    def parts(self) -> Parts:
        return parts_of(self.text, self.kind, self.path, self.report, self.limits)


@dataclass(frozen=True, slots=True)
class _Read:
    """What reading gave, and the parts to hash what was refused from."""

    parts: Parts
    batches: Sequence[pa.RecordBatch] = ()
    accounts: pa.Table = field(default_factory=ACCOUNT_EVENTS.schema.empty_table)
    keys: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """A way in: kinds of body it takes, how one is read, and for OTLP which signal it is of."""

    kinds: tuple[str, ...]
    read: Callable[[_Task], _Read]
    signal: Signal | None = None


def receive(
    body: bytes,
    content_type: str,
    encoding: str,
    route: str,
    limits: Limits | None = None,
    *,
    formats: Formats | None = None,
    privacy: Privacy | None = None,
    now: datetime | None = None,
) -> Received:
    """Reads a body that came in at a route (one of ``ROUTES``), sent with this Content-Type and Content-Encoding.

    Single bad records are among ``refused`` and the rest goes on; BodyRefused, with an HTTP status, where the body as a whole
    cannot be read or is too large. ``privacy`` keys the hashes of refused records, so that a record is known again after a
    restart. ``now`` is what "in the future" is measured by.
    """
    limits, way = limits or Limits(), ROUTES[route]
    kind = kind_of(content_type, way.kinds)
    report = Report(now=now or datetime.now(UTC), seen=Seen(FEW))
    task = _Task(inflated(body, encoding, limits), kind, Path(route), report, limits, formats or _built_in())
    return _told(way.read(task), task, privacy or PASSING)


def _built_in() -> Formats:
    return formats()


def _told(read: _Read, task: _Task, privacy: Privacy) -> Received:
    report = task.report
    again = {DUPLICATE, DIFFERENT_DUPLICATE}
    refused = [r for r in report.rejected.rejects if r.reason not in again]
    passed = sum(n.rows for n in report.noted.rejects if n.reason == NO_INFERENCE)
    return Received(
        batches=tuple(read.batches),
        accounts=read.accounts,
        keys=read.keys,
        refused=tuple(_dead(r, read.parts, privacy) for r in refused),
        records=report.rows_read + passed,
        duplicates=sum(r.rows for r in report.rejected.rejects if r.reason in again),
        passed_over=passed,
        notes=tuple(n for n in report.noted.rejects if n.reason != NO_INFERENCE),
        unknown=report.unknown,
        coverage=report.coverage,
    )


def _dead(reject: Reject, parts: Parts, privacy: Privacy) -> Dead:
    number = reject.place.rpartition(":")[2]
    raw = pa.array([parts.raw(int(number))], pa.binary()).view(pa.string())
    return Dead(reject.reason, reject.place, int(privacy.hash_strings(raw, "record")[0]), reject.rows, reject.hint)


def _litellm(task: _Task) -> _Read:
    parts = task.parts()
    return _Read(parts, list(task.formats.litellm.conformed(parts.records, task.path, task.report)))


def _accounts(task: _Task) -> _Read:
    parts = task.parts()
    return _Read(parts, accounts=account_events(parts.records, task.path, task.report), keys=keys_of(parts.records))


def _traces(task: _Task) -> _Read:
    return _otlp(task, TRACES)


def _logs(task: _Task) -> _Read:
    return _otlp(task, LOGS)


def _otlp(task: _Task, signal: Signal) -> _Read:
    whole = document(task.text) if task.kind == JSON else None
    if task.kind == JSON:
        leaves = otlp_wire.leaves_of_json(whole and whole.value, signal, task.limits)
    else:
        leaves = otlp_wire.leaves_of_wire(task.text, signal, task.limits)
    parts = objects(leaves, whole, task.path, task.report)
    return _Read(parts, list(task.formats.otlp.conformed(parts.records, task.path, task.report)))


WRITTEN = pa.schema([(c.name, pa.string() if pa.types.is_timestamp(c.type) else c.type) for c in EXCHANGES.columns])
"""How the canonical columns are written in JSON by those who keep to the letter."""


def _exchanges(task: _Task) -> _Read:
    read = _by_arrow(task)
    if read is not None:
        return read
    parts = task.parts()
    return _Read(parts, list(task.formats.exchanges.conformed(parts.records, task.path, task.report)))


def _by_arrow(task: _Task) -> _Read | None:
    """The fast way: Arrow reads lines in which each value is as the contract has it. None where one is not."""
    text = task.text if task.text.endswith(b"\n") else task.text + b"\n"
    lines = text.count(b"\n")
    # Where each line begins an object, none is blank, and one of two objects cannot go unnoticed.
    begun = text.startswith(b"{") + text.count(b"\n{")
    if begun != lines or b"\0" in text or len(deep_lines(text)):
        return None
    if lines > task.limits.records:
        raise too_large(f"the body holds over {task.limits.records:,} lines")
    whole = pyarrow.json.ReadOptions(use_threads=False, block_size=len(text) + 64)
    # Columns that are not ours would be made as many as a sender likes.
    parse = pyarrow.json.ParseOptions(explicit_schema=WRITTEN, unexpected_field_behavior="error")
    try:
        rows = pyarrow.json.read_json(pa.BufferReader(text), read_options=whole, parse_options=parse)
    except pa.ArrowInvalid:
        return None
    if rows.num_rows != lines:
        return None
    filled = {n: c for n, c in zip(rows.schema.names, rows.columns) if c.null_count < lines}
    chunk = Chunk(task.path, filled, np.arange(1, lines + 1), {})
    batches = list(conform(chunk, task.report))
    return _Read(Parts([], text.split(b"\n") if task.report.rejected.rejects else []), batches)


ROUTES: Mapping[str, Route] = {
    "litellm": Route((JSON, LINES), _litellm),
    "otlp/traces": Route((JSON, PROTOBUF), _traces, TRACES),
    "otlp/logs": Route((JSON, PROTOBUF), _logs, LOGS),
    "exchanges": Route((JSON, LINES), _exchanges),
    "accounts": Route((JSON, LINES), _accounts),
}


def answer(route: str, content_type: str, received: Received) -> tuple[bytes, str]:
    """What an OTLP sender is told with a 200, in the kind it sent: a body and its media type. ValueError at other routes."""
    signal = ROUTES[route].signal
    if signal is None:
        raise ValueError(f"{route} is no route of OTLP")
    kind = kind_of(content_type, ROUTES[route].kinds)
    return otlp_wire.answer(signal, kind, received.rejected, received.message)

"""An entry of the audit: what may stand in one, and how it is written as a line, byte for byte.

A line is canonical JSON (sorted keys, no spaces, UTF-8). Its hash is that of the line as it would be without the hash; it names
the hash of the line before it. Facts are ids, names, numbers and short reasons: no content of an exchange, no personal value.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from stillwatch.errors import Terminal

LOG, CHECKPOINT, PUBLIC, TORN, VOUCHED = "log.jsonl", "checkpoint", "key.pub", "torn-", "vouched-"
"""Names in an audit's folder: the lines, the signed promise, the public key, what crashes left unfinished, and old keys' last
checkpoints, each of which vouches for the next key."""
KEY_CHANGED = "audit.key"
"""The event of an entry that names a new key; the last one that the old key's last checkpoint covers."""
BEFORE_ALL = "0" * 64
"""What the first entry names as the hash of the one before it."""
LINE_BYTES, TEXT, DEPTH, NAME = 16_384, 1000, 4, 256
"""Most bytes of a line, characters of a text in the facts, nesting of the facts, characters of any other field."""
WHOLE = 2**53
"""Whole numbers from here on are not the same in every reader of JSON; they are to be written as text."""
FIELDS = {"at", "event", "facts", "hash", "number", "previous", "role", "subject", "who"}


@dataclass(frozen=True, slots=True)
class Deed:
    """What is to be written: ``who``, acting as ``role``, does ``event`` to ``subject``; Terminal where that may not be."""

    event: str
    who: str
    role: str
    subject: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("event", "who", "role", "subject"):
            object.__setattr__(self, name, _text(getattr(self, name), name, NAME))
        if not self.event or not self.who:
            raise Terminal("an entry of the audit names its event and who did it")
        object.__setattr__(self, "facts", guarded(self.facts))


@dataclass(frozen=True, slots=True)
class Entry:
    """A deed as it stands in the log. Numbers count from 0, ``at`` is UTC, hashes are hex."""

    number: int
    at: datetime
    deed: Deed
    previous: str
    hash: str

    def plain(self) -> dict[str, Any]:
        """Its fields as they stand in the line."""
        d = self.deed
        return {
            "at": moment_text(self.at), "event": d.event, "facts": d.facts, "hash": self.hash, "number": self.number,
            "previous": self.previous, "role": d.role, "subject": d.subject, "who": d.who,
        }  # fmt: skip


def moment_text(moment: datetime) -> str:
    """ISO 8601 with microseconds, in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


# What may stand in an entry


def guarded(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts as plain JSON values; Terminal, naming the place, where they are of another kind, too long or too deep."""
    return _mapping(facts, "facts", DEPTH)


def _plain(value: Any, place: str, depth: int) -> Any:
    match value:
        case None | bool():
            return value
        case int() if abs(value) < WHOLE:
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case str():
            return _text(value, place, TEXT)
        case Mapping() if depth:
            return _mapping(value, place, depth)
        case list() | tuple() if depth:
            return [_plain(v, f"{place}[{i}]", depth - 1) for i, v in enumerate(value)]
    _refuse(
        place, f"a {type(value).__name__} like this is not written", "texts, finite numbers, short lists and mappings"
    )


def _mapping(value: Mapping[str, Any], place: str, depth: int) -> dict[str, Any]:
    return {_text(k, f"{place}: a key", NAME): _plain(v, f"{place}.{k}", depth - 1) for k, v in value.items()}


def _text(value: object, place: str, most: int) -> str:
    if not isinstance(value, str):
        _refuse(place, f"a {type(value).__name__} is no text", "write it as text")
    if len(value) > most:
        _refuse(place, f"{len(value):,} characters, {most:,} at most", "an id or a digest of it will do")
    # Half a surrogate pair has no UTF-8.
    return str.__str__(value).encode("utf-8", "replace").decode()


def _refuse(place: str, what: str, hint: str) -> NoReturn:
    raise Terminal(f"the audit takes no such entry: {place}: {what}", hint=hint)


# Lines


_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _render(fields: Mapping[str, Any]) -> tuple[bytes, str]:
    """A line without its newline, and its hash: that of the line as it would be without the hash."""
    head = _json({k: v for k, v in fields.items() if k < "hash"})[:-1]
    tail = _json({k: v for k, v in fields.items() if k > "hash"})[1:]
    digest = hashlib.sha256(f"{head},{tail}".encode()).hexdigest()
    return f'{head},"hash":"{digest}",{tail}'.encode(), digest


def written(number: int, at: datetime, deed: Deed, previous: str) -> tuple[bytes, str]:
    line, digest = _render(Entry(number, at, deed, previous, "").plain())
    if len(line) >= LINE_BYTES:
        _refuse(
            "facts", f"{len(line):,} bytes in all, {LINE_BYTES:,} at most", "write down a digest, and keep the rest"
        )
    return line, digest


def parse(line: bytes) -> Entry:
    """The entry of a line without its newline; ValueError where it is not, byte for byte, one that was written here."""
    try:
        fields = json.loads(line)
        if not isinstance(fields, dict) or fields.keys() != FIELDS:
            raise ValueError("its fields are not those of an entry")
        as_written, digest = _render(fields)
        deed = Deed(*(fields[n] for n in ("event", "who", "role", "subject", "facts")))
        at = datetime.fromisoformat(fields["at"])
    except (TypeError, AttributeError, RecursionError, Terminal) as e:
        raise ValueError(f"no entry: {e}") from e
    if digest != fields["hash"]:
        raise ValueError("its hash does not fit what it says")
    if as_written != line or moment_text(at) != fields["at"] or type(fields["number"]) is not int:
        raise ValueError("it is not written as entries are")
    return Entry(fields["number"], at, deed, fields["previous"], digest)


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it lies in the file: where it begins, its bytes without the newline, whether that was there."""

    start: int
    text: bytes
    is_whole: bool


def lines(file: BinaryIO) -> Iterator[Line]:
    """Lines of the log; one longer than any entry comes in pieces, which are not whole."""
    start = 0
    while text := file.readline(LINE_BYTES):
        yield Line(start, text.removesuffix(b"\n"), text.endswith(b"\n"))
        start += len(text)


def entries(folder: Path) -> Iterator[Entry]:
    """Entries of a log, oldest first, as they stand there, unchecked but for their own hash; Terminal at the first bad one."""
    with opened(folder / LOG) as file:
        for index, line in enumerate(lines(file)):
            try:
                yield parse(line.text)
            except ValueError as e:
                place = f"{folder / LOG}:{index + 1}"
                raise Terminal(f"{place}: {e}", hint="stillwatch audit verify says what else is wrong") from e


def opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as e:
        raise Terminal(f"{path}: the log cannot be read: {e.strerror}", hint="give the home or its audit folder") from e


@dataclass(slots=True)
class Chain:
    """Where the next entry must go on: its number, the hash before it, and the time it may not lie before."""

    number: int = 0
    previous: str | None = BEFORE_ALL
    latest: datetime | None = None

    def faults(self, entry: Entry) -> Iterator[str]:
        """What keeps ``entry`` from being the next one."""
        if entry.number != self.number:
            yield f"entry {entry.number} stands where {self.number} belongs: lines were removed, added or moved"
        elif self.previous is not None and entry.previous != self.previous:
            yield "it does not follow on the entry before it: that one was changed or replaced"

    def turned_back_s(self, entry: Entry) -> float:
        """By how many seconds it seems to be older than the one before it; 0 where it is not."""
        return max(0.0, (self.latest - entry.at).total_seconds()) if self.latest else 0.0

    def follow(self, entry: Entry) -> None:
        self.number, self.previous, self.latest = entry.number + 1, entry.hash, entry.at

    def skip(self) -> None:
        """Go on behind a line that could not be read."""
        self.number, self.previous = self.number + 1, None


def torn(folder: Path) -> list[Path]:
    return _numbered(folder, TORN)


def vouched(folder: Path) -> list[Path]:
    """The last checkpoints of old keys, oldest first, each named by how many entries it covers."""
    return _numbered(folder, VOUCHED)


def _numbered(folder: Path, start: str) -> list[Path]:
    found = (p for p in folder.glob(f"{start}*") if p.name.removeprefix(start).isdecimal())
    return sorted(found, key=lambda p: int(p.name.removeprefix(start)))


def select(found: Iterable[Entry], event: str = "", subject: str = "", who: str = "") -> Iterator[Entry]:
    """Entries of an event (or of all that begin with it and a dot), on a subject, by a person; an empty one matches all."""
    for entry in found:
        deed = entry.deed
        is_event = not event or deed.event == event or deed.event.startswith(f"{event}.")
        if is_event and subject in ("", deed.subject) and who in ("", deed.who):
            yield entry

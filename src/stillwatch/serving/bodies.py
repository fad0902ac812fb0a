"""A request's body as bytes to records: inflated within bounds, parsed, and whatever cannot be read refused with a reason.

What a customer wrote stands in these bodies beside what other customers wrote, so one broken, deep or odd record costs
itself and nothing else; a body is refused as a whole only where no boundary between records can be found.
"""

from __future__ import annotations

import json
import secrets
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillwatch.adapters.intake.depth import MAX_DEPTH, cut_deep, deep_lines
from stillwatch.adapters.intake.records import Record, Records
from stillwatch.adapters.intake.report import Report, place
from stillwatch.errors import InputRejected

JSON, LINES, PROTOBUF = "json", "lines", "protobuf"
KINDS = {
    "": JSON, "application/json": JSON, "text/json": JSON,
    "application/x-ndjson": LINES, "application/ndjson": LINES, "application/jsonl": LINES, "application/jsonlines": LINES,
    "application/x-jsonlines": LINES, "application/x-protobuf": PROTOBUF, "application/protobuf": PROTOBUF,
}  # fmt: skip
"""Media types and the kind of body each is. JSON by that name may also be lines: gateways do not tell them apart."""
MEMBERS = 64
"""Parts a gzip body may have been written in."""
MANY_VALUES = 4_000_000
"""Commas and opening brackets in one body: each may become an object of some 60 bytes."""
INT_DIGITS = 4000
"""A whole number of more digits is not read as one."""

NO_OBJECT = "a record that is no JSON object"
BROKEN = "broken JSON"
DEEP = f"JSON nested deeper than {MAX_DEPTH} levels"
_MARK = secrets.token_hex(16)  # nobody outside can write it, so a value that is it was cut


class BodyRefused(InputRejected):
    """A body none of which was taken in; ``status`` is the HTTP status that says why: 400, 413 or 415."""

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one body: bytes as sent, bytes when inflated, and records."""

    body_bytes: int = 32 << 20
    inflated_bytes: int = 64 << 20
    records: int = 20_000


def malformed(what: str, hint: str = "") -> BodyRefused:
    return BodyRefused(what, status=400, hint=hint)


def too_large(what: str, hint: str = "send it in smaller parts") -> BodyRefused:
    return BodyRefused(what, status=413, hint=hint)


def unsupported(what: str, hint: str) -> BodyRefused:
    return BodyRefused(what, status=415, hint=hint)


def kind_of(content_type: str, allowed: Sequence[str]) -> str:
    """Which kind of body a media type names; 415 where that is none of those allowed, or not UTF-8."""
    media, *parameters = (part.strip() for part in content_type.lower().split(";"))
    kind = KINDS.get(media, "")
    names = ", ".join(name for name, k in KINDS.items() if name and k in allowed)
    if kind not in allowed or (not media and PROTOBUF in allowed):
        raise unsupported("the media type is missing or not one that is read here", hint=f"send {names}")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip(" \"'") not in ("utf-8", "utf8", "us-ascii"):
            raise unsupported("the charset is not UTF-8", hint="send UTF-8")
    return kind


def inflated(body: bytes, encoding: str, limits: Limits) -> bytes:
    """The body as it was before its Content-Encoding; 413 as soon as more than the bound has come out."""
    if len(body) > limits.body_bytes:
        raise too_large(f"the body has {len(body):,} bytes, over {limits.body_bytes:,}")
    name = encoding.strip().lower()
    if name in ("", "identity"):
        if len(body) > limits.inflated_bytes:
            raise too_large(f"the body has {len(body):,} bytes, over {limits.inflated_bytes:,}")
        return body
    if name in ("gzip", "x-gzip"):
        return _members(body, limits)
    if name == "deflate":
        # By the standard with zlib's header; some send it bare.
        bare = len(body) < 2 or (body[0] << 8 | body[1]) % 31 or body[0] & 15 != 8
        text, rest = _member(body, -zlib.MAX_WBITS if bare else zlib.MAX_WBITS, limits.inflated_bytes, limits)
        if rest:
            raise malformed("bytes follow the end of the compressed text")
        return text
    raise unsupported("the content encoding is not one that is read here", hint="send gzip, deflate or none")


def _members(body: bytes, limits: Limits) -> bytes:
    parts: list[bytes] = []
    left, rest = limits.inflated_bytes, body
    while rest:
        if len(parts) == MEMBERS:
            raise malformed(f"the body is gzip in over {MEMBERS} parts", hint="compress it as a whole")
        part, rest = _member(rest, zlib.MAX_WBITS | 16, left, limits)
        parts.append(part)
        left -= len(part)
    if not parts:
        raise malformed("the body is empty", hint="a compressed body has a header at least")
    return b"".join(parts)


def _member(body: bytes, bits: int, left: int, limits: Limits) -> tuple[bytes, bytes]:
    """One compressed stream, inflated to at most ``left`` bytes, and what follows it."""
    stream = zlib.decompressobj(bits)
    try:
        text = stream.decompress(body, left + 1)
    except zlib.error as e:
        raise malformed(
            "the body is not in the encoding it is said to be in", hint="was it cut off, or not packed?"
        ) from e
    if len(text) > left:
        raise too_large(f"the body inflates to over {limits.inflated_bytes:,} bytes")
    if not stream.eof:
        raise malformed(
            "the body ends in the midst of its compressed text", hint="it was cut off on its way; send it again"
        )
    return text, stream.unused_data


@dataclass(frozen=True, slots=True)
class Parts:
    """What a body holds: records by number, from 1, and ``whole``: every part by its number, be it a record or not."""

    records: Records
    whole: Sequence[Any]

    def raw(self, number: int) -> bytes:
        """A part as bytes, to be hashed; of a parsed one its JSON in one way of writing it."""
        part = self.whole[number - 1] if 0 < number <= len(self.whole) else b""
        return part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, default=str).encode()


def parts_of(text: bytes, kind: str, path: Path, report: Report, limits: Limits) -> Parts:
    """The records of a body of JSON: an array of objects, one object, or an object a line.

    Parts that are no object, broken or too deep are counted as rejects with their number in the body. 400 where nothing of
    it can be told apart, 413 where it is too many.
    """
    if kind == JSON:
        whole = document(text)
        if whole is not None:
            return _of_document(whole, path, report, limits)
    return _of_lines(text, path, report, limits)


def _check(text: bytes) -> None:
    if not text.strip():
        raise malformed("the body is empty")
    if len(text) > MANY_VALUES and sum(map(text.count, (b",", b"[", b"{"))) > MANY_VALUES:
        raise too_large(f"the body holds over {MANY_VALUES:,} values")


@dataclass(frozen=True, slots=True)
class Document:
    """The one JSON value a body is: a list or an object; ``is_cut`` where something in it lay too deep, and was marked."""

    value: Any
    is_cut: bool

    def lies_too_deep(self, part: Any) -> bool:
        """Whether a part of it was cut."""
        return self.is_cut and _MARK in json.dumps(part, default=str)


def document(text: bytes) -> Document | None:
    """The one JSON value a body is; None where it is lines.

    400 where it is neither, 413 where it holds too much.
    """
    _check(text)
    said = cut_deep(text, f'"{_MARK}"'.encode()).decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    start = len(said) - len(said.lstrip())
    try:
        value, end = _decoded(said, start)
    except (ValueError, RecursionError) as e:
        if said[start : start + 1] == "{" and "\n" in said.strip():
            return None
        where = f" at line {e.lineno}, column {e.colno}" if isinstance(e, json.JSONDecodeError) else ""
        raise malformed(f"the body is {DEEP if _MARK in said else f'{BROKEN}{where}'}", hint="was it cut off?") from e
    if said[end:].strip():
        return None
    if not isinstance(value, dict | list):
        raise malformed("the body is no JSON object or array")
    return Document(value, _MARK in said)


def _decoded(text: str, start: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError:
        raise
    except ValueError:
        # A number of thousands of digits, which Python refuses: read as a fraction, it costs itself only.
        return _BOUNDED.raw_decode(text, start)


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) < INT_DIGITS else float(digits)


_DECODER = json.JSONDecoder(strict=False)
_BOUNDED = json.JSONDecoder(strict=False, parse_int=_whole_number)


def _of_document(whole: Document, path: Path, report: Report, limits: Limits) -> Parts:
    values = whole.value if isinstance(whole.value, list) else [whole.value]
    if len(values) > limits.records:
        raise too_large(f"the body holds {len(values):,} records, over {limits.records:,}")
    return objects(values, whole, path, report)


def objects(values: Sequence[Any], whole: Document | None, path: Path, report: Report) -> Parts:
    """The records among parts of a document; others, and those that lie too deep, are counted as rejects."""
    found: Records = []
    for number, value in enumerate(values, 1):
        if not isinstance(value, dict):
            refuse(NO_OBJECT, number, path, report)
        elif whole is not None and whole.lies_too_deep(value):
            refuse(DEEP, number, path, report)
        else:
            found.append((number, value))
    return Parts(found, values)


def _of_lines(text: bytes, path: Path, report: Report, limits: Limits) -> Parts:
    _check(text)
    if text.rstrip().count(b"\n") >= limits.records:
        raise too_large(f"the body holds over {limits.records:,} lines")
    lines = text.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    deep = set(deep_lines(text + b"\n").tolist())
    found: Records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        reason, record = (DEEP, {}) if number - 1 in deep else _of_line(line)
        if reason:
            refuse(reason, number, path, report)
        else:
            found.append((number, record))
    if not found and {r.reason for r in report.rejected.rejects} <= {BROKEN, NO_OBJECT}:
        raise malformed("no line of the body is a JSON object", hint="send a JSON array, or an object a line")
    return Parts(found, lines)


def _of_line(line: bytes) -> tuple[str, Record]:
    said = line.decode("utf-8", "surrogateescape").strip()
    try:
        value, end = _decoded(said, 0)
    except (ValueError, RecursionError):
        return BROKEN, {}
    if end != len(said):
        return BROKEN, {}
    return ("", value) if isinstance(value, dict) else (NO_OBJECT, {})


def refuse(reason: str, number: int, path: Path, report: Report) -> None:
    """Counts a part of a body that is no record."""
    report.rows_read += 1
    report.reject(reason, 1, place(path, number))

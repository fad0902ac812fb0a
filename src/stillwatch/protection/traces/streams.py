"""An answer behind a curtain: a JSON body, lines of them, or server-sent events as they come, cut anywhere.

What has no reasoning in it goes on byte for byte. Of a stream one event is held at a time, and the reasoning that is not told
yet; an event over ``most`` bytes, or one that is no JSON, is not passed on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from stillwatch.protection.traces import Curtain, Step, Stream, chat, messages, responses
from stillwatch.protection.traces.splicing import Edit, Place, spliced

_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE = re.compile(rb"\r\n|\n|\r")
DONE = b"[DONE]"
BEATS = 64
"""After so many events that were held back a comment is sent, so that nobody takes the connection for dead."""
BEAT = b": reasoning\n\n"


class Unreadable(Exception):
    """An answer, or an event of one, that cannot be looked through."""


def body(raw: bytes, dialect: str, curtain: Curtain) -> bytes:
    """A whole answer in JSON; Unreadable where it is none."""
    place = _place(raw)
    edits = _answer(place, dialect, curtain)
    return spliced(place.text, edits).encode("utf-8") if edits else raw


def lines(raw: bytes, dialect: str, curtain: Curtain) -> bytes:
    """A body of JSON lines, such as the results of a batch."""
    return b"\n".join(body(line, dialect, curtain) if line.strip() else line for line in raw.split(b"\n"))


def _answer(place: Place, dialect: str, curtain: Curtain) -> list[Edit]:
    if dialect == "anthropic":
        return messages.answer(place, curtain)
    if dialect == "openai_responses":
        return responses.Responses(curtain).answer(place)
    return chat.answer(place, curtain)


def _place(raw: bytes) -> Place:
    try:
        text = raw.decode("utf-8")
        json.loads(text)
        return Place.of(text)
    except (ValueError, RecursionError) as e:
        raise Unreadable(type(e).__name__) from None


def _stream(dialect: str, curtain: Curtain) -> Stream:
    if dialect == "anthropic":
        return messages.Messages(curtain)
    return responses.Responses(curtain) if dialect == "openai_responses" else chat.Chat(curtain)


class Events:
    """Server-sent events of one answer, fed in pieces. After ``end``, or once something was too long, nothing more passes."""

    def __init__(self, dialect: str, curtain: Curtain, most: int = 64 << 20) -> None:
        self._curtain, self._most = curtain, most
        self._is_named = dialect in ("anthropic", "openai_responses")
        self._stream = _stream(dialect, curtain)
        self._buffer, self._looked = bytearray(), 0
        self._silent = 0
        self._is_over = False

    def feed(self, piece: bytes) -> bytes:
        """What goes on now that ``piece`` has come."""
        if self._is_over:
            return b""
        self._buffer += piece
        said = []
        while match := _END.search(self._buffer, self._looked):
            said.append(self._event(bytes(self._buffer[: match.end()])))
            del self._buffer[: match.end()]
            self._looked = 0
        # The end of an event may be cut in two.
        self._looked = max(0, len(self._buffer) - 3)
        if len(self._buffer) > self._most:
            said.append(self._broken_off())
        return b"".join(said)

    def end(self) -> bytes:
        """What is still to go when nothing more comes."""
        if self._is_over:
            return b""
        left = self._event(bytes(self._buffer)) if self._buffer.strip() else bytes(self._buffer)
        self._is_over = True
        self._buffer.clear()
        return left + b"".join(self._written(event) for event in self._stream.end())

    def _broken_off(self) -> bytes:
        self._is_over = True
        self._buffer.clear()
        self._curtain.counts.unreadable += 1
        error = {"type": "api_error", "message": "An event of this answer was too long to be passed on."}
        return self._written({"type": "error", "error": error} if self._is_named else {"error": error})

    def _event(self, raw: bytes) -> bytes:
        split = [_parted(line) for line in _LINE.split(raw)]
        parts = [value for name, value in split if name == b"data"]
        told = b"\n".join(parts).strip()
        if not told:
            return raw
        if told == DONE:
            return b"".join(self._written(event) for event in self._stream.end()) + raw
        try:
            place = _place(told)
            step = self._stream.event(place) if place.text[place.start] == "{" else Step()
        except Unreadable:
            self._curtain.counts.unreadable += 1
            return b""
        before = b"".join(self._written(event) for event in step.before)
        if not step.passes:
            return before or self._beaten()
        return before + (_with(raw, spliced(place.text, step.edits).encode()) if step.edits else raw)

    def _beaten(self) -> bytes:
        self._silent += 1
        return BEAT if self._silent % BEATS == 0 else b""

    def _written(self, event: Mapping[str, Any]) -> bytes:
        """An event of ours; those of a dialect that names its events have their name."""
        name = f"event: {event['type']}\n" if "type" in event else ""
        return f"{name}data: {json.dumps(event, separators=(',', ':'))}\n\n".encode()


def _parted(line: bytes) -> tuple[bytes, bytes]:
    """Name and value of a line of an event."""
    name, _, value = line.partition(b":")
    return name, value.removeprefix(b" ")


def _with(raw: bytes, told: bytes) -> bytes:
    """An event with other data; its other lines and its line ends stay."""
    parts = re.split(rb"(\r\n|\n|\r)", raw)
    found, said = False, []
    for line, end in zip(parts[::2], [*parts[1::2], b""], strict=True):
        if _parted(line)[0] != b"data":
            said.append(line + end)
        elif not found:
            found = True
            said += [b"data: " + part + (end or b"\n") for part in _LINE.split(told)]
    return b"".join(said)

"""Edits of JSON text that leave every other byte as it stood: spacing, order, escapes, how numbers are written, doubled names.

The text must have been read by ``json.loads`` before: nothing here looks for faults again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()

Edit = tuple[int, int, str]
"""What stands from one place up to another, and what is put there."""


@dataclass(frozen=True, slots=True)
class Place:
    """One value within a JSON text, from ``start`` up to ``end``."""

    text: str
    start: int
    end: int

    @classmethod
    def of(cls, text: str) -> Place:
        """The whole text's value."""
        start = _skip(text, 0)
        return cls(text, start, _DECODER.raw_decode(text, start)[1])

    @property
    def value(self) -> Any:
        """What it says."""
        return _DECODER.raw_decode(self.text, self.start)[0]

    def members(self) -> Iterator[tuple[str, Place]]:
        """Names and values of an object, in order, doubled ones too; of anything else none."""
        if self.text[self.start] != "{":
            return
        at = _skip(self.text, self.start + 1)
        while self.text[at] != "}":
            name, at = scanstring(self.text, at + 1)
            at = _skip(self.text, _skip(self.text, at) + 1)
            found = Place(self.text, at, _DECODER.raw_decode(self.text, at)[1])
            yield name, found
            at = _next(self.text, found.end)

    def items(self) -> Iterator[Place]:
        """The items of a list; of anything else none."""
        if self.text[self.start] != "[":
            return
        at = _skip(self.text, self.start + 1)
        while self.text[at] != "]":
            found = Place(self.text, at, _DECODER.raw_decode(self.text, at)[1])
            yield found
            at = _next(self.text, found.end)

    def at(self, *names: str) -> Iterator[Place]:
        """Every member of one of these names."""
        return (place for name, place in self.members() if name in names)

    def put(self, value: Any) -> Edit:
        """Another value in its place."""
        return self.start, self.end, json.dumps(value, separators=(",", ":"))

    def having(self, name: str, value: Any) -> list[Edit]:
        """The object with this member: put wherever it stands, else added in front."""
        if edits := [place.put(value) for place in self.at(name)]:
            return edits
        comma = "" if self.text[_skip(self.text, self.start + 1)] == "}" else ","
        return [
            (self.start + 1, self.start + 1, f"{json.dumps(name)}:{json.dumps(value, separators=(',', ':'))}{comma}")
        ]


def spliced(text: str, edits: Iterable[Edit]) -> str:
    """The text with the edits done; none lies within another."""
    parts, at = [], 0
    for start, end, new in sorted(edits, key=lambda edit: edit[:2]):
        parts += [text[at:start], new]
        at = end
    return "".join([*parts, text[at:]])


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _next(text: str, end: int) -> int:
    """Where the next member or item begins, or the bracket that closes."""
    at = _skip(text, end)
    return _skip(text, at + 1) if text[at] == "," else at

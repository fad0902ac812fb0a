"""Where in a TOML text each table and key stands, and how a fault is told with its place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches

_HEADER = re.compile(r"\s*\[(\[)?\s*([A-Za-z0-9_.\"'-]+?)\s*\]")
_KEY = re.compile(r"\s*[\"']?([A-Za-z0-9_-]+)[\"']?\s*[=.]")


@dataclass(slots=True)
class Places:
    """Lines of a TOML file, from 1: of ``[table]`` by name, of ``[[table]]`` by name and turn, of their keys."""

    file: str
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)

    @classmethod
    def of(cls, file: str, text: str) -> Places:
        places, turns = cls(file), dict[str, int]()
        table: tuple[str, ...] = ()
        for number, line in enumerate(text.splitlines(), 1):
            if found := _HEADER.match(line):
                name = found[2]
                turns[name] = turns.get(name, -1) + 1
                table = (name, str(turns[name])) if found[1] else (name,)
                places.lines.setdefault(table, number)
            elif found := _KEY.match(line):
                places.lines.setdefault((*table, found[1]), number)
        return places

    def fault(self, path: tuple[str, ...], message: str, hint: str = "") -> str:
        """``file:line: table: message``, with the hint indented below it."""
        line = next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), 1)
        text = f"{self.file}:{line}: {'.'.join(path)}: {message}" if path else f"{self.file}: {message}"
        return f"{text}\n    hint: {hint}" if hint else text


def suggestion(name: str, known: Iterable[str]) -> str:
    """What an unknown name may have been meant to be, and the known ones."""
    names = list(known)
    close = get_close_matches(name, names, 1)
    return (f"did you mean {str(close[0])!r}? " if close else "") + f"known: {', '.join(names)}"

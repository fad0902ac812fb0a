"""Text from a grammar, a million prompts at a time.

A grammar is a text file of sections: ``[name]`` and below it one alternative a line. There ``<name>`` stands for any
alternative of that section, ``<#3-99>`` for a number, ``\\n`` for a line break, ``\\s`` for a space at either
end and ``\\<`` for a literal bracket; ``4* `` in front makes it four times as likely; ``;;`` starts a comment.

A slot is drawn anew for every row, unless it names who decides: ``<name@c>`` is the same throughout a conversation,
``<name@o>`` for all texts of one owner (a product, a kit, an operator), ``<name@v>`` for one variant of an owner's
wording. Digits after the letter tell apart two draws of one section. In ``[name@o]`` the owner picks the alternative,
and what stands in it is drawn as usual.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from stillwatch.errors import UsageError

U64 = npt.NDArray[np.uint64]
SCOPES = {"": 0, "c": 1, "o": 2, "v": 3}
PIECE, SYMBOL, NUMBER = 0, 1, 2
MAX_TEXT_BYTES = 12_000
_SLOT = re.compile(r"(?<!\\)<(?:#(\d+)-(\d+)|([a-z][a-z0-9_.]*))(?:@([cov])(\d*))?>")
_SECTION = re.compile(r"\[([a-z][a-z0-9_.]*(?:@[cov])?)\]$")
_WEIGHT = re.compile(r"(\d+)\* ")


def mix(values: npt.ArrayLike) -> U64:
    """A well-stirred 64-bit number for each; one to one, so distinct values stay distinct (splitmix64's finaliser)."""
    x = np.asarray(values).astype(np.uint64, copy=True)
    x += np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True, slots=True)
class Seeds:
    """What decides each row's draws: itself, its conversation, the owner of the wording and the variant of it."""

    row: U64
    conversation: U64
    owner: U64
    variant: U64

    def stack(self) -> U64:
        return np.ascontiguousarray(np.stack([self.row, self.conversation, self.owner, self.variant], axis=1))


@dataclass(frozen=True, slots=True)
class Grammar:
    """A compiled grammar: flat arrays a machine-code loop walks. ``symbols`` maps a section's name to its number."""

    symbols: Mapping[str, int]
    arrays: tuple[npt.NDArray[np.generic], ...] = field(repr=False)

    def symbol(self, name: str) -> int:
        if name not in self.symbols:
            raise UsageError(f"the grammar has no section [{name}]")
        return self.symbols[name]

    def render(self, starts: npt.NDArray[np.int32], seeds: Seeds) -> pa.StringArray:
        """One text for each row from its start section; a negative start gives null."""
        rows, stack = len(starts), seeds.stack()
        offsets = np.zeros(rows + 1, np.int32)
        out = np.empty(max(1, rows) * 900 + 2 * MAX_TEXT_BYTES, np.uint8)
        row, used = 0, 0
        while True:
            row, used = _render(starts, stack, *self.arrays, out, offsets, row, used)
            if row == rows:
                break
            out = np.concatenate([out, np.empty(len(out), np.uint8)])
        valid = starts >= 0
        nulls = int(rows - valid.sum())
        mask = pa.py_buffer(np.packbits(valid, bitorder="little").tobytes()) if nulls else None
        return pa.StringArray.from_buffers(
            rows, pa.py_buffer(offsets.view(np.uint8)), pa.py_buffer(out[:used]), mask, nulls
        )


Rules = dict[str, list[str]]


def read_rules(text: str, name: str = "grammar") -> Rules:
    """Sections of a grammar file, alternatives as written; weights are spelt out by repetition."""
    rules: Rules = {}
    section: list[str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith(";;"):
            continue
        if found := _SECTION.match(line):
            section = rules.setdefault(found[1], [])
        elif section is None:
            raise UsageError(f"{name}:{number}: an alternative before the first [section]")
        else:
            weight = _WEIGHT.match(line)
            section.extend([line[weight.end() :] if weight else line] * (int(weight[1]) if weight else 1))
    return rules


def escape(text: str) -> str:
    """Other people's text as a literal alternative."""
    return text.replace("\\", "\\\\").replace("<", "\\<").replace("\n", "\\n")


@dataclass(slots=True)
class _Compiler:
    symbols: dict[str, int]
    pieces: dict[tuple[bytes, bool], int] = field(default_factory=dict)
    items: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    alternatives: list[tuple[int, int]] = field(default_factory=list)
    sections: list[tuple[int, int, int]] = field(default_factory=list)

    def piece(self, text: str, varied: bool) -> None:
        if text:
            key = (_unescape(text).encode(), varied)
            self.items.append((PIECE, self.pieces.setdefault(key, len(self.pieces)), 0, 0, 0))

    def alternative(self, text: str, where: str) -> None:
        start, at = len(self.items), 0
        varied = text.startswith("~")
        text = text[1:] if varied else text
        for slot in _SLOT.finditer(text):
            self.piece(text[at : slot.start()], varied)
            low, high, name, scope, salt = slot.groups()
            place = (SCOPES[scope or ""], int(salt or 0))
            if name is None:
                self.items.append((NUMBER, int(low), int(high), *place))
            elif name in self.symbols:
                self.items.append((SYMBOL, self.symbols[name], 0, *place))
            else:
                raise UsageError(f"[{where}] names a section that is not there: <{name}>")
            at = slot.end()
        self.piece(text[at:], varied)
        self.alternatives.append((start, len(self.items) - start))

    def arrays(self) -> tuple[npt.NDArray[np.generic], ...]:
        sizes = np.array([len(text) for text, _ in self.pieces] or [0], np.int64)
        return (
            np.array(self.sections, np.int64), np.array(self.alternatives, np.int64), np.array(self.items, np.int64),
            np.frombuffer(b"".join(text for text, _ in self.pieces) or b"\0", np.uint8),
            np.concatenate([[0], np.cumsum(sizes)]), np.array([varied for _, varied in self.pieces] or [False]),
        )  # fmt: skip


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t", "s": " "}.get(m[1], m[1]), text)


def compile_rules(rules: Mapping[str, Iterable[str]]) -> Grammar:
    """The grammar of these sections. An alternative that starts with ``~`` has the digits of its text varied by row."""
    compiler = _Compiler({name.partition("@")[0]: number for number, name in enumerate(rules)})
    for name, alternatives in rules.items():
        start = len(compiler.alternatives)
        for text in alternatives:
            compiler.alternative(text, name)
        if len(compiler.alternatives) == start:
            raise UsageError(f"[{name}] of the grammar is empty")
        chooser = SCOPES[name.partition("@")[2]]
        compiler.sections.append((start, len(compiler.alternatives) - start, chooser))
    return Grammar(compiler.symbols, compiler.arrays())


@njit(inline="always")
def _stir(x: np.uint64) -> np.uint64:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(nogil=True, cache=True)
def _render(starts, seeds, sections, alternatives, items, pieces, bounds, varied, out, offsets, row, used):  # type: ignore[no-untyped-def]  # noqa: PLR0912, PLR0915
    """Writes texts from ``row`` on; returns the first row that no longer fits and the bytes used so far.

    A stack of (next item, end, random state): a slot with a scope pushes a state of its own, others use their parent's.
    """
    depth_max = 48
    next_item = np.zeros(depth_max, np.int64)
    end_item = np.zeros(depth_max, np.int64)
    slot_of = np.zeros(depth_max, np.int64)
    state = np.zeros(depth_max, np.uint64)
    while row < len(starts):
        if used + 2 * MAX_TEXT_BYTES > len(out):
            return row, used
        begin = used
        if starts[row] >= 0:
            chooser = sections[starts[row], 2]
            state[0] = seeds[row, 0]
            slot_of[0] = 0
            state[0] = _stir(state[0])
            key = state[0] if chooser == 0 else _stir(seeds[row, chooser] ^ np.uint64(starts[row] * 7919))
            first = sections[starts[row], 0] + np.int64((key >> np.uint64(7)) % np.uint64(sections[starts[row], 1]))
            next_item[0] = alternatives[first, 0]
            end_item[0] = alternatives[first, 0] + alternatives[first, 1]
            depth = 0
            while depth >= 0:
                if next_item[depth] == end_item[depth] or used - begin > MAX_TEXT_BYTES // 2:
                    depth -= 1
                    continue
                item = next_item[depth]
                next_item[depth] += 1
                op, a, b, scope, salt = items[item, 0], items[item, 1], items[item, 2], items[item, 3], items[item, 4]
                slot = slot_of[depth]
                if op == 0:
                    size = min(bounds[a + 1] - bounds[a], MAX_TEXT_BYTES)
                    base = bounds[a]
                    for i in range(size):
                        out[used + i] = pieces[base + i]
                    if varied[a]:
                        for i in range(used, used + size):
                            if 49 <= out[i] <= 57:
                                state[slot] = _stir(state[slot])
                                out[i] = np.uint8(49 + state[slot] % np.uint64(9))
                    used += size
                    continue
                if scope > 0:
                    key = _stir(seeds[row, scope] ^ np.uint64(a * 7919 + salt * 104729 + op * 31 + b))
                    slot = depth + 1 if depth + 1 < depth_max else depth
                else:
                    state[slot] = _stir(state[slot])
                    key = state[slot]
                if op == 2:
                    number = a + np.int64(key % np.uint64(b - a + 1))
                    digits = 1
                    power = 10
                    while power <= number:
                        digits += 1
                        power *= 10
                    for i in range(digits):
                        out[used + digits - 1 - i] = np.uint8(48 + number % 10)
                        number //= 10
                    used += digits
                    continue
                if depth + 1 >= depth_max:
                    continue
                if sections[a, 2] > 0 and scope == 0:
                    key = _stir(seeds[row, sections[a, 2]] ^ np.uint64(a * 7919))
                alternative = sections[a, 0] + np.int64((key >> np.uint64(7)) % np.uint64(sections[a, 1]))
                depth += 1
                next_item[depth] = alternatives[alternative, 0]
                end_item[depth] = alternatives[alternative, 0] + alternatives[alternative, 1]
                slot_of[depth] = slot
                if scope > 0:
                    state[slot] = _stir(key)
        row += 1
        offsets[row] = used
    return row, used

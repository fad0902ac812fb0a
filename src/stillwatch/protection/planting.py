"""Canaries put into an answer: the sample names in its code, where any name would do, are those of the campaign.

The rule that keeps it right: what is renamed is nothing but a name that the model made up for an example. It is left alone where
anything in the request names it, where it stands outside of example code, or is used as something that could exist elsewhere
(a member, a path, a package), or is not made in that answer; and then all of it is left alone, so that no answer names one
thing in two ways. Calls of tools, structured answers and answers with token probabilities or citations are never touched.

It takes a whole answer, so it cannot be done to a stream: a name may stand further on in a place that forbids it.
Nothing does it unless a provider asks for it, and only for campaigns under action.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stillwatch.entries import Deed
from stillwatch.protection.canaries import PLANTED, Canary, Place, words
from stillwatch.protection.traces.splicing import Edit
from stillwatch.protection.traces.splicing import Place as Spot

NAMES = {
    Place.PLACEHOLDER: ("foo", "qux", "quux", "baz"),
    Place.FILE: tuple(f"{stem}.{kind}" for stem in ("example", "sample") for kind in ("txt", "csv", "json", "log")),
    Place.GREETING: ("Hello, World", "Hello, world"),
}
"""What models call things that may be called anything; the first of them in an answer is renamed."""
PLAIN = frozenset({"", "text", "txt", "plaintext", "output", "console"})
"""Marks of blocks that show what the code prints."""

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[ \t]*([^\s`]*)[^\n`]*$", re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_MAKES = re.compile(
    r"(?:\b(?:def|function|func|fn|class|struct|let|const|var|static|void|int|double|float|char|bool|auto|String)\s+)$"
)
_ASSIGNED = re.compile(r"[ \t]*(?::=|=(?!=)|\(\)\s*\{)")
_BEFORE, _AFTER = frozenset("\"'.-/@#:$&~\\"), frozenset("\"'.-/@\\")


@dataclass(slots=True)
class Planted:
    """What was done to an answer: ``positions`` renamed by canary id, and why names were ``left`` alone, by reason."""

    positions: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)


def planted(text: str, asked: str, canaries: Iterable[Canary]) -> tuple[str, Planted]:
    """An answer's text with the canaries' names in free positions, and what was done. ``asked`` is all text of the request.

    The same text, where none is free. Each canary renames one name, wherever it stands.
    """
    done = Planted()
    for canary in canaries:
        blocks = list(_blocks(text))
        for name in NAMES[canary.issued.place]:
            spots = [m.span() for m in _standing(name).finditer(text)]
            if not spots:
                continue
            reason = _forbids(canary, name, text, asked, spots, blocks)
            if reason:
                done.left[reason] += 1
                continue
            text = _renamed(text, spots, _told(canary, name))
            done.positions[canary.canary_id] += len(spots)
            break
    return text, done


def _standing(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])")


def _told(canary: Canary, name: str) -> str:
    """What a name is called instead."""
    if canary.issued.place is Place.FILE:
        return f"{canary.target}.{name.rpartition('.')[2]}"
    return f"Hello, {canary.target}" if canary.issued.place is Place.GREETING else canary.target


def _forbids(
    canary: Canary, name: str, text: str, asked: str, spots: Sequence[tuple[int, int]], blocks: Sequence[_Block]
) -> str:
    """Why a name is not free, or nothing."""
    low = asked.lower()
    key = "world" if canary.issued.place is Place.GREETING else name.lower()
    if key in low:
        return "asked"
    if canary.target in low or canary.target in text.lower():
        return "taken"
    mine = words().languages[canary.issued.language].fences
    homes = [next((b for b in blocks if b.start <= start and end <= b.end), None) for start, end in spots]
    if any(home is None or home.mark not in (*mine, *PLAIN, _INSIDE) for home in homes):
        return "elsewhere"
    if not any(home and home.mark in mine for home in homes):
        return "elsewhere"
    if canary.issued.place is Place.PLACEHOLDER:
        return _misused(text, spots)
    return _unquoted(text, spots, homes, mine)


def _misused(text: str, spots: Sequence[tuple[int, int]]) -> str:
    """Why a sample function or variable is not free: it could be something that exists elsewhere, or is not made here."""
    if any(text[max(start - 1, 0) : start] in _BEFORE or text[end : end + 1] in _AFTER for start, end in spots):
        return "used"
    return "" if any(_is_made(text, *spot) for spot in spots) else "not_made"


def _is_made(text: str, start: int, end: int) -> bool:
    line = text[text.rfind("\n", 0, start) + 1 : start]
    return bool(_MAKES.search(line)) or (not line.strip() and bool(_ASSIGNED.match(text, end)))


def _unquoted(text: str, spots: Sequence[tuple[int, int]], homes: Sequence[_Block | None], mine: Sequence[str]) -> str:
    """A sample file or greeting is a string of its own: a quote stands right before it, in code."""
    inside = [text[start - 1 : start] in ("'", '"') for (start, _), h in zip(spots, homes) if h and h.mark in mine]
    return "" if all(inside) else "used"


def _renamed(text: str, spots: Sequence[tuple[int, int]], new: str) -> str:
    parts, at = [], 0
    for start, end in spots:
        parts += [text[at:start], new]
        at = end
    return "".join([*parts, text[at:]])


_INSIDE = "`"


@dataclass(frozen=True, slots=True)
class _Block:
    """A block of code by how it is marked, or code within a line."""

    start: int
    end: int
    mark: str


def _blocks(text: str) -> Iterator[_Block]:
    """Blocks of code and code within lines, as CommonMark has them; a block that is not closed goes on to the end."""
    at = 0
    while match := _FENCE.search(text, at):
        yield from _inline(text, at, match.start())
        fence, mark = match[1], match[2].lower()
        close = re.compile(rf"^ {{0,3}}{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$", re.MULTILINE)
        closed = close.search(text, match.end() + 1)
        end = closed.start() if closed else len(text)
        yield _Block(match.end(), end, mark)
        at = closed.end() if closed else len(text)
    yield from _inline(text, at, len(text))


def _inline(text: str, start: int, end: int) -> Iterator[_Block]:
    return (_Block(m.start(1), m.end(1), _INSIDE) for m in _INLINE.finditer(text, start, end))


# In the answers of APIs


def planted_in(
    body: Spot, request: Mapping[str, Any], dialect: str, canaries: Sequence[Canary]
) -> tuple[list[Edit], Planted]:
    """Edits of an API's whole answer, and what was done; none where it calls a tool, is structured, or spells out its tokens."""
    done = Planted()
    if _is_structured(request):
        return [], done
    asked, edits = "\n".join(_texts(request)), []
    for spot in _spots(body, dialect):
        text, made = planted(spot.value, asked, canaries)
        done.positions += made.positions
        done.left += made.left
        if made.positions:
            edits.append(spot.put(text))
    return edits, done


def _is_structured(request: Mapping[str, Any]) -> bool:
    """Whether the answer has a form that was asked for, or tells its tokens."""
    shape = request.get("text")
    forms = [request.get("response_format"), shape.get("format") if isinstance(shape, dict) else None]
    forms += [
        request.get("output_format"),
        request.get("output_config"),
        request.get("logprobs"),
        request.get("top_logprobs"),
    ]
    return any(form and not (isinstance(form, dict) and form.get("type") == "text") for form in forms)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a request, with the names of its members."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _texts(item)


def _spots(body: Spot, dialect: str) -> list[Spot]:
    """Where the text of an answer stands; nowhere if a tool is called beside it, or it cites."""
    if dialect == "anthropic":
        blocks = [block for content in body.at("content") for block in content.items()]
        kinds = {kind.value for block in blocks for kind in block.at("type")}
        if not kinds <= {"text", "thinking", "redacted_thinking"} or any(_has(b, "citations") for b in blocks):
            return []
        return [t for b in blocks for t in b.at("text") if isinstance(t.value, str)]
    if dialect == "openai_responses":
        return _in_items([item for output in body.at("output") for item in output.items()])
    choices = [choice for given in body.at("choices") for choice in given.items()]
    return [spot for choice in choices if not _has(choice, "logprobs", "token_ids") for spot in _in_message(choice)]


def _in_message(choice: Spot) -> Iterator[Spot]:
    for message in choice.at("message"):
        if not _has(message, "tool_calls", "function_call", "audio", "annotations"):
            yield from (content for content in message.at("content") if isinstance(content.value, str))


def _in_items(items: Sequence[Spot]) -> list[Spot]:
    if not {kind.value for item in items for kind in item.at("type")} <= {"message", "reasoning"}:
        return []
    parts = [part for item in items for content in item.at("content") for part in content.items()]
    told = [part for part in parts if any(kind.value == "output_text" for kind in part.at("type"))]
    if any(_has(part, "annotations", "logprobs") for part in told):
        return []
    return [text for part in told for text in part.at("text") if isinstance(text.value, str)]


def _has(spot: Spot, *names: str) -> bool:
    return any(member.value for member in spot.at(*names))


@dataclass(slots=True)
class Tally:
    """What was planted since it was last written down, by campaign: for the audit, as numbers."""

    by_campaign: dict[str, Planted] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)

    def add(self, campaign_id: str, done: Planted) -> None:
        """One answer to a campaign."""
        told = self.by_campaign.setdefault(campaign_id, Planted())
        told.positions += done.positions
        told.left += done.left
        self.answers[campaign_id] += bool(done.positions)

    def deeds(self, who: str = "stillwatch") -> list[Deed]:
        """Entries for the audit, one for each campaign that something was planted for; counting begins anew."""
        found = [
            Deed(PLANTED, who, "service", campaign, {"answers": self.answers[campaign], "positions": dict(told.positions),
                                                      "left": dict(told.left)})
            for campaign, told in self.by_campaign.items()
            if told.positions
        ]  # fmt: skip
        self.by_campaign.clear()
        self.answers.clear()
        return found

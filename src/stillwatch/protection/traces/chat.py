"""Reasoning in OpenAI's chat, as vLLM, DeepSeek, OpenRouter and LiteLLM have it: members of a message, or of a stream's deltas.

A client hands back what it was shown, so the reference stands in the same member, on a line of its own behind what is shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from stillwatch.protection.reasoning import PREFIX
from stillwatch.protection.traces import FIELD, Curtain, Step
from stillwatch.protection.traces.splicing import Edit, Place

TEXTS = ("reasoning_content", "reasoning", "thinking")
LISTS = {
    "reasoning_details": ("reasoning.encrypted", "data"),
    "thinking_blocks": ("redacted_thinking", "data"),
}
"""Members that are lists of blocks, with the type of an opaque block and where it keeps what is opaque."""
NESTED = "provider_specific_fields"
TOKENS = ("logprobs", "token_ids")
"""Members of a choice that spell out its tokens, those of the reasoning with them."""
ENVELOPE = ("id", "object", "created", "model", "system_fingerprint", "service_tier", "provider")
LINE = re.compile(rf"^{PREFIX}\.\S*$", re.MULTILINE)
"""A reference within a text that was shown."""


def members(message: Place) -> Iterator[tuple[str, Place]]:
    """Members of a message or delta that hold reasoning, and are not empty."""
    for name, place in message.members():
        if name in TEXTS or name in LISTS:
            if place.value not in (None, "", []):
                yield name, place
        elif name == NESTED:
            yield from members(place)


def answer(body: Place, curtain: Curtain) -> list[Edit]:
    """Edits of a whole answer."""
    edits: list[Edit] = []
    for choice in _choices(body):
        found = _found(choice, "message")
        edits += [place.put(_told(name, place.value, curtain)) for name, place in found]
        edits += _without_tokens(choice) if found else []
    return [*edits, *curtain.noted(body)] if edits else []


def _choices(body: Place) -> list[Place]:
    return [choice for choices in body.at("choices") for choice in choices.items()]


def _found(choice: Place, *names: str) -> list[tuple[str, Place]]:
    """Reasoning in a choice's message, and beside it, where text is completed."""
    return [pair for place in (choice, *choice.at(*names)) for pair in members(place)]


def _without_tokens(choice: Place) -> list[Edit]:
    return [place.put(None) for place in choice.at(*TOKENS) if place.value is not None]


def _told(name: str, value: Any, curtain: Curtain) -> Any:
    """What stands in a member in place of its reasoning."""
    if name in TEXTS and isinstance(value, str):
        return _text(value, curtain.told(value), curtain)
    curtain.counts.withheld += 1
    if name not in LISTS:
        # Of a form that no client hands back.
        curtain.counts.unkept += 1
        return None
    kind, opaque = LISTS[name]
    return [{"type": kind, opaque: curtain.kept(value)}]


def _text(trace: str, shown: str, curtain: Curtain) -> str:
    """What is shown, and the reference to all of it."""
    said = shown or f"[Reasoning is withheld: {curtain.showing.reason}]"
    return f"{said}\n{curtain.kept(trace)}\n"


@dataclass(slots=True)
class _Run:
    """Reasoning of one choice that has come in and is not told yet, by member."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    lists: dict[str, list[Any]] = field(default_factory=dict)
    envelope: dict[str, Any] = field(default_factory=dict)
    is_whole: bool = True


class Chat:
    """The events of one answer: reasoning is held back until something else of its choice comes, then told before that."""

    def __init__(self, curtain: Curtain) -> None:
        self._curtain = curtain
        self._runs: dict[int, _Run] = {}
        self._spoke: set[int] = set()
        """Choices that have told their role."""
        self._held = 0

    def event(self, place: Place) -> Step:
        """As ``Stream`` has it."""
        edits: list[Edit] = []
        before: list[Mapping[str, Any]] = []
        is_more = any(value.value is not None for value in place.at("usage", "error"))
        for choice in _choices(place):
            index = _index(choice)
            found = _found(choice, "delta", "message")
            for name, value in found:
                self._add(index, name, value.value, place)
                edits.append(value.put(None))
            edits += _without_tokens(choice) if found else []
            if _says_more(choice):
                before += self._told(index)
                is_more = True
            is_more |= self._tells_role(index, choice)
        return Step(before, edits, passes=is_more or not edits)

    def end(self) -> list[Mapping[str, Any]]:
        """As ``Stream`` has it."""
        return [event for index in sorted(self._runs) for event in self._told(index)]

    def _add(self, index: int, name: str, value: Any, event: Place) -> None:
        run = self._runs.setdefault(index, _Run())
        if not run.envelope:
            run.envelope = {k: v for k, v in event.value.items() if k in ENVELOPE}
        size = len(value) if isinstance(value, str) else len(json.dumps(value))
        if self._held + size > self._curtain.most:
            # Of a trace that is cut nothing is held, only where it stood.
            run.is_whole = False
            run.texts, run.lists = {n: [] for n in run.texts}, {n: [] for n in run.lists}
        if not run.is_whole:
            (run.texts if name in TEXTS else run.lists).setdefault(name, [])
        elif name in TEXTS and isinstance(value, str):
            run.texts.setdefault(name, []).append(value)
        else:
            _joined(run.lists.setdefault(name, []), value if isinstance(value, list) else [value])
        self._held += size

    def _told(self, index: int) -> list[Mapping[str, Any]]:
        """The one event that tells of a choice's reasoning, if there is any."""
        run = self._runs.pop(index, None)
        if run is None:
            return []
        curtain = self._curtain if run.is_whole else replace(self._curtain, seal=None)
        delta = {name: _told(name, "".join(parts), curtain) for name, parts in run.texts.items()}
        delta |= {name: _told(name, blocks, curtain) for name, blocks in run.lists.items()}
        self._held = 0 if not self._runs else self._held
        choice = {"index": index, "delta": delta, "finish_reason": None}
        return [{FIELD: self._curtain.showing.field(), **run.envelope, "choices": [choice]}]

    def _tells_role(self, index: int, choice: Place) -> bool:
        """Whether the choice's role is told for the first time."""
        if index in self._spoke or not any(r.value for d in choice.at("delta") for r in d.at("role")):
            return False
        self._spoke.add(index)
        return True


def _index(choice: Place) -> int:
    return next((i.value for i in choice.at("index") if isinstance(i.value, int)), 0)


def _says_more(choice: Place) -> bool:
    """Whether a choice has anything but reasoning and its role: a piece of the answer, or why it ended."""
    if any(f.value is not None for f in choice.at("finish_reason")):
        return True
    told = [("text", text) for text in choice.at("text")]
    told += [pair for delta in choice.at("delta", "message") for pair in delta.members()]
    return any(_is_more(name, place) for name, place in told)


def _is_more(name: str, member: Place) -> bool:
    if name == NESTED:
        return any(_is_more(*pair) for pair in member.members())
    return name not in ("role", *TEXTS, *LISTS) and member.value not in (None, "", [], {})


def _joined(blocks: list[Any], more: list[Any]) -> None:
    """Blocks of a stream with pieces of one block put together."""
    for piece in more:
        last = blocks[-1] if blocks else None
        if not (isinstance(last, dict) and isinstance(piece, dict) and _is_one(last, piece)):
            blocks.append(piece)
            continue
        for name, value in piece.items():
            grows = name in ("text", "summary", "data", "thinking") and isinstance(last.get(name), str)
            last[name] = last[name] + value if grows and isinstance(value, str) else value


def _is_one(last: Mapping[str, Any], piece: Mapping[str, Any]) -> bool:
    keys = ("index", "type") if "index" in piece else ("type",)
    return all(last.get(k) == piece.get(k) for k in keys)

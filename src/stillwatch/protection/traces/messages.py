"""Reasoning in Anthropic's messages: ``thinking`` blocks with a signature, and ``redacted_thinking`` blocks.

A block is shown in the form that the API itself has for thinking that is summarised or left out: its text is what is shown,
and its signature the reference, which every client hands back with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from stillwatch.protection.traces import FIELD, UNKEPT, Curtain, Step
from stillwatch.protection.traces.splicing import Edit, Place

THINKING, REDACTED = "thinking", "redacted_thinking"


def answer(body: Place, curtain: Curtain) -> list[Edit]:
    """Edits of a whole message, or of one in a batch's results."""
    edits = [edit for message in (body, *_in_results(body)) for edit in _message(message, curtain)]
    return [*edits, *curtain.noted(body)] if edits else []


def _in_results(body: Place) -> Iterator[Place]:
    """The message of a line of a batch's results."""
    return (message for result in body.at("result") for message in result.at("message"))


def _message(message: Place, curtain: Curtain) -> list[Edit]:
    blocks = [block for content in message.at("content") for block in content.items()]
    return [edit for block in blocks for edit in _block(block, curtain)]


def _block(block: Place, curtain: Curtain) -> list[Edit]:
    kind, value = _kind(block), block.value
    if kind == REDACTED:
        curtain.counts.withheld += 1
        return block.having("data", curtain.kept(value))
    if kind != THINKING:
        return []
    shown = curtain.told(_text(value))
    return [*block.having(THINKING, shown), *block.having("signature", curtain.kept(value))]


def _kind(block: Place) -> str:
    """The type of a block; one of reasoning if any of doubled members says so."""
    kinds = [str(kind.value) for kind in block.at("type")]
    return next((k for k in kinds if k in (THINKING, REDACTED)), kinds[-1] if kinds else "")


def _text(block: Mapping[str, Any]) -> str:
    text = block.get(THINKING)
    return text if isinstance(text, str) else ""


class Messages:
    """The events of one answer: a thinking block begins as it does, and is told whole when it stops."""

    def __init__(self, curtain: Curtain) -> None:
        self._curtain = curtain
        self._open: dict[int, dict[str, str]] = {}
        """Thinking blocks that have begun, by index: text and signature; no text where it was too long to hold."""
        self._held = 0

    def event(self, place: Place) -> Step:
        """As ``Stream`` has it."""
        kinds = {kind.value for kind in place.at("type")}
        index = next((i.value for i in place.at("index") if isinstance(i.value, int)), 0)
        if "content_block_start" in kinds:
            return Step(edits=[e for block in place.at("content_block") for e in self._begun(index, block, place)])
        if "content_block_delta" in kinds:
            taken = [self._taken(index, delta) for delta in place.at("delta")]
            return Step(passes=not any(taken))
        if "content_block_stop" in kinds and index in self._open:
            return Step(before=self._told(index))
        edits = [edit for message in place.at("message") for edit in _message(message, self._curtain)]
        return Step(edits=[*edits, *self._curtain.noted(place)] if edits else [])

    def end(self) -> list[Mapping[str, Any]]:
        """As ``Stream`` has it: of a block that was cut nothing is told."""
        return []

    def _begun(self, index: int, block: Place, event: Place) -> list[Edit]:
        kind = _kind(block)
        if kind == REDACTED:
            return [*_block(block, self._curtain), *self._curtain.noted(event)]
        if kind != THINKING:
            return []
        self._open[index] = {THINKING: "", "signature": ""}
        edits = []
        for name in self._open[index]:
            for place in block.at(name):
                self._grow(index, name, place.value)
                edits += [place.put("")] if place.value else []
        return edits

    def _taken(self, index: int, delta: Place) -> bool:
        """Whether a delta is of reasoning: then it is held."""
        found = [(name, place.value) for name, place in delta.members() if name in (THINKING, "signature")]
        kinds = {str(kind.value) for kind in delta.at("type")}
        for name, value in found:
            self._grow(index, name, value)
        return bool(found) or bool(kinds & {"thinking_delta", "signature_delta"})

    def _grow(self, index: int, name: str, value: Any) -> None:
        block = self._open.setdefault(index, {THINKING: "", "signature": ""})
        if not isinstance(value, str) or THINKING not in block:
            return
        self._held += len(value)
        block[name] += value
        if self._held > self._curtain.most:
            block.clear()

    def _told(self, index: int) -> list[Mapping[str, Any]]:
        """Deltas that say what is shown of a block, and its reference."""
        block = self._open.pop(index)
        curtain = self._curtain if block else replace(self._curtain, seal=None)
        self._held = self._held if self._open else 0
        deltas: list[Mapping[str, Any]] = []
        if shown := curtain.told(block.get(THINKING, "")):
            deltas.append({"type": "thinking_delta", THINKING: shown})
        reference = curtain.kept({"type": THINKING, **block}) if block else curtain.kept(None)
        deltas.append({"type": "signature_delta", "signature": reference or UNKEPT})
        note = {FIELD: curtain.showing.field()}
        return [{"type": "content_block_delta", "index": index, "delta": d, **note} for d in deltas]

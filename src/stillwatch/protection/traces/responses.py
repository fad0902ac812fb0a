"""Reasoning in OpenAI's responses: items of type ``reasoning`` with content, a summary, and what is sealed already.

The reference takes the place of ``encrypted_content``, which clients hand back; it holds the whole item, with the model's
own seal. A summary of the model's own is what is shown where one is to be shown.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from stillwatch.protection.traces import UNKEPT, Curtain, Step
from stillwatch.protection.traces.splicing import Edit, Place

SUMMARIES = ("response.reasoning_summary", "response.reasoning_summary_part", "response.reasoning_summary_text")
_REMEMBERED = 64
"""Items of one answer that are told the same way again when the whole of it is repeated at the end."""


class Responses:
    """One answer, whole or as events. Sealed items are remembered by what they were, so that they are told alike twice."""

    def __init__(self, curtain: Curtain) -> None:
        self._curtain = curtain
        self._told: OrderedDict[bytes, tuple[list[dict[str, str]], str | None]] = OrderedDict()

    def answer(self, body: Place) -> list[Edit]:
        """Edits of a whole answer."""
        edits = self._output(body)
        return [*edits, *self._curtain.noted(body)] if edits else []

    def event(self, place: Place) -> Step:
        """As ``Stream`` has it."""
        kinds = [str(kind.value) for kind in place.at("type")]
        if any(self._is_swallowed(kind) for kind in kinds) or any(map(self._is_reasoning_part, place.at("part"))):
            return Step(passes=False)
        is_done = "response.output_item.added" not in kinds
        edits = [edit for item in place.at("item") for edit in self._item(item, is_done)]
        edits += [edit for response in place.at("response") for edit in self._output(response)]
        return Step(edits=[*edits, *self._curtain.noted(place)] if edits else [])

    def end(self) -> list[Mapping[str, Any]]:
        """As ``Stream`` has it."""
        return []

    def _is_swallowed(self, kind: str) -> bool:
        """Whether an event is of reasoning that is not shown as it comes."""
        if not kind.startswith("response.reasoning"):
            return False
        return not (self._curtain.passes_summaries and kind.rpartition(".")[0] in SUMMARIES)

    def _is_reasoning_part(self, part: Place) -> bool:
        kinds = {str(kind.value) for kind in part.at("type")}
        return bool(kinds & {"reasoning_text", "reasoning"}) or (
            "summary_text" in kinds and not self._curtain.passes_summaries
        )

    def _output(self, response: Place) -> list[Edit]:
        items = [item for output in response.at("output") for item in output.items()]
        return [edit for item in items for edit in self._item(item, True)]

    def _item(self, item: Place, is_done: bool) -> list[Edit]:
        if not any(kind.value == "reasoning" for kind in item.at("type")):
            return []
        summary, reference = self._veiled(item) if is_done else ([], None)
        edits = [content.put([]) for content in item.at("content") if content.value]
        own = [place for place in item.at("summary") if place.value]
        if not (own and self._curtain.passes_summaries):
            edits += item.having("summary", summary)
        return [*edits, *item.having("encrypted_content", reference)]

    def _veiled(self, item: Place) -> tuple[list[dict[str, str]], str | None]:
        """What is shown of an item in place of its summary, and the reference to it."""
        name = hashlib.sha256(item.text[item.start : item.end].encode("utf-8", "surrogatepass")).digest()
        if name not in self._told:
            value = item.value
            shown = "" if value.get("summary") and self._curtain.passes_summaries else self._curtain.told(_text(value))
            reference = self._curtain.kept(value)
            parts = [{"type": "summary_text", "text": shown}] if shown else []
            self._told[name] = parts, None if reference == UNKEPT else reference
            if len(self._told) > _REMEMBERED:
                self._told.popitem(last=False)
        return self._told[name]


def _text(item: Mapping[str, Any]) -> str:
    """The text of an item: its content, or its summary where there is none."""
    for name in ("content", "summary"):
        parts = item.get(name)
        texts = [p["text"] for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str)] if parts else []
        if texts:
            return "\n\n".join(texts)
    return ""

"""References in a request, opened: the reasoning of earlier turns stands where it stood when the model made it.

A reference is looked for only where a client hands reasoning back. What is no reference is left as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stillwatch.protection.reasoning import PREFIX, Malformed, Refused
from stillwatch.protection.traces import UNKEPT
from stillwatch.protection.traces.chat import LINE, LISTS, NESTED, TEXTS
from stillwatch.protection.traces.messages import REDACTED, THINKING

Open = Callable[[str], bytes]
NONE = object()
"""In place of a block that is left out."""


@dataclass(slots=True)
class Opening:
    """Opens the references of one request. A ``Refused`` one is raised, or, where it ``drops``, left out with its reasoning."""

    open: Open
    drops: bool = False
    opened: int = 0
    dropped: int = 0

    def request(self, body: Mapping[str, Any], dialect: str) -> Mapping[str, Any]:
        """The request as the model is to get it; the very same one where there is no reference in it."""
        if dialect == "openai_responses":
            return self._listed(body, "input", self._item)
        each = self._turn if dialect == "anthropic" else self._message
        return self._listed(body, "messages", each)

    def _listed(self, body: Mapping[str, Any], name: str, each: Callable[[Any], Any]) -> Mapping[str, Any]:
        """The body with every entry of a list gone through; the very same where none was changed."""
        entries = body.get(name)
        if not isinstance(entries, list):
            return body
        made = [each(entry) for entry in entries]
        if all(new is old for new, old in zip(made, entries)):
            return body
        return {**body, name: [entry for entry in made if entry is not NONE]}

    def _trace(self, reference: Any, kind: type) -> Any:
        """What a reference holds; NONE where it is left out."""
        if reference == UNKEPT:
            return NONE
        try:
            trace = json.loads(self.open(reference))
            if not isinstance(trace, kind):
                raise Malformed
        except Refused:
            if not self.drops:
                raise
            self.dropped += 1
            return NONE
        self.opened += 1
        return trace

    def _turn(self, message: Any) -> Any:
        return self._listed(message, "content", self._block) if isinstance(message, dict) else message

    def _block(self, block: Any) -> Any:
        name = {THINKING: "signature", REDACTED: "data"}.get(str(block.get("type")), "") if _is(block) else ""
        return self._trace(block[name], dict) if name and _is_reference(block.get(name)) else block

    def _item(self, item: Any) -> Any:
        is_one = _is(item) and item.get("type") == "reasoning" and _is_reference(item.get("encrypted_content"))
        return self._trace(item["encrypted_content"], dict) if is_one else item

    def _message(self, message: Any) -> Any:
        if not _is(message):
            return message
        made = {name: self._member(name, value) for name, value in message.items()}
        if all(made[name] is value for name, value in message.items()):
            return message
        return {name: value for name, value in made.items() if value is not NONE}

    def _member(self, name: str, value: Any) -> Any:
        if name == NESTED:
            return self._message(value)
        if name in TEXTS and isinstance(value, str) and (found := LINE.findall(value)):
            traces = [self._trace(reference, str) for reference in found]
            return "".join(t for t in traces if t is not NONE) or NONE
        if name in LISTS and isinstance(value, list):
            return self._blocks(value, LISTS[name][1])
        return value

    def _blocks(self, blocks: list[Any], opaque: str) -> Any:
        made: list[Any] = []
        for block in blocks:
            is_one = _is(block) and _is_reference(block.get(opaque))
            trace = self._trace(block[opaque], list) if is_one else [block]
            made += [] if trace is NONE else trace
        is_same = len(made) == len(blocks) and all(new is old for new, old in zip(made, blocks))
        return blocks if is_same else made or NONE


def _is(value: Any) -> bool:
    return isinstance(value, dict)


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(f"{PREFIX}.")

"""Dotted paths into nested records, whose keys may hold dots and whose values may be JSON as text."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

_DECODE = json.JSONDecoder(strict=False).decode


def dig(node: Any, path: str) -> Any:
    """The value at a path like ``metadata.user.id`` or ``choices.0.text``; None where there is none.

    A key that is the whole rest of the path wins over its parts, so ``gen_ai.request.model`` is found flat or nested.
    """
    if isinstance(node, dict):
        if path in node:
            return node[path]
        at = path.find(".")
        while at > 0:
            head = path[:at]
            if head in node and (found := dig(node[head], path[at + 1 :])) is not None:
                return found
            at = path.find(".", at + 1)
        return None
    if isinstance(node, list):
        head, _, rest = path.partition(".")
        if not head.isdigit() or int(head) >= len(node):
            return None
        return dig(node[int(head)], rest) if rest else node[int(head)]
    inner = unjson(node)
    return dig(inner, path) if isinstance(inner, dict | list) else None


def unjson(value: Any) -> Any:
    """A list or object that was written as JSON text, parsed; anything else as it is."""
    return _parsed(value) if isinstance(value, str) and value.lstrip()[:1] in ("{", "[") else value


# Several columns are read from one text of messages, one after the other: a few are enough.
@lru_cache(maxsize=8)
def _parsed(text: str) -> Any:
    try:
        return _DECODE(text)
    except (ValueError, RecursionError):
        return text

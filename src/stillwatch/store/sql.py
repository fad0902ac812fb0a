"""Reading a step's text: its parameters, and names as identifiers."""

from __future__ import annotations

import re

_QUOTED_OR_COMMENT = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_PARAMETER = re.compile(r"\$([A-Za-z_]\w*)")


def bare(sql: str) -> str:
    """The text without its comments and what stands in quotes."""
    return _QUOTED_OR_COMMENT.sub(" ", sql)


def parameters(sql: str) -> frozenset[str]:
    """Names bound as ``$name`` in the text."""
    return frozenset(_PARAMETER.findall(bare(sql)))


def quoted(name: str) -> str:
    """A table's name as an identifier."""
    return '"' + name.replace('"', '""') + '"'

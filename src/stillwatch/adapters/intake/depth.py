"""Lines of JSON nested deeper than a parser should follow: Arrow's recurses without a limit and takes the process with
it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

MAX_DEPTH = 128
STRETCH = 64  # below 256, so that a byte can count it


def deep_lines(text: bytes) -> npt.NDArray[np.int64]:
    """Numbers, from 0, of the lines nested deeper than ``MAX_DEPTH``."""
    data = np.frombuffer(text, np.uint8)
    # A line with few brackets cannot be deep; brackets inside text only make this first look over-careful.
    if _most_opened(data) <= MAX_DEPTH:
        return np.zeros(0, np.int64)
    return np.array(_deep(data, MAX_DEPTH), dtype=np.int64)


def cut_deep(text: bytes, mark: bytes, limit: int = MAX_DEPTH) -> bytes:
    """A JSON document with each value that is nested deeper than ``limit`` replaced by ``mark``, so that a parser may follow
    the rest. A mark that is JSON keeps the rest whole."""
    cuts = _deep_values(np.frombuffer(text, np.uint8), limit)
    if not cuts:
        return text
    kept, at = [], 0
    for start, end in cuts:
        kept += [text[at:start], mark]
        at = end
    return b"".join([*kept, text[at:]])


@njit(cache=True, nogil=True)
def _deep_values(data: Any, limit: int) -> Any:
    """Where lists and objects below ``limit`` others begin, and where they end."""
    found = [(0, 0) for _ in range(0)]
    depth, inside, escaped, start = 0, False, False, 0
    for at in range(len(data)):
        c = data[at]
        if inside:
            inside = escaped or c != 34
            escaped = not escaped and c == 92
        elif c == 34:
            inside = True
        elif c | 32 == 123:
            if depth == limit:
                start = at
            depth += 1
        elif c | 32 == 125:
            depth -= 1
            if depth == limit:
                found.append((start, at + 1))
    if depth > limit:
        found.append((start, len(data)))
    return found


@njit(cache=True, nogil=True)
def _most_opened(data: Any) -> Any:
    """At least the largest count of opening brackets on a line, wherever they stand; perhaps a stretch's worth more."""
    most, count = np.int64(0), np.int64(0)
    for start in range(0, len(data), STRETCH):
        opened, ended = np.uint8(0), np.uint8(0)
        for c in data[start : start + STRETCH]:
            opened += np.uint8(c | 32 == 123)
            ended |= np.uint8(c == 10)
        count = np.int64(opened) if ended else count + np.int64(opened)
        most = max(most, count)
    return most


@njit(cache=True, nogil=True)
def _deep(data: Any, limit: int) -> Any:
    found = [0 for _ in range(0)]
    line, depth, inside, escaped, deepest = 0, 0, False, False, 0
    for c in data:
        if c == 10:
            if deepest > limit:
                found.append(line)
            line, depth, inside, escaped, deepest = line + 1, 0, False, False, 0
        elif inside:
            inside = escaped or c != 34
            escaped = not escaped and c == 92
        elif c == 34:
            inside = True
        elif c | 32 == 123:
            depth += 1
            deepest = max(deepest, depth)
        elif c | 32 == 125:
            depth -= 1
    return found

"""Text that is safe to hold: valid UTF-8, no NUL bytes, content no longer than the limit.

What is wrong is replaced, never a reason to lose the row: U+FFFD in content; in ids and other short values the broken
bytes are spelt out (``\\xff``), so that two different values stay two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from stillwatch.privacy import spans

CONTENT = ("system", "prompt", "response")
NUL, BROKEN, LONG = 1, 2, 4
NOTES = {
    NUL: "NUL bytes in text, replaced",
    BROKEN: "invalid UTF-8 in text, replaced",
    LONG: "text over {:,} bytes, cut",
}

_ONES, _TOPS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)

Flags = npt.NDArray[np.uint8]


def mended(name: str, column: pa.Array, longest: int) -> tuple[pa.Array, Flags | None]:
    """The column, safe; and per row what was wrong (NUL | BROKEN | LONG), None where nothing was."""
    if column.null_count == len(column):
        return column, None
    data, starts, ends = spans(column)
    limit = longest if name in CONTENT else np.iinfo(np.int64).max
    if not _is_suspect(column, data, starts, ends, limit):
        return column, None
    flags = _flags(data, starts, ends, limit)
    rows = np.flatnonzero(flags)
    if not len(rows):
        return column, None
    fixed = [_mended(bytes(data[starts[r] : ends[r]]), name, limit) for r in rows]
    # A row is read on its bytes: a text function must not touch the others before they are whole.
    raw = pc.replace_with_mask(column.view(pa.binary()), flags != 0, pa.array(fixed, pa.binary()))
    return raw.view(pa.string()), flags


def whole_text(column: pa.Array) -> pa.Array:
    """The column with valid UTF-8 only; broken bytes spelt out."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return mended("", column, 0)[0]
    return column


def _is_suspect(column: pa.Array, data: Any, starts: Any, ends: Any, limit: int) -> bool:
    stretch = data[int(starts.min()) : int(ends.max())]
    whole = len(stretch) // 8 * 8
    has_nul, has_high = _marks(np.frombuffer(stretch[:whole], "<u8"), stretch[whole:])
    if has_nul or int((ends - starts).max()) > limit:
        return True
    if not has_high:
        return False
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return True
    return False


def _mended(raw: bytes, name: str, limit: int) -> bytes:
    if name in CONTENT:
        cut = raw[:limit]
        # Up to three bytes of a cut character go with it.
        text = cut.decode("utf-8", "replace") if len(raw) <= limit else cut.decode("utf-8", "replace").rstrip("\ufffd")
        return text.replace("\0", "\ufffd").encode()
    return raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00").encode()


@njit(cache=True, nogil=True)
def _marks(words: Any, rest: Any) -> Any:
    """Whether any byte is NUL, and whether any is not ASCII."""
    nul, high = np.uint64(0), np.uint64(0)
    for i in range(len(words)):
        # The classic test for a zero byte in a word; where it stays zero there is none.
        nul |= (words[i] - _ONES) & ~words[i]
        high |= words[i]
    for i in range(len(rest)):
        nul |= _TOPS if rest[i] == 0 else np.uint64(0)
        high |= np.uint64(rest[i])
    return nul & _TOPS != 0, high & _TOPS != 0


@njit(cache=True, nogil=True)
def _flags(data: Any, starts: Any, ends: Any, limit: Any) -> Any:
    out = np.zeros(len(starts), np.uint8)
    for i in range(len(starts)):
        if ends[i] - starts[i] > limit:
            out[i] |= LONG
        if _has_nul(data, starts[i], ends[i]):
            out[i] |= NUL
        if not _is_utf8(data, starts[i], ends[i]):
            out[i] |= BROKEN
    return out


@njit(cache=True, nogil=True)
def _has_nul(data: Any, start: Any, end: Any) -> Any:
    for i in range(start, end):  # noqa: SIM110 (a loop is what compiles well)
        if data[i] == 0:
            return True
    return False


@njit(cache=True, nogil=True)
def _is_utf8(data: Any, at: Any, end: Any) -> Any:
    """Well-formed by table 3-7 of the Unicode standard."""
    while at < end:
        lead = data[at]
        at += 1
        if lead < 0x80:
            continue
        if lead < 0xC2 or lead > 0xF4:
            return False
        more = 1 if lead < 0xE0 else 2 if lead < 0xF0 else 3
        if at + more > end:
            return False
        low, high = 0x80, 0xBF
        if lead == 0xE0:
            low = 0xA0
        elif lead == 0xED:
            high = 0x9F
        elif lead == 0xF0:
            low = 0x90
        elif lead == 0xF4:
            high = 0x8F
        if data[at] < low or data[at] > high:
            return False
        for i in range(1, more):
            if data[at + i] & 0xC0 != 0x80:
                return False
        at += more
    return True

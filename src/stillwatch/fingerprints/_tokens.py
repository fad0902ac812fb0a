"""Bytes of a text to normalised tokens.

Normalising folds case (ASCII, Latin, Greek, Cyrillic, full-width, mathematical letters), turns a run of digits into one
mark, drops zero-width characters and combining marks, and takes punctuation as space. A word that mixes Latin letters with
Cyrillic or Greek ones that look like Latin is read as Latin (Unicode TR 39, "mixed-script confusables"). Scripts without
spaces give overlapping pairs of characters as tokens. A ``<`` or ``\\`` right before a word stays with it, so ``<think>``
and ``\\boxed`` are tokens of their own. Invalid UTF-8 reads as space. At most ``HEAD_BYTES`` and ``TAIL_BYTES`` are read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

HEAD_BYTES = 65536
TAIL_BYTES = 16384
MAX_TOKENS = HEAD_BYTES + TAIL_BYTES + 2

SPACE, SKIP, LETTER, DIGIT, PAIRED, SIGN, PREFIX = range(7)
"""Classes of characters: separator, ignored, letter, digit, script without spaces, arithmetic sign, ``<`` or ``\\``."""

FENCE, CODE, LATEX, DIGITS, SIGNS, TAGS, NUMBERED, BYTES, RUN = range(9)
"""What is counted of a text: code fences and punctuation, LaTeX commands, digits, signs, tags, ``[1]``, bytes read, the
longest run of bytes that base64 or hexadecimal digits could be."""
COUNTS = 9

_PRIME = np.uint64(0x9E3779B97F4A7C15)
_MIX_A, _MIX_B = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)


def _ascii_classes() -> npt.NDArray[np.uint8]:
    table = np.zeros(128, np.uint8)
    for c in range(128):
        if chr(c).isalpha():
            table[c] = LETTER
        elif chr(c).isdigit():
            table[c] = DIGIT
    for sign in "+-*/=>^%&|~$":
        table[ord(sign)] = SIGN
    table[[ord("<"), ord("\\")]] = PREFIX
    table[ord("'")] = SKIP
    return table


_ASCII = _ascii_classes()

_GREEK, _LOOKALIKES_END = 0x370, 0x530


def _lookalikes() -> npt.NDArray[np.uint8]:
    """Latin letter that a lower-case Greek or Cyrillic letter (0x370 to 0x52F) can be taken for, 0 for none."""
    table = np.zeros(_LOOKALIKES_END - _GREEK, np.uint8)
    pairs = zip("αβγεζηικνορτυχωаверсухкмнотіјѕһԁԛԝӏѵ", "abyezniknoptuxwabepcyxkmhotijshdqwlv", strict=True)
    for other, latin in pairs:
        table[ord(other) - _GREEK] = ord(latin)
    return table


_LOOKALIKE = _lookalikes()


@njit(cache=True, nogil=True)
def _mix(h: Any) -> Any:
    h ^= h >> np.uint64(33)
    h *= _MIX_A
    h ^= h >> np.uint64(33)
    h *= _MIX_B
    return h ^ (h >> np.uint64(33))


@njit(cache=True, nogil=True)
def _decode(data: Any, i: int, end: int) -> Any:
    """The code point at ``i`` and its length in bytes; (0, 1) for a broken sequence."""
    b = np.int64(data[i])
    size = 2 if 0xC2 <= b < 0xE0 else 3 if 0xE0 <= b < 0xF0 else 4 if 0xF0 <= b < 0xF5 else 0
    if size == 0 or i + size > end:
        return 0, 1
    cp = b & (0x7F >> size)
    for j in range(1, size):
        c = np.int64(data[i + j])
        if c & 0xC0 != 0x80:
            return 0, 1
        cp = (cp << 6) | (c & 0x3F)
    return cp, size


@njit(cache=True, nogil=True)
def _fold(cp: int) -> int:  # noqa: PLR0911
    """Lower case of a code point above 127, where that is an offset; full-width, circled and mathematical letters to ASCII."""
    if cp < 0x100:
        return cp + 32 if 0xC0 <= cp <= 0xDE and cp != 0xD7 else cp
    if cp < 0x180:
        odd = 0x139 <= cp <= 0x148 or 0x179 <= cp <= 0x17E
        return cp + 1 if (cp & 1) == odd and cp != 0x178 else cp
    if 0x391 <= cp <= 0x3A9:
        return cp + 32
    if 0x410 <= cp <= 0x42F:
        return cp + 32
    if 0x400 <= cp <= 0x40F:
        return cp + 80
    if cp < 0xFF10:
        return cp - 0x24B6 + 97 if 0x24B6 <= cp <= 0x24CF else cp - 0x24D0 + 97 if 0x24D0 <= cp <= 0x24E9 else cp
    if 0xFF21 <= cp <= 0xFF3A:
        return cp - 0xFF21 + 97
    if cp <= 0xFF5A:
        return cp - 0xFEE0
    if 0x1D400 <= cp < 0x1D6A4:
        return (cp - 0x1D400) % 26 + 97
    return (cp - 0x1D7CE) % 10 + 48 if 0x1D7CE <= cp <= 0x1D7FF else cp


@njit(cache=True, nogil=True)
def _class(cp: int) -> int:  # noqa: PLR0911
    """Character class of a folded code point above 127."""
    if cp < 0x300:
        return LETTER if cp >= 0xC0 and cp not in (0xD7, 0xF7) else SKIP if cp == 0xAD else SPACE
    if cp < 0x370:
        return SKIP
    if cp < 0x2000:
        if 0x660 <= cp <= 0x669 or 0x6F0 <= cp <= 0x6F9:
            return DIGIT
        if cp in (0x60C, 0x61B, 0x61F, 0x6D4, 0x964, 0x965, 0x37E, 0x387):
            return SPACE
        return PAIRED if 0xE00 <= cp < 0xF00 or 0x1000 <= cp < 0x10A0 or 0x1780 <= cp < 0x1800 else LETTER
    if cp < 0x3040:
        if 0x200B <= cp <= 0x200F or 0x202A <= cp <= 0x202E or 0x2060 <= cp <= 0x206F or cp == 0x2019:
            return SKIP
        return PAIRED if cp == 0x3005 else LETTER if 0x2C00 <= cp < 0x2E00 else SPACE
    if cp < 0xE000:
        return SPACE if cp == 0x30FB else PAIRED
    if cp < 0x10000:
        if cp == 0xFEFF or 0xFE00 <= cp <= 0xFE0F:
            return SKIP
        if 0xF900 <= cp < 0xFB00 or 0xFF66 <= cp <= 0xFF9F:
            return PAIRED
        return LETTER if 0xFB00 <= cp < 0xFE00 or 0xFE70 <= cp < 0xFEFF else SPACE
    if cp >= 0xE0000:
        return SKIP
    return PAIRED if cp >= 0x20000 else LETTER if cp < 0x1F000 else SPACE


@njit(cache=True, nogil=True)
def _latin(data: Any, start: int, end: int) -> Any:
    """Hash of the word in ``data[start:end]`` with letters that look like Latin ones read as those."""
    h, i, digit = np.uint64(0), start, False
    while i < end:
        c: Any
        c, size = np.int64(data[i]), 1
        if c >= 128:
            c, size = _decode(data, i, end)
            c = _fold(c)
            if _GREEK <= c < _LOOKALIKES_END and _LOOKALIKE[c - _GREEK]:
                c = np.int64(_LOOKALIKE[c - _GREEK])
        i += size
        k = np.int64(_ASCII[c]) if c < 128 else _class(c)
        if k == LETTER:
            h = (h ^ np.uint64(c | 32 if c < 128 else c)) * _PRIME
        elif k == DIGIT and not digit:
            h = (h ^ np.uint64(48)) * _PRIME
        digit = k == DIGIT or (digit and k == SKIP)
    return h


@njit(cache=True, nogil=True)
def _tokens(  # noqa: PLR0912, PLR0915 - one state machine: split, it would carry its state in an array
    data: Any, start: int, end: int, tokens: Any, exact: Any, at: Any, counts: Any
) -> None:
    """Appends the tokens of ``data[start:end]`` to ``tokens`` and, digits and signs kept, to ``exact``.

    ``at`` holds both lengths and is moved on. The lowest bit of a token says whether it comes from a paired script.
    """
    n, m = at[0], at[1]
    h, x = np.uint64(0), np.uint64(0)
    length, lone, ticks, run, longest, opened, scripts = 0, False, 0, 0, 0, 0, 0
    c: Any
    k: Any
    last: Any = 0
    i = start
    while i <= end:
        size = 1
        if i == end:
            c, k = 32, SPACE
        elif data[i] < 128:
            c = np.int64(data[i])
            k = np.int64(_ASCII[c])
            if k == LETTER:
                c |= 32
            elif c >= 40 and c in (123, 125, 59, 40, 41):
                counts[CODE] += 1
        else:
            c, size = _decode(data, i, end)
            c = _fold(c)
            k = SPACE if c == 0 else np.int64(_ASCII[c]) if c < 128 else _class(c)
        i += size
        if c == 96:
            ticks += 1
            counts[FENCE] += ticks == 3
        else:
            ticks = 0
        if k == SKIP:
            continue
        if k in (LETTER, DIGIT):
            if lone:
                tokens[n], exact[m] = _mix(np.uint64(last) * _PRIME) | np.uint64(1), np.uint64(last)
                n, m, lone = n + 1, m + 1, False
            if length == 0:
                opened, scripts = i - size, 0
            if k == LETTER:
                scripts |= 1 if c < 128 else 2 if _GREEK <= c < _LOOKALIKES_END else 0
            if not (k == DIGIT and last == 48 and length):
                h = (h ^ np.uint64(48 if k == DIGIT else c)) * _PRIME
            x = (x ^ np.uint64(c)) * _PRIME
            counts[DIGITS] += k == DIGIT
            last = 48 if k == DIGIT else c
            length += 1
            # The rest of a plain word, without asking of each letter all that is asked above.
            while i < end and k == LETTER and data[i] < 128 and _ASCII[data[i]] == LETTER:
                last = np.int64(data[i]) | 32
                h, x = (h ^ np.uint64(last)) * _PRIME, (x ^ np.uint64(last)) * _PRIME
                scripts |= 1
                length, i = length + 1, i + 1
            continue
        if c in (43, 45, 47, 61, 95):
            run += length + 1
        elif run or length > longest:
            longest, run = max(longest, run + length), 0
        if length:
            if scripts == 3:
                h = _latin(data, opened, i - size)
            tokens[n], exact[m] = _mix(h) & ~np.uint64(1), x
            counts[NUMBERED] += c == 93 and last == 48
            n, m, length = n + 1, m + 1, 0
            h, x = np.uint64(0), np.uint64(0)
            last = 0
        if k == PAIRED:
            if last >= 128:
                pair = (np.uint64(last) << np.uint64(32)) | np.uint64(c)
                tokens[n], exact[m] = _mix(pair * _PRIME) | np.uint64(1), pair
                n, m, lone = n + 1, m + 1, False
            else:
                lone = True
            last = c
            continue
        if lone:
            tokens[n], exact[m] = _mix(np.uint64(last) * _PRIME) | np.uint64(1), np.uint64(last)
            n, m, lone = n + 1, m + 1, False
        last = 0
        if k == PREFIX:
            after = i + 1 if c == 60 and i < end and data[i] == 47 else i
            if after < end and data[after] < 128 and _ASCII[data[after]] == LETTER:
                h = np.uint64(c) * _PRIME
                i = after
                counts[LATEX if c == 92 else TAGS] += 1
        elif k == SIGN:
            exact[m] = np.uint64(c)
            m += 1
            counts[SIGNS] += 1
    counts[RUN] = max(counts[RUN], longest)
    at[0], at[1] = n, m


@njit(cache=True, nogil=True)
def _read(data: Any, start: int, end: int, tokens: Any, exact: Any, at: Any, counts: Any) -> None:
    """Tokens of a text, of a very long one its head and tail."""
    at[0], at[1] = 0, 0
    if end - start <= HEAD_BYTES + TAIL_BYTES:
        counts[BYTES] = end - start
        _tokens(data, start, end, tokens, exact, at, counts)
        return
    counts[BYTES] = HEAD_BYTES + TAIL_BYTES
    _tokens(data, start, start + HEAD_BYTES, tokens, exact, at, counts)
    _tokens(data, end - TAIL_BYTES, end, tokens, exact, at, counts)


@njit(cache=True, nogil=True)
def _count_all(data: Any, starts: Any, ends: Any, out: Any) -> None:
    tokens, exact, at = np.empty(MAX_TOKENS, np.uint64), np.empty(MAX_TOKENS, np.uint64), np.zeros(2, np.int64)
    for i in range(len(starts)):
        if ends[i] > starts[i]:
            _read(data, starts[i], ends[i], tokens, exact, at, out[i])


def count_all(texts: Any) -> npt.NDArray[np.int32]:
    """What is counted of each text (``FENCE`` and so on), for training."""
    out = np.zeros((len(texts[1]), COUNTS), np.int32)
    _count_all(*texts, out)
    return out

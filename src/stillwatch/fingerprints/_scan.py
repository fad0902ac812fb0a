"""One pass over the bytes of texts: normalised tokens, shingle sketches, whole-text hashes and cue scores.

Normalising folds case (ASCII, Latin, Greek, Cyrillic, full-width), turns a run of digits into one mark, drops
zero-width characters and takes punctuation as space. Scripts without spaces give overlapping pairs of characters as
tokens. A ``<`` or ``\\`` right before a word stays with it, so ``<think>`` and ``\\boxed`` are tokens of their own.
Invalid UTF-8 reads as space. At most ``HEAD_BYTES`` and ``TAIL_BYTES`` of a text are read.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from stillwatch.privacy import sip_end, sip_round, sip_start

HEAD_BYTES = 65536
TAIL_BYTES = 16384
MAX_TOKENS = HEAD_BYTES + TAIL_BYTES + 2
MAX_WORDS = 4
"""Longest cue, in tokens."""

SPACE, SKIP, LETTER, DIGIT, PAIRED, SIGN, PREFIX = range(7)
"""Classes of characters: separator, ignored, letter, digit, script without spaces, arithmetic sign, ``<`` or ``\\``."""

FENCE, CODE, LATEX, DIGITS, SIGNS, TAGS, NUMBERED, BYTES = range(8)
"""What is counted of a text: code fences and punctuation, LaTeX commands, digits, signs, tags, ``[1]``, bytes read."""

_PRIME = np.uint64(0x9E3779B97F4A7C15)
_MIX_A, _MIX_B = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)


class Cues(NamedTuple):
    """A compiled cue table: open addressing from n-gram hash to cue; each cue's weights by class as compressed rows."""

    slots: npt.NDArray[np.uint64]
    cue: npt.NDArray[np.int32]
    bloom: npt.NDArray[np.uint64]
    first: npt.NDArray[np.int32]
    target: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float32]
    meant: npt.NDArray[np.int32]
    concept: npt.NDArray[np.int32]
    told: npt.NDArray[np.int32]
    rule: npt.NDArray[np.int32]
    rules: npt.NDArray[np.int32]
    rule_weight: npt.NDArray[np.float32]


class Reading(NamedTuple):
    """What one pass gives, a row per text: sketch of shingles (0 = empty), whole hash, cue scores, character counts."""

    sketch: npt.NDArray[np.uint32]
    whole: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int32]


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
    """Lower case of a code point above 127, for the scripts where that is an offset; full-width forms to ASCII."""
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
    if 0xFF21 <= cp <= 0xFF3A:
        return cp - 0xFF21 + 97
    return cp - 0xFEE0 if 0xFF10 <= cp <= 0xFF5A else cp


@njit(cache=True, nogil=True)
def _class(cp: int) -> int:  # noqa: PLR0911
    """Character class of a folded code point above 127."""
    if cp < 0x300:
        return LETTER if cp >= 0xC0 and cp not in (0xD7, 0xF7) else SKIP if cp == 0xAD else SPACE
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
def _tokens(  # noqa: PLR0912, PLR0915 - one state machine: split, it would carry its state in an array
    data: Any, start: int, end: int, tokens: Any, exact: Any, at: Any, counts: Any
) -> None:
    """Appends the tokens of ``data[start:end]`` to ``tokens`` and, digits and signs kept, to ``exact``.

    ``at`` holds both lengths and is moved on. The lowest bit of a token says whether it comes from a paired script.
    """
    n, m = at[0], at[1]
    h, x = np.uint64(0), np.uint64(0)
    length, last, lone, ticks = 0, 0, False, 0
    c: Any
    k: Any
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
            if not (k == DIGIT and last == 48 and length):
                h = (h ^ np.uint64(48 if k == DIGIT else c)) * _PRIME
            x = (x ^ np.uint64(c)) * _PRIME
            counts[DIGITS] += k == DIGIT
            last = 48 if k == DIGIT else c
            length += 1
            continue
        if length:
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
def _whole(exact: Any, count: int, size: int, keys: Any, v: Any) -> int:
    """SipHash-1-3 over the tokens of a text and, where it was cut, its length; 0 for a text without tokens."""
    if count == 0:
        return 0
    sip_start(v, keys)
    for i in range(count + 1):
        word = exact[i] if i < count else np.uint64(size if size > HEAD_BYTES + TAIL_BYTES else 0)
        v[3] ^= word
        sip_round(v)
        v[0] ^= word
    return sip_end(v, 3)


@njit(cache=True, nogil=True)
def _middle(shingle: Any, kept: Any, count: int, width: int) -> int:
    """Takes a shingle into the ``width`` smallest of the middle, kept in order of place; gives how many are kept."""
    top = 0
    for j in range(count):
        if kept[j] == shingle:
            return count
        if kept[j] > kept[top]:
            top = j
    if count == width:
        if shingle > kept[top]:
            return count
        for j in range(top, count - 1):
            kept[j] = kept[j + 1]
        count -= 1
    kept[count] = shingle
    return count + 1


@njit(cache=True, nogil=True)
def _sketch(tokens: Any, count: int, keys: Any, ring: Any, kept: Any, out: Any) -> None:
    """Fills one row of a sketch: first and last third of the width as they stand, the smallest of what lies between.

    Shingles that are mostly numbers say nothing of a wording. Every second shingle of a paired script is passed over,
    by its hash: those carry about half a word each.
    """
    edge, middle = len(ring), len(kept)
    number = _mix(np.uint64(48) * _PRIME) & ~np.uint64(1)
    n, held, mids = 0, 0, 0
    for i in range(2, count):
        a, b, c = tokens[i - 2], tokens[i - 1], tokens[i]
        if (a == number) + (b == number) + (c == number) >= 2:
            continue
        h = _mix(_mix(a ^ keys[0]) + b * _PRIME + _mix(c ^ keys[1]))
        if (a & np.uint64(1)) + (b & np.uint64(1)) + (c & np.uint64(1)) >= 2 and h & np.uint64(1):
            continue
        s = np.uint32(h >> np.uint64(32))
        if s == 0:
            s = np.uint32(1)
        if n < edge:
            out[n] = s
            n += 1
            continue
        at = held % edge
        if held >= edge:
            mids = _middle(ring[at], kept, mids, middle)
        ring[at] = s
        held += 1
    for j in range(mids):
        out[n + j] = kept[j]
    n += mids
    for j in range(max(0, held - edge), held):
        out[n] = ring[j % edge]
        n += 1


@njit(cache=True, nogil=True)
def _find(cues: Any, gram: Any) -> int:
    """The cue with this n-gram hash, or -1."""
    if not (cues.bloom[gram >> np.uint64(54)] >> ((gram >> np.uint64(48)) & np.uint64(63))) & np.uint64(1):
        return -1
    mask = np.uint64(len(cues.slots) - 1)
    at = gram & mask
    while cues.slots[at] != 0:
        if cues.slots[at] == gram:
            return cues.cue[at]
        at = (at + np.uint64(1)) & mask
    return -1


@njit(cache=True, nogil=True)
def _score(tokens: Any, count: int, cues: Any, seen: Any, fired: Any, last: Any, met: Any, row: int, out: Any) -> None:
    """Adds the weights of the cues found and of the rules whose concepts stand close together, each once a text.

    ``last`` is where each concept stood last, before token i: one word that means two things is not two words.
    """
    last[:] = -MAX_TOKENS
    for i in range(count):
        gram = np.uint64(0)
        hits = 0
        for j in range(min(MAX_WORDS, i + 1)):
            # Built backwards from token i, so that all n-grams ending here share their work.
            gram = _mix(gram + tokens[i - j])
            cue = _find(cues, gram)
            if cue < 0:
                continue
            if seen[cue] != row:
                seen[cue] = row
                for w in range(cues.first[cue], cues.first[cue + 1]):
                    out[cues.target[w]] += cues.weight[w]
            for c in range(cues.meant[cue], cues.meant[cue + 1]):
                _meet(cues, cues.concept[c], i, last, fired, row, out)
                met[hits] = cues.concept[c]
                hits += 1
        for k in range(hits):
            last[met[k]] = i


@njit(cache=True, nogil=True)
def _meet(cues: Any, concept: int, i: int, last: Any, fired: Any, row: int, out: Any) -> None:
    """Fires the rules that the concept at token ``i`` completes."""
    for r in range(cues.told[concept], cues.told[concept + 1]):
        number = cues.rule[r]
        if fired[number] == row:
            continue
        rule = cues.rules[number]
        near, taken = True, np.int64(-1)
        for k in range(3):
            if rule[k] < 0 or rule[k] == concept:
                continue
            place = last[rule[k]]
            if i - place > rule[3] or place == taken:
                near = False
            taken = place
        if near:
            fired[number] = row
            out[rule[4]] += cues.rule_weight[number]


@njit(cache=True, nogil=True)
def _scan(data: Any, starts: Any, ends: Any, keys: Any, cues: Any, out: Any) -> None:
    tokens = np.empty(MAX_TOKENS, np.uint64)
    exact = np.empty(MAX_TOKENS, np.uint64)
    at = np.zeros(2, np.int64)
    v = np.empty(4, np.uint64)
    edge = out.sketch.shape[1] // 3
    ring, kept = np.empty(edge, np.uint32), np.empty(out.sketch.shape[1] - 2 * edge, np.uint32)
    seen = np.full(len(cues.first), -1, np.int64)
    fired = np.full(len(cues.rules), -1, np.int64)
    last = np.empty(len(cues.told), np.int64)
    met = np.empty(MAX_WORDS * len(cues.told), np.int64)
    for i in range(len(starts)):
        if ends[i] <= starts[i]:
            continue
        _read(data, starts[i], ends[i], tokens, exact, at, out.counts[i])
        out.whole[i] = _whole(exact, at[1], ends[i] - starts[i], keys[:2], v)
        _sketch(tokens, at[0], keys[2:], ring, kept, out.sketch[i])
        _score(tokens, at[0], cues, seen, fired, last, met, i, out.scores[i])


@njit(cache=True, nogil=True)
def _grams(data: Any, starts: Any, ends: Any) -> Any:
    """N-gram hash of each whole text, 0 where it has no token or more than ``MAX_WORDS``."""
    tokens, exact = np.empty(MAX_TOKENS, np.uint64), np.empty(MAX_TOKENS, np.uint64)
    at, counts = np.zeros(2, np.int64), np.zeros(8, np.int32)
    out = np.zeros(len(starts), np.uint64)
    for i in range(len(starts)):
        _read(data, starts[i], ends[i], tokens, exact, at, counts)
        if 0 < at[0] <= MAX_WORDS:
            gram = np.uint64(0)
            for j in range(at[0]):
                gram = _mix(gram + tokens[at[0] - 1 - j])
            out[i] = gram
    return out


Spans = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]


def scan(texts: Spans, keys: npt.NDArray[np.uint64], cues: Cues, classes: int, width: int) -> Reading:
    """Reads texts (``privacy.spans``) under four words of key into sketches, hashes and ``classes`` scores each."""
    rows = len(texts[1])
    out = Reading(
        np.zeros((rows, width), np.uint32), np.zeros(rows, np.int64),
        np.zeros((rows, classes), np.float32), np.zeros((rows, 8), np.int32),
    )  # fmt: skip
    _scan(*texts, keys, cues, out)
    return out


def grams(texts: Spans) -> npt.NDArray[np.uint64]:
    """N-gram hash of each cue text; 0 where it has no token or more than ``MAX_WORDS``."""
    result: npt.NDArray[np.uint64] = _grams(*texts)
    return result

"""One pass over the bytes of texts: tokens (``_tokens``), sketches, whole-text hashes, sums over known tokens (``_lexicon``)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from stillwatch.fingerprints._lexicon import EDGE, WIDTH, Lexicon, Sums, add_up, no_sums
from stillwatch.fingerprints._tokens import COUNTS, HEAD_BYTES, MAX_TOKENS, TAIL_BYTES, _mix, _read
from stillwatch.privacy import sip_end, sip_round, sip_start

_PRIME = np.uint64(0x9E3779B97F4A7C15)


class Reading(NamedTuple):
    """What one pass gives, a row per text: sketch of shingles (0 = empty), whole hash, sums, character counts."""

    sketch: npt.NDArray[np.uint32]
    whole: npt.NDArray[np.int64]
    sums: Sums
    counts: npt.NDArray[np.int32]


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
    worst = np.uint32(0xFFFFFFFF)
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
        if held >= edge and ring[at] <= worst:
            mids = _middle(ring[at], kept, mids, middle)
            if mids == middle:
                worst = kept[:mids].max()
        ring[at] = s
        held += 1
    for j in range(mids):
        out[n + j] = kept[j]
    n += mids
    for j in range(max(0, held - edge), held):
        out[n] = ring[j % edge]
        n += 1


@njit(cache=True, nogil=True)
def _scan(data: Any, starts: Any, ends: Any, keys: Any, lexicon: Any, out: Any) -> None:
    """Fills the rows of ``out``, a ``Reading``."""
    tokens = np.empty(MAX_TOKENS, np.uint64)
    exact = np.empty(MAX_TOKENS, np.uint64)
    at = np.zeros(2, np.int64)
    v = np.empty(4, np.uint64)
    width = out.sketch.shape[1]
    edge = width // 3
    ring, kept = np.empty(edge, np.uint32), np.empty(width - 2 * edge, np.uint32)
    blocks = np.zeros((EDGE + 1, WIDTH), np.float32)
    for i in range(len(starts)):
        if ends[i] <= starts[i]:
            continue
        _read(data, starts[i], ends[i], tokens, exact, at, out.counts[i])
        out.whole[i] = _whole(exact, at[1], ends[i] - starts[i], keys[:2], v)
        _sketch(tokens, at[0], keys[2:], ring, kept, out.sketch[i])
        add_up(tokens, at[0], lexicon, blocks, out.sums, i)


@njit(cache=True, nogil=True)
def _listed(data: Any, starts: Any, ends: Any, out: Any, bounds: Any) -> int:
    tokens, exact = np.empty(MAX_TOKENS, np.uint64), np.empty(MAX_TOKENS, np.uint64)
    at, counts = np.zeros(2, np.int64), np.zeros(COUNTS, np.int32)
    n = 0
    for i in range(len(starts)):
        if ends[i] > starts[i]:
            _read(data, starts[i], ends[i], tokens, exact, at, counts)
            for j in range(at[0]):
                out[n + j] = tokens[j]
            n += at[0]
        bounds[i + 1] = n
    return n


Spans = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]


def scan(texts: Spans, keys: npt.NDArray[np.uint64], lexicon: Lexicon, width: int) -> Reading:
    """Reads texts (``privacy.spans``) under four words of key into sketches of ``width``, hashes and sums."""
    rows = len(texts[1])
    out = Reading(
        np.zeros((rows, width), np.uint32), np.zeros(rows, np.int64), no_sums(rows, len(lexicon.floor)),
        np.zeros((rows, COUNTS), np.int32),
    )  # fmt: skip
    _scan(*texts, keys, lexicon, out)
    return out


def listed(texts: Spans) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """The tokens of texts one behind the other, and where those of each text start; for training."""
    _, starts, ends = texts
    out, bounds = np.empty(int((ends - starts).sum()) + 8, np.uint64), np.zeros(len(starts) + 1, np.int64)
    return out[: _listed(*texts, out, bounds)], bounds

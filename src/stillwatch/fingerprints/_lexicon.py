"""The vocabulary of the reader: a vector for each known token, and what a run of tokens sums to.

``reader.npz`` holds it, trained by ``training/`` (``make models``; docs/model-card.md). Loaded at first use, 10 MB on disk.
Sums are taken over blocks of ``BLOCK`` tokens, unknown ones counting as nothing; two blocks make a window.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import as_file, files
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

WIDTH = 64
"""Length of a vector."""
BLOCK = 16
EDGE = 3
"""Blocks of the head and of the tail of a text."""
UNIT = 8.0
"""Length a sum is brought to before it is read."""

Floats = npt.NDArray[np.float32]


class Lexicon(NamedTuple):
    """Open addressing from token to its row of ``vectors`` (whole numbers, to be multiplied by the row's ``scale``), and
    the linear maps whose greatest value over all windows of a text is kept (``peak``: peaks x WIDTH, ``floor``: peaks)."""

    slots: npt.NDArray[np.uint64]
    place: npt.NDArray[np.int32]
    vectors: npt.NDArray[np.int8]
    scale: Floats
    peak: Floats
    floor: Floats


class Sums(NamedTuple):
    """Row by row: sums over the whole text, its first and its last blocks (not normalised), peaks, known tokens, tokens."""

    whole: Floats
    head: Floats
    tail: Floats
    peaks: Floats
    known: npt.NDArray[np.int32]


def no_sums(rows: int, peaks: int) -> Sums:
    """Room for the sums of so many texts."""
    whole, head, tail = np.zeros((3, rows, WIDTH), np.float32)
    return Sums(whole, head, tail, np.zeros((rows, peaks), np.float32), np.zeros((rows, 2), np.int32))


@cache
def weights() -> dict[str, npt.NDArray[Any]]:
    """The arrays of ``reader.npz``."""
    with as_file(files(__package__).joinpath("reader.npz")) as path, np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


@cache
def lexicon() -> Lexicon:
    """The package's lexicon."""
    return lexicon_of(weights())


def lexicon_of(w: Mapping[str, npt.NDArray[Any]]) -> Lexicon:
    """The lexicon in these weights."""
    return build(w["tokens"], w["vectors"], w["scale"].astype(np.float32), w["peak"], w["floor"])


def build(
    tokens: npt.NDArray[np.uint64], vectors: npt.NDArray[np.int8], scale: Floats, peak: Floats, floor: Floats
) -> Lexicon:
    """A lexicon over these tokens (distinct, none of them 0)."""
    size = 1 << (2 * len(tokens)).bit_length()
    slots, place = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    _place(tokens, slots, place)
    return Lexicon(slots, place, vectors, scale, np.ascontiguousarray(peak, np.float32), floor.astype(np.float32))


@njit(cache=True, nogil=True)
def _place(tokens: Any, slots: Any, place: Any) -> None:
    mask = np.uint64(len(slots) - 1)
    for i in range(len(tokens)):
        at = tokens[i] >> np.uint64(20) & mask
        while slots[at] != 0:
            at = (at + np.uint64(1)) & mask
        slots[at], place[at] = tokens[i], i


@njit(cache=True, nogil=True)
def find(token: Any, slots: Any, place: Any) -> int:
    """Row of a token, or -1."""
    mask = np.uint64(len(slots) - 1)
    at = token >> np.uint64(20) & mask
    while slots[at] != 0:
        if slots[at] == token:
            return place[at]
        at = (at + np.uint64(1)) & mask
    return -1


@njit(cache=True, nogil=True, fastmath=True)
def _accumulate(block: Any, vector: Any, scale: Any) -> None:
    for d in range(WIDTH):
        block[d] += scale * np.float32(vector[d])


@njit(cache=True, nogil=True, fastmath=True)
def _raise_peaks(window: Any, peak: Any, floor: Any, out: Any) -> None:
    """Raises ``out`` to what the window gives, where that is more."""
    norm = np.float32(0)
    for d in range(WIDTH):
        norm += window[d] * window[d]
    if norm == 0:
        return
    unit = np.float32(UNIT) / np.sqrt(norm)
    for k in range(len(floor)):
        line, got = peak[k], np.float32(0)
        for d in range(WIDTH):
            got += line[d] * window[d]
        out[k] = max(out[k], got * unit + floor[k])


@njit(cache=True, nogil=True, fastmath=True)
def add_up(tokens: Any, count: int, lexicon: Any, ring: Any, sums: Any, row: int) -> None:
    """Fills one row of ``sums`` from the tokens of a text. ``ring`` has room for EDGE blocks and a window."""
    slots, place, vectors, scale = lexicon.slots, lexicon.place, lexicon.vectors, lexicon.scale
    whole, head, tail, peaks = sums.whole[row], sums.head[row], sums.tail[row], sums.peaks[row]
    window, known, blocks = ring[EDGE], 0, (count + BLOCK - 1) // BLOCK
    for b in range(blocks):
        block = ring[b % EDGE]
        for d in range(WIDTH):
            block[d] = 0
        for i in range(b * BLOCK, min(count, (b + 1) * BLOCK)):
            at = find(tokens[i], slots, place)
            if at >= 0:
                known += 1
                _accumulate(block, vectors[at], scale[at])
        for d in range(WIDTH):
            whole[d] += block[d]
        if b < EDGE:
            for d in range(WIDTH):
                head[d] += block[d]
        if b > 0:
            before = ring[(b - 1) % EDGE]
            for d in range(WIDTH):
                window[d] = before[d] + block[d]
            _raise_peaks(window, lexicon.peak, lexicon.floor, peaks)
    if blocks == 1:
        _raise_peaks(ring[0], lexicon.peak, lexicon.floor, peaks)
    for b in range(min(blocks, EDGE)):
        _accumulate(tail, ring[b], np.float32(1))
    sums.known[row, 0], sums.known[row, 1] = known, count

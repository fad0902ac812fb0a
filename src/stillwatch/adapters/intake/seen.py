"""Which exchange_ids were read before: an open-addressing table of 64-bit keyed hashes with a 16-bit mark of the
content.

Ten bytes a slot, at most 70 % full, doubling: 10 million ids take 168 MB, 252 MB while growing. Keys are secret per
run, so nobody can choose ids that collide; two different ids collide with a chance of about n²/2⁶⁵, 3 in a million at
10 million. A re-sent row of other content is taken for the same one with a chance of 1 in 65,536, which only blurs the
reason counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from stillwatch.privacy import Privacy, spans

NEW, SAME, DIFFERENT = 0, 1, 2
FILL = 0.7
NOTHING = -7777  # what a null number counts as in a content hash

_K1 = np.uint64(0x9E3779B97F4A7C15)
_K2 = np.uint64(0xD6E8FEB86659FD93)
_S32 = np.uint64(32)

Words = npt.NDArray[np.uint64]


class Seen:
    """Ids met so far. ``mark`` says of each row whether its id is new, or met before with the same or other content."""

    def __init__(self, slots: int = 1 << 16) -> None:
        self._privacy = Privacy.random()
        self._ids = np.zeros(slots, np.uint64)
        self._contents = np.zeros(slots, np.uint16)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        return self._ids.nbytes + self._contents.nbytes

    def mark(self, ids: pa.Array, contents: Words) -> npt.NDArray[np.uint8]:
        """NEW, SAME or DIFFERENT for each id, in order, also within the batch; ``contents`` are row hashes."""
        self._reserve(self._count + len(ids))
        keys = self._privacy.hash_strings(ids, "exchange_id").view(np.uint64)
        marks, added = _mark(self._ids, self._contents, keys, (contents >> np.uint64(48)).astype(np.uint16))
        self._count += int(added)
        return marks

    def _reserve(self, count: int) -> None:
        slots = len(self._ids)
        while count > slots * FILL:
            slots *= 2
        if slots == len(self._ids):
            return
        ids, contents = np.zeros(slots, np.uint64), np.zeros(slots, np.uint16)
        _move(self._ids, self._contents, ids, contents)
        self._ids, self._contents = ids, contents

    def content_hashes(self, batch: pa.RecordBatch) -> Words:
        """A 64-bit hash of each row's strings and numbers (lists apart). Keyed; equal for equal rows."""
        total = np.full(len(batch), self._privacy.seed("content"), np.uint64)
        for number, column in enumerate(batch.columns):
            if pa.types.is_string(column.type):
                if column.null_count < len(column):
                    data, starts, ends = spans(column)
                    _fold_text(total, data, overlapping_words(data), starts, ends, np.uint64(number))
            elif not pa.types.is_nested(column.type):
                _fold_words(total, _as_words(column))
        return total


def _as_words(column: pa.Array) -> Words:
    """Any plain column as 64-bit words, nulls as one odd value."""
    if column.null_count == len(column):
        return np.full(len(column), NOTHING, np.int64).view(np.uint64)
    if pa.types.is_timestamp(column.type):
        column = column.view(pa.int64())
    values = column.cast(pa.float64() if pa.types.is_floating(column.type) else pa.int64()).fill_null(NOTHING)
    return np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).view(np.uint64)


def overlapping_words(data: npt.NDArray[np.uint8]) -> Words:
    """The little-endian 64-bit word that begins at each byte, as a view: what a compiled loop loads at once."""
    return np.ndarray((max(0, len(data) - 7),), "<u8", data, strides=(1,))


@njit(cache=True, nogil=True, inline="always")
def _mixed(h: Any, word: Any) -> Any:
    h = (h ^ word) * _K1
    return h ^ (h >> _S32)


@njit(cache=True, nogil=True)
def _fold_words(total: Any, words: Any) -> None:
    for i in range(len(total)):
        total[i] = _mixed(total[i], words[i])


@njit(cache=True, nogil=True)
def _fold_text(total: Any, data: Any, words: Any, starts: Any, ends: Any, column: Any) -> None:
    """Folds each text in; an empty one leaves the hash as it was, so that a column of nulls may be passed over."""
    for i in range(len(total)):
        at, end = starts[i], ends[i]
        if at == end:
            continue
        h = _mixed(total[i] + column, np.uint64(end - at))
        lane = h ^ _K2
        while at + 16 <= end:
            h = _mixed(h, words[at])
            lane = _mixed(lane, words[at + 8])
            at += 16
        if at + 8 <= end:
            h = _mixed(h, words[at])
            at += 8
        rest = np.uint64(0)
        while at < end:
            rest = (rest << np.uint64(8)) | np.uint64(data[at])
            at += 1
        total[i] = _mixed(_mixed(h, rest), lane)


@njit(cache=True, nogil=True)
def _slot(table: Any, key: Any) -> Any:
    mask = np.uint64(len(table) - 1)
    at = (key * _K1 >> _S32) & mask
    while table[at] != 0 and table[at] != key:
        at = (at + np.uint64(1)) & mask
    return at


@njit(cache=True, nogil=True)
def _mark(table: Any, contents: Any, keys: Any, marks_of: Any) -> Any:
    marks = np.zeros(len(keys), np.uint8)
    added = 0
    for i in range(len(keys)):
        at = _slot(table, keys[i])
        if table[at] == 0:
            table[at] = keys[i]
            contents[at] = marks_of[i]
            added += 1
        else:
            marks[i] = SAME if contents[at] == marks_of[i] else DIFFERENT
    return marks, added


@njit(cache=True, nogil=True)
def _move(table: Any, contents: Any, into: Any, into_contents: Any) -> None:
    for i in range(len(table)):
        if table[i] != 0:
            at = _slot(into, table[i])
            into[at] = table[i]
            into_contents[at] = contents[i]

"""Wording families: which exchanges were built from one wrapper, whatever was put into its slots.

A sketch (``fingerprints``) keeps the shingles at the head and tail of a text and a fair sample between. Over a log:

1. *recurrent* shingles are those seen at least ``MIN_ROWS`` times; the rest is slot text nobody else wrote;
2. two shingles are joined if one follows the other in most places where either occurs: phrases that every writer uses
   have many neighbours and stay alone. What hangs together is a *part*;
3. parts found in mostly the same rows (head and tail of one wrapper, sentences in any order) make a *group*;
4. a group that mostly occurs beside a far broader one is a *slot* that recurs, and does not split its wrapper; unless
   accounts keep to it: then it is the special end of a common head, and the better answer;
5. a row belongs to the group that explains most of it, counting varied groups and those its account uses much more.

Ids come from the keyed shingles, so they do not depend on the order of rows and agree between runs under one key.
Beside the sketches (192 B a row at width 48) it takes as much again for numbered shingles, about 40 B for each
recurrent shingle, 50 B for each group a row touches and buffers of ``BUFFER`` words: under 1.5 GB for 3 million rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

MIN_ROWS = 3
"""Rows a shingle, a pair of parts or a family must be seen in."""
MIN_SHINGLES = 5
"""Shingles a family's wrapper must have."""
MIN_MATCH = 3
"""Shingles of the wrapper a row must have, and at least ``MATCH_SHARE`` of it."""
MATCH_SHARE = 0.15
UNEVEN = 1.3
"""How much more common one of two shingles or parts of a wrapper may be, chance aside: an ending that half of the users
of a head have is no piece of the head."""
LOOK_AHEAD = 8
"""Places around a shingle searched for a neighbour."""
TOGETHER = 0.35
"""Two parts are of one wrapper if found together in this share of the rows of each and a margin for chance (long
texts are only sampled)."""
BROADER, SLOT_RATIO = 1.2, 5.0
"""How much broader (contents times repeats) a head is than its ending, and a wrapper than a slot others use too."""
MANY_CONTENTS = 12
"""Contents that make an ending a family where no account comes back."""
KEPT_TO = 0.5
"""Share of an account's rows of a common head in which it uses one ending, for that ending to be its own family."""
MAX_TOUCHED = 12
BUFFER = 1 << 25
MIN_FIXED, LONG = 0.09, 8
"""Mean share of a row's sketch a wrapper must make up unless it has LONG shingles; a phrase in long texts is less."""
_WIDE = 32
_BIN_BITS = 12

Matrix = npt.NDArray[np.uint32]
Ids = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

TABLE = pa.schema([
    pa.field("family", pa.int64()),
    pa.field("exchanges", pa.int64()),
    pa.field("accounts", pa.int64()),
    pa.field("contents", pa.int64()),
    pa.field("shingles", pa.int32()),
    pa.field("fixed", pa.float32()),
    pa.field("parent", pa.int64()),
])  # fmt: skip
"""A row per family: rows and accounts in it, different sketches among them (1: one text asked again), shingles of the
wrapper, mean share of a row's sketch that is wrapper, the family of the common head it ends (or 0)."""


@dataclass(frozen=True)
class Wrappers:
    """The wrappers of a log that was resolved, to know them again in rows that come later.

    ``shingles`` are sorted; ``group`` is the group of each, -1 for none. By group: ``need`` is how many of its shingles a
    row must have, ``rank`` and ``weight`` order those a row could belong to, ``name`` is the family, 0 where it is none.
    """

    shingles: Matrix
    group: Ids
    need: Ids
    rank: npt.NDArray[np.int8]
    weight: npt.NDArray[np.float64]
    name: Longs

    def assign(self, sketch: Matrix) -> Longs:
        """The family of each row of ``sketch``, 0 where it has none of these wrappers."""
        if not len(self.shingles) or not len(sketch):
            return np.zeros(len(sketch), np.int64)
        ids = _number([sketch], self.shingles)[0]
        _relabel(ids, self.group)
        row, group, match = _touch_block(ids, self.need)
        worth = self.rank[group] * 1e12 + match * self.weight[group]
        chosen, _ = _choose(row, group, match, worth, self.name, len(sketch))
        return np.where(chosen >= 0, self.name[chosen], 0)


@dataclass(frozen=True)
class Families:
    """``family`` gives each row its family, 0 for none; ``table`` (``TABLE``) describes them; ``wrappers`` knows them again."""

    family: Longs
    table: pa.Table
    wrappers: Wrappers


@dataclass(frozen=True)
class _Touched:
    """Groups each row has enough shingles of: a flat list of (row, group, shingles matched), rows in order."""

    row: Ids
    group: Ids
    match: npt.NDArray[np.int16]


@dataclass(frozen=True)
class _Groups:
    """Per group: shingles, rows, different contents, the common head it ends and whether it is a mere slot of it."""

    size: Ids
    rows: Longs
    contents: Longs
    parent: Ids
    slot: npt.NDArray[np.bool_]


def resolve(sketches: Sequence[Matrix] | Matrix, accounts: Ids) -> Families:
    """Families of rows by their sketches (one matrix, or several one below the other) and dense account numbers."""
    chunks = [sketches] if isinstance(sketches, np.ndarray) else list(sketches)
    if sum(len(c) for c in chunks) != len(accounts):
        raise ValueError(f"{sum(len(c) for c in chunks)} sketches for {len(accounts)} accounts")
    shingles, counts = _recurrent(chunks)
    none = Families(np.zeros(len(accounts), np.int64), TABLE.empty_table(), no_wrappers())
    if not len(shingles):
        return none
    ids = _number(chunks, shingles)
    parts, sizes = _parts(ids, counts)
    if not len(sizes):
        return none
    for block in ids:
        _relabel(block, parts)
    merged = _merge_parts(ids, sizes)
    for block in ids:
        _relabel(block, merged)
    group_of = np.where(parts >= 0, merged[parts], -1).astype(np.int32)
    size = np.bincount(merged, weights=sizes, minlength=int(merged.max(initial=-1)) + 1).astype(np.int32)
    touched, lengths, content = _touch(ids, chunks, size)
    del ids
    groups = _describe(touched, content, size, accounts)
    names = _names(shingles, counts, group_of, len(size))
    family, table = _families(touched, groups, lengths, content, accounts, names)
    return Families(family, table, _wrappers(shingles, group_of, groups, names, table))


def no_wrappers() -> Wrappers:
    """Of a log in which nothing was resolved: knows nothing again."""
    none = np.zeros(0, np.int32)
    return Wrappers(none.astype(np.uint32), none, none, none.astype(np.int8), none.astype(float), none.astype(np.int64))


def _wrappers(shingles: Matrix, group_of: Ids, groups: _Groups, names: Longs, table: pa.Table) -> Wrappers:
    """What is needed to know the families again; groups that became none are left out."""
    family = np.isin(names, table["family"].to_numpy())
    need = np.where(family, _needed(groups.size), 1 << 30).astype(np.int32)
    rank = np.where((groups.parent >= 0) & ~groups.slot, 2, np.where(groups.slot, 0, 1)).astype(np.int8)
    kept = group_of >= 0
    weight = np.log2(1.0 + np.minimum(groups.contents, 64))
    return Wrappers(shingles[kept], group_of[kept], need, rank, weight, np.where(family, names, 0))


def _needed(size: Ids) -> Ids:
    """How many shingles of a group of this size a row must have."""
    need = np.maximum(MIN_MATCH, np.ceil(MATCH_SHARE * np.minimum(size, _WIDE))).astype(np.int32)
    need[size < MIN_SHINGLES] = 1 << 30
    return need


def _recurrent(chunks: Sequence[Matrix]) -> tuple[Matrix, npt.NDArray[np.int32]]:
    """Shingles seen at least MIN_ROWS times, sorted, and how often; counted in slices of the hash range."""
    histogram = np.zeros(1 << _BIN_BITS, np.int64)
    for chunk in chunks:
        _histogram(chunk, histogram)
    found = [(np.zeros(0, np.uint32), np.zeros(0, np.int32))]
    for low, high in _slices(histogram, BUFFER):
        ends = np.cumsum(histogram[low:high])
        places, buffer = ends - histogram[low:high], np.empty(int(ends[-1]), np.uint32)
        for chunk in chunks:
            _scatter(chunk, low, places, buffer)
        found.append(_count_bins(buffer, ends, MIN_ROWS))
    return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])


def _slices(histogram: Longs, limit: int) -> Iterator[tuple[int, int]]:
    """Ranges of bins with at most ``limit`` values together (one bin may exceed it)."""
    low, total = 0, 0
    for at, count in enumerate(histogram.tolist()):
        if total and total + count > limit:
            yield low, at
            low, total = at, 0
        total += count
    if total:
        yield low, len(histogram)


def _number(chunks: Sequence[Matrix], shingles: Matrix) -> list[Ids]:
    """Each sketch with its shingles replaced by their place among the recurrent ones, -1 for the others."""
    bits = max(len(shingles).bit_length() - 1, 1)
    bounds = np.searchsorted(shingles, np.arange(1 << bits, dtype=np.uint64) << np.uint64(32 - bits)).astype(np.int32)
    bounds = np.append(bounds, np.int32(len(shingles)))
    sieve_bits = min(bits + 5, 32)
    sieve = _sieve(shingles, sieve_bits)
    return [_translate(chunk, shingles, bounds, bits, sieve, sieve_bits) for chunk in chunks]


def _parts(ids: Sequence[Ids], counts: Ids) -> tuple[Ids, Ids]:
    """Part of each recurrent shingle (-1 for one that hangs together with no other) and the shingles of each part."""
    after, before = _majority(ids, counts)
    root = _join(after, before, counts)
    return _dense(root, 2)


def _majority(ids: Sequence[Ids], counts: Ids) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """For each shingle the one that comes next, and before, in most places; rows (candidate, times). Majority vote:
    a true majority always survives the vote, so the outcome does not depend on the order of rows."""
    after, before = np.zeros((len(counts), 2), np.int32), np.zeros((len(counts), 2), np.int32)
    after[:, 0] = before[:, 0] = -1
    for block in ids:
        _vote(block, counts, after, before, False)
    after[:, 1] = before[:, 1] = 0
    for block in ids:
        _vote(block, counts, after, before, True)
    return after, before


def _dense(root: Ids, least: int) -> tuple[Ids, Ids]:
    """Numbers components from 0; -1 for those with fewer than ``least`` members. Gives also their sizes."""
    size = np.bincount(root, minlength=len(root))
    kept = np.flatnonzero(size >= least)
    number = np.full(len(root), -1, np.int32)
    number[kept] = np.arange(len(kept), dtype=np.int32)
    return number[root], size[kept].astype(np.int32)


def _merge_parts(ids: Sequence[Ids], sizes: Ids) -> Ids:
    """Group of each part: parts found in mostly the same rows are one wrapper."""
    rows = np.zeros(len(sizes), np.int64)
    for block in ids:
        _count_parts(block, rows)
    histogram = np.zeros(1 << _BIN_BITS, np.int64)
    for block in ids:
        _pair_histogram(block, rows, histogram)
    joined: list[Words] = []
    for low, high in _slices(histogram, BUFFER // 2):
        buffer = np.empty(int(histogram[low:high].sum()), np.uint64)
        used = 0
        for block in ids:
            used = _gather_pairs(block, rows, low, high, buffer, used)
        buffer.sort()
        keys, times = _runs(buffer, MIN_ROWS)
        left, right = (keys >> np.uint64(32)).astype(np.int64), (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
        most = np.maximum(rows[left], rows[right])
        joined.append(keys[times >= TOGETHER * most + 0.5 * np.sqrt(most)])
    root = np.arange(len(sizes), dtype=np.int32)
    _union_all(root, np.concatenate([np.zeros(0, np.uint64), *joined]))
    return _dense(root, 1)[0]


def _touch(ids: Sequence[Ids], chunks: Sequence[Matrix], size: Ids) -> tuple[_Touched, npt.NDArray[np.int16], Words]:
    """Groups each row touches; shingles and a hash of the whole sketch of each row."""
    need = _needed(size)
    found = [_touch_block(block, need) for block in ids]
    starts = np.cumsum([0] + [len(b) for b in ids])
    row = np.concatenate([f[0] + np.int32(s) for f, s in zip(found, starts)]).astype(np.int32)
    touched = _Touched(row, np.concatenate([f[1] for f in found]), np.concatenate([f[2] for f in found]))
    summed = [_row_marks(c) for c in chunks]
    return touched, np.concatenate([s[0] for s in summed]), np.concatenate([s[1] for s in summed])


def _describe(touched: _Touched, content: Words, size: Ids, accounts: Ids) -> _Groups:
    """Rows and contents of each group, then which groups are slots or endings of another."""
    rows = np.bincount(touched.group, minlength=len(size)).astype(np.int64)
    contents = _distinct(touched.group, content[touched.row], len(size))
    holdings, uses = _holdings(touched.group, accounts[touched.row])
    breadth = contents * _repeats(holdings, uses, rows)
    head, clear = _heads(touched.row, touched.group, breadth)
    parent = _parents(touched.group, head, clear, rows)
    slot = (parent == -2) | ((parent >= 0) & ~_kept_to(touched, head, parent, accounts, contents))
    return _Groups(size, rows, contents, parent, slot)


def _distinct(group: Ids, value: Words, size: int) -> Longs:
    """Different values per group."""
    keys = (group.astype(np.uint64) << np.uint64(32)) | (value >> np.uint64(32))
    keys.sort()
    first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    return np.bincount((keys[first] >> np.uint64(32)).astype(np.int64), minlength=size)


def _holdings(group: Ids, account: Ids) -> tuple[Words, Longs]:
    """Sorted (group, account) keys and the rows of each."""
    keys = (group.astype(np.uint64) << np.uint64(32)) | account.astype(np.uint64)
    keys.sort()
    kept: tuple[Words, Longs] = _runs(keys, 1)
    return kept


def _repeats(holdings: Words, uses: Longs, rows: Longs) -> npt.NDArray[np.float64]:
    """How often an account that uses a group comes back to it, on average over rows: 0.25 for never, at most 8.25.

    An account repeats its wrapper and varies what it puts in, so this tells the two apart where both recur.
    """
    squares = np.bincount(
        (holdings >> np.uint64(32)).astype(np.int64), weights=uses.astype(float) ** 2, minlength=len(rows)
    )
    return 0.25 + np.minimum(squares / np.maximum(rows, 1) - 1, 8).clip(0)


def _kept_to(touched: _Touched, head: Ids, parent: Ids, accounts: Ids, contents: Longs) -> npt.NDArray[np.bool_]:
    """Which nested groups are endings that accounts keep to, rather than slots each account fills in many ways.

    Of an account's other rows with the head, over ``KEPT_TO`` must have the ending too; several accounts must hold it,
    since what one account alone says is its own slot. Where accounts sent one row each nothing tells, and only an
    ending of many contents passes.
    """
    size = len(parent)
    account = accounts[touched.row]
    inside = (parent[touched.group] >= 0) & (parent[touched.group] == head)
    keys, uses = _holdings(touched.group[inside], account[inside])
    is_head = np.zeros(size, bool)
    is_head[parent[parent >= 0]] = True
    of_head = is_head[touched.group]
    held, totals = _holdings(touched.group[of_head], account[of_head])
    group = (keys >> np.uint64(32)).astype(np.int64)
    common = (parent[group].astype(np.uint64) << np.uint64(32)) | (keys & np.uint64(0xFFFFFFFF))
    total = totals[np.searchsorted(held, common)] if len(held) else np.ones(0, np.int64)
    telling = total >= 2
    kept = np.bincount(group, weights=uses * (uses - 1) / np.maximum(total - 1, 1) * telling, minlength=size)
    known = np.bincount(group, weights=uses * telling, minlength=size)
    rows = np.bincount(group, weights=uses, minlength=size)
    holders = np.bincount(group[uses >= 2], minlength=size)
    passes = (kept > KEPT_TO * known) & (holders >= 2) & (contents >= MIN_ROWS)
    return np.where(known >= 0.2 * np.maximum(rows, 1), passes, contents >= MANY_CONTENTS)


def _names(shingles: Matrix, counts: Ids, group_of: Ids, groups: int) -> Longs:
    """Id of each group: from the smallest of its shingles that are at least half as common as its commonest."""
    most, least = np.zeros(groups, np.int32), np.full(groups, 0xFFFFFFFF, np.uint32)
    inside = group_of >= 0
    np.maximum.at(most, group_of[inside], counts[inside])
    core = inside.copy()
    core[inside] = counts[inside] * 2 >= most[group_of[inside]]
    np.minimum.at(least, group_of[core], shingles[core])
    words = least.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    names: Longs = (words ^ (words >> np.uint64(31))).view(np.int64)
    return np.where(names == 0, 1, names)


def _families(
    touched: _Touched, groups: _Groups, lengths: npt.NDArray[np.int16], content: Words, accounts: Ids, names: Longs
) -> tuple[Longs, pa.Table]:
    """The family of each row, and ``TABLE``: chooses groups, drops those that are too little of too few rows, sums up."""
    worth = _worth(touched, groups, accounts)
    chosen, match = _choose(touched.row, touched.group, touched.match, worth, names, len(accounts))
    chosen, share = _enough(chosen, match / np.maximum(lengths, 1), groups.size)
    inside = np.flatnonzero(chosen >= 0)
    group = chosen[inside]
    exchanges = np.bincount(group, minlength=len(names))
    holders = _distinct(group, accounts[inside].astype(np.uint64) << np.uint64(32), len(names))
    contents = _distinct(group, content[inside], len(names))
    parents = np.where(groups.parent >= 0, names[np.maximum(groups.parent, 0)], 0)
    kept = np.flatnonzero(exchanges)
    columns: list[npt.NDArray[Any]] = [
        names,
        exchanges,
        holders,
        contents,
        groups.size,
        share.astype(np.float32),
        parents,
    ]
    table = pa.table([pa.array(c[kept]) for c in columns], schema=TABLE).sort_by("family")
    return np.where(chosen >= 0, names[chosen], 0), table


def _worth(touched: _Touched, groups: _Groups, accounts: Ids) -> npt.NDArray[np.float64]:
    """What each touched group is worth to its row: endings before heads, wrappers before slots; among equals what
    explains more of the row, is of more varied content, and is used more by this account than the others are."""
    ending = (groups.parent >= 0) & ~groups.slot
    rank = np.where(ending, 2, np.where(groups.slot, 0, 1))[touched.group]
    worth = touched.match * np.log2(1.0 + np.minimum(groups.contents, 64))[touched.group]
    rival = _rivals(touched.row, rank)
    uses = np.ones(len(worth))
    if rival.any():
        group, account = touched.group[rival], accounts[touched.row[rival]]
        held, times = _holdings(touched.group, accounts[touched.row])
        own = (group.astype(np.uint64) << np.uint64(32)) | account.astype(np.uint64)
        uses[rival] = times[np.searchsorted(held, own)]
    # Of several endings, one within the other, the rarest says most; a sliver of the head that was seldom sampled says
    # little, rare though it is.
    last = np.where(rank == 2, touched.match / np.maximum(groups.rows[touched.group], 1), worth * uses)
    result: npt.NDArray[np.float64] = rank * 1e12 + last
    return result


def _enough(chosen: Ids, share: npt.NDArray[np.float64], size: Ids) -> tuple[Ids, npt.NDArray[np.float64]]:
    """Keeps groups of MIN_ROWS rows whose wrapper is LONG or makes up MIN_FIXED of them; gives that share by group."""
    inside = chosen >= 0
    rows = np.bincount(chosen[inside], minlength=len(size))
    mean = np.bincount(chosen[inside], weights=share[inside], minlength=len(size)) / np.maximum(rows, 1)
    good = (rows >= MIN_ROWS) & ((mean >= MIN_FIXED) | (size >= LONG))
    return np.where(inside & good[np.maximum(chosen, 0)], chosen, -1).astype(np.int32), mean


@njit(cache=True, nogil=True)
def _histogram(sketch: Any, out: Any) -> None:
    shift = np.uint32(32 - _BIN_BITS)
    for s in sketch.ravel():
        if s != 0:
            out[s >> shift] += 1


@njit(cache=True, nogil=True)
def _scatter(sketch: Any, low: int, places: Any, out: Any) -> None:
    """Puts each shingle into its bin, counted from ``low``; ``places`` holds the next free place of each bin."""
    shift = np.uint32(32 - _BIN_BITS)
    for s in sketch.ravel():
        at = np.int64(s >> shift) - low
        if s != 0 and 0 <= at < len(places):
            out[places[at]] = s
            places[at] += 1


@njit(cache=True, nogil=True)
def _count_bins(values: Any, ends: Any, least: int) -> Any:
    """Values held at least ``least`` times, sorted, and how often; ``ends`` are those of bins in ascending order."""
    kept, times = np.empty(len(values) // least, np.uint32), np.empty(len(values) // least, np.int32)
    total: Any = 0
    start: Any = 0
    for end in ends:
        size = 16
        while size < 2 * (end - start):
            size *= 2
        table, count = np.zeros(size, np.uint32), np.zeros(size, np.int32)
        first = total
        for i in range(start, end):
            at = np.int64(values[i] * np.uint32(2654435769)) & (size - 1)
            while table[at] != 0 and table[at] != values[i]:
                at = (at + 1) & (size - 1)
            table[at] = values[i]
            count[at] += 1
        for k in range(size):
            if count[k] >= least:
                kept[total], times[total] = table[k], count[k]
                total += 1
        order = np.argsort(kept[first:total])
        kept[first:total], times[first:total] = kept[first:total][order], times[first:total][order]
        start = end
    return kept[:total], times[:total]


@njit(cache=True, nogil=True)
def _runs(values: Any, least: int) -> Any:
    """Values that a sorted array holds at least ``least`` times, and how often."""
    found, start = 0, 0
    for i in range(1, len(values) + 1):
        if i == len(values) or values[i] != values[start]:
            found += i - start >= least
            start = i
    kept, times = np.empty(found, values.dtype), np.empty(found, np.int64)
    at, start = 0, 0
    for i in range(1, len(values) + 1):
        if i == len(values) or values[i] != values[start]:
            if i - start >= least:
                kept[at], times[at] = values[start], i - start
                at += 1
            start = i
    return kept, times


@njit(cache=True, nogil=True)
def _sieve(shingles: Any, bits: int) -> Any:
    """A bit for each value of the top ``bits`` that some shingle has."""
    out = np.zeros((1 << bits) // 64, np.uint64)
    for s in shingles:
        at = s >> np.uint32(32 - bits)
        out[at >> np.uint32(6)] |= np.uint64(1) << np.uint64(at & np.uint32(63))
    return out


@njit(cache=True, nogil=True)
def _translate(sketch: Any, shingles: Any, bounds: Any, bits: int, sieve: Any, sieve_bits: int) -> Any:
    out = np.full(sketch.shape, -1, np.int32)
    for i in range(sketch.shape[0]):
        for j in range(sketch.shape[1]):
            s = sketch[i, j]
            at = s >> np.uint32(32 - sieve_bits)
            if s == 0 or not (sieve[at >> np.uint32(6)] >> np.uint64(at & np.uint32(63))) & np.uint64(1):
                continue
            bucket = s >> np.uint32(32 - bits)
            k = bounds[bucket]
            while k < bounds[bucket + 1] and shingles[k] < s:
                k += 1
            if k < bounds[bucket + 1] and shingles[k] == s:
                out[i, j] = k
    return out


@njit(cache=True, nogil=True)
def _cast(ballot: Any, other: int) -> None:
    """One vote for ``other`` in a majority vote: (candidate, lead)."""
    if ballot[0] == other:
        ballot[1] += 1
    elif ballot[1] == 0:
        ballot[0], ballot[1] = other, 1
    else:
        ballot[1] -= 1


@njit(cache=True, nogil=True)
def _neighbours(row: Any, counts: Any, near: Any, number: Any, limit: Any) -> int:
    """For each recurrent shingle of a row, its nearest other one after and before that is about as common, passing
    over rarer and commoner ones (slots, synonyms, stock phrases): rows (shingle, after, before) of ``near``, -1 for
    none among the next ``LOOK_AHEAD``. Gives how many rows; ``number`` and ``limit`` are room to work in."""
    n = 0
    for j in range(len(row)):
        if row[j] >= 0 and (n == 0 or near[n - 1, 0] != row[j]):
            near[n, 0], near[n, 1], near[n, 2] = row[j], -1, -1
            number[n] = counts[row[j]]
            limit[n] = UNEVEN * number[n] + 2 * np.sqrt(number[n])
            n += 1
    for j in range(n):
        for k in range(j + 1, min(n, j + 1 + LOOK_AHEAD)):
            if number[k] <= limit[j] and number[j] <= limit[k] and near[k, 0] != near[j, 0]:
                near[j, 1] = near[k, 0]
                break
        for k in range(j - 1, max(-1, j - 1 - LOOK_AHEAD), -1):
            if number[k] <= limit[j] and number[j] <= limit[k] and near[k, 0] != near[j, 0]:
                near[j, 2] = near[k, 0]
                break
    return n


@njit(cache=True, nogil=True)
def _vote(ids: Any, counts: Any, after: Any, before: Any, final: bool) -> None:
    """Majority votes on the neighbours of each shingle; if ``final``, counts the votes of the candidates instead."""
    width = ids.shape[1]
    near, number, limit = np.empty((width, 3), np.int32), np.empty(width), np.empty(width)
    for i in range(ids.shape[0]):
        for j in range(_neighbours(ids[i], counts, near, number, limit)):
            a, b, c = near[j, 0], near[j, 1], near[j, 2]
            if final:
                after[a, 1] += b >= 0 and after[a, 0] == b
                before[a, 1] += c >= 0 and before[a, 0] == c
                continue
            if b >= 0:
                _cast(after[a], b)
            if c >= 0:
                _cast(before[a], c)


@njit(cache=True, nogil=True)
def _root(root: Any, i: Any) -> Any:
    while root[i] != i:
        root[i] = root[root[i]]
        i = root[i]
    return i


@njit(cache=True, nogil=True)
def _union(root: Any, a: int, b: int) -> None:
    a, b = _root(root, a), _root(root, b)
    if a < b:
        root[b] = a
    elif b < a:
        root[a] = b


@njit(cache=True, nogil=True)
def _union_all(root: Any, pairs: Any) -> None:
    for key in pairs:
        _union(root, np.int64(key >> np.uint64(32)), np.int64(key & np.uint64(0xFFFFFFFF)))
    for i in range(len(root)):
        root[i] = _root(root, i)


@njit(cache=True, nogil=True)
def _even(a: int, b: int) -> bool:
    """Whether two counts are about the same, chance aside, so that both could be of one wrapper."""
    least = min(a, b)
    return max(a, b) <= UNEVEN * least + 2 * np.sqrt(least)


@njit(cache=True, nogil=True)
def _join(after: Any, before: Any, counts: Any) -> Any:
    """Components of shingles of which one follows the other most of the time."""
    root = np.arange(len(counts)).astype(np.int32)
    for side in (after, before):
        for a in range(len(counts)):
            b, times = side[a, 0], side[a, 1]
            if b >= 0 and 2 * times > counts[a]:
                _union(root, a, b)
    for i in range(len(root)):
        root[i] = _root(root, i)
    return root


@njit(cache=True, nogil=True)
def _relabel(ids: Any, label: Any) -> None:
    for i in range(ids.shape[0]):
        for j in range(ids.shape[1]):
            if ids[i, j] >= 0:
                ids[i, j] = label[ids[i, j]]


@njit(cache=True, nogil=True)
def _tally(row: Any, labels: Any, times: Any) -> int:
    """The different labels of a row, in order of first place, and how often each occurs; gives how many."""
    n, last = 0, -1
    for j in range(len(row)):
        a = row[j]
        if a < 0:
            continue
        if last >= 0 and labels[last] == a:
            times[last] += 1
            continue
        last = 0
        while last < n and labels[last] != a:
            last += 1
        if last == n:
            labels[n], times[n] = a, 0
            n += 1
        times[last] += 1
    return n


@njit(cache=True, nogil=True)
def _count_parts(ids: Any, rows: Any) -> None:
    labels, times = np.empty(ids.shape[1], np.int32), np.empty(ids.shape[1], np.int32)
    for i in range(ids.shape[0]):
        for k in range(_tally(ids[i], labels, times)):
            rows[labels[k]] += 1


@njit(cache=True, nogil=True)
def _bin(a: int) -> int:
    return ((a * 2654435761) >> 8) & ((1 << _BIN_BITS) - 1)


@njit(cache=True, nogil=True)
def _pair_histogram(ids: Any, rows: Any, out: Any) -> None:
    labels, times = np.empty(ids.shape[1], np.int32), np.empty(ids.shape[1], np.int32)
    for i in range(ids.shape[0]):
        n = _tally(ids[i], labels, times)
        for k in range(n):
            for m in range(k):
                if _even(rows[labels[k]], rows[labels[m]]):
                    out[_bin(min(labels[k], labels[m]))] += 1


@njit(cache=True, nogil=True)
def _gather_pairs(ids: Any, rows: Any, low: int, high: int, out: Any, used: int) -> int:
    """Appends the pairs of parts found together in a row whose bin lies in ``[low, high)``."""
    labels, times = np.empty(ids.shape[1], np.int32), np.empty(ids.shape[1], np.int32)
    for i in range(ids.shape[0]):
        n = _tally(ids[i], labels, times)
        for k in range(n):
            for m in range(k):
                a, b = min(labels[k], labels[m]), max(labels[k], labels[m])
                if _even(rows[a], rows[b]) and low <= _bin(a) < high:
                    out[used] = (np.uint64(a) << np.uint64(32)) | np.uint64(b)
                    used += 1
    return used


@njit(cache=True, nogil=True)
def _touch_block(ids: Any, need: Any) -> Any:
    """(row, group, match) for each group a row has enough shingles of; the best ``MAX_TOUCHED`` of a row."""
    labels, times = np.empty(ids.shape[1], np.int32), np.empty(ids.shape[1], np.int32)
    total = 0
    for turn in range(2):
        if turn == 1:
            row, group, match = np.empty(total, np.int32), np.empty(total, np.int32), np.empty(total, np.int16)
        at = 0
        for i in range(ids.shape[0]):
            n, taken = _tally(ids[i], labels, times), 0
            for k in range(n):
                if times[k] >= need[labels[k]] and taken < MAX_TOUCHED:
                    if turn == 1:
                        row[at], group[at], match[at] = i, labels[k], times[k]
                    at += 1
                    taken += 1
        total = at
    return row, group, match


@njit(cache=True, nogil=True)
def _row_marks(sketch: Any) -> Any:
    """Shingles in each row, and a hash of them all."""
    lengths, content = np.zeros(sketch.shape[0], np.int16), np.zeros(sketch.shape[0], np.uint64)
    for i in range(sketch.shape[0]):
        h, n = np.uint64(0), 0
        for j in range(sketch.shape[1]):
            s = np.uint64(sketch[i, j])
            n += s != 0
            h = (h ^ s) * np.uint64(0x9E3779B97F4A7C15)
            h ^= h >> np.uint64(29)
        lengths[i], content[i] = n, h * np.uint64(0xC4CEB9FE1A85EC53)
    return lengths, content


@njit(cache=True, nogil=True)
def _heads(row: Any, group: Any, breadth: Any) -> Any:
    """For each touched group the broadest other group of its row, or -1 if it is about as broad itself; and whether
    that one is clearly broader."""
    out, clear = np.full(len(row), -1, np.int32), np.zeros(len(row), np.bool_)
    start = 0
    for i in range(1, len(row) + 1):
        if i < len(row) and row[i] == row[start]:
            continue
        top = start
        for k in range(start + 1, i):
            a, b = breadth[group[k]], breadth[group[top]]
            if a > b or (a == b and group[k] < group[top]):
                top = k
        for k in range(start, i):
            if breadth[group[top]] >= BROADER * breadth[group[k]]:
                out[k] = group[top]
                clear[k] = breadth[group[top]] >= SLOT_RATIO * breadth[group[k]]
        start = i
    return out, clear


@njit(cache=True, nogil=True)
def _parents(group: Any, head: Any, clear: Any, rows: Any) -> Any:
    """The head each group has in nearly all of its rows; -2 if clearly broader ones, not always the same, stand in
    most of them; -1 if none."""
    ballot, under = np.zeros((len(rows), 2), np.int32), np.zeros((len(rows), 2), np.int64)
    ballot[:, 0] = -1
    for i in range(len(group)):
        if head[i] >= 0:
            _cast(ballot[group[i]], head[i])
    for i in range(len(group)):
        g = group[i]
        under[g, 0] += head[i] >= 0 and ballot[g, 0] == head[i]
        under[g, 1] += clear[i]
    out = np.full(len(rows), -1, np.int32)
    for g in range(len(rows)):
        if under[g, 0] >= 0.8 * rows[g] and rows[g] > 0:
            out[g] = ballot[g, 0]
        elif 2 * under[g, 1] > rows[g]:
            out[g] = -2
    return out


@njit(cache=True, nogil=True)
def _rivals(row: Any, rank: Any) -> Any:
    """Which touched groups share their row with another of the same rank."""
    out = np.zeros(len(row), np.bool_)
    for i in range(len(row)):
        j = i - 1
        while j >= 0 and row[j] == row[i]:
            if rank[j] == rank[i]:
                out[i] = out[j] = True
            j -= 1
    return out


@njit(cache=True, nogil=True)
def _choose(row: Any, group: Any, match: Any, worth: Any, names: Any, size: int) -> Any:
    """The group of each row that is worth most (-1: none) and how many of its shingles the row has."""
    chosen, matched = np.full(size, -1, np.int32), np.zeros(size, np.int16)
    best = np.full(size, -1.0)
    for i in range(len(row)):
        g, r = group[i], row[i]
        if worth[i] > best[r] or (worth[i] == best[r] and names[g] < names[chosen[r]]):
            best[r], chosen[r], matched[r] = worth[i], g, match[i]
    return chosen, matched

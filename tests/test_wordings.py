"""Wording families: one wrapper one family, strangers none, whatever fills the slots."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pyarrow as pa
import pytest

from stillwatch.fingerprints.prompt import read
from stillwatch.privacy import Privacy
from stillwatch.tables import SKETCH_WIDTH
from stillwatch.wordings import TABLE, Families, no_wrappers, resolve

PRIVACY = Privacy(b"a key for the tests of wordings")
Write = Callable[[], list[str]]


class Speaker:
    """Free text with the statistics of speech: few words common, many rare, and stock phrases that everybody uses."""

    def __init__(self, seed: int, words: int = 20000) -> None:
        self.rng = np.random.default_rng(seed)
        letters = self.rng.integers(97, 123, (words, 9)).astype(np.uint8)
        sizes = self.rng.integers(2, 10, words)
        self.words = [bytes(row[:size]).decode() for row, size in zip(letters, sizes, strict=True)]
        weights = 1 / np.arange(1, words + 1) ** 0.9
        self.cumulative = np.cumsum(weights / weights.sum())
        self.phrases = [self.say(int(n)) for n in self.rng.integers(2, 5, 200)]

    def say(self, count: int) -> list[str]:
        found = np.searchsorted(self.cumulative, self.rng.random(count))
        return [self.words[min(i, len(self.words) - 1)] for i in found]

    def talk(self, low: int = 10, high: int = 400) -> list[str]:
        """Free text of ``low`` to ``high`` words, a stock phrase in every thirty."""
        text = self.say(int(self.rng.integers(low, high + 1)))
        for _ in range(len(text) // 30):
            at = int(self.rng.integers(len(text)))
            text[at:at] = self.phrases[int(len(self.phrases) * self.rng.random() ** 2)]
        return text

    def reworded(self, text: list[str], share: float = 0.2) -> list[str]:
        return [self.say(1)[0] if self.rng.random() < share else word for word in text]


def sketches(texts: list[str]) -> np.ndarray:
    return read(pa.array(texts, pa.large_string()), PRIVACY, SKETCH_WIDTH).sketch


def family_of(texts: list[str], accounts: np.ndarray) -> Families:
    return resolve(sketches(texts), accounts.astype(np.int32))


@cache
def strangers() -> np.ndarray:
    """Sketches of free text by 800 accounts, five each."""
    speaker = Speaker(7)
    return sketches([" ".join(speaker.talk()) for _ in range(4000)])


def campaign(
    make: Callable[[Speaker], Write], *, wrappers: int = 12, rows: int = 40, accounts: int = 10
) -> tuple[list[float], int]:
    """Wrappers among strangers' free text, shuffled. Gives each wrapper's share of rows in one family that it does not
    share with another, and the strangers in any family."""
    speaker = Speaker(7)
    speaker.rng = np.random.default_rng(70)
    writers = [make(speaker) for _ in range(wrappers)]
    sketch = sketches([" ".join(write()) for write in writers for _ in range(rows)])
    owner = np.append(np.repeat(np.arange(wrappers), rows), np.full(len(strangers()), -1))
    account = np.repeat(np.arange(wrappers), rows) * accounts + np.tile(np.arange(rows) % accounts, wrappers)
    account = np.append(account, 10**6 + np.arange(len(strangers())) // 5).astype(np.int32)
    order = speaker.rng.permutation(len(owner))
    found, owner = resolve(np.concatenate([sketch, strangers()])[order], account[order]).family, owner[order]
    return [largest(found, owner, w) for w in range(wrappers)], int((found[owner < 0] != 0).sum())


def largest(family: np.ndarray, owner: np.ndarray, wrapper: int) -> float:
    values, counts = np.unique(family[(owner == wrapper) & (family != 0)], return_counts=True)
    if not len(values):
        return 0.0
    best = values[np.argmax(counts)]
    return 0.0 if set(owner[family == best].tolist()) - {wrapper, -1} else counts.max() / (owner == wrapper).sum()


def plain(head: int, tail: int = 0) -> Callable[[Speaker], Write]:
    def make(s: Speaker) -> Write:
        first, last = s.say(head), s.say(tail)
        return lambda: first + s.talk() + last

    return make


def reworded(head: int, tail: int = 0) -> Callable[[Speaker], Write]:
    def make(s: Speaker) -> Write:
        first, last = s.say(head), s.say(tail)
        return lambda: s.reworded(first) + s.talk() + s.reworded(last)

    return make


def prefixed(head: int) -> Callable[[Speaker], Write]:
    def make(s: Speaker) -> Write:
        first = s.say(head)
        return lambda: s.say(int(s.rng.integers(5, 11))) + first + s.talk()

    return make


def reordered(sentences: int, length: int) -> Callable[[Speaker], Write]:
    def make(s: Speaker) -> Write:
        parts = [s.say(length) for _ in range(sentences)]
        return lambda: [w for i in s.rng.permutation(sentences) for w in parts[i]] + s.talk()

    return make


def recurring_slots(head: int, slots: int, tail: int = 0) -> Callable[[Speaker], Write]:
    def make(s: Speaker) -> Write:
        first, last, pool = s.say(head), s.say(tail), [s.talk() for _ in range(slots)]
        return lambda: first + pool[int(s.rng.integers(slots))] + last

    return make


def shared_slots(head: int, slots: int) -> Callable[[Speaker], Write]:
    pool: list[list[str]] = []

    def make(s: Speaker) -> Write:
        pool.extend(s.talk() for _ in range(slots - len(pool)))
        first = s.say(head)
        return lambda: first + pool[int(s.rng.integers(slots))]

    return make


def common_head(head: int, tail: int) -> Callable[[Speaker], Write]:
    shared: list[str] = []

    def make(s: Speaker) -> Write:
        shared.extend(s.say(head - len(shared)))
        last = s.say(tail)
        return lambda: shared + s.talk(10, 200) + last

    return make


CASES = {
    "wrapper of 30 words": (plain(30), {}, 0.98),
    "wrapper of 8 words": (plain(8), {}, 0.98),
    "wrapper of 8 words at the end": (plain(0, 8), {}, 0.98),
    "head and tail": (plain(7, 7), {}, 0.98),
    "three accounts, two exchanges each": (plain(20), {"rows": 6, "accounts": 3, "wrappers": 30}, 0.98),
    "one account": (plain(20), {"rows": 6, "accounts": 1}, 0.98),
    "a fifth of the words changed": (reworded(40), {}, 0.8),
    "a fifth changed, short": (reworded(20), {}, 0.8),
    "a fifth changed, head and tail": (reworded(20, 20), {}, 0.9),
    "random prefix": (prefixed(20), {}, 0.98),
    "random prefix, short": (prefixed(10), {}, 0.95),
    "sentences reordered": (reordered(4, 12), {}, 0.7),
    "slots recur": (recurring_slots(8, 10), {}, 0.98),
    "few slots recur": (recurring_slots(8, 5, 8), {}, 0.98),
    "wrappers share slots": (shared_slots(8, 60), {}, 0.98),
    "endings of a common head": (common_head(40, 15), {}, 0.98),
    "endings of a common head, an account each": (common_head(40, 15), {"accounts": 40}, 0.98),
}


@pytest.mark.parametrize("name", CASES)
def test_one_wrapper_is_one_family(name: str) -> None:
    make, settings, least = CASES[name]
    shares, joined = campaign(make, **settings)
    assert np.mean(shares) >= least, np.sort(shares)
    assert joined <= 2


def test_strangers_are_not_joined() -> None:
    """Free text with stock phrases: less than one pair in a million in one family."""
    speaker = Speaker(1)
    count = 20000
    found = family_of([" ".join(speaker.talk(5, 120)) for _ in range(count)], np.arange(count))
    sizes = found.table["exchanges"].to_numpy().astype(float)
    assert (sizes * (sizes - 1) / 2).sum() <= 1e-6 * count * (count - 1) / 2


def test_a_stock_phrase_of_six_words_is_no_family() -> None:
    speaker = Speaker(2)
    phrase = speaker.say(6)
    texts = [speaker.talk(30, 200) for _ in range(1500)]
    for text in texts[::10]:
        at = int(speaker.rng.integers(len(text)))
        text[at:at] = phrase
    found = family_of([" ".join(t) for t in texts], np.arange(len(texts)))
    assert (found.family != 0).mean() < 0.002


def test_chinese() -> None:
    rng = np.random.default_rng(3)

    def chars(count: int) -> str:
        return "".join(chr(0x4E00 + int(2500 * rng.random() ** 2)) for _ in range(count))

    wrappers = [chars(24) for _ in range(8)]
    texts = [w + "：" + chars(int(rng.integers(10, 300))) for w in wrappers for _ in range(30)]
    texts += [chars(int(rng.integers(10, 300))) for _ in range(3000)]
    owner = np.append(np.repeat(np.arange(8), 30), np.full(3000, -1))
    found = family_of(texts, np.arange(len(texts)) // 3)
    assert min(largest(found.family, owner, w) for w in range(8)) >= 0.98
    assert not (found.family[owner < 0] != 0).any()


def mixed(seed: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Sketches and accounts with plain, recurring and nested wrappers among strangers."""
    s = Speaker(seed)
    makers = [plain(12), recurring_slots(10, 4), common_head(30, 12), common_head(30, 12), reworded(30)]
    texts = [" ".join(write()) for write in (make(s) for make in makers) for _ in range(40)]
    texts += [" ".join(s.talk()) for _ in range(1500)]
    return sketches(texts), (np.arange(len(texts)) // 4).astype(np.int32)


def test_the_order_of_rows_and_their_split_do_not_matter() -> None:
    sketch, accounts = mixed()
    order = np.random.default_rng(5).permutation(len(sketch))
    straight, shuffled = resolve(sketch, accounts), resolve(sketch[order], accounts[order])
    assert (straight.family != 0).sum() > 150
    assert np.array_equal(straight.family[order], shuffled.family)
    assert straight.table.equals(shuffled.table)
    split = resolve([sketch[:7], sketch[7:7], sketch[7:900], sketch[900:]], accounts)
    assert np.array_equal(split.family, straight.family)


def test_a_family_keeps_its_id_when_more_rows_come() -> None:
    speaker = Speaker(6)
    head = speaker.say(20)
    texts = [" ".join(head + speaker.talk()) for _ in range(60)] + [" ".join(speaker.talk()) for _ in range(500)]
    early, late = texts[:20] + texts[60:200], texts
    first = family_of(early, np.arange(len(early))).family
    later = family_of(late, np.arange(len(late))).family
    assert first[0] == later[0] != 0


def test_the_table_counts() -> None:
    speaker = Speaker(8)
    head = speaker.say(15)
    texts = [" ".join(head + speaker.say(5)) for _ in range(4)]
    texts += [texts[0]] * 2
    found = family_of(texts, np.array([0, 0, 1, 2, 2, 2]))
    assert found.table.schema.equals(TABLE)
    row = found.table.to_pylist()
    assert len(row) == 1
    assert (row[0]["family"], row[0]["exchanges"], row[0]["accounts"], row[0]["contents"]) == (found.family[0], 6, 3, 4)
    assert row[0]["shingles"] >= 13
    assert 0.6 < row[0]["fixed"] <= 1


def test_nothing_gives_nothing() -> None:
    for sketch in (
        np.zeros((0, 48), np.uint32),
        np.zeros((3, 48), np.uint32),
        np.arange(1, 97, dtype=np.uint32).reshape(2, 48),
    ):
        found = resolve(sketch, np.zeros(len(sketch), np.int32))
        assert not found.family.any()
        assert len(found.family) == len(sketch)
        assert found.table.num_rows == 0
    assert not len(resolve([], np.zeros(0, np.int32)).family)


def test_rows_and_accounts_must_agree() -> None:
    with pytest.raises(ValueError, match="2 sketches for 3 accounts"):
        resolve(np.zeros((2, 48), np.uint32), np.zeros(3, np.int32))


def test_rare_wrappers_and_huge_families_side_by_side() -> None:
    """Straight from sketches: a family of half the rows and one of a thousandth, slots from a pool, all found whole."""
    rng = np.random.default_rng(9)
    sketch = rng.integers(1, 2**32 - 1, (40000, 48), dtype=np.uint32)
    pool = rng.integers(1, 2**32 - 1, (500, 30), dtype=np.uint32)
    sketch[:20000, :16] = rng.integers(1, 2**32 - 1, 16, dtype=np.uint32)
    sketch[:20000, 16:46] = pool[rng.integers(0, 500, 20000)]
    sketch[20000:20040, :7] = rng.integers(1, 2**32 - 1, 7, dtype=np.uint32)
    found = resolve(sketch, rng.integers(0, 9000, 40000).astype(np.int32)).family
    assert len(set(found[:20000].tolist())) == len(set(found[20000:20040].tolist())) == 1
    assert len(set(found.tolist())) == 3


@cache
def many_wrappers() -> tuple[np.ndarray, np.ndarray]:
    """Rows and accounts: wrappers of many kinds among free text, in a random order."""
    speaker = Speaker(7)
    speaker.rng = np.random.default_rng(71)
    kinds = (plain(40), plain(12, 12), prefixed(30), reworded(60, 20))
    writers = [kinds[k % len(kinds)](speaker) for k in range(16)]
    sketch = np.concatenate([sketches([" ".join(write()) for write in writers for _ in range(40)]), strangers()])
    account = np.concatenate(
        [np.arange(640) // 40 * 10 + np.arange(640) % 10, 10**6 + np.arange(len(strangers())) // 5]
    )
    order = speaker.rng.permutation(len(account))
    return sketch[order], account[order].astype(np.int32)


def test_wrappers_know_again_the_rows_they_were_found_in() -> None:
    sketch, account = many_wrappers()
    found = resolve(sketch, account)
    again = found.wrappers.assign(sketch)
    in_one = found.family != 0
    assert in_one.sum() >= 400
    assert (again[in_one] == found.family[in_one]).mean() >= 0.9
    assert (again[~in_one] != 0).mean() < 0.02


def test_wrappers_know_again_rows_that_come_later() -> None:
    """Resolved on the first half; the second half's rows are told the family they would have had."""
    sketch, account = many_wrappers()
    half = len(account) // 2
    early, whole = resolve(sketch[:half], account[:half]), resolve(sketch, account)
    later = early.wrappers.assign(sketch[half:])
    known = np.isin(whole.family[half:], early.table["family"].to_numpy())
    assert known.sum() >= 200
    assert (later[known] == whole.family[half:][known]).mean() >= 0.9


def test_each_row_is_assigned_by_itself() -> None:
    sketch, account = many_wrappers()
    wrappers = resolve(sketch, account).wrappers
    whole = wrappers.assign(sketch)
    order = np.random.default_rng(1).permutation(len(sketch))[:500]
    assert np.array_equal(wrappers.assign(sketch[order]), whole[order])
    assert np.array_equal(wrappers.assign(sketch[:1]), whole[:1])


def test_what_was_never_resolved_knows_nothing_again() -> None:
    sketch, _ = many_wrappers()
    assert not no_wrappers().assign(sketch[:50]).any()
    assert resolve(sketch[:0], np.zeros(0, np.int32)).wrappers.assign(sketch[:50]).tolist() == [0] * 50
    assert len(resolve(*many_wrappers()).wrappers.assign(sketch[:0])) == 0
